"""The kernels against float64: on a GPU where there is one, at its sizes, else interpreted on a CPU.

test_attention.py runs this file in a process of its own, as Triton decides when a kernel is defined whether
it will be compiled or interpreted. On a GPU: python -m pytest tests/triton_kernels.py
"""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from test_attention import errors, random_inputs, results
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from kernels import DEVICES, attention, cross_entropy, triton_runs
from model import GPT, Size

INTERPRETED = "cpu" in DEVICES
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
FP32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16
BOUND = {FP32: 1e-5, BF16: 5e-3 if INTERPRETED else 6e-3, FP16: 1e-3}
pytestmark = pytest.mark.skipif(not triton_runs(DEVICE), reason="Triton kernels do not run on this device")
if INTERPRETED:
    torch.set_num_threads(1)  # Triton's interpreter is not made for several


@pytest.fixture(autouse=True)
def _same_inputs():
    torch.manual_seed(0)


@pytest.fixture(autouse=INTERPRETED)
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


def inputs(time, head_dim, dtype=FP32, batch=1, heads=2):
    """Queries, keys and values, and a gradient, on the device; a GPU's kernels take 16-bit types alone."""
    dtype = BF16 if dtype == FP32 and not INTERPRETED else dtype
    return [x.to(DEVICE) for x in random_inputs(time, head_dim, dtype, batch, heads)]


# One block and less, several with a tail, several whole ones; interpreted, the rows that an A100 has.
if INTERPRETED:
    CASES = [
        (FP32, 64, 31), (FP32, 64, 64), (FP32, 32, 130), (FP32, 96, 37), (BF16, 64, 40), (BF16, 64, 256),
        (BF16, 32, 150), (BF16, 128, 129), (FP16, 64, 150),
    ]  # fmt: skip
else:
    LENGTHS = (31, 257, 500, 512)
    CASES = [(dtype, dim, time) for dtype in (BF16, FP16) for dim in (32, 64, 96, 128) for time in LENGTHS]


@pytest.mark.parametrize(("dtype", "head_dim", "time"), CASES)
def test_attention_matches_float64_as_closely_as_pytorch_s_own(dtype, head_dim, time):
    case = inputs(time, head_dim, dtype)
    ours, theirs = errors(attention.triton_attention, *case), errors(attention.sdpa_attention, *case)
    assert max(ours) < BOUND[dtype]
    if dtype == BF16 and INTERPRETED:
        assert all(one < 1.1 * other for one, other in zip(ours, theirs, strict=True)), (ours, theirs)


@pytest.mark.parametrize("head_dim", [32] if INTERPRETED else [32, 64, 96, 128])
def test_a_full_grid_gives_the_same_bits_again_and_its_last_sequence_those_of_it_alone(head_dim):
    batch, time, heads = (2, 40, 1) if INTERPRETED else (32, 512, 12)
    case = inputs(time, head_dim, BF16, batch, heads)
    once, twice = (results(attention.triton_attention, *case) for _ in range(2))
    alone = results(attention.triton_attention, *(x[-1:].contiguous() for x in case))
    for one, other, last in zip(once, twice, alone, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one[-1:], last)


def test_a_single_token_attends_to_itself():
    qkv, grad_out = inputs(1, 64, BF16)
    out, *gradients = results(attention.triton_attention, qkv, grad_out)
    assert torch.equal(out, qkv[:, :, 2].double())
    for gradient, expected in zip(gradients, (0, 0, grad_out.double()), strict=True):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient) + expected, rtol=5e-3, atol=5e-3)


def test_scores_far_apart_neither_overflow_nor_vanish():
    qkv, grad_out = inputs(70, 32)
    qkv *= 30  # scores in the hundreds, whose rounding the exponential magnifies
    ours = errors(attention.triton_attention, qkv, grad_out)
    theirs = errors(attention.sdpa_attention, qkv, grad_out)
    assert all(one < 3 * other + 1e-5 for one, other in zip(ours, theirs, strict=True)), (ours, theirs)


def test_inputs_need_not_be_contiguous():
    qkv, grad_out = inputs(40, 32, heads=4)
    strided = qkv[:, :, :, ::2].transpose(0, 1).contiguous().transpose(0, 1)
    spread = grad_out[:, :1, :2].expand(-1, 40, -1, -1)
    assert max(errors(attention.triton_attention, strided, spread)) < BOUND[qkv.dtype]


@triton.jit
def locate_kernel(offsets, pairs, heads, time, SIZE: tl.constexpr):
    places = tl.arange(0, SIZE)
    tl.store(offsets + places, attention.locate(tl.load(pairs + places), heads, time, 3, 64))


def test_offsets_beyond_32_bits_do_not_wrap():
    batch, heads, time = 4096, 12, 512
    pairs = torch.tensor([0, 13, batch * heads - 1, batch * heads // 2], dtype=torch.int32, device=DEVICE)
    offsets = torch.zeros(4, dtype=torch.int64, device=DEVICE)
    locate_kernel[(1,)](offsets, pairs, heads, time, 4)
    expected = [pair // heads * time * 3 * heads * 64 + pair % heads * 64 for pair in pairs.tolist()]
    assert max(expected) > 2**31
    assert offsets.tolist() == expected


def test_the_operators_keep_their_promises_to_pytorch():
    qkv = inputs(5, 32)[0].requires_grad_()
    torch.library.opcheck(attention.attention_operator, (qkv,))
    with torch.no_grad():
        out, logsumexp = attention.attention_operator(qkv)
        backward = torch.randn_like(out), qkv, out, logsumexp
        torch.library.opcheck(attention.attention_backward_operator, backward)


def test_asking_the_driver_does_not_break_a_graph():
    triton_runs.cache_clear()
    ask = torch.compile(
        lambda x: x + (attention.fastest_on_gpu(x.device) == "triton"), fullgraph=True, backend="eager"
    )
    assert ask(torch.zeros(1, device=DEVICE)) == 1


@pytest.mark.parametrize(("positions", "tied"), [("learned", False), ("rotary", True)])
def test_a_model_with_all_kernels_compiles_and_learns_as_the_plain_one(monkeypatch, positions, tied):
    """Eager, and compiled block by block as train.py does, the same bits each time."""
    size = Size(layers=1, width=48, heads=2, head_dim=32, positions=positions, tied=tied)
    sequences, length, vocabulary, bound, backend = 2, 24, 100, 1e-4, "aot_eager"  # which needs no compiler
    if not INTERPRETED:
        size = Size(layers=4, width=768, heads=12, head_dim=64, positions=positions, tied=tied)
        sequences, length, vocabulary, bound, backend = 8, 512, 4096, 3e-2, "inductor"
    gpt = GPT(size, vocabulary, length).to(DEVICE)
    frequency = 1 / torch.arange(1.0, vocabulary + 1)  # words are not equally frequent
    windows = torch.multinomial(frequency, sequences * (length + 1), replacement=True)
    windows = windows.view(sequences, -1).to(DEVICE)

    def gradients():
        gpt.zero_grad()
        with torch.autocast(DEVICE.type, BF16, enabled=not INTERPRETED):
            mean, _ = gpt(windows[:, :-1], windows[:, 1:])
        mean.backward()
        return torch.cat([parameter.grad.flatten() for parameter in gpt.parameters()])

    monkeypatch.setattr(attention, "chosen", "triton")
    eager, again = gradients(), gradients()
    for block in gpt.blocks:
        block.compile(dynamic=False, fullgraph=True, backend=backend)
    compiled, compiled_again = gradients(), gradients()
    assert torch.equal(eager, again)
    assert torch.equal(compiled, compiled_again)
    torch._dynamo.reset()
    monkeypatch.setattr(attention, "chosen", "plain")
    monkeypatch.setattr(cross_entropy, "triton_runs", lambda device: False)
    exact = gradients()
    for found in (eager, compiled):
        assert (found - exact).norm() < bound * exact.norm()


def rows(number: int, vocabulary: int, dtype: torch.dtype, spread: float = 2.0):
    """Logits in rows that begin at multiples of 16, and targets."""
    shape = number, cross_entropy.round_up(vocabulary, 16)
    padded = torch.full(shape, torch.nan, dtype=dtype, device=DEVICE)
    padded[:, :vocabulary] = torch.randn(number, vocabulary, device=DEVICE) * spread
    return padded[:, :vocabulary], torch.randint(vocabulary, (number,), device=DEVICE)


def losses_of(logits, targets, scale=1.0, wanted=True):
    """The kernel's losses; the logits become scale * G."""
    losses = torch.empty(len(logits), device=DEVICE)
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


@pytest.mark.parametrize("level", [-3e4, 3e4])
def test_logits_far_from_zero_neither_overflow_nor_vanish(level):
    logits, targets = rows(2, 300, torch.float32, spread=100.0)
    logits += level
    expected = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="none")
    torch.testing.assert_close(losses_of(logits, targets).double(), expected, rtol=1e-5, atol=1e-2)
    assert logits.isfinite().all()


@pytest.mark.parametrize("target", [-1, 300])
def test_the_loss_of_a_target_that_is_no_id_is_not_a_number(target):
    logits, targets = rows(3, 300, FP32)
    targets[1] = target
    assert losses_of(logits, targets).isnan().tolist() == [False, True, False]


def test_rows_beyond_32_bits_are_found():
    stride = 2**30 + 16
    # 6 GB, of which a CPU touches a few pages.
    memory = torch.empty(3 * stride + 304, dtype=BF16, device=DEVICE)
    logits = memory.as_strided((4, 300), (stride, 1))
    values, targets = rows(4, 300, BF16)
    logits.copy_(values)
    assert torch.equal(losses_of(logits, targets), losses_of(values, targets))
    assert torch.equal(logits, values)
