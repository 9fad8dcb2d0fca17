"""The operations that decide the speed of training, each beside the plain PyTorch that says what it does."""

import sys
from functools import cache

import torch

try:
    import triton
    import triton.language as tl

    # Where kernels run. Under TRITON_INTERPRET=1 a CPU interprets them: slowly, but without a GPU.
    DEVICES = ("cuda", "cpu") if triton.knobs.runtime.interpret else ("cuda",)
except ImportError:

    class Absent:
        """Stands in for Triton, which exists for Linux only: kernels can be defined all the same."""

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
    """Compute capability of a GPU, 90 for 9.0; a CPU, which interprets kernels, counts as an A100."""
    major, minor = torch.cuda.get_device_capability(device) if device.type == "cuda" else (8, 0)
    return 10 * major + minor


@cache
def triton_runs(device: torch.device) -> bool:
    """Whether the kernels run there: a GPU with bf16 and TF32 arithmetic, or a CPU that interprets them.

    Triton builds what launches a kernel with a C compiler and Python's headers, which a machine may lack.
    """
    if device.type not in DEVICES or capability(device) < 80:
        return False
    try:
        cell = torch.zeros(1, device=device)
        trial_kernel[1,](cell)
        return cell.item() == 1
    except Exception as error:  # whatever is missing must not cost the run
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        print(f"Triton does not work here, going on with PyTorch's own kernels ({reason})", file=sys.stderr)
        return False
