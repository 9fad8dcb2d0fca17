"""One's own runs beside the paper's, row by row, and which of its takeaways they bear out.

python -m paper.compare out/table1 out/figure2 --out out/compared    # compare.md of all these runs
"""

import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import Parser, count, markdown, run_script, write
from fit_scaling import Interval, as_text, efficiency_as_text, experiments, measure, over, over_seeds
from model import SIZES
from paper import values
from records import read_records

CLONES, REAL = ("cloned",), ("disjoint", "anchored")  # the vocabularies of each
ORDER = list(SIZES)  # from the smallest

# --- which row of the paper a run is ----------------------------------------------------------------


class Setting(NamedTuple):
    """What an experiment is, wherever it was run: the row of a table that it fills."""

    vocab: str  # monolingual, cloned, disjoint, anchored
    languages: tuple[str, ...]  # ("en", "en") for two clones
    shares: tuple[float, ...]  # of L1 in each stage, in percent
    times: float  # training tokens, in units of the standard run's, "1x"
    size: str
    anchors: float = 0.0

    def __str__(self) -> str:
        number = f" x{len(self.languages)}" if len(self.languages) > 2 else ""
        anchors = f", {self.anchors:g} anchored" if self.anchors else ""
        return f"{self.size} {self.vocab}{number} {stages(self.shares)} at {self.times:g}x{anchors}"


Rows = dict[tuple[Setting, int], list[dict]]  # by setting, and the language's position in it


def stages(shares: tuple[float, ...]) -> str:
    """(90, 10) -> '90→10%'."""
    return "→".join(f"{share:g}" for share in shares) + "%"


def is_control(group: list[dict]) -> bool:
    """Whether it is of clones with all in common, or beside noise: shorter than any mix of the paper's."""
    config = group[0]["config"]
    return config["anchors"] == 1 or "noise" in config["sources"]


def family(records: list[dict], vocabs: tuple[str, ...]) -> Rows:
    """The rows of CLONES or REAL, and monolingual ones on their text; "1x" is the shortest mix.

    English alone is another text beside clones than beside French. Of several, that of most rows counts.
    """
    groups = experiments(records)
    mixed = [group[0] for group in groups if group[0]["config"]["vocab"] in vocabs and not is_control(group)]
    texts = Counter((run["config"]["fingerprint"], *dict.fromkeys(run["config"]["sources"])) for run in mixed)
    if not texts:
        return {}
    text, *sources = max(texts, key=texts.get)
    standard = min(run["total"] for run in mixed if run["config"]["fingerprint"] == text)
    names = dict(zip(sources, values.EN_FR, strict=False))  # they stand where the paper's languages do
    own: Rows = {}
    for group in sorted(groups, key=len, reverse=True):  # of two like it, that of most seeds
        config = group[0]["config"]
        right_text = config["fingerprint"] == text and set(config["sources"]) <= set(names)
        if right_text and config["vocab"] in ("monolingual", *vocabs):
            setting = setting_of(group[0], names, standard)
            own.setdefault((setting, group[0]["position"]), group)
    return own


def setting_of(run: dict, names: dict[str, str], standard: float) -> Setting:
    """A run's setting; `names` are the paper's of its languages, `standard` the tokens of "1x"."""
    config = run["config"]
    return Setting(
        vocab=config["vocab"],
        languages=tuple(names[source] for source in config["sources"]),
        shares=tuple(round(100 * stage[0], 3) for stage in config["stages"]),
        times=float(f"{run['total'] / standard:.2g}"),  # in whole steps it is never quite 0.1
        size=config["size"],
        anchors=config["anchors"],
    )


def standard_size(records: list[dict]) -> str:
    """The model size that most rows of several languages have: that of the tables."""
    mixed = [record for record in records if not record["alone"]] or records
    sizes = Counter(group[0]["config"]["size"] for group in experiments(mixed))
    return max(sizes, key=lambda size: (sizes[size], -ORDER.index(size)))


# The paper's similarities of a pair of languages, each a list over layers, in what align.py found.
SIMILARITIES = {
    "hidden": lambda found: found.get("positions") or found["matching"],  # clones, real languages
    "gradients": lambda found: [found["blocks"]],
    "embeddings": lambda found: [found["input"]["counterparts"]],
}


def similarities(own: Rows, part: str, size: str) -> dict[Setting, dict[int, list[float]]]:
    """Of the first two languages of each run that align.py looked at: by seed, a mean of each layer."""
    found = defaultdict(dict)
    for (setting, position), group in own.items():
        for run in group:
            pairs = run["result"].get("alignment", {}).get(part)
            if position == 0 and setting.size == size and pairs:
                layers = SIMILARITIES[part](next(iter(pairs.values())))
                found[setting][run["seed"]] = [layer["mean"] for layer in layers]
    return found


# --- the claims of the takeaways --------------------------------------------------------------------


class Number(NamedTuple):
    """What a claim compares: a measure of a language in a setting."""

    measure: str  # PPL, TEff, similarity
    language: str  # L1, L2, L2 to L10; or both, L1 and L2
    setting: Setting

    def __str__(self) -> str:
        return f"{self.measure} of {self.language}, {self.setting}"


Numbers = dict[Number, dict[int, float]]  # by seed; of PPL and TEff the logarithm, nan beyond the yardstick
Side = dict[Number, float]  # a sum of numbers with these weights


class Claim(NamedTuple):
    """One side is larger than the other, says the paper. Those of one sentence are the same of other runs."""

    takeaway: int
    sentence: str
    script: str  # makes the runs
    larger: Side
    smaller: Side


def less(one: Side, other: Side, weight: float = 1) -> Side:
    """What one has more than the other; of logarithms, times how much."""
    return {number: weight for number in one} | {number: -weight for number in other}


ALONE: Side = {}  # TEff is 1, its logarithm 0
EVEN, MAIN, RARE, SCHEDULE = (50,), (90,), (10,), (90, 10)
EITHER = "no schedule is better in both languages"  # where one language decides


def claims(size: str) -> list[Claim]:
    """What the paper says of models of this size; of one sentence, what it says most clearly first."""

    def of(measure: str, language: str, shares: tuple, vocab="cloned", times=1.0, model=size) -> Side:
        ten = values.TEN_CLONES if language == "L2 to L10" else values.CLONES
        languages = ten if vocab == "cloned" else values.EN_FR
        return {Number(measure, language, Setting(vocab, languages, shares, times, model)): 1}

    def imbalance(measure="TEff", language="L2", weight=1.0, **setting) -> Side:
        main, even = (of(measure, language, shares, **setting) for shares in (MAIN, EVEN))
        return less(main, even, weight)

