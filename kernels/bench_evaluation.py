"""Scoring a small test text with a sliding window: this project's way, and a window at a time with the logits of all of it."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from common import write_figure
from kernels.timing import milliseconds
from model import GPT, SIZES
from perplexity import Scores, score, sliding_windows

# Name -> ids of the joint vocabulary, window, stride, tokens of the text.
TEXTS = {
    "demo: 4,096 ids, windows of 128": (4096, 128, 32, 4000),
    "two clones of the paper: 32,768 ids, windows of 512": (32_768, 512, 128, 4000),
    "ten clones of the paper: 163,840 ids, windows of 512": (163_840, 512, 128, 2000),
}


@torch.inference_mode()
def one_at_a_time(model: GPT, tokens: np.ndarray, stride: int) -> Scores:
    """What one would write first: every window on its own, with the logits of all of its positions."""
    starts, counted = sliding_windows(len(tokens) - 1, model.length, stride)
    nats, right = [], []
    for start, count in zip(starts.tolist(), counted.tolist(), strict=True):
        window = torch.from_numpy(tokens[start : start + model.length + 1]).to(model.output.weight.device)
        logits = model.output(model.hidden(window[None, :-1]))[0].float()
        nats.append(F.cross_entropy(logits, window[1:], reduction="none")[-count:])
        right.append((logits.argmax(-1) == window[1:])[-count:])
    return Scores(torch.cat(nats).double().cpu().numpy(), torch.cat(right).cpu().numpy())


def measure(device: torch.device, dtype: torch.dtype, rounds: int, seconds: float) -> dict:
    """Milliseconds of both ways on the texts of TEXTS with a nano model, which is always evaluated in float32."""
    result = {}
    for name, (vocabulary, length, stride, tokens) in TEXTS.items():
        model = GPT(SIZES["nano"], vocabulary, length).to(device)
        text = np.random.default_rng(0).integers(0, vocabulary, tokens)
        ways = {"one at a time": one_at_a_time, "ours": score}
        found = [way(model, text, stride).nats for way in ways.values()]
        np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-5)
        calls = {way: partial(function, model, text, stride) for way, function in ways.items()}
        result[name] = milliseconds(calls, device, rounds, seconds)
    return {"milliseconds": result}


def report(facts: dict) -> str:
    """A table of both ways."""
    lines = [f"{'evaluation':54} {'one at a time':>14} {'ours':>9}"]
    for name, times in facts["milliseconds"].items():
        one, our = times["one at a time"], times["ours"]
        lines.append(f"{name:54} {one:>11.0f} ms {our:>6.0f} ms {one / our:5.1f}x")
    return "\n".join(lines)


def chart(facts: dict, path: Path) -> None:
    """How many times faster, as bars."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(facts["milliseconds"]), [t["one at a time"] / t["ours"] for t in facts["milliseconds"].values()])
    axes.set_xlabel("times as fast as one window at a time")
    axes.set_title(facts["device"])
    write_figure(path, figure)
