"""Output layer and cross-entropy in one step: the logits of a batch never exist (the idea that makes ten languages affordable).

A batch of 128 x 512 tokens over ten clones of 16,384 pieces would have 43 GB of float32 logits, and as much again for
their gradient. Here a chunk of tokens at a time goes through the output layer; from its logits follow its losses and,
in the same breath, the gradients of both inputs,

    G = softmax(H W^T) - onehot(targets),    dH = G W,    dW = G^T H,

after which the chunk is forgotten. The backward pass has nothing left to do but to scale what is already there. Nothing
is approximated: every id of every language receives its gradient, however small.

`plain_linear_cross_entropy` says what is computed. On CUDA devices the step from logits to losses and G is the Triton
kernel below; elsewhere it is PyTorch, which torch.compile fuses into the rest of the model.
"""

import math

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

IGNORED = -100  # a target that does not count, as in PyTorch
CHUNK_BYTES = {"cpu": 2**27, "cuda": 2**30}  # of logits at a time; fewer chunks are faster, more save memory


def plain_linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """What `linear_cross_entropy` computes, with all logits held."""
    logits = F.linear(hidden, weight).float()
    losses = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return losses.sum() / (targets != IGNORED).sum().clamp(min=1), losses.detach().view_as(targets)


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy in nats of every target under a softmax over the whole vocabulary.

    Under autocast the matrix products are taken in its type; sums and losses are float32 in any case.

    Args:
        hidden: (..., width) hidden states.
        weight: (vocabulary, width), the output layer.
        targets: (...) ids; IGNORED ones cost nothing.

    Returns:
        The mean over the targets that count (0 if none does), which can be differentiated once, and all losses in the
        shape of `targets`, which cannot: they are for the log.
    """
    device = hidden.device.type
    precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    wanted = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    total, losses = LinearCrossEntropy.apply(hidden.flatten(0, -2), weight, targets.flatten(), precision, wanted)
    return total / (targets != IGNORED).sum().clamp(min=1), losses.view_as(targets)


class LinearCrossEntropy(torch.autograd.Function):
    """The sum of the losses, with the gradients computed on the way there."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor, precision: torch.dtype, wanted: bool):
        cast_hidden, cast_weight = hidden.to(precision), weight.to(precision)
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if wanted else None
        all_losses, all_d_hidden = [], []
        for rows, answers in chunks(cast_hidden, targets, len(weight)):
            logits = rows @ cast_weight.T
            losses, gradient = losses_and_gradient(logits, answers, wanted)
            all_losses.append(losses)
            if wanted:
                all_d_hidden.append(gradient @ cast_weight)
                d_weight = d_weight + gradient.T @ rows
        losses = torch.cat(all_losses)
        if wanted:
            ctx.save_for_backward(torch.cat(all_d_hidden).to(hidden.dtype), d_weight.to(weight.dtype))
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    def backward(ctx, d_total: Tensor, _):
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * d_total, d_weight * d_total, None, None, None


def chunks(hidden: Tensor, targets: Tensor, vocabulary: int):
    """Equal parts of the tokens, so many that the logits of one take CHUNK_BYTES at most."""
    bytes_each = vocabulary * hidden.element_size()
    number = math.ceil(len(hidden) * bytes_each / CHUNK_BYTES[hidden.device.type])
    size = math.ceil(len(hidden) / max(1, number))
    return zip(hidden.split(size), targets.split(size), strict=True)


def losses_and_gradient(logits: Tensor, targets: Tensor, wanted: bool = True) -> tuple[Tensor, Tensor]:
    """(n, vocabulary) logits and (n,) targets -> (n,) float32 losses, and G as above in the type of the logits.

    The logits are lost: on CUDA devices G takes their place. Where it is not `wanted`, it is anything.
    """
    if logits.is_cuda:
        return fused_losses_and_gradient(logits, targets, wanted), logits
    counted, answers = targets != IGNORED, targets.clamp(min=0)[:, None]
    wide = logits.float()
    answered, largest = wide.gather(1, answers), wide.amax(1, keepdim=True)
    exponentials = wide.sub_(largest).exp_() if wide is not logits else (wide - largest).exp_()
    total = exponentials.sum(1, keepdim=True)
    losses = (largest + total.log() - answered)[:, 0] * counted
    if not wanted:
        return losses, logits
    softmax = exponentials.mul_(counted[:, None] / total)
    onehot = torch.arange(logits.shape[1], device=logits.device) == torch.where(counted, targets, -1)[:, None]
    return losses, torch.where(onehot, softmax - 1, softmax).to(logits.dtype)


@torch.library.custom_op("nanobabel::losses_and_gradient", mutates_args=("logits",))
def fused_losses_and_gradient(logits: Tensor, targets: Tensor, wanted: bool) -> Tensor:
    """`losses_and_gradient` by the kernel: returns the losses and leaves G in `logits`, whose rows must be contiguous."""
    losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    if len(logits):
        losses_and_gradient_kernel[(len(logits),)](
            logits, targets, losses, logits.shape[1], logits.stride(0), IGNORED, wanted, BLOCK, num_warps=WARPS
        )  # fmt: skip
    return losses


@fused_losses_and_gradient.register_fake
def _(logits: Tensor, targets: Tensor, wanted: bool) -> Tensor:
    return logits.new_empty(len(logits), dtype=torch.float32)


BLOCK, WARPS = 4096, 8  # ids of a row that are looked at together, and the warps that do it


@triton.jit
def losses_and_gradient_kernel(
    logits_pointer, targets_pointer, losses_pointer, vocabulary, row_stride,
    IGNORED: tl.constexpr, WANTED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program a row: a first pass finds maximum and sum, a second one, which mostly reads the cache, writes G."""
    row = tl.program_id(0).to(tl.int64)  # rows x vocabulary can pass 2^31
    logits_pointer += row * row_stride
    target = tl.load(targets_pointer + row)
    columns = tl.arange(0, BLOCK)
    # One maximum and sum for each place of the block; they are merged once, at the end.
    largest = tl.full((BLOCK,), -1e30, tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, vocabulary, BLOCK):
        inside = first + columns < vocabulary
        logits = tl.load(logits_pointer + first + columns, inside, -float("inf")).to(tl.float32)
        before, largest = largest, tl.maximum(largest, logits)
        total = total * tl.exp(before - largest) + tl.exp(logits - largest)
    highest = tl.max(largest, 0)
    total_of_row = tl.sum(total * tl.exp(largest - highest), 0)
    counted = target != IGNORED
    answer = tl.load(logits_pointer + target, counted, 0.0).to(tl.float32)
    tl.store(losses_pointer + row, tl.where(counted, highest + tl.log(total_of_row) - answer, 0.0))
    if WANTED:
        scale = tl.where(counted, 1.0 / total_of_row, 0.0)
        # Every thread has read the answer before any overwrites it.
        tl.debug_barrier()
        for first in range(0, vocabulary, BLOCK):
            inside = first + columns < vocabulary
            logits = tl.load(logits_pointer + first + columns, inside, -float("inf")).to(tl.float32)
            gradient = tl.exp(logits - highest) * scale - tl.where(first + columns == target, 1.0, 0.0)
            tl.store(logits_pointer + first + columns, gradient.to(logits_pointer.dtype.element_ty), inside)
