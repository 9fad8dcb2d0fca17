"""The kernels on a CPU, interpreted, against float64: test_attention.py runs this file in its own process.

Triton decides when a kernel is defined whether it will be compiled or interpreted.
"""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from test_attention import errors, random_inputs, results
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from kernels import attention, cross_entropy, triton_runs
from model import GPT, Size

BOUND = {torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.float16: 1e-3}


@pytest.fixture(autouse=True)
def _same_inputs():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _rounded_bfloat16(monkeypatch):
    """bfloat16 as on GPUs: the interpreter multiplies bit patterns, and truncates where they round."""
    dot, cast = InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl

    def exact_dot(self, left, right, *rest):
        sides = (cast(self, x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in (left, right))
        return dot(self, *sides, *rest)

    def rounding_cast(self, source, target):
        if (source.dtype.scalar, target.scalar) != (tl.float32, tl.bfloat16):
            return cast(self, source, target)
        rounded = torch.from_numpy(np.ascontiguousarray(source.data)).bfloat16()
        return TensorHandle(rounded.view(torch.uint16).numpy(), tl.bfloat16)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", exact_dot)
    monkeypatch.setattr(InterpreterBuilder, "cast_impl", rounding_cast)


# --- attention ----------------------------------------------------------------------------------------------


# One block and less, several with a tail, several whole ones; the rows of the settings that an A100 has.
@pytest.mark.parametrize(
    ("dtype", "head_dim", "time"),
    [
        (torch.float32, 64, 31), (torch.float32, 64, 64), (torch.float32, 32, 130), (torch.float32, 96, 37),
        (torch.bfloat16, 64, 40), (torch.bfloat16, 64, 256), (torch.bfloat16, 32, 150),
        (torch.bfloat16, 128, 129), (torch.float16, 64, 150),
    ],
)  # fmt: skip
def test_attention_matches_float64_as_closely_as_pytorch_s_own(dtype, head_dim, time):
    inputs = random_inputs(time, head_dim, dtype)
    ours, theirs = errors(attention.triton_attention, *inputs), errors(attention.sdpa_attention, *inputs)
    assert max(ours) < BOUND[dtype]
    if dtype == torch.bfloat16:
        assert all(one < 1.1 * other for one, other in zip(ours, theirs, strict=True)), (ours, theirs)


def test_a_single_token_attends_to_itself():
    qkv, grad_out = random_inputs(1, 64, torch.bfloat16)
    out, *gradients = results(attention.triton_attention, qkv, grad_out)
    assert torch.equal(out, qkv[:, :, 2].double())
    for gradient, expected in zip(gradients, (0, 0, grad_out.double()), strict=True):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient) + expected, rtol=5e-3, atol=5e-3)


def test_scores_far_apart_neither_overflow_nor_vanish():
    qkv, grad_out = random_inputs(70, 32, torch.float32)
    qkv *= 30  # scores in the hundreds, whose rounding the exponential magnifies
    ours, theirs = (
        errors(function, qkv, grad_out) for function in (attention.triton_attention, attention.sdpa_attention)
    )
    assert all(one < 3 * other + 1e-5 for one, other in zip(ours, theirs, strict=True)), (ours, theirs)


def test_inputs_need_not_be_contiguous():
    qkv, grad_out = random_inputs(40, 32, torch.float32, heads=4)
    strided = qkv[:, :, :, ::2].transpose(0, 1).contiguous().transpose(0, 1)
    spread = grad_out[:, :1, :2].expand(-1, 40, -1, -1)
    assert max(errors(attention.triton_attention, strided, spread)) < 1e-5


def test_an_empty_batch_has_an_empty_gradient():
    inputs = random_inputs(8, 32, torch.float32, batch=0)
    assert [x.numel() for x in results(attention.triton_attention, *inputs)] == [0, 0, 0, 0]


@triton.jit
def locate_kernel(offsets, pairs, heads, time, SIZE: tl.constexpr):
    places = tl.arange(0, SIZE)
    tl.store(offsets + places, attention.locate(tl.load(pairs + places), heads, time, 3, 64))


def test_offsets_beyond_32_bits_do_not_wrap():
    batch, heads, time = 4096, 12, 512
    pairs = torch.tensor([0, 13, batch * heads - 1, batch * heads // 2], dtype=torch.int32)
    offsets = torch.zeros(4, dtype=torch.int64)
    locate_kernel[(1,)](offsets, pairs, heads, time, 4)
    expected = [pair // heads * time * 3 * heads * 64 + pair % heads * 64 for pair in pairs.tolist()]
    assert max(expected) > 2**31
    assert offsets.tolist() == expected


def test_the_operators_keep_their_promises_to_pytorch():
    qkv = torch.randn((1, 5, 3, 2, 32), requires_grad=True)
    torch.library.opcheck(attention.attention_operator, (qkv,))
    with torch.no_grad():
        out, logsumexp = attention.attention_operator(qkv)
        inputs = torch.randn_like(out), qkv, out, logsumexp
        torch.library.opcheck(attention.attention_backward_operator, inputs)


def test_asking_the_driver_does_not_break_a_graph():
    triton_runs.cache_clear()
    ask = torch.compile(
        lambda x: x + (attention.fastest_on_gpu(x.device, x.dtype, 64) == "triton"),
        fullgraph=True,
        backend="eager",
    )
    assert ask(torch.zeros(1)) == 1


@pytest.mark.parametrize(("positions", "tied"), [("learned", False), ("rotary", True)])
def test_a_model_with_all_kernels_compiles_without_a_break_and_learns_the_same(monkeypatch, positions, tied):
    size = Size(layers=1, width=48, heads=2, head_dim=32, mlp=96, positions=positions, tied=tied)
    gpt = GPT(size, vocabulary=100, length=24)
    tokens, targets = torch.randint(100, (2, 2, 24))

    def gradients(model):
        gpt.zero_grad()
        model(tokens, targets)[0].backward()
        return [parameter.grad.clone() for parameter in gpt.parameters()]

    monkeypatch.setattr(attention, "chosen", "triton")
    ours = gradients(torch.compile(gpt, fullgraph=True, backend="aot_eager"))
    monkeypatch.setattr(attention, "chosen", "plain")
    monkeypatch.setattr(cross_entropy, "triton_runs", lambda device: False)
    for one, other in zip(ours, gradients(gpt), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


# --- cross-entropy ------------------------------------------------------------------------------------------


def rows(number: int, vocabulary: int, dtype: torch.dtype, spread: float = 2.0):
    """Logits in rows that begin at multiples of 16, and targets."""
    padded = torch.full((number, -(-vocabulary // 16) * 16), torch.nan, dtype=dtype)
    padded[:, :vocabulary] = torch.randn(number, vocabulary) * spread
    return padded[:, :vocabulary], torch.randint(vocabulary, (number,))


def losses_of(logits, targets, scale=1.0, wanted=True):
    """The kernel's losses; the logits become scale * G."""
    losses = torch.empty(len(logits))
    cross_entropy.losses_and_gradient(logits, targets, losses, scale, wanted)
    return losses


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("vocabulary", [1, 7, 300, 5000, 20_000])
def test_losses_and_gradients_match_float64(dtype, vocabulary):
    logits, targets = rows(3, vocabulary, dtype)
    targets[1] = vocabulary - 1
    exact = logits.double()
    losses = losses_of(logits, targets, scale=8.0)
    expected = torch.nn.functional.cross_entropy(exact, targets, reduction="none")
    torch.testing.assert_close(losses.double(), expected, rtol=1e-6, atol=1e-6)
    gradient = exact.softmax(1) - torch.nn.functional.one_hot(targets, vocabulary)
    torch.testing.assert_close(logits.double(), 8 * gradient, rtol=max(1e-5, BOUND[dtype]), atol=1e-6)


def test_logits_stay_if_no_gradient_is_wanted():
    logits, targets = rows(4, 300, torch.float32)
    before = logits.clone()
    losses_of(logits, targets, wanted=False)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("level", [-3e4, 3e4])
def test_logits_far_from_zero_neither_overflow_nor_vanish(level):
    logits, targets = rows(2, 300, torch.float32, spread=100.0)
    logits += level
    expected = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="none")
    torch.testing.assert_close(losses_of(logits, targets).double(), expected, rtol=1e-5, atol=1e-2)
    assert logits.isfinite().all()


@pytest.mark.parametrize("target", [-1, 300])
def test_the_loss_of_a_target_that_is_no_id_is_not_a_number(target):
    logits, targets = rows(3, 300, torch.float32)
    targets[1] = target
    assert losses_of(logits, targets).isnan().tolist() == [False, True, False]


def test_rows_beyond_32_bits_are_found():
    stride = 2**30 + 16
    memory = torch.empty(3 * stride + 304, dtype=torch.bfloat16)  # 6 GB, of which a few pages are touched
    logits = memory.as_strided((4, 300), (stride, 1))
    values, targets = rows(4, 300, torch.bfloat16)
    logits.copy_(values)
    assert torch.equal(losses_of(logits, targets), losses_of(values, targets))
    assert torch.equal(logits, values)


@pytest.mark.parametrize(("rows", "step"), [(4, 2), (1, 3)])
def test_targets_may_be_any_view(rows, step):
    targets = torch.randint(300, (4, 12))[:rows, ::step]
    inputs = torch.randn(*targets.shape, 32), torch.randn(300, 32), targets
    plain = cross_entropy.plain_linear_cross_entropy(*inputs)
    torch.testing.assert_close(cross_entropy.linear_cross_entropy(*inputs), plain)
