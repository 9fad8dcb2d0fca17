"""What the scripts in runs/ are about to do, and what it will cost: tokens, FLOPs, time.

    DRY=1 bash runs/table1.sh

A script of runs/ gives its commands here, one a line. FLOPs of a training token are those of `flops.py`: 6 for each weight of
a matrix product, output layer included, and attention; those of an evaluation follow from its windows. The time follows
from the FLOPs a second of earlier runs on this machine, found in their result.json; without any, from a guess that is
stated.
"""

import argparse
import re
import shlex
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from common import Parser, UserError, count, duration, markdown, read_json, run_script, write_atomic
from experiment import is_monolingual
from flops import flops_per_token
from model import SIZES
from process import Process
from shards import Dataset
from train import RECIPES, parse_arguments, run_folder, settings

# FLOPs a second where nothing was run yet: 35 thousand tokens a second of GPT nano on two cores; a third of what one H100 can.
GUESSED_SPEED = {"cpu": 0.25e12, "gpu": 150e12, "paper": 150e12}
PIECES = {"data/pydocs": 2048}  # of data.py's tokenisers, where the text is not prepared and nothing else is said
OTHER_PIECES = 16384


class Cost(NamedTuple):
    """What one run takes."""

    command: str
    out: Path
    tokens: float
    flops: float
    state: str  # done, begun, to do


def vocabulary_of(args: argparse.Namespace, pieces: int) -> tuple[int, int]:
    """Languages of a run, and the most ids that its joint vocabulary can have."""
    if is_monolingual(args):
        return 1, pieces
    languages = len(args.languages or []) if len(args.languages or []) > 1 else args.clones or 2
    return languages, int(pieces * (1 + (languages - 1) * (1 - (args.anchors or 0))))


def cost(command: str, pieces: dict[str, int]) -> Cost:
    """What a train.py command costs, with the evaluation of its run."""
    words = shlex.split(command)
    args = parse_arguments(words[words.index("train.py") + 1 :])
    length = args.length or RECIPES[args.size].length
    languages, vocabulary = vocabulary_of(args, pieces.get(str(args.data), OTHER_PIECES))
    all_of_it, body = (flops_per_token(SIZES[args.size], outputs, length) for outputs in (vocabulary, 0))
    flops = all_of_it * args.tokens
    if args.data.exists():
        names = args.languages or list(Dataset(args.data).languages)[:1]
        test = sum(Dataset(args.data).languages[name]["test"]["tokens"] for name in names) * languages / len(names)
        flops += (
            test * (4 * body + all_of_it - body) / 3
        )  # no backward pass; windows move by a quarter, only what counts is output
    check_settings(args)
    done = args.out / "result.json"
    finished = done.exists() and all("ppl" in language for language in read_json(done, "a result", ("languages",))["languages"])
    state = "done" if finished else "begun" if (args.out / "config.json").exists() else "to do"
    return Cost(command, args.out, args.tokens, flops, state)


def check_settings(args: argparse.Namespace) -> None:
    """A finished run is skipped, and no other run must pass for it.

    Raises:
        UserError: the folder holds a run with other settings, or of another text.
    """
    if not (args.out / "config.json").exists():
        return
    if args.data.exists():
        dataset = Dataset(args.data)
        run_folder(args, settings(args, dataset, Process.current("cpu")), dataset)
    elif (text := read_json(args.out / "config.json", "the settings of a run", ("data",))["data"]) != str(args.data):
        raise UserError(f"{args.out} holds a run on {text}, expected {args.data}; choose another OUT for it")


def pieces_of(lines: Iterable[str]) -> dict[str, int]:
    """Pieces of each tokeniser: of what is prepared, of what the commands are about to prepare, or data.py's defaults."""
    known = dict(PIECES)
    for line in lines:
        if (name := re.search(r"data\.py .*--name (\S+)", line)) and (size := re.search(r"--vocab-size (\d+)", line)):
            known[f"data/{name[1]}"] = int(size[1])
        folder = (re.search(r"--data (\S+)", line) or [None, ""])[1]
        if folder and (Path(folder) / "meta.json").exists():
            known[folder] = max(language["vocab_size"] for language in Dataset(Path(folder)).languages.values())
    return known


def speed(lines: list[str], scale: str) -> tuple[float, str]:
    """FLOPs a second that training reaches here, and how that is known. What is meant for GPUs is not timed by a CPU."""
    process = Process.current()
    processes = int((re.search(r"--nproc-per-node (\d+)", "\n".join(lines)) or [0, 1])[1])
    measured, right = [], scale == "cpu" or process.device.type == "cuda"
    for path in sorted(Path("out").rglob("result.json")) if right else ():
        result = read_json(path, "the result of a run")
        if result.get("device") == process.device_name() and result.get("size") in SIZES and "tokens_per_second" in result:
            per_token = flops_per_token(SIZES[result["size"]], result["vocabulary"], result["length"])
            measured.append((result["size"], result["tokens_per_second"] * per_token / result.get("processes", 1)))
    sizes = {(re.search(r"--size (\S+)", line) or [0, ""])[1] for line in lines}
    own = [flops for size, flops in measured if size in sizes] or [flops for _, flops in measured]
    if own:
        return processes * statistics.median(own), f"measured on {len(own)} earlier run{'s' * (len(own) > 1)} on this machine"
    where = "one GPU each" if scale != "cpu" else "two cores"
    return processes * GUESSED_SPEED[scale], f"a guess for {where}: nothing was run on this machine yet"


def listing(lines: list[str], costs: list[Cost], rate: float, known: str) -> str:
    """The dry run: a table of costs, their sum, and the commands in their order."""
    rows = [(str(c.out), count(c.tokens), f"{c.flops:.1e}", duration(c.flops / rate), c.state) for c in costs]
    left = [c for c in costs if c.state != "done"]
    total = f"{len(left)} of {len(costs)} runs are left: {count(sum(c.tokens for c in left))} tokens, "
    total += f"{sum(c.flops for c in left):.1e} FLOPs, about {duration(sum(c.flops for c in left) / rate)}\n"
    total += f"at {rate:.1e} FLOPs a second ({known}), evaluation of perplexity included.\n"
    commands = "\n".join(line.removeprefix("then ") for line in lines)
    return f"{markdown(('run', 'tokens', 'FLOPs', 'time', 'state'), rows, 1)}\n{total}\n{commands}"


def record(costs: list[Cost]) -> str:
    """Which commands made the runs, on which machine and when, as Markdown.

    Raises:
        UserError: a run is not finished.
    """
    found = []
    for c in costs:
        keys = ("device", "processes", "torch", "date", "tokens_per_second", "precision")
        found.append(read_json(c.out / "result.json", "the result of a run", keys))
    machines = sorted({f"{r['device']}, {r['processes']} process(es), torch {r['torch']}, {r['precision']}" for r in found})
    dates = sorted(r["date"] for r in found)
    lines = [f"{c.command}\npython evaluate.py {c.out}" for c in costs]
    rates = sorted(r["tokens_per_second"] for r in found)
    return (
        f"Machine: {'; '.join(machines)}.\nFinished from {dates[0]} to {dates[-1]}, at {count(rates[0])} to "
        f"{count(rates[-1])} tokens a second.\n\n```\n" + "\n".join(lines) + "\n```\n"
    )


def main(arguments: list[str] | None = None) -> None:
    """Read commands, say what they cost, or what came of them."""
    parser = Parser(__doc__)
    parser.add_argument("--scale", choices=GUESSED_SPEED, default="cpu", help="what to guess the speed for (%(default)s)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--seconds", action="store_true", help="print only seconds and folder of each run that is not done")
    what.add_argument("--record", type=Path, metavar="FILE", help="write commands, machine and date of the finished runs")
    args = parser.parse_args(arguments)
    lines = [line for line in sys.stdin.read().splitlines() if line.strip()]
    trains = list(dict.fromkeys(line for line in lines if " train.py " in line))
    if not lines:
        raise UserError("standard input has no command; DRY=1 bash runs/table1.sh shows how this is used")
    pieces = pieces_of(lines)
    costs = [cost(line, pieces) for line in trains]
    if args.record:
        args.record.parent.mkdir(parents=True, exist_ok=True)
        return write_atomic(args.record, record(costs))
    rate, known = speed(trains, args.scale)
    if args.seconds:
        return print("\n".join(f"{c.flops / rate:.0f} {c.out}" for c in costs if c.state != "done"))
    print(listing(lines, costs, rate, known))


if __name__ == "__main__":
    run_script(main)
