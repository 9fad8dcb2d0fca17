"""Where text comes from: a list of documents yet to be read, the text of each, and how it is cleaned.

One process lists a corpus (`open_source`, `pydocs_items`), which costs nothing; many load and clean its documents
(`load`, `clean`), which does. What the files look like inside is the concern of `formats.py`.

`pydocs` is the English that comes with every Python installation: the docstrings of the standard library and of the
libraries this project needs anyway. It is small (about 16 MB) but real, and it is there without a download. One source
file gives one document, so that a test document shares no module with the training text.
"""

import ast
import hashlib
import importlib.util
import inspect
import os
import re
import sysconfig
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import formats
from common import Progress, UserError

PYDOCS_PACKAGES = ("torch", "numpy", "scipy", "networkx")
SHORTEST = 64  # characters; below this a document is a stub that teaches nothing
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")  # all but tab and line feed
# Definitions hide only inside statements: leaving out expressions makes the walk through a file five times shorter.
STATEMENTS = (ast.stmt, ast.ExceptHandler, ast.match_case)


class Document(NamedTuple):
    """A text and the name it is split by; names are unique within a corpus."""

    name: str
    text: str


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


# --- documents in memory --------------------------------------------------------------------------------------------


def clean_documents(documents: Iterable[Document], dropped: Counter) -> Iterator[Document]:
    """Yield each document cleaned; leave out the too short and the exact copies, counting them in `dropped`."""
    seen: set[bytes] = set()
    for name, raw in documents:
        text = clean(raw)
        digest = hashlib.sha256(text.encode()).digest()
        if len(text) < SHORTEST:
            dropped["too short"] += 1
        elif digest in seen:
            dropped["copy of another"] += 1
        else:
            seen.add(digest)
            yield Document(name, text)


def split_documents(documents: list[Document], test_fraction: float, seed: int) -> tuple[list[Document], list[Document]]:
    """Shuffle by a hash of (seed, name) and hold out whole documents for testing, up to `test_fraction` of the text.

    Returns (train, test), neither empty. The order follows from names alone, so a document keeps its side when the
    corpus is read in another order.

    Raises:
        UserError: there are fewer than two documents.
    """
    if len(documents) < 2:
        raise UserError(
            f"the text holds {len(documents)} usable document(s), expected at least two: one to train on, one to test on"
        )
    shuffled = sorted(documents, key=lambda d: hashlib.sha256(f"{seed}/{d.name}".encode()).digest())
    room = test_fraction * sum(len(d.text) for d in documents)
    held_out = 0
    for document in shuffled[:-1]:
        room -= len(document.text)
        if room < 0 and held_out:
            break
        held_out += 1
    return shuffled[held_out:], shuffled[:held_out]


def read_text(path: Path) -> Iterator[Document]:
    """The `.txt` files of a folder and those below it, or one file; one document a file, read one at a time.

    Raises:
        UserError: at once if the path is missing or holds no `.txt` file; while reading if a file is not UTF-8.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist, expected a .txt file or a folder of them")
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} holds no .txt file, expected at least two, one document each")
    return map(read_text_file, files)


def read_text_file(path: Path) -> Document:
    """One file as one document, named by its path."""
    try:
        return Document(path.as_posix(), path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: byte {error.start} cannot be decoded") from None


# --- pydocs ---------------------------------------------------------------------------------------------------------


def pydocs_items() -> list[Item]:
    """The documents of `read_pydocs`, already read: taking them from the source files costs more than holding them."""
    contents = ((name, text.encode()) for name, text in read_pydocs())
    return [Item(name, len(content), "text", name, content) for name, content in contents]


def read_pydocs() -> Iterator[Document]:
    """Every docstring of the standard library and of PYDOCS_PACKAGES as installed, and the topics of `help()`.

    Source files are parsed, never imported. A docstring that several files share is kept where it comes first.
    """
    files = list(pydocs_files())
    progress = Progress("reading docstrings", len(files), "files")
    seen: set[str] = set()
    with ProcessPoolExecutor() as pool:
        for done, ((name, path), docstrings) in enumerate(
            zip(files, pool.map(read_docstrings, files, chunksize=32), strict=True)
        ):
            if name == "stdlib/pydoc_data/topics.py":
                yield from (Document(f"topic/{topic}", text) for topic, text in read_topics(path).items())
            fresh = [text for text in dict.fromkeys(docstrings) if text not in seen]
            seen.update(fresh)
            if fresh:
                yield Document(name, "\n\n".join(fresh))
            progress.update(done)
    progress.close(len(files))


def pydocs_files() -> Iterator[tuple[str, Path]]:
    """(name, path) of every source file that `pydocs` reads, sorted within each package."""
    roots = {"stdlib": Path(sysconfig.get_paths()["stdlib"])}
    for package in PYDOCS_PACKAGES:
        spec = importlib.util.find_spec(package)  # finds a top-level package without importing it
        if spec is None or not spec.submodule_search_locations:
            raise UserError(
                f"the package {package} is not installed, and pydocs reads its docstrings: pip install -r requirements.txt"
            )
        roots[package] = Path(spec.submodule_search_locations[0])
    for package, root in roots.items():
        for path in sorted(root.rglob("*.py")):
            inside = path.relative_to(root)
            if inside.parts[0] not in ("site-packages", "dist-packages"):
                yield f"{package}/{inside.as_posix()}", path


def read_docstrings(file: tuple[str, Path]) -> list[str]:
    """The docstrings of one source file, in order; none if it is no valid Python (some test fixtures are not)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(file[1].read_bytes())
    except (SyntaxError, ValueError, RecursionError, OSError):
        return []
    found, pending = [], [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text:
                # A lone surrogate is legal in a Python literal and in no encoding.
                found.append(inspect.cleandoc(text).encode("utf-8", "ignore").decode())
        pending.extend(reversed([child for child in ast.iter_child_nodes(node) if isinstance(child, STATEMENTS)]))
    return found


def read_topics(path: Path) -> dict[str, str]:
    """The texts behind `help('topic')`: the dictionary literal that pydoc_data/topics.py assigns."""
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            return ast.literal_eval(node.value)
    return {}
