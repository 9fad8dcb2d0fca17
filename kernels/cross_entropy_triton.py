"""The Triton kernel of kernels/cross_entropy.py: a row of logits becomes its loss and, in place, its gradient."""

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

LANES, DEPTH = 2048, 4  # ids that are looked at together: so many beside each other, and so many of these rows
LANES_PER_WARP = 256  # 8 for each thread, which are 16 bytes of bf16: the widest load there is


@triton.jit
def losses_and_gradient_kernel(
    logits_pointer, targets_pointer, shares_pointer, losses_pointer, vocabulary, row_stride, ignored,
    WANTED: tl.constexpr, LANES: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """One program a row. Its first pass finds maximum, sum and answer; its second one writes G, if that is wanted.

    A row may be longer than the vocabulary, by what makes the next row begin at a multiple of 16: that much of it is read
    and written as well, since a load with no ragged end is a wide load.
    """
    row = tl.program_id(0).to(tl.int64)  # rows x vocabulary can pass 2^31
    logits_pointer += row * row_stride
    target = tl.load(targets_pointer + row)
    share = tl.load(shares_pointer + row)
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
    loss = tl.where((target >= 0) & (target < vocabulary), loss, float("nan"))
    tl.store(losses_pointer + row, tl.where(target == ignored, 0.0, loss))
    if WANTED:
        # From the end to the beginning: what was read last is still in a cache.
        last = (vocabulary - 1) // (DEPTH * LANES) * (DEPTH * LANES)
        for back in range(0, vocabulary, DEPTH * LANES):
            ids = last - back + columns
            logits = tl.load(logits_pointer + ids, ids < row_stride, 0.0).to(tl.float32)
            gradient = tl.exp(logits - highest) * (share / total_of_row) - tl.where(ids == target, share, 0.0)
            tl.store(logits_pointer + ids, gradient.to(logits_pointer.dtype.element_ty), ids < row_stride)


INTERPRETED = not isinstance(losses_and_gradient_kernel, triton.JITFunction)  # TRITON_INTERPRET=1: slow, but needs no GPU


def block(vocabulary: int) -> dict[str, int]:
    """Shape of a block, and the warps that work on it, for rows of this length."""
    lanes = max(LANES_PER_WARP, min(LANES, triton.next_power_of_2(vocabulary)))
    depth = min(DEPTH, triton.next_power_of_2(triton.cdiv(vocabulary, lanes)))
    return {"LANES": lanes, "DEPTH": depth, "num_warps": lanes // LANES_PER_WARP}


def arguments(logits: Tensor, targets: Tensor, shares: Tensor, losses: Tensor, ignored: int, wanted: bool) -> dict:
    """What the kernel is started with."""
    return {
        "logits_pointer": logits,
        "targets_pointer": targets,
        "shares_pointer": shares,
        "losses_pointer": losses,
        "vocabulary": logits.shape[1],
        "row_stride": logits.stride(0) if len(logits) > 1 else logits.shape[1],  # of a single row PyTorch names any
        "ignored": ignored,
        "WANTED": wanted,
        **block(logits.shape[1]),
    }


def losses_and_gradient(logits: Tensor, targets: Tensor, shares: Tensor, ignored: int, wanted: bool) -> Tensor:
    """As the function of that name in kernels/cross_entropy.py. Rows may lie apart; what is between them is lost."""
    losses = torch.empty_like(shares)
    with torch.cuda.device(logits.device) if logits.is_cuda else contextlib.nullcontext():
        losses_and_gradient_kernel[len(logits),](**arguments(logits, targets, shares, losses, ignored, wanted))
    return losses
