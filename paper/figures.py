"""The paper's Figures 1 to 10 from one's own runs: filled marks, and the paper's own values, hollow ones.

    python -m paper.figures 1 out/table1 out/figure1 --out out/figure1     # figure1.png

Marks are means over seeds, their bars Student's t intervals of 95%. align.py draws Figures 11 to 14.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

import align
from common import Parser, UserError, count, run_script, write
from fit_scaling import Law, measure
from paper import values
from paper.compare import CLONES, ORDER, REAL, Rows, Setting, family, standard_size
from records import Interval, over, over_seeds, ratio_over_seeds, read_records

EVEN, MAIN = (50,), (90,)  # shares of L1
L1 = {"color": "C1", "marker": "o"}
L2 = {"color": "C3", "marker": "^"}  # told apart in grey, too
DISJOINT = {"color": "C0", "marker": "s", "linestyle": "--"}
LINES = {  # of the figures by tokens and size: share of L1, position and look
    "L1 at 50/50": (EVEN, 0, DISJOINT),
    "L2 at 50/50": (EVEN, 1, {"color": "C9", "marker": "D", "linestyle": "--"}),
    "L1 at 90/10": (MAIN, 0, L1),
    "L2 at 90/10": (MAIN, 1, L2),
}
ALONE = {"color": "0.5", "linestyle": ":"}
HOLLOW = {"linestyle": "none", "fillstyle": "none", "markersize": 11, "markeredgewidth": 1.5, "zorder": 1}
LABELS = {"ppl": "test perplexity", "mlte": "MLTE in tokens", "teff": "TEff", "glue": "accuracy on GLUE"}

Marks = dict[Setting, list[dict]]  # of one language: by setting, a record of each seed


def rows_of_the_paper() -> Rows:
    """What the paper prints, as rows of one seed."""
    rows = {}
    for row in values.TABLE_1 + values.FIGURE_2 + values.TABLE_3:
        setting = Setting(row.vocab, row.languages, row.shares, row.times, values.SIZE)
        for position, (ppl, teff) in enumerate(zip(row.ppl, row.token_efficiency, strict=True)):
            rows[setting, position] = [{"ppl": ppl, "teff": teff or math.nan}]
    return rows


PAPER = rows_of_the_paper()


def select(rows: Rows, position: int, **fixed) -> Marks:
    """A language's rows of two languages and one stage that have these fields in their setting."""
    found = {}
    for (setting, place), group in rows.items():
        plain = len(setting.languages) == 2 and len(setting.shares) == 1
        if plain and place == position and setting._replace(**fixed) == setting:
            found[setting] = group
    return found


def second_share(setting: Setting) -> float:
    """p(L2) in percent."""
    return 100 - setting.shares[0]


def mean_of(group: list[dict], what: str) -> Interval:
    """One of LABELS over seeds; nan where it is not known."""
    if what != "glue":
        return over(group, what)
    tasks = [run["result"].get("glue", {}).values() for run in group]
    language = group[0]["language"]
    scores = [np.mean([np.mean(task[language]) for task in of_run]) for of_run in tasks if of_run]
    return over_seeds(scores) if scores else Interval(math.nan)


def points(axes, marks: Marks, place: Callable, what: str, **style) -> None:
    """A line of marks with their intervals; a bar that is very long leaves the others room."""
    known = []
    for setting, group in marks.items():
        found = mean_of(group, what)
        if math.isfinite(found.mean):
            known.append((place(setting), *found))
    if known:
        places, means, low, high = np.array(sorted(known)).T
        high = np.minimum(high, 3 * means.max())
        bars = np.nan_to_num([means - low, high - means])
        bars = bars if bars.any() else None  # of one seed
        axes.errorbar(places, means, bars, capsize=3, elinewidth=1, **style)


def by_ratio(axes, rows: Rows, position: int, what: str, label: str, look: dict, **fixed) -> Marks:
    """A language at 1x by p(L2), and the paper's; UserError if it is of fewer than two ratios."""
    mine = select(rows, position, times=1, anchors=0, **fixed)
    if len(mine) < 2:
        raise UserError(f"{fixed['vocab']} runs of {fixed['size']} at two ratios or more")
    theirs = select(PAPER, position, times=1, vocab=fixed["vocab"])
    points(axes, mine, second_share, what, label=label, **look)
    points(axes, theirs, second_share, what, label=f"{label}, paper", **look | HOLLOW)
    return mine


def finish(axes, what: str, x_label: str) -> None:
    """Labels, scale, and ticks at 1, 2, 3 and 5 times the powers of ten; of many powers, at them alone."""
    scale = "log" if what in {"ppl", "mlte"} else "linear"
    axes.set(xlabel=x_label, ylabel=LABELS[what], yscale=scale)
    axes.spines[["top", "right"]].set_visible(False)
    if what == "teff":
        axes.axhline(1, color="0.5", linestyle=":", linewidth=1)
        axes.set_ylim(bottom=0)
    text = FuncFormatter(lambda value, _: count(value) if value >= 1000 else f"{value:.3g}")
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            low, high = axis.get_view_interval()
            between = LogLocator(subs=(2, 3, 5) if high < 1000 * low else ())
            axis.set(minor_locator=between, major_formatter=text, minor_formatter=text)


def figure_1(figure, records: list[dict], size: str) -> None:
    """Left: perplexity of two clones by the share of the second. Right: GLUE accuracy, if it was measured."""
    rows = family(records, CLONES)
    scored = any(run["result"].get("glue") for group in rows.values() for run in group)
    left, *right = figure.subplots(1, 1 + scored, squeeze=False)[0]
    for position, look in enumerate((L1, L2)):
        name = f"L{position + 1}"
        marks = by_ratio(left, rows, position, "ppl", name, look, vocab="cloned", size=size)
        alone = ALONE | {"color": look["color"], "label": f"{name} alone, as many tokens"}
        points(left, marks, second_share, "mlpe", **alone)
        for axes in right:
            points(axes, marks, second_share, "glue", label=name, **look)
    finish(left, "ppl", "p(L2) in %")
    for axes in right:
        shares = [100 - share for share in values.GLUE_EN2]
        axes.plot(shares, values.GLUE_EN2.values(), label="L2, paper", **L2 | HOLLOW)
        axes.axhspan(*values.GLUE_EN1, color="C1", alpha=0.25, label="L1, paper")
        finish(axes, "glue", "p(L2) in %")
        axes.set_title("fine-tuned in L1")
        axes.legend(frameon=False)


def figure_3(figure, records: list[dict], size: str) -> None:
    """Perplexity (above) and TEff (below) of two real languages by p(L2), disjoint and anchored."""
    rows = family(records, REAL)
    panels = figure.subplots(2, 2, sharex=True)
    for position, (above, below) in enumerate(panels.T):
        for axes, what in ((above, "ppl"), (below, "teff")):
            by_ratio(axes, rows, position, what, "disjoint", DISJOINT, vocab="disjoint", size=size)
            marks = by_ratio(axes, rows, position, what, "anchored", L1, vocab="anchored", size=size)
            if axes is above:
                points(above, marks, second_share, "mlpe", label="alone, as many tokens", **ALONE)
            finish(axes, what, "p(FR) in %")
        above.set_title(values.EN_FR[position].upper())


def scaling(figure, records: list[dict], size: str, vocab: str, measures: tuple[str, ...]) -> None:
    """Figures 2, 4, 9 and 10: 50/50 and 90/10 against tokens (left) and model size (right)."""
    rows = family(records, CLONES if vocab in CLONES else REAL)
    fixed = {"vocab": vocab, "anchors": 0}
    settings = [*select(rows, 0, shares=EVEN, **fixed), *select(rows, 0, shares=MAIN, **fixed)]
    times = sorted({setting.times for setting in settings if setting.size == size})
    sizes = sorted({ORDER.index(setting.size) for setting in settings if setting.times == 1})
    if len(times) < 2 and len(sizes) < 2:
        raise UserError(f"{vocab} runs at 50/50 and 90/10 for two numbers of tokens, or of two sizes")
    panels = figure.subplots(len(measures), 2, squeeze=False, sharey="row")
    for (left, right), what in zip(panels, measures, strict=True):
        for label, (shares, position, look) in LINES.items():
            fixed["shares"] = shares
            theirs = select(PAPER, position, **fixed)
            by_tokens = select(rows, position, size=size, **fixed)
            by_size = select(rows, position, times=1, **fixed)
            points(left, by_tokens, lambda setting: setting.times, what, label=label, **look)
            points(left, theirs, lambda setting: setting.times, what, **look | HOLLOW)
            points(right, by_size, lambda setting: ORDER.index(setting.size), what, **look)
        finish(left, what, f"tokens, in runs of 1x ({size})")
        finish(right, what, "model size at 1x")
        left.set_xticks(times)
        right.set_xticks(sizes, [ORDER[place] for place in sizes])
    panels[0, 0].plot([], [], label="hollow: paper, small", **{"color": "0.3", "marker": "o"} | HOLLOW)


def figure_5(figure, records: list[dict], size: str) -> None:
    """The yardsticks of every size and language, their runs as dots, and the paper's laws of small."""
    axes, colours = figure.subplots(subplot_kw={"xscale": "log"}), {}
    for run in {run["yardstick"]: run for run in records if "against" in run}.values():
        name = f"{run['config']['size']}, {run['source']} of {Path(run['config']['data']).name}"
        label = None if name in colours else name  # it has one from another seed
        colour = colours.setdefault(name, f"C{len(colours)}")
        axes.plot(run["against"].tokens, run["against"].perplexities, "o-", color=colour, label=label)
    if not colours:
        raise UserError("runs of one language, of two lengths")
    tokens = np.geomspace(0.05, 3, 100) * values.TOKENS
    for source, law in values.LAWS.items():
        theirs = Law(*law).perplexity(tokens)
        axes.plot(tokens, theirs, ":", color="0.5", label=f"paper: small, {source}")
    finish(axes, "ppl", "training tokens")


def clones_looked_at(records: list[dict], size: str) -> dict[str, dict]:
    """By p(L2), result.json of the first seed of clones that align.py has looked at, or UserError."""
    rows, found = family(records, CLONES), {}
    marks = select(rows, 0, vocab="cloned", times=1, size=size, anchors=0)
    for setting in sorted(marks, key=second_share):
        results = [run["result"] for run in marks[setting]]
        looked_at = [result for result in results if "embeddings" in result.get("alignment", {})]
        if looked_at:
            found[f"p(L2) = {second_share(setting):g}%"] = looked_at[0]
    if not found:
        raise UserError("runs of clones that align.py has looked at")
    return found


def figure_6(figure, records: list[dict], size: str) -> None:
    """Cosine of clones' embeddings, and of all pairs, by p(L2); word2vec as the control."""
    results, panels = clones_looked_at(records, size), figure.subplots(1, 2, sharey=True)
    shares, theirs = [100 - share for _, share in values.EMBEDDINGS], [*values.EMBEDDINGS.values()]
    panels[0].plot(shares, theirs, color="C0", marker="s", label="paper, counterparts", **HOLLOW)
    if align.pairs_of(results, "word2vec"):
        align.draw_embeddings(results, panels, "word2vec", "word2vec", "C1")
    align.draw_embeddings(results, panels)


def figure_7(figure, records: list[dict], size: str) -> None:
    """Cosine of clones' embeddings by the frequency of the token, a line for each ratio."""
    align.draw_frequency(clones_looked_at(records, size), figure.subplots(1, 2, sharey=True))


def figure_8(figure, records: list[dict], size: str) -> None:
    """Perplexity of two balanced clones by the share of the vocabulary that they have in common."""
    rows, axes = family(records, CLONES), figure.subplots()
    for position, look in enumerate((L1, L2)):
        marks = select(rows, position, vocab="cloned", times=1, size=size, shares=EVEN)
        if len(marks) < 2:
            raise UserError("balanced runs of clones with several --anchors")
        label = f"L{position + 1} at 50/50"
        points(axes, marks, lambda setting: 100 * setting.anchors, "ppl", label=label, **look)
    runs = [run for group in marks.values() for run in group if "against" in run]
    for share, label, line in ((0.5, "alone, on half the tokens", ":"), (1, "alone, on all of them", "--")):
        known = [run["against"].perplexity(share * run["total"]) for run in runs]
        if known and np.isfinite(known).all():
            axes.axhline(ratio_over_seeds(known).mean, color="0.4", linestyle=line, label=label)
    finish(axes, "ppl", "anchor points: % of the vocabulary that is shared")


FIGURES = {  # function and inches
    1: (figure_1, (10, 4.2)),
    2: (partial(scaling, vocab="cloned", measures=("ppl", "teff")), (10, 7)),
    3: (figure_3, (10, 7)),
    4: (partial(scaling, vocab="anchored", measures=("ppl", "teff")), (10, 7)),
    5: (figure_5, (7, 4.8)),
    6: (figure_6, (10, 4.2)),
    7: (figure_7, (10, 4.2)),
    8: (figure_8, (7, 4.2)),
    9: (partial(scaling, vocab="cloned", measures=("ppl", "mlte", "teff")), (10, 10)),
    10: (partial(scaling, vocab="anchored", measures=("ppl", "mlte", "teff")), (10, 10)),
}


def draw(number: int, records: list[dict]) -> Figure:
    """One of the figures."""
    function, inches = FIGURES[number]
    with matplotlib.rc_context({"font.size": 14, "legend.fontsize": 12}):  # to be read on half a slide
        figure = Figure(figsize=inches, layout="constrained")
        try:
            function(figure, records, standard_size(records))
        except UserError as missing:
            script = f"bash runs/figure{number}.sh"
            raise UserError(f"Figure {number} needs {missing}; {script} runs them") from None
        if number not in {6, 7}:  # those are align.py's own
            names = figure.axes[0].get_legend_handles_labels()
            figure.legend(*names, loc="outside upper center", ncols=inches[0] // 3, frameon=False)
    return figure


def main(arguments: list[str] | None = None) -> None:
    """Draw one figure from the runs below the given folders."""
    parser = Parser(__doc__)
    parser.add_argument("figure", type=int, choices=FIGURES, help="its number")
    parser.add_argument("folders", nargs="+", type=Path, metavar="out/FOLDER", help="hold evaluated runs")
    parser.add_argument("--out", type=Path, help="where figureN.png goes (the first folder)")
    args = parser.parse_args(arguments)
    path = (args.out or args.folders[0]) / f"figure{args.figure}.png"
    write(path, draw(args.figure, measure(read_records(args.folders))))
    print(f"figure: {path}")


if __name__ == "__main__":
    run_script(main)
