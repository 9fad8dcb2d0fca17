"""The first hour on a GPU: its checks where there is one, and its script from end to end on a CPU."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from kernels import check
from machine import Process


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
@pytest.mark.parametrize("name", check.CHECKS)
def test_everything_is_right_on_this_gpu(name, prepared):
    for what, difference, most in check.CHECKS[name](Process.current("cuda").device, prepared):
        assert difference <= most, what


@pytest.mark.skipif(sys.platform != "linux", reason="Triton exists for Linux only")
def test_the_script_checks_from_end_to_end_without_a_gpu(tmp_path, prepared):
    settings = {"STAGE": "check", "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    settings |= {"RESULTS": str(tmp_path), "DATA": str(prepared)}
    done = subprocess.run(
        ["bash", ROOT / "runs" / "gpu.sh"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = json.loads((tmp_path / "cpu" / "check.json").read_text())["passed"]
    assert passed.keys() == check.CHECKS.keys()
    assert all(found for found in passed.values())


def test_a_wrong_number_ends_it_with_what_to_try_and_what_passed_is_not_repeated(
    monkeypatch, command, tmp_path
):
    asked, wrong = [], [7.0]

    def right(device, data):
        asked.append("attention")
        yield "bits", 0, 0

    def doubtful(device, data):
        yield "gradient", wrong[0], 1e-3

    monkeypatch.setattr(check, "CHECKS", {"attention": right, "loss": doubtful})
    code, out, error = command(check.main, "--device", "cpu", "--out", tmp_path)
    assert (code, error.count("\n")) == (2, 1)
    assert "loss is wrong: gradient: 7, not 0.001; try " in error
    assert "attention: bits: 0, at most 0" in out
    wrong[0] = float("nan")
    assert command(check.main, "--device", "cpu", "--out", tmp_path)[0] == 2
    wrong[0] = 1e-4
    code, out, _ = command(check.main, "--device", "cpu", "--out", tmp_path)
    assert (code, asked) == (0, ["attention"])
    assert "attention: passed before" in out
    monkeypatch.setattr(check, "code_hash", lambda: "edited")
    command(check.main, "--device", "cpu", "--out", tmp_path)
    assert asked == ["attention"] * 2


def test_an_unknown_check_is_refused_in_one_sentence(command):
    code, _, error = command(check.main, "loss", "speed")
    assert (code, error.count("\n")) == (2, 1)
    assert "speed: expected some of attention loss step split training" in error
