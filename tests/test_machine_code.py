"""What the kernels become on GPUs that need not be there: compiled for A100, RTX 3090 and H100, and counted.

The compiler specialises a kernel by its arguments (which integers are 1 or divide by 16, which pointers are
aligned): so a test passes the very arguments of a launch, with tensors on the meta device.
"""

import re
import subprocess
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from kernels import attention, cross_entropy, triton

pytest.importorskip("triton")
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

SHARED_LIMIT = {80: 163 * 1024, 86: 99 * 1024, 90: 227 * 1024}  # bytes of a block of threads
WARPS_LIMIT = {80: 64, 86: 48, 90: 64}  # of a multiprocessor
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
TYPE_NAMES = {FP32: "fp32", FP16: "fp16", BF16: "bf16", torch.int64: "i64"}


class Facts(NamedTuple):
    """What one kernel takes of one chip."""

    registers: int  # of each thread
    spills: int  # bytes of each thread in local memory, because registers ran out
    shared: int  # bytes of each block of threads
    instructions: Counter  # by full name, "HGMMA.64x64x16.F32.BF16" for example

    def programs(self, capability: int, warps: int) -> int:
        """How many programs of so many warps fit on a multiprocessor at a time."""
        registers = -(-self.registers // 8) * 8 * 32 * warps  # a warp gets them by 256
        shared = (SHARED_LIMIT[capability] + 1024) // (
            self.shared + 1024
        )  # 1 KB of each block is the system's
        return min(65_536 // registers, shared, WARPS_LIMIT[capability] // warps)

    def count(self, *prefixes: str) -> int:
        """Instructions whose names begin so."""
        return sum(number for name, number in self.instructions.items() if name.startswith(prefixes))


def specialise(kernel, arguments: dict) -> tuple[dict, dict, dict]:
    """Signature, constants and attributes of a launch with these arguments, as Triton's launcher has them."""
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(kernel.params):
        name, value, divisible = parameter.name, arguments[parameter.name], False
        if parameter.is_constexpr:
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name] = "*" + TYPE_NAMES[value.dtype]
            divisible = True  # allocations begin at multiples of 256
        else:
            signature[name] = "i32" if isinstance(value, int) else "fp32"
            divisible = isinstance(value, int) and value % 16 == 0
        if divisible and not parameter.do_not_specialize:
            attributes[index,] = [["tt.divisibility", 16]]
    return signature, constants, attributes


def read_facts(shared: int, cubin: str) -> Facts:
    """What the disassembler that comes with Triton says of a file of machine code."""
    cuobjdump = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    command = [cuobjdump, "--dump-resource-usage", "--dump-sass", cubin]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = {name: int(number) for name, number in re.findall(r"\b([A-Z]+):(\d+)", text)}
    names = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)", text, re.MULTILINE)
    return Facts(used["REG"], used["STACK"] + used["LOCAL"], shared, Counter(names))


pool = ThreadPoolExecutor(2)  # one kernel is disassembled while the next is compiled


def compile_for(capability: int, kernel, arguments: dict) -> Future[Facts]:
    """Compile a kernel as a launch with these arguments would on a chip of that compute capability."""
    options = {name: arguments[name] for name in ("num_warps", "num_stages") if name in arguments}
    source = ASTSource(kernel, *specialise(kernel, arguments))
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    cubin = next(path for name, path in compiled.metadata_group.items() if name.endswith(".cubin"))
    return pool.submit(read_facts, compiled.metadata.shared, cubin)


def attention_arguments(kernel, capability: int, dtype: torch.dtype, head_dim: int, time: int = 500) -> dict:
    """What one of the attention kernels is launched with; 500 tokens are no multiple of any block."""
    qkv = torch.empty(2, time, 3, 4, head_dim, dtype=dtype, device="meta")
    out, logsumexp = attention.fake_attention(qkv)
    tensors = {"out": out, "logsumexp": logsumexp, "grad_out": out, "grad_qkv": qkv, "statistics": logsumexp}
    taken = {name: tensor for name, tensor in tensors.items() if name in kernel.arg_names}
    return attention.launch(kernel, capability, qkv, **taken)[1]


def loss_arguments(dtype: torch.dtype, vocabulary: int, stride: int) -> dict:
    """What the loss kernel is launched with."""
    logits = torch.empty(64, stride, dtype=dtype, device="meta")[:, :vocabulary]
    targets = torch.empty(64, dtype=torch.int64, device="meta")
    return cross_entropy.launch(logits, targets, torch.empty(64, device="meta"), 1.0, True)


# Capability, type, head dimension: every row of ROWS on every chip; heads of 96 are padded to 128.
ATTENTION = [(chip, BF16, dim) for chip in SHARED_LIMIT for dim in (32, 64, 96 if chip == 90 else 128)]
# Capability, type, ids, elements from one row to the next.
LOSS = [
    (90, BF16, 163_840, 163_840), (90, BF16, 29_317, 29_328), (90, FP32, 4096, 4096), (80, BF16, 300, 304),
]  # fmt: skip


@pytest.fixture(scope="module")
def facts():
    """What each case of each kernel becomes."""
    loss_kernel, futures = cross_entropy.losses_and_gradient_kernel, {}
    for case in ATTENTION:
        for kernel in attention.KERNELS:
            futures[kernel, case] = compile_for(case[0], kernel, attention_arguments(kernel, *case))
    for case in LOSS:
        futures[loss_kernel, case] = compile_for(case[0], loss_kernel, loss_arguments(*case[1:]))
    return {key: future.result() for key, future in futures.items()}


def test_every_row_is_compiled():
    assert {attention.key_of(chip, head_dim) for chip, _, head_dim in ATTENTION} == attention.ROWS.keys()


@pytest.mark.parametrize("kernel", attention.KERNELS, ids=lambda kernel: kernel.__name__)
@pytest.mark.parametrize("case", ATTENTION, ids=str)
def test_attention_fits_the_chip(facts, kernel, case):
    found, (capability, _, head_dim) = facts[kernel, case], case
    warps = attention_arguments(kernel, *case)["num_warps"]
    assert found.spills == 0
    assert found.shared <= SHARED_LIMIT[capability]
    programs = found.programs(capability, warps)
    assert programs * warps >= 8
    assert programs >= 2 or head_dim > 64, "nothing computes while a program waits for its loads"
    assert found.count("HMMA", "HGMMA") > 0, "no tensor cores"
    assert found.count("LDGSTS") > 0, "nothing is loaded ahead"
    assert found.count("ATOM", "RED.", "REDG") == 0, "gradients would depend on the order of programs"
    if capability == 90:
        # The compiler makes products wait for one another if registers are in the way: a wait for each.
        assert found.count("HGMMA") >= 2 * found.count("WARPGROUP.DEPBAR.LE")


@pytest.mark.parametrize("case", LOSS, ids=str)
def test_the_loss_kernel_reads_and_writes_as_little_as_it_can(facts, case):
    found, arguments = facts[cross_entropy.losses_and_gradient_kernel, case], loss_arguments(*case[1:])
    (capability, dtype, *_), warps = case, arguments["num_warps"]
    assert found.spills == 0
    assert found.registers * 32 * warps * 2 <= 65_536  # two programs at least fit into a multiprocessor
    assert found.shared <= SHARED_LIMIT[capability]
    # Loads and stores of logits have 16 bytes for each thread, although 29,317 ids divide by nothing.
    each = arguments["LANES"] * arguments["DEPTH"] // (32 * warps)
    accesses = each * dtype.itemsize // 16
    assert found.count("LDG.E.128") == 2 * accesses == found.count("LDG") - 1  # one more for the target
    assert found.count("STG.E.128") == accesses == found.count("STG") - 1
    # Two exponentials for each id, one for each lane in the loop and one after it.
    assert found.count("MUFU.EX2") == 2 * each + 2 * each // arguments["DEPTH"]


@pytest.mark.parametrize(("heads", "time"), [(1, 1), (24, 512), (5, 513)])
def test_programs_cover_every_position_of_every_head_once(heads, time):
    qkv = torch.empty(3, time, 3, heads, 64, device="meta", dtype=BF16)
    for kernel in attention.KERNELS:
        for capability in SHARED_LIMIT:
            programs, arguments = attention.launch(kernel, capability, qkv)
            block = arguments["KEYS" if kernel is attention.grad_key_value_kernel else "QUERIES"]
            assert programs * block >= 3 * heads * time > programs * block - 3 * heads * block


@pytest.mark.parametrize("row", attention.ROWS.values())
def test_tiles_divide_as_the_kernels_require(row):
    forward, grad_query, grad_key_value = row
    assert forward.queries % forward.keys == grad_query.queries % grad_query.keys == 0
    assert grad_key_value.keys % grad_key_value.queries == 0
