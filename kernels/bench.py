"""How fast this project is on this machine, beside other ways to compute the same, and whether it is right.

    python -m kernels.bench                    # everything: about ten minutes on two cores
    python -m kernels.bench attention loss     # some of: attention loss step evaluation matching tiles

Every way takes turns with the others, so that a machine that slows down slows them all. Times of one machine
say little about another; how many times as long as ours the others take carries over. Tables are printed, and
written to results/bench/NAME.json. What does not run here, for want of memory say, is a line without figures.
"""

import ctypes
import re
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from align import match, plain_match
from common import Parser, Progress, UserError, markdown, run_script, write
from evaluate import score, sliding_windows
from kernels import attention as attention_kernels
from kernels import capability, triton_runs
from kernels.attention import KERNELS, SETTINGS, causal_attention, plain_attention, sdpa_attention
from kernels.cross_entropy import linear_cross_entropy, plain_linear_cross_entropy
from machine import PRECISIONS, Process, default_precision, mixed_precision
from model import GPT, SIZES, Size, flops_per_token
from train import spread

ROUNDS, SECONDS = 5, 0.2  # turns of every way, and how long a turn is
MOST_CALLS = {"cpu": 1000, "cuda": 50}  # of a turn; a GPU's queue of launches is finite
LAUNCHING = 400_000  # GPU clock cycles, a fifth of a millisecond, in which a CPU launches one call


def one_turn(call: Callable, calls: int, device: torch.device) -> float:
    """Milliseconds of `calls` calls. A GPU sleeps until all are launched, and counts its own time."""
    if device.type != "cuda":
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        return 1000 * (time.perf_counter() - begin)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    torch.cuda._sleep(calls * LAUNCHING)
    begin.record()
    for _ in range(calls):
        call()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end)


def timed(ways: dict[str, Callable], device: torch.device, operations: float = 0, **shape) -> list[dict]:
    """A row for each way, one of them "ours": its median time over ROUNDS turns, and its speed."""
    calls, turns, rows = {}, {name: [] for name in ways}, []
    for name, way in ways.items():  # the first calls compile, load libraries and fill caches
        try:
            each = min(one_turn(way, 1, device) for _ in range(2))
            calls[name] = max(1, min(MOST_CALLS[device.type], round(1000 * SECONDS / max(each, 1e-3))))
        except Exception as error:
            if name == "ours":
                raise
            print(f"{name} does not run: {str(error).strip().splitlines()[0][:160]}", file=sys.stderr)
    for _ in range(ROUNDS):
        for name, number in calls.items():
            turns[name].append(one_turn(ways[name], number, device) / number)
    for name, found in turns.items():
        ms = statistics.median(found) if found else None
        row = shape | {"way": name, "ms": ms, "times ours": ms and ms / statistics.median(turns["ours"])}
        rows.append(row | {"TFLOP/s": ms and operations / ms / 1e9} if operations else row)
    return rows


def with_gradients(way: Callable, inputs: list[Tensor], grad: Tensor | None = None) -> list[Tensor]:
    """What a way returns, or the first of it, and its gradients by all inputs but ids."""
    leaves = [x.detach().requires_grad_(x.is_floating_point()) for x in inputs]
    out = way(*leaves)
    out = out[0] if isinstance(out, tuple) else out
    return [out.detach(), *torch.autograd.grad(out, [x for x in leaves if x.requires_grad], grad)]


def errors(ways: dict[str, Callable], inputs: list[Tensor], grad: Tensor | None = None) -> dict:
    """Largest relative error of output and gradients, of ways that run here; plain float64 is exact."""
    wide = [x.double() if x.is_floating_point() else x for x in inputs]
    exact = with_gradients(ways["plain"], wide, None if grad is None else grad.double())
    found = dict.fromkeys(ways)
    for name, way in ways.items():
        with suppress(() if name == "ours" else Exception):  # it does not run here, as `timed` will say
            pairs = zip(with_gradients(way, inputs, grad), exact, strict=True)
            found[name] = max(((one.double() - other).norm() / other.norm()).item() for one, other in pairs)
    return found


def extra_megabytes(call: Callable, device: torch.device) -> float:
    """What a call needs at its peak beyond what is held before it; of a CPU, by Linux's count."""

    def peak() -> float:
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated(device) / 1e6
        return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024 / 1e6

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform != "linux":
        return float("nan")
    else:
        ctypes.CDLL(None).malloc_trim(0)  # what earlier calls freed is given back,
        Path("/proc/self/clear_refs").write_text("5")  # and the peak is what is held now
    before = peak()
    call()
    return peak() - before


# --- the sections, each the rows of a table -----------------------------------------------------------------

TOKENS, BATCH = 512, {"cpu": 1, "cuda": 128}  # of a sequence, the paper's, and sequences
BACKENDS = {"cpu": ["flash"], "cuda": ["flash", "efficient", "cudnn"]}


def deterministic(call: Callable) -> Callable:
    """The call, with PyTorch kept to algorithms that give the same bits each time."""

    def kept() -> None:
        torch.use_deterministic_algorithms(True)
        call()
        torch.use_deterministic_algorithms(False)

    return kept


def attention(device: torch.device, precision: str) -> list[dict]:
    """Causal attention at the shapes of all sizes: as the model has it, plain, by PyTorch's backends."""
    ways = {"ours": causal_attention, "plain": plain_attention}
    for name in BACKENDS[device.type]:
        ways[f"sdpa {name}"] = sdpa_kernel(getattr(SDPBackend, f"{name.upper()}_ATTENTION"))(sdpa_attention)
    batch, rows = BATCH[device.type], []
    for heads, head_dim in dict.fromkeys((size.heads, size.head_dim) for size in SIZES.values()):
        qkv = torch.randn(batch, TOKENS, 3, heads, head_dim, device=device).to(PRECISIONS[precision])
        grad = torch.randn_like(qkv[:, :, 0])
        found = errors(ways, [qkv[:2]], grad[:2])
        forward = {name: torch.no_grad()(partial(way, qkv)) for name, way in ways.items()}
        both = {name: partial(with_gradients, way, [qkv], grad) for name, way in ways.items()}
        if device.type == "cuda":  # the backward pass that repeats its bits
            both["sdpa flash, deterministic"] = deterministic(both["sdpa flash"])
        one = batch * heads * TOKENS**2 * head_dim  # of one matrix product, half of which is masked
        for direction, calls, products in (("forward", forward, 2), ("and backward", both, 7)):
            shape = {"heads": f"{heads} x {head_dim}", "direction": direction}
            for row in timed(calls, device, products * one, **shape):
                rows.append(row | {"error": found.get(row["way"])})
    return rows


LOSSES = {  # tokens, ids, width: of the demo, of two languages, of ten clones; on a GPU at the paper's width
    "cpu": [(4096, 4096, 128), (4096, 32_768, 128), (2048, 163_840, 128)],
    "cuda": [(65_536, 32_768, 768), (65_536, 163_840, 768)],
}


def loss(device: torch.device, precision: str) -> list[dict]:
    """Output layer and cross-entropy, forward and backward: chunks of tokens, and all logits at once."""
    plain, rows = plain_linear_cross_entropy, []
    for tokens, ids, width in LOSSES[device.type]:
        compiled = torch.compile(plain, dynamic=False)
        ways = {"ours": linear_cross_entropy, "plain": plain, "plain compiled": compiled}
        hidden = torch.randn(tokens, width, device=device)
        weight = torch.randn(ids, width, device=device) / width**0.5
        targets = torch.randint(ids, (tokens,), device=device)
        with mixed_precision(precision, device):
            found = errors(ways, [hidden[:512], weight, targets[:512]])
            calls = {n: partial(with_gradients, way, [hidden, weight, targets]) for n, way in ways.items()}
            for row in timed(calls, device, 6 * tokens * ids * width, tokens=tokens, ids=ids):
                extra = row["ms"] and extra_megabytes(calls[row["way"]], device)
                rows.append(row | {"extra MB": extra, "error": found[row["way"]]})
    return rows


class PlainBlock(nn.Module):
    """A block as one would write it by hand."""

    def __init__(self, size: Size):
        super().__init__()
        width, self.heads, inner = size.width, size.heads, size.heads * size.head_dim
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.query_key_value, self.project = nn.Linear(width, 3 * inner), nn.Linear(inner, width)
        self.mlp = nn.Sequential(nn.Linear(width, size.mlp), nn.GELU("tanh"), nn.Linear(size.mlp, width))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.query_key_value(self.norms[0](x)).chunk(3, dim=-1)
        heads = [part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts]
        x = x + self.project(
            F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2)
        )
        return x + self.mlp(self.norms[1](x))


class PlainGPT(nn.Module):
    """The same GPT of PyTorch's own operations: fused attention, all logits at once."""

    def __init__(self, size: Size, vocabulary: int, length: int):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, size.width), nn.Embedding(length, size.width)
        self.blocks = nn.Sequential(*(PlainBlock(size) for _ in range(size.layers)), nn.LayerNorm(size.width))
        self.output = nn.Linear(size.width, vocabulary, bias=False)

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, None]:
        logits = self.output(self.blocks(self.tokens(tokens) + self.positions.weight))
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten()), None


STEPS = {  # size and ids: the paper's model as small as the demo's, and with pieces; with 1, 2 and 10 clones
    "cpu": [
        (replace(SIZES["pico"], positions="learned", tied=False), 196),
        (Size(4, 256, 4, 64, 1024, length=256, batch=16), 8192),
    ],
    "cuda": [(SIZES["small"], ids) for ids in (16_384, 32_768, 163_840)],
}


def training(kind: type, size: Size, ids: int, deterministic: bool, device: torch.device, precision: str):
    """A function that takes a training step of a model of this kind as train.py does, its text made up."""
    parts = -(-size.batch // size.micro_batch)
    # Words are not equally frequent, and those that repeat are what an embedding's gradient waits for.
    frequency = 1 / torch.arange(1, ids + 1, device=device)
    drawn = torch.multinomial(frequency, size.batch * (size.length + 1), replacement=True)
    batches = drawn.view(parts, -1, size.length + 1)
    model = kind(size, ids, size.length).to(device)
    forward = spread(model, True, False, precision, Process(0, 1, device), batches[0])
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.95), fused=True)

    def call() -> None:
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        for tokens in batches:
            with mixed_precision(precision, device):
                mean, _ = forward(tokens[:, :-1], tokens[:, 1:])
            (mean / parts).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return call


def step(device: torch.device, precision: str) -> list[dict]:
    """A training step, on GPUs with and without determinism, beside a plain GPT; all of them compiled."""
    rows, peak = [], Process(0, 1, device).peak_flops()
    for size, ids in STEPS[device.type]:
        calls = {}
        for name, kind in (("ours", GPT), ("plain", PlainGPT)):
            calls[name] = training(kind, size, ids, True, device, precision)
            if device.type == "cuda":
                calls[f"{name}, not deterministic"] = training(kind, size, ids, False, device, precision)
        tokens = size.batch * size.length
        operations = tokens * flops_per_token(size, ids, size.length)
        shape = {"model": f"{size.layers} x {size.width}", "tokens": tokens, "ids": ids}
        for row in timed(calls, device, operations, **shape):
            row["tokens/s"] = row["ms"] and round(1000 * tokens / row["ms"])
            rows.append(row | ({"MFU": row["ms"] and 1e12 * row["TFLOP/s"] / peak} if peak else {}))
        if device.type == "cuda":
            with torch.profiler.profile() as parts:
                calls["ours"]()
            print(parts.key_averages().table(sort_by="self_cuda_time_total", row_limit=20))
    return rows


TEXTS = [(4096, 128, 4000), (32_768, 512, 4000), (163_840, 512, 2000)]  # ids, tokens of window and text


@torch.inference_mode()
def score_one_at_a_time(model: GPT, text: np.ndarray) -> np.ndarray:
    """What one would write first: every window on its own, with the logits of all of its positions."""
    nats, length = [], model.length
    for start, counted in zip(*sliding_windows(len(text) - 1, length, length // 4), strict=True):
        window = torch.from_numpy(text[start : start + length + 1]).to(model.output_embedding.device)
        logits = F.linear(model.hidden(window[None, :-1]), model.output_embedding)[0]
        nats.append(F.cross_entropy(logits, window[1:], reduction="none")[-counted:])
    return torch.cat(nats).cpu().numpy()


def evaluation(device: torch.device, _precision: str) -> list[dict]:
    """Sliding-window scores of a text: as evaluate.py does it, and a window at a time in float32."""
    rows = []
    for ids, length, tokens in TEXTS:
        model = GPT(SIZES["nano"], ids, length).to(device)
        text = np.random.default_rng(0).integers(0, ids, tokens)
        ours = partial(score, model, text, Progress("", tokens, "tokens", quiet=True))
        ways = {"ours": ours, "one at a time": partial(score_one_at_a_time, model, text)}
        close = 1e-5 if device.type == "cpu" else 0.05  # of a token's nats; on GPUs ours has 16-bit products
        np.testing.assert_allclose(*(way() for way in ways.values()), rtol=close, atol=close)
        rows += timed(ways, device, ids=ids, window=length)
    return rows


def matching(_device: torch.device, _precision: str) -> list[dict]:
    """Tokens of two texts matched by similarity: align.py's way, and NetworkX with an edge for each pair."""
    rows = []
    for tokens in (25, 50, 100):
        similarity = np.random.default_rng(0).normal(size=(tokens, tokens))
        ways = {"ours": partial(match, similarity), "NetworkX": partial(plain_match, similarity)}
        rows += timed(ways, torch.device("cpu"), tokens=tokens)
    return rows


def tiles(device: torch.device, _precision: str) -> list[dict]:
    """The attention kernels at the paper's shape, with the tiles of SETTINGS and with others; GPUs only."""
    if not triton_runs(device):
        raise UserError(f"tiles: the attention kernels do not run on this {device.type} device")
    qkv = torch.randn(BATCH[device.type], TOKENS, 3, 12, 64, device=device, dtype=torch.bfloat16)
    grad_out = torch.randn_like(qkv[:, :, 0])
    out, logsumexp = attention_kernels.attention_operator(qkv)
    tensors = {"out": out, "logsumexp": logsumexp, "grad_out": grad_out, "grad_qkv": torch.empty_like(qkv)}
    tensors["statistics"] = torch.zeros(*logsumexp.shape, 2, device=device)
    key, rows = attention_kernels.setting(capability(device), qkv.dtype, 64), []
    now = SETTINGS[key]

    def launch(place: int, tile: tuple) -> None:
        SETTINGS[key] = (*now[:place], tile, *now[place + 1 :])
        taken = {name: tensor for name, tensor in tensors.items() if name in KERNELS[place].arg_names}
        attention_kernels.run(KERNELS[place], qkv, **taken)

    for place, kernel in enumerate(KERNELS):
        calls = {"ours": partial(launch, place, now[place])}
        for large, small, *rest in product((128, 64), (64, 32), (4, 8), (2, 3)):
            sides = (small, large) if "key_value" in kernel.__name__ else (large, small)
            calls[str((*sides, *rest))] = partial(launch, place, (*sides, *rest))
        rows += timed(calls, device, kernel=kernel.__name__)
    SETTINGS[key] = now
    return rows


SECTIONS = {section.__name__: section for section in (attention, loss, step, evaluation, matching, tiles)}


def table(rows: list[dict]) -> str:
    """Rows as Markdown."""

    def cell(x) -> str:
        return "-" if x is None else f"{x:.4g}" if isinstance(x, float) else str(x)

    cells = [list(map(cell, row.values())) for row in rows]
    return markdown(list(rows[0]), cells)


def main(arguments: list[str] | None = None) -> None:
    """Measure the sections that the command line names."""
    parser = Parser(__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{' '.join(SECTIONS)} (all)")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="(cuda where there is one)")
    parser.add_argument("--precision", choices=PRECISIONS, help="of matrix products (the fastest)")
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="(%(default)s)")
    args = parser.parse_args(arguments)
    if unknown := set(args.sections) - set(SECTIONS):
        parser.error(f"{' '.join(sorted(unknown))}: expected some of {' '.join(SECTIONS)}")
    process = Process.current(args.device)
    attention_kernels.choose(None, process.device)
    precision = args.precision or default_precision(process.device)
    facts = {"device": process.device_name(), "torch": torch.__version__, "precision": precision}
    print(", ".join(facts.values()), flush=True)
    for name in args.sections or [name for name in SECTIONS if name != "tiles"]:
        # PyTorch's ways are shown at their best, unless one asks for determinism; ours are deterministic.
        torch.use_deterministic_algorithms(False)
        rows = SECTIONS[name](process.device, precision)
        write(args.out / f"{name}.json", facts | {"rows": rows})
        print(f"\n{name}: {SECTIONS[name].__doc__}\n\n{table(rows)}", flush=True)


if __name__ == "__main__":
    run_script(main)
