"""pydocs: the English that comes with every Python installation, a corpus that needs no download.

It is made of the docstrings of libraries this project needs anyway, as requirements.txt pins them: 21 MB,
real, and the same text on every machine. A source file is a document, so no test document shares a module
with the training text.
"""

import ast
import gc
import hashlib
import importlib.util
import inspect
import json
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from common import Progress, UserError, write

PACKAGES = ("torch", "numpy", "scipy", "networkx", "matplotlib", "sympy")
EXPECTED = "00fdb767afe53d48"  # hash of the text from the versions in requirements.txt
BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")  # statement parts that can hold definitions


def fetch(folder: Path, max_tokens: float) -> dict[str, Path]:
    """Write all docstrings by file, even if a corpus is there: other versions have other docstrings."""
    names, paths = zip(*source_files(), strict=True)
    progress = Progress("reading docstrings", len(paths), "files")
    lines, seen = [], set()
    # A syntax tree has no cycles; looking for them takes a sixth of the time.
    with ProcessPoolExecutor(initializer=gc.disable) as pool:
        found = pool.map(read_docstrings, paths, chunksize=32)
        for done, (name, docstrings) in enumerate(zip(names, found, strict=True), 1):
            # A docstring that several files have is kept in the first of them only.
            fresh = [text for text in dict.fromkeys(docstrings) if text not in seen]
            seen.update(fresh)
            if fresh:
                lines.append(json.dumps({"name": name, "text": "\n\n".join(fresh)}) + "\n")
            progress.update(done)
    content = "".join(lines).encode()
    if hashlib.sha256(content).hexdigest()[:16] != EXPECTED:
        print("note: other versions than requirements.txt pins for Python 3.11; perplexities differ somewhat")
    write(folder / "pydocs.jsonl", content)
    return {"en": folder / "pydocs.jsonl"}


def source_files() -> Iterator[tuple[str, Path]]:
    """(name, path) of every source file, sorted within each package."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)  # a top-level package is found without importing it
        if spec is None:
            raise UserError(f"pydocs need the package {package}: pip install -r requirements.txt")
        root = Path(spec.submodule_search_locations[0])
        for path in sorted(root.rglob("*.py")):
            yield f"{package}/{path.relative_to(root).as_posix()}", path


def read_docstrings(path: Path) -> list[str]:
    """The docstrings of a source file, in order; none if it is no valid Python, as some test fixtures are."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, OSError):
        return []
    found, pending = [], [tree]
    while pending:
        node = pending.pop()
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        text = ast.get_docstring(node, clean=False) if documented else None
        if text:  # a lone surrogate is legal in a Python literal and in no encoding
            found.append(inspect.cleandoc(text).encode("utf-8", "ignore").decode())
        for block in reversed(BLOCKS):  # the last that is pushed is read first
            pending += reversed(getattr(node, block, ()))
    return found
