"""The attention kernels as GPUs would run them, with the settings of kernels/attention_triton.py: compiled, not run."""

import pytest
import torch
from machine_code import SHARED_LIMIT, Facts, compile_for

from kernels import attention_triton
from kernels.attention_triton import Launch, Settings, backward_launches, fake_attention, forward_launches, settings
from kernels.tune_attention import candidates

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def launches(dtype: torch.dtype, head_dim: int, time: int, capability: int) -> list[Launch]:
    """The three launches of a training step of a GPU of that kind."""
    qkv = torch.empty(2, time, 3, 4, head_dim, dtype=dtype, device="meta")
    out, logsumexp = fake_attention(qkv)
    tiles = settings(dtype, head_dim, capability)
    backward = backward_launches(torch.empty_like(out), qkv, out, logsumexp, torch.empty_like(qkv), tiles)
    return forward_launches(qkv, out, logsumexp, tiles) + backward


def check(facts: Facts, dtype: torch.dtype, capability: int) -> None:
    """What every kernel must be on every chip."""
    assert facts.spills == 0
    assert facts.shared <= SHARED_LIMIT[capability]
    assert facts.tensor_core > 0
    names = {name.split(".")[0] for name in facts.instructions}
    assert not names & {"ATOM", "ATOMG", "RED", "REDG"}, "gradients would depend on the order of programs"
    assert any(name.startswith("LDGSTS") for name in facts.instructions), "nothing is loaded ahead"
    if capability == 90 and dtype != FP32:
        assert "HGMMA" in names
        # The compiler makes products wait for one another if registers are in the way: a wait for each.
        assert 2 * facts.instructions["WARPGROUP.DEPBAR.LE"] <= facts.tensor_core


# 512 is a multiple of every block and 500 of none. Types of 16 bits differ by one letter in the machine code.
@pytest.mark.parametrize(
    ("dtype", "head_dim", "time", "capability"),
    [
        (BF16, 64, 512, 90), (BF16, 64, 500, 90), (BF16, 64, 512, 80), (FP16, 64, 500, 86), (BF16, 32, 500, 90),
        (BF16, 96, 500, 90), (BF16, 128, 500, 90), (BF16, 128, 500, 86), (FP32, 64, 500, 80), (FP32, 128, 500, 86),
    ],
)  # fmt: skip
def test_kernels_fit_the_chip(dtype, head_dim, time, capability):
    for launch in launches(dtype, head_dim, time, capability):
        check(compile_for(launch.kernel, launch.arguments, capability, **launch.options), dtype, capability)


def test_whole_blocks_are_loaded_without_asking_which_rows_exist():
    def comparisons(time):
        launch = launches(BF16, 64, time, 90)[0]
        found = compile_for(launch.kernel, launch.arguments, 90, **launch.options).instructions
        return sum(number for name, number in found.items() if name.startswith("ISETP"))

    assert comparisons(512) < comparisons(500)


@pytest.mark.parametrize(("heads", "time"), [(1, 1), (24, 512), (5, 513)])
def test_programs_cover_every_position_of_every_head_once(heads, time):
    qkv = torch.empty(3, time, 3, heads, 64, device="meta", dtype=BF16)
    out, logsumexp = fake_attention(qkv)
    for capability in SHARED_LIMIT:
        tiles = settings(BF16, 64, capability)
        forward, query, key = (
            *forward_launches(qkv, out, logsumexp, tiles),
            *backward_launches(out, qkv, out, logsumexp, qkv, tiles),
        )
        for launch, side in ((forward, "QUERIES"), (query, "QUERIES"), (key, "KEYS")):
            block = launch.arguments[side]
            assert launch.programs * block >= 3 * heads * time > launch.programs * block - 3 * heads * block


@pytest.mark.parametrize("row", attention_triton.SETTINGS.values())
def test_tiles_divide_as_the_kernels_require(row):
    assert row.forward.queries % row.forward.keys == 0
    assert row.grad_query.queries % row.grad_query.keys == 0
    assert row.grad_key_value.keys % row.grad_key_value.queries == 0


@pytest.mark.parametrize("kernel", Settings._fields)
def test_tuning_tries_the_tiles_in_use(kernel):
    tried = candidates(kernel)
    in_use = [getattr(row, kernel) for (chip, _), row in attention_triton.SETTINGS.items() if chip != "float32"]
    assert set(in_use) <= set(tried)
