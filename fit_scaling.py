"""What runs say together: the law of monolingual ones, and the worth of a token of each language.

    python fit_scaling.py out/table1                     # table.md, laws.json and figure.png beside the runs
    python fit_scaling.py out/table1 out/table1-seed1    # two seeds: rows are means, intervals cover both
    python fit_scaling.py out/table1 --ladder best       # against the best batch at each number of tokens
    python fit_scaling.py out/mine --recommend           # and which mix serves the rarest language best

Monolingual runs give the law 1 / PPL = c - a * x^-b, with x = training tokens / 1.2 billion (appendix B of
the paper). Read forwards, it says which perplexity a monolingual model reaches on so many tokens (MLPE);
inverted, how many tokens it needs for a perplexity (MLTE). Token efficiency, TEff = MLTE / tokens of the
language seen, is what one token was worth: above 1, other languages helped; below 1, they were in the way.
Were all languages one, TEff would be 1 / share, its ceiling, which is higher the rarer the language. The gain
per foreign token, (MLTE - tokens) / tokens of the others, is 1 then and 0 where nothing is shared.

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

# Runs are one experiment if they agree in every setting of config.json but these. They share a law if they
# agree in all but those of their ladder, and the language has the same source.
NOT_OF_THE_EXPERIMENT = {"seed", "data", "code"}
NOT_OF_THE_LAW = NOT_OF_THE_EXPERIMENT | {"sources", "vocab", "anchors", "stages", "tokens", "steps"}
LADDERS = {  # which monolingual runs are the yardstick, and in what else they may differ from a mixed run
    "recipe": ("of the same recipe", NOT_OF_THE_LAW),
    "steps": ("of as many steps, whatever their batch", NOT_OF_THE_LAW - {"steps"} | {"batch"}),
    "best": ("that are the best of their length", NOT_OF_THE_LAW | {"batch", "learning_rate", "warmup"}),
}
SAME_LENGTH = 1.05  # numbers of tokens are as good as equal, give or take this factor
NEAR = 1.5  # further outside the fitted range than by this factor the law says no number


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
        """Whether `tokens` lies within the fitted range."""
        return self.fewest / SAME_LENGTH <= tokens <= self.most * SAME_LENGTH


def bend(b: np.ndarray, log_x: np.ndarray) -> np.ndarray:
    """(1 - x^-b) / b, which is log(x) at b = 0: what the law is a straight line in."""
    safe = np.where(b == 0, 1.0, b)
    return np.where(b == 0, log_x, -np.expm1(-safe * log_x) / safe)


def fit_laws(tokens: np.ndarray, perplexities: np.ndarray, weights: np.ndarray) -> Law:
    """Weighted least squares on 1 / PPL: (sets, points) of perplexities of runs on the same (points,) tokens.

    For a given b the law is a straight line in a bent x, so that only b is searched for: on a grid, then ever
    closer around its best, each time by the parabola through three. Sets that do not fall become nan.
    """
    log_x = np.log(tokens / REFERENCE_TOKENS)
    middle = log_x.mean()  # powers of numbers near 1 keep the equations well conditioned
    w, y = weights / weights.sum(), 1 / perplexities
    y_mean = (w * y).sum(1, keepdims=True)

    def line(b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each exponent, (sets or 1, n): slope of the best line, mean of the bent x, squares explained."""
        x = bend(b[..., None], log_x - middle)
        x_mean = (w * x).sum(-1, keepdims=True)
        product = (w * (x - x_mean) @ (y - y_mean)[..., None])[..., 0]
        square = (w * (x - x_mean) ** 2).sum(-1)
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


def weights_of(perplexities: np.ndarray, paper_fit: bool) -> np.ndarray:
    """How much the squared error of each 1 / PPL counts: in the paper, all alike."""
    # A run is off by so many percent, whatever its perplexity: log PPL has the same error everywhere, and
    # that of 1 / PPL is d(1 / PPL) = -d(log PPL) / PPL.
    return np.ones_like(perplexities) if paper_fit else perplexities**2


def fit_law(tokens, perplexities, paper_fit: bool = False) -> Law:
    """The law of one set of runs."""
    if (lengths := len(set(tokens))) < 3:
        raise UserError(f"found {lengths} lengths of monolingual runs (train.py --ratio 1), expected three")
    tokens, perplexities = np.array(tokens, float), np.array(perplexities, float)
    law = fit_laws(tokens, perplexities[None], weights_of(perplexities, paper_fit))
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
    """Laws and perplexities: as they were found, then RESAMPLES times as they might have been."""

    law: Law  # of (1 + RESAMPLES,) arrays
    perplexities: np.ndarray  # (rows, 1 + RESAMPLES)
    same_documents: np.ndarray  # without the draw of documents: for comparing runs on the same test text


def resample(law: Law, points: list[Measured], rows: list[Measured], paper_fit=False, seed=0) -> Resampled:
    """How the law and the rows might have come out, had the same experiments been done again.

    log PPL = log law(tokens) + misfit of the number of tokens + noise of the run, both normal.

    * Noise is a run's own and averages out over seeds. Its variance is that within groups of seeds, all of
      points and rows together; each seed but the first of a group is a degree of freedom.
    * Misfit, for the law is but a formula, is the same for all seeds and does not average out. How far the
      means of n points lie off the law has the variance of misfit and remaining noise, and n - 3 degrees of
      freedom. Where no group has a second seed the two cannot be told apart: rows are as far off as points.
    * Degrees of freedom are few, so variances are uncertain and drawn, too (chi-squared, as in a t test).
    * Documents. The test text is a sample, the same for all runs: one draw moves each perplexity by its own
      standard error, as if all found the same documents hard. What is hard for all cancels in TEff.

    It does not cover what all runs share, the text and the recipe. Draws are nan where a variance is not
    known: for fewer than four points, or where the law has no perplexity for one of them.
    """
    found = np.array([point.logs.mean() for point in points])
    expected = np.log([law.perplexity(point.tokens) for point in points])
    groups = [run.logs for run in [*rows, *(point for point in points if point not in rows)]]
    random = np.random.default_rng(seed)
    documents = np.append(0, random.standard_normal(RESAMPLES))

    def deviation(squares: float, freedom: int) -> np.ndarray:
        drawn = squares / random.chisquare(freedom, RESAMPLES) if freedom > 0 else np.full(RESAMPLES, np.nan)
        return np.append(0, np.sqrt(drawn))

    def chance(run: Measured, what: int) -> np.ndarray:
        # Seeded by the run itself: what else is in the table does not change what it draws.
        which = np.array([run.tokens, *run.perplexities.values()]).view(np.uint32)
        return np.random.default_rng([seed, what, *which]).standard_normal(1 + RESAMPLES)

    freedom = len(points) - 3 if np.isfinite(expected).all() else 0
    noise = off_the_law = deviation(((found - expected) ** 2).sum(), freedom)
    if seeds := sum(len(logs) - 1 for logs in groups):
        noise = deviation(sum(((logs - logs.mean()) ** 2).sum() for logs in groups), seeds)

    moved_points = [off_the_law * chance(point, 0) + point.error * documents for point in points]
    same = [row.logs.mean() + noise / math.sqrt(len(row.logs)) * chance(row, 1) for row in rows]
    moved = [logs + row.error * documents for logs, row in zip(same, rows, strict=True)]
    sets = np.vstack([found, (expected + np.transpose(moved_points))[1:]])
    sets, moved, same = (np.exp(np.clip(logs, 0, LARGEST_LOG)) for logs in (sets, moved, same))
    tokens = np.array([point.tokens for point in points])
    return Resampled(fit_laws(tokens, sets, weights_of(sets[0], paper_fit)), moved, same)


class Quantity(NamedTuple):
    """A number and its 95% interval: nan where there is none, and where the interval is not known."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def excludes(self, number: float) -> bool:
        """Whether the interval is known and does not hold `number`."""
        return number < self.low or self.high < number

    def text(self, decimals: int, least: float = -math.inf, most: float = math.inf) -> str:
        """'2.4 [1.1, >4.0]': so many decimals at most, and no more than its narrower side supports.

        What lies below `least` or above `most` is cut there.
        """
        if math.isnan(self.value):
            return "-"
        sides = [side for side in (self.value - self.low, self.high - self.value) if 0 < side < math.inf]
        if sides:
            decimals = min(decimals, 1 - math.floor(math.log10(2 * min(sides))))

        def rounded(part: float) -> str:
            sign = "<" if part < least else ">" if part > most else ""
            part = round(min(max(part, least), most), decimals)
            return sign + (count(part) if 1e4 <= part < math.inf else f"{part:.{max(decimals, 0)}f}")

        value, low, high = map(rounded, self)
        return value if math.isnan(self.low) else f"{value} [{low}, {high}]"


def quantity(drawn: np.ndarray) -> Quantity:
    """A number, the first, and the middle 95% of the others, widened to hold it.

    A draw without a number, as of a law that does not fall, may be any: it counts at both ends.
    """
    value, unknown = float(drawn[0]), np.isnan(drawn[1:])
    if unknown.all():
        return Quantity(value)
    low = np.sort(np.where(unknown, -np.inf, drawn[1:]))[int(0.025 * RESAMPLES)]
    high = np.sort(np.where(unknown, np.inf, drawn[1:]))[math.ceil(0.975 * RESAMPLES) - 1]
    return Quantity(value, float(min(low, value)), float(max(high, value)))


def perplexity_text(ppl: float) -> str:
    """A perplexity without its interval, to the paper's precision."""
    return Quantity(ppl).text(1)


# --- the runs -------------------------------------------------------------------------------------


class LawKey(NamedTuple):
    """What runs share that share a law."""

    size: str
    recipe: str  # every setting of config.json in which the runs of its ladder agree, as JSON
    source: str


class Row(NamedTuple):
    """One language of one experiment.

    The last five are nan without a law and for a language that was never seen; and so is MLPE where the law
    would be extrapolated, and the gain where there is no other language.
    """

    run: str
    seeds: int
    result: dict  # result.json of the first seed
    position: int  # among the languages of the run
    seen: float  # tokens
    ppl: Quantity  # the interval is for a comparison with other runs on the same test text
    found: Measured  # by seed
    law: Law | None = None
    drawn: dict[str, np.ndarray] | None = None  # what might have been found, by the names of ppl and these:
    mlpe: Quantity = Quantity(math.nan)
    mlte: Quantity = Quantity(math.nan)
    token_efficiency: Quantity = Quantity(math.nan)  # MLTE / tokens seen
    gain: Quantity = Quantity(math.nan)  # (MLTE - tokens seen) / tokens of other languages

    @property
    def language(self) -> str:
        """Its name, EN2."""
        return self.result["languages"][self.position]["name"]

    @property
    def monolingual(self) -> bool:
        """Whether a law may be fitted on it."""
        return len(self.result["languages"]) == 1

    @property
    def share(self) -> str:
        """p(language) over the stages of the run, as in '90→10%'."""
        return "→".join(f"{100 * stage[self.position]:.3g}" for stage in self.result["stages"]) + "%"

    @property
    def ceiling(self) -> float:
        """TEff if each token of the run were one of this language."""
        return self.result["tokens"] / self.seen if self.seen else math.nan

    def worth(self, tokens) -> dict:
        """MLTE and what follows from it, if a monolingual model needs so many `tokens`."""
        found = {"mlte": tokens, "token_efficiency": tokens / self.seen}
        foreign = self.result["tokens"] - self.seen
        return found | ({"gain": (tokens - self.seen) / foreign} if foreign else {})

    @property
    def near_the_law(self) -> bool:
        """Whether MLTE is a number of tokens that the law can be asked about."""
        return bool(self.law) and self.law.fewest / NEAR <= self.mlte.value <= self.law.most * NEAR

    def text(self, measure: str) -> str:
        """TEff or gain with its interval; * lies outside the fitted range. Far outside, the end of the range."""
        found = getattr(self, measure)
        if math.isnan(found.value):
            return "-"
        if not self.near_the_law:
            above = self.mlte.value > self.law.most
            end = Quantity(self.worth(self.law.most if above else self.law.fewest)[measure])
            return f"{'<>'[above]} {end.text(2)}"
        ends = (self.worth(end)[measure] for end in (self.law.fewest / NEAR, self.law.most * NEAR))
        return found.text(2, *ends) + "*" * (not self.law.covers(self.mlte.value))


def compare_rows(one: Row, other: Row, measure: str) -> Quantity:
    """one - other in ppl, token_efficiency or gain; they are told apart if its interval excludes(0).

    Both are drawn with the same laws and documents, and what these do to both cancels: the interval is
    narrower than those of the two rows suggest.
    """
    with np.errstate(invalid="ignore"):  # inf - inf
        return quantity(one.drawn[measure] - other.drawn[measure])


class Fitted(NamedTuple):
    """All that is known of some folders of runs."""

    results: list[dict]
    laws: dict[LawKey, Law]
    intervals: dict[LawKey, dict[str, Quantity]]  # of a, b and c
    points: dict[LawKey, list[Measured]]
    rows: list[Row]
    ladder: str  # of LADDERS


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
    found = {"ppl": drawn.same_documents[place]}
    if row.seen:
        found |= row.worth(drawn.law.tokens(drawn.perplexities[place]))
    if law.covers(row.seen):
        found["mlpe"] = drawn.law.perplexity(row.seen)
    return row._replace(law=law, drawn=found, **{name: quantity(values) for name, values in found.items()})


def best_of_each_length(points: list[Measured]) -> list[Measured]:
    """Of runs on as many tokens that with the lowest perplexity. Its luck counts against the mixed runs."""
    best: list[Measured] = []
    for point in sorted(points, key=lambda point: point.tokens):
        if best and point.tokens <= best[-1].tokens * SAME_LENGTH:
            best[-1] = min(best[-1], point, key=lambda point: point.ppl)
        else:
            best.append(point)
    return best


def fit(folders: list[Path], ladder: str = "recipe", paper_fit: bool = False) -> Fitted:
    """Read the folders, fit the laws, and work out every row."""
    results = collect(folders)
    groups = experiments(results)
    rows = [row_of(group, position) for group in groups for position in range(len(group[0]["languages"]))]
    by_law = defaultdict(list)
    for number, row in enumerate(rows):
        recipe, source = settings_but(LADDERS[ladder][1], row.result), row.result["sources"][row.position]
        by_law[LawKey(row.result["size"], recipe, source)].append(number)

    laws, intervals, points, missing = {}, {}, {}, {}
    for key, numbers in by_law.items():
        own = [rows[number] for number in numbers]
        yardstick = [row.found for row in own if row.monolingual]
        if ladder == "best":
            yardstick = best_of_each_length(yardstick)
        try:
            law = fit_law([run.tokens for run in yardstick], [run.ppl for run in yardstick], paper_fit)
        except UserError as error:
            reason = f"no law for {key.size}, {key.source}: {error}"
            missing[reason] = missing.get(reason) or len(yardstick) < len(own)
            continue
        drawn = resample(law, yardstick, [row.found for row in own], paper_fit)
        laws[key], points[key] = law, yardstick
        intervals[key] = {name: quantity(getattr(drawn.law, name)) for name in "abc"}
        for place, number in enumerate(numbers):
            rows[number] = with_law(rows[number], law, drawn, place)
    if not laws:
        raise UserError("; ".join(missing))
    for reason in [reason for reason, mixed in missing.items() if mixed]:
        print(reason)
    return Fitted(results, laws, intervals, points, rows, ladder)


# --- what is printed and drawn --------------------------------------------------------------------

COLUMNS = ("run", "language", "tokens", "PPL", "PPL alone", "TEff [95%]", "at most", "gain [95%]")
EXPLANATION = """\
PPL alone: of a monolingual model on as many tokens of the language (MLPE); - where no monolingual run is as
short or as long. TEff: the tokens that such a model needs for this perplexity, per token of the language:
above 1, the other languages helped. At most: 1 / its share of the run, as if all were one language. Gain: the
tokens it would need more, per token of the others; 0 nothing is shared, 1 everything. In monolingual rows TEff
tells how closely the law fits. * lies outside the fitted range; far outside, only > or < its end is known.
[95%] covers how far single runs and the law itself are off, how well so few lengths determine it, and the
choice of test documents; not what all runs share (text, recipe). Two rows may differ although their intervals
overlap.
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
        what = (row.run, row.language, count(row.seen), perplexity_text(row.ppl.value))
        alone = row.mlpe.text(1).split(" ")[0]
        ceiling = "-" if row.monolingual else Quantity(row.ceiling).text(1)
        lines.append((*what, alone, row.text("token_efficiency"), ceiling, row.text("gain")))
    text = markdown(COLUMNS, lines, 2) + "\n"
    for key, name in names_of(fitted.laws).items():
        law, exponent = fitted.laws[key], fitted.intervals[key]["b"]
        formula = f"{law.c:.4g} {'-+'[law.a < 0]} {abs(law.a):.4g} * (tokens / 1.2e9)^{-law.b:.4g}"
        lengths = f"{len(fitted.points[key])} lengths from {count(law.fewest)} to {count(law.most)} tokens"
        surely = f"b = {exponent.text(3)}"
        if math.isnan(exponent.low):
            surely = "no intervals: they need a fourth length, and a law that has a perplexity for each"
        text += f"Law of {name}: 1/PPL = {formula}, fitted on {lengths}; {surely}.\n"
    text += f"Its runs are monolingual ones {LADDERS[fitted.ladder][0]}.\n"
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
    name, worth = best.language, best.text("token_efficiency")
    text = f"Best for {name}: {100 * share(best):.3g}% of it ({best.run}), TEff {worth}.\n"
    close = [row for row in mixed if not compare_rows(best, row, "token_efficiency").excludes(0)]
    least = min(close, key=lambda row: row.result["tokens"])
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
        left.plot(*zip(*((run.tokens, run.ppl) for run in fitted.points[key])), "o", color="black")
    for row in mixed:
        if row.seen and row.ppl.value < 1e6:  # what was never learned would squeeze all others together
            left.scatter(row.seen, row.ppl.value, color=colours[row.run], marker="D", zorder=3)
    left.set(xscale="log", yscale="log", xlabel="training tokens of the language", ylabel="test perplexity")
    for axis in (left.xaxis, left.yaxis):
        axis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
        axis.set_major_formatter(lambda value, _: count(value))
        axis.set_minor_formatter(lambda value, _: count(value))
    left.legend(frameon=False)

    known = [row.token_efficiency if row.near_the_law else Quantity(0.0) for row in mixed]
    value, low, high = np.array(known).reshape(-1, 3).T
    longest = max([1.0, *value])
    high = np.minimum(high, 3 * longest)  # an interval that is far longer, or without end, leaves the axes
    colour = [colours[row.run] for row in mixed]
    bars = right.barh(range(len(mixed)), value, color=colour, xerr=[value - low, high - value])
    right.bar_label(bars, ["" if row.near_the_law else row.text("token_efficiency") for row in mixed])
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
    parser.add_argument(
        "--ladder",
        choices=LADDERS,
        default="recipe",
        help="yardstick of a mix: monolingual runs of its recipe, of as many steps, or with the best batch",
    )
    parser.add_argument("--paper-fit", action="store_true", help="least squares on 1 / PPL, as in the paper")
    parser.add_argument("--recommend", action="store_true", help="also say which mix helps the rarest most")
    args = parser.parse_args(arguments)
    fitted = fit(args.folders, args.ladder, args.paper_fit)
    out = args.out or args.folders[0]
    text = table(fitted) + (f"\n{recommend(fitted.rows)}" if args.recommend else "")
    laws = []
    for key, law in fitted.laws.items():
        points = [point._asdict() for point in fitted.points[key]]
        intervals = {name: interval[1:] for name, interval in fitted.intervals[key].items()}
        found = {"points": points, "intervals_95": intervals}
        laws.append({"source": key.source} | json.loads(key.recipe) | law._asdict() | found)
    write(out / "table.md", text)
    how = {"law": "1 / PPL = c - a * (tokens / 1.2e9)^-b", "ladder": args.ladder, "paper_fit": args.paper_fit}
    write(out / "laws.json", how | {"laws": laws})
    draw(fitted, out / "figure.png")
    print(f"{text}\ntable: {out / 'table.md'}\nfigure: {out / 'figure.png'}")


if __name__ == "__main__":
    run_script(main)
