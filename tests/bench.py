"""How fast this project is on this machine, beside other ways to compute the same.

    python -m tests.bench              # attention, loss and step
    python -m tests.bench attention    # some of them, say after an edit of ROWS in kernels/attention.py

Whether results are right, the tests say. Ways take turns, so that a machine that slows down slows all of
them. Tables of median times are printed, and written to results/bench/NAME.json. What does not run here, for
want of memory say, is named and left out.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.benchmark import Measurement, Timer

from common import Parser, markdown, run_script, write
from kernels import attention as ways_of_attention
from kernels.attention import causal_attention, plain_attention, sdpa_attention
from kernels.cross_entropy import linear_cross_entropy, plain_linear_cross_entropy
from machine import PRECISIONS, Process, default_precision, mixed_precision
from model import GPT, MLP, SIZES, Size
from train import compile_model

ROUNDS, SECONDS = 5, 0.2  # turns of every way, and how long a turn is
TOKENS, BATCH = 512, {"cpu": 1, "cuda": 128}  # of a sequence, the paper's, and sequences
LOSSES = {  # tokens, ids, width: of the demo, and of ten clones; on a GPU of two languages, and of ten clones
    "cpu": [(4096, 4096, 128), (2048, 163_840, 128)],
    "cuda": [(16_384, 32_768, 768), (65_536, 32_768, 768), (65_536, 163_840, 768)],
}
SMALL = SIZES["small"]
STEPS = {  # size, ids, sequences at a time; on a CPU, the paper's model as small as the demo's
    "cpu": [(replace(SIZES["pico"], positions="learned", tied=False), 196, 8)],
    "cuda": [(SMALL, 32_768, 16), (SMALL, 32_768, 128), (SMALL, 163_840, 128)],
}

PEAKS = {  # dense 16-bit FLOP/s from the makers' data sheets; each key is a part of a device's name
    "A100": 312e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200 NVL": 835e12,
    "H200": 989e12, "B200": 2250e12, "L40S": 362e12, "A6000": 155e12, "RTX 3090": 71e12, "RTX 4090": 165e12,
    "V100": 125e12, "T4": 65e12,
}  # fmt: skip


def flops_per_token(size: Size, vocabulary: int, length: int) -> float:
    """Floating-point operations per token of a training step, forward and backward, as MFU counts them.

    Each weight of a matrix product, output layer included, takes 6 operations. Attention takes
    12 * layers * heads * head_dim * length.
    """
    inner = size.heads * size.head_dim
    attention = 4 * size.width * inner
    mlp = 2 * MLP * size.width**2
    weights = size.layers * (attention + mlp) + vocabulary * size.width
    return 6 * weights + 12 * size.layers * inner * length


def measure(shape: str, ways: dict[str, Callable], operations: float) -> list[dict]:
    """A row for each way that runs: the median time of a call, and operations a second."""
    turns = {}
    for name, way in ways.items():
        timer = Timer("way()", globals={"way": way}, num_threads=torch.get_num_threads())
        try:
            timer.timeit(2)  # the first calls compile, load libraries and fill caches
            turns[timer] = (name, [])
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            print(f"{shape}: {name} does not run: {reason[:160]}", file=sys.stderr)
    for _ in range(ROUNDS):
        for timer, (_, found) in turns.items():
            found.append(timer.blocked_autorange(min_run_time=SECONDS))
    rows = []
    for name, found in turns.values():
        seconds = Measurement.merge(found)[0].median
        speed = operations / seconds / 1e12
        rows.append({"shape": shape, "way": name, "ms": 1000 * seconds, "TFLOP/s": speed})
    return rows


def with_gradients(way: Callable, *inputs: Tensor) -> None:
    """What a way returns, or the first of it, and its gradients by all inputs that want one."""
    out = way(*inputs)
    out = out[0] if isinstance(out, tuple) else out
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    torch.autograd.grad(out, wanted, torch.ones_like(out))


def deterministic(call: Callable) -> None:
    """Call, with PyTorch kept to algorithms that give the same bits each time."""
    torch.use_deterministic_algorithms(True)
    call()
    torch.use_deterministic_algorithms(False)


ATTENTION = {"ours": causal_attention, "plain": plain_attention, "sdpa": sdpa_attention}


def attention(device: torch.device, precision: str) -> list[dict]:
    """Causal attention at the shapes of all sizes: as the model has it, plain, and PyTorch's."""
    batch, rows = BATCH[device.type], []
    shapes = {(size.heads, size.head_dim) for size in SIZES.values()}
    for heads, head_dim in sorted(shapes):
        qkv = torch.randn(batch, TOKENS, 3, heads, head_dim, device=device)
        qkv = qkv.to(PRECISIONS[precision]).requires_grad_()
        forward, both = {}, {}
        for name, way in ATTENTION.items():
            forward[name] = torch.no_grad()(partial(way, qkv))
            both[name] = partial(with_gradients, way, qkv)
        both["sdpa, deterministic"] = partial(deterministic, both["sdpa"])
        product = batch * heads * TOKENS**2 * head_dim  # operations of a matrix product, half of them masked
        rows += measure(f"{heads} x {head_dim}", forward, 2 * product)
        rows += measure(f"{heads} x {head_dim} and backward", both, 7 * product)
    return rows


def loss(device: torch.device, precision: str) -> list[dict]:
    """Output layer and cross-entropy, forward and backward: chunks of tokens, and all logits at once."""
    rows = []
    for tokens, ids, width in LOSSES[device.type]:
        hidden = torch.randn(tokens, width, device=device, requires_grad=True)
        weight = torch.randn(ids, width, device=device, requires_grad=True)
        targets = torch.randint(ids, (tokens,), device=device)
        ways = {
            "ours": linear_cross_entropy,
            "plain": plain_linear_cross_entropy,
            "plain compiled": torch.compile(plain_linear_cross_entropy, dynamic=False),
        }
        calls = {}
        for name, way in ways.items():
            calls[name] = partial(with_gradients, way, hidden, weight, targets)
        with mixed_precision(precision, device):
            rows += measure(f"{tokens} tokens, {ids} ids", calls, 6 * tokens * ids * width)
    return rows


class PlainGPT(GPT):
    """The same model of PyTorch's own operations: its attention, and all logits at once."""

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        ways_of_attention.chosen = "sdpa"
        hidden = self.hidden(tokens)
        ways_of_attention.chosen = None
        return plain_linear_cross_entropy(hidden, self.output_embedding, targets)


def training_step(model: GPT, micro_batch: int, autocast: torch.autocast) -> Callable:
    """A training step as train.py takes it, of made-up text, compiled."""
    size, ids = model.size, model.vocabulary
    device = model.output_embedding.device
    compile_model(model, Process(0, 1, device))
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.95), fused=True)
    frequency = 1 / torch.arange(1, ids + 1, device=device)  # words are not equally frequent
    drawn = torch.multinomial(frequency, size.batch * (size.length + 1), replacement=True)
    sequences = drawn.view(size.batch, size.length + 1)
    parts = sequences.split(micro_batch)

    def step() -> None:
        for tokens in parts:
            with autocast:
                mean, _ = model(tokens[:, :-1], tokens[:, 1:])
            (mean / len(parts)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def step(device: torch.device, precision: str) -> list[dict]:
    """A training step beside a plain GPT, both compiled; ours gives the same bits each time."""
    name = Process(0, 1, device).device_name()
    peak = next((flops for part, flops in PEAKS.items() if part in name), None)
    rows = []
    for size, ids, micro_batch in STEPS[device.type]:
        autocast = mixed_precision(precision, device)
        steps = []
        for kind in (GPT, PlainGPT):
            model = kind(size, ids, size.length).to(device)
            steps.append(training_step(model, micro_batch, autocast))
        ours = partial(deterministic, steps[0])
        ways = {"ours": ours, "plain": steps[1]}
        tokens = size.batch * size.length
        shape = f"{size.layers} x {size.width}, {ids} ids, {tokens} tokens by {micro_batch * size.length}"
        operations = tokens * flops_per_token(size, ids, size.length)
        for row in measure(shape, ways, operations):
            row["tokens/s"] = round(1000 * tokens / row["ms"])
            if peak:
                row["MFU"] = round(1e12 * row["TFLOP/s"] / peak, 3)
            rows.append(row)
        if device.type == "cuda":
            with torch.profiler.profile() as parts:
                ours()
            print(parts.key_averages().table(sort_by="self_cuda_time_total", row_limit=15))
    return rows


SECTIONS = {section.__name__: section for section in (attention, loss, step)}


def shown(value) -> str:
    """A cell of a table."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(arguments: list[str] | None = None) -> None:
    """Measure the sections that the command line names."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("sections", nargs="*", metavar="SECTION", help=f"{' '.join(SECTIONS)} (all)")
    add("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    add("--precision", choices=PRECISIONS, help="of matrix products (default: the fastest)")
    add("--out", type=Path, default=Path("results/bench"), help="default: %(default)s")
    args = parser.parse_args(arguments)
    if unknown := set(args.sections) - SECTIONS.keys():
        parser.error(f"{unknown.pop()}: expected some of {' '.join(SECTIONS)}")
    process = Process.current(args.device)
    precision = args.precision or default_precision(process.device)
    ways_of_attention.choose(None, process.device, precision)
    facts = {"device": process.device_name(), "torch": torch.__version__, "precision": precision}
    print(", ".join(facts.values()), flush=True)
    for name in args.sections or SECTIONS:
        torch.use_deterministic_algorithms(False)  # so PyTorch's ways are at their best
        rows = SECTIONS[name](process.device, precision)
        cells = [[shown(value) for value in row.values()] for row in rows]
        table = markdown(rows[0], cells, left=2)
        print(f"\n{name}: {SECTIONS[name].__doc__}\n\n{table}", flush=True)
        write(args.out / f"{name}.json", facts | {"rows": rows})


if __name__ == "__main__":
    run_script(main)
