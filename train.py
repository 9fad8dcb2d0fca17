"""Train one model on one mixture of languages, on one CPU or on many GPUs under torchrun.

A run is a folder, out/NAME: config.json holds every setting that decides its result, metrics.jsonl the
losses, checkpoint.pt what is needed to go on, and at the end model.pt the weights and result.json the facts.
The same command continues a run that was stopped, bit for bit as if it never was, and does nothing to one
that is finished. What a step reads is data.py's, what it computes model.py's.
"""

import argparse
import contextlib
import importlib.util
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from common import (
    Parser,
    Progress,
    UserError,
    code_hash,
    count,
    exclusive,
    number,
    read_json,
    read_metrics,
    run_script,
    write,
)
from data import Dataset, Language, build_mixture
from evaluate import is_scored, load_run, load_weights, score_held_out_text
from kernels import attention
from machine import PRECISIONS, Process, default_precision, mixed_precision
from model import GPT, POSITIONS, SIZES, build_model, flops_per_token

DEFAULT_DATA = Path("data/pydocs")
STANDARD_TOKENS = 18_265 * 128 * 512  # the paper's standard run
RECIPE = ("length", "batch", "learning_rate", "warmup", "positions", "tied")  # of SIZES; flags replace them

HELP = """\
Train a GPT on languages of unequal size. L1 and L2 are clones, the same English read through two
vocabularies, unless --languages names real ones.

  python train.py --ratio 0.9                  90% EN1, 10% EN2, which share the space, on data/pydocs
  python train.py --ratio 0.9 --shared         the same, sharing nothing
  python train.py --ratio 1                    monolingual
  python train.py --ratio 0.9,0.9,0.1          90% EN1 in two of three equal stages, 10% in the last
  python train.py --clones 10 --ratio 0.5      a main language, nine others share the rest
  python train.py --data data/novels --languages en fr --vocab anchored --ratio 0.9
  python train.py --data data/novels --languages en fr de --mix 0.8,0.1,0.1/0.1,0.1,0.8
  torchrun --standalone --nproc-per-node 8 train.py ...    on eight GPUs: same batches, same losses

At its end a run is scored on the held-out text; python evaluate.py does that again, and more.
"""


# --- what is trained ------------------------------------------------------------------------------


def shares(text: str) -> list[float]:
    """A `type=` of argparse: '0.9,0.1' -> [0.9, 0.1]."""
    return [number(float, 0, 1)(part) for part in text.split(",")]


def mix(text: str) -> list[list[float]]:
    """A `type=` of argparse: '0.8,0.1,0.1/0.1,0.1,0.8' -> the shares of all languages in each stage."""
    stages = [shares(stage) for stage in text.split("/")]
    if any(abs(sum(stage) - 1) > 1e-6 for stage in stages):
        raise argparse.ArgumentTypeError(f"{text}: expected shares that add up to 1 in each stage")
    return stages


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(HELP)
    what = parser.add_argument_group("the experiment")
    share = what.add_mutually_exclusive_group()
    share.add_argument("--ratio", type=shares, default=[0.5], help="of L1, for each equal stage (0.5)")
    share.add_argument("--mix", type=mix, help="shares of all languages, 0.8,0.1,0.1; a / between stages")
    what.add_argument("--clones", type=number(int, 2, 1000), help="how many, L1 among them (2)")
    what.add_argument("--anchors", type=number(float, 0, 1), help="share of joint pieces (0)")
    what.add_argument(
        "--shared",
        nargs="*",
        metavar="PIECE",
        help="pieces that have one id in all languages, by their spelling; --shared alone: none (the space "
        "with pico and nano, else none)",
    )
    what.add_argument("--languages", nargs="+", metavar="L", help="real ones; one is cloned (the first)")
    what.add_argument("--vocab", choices=["disjoint", "anchored"], help="of real ones (disjoint)")
    what.add_argument("--data", type=Path, default=DEFAULT_DATA, help="made by data.py (%(default)s)")
    what.add_argument("--size", choices=SIZES, default="pico", help="(pico; from mini the paper's)")
    what.add_argument("--tokens", type=number(), help="of all languages (no text twice, 1.2e9 at most)")
    what.add_argument("--seed", type=number(int, 0), default=0, help="of weights, windows and languages (0)")
    what.add_argument("--out", type=Path, help="folder of the run (out/ and a name made of the settings)")
    how = parser.add_argument_group("the optimisation; defaults stand with each size in model.py")
    how.add_argument("--length", type=number(int, 1), help="tokens of a sequence")
    how.add_argument("--batch", type=number(int, 1), help="sequences of a step, on all processes together")
    how.add_argument("--learning-rate", type=number(), help="at its peak; a cosine takes it to a hundredth")
    how.add_argument("--warmup", type=number(int, 1), help="steps of linear warm-up")
    how.add_argument("--positions", choices=POSITIONS, help="(pico, nano: rotary)")
    tied = argparse.BooleanOptionalAction
    how.add_argument("--tied", action=tied, help="one matrix for input and output embeddings (pico, nano)")
    machine = parser.add_argument_group("the machine; none of these changes what is computed, up to rounding")
    machine.add_argument("--device", choices=["cpu", "cuda", "mps"], help="(cuda where there is one)")
    machine.add_argument("--precision", choices=PRECISIONS, help="of matrix products (the fastest)")
    machine.add_argument("--no-compile", dest="compile", action="store_false", help="without torch.compile")
    machine.add_argument("--attention", choices=attention.IMPLEMENTATIONS, help="(the fastest)")
    machine.add_argument("--fsdp", action="store_true", help="split the model among processes")
    machine.add_argument("--micro-batch", type=number(int, 1), help="sequences at a time on each process")
    machine.add_argument("--log-every", type=number(int, 1), default=10, help="steps between lines (10)")
    machine.add_argument("--save-every", type=number(int, 1), help="steps between checkpoints (a 20th)")
    machine.add_argument("--keep-every", type=number(int, 1), help="steps between weights kept for align.py")
    machine.add_argument("--no-score", dest="score", action="store_false", help="leave held-out text alone")
    machine.add_argument("--wandb", metavar="PROJECT", help="also log there (pip install wandb)")
    args = parser.parse_args(arguments)
    if args.wandb and importlib.util.find_spec("wandb") is None:
        parser.error("--wandb: the package is not installed; pip install wandb")
    return args


KINDS = {"monolingual": "one language", "cloned": "clones", "real": "real languages"}  # of runs
SERVES = {"clones": "cloned", "anchors": "cloned", "vocab": "real"}  # which kind a flag is for


def languages_and_stages(args: argparse.Namespace, dataset: Dataset) -> dict:
    """What config.json says of languages: sources, how pieces become joint ids, shares by stage."""
    names = args.languages or list(dataset.languages)[:1]
    if unknown := [name for name in names if name not in dataset.languages]:
        raise UserError(f"--languages {unknown[0]}: {dataset.folder} has {' '.join(dataset.languages)}")
    if len(set(names)) < len(names):
        raise UserError(f"--languages {' '.join(names)}: one is named twice; --clones makes clones")
    alone = args.mix == [[1.0]] or (args.mix is None and set(args.ratio) == {1.0})
    if alone and len(names) > 1:
        raise UserError(f"--ratio 1 is a monolingual run, but --languages names {' '.join(names)}")
    kind = "monolingual" if alone else "cloned" if len(names) == 1 else "real"
    for flag, serves in SERVES.items():
        if getattr(args, flag) and kind != serves:
            raise UserError(f"--{flag} is for {KINDS[serves]}, but this run is of {KINDS[kind]}")
    sources = names * (args.clones or 2) if kind == "cloned" else names
    vocab = (args.vocab or "disjoint") if kind == "real" else kind
    others = len(sources) - 1
    # Rounded, so that 0.9 leaves 0.1 and not 0.09999999999999998.
    stages = args.mix or [
        [ratio] + [round((1 - ratio) / others, 12)] * others if others else [1.0] for ratio in args.ratio
    ]
    if any(len(stage) != len(sources) for stage in stages):
        raise UserError(f"--mix: expected {len(sources)} shares in each stage, for {' '.join(sources)}")
    shared = SIZES[args.size].shared if args.shared is None else args.shared
    if alone or vocab == "anchored":  # there is nothing to share, or all that has one spelling is shared
        if args.shared:
            raise UserError("--shared has no effect with " + ("--ratio 1" if alone else "--vocab anchored"))
        shared = []
    return {
        "sources": sources,
        "vocab": vocab,
        "anchors": args.anchors or 0.0,
        "shared": list(shared),
        "stages": stages,
    }


def settings(args: argparse.Namespace, dataset: Dataset, device: torch.device) -> dict:
    """Everything that decides a run's result, as config.json keeps it."""
    size = SIZES[args.size]
    flags = {key: getattr(args, key) for key in RECIPE}
    recipe = {key: getattr(size, key) if flag is None else flag for key, flag in flags.items()}
    chosen = languages_and_stages(args, dataset)
    mean_shares = dict.fromkeys(chosen["sources"], 0.0)
    for source, share in zip(chosen["sources"], np.mean(chosen["stages"], axis=0).tolist(), strict=True):
        mean_shares[source] += share
    available = {source: dataset.languages[source]["train"]["tokens"] for source in mean_shares}
    for source, tokens in available.items():
        if tokens <= recipe["length"]:
            needed = f"expected more than one sequence of {recipe['length']}"
            raise UserError(f"{dataset.folder}: {source} has {tokens} training tokens, {needed}")
    one_pass = min(available[source] / share for source, share in mean_shares.items() if share)
    per_step = recipe["batch"] * recipe["length"]
    steps = int((args.tokens or min(STANDARD_TOKENS, one_pass)) / per_step + 0.5)
    if steps < 1:
        step = f"{recipe['batch']} x {recipe['length']} tokens"
        raise UserError(f"--tokens {args.tokens or one_pass:g} is less than one step of {step}")
    return {
        "data": str(dataset.folder),
        "fingerprint": dataset.fingerprint,
        **chosen,
        "size": args.size,
        "tokens": steps * per_step,
        "steps": steps,
        **recipe,
        "seed": args.seed,
        "precision": args.precision or default_precision(device),
        "code": code_hash(),
    }


def run_folder(args: argparse.Namespace, config: dict) -> Path:
    """Where the run lives: --out, or a name that says what it is; what lies there has to be the same run."""
    stages = config["stages"]
    shown = stages if args.mix else [stage[:1] for stage in stages]  # with --ratio the first says it all
    shares = "-".join("+".join(f"{100 * share:g}" for share in stage) for stage in shown)
    kinds = config["sources"] if config["vocab"] in {"disjoint", "anchored"} else config["sources"][:1]
    clones = f"-{len(stages[0])}clones" if config["vocab"] == "cloned" and len(stages[0]) > 2 else ""
    more = f"-{100 * config['anchors']:g}anchors" if config["anchors"] else ""
    more += f"-{len(config['shared'])}shared" if args.shared is not None else ""
    more += f"-{args.positions}" if args.positions else ""
    more += {None: "", True: "-tied", False: "-untied"}[args.tied]
    name = f"{args.data.name}-{args.size}-{'-'.join(kinds)}-{config['vocab']}-{shares}{clones}{more}"
    out = args.out or Path("out") / f"{name}-{count(config['tokens'])}-seed{args.seed}"
    if not (out / "config.json").exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"--out {out}: found other things there, expected a run or a new name")
        return out
    earlier = read_json(out / "config.json")
    if args.precision is None:  # what another machine chose by itself holds on this one
        config["precision"] = earlier.get("precision")
    # The fingerprint says whether it is the same data, wherever it lies.
    differing = [key for key in config if key not in {"data", "code"} and earlier.get(key) != config[key]]
    if differing:
        listed = ", ".join(f"{key} {earlier.get(key)} there and {config[key]} here" for key in differing)
        raise UserError(f"{out} holds a run with other settings: {listed}; give another --out")
    if earlier.get("code") != config["code"] and not (out / "result.json").exists():
        raise UserError(f"{out} was begun by other code than this: go back to it, or give another --out")
    return out


def open_data(folder: Path) -> Dataset:
    """Open prepared data; the default one is prepared by one process of each machine if it is not there."""
    if folder == DEFAULT_DATA and not folder.exists():
        prepare = [sys.executable, str(Path(__file__).with_name("data.py"))]
        if os.environ.get("LOCAL_RANK", "0") == "0" and subprocess.run(prepare, check=False).returncode:
            raise UserError(f"preparing {folder} failed; python data.py says why")
        while not folder.exists():  # it appears when it is whole; if that fails, torchrun ends those who wait
            time.sleep(0.2)
    return Dataset(folder)


# --- the machine ----------------------------------------------------------------------------------


@contextlib.contextmanager
def requests_to_stop(process: Process):
    """Within it, SIGINT and SIGTERM are collected in a list, which the loop reads between two steps."""
    asked = []

    def receive(signal_number: int, _frame) -> None:
        if not asked:
            process.say("\nstopping after this step ...")
        asked.append(signal_number)

    former = {which: signal.signal(which, receive) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for which, handler in former.items():
            signal.signal(which, handler)


def compiler_works(process: Process) -> bool:
    """Whether torch.compile can be used; where a C++ compiler or headers are missing, a run is slower."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=process.device))
        return True
    except Exception as error:  # whatever is missing must not cost the run
        lines = [line for line in str(error).splitlines() if line.strip() and not line.endswith("raised:")]
        reason = lines[0][:160] if lines else "no reason given"
        process.say(f"torch.compile does not work, going on without it ({type(error).__name__}: {reason})")
        return False


def spread(model: GPT, compiled: bool, fsdp: bool, precision: str, process: Process, tokens: torch.Tensor):
    """The model compiled, and replicated (DDP) or split (FSDP) among processes; `tokens` are any batch."""
    if fsdp:
        mesh, policy = dist.init_device_mesh(process.device.type, (process.world,)), MixedPrecisionPolicy()
        if process.device.type == "cuda" and precision == "bf16":
            # Weights of blocks travel in the type that they are multiplied in; the stream between blocks and
            # sums of gradients stay float32. On CPUs LayerNorm takes no two types.
            policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        for block in model.blocks:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh)
    if process.world == 1:
        return torch.compile(model, dynamic=False) if compiled else model
    # A whole compiled model hands out its gradients at its end, too late for their exchange to overlap.
    for block in model.blocks if compiled else ():
        block.compile(dynamic=False)
    if fsdp:
        return model
    replica = DistributedDataParallel(model, gradient_as_bucket_view=True)
    # DDP arranges its buckets anew after the first backward pass, and with them how sums round. This one
    # leads to nothing, so that a run that goes on rounds as one that was never stopped.
    with mixed_precision(precision, process.device):
        mean, _ = replica(tokens[:, :-1], tokens[:, 1:])
    mean.backward()
    replica.zero_grad(set_to_none=True)
    return replica


@contextlib.contextmanager
def exchange_gradients(model: torch.nn.Module, now: bool):
    """Within it, a backward pass exchanges gradients with the other processes only if it is `now`."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(now)
    wait = isinstance(model, DistributedDataParallel) and not now
    with model.no_sync() if wait else contextlib.nullcontext():
        yield


# --- what a run leaves behind ---------------------------------------------------------------------

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def save_weights(path: Path, state: dict, former: Path | None = None) -> None:
    """Replace `path` by tensors that are whole and on the disk; what was there is kept as `former`."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError):  # PyTorch's writer reports a full disk as a RuntimeError
        temporary.unlink(missing_ok=True)
        free = f"its disk has {count(shutil.disk_usage(path.parent).free)} bytes left"
        raise UserError(f"{path} cannot be written, {free}; what was saved before is kept") from None
    if former and path.exists():
        os.replace(path, former)
    os.replace(temporary, path)


def save(out: Path, step: int, model: GPT, optimizer, scaler, process: Process) -> None:
    """Keep the state after `step` steps, as whole tensors: a run can go on with more or fewer processes."""
    weights, moments = get_state_dict(model, optimizer, options=WHOLE)
    if process.rank == 0:
        metrics = (out / "metrics.jsonl").read_text(encoding="utf-8")
        state = {"step": step, "model": weights, "optimizer": moments, "scaler": scaler.state_dict()}
        state["metrics"] = metrics
        save_weights(out / "checkpoint.pt", state, former=out / "checkpoint-before.pt")
    process.total(torch.zeros(1))  # nobody leaves before it is written: torchrun then ends all


def restore(out: Path, model: GPT, optimizer, scaler, process: Process) -> int:
    """Load the last state that can be read, if there is one; returns the number of finished steps."""
    paths = [path for name in ("checkpoint", "checkpoint-before") if (path := out / f"{name}.pt").exists()]
    for path in paths:
        try:
            state = load_weights(path)
        except Exception as error:
            process.say(f"warning: {path} is damaged ({type(error).__name__}: {error})")
            continue
        weights, moments = state["model"], state["optimizer"]
        set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments, options=WHOLE)
        scaler.load_state_dict(state["scaler"])
        if process.rank == 0:  # what was logged after the checkpoint is about to be repeated
            write(out / "metrics.jsonl", state["metrics"])
            for damaged in paths[: paths.index(path)]:  # the next one must not take the place of the good one
                damaged.unlink()
        return state["step"]
    if paths:
        raise UserError(f"no checkpoint in {out} can be read; remove {paths[0]} to begin anew")
    return 0


@torch.no_grad()
@torch.compiler.set_stance("force_eager")  # for a few sequences nothing is compiled anew
def held_out_losses(model: GPT, dataset: Dataset, languages: list[Language], precision: str, most: int):
    """The mean loss of each language on the first sequences of its held-out text, `most` at most."""
    device, means = model.output_embedding.device, {}
    for language in languages:
        stream = dataset.stream(language.source, "test")
        sequences = min(most, (len(stream) - 1) // model.length)
        rows = [stream.read(i * model.length, model.length + 1) for i in range(sequences)]
        if rows:
            tokens = torch.from_numpy(language.table[np.stack(rows)].astype(np.int64)).to(device)
            with mixed_precision(precision, device):
                means[language.name] = model(tokens[:, :-1], tokens[:, 1:])[0].item()
    return means


class LanguageLosses:
    """Adds up the losses of each language between two lines of the log, on the device: no step waits."""

    def __init__(self, names: list[str], process: Process):
        self.names, self.process = names, process
        # Apple's GPUs have no float64.
        self.wide = torch.float32 if process.device.type == "mps" else torch.float64
        self.sums = torch.zeros(len(names), 2, dtype=self.wide, device=process.device)  # nats and targets

    def add(self, languages: np.ndarray, losses: torch.Tensor) -> None:
        """Count the (n, length) losses of n sequences towards their (n,) languages."""
        nats = losses.to(self.wide).sum(1)
        where = torch.from_numpy(languages.astype(np.int64))
        if losses.is_cuda:
            where = where.pin_memory()
        where = where.to(losses.device, non_blocking=losses.is_cuda)
        self.sums.index_add_(0, where, torch.stack([nats, torch.full_like(nats, losses.shape[1])], dim=1))

    def take(self, step: int) -> dict[str, float]:
        """Mean loss, over all processes, of each language that occurred since the last call."""
        nats, targets = self.process.total(self.sums.clone()).T.tolist()
        self.sums.zero_()
        means = {name: n / t for name, n, t in zip(self.names, nats, targets, strict=True) if t}
        for name, mean in means.items():
            if not math.isfinite(mean):
                advice = "start again with a lower --learning-rate and another --out"
                raise UserError(f"the loss of {name} is {mean} at step {step} or just before; {advice}")
        return means


# --- the run --------------------------------------------------------------------------------------


def learning_rate(step: int, config: dict) -> float:
    """Linear warm-up, then a cosine from the peak to a hundredth of it at the last step."""
    peak, warmup = config["learning_rate"], config["warmup"]
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, config["steps"] - 1 - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def equal_parts(sequences: int, most: int) -> int:
    """The size of the largest equal parts of a batch that have at most `most` sequences."""
    return max(size for size in range(1, most + 1) if sequences % size == 0)


def train(args, config: dict, dataset: Dataset, out: Path, process: Process, asked: list[int]) -> dict:
    """Run the steps that are left, or until `asked` holds a signal; returns what result.json says of them."""
    device, steps, length, precision = process.device, config["steps"], config["length"], config["precision"]
    mixture = build_mixture(dataset, config)
    if config["batch"] % process.world:
        raise UserError(f"--batch {config['batch']} does not divide among {process.world} processes")
    local = config["batch"] // process.world  # sequences of a step that are this process's
    most = args.micro_batch or SIZES[config["size"]].micro_batch
    micro = equal_parts(local, most)
    per_step, parts = config["batch"] * length, local // micro

    def read(step: int, part: int) -> tuple[torch.Tensor, np.ndarray]:
        first = step * config["batch"] + process.rank * local + part * micro
        tokens, languages = mixture.batch(np.arange(first, first + micro))
        tokens = torch.from_numpy(tokens)
        if device.type == "cuda":  # pinned memory is copied while kernels run
            tokens = tokens.pin_memory()
        return tokens.to(device, non_blocking=device.type == "cuda"), languages

    torch.manual_seed(config["seed"])
    model = build_model(config, mixture.languages).to(device)
    compiled = args.compile and device.type != "mps" and compiler_works(process)  # for Metal it is unfinished
    if compiled:
        process.say("compiling the model, up to a minute the first time ...")
    forward = spread(model, compiled, args.fsdp, precision, process, read(0, 0)[0])
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.95), eps=1e-8, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    begin = restore(out, model, optimizer, scaler, process)
    if process.total(torch.tensor(begin)).item() != begin * process.world:
        raise UserError(f"processes find different checkpoints: all machines need to see the same {out}")
    if process.rank == 0 and not begin:
        write(out / "config.json", config)
        write(out / "metrics.jsonl", "")
    process.say(f"continuing {out} after step {begin} of {steps}" if begin else f"writing to {out}")

    losses = LanguageLosses([language.name for language in mixture.languages], process)
    progress = Progress("training", config["tokens"], "tokens", begin * per_step, quiet=process.rank > 0)
    peak = process.peak_flops()
    needed = flops_per_token(model.size, model.vocabulary, length)
    save_every, note, line = args.save_every or max(1, steps // 20), "", {}
    log = None
    if args.wandb and process.rank == 0:
        import wandb

        log = wandb.init(
            project=args.wandb, id=str(out).replace("/", "-"), resume="allow", config=config, dir=out
        )

    for step in range(begin, steps):
        # One step of Adam on one batch of all processes together.
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        for part in range(parts):
            tokens, languages = read(step, part)  # while a GPU still works on the part before
            with exchange_gradients(forward, now=part == parts - 1):
                with mixed_precision(precision, device):
                    mean, each = forward(tokens[:, :-1], tokens[:, 1:])
                scaler.scale(mean / parts).backward()
            losses.add(languages, each)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

        # What is said and kept of it.
        done = step + 1
        stopping = process.total(torch.tensor(len(asked))).item() > 0  # a CPU tensor: a GPU is not waited for
        saving = stopping or done % save_every == 0 or done == steps
        if saving or done % args.log_every == 0:
            means = losses.take(done)  # raises before what is not finite replaces a good checkpoint
            speed = progress.rate(done * per_step)
            line = {"step": done, "tokens": done * per_step, "learning_rate": learning_rate(step, config)}
            line |= {"loss": means, "tokens_per_second": round(speed)}
            note = "loss " + " ".join(f"{name} {mean:.3f}" for name, mean in means.items()) + " | "
            if peak:
                line["mfu"] = round(speed * needed / peak / process.world, 4)
                note += f"{line['mfu']:.0%} MFU | "
            if saving and args.score:
                line["held_out"] = held_out_losses(model, dataset, mixture.languages, precision, micro)
            if process.rank == 0:
                with open(out / "metrics.jsonl", "a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
            if log:
                log.log(line, step=done)
        if saving:
            save(out, done, model, optimizer, scaler, process)
        if args.keep_every and done % args.keep_every == 0:
            weights = get_state_dict(model, optimizer, options=WHOLE)[0]
            if process.rank == 0:
                (out / "snapshots").mkdir(exist_ok=True)
                save_weights(out / "snapshots" / f"{done:06d}.pt", weights)
        progress.update(done * per_step, note)
        if step == begin:
            progress.count_from(done * per_step)
        if stopping and done < steps:
            process.say(f"\nstopped after step {done} of {steps}, saved in {out}; the same command continues")
            sys.exit(128 + (asked or [signal.SIGTERM])[0])

    weights = get_state_dict(model, optimizer, options=WHOLE)[0]
    if process.rank == 0:
        save_weights(out / "model.pt", weights)
        line = line or read_metrics(out)[-1]
    facts = {key: line[key] for key in ("tokens_per_second", "mfu") if key in line}
    return facts | {
        "compiled": compiled,
        "non_embedding_params": model.non_embedding_params(),
        "vocabulary": model.vocabulary,
    }


def main(arguments: list[str] | None = None) -> None:
    """Start or continue the run that the command line names, unless it is finished."""
    args = parse_arguments(arguments)
    process = Process.current(args.device)
    if args.fsdp and process.world == 1:
        raise UserError("--fsdp splits a model among processes, found one; see torchrun's --nproc-per-node")
    attention.choose(args.attention, process.device)
    dataset = open_data(args.data)
    config = settings(args, dataset, process.device)
    out = run_folder(args, config)
    if (out / "result.json").exists():
        if read_json(out / "config.json").get("code") != config["code"]:
            return process.say(f"{out} is finished, by other code than this; another --out trains anew")
        if process.rank == 0 and args.score and not is_scored(out):
            score_held_out_text(load_run(out, process.device))
        return process.say(f"{out} is finished")
    mixture = build_mixture(dataset, config)
    shown = [
        f"{language.name} {'→'.join(f'{100 * stage[i]:.3g}' for stage in config['stages'])}%"
        for i, language in enumerate(mixture.languages)
    ]
    passes = [f"{times:.2g} passes over {source}" for source, times in mixture.passes().items() if times]
    matrices = "one embedding matrix" if config["tied"] else "two embedding matrices"
    process.say(f"model: {config['size']}, {config['positions']} positions, {matrices}")
    sharing = f"; shared: {', '.join(map(repr, config['shared']))}" if config["shared"] else ""
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    process.say(f"languages: {', '.join(shown[:12])}{more}{sharing}")
    length = f"{count(config['tokens'])} tokens in {config['steps']} steps"
    process.say(f"text: {length} of {args.data}: {', '.join(passes)}")
    process.say(f"machine: {process.device_name()}, {config['precision']}, processes: {process.world}")
    read = zip(mixture.languages, mixture.tokens_seen(), strict=True)
    if unread := [language.name for language, tokens in read if not tokens]:
        names = (
            f"{unread[0]} gets" if len(unread) == 1 else f"{len(unread)} languages, {unread[0]} first, get"
        )
        process.say(f"warning: {names} none of the {mixture.total} sequences")
    if config["warmup"] >= config["steps"]:
        process.say(f"warning: --warmup takes {config['warmup']} of {config['steps']} steps")
    try:
        alone = exclusive(out) if process.rank == 0 else contextlib.nullcontext()
        with alone, process.group(), requests_to_stop(process) as asked:
            facts = train(args, config, dataset, out, process, asked)
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"out of memory; a smaller --micro-batch takes less ({reason})") from None
    if process.rank > 0:
        if args.fsdp:  # caches of DTensor keep gloo's threads, one of which can abort a Python that is ending
            os._exit(0)
        return
    languages = [
        {"name": language.name, "source": language.source, "tokens": tokens}
        for language, tokens in zip(mixture.languages, mixture.tokens_seen(), strict=True)
    ]
    facts |= {
        "passes": mixture.passes(),  # over each text; above 1, some was read again
        "device": process.device_name(),
        "processes": process.world,
        "torch": torch.__version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    write(out / "result.json", config | facts | {"languages": languages})
    for name in ("checkpoint.pt", "checkpoint-before.pt"):
        (out / name).unlink(missing_ok=True)
    if args.score:
        score_held_out_text(load_run(out, process.device))
    print(f"finished: {out}")


if __name__ == "__main__":
    run_script(main)
