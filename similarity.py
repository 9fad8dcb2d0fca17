"""Cosine similarity, and who is whose counterpart: the pure mathematics of `align.py` (section 2 of the paper).

Everything here is tensors in, numbers out. A vector of zeros is similar to nothing: its cosine is 0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor


class Estimate(NamedTuple):
    """A mean over `count` values and its standard error, None where there is only one value."""

    mean: float
    standard_error: float | None
    count: int


def estimate(values: np.ndarray) -> Estimate:
    """The mean of (n,) independent values, n > 0."""
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return Estimate(float(values.mean()), error, len(values))


# --- vectors --------------------------------------------------------------------------------------------------------


def normalise(vectors: Tensor) -> Tensor:
    """Vectors of length 1 in the same directions: (..., width) -> (..., width) float32."""
    return F.normalize(vectors.float(), dim=-1, eps=1e-30)


def cosine(one: Tensor, other: Tensor) -> float:
    """Cosine of two tensors of equal shape, each read as one long vector.

    Each is scaled by its largest entry first: gradients can be so small that their squares are 0 in float32.
    """
    one, other = (part.flatten().float() / part.abs().max().float().clamp(min=1e-30) for part in (one, other))
    return float(one @ other / (one.norm() * other.norm()).clamp(min=1e-30))


def row_cosines(one: Tensor, other: Tensor) -> Tensor:
    """Cosine of each row with the row at the same place: (n, width) twice -> (n,)."""
    return (normalise(one) * normalise(other)).sum(-1)


def all_pairs_mean(one: Tensor, other: Tensor) -> float:
    """Mean cosine of all pairs of a row of (n, width) and a row of (m, width), without the n x m cosines.

    A mean of dot products is the dot product of means: (1/nm) sum_ij a_i . b_j = (1/n sum_i a_i) . (1/m sum_j b_j).
    """
    return float(normalise(one).double().mean(0) @ normalise(other).double().mean(0))


# --- matching -------------------------------------------------------------------------------------------------------


def mean_similarity(one: Sequence[Tensor], other: Sequence[Tensor]) -> np.ndarray:
    """Cosine of every position of one text with every position of the other, mean over layers.

    Args:
        one: normalised hidden states of one text, (S, width) for each layer.
        other: those of the other text, (T, width) for each layer.

    Returns:
        (S, T). One layer's product is added to the other's: nothing larger than S x T is made.
    """
    total = one[0] @ other[0].T
    for left, right in zip(one[1:], other[1:], strict=True):
        total.addmm_(left, right.T)
    return (total / len(one)).cpu().numpy()


def match(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maximum-weight full matching of the rows of (S, T) with its columns: rows and columns of the min(S, T) pairs.

    Full means that every position of the shorter text has exactly one partner. Where lengths differ, positions of the longer
    text are left over. SciPy's assignment solver works on the matrix itself; NetworkX's `max_weight_matching` needs a graph
    of S x T Python objects first and a Python loop after, and is the check in the tests.
    """
    return linear_sum_assignment(similarity, maximize=True)


def positions_by_layer(one: Sequence[Tensor], other: Sequence[Tensor]) -> np.ndarray:
    """Mean cosine of equal positions after each layer: normalised (S, width) a layer, twice -> (layers,)."""
    return np.array([float((left * right).sum(-1).mean()) for left, right in zip(one, other, strict=True)])


def matched_by_layer(one: Sequence[Tensor], other: Sequence[Tensor]) -> np.ndarray:
    """Mean cosine of matched positions after each layer: normalised (S, width) and (T, width) a layer -> (layers,).

    The matching is one for all layers, made on their mean.
    """
    rows, columns = (torch.from_numpy(side).to(one[0].device) for side in match(mean_similarity(one, other)))
    return positions_by_layer([layer[rows] for layer in one], [layer[columns] for layer in other])


# --- frequency ------------------------------------------------------------------------------------------------------

BINS_PER_DECADE = 2


class Bin(NamedTuple):
    """Values of the tokens whose relative frequency lies in [low, high)."""

    low: float
    high: float
    values: Estimate


def frequency_bins(frequency: np.ndarray, values: np.ndarray) -> list[Bin]:
    """Values by frequency, in bins of equal width on a log scale whose borders are powers of the square root of 10.

    Args:
        frequency: (n,) relative frequencies of tokens; those that never occur, 0, are in no bin.
        values: (n,) what is averaged in each bin.

    Returns:
        The bins that hold a token, rare to frequent.
    """
    seen = frequency > 0
    # Powers of ten must fall into the bin they open, whatever their logarithm rounds to.
    places = np.floor(np.log10(frequency[seen]) * BINS_PER_DECADE + 1e-9).astype(int)
    return [
        Bin(10 ** (place / BINS_PER_DECADE), 10 ** ((place + 1) / BINS_PER_DECADE), estimate(values[seen][places == place]))
        for place in np.unique(places).tolist()
    ]
