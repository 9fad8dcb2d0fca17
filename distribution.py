"""One model on several processes: replicated (DDP) or, where it outgrows one GPU, in shards (FSDP2).

Both are wrapped here and nowhere else, and a checkpoint is the same whichever is used: whole tensors, written by the
first process. A run can be continued on another number of processes, with or without --fsdp.
"""

import contextlib
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from model import GPT
from process import Process

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
FROM_FIRST = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)


def shard(model: GPT, process: Process) -> None:
    """Split every block's parameters, and then all others, among the processes; in place."""
    mesh = dist.init_device_mesh(process.device.type, (process.world,))
    for part in [*model.blocks, model]:
        fully_shard(part, mesh=mesh)


def replicate(forward: nn.Module, inputs: Tensor, targets: Tensor, process: Process) -> nn.Module:
    """The model with its gradients averaged over processes while the backward pass still runs.

    DDP arranges its buckets anew after the first backward pass, and from how they lie follows how sums round. So one
    is made here that leads to nothing: a run that goes on then rounds as one that was never stopped.
    """
    if process.world == 1:
        return forward
    replica = DistributedDataParallel(forward, gradient_as_bucket_view=True)
    replica(inputs, targets)[0].backward()
    replica.zero_grad(set_to_none=True)
    return replica


@contextlib.contextmanager
def exchange_gradients(forward: nn.Module, now: bool) -> Iterator[None]:
    """Within it, a backward pass exchanges gradients with the other processes, or, until the last part of a step, does not."""
    if isinstance(forward, FSDPModule):
        forward.set_requires_gradient_sync(now)
        yield
    elif now or not isinstance(forward, DistributedDataParallel):
        yield
    else:
        with forward.no_sync():
            yield


def whole_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    """Weights and optimiser state as whole tensors; where the model is in shards, at the first process alone."""
    return {
        "model": get_model_state_dict(model, options=WHOLE),
        "optimizer": get_optimizer_state_dict(model, optimizer, options=WHOLE),
    }


def load_whole_state(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Undo `whole_state`; with shards, what the first process was given counts."""
    options = FROM_FIRST if isinstance(model, FSDPModule) else WHOLE
    set_model_state_dict(model, state["model"], options=options)
    set_optimizer_state_dict(model, optimizer, state["optimizer"], options=options)


def all_finite(model: nn.Module, process: Process) -> bool:
    """Whether every weight is a number, those of other processes included."""
    parameters = (p.to_local() if isinstance(p, DTensor) else p for p in model.parameters())
    broken = torch.tensor([sum(not parameter.isfinite().all() for parameter in parameters)])
    return process.total(broken).item() == 0
