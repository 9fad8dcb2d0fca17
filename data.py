"""Text -> tokeniser -> shards: `data/NAME/`, the folder that training reads.

    data/NAME/meta.json          what lies here: sources, sizes, counts, hashes, the command
    data/NAME/en.model           the language's SentencePiece BPE model
    data/NAME/en_train_000.bin   its token stream, documents one after the other, each closed by <eod>
    data/NAME/en_test_000.bin    the same for the documents held out

The shards' format is described where they are read, in `shards.py`.
"""

import argparse
import fcntl
import hashlib
import io
import os
import platform
import re
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import sentencepiece

from common import Parser, Progress, UserError, count, run_script, write_json
from corpus import Document, clean_documents, read_pydocs, read_text, split_documents
from shards import FORMAT, Dataset, write_shard

SHARD_TOKENS = 100_000_000
PAD, UNKNOWN, END_OF_DOCUMENT = 0, 1, 2  # the first pieces of every tokeniser; 0 is padding in every language


# --- preparing ------------------------------------------------------------------------------------------------------


def train_tokenizer(documents: Iterable[Document], vocab_size: int) -> bytes:
    """A SentencePiece BPE model that no text is unknown to and that gives every text back to the letter.

    Raises:
        UserError: the text is too small for so many pieces.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(line for document in documents for line in document.text.split("\n") if line),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            pad_id=PAD, unk_id=UNKNOWN, eos_id=END_OF_DOCUMENT, bos_id=-1, eos_piece="<eod>",
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            max_sentence_length=1 << 20,
            num_threads=len(os.sched_getaffinity(0)),
            minloglevel=2,
        )  # fmt: skip
    except RuntimeError as error:
        raise UserError(f"--vocab-size {vocab_size} does not fit this text: {str(error).rpartition(') ')[2]}") from None
    return model.getvalue()


def encode(tokenizer: sentencepiece.SentencePieceProcessor, documents: list[Document]) -> Iterator[np.ndarray]:
    """Each document's ids with the end-of-document piece behind them, some megabytes of text at a time on all cores."""
    batch, size = [], 0
    for i, document in enumerate(documents):
        batch.append(document.text)
        size += len(document.text)
        if size > 4_000_000 or i + 1 == len(documents):
            for ids in tokenizer.encode(batch, num_threads=len(os.sched_getaffinity(0))):
                yield np.array([*ids, END_OF_DOCUMENT], dtype=np.uint16)
            batch, size = [], 0


def write_split(folder: Path, prefix: str, documents: list[Document], tokenizer, offset: int) -> dict:
    """Tokenise documents into shards `prefix_000.bin` ...; returns what meta.json says of them."""
    size = sum(len(document.text.encode()) for document in documents)
    progress = Progress(f"tokenising {prefix}", size / 1e6, "MB")
    shards: list[dict] = []

    def write(tokens: list[np.ndarray]) -> None:
        path = folder / f"{prefix}_{len(shards):03d}.bin"
        write_shard(path, np.concatenate(tokens), offset, tokenizer.vocab_size())
        shards.append({"file": path.name, "tokens": sum(map(len, tokens)), "sha256": file_hash(path)})

    held, held_tokens, done = [], 0, 0
    for document, ids in zip(documents, encode(tokenizer, documents), strict=True):
        held.append(ids)
        held_tokens += len(ids)
        done += len(document.text.encode())
        progress.update(done / 1e6)
        if held_tokens >= SHARD_TOKENS:
            write(held)
            held, held_tokens = [], 0
    if held:
        write(held)
    tokens = sum(shard["tokens"] for shard in shards)
    progress.close(size / 1e6, f"{len(documents)} documents, {count(tokens)} tokens | ")
    return {"documents": len(documents), "tokens": tokens, "bytes": size, "shards": shards}


def write_language(folder: Path, name: str, train: list[Document], test: list[Document], *, vocab_size: int, offset: int) -> dict:
    """Train the language's tokeniser on its training text, write its shards; returns its entry of meta.json."""
    print(f"{name}: training a tokeniser of {vocab_size} pieces on {len(train)} documents", flush=True)
    model = train_tokenizer(train, vocab_size)
    (folder / f"{name}.model").write_bytes(model)
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=model)
    return {
        "vocab_size": vocab_size,
        "offset": offset,
        "tokenizer": {"file": f"{name}.model", "sha256": file_hash(folder / f"{name}.model")},
        "train": write_split(folder, f"{name}_train", train, tokenizer, offset),
        "test": write_split(folder, f"{name}_test", test, tokenizer, offset),
    }


def prepare(folder: Path, recipe: dict, texts: dict[str, Iterable[Document]]) -> None:
    """Prepare `folder` from each language's documents. Nothing stands at `folder` before all of it is written."""
    splits, dropped = {}, {}
    for name, documents in texts.items():
        reasons: Counter = Counter()
        kept = list(clean_documents(documents, reasons))
        print(f"{name}: {len(kept)} documents" + "".join(f", {n} dropped ({why})" for why, n in reasons.items()), flush=True)
        splits[name] = split_documents(kept, recipe["test_fraction"], recipe["seed"])
        dropped[name] = dict(reasons)
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # what a killed preparation left
    unfinished.mkdir(parents=True)
    try:
        languages, size = {}, recipe["vocab_size"]
        for position, (name, (train, test)) in enumerate(splits.items()):
            languages[name] = write_language(unfinished, name, train, test, vocab_size=size, offset=position * size)
            languages[name]["dropped"] = dropped[name]
        hashes = [part["sha256"] for language in languages.values() for part in files_of(language)]
        meta = {
            "format": FORMAT,
            "fingerprint": hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16],
            "recipe": recipe,
            "command": shlex.join(["python", *sys.argv]),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "languages": languages,
        }
        write_json(unfinished / "meta.json", meta)
        os.rename(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def files_of(language: dict) -> list[dict]:
    """The files of a language's entry in meta.json, each with its `file` and `sha256`."""
    return [language["tokenizer"], *language["train"]["shards"], *language["test"]["shards"]]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def verify(folder: Path) -> None:
    """Compare every file of a prepared folder with the hash in its meta.json.

    Raises:
        UserError: a file is missing or differs.
    """
    dataset = Dataset(folder)
    for name, language in dataset.languages.items():
        for part in files_of(language):
            path = folder / part["file"]
            if not path.exists():
                raise UserError(f"{path} is missing; prepare the data again")
            if file_hash(path) != part["sha256"]:
                raise UserError(f"{path} has changed since it was prepared: its SHA-256 is not the one in meta.json")
        for split in ("train", "test"):
            print(f"{name} {split}: {len(dataset.stream(name, split))} tokens, hashes match")


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Let one process at a time prepare data below `folder`; the others wait here."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that prepares data in {folder}", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


# --- the command ----------------------------------------------------------------------------------------------------

HELP = """Turn text into what train.py reads: data/NAME with a tokeniser, token shards and meta.json.

  python data.py                                      data/pydocs: the docstrings of your Python installation, 17 MB
  python data.py --name novels --text en=DIR          data/novels: the .txt files below DIR, one document each
  python data.py --verify data/novels                 compare every file with the hash it was written with
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line, and refuse what no text could make right."""
    parser = Parser(HELP)
    parser.add_argument(
        "--corpus", choices=["pydocs"], help="a corpus that is fetched for you (default: pydocs, unless --text is given)"
    )
    parser.add_argument("--text", action="append", metavar="LANG=PATH", help="a .txt file or a folder of them; once a language")
    parser.add_argument("--name", help="the folder below data/ to write (default: the corpus)")
    parser.add_argument(
        "--vocab-size",
        type=int,
        metavar="N",
        help="pieces of each tokeniser, 512 to 65536 (default: 2048 for pydocs, else 16384)",
    )
    parser.add_argument(
        "--test-fraction",
        type=float,
        default=0.02,
        metavar="F",
        help="share of the text held out, by document (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order of documents and the split (default: %(default)s)")
    parser.add_argument("--verify", type=Path, metavar="DIR", help="check a prepared folder instead")
    args = parser.parse_args(arguments)
    if args.text and args.corpus:
        parser.error("--text and --corpus exclude each other")
    if args.text and not args.name:
        parser.error("--text needs --name, the folder below data/ to write")
    if args.name and not re.fullmatch(r"[\w][\w.-]*", args.name):
        parser.error(f"--name {args.name!r}: expected letters, digits, '.', '_' and '-' only")
    if args.vocab_size is not None and not 512 <= args.vocab_size <= 65536:
        parser.error(f"--vocab-size {args.vocab_size}: expected 512 to 65536, the most that uint16 shards hold")
    if not 0 < args.test_fraction < 1:
        parser.error(f"--test-fraction {args.test_fraction}: expected a number between 0 and 1")
    for text in args.text or []:
        if not re.fullmatch(r"[A-Za-z]\w*=.+", text):
            parser.error(f"--text {text!r}: expected LANG=PATH, as in en=novels/en")
    names = [text.partition("=")[0] for text in args.text or []]
    if len(set(names)) < len(names):
        parser.error(f"--text names the language {max(names, key=names.count)!r} more than once")
    return args


def main(arguments: list[str] | None = None) -> None:
    """Prepare or verify a folder, as the command line says."""
    args = parse_arguments(arguments)
    if args.verify:
        return verify(args.verify)
    if args.text:
        texts = {name: read_text(Path(path)) for name, _, path in (text.partition("=") for text in args.text)}
        source, vocab_size = " ".join(args.text), args.vocab_size or 16384
    else:
        texts, source, vocab_size = {"en": read_pydocs()}, "pydocs", args.vocab_size or 2048
    recipe = {"source": source, "vocab_size": vocab_size, "test_fraction": args.test_fraction, "seed": args.seed}
    folder = Path("data") / (args.name or "pydocs")
    with exclusive(folder.parent):
        if not folder.exists():
            prepare(folder, recipe, texts)
        earlier = Dataset(folder).meta["recipe"]
    differing = [key for key in recipe if earlier.get(key) != recipe[key]]
    if differing:
        was = ", ".join(f"{key} {earlier.get(key)!r} instead of {recipe[key]!r}" for key in differing)
        raise UserError(f"{folder} exists and was prepared with {was}; choose another --name or remove it")
    print(f"{folder} is ready; next: torchrun --standalone train.py --data {folder} --ratio 0.9")


if __name__ == "__main__":
    run_script(main)
