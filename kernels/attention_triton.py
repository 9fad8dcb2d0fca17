"""Fused causal attention as one PyTorch operator: launches of the Triton kernels, and their gradient.

The operator takes queries, keys and values packed as one linear layer writes them and writes their gradient packed as well,
so that nothing is copied on either side. `torch.compile` sees it as one node.
"""

import contextlib
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from kernels.attention_kernels import forward_kernel, grad_key_value_kernel, grad_query_kernel

TYPES = (torch.bfloat16, torch.float16, torch.float32)
LARGEST_HEAD_DIM = 128
INTERPRETED = not isinstance(forward_kernel, triton.JITFunction)  # TRITON_INTERPRET=1: slow, but runs without a GPU


class Tile(NamedTuple):
    """Queries and keys that a program works on at a time, with how many warps, and how many loads run ahead (stages)."""

    queries: int
    keys: int
    warps: int
    stages: int


class Settings(NamedTuple):
    """A tile for each of the three kernels."""

    forward: Tile
    grad_query: Tile
    grad_key_value: Tile


# By kind of arithmetic and head dimension rounded up to a power of two. Large tiles read less from memory, and are limited
# by registers: tests/test_attention_machine_code.py compiles every row and finds no spill to local memory.
SETTINGS = {
    ("hopper", 32): Settings(Tile(128, 64, 4, 3), Tile(128, 64, 8, 2), Tile(32, 128, 8, 2)),
    ("hopper", 64): Settings(Tile(128, 64, 4, 3), Tile(128, 64, 8, 2), Tile(32, 128, 8, 2)),
    ("hopper", 128): Settings(Tile(128, 64, 8, 3), Tile(128, 32, 8, 2), Tile(32, 128, 8, 2)),
    ("ampere", 32): Settings(Tile(128, 64, 4, 3), Tile(128, 64, 8, 2), Tile(32, 128, 8, 2)),
    ("ampere", 64): Settings(Tile(128, 32, 4, 3), Tile(128, 64, 8, 2), Tile(32, 64, 4, 2)),
    ("ampere", 128): Settings(Tile(128, 32, 8, 2), Tile(64, 32, 4, 2), Tile(32, 64, 8, 2)),
    ("float32", 32): Settings(Tile(64, 32, 4, 2), Tile(64, 16, 4, 2), Tile(16, 32, 4, 2)),
    ("float32", 64): Settings(Tile(32, 32, 8, 2), Tile(32, 16, 4, 2), Tile(32, 32, 8, 2)),
    ("float32", 128): Settings(Tile(16, 16, 4, 2), Tile(16, 16, 8, 2), Tile(16, 16, 8, 2)),
}


def padded(head_dim: int) -> int:
    """Columns of a tile: tiles have powers of two, so the 96 of the `large` size are computed as 128."""
    return max(32, triton.next_power_of_2(head_dim))


def settings(dtype: torch.dtype, head_dim: int, capability: int) -> Settings:
    """The row of SETTINGS for a chip of that compute capability (90 for 9.0)."""
    # The consumer chips after Hopper, 12.x, have the shared memory and the instructions of Ampere.
    chip = "hopper" if 90 <= capability < 120 else "ampere"
    return SETTINGS["float32" if dtype == torch.float32 else chip, padded(head_dim)]


class Launch(NamedTuple):
    """A kernel with everything that it is started with."""

    kernel: triton.JITFunction
    programs: int
    arguments: dict
    options: dict

    def run(self) -> None:
        """Start the kernel."""
        if self.programs:
            self.kernel[(self.programs,)](**self.arguments, **self.options)


def launch(kernel: triton.JITFunction, tile: Tile, block: int, **tensors: Tensor) -> Launch:
    """A launch with one program for every `block` positions of each sequence and head."""
    batch, time, _, heads, head_dim = tensors["qkv"].shape
    arguments = tensors | {
        "heads": heads,
        "time": time,
        "HEAD_DIM": head_dim,
        "PADDED": padded(head_dim),
        "QUERIES": tile.queries,
        "KEYS": tile.keys,
        "EVEN": time % max(tile.queries, tile.keys) == 0,
        # Three products of TF32 halves, summed in float32: as exact as float32, and on tensor cores. Other types ignore it.
        "PRECISION": "tf32x3",
    }
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    return Launch(kernel, batch * heads * triton.cdiv(time, block), arguments, options)


def forward_launches(qkv: Tensor, out: Tensor, logsumexp: Tensor, tiles: Settings) -> list[Launch]:
    """What computes `out` and `logsumexp` of `qkv`."""
    return [launch(forward_kernel, tiles.forward, tiles.forward.queries, qkv=qkv, out=out, logsumexp=logsumexp)]


def backward_launches(
    grad_out: Tensor, qkv: Tensor, out: Tensor, logsumexp: Tensor, grad_qkv: Tensor, tiles: Settings
) -> list[Launch]:
    """What computes `grad_qkv`; the first launch leaves `delta` for the second."""
    _, by_query, by_key = tiles
    shared = {"qkv": qkv, "logsumexp": logsumexp, "grad_out": grad_out, "grad_qkv": grad_qkv}
    shared["delta"] = torch.empty_like(logsumexp)
    return [
        launch(grad_query_kernel, by_query, by_query.queries, out=out, **shared),
        launch(grad_key_value_kernel, by_key, by_key.keys, **shared),
    ]


def tiles_for(qkv: Tensor) -> Settings:
    """The settings for a tensor where it lies; the interpreter passes for an A100."""
    major, minor = torch.cuda.get_device_capability(qkv.device) if qkv.is_cuda else (8, 0)
    return settings(qkv.dtype, qkv.shape[-1], 10 * major + minor)


def run(launches: list[Launch], device: torch.device) -> None:
    """Start launches on `device`, which need not be the current one."""
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        for one in launches:
            one.run()


@torch.library.custom_op("nanobabel::attention", mutates_args=())
def attention_operator(qkv: Tensor) -> tuple[Tensor, Tensor]:
    """(batch, time, 3, heads, head_dim) -> (batch, time, heads, head_dim) and log2-sum-exp2 (batch, heads, time)."""
    qkv = qkv.contiguous()
    out, logsumexp = fake_attention(qkv)
    run(forward_launches(qkv, out, logsumexp, tiles_for(qkv)), qkv.device)
    return out, logsumexp


@attention_operator.register_fake
def fake_attention(qkv: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs of the operator, not filled in."""
    batch, time, _, heads, head_dim = qkv.shape
    return qkv.new_empty(batch, time, heads, head_dim), qkv.new_empty(batch, heads, time, dtype=torch.float32)


@torch.library.custom_op("nanobabel::attention_backward", mutates_args=())
def attention_backward_operator(grad_out: Tensor, qkv: Tensor, out: Tensor, logsumexp: Tensor) -> Tensor:
    """The gradient of `qkv`, in one tensor of its shape."""
    qkv, grad_qkv = qkv.contiguous(), fake_attention_backward(grad_out, qkv, out, logsumexp)
    run(backward_launches(grad_out.contiguous(), qkv, out, logsumexp, grad_qkv, tiles_for(qkv)), qkv.device)
    return grad_qkv


@attention_backward_operator.register_fake
def fake_attention_backward(grad_out: Tensor, qkv: Tensor, out: Tensor, logsumexp: Tensor) -> Tensor:
    """The output of the operator, not filled in."""
    return qkv.new_empty(qkv.shape)


def keep_for_backward(ctx, inputs: tuple, output: tuple) -> None:
    """Keep what the gradient is computed from: no scores."""
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def backward(ctx, grad_out: Tensor, _grad_logsumexp: Tensor | None) -> Tensor:
    """The gradient of the operator."""
    return attention_backward_operator(grad_out, *ctx.saved_tensors)


attention_operator.register_autograd(backward, setup_context=keep_for_backward)


def takes(qkv: Tensor) -> bool:
    """Whether the kernels exist for this type and head dimension."""
    return qkv.dtype in TYPES and qkv.shape[-1] <= LARGEST_HEAD_DIM


def attention(qkv: Tensor) -> Tensor:
    """Causal attention: queries, keys and values, (batch, time, 3, heads, head_dim) -> (batch, time, heads, head_dim).

    Raises:
        NotImplementedError: there are no kernels for this type or head dimension.
    """
    if not takes(qkv):
        names = ", ".join(str(dtype) for dtype in TYPES)
        raise NotImplementedError(f"no kernel for heads of {qkv.shape[-1]} {qkv.dtype}: at most {LARGEST_HEAD_DIM}, of {names}")
    return attention_operator(qkv)[0]
