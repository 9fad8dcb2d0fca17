"""What happens inside: closed forms on models whose clones are copies, real languages on parallel text, results and errors."""

import json
import shutil
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tree

import activations
import align
import align_figures
import embeddings
import train
import word2vec
from activations import block_tensors, compare_gradients, compare_hidden_states, gradients, reader
from evaluate import load_run
from experiment import build_mixture
from model import GPT, Size
from shards import Dataset

CPU = torch.device("cpu")
TINY = Size(layers=2, width=32, heads=2, head_dim=16, mlp=64)


def trained(data: Path, out: Path, *flags: str) -> Path:
    """A run of two steps."""
    train.main([*map(str, ["--data", data, "--out", out, "--length", 32, "--batch", 8, "--tokens", 512, "--warmup", 1]),
                "--no-compile", "--precision", "fp32", "--device", "cpu", *flags])  # fmt: skip
    return out


@pytest.fixture(scope="module")
def runs(prepared, babel, tmp_path_factory) -> dict[str, Path]:
    """Runs of several settings. Read only."""
    folder = tmp_path_factory.mktemp("runs")
    real = ["--languages", "en", "xx", "--vocab"]
    return {
        "clones": trained(prepared, folder / "clones", "--ratio", "0.9"),
        "three": trained(prepared, folder / "three", "--clones", "3", "--anchors", "0.5"),
        "mono": trained(prepared, folder / "mono", "--ratio", "1"),
        "disjoint": trained(babel, folder / "disjoint", *real, "disjoint"),
        "anchored": trained(babel, folder / "anchored", *real, "anchored"),
    }


@pytest.fixture
def run(runs, tmp_path):
    """`run(name)`: a copy of one that a test may change."""
    return lambda name: Path(shutil.copytree(runs[name], tmp_path / name))


@pytest.fixture
def lines(tmp_path) -> list[str]:
    """Flags that name two files of aligned lines."""
    (tmp_path / "en.txt").write_text("".join(f"Line {i} is a text.\n" for i in range(60)))
    (tmp_path / "xx.txt").write_text("".join(f"And {i} is the other side of the line.\n" for i in range(60)))
    return ["--parallel", f"en={tmp_path / 'en.txt'}", f"xx={tmp_path / 'xx.txt'}"]


def alignment(out: Path) -> dict:
    return json.loads((out / "result.json").read_text())["alignment"]


def copy_rows(out: Path) -> None:
    """Make EN2's rows those of EN1 in both embedding matrices."""
    state = torch.load(out / "model.pt", weights_only=True)
    for name in ("token_embedding.weight", "output.weight"):
        state[name][512:1024] = state[name][:512]
    torch.save(state, out / "model.pt")


def test_copied_clones_are_equal_everywhere(run, command):
    out = run("clones")
    before = json.loads((out / "result.json").read_text())
    copy_rows(out)
    code, printed, _ = command(align.main, out, "--sequences", 7, "--matching")
    assert code == 0
    found = alignment(out)
    for matrix in ("input", "output"):
        pair = found["embeddings"]["pairs"]["EN1-EN2"][matrix]
        assert pair["counterparts"] == {"mean": pytest.approx(1), "standard_error": pytest.approx(0, abs=1e-6), "count": 511}
        assert abs(pair["all_pairs"]) < 0.9
    for method in ("positions", "matching"):
        layers = found["hidden"]["pairs"]["EN1-EN2"][method]
        assert [entry["layer"] for entry in layers] == [1, 2, 3, 4]
        assert [entry["mean"] for entry in layers] == pytest.approx([1] * 4, abs=1e-5)
        assert {entry["count"] for entry in layers} == {7}
    blocks = found["gradients"]["pairs"]["EN1-EN2"]["blocks"]
    assert (blocks["mean"], blocks["count"]) == (pytest.approx(1, abs=1e-4), 7)
    # The clones' tokens are other rows: their gradients have nothing in common.
    assert found["gradients"]["pairs"]["EN1-EN2"]["tensors"]["token_embedding.weight"]["mean"] == pytest.approx(0, abs=1e-6)
    after = json.loads((out / "result.json").read_text())
    assert {key: value for key, value in after.items() if key != "alignment"} == before
    assert "| clones | EN1-EN2 | matching  |         7 | 1.000 ± 0.000 |" in printed
    names = {path.name for path in out.glob("alignment-*.png")}
    assert names == {f"alignment-{part}.png" for part in ("embeddings", "frequency", "layers", "gradients", "matching")}


def test_values_of_single_texts_are_those_that_the_means_are_of(run, command):
    out = run("clones")
    assert command(align.main, out, "--sequences", 5)[0] == 0
    with np.load(out / "alignment.npz", allow_pickle=False) as file:
        hidden, cosines, names = file["hidden/EN1-EN2/positions"], file["gradients/EN1-EN2"], file["gradients/tensors"].tolist()
    assert (hidden.shape, cosines.shape) == ((5, 4), (5, len(names)))
    entry = alignment(out)["hidden"]["pairs"]["EN1-EN2"]["positions"][2]
    assert entry["mean"] == pytest.approx(hidden[:, 2].mean())
    assert entry["standard_error"] == pytest.approx(hidden[:, 2].std(ddof=1) / 5**0.5)
    inside = [place for place, name in enumerate(names) if name.startswith("blocks.")]
    assert len(inside) == 4 * 12
    assert alignment(out)["gradients"]["pairs"]["EN1-EN2"]["blocks"]["mean"] == pytest.approx(cosines[:, inside].mean())


def test_what_is_measured_is_not_measured_again_and_parts_are_merged(run, command):
    out = run("clones")
    assert command(align.main, out, "--sequences", 3, "--only", "hidden")[0] == 0
    before = (out / "alignment.npz").read_bytes()
    code, printed, _ = command(align.main, out, "--sequences", 3, "--only", "hidden")
    assert (code, "measured already" in printed, (out / "alignment.npz").read_bytes() == before) == (0, True, True)
    assert command(align.main, out, "--sequences", 3, "--only", "embeddings", "gradients")[0] == 0
    assert list(alignment(out)) == ["hidden", "embeddings", "gradients"]
    with np.load(out / "alignment.npz") as file:
        assert {"hidden/EN1-EN2/positions", "gradients/EN1-EN2"} <= set(file.files)
    assert "measured already" not in command(align.main, out, "--sequences", 4, "--only", "hidden")[1]
    assert "measured already" not in command(align.main, out, "--sequences", 4, "--only", "hidden", "--matching")[1]
    assert set(alignment(out)["hidden"]["pairs"]["EN1-EN2"]) == {"positions", "matching"}


def test_every_pair_of_several_clones_and_shared_rows_are_left_out(run, command):
    out = run("three")
    assert command(align.main, out, "--sequences", 2)[0] == 0
    found = alignment(out)
    for part in ("embeddings", "hidden", "gradients"):
        assert list(found[part]["pairs"]) == ["EN1-EN2", "EN1-EN3", "EN2-EN3"]
    pair = found["embeddings"]["pairs"]["EN2-EN3"]
    assert pair["shared"] == pytest.approx(511 / 2, abs=1)
    assert pair["input"]["counterparts"]["count"] == 511 - pair["shared"]
    assert sum(entry["count"] for entry in pair["input"]["frequency"]) <= 511 - pair["shared"]
    assert command(align.main, out, "--sequences", 2, "--languages", "EN1", "EN3")[0] == 0
    assert list(alignment(out)["hidden"]["pairs"]) == ["EN1-EN3"]


@pytest.mark.parametrize("vocab", ["disjoint", "anchored"])
def test_real_languages_are_compared_on_parallel_text(run, command, lines, vocab):
    out = run(vocab)
    code, printed, _ = command(align.main, out, *lines)
    assert code == 0
    assert "fewer" in printed or "all are used" in printed
    found = alignment(out)
    assert set(found["hidden"]["pairs"]["EN-XX"]) == {"matching"}
    assert found["hidden"]["settings"]["parallel"] == dict(flag.split("=") for flag in lines[1:])
    counted = found["embeddings"]["pairs"]["EN-XX"]
    if vocab == "anchored":
        assert (counted["input"]["counterparts"], counted["shared"] > 100) == (None, True)
    else:
        assert (counted["input"]["counterparts"]["count"] > 100, counted["shared"]) == (True, 0)
    assert (out / "alignment-matching.png").exists()
    assert "measured already" in command(align.main, out)[1]  # whatever the text was


def test_counterparts_of_real_languages_have_the_same_form(runs):
    run = load_run(runs["disjoint"], CPU)
    one, other = run.languages
    found = embeddings.find_counterparts(run.dataset, one, other)
    tokenizers = [run.dataset.tokenizer(language.source) for language in run.languages]
    forms = [[tokenizer.id_to_piece(i) for i in ids.tolist()] for tokenizer, ids in zip(tokenizers, found[:2], strict=True)]
    assert forms[0] == forms[1]
    assert "▁the" in forms[0]
    assert 0 not in found.one


def test_frequency_is_counted_from_the_stream(prepared, monkeypatch):
    dataset = Dataset(prepared)
    stream = dataset.stream("en", "train")
    expected = np.bincount(stream.read(0, len(stream)), minlength=512) / len(stream)
    monkeypatch.setattr(embeddings, "READ", 1000)
    assert embeddings.relative_frequency(dataset, "en") == pytest.approx(expected)


@pytest.fixture
def gpt():
    torch.manual_seed(0)
    return GPT(TINY, vocabulary=60, length=16).eval()


def test_hidden_states_are_those_after_each_block_and_hooks_are_gone(gpt):
    ids = np.arange(10)
    with reader(gpt) as hidden_states:
        states = hidden_states(ids)
    x = gpt.token_embedding(torch.arange(10)[None]) * 32**0.5 + gpt.position_embedding(torch.arange(10))
    for block, state in zip(gpt.blocks, states, strict=True):
        x = block(x)
        assert torch.allclose(state, x[0] / x[0].norm(dim=-1, keepdim=True), atol=1e-5)
    assert not any(block._forward_hooks for block in gpt.blocks)


def test_gradients_are_those_of_the_mean_loss(gpt):
    tokens = torch.arange(10)[None]
    logits = gpt.output(gpt.hidden(tokens[:, :-1]))
    torch.nn.functional.cross_entropy(logits[0], tokens[0, 1:]).backward()
    for found, parameter in zip(gradients(gpt, np.arange(10)), gpt.parameters(), strict=True):
        assert torch.allclose(found, parameter.grad, atol=1e-6)


@pytest.mark.parametrize("large", [0, 5e7])
def test_threads_change_nothing(gpt, monkeypatch, large):
    monkeypatch.setattr(activations, "LARGE", large)
    texts = [[ids, (ids + 30) % 60] for ids in np.random.default_rng(0).integers(0, 60, (9, 16))]
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        hidden = compare_hidden_states(gpt, texts, by_position=True, by_matching=False, label="run")
        found = compare_gradients(gpt, texts, "run")
        with reader(gpt) as hidden_states:
            for number, (one, other) in enumerate(texts):
                layers = [float((a * b).sum(-1).mean()) for a, b in zip(hidden_states(one), hidden_states(other), strict=True)]
                assert hidden["positions", (0, 1)][number] == pytest.approx(layers, abs=1e-5)
                pairs = zip(gradients(gpt, one), gradients(gpt, other), strict=True)
                expected = [float(torch.cosine_similarity(a.flatten(), b.flatten(), dim=0)) for a, b in pairs]
                assert found[0, 1][number] == pytest.approx(expected, abs=1e-4)
    finally:
        torch.set_num_threads(before)


def test_heat_map_has_tensors_as_rows_and_layers_as_columns():
    names = ["embedding", "blocks.0.a.weight", "blocks.0.b", "blocks.10.a.weight", "blocks.10.b", "norm"]
    kinds, matrix = block_tensors(names, np.arange(6.0))
    assert kinds == ["a.weight", "b"]
    assert matrix.tolist() == [[1, 3], [2, 4]]


def test_pictures_of_several_runs_stand_side_by_side(run, command, lines, tmp_path, monkeypatch):
    clones, real = run("clones"), run("disjoint")
    assert command(align.main, clones, "--sequences", 2)[0] == command(align.main, real, "--sequences", 2, *lines)[0] == 0
    panels = []
    monkeypatch.setattr(align_figures, "write_figure", lambda path, figure: panels.append((path, len(figure.axes))))
    code, printed, _ = command(align.main, clones, real, "--sequences", 2, "--out", tmp_path / "both")
    assert code == 0
    assert (tmp_path / "both" / "alignment-gradients.png", 3) in panels  # two heat maps and a scale
    assert (clones / "alignment-gradients.png", 2) in panels
    assert "| clones   | EN1-EN2 |" in printed
    assert "| disjoint | EN-XX   |" in printed


@pytest.mark.parametrize(("name", "flags", "sentence"), [
    ("mono", [], "is monolingual, there is nothing to compare"),
    ("disjoint", [], "expected aligned lines, --parallel en=FILE xx=FILE"),
    ("disjoint", ["--parallel", "en=en.txt", "yy=xx.txt"], "expects en=FILE xx=FILE"),
    ("disjoint", ["--parallel", "en=en.txt", "xx=short.txt"], "short.txt has 1 lines"),
    ("disjoint", ["--parallel", "en=short.txt", "xx=short.txt"], "give no text of 8 to 32 tokens a side"),
    ("disjoint", ["--parallel", "en=en.txt"], "expected one file for each of two or more languages"),
    ("disjoint", ["--parallel", "en.txt", "xx.txt"], "expected LANGUAGE=FILE"),
    ("disjoint", ["--parallel", "en=en.txt", "xx=xx.txt", "--line", "99"], "--line 99: "),
    ("clones", ["--parallel", "en=en.txt", "xx=xx.txt"], "has clones, which read its held-out text"),
    ("clones", ["--languages", "EN1", "EN7"], "--languages EN7"),
    ("clones", ["--languages", "EN1"], "expected two or more different ones"),
    ("clones", ["--sequences", "0"], "--sequences 0: expected 1 or more"),
    ("clones", ["--line", "999999"], "--line 999999: the test text has"),
])  # fmt: skip
def test_what_cannot_be_compared_is_one_sentence(run, command, lines, tmp_path, monkeypatch, name, flags, sentence):
    out = run(name)
    (tmp_path / "short.txt").write_text("One.\n")
    before = tree(out)
    monkeypatch.chdir(tmp_path)
    code, _, error = command(align.main, out, *flags)
    assert (code, error.count("\n"), tree(out)) == (2, 1, before)
    assert sentence in error


def test_runs_of_another_vocabulary_or_with_damaged_files_are_named(run, command, babel):
    out = run("clones")
    config = json.loads((out / "config.json").read_text())
    for change, sentence in (({"vocab": "other"}, "has the vocabulary 'other'"), ({"data": str(babel)}, "trained on other data")):
        (out / "config.json").write_text(json.dumps(config | change))
        code, _, error = command(align.main, out)
        assert (code, sentence in error) == (2, True)
    (out / "config.json").write_text(json.dumps(config))
    (out / "alignment.npz").write_bytes(b"damaged")
    code, _, error = command(align.main, out, "--sequences", 1)
    assert (code, "alignment.npz is damaged" in error) == (2, True)


def test_word2vec_without_gensim_is_one_sentence(run, command, monkeypatch):
    monkeypatch.setattr(align.importlib.util, "find_spec", lambda name: None)
    code, _, error = command(align.main, run("clones"), "--word2vec")
    assert (code, "pip install -r requirements-extra.txt" in error) == (2, True)


class Word2Vec:
    """What gensim's class has, for two words that occur in the run: the first and the last of its first sequence."""

    def __init__(self, sentences, **settings):
        Word2Vec.settings, Word2Vec.sentences = settings, list(sentences)
        words = [Word2Vec.sentences[0][0], Word2Vec.sentences[0][-1]]
        self.wv = Namespace(index_to_key=words, vectors=np.ones((2, settings["vector_size"]), np.float32))
        self.syn1neg = 2 * self.wv.vectors


def test_word2vec_reads_the_runs_sequences_with_the_papers_settings(runs, monkeypatch):
    run = load_run(runs["clones"], CPU)
    mixture = build_mixture(run.dataset, run.config)
    monkeypatch.setitem(sys.modules, "gensim", Namespace())
    monkeypatch.setitem(sys.modules, "gensim.models", Namespace(Word2Vec=Word2Vec))
    learned = word2vec.skip_gram(mixture, run.model.vocabulary, 8, seed=0, label="run")
    assert Word2Vec.settings["sg"] == 1
    assert Word2Vec.settings["negative"] == 20
    batch = mixture.batch(np.arange(mixture.total))[0][:, :-1]
    assert [list(map(int, sentence)) for sentence in Word2Vec.sentences] == batch.tolist()
    assert np.flatnonzero(learned.known).tolist() == sorted({int(batch[0, 0]), int(batch[0, -1])})
    assert learned.output[batch[0, 0]].tolist() == [2] * 8
