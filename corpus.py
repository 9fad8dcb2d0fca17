"""Where text comes from: documents in, cleaned documents out, each dropped one counted by its reason.

`pydocs` is the English that comes with every Python installation: the docstrings of the standard library and of the
libraries this project needs anyway. It is small (about 16 MB) but real, and it is there without a download. One source
file gives one document, so that a test document shares no module with the training text.
"""

import ast
import hashlib
import importlib.util
import inspect
import re
import sysconfig
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

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


def clean(text: str) -> str:
    """Unicode NFC, line ends as \\n, no control characters, no trailing blanks, at most one empty line in a row."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    lines = [line.rstrip() for line in CONTROL.sub("", text).expandtabs(4).split("\n")]
    kept = [line for i, line in enumerate(lines) if line or (i > 0 and lines[i - 1])]
    return "\n".join(kept).strip("\n")


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
