"""Alignment: closed forms and brute force for similarities, joined lines against their definition, runs."""

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

import align
import train
from common import UserError, read_json, write
from data import surface_forms
from evaluate import load_run
from model import GPT, SIZES, Size

MICRO = Size(layers=2, width=32, heads=2, head_dim=16)
SHORT = ["--length", 32, "--batch", 8, "--tokens", 512, "--warmup", 1]
SHORT += ["--no-compile", "--no-score", "--precision", "fp32", "--device", "cpu"]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_cosine_does_not_depend_on_lengths_however_small_or_large():
    one, other = random(3, 5), random(3, 5, seed=1)
    expected = float((one * other).sum() / (one.norm() * other.norm()))
    for left, right in ((1, 1), (1e-30, 1), (1e-25, 1e25)):
        found = align.cosine(one * left, other * right)
        assert found == pytest.approx(expected, abs=1e-6)
    assert align.cosine(one, -2 * one) == pytest.approx(-1)
    assert align.cosine(one, 0 * one) == 0
    assert align.normalise(torch.tensor([3.0, 4.0])).tolist() == pytest.approx([0.6, 0.8])
    assert align.normalise(torch.zeros(2)).tolist() == [0, 0]


def brute_cosines(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Cosines of all rows of (n, width) with those of (m, width) by PyTorch's own function: (n, m)."""
    return torch.cosine_similarity(one[:, None].double(), other[None].double(), dim=-1)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), st.integers(0, 99))
@settings(deadline=None)
def test_mean_of_all_pairs_equals_brute_force(n, m, width, seed):
    one, other = random(n, width, seed=seed), random(m, width, seed=seed + 1)
    expected = float(brute_cosines(one, other).mean())
    assert align.mean_of_all_pairs(one, other) == pytest.approx(expected, abs=1e-6)


def test_an_estimate_is_a_mean_with_the_textbook_s_error():
    values = np.random.default_rng(0).standard_normal(40)
    mean, error = pytest.approx(values.mean()), pytest.approx(np.std(values, ddof=1) / math.sqrt(40))
    assert align.estimate(values) == {"mean": mean, "standard_error": error, "count": 40}
    assert align.estimate(np.array([0.5])) == {"mean": 0.5, "standard_error": None, "count": 1}
    assert align.estimate(np.array([])) is None


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_matching_is_full_and_weighs_as_much_as_that_of_networkx(rows, columns, seed):
    """The paper's code makes a graph of a node a token and an edge a pair."""
    one, other = random(2, rows, 3, seed=seed), random(2, columns, 3, seed=seed + 1)
    similarity = align.mean_similarity(one, other)
    graph = networkx.Graph()
    for (i, j), weight in np.ndenumerate(similarity):
        graph.add_edge(i, 100 + j, weight=float(weight))
    edges = networkx.max_weight_matching(graph, maxcardinality=True)
    expected = sum(graph.edges[edge]["weight"] for edge in edges)
    left, right = align.match(one, other)
    assert len(set(left)) == len(set(right)) == min(rows, columns)
    assert similarity[left, right].sum() == pytest.approx(expected, abs=1e-5)


@given(st.integers(2, 9), st.integers(2, 5), st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_retrieval_counts_rows_whose_nearest_is_their_own(n, width, seed):
    one, other = random(2, n, width, seed=seed), random(2, n, width, seed=seed + 1)
    shares = align.retrieval(one, other).tolist()
    for left, right, share in zip(one, other, shares, strict=True):
        best = brute_cosines(right, left).argmax(1)
        assert share == pytest.approx(np.mean(best.numpy() == np.arange(n)))
    apart = torch.eye(n)[None]  # random rows may be so alike that float32 cannot tell them apart
    assert align.retrieval(apart, 3 * apart).tolist() == [1]


def test_the_key_names_what_a_model_takes_for_another_piece(run, command):
    """The clone's rows are the first one's around another mean, but the two commonest have changed places."""
    out = run("clones")
    dataset = load_run(out, torch.device("cpu")).dataset
    forms = surface_forms(dataset.tokenizer("en"))
    counts = dataset.stream("en", "train").counts()
    first, second = np.argsort(-counts, kind="stable")[:2].tolist()
    with weights_of(out) as state:
        rows = state["token_embedding.weight"]
        rows[512:1024] = rows[:512] + 5 * torch.eye(32)[0]
        rows[[512 + first, 512 + second]] = rows[[512 + second, 512 + first]]
    code, printed, _ = command(align.main, out, "--only", "embeddings")
    assert code == 0
    found = alignment(out)["embeddings"]["EN1-EN2"]["input"]
    assert found["retrieval@1"] == pytest.approx(58 / 60)
    wrong = [(entry["piece"], entry["nearest"]) for entry in found["key"] if not align.is_right(entry)]
    assert wrong == [(forms[first], forms[second]), (forms[second], forms[first])]
    assert "The key of clones EN1-EN2: 58 of the 60 commonest pieces are nearest to their own" in printed
    clone, english, marks = printed[printed.index("  EN2 ") :].splitlines()[:3]
    assert clone.split()[1:3] == [forms[first], forms[second]]
    assert english.split()[1:3] == [forms[second], forms[first]]
    assert marks.split() == ["wrong", "^", "^"]


def test_matching_is_made_on_the_mean_over_layers_and_measured_in_each():
    """Layer 2 contradicts layer 1, more weakly: the matching follows layer 1, and layer 2 pays for it."""
    same, crossed = torch.eye(2), torch.tensor([[0.6, 0.8], [0.8, 0.6]])
    one, other = torch.stack([same, same]), torch.stack([same, crossed])
    assert align.mean_similarity(one, other) == pytest.approx(np.array([[0.8, 0.4], [0.4, 0.8]]))
    assert align.by_position(*align.matched(one, other)).tolist() == pytest.approx([1, 0.6], abs=1e-6)


@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_shuffled_is_the_mean_over_all_pairs_of_different_positions(n, m, seed):
    one, other = random(2, n, 5, seed=seed), random(2, m, 5, seed=seed + 1)
    common = min(n, m)
    apart = ~torch.eye(common, dtype=torch.bool)
    for left, right, found in zip(one, other, align.shuffled(one, other).tolist(), strict=True):
        cosines = brute_cosines(left[:common], right[:common])
        assert found == pytest.approx(float(cosines[apart].mean()), abs=1e-6)
    assert align.shuffled(one[:, :1], other[:, :1]).isfinite().all()  # no other position is there


def measured(monkeypatch, texts: list, states) -> dict:
    """What `measure_hidden` finds in two clones of hidden states `states(ids)`; EN2 has ids from 10,000."""
    monkeypatch.setattr(align, "hidden_states", lambda model, ids: states(ids))
    languages = [SimpleNamespace(name=name) for name in ("EN1", "EN2")]
    run = SimpleNamespace(out=Path("made-up"), config={"vocab": "cloned"}, languages=languages, model=None)
    return align.measure_hidden(run, [[text, 10_000 + text] for text in texts])["EN1-EN2"]


def test_a_position_embedding_that_clones_share_is_no_alignment(monkeypatch):
    position, said = 5 * random(1, 6, 16), random(2, 40, 1, 6, 16, seed=1)
    texts = [100 * text + np.arange(6) for text in range(40)]
    states = lambda ids: position + said[ids[0] // 10_000, ids[0] % 10_000 // 100]  # noqa: E731
    found = measured(monkeypatch, texts, states)
    assert means(found["positions"])[0] > 0.9
    assert abs(means(found["positions, centred"])[0]) < 0.1


def test_centring_takes_off_what_all_states_of_a_language_share(monkeypatch):
    """States are a large direction of each language's own plus what a text says, whose mean is 0."""
    said = 2 * random(2, 12, 8)  # (layers, tokens, width)
    said -= (said[:, :6] + said[:, 6:]).repeat(1, 2, 1) / 2  # two texts of six tokens
    opposite = torch.tensor([1, -1])[:, None, None]  # in layer 2, EN2 says the opposite
    states = [said + 50 * torch.eye(8)[0], opposite * said + 30 * torch.eye(8)[0]]
    texts = [np.arange(6), np.arange(6, 12)]
    found = measured(monkeypatch, texts, lambda ids: states[ids[0] // 10_000][:, ids % 10_000])
    by_text = {"retrieval@1", "retrieval@1, shuffled"}
    assert set(found) == {"positions", "positions, centred", "shuffled", *by_text}
    assert means(found["retrieval@1"])[0] == 1 > means(found["retrieval@1"])[1]
    assert means(found["positions, centred"]) == pytest.approx([1, -1], abs=1e-5)
    assert min(means(found["positions"]) + means(found["shuffled"])) > 0.9
    assert {entry["count"] for entry in found["positions"]} == {2}


def test_frequency_is_in_half_decades_without_what_never_occurs():
    shares = np.array([0, 0.001, 0.002, 0.0032, 0.5, 0.01])
    found = align.by_frequency(shares, np.array([9, 1, 3, 5, 7, 6.0]))
    middles = [math.log10(entry["frequency"]) for entry in found]
    assert middles == pytest.approx([-2.75, -2.25, -1.75, -0.25])
    assert [(entry["mean"], entry["count"]) for entry in found] == [(2, 2), (5, 1), (6, 1), (7, 1)]
    assert found[0]["standard_error"] == pytest.approx(1)


@pytest.fixture
def gpt() -> GPT:
    torch.manual_seed(0)
    return GPT(MICRO, vocabulary=60, length=16).eval()


def test_hidden_states_are_those_after_each_block_and_hooks_are_gone(gpt):
    states = align.hidden_states(gpt, np.arange(17))  # the last token is only predicted
    x = gpt.token_embedding(torch.arange(16)[None]) * 32**0.5 + gpt.position_embedding(torch.arange(16))
    for block, state in zip(gpt.blocks, states, strict=True):
        x = block(x)
        assert torch.allclose(state, x[0], atol=1e-5)
    assert not any(block._forward_hooks for block in gpt.blocks)


def test_gradients_are_those_of_the_mean_loss(gpt):
    tokens = torch.arange(10)[None]
    logits = gpt.output(gpt.hidden(tokens[:, :-1]))
    torch.nn.functional.cross_entropy(logits[0], tokens[0, 1:]).backward()
    for found, parameter in zip(align.gradients(gpt, np.arange(10)), gpt.parameters(), strict=True):
        assert torch.allclose(found, parameter.grad, atol=1e-6)


LINES = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), max_size=60)


def lengths_of(lines: list[list[list[int]]]) -> list[list[int]]:
    return [[len(side) for side in line] for line in lines]


@given(LINES, st.integers(6, 20))
@settings(deadline=None, max_examples=50)
def test_lines_are_joined_as_the_paper_says(lengths, length):
    lines = [[[i] * n, [i] * m] for i, (n, m) in enumerate(lengths)]
    fitting = [line for line in lines if max(map(len, line)) <= length]
    expected = []
    while fitting:  # the longest run of lines that fits on both sides
        ends = range(1, len(fitting) + 1)
        end = max(end for end in ends if np.max(np.sum(lengths_of(fitting[:end]), axis=0)) <= length)
        expected.append([[token for line in fitting[:end] for token in line[side]] for side in (0, 1)])
        fitting = fitting[end:]
    assert list(align.join_lines(iter(lines), length)) == expected


@pytest.fixture(scope="module")
def runs(prepared, babel, tmp_path_factory) -> Iterator[dict[str, Path]]:
    """Runs of two steps in several settings. Read only."""
    folder = tmp_path_factory.mktemp("runs")
    settings = {
        "clones": [prepared, "--ratio", 0.9],
        "three": [prepared, "--clones", 3, "--anchors", 0.5],
        "mono": [prepared, "--ratio", 1],
        "disjoint": [babel, "--languages", "en", "xx"],
        "anchored": [babel, "--languages", "en", "xx", "--vocab", "anchored"],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "micro", MICRO)
        for name, flags in settings.items():
            command = ["--data", *flags, "--size", "micro", *SHORT, "--out", folder / name]
            train.main([str(word) for word in command])
        yield {name: folder / name for name in settings}


@pytest.fixture
def run(runs, tmp_path):
    """`run(name)`: a copy of one that a test may change."""
    return lambda name: Path(shutil.copytree(runs[name], tmp_path / name))


@pytest.fixture
def lines(tmp_path) -> list[str]:
    """Flags that name two files of aligned lines; some are empty in both."""
    english = "\ufeffOh.\r\n\n" + "".join(f"Line {i} is\u2028a text.\n" for i in range(60))
    other = "Ah.\n \n" + "".join(f"And {i} is the other side of the line.\n" for i in range(60))
    (tmp_path / "en.txt").write_bytes(english.encode())
    (tmp_path / "xx.txt").write_bytes(other.encode())
    return ["--parallel", f"xx={tmp_path / 'xx.txt'}", f"en={tmp_path / 'en.txt'}"]


@pytest.fixture
def figures(monkeypatch) -> dict[str, Figure]:
    """The figures that align.py writes, by their names; all else is written as ever."""
    figures = {}

    def catch(path, content):
        if isinstance(content, Figure):
            figures[path.name] = content
        else:
            write(path, content)

    monkeypatch.setattr(align, "write", catch)
    return figures


@contextmanager
def weights_of(out: Path) -> Iterator[dict]:
    """A run's weights, saved again with what was changed in them."""
    state = torch.load(out / "model.pt", weights_only=True)
    yield state
    torch.save(state, out / "model.pt")


def cells(printed: str) -> list[list[str]]:
    """The rows of a printed table."""
    rows = [line for line in printed.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]


def alignment(out: Path) -> dict:
    return json.loads((out / "result.json").read_text())["alignment"]


def means(entries: list[dict]) -> list[float]:
    return [entry["mean"] for entry in entries]


def test_copied_clones_are_equal_everywhere(run, command):
    out = run("clones")
    before = read_json(out / "result.json")
    with weights_of(out) as state:
        for name in ("token_embedding.weight", "output.weight"):
            state[name][512:1024] = state[name][:512]
    code, printed, _ = command(align.main, out, "--sequences", 3, "--matching")
    assert code == 0
    embeddings, hidden, gradients = (alignment(out)[part]["EN1-EN2"] for part in align.PARTS)

    for matrix in (embeddings["input"], embeddings["output"]):
        assert (matrix["counterparts"]["mean"], matrix["counterparts"]["count"]) == (pytest.approx(1), 511)
        assert (matrix["retrieval@1"], matrix["chance"]) == (1, 1 / 60)
        assert abs(matrix["all_pairs"]) < 0.9

    controls = {"shuffled": 0.9, "retrieval@1, shuffled": 0.5, "matching, another text": 0.999}
    for control, most in controls.items():
        assert max(means(hidden.pop(control))) < most
    assert set(hidden) == {"retrieval@1", "positions", "positions, centred", "matching", "matching, centred"}
    for layers in hidden.values():
        assert means(layers) == pytest.approx([1] * 2, abs=1e-5)
        assert {entry["count"] for entry in layers} == {3}

    inside = [entry for name, entry in gradients["tensors"].items() if name.startswith("blocks.")]
    assert (len(inside), gradients["blocks"]["count"]) == (2 * 12, 3)
    assert means([gradients["blocks"], *inside]) == pytest.approx([1] * 25, abs=1e-4)
    # The clones' tokens are other rows: their gradients have nothing in common.
    assert gradients["tensors"]["token_embedding.weight"]["mean"] == pytest.approx(0, abs=1e-6)

    assert read_json(out / "result.json") == before | {"alignment": alignment(out)}
    assert ["clones EN1-EN2", "gradients, blocks", "1.000 ± 0.000"] in cells(printed)
    assert {path.stem for path in out.glob("*.png")} == {"alignment-layers", "alignment-gradients"}


def test_parts_are_merged(run, command):
    out = run("clones")
    assert command(align.main, out, "--sequences", 2, "--only", "hidden")[0] == 0
    first = alignment(out)
    assert command(align.main, out, "--only", "embeddings")[0] == 0
    assert list(alignment(out)) == ["hidden", "embeddings"]
    assert alignment(out)["hidden"] == first["hidden"]


def test_means_are_those_of_single_texts_spread_over_the_held_out_text(runs):
    run = load_run(runs["clones"], torch.device("cpu"))
    texts, stream = align.clone_texts(run, 3), run.dataset.stream("en", "test")
    windows = (len(stream) - 1) // 32
    begins = [0, windows // 3 * 32, 2 * windows // 3 * 32]
    assert [one.tolist() for one, _ in texts] == [stream.read(begin, 33).tolist() for begin in begins]

    def cosines(one: list, other: list) -> list[float]:
        return [float(torch.cosine_similarity(a, b, dim=-1).mean()) for a, b in zip(one, other, strict=True)]

    states = [[align.hidden_states(run.model, ids) for ids in sides] for sides in texts]
    expected = np.mean([cosines(*both) for both in states], axis=0)
    assert means(align.measure_hidden(run, texts)["EN1-EN2"]["positions"]) == pytest.approx(expected)

    flat = [[[g.flatten() for g in align.gradients(run.model, ids)] for ids in sides] for sides in texts]
    expected = np.array([cosines(*both) for both in flat])
    found = align.measure_gradients(run, texts)["EN1-EN2"]
    assert means(found["tensors"].values()) == pytest.approx(expected.mean(0), abs=1e-5)
    inside = [name.startswith("blocks.") for name in found["tensors"]]
    blocks = expected[:, inside].mean(1)
    assert found["blocks"]["mean"] == pytest.approx(blocks.mean(), abs=1e-5)
    assert found["blocks"]["standard_error"] == pytest.approx(blocks.std(ddof=1) / 3**0.5, abs=1e-5)


def test_every_pair_of_several_clones_and_shared_rows_are_left_out(run, command):
    out = run("three")
    assert command(align.main, out, "--sequences", 2)[0] == 0
    found = alignment(out)
    assert all(list(found[part]) == ["EN1-EN2", "EN1-EN3", "EN2-EN3"] for part in align.PARTS)
    pair = found["embeddings"]["EN2-EN3"]
    assert pair["shared"] == pytest.approx(511 / 2, abs=1)
    assert pair["input"]["counterparts"]["count"] == 511 - pair["shared"]
    assert sum(entry["count"] for entry in pair["input"]["frequency"]) <= 511 - pair["shared"]


@pytest.mark.parametrize("vocab", ["disjoint", "anchored"])
def test_real_languages_are_compared_on_parallel_text(run, command, lines, tmp_path, vocab):
    out, pictures = run(vocab), tmp_path / "pictures"
    code, printed, _ = command(align.main, out, *lines, "--sequences", 3, "--out", pictures)
    assert code == 0
    embeddings, hidden, gradients = (alignment(out)[part]["EN-XX"] for part in align.PARTS)
    assert set(hidden) == {"matching", "matching, centred", "shuffled", "matching, another text"}
    assert hidden["matching"][0]["count"] == gradients["blocks"]["count"] == 3
    if vocab == "anchored":
        assert embeddings["input"]["counterparts"] is None
        assert embeddings["shared"] > 100
        assert ["anchored EN-XX", "input embedding", "-"] in cells(printed)
    else:
        assert embeddings["input"]["counterparts"]["count"] > 100
        assert embeddings["shared"] == 0
    drawn = {path.stem for path in pictures.iterdir()}
    assert drawn == {"alignment-matching", "alignment-layers", "alignment-gradients"}
    assert not list(out.glob("*.png"))  # all pictures of a single run are where --out says


def test_the_first_line_of_suitable_length_is_drawn(run, command, lines, figures):
    out = run("disjoint")
    assert command(align.main, out, *lines, "--only")[0] == 0
    (axes,) = figures["alignment-matching.png"].axes
    drawn = "".join(text.get_text()[1:-1] for text in axes.texts)
    drawn = drawn.replace("<0xE2><0x80><0xA8>", "\u2028")  # no piece has it
    assert drawn.replace("▁", " ") == " Line 0 is\u2028a text. And 0 is the other side of the line."


def test_counterparts_of_real_languages_have_the_same_form(runs):
    run = load_run(runs["disjoint"], torch.device("cpu"))
    left, right, shared = align.find_counterparts(run.dataset, *run.languages)
    english, other = (surface_forms(run.dataset.tokenizer(language.source)) for language in run.languages)
    assert [english[i] for i in left] == [other[i] for i in right]
    assert "▁the" in [english[i] for i in left]
    assert (0 in left, shared) == (False, 0)


def test_heat_map_has_tensors_as_rows_and_layers_as_columns():
    names = ["embedding", "blocks.0.a.weight", "blocks.0.b", "blocks.1.a.weight", "blocks.1.b", "norm"]
    kinds, matrix = align.heat_map({name: {"mean": i} for i, name in enumerate(names)})
    assert kinds == ["a.weight", "b"]
    assert matrix.tolist() == [[1, 3], [2, 4]]


def test_pictures_of_several_runs_stand_side_by_side(run, command, tmp_path, figures):
    clones, three = run("clones"), run("three")
    code, printed, _ = command(align.main, clones, three, "--sequences", 2, "--out", tmp_path / "both")
    assert code == 0
    assert len(figures["alignment-gradients.png"].axes) == 5  # a heat map for each pair, and a scale
    labels = figures["alignment-layers.png"].axes[1].get_legend_handles_labels()[1]
    expected = ["clones EN1-EN2", "three EN1-EN2", "three EN1-EN3", "three EN2-EN3"]
    assert labels == expected
    assert {row[0] for row in cells(printed)[2:]} == set(expected)


def test_a_tied_model_has_one_matrix(prepared, runs, command, tmp_path):
    out = tmp_path / "tied"
    assert command(train.main, "--data", prepared, "--size", "micro", *SHORT, "--tied", "--out", out)[0] == 0
    code, printed, _ = command(align.main, out, "--only", "embeddings", "gradients", "--sequences", 3)
    assert code == 0
    found = {part: pairs["EN1-EN2"] for part, pairs in alignment(out).items()}
    assert list(found["embeddings"]) == ["shared", "input"]
    assert "output embedding" not in printed
    assert "output.weight" not in found["gradients"]["tensors"]


def test_losses_of_several_runs_stand_in_one_picture(runs, command, figures):
    assert command(align.main, runs["clones"], runs["mono"], "--losses")[0] == 0
    lines = figures["losses.png"].axes[0].lines
    lines = [line for line in lines if line.get_linestyle() != "None"]  # dots are held-out text
    assert [line.get_label() for line in lines] == ["clones EN1", "clones EN2", "mono EN1"]
    logged = [json.loads(line) for line in (runs["mono"] / "metrics.jsonl").read_text().splitlines()]
    tokens, losses = lines[2].get_data()
    assert tokens.tolist() == [entry["tokens"] for entry in logged]
    assert losses.tolist() == [entry["loss"]["EN1"] for entry in logged]


@pytest.mark.parametrize(("name", "flags", "sentence"), [
    ("mono", [], "mono is monolingual, there is nothing to compare"),
    ("disjoint", [], "expected --parallel en=FILE xx=FILE"),
    ("disjoint", ["--parallel", "en=en.txt", "yy=xx.txt"], "expected --parallel en=FILE xx=FILE"),
    ("disjoint", ["--parallel", "en=en.txt", "xx=short.txt"], "the files have 62 and 1 lines"),
    ("disjoint", ["--parallel", "en=short.txt", "xx=short.txt"], "expected two texts of 8 to 32 tokens"),
    ("disjoint", ["--parallel", "en=en.txt", "xx=missing.txt"], "missing.txt: No such file"),
    ("disjoint", ["--parallel", "en=en.txt", "xx=latin.txt"], "latin.txt is not UTF-8"),
])  # fmt: skip
def test_what_cannot_be_compared_is_told(run, refused, lines, tmp_path, monkeypatch, name, flags, sentence):
    out = run(name)
    (tmp_path / "short.txt").write_text("One.\n")
    (tmp_path / "latin.txt").write_text("Café.\n" * 62, encoding="latin-1")
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(align.main, out, *flags)


def test_a_sequence_shorter_than_the_lines_draws_what_fits(run, command, lines, figures):
    out = run("disjoint")
    config = json.loads((out / "config.json").read_text())
    write(out / "config.json", config | {"length": 12})
    with weights_of(out) as state:
        state["position_embedding.weight"] = state["position_embedding.weight"][:12]
    code, printed, _ = command(align.main, out, *lines, "--only")
    assert (code, figures) == (0, {})
    assert "is not drawn: no line has 5 to 12 tokens in each language" in printed


def test_a_held_out_text_shorter_than_a_sequence_is_one_sentence(runs):
    run = load_run(runs["clones"], torch.device("cpu"))
    run.model.length = 10**6
    with pytest.raises(UserError, match="test tokens are not two sequences of 1000000"):
        align.clone_texts(run, 1)
