"""Triton kernels on a CPU, interpreted, in a process of their own: Triton decides when a kernel is defined.

A file `tests/interpreted_*.py` holds such tests, and imports this one for bfloat16; run_interpreted() runs it.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle


def run_interpreted(name: str) -> None:
    """Run the tests of `tests/NAME`, interpreted, and fail with their report if one does."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", Path(__file__).with_name(name)]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def round_bfloat16() -> None:
    """Make the interpreter compute bfloat16 as GPUs do: it multiplies the bit patterns, and truncates where they round."""
    dot, cast = InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl

    def exact_dot(self, left, right, *rest):
        left, right = (cast(self, x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in (left, right))
        return dot(self, left, right, *rest)

    def rounding_cast(self, source, target):
        if (source.dtype.scalar, target.scalar) != (tl.float32, tl.bfloat16):
            return cast(self, source, target)
        rounded = torch.from_numpy(np.ascontiguousarray(source.data)).bfloat16()
        return TensorHandle(rounded.view(torch.uint16).numpy(), tl.bfloat16)

    InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl = exact_dot, rounding_cast
