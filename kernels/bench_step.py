"""A whole training step, side by side: this project's, and a GPT that one would build from PyTorch's own parts.

    python -m kernels.bench --step
    python -m kernels.bench --step --clones          # does a language cost more than its operations? 1, 2, 5, 10 clones

`plain` is made of `nn.TransformerEncoderLayer`, `nn.Linear` and `F.cross_entropy`, with the same sizes, the same Adam
and the same batch. Rounds of all variants take turns, so that a machine that slows down slows them all, and the median
round counts; the ratios are what carries over to other machines.
"""

import contextlib
import importlib.util
import itertools
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flops import flops_per_token
from kernels.cross_entropy import linear_cross_entropy
from model import GPT, Size
from process import Process, bf16_helps, mixed_precision


class Shape(NamedTuple):
    """What is trained: the model, the ids of all languages together, and a batch of `batch` sequences of `length` tokens."""

    size: Size
    vocabulary: int
    length: int
    batch: int


class PlainGPT(nn.Module):
    """The same GPT, from PyTorch's own layers."""

    def __init__(self, shape: Shape):
        super().__init__()
        size = shape.size
        layer = nn.TransformerEncoderLayer(
            size.width, size.heads, size.mlp, dropout=0.0, activation=nn.GELU("tanh"), batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, size.layers, nn.LayerNorm(size.width), enable_nested_tensor=False)
        self.tokens, self.positions = nn.Embedding(shape.vocabulary, size.width), nn.Embedding(shape.length, size.width)
        self.output = nn.Linear(size.width, shape.vocabulary, bias=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(shape.length))

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, None]:
        """Ids and targets, (batch, length) each -> the mean loss."""
        x = self.tokens(tokens) + self.positions.weight
        logits = self.output(self.blocks(x, mask=self.mask, is_causal=True))
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten()), None


def hugging_face(shape: Shape) -> nn.Module:
    """GPT-2 of the transformers library with the same sizes (its two embeddings are one matrix)."""
    import transformers  # optional, and slow to import

    size = shape.size
    config = transformers.GPT2Config(shape.vocabulary, shape.length, size.width, size.layers, size.heads, size.mlp,
                                     resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False)  # fmt: skip

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.gpt = transformers.GPT2LMHeadModel(config)

        def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, None]:
            logits = self.gpt(tokens).logits
            return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten()), None

    return Wrapped()


def ours(shape: Shape) -> nn.Module:
    """This project's model."""
    return GPT(shape.size, shape.vocabulary, shape.length)


def variants(process: Process) -> dict[str, tuple[Callable, str, bool]]:
    """What is compared, by name: (model, precision, compiled)."""
    models = {"plain": PlainGPT, "nanoBabel": ours}
    if importlib.util.find_spec("transformers"):
        models["transformers"] = hugging_face
    precisions = ["fp32", "bf16"] if bf16_helps(process.device) else ["fp32"]
    every = itertools.product(models.items(), precisions, (False, True))
    return {
        f"{name} {precision} {'compiled' if compiled else 'eager'}": (make, precision, compiled)
        for (name, make), precision, compiled in every
    }


def synchronize(device: torch.device) -> None:
    """Wait for the device, so that a clock tells what it did."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def make_step(make: Callable, precision: str, compiled: bool, shape: Shape, process: Process) -> Callable[[], None]:
    """A function that trains one step on random tokens."""
    model = make(shape).to(process.device)
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.95), fused=True)
    windows = torch.randint(shape.vocabulary, (shape.batch, shape.length + 1), device=process.device)
    forward = torch.compile(model, dynamic=False) if compiled else model

    def step() -> None:
        with mixed_precision(precision, process.device):
            mean, _ = forward(windows[:, :-1], windows[:, 1:])
        mean.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        synchronize(process.device)

    return step


def time_rounds(steps: dict[str, Callable[[], None]], rounds: int, seconds: float, say: Callable) -> dict[str, float]:
    """Seconds of one step of each: the median over `rounds` turns of about `seconds` each."""
    for name, step in steps.items():
        say(f"compiling and warming up: {name}")
        for _ in range(3):
            step()
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for name, step in steps.items():
            begin, count = time.perf_counter(), 0
            while (now := time.perf_counter()) - begin < seconds:
                step()
                count += 1
            taken[name].append((now - begin) / count)
    return {name: statistics.median(values) for name, values in taken.items()}


def split_step(shape: Shape, precision: str, process: Process, rounds: int = 20) -> dict[str, float]:
    """Milliseconds of the parts of this project's compiled step: the median of each over `rounds` steps."""
    model = ours(shape).to(process.device)
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.95), fused=True)
    hidden_of = torch.compile(model.hidden, dynamic=False)
    loss_of = torch.compile(linear_cross_entropy, dynamic=False)
    taken: dict[str, list[float]] = {}

    @contextlib.contextmanager
    def clock(name: str):
        begin = time.perf_counter()
        yield
        synchronize(process.device)
        taken.setdefault(name, []).append(1e3 * (time.perf_counter() - begin))

    for _ in range(rounds + 3):
        with clock("data"):
            windows = torch.randint(shape.vocabulary, (shape.batch, shape.length + 1)).to(process.device)
        with mixed_precision(precision, process.device):
            with clock("forward"):
                hidden = hidden_of(windows[:, :-1])
            leaf = hidden.detach().requires_grad_()
            with clock("loss"):  # and its gradients
                mean, _ = loss_of(leaf, model.output.weight, windows[:, 1:])
                mean.backward()
        with clock("backward"):
            hidden.backward(leaf.grad)
        with clock("optimiser"):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return {name: statistics.median(values[3:]) for name, values in taken.items()}


def clone_costs(shape: Shape, precision: str, process: Process, rounds: int, seconds: float, say: Callable) -> list[dict]:
    """What 1, 2, 5 and 10 clones of the vocabulary cost, measured and counted, as multiples of the first."""
    shapes = {clones: shape._replace(vocabulary=clones * shape.vocabulary) for clones in (1, 2, 5, 10)}
    steps = {str(clones): make_step(ours, precision, True, larger, process) for clones, larger in shapes.items()}
    times = time_rounds(steps, rounds, seconds, say)
    counted = {str(n): flops_per_token(s.size, s.vocabulary, s.length) for n, s in shapes.items()}
    return [
        {"clones": int(n), "seconds": t, "measured": t / times["1"], "counted": counted[n] / counted["1"]}
        for n, t in times.items()
    ]
