"""What the commands of a script will cost: tokens, FLOPs, time.

    DRY=1 bash runs/table1.sh | python -m paper.plan

FLOPs of a training token are those of model.flops_per_token; evaluation is not counted. The time follows
from the speed of earlier runs on this machine, or from a guess that is stated; JOBS runs go side by side.
"""

import os
import re
import shlex
import statistics
import sys
from argparse import Namespace
from pathlib import Path

from common import Parser, UserError, count, duration, markdown, read_json, run_script
from data import Dataset
from model import SIZES, flops_per_token
from train import Process, languages_and_stages, parse_arguments

GUESSES = {  # FLOPs a second where nothing was run yet
    "cpu": (0.05e12, "a guess for one core"),  # GPT pico, 30 thousand tokens a second
    "cuda": (150e12, "a guess for one GPU"),  # a third of what an H100 reaches
}


def cost(command: str, pieces: int) -> tuple[Namespace, float, str]:
    """Flags of a train.py command, FLOPs and state; `pieces` are those of a tokeniser that is not there."""
    words = shlex.split(command)
    args = parse_arguments(words[words.index("train.py") + 1 :])
    prepared = Dataset(args.data).languages if args.data.exists() else {}
    named = Namespace(folder=args.data, languages=prepared or args.languages or ["en"])
    sources, size = languages_and_stages(args, named)["sources"], SIZES[args.size]
    if prepared or args.data.name == "pydocs":
        pieces = max((language["vocab_size"] for language in prepared.values()), default=98)
    vocabulary = int(pieces * (1 + (len(sources) - 1) * (1 - args.anchors)))  # fewer if pieces are anchored
    flops = args.tokens * flops_per_token(size, vocabulary, args.length or size.length)
    result = args.out / "result.json"
    done = result.exists() and all("ppl" in language for language in read_json(result)["languages"])
    return args, flops, "done" if done else "begun" if (args.out / "config.json").exists() else "to do"


def speed(sizes: set[str], several_processes: bool) -> tuple[float, str]:
    """FLOPs a second of a process, and how that is known. What is meant for GPUs is not timed by a CPU."""
    process = Process.current()
    if several_processes and process.device.type == "cpu":
        return GUESSES["cuda"]
    measured = []
    for path in sorted(Path("out").rglob("result.json")):
        result = read_json(path)
        if result["device"] == process.device_name() and result["size"] in sizes:
            flops = flops_per_token(SIZES[result["size"]], result["vocabulary"], result["length"])
            measured.append(result["tokens_per_second"] * flops / result["processes"])
    if measured:
        return statistics.median(measured), f"median of {len(measured)} earlier runs on this machine"
    return GUESSES[process.device.type]


def main(arguments: list[str] | None = None) -> None:
    """Read commands from standard input and say what they cost."""
    Parser(__doc__).parse_args(arguments)
    text = sys.stdin.read()
    commands = dict.fromkeys(line for line in text.splitlines() if " train.py " in line)
    if not commands:
        raise UserError("standard input has no training run, as DRY=1 bash runs/table1.sh prints them")
    pieces = re.search(r"--vocab-size (\d+)", text)
    expected = int(pieces[1]) if pieces else 128 if "--pieces char" in text else 16384
    costs = [cost(command, expected) for command in commands]
    processes = int((re.search(r"--nproc-per-node (\d+)", text) or [0, 0])[1])
    rate, known = speed({args.size for args, _, _ in costs}, processes > 0)
    rate *= max(processes, 1) * int(os.environ.get("JOBS", "1"))  # of runs side by side
    rows, tokens, total = [], 0, 0
    for args, flops, state in costs:
        rows.append((str(args.out), count(args.tokens), f"{flops:.1e}", duration(flops / rate), state))
        if state != "done":
            tokens, total = tokens + args.tokens, total + flops
    print(markdown(("run", "tokens", "FLOPs", "time", "state"), rows))
    left = sum(state != "done" for _, _, state in costs)
    print(f"{left} of {len(costs)} runs are left: {count(tokens)} tokens,")
    print(f"{total:.1e} FLOPs, about {duration(total / rate)} at {rate:.1e} FLOPs a second ({known}).")


if __name__ == "__main__":
    run_script(main)
