"""The worth of a token: laws, yardsticks of each seed, intervals over seeds, table and figure."""

import math

import numpy as np
import pytest
from made_up_runs import cells_of, change, write_law, write_run

import fit_scaling
from fit_scaling import Law, Yardstick, fit_law, measure, table
from records import experiments, over, over_seeds, ratio_over_seeds, read_records

ONE = 18_265 * 128 * 512  # tokens of the paper's standard run
PAPERS = Law(0.03872, 0.2068, 0.08412)  # of its small, English
LENGTHS = [ONE * share for share in (0.05, 0.1, 0.2, 0.5, 1, 3)]


def found_in(*folders) -> dict[tuple[str, str], list[dict]]:
    """The groups of seeds below folders, by run and language."""
    groups = experiments(measure(read_records(list(folders))))
    return {(group[0]["run"], group[0]["language"]): group for group in groups}


@pytest.fixture
def table1(tmp_path):
    """Six monolingual runs on the paper's law, and rows 4, 5 and 9 of its Table 1."""
    folder = tmp_path / "table1"
    write_law(folder, PAPERS, LENGTHS)
    write_run(folder, "50-50", ONE, [26.1, 26.1])
    write_run(folder, "90-10", ONE, [22.5, 32.8], ratio=0.9)
    write_run(folder, "90to10", ONE, [26.5, 24.4], ratio=(0.9, 0.1))
    return folder


def test_students_interval_is_that_of_a_table():
    # Three values with mean 2 and standard deviation 1: 2 ± 4.303 / sqrt(3).
    assert over_seeds([1, 2, 3]) == pytest.approx((2, 2 - 2.4842, 2 + 2.4842), abs=1e-3)
    assert ratio_over_seeds([1, 4]).mean == 2
    assert over_seeds([5.0])[1:] == pytest.approx((math.nan, math.nan), nan_ok=True)


@pytest.mark.parametrize("seeds", [3, 5])
def test_nineteen_intervals_of_twenty_hold_the_truth(seeds):
    """Of TEff, with noise in the mix and in the yardstick of each seed."""
    random, held, trials = np.random.default_rng(0), 0, 1000
    tokens = np.array(LENGTHS)
    truth = PAPERS.tokens(32.8) / (0.1 * ONE)
    exact = np.array([PAPERS.perplexity(n) for n in tokens])
    bias = Yardstick(tokens, exact, None).needed(32.8)[0] / (0.1 * ONE) / truth  # lines are not the law
    for _ in range(trials):
        values = []
        for _ in range(seeds):
            alone = exact * np.exp(0.005 * random.standard_normal(len(tokens)))
            ppl = 32.8 * math.exp(0.02 * random.standard_normal())
            values.append(Yardstick(tokens, alone, None).needed(ppl)[0] / (0.1 * ONE) / bias)
        _, low, high = ratio_over_seeds(values)
        held += low < truth < high
    assert 0.93 < held / trials < 0.97


@pytest.mark.parametrize("law", [PAPERS, Law(0.045, 0.17, 0.12), Law(0.2, 0.05, 0.26)])
def test_a_known_law_is_found_again(law):
    found = fit_law(LENGTHS, [law.perplexity(n) for n in LENGTHS])
    assert found.b == pytest.approx(law.b, rel=1e-3)
    assert found.tokens(30.0) == pytest.approx(law.tokens(30.0), rel=1e-4)


def test_mlte_inverts_mlpe():
    assert PAPERS.tokens(PAPERS.perplexity(5e8)) == pytest.approx(5e8)
    assert math.isnan(PAPERS.tokens(1 / PAPERS.c))  # which it never reaches
    assert PAPERS.perplexity(1.0) == math.inf


@pytest.mark.parametrize("ppls", [  # the last are too few
    [20.0, 21, 22, 23, 24, 25], [14.0, 13.9, 13.8, 13.7, 9, 5], [7.0] * 6, [40.0, 30, 25],
])  # fmt: skip
def test_runs_that_follow_no_law_have_none(ppls):
    assert fit_law(LENGTHS[: len(ppls)], ppls) is None


def test_lines_go_from_run_to_run():
    yardstick = Yardstick(np.array([1e6, 4e6]), np.array([16.0, 4.0]), None)
    assert yardstick.perplexity(2e6) == pytest.approx(8)
    assert yardstick.needed(8.0) == (pytest.approx(2e6), "")
    assert yardstick.needed(3.9) == (pytest.approx(4e6), ">")
    assert yardstick.needed(16.1) == (pytest.approx(1e6), "<")
    assert math.isnan(yardstick.perplexity(8e6))
    rising = Yardstick(np.array([1e6, 2e6, 4e6]), np.array([8.0, 9.0, 4.0]), None)
    assert rising.needed(8.0)[0] == pytest.approx(1e6, rel=1e-3)  # more text never makes a model worse


def test_of_runs_on_as_many_tokens_the_best_counts(tmp_path):
    for batch, worse in ((128, 1.2), (64, 1.0)):
        write_law(tmp_path / str(batch), PAPERS._replace(a=PAPERS.a * worse), LENGTHS, batch=batch)
    write_run(tmp_path, "90-10", ONE, [22.5, 32.8], ratio=0.9)
    (rare,) = found_in(tmp_path)["90-10", "EN2"]
    assert rare["against"].perplexities == pytest.approx([PAPERS.perplexity(n) for n in LENGTHS])


def test_each_seed_is_held_against_its_own_runs(tmp_path):
    for seed, better in ((0, 1.0), (1, 0.8)):
        for tokens in LENGTHS:
            ppl = [better * PAPERS.perplexity(tokens)]
            write_run(tmp_path / str(seed), f"mono-{tokens:.0f}", tokens, ppl, sources=("en",), seed=seed)
        write_run(tmp_path / str(seed), "90-10", ONE, [22.5, 32.8], ratio=0.9, seed=seed)
    group = found_in(tmp_path)["90-10", "EN2"]
    assert [run["seed"] for run in group] == [0, 1]
    assert group[0]["teff"] == pytest.approx(PAPERS.tokens(32.8) / (0.1 * ONE), rel=0.03)
    assert group[1]["teff"] == pytest.approx(PAPERS.tokens(32.8 / 0.8) / (0.1 * ONE), rel=0.05)
    assert over(group, "teff") == pytest.approx(ratio_over_seeds([run["teff"] for run in group]))


@pytest.mark.parametrize(("setting", "value"), [("code", "fedcba"), ("precision", "fp32"), ("size", "mini")])
def test_runs_of_another_kind_are_no_yardstick_and_the_reason_is_told(tmp_path, capsys, setting, value):
    write_law(tmp_path, PAPERS, LENGTHS)
    write_run(tmp_path, "90-10", ONE, [22.5, 32.8], ratio=0.9, **{setting: value})
    (rare,) = found_in(tmp_path)["90-10", "EN2"]
    assert "teff" not in rare
    told = capsys.readouterr().out
    assert told.startswith("no TEff of 90-10: two lengths of en alone")
    assert f"has {setting} " in told
    assert f", not {value}" in told


def test_runs_of_other_code_are_a_yardstick_if_one_asks(tmp_path, command):
    write_law(tmp_path, PAPERS, LENGTHS)
    write_run(tmp_path, "90-10", ONE, [22.5, 32.8], ratio=0.9, code="fedcba")
    assert "no TEff of 90-10" in command(fit_scaling.main, tmp_path)[1]
    assert cells_of(command(fit_scaling.main, tmp_path, "--any-code")[1])["90-10", "EN2"]["by law"] == "2.07"


def test_what_cannot_be_used_is_told_and_left_out(table1, capsys):
    write_run(table1, "unevaluated", ONE, [None, None])
    write_run(table1, "diverged", ONE, [math.nan, 20.0])
    (write_run(table1, "foreign", ONE, [26.1, 26.1], ratio=0.8) / "config.json").unlink()
    (write_run(table1, "broken", ONE, [26.1, 26.1], ratio=0.7) / "result.json").write_text("{")
    (table1 / "other").mkdir()
    (table1 / "other" / "result.json").write_text('{"accuracy": 1}')
    write_run(table1, "twice", ONE, [20.0, 20.0], ratio=0.9, data="a/copy")
    assert len(read_records([table1])) == 6 + 3 * 2
    told = capsys.readouterr().out.replace(f"{table1}/", "")
    for name in ("unevaluated", "diverged", "foreign", "broken", "other"):
        assert f"left out: {name} is no evaluated run (" in told
    assert "left out: twice has the settings and the seed of 90-10" in told


@pytest.mark.parametrize(("file", "changes"), [
    ("result.json", {"languages": 7}), ("result.json", {"tokens": 0}), ("result.json", {"tokens": math.nan}),
    ("result.json", {"alignment": None}), ("result.json", {"glue": ["CoLA"]}), ("config.json", {"steps": 0}),
    ("config.json", {"seed": "first"}), ("config.json", {"anchors": None}), ("config.json", {"stages": "0"}),
])  # fmt: skip
def test_what_is_not_what_it_should_be_is_left_out_in_a_sentence(table1, capsys, file, changes):
    change(write_run(table1, "odd", ONE, [26.1, 26.1], ratio=0.6), file, **changes)
    assert len(read_records([table1])) == 6 + 3 * 2
    assert capsys.readouterr().out.startswith(f"left out: {table1}/odd is no evaluated run (")


def test_folders_within_one_another_count_their_runs_once(table1, capsys):
    write_run(table1, "more/50-50", ONE, [27.0, 27.0], ratio=0.6)
    names = {run for run, _ in found_in(table1, table1 / "more")}
    assert {"table1/50-50", "more/50-50"} < names  # of two experiments of one name
    assert "left out" not in capsys.readouterr().out


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda folder: None, "is not a folder"),
    (lambda folder: folder.mkdir(), "holds no evaluated run"),
    (lambda folder: write_run(folder, "a", ONE, [None], sources=("en",)), "holds no evaluated run"),
])  # fmt: skip
def test_folders_without_runs_are_refused(tmp_path, refused, make, sentence):
    make(tmp_path / "runs")
    assert sentence in refused(fit_scaling.main, tmp_path / "runs")


def test_run_folders_become_a_table_and_a_figure(table1, command):
    write_run(table1, "better-than-any", ONE, [11.0, 26.1], ratio=0.6)
    write_run(table1, "short", 5e8, [30.0, 70.0], ratio=0.95)
    write_run(table1, "unlearned", ONE, [22.0, 5e8], ratio=0.92)
    write_run(table1, "unread", ONE, [21.9, 1e4], ratio=(1.0, 1.0))
    code, out, error = command(fit_scaling.main, table1)
    assert (code, error) == (0, "")
    rows = cells_of(out)
    rare = rows["90-10", "EN2"]
    assert (rare["tokens"], rare["PPL"], rare["at most"], rare["by law"]) == ("120M", "32.80", "10.0", "2.07")
    assert float(rare["TEff [95%]"]) == pytest.approx(2.08, rel=0.03)
    assert rows["50-50", "EN1"]["by law"] == "0.89"
    assert rows["mono-en-5.985e+08", "EN1"]["TEff [95%]"] == "-"
    assert rows["short", "EN2"]["PPL alone"] == "-"  # 25M tokens: no monolingual run was as short
    assert rows["better-than-any", "EN1"]["TEff [95%]"] == ">5.00"  # beyond 3 times the tokens
    assert rows["unlearned", "EN2"]["TEff [95%]"] == "<0.62"
    assert rows["unread", "EN2"]["TEff [95%]"] == "-"
    assert (table1 / "table.md").read_text() in out
    assert (table1 / "figure.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_several_seeds_show_each_and_a_bound_where_one_is_beyond(tmp_path):
    for seed in (0, 1):
        write_law(tmp_path / str(seed), PAPERS, LENGTHS[:4], seed=seed)
        write_run(tmp_path / str(seed), "90-10", ONE, [21.0 + seed, 32.8 + seed], ratio=0.9, seed=seed)
    rows = cells_of(table(measure(read_records([tmp_path]))))
    assert rows["90-10", "EN2"]["seeds"] == "0 1"
    assert rows["90-10", "EN2"]["TEff of each"].count(".") == 2
    assert rows["90-10", "EN2"]["TEff [95%]"].endswith("]")
    assert rows["90-10", "EN1"]["TEff [95%]"].startswith(">")


def test_what_counting_reaches_stands_below_the_table(tmp_path):
    for tokens in LENGTHS[2:5]:
        ngrams = {"ngrams": {"1": 30.0, "2": 17.0 - tokens / ONE}}
        ppl = [float(PAPERS.perplexity(tokens))]
        write_run(tmp_path, f"mono-{tokens:.0f}", tokens, ppl, sources=("en",), facts=ngrams)
    repeated = {"ngrams": {"1": 30.0, "2": 12.0}, "passes": {"en": 2.0}}  # counted twice, so left out
    write_run(tmp_path, "longest", 2 * LENGTHS[4], ppl, sources=("en",), facts=repeated)
    out = table(measure(read_records([tmp_path])))
    assert "Counting n-grams of 1.2B tokens reaches a perplexity of 30.0 (n = 1), 16.0 (n = 2).\n" in out


def test_seeds_and_intervals_are_drawn(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(fit_scaling, "write", lambda path, figure: drawn.append(figure))
    for seed in (0, 1):
        write_law(tmp_path / str(seed), PAPERS, LENGTHS, seed=seed)
        name = "_lr$x_$"  # matplotlib would hide it, and read a formula
        write_run(tmp_path / str(seed), name, ONE, [22.5, 32.8 + seed], ratio=0.9, seed=seed)
    fit_scaling.draw(measure(read_records([tmp_path])), tmp_path / "figure.png")
    left, right = drawn[0].axes
    group = found_in(tmp_path)[name, "EN2"]
    dots = [line.get_xydata()[0] for line in right.lines if line.get_marker() == "o"]
    assert [x for x, y in dots if y == 1] == [run["teff"] for run in group]
    intervals = [list(line.get_xdata()) for line in right.lines if line.get_linestyle() == "-"]
    assert list(over(group, "teff")[1:]) in intervals
    assert right.get_yticklabels()[1].get_text() == r" _lr\$x_\$: EN2"
    assert len(left.get_legend().get_texts()) == 1  # a name for both seeds
