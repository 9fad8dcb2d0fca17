"""Which tiles attention runs fastest with on this GPU: tries many, and prints a row for SETTINGS in attention_triton.py."""

import itertools

import torch
from triton import CompilationError
from triton.runtime.errors import OutOfResources, PTXASError

from common import Progress
from kernels.attention_triton import Launch, Settings, Tile, backward_launches, fake_attention, forward_launches, settings
from kernels.bench_attention import BATCH, random_inputs
from kernels.timing import milliseconds

QUERIES = KEYS = (32, 64, 128)
WARPS, STAGES = (4, 8), (2, 3, 4)
DOES_NOT_FIT = (CompilationError, OutOfResources, PTXASError)


def candidates(kernel: str) -> list[Tile]:
    """All tiles that divide as a kernel requires."""
    tiles = itertools.starmap(Tile, itertools.product(QUERIES, KEYS, WARPS, STAGES))
    if kernel == "grad_key_value":
        return [tile for tile in tiles if tile.keys % tile.queries == 0]
    return [tile for tile in tiles if tile.queries % tile.keys == 0]


def tune(shape: tuple[int, int], dtype: torch.dtype, device: torch.device, rounds: int, seconds: float) -> Settings:
    """The fastest tiles for that many heads of that dimension; one kernel after the other, a few minutes in all."""
    qkv, grad_out = random_inputs(BATCH[device.type], shape, dtype, device)
    best = settings(dtype, shape[1], capability=80)
    for kernel in Settings._fields:
        times, tiles = {}, candidates(kernel)
        progress = Progress(f"{kernel}, {shape[1]} dimensions", len(tiles), "tiles")
        for done, tile in enumerate(tiles, 1):
            launch = launches(qkv, grad_out, best._replace(**{kernel: tile}))[kernel]
            try:
                times[tile] = milliseconds({"": launch.run}, device, rounds, seconds)[""]
            except DOES_NOT_FIT:
                continue
            finally:
                progress.update(done)
        best = best._replace(**{kernel: min(times, key=times.__getitem__)})
        progress.close(len(tiles), f"{best} | ")
    return best


def launches(qkv: torch.Tensor, grad_out: torch.Tensor, tiles: Settings) -> dict[str, Launch]:
    """The launch of each kernel. What they compute from is not filled in: it does not change how long they take."""
    out, logsumexp = fake_attention(qkv)
    forward = forward_launches(qkv, out, logsumexp.zero_(), tiles)
    backward = backward_launches(grad_out, qkv, out.zero_(), logsumexp, torch.empty_like(qkv), tiles)
    return dict(zip(Settings._fields, forward + backward, strict=True))
