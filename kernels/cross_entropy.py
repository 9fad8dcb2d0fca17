"""Output layer and cross-entropy in one step, chunk by chunk, so that memory never holds a batch's logits.

With ten clones of 16,384 pieces, the float32 logits of 128 x 512 tokens would take 43 GB, and their gradient
as much again. Here the output layer W multiplies one chunk of hidden states H at a time. The gradient G of
the chunk's logits H W^T is written over the logits, and the gradients of H and W follow from G,

    G = softmax(H W^T) - onehot(targets),    dH = G W,    dW = G^T H, summed over chunks.

The next chunk reuses the memory. The forward pass computes all gradients, and the backward pass scales them.
Every id of every language receives its gradient, however small, because the paper studies those gradients.

`plain_linear_cross_entropy` defines the result. Where Triton runs, the kernel at the end of this file takes
a chunk's softmax; elsewhere PyTorch does, on CPUs a few rows at a time, so that the rows stay in the cache.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import tl, triton, triton_runs


class Limits(NamedTuple):
    """How much of a batch is processed at a time."""

    chunk: int  # most bytes of logits in memory at a time
    multiple: int  # tokens of a chunk are a multiple of this, because ragged matrices waste a GPU
    cache: int  # bytes of float32 logits whose softmax PyTorch computes at a time


# CPUs are limited by their cache, GPUs by the memory that they can spare.
GPU = Limits(2**30, 256, 2**28)
LIMITS = {"cpu": Limits(2**23, 1, 2**20), "cuda": GPU, "mps": GPU}
CHUNK_TOKENS = 1024  # tokens; in smaller chunks, reading W and adding to dW would take too long
# While G is in fp16, it is multiplied by this number. Otherwise ids of another language, of probability 1e-8,
# would get no gradient, because fp16 has no number between 0 and 6e-8. A loss scale would come too late, in
# the backward pass.
FP16_SCALE = 2.0**10


def plain_linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The definition of `linear_cross_entropy`: the same results, but with all logits in memory."""
    logits = F.linear(hidden, weight)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
    return losses.mean(), losses.view_as(targets)


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy in nats of targets under a softmax over the whole vocabulary.

    (..., width) hidden states, (vocabulary, width) output layer and (...) target ids -> the mean loss, which
    can be differentiated once, and the (...) losses, which are for the log and cannot. Matrix products have
    the type of `hidden`, or autocast's; sums and losses, at least float32. A target outside the vocabulary
    raises a RuntimeError; on a GPU its loss is NaN instead, because an error would have to wait for the GPU.
    """
    wanted = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    dtype = product_type(hidden)
    mean, losses, _, _ = loss_operator(hidden.flatten(0, -2), weight, targets.flatten(), dtype, wanted)
    return mean, losses.detach().view_as(targets)


def product_type(hidden: Tensor) -> torch.dtype:
    """The type in which a linear layer multiplies `hidden`; on CPUs, not built for fp16, float32 instead."""
    device = hidden.device.type
    autocast = torch.is_autocast_enabled(device) and hidden.dtype != torch.float64
    dtype = torch.get_autocast_dtype(device) if autocast else hidden.dtype
    return torch.float32 if (device, dtype) == ("cpu", torch.float16) else dtype


# --- the operator, a single node in torch.compile's graph ---------------------------------------------------


@torch.library.custom_op("nanobabel::linear_cross_entropy", mutates_args=())
def loss_operator(
    hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, wanted: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The mean loss of (n, width) hidden states, the (n,) losses and, if `wanted`, gradients of their sum."""
    mean, losses, d_hidden, d_weight = fake_loss_operator(hidden, weight, targets, dtype, wanted)
    d_weight.zero_()
    hidden, weight, targets = hidden.to(dtype), weight.to(dtype), targets.contiguous()
    vocabulary = len(weight)
    scale = FP16_SCALE if dtype == torch.float16 else 1.0
    size = chunk_tokens(len(hidden), vocabulary, hidden)
    # The kernel reads faster if rows begin at multiples of 16, so each row is padded to a multiple of 16.
    stride = round_up(vocabulary, 16) if triton_runs(hidden.device) else vocabulary
    buffer = hidden.new_empty(size, stride)[:, :vocabulary]
    for first in range(0, len(hidden), size):
        chunk = slice(first, first + size)
        rows = hidden[chunk]
        logits = torch.mm(rows, weight.T, out=buffer[: len(rows)])
        losses_and_gradient(logits, targets[chunk], losses[chunk], scale, wanted)
        if wanted:
            d_hidden[chunk] = logits @ weight
            add_product(d_weight, logits.T, rows)
    if scale != 1:
        d_hidden /= scale
        d_weight /= scale
    torch.mean(losses, 0, out=mean)
    return mean, losses, d_hidden, d_weight


@loss_operator.register_fake
def fake_loss_operator(hidden, weight, targets, dtype, wanted) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The outputs of the operator, allocated but not computed; gradients are empty unless `wanted`."""
    wide = torch.promote_types(dtype, torch.float32)
    mean, losses = hidden.new_empty((), dtype=wide), hidden.new_empty(len(hidden), dtype=wide)
    shapes = (hidden.shape, weight.shape) if wanted else ((0,), (0,))
    return mean, losses, hidden.new_empty(shapes[0]), weight.new_empty(shapes[1], dtype=wide)


def keep_gradients(ctx, inputs: tuple, output: tuple) -> None:
    """Save the gradients that the forward pass has computed for the backward pass."""
    _, losses, d_hidden, d_weight = output
    ctx.mark_non_differentiable(losses, d_hidden, d_weight)
    ctx.save_for_backward(d_hidden, d_weight)
    ctx.weight_dtype = inputs[1].dtype


def scale_gradients(ctx, d_mean: Tensor, *_) -> tuple[Tensor | None, ...]:
    """The backward pass: multiply the saved gradients by the gradient of the mean, divided by n."""
    d_hidden, d_weight = ctx.saved_tensors
    share = d_mean / len(d_hidden)
    return d_hidden * share, (d_weight * share).to(ctx.weight_dtype), None, None, None


loss_operator.register_autograd(scale_gradients, setup_context=keep_gradients)


def round_up(number: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is not less than `number`."""
    return -(-number // multiple) * multiple


def chunk_tokens(tokens: int, vocabulary: int, like: Tensor) -> int:
    """Tokens of a chunk, if logits have the type and device of `like`; chunks are about equal in size."""
    limit = LIMITS[like.device.type]
    most = max(CHUNK_TOKENS, limit.chunk // (vocabulary * like.element_size()))
    chunks = max(1, math.ceil(tokens / most))
    return min(tokens, round_up(math.ceil(tokens / chunks), limit.multiple))


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right. GPUs add products of 16-bit types in float32, without rounding them first."""
    if total.dtype == right.dtype:
        total.addmm_(left, right)
    elif right.is_cuda:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total += left @ right


# --- the loss of a chunk ------------------------------------------------------------------------------------


def losses_and_gradient(logits: Tensor, targets: Tensor, losses: Tensor, scale: float, wanted: bool) -> None:
    """Fill (n,) `losses` from (n, vocabulary) logits, (n,) targets; if `wanted`, logits become scale * G."""
    if triton_runs(logits.device) and losses.dtype == torch.float32:
        losses_and_gradient_kernel[len(logits),](**launch(logits, targets, losses, scale, wanted))
        return
    rows = max(torch.get_num_threads(), LIMITS[logits.device.type].cache // (4 * logits.shape[1]))
    softmax = losses.new_empty(min(rows, len(logits)), logits.shape[1])
    answers = logits.gather(1, targets[:, None])[:, 0]
    for first in range(0, len(logits), rows):
        block = slice(first, first + rows)
        part, softmax = logits[block], softmax[: len(logits[block])]
        wide = part.to(losses.dtype)
        torch.softmax(wide, 1, out=softmax)
        # The largest probability, 1 / sum(exp(logits - largest)), never underflows, so its log is finite.
        torch.sub(wide.amax(1), softmax.amax(1).log(), out=losses[block])
        if wanted:
            part.copy_(softmax if scale == 1 else softmax.mul_(scale))
    losses -= answers
    if wanted:
        each = torch.arange(len(logits), device=logits.device)
        logits[each, targets] = (losses.neg().expm1() * scale).to(logits.dtype)


# A program reads DEPTH x LANES logits at a time; 8 lanes per thread are 16 bytes of bf16, the widest load.
LANES, DEPTH, LANES_PER_WARP = 2048, 4, 256


def launch(logits: Tensor, targets: Tensor, losses: Tensor, scale: float, wanted: bool) -> dict:
    """The arguments of the kernel. Rows may have gaps between them; the kernel overwrites the gaps."""
    rows, vocabulary = logits.shape
    lanes = max(LANES_PER_WARP, min(LANES, triton.next_power_of_2(vocabulary)))
    return {
        "logits_pointer": logits,
        "targets_pointer": targets,
        "losses_pointer": losses,
        "vocabulary": vocabulary,
        "row_stride": logits.stride(0) if rows > 1 else vocabulary,  # a single row may have any stride
        "scale": scale,
        "WANTED": wanted,
        "LANES": lanes,
        "DEPTH": min(DEPTH, triton.next_power_of_2(triton.cdiv(vocabulary, lanes))),
        "num_warps": lanes // LANES_PER_WARP,
    }


@triton.jit
def losses_and_gradient_kernel(
    logits_pointer, targets_pointer, losses_pointer, vocabulary, row_stride, scale,
    WANTED: tl.constexpr, LANES: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """One program per row. The first pass computes the loss; the second writes scale * G, if WANTED."""
    # The gap after a row is read and written as well, so that every load and store is as wide as possible.
    row = tl.program_id(0).to(tl.int64)  # rows x vocabulary can pass 2^31
    logits_pointer += row * row_stride
    target = tl.load(targets_pointer + row)
    columns = tl.arange(0, DEPTH)[:, None] * LANES + tl.arange(0, LANES)[None, :]
    # Each lane has its own maximum and sum, so that threads wait for each other once, after the pass.
    largest = tl.full((LANES,), -1e30, tl.float32)
    total = tl.zeros((LANES,), tl.float32)
    answer = tl.zeros((LANES,), tl.float32)
    for first in range(0, vocabulary, DEPTH * LANES):
        ids = first + columns
        logits = tl.load(logits_pointer + ids, ids < row_stride, 0.0).to(tl.float32)
        logits = tl.where(ids < vocabulary, logits, -float("inf"))
        before = largest
        largest = tl.maximum(before, tl.max(logits, 0))
        total = total * tl.exp(before - largest) + tl.sum(tl.exp(logits - largest[None, :]), 0)
        answer += tl.sum(tl.where(ids == target, logits, 0.0), 0)
    highest = tl.max(largest, 0)
    total_of_row = tl.sum(total * tl.exp(largest - highest), 0)
    loss = highest + tl.log(total_of_row) - tl.sum(answer, 0)
    tl.store(losses_pointer + row, tl.where((target >= 0) & (target < vocabulary), loss, float("nan")))
    if WANTED:
        # This pass goes from the end to the beginning, because the logits read last are still in a cache.
        last = (vocabulary - 1) // (DEPTH * LANES) * (DEPTH * LANES)
        for back in range(0, vocabulary, DEPTH * LANES):
            ids = last - back + columns
            logits = tl.load(logits_pointer + ids, ids < row_stride, 0.0).to(tl.float32)
            gradient = tl.exp(logits - highest) * (scale / total_of_row) - tl.where(ids == target, scale, 0.0)
            tl.store(logits_pointer + ids, gradient.to(logits_pointer.dtype.element_ty), ids < row_stride)
