"""Training that nobody watches: whatever ends a run, wherever, the same command continues it to the same weights."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TORCHRUN, same_weights, tree

import checkpoint
import train

STEPS = 40


@pytest.fixture(scope="module")
def flags(prepared) -> list[str]:
    """A run of forty steps that saves after each: about half of its time, it is writing a checkpoint."""
    return ["--data", str(prepared), "--size", "nano", "--length", "16", "--batch", "4", "--tokens", str(STEPS * 64),
            "--warmup", "2", "--log-every", "1", "--save-every", "1", "--no-compile", "--precision", "fp32", "--device", "cpu",
            "--ratio", "0.7"]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, flags) -> Path:
    """The run that nothing happens to."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    train.main([*flags, "--out", str(out)])
    return out


def start(*arguments, launcher=(sys.executable,), **options) -> subprocess.Popen:
    command = [*map(str, launcher), str(ROOT / "train.py"), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def steps_of(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def wait_for(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def test_ten_kills_at_random_moments_change_nothing(tmp_path, flags, undisturbed):
    run, moments = tmp_path / "run", random.Random()
    for _ in range(10):
        process = start(*flags, "--out", run)
        for line in process.stdout:
            if line.startswith(("writing to", "continuing")):
                break
        time.sleep(moments.uniform(0, 0.2))
        assert process.poll() is None, "it was over before it could be killed"
        process.kill()
        process.communicate()
    train.main([*flags, "--out", str(run)])
    assert same_weights(run / "model.pt", undisturbed / "model.pt")
    assert steps_of(run) == list(range(1, STEPS + 1))


class Death(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("event", range(3))  # the flush to the disk, the old file's new name, the new file's
def test_a_death_anywhere_in_writing_leaves_a_checkpoint(tmp_path, flags, undisturbed, monkeypatch, event):
    saves, events = [], []

    def counted(original):
        def call(*arguments):
            if len(saves) == 3:
                events.append(original)
                if len(events) == event + 1:
                    raise Death
            return original(*arguments)

        return call

    with monkeypatch.context() as patch:
        original = checkpoint.save_weights
        patch.setattr(checkpoint, "save_weights", lambda *arguments, **named: (saves.append(1), original(*arguments, **named)))
        for name in ("fsync", "replace"):
            patch.setattr(os, name, counted(getattr(os, name)))
        with pytest.raises(Death):
            train.main([*flags, "--out", str(tmp_path / "run")])
    train.main([*flags, "--out", str(tmp_path / "run")])
    assert same_weights(tmp_path / "run" / "model.pt", undisturbed / "model.pt")


@pytest.fixture
def stopped(tmp_path, flags, command, monkeypatch) -> Path:
    """A run that was stopped after its third step."""
    original = train.train_step

    def dying(step, *arguments):
        if step == 3:
            raise MemoryError
        original(step, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_step", dying)
        with pytest.raises(MemoryError):
            command(train.main, *flags, "--out", tmp_path / "run")
    return tmp_path / "run"


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("spoil", [flip_a_bit, lambda path: path.write_bytes(path.read_bytes()[:-5000])])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(stopped, flags, undisturbed, command, spoil):
    spoil(stopped / "checkpoint.pt")
    code, out, _ = command(train.main, *flags, "--out", stopped)
    assert code == 0
    assert "warning" in out
    assert "checkpoint.pt is damaged, going on from the checkpoint before it" in out
    assert "continuing" in out
    assert "after step 2 of 40" in out
    assert same_weights(stopped / "model.pt", undisturbed / "model.pt")
    assert not list(stopped.glob("checkpoint*"))


def test_a_full_disk_is_one_sentence_and_the_checkpoints_stay(stopped, flags, undisturbed):
    before = {name: data for name, data in tree(stopped).items() if name.startswith("checkpoint")}

    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = start(*flags, "--out", stopped, preexec_fn=small_disk)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 2
    assert "checkpoint.pt cannot be written" in output
    assert "Traceback" not in output
    assert {name: data for name, data in tree(stopped).items() if name.startswith("checkpoint")} == before
    train.main([*flags, "--out", str(stopped)])
    assert same_weights(stopped / "model.pt", undisturbed / "model.pt")


def workers(launcher: subprocess.Popen) -> list[int]:
    """The processes that torchrun started."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    return [int(number) for number in children.read_text().split()]


@pytest.mark.parametrize(("stop", "rank"), [(signal.SIGTERM, 0), (signal.SIGTERM, 1), (signal.SIGKILL, 1)])
def test_what_happens_to_one_process_ends_all(tmp_path, flags, stop, rank):
    run = tmp_path / "run"
    launcher = start(*flags, "--tokens", 64 * 3000, "--out", run, launcher=TORCHRUN)
    wait_for(lambda: (run / "metrics.jsonl").exists() and len(steps_of(run)) > 3)
    os.kill(workers(launcher)[rank], stop)
    output = launcher.communicate(timeout=120)[0]
    assert launcher.returncode != 0
    if stop == signal.SIGTERM:
        assert "stopped after step" in output
    else:
        assert "SIGKILL" in output
    step = torch.load(run / "checkpoint.pt", weights_only=True)["step"]
    assert step in steps_of(run)
    assert 3 <= step < 3000


def test_three_processes_go_on_bit_for_bit(tmp_path, flags):
    """With three or more, how sums over processes round depends on how DDP has arranged its buckets."""
    flags = [*flags, "--batch", 6, "--tokens", 96 * 100]
    three = [*TORCHRUN[:-1], 3]
    assert start(*flags, "--out", tmp_path / "undisturbed", launcher=three).wait(timeout=120) == 0
    run = tmp_path / "run"
    launcher = start(*flags, "--out", run, launcher=three)
    wait_for(lambda: (run / "metrics.jsonl").exists() and len(steps_of(run)) > 3)
    launcher.terminate()
    assert "stopped after step" in launcher.communicate(timeout=120)[0]
    launcher = start(*flags, "--out", run, launcher=three)
    assert "continuing" in launcher.communicate(timeout=120)[0]
    assert same_weights(run / "model.pt", tmp_path / "undisturbed" / "model.pt")
