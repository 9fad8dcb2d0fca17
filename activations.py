"""What a model makes of a sequence, hidden states after each layer and gradients, and how alike this is for two texts.

Sequences go through one by one, as in the paper: a gradient is that of one sequence, and translations differ in length.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from common import Progress
from model import GPT
from similarity import cosine, matched_by_layer, normalise, positions_by_layer

Sides = Sequence[np.ndarray]  # one text in each language, (n,) joint ids
Pair = tuple[int, int]  # of places among the sides


@torch.no_grad()
def hidden_states(model: GPT, ids: np.ndarray) -> list[Tensor]:
    """Normalised hidden states after each block, before the final LayerNorm: (S,) joint ids -> (S, width) for each layer."""
    states: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda _, __, state: states.append(normalise(state[0]))) for block in model.blocks]
    try:
        model.hidden(_tensor(model, ids))
    finally:
        for hook in hooks:
            hook.remove()
    return states


def gradients(model: GPT, ids: np.ndarray) -> list[Tensor]:
    """Gradient of a sequence's mean loss by each parameter, in the order of `model.named_parameters()`; (n,) joint ids, n > 1."""
    tokens = _tensor(model, ids)
    with torch.enable_grad():
        mean, _ = model(tokens[:, :-1], tokens[:, 1:])
        return list(torch.autograd.grad(mean, list(model.parameters())))


def _tensor(model: GPT, ids: np.ndarray) -> Tensor:
    return torch.from_numpy(ids.astype(np.int64))[None].to(model.output.weight.device)


def compare_hidden_states(model: GPT, texts: Sequence[Sides], *, by_position: bool, by_matching: bool, label: str) -> dict:
    """Similarity after each layer of every pair of languages: {("positions" or "matching", pair): (texts, layers)}."""
    pairs = list(combinations(range(len(texts[0])), 2))
    methods = {"positions": positions_by_layer} if by_position else {}
    methods |= {"matching": matched_by_layer} if by_matching else {}
    values = {(name, pair): np.empty((len(texts), len(model.blocks))) for name in methods for pair in pairs}
    progress = Progress(f"{label}: hidden states", len(texts), "sequences")
    for number, sides in enumerate(texts):
        # The last token is read by nobody in training either: it is only predicted.
        states = [hidden_states(model, ids[: model.length]) for ids in sides]
        for (name, (one, other)), row in values.items():
            row[number] = methods[name](states[one], states[other])
        progress.update(number + 1)
    progress.close(len(texts))
    return values


def compare_gradients(model: GPT, texts: Sequence[Sides], label: str) -> dict[Pair, np.ndarray]:
    """Cosine of the gradients of every pair of languages, parameter by parameter: {pair: (texts, parameters)}.

    Gradients of two languages at most are held at a time, each of the size of the model.
    """
    places, parameters = range(len(texts[0])), len(list(model.parameters()))
    values = {pair: np.empty((len(texts), parameters)) for pair in combinations(places, 2)}
    progress = Progress(f"{label}: gradients", len(texts), "sequences")
    for number, sides in enumerate(texts):
        for one in places[:-1]:
            held = gradients(model, sides[one])
            for other in places[one + 1 :]:
                values[one, other][number] = [cosine(*both) for both in zip(held, gradients(model, sides[other]), strict=True)]
        progress.update(number + 1)
    progress.close(len(texts))
    return values


def block_tensors(names: Sequence[str], values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The parameters inside blocks as a matrix: names of a block's (kinds), and (kinds, layers) of (parameters,) values."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        if name.startswith("blocks."):
            places.setdefault(name.split(".", 2)[2], []).append(place)
    return list(places), np.array([values[rows] for rows in places.values()])
