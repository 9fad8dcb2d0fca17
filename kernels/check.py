"""Whether everything is right on this GPU: each check prints what it found, and the most that it may be.

    python -m kernels.check                   # all, in a few minutes; bash runs/gpu.sh begins with it
    python -m kernels.check loss step         # some of: attention loss step split training

The first wrong number ends it, with what to try. What passed is kept in results/gpu/DEVICE/check.json and not
repeated until code, PyTorch or Triton change. With TRITON_INTERPRET=1 a CPU checks the same at small sizes.
"""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

import kernels
from common import Parser, Progress, UserError, code_hash, read_json, run_script, write
from evaluate import load_run, load_weights, score
from kernels import attention as ways
from kernels.bench import with_gradients
from kernels.cross_entropy import linear_cross_entropy, plain_linear_cross_entropy
from machine import PRECISIONS, Process, mixed_precision
from model import GPT, SIZES, Size
from train import spread

Found = Iterator[tuple[str, float, float]]  # what was compared, the difference found, and the most it may be

# Sizes for a GPU, and those that an interpreter has time for.
TYPES = {"cuda": ("bf16", "fp16", "fp32"), "cpu": ("fp32",)}
BOUNDS = {"bf16": 6e-3, "fp16": 1e-3, "fp32": 2e-5}  # relative errors of kernels
MODEL_BOUNDS = {"bf16": 3e-2, "fp32": 1e-3}  # and of the gradient of a model
HEAD_DIMS, LENGTHS = (
    {"cuda": (32, 64, 96, 128), "cpu": (32,)},
    {"cuda": (1, 31, 257, 500, 512), "cpu": (1, 33)},
)
GRID = {"cuda": (128, 512, 12), "cpu": (2, 40, 1)}  # sequences, tokens and heads for every multiprocessor
LOSSES = {"cuda": ((2000, 29_317), (3500, 163_840)), "cpu": ((20, 300),)}  # tokens, ids
MODELS = {"cuda": (SIZES["tiny"], 4096), "cpu": (Size(1, 32, 1, 32, 64, length=16), 64)}
RUNS = {
    "cuda": "--size nano --tokens 1.2e6 --save-every 20",
    "cpu": "--size pico --length 16 --batch 2 --warmup 2 --tokens 320 --save-every 2 --no-compile --no-score",
}
ADVICE = (
    "a newer ptxas (TRITON_PTXAS_PATH) for wrong kernels, and to see what is to blame "
    "train.py --no-compile, then --attention sdpa"
)


def relative(one: Tensor, exact: Tensor, least: float = 1e-30) -> float:
    """|one - exact| / |exact|, in float64."""
    exact = exact.double()
    return ((one.double() - exact).norm() / exact.norm().clamp(min=least)).item()


def differ(one: list[Tensor], other: list[Tensor]) -> int:
    """How many of these tensors are not the same bits."""
    return sum(not torch.equal(*pair) for pair in zip(one, other, strict=True))


def attention(device: torch.device, _data: Path) -> Found:
    """Every row of SETTINGS that this chip uses against float64, the same bits again, and in a full grid."""
    if not kernels.triton_runs(device):
        raise UserError(
            f"the kernels do not run on this {device.type} device; on a CPU TRITON_INTERPRET=1 does"
        )

    def results(batch: int, length: int, heads: int):
        qkv = torch.randn(batch, length, 3, heads, head_dim, device=device).to(PRECISIONS[name])
        inputs = [qkv], torch.randn_like(qkv[:, :, 0])
        once, twice = (with_gradients(ways.triton_attention, *inputs) for _ in range(2))
        return qkv, inputs[1], once, differ(once, twice)

    for name in TYPES[device.type]:
        for head_dim in HEAD_DIMS[device.type]:
            for length in LENGTHS[device.type]:
                qkv, grad, (out, gradient), changed = results(2, length, 3)
                exact_out, exact = with_gradients(ways.plain_attention, [qkv.double()], grad.double())
                least = 0.02 * exact.norm().item()  # of one token the gradients of query and key are 0
                parts = zip(gradient.unbind(2), exact.unbind(2), strict=True)
                error = max(relative(out, exact_out), *(relative(*pair, least) for pair in parts))
                yield f"{name}, heads of {head_dim}, {length} tokens", error, BOUNDS[name]
                yield f"{name}, heads of {head_dim}, {length} tokens, again", changed, 0
            qkv, grad, whole, changed = results(*GRID[device.type])
            alone = with_gradients(ways.triton_attention, [qkv[-1:].contiguous()], grad[-1:].contiguous())
            yield f"{name}, heads of {head_dim}, a full grid again", changed, 0
            yield f"{name}, heads of {head_dim}, its last alone", differ([x[-1:] for x in whole], alone), 0


def loss(device: torch.device, _data: Path) -> Found:
    """Losses and gradients against float64, with several chunks, and the same bits again."""
    for name in TYPES[device.type]:
        for tokens, ids in LOSSES[device.type]:
            hidden, weight = (
                torch.randn(tokens, 768, device=device),
                torch.randn(ids, 768, device=device) / 768**0.5,
            )
            targets = torch.randint(ids, (tokens,), device=device)
            with mixed_precision(name, device):
                both = [with_gradients(linear_cross_entropy, [hidden, weight, targets]) for _ in range(2)]
            exact = with_gradients(plain_linear_cross_entropy, [hidden.double(), weight.double(), targets])
            yield f"{name}, {tokens} x {ids}", max(map(relative, both[0], exact)), 4 * BOUNDS[name]
            yield f"{name}, {tokens} x {ids}, again", differ(*both), 0


def gradients(forward: Callable, model: GPT, windows: Tensor, precision: str) -> list[Tensor]:
    """The loss of a model, and all its gradients in a row."""
    model.zero_grad(set_to_none=True)
    with mixed_precision(precision, windows.device):
        mean, _ = forward(windows[:, :-1], windows[:, 1:])
    mean.backward()
    whole = [getattr(p.grad, "full_tensor", lambda p=p: p.grad)() for p in model.parameters()]
    return [mean.detach().clone(), torch.cat([grad.flatten() for grad in whole])]


def model_and_windows(device: torch.device, sequences: int) -> tuple[GPT, Tensor]:
    """A new model, and sequences in which few ids are frequent, as words are."""
    size, ids = MODELS[device.type]
    torch.manual_seed(0)
    drawn = torch.multinomial(1 / torch.arange(1.0, ids + 1), sequences * (size.length + 1), replacement=True)
    return GPT(size, ids, size.length).to(device), drawn.view(sequences, -1).to(device)


def step(device: torch.device, _data: Path) -> Found:
    """A model eager and compiled: gradients as with plain attention and loss, and the same bits again."""
    for precision in TYPES[device.type][::2]:  # fp16 would need its loss scaled
        model, windows = model_and_windows(device, 16)
        backend = "inductor" if device.type == "cuda" else "aot_eager"  # which needs no compiler
        compiled = torch.compile(model, dynamic=False, fullgraph=True, backend=backend)
        found = {}
        for name, way in {"eager": model, "compiled": compiled}.items():
            found[name], again = (gradients(way, model, windows, precision) for _ in range(2))
            yield f"{precision}, {name}, again", differ(found[name], again), 0

        def plain(tokens: Tensor, targets: Tensor, model: GPT = model) -> tuple[Tensor, Tensor]:
            return plain_linear_cross_entropy(model.hidden(tokens), model.output_embedding, targets)

        ways.choose("plain", device)
        exact = gradients(plain, model, windows, precision)
        ways.choose(None, device)
        for name, pair in found.items():
            yield f"{precision}, {name}", max(map(relative, pair, exact)), MODEL_BOUNDS[precision]


def split(device: torch.device, _data: Path) -> Found:
    """FSDP, in a group of one process, computes what a process without it does."""
    process, precision, found = Process(0, 1, device), TYPES[device.type][0], []
    process.join(store=dist.HashStore(), rank=0, world_size=1)
    for fsdp in (False, True):
        model, windows = model_and_windows(device, 8)
        forward = spread(model, False, fsdp, precision, process, windows)
        found.append(gradients(forward, model, windows, precision))
    dist.destroy_process_group()
    yield precision, max(map(relative, *found)), MODEL_BOUNDS[precision]


def training(device: torch.device, data: Path) -> Found:
    """A run, the same again with a stop on its way, and its perplexity here and on a CPU."""
    with tempfile.TemporaryDirectory() as folder:
        whole, stopped = Path(folder) / "whole", Path(folder) / "stopped"
        flags = ["--data", str(data), "--device", device.type, *RUNS[device.type].split()]
        for out, code in ((whole, 0), (stopped, 128 + signal.SIGTERM), (stopped, 0)):
            command = [sys.executable, "train.py", *flags, "--out", str(out)]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
                while code and run.poll() is None and not (out / "checkpoint.pt").exists():
                    time.sleep(0.01)
                if code:
                    run.terminate()
            yield f"exit code of the {out.name} run, beside {code}", abs(run.returncode - code), 0
        weights = [list(load_weights(out / "model.pt").values()) for out in (whole, stopped)]
        yield "weights of the stopped run", differ(*weights), 0
        nats = []
        for where in (device, torch.device("cpu")):
            run = load_run(whole, where)
            stream = run.dataset.stream(run.languages[0].source, "test")
            text = run.languages[0].table[stream.read(0, min(len(stream), 20 * run.model.length))]
            nats.append(score(run.model, text, Progress("", len(text), "", quiet=True)).mean())
        yield "logarithm of the PPL here and on a CPU", abs(nats[0] - nats[1]), 5e-4


CHECKS = {check.__name__: check for check in (attention, loss, step, split, training)}


def main(arguments: list[str] | None = None) -> None:
    """Do the checks that the command line names, unless they passed before."""
    parser = Parser(__doc__)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"{' '.join(CHECKS)} (all)")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="(cuda where there is one)")
    parser.add_argument("--data", type=Path, default=Path("data/pydocs"), help="of the runs (%(default)s)")
    parser.add_argument("--out", type=Path, help="(results/gpu/ and the device's name)")
    args = parser.parse_args(arguments)
    if unknown := set(args.checks) - set(CHECKS):
        parser.error(f"{' '.join(sorted(unknown))}: expected some of {' '.join(CHECKS)}")
    process = Process.current(args.device)
    if "cpu" in kernels.DEVICES:
        torch.set_num_threads(1)  # Triton's interpreter is not made for several
    path = (args.out or Path("results/gpu") / process.device_name().replace(" ", "-")) / "check.json"
    facts = {"device": process.device_name(), "torch": torch.__version__, "code": code_hash()}
    facts["triton"] = getattr(sys.modules.get("triton"), "__version__", "none")
    print(", ".join(facts.values()), flush=True)
    kept = read_json(path) if path.exists() else {}
    passed = kept["passed"] if kept.items() >= facts.items() else {}
    for name in args.checks or CHECKS:
        if name in passed:
            print(f"{name}: passed before")
            continue
        torch.manual_seed(0)
        found = {}
        for what, difference, most in CHECKS[name](process.device, args.data):
            print(f"{name}: {what}: {difference:.2g}, at most {most:g}", flush=True)
            if not difference <= most:
                raise UserError(f"{name} is wrong: {what}: {difference:.2g}, not {most:g}; try {ADVICE}")
            found[what] = difference
        passed[name] = found
        write(path, facts | {"passed": passed})


if __name__ == "__main__":
    run_script(main)
