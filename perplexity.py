"""Perplexity by the paper's sliding window (its section 3.3), and what else one learns from the same predictions.

Everything here is numbers in, numbers out: which text is scored, in which language, is the concern of `evaluate.py`.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common import Progress
from model import GPT
from process import Process

BATCH_TOKENS = {"cpu": 1024, "cuda": 65536}  # most tokens that go through the model at a time; a CPU wants them in its cache
VOCABULARY_SLICE = {"cpu": 2048, "cuda": 16384}  # ids whose logits exist at a time
MEASURED = ("ppl", "ppl_standard_error", "bits_per_byte", "accuracy", "scored_tokens", "scored_documents")


class Scores(NamedTuple):
    """What a model made of the counted predictions, in the order of the text."""

    nats: np.ndarray  # (counted,) float64, negative log-likelihoods
    right: np.ndarray  # (counted,) bool, whether no other id was likelier


def sliding_windows(predictions: int, length: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Where windows begin, and how many predictions at the end of each count.

    The first window is scored like all others, so the first `length - stride` predictions of a text never count. What
    a whole number of strides leaves over at the end is scored by one more window that ends with the text. A text that
    is shorter than a window is one window. Returns (starts, counted), both (windows,).
    """
    length = min(length, predictions)
    starts = np.arange(0, predictions - length + 1, stride)
    counted = np.full(len(starts), min(stride, length))
    left_over = predictions - length - int(starts[-1])
    if left_over:
        starts, counted = np.append(starts, predictions - length), np.append(counted, left_over)
    return starts, counted


def score(
    model: GPT, tokens: np.ndarray, stride: int, process: Process | None = None, progress: Progress | None = None
) -> Scores:
    """Score every counted prediction of a text; `sliding_windows` says which those are.

    Args:
        model: decides device and window length.
        tokens: (n,) joint ids; n - 1 predictions can be made.
        stride: by how many tokens the window moves.
        process: one of several that share the windows out; each is given the scores of all.
    """
    device = model.output.weight.device
    process = process or Process(0, 1, device)
    starts, counted = sliding_windows(len(tokens) - 1, model.length, stride)
    length = min(model.length, len(tokens) - 1)
    ends = np.cumsum(counted)
    found = torch.zeros(2, int(ends[-1]), dtype=torch.float64)
    # Batches do not depend on the number of processes, which only take turns: rounding is the same for one and for many.
    step = max(1, BATCH_TOKENS[device.type] // length)
    firsts = range(process.rank * step, len(starts), process.world * step)

    def windows(first: int) -> np.ndarray:
        return tokens[starts[first : first + step, None] + np.arange(length + 1)].astype(np.int64)

    scored = in_threads(lambda first: score_windows(model, windows(first), stride), firsts, device)
    for first, scores in zip(firsts, scored, strict=True):
        last = min(first + step, len(starts))
        kept = torch.from_numpy(np.arange(scores.shape[-1]) >= scores.shape[-1] - counted[first:last, None])
        found[:, ends[first] - counted[first] : ends[last - 1]] = scores[:, kept].double()
        if progress:
            progress.update(last)
    # Each number was computed by one process and is 0 at all others: their sum is exact.
    nats, right = process.total(found.to(device)).cpu().numpy()
    return Scores(nats, right > 0)


@torch.inference_mode()
def score_windows(model: GPT, windows: np.ndarray, stride: int) -> Tensor:
    """(windows, length + 1) joint ids -> (2, windows, stride): nats, and 1 where the answer is right, of the last predictions."""
    tokens = torch.from_numpy(windows).to(model.output.weight.device)
    targets = tokens[:, 1:][:, -stride:]
    # The output layer is the largest matrix of a small model: it is applied to the counted positions only.
    hidden = model.hidden(tokens[:, :-1], last=stride)
    return score_targets(hidden.flatten(0, 1), model.output.weight, targets.flatten()).view(2, *targets.shape).cpu()


def score_targets(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """(n, width) hidden states, (vocabulary, width) and (n,) -> (2, n): nats of the targets, and 1 where no id is likelier.

    The softmax over the vocabulary is taken a slice at a time: no more logits exist than fit into a processor's cache.
    """
    answers = torch.full(targets.shape, -math.inf, device=hidden.device)
    largest, normaliser = answers.clone(), answers.clone()
    size = VOCABULARY_SLICE[hidden.device.type]
    for first in range(0, len(weight), size):
        logits = F.linear(hidden, weight[first : first + size]).float()
        place = targets - first
        inside = (place >= 0) & (place < logits.shape[1])
        found = logits.gather(1, place.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
        answers = torch.where(inside, found, answers)
        top = logits.amax(1)
        largest = torch.maximum(largest, top)
        # The largest probability is 1 / sum(exp(logits - top)): this is the fastest way there on a CPU.
        normaliser = torch.logaddexp(normaliser, top - logits.softmax(1).amax(1).log())
    return torch.stack([normaliser - answers, (answers >= largest).float()])


def in_threads(function: Callable[[int], Tensor], numbers: Iterable[int], device: torch.device) -> Iterator[Tensor]:
    """`function` of each number, in their order; on a CPU each of its threads works on a number of its own.

    Threads that divided every matrix product would wait for each other after each of them, and for a long time where
    other programs keep a core busy.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield from map(function, numbers)
        return
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads)
    try:
        yield from pool.map(function, numbers)
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the rest
        torch.set_num_threads(threads)


# --- what they say of a text ----------------------------------------------------------------------------------------


def standard_error(nats: np.ndarray, documents: np.ndarray) -> float | None:
    """Standard error of exp(mean of `nats`) as an estimate for all documents of the kind, None from a single one.

    Tokens of a document are not independent, documents are. With s and n the nats and tokens of each of D documents, N
    the sum of n and m the mean over all tokens, the mean's variance is D / (D - 1) * sum((s - m * n)^2) / N^2, and the
    delta method gives exp(m) times its root.
    """
    _, places = np.unique(documents, return_inverse=True)
    lengths, totals, mean = np.bincount(places), np.bincount(places, nats), nats.mean()
    if len(lengths) < 2:
        return None
    variance = len(lengths) / (len(lengths) - 1) * ((totals - mean * lengths) ** 2).sum() / len(nats) ** 2
    return math.exp(min(mean, 700.0)) * math.sqrt(variance)


def measure(scores: Scores, sizes: np.ndarray, documents: np.ndarray) -> dict:
    """Perplexity and its standard error, bits per byte, accuracy, and what they rest on.

    `sizes` and `documents`, (n,), say of each of the text's tokens how many bytes it stands for and which document it is
    in; the scored ones are the last of them. Bits per byte is None where the scored tokens stand for no byte.
    """
    nats, counted = scores.nats, len(scores.nats)
    scored_bytes, documents = int(sizes[-counted:].sum()), documents[-counted:]
    return {
        "ppl": math.exp(min(nats.mean(), 700.0)),
        "ppl_standard_error": standard_error(nats, documents),
        "bits_per_byte": float(nats.sum()) / math.log(2) / scored_bytes if scored_bytes else None,
        "accuracy": float(scores.right.mean()),
        "scored_tokens": counted,
        "scored_documents": int(documents[-1] - documents[0]) + 1,
    }


def describe(measured: dict) -> str:
    """The measures in a line."""
    error, bits = measured["ppl_standard_error"], measured["bits_per_byte"]
    return (
        f"PPL {measured['ppl']:.2f}{'' if error is None else f' ± {error:.2g}'}, "
        f"{'no' if bits is None else f'{bits:.3f}'} bits per byte, {measured['accuracy']:.1%} right, "
        f"{measured['scored_tokens']} tokens of {measured['scored_documents']} documents"
    )
