"""The machine that a script runs on: its processes, its device, and the precision of its matrix products."""

import contextlib
import ctypes
import os
import platform
import sys
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

from common import UserError

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class Process(NamedTuple):
    """One of `world` processes; the process of rank 0 prints, and writes files, for all of them."""

    rank: int
    world: int
    device: torch.device

    @classmethod
    def current(cls, device: str | None = None, strict: bool = False) -> "Process":
        """Read the variables that torchrun sets; without them, this is the only process.

        Operations take sums in the same order in every run. An operation that cannot do so raises an error if
        `strict` (part of fine-tuning on GLUE would), and warns otherwise. PyTorch's attention on GPUs can,
        but does so only if `strict`. UserError if the device or torchrun's settings do not fit this machine.
        """
        torch.use_deterministic_algorithms(True, warn_only=not strict)
        torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs time
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        local_world = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if world > 1 and "MASTER_ADDR" not in os.environ:
            raise UserError(f"WORLD_SIZE is {world}, but torchrun did not start this process; unset it")
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: PyTorch finds no CUDA device; use --device cpu")
        if device == "mps":
            if not torch.backends.mps.is_available():
                raise UserError("--device mps: PyTorch finds no Apple GPU; use --device cpu")
            return cls(rank, world, torch.device("mps"))
        if device != "cpu" and torch.cuda.is_available():
            if local >= torch.cuda.device_count():
                found = f"this machine has {torch.cuda.device_count()} GPUs for {local_world} processes"
                raise UserError(f"{found}; lower torchrun's --nproc-per-node")
            torch.cuda.set_device(local)
            return cls(rank, world, torch.device("cuda", local))
        if device != "cpu" and gpu_out_of_reach():
            problem = f"missing or too old for the CUDA {torch.version.cuda} of this PyTorch"
            raise UserError(f"the GPU's driver is {problem}; update it, or use --device cpu")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        torch.set_num_threads(max(1, cores // local_world))  # torchrun sets one thread
        keep_freed_memory()
        return cls(rank, world, torch.device("cpu"))

    def say(self, text: str) -> None:
        """Print `text`, on the process of rank 0 only."""
        if self.rank == 0:
            print(text, flush=True)

    def join(self, **options) -> None:
        """Join the group in which processes exchange tensors; waiting 30 minutes for another is an error."""
        backend, mine = "gloo", None
        if self.device.type == "cuda":  # without a device NCCL may guess one from the rank
            backend, mine = "cpu:gloo,cuda:nccl", self.device
        dist.init_process_group(backend, timeout=timedelta(minutes=30), device_id=mine, **options)

    @contextlib.contextmanager
    def group(self):
        """Context in which processes can exchange tensors."""
        if self.world > 1:
            self.join()
        try:
            yield
            self.total(torch.zeros(1))  # wait for all: gloo can abort a process that leaves before the others
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()

    def send(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy a tensor to the device; a copy to a CUDA GPU uses pinned memory and runs beside kernels."""
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum `tensor` over all processes, in place, and return it."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def device_name(self) -> str:
        """The device's name, for result files."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        if self.device.type == "mps":
            return f"{platform.machine()}, Metal"
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        return f"{models[0] if models else platform.machine()}, {torch.get_num_threads()} threads"


def keep_freed_memory() -> None:
    """Make the C library reuse freed memory: zeroed new pages from Linux would take a fifth of each step."""
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
        # glibc's M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and, because evaluation uses threads, M_ARENA_MAX.
        for setting, value in ((-3, 2**30), (-1, 2**31 - 1), (-8, 1)):
            ctypes.CDLL(None).mallopt(setting, value)


def gpu_out_of_reach() -> bool:
    """True if an NVIDIA GPU is present and not hidden, but a PyTorch built for CUDA cannot use it."""
    wanted = torch.version.cuda and os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in {"", "-1"}
    return bool(wanted) and any(Path("/dev").glob("nvidia[0-9]*")) and not torch.cuda.is_available()


def default_precision(device: torch.device) -> str:
    """The fastest number format for matrix products on the device with which training still works."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    amx, avx512 = torch.cpu._is_amx_tile_supported(), torch.cpu._is_avx512_bf16_supported()
    # Intel CPUs without AMX (a virtual machine may hide it) use fp32: bf16 would take 1.7 times as long.
    amd = Path("/proc/cpuinfo").exists() and "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    return "bf16" if amx or (avx512 and amd) else "fp32"


def mixed_precision(precision: str, device: torch.device) -> torch.autocast:
    """Context in which matrix products are computed in `precision`; weights and sums stay float32."""
    return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "fp32")
