"""Perplexity: the sliding window against one window at a time in float64, and identities that must hold."""

import copy
import math
import os
import shutil
import textwrap
import unicodedata
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import tree, write_documents
from hypothesis import given
from hypothesis import strategies as st
from made_up_runs import change

import evaluate
import train
from common import Progress, read_json
from data import (
    END_OF_DOCUMENT,
    UNKNOWN,
    Dataset,
    build_mixture,
    token_bytes,
)
from evaluate import score, sliding_windows, standard_error
from model import GPT, Size

TINY = Size(layers=1, width=32, heads=2, head_dim=16)
QUIET = Progress("", 1e9, "")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def gpt():
    torch.manual_seed(1)
    model = GPT(TINY, vocabulary=60, length=16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # a fresh model finds every word equally likely, and would hide a shift by one
    return model.eval()


@pytest.fixture
def call(command):
    """evaluate.py on a CPU."""
    return lambda *arguments: command(evaluate.main, *arguments, "--device", "cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, prepared):
    """A balanced run of eight steps, evaluated. Tests read it and must not change it."""
    out = tmp_path_factory.mktemp("out") / "run"
    flags = "--ratio 0.5 --size nano --length 32 --batch 8 --tokens 2048 --no-compile --no-score --device cpu"
    train.main([*flags.split(), "--data", str(prepared), "--out", str(out)])
    before = read_json(out / "result.json")
    evaluate.main([str(out), "--device", "cpu"])
    after = read_json(out / "result.json")
    # What was there stays; a language that has a perplexity is what scripts know an evaluated run by.
    for was, now in zip(before["languages"], after["languages"], strict=True):
        assert "ppl" not in was
        assert now | was == now
        assert 1 < now["ppl"] < 1024
    return out


@given(st.integers(1, 3000), st.integers(1, 600), st.integers(1, 600))
def test_windows_cover_each_prediction_once(predictions, length, stride):
    stride, length = min(stride, length), min(length, predictions)
    starts, counted = sliding_windows(predictions, length, stride)
    ends = starts + length
    covered = []
    for end, many in zip(ends, counted, strict=True):
        covered += range(end - many, end)
    assert covered == list(range(max(0, ends[0] - stride), predictions))


def one_at_a_time(model: GPT, tokens: np.ndarray) -> list[float]:
    """The definition: a prediction is scored once, in the window in whose last quarter it first falls."""
    double = copy.deepcopy(model).double()
    last = len(tokens) - 1
    ends = [*range(min(16, last), last, 4), last]
    nats, scored = [], max(0, ends[0] - 4)
    for end in ends:
        window = torch.from_numpy(tokens[max(0, end - 16) : end + 1])
        logits = double.output(double.hidden(window[None, :-1]))[0]
        each = F.cross_entropy(logits, window[1:], reduction="none")
        nats += each[scored - end :].tolist()
        scored = end
    return nats


def test_products_of_16_bits_where_a_gpu_has_them_and_float32_where_they_overflow(gpt, monkeypatch):
    text = np.random.default_rng(0).integers(0, 60, 100)
    exact = score(gpt, text, QUIET)
    monkeypatch.setitem(evaluate.ARITHMETIC, "cpu", evaluate.ARITHMETIC["cuda"])
    found = score(gpt, text, QUIET)
    assert found == pytest.approx(exact, rel=5e-3)
    assert not np.array_equal(found, exact)
    large = copy.deepcopy(gpt)
    with torch.no_grad():
        large.blocks[0].mlp_output.weight.mul_(1e6)
    overflowing = score(large, text, QUIET)
    monkeypatch.setitem(evaluate.ARITHMETIC, "cpu", ["fp32"])
    assert np.isfinite(overflowing).all()
    assert np.array_equal(overflowing, score(large, text, QUIET))


@pytest.mark.parametrize("length", [2, 3, 5, 16, 17, 18, 21, 101])
def test_scores_match_one_window_at_a_time(gpt, length):
    tokens = np.random.default_rng(length).integers(0, 60, length)
    with torch.no_grad():
        expected = one_at_a_time(gpt, tokens)
    assert score(gpt, tokens, QUIET) == pytest.approx(expected, rel=2e-5, abs=1e-5)


def test_scores_depend_neither_on_batches_nor_on_threads(gpt, monkeypatch):
    tokens, found = np.random.default_rng(0).integers(0, 60, 333), []
    whole = score(gpt, tokens, QUIET)
    monkeypatch.setitem(evaluate.BATCH_TOKENS, "cpu", 48)
    for threads in (3, 1, torch.get_num_threads()):
        torch.set_num_threads(threads)
        found.append(score(gpt, tokens, QUIET))
        assert torch.get_num_threads() == threads
    assert np.array_equal(found[0], found[1])
    assert found[0] == pytest.approx(whole, rel=1e-5, abs=1e-5)


def test_standard_error_over_documents():
    nats = np.random.default_rng(0).exponential(3.0, 40)
    # Documents of one token each: the textbook's error of a mean, times the slope of exp.
    expected = math.exp(nats.mean()) * nats.std(ddof=1) / math.sqrt(40)
    assert standard_error(nats, np.arange(40)) == pytest.approx(expected)
    # A document read twice adds nothing: ten copies of each token are no more certain than one.
    copies, documents = np.repeat(nats, 10), np.repeat(np.arange(40), 10)
    assert standard_error(copies, documents) == pytest.approx(expected)
    # Documents of unlike length that agree in their mean leave no doubt.
    agreeing = np.array([1.0, 3.0, 2.0, 2.0])
    documents = np.array([5, 5, 6, 7])
    assert standard_error(agreeing, documents) == pytest.approx(0, abs=1e-12)
    assert standard_error(nats, np.zeros(40, int)) is None


def test_bits_per_byte_and_perplexity_say_the_same(trained, prepared):
    dataset = Dataset(prepared)
    test, stream = dataset.languages["en"]["test"], dataset.stream("en", "test")
    ids = stream.read(0, len(stream))
    unscored = 32 - 8 + 1  # tokens that are read before the first one that counts
    scored_bytes = test["bytes"] - token_bytes(dataset.tokenizer("en"), ids, 0)[:unscored].sum()
    for language in read_json(trained / "result.json")["languages"]:
        assert language["scored_tokens"] == test["tokens"] - unscored
        assert language["scored_documents"] == test["documents"]
        expected = math.log2(language["ppl"]) * language["scored_tokens"] / scored_bytes
        assert language["bits_per_byte"] == pytest.approx(expected)
        assert 0 < language["ppl_standard_error"] < language["ppl"]


def test_a_clone_with_copied_rows_has_the_same_scores_twice(trained):
    run = evaluate.load_run(trained, CPU)
    with torch.no_grad():
        matrix = run.model.token_embedding.weight
        matrix[512:] = matrix[:512]
    ids = run.dataset.stream("en", "test").read(0, 3000)
    first, second = [evaluate.perplexity(run, language, ids, 9000) for language in run.languages]
    assert first == pytest.approx(second, rel=1e-6)
    # A right answer's twin takes half of its probability: one bit more than in a model without the twin.
    single = GPT(run.model.size, 512, run.model.length)
    weights = run.model.state_dict()
    single.load_state_dict(weights | {"token_embedding.weight": matrix[:512]})
    alone = math.exp(score(single, ids, QUIET).mean())
    assert first["ppl"] == pytest.approx(2 * alone, rel=1e-5)


def test_a_text_of_ones_own_is_scored_like_the_held_out_one(trained, call, prepared, tmp_path):
    dataset = Dataset(prepared)
    stream, tokenizer = dataset.stream("en", "test"), dataset.tokenizer("en")
    ids = stream.read(0, len(stream))
    ends = np.flatnonzero(ids == END_OF_DOCUMENT) + 1
    texts = [("blank", " ")]
    for part in np.split(ids, ends):
        texts.append(("", tokenizer.decode(part.tolist())))
    mine = write_documents(tmp_path / "mine.jsonl", texts)
    files = tree(trained)
    code, out, _ = call(trained, "--text", mine, "--as", "EN2")
    assert (code, tree(trained)) == (0, files)
    known = read_json(trained / "result.json")["languages"][1]
    assert f"PPL {known['ppl']:.2f} ± {known['ppl_standard_error']:.2g}, " in out
    assert f"{known['bits_per_byte']:.3f} bits per byte, {known['scored_tokens']} tokens of " in out
    assert "EN1" not in out
    assert "warning" not in out


def test_unknown_tokens_are_told_and_count_the_bytes_of_the_text(trained, capsys):
    run = evaluate.load_run(trained, CPU)
    ids = run.dataset.stream("en", "test").read(0, 3000)
    ids[::3] = UNKNOWN
    few = evaluate.perplexity(run, run.languages[0], ids, 20_000)
    many = evaluate.perplexity(run, run.languages[0], ids, 40_000)
    assert few["unknown"] == pytest.approx(1 / 3, abs=0.01)
    assert few["ppl"] == many["ppl"]
    assert many["bits_per_byte"] < 0.7 * few["bits_per_byte"]
    assert "warning: EN1 has no piece for 33% of these tokens: its PPL says little" in capsys.readouterr().out


def test_what_other_code_has_scored_is_not_overwritten(trained, call, monkeypatch):
    before = tree(trained)
    monkeypatch.setattr(evaluate, "code_hash", lambda: "fedcba987654")
    code, _, error = call(trained)
    assert (code, "was scored already, and made by other code" in error) == (2, True)
    assert tree(trained) == before


def counted_by_hand(windows: list[list[int]], token: int, context: list, vocabulary: int) -> float:
    """Witten-Bell probability of a token after a context, from its definition."""
    shorter = 1 / vocabulary
    if context:
        shorter = counted_by_hand(windows, token, context[1:], vocabulary)
    followers = Counter()
    for row in windows:
        for i in range(len(context), len(row)):
            if row[i - len(context) : i] == context:
                followers[row[i]] += 1
    kinds, total = len(followers), followers.total()
    return (followers[token] + kinds * shorter) / (total + kinds) if followers else shorter


@given(st.integers(1, 6), st.integers(2, 9), st.integers(1, 4), st.integers(0, 99))
def test_ngrams_are_counted_as_by_hand(many, length, longest, seed):
    random = np.random.default_rng(seed)
    windows, test = random.integers(0, 3, (many, length)), random.integers(0, 4, 12)
    found = evaluate.ngram_perplexities(windows, test, 4, longest)
    rows, text = windows.tolist(), test.tolist()
    for n, perplexity in enumerate(found, 1):
        nats = []
        for i in range(longest - 1, 12):
            context = text[i - n + 1 : i]
            nats.append(-math.log(counted_by_hand(rows, text[i], context, 4)))
        assert perplexity == pytest.approx(math.exp(np.mean(nats)))
    every = [counted_by_hand(rows, token, text[: longest - 1], 4) for token in range(4)]
    assert sum(every) == pytest.approx(1)


def test_counting_reads_what_the_run_read(prepared, tiny, command, call, tmp_path):
    out = tmp_path / "alone"
    assert command(train.main, "--ratio", 1, *tiny, "--out", out)[0] == 0
    assert call(out)[0] == 0
    found = read_json(out / "result.json")["ngrams"]
    run = evaluate.load_run(out, CPU)
    windows, _ = build_mixture(run.dataset, run.config).batch(np.arange(64))
    stream = run.dataset.stream("en", "test")
    counts = np.bincount(windows.ravel(), minlength=512)
    smoothed = counts + (counts > 0).sum() / 512
    shares = smoothed / smoothed.sum()
    nats = -np.log(shares[stream.read(4, len(stream) - 4)])
    assert list(found) == ["1", "2", "3", "5"]
    assert found["1"] == pytest.approx(math.exp(nats.mean()))


def test_ten_alphabets_differ_and_are_the_same_letters():
    written = [evaluate.LETTERS.translate(alphabet) for alphabet in evaluate.ALPHABETS]
    assert len(set("".join(written))) == 10 * 52
    assert {unicodedata.normalize("NFKC", letters) for letters in written} == {evaluate.LETTERS}


def test_a_cold_model_writes_its_likeliest_token_and_sees_one_window(gpt):
    ids = list(range(5, 16))  # what follows passes the sequence length of 16
    written, probabilities = evaluate.write_text(gpt, ids, 12, 0.01, seed=0)
    for i, token in enumerate(written):
        seen = torch.tensor([(ids + written[:i])[-16:]])
        expected = (gpt.hidden(seen)[0, -1] @ gpt.output.weight.T).softmax(0)
        torch.testing.assert_close(probabilities[i], expected)
        assert token == int(expected.argmax())


def test_draws_follow_the_seed_and_the_temperature(gpt):
    written = {}
    for seed in (3, 4):
        written[seed], _ = evaluate.write_text(gpt, [1], 30, 1.0, seed)
    again, _ = evaluate.write_text(gpt, [1], 30, 1.0, 3)
    assert again == written[3] != written[4]
    flat = evaluate.write_text(gpt, [1], 200, 99.0, 0)[0]
    assert len(set(flat)) > 45  # of 60 ids, were all equally likely: 58


def test_a_sample_says_who_gets_the_probability(trained, call, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    weights = torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    weights["token_embedding.weight"].zero_()
    torch.save(weights, tmp_path / "run" / "model.pt")
    flags = ["--sample", "import", "return", "--as", "EN1", "EN2", "--tokens", 7]
    code, out, _ = call(tmp_path / "run", *flags)
    bold = evaluate.ALPHABETS[1]
    assert code == 0
    assert f"import {'return'.translate(bold)}|" in out
    shares = {"EN1": 49.8, "EN2".translate(bold): 49.8, "pieces that languages share": 0.2}  # padding, space
    for name, share in shares.items():
        assert f"{name}: {share}% of the probability, mean of 7 steps" in out


@pytest.mark.parametrize(("flags", "sentence"), [
    ("--text missing.txt --as EN1", "missing.txt"),
    ("--text README.md --as EN1", "README.md: expected text"),
    ("--text x.txt --as FR", "--as FR: "),
    ("--text x.txt", "--as: found 0 languages for 1 texts to read"),
    ("--sample a b --as EN1", "--as: found 1 languages for 2 texts to read"),
    ("--text x.txt --sample a --as EN1", "--sample: not allowed with argument --text"),
])  # fmt: skip
def test_unusable_flags_are_named(trained, refused, flags, sentence):
    assert sentence in refused(evaluate.main, trained, *flags.split(), folder=trained)


def weights(run, change) -> None:
    """Replace a run's weights by what `change` makes of them."""
    state = torch.load(run / "model.pt", weights_only=True)
    torch.save(change(state), run / "model.pt")


def other_model(run) -> None:
    """Replace a run's weights by those of another model."""
    weights(run, lambda state: {"output.weight": torch.zeros(1)})


def diverge(run) -> None:
    """Make all weights of a run nan."""
    weights(run, lambda state: {name: tensor * math.nan for name, tensor in state.items()})


@pytest.mark.parametrize(("spoil", "sentence"), [
    (shutil.rmtree, "is no run of train.py"),
    (lambda run: (run / "result.json").unlink(), "is not finished and has no checkpoint"),
    (lambda run: change(run, "result.json", languages=[1, 2]), "result.json is not of train.py: it lacks"),
    (lambda run: change(run, "result.json", languages=[{"name": "EN"}]), "result.json is another run's"),
    (lambda run: (run / "config.json").write_text("{"), "config.json is damaged"),
    (lambda run: (run / "model.pt").unlink(), "model.pt is damaged or missing"),
    (lambda run: os.truncate(run / "model.pt", 9999), "model.pt is damaged"),
    (lambda run: change(run, fingerprint="0"), "was trained on other data"),
    (lambda run: change(run, sources=["fr"]), "does not fit this model.py"),
    (other_model, "does not fit this model.py: it is another run's"),
    (lambda run: [change(run, code="0"), other_model(run)], "the run was made by other code"),
    (diverge, "not finite"),
])  # fmt: skip
def test_unusable_runs_are_named(trained, tmp_path, refused, spoil, sentence):
    run = shutil.copytree(trained, tmp_path / "run")
    spoil(run)
    assert sentence in refused(evaluate.main, run, "--device", "cpu")


def test_a_run_of_other_code_whose_weights_fit_can_be_evaluated(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    change(run, code="0")
    weights = evaluate.load_run(trained, CPU).model.state_dict()
    same = evaluate.load_run(run, CPU).model.state_dict()
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_an_export_is_loaded_as_the_help_says(trained, tmp_path, call):
    pytest.importorskip("safetensors")
    run = shutil.copytree(trained, tmp_path / "run")
    before = tree(run)
    code, _, error = call(run, "--export")
    assert code == 0, error
    assert tree(run).items() - before.items() == {
        ("model.safetensors", (run / "model.safetensors").read_bytes())
    }
    recipe = textwrap.dedent(evaluate.__doc__.partition("into a model:")[2])
    assert recipe.strip().count("\n") < 10
    found = {}
    exec(recipe.replace("out/NAME", str(run)), found)
    expected = evaluate.load_run(trained, CPU).model.state_dict()
    weights = found["model"].state_dict()
    assert found["config"] == read_json(run / "config.json")
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
