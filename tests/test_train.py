"""Training: the same run however it is interrupted, repeated or shared out, and clear words for what cannot be."""

import fcntl
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TORCHRUN, same_weights, tree

import evaluate
import process as process_module
import train
from process import Process, compile_if_possible


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[dict]:
    return [line["loss"] for line in metrics(run)]


@pytest.fixture
def reference(tmp_path, tiny, command):
    """The tiny run, undisturbed."""
    assert command(train.main, *tiny, "--ratio", 0.7, "--out", tmp_path / "reference")[0] == 0
    return tmp_path / "reference"


def test_a_run_describes_itself(reference):
    result = json.loads((reference / "result.json").read_text())
    assert result["size"] == "nano"
    assert result["tokens"] == 2048
    assert result["vocabulary"] == 1024
    assert [language["name"] for language in result["languages"]] == ["EN1", "EN2"]
    assert sum(language["tokens"] for language in result["languages"]) == 2048
    assert [line["step"] for line in metrics(reference)] == list(range(1, 9))
    assert metrics(reference)[-1]["tokens"] == 2048
    assert not (reference / "checkpoint.pt").exists()
    assert torch.load(reference / "model.pt", weights_only=True)["output.weight"].shape == (1024, 128)


def test_a_second_run_is_the_same(reference, tmp_path, tiny, command):
    command(train.main, *tiny, "--ratio", 0.7, "--out", tmp_path / "second")
    assert losses(tmp_path / "second") == losses(reference)
    assert same_weights(tmp_path / "second" / "model.pt", reference / "model.pt")


def test_another_seed_is_another_run(reference, tmp_path, tiny, command):
    command(train.main, *tiny, "--ratio", 0.7, "--seed", 1, "--out", tmp_path / "second")
    assert losses(tmp_path / "second") != losses(reference)


def test_learning_happens(tmp_path, tiny, command):
    command(train.main, *tiny, "--ratio", 1, "--tokens", 60 * 8 * 32, "--out", tmp_path / "run")
    first, *_, last = losses(tmp_path / "run")
    assert first["EN1"] == pytest.approx(6.24, abs=0.2)  # ln 512: a new model knows nothing
    assert last["EN1"] < first["EN1"] - 0.5


@pytest.mark.parametrize("stopped_at", [1, 4, 5])
def test_a_stopped_run_continues_as_if_never_stopped(reference, tmp_path, tiny, command, monkeypatch, stopped_at):
    run = ["--ratio", 0.7, "--save-every", 3, "--out", tmp_path / "run"]
    with monkeypatch.context() as patch:
        original = process_module.StopSignal.requested
        calls = []

        def requested(self):
            calls.append(1)
            if len(calls) == stopped_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(self)

        patch.setattr(process_module.StopSignal, "requested", requested)
        code, out, _ = command(train.main, *tiny, *run)
    assert code == 128 + signal.SIGTERM
    assert f"stopped after step {stopped_at} of 8" in out
    assert not (tmp_path / "run" / "result.json").exists()
    code, out, _ = command(train.main, *tiny, *run)
    assert code == 0
    assert f"after step {stopped_at} of 8" in out
    assert losses(tmp_path / "run") == losses(reference)
    assert same_weights(tmp_path / "run" / "model.pt", reference / "model.pt")


def test_a_run_that_died_continues_from_its_checkpoint(reference, tmp_path, tiny, command, monkeypatch):
    run = ["--ratio", 0.7, "--save-every", 3, "--out", tmp_path / "run"]
    with monkeypatch.context() as patch:
        original = train.train_step

        def dying(step, *args, **kwargs):
            if step == 5:
                raise MemoryError
            original(step, *args, **kwargs)

        patch.setattr(train, "train_step", dying)
        with pytest.raises(MemoryError):  # a fault of the program or the machine keeps its traceback
            command(train.main, *tiny, *run)
    with open(tmp_path / "run" / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "lo')  # a line that was being written
    code, out, _ = command(train.main, *tiny, *run)
    assert code == 0
    assert "after step 3 of 8" in out
    assert [line["step"] for line in metrics(tmp_path / "run")] == list(range(1, 9))
    assert losses(tmp_path / "run") == losses(reference)
    assert same_weights(tmp_path / "run" / "model.pt", reference / "model.pt")


def test_a_finished_run_is_left_alone(reference, tiny, command):
    before = tree(reference)
    code, out, _ = command(train.main, *tiny, "--ratio", 0.7, "--out", reference)
    assert code == 0
    assert "is finished" in out
    assert tree(reference) == before


def test_parts_of_a_batch_add_up_to_it(reference, tmp_path, tiny, command):
    command(train.main, *tiny, "--ratio", 0.7, "--micro-batch", 2, "--out", tmp_path / "run")
    for ours, theirs in zip(losses(tmp_path / "run"), losses(reference), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_the_first_command_prepares_the_default_text_once_for_all_processes(tmp_path):
    command = [*TORCHRUN, str(ROOT / "train.py")]
    arguments = ["--ratio", "0.9", "--tokens", "4096", "--batch", "8", "--no-compile", "--device", "cpu"]
    done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("training a tokeniser of 2048 pieces") == 1
    assert (tmp_path / "data" / "pydocs" / "meta.json").exists()
    assert (tmp_path / "out" / "pydocs-nano-90-4.1k-seed0" / "result.json").exists()


def test_two_starts_of_one_run_do_not_share_its_folder(tmp_path, tiny, command):
    (tmp_path / "run").mkdir()
    descriptor = os.open(tmp_path / "run", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    code, _, error = command(train.main, *tiny, "--ratio", 0.7, "--out", tmp_path / "run")
    os.close(descriptor)
    assert (code, tree(tmp_path)) == (2, {})
    assert "another process is training in" in error


def test_a_checkpoint_of_another_run_is_refused(tmp_path, tiny, command, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(process_module.StopSignal, "requested", lambda self: True)
        for ratio in (0.7, 0.4):
            command(train.main, *tiny, "--ratio", ratio, "--out", tmp_path / str(ratio))
    (tmp_path / "0.4" / "checkpoint.pt").write_bytes((tmp_path / "0.7" / "checkpoint.pt").read_bytes())
    code, _, error = command(train.main, *tiny, "--ratio", 0.4, "--out", tmp_path / "0.4")
    assert code == 2
    assert "belongs to another run (its stages differ)" in error


def test_stages_change_what_is_trained(tmp_path, tiny, command):
    command(train.main, *tiny, "--ratio", "1,0", "--out", tmp_path / "run")
    assert [list(loss) for loss in losses(tmp_path / "run")] == [["EN1"]] * 4 + [["EN2"]] * 4
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [language["tokens"] for language in result["languages"]] == [1024, 1024]


REAL = [
    # flags, names, least and most ids of the joint vocabulary
    (["--languages", "en", "xx", "--ratio", 0.6], ["EN", "XX"], (1024, 1024)),
    (["--languages", "en", "xx", "--vocab", "anchored", "--ratio", "0.9,0.1"], ["EN", "XX"], (513, 767)),
    (["--languages", "xx", "en", "yy", "--mix", "0.5,0.2,0.3/0.2,0.5,0.3"], ["XX", "EN", "YY"], (1536, 1536)),
    (["--clones", 3, "--anchors", 0.2, "--mix", "0.5,0.2,0.3"], ["EN1", "EN2", "EN3"], (1434, 1536)),
]


@pytest.mark.parametrize(("flags", "names", "vocabulary"), REAL)
def test_real_languages_and_partial_clones_are_trained_and_scored(tmp_path, tiny, babel, command, flags, names, vocabulary):
    code, out, error = command(train.main, *tiny, "--data", babel, *flags, "--out", tmp_path / "run")
    assert (code, error) == (0, "")
    assert "passes over" in out
    assert command(evaluate.main, tmp_path / "run")[0] == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [language["name"] for language in result["languages"]] == names
    assert [language["source"] for language in result["languages"]] == result["sources"]
    assert sum(language["tokens"] for language in result["languages"]) == result["tokens"] == 2048
    assert vocabulary[0] <= result["vocabulary"] <= vocabulary[1]
    assert all(1 < language["ppl"] < 2 * result["vocabulary"] for language in result["languages"])
    test = json.loads((babel / "meta.json").read_text())["languages"]
    for language in result["languages"]:  # each on the held-out text of its own source
        assert language["scored_tokens"] == test[language["source"]]["test"]["tokens"] - 1 - 24


def test_bf16_follows_fp32(reference, tmp_path, tiny, command):
    command(train.main, *tiny, "--ratio", 0.7, "--precision", "bf16", "--out", tmp_path / "run")
    for ours, theirs in zip(losses(tmp_path / "run"), losses(reference), strict=True):
        assert ours == pytest.approx(theirs, abs=0.05)


def test_without_a_compiler_training_goes_on_and_says_so(capsys, monkeypatch):
    def broken(*_args, **_options):
        def call(*_):
            raise RuntimeError("No C++ compiler found\nmore")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    model = torch.nn.Linear(2, 2)
    process = Process(0, 1, torch.device("cpu"))
    assert compile_if_possible(model, torch.ones(1, 2), torch.ones(1, 2), "fp32", process) is None
    assert "going on without it (RuntimeError: No C++ compiler found)" in capsys.readouterr().out


def test_learning_rate_warms_up_and_falls_to_a_hundredth():
    config = {"learning_rate": 6e-4, "warmup": 500, "steps": 18265}
    rates = [train.learning_rate(step, config) for step in range(18265)]
    assert rates[0] == pytest.approx(6e-4 / 500)
    assert max(rates) == rates[499] == pytest.approx(6e-4)
    assert rates[-1] == pytest.approx(6e-6)
    assert rates[499:] == sorted(rates[499:], reverse=True)
    assert rates[(500 + 18264) // 2] == pytest.approx((6e-4 + 6e-6) / 2, rel=1e-3)


def test_the_paper_s_recipe_is_the_default(prepared):
    args = train.parse_arguments(["--data", str(prepared), "--size", "small", "--tokens", "1.2e9"])
    config = train.settings(args, train.open_data(args.data), Process(0, 1, torch.device("cpu")))
    assert (config["length"], config["batch"], config["learning_rate"], config["warmup"]) == (512, 128, 6e-4, 500)
    assert config["steps"] == pytest.approx(18265, rel=0.003)


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--ratio", "1.5"], "--ratio 1.5: expected numbers from 0 to 1"),
    (["--ratio", "nan"], "--ratio nan: expected numbers from 0 to 1"),
    (["--ratio", "0"], "--ratio 0 trains the other languages alone"),
    (["--ratio", "most"], "--ratio 'most': expected a number from 0 to 1"),
    (["--ratio", "0.9,"], "--ratio '0.9,'"),
    (["--clones", "1"], "--clones 1: expected 2 to 1000"),
    (["--size", "huge"], "invalid choice: 'huge'"),
    (["--tokens", "-5"], "--tokens -5: expected a number above 0"),
    (["--tokens", "nan"], "--tokens nan: expected a number above 0"),
    (["--tokens", "10"], "--tokens 10 is less than one step of 8 x 32 tokens"),
    (["--seed", "-1"], "--seed -1"),
    (["--batch", "0"], "--batch 0: expected a number above 0"),
    (["--micro-batch", "3"], "--micro-batch 3 does not divide the 8 sequences"),
    (["--length", "1000000"], "training tokens, expected more than one sequence of 1000000"),
    (["--data", "missing"], "missing/meta.json does not exist"),
    (["--data", "empty"], "empty/meta.json does not exist"),
    (["--data", "cut"], "en_train_000.bin has"),
    (["--data", "alien"], "alien/meta.json cannot be read"),
    (["--out", "cut/meta.json"], "is a file, expected a folder"),
    (["--out", "cut/meta.json/x"], "Not a directory"),
    (["--out", "cut"], "is a folder with other things in it"),
    (["--tokens", "1e30"], "--tokens 1e+30: expected a number above 0"),
    (["--seed", "99999999999999999999"], "--seed 99999999999999999999"),
    (["--clones", "100000"], "--clones 100000"),
])  # fmt: skip
def test_unusable_input_is_one_sentence_and_writes_nothing(tmp_path, monkeypatch, tiny, command, arguments, sentence, prepared):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "cut", "alien"):
        (tmp_path / folder).mkdir()
    for name, content in tree(prepared).items():
        (tmp_path / "cut" / name).write_bytes(content[:-2] if name == "en_train_000.bin" else content)
    (tmp_path / "alien" / "meta.json").write_text("not JSON")
    before = tree(tmp_path)
    code, _, error = command(train.main, *tiny, *arguments)
    assert code == 2
    assert sentence in error
    assert "Traceback" not in error
    assert tree(tmp_path) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_an_error(tiny, command):
    code, _, error = command(train.main, *tiny, "--device", "cuda")
    assert (code, "no CUDA device" in error) == (2, True)


def test_other_settings_are_named_and_change_nothing(reference, tiny, command):
    before = tree(reference)
    code, _, error = command(train.main, *tiny, "--ratio", 0.6, "--seed", 3, "--out", reference)
    assert code == 2
    assert "stages [[0.7, 0.3]] there and [[0.6, 0.4]] here" in error
    assert "seed 0 there and 3 here" in error
    assert "batch" not in error
    assert tree(reference) == before


@pytest.mark.parametrize("spoil", [
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(path.read_bytes()[:-5000]),
    lambda path: path.write_bytes(b"not a checkpoint" * 100),
    lambda path: torch.save({"step": 3, "model": {}, "optimizer": {}}, path),
    lambda path: torch.save({"step": 3, "model": Path("a"), "optimizer": {}}, path),
])  # fmt: skip
def test_a_damaged_checkpoint_is_refused(tmp_path, tiny, command, monkeypatch, spoil):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(process_module.StopSignal, "requested", lambda self: True)
        patch.setattr(process_module.StopSignal, "number", signal.SIGTERM, raising=False)
        command(train.main, *tiny, "--ratio", 0.7, "--out", run)
    spoil(run / "checkpoint.pt")
    before = tree(run)
    code, _, error = command(train.main, *tiny, "--ratio", 0.7, "--out", run)
    assert code == 2
    assert "checkpoint.pt" in error
    assert "Traceback" not in error
    assert tree(run) == before


def test_a_loss_that_is_not_finite_stops_before_a_good_checkpoint_is_lost(tmp_path, tiny, command):
    run = tmp_path / "run"
    arguments = [*tiny, "--ratio", 0.7, "--learning-rate", 1e14, "--warmup", 1, "--save-every", 1, "--out", run]
    code, _, error = command(train.main, *arguments)
    assert code == 2
    assert "the loss of EN" in error or "the weights are not finite after step" in error
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    assert state["step"] + 1 == int(re.search(r"step (\d+)", error)[1])
    assert all(weights.isfinite().all() for weights in state["model"].values())
    assert not (run / "result.json").exists()
