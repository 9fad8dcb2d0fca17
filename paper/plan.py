"""What the commands of a script will cost: tokens, FLOPs, time.

    DRY=1 bash runs/table1.sh | python -m paper.plan

FLOPs of a training token are those of model.flops_per_token. A held-out token costs four thirds of one: it is
read in four windows, forwards only. The time follows from the speed of earlier runs on this machine, or from
that of a few steps, which are tried. The scripts say it themselves before they start.
"""

import re
import shlex
import statistics
import sys
import time
from argparse import Namespace
from pathlib import Path

import torch

from common import Parser, UserError, count, duration, markdown, read_json, run_script
from data import Dataset
from machine import Process, default_precision, mixed_precision
from model import GPT, SIZES, flops_per_token
from train import languages_and_stages, parse_arguments

A_GPU = (150e12, "a guess for one GPU")  # FLOPs a second, a third of what an H100 reaches
STARTING = 10  # seconds in which a run is compiled
HELD_OUT = 178_461  # characters of data/pydocs, for a text that is not prepared yet


def cost(command: str, pieces: int) -> tuple[Namespace, float, str]:
    """Flags of a train.py command, FLOPs and state; `pieces` are those of a tokeniser that is not there."""
    words = shlex.split(command)
    args = parse_arguments(words[words.index("train.py") + 1 :])
    prepared = Dataset(args.data).languages if args.data.exists() else {}
    named = Namespace(folder=args.data, languages=prepared or args.languages or ["en"])
    sources, size = languages_and_stages(args, named)["sources"], SIZES[args.size]
    if prepared or args.data.name == "pydocs":
        pieces = max((language["vocab_size"] for language in prepared.values()), default=98)
    vocabulary = int(
        pieces * (1 + (len(sources) - 1) * (1 - (args.anchors or 0)))
    )  # fewer if pieces are anchored
    held_out = [prepared[source]["test"]["tokens"] if prepared else HELD_OUT for source in sources]
    flops = (args.tokens + 4 / 3 * sum(held_out)) * flops_per_token(
        size, vocabulary, args.length or size.length
    )
    result = args.out / "result.json"
    done = result.exists() and all("ppl" in language for language in read_json(result)["languages"])
    return args, flops, "done" if done else "begun" if (args.out / "config.json").exists() else "to do"


def trial(size: str) -> float:
    """FLOPs a second of a few steps on one core, not compiled: a little less than a run has."""
    torch.set_num_threads(1)  # as each of several runs side by side
    length, device, seconds = SIZES[size].length, torch.device("cpu"), []
    model, tokens = GPT(SIZES[size], 196, length), torch.zeros(4, length, dtype=torch.long)
    for _ in range(5):
        begin = time.perf_counter()
        with mixed_precision(default_precision(device), device):
            mean, _ = model(tokens, tokens)
        mean.backward()
        seconds.append(time.perf_counter() - begin)
    return tokens.numel() * flops_per_token(SIZES[size], 196, length) / statistics.median(seconds)


def speed(size: str, several_processes: bool) -> tuple[float, str]:
    """FLOPs a second of a process, and how that is known. What is meant for GPUs is not timed by a CPU."""
    process = Process.current()
    if several_processes and process.device.type == "cpu":
        return A_GPU
    measured = []
    for path in sorted(Path("out").rglob("result.json")):
        result = read_json(path)
        same_chip = result["device"].split(", ")[0] == process.device_name().split(", ")[0]
        if same_chip and result["size"] == size:
            flops = flops_per_token(SIZES[size], result["vocabulary"], result["length"])
            measured.append(result["tokens_per_second"] * flops / result["processes"])
    if measured:
        return statistics.median(measured), f"median of {len(measured)} earlier runs on this machine"
    return A_GPU if process.device.type == "cuda" else (trial(size), "of a few steps on this machine")


def plan(text: str) -> tuple[str, str]:
    """A table of the runs among the commands that a script prints, and what is left of them in two lines."""
    commands = dict.fromkeys(line for line in text.splitlines() if " train.py " in line)
    if not commands:
        raise UserError("standard input has no training run, as DRY=1 bash runs/table1.sh prints them")
    pieces = re.search(r"--vocab-size (\d+)", text)
    pieces = int(pieces[1]) if pieces else 120 if "--pieces char" in text else 16384
    costs = [cost(command, pieces) for command in commands]
    processes = int((re.search(r"--nproc-per-node (\d+)", text) or [0, 0])[1])
    sizes = [size for size in SIZES if any(args.size == size for args, _, _ in costs)]
    speeds = {size: speed(size, processes > 0) for size in sizes}
    beside = int((re.search(r"^# (\d+) runs side by side", text, re.MULTILINE) or [0, 1])[1])
    rows, tokens, total, seconds = [], 0, 0, 0
    for args, flops, state in costs:
        needed = STARTING + flops / speeds[args.size][0] / max(processes, 1)
        rows.append((str(args.out), count(args.tokens), f"{flops:.1e}", duration(needed), state))
        if state != "done":
            tokens, total, seconds = tokens + args.tokens, total + flops, seconds + needed
    left = sum(state != "done" for _, _, state in costs)
    at = [f"{size} at {rate:.1e} FLOPs a second ({known})" for size, (rate, known) in speeds.items()]
    return (
        markdown(("run", "tokens", "FLOPs", "time", "state"), rows),
        f"{left} of {len(costs)} runs are left: {count(tokens)} tokens, {total:.1e} FLOPs,\n"
        f"about {duration(seconds / beside)}, {beside} at a time; {'; '.join(at)}.",
    )


def main(arguments: list[str] | None = None) -> None:
    """Read commands from standard input and say what they cost."""
    Parser(__doc__).parse_args(arguments)
    print(*plan(sys.stdin.read()), sep="\n")


if __name__ == "__main__":
    run_script(main)
