"""The paper's Figures 1 to 10 from one's own runs: filled marks, and the paper's own values, hollow ones.

python -m paper.figures 1 out/table1 out/figure1 --out out/figure1  # figure1.png; align.py draws 11 to 14

One more, `pieces`, the paper does not have: what the tokeniser changes (runs/pieces.sh).
"""

import json
import math
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from scipy import stats

import align
from common import Parser, UserError, count, run_script, write
from fit_scaling import NEAR, Fitted, Law, Quantity, Row, fit, names_of, quantity
from model import SIZES
from paper import values
from paper.compare import CLONES, ORDER, REAL, Rows, family, standard_size

PAPER = {
    "linestyle": "none",
    "markerfacecolor": "none",
    "markeredgewidth": 1.5,
    "markersize": 11,
    "zorder": 1,
}
LANGUAGES = (
    {"color": "C1", "marker": "o"},
    {"color": "C3", "marker": "^"},
)  # L1 and L2, told apart in grey, too
EVEN, MAIN = (50,), (90,)  # shares of L1
MEASURES = {
    "ppl": "test perplexity",
    "mlte": "MLTE in tokens",
    "token_efficiency": "TEff",
    "glue": "mean accuracy on GLUE, fine-tuned in L1",
}


def measured(row: Row, measure: str) -> Quantity:
    """A number of MEASURES; GLUE as the mean over its tasks, nan where it was not measured."""
    if measure != "glue":
        return getattr(row, measure)
    tasks = row.result.get("glue", {}).values()
    return Quantity(np.mean([np.mean(task[row.language]) for task in tasks]) if tasks else math.nan)


# --- which rows, and how they are drawn -------------------------------------------------------------


def plain(own: Rows, vocab: str, **fixed) -> Rows:
    """Rows of two languages and one stage; `fixed` are other fields of their setting."""
    return {
        (setting, position): row
        for (setting, position), row in own.items()
        if setting.vocab == vocab and len(setting.languages) == 2 and len(setting.shares) == 1
        if setting._replace(**fixed) == setting
    }


def of_paper(vocab: str) -> list[values.PaperRow]:
    """The same of the paper."""
    rows = [row for table in values.TABLES.values() for row in table if row.vocab == vocab]
    return [row for row in rows if len(row.languages) == 2 and len(row.shares) == 1]


def at_ratios(own: Rows, size: str, vocab: str) -> Rows:
    """Plain rows at 1x, or UserError if they are of fewer than two ratios."""
    found = plain(own, vocab, times=1, size=size, anchors=0)
    if len({setting.shares for setting, _ in found}) < 2:
        raise UserError(f"{vocab} runs of {size} at two ratios or more")
    return found


def of_language(rows: Rows, position: int) -> list[tuple[float, Row]]:
    """Rows of a language, each after its p(L2) in percent."""
    return [(100 - setting.shares[0], row) for (setting, i), row in rows.items() if i == position]


def points(axes, rows: list[tuple[float, Row]], measure: str, **style) -> None:
    """One line of rows at given places, their intervals as bars; one without end leaves the others room."""
    known = [(x, measured(row, measure)) for x, row in sorted(rows, key=lambda pair: pair[0])]
    known = [(x, found) for x, found in known if math.isfinite(found.value)]
    if known:
        value, low, high = np.array([found for _, found in known]).T
        bars = np.nan_to_num([value - low, np.minimum(high, 3 * value.max()) - value])
        axes.errorbar([x for x, _ in known], value, bars, capsize=3, elinewidth=1, **style)


def finish(axes, measure: str, x_label: str) -> None:
    """Labels, scale, and ticks at 1, 2, 3 and 5 times the powers of ten; of many powers, at them alone."""
    axes.set(xlabel=x_label, ylabel=MEASURES[measure])
    axes.spines[["top", "right"]].set_visible(False)
    if measure in {"ppl", "mlte"}:
        axes.set_yscale("log")
    if measure == "token_efficiency":
        axes.axhline(1, color="0.5", linestyle=":", linewidth=1)
        axes.set_ylim(bottom=0)
    text = FuncFormatter(lambda value, _: count(value) if value >= 1000 else f"{value:.3g}")
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            low, high = axis.get_view_interval()
            between = LogLocator(subs=(2, 3, 5) if high < 1000 * low else ())
            axis.set(minor_locator=between, major_formatter=text, minor_formatter=text)


def legend_above(figure, columns: int = 3) -> None:
    """The first panel's legend, where lines leave no corner of it free."""
    names = figure.axes[0].get_legend_handles_labels()
    figure.legend(*names, loc="outside upper center", ncols=columns, frameon=False)


def by_ratio(axes, rows: Rows, vocab: str, measure: str, position: int, label: str, **style) -> None:
    """A language's rows against p(L2), and the paper's."""
    points(axes, of_language(rows, position), measure, label=label, **style)
    theirs = [
        (100 - row.shares[0], getattr(row, measure)[position]) for row in of_paper(vocab) if row.times == 1
    ]
    look = {key: style[key] for key in ("color", "marker")}
    axes.plot(*zip(*theirs, strict=True), label=f"{label}, paper", **look, **PAPER)


def expected_curve(axes, rows: Rows, position: int, **style) -> None:
    """MLPE by p(L2), of a monolingual model on as many tokens, as far as the law reaches."""
    mine = of_language(rows, position)
    row, curve = mine[0][1], np.linspace(*np.sort([share for share, _ in mine])[[0, -1]], 60)
    tokens = row.result["tokens"] * (curve if position else 100 - curve) / 100
    known = [row.law is not None and row.law.covers(number) for number in tokens]
    if any(known):
        axes.plot(curve[known], row.law.perplexity(tokens[known]), **style)


# --- the figures ------------------------------------------------------------------------------------


def figure_1(figure, fitted: Fitted, size: str) -> None:
    """Left: perplexity of two clones by the share of the second. Right: GLUE accuracy, if it was measured."""
    rows = at_ratios(family(fitted, CLONES), size, "cloned")
    scored = any(row.result.get("glue") for row in rows.values())
    left, *right = figure.subplots(1, 1 + scored, squeeze=False)[0]
    for position, look in enumerate(LANGUAGES):
        by_ratio(left, rows, "cloned", "ppl", position, f"L{position + 1}", **look)
        label = f"L{position + 1}, as many tokens alone (MLPE)"
        style = {"color": look["color"], "linestyle": "-:"[position], "linewidth": 1}
        expected_curve(left, rows, position, label=label, **style)
    finish(left, "ppl", "p(L2) in %")
    for axes in right:
        points(axes, of_language(rows, 0), "glue", label="L1", **LANGUAGES[0])
        points(axes, of_language(rows, 1), "glue", label="L2, zero-shot", **LANGUAGES[1])
        shares = [100 - share for share in values.GLUE_EN2]
        axes.plot(shares, values.GLUE_EN2.values(), label="L2, paper", **LANGUAGES[1], **PAPER)
        axes.axhspan(*values.GLUE_EN1, color="C1", alpha=0.25, label="L1, paper")
        finish(axes, "glue", "p(L2) in %")
        axes.legend(frameon=False)


def figure_3(figure, fitted: Fitted, size: str) -> None:
    """Perplexity (above) and TEff (below) of two real languages by p(L2), disjoint and anchored."""
    own, panels = family(fitted, REAL), figure.subplots(2, 2, sharex=True)
    styles = {"disjoint": {"color": "C0", "marker": "s", "linestyle": "--"}, "anchored": LANGUAGES[0]}
    for position, name in enumerate(values.EN_FR):
        for axes, measure in zip(panels[:, position], ("ppl", "token_efficiency"), strict=True):
            for vocab, style in styles.items():
                by_ratio(axes, at_ratios(own, size, vocab), vocab, measure, position, vocab, **style)
            finish(axes, measure, "p(FR) in %")
        rows = at_ratios(own, size, "anchored")
        label = "as many tokens alone (MLPE)"
        expected_curve(panels[0, position], rows, position, label=label, color="0.5", linestyle=":")
        panels[0, position].set_title(name.upper())
    legend_above(figure)


def scaling(figure, fitted: Fitted, size: str, name: str, vocab: str, measures: tuple[str, ...]) -> None:
    """Figures 2, 4, 9 and 10: 50/50 and 90/10 against tokens (left) and model size (right)."""
    own = plain(family(fitted, name), vocab, anchors=0)
    rows = [(setting, i, row) for (setting, i), row in own.items() if setting.shares in {EVEN, MAIN}]
    times = sorted({setting.times for setting, _, _ in rows if setting.size == size})
    sizes = sorted({setting.size for setting, _, _ in rows if setting.times == 1}, key=ORDER.index)
    if len(times) < 2 and len(sizes) < 2:
        raise UserError(f"{vocab} runs at 50/50 and 90/10 for two numbers of tokens, or of two sizes")
    lines = {(EVEN, 0): ("C0", "s"), (EVEN, 1): ("C9", "D"), (MAIN, 0): ("C1", "o"), (MAIN, 1): ("C3", "^")}
    panels = figure.subplots(len(measures), 2, squeeze=False, sharey="row")
    for (left, right), measure in zip(panels, measures, strict=True):
        for (shares, position), (colour, marker) in lines.items():
            look = {"color": colour, "marker": marker}
            style = look | {"label": f"L{position + 1} at {shares[0]}/{100 - shares[0]}"}
            style["linestyle"] = "--" if shares == EVEN else "-"
            mine = [(setting, row) for setting, i, row in rows if (setting.shares, i) == (shares, position)]
            points(left, [(s.times, row) for s, row in mine if s.size == size], measure, **style)
            points(right, [(sizes.index(s.size), row) for s, row in mine if s.times == 1], measure, **style)
            if measure != "mlte":  # which the paper does not print
                theirs = [row for row in of_paper(vocab) if row.shares == shares]
                marks = [(row.times, getattr(row, measure)[position]) for row in theirs]
                left.plot(*zip(*marks, strict=True), **look, **PAPER)
        finish(left, measure, f"tokens, in runs of 1x ({size})")
        finish(right, measure, "model size at 1x")
        left.set_xticks(times)
        right.set_xticks(range(len(sizes)), sizes)
    panels[0, 0].plot([], [], color="0.3", marker="o", label="hollow: paper, small", **PAPER)
    legend_above(figure)


def figure_5(figure, fitted: Fitted, size: str) -> None:
    """The laws of every size and language with the runs they rest on, and the paper's laws of small."""
    axes = figure.subplots()
    texts = {row.result["fingerprint"]: Path(row.result["data"]).name for row in fitted.rows}
    for i, (key, name) in enumerate(names_of(fitted.laws).items()):
        fingerprint = json.loads(key.recipe)["fingerprint"]
        label = name.replace(f"fingerprint {fingerprint}", texts[fingerprint])
        colour, law, runs = f"C{i}", fitted.laws[key], fitted.points[key]
        curve = np.geomspace(law.fewest, law.most, 100)
        axes.plot(curve, law.perplexity(curve), color=colour, label=label)
        axes.plot([run.tokens for run in runs], [run.ppl for run in runs], "o", color=colour, markersize=5)
    curve = np.geomspace(0.05, 3, 100) * values.TOKENS
    for source, law in values.LAWS.items():
        theirs = Law(*law, *curve[[0, -1]]).perplexity(curve)
        axes.plot(curve, theirs, color="0.5", linestyle=":", label=f"paper: small, {source}")
        tokens = [fraction * values.TOKENS for fraction in values.POINTS[source]]
        axes.plot(tokens, values.POINTS[source].values(), color="0.5", marker="s", **PAPER)
    axes.set_xscale("log")
    finish(axes, "ppl", "training tokens")
    legend_above(figure)


def clones_looked_at(fitted: Fitted, size: str) -> dict[str, dict]:
    """result.json of the clones that align.py has looked at, by p(L2), or UserError."""
    rows = plain(family(fitted, CLONES), "cloned", times=1, size=size, anchors=0)
    found = [(share, row.result) for share, row in sorted(of_language(rows, 0))]
    found = [(share, result) for share, result in found if "embeddings" in result.get("alignment", {})]
    if not found:
        raise UserError("runs of clones that align.py has looked at")
    return {f"p(L2) = {share:g}%": result for share, result in found}


def figure_6(figure, fitted: Fitted, size: str) -> None:
    """Cosine of clones' embeddings, and of all pairs, by p(L2); word2vec as the control."""
    results, panels = clones_looked_at(fitted, size), figure.subplots(1, 2, sharey=True)
    shares = [100 - share for _, share in values.EMBEDDINGS]
    theirs = [*values.EMBEDDINGS.values()]
    panels[0].plot(shares, theirs, color="C0", marker="s", label="paper, counterparts", **PAPER)
    if align.pairs_of(results, "word2vec"):
        align.draw_embeddings(results, panels, "word2vec", "word2vec", "C1")
    align.draw_embeddings(results, panels)


def figure_7(figure, fitted: Fitted, size: str) -> None:
    """Cosine of clones' embeddings by the frequency of the token, a line for each ratio."""
    align.draw_frequency(clones_looked_at(fitted, size), figure.subplots(1, 2, sharey=True))


def figure_8(figure, fitted: Fitted, size: str) -> None:
    """Perplexity of two balanced clones by the share of the vocabulary that they have in common."""
    rows = plain(family(fitted, CLONES), "cloned", times=1, size=size, shares=EVEN)
    if len({setting.anchors for setting, _ in rows}) < 2:
        raise UserError("balanced runs of clones with several --anchors")
    axes = figure.subplots()
    for position, look in enumerate(LANGUAGES):
        mine = [(100 * setting.anchors, row) for (setting, i), row in rows.items() if i == position]
        points(axes, mine, "ppl", label=f"L{position + 1} at 50/50", **look)
    row = next(iter(rows.values()))
    for share, label, line in ((0.5, "alone, on half the tokens", ":"), (1, "alone, on all of them", "--")):
        tokens = share * row.result["tokens"]
        if row.law is not None and row.law.covers(tokens):
            axes.axhline(float(row.law.perplexity(tokens)), color="0.4", linestyle=line, label=label)
    finish(axes, "ppl", "anchor points: % of the vocabulary that is shared")
    legend_above(figure, columns=2)


def over_seeds(numbers: list[float]) -> Quantity:
    """Their mean, and its 95% interval by Student's t if there are several."""
    mean, error = np.mean(numbers), stats.sem(numbers) if len(numbers) > 1 else math.nan
    half = error * stats.t.ppf(0.975, len(numbers) - 1)
    return Quantity(mean, mean - half, mean + half)


def figure_pieces(figure, fitted: Fitted, size: str) -> None:
    """Beyond the paper: the second of two clones by the number of pieces of a language, on the same text.

    Bits per byte less than alone on as many tokens, TEff, gain per foreign token, and how similar the clones
    are inside. Below the number of pieces stands how much of the model's parameters its embeddings are.
    """
    found: dict[tuple, dict[int, Row]] = {EVEN: {}, MAIN: {}}
    for row in sorted(fitted.rows, key=lambda row: -row.result["tokens"]):  # of several lengths the shortest
        result = row.result
        shares = tuple(round(100 * stage[0]) for stage in result["stages"])
        two_clones = result["vocab"] == "cloned" and len(result["sources"]) == 2 and not result["anchors"]
        if two_clones and result["size"] == size and shares in found and row.position == 1:
            found[shares][result["vocabulary"] // 2] = row
    if len(found[EVEN]) < 2 or len(found[MAIN]) < 2:
        raise UserError("runs of clones with tokenisers of several numbers of pieces")

    def saved(row: Row) -> Quantity:
        text, entry = row.result["fingerprint"], row.result["languages"][1]
        alone = [other for other in fitted.rows if other.monolingual and other.result["fingerprint"] == text]
        alone = [other for other in alone if abs(other.seen / row.seen - 1) < 0.05]
        if not alone or not entry.get("bits_per_byte"):
            return Quantity(math.nan)
        best = min(alone, key=lambda other: other.ppl.value).drawn["ppl"]
        bits_per_nat = entry["bits_per_byte"] / math.log(entry["ppl"])
        return quantity(bits_per_nat * (np.log(best) - np.log(row.drawn["ppl"])))

    def of_law(name: str) -> Callable[[Row], Quantity]:
        def within(row: Row) -> Quantity:
            law = row.law
            known = law is not None and law.fewest / NEAR <= row.mlte.value <= law.most * NEAR
            return getattr(row, name) if known else Quantity(math.nan)

        return within

    def inside(part: str) -> Callable[[Row], Quantity]:
        def mean(result: dict) -> float:
            measured = next(iter(result.get("alignment", {}).get(part, {}).values()), None)
            if measured is None:
                return math.nan
            if part == "embeddings":
                return measured["input"]["counterparts"]["mean"] - measured["input"]["all_pairs"]
            return np.mean([layer["mean"] for layer in measured["positions, centred"]])

        return lambda row: over_seeds([mean(result) for result in row.results])

    panels = figure.subplots(2, 2, sharex=True).ravel()
    looks = {EVEN: {"color": "C0", "marker": "s", "linestyle": "--"}, MAIN: LANGUAGES[1]}
    similar = {"hidden states, ": inside("hidden"), "embeddings, ": inside("embeddings")}
    for axes, name, level, measures in (
        (panels[0], "bits per byte less than alone", 0, {"": saved}),
        (panels[1], MEASURES["token_efficiency"], 1, {"": of_law("token_efficiency")}),
        (panels[2], "gain per foreign token", 0, {"": of_law("gain")}),
        (panels[3], "cosine of clones, centred", 0, similar),
    ):
        shown = []
        for (what, measure), filled in zip(measures.items(), ("full", "none"), strict=False):
            for shares, look in looks.items():
                pieces, rows = zip(*sorted(found[shares].items()), strict=True)
                value, low, high = np.array([measure(row) for row in rows]).T
                style = look | {"label": f"{what}L2 at {shares[0]}/{100 - shares[0]}", "fillstyle": filled}
                axes.errorbar(pieces, value, np.nan_to_num([value - low, high - value]), capsize=3, **style)
                shown += [*value, *(np.append(low, high) if shares == MAIN else ())]
        # Bars of 50/50 may leave the axes: where sharing costs little, its worth in tokens is hardly known.
        reach = 1.2 * np.nanmax(np.abs(np.array(shown) - level))
        axes.set_ylim(max(level - reach, 0) if level else level - reach, level + reach)
        axes.axhline(level, color="0.5", linestyle=":", linewidth=1)
        axes.set(ylabel=name, xscale="log")
        axes.spines[["top", "right"]].set_visible(False)

    ticks = {}
    for pieces, row in sorted(found[MAIN].items()):
        vocabularies = 2 * row.result["vocabulary"] * SIZES[size].width
        share = vocabularies / (vocabularies + row.result["non_embedding_params"])
        ticks[pieces] = f"{pieces}\n({100 * share:.0f}%)"
    for axes in panels[2:]:
        axes.set_xticks([*ticks], [*ticks.values()])
        axes.set_xlabel("pieces (embeddings, % of parameters)")
        axes.set_xlim(min(ticks) / 1.5, max(ticks) * 1.5)
        axes.minorticks_off()
    panels[3].legend(frameon=False, fontsize=8)


FIGURES = {  # function, further arguments, inches
    1: (figure_1, (), (10, 4.2)),
    2: (scaling, (CLONES, "cloned", ("ppl", "token_efficiency")), (10, 7)),
    3: (figure_3, (), (10, 7)),
    4: (scaling, (REAL, "anchored", ("ppl", "token_efficiency")), (10, 7)),
    5: (figure_5, (), (7, 4.8)),
    6: (figure_6, (), (10, 4.2)),
    7: (figure_7, (), (10, 4.2)),
    8: (figure_8, (), (7, 4.2)),
    9: (scaling, (CLONES, "cloned", ("ppl", "mlte", "token_efficiency")), (10, 10)),
    10: (scaling, (REAL, "anchored", ("ppl", "mlte", "token_efficiency")), (10, 10)),
    "pieces": (figure_pieces, (), (10, 7)),
}


def draw(number: int | str, fitted: Fitted) -> Figure:
    """One of the figures."""
    function, further, inches = FIGURES[number]
    script = f"runs/{number if number == 'pieces' else f'figure{number}'}.sh"
    with matplotlib.rc_context({"font.size": 14, "legend.fontsize": 12}):  # to be read on half a slide
        figure = Figure(figsize=inches, layout="constrained")
        try:
            function(figure, fitted, standard_size(fitted), *further)
        except UserError as missing:
            raise UserError(f"Figure {number} needs {missing}; bash {script} runs them") from None
        if number not in {6, 7} and not figure.legends:  # those are align.py's own
            figure.axes[0].legend(frameon=False)
    return figure


def main(arguments: list[str] | None = None) -> None:
    """Draw one figure from the runs below the given folders."""
    parser = Parser(__doc__)
    number = {str(number): number for number in FIGURES}
    parser.add_argument("figure", choices=number, help="its number, or pieces")
    parser.add_argument("folders", nargs="+", type=Path, metavar="out/FOLDER", help="hold evaluated runs")
    parser.add_argument("--out", type=Path, help="where figureN.png goes (the first folder)")
    args = parser.parse_args(arguments)
    name = "pieces" if args.figure == "pieces" else f"figure{args.figure}"
    path = (args.out or args.folders[0]) / f"{name}.png"
    write(path, draw(number[args.figure], fit(args.folders)))
    print(f"figure: {path}")


if __name__ == "__main__":
    run_script(main)
