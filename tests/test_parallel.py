"""Parallel text: aligned lines or a sentence that names the line, and the paper's packing against its plain statement."""

import gzip
import lzma

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import UserError
from parallel import pack, read_parallel

WRITERS = {"": lambda content: content, ".gz": gzip.compress, ".xz": lzma.compress}


def write(folder, **contents: bytes):
    paths = {name: folder / name for name in contents}
    for name, content in contents.items():
        paths[name].write_bytes(content)
    return paths


@pytest.mark.parametrize("suffix", WRITERS)
def test_lines_come_in_pairs(tmp_path, suffix):
    english = "\ufeffOne line.\r\n\n  A\u2028line\x0cwith separators \nThe last".encode()
    french = "Une ligne.\n \nUne ligne\u00a0!\nLa dernière\n".encode()
    paths = {"en": tmp_path / f"en{suffix}", "fr": tmp_path / "fr"}
    paths["en"].write_bytes(WRITERS[suffix](english))
    paths["fr"].write_bytes(french)
    assert list(read_parallel(paths)) == [
        ("One line.", "Une ligne."),
        ("A\u2028line\x0cwith separators", "Une ligne\u00a0!"),
        ("The last", "La dernière"),
    ]


def test_three_languages_are_read_side_by_side(tmp_path):
    assert list(read_parallel(write(tmp_path, en=b"a\nb", fr=b"c\nd", de=b"e\nf"))) == [("a", "c", "e"), ("b", "d", "f")]


@pytest.mark.parametrize(("contents", "sentence"), [
    ({"en": b"a\nb\nc\n", "fr": b"a\n"}, "en has 3 lines, .*fr has 1 lines: from line 2 on"),
    ({"en": b"", "fr": b"a\nb"}, "en has 0 lines, .*fr has 2 lines: from line 1 on"),
    ({"en": b"a\n \nc\n", "fr": b"a\nb\nc\n"}, "en, line 2 is empty, but .*fr has text"),
    ({"en": b"a\nb\n", "fr": b"a\n\n"}, "fr, line 2 is empty, but .*en has text"),
    ({"en": b"a\nb\n", "fr": b"a\nb\xff\n"}, "fr, line 2: byte 2 is not valid UTF-8"),
    ({"en": b"a\nb\n", "fr": "é\nà\n".encode("utf-16")}, "fr, line 1: byte 1 is not valid UTF-8"),
    ({"en": b"a\n", "fr.gz": b"a\n"}, "fr.gz is damaged behind line 0"),
    ({"en": b"a\n", "fr.gz": gzip.compress(b"a\n" * 99)[:-9]}, "fr.gz is damaged behind line"),
    ({"en": b"a\n", "fr.xz": lzma.compress(b"a\n")[:-9]}, "fr.xz is damaged behind line"),
])  # fmt: skip
def test_what_cannot_be_aligned_is_named(tmp_path, contents, sentence):
    with pytest.raises(UserError, match=sentence):
        list(read_parallel(write(tmp_path, **contents)))


def test_missing_files_are_named(tmp_path):
    paths = write(tmp_path, en=b"a")
    with pytest.raises(UserError, match="fr does not exist"):
        list(read_parallel(paths | {"fr": tmp_path / "fr"}))
    with pytest.raises(UserError, match="is a folder"):
        list(read_parallel(paths | {"fr": tmp_path}))


LINES = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), max_size=60)


def tokens_of(lines: list[tuple[int, int]]) -> list[tuple[list[int], list[int]]]:
    """Lines of the given numbers of tokens, all different."""
    return [(list(range(100 * i, 100 * i + n)), list(range(100 * i + 50, 100 * i + 50 + m))) for i, (n, m) in enumerate(lines)]


@given(LINES, st.integers(6, 20), st.integers(1, 8))
def test_packing_does_what_the_paper_says(lines, length, shortest):
    pairs = tokens_of(lines)
    fitting = [pair for pair in pairs if len(pair[0]) <= length and len(pair[1]) <= length]
    expected, begin = [], 0
    while begin < len(fitting):  # the longest run of lines from here that fits
        ends = range(begin + 1, len(fitting) + 1)
        end = max(end for end in ends if all(sum(len(pair[side]) for pair in fitting[begin:end]) <= length for side in (0, 1)))
        expected.append(tuple([token for pair in fitting[begin:end] for token in pair[side]] for side in (0, 1)))
        begin = end
    long_enough = [pair for pair in expected if min(map(len, pair)) >= shortest]
    packed = pack(iter(pairs), length, shortest, most=1000)
    assert [tuple(side.tolist() for side in pair) for pair in packed.pairs] == long_enough
    assert (packed.skipped, packed.dropped) == (len(pairs) - len(fitting), len(expected) - len(long_enough))


@given(LINES, st.integers(0, 9))
def test_the_first_packed_pairs_are_taken(lines, most):
    every, first = (pack(tokens_of(lines), 12, 4, limit).pairs for limit in (1000, most))
    assert len(first) == min(most, len(every))
    for one, other in zip(first, every, strict=False):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_packing_reads_no_more_than_it_needs():
    def lines():
        yield from ([[1] * 300, [2] * 300], [[1] * 300, [2] * 300])
        raise AssertionError("read on")

    (pair,), skipped, dropped = pack(lines(), most=1)
    assert [(side.dtype, len(side)) for side in pair] == [(np.int32, 300)] * 2
    assert (skipped, dropped) == (0, 0)
