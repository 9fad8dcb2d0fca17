"""Languages and mixtures: the properties every experiment rests on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from languages import cloned_languages
from mixture import Mixture, stages_from_ratios
from shards import Stream, write_shard
from shuffle import permute, random_bits

KEYS = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    path = tmp_path_factory.mktemp("stream") / "x.bin"
    write_shard(path, np.random.default_rng(0).integers(1, 512, 10_007).astype(np.uint16), 0, 512)
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
