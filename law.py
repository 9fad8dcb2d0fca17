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
    """The perplexity of one experiment in one language, by one or several seeds: a point of the law, or a row of a table."""

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
    """Bootstrap: what the law and the rows' perplexities might have been, had the same experiments been done again.

    What it covers, each a draw that is made anew in every resample:

    * **Points.** A monolingual run is off the law by chance, and because the law is no more than a formula. How far, the
      residuals tell: each run is put back on the law and given the residual of a random run. Residuals are smaller than
      errors, because the law bends towards its runs: with n of them and 3 unknowns they are widened by sqrt(n / (n - 3)),
      and, n - 3 being few, by the uncertainty of that estimate itself (chi-squared, as in a t test).
    * **Rows.** A run of several languages is off by chance as a monolingual one is: it gets such a residual as well.
    * **Seeds.** Each seed is a run of its own. An experiment of S seeds gets the mean of S residuals, and how far its seeds
      lie apart joins what residuals are drawn from.
    * **Documents.** The test text is a sample, the same for all runs: one draw for all moves each perplexity by its own
      standard error. What is hard for all cancels in TEff, as it should.

    It does not cover what all runs share: the text and the recipe.

    Returns None for fewer than four monolingual runs: three lie on a law exactly, which says nothing of its error. And where
    the law has no perplexity for one of its own runs, as happens with a run so short that it learnt next to nothing.
    """
    expected = np.log([law.perplexity(point.tokens) for point in points])
    if not np.isfinite(expected).all():
        return None
    lone = [math.log(ppl) - log for point, log in zip(points, expected, strict=True) for ppl in point.perplexities.values()]
    apart = [np.log(list(row.perplexities.values())) for row in rows if row not in points and len(row.perplexities) > 1]
    known = len(lone) - 3 + sum(len(logs) - 1 for logs in apart)
    if len(lone) < 4:
        return None
    residuals = np.concatenate([centred(lone, 3), *(centred(logs, 1) for logs in apart)])
    random = np.random.default_rng(seed)
    spread = np.sqrt(known / random.chisquare(known, RESAMPLES))
    documents = random.standard_normal(RESAMPLES)

    def chance(measured: Measured, on_the_law: bool) -> np.ndarray:
        which = np.array([measured.tokens, *measured.perplexities.values()]).view(np.uint32)
        own = np.random.default_rng([seed, on_the_law, *which])  # what else is in the table does not move an interval
        return residuals[own.integers(len(residuals), size=(RESAMPLES, len(measured.perplexities)))].mean(1) * spread

    log_points = np.stack([chance(point, True) + point.error * documents for point in points]) + expected[:, None]
    same = np.stack([math.log(row.ppl) + chance(row, False) for row in rows])
    moved = same + np.array([row.error for row in rows])[:, None] * documents
    drawn, moved, same = (np.exp(np.clip(logs, 0, LARGEST_LOG)) for logs in (log_points.T, moved, same))
    return Resampled(fit_laws_at_once(np.array([point.tokens for point in points]), drawn), moved, same)


def centred(logs, unknowns: int) -> np.ndarray:
    """Deviations from the mean, as wide as the errors are of which a fit of so many unknowns leaves them."""
    logs = np.asarray(logs)
    return (logs - logs.mean()) * math.sqrt(len(logs) / (len(logs) - unknowns))


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95% of resampled values; nan where most of them are no number. The upper end may be infinite."""
    values = np.sort(values[~np.isnan(values)])
    if len(values) < RESAMPLES / 2:
        return math.nan, math.nan
    tail = (1 - CONFIDENCE) / 2
    low, high = int(tail * len(values)), math.ceil((1 - tail) * len(values)) - 1
    return float(values[low]), float(values[high])
