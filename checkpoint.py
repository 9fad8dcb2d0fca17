"""Weights and optimiser state on disk: never half-written, never executed when read, and never only one of them."""

import os
import pickle
import zipfile
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from common import UserError
from distribution import all_finite, load_whole_state, whole_state
from process import Process


def save_weights(path: Path, state: dict, keep: Path | None = None) -> None:
    """Replace `path` by `state` (tensors, numbers and containers of them); what was there before goes to `keep`.

    The new file is complete, and on the disk, before anything older is touched.

    Raises:
        UserError: it cannot be written, as on a full disk; what was there before still is.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # PyTorch's writer reports a full disk as a RuntimeError
        temporary.unlink(missing_ok=True)
        why = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise UserError(f"{path} cannot be written ({why}); the checkpoint before it is kept") from None
    if keep and path.exists():
        os.replace(path, keep)
    os.replace(temporary, path)


def load_weights(path: Path, device: torch.device) -> dict:
    """Read what `save_weights` wrote, without executing anything the file may hold.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # which has a checksum of every tensor, and PyTorch does not look at it
            if bad := archive.testzip():
                raise ValueError(f"checksum of {bad}")
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except PermissionError:  # says nothing of what is in the file
        raise
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged and cannot be read ({type(error).__name__}); remove it and train again") from None


class Checkpoint:
    """The state of a run after some step, in `out/NAME/checkpoint.pt`, and that of an earlier one in `checkpoint-before.pt`.

    Args:
        parts: what else has a `state_dict` that belongs to the run, by name.
    """

    def __init__(self, out: Path, config: dict, model: nn.Module, optimizer: torch.optim.Optimizer, process: Process, **parts):
        self.path, self.before = out / "checkpoint.pt", out / "checkpoint-before.pt"
        self.config, self.model, self.optimizer, self.process, self.parts = config, model, optimizer, process, parts

    def save(self, step: int) -> None:
        """Keep the state after `step` steps; all processes call it, the first one writes.

        Raises:
            UserError: it cannot be written, or the weights are not finite.
        """
        if not all_finite(self.model, self.process):
            raise UserError(
                f"the weights are not finite after step {step}; start again with a lower --learning-rate and another --out"
            )
        state = whole_state(self.model, self.optimizer) | {name: part.state_dict() for name, part in self.parts.items()}
        if self.process.rank == 0:
            save_weights(self.path, state | {"step": step, "config": self.config}, keep=self.before)

    def restore(self) -> int:
        """Load the last state that can be read, if there is one, and return the number of finished steps.

        Raises:
            UserError: no file can be read, or one belongs to a run with other settings.
        """
        damaged = None
        for path in (self.path, self.before):
            if path.exists():
                try:
                    state = load_weights(path, torch.device("cpu"))
                except UserError as error:
                    damaged = error
                    continue
                if damaged:
                    self.process.say(f"warning: {self.path} is damaged, going on from the checkpoint before it")
                return self._use(path, state)
        if damaged:
            raise damaged
        return 0

    @staticmethod
    def remove(out: Path) -> None:
        """Forget both: the run is finished."""
        for name in ("checkpoint.pt", "checkpoint-before.pt"):
            (out / name).unlink(missing_ok=True)

    def _use(self, path: Path, state: dict) -> int:
        try:
            if differing := [key for key in self.config if key != "data" and state["config"].get(key) != self.config[key]]:
                raise ValueError(f"its {', '.join(differing)} differ")
            load_whole_state(self.model, self.optimizer, state)
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            return int(state["step"])
        except (torch.OutOfMemoryError, dist.DistError):  # a good checkpoint all the same
            raise
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            why = str(error).strip().splitlines()[0]
            raise UserError(f"{path} belongs to another run ({why}); remove it to start from the beginning") from None
