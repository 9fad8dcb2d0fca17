"""Weights and optimiser state on disk: never half-written, never executed when read."""

import os
import pickle
from pathlib import Path

import torch
from torch import nn

from common import UserError


def save_weights(path: Path, state: dict) -> None:
    """Replace `path` by `state` (tensors, numbers and containers of them) in one step."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_weights(path: Path, device: torch.device) -> dict:
    """Read what `save_weights` wrote, without executing anything the file may hold.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is damaged and cannot be read ({type(error).__name__}); remove it and train again") from None


class Checkpoint:
    """`out/NAME/checkpoint.pt`: weights, optimiser state and the number of finished steps."""

    def __init__(self, out: Path, config: dict, model: nn.Module, optimizer: torch.optim.Optimizer):
        self.path, self.config, self.model, self.optimizer = out / "checkpoint.pt", config, model, optimizer

    def save(self, step: int) -> None:
        """Replace the checkpoint by the state after `step` steps."""
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        save_weights(self.path, state | {"step": step, "config": self.config})

    def restore(self, device: torch.device) -> int:
        """Load the state, if there is one, and return the number of finished steps.

        Raises:
            UserError: the file is damaged, or belongs to a run with other settings.
        """
        if not self.path.exists():
            return 0
        state = load_weights(self.path, device)
        try:
            if differing := [key for key in self.config if key != "data" and state["config"].get(key) != self.config[key]]:
                raise ValueError(f"its {', '.join(differing)} differ")
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            return int(state["step"])
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            why = str(error).strip().splitlines()[0]
            raise UserError(f"{self.path} belongs to another run ({why}); remove it to start from the beginning") from None
