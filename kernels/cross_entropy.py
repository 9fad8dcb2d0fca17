"""Output layer and cross-entropy in one step, over chunks of tokens: the logits of a batch never exist.

Ten clones of 16,384 pieces make a vocabulary of 163,840 ids. A batch of 128 x 512 tokens would have 43 GB of float32 logits
over it, and as much again for their gradient. Here a chunk of tokens H at a time goes through the output layer W, its logits
H W^T are turned in place into the gradient with respect to themselves, and from that follow those of both inputs,

    G = softmax(H W^T) - onehot(targets),    dH = G W,    dW = G^T H, summed over chunks,

after which the chunk is forgotten. So the forward pass does all the work, and the backward pass scales what is already there.
Nothing is left out: every id of every language receives its gradient, however small, for those are what the paper is about.

`plain_linear_cross_entropy` says what is computed. Devices differ in `losses_and_gradient` alone: on GPUs it is the Triton
kernel of kernels/cross_entropy_triton.py, on CPUs PyTorch, a few rows at a time that stay in a processor's cache.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

try:
    from kernels import cross_entropy_triton
except ImportError:  # Triton exists for Linux only
    cross_entropy_triton = None

IGNORED = -100  # a target that does not count, as in PyTorch
CHUNK_BYTES = {"cpu": 2**23, "cuda": 2**30}  # of logits at a time: what a CPU's cache holds, and what a GPU can spare
CHUNK_TOKENS = 1024  # but at least so many: for fewer, reading W and adding to dW would take too much of the time
CACHE_BYTES = 2**20  # of float32 logits whose softmax a CPU takes at a time,
CACHE_ROWS = 16  # but at least so many rows: for fewer, calling PyTorch would take too much of the time
# Type of the products -> what G is multiplied by while it has that type: fp16 knows nothing between 0 and 6e-8.
SCALE = {torch.float16: 2.0**10}


def plain_linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, ignored: int = IGNORED) -> tuple[Tensor, Tensor]:
    """What `linear_cross_entropy` computes, with all logits held."""
    logits = F.linear(hidden, weight)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=ignored, reduction="none")
    return losses.sum() / (targets != ignored).sum().clamp(min=1), losses.view_as(targets)


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, ignored: int = IGNORED) -> tuple[Tensor, Tensor]:
    """Cross-entropy in nats of targets under a softmax over the whole vocabulary.

    Matrix products are taken in the type of `hidden`, under autocast in its type; sums and losses in float32 at least.

    Args:
        hidden: (..., width) hidden states.
        weight: (vocabulary, width), the output layer.
        targets: (...) ids.
        ignored: the target that costs nothing and does not count.

    Returns:
        The mean over the targets that count, 0 if none does, which can be differentiated once; and the loss of each, (...),
        which cannot: they are for the log. `linear_cross_entropy_losses` returns some that can.

    Raises:
        RuntimeError: a target is no id. On a GPU, which is not waited for, its loss is not a number instead.
    """
    wanted = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    flat = targets.flatten()
    total, losses, _, _ = loss_operator(hidden.flatten(0, -2), weight, flat, None, ignored, product_type(hidden), wanted)
    return total / (flat != ignored).sum().clamp(min=1), losses.detach().view_as(targets)


def linear_cross_entropy_losses(hidden: Tensor, weight: Tensor, targets: Tensor, ignored: int = IGNORED) -> Tensor:
    """The loss of each target, (...), which can be differentiated, once; arguments as in `linear_cross_entropy`.

    How much each one counts is known in the backward pass only, which computes the logits again.
    """
    losses = losses_operator(hidden.flatten(0, -2), weight, targets.flatten(), ignored, product_type(hidden))
    return losses.view_as(targets)


def product_type(hidden: Tensor) -> torch.dtype:
    """The type in which a linear layer would multiply `hidden`, but on CPUs float32 for fp16, which they are not made for."""
    device = hidden.device.type
    autocast = torch.is_autocast_enabled(device) and hidden.dtype != torch.float64
    dtype = torch.get_autocast_dtype(device) if autocast else hidden.dtype
    return torch.float32 if (device, dtype) == ("cpu", torch.float16) else dtype


# --- the operators that torch.compile sees, a node each ----------------------------------------------------------------


@torch.library.custom_op("nanobabel::linear_cross_entropy", mutates_args=())
def loss_operator(
    hidden: Tensor, weight: Tensor, targets: Tensor, shares: Tensor | None, ignored: int, dtype: torch.dtype, wanted: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sum of the losses of (n, width) hidden states, each times its share, (n,) or 1; and, if `wanted`, its gradients.

    Returns:
        The sum, (); the losses as such, (n,); the gradients of `hidden`, in its type, and of `weight`, in float32.
    """
    total, losses, d_hidden, d_weight = fake_loss_operator(hidden, weight, targets, shares, ignored, dtype, wanted)
    hidden, weight, scale = hidden.to(dtype), weight.to(dtype), SCALE.get(dtype, 1.0)
    targets = targets.contiguous()  # as the kernel reads them
    counted = (targets != ignored).to(losses.dtype)
    shares = counted if shares is None else counted * shares
    size = chunk_tokens(len(hidden), len(weight), hidden)
    # The kernel reads faster where rows begin at multiples of 16, whatever the size of the vocabulary.
    stride = -(-len(weight) // 16) * 16 if kernel_runs(hidden.device.type) else len(weight)
    buffer = hidden.new_empty(size, stride)[:, : len(weight)]
    product = weight.new_empty(weight.shape if wanted else 0)
    for first in range(0, len(hidden), size):
        chunk = slice(first, first + size)
        rows = hidden[chunk]
        logits = torch.mm(rows, weight.T, out=buffer[: len(rows)])
        losses[chunk] = losses_and_gradient(logits, targets[chunk], shares[chunk] * scale, ignored, wanted)
        if wanted:
            d_hidden[chunk] = logits @ weight
            add_product(d_weight, logits.T, rows, product, first == 0)
    if scale != 1:
        d_hidden /= scale
        d_weight /= scale
    torch.dot(losses, shares, out=total)
    return total, losses, d_hidden, d_weight


@loss_operator.register_fake
def fake_loss_operator(hidden, weight, targets, shares, ignored, dtype, wanted) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The outputs of the operator, not filled in; gradients that nobody wants are empty."""
    wide = torch.promote_types(dtype, torch.float32)
    total, losses = hidden.new_empty((), dtype=wide), hidden.new_empty(len(hidden), dtype=wide)
    shapes = (hidden.shape, weight.shape) if wanted else ((0,), (0,))
    return total, losses, hidden.new_empty(shapes[0]), weight.new_empty(shapes[1], dtype=wide)


def keep_gradients(ctx, inputs: tuple, output: tuple) -> None:
    """Keep what the forward pass has computed for the backward pass."""
    _, losses, d_hidden, d_weight = output
    ctx.mark_non_differentiable(losses, d_hidden, d_weight)
    ctx.save_for_backward(d_hidden, d_weight)
    ctx.weight_dtype = inputs[1].dtype


def scale_gradients(ctx, d_total: Tensor, *_) -> tuple[Tensor | None, ...]:
    """The backward pass: a product."""
    d_hidden, d_weight = ctx.saved_tensors
    return d_hidden * d_total, (d_weight * d_total).to(ctx.weight_dtype), None, None, None, None, None


loss_operator.register_autograd(scale_gradients, setup_context=keep_gradients)


@torch.library.custom_op("nanobabel::linear_cross_entropy_losses", mutates_args=())
def losses_operator(hidden: Tensor, weight: Tensor, targets: Tensor, ignored: int, dtype: torch.dtype) -> Tensor:
    """(n,) losses without gradients."""
    return loss_operator(hidden, weight, targets, None, ignored, dtype, False)[1]


@losses_operator.register_fake
def _(hidden: Tensor, weight: Tensor, targets: Tensor, ignored: int, dtype: torch.dtype) -> Tensor:
    return fake_loss_operator(hidden, weight, targets, None, ignored, dtype, False)[1]


def keep_inputs(ctx, inputs: tuple, output: Tensor) -> None:
    """Keep what the logits can be computed from again."""
    *tensors, ctx.ignored, ctx.dtype = inputs
    ctx.save_for_backward(*tensors)


def recompute_gradients(ctx, d_losses: Tensor) -> tuple[Tensor | None, ...]:
    """The backward pass: the losses once more, this time with gradients."""
    hidden, weight, targets = ctx.saved_tensors
    # Shares of 1 at most keep fp16 from overflowing and from underflowing.
    largest = d_losses.abs().amax().clamp(min=torch.finfo(d_losses.dtype).tiny)
    _, _, d_hidden, d_weight = loss_operator(hidden, weight, targets, d_losses / largest, ctx.ignored, ctx.dtype, True)
    return d_hidden * largest, (d_weight * largest).to(weight.dtype), None, None, None


losses_operator.register_autograd(recompute_gradients, setup_context=keep_inputs)


# --- what happens to a chunk --------------------------------------------------------------------------------------------


def chunk_tokens(tokens: int, vocabulary: int, like: Tensor) -> int:
    """Tokens whose logits, of the type and on the device of `like`, are held at a time: equal parts within CHUNK_BYTES."""
    most = max(CHUNK_TOKENS, CHUNK_BYTES[like.device.type] // (vocabulary * like.element_size()))
    chunks = max(1, -(-tokens // most))
    return -(-tokens // chunks)


def losses_and_gradient(logits: Tensor, targets: Tensor, shares: Tensor, ignored: int, wanted: bool) -> Tensor:
    """Losses of (n, vocabulary) logits and (n,) targets; the logits are replaced by G, its rows times `shares`, if `wanted`."""
    if kernel_runs(logits.device.type) and shares.dtype == torch.float32:
        return cross_entropy_triton.losses_and_gradient(logits, targets, shares, ignored, wanted)
    counted = targets != ignored
    answers = targets.where(counted, 0)
    losses = torch.empty_like(shares)
    weighted = bool((shares != 1).any())
    rows = max(CACHE_ROWS, CACHE_BYTES // (4 * logits.shape[1]))
    wide = shares.new_empty(min(rows, len(logits)), logits.shape[1])
    softmax = torch.empty_like(wide)
    answered = logits.gather(1, answers[:, None])[:, 0]
    for first in range(0, len(logits), rows):
        block = slice(first, first + rows)
        part = logits[block]
        wide, softmax = wide[: len(part)], softmax[: len(part)]
        torch.softmax(wide.copy_(part), 1, out=softmax)
        # The largest probability is 1 / sum(exp(logits - largest)), and never underflows.
        torch.sub(wide.amax(1), softmax.amax(1).log(), out=losses[block])
        if wanted:
            part.copy_(softmax.mul_(shares[block, None]) if weighted else softmax)
    losses = (losses - answered).masked_fill(~counted, 0)
    if wanted:
        logits[torch.arange(len(logits)), answers] = (losses.neg().expm1() * shares).to(logits.dtype)
    return losses


def kernel_runs(device_type: str) -> bool:
    """Whether the Triton kernel runs on such a device: a GPU, or a CPU that interprets it."""
    return cross_entropy_triton is not None and (device_type == "cuda" or cross_entropy_triton.INTERPRETED)


def add_product(total: Tensor, left: Tensor, right: Tensor, product: Tensor, begin: bool) -> None:
    """total += left @ right, where `total` may be float32 and the others shorter."""
    if total.dtype == right.dtype:
        total.addmm_(left, right, beta=0 if begin else 1)
    elif total.is_cuda:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total, beta=0 if begin else 1)
    else:
        torch.mm(left, right, out=product)
        total.copy_(product) if begin else total.add_(product)
