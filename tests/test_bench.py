"""The benchmarks: figures that add up, ways that are right, refusals. How fast anything is, no test asks."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import bench
import pytest
import torch
from conftest import ROOT

import train
from common import write
from model import Size


@pytest.fixture
def small(monkeypatch, tmp_path):
    """One tiny shape for each section, measured once; returns flags."""
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "SECONDS", 1e-3)
    monkeypatch.setattr(bench, "TOKENS", 16)
    monkeypatch.setattr(bench, "SIZES", {name: bench.SIZES[name] for name in ("nano", "tiny")})
    monkeypatch.setitem(bench.LOSSES, "cpu", [(8, 16, 32)])
    monkeypatch.setitem(bench.STEPS, "cpu", [(Size(1, 32, 1, 32, length=16, batch=2), 64, 1)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)  # whether it compiles, users see
    monkeypatch.setattr(bench, "compile_model", lambda model, process: None)
    return ["--device", "cpu", "--precision", "fp32"]


def test_every_section_prints_a_table_and_writes_its_rows(small, command, tmp_path):
    code, out, error = command(bench.main, *small)
    assert code == 0, error
    rows = {}
    for name in ("attention", "loss", "step"):
        facts = json.loads((tmp_path / "results" / "bench" / f"{name}.json").read_text())
        assert {"device", "torch", "precision", "rows"} == facts.keys()
        assert f"\n{name}: " in out
        rows[name] = facts["rows"]
        assert all(row["ms"] > 0 for row in rows[name])
    for row in rows["attention"]:
        heads, head_dim = map(int, row["shape"].split()[:3:2])
        products = 7 if "backward" in row["shape"] else 2
        operations = products * heads * 2 * 16 * 16 / 2 * head_dim  # the masked half is not counted
        assert row["TFLOP/s"] * row["ms"] == pytest.approx(operations / 1e9)
    assert {row["way"] for row in rows["attention"]} == {"ours", "plain", "sdpa", "sdpa, deterministic"}
    assert {row["way"] for row in rows["step"]} == {"ours", "plain"}


def test_the_plain_gpt_computes_what_ours_does():
    size, found = Size(2, 32, 2, 16), []
    tokens, targets = torch.randint(50, (2, 3, 8))
    for kind in (bench.GPT, bench.PlainGPT):
        torch.manual_seed(0)
        found.append(kind(size, 50, 8)(tokens, targets)[0])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", ["nano", "mini", "small"])
def test_operations_are_six_for_each_weight_of_a_matrix_product_and_attention(name):
    size = bench.SIZES[name]
    with torch.device("meta"):
        model = bench.GPT(size, 1000, 64)
    linear = sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))
    if size.tied:  # the output layer multiplies by the input's matrix
        linear += model.token_embedding.weight.numel()
    attention = 12 * size.layers * size.heads * size.head_dim * 64
    assert bench.flops_per_token(size, 1000, 64) == 6 * linear + attention


STUB = """#!/usr/bin/env bash
case $* in
-c*get_device_name*) echo "NVIDIA H100 80GB" ;;
-c*) echo versions ;;
*) echo "$*" >>log ;;
esac
case $* in train.py*)
    for out; do :; done
    mkdir -p "$out" && echo '{"tokens_per_second": 5}' >"$out/metrics.jsonl" && echo same >"$out/model.pt" ;;
esac
"""


def test_the_first_half_hour_on_a_gpu_does_what_its_calls_say(tmp_path):
    """With a `python3` alone, that only writes down what it was asked for."""
    shutil.copytree(ROOT / "runs", tmp_path / "runs")
    stub = tmp_path / "bin" / "python3"
    write(stub, STUB)
    stub.chmod(0o755)
    environment = {"PATH": f"{stub.parent}:{os.environ['PATH']}", "DATA": "data/carried"}
    for number in "12345":
        subprocess.run(["bash", "runs/gpu.sh"], cwd=tmp_path, env=environment | {"CALL": number}, check=True)
        assert (tmp_path / "results" / "gpu" / "NVIDIA-H100-80GB" / f"call{number}.txt").exists()
    asked = (tmp_path / "log").read_text()
    tests = re.findall(r"tests/\w+\.py", asked)
    assert [(ROOT / test).exists() for test in tests] == [True] * 5
    runs = [shlex.split(line)[1:] for line in asked.splitlines() if line.startswith("train.py")]
    assert [train.parse_arguments(flags).data for flags in runs] == [Path("data/carried")] * 4
