"""What the loss kernel becomes on A100, RTX 3090 and H100: no spills, wide loads, hardly more exponentials than it needs."""

import pytest
import torch
from machine_code import SHARED_LIMIT, compile_for

from kernels import cross_entropy_triton


def facts(capability, dtype, vocabulary, stride, wanted=True):
    logits = torch.empty(64, stride, dtype=dtype, device="meta")[:, :vocabulary]
    shares = torch.empty(64, device="meta")
    targets = torch.empty(64, dtype=torch.int64, device="meta")
    arguments = cross_entropy_triton.arguments(logits, targets, shares, shares, -100, wanted)
    warps = arguments.pop("num_warps")
    return compile_for(cross_entropy_triton.losses_and_gradient_kernel, arguments, capability, num_warps=warps), arguments, warps


def count(instructions, prefix):
    return sum(number for name, number in instructions.items() if name.startswith(prefix))


@pytest.mark.parametrize("capability", SHARED_LIMIT)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("vocabulary", "stride"), [(163_840, 163_840), (29_317, 29_328), (4096, 4096), (300, 304)])
def test_the_kernel_fits_the_chip(capability, dtype, vocabulary, stride):
    found, arguments, warps = facts(capability, dtype, vocabulary, stride)
    assert found.spills == 0
    assert found.registers * 32 * warps * 2 <= 65_536  # at least two programs run on a multiprocessor at a time
    assert found.shared <= SHARED_LIMIT[capability]
    # All loads and stores of logits have 16 bytes for each thread, although 29,317 ids are no multiple of anything.
    each = arguments["LANES"] * arguments["DEPTH"] // (32 * warps)
    accesses = each * dtype.itemsize // 16
    assert found.instructions["LDG.E.128"] == 2 * accesses
    assert found.instructions["STG.E.128"] == accesses
    assert count(found.instructions, "LDG") == 2 * accesses + 2
    assert count(found.instructions, "STG") == accesses + 1
    # Two exponentials for each id, one for each lane in the loop and one after it.
    assert count(found.instructions, "MUFU.EX2") == 2 * each + 2 * each // arguments["DEPTH"]


def test_rows_that_begin_anywhere_are_read_one_id_at_a_time():
    """Why cross_entropy.py spends up to 15 ids of memory on every row."""
    found, _, _ = facts(90, torch.bfloat16, 29_317, 29_317)
    assert count(found.instructions, "LDG.E.128") == 0
    assert count(found.instructions, "LDG.E.U16") >= 64
