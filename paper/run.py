"""Train what the scripts in runs/ ask for: JOBS runs side by side, a core or a GPU each.

    echo python train.py --ratio 0.9 --tokens 1e6 --out out/a | JOBS=2 python -m paper.run

Each run is forked from this process, which has loaded PyTorch and its compiler: loading them takes as long as
evaluating a small model. What a run prints goes to out/a.log; its last line is told every 20 seconds. If one
fails the others save, and end.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from importlib import import_module
from multiprocessing import connection, get_context
from pathlib import Path

import torch

import train
from common import Parser, UserError, read_json, run_script
from paper.plan import plan

# Neither CUDA nor Apple's libraries bear a fork: there, each run loads its own.
TELL_EVERY = 20  # seconds
CONTEXT = get_context("fork" if sys.platform == "linux" and not torch.version.cuda else "spawn")


def run(words: list[str]) -> None:
    """What a command asks for, unless it is done already: train.py says so itself."""
    if words[0] == "python":
        train.main(words[2:])
    elif code := subprocess.run(words, check=False).returncode:  # torchrun
        sys.exit(code)


def in_its_process(words: list[str], out: Path, slot: int, jobs: int) -> None:
    """One run, to the end of its process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{out}.log", "wb") as log, open(os.devnull) as nothing:
        for stream, file in enumerate((nothing, log, log)):
            os.dup2(file.fileno(), stream)
    if jobs > 1:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", str(slot))
        if hasattr(os, "sched_setaffinity"):  # a run computes with as many threads as it has cores
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, cores[slot % len(cores) :: jobs])
    run_script(lambda: run(words))


def say_how_long(script: str) -> None:
    """What the commands of a whole script will cost."""
    print(plan(script)[1], flush=True)


def told(out: Path) -> str:
    """What a run that is done has reached, or that it was done before, and whether by other code."""
    before = [line for line in Path(f"{out}.log").read_text().splitlines() if "is finished" in line]
    reached = [f"{found['name']} {found['ppl']:.2f}" for found in read_json(out / "result.json")["languages"]]
    return f"{out.name} is done: {before[0] if before else 'PPL ' + ', '.join(reached)}"


def latest(out: Path) -> str:
    """How far a run is: the last line of its log, with losses by language once there are some."""
    log = Path(f"{out}.log")
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return f"   {out.name}: {lines[-1]}" if lines and re.search("loss|scoring", lines[-1]) else ""


def run_all(commands: list[list[str]], jobs: int) -> None:
    """Start each as soon as one of `jobs` slots is free; UserError with the end of its log if one fails."""
    waiting, running, told_at = deque(commands), {}, time.monotonic()  # running: slot to process and folder
    try:
        while waiting or running:
            if waiting and len(running) < jobs:
                words, slot = waiting.popleft(), min({*range(jobs)} - {*running})
                out = Path(words[words.index("--out") + 1])
                print("==", shlex.join(words), flush=True)
                process = CONTEXT.Process(target=in_its_process, args=(words, out, slot, jobs))
                process.start()
                running[slot] = process, out
                continue
            connection.wait([process.sentinel for process, _ in running.values()], timeout=1)
            if time.monotonic() - told_at > TELL_EVERY:
                lines = [line for _, out in running.values() if (line := latest(out))]
                print(*lines, sep="\n", end="\n" * bool(lines), flush=True)
                told_at += TELL_EVERY * bool(lines)
            for slot, (process, out) in list(running.items()):
                if process.exitcode is not None:
                    del running[slot]
                    if process.exitcode:
                        end = Path(f"{out}.log").read_text().splitlines()[-5:]
                        raise UserError("\n".join([f"{out} failed; {out}.log ends with:", *end]))
                    print(told(out), flush=True)
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.join()


def main(arguments: list[str] | None = None) -> None:
    """Read commands from standard input, and run them."""
    parser = Parser(__doc__)
    parser.add_argument("--plan", type=Path, help="the commands of a whole script: say first what they cost")
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if script := args.plan.read_text().strip() if args.plan else "":
        # In a process of its own: it tries a few steps, whose threads no fork survives.
        planning = CONTEXT.Process(target=say_how_long, args=(script,))
        planning.start()
    import_module("torch._inductor.compile_fx")  # or every run would
    if script:
        planning.join()
    jobs = os.environ.get("JOBS") or "1"
    if not jobs.isdigit() or jobs == "0":
        raise UserError(f"JOBS={jobs}: expected how many runs go side by side, as in JOBS=2")
    run_all([shlex.split(line) for line in sys.stdin], int(jobs))


if __name__ == "__main__":
    run_script(main)
