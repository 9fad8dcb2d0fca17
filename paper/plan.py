"""What the commands of a script will cost: tokens, FLOPs, time.

    DRY=1 bash runs/table1.sh | python -m paper.plan

FLOPs of a training token are those of model.flops_per_token. An evaluation sends each test token four times
through the model in each language, since its window moves by a quarter; it counts where the text is prepared.
The time follows from the FLOPs a second of earlier runs on this machine, or from a guess that is stated.
"""

import re
import shlex
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from common import Parser, UserError, count, duration, markdown, read_json, run_script
from data import Dataset
from model import SIZES, flops_per_token
from train import Process, languages_and_stages, parse_arguments

GUESSES = {  # FLOPs a second where nothing was run yet
    "cpu": (0.25e12, "a guess for two cores"),  # GPT nano, 35 thousand tokens a second
    "cuda": (150e12, "a guess for one GPU"),  # a third of what an H100 reaches
}


class Cost(NamedTuple):
    """What a run takes, evaluation included."""

    out: Path
    size: str
    tokens: float
    flops: float
    state: str  # done, begun, to do


def cost(command: str, pieces: int) -> Cost:
    """What a train.py command costs; `pieces` are those of a tokeniser that is not there yet."""
    words = shlex.split(command)
    args = parse_arguments(words[words.index("train.py") + 1 :])
    prepared = Dataset(args.data).languages if args.data.exists() else {}
    named = SimpleNamespace(folder=args.data, languages=prepared or args.languages or ["en"])
    sources, size = languages_and_stages(args, named)["sources"], SIZES[args.size]
    if prepared or args.data.name == "pydocs":
        pieces = max((language["vocab_size"] for language in prepared.values()), default=2048)
    vocabulary = int(
        pieces * (1 + (len(sources) - 1) * (1 - args.anchors))
    )  # or fewer, where pieces are anchored
    step, body = (flops_per_token(size, ids, args.length or size.length) for ids in (vocabulary, 0))
    # Without the backward pass a token costs a third, and the output layer sees only what is scored.
    scored = sum(prepared[source]["test"]["tokens"] for source in sources) if prepared else 0
    flops = args.tokens * step + scored * (4 * body + step - body) / 3
    result = args.out / "result.json"
    done = result.exists() and all("ppl" in language for language in read_json(result)["languages"])
    state = "done" if done else "begun" if (args.out / "config.json").exists() else "to do"
    return Cost(args.out, args.size, args.tokens, flops, state)


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
        raise UserError(
            "standard input has no training run; DRY=1 bash runs/table1.sh | python -m paper.plan"
        )
    pieces = re.search(r"--vocab-size (\d+)", text)
    costs = [cost(command, int(pieces[1]) if pieces else 16384) for command in commands]
    processes = int((re.search(r"--nproc-per-node (\d+)", text) or [0, 0])[1])
    rate, known = speed({own.size for own in costs}, processes > 0)
    rate *= max(processes, 1)
    rows = [(str(c.out), count(c.tokens), f"{c.flops:.1e}", duration(c.flops / rate), c.state) for c in costs]
    left = [own for own in costs if own.state != "done"]
    flops = sum(own.flops for own in left)
    print(markdown(("run", "tokens", "FLOPs", "time", "state"), rows))
    print(f"{len(left)} of {len(costs)} runs are left: {count(sum(own.tokens for own in left))} tokens,")
    print(f"{flops:.1e} FLOPs, about {duration(flops / rate)} at {rate:.1e} FLOPs a second ({known}).")


if __name__ == "__main__":
    run_script(main)
