"""Whether everything is right on this GPU: each check prints what it found and the most that it may be.

    python -m kernels.check                   # all checks, a few minutes; bash runs/gpu.sh starts them
    python -m kernels.check loss step         # some of: attention loss embeddings step split training
    python -m kernels.check tiles profile     # not checks: the time of other tiles, and where a step's goes

The first wrong number ends it, with what to try. What passed is kept in results/gpu/DEVICE/check.json and not
repeated until code, PyTorch or Triton change. With TRITON_INTERPRET=1 a CPU checks the same at small sizes.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from common import Parser, Progress, UserError, read_json, run_script, write
from evaluate import load_run, score
from kernels import attention as attention_kernels
from kernels import bench, capability, triton, triton_runs
from kernels.attention import KERNELS, SETTINGS, Tile
from kernels.cross_entropy import linear_cross_entropy, plain_linear_cross_entropy
from kernels.embedding import embedding_operator
from model import GPT, SIZES, Size
from train import PRECISIONS, Process, code_hash, default_precision, load_weights, mixed_precision, spread

Found = Iterator[tuple[str, float, float]]  # what was compared, the difference found, and the most it may be

# Sizes of the checks: a GPU's, and those that an interpreter has time for.
TYPES = {"cuda": ("bf16", "fp16", "fp32"), "cpu": ("fp32",)}
BOUNDS = {"bf16": 6e-3, "fp16": 1e-3, "fp32": 2e-5}  # relative errors of kernels
HEAD_DIMS, LENGTHS = {"cuda": (32, 64, 96, 128), "cpu": (32,)}, {"cuda": (1, 31, 257, 500, 512), "cpu": (1, 33)}
GRID = {"cuda": (128, 512, 12), "cpu": (2, 40, 1)}  # sequences, tokens, heads: every multiprocessor is busy
LOSSES = {"cuda": ((2000, 29_317), (3500, 163_840)), "cpu": ((20, 300),)}
TOKENS = {"cuda": 65_536, "cpu": 200}
MODELS = {"cuda": (SIZES["tiny"], 4096), "cpu": (Size(1, 32, 1, 32, 64, length=16, batch=2), 64)}
RUNS = {  # flags of a run that is stopped early
    "cuda": "--size nano --tokens 1.2e6 --save-every 20",
    "cpu": "--size nano --length 16 --batch 2 --warmup 2 --tokens 640 --save-every 2 --no-compile",
}
ADVICE = {
    "attention": "a newer ptxas (TRITON_PTXAS_PATH), other warps in SETTINGS, or train.py --attention sdpa",
    "loss": "a newer ptxas (TRITON_PTXAS_PATH), or TRITON_INTERPRET=1 to see whether the compiler is to blame",
    "step": "TORCHINDUCTOR_FORCE_DISABLE_CACHES=1, then train.py --no-compile",
    "split": "train.py without --fsdp",
    "training": "train.py --no-compile, then --attention sdpa",
}


def relative(one: Tensor, exact: Tensor, least: float = 1e-30) -> float:
    """|one - exact| / |exact|, in float64."""
    return ((one.double() - exact).norm() / exact.double().norm().clamp(min=least)).item()


def differ(one: list[Tensor], other: list[Tensor]) -> float:
    """How many of these tensors are not the same bits."""
    return sum(not torch.equal(*pair) for pair in zip(one, other, strict=True))


def attention(device: torch.device, _data: Path) -> Found:
    """Every row of SETTINGS that this chip uses against float64, the same bits again, and in a full grid."""
    if not triton_runs(device):
        raise UserError(f"the kernels do not run on this {device.type} device; on CPUs: TRITON_INTERPRET=1")
    way = attention_kernels.triton_attention
    for name in TYPES[device.type]:
        for head_dim in HEAD_DIMS[device.type]:
            for length in LENGTHS[device.type]:
                qkv = torch.randn(2, length, 3, 3, head_dim, device=device).to(PRECISIONS[name])
                grad = torch.randn_like(qkv[:, :, 0])
                once, twice = (bench.with_gradients(way, [qkv], grad) for _ in range(2))
                plain = attention_kernels.plain_attention
                out, exact = bench.with_gradients(plain, [qkv.double()], grad.double())
                least = 0.02 * exact.norm().item()  # of one token the gradients of query and key are 0
                parts = zip(once[1].unbind(2), exact.unbind(2), strict=True)
                error = max(relative(once[0], out), *(relative(*pair, least) for pair in parts))
                yield f"{name}, heads of {head_dim}, {length} tokens", error, BOUNDS[name]
                yield f"{name}, heads of {head_dim}, {length} tokens, again", differ(once, twice), 0
            batch, length, heads = GRID[device.type]
            qkv = torch.randn(batch, length, 3, heads, head_dim, device=device).to(PRECISIONS[name])
            grad = torch.randn_like(qkv[:, :, 0])
            whole, again = (bench.with_gradients(way, [qkv], grad) for _ in range(2))
            alone = bench.with_gradients(way, [qkv[-1:].contiguous()], grad[-1:].contiguous())
            yield f"{name}, heads of {head_dim}, full grid, again", differ(whole, again), 0
            yield f"{name}, heads of {head_dim}, last alone", differ([x[-1:] for x in whole], alone), 0


def loss(device: torch.device, _data: Path) -> Found:
    """Losses and gradients against float64, with several chunks and odd vocabularies, and the same bits again."""
    for name in TYPES[device.type]:
        for tokens, ids in LOSSES[device.type]:
            hidden, weight = (torch.randn(n, 768, device=device) for n in (tokens, ids))
            inputs = [hidden, weight / 768**0.5, torch.randint(ids, (tokens,), device=device)]
            with mixed_precision(name, device):
                once, twice = (bench.with_gradients(linear_cross_entropy, inputs) for _ in range(2))
            wide = [inputs[0].double(), inputs[1].double(), inputs[2]]
            exact = bench.with_gradients(plain_linear_cross_entropy, wide)
            yield f"{name}, {tokens} x {ids}", max(map(relative, once, exact)), 4 * BOUNDS[name]
            yield f"{name}, {tokens} x {ids}, again", differ(once, twice), 0


def embeddings(device: torch.device, _data: Path) -> Found:
    """The gradient of embeddings of which a few are asked for very often."""
    ids = torch.multinomial(1 / torch.arange(1, 1001, device=device), TOKENS[device.type], replacement=True)
    weight, grad = torch.randn(1000, 64, device=device), torch.randn(len(ids), 64, device=device)
    way = partial(embedding_operator, ids)
    once, twice = (bench.with_gradients(way, [weight], grad) for _ in range(2))
    exact = torch.zeros(1000, 64, device=device, dtype=torch.float64).index_add_(0, ids, grad.double())
    yield "gradient", relative(once[1], exact), 1e-5
    yield "gradient, again", differ(once, twice), 0


def gradients(forward: Callable, model: GPT, windows: Tensor, precision: str) -> list[Tensor]:
    """The loss of a model and all its gradients in one row."""
    model.zero_grad(set_to_none=True)
    with mixed_precision(precision, windows.device):
        mean, _ = forward(windows[:, :-1], windows[:, 1:])
    mean.backward()
    found = [getattr(p.grad, "full_tensor", lambda p=p: p.grad)() for p in model.parameters()]
    return [mean.detach().clone(), torch.cat([grad.flatten() for grad in found])]


def step(device: torch.device, _data: Path) -> Found:
    """A model compiled, eager, and with plain attention and loss: the same gradients, and the same bits again."""
    size, ids = MODELS[device.type]
    windows = torch.randint(ids, (16, size.length + 1), device=device)
    for precision in TYPES[device.type][::2]:  # fp16 would need its loss scaled
        torch.manual_seed(0)
        model, bound = GPT(size, ids, size.length).to(device), {"bf16": 0.03, "fp32": 1e-3}[precision]
        backend = "inductor" if device.type == "cuda" else "aot_eager"  # which needs no compiler
        compiled = torch.compile(model, dynamic=False, fullgraph=True, backend=backend)
        ways = {"eager": model, "compiled": compiled}
        found = {name: gradients(way, model, windows, precision) for name, way in ways.items()}
        for name, way in ways.items():
            yield f"{precision}, {name}, again", differ(found[name], gradients(way, model, windows, precision)), 0

        def plain(tokens: Tensor, targets: Tensor, model: GPT = model) -> tuple[Tensor, Tensor]:
            return plain_linear_cross_entropy(model.hidden(tokens), model.output.weight, targets)

        attention_kernels.choose("plain", device)
        exact = gradients(plain, model, windows, precision)
        attention_kernels.choose(None, device)
        for name in ways:
            yield f"{precision}, {name}", max(map(relative, found[name], exact)), bound


def split(device: torch.device, _data: Path) -> Found:
    """FSDP, in a group of one process, computes what one process does."""
    size, ids = MODELS[device.type]
    windows, precision = torch.randint(ids, (8, size.length + 1), device=device), TYPES[device.type][0]
    found = []
    for fsdp in (False, True):
        torch.manual_seed(0)
        model, process = GPT(size, ids, size.length).to(device), Process(0, 1, device)
        if fsdp:
            process.join(dist.HashStore())
        try:
            forward = spread(model, False, fsdp, precision, process, windows)
            found.append(gradients(forward, model, windows, precision))
        finally:
            if fsdp:
                dist.destroy_process_group()
    yield precision, max(map(relative, *found)), {"bf16": 0.03, "fp32": 1e-5}[precision]


def training(device: torch.device, data: Path) -> Found:
    """A run, the same again with a stop on its way, and its perplexity here and on a CPU."""
    with tempfile.TemporaryDirectory() as folder:
        outs = [Path(folder) / "whole", Path(folder) / "stopped"]
        command = [sys.executable, "train.py", "--data", data, "--device", device.type, *RUNS[device.type].split()]
        codes = []
        for out in (outs[0], outs[1], outs[1]):
            run = subprocess.Popen([*map(str, command), "--out", str(out)], stdout=subprocess.DEVNULL)
            while out == outs[1] and not codes[1:] and run.poll() is None:
                if (out / "checkpoint.pt").exists():
                    run.send_signal(signal.SIGTERM)
                    break
                time.sleep(0.01)
            codes.append(run.wait())
        expected = [0, 128 + signal.SIGTERM, 0]
        yield "runs that ended otherwise", sum(map(int.__ne__, codes, expected)), 0
        whole, stopped = (load_weights(out / "model.pt").values() for out in outs)
        yield "weights of the stopped run", differ(list(whole), list(stopped)), 0
        here, there = (load_run(outs[0], where) for where in (device, torch.device("cpu")))
        stream = here.dataset.stream(here.languages[0].source, "test")
        text = here.languages[0].table[stream.read(0, min(len(stream), 50 * here.model.length))]
        nats = [score(run.model, text, Progress("", len(text), "", quiet=True)).mean() for run in (here, there)]
        yield "PPL here and on a CPU", abs(nats[0] - nats[1]), 5e-4


CHECKS = {check.__name__: check for check in (attention, loss, embeddings, step, split, training)}


# --- what is no check ---------------------------------------------------------------------------------------

TRIES = (  # other tiles for each of KERNELS
    ((128, 64, 8, 3), (128, 64, 8, 2), (64, 64, 4, 3), (64, 64, 4, 2), (128, 64, 4, 3), (128, 128, 8, 2)),
    ((64, 64, 4, 2), (64, 64, 4, 3), (64, 32, 4, 2), (64, 32, 4, 3), (128, 64, 8, 2), (128, 32, 8, 2)),
    ((64, 64, 4, 2), (64, 64, 4, 3), (32, 64, 4, 2), (32, 64, 4, 3), (64, 128, 8, 2), (32, 128, 8, 2)),
)


def tiles(device: torch.device, out: Path) -> None:
    """Milliseconds of each kernel at the paper's shape, with its row of SETTINGS and with other tiles."""
    batch, length, heads = GRID[device.type]
    qkv = torch.randn(batch, length, 3, heads, 64, device=device).to(PRECISIONS[TYPES[device.type][0]])
    tensors = {"out": torch.randn_like(qkv[:, :, 0]), "grad_out": torch.randn_like(qkv[:, :, 0])}
    tensors |= {"logsumexp": torch.zeros(batch, heads, length, device=device), "grad_qkv": torch.empty_like(qkv)}
    tensors["statistics"] = torch.zeros(batch, heads, length, 2, device=device)
    key, rows = attention_kernels.setting(capability(device), qkv.dtype, 64), []
    now = SETTINGS[key]
    for place, kernel in enumerate(KERNELS):
        taken = {name: tensors[name] for name in kernel.arg_names if name in tensors}
        for tile in dict.fromkeys([now[place], *(Tile(*tried) for tried in TRIES[place])]):
            SETTINGS[key] = (*now[:place], tile, *now[place + 1 :])
            call = partial(attention_kernels.run, kernel, qkv, **taken)
            try:
                ms = min(bench.one_turn(call, 10, device) / 10 for _ in range(4))
            except Exception as error:  # a tile too large
                ms, tile = None, f"{tuple(tile)}: {type(error).__name__}"
            chosen = "now" if tile == now[place] else ""
            rows.append({"kernel": kernel.fn.__name__, "tile": str(tuple(tile)), "ms": ms, "": chosen})
    SETTINGS[key] = now
    write(out / "tiles.md", bench.table(rows))
    print(bench.table(rows))


def profile(device: torch.device, out: Path) -> None:
    """Where the time of a training step goes."""
    size, ids = bench.STEPS[device.type][-2]
    call = bench.training(GPT, size, ids, True, device, default_precision(device))
    call()
    kinds = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kinds.CPU, *([kinds.CUDA] if device.type == "cuda" else [])]) as seen:
        call()
    order = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    text = seen.key_averages().table(sort_by=order, row_limit=25)
    write(out / "profile.txt", text)
    print(text)


MEASURES = {"tiles": tiles, "profile": profile}


def main(arguments: list[str] | None = None) -> None:
    """Do what the command line names."""
    parser = Parser(__doc__)
    names = [*CHECKS, *MEASURES]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{' '.join(names)} (all checks)")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="(cuda where there is one)")
    parser.add_argument("--data", type=Path, default=Path("data/pydocs"), help="of runs (%(default)s)")
    parser.add_argument("--out", type=Path, help="(results/gpu/ and the device's name)")
    args = parser.parse_args(arguments)
    if unknown := set(args.names) - set(names):
        parser.error(f"{' '.join(sorted(unknown))}: expected some of {' '.join(names)}")
    process = Process.current(args.device)
    out = args.out or Path("results/gpu") / process.device_name().replace(" ", "-")
    facts = {"device": process.device_name(), "torch": torch.__version__, "code": code_hash()}
    facts["triton"] = str(getattr(sys.modules.get("triton"), "__version__", "missing"))
    print(", ".join(facts.values()), flush=True)
    kept = read_json(out / "check.json") if (out / "check.json").exists() else {}
    passed = kept["passed"] if kept.items() >= facts.items() else {}
    for name in args.names or CHECKS:
        if name in MEASURES:
            MEASURES[name](process.device, out)
            continue
        if name in passed:
            print(f"{name}: passed before")
            continue
        torch.manual_seed(0)
        found = {}
        for what, difference, most in CHECKS[name](process.device, args.data):
            print(f"{name}: {what}: {difference:.2g}, at most {most:g}", flush=True)
            if not difference <= most:
                advice = ADVICE.get(name, "another version of torch")
                raise UserError(f"{name}: {what}: {difference:.2g}, expected at most {most:g}; try {advice}")
            found[what] = difference
        passed[name] = found
        write(out / "check.json", facts | {"passed": passed})
    print(f"in {out}", flush=True)


if __name__ == "__main__":
    run_script(main)
