"""What runs say together: the law of monolingual ones, and the worth of a token of each language.

    python fit_scaling.py out/table1                     # table.md, laws.json and figure.png beside the runs
    python fit_scaling.py out/table1 out/table1-seed1    # two seeds: rows are means, intervals cover both
    python fit_scaling.py out/table1 --ladder recipe     # against runs of the same batch, not the best one
    python fit_scaling.py out/mine --recommend           # page.md: which mix serves the rarest language best

Monolingual runs give the law 1 / PPL = c - a * x^-b, with x = training tokens / 1.2 billion (appendix B of
the paper). Read forwards, it says which perplexity a monolingual model reaches on so many tokens (MLPE);
inverted, how many tokens it needs for a perplexity (MLTE). Token efficiency, TEff = MLTE / tokens of the
language seen, is what one token was worth: above 1, other languages helped. Were all languages one it would
be 1 / share, and the gain per foreign token, (MLTE - tokens) / tokens of the others, 1 whatever the share.
MLTE - tokens is the head start: if it stays the same however long the others are read, they only took the
model over a plateau; knowledge that is shared grows with them.

At the paper's scale b is positive, and 1 / c a perplexity that no text improves on. Small models on little
text first learn nothing for a while, then fast: no power law. Unless b is surely positive, both are read off
straight lines of log PPL over log tokens, from each monolingual run to the next.
"""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from common import Parser, UserError, count, markdown, read_json, run_script, write

REFERENCE_TOKENS = 1.2e9  # x = 1 in the law
SMALLEST_EXPONENT = 1e-3  # below it the law is as good as a logarithm, and a and c would grow without bound
RESAMPLES = 2000
LARGEST_LOG = 50.0  # of a resampled perplexity: one degree of freedom allows draws that no computer can hold

# Runs are one experiment if they agree in every setting of config.json but these. They share a law if they
# agree in all but those of their ladder, and the language has the same source.
NOT_OF_THE_EXPERIMENT = {"seed", "data"}
NOT_OF_THE_LAW = NOT_OF_THE_EXPERIMENT | {
    "code", "sources", "vocab", "anchors", "shared", "stages", "tokens", "steps",
}  # fmt: skip
LADDERS = {  # which monolingual runs are the yardstick, and in what else they may differ from a mixed run
    "recipe": ("of the same recipe", NOT_OF_THE_LAW),
    "steps": ("of as many steps, whatever their batch", NOT_OF_THE_LAW - {"steps"} | {"batch"}),
    "best": ("that are the best of their length", NOT_OF_THE_LAW | {"batch", "learning_rate", "warmup"}),
}
YARDSTICKS = ("law", "paper", "lines")  # by errors of log PPL, or, as the paper does, of 1 / PPL
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
        """MLTE: tokens that a monolingual model needs for `perplexity`; infinite or 0 where the law ends."""
        with np.errstate(all="ignore"):
            gap = np.maximum((self.c - 1 / perplexity) / self.a, 0)
            return REFERENCE_TOKENS * np.power(gap, -1 / self.b)

    def covers(self, tokens: float) -> bool:
        """Whether `tokens` lies within the fitted range, give or take a twentieth."""
        return self.fewest / 1.05 <= tokens <= self.most * 1.05


class Lines(NamedTuple):
    """Straight lines of log PPL over log tokens, from one run to the next; the outer ones go on."""

    log_tokens: np.ndarray  # (points,), rising
    logs: np.ndarray  # (points,) or (sets, points), falling
    fewest: float
    most: float

    @classmethod
    def through(cls, tokens: np.ndarray, logs: np.ndarray) -> "Lines":
        """Lines through (points,) tokens and (..., points) logs of PPL; more text never makes one worse."""
        order = np.argsort(tokens)
        falling = np.minimum.accumulate(logs[..., order], -1) - 1e-9 * np.arange(len(order))
        return cls(np.log(tokens[order]), falling, float(min(tokens)), float(max(tokens)))

    def perplexity(self, tokens):
        """MLPE, as of the law."""
        return np.exp(along(np.log(tokens), self.log_tokens, self.logs))

    def tokens(self, perplexity):
        """MLTE, as of the law."""
        with np.errstate(over="ignore"):  # beyond a flat end
            return np.exp(along(-np.log(perplexity), -self.logs, self.log_tokens))

    covers = Law.covers


def along(x, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """The lines through (..., points) xs, rising, and ys, at each x (...)."""
    steps, place = np.diff(xs), np.arange(xs.shape[-1] - 1)
    beyond = np.asarray(x, float)[..., None] - xs[..., :-1]
    first, last = np.where(place == 0, -np.inf, 0), np.where(place == place[-1], np.inf, steps)
    return ys[..., 0] + (beyond.clip(first, last) / steps * np.diff(ys)).sum(-1)


def bend(b: np.ndarray, log_x: np.ndarray) -> np.ndarray:
    """(1 - x^-b) / b, which is log(x) at b = 0: what the law is a straight line in."""
    safe = np.where(b == 0, 1.0, b)
    return np.where(b == 0, log_x, -np.expm1(-safe * log_x) / safe)


def fit_laws(tokens: np.ndarray, perplexities: np.ndarray, paper_fit: bool = False) -> Law:
    """Least squares, for (sets, points) of perplexities of runs on the same (points,) tokens.

    For a given b the law is a straight line in a bent x, so only b is searched for: on ever finer grids, by
    the parabola through the best three. Sets that do not fall become nan.
    """
    # A run is off by so many percent, whatever its perplexity: errors of log PPL are alike, those of 1 / PPL
    # are not, for d(1 / PPL) = -d(log PPL) / PPL. The paper gives the latter equal weights.
    weights = np.ones(len(tokens)) if paper_fit else perplexities[0] ** 2
    weights, y = weights / weights.sum(), 1 / perplexities
    log_x = np.log(tokens / REFERENCE_TOKENS)
    middle = log_x.mean()  # powers of numbers near 1 keep the equations well conditioned
    y_mean = (weights * y).sum(1, keepdims=True)

    def line(b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each exponent, (sets or 1, n): slope of the best line, mean of the bent x, squares explained."""
        x = bend(b[..., None], log_x - middle)
        x_mean = (weights * x).sum(-1, keepdims=True)
        product = (weights * (x - x_mean) @ (y - y_mean)[..., None])[..., 0]
        square = (weights * (x - x_mean) ** 2).sum(-1)
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
    slope, b = np.where(slope > 0, [slope, b[:, 0]], np.nan)
    level = y_mean[:, 0] - slope * x_mean
    return Law(slope / b * np.exp(b * middle), b, level + slope / b, float(min(tokens)), float(max(tokens)))


def fit_law(tokens, perplexities, yardstick: str | None = None) -> Law | Lines:
    """One of YARDSTICKS for one set of runs; by default the law."""
    tokens, perplexities = np.array(tokens), np.array(perplexities)
    if (lengths := len(set(tokens))) < 3:
        raise UserError(f"found {lengths} lengths of monolingual runs (train.py --ratio 1), expected three")
    law = fit_laws(tokens, perplexities[None], yardstick == "paper")
    if not np.isfinite(law.a[0]):
        raise UserError("perplexities of the monolingual runs do not fall as their tokens grow")
    if yardstick == "lines":
        return Lines.through(tokens, np.log(perplexities))
    return law._replace(a=float(law.a[0]), b=float(law.b[0]), c=float(law.c[0]))


# --- how surely -----------------------------------------------------------------------------------


class Measured(NamedTuple):
    """What one experiment found in one language: a point of the law, or a row of the table."""

    tokens: float
    perplexities: dict[int, float]  # by seed
    error: float = 0.0  # relative standard error over the test documents
    kind: int = 0  # 1 in a mix, 2 with less than 40% of one, 3 in one of many languages: noise of its own

    @property
    def logs(self) -> np.ndarray:
        """Logarithms of the perplexities."""
        return np.log(list(self.perplexities.values()))

    @property
    def ppl(self) -> float:
        """Geometric mean over the seeds."""
        return math.exp(self.logs.mean())


def resample(law: Law | Lines | None, points: list[Measured], rows: list[Measured], paper_fit=False, seed=0):
    """How the law and the rows might have come out, had the same experiments been done again.

    log PPL = log law(tokens) + misfit of the number of tokens + noise of the run, both normal:

    * Noise is a run's own and averages out over seeds: its variance is that within rows of several seeds, by
      itself for each kind.
    * Misfit, the law being but a formula, is the same for all seeds. How far n points lie off the law, with
      n - 3 degrees of freedom, is both; where nothing has a second seed, rows are as far off as points.
      Lines meet their points, but not the bends between: a point is y'' / 2 * d1 * d2 off the line between
      its neighbours, at distances d1 and d2, and the middle of a gap d is y'' / 2 * d^2 / 4 off its line.
    * Degrees of freedom are few, so variances are uncertain and drawn, too (chi-squared, as in a t test).
    * Documents: one draw moves each perplexity by its own standard error, as if all runs found the same ones
      hard. What is hard for all cancels in TEff.

    Returns a law of (1 + RESAMPLES,) sets and two of (rows, 1 + RESAMPLES) perplexities, the second without
    the draw of documents. First comes what was found; a law of three points leaves all others nan. Where
    there is no law it is None, as `law` and its points are.
    """
    bent = isinstance(law, Lines)
    points = sorted(points, key=lambda point: point.tokens)
    tokens = np.array([point.tokens for point in points])
    found = np.array([point.logs.mean() for point in points])
    random = np.random.default_rng(seed)
    documents = np.append(0, random.standard_normal(RESAMPLES))  # 0: as it was found

    def deviation(squares: float, freedom: int) -> np.ndarray:
        drawn = squares / random.chisquare(freedom, RESAMPLES) if freedom > 0 else np.full(RESAMPLES, np.nan)
        return np.append(0, np.sqrt(drawn))

    def chance(run: Measured, what: int) -> np.ndarray:
        # Seeded by the run itself: what else is in the table does not change what it draws.
        which = np.array([run.tokens, *run.perplexities.values()]).view(np.uint32)
        return np.random.default_rng([seed, what, *which]).standard_normal(1 + RESAMPLES)

    if bent:
        inner = range(1, len(points) - 1)
        without = [Lines.through(np.delete(tokens, i), np.delete(found, i)) for i in inner]
        off = found[1:-1] - np.log(
            [lines.perplexity(tokens[i]) for i, lines in zip(inner, without, strict=True)]
        )
        expected, freedom = found, len(off)
    else:
        expected = np.log([law.perplexity(n) for n in tokens])
        off, freedom = found - expected, len(points) - 3 if np.isfinite(expected).all() else 0
    off_the_law = deviation((off**2).sum(), freedom)
    noise = [off_the_law] * 4  # of each kind
    for kind in range(4):
        within = [row.logs - row.logs.mean() for row in rows if row.kind == kind]
        if seeds := sum(len(logs) - 1 for logs in within):
            noise[kind] = deviation(sum((logs**2).sum() for logs in within), seeds)

    same = [row.logs.mean() + noise[row.kind] / math.sqrt(len(row.logs)) * chance(row, 1) for row in rows]
    moved = [logs + row.error * documents for logs, row in zip(same, rows, strict=True)]
    moved, same = (np.exp(np.clip(logs, 0, LARGEST_LOG)) for logs in (moved, same))
    if law is None:
        return None, moved, same
    sets = np.tile(expected[:, None], 1 + RESAMPLES)
    for place, point in enumerate(points):
        own = noise[0] / math.sqrt(len(point.logs)) if bent else off_the_law
        sets[place] += own * chance(point, 0) + point.error * documents
    sets[:, 0] = found
    if not bent:
        return fit_laws(tokens, np.exp(sets.clip(0, LARGEST_LOG)).T, paper_fit), moved, same
    gaps = np.diff(np.log(tokens))
    curvature = deviation(((off / (gaps[1:] * gaps[:-1])) ** 2).sum(), freedom)  # y'' / 2
    bends = [curvature * gap**2 / 4 * chance(point, 2) for gap, point in zip(gaps, points[:-1], strict=True)]
    middles, between = np.sqrt(tokens[1:] * tokens[:-1]), (sets[1:] + sets[:-1]) / 2 + bends
    return Lines.through(np.append(tokens, middles), np.vstack([sets, between]).T), moved, same


class Quantity(NamedTuple):
    """A number and its 95% interval: nan where there is none, and where the interval is not known."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def excludes(self, number: float) -> bool:
        """Whether the interval is known and does not hold `number`."""
        return number < self.low or self.high < number

    def text(self, decimals: int, least: float = -math.inf, most: float = math.inf) -> str:
        """'2.4 [1.1, >4]': no more decimals than its narrower side supports; cut at `least` and `most`."""
        if math.isnan(self.value):
            return "-"
        sides = [side for side in (self.value - self.low, self.high - self.value) if 0 < side < math.inf]
        if sides:
            decimals = min(decimals, 1 - math.floor(math.log10(2 * min(sides))))

        def rounded(part: float) -> str:
            sign = "<" if part < least else ">" if part > most else ""
            part = round(min(max(part, least), most), decimals) + 0.0  # no -0
            return sign + (count(part) if 1e4 <= abs(part) < math.inf else f"{part:.{max(decimals, 0)}f}")

        value, low, high = map(rounded, self)
        return value if math.isnan(self.low) else f"{value} [{low}, {high}]"


def quantity(drawn: np.ndarray) -> Quantity:
    """A number, the first, and the middle 95% of the others; a draw of nan counts at both ends."""
    value, unknown, margin = float(drawn[0]), np.isnan(drawn[1:]), int(0.025 * RESAMPLES)
    if unknown.all():
        return Quantity(value)
    low, high = (np.sort(np.where(unknown, end, drawn[1:])) for end in (-np.inf, np.inf))
    return Quantity(value, float(min(low[margin], value)), float(max(high[-1 - margin], value)))


# --- the runs -------------------------------------------------------------------------------------


class LawKey(NamedTuple):
    """What runs share that share a law."""

    size: str
    recipe: str  # every setting of config.json in which the runs of its ladder agree, as JSON
    source: str


class Row(NamedTuple):
    """One language of one experiment, and what its law says: as far as it is known, the others are nan."""

    run: str
    language: str  # EN2
    results: list[dict]  # result.json of each seed
    position: int  # among the languages of the run
    monolingual: bool  # a law may be fitted on it
    seen: float  # tokens
    share: float  # of the tokens of the run
    ppl: Quantity  # the interval is for a comparison with other runs on the same test text
    found: Measured  # by seed
    drawn: dict[str, np.ndarray]  # as ppl and the following: what was found, then what might have been
    law: Law | Lines | None = None
    mlpe: Quantity = Quantity(math.nan)  # only where the law is not extrapolated
    mlte: Quantity = Quantity(math.nan)
    token_efficiency: Quantity = Quantity(math.nan)  # MLTE / tokens seen
    gain: Quantity = Quantity(math.nan)  # (MLTE - tokens seen) / tokens of other languages
    head_start: Quantity = Quantity(math.nan)  # MLTE - tokens seen

    @property
    def result(self) -> dict:
        """result.json of the first seed: the settings are those of all."""
        return self.results[0]

    @property
    def source(self) -> str:
        """The text of the language: en."""
        return self.result["sources"][self.position]

    def with_bits(self, ppl: float) -> str:
        """'12.34 (2.413)': a perplexity of the language, and the bits per byte that it means."""
        entry = self.result["languages"][self.position]
        bits = (entry.get("bits_per_byte") or math.nan) * math.log(ppl) / math.log(entry["ppl"])
        return "-" if math.isnan(ppl) else f"{ppl:.2f} ({bits:.3f})"

    def worth(self, tokens) -> dict:
        """MLTE and what follows from it, if a monolingual model needs so many `tokens`."""
        found = {"mlte": tokens, "token_efficiency": tokens / self.seen, "head_start": tokens - self.seen}
        foreign = self.result["tokens"] - self.seen
        return found | ({"gain": (tokens - self.seen) / foreign} if foreign else {})

    def text(self, measure: str) -> str:
        """TEff or gain with its interval, * outside the fitted range; far outside only on which side."""
        found, needed, law = getattr(self, measure), self.mlte.value, self.law
        if math.isnan(found.value):
            return "-"
        if not law.fewest / NEAR <= needed <= law.most * NEAR:
            sign, end = (">", law.most) if needed > law.most else ("<", law.fewest)
            return f"{sign} {Quantity(self.worth(end)[measure]).text(2)}"
        ends = (self.worth(end)[measure] for end in (law.fewest / NEAR, law.most * NEAR))
        return found.text(2, *ends) + "*" * (not law.covers(needed))


def compare_rows(one: Row, other: Row, measure: str) -> Quantity:
    """one - other in a measure; they are told apart if it excludes(0). What laws do to both cancels."""
    with np.errstate(invalid="ignore"):  # inf - inf
        return quantity(one.drawn[measure] - other.drawn[measure])


class Fitted(NamedTuple):
    """All that is known of some folders of runs."""

    laws: dict[LawKey, Law | Lines]
    exponents: dict[LawKey, Quantity]  # b, of those that are a Law
    points: dict[LawKey, list[Measured]]
    rows: list[Row]
    ladder: str  # of LADDERS


def collect(folders: list[Path]) -> list[dict]:
    """Every evaluated result.json, monolingual and long runs first, with its "config", "name" and "run"."""
    results = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder, expected one that holds runs of train.py")
        for path in sorted(folder.rglob("result.json")):
            out, result = path.parent, read_json(path)
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
        raise UserError(f"{', '.join(map(str, folders))} holds no evaluated run of train.py")
    versions = dict.fromkeys(result["config"].get("code", "unknown") for result in results.values())
    if len(versions) > 1:
        print("the code changed between these runs, which have rows of their own:", ", ".join(versions))
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
    first, share = group[0], tokens / group[0]["tokens"]
    languages = len(first["languages"])
    kind = 0 if languages == 1 else 1 if share >= 0.4 else 2 if languages == 2 else 3
    run = first["run"] if len(group) == 1 else f"{first['name']} ({len(group)} seeds)"
    found = Measured(tokens, perplexities, sum(errors) / len(errors), kind)
    ppl, name = np.append(found.ppl, np.full(RESAMPLES, np.nan)), entries[0]["name"]
    return Row(run, name, group, position, languages == 1, tokens, share, quantity(ppl), found, {"ppl": ppl})


def with_law(
    row: Row, law: Law | Lines | None, laws, perplexities: np.ndarray, same_documents: np.ndarray
) -> Row:
    """A row and what its law says of it; the last three are found and drawn, as of `resample`."""
    found = {"ppl": same_documents}
    if law and row.seen:
        found |= row.worth(laws.tokens(perplexities))
    if law and law.covers(row.seen):
        found["mlpe"] = laws.perplexity(row.seen)
    return row._replace(law=law, drawn=found, **{name: quantity(values) for name, values in found.items()})


def best_of_each_length(points: list[Measured]) -> list[Measured]:
    """Of runs on as many tokens, give or take a twentieth, that with the lowest perplexity."""
    best = []
    for point in sorted(points, key=lambda point: point.ppl):
        if all(abs(run.tokens / point.tokens - 1) >= 0.05 for run in best):
            best.append(point)
    return best


def fit(
    folders: list[Path], ladder: str = "best", yardstick: str | None = None, law_needed: bool = True
) -> Fitted:
    """Read the folders, fit the laws, and work out every row."""
    groups = experiments(collect(folders))
    rows = [row_of(group, position) for group in groups for position in range(len(group[0]["languages"]))]
    by_law = defaultdict(list)
    for number, row in enumerate(rows):
        recipe = settings_but(LADDERS[ladder][1], row.result)
        by_law[LawKey(row.result["size"], recipe, row.source)].append(number)

    laws, exponents, points = {}, {}, {}
    for key, numbers in by_law.items():
        own = [rows[number] for number in numbers]
        # The best by luck, too, which counts against the mixed runs.
        alone = best_of_each_length([row.found for row in own if row.monolingual])
        try:
            law = fit_law([run.tokens for run in alone], [run.ppl for run in alone], yardstick)
        except UserError as error:
            reason = f"no law for {key.size}, {key.source} from runs {LADDERS[ladder][0]}: {error}"
            if not own[-1].monolingual and key.source != "noise":  # the placebo, which nobody reads alone
                print(reason)
            law, alone = None, []
        found = [row.found for row in own]
        drawn, *perplexities = resample(law, alone, found, yardstick == "paper")
        if isinstance(law, Law) and not yardstick and min(law.b, quantity(drawn.b).low) < 0:
            law = fit_law([run.tokens for run in alone], [run.ppl for run in alone], "lines")
            drawn, *perplexities = resample(law, alone, found)
        if law:
            laws[key], points[key] = law, alone
        if isinstance(law, Law):
            exponents[key] = quantity(drawn.b)
        for number, *of_row in zip(numbers, *perplexities, strict=True):
            rows[number] = with_law(rows[number], law, drawn, *of_row)
    if law_needed and not laws:
        raise UserError(reason)
    return Fitted(laws, exponents, points, rows, ladder)


# --- what is printed and drawn --------------------------------------------------------------------

COLUMNS = (
    "run", "language", "tokens", "PPL", "PPL alone", "TEff [95%]", "at most", "gain [95%]", "head start",
)  # fmt: skip
EXPLANATION = """\
PPL alone: of a monolingual model on as many tokens of it (MLPE); - where no such run is as short or as long.
TEff: tokens that it needs for this PPL, per token of the language; above 1, others helped. At most: 1 / share
of the run, were all one language. Gain: tokens that it needs more, per token of the others: 0 nothing is
shared, 1 everything. Head start: tokens that it needs more; the same in a longer run means that a plateau was
left sooner, more of it that knowledge is shared. * is outside the fitted range; far outside, only its end is
known. TEff of a law's own runs tells how closely it fits; lines meet theirs. [95%] covers noise of runs,
misfit and few points of the law, the choice of test documents; not what all runs share. Rows may differ
although their intervals overlap.
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


def floors(fitted: Fitted) -> dict[str, list[tuple[float, float]]]:
    """What counting reaches: by n, (tokens, perplexity) of n-grams on the text of each monolingual run."""
    lines = defaultdict(list)
    for row in fitted.rows:
        for n, perplexity in row.result.get("ngrams", {}).items():
            lines[n].append((row.seen, perplexity))
    return {n: sorted(points) for n, points in lines.items()}


def sharing(fitted: Fitted) -> str:
    """Which pieces have one id in all languages of a mix, in a line; nothing if no mix shares any."""
    runs = defaultdict(list)
    for row in fitted.rows:
        if not row.monolingual and row.position == 0:
            runs[", ".join(map(repr, row.result["config"].get("shared", []))) or "nothing"].append(row.run)
    if set(runs) <= {"nothing"}:
        return ""
    parts = [f"{shared} in {', '.join(names)}" for shared, names in runs.items()]
    return f"Languages share, beside padding: {'; '.join(parts)}.\n"


def table(fitted: Fitted) -> str:
    """The rows as a Markdown table, the laws in words, and what the columns mean."""
    lines = []
    for row in fitted.rows:
        what = (row.run, row.language, count(row.seen), Quantity(row.ppl.value).text(1))
        alone = row.mlpe.text(1).split(" ")[0]
        ceiling = f"{1 / row.share:.1f}" if row.share and not row.monolingual else "-"
        worth = row.text("token_efficiency"), ceiling, row.text("gain"), row.text("head_start").split(" [")[0]
        lines.append((*what, alone, *worth))
    text = markdown(COLUMNS, lines, 2) + "\n"
    for key, name in names_of(fitted.laws).items():
        law, exponent, runs = fitted.laws[key], fitted.exponents.get(key), len(fitted.points[key])
        tokens = f"{count(law.fewest)} to {count(law.most)} tokens"
        if exponent:
            formula = f"{law.c:.4g} {'-+'[law.a < 0]} {abs(law.a):.4g} * (tokens / 1.2e9)^{-law.b:.4g}"
            text += f"Law of {name}: 1/PPL = {formula}; b = {exponent.text(3)}.\nFitted on"
        else:
            text += f"Yardstick of {name}: straight lines of log PPL over log tokens.\nThey join"
        text += f" {runs} monolingual runs {LADDERS[fitted.ladder][0]}, {tokens}.\n"
        if exponent and math.isnan(exponent.low):
            text += "No intervals: they need a fourth run, and a law that has a perplexity for each.\n"
    text += sharing(fitted)
    if counted := floors(fitted):
        reached = ", ".join(f"{points[-1][1]:.1f} (n = {n})" for n, points in counted.items())
        most = max(tokens for tokens, _ in counted["1"])
        text += f"Counting n-grams of {count(most)} tokens reaches a perplexity of {reached}.\n"
    return text + EXPLANATION


def draw(fitted: Fitted, path: Path) -> None:
    """Left: perplexity against tokens of the language, and the laws. Right: TEff and its ceiling."""
    mixed = [row for row in fitted.rows if not row.monolingual]
    runs = list(dict.fromkeys(row.run for row in mixed))
    colours = [f"C{runs.index(row.run) % 10}" for row in mixed]
    figure = Figure(figsize=(11, max(4.2, 0.32 * len(mixed) + 1.2)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)

    for key, name in names_of(fitted.laws).items():
        law = fitted.laws[key]
        curve = np.geomspace(law.fewest, law.most, 100)
        left.plot(curve, law.perplexity(curve), color="0.6", zorder=1, label=f"{name} alone")
        left.plot(*np.array([(run.tokens, run.ppl) for run in fitted.points[key]]).T, "ko")
    for n, line in floors(fitted).items():
        left.plot(*np.transpose(line), color="0.8", linewidth=1, zorder=0)
        left.annotate(f"{n}-grams ", line[0], color="0.6", fontsize=8, ha="right", va="center")
    highest = 10 * max((run.ppl for runs in fitted.points.values() for run in runs), default=1e5)
    for row, colour in zip(mixed, colours, strict=True):
        if row.seen and row.ppl.value < highest:  # what was never learned would squeeze all others together
            left.scatter(row.seen, row.ppl.value, color=colour, marker="D", zorder=3)
    left.set(xscale="log", yscale="log", xlabel="training tokens of the language", ylabel="test perplexity")
    for axis in (left.xaxis, left.yaxis):
        text = FuncFormatter(lambda value, _: count(value))
        axis.set(minor_locator=LogLocator(subs=(2, 3, 5)), major_formatter=text, minor_formatter=text)
    if fitted.laws:
        left.legend(frameon=False)

    least = 0.3
    for place, (row, colour) in enumerate(zip(mixed, colours, strict=True)):
        right.plot(1 / row.share if row.share else math.nan, place, "|", color="0.4", markersize=14)
        label, (value, low, high) = row.text("token_efficiency"), row.token_efficiency
        if label[0].isdigit():
            low, high = max(low, value / 1e3), min(high, value * 1e3)  # a logarithm has no 0 and no end
            least = min(least, 0.8 * value)
            right.errorbar(
                value, place, xerr=[[value - low], [high - value]], fmt="D", color=colour, capsize=3
            )
        else:  # nothing known, or only "> 5.00"
            right.text(1.1, place, label, va="center")
    right.set_yticks(range(len(mixed)), [f"{row.run}: {row.language}" for row in mixed])
    most = 1.3 * max([2.0, *(1 / row.share for row in mixed if row.share)])
    right.set(xlabel="TEff: worth of one token\n|: all that sharing could give")
    right.set(xscale="log", xlim=(least, most))
    right.xaxis.set(minor_locator=LogLocator(subs=(2, 5)), major_formatter="{x:g}", minor_formatter="{x:g}")
    right.axvline(1, color="0.4", linestyle=":")
    right.set_ylim(max(1, len(mixed)) - 0.5, -0.5)
    write(path, figure)


# --- which mix serves the rarest language -----------------------------------------------------------

SHOWN = ("alone", "as many steps", "as long", "noise", "in the mix")  # perplexities of a mix and its controls
PAGE = """\
## {tokens} tokens of {language}, GPT {size}, seeds: {seeds}

{advice}
{table}
Perplexity of {language} (bits per byte). Alone: on as many tokens of it, in batches of the same size; as many
steps: in smaller ones, down to one sequence; as long: on as many tokens as the mix ({text} differ, then they
repeat). Noise: the mix, but with the first language's tokens shuffled. Noise - mix is what the others
are responsible for. Alone - mix: the best run alone that is no longer and has no more text. Brackets are
95% intervals; for those of the first line the best is picked anew in each draw. Larger models may differ.

"""


def near(rows: list[Row], tokens: float) -> list[Row]:
    """Those that saw so many tokens, give or take a twentieth."""
    return [row for row in rows if abs(row.seen / tokens - 1) < 0.05]


def mixes_of_the_rarest(rows: list[Row]) -> list[list[Row]]:
    """Its row in each mix, the cheapest first; those of one size with as many tokens of it together."""
    mixed = [row for row in reversed(rows) if not row.monolingual and "noise" not in row.result["sources"]]
    if not mixed:
        raise UserError("--recommend needs mixes of languages, found none")
    rarest, groups = min(mixed, key=lambda row: (row.share, -row.position)), []
    left = [row for row in mixed if row.language == rarest.language]
    while left:
        size = left[0].result["size"]
        groups.append([row for row in near(left, left[0].seen) if row.result["size"] == size])
        left = [row for row in left if row not in groups[-1]]
    return groups


def controls(mix: Row, rows: list[Row], text: int) -> dict[str, list[Row]]:
    """By SHOWN, and all opponents; `text`: how many tokens there are to train on in the mix's language."""
    size, total, batch, steps = (mix.result[name] for name in ("size", "tokens", "batch", "steps"))
    own = [row for row in rows if row.source == mix.source and row.result["size"] == size]
    alone = [row for row in own if row.monolingual]
    most = 1.05 * mix.seen  # different tokens
    once = sorted(near(alone, mix.seen), key=lambda row: abs(math.log(row.result["steps"] / steps)))
    noisy = [row for row in near(own, mix.seen) if "noise" in row.result["sources"]]
    return {
        "alone": [row for row in once if row.result["batch"] == batch],
        "as many steps": once[:1],
        "as long": [row for row in near(alone, total) if row.result["batch"] == batch],
        "noise": [row for row in noisy if row.result["tokens"] == total],
        "in the mix": [mix],
        "opponents": [row for row in alone if row.seen < 1.05 * total and min(row.seen, text) < most],
    }


def lowest(rows: list[Row]) -> np.ndarray:
    """The lowest perplexity of these rows in each draw, nan where there are none."""
    return np.min([row.drawn["ppl"] for row in rows] or [np.full(1 + RESAMPLES, np.nan)], axis=0)


def of_the_best(ppl: np.ndarray, values: np.ndarray) -> Quantity:
    """A value of the mix with the lowest perplexity, corrected for having picked it; both are (mixes, draws).

    The lowest is so by luck, too. In each draw the pick is made anew; its value is as far off what was found
    of that mix as that of the real pick may be. The median of this is taken off, its spread is the interval.
    """
    picked = ppl.argmin(0)
    off = values[picked, np.arange(len(picked))] - values[picked, 0]
    drawn = values[picked[0], 0] - off
    drawn[0] -= np.nan_to_num(np.median(off[1:]))
    return quantity(drawn)


def advise(names: list[str], ppl: np.ndarray, gains: dict[str, np.ndarray]) -> str:
    """Which mix to take, and what cannot be told from it, or why none: the cheapest first, (mixes, draws)."""
    found = {name: of_the_best(ppl, gain) for name, gain in gains.items()}
    best, least = int(ppl[:, 0].argmin()), ppl[:, 0].min()
    lowest = ", ".join(f"{name} {by.text(2, -least, least)}" for name, by in found.items())
    lowest = f"lowest: {names[best]}; {lowest}"
    if doubts := [name for name, by in found.items() if not by.low > 0]:
        return f"**No mix is recommended**: {' and '.join(doubts)} may be 0 or less ({lowest}).\n"
    worse = [of_the_best(ppl, one - ppl) for one in ppl]
    as_good = [i for i, by in enumerate(worse) if not by.low > 0]
    told = [f"{names[i]} is worse by {by.text(2)}" for i, by in enumerate(worse) if i not in as_good]
    told += [f"{names[i]} cannot be told from the best" for i in as_good]
    helps = [i for i in as_good if all(quantity(gain[i]).low > 0 for gain in gains.values())] or [best]
    return f"**{names[min(helps)]} is recommended** ({lowest}): {'; '.join(told)}.\n"


def page(rows: list[Row], path: Path) -> str:
    """How each mix serves the rarest language, and which to take, as Markdown; `path` gets the picture."""
    groups, text = mixes_of_the_rarest(rows), ""
    figure = Figure(figsize=(5.5 * len(groups), 4.2), layout="constrained")
    for mixes, axes in zip(groups, figure.subplots(1, len(groups), squeeze=False)[0], strict=True):
        first, lines = mixes[0], []
        meta = read_json(Path(first.result["data"]) / "meta.json")
        available = meta["languages"][first.source]["train"]["tokens"]
        beside = [controls(mix, rows, available) for mix in mixes]
        ppl = {name: np.array([lowest(own[name]) for own in beside]) for name in beside[0]}
        gains = {"noise - mix": ppl["noise"] - ppl["in the mix"]}
        gains["alone - mix"] = ppl["opponents"] - ppl["in the mix"]
        for i, mix in enumerate(mixes):
            name = f"{mix.result['name']} ({100 * mix.share:.3g}%)"
            cells = [mix.with_bits(ppl[name][i, 0]) for name in SHOWN]
            cells += [quantity(gain[i]).text(2, -mix.ppl.value, mix.ppl.value) for gain in gains.values()]
            others = [row for row in rows if row.result is mix.result and row is not mix]
            others = [f"{row.language} {row.with_bits(row.ppl.value)}" for row in others]
            lines.append((name, *cells, ", ".join(others)))
        text += PAGE.format(
            tokens=count(first.seen),
            language=first.language,
            size=first.result["size"],
            seeds=len(first.found.perplexities),
            text=count(available),
            advice=advise([line[0] for line in lines], ppl["in the mix"], gains),
            table=markdown(("mix", *SHOWN, *gains, "others"), lines),
        )
        shares = [100 * mix.share for mix in mixes]
        for name in SHOWN:
            value, low, high = np.array([quantity(drawn) for drawn in ppl[name]]).T
            axes.errorbar(shares, value, [value - low, high - value], fmt="o:", capsize=3, label=name)
        axes.set(xlabel=f"percent of {first.language} in the mix", ylabel="its test perplexity", xscale="log")
        axes.set_xticks(shares, [f"{share:.3g}" for share in shares])
        axes.minorticks_off()
        axes.legend(frameon=False)
    write(path, figure)
    return text + f"![perplexity by share, with intervals]({path.name})\n\n"


def main(arguments: list[str] | None = None) -> None:
    """Fit, print and draw what the runs below the given folders say."""
    parser = Parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="out/FOLDER", help="hold evaluated runs")
    parser.add_argument("--out", type=Path, help="where table, laws and figure go (the first folder)")
    parser.add_argument("--ladder", choices=LADDERS, default="best", help="monolingual runs to fit (best)")
    parser.add_argument(
        "--yardstick", choices=YARDSTICKS, help="(law if its b is surely positive, else lines)"
    )
    parser.add_argument("--recommend", action="store_true", help="also page.md: the mix for the rarest")
    args = parser.parse_args(arguments)
    fitted = fit(args.folders, args.ladder, args.yardstick, law_needed=not args.recommend)
    text, out = table(fitted), args.out or args.folders[0]
    if args.recommend:
        text = page(fitted.rows, out / "page.png") + text
    laws = []
    for key, law in fitted.laws.items():
        points = [point._asdict() for point in fitted.points[key]]
        own = {"source": key.source, "fewest": law.fewest, "most": law.most, "points": points}
        if exponent := fitted.exponents.get(key):
            own |= law._asdict() | {"b_95": exponent[1:]}
        laws.append(json.loads(key.recipe) | own)
    how = {"law": "1 / PPL = c - a * (tokens / 1.2e9)^-b, where a, b, c are given, else lines between points"}
    how |= {"ladder": args.ladder, "yardstick": args.yardstick}
    write(out / ("page.md" if args.recommend else "table.md"), text)
    write(out / "laws.json", how | {"laws": laws})
    draw(fitted, out / "figure.png")
    print(f"{text}\nwritten to {out}")


if __name__ == "__main__":
    run_script(main)
