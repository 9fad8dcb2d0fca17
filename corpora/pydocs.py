"""pydocs: the English that comes with every Python installation, a corpus that needs no download.

It is made of the docstrings of the standard library and of the libraries this project needs anyway: small
(17 MB) but real. A source file is a document, so a test document shares no module with the training text.
"""

import ast
import importlib.util
import inspect
import json
import sysconfig
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from common import Progress, run_script, write
from corpora import command

PACKAGES = ("torch", "numpy", "scipy", "networkx")
BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")  # of a statement, where definitions can hide


def fetch(folder: Path, max_tokens: float) -> dict[str, Path]:
    """Write all docstrings, whatever is there already: another Python has others."""
    lines = [json.dumps({"name": name, "text": text}) + "\n" for name, text in read_pydocs()]
    write(folder / "pydocs.jsonl", "".join(lines))
    return {"en": folder / "pydocs.jsonl"}


def read_pydocs() -> Iterator[tuple[str, str]]:
    """(name, text): docstrings of the standard library and of PACKAGES by file, and the topics of `help()`.

    Source files are parsed, never imported. A docstring that several share is kept where it comes first.
    """
    files = list(source_files())
    progress = Progress("reading docstrings", len(files), "files")
    seen: set[str] = set()
    with ProcessPoolExecutor() as pool:
        found = pool.map(read_docstrings, [path for _, path in files], chunksize=32)
        for done, ((name, path), docstrings) in enumerate(zip(files, found, strict=True), 1):
            if name == "stdlib/pydoc_data/topics.py":
                yield from ((f"topic/{topic}", text) for topic, text in read_topics(path).items())
            fresh = [text for text in dict.fromkeys(docstrings) if text not in seen]
            seen.update(fresh)
            if fresh:
                yield name, "\n\n".join(fresh)
            progress.update(done)


def source_files() -> Iterator[tuple[str, Path]]:
    """(name, path) of every source file, sorted within each package."""
    roots = {"stdlib": Path(sysconfig.get_paths()["stdlib"])}
    for package in PACKAGES:  # a top-level package is found without importing it
        roots[package] = Path(importlib.util.find_spec(package).submodule_search_locations[0])
    for package, root in roots.items():
        for path in sorted(root.rglob("*.py")):
            inside = path.relative_to(root)
            if inside.parts[0] not in ("site-packages", "dist-packages"):
                yield f"{package}/{inside.as_posix()}", path


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
        if documented and (text := ast.get_docstring(node, clean=False)):
            # A lone surrogate is legal in a Python literal and in no encoding.
            found.append(inspect.cleandoc(text).encode("utf-8", "ignore").decode())
        pending += [child for block in BLOCKS for child in getattr(node, block, ())][::-1]
    return found


def read_topics(path: Path) -> dict[str, str]:
    """The texts behind `help('topic')`: the dictionary literal that pydoc_data/topics.py assigns."""
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            return ast.literal_eval(node.value)
    return {}


if __name__ == "__main__":
    run_script(lambda: command(fetch, __doc__))
