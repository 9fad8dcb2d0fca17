"""The helper that compiles kernels for absent GPUs must see spills and tensor cores: else its users' tests could not fail."""

import pytest
import torch
import triton
import triton.language as tl
from machine_code import SHARED_LIMIT, compile_for


@triton.jit
def product_kernel(left, right, out, size, BLOCK: tl.constexpr):
    cells = tl.arange(0, BLOCK)[:, None] * size + tl.arange(0, BLOCK)[None, :]
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, size, BLOCK):
        total = tl.dot(tl.load(left + start + cells), tl.load(right + start * size + cells), total)
    tl.store(out + cells, total)


def product(capability: int, size: int = 512, block: int = 64, warps: int = 4):
    tensor = torch.empty(size, size, dtype=torch.bfloat16, device="meta")
    arguments = {"left": tensor, "right": tensor, "out": tensor.float(), "size": size, "BLOCK": block}
    return compile_for(product_kernel, arguments, capability, num_warps=warps, num_stages=2)


@pytest.mark.parametrize(("capability", "instruction"), [(80, "HMMA"), (90, "HGMMA")])
def test_a_block_that_fits_does_not_spill_and_runs_on_tensor_cores(capability, instruction):
    facts = product(capability)
    assert facts.spills == 0
    assert 32 <= facts.registers <= 255
    assert 0 < facts.shared <= SHARED_LIMIT[capability]
    assert facts.tensor_core > 0
    assert any(name.startswith(instruction + ".") for name in facts.instructions)


def test_a_block_too_large_for_its_warps_spills():
    facts = product(80, block=128, warps=1)
    assert facts.spills > 0
    assert any(name.startswith("STL") for name in facts.instructions)


def test_what_is_no_multiple_of_16_loses_its_wide_loads():
    def wide(size):
        found = product(80, size).instructions
        return sum(number for name, number in found.items() if name.startswith("LDG") and "128" in name)

    assert wide(512) > wide(511)
