"""Causal attention, softmax(Q K^T / sqrt(head_dim)) V over the past: which implementation runs is decided here, once.

`plain_attention` says what is computed. PyTorch's fused `scaled_dot_product_attention` computes the same without ever
holding the scores, and wins wherever they are large. On CPUs its backward is slow: at the 128 tokens of the `nano` size
the plain form, compiled, trains the whole model 1.2 times as fast (`make bench`, two cores of an AMD EPYC).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

PLAIN_UP_TO = 256  # tokens; on CPUs, sequences at least this short are faster with the scores held


def plain_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention as one writes it on a blackboard: three (batch, heads, time, head_dim) -> the same shape.

    The softmax is taken in float32 whatever the type of the inputs.
    """
    time = query.shape[-2]
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    past = torch.ones(time, time, dtype=torch.bool, device=query.device).tril()
    weights = scores.float().masked_fill(~past, -math.inf).softmax(-1)
    return weights.to(value.dtype) @ value


def causal_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention by the fastest implementation for this device and length; shapes as in `plain_attention`."""
    if query.device.type == "cpu" and query.shape[-2] <= PLAIN_UP_TO and torch.is_grad_enabled():
        return plain_attention(query, key, value)
    return F.scaled_dot_product_attention(query, key, value, is_causal=True)
