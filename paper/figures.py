"""The paper's Figures 1 to 8: filled marks are one's own runs, hollow marks are the paper's values.

    python -m paper.figures 1 out/table1 out/figure1 --out out/figure1     # figure1.png

Marks are means over seeds, bars Student's t intervals of 95%, dots single seeds. Figures 2 and 4 have MLTE
in their middle row, as the paper's Figures 9 and 10. align.py draws Figures 11 to 14.
"""

import math
import re
from functools import partial

import matplotlib
import numpy as np
from matplotlib.figure import Figure

import align
from common import Parser, UserError, dress, run_script, write
from fit_scaling import Law, draw_yardsticks, one_of_each_yardstick, read_command
from paper import values
from paper.compare import CLONES, ORDER, PAPER, REAL, Rows, rows_of, standard_size
from records import Records, first_pair, over

L1 = {"color": "C1", "marker": "o"}
L2 = {"color": "C3", "marker": "^"}  # another shape, to differ in grey, too
DISJOINT = {"color": "C0", "marker": "s", "linestyle": "--"}
LINES = {  # in figures by tokens and size: share of L1, position and look
    "L1 at 50/50": (50, 0, DISJOINT),
    "L2 at 50/50": (50, 1, {"color": "C9", "marker": "D", "linestyle": "--"}),
    "L1 at 90/10": (90, 0, L1),
    "L2 at 90/10": (90, 1, L2),
}
ALONE = {"color": "0.5", "linestyle": ":"}
HOLLOW = {"linestyle": "none", "fillstyle": "none", "markersize": 11, "markeredgewidth": 1.5}
LABELS = {"ppl": "test perplexity", "mlte": "MLTE in tokens", "teff": "TEff", "accuracy": "accuracy on GLUE"}

Places = dict[float, Records]  # where a mark stands on the x axis: a record of each seed


def by_number(rows: Rows, position: int, pattern: str) -> Places:
    """A language's rows whose setting fits a pattern, "cloned 50% at *x", by the number in place of the star.

    If that is the share of L1, as in "cloned *% at 1x", the rows are by the share of L2 instead.
    """
    expression = re.escape(pattern).replace(r"\*", r"([\d.]+)")
    found = {}
    for (setting, place), group in rows.items():
        match = re.fullmatch(expression, setting)
        if match and place == position:
            number = float(match[1])
            found[100 - number if "*%" in pattern else number] = group
    return found


def points(axes, places: Places, measure: str, **style) -> None:
    """A line of marks with their intervals, and a dot for each seed; a very long bar is cut."""
    marks = []
    for place, group in sorted(places.items()):
        found = over(group, measure)
        if math.isfinite(found.mean):
            marks.append((place, *found))
            seeds = [run[measure] for run in group if measure in run]
            if len(seeds) > 1:
                axes.plot([place] * len(seeds), seeds, ".", color=style["color"], alpha=0.5)
    if marks:
        x, means, low, high = np.transpose(marks)
        high = np.minimum(high, 3 * means.max())
        bars = np.nan_to_num([means - low, high - means])
        axes.errorbar(x, means, bars, capsize=3 * bars.any(), elinewidth=1, **style)


def both(axes, rows: Rows, position: int, pattern: str, measure: str, **look) -> Places:
    """Draw one's own marks and the paper's, for the settings that fit a pattern."""
    own = by_number(rows, position, pattern)
    theirs = by_number(PAPER, position, pattern)
    points(axes, own, measure, **look)
    points(axes, theirs, measure, **look | HOLLOW | {"label": None})
    return own


def finish(axes, measure: str, x_label: str) -> None:
    """Labels and scales."""
    if measure == "teff":
        axes.axhline(1, color="0.5", linestyle=":", linewidth=1)
        axes.set_ylim(bottom=0)
    scale = "log" if measure in {"ppl", "mlte"} else "linear"
    dress(axes, xlabel=x_label, ylabel=LABELS[measure], yscale=scale)


def add_accuracy(records: Records) -> bool:
    """Add the accuracy, averaged over fine-tuning runs of a task, then over tasks; whether there is any."""
    scored = [record for record in records if record.get("glue")]
    for record in scored:
        tasks = [np.mean(task[record["language"]]) for task in record["glue"].values()]
        record["accuracy"] = np.mean(tasks)
    return bool(scored)


def figure_1(figure, records: Records) -> Places:
    """Left: perplexity of two clones by the share of the second. Right: GLUE accuracy, if it was measured."""
    rows = rows_of(records, CLONES)
    scored = add_accuracy(records)
    panels = figure.subplots(1, 1 + scored, squeeze=False)[0]
    for position, look in enumerate((L1, L2)):
        label = f"L{position + 1}"
        own = both(panels[0], rows, position, "cloned *% at 1x", "ppl", label=label, **look)
        alone = look | {"marker": "", "linestyle": ":", "label": f"{label} alone, as many tokens"}
        points(panels[0], own, "mlpe", **alone)
        points(panels[-1], own, "accuracy", **look)
    finish(panels[0], "ppl", "p(L2) in %")
    if scored:
        shares = [100 - share for share in values.GLUE_EN2]
        panels[1].plot(shares, values.GLUE_EN2.values(), **L2 | HOLLOW)
        panels[1].axhspan(*values.GLUE_EN1, color="C1", alpha=0.25)
        panels[1].set_title("fine-tuned in L1; band: L1, paper")
        finish(panels[1], "accuracy", "p(L2) in %")
    return own


def figure_3(figure, records: Records) -> Places:
    """Perplexity (above) and TEff (below) of two real languages by p(L2), disjoint and anchored."""
    rows = rows_of(records, REAL)
    panels = figure.subplots(2, 2, sharex=True)
    for position, (above, below) in enumerate(panels.T):
        for vocab, look in (("disjoint", DISJOINT), ("anchored", L1)):
            own = both(above, rows, position, f"{vocab} *% at 1x", "ppl", label=vocab, **look)
            both(below, rows, position, f"{vocab} *% at 1x", "teff", **look)
        points(above, own, "mlpe", label="alone, as many tokens", **ALONE)
        above.set_title(("EN", "FR")[position])
        finish(above, "ppl", "p(FR) in %")
        finish(below, "teff", "p(FR) in %")
    return own


def scaling(figure, records: Records, vocab: str) -> set[float]:
    """Figures 2 and 4, with 9 and 10: 50/50 and 90/10 against tokens (left) and model size (right)."""
    size = standard_size(records)
    rows = rows_of(records, CLONES if vocab in CLONES else REAL)
    panels = figure.subplots(3, 2, sharey="row")
    times, sizes = set(), set()
    for (left, right), measure in zip(panels, ("ppl", "mlte", "teff"), strict=True):
        for label, (share, position, look) in LINES.items():
            by_tokens = both(left, rows, position, f"{vocab} {share}% at *x", measure, label=label, **look)
            by_size = {}
            for place, name in enumerate(ORDER):
                setting = f"{name} {vocab} {share}% at 1x".removeprefix(f"{size} ")
                if (setting, position) in rows:
                    by_size[place] = rows[setting, position]
            points(right, by_size, measure, **look)
            times |= by_tokens.keys()
            sizes |= by_size.keys()
        finish(left, measure, f"tokens, in runs of 1x ({size})")
        finish(right, measure, "model size at 1x")
        left.set_xticks(sorted(times))
        names = [ORDER[place] for place in sorted(sizes)]
        right.set_xticks(sorted(sizes), names)
    return times if len(times) > 1 else sizes


def figure_5(figure, records: Records) -> Records:
    """The yardsticks of every size and language, their runs as dots, and the paper's laws for GPT small."""
    axes = figure.subplots(subplot_kw={"xscale": "log"})
    draw_yardsticks(axes, records, [f"C{i}" for i in range(10)])
    tokens = np.geomspace(0.05, 3, 100) * values.TOKENS
    for source, law in values.LAWS.items():
        theirs = Law(*law).perplexity(tokens)
        axes.plot(tokens, theirs, ":", color="0.5", label=f"paper: small, {source}")
    finish(axes, "ppl", "training tokens")
    return 2 * one_of_each_yardstick(records)


def looked_at(records: Records, part: str, matrix: str) -> dict[float, dict]:
    """By p(L2) in %, what align.py found in a matrix of two clones, in the first seed that was measured."""
    found = {}
    rows = rows_of(records, CLONES)
    for share, group in by_number(rows, 0, "cloned *% at 1x").items():
        for run in group:
            matrices = first_pair(run, part)
            if matrix in matrices and matrices[matrix]["counterparts"]:
                found.setdefault(share, matrices[matrix])
    return dict(sorted(found.items()))


def cosines(axes, places, estimates: list[dict], **style) -> None:
    """A line of mean cosines with their intervals of 95%."""
    means = [found["mean"] for found in estimates]
    bars = [1.96 * (found["standard_error"] or 0) for found in estimates]
    axes.errorbar(places, means, bars, marker="o", markersize=5, elinewidth=1, **style)


def matrix_panels(figure, records: Records) -> dict:
    """A panel for each matrix of embeddings that align.py has looked at; a tied model has one."""
    matrices = [matrix for matrix in align.MATRICES if looked_at(records, "embeddings", matrix)] or ["input"]
    panels = figure.subplots(1, len(matrices), sharey=True, squeeze=False)[0]
    return dict(zip(matrices, panels, strict=True))


def figure_6(figure, records: Records) -> dict[float, dict]:
    """Cosine of clones' embeddings, and of all pairs, by p(L2); word2vec as the control."""
    panels = matrix_panels(figure, records)
    theirs = by_number(PAPER, 0, "cloned *% at 1x")
    printed = [group[0]["embeddings"] for group in theirs.values()]
    panels["input"].plot([*theirs], printed, marker="s", label="paper, counterparts", **HOLLOW)
    for matrix, axes in panels.items():
        for part, model, color in (("word2vec", "word2vec", "C1"), ("embeddings", "GPT", "C0")):
            found = looked_at(records, part, matrix)
            if found:
                counterparts = [entry["counterparts"] for entry in found.values()]
                all_pairs = [entry["all_pairs"] for entry in found.values()]
                cosines(axes, [*found], counterparts, color=color, label=f"{model}, counterparts")
                axes.plot([*found], all_pairs, "x:", color=color, label=f"{model}, all pairs")
        dress(axes, title=f"{matrix} embedding", xlabel="p(L2) in %", ylabel="cosine")
    return looked_at(records, "embeddings", "input")


def figure_7(figure, records: Records) -> dict[float, dict]:
    """Cosine of clones' embeddings by the frequency of the piece, a line for each ratio."""
    for matrix, axes in matrix_panels(figure, records).items():
        for share, found in looked_at(records, "embeddings", matrix).items():
            frequencies = [entry["frequency"] for entry in found["frequency"]]
            cosines(axes, frequencies, found["frequency"], label=f"p(L2) = {share:g}%")
        xlabel = "share of the text"
        dress(axes, title=f"{matrix} embedding", xlabel=xlabel, ylabel="cosine", xscale="log")
    return looked_at(records, "embeddings", "input")


def figure_8(figure, records: Records) -> Places:
    """Perplexity of two balanced clones by the share of the vocabulary that they have in common."""
    rows, axes = rows_of(records, CLONES), figure.subplots()
    for position, look in enumerate((L1, L2)):
        own = by_number(rows, position, "cloned 50% at 1x, * anchored")
        own[0] = rows.get(("cloned 50% at 1x", position), [])
        points(axes, own, "ppl", label=f"L{position + 1} at 50/50", **look)
    points(axes, own, "mlpe", label="alone, as many tokens", **ALONE)
    finish(axes, "ppl", "anchor points: share of the vocabulary")
    return own


clones = partial(scaling, vocab="cloned")
anchored = partial(scaling, vocab="anchored")
drawn = [figure_1, clones, figure_3, anchored, figure_5, figure_6, figure_7, figure_8]
FIGURES = dict(enumerate(drawn, start=1))


def draw(number: int, records: Records) -> Figure:
    """One of the figures."""
    with matplotlib.rc_context({"font.size": 14, "legend.fontsize": 12}):  # legible on half a slide
        figure = Figure(layout="constrained")
        found = FIGURES[number](figure, records)
        if len(found) < 2:
            script = "figure6.sh" if number == 7 else f"figure{number}.sh"
            raise UserError(f"too few runs for Figure {number}; bash runs/{script} trains them")
        rows, columns = figure.axes[0].get_gridspec().get_geometry()
        figure.set_size_inches(4 + 3 * columns, 1 + 3 * rows)
        names = figure.axes[0].get_legend_handles_labels()
        title = None if number >= 5 else "hollow: the paper's"
        place = {"loc": "outside upper center", "ncols": columns + 1, "frameon": False}
        figure.legend(*names, title=title, **place)
    return figure


def main(arguments: list[str] | None = None) -> None:
    """Draw one figure from the runs below the given folders."""
    parser = Parser(__doc__)
    parser.add_argument("figure", type=int, choices=FIGURES, help="number of the figure")
    records, out, args = read_command(parser, arguments)
    path = out / f"figure{args.figure}.png"
    write(path, draw(args.figure, records))
    print(f"figure: {path}")


if __name__ == "__main__":
    run_script(main)
