"""Where text comes from: a list of documents yet to be read, the text of each, and how it is cleaned.

One process lists a corpus (`open_source`), which costs nothing; many load and clean its documents (`load`, `clean`),
which does. What the files look like inside is the concern of `formats.py`.
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import formats
from common import UserError

SHORTEST = 64  # characters; below this a document is a stub that teaches nothing
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")  # all but tab and line feed


class Item(NamedTuple):
    """A document that is yet to be read."""

    name: str  # unique within its corpus, the same on every machine: the split between training and test hashes it
    size: int  # bytes that reading it costs; over a corpus they add up to TextSource.size
    kind: str  # which of LOADERS reads it
    path: str  # its file
    content: bytes | None = None  # its bytes where a file holds many documents; None: the file is the document

    @property
    def where(self) -> str:
        """What an error calls it: the file, and the line or row if it is a part of one."""
        return self.path if self.content is None else f"{self.path}:{self.name.rpartition(':')[2]}"


LOADERS: dict[str, Callable[[bytes, str], str]] = {
    "text": formats.decode,
    "jsonl": formats.json_text,
    "tei": formats.tei_text,
}


def load(item: Item) -> str:
    """The text of a document, not yet cleaned. This is what worker processes call.

    Raises:
        UserError: the file cannot be read or is not what its name says; names the file and the line.
    """
    content = formats.read(item.path) if item.content is None else item.content
    return LOADERS[item.kind](content, item.where)


def clean(text: str) -> str:
    """Unicode NFC, line ends as \\n, no control characters, no trailing blanks, at most one empty line in a row."""
    text = CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    # After the control characters: without the one between them, a letter and its accent become one.
    text = unicodedata.normalize("NFC", text).expandtabs(4)
    text = "\n".join(map(str.rstrip, text.split("\n")))
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.strip("\n")


# --- files of text --------------------------------------------------------------------------------------------------


def whole_file(kind: str) -> Callable[[str, Path], Iterator[Item]]:
    """A lister for files that are one document each."""
    return lambda name, path: iter([Item(name, path.stat().st_size, kind, str(path))])


def list_parts(name: str, path: Path, kind: str, parts: Callable) -> Iterator[Item]:
    """The documents of one file that holds many: `parts` gives (number, bytes read, content) of each."""
    return (Item(f"{name}:{number}", size, kind, str(path), content) for number, size, content in parts(path))


# How a file's documents are listed, by the end of its name.
TEXT_FILES: dict[str, Callable[[str, Path], Iterator[Item]]] = {
    **dict.fromkeys((".txt", ".txt.gz", ".txt.xz"), whole_file("text")),
    **dict.fromkeys((".jsonl", ".jsonl.gz", ".jsonl.xz"), lambda name, path: list_parts(name, path, "jsonl", formats.lines)),
    ".parquet": lambda name, path: list_parts(name, path, "text", formats.cells),
}
TEI_FILES = {".xml": whole_file("tei")}


class TextSource:
    """The documents of some files, in a fixed order, as often as wanted, never all of them at once.

    `size` is what reading all of them costs, in bytes on the disk.
    """

    def __init__(self, files: list[tuple[str, Path]], listers: dict = TEXT_FILES):
        self.files, self.listers = files, listers
        self.size = sum(path.stat().st_size for _, path in files)

    def __iter__(self) -> Iterator[Item]:
        for name, path in self.files:
            with formats.reading(path):
                yield from self.listers[suffix(path, self.listers)](name, path)

    def fingerprint(self) -> str:
        """A hash of the files' names, sizes and times: whether this is the text that earlier work was begun on."""
        facts = [f"{name} {path.stat().st_size} {path.stat().st_mtime_ns}" for name, path in self.files]
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()


class MemorySource:
    """Documents that are held in memory, given as (name, text): the same as a TextSource to whoever reads them."""

    def __init__(self, documents: Iterable[tuple[str, str]]):
        contents = ((name, text.encode()) for name, text in documents)
        self.items = [Item(name, len(content), "text", name, content) for name, content in contents]
        self.size = sum(item.size for item in self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def fingerprint(self) -> str:
        """A hash of all names and texts."""
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(f"{item.name} {item.size} ".encode() + item.content)
        return digest.hexdigest()


Source = TextSource | MemorySource


def suffix(path: Path, listers: dict) -> str | None:
    """The end of a file's name that says what it holds, in small letters; None if it says nothing known."""
    return next((end for end in listers if path.name.lower().endswith(end)), None)


def open_source(path: Path, listers: dict = TEXT_FILES) -> TextSource:
    """The documents of a file, or of all files of a known kind in a folder and those below it.

    Hidden files and folders are left out. A file or folder that links lead to more than once is read once, so links
    that go in circles end; hard links are files of their own.

    Raises:
        UserError: nothing is there, no file of a known kind is, or one is not a regular file.
    """
    known = ", ".join(listers)
    if not os.path.exists(path):  # unlike path.exists(), also where the name is too long to exist
        raise UserError(f"{path} does not exist, expected a folder or a file of these kinds: {known}")
    if path.is_dir():
        files = list(walk(path, listers))
    else:
        if suffix(path, listers) is None:
            raise UserError(f"{path} is of no known kind, expected the name to end in one of {known}")
        files = [path]
    if not files:
        raise UserError(f"{path} holds no file of a known kind, expected names that end in one of {known}")
    for file in files:
        if not file.is_file():
            raise UserError(f"{file} is a broken link or a special file, expected a regular file")
        if file.suffix.lower() == ".parquet":
            formats.extra("pyarrow.parquet", str(file))
    return TextSource([(name_of(file, path), file) for file in files], listers)


def walk(folder: Path, listers: dict) -> Iterator[Path]:
    """Every file of a known kind below a folder, sorted, links followed, each real file and folder once."""
    pending, visited = [folder], set()
    while pending:
        current = pending.pop()
        real = os.path.realpath(current)
        if real in visited:
            continue
        visited.add(real)
        if current.is_dir():
            inside = sorted(entry for entry in current.iterdir() if not entry.name.startswith("."))
            pending.extend(reversed(inside))
        elif suffix(current, listers):
            yield current


def name_of(file: Path, folder: Path) -> str:
    """A file's name within its corpus: its path inside the folder, in characters that every encoding has."""
    inside = file.relative_to(folder).as_posix() if file != folder else file.name
    return os.fsencode(inside).decode("utf-8", "backslashreplace")
