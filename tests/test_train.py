"""Training on one process: from flags to a run that repeats, stops and continues to the bit."""

import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import types
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from conftest import ROOT, same_weights, tree
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import FakeTensorMode

import evaluate
import machine
import train
from common import Progress, UserError, code_hash, exclusive, read_json, read_metrics
from data import Dataset, build_mixture
from kernels import triton_runs
from machine import Process
from model import GPT, SIZES
from train import LanguageLosses

CPU = Process(0, 1, torch.device("cpu"))


def configure(folder, *flags) -> dict:
    """The config.json of a command line."""
    arguments = ["--data", folder, "--size", "nano", "--length", 32, *flags]
    args = train.parse_arguments([str(argument) for argument in arguments])
    return json.loads(json.dumps(train.settings(args, Dataset(args.data), torch.device("cpu"))))


SETTINGS = [
    # flags, names of the languages, vocab, stages
    ("--ratio 0.9", "EN1 EN2", "cloned", [[0.9, 0.1]]),
    ("--mix 1/1", "EN1", "monolingual", [[1], [1]]),
    ("--ratio 0.9,0.1", "EN1 EN2", "cloned", [[0.9, 0.1], [0.1, 0.9]]),
    ("--ratio 0.4 --clones 4", "EN1 EN2 EN3 EN4", "cloned", [[0.4, 0.2, 0.2, 0.2]]),
    ("--anchors 0.2", "EN1 EN2", "cloned", [[0.5, 0.5]]),
    ("--shared", "EN1 EN2", "cloned", [[0.5, 0.5]]),
    ("--shared e a", "EN1 EN2", "cloned", [[0.5, 0.5]]),
    ("--positions learned", "EN1 EN2", "cloned", [[0.5, 0.5]]),
    ("--no-tied", "EN1 EN2", "cloned", [[0.5, 0.5]]),
    ("--clones 3 --mix 0.5,0.3,0.2", "EN1 EN2 EN3", "cloned", [[0.5, 0.3, 0.2]]),
    ("--languages xx", "XX1 XX2", "cloned", [[0.5, 0.5]]),
    ("--languages en xx --ratio 0.9", "EN XX", "disjoint", [[0.9, 0.1]]),
    ("--languages en xx --vocab anchored", "EN XX", "anchored", [[0.5, 0.5]]),
    ("--languages en xx yy --mix 0.7,0.2,0.1/0.1,0.2,0.7", "EN XX YY", "disjoint",
     [[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]]),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "names", "vocab", "stages"), SETTINGS)
def test_flags_become_a_config_that_rebuilds_the_mixture(babel, flags, names, vocab, stages):
    config = configure(babel, "--tokens", "1.28e6", *flags.split())
    assert config["vocab"] == vocab
    assert np.array(config["stages"]) == pytest.approx(np.array(stages))
    mixture = build_mixture(Dataset(babel), config)
    assert [language.name for language in mixture.languages] == names.split()
    assert [language.source for language in mixture.languages] == config["sources"]


@pytest.mark.parametrize(("flags", "expected"), [
    ("", ("rotary", True, [" "])),
    ("--size mini", ("learned", False, [])),
    ("--size mini --tied --positions rotary", ("rotary", True, [])),
    ("--shared --no-tied --positions learned", ("learned", False, [])),
    ("--ratio 1", ("rotary", True, [])),  # nothing is there to share it with: one yardstick for all mixes
    ("--languages en xx --shared e", ("rotary", True, ["e"])),
    ("--languages en xx --vocab anchored", ("rotary", True, [])),  # all that is spelled alike is shared
])  # fmt: skip
def test_a_size_has_a_model_and_shared_pieces_that_flags_replace(babel, flags, expected):
    config = configure(babel, "--tokens", 2048, *flags.split())
    assert (config["positions"], config["tied"], config["shared"]) == expected


def test_no_two_settings_share_a_folder(babel, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    folders = set()
    for flags, *_ in SETTINGS:
        args = train.parse_arguments(["--data", str(babel), "--length", "32", *flags.split()])
        folders.add(train.run_folder(args, train.settings(args, Dataset(babel), torch.device("cpu"))))
    assert len(folders) == len(SETTINGS)
    assert all(folder.parent == Path("out") for folder in folders)


def test_a_run_that_was_killed_before_it_saved_anything_begins(tmp_path, run):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json.tmp").write_text('{"data": ')
    assert run()[0] == 0


def test_the_longest_run_reads_no_text_twice(babel):
    sizes = {source: entry["train"]["tokens"] for source, entry in Dataset(babel).languages.items()}
    config = configure(babel, "--languages", "en", "xx", "--ratio", 0.7)
    assert config["tokens"] == pytest.approx(min(sizes["en"] / 0.7, sizes["xx"] / 0.3), rel=0.01)
    passes = build_mixture(Dataset(babel), config).passes()
    assert max(passes.values()) == pytest.approx(1, abs=0.03)
    assert configure(babel, "--clones", 10)["tokens"] == pytest.approx(sizes["en"], rel=0.01)


def test_learning_rate_warms_up_and_falls_to_a_hundredth():
    config = {"learning_rate": 6e-4, "warmup": 500, "steps": 18265}
    rates = [train.learning_rate(step, config) for step in range(18265)]
    assert rates[0] == pytest.approx(6e-4 / 500)
    assert max(rates) == rates[499] == pytest.approx(6e-4)
    assert rates[-1] == pytest.approx(6e-6)
    assert rates[499:] == sorted(rates[499:], reverse=True)
    assert rates[(500 + 18264) // 2] == pytest.approx((6e-4 + 6e-6) / 2, rel=1e-3)


@pytest.mark.parametrize(
    ("sequences", "most", "size"), [(12, 8, 6), (24, 32, 24), (10, 32, 10), (7, 4, 1), (8, 10**15, 8)]
)
def test_a_batch_is_worked_on_in_the_largest_equal_parts(sequences, most, size):
    assert train.equal_parts(sequences, most) == size


@pytest.mark.parametrize(("gigabytes", "most"), [(16, 10), (24, 16), (80, 53)])
def test_micro_batches_follow_the_memory_of_a_gpu(monkeypatch, gigabytes, most):
    memory = types.SimpleNamespace(total_memory=gigabytes * 1e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: memory)
    gpu = Process(0, 1, torch.device("cuda", 0))
    args = train.parse_arguments(["--size", "small"])
    assert train.sequences_at_a_time(args, gpu) == most
    assert train.sequences_at_a_time(args, CPU) == 16
    assert train.sequences_at_a_time(train.parse_arguments(["--micro-batch", "3"]), gpu) == 3


@pytest.mark.parametrize(("flags", "sentence"), [
    ("--ratio nan", "--ratio: nan: expected a number from 0 to 1"),
    ("--ratio 0.5 --mix 0.5,0.5", "not allowed with"),
    ("--mix 0.5,0.4", "expected shares that add up to 1 in each stage"),
    ("--mix 0.5,0.3,0.2", "--mix: expected 2 shares in each stage, for en en"),
    ("--clones 2.5", "--clones: 2.5: expected a whole number from 2 to 1000"),
    ("--tokens 10", "--tokens 10 is less than one step of 8 x 32 tokens"),
    ("--length 1000000", "training tokens, but a sequence needs more than 1000000; lower --length"),
    ("--languages zz", "--languages zz: "),
    ("--data missing", "missing"),
    ("--data alien", "alien/meta.json is damaged"),
    ("--data cut", "en_train_000.bin"),
    ("--data foreign", "foreign was not prepared by this data.py"),
    ("--out cut", "exists but holds no run"),
    ("--shared the", "--shared 'the': the tokeniser of en has no such piece"),
    ("--shared e --ratio 1", "--shared has no effect with --ratio 1"),
    ("--fsdp", "--fsdp splits a model among processes, but there is only one"),
    ("--ratio 1 --clones 3", "--clones is for clones, but this run has one language"),
    ("--vocab anchored", "--vocab is for real languages, but this run has clones"),
    ("--data BABEL --languages en xx --ratio 1", "--ratio 1 is a monolingual run"),
    ("--data BABEL --languages en xx en", "one is named twice"),
    ("--data BABEL --languages en xx --anchors 0.5", "but this run has real languages"),
])  # fmt: skip
def test_unusable_input_is_refused(tmp_path, monkeypatch, tiny, babel, refused, flags, sentence):
    monkeypatch.chdir(tmp_path)
    for folder in ("cut", "alien", "foreign"):
        (tmp_path / folder).mkdir()
    for name, content in tree(tiny[1]).items():  # the prepared data
        (tmp_path / "cut" / name).write_bytes(content[:-2] if name == "en_train_000.bin" else content)
    (tmp_path / "alien" / "meta.json").write_text("not JSON")
    (tmp_path / "foreign" / "meta.json").write_text('{"tokens": 5}')
    assert sentence in refused(train.main, *tiny, *flags.replace("BABEL", str(babel)).split())


def test_a_language_without_a_sequence_is_named(tmp_path, tiny, command):
    out = command(train.main, *tiny, "--ratio", 0.9999, "--out", tmp_path / "run")[1]
    assert "warning: the 64 sequences of this run leave out language EN2; raise --tokens" in out


@pytest.mark.parametrize(("device", "gpus", "environment", "sentence"), [
    (None, 0, {"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but torchrun did not start this process"),
    (None, 4, {"LOCAL_RANK": "4", "LOCAL_WORLD_SIZE": "8"}, "this machine has 4 GPUs for 8 processes"),
    ("cuda", 0, {}, "no CUDA device"), ("mps", 0, {}, "no Apple GPU"),
])  # fmt: skip
def test_a_machine_that_does_not_fit_is_an_error(monkeypatch, device, gpus, environment, sentence):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=sentence):
        Process.current(device)


def test_a_driver_too_old_for_pytorch_is_an_error_and_no_run_on_a_cpu(tiny, command, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(train.Path, "glob", lambda folder, name: iter([folder / "nvidia0"]))
    with pytest.raises(
        UserError, match=r"driver is missing or too old for the CUDA 13\.0 of this PyTorch; update it"
    ):
        Process.current()
    assert Process.current("cpu").device.type == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not machine.gpu_out_of_reach()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.version, "cuda", None)  # the build for CPUs
    assert not machine.gpu_out_of_reach()


def losses(run: Path) -> list[dict]:
    return [line["loss"] for line in read_metrics(run)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory, prepared) -> Path:
    """The tiny run, undisturbed. Read only."""
    out = tmp_path_factory.mktemp("runs") / "reference"
    train.main([*map(str, TINY), "--data", str(prepared), "--out", str(out)])
    return out


TINY = ["--size", "nano", "--length", 32, "--batch", 8, "--tokens", 8 * 8 * 32, "--warmup", 2, "--ratio", 0.7,
        "--log-every", 1, "--no-compile", "--precision", "fp32", "--device", "cpu"]  # fmt: skip


@pytest.fixture
def run(tmp_path, prepared, command):
    """Call `run(*flags)` for the tiny run in tmp_path/run with other flags: (exit code, output, errors)."""
    return lambda *flags: command(
        train.main, *TINY, "--no-score", "--data", prepared, "--out", tmp_path / "run", *flags
    )


def at_step(monkeypatch, number: int, action) -> None:
    """Do something at the beginning of a step, counted from 0."""
    original = train.learning_rate

    def learning_rate(step, config):
        if step == number:
            action()
        return original(step, config)

    monkeypatch.setattr(train, "learning_rate", learning_rate)


def test_a_run_describes_itself(reference):
    result, lines = read_json(reference / "result.json"), read_metrics(reference)
    assert (result["size"], result["vocabulary"], result["code"]) == ("nano", 1024, code_hash())
    assert sum(language["tokens"] for language in result["languages"]) == lines[-1]["tokens"] == 2048
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert [line["learning_rate"] for line in lines] == [train.learning_rate(i, result) for i in range(8)]
    held_out = lines[-1]["held_out"]
    assert set(held_out) == {"EN1", "EN2"}
    assert held_out["EN1"] == pytest.approx(math.log(result["languages"][0]["ppl"]), abs=0.5)
    files = {path.name for path in reference.iterdir()}
    assert files == {"config.json", "metrics.jsonl", "model.pt", "result.json"}


@pytest.mark.parametrize(
    "flags", [(), ("--micro-batch", 2), ("--precision", "bf16"), ("--precision", "fp16")]
)
def test_the_same_run_again(reference, tmp_path, run, flags):
    assert run(*flags)[0] == 0
    if not flags:
        assert losses(tmp_path / "run") == losses(reference)
        assert same_weights(tmp_path / "run" / "model.pt", reference / "model.pt")
    tolerance = 0.05 if "--precision" in flags else 1e-5
    for ours, theirs in zip(losses(tmp_path / "run"), losses(reference), strict=True):
        assert ours == pytest.approx(theirs, abs=tolerance)


@pytest.mark.parametrize("number", [0, 3, 4])
def test_a_stopped_run_continues_as_if_never_stopped(reference, tmp_path, run, monkeypatch, number):
    with monkeypatch.context() as patch:
        at_step(patch, number, lambda: os.kill(os.getpid(), signal.SIGTERM))
        code, out, _ = run("--save-every", 3)
    assert code == 128 + signal.SIGTERM
    assert f"stopped after step {number + 1} of 8" in out
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert not (tmp_path / "run" / "result.json").exists()
    code, out, _ = run()
    assert code == 0
    assert f"after step {number + 1} of 8" in out
    assert losses(tmp_path / "run") == losses(reference)
    assert same_weights(tmp_path / "run" / "model.pt", reference / "model.pt")


def die() -> None:
    raise MemoryError


def test_a_run_that_died_continues_from_its_checkpoint(reference, tmp_path, run, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 5, die)
        with pytest.raises(MemoryError):  # a fault of the program or the machine keeps its traceback
            run("--save-every", 3)
    with open(tmp_path / "run" / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "lo')  # a line that was being written
    code, out, _ = run()
    assert (code, "after step 3 of 8" in out) == (0, True)
    assert losses(tmp_path / "run") == losses(reference)
    assert same_weights(tmp_path / "run" / "model.pt", reference / "model.pt")


@pytest.mark.parametrize("event", [9, 10, 11])  # of the third: its flush, the old one's new name, its own
def test_a_death_anywhere_in_writing_leaves_a_checkpoint(reference, tmp_path, run, monkeypatch, event):
    events = []

    def counted(original, *arguments):
        events.append(original)
        if len(events) == event + 1:
            raise MemoryError
        return original(*arguments)

    with monkeypatch.context() as patch:
        for name in ("fsync", "replace"):
            patch.setattr(os, name, partial(counted, getattr(os, name)))
        with pytest.raises(MemoryError):
            run("--save-every", 1)
    assert (tmp_path / "run" / "checkpoint-before.pt").exists()
    assert run()[0] == 0
    assert same_weights(tmp_path / "run" / "model.pt", reference / "model.pt")


@pytest.fixture
def stopped(tmp_path, run, monkeypatch) -> Path:
    """The tiny run as a fault in its fourth step leaves it, with a checkpoint of every step."""
    with monkeypatch.context() as patch:
        at_step(patch, 3, die)
        with pytest.raises(MemoryError):
            run("--save-every", 1)
    return tmp_path / "run"


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [
    flip_a_bit,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(path.read_bytes()[:-5000]),
    lambda path: torch.save({"step": 3, "model": Path("a")}, path),  # would execute code
])  # fmt: skip
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_used(reference, stopped, run, spoil):
    spoil(stopped / "checkpoint.pt")
    code, out, _ = run()
    assert code == 0
    assert "checkpoint.pt is damaged" in out
    assert "after step 2 of 8" in out
    assert same_weights(stopped / "model.pt", reference / "model.pt")


def test_without_any_good_checkpoint_nothing_is_lost(stopped, run):
    for name in ("checkpoint.pt", "checkpoint-before.pt"):
        flip_a_bit(stopped / name)
    before = tree(stopped)
    code, _, error = run()
    assert (code, "no checkpoint in" in error) == (2, True)
    assert tree(stopped) == before


def test_a_full_disk_is_one_sentence_and_the_checkpoint_stays(reference, stopped, prepared, run):
    flags = [*TINY, "--data", prepared, "--out", stopped]

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    arguments = [sys.executable, ROOT / "train.py", *flags]
    done = subprocess.run(
        [*map(str, arguments)], capture_output=True, text=True, preexec_fn=limited, check=False
    )
    assert done.returncode == 2
    assert "checkpoint.pt cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert run()[0] == 0
    assert same_weights(stopped / "model.pt", reference / "model.pt")


def test_a_loss_that_is_not_finite_stops_before_a_good_checkpoint_is_lost(tmp_path, run):
    code, _, error = run("--learning-rate", 1e14, "--warmup", 1, "--save-every", 1)
    assert code == 2
    assert "the loss of EN" in error
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["step"] + 1 == int(re.search(r"step (\d+)", error)[1])
    assert not (tmp_path / "run" / "result.json").exists()


def test_too_little_memory_is_one_sentence_that_says_what_to_change(tmp_path, run, monkeypatch):
    def out_of_memory():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB\nmore")

    at_step(monkeypatch, 2, out_of_memory)
    code, _, error = run()
    assert (code, error.count("\n")) == (2, 1)
    assert "choose a smaller --micro-batch (CUDA out of memory. Tried to allocate 20 GiB)" in error


def test_the_speed_of_a_run_leaves_out_its_first_step_which_compiles(tmp_path, run, monkeypatch):
    clock, original = [0], train.Feed.read

    def read(feed, step, part):
        clock[0] += 1 if step else 100  # seconds
        return original(feed, step, part)

    monkeypatch.setattr(train.Feed, "read", read)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    run()
    assert json.loads((tmp_path / "run" / "result.json").read_text())["tokens_per_second"] == 8 * 32


def test_a_step_has_strict_determinism_as_sdpa_on_gpus_needs(run, monkeypatch):
    found = []
    at_step(monkeypatch, 1, lambda: found.append(torch.is_deterministic_algorithms_warn_only_enabled()))
    run()
    assert torch.are_deterministic_algorithms_enabled()
    assert set(found) == {False}


def test_weights_are_gathered_without_the_optimiser_s_moments(tmp_path, run, monkeypatch):
    gathered, original = [], train.get_state_dict
    monkeypatch.setattr(train, "get_state_dict", lambda *a, **b: gathered.append(1) or original(*a, **b))
    run("--save-every", 8)
    assert len(gathered) == 1  # for the one checkpoint, not for model.pt


def test_only_the_first_process_reads_a_checkpoint(tmp_path, monkeypatch):
    """The others wait for what it broadcasts: here, that there is none."""
    monkeypatch.setattr(train, "read_checkpoint", lambda out: pytest.fail("a file was read"))
    monkeypatch.setattr(train.dist, "broadcast_object_list", lambda objects, **_: None)
    assert train.restore(tmp_path, None, None, None, Process(1, 2, torch.device("cpu"))) == 0


NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


@NEEDS_GPU
@pytest.mark.parametrize("attention", ["triton", "sdpa"])
def test_on_a_gpu_a_stopped_run_has_the_same_bits(
    tmp_path, prepared, command, device, monkeypatch, attention
):
    if attention == "triton" and not triton_runs(device):
        pytest.skip("Triton kernels do not run on this GPU")
    flags = ["--data", prepared, "--size", "nano", "--tokens", 4096 * 20, "--save-every", 5]
    flags += ["--attention", attention, "--no-score", "--out"]
    assert command(train.main, *flags, tmp_path / "whole")[0] == 0
    with monkeypatch.context() as patch:
        at_step(patch, 7, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert command(train.main, *flags, tmp_path / "stopped")[0] == 128 + signal.SIGTERM
    assert command(train.main, *flags, tmp_path / "stopped")[0] == 0
    assert same_weights(tmp_path / "whole" / "model.pt", tmp_path / "stopped" / "model.pt")
    nats = []
    for where in (device, torch.device("cpu")):
        opened = evaluate.load_run(tmp_path / "whole", where)
        language = opened.languages[0]
        text = language.table[opened.dataset.stream(language.source, "test").read(0, 2000)]
        nats.append(evaluate.score(opened.model, text, Progress("", len(text), "")).mean())
    assert nats[0] == pytest.approx(nats[1], abs=5e-4)


def test_a_model_split_by_fsdp_has_the_gradients_of_the_whole_one(device):
    """In a group of one process; test_processes.py has two, on a CPU."""
    process, found = Process(0, 1, device), []
    precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(False) else "fp32"
    windows = torch.randint(500, (4, 65), generator=torch.Generator().manual_seed(0)).to(device)
    process.join(store=dist.HashStore(), rank=0, world_size=1)
    for fsdp in (False, True):
        torch.manual_seed(0)
        model = GPT(SIZES["nano"], 500, 64).to(device)
        forward = train.spread(model, fsdp, precision, process, windows)
        with machine.mixed_precision(precision, device):
            mean, _ = forward(windows[:, :-1], windows[:, 1:])
        mean.backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        whole = [grad.full_tensor() if fsdp else grad for grad in gradients]
        found.append(torch.cat([grad.flatten() for grad in whole]))
    dist.destroy_process_group()
    assert (found[0] - found[1]).norm() < 3e-2 * found[0].norm()


def test_under_ddp_a_block_stays_one_graph(monkeypatch):
    """DDP cuts what torch.compile compiles where a bucket of gradients, the first of 1 MB, is full."""
    graphs = CompileCounter()
    original = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda block, **o: original(block, backend=graphs, **o))
    torch._dynamo.reset()
    CPU.join(store=dist.HashStore(), rank=0, world_size=1)
    model = GPT(replace(SIZES["mini"], layers=1), 50, 8)
    process = Process(0, 2, CPU.device)
    train.compile_model(model, process)
    train.spread(model, False, "fp32", process, torch.zeros(1, 9, dtype=torch.long))
    dist.destroy_process_group()
    torch._dynamo.reset()
    assert graphs.frame_count == 1


def test_a_finished_run_that_was_not_scored_is(reference, tmp_path, run, prepared, command):
    shutil.copytree(reference, tmp_path / "run")
    scored = json.loads((reference / "result.json").read_text())
    bare = [{key: language[key] for key in ("name", "source", "tokens")} for language in scored["languages"]]
    (tmp_path / "run" / "result.json").write_text(json.dumps(scored | {"languages": bare}))
    assert run()[0] == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["languages"] == bare
    assert command(train.main, *TINY, "--data", prepared, "--out", tmp_path / "run")[0] == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["languages"] == scored["languages"]


def test_the_checkpoint_of_an_unfinished_run_can_be_scored(stopped, command):
    before = tree(stopped)
    code, out, _ = command(evaluate.main, stopped, "--device", "cpu")
    assert (code, "is not finished: its last checkpoint is scored" in out) == (0, True)
    assert "scoring EN2 done | PPL " in out
    assert tree(stopped) == before


def test_a_finished_run_is_left_alone(reference, tmp_path, run):
    shutil.copytree(reference, tmp_path / "run")
    before = tree(tmp_path)
    code, out, _ = run()
    assert (code, f"{tmp_path / 'run'} is finished" in out) == (0, True)
    code, _, error = run("--ratio", 0.6, "--seed", 3)
    assert code == 2
    assert "stages [[0.7, 0.3]] there and [[0.6, 0.4]] here, seed 0 there and 3 here" in error
    assert tree(tmp_path) == before


def test_after_an_edit_a_finished_run_says_so_and_a_stopped_one_is_not_mixed(stopped, run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(train, "code_hash", lambda: "edited")
        before = tree(stopped)
        code, _, error = run()
        assert (code, "was begun by other code" in error) == (2, True)
        assert tree(stopped) == before
    assert run()[0] == 0
    monkeypatch.setattr(train, "code_hash", lambda: "edited")
    code, out, _ = run()
    assert (code, "was finished by other code" in out) == (0, True)


def test_two_starts_of_one_run_do_not_share_its_folder(tmp_path, run):
    with exclusive(tmp_path / "run"):
        code, _, error = run()
    assert (code, tree(tmp_path)) == (2, {})
    assert "another process is at work in" in error


def test_the_first_command_prepares_the_default_text(tmp_path, monkeypatch, prepared):
    monkeypatch.chdir(tmp_path)

    def prepare(arguments, check):
        assert arguments[1].endswith("data.py")
        shutil.copytree(prepared, "data/pydocs")
        return types.SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", prepare)
    assert train.open_data(train.DEFAULT_DATA).fingerprint == Dataset(prepared).fingerprint
    shutil.rmtree("data")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: types.SimpleNamespace(returncode=2))
    with pytest.raises(UserError, match="preparing data/pydocs failed"):
        train.open_data(train.DEFAULT_DATA)


def test_without_a_compiler_training_goes_on_and_says_so(tmp_path, run, monkeypatch):
    def broken(*_args, **_options):
        raise RuntimeError("No C++ compiler found\nmore")

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(sys.modules[__name__], "TINY", [flag for flag in TINY if flag != "--no-compile"])
    code, out, _ = run()
    assert (code, "training is slower (RuntimeError: No C++ compiler found)" in out) == (0, True)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["compiled"] is False


def test_losses_are_means_over_steps_and_parts():
    found = LanguageLosses(["EN1", "EN2", "EN3"], CPU)
    found.add(np.array([0, 1]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    found.add(np.array([0]), torch.tensor([[6.0, 6.0]]))
    found.add(np.array([0]), torch.tensor([[0.0, 0.0]]))
    assert found.take(1) == {"EN1": 2.5, "EN2": 3.5}
    found.add(np.array([2]), torch.tensor([[1.0]]))
    assert found.take(2) == {"EN3": 1.0}
    found.add(np.array([1]), torch.tensor([[float("nan")]]))
    with pytest.raises(UserError, match="the loss of EN2 is nan at step 3"):
        found.take(3)


def test_no_float64_reaches_an_apple_gpu_which_has_none():
    with FakeTensorMode():  # knows the device by name and shapes alone
        found = LanguageLosses(["EN1"], Process(0, 1, torch.device("mps", 0)))
        found.add(np.array([0]), torch.ones(1, 4, device="mps"))
        assert (found.sums.dtype, found.sums.device.type) == (torch.float32, "mps")


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_split_weights_of_blocks_travel_as_bf16_and_sums_of_gradients_as_float32(monkeypatch, device):
    policies = []
    monkeypatch.setattr(train.dist, "init_device_mesh", lambda *_: None)
    monkeypatch.setattr(
        train, "fully_shard", lambda part, **options: policies.append(options.get("mp_policy"))
    )
    model = train.GPT(train.SIZES["pico"], 9, 8)
    for precision in ("bf16", "fp32"):
        train.spread(model, True, precision, Process(0, 2, torch.device(device)), None)
    short, whole = policies[:4], policies[5:9]
    assert (policies[4], policies[9]) == (None, None)  # embeddings and output layer
    for policy in short if device == "cuda" else ():
        assert (policy.param_dtype, policy.reduce_dtype) == (torch.bfloat16, torch.float32)
        assert not policy.cast_forward_inputs
    for policy in whole if device == "cuda" else short + whole:
        assert policy.param_dtype is None
