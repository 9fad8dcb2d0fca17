"""Text -> tokeniser -> shards: `data/NAME/`, the folder that training reads.

    data/NAME/meta.json          what lies here: sources, sizes, counts, hashes, the command
    data/NAME/en.model           the language's SentencePiece BPE model
    data/NAME/en_train_000.bin   its token stream, documents one after the other, each closed by <eod>
    data/NAME/en_test_000.bin    the same for the documents held out

This file is the command; `corpus.py` reads text, `prepare.py` turns it into shards, `shards.py` says what a shard is.
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

from common import Parser, UserError, count, exclusive, file_hash, run_script, write_atomic
from corpus import MemorySource, Source, open_source
from downloads import fetch_books, fetch_eltec, fetch_europarl
from languages import shared_pieces
from parallel import pack, read_parallel
from prepare import Rules, prepare
from pydocs import read_pydocs
from shards import Dataset, files_of
from tokenizer import reuse_tokenizer

DATA = Path("data")
DOWNLOADS = DATA / "downloads"
CORPORA: dict[str, Callable[[argparse.Namespace], dict[str, Source]]] = {
    "pydocs": lambda args: {"en": MemorySource(read_pydocs())},
    "eltec": lambda args: fetch_eltec(DOWNLOADS),
    "books": lambda args: fetch_books(DOWNLOADS, args.max_tokens or 1.3e9),
}


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


def describe(folder: Path) -> None:
    """Print what a prepared folder holds: languages, sizes, fertility, and the pieces each pair of languages shares."""
    dataset = Dataset(folder)
    print(f"{folder}: {dataset.meta['recipe']['source']}, prepared {dataset.meta['date']}, fingerprint {dataset.fingerprint}")
    print("| language | split | documents | tokens | words | bytes | tokens per word | bytes per token |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, language in dataset.languages.items():
        for split in ("train", "test"):
            part = language[split]
            sizes = " | ".join(count(part[key]) for key in ("tokens", "words", "bytes"))
            fertility = f"{part['tokens'] / max(1, part['words']):.2f} | {part['bytes'] / max(1, part['tokens']):.2f}"
            print(f"| {name} | {split} | {part['documents']} | {sizes} | {fertility} |")
    for name, language in dataset.languages.items():
        dropped = ", ".join(f"{n} {reason}" for reason, n in language["dropped"].items()) or "none"
        print(f"{name}: {language['vocab_size']} pieces; documents dropped: {dropped}")
    for (one, other), shared in shared_pieces(dataset).items():
        fewer = min(dataset.languages[name]["vocab_size"] for name in (one, other))
        print(f"{one} and {other} share {shared} pieces, {shared / fewer:.1%} of the smaller vocabulary")


# --- the command ----------------------------------------------------------------------------------------------------

HELP = """\
Turn text into what train.py reads: data/NAME with tokenisers, token shards and meta.json.

  python data.py                                      data/pydocs: the docstrings of your Python installation, 17 MB
  python data.py --corpus eltec                       data/eltec: 100 English and 100 French novels (downloads)
  python data.py --corpus books --max-tokens 1.3e9    the paper's scale, from the Hugging Face hub (pip install datasets)
  python data.py --name novels --text en=DIR --text fr=DIR
                                                      your own: .txt (a document each) and .jsonl (a line each, field
                                                      "text") files below DIR, also .gz and .xz, and .parquet
  python data.py --describe data/novels               languages, tokens, fertility, shared pieces
  python data.py --verify data/novels                 compare every file with the hash it was written with
  python data.py --name novels --parallel en=FILE fr=FILE
                                                      pack aligned lines as the paper does, into a JSON file there
                                                      (align.py reads such lines itself)

A preparation that was stopped is completed by the same command.
"""


def add_parallel(folder: Path, paths: dict[str, Path]) -> None:
    """Pack aligned lines, tokenised as `folder` has it, into `parallel_EN_FR.json` there (see parallel.py).

    Raises:
        UserError: the folder lacks a language, the files are not aligned, or too little is left to pack.
    """
    dataset = Dataset(folder)
    for name in paths:
        if name not in dataset.languages:
            raise UserError(f"--parallel {name}: {folder} does not have it, expected {' or '.join(dataset.languages)}")
    tokenizers = [dataset.tokenizer(name) for name in paths]
    lines = read_parallel(paths)
    packed = pack([tokenizer.encode(line) for tokenizer, line in zip(tokenizers, pair, strict=True)] for pair in lines)
    if not packed.pairs:
        raise UserError(f"{' and '.join(map(str, paths.values()))} give no pair of 128 to 512 tokens a side")
    path = folder / f"parallel_{'_'.join(paths)}.json"
    content = {"source": {name: str(file) for name, file in paths.items()}, "skipped": packed.skipped, "dropped": packed.dropped}
    pairs = [dict(zip(paths, (side.tolist() for side in pair), strict=True)) for pair in packed.pairs]
    write_atomic(path, json.dumps(content | {"pairs": pairs}))
    mean = ", ".join(f"{name} {sum(len(pair[name]) for pair in pairs) / len(pairs):.0f}" for name in paths)
    left_out = f"{packed.skipped} lines too long, {packed.dropped} pairs too short"
    print(f"{path}: {len(pairs)} pairs, tokens on average {mean}; {left_out}")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line, and refuse what no text could make right."""
    parser = Parser(HELP)
    what = parser.add_argument_group("the text")
    what.add_argument(
        "--corpus", choices=[*CORPORA, "europarl"], help="one that is found or fetched for you (pydocs, unless --text is given)"
    )
    what.add_argument("--text", action="append", metavar="LANG=PATH", help="a file or a folder; once a language")
    what.add_argument("--max-tokens", type=float, help="of each language to fetch, with --corpus books (1.3e9)")
    what.add_argument("--name", help="the folder below data/ (the corpus)")
    how = parser.add_argument_group("how it is prepared")
    how.add_argument("--vocab-size", type=int, metavar="N", help="pieces of each tokeniser (2048 for pydocs, else 16384)")
    how.add_argument(
        "--tokenizer", action="append", metavar="LANG=FILE", help="a SentencePiece model to use instead of training one"
    )
    how.add_argument("--test-fraction", type=float, default=0.02, metavar="F", help="of documents, held out (%(default)s)")
    how.add_argument("--seed", type=int, default=0, help="of the choice of test documents (%(default)s)")
    how.add_argument("--shard-tokens", type=int, default=100_000_000, metavar="N", help="in a file, about (%(default)s)")
    how.add_argument("--keep-copies", action="store_true", help="keep documents that are equal to an earlier one")
    other = parser.add_argument_group("instead of preparing")
    other.add_argument("--describe", type=Path, metavar="DIR", help="print what a prepared folder holds")
    other.add_argument("--verify", type=Path, metavar="DIR", help="check a prepared folder against its hashes")
    other.add_argument("--parallel", nargs=2, metavar="LANG=FILE", help="add two files of aligned lines to the folder --name")
    args = parser.parse_args(arguments)
    if args.text and args.corpus:
        parser.error("--text and --corpus exclude each other")
    if args.corpus == "europarl" and not args.name:
        parser.error("--corpus europarl is parallel text: it needs --name, a prepared folder that it is added to")
    if (args.text or args.parallel) and not args.name:
        parser.error("--text and --parallel need --name, the folder below data/")
    if args.name and not re.fullmatch(r"\w[\w.-]*", args.name):
        parser.error(f"--name {args.name!r}: expected letters, digits, '.', '_' and '-' only")
    if args.vocab_size is not None and not 512 <= args.vocab_size <= 65536:
        parser.error(f"--vocab-size {args.vocab_size}: expected 512 to 65536, the most that uint16 shards hold")
    if not 0 < args.test_fraction < 1:
        parser.error(f"--test-fraction {args.test_fraction}: expected a number between 0 and 1")
    if args.shard_tokens < 1:
        parser.error(f"--shard-tokens {args.shard_tokens}: expected a number above 0")
    if args.max_tokens is not None and not (args.corpus == "books" and 0 < args.max_tokens < 1e15):
        parser.error(f"--max-tokens {args.max_tokens:g}: expected a number above 0, and --corpus books")
    for flag in ("text", "tokenizer", "parallel"):
        setattr(args, flag, by_language(parser, flag, getattr(args, flag) or []))
    return args


def by_language(parser: Parser, flag: str, values: list[str]) -> dict[str, Path]:
    """['en=DIR', 'fr=DIR'] -> {'en': DIR, 'fr': DIR}, in this order."""
    paths: dict[str, Path] = {}
    for value in values:
        if not re.fullmatch(r"[A-Za-z]\w*=.+", value):
            parser.error(f"--{flag} {value!r}: expected LANG=PATH, as in en=novels/en")
        name, _, path = value.partition("=")
        if name.upper() in map(str.upper, paths):
            parser.error(f"--{flag} names the language {name!r} more than once")
        paths[name] = Path(path)
    return paths


def main(arguments: list[str] | None = None) -> None:
    """Prepare, describe or verify a folder, as the command line says."""
    args = parse_arguments(arguments)
    if args.verify:
        return verify(args.verify)
    if args.describe:
        return describe(args.describe)
    if args.corpus == "europarl":
        args.parallel = fetch_europarl(DOWNLOADS)
    if args.parallel:
        return add_parallel(DATA / args.name, args.parallel)
    return prepare_once(args)


def is_other_text(meta: dict, name: str, path: Path) -> bool:
    """Whether the files at `path` are others than those that a folder was prepared from."""
    return meta["text"].get(name) != open_source(path).fingerprint()


def prepare_once(args: argparse.Namespace) -> None:
    """Prepare the folder that the command line describes, unless it is there already.

    Raises:
        UserError: the folder is there, prepared in another way.
    """
    corpus = args.corpus or "pydocs"
    folder = DATA / (args.name or corpus)
    recipe = {
        "source": " ".join(f"{name}={path}" for name, path in args.text.items()) or corpus,
        "vocab_size": args.vocab_size or (2048 if corpus == "pydocs" and not args.text else 16384),
        "test_fraction": args.test_fraction,
        "seed": args.seed,
        "drop_copies": not args.keep_copies,
        "shard_tokens": args.shard_tokens,
        "tokenizers": {name: str(path) for name, path in args.tokenizer.items()},
        "max_tokens": args.max_tokens,
    }
    with exclusive(DATA, waiting=f"waiting for another process that prepares data in {DATA}"):
        if not folder.exists():
            sources = {name: open_source(path) for name, path in args.text.items()} or CORPORA[corpus](args)
            models = {name: reuse_tokenizer(path) for name, path in args.tokenizer.items()}
            if unknown := models.keys() - sources.keys():
                raise UserError(f"--tokenizer names {', '.join(unknown)}, expected languages of the text: {', '.join(sources)}")
            rules = Rules(*(recipe[field] for field in Rules._fields))
            prepare(folder, recipe, sources, rules, models)
        elif not (folder / "meta.json").exists():
            raise UserError(f"{folder} exists, but is no prepared data; remove it or choose another --name")
        meta = Dataset(folder).meta
    if changed := [name for name, path in args.text.items() if path.exists() and is_other_text(meta, name, path)]:
        when = f"{folder} was prepared on {meta['date']}"
        raise UserError(f"the text of {', '.join(changed)} has changed since {when}; choose another --name or remove it")
    earlier = meta["recipe"]
    if differing := [key for key in recipe if earlier.get(key) != recipe[key]]:
        was = ", ".join(f"{key} {earlier.get(key)!r} instead of {recipe[key]!r}" for key in differing)
        raise UserError(f"{folder} exists and was prepared with {was}; choose another --name or remove it")
    names = " ".join(Dataset(folder).languages)
    next_run = f"--languages {names} --ratio 0.9" if " " in names else "--ratio 0.9"
    print(f"{folder} is ready; next: torchrun --standalone train.py --data {folder} {next_run}")


if __name__ == "__main__":
    run_script(main)
