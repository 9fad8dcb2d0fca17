"""Train one model on one mixture of languages: a run of Table 1, on one CPU or on many GPUs under torchrun.

    torchrun --standalone train.py --ratio 0.9

A run is a folder, out/NAME: `config.json` holds every setting that decides its result, `metrics.jsonl` the losses,
`checkpoint.pt` what is needed to continue, and at the end `model.pt` the weights and `result.json` the facts. The same
command continues a run that was stopped and does nothing to one that is finished.
"""

import argparse
import contextlib
import importlib.util
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import torch

from checkpoint import Checkpoint, save_weights
from common import Parser, Progress, UserError, count, exclusive, read_json, run_script, write_json
from distribution import exchange_gradients, replicate, shard, whole_state
from experiment import add_flags, build_mixture, check_flags, mixture_settings, one_pass, run_name
from flops import Utilisation
from kernels import attention
from languages import joint_vocabulary
from metrics import LanguageLosses, append_metrics, forget_metrics_after, last_metrics, weights_and_biases
from mixture import Mixture
from model import GPT, SIZES
from process import PRECISIONS, Process, StopSignal, compile_if_possible, default_precision, keep_freed_memory, mixed_precision
from shards import Dataset
from steps import Part, Steps, micro_batch_size

DEFAULT_DATA = Path("data/pydocs")
PAPER_TOKENS = 1.2e9  # the paper's standard run


class Recipe(NamedTuple):
    """How a size is trained unless flags say otherwise; all but nano's are the paper's."""

    length: int = 512  # tokens of a sequence
    batch: int = 128  # sequences of a step
    learning_rate: float = 6e-4  # at its peak
    warmup: int = 500  # steps


RECIPES = dict.fromkeys(SIZES, Recipe()) | {"nano": Recipe(128, 32, 2e-3, 20), "medium": Recipe(batch=256)}

HELP = """\
Train a GPT on languages of unequal size. L1 and L2 are clones, the same English read through two vocabularies, unless
--languages names real ones.

  torchrun --standalone train.py --ratio 0.9            90% EN1, 10% EN2, on the text of data/pydocs
  torchrun --standalone train.py --ratio 0.5            the balanced run to compare it with
  torchrun --standalone train.py --ratio 1              monolingual
  torchrun --standalone train.py --ratio 0.9,0.1        90% EN1 in the first half, 10% in the second
  torchrun --standalone train.py --data data/novels --languages en fr --vocab anchored --ratio 0.9
  torchrun --standalone train.py --data data/novels --languages en fr de --mix 0.8,0.1,0.1/0.1,0.1,0.8
  torchrun --standalone --nproc-per-node 8 train.py ... the same run on eight GPUs: same batches, same losses

Then: python evaluate.py out/NAME
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line, and refuse values that no data could make right."""
    parser = Parser(HELP)
    what = parser.add_argument_group("the experiment")
    add_flags(what)
    what.add_argument("--data", type=Path, default=DEFAULT_DATA, help="a folder that data.py prepared (%(default)s)")
    what.add_argument("--size", choices=SIZES, default="nano", help="of the model; from mini on the paper's (%(default)s)")
    what.add_argument("--tokens", type=float, help="of all languages together (no text is read twice, 1.2e9 at most)")
    what.add_argument("--seed", type=int, default=0, help="of weights, windows and languages (%(default)s)")
    what.add_argument("--out", type=Path, help="folder of the run (out/ and a name made of the settings)")
    how = parser.add_argument_group("the optimisation; defaults depend on --size and are the paper's from mini on")
    how.add_argument("--length", type=int, help="tokens of a sequence")
    how.add_argument("--batch", type=int, help="sequences of a step, on all processes together")
    how.add_argument("--learning-rate", type=float, help="at its peak; it falls to a hundredth along a cosine")
    how.add_argument("--warmup", type=int, help="steps of linear warm-up")
    machine = parser.add_argument_group("the machine; none of these changes what is computed, up to rounding")
    machine.add_argument("--device", choices=["cpu", "cuda"], help="(cuda where there is one)")
    machine.add_argument(
        "--precision", choices=PRECISIONS, help="of matrix products (bf16 where the chip has it, or fp16 on a GPU)"
    )
    machine.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="use torch.compile (yes)")
    machine.add_argument("--attention", choices=attention.IMPLEMENTATIONS, help="what computes it (triton on a GPU)")
    machine.add_argument("--fsdp", action="store_true", help="split the model among the processes: for sizes beyond one GPU")
    machine.add_argument("--micro-batch", type=int, help="sequences at a time on each process (as many as fit)")
    machine.add_argument("--log-every", type=int, default=10, help="steps between lines of metrics.jsonl (%(default)s)")
    machine.add_argument("--save-every", type=int, help="steps between checkpoints (a twentieth of the run)")
    machine.add_argument("--wandb", metavar="PROJECT", help="also log to this project of Weights & Biases (pip install wandb)")
    args = parser.parse_args(arguments)
    check_flags(parser, args)
    if not 0 <= args.seed < 2**63:
        parser.error(f"--seed {args.seed}: expected 0 to {2**63 - 1}")
    if args.wandb and importlib.util.find_spec("wandb") is None:
        parser.error("--wandb: the package is not installed; pip install wandb")
    if args.fsdp and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        parser.error("--fsdp splits a model among several processes, found one; start with torchrun --nproc-per-node 2 or more")
    for flag in ("tokens", "length", "batch", "learning_rate", "warmup", "micro_batch", "log_every", "save_every"):
        value = getattr(args, flag)
        if value is not None and not (0 < value < 1e15):
            parser.error(f"--{flag.replace('_', '-')} {value:g}: expected a number above 0 and below 1e15")
    return args


def open_data(folder: Path) -> Dataset:
    """Open prepared data; if the default corpus is not there, one process of each machine prepares it and the others wait."""
    if folder == DEFAULT_DATA and not folder.exists():
        prepare = [sys.executable, str(Path(__file__).with_name("data.py"))]
        if os.environ.get("LOCAL_RANK", "0") == "0" and subprocess.run(prepare, check=False).returncode:
            raise UserError(f"preparing {folder} failed; python data.py says why")
        while not folder.exists():  # the folder appears when it is complete; torchrun ends who waits if preparing fails
            time.sleep(0.2)
    return Dataset(folder)


def settings(args: argparse.Namespace, dataset: Dataset, process: Process) -> dict:
    """Everything that decides a run's result, as config.json keeps it.

    Raises:
        UserError: the data is too small, or a flag does not fit it.
    """
    recipe = RECIPES[args.size]._replace(**{key: getattr(args, key) for key in Recipe._fields if getattr(args, key) is not None})
    chosen = mixture_settings(args, dataset)
    longest = one_pass(chosen, dataset, recipe.length)
    tokens = args.tokens or min(PAPER_TOKENS, longest)
    steps = int(tokens / (recipe.batch * recipe.length) + 0.5)
    if steps < 1:
        raise UserError(f"--tokens {tokens:g} is less than one step of {recipe.batch} x {recipe.length} tokens")
    precision = args.precision or default_precision(process.device)
    if args.fsdp and precision == "fp16":
        raise UserError("--fsdp with --precision fp16: expected bf16 or fp32, whose gradients need no scaling")
    return {
        "data": str(dataset.folder),
        "fingerprint": dataset.fingerprint,
        **chosen,
        "size": args.size,
        "tokens": steps * recipe.batch * recipe.length,
        "steps": steps,
        **recipe._asdict(),
        "seed": args.seed,
        "precision": precision,
    }


def run_folder(args: argparse.Namespace, config: dict, dataset: Dataset) -> Path:
    """Where the run lives: --out, or a name that says what it is.

    Raises:
        UserError: the folder holds a run with other settings; each one that differs is named.
    """
    out = args.out or Path("out") / run_name(config, dataset)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file, expected a folder or a new name")
    if (out / "config.json").exists():
        earlier = read_json(out / "config.json", "the settings of a run")
        if args.precision is None:  # what another machine chose by itself holds on this one
            config["precision"] = earlier.get("precision")
        # The fingerprint says whether it is the same data, wherever it lies.
        differing = [key for key in config | earlier if key != "data" and earlier.get(key) != config.get(key)]
        if differing:
            listed = ", ".join(f"{key} {earlier.get(key)} there and {config.get(key)} here" for key in differing)
            raise UserError(f"{out} holds a run with other settings: {listed}; give the same ones or another --out")
    elif out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out} is a folder with other things in it, expected that of a run, an empty one or a new name")
    return out


def learning_rate(step: int, config: dict) -> float:
    """Linear warm-up, then a cosine from the peak to a hundredth of it at the last step."""
    peak, warmup = config["learning_rate"], config["warmup"]
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, config["steps"] - 1 - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


class Trainer(NamedTuple):
    """What a step needs: settings, the model as it is called, its optimiser, what keeps the gradients of fp16 from vanishing."""

    config: dict
    forward: Callable
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    compiled: bool


def train_step(step: int, trainer: Trainer, parts: Iterator[Part], number: int, losses: LanguageLosses) -> None:
    """One step of Adam, the `step`-th from 0, on one batch of all processes together; this one has `number` parts of it."""
    for group in trainer.optimizer.param_groups:
        group["lr"] = learning_rate(step, trainer.config)
    for index in range(number):
        part = next(parts)
        # Processes exchange gradients once a step, while the backward pass of its last part still runs.
        with exchange_gradients(trainer.forward, now=index + 1 == number):
            with mixed_precision(trainer.config["precision"], part.inputs.device):
                mean, each = trainer.forward(part.inputs, part.targets)
            trainer.scaler.scale(mean / number).backward()
        losses.add(step + 1, part.languages, each)
    trainer.scaler.step(trainer.optimizer)
    trainer.scaler.update()
    trainer.optimizer.zero_grad(set_to_none=True)


def build(args: argparse.Namespace, config: dict, steps: Steps, out: Path, process: Process) -> tuple[Checkpoint, Trainer, int]:
    """The model with its optimiser, from the last checkpoint if there is one; also returns the number of finished steps.

    Raises:
        UserError: the checkpoints cannot be used, or processes find different ones.
    """
    torch.manual_seed(config["seed"])
    model = GPT(SIZES[config["size"]], joint_vocabulary(steps.mixture.languages), config["length"]).to(process.device)
    if args.fsdp:
        shard(model, process)
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.95), eps=1e-8, fused=True)
    scaler = torch.amp.GradScaler(process.device.type, enabled=config["precision"] == "fp16")
    checkpoint = Checkpoint(out, config, model, optimizer, process, scaler=scaler)
    begin = checkpoint.restore()
    if process.total(torch.tensor([begin])).item() != begin * process.world:
        raise UserError(f"processes find different checkpoints in {out}: all machines need to see the same folder")
    forward, compiled = model, None
    if args.compile and args.fsdp:
        compiled = model
        for block in model.blocks:
            block.compile(dynamic=False)
    elif begin < config["steps"]:
        trial = steps.part(begin * steps.parts)[:2]
        if args.compile:
            compiled = compile_if_possible(model, *trial, config["precision"], process)
        if not args.fsdp:
            with mixed_precision(config["precision"], process.device):
                forward = replicate(model if compiled is None else compiled, *trial, process)
    return checkpoint, Trainer(config, forward, optimizer, scaler, compiled is not None), begin


def train(args: argparse.Namespace, config: dict, steps: Steps, out: Path, process: Process) -> dict:
    """Run the steps that are not done yet; returns what result.json says of the training."""
    checkpoint, trainer, begin = build(args, config, steps, out, process)
    model, main_process, last = checkpoint.model, process.rank == 0, config["steps"]
    if main_process:
        write_json(out / "config.json", config)
        forget_metrics_after(out / "metrics.jsonl", begin)
    log_elsewhere = weights_and_biases(args.wandb, config, out) if args.wandb and main_process else None
    process.say(f"continuing {out} after step {begin} of {last}" if begin else f"writing to {out}")
    losses, note = LanguageLosses([language.name for language in steps.mixture.languages], process), ""
    save_every = args.save_every or max(1, last // 20)
    progress = Progress("training", config["tokens"], "tokens", begin * steps.tokens, quiet=not main_process)
    utilisation = Utilisation(config, model.vocabulary, process)
    parts = steps.parts_from(begin)
    with StopSignal(process) as stop:
        for done in range(begin + 1, last + 1):
            train_step(done - 1, trainer, parts, steps.parts, losses)
            stopping = stop.requested()
            saving = stopping or done % save_every == 0 or done == last
            if saving or done % args.log_every == 0:
                means = losses.take()  # raises before a checkpoint could be overwritten by weights that are not finite
                speed = progress.rate(done * steps.tokens)
                note = "loss " + " ".join(f"{name} {mean:.3f}" for name, mean in means.items()) + f" | {utilisation.note(speed)}"
                if main_process:
                    reached = {"step": done, "tokens": done * steps.tokens, "learning_rate": learning_rate(done - 1, config)}
                    line = reached | {"loss": means, "tokens_per_second": round(speed)} | utilisation.facts(speed)
                    append_metrics(out / "metrics.jsonl", line)
                    if log_elsewhere:
                        log_elsewhere(line)
            if saving:
                checkpoint.save(done)  # raises if the step that followed the last loss broke the weights
            progress.update(done * steps.tokens, note)
            if stopping and done < last:
                process.wait()  # torchrun ends all when one exits, and the first may still be writing
                process.say(f"\nstopped after step {done} of {last}, saved in {out}; the same command continues")
                sys.exit(128 + stop.number)
    progress.close(config["tokens"], note)
    speed = progress.rate(config["tokens"]) if begin < last else last_metrics(out / "metrics.jsonl")["tokens_per_second"]
    facts = {"compiled": trainer.compiled, "tokens_per_second": round(speed), **utilisation.facts(speed)}
    return finish(checkpoint, out, process) | facts


def finish(checkpoint: Checkpoint, out: Path, process: Process) -> dict:
    """Write the weights, and return the facts about them."""
    model = checkpoint.model
    weights = whole_state(model, checkpoint.optimizer)["model"]
    if process.rank == 0:
        save_weights(out / "model.pt", weights)
    return {"non_embedding_params": model.non_embedding_params(), "vocabulary": model.vocabulary}


def introduction(config: dict, mixture: Mixture, process: Process) -> str:
    """What is about to be trained, in three lines."""
    shares = " and ".join(f"{language.name} {'→'.join(f'{100 * p:.3g}' for p in mixture.stages[:, i])}%"
                          for i, language in enumerate(mixture.languages))  # fmt: skip
    processes = f", {process.world} processes" if process.world > 1 else ""
    passes = sorted(mixture.passes().items(), key=lambda item: -item[1])
    (source, most), *others = [(source, f"{times:.2g}") for source, times in passes]
    read = ", ".join([f"{most} passes over {source}", *(f"{times} over {other}" for other, times in others)])
    never = config["warmup"] >= config["steps"]
    warning = f"\nwarning: {config['warmup']} steps of --warmup leave none of {config['steps']} to learn in" if never else ""
    return (
        f"model: {config['size']}; languages: {shares}\n"
        f"text: {count(config['tokens'])} tokens in {config['steps']} steps of {config['data']}: {read}\n"
        f"machine: {process.device_name()}, {config['precision']}{processes}{warning}"
    )


def main(arguments: list[str] | None = None) -> None:
    """Start or continue the run that the command line names, unless it is finished."""
    args = parse_arguments(arguments)
    process = Process.current(args.device)
    keep_freed_memory()
    attention.choose(args.attention, process.device)
    dataset = open_data(args.data)
    config = settings(args, dataset, process)
    out = run_folder(args, config, dataset)
    mixture = build_mixture(dataset, config)
    if (out / "result.json").exists():
        return process.say(f"{out} is finished; next: python evaluate.py {out}")
    process.say(introduction(config, mixture, process))
    micro = micro_batch_size(args.micro_batch, config, joint_vocabulary(mixture.languages), process)
    steps = Steps(mixture, config, micro, process)
    try:
        with exclusive(out) if process.rank == 0 else contextlib.nullcontext(), process.group():
            facts = train(args, config, steps, out, process)
    except BlockingIOError:
        raise UserError(f"another process is training in {out}; wait for it or choose another --out") from None
    except torch.OutOfMemoryError as error:
        raise UserError(f"out of memory; a smaller --micro-batch takes less ({str(error).splitlines()[0]})") from None
    if process.rank == 0:
        seen = mixture.tokens_seen(mixture.total)
        languages = [
            {"name": language.name, "source": language.source, "tokens": tokens}
            for language, tokens in zip(mixture.languages, seen, strict=True)
        ]
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        facts |= {"device": process.device_name(), "processes": process.world, "torch": torch.__version__, "date": date}
        write_json(out / "result.json", config | facts | {"languages": languages})
        Checkpoint.remove(out)
        print(f"finished; next: python evaluate.py {out}")


if __name__ == "__main__":
    run_script(main)
