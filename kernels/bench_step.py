"""A whole training step: this project's, beside a GPT that one would build from PyTorch's own parts.

`plain` is made of `nn.TransformerEncoderLayer`, `nn.Linear` and `F.cross_entropy`, with the same sizes, the same Adam and the
same batch; `transformers` is Hugging Face's GPT-2, if installed. Then where the time of this project's step goes.
"""

import contextlib
import importlib.util
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from common import write_figure
from flops import flops_per_token
from kernels.cross_entropy import linear_cross_entropy
from kernels.timing import milliseconds
from model import GPT, SIZES, Size
from process import keep_freed_memory, mixed_precision


class Shape(NamedTuple):
    """What is trained: the model, the ids of all languages together, and a batch of `batch` sequences of `length` tokens."""

    size: Size
    vocabulary: int
    length: int
    batch: int


def shape_for(device: torch.device) -> Shape:
    """What the paper trains, on a GPU; on a CPU four layers, which are enough to see everything."""
    if device.type == "cuda":
        return Shape(SIZES["small"], 2 * 16_384, 512, 32)
    return Shape(Size(4, 256, 4, 64, 1024), 8192, 256, 16)


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


MODELS = {"plain": PlainGPT, "nanoBabel": ours}


def make_step(make: Callable[[Shape], nn.Module], dtype: torch.dtype, compiled: bool, shape: Shape, device) -> Callable[[], None]:
    """A function that trains one step on random tokens."""
    model = make(shape).to(device)
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.95), fused=True)
    windows = torch.randint(shape.vocabulary, (shape.batch, shape.length + 1), device=device)
    forward = torch.compile(model, dynamic=False) if compiled else model

    def step() -> None:
        with mixed_precision(name_of(dtype), device):
            mean, _ = forward(windows[:, :-1], windows[:, 1:])
        mean.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def name_of(dtype: torch.dtype) -> str:
    """As --precision spells it."""
    return {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[dtype]


def split_step(shape: Shape, dtype: torch.dtype, device: torch.device, steps: int) -> dict[str, float]:
    """Milliseconds of the parts of this project's compiled step: the median of each."""
    model = ours(shape).to(device)
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.95), fused=True)
    hidden_of, loss_of = torch.compile(model.hidden, dynamic=False), torch.compile(linear_cross_entropy, dynamic=False)
    taken: dict[str, list[float]] = {}

    @contextlib.contextmanager
    def clock(name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.setdefault(name, []).append(1e3 * (time.perf_counter() - begin))

    for _ in range(steps + 3):
        with clock("data"):
            windows = torch.randint(shape.vocabulary, (shape.batch, shape.length + 1)).to(device)
        with mixed_precision(name_of(dtype), device):
            with clock("forward"):
                hidden = hidden_of(windows[:, :-1])
            leaf = hidden.detach().requires_grad_()
            with clock("loss and its gradients"):
                mean, _ = loss_of(leaf, model.output.weight, windows[:, 1:])
                mean.backward()
        with clock("backward"):
            hidden.backward(leaf.grad)
        with clock("optimiser"):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return {name: statistics.median(values[3:]) for name, values in taken.items()}


def measure(device: torch.device, dtype: torch.dtype, rounds: int, seconds: float) -> dict:
    """Milliseconds of a step, of every model, precision and with and without compiler; and of the parts of ours."""
    keep_freed_memory()  # as train.py does
    shape = shape_for(device)
    models = MODELS | ({"transformers": hugging_face} if importlib.util.find_spec("transformers") else {})
    every = itertools.product(models.items(), dict.fromkeys([torch.float32, dtype]), (False, True))
    steps = {
        f"{name} {name_of(kind)} {'compiled' if compiled else 'eager'}": make_step(make, kind, compiled, shape, device)
        for (name, make), kind, compiled in every
    }
    size, vocabulary, length, batch = shape
    print(f"a step of {size.layers} layers x {size.width}, {vocabulary} ids, {batch} x {length} tokens")
    print("compiling, then measuring, about two minutes ...", flush=True)
    times = milliseconds(steps, device, rounds, 20 * seconds)
    flops = flops_per_token(shape.size, shape.vocabulary, shape.length) * shape.batch * shape.length
    parts = split_step(shape, dtype, device, 4 * rounds)
    return {"shape": [*astuple(shape.size), *shape[1:]], "milliseconds": times, "flops": flops, "parts": parts}


def report(facts: dict) -> str:
    """A table of steps with their ratio to the plain compiled float32 one, and the parts of ours."""
    times, shape = facts["milliseconds"], facts["shape"]
    base, tokens = times["plain fp32 compiled"], shape[-1] * shape[-2]
    lines = [f"{'training step':32} {'ms':>8} {'tokens/s':>9} {'TFLOP/s':>8} {'speed':>6}"]
    for name, each in times.items():
        speed = f"{base / each:.2f}x"
        lines.append(f"{name:32} {each:8.1f} {1e3 * tokens / each:9.0f} {facts['flops'] / each / 1e9:8.2f} {speed:>6}")
    parts = ", ".join(f"{name} {each:.1f}" for name, each in facts["parts"].items())
    return "\n".join([*lines, f"parts of nanoBabel's compiled {facts['dtype']} step in ms: {parts}"])


def chart(facts: dict, path: Path) -> None:
    """Tokens per second as bars."""
    times, shape = facts["milliseconds"], facts["shape"]
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(times), [1e3 * shape[-1] * shape[-2] / each for each in times.values()])
    axes.invert_yaxis()
    axes.set_xlabel("training tokens per second")
    axes.set_title(facts["device"])
    write_figure(path, figure)
