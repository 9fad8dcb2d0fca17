"""From result files to tables, figures, comparisons and recommendations."""

import json
import math

import pytest
from conftest import tree
from matplotlib.figure import Figure
from runs_of_the_paper import write_run

import fit_scaling
import paper
from results import Setting, fit

RUN = paper.TOKENS


def clones(*shares: float, times: float = 1, size: str = "small", **more) -> Setting:
    """Two cloned languages."""
    return Setting("cloned", ("en", "en"), shares, times, size, **more)


ALONE = Setting("monolingual", ("en",), (100,), 1, "small")


@pytest.fixture
def table1(tmp_path):
    """The first rows of Table 1 as run folders."""
    folder = tmp_path / "table1"
    for fraction, ppl in paper.POINTS["en"].items():
        write_run(folder, f"mono-{fraction:.1f}x", ALONE, RUN * fraction, [ppl])
    write_run(folder, "50-50", clones(50), RUN, [26.1, 26.1])
    write_run(folder, "90-10", clones(90), RUN, [22.5, 32.8])
    return folder


def cells_of(text: str) -> dict[tuple[str, str], list[str]]:
    """Cells of a printed table by its first two columns."""
    lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|"))
    return {(line[0], line[1]): line[2:] for line in lines}


def test_run_folders_become_a_table_and_a_figure(table1, command):
    write_run(table1, "schedule", clones(90, 10), RUN, [26.5, 24.4])
    write_run(table1, "unevaluated", clones(50), RUN, [None, None])
    result = json.loads((table1 / "unevaluated" / "result.json").read_text())
    for language in result["languages"]:
        del language["ppl"]
    (table1 / "unevaluated" / "result.json").write_text(json.dumps(result))
    write_run(table1, "better-than-any", clones(60), RUN, [12.0, 26.1])
    code, out, _ = command(fit_scaling.main, table1)
    assert code == 0
    rows = cells_of(out)
    assert rows["90-10", "EN2"][0] == "10%"
    assert rows["90-10", "EN2"][-1] == "2.14"
    assert rows["mono-0.5x", "EN1"][-1] == "1.00"
    assert rows["schedule", "EN2"][0] == "10→90%"
    assert rows["better-than-any", "EN1"][-2:] == ["beyond the law", "-"]
    assert "left out: " in out
    assert "No intervals for small, en: three runs lie on a law" in out
    assert "unevaluated" not in (table1 / "table.md").read_text()
    assert (table1 / "table.md").read_text() in out
    assert (table1 / "figure.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    (law,) = json.loads((table1 / "laws.json").read_text())["laws"]
    assert (law["size"], law["source"], law["b"]) == ("small", "en", pytest.approx(0.2449, abs=1e-3))


def test_what_lies_outside_the_fitted_range_is_marked(table1, command):
    write_run(table1, "longer", clones(90, times=3), 3 * RUN, [19.0, 22.3])
    rows = cells_of(command(fit_scaling.main, table1)[1])
    (law,) = fit([table1]).laws.values()
    assert rows["longer", "EN1"][-3:] == [f"{law.perplexity(2.7 * RUN):.1f}*", "3.2B*", "0.99*"]
    assert rows["longer", "EN2"][-3:] == [f"{law.perplexity(0.3 * RUN):.1f}", "1.09B", "3.04"]


def test_a_perplexity_that_the_law_does_not_have_is_infinite(table1, command):
    write_run(table1, "one-percent", clones(99), RUN, [22.0, 45.0])
    assert cells_of(command(fit_scaling.main, table1)[1])["one-percent", "EN2"][-3] == "∞*"


def test_names_of_points_do_not_lie_on_each_other(table1):
    write_run(table1, "schedule", clones(90, 10, 50, 50), RUN, [23.0, 30.0])
    rows = fit([table1]).rows
    rows += [row._replace(run=f"again-{number}") for row in rows for number in range(3) if not row.monolingual]
    axes = Figure(figsize=(11, 6), layout="constrained").subplots()
    colours = {row.run: "C0" for row in rows}
    fit_scaling.draw_perplexities(axes, rows, colours)
    fit_scaling.name_points(axes, rows, colours)
    axes.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(boxes) == 4 * 5
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_a_fourth_point_gives_intervals_and_seeds_are_one_row(table1, command):
    write_run(table1, "mono-0.25x", ALONE, RUN / 4, [32.0])
    _, out, _ = command(fit_scaling.main, table1)
    low, high = map(float, cells_of(out)["90-10", "EN2"][-1].split("[")[1].strip("]*").split(","))
    assert low < 2.1 < high
    assert "b between" in out
    other = table1.parent / "table1-seed1"
    for path in sorted(table1.iterdir()):
        result = json.loads((path / "result.json").read_text()) if path.is_dir() else None
        if result:
            for language in result["languages"]:
                language["ppl"] *= 1.01
            (other / path.name).mkdir(parents=True)
            (other / path.name / "result.json").write_text(json.dumps(result | {"seed": 1}))
    rows = cells_of(command(fit_scaling.main, table1, other)[1])
    assert float(rows["90-10 (2 seeds)", "EN2"][2]) == pytest.approx(32.8 * 1.005, abs=0.06)
    assert len(rows) == 8 + 2  # with head and ruler


def test_a_run_that_was_made_twice_counts_once(table1, command):
    write_run(table1, "mono-0.25x", ALONE, RUN / 4, [32.0])
    _, once, _ = command(fit_scaling.main, table1)
    write_run(table1.parent / "copy", "90-10-again", clones(90), RUN, [20.0, 20.0])
    original = json.loads((table1 / "90-10" / "result.json").read_text())
    (table1.parent / "copy" / "90-10-again" / "result.json").write_text(json.dumps(original))
    _, twice, _ = command(fit_scaling.main, table1, table1.parent / "copy")
    assert f"left out: {table1.parent / 'copy' / '90-10-again'} has the settings and the seed of {table1 / '90-10'}" in twice
    assert [row[1:] for row in cells_of(once).values()] == [row[1:] for row in cells_of(twice).values()]


def test_runs_of_another_size_do_not_share_the_law(table1, command):
    write_run(table1, "mini", clones(50, size="mini"), RUN, [30.0, 30.0])
    _, out, _ = command(fit_scaling.main, table1)
    assert [line.split("|")[-2].strip() for line in out.splitlines() if line.startswith("| mini")] == ["-", "-"]


def test_one_run_of_another_size_does_not_cost_the_table(table1, command):
    write_run(table1, "mini", ALONE._replace(size="mini"), RUN, [30.0])
    code, out, _ = command(fit_scaling.main, table1)
    assert code == 0
    assert "no law for mini on en: the law has three unknowns" in out
    assert "| 90-10" in out


def test_runs_of_one_name_in_two_folders_are_told_apart(table1, command):
    write_run(table1, "other/50-50", clones(60), RUN, [27.0, 27.0])
    _, out, _ = command(fit_scaling.main, table1)
    assert {line.split("|")[1].strip() for line in out.splitlines() if "50-50" in line} == {"50-50", "other/50-50"}


def test_a_perplexity_that_is_no_number_is_refused(table1, command):
    write_run(table1, "broken", ALONE, RUN, [math.nan])
    code, _, error = command(fit_scaling.main, table1)
    assert (code, "not finite" in error) == (2, True)


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda folder: None, "is not a folder"),
    (lambda folder: folder.mkdir(), "holds no evaluated run"),
    (lambda folder: write_run(folder, "a", clones(50), RUN, [26.1, 26.1]), "no monolingual run"),
    (lambda folder: write_run(folder, "a", ALONE, RUN, [21.9]), "found 1 monolingual sizes"),
    (lambda folder: (folder.mkdir(), (folder / "result.json").write_text("{")), "result.json cannot be read"),
])  # fmt: skip
def test_folders_without_enough_runs_are_refused(tmp_path, command, make, sentence):
    make(tmp_path / "runs")
    before = tree(tmp_path)
    code, _, error = command(fit_scaling.main, tmp_path / "runs")
    assert code == 2
    assert sentence in error
    assert tree(tmp_path) == before
