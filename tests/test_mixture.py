"""Mixtures: which language and which text a sequence is, the properties every experiment rests on."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import write_shard
from hypothesis import given, settings
from hypothesis import strategies as st

from languages import cloned_languages, disjoint_languages
from mixture import BLOCK, Mixture, stages_from_ratios
from shards import Stream
from shuffle import permute, random_bits

KEYS = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    path = tmp_path_factory.mktemp("stream") / "x.bin"
    write_shard(path, np.random.default_rng(0).integers(1, 512, 10_007).astype(np.uint16))
    return Stream([path])


def make(stream, ratios=(0.9,), clones=2, seed=0, total=4096, length=16) -> Mixture:
    return Mixture(
        {"en": stream}, cloned_languages("en", 512, clones), stages_from_ratios(list(ratios), clones), seed, total, length
    )


@given(st.integers(1, 5000), KEYS)
def test_permute_is_a_permutation(size, key):
    assert np.array_equal(np.sort(permute(np.arange(size), size, key)), np.arange(size))


def test_permute_spreads_neighbours_and_depends_on_its_key():
    one, other = permute(np.arange(10_000), 10_000, 1), permute(np.arange(10_000), 10_000, 2)
    assert (one == other).sum() < 20
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.05
    assert abs(np.corrcoef(one, np.arange(10_000))[0, 1]) < 0.05


def test_random_bits_are_splitmix64():
    # The sequence that begins at 0, from Vigna's published splitmix64.c; an empty key begins there.
    assert random_bits(np.arange(3)).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


@given(st.floats(0, 1), st.integers(2, 10), KEYS)
def test_languages_occur_as_often_as_asked(stream, ratio, clones, seed):
    mixture = make(stream, [ratio], clones, seed, total=20_000)
    frequencies = np.bincount(mixture.language(np.arange(20_000)), minlength=clones) / 20_000
    expected = mixture.stages[0]
    assert np.isclose(expected.sum(), 1)
    assert (np.abs(frequencies - expected) <= 6 * np.sqrt(expected * (1 - expected) / 20_000) + 3 / 20_000).all()


def test_neighbouring_sequences_are_in_independent_languages(stream):
    chosen = make(stream, [0.5], total=100_000).language(np.arange(100_000))
    assert abs(np.corrcoef(chosen[:-1], chosen[1:])[0, 1]) < 0.015


@given(st.integers(1, 5), st.integers(1, 40), KEYS)
def test_stages_switch_at_the_exact_sequence(stream, stages, per_stage, seed):
    ratios = [float(stage % 2) for stage in range(stages)]
    chosen = make(stream, ratios, seed=seed, total=stages * per_stage).language(np.arange(stages * per_stage))
    assert chosen.tolist() == [int(ratio == 0) for ratio in ratios for _ in range(per_stage)]


@given(KEYS)
def test_every_window_is_read_once_an_epoch(stream, seed):
    mixture = make(stream, seed=seed, total=3000)
    read = mixture.window(np.arange(3 * mixture.windows["en"])).reshape(3, -1)
    assert (np.sort(read, axis=1) == np.arange(mixture.windows["en"])).all()
    assert not np.array_equal(read[0], read[1])


@given(st.integers(0, 500), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]))
def test_a_batch_is_the_same_however_it_is_shared_out(stream, step, world, parts):
    mixture = make(stream, total=64 * 501)
    whole, chosen = mixture.batch(np.arange(step * 64, step * 64 + 64))
    pieces = [mixture.batch(numbers) for numbers in np.split(np.arange(step * 64, step * 64 + 64), world * parts)]
    assert np.array_equal(np.concatenate([tokens for tokens, _ in pieces]), whole)
    assert np.array_equal(np.concatenate([languages for _, languages in pieces]), chosen)


def test_a_shorter_run_reads_a_prefix_of_a_longer_one(stream):
    short, long = make(stream, total=100), make(stream, total=5000)
    assert all(np.array_equal(a, b) for a, b in zip(short.batch(np.arange(100)), long.batch(np.arange(100)), strict=True))


def test_runs_of_different_ratio_read_the_same_text(stream):
    numbers = np.arange(1000)
    little, much = make(stream, [0.3], total=1000), make(stream, [0.8], total=1000)
    assert np.array_equal(little.window(numbers), much.window(numbers))
    assert (much.language(numbers)[little.language(numbers) == 0] == 0).all()


def test_a_sequence_is_its_window_through_its_language_s_table(stream):
    mixture = make(stream, [0.5], clones=3)
    tokens, chosen = mixture.batch(np.arange(50))
    assert set(chosen.tolist()) == {0, 1, 2}
    for row, language, window in zip(tokens, chosen, mixture.window(np.arange(50)), strict=True):
        assert np.array_equal(row, stream.read(window * 16, 17).astype(np.int64) + 512 * language)


def test_seeds_give_different_runs(stream):
    one, other = make(stream, [0.5], seed=0), make(stream, [0.5], seed=1)
    assert (one.window(np.arange(600)) == other.window(np.arange(600))).sum() < 10
    assert 0.4 < (one.language(np.arange(4096)) == other.language(np.arange(4096))).mean() < 0.6


def test_tokens_seen_counts_the_run(stream):
    mixture = make(stream, [0.9, 0.1], total=1000)
    assert sum(mixture.tokens_seen(1000)) == 16_000
    assert mixture.tokens_seen(1000)[0] == 16 * int((mixture.language(np.arange(1000)) == 0).sum())


# --- several texts --------------------------------------------------------------------------------------------------

SIZES = {"en": 3001, "fr": 1603, "de": 801}


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    for i, (source, size) in enumerate(SIZES.items()):
        # Each text counts upwards from its own number, so that a sequence tells where it was read.
        write_shard(folder / source, (np.arange(size) + 10_000 * i).astype(np.uint16), 0, 65535)
    return {source: Stream([folder / source]) for source in SIZES}


def make_real(streams, stages=((0.5, 0.4, 0.1),), seed=0, total=4096, length=16) -> Mixture:
    sources = list(SIZES)[: len(stages[0])]
    return Mixture(streams, disjoint_languages(dict.fromkeys(sources, 65536)), np.array(stages), seed, total, length)


SHARES = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(lambda weights: [weight / sum(weights) for weight in weights])


@settings(deadline=None)
@given(SHARES, SHARES, KEYS)
def test_three_languages_occur_as_often_as_asked_in_each_stage(streams, first, second, seed):
    mixture = make_real(streams, [first, second], seed, total=40_000)
    for begin, shares in ((0, np.array(first)), (20_000, np.array(second))):
        frequencies = np.bincount(mixture.language(np.arange(begin, begin + 20_000)), minlength=3) / 20_000
        assert (np.abs(frequencies - shares) <= 6 * np.sqrt(shares * (1 - shares) / 20_000) + 3 / 20_000).all()


@given(st.integers(1, 40), KEYS)
def test_stages_of_real_languages_switch_at_the_exact_sequence(streams, per_stage, seed):
    chosen = make_real(streams, np.eye(3)[[2, 0, 1, 0]], seed, 4 * per_stage).language(np.arange(4 * per_stage))
    assert chosen.tolist() == [language for language in (2, 0, 1, 0) for _ in range(per_stage)]


def test_a_share_of_zero_is_never_drawn_even_if_the_shares_lack_a_little():
    mixture = Mixture({}, disjoint_languages({"en": 9, "fr": 9, "de": 9}), np.array([[0.5, 0.499, 0.0]]), 0, 100_000, 16)
    assert set(mixture.language(np.arange(100_000)).tolist()) == {0, 1}


@settings(max_examples=20, deadline=None)
@given(KEYS)
def test_every_window_of_every_text_is_read_once_an_epoch(streams, seed):
    mixture = make_real(streams, seed=seed, total=3000)
    read, chosen = mixture.window(np.arange(3000)), mixture.language(np.arange(3000))
    for position, windows in enumerate(mixture.windows.values()):
        of_source = read[chosen == position]
        epochs = of_source[: len(of_source) // windows * windows].reshape(-1, windows)
        assert len(epochs) >= 4
        assert (np.sort(epochs, axis=1) == np.arange(windows)).all()
        assert len(np.unique(of_source[len(epochs) * windows :])) == len(of_source) % windows


def test_a_sequence_is_read_from_its_own_language_s_text(streams):
    mixture = make_real(streams)
    tokens, chosen = mixture.batch(np.arange(300))
    windows = mixture.window(np.arange(300))
    assert np.array_equal(tokens[:, 0] - 65536 * chosen == 0, (chosen == 0) & (windows == 0))
    expected = (windows * 16 + 10_000 * chosen)[:, None] + np.arange(17) + 65536 * chosen[:, None]
    assert np.array_equal(tokens, np.where(expected == 0, 0, expected))


@pytest.fixture(scope="module")
def long(streams):
    """A mixture of several blocks; its sequences' windows, and ranks in their language, counted one after the other."""
    mixture, seen, ranks = make_real(streams, [(0.5, 0.4, 0.1), (0.1, 0.1, 0.8)], total=2 * BLOCK + 5000, length=1), Counter(), []
    for language in mixture.language(np.arange(mixture.total)).tolist():
        ranks.append(seen[language])
        seen[language] += 1
    return mixture, mixture.window(np.arange(mixture.total)), np.array(ranks)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2 * BLOCK + 4999), min_size=1, max_size=20))
def test_random_access_is_sequential_access(streams, long, numbers):
    mixture, windows, ranks = long
    numbers = np.array(numbers)
    assert np.array_equal(mixture.counts.ranks(numbers), ranks[numbers])
    fresh = make_real(streams, mixture.stages, total=mixture.total, length=1)
    assert np.array_equal(fresh.window(numbers), windows[numbers])


def test_batches_across_the_border_of_a_block_are_the_same_however_they_come(streams, long):
    mixture, *_ = long
    numbers = np.arange(BLOCK - 40, BLOCK + 40)
    whole = mixture.batch(numbers)
    single = [
        make_real(streams, mixture.stages, total=mixture.total, length=1).batch(numbers[i : i + 1]) for i in (0, 39, 40, 79)
    ]
    for one, i in zip(single, (0, 39, 40, 79), strict=True):
        assert np.array_equal(one[0][0], whole[0][i])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 4000), st.integers(0, 1000), st.sampled_from([1, 2, 4, 8]))
def test_a_batch_of_two_texts_is_the_same_for_all_numbers_of_processes(streams, step, seed, world):
    mixture = make_real(streams, [(0.7, 0.3)], seed, total=64 * 4001)
    numbers = np.arange(step * 64, step * 64 + 64)
    whole = mixture.batch(numbers)
    shares = [make_real(streams, [(0.7, 0.3)], seed, total=64 * 4001).batch(share) for share in np.split(numbers, world)]
    for part, together in enumerate(whole):
        assert np.array_equal(np.concatenate([share[part] for share in shares]), together)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), KEYS)
def test_clones_follow_the_general_rule(stream, clones, seed):
    mixture, numbers = make(stream, [0.6, 0.2], clones, seed, total=BLOCK + 100), np.arange(BLOCK - 100, BLOCK + 100)
    assert np.array_equal(mixture.counts.ranks(numbers), numbers)
    first = permute(np.arange(100), mixture.windows["en"], seed, 1, 0)
    assert np.array_equal(mixture.window(np.arange(100)), first)


def test_a_text_is_read_in_the_same_order_in_whatever_company(streams):
    alone = Mixture(streams, cloned_languages("fr", 65536, 1), np.ones((1, 1)), 0, 50, 16)
    mixed = make_real(streams, [(0.8, 0.2)])
    numbers = np.flatnonzero(mixed.language(np.arange(4096)) == 1)[:50]
    assert np.array_equal(mixed.window(numbers), alone.window(np.arange(50)))
    # Texts of the same length are shuffled apart: translations must not come side by side.
    twins = Mixture({"a": streams["en"], "b": streams["en"]}, disjoint_languages({"a": 9, "b": 9}), np.eye(2), 0, 300, 16)
    windows = twins.window(np.arange(300))
    assert (windows[:150] == windows[150:]).sum() < 10


def test_passes_are_counted_for_each_text(streams):
    mixture = make_real(streams, total=3000)
    chosen = mixture.language(np.arange(3000))
    assert mixture.passes() == {
        source: pytest.approx((chosen == i).sum() / windows) for i, (source, windows) in enumerate(mixture.windows.items())
    }


def test_tokens_seen_counts_whole_blocks_and_parts(streams, long):
    mixture, *_ = long
    chosen = mixture.language(np.arange(mixture.total))
    for sequences in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, mixture.total):
        assert mixture.tokens_seen(sequences) == np.bincount(chosen[:sequences], minlength=3).tolist()


def private_bytes() -> int:
    """Memory that belongs to this process alone, as the kernel counts it."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return 1024 * int(line.split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_a_large_shard_takes_no_private_memory(tmp_path, stream):
    size = 32 << 20  # tokens: 64 MB
    write_shard(tmp_path / "large", np.ones(size, np.uint16))
    make(stream).batch(np.arange(64))  # what the first batch of all needs does not count
    before = private_bytes()
    large = Stream([tmp_path / "large"])
    mixture = Mixture({"en": large}, cloned_languages("en", 512, 2), np.array([[0.5, 0.5]]), 0, (size - 1) // 1024, 1024)
    read = 0
    for first in range(0, mixture.total, 64):
        read += len(mixture.batch(np.arange(first, min(first + 64, mixture.total)))[0])
        large.read(first * 1024, 65_536)
    assert read == mixture.windows["en"]
    assert private_bytes() - before < 8 << 20
