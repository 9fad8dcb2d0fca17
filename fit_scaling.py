"""What the runs of a folder say together: the scaling law, MLTE, MLPE, token efficiency, tables and figures.

    python fit_scaling.py out/table1                     # law, table and figure
    python fit_scaling.py out/table1 out/table1-seed1    # two seeds: rows are their means, intervals cover the seeds
    python fit_scaling.py out/table1 --compare           # beside the paper's values, and which takeaways hold
    python fit_scaling.py out/table1 out/figure1 --figure 1      # a figure of the paper, its own values as faint marks

Monolingual runs give the law 1 / PPL = c - a * x^-b, with x = training tokens / 1.2 billion (appendix B of the paper, law.py).
Inverted, it says how many tokens a monolingual model needs for a perplexity (MLTE); read forwards, which perplexity it
reaches on so many tokens (MLPE). Token efficiency, TEff = MLTE / tokens of the language seen, is what one token was worth:
above 1, the other languages helped; below 1, they were in the way.
"""

import math
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

import figures
from common import Parser, count, markdown, run_script, write_atomic, write_figure, write_json
from compare import compare, efficiency_text, perplexity_text, with_interval
from recommend import recommend
from results import SHARED, Fitted, Row, fit

WHITE_EDGE = withStroke(linewidth=3, foreground="white")  # around letters that lie on a line


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table, readable as it is."""
    several = any(row.seeds > 1 for row in rows)
    head = ("run", "language", "share", "tokens", "PPL", "MLPE", "MLTE", "TEff")
    return markdown(head, [tuple(_cells(row, several)) for row in rows], 2)


def _cells(row: Row, several: bool) -> list[str]:
    run = f"{row.run} ({row.seeds} seed{'s' * (row.seeds > 1)})" if several else row.run
    known = [run, row.language, row.share, count(row.seen), perplexity_text(row.ppl.value)]
    if row.law is None or not row.seen:
        return [*known, "-", "-", "-"]
    expected = with_interval(row.mlpe, perplexity_text(row.mlpe.value), perplexity_text) + "*" * (not row.law.covers(row.seen))
    if row.beyond:
        return [*known, expected, "beyond the law", "-"]
    needed = with_interval(row.mlte, count(row.mlte.value), count) + "*" * row.extrapolated
    return [*known, expected, needed, efficiency_text(row)]


def describe(fitted: Fitted) -> str:
    """The fitted laws in words, and what the table's columns mean."""
    lines = []
    for key, law in fitted.laws.items():
        size, source, own = key[0], key[-1], fitted.intervals.get(key)
        exponent = f", b between {own['b'][0]:.3g} and {own['b'][1]:.3g}" if own else ""
        lines.append(
            f"Law of {size}, {source}: 1/PPL = {law.c:.4g} {'-+'[law.a < 0]} {abs(law.a):.4g} * (tokens / 1.2e9)^{-law.b:.4g}, "
            f"fitted on {len(fitted.points[key])} monolingual runs of {count(law.fewest)} to {count(law.most)} tokens{exponent}."
        )
        if not own:
            why = "the law has no perplexity for its shortest run, which is too short to count; remove it"
            if len(fitted.points[key]) < 4:
                why = "three runs lie on a law exactly; a fourth monolingual run gives them"
            lines.append(f"No intervals for {size}, {source}: {why}.")
    lines += [
        "MLPE: perplexity of a monolingual model on as many tokens of the language. MLTE: tokens it needs for this",
        "perplexity. TEff = MLTE / tokens: above 1, the other language helped. For monolingual rows, how far TEff is from 1",
        "tells how closely the law fits. * lies outside the fitted range: the law is extrapolated. Beyond the law: no number of",
        "tokens would do. [95%] covers how far single runs lie off the law, how well so few points determine it, seeds where",
        "there are several, and the choice of test documents; not what all runs share (text, recipe).",
    ]
    return "\n".join(lines) + "\n"


def parameters(fitted: Fitted) -> dict:
    """The laws as numbers, for `laws.json`."""
    laws = []
    for key, law in fitted.laws.items():
        points = [{"tokens": p.tokens, "ppl_by_seed": p.perplexities} for p in fitted.points[key]]
        settings = dict(zip((*SHARED, "source"), key, strict=True))
        laws.append(settings | law._asdict() | {"intervals_95": fitted.intervals.get(key), "points": points})
    return {"law": "1 / PPL = c - a * (tokens / 1.2e9)^-b", "laws": laws}


def draw(rows: list[Row], path: Path) -> None:
    """Left: perplexity against tokens of the language, the law as a line. Right: token efficiency."""
    mixed = [row for row in rows if not row.monolingual]
    height = max(4.2, 0.32 * len(mixed) + 1.2)
    figure = Figure(figsize=(11, height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    colours = {run: f"C{i % 10}" for i, run in enumerate(dict.fromkeys(row.run for row in mixed))}
    draw_perplexities(left, rows, colours)
    values = [row.token_efficiency.value if math.isfinite(row.token_efficiency.value) else math.nan for row in mixed]
    positions = range(len(mixed))
    bars = right.barh(positions, np.nan_to_num(values), color=[colours[row.run] for row in mixed])
    right.bar_label(
        bars, ["no value" if math.isnan(value) else f"{value:.2f}" for value in values], padding=3, path_effects=[WHITE_EDGE]
    )
    right.set_yticks(positions, [f"{row.run}: {row.language}" for row in mixed])
    right.axvline(1, color="0.4", linestyle=":")
    right.invert_yaxis()
    right.margins(x=0.15)
    right.set(xlabel="TEff: worth of one token, monolingual = 1", title="Token efficiency")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    name_points(left, rows, colours)
    write_figure(path, figure)


def draw_perplexities(axes, rows: list[Row], colours: dict[str, str]) -> None:
    """Perplexity against tokens seen, both logarithmic, and each law over its range."""
    for law in dict.fromkeys(row.law for row in rows if row.law):
        curve = np.geomspace(law.fewest, law.most, 100)
        axes.plot(curve, law.perplexity(curve), color="0.6", zorder=1)
    for row in rows:
        if drawable(row):
            axes.scatter(
                row.seen, row.ppl.value, color=colours.get(row.run, "black"), marker="o" if row.monolingual else "D", zorder=2
            )
    axes.plot([], [], color="0.6", marker="o", markerfacecolor="black", markeredgecolor="black", label="monolingual, and its law")
    axes.plot([], [], color="0.3", marker="D", linestyle="", label="one language of several")
    axes.legend(frameon=False)
    axes.set(xscale="log", yscale="log", xlabel="training tokens of the language", ylabel="test perplexity", title="Perplexity")
    axes.margins(x=0.12)
    figures.logarithmic(axes.yaxis, "{x:g}")
    figures.logarithmic(axes.xaxis, lambda x, _: count(x))


def drawable(row: Row) -> bool:
    """Whether a row has a place in the picture: a language that was never learned would squeeze all others together."""
    return row.seen > 0 and row.ppl.value < 1e6


def name_points(axes, rows: list[Row], colours: dict[str, str]) -> None:
    """Beside each point of several languages their names and share; a name that would lie on another one goes below it."""
    labels: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if not row.monolingual and drawable(row):
            labels[row.run, row.share, row.source].append(row)
    axes.figure.draw_without_rendering()  # places the axes, so that it is known where a name would lie
    taken: list[Bbox] = []
    for (run, share_, _), equals in sorted(labels.items(), key=lambda label: -label[1][0].ppl.value):
        between = ", " if len(equals) == 2 else " to "  # clones of one share lie on each other: one name for all
        names = between.join(dict.fromkeys((equals[0].language, equals[-1].language)))
        point, place = (equals[0].seen, equals[0].ppl.value), {"textcoords": "offset points", "xytext": (7, 0)}
        style = {"fontsize": 9, "va": "center", "color": colours[run], "path_effects": [WHITE_EDGE]}
        name = axes.annotate(f"{names} {share_}", point, **place, **style)
        box = own = name.get_window_extent()
        for other in sorted(taken, key=lambda other: -other.y1):
            if box.overlaps(other):
                box = box.translated(0, other.y0 - box.y1 - 1)
        taken.append(box)
        if box is not own:
            place["xytext"] = (7, (box.y0 - own.y0) * 72 / axes.figure.dpi)
            name.set_position(place["xytext"])
            axes.annotate("", point, **place, arrowprops={"arrowstyle": "-", "color": colours[run], "linewidth": 0.6})


def main(arguments: list[str] | None = None) -> None:
    """Fit, print and draw what the runs below the given folders say."""
    parser = Parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="out/FOLDER", help="folders that hold evaluated runs")
    parser.add_argument("--out", type=Path, help="where tables and figures go (default: the first folder)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--figure", type=int, choices=sorted(figures.FIGURES), help="draw this figure of the paper instead")
    what.add_argument("--compare", action="store_true", help="print tables and takeaways beside the paper's instead")
    what.add_argument("--recommend", action="store_true", help="say which mix serves the rarest language best instead")
    args = parser.parse_args(arguments)
    fitted = fit(args.folders)
    out = args.out or args.folders[0]
    if args.figure:
        path = out / f"figure{args.figure}.png"
        figures.draw(args.figure, fitted, path)
        return print(f"figure: {path}")
    if args.compare or args.recommend:
        text = compare(fitted) if args.compare else recommend(fitted.rows)
        out.mkdir(parents=True, exist_ok=True)
        path = out / ("compare.md" if args.compare else "recommendation.md")
        write_atomic(path, text)
        print(text)
        return print(f"written to {path}")
    text = table(fitted.rows) + "\n" + describe(fitted)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "table.md", text)
    write_json(out / "laws.json", parameters(fitted))
    draw(fitted.rows, out / "figure.png")
    print(text)
    print(f"table: {out / 'table.md'}\nfigure: {out / 'figure.png'}")


if __name__ == "__main__":
    run_script(main)
