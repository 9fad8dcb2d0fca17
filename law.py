"""The scaling law of monolingual runs (appendix B of the paper): how many tokens a perplexity is worth, and how surely.

    1 / PPL = c - a * x^-b      x = training tokens / 1.2 billion

At the paper's scale b is positive, and 1 / c is the perplexity that no amount of text improves on. Models that have seen
little text improve faster than that: there b comes out negative, the same formula bends the other way, and it has no
asymptote. Both are one family, with c + a * log(x) between them, and the runs decide.

Read forwards, the law says which perplexity a monolingual model reaches on so many tokens (MLPE); inverted, how many
tokens it needs for a perplexity (MLTE). `resample` says how far both could be off: see there what its intervals cover.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from common import UserError

REFERENCE_TOKENS = 1.2e9  # x = 1 in the law: the paper's standard run
SMALLEST_EXPONENT = 1e-3  # below it the law is a logarithm to all intents, and a and c would grow without bound
EXPONENTS = np.arange(-3, 10.001, 0.02)  # where the best b is looked for before it is refined
RESAMPLES = 2000
LARGEST_LOG = 50.0  # of a resampled perplexity: one degree of freedom allows draws that no computer can hold
CONFIDENCE = 0.95


class Law(NamedTuple):
    """1 / PPL = c - a * (tokens / 1.2e9)^-b, and the range of tokens it was fitted on. a, b and c may be arrays of laws."""

    a: float | np.ndarray
    b: float | np.ndarray
    c: float | np.ndarray
    fewest: float
    most: float

    def perplexity(self, tokens: float) -> float | np.ndarray:
        """MLPE: the perplexity of a monolingual model trained on `tokens`; infinite where the law has none."""
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            inverse = np.asarray(self.c - self.a * np.power(tokens / REFERENCE_TOKENS, -self.b))
            return np.where(inverse > 0, 1 / inverse, np.where(np.isnan(inverse), np.nan, np.inf))[()]

    def tokens(self, perplexity: float | np.ndarray) -> float | np.ndarray:
        """MLTE: tokens that a monolingual model needs for `perplexity`.

        Infinite beyond the asymptote 1 / c if b > 0; 0 if b < 0 and the law expects less even of an untrained model.
        """
        gap = np.asarray(self.c - 1 / perplexity)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            needed = REFERENCE_TOKENS * np.power(self.a / gap, 1 / np.asarray(self.b))
        none = np.where(np.isnan(gap), np.nan, np.where(np.asarray(self.b) > 0, np.inf, 0.0))
        return np.where(gap * self.a > 0, needed, none)[()]

    def covers(self, tokens: float) -> bool:
        """Whether `tokens` lies within the fitted range, give or take a twentieth."""
        return self.fewest / 1.05 <= tokens <= self.most * 1.05


def bend(b: float | np.ndarray, log_x: np.ndarray) -> np.ndarray:
    """(1 - x^-b) / b, which is log(x) at b = 0: what the law is a straight line in."""
    safe = np.where(b == 0, 1.0, b)
    return np.where(b == 0, log_x, -np.expm1(-safe * log_x) / safe)


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
        """Squared error of the best line, its level and its slope."""
        columns = np.stack([np.ones_like(y), bend(b, log_x - middle)], axis=1)
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


def fit_laws_at_once(tokens: np.ndarray, perplexities: np.ndarray) -> Law:
    """The same for many sets of perplexities of the same (points,) tokens: (sets, points) -> one Law of (sets,) arrays.

    All sets and exponents are one matrix product. b is refined by the parabola through the best three exponents, which
    leaves an error far below what resampling is to show. Sets whose perplexity does not fall with tokens become nan.
    """
    log_x = np.log(np.asarray(tokens) / REFERENCE_TOKENS)
    middle = log_x.mean()
    y = 1 / perplexities
    y_mean = y.mean(1, keepdims=True)
    bent = bend(EXPONENTS[:, None], log_x - middle)
    bent = bent - bent.mean(1, keepdims=True)
    explained = ((y - y_mean) @ bent.T).clip(0) ** 2 / (bent**2).sum(1)  # (sets, exponents) squares that each b accounts for
    best = explained.argmax(1).clip(1, len(EXPONENTS) - 2)
    before, at, after = (np.take_along_axis(explained, best[:, None] + step, 1)[:, 0] for step in (-1, 0, 1))
    curvature = 2 * at - before - after
    shift = np.divide(after - before, 2 * curvature, out=np.zeros_like(at), where=curvature > 0).clip(-1, 1)
    b = EXPONENTS[best] + shift * (EXPONENTS[1] - EXPONENTS[0])
    b = np.where(np.abs(b) < SMALLEST_EXPONENT, SMALLEST_EXPONENT, b)
    x = bend(b[:, None], log_x - middle)
    x_mean = x.mean(1, keepdims=True)
    slope = ((x - x_mean) * (y - y_mean)).sum(1) / ((x - x_mean) ** 2).sum(1)
    slope = np.where(slope > 0, slope, np.nan)
    level = y_mean[:, 0] - slope * x_mean[:, 0]
    return Law(slope / b * np.exp(b * middle), b, level + slope / b, float(min(tokens)), float(max(tokens)))


# --- how surely -----------------------------------------------------------------------------------------------------


class Measured(NamedTuple):
    """The perplexity of one experiment in one language: a point of the law, or a row of a table."""

    tokens: float
    perplexities: dict[int, float]  # by seed
    error: float = 0.0  # relative standard error over the test documents

    @property
    def ppl(self) -> float:
        """Geometric mean over the seeds."""
        return math.exp(np.mean(np.log(list(self.perplexities.values()))))


class Resampled(NamedTuple):
    """Laws and rows as they might have come out: `law` of (n,) arrays, and the (n,) perplexities of each row.

    `same_documents` leaves the draw of documents out: for comparing perplexities of runs that were scored on one text.
    """

    law: Law
    perplexities: np.ndarray
    same_documents: np.ndarray


def resample(law: Law, points: list[Measured], rows: list[Measured], seed: int = 0) -> Resampled | None:
    """Bootstrap: what the law and the rows' perplexities might have been, had the same experiment been done again.

    What it covers, each a draw that is made anew in every resample:

    * **Points.** A monolingual run is off the law by chance, and by the law's being no more than a formula. How far, the
      points' own residuals tell: each point is put back on the law and given the residual of a random point. Residuals
      are smaller than errors, because the law bends towards its points: with k points and 3 unknowns they are widened by
      sqrt(k / (k - 3)), and, k - 3 being few, by the uncertainty of that estimate itself (chi-squared, as in a t test).
    * **Rows.** A run of one seed is off by chance as a point is: it gets such a residual as well.
    * **Seeds.** Where experiments were run with several seeds, seeds are drawn with replacement, the same ones for all
      points and rows, instead of the rows' residuals.
    * **Documents.** The test text is a sample, the same for all runs: one draw for all moves each perplexity by its own
      standard error. What is hard for all cancels in TEff, as it should.

    It does not cover what all runs share: the text, the recipe, the order of text of a single seed.

    Returns None for fewer than four points: three lie on a law exactly, which says nothing of its error.
    """
    k = len(points)
    if k < 4:
        return None
    random = np.random.default_rng(seed)
    tokens = np.array([point.tokens for point in points])
    expected = np.log([law.perplexity(n) for n in tokens])
    residuals = np.log([point.ppl for point in points]) - expected
    residuals = (residuals - residuals.mean()) * math.sqrt(k / (k - 3))
    spread = np.sqrt((k - 3) / random.chisquare(k - 3, (RESAMPLES, 1)))
    seeds = sorted({s for measured in points + rows for s in measured.perplexities})
    drawn = random.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), RESAMPLES)
    documents = random.standard_normal(RESAMPLES)
    noise = residuals[random.integers(k, size=(RESAMPLES, k))] * spread
    log_points = (
        expected + noise + np.stack([shift_of_seeds(point, seeds, drawn) + point.error * documents for point in points], axis=1)
    )
    log_rows = []
    for row in rows:
        chance = residuals[random.integers(k, size=RESAMPLES)] * spread[:, 0] if len(row.perplexities) == 1 else 0.0
        log_rows.append(np.log(row.ppl) + chance + shift_of_seeds(row, seeds, drawn))
    log_rows = np.array(log_rows)
    errors = np.array([[row.error] for row in rows]) * documents
    points_drawn, rows_drawn, same = (np.exp(np.clip(logs, 0, LARGEST_LOG)) for logs in (log_points, log_rows + errors, log_rows))
    return Resampled(fit_laws_at_once(tokens, points_drawn), rows_drawn, same)


def shift_of_seeds(measured: Measured, seeds: list[int], drawn: np.ndarray) -> np.ndarray:
    """By how much the mean log perplexity moves if seeds occur `drawn` times each: (n, seeds) -> (n,)."""
    if len(measured.perplexities) < 2:
        return np.zeros(len(drawn))
    own = [seeds.index(s) for s in measured.perplexities]
    logs = np.log(list(measured.perplexities.values()))
    times = drawn[:, own]
    total = np.maximum(times.sum(1), 1)  # none of its own seeds drawn: no shift
    return math.sqrt(len(own) / (len(own) - 1)) * (times @ (logs - logs.mean())) / total


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95% of resampled values; nan where most of them are no number. The upper end may be infinite."""
    values = np.sort(values[~np.isnan(values)])
    if len(values) < RESAMPLES / 2:
        return math.nan, math.nan
    tail = (1 - CONFIDENCE) / 2
    low, high = int(tail * len(values)), math.ceil((1 - tail) * len(values)) - 1
    return float(values[low]), float(values[high])
