"""The law and its inverses against known laws, and what its intervals cover."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from common import UserError
from law import Law, Measured, fit_law, fit_laws_at_once, interval, resample

SATURATING = st.builds(Law, st.floats(1e-3, 0.1), st.floats(0.05, 1.0), st.floats(0.02, 0.2), st.just(1e8), st.just(1e10))
ACCELERATING = st.builds(Law, st.floats(-0.1, -1e-3), st.floats(-1.0, -0.05), st.floats(-0.05, 0.02), st.just(1e8), st.just(1e10))
LAWS = st.one_of(SATURATING, ACCELERATING).filter(lambda law: 0 < law.perplexity(1e8) < 1e4)


@given(LAWS, st.floats(1e8, 1e10))
def test_mlte_inverts_mlpe(law, tokens):
    assert law.tokens(law.perplexity(tokens)) == pytest.approx(tokens, rel=1e-4)
    assert law.perplexity(tokens * 1.1) < law.perplexity(tokens)


@settings(deadline=None)
@given(LAWS)
def test_a_known_law_is_found_again(law):
    tokens = np.geomspace(1e8, 1e10, 6)
    found = fit_law(list(tokens), [law.perplexity(n) for n in tokens])
    assert (found.fewest, found.most) == pytest.approx((1e8, 1e10))
    for n in (1e8, 5e8, 3e9, 1e10):
        assert found.perplexity(n) == pytest.approx(law.perplexity(n), rel=1e-4)
    assert found.b == pytest.approx(law.b, abs=0.02)


def test_a_perplexity_beyond_the_asymptote_needs_infinitely_many_tokens():
    law = Law(0.03, 0.25, 0.08, 1e6, 1e9)
    assert law.tokens(1 / 0.08 * 0.999) == math.inf
    assert law.tokens(1 / 0.08 * 1.001) > 1e12
    assert law.perplexity(1.0) == math.inf


def test_without_an_asymptote_there_is_a_perplexity_that_needs_no_tokens():
    law = Law(-0.03, -0.5, 0.001, 1e6, 1e9)
    assert law.tokens(2000) == 0
    assert 0 < law.tokens(900) < law.tokens(90) < math.inf


def test_repeated_measurements_are_averaged():
    tokens = [1e8, 2e8, 4e8, 8e8]
    law = Law(0.03, 0.3, 0.08, 1e8, 8e8)
    noisy = [1 / (1 / law.perplexity(n) + sign * 1e-4) for n in tokens for sign in (-1, 1)]
    found = fit_law([n for n in tokens for _ in range(2)], noisy)
    assert found.perplexity(3e8) == pytest.approx(law.perplexity(3e8), rel=1e-4)


@pytest.mark.parametrize(("tokens", "ppls", "sentence"), [
    ([1e8, 2e8], [50, 40], "found 2 monolingual sizes"),
    ([1e8, 1e8, 2e8], [50, 50, 40], "found 2 monolingual sizes"),
    ([1e8, 2e8, 4e8], [40, 50, 60], "do not fall"),
])  # fmt: skip
def test_points_without_a_law_are_refused(tokens, ppls, sentence):
    with pytest.raises(UserError, match=sentence):
        fit_law(tokens, ppls)


# --- how surely -----------------------------------------------------------------------------------------------------

PAPERS = Law(0.0329, 0.245, 0.0785, 1.2e8, 3.6e9)
YOUNG = Law(-0.7044, -0.5227, -0.005, 2e5, 6e6)  # as the demo's


def run_on(law: Law, seen: float, worth: float, noise: float, random, seeds: int = 1, documents=0.0, common=0.0) -> Measured:
    """A run on `seen` tokens that are worth others; off by relative `noise`, and by what its documents have in `common`."""
    ppl = {s: law.perplexity(worth) * math.exp(noise * random.standard_normal() + common) for s in range(seeds)}
    return Measured(seen, ppl, documents)


def points_of(law: Law, count: int, noise: float, random) -> list[Measured]:
    """Monolingual runs."""
    return [run_on(law, n, n, noise, random) for n in np.geomspace(law.fewest, law.most, count)]


@settings(deadline=None, max_examples=25)
@given(LAWS, st.integers(0, 99))
def test_fitting_many_at_once_is_fitting_each(law, seed):
    random = np.random.default_rng(seed)
    tokens = np.geomspace(1e8, 1e10, 7)
    assume(law.perplexity(1e8) > 1.2 * law.perplexity(1e10))  # a law that noise cannot turn around
    ppl = np.array([[law.perplexity(n) * math.exp(0.003 * random.standard_normal()) for n in tokens] for _ in range(3)])
    many = fit_laws_at_once(tokens, ppl)
    for number in range(3):
        one = fit_law(list(tokens), list(ppl[number]))
        own = Law(many.a[number], many.b[number], many.c[number], 0, 0)
        for n in (1e8, 1e9, 1e10):
            assert 1 / own.perplexity(n) == pytest.approx(1 / one.perplexity(n), abs=1e-3 * np.ptp(1 / ppl))


def test_perplexities_that_do_not_fall_have_no_law():
    found = fit_laws_at_once(np.array([1e8, 2e8, 4e8, 8e8]), np.array([[40.0, 50, 60, 70], [70, 60, 50, 40]]))
    assert np.isnan(found.perplexity(3e8)).tolist() == [True, False]
    assert np.isnan(found.tokens(50.0)).tolist() == [True, False]


@pytest.mark.parametrize(("law", "count", "seeds", "documents"), [
    (PAPERS, 4, 1, 0.0), (PAPERS, 7, 1, 0.0), (PAPERS, 16, 1, 0.0), (YOUNG, 4, 1, 0.0), (YOUNG, 7, 1, 0.0),
    (YOUNG, 7, 3, 0.0), (YOUNG, 4, 3, 0.0), (YOUNG, 7, 1, 0.05),
])  # fmt: skip
def test_the_interval_of_teff_covers_the_truth(law, count, seeds, documents):
    """95% intervals hold the true TEff of 2 in at least 84% of 60 synthetic experiments: four standard errors below 95%."""
    random, held, trials = np.random.default_rng(count + seeds), 0, 60
    seen, tokens = law.most / 10, np.geomspace(law.fewest, law.most, count)
    for number in range(trials):
        common = documents * random.standard_normal()
        points = [run_on(law, n, n, 0.01, random, seeds, documents, common) for n in tokens]
        row = run_on(law, seen, 2 * seen, 0.01, random, seeds, documents, common)
        found = fit_law([p.tokens for p in points], [p.ppl for p in points])
        drawn = resample(found, points, [row], seed=number)
        low, high = interval(drawn.law.tokens(drawn.perplexities[0]) / seen)
        held += low <= 2 <= high
    assert held >= 0.84 * trials


def width(points: list[Measured], row: Measured, what=lambda drawn: drawn.law.tokens(drawn.perplexities[0])) -> float:
    """How far an interval reaches, as a ratio."""
    law = fit_law([p.tokens for p in points], [p.ppl for p in points])
    low, high = interval(what(resample(law, points, [row])))
    return high / low


def test_an_interval_does_not_depend_on_what_else_is_in_the_table():
    random = np.random.default_rng(7)
    points = points_of(YOUNG, 7, 0.05, random)
    law = fit_law([p.tokens for p in points], [p.ppl for p in points])
    row, other = Measured(6e5, {0: 60.0}, 0.02), Measured(6e5, {0: 61.0}, 0.02)
    alone, among = resample(law, points, [row]), resample(law, points, [other, *points, row])
    assert np.array_equal(alone.law.tokens(alone.perplexities[0]), among.law.tokens(among.perplexities[-1]), equal_nan=True)
    drawn = np.log(among.same_documents)
    assert abs(np.corrcoef(drawn[0], drawn[-1])[0, 1]) < 0.9  # spread is common to all, chance is each one's own


def test_intervals_shrink_with_noise_points_and_seeds():
    random = np.random.default_rng(5)
    row = Measured(6e5, {0: YOUNG.perplexity(1.2e6)})
    widths = [width(points_of(YOUNG, count, noise, random), row) for count, noise in ((7, 0.05), (7, 0.005), (30, 0.005))]
    assert widths == sorted(widths, reverse=True)
    assert widths[1] > 1.005
    exact = points_of(YOUNG, 16, 1e-4, random)
    assert width(exact, row) < 1.002
    apart = Measured(6e5, {s: YOUNG.perplexity(1.2e6) * (1 + 0.04 * (s - 1)) for s in range(3)})
    assert width(exact, apart) > 1.01  # seeds that lie apart are all the noise there is
    several = [run_on(YOUNG, n, n, 0.02, random, seeds=3) for n in np.geomspace(2e5, 6e6, 4)]
    first = [point._replace(perplexities={0: point.perplexities[0]}) for point in several]
    assert width(several, row) < 0.7 * width(first, row)


def test_what_is_hard_for_all_runs_cancels_in_teff_but_not_in_mlpe():
    """A standard error over documents moves perplexities; TEff, a comparison on the same documents, stays."""
    law, tokens = YOUNG, np.geomspace(2e5, 6e6, 7)
    wiggle = [1.002, 0.998, 1.001, 0.999, 1.002, 0.998, 1.001]
    exact, hard = (
        [Measured(n, {0: law.perplexity(n) * w}, error) for n, w in zip(tokens, wiggle, strict=True)] for error in (0.0, 0.1)
    )
    row = law.perplexity(1.2e6)
    teff = [width(points, Measured(6e5, {0: row}, error)) for points, error in ((exact, 0.0), (hard, 0.1))]
    mlpe = [width(points, Measured(6e5, {0: row}), lambda drawn: drawn.law.perplexity(6e5)) for points in (exact, hard)]
    assert teff[1] == pytest.approx(teff[0], rel=0.02)
    assert mlpe[1] > mlpe[0] + 0.3
    assert width(exact, Measured(6e5, {0: row}, 0.1)) > teff[0] + 0.3  # a row with an error of its own does not cancel


def test_three_points_have_no_interval():
    points = points_of(PAPERS, 3, 0.01, np.random.default_rng(0))
    row = Measured(6e8, {0: 22.0})
    assert resample(PAPERS, points, [row]) is None
    assert resample(PAPERS, [points[0]._replace(perplexities={0: 50.0, 1: 50.5}), *points[1:]], [row]) is not None


def test_the_same_runs_give_the_same_interval():
    points, row = points_of(PAPERS, 7, 0.01, np.random.default_rng(0)), Measured(6e8, {0: 22.0})
    assert width(points, row) == width(points, row)


def test_an_interval_may_reach_beyond_the_law():
    values = np.concatenate([np.linspace(1, 2, 1900), np.full(100, np.inf)])
    assert interval(values) == (pytest.approx(1.026, abs=0.01), math.inf)
    assert all(math.isnan(bound) for bound in interval(np.full(2000, np.nan)))
