"""causal attention at the shapes of all sizes: our kernels, each backend of PyTorch's own, and the plain form"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from common import write_figure
from kernels import attention
from kernels.timing import matmul_ceiling, milliseconds
from model import SIZES

BACKENDS = {"flash": "FLASH_ATTENTION", "efficient": "EFFICIENT_ATTENTION", "cudnn": "CUDNN_ATTENTION", "math": "MATH"}
TOKENS = 512  # of a sequence, the paper's
BATCH = {"cuda": 128, "cpu": 1}
PASSES = {"forward": 2, "forward and backward": 7}  # matrix products; each takes 2 * tokens^2 / 2 * head_dim operations


class Variant(NamedTuple):
    """A way to compute attention; `attend` takes queries, keys and values in one tensor, or in three if not `packed`."""

    attend: Callable[..., Tensor]
    packed: bool

    def leaves(self, qkv: Tensor) -> list[Tensor]:
        """The arguments of `attend`, without a copy. PyTorch's own is spared packing its three gradients into one."""
        parts = [qkv] if self.packed else attention.heads_first(qkv)
        return [part.detach().requires_grad_() for part in parts]

    def run(self, leaves: list[Tensor], grad_out: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Output and gradients."""
        out = self.attend(*leaves)
        return out, torch.autograd.grad(out, leaves, grad_out)

    def packed_results(self, qkv: Tensor, grad_out: Tensor) -> tuple[Tensor, Tensor]:
        """Output and gradient of all three in one tensor, in float64."""
        out, gradients = self.run(self.leaves(qkv), grad_out)
        gradient = gradients[0] if self.packed else torch.stack(gradients, 2).transpose(1, 3)
        return out.detach().double(), gradient.double()


def sdpa(backend: str) -> Variant:
    """PyTorch's operator, computed by one of its backends and no other."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with sdpa_kernel(getattr(SDPBackend, backend)):
            return scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2)

    return Variant(attend, packed=False)


VARIANTS = {
    "triton": Variant(attention.triton_attention, packed=True),
    **{f"sdpa {name}": sdpa(backend) for name, backend in BACKENDS.items()},
    "plain": Variant(attention.plain_attention, packed=True),
}


def shapes() -> dict[str, tuple[int, int]]:
    """Heads and head dimension of every size; sizes that share them are one shape."""
    names: dict[tuple[int, int], list[str]] = {}
    for name, size in SIZES.items():
        names.setdefault((size.heads, size.head_dim), []).append(name)
    return {", ".join(sizes): shape for shape, sizes in names.items()}


def random_inputs(batch: int, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Queries, keys and values, and the gradient of the output."""
    heads, head_dim = shape
    qkv = torch.randn(batch, TOKENS, 3, heads, head_dim, device=device).to(dtype)
    return qkv, torch.randn(batch, TOKENS, heads, head_dim, device=device).to(dtype)


def errors(variant: Variant, qkv: Tensor, grad_out: Tensor) -> tuple[float, float]:
    """Relative errors of output and gradient against float64 on the same inputs."""
    exact = VARIANTS["plain"].packed_results(qkv.double(), grad_out.double())
    pairs = zip(variant.packed_results(qkv, grad_out), exact, strict=True)
    output, gradient = [((ours - other).norm() / other.norm()).item() for ours, other in pairs]
    return output, gradient


def measure(device: torch.device, dtype: torch.dtype, rounds: int, seconds: float) -> dict:
    """Errors, then times, of every variant that runs here, for every shape."""
    ceiling = matmul_ceiling(dtype, device, rounds, seconds)
    rows = []
    for sizes, shape in shapes().items():
        small, whole = (random_inputs(batch, shape, dtype, device) for batch in (2, BATCH[device.type]))
        found = {}
        for name, variant in VARIANTS.items():
            if name == "triton" and device.type == "cpu":  # interpreted, kernels say nothing about speed
                continue
            with suppress(RuntimeError):  # this backend does not take this type, shape or chip, or runs out of memory
                output_and_gradient = errors(variant, *small)
                call(variant, "forward and backward", *whole)()
                found[name] = output_and_gradient
        for kind, products in PASSES.items():
            operations = products * TOKENS**2 * shape[1] * BATCH[device.type] * shape[0]
            times = milliseconds({name: call(VARIANTS[name], kind, *whole) for name in found}, device, rounds, seconds)
            for name, each in times.items():
                output, gradient = found[name]
                speed = operations / each / 1e9
                row = {"sizes": sizes, "heads": shape[0], "head_dim": shape[1], "pass": kind, "variant": name}
                row |= {"ms": each, "tflops": speed, "of_ceiling": speed / ceiling}
                rows.append(row | {"error_output": output, "error_gradient": gradient})
    return {"tokens": TOKENS, "batch": BATCH[device.type], "matmul_tflops": ceiling, "rows": rows}


def call(variant: Variant, kind: str, qkv: Tensor, grad_out: Tensor) -> Callable[[], object]:
    """What is timed."""
    leaves = variant.leaves(qkv)
    if kind == "forward":
        return torch.no_grad()(lambda: variant.attend(*leaves))
    return lambda: variant.run(leaves, grad_out)


def report(facts: dict) -> str:
    """The rows as a table; ratios are to the fastest of PyTorch's own."""
    where = f"batch {facts['batch']}, {facts['tokens']} tokens"
    lines = [f"attention: {where}; a large matrix product runs at {facts['matmul_tflops']:.3g} TFLOP/s"]
    for kind in PASSES:
        for sizes in shapes():
            rows = [row for row in facts["rows"] if (row["sizes"], row["pass"]) == (sizes, kind)]
            best = min(row["ms"] for row in rows if row["variant"].startswith("sdpa"))
            lines.append(f"{sizes} ({rows[0]['heads']} heads of {rows[0]['head_dim']}), {kind}")
            lines += [
                f"  {row['variant']:15} {row['ms']:9.3f} ms {row['tflops']:8.3g} TFLOP/s {row['of_ceiling']:5.0%} of a product"
                f"  {best / row['ms']:5.2f} x PyTorch's best   errors {row['error_output']:.0e} {row['error_gradient']:.0e}"
                for row in rows
            ]
    return "\n".join(lines)


def chart(facts: dict, path: Path) -> None:
    """Bars of TFLOP/s, one group for each shape, one panel for each pass, under the line of the matrix product."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    panels = figure.subplots(1, len(PASSES), sharey=True)
    names = [name for name in VARIANTS if any(row["variant"] == name for row in facts["rows"])]
    for panel, kind in zip(panels, PASSES, strict=True):
        for place, name in enumerate(names):
            speeds = {row["sizes"]: row["tflops"] for row in facts["rows"] if (row["variant"], row["pass"]) == (name, kind)}
            left = [group + (place - len(names) / 2) * 0.8 / len(names) for group in range(len(shapes()))]
            panel.bar(left, [speeds.get(sizes, 0) for sizes in shapes()], 0.8 / len(names), align="edge", label=name)
        panel.axhline(facts["matmul_tflops"], color="0.5", linestyle="--", label="matrix product")
        panel.set_xticks(
            range(len(shapes())), [f"{sizes}\n{heads} x {dim}" for sizes, (heads, dim) in shapes().items()], fontsize=8
        )
        panel.set_title(f"attention, {kind}")
    panels[0].set_ylabel("TFLOP/s")
    panels[0].legend(fontsize=8)
    write_figure(path, figure)
