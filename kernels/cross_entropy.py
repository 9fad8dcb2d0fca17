"""Output layer and cross-entropy in one step, over chunks of tokens: the logits of a batch never exist.

With ten clones of 16,384 pieces, 128 x 512 tokens would have 43 GB of float32 logits, and as much again for
their gradient. Here a chunk of tokens H at a time goes through the output layer W, its logits H W^T are
turned in place into the gradient with respect to themselves, and from that follow those of both inputs,

    G = softmax(H W^T) - onehot(targets),    dH = G W,    dW = G^T H, summed over chunks,

after which the chunk is forgotten: the forward pass does all the work, the backward pass scales its result.
Every id of every language receives its gradient, however small, for those are what the paper is about.

`plain_linear_cross_entropy` says what is computed. A chunk's softmax is on GPUs the Triton kernel at the end
of the file; elsewhere it is PyTorch's, on CPUs a few rows at a time that stay in a processor's cache.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import tl, triton, triton_runs


class Limits(NamedTuple):
    """How much of a batch is worked on at a time."""

    chunk: int  # bytes of logits that are held
    multiple: int  # of tokens in a chunk: products of ragged matrices waste a GPU
    cache: int  # bytes of float32 logits whose softmax PyTorch takes at a time


# What a CPU's cache holds, and what a GPU, Nvidia's or Apple's, can spare.
CPU, GPU = Limits(2**23, 1, 2**20), Limits(2**30, 256, 2**28)
CHUNK_TOKENS = 1024  # of fewer, reading W and adding to dW would take too much of the time
# What G is multiplied by while it is fp16, which knows nothing between 0 and 6e-8. A loss scale, applied in
# the backward pass, comes too late: ids of another language, of probability 1e-8, would learn nothing.
FP16_SCALE = 2.0**10


def plain_linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """What `linear_cross_entropy` computes, with all logits held."""
    logits = F.linear(hidden, weight)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
    return losses.mean(), losses.view_as(targets)


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy in nats of targets under a softmax over the whole vocabulary.

    (..., width) hidden states, (vocabulary, width) output layer and (...) ids -> their mean, which can be
    differentiated once, and the loss of each, (...), which cannot: they are for the log. Matrix products are
    taken in the type of `hidden`, under autocast in its type; sums and losses in float32 at least. A target
    that is no id raises a RuntimeError; on a GPU, which is not waited for, its loss is not a number.
    """
    wanted = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    dtype = product_type(hidden)
    mean, losses, _, _ = loss_operator(hidden.flatten(0, -2), weight, targets.flatten(), dtype, wanted)
    return mean, losses.detach().view_as(targets)


def product_type(hidden: Tensor) -> torch.dtype:
    """The type in which a linear layer multiplies `hidden`; float32 for fp16 on CPUs, not made for it."""
    device = hidden.device.type
    autocast = torch.is_autocast_enabled(device) and hidden.dtype != torch.float64
    dtype = torch.get_autocast_dtype(device) if autocast else hidden.dtype
    return torch.float32 if (device, dtype) == ("cpu", torch.float16) else dtype


# --- the operator, a node to torch.compile ------------------------------------------------------------------


@torch.library.custom_op("nanobabel::linear_cross_entropy", mutates_args=())
def loss_operator(
    hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, wanted: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean loss of (n, width) hidden states; losses, (n,); and, if `wanted`, gradients of the losses' sum."""
    mean, losses, d_hidden, d_weight = fake_loss_operator(hidden, weight, targets, dtype, wanted)
    d_weight.zero_()
    hidden, weight, targets = hidden.to(dtype), weight.to(dtype), targets.contiguous()
    vocabulary = len(weight)
    scale = FP16_SCALE if dtype == torch.float16 else 1.0
    size = chunk_tokens(len(hidden), vocabulary, hidden)
    # The kernel reads faster where rows begin at multiples of 16, whatever the size of the vocabulary.
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
    """The outputs of the operator, not filled in; gradients that nobody wants are empty."""
    wide = torch.promote_types(dtype, torch.float32)
    mean, losses = hidden.new_empty((), dtype=wide), hidden.new_empty(len(hidden), dtype=wide)
    shapes = (hidden.shape, weight.shape) if wanted else ((0,), (0,))
    return mean, losses, hidden.new_empty(shapes[0]), weight.new_empty(shapes[1], dtype=wide)


def keep_gradients(ctx, inputs: tuple, output: tuple) -> None:
    """Keep what the forward pass has computed for the backward pass."""
    _, losses, d_hidden, d_weight = output
    ctx.mark_non_differentiable(losses, d_hidden, d_weight)
    ctx.save_for_backward(d_hidden, d_weight)
    ctx.weight_dtype = inputs[1].dtype


def scale_gradients(ctx, d_mean: Tensor, *_) -> tuple[Tensor | None, ...]:
    """The backward pass: a product."""
    d_hidden, d_weight = ctx.saved_tensors
    share = d_mean / len(d_hidden)
    return d_hidden * share, (d_weight * share).to(ctx.weight_dtype), None, None, None


loss_operator.register_autograd(scale_gradients, setup_context=keep_gradients)


def limits(device: torch.device) -> Limits:
    """Those of a kind of device."""
    return CPU if device.type == "cpu" else GPU


def round_up(number: int, multiple: int) -> int:
    """The smallest multiple that is not less."""
    return -(-number // multiple) * multiple


def chunk_tokens(tokens: int, vocabulary: int, like: Tensor) -> int:
    """Tokens whose logits, of type and device of `like`, are held at a time: chunks of equal size."""
    limit = limits(like.device)
    most = max(CHUNK_TOKENS, limit.chunk // (vocabulary * like.element_size()))
    chunks = max(1, math.ceil(tokens / most))
    return min(tokens, round_up(math.ceil(tokens / chunks), limit.multiple))


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right. On GPUs products of 16-bit types are added up in float32 at once."""
    if total.dtype == right.dtype:
        total.addmm_(left, right)
    elif right.is_cuda:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total += left @ right


# --- what happens to a chunk --------------------------------------------------------------------------------


def losses_and_gradient(logits: Tensor, targets: Tensor, losses: Tensor, scale: float, wanted: bool) -> None:
    """(n, vocabulary) logits, (n,) targets -> `losses`, (n,); logits become scale * G if that is `wanted`."""
    if triton_runs(logits.device) and losses.dtype == torch.float32:
        losses_and_gradient_kernel[len(logits),](**launch(logits, targets, losses, scale, wanted))
        return
    rows = max(torch.get_num_threads(), limits(logits.device).cache // (4 * logits.shape[1]))
    softmax = losses.new_empty(min(rows, len(logits)), logits.shape[1])
    answers = logits.gather(1, targets[:, None])[:, 0]
    for first in range(0, len(logits), rows):
        block = slice(first, first + rows)
        part, softmax = logits[block], softmax[: len(logits[block])]
        wide = part.to(losses.dtype)
        torch.softmax(wide, 1, out=softmax)
        # The largest probability is 1 / sum(exp(logits - largest)), and never underflows.
        torch.sub(wide.amax(1), softmax.amax(1).log(), out=losses[block])
        if wanted:
            part.copy_(softmax if scale == 1 else softmax.mul_(scale))
    losses -= answers
    if wanted:
        each = torch.arange(len(logits), device=logits.device)
        logits[each, targets] = (losses.neg().expm1() * scale).to(logits.dtype)


# A program looks at DEPTH x LANES ids together; 8 lanes a thread are 16 bytes of bf16, the widest load.
LANES, DEPTH, LANES_PER_WARP = 2048, 4, 256


def launch(logits: Tensor, targets: Tensor, losses: Tensor, scale: float, wanted: bool) -> dict:
    """What the kernel is started with. Rows may lie apart; what is between them is lost."""
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
    """One program a row. Its first pass finds maximum, sum and answer; its second writes G, if wanted."""
    # What a row is longer than the vocabulary is read and written, too: wide loads have no ragged end.
    row = tl.program_id(0).to(tl.int64)  # rows x vocabulary can pass 2^31
    logits_pointer += row * row_stride
    target = tl.load(targets_pointer + row)
    columns = tl.arange(0, DEPTH)[:, None] * LANES + tl.arange(0, LANES)[None, :]
    # Every lane has its own maximum and sum: threads wait for each other once, at the end of the pass.
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
        # From the end to the beginning: what was read last is still in a cache.
        last = (vocabulary - 1) // (DEPTH * LANES) * (DEPTH * LANES)
        for back in range(0, vocabulary, DEPTH * LANES):
            ids = last - back + columns
            logits = tl.load(logits_pointer + ids, ids < row_stride, 0.0).to(tl.float32)
            gradient = tl.exp(logits - highest) * (scale / total_of_row) - tl.where(ids == target, scale, 0.0)
            tl.store(logits_pointer + ids, gradient.to(logits_pointer.dtype.element_ty), ids < row_stride)
