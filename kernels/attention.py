"""Causal attention of the paper's GPT (section 3.1), softmax(Q K^T / sqrt(head_dim)) V over the past.

`plain_attention` defines the result. `sdpa_attention`, PyTorch's fused operator, and `triton_attention`, the
kernels below (after FlashAttention-2, Dao, 2023), compute the same result without storing all scores. All
three take queries, keys and values as one linear layer writes them, (batch, time, 3, heads, head_dim), and
return the input of the next linear layer, (batch, time, heads, head_dim).
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from common import UserError
from kernels import DEVICES, capability, tl, triton, triton_runs

# --- without the kernels ------------------------------------------------------------------------------------


def heads_first(qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Views of queries, keys and values, (batch, heads, time, head_dim) each."""
    return qkv.permute(2, 0, 3, 1, 4).unbind(0)


def plain_attention(qkv: Tensor) -> Tensor:
    """Attention step by step, as in the formula. The softmax is taken in float32 even for 16-bit inputs."""
    query, key, value = heads_first(qkv)
    time = query.shape[-2]
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    past = torch.ones(time, time, dtype=torch.bool, device=query.device).tril()
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    weights = scores.masked_fill(~past, -math.inf).softmax(-1)
    return (weights.to(value.dtype) @ value).transpose(1, 2)


def sdpa_attention(qkv: Tensor) -> Tensor:
    """Attention by PyTorch's fused operator."""
    return F.scaled_dot_product_attention(*heads_first(qkv), is_causal=True).transpose(1, 2)


# --- the kernels --------------------------------------------------------------------------------------------
#
# With S = Q K^T / sqrt(head_dim), masked to the past, P = softmax(S) by rows and O = P V, the gradients are
#
#     dV = P^T dO      dP = dO V^T      dS = P * (dP - delta), with delta = rowsum(dO * O), dP's mean under P
#     dQ = dS K / sqrt(head_dim)        dK = dS^T Q / sqrt(head_dim)
#
# One program handles one head of one sequence and one block: of queries for O and dQ, of keys for dK and dV.
# A program loops over the blocks of keys, or of queries, that the mask leaves. Blocks wholly in the past and
# blocks on the diagonal have separate loops, so that only the latter apply the mask. Keys beyond the end of a
# sequence lie beyond the diagonal and are masked. Queries beyond the end are zeros and add no gradient.
# One program computes each sum, in one order, so gradients are the same bits each time. One kernel for all
# gradients would save two of seven matrix products, but several programs would then add to the same dQ.
#
# The tensors, all contiguous: `qkv` and `grad_qkv` (batch, time, 3, heads, head_dim); `out` and `grad_out`,
# O and dO, (batch, time, heads, head_dim); `logsumexp`, in base 2 like the hardware's exponential, (batch,
# heads, time) in float32; `statistics`, logsumexp and delta side by side, (batch, heads, time, 2).

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def locate(pair, heads, time, PARTS: tl.constexpr, HEAD_DIM: tl.constexpr):
    """Offset of the `pair`-th head, counted over all sequences, in (batch, time, PARTS, heads, head_dim)."""
    row = PARTS * heads * HEAD_DIM
    return (pair // heads).to(tl.int64) * time * row + pair % heads * HEAD_DIM


@triton.jit
def places(base, first, row, time, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr):
    """Pointers to ROWS rows, `row` elements apart, from row `first` on, and a mask: which elements exist."""
    rows, columns = tl.arange(0, ROWS)[:, None], tl.arange(0, PADDED)[None, :]
    exists = (first + rows < time) & (columns < HEAD_DIM)
    # The tile's offset can exceed 32 bits and is added once; offsets within the tile fit 32 bits.
    return base + tl.cast(first, tl.int64) * row + (rows * row + columns), exists


@triton.jit
def read(
    base, first, row, time,
    ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, CHECKED: tl.constexpr,
):  # fmt: skip
    """Load a (ROWS, PADDED) tile, with 0 for missing elements. Without CHECKED, all its rows must exist."""
    pointers, exists = places(base, first, row, time, ROWS, HEAD_DIM, PADDED)
    if CHECKED:
        return tl.load(pointers, mask=exists, other=0.0)
    elif HEAD_DIM < PADDED:
        return tl.load(pointers, mask=tl.arange(0, PADDED)[None, :] < HEAD_DIM, other=0.0)
    else:
        return tl.load(pointers)


@triton.jit
def write(base, values, first, row, time, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr):
    """Store those elements of a (ROWS, PADDED) tile that exist in the tensor, in the tensor's type."""
    pointers, exists = places(base, first, row, time, ROWS, HEAD_DIM, PADDED)
    tl.store(pointers, values.to(base.dtype.element_ty), mask=exists)


@triton.jit(do_not_specialize=["heads", "time"])
def forward_kernel(
    qkv, out, logsumexp, heads, time,
    HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    EVEN: tl.constexpr,
):  # fmt: skip
    """Write `out` and `logsumexp` of QUERIES queries. KEYS must divide QUERIES."""
    blocks = tl.cdiv(time, QUERIES)
    pair = tl.program_id(0) // blocks
    first = (blocks - 1 - tl.program_id(0) % blocks) * QUERIES  # programs with the longest loops start first
    row, width = 3 * heads * HEAD_DIM, heads * HEAD_DIM
    queries = qkv + locate(pair, heads, time, 3, HEAD_DIM)
    keys, values = queries + width, queries + 2 * width
    rows, columns = first + tl.arange(0, QUERIES), tl.arange(0, KEYS)
    scale = LOG2_E / HEAD_DIM**0.5

    query = read(queries, first, row, time, QUERIES, HEAD_DIM, PADDED, not EVEN)
    largest = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    result = tl.zeros((QUERIES, PADDED), tl.float32)
    for diagonal in tl.static_range(2):
        begin = first if diagonal else 0
        end = tl.minimum(first + QUERIES, time) if diagonal else first
        for start in tl.range(begin, end, KEYS):
            key = read(keys, start, row, time, KEYS, HEAD_DIM, PADDED, diagonal and not EVEN)
            value = read(values, start, row, time, KEYS, HEAD_DIM, PADDED, diagonal and not EVEN)
            scores = tl.dot(query, tl.trans(key))
            if diagonal:
                scores = tl.where(rows[:, None] >= start + columns[None, :], scores, float("-inf"))
            higher = tl.maximum(largest, tl.max(scores, 1) * scale)
            weights = tl.exp2(scores * scale - higher[:, None])
            shrink = tl.exp2(largest - higher)
            total = total * shrink + tl.sum(weights, 1)
            result = result * shrink[:, None]
            result = tl.dot(weights.to(value.dtype), value, result)
            largest = higher

    there = out + locate(pair, heads, time, 1, HEAD_DIM)
    write(there, result / total[:, None], first, width, time, QUERIES, HEAD_DIM, PADDED)
    tl.store(logsumexp + pair.to(tl.int64) * time + rows, largest + tl.log2(total), mask=rows < time)


@triton.jit(do_not_specialize=["heads", "time"])
def grad_query_kernel(
    qkv, out, logsumexp, grad_out, grad_qkv, statistics, heads, time,
    HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    EVEN: tl.constexpr,
):  # fmt: skip
    """Write QUERIES queries' part of `grad_qkv` and their `statistics`. KEYS must divide QUERIES."""
    blocks = tl.cdiv(time, QUERIES)
    pair = tl.program_id(0) // blocks
    first = (blocks - 1 - tl.program_id(0) % blocks) * QUERIES
    row, width = 3 * heads * HEAD_DIM, heads * HEAD_DIM
    here, there = locate(pair, heads, time, 3, HEAD_DIM), locate(pair, heads, time, 1, HEAD_DIM)
    keys, values = qkv + here + width, qkv + here + 2 * width
    rows, columns = first + tl.arange(0, QUERIES), tl.arange(0, KEYS)
    scale = LOG2_E / HEAD_DIM**0.5

    query = read(qkv + here, first, row, time, QUERIES, HEAD_DIM, PADDED, not EVEN)
    grad = read(grad_out + there, first, width, time, QUERIES, HEAD_DIM, PADDED, not EVEN)
    output = read(out + there, first, width, time, QUERIES, HEAD_DIM, PADDED, not EVEN)
    norm = tl.load(logsumexp + pair.to(tl.int64) * time + rows, mask=rows < time, other=0.0)
    mean = tl.sum(grad.to(tl.float32) * output.to(tl.float32), 1)
    write(statistics + pair.to(tl.int64) * time * 2, tl.join(norm, mean), first, 2, time, QUERIES, 2, 2)
    result = tl.zeros((QUERIES, PADDED), tl.float32)
    for diagonal in tl.static_range(2):
        begin = first if diagonal else 0
        end = tl.minimum(first + QUERIES, time) if diagonal else first
        for start in tl.range(begin, end, KEYS):
            key = read(keys, start, row, time, KEYS, HEAD_DIM, PADDED, diagonal and not EVEN)
            value = read(values, start, row, time, KEYS, HEAD_DIM, PADDED, diagonal and not EVEN)
            scores = tl.dot(query, tl.trans(key))
            grad_weights = tl.dot(grad, tl.trans(value))
            if diagonal:
                scores = tl.where(rows[:, None] >= start + columns[None, :], scores, float("-inf"))
            weights = tl.exp2(scores * scale - norm[:, None])
            grad_scores = weights * (grad_weights - mean[:, None])
            result = tl.dot(grad_scores.to(key.dtype), key, result)

    write(grad_qkv + here, result / HEAD_DIM**0.5, first, row, time, QUERIES, HEAD_DIM, PADDED)


@triton.jit(do_not_specialize=["heads", "time"])
def grad_key_value_kernel(
    qkv, grad_out, grad_qkv, statistics, heads, time,
    HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    EVEN: tl.constexpr,
):  # fmt: skip
    """Write the parts of `grad_qkv` for KEYS keys and their values. QUERIES must divide KEYS."""
    # Scores are transposed here, (KEYS, QUERIES), so that they are left factors, which can stay in registers.
    blocks = tl.cdiv(time, KEYS)
    pair = tl.program_id(0) // blocks
    first = tl.program_id(0) % blocks * KEYS
    row, width = 3 * heads * HEAD_DIM, heads * HEAD_DIM
    here, there = locate(pair, heads, time, 3, HEAD_DIM), locate(pair, heads, time, 1, HEAD_DIM)
    rows, columns = first + tl.arange(0, KEYS), tl.arange(0, QUERIES)
    scale = LOG2_E / HEAD_DIM**0.5
    statistics += pair.to(tl.int64) * time * 2

    key = read(qkv + here + width, first, row, time, KEYS, HEAD_DIM, PADDED, not EVEN)
    value = read(qkv + here + 2 * width, first, row, time, KEYS, HEAD_DIM, PADDED, not EVEN)
    grad_key = tl.zeros((KEYS, PADDED), tl.float32)
    grad_value = tl.zeros((KEYS, PADDED), tl.float32)
    for past in tl.static_range(2):
        begin = first + KEYS if past else first
        end = time if past else tl.minimum(first + KEYS, time)
        for start in tl.range(begin, end, QUERIES):
            query = read(qkv + here, start, row, time, QUERIES, HEAD_DIM, PADDED, not EVEN)
            grad = read(grad_out + there, start, width, time, QUERIES, HEAD_DIM, PADDED, not EVEN)
            norm, mean = tl.split(read(statistics, start, 2, time, QUERIES, 2, 2, not EVEN))
            scores = tl.dot(key, tl.trans(query))
            grad_weights = tl.dot(value, tl.trans(grad))
            if not past:
                scores = tl.where(start + columns[None, :] >= rows[:, None], scores, float("-inf"))
            weights = tl.exp2(scores * scale - norm[None, :])
            grad_value = tl.dot(weights.to(grad.dtype), grad, grad_value)
            grad_scores = weights * (grad_weights - mean[None, :])
            grad_key = tl.dot(grad_scores.to(query.dtype), query, grad_key)

    write(grad_qkv + here + width, grad_key / HEAD_DIM**0.5, first, row, time, KEYS, HEAD_DIM, PADDED)
    write(grad_qkv + here + 2 * width, grad_value, first, row, time, KEYS, HEAD_DIM, PADDED)


# --- launching the kernels ----------------------------------------------------------------------------------


class Tile(NamedTuple):
    """Queries and keys that a program handles at a time, its warps, and stages of its pipeline of loads."""

    queries: int
    keys: int
    warps: int
    stages: int


# By chip and head dimension, the tile of each of KERNELS. Larger tiles read memory less often. But a
# multiprocessor must have room for eight warps, mostly in two programs or more, so that one program computes
# while another waits for its loads. tests/test_machine_code.py compiles every row, counts programs and checks
# that no register is spilled. Times on a GPU were not measured.
ROWS = {
    ("hopper", 32): (Tile(128, 64, 8, 3), Tile(64, 64, 4, 2), Tile(64, 64, 4, 2)),
    ("hopper", 64): (Tile(128, 64, 8, 3), Tile(64, 64, 4, 2), Tile(64, 64, 4, 2)),
    ("hopper", 128): (Tile(64, 64, 4, 2), Tile(64, 32, 4, 2), Tile(32, 128, 8, 2)),
    ("ampere", 32): (Tile(128, 64, 8, 2), Tile(64, 64, 4, 2), Tile(64, 64, 4, 2)),
    ("ampere", 64): (Tile(64, 64, 4, 2), Tile(64, 32, 4, 2), Tile(32, 64, 4, 2)),
    ("ampere", 128): (Tile(64, 32, 4, 2), Tile(32, 32, 4, 2), Tile(32, 64, 8, 2)),
}
KERNELS = forward_kernel, grad_query_kernel, grad_key_value_kernel


def key_of(chip: int, head_dim: int) -> tuple[str, int]:
    """The key in ROWS for `head_dim` on a chip of compute capability `chip`, 90 for 9.0."""
    # Consumer chips of capability 12.x have Ampere's shared memory and instructions, so they use its rows.
    name = "hopper" if 90 <= chip < 120 else "ampere"
    padded = next(size for size in (32, 64, 128) if head_dim <= size)  # 96, of size large, is padded to 128
    return name, padded


def launch(kernel, chip: int, qkv: Tensor, **tensors: Tensor) -> tuple[int, dict]:
    """The number of programs, and the arguments, of one of KERNELS on a chip of compute capability `chip`."""
    batch, time, _, heads, head_dim = qkv.shape
    key = key_of(chip, head_dim)
    queries, keys, warps, stages = ROWS[key][KERNELS.index(kernel)]
    block = keys if kernel is grad_key_value_kernel else queries
    arguments = {
        "qkv": qkv,
        **tensors,
        "heads": heads,
        "time": time,
        "HEAD_DIM": head_dim,
        "PADDED": key[1],
        "QUERIES": queries,
        "KEYS": keys,
        "EVEN": time % max(queries, keys) == 0,
        "num_warps": warps,
        "num_stages": stages,
    }
    return batch * heads * triton.cdiv(time, block), arguments


# --- the operator, a single node in torch.compile's graph ---------------------------------------------------


@torch.library.custom_op("nanobabel::attention", mutates_args=())
def attention_operator(qkv: Tensor) -> tuple[Tensor, Tensor]:
    """(batch, time, 3, heads, head_dim) -> (batch, time, heads, head_dim), and `logsumexp`."""
    qkv = qkv.contiguous()
    out, logsumexp = fake_attention(qkv)
    programs, arguments = launch(forward_kernel, capability(qkv.device), qkv, out=out, logsumexp=logsumexp)
    forward_kernel[programs,](**arguments)
    return out, logsumexp


@attention_operator.register_fake
def fake_attention(qkv: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs of the operator, allocated but not computed."""
    batch, time, _, heads, head_dim = qkv.shape
    out = qkv.new_empty(batch, time, heads, head_dim)
    return out, qkv.new_empty(batch, heads, time, dtype=torch.float32)


@torch.library.custom_op("nanobabel::attention_backward", mutates_args=())
def attention_backward_operator(grad_out: Tensor, qkv: Tensor, out: Tensor, logsumexp: Tensor) -> Tensor:
    """The gradient of `qkv`, as one tensor of the same shape."""
    qkv, grad_out = qkv.contiguous(), grad_out.contiguous()
    chip = capability(qkv.device)
    grad_qkv = torch.empty_like(qkv)
    statistics = logsumexp.new_empty(*logsumexp.shape, 2)  # the first kernel writes them for the second
    shared = {"grad_out": grad_out, "grad_qkv": grad_qkv, "statistics": statistics}
    programs, arguments = launch(grad_query_kernel, chip, qkv, out=out, logsumexp=logsumexp, **shared)
    grad_query_kernel[programs,](**arguments)
    programs, arguments = launch(grad_key_value_kernel, chip, qkv, **shared)
    grad_key_value_kernel[programs,](**arguments)
    return grad_qkv


@attention_backward_operator.register_fake
def fake_attention_backward(grad_out: Tensor, qkv: Tensor, out: Tensor, logsumexp: Tensor) -> Tensor:
    """The output of the operator, allocated but not computed."""
    return qkv.new_empty(qkv.shape)


def keep_for_backward(ctx, inputs: tuple, output: tuple) -> None:
    """Save inputs and outputs for the backward pass, which computes the scores again."""
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def backward(ctx, grad_out: Tensor, _grad_logsumexp: Tensor | None) -> Tensor:
    """The backward pass of the operator."""
    return attention_backward_operator(grad_out, *ctx.saved_tensors)


attention_operator.register_autograd(backward, setup_context=keep_for_backward)


def triton_attention(qkv: Tensor) -> Tensor:
    """Attention by the kernels above."""
    out, _ = attention_operator(qkv)
    return out


# --- choosing an implementation -----------------------------------------------------------------------------

IMPLEMENTATIONS = {"plain": plain_attention, "sdpa": sdpa_attention, "triton": triton_attention}
# On CPUs SDPA is fastest, except for training in 16-bit types on sequences of at most PLAIN_UP_TO tokens. On
# two cores a step of pico takes 30 ms with plain attention and 46 ms with SDPA in bf16, but 37 and 33 ms in
# float32.
PLAIN_UP_TO = 256
chosen: str | None = None


def choose(name: str | None, device: torch.device, precision: str) -> None:
    """Set the implementation of all later calls (None: the fastest); UserError if it cannot run here."""
    global chosen  # noqa: PLW0603
    runs = triton_runs(device)  # tried before torch.compile traces the model
    if name == "triton" and not runs:
        expected = "only on GPUs of capability 8.0 or later; use sdpa"
        raise UserError(
            f"--attention triton: its kernels do not run on this {device.type} device, {expected}"
        )
    if name == "triton" and device.type == "cuda" and precision == "fp32":
        raise UserError("--attention triton takes only 16-bit types; use --precision bf16 or fp16")
    chosen = name


def takes(qkv: Tensor) -> bool:
    """True if the kernels can take `qkv`: its device, head dimension and type (float32 if interpreted)."""
    known = qkv.dtype.itemsize == 2 or qkv.device.type == "cpu"
    return known and qkv.device.type in DEVICES and qkv.shape[-1] <= 128


def causal_attention(qkv: Tensor) -> Tensor:
    """Attention by the chosen implementation, or else by the fastest for the device, type and shape."""
    name = chosen or fastest(qkv)
    if name == "triton" and not takes(qkv):  # evaluate.py repeats in float32 if fp16 overflows
        name = "sdpa"
    return IMPLEMENTATIONS[name](qkv)


def fastest(qkv: Tensor) -> str:
    """The name of the implementation that is fastest for `qkv`, a key of IMPLEMENTATIONS."""
    if qkv.device.type == "cpu":
        short = qkv.dtype.itemsize == 2 and qkv.shape[1] <= PLAIN_UP_TO
        return "plain" if short and torch.is_grad_enabled() else "sdpa"
    return fastest_on_gpu(qkv.device) if takes(qkv) else "sdpa"


@torch.compiler.assume_constant_result  # torch.compile cannot trace the call to the driver
def fastest_on_gpu(device: torch.device) -> str:
    """The kernels of this file, or "sdpa" if Triton does not run."""
    return "triton" if triton_runs(device) else "sdpa"
