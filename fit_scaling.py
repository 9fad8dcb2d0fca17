"""What the runs of a folder say together: the scaling law, MLTE, MLPE, token efficiency, a table and a figure.

    python fit_scaling.py out/demo

Monolingual runs give the law 1 / PPL = c - a * x^-b, with x = training tokens / 1.2 billion (appendix B of the paper).
At the paper's scale b is positive, and 1 / c is the perplexity that no amount of text improves on. Models that have seen
little text improve faster than that: there b comes out negative, the same formula bends the other way, and it has no
asymptote. Both are one family, with c + a * log(x) between them, and the runs decide.

Inverted, the law says how many tokens a monolingual model needs for a perplexity (MLTE); read forwards, which perplexity
it reaches on so many tokens (MLPE). Token efficiency, TEff = MLTE / tokens of the language seen, is what one token was
worth: above 1, the other languages helped; below 1, they were in the way.
"""

import math
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator
from scipy.optimize import minimize_scalar

from common import Parser, UserError, count, read_json, run_script, write_atomic

REFERENCE_TOKENS = 1.2e9  # x = 1 in the law: the paper's standard run
SMALLEST_EXPONENT = 1e-3  # below it the law is a logarithm to all intents, and a and c would grow without bound
EXPONENTS = np.arange(-3, 10.001, 0.02)  # where the best b is looked for before it is refined


WHITE_EDGE = withStroke(linewidth=3, foreground="white")  # around letters that lie on a line


class Law(NamedTuple):
    """1 / PPL = c - a * (tokens / 1.2e9)^-b, and the range of tokens it was fitted on."""

    a: float
    b: float
    c: float
    fewest: float
    most: float

    def perplexity(self, tokens: float) -> float:
        """MLPE: the perplexity of a monolingual model trained on `tokens`; infinite where the law has none."""
        inverse = self.c - self.a * (tokens / REFERENCE_TOKENS) ** -self.b
        return 1 / inverse if inverse > 0 else math.inf

    def tokens(self, perplexity: float) -> float:
        """MLTE: tokens that a monolingual model needs for `perplexity`.

        Infinite beyond the asymptote 1 / c if b > 0; 0 if b < 0 and the law expects less even of an untrained model.
        """
        gap = self.c - 1 / perplexity
        if gap * self.a <= 0:
            return math.inf if self.b > 0 else 0.0
        return REFERENCE_TOKENS * (self.a / gap) ** (1 / self.b)

    def covers(self, tokens: float) -> bool:
        """Whether `tokens` lies within the fitted range, give or take a twentieth."""
        return self.fewest / 1.05 <= tokens <= self.most * 1.05


def fit_law(tokens: list[float], perplexities: list[float]) -> Law:
    """Least squares on 1 / PPL. For a given b the law is a straight line in a bent x, so that only b is searched for.

    Raises:
        UserError: fewer than three different numbers of tokens, or perplexity does not fall with tokens.
    """
    if len(set(tokens)) < 3:
        raise UserError(
            f"the law has three unknowns: found {len(set(tokens))} monolingual sizes of training text, expected 3 or more"
        )
    y = 1 / np.asarray(perplexities)
    log_x = np.log(np.asarray(tokens) / REFERENCE_TOKENS)
    middle = log_x.mean()  # powers of numbers near 1 keep the equations well conditioned

    def solve(b: float) -> tuple[float, float, float]:
        """Squared error of the best line level + slope * bent, where bent = (1 - x^-b) / b, which is log(x) at b = 0."""
        bent = -np.expm1(-b * (log_x - middle)) / b if b else log_x - middle
        columns = np.stack([np.ones_like(bent), bent], axis=1)
        (level, slope), *_ = np.linalg.lstsq(columns, y, rcond=None)
        return float(((columns @ (level, slope) - y) ** 2).sum()), level, slope

    best = int(np.argmin([solve(b)[0] for b in EXPONENTS]))
    bounds = EXPONENTS[max(best - 1, 0)], EXPONENTS[min(best + 1, len(EXPONENTS) - 1)]
    b = float(minimize_scalar(lambda b: solve(b)[0], bounds=bounds, method="bounded", options={"xatol": 1e-12}).x)
    b = math.copysign(max(abs(b), SMALLEST_EXPONENT), b)
    _, level, slope = solve(b)
    if not slope > 0:  # also where a perplexity is no number
        raise UserError("no law fits: the monolingual perplexities do not fall as training tokens grow")
    return Law(float(slope / b * np.exp(b * middle)), b, float(level + slope / b), float(min(tokens)), float(max(tokens)))


class Row(NamedTuple):
    """One language of one run."""

    run: str
    monolingual: bool
    share: str
    language: str
    seen: float
    ppl: float
    law: Law | None

    @property
    def token_efficiency(self) -> float:
        """TEff = MLTE / tokens seen; nan where no law was fitted or the language was never seen."""
        return self.law.tokens(self.ppl) / self.seen if self.law and self.seen else math.nan


LawKey = tuple  # of values of SHARED, then the source language
SHARED = ("size", "fingerprint", "length", "batch", "learning_rate", "warmup")


def law_key(result: dict, language: dict) -> LawKey:
    """Runs share a law if they share model size, text, source language, and how they were optimised and measured."""
    return (*(result[key] for key in SHARED), language["source"])


def collect(folders: list[Path]) -> list[dict]:
    """Every evaluated result.json at or below the folders, monolingual runs first, the longest first.

    Raises:
        UserError: a folder is missing, or there is no evaluated run.
    """
    results = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder, expected one that holds runs of train.py")
        for path in sorted(folder.rglob("result.json")):
            result = read_json(path, "the result of a run", (*SHARED, "stages", "languages", "tokens"))
            name = path.parent.relative_to(folder).as_posix() if path.parent != folder else folder.name
            perplexities = [language.get("ppl") for language in result["languages"]]
            if None in perplexities:
                print(f"left out: {path.parent} is not evaluated; python evaluate.py {path.parent}")
            elif not all(map(math.isfinite, perplexities)):
                raise UserError(f"{path} has a perplexity that is not finite; remove the run, it diverged")
            else:
                results.append(result | {"run": name if len(folders) == 1 else f"{folder.name}/{name}"})
    if not results:
        raise UserError(f"{', '.join(map(str, folders))} holds no evaluated run; train.py, then evaluate.py make one")
    return sorted(results, key=lambda result: (len(result["languages"]) > 1, -result["tokens"]))


def fit_laws(results: list[dict]) -> dict[LawKey, Law]:
    """The law of each group of monolingual runs that has at least three sizes of training text.

    Raises:
        UserError: no group has.
    """
    points = defaultdict(list)
    for result in results:
        if len(result["languages"]) == 1:
            (language,) = result["languages"]
            points[law_key(result, language)].append((language["tokens"], language["ppl"]))
    if not points:
        raise UserError("there is no monolingual run (train.py --ratio 1) among the results, expected three or more for the law")
    laws, reason = {}, ""
    for key, pairs in points.items():
        try:
            laws[key] = fit_law(*map(list, zip(*pairs, strict=True)))
        except UserError as error:
            reason = f"{key[0]} on {key[-1]}: {error}"
            print(f"no law for {reason}")
    if not laws:
        raise UserError(reason)
    return laws


def share(result: dict, position: int) -> str:
    """p(language) over the stages of the run, as in '90→10%'."""
    return "→".join(f"{100 * stage[position]:.3g}" for stage in result["stages"]) + "%"


def rows_of(results: list[dict], laws: dict[LawKey, Law]) -> list[Row]:
    """One row a language and run."""
    return [
        Row(result["run"], len(result["languages"]) == 1, share(result, position), language["name"], language["tokens"],
            language["ppl"], laws.get(law_key(result, language)))
        for result in results
        for position, language in enumerate(result["languages"])
    ]  # fmt: skip


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table, readable as it is."""
    head = ("run", "language", "share", "tokens", "PPL", "MLPE", "MLTE", "TEff")
    cells = [head, *(tuple(_cells(row)) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    ruler = ["-" * width if i < 2 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]

    def line(values) -> str:
        return (
            "| "
            + " | ".join(v.ljust(w) if i < 2 else v.rjust(w) for i, (v, w) in enumerate(zip(values, widths, strict=True)))
            + " |"
        )

    return "\n".join([line(head), line(ruler), *map(line, cells[1:])]) + "\n"


def _cells(row: Row) -> list[str]:
    known = [row.run, row.language, row.share, count(row.seen), f"{row.ppl:.1f}" if row.ppl < 1e6 else f"{row.ppl:.0e}"]
    if row.law is None or not row.seen:
        return [*known, "-", "-", "-"]
    needed = row.law.tokens(row.ppl)
    if math.isinf(needed):
        return [*known, f"{row.law.perplexity(row.seen):.1f}", "beyond the law", "-"]
    mark = "" if row.law.covers(needed) else "*"
    return [*known, f"{row.law.perplexity(row.seen):.1f}", count(needed) + mark, f"{row.token_efficiency:.2f}" + mark]


def describe(laws: dict[LawKey, Law]) -> str:
    """The fitted laws in words, and what the table's columns mean."""
    lines = [
        f"Law of {size}, {source}: 1/PPL = {law.c:.4g} {'-+'[law.a < 0]} {abs(law.a):.4g} * (tokens / 1.2e9)^{-law.b:.4g}, "
        f"fitted on monolingual runs of {count(law.fewest)} to {count(law.most)} tokens."
        for (size, *_, source), law in laws.items()
    ]
    lines += [
        "MLPE: perplexity of a monolingual model on as many tokens of the language. MLTE: tokens it needs for this",
        "perplexity. TEff = MLTE / tokens: above 1, the other language helped. For monolingual rows, how far TEff is from 1",
        "tells how closely the law fits. * lies outside the fitted range.",
    ]
    return "\n".join(lines) + "\n"


def draw(rows: list[Row], path: Path) -> None:
    """Left: perplexity against tokens of the language, the law as a line. Right: token efficiency."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    mixed = [row for row in rows if not row.monolingual]
    height = max(4.2, 0.32 * len(mixed) + 1.2)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, height), width_ratios=(3, 2), layout="constrained")
    colours = {run: f"C{i % 10}" for i, run in enumerate(dict.fromkeys(row.run for row in mixed))}
    draw_perplexities(left, rows, colours)
    values = [row.token_efficiency if math.isfinite(row.token_efficiency) else math.nan for row in mixed]
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
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_perplexities(axes, rows: list[Row], colours: dict[str, str]) -> None:
    """Perplexity against tokens seen, both logarithmic, and each law over its range."""
    for law in dict.fromkeys(row.law for row in rows if row.law):
        curve = np.geomspace(law.fewest, law.most, 100)
        axes.plot(curve, [law.perplexity(tokens) for tokens in curve], color="0.6", zorder=1)
    labels: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.seen and row.ppl < 1e6:  # a language that was never learned would squeeze all others together
            axes.scatter(row.seen, row.ppl, color=colours.get(row.run, "black"), marker="o" if row.monolingual else "D", zorder=2)
            if not row.monolingual:
                labels[row.run, row.share].append(row)
    for (run, share_), equals in labels.items():  # languages of one share lie on each other: one label for all
        between = ", " if len(equals) == 2 else " to "
        names = between.join(dict.fromkeys((equals[0].language, equals[-1].language)))
        place = {"xytext": (7, 0), "textcoords": "offset points", "va": "center", "fontsize": 9, "path_effects": [WHITE_EDGE]}
        axes.annotate(f"{names} {share_}", (equals[0].seen, equals[0].ppl), color=colours[run], **place)
    axes.plot([], [], color="0.6", marker="o", markerfacecolor="black", markeredgecolor="black", label="monolingual, and its law")
    axes.plot([], [], color="0.3", marker="D", linestyle="", label="one language of several")
    axes.legend(frameon=False)
    axes.set(xscale="log", yscale="log", xlabel="training tokens of the language", ylabel="test perplexity", title="Perplexity")
    axes.margins(x=0.12)
    for axis in (axes.yaxis, axes.xaxis):
        axis.set_major_formatter("{x:g}" if axis is axes.yaxis else lambda x, _: count(x))
        axis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
        axis.set_minor_formatter("{x:g}" if axis is axes.yaxis else lambda x, _: count(x))


def main(arguments: list[str] | None = None) -> None:
    """Fit, print and draw what the runs below the given folders say."""
    parser = Parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="out/FOLDER", help="folders that hold evaluated runs")
    parser.add_argument("--out", type=Path, help="where table.md and figure.png go (default: the first folder)")
    args = parser.parse_args(arguments)
    results = collect(args.folders)
    laws = fit_laws(results)
    rows = rows_of(results, laws)
    text = table(rows) + "\n" + describe(laws)
    out = args.out or args.folders[0]
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "table.md", text)
    draw(rows, out / "figure.png")
    print(text)
    print(f"table: {out / 'table.md'}\nfigure: {out / 'figure.png'}")


if __name__ == "__main__":
    run_script(main)
