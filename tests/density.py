"""How long and how dense each file is: python tests/density.py

Tokens are Python's own, without comments and docstrings, on each line on which one begins.
"""

import io
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[1]
QUIET = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def density(source: str) -> float:
    """Tokens on a line of code."""
    lines, before = [], tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        docstring = token.type == tokenize.STRING and before in {tokenize.NEWLINE, tokenize.INDENT}
        if token.type not in QUIET and not docstring:
            lines.append(token.start[0])
        if token.type not in {tokenize.COMMENT, tokenize.NL}:
            before = token.type
    return len(lines) / max(1, len(set(lines)))


def main() -> None:
    """Print a row for each file, and totals."""
    folders = {
        "": "*.py",
        "kernels": "*.py",
        "paper": "*.py",
        "corpora": "*.py",
        "runs": "*.sh",
        "tests": "*.py",
    }
    total = {"tests": 0, "others": 0}
    for folder, pattern in folders.items():
        for path in sorted((ROOT / folder).glob(pattern)):
            source = path.read_text()
            lines = len(source.splitlines())
            total["tests" if folder == "tests" else "others"] += lines
            tokens = f"{density(source):5.1f}" if path.suffix == ".py" and lines > 2 else "    -"
            print(f"{lines:6} lines {tokens} tokens a line   {path.relative_to(ROOT)}")
    print(f"{total['others']:6} lines without tests, {total['tests']} of tests")


if __name__ == "__main__":
    main()
