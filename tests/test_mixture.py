"""Languages and mixtures: which pieces are one id, and which text each sequence of a run is."""

from itertools import combinations, product

import numpy as np
import pytest
from conftest import write_shard
from hypothesis import given, settings
from hypothesis import strategies as st

from common import UserError
from data import (
    PAD,
    Dataset,
    Mixture,
    Stream,
    anchored_languages,
    build_languages,
    cloned_languages,
    disjoint_languages,
    random_state,
    surface_forms,
)

quick = settings(max_examples=30, deadline=None)
KEYS = st.integers(0, 2**32)


FORMS = st.lists(st.text("abc", min_size=1, max_size=3), unique=True, max_size=30)
VOCABULARIES = st.lists(FORMS, min_size=1, max_size=4).map(
    lambda languages: {f"l{i}": ["<pad>", *forms] for i, forms in enumerate(languages)}
)


def injective(table: np.ndarray) -> bool:
    """Whether no two pieces of a language became one."""
    return len(np.unique(table)) == len(table)


@quick
@given(st.integers(1, 6), st.integers(1, 2000), st.floats(0, 1), KEYS)
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
        cloned_languages("en", 5000, 2, share, seed)[1].table < 5000
        for share, seed in ((0.2, 0), (0.3, 0), (0.2, 1))
    )
    assert (more[few]).all()
    assert 0.1 < (few & other).sum() / few.sum() < 0.3  # as many as chance makes


@quick
@given(st.lists(st.integers(1, 500), min_size=1, max_size=5))
def test_disjoint_languages_share_only_padding(sizes):
    languages = disjoint_languages({f"l{i}": size for i, size in enumerate(sizes)})
    for i, (language, size) in enumerate(zip(languages, sizes, strict=True)):
        assert injective(language.table)
        assert language.table[PAD] == PAD
        assert np.array_equal(language.table[1:], np.arange(1, size) + sum(sizes[:i]))
    assert all(set(one.table) & set(other.table) == {PAD} for one, other in combinations(languages, 2))


@quick
@given(VOCABULARIES)
def test_anchored_languages_share_what_looks_the_same_and_nothing_else(pieces):
    languages, seen = anchored_languages(pieces), {}
    assert [language.name for language in languages] == [source.upper() for source in pieces]
    for language in languages:
        assert language.table[PAD] == PAD
        for form, joint_id in zip(pieces[language.source][1:], language.table[1:].tolist(), strict=True):
            assert joint_id == seen.setdefault(form, 1 + len(seen))  # new ones without gaps


@pytest.mark.parametrize(("sources", "vocab", "anchors"), [
    (["en", "en", "en"], "cloned", 0.0),
    (["en", "en"], "cloned", 0.3),
    (["en", "xx"], "disjoint", 0.0),
    (["xx", "en", "yy"], "disjoint", 0.0),
])  # fmt: skip
def test_a_shared_piece_has_one_id_in_all_languages_and_nothing_else_moves(babel, sources, vocab, anchors):
    dataset = Dataset(babel)
    config = {"sources": sources, "vocab": vocab, "anchors": anchors, "seed": 0}
    before, after = (build_languages(dataset, config | {"shared": shared}) for shared in ([], [" ", "e"]))
    places = [
        [surface_forms(dataset.tokenizer(source)).index(form) for form in ("\u2581", "e")]
        for source in sources
    ]
    joint = [language.table[ids].tolist() for language, ids in zip(after, places, strict=True)]
    assert joint == [before[0].table[places[0]].tolist()] * len(sources)
    for was, now, ids in zip(before, after, places, strict=True):
        moved = np.flatnonzero(was.table != now.table)
        assert set(moved) <= set(ids)
        assert injective(now.table)


def test_a_seed_gives_the_same_numbers_in_every_version_of_numpy():
    # As NumPy 1.26.4 and 2.4.6 give them.
    assert random_state(1, 7).permutation(10).tolist() == [5, 1, 6, 9, 3, 7, 0, 8, 2, 4]
    assert random_state(1, 2**40 + 3).permutation(300_000)[:3].tolist() == [246469, 147675, 218969]
    assert random_state(0, 0).choice(3, 8, p=[0.5, 0.3, 0.2]).tolist() == [1, 0, 0, 0, 2, 2, 1, 1]
    tokens = np.arange(10, dtype=np.uint16)
    random_state(3, 0).shuffle(tokens)
    assert tokens.tolist() == [9, 6, 0, 2, 1, 4, 7, 5, 3, 8]


def test_no_two_keys_give_the_same_numbers():
    keys = [*product(range(4), (0, 1, 2**32, 2**40), range(3), range(3))]
    assert len({random_state(*key).bytes(8) for key in keys}) == len(keys)


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    tokens = np.random.default_rng(0).integers(1, 512, 10_007).astype(np.uint16)
    return Stream([write_shard(tmp_path_factory.mktemp("stream"), "x", tokens)])


def clones_of(stream, ratios=(0.9,), clones=2, seed=0, total=4096, length=16) -> Mixture:
    rest = max(1, clones - 1)
    stages = np.array([[ratio, *[(1 - ratio) / rest] * (clones - 1)] for ratio in ratios])
    return Mixture({"en": stream}, cloned_languages("en", 512, clones), stages, seed, total, length)


@quick
@given(st.integers(1, 5), st.integers(1, 40), KEYS)
def test_stages_switch_at_the_exact_sequence(stream, stages, per_stage, seed):
    ratios = [float(stage % 2) for stage in range(stages)]
    mixture = clones_of(stream, ratios, seed=seed, total=stages * per_stage)
    assert mixture.language.tolist() == [int(ratio == 0) for ratio in ratios for _ in range(per_stage)]


def test_a_shorter_run_reads_a_prefix_of_a_longer_one(stream):
    short, long = (clones_of(stream, total=total).batch(np.arange(100)) for total in (100, 5000))
    assert all(np.array_equal(one, other) for one, other in zip(short, long, strict=True))


def test_runs_of_different_ratio_read_the_same_text(stream):
    little, much = clones_of(stream, [0.3], total=1000), clones_of(stream, [0.8], total=1000)
    assert np.array_equal(little.window, much.window)
    assert (much.language[little.language == 0] == 0).all()


SIZES = {"en": 3001, "fr": 1603, "de": 801}
SHARES = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(
    lambda weights: [weight / sum(weights) for weight in weights]
)


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    """Each text counts upwards from its own number, so that a sequence tells where it was read."""
    folder, streams = tmp_path_factory.mktemp("streams"), {}
    for i, (source, size) in enumerate(SIZES.items()):
        tokens = (np.arange(size) + 10_000 * i).astype(np.uint16)
        streams[source] = Stream([write_shard(folder, source, tokens)])
    return streams


def real(streams, stages=((0.5, 0.4, 0.1),), seed=0, total=4096, length=16) -> Mixture:
    languages = disjoint_languages(dict.fromkeys(list(SIZES)[: len(stages[0])], 65536))
    return Mixture(streams, languages, np.array(stages), seed, total, length)


@quick
@given(SHARES, SHARES, KEYS)
def test_three_languages_occur_as_often_as_asked_in_each_stage(streams, first, second, seed):
    chosen = real(streams, [first, second], seed, total=40_000, length=1).language
    for begin, shares in ((0, np.array(first)), (20_000, np.array(second))):
        frequencies = np.bincount(chosen[begin : begin + 20_000], minlength=3) / 20_000
        bounds = 6 * np.sqrt(shares * (1 - shares) / 20_000) + 3 / 20_000
        assert (np.abs(frequencies - shares) <= bounds).all()


@settings(max_examples=10, deadline=None)
@given(KEYS)
def test_every_window_of_every_text_is_read_once_an_epoch(streams, seed):
    mixture = real(streams, seed=seed, total=3000)
    for position, windows in enumerate(mixture.windows.values()):
        of_source = mixture.window[mixture.language == position]
        epochs = of_source[: len(of_source) // windows * windows].reshape(-1, windows)
        assert len(epochs) >= 4
        assert (np.sort(epochs, axis=1) == np.arange(windows)).all()
        assert len({epoch.tobytes() for epoch in epochs}) == len(epochs)  # each pass has its own order
        assert len(np.unique(of_source[len(epochs) * windows :])) == len(of_source) % windows


def test_a_sequence_is_read_from_its_own_language_s_text(streams):
    mixture = real(streams)
    tokens, chosen = mixture.batch(np.arange(300))
    chosen = chosen.astype(np.int64)
    expected = (mixture.window[:300] * 16 + 10_000 * chosen)[:, None] + np.arange(17)
    assert np.array_equal(tokens, np.where(expected == 0, 0, expected + 65536 * chosen[:, None]))


def test_a_text_is_read_in_the_same_order_in_whatever_company(streams):
    alone = Mixture(streams, cloned_languages("fr", 65536, 1), np.ones((1, 1)), 0, 50, 16)
    mixed = real(streams, [(0.8, 0.2)])
    numbers = np.flatnonzero(mixed.language == 1)[:50]
    assert np.array_equal(mixed.window[numbers], alone.window)
    # Texts of the same length are shuffled apart: translations must not come side by side.
    both, languages = {"a": streams["en"], "b": streams["en"]}, disjoint_languages({"a": 9, "b": 9})
    windows = Mixture(both, languages, np.eye(2), 0, 300, 16).window
    assert (windows[:150] == windows[150:]).sum() < 10


def test_tokens_and_passes_are_counted(streams):
    mixture = real(streams, [(0.9, 0.1)], total=3000)
    counts = np.bincount(mixture.language)
    assert mixture.tokens_seen() == (16 * counts).tolist()
    expected = {"en": counts[0] / (3000 // 16), "fr": counts[1] / (1602 // 16), "de": 0}
    assert mixture.passes() == pytest.approx(expected)


def test_a_token_that_is_no_piece_is_told(tmp_path):
    stream = Stream([write_shard(tmp_path, "x", np.array([1, 99, 100], np.uint16))], pieces=100)
    assert stream.read(0, 2).tolist() == [1, 99]
    for read in (lambda: stream.read(0, 3), stream.counts):
        with pytest.raises(UserError, match="has changed: id 100 is not in its tokeniser"):
            read()
