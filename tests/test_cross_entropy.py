"""Linear + cross-entropy by chunks against float64; the kernel's own tests are in triton_kernels.py."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

import evaluate
from kernels import cross_entropy
from kernels.cross_entropy import (
    FP16_SCALE,
    chunk_tokens,
    linear_cross_entropy,
    loss_operator,
    plain_linear_cross_entropy,
)
from model import GPT, Size

BF16, FP32 = torch.bfloat16, torch.float32
BOUND = {FP32: 1e-5, BF16: 2e-2, torch.float16: 1e-3}
TINY = Size(layers=1, width=32, heads=2, head_dim=16)


def random_case(shape, vocabulary, width=24, seed=0, device="cpu"):
    """Hidden states, weight and targets, with logits between about -3 and 3."""
    torch.manual_seed(seed)
    weight = torch.randn(vocabulary, width, device=device) / width**0.5
    hidden, targets = torch.randn(*shape, width, device=device), torch.randint(vocabulary, shape)
    return hidden, weight, targets.to(device)


def reference(hidden, weight, targets):
    """Mean, losses, and the mean's gradients by hidden states and weight: exponentials, no autograd."""
    hidden, weight, answers = hidden.double(), weight.double(), targets[..., None]
    logits = hidden @ weight.mT
    normaliser = logits.logsumexp(-1, keepdim=True)
    losses = (normaliser - logits.gather(-1, answers))[..., 0]
    gradient = (logits - normaliser).exp()
    gradient = gradient.scatter_add(-1, answers, -torch.ones_like(normaliser)) / targets.numel()
    d_weight = gradient.flatten(0, -2).mT @ hidden.flatten(0, -2)
    return [losses.mean(), losses, gradient @ weight, d_weight]


def results(function, case, dtype=FP32):
    """What `function` makes of a case, in the order of `reference`, with matrix products in `dtype`."""
    hidden, weight = (x.detach().requires_grad_() for x in case[:2])
    with torch.autocast(hidden.device.type, dtype, enabled=dtype != FP32):
        mean, losses = function(hidden, weight, case[2])
    mean.backward()
    return [mean.detach(), losses.detach(), hidden.grad, weight.grad]


def errors(function, case, dtype=FP32):
    """Relative errors of the four results."""
    pairs = zip(results(function, case, dtype), reference(*case), strict=True)
    return [((ours.double() - exact).norm() / exact.norm()).item() for ours, exact in pairs]


def skip_what_lacks(dtype, device):
    """A T4 only pretends to have bf16."""
    if device.type == "cuda" and dtype == BF16 and not torch.cuda.is_bf16_supported(False):
        pytest.skip("this GPU has no bf16")


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of 16 tokens and blocks of few rows, so that small inputs take several; returns their rows."""
    monkeypatch.setitem(cross_entropy.LIMITS, "cpu", cross_entropy.Limits(1, 1, 20_000))
    monkeypatch.setitem(cross_entropy.LIMITS, "cuda", cross_entropy.Limits(1, 16, 20_000))
    monkeypatch.setattr(cross_entropy, "CHUNK_TOKENS", 16)
    rows, original = [], cross_entropy.losses_and_gradient

    def counted(logits, *others):
        rows.append(len(logits))
        original(logits, *others)

    monkeypatch.setattr(cross_entropy, "losses_and_gradient", counted)
    return rows


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize(
    ("shape", "vocabulary"), [((3, 5), 2), ((2, 31), 1000), ((50,), 4097), ((1025,), 33)]
)
def test_results_match_float64_as_closely_as_pytorch_s_own(device, dtype, shape, vocabulary, small_chunks):
    skip_what_lacks(dtype, device)
    cases = [random_case(shape, vocabulary, seed=seed, device=device) for seed in range(4)]
    ways = linear_cross_entropy, plain_linear_cross_entropy
    ours, theirs = (np.mean([errors(way, case, dtype) for case in cases], axis=0) for way in ways)
    assert (ours < BOUND[dtype]).all(), ours
    if device.type == "cpu":
        # What few numbers are rounded to is a matter of luck.
        assert (ours < (4.0 if vocabulary == 2 else 1.1) * theirs + 1e-6).all(), (ours, theirs)
    assert max(small_chunks) <= 16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize(("tokens", "vocabulary"), [(2000, 29_317), (600, 163_840)])
def test_sizes_of_a_gpu_match_float64_with_the_same_bits_again(
    device, monkeypatch, dtype, tokens, vocabulary
):
    skip_what_lacks(dtype, device)
    monkeypatch.setattr(cross_entropy, "CHUNK_TOKENS", 256)
    monkeypatch.setitem(cross_entropy.LIMITS, "cuda", cross_entropy.Limits(2**26, 256, 2**28))
    case = random_case((tokens,), vocabulary, width=768, device=device)  # 3 GB with the float64 reference
    assert max(errors(linear_cross_entropy, case, dtype)) < {FP32: 8e-5, BF16: 2.4e-2}.get(dtype, 4e-3)
    once, twice = (results(linear_cross_entropy, case, dtype) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(once, twice, strict=True))


def test_inputs_need_not_be_contiguous(small_chunks):
    hidden, weight, targets = random_case((6, 2, 9), 50, width=48)
    strided = hidden[:, 1, :, ::2], weight.mT[::2].mT, targets[:, 1].mT.contiguous().mT
    assert max(errors(linear_cross_entropy, strided)) < 1e-5


def test_a_loss_whose_probability_underflows_is_exact():
    """Logits in the hundreds: exp(-loss) is 0 in float32, the loss must not be infinite."""
    hidden, *rest = random_case((20,), 30)
    case = 200 * hidden, *rest
    assert results(linear_cross_entropy, case)[1].max() > 150
    ours, theirs = errors(linear_cross_entropy, case), errors(plain_linear_cross_entropy, case)
    assert all(one < 1.5 * other + 1e-5 for one, other in zip(ours, theirs, strict=True)), (ours, theirs)


def test_fp16_does_not_lose_the_gradient_of_unlikely_ids():
    """Ids of another language, of probability 1e-8, beside fp16's smallest number, 6e-8."""
    logits = torch.randn(4, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits[:, 100:] -= 15
    exact, found = logits.softmax(1)[:, 100:], logits.half()
    losses, targets = torch.empty(4), torch.arange(4)
    cross_entropy.losses_and_gradient(found, targets, losses, FP16_SCALE, True)
    assert exact.max() < 6e-8
    torch.testing.assert_close(found[:, 100:].double() / FP16_SCALE, exact, rtol=0.05, atol=6e-8 / FP16_SCALE)


def test_gradients_come_in_the_types_of_the_inputs():
    case = random_case((8,), 40)
    assert [x.dtype for x in results(linear_cross_entropy, case, BF16)] == [FP32] * 4
    short = case[0].bfloat16(), case[1].bfloat16(), case[2]  # what mixed precision of FSDP hands over
    assert [x.dtype for x in results(linear_cross_entropy, short)] == [FP32] * 2 + [BF16] * 2


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradients_that_nobody_wants_are_not_computed(context, monkeypatch):
    hidden, weight, targets = random_case((8,), 40)
    expected = results(linear_cross_entropy, (hidden, weight, targets))[:2]
    monkeypatch.setattr(cross_entropy, "add_product", lambda *_: pytest.fail("a gradient was computed"))
    weight.requires_grad_(context is not torch.enable_grad)
    with context():
        found = linear_cross_entropy(hidden, weight, targets)
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


@pytest.mark.parametrize("target", [-1, 40])
def test_a_target_that_is_no_id_is_refused(target):
    hidden, weight, targets = random_case((8,), 40)
    targets[3] = target
    with pytest.raises(RuntimeError, match="out of bounds"):
        linear_cross_entropy(hidden, weight, targets)


@pytest.mark.parametrize("wanted", [True, False])
def test_the_operator_keeps_its_promises_to_pytorch(wanted):
    hidden, weight, targets = random_case((7,), 33)
    leaves = hidden.requires_grad_(wanted), weight.requires_grad_(wanted)
    torch.library.opcheck(loss_operator, (*leaves, targets, BF16, wanted))


@given(
    tokens=st.integers(1, 10**6), vocabulary=st.integers(1, 200_000), name=st.sampled_from(["cpu", "cuda"])
)
def test_chunks_are_even_and_as_large_as_memory_allows(tokens, vocabulary, name):
    with FakeTensorMode():  # knows devices by name
        size = chunk_tokens(tokens, vocabulary, torch.empty(0, dtype=BF16, device=name))
    limit = cross_entropy.LIMITS[name]
    most = max(cross_entropy.CHUNK_TOKENS, limit.chunk // (vocabulary * 2))
    assert 1 <= size <= min(tokens, most + limit.multiple)
    assert size == tokens or size % limit.multiple == 0
    chunks = -(-tokens // size)
    assert tokens > (chunks - 1) * most  # no more chunks than needed


def test_every_device_that_a_run_may_name_has_its_row_in_each_table():
    assert evaluate.BATCH_TOKENS.keys() == evaluate.ARITHMETIC.keys() == cross_entropy.LIMITS.keys()


def test_a_model_compiles_without_a_break():
    torch.manual_seed(0)
    model = GPT(TINY, vocabulary=90, length=16)
    tokens, targets = torch.randint(90, (2, 4, 16))
    gradients = []
    for forward in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        with torch.autocast("cpu", BF16):
            mean, losses = forward(tokens, targets)
        assert losses.shape == (4, 16)
        assert not losses.requires_grad
        mean.backward()
        gradients.append([mean.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
        model.zero_grad()
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-4)
