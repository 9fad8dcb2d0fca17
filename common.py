"""What every script shares: one-sentence errors, files that are never half-written, and a line that says how far it is."""

import argparse
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn


class UserError(Exception):
    """Something the user gave cannot be used. The message names the file or flag, what was found and what was expected."""


class Parser(argparse.ArgumentParser):
    """A command line whose description is printed as written, and whose errors are one sentence, without a usage line."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Refuse a command line.

        Raises:
            UserError: always.
        """
        raise UserError(f"{message.removeprefix('argument ')} ({self.prog} --help explains)")


# Conditions of the machine, not mistakes of the program: they get a sentence, not a traceback.
MACHINE_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOMEM),
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
}


def run_script(main) -> None:
    """Call `main()` and end the process: 0 when done, 2 and one sentence on a UserError, 130 when interrupted."""
    try:
        main()
    except UserError as error:
        sys.exit(report(str(error)))
    except BrokenPipeError:  # whoever read the output has seen enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if error.errno not in MACHINE_ERRORS:
            raise
        sys.exit(report(f"{error.filename or 'writing a file'}: {error.strerror}"))
    except KeyboardInterrupt:
        print("\ninterrupted; the same command starts again", file=sys.stderr)
        sys.exit(130)


def report(message: str) -> int:
    """Print one error sentence and return the exit code that goes with it.

    torchrun buries what its workers print under a report of its own, which quotes this file if it exists.
    """
    print(f"error: {message}", file=sys.stderr, flush=True)
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        now = str(int(time.time()))
        quoted = {"message": {"message": message, "extraInfo": {"py_callstack": message, "timestamp": now}}}
        Path(path).write_text(json.dumps(quoted))
    return 2


def markdown(head: Sequence[str], lines: list[Sequence[str]], left: int) -> str:
    """A Markdown table that is readable as it is; the first `left` columns are aligned to the left."""
    cells = [head, *lines]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    ruler = tuple("-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths))
    padded = [
        [cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths, strict=True))]
        for line in (head, ruler, *lines)
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace `path` by `content` in one step: a reader sees the old file or the new one, also after a power cut."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path: Path, content: dict) -> None:
    """Write `content` to `path` as indented JSON, atomically."""
    write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_figure(path: Path, figure) -> None:
    """Write a figure of matplotlib as PNG, atomically; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    write_atomic(path, content.getvalue())


def read_json(path: Path, what: str, keys: Iterable[str] = ()) -> dict:
    """Read a JSON object that has the given keys. `what` says in the error what the file should have been.

    Raises:
        UserError: the file is missing, does not hold a JSON object, or lacks a key.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist, expected {what}") from None
    except (ValueError, NotADirectoryError, IsADirectoryError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path} cannot be read as {what}: it is not a JSON object")
    if missing := [key for key in keys if key not in content]:
        raise UserError(f"{path} lacks {', '.join(missing)}: it is damaged, or was written by another version")
    return content


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def count(number: float) -> str:
    """1234567 -> '1.23M': a count at the precision one reads."""
    for scale, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= scale * 0.9995:  # 999,936 is 1M to three digits, not 1000k
            return f"{number / scale:.3g}{letter}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """3725 -> '1h02m', 125 -> '2m05s', 7 -> '7s'."""
    seconds = math.ceil(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
    return f"{seconds // 60}m{seconds % 60:02d}s" if seconds >= 60 else f"{seconds}s"


class Progress:
    """One line that says what runs, how far it is, how fast it goes and how long is left.

    On a terminal the line rewrites itself; in a log it appears every ten seconds. `begin` is what an earlier start
    of the same work had already done, so that a resumed run shows its true speed.
    """

    def __init__(self, label: str, total: float, unit: str, begin: float = 0, quiet: bool = False):
        self.label, self.total, self.unit, self.begin, self.quiet = label, total, unit, begin, quiet
        self.terminal = sys.stdout.isatty()
        self.started = self.shown = time.monotonic()
        self.width = 0

    def rate(self, done: float) -> float:
        """Units a second since the start."""
        return (done - self.begin) / max(time.monotonic() - self.started, 1e-9)

    def update(self, done: float, note: str = "") -> None:
        """Show that `done` of `total` units are behind us, if the last time is long enough ago."""
        now = time.monotonic()
        if self.quiet or now - self.shown < (0.2 if self.terminal else 10):
            return
        self.shown = now
        rate = self.rate(done)
        left = duration((self.total - done) / rate) if rate > 0 else "?"
        line = f"{self.label} {done / self.total:4.0%} | {note}{count(rate)} {self.unit}/s | {left} left"
        self.width = max(self.width, len(line))
        print(f"\r{line:<{self.width}}" if self.terminal else line, end="" if self.terminal else "\n", flush=True)

    def close(self, done: float, note: str = "") -> None:
        """Replace the line by a summary of the whole."""
        if self.quiet:
            return
        seconds = time.monotonic() - self.started
        line = f"{self.label} done | {note}{count(self.rate(done))} {self.unit}/s | {duration(seconds)}"
        print(f"\r{line:<{self.width}}" if self.terminal else line, flush=True)


@contextmanager
def exclusive(folder: Path, waiting: str | None = None) -> Iterator[None]:
    """Let one process at a time work in `folder`, which is made if need be and removed again if it stays empty.

    Another process says `waiting` and waits for its turn.

    Raises:
        BlockingIOError: another process is at work and `waiting` is None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is None:
                raise
            print(waiting, flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
        with suppress(OSError):
            folder.rmdir()
