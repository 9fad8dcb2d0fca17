"""Attention: every implementation against float64, which one runs where; all Triton kernels, interpreted."""

import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import kernels
import train
from common import UserError
from kernels import attention

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Triton exists for Linux only")


def reference(qkv):
    """Attention in float64, written out."""
    query, key, value = qkv.double().permute(2, 0, 3, 1, 4)
    scores = query @ key.mT / math.sqrt(qkv.shape[-1])
    future = torch.ones(scores.shape[-2:], device=qkv.device).triu(1).bool()
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


def random_inputs(time, head_dim, dtype, batch=1, heads=2):
    """Queries, keys and values, and a gradient of the output."""
    qkv, grad_out = torch.randn(batch, time, 3, heads, head_dim), torch.randn(batch, time, heads, head_dim)
    return qkv.to(dtype), grad_out.to(dtype)


@LINUX
def test_the_kernels_on_a_gpu_or_interpreted():
    tests = Path(__file__).with_name("triton_kernels.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "ignore", tests]
    interpret = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        command, env=os.environ | interpret, cwd=tests.parents[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_triton_everything_is_plain():
    code = """
import sys; sys.modules["triton"] = None
import torch, kernels.attention, kernels.cross_entropy, model
gpt = model.GPT(model.Size(1, 32, 1, 32), 50, 8)
gpt(*torch.zeros(2, 1, 8, dtype=torch.long))[0].backward()
assert not kernels.triton_runs(torch.device("cpu")) and not kernels.DEVICES
"""
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=True)


@pytest.mark.parametrize("time", [1, 2, 31, 257])
@pytest.mark.parametrize("name", ["plain", "sdpa"])
def test_attention_matches_float64(device, name, time):
    torch.manual_seed(time)
    inputs = [x.to(device) for x in random_inputs(time, 16, torch.float32)]
    out, query, key, value = errors(attention.IMPLEMENTATIONS[name], *inputs)
    assert max(out, value) < 1e-5
    assert time == 1 or max(query, key) < 1e-5  # of a single token these gradients are zero


@pytest.fixture
def gpu(monkeypatch):
    """A GPU as far as `fastest` looks: call `gpu(capability)`, and with what its kernels do."""
    kernels.triton_runs.cache_clear()

    def pretend(capability, launch=lambda: None):
        class Kernel:
            def __getitem__(self, programs):
                return lambda cell: (cell.fill_(1), launch())

        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch, "zeros", lambda *shape, device: torch.ones(*shape))
        monkeypatch.setattr(kernels, "trial_kernel", Kernel())

    yield pretend
    kernels.triton_runs.cache_clear()


@LINUX
@pytest.mark.parametrize(("chip", "dtype", "head_dim", "expected"), [
    ((9, 0), torch.bfloat16, 64, "triton"),
    ((8, 0), torch.float32, 128, "sdpa"),  # PyTorch's is as fast
    ((7, 5), torch.float16, 64, "sdpa"),  # no bf16
    ((9, 0), torch.bfloat16, 256, "sdpa"),
])  # fmt: skip
def test_gpus_run_the_kernels_where_there_are_some(gpu, monkeypatch, chip, dtype, head_dim, expected):
    gpu(chip)
    qkv = SimpleNamespace(device=torch.device("cuda", 0), dtype=dtype, shape=(2, 512, 3, 4, head_dim))
    assert attention.fastest(qkv) == expected
    computed = []
    for name in attention.IMPLEMENTATIONS:
        monkeypatch.setitem(attention.IMPLEMENTATIONS, name, lambda qkv, name=name: computed.append(name))
    monkeypatch.setattr(attention, "chosen", "triton")  # by a flag, where they run
    attention.causal_attention(qkv)
    assert computed == ["triton" if dtype.itemsize == 2 and head_dim <= 128 else "sdpa"]


@LINUX
def test_a_gpu_without_a_compiler_goes_on_with_sdpa_and_says_so_once(gpu, capsys):
    def launch():
        raise RuntimeError("Failed to find C compiler.\nmore")

    gpu((9, 0), launch)
    device = torch.device("cuda", 0)
    assert [attention.fastest_on_gpu(device) for _ in range(2)] == ["sdpa"] * 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "so PyTorch's own kernels replace it (Failed to find C compiler.)" in error


@pytest.mark.parametrize(("time", "dtype", "grad", "expected"), [
    (256, torch.bfloat16, True, "plain"), (256, torch.float16, True, "plain"),
    (257, torch.bfloat16, True, "sdpa"), (16, torch.bfloat16, False, "sdpa"),
    (16, torch.float32, True, "sdpa"),
])  # fmt: skip
def test_cpus_hold_short_scores_of_16_bits_in_training_only(time, dtype, grad, expected):
    with torch.set_grad_enabled(grad):
        assert attention.fastest(torch.empty(1, time, 3, 1, 32, dtype=dtype)) == expected


def test_kernels_that_do_not_run_are_refused_in_one_sentence(command, tiny, gpu):
    code, _, error = command(train.main, *tiny, "--attention", "triton")
    assert (code, error.count("\n")) == (2, 1)
    assert "--attention triton: its kernels do not run on this cpu device" in error
    gpu((9, 0))
    with pytest.raises(UserError, match="16-bit types"):
        attention.choose("triton", torch.device("cuda", 0), "fp32")


def test_what_was_chosen_is_what_computes(monkeypatch):
    named = {name: lambda qkv, name=name: name for name in attention.IMPLEMENTATIONS}
    monkeypatch.setattr(attention, "IMPLEMENTATIONS", named)
    monkeypatch.setattr(attention, "chosen", None)
    for name, computes in (("sdpa", "sdpa"), (None, "plain")):
        attention.choose(name, torch.device("cpu"), "bf16")
        assert attention.causal_attention(torch.empty(1, 8, 3, 1, 32).bfloat16()) == computes
