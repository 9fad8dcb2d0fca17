"""The loss kernel, interpreted, against float64. test_cross_entropy.py runs this in its own process."""

import pytest
import torch
from cross_entropy_reference import errors, random_case
from interpreter import round_bfloat16

from kernels import cross_entropy_triton
from kernels.cross_entropy import linear_cross_entropy, loss_operator, plain_linear_cross_entropy

round_bfloat16()

BOUND = {torch.float32: 1e-6, torch.bfloat16: 5e-3, torch.float16: 1e-3}


def rows(number: int, vocabulary: int, dtype: torch.dtype, spread: float = 2.0):
    """Logits in rows that begin at multiples of 16, targets and shares."""
    print("torch.manual_seed(", torch.seed(), ")")
    padded = torch.full((number, -(-vocabulary // 16) * 16), torch.nan, dtype=dtype)
    padded[:, :vocabulary] = torch.randn(number, vocabulary) * spread
    return padded[:, :vocabulary], torch.randint(vocabulary, (number,)), torch.rand(number) - 0.5


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("vocabulary", [1, 7, 256, 300, 2048, 5000, 9001, 20_000])
def test_losses_and_gradients_match_float64(dtype, vocabulary):
    logits, targets, shares = rows(3, vocabulary, dtype)
    targets[1], targets[2], shares[1] = -100, vocabulary - 1, 0.0
    exact = logits.double()
    probabilities = exact.softmax(1)
    gradient = probabilities - torch.nn.functional.one_hot(targets.clamp(min=0), vocabulary)
    expected = -torch.log_softmax(exact, 1).gather(1, targets.clamp(min=0)[:, None])[:, 0]
    losses = cross_entropy_triton.losses_and_gradient(logits, targets, shares, -100, True)
    torch.testing.assert_close(losses.double(), expected * (targets != -100), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(logits.double(), gradient * shares[:, None], rtol=2 * BOUND[dtype], atol=1e-7)


def test_logits_stay_if_no_gradient_is_wanted():
    logits, targets, shares = rows(4, 300, torch.float32)
    before = logits.clone()
    cross_entropy_triton.losses_and_gradient(logits, targets, shares, -100, False)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("level", [-3e4, 3e4])
def test_logits_far_from_zero_neither_overflow_nor_vanish(level):
    logits, targets, shares = rows(2, 300, torch.float32, spread=100.0)
    logits += level
    expected = -torch.log_softmax(logits.double(), 1).gather(1, targets[:, None])[:, 0]
    losses = cross_entropy_triton.losses_and_gradient(logits, targets, shares, -100, True)
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-2)
    assert logits.isfinite().all()


@pytest.mark.parametrize("every", [(slice(None), slice(None, None, 2)), (slice(None, 1), slice(None, None, 3))])
def test_targets_may_be_any_view(every):
    targets = torch.randint(300, (4, 12))[every]
    hidden, weight = torch.randn(*targets.shape, 32), torch.randn(300, 32)
    ours, _ = linear_cross_entropy(hidden, weight, targets)
    plain, _ = plain_linear_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("target", [-1, 300])
def test_the_loss_of_a_target_that_is_no_id_is_not_a_number(target):
    logits, targets, shares = rows(3, 300, torch.float32)
    targets[1] = target
    losses = cross_entropy_triton.losses_and_gradient(logits, targets, shares, -100, True)
    assert losses.isnan().tolist() == [False, True, False]


def test_rows_beyond_32_bits_are_found():
    stride = 2**30 + 16
    memory = torch.empty(3 * stride + 304, dtype=torch.bfloat16)  # 6 GB, of which a few pages are touched
    logits = memory.as_strided((4, 300), (stride, 1))
    values, targets, shares = rows(4, 300, torch.bfloat16)
    logits.copy_(values)
    apart = cross_entropy_triton.losses_and_gradient(logits, targets, shares, -100, True)
    assert torch.equal(apart, cross_entropy_triton.losses_and_gradient(values, targets, shares, -100, True))
    assert torch.equal(logits, values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operator_matches_float64_as_closely_as_pytorch_s_own(dtype):
    case = random_case((2, 33), 301, ignored=0.2)
    ours, theirs = errors(linear_cross_entropy, case, dtype), errors(plain_linear_cross_entropy, case, dtype)
    assert all(error < 1.1 * other + 1e-6 for error, other in zip(ours, theirs, strict=True)), (ours, theirs)


def test_the_operator_keeps_its_promises_to_pytorch():
    hidden, weight, targets = random_case((5,), 33, ignored=0.3)
    leaves = hidden.requires_grad_(), weight.requires_grad_()
    torch.library.opcheck(loss_operator, (*leaves, targets, None, -100, torch.float32, True))
