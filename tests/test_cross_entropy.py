"""Linear + cross-entropy by chunks: values and gradients against float64, and that a model learns the same with it."""

import numpy as np
import pytest
import torch
from cross_entropy_reference import Case, errors, random_case, results
from hypothesis import given
from hypothesis import strategies as st
from interpreter import run_interpreted
from torch import nn

from kernels import cross_entropy
from kernels.cross_entropy import (
    chunk_tokens,
    linear_cross_entropy,
    linear_cross_entropy_losses,
    loss_operator,
    losses_operator,
    plain_linear_cross_entropy,
)
from model import GPT, Size

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
BOUND = {torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.float16: 1e-3}
TINY = Size(layers=1, width=32, heads=2, head_dim=16, mlp=64)


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of 16 tokens and blocks of few rows, so that small inputs take several; returns the rows of each chunk."""
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", dict.fromkeys(cross_entropy.CHUNK_BYTES, 1))
    monkeypatch.setattr(cross_entropy, "CHUNK_TOKENS", 16)
    monkeypatch.setattr(cross_entropy, "CACHE_BYTES", 20_000)
    rows, original = [], cross_entropy.losses_and_gradient
    monkeypatch.setattr(cross_entropy, "losses_and_gradient", lambda *a: rows.append(len(a[0])) or original(*a))
    return rows


def test_the_kernel_interpreted():
    run_interpreted("interpreted_cross_entropy.py")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("shape", "vocabulary"), [((1,), 7), ((3, 5), 2), ((2, 31), 1000), ((50,), 4097), ((1025,), 33)])
def test_results_match_float64_as_closely_as_pytorch_s_own(device, dtype, shape, vocabulary, small_chunks):
    cases = [random_case(shape, vocabulary, ignored=0.2, device=device) for _ in range(4)]
    ways = linear_cross_entropy, plain_linear_cross_entropy
    ours, theirs = (np.mean([errors(way, case, dtype) for case in cases], axis=0) for way in ways)
    # What few numbers are rounded to is a matter of luck.
    bound, slack = (BOUND[dtype], 1.1) if cases[0].targets.numel() > 16 else (5 * BOUND[dtype], 4.0)
    assert (ours < bound).all(), ours
    assert (ours < slack * theirs + 1e-6).all(), (ours, theirs)
    assert max(small_chunks) <= 16


@pytest.mark.parametrize("device", DEVICES)
def test_one_id_leaves_nothing_to_learn(device):
    case = random_case((9,), 1, device=device)
    assert [x.abs().max().item() for x in results(linear_cross_entropy, case, torch.float32)] == [0, 0, 0, 0]


@pytest.mark.parametrize("device", DEVICES)
def test_if_no_target_counts_mean_and_gradients_are_zero(device):
    case = random_case((9,), 40, ignored=1.0, device=device)
    assert [x.abs().max().item() for x in results(linear_cross_entropy, case, torch.float32)] == [0, 0, 0, 0]


def test_another_target_can_be_ignored():
    case = random_case((40,), 5)
    assert (case.targets == 3).any()
    assert max(errors(linear_cross_entropy, case, torch.float32, ignored=3)) < 1e-5


def test_inputs_need_not_be_contiguous(small_chunks):
    case = random_case((6, 2, 9), 50, width=48)
    strided = Case(case.hidden[:, 1, :, ::2], case.weight.mT[::2].mT, case.targets[:, 1].mT.contiguous().mT)
    assert max(errors(linear_cross_entropy, strided, torch.float32)) < 1e-5


def test_a_loss_whose_probability_underflows_is_exact():
    """Logits in the hundreds: exp(-loss) is 0 in float32, the loss must not be infinite."""
    case = random_case((20,), 30)
    case = case._replace(hidden=200 * case.hidden)
    ours, theirs = errors(linear_cross_entropy, case, torch.float32), errors(plain_linear_cross_entropy, case, torch.float32)
    assert results(linear_cross_entropy, case, torch.float32)[1].max() > 150
    assert all(error < 1.5 * other + 1e-5 for error, other in zip(ours, theirs, strict=True)), (ours, theirs)


@pytest.mark.parametrize("function", [lambda *a: linear_cross_entropy(*a)[0], linear_cross_entropy_losses])
def test_gradients_are_those_of_finite_differences(function, small_chunks):
    case = random_case((19,), 11, width=5, ignored=0.3)
    leaves = [x.double().requires_grad_() for x in case[:2]]
    torch.autograd.gradcheck(lambda hidden, weight: function(hidden, weight, case.targets), leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_loss_can_count_differently(dtype, small_chunks):
    case, counts = random_case((3, 19), 200, ignored=0.2), torch.randn(3, 19) * 1e-3

    def weighted(function):
        def mean_and_losses(*inputs):
            losses = function(*inputs)
            return (losses * counts).sum(), losses

        return mean_and_losses

    plain = weighted(lambda *inputs: plain_linear_cross_entropy(*inputs)[1])
    exact = results(plain, Case(case.hidden.double(), case.weight.double(), case.targets), torch.float64)
    for ours, other in zip(results(weighted(linear_cross_entropy_losses), case, dtype), exact, strict=True):
        assert (ours - other).norm() < BOUND[dtype] * max(other.norm(), 1e-2)


def test_gradients_come_in_the_types_of_the_inputs():
    case = random_case((8,), 40)
    assert [x.dtype for x in results(linear_cross_entropy, case, torch.bfloat16)] == [torch.float32] * 4
    short = Case(case.hidden.bfloat16(), case.weight.bfloat16(), case.targets)  # what mixed precision of FSDP hands over
    assert [x.dtype for x in results(linear_cross_entropy, short, torch.float32)] == [torch.float32] * 2 + [torch.bfloat16] * 2


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradients_that_nobody_wants_are_not_computed(context, monkeypatch):
    case = random_case((8,), 40)
    expected = results(linear_cross_entropy, case, torch.float32)[:2]
    monkeypatch.setattr(cross_entropy, "add_product", lambda *_: pytest.fail("a gradient was computed"))
    weight = case.weight.requires_grad_(context is not torch.enable_grad)
    with context():
        found = linear_cross_entropy(case.hidden, weight, case.targets)
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


@pytest.mark.parametrize("target", [-1, 40])
def test_a_target_that_is_no_id_is_refused(target):
    case = random_case((8,), 40)
    case.targets[3] = target
    with pytest.raises(RuntimeError, match="out of bounds"):
        linear_cross_entropy(*case)


@pytest.mark.parametrize("device", DEVICES)
def test_a_second_time_gives_the_same_bits_and_so_does_a_second_backward(device):
    case = random_case((300,), 500, device=device)
    first, second = (results(linear_cross_entropy, case, torch.bfloat16) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))
    leaf = case.hidden.requires_grad_()
    mean, _ = linear_cross_entropy(leaf, case.weight, case.targets)
    once, twice = (torch.autograd.grad(mean, leaf, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(once, twice)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_keep_their_promises_to_pytorch(device, dtype):
    hidden, weight, targets = random_case((7,), 33, ignored=0.3, device=device)
    shares = torch.rand(7, device=device)
    for leaves in ((hidden, weight), (hidden.clone().requires_grad_(), weight.clone().requires_grad_())):
        for given_shares, wanted in ((None, False), (None, True), (shares, True)):
            if wanted == leaves[0].requires_grad:
                torch.library.opcheck(loss_operator, (*leaves, targets, given_shares, -100, dtype, wanted))
        torch.library.opcheck(losses_operator, (*leaves, targets, -100, dtype))


@given(tokens=st.integers(1, 10**6), vocabulary=st.integers(1, 200_000), device=st.sampled_from(["cpu", "cuda"]))
def test_chunks_are_even_and_as_large_as_memory_allows(tokens, vocabulary, device):
    like = torch.empty(0, dtype=torch.bfloat16, device="meta")
    limit = cross_entropy.CHUNK_BYTES[device]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy, "CHUNK_BYTES", {"meta": limit})
        size = chunk_tokens(tokens, vocabulary, like)
    assert 1 <= size <= tokens
    assert size <= cross_entropy.CHUNK_TOKENS or size * vocabulary * 2 <= limit
    chunks = -(-tokens // size)
    assert tokens > (chunks - 1) * max(cross_entropy.CHUNK_TOKENS, limit // (vocabulary * 2))  # no more chunks than needed


# --- in a model ---------------------------------------------------------------------------------------------------------


class PlainGPT(GPT):
    """The model with the plain loss."""

    def forward(self, tokens, targets):
        return plain_linear_cross_entropy(self.hidden(tokens), self.output.weight, targets)


def learn(kind: type[nn.Module], steps: int) -> list[float]:
    """The losses of a few steps of Adam, the same data for all."""
    torch.manual_seed(0)
    model = kind(TINY, vocabulary=600, length=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    curve = []
    for _ in range(steps):
        windows = torch.randint(60, (8, 17)) ** 2 % 600
        mean, _ = model(windows[:, :-1], windows[:, 1:])
        mean.backward()
        optimizer.step()
        optimizer.zero_grad()
        curve.append(mean.item())
    return curve


def test_a_model_learns_as_with_the_plain_loss(small_chunks):
    ours, plain = learn(GPT, 50), learn(PlainGPT, 50)
    assert plain[-1] < plain[0] - 2
    assert ours == pytest.approx(plain, abs=1e-4)
    assert max(small_chunks) == 16


def test_a_model_compiles_without_a_break():
    torch.manual_seed(0)
    model = GPT(TINY, vocabulary=90, length=16)
    tokens, targets = torch.randint(90, (2, 4, 16))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    gradients = []
    for forward in (model, compiled):
        with torch.autocast("cpu", torch.bfloat16):
            mean, losses = forward(tokens, targets)
        assert losses.shape == (4, 16)
        assert not losses.requires_grad
        mean.backward()
        gradients.append([mean.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
        model.zero_grad()
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-4)
