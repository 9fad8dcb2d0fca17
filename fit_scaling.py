"""What runs say together: the law of monolingual ones, and the worth of a token of each language.

    python fit_scaling.py out/table1                     # table.md, laws.json and figure.png beside the runs
    python fit_scaling.py out/table1 out/table1-seed1    # two seeds: rows are means, intervals cover both
    python fit_scaling.py out/mine --recommend           # and which mix serves the rarest language best

Monolingual runs give the law 1 / PPL = c - a * x^-b, with x = training tokens / 1.2 billion (appendix B of
the paper). Read forwards, it says which perplexity a monolingual model reaches on so many tokens (MLPE);
inverted, how many tokens it needs for a perplexity (MLTE). Token efficiency, TEff = MLTE / tokens of the
language seen, is what one token was worth: above 1, other languages helped; below 1, they were in the way.

At the paper's scale b is positive, and 1 / c is the perplexity that no amount of text improves on. Models
that have seen little text improve faster: there b comes out negative. Both are one family, with
c + a * log(x) in between, and the runs decide.
"""

import json
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from common import Parser, UserError, count, markdown, read_json, run_script, write, write_figure

REFERENCE_TOKENS = 1.2e9  # x = 1 in the law
SMALLEST_EXPONENT = 1e-3  # below it the law is as good as a logarithm, and a and c would grow without bound
RESAMPLES = 2000
LARGEST_LOG = 50.0  # of a resampled perplexity: one degree of freedom allows draws that no computer can hold

# Runs are one experiment if they agree in every setting of config.json but the first of these. They share a
# law if they agree in all but the second, and the language has the same source.
NOT_OF_THE_EXPERIMENT = {"seed", "data", "code"}
NOT_OF_THE_LAW = NOT_OF_THE_EXPERIMENT | {"sources", "vocab", "anchors", "stages", "tokens", "steps"}


# --- the law --------------------------------------------------------------------------------------


class Law(NamedTuple):
    """1 / PPL = c - a * (tokens / 1.2e9)^-b, fitted on `fewest` to `most` tokens; a, b, c may be arrays."""

    a: float | np.ndarray
    b: float | np.ndarray
    c: float | np.ndarray
    fewest: float
    most: float

    def perplexity(self, tokens):
        """MLPE: perplexity of a monolingual model trained on `tokens`; infinite where the law has none."""
        with np.errstate(all="ignore"):
            return 1 / np.maximum(self.c - self.a * np.power(tokens / REFERENCE_TOKENS, -self.b), 0)

    def tokens(self, perplexity):
        """MLTE: tokens that a monolingual model needs for `perplexity`.

        Infinite beyond the asymptote 1 / c if b > 0; 0 if b < 0 and an untrained model should do better.
        """
        with np.errstate(all="ignore"):
            gap = np.maximum((self.c - 1 / perplexity) / self.a, 0)
            return REFERENCE_TOKENS * np.power(gap, -1 / self.b)

    def covers(self, tokens: float) -> bool:
        """Whether `tokens` lies within the fitted range, give or take a twentieth."""
        return self.fewest / 1.05 <= tokens <= self.most * 1.05


def bend(b: np.ndarray, log_x: np.ndarray) -> np.ndarray:
    """(1 - x^-b) / b, which is log(x) at b = 0: what the law is a straight line in."""
    safe = np.where(b == 0, 1.0, b)
    return np.where(b == 0, log_x, -np.expm1(-safe * log_x) / safe)


def fit_laws(tokens: np.ndarray, perplexities: np.ndarray) -> Law:
    """Least squares on 1 / PPL, for (sets, points) of perplexities of runs on the same (points,) tokens.

    For a given b the law is a straight line in a bent x, so that only b is searched for: on a grid, then ever
    closer around its best, each time by the parabola through three. Sets that do not fall become nan.
    """
    log_x = np.log(tokens / REFERENCE_TOKENS)
    middle = log_x.mean()  # powers of numbers near 1 keep the equations well conditioned
    y = 1 / perplexities
    y_mean = y.mean(1, keepdims=True)

    def line(b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each exponent, (sets or 1, n): slope of the best line, mean of the bent x, squares explained."""
        x = bend(b[..., None], log_x - middle)
        x_mean = x.mean(-1, keepdims=True)
        product = ((x - x_mean) @ (y - y_mean)[..., None])[..., 0]
        square = ((x - x_mean) ** 2).sum(-1)
        return product / square, x_mean[..., 0], product.clip(0) ** 2 / square

    b, sets = np.zeros((1, 1)), np.arange(len(y))
    for grid in (np.arange(-3, 10.001, 0.02), 0.002 * np.arange(-1, 2), 0.0001 * np.arange(-1, 2)):
        explained = line(b + grid)[2]
        best = explained.argmax(1).clip(1, len(grid) - 2)
        before, at, after = (explained[sets, best + step] for step in (-1, 0, 1))
        curvature = 2 * at - before - after
        shift = np.divide(after - before, 2 * curvature, out=np.zeros_like(at), where=curvature > 0)
        b = b + (grid[best] + shift.clip(-1, 1) * (grid[1] - grid[0]))[:, None]
    b = np.where(np.abs(b) < SMALLEST_EXPONENT, np.copysign(SMALLEST_EXPONENT, b), b)

    slope, x_mean, _ = (part[:, 0] for part in line(b))
    slope, b = np.where(slope > 0, slope, np.nan), b[:, 0]
    level = y_mean[:, 0] - slope * x_mean
    return Law(slope / b * np.exp(b * middle), b, level + slope / b, float(min(tokens)), float(max(tokens)))


def fit_law(tokens, perplexities) -> Law:
    """The law of one set of runs."""
    if (lengths := len(set(tokens))) < 3:
        raise UserError(f"found {lengths} lengths of monolingual runs (train.py --ratio 1), expected three")
    law = fit_laws(np.asarray(tokens), np.asarray(perplexities)[None])
    if not np.isfinite(law.a[0]):
        raise UserError("perplexities of the monolingual runs do not fall as their tokens grow")
    return law._replace(a=float(law.a[0]), b=float(law.b[0]), c=float(law.c[0]))


# --- how surely -----------------------------------------------------------------------------------


class Measured(NamedTuple):
    """What one experiment found in one language: a point of the law, or a row of the table."""

    tokens: float
    perplexities: dict[int, float]  # by seed
    error: float = 0.0  # relative standard error over the test documents

    @property
    def logs(self) -> np.ndarray:
        """Logarithms of the perplexities."""
        return np.log(list(self.perplexities.values()))

    @property
    def ppl(self) -> float:
        """Geometric mean over the seeds."""
        return math.exp(self.logs.mean())


class Resampled(NamedTuple):
    """Laws and perplexities as they might have come out."""

    law: Law  # of (RESAMPLES,) arrays
    perplexities: np.ndarray  # (rows, RESAMPLES)
    same_documents: np.ndarray  # without the draw of documents: for comparing runs on the same test text


def resample(law: Law, points: list[Measured], rows: list[Measured], seed: int = 0) -> Resampled:
    """Bootstrap: how the law and the rows might have come out, had the same experiments been done again.

    * Points. A monolingual run is off the law by chance, and because the law is but a formula. Each is put
      back on the law and given the residual of a random run. With n runs and 3 unknowns residuals are too
      small: they are widened by sqrt(n / (n - 3)), and, n - 3 being few, by the uncertainty of that estimate
      itself (chi-squared, as in a t test).
    * Rows. A run of several languages is off by chance as a monolingual one is.
    * Seeds. Each is a run of its own; how far they lie apart joins what residuals are drawn from.
    * Documents. The test text is a sample, the same for all runs: one draw moves each perplexity by its own
      standard error. What is hard for all cancels in TEff.

    It does not cover what all runs share, the text and the recipe. All is nan for fewer than four monolingual
    runs, which lie on a law exactly, and where the law has no perplexity for one of its own runs.
    """
    expected = np.log([law.perplexity(point.tokens) for point in points])
    lone = np.concatenate([point.logs - log for point, log in zip(points, expected, strict=True)])
    if not np.isfinite(expected).all() or len(lone) < 4:
        unknown = np.full((len(rows), RESAMPLES), np.nan)
        return Resampled(Law(*unknown[[0, 0, 0]], law.fewest, law.most), unknown, unknown)
    apart = [row.logs for row in rows if row not in points and len(row.perplexities) > 1]
    known = len(lone) - 3 + sum(len(logs) - 1 for logs in apart)
    residuals = np.concatenate([centred(lone, 3), *(centred(logs, 1) for logs in apart)])
    random = np.random.default_rng(seed)
    spread = np.sqrt(known / random.chisquare(known, RESAMPLES))
    documents = random.standard_normal(RESAMPLES)

    def chance(measured: Measured, on_the_law: bool) -> np.ndarray:
        # Seeded by the run itself: what else is in the table does not change what it draws.
        which = np.array([measured.tokens, *measured.perplexities.values()]).view(np.uint32)
        own = np.random.default_rng([seed, on_the_law, *which])
        drawn = own.integers(len(residuals), size=(RESAMPLES, len(measured.perplexities)))
        return residuals[drawn].mean(1) * spread

    moved_points = np.stack([chance(point, True) + point.error * documents for point in points])
    same = np.stack([row.logs.mean() + chance(row, False) for row in rows])
    moved = same + np.array([row.error for row in rows])[:, None] * documents
    logs = (moved_points.T + expected, moved, same)
    drawn, moved, same = (np.exp(np.clip(log, 0, LARGEST_LOG)) for log in logs)
    return Resampled(fit_laws(np.array([point.tokens for point in points]), drawn), moved, same)


def centred(logs: np.ndarray, unknowns: int) -> np.ndarray:
    """Deviations from the mean, as wide as the errors are of which a fit of so many unknowns leaves them."""
    return (logs - logs.mean()) * math.sqrt(len(logs) / (len(logs) - unknowns))


class Quantity(NamedTuple):
    """A number and its 95% interval: nan where there is none, and where the interval is not known."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def text(self, decimals: int) -> str:
        """'2.4 [1.1, 4.8]': so many decimals at most, and no more than its narrower side supports."""
        if math.isnan(self.value):
            return "-"
        sides = [side for side in (self.value - self.low, self.high - self.value) if 0 < side < math.inf]
        if sides:
            decimals = min(decimals, 1 - math.floor(math.log10(2 * min(sides))))
        rounded = [round(part, decimals) for part in self]
        value, low, high = (
            count(part) if 1e4 <= part < math.inf else f"{part:.{max(decimals, 0)}f}".replace("inf", "∞")
            for part in rounded
        )
        return value if math.isnan(self.low) else f"{value} [{low}, {high}]"


def quantity(value: float, resampled: np.ndarray) -> Quantity:
    """A number with the middle 95% of its resampled values, which is widened to hold the number itself."""
    known = np.sort(resampled[~np.isnan(resampled)])
    if len(known) < RESAMPLES / 2:
        return Quantity(float(value))
    low, high = known[int(0.025 * len(known))], known[math.ceil(0.975 * len(known)) - 1]
    return Quantity(float(value), float(min(low, value)), float(max(high, value)))


def perplexity_text(ppl: float) -> str:
    """A perplexity without its interval, to the paper's precision."""
    return Quantity(ppl).text(1)


# --- the runs -------------------------------------------------------------------------------------


class LawKey(NamedTuple):
    """What runs share that share a law."""

    size: str
    recipe: str  # every setting of config.json but NOT_OF_THE_LAW, as JSON
    source: str


class Row(NamedTuple):
    """One language of one experiment.

    The last three are nan without a law and for a language that was never seen; and so is MLPE where the law
    would be extrapolated.
    """

    run: str
    seeds: int
    result: dict  # result.json of the first seed
    position: int  # among the languages of the run
    seen: float  # tokens
    ppl: Quantity  # the interval is for a comparison with other runs on the same test text
    found: Measured  # by seed
    law: Law | None = None
    mlpe: Quantity = Quantity(math.nan)
    mlte: Quantity = Quantity(math.nan)
    token_efficiency: Quantity = Quantity(math.nan)  # MLTE / tokens seen

    @property
    def language(self) -> str:
        """Its name, EN2."""
        return self.result["languages"][self.position]["name"]

    @property
    def monolingual(self) -> bool:
        """Whether the law was fitted on it."""
        return len(self.result["languages"]) == 1

    @property
    def share(self) -> str:
        """p(language) over the stages of the run, as in '90→10%'."""
        return "→".join(f"{100 * stage[self.position]:.3g}" for stage in self.result["stages"]) + "%"

    def efficiency_text(self) -> str:
        """TEff with its interval; * marks a MLTE beyond the fitted range."""
        return self.marked(self.token_efficiency.text(2))

    def marked(self, text: str) -> str:
        """A text that says MLTE or TEff, and how far the law can be trusted there."""
        if math.isinf(self.mlte.value):
            return "beyond the law"
        extrapolated = math.isfinite(self.mlte.value) and not self.law.covers(self.mlte.value)
        return text + "*" * extrapolated


class Fitted(NamedTuple):
    """All that is known of some folders of runs."""

    results: list[dict]
    laws: dict[LawKey, Law]
    intervals: dict[LawKey, dict[str, Quantity]]  # of a, b and c
    points: dict[LawKey, list[Measured]]
    rows: list[Row]


def collect(folders: list[Path]) -> list[dict]:
    """Every evaluated result.json at or below the folders, monolingual runs first, the longest first.

    Each with its "config", its "name" below its folder, and what it is called in the table, "run".
    """
    results = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder, expected one that holds runs of train.py")
        for path in sorted(folder.rglob("result.json")):
            out = path.parent
            result = read_json(path)
            if not (out / "config.json").exists():
                print(f"left out: {out} has no config.json, which would tell its settings")
            elif not all(math.isfinite(language.get("ppl", math.nan)) for language in result["languages"]):
                print(f"left out: {out} is not evaluated, or diverged; python evaluate.py {out}")
            else:
                name = folder.name if out == folder else out.relative_to(folder).as_posix()
                run = name if out == folder or len(folders) == 1 else f"{folder.name}/{name}"
                more = {"config": read_json(out / "config.json"), "name": name, "run": run}
                results.setdefault(path.resolve(), result | more)  # folders may lie in one another
    if not results:
        places = ", ".join(map(str, folders))
        raise UserError(f"{places} holds no evaluated run; train.py, then evaluate.py make one")
    versions = Counter(result["config"].get("code", "unknown") for result in results.values())
    if len(versions) > 1:
        runs = ", ".join(f"{code} made {number}" for code, number in versions.most_common())
        print(f"the code changed between these runs: {runs}")
    return sorted(results.values(), key=lambda result: (len(result["languages"]) > 1, -result["tokens"]))


def settings_but(without: set[str], result: dict) -> str:
    """The settings of a run, as a text to compare them by."""
    kept = {name: value for name, value in result["config"].items() if name not in without}
    return json.dumps(kept, sort_keys=True)


def experiments(results: list[dict]) -> list[list[dict]]:
    """The results in groups that differ in their seed alone; a seed that was run twice counts once."""
    groups: dict[str, dict] = defaultdict(dict)
    for result in results:
        by_seed = groups[settings_but(NOT_OF_THE_EXPERIMENT, result)]
        first = by_seed.setdefault(result["seed"], result)
        if first is not result:
            print(f"left out: {result['run']} has the settings and the seed of {first['run']}")
    return [list(by_seed.values()) for by_seed in groups.values()]


def row_of(group: list[dict], position: int) -> Row:
    """One language of one experiment, as far as it is known without a law."""
    entries = [result["languages"][position] for result in group]
    tokens = sum(entry["tokens"] for entry in entries) / len(entries)
    perplexities = {result["seed"]: entry["ppl"] for result, entry in zip(group, entries, strict=True)}
    errors = [(entry.get("ppl_standard_error") or 0.0) / entry["ppl"] for entry in entries]
    found = Measured(tokens, perplexities, sum(errors) / len(errors))
    run = group[0]["run"] if len(group) == 1 else f"{group[0]['name']} ({len(group)} seeds)"
    return Row(run, len(group), group[0], position, tokens, Quantity(found.ppl), found)


def with_law(row: Row, law: Law, drawn: Resampled, place: int) -> Row:
    """A row and what the law says of it; `place` is its own among the resampled rows."""
    row = row._replace(law=law, ppl=quantity(row.ppl.value, drawn.same_documents[place]))
    if row.seen:
        needed = quantity(law.tokens(row.ppl.value), drawn.law.tokens(drawn.perplexities[place]))
        row = row._replace(mlte=needed, token_efficiency=Quantity(*(part / row.seen for part in needed)))
    if law.covers(row.seen):
        row = row._replace(mlpe=quantity(law.perplexity(row.seen), drawn.law.perplexity(row.seen)))
    return row


def fit(folders: list[Path]) -> Fitted:
    """Read the folders, fit the laws, and work out every row."""
    results = collect(folders)
    groups = experiments(results)
    rows = [row_of(group, position) for group in groups for position in range(len(group[0]["languages"]))]
    by_law = defaultdict(list)
    for number, row in enumerate(rows):
        recipe, source = settings_but(NOT_OF_THE_LAW, row.result), row.result["sources"][row.position]
        by_law[LawKey(row.result["size"], recipe, source)].append(number)

    laws, intervals, points, missing = {}, {}, {}, []
    for key, numbers in by_law.items():
        own = [rows[number] for number in numbers]
        points[key] = [row.found for row in own if row.monolingual]
        try:
            law = fit_law([point.tokens for point in points[key]], [point.ppl for point in points[key]])
        except UserError as error:
            missing.append(f"no law for {key.size}, {key.source}: {error}")
            continue
        drawn = resample(law, points[key], [row.found for row in own])
        laws[key] = law
        intervals[key] = {name: quantity(getattr(law, name), getattr(drawn.law, name)) for name in "abc"}
        for place, number in enumerate(numbers):
            rows[number] = with_law(rows[number], law, drawn, place)
    if not laws:
        raise UserError("; ".join(missing))
    for reason in missing:
        print(reason)
    return Fitted(results, laws, intervals, points, rows)


# --- what is printed and drawn --------------------------------------------------------------------

COLUMNS = ("run", "language", "share", "tokens", "PPL", "MLPE", "MLTE", "TEff")
EXPLANATION = """\
MLPE: perplexity of a monolingual model on as many tokens of the language; - where no monolingual run is as
short or as long. MLTE: tokens that it needs for this perplexity. TEff = MLTE / tokens: above 1, the other
language helped. For monolingual rows, how far TEff is from 1 tells how closely the law fits. * lies outside
the fitted range. Beyond the law: no number of tokens would do. [95%] covers how far single runs lie off the
law, how well so few points determine it, seeds where there are several, and the choice of test documents;
not what all runs share (text, recipe).
"""


def names_of(laws) -> dict[LawKey, str]:
    """'small, en' of each law, and the settings in which it differs from others of this size and source."""
    names = {}
    for key in laws:
        own = json.loads(key.recipe)
        alike = [json.loads(law.recipe) for law in laws if (law.size, law.source) == (key.size, key.source)]
        differing = [name for name in own if any(other.get(name) != own[name] for other in alike)]
        names[key] = ", ".join([key.size, key.source, *(f"{name} {own[name]}" for name in differing)])
    return names


def table(fitted: Fitted) -> str:
    """The rows as a Markdown table, the laws in words, and what the columns mean."""
    lines = []
    for row in fitted.rows:
        what = (row.run, row.language, row.share, count(row.seen), perplexity_text(row.ppl.value))
        worth = (row.mlpe.text(1), row.marked(row.mlte.text(0)), row.efficiency_text())
        lines.append(what + worth)
    text = markdown(COLUMNS, lines, 2) + "\n"
    for key, name in names_of(fitted.laws).items():
        law, exponent = fitted.laws[key], fitted.intervals[key]["b"]
        formula = f"{law.c:.4g} {'-+'[law.a < 0]} {abs(law.a):.4g} * (tokens / 1.2e9)^{-law.b:.4g}"
        points = f"{len(fitted.points[key])} runs of {count(law.fewest)} to {count(law.most)} tokens"
        surely = f"b = {exponent.text(3)}"
        if math.isnan(exponent.low):
            surely = "no intervals: they need a fourth run, and a law that has a perplexity for each"
        text += f"Law of {name}: 1/PPL = {formula}, fitted on {points}; {surely}.\n"
    return text + EXPLANATION


def recommend(rows: list[Row]) -> str:
    """Of mixes with a rare language, that in which a token of it is worth most, and the cheapest as good."""

    def share(row: Row) -> float:
        return row.seen / row.result["tokens"]

    mixed = [row for row in rows if not row.monolingual and not math.isnan(row.token_efficiency.value)]
    if not mixed:
        raise UserError("--recommend needs mixes of languages, and three monolingual runs of the rarest one")
    rarest = min(mixed, key=lambda row: (share(row), -row.position))
    mixed = [row for row in mixed if (row.language, row.law) == (rarest.language, rarest.law)]
    best = max(mixed, key=lambda row: row.token_efficiency.value)
    if best.token_efficiency.value <= 1:
        return f"No mix helps: {best.language} is better off alone.\n"
    name, worth = best.language, best.efficiency_text()
    text = f"Best for {name}: {100 * share(best):.3g}% of it ({best.run}), TEff {worth}.\n"
    close = [row for row in mixed if row.token_efficiency.high >= best.token_efficiency.low]
    least = min([best, *close], key=lambda row: row.result["tokens"])
    if least is not best:
        text += (
            f"{100 * share(least):.3g}% ({least.run}) cannot be told from it by these runs, and takes "
            f"{count(least.result['tokens'])} tokens instead of {count(best.result['tokens'])}.\n"
        )
    return text


def draw(fitted: Fitted, path: Path) -> None:
    """Left: perplexity against tokens of the language, and the laws. Right: token efficiency."""
    mixed = [row for row in fitted.rows if not row.monolingual]
    colours = {run: f"C{i % 10}" for i, run in enumerate(dict.fromkeys(row.run for row in mixed))}
    figure = Figure(figsize=(11, max(4.2, 0.32 * len(mixed) + 1.2)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)

    for key, name in names_of(fitted.laws).items():
        law = fitted.laws[key]
        curve = np.geomspace(law.fewest, law.most, 100)
        left.plot(curve, law.perplexity(curve), color="0.6", zorder=1, label=f"{name} alone")
    for row in fitted.rows:
        if row.seen and row.ppl.value < 1e6:  # what was never learned would squeeze all others together
            marker = "o" if row.monolingual else "D"
            left.scatter(row.seen, row.ppl.value, color=colours.get(row.run, "black"), marker=marker)
    left.set(xscale="log", yscale="log", xlabel="training tokens of the language", ylabel="test perplexity")
    for axis in (left.xaxis, left.yaxis):
        axis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
        axis.set_major_formatter(lambda value, _: count(value))
        axis.set_minor_formatter(lambda value, _: count(value))
    left.legend(frameon=False)

    known = [row.token_efficiency if math.isfinite(row.mlte.value) else Quantity(0.0) for row in mixed]
    value, low, high = np.array(known).reshape(-1, 3).T
    longest = max([1.0, *value])
    high = np.minimum(high, 3 * longest)  # an interval that is far longer, or without end, leaves the axes
    colour = [colours[row.run] for row in mixed]
    bars = right.barh(range(len(mixed)), value, color=colour, xerr=[value - low, high - value])
    right.bar_label(bars, ["" if math.isfinite(row.mlte.value) else row.efficiency_text() for row in mixed])
    right.set_yticks(range(len(mixed)), [f"{row.run}: {row.language} {row.share}" for row in mixed])
    right.set(xlabel="TEff: worth of one token, monolingual = 1", xlim=(0, 2.2 * longest))
    right.axvline(1, color="0.4", linestyle=":")
    right.invert_yaxis()
    write_figure(path, figure)


def main(arguments: list[str] | None = None) -> None:
    """Fit, print and draw what the runs below the given folders say."""
    parser = Parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="out/FOLDER", help="hold evaluated runs")
    parser.add_argument("--out", type=Path, help="where table, laws and figure go (the first folder)")
    parser.add_argument("--recommend", action="store_true", help="also say which mix helps the rarest most")
    args = parser.parse_args(arguments)
    fitted, out = fit(args.folders), args.out or args.folders[0]
    text = table(fitted) + (f"\n{recommend(fitted.rows)}" if args.recommend else "")
    laws = []
    for key, law in fitted.laws.items():
        points = [point._asdict() for point in fitted.points[key]]
        intervals = {name: interval[1:] for name, interval in fitted.intervals[key].items()}
        found = {"points": points, "intervals_95": intervals}
        laws.append({"source": key.source} | json.loads(key.recipe) | law._asdict() | found)
    write(out / "table.md", text)
    write(out / "laws.json", {"law": "1 / PPL = c - a * (tokens / 1.2e9)^-b", "laws": laws})
    draw(fitted, out / "figure.png")
    print(f"{text}\ntable: {out / 'table.md'}\nfigure: {out / 'figure.png'}")


if __name__ == "__main__":
    run_script(main)
