"""The benchmarks: a chart and figures that add up, and refusals. How fast anything is, no test asks."""

import json

import pytest
import torch

from kernels import bench, bench_attention, bench_clones, bench_evaluation, bench_loss, bench_step, timing
from model import Size


@pytest.fixture
def _small(monkeypatch):
    monkeypatch.setattr(bench_attention, "TOKENS", 16)
    monkeypatch.setattr(bench_attention, "shapes", lambda: {"one": (2, 32), "other, third": (1, 64)})
    monkeypatch.setattr(timing, "matmul_ceiling", lambda *_: 0.5)


@pytest.mark.usefixtures("_small")
def test_figures_add_up_and_every_way_is_right(command, tmp_path):
    flags = [
        "--attention",
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--rounds",
        1,
        "--seconds",
        0.001,
        "--out",
        tmp_path / "new",
    ]
    code, output, error = command(bench.main, *flags)
    assert code == 0, error
    assert "no GPU" in output
    facts = json.loads((tmp_path / "new/attention.json").read_text())
    assert (tmp_path / "new/attention.png").read_bytes().startswith(b"\x89PNG")
    assert {row["sizes"] for row in facts["rows"]} == {"one", "other, third"}
    assert {row["variant"] for row in facts["rows"]} == {"plain", "sdpa flash", "sdpa math"}
    for row in facts["rows"]:
        assert max(row["error_output"], row["error_gradient"]) < 1e-5
        products = {"forward": 2, "forward and backward": 7}[row["pass"]]
        operations = products * row["heads"] * 2 * 16 * 16 / 2 * row["head_dim"]  # the masked half is not counted
        assert row["tflops"] * row["ms"] == pytest.approx(operations / 1e9)
        assert row["of_ceiling"] == pytest.approx(row["tflops"] / facts["matmul_tflops"])


@pytest.mark.parametrize("section", ["step", "clones", "evaluation", "loss"])
def test_every_section_measures_prints_and_draws(section, command, tmp_path, monkeypatch):
    tiny = bench_step.Shape(Size(1, 32, 1, 32, 64), 64, 16, 2)
    monkeypatch.setattr(bench_step, "shape_for", lambda _: tiny)
    monkeypatch.setattr(bench_clones, "shape_for", lambda _: tiny)
    monkeypatch.setattr(bench_evaluation, "TEXTS", {"a text": (64, 16, 4, 40)})
    monkeypatch.setitem(bench_loss.SHAPES, "cpu", [bench_loss.Shape(8, 16, 32)])
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)  # whether it compiles, the sections' users see
    flags = ["--device", "cpu", "--rounds", 1, "--seconds", 0.001, "--out", tmp_path]
    code, out, _ = command(bench.main, f"--{section}", *flags)
    assert code == 0
    assert "written to" in out
    facts = json.loads((tmp_path / f"{section}.json").read_text())
    assert {"device", "torch", "dtype"} < facts.keys()
    assert (tmp_path / f"{section}.png").stat().st_size > 1000


def test_a_wrong_way_would_show_its_error():
    wrong = bench_attention.Variant(lambda qkv: qkv[:, :, 2] * 1.5, packed=True)
    output, gradient = bench_attention.errors(
        wrong, *bench_attention.random_inputs(1, (1, 32), torch.float32, torch.device("cpu"))
    )
    assert output > 0.1
    assert gradient > 0.1


def test_the_median_turn_counts(monkeypatch):
    turns = iter([5.0, 5.0, 5.0, 9.0, 9.0, 9.0, 10.0, 40.0, 90.0, 20.0, 20.0, 20.0])
    monkeypatch.setattr(timing, "one_turn", lambda call, calls, device: next(turns))
    times = timing.milliseconds({"one": None, "other": None}, torch.device("cpu"), rounds=3, seconds=0.01)
    # Turns alternate; two calls of "one" and one of "other" fill ten milliseconds.
    assert times == {"one": 20.0 / 2, "other": 20.0}


@pytest.mark.parametrize("flags", [["--rounds", "0"], ["--seconds", "0"], ["--seconds", "nan"], ["--tune", "--device", "cpu"]])
def test_what_cannot_be_measured_is_refused_in_one_sentence(command, flags):
    code, _, error = command(bench.main, *flags)
    assert code == 2
    assert error.count("\n") == 1
    assert flags[0] in error
