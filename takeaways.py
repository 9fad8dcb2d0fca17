"""The paper's eight takeaways as claims that numbers can bear out or not: of the paper's tables, or of one's own runs.

A claim is a sentence and a few comparisons. Each comparison says which of two numbers the paper finds smaller; where both
have intervals and these overlap, runs like these cannot tell. A takeaway holds where all its claims that could be checked do.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from evidence import ALIGNMENT, PPL, TEFF, Evidence, Missing
from results import Quantity


class Less(NamedTuple):
    """`low` is smaller than `high`, says the paper; each is a quantity and its name."""

    low: tuple[str, Quantity]
    high: tuple[str, Quantity]

    @property
    def holds(self) -> bool:
        """Whether it is."""
        return self.low[1].value < self.high[1].value

    @property
    def told_apart(self) -> bool:
        """Whether the intervals of the two, where they have any, do not overlap."""
        (_, one), (_, other) = sorted((self.low, self.high), key=lambda named: named[1].value)
        return not (_or(one.high, one.value) >= _or(other.low, other.value))

    def __str__(self) -> str:
        sign = "<" if self.holds else "not <"
        return f"{self.low[0]} {_number(self.low[1])} {sign} {self.high[0]} {_number(self.high[1])}"


def _or(bound: float, value: float) -> float:
    return value if math.isnan(bound) else bound


def _number(quantity: Quantity) -> str:
    return f"{quantity.value:.3g}" if abs(quantity.value) < 1e6 else f"{quantity.value:.0e}"


ONE = ("monolingual", Quantity(1.0))


def _named(evidence: Evidence, name: str, *args, **kwargs) -> tuple[str, Quantity]:
    return name, evidence.get(*args, **kwargs)


def _difference(name: str, more: Quantity, less: Quantity) -> tuple[str, Quantity]:
    """more - less, and an interval that is wide enough whatever the two have in common."""
    return name, Quantity(more.value - less.value, more.low - less.high, more.high - less.low)


def _gap(e: Evidence, vocab: str, times: float = 1, size: str | None = None) -> Quantity:
    """What imbalance is worth: TEff of L2 at 90/10, less that at 50/50."""
    more, less = (e.get(TEFF, vocab, share, 1, times=times, size=size) for share in (90, 50))
    if math.isinf(more.value) or math.isinf(less.value):
        raise Missing(f"a finite TEff of {vocab} at {times:g}x: the law has no number for that perplexity")
    return _difference("", more, less)[1]


def clones_do_not_generalise(e: Evidence) -> list[Less]:
    return [Less(_named(e, f"TEff of L{i + 1}, 50/50", TEFF, "cloned", 50, i), ONE) for i in (0, 1)]


def imbalance_helps(e: Evidence) -> list[Less]:
    rare = _named(e, "TEff of L2, 90/10", TEFF, "cloned", 90, 1)
    return [Less(ONE, rare), Less(_named(e, "TEff of L2, 50/50", TEFF, "cloned", 50, 1), rare)]


def imbalance_aligns(e: Evidence) -> list[Less]:
    return [Less(*(_named(e, f"hidden states, {share}%", ALIGNMENT, "cloned", share) for share in (50, 90)))]


def main_language_helps_many(e: Evidence) -> list[Less]:
    ten = {share: [e.get(measure, "cloned", share, 1, languages=10) for measure in (TEFF, PPL)] for share in (10, 50)}
    return [
        Less(("TEff of L2, ten equal clones", ten[10][0]), ("with a main one", ten[50][0])),
        Less(("PPL of L2 with a main language", ten[50][1]), ("ten equal clones", ten[10][1])),
    ]


def longer_strengthens(e: Evidence) -> list[Less]:
    times = e.longest(TEFF, "cloned", 50, 90)
    return [Less(("gain from imbalance at 1x", _gap(e, "cloned")), (f"at {times:g}x", _gap(e, "cloned", times)))]


def larger_strengthens(e: Evidence) -> list[Less]:
    size = e.larger("cloned", 50, 90)
    return [Less((f"gain from imbalance, {e.size}", _gap(e, "cloned")), (size, _gap(e, "cloned", size=size)))]


def schedule_helps_clones(e: Evidence) -> list[Less]:
    times = e.longest(PPL, "cloned", 50, (90, 10))
    return [
        Less(*(_named(e, f"PPL of L{i + 1}, {name}", PPL, "cloned", shares, i, times=times)
               for name, shares in ((f"90→10 at {times:g}x", (90, 10)), ("50/50", 50))))
        for i in (0, 1)
    ]  # fmt: skip


def rare_real_languages_gain(e: Evidence) -> list[Less]:
    pairs = [("anchored", 90, 1), ("anchored", 10, 0), ("disjoint", 90, 1), ("disjoint", 10, 0)]
    return [Less(ONE, _named(e, f"TEff of L{i + 1}, {vocab} at 10%", TEFF, vocab, share, i)) for vocab, share, i in pairs]


def real_languages_do_not_align(e: Evidence) -> list[Less]:
    gain = {vocab: [e.get(ALIGNMENT, vocab, share) for share in (90, 50)] for vocab in ("cloned", "disjoint", "anchored")}
    half = Quantity((gain["cloned"][0].value - gain["cloned"][1].value) / 2)
    return [
        Less(_difference(f"gain in similarity, {vocab}", *gain[vocab]), ("half of clones'", half))
        for vocab in ("disjoint", "anchored")
    ]


def real_gain_shrinks(e: Evidence) -> list[Less]:
    times = e.longest(TEFF, "anchored", 90)
    return [Less(*(_named(e, f"TEff of L2, 90/10 at {t:g}x", TEFF, "anchored", 90, 1, times=t) for t in (times, 1)))]


def real_gain_grows_with_size(e: Evidence) -> list[Less]:
    size = e.larger("anchored", 90)
    return [Less(*(_named(e, f"TEff of L2, 90/10, {s}", TEFF, "anchored", 90, 1, size=s) for s in (e.size, size)))]


def schedules_trade_off(e: Evidence) -> list[Less]:
    """In one language at least, the schedule is the worse."""
    found = []
    for vocab, shares in (("disjoint", (90, 10)), ("anchored", (90, 10)), ("anchored", (90, 10, 50, 50))):
        name = "→".join(map(str, shares))
        both = [
            Less(_named(e, f"PPL of L{i + 1}, {vocab} 50/50", PPL, vocab, 50, i), _named(e, name, PPL, vocab, shares, i))
            for i in (0, 1)
        ]
        found.append(max(both, key=lambda less: less.high[1].value / less.low[1].value))
    return found


class Claim(NamedTuple):
    """A part of a takeaway, where the paper shows it, and the comparisons it consists of."""

    takeaway: int
    sentence: str
    where: str
    comparisons: Callable[[Evidence], list[Less]]


CLAIMS = [
    Claim(1, "clones do not generalise at 50/50: a token is worth less than a monolingual one", "Table 1, row 4",
          clones_do_not_generalise),
    Claim(2, "imbalance helps: the rare clone's tokens are worth more than monolingual ones", "Table 1, row 5; Figure 1",
          imbalance_helps),
    Claim(2, "and it aligns the hidden states of clones", "Table 2", imbalance_aligns),
    Claim(3, "a main language helps nine other clones, although they see fewer tokens", "Table 1, rows 6 and 7",
          main_language_helps_many),
    Claim(4, "longer training strengthens what imbalance is worth", "Figures 2 and 9", longer_strengthens),
    Claim(4, "so do larger models", "Figures 2 and 9", larger_strengthens),
    Claim(5, "on the same data, an imbalanced schedule is better in both clones than 50/50", "Table 1, rows 10 to 13",
          schedule_helps_clones),
    Claim(6, "real languages with a tenth of the tokens gain", "Table 3, rows 8, 9, 12, 13; Figure 3", rare_real_languages_gain),
    Claim(6, "without much more alignment: less than half of what clones gain", "Table 4", real_languages_do_not_align),
    Claim(7, "for real languages the gain shrinks with longer training", "Figures 4 and 10", real_gain_shrinks),
    Claim(7, "and grows with the model", "Figures 4 and 10", real_gain_grows_with_size),
    Claim(8, "for real languages no schedule is better in both", "Table 3, rows 10, 14, 15", schedules_trade_off),
]  # fmt: skip


# What is said of a takeaway by its claims' worst word; "not run" is left for takeaways none of whose claims were.
SUMMARY = {
    "does not hold": "Do not hold",
    "fails within chance": "Fail within chance",
    "holds within chance": "Hold within chance",
    "holds": "Hold",
    "not run": "Not run",
}


class Verdict(NamedTuple):
    """What some evidence says of a claim."""

    claim: Claim
    word: str  # holds, holds within chance, fails within chance, does not hold, not run
    figures: str


def judge(claim: Claim, evidence: Evidence) -> Verdict:
    """Whether a claim holds: all of its comparisons come out as in the paper.

    It is refuted if one comes out the other way round. Either is "within chance" if it rests on intervals that overlap.
    """
    try:
        comparisons = claim.comparisons(evidence)
    except Missing as missing:
        return Verdict(claim, "not run", f"needs {missing}")
    failing = [less for less in comparisons if not less.holds]
    certain = any(less.told_apart for less in failing) if failing else all(less.told_apart for less in comparisons)
    words = ("does not hold", "fails within chance") if failing else ("holds", "holds within chance")
    return Verdict(claim, words[0 if certain else 1], "; ".join(map(str, comparisons)))


def judge_all(evidence: Evidence) -> list[Verdict]:
    """Every claim."""
    return [judge(claim, evidence) for claim in CLAIMS]


def summary(verdicts: list[Verdict]) -> str:
    """Which of the eight hold, in a sentence each. A takeaway holds if all of its claims do that were run."""
    words: dict[int, list[str]] = {}
    for verdict in verdicts:
        words.setdefault(verdict.claim.takeaway, []).append(verdict.word)
    found: dict[str, list[str]] = {kind: [] for kind in SUMMARY.values()}
    for number, own in words.items():
        run = [word for word in own if word != "not run"]
        kind = next((SUMMARY[word] for word in SUMMARY if word in run), "Not run")
        found[kind].append(f"{number}{'' if len(run) == len(own) or not run else ' (in part)'}")
    return "".join(f"{kind}: {', '.join(numbers)}.\n" for kind, numbers in found.items() if numbers)
