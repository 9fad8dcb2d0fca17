"""Train one model on one mixture of languages, on one CPU or on many GPUs under torchrun.

A run is a folder, out/NAME. config.json holds every setting that decides the run's result, metrics.jsonl the
losses, and checkpoint.pt the state to continue from. A finished run has its weights in model.pt and its facts
in result.json. The same command continues a stopped run, bit for bit as if it had never been interrupted, and
does not train a finished one again. data.py decides what a step reads, model.py what a step computes.
"""

import argparse
import contextlib
import json
import math
import os
import re
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
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
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
from data import Dataset, Mixture, build_mixture
from evaluate import is_scored, load_run, load_weights, score_held_out_text
from kernels import attention
from machine import PRECISIONS, Process, default_precision, mixed_precision
from model import GPT, POSITIONS, SIZES, build_model

DEFAULT_DATA = Path("data/pydocs")
STANDARD_TOKENS = 18_265 * 128 * 512  # the paper's standard run
# Flags with these names override the values of a row of SIZES.
HYPERPARAMETERS = ("length", "batch", "learning_rate", "warmup", "positions", "tied")

HELP = """\
Train a GPT on languages of unequal size. By default these are two clones, EN1 and EN2: the same English
text with two sets of ids. --languages names real languages instead.

  python train.py --ratio 0.9                  90% EN1, 10% EN2; the space has one id in both
  python train.py --ratio 0.9 --shared         the same, without a shared piece
  python train.py --ratio 1                    monolingual
  python train.py --ratio 0.9,0.9,0.1          90% EN1 in two of three equal stages, 10% in the last
  python train.py --clones 10 --ratio 0.5      50% EN1; EN2 to EN10 have equal parts of the rest
  python train.py --data data/novels --languages en fr --vocab anchored --ratio 0.9
  python train.py --data data/novels --languages en fr de --mix 0.8,0.1,0.1/0.1,0.1,0.8
  torchrun --standalone --nproc-per-node 8 train.py ...    on eight GPUs: the same batches

A finished run is scored on the held-out text. python evaluate.py repeats that and measures more.
"""


# --- what is trained ------------------------------------------------------------------------------


def shares(text: str) -> list[float]:
    """A `type=` of argparse: '0.9,0.1' -> [0.9, 0.1]."""
    share = number(float, 0, 1)
    return [share(part) for part in text.split(",")]


def mix(text: str) -> list[list[float]]:
    """A `type=` of argparse: '0.8,0.1,0.1/0.1,0.1,0.8' -> the shares of all languages in each stage."""
    stages = [shares(stage) for stage in text.split("/")]
    if any(abs(sum(stage) - 1) > 1e-6 for stage in stages):
        raise argparse.ArgumentTypeError(f"{text}: expected shares that add up to 1 in each stage")
    return stages


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; UserError if flags contradict each other."""
    parser = Parser(HELP)
    whole, switch = number(int, 1), argparse.BooleanOptionalAction

    add = parser.add_argument_group("the experiment").add_argument
    add("--ratio", type=shares, help="share of the first language, or its shares by stage; default: 0.5")
    add("--mix", type=mix, help="shares of all languages, instead of --ratio; / between stages")
    add("--clones", type=number(int, 2, 1000), help="number of clones; default: 2")
    add("--anchors", type=number(float, 0, 1), help="share of pieces with one id in all clones; default: 0")
    spelled = "pieces with one id in all languages (--shared alone: no piece)"
    add("--shared", nargs="*", metavar="PIECE", help=f"{spelled}; default: the space for pico and nano")
    add("--languages", nargs="+", metavar="L", help="languages; a single one is cloned; default: the first")
    add("--vocab", choices=["disjoint", "anchored"], help="way to join real languages; default: disjoint")
    add("--data", type=Path, default=DEFAULT_DATA, help="folder made by data.py; default: %(default)s")
    add("--size", choices=SIZES, default="pico", help="model size (from mini up the paper's); default: pico")
    add("--tokens", type=number(), help="training tokens of all languages; default: one pass, at most 1.2e9")
    add("--seed", type=number(int, 0), default=0, help="seed of all random choices; default: 0")
    add("--out", type=Path, help="folder of the run; default: out/ and a name made from the flags")

    add = parser.add_argument_group("the optimisation; model.py has the defaults of each size").add_argument
    add("--length", type=whole, help="tokens of a sequence")
    add("--batch", type=whole, help="sequences of a step, on all processes together")
    add("--learning-rate", type=number(), help="peak learning rate, which a cosine lowers to a hundredth")
    add("--warmup", type=whole, help="steps of linear warm-up")
    add("--positions", choices=POSITIONS, help="positions; default: rotary for pico and nano, else learned")
    add("--tied", action=switch, help="one matrix for both embeddings; default: only for pico and nano")

    add = parser.add_argument_group("machine and log; other rounding acts like another seed").add_argument
    add("--device", choices=["cpu", "cuda", "mps"], help="device; default: cuda if available")
    add("--precision", choices=PRECISIONS, help="format of matrix products; default: the fastest")
    add("--no-compile", dest="compile", action="store_false", help="no torch.compile")
    add("--attention", choices=attention.IMPLEMENTATIONS, help="implementation; default: the fastest")
    add("--fsdp", action="store_true", help="weights split among processes; default: a copy in each")
    add("--micro-batch", type=whole, help="sequences that a process computes at a time; default: what fits")
    add("--log-every", type=whole, default=10, help="steps between two lines of the log; default: 10")
    add("--save-every", type=whole, help="steps between two checkpoints; default: a 20th of the run")
    add("--no-score", dest="score", action="store_false", help="no scores on held-out text")

    args = parser.parse_args(arguments)
    if args.ratio and args.mix:
        parser.error("--mix: not allowed with --ratio")
    return args


KINDS = {"monolingual": "one language", "cloned": "clones", "real": "real languages"}  # kinds of runs
SERVES = {"clones": "cloned", "anchors": "cloned", "vocab": "real"}  # the kind of run that each flag is for


def kind_of_run(args: argparse.Namespace, names: list[str]) -> str:
    """The run's kind, a key of KINDS; UserError if a flag is for another kind."""
    stages = args.mix or [[ratio] for ratio in args.ratio or [0.5]]
    alone = all(stage == [1.0] for stage in stages)
    if alone and len(names) > 1:
        raise UserError(f"--ratio 1 is a monolingual run, but --languages names {' '.join(names)}; name one")
    kind = "cloned" if len(names) == 1 else "real"
    if alone:
        kind = "monolingual"
    for flag, serves in SERVES.items():
        if getattr(args, flag) and kind != serves:
            raise UserError(f"--{flag} is for {KINDS[serves]}, but this run has {KINDS[kind]}; leave it out")
    return kind


def shares_by_stage(args: argparse.Namespace, sources: list[str]) -> list[list[float]]:
    """The shares of all languages in each stage. With --ratio, all languages but the first share equally."""
    if args.mix:
        if any(len(stage) != len(sources) for stage in args.mix):
            raise UserError(f"--mix: expected {len(sources)} shares in each stage, for {' '.join(sources)}")
        return args.mix
    others = len(sources) - 1
    stages = []
    for ratio in args.ratio or [0.5]:
        stage = [ratio]
        if others:  # rounded, so that 0.9 leaves 0.1 and not 0.09999999999999998
            stage += [round((1 - ratio) / others, 12)] * others
        stages.append(stage)
    return stages


def languages_and_stages(args: argparse.Namespace, dataset: Dataset) -> dict:
    """The settings of languages for config.json: sources, rules for joint ids, shares by stage."""
    names = args.languages or list(dataset.languages)[:1]
    for name in names:
        if name not in dataset.languages:
            raise UserError(f"--languages {name}: {dataset.folder} has only {' '.join(dataset.languages)}")
        if names.count(name) > 1:
            raise UserError(f"--languages {' '.join(names)}: one is named twice; for clones, name it once")
    kind = kind_of_run(args, names)
    sources = names
    vocab = kind  # of real languages: how they are joined
    if kind == "cloned":
        sources = names * (args.clones or 2)
    if kind == "real":
        vocab = args.vocab or "disjoint"
    shared = SIZES[args.size].shared if args.shared is None else args.shared
    if kind == "monolingual" or vocab == "anchored":  # one language alone, or pieces shared by spelling
        if args.shared:
            useless = "--vocab anchored" if vocab == "anchored" else "--ratio 1"
            raise UserError(f"--shared has no effect with {useless}; leave it out")
        shared = []
    return {
        "sources": sources,
        "vocab": vocab,
        "anchors": args.anchors or 0.0,
        "shared": list(shared),
        "stages": shares_by_stage(args, sources),
    }


def settings(args: argparse.Namespace, dataset: Dataset, device: torch.device) -> dict:
    """Every setting that decides a run's result, for config.json; UserError if text or tokens are too few."""
    hyperparameters = {}
    for key in HYPERPARAMETERS:
        hyperparameters[key] = getattr(args, key)
        if hyperparameters[key] is None:
            hyperparameters[key] = getattr(SIZES[args.size], key)
    chosen = languages_and_stages(args, dataset)
    length = hyperparameters["length"]
    batch = hyperparameters["batch"]

    share_of = dict.fromkeys(chosen["sources"], 0.0)  # share of each text in the whole run
    share_of_language = np.mean(chosen["stages"], axis=0).tolist()
    for source, share in zip(chosen["sources"], share_of_language, strict=True):
        share_of[source] += share
    one_pass = math.inf
    for source, share in share_of.items():
        available = dataset.languages[source]["train"]["tokens"]
        if available <= length:
            found = f"{dataset.folder}: {source} has {available} training tokens"
            raise UserError(f"{found}, but a sequence needs more than {length}; lower --length")
        if share:
            one_pass = min(one_pass, available / share)
    tokens = args.tokens or min(STANDARD_TOKENS, one_pass)
    steps = int(tokens / (batch * length) + 0.5)
    if steps < 1:
        raise UserError(f"--tokens {tokens:g} is less than one step of {batch} x {length} tokens; raise it")
    return {
        "data": str(dataset.folder),
        "fingerprint": dataset.fingerprint,
        **chosen,
        "size": args.size,
        "tokens": steps * batch * length,
        "steps": steps,
        **hyperparameters,
        "seed": args.seed,
        "precision": args.precision or default_precision(device),
        "code": code_hash(),
    }


def run_name(args: argparse.Namespace, config: dict) -> str:
    """A name made from the data, the size, and the other flags that decide a result."""
    words = [args.data.name, args.size]
    mixture = ("languages", "vocab", "ratio", "mix", "clones", "anchors", "shared")
    for flag in mixture + HYPERPARAMETERS:
        value = getattr(args, flag)
        if value is not None:
            words += [flag, *re.findall(r"[\w.]+", str(value))]
    return "-".join([*words, count(config["tokens"]), f"seed{args.seed}"])


def run_folder(args: argparse.Namespace, config: dict) -> Path:
    """The run's folder: --out, or out/ and `run_name`. UserError if it holds anything but this run."""
    out = args.out or Path("out", run_name(args, config))
    if not (out / "config.json").exists():
        left_by_a_kill = {"config.json.tmp"}  # a run that was killed before it had saved anything
        if out.exists() and not (out.is_dir() and set(os.listdir(out)) <= left_by_a_kill):
            raise UserError(f"{out} exists but holds no run; choose another --out")
        return out
    earlier = read_json(out / "config.json")
    if args.precision is None:  # keep the precision that was chosen when the run began
        config["precision"] = earlier.get("precision")
    differing = []
    for key, value in config.items():
        # Equal fingerprints mean equal data, so the path of the data may differ.
        if key not in {"data", "code"} and earlier.get(key) != value:
            differing.append(f"{key} {earlier.get(key)} there and {value} here")
    if differing:
        listed = ", ".join(differing)
        raise UserError(f"{out} holds a run with other settings: {listed}; choose another --out")
    finished = (out / "result.json").exists()
    if earlier.get("code") != config["code"] and not finished:
        raise UserError(f"{out} was begun by other code; go back to that code, or choose another --out")
    return out


def open_data(folder: Path) -> Dataset:
    """Open prepared data; if the default data is missing, one process of each machine prepares it."""
    if folder == DEFAULT_DATA and not folder.exists():
        first_here = os.environ.get("LOCAL_RANK", "0") == "0"
        prepare = [sys.executable, str(Path(__file__).with_name("data.py"))]
        if first_here and subprocess.run(prepare, check=False).returncode:
            raise UserError(f"preparing {folder} failed; run python data.py to see why")
        # The folder appears once it is complete. If preparation fails, torchrun ends the waiting processes.
        while not folder.exists():
            time.sleep(0.2)
    return Dataset(folder)


# --- the machine ----------------------------------------------------------------------------------


@contextlib.contextmanager
def requests_to_stop(process: Process):
    """Context in which SIGINT and SIGTERM are appended to a list; the loop reads the list between steps."""
    asked = []

    def receive(signal_number: int, _frame) -> None:
        asked.append(signal_number)
        with contextlib.suppress(RuntimeError):  # print fails where a signal interrupts another print
            process.say("\nstopping soon ...")

    interrupt = signal.signal(signal.SIGINT, receive)
    terminate = signal.signal(signal.SIGTERM, receive)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, terminate)


def compiler_works(process: Process) -> bool:
    """True if torch.compile works here. Without a C++ compiler or headers it fails, and a run is slower."""
    try:
        trial = torch.compile(lambda x: x.sin() + 1)
        trial(torch.ones(8, device=process.device))
        return True
    except Exception as error:  # a run can do without torch.compile
        message = str(error).partition("raised:")[2] or str(error)  # the reason follows the backend's name
        lines = message.split("\n")
        reason = next(filter(str.strip, lines), "no reason given")[:160]
        process.say(f"torch.compile does not work, so training is slower ({type(error).__name__}: {reason})")
        return False


def compile_model(model: GPT, process: Process) -> None:
    """Compile each block; for a single process on a CPU, where calls take time, compile the whole model.

    Blocks share one compiled code, so deep models start fast. Each block's gradients are ready before the
    backward pass ends, so DDP exchanges them meanwhile.
    """
    torch._dynamo.config.optimize_ddp = False  # DDP would cut each block where a bucket of gradients is full
    whole = process.device.type == "cpu" and process.world == 1  # compiled by blocks, pico took 8% longer
    for part in [model] if whole else model.blocks:
        part.compile(dynamic=False)


def spread(model: GPT, fsdp: bool, precision: str, process: Process, tokens: torch.Tensor):
    """Replicate (DDP) or split (FSDP) the model among processes; `tokens` can be any batch of text."""
    if fsdp:
        mesh = dist.init_device_mesh(process.device.type, (process.world,))
        policy = MixedPrecisionPolicy()
        if process.device.type == "cuda" and precision == "bf16":
            # Processes exchange blocks' weights in bf16, the type of matrix products; hidden states and sums
            # of gradients stay float32. CPUs exchange float32: their LayerNorm cannot mix types.
            policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        for block in model.blocks:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        return fully_shard(model, mesh=mesh)
    if process.world == 1:
        return model
    replica = DistributedDataParallel(model, gradient_as_bucket_view=True)
    # After its first backward pass DDP rearranges its buckets, which changes how sums of gradients round. So
    # that pass is done here, on gradients that are thrown away, and a resumed run rounds like any other run.
    with mixed_precision(precision, process.device):
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        mean, _ = replica(inputs, targets)
    mean.backward()
    replica.zero_grad(set_to_none=True)
    return replica


def exchange_gradients(model: torch.nn.Module, now: bool) -> None:
    """Make the next backward pass exchange gradients between processes only if `now` is true."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(now)
    if isinstance(model, DistributedDataParallel):
        model.require_backward_grad_sync = now  # as its context no_sync() does


# --- what a run leaves behind ---------------------------------------------------------------------

WHOLE = {"full_state_dict": True, "cpu_offload": True}


def save_weights(path: Path, state: dict, former: Path | None = None) -> None:
    """Replace `path` by `state` once that is on the disk; an earlier `path` is kept as `former`, if given."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError):  # PyTorch's writer reports a full disk as a RuntimeError
        temporary.unlink(missing_ok=True)
        free = f"its disk has {count(shutil.disk_usage(path.parent).free)} bytes left"
        raise UserError(f"{path} cannot be written: {free}; free space and run the same command") from None
    if former and path.exists():
        os.replace(path, former)
    os.replace(temporary, path)


def save(out: Path, step: int, model: GPT, optimizer, scaler, process: Process) -> None:
    """Save the state after `step` steps, as whole tensors, so that any number of processes can continue."""
    weights, moments = get_state_dict(model, optimizer, options=StateDictOptions(**WHOLE))
    if process.rank == 0:
        state = {
            "step": step,
            "model": weights,
            "optimizer": moments,
            "scaler": scaler.state_dict(),
            "metrics": (out / "metrics.jsonl").read_text(encoding="utf-8"),
        }
        former = out / "checkpoint-before.pt"
        save_weights(out / "checkpoint.pt", state, former)
    process.total(torch.zeros(1))  # wait for the file: torchrun ends all processes if one fails


def read_checkpoint(out: Path) -> dict | None:
    """The latest readable checkpoint, or None; restores its metrics.jsonl. UserError if all are damaged."""
    damaged = []
    for path in (out / "checkpoint.pt", out / "checkpoint-before.pt"):
        if not path.exists():
            continue
        try:
            state = load_weights(path)
        except Exception as error:
            print(f"warning: {path} is damaged ({type(error).__name__}: {error})", flush=True)
            damaged.append(path)
            continue
        write(out / "metrics.jsonl", state["metrics"])  # the run repeats the steps that were logged later
        for other in damaged:  # otherwise the next checkpoint would replace the good one
            other.unlink()
        return state
    if damaged:
        raise UserError(f"no checkpoint in {out} can be read; remove {out}/checkpoint*.pt to start again")
    return None


def restore(out: Path, model: GPT, optimizer, scaler, process: Process) -> int:
    """Load the latest checkpoint, if there is one; return the number of finished steps."""
    state = read_checkpoint(out) if process.rank == 0 else None  # the others receive what it reads
    # A list, because broadcast_object_list replaces its entries.
    facts = [(state["step"], state["scaler"]) if state else None]
    if process.world > 1:
        dist.broadcast_object_list(facts, device=torch.device("cpu"))
    if facts[0] is None:
        return 0
    step, scale = facts[0]
    options = StateDictOptions(**WHOLE, broadcast_from_rank0=process.world > 1)
    set_optimizer_state_dict(model, optimizer, state["optimizer"] if state else {}, options=options)
    set_model_state_dict(model, state["model"] if state else {}, options=options)
    scaler.load_state_dict(scale)
    return step


class LanguageLosses:
    """Sums of each language's losses between two lines of the log, on the device, so that no step waits."""

    def __init__(self, names: list[str], process: Process):
        self.names, self.process = names, process
        # Apple's GPUs have no float64, so sums on them are float32.
        self.wide = torch.float32 if process.device.type == "mps" else torch.float64
        nats_and_targets = torch.zeros(len(names), 2, dtype=self.wide)
        self.sums = nats_and_targets.to(process.device)

    def add(self, languages: np.ndarray, losses: torch.Tensor) -> None:
        """Add the (n, length) losses of n sequences to the sums of the sequences' (n,) languages."""
        nats = losses.to(self.wide).sum(1)
        targets = torch.full_like(nats, losses.shape[1])
        rows = torch.from_numpy(languages.astype(np.int64))
        added = torch.stack([nats, targets], dim=1)
        self.sums.index_add_(0, self.process.send(rows), added)

    def take(self, step: int) -> dict[str, float]:
        """Mean loss of each language since the last call, over all processes; UserError if not finite."""
        sums = self.process.total(self.sums.clone()).tolist()
        self.sums.zero_()
        means = {}
        for name, (nats, targets) in zip(self.names, sums, strict=True):
            if not targets:
                continue
            means[name] = nats / targets
            if not math.isfinite(means[name]):
                found = f"the loss of {name} is {means[name]} at step {step} or just before"
                raise UserError(f"{found}; start again with a lower --learning-rate and another --out")
        return means


def log(step: int, config: dict, losses: dict, held_out: dict | None, out: Path, progress: Progress) -> None:
    """Add a line to metrics.jsonl, and show progress."""
    tokens = step * config["batch"] * config["length"]
    line = {
        "step": step,
        "tokens": tokens,
        "learning_rate": learning_rate(step - 1, config),
        "loss": losses,
        "tokens_per_second": round(progress.rate(tokens)),
    }
    if held_out is not None:
        line["held_out"] = held_out
    with open(out / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    shown = " ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
    progress.update(tokens, f"loss {shown} | ")


# --- the run --------------------------------------------------------------------------------------


def learning_rate(step: int, config: dict) -> float:
    """Linear warm-up, then a cosine from the peak to a hundredth of it at the last step."""
    peak, warmup = config["learning_rate"], config["warmup"]
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, config["steps"] - 1 - warmup)
    falling = 0.5 * (1 + math.cos(math.pi * done))  # from 1 to 0
    return peak * (0.01 + 0.99 * falling)


def equal_parts(sequences: int, most: int) -> int:
    """The largest number of sequences, at most `most`, that divides `sequences` into equal parts."""
    size = min(most, sequences)
    while sequences % size:
        size -= 1
    return size


def sequences_at_a_time(args: argparse.Namespace, process: Process) -> int:
    """Sequences that fit in memory: --micro-batch, or the size's number for 24 GB, scaled to this GPU."""
    most = SIZES[args.size].micro_batch
    if args.micro_batch or process.device.type != "cuda":
        return args.micro_batch or most
    memory = torch.cuda.get_device_properties(process.device).total_memory
    return max(1, int(most * memory / 24e9))


class Feed:
    """The sequences that this process reads in each step: `parts` parts of `size` sequences each."""

    def __init__(self, args: argparse.Namespace, config: dict, dataset: Dataset, process: Process):
        self.dataset, self.mixture = dataset, build_mixture(dataset, config)
        self.process, self.batch = process, config["batch"]
        if self.batch % process.world:
            raise UserError(f"--batch {self.batch} is not a multiple of the {process.world} processes")
        self.own = self.batch // process.world
        self.size = equal_parts(self.own, sequences_at_a_time(args, process))
        self.parts = self.own // self.size

    def read(self, step: int, part: int) -> tuple[torch.Tensor, np.ndarray]:
        """One part of one step: (size, length + 1) ids on the device, and the (size,) languages."""
        first = step * self.batch  # of this step
        first += self.process.rank * self.own  # of this process
        first += part * self.size
        tokens, languages = self.mixture.batch(np.arange(first, first + self.size))
        return self.process.send(torch.from_numpy(tokens)), languages


HELD_OUT = 8  # held-out sequences of each language that are scored at each save


@torch.no_grad()
@torch.compiler.set_stance("force_eager")  # compiling is not worth it for a few sequences
def held_out_losses(model: GPT, feed: Feed, precision: str) -> dict[str, float]:
    """The mean loss of each language on the first HELD_OUT sequences of its held-out text."""
    means = {}
    for language in feed.mixture.languages:
        stream = feed.dataset.stream(language.source, "test")
        sequences = min(HELD_OUT, (len(stream) - 1) // model.length)
        if sequences < 1:
            continue
        rows = []
        for i in range(sequences):
            rows.append(stream.read(i * model.length, model.length + 1))
        ids = language.table[np.stack(rows)].astype(np.int64)
        tokens = feed.process.send(torch.from_numpy(ids))
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        with mixed_precision(precision, tokens.device):
            mean, _ = model(inputs, targets)
        means[language.name] = mean.item()
    return means


def train(args, config: dict, feed: Feed, out: Path, process: Process, asked: list[int]) -> dict:
    """Run the remaining steps; save and exit once `asked` holds a signal. Return facts for result.json."""
    steps, precision, mixture = config["steps"], config["precision"], feed.mixture
    torch.manual_seed(config["seed"])
    model = build_model(config, mixture.languages).to(process.device)
    # torch.compile is unfinished for Metal, so Apple's GPUs run without it.
    compiled = args.compile and process.device.type != "mps" and compiler_works(process)
    if compiled:
        process.say("compiling the model, which takes up to a minute the first time ...")
        compile_model(model, process)
    tokens, _ = feed.read(0, 0)
    forward = spread(model, args.fsdp, precision, process, tokens)
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.95), fused=True)
    scaler = torch.amp.GradScaler(process.device.type, enabled=precision == "fp16")
    begin = restore(out, model, optimizer, scaler, process)
    if process.rank == 0 and not begin:
        write(out / "config.json", config)
        write(out / "metrics.jsonl", "")
    process.say(f"continuing {out} after step {begin} of {steps}" if begin else f"writing to {out}")
    tokens_per_step = config["batch"] * config["length"]
    progress = Progress("training", config["tokens"], "tokens", begin * tokens_per_step)
    losses = LanguageLosses([language.name for language in mixture.languages], process)
    save_every = args.save_every or max(1, steps // 20)

    for step in range(begin, steps):
        # One step of Adam on one batch, which is divided among all processes.
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        for part in range(feed.parts):
            tokens, languages = feed.read(step, part)  # while a GPU computes the part before
            inputs, targets = tokens[:, :-1], tokens[:, 1:]
            exchange_gradients(forward, now=part == feed.parts - 1)
            with mixed_precision(precision, process.device):
                mean, each = forward(inputs, targets)
            scaler.scale(mean / feed.parts).backward()
            losses.add(languages, each)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

        # Log the step and save the state, if either is due.
        done = step + 1
        logging = done % args.log_every == 0
        stopping = False
        if logging or process.world == 1:  # several processes agree only at log lines, because that is slow
            signals = process.total(torch.tensor(len(asked)))
            stopping = signals.item() > 0
        saving = stopping or done % save_every == 0 or done == steps
        if saving or logging:
            means = losses.take(done)  # NaN raises an error here, before it replaces a good checkpoint
            scoring = saving and args.score
            held_out = held_out_losses(model, feed, precision) if scoring else None
            if process.rank == 0:
                log(done, config, means, held_out, out, progress)
        if saving:
            save(out, done, model, optimizer, scaler, process)
        if step == begin:  # the first step compiles, so the speed leaves it out
            progress.count_from(done * tokens_per_step)
        if stopping and done < steps:
            process.say(f"\nstopped after step {done} of {steps}, saved in {out}; the same command continues")
            received = asked[0] if asked else signal.SIGTERM  # perhaps only another process got a signal
            sys.exit(128 + received)

    weights = get_model_state_dict(model, options=StateDictOptions(**WHOLE))
    if process.rank == 0:
        save_weights(out / "model.pt", weights)
    return {
        "compiled": compiled,
        "non_embedding_params": model.non_embedding_params(),
        "vocabulary": model.vocabulary,
    }


def describe(args, config: dict, mixture: Mixture, process: Process) -> None:
    """Print the run's model, languages, text and machine, and warn of settings that may be mistakes."""
    percent = []
    for i, language in enumerate(mixture.languages):
        shares = "→".join(f"{100 * stage[i]:.3g}" for stage in config["stages"])
        percent.append(f"{language.name} {shares}%")
    more = f" and {len(percent) - 12} more" if len(percent) > 12 else ""
    sharing = f"; shared: {', '.join(map(repr, config['shared']))}" if config["shared"] else ""
    passes = [f"{times:.2g} passes over {source}" for source, times in mixture.passes().items() if times]
    matrices = "one embedding matrix" if config["tied"] else "two embedding matrices"
    text = f"{count(config['tokens'])} tokens in {config['steps']} steps"
    process.say(f"model: {config['size']}, {config['positions']} positions, {matrices}")
    process.say(f"languages: {', '.join(percent[:12])}{more}{sharing}")
    process.say(f"text: {text}, from {args.data}: {', '.join(passes)}")
    process.say(f"machine: {process.device_name()}, {config['precision']}, processes: {process.world}")
    seen = zip(mixture.languages, mixture.tokens_seen(), strict=True)
    unread = [language.name for language, tokens in seen if not tokens]
    if unread:
        several = f"{len(unread)} languages, such as {unread[0]}"
        names = several if len(unread) > 1 else f"language {unread[0]}"
        process.say(f"warning: the {mixture.total} sequences of this run leave out {names}; raise --tokens")
    if config["warmup"] >= config["steps"]:
        process.say(f"warning: --warmup {config['warmup']} takes all {config['steps']} steps of the run")


def result(config: dict, facts: dict, out: Path, mixture: Mixture, process: Process) -> dict:
    """The content of result.json before the run is scored."""
    languages = []
    for language, tokens in zip(mixture.languages, mixture.tokens_seen(), strict=True):
        entry = {"name": language.name, "source": language.source, "tokens": tokens}
        languages.append(entry)
    return {
        **config,
        "tokens_per_second": read_metrics(out)[-1]["tokens_per_second"],
        **facts,
        "passes": mixture.passes(),  # over each text; above 1, text was repeated
        "device": process.device_name(),
        "processes": process.world,
        "torch": torch.__version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "languages": languages,
    }


def main(arguments: list[str] | None = None) -> None:
    """Start or continue the run that the command line names, unless it is finished."""
    args = parse_arguments(arguments)
    process = Process.current(args.device, strict=True)
    if args.fsdp and process.world == 1:
        raise UserError("--fsdp splits a model among processes, but there is only one; use torchrun")
    dataset = open_data(args.data)
    config = settings(args, dataset, process.device)
    out = run_folder(args, config)
    attention.choose(args.attention, process.device, config["precision"])
    if (out / "result.json").exists():
        if read_json(out / "config.json").get("code") != config["code"]:
            instead = "to train with this code, choose another --out"
            return process.say(f"{out} was finished by other code; {instead}")
        if process.rank == 0 and args.score and not is_scored(out):
            score_held_out_text(load_run(out, process.device))
        return process.say(f"{out} is finished")
    feed = Feed(args, config, dataset, process)
    describe(args, config, feed.mixture, process)
    try:
        alone = exclusive(out) if process.rank == 0 else contextlib.nullcontext()
        with alone, process.group(), requests_to_stop(process) as asked:
            facts = train(args, config, feed, out, process, asked)
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"out of memory; choose a smaller --micro-batch ({reason})") from None
    if process.rank > 0:
        if args.fsdp:  # DTensor keeps gloo's threads alive, and one can abort Python at its exit
            os._exit(0)
        return
    write(out / "result.json", result(config, facts, out, feed.mixture, process))
    for name in ("checkpoint.pt", "checkpoint-before.pt"):
        (out / name).unlink(missing_ok=True)
    if args.score:
        score_held_out_text(load_run(out, process.device))
    print(f"finished: {out}")


if __name__ == "__main__":
    run_script(main)
