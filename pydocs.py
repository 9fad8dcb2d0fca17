"""`pydocs`: the English that comes with every Python installation, as a corpus that needs no download.

It is made of the docstrings of the standard library and of the libraries this project needs anyway: small (17 MB) but
real. One source file gives one document, so that a test document shares no module with the training text.
"""

import ast
import importlib.util
import inspect
import sysconfig
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from common import Progress, UserError

PACKAGES = ("torch", "numpy", "scipy", "networkx")
# Definitions hide only inside statements: leaving out expressions makes the walk through a file five times shorter.
STATEMENTS = (ast.stmt, ast.ExceptHandler, ast.match_case)


def read_pydocs() -> Iterator[tuple[str, str]]:
    """Every docstring of the standard library and of PACKAGES as installed, and the topics of `help()`: (name, text).

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
                yield from ((f"topic/{topic}", text) for topic, text in read_topics(path).items())
            fresh = [text for text in dict.fromkeys(docstrings) if text not in seen]
            seen.update(fresh)
            if fresh:
                yield name, "\n\n".join(fresh)
            progress.update(done)
    progress.close(len(files))


def pydocs_files() -> Iterator[tuple[str, Path]]:
    """(name, path) of every source file that `pydocs` reads, sorted within each package."""
    roots = {"stdlib": Path(sysconfig.get_paths()["stdlib"])}
    for package in PACKAGES:
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
