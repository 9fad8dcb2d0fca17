"""How fast this project is on this machine, beside other ways to compute the same.

    python -m tests.bench                      # attention, loss and step
    python -m tests.bench attention tiles      # some of: attention loss step tiles

Whether results are right, the tests say. Ways take turns, so that a machine that slows down slows all of
them. Tables of median times are printed, and written to results/bench/NAME.json. What does not run here, for
want of memory say, is named and left out.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Measurement, Timer

from common import Parser, UserError, markdown, run_script, write
from kernels import attention as ways_of_attention
from kernels import capability, triton_runs
from kernels.attention import KERNELS, ROWS, causal_attention, plain_attention, sdpa_attention
from kernels.cross_entropy import linear_cross_entropy, plain_linear_cross_entropy
from machine import PRECISIONS, Process, default_precision, mixed_precision
from model import GPT, SIZES, Size, flops_per_token
from train import compile_model

ROUNDS, SECONDS = 5, 0.2  # turns of every way, and how long a turn is
TOKENS, BATCH = 512, {"cpu": 1, "cuda": 128}  # of a sequence, the paper's, and sequences
LOSSES = {  # tokens, ids, width: of the demo, and of ten clones; on a GPU of two languages, and of ten clones
    "cpu": [(4096, 4096, 128), (2048, 163_840, 128)],
    "cuda": [(16_384, 32_768, 768), (65_536, 32_768, 768), (65_536, 163_840, 768)],
}
STEPS = {  # size, ids, sequences at a time; on a CPU, the paper's model as small as the demo's
    "cpu": [(replace(SIZES["pico"], positions="learned", tied=False), 196, 8)],
    "cuda": [(SIZES["small"], 32_768, 16), (SIZES["small"], 32_768, 128), (SIZES["small"], 163_840, 128)],
}
PLAIN_LOGITS = 2**30  # tokens times ids, of which the plain ways hold all logits


def measure(shape: str, ways: dict[str, Callable], operations: float) -> list[dict]:
    """A row for each way that runs: the median time of a call, and operations a second."""
    timers, found = {}, {}
    for name, way in ways.items():
        timer = Timer("way()", globals={"way": way}, num_threads=torch.get_num_threads())
        try:
            timer.timeit(2)  # the first calls compile, load libraries and fill caches
        except Exception as error:
            print(
                f"{shape}: {name} does not run: {str(error).strip().splitlines()[0][:160]}", file=sys.stderr
            )
            continue
        timers[name], found[name] = timer, []
    for _ in range(ROUNDS):
        for name, timer in timers.items():
            found[name].append(timer.blocked_autorange(min_run_time=SECONDS))
    rows = []
    for name, turns in found.items():
        seconds = Measurement.merge(turns)[0].median
        speed = operations / seconds / 1e12
        rows.append({"shape": shape, "way": name, "ms": 1000 * seconds, "TFLOP/s": speed})
    return rows


def with_gradients(way: Callable, *inputs: Tensor, grad: Tensor | None = None) -> tuple[Tensor, ...]:
    """The gradients of what a way returns, or the first of it, by all inputs that want one."""
    out = way(*inputs)
    out = out[0] if isinstance(out, tuple) else out
    return torch.autograd.grad(out, [x for x in inputs if x.requires_grad], grad)


def deterministic(call: Callable) -> None:
    """Call, with PyTorch kept to algorithms that give the same bits each time."""
    torch.use_deterministic_algorithms(True)
    call()
    torch.use_deterministic_algorithms(False)


def attention(device: torch.device, precision: str) -> list[dict]:
    """Causal attention at the shapes of all sizes: as the model has it, plain, and PyTorch's."""
    ways, backends = {"ours": causal_attention, "plain": plain_attention}, ["flash"]
    if device.type == "cuda":  # where the plain way would take 15 GB
        ways, backends = {"ours": causal_attention}, ["flash", "efficient", "cudnn"]
    for name in backends:
        ways[f"sdpa {name}"] = sdpa_kernel(getattr(SDPBackend, f"{name.upper()}_ATTENTION"))(sdpa_attention)
    batch, rows = BATCH[device.type], []
    for heads, head_dim in dict.fromkeys((size.heads, size.head_dim) for size in SIZES.values()):
        qkv = torch.randn(batch, TOKENS, 3, heads, head_dim, device=device).to(PRECISIONS[precision])
        grad = torch.randn_like(qkv[:, :, 0])
        forward = {name: torch.no_grad()(partial(way, qkv)) for name, way in ways.items()}
        leaf = qkv.clone().requires_grad_()
        both = {name: partial(with_gradients, way, leaf, grad=grad) for name, way in ways.items()}
        if device.type == "cuda":  # the backward pass that repeats its bits
            both["sdpa flash, deterministic"] = partial(deterministic, both["sdpa flash"])
        one = batch * heads * TOKENS**2 * head_dim  # of one matrix product, half of which is masked
        rows += measure(f"{heads} x {head_dim}", forward, 2 * one)
        rows += measure(f"{heads} x {head_dim} and backward", both, 7 * one)
    return rows


def loss(device: torch.device, precision: str) -> list[dict]:
    """Output layer and cross-entropy, forward and backward: chunks of tokens, and all logits at once."""
    rows = []
    for tokens, ids, width in LOSSES[device.type]:
        ways = {"ours": linear_cross_entropy}
        if tokens * ids <= PLAIN_LOGITS:
            ways["plain"] = plain_linear_cross_entropy
            ways["plain compiled"] = torch.compile(plain_linear_cross_entropy, dynamic=False)
        hidden = torch.randn(tokens, width, device=device, requires_grad=True)
        weight = torch.randn(ids, width, device=device, requires_grad=True)
        targets = torch.randint(ids, (tokens,), device=device)
        calls = {name: partial(with_gradients, way, hidden, weight, targets) for name, way in ways.items()}
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


def training_step(model: nn.Module, size: Size, ids: int, micro_batch: int, precision: str) -> Callable:
    """A training step as train.py takes it, of made-up text, compiled."""
    device = next(model.parameters()).device
    frequency = 1 / torch.arange(1, ids + 1, device=device)  # words are not equally frequent
    drawn = torch.multinomial(frequency, size.batch * (size.length + 1), replacement=True)
    parts = drawn.view(-1, micro_batch, size.length + 1)
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.95), fused=True)

    def step() -> None:
        for tokens in parts:
            with mixed_precision(precision, device):
                mean, _ = model(tokens[:, :-1], tokens[:, 1:])
            (mean / len(parts)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def step(device: torch.device, precision: str) -> list[dict]:
    """A training step beside a plain GPT, both compiled; ours gives the same bits each time."""
    rows, process = [], Process(0, 1, device)
    peak = process.peak_flops()
    for size, ids, micro_batch in STEPS[device.type]:
        ours = GPT(size, ids, size.length).to(device)
        compile_model(ours, process)
        ways = {"ours": partial(deterministic, training_step(ours, size, ids, micro_batch, precision))}
        if micro_batch * size.length * ids <= PLAIN_LOGITS:
            plain = PlainGPT(size, ids, size.length).to(device)
            compile_model(plain, process)
            ways["plain"] = training_step(plain, size, ids, micro_batch, precision)
        tokens = size.batch * size.length
        shape = f"{size.layers} x {size.width}, {ids} ids, {tokens} tokens by {micro_batch * size.length}"
        operations = tokens * flops_per_token(size, ids, size.length)
        for row in measure(shape, ways, operations):
            utilisation = {"MFU": round(1e12 * row["TFLOP/s"] / peak, 3)} if peak else {}
            rows.append(row | {"tokens/s": round(1000 * tokens / row["ms"])} | utilisation)
        if device.type == "cuda":
            with torch.profiler.profile() as parts:
                ways["ours"]()
            print(parts.key_averages().table(sort_by="self_cuda_time_total", row_limit=15))
    return rows


def tiles(device: torch.device, _precision: str) -> list[dict]:
    """The attention kernels at the paper's shape, with the tiles of ROWS and with others; GPUs only."""
    if device.type != "cuda" or not triton_runs(device):
        raise UserError(f"tiles: the attention kernels do not run on this {device.type} device")
    chip, dtype = capability(device), torch.bfloat16
    qkv = torch.randn(BATCH["cuda"], TOKENS, 3, 12, 64, device=device, dtype=dtype)
    out, logsumexp = ways_of_attention.attention_operator(qkv)
    tensors = {"out": out, "logsumexp": logsumexp, "grad_out": torch.randn_like(out)}
    tensors |= {
        "grad_qkv": torch.empty_like(qkv),
        "statistics": torch.zeros(*logsumexp.shape, 2, device=device),
    }
    key, rows = ways_of_attention.key_of(chip, 64), []
    now = ROWS[key]

    def run(kernel, tile: tuple) -> None:
        ROWS[key] = now._replace(tiles=(tile, tile, tile))
        taken = {name: tensor for name, tensor in tensors.items() if name in kernel.arg_names}
        programs, arguments = ways_of_attention.launch(kernel, chip, qkv, **taken)
        kernel[programs,](**arguments)

    for kernel, ours in zip(KERNELS, now.tiles, strict=True):
        calls = {f"ours {tuple(ours)}": partial(run, kernel, ours)}
        for large, small, warps, stages in product((128, 64), (64, 32), (4, 8), (2, 3)):
            keys_first = kernel is ways_of_attention.grad_key_value_kernel
            tile = (small, large, warps, stages) if keys_first else (large, small, warps, stages)
            calls[str(tile)] = partial(run, kernel, tile)
        rows += measure(kernel.__name__, calls, 0)
    ROWS[key] = now
    return rows


SECTIONS = {section.__name__: section for section in (attention, loss, step, tiles)}


def table(rows: list[dict]) -> str:
    """Rows as Markdown."""
    cells = [[f"{x:.4g}" if isinstance(x, float) else str(x) for x in row.values()] for row in rows]
    return markdown(list(rows[0]), cells, left=2)


def main(arguments: list[str] | None = None) -> None:
    """Measure the sections that the command line names."""
    parser = Parser(__doc__)
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"{' '.join(SECTIONS)} (all but tiles)"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    parser.add_argument("--precision", choices=PRECISIONS, help="of matrix products (default: the fastest)")
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="default: %(default)s")
    args = parser.parse_args(arguments)
    for name in args.sections:
        if name not in SECTIONS:
            parser.error(f"{name}: expected some of {' '.join(SECTIONS)}")
    process = Process.current(args.device)
    precision = args.precision or default_precision(process.device)
    ways_of_attention.choose(None, process.device, precision)
    facts = {"device": process.device_name(), "torch": torch.__version__, "precision": precision}
    print(", ".join(facts.values()), flush=True)
    for name in args.sections or ["attention", "loss", "step"]:
        torch.use_deterministic_algorithms(False)  # so PyTorch's ways are at their best
        rows = SECTIONS[name](process.device, precision)
        print(f"\n{name}: {SECTIONS[name].__doc__}\n\n{table(rows)}", flush=True)
        write(args.out / f"{name}.json", facts | {"rows": rows})


if __name__ == "__main__":
    run_script(main)
