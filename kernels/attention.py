"""Causal attention of the paper's GPT (section 3.1), softmax(Q K^T / sqrt(head_dim)) V over the past.

`plain_attention` says what is computed. `sdpa_attention`, PyTorch's fused operator, and `triton_attention`,
by the kernels below, after FlashAttention-2 (Dao, 2023), compute the same without ever holding the scores.
All take queries, keys and values as one linear layer writes them, (batch, time, 3, heads, head_dim), and
return what the next one reads, (batch, time, heads, head_dim).
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from common import UserError
from kernels import capability, tl, triton, triton_runs

# --- as one writes it ---------------------------------------------------------------------------------------


def heads_first(qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Views of queries, keys and values, (batch, heads, time, head_dim) each."""
    return qkv.permute(2, 0, 3, 1, 4).unbind(0)


def plain_attention(qkv: Tensor) -> Tensor:
    """Attention as on a blackboard. The softmax is taken in float32, for 16-bit inputs as well."""
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
# One program takes one head of one sequence and a block of its queries (O and dQ) or of its keys (dK and
# dV), and walks over the blocks of the other side that the mask leaves. Those wholly in the past and those
# that the diagonal cuts are passes of their own, so that only the latter pay for masking; keys beyond the
# end of a sequence lie beyond the diagonal as well, and queries there are zeros, whose gradients vanish.
# Every sum is taken by one program in one order, so that gradients are the same bits each time: one pass over
# the backward's blocks would save two of its seven products, but then programs would add to the same dQ.
#
# The tensors, all contiguous: `qkv` and `grad_qkv` (batch, time, 3, heads, head_dim); `out` and `grad_out`,
# O and dO, (batch, time, heads, head_dim); `logsumexp`, in base 2 like the hardware's exponential, (batch,
# heads, time) in float32; `statistics`, logsumexp and delta side by side, (batch, heads, time, 2).

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def locate(pair, heads, time, PARTS: tl.constexpr, HEAD_DIM: tl.constexpr):
    """Where the `pair`-th sequence and head begin in a (batch, time, PARTS, heads, head_dim) tensor."""
    row = PARTS * heads * HEAD_DIM
    return (pair // heads).to(tl.int64) * time * row + pair % heads * HEAD_DIM


@triton.jit
def places(base, first, row, time, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr):
    """Pointers to ROWS rows, `row` elements apart, from row `first` on, and which of their elements exist."""
    rows, columns = tl.arange(0, ROWS)[:, None], tl.arange(0, PADDED)[None, :]
    exists = (first + rows < time) & (columns < HEAD_DIM)
    # One sum of 64 bits for the tile; within it, 32 bits are enough.
    return base + tl.cast(first, tl.int64) * row + (rows * row + columns), exists


@triton.jit
def read(
    base, first, row, time,
    ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, CHECKED: tl.constexpr,
):  # fmt: skip
    """Load a (ROWS, PADDED) tile, zeros where nothing exists. Without CHECKED, all its rows must exist."""
    pointers, exists = places(base, first, row, time, ROWS, HEAD_DIM, PADDED)
    if CHECKED:
        return tl.load(pointers, mask=exists, other=0.0)
    elif HEAD_DIM < PADDED:
        return tl.load(pointers, mask=tl.arange(0, PADDED)[None, :] < HEAD_DIM, other=0.0)
    else:
        return tl.load(pointers)


@triton.jit
def write(base, values, first, row, time, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED: tl.constexpr):
    """Store what exists of a (ROWS, PADDED) tile in the type of the tensor."""
    pointers, exists = places(base, first, row, time, ROWS, HEAD_DIM, PADDED)
    tl.store(pointers, values.to(base.dtype.element_ty), mask=exists)


@triton.jit(do_not_specialize=["heads", "time"])
def forward_kernel(
    qkv, out, logsumexp, heads, time,
    HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    EVEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`out` and `logsumexp` of QUERIES queries. KEYS divides QUERIES."""
    blocks = tl.cdiv(time, QUERIES)
    pair = tl.program_id(0) // blocks
    first = (blocks - 1 - tl.program_id(0) % blocks) * QUERIES  # the longest walks start first
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
            scores = tl.dot(query, tl.trans(key), input_precision=PRECISION)
            if diagonal:
                scores = tl.where(rows[:, None] >= start + columns[None, :], scores, float("-inf"))
            higher = tl.maximum(largest, tl.max(scores, 1) * scale)
            weights = tl.exp2(scores * scale - higher[:, None])
            shrink = tl.exp2(largest - higher)
            total = total * shrink + tl.sum(weights, 1)
            result = result * shrink[:, None]
            result = tl.dot(weights.to(value.dtype), value, result, input_precision=PRECISION)
            largest = higher

    there = out + locate(pair, heads, time, 1, HEAD_DIM)
    write(there, result / total[:, None], first, width, time, QUERIES, HEAD_DIM, PADDED)
    tl.store(logsumexp + pair.to(tl.int64) * time + rows, largest + tl.log2(total), mask=rows < time)


@triton.jit(do_not_specialize=["heads", "time"])
def grad_query_kernel(
    qkv, out, logsumexp, grad_out, grad_qkv, statistics, heads, time,
    HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    EVEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The part of `grad_qkv` of QUERIES queries, and their `statistics`. KEYS divides QUERIES."""
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
            scores = tl.dot(query, tl.trans(key), input_precision=PRECISION)
            grad_weights = tl.dot(grad, tl.trans(value), input_precision=PRECISION)
            if diagonal:
                scores = tl.where(rows[:, None] >= start + columns[None, :], scores, float("-inf"))
            weights = tl.exp2(scores * scale - norm[:, None])
            grad_scores = weights * (grad_weights - mean[:, None])
            result = tl.dot(grad_scores.to(key.dtype), key, result, input_precision=PRECISION)

    write(grad_qkv + here, result / HEAD_DIM**0.5, first, row, time, QUERIES, HEAD_DIM, PADDED)


@triton.jit(do_not_specialize=["heads", "time"])
def grad_key_value_kernel(
    qkv, grad_out, grad_qkv, statistics, heads, time,
    HEAD_DIM: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    EVEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The parts of `grad_qkv` that belong to KEYS keys and their values. QUERIES divides KEYS."""
    # Scores are transposed here, (KEYS, QUERIES): they enter the sums on the left, from registers.
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
            scores = tl.dot(key, tl.trans(query), input_precision=PRECISION)
            grad_weights = tl.dot(value, tl.trans(grad), input_precision=PRECISION)
            if not past:
                scores = tl.where(start + columns[None, :] >= rows[:, None], scores, float("-inf"))
            weights = tl.exp2(scores * scale - norm[None, :])
            grad_value = tl.dot(weights.to(grad.dtype), grad, grad_value, input_precision=PRECISION)
            grad_scores = weights * (grad_weights - mean[None, :])
            grad_key = tl.dot(grad_scores.to(query.dtype), query, grad_key, input_precision=PRECISION)

    write(grad_qkv + here + width, grad_key / HEAD_DIM**0.5, first, row, time, KEYS, HEAD_DIM, PADDED)
    write(grad_qkv + here + 2 * width, grad_value, first, row, time, KEYS, HEAD_DIM, PADDED)


# --- how they are launched ----------------------------------------------------------------------------------


class Tile(NamedTuple):
    """Queries and keys that a program works on at a time, its warps, and how many loads run ahead."""

    queries: int
    keys: int
    warps: int
    stages: int


# By arithmetic and head dimension, a tile of each of KERNELS: so large that memory is read seldom, so small
# that a multiprocessor has room for eight warps, mostly as two programs or more, one of which computes while
# another waits for its loads. tests/test_machine_code.py compiles every row, counts programs, finds no spill.
SETTINGS = {
    ("hopper", 32): (Tile(128, 64, 8, 3), Tile(64, 64, 4, 2), Tile(64, 64, 4, 2)),
    ("hopper", 64): (Tile(128, 64, 8, 3), Tile(64, 64, 4, 2), Tile(64, 64, 4, 2)),
    ("hopper", 128): (Tile(64, 64, 4, 2), Tile(64, 32, 4, 2), Tile(32, 128, 8, 2)),
    ("ampere", 32): (Tile(128, 64, 8, 2), Tile(64, 64, 4, 2), Tile(64, 64, 4, 2)),
    ("ampere", 64): (Tile(64, 64, 4, 2), Tile(64, 32, 4, 2), Tile(32, 64, 4, 2)),
    ("ampere", 128): (Tile(64, 32, 4, 2), Tile(32, 32, 4, 2), Tile(32, 64, 8, 2)),
    ("float32", 32): (Tile(64, 32, 4, 2), Tile(64, 16, 4, 2), Tile(16, 32, 4, 2)),
    ("float32", 64): (Tile(32, 32, 4, 2), Tile(32, 16, 4, 2), Tile(16, 32, 4, 2)),
    ("float32", 128): (Tile(16, 16, 4, 2), Tile(16, 16, 4, 2), Tile(16, 16, 8, 2)),
}
KERNELS = forward_kernel, grad_query_kernel, grad_key_value_kernel


def setting(chip: int, dtype: torch.dtype, head_dim: int) -> tuple[str, int]:
    """The key of SETTINGS on a chip of that compute capability (90 for 9.0)."""
    # The consumer chips after Hopper, 12.x, have the shared memory and the instructions of Ampere.
    name = "hopper" if 90 <= chip < 120 else "ampere"
    padded = max(32, triton.next_power_of_2(head_dim))  # the 96 of the `large` size are computed as 128
    return "float32" if dtype == torch.float32 else name, padded


def launch(kernel, chip: int, qkv: Tensor, **tensors: Tensor) -> tuple[int, dict]:
    """Programs and arguments of one of KERNELS on a chip of that compute capability."""
    batch, time, _, heads, head_dim = qkv.shape
    key = setting(chip, qkv.dtype, head_dim)
    queries, keys, warps, stages = SETTINGS[key][KERNELS.index(kernel)]
    block = keys if kernel is grad_key_value_kernel else queries
    return batch * heads * triton.cdiv(time, block), tensors | {
        "qkv": qkv,
        "heads": heads,
        "time": time,
        "HEAD_DIM": head_dim,
        "PADDED": key[1],
        "QUERIES": queries,
        "KEYS": keys,
        "EVEN": time % max(queries, keys) == 0,
        # Three products of TF32 halves: as exact as float32, and on tensor cores. 16-bit types ignore it.
        "PRECISION": "tf32x3",
        "num_warps": warps,
        "num_stages": stages,
    }


def run(kernel, qkv: Tensor, **tensors: Tensor) -> None:
    """Launch one of KERNELS on the device of its tensors, which need not be the current one."""
    programs, arguments = launch(kernel, capability(qkv.device), qkv, **tensors)
    if programs:
        with torch.cuda.device_of(qkv):
            kernel[programs,](**arguments)


# --- the operator, a node to torch.compile ------------------------------------------------------------------


@torch.library.custom_op("nanobabel::attention", mutates_args=())
def attention_operator(qkv: Tensor) -> tuple[Tensor, Tensor]:
    """(batch, time, 3, heads, head_dim) -> (batch, time, heads, head_dim), and `logsumexp`."""
    qkv = qkv.contiguous()
    out, logsumexp = fake_attention(qkv)
    run(forward_kernel, qkv, out=out, logsumexp=logsumexp)
    return out, logsumexp


@attention_operator.register_fake
def fake_attention(qkv: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs of the operator, not filled in."""
    batch, time, _, heads, head_dim = qkv.shape
    out = qkv.new_empty(batch, time, heads, head_dim)
    return out, qkv.new_empty(batch, heads, time, dtype=torch.float32)


@torch.library.custom_op("nanobabel::attention_backward", mutates_args=())
def attention_backward_operator(grad_out: Tensor, qkv: Tensor, out: Tensor, logsumexp: Tensor) -> Tensor:
    """The gradient of `qkv`, in one tensor of its shape."""
    qkv, grad_out, grad_qkv = qkv.contiguous(), grad_out.contiguous(), qkv.new_empty(qkv.shape)
    statistics = logsumexp.new_empty(*logsumexp.shape, 2)  # the first kernel leaves them for the second
    shared = {"grad_out": grad_out, "grad_qkv": grad_qkv, "statistics": statistics}
    run(grad_query_kernel, qkv, out=out, logsumexp=logsumexp, **shared)
    run(grad_key_value_kernel, qkv, **shared)
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
    return qkv.dtype in {torch.bfloat16, torch.float16, torch.float32} and qkv.shape[-1] <= 128


def triton_attention(qkv: Tensor) -> Tensor:
    """Attention by the kernels above."""
    if not takes(qkv):
        raise NotImplementedError(f"no kernel for {qkv.dtype} heads of {qkv.shape[-1]}")
    return attention_operator(qkv)[0]


# --- which one runs -----------------------------------------------------------------------------------------

IMPLEMENTATIONS = {"plain": plain_attention, "sdpa": sdpa_attention, "triton": triton_attention}
# On a CPU SDPA is fastest, but training with 16-bit types and up to so many tokens is faster with the scores
# held: 30 ms a step of GPT pico against 46 on two cores with bf16; in float32, 37 against SDPA's 33.
PLAIN_UP_TO = 256
# On a GPU, a row for each of SETTINGS: what `python -m kernels.bench attention` finds there belongs here.
NOT_MEASURED = "triton"  # its gradients are the same bits each time; those of SDPA's fastest backends are not
FASTEST = dict.fromkeys(SETTINGS, NOT_MEASURED)
chosen: str | None = None


def choose(name: str | None, device: torch.device) -> None:
    """Compute attention by one of IMPLEMENTATIONS from now on, or by the fastest for each input (None)."""
    global chosen  # noqa: PLW0603
    runs = triton_runs(device)  # tried now, and not while torch.compile looks at the model
    if name == "triton" and not runs:
        raise UserError(
            f"--attention triton: its kernels do not run on this {device.type} device, "
            "expected a GPU of compute capability 8.0 or later"
        )
    chosen = name


def causal_attention(qkv: Tensor) -> Tensor:
    """Attention by the implementation chosen, or else the fastest for this device, type and shape."""
    return IMPLEMENTATIONS[chosen or fastest(qkv)](qkv)


def fastest(qkv: Tensor) -> str:
    """The name in IMPLEMENTATIONS of what computes attention of `qkv` fastest."""
    if qkv.device.type == "cpu":
        short = qkv.dtype.itemsize == 2 and qkv.shape[1] <= PLAIN_UP_TO
        return "plain" if short and torch.is_grad_enabled() else "sdpa"
    return fastest_on_gpu(qkv.device, qkv.dtype, qkv.shape[-1]) if takes(qkv) else "sdpa"


@torch.compiler.assume_constant_result  # a question to the driver, which torch.compile cannot trace
def fastest_on_gpu(device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """The row of FASTEST, where Triton runs."""
    return FASTEST[setting(capability(device), dtype, head_dim)] if triton_runs(device) else "sdpa"
