"""What every script shares: one-sentence errors, files that are never half-written, a progress line."""

import argparse
import ast
import fcntl
import hashlib
import io
import json
import math
import os
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Something the user gave cannot be used. The message names it, what was found and what was expected."""


class Parser(argparse.ArgumentParser):
    """A command line whose description is printed as written, and whose errors are one sentence."""

    def __init__(self, description: str):
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(description=description, formatter_class=formatter, allow_abbrev=False)

    def error(self, message: str):
        raise UserError(f"{message.removeprefix('argument ')} (see {self.prog} --help)")


ABOVE_ZERO = 1e-300


def number(kind=float, low=ABOVE_ZERO, high=1e15):
    """A `type=` of argparse: a number between `low` and `high`."""

    def convert(text: str):
        value = float(text)
        if not low <= value <= high or (kind is int and value != int(value)):  # refuses nan, too
            whole = "a whole number" if kind is int else "a number"
            limits = "above 0" if low == ABOVE_ZERO else f"from {low:g} to {high:g}"
            raise argparse.ArgumentTypeError(f"{text}: expected {whole} {limits}")
        return kind(value)

    convert.__name__ = "number"  # if float() fails, argparse says: invalid number value
    return convert


class Output:
    """A stream whose errors never end a script: its reader left, as in `| head -1`, or its disk is full."""

    def __init__(self, stream):
        self.stream = stream
        if hasattr(stream, "reconfigure"):  # a character that a terminal lacks becomes an escape
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> None:
        """Write `text` at once, or forget it and all that follows where it cannot be written."""
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def __getattr__(self, name: str):
        return getattr(self.stream, name)


def run_script(main) -> None:
    """Call `main()` and end the process: with 0, or with 2 and one sentence if a user can mend the error."""
    sys.stdout = Output(sys.stdout or io.StringIO())  # None if the stream was closed
    sys.stderr = Output(sys.stderr or io.StringIO())
    try:
        main()
    except (UserError, OSError) as error:
        message = str(error)
        if isinstance(error, OSError) and error.strerror:
            message = f"{error.filename or 'writing a file'}: {error.strerror}"
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\ninterrupted; to continue, run the same command again", file=sys.stderr)
        sys.exit(130)


def write(path: Path, content) -> None:
    """Replace `path`, all of it or nothing, with bytes, a text, an object as JSON, or a matplotlib figure."""
    if hasattr(content, "savefig"):
        content = picture(content, path.suffix[1:])
    if not isinstance(content, bytes | str):
        content = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    if isinstance(content, str):
        content = content.encode(errors="backslashreplace")  # half an emoji, as in JSON, becomes an escape
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # before the rename, so that a power cut loses only the new file
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


def picture(figure, kind: str) -> bytes:
    """A matplotlib figure as a file of that kind: the same figure gives the same bytes."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # missing from the font: the picture shows it
        figure.savefig(file, format=kind, dpi=150)
    return file.getvalue()


def dress(axes, **labels) -> None:
    """Labels, no frame; on log axes ticks at 1, 2, 3 and 5 times the powers of ten, if these are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axes.set(**labels)
    axes.spines[["top", "right"]].set_visible(False)
    tick = FuncFormatter(lambda value, _: count(value) if value >= 1000 else f"{value:.3g}")
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            low, high = axis.get_view_interval()
            between = (2, 3, 5) if high < 1000 * low else ()
            axis.set_minor_locator(LogLocator(subs=between))
            axis.set_major_formatter(tick)
            axis.set_minor_formatter(tick)


def shown(name: str) -> str:
    """A run's name as a label: matplotlib hides labels that begin with _, and reads two $ as a formula."""
    return (" " + name if name.startswith("_") else name).replace("$", r"\$")


def read_metrics(out: Path) -> list[dict]:
    """The lines of a run's metrics.jsonl; a last line that a crash cut off is left out."""
    *lines, _ = (out / "metrics.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines]


def read_json(path: Path) -> dict:
    """Read a JSON object."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise UserError(f"{path} is damaged: it is not a JSON object; restore it or make it again") from None


def code_hash() -> str:
    """A hash of the files that decide what a run computes: whoever edits them trains another run."""
    files = ["model.py", "data.py", "train.py", "machine.py"]
    files += ["kernels/__init__.py", "kernels/attention.py", "kernels/cross_entropy.py"]
    folder = Path(__file__).parent
    code = b"".join(without_words((folder / file).read_bytes()) for file in files)
    return hashlib.sha256(code).hexdigest()[:12]


def without_words(source: bytes) -> bytes:
    """Python code without docstrings, help of flags, lines of comment and empty lines.

    An edit of those must not keep a stopped run from going on. Any other edit does: a new row of SIZES, too.
    """
    words = []
    for node in ast.walk(ast.parse(source)):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if docstring or (isinstance(node, ast.keyword) and node.arg == "help"):
            words.append((node.lineno - 1, node.col_offset, node.end_lineno, node.end_col_offset))
    lines = source.splitlines()
    for first, begin, last, end in sorted(words, reverse=True):
        lines[first:last] = [lines[first][:begin] + lines[last - 1][end:]]
    stripped = map(bytes.rstrip, lines)
    return b"".join(line + b"\n" for line in stripped if line and not line.lstrip().startswith(b"#"))


@contextmanager
def exclusive(folder: Path, wait: bool = False):
    """Let one process at a time work in `folder`, made if need be; another one waits or gets an error."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            message = f"another process is at work in {folder}; wait or choose another folder"
            raise UserError(message) from None
        print(f"waiting for another process that is at work in {folder}", flush=True)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


def markdown(head, rows, left: int = 1) -> str:
    """A Markdown table that is readable as plain text; the first `left` columns are aligned to the left."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    align = [str.ljust] * left + [str.rjust] * (len(widths) - left)
    ends = ["-"] * left + [":"] * (len(widths) - left)
    ruler = [end.rjust(width, "-") for end, width in zip(ends, widths, strict=True)]
    lines = []
    for row in (head, ruler, *rows):
        cells = [pad(cell, width) for pad, cell, width in zip(align, row, widths, strict=True)]
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def count(value: float) -> str:
    """1234567 -> '1.23M'."""
    for scale, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale * 0.9995:  # 999,936 is 1M to three digits, not 1000k
            return f"{value / scale:.3g}{letter}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """3725 -> '1h02m', 125 -> '2m05s', 7 -> '7s'."""
    seconds = math.ceil(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
    return f"{seconds // 60}m{seconds % 60:02d}s" if seconds >= 60 else f"{seconds}s"


class Progress:
    """A line that shows progress: rewritten on a terminal, printed every ten seconds in a log."""

    def __init__(self, label: str, total: float, unit: str, begin: float = 0):
        self.label, self.total, self.unit, self.begin = label, total, unit, begin
        self.started = self.counted = self.shown = time.monotonic()

    def count_from(self, done: float) -> None:
        """Measure speed from now on: work before, such as compiling, had another speed."""
        self.begin, self.counted = done, time.monotonic()

    def rate(self, done: float) -> float:
        """Units a second."""
        return (done - self.begin) / max(time.monotonic() - self.counted, 1e-9)

    def update(self, done: float, note: str = "") -> None:
        """Show that `done` of `total` units are done, unless a line was shown just now."""
        terminal, now = sys.stdout.isatty(), time.monotonic()
        finished = done >= self.total
        pause = 0.2 if terminal else 10
        if not finished and now - self.shown < pause:
            return
        self.shown, rate = now, self.rate(done)
        if finished:
            how_far, how_long = "done", duration(now - self.started)
        else:
            how_far = f"{done / self.total:4.0%}"
            how_long = f"{duration((self.total - done) / max(rate, 1e-9))} left"
        line = f"{self.label} {how_far} | {note}{count(rate)} {self.unit}/s | {how_long}"
        end = "" if terminal and not finished else "\n"
        print(f"\r{line:<100}" if terminal else line, end=end, flush=True)
