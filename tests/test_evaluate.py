"""Perplexity: the sliding window against one window at a time in float64, and the identities that must hold."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import evaluate
import perplexity
import train
from model import GPT, Size
from perplexity import describe, score, sliding_windows, standard_error
from process import Process
from shards import Dataset
from tokenizer import document_of, encode_document, token_bytes

ROOT = Path(__file__).resolve().parent.parent
TINY = Size(layers=1, width=32, heads=2, head_dim=16, mlp=64)


@pytest.fixture(scope="module")
def gpt():
    torch.manual_seed(1)
    model = GPT(TINY, vocabulary=60, length=16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # a fresh model finds every word equally likely, and would hide a shift by one
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
def test_scores_match_one_window_at_a_time(gpt, monkeypatch, length, stride):
    monkeypatch.setitem(perplexity.VOCABULARY_SLICE, "cpu", 60 if stride == 4 else 7)  # one slice, and eight and a rest
    tokens = np.random.default_rng(length).integers(0, 60, length)
    with torch.no_grad():
        expected = one_at_a_time(gpt, tokens, stride)
    found = score(gpt, tokens, stride).nats
    assert found == pytest.approx(expected, rel=2e-5, abs=1e-5)
    assert math.exp(found.mean()) == pytest.approx(math.exp(np.mean(expected)), rel=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 48, 160, 10**6])
def test_scores_do_not_depend_on_the_batch_size(gpt, monkeypatch, batch_tokens):
    tokens = np.random.default_rng(0).integers(0, 60, 333)
    whole = score(gpt, tokens, 4)
    monkeypatch.setitem(perplexity.BATCH_TOKENS, "cpu", batch_tokens)
    other = score(gpt, tokens, 4)
    assert other.nats == pytest.approx(whole.nats, rel=1e-5, abs=1e-5)
    assert np.exp(other.nats.mean()) == pytest.approx(np.exp(whole.nats.mean()), rel=1e-6)


class Share(Process):
    """One of several processes whose exchange is left to the test: each gives its own part of the sum."""

    def total(self, tensor):
        return tensor


@pytest.mark.parametrize("world", [2, 3, 7])
def test_scores_do_not_depend_on_the_number_of_processes(gpt, monkeypatch, world):
    monkeypatch.setitem(perplexity.BATCH_TOKENS, "cpu", 48)  # many batches, of which some processes have one more
    tokens = np.random.default_rng(0).integers(0, 60, 203)
    whole = score(gpt, tokens, 4)
    parts = [score(gpt, tokens, 4, Share(rank, world, torch.device("cpu"))) for rank in range(world)]
    assert sum(part.nats for part in parts) == pytest.approx(whole.nats, rel=1e-9)
    assert np.array_equal(np.any([part.right for part in parts], axis=0), whole.right)
    assert all(0 < np.count_nonzero(part.nats) < len(whole.nats) for part in parts)


@pytest.fixture
def three_threads():
    """PyTorch may use three threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_threads_share_the_windows_and_change_nothing(gpt, monkeypatch, three_threads):
    monkeypatch.setitem(perplexity.BATCH_TOKENS, "cpu", 48)
    tokens = np.random.default_rng(0).integers(0, 60, 333)
    several = score(gpt, tokens, 4)
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)
    alone = score(gpt, tokens, 4)
    assert np.array_equal(several.nats, alone.nats)
    assert np.array_equal(several.right, alone.right)


def test_what_goes_wrong_in_a_thread_is_heard_of(gpt, three_threads):
    with pytest.raises(IndexError):
        score(gpt, np.full(333, 60), 4)  # an id beyond the vocabulary
    assert torch.get_num_threads() == 3


def test_right_is_what_the_greedy_choice_gets_right(gpt):
    tokens = np.random.default_rng(0).integers(0, 60, 17)
    for _ in range(20):  # the model's own continuation of its first word: every prediction is right
        with torch.no_grad():
            answers = gpt.output(gpt.hidden(torch.from_numpy(tokens[None, :-1])))[0].argmax(-1).numpy()
        tokens[1:] = answers
    assert score(gpt, tokens, 16).right.all()
    tokens[-1] = (tokens[-1] + 1) % 60
    assert score(gpt, tokens, 16).right.tolist() == [True] * 15 + [False]


def test_standard_error_over_documents():
    nats = np.random.default_rng(0).exponential(3.0, 40)
    # Documents of one token each: the textbook's error of a mean, times the slope of exp.
    expected = math.exp(nats.mean()) * nats.std(ddof=1) / math.sqrt(40)
    assert standard_error(nats, np.arange(40)) == pytest.approx(expected)
    # A document read twice adds nothing: ten copies of each token are no more certain than one.
    repeated = standard_error(np.repeat(nats, 10), np.repeat(np.arange(40), 10))
    assert repeated == pytest.approx(expected)
    # Documents of unlike length that agree in their mean leave no doubt.
    assert standard_error(np.array([1.0, 3.0, 2.0, 2.0, 2.0]), np.array([5, 5, 6, 7, 7])) == pytest.approx(0, abs=1e-12)
    assert standard_error(nats, np.zeros(40, int)) is None


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2581")), min_size=1, max_size=4))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_bytes_of_tokens_add_up_to_those_of_the_text(prepared, texts):
    tokenizer = Dataset(prepared).tokenizer("en")
    ids = np.array([i for text in texts for i in (*encode_document(tokenizer, text), tokenizer.eos_id())])
    sizes, documents = token_bytes(tokenizer, ids), document_of(ids, tokenizer.eos_id())
    assert sizes.min() >= 0
    assert np.bincount(documents, sizes).tolist() == [len(text.encode()) for text in texts]
    assert not sizes[ids == tokenizer.eos_id()].any()


def test_bytes_of_the_whole_test_split(prepared):
    dataset = Dataset(prepared)
    stream = dataset.stream("en", "test")
    ids, test = stream.read(0, len(stream)), dataset.languages["en"]["test"]
    assert token_bytes(dataset.tokenizer("en"), ids).sum() == test["bytes"]
    assert document_of(ids, 2)[-1] == test["documents"] - 1


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
    dataset = Dataset(prepared)
    test, stream = dataset.languages["en"]["test"], dataset.stream("en", "test")
    first = dataset.tokenizer("en").decode(stream.read(0, 25).tolist())  # what is read before anything counts
    for language in json.loads((trained / "result.json").read_text())["languages"]:
        assert language["scored_tokens"] == test["tokens"] - 25
        assert language["scored_documents"] == test["documents"]
        scored_bytes = test["bytes"] - len(first.encode())
        expected = math.log2(language["ppl"]) * language["scored_tokens"] / scored_bytes
        assert language["bits_per_byte"] == pytest.approx(expected)
        assert 0 < language["ppl_standard_error"] < language["ppl"]
        assert 0 <= language["accuracy"] < 1


def test_two_processes_find_what_one_finds(trained, tmp_path, command):
    command(evaluate.main, trained)
    shutil.copytree(trained, tmp_path / "run")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [str(ROOT / "evaluate.py"), str(tmp_path / "run"), "--again", "--device", "cpu"]
    done = subprocess.run([*torchrun, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("scoring EN1 done") == 1
    one, two = (json.loads((run / "result.json").read_text())["languages"] for run in (trained, tmp_path / "run"))
    for language, other in zip(one, two, strict=True):
        assert language == pytest.approx(other, rel=1e-9)


def test_a_clone_with_copied_rows_has_the_same_scores_twice(trained):
    run, alone = evaluate.load_run(trained, torch.device("cpu")), Process(0, 1, torch.device("cpu"))
    with torch.no_grad():
        for matrix in (run.model.token_embedding.weight, run.model.output.weight):
            matrix[512:] = matrix[:512]
    first, second = (
        evaluate.perplexity(run, language, evaluate.held_out_text(run, language, 3000), None, alone) for language in run.languages
    )
    assert first == pytest.approx(second, rel=1e-6)
    # Each right answer now has a twin that takes half of its probability: one bit more than a model without the twin.
    single = GPT(run.model.size, 512, run.model.length)
    vocabularies, weights = ("token_embedding.weight", "output.weight"), run.model.state_dict()
    single.load_state_dict({name: w[:512] if name in vocabularies else w for name, w in weights.items()})
    test = run.dataset.stream("en", "test")
    scores = score(single, test.read(0, 3000), 8)
    assert first["ppl"] == pytest.approx(2 * math.exp(scores.nats.mean()), rel=1e-5)
    assert first["accuracy"] == pytest.approx(scores.right.mean(), abs=2e-4)


def test_a_monolingual_run_is_a_language_model_of_the_plain_ids(tmp_path, prepared, command):
    flags = ["--size", "nano", "--length", 32, "--batch", 8, "--tokens", 2048, "--no-compile", "--device", "cpu"]
    assert command(train.main, "--ratio", 1, "--data", prepared, "--out", tmp_path / "run", *flags)[0] == 0
    run = evaluate.load_run(tmp_path / "run", torch.device("cpu"))
    (language,) = run.languages
    ids = evaluate.held_out_text(run, language, 3000)
    found = evaluate.perplexity(run, language, ids, None, Process(0, 1, torch.device("cpu")))
    assert language.name == "EN1"
    assert found["ppl"] == pytest.approx(math.exp(score(run.model, ids, 8).nats.mean()), rel=1e-9)


def test_a_text_of_ones_own_is_scored_like_the_held_out_one(trained, command, prepared, tmp_path):
    command(evaluate.main, trained)
    dataset = Dataset(prepared)
    stream, tokenizer = dataset.stream("en", "test"), dataset.tokenizer("en")
    documents = np.split(ids := stream.read(0, len(stream)), np.flatnonzero(ids == tokenizer.eos_id()) + 1)[:-1]
    lines = [json.dumps({"text": tokenizer.decode(document.tolist())}) for document in documents]
    (tmp_path / "mine.jsonl").write_text("\n".join(['{"text": " "}', *lines]))
    files = tree(trained)
    code, out, _ = command(evaluate.main, trained, "--text", tmp_path / "mine.jsonl", "--as", "EN2")
    known = json.loads((trained / "result.json").read_text())["languages"][1]
    assert (code, tree(trained)) == (0, files)
    assert describe(known) in out
    assert "EN1" not in out


def test_other_settings_are_printed_only(trained, command):
    command(evaluate.main, trained)
    files = tree(trained)
    code, out, _ = command(evaluate.main, trained, "--stride", 16, "--max-tokens", 1e3)
    assert (code, tree(trained)) == (0, files)
    assert out.count(f"{1000 - 1 - 16} tokens") == 2
    assert "result.json stays as it is" in out


@pytest.mark.parametrize(("flags", "sentence"), [
    (["--stride", 0], "--stride 0: expected 1 or more"),
    (["--stride", 33], "--stride 33: the window of"),
    (["--max-tokens", 1], "1 token(s), expected two or more"),
    (["--text", "missing.txt", "--as", "EN1"], "missing.txt does not exist"),
    (["--text", "README.md", "--as", "EN1"], "README.md is of no known kind"),
    (["--text", "x.txt", "--as", "FR"], "--as FR: "),
    (["--text", "x.txt"], "--text FILE and --as LANGUAGE go together"),
    (["--as", "EN1"], "--text FILE and --as LANGUAGE go together"),
    (["--glue", "x", "--stride", 1], "--glue does not go with"),
    (["--tasks", "RTE"], "--tasks names tasks of --glue"),
    (["--seeds", 0], "--seeds 0: expected 1 or more"),
    (["--seed", -1], "--seed -1: expected"),
])  # fmt: skip
def test_unusable_flags_are_named(trained, command, flags, sentence):
    before = tree(trained)
    code, _, error = command(evaluate.main, trained, *flags)
    assert code == 2
    assert sentence in error
    assert tree(trained) == before


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
