"""What a run says of itself while it trains: the loss of each language, and `metrics.jsonl`, one JSON object a line."""

import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common import UserError, write_atomic
from process import Process


class LanguageLosses:
    """Adds up the losses of each language between two lines of the log, on the device, so that no step waits for it."""

    def __init__(self, names: list[str], process: Process):
        self.names, self.process = names, process
        self.sums = torch.zeros(len(names), 2, dtype=torch.float64, device=process.device)  # nats, targets

    def add(self, chosen: np.ndarray, losses: Tensor) -> None:
        """Count the (n, length) losses of n sequences towards their (n,) languages."""
        nats = losses.double().sum(1)
        rows = torch.stack([nats, torch.full_like(nats, losses.shape[1])], dim=1)
        self.sums.index_add_(0, torch.from_numpy(chosen).to(rows.device), rows)

    def take(self, step: int) -> dict[str, float]:
        """Mean loss, over all processes, of each language that occurred since the last call.

        Raises:
            UserError: a loss is not finite; nothing learned from here on would be worth keeping.
        """
        sums = self.process.total(self.sums).tolist()
        self.sums.zero_()
        means = {name: nats / targets for name, (nats, targets) in zip(self.names, sums, strict=True) if targets}
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise UserError(
                    f"the loss of {name} is {mean} at step {step}; start again with a lower --learning-rate and another --out"
                )
        return means


def append_metrics(path: Path, line: dict) -> None:
    """Add one line to `metrics.jsonl`."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def forget_metrics_after(path: Path, step: int) -> None:
    """Remove what a stopped run logged after its last checkpoint: those steps are about to be repeated."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            break  # a line that the stop cut short; nothing follows it
    write_atomic(path, "".join(kept))
