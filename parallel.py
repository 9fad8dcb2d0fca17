"""Parallel text: files whose lines are translations of each other, packed into pairs of sequences (the paper's section 2).

The paper compares hidden states and gradients on such pairs, from Europarl: lines are too short by themselves, so that
consecutive ones are joined while every side still fits into a sequence.
"""

import gzip
import lzma
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from common import UserError
from formats import DECOMPRESSORS

BYTE_ORDER_MARK = "\ufeff"


def read_parallel(paths: dict[str, Path]) -> Iterator[tuple[str, ...]]:
    """The aligned lines of one UTF-8 file a language (plain, .gz or .xz), in the order of `paths`, without white space around.

    Lines that are empty in all languages are skipped. Only a line feed ends a line: other separators of Unicode are text, and
    one translation may have them where the other has not.

    Raises:
        UserError: a file is missing, damaged or not UTF-8, is longer than another, or has an empty line where another has text.
    """
    with ExitStack() as stack:
        files = [_lines(path, stack.enter_context(_open(path))) for path in paths.values()]
        for number, lines in enumerate(zip_longest(*files), 1):
            if None in lines:
                counts = [number - 1 + (line is not None) + sum(1 for _ in file) for line, file in zip(lines, files, strict=True)]
                listed = ", ".join(f"{path} has {count} lines" for path, count in zip(paths.values(), counts, strict=True))
                raise UserError(f"{listed}: from line {number} on they cannot be aligned, expected as many in each")
            if all(lines):
                yield lines
            elif any(lines):
                empty, other = _first(paths, lines, filled=False), _first(paths, lines, filled=True)
                raise UserError(f"{empty}, line {number} is empty, but {other} has text there; expected text in each or in none")


def _first(paths: dict[str, Path], lines: tuple[str, ...], *, filled: bool) -> Path:
    return next(path for path, line in zip(paths.values(), lines, strict=True) if bool(line) == filled)


def _open(path: Path) -> IO[bytes]:
    try:
        return DECOMPRESSORS.get(path.suffix.lower(), open)(path, "rb")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} does not exist, expected a text file of parallel lines") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, expected a text file of parallel lines") from None


def _lines(path: Path, file: IO[bytes]) -> Iterator[str]:
    number = 0
    try:
        for number, line in enumerate(file, 1):
            text = line.decode("utf-8")
            yield (text.removeprefix(BYTE_ORDER_MARK) if number == 1 else text).strip()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, line {number}: byte {error.start + 1} is not valid UTF-8") from None
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise UserError(f"{path} is damaged behind line {number}: {error}") from None


class Packed(NamedTuple):
    """What `pack` made: `pairs` of (n,) int32 ids, one array a language; line pairs `skipped`; packed pairs `dropped`."""

    pairs: list[tuple[np.ndarray, ...]]
    skipped: int
    dropped: int


def pack(pairs: Iterable[Sequence[Sequence[int]]], length: int = 512, shortest: int = 128, most: int = 500) -> Packed:
    """Join consecutive aligned lines into pairs that fit into a sequence; reads no further than it must.

    Args:
        pairs: the tokens of a line in each language, line after line.
        length: most tokens of a side. A line with a longer side is skipped, and those around it are joined.
        shortest: least tokens of a packed pair's shorter side; pairs below it are dropped.
        most: packed pairs wanted; the first ones are taken.
    """
    packed: list[tuple[np.ndarray, ...]] = []
    skipped = dropped = 0
    for joined in _join(pairs, length):
        if joined is None:
            skipped += 1
        elif min(map(len, joined)) < shortest:
            dropped += 1
        else:
            packed.append(tuple(np.array(side, np.int32) for side in joined))
        if len(packed) >= most:
            break
    return Packed(packed[:most], skipped, dropped)


def _join(pairs: Iterable[Sequence[Sequence[int]]], length: int) -> Iterator[list[list[int]] | None]:
    """Lines joined while all sides fit; None for each that fits nowhere."""
    held: list[list[int]] = []
    for pair in pairs:
        if max(map(len, pair)) > length:
            yield None
        elif held and all(len(side) + len(more) <= length for side, more in zip(held, pair, strict=True)):
            held = [[*side, *more] for side, more in zip(held, pair, strict=True)]
        else:
            if held:
                yield held
            held = [list(side) for side in pair]
    if held:
        yield held
