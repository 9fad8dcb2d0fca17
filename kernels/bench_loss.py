"""output layer and cross-entropy, forward and backward: chunks of tokens, all logits at once, Liger-Kernel; with peak memory"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from common import write_figure
from kernels.cross_entropy import linear_cross_entropy, plain_linear_cross_entropy
from kernels.timing import milliseconds


class Shape(NamedTuple):
    """How many tokens, ids and dimensions."""

    tokens: int
    vocabulary: int
    width: int


# The demo's step, two languages and ten clones; on a GPU at the paper's width.
SHAPES = {
    "cpu": [Shape(4096, 4096, 128), Shape(8192, 32_768, 128), Shape(8192, 163_840, 128)],
    "cuda": [Shape(65_536, 32_768, 768), Shape(65_536, 163_840, 768)],
}
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # where Linux tells, and forgets, a process's peak


def liger() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Liger-Kernel's form of the same, which runs on GPUs only."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss()
    return lambda hidden, weight, targets: loss(weight, hidden, targets)


def ways(device: torch.device) -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    """Functions of hidden states, weight and targets that return a mean loss."""
    plain = lambda *inputs: plain_linear_cross_entropy(*inputs)[0]  # noqa: E731
    found = {"ours": lambda *inputs: linear_cross_entropy(*inputs)[0], "plain": plain, "plain compiled": torch.compile(plain)}
    if device.type == "cuda" and importlib.util.find_spec("liger_kernel"):
        found["liger"] = liger()
    return found


def inputs(shape: Shape, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states and weight, float32 as the optimiser holds it, whose logits lie between about -3 and 3; and targets."""
    hidden = torch.randn(shape.tokens, shape.width, device=device)
    weight = torch.randn(shape.vocabulary, shape.width, device=device) / shape.width**0.5
    return hidden.requires_grad_(), weight.requires_grad_(), torch.randint(shape.vocabulary, (shape.tokens,), device=device)


def results(function: Callable, leaves: tuple[Tensor, Tensor, Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Loss and gradients of hidden states and weight, with matrix products in `dtype`."""
    with torch.autocast(leaves[0].device.type, dtype, enabled=dtype in (torch.bfloat16, torch.float16)):
        loss = function(*leaves)
    return [loss.detach(), *torch.autograd.grad(loss, leaves[:2])]


def errors(function: Callable, shape: Shape, dtype: torch.dtype, device: torch.device) -> list[float]:
    """Relative errors of loss and gradients against the plain twin in float64 on the same inputs, a few of them."""
    leaves = inputs(shape._replace(tokens=512), device)
    wide = tuple(x.detach().double().requires_grad_() if x.is_floating_point() else x for x in leaves)
    exact = results(lambda *each: plain_linear_cross_entropy(*each)[0], wide, torch.float64)
    return [
        ((ours.double() - other).norm() / other.norm()).item()
        for ours, other in zip(results(function, leaves, dtype), exact, strict=True)
    ]


def extra_memory(call: Callable[[], object], device: torch.device) -> float | None:
    """Bytes that a call needs at its peak beyond what is held before it; None where the system does not tell."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    if not CLEAR.exists():
        return None
    CLEAR.write_text("5")  # the peak is what is held now
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def resident(name: str) -> int:
    """Bytes that this process holds (VmRSS) or held at most (VmHWM)."""
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith(name))


def measure(device: torch.device, dtype: torch.dtype, rounds: int, seconds: float) -> dict:
    """Errors, peak memory, then times of every way that runs here and fits, for every shape."""
    rows = []
    for shape in SHAPES[device.type]:
        print(f"loss of {shape.tokens} tokens x {shape.vocabulary} ids x {shape.width} ...", flush=True)
        leaves, calls, found = inputs(shape, device), {}, {}
        for name, function in ways(device).items():
            calls[name] = lambda function=function, leaves=leaves: results(function, leaves, dtype)
            try:
                found[name] = errors(function, shape, dtype, device)
                calls[name]()
                found[name].append(extra_memory(calls[name], device))
            except torch.OutOfMemoryError:
                print(f"  {name} does not fit into this GPU's memory")
                calls.pop(name)
        for name, each in milliseconds(calls, device, rounds, seconds).items():
            loss, hidden, weight, extra = found[name]
            row = {**shape._asdict(), "variant": name, "ms": each, "bytes": extra}
            rows.append(row | {"error_loss": loss, "error_hidden": hidden, "error_weight": weight})
    return {"rows": rows}


def report(facts: dict) -> str:
    """The rows as a table; ratios are to the plain form, compiled if that fits."""
    lines = []
    for shape in dict.fromkeys(tuple(row[name] for name in Shape._fields) for row in facts["rows"]):
        rows = {row["variant"]: row for row in facts["rows"] if tuple(row[name] for name in Shape._fields) == shape}
        base = rows.get("plain compiled") or rows.get("plain")
        lines.append("loss: {} tokens x {} ids x {}".format(*shape))
        for name, row in rows.items():
            tflops = 6 * shape[0] * shape[1] * shape[2] / row["ms"] / 1e9
            memory = f"{row['bytes'] / 1e6:8.0f} MB" if row["bytes"] is not None else ""
            ratio = f"{base['ms'] / row['ms']:5.2f} x as fast as {base['variant']}" if base else ""
            wrong = " ".join(f"{row[f'error_{part}']:.0e}" for part in ("loss", "hidden", "weight"))
            lines.append(f"  {name:15} {row['ms']:9.1f} ms {tflops:7.3g} TFLOP/s {memory} {ratio}   errors {wrong}")
    return "\n".join(lines)


def chart(facts: dict, path: Path) -> None:
    """Time and memory of each way, a group of bars for each shape."""
    names = list(dict.fromkeys(row["variant"] for row in facts["rows"]))
    shapes = list(dict.fromkeys((row["tokens"], row["vocabulary"]) for row in facts["rows"]))
    figure = Figure(figsize=(9, 4), layout="constrained")
    for panel, (key, scale, unit) in zip(figure.subplots(1, 2), (("ms", 1, "ms"), ("bytes", 1e6, "extra MB")), strict=True):
        for place, name in enumerate(names):
            rows = [row for row in facts["rows"] if row["variant"] == name]
            left = [shapes.index((row["tokens"], row["vocabulary"])) + place / (len(names) + 1) for row in rows]
            panel.bar(left, [(row[key] or 0) / scale for row in rows], 0.8 / (len(names) + 1), align="edge", label=name)
        panel.set(yscale="log", ylabel=unit, title=facts["device"])
        panel.set_xticks([place + 0.3 for place in range(len(shapes))], [f"{n:,} x {v:,}" for n, v in shapes])
    figure.axes[0].legend()
    write_figure(path, figure)
