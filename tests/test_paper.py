"""The paper's own figures hang together: its TEff follow from its perplexities, and its takeaways from its tables."""

import math

import numpy as np
import pytest
from scipy.optimize import least_squares

import paper
from evidence import ALIGNMENT, TEFF, Evidence, evidence_of_the_paper
from law import fit_law
from results import Quantity
from takeaways import CLAIMS, Less, judge, judge_all, summary

THREE_POINTS = {
    source: fit_law([x * paper.TOKENS for x in points], list(points.values())) for source, points in paper.POINTS.items()
}
PRINTED = [  # every printed TEff that is not 1 by definition: where, language, perplexity, share of 1.2B, TEff
    (f"{table}, row {row.row} at {row.setting.times:g}x, L{i + 1}", row.setting.languages[i], row.ppl[i], row.seen(i), efficiency)
    for table, rows in paper.TABLES.items()
    for row in rows
    for i, efficiency in enumerate(row.efficiency)
    if row.setting.vocab != "monolingual" and efficiency is not None
]
BETWEEN = {"Table 3, row 9 at 1x, L1": 0.074, "Table 3, row 8 at 1x, L2": 0.0601}


def efficiencies(law, ppl: float, share: float) -> np.ndarray:
    """TEff of a perplexity that is printed with one digit: as printed, and at both ends of what it can stand for."""
    return law.tokens(np.array([ppl, ppl + 0.05, ppl - 0.05])) / (share * paper.TOKENS)


def test_all_rows_are_there():
    assert len(PRINTED) == 51
    assert {source for _, source, *_ in PRINTED} == {"en", "fr"}


@pytest.mark.parametrize(("where", "source", "ppl", "share", "efficiency"), PRINTED)
def test_the_law_through_the_three_known_points(where, source, ppl, share, efficiency):
    """Within 6%, but for two of the perplexities that lie between 0.1 and 0.5 of the tokens, where no point is known.

    The paper's law went through 16 points and misses the one at 0.1 by 7.8% of tokens; ours has nothing else to go by.
    """
    assert efficiencies(THREE_POINTS[source], ppl, share)[0] == pytest.approx(efficiency, rel=BETWEEN.get(where, 0.06))


def test_of_these_two_rounding_explains_the_french_one():
    found = {}
    for where, source, ppl, share, efficiency in PRINTED:
        if where in BETWEEN:
            best = abs(efficiencies(THREE_POINTS[source], ppl, share).min() / (efficiency + 0.005) - 1)
            found[where] = round(best, 3)
    assert found == {"Table 3, row 9 at 1x, L1": 0.067, "Table 3, row 8 at 1x, L2": 0.052}


@pytest.mark.parametrize(("where", "source", "ppl", "share", "efficiency"), PRINTED)
def test_the_laws_that_the_tables_imply_give_every_printed_digit(where, source, ppl, share, efficiency):
    _, low, high = efficiencies(paper.LAWS[source], ppl, share)
    assert low <= efficiency + 0.005
    assert high >= efficiency - 0.005


@pytest.mark.parametrize("source", ["en", "fr"])
def test_these_laws_are_the_best_through_the_tables(source):
    ppl, share, efficiency = np.array([line[2:] for line in PRINTED if line[1] == source]).T
    start = THREE_POINTS[source]

    def misses(parameters) -> np.ndarray:
        law = start._replace(**dict(zip("abc", parameters, strict=True)))
        given, low, high = (law.tokens(ppl + error) / (share * paper.TOKENS) for error in (0, 0.05, -0.05))
        return (given - efficiency) / (0.005 + (high - low) / 2)

    best = least_squares(misses, start[:3], x_scale=[1e-3, 1e-2, 1e-3], method="lm").x
    assert np.abs(misses(best)).max() < 1
    assert paper.LAWS[source][:3] == pytest.approx(best, rel=2e-3)


def test_the_paper_s_laws_are_off_at_a_tenth_of_the_tokens():
    off = {source: paper.LAWS[source].tokens(min(points.items())[1]) / (min(points) * paper.TOKENS)
           for source, points in paper.POINTS.items()}  # fmt: skip
    assert off == pytest.approx({"en": 0.9215, "fr": 0.9347}, abs=2e-3)
    for source, points in paper.POINTS.items():
        assert paper.LAWS[source].tokens(points[1.0]) / paper.TOKENS == pytest.approx(1, abs=0.03)


# --- takeaways ------------------------------------------------------------------------------------------------------


def test_the_paper_bears_out_every_takeaway():
    verdicts = judge_all(evidence_of_the_paper())
    assert {verdict.claim.takeaway for verdict in verdicts if verdict.word == "holds"} == set(range(1, 9))
    others = {(v.claim.takeaway, v.word, v.figures) for v in verdicts if v.word != "holds"}
    assert others == {  # what larger models do is printed as a curve only
        (4, "not run", "needs cloned runs of a model larger than small"),
        (7, "not run", "needs anchored runs of a model larger than small"),
    }


def opposite() -> Evidence:
    """The paper's values, each mirrored so that what was smaller is larger; 1, which TEff are compared with, stays 1."""
    mirrored = {
        key: Quantity(2 - q.value if key[5] == ALIGNMENT else 1 / q.value) for key, q in evidence_of_the_paper().values.items()
    }
    sizes = {("cloned", 50): 1.5, ("cloned", 90): 0.4, ("anchored", 50): 0.5, ("anchored", 90): 0.4}
    for (vocab, share), value in sizes.items():  # and a larger model in which imbalance is worth less than nothing
        mirrored[vocab, 2, (share,), 1, "medium", TEFF, 1] = Quantity(value)
    return Evidence(mirrored, paper.SIZE)


def test_opposite_values_bear_out_none():
    assert {claim.sentence for claim in CLAIMS if judge(claim, opposite()).word != "does not hold"} == set()


def changed(**values: float) -> Evidence:
    """The paper's values with some others; names are VOCAB_SHARE_POSITION_MEASURE."""
    evidence = evidence_of_the_paper()
    for name, value in values.items():
        vocab, shares, position, measure = name.split("_")
        key = (vocab, 2, tuple(map(int, shares.split("to"))), 1, paper.SIZE, measure, int(position))
        assert key in evidence.values
        evidence.values[key] = Quantity(value)
    return evidence


def test_a_schedule_that_is_better_in_both_languages_refutes_the_eighth():
    assert judge(CLAIMS[-1], changed(anchored_90to10_0_PPL=25, anchored_90to10_1_PPL=18)).word == "does not hold"
    assert judge(CLAIMS[-1], changed(anchored_90to10_0_PPL=25)).word == "holds"  # the other language still loses


def test_real_languages_that_align_as_clones_do_refute_the_sixth():
    evidence = evidence_of_the_paper()
    evidence.values["anchored", 2, (90,), 1, paper.SIZE, ALIGNMENT, 0] = Quantity(0.95)
    assert judge(CLAIMS[8], evidence).word == "does not hold"


def test_a_larger_model_needs_only_the_runs_that_are_compared():
    seventh, fourth = (next(c for c in CLAIMS if c.takeaway == n and "model" in c.sentence) for n in (7, 4))
    evidence = evidence_of_the_paper()
    for vocab in ("anchored", "cloned"):
        evidence.values[vocab, 2, (90,), 1, "medium", TEFF, 1] = Quantity(5.0)
    assert judge(seventh, evidence).word == "holds"
    assert judge(fourth, evidence).word == "not run"  # the gain is that over 50/50


def test_intervals_that_overlap_decide_nothing():
    low, high = ("one", Quantity(0.9, 0.8, 1.1)), ("other", Quantity(1.0, 0.95, 1.2))
    assert Less(low, high).holds
    assert not Less(low, high).told_apart
    assert not Less(high, low).told_apart
    assert Less(low, ("far", Quantity(2.0, 1.5, math.inf))).told_apart
    evidence = evidence_of_the_paper()
    evidence.values["cloned", 2, (50,), 1, paper.SIZE, TEFF, 0] = Quantity(0.98, 0.9, 1.05)
    assert judge(CLAIMS[0], evidence).word == "holds within chance"
    evidence.values["cloned", 2, (50,), 1, paper.SIZE, TEFF, 0] = Quantity(1.01, 0.9, 1.1)
    assert judge(CLAIMS[0], evidence).word == "fails within chance"
    evidence.values["cloned", 2, (50,), 1, paper.SIZE, TEFF, 0] = Quantity(1.2, 1.1, 1.3)
    assert judge(CLAIMS[0], evidence).word == "does not hold"


def test_the_summary_has_every_takeaway_once():
    assert summary(judge_all(evidence_of_the_paper())) == "Hold: 1, 2, 3, 4 (in part), 5, 6, 7 (in part), 8.\n"
    assert summary(judge_all(Evidence({}, "nano"))) == "Not run: 1, 2, 3, 4, 5, 6, 7, 8.\n"
    evidence = changed(cloned_50_0_TEff=1.5)
    evidence.values["cloned", 2, (90,), 1, paper.SIZE, TEFF, 1] = Quantity(2.08, 0.8, 3)
    del evidence.values["anchored", 2, (90,), 2, paper.SIZE, TEFF, 1]
    assert summary(judge_all(evidence)) == (
        "Do not hold: 1.\nHold within chance: 2.\nHold: 3, 4 (in part), 5, 6, 8.\nNot run: 7.\n"
    )
    evidence.values["cloned", 2, (50,), 1, paper.SIZE, TEFF, 0] = Quantity(1.01, 0.9, 1.1)
    assert summary(judge_all(evidence)).startswith("Fail within chance: 1.\nHold within chance: 2.\n")


def test_a_gain_without_a_finite_efficiency_is_no_evidence():
    evidence = evidence_of_the_paper()
    evidence.values["cloned", 2, (90,), 2, paper.SIZE, TEFF, 1] = Quantity(math.inf)
    evidence.values["cloned", 2, (50,), 2, paper.SIZE, TEFF, 1] = Quantity(math.inf)
    evidence.values = {key: value for key, value in evidence.values.items() if key[3] in (1, 2)}
    assert judge(CLAIMS[4], evidence).word == "not run"


def test_a_missing_run_is_named():
    evidence = evidence_of_the_paper()
    del evidence.values["cloned", 2, (90,), 1, paper.SIZE, TEFF, 1]
    assert judge(CLAIMS[1], evidence).figures == "needs TEff of small, cloned, 90% at 1x"
    assert judge(CLAIMS[1], Evidence({}, "nano")).word == "not run"
    assert judge(CLAIMS[6], Evidence({}, "nano")).figures == "needs cloned runs at 2x or more"
