"""Perplexity: the sliding window against one window at a time in float64, and the identities that must hold."""

import json
import math

import numpy as np
import pytest
import torch
from conftest import tree
from hypothesis import given
from hypothesis import strategies as st

import evaluate
import train
from evaluate import score, sliding_windows
from model import GPT, Size

TINY = Size(layers=1, width=32, heads=2, head_dim=16, mlp=64)


@pytest.fixture(scope="module")
def gpt():
    torch.manual_seed(1)
    model = GPT(TINY, vocabulary=60, length=16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)  # a fresh model finds every word equally likely, and would hide a shift by one
    return model.eval()


def one_at_a_time(model: GPT, tokens: np.ndarray, stride: int) -> list[float]:
    """The definition: each prediction is scored once, from the window in whose last `stride` positions it first falls."""
    double, losses, scored = GPT(TINY, 60, 16).double(), [], None
    double.load_state_dict(model.state_dict())
    ends = [*range(min(16, len(tokens) - 1), len(tokens) - 1, stride), len(tokens) - 1]
    for end in ends:
        window = torch.from_numpy(tokens[max(0, end - 16) : end + 1].astype(np.int64))
        logits = double.output(double.hidden(window[None, :-1]))[0]
        nats = (logits.logsumexp(-1) - logits.gather(-1, window[1:, None])[:, 0]).tolist()
        fresh = stride if scored is None else end - scored
        losses, scored = losses + nats[-fresh:], end
    return losses


@pytest.mark.parametrize("length", [2, 3, 15, 16, 17, 18, 20, 21, 37, 64, 101])
@pytest.mark.parametrize("stride", [1, 4, 5, 16])
def test_scores_match_one_window_at_a_time(gpt, length, stride):
    tokens = np.random.default_rng(length).integers(0, 60, length)
    with torch.no_grad():
        expected = one_at_a_time(gpt, tokens, stride)
    found = score(gpt, tokens, stride)
    assert found == pytest.approx(expected, rel=2e-5, abs=1e-5)
    assert found.mean() == pytest.approx(np.mean(expected), rel=1e-6)


def test_scores_do_not_depend_on_the_batch_size(gpt, monkeypatch):
    tokens = np.random.default_rng(0).integers(0, 60, 333)
    whole = score(gpt, tokens, 4)
    monkeypatch.setitem(evaluate.BATCH_TOKENS, "cpu", 48)
    assert score(gpt, tokens, 4) == pytest.approx(whole, rel=2e-5, abs=1e-5)


@given(st.integers(1, 3000), st.integers(1, 600), st.integers(1, 600))
def test_windows_cover_each_prediction_once(predictions, length, stride):
    stride = min(stride, length)
    starts, counted = sliding_windows(predictions, length, stride)
    width = min(length, predictions)
    covered = np.concatenate([np.arange(s + width - n, s + width) for s, n in zip(starts, counted, strict=True)])
    assert np.array_equal(covered, np.arange(max(0, width - stride), predictions))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, prepared):
    """A balanced run of sixteen steps."""
    out = tmp_path_factory.mktemp("out") / "run"
    flags = ["--size", "nano", "--length", "32", "--batch", "8", "--tokens", "4096", "--no-compile", "--device", "cpu"]
    train.main(["--ratio", "0.5", "--data", str(prepared), "--out", str(out), *flags])
    return out


def test_results_are_merged_and_kept(trained, command):
    before = json.loads((trained / "result.json").read_text())
    code, out, _ = command(evaluate.main, trained)
    assert code == 0
    after = json.loads((trained / "result.json").read_text())
    for was, now in zip(before["languages"], after["languages"], strict=True):
        assert now | was == now
        assert f"PPL {now['ppl']:.2f}" in out
        assert 1 < now["ppl"] < 1024
    files = tree(trained)
    code, out, _ = command(evaluate.main, trained)
    assert (code, tree(trained)) == (0, files)
    assert "evaluated already" in out


def test_bits_per_byte_and_perplexity_say_the_same(trained, command, prepared):
    command(evaluate.main, trained)
    test = json.loads((prepared / "meta.json").read_text())["languages"]["en"]["test"]
    for language in json.loads((trained / "result.json").read_text())["languages"]:
        expected = math.log2(language["ppl"]) * test["tokens"] / test["bytes"]
        assert language["bits_per_byte"] == pytest.approx(expected)
        assert language["scored_tokens"] == test["tokens"] - 1 - 24


def test_a_clone_with_copied_rows_has_the_same_perplexity_twice(trained):
    run = evaluate.load_run(trained, torch.device("cpu"))
    with torch.no_grad():
        for matrix in (run.model.token_embedding.weight, run.model.output.weight):
            matrix[512:] = matrix[:512]
    first, second = (evaluate.perplexity(run, language) for language in run.languages)
    assert first["ppl"] == pytest.approx(second["ppl"], rel=1e-6)
    # Each right answer now has a twin that takes half of its probability: one bit more than a model without the twin.
    single = GPT(run.model.size, 512, run.model.length)
    vocabularies, weights = ("token_embedding.weight", "output.weight"), run.model.state_dict()
    single.load_state_dict({name: w[:512] if name in vocabularies else w for name, w in weights.items()})
    test = run.dataset.stream("en", "test")
    nats = score(single, test.read(0, len(test)), 8).mean()
    assert first["ppl"] == pytest.approx(2 * math.exp(nats), rel=1e-5)


@pytest.mark.parametrize(("spoil", "sentence"), [
    (lambda run: (run / "config.json").unlink(), "config.json does not exist, expected a run of train.py"),
    (lambda run: (run / "result.json").unlink(), "is not finished"),
    (lambda run: (run / "model.pt").write_bytes((run / "model.pt").read_bytes()[:-999]), "model.pt is damaged"),
    (lambda run: (run / "config.json").write_text("[]"), "config.json cannot be read"),
    (lambda run: (run / "config.json").write_text('{"data": "x"}'), "config.json lacks fingerprint, sources"),
    (lambda run: (run / "result.json").write_text("{}"), "result.json lacks languages"),
    (lambda run: torch.save({"output.weight": torch.zeros(1)}, run / "model.pt"), "model.pt belongs to another run"),
    (lambda run: (run / "config.json").write_text((run / "config.json").read_text().replace('print": "', 'print": "0')),
     "was trained on other data"),
])  # fmt: skip
def test_unusable_runs_are_named(trained, tmp_path, command, spoil, sentence):
    run = tmp_path / "run"
    run.mkdir()
    for name, content in tree(trained).items():
        (run / name).write_bytes(content)
    spoil(run)
    before = tree(run)
    code, _, error = command(evaluate.main, run, "--again")
    assert code == 2
    assert sentence in error
    assert "Traceback" not in error
    assert tree(run) == before
