"""Lookup tables: which pieces of which languages are one and the same id."""

import json
from itertools import combinations

import numpy as np
import pytest
from conftest import tree
from hypothesis import given
from hypothesis import strategies as st

from common import UserError
from languages import (
    PAD,
    anchored_languages,
    build_languages,
    cloned_languages,
    disjoint_languages,
    joint_vocabulary,
    shared_pieces,
    surface_forms,
)
from shards import Dataset

SEEDS = st.integers(0, 2**32)
FORMS = st.lists(st.text("abc", min_size=1, max_size=3), unique=True, max_size=30)
VOCABULARIES = st.lists(FORMS, min_size=1, max_size=4).map(
    lambda languages: {f"l{i}": ["<pad>", *forms] for i, forms in enumerate(languages)}
)


def injective(table: np.ndarray) -> bool:
    """Whether no two pieces of a language became one."""
    return len(np.unique(table)) == len(table)


@given(st.integers(1, 12), st.integers(2, 3000))
def test_clones_differ_by_multiples_of_the_vocabulary(clones, vocab_size):
    languages = cloned_languages("en", vocab_size, clones)
    assert [language.name for language in languages] == [f"EN{i + 1}" for i in range(clones)]
    for i, language in enumerate(languages):
        assert injective(language.table)
        assert (language.table[1:] - languages[0].table[1:] == i * vocab_size).all()
        assert language.table[PAD] == PAD
    pieces = np.concatenate([language.table[1:] for language in languages])
    assert len(np.unique(pieces)) == len(pieces)  # no piece of one language is a piece of another
    assert joint_vocabulary(languages) == clones * vocab_size


def test_ten_clones_of_a_real_vocabulary_need_more_than_sixteen_bits():
    assert cloned_languages("en", 16384, 10)[9].table[16383] == 163839


@given(st.integers(1, 6), st.integers(1, 2000), st.floats(0, 1), SEEDS)
def test_partial_clones_share_exactly_their_anchors(clones, vocab_size, anchors, seed):
    languages = cloned_languages("en", vocab_size, clones, anchors, seed)
    first = languages[0].table
    assert np.array_equal(first, np.arange(vocab_size))
    shared = [set(np.flatnonzero(language.table == first)) for language in languages[1:]]
    assert all(found == shared[0] and len(found) == 1 + round(anchors * (vocab_size - 1)) for found in shared)
    for i, language in enumerate(languages):
        assert injective(language.table)
        assert set(np.unique(language.table - first)) <= {0, i * vocab_size}
    for one, other in combinations(languages, 2):  # what is no anchor belongs to one clone alone
        assert set(one.table) & set(other.table) == set(first[sorted(shared[0])])


def test_more_anchors_keep_the_fewer_and_seeds_choose_others():
    few, more, other = (
        cloned_languages("en", 5000, 2, share, seed)[1].table < 5000 for share, seed in ((0.2, 0), (0.3, 0), (0.2, 1))
    )
    assert (more[few]).all()
    assert 0.1 < (few & other).sum() / few.sum() < 0.3  # as many as chance makes


@given(st.lists(st.integers(1, 500), min_size=1, max_size=5))
def test_disjoint_languages_share_only_padding(sizes):
    languages = disjoint_languages({f"l{i}": size for i, size in enumerate(sizes)})
    for i, (language, size) in enumerate(zip(languages, sizes, strict=True)):
        assert injective(language.table)
        assert language.table[PAD] == PAD
        assert np.array_equal(language.table[1:], np.arange(1, size) + sum(sizes[:i]))
    assert all(set(one.table) & set(other.table) == {PAD} for one, other in combinations(languages, 2))


@given(VOCABULARIES)
def test_anchored_languages_share_what_looks_the_same(pieces):
    languages = anchored_languages(pieces)
    assert [language.name for language in languages] == [source.upper() for source in pieces]
    assert np.array_equal(languages[0].table, np.arange(len(pieces["l0"])))
    for language in languages:
        assert injective(language.table)
        assert language.table[PAD] == PAD
    for one, other in combinations(languages, 2):
        same = set(pieces[one.source][1:]) & set(pieces[other.source][1:])
        assert {pieces[one.source][i] for i in np.flatnonzero(np.isin(one.table[1:], other.table[1:])) + 1} == same
    forms = {form for vocabulary in pieces.values() for form in vocabulary[1:]}
    used = np.unique(np.concatenate([language.table for language in languages]))
    assert np.array_equal(used, np.arange(1 + len(forms)))  # without gaps
    assert joint_vocabulary(languages) == 1 + len(forms)


@given(VOCABULARIES)
def test_a_language_s_new_pieces_follow_in_order_after_those_before_it(pieces):
    *earlier, last = anchored_languages(pieces)
    begin = joint_vocabulary(earlier) if earlier else 1
    new = [i for i in last.table[1:].tolist() if i >= begin]
    assert new == list(range(begin, begin + len(new)))


def test_the_anchored_share_is_the_measured_overlap(babel):
    dataset = Dataset(babel)
    config = {"sources": list(dataset.languages), "vocab": "anchored", "anchors": 0.0, "seed": 0}
    tables = {language.source: language.table for language in build_languages(dataset, config)}
    shared = shared_pieces(dataset)
    assert set(shared) == set(combinations(dataset.languages, 2))
    for (one, other), pieces in shared.items():
        assert len(np.intersect1d(tables[one], tables[other])) == 1 + pieces
        assert 256 < pieces < 511  # the bytes at least, but not all
    for form in ("<eod>", "<0x0A>", "▁the"):
        assert len({tables[source][surface_forms(dataset, source).index(form)] for source in tables}) == 1


def test_a_damaged_tokenizer_is_one_sentence(babel, tmp_path):
    for name, content in tree(babel).items():
        (tmp_path / name).write_bytes(content)
    tokenizer = tmp_path / json.loads((tmp_path / "meta.json").read_text())["languages"]["xx"]["tokenizer"]["file"]
    for spoil in (lambda: tokenizer.write_bytes(b"not a model"), tokenizer.unlink):
        spoil()
        with pytest.raises(UserError, match=r"xx\.model cannot be read, expected a SentencePiece model"):
            shared_pieces(Dataset(tmp_path))
