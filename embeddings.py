"""How near the embeddings of a token and its counterpart are, against all pairs of tokens (the paper's figures 6 and 7).

A token's counterpart is its clone; between real languages, the piece of the same surface form, where both have it. A token
and a counterpart that share a row of the matrix, as anchors do, are equal by construction, and are only counted.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from common import Progress
from languages import Language, surface_forms
from shards import Dataset
from similarity import all_pairs_mean, estimate, frequency_bins, row_cosines
from tokenizer import PAD

READ = 2**24  # tokens of a stream that are counted at a time


class Counterparts(NamedTuple):
    """Tokens of two languages that stand for the same: (n,) own ids in each, and how many more share a joint id."""

    one: np.ndarray
    other: np.ndarray
    shared: int


def find_counterparts(dataset: Dataset, one: Language, other: Language) -> Counterparts:
    """Counterparts in two languages of a run; padding, which no text contains, is none."""
    if one.source == other.source:
        left = right = np.arange(len(one.table))
    else:
        forms = {form: place for place, form in enumerate(surface_forms(dataset, other.source))}
        found = [(i, forms[form]) for i, form in enumerate(surface_forms(dataset, one.source)) if form in forms]
        left, right = np.array(found, np.int64).reshape(-1, 2).T
    left, right = left[left != PAD], right[left != PAD]
    apart = one.table[left] != other.table[right]
    return Counterparts(left[apart], right[apart], int((~apart).sum()))


def relative_frequency(dataset: Dataset, source: str) -> np.ndarray:
    """Share of each piece in a source's training stream: (V,) float64, indexed by own ids."""
    stream, counts = dataset.stream(source, "train"), np.zeros(dataset.languages[source]["vocab_size"], np.int64)
    progress = Progress(f"{source}: counting tokens", len(stream), "tokens")
    for begin in range(0, len(stream), READ):
        counts += np.bincount(stream.read(begin, min(READ, len(stream) - begin)), minlength=len(counts))
        progress.update(begin)
    return counts / max(1, counts.sum())


def compare_rows(
    matrix: Tensor, one: Language, other: Language, counterparts: Counterparts, *, frequency: np.ndarray, known: np.ndarray
) -> dict:
    """Cosine of counterparts and of all pairs of tokens of two languages in one embedding matrix.

    Args:
        matrix: (J, width), a row for each joint id.
        frequency: (V,) relative frequency of the first language's pieces.
        known: (J,) whether a row was learned: word2vec leaves out what it has not seen.

    Returns:
        `counterparts` (an Estimate over tokens, or None where there is none), `all_pairs`, and `frequency`, a list of bins.
    """
    left, right = one.table[counterparts.one], other.table[counterparts.other]
    both = known[left] & known[right]
    rows = [torch.from_numpy(ids[both].astype(np.int64)).to(matrix.device) for ids in (left, right)]
    values = row_cosines(matrix[rows[0]], matrix[rows[1]]).cpu().numpy()
    everything = [torch.from_numpy(table[1:][known[table[1:]]].astype(np.int64)) for table in (one.table, other.table)]
    return {
        "counterparts": estimate(values)._asdict() if len(values) else None,
        "all_pairs": all_pairs_mean(*(matrix[ids.to(matrix.device)] for ids in everything))
        if all(map(len, everything))
        else None,
        "frequency": [
            {"low": low, "high": high, **found._asdict()}
            for low, high, found in frequency_bins(frequency[counterparts.one[both]], values)
        ],
    }


@torch.no_grad()
def compare_embeddings(
    dataset: Dataset, languages: list[Language], matrices: dict[str, Tensor], known: np.ndarray | None = None
) -> dict:
    """Every pair of languages in each of the named (J, width) matrices: {"EN1-EN2": {"input": ..., "output": ...}}."""
    known = np.ones(len(next(iter(matrices.values()))), bool) if known is None else known
    frequencies = {source: relative_frequency(dataset, source) for source in {language.source for language in languages[:-1]}}
    result = {}
    for one, other in combinations(languages, 2):
        found = find_counterparts(dataset, one, other)
        parts = {
            name: compare_rows(matrix, one, other, found, frequency=frequencies[one.source], known=known)
            for name, matrix in matrices.items()
        }
        result[f"{one.name}-{other.name}"] = {"shared": found.shared, **parts}
    return result
