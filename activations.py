"""What a model makes of a sequence, hidden states after each layer and gradients, and how alike this is for two texts.

Sequences go through one by one, as in the paper: a gradient is that of one sequence, and translations differ in length.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from common import Progress
from model import GPT
from perplexity import in_threads
from similarity import cosine, matched_by_layer, normalise, positions_by_layer

Sides = Sequence[np.ndarray]  # one text in each language, (n,) joint ids
Pair = tuple[int, int]  # of places among the sides
T = TypeVar("T")

LARGE = 5e7  # parameters


@contextmanager
def reader(model: GPT) -> Iterator[Callable[[np.ndarray], list[Tensor]]]:
    """Within it, a function that gives normalised hidden states after each block, before the final LayerNorm.

    (S,) joint ids -> (S, width) for each layer. Several threads may call it at the same time.
    """
    local = threading.local()
    hooks = [block.register_forward_hook(lambda _, __, state: local.states.append(normalise(state[0]))) for block in model.blocks]

    def hidden_states(ids: np.ndarray) -> list[Tensor]:
        local.states = []
        with torch.no_grad():
            model.hidden(_tensor(model, ids))
        return local.states

    try:
        yield hidden_states
    finally:
        for hook in hooks:
            hook.remove()


def gradients(model: GPT, ids: np.ndarray) -> list[Tensor]:
    """Gradient of a sequence's mean loss by each parameter, in the order of `model.named_parameters()`; (n,) joint ids, n > 1."""
    tokens = _tensor(model, ids)
    with torch.enable_grad():
        mean, _ = model(tokens[:, :-1], tokens[:, 1:])
        return list(torch.autograd.grad(mean, list(model.parameters())))


def _tensor(model: GPT, ids: np.ndarray) -> Tensor:
    return torch.from_numpy(ids.astype(np.int64))[None].to(model.output.weight.device)


def for_each(model: GPT, function: Callable[[int], T], count: int, label: str) -> list[T]:
    """`function` of 0 to `count` - 1, in their order, with progress.

    On a CPU, threads take one sequence each if the model is small; a large one keeps all of them busy with one sequence, and
    its gradients would take too much memory several times.
    """
    device, results = model.output.weight.device, []
    small = sum(parameter.numel() for parameter in model.parameters()) < LARGE
    progress = Progress(label, count, "sequences")
    for result in in_threads(function, range(count), device) if small else map(function, range(count)):
        results.append(result)
        progress.update(len(results))
    progress.close(count)
    return results


def compare_hidden_states(model: GPT, texts: Sequence[Sides], *, by_position: bool, by_matching: bool, label: str) -> dict:
    """Similarity after each layer of every pair of languages: {("positions" or "matching", pair): (texts, layers)}."""
    methods = {"positions": positions_by_layer} if by_position else {}
    methods |= {"matching": matched_by_layer} if by_matching else {}
    keys = [(name, pair) for name in methods for pair in combinations(range(len(texts[0])), 2)]

    def compare(number: int) -> list[np.ndarray]:
        # The last token is read by nobody in training either: it is only predicted.
        states = [hidden_states(ids[: model.length]) for ids in texts[number]]
        return [methods[name](states[one], states[other]) for name, (one, other) in keys]

    with reader(model) as hidden_states:
        values = for_each(model, compare, len(texts), f"{label}: hidden states")
    return dict(zip(keys, np.array(values).swapaxes(0, 1), strict=True))


def compare_gradients(model: GPT, texts: Sequence[Sides], label: str) -> dict[Pair, np.ndarray]:
    """Cosine of the gradients of every pair of languages, parameter by parameter: {pair: (texts, parameters)}."""
    pairs = list(combinations(range(len(texts[0])), 2))

    def compare(number: int) -> list[list[float]]:
        sides, rows, first, held = texts[number], [], None, []
        for one, other in pairs:  # gradients of two languages at a time are held, each of the size of the model
            held = held if one == first else gradients(model, sides[one])
            rows.append([cosine(*both) for both in zip(held, gradients(model, sides[other]), strict=True)])
            first = one
        return rows

    values = for_each(model, compare, len(texts), f"{label}: gradients")
    return dict(zip(pairs, np.array(values).swapaxes(0, 1), strict=True))


def block_tensors(names: Sequence[str], values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The parameters inside blocks as a matrix: names of a block's (kinds), and (kinds, layers) of (parameters,) values."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        if name.startswith("blocks."):
            places.setdefault(name.split(".", 2)[2], []).append(place)
    return list(places), np.array([values[rows] for rows in places.values()])
