"""A run cut into steps, parts and sequences: what each process reads, how much at a time, and read ahead of its use."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from common import UserError
from kernels.attention import PLAIN_UP_TO
from kernels.cross_entropy import CHUNK_BYTES
from mixture import Mixture
from model import SIZES
from process import Process

Result = TypeVar("Result")


class Part(NamedTuple):
    """What goes through the model at a time: (micro-batch, length) inputs and targets, and their (micro-batch,) languages."""

    inputs: Tensor
    targets: Tensor
    languages: np.ndarray


class Steps:
    """This process's share of every step, as tensors on its device."""

    def __init__(self, mixture: Mixture, config: dict, micro: int, process: Process):
        self.mixture, self.batch, self.micro, self.process = mixture, config["batch"], micro, process
        self.parts = config["batch"] // process.world // micro
        self.tokens = config["batch"] * config["length"]  # of a step, on all processes together
        self.last = config["steps"]

    def part(self, number: int) -> Part:
        """Part `number` of this process's share, counted from the beginning of the run."""
        step, part = divmod(number, self.parts)
        first = step * self.batch + (self.process.rank * self.parts + part) * self.micro
        windows, languages = self.mixture.batch(np.arange(first, first + self.micro))
        windows = torch.from_numpy(windows)
        if self.process.device.type == "cuda":  # pinned memory is copied while kernels run
            windows = windows.pin_memory().to(self.process.device, non_blocking=True)
        return Part(windows[:, :-1], windows[:, 1:], languages)

    def parts_from(self, step: int) -> Iterator[Part]:
        """All parts from the beginning of `step` to the end of the run, each read while the one before is computed."""
        return ahead(self.part, range(step * self.parts, self.last * self.parts))


def ahead(function: Callable[[int], Result], numbers: Iterable[int]) -> Iterator[Result]:
    """`function` of each number, in their order, computed by a thread of its own one number ahead of its use."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque = deque()
        for number in numbers:
            waiting.append(pool.submit(function, number))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        if waiting:
            yield waiting.popleft().result()


def micro_batch_size(wanted: int | None, config: dict, vocabulary: int, process: Process) -> int:
    """Sequences that a process works on at a time: `wanted`, or as many as fit into its memory.

    Raises:
        UserError: batch, processes and --micro-batch do not divide.
    """
    if config["batch"] % process.world:
        raise UserError(f"--batch {config['batch']} does not divide among {process.world} processes")
    local = config["batch"] // process.world
    if wanted:
        if local % wanted:
            raise UserError(f"--micro-batch {wanted} does not divide the {local} sequences of each process")
        return wanted
    device = process.device.type
    # Not what is free just now: a run that goes on would cut its batches another way, which rounds otherwise.
    free = torch.cuda.mem_get_info(process.device)[1] if device == "cuda" else 8e9
    free -= fixed_bytes(config, vocabulary, device)
    needed = config["length"] * bytes_per_token(config, device)
    return max(n for n in range(1, local + 1) if local % n == 0 and (n * needed <= 0.8 * free or n == 1))


def fixed_bytes(config: dict, vocabulary: int, device: str) -> float:
    """Memory that does not depend on the micro-batch: weights, gradients, Adam's two moments, casts, one chunk of logits.

    16 bytes for each parameter in float32, and 2 for its 16-bit copy; the output layer's gradient once more, while it is
    summed up over chunks; logits of a chunk in the type of the products and about three times in float32.
    """
    size = SIZES[config["size"]]
    inner = size.heads * size.head_dim
    blocks = size.layers * (4 * size.width * inner + 2 * size.width * size.mlp)
    return 18 * (blocks + 2 * vocabulary * size.width) + 4 * vocabulary * size.width + 7 * CHUNK_BYTES[device]


def bytes_per_token(config: dict, device: str) -> float:
    """What the backward pass keeps of a token, in bytes.

    In each layer with products in 16 bits: the inputs of both LayerNorms in float32, their outputs, queries, keys,
    values, the mixed values, and the MLP before and after its GELU. Where scores are held, those too.
    """
    size = SIZES[config["size"]]
    width_of_product = 4 if config["precision"] == "fp32" else 2
    inner = size.heads * size.head_dim
    kept = 8 * size.width + width_of_product * (2 * size.width + 4 * inner + 2 * size.mlp)
    if device == "cpu" and config["length"] <= PLAIN_UP_TO:
        kept += size.heads * config["length"] * (4 + width_of_product)
    return size.layers * kept + 12 * size.width
