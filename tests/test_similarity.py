"""Similarity: closed forms, brute force, and NetworkX's matching as the check on SciPy's."""

import math

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import align_bench
from similarity import (
    all_pairs_mean,
    cosine,
    estimate,
    frequency_bins,
    match,
    matched_by_layer,
    mean_similarity,
    normalise,
    positions_by_layer,
    row_cosines,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_cosine_does_not_depend_on_lengths_however_small_or_large():
    one, other = random(3, 5), random(3, 5, seed=1)
    expected = float((one * other).sum() / (one.norm() * other.norm()))
    for left, right in ((1, 1), (1e-30, 1), (1e-25, 1e25)):
        assert cosine(one * left, other * right) == pytest.approx(expected, abs=1e-6)
    assert cosine(one, -2 * one) == pytest.approx(-1)
    assert cosine(one, 0 * one) == 0
    assert row_cosines(one, 0 * one).tolist() == [0, 0, 0]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), st.integers(0, 99))
@settings(deadline=None)
def test_mean_of_all_pairs_equals_brute_force(n, m, width, seed):
    one, other = random(n, width, seed=seed), random(m, width, seed=seed + 1)
    brute = torch.nn.functional.cosine_similarity(one[:, None].double(), other[None].double(), dim=-1).mean()
    assert all_pairs_mean(one, other) == pytest.approx(float(brute), abs=1e-6)


def test_random_vectors_of_width_d_are_similar_by_0_give_or_take_1_over_root_d():
    for width in (16, 64, 256):
        values = row_cosines(random(4000, width), random(4000, width, seed=1)).numpy()
        assert abs(values.mean()) < 4 / math.sqrt(4000 * width)
        assert values.std() == pytest.approx(1 / math.sqrt(width), rel=0.05)
        assert estimate(values).standard_error == pytest.approx(1 / math.sqrt(4000 * width), rel=0.05)


def test_one_value_has_no_standard_error():
    assert estimate(np.array([0.5])) == (0.5, None, 1)


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_matching_is_full_and_weighs_as_much_as_networkx_finds(rows, columns, seed):
    similarity = np.random.default_rng(seed).uniform(-1, 1, (rows, columns))
    left, right = match(similarity)
    assert len(left) == len(set(left)) == len(set(right)) == min(rows, columns)
    graph = nx.Graph()
    for (i, j), weight in np.ndenumerate(similarity):
        graph.add_edge(("one", i), ("other", j), weight=weight)
    edges = nx.max_weight_matching(graph, maxcardinality=True)
    assert similarity[left, right].sum() == pytest.approx(sum(graph.edges[edge]["weight"] for edge in edges))


def layers(count: int, positions: int, width: int, seed: int = 0) -> list[torch.Tensor]:
    return list(normalise(random(count, positions, width, seed=seed)))


def test_mean_similarity_is_the_mean_of_each_layers_cosines():
    one, other = layers(3, 5, 8), layers(3, 4, 8, seed=1)
    expected = np.mean([(left.double() @ right.double().T).numpy() for left, right in zip(one, other, strict=True)], axis=0)
    assert mean_similarity(one, other) == pytest.approx(expected, abs=1e-6)


def test_permuted_positions_are_recovered():
    one, order = layers(3, 40, 16), torch.from_numpy(np.random.default_rng(0).permutation(40))
    other = [layer[order] for layer in one]
    rows, columns = match(mean_similarity(one, other))
    assert order[columns].tolist() == rows.tolist()
    assert matched_by_layer(one, other) == pytest.approx(np.ones(3), abs=1e-6)
    assert np.abs(positions_by_layer(one, other)).max() < 0.5


def test_texts_of_different_length_leave_positions_over():
    one, order = layers(2, 12, 16), torch.tensor([7, 1, 4, 11])
    for left, right in ((one, [layer[order] for layer in one]), ([layer[order] for layer in one], one)):
        assert matched_by_layer(left, right) == pytest.approx(np.ones(2), abs=1e-6)


def test_matching_is_made_on_the_mean_over_layers_and_measured_in_each():
    """Layer 2 contradicts layer 1, more weakly: the matching follows layer 1, and layer 2 pays for it."""
    same, crossed = torch.eye(2), normalise(torch.tensor([[0.6, 0.8], [0.8, 0.6]]))
    assert matched_by_layer([same, same], [same, crossed]) == pytest.approx([1, 0.6], abs=1e-6)


def test_frequency_bins_are_half_decades_and_leave_out_what_never_occurs():
    frequency = np.array([0, 0.001, 0.002, 0.0032, 0.5, 0.01])
    bins = frequency_bins(frequency, np.array([9, 1, 3, 5, 7, 6.0]))
    borders = [(-3, 2.0, 2), (-2.5, 5.0, 1), (-2, 6.0, 1), (-0.5, 7.0, 1)]
    assert [(math.log10(low), values.mean, values.count) for low, _, values in bins] == [pytest.approx(line) for line in borders]
    assert all(high / low == pytest.approx(math.sqrt(10)) for low, high, _ in bins)
    assert bins[0].values.standard_error == pytest.approx(1.0)


def test_the_benchmark_compares_equals(command):
    code, out, _ = command(align_bench.main, "--tokens", 12, "--layers", 2, "--width", 8, "--repeat", 1, "--blossom")
    assert code == 0
    sums = [line.split("sum of similarities ")[1].split(":")[0] for line in out.splitlines()[1:]]
    assert len(sums) == 3
    assert len(set(sums)) == 1
