"""Several processes compute what one computes, whether they replicate the model or split it."""

import json
import os
import subprocess

import pytest
import torch
from conftest import ROOT, TORCHRUN, same_weights

import train


@pytest.fixture(scope="module")
def flags(prepared) -> list[str]:
    """A run of thirty steps."""
    return ["--data", str(prepared), "--size", "nano", "--length", "16", "--batch", "8", "--tokens", str(30 * 8 * 16),
            "--warmup", "5", "--learning-rate", "1e-3", "--log-every", "1", "--no-compile", "--precision", "fp32",
            "--device", "cpu", "--ratio", "0.7"]  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory, flags):
    """The run of a single process."""
    out = tmp_path_factory.mktemp("runs") / "alone"
    train.main([*flags, "--out", str(out)])
    return out


def losses(run) -> list[dict]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def torchrun(*arguments) -> None:
    command = [*TORCHRUN, ROOT / "train.py", *arguments]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("extra", [[], ["--micro-batch", 2], ["--fsdp"], ["--fsdp", "--micro-batch", 2]])
def test_two_processes_give_the_same_losses_as_one(alone, tmp_path, flags, extra):
    torchrun(*flags, *extra, "--out", tmp_path / "run")
    for ours, theirs in zip(losses(tmp_path / "run"), losses(alone), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["processes"] == 2
    ours, theirs = (torch.load(run / "model.pt", weights_only=True) for run in (tmp_path / "run", alone))
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-3, atol=1e-4)


def test_a_run_in_shards_is_continued_by_one_process(alone, tmp_path, flags, command, monkeypatch):
    """What one process leaves after ten steps, two in shards take to twenty, and one finishes."""
    run = tmp_path / "run"

    def stop_at(step):
        original = train.train_step

        def dying(number, *arguments):
            if number == step:
                raise MemoryError
            original(number, *arguments)

        return dying

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_step", stop_at(10))
        with pytest.raises(MemoryError):
            command(train.main, *flags, "--save-every", 10, "--out", run)
    script = tmp_path / "until_twenty.py"
    script.write_text(
        "import sys, train\n"
        "original = train.train_step\n"
        "def dying(number, *arguments):\n"
        "    if number == 20: sys.exit()\n"
        "    original(number, *arguments)\n"
        "train.train_step = dying\n"
        "train.main(sys.argv[1:])\n"
    )
    arguments = [*flags, "--save-every", 10, "--fsdp", "--out", run]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command_line = [*map(str, [*TORCHRUN, script, *arguments])]
    subprocess.run(command_line, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert torch.load(run / "checkpoint.pt", weights_only=True)["step"] == 20
    code, out, _ = command(train.main, *flags, "--out", run)
    assert code == 0
    assert "after step 20 of 30" in out
    for ours, theirs in zip(losses(run), losses(alone), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_alone_there_is_nothing_to_split(flags, command, tmp_path):
    code, _, error = command(train.main, *flags, "--fsdp", "--out", tmp_path / "run")
    assert code == 2
    assert "--fsdp splits a model among several processes, found one" in error
    assert not (tmp_path / "run").exists()


def test_a_second_run_in_replicas_is_bitwise_the_same(tmp_path, flags):
    for name in ("first", "second"):
        torchrun(*flags, "--out", tmp_path / name)
    assert same_weights(tmp_path / "first" / "model.pt", tmp_path / "second" / "model.pt")
