"""Files -> documents: the texts of a folder, cleaned, and the side of the split that each goes to.

python text.py FOLDER     # what data.py reads below FOLDER, and what it does not
"""

import gzip
import hashlib
import json
import os
import random
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common import Parser, UserError, run_script

KINDS = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz")  # endings of the files that are read
SHORTEST = 64  # bytes; shorter documents are stubs and are dropped
SPLITS = ("train", "test")


class Document(NamedTuple):
    """A text, and two names for it."""

    name: str  # the file's path below the folder, or the "name" that a line of .jsonl gives
    place: str  # the file's path, in a .jsonl with the line's number
    text: str


# --- files ----------------------------------------------------------------------------------------


def find_files(path: Path) -> tuple[list[Path], Counter]:
    """The files of text at or below `path`, in a fixed order, and the number of others by ending.

    Hidden files are not read, since most are copies that editors keep; a hidden folder counts as one file.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    files, others = [], Counter()
    for file in [path] if path.is_file() else walk(path):
        if file.name.startswith(".") and file != path:
            others["hidden"] += 1
        elif file.name.lower().endswith(KINDS) and not file.is_fifo():
            files.append(file)
        else:
            others[file.suffix or "without an ending"] += 1
    if not files:
        there = f"found {listed(others)}" if others else "found no file"
        raise UserError(f"{path}: expected text files that end in {', '.join(KINDS)}; {there}")
    return sorted(files), others


def walk(path: Path) -> Iterator[Path]:
    """All files below a folder, also behind links, and its hidden folders, which are not entered."""

    def stop(error: OSError):
        raise error  # a folder that cannot be read

    visited = set()
    for folder, folders, names in os.walk(path, onerror=stop, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # a link to a folder that was already read, or a circle of links
            folders.clear()
            continue
        visited.add(real)
        hidden = {name for name in folders if name.startswith(".")}
        yield from [Path(folder, name) for name in [*names, *hidden]]
        folders[:] = sorted(set(folders) - hidden)


def listed(counts: Counter) -> str:
    """{".json": 5, ".bz2": 5} -> '5 .bz2, 5 .json'."""
    return ", ".join(f"{many:,} {what}" for what, many in sorted(counts.items()))


def digest_of(path: Path, files: list[Path]) -> str:
    """A hash of the names and the contents of all files."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.fsencode(relative(path, file)) + b"\0")
        with open(file, "rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def relative(path: Path, file: Path) -> str:
    """The file's name below `path`, the same on every machine."""
    return file.name if file == path else file.relative_to(path).as_posix()


# --- documents ------------------------------------------------------------------------------------


def documents(path: Path) -> Iterator[Document]:
    """The documents at or below `path`: a .txt file is one, each line of a .jsonl is one."""
    for file in find_files(path)[0]:
        name, where = relative(path, file), str(file)
        kind = file.name.lower()
        opened = gzip.open if kind.endswith(".gz") else open
        try:
            with opened(file, "rb") as content:
                if kind.endswith((".txt", ".txt.gz")):
                    yield Document(name, name, content.read().decode("utf-8-sig"))
                    continue
                for number, line in enumerate(content, 1):
                    where = f"{file}:{number}"
                    if line.strip():
                        yield parse_line(line, f"{name}:{number}")
        except UnicodeDecodeError as error:
            raise UserError(f"{where} is not UTF-8 text ({error.reason}); convert it with iconv") from None
        except (ValueError, RecursionError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"{where} cannot be read: {error}; repair or remove it") from None


def parse_line(line: bytes, place: str) -> Document:
    """A line of .jsonl: an object with a "text", and maybe a "name"."""
    record = json.loads(line.decode("utf-8-sig"))
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise ValueError('expected {"text": "..."}')
    name = record.get("name")
    return Document(place if name is None or name == "" else str(name), place, record["text"])


LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")
# SentencePiece reserves these characters: one is its space, the other its unknown piece.
RESERVED = str.maketrans("\u2581\u2585", "_\u2586")


def clean(text: str) -> str:
    """Unicode NFC, \\n as line end; no control characters, trailing blanks or double empty lines."""
    text = CONTROL.sub("", LINE_ENDS.sub("\n", text)).translate(RESERVED)
    # NFC comes after control characters are removed, because one could stand between a letter and its accent.
    text = unicodedata.normalize("NFC", text).expandtabs(4)
    text = "\n".join(map(str.rstrip, text.split("\n")))
    return re.sub("\n\n\n+", "\n\n", text).strip("\n")


def refuse_binary(path: Path, document: Document) -> None:
    """UserError if a document has more control characters than any text: UTF-16 without its mark, or none."""
    controls = len(CONTROL.findall(document.text))
    if controls > max(10, 0.01 * len(document.text)):
        share = f"{controls / len(document.text):.0%} of its characters are control characters"
        convert = "if it is UTF-16, iconv -f UTF-16LE -t UTF-8 converts it"
        raise UserError(f"{path}: {document.place}: {share}; {convert}")


# --- the split ------------------------------------------------------------------------------------

# Ways to split, in order: the first that holds out about the requested share is used.
SPLIT_BY = {
    "name": "documents are held out by their names",
    "place": "documents are held out one by one, because too few have names of their own",
    "end": "the end of each document is held out, because there are too few to hold out whole ones",
}


def held_out(name: str, recipe: dict) -> bool:
    """Whether a document of this name is for testing: it stays on its side when others are added."""
    digest = hashlib.sha256(key_of(name, recipe)).digest()
    return int.from_bytes(digest[:8], "big") < recipe["test_fraction"] * 2**64


def key_of(name: str, recipe: dict) -> bytes:
    """What decides all that is drawn for a document: the recipe's seed and the document's name."""
    return f"{recipe['seed']}/{name}".encode("utf-8", "surrogatepass")


def cut_end(text: str, fraction: float) -> tuple[str, str]:
    """A text in two parts, the second about `fraction` of it, cut between paragraphs, lines or words."""
    place = int(len(text) * (1 - fraction))
    for border in ("\n\n", "\n", " "):
        begin = text.find(border, place)
        if 0 < begin < len(text) - (len(text) - place) / 2:
            return text[:begin], text[begin:].strip("\n ")
    return text[:place], text[place:]


def split_documents(path: Path, recipe: dict, by: str = "name") -> Iterator[tuple[str, Document]]:
    """(fate, document) with its text cleaned; the fate is "train", "test", or why the document is dropped.

    by: a key of SPLIT_BY. Documents for testing are cut at `test_characters`.
    """
    seen = set()
    for document in documents(path):
        refuse_binary(path, document)
        text = clean(document.text)
        digest = hashlib.sha256(text.encode()).digest()[:16]
        if len(text.encode()) < SHORTEST:
            parts = {f"shorter than {SHORTEST} bytes": text}
        elif digest in seen:
            parts = {"copies of others": text}
        elif by == "end":
            parts = dict(zip(SPLITS, cut_end(text, recipe["test_fraction"]), strict=True))
        else:
            parts = {SPLITS[held_out(getattr(document, by), recipe)]: text}
        seen.add(digest)
        for fate, part in parts.items():
            longest = recipe.get("test_characters") if fate == "test" else None
            yield fate, document._replace(text=part[:longest])


def choose_split(path: Path, recipe: dict, size: int) -> tuple[str, Counter, Counter, list[str]]:
    """The key of SPLIT_BY that holds out about as much as it should, two counts, and a sample.

    The counts are of documents and of characters by fate. The sample is lines of training text to train a
    tokeniser on: about `size` bytes, drawn from all documents.
    """
    files, _ = find_files(path)
    rate = size / max(1, sum(file.stat().st_size for file in files))
    for by in SPLIT_BY:
        many, characters, sample = Counter(), Counter(), []
        for fate, document in split_documents(path, {**recipe, "test_characters": None}, by):
            many[fate] += 1
            characters[fate] += len(document.text)
            if fate == "train":
                draw = random.Random(key_of(document.name, recipe)).random
                lines = [line for line in document.text.split("\n") if line]
                sample += [line for line in lines if draw() < rate]
        held = characters["test"] / max(1, characters["test"] + characters["train"])
        if recipe["test_fraction"] / 2 < held < 2 * recipe["test_fraction"]:
            return by, many, characters, sample
    there = listed(many) or "none"
    raise UserError(f"{path}: too little text to train and to test on; add documents (found {there})")


def files_as_text(read: int, others: Counter) -> str:
    """How many files are read, and how many are not."""
    return f"{read:,} file{'s' * (read != 1)}" + (f"; not read: {listed(others)}" if others else "")


def main() -> None:
    """Print the bytes of text below a folder, the files that hold it, and those that are not read."""
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, help="folder or file of text")
    path = parser.parse_args().folder
    files, others = find_files(path)
    size = sum(len(document.text.encode("utf-8", "surrogatepass")) for document in documents(path))
    print(f"{size} bytes of text in {files_as_text(len(files), others)}")


if __name__ == "__main__":
    run_script(main)
