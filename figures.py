"""The paper's figures from one's own runs, the paper's own values as faint marks (fit_scaling.py --figure N).

Figures 6 and 7 show what `alignment.py` reads of align.py's results; Figures 11 to 14 are pictures of align.py's own.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

import paper
from alignment import FAINT, figure_6, figure_7
from common import UserError, count, write_figure
from evidence import ORDER, Family, Missing, family, standard_size
from results import Fitted, Quantity, Row

MEASURES: dict[str, tuple[str, Callable[[Row], Quantity], str]] = {
    "ppl": ("test perplexity", lambda row: row.ppl, "log"),
    "mlte": ("MLTE in tokens", lambda row: row.mlte, "log"),
    "teff": ("TEff", lambda row: row.token_efficiency, "linear"),
}
COLOURS = {(50, 0): "C0", (50, 1): "C9", (90, 0): "C1", (90, 1): "C3"}  # by share of L1 and language


def points(axes, rows: list[tuple[float, Row]], measure: str, style: dict) -> None:
    """One line of rows at given places, intervals as bars, or as arrows if without end; rows without a value are left out."""
    value = MEASURES[measure][1]
    known = [(x, value(row)) for x, row in sorted(rows, key=lambda pair: pair[0]) if math.isfinite(value(row).value)]
    if not known:
        return
    xs, values = zip(*known, strict=True)
    low, high = (
        [abs(v.value - bound) if math.isfinite(bound) else 0.0 for v, bound in ((v, v[i]) for v in values)] for i in (1, 2)
    )
    for x, v in zip(xs, values, strict=True):
        if math.isinf(v.high):
            arrow = {"arrowstyle": "->", "color": style["color"], "linewidth": 0.8}
            axes.annotate("", (x, 1), (x, v.value), ("data", "axes fraction"), "data", arrowprops=arrow)
    axes.errorbar(xs, [v.value for v in values], yerr=[low, high], capsize=2, elinewidth=0.8, marker="o", **style)


def finish(axes, measure: str, x_label: str) -> None:
    """Labels, scale, and for TEff the line at 1."""
    label, _, scale = MEASURES[measure]
    axes.set(xlabel=x_label, ylabel=label, yscale=scale)
    if measure == "teff":
        axes.axhline(1, color="0.5", linestyle=":", linewidth=1)
        row = axes.get_shared_y_axes().get_siblings(axes)  # what an interval without end reaches must not squeeze all others
        values = [y for other in row for line in other.lines if line.get_marker() in {"o", "s"} for y in line.get_ydata()]
        axes.set_ylim(0, min(axes.get_ylim()[1], 1.5 * max([1.0, *values])))
    if scale == "log":
        logarithmic(axes.yaxis, (lambda v, _: count(v)) if measure == "mlte" else "{x:g}")
    axes.spines[["top", "right"]].set_visible(False)


def logarithmic(axis, text: str | Callable[[float, int], str]) -> None:
    """Ticks at 1, 2, 3 and 5 times the powers of ten; all nine would write over each other."""
    axis.set_major_formatter(text)
    axis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    axis.set_minor_formatter(text)


def expected_curve(axes, rows: list[Row], style: dict) -> None:
    """MLPE by the share of L2: what a monolingual model reaches on as many tokens as the rows' language has of a run.

    Nothing is drawn where the law would be extrapolated, or without one.
    """
    most = max(rows, key=lambda row: row.seen)
    if most.law is None:
        return
    shares = np.linspace(min(map(share_of_second, rows)), max(map(share_of_second, rows)), 60)
    per_percent = most.seen / (share_of_second(most) if most.position else 100 - share_of_second(most))
    tokens = per_percent * (shares if most.position else 100 - shares)
    known = [most.law.covers(seen) for seen in tokens]
    if any(known):
        axes.plot(shares[known], most.law.perplexity(tokens[known]), **style)


# --- by ratio: Figures 1 and 3 --------------------------------------------------------------------------------------


def share_of_second(row: Row | paper.PaperRow) -> float:
    """p(L2) in percent, of a run of one stage and two languages."""
    return 100 - row.setting.shares[0]


def at_standard(own: Family, size: str, vocab: str) -> list[Row]:
    """Rows of one-stage runs of two languages at 1x.

    Raises:
        Missing: there are fewer than two ratios.
    """
    rows = [
        row for row in own.rows
        if row.setting.vocab == vocab and row.setting.size == size and row.setting.times == 1
        and len(row.setting.shares) == 1 and len(row.setting.languages) == 2 and not row.setting.anchors
    ]  # fmt: skip
    if len({row.setting.shares for row in rows}) < 2:
        raise Missing(f"{vocab} runs of {size} at two ratios or more")
    return rows


def figure_1(fitted: Fitted, size: str, figure) -> None:
    """Left: perplexity of two clones by the share of the second. Right: GLUE accuracy, if it was measured."""
    own = family(fitted.rows, "clones")
    rows = at_standard(own, size, "cloned")
    glue = {result["run"]: result.get("glue", {}).get("average_accuracy") for result in fitted.results}
    scored = [row for row in rows if glue.get(row.run)]
    panels = figure.subplots(1, 2 if scored else 1, squeeze=False)[0]
    left = panels[0]
    for position, colour in enumerate(("C1", "C3")):
        mine = [row for row in rows if row.position == position]
        points(left, [(share_of_second(row), row) for row in mine], "ppl", {"color": colour, "label": f"L{position + 1}"})
        curve = {"color": colour, "linestyle": "--", "linewidth": 1, "label": f"L{position + 1}, as many tokens alone (MLPE)"}
        expected_curve(left, mine, curve)
        theirs = [(share_of_second(row), row.ppl[position]) for row in paper.TABLE_1
                  if row.setting.languages == paper.CLONES and row.setting.times == 1 and len(row.ppl) == 2
                  and len(row.setting.shares) == 1]  # fmt: skip
        left.plot(*zip(*theirs, strict=True), color=colour, label=f"L{position + 1}, paper", **FAINT)
    finish(left, "ppl", "p(L2) in %")
    left.legend(frameon=False, fontsize=8)
    if scored:
        draw_glue(panels[1], scored, glue)


def draw_glue(axes, rows: list[Row], glue: dict[str, dict]) -> None:
    """Mean accuracy on GLUE, fine-tuned in L1, against the share of L2."""
    for position, colour in enumerate(("C1", "C3")):
        mine = sorted((share_of_second(row), glue[row.run][row.language]) for row in rows if row.position == position)
        axes.plot(*zip(*mine, strict=True), marker="o", color=colour, label="L1" if not position else "L2, zero-shot")
    axes.plot([100 - s for s in paper.GLUE_EN2], paper.GLUE_EN2.values(), color="C3", label="L2, paper", **FAINT)
    axes.axhspan(*paper.GLUE_EN1, color="C1", alpha=0.25, label="L1, paper")
    axes.set(xlabel="p(L2) in %", ylabel="mean accuracy on GLUE, fine-tuned in L1")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def figure_3(fitted: Fitted, size: str, figure) -> None:
    """Perplexity (above) and TEff (below) of two real languages by the share of the second, disjoint and anchored."""
    own = family(fitted.rows, "real languages")
    panels = figure.subplots(2, 2, sharex=True)
    drawn = []
    for vocab, style in (("disjoint", {"linestyle": "--"}), ("anchored", {"linestyle": "-"})):
        try:
            rows = at_standard(own, size, vocab)
        except Missing:
            continue
        drawn += rows
        for position in (0, 1):
            mine = [row for row in rows if row.position == position]
            theirs = [row for row in paper.TABLE_3 if row.setting.vocab == vocab and len(row.setting.shares) == 1
                      and row.setting.times == 1]  # fmt: skip
            for line, measure, values in ((0, "ppl", "ppl"), (1, "teff", "efficiency")):
                axes, colour = panels[line, position], "C0" if vocab == "disjoint" else "C1"
                points(axes, [(share_of_second(row), row) for row in mine], measure, {"color": colour, "label": vocab} | style)
                marks = [(share_of_second(row), getattr(row, values)[position]) for row in theirs]
                axes.plot(*zip(*marks, strict=True), color=colour, label=f"{vocab}, paper", **FAINT)
    if not drawn:
        raise Missing(f"runs of two real languages of {size} at two ratios or more")
    for position, axes in enumerate(panels[0]):
        alone = {"color": "0.5", "linestyle": ":", "linewidth": 1.2, "label": "as many tokens alone (MLPE)"}
        expected_curve(axes, [row for row in drawn if row.position == position], alone)
    for line, measure in enumerate(("ppl", "teff")):
        for axes, role in zip(panels[line], own.roles, strict=True):
            finish(axes, measure, f"p({own.roles[1].upper()}) in %")
            axes.set_title("" if line else role.upper())
    panels[0, 0].legend(frameon=False, fontsize=8)


# --- by tokens and by size: Figures 2, 4, 9 and 10 ------------------------------------------------------------------


def scaling(name: str, vocab: str, measures: tuple[str, ...], theirs: list[paper.PaperRow]):
    """A figure of 50/50 and 90/10 against training tokens (left) and against model size (right)."""

    def draw(fitted: Fitted, size: str, figure) -> None:
        rows = [row for row in family(fitted.rows, name).rows
                if row.setting.vocab == vocab and row.setting.shares in {(50,), (90,)} and len(row.setting.languages) == 2
                and not row.setting.anchors]  # fmt: skip
        longer = [row for row in rows if row.setting.size == size]
        sizes = sorted({row.setting.size for row in rows if row.setting.times == 1}, key=ORDER.index)
        if len({row.setting.times for row in longer}) < 2 and len(sizes) < 2:
            raise Missing(f"{vocab} runs at 50/50 and 90/10 for two numbers of tokens, or of two sizes")
        panels = figure.subplots(len(measures), 2, squeeze=False, sharey="row")
        for line, measure in enumerate(measures):
            left, right = panels[line]
            for (share, position), colour in COLOURS.items():
                style = {"color": colour, "label": f"L{position + 1} at {share}/{100 - share}"}
                own = [row for row in rows if row.setting.shares == (share,) and row.position == position]
                points(left, [(row.setting.times, row) for row in own if row.setting.size == size], measure, style)
                points(right, [(sizes.index(row.setting.size), row) for row in own if row.setting.times == 1], measure, style)
                marks = [(row.setting.times, values[position]) for row in theirs if row.setting.shares == (share,)
                         and (values := {"ppl": row.ppl, "teff": row.efficiency}.get(measure))
                         and row.setting.vocab == vocab and len(row.setting.languages) == 2]  # fmt: skip
                if marks:
                    left.plot(*zip(*marks, strict=True), color=colour, **FAINT)
            finish(left, measure, f"training tokens, in units of the standard run ({size})")
            finish(right, measure, "model size at 1x")
            left.set_xticks(sorted({row.setting.times for row in longer}))
            right.set_xticks(range(len(sizes)), sizes)
        panels[0, 0].plot([], [], color="0.3", label="paper, small", **FAINT)
        panels[0, 0].legend(frameon=False, fontsize=8)

    return draw


# --- the laws and the anchors: Figures 5 and 8 ----------------------------------------------------------------------


def figure_5(fitted: Fitted, size: str, figure) -> None:
    """The laws of every size and language, with the runs they were fitted on; the paper's law of small beside them."""
    axes = figure.subplots()
    for number, (key, law) in enumerate(fitted.laws.items()):
        curve = np.geomspace(law.fewest, law.most, 100)
        axes.plot(curve, law.perplexity(curve), color=f"C{number % 10}", label=f"{key[0]}, {key[-1]}")
        runs = [(point.tokens, ppl) for point in fitted.points[key] for ppl in point.perplexities.values()]
        axes.plot(*zip(*runs, strict=True), "o", color=f"C{number % 10}", markersize=5)
    for source, law in paper.LAWS.items():
        curve = np.geomspace(law.fewest, law.most, 100)
        axes.plot(curve, law.perplexity(curve), color="0.5", alpha=0.5, label=f"paper: small, {source}")
        axes.plot([x * paper.TOKENS for x in paper.POINTS[source]], paper.POINTS[source].values(), color="0.5", **FAINT)
    finish(axes, "ppl", "training tokens")
    axes.set_xscale("log")
    logarithmic(axes.xaxis, lambda x, _: count(x))
    axes.legend(frameon=False, fontsize=8)


def figure_8(fitted: Fitted, size: str, figure) -> None:
    """Perplexity of two balanced clones by the share of the vocabulary that they have in common."""
    own = family(fitted.rows, "clones")
    rows = [row for row in own.rows if row.setting.size == size and row.setting.times == 1 and row.setting.shares == (50,)
            and len(row.setting.languages) == 2 and row.setting.vocab == "cloned"]  # fmt: skip
    if len({row.setting.anchors for row in rows}) < 2:
        raise Missing("balanced runs of clones with several --anchors")
    axes = figure.subplots()
    for position, colour in enumerate(("C1", "C3")):
        mine = [(100 * row.setting.anchors, row) for row in rows if row.position == position]
        points(axes, mine, "ppl", {"color": colour, "label": f"L{position + 1} at 50/50"})
    axes.plot([0], [paper.TABLE_1[3].ppl[0]], color="0.3", label="paper, no anchors", **FAINT)
    finish(axes, "ppl", "anchor points: % of the vocabulary that is shared")
    axes.legend(frameon=False, fontsize=8)


CLONES, REAL = ("clones", "cloned"), ("real languages", "anchored")
FIGURES = {
    1: (figure_1, (10, 4.2)),
    2: (scaling(*CLONES, ("ppl", "teff"), paper.TABLE_1 + paper.FIGURE_2), (10, 7)),
    3: (figure_3, (10, 7)),
    4: (scaling(*REAL, ("ppl", "teff"), paper.TABLE_3), (10, 7)),
    5: (figure_5, (7, 4.8)),
    6: (figure_6, (10, 4.2)),
    7: (figure_7, (10, 4.2)),
    8: (figure_8, (7, 4.2)),
    9: (scaling(*CLONES, ("ppl", "mlte", "teff"), paper.TABLE_1 + paper.FIGURE_2), (10, 10)),
    10: (scaling(*REAL, ("ppl", "mlte", "teff"), paper.TABLE_3), (10, 10)),
}


def draw(number: int, fitted: Fitted, path: Path) -> None:
    """Draw one of the paper's figures into a PNG.

    Raises:
        UserError: a run that it needs is missing.
    """
    function, inches = FIGURES[number]
    figure = Figure(figsize=inches, layout="constrained")
    try:
        function(fitted, standard_size(fitted.rows), figure)
    except Missing as missing:
        raise UserError(f"Figure {number} needs {missing}; bash runs/figure{number}.sh runs them") from None
    write_figure(path, figure)
