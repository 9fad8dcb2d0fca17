"""The law against known laws, what its intervals cover, and tables and figures of made-up runs."""

import json
import math

import numpy as np
import pytest
from conftest import tree
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_runs import write_law, write_run

import fit_scaling
from common import UserError
from fit_scaling import (
    Law,
    Measured,
    Quantity,
    Row,
    fit,
    fit_law,
    fit_laws,
    quantity,
    recommend,
    resample,
    table,
)

RANGE = (st.just(1e8), st.just(1e10))
SATURATING = st.builds(Law, st.floats(1e-3, 0.1), st.floats(0.05, 1.0), st.floats(0.02, 0.2), *RANGE)
ACCELERATING = st.builds(Law, st.floats(-0.1, -1e-3), st.floats(-1.0, -0.05), st.floats(-0.05, 0.02), *RANGE)
LAWS = st.one_of(SATURATING, ACCELERATING).filter(lambda law: 0 < law.perplexity(1e8) < 1e4)

PAPERS = Law(0.0387205, 0.206833, 0.0841184, 6e7, 3.6e9)  # what perplexities and TEff of Table 1 imply
YOUNG = Law(-0.7044, -0.5227, -0.005, 2e5, 6e6)  # as small models on little text have it
ONE = 18_265 * 128 * 512  # tokens of the paper's standard run, "1.2B"


# --- the law --------------------------------------------------------------------------------------


@settings(deadline=None)
@given(LAWS, st.floats(1e8, 1e10))
def test_mlte_inverts_mlpe(law, tokens):
    assert law.tokens(law.perplexity(tokens)) == pytest.approx(tokens, rel=1e-4)
    assert law.perplexity(tokens * 1.1) < law.perplexity(tokens)


@settings(deadline=None)
@given(LAWS)
def test_a_known_law_is_found_again(law):
    tokens = np.geomspace(1e8, 1e10, 6)
    found = fit_law(list(tokens), [law.perplexity(n) for n in tokens])
    assert (found.fewest, found.most) == pytest.approx((1e8, 1e10))
    for n in (1e8, 5e8, 3e9, 1e10):
        assert found.perplexity(n) == pytest.approx(law.perplexity(n), rel=1e-5)
    assert found.b == pytest.approx(law.b, abs=0.01)


def squares(b: float, tokens: np.ndarray, y: np.ndarray) -> float:
    """Squared error of the best law with this exponent, by NumPy's least squares."""
    columns = np.stack([np.ones_like(y), (tokens / ONE) ** -b], axis=1)
    return float(((columns @ np.linalg.lstsq(columns, y, rcond=None)[0] - y) ** 2).sum())


@pytest.mark.parametrize("law", [PAPERS, YOUNG])
def test_no_other_law_is_closer_to_noisy_runs(law):
    tokens = np.geomspace(law.fewest, law.most, 7)
    y = np.exp(0.02 * np.random.default_rng(0).standard_normal((3, 7))) / law.perplexity(tokens)
    found = fit_laws(tokens, 1 / y)
    for number in range(3):
        b = found.b[number]
        one = Law(found.a[number], b, found.c[number], 0, 0)
        ours = float(((1 / one.perplexity(tokens) - y[number]) ** 2).sum())
        assert ours == pytest.approx(squares(b, tokens, y[number]), rel=1e-6)
        assert (
            ours <= min(squares(b + step, tokens, y[number]) for step in np.linspace(-3, 3, 601)) * 1.000001
        )


def test_far_from_the_runs_the_law_has_no_number():
    assert PAPERS.tokens(1 / PAPERS.c * 0.999) == math.inf
    assert PAPERS.tokens(1 / PAPERS.c * 1.001) > 1e12
    assert PAPERS.perplexity(1.0) == math.inf
    assert YOUNG.tokens(2000) < YOUNG.tokens(900) < YOUNG.tokens(90) < math.inf
    assert Law(-0.03, -0.5, 0.001, 1e6, 1e9).tokens(2000) == 0  # less than is expected of an untrained model


def test_perplexities_that_do_not_fall_have_no_law():
    found = fit_laws(np.array([1e8, 2e8, 4e8, 8e8]), np.array([[40.0, 50, 60, 70], [70, 60, 50, 40]]))
    assert np.isnan(found.perplexity(3e8)).tolist() == [True, False]
    assert np.isnan(found.tokens(50.0)).tolist() == [True, False]
    with pytest.raises(UserError, match="do not fall"):
        fit_law([1e8, 2e8, 4e8], [40, 50, 60])
    with pytest.raises(UserError, match="found 2 lengths"):
        fit_law([1e8, 1e8, 2e8], [50, 50, 40])


# --- how surely -----------------------------------------------------------------------------------


def run_on(
    law: Law, seen: float, worth: float, noise: float, random, seeds=1, error=0.0, common=0.0
) -> Measured:
    """A run on `seen` tokens that are worth others; off by `noise`, and by what all have in `common`."""
    logs = noise * random.standard_normal(seeds) + common
    return Measured(seen, dict(enumerate(law.perplexity(worth) * np.exp(logs))), error)


def points_of(law: Law, count: int, noise: float, random, **more) -> list[Measured]:
    """Monolingual runs."""
    return [run_on(law, n, n, noise, random, **more) for n in np.geomspace(law.fewest, law.most, count)]


def efficiency(points: list[Measured], row: Measured, seed: int = 0) -> Quantity:
    """TEff of a row."""
    law = fit_law([point.tokens for point in points], [point.ppl for point in points])
    drawn = resample(law, points, [row], seed)
    return quantity(law.tokens(row.ppl) / row.tokens, drawn.law.tokens(drawn.perplexities[0]) / row.tokens)


def width(interval: Quantity) -> float:
    """How far an interval reaches, as a ratio."""
    return interval.high / interval.low


@pytest.mark.parametrize(
    ("law", "count", "seeds", "error"),
    [(PAPERS, 4, 1, 0.0), (PAPERS, 16, 1, 0.0), (YOUNG, 7, 1, 0.0), (YOUNG, 4, 3, 0.0), (YOUNG, 7, 1, 0.05)],
)
def test_the_interval_of_teff_covers_the_truth(law, count, seeds, error, monkeypatch):
    """95% intervals hold the true TEff of 2 in 84% of 60 experiments or more: four standard errors less."""
    monkeypatch.setattr(fit_scaling, "RESAMPLES", 500)
    random, held, trials = np.random.default_rng(count + seeds), 0, 60
    seen = law.most / 10
    for number in range(trials):
        common = error * random.standard_normal()
        points = points_of(law, count, 0.01, random, seeds=seeds, error=error, common=common)
        found = efficiency(points, run_on(law, seen, 2 * seen, 0.01, random, seeds, error, common), number)
        held += found.low <= 2 <= found.high
        assert found.low <= found.value <= found.high
    assert held >= 0.84 * trials


def test_an_interval_does_not_depend_on_what_else_is_in_the_table():
    points = points_of(YOUNG, 7, 0.05, np.random.default_rng(7))
    law = fit_law([point.tokens for point in points], [point.ppl for point in points])
    row, other = Measured(6e5, {0: 60.0}, 0.02), Measured(6e5, {0: 61.0}, 0.02)
    alone, among = resample(law, points, [row]), resample(law, points, [other, *points, row])
    assert np.array_equal(alone.law.b, among.law.b, equal_nan=True)
    assert np.array_equal(alone.perplexities[0], among.perplexities[-1])
    drawn = np.log(among.same_documents)
    assert (
        abs(np.corrcoef(drawn[0], drawn[-1])[0, 1]) < 0.9
    )  # spread is common to all, chance is each one's own


def test_intervals_shrink_with_noise_points_and_seeds():
    random = np.random.default_rng(5)
    row = Measured(6e5, {0: YOUNG.perplexity(1.2e6)})
    cases = ((7, 0.05), (7, 0.005), (30, 0.005))
    widths = [width(efficiency(points_of(YOUNG, count, noise, random), row)) for count, noise in cases]
    assert widths == sorted(widths, reverse=True)
    assert widths[1] > 1.005
    exact = points_of(YOUNG, 16, 1e-4, random)
    assert width(efficiency(exact, row)) < 1.002
    apart = Measured(6e5, {s: YOUNG.perplexity(1.2e6) * (1 + 0.04 * (s - 1)) for s in range(3)})
    assert width(efficiency(exact, apart)) > 1.01  # seeds that lie apart are all the noise there is
    several = points_of(YOUNG, 4, 0.02, random, seeds=3)
    first = [point._replace(perplexities={0: point.perplexities[0]}) for point in several]
    assert width(efficiency(several, row)) < 0.7 * width(efficiency(first, row))


def test_what_is_hard_for_all_runs_cancels_in_teff_but_not_in_mlpe():
    """A standard error over documents moves perplexities; TEff, a comparison on the same documents, stays."""
    points = points_of(YOUNG, 7, 0.002, np.random.default_rng(1))
    hard = [point._replace(error=0.1) for point in points]
    row = Measured(6e5, {0: YOUNG.perplexity(1.2e6)})
    plain, cancelled = efficiency(points, row), efficiency(hard, row._replace(error=0.1))
    assert width(cancelled) == pytest.approx(width(plain), rel=0.02)
    assert width(efficiency(points, row._replace(error=0.1))) > width(plain) + 0.3
    mlpe = [width(quantity(66.0, resample(YOUNG, own, [row]).law.perplexity(6e5))) for own in (points, hard)]
    assert mlpe[1] > mlpe[0] + 0.3


def test_three_points_have_no_interval():
    points = points_of(PAPERS, 3, 0.01, np.random.default_rng(0))
    row = Measured(6e8, {0: 22.0})
    assert math.isnan(efficiency(points, row).low)
    points[0] = points[0]._replace(perplexities={0: 50.0, 1: 50.5})
    assert efficiency(points, row).low > 0


def test_an_interval_holds_its_own_value_and_may_have_no_end():
    values = np.concatenate([np.linspace(1, 2, 1900), np.full(100, np.inf)])
    assert quantity(1.5, values) == (1.5, pytest.approx(1.026, abs=0.01), math.inf)
    assert quantity(0.9, values).low == 0.9
    assert math.isnan(quantity(1.5, np.full(2000, np.nan)).high)


@pytest.mark.parametrize(
    ("interval", "decimals", "text"),
    [
        ((2.371,), 2, "2.37"),
        ((2.371, 2.214, 2.553), 2, "2.37 [2.21, 2.55]"),
        ((2.371, 1.104, 4.812), 2, "2.4 [1.1, 4.8]"),
        ((2.371, 2.371, 2.371), 2, "2.37 [2.37, 2.37]"),
        ((2.371, 1.104, math.inf), 2, "2.4 [1.1, ∞]"),
        ((50.81, 43.43, 60.84), 1, "51 [43, 61]"),
        ((396.1, 260.7, 632.5), 1, "400 [260, 630]"),
        ((476_123, 392_789, 585_456), 0, "480k [390k, 590k]"),
        ((1_291_234, 989_123, 1_761_234), 0, "1.29M [990k, 1.76M]"),
        ((math.nan,), 2, "-"),
    ],
)
def test_no_more_digits_than_are_known(interval, decimals, text):
    assert Quantity(*interval).text(decimals) == text


# --- the runs -------------------------------------------------------------------------------------


@pytest.fixture
def table1(tmp_path):
    """Five monolingual runs on the paper's law, and rows 4, 5 and 9 of its Table 1."""
    folder = tmp_path / "table1"
    write_law(folder, PAPERS, [ONE * share for share in (0.05, 0.1, 0.5, 1, 3)])
    write_run(folder, "50-50", ONE, [26.1, 26.1])
    write_run(folder, "90-10", ONE, [22.5, 32.8], ratio=0.9)
    write_run(folder, "90to10", ONE, [26.5, 24.4], ratio=(0.9, 0.1))
    return folder


def change(run, file: str = "result.json", **changes) -> None:
    """Replace or extend what a file of a run says."""
    path = run / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cells_of(text: str) -> dict[tuple[str, str], list[str]]:
    """Cells of a printed table by its first two columns."""
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    lines = [[cell.strip() for cell in row] for row in rows]
    return {(line[0], line[1]): line[2:] for line in lines[2:]}


def test_run_folders_become_a_table_and_a_figure(table1, command):
    write_run(table1, "better-than-any", ONE, [11.0, 26.1], ratio=0.6)
    write_run(table1, "short", 5e8, [30.0, 70.0], ratio=0.95)
    write_run(table1, "long", 6e9, [18.0, 18.9], ratio=0.9)
    code, out, error = command(fit_scaling.main, table1)
    assert (code, error) == (0, "")
    rows = cells_of(out)
    assert [cell.split()[0] for cell in rows["90-10", "EN2"]] == [
        "10%",
        "120M",
        "32.8",
        "46.0",
        "248M",
        "2.08",
    ]
    assert rows["90to10", "EN2"][0] == "10→90%"
    assert rows["mono-en-5.985e+08", "EN1"][-1].startswith("1.00 [")
    assert rows["better-than-any", "EN1"][-2:] == ["beyond the law", "beyond the law"]
    assert rows["short", "EN2"][3] == "-"  # 25M tokens: no monolingual run was as short
    assert rows["long", "EN1"][3] == "-"
    assert rows["long", "EN1"][4].endswith("]*")
    assert "Law of small, en: 1/PPL = 0.08412 - 0.03872 * (tokens / 1.2e9)^-0.2068, fitted on 5 runs" in out
    assert (table1 / "table.md").read_text() in out
    assert (table1 / "figure.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    (law,) = json.loads((table1 / "laws.json").read_text())["laws"]
    assert (law["size"], law["source"], law["batch"]) == ("small", "en", 128)
    assert law["b"] == pytest.approx(PAPERS.b, abs=1e-5)
    assert law["intervals_95"]["b"] == pytest.approx([PAPERS.b] * 2, abs=1e-4)


def test_three_runs_give_a_law_without_intervals(tmp_path):
    write_law(tmp_path, PAPERS, [ONE * share for share in (0.1, 0.5, 1)])
    write_run(tmp_path, "90-10", ONE, [22.5, 32.8], ratio=0.9)
    out = table(fit([tmp_path]))
    assert cells_of(out)["90-10", "EN2"][-1] == "2.08"
    assert "no intervals: they need a fourth run" in out


def test_seeds_are_one_row(table1):
    other = table1.parent / "table1-seed1"
    for path in sorted(table1.glob("*/result.json")):
        result = json.loads(path.read_text())
        ppls = [language["ppl"] * 1.01 for language in result["languages"]]
        ratio = tuple(stage[0] for stage in result["stages"])
        more = {"sources": result["sources"], "ratio": ratio, "seed": 1, "data": "elsewhere"}
        write_run(other, path.parent.name, result["tokens"], ppls, **more)
    rows = cells_of(table(fit([table1, other])))
    assert len(rows) == 5 + 3 * 2
    assert float(rows["90-10 (2 seeds)", "EN2"][2]) == pytest.approx(32.8 * 1.005, abs=0.06)


@pytest.mark.parametrize(
    "setting",
    [{"tokens": 2 * ONE}, {"anchors": 0.1}, {"precision": "fp32"}, {"rotary": [True]}],
)
def test_a_changed_or_new_setting_is_neither_a_seed_nor_a_duplicate(table1, setting):
    for seed in (0, 1):
        run = write_run(table1, f"changed{seed}", ONE, [24.0, 30.0], ratio=0.9, seed=seed)
        change(run, "config.json", **setting)
    rows = {(row.run, row.language): row for row in fit([table1]).rows}
    assert {("90-10", "EN2"), ("changed0 (2 seeds)", "EN1"), ("changed0 (2 seeds)", "EN2")} < rows.keys()
    of_the_law = bool(setting.keys() & {"tokens", "anchors"})
    assert (rows["changed0 (2 seeds)", "EN2"].law is not None) == of_the_law


def test_laws_of_a_size_are_told_apart_by_their_settings(table1):
    write_law(
        table1 / "rotary", PAPERS._replace(c=0.09), [ONE * share for share in (0.1, 0.5, 1)], rotary=True
    )
    out = table(fit([table1]))
    assert "Law of small, en: 1/PPL = 0.08412" in out
    assert "Law of small, en, rotary True: 1/PPL = 0.09" in out


def test_what_cannot_be_used_is_told_and_left_out(table1, capsys):
    before = fit([table1]).rows
    write_run(table1, "unevaluated", ONE, [None, None])
    write_run(table1, "diverged", ONE, [math.nan, 20.0])
    (write_run(table1, "foreign", ONE, [26.1, 26.1], ratio=0.8) / "config.json").unlink()
    write_run(table1, "twice", ONE, [20.0, 20.0], ratio=0.9, data="a/copy")
    write_run(table1, "mini", ONE, [30.0, 30.0], size="mini")
    change(table1 / "50-50", "config.json", code="fedcba987654")
    rows = fit([table1]).rows
    assert capsys.readouterr().out.replace(f"{table1}/", "").splitlines() == [
        "left out: diverged is not evaluated, or diverged; python evaluate.py diverged",
        "left out: foreign has no config.json, which would tell its settings",
        "left out: unevaluated is not evaluated, or diverged; python evaluate.py unevaluated",
        "the code changed between these runs: 0123456789ab made 9, fedcba987654 made 1",
        "left out: twice has the settings and the seed of 90-10",
        "no law for mini, en: found 0 lengths of monolingual runs (train.py --ratio 1), expected three",
    ]
    known = [row[4:] for row in rows if row.run != "mini"]
    assert str(known) == str([row[4:] for row in before])
    assert [row.efficiency_text() for row in rows if row.run == "mini"] == ["-", "-"]


def test_folders_within_one_another_count_their_runs_once(table1, command):
    write_run(table1, "more/50-50", ONE, [27.0, 27.0], ratio=0.6)
    rows = fit([table1, table1 / "more"]).rows
    assert {row.run for row in rows if "50-50" in row.run} == {"table1/50-50", "table1/more/50-50"}


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: None, "is not a folder"),
        (lambda folder: folder.mkdir(), "holds no evaluated run"),
        (lambda folder: write_run(folder, "a", ONE, [26.1, 26.1]), "found 0 lengths of monolingual runs"),
        (lambda folder: write_run(folder, "a", ONE, [21.9], sources=("en",)), "found 1 lengths"),
        (
            lambda folder: (write_run(folder, "a", ONE, [22.0, 22.0]) / "result.json").write_text("{"),
            "is damaged",
        ),
    ],
)
def test_folders_without_enough_runs_are_refused(tmp_path, command, make, sentence):
    make(tmp_path / "runs")
    before = tree(tmp_path)
    code, _, error = command(fit_scaling.main, tmp_path / "runs")
    assert code == 2
    assert sentence in error
    assert tree(tmp_path) == before


# --- the recommendation ---------------------------------------------------------------------------


def mix(total: float, worth: float, half: float) -> list[Row]:
    """Both rows of a mix of so many tokens, 300 thousand of which are of the rarer language."""
    result = {"tokens": total, "languages": [{"name": "EN"}, {"name": "SW"}]}
    rows = []
    for position, (seen, teff) in enumerate(((total - 3e5, 1.0), (3e5, worth))):
        efficiency = Quantity(teff, teff - half, teff + half)
        own = (f"{total:g}", 1, result, position, seen, Quantity(50.0), Measured(seen, {0: 50.0}), YOUNG)
        rows.append(Row(*own, mlte=Quantity(teff * seen), token_efficiency=efficiency))
    return rows


def test_the_best_mix_is_recommended_and_a_cheaper_one_that_may_be_as_good():
    rows = [*mix(6e5, 1.1, 0.05), *mix(15e5, 1.7, 0.2), *mix(3e6, 1.8, 0.2), *mix(6e6, 1.5, 0.05)]
    assert recommend(rows) == (
        "Best for SW: 10% of it (3e+06), TEff 1.80 [1.60, 2.00].\n"
        "20% (1.5e+06) cannot be told from it by these runs, and takes 1.5M tokens instead of 3M.\n"
    )
    assert recommend(mix(6e5, 0.8, 0.05)) == "No mix helps: SW is better off alone.\n"


def test_without_a_law_of_the_rarest_language_nothing_is_recommended(table1, command):
    with pytest.raises(UserError, match="three monolingual runs of the rarest one"):
        recommend([row._replace(token_efficiency=Quantity(math.nan)) for row in mix(6e5, 1.1, 0.05)])
    write_run(table1, "sw", ONE, [22.5, 40.0], sources=("en", "sw"), ratio=0.9)
    out = command(fit_scaling.main, table1, "--recommend")[1]
    assert "no law for small, sw" in out
    assert "\nBest for EN2: 10% of it (90-10), TEff 2.08 [" in out
    assert "Best for EN2" in (table1 / "table.md").read_text()


# --- the figure -----------------------------------------------------------------------------------


def test_intervals_are_drawn_and_one_without_end_squeezes_nothing(table1, tmp_path, monkeypatch):
    fitted, drawn = fit([table1]), []
    rows = [row._replace(token_efficiency=Quantity(1.5, 1.0, math.inf)) for row in fitted.rows]
    rows[-1] = rows[-1]._replace(mlte=Quantity(math.inf))
    monkeypatch.setattr(fit_scaling, "write_figure", lambda path, figure: drawn.append(figure))
    for own in (rows, [row for row in rows if row.monolingual]):
        fit_scaling.draw(fitted._replace(rows=own), tmp_path / "figure.png")
    left, right = drawn[0].axes
    assert len(left.lines) == 1
    assert [bar.get_width() for bar in right.patches] == [1.5] * 5 + [0]
    assert [text.get_text() for text in right.texts] == [""] * 5 + ["beyond the law"]
    (whiskers,) = right.collections
    begins, ends = np.array([segment[:, 0] for segment in whiskers.get_segments()[:5]]).T
    assert begins == pytest.approx(np.ones(5))
    assert (ends > right.get_xlim()[1]).all()
    assert right.get_xlim()[1] < 4
    assert not drawn[1].axes[1].patches
