"""How fast one training step is on this machine: float32 or bf16, eager or compiled, side by side in one process.

    python bench.py

Speeds of one machine say little about another; the ratios are what carries over. Rounds of all variants take turns,
so that a machine that slows down slows them all, and the median round counts.
"""

import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from common import Parser, run_script, write_atomic
from kernels import attention
from model import GPT, SIZES
from process import Process, bf16_helps, compile_if_possible, mixed_precision
from train import RECIPES


class Variant(NamedTuple):
    """One way to compute the same step. `plain_up_to` is the longest sequence whose attention scores are held on a CPU."""

    precision: str
    compiled: bool
    plain_up_to: int = attention.PLAIN_UP_TO


VARIANTS = {
    "fp32 eager": Variant("fp32", False),
    "fp32 compiled": Variant("fp32", True),
    "bf16 eager": Variant("bf16", False),
    "bf16 compiled": Variant("bf16", True),
    "bf16 compiled, fused attention": Variant("bf16", True, plain_up_to=0),
}


def make_step(size: str, vocabulary: int, variant: Variant, process: Process) -> tuple[Callable[[], None], int]:
    """A function that trains one step of the size's recipe on random tokens, and the tokens it takes."""
    recipe = RECIPES[size]
    batch = recipe.batch if process.device.type == "cpu" else min(recipe.batch, 32)
    model = GPT(SIZES[size], vocabulary, recipe.length).to(process.device)
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.95), fused=True)
    windows = torch.randint(vocabulary, (batch, recipe.length + 1), device=process.device)
    attention.PLAIN_UP_TO = variant.plain_up_to
    inputs, targets = windows[:, :-1], windows[:, 1:]
    forward = compile_if_possible(model, inputs, targets, variant.precision, process) if variant.compiled else model

    def step() -> None:
        attention.PLAIN_UP_TO = variant.plain_up_to
        with mixed_precision(variant.precision, process.device):
            mean, _ = forward(inputs, targets)
        mean.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if process.device.type == "cuda":
            torch.cuda.synchronize()

    return step, batch * recipe.length


def time_rounds(variants: dict, rounds: int, seconds: float) -> dict[str, float]:
    """Tokens per second of each variant: the median over `rounds` turns of about `seconds` each."""
    speeds = {name: [] for name in variants}
    for step, _ in variants.values():
        for _ in range(3):  # compiles, and fills caches
            step()
    for _, (name, (step, tokens)) in itertools.product(range(rounds), variants.items()):
        begin, steps = time.perf_counter(), 0
        while (now := time.perf_counter()) - begin < seconds:
            step()
            steps += 1
        speeds[name].append(steps * tokens / (now - begin))
    return {name: statistics.median(values) for name, values in speeds.items()}


def main(arguments: list[str] | None = None) -> None:
    """Time the variants and print them with their ratio to the first."""
    parser = Parser(__doc__)
    parser.add_argument("--size", choices=SIZES, help="(nano on a CPU, small on a GPU)")
    parser.add_argument("--vocabulary", type=int, default=4096, help="ids of all languages together (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each variant (%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a turn (%(default)s)")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="(cuda where there is one)")
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    args = parser.parse_args(arguments)
    process = Process.current(args.device)
    size = args.size or ("small" if process.device.type == "cuda" else "nano")
    print(f"one training step of {size}, {args.vocabulary} ids, {process.device_name()}, torch {torch.__version__}")
    print("compiling, then measuring, about two minutes ...", flush=True)
    steps = {
        name: make_step(size, args.vocabulary, variant, process)
        for name, variant in VARIANTS.items()
        if (variant.precision == "fp32" or bf16_helps(process.device)) and (variant.plain_up_to or process.device.type == "cpu")
    }
    speeds = time_rounds(steps, args.rounds, args.seconds)
    base = next(iter(speeds.values()))
    for name, speed in speeds.items():
        print(f"  {name:30} {speed:9.0f} tokens/s   {speed / base:5.2f} x")
    if args.out:
        facts = {"size": size, "vocabulary": args.vocabulary, "device": process.device_name(), "torch": torch.__version__}
        write_atomic(args.out, json.dumps(facts | {"tokens_per_second": speeds}, indent=2) + "\n")


if __name__ == "__main__":
    run_script(main)
