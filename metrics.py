"""What a run says of itself while it trains: the loss of each language, and `metrics.jsonl`, one JSON object a line."""

import json
from collections.abc import Callable
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
        self.steps: dict[int, Tensor] = {}  # of each step since the last line: (languages, 2) nats and targets

    def add(self, step: int, chosen: np.ndarray, losses: Tensor) -> None:
        """Count the (n, length) losses of n sequences of a step towards their (n,) languages."""
        nats = losses.double().sum(1)
        rows = torch.stack([nats, torch.full_like(nats, losses.shape[1])], dim=1)
        sums = self.steps.setdefault(step, rows.new_zeros(len(self.names), 2))
        where = torch.from_numpy(chosen)
        if rows.is_cuda:
            where = where.pin_memory().to(rows.device, non_blocking=True)  # other copies wait for all that was started before
        sums.index_add_(0, where, rows)

    def take(self) -> dict[str, float]:
        """Mean loss, over all processes, of each language that occurred since the last call.

        Raises:
            UserError: a loss is not finite; nothing learned from here on would be worth keeping.
        """
        steps, sums = list(self.steps), self.process.total(torch.stack(list(self.steps.values()))).cpu().numpy()
        self.steps.clear()
        broken = np.argwhere(~np.isfinite(sums[..., 0]))  # in the order of the steps
        if len(broken):
            step, language = broken[0]
            raise UserError(
                f"the loss of {self.names[language]} is {sums[step, language, 0]} at step {steps[step]}; "
                "start again with a lower --learning-rate and another --out"
            )
        nats, targets = sums.sum(axis=0).T
        return {name: float(nats[i] / targets[i]) for i, name in enumerate(self.names) if targets[i]}


def weights_and_biases(project: str, config: dict, out: Path) -> Callable[[dict], None]:
    """Open the run in a Weights & Biases project and return what logs one line there; a resumed run continues its own."""
    import wandb  # an optional extra, and slow to import

    run = wandb.init(project=project, name=out.name, id=out.name, resume="allow", config=config, dir=out)
    return lambda line: run.log(line, step=line["step"])


def append_metrics(path: Path, line: dict) -> None:
    """Add one line to `metrics.jsonl`."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def last_metrics(path: Path) -> dict:
    """The last line."""
    return json.loads(path.read_text(encoding="utf-8").splitlines()[-1])


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
