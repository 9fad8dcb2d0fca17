"""The paper's figures hang together, and come out again when its tables are written as runs."""

import math
import re
import sys
from argparse import Namespace

import numpy as np
import pytest
import torch
from conftest import ROOT, tree
from made_up_runs import cells_of, parse_setting, write_run

import train
from common import read_json, write
from data import Dataset, build_languages, build_mixture
from evaluate import Run
from fit_scaling import Law, fit_law, measure
from model import build_model
from paper import compare, figures, values, word2vec
from paper.compare import Numbers
from records import read_records

LAWS = {source: Law(*law) for source, law in values.LAWS.items()}


def printed() -> dict[tuple[str, str, int], tuple[str, float, float, float]]:
    """Every printed TEff that is not 1 by definition: language, perplexity, tokens seen, TEff."""
    found = {}
    for table, rows in values.TABLES.items():
        for _, setting, ppls, efficiencies in rows:
            vocab, languages, shares, times = parse_setting(setting)
            first, others = np.mean(shares) / 100, len(languages) - 1
            for position, efficiency in enumerate(map(float, efficiencies.split())):
                if vocab != "monolingual" and not math.isnan(efficiency):
                    seen = times * ((1 - first) / others if position else first)
                    ppl = float(ppls.split()[position])
                    found[table, setting, position] = languages[position], ppl, seen, efficiency
    return found


PRINTED = printed()


def efficiencies(law: Law, ppl: float, tokens: float) -> np.ndarray:
    """TEff of a perplexity as it is printed, and at both ends of what its one digit can stand for."""
    return np.array([law.tokens(ppl + error) for error in (0, 0.05, -0.05)]) / (tokens * values.TOKENS)


@pytest.mark.parametrize("source", ["en", "fr"])
def test_the_laws_that_the_tables_imply_give_every_printed_digit(source):
    """Each printed TEff is a point of the law: that perplexity on so many tokens."""
    of_source = [found[1:] for found in PRINTED.values() if found[0] == source]
    ppls, seen, worth = np.array(of_source).T
    implied = fit_law(seen * worth * values.TOKENS, ppls)
    assert implied == pytest.approx(LAWS[source], rel=0.02)
    for law in (implied, LAWS[source]):
        for ppl, tokens, efficiency in of_source:
            _, low, high = efficiencies(law, ppl, tokens)
            assert low - 0.005 <= efficiency <= high + 0.005


THEIRS = compare.numbers_of(compare.PAPER)
MAIN, EVEN = ("TEff of L2", "cloned 90% at 1x"), ("TEff of L2", "cloned 50% at 1x")


def seeds(*efficiencies: float) -> dict[int, float]:
    """Of seeds 0, 1 and so on what compare.numbers_of gives."""
    return {seed: math.log(efficiency) for seed, efficiency in enumerate(efficiencies)}


def thrice(sign: float = 1) -> Numbers:
    """The paper's numbers of three seeds that differ a little; with sign -1 what is smaller is larger."""
    moved = {}
    for name, found in THEIRS.items():
        moved[name] = {seed: sign * found[0] + seed / 1000 for seed in range(3)}
    return moved


def words(ours: Numbers) -> dict[str, list[str]]:
    """The verdicts on each takeaway's claims."""
    found, takeaway = {}, ""
    for line in compare.takeaways(ours, values.SIZE).splitlines():
        if re.match(r"\d\. ", line):
            takeaway = line[0]
            found[takeaway] = []
        elif verdict := re.search(r"\*\*(.*)\*\*", line):
            found[takeaway].append(verdict[1])
    return found


def test_the_paper_bears_out_every_claim_that_it_has_numbers_for():
    """Of Figures 2 and 4 it prints few; a schedule makes one language worse, not always both."""
    found = words(thrice())
    assert found == {
        "1": ["holds"], "2": ["holds"] * 3, "3": ["holds", "not run"] * 2, "4": ["holds", "holds", "not run"],
        "5": ["holds"] * 2, "6": ["holds"] * 6, "7": ["not run"] * 2, "8": ["holds"] * 3,
    }  # fmt: skip
    opposite = words(thrice(-1))
    assert opposite.pop("8") == ["does not hold", "does not hold", "holds"]  # of the last, in L2
    assert {word for own in opposite.values() for word in own} == {"does not hold", "not run"}


@pytest.mark.parametrize(("ours", "summary"), [
    (THEIRS, "1 open, 2 open, 3 open, 4 open, 5 open, 6 open, 7 not run, 8 open."),  # of one seed
    (thrice() | {MAIN: seeds(2, 1, 3)}, "1 holds, 2 open, 3 holds, 4 open, 5 holds,"),
])  # fmt: skip
def test_the_summary_has_every_takeaway_by_its_worst_claim(ours, summary):
    assert compare.takeaways(ours, values.SIZE).startswith(summary)


@pytest.mark.parametrize(("main", "even", "verdict", "told"), [
    ((2, 2.1, 1.9), (1, 1.1, 0.9), "holds", "ours 2.01 [1.77, 2.27], seeds: 3"),
    ((1, 1.1, 0.9), (2, 2.1, 1.9), "does not hold", "ours 0.50 [0.44, 0.57], seeds: 3"),
    ((2, 1, 3), (1.5, 1.5, 1.5), "open", "seeds: 3"),
    ((2, 9, 0.5), (1, 4.5, 0.25), "holds", "ours 2.00"),  # what the seeds have in common cancels
    ((2,), (1, 1.1, 0.9), "open", "ours 2.00, seeds: 1"),  # the others have no partner
    ((2, math.nan, 2), (1, 1, 1), "open", "ours -, seeds: 3"),  # beyond the yardstick
    ((), (1, 1), "not run", "ours -"),
])  # fmt: skip
def test_the_interval_over_the_same_seeds_decides(main, even, verdict, told):
    claim = "TEff of L2: cloned 90% at 1x > cloned 50% at 1x"
    found = compare.judge(claim, {MAIN: seeds(*main), EVEN: seeds(*even)}, THEIRS)
    assert found[0] == verdict
    assert told in found[1]
    assert "paper 2.34" in found[1]


def test_in_one_language_or_the_other_the_better_counts_in_both_the_worse():
    numbers = thrice()
    numbers["PPL of L1", "anchored 90→10% at 1x"] = seeds(1, 1.01, 1)
    assert words(numbers)["8"] == ["holds"] * 3  # L2 still loses
    numbers["PPL of L2", "anchored 90→10% at 1x"] = seeds(1, 1.01, 1)
    assert words(numbers)["8"] == ["holds", "does not hold", "holds"]
    numbers["PPL of L1", "cloned 90→10% at 3x"] = seeds(99, 99, 98)
    assert words(numbers)["5"] == ["holds", "does not hold"]


def test_numbers_of_rows(tmp_path):
    """Nine clones are one number; beyond the yardstick is none; of two alike that of more seeds counts."""
    write_run(tmp_path, "ten", values.TOKENS, [25, *[20, 45] * 4, 30], sources=("en",) * 10)
    for seed, ppl in ((0, 40), (1, 10)):
        write_run(tmp_path / f"{seed}", "50-50", values.TOKENS, [ppl, ppl], seed=seed)
        for share in (0.05, 1):
            tokens = share * values.TOKENS
            law_s = float(LAWS["en"].perplexity(tokens))
            write_run(tmp_path / f"{seed}", f"{share}", tokens, [law_s], sources=("en",), seed=seed)
    write_run(tmp_path, "anchors", values.TOKENS, [99, 99], anchors=0.2)
    write_run(tmp_path, "a-batch", values.TOKENS, [7, 7], batch=32)  # comes first, but has one seed
    write_run(tmp_path, "medium", values.TOKENS, [30, 30], size="medium")
    rows = compare.rows_of(measure(read_records([tmp_path])), compare.CLONES)
    numbers = compare.numbers_of(rows)
    nine = (4 * math.log(20) + 4 * math.log(45) + math.log(30)) / 9
    assert numbers["PPL of L2 to L10", "cloned x10 50% at 1x"] == {0: pytest.approx(nine)}
    assert numbers["PPL of L2", "cloned 50% at 1x"] == pytest.approx({0: math.log(40), 1: math.log(10)})
    worth = numbers["TEff of L2", "cloned 50% at 1x"]
    assert worth[0] < 0
    assert math.isnan(worth[1])
    assert numbers["PPL of L1", "cloned 50% at 1x, 0.2 anchored"] == {0: pytest.approx(math.log(99))}
    assert {place.split()[0] for _, place in numbers} == {"EN", "cloned", "medium"}


def test_a_model_of_one_s_own_size_is_compared_too(tmp_path, command):
    write_run(tmp_path, "own", values.TOKENS, [40, 40], size="mine")
    code, page, _ = command(compare.main, tmp_path)
    assert code == 0
    assert page.count("**not run**") > 20
    assert cells_of(page)["4", "cloned 50% at 1x"]["ours"] == "40.00, 40.00"


def write_row(folder, setting: str, ppls: str, tokens: float = values.TOKENS, **changes) -> None:
    """A row of the paper as a run; what it says of EN3 to EN10 is what it says of EN2."""
    vocab, languages, shares, times = parse_setting(setting)
    both = [float(ppl) for ppl in ppls.split()]
    each = [both[min(position, 1)] for position in range(len(languages))]
    settings = {
        "ratio": tuple(share / 100 for share in shares),
        "sources": languages,
        "vocab": vocab,
        "size": values.SIZE,
    }
    write_run(folder, setting.replace(" ", "-"), tokens * times, each, **settings | changes)


def write_rows(folder, table: str, settings: str = "", **changes) -> None:
    """The rows of a table, all of several languages or those that match."""
    for _, setting, ppls, _ in values.TABLES[table]:
        if "alone" not in setting and re.match(settings, setting):
            write_row(folder, setting, ppls, **changes)


def write_ladder(folder, source: str, tokens: float = values.TOKENS) -> None:
    """Monolingual runs that lie on the paper's law, of a standard run of so many tokens."""
    for share in (0.05, 0.1, 0.13, 0.16, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1, 1.5, 2, 3):
        ppl = float(LAWS[source].perplexity(share * values.TOKENS))
        write_run(folder, f"{source}-{share}", share * tokens, [ppl], sources=(source,))


def found_by_align(setting: str, cosines: dict[str, list[float]]) -> dict:
    """What align.py would write for a run with the paper's similarities."""
    clones = setting.startswith("cloned")
    pair, method = ("EN1-EN2", "positions") if clones else ("EN-FR", "matching")
    layers = [{"mean": mean, "standard_error": 0.01} for mean in cosines["hidden"]]
    cosine = {"mean": cosines.get("embeddings", [0.1])[0], "standard_error": 0.01}
    bins = [{"frequency": frequency, **cosine} for frequency in (1e-5, 1e-4)]
    matrix = {"counterparts": cosine, "all_pairs": 0.01, "frequency": bins}
    return {
        "hidden": {pair: {method: layers}},
        "embeddings": {pair: {"input": matrix, "output": matrix}},
        "gradients": {pair: {"blocks": {"mean": cosines["gradients"][0], "standard_error": 0.01}}},
    }


@pytest.fixture(scope="module")
def whole_paper(tmp_path_factory):
    """Every number that the paper prints as a run, and what Figures 1 and 8 need. Read only."""
    folder = tmp_path_factory.mktemp("paper") / "all"
    similarities = {}
    for part, setting, cosines in values.SIMILARITIES:
        similarities.setdefault(setting, {})[part] = [float(cosine) for cosine in cosines.split()]
    glue = {"CoLA": {"EN1": [0.7], "EN2": [0.6]}, "MRPC": {"EN1": [0.8, 0.6], "EN2": [0.4, 0.6]}}
    for source in ("en", "fr"):
        write_ladder(folder, source)
    for table in values.TABLES:
        for _, setting, _, _ in values.TABLES[table]:
            facts = {}
            if setting in similarities:
                facts["alignment"] = found_by_align(setting, similarities[setting])
                facts["glue"] = glue if setting.startswith("cloned") else {}
            write_rows(folder, table, re.escape(setting) + "$", facts=facts)
    write_run(folder, "anchors", values.TOKENS, [24, 24], anchors=0.2)
    return folder


@pytest.fixture(scope="module")
def records(whole_paper):
    """All of it, measured."""
    return measure(read_records([whole_paper]))


def test_the_paper_compared_with_itself_agrees(whole_paper, tmp_path, command):
    code, page, _ = command(compare.main, whole_paper, "--out", tmp_path)
    assert code == 0
    assert (tmp_path / "compare.md").read_text() in page
    claimed = re.findall(r"paper (-?\d.*?), ours (.*?),", page)
    assert len(claimed) == 25
    for theirs, ours in claimed:
        assert float(ours) == pytest.approx(float(theirs), rel=0.05)
    compared, rows = 0, cells_of(page)
    for (_, setting), cells in rows.items():
        if "TEff, paper" in cells and re.match("cloned|disjoint|anchored", setting) and "→0" not in setting:
            numbers = [np.array(cell.split(", "), float) for cell in list(cells.values())[2:]]
            ppl, own_ppl, theirs, ours = numbers
            assert own_ppl == pytest.approx(ppl)
            assert ours == pytest.approx(theirs, rel=0.025)  # straight lines between runs
            compared += len(ours)
    assert compared == 50
    assert rows["8", "cloned 100→0% at 1x"]["ours"] == "1B, 31.40"
    for part, setting, _ in values.SIMILARITIES:
        cells = rows[part, setting]
        assert cells["mean, ours"] == cells["mean, paper"]


def test_a_run_that_is_missing_costs_its_row_only(tmp_path, command):
    write_ladder(tmp_path / "runs", "en")
    write_rows(tmp_path / "runs", "Table 1", "cloned 90% at 1x")
    code, page, _ = command(compare.main, tmp_path / "runs")
    rows = cells_of(page)
    assert code == 0
    assert rows["5", "cloned 90% at 1x"]["ours"] == "22.50, 32.80"
    assert rows["4", "cloned 50% at 1x"]["ours"] == "not run"
    assert rows["7", "disjoint 50% at 1x"]["ours"] == "not run"
    assert rows["hidden", "cloned 90% at 1x"]["mean, ours"] == "not measured"
    assert "cloned 90% at 1x > cloned 50% at 1x: **not run**, paper 2.34" in page


def test_another_scale_and_languages_are_matched_by_their_place(tmp_path, command):
    """Multiples of its own standard run count; English beside clones is another text than beside French."""
    write_rows(tmp_path / "runs", "Table 1", tokens=2e6)
    write_rows(tmp_path / "runs", "Table 3", tokens=2e6, fingerprint="novels", sources=("de", "nl"))
    write_ladder(tmp_path / "runs", "en", tokens=2e6)
    # Controls are shorter than any mix, and are none; noise is not French.
    write_run(tmp_path / "runs", "positive", 0.4e6, [40, 40], ratio=0.9, anchors=1.0)
    write_run(tmp_path / "runs", "placebo", 0.5e6, [50, 900], ratio=0.4, sources=("en", "noise"))
    page = command(compare.main, tmp_path / "runs")[1]
    rows = cells_of(page)
    assert rows["11", "cloned 90→10% at 2x"]["ours"] == "22.80, 20.40"
    assert rows["13", "anchored 10% at 1x"]["ours"] == "39.50, 16.50"
    assert rows["1", "EN alone at 1x"]["ours"] == "not run"  # of Table 3, which comes after Table 1


def hollow(axes) -> list[np.ndarray]:
    """Points of the paper's values in a figure."""
    lines = [line.get_xydata() for line in axes.lines if line.get_fillstyle() == "none"]
    return [points for points in lines if len(points)]


def marks_of(axes) -> dict[str, np.ndarray]:
    """Places and means of one's own marks, by label."""
    containers = {container.get_label(): container.lines[0] for container in axes.containers}
    return {label: line.get_xydata() for label, line in containers.items() if line.get_fillstyle() != "none"}


@pytest.mark.parametrize("number", figures.FIGURES)
def test_every_figure_is_drawn(records, number):
    figure = figures.draw(number, records)
    figure.draw_without_rendering()
    assert all(axes.get_title() or axes.get_xlabel() for axes in figure.axes)
    assert any(hollow(axes) for axes in figure.axes) == (number not in {5, 7, 8})


def test_a_figure_without_its_runs_says_which(tmp_path, command):
    write_ladder(tmp_path / "runs", "en")
    before = tree(tmp_path)
    for number in set(figures.FIGURES) - {5}:
        code, _, error = command(figures.main, number, tmp_path / "runs")
        assert code == 2
        assert error.count("\n") == 1
        assert (ROOT / re.search(r"bash (runs/figure\d+\.sh)", error)[1]).exists()
    assert tree(tmp_path) == before
    code, out, _ = command(figures.main, 5, tmp_path / "runs", "--out", tmp_path / "new")
    assert out == f"figure: {tmp_path / 'new' / 'figure5.png'}\n"
    assert (tmp_path / "new" / "figure5.png").stat().st_size > 10_000


def test_runs_that_are_the_paper_s_own_lie_on_its_marks(records):
    left, right, _, _, worth, _ = figures.draw(2, records).axes
    ours = marks_of(left)
    assert ours["L2 at 90/10"].ravel() == pytest.approx([1, 32.8, 2, 23.9, 3, 22.3])
    assert np.concatenate(hollow(left)) == pytest.approx(np.concatenate(list(ours.values())))
    assert [label.get_text() for label in right.get_xticklabels()] == ["small"]
    ours = np.concatenate(list(marks_of(worth).values()))
    assert ours == pytest.approx(np.concatenate(hollow(worth)), rel=0.025)


def test_figure_1_has_glue_if_it_was_measured(records):
    left, right = figures.draw(1, records).axes
    (en2,) = [container for container in right.containers if container.lines[0].get_color() == "C3"]
    assert en2.lines[0].get_ydata() == pytest.approx([0.55, 0.55])  # mean over seeds, then over tasks
    tenth = LAWS["en"].perplexity(0.1 * values.TOKENS)
    assert marks_of(left)["L2 alone, as many tokens"][0] == pytest.approx([10, tenth])


def test_a_mark_is_the_mean_over_seeds_and_its_bar_student_s_interval(tmp_path):
    for seed, ppl in enumerate((30, 40, 50)):
        write_run(tmp_path / f"seed{seed}", "50-50", 1e6, [ppl] * 2, seed=seed)
        write_run(tmp_path / f"seed{seed}", "90-10", 1e6, [20, 50], ratio=0.9, seed=seed)
    (axes,) = figures.draw(1, measure(read_records([tmp_path]))).axes
    (bars,) = [container for container in axes.containers if container.get_label() == "L1"]
    mean = (30 * 40 * 50) ** (1 / 3)
    assert bars.lines[0].get_xydata() == pytest.approx(np.array([[10, 20], [50, mean]]))
    low, high = bars.lines[2][0].get_segments()[1][:, 1]
    half = 4.302653 * np.std(np.log([30, 40, 50]), ddof=1) / 3**0.5  # 97.5% of t with two degrees of freedom
    assert (low, high) == pytest.approx((mean * math.exp(-half), mean * math.exp(half)))


def test_figure_5_has_each_yardstick_with_its_runs_and_the_paper_s_laws(records):
    lines = {line.get_label(): line for line in figures.draw(5, records).axes[0].lines}
    for source, law in LAWS.items():
        runs = lines.pop(f"small, {source} of books, alone").get_xydata()
        assert len(runs) > 10
        assert runs[:, 1] == pytest.approx(law.perplexity(runs[:, 0]))
        theirs = lines.pop(f"paper: small, {source}").get_xydata()
        assert theirs[:, 1] == pytest.approx(law.perplexity(theirs[:, 0]))
    assert not lines


class Word2Vec:
    """What gensim's class has, for two words: the first and the last of the first sequence."""

    def __init__(self, sentences, **settings):
        passes = [list(sentences) for _ in range(1 + settings["epochs"])]
        assert all(sequences == passes[0] for sequences in passes)
        type(self).sentences, type(self).settings = passes[0], settings
        vectors = np.eye(2, settings["vector_size"], dtype=np.float32)
        self.wv = Namespace(index_to_key=[passes[0][0][0], passes[0][0][-1]], vectors=vectors)
        self.syn1neg = -vectors


@pytest.fixture
def run(tiny, tmp_path) -> Run:
    """A run of two clones, not trained."""
    args = train.parse_arguments([str(flag) for flag in tiny])
    dataset = Dataset(args.data)
    config = train.settings(args, dataset, torch.device("cpu"))
    languages = build_languages(dataset, config)
    model = build_model(config, languages)
    write(tmp_path / "run" / "result.json", config)
    return Run(tmp_path / "run", config, dataset, languages, model)


def test_word2vec_reads_the_run_s_sequences_with_the_paper_s_settings(run, command, monkeypatch):
    monkeypatch.setattr(word2vec, "load_run", lambda out, device: run)
    monkeypatch.setitem(sys.modules, "gensim", None)
    code, _, error = command(word2vec.main, run.out)
    assert code == 2
    assert "pip install -r requirements-extra.txt" in error
    monkeypatch.setitem(sys.modules, "gensim", Namespace())
    monkeypatch.setitem(sys.modules, "gensim.models", Namespace(Word2Vec=Word2Vec))
    assert command(word2vec.main, run.out)[0] == 0
    mixture = build_mixture(run.dataset, run.config)
    read = mixture.batch(np.arange(mixture.total))[0][:, :-1]
    assert [list(map(int, sentence)) for sentence in Word2Vec.sentences] == read.tolist()
    settings = {"sg": 1, "negative": 20, "min_count": 1, "epochs": 5, "vector_size": 128, "seed": 0}
    assert settings.items() <= Word2Vec.settings.items()
    vectors = word2vec.skip_gram(run)
    assert vectors["input"].any(1).nonzero().flatten().tolist() == sorted({read[0, 0], read[0, -1]})
    assert vectors["output"][read[0, 0], 0] == -1
    found = read_json(run.out / "result.json")["alignment"]["word2vec"]["EN1-EN2"]
    assert found["input"].keys() == found["output"].keys() >= {"counterparts", "all_pairs", "frequency"}
    assert "has its word2vec" in command(word2vec.main, run.out)[1]
