"""Alignment: closed forms and brute force for similarities, joined lines against their definition, runs."""

import json
import math
import shutil
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import tree
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

import align
import train
from common import UserError, write
from data import Dataset, surface_forms
from evaluate import load_run
from model import GPT, SIZES, Size

MICRO = Size(layers=2, width=32, heads=2, head_dim=16)
SHORT = ["--length", 32, "--batch", 8, "--tokens", 512, "--warmup", 1]
SHORT += ["--no-compile", "--no-score", "--precision", "fp32", "--device", "cpu"]

# --- similarity -----------------------------------------------------------------------------------


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_cosine_does_not_depend_on_lengths_however_small_or_large():
    one, other = random(3, 5), random(3, 5, seed=1)
    expected = float((one * other).sum() / (one.norm() * other.norm()))
    for left, right in ((1, 1), (1e-30, 1), (1e-25, 1e25)):
        assert align.cosine(one * left, other * right) == pytest.approx(expected, abs=1e-6)
    assert align.cosine(one, -2 * one) == pytest.approx(-1)
    assert align.cosine(one, 0 * one) == 0
    assert align.normalise(torch.tensor([3.0, 4.0])).tolist() == pytest.approx([0.6, 0.8])
    assert align.normalise(torch.zeros(2)).tolist() == [0, 0]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), st.integers(0, 99))
@settings(deadline=None)
def test_mean_of_all_pairs_equals_brute_force(n, m, width, seed):
    one, other = random(n, width, seed=seed), random(m, width, seed=seed + 1)
    brute = torch.nn.functional.cosine_similarity(one[:, None].double(), other[None].double(), dim=-1).mean()
    assert align.mean_of_all_pairs(one, other) == pytest.approx(float(brute), abs=1e-6)


def test_standard_errors_are_those_of_random_vectors():
    """Random vectors of width d are similar by 0, give or take 1 / sqrt(d)."""
    for width in (16, 256):
        one, other = (align.normalise(random(4000, width, seed=seed)) for seed in (0, 1))
        found = align.estimate((one * other).sum(-1).numpy())
        error = 1 / math.sqrt(4000 * width)
        assert (found["mean"], found["count"]) == (pytest.approx(0, abs=4 * error), 4000)
        assert found["standard_error"] == pytest.approx(error, rel=0.05)
    assert align.estimate(np.array([0.5])) == {"mean": 0.5, "standard_error": None, "count": 1}
    assert align.estimate(np.array([])) is None


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_matching_is_full_and_weighs_as_much_as_its_plain_twin(rows, columns, seed):
    similarity = np.random.default_rng(seed).uniform(-1, 1, (rows, columns))
    left, right = align.match(similarity)
    assert len(left) == len(set(left)) == len(set(right)) == min(rows, columns)
    assert similarity[left, right].sum() == pytest.approx(similarity[align.plain_match(similarity)].sum())


def test_permuted_positions_are_recovered():
    one, order = random(3, 40, 16), torch.from_numpy(np.random.default_rng(0).permutation(40))
    other = one[:, order]
    rows, columns = align.match(align.mean_similarity(one, other))
    assert order[columns].tolist() == rows.tolist()
    assert align.by_position(*align.matched(one, other)).tolist() == pytest.approx([1] * 3, abs=1e-6)
    assert align.by_position(one, other).abs().max() < 0.5
    some = one[:, [7, 1, 4, 11]]  # of the longer text positions are left over
    for sides in ((one, some), (some, one)):
        assert align.by_position(*align.matched(*sides)).tolist() == pytest.approx([1] * 3, abs=1e-6)


@given(st.integers(2, 9), st.integers(2, 5), st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_retrieval_counts_rows_whose_nearest_is_their_own(n, width, seed):
    one, other = random(2, n, width, seed=seed), random(2, n, width, seed=seed + 1)
    for left, right, share in zip(one, other, align.retrieval(one, other).tolist(), strict=True):
        best = [torch.cosine_similarity(row[None], left).argmax().item() for row in right]
        assert share == pytest.approx(np.mean(np.equal(best, range(n))))
    assert align.retrieval(one, 3 * one).tolist() == [1, 1]


def test_the_key_names_what_a_model_takes_for_another_piece(run, command):
    """The clone's rows are the first one's around another mean, but the two commonest have changed places."""
    out = run("clones")
    dataset = load_run(out, torch.device("cpu")).dataset
    forms, frequency = surface_forms(dataset.tokenizer("en")), align.relative_frequency(dataset, "en")
    first, second = np.argsort(-frequency, kind="stable")[:2].tolist()
    state = torch.load(out / "model.pt", weights_only=True)
    rows = state["token_embedding.weight"]
    rows[512:1024] = rows[:512] + 5 * torch.eye(32)[0]
    rows[[512 + first, 512 + second]] = rows[[512 + second, 512 + first]]
    torch.save(state, out / "model.pt")
    code, printed, _ = command(align.main, out, "--only", "embeddings")
    found = alignment(out)["embeddings"]["EN1-EN2"]["input"]
    pairs = [(entry["piece"], entry["nearest"]) for entry in found["key"]]
    assert pairs[:2] == [(forms[first], forms[second]), (forms[second], forms[first])]
    assert all(piece == nearest for piece, nearest in pairs[2:])
    assert (code, found["retrieval@1"]) == (0, pytest.approx(58 / 60))
    assert "The key of clones EN1-EN2: 58 of the 60 commonest pieces are nearest to their own" in printed
    clone, english, wrong = printed[printed.index("  EN2 ") :].splitlines()[:3]
    assert clone.split()[1:3] == english.split()[2:0:-1] == [forms[first], forms[second]]
    assert wrong.split() == ["wrong", "^", "^"]


def test_a_tied_model_has_one_matrix(prepared, command, tmp_path):
    out = tmp_path / "tied"
    assert command(train.main, "--data", prepared, "--size", "pico", *SHORT, "--out", out)[0] == 0
    code, printed, _ = command(align.main, out, "--sequences", 2)
    found = alignment(out)["embeddings"]["EN1-EN2"]
    assert (code, list(found), found["shared"]) == (0, ["shared", "input"], 1)
    assert ("tied EN1-EN2, input" in printed, "tied EN1-EN2, output" in printed) == (True, False)
    assert "output.weight" not in alignment(out)["gradients"]["EN1-EN2"]["tensors"]
    assert (out / "alignment-frequency.png").exists()


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
    apart = list(permutations(range(min(n, m)), 2))
    brute = [
        np.mean([float(torch.cosine_similarity(left[i], right[j], dim=0)) for i, j in apart])
        for left, right in zip(one, other, strict=True)
    ]
    assert align.shuffled(one, other).tolist() == pytest.approx(brute, abs=1e-6)
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


# --- what a model makes of a sequence -------------------------------------------------------------


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


# --- parallel text --------------------------------------------------------------------------------

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


def test_joining_reads_no_more_than_it_needs():
    def lines():
        yield from ([[1] * 300, [2] * 300], [[1] * 300, [2] * 300])
        raise AssertionError("read on")

    assert list(map(len, next(align.join_lines(lines(), 512)))) == [300, 300]


# --- whole runs -----------------------------------------------------------------------------------


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
def figures(monkeypatch) -> dict[Path, Figure]:
    """The figures that align.py writes; all else is written as ever."""
    figures = {}

    def catch(path, content):
        if isinstance(content, Figure):
            figures[path] = content
        else:
            write(path, content)

    monkeypatch.setattr(align, "write", catch)
    return figures


def alignment(out: Path) -> dict:
    return json.loads((out / "result.json").read_text())["alignment"]


def means(entries: list[dict]) -> list[float]:
    return [entry["mean"] for entry in entries]


def test_copied_clones_are_equal_everywhere(run, command):
    out = run("clones")
    before = json.loads((out / "result.json").read_text())
    state = torch.load(out / "model.pt", weights_only=True)
    for name in ("token_embedding.weight", "output.weight"):
        state[name][512:1024] = state[name][:512]
    torch.save(state, out / "model.pt")

    code, printed, _ = command(align.main, out, "--sequences", 3, "--matching")
    assert code == 0
    embeddings, hidden, gradients = (alignment(out)[part]["EN1-EN2"] for part in align.PARTS)
    for matrix in ("input", "output"):
        expected = {"mean": pytest.approx(1), "standard_error": pytest.approx(0, abs=1e-6), "count": 511}
        assert embeddings[matrix]["counterparts"] == expected
        assert (embeddings[matrix]["retrieval@1"], embeddings[matrix]["chance"]) == (1, 1 / 60)
        assert abs(embeddings[matrix]["all_pairs"]) < 0.9
    for null, most in (("shuffled", 0.9), ("retrieval@1, shuffled", 0.5), ("matching, another text", 0.999)):
        assert max(means(hidden.pop(null))) < most
    assert means(hidden.pop("retrieval@1")) == [1, 1]
    assert set(hidden) == {"positions", "positions, centred", "matching", "matching, centred"}
    for layers in hidden.values():
        assert means(layers) == pytest.approx([1] * 2, abs=1e-5)
        assert {entry["count"] for entry in layers} == {3}
    inside = [entry for name, entry in gradients["tensors"].items() if name.startswith("blocks.")]
    assert (len(inside), gradients["blocks"]["count"]) == (2 * 12, 3)
    assert means([gradients["blocks"], *inside]) == pytest.approx([1] * 25, abs=1e-4)
    # The clones' tokens are other rows: their gradients have nothing in common.
    assert gradients["tensors"]["token_embedding.weight"]["mean"] == pytest.approx(0, abs=1e-6)

    after = json.loads((out / "result.json").read_text())
    assert {key: value for key, value in after.items() if key != "alignment"} == before
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines()]
    assert ["clones EN1-EN2, matching", "3", *["1.000 ± 0.000"] * 2] in rows
    assert ["clones EN1-EN2", "3", "1.000 ± 0.000"] in rows
    names = {path.name for path in out.glob("alignment-*")}
    assert names == {f"alignment-{picture}.png" for picture in align.PICTURES}


def test_parts_are_merged(run, command, monkeypatch):
    out = run("clones")
    monkeypatch.setattr(align, "draw_all", lambda *_: None)
    assert command(align.main, out, "--sequences", 2, "--only", "hidden")[0] == 0
    first = alignment(out)
    assert command(align.main, out, "--only", "embeddings")[0] == 0
    assert alignment(out) == {"hidden": first["hidden"], "embeddings": alignment(out)["embeddings"]}
    before = alignment(out)
    code, printed, _ = command(align.main, out, "--only")
    assert (code, printed.count("Cosine of"), alignment(out)) == (0, 2, before)


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


def test_every_pair_of_several_clones_and_shared_rows_are_left_out(run, command, monkeypatch):
    out = run("three")
    monkeypatch.setattr(align, "draw_all", lambda *_: None)
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
    hidden, gradients, embeddings = (
        alignment(out)[part]["EN-XX"] for part in ("hidden", "gradients", "embeddings")
    )
    assert set(hidden) == {"matching", "matching, centred", "shuffled", "matching, another text"}
    assert hidden["matching"][0]["count"] == gradients["blocks"]["count"] == 3
    if vocab == "anchored":
        assert (embeddings["input"]["counterparts"], embeddings["shared"] > 100) == (None, True)
        assert f"| {vocab} EN-XX, input  |" in printed
    else:
        assert (embeddings["input"]["counterparts"]["count"] > 100, embeddings["shared"]) == (True, 0)
    assert {path.stem for path in pictures.iterdir()} > {"alignment-matching", "alignment-layers"}
    assert not list(out.glob("*.png"))  # all pictures of a single run are where --out says


def test_the_first_line_of_suitable_length_is_drawn(run, command, lines, figures):
    out = run("disjoint")
    assert command(align.main, out, *lines, "--only")[0] == 0
    drawn = "".join(text.get_text()[1:-1] for text in figures[out / "alignment-matching.png"].axes[0].texts)
    drawn = drawn.replace("<0xE2><0x80><0xA8>", "\u2028")  # no piece has it
    assert drawn.replace("▁", " ") == " Line 0 is\u2028a text. And 0 is the other side of the line."


def test_counterparts_of_real_languages_have_the_same_form(runs):
    run = load_run(runs["disjoint"], torch.device("cpu"))
    left, right, shared = align.find_counterparts(run.dataset, *run.languages)
    english, other = (surface_forms(run.dataset.tokenizer(language.source)) for language in run.languages)
    assert [english[i] for i in left] == [other[i] for i in right]
    assert "▁the" in [english[i] for i in left]
    assert (0 in left, shared) == (False, 0)


def test_frequency_is_counted_from_the_stream(prepared):
    dataset = Dataset(prepared)
    stream = dataset.stream("en", "train")
    expected = np.bincount(stream.read(0, len(stream)), minlength=512) / len(stream)
    assert align.relative_frequency(dataset, "en") == pytest.approx(expected)


def test_heat_map_has_tensors_as_rows_and_layers_as_columns():
    names = ["embedding", "blocks.0.a.weight", "blocks.0.b", "blocks.10.a.weight", "blocks.10.b", "norm"]
    kinds, matrix = align.heat_map({"tensors": {name: {"mean": i} for i, name in enumerate(names)}})
    assert kinds == ["a.weight", "b"]
    assert matrix.tolist() == [[1, 3], [2, 4]]


def test_models_of_different_depth_share_a_table():
    hidden = {"EN1-EN2": {"positions": [align.estimate(np.array([0.5, 0.5]))] * 2}}
    deeper = {"EN1-EN2": {"positions": [align.estimate(np.array([0.25]))] * 3}}
    results = {name: {"alignment": {"hidden": part}} for name, part in (("a", hidden), ("b", deeper))}
    table = [line for line in align.layers_table(results).splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
    assert rows[0] == ["run", "sequences", "layer 1", "layer 2", "layer 3"]
    assert rows[2] == ["a EN1-EN2, positions", "2", "0.500 ± 0.000", "0.500 ± 0.000", ""]
    assert rows[3] == ["b EN1-EN2, positions", "1", "0.250", "0.250", "0.250"]


def test_pictures_of_several_runs_stand_side_by_side(run, command, tmp_path, figures):
    clones, three = run("clones"), run("three")
    code, printed, _ = command(align.main, clones, three, "--sequences", 2, "--out", tmp_path / "both")
    assert code == 0
    # A heat map for each pair, and a scale.
    assert len(figures[tmp_path / "both" / "alignment-gradients.png"].axes) == 5
    assert {path.parent for path in figures} == {tmp_path / "both"}
    assert "| clones EN1-EN2, input  |" in printed
    assert "| three EN2-EN3, input   |" in printed


def test_snapshots_of_a_run_end_with_what_its_weights_have(runs, prepared, command, tmp_path, figures):
    out = tmp_path / "kept"
    flags = [*SHORT, "--tokens", 6 * 256, "--log-every", 2, "--keep-every", 2]
    assert command(train.main, "--data", prepared, "--size", "micro", *flags, "--out", out)[0] == 0
    before = json.loads((out / "result.json").read_text())
    assert command(align.main, out, "--snapshots", "--sequences", 3)[0] == 0
    after = json.loads((out / "result.json").read_text())
    snapshots = after.pop("snapshots")
    assert after == before
    assert [(entry["step"], entry["tokens"]) for entry in snapshots] == [(2, 512), (4, 1024), (6, 1536)]
    ((path, figure),) = figures.items()
    assert path.name == "snapshots.png"
    losses, cosines = figure.axes
    assert losses.get_legend_handles_labels()[1] == ["kept EN1", "kept EN2"]
    labels = ["layer 1", "layer 2", "retrieval@1 of embeddings"]
    assert [line.get_label() for line in cosines.lines] == labels
    found = [entry["key"]["EN1-EN2"] for entry in snapshots]
    assert cosines.lines[2].get_ydata().tolist() == found
    for layer, line in enumerate(cosines.lines[:2]):
        drawn = [means(entry["hidden"]["EN1-EN2"])[layer] for entry in snapshots]
        assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([512, 1024, 1536], drawn)

    assert command(align.main, out, "--only", "hidden", "--sequences", 3)[0] == 0
    assert alignment(out)["hidden"]["EN1-EN2"]["positions, centred"] == snapshots[-1]["hidden"]["EN1-EN2"]
    assert snapshots[0]["hidden"] != snapshots[-1]["hidden"]


def test_losses_of_several_runs_stand_in_one_picture(runs, command, tmp_path, figures):
    assert command(align.main, runs["clones"], runs["mono"], "--losses", "--out", tmp_path)[0] == 0
    lines = figures[tmp_path / "losses.png"].axes[0].lines
    lines = [line for line in lines if line.get_linestyle() != "None"]  # dots are held-out text
    assert [line.get_label() for line in lines] == ["clones EN1", "clones EN2", "mono EN1"]
    logged = [json.loads(line) for line in (runs["mono"] / "metrics.jsonl").read_text().splitlines()]
    assert list(zip(*lines[2].get_data(), strict=True)) == [
        (entry["tokens"], entry["loss"]["EN1"]) for entry in logged
    ]


def test_the_same_picture_has_the_same_bytes(command, tmp_path, runs):
    for name in ("one", "two"):
        command(align.main, runs["clones"], "--losses", "--out", tmp_path / name)
    one, two = (tree(tmp_path / name) for name in ("one", "two"))
    assert set(one) == {"losses.png"}
    assert one == two


@pytest.mark.parametrize(("name", "flags", "sentence"), [
    ("mono", [], "mono is monolingual, there is nothing to compare"),
    ("disjoint", [], "expected --parallel en=FILE xx=FILE"),
    ("disjoint", ["--parallel", "en=en.txt", "yy=xx.txt"], "expected --parallel en=FILE xx=FILE"),
    ("disjoint", ["--parallel", "en=en.txt", "xx=short.txt"], "the files have 62 and 1 lines"),
    ("disjoint", ["--parallel", "en=short.txt", "xx=short.txt"], "expected two texts of 8 to 32 tokens"),
    ("disjoint", ["--parallel", "en=en.txt", "xx=missing.txt"], "missing.txt: No such file"),
    ("disjoint", ["--parallel", "en=en.txt", "xx=latin.txt"], "latin.txt is not UTF-8"),
    ("disjoint", ["--parallel", "en.txt", "xx.txt"], "expected LANG=PATH"),
    ("clones", ["--sequences", "1"], "1: expected a whole number from 2"),
    ("clones", ["--only", "word2vec"], "invalid choice: 'word2vec'"),
    ("clones", ["--snapshots"], "clones has no snapshots; train.py --keep-every N makes some"),
])  # fmt: skip
def test_what_cannot_be_compared_is_one_sentence(
    run, command, lines, tmp_path, monkeypatch, name, flags, sentence
):
    out = run(name)
    (tmp_path / "short.txt").write_text("One.\n")
    (tmp_path / "latin.txt").write_text("Café.\n" * 62, encoding="latin-1")
    before = tree(out)
    monkeypatch.chdir(tmp_path)
    code, _, error = command(align.main, out, *flags)
    assert (code, error.count("\n"), tree(out)) == (2, 1, before)
    assert sentence in error


@pytest.mark.parametrize(("file", "content", "flags", "sentence"), [
    ("metrics.jsonl", '{"loss": {"EN1"\n', ["--losses"], "metrics.jsonl is damaged, or not of train.py"),
    ("metrics.jsonl", '{"epoch": 1}\n', ["--losses"], "metrics.jsonl is damaged, or not of train.py"),
    ("metrics.jsonl", "", ["--losses"], "metrics.jsonl has no losses yet"),
    ("result.json", '{"alignment": [1]}', ["--only"], "its alignment is not a JSON object"),
    ("snapshots/last.pt", "", ["--snapshots"], "clones has no snapshots"),
])  # fmt: skip
def test_files_that_are_damaged_are_one_sentence(run, command, file, content, flags, sentence):
    out = run("clones")
    write(out / file, content)
    code, _, error = command(align.main, out, *flags)
    assert (code, error.count("\n")) == (2, 1)
    assert sentence in error


def test_a_sequence_shorter_than_the_lines_draws_what_fits(run, command, lines, figures):
    out = run("disjoint")
    config = json.loads((out / "config.json").read_text())
    write(out / "config.json", config | {"length": 12})
    state = torch.load(out / "model.pt", weights_only=True)
    state["position_embedding.weight"] = state["position_embedding.weight"][:12]
    torch.save(state, out / "model.pt")
    code, printed, _ = command(align.main, out, *lines, "--only")
    assert (code, figures) == (0, {})
    assert "is not drawn: no line has 5 to 12 tokens in each language" in printed


def test_a_held_out_text_shorter_than_a_sequence_is_one_sentence(runs):
    run = load_run(runs["clones"], torch.device("cpu"))
    run.model.length = 10**6
    with pytest.raises(UserError, match="test tokens are not two sequences of 1000000"):
        align.clone_texts(run, 1)
