"""The attention kernels, interpreted, against float64 on the same inputs. test_attention.py runs this in its own process."""

import math

import pytest
import torch
import triton
import triton.language as tl
from interpreter import round_bfloat16

from kernels import attention, tune_attention
from kernels.attention_kernels import locate
from kernels.attention_triton import Tile
from model import GPT, Size

round_bfloat16()

BOUND = {torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.float16: 1e-3}


@pytest.fixture(autouse=True)
def _fresh_inputs():
    print("torch.manual_seed(", torch.seed(), ")")


def reference(qkv):
    """Attention in float64, written out."""
    query, key, value = qkv.double().permute(2, 0, 3, 1, 4)
    scores = query @ key.mT / math.sqrt(qkv.shape[-1])
    future = torch.ones(scores.shape[-2:]).triu(1).bool()
    return (scores.masked_fill(future, -math.inf).softmax(-1) @ value).transpose(1, 2)


def results(function, qkv, grad_out):
    """Output and gradients of queries, keys and values, in float64."""
    leaf = qkv.detach().requires_grad_()
    out = function(leaf)
    out.backward(grad_out.to(out.dtype))
    return [out.detach().double(), *leaf.grad.double().unbind(2)]


def errors(function, qkv, grad_out):
    """Relative errors of the four results."""
    pairs = zip(results(function, qkv, grad_out), results(reference, qkv, grad_out), strict=True)
    return [((ours - exact).norm() / exact.norm()).item() for ours, exact in pairs]


def random_inputs(time, head_dim, dtype, batch=2, heads=2):
    return torch.randn(batch, time, 3, heads, head_dim).to(dtype), torch.randn(batch, time, heads, head_dim).to(dtype)


@pytest.mark.parametrize(
    ("dtype", "head_dim", "time"),
    [
        # One block and less, several with a tail, several whole ones; every row of the table of settings that runs here.
        (torch.float32, 64, 31), (torch.float32, 64, 128), (torch.float32, 32, 130), (torch.float32, 96, 70),
        (torch.float32, 128, 33), (torch.bfloat16, 64, 40), (torch.bfloat16, 64, 256), (torch.bfloat16, 64, 200),
        (torch.bfloat16, 32, 300), (torch.bfloat16, 96, 150), (torch.bfloat16, 128, 129), (torch.float16, 64, 150),
    ],
)  # fmt: skip
def test_results_match_float64_as_closely_as_pytorch_s_own(dtype, head_dim, time):
    inputs = random_inputs(time, head_dim, dtype, batch=2 if time < 100 else 1)
    ours, theirs = errors(attention.triton_attention, *inputs), errors(attention.sdpa_attention, *inputs)
    assert all(error < BOUND[dtype] for error in ours), ours
    if dtype == torch.bfloat16:
        assert all(error < 1.1 * other for error, other in zip(ours, theirs, strict=True)), (ours, theirs)


@pytest.mark.parametrize("dtype", BOUND)
def test_a_single_token_attends_to_itself(dtype):
    qkv, grad_out = random_inputs(1, 64, dtype)
    out, *gradients = results(attention.triton_attention, qkv, grad_out)
    assert torch.equal(out, qkv[:, :, 2].double())
    torch.testing.assert_close(gradients[2], grad_out.double(), rtol=BOUND[dtype], atol=0)
    for gradient in gradients[:2]:
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=BOUND[dtype])


def test_scores_far_apart_neither_overflow_nor_vanish():
    qkv, grad_out = random_inputs(70, 32, torch.float32)
    qkv *= 30  # scores in the hundreds, whose rounding the exponential magnifies
    ours, theirs = errors(attention.triton_attention, qkv, grad_out), errors(attention.sdpa_attention, qkv, grad_out)
    assert all(error < 3 * other + 1e-5 for error, other in zip(ours, theirs, strict=True)), (ours, theirs)


def test_inputs_need_not_be_contiguous():
    qkv, grad_out = random_inputs(40, 32, torch.float32, heads=4)
    strided = qkv[:, :, :, ::2].transpose(0, 1).contiguous().transpose(0, 1)
    spread = grad_out[:, :1, :2].expand(-1, 40, -1, -1)
    assert max(errors(attention.triton_attention, strided, spread)) < 1e-5


def test_an_empty_batch_has_an_empty_gradient():
    qkv, grad_out = random_inputs(8, 32, torch.float32, batch=0)
    assert [x.numel() for x in results(attention.triton_attention, qkv, grad_out)] == [0, 0, 0, 0]


def test_types_without_kernels_are_refused():
    with pytest.raises(NotImplementedError, match=r"160 torch\.float32"):
        attention.triton_attention(torch.zeros(1, 4, 3, 1, 160))
    with pytest.raises(NotImplementedError, match="float64"):
        attention.triton_attention(torch.zeros(1, 4, 3, 1, 32).double())


@triton.jit
def locate_kernel(offsets, pairs, heads, time, SIZE: tl.constexpr):
    places = tl.arange(0, SIZE)
    tl.store(offsets + places, locate(tl.load(pairs + places), heads, time, 3, 64))


def test_offsets_beyond_32_bits_do_not_wrap():
    batch, heads, time = 4096, 12, 512
    pairs = torch.tensor([0, 13, batch * heads - 1, batch * heads // 2], dtype=torch.int32)
    offsets = torch.zeros(4, dtype=torch.int64)
    locate_kernel[(1,)](offsets, pairs, heads, time, 4)
    expected = [pair // heads * time * 3 * heads * 64 + pair % heads * 64 for pair in pairs.tolist()]
    assert max(expected) > 2**31
    assert offsets.tolist() == expected


@pytest.mark.parametrize("shape", [(2, 5, 3, 2, 32), (1, 33, 3, 1, 32)])
def test_operators_keep_their_promises_to_pytorch(shape):
    qkv = torch.randn(shape, requires_grad=True)
    torch.library.opcheck(torch.ops.nanobabel.attention.default, (qkv,))
    with torch.no_grad():
        out, logsumexp = torch.ops.nanobabel.attention(qkv)
        torch.library.opcheck(torch.ops.nanobabel.attention_backward.default, (torch.randn_like(out), qkv, out, logsumexp))


def test_a_model_with_them_compiles_without_a_break_and_learns_the_same(monkeypatch):
    gpt = GPT(Size(layers=2, width=48, heads=2, head_dim=32, mlp=96), vocabulary=100, length=24)
    tokens = torch.randint(100, (2, 24))

    def gradients(model, name):
        monkeypatch.setattr(attention, "chosen", name)
        gpt.zero_grad()
        model(tokens).square().mean().backward()
        return [parameter.grad.clone() for parameter in gpt.parameters() if parameter.grad is not None]

    compiled = torch.compile(gpt.hidden, fullgraph=True, backend="aot_eager")
    graphs = gradients(compiled, "triton")
    assert torch._dynamo.utils.counters["graph_break"] == {}
    for ours, exact in zip(graphs, gradients(gpt.hidden, "plain"), strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-4, atol=1e-6)


def test_tuning_tries_every_tile_and_keeps_the_fastest(monkeypatch):
    fastest = {"forward": (32, 16), "grad_query": (16, 16), "grad_key_value": (16, 32)}
    tried = []

    def pretend(calls, *_):
        launch = calls[""].__self__
        launch.run()
        tile = launch.arguments["QUERIES"], launch.arguments["KEYS"]
        kernel = launch.kernel.__name__.removesuffix("_kernel")
        tried.append((kernel, tile))
        return {"": 1.0 if tile == fastest[kernel] else 2.0}

    monkeypatch.setattr(tune_attention, "milliseconds", pretend)
    monkeypatch.setattr(tune_attention, "candidates", lambda kernel: [Tile(*one, 4, 2) for one in ((16, 16), fastest[kernel])])
    monkeypatch.setattr("kernels.bench_attention.TOKENS", 20)
    best = tune_attention.tune((1, 32), torch.float32, torch.device("cpu"), rounds=1, seconds=0.1)
    assert {name: tile[:2] for name, tile in best._asdict().items()} == fastest
    assert len(tried) == 6
