"""What seeds say of sharing: a page and a picture of made-up runs."""

import math

import pytest
from made_up_runs import cells_of, write_law, write_run

from fit_scaling import Law
from paper import sharing

LAW = Law(0.01, 0.3, 0.5)


@pytest.fixture
def folder(tmp_path):
    """Two seeds: alone on a law, and mixes as good as twice and half as many tokens alone."""
    layers = [{"mean": 0.25}, {"mean": 0.75}]
    found = {"hidden": {"EN1-EN2": {"positions, centred": layers}}}
    found |= {"embeddings": {"EN1-EN2": {"input": {"retrieval@1": 0.9}}}}
    alone = [LAW.perplexity(tokens) for tokens in (9e5, 2e5, 2.5e5)]
    for seed in (0, 1):
        out, same = tmp_path / f"seed{seed}", {"seed": seed, "size": "pico"}
        write_law(out, LAW, (1e5, 2e5, 2.5e5, 4e5, 9e5, 2e6), **same)
        looked_at = same | {"facts": {"alignment": found}}
        write_run(out, "90-10", 1e6, alone[:2], ratio=0.9, **looked_at)
        write_run(out, "50-50", 1e6, [alone[2]] * 2, **looked_at)
        write_run(out, "90-10-2x", 2e6, [2.0, alone[1]], ratio=0.9, **same)
        write_run(out, "untied-learned-90-10", 1e6, alone[:2], ratio=0.9, tied=False, **looked_at)
        write_run(out, "untied-learned-50-50", 1e6, [alone[2]] * 2, tied=False, **looked_at)
        write_run(out, "of 190-100", 1e6, [alone[2]] * 2, ratio=0.4, **same)
    return tmp_path


def test_the_page_has_the_worth_and_what_is_inside_of_each_seed(folder, command):
    code, printed, error = command(sharing.main, folder)
    assert (code, error) == (0, "")
    assert (folder / "sharing.md").read_text() in printed
    rows, ppl = cells_of(printed), f"{LAW.perplexity(2e5):.2f}"
    worth = ["0 1", ppl, "2.00 2.00", "2.00 [2.00, 2.00]", "100k"]
    assert [*rows["90-10", "EN2"].values()][2:] == [*worth, "0.50 0.50", "90% 90%"]
    even = rows["50-50", "EN1"]
    assert (even["TEff [95%]"], even["head start"]) == ("0.50 [0.50, 0.50]", "-250k")
    beyond = [*rows["90-10-2x", "EN1"].values()][4:]  # beyond 2M tokens; align.py was not there
    assert beyond == [">1.11 >1.11", "-", "-", "- -", "- -"]
    assert rows["untied-learned-90-10", "EN2"]["TEff of each"] == "- -"  # no yardstick of its own


def test_each_seed_of_the_rarest_language_is_a_dot(folder, command, monkeypatch):
    written = {}
    monkeypatch.setattr(sharing, "write", lambda path, content: written.update({path.name: content}))
    command(sharing.main, folder)
    figure = written["sharing.png"]
    worth, _, hidden, _ = figure.axes
    rows = [label.get_text() for label in worth.get_yticklabels()]
    assert rows[:4] == ["90-10", "90-10-2x", "of 190-100", "50-50"]  # by TEff
    assert set(rows[4:]) == {"untied-learned-50-50", "untied-learned-90-10"}

    def dots(axes) -> dict[str, list[float]]:
        """By row."""
        found = {}
        for line in axes.lines:
            for x, y in line.get_xydata():
                if line.get_marker() == "o" and not math.isnan(x):
                    found.setdefault(rows[round(y)], []).append(x)
        return found

    assert dots(worth) == {
        "50-50": pytest.approx([0.5, 0.5]),
        "90-10": pytest.approx([2, 2]),
        "90-10-2x": pytest.approx([1, 1]),
        "of 190-100": pytest.approx([0.625, 0.625]),  # of the rarer, EN1
    }
    assert dots(hidden) == {row: [0.5, 0.5] for row in [rows[0], *rows[3:]]}
    figure.draw_without_rendering()
