"""Text into shards, as a stream: two passes over the documents by all cores, in memory that does not grow with them.

    survey   read and clean every document; decide which are dropped, which train and which test; sample lines
    tokenise train the tokeniser on the sample, then write each split's tokens, one shard after the other

All of it happens in `data/NAME.unfinished`, which becomes `data/NAME` by one rename at the very end, so that no reader
can take a part for the whole. What a stopped preparation had finished (the survey, the tokeniser, whole shards) is found
there by the next one, and everything is decided by names, contents and the seed alone: stopped or not, the shards come
out the same to the byte.
"""

import hashlib
import json
import os
import platform
import random
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sentencepiece

from common import Progress, UserError, count, file_hash, read_json, write_atomic, write_json
from corpus import SHORTEST, Item, Source, clean, load
from shards import FORMAT, UNFINISHED, SplitWriter, files_of
from tokenizer import encode_document, train_tokenizer
from workers import workers

BATCH_BYTES, BATCH_ITEMS = 1_000_000, 256  # of what a worker process gets at a time
TOKENIZER_SAMPLE = 50_000_000  # bytes of text that a tokeniser is trained on at most, drawn from the whole corpus
DROPPED_SHORT, DROPPED_COPY, TRAIN, TEST = range(4)
REASONS = {DROPPED_SHORT: "too short", DROPPED_COPY: "copy of another"}
WORKING_FILES = ("recipe.json", "survey_*", "sample_*", "*.journal", "*.tmp")
SPLITS = {"train": TRAIN, "test": TEST}


class Rules(NamedTuple):
    """What decides, beside the text itself, how a corpus is prepared."""

    vocab_size: int
    test_fraction: float
    seed: int
    drop_copies: bool
    shard_tokens: int


def batches_of(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Items in groups of about a megabyte."""
    batch, size = [], 0
    for item in items:
        batch.append(item)
        size += len(item.content) if item.content is not None else item.size
        if size >= BATCH_BYTES or len(batch) >= BATCH_ITEMS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


# --- the first pass -------------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """What the survey learns of one document."""

    digest: bytes
    characters: int
    bytes: int
    words: int
    sample: list[str]


def inspect_batch(batch: tuple[list[Item], float, int]) -> list[Seen]:
    """In a worker: read and clean documents, and draw lines for the tokeniser with the given probability."""
    items, rate, seed = batch
    seen = []
    for item in items:
        text = clean(load(item))
        raw = text.encode()
        draw = random.Random(f"{seed}/{item.name}").random
        sample = [line for line in text.split("\n") if line and (rate >= 1 or draw() < rate)]
        seen.append(Seen(hashlib.sha256(raw).digest()[:16], len(text), len(raw), len(text.split()), sample))
    return seen


def survey(folder: Path, language: str, source: Source, rules: Rules) -> dict:
    """Decide on every document and write the sample; what is returned stands in `survey_LANGUAGE.json` as well.

    A document's side follows from a hash of (seed, name), so that it keeps it when others are added. Should no document
    be on one side, the one with the most fitting hash changes over.

    Raises:
        UserError: a document cannot be read, or fewer than two can be used.
    """
    path = folder / f"survey_{language}.json"
    if path.exists():
        return read_json(path, "a survey of documents")
    rate = min(1.0, TOKENIZER_SAMPLE / max(1, source.size))
    progress = Progress(f"{language}: reading", source.size / 1e6, "MB")
    decisions, kept, copies = bytearray(), [], set()
    totals = {split: {"documents": 0, "bytes": 0, "words": 0} for split in SPLITS}
    done = 0
    with workers(source.size) as call, open(folder / f"sample_{language}.txt", "w", encoding="utf-8") as sample:
        batches = ((batch, rate, rules.seed) for batch in batches_of(source))
        for (items, _, _), results in call(inspect_batch, batches):
            for item, seen in zip(items, results, strict=True):
                place = hash_of(item, rules.seed)
                decision = decide(seen, place, copies, rules)
                decisions.append(decision)
                done += item.size
                if decision in (TRAIN, TEST):
                    count_in(totals["train" if decision == TRAIN else "test"], seen.bytes, seen.words)
                    kept = extremes(kept, (place, len(decisions) - 1, seen.bytes, seen.words))
                if decision == TRAIN:
                    sample.writelines(line + "\n" for line in seen.sample)
            progress.update(done / 1e6)
    usable = totals["train"]["documents"] + totals["test"]["documents"]
    if usable < 2:
        raise UserError(
            f"{language}: {usable} usable document(s) of {len(decisions)}, expected at least two: one to train on, one to test on"
        )
    balance(decisions, totals, kept)
    dropped = {reason: decisions.count(code) for code, reason in REASONS.items() if decisions.count(code)}
    progress.close(done / 1e6, f"{len(decisions)} documents | ")
    result = {"decisions": decisions.hex(), "splits": totals, "dropped": dropped}
    write_json(path, result)
    return result


def hash_of(item: Item, seed: int) -> int:
    """64 bits that follow from a document's name and the seed: its place in a random order that others do not change."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{item.name}".encode()).digest()[:8], "big")


def decide(seen: Seen, place: int, copies: set[bytes], rules: Rules) -> int:
    """What becomes of a document. `copies` holds the digests of those kept so far, and takes this one in."""
    if seen.characters < SHORTEST:
        return DROPPED_SHORT
    if rules.drop_copies and seen.digest in copies:
        return DROPPED_COPY
    copies.add(seen.digest)
    return TEST if place < rules.test_fraction * 2**64 else TRAIN


def count_in(total: dict, size: int, words: int, sign: int = 1) -> None:
    """Add a document to the totals of a split, or take it out."""
    total["documents"] += sign
    total["bytes"] += sign * size
    total["words"] += sign * words


def extremes(kept: list[tuple], candidate: tuple) -> list[tuple]:
    """The documents with the smallest and the largest hash so far, [smallest, largest]."""
    return [min(kept[0], candidate), max(kept[1], candidate)] if kept else [candidate, candidate]


def balance(decisions: bytearray, totals: dict[str, dict], kept: list[tuple]) -> None:
    """See to it, in place, that both splits have a document: the smallest hash tests, the largest trains."""
    for split, other, (_, position, size, words) in (("test", "train", kept[0]), ("train", "test", kept[1])):
        if totals[split]["documents"] == 0:
            decisions[position] = SPLITS[split]
            count_in(totals[split], size, words)
            count_in(totals[other], size, words, sign=-1)


# --- the second pass ------------------------------------------------------------------------------------------------

worker_tokenizer: sentencepiece.SentencePieceProcessor | None = None  # each worker process loads its own


def load_worker_tokenizer(model: bytes) -> None:
    """In a worker: keep a tokeniser for the batches to come."""
    global worker_tokenizer  # noqa: PLW0603
    worker_tokenizer = sentencepiece.SentencePieceProcessor(model_proto=model)


def tokenise_batch(items: list[Item]) -> list[tuple[np.ndarray, int]]:
    """In a worker: each document's ids, (n,) uint16 and closed by the end-of-document piece, and its size in bytes."""
    results = []
    for item in items:
        text = clean(load(item))
        ids = encode_document(worker_tokenizer, text)
        results.append((np.array([*ids, worker_tokenizer.eos_id()], dtype=np.uint16), len(text.encode())))
    return results


def write_split(writer: SplitWriter, source: Source, *, decisions: bytes, split: str, model: bytes, size: int) -> int:
    """Tokenise the documents of a split into `writer`; returns their number of tokens. `size` is their bytes, for progress."""
    wanted = (item for item, decision in zip(source, decisions, strict=True) if decision == SPLITS[split])
    progress = Progress(f"{writer.prefix}: tokenising", size / 1e6, "MB")
    done = 0
    with workers(size, load_worker_tokenizer, model) as call:
        for _, results in call(tokenise_batch, batches_of(islice(wanted, writer.behind, None))):
            for ids, read in results:
                writer.add(ids)
                done += read
            progress.update(done / 1e6)
    writer.close()
    tokens = sum(shard["tokens"] for shard in writer.shards)
    progress.close(done / 1e6, f"{count(tokens)} tokens | ")
    return tokens


# --- a whole folder -------------------------------------------------------------------------------------------------


def prepare_language(folder: Path, name: str, source: Source, rules: Rules, *, model: bytes | None, offset: int) -> dict:
    """Survey, tokeniser and shards of one language in the unfinished `folder`; returns its entry of meta.json."""
    found = survey(folder, name, source, rules)
    model_path, sample = folder / f"{name}.model", folder / f"sample_{name}.txt"
    if not model_path.exists():
        if model is None:
            print(
                f"{name}: training a tokeniser of {rules.vocab_size} pieces on {count(sample.stat().st_size)}B of text",
                flush=True,
            )
            model = train_tokenizer(sample, rules.vocab_size)
        write_atomic(model_path, model)
    model = model_path.read_bytes()
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=model)
    entry = {
        "vocab_size": tokenizer.vocab_size(),
        "offset": offset,
        "tokenizer": {"file": model_path.name, "sha256": file_hash(model_path)},
        "dropped": found["dropped"],
    }
    for split in SPLITS:
        writer = SplitWriter(
            folder, f"{name}_{split}", vocab_size=tokenizer.vocab_size(), offset=offset, shard_tokens=rules.shard_tokens
        )
        totals = found["splits"][split]
        decisions = bytes.fromhex(found["decisions"])
        tokens = write_split(writer, source, decisions=decisions, split=split, model=model, size=totals["bytes"])
        entry[split] = totals | {"tokens": tokens, "shards": writer.shards}
    return entry


def prepare(folder: Path, recipe: dict, sources: dict[str, Source], rules: Rules, models: dict[str, bytes]) -> None:
    """Prepare `folder` from a text a language. What an earlier start with the same recipe left unfinished is completed.

    Args:
        recipe: what meta.json keeps of how the folder was asked for.
        models: tokenisers to use as they are; languages that are not in it get their own.

    Raises:
        UserError: a text cannot be used; nothing is left behind.
    """
    unfinished = folder.with_name(folder.name + UNFINISHED)
    wanted = recipe | {"text": {name: source.fingerprint() for name, source in sources.items()}}
    if unfinished.exists() and not same_recipe(unfinished / "recipe.json", wanted):
        shutil.rmtree(unfinished)
    if unfinished.exists():
        print(f"completing {unfinished}", flush=True)
    unfinished.mkdir(parents=True, exist_ok=True)
    write_json(unfinished / "recipe.json", wanted)
    try:
        languages, offset = {}, 0
        for name, source in sources.items():
            languages[name] = prepare_language(unfinished, name, source, rules, model=models.get(name), offset=offset)
            offset += languages[name]["vocab_size"]
    except UserError:
        shutil.rmtree(unfinished)
        raise
    hashes = [part["sha256"] for language in languages.values() for part in files_of(language)]
    meta = {
        "format": FORMAT,
        "fingerprint": hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16],
        "recipe": recipe,
        "text": wanted["text"],
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "languages": languages,
    }
    write_json(unfinished / "meta.json", meta)
    os.rename(unfinished, folder)
    for pattern in WORKING_FILES:
        for path in folder.glob(pattern):
            path.unlink()


def same_recipe(path: Path, recipe: dict) -> bool:
    """Whether the unfinished work at `path` was begun with this recipe."""
    try:
        return json.loads(path.read_text()) == recipe
    except (OSError, ValueError):
        return False
