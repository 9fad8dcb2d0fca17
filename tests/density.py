"""How long and how dense each file is: python tests/density.py

Tokens are Python's own, without comments and docstrings, on each line on which one begins.
"""

import io
from pathlib import Path
from tokenize import COMMENT, DEDENT, ENDMARKER, INDENT, NEWLINE, NL, STRING, generate_tokens

ROOT = Path(__file__).parents[1]
PATTERNS = ("*.py", "kernels/*.py", "paper/*.py", "corpora/*.py", "runs/*.sh", "tests/*.py")
QUIET = {COMMENT, NL, NEWLINE, INDENT, DEDENT, ENDMARKER}


def density(source: str) -> float:
    """Tokens on a line of code."""
    lines, before = [], NEWLINE
    for token in generate_tokens(io.StringIO(source).readline):
        docstring = token.type == STRING and before in {NEWLINE, INDENT}
        if token.type not in QUIET and not docstring:
            lines.append(token.start[0])
        if token.type not in {COMMENT, NL}:
            before = token.type
    return len(lines) / max(1, len(set(lines)))


def main() -> None:
    """Print a row for each file, and totals."""
    total = {"tests": 0, "others": 0}
    for path in [path for pattern in PATTERNS for path in sorted(ROOT.glob(pattern))]:
        source = path.read_text()
        lines = len(source.splitlines())
        total["tests" if path.parent.name == "tests" else "others"] += lines
        tokens = f"{density(source):5.1f}" if path.suffix == ".py" and lines > 2 else "    -"
        print(f"{lines:6} lines {tokens} tokens a line   {path.relative_to(ROOT)}")
    print(f"{total['others']:6} lines without tests, {total['tests']} of tests")


if __name__ == "__main__":
    main()
