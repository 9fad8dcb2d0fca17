"""This process and its machine: the device, the precision and compiler that help there, the other processes of torchrun."""

import contextlib
import ctypes
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from common import UserError
from workers import cpu_cores

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


class Process(NamedTuple):
    """One of `world` processes; the one of rank 0 speaks and writes for all."""

    rank: int
    world: int
    device: torch.device

    @classmethod
    def current(cls, device: str | None = None) -> "Process":
        """Read torchrun's environment; without one, this is a single process. `device` is "cpu", "cuda" or None for the better.

        Raises:
            UserError: there is no such device, or more processes than GPUs.
        """
        # The compiler's way to add up the gradient of an embedding is otherwise a race that gives other sums in every run.
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # finds programming errors; costs time
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        defaults = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        rank, world, local, local_world = (int(os.environ.get(name, default)) for name, default in defaults.items())
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: PyTorch finds no CUDA device on this machine")
        if device == "cuda" or (device is None and torch.cuda.is_available()):
            if local >= torch.cuda.device_count():
                raise UserError(f"--nproc-per-node {local_world}: this machine has {torch.cuda.device_count()} GPU(s)")
            torch.cuda.set_device(local)
            return cls(rank, world, torch.device("cuda", local))
        torch.set_num_threads(max(1, cpu_cores() // local_world))  # torchrun's own default is one thread
        return cls(rank, world, torch.device("cpu"))

    def say(self, text: str) -> None:
        """Print on the first process."""
        if self.rank == 0:
            print(text, flush=True)

    @contextlib.contextmanager
    def group(self) -> Iterator[None]:
        """Within it, processes can exchange tensors; one that waits 30 minutes for another gives up."""
        if self.world > 1:
            backend = "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=timedelta(minutes=30))
        try:
            yield
            self.wait()  # gloo can abort a process that leaves while another still talks to it
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()

    def wait(self) -> None:
        """For all other processes to arrive here."""
        if self.world > 1:
            dist.barrier()

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def device_name(self) -> str:
        """What the device calls itself, for result files."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        information = Path("/proc/cpuinfo")
        lines = information.read_text().splitlines() if information.exists() else []
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        return f"{models[0] if models else platform.machine()}, {torch.get_num_threads()} threads"


def keep_freed_memory() -> None:
    """Let the C library keep what a training step frees, for the next step.

    By default it gives tensors above 32 MB back to Linux, which then fills each page with zeros when it is asked for anew:
    a fifth of a step with a vocabulary of ten clones.
    """
    if sys.platform == "linux":
        adjust = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, others may not
        for setting, value in ((M_MMAP_THRESHOLD, 2**30), (M_TRIM_THRESHOLD, 2**31 - 1)) if adjust else ():
            adjust(setting, value)


def bf16_helps(device: torch.device) -> bool:
    """Whether the processor multiplies bf16 matrices faster than float32 ones."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(getattr(torch.cpu, probe, bool)() for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def default_precision(device: torch.device) -> str:
    """The type of matrix products that is fastest on the device and still trains: bf16, on older GPUs fp16, else fp32."""
    if bf16_helps(device):
        return "bf16"
    return "fp16" if device.type == "cuda" else "fp32"


PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def mixed_precision(precision: str, device: torch.device) -> torch.autocast:
    """The context in which matrix products run in the run's precision; weights and sums stay float32."""
    return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "fp32")


def compile_if_possible(model: nn.Module, inputs: Tensor, targets: Tensor, precision: str, process: Process) -> Callable | None:
    """The model under torch.compile if that works on this machine, else None, after a line that says so.

    On several processes each block is compiled by itself: the backward pass of a whole compiled model hands out its
    gradients at its end, when there is nothing left that their exchange could overlap with.
    """
    process.say("compiling the model, up to a minute the first time ...")
    blocks = model.blocks if process.world > 1 else ()
    for block in blocks:
        block.compile(dynamic=False)
    compiled = model if blocks else torch.compile(model, dynamic=False)
    try:
        with mixed_precision(precision, process.device):
            mean, _ = compiled(inputs, targets)
        mean.backward()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever is missing here (a C++ compiler, headers, a Triton) must not cost the run
        reason = (str(error).strip() or "no reason given").splitlines()[0][:160]
        process.say(f"torch.compile does not work here, going on without it ({type(error).__name__}: {reason})")
        compiled = None
        for block in blocks:
            block._compiled_call_impl = None  # there is no public way back
    model.zero_grad(set_to_none=True)
    return compiled


ECHO_SECONDS = 3  # torchrun passes a signal on that its processes may have received with it


class StopSignal:
    """Within it, the first SIGINT or SIGTERM is a request that the training loop reads between two steps."""

    def __init__(self, process: Process):
        self.process, self.number, self.received = process, 0, 0.0
        self.asking: tuple[dist.Work, Tensor] | None = None

    def __enter__(self) -> "StopSignal":
        self.former = {number: signal.signal(number, self.receive) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.former.items():
            signal.signal(number, handler)

    def receive(self, number: int, _frame) -> None:
        """Remember the request; one that is repeated later than the echoes of torchrun ends the process at once."""
        if self.received and time.monotonic() - self.received > ECHO_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.number, self.received = number, self.received or time.monotonic()

    def requested(self) -> bool:
        """Whether any process was asked to stop; called by all after every step, with the same answer for all.

        Of several processes, each learns what all knew one step ago: the exchange of one number ran during that step,
        so nobody waits for it.
        """
        if self.process.world == 1:
            return self.number > 0
        asked = 0
        if self.asking:
            work, numbers = self.asking
            work.wait()
            asked = int(numbers.item())
        self.number = self.number or asked
        numbers = torch.tensor([self.number])  # on the CPU: a GPU's queue of kernels is not waited for
        self.asking = dist.all_reduce(numbers, dist.ReduceOp.MAX, async_op=True), numbers
        return asked > 0
