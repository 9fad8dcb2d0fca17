"""Carry out the commands that a script of runs/ prints: training runs side by side, then tables and pictures.

    DRY=1 bash runs/table1.sh | python -m paper.run --jobs 2 --minutes 60

Standard input holds a command in each line. `--jobs` runs of train.py go at a time, a core or a GPU each; any
other command waits until all before it are done. The output of a run goes to out/NAME.log; every 20 seconds
its last line is printed, with the time that is left. After `--minutes` runs save what they have and end, and
the other commands follow. If a run fails, the others save, and no command follows.

Beside tables and pictures, commands.txt keeps the commands that made them. RESULTS=FOLDER also collects the
numbers of each run; tables and pictures need nothing else.
"""

import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections import deque
from pathlib import Path
from typing import NamedTuple

import torch

import train
from common import Parser, UserError, count, duration, number, read_json, read_metrics, run_script, write

TELL_EVERY = 20  # seconds


class Run(NamedTuple):
    """A command that trains, and the flags that train.py reads from it."""

    words: list[str]
    args: Namespace

    @property
    def out(self) -> Path:
        return self.args.out

    def finished(self) -> bool:
        return (self.out / "result.json").exists()

    def tokens_done(self) -> float:
        """Tokens that it has read so far."""
        if self.finished():
            return self.args.tokens
        lines = read_metrics(self.out) if (self.out / "metrics.jsonl").exists() else []
        return lines[-1]["tokens"] if lines else 0


def parse(line: str) -> Run | list[str]:
    """A run of train.py, or the words of another command."""
    words = shlex.split(line)
    if "train.py" not in words:
        return words
    args = train.parse_arguments(words[words.index("train.py") + 1 :])
    if not (args.out and args.tokens):
        raise UserError(f"expected --tokens and --out in {line}")
    return Run(words, args)


def program(words: list[str]) -> list[str]:
    """A command in which `python` is this Python, whichever one a shell would start."""
    return [sys.executable, *words[1:]] if words[0] == "python" else words


def start(run: Run, slot: int, jobs: int) -> subprocess.Popen:
    """Start a run on its share of the cores, and on one GPU; several runs can share a GPU."""
    print("==", shlex.join(run.words), flush=True)
    environment = dict(os.environ)
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(gpu) for gpu in range(torch.cuda.device_count())]
    if jobs > 1 and gpus and run.words[0] == "python":  # torchrun gives each process a GPU
        environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    run.out.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{run.out}.log", "wb") as log:
        process = subprocess.Popen(
            program(run.words), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )
    if jobs > 1 and hasattr(os, "sched_setaffinity"):  # a run has as many threads as cores
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(process.pid, cores[slot % len(cores) :: jobs])
    return process


def latest(out: Path) -> str:
    """The last line of a run's log, which shows its progress; empty before the first loss."""
    log = Path(f"{out}.log")
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    if not lines or not re.search("loss|scoring", lines[-1]):
        return ""
    return f"{out.name}: {lines[-1].removeprefix(f'{out.name}: ')}"


def check_end(run: Run, code: int) -> None:
    """Print the perplexities of a run; UserError with the end of its log if it failed."""
    if code:
        end = Path(f"{run.out}.log").read_text(errors="replace").splitlines()[-5:]
        raise UserError("\n".join([f"{run.out} failed; {run.out}.log ends with:", *end]))
    languages = read_json(run.out / "result.json")["languages"]
    scored = [f"{found['name']} {found['ppl']:.2f}" for found in languages if "ppl" in found]
    print(f"{run.out.name} is done{': PPL ' if scored else ''}{', '.join(scored)}", flush=True)


def side_by_side(runs: list[Run], jobs: int, deadline: float) -> None:
    """Train `jobs` runs at a time, until all are done or `deadline` is over."""
    waiting, running = deque(runs), {}  # running: slot to run and process
    total = sum(run.args.tokens for run in runs)
    before = sum(run.tokens_done() for run in runs)
    began = told_at = time.monotonic()
    try:
        while waiting or running:
            if time.monotonic() > deadline:
                left = len(waiting) + len(running)
                return print(f"MINUTES are over, {left} runs are left; the same command goes on", flush=True)
            if waiting and len(running) < jobs:
                run, slot = waiting.popleft(), min({*range(jobs)} - {*running})
                running[slot] = run, start(run, slot, jobs)
            for slot, (run, process) in list(running.items()):
                if process.poll() is not None:
                    del running[slot]
                    check_end(run, process.returncode)
            if time.monotonic() - told_at > TELL_EVERY:
                told_at = time.monotonic()
                lines = [latest(run.out) for run, _ in running.values()]  # empty before it has losses
                done = sum(run.tokens_done() for run in runs)
                if done > before:
                    seconds = (told_at - began) / (done - before) * (total - done)
                    lines.append(f"about {duration(seconds)} left")
                for line in filter(None, lines):
                    print("  ", line, flush=True)
            time.sleep(0.1)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()


def keep(commands: list[Run | list[str]], page: Path) -> None:
    """Write the commands that made a page to its commands.txt, and its runs' numbers to RESULTS, if set."""
    lines = []
    for command in commands:
        if not isinstance(command, Run):
            lines.append(shlex.join(command))
        elif command.finished():
            result = read_json(command.out / "result.json")
            made = f"# {command.out} was made on {result['device']} at {result['date']}"
            lines += [shlex.join(command.words), made]
            if results := os.environ.get("RESULTS"):
                copy = Path(results, "runs", *command.out.parts[-2:])
                copy.mkdir(parents=True, exist_ok=True)
                for name in ("config.json", "result.json"):
                    shutil.copyfile(command.out / name, copy / name)
    write(page / "commands.txt", "\n".join(lines) + "\n")


def carry_out(lines: list[str], jobs: int, minutes: float) -> None:
    """Carry out a command in each line; a comment is printed."""
    commands = [line if line.startswith("#") else parse(line) for line in lines if line.strip()]
    runs = [command for command in commands if isinstance(command, Run)]
    left = [run for run in runs if not run.finished()]
    tokens = count(sum(run.args.tokens for run in left))
    if runs:
        print(f"{len(left)} of {len(runs)} runs are left: {tokens} tokens, {jobs} at a time", flush=True)
    deadline, queue, done = time.monotonic() + 60 * minutes, [], []
    for command in [*commands, None]:
        if isinstance(command, Run):
            done.append(command)
            if command.finished() and command.words[0] == "python":
                train.main(command.words[command.words.index("train.py") + 1 :])  # prints so, or what differs
            elif command.finished():
                subprocess.run(command.words, check=True)
            else:
                queue.append(command)
            continue
        side_by_side(queue, jobs, deadline)
        queue = []
        if isinstance(command, str):
            print(command.removeprefix("#").removeprefix(" "))
        elif command:
            done.append(command)
            print("==", shlex.join(command), flush=True)
            if code := subprocess.run(program(command), stdin=subprocess.DEVNULL, check=False).returncode:
                sys.exit(code)
            if "--out" in command:
                keep(done, Path(command[command.index("--out") + 1]))


def main(arguments: list[str] | None = None) -> None:
    """Read commands from standard input, and carry them out."""
    parser = Parser(__doc__)
    parser.add_argument("--jobs", type=number(int, 1), default=1, help="runs side by side; default: 1")
    parser.add_argument("--minutes", type=number(), default=math.inf, help="when runs end; default: never")
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    carry_out(sys.stdin.read().splitlines(), args.jobs, args.minutes)


if __name__ == "__main__":
    run_script(main)
