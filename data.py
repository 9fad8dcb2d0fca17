"""Text -> tokeniser -> shards -> languages -> the mixture that a run reads (sections 3 and 4 of the paper).

    python data.py                                    # data/pydocs: 21 MB of docstrings, as characters
    python data.py --corpus eltec                     # data/eltec: English and French novels (downloads)
    python data.py --corpus books --max-tokens 1.3e9  # the paper's scale, from the Hugging Face hub
    python data.py --name novels --text en=DIR --text fr=DIR
                                                      # your own files below DIR: .txt (a document each) and
                                                      # .jsonl (a document a line, {"text": "..."}), also .gz
    python data.py --describe data/novels             # languages, tokens per word, shared pieces
    python data.py --verify data/novels               # compare every file with its hash in meta.json

data/NAME/ then holds meta.json (recipe, counts, hashes) and, for each language, a tokeniser (en.model), the
tokens to train on (en_train_000.bin) and the held-out tokens (en_test_000.bin). <eod> ends each document.

* A language is a stream of tokens and a lookup table from the language's own ids to joint ids. Clones share
  one stream, and their tables differ by multiples of V, the number of pieces. The model reads joint ids only.
* A sequence depends only on its number and the run's settings. So one process or eight read the same, a
  resumed run reads as if never stopped, and runs with different shares read each text in the same order.
"""

import argparse
import hashlib
import importlib
import io
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import chain, combinations, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sentencepiece

from common import Parser, Progress, UserError, exclusive, markdown, number, read_json, run_script, write
from text import SPLIT_BY, SPLITS, choose_split, digest_of, files_as_text, find_files, listed, split_documents

DATA = Path("data")
CORPORA = ("pydocs", "eltec", "books")  # scripts in corpora/ that write text below data/downloads
VERSION = 2  # version of meta.json's format
SAMPLE = 50_000_000  # approximate bytes of text, drawn from the whole corpus, to train a tokeniser on
SHARD = 100_000_000  # approximate tokens in a file
BATCH = 4_000_000  # approximate characters that all cores tokenise at a time


# --- tokeniser ------------------------------------------------------------------------------------

PAD, UNKNOWN, END_OF_DOCUMENT = 0, 1, 2  # the first pieces of every tokeniser; 0 is padding in every language
PART = 50_000  # characters after which a long text is cut
SPACE = "\u2581"  # how SentencePiece writes a space
# A line of `align.py --parallel` may contain U+2581 itself. No cut is made beside it, because a piece of
# several spaces could cross the cut.
SPACE_BETWEEN_WORDS = re.compile(f"(?<=[^\\s{SPACE}]) (?=[^\\s{SPACE}])")
Tokenizer = sentencepiece.SentencePieceProcessor
PIECES = {
    # A character without a piece is spelled in bytes, so no token is unknown and decoding restores the text.
    "bpe": {"byte_fallback": True, "allow_whitespace_only_pieces": True},
    # Every character, the line feed too, is a piece, except for the rarest, 1 in 5,000, which are unknown.
    "char": {"character_coverage": 0.9998, "hard_vocab_limit": False, "user_defined_symbols": "\n"},
}


def train_tokenizer(lines: list[str], vocab_size: int, pieces: str) -> bytes:
    """A SentencePiece model of `vocab_size` pieces (char: at most as many); UserError if they do not fit."""
    model = io.BytesIO()
    parts = []  # SentencePiece leaves out lines of a megabyte and ends the process at words of 65,536 letters
    for line in lines:
        parts += [line[begin : begin + PART] for begin in range(0, len(line), PART)]
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(parts),
            model_writer=model,
            model_type=pieces,
            vocab_size=vocab_size,
            pad_id=PAD,
            unk_id=UNKNOWN,
            eos_id=END_OF_DOCUMENT,
            bos_id=-1,
            eos_piece="<eod>",
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            max_sentence_length=1 << 20,
            minloglevel=2,
            num_threads=16,  # the same on all machines, because the model file stores it
            **PIECES[pieces],
        )
    except RuntimeError as error:
        reason = str(error).split("] ")[-1].split(" Increase")[0]
        raise UserError(f"--vocab-size {vocab_size} does not fit this text; change it ({reason})") from None
    return model.getvalue()


def encode(tokenizer: Tokenizer, texts: list[str]) -> list[np.ndarray]:
    """The (n,) uint16 ids of each text as a whole, <eod> last; all cores encode parts of the texts."""
    texts = [cut_at_spaces(text) for text in texts]
    ids_of_parts = iter(tokenizer.encode(list(chain.from_iterable(texts))))
    encoded = []
    for parts in texts:
        ids = chain.from_iterable(islice(ids_of_parts, len(parts)))
        encoded.append(np.array([*ids, END_OF_DOCUMENT], np.uint16))
    return encoded


def cut_at_spaces(text: str) -> list[str]:
    """Cut at the first space after each PART characters: SentencePiece needs hundreds of bytes for each.

    The space at a cut is dropped, because SentencePiece adds a space before every part.
    """
    parts, begin = [], 0
    while len(text) - begin > PART:
        space = SPACE_BETWEEN_WORDS.search(text, begin + PART)
        if space is None:
            break
        parts.append(text[begin : space.start()])
        begin = space.end()
    return [*parts, text[begin:]]


def surface_forms(tokenizer: Tokenizer) -> list[str]:
    """The tokeniser's pieces in the order of their ids."""
    return tokenizer.id_to_piece(list(range(len(tokenizer))))


def token_bytes(tokenizer: Tokenizer, ids: np.ndarray, text_bytes: int) -> np.ndarray:
    """The bytes of text that each token stands for: (n,) own ids of whole documents -> (n,), float.

    Unknown tokens divide equally the bytes of `text_bytes` that other tokens leave. The space that
    SentencePiece adds before every document is not in the text and is subtracted.
    """
    forms = surface_forms(tokenizer)
    of_piece = np.array([len(form.replace(SPACE, " ").encode()) for form in forms], float)
    of_piece[tokenizer.is_byte(list(range(len(forms))))] = 1
    of_piece[[PAD, UNKNOWN, END_OF_DOCUMENT]] = 0
    sizes = of_piece[ids]

    first = np.append(True, ids[:-1] == END_OF_DOCUMENT)  # whether a token is the first of its document
    begins_with_space = np.array([form.startswith(SPACE) for form in forms])
    sizes[first & begins_with_space[ids]] -= 1
    unknown = ids == UNKNOWN
    sizes[unknown] = (text_bytes - sizes.sum()) / max(1, unknown.sum())
    return sizes


# --- shards ---------------------------------------------------------------------------------------

COUNTS = ("documents", "tokens", "words", "characters", "bytes", "unknown")  # of each split
MAGIC, SHARD_VERSION, HEADER = 20240520, 1, 256  # as llm.c and modded-nanogpt read and write them


class ShardWriter:
    """Writes one split's documents into shards: 256 int32 of header, then uint16 tokens."""

    def __init__(self, folder: Path, prefix: str, offset: int, vocab_size: int):
        self.folder, self.prefix, self.offset, self.vocab_size = folder, prefix, offset, vocab_size
        self.totals = Counter(dict.fromkeys(COUNTS, 0))
        self.shards: list[dict] = []
        self.waiting = bytearray()

    def add(self, ids: np.ndarray, text: str) -> None:
        """Append one document."""
        self.totals.update(
            documents=1,
            tokens=len(ids),
            words=len(text.split()),
            characters=len(text),
            bytes=len(text.encode()),
            unknown=int((ids == UNKNOWN).sum()),
        )
        self.waiting += ids.astype("<u2").tobytes()
        if len(self.waiting) >= 2 * SHARD:
            self.flush()

    def flush(self) -> dict:
        """Write the waiting tokens to the next shard; return the split's entry for meta.json."""
        if self.waiting:
            tokens = len(self.waiting) // 2
            file = f"{self.prefix}_{len(self.shards):03d}.bin"
            header = np.zeros(HEADER, "<i4")
            # Only other tools read the last two: the first id in a disjoint vocabulary, the number of pieces.
            header[:5] = MAGIC, SHARD_VERSION, tokens, self.offset, self.vocab_size
            content = header.tobytes() + self.waiting
            write(self.folder / file, content)
            digest = hashlib.sha256(content).hexdigest()
            self.shards.append({"file": file, "tokens": tokens, "sha256": digest})
            self.waiting.clear()
        return {**self.totals, "shards": self.shards}


def open_shard(path: Path) -> np.ndarray:
    """Map a shard's (n,) uint16 tokens into memory, read-only. UserError if the file is not a whole shard."""
    header = np.fromfile(path, "<i4", HEADER).tolist()
    tokens = (path.stat().st_size - 4 * HEADER) / 2
    if len(header) < HEADER or header[:3] != [MAGIC, SHARD_VERSION, tokens]:
        raise UserError(f"{path} is not a whole token shard; remove {path.parent} and prepare it again")
    return np.memmap(path, "<u2", "r", 4 * HEADER, (header[2],))


class Stream:
    """The shards of one language and split as one long sequence of token ids."""

    def __init__(self, paths: list[Path], pieces: int = 2**16):
        self.paths, self.pieces = paths, pieces
        self.shards = [open_shard(path) for path in paths]

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    def read(self, begin: int, length: int) -> np.ndarray:
        """Tokens [begin, begin + length), across shard borders: (length,) uint16."""
        parts, end = [], begin + length
        for shard in self.shards:  # begin and end count from where this shard starts
            if end > 0 and begin < len(shard):
                parts.append(shard[max(0, begin) : end])
            begin -= len(shard)
            end -= len(shard)
        ids = np.concatenate(parts)
        self.check(ids.max())
        return ids

    def counts(self) -> np.ndarray:
        """How often each piece occurs: (pieces,) int64."""
        counts = np.zeros(self.pieces, int)
        for shard in self.shards:  # one at a time, because counting takes four times a shard's memory
            self.check(shard.max())
            counts += np.bincount(shard, minlength=self.pieces)
        return counts

    def check(self, highest: int) -> None:
        """UserError if the highest id has no piece, which means that a shard's file has changed."""
        if highest >= self.pieces:
            folder = self.paths[0].parent
            verify = f"python data.py --verify {folder} names the file"
            raise UserError(f"{folder} has changed: id {highest} is not in its tokeniser; {verify}")


ENTRY = {  # what meta.json holds for each language
    "vocab_size": int, "offset": int, "tokenizer": dict, "files": dict, "documents": dict,
    "characters": dict, "held out": str, "train": dict, "test": dict,
}  # fmt: skip


class Dataset:
    """A prepared folder: the content of meta.json, and the streams and tokenisers that meta.json names."""

    def __init__(self, folder: Path):
        here = Path(__file__).parent / folder  # finds a run's data from any working folder
        self.folder = folder if (folder / "meta.json").exists() else here
        if not (self.folder / "meta.json").exists():
            raise UserError(f"{folder} holds no prepared data; see python data.py --help")
        self.meta = read_json(self.folder / "meta.json")
        self.languages: dict[str, dict] = self.meta.get("languages")
        self.fingerprint: str = self.meta.get("fingerprint")
        try:
            whole = self.meta["version"] == VERSION and self.fingerprint == fingerprint_of(self.languages)
            for entry in self.languages.values():
                whole = whole and all(isinstance(entry[key], kind) for key, kind in ENTRY.items())
        except (KeyError, TypeError, AttributeError):  # written by another tool, or edited
            whole = False
        if not whole:
            raise UserError(f"{folder} was not prepared by this data.py; prepare it under another --name")

    def stream(self, source: str, split: str) -> Stream:
        """The token stream of a language's "train" or "test" split."""
        language = self.languages[source]
        paths = [self.folder / shard["file"] for shard in language[split]["shards"]]
        return Stream(paths, language["vocab_size"])

    def tokenizer(self, source: str) -> Tokenizer:
        """The language's SentencePiece model."""
        return Tokenizer(model_proto=self.read(self.languages[source]["tokenizer"]))

    def read(self, part: dict) -> bytes:
        """The content of the file that `part` of meta.json names; UserError if the file's hash differs."""
        path = self.folder / part["file"]
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != part["sha256"]:
            raise UserError(f"{path} has changed; remove {self.folder} and prepare it again")
        return content


def files_of(languages: dict[str, dict]) -> Iterator[dict]:
    """The entries of all files in the languages of a meta.json, each with "file" and "sha256"."""
    for entry in languages.values():
        yield entry["tokenizer"]
        yield from entry["train"]["shards"]
        yield from entry["test"]["shards"]


def fingerprint_of(languages: dict[str, dict]) -> str:
    """One hash of the hashes of all files: equal fingerprints mean equal tokens."""
    hashes = " ".join(part["sha256"] for part in files_of(languages))
    return hashlib.sha256(hashes.encode()).hexdigest()[:16]


# --- preparation ----------------------------------------------------------------------------------


def prepare(folder: Path, recipe: dict, texts: dict[str, Path]) -> None:
    """Make `folder` from one text per language. Only names, contents and the recipe decide the result.

    The folder has another name until it is complete, so no script reads a part of the data. If interrupted,
    preparation starts again.
    """
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # a killed preparation could not remove it
    unfinished.mkdir(parents=True)
    try:
        languages, offset = {}, 0
        for name, path in texts.items():
            languages[name] = prepare_language(unfinished, name, path, recipe, offset)
            offset += languages[name]["vocab_size"]
        if recipe["placebo"]:
            first = next(iter(languages.values()))
            languages["noise"] = prepare_placebo(unfinished, first, recipe["seed"], offset)
        meta = {"version": VERSION, "fingerprint": fingerprint_of(languages), "recipe": recipe}
        write(unfinished / "meta.json", {**meta, "languages": languages})
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def prepare_language(folder: Path, name: str, path: Path, recipe: dict, offset: int) -> dict:
    """Write the tokeniser and shards of one language; return the language's entry for meta.json."""
    files, others = find_files(path)
    digest = digest_of(path, files)
    size = sum(file.stat().st_size for file in files)
    print(f"{name}: reading {size / 1e6:.1f} MB of text", flush=True)
    by, documents, characters, sample = choose_split(path, recipe, SAMPLE)

    pieces, vocab_size = recipe["pieces"], recipe["vocab_size"]
    print(f"{name}: training a tokeniser ({pieces}, at most {vocab_size} pieces)", flush=True)
    model = train_tokenizer(sample, vocab_size, pieces)
    write(folder / f"{name}.model", model)
    tokenizer = Tokenizer(model_proto=model)

    writers = {split: ShardWriter(folder, f"{name}_{split}", offset, len(tokenizer)) for split in SPLITS}
    progress = Progress(f"{name}: tokenising", documents["train"] + documents["test"], "documents")
    done = 0
    for batch in batches_of(path, recipe, by):
        encoded = encode(tokenizer, [text for _, text in batch])
        for (split, text), ids in zip(batch, encoded, strict=True):
            writers[split].add(ids, text)
        done += len(batch)
        progress.update(done)
    if digest_of(path, find_files(path)[0]) != digest:
        raise UserError(f"{path} changed while data.py read it; run the same command again")

    entry = {
        "vocab_size": len(tokenizer),
        "offset": offset,
        "tokenizer": {"file": f"{name}.model", "sha256": hashlib.sha256(model).hexdigest()},
        "files": {"read": len(files), "not read": dict(others), "digest": digest},
        "documents": dict(documents),
        "characters": dict(characters),
        "held out": by,
        "train": writers["train"].flush(),
        "test": writers["test"].flush(),
    }
    unknown = share_unknown(entry)
    if unknown > 0.01:  # the perplexity would mean nothing
        few = f"{vocab_size} pieces are too few for its characters"
        raise UserError(f"{name}: {unknown:.0%} of the tokens are unknown, because {few}; raise --vocab-size")
    print(what_was_read(name, entry), flush=True)
    return entry


def batches_of(path: Path, recipe: dict, by: str) -> Iterator[list[tuple[str, str]]]:
    """All kept documents, in lists of (split, text) that hold about BATCH characters each."""
    batch, size = [], 0
    for fate, document in split_documents(path, recipe, by):
        if fate in SPLITS:
            batch.append((fate, document.text))
            size += len(document.text)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def share_unknown(entry: dict) -> float:
    """The fraction of a language's tokens that are unknown."""
    unknown = entry["train"]["unknown"] + entry["test"]["unknown"]
    return unknown / (entry["train"]["tokens"] + entry["test"]["tokens"])


def what_was_read(name: str, entry: dict) -> str:
    """A few lines on how a language's text was prepared: files, documents, held-out text, pieces."""
    documents, characters = entry["documents"], entry["characters"]
    everything, held = sum(characters.values()), characters["test"]
    kept = characters["train"] + held
    dropped = (everything - kept) / everything
    reasons = {fate: many for fate, many in documents.items() if fate not in SPLITS}
    fates = f"{documents['train']:,} documents to train on, {documents['test']:,} to test on"
    if reasons:
        fates += f"; dropped: {listed(reasons)}, {dropped:.1%} of the characters"
    lines = [
        files_as_text(entry["files"]["read"], entry["files"]["not read"]),
        fates,
        f"{held / kept:.1%} of {kept:,} characters held out ({SPLIT_BY[entry['held out']]})",
        f"{entry['vocab_size']:,} pieces; {share_unknown(entry):.2%} of the tokens are unknown",
    ]
    if dropped > 1 / 3:
        more = "join short documents to keep them"
        lines.append(f"warning: more than a third of the text is dropped; {more}")
    return "\n".join(f"{name}: {line}" for line in lines)


def prepare_placebo(folder: Path, entry: dict, seed: int, offset: int) -> dict:
    """Write `noise`, the language of placebo runs: shards of another language, each shuffled by token.

    Noise has nothing to teach, so what a rare language seems to gain beside it comes from optimiser steps.
    """
    noise = {**entry, "offset": offset}
    random = random_state(NOISE_DRAW, seed)
    for split in SPLITS:
        writer = ShardWriter(folder, f"noise_{split}", offset, entry["vocab_size"])
        for shard in entry[split]["shards"]:
            tokens = np.array(open_shard(folder / shard["file"]))
            random.shuffle(tokens)
            writer.add(tokens, "")
            writer.flush()
        noise[split] = {**entry[split], "shards": writer.shards}
    return noise


# --- randomness -----------------------------------------------------------------------------------

LANGUAGE_DRAW, WINDOW_DRAW, ANCHOR_DRAW, NOISE_DRAW = range(4)  # kinds of random draws from one seed


def random_state(draw: int, seed: int, epoch: int = 0, place: int = 0) -> np.random.RandomState:
    """A generator of random numbers for one kind of draw; all versions of NumPy give the same numbers.

    NumPy froze the methods of RandomState and the bits of PCG64 (NEP 19), but Generator may change.
    """
    # NumPy pads short keys with zeros, so [3] and [3, 0] would be one key. Every key here has four parts.
    return np.random.RandomState(np.random.PCG64([draw, epoch, place, seed]))


# --- languages ------------------------------------------------------------------------------------


class Language(NamedTuple):
    """A language of a run."""

    name: str  # EN1, as in results
    source: str  # as in the prepared folder: en
    table: np.ndarray  # own id -> joint id, (V,); int32, because ten clones of 16,384 pieces exceed 65,535


def cloned_languages(source: str, vocab_size: int, clones: int, anchors=0.0, seed=0) -> list[Language]:
    """EN1, EN2, ...: one text, all ids but padding's raised by 0, V, ... A monolingual run has one clone.

    With `anchors` above 0 the languages are partial clones (the paper's Figure 8): round(anchors * (V - 1))
    random pieces have the first clone's id in all clones. For one seed, smaller sets are subsets of larger.
    """
    ids = np.arange(vocab_size, dtype=np.int32)
    order = random_state(ANCHOR_DRAW, seed).permutation(ids[1:])  # all ids but padding's
    shared = [PAD, *order[: round(anchors * len(order))]]
    languages = []
    for i in range(clones):
        table = ids + i * vocab_size
        table[shared] = ids[shared]
        languages.append(Language(f"{source.upper()}{i + 1}", source, table))
    return languages


def disjoint_languages(vocab_sizes: dict[str, int]) -> list[Language]:
    """EN, FR, ...: each language's ids follow those of the language before; only padding is shared."""
    languages, offset = [], 0
    for source, vocab_size in vocab_sizes.items():
        table = np.arange(offset, offset + vocab_size, dtype=np.int32)
        table[PAD] = PAD
        languages.append(Language(source.upper(), source, table))
        offset += vocab_size
    return languages


def anchored_languages(pieces: dict[str, list[str]]) -> list[Language]:
    """EN, FR, ...: pieces that are spelled alike have one id, assigned in the first language that has them.

    Ids have no gaps. `pieces` holds the pieces of each language in the order of their ids.
    """
    joint: dict[str, int] = {}
    languages = []
    for source, forms in pieces.items():
        table = np.full(len(forms), PAD, np.int32)
        for own_id, form in enumerate(forms[1:], 1):
            table[own_id] = joint.setdefault(form, 1 + len(joint))
        languages.append(Language(source.upper(), source, table))
    return languages


def share_pieces(languages: list[Language], forms: dict[str, list[str]], shared: list[str]) -> None:
    """Give each piece in `shared` the first language's id in all languages; " " is the space.

    `forms` holds the pieces of each source in the order of their ids. Ids that become free stay unused.
    UserError if a tokeniser lacks one of the pieces.
    """
    first = languages[0]
    for piece in shared:
        form = piece.replace(" ", SPACE)
        for _, source, table in languages:
            if form not in forms[source]:
                raise UserError(f"--shared {piece!r}: the tokeniser of {source} has no such piece")
            own_id, first_id = forms[source].index(form), forms[first.source].index(form)
            table[own_id] = first.table[first_id]


def build_languages(dataset: Dataset, config: dict) -> list[Language]:
    """The languages of the run that `config` describes, in the order of its shares."""
    sources, vocab = config["sources"], config["vocab"]
    forms = {source: surface_forms(dataset.tokenizer(source)) for source in sources}
    sizes = {source: len(pieces) for source, pieces in forms.items()}
    if vocab == "disjoint":
        languages = disjoint_languages(sizes)
    elif vocab == "anchored":
        languages = anchored_languages(forms)
    else:
        first, clones = sources[0], len(sources)
        languages = cloned_languages(first, sizes[first], clones, config["anchors"], config["seed"])
    share_pieces(languages, forms, config["shared"])
    return languages


# --- the mixture ----------------------------------------------------------------------------------


class Mixture:
    """The plan of a run: the `language` of each sequence and its `window` of text, two (total,) arrays.

    streams: every source of the folder, read or not, because a source's place among them seeds its order.
    stages: (stages, languages) shares; the stages divide the run into equal parts.
    length: targets in a sequence; a window is one token longer.
    """

    def __init__(self, streams: dict, languages: list[Language], stages, seed: int, total: int, length: int):
        self.streams, self.languages, self.total, self.length = streams, languages, total, length
        self.windows = {}
        for source, stream in streams.items():  # train.py refuses to read a text shorter than a window
            self.windows[source] = max(1, (len(stream) - 1) // length)

        # The language of each sequence is drawn independently, `L ~ p(L)` of its stage, so counts vary.
        stage_of = np.arange(total) * len(stages) // total
        self.language = np.empty(total, np.int16)
        random = random_state(LANGUAGE_DRAW, seed)
        for stage, shares in enumerate(stages):
            sequences = stage_of == stage
            probabilities = np.array(shares) / np.sum(shares)
            self.language[sequences] = random.choice(len(shares), sequences.sum(), p=probabilities)

        # The k-th sequence that reads a text, in whichever clone, reads the k-th window of a shuffled order.
        # Each pass over the text has a new order, so no window is repeated within a pass. The order does not
        # depend on the shares.
        self.window = np.empty(total, np.int32)
        for place, (source, windows) in enumerate(self.windows.items()):
            reads_source = np.array([language.source == source for language in languages])
            sequences = np.flatnonzero(reads_source[self.language])
            for epoch, begin in enumerate(range(0, len(sequences), windows)):
                # The source's place is part of the key, so texts of equal length get different orders.
                order = random_state(WINDOW_DRAW, seed, epoch, place).permutation(windows)
                this_pass = sequences[begin : begin + windows]
                self.window[this_pass] = order[: len(this_pass)]

    def batch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The sequences of (n,) `numbers`: (n, length + 1) int64 joint ids, and (n,) indices of languages."""
        rows = []
        for sequence in numbers:
            _, source, table = self.languages[self.language[sequence]]
            begin = int(self.window[sequence]) * self.length
            ids = self.streams[source].read(begin, self.length + 1)
            rows.append(table[ids])
        return np.stack(rows).astype(np.int64), self.language[numbers]

    def tokens_seen(self) -> list[int]:
        """Training tokens of each language in the whole run."""
        sequences = np.bincount(self.language, minlength=len(self.languages))
        return (self.length * sequences).tolist()

    def passes(self) -> dict[str, float]:
        """How often the whole run reads each source's text; above 1, the run repeats text."""
        passes = dict.fromkeys(self.windows, 0.0)
        for language, tokens in zip(self.languages, self.tokens_seen(), strict=True):
            passes[language.source] += tokens / self.length / self.windows[language.source]
        return passes


def build_mixture(dataset: Dataset, config: dict) -> Mixture:
    """The sequences of the run that `config` describes."""
    streams = {source: dataset.stream(source, "train") for source in dataset.languages}
    languages = build_languages(dataset, config)
    total = config["steps"] * config["batch"]
    return Mixture(streams, languages, config["stages"], config["seed"], total, config["length"])


# --- the command ----------------------------------------------------------------------------------


def named_path(text: str) -> tuple[str, Path]:
    """A `type=` of argparse: 'en=novels/en' -> ('en', Path('novels/en'))."""
    name, _, path = text.partition("=")
    if name == "noise":
        raise argparse.ArgumentTypeError("noise is the name of the placebo; choose another")
    if not (name.isidentifier() and path):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected LANG=PATH, with letters, digits and _ in LANG, as in pt_BR=novels/pt"
        )
    return name, Path(path)


def verify(dataset: Dataset) -> None:
    """Compare every file with its hash in meta.json; UserError if they differ."""
    for part in files_of(dataset.languages):
        dataset.read(part)
    print(f"{dataset.folder}: all hashes match")


def check_unchanged(dataset: Dataset, recipe: dict, texts: dict[str, Path]) -> None:
    """UserError if the same command would now prepare other data, from another recipe or changed text."""
    earlier, instead = dataset.meta["recipe"], f"choose another --name, or remove {dataset.folder}"
    differing = [key for key in recipe if earlier.get(key) != recipe[key]]
    if differing:
        was = ", ".join(f"{key} {earlier.get(key)} instead of {recipe[key]}" for key in differing)
        raise UserError(f"{dataset.folder} was prepared with {was}; {instead}")
    for name, path in texts.items():
        files, _ = find_files(path)
        before = dataset.languages[name]["files"]
        if digest_of(path, files) != before["digest"]:
            changed = f"{path} has changed ({before['read']} files then, {len(files)} now)"
            raise UserError(f"{dataset.folder} is out of date, because {changed}; {instead}")


def describe(dataset: Dataset) -> None:
    """Print languages, sizes, tokens per word, and the pieces that each pair of languages shares."""
    rows = []
    for name, entry in dataset.languages.items():
        for split in SPLITS:
            counts = entry[split]
            per_word = counts["tokens"] / max(1, counts["words"])
            per_token = counts["bytes"] / counts["tokens"]
            numbers = [f"{counts[key]:,}" for key in COUNTS]
            rows.append([name, split, *numbers, f"{per_word:.2f}", f"{per_token:.2f}"])
    head = ["language", "split", *COUNTS, "tokens per word", "bytes per token"]
    print(f"{dataset.folder}, fingerprint {dataset.fingerprint}")
    print(markdown(head, rows, 2), end="")
    for name, entry in dataset.languages.items():
        if name != "noise":
            print(what_was_read(name, entry))
    pieces = {name: set(surface_forms(dataset.tokenizer(name))[1:]) for name in dataset.languages}
    for one, other in combinations(pieces, 2):
        shared = len(pieces[one] & pieces[other])
        share = shared / min(len(pieces[one]), len(pieces[other]))
        print(f"{one} and {other} share {shared} pieces, {share:.1%} of the smaller vocabulary")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; UserError if flags contradict each other."""
    parser = Parser(__doc__)
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--corpus", choices=CORPORA, help="public text to download or collect; default: pydocs")
    text.add_argument("--text", action="append", type=named_path, metavar="LANG=PATH", help="your own text")
    add = parser.add_argument
    add("--name", help="folder below data/; default: the name of the corpus")
    add("--max-tokens", type=number(), help="approximate tokens of books per language; default: 1.3e9")
    add("--pieces", choices=PIECES, help="kind of piece; default: char for pydocs, else bpe")
    add("--vocab-size", type=number(int, 512, 65536), help="most pieces of a tokeniser; default: 16384")
    add("--placebo", action="store_true", help="language `noise` for placebo runs; default: only for pydocs")
    add("--test-fraction", type=number(float, 1e-4, 0.9), help="share held out; default: 0.02, pydocs: 0.01")
    add("--test-characters", type=number(int, 64), help="most characters per held-out document; default: all")
    add("--seed", type=number(int, 0), help="seed of all random choices; default: 0")
    add("--describe", type=Path, metavar="DIR", help="prepared folder to describe")
    add("--verify", type=Path, metavar="DIR", help="prepared folder to check for changed files")
    parser.set_defaults(corpus="pydocs", text=[], vocab_size=16384, seed=0)
    args = parser.parse_args(arguments)
    if args.text and not args.name:
        parser.error("--text needs --name, the folder below data/")
    if args.name and args.name != Path(args.name).name:
        parser.error(f"--name {args.name}: expected the name of a folder below data/, without a path")
    names = [name.upper() for name, _ in args.text]
    if len(set(names)) < len(names):
        parser.error("--text names a language more than once; put its files into one folder")
    if args.max_tokens and args.corpus != "books":
        parser.error("--max-tokens has no effect without --corpus books")
    return args


def recipe_of(args: argparse.Namespace) -> dict:
    """Every setting that decides how texts are prepared; pydocs has defaults of its own."""
    pydocs = args.corpus == "pydocs" and not args.text
    return {
        "source": " ".join(f"{name}={path}" for name, path in args.text) or args.corpus,
        "pieces": args.pieces or ("char" if pydocs else "bpe"),
        "vocab_size": args.vocab_size,
        "test_fraction": args.test_fraction or (0.01 if pydocs else 0.02),
        "max_tokens": args.max_tokens or (1.3e9 if args.corpus == "books" else None),
        "placebo": args.placebo or pydocs,
        "test_characters": args.test_characters,
        "seed": args.seed,
    }


def main(arguments: list[str] | None = None) -> None:
    """Prepare, describe or verify a folder, as the command line says."""
    args = parse_arguments(arguments)
    if args.verify:
        return verify(Dataset(args.verify))
    if args.describe:
        return describe(Dataset(args.describe))
    recipe, texts = recipe_of(args), dict(args.text)
    for path in texts.values():
        find_files(path)  # reports a missing text before any work
    folder = DATA / (args.name or args.corpus)
    if folder.exists() and not (folder / "meta.json").exists():
        raise UserError(f"{folder} exists but holds no prepared data; choose another --name")
    if not folder.exists():
        with exclusive(DATA, wait=True):
            if not folder.exists():
                if not texts:
                    corpus = importlib.import_module(f"corpora.{args.corpus}")
                    texts = corpus.fetch(DATA / "downloads", recipe["max_tokens"])
                prepare(folder, recipe, texts)
    dataset = Dataset(folder)
    check_unchanged(dataset, recipe, texts)
    names = [name for name in dataset.languages if name != "noise"]
    languages = f"--languages {' '.join(names)} " if len(names) > 1 else ""
    command = f"python train.py --data {shlex.quote(str(folder))} {languages}--ratio 0.9"
    print(f"{folder} is ready; next: {command}")


if __name__ == "__main__":
    run_script(main)
