"""How the benchmarks measure: variants take turns in one process, so that a machine that slows down slows them all."""

import statistics
import time
from collections.abc import Callable

import torch

MOST_CALLS = {"cpu": 1000, "cuda": 50}  # of a turn; a GPU's queue of launches is finite
LAUNCHING = 400_000  # GPU clock cycles, a fifth of a millisecond, in which a CPU launches one call


def milliseconds(
    variants: dict[str, Callable[[], object]], device: torch.device, rounds: int, seconds: float
) -> dict[str, float]:
    """Time of one call of each variant: the median over `rounds` turns of about `seconds` each, after a warm-up."""
    calls = {name: calls_within(call, device, seconds) for name, call in variants.items()}
    turns = {name: [] for name in variants}
    for _ in range(rounds):
        for name, call in variants.items():
            turns[name].append(one_turn(call, calls[name], device) / calls[name])
    return {name: statistics.median(times) for name, times in turns.items()}


def calls_within(call: Callable[[], object], device: torch.device, seconds: float) -> int:
    """How many calls take about `seconds`; the first ones compile, load libraries and fill caches."""
    each = min(one_turn(call, 1, device) for _ in range(3))
    return max(1, min(MOST_CALLS[device.type], round(1000 * seconds / max(each, 1e-3))))


def one_turn(call: Callable[[], object], calls: int, device: torch.device) -> float:
    """Milliseconds of `calls` calls. On a GPU its own time counts: it sleeps until they are launched, then runs them all."""
    if device.type != "cuda":
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        return 1000 * (time.perf_counter() - begin)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    torch.cuda._sleep(calls * LAUNCHING)
    begin.record()
    for _ in range(calls):
        call()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end)


def matmul_ceiling(dtype: torch.dtype, device: torch.device, rounds: int, seconds: float) -> float:
    """TFLOP/s of a large square matrix product: what kernels that multiply matrices can be held against."""
    size = 8192 if device.type == "cuda" else 1024
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    each = milliseconds({"product": lambda: left @ right}, device, rounds, seconds)["product"]
    return 2 * size**3 / each / 1e9
