"""Attention: every implementation against float64, which one runs where, and the Triton kernels, interpreted."""

from types import SimpleNamespace

import pytest
import torch
from interpreter import run_interpreted

import train
from kernels import attention


def test_the_kernels_interpreted():
    run_interpreted("interpreted_attention.py")


@pytest.mark.parametrize("time", [1, 2, 31, 128, 257])
@pytest.mark.parametrize("function", [attention.plain_attention, attention.sdpa_attention, attention.causal_attention])
def test_attention_matches_float64(time, function):
    qkv = torch.randn(2, time, 3, 3, 16, requires_grad=True)
    exact = qkv.detach().double().requires_grad_()
    weights = torch.randn(2, time, 3, 16)
    query, key, value = exact.permute(2, 0, 3, 1, 4)
    rows = [torch.softmax(query[:, :, t, None] @ key[:, :, : t + 1].mT / 4, -1) @ value[:, :, : t + 1] for t in range(time)]
    out, reference = function(qkv), torch.cat(rows, 2).transpose(1, 2)
    torch.testing.assert_close(out.double(), reference, rtol=1e-5, atol=1e-5)
    (out * weights).sum().backward()
    (reference * weights).sum().backward()
    torch.testing.assert_close(qkv.grad.double(), exact.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("capability", "dtype", "head_dim", "expected"),
    [
        ((9, 0), torch.bfloat16, 64, "triton"),
        ((8, 0), torch.float32, 128, "triton"),
        ((7, 5), torch.float16, 64, "sdpa"),  # no TF32, no bf16
        ((9, 0), torch.float64, 64, "sdpa"),
        ((9, 0), torch.bfloat16, 256, "sdpa"),
    ],
)
def test_gpus_run_the_kernels_where_there_are_some(monkeypatch, capability, dtype, head_dim, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
    qkv = SimpleNamespace(device=torch.device("cuda", 0), dtype=dtype, shape=(2, 512, 3, 4, head_dim))
    assert attention.fastest(qkv) == expected


def test_asking_the_driver_does_not_break_a_graph(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", torch.compiler.disable(lambda index: (9, 0)))
    asking = torch.compile(lambda x: x + 1 if attention.triton_runs("cuda", 0) else x, fullgraph=True, backend="eager")
    assert asking(torch.zeros(1)) == 1


@pytest.mark.parametrize(("time", "grad", "expected"), [(256, True, "plain"), (257, True, "sdpa"), (16, False, "sdpa")])
def test_cpus_hold_the_scores_of_short_sequences_in_training_only(time, grad, expected):
    with torch.set_grad_enabled(grad):
        assert attention.fastest(torch.empty(1, time, 3, 1, 32)) == expected


def test_without_a_gpu_the_kernels_are_refused_in_one_sentence(command, tiny):
    code, _, error = command(train.main, *tiny, "--attention", "triton")
    assert code == 2
    assert error.count("\n") == 1
    assert "--attention triton" in error
    assert "cpu" in error


def test_the_flag_decides_what_a_run_computes_with(command, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(attention, "chosen", None)
    called = set()
    spied = {name: lambda qkv, name=name: called.add(name) or attention.sdpa_attention(qkv) for name in attention.IMPLEMENTATIONS}
    monkeypatch.setattr(attention, "IMPLEMENTATIONS", spied)
    assert command(train.main, *tiny, "--attention", "sdpa", "--out", tmp_path / "run")[0] == 0
    assert called == {"sdpa"}  # left to itself, a CPU would take "plain"
