"""What a step reads and costs: the same sequences for any number of processes, read ahead; memory and operations counted."""

import json
import sys
import threading
import time
import types

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import flops
import metrics
import train
from metrics import LanguageLosses
from model import GPT, SIZES, Size
from process import Process
from steps import Steps, ahead, micro_batch_size

CPU = Process(0, 1, torch.device("cpu"))


class Numbers:
    """A mixture whose sequences say which they are."""

    def batch(self, numbers):
        return np.stack([np.full(5, n) for n in numbers]), numbers % 2


@given(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 3, 6]), st.integers(0, 3))
def test_all_processes_together_read_every_sequence_once_and_in_its_step(world, micro, begin):
    config = {"batch": 6 * world, "length": 4, "steps": 5}
    seen: dict[int, list[int]] = {}
    for rank in range(world):
        steps = Steps(Numbers(), config, micro, Process(rank, world, torch.device("cpu")))
        for number, part in enumerate(steps.parts_from(begin)):
            seen.setdefault(begin + number // steps.parts, []).extend(part.inputs[:, 0].tolist())
            assert torch.equal(part.targets, part.inputs)
            assert part.inputs.shape == (micro, 4)
    assert {step: sorted(found) for step, found in seen.items()} == {
        step: list(range(step * 6 * world, (step + 1) * 6 * world)) for step in range(begin, 5)
    }


@given(st.lists(st.integers()))
def test_reading_ahead_changes_nothing(numbers):
    assert list(ahead(lambda n: n + 1, numbers)) == [n + 1 for n in numbers]


def test_the_next_is_read_while_one_is_used():
    started = []
    results = ahead(lambda n: (started.append(n), threading.get_ident())[1], range(5))
    assert next(results) != threading.get_ident()
    end = time.monotonic() + 10
    while len(started) < 2 and time.monotonic() < end:
        time.sleep(0.001)
    assert started == [0, 1]


def test_an_error_while_reading_ahead_is_an_error():
    results = ahead(lambda n: 1 // (2 - n), range(5))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_micro_batches_shrink_with_the_vocabulary_and_divide_the_batch():
    config = {"size": "small", "batch": 128, "length": 512, "precision": "bf16"}
    sizes = [micro_batch_size(None, config, vocabulary, CPU) for vocabulary in (16_384, 163_840)]
    assert sizes[0] > sizes[1] >= 1
    assert all(128 % size == 0 for size in sizes)


@pytest.mark.parametrize("name", ["nano", "mini", "small"])
def test_operations_are_six_for_each_weight_of_a_matrix_product_and_attention(name):
    size = SIZES[name]
    model = GPT(size, 1000, 64)
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    attention = 12 * size.layers * size.heads * size.head_dim * 64
    assert flops.flops_per_token(size, 1000, 64) == 6 * linear + attention


def test_peaks_are_found_by_the_longest_name():
    assert flops.peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert flops.peak_flops("NVIDIA H100 PCIe") == 756e12
    assert flops.peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert flops.peak_flops("NVIDIA L40S") == 362e12
    assert flops.peak_flops("NVIDIA GeForce RTX 3090") == 71e12
    assert flops.peak_flops("NVIDIA A10G") is None
    assert flops.peak_flops("NVIDIA RTX A4000") is None
    assert flops.peak_flops("Abacus 3") is None


def test_utilisation_is_the_share_of_all_devices_peaks(monkeypatch):
    monkeypatch.setattr(Process, "device_name", lambda self: "NVIDIA A100")
    monkeypatch.setitem(SIZES, "one", Size(1, 8, 1, 8, 32))
    process = Process(0, 4, torch.device("cuda"))
    speed = 0.5 * 4 * 312e12 / flops.flops_per_token(SIZES["one"], 100, 16)
    utilisation = flops.Utilisation({"size": "one", "length": 16}, 100, process)
    assert utilisation.facts(speed) == {"mfu": 0.5}
    assert utilisation.note(speed) == "50% MFU | "
    assert flops.Utilisation({"size": "one", "length": 16}, 100, CPU).facts(speed) == {}


def test_a_loss_that_is_not_finite_names_its_step_and_language():
    losses = LanguageLosses(["EN1", "EN2"], CPU)
    for step in (7, 8, 9):
        losses.add(step, np.array([0, 1]), torch.tensor([[1.0, 2.0], [3.0, float("nan") if step > 7 else 4.0]]))
    with pytest.raises(metrics.UserError, match="the loss of EN2 is nan at step 8"):
        losses.take()


def test_losses_are_means_over_steps_and_parts():
    losses = LanguageLosses(["EN1", "EN2", "EN3"], CPU)
    losses.add(1, np.array([0, 1]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    losses.add(1, np.array([0]), torch.tensor([[6.0, 6.0]]))
    losses.add(2, np.array([0]), torch.tensor([[0.0, 0.0]]))
    assert losses.take() == {"EN1": 2.5, "EN2": 3.5}
    losses.add(3, np.array([2]), torch.tensor([[1.0]]))
    assert losses.take() == {"EN3": 1.0}


def test_every_line_is_also_logged_elsewhere(tmp_path, tiny, command, monkeypatch):
    logged, opened = [], {}

    class Run:
        def log(self, line, step):
            logged.append((step, line["loss"]))

    fake = types.ModuleType("wandb")
    fake.__spec__ = types.SimpleNamespace()
    fake.init = lambda **settings: opened.update(settings) or Run()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    assert command(train.main, *tiny, "--wandb", "babel", "--out", tmp_path / "run")[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert logged == [(line["step"], line["loss"]) for line in lines]
    assert (opened["project"], opened["id"], opened["resume"]) == ("babel", "run", "allow")
    assert opened["config"]["tokens"] == 2048


def test_without_the_package_there_is_no_logging_elsewhere(tmp_path, tiny, command, monkeypatch):
    monkeypatch.setattr(train.importlib.util, "find_spec", lambda name: None)
    code, _, error = command(train.main, *tiny, "--wandb", "babel", "--out", tmp_path / "run")
    assert (code, "--wandb: the package is not installed" in error) == (2, True)
    assert not (tmp_path / "run").exists()


def test_fp16_follows_fp32(tmp_path, tiny, command):
    for precision in ("fp16", "fp32"):
        assert command(train.main, *tiny, "--precision", precision, "--out", tmp_path / precision)[0] == 0
    ours, theirs = ([json.loads(line)["loss"] for line in (tmp_path / p / "metrics.jsonl").read_text().splitlines()]
                    for p in ("fp16", "fp32"))  # fmt: skip
    assert ours != theirs
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, abs=0.05)
