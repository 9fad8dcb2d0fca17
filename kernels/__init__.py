"""The operations that decide the speed of training, each beside plain PyTorch that defines its result."""

import sys
from functools import cache

import torch

try:
    import triton
    import triton.language as tl

    # Types of device that run kernels. With TRITON_INTERPRET=1 a CPU interprets them, slowly.
    DEVICES = ("cuda", "cpu") if triton.knobs.runtime.interpret else ("cuda",)
except ImportError:

    class Absent:
        """Replaces Triton where it is missing (it needs Linux), so that kernels can still be defined."""

        def __getattr__(self, name: str):
            return self

        def __call__(self, function=None, **options):
            return function or self

    triton = tl = Absent()
    DEVICES = ()


@triton.jit
def trial_kernel(cell):
    tl.store(cell, 1.0)


def capability(device: torch.device) -> int:
    """Compute capability of a GPU, 90 for 9.0; 80, an A100's, for a CPU that interprets kernels."""
    major, minor = torch.cuda.get_device_capability(device) if device.type == "cuda" else (8, 0)
    return 10 * major + minor


@cache
def triton_runs(device: torch.device) -> bool:
    """True if kernels run on `device`: a GPU with bf16 and TF32 arithmetic, or a CPU that interprets kernels.

    A trial kernel is launched, because Triton needs a C compiler and Python's headers, which may be missing.
    """
    if device.type not in DEVICES or capability(device) < 80:
        return False
    try:
        cell = torch.zeros(1, device=device)
        trial_kernel[1,](cell)
        return cell.item() == 1
    except Exception as error:  # a run can do without Triton
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        print(f"Triton does not work, so PyTorch's own kernels replace it ({reason})", file=sys.stderr)
        return False
