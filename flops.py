"""What a run costs: floating-point operations, and how much of a GPU's peak a training speed amounts to."""

import re

from model import SIZES, Size
from process import Process

# Peak of dense matrix products with 16-bit inputs and float32 sums, in FLOP/s, from the makers' data sheets. The longest
# name that a device's own name contains counts.
PEAKS = {
    "V100": 125e12,
    "T4": 65e12,
    "A10": 125e12,
    "A100": 312e12,
    "A40": 150e12,
    "A6000": 155e12,
    "L4": 121e12,
    "L40": 181e12,
    "L40S": 362e12,
    "H100": 989e12,
    "H100 PCIe": 756e12,
    "H200": 989e12,
    "B200": 2250e12,
    "RTX 3090": 71e12,
    "RTX 4090": 165e12,
}


def flops_per_token(size: Size, vocabulary: int, length: int) -> float:
    """Operations of a training step for each token, forward and backward, as model FLOPs utilisation counts them.

    Six for each weight of a matrix product, output layer included, and 12 * layers * heads * head_dim * length for
    attention, whose masked half counts too, as is the custom since PaLM. The input embedding is a look-up and free.
    """
    inner = size.heads * size.head_dim
    weights = size.layers * (4 * size.width * inner + 2 * size.width * size.mlp) + vocabulary * size.width
    return 6 * weights + 12 * size.layers * inner * length


def peak_flops(device_name: str) -> float | None:
    """Peak FLOP/s of a known GPU, None of anything else."""
    known = [name for name in PEAKS if re.search(rf"\b{name.replace(' ', ' ?')}\b", device_name)]
    return PEAKS[max(known, key=len)] if known else None


class Utilisation:
    """Share of the peak that a run's speed amounts to, on the devices of all its processes; empty where no peak is known."""

    def __init__(self, config: dict, vocabulary: int, process: Process):
        peak = peak_flops(process.device_name()) if process.device.type == "cuda" else None
        needed = flops_per_token(SIZES[config["size"]], vocabulary, config["length"])
        self.of_a_token = needed / (peak * process.world) if peak else None

    def facts(self, tokens_per_second: float) -> dict:
        """For result files."""
        return {"mfu": round(tokens_per_second * self.of_a_token, 4)} if self.of_a_token else {}

    def note(self, tokens_per_second: float) -> str:
        """For the progress line."""
        return f"{tokens_per_second * self.of_a_token:.0%} MFU | " if self.of_a_token else ""
