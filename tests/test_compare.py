"""Tables, takeaways and figures beside the paper's: the paper's own tables, written as runs, must come out as they are."""

import json
import re

import numpy as np
import pytest
from conftest import tree
from runs_of_the_paper import write_laws, write_paper, write_row, write_run
from test_fit_scaling import cells_of

import figures
import fit_scaling
import paper
from results import Setting, fit


@pytest.fixture(scope="module")
def whole_paper(tmp_path_factory):
    """Every row of Tables 1 and 3 as a run. Read only."""
    folder = tmp_path_factory.mktemp("paper") / "all"
    write_paper(folder)
    return folder


def test_the_paper_compared_with_itself_agrees(whole_paper, tmp_path, command):
    code, out, _ = command(fit_scaling.main, whole_paper, "--compare", "--out", tmp_path)
    assert code == 0
    assert len(re.findall(r"\*\*holds", out)) == 7  # 5 more need alignment, larger models, or French at 90/10 for longer
    assert out.count("**not run**") == 5
    assert "does not hold" not in out
    compared = 0
    for (row, kind), (_, _, *cells) in ((key, cells) for key, cells in cells_of(out).items() if len(cells) == 6):
        if kind not in {"cloned", "cloned x10", "disjoint", "anchored"} or (row == "8" and kind == "cloned"):
            continue
        their_ppl, our_ppl, theirs, ours = cells
        assert our_ppl == their_ppl, row
        for one, other in zip(theirs.split(", "), ours.replace("], ", "]; ").split("; "), strict=True):
            assert float(other.split()[0].rstrip("*")) == pytest.approx(float(one), rel=0.025), (row, kind)
            compared += 1
    assert compared >= 46
    assert (tmp_path / "compare.md").read_text() in out


def test_a_run_that_is_missing_costs_its_row_only(tmp_path, command):
    write_laws(tmp_path / "runs", "en")
    write_row(tmp_path / "runs", "Table1", paper.TABLE_1[4])
    code, out, _ = command(fit_scaling.main, tmp_path / "runs", "--compare")
    assert code == 0
    assert "Not run: row 4, 6, 7, 8, 9, 10, 11, 12, 13; `bash runs/table1.sh` runs them." in out
    assert cells_of(out)["5", "cloned"][3] == "22.5, 32.8"
    assert "needs TEff of small, cloned, 50% at 1x" in out


def test_another_scale_is_matched_by_multiples_of_its_own_standard_run(tmp_path, command):
    for name in ("en", "fr"):
        write_laws(tmp_path / "runs", name, tokens=2e6)
    for row in (*paper.TABLE_1[3:], *paper.TABLE_3[6:]):
        write_row(tmp_path / "runs", "Table3" if "fr" in row.setting.languages else "Table1", row, tokens=2e6)
    rows = cells_of(command(fit_scaling.main, tmp_path / "runs", "--compare")[1])
    assert rows["11", "cloned"][3] == "22.8, 20.4"
    assert rows["13", "anchored"][3] == "39.5, 16.5"


def alignment(vocab: str, layers: list[float], embeddings: float, gradients: float) -> dict:
    """What align.py writes, as far as it is read here."""
    pair = "EN1-EN2" if vocab == "cloned" else "EN-FR"
    hidden = [{"layer": i, "mean": mean, "standard_error": 0.01} for i, mean in enumerate(layers, 1)]
    matrix = {
        "counterparts": {"mean": embeddings, "standard_error": 0.01},
        "all_pairs": 0.01,
        "frequency": [{"low": low, "high": 10 * low, "mean": embeddings, "standard_error": 0.01} for low in (1e-5, 1e-4)],
    }
    return {
        "hidden": {"pairs": {pair: {"positions" if vocab == "cloned" else "matching": hidden}}},
        "embeddings": {"pairs": {pair: {"input": matrix, "output": matrix}}},
        "gradients": {"pairs": {pair: {"blocks": {"mean": gradients}}}},
    }


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    """The paper's tables with the similarities of Tables 2 and 4, and runs for every figure. Read only."""
    folder = tmp_path_factory.mktemp("paper") / "aligned"
    write_paper(folder)
    for path in sorted(folder.glob("*/result.json")):
        result = json.loads(path.read_text())
        share = round(100 * result["stages"][0][0])
        layers = paper.HIDDEN_STATES.get((result["vocab"], share))
        if layers and len(result["languages"]) == 2 and len(result["stages"]) == 1:
            found = alignment(result["vocab"], layers, paper.EMBEDDINGS[share], paper.GRADIENTS[result["vocab"], share])
            path.write_text(json.dumps(result | {"alignment": found}))
    write_run(folder, "anchors", Setting("cloned", ("en", "en"), (50,), 1, "small", 0.2), paper.TOKENS, [24, 24])
    return folder


def test_similarities_stand_beside_the_paper_s_and_decide_takeaways(aligned, tmp_path, command):
    out = command(fit_scaling.main, aligned, "--compare", "--out", tmp_path)[1]
    assert len(re.findall(r"\*\*holds", out)) == 9
    rows = cells_of(out)
    assert rows["cloned", "90%"][:2] == ["0.85", "0.85"]
    assert rows["gradients", "disjoint 50%"] == ["0.04", "0.04"]
    assert rows["input embeddings", "cloned 90%"] == ["0.28", "0.28"]


@pytest.mark.parametrize("number", sorted(figures.FIGURES))
def test_every_figure_is_drawn(aligned, tmp_path, command, number):
    code, out, error = command(fit_scaling.main, aligned, "--figure", number, "--out", tmp_path)
    assert (code, error) == (0, "")
    assert out.endswith(f"figure: {tmp_path / f'figure{number}.png'}\n")
    assert (tmp_path / f"figure{number}.png").stat().st_size > 10_000


@pytest.mark.parametrize("number", sorted(set(figures.FIGURES) - {5}))
def test_a_figure_without_its_runs_says_which(tmp_path, command, number):
    write_laws(tmp_path / "runs", "en")
    before = tree(tmp_path)
    code, _, error = command(fit_scaling.main, tmp_path / "runs", "--figure", number)
    assert code == 2
    assert f"Figure {number} needs " in error
    assert f"bash runs/figure{number}.sh" in error
    assert tree(tmp_path) == before


def drawn(number: int, folder) -> list:
    """The axes of a figure."""
    import matplotlib.pyplot as plt

    figure = plt.figure()
    figures.FIGURES[number][0](fit([folder]), "small", figure)
    plt.close(figure)
    return figure.axes


def test_marks_of_the_paper_and_of_equal_runs_coincide(aligned):
    """Figure 2, left: runs that are the paper's own lie on its marks."""
    left = drawn(2, aligned)[0]
    ours = {container.get_label(): container.lines[0].get_xydata() for container in left.containers}
    theirs = [
        line.get_xydata().tolist() for line in left.lines if line.get_alpha() == figures.FAINT["alpha"] and len(line.get_xdata())
    ]
    assert ours["L2 at 90/10"].ravel() == pytest.approx([1, 32.8, 2, 23.9, 3, 22.3])
    assert np.array(theirs).ravel() == pytest.approx(np.array(list(ours.values())).ravel())


def test_figure_1_has_glue_if_it_was_measured(aligned, tmp_path):
    assert len(drawn(1, aligned)) == 1
    write_laws(tmp_path, "en")
    for row in paper.TABLE_1[3:5]:
        write_row(tmp_path, "Table1", row, glue={"average_accuracy": {"EN1": 0.7, "EN2": 0.6}, "tasks": {}})
    left, right = drawn(1, tmp_path)
    assert [line.get_ydata().tolist() for line in right.lines if line.get_label() == "L2, zero-shot"] == [[0.6, 0.6]]
    expected = next(line for line in left.lines if "MLPE" in line.get_label() and line.get_label().startswith("L2"))
    tenth, ppl = expected.get_xydata()[0]
    assert (tenth, ppl) == (pytest.approx(10), pytest.approx(paper.LAWS["en"].perplexity(0.1 * paper.TOKENS), rel=1e-3))
