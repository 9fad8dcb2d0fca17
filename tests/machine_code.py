"""What a Triton kernel becomes on a GPU that need not be there: it is compiled for it, and the machine code is counted.

The compiler specialises a kernel by its arguments (which integers are 1 or divide by 16, which pointers are aligned),
so a test passes the very arguments of a launch; tensors may live on the meta device. Triton must not be interpreting.
"""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

# Shared memory in bytes that one block of threads can have, by compute capability (A100, RTX 3090, H100).
SHARED_LIMIT = {80: 163 * 1024, 86: 99 * 1024, 90: 227 * 1024}

TYPE_NAMES = {
    torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16",
    torch.int64: "i64", torch.int32: "i32", torch.uint8: "u8", torch.bool: "i1",
}  # fmt: skip
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


class Facts(NamedTuple):
    """What one kernel takes of one chip.

    Attributes:
        registers: of each thread.
        spills: bytes of each thread that lie in local memory, because registers ran out or an index was not constant.
        shared: bytes of each block of threads.
        tensor_core: number of tensor-core instructions, HMMA (Ampere) or HGMMA (Hopper).
        instructions: how often each one appears, by its full name, "HGMMA.64x64x16.F32.BF16" for example.
    """

    registers: int
    spills: int
    shared: int
    tensor_core: int
    instructions: dict[str, int]


def specialise(kernel: triton.JITFunction, arguments: dict) -> tuple[dict, dict, dict]:
    """Signature, constants and attributes of a launch with these arguments (by name), as Triton's own launcher takes them."""
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(kernel.params):
        name, value = parameter.name, arguments[parameter.name]
        free = not parameter.do_not_specialize
        if parameter.is_constexpr or value is None or (free and isinstance(value, int) and value == 1):
            signature[name], constants[name] = "constexpr", value
            continue
        if isinstance(value, torch.Tensor):
            signature[name] = "*" + TYPE_NAMES[value.dtype]
            divisible = value.storage_offset() * value.element_size() % 16 == 0  # allocations begin at multiples of 256
        elif isinstance(value, int):
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            divisible = value % 16 == 0
        else:
            signature[name], divisible = "fp32", False
        if free and divisible:
            attributes[index,] = [["tt.divisibility", 16]]
    return signature, constants, attributes


def compile_for(kernel: triton.JITFunction, arguments: dict, capability: int, **options) -> Facts:
    """Compile `kernel` as a launch with `arguments` (by name) and `options` (num_warps, num_stages) would on such a chip."""
    source = ASTSource(kernel, *specialise(kernel, arguments))
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = inspect("--dump-resource-usage", file.name)
        listing = inspect("--dump-sass", file.name)
    registers, stack, local = (int(re.search(rf"\b{key}:(\d+)", usage)[1]) for key in ("REG", "STACK", "LOCAL"))
    instructions = {}
    for name in re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)", listing, re.MULTILINE):
        instructions[name] = instructions.get(name, 0) + 1
    tensor_core = sum(number for name, number in instructions.items() if name.split(".")[0] in ("HMMA", "HGMMA"))
    return Facts(registers, stack + local, compiled.metadata.shared, tensor_core, instructions)


def inspect(flag: str, path: str) -> str:
    """What cuobjdump, which comes with Triton, prints of a file of machine code."""
    return subprocess.run([CUOBJDUMP, flag, path], capture_output=True, text=True, check=True).stdout
