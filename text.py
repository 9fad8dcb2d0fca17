"""Files -> documents: what a folder of text holds, cleaned, and on which side of the split each text goes.

python text.py FOLDER     # what data.py reads below FOLDER, and what it does not
"""

import gzip
import hashlib
import json
import os
import random
import re
import sys
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common import UserError, run_script

KINDS = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz")  # of files that are read
SHORTEST = 64  # bytes; a document below this is a stub that teaches nothing
SPLITS = ("train", "test")


class Document(NamedTuple):
    """A text, and two names for it."""

    name: str  # the file's, below the folder that was given, or what a line calls itself
    place: str  # the file's, with the line's number in a .jsonl
    text: str


# --- files ----------------------------------------------------------------------------------------


def find_files(path: Path) -> tuple[list[Path], Counter]:
    """The files of text at or below `path`, in a fixed order, and how many others by their ending.

    Links are followed. Hidden files and folders are copies that editors and other tools keep.
    """
    if path.is_file():
        found, others = [path], Counter()
    elif path.is_dir():
        found, others = walk(path)
    else:
        raise UserError(f"{path}: no such file or folder")
    files = [file for file in found if file.name.lower().endswith(KINDS)]
    others.update(file.suffix or "without an ending" for file in found if file not in set(files))
    if not files:
        there = f"found {listed(others)}" if others else "found no file"
        raise UserError(f"{path}: expected text, in files that end in {', '.join(KINDS)}; {there}")
    return sorted(files), others


def walk(path: Path) -> tuple[list[Path], Counter]:
    """All files below a folder, and how many are hidden; a folder that cannot be read is an error."""

    def stop(error: OSError):
        raise error

    found, hidden, visited = [], 0, set()
    for folder, folders, names in os.walk(path, onerror=stop, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # a link to a folder that was read already, or leads round in a circle
            folders.clear()
            continue
        visited.add(real)
        shown = [name for name in (*folders, *names) if not name.startswith(".")]
        hidden += len(folders) + len(names) - len(shown)
        folders[:] = sorted(set(folders) & set(shown))
        found += [Path(folder, name) for name in names if name in shown]
    return found, Counter({"hidden": hidden} if hidden else {})


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
        name, place = relative(path, file), str(file)
        kind = file.name.lower()
        opened = gzip.open if kind.endswith(".gz") else open
        try:
            with opened(file, "rb") as content:
                if kind.removesuffix(".gz").endswith(".txt"):
                    yield Document(name, name, content.read().decode("utf-8-sig"))
                    continue
                for number, line in enumerate(content, 1):
                    place = f"{file}:{number}"
                    if line.strip():
                        own_name, text = parse_line(line)
                        yield Document(own_name or f"{name}:{number}", f"{name}:{number}", text)
        except UnicodeDecodeError as error:
            raise UserError(f"{place} is not UTF-8 text ({error.reason}); iconv converts it") from None
        except (ValueError, RecursionError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"{place} cannot be read: {error}") from None


def parse_line(line: bytes) -> tuple[str | None, str]:
    """The "name", if it has one, and the "text" of a line of .jsonl."""
    record = json.loads(line.decode("utf-8-sig"))
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise ValueError('expected {"text": "..."}')
    name = record.get("name")
    return None if name is None else str(name), record["text"]


LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")
# SentencePiece keeps these blocks for itself: one is its space, the other its unknown piece.
RESERVED = str.maketrans("\u2581\u2585", "_\u2586")


def clean(text: str) -> str:
    """Unicode NFC, \\n as line end; no control characters, trailing blanks, two empty lines in a row."""
    text = CONTROL.sub("", LINE_ENDS.sub("\n", text)).translate(RESERVED)
    text = unicodedata.normalize("NFC", text).expandtabs(4)  # now that nothing parts letter and accent
    text = "\n".join(map(str.rstrip, text.split("\n")))
    return re.sub("\n\n\n+", "\n\n", text).strip("\n")


def refuse_binary(path: Path, document: Document) -> None:
    """Control characters in a number that no text has: UTF-16 without its mark, or no text at all."""
    controls = len(CONTROL.findall(document.text))
    if controls > max(10, 0.01 * len(document.text)):
        share = f"{controls / len(document.text):.0%} of its characters are control characters"
        raise UserError(
            f"{path}: {document.place}: {share}; if it is UTF-16, iconv -f UTF-16LE -t UTF-8 converts it"
        )


# --- the split ------------------------------------------------------------------------------------

# What decides the side of a document; the first that holds out about as much as was asked for is taken.
SPLIT_BY = {
    "name": "documents are held out by their names",
    "place": "documents are held out one by one, for too few have names of their own",
    "end": "the end of each document is held out, for there are too few to hold out whole ones",
}


def held_out(name: str, recipe: dict) -> bool:
    """Whether a document of this name is for testing: it stays on its side when others are added."""
    key = f"{recipe['seed']}/{name}".encode("utf-8", "surrogatepass")
    place = int.from_bytes(hashlib.sha256(key).digest()[:8], "big")
    return place < recipe["test_fraction"] * 2**64


def cut_end(text: str, fraction: float) -> tuple[str, str]:
    """A text without about that fraction of its end, and that end: cut between paragraphs, lines or words."""
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
            yield f"shorter than {SHORTEST} bytes", document._replace(text=text)
        elif digest in seen:
            yield "copies of others", document._replace(text=text)
        else:
            seen.add(digest)
            if by == "end":
                sides = zip(SPLITS, cut_end(text, recipe["test_fraction"]), strict=True)
            else:
                sides = [(SPLITS[held_out(getattr(document, by), recipe)], text)]
            for split, part in sides:
                longest = recipe.get("test_characters") if split == "test" else None
                yield split, document._replace(text=part[:longest])


def survey(path: Path, recipe: dict, by: str, size: int) -> tuple[Counter, Counter, list[str]]:
    """Documents and characters of each fate, and about `size` characters of lines to train on."""
    many, characters, sample = Counter(), Counter(), []
    rate = size / max(1, sum(file.stat().st_size for file in find_files(path)[0]))
    for fate, document in split_documents(path, {**recipe, "test_characters": None}, by):
        many[fate] += 1
        characters[fate] += len(document.text)
        if fate == "train":
            key = f"{recipe['seed']}/{document.name}".encode("utf-8", "surrogatepass")
            draw = random.Random(key).random
            sample += [line for line in document.text.split("\n") if line and (rate >= 1 or draw() < rate)]
    return many, characters, sample


def choose_split(path: Path, recipe: dict, size: int) -> tuple[str, Counter, Counter, list[str]]:
    """The key of SPLIT_BY that holds out about as much as it should, and what `survey` found."""
    for by in SPLIT_BY:
        found = _, characters, _ = survey(path, recipe, by, size)
        held = characters["test"] / max(1, characters["test"] + characters["train"])
        if recipe["test_fraction"] / 2 < held < 2 * recipe["test_fraction"]:
            return by, *found
    there = listed(found[0]) or "none"
    raise UserError(f"{path}: no text is left to train and to test on; documents: {there}")


def main() -> None:
    """Print the bytes of text below a folder, the files that hold it, and those that are not read."""
    (path,) = map(Path, sys.argv[1:])
    files, others = find_files(path)
    size = sum(len(document.text.encode("utf-8", "surrogatepass")) for document in documents(path))
    print(f"{size} bytes of text in {files_as_text(len(files), others)}")


def files_as_text(read: int, others: Counter) -> str:
    """How many files are read, and how many are not."""
    return f"{read:,} file{'s' * (read != 1)}" + (f"; not read: {listed(others)}" if others else "")


if __name__ == "__main__":
    run_script(main)
