"""Does a language cost more than its operations say? A training step with 1, 2, 5 and 10 clones, measured and counted."""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from common import write_figure
from flops import flops_per_token
from kernels.bench_step import make_step, ours, shape_for
from kernels.timing import milliseconds
from process import keep_freed_memory

CLONES = (1, 2, 5, 10)


def measure(device: torch.device, dtype: torch.dtype, rounds: int, seconds: float) -> dict:
    """Milliseconds of a compiled step and its operations, with ever more clones of one vocabulary."""
    keep_freed_memory()  # as train.py does
    shape = shape_for(device)
    shapes = {str(clones): shape._replace(vocabulary=clones * shape.vocabulary) for clones in CLONES}
    print("a step with 1, 2, 5 and 10 clones: compiling, then measuring, about two minutes ...", flush=True)
    steps = {clones: make_step(ours, dtype, True, larger, device) for clones, larger in shapes.items()}
    counted = {clones: flops_per_token(larger.size, larger.vocabulary, larger.length) for clones, larger in shapes.items()}
    return {"vocabulary": shape.vocabulary, "milliseconds": milliseconds(steps, device, rounds, 20 * seconds), "flops": counted}


def report(facts: dict) -> str:
    """A table of multiples of one language."""
    times, flops = facts["milliseconds"], facts["flops"]
    lines = [f"{'clones':>8} {'ids':>9} {'ms':>9} {'measured':>9} {'counted':>9}"]
    for clones, each in times.items():
        cost, count = each / times["1"], flops[clones] / flops["1"]
        lines.append(f"{clones:>8} {int(clones) * facts['vocabulary']:>9} {each:>9.1f} {cost:>8.2f}x {count:>8.2f}x")
    return "\n".join(lines)


def chart(facts: dict, path: Path) -> None:
    """Measured and counted multiples against the number of clones."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    for name in ("milliseconds", "flops"):
        values = facts[name]
        axes.plot([int(clones) for clones in values], [value / values["1"] for value in values.values()], "o-", label=name)
    axes.set(xlabel="clones", ylabel="multiple of one language", title=facts["device"])
    axes.legend()
    write_figure(path, figure)
