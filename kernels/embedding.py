"""Looking up token embeddings, with a gradient that is fast and the same bits each time.

torch.compile takes the gradient of nn.Embedding apart: into additions in no fixed order or, where those are
forbidden, into one that adds all tokens of an id one after the other, and every twentieth token may be the
same. As an operator it stays whole: PyTorch's own kernel for GPUs sorts the ids and adds up each in parts.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def embedding(ids: Tensor, weight: Tensor) -> Tensor:
    """(...) ids, (vocabulary, width) embeddings -> (..., width)."""
    return embedding_operator(ids, weight) if ids.is_cuda else F.embedding(ids, weight)


@torch.library.custom_op("nanobabel::embedding", mutates_args=())
def embedding_operator(ids: Tensor, weight: Tensor) -> Tensor:
    """`embedding`, a node to torch.compile."""
    return F.embedding(ids, weight)


@torch.library.custom_op("nanobabel::embedding_backward", mutates_args=())
def embedding_backward_operator(grad: Tensor, ids: Tensor, vocabulary: int) -> Tensor:
    """The gradient of the embeddings, (vocabulary, width)."""
    return torch.ops.aten.embedding_dense_backward(grad, ids, vocabulary, -1, False)


def keep_for_backward(ctx, inputs: tuple, output: Tensor) -> None:
    """Keep what the gradient is computed from."""
    ids, weight = inputs
    ctx.vocabulary = len(weight)
    ctx.save_for_backward(ids)


def backward(ctx, grad: Tensor) -> tuple[None, Tensor]:
    """The gradient of the operator."""
    return None, embedding_backward_operator(grad, *ctx.saved_tensors, ctx.vocabulary)


embedding_operator.register_autograd(backward, setup_context=keep_for_backward)
embedding_operator.register_fake(lambda ids, weight: weight.new_empty(*ids.shape, weight.shape[1]))
embedding_backward_operator.register_fake(lambda grad, _, ids: grad.new_empty(ids, grad.shape[-1]))
