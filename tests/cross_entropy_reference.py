"""Linear + cross-entropy written out in float64, and how far others are from it: for the tests of both implementations."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Case(NamedTuple):
    """Inputs: (..., width) hidden states, (vocabulary, width) weight and (...) targets."""

    hidden: Tensor
    weight: Tensor
    targets: Tensor


def random_case(shape: tuple[int, ...], vocabulary: int, width: int = 24, ignored: float = 0.0, device: str = "cpu") -> Case:
    """Fresh inputs, whose seed is printed, with logits between about -3 and 3; a share `ignored` of the targets is -100."""
    print("torch.manual_seed(", torch.seed(), ")")
    targets = torch.randint(vocabulary, shape).masked_fill(torch.rand(shape) < ignored, -100)
    weight = torch.randn(vocabulary, width) / width**0.5
    return Case(*(x.to(device) for x in (torch.randn(*shape, width), weight, targets)))


def reference(case: Case, ignored: int = -100) -> list[Tensor]:
    """Mean, losses, and the mean's gradients by hidden states and weight: sums of exponentials, and no autograd."""
    hidden, weight, targets = (x.double() if x.is_floating_point() else x for x in case)
    counted = targets != ignored
    answers = targets.where(counted, 0)[..., None]
    logits = hidden @ weight.mT
    losses = (logits.logsumexp(-1) - logits.gather(-1, answers)[..., 0]) * counted
    gradient = (logits - logits.logsumexp(-1, keepdim=True)).exp()
    gradient = gradient.scatter_add(-1, answers, -torch.ones_like(gradient[..., :1])) * counted[..., None]
    gradient /= counted.sum().clamp(min=1)
    d_weight = gradient.flatten(0, -2).mT @ hidden.flatten(0, -2)
    return [losses.sum() / counted.sum().clamp(min=1), losses, gradient @ weight, d_weight]


def results(function: Callable, case: Case, dtype: torch.dtype, **arguments) -> list[Tensor]:
    """What `function` makes of the case, in the order of `reference`, with matrix products in `dtype` under autocast."""
    hidden, weight = (x.detach().requires_grad_() for x in case[:2])
    with torch.autocast(hidden.device.type, dtype, enabled=dtype in (torch.bfloat16, torch.float16)):
        mean, losses = function(hidden, weight, case.targets, **arguments)
    mean.backward()
    return [mean.detach(), losses.detach(), hidden.grad, weight.grad]


def errors(function: Callable, case: Case, dtype: torch.dtype, **arguments) -> list[float]:
    """Relative errors of the four results; where nothing but zeros is right, their norm."""
    pairs = zip(results(function, case, dtype, **arguments), reference(case, **arguments), strict=True)
    return [((ours.double() - exact).norm() / (exact.norm() or 1)).item() for ours, exact in pairs]
