"""The law against known laws, what its intervals cover, and tables and figures of made-up runs."""

import json
import math
import re
from typing import NamedTuple

import numpy as np
import pytest
from conftest import tree
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_runs import write_law, write_run

import fit_scaling
from common import UserError, write
from fit_scaling import (
    RESAMPLES,
    Law,
    Lines,
    Measured,
    Quantity,
    compare_rows,
    fit,
    fit_law,
    fit_laws,
    of_the_best,
    quantity,
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
    found = fit_law(list(tokens), [law.perplexity(n) for n in tokens], "law")
    assert (found.fewest, found.most) == pytest.approx((1e8, 1e10))
    for n in (1e8, 5e8, 3e9, 1e10):
        assert found.perplexity(n) == pytest.approx(law.perplexity(n), rel=1e-5)
    assert found.b == pytest.approx(law.b, abs=0.01)


@pytest.mark.parametrize("yardstick", ["law", "paper"])
@pytest.mark.parametrize("law", [PAPERS, YOUNG])
def test_no_other_law_is_closer_to_noisy_runs(law, yardstick):
    """Closer in percent of the perplexity, or in 1 / PPL; against NumPy's least squares for each exponent."""
    tokens = np.geomspace(law.fewest, law.most, 7)
    y = np.exp(0.02 * np.random.default_rng(0).standard_normal(7)) / law.perplexity(tokens)
    scale = np.ones(7) if yardstick == "paper" else 1 / y

    def squares(b: float) -> float:
        columns = np.stack([np.ones(7), (tokens / ONE) ** -b], axis=1) * scale[:, None]
        return float(((columns @ np.linalg.lstsq(columns, y * scale, rcond=None)[0] - y * scale) ** 2).sum())

    found = fit_law(tokens, 1 / y, yardstick)
    ours = float((((1 / found.perplexity(tokens) - y) * scale) ** 2).sum())
    assert ours == pytest.approx(squares(found.b), rel=1e-6)
    assert ours <= min(squares(found.b + step) for step in np.linspace(-3, 3, 601)) * 1.000001
    if yardstick == "law":
        off = np.log(found.perplexity(tokens) * y)
        assert ours == pytest.approx((off**2).sum(), rel=0.02)


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


def test_lines_go_from_run_to_run():
    tokens, ppl = np.array([1e6, 5e5, 2e6, 4e6]), np.array([14.0, 15.0, 9.0, 6.0])
    lines = fit_law(tokens, ppl, "lines")
    assert lines.perplexity(tokens) == pytest.approx(ppl)
    assert lines.tokens(ppl) == pytest.approx(tokens)
    assert lines.perplexity(2**0.5 * 2e6) == pytest.approx(54**0.5)  # half way
    assert lines.perplexity(8e6) == pytest.approx(4)  # on from the last run
    several = Lines.through(tokens, np.log([ppl, [9.0, 15, 14, 6]]))  # of the second, 2M did no harm
    assert several.perplexity(2e6) == pytest.approx([9, 9])
    assert several.tokens(np.array([6.0, 6.0])) == pytest.approx([4e6, 4e6])


def test_runs_on_as_many_tokens_count_once():
    runs = [Measured(tokens, {0: ppl}) for tokens, ppl in ((1e6, 9.0), (1e6, 9.0), (1.04e6, 8.0), (2e6, 7.0))]
    assert [run.tokens for run in fit_scaling.best_of_each_length(runs)] == [2e6, 1.04e6]


# --- how surely -----------------------------------------------------------------------------------


def run_on(
    law: Law, seen: float, worth: float, random, noise=0.0, misfit=0.0, seeds=1, error=0.0, common=0.0
):
    """A run on `seen` tokens that are worth others; off by noise, misfit, and what all have in common."""
    logs = noise * random.standard_normal(seeds) + misfit + common
    return Measured(seen, dict(enumerate(law.perplexity(worth) * np.exp(logs))), error)


def points_of(law: Law, count: int, random, misfit=0.0, **more) -> list[Measured]:
    """Monolingual runs; how far the formula is off at a number of tokens, is the same for all their seeds."""
    tokens = np.geomspace(law.fewest, law.most, count)
    return [run_on(law, n, n, random, misfit=misfit * random.standard_normal(), **more) for n in tokens]


def efficiencies(points: list[Measured], *rows: Measured, seed=0, yardstick="law") -> list[np.ndarray]:
    """TEff of rows, as it was found and as it might have been."""
    law = fit_law([point.tokens for point in points], [point.ppl for point in points], yardstick)
    laws, perplexities, _ = resample(law, points, [*points, *rows], seed=seed)
    needed = [laws.tokens(drawn) for drawn in perplexities[len(points) :]]
    return [tokens / row.tokens for tokens, row in zip(needed, rows, strict=True)]


def efficiency(points: list[Measured], row: Measured) -> Quantity:
    """TEff of a row."""
    return quantity(efficiencies(points, row)[0])


def width(interval: Quantity) -> float:
    """How far an interval reaches, as a ratio."""
    return interval.high / interval.low


@pytest.mark.parametrize(("law", "count", "seeds", "misfit", "noise"), [
    (YOUNG, 4, 3, 0.02, 0.002),
    (YOUNG, 5, 3, 0.02, 0.005),
    (PAPERS, 7, 3, 0.01, 0.005),
    (YOUNG, 7, 3, 0.0, 0.02),
    (YOUNG, 7, 1, 0.005, 0.02),
])  # fmt: skip
def test_95_of_100_intervals_cover_the_truth(law, count, seeds, misfit, noise, monkeypatch):
    """Of TEff, of the gain per foreign token, and of the difference of two TEff, in 200 experiments."""
    monkeypatch.setattr(fit_scaling, "RESAMPLES", 300)
    random, held, trials = np.random.default_rng(1), np.zeros(3), 200
    for number in range(trials):
        more = {"noise": noise, "seeds": seeds, "error": 0.02, "common": 0.02 * random.standard_normal()}
        points = points_of(law, count, random, misfit, **more)
        shares = {0.1: 0.2, 0.5: 0.65}  # of the longest monolingual run: seen, and worth
        rare, even = (run_on(law, law.most * s, law.most * w, random, **more) for s, w in shares.items())
        one, other = efficiencies(points, rare, even, seed=number)
        with np.errstate(invalid="ignore"):  # inf - inf
            cases = ((2, one), (1 / 9, (one - 1) / 9), (0.7, one - other))
        for place, (truth, drawn) in enumerate(cases):
            found = quantity(drawn)
            held[place] += found.low <= truth <= found.high
            assert found.low <= found.value <= found.high
    assert (0.9 * trials <= held).all(), held
    assert (held <= 0.99 * trials).all(), held


class Late(NamedTuple):
    """Models that learn little for a while, then fast, then little: no power law."""

    middle: float
    width: float

    def perplexity(self, tokens):
        return 5 * 3 ** (1 / (1 + (tokens / self.middle) ** (1 / self.width)))


@pytest.mark.parametrize(
    ("law", "off", "kind"), [(PAPERS, 0.001, Law), (PAPERS, 0.2, Lines), (YOUNG, 0.001, Lines)]
)
def test_lines_are_the_yardstick_unless_a_law_surely_fits(tmp_path, law, off, kind):
    """Where b is not surely positive: far off the law, or where perplexity falls ever faster."""
    for tokens, sign in zip(np.geomspace(law.fewest, law.most, 6), (1, -1, 1, 1, -1, 1), strict=True):
        write_run(
            tmp_path, f"{tokens:g}", tokens, [law.perplexity(tokens) * math.exp(sign * off)], sources=("en",)
        )
    assert [type(found) for found in fit([tmp_path]).laws.values()] == [kind]
    assert [type(found) for found in fit([tmp_path], yardstick="law").laws.values()] == [Law]


@pytest.mark.parametrize(("seeds", "noise_alone"), [(1, 0.01), (3, 0.01), (3, 0.003)])
def test_intervals_of_lines_cover_the_truth(seeds, noise_alone, monkeypatch):
    monkeypatch.setattr(fit_scaling, "RESAMPLES", 300)
    random, held, trials = np.random.default_rng(2), np.zeros(4), 200
    for number in range(trials):
        curve = Late(random.uniform(1e6, 2e6), random.uniform(0.3, 0.6))
        more = {"seeds": seeds, "error": 0.02, "common": 0.02 * random.standard_normal()}
        lengths = np.array([0.5, 1, 1.5, 2, 2.5, 5]) * 1e6
        points = [run_on(curve, n, n, random, noise=noise_alone, **more) for n in lengths]
        cases = {
            (5e5, 1.4e6): (0.05, 2),
            (5e5, 7e5): (0.05, 2),
            (2.5e6, 2.2e6): (0.01, 1),
            (2.5e6, 3.5e6): (0.01, 1),
        }
        rows = [
            run_on(curve, *tokens, random, noise=noise, **more)._replace(kind=kind)
            for tokens, (noise, kind) in cases.items()
        ]
        drawn = efficiencies(points, *rows, seed=number, yardstick="lines")
        for place, ((seen, worth), one) in enumerate(zip(cases, drawn, strict=True)):
            found = quantity(one)
            held[place] += found.low <= worth / seen <= found.high
    assert (0.9 * trials <= held).all(), held


def test_an_interval_does_not_depend_on_what_else_is_in_the_table():
    points = points_of(YOUNG, 7, np.random.default_rng(7), noise=0.05)
    law = fit_law([point.tokens for point in points], [point.ppl for point in points], "law")
    row, other = Measured(6e5, {0: 60.0}, 0.02), Measured(6e5, {0: 61.0}, 0.02)
    laws, alone, _ = resample(law, points, [row])
    same_laws, among, same_documents = resample(law, points, [other, *points, row])
    assert np.array_equal(laws.b, same_laws.b, equal_nan=True)
    assert np.array_equal(alone[0], among[-1])
    drawn = np.log(same_documents)  # their spread is common to all, chance is each one's own
    assert abs(np.corrcoef(drawn[0], drawn[-1])[0, 1]) < 0.9


def test_intervals_shrink_with_noise_points_and_seeds():
    random = np.random.default_rng(5)
    row = Measured(6e5, {0: YOUNG.perplexity(1.2e6)})
    cases = ((7, 0.05), (7, 0.005), (30, 0.005))
    widths = [width(efficiency(points_of(YOUNG, count, random, noise=noise), row)) for count, noise in cases]
    assert widths == sorted(widths, reverse=True)
    assert widths[1] > 1.005
    exact = points_of(YOUNG, 16, random, noise=1e-4)
    assert width(efficiency(exact, row)) < 1.002
    apart = Measured(6e5, {s: YOUNG.perplexity(1.2e6) * (1 + 0.04 * (s - 1)) for s in range(3)})
    assert width(efficiency(exact, apart)) > 1.01  # seeds that lie apart are all the noise there is
    several = points_of(YOUNG, 16, random, noise=0.04, seeds=3)
    assert width(efficiency(several, apart)) - 1 < 0.8 * (width(efficiency(several, row)) - 1)


def test_what_is_off_in_all_seeds_alike_stays_off_in_their_mean():
    """Misfit of the law does not average out; noise does."""
    random, row = np.random.default_rng(3), Measured(6e5, {0: YOUNG.perplexity(1.2e6)})
    once = points_of(YOUNG, 6, random, misfit=0.02)
    often = [point._replace(perplexities=dict.fromkeys(range(9), point.ppl)) for point in once]
    laws = [resample(YOUNG, points, points)[0].perplexity(2e6) for points in (once, often)]
    assert width(quantity(laws[1])) == pytest.approx(width(quantity(laws[0])), rel=0.02)
    assert width(efficiency(often, row)) < width(efficiency(once, row))  # there is no noise in a row


def test_what_is_hard_for_all_runs_cancels_in_teff_but_not_in_mlpe():
    """A standard error over documents moves perplexities; TEff, a comparison on the same documents, stays."""
    points = points_of(YOUNG, 7, np.random.default_rng(1), noise=0.002)
    hard = [point._replace(error=0.1) for point in points]
    row = Measured(6e5, {0: YOUNG.perplexity(1.2e6)})
    plain, cancelled = efficiency(points, row), efficiency(hard, row._replace(error=0.1))
    assert width(cancelled) == pytest.approx(width(plain), rel=0.02)
    assert width(efficiency(points, row._replace(error=0.1))) > width(plain) + 0.3
    mlpe = [width(quantity(resample(YOUNG, own, [row])[0].perplexity(6e5))) for own in (points, hard)]
    assert mlpe[1] > mlpe[0] + 0.3


def test_three_points_tell_nothing_of_their_misfit():
    points = points_of(PAPERS, 3, np.random.default_rng(0), noise=0.01, seeds=2)
    row = Measured(6e8, {0: 22.0})
    assert math.isnan(efficiency(points, row).low)
    assert width(quantity(resample(PAPERS, points, [*points, row])[2][-1])) > 1.005  # of noise they do


def test_an_interval_holds_its_own_value_and_may_have_no_end():
    values = np.concatenate([np.linspace(1, 2, RESAMPLES - 100), np.full(100, np.inf)])
    assert quantity(np.append(1.5, values)) == (1.5, pytest.approx(1.026, abs=0.01), math.inf)
    assert quantity(np.append(0.9, values)).low == 0.9
    unknown = np.where(np.isinf(values), np.nan, values)  # laws that do not fall: any number is possible
    assert quantity(np.append(1.5, unknown)) == (1.5, -math.inf, math.inf)
    assert math.isnan(quantity(np.append(1.5, np.full(RESAMPLES, np.nan))).high)


@pytest.mark.parametrize(
    ("interval", "decimals", "text"),
    [
        ((2.371,), 2, "2.37"),
        ((2.371, 2.214, 2.553), 2, "2.37 [2.21, 2.55]"),
        ((2.371, 1.104, 4.812), 2, "2.4 [1.1, 4.8]"),
        ((2.371, 2.371, 2.371), 2, "2.37 [2.37, 2.37]"),
        ((2.371, 1.104, math.inf), 2, "2.4 [1.1, >9.0]"),
        ((2.371, -0.2, 60.59), 1, "2.4 [<0.0, >9.0]"),
        ((0.0712, -0.112, 0.253), 2, "0.07 [-0.11, 0.25]"),
        ((5.081, 4.343, 6.084), 2, "5.1 [4.3, 6.1]"),
        ((math.nan,), 2, "-"),
    ],
)
def test_no_more_digits_than_are_known(interval, decimals, text):
    least = -1 if -0.15 < interval[-1] < 1 else 0
    assert Quantity(*interval).text(decimals, least, 9) == text
    assert Quantity(396.1, 260.7, 632.5).text(1) == "400 [260, 630]"


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
    write_run(table1, "unlearned", ONE, [22.0, 5e8], ratio=0.92)
    code, out, error = command(fit_scaling.main, table1)
    assert (code, error) == (0, "")
    assert max(len(line) for line in out.splitlines() if line.startswith("|")) <= 130
    rows = {name: [cell.split(" [")[0] for cell in cells] for name, cells in cells_of(out).items()}
    #                                tokens   PPL     alone   TEff    at most gain    head start
    assert rows["90-10", "EN2"] == ["120M", "32.8", "46.0", "2.08", "10.0", "0.12", "129M"]
    assert rows["50-50", "EN1"] == ["599M", "26.1", "25.4", "0.89", "2.0", "-0.11", "-65.9M"]
    assert rows["mono-en-5.985e+08", "EN1"][:-1] == ["599M", "25.4", "25.4", "1.00", "-", "-"]
    assert rows["short", "EN2"][2] == "-"  # 25M tokens: no monolingual run was as short
    assert rows["better-than-any", "EN1"][-4:-1] == ["> 5.00", "1.7", "> 6.00"]  # beyond 3 times the tokens
    assert rows["unlearned", "EN2"][-4:-1] == ["< 0.62", "12.5", "< -0.03"]
    assert cells_of(out)["long", "EN1"][2] == "-"
    assert cells_of(out)["long", "EN1"][3].endswith("]*")
    assert "Law of small, en: 1/PPL = 0.08412 - 0.03872 * (tokens / 1.2e9)^-0.2068; b = 0.207 [" in out
    assert "Fitted on 5 monolingual runs that are the best of their length, 59.9M to 3.59B tokens.\n" in out
    assert (table1 / "table.md").read_text() in out
    assert (table1 / "figure.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert b"<svg" in (table1 / "figure.svg").read_bytes()
    (law,) = json.loads((table1 / "laws.json").read_text())["laws"]
    assert (law["size"], law["source"], law["length"]) == ("small", "en", 512)
    assert law["b"] == pytest.approx(PAPERS.b, abs=1e-5)
    assert law["b_95"] == pytest.approx([PAPERS.b] * 2, abs=1e-4)


def test_three_runs_give_a_law_without_intervals(tmp_path):
    write_law(tmp_path, PAPERS, [ONE * share for share in (0.1, 0.5, 1)])
    write_run(tmp_path, "90-10", ONE, [22.5, 32.8], ratio=0.9)
    out = table(fit([tmp_path]))
    assert cells_of(out)["90-10", "EN2"][-4:] == ["2.08", "10.0", "0.12", "129M"]
    assert "No intervals: they need a fourth run" in out


def test_shared_pieces_and_what_counting_reaches_stand_below_the_table(tmp_path):
    lengths = [ONE * share for share in (0.1, 0.5, 1)]
    for tokens in lengths:
        floors = {"ngrams": {"1": 30.0, "2": 17.0 - tokens / ONE}}
        write_run(
            tmp_path,
            f"mono-{tokens:g}",
            tokens,
            [float(PAPERS.perplexity(tokens))],
            sources=("en",),
            facts=floors,
        )
    write_run(tmp_path, "90-10", ONE, [22.5, 32.8], ratio=0.9, shared=[" "])
    write_run(tmp_path, "apart", ONE, [22.5, 40.8], ratio=0.9, shared=[])
    fitted = fit([tmp_path])
    assert fit_scaling.floors(fitted)["2"] == [(n, 17 - n / ONE) for n in lengths]
    out = table(fitted)
    assert "Languages share, beside padding: ' ' in 90-10; nothing in apart.\n" in out
    assert "Counting n-grams of 1.2B tokens reaches a perplexity of 30.0 (n = 1), 16.0 (n = 2).\n" in out
    assert cells_of(out)["90-10", "EN2"][-4] == "2.08"  # runs that share other pieces have one yardstick


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
    assert float(rows["90-10 (2 seeds)", "EN2"][1]) == pytest.approx(32.8 * 1.005, abs=0.06)


def test_two_rows_are_compared_on_the_same_law_and_documents(tmp_path):
    """Runs are alike, the law is not: intervals overlap, and yet the difference is known."""
    random = np.random.default_rng(4)
    for seed in range(3):
        for number, off in zip(np.geomspace(2e5, 6e6, 5), (0.03, -0.03, 0.03, -0.03, 0.03), strict=True):
            ppl = float(YOUNG.perplexity(number)) * math.exp(off + 0.002 * random.standard_normal())
            write_run(tmp_path, f"{number:g}-{seed}", number, [ppl], sources=("en",), seed=seed)
        for ratio, ppl in ((0.5, 50.0), (0.8, 48.0)):
            ppls = [ppl * math.exp(0.002 * random.standard_normal()) for _ in range(2)]
            write_run(tmp_path, f"mix{ratio}-{seed}", 3e6, ppls, ratio=ratio, seed=seed)
    rows = {(row.run, row.language): row for row in fit([tmp_path]).rows}
    even, rare = rows["mix0.5-0 (3 seeds)", "EN2"], rows["mix0.8-0 (3 seeds)", "EN2"]
    assert even.mlte.high > rare.mlte.low
    for measure in ("mlte", "token_efficiency", "gain"):
        assert compare_rows(rare, even, measure).low > 0
    assert compare_rows(rare, even, "ppl").excludes(0)
    assert not compare_rows(rows["mix0.5-0 (3 seeds)", "EN1"], even, "ppl").excludes(0)
    assert compare_rows(rare, even, "gain").value == pytest.approx(rare.gain.value - even.gain.value)


@pytest.fixture
def batches(tmp_path):
    """Monolingual runs of four lengths: batch 128, as many steps as the mix, and for two a better recipe."""
    for share in (1 / 16, 1 / 8, 1 / 4, 1 / 2):
        ppl = PAPERS.perplexity(ONE * share)
        for batch, worse in ((128, 1.2), (round(128 * share), 1.1), (7, 1.0))[: 3 if share < 0.2 else 2]:
            settings = {"sources": ("en",), "batch": batch, "learning_rate": 3e-4 if batch == 7 else 6e-4}
            write_run(tmp_path, f"{share}-{batch}", ONE * share, [ppl * worse], **settings)
    write_run(tmp_path, "90-10", ONE, [22.5, 32.8], ratio=0.9)
    return tmp_path


@pytest.mark.parametrize(("ladder", "worse", "words"), [
    ("recipe", [1.2] * 4, "of the same recipe"),
    ("steps", [1.1] * 4, "of as many steps"),
    ("best", [1.0, 1.0, 1.1, 1.1], "that are the best of their length"),
])  # fmt: skip
def test_a_ladder_is_the_yardstick(batches, command, monkeypatch, ladder, worse, words):
    drawn = []
    monkeypatch.setattr(fit_scaling.Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    code, out, _ = command(fit_scaling.main, batches, "--ladder", ladder, "--yardstick", "law")
    assert code == 0
    assert "no law" not in out
    assert out.count("Law of") == 1
    assert f"Fitted on 4 monolingual runs {words}" in out
    assert json.loads((batches / "laws.json").read_text())["ladder"] == ladder
    _, points = drawn[0].axes[0].lines
    tokens, ppl = points.get_xydata()[points.get_xdata().argsort()].T
    assert ppl == pytest.approx(PAPERS.perplexity(tokens) * worse)
    found = float(cells_of(out)["90-10", "EN2"][3].split()[0])
    assert found == pytest.approx(fit_law(tokens, ppl).tokens(32.8) / (0.1 * ONE), rel=0.03)


def test_the_paper_fits_1_over_ppl(table1, command):
    change(
        table1 / "mono-en-5.985e+08",
        languages=[{"name": "EN1", "source": "en", "tokens": ONE / 2, "ppl": 26}],
    )
    tokens = [ONE * share for share in (0.05, 0.1, 0.5, 1, 3)]
    ppl = [26 if number == ONE / 2 else PAPERS.perplexity(number) for number in tokens]
    for yardstick in ("law", "paper"):
        assert command(fit_scaling.main, table1, "--yardstick", yardstick)[0] == 0
        found = json.loads((table1 / "laws.json").read_text())
        assert found["yardstick"] == yardstick
        assert found["laws"][0]["b"] == pytest.approx(fit_law(tokens, ppl, yardstick).b)


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
        "the code changed between these runs, which have rows of their own: fedcba987654, 0123456789ab",
        "left out: twice has the settings and the seed of 90-10",
        "no law for mini, en from runs that are the best of their length: "
        "found 0 lengths of monolingual runs (train.py --ratio 1), expected three",
    ]
    known = [row.token_efficiency for row in rows if row.run != "mini"]
    assert str(known) == str([row.token_efficiency for row in before])
    assert [row.text("gain") for row in rows if row.run == "mini"] == ["-", "-"]


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


# --- the page: which mix serves the rarest language -------------------------------------------------

RARE = 2e8  # tokens of the rarest language in each mix
SAME = dict.fromkeys((50, 80, 90), 15.0)  # its perplexity in mixes, by percent of the others


@pytest.fixture
def mixes(tmp_path, monkeypatch):
    """Writes what runs/mylanguages.sh leaves behind: mixes, the same beside noise, and the language alone."""
    monkeypatch.setattr(fit_scaling, "RESAMPLES", 400)
    monkeypatch.setattr(fit_scaling.Figure, "savefig", lambda *_, **__: None)

    def make(
        mixed: dict, noise: dict, alone=20.0, longer=17.0, text=RARE, spread=0.004, seeds=3, size="small"
    ):
        write(tmp_path / "data" / "meta.json", {"languages": {"sw": {"train": {"tokens": text}}}})
        random = np.random.default_rng(5)
        more = {"data": str(tmp_path / "data"), "size": size}

        def run(name: str, times: float, ppls: list, **settings) -> None:
            moved = [ppl * math.exp(spread * random.standard_normal()) for ppl in ppls]
            path = write_run(folder, f"{size}-{name}", times * RARE, moved, **more | settings)
            languages = json.loads((path / "result.json").read_text())["languages"]
            for language in languages:
                language["bits_per_byte"] = math.log2(language["ppl"]) / 4  # four bytes a token
            change(path, languages=languages)

        for seed in range(seeds):
            folder, more["seed"] = tmp_path / f"seed{seed}", seed
            run("alone-1x", 1, [alone], sources=("sw",))
            run("alone-1x-batch-13", 1, [alone * 0.95], sources=("sw",), batch=13)
            for percent, ppl in mixed.items():
                share, times = percent / 100, 100 / (100 - percent)
                run(f"{percent}-{100 - percent}", times, [9, ppl], sources=("en", "sw"), ratio=share)
                run(f"noise-{percent}", times, [99, noise[percent]], sources=("noise", "sw"), ratio=share)
                run(f"alone-{times}x", times, [longer], sources=("sw",))
        return sorted(tmp_path.glob("seed*"))

    return make


def advice_of(folders) -> str:
    """The first line of a page."""
    rows = fit(folders, law_needed=False).rows
    return fit_scaling.page(rows, folders[0] / "page.png").splitlines()[2]


def test_mixes_that_are_alike_cannot_be_told_apart_and_the_cheapest_is_recommended(mixes):
    advice = advice_of(mixes(SAME, dict.fromkeys(SAME, 18.0)))
    assert advice.startswith("**small-50-50 (50%) is recommended** (lowest: small-")
    assert advice.count("cannot be told from the best") == 3
    assert "worse" not in advice


def test_the_best_mix_is_found_and_by_how_much_the_others_are_worse(mixes, command, monkeypatch):
    folders = mixes({50: 18.5, 80: 15.0, 90: 15.02}, {50: 18.9, 80: 18.0, 90: 17.5})
    monkeypatch.undo()  # this page is drawn
    code, out, error = command(fit_scaling.main, *folders, "--recommend")
    assert (code, error) == (0, "")
    text = (folders[0] / "page.md").read_text()
    assert text in out
    advice = text.splitlines()[2]
    assert advice.startswith("**small-80-20 (20%) is recommended** (lowest: small-")
    (by,) = re.findall(r"small-50-50 \(50%\) is worse by (\S+) ", advice)
    assert float(by) == pytest.approx(3.5, abs=0.2)
    assert "small-90-10 (10%) cannot be told from the best" in advice
    cells = next(cells for (name, _), cells in cells_of(text).items() if name == "small-80-20 (20%)")
    shown = [tuple(map(float, re.findall(r"[\d.]+", cell))) for cell in cells[:4]]
    assert [ppl for ppl, _ in shown] == pytest.approx(
        [19, 17, 18, 15], rel=0.01
    )  # the first cell is a name here
    assert [bits for _, bits in shown] == pytest.approx([math.log2(ppl) / 4 for ppl, _ in shown], abs=6e-4)
    assert [float(cell.split()[0]) for cell in cells[4:6]] == pytest.approx([3, 2], abs=0.2)
    assert cells[6].startswith("EN 9.0")
    assert (folders[0] / "page.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(("noise", "settings", "doubts"), [
    (15.0, {}, "noise - mix may be 0 or less"),  # steps of the optimiser do all of it
    (18.0, {"longer": 14.9}, "alone - mix may be 0 or less"),  # reading its own text again does
    (18.0, {"alone": 15.5}, "alone - mix may be 0 or less"),  # in smaller batches, 14.7
    (18.0, {"seeds": 1, "spread": 0.05}, "noise - mix and alone - mix may be 0 or less"),
])  # fmt: skip
def test_where_nothing_helps_beyond_the_controls_nothing_is_recommended(mixes, noise, settings, doubts):
    advice = advice_of(mixes(SAME, dict.fromkeys(SAME, noise), **settings))
    assert advice.startswith("**No mix is recommended**")
    assert doubts in advice


def test_more_text_alone_is_no_opponent(mixes):
    """Where the long runs read new text and do not repeat the old one, they say what it would be worth."""
    folders = mixes(SAME, dict.fromkeys(SAME, 18.0), longer=12.0, text=100 * RARE)
    assert "is recommended" in advice_of(folders)


def test_a_page_needs_no_law_and_no_seed_tells_nothing(mixes, command):
    folders = mixes(SAME, dict.fromkeys(SAME, 18.0), longer=25.0)  # too many passes: longer is worse
    assert "is recommended" in advice_of(folders)
    assert command(fit_scaling.main, *folders)[0] == 2
    assert "**No mix is recommended**" in advice_of(folders[:1])


def test_each_size_has_its_own_part_of_the_page(mixes):
    mixes(SAME, dict.fromkeys(SAME, 18.0), size="mini")
    folders = mixes(SAME, dict.fromkeys(SAME, 15.0))
    text = fit_scaling.page(fit(folders).rows, folders[0] / "page.png")
    parts = re.findall(r"## 200M tokens of SW, GPT (\w+), seeds: 3\n\n\*\*(No|mini-50-50)", text)
    assert sorted(parts) == [("mini", "mini-50-50"), ("small", "No")]


def test_a_page_of_monolingual_runs_is_refused(tmp_path, command):
    write_law(tmp_path, PAPERS, [ONE * share for share in (0.1, 0.5, 1)])
    code, _, error = command(fit_scaling.main, tmp_path, "--recommend")
    assert (code, "--recommend needs mixes of languages" in error) == (2, True)


def test_quiet_monolingual_runs_do_not_make_mixes_look_quiet(tmp_path):
    for seed, off in enumerate((-0.1, 0, 0.1)):
        for share in (0.05, 0.1, 0.2, 0.5, 1):
            ppl = PAPERS.perplexity(ONE * share)
            write_run(tmp_path, f"{share}-{seed}", ONE * share, [ppl], sources=("en",), seed=seed)
        write_run(tmp_path, f"mix-{seed}", ONE, [26 * math.exp(off)] * 2, seed=seed)
    widths = {row.run[:3]: width(row.ppl) for row in fit([tmp_path]).rows}
    assert widths["mix"] > 1.2
    assert max(wide for run, wide in widths.items() if run != "mix") < 1.001


@pytest.mark.parametrize("truth", [(15, 15, 15, 15), (15, 15.3, 16, 18), (15, 17, 19, 21), (20, 20)])
def test_the_interval_of_the_best_allows_for_having_picked_it(truth, monkeypatch):
    """In 200 experiments with three seeds: it covers the truth of what was picked, and is not too good."""
    monkeypatch.setattr(fit_scaling, "RESAMPLES", 300)
    random, held, too_good = np.random.default_rng(0), [], []
    for trial in range(200):
        ppls = np.array([*truth, *[20] * len(truth)])[:, None] * np.exp(
            0.03 * random.standard_normal((2 * len(truth), 3))
        )
        runs = [Measured(1e6 + i, dict(enumerate(own))) for i, own in enumerate(ppls)]
        drawn = np.array(resample(None, [], runs, seed=trial)[2])
        ppl, noise = np.split(drawn, 2)
        found, expected = of_the_best(ppl, noise - ppl), 20 - truth[ppl[:, 0].argmin()]
        held.append(found.low <= expected <= found.high)
        too_good.append([found.value - expected, (noise - ppl)[ppl[:, 0].argmin(), 0] - expected])
    assert 0.9 <= np.mean(held) <= 0.985
    corrected, raw = np.mean(too_good, axis=0)
    assert abs(corrected) < max(0.4 * raw, 0.06)


# --- the figure -----------------------------------------------------------------------------------


def test_intervals_are_drawn_and_one_without_end_squeezes_nothing(table1, tmp_path, monkeypatch):
    fitted, drawn = fit([table1]), []
    rows = [row._replace(token_efficiency=Quantity(1.5, 1.0, math.inf)) for row in fitted.rows]
    rows[-1] = rows[-1]._replace(mlte=Quantity(math.inf))
    monkeypatch.setattr(fit_scaling.Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    for own in (rows, [row for row in rows if row.monolingual]):
        fit_scaling.draw(fitted._replace(rows=own), tmp_path / "figure.png")
    left, right = drawn[0].axes
    assert len(left.lines) == 2  # the law and its points
    marks = [container.lines[0].get_xdata()[0] for container in right.containers]
    assert marks == [1.5] * 5
    assert [text.get_text() for text in right.texts] == ["> 6.00"]
    assert [
        line.get_xdata()[0]
        for line in right.lines
        if line.get_marker() == "|" and line.get_markersize() == 14
    ] == [1 / row.share for row in rows if not row.monolingual]
    whiskers = [container.lines[2][0].get_segments()[0][:, 0] for container in right.containers]
    begins, ends = np.array(whiskers).T
    assert begins == pytest.approx(np.ones(5))
    assert (ends > right.get_xlim()[1]).all()
    assert not drawn[-1].axes[1].containers


def test_noise_is_pooled_over_runs_of_a_kind_alone(tmp_path):
    """Ten clones, quiet from seed to seed, say nothing of how noisy a rare one of two is."""
    write_run(tmp_path, "alone", 1e6, [20], sources=("en",))
    write_run(tmp_path, "two", 1e6, [20, 30], ratio=0.9)
    write_run(tmp_path, "ten", 1e6, [20] * 10, sources=("en",) * 10, ratio=0.5)
    rows = fit([tmp_path], law_needed=False).rows
    assert {(row.run, row.language): row.found.kind for row in rows if row.position < 2} == {
        ("alone", "EN1"): 0, ("two", "EN1"): 1, ("two", "EN2"): 2, ("ten", "EN1"): 1, ("ten", "EN2"): 3,
    }  # fmt: skip
