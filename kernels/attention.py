"""Causal attention, softmax(Q K^T / sqrt(head_dim)) V over the past: which implementation runs is decided here, once.

`plain_attention` says what is computed; the others compute the same without ever holding the scores. On GPUs that is our
Triton kernels (kernels/attention_triton.py). On CPUs it is PyTorch's fused `scaled_dot_product_attention`, whose backward
is slow there: at the 128 tokens of the `nano` size the plain form, compiled, trains the whole model 1.2 times as fast
(`make bench`, two cores of an AMD EPYC).

All take queries, keys and values as one linear layer writes them, (batch, time, 3, heads, head_dim), and return what the
next one reads, (batch, time, heads, head_dim).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from common import UserError

try:
    from kernels import attention_triton
except ImportError:  # Triton exists for Linux only
    attention_triton = None

PLAIN_UP_TO = 256  # tokens; on CPUs, sequences at least this short train faster with the scores held


def plain_attention(qkv: Tensor) -> Tensor:
    """Attention as one writes it on a blackboard. The softmax is taken in float32, for 16-bit inputs as well."""
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


def triton_attention(qkv: Tensor) -> Tensor:
    """Attention by our kernels; choose() says where they run."""
    return attention_triton.attention(qkv)


def heads_first(qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Views of queries, keys and values, (batch, heads, time, head_dim) each."""
    return qkv.permute(2, 0, 3, 1, 4).unbind(0)


IMPLEMENTATIONS = {"plain": plain_attention, "sdpa": sdpa_attention, "triton": triton_attention}
chosen: str | None = None


def choose(name: str | None, device: torch.device) -> None:
    """Compute attention by one of IMPLEMENTATIONS from now on, or by the fastest for each device and length (None).

    Raises:
        UserError: it does not run on this device.
    """
    global chosen  # noqa: PLW0603
    if name == "triton" and not triton_runs(device.type, device.index):
        raise UserError(
            f"--attention triton: its kernels do not run on this {device.type} device, expected a GPU of compute capability 8.0"
        )
    chosen = name


def causal_attention(qkv: Tensor) -> Tensor:
    """Attention by the implementation chosen, or else the fastest for this device and length."""
    return IMPLEMENTATIONS[chosen or fastest(qkv)](qkv)


def fastest(qkv: Tensor) -> str:
    """The name in IMPLEMENTATIONS of what computes attention of `qkv` fastest."""
    if qkv.device.type == "cpu":
        return "plain" if qkv.shape[1] <= PLAIN_UP_TO and torch.is_grad_enabled() else "sdpa"
    fits = triton_runs(qkv.device.type, qkv.device.index) and attention_triton.takes(qkv)
    return "triton" if fits else "sdpa"


@torch.compiler.assume_constant_result  # a question to the driver, which torch.compile cannot trace
def triton_runs(device_type: str, device_index: int | None) -> bool:
    """Whether our kernels run on a device: a GPU with bf16 and TF32 arithmetic, or a CPU that interprets them."""
    if attention_triton is None or device_type != "cuda":
        return attention_triton is not None and attention_triton.INTERPRETED
    return torch.cuda.get_device_capability(device_index) >= (8, 0)
