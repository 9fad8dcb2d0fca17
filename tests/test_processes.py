"""Several processes compute what one does, replicated or split, and survive what happens to any of them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TORCHRUN, same_weights

import train
from common import read_metrics

STEPS = 40


@pytest.fixture(scope="module")
def flags(prepared) -> list[str]:
    """A run of forty steps that saves after each: about half of its time, it is writing a checkpoint."""
    shape = ["--size", "nano", "--length", "16", "--batch", "6", "--tokens", str(STEPS * 96), "--warmup", "5"]
    often = ["--learning-rate", "1e-3", "--log-every", "1", "--save-every", "1"]
    machine = ["--no-compile", "--no-score", "--precision", "fp32", "--device", "cpu"]
    return ["--data", str(prepared), *shape, *often, *machine, "--ratio", "0.7"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, flags) -> Path:
    """The run of a single process that nothing happens to."""
    out = tmp_path_factory.mktemp("runs") / "alone"
    train.main([*flags, "--out", str(out)])
    return out


def start(*arguments, launcher=(sys.executable,)) -> subprocess.Popen:
    command = [*map(str, launcher), str(ROOT / "train.py"), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> str:
    """What a process that has to succeed prints."""
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return output


def wait_for_steps(run: Path, many: int) -> None:
    """Until so many steps, or more, are in the log."""
    end = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() or [line["step"] for line in read_metrics(run)][-1:] < [many]:
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def test_kills_at_random_moments_change_nothing(tmp_path, flags, alone):
    run, moments = tmp_path / "run", random.Random()
    for _ in range(2):
        process = start(*flags, "--out", run)
        for line in process.stdout:
            if line.startswith(("writing to", "continuing")):
                break
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        process.communicate()
    finish(start(*flags, "--out", run))
    assert same_weights(run / "model.pt", alone / "model.pt")
    assert [line["step"] for line in read_metrics(run)] == list(range(1, STEPS + 1))


def workers(launcher: subprocess.Popen) -> list[int]:
    """The processes that torchrun started."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    return [int(number) for number in children.read_text().split()]


def test_a_run_moves_from_replicas_to_shards_and_computes_what_one_process_does(tmp_path, flags, alone):
    run = tmp_path / "run"
    launcher = start(*flags, "--log-every", 4, "--micro-batch", 1, "--out", run, launcher=TORCHRUN)
    wait_for_steps(run, 8)
    os.kill(workers(launcher)[1], signal.SIGTERM)  # what one process is asked, all do, with the next line
    assert "stopped after step" in launcher.communicate(timeout=120)[0]
    assert launcher.returncode != 0
    step = torch.load(run / "checkpoint.pt", weights_only=True)["step"]
    assert 8 <= step < STEPS
    assert step % 4 == 0
    output = finish(start(*flags, "--fsdp", "--save-every", STEPS, "--out", run, launcher=TORCHRUN))
    assert f"after step {step} of" in output
    assert json.loads((run / "result.json").read_text())["processes"] == 2
    after = {line["step"]: line["loss"] for line in read_metrics(run) if line["step"] > step}
    assert len(after) == STEPS - step
    for line in read_metrics(alone)[step:]:
        assert after[line["step"]] == pytest.approx(line["loss"], abs=1e-5)
    ours, theirs = (torch.load(folder / "model.pt", weights_only=True) for folder in (run, alone))
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-3, atol=1e-4)


def test_three_processes_go_on_bit_for_bit(tmp_path, flags):
    """With three or more, how sums over processes round depends on how DDP has arranged its buckets."""
    three = [*TORCHRUN[:-1], 3]
    finish(start(*flags, "--save-every", STEPS, "--out", tmp_path / "undisturbed", launcher=three))
    run = tmp_path / "run"
    launcher = start(*flags, "--out", run, launcher=three)
    wait_for_steps(run, 4)
    started = workers(launcher)
    launcher.terminate()
    assert "stopped after step" in launcher.communicate(timeout=120)[0]
    assert len(started) == 3
    assert not any(Path(f"/proc/{worker}").exists() for worker in started)
    assert "continuing" in finish(start(*flags, "--out", run, launcher=three))
    assert same_weights(run / "model.pt", tmp_path / "undisturbed" / "model.pt")
