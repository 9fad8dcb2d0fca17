"""Numbers by experiment, of one's own runs or of the paper, in one form: what takeaways, comparisons and figures look up."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import paper
from results import Quantity, Row

PPL, TEFF = "PPL", "TEff"
ALIGNMENT = "similarity"  # of hidden states, mean over layers
ORDER = ("nano", "mini", "tiny", "small", "medium", "large", "xl")


class Missing(Exception):
    """A claim needs an experiment that is not there; the message names it."""


class Evidence:
    """Numbers by experiment and language, of runs or of the paper.

    Args:
        values: quantity by (vocab, number of languages, shares of L1, times, size, measure, position of the language).
        size: the model size of the tables, which sizes below and above are compared with.
    """

    def __init__(self, values: dict[tuple, Quantity], size: str):
        self.values, self.size = values, size

    def get(self, measure: str, vocab: str, shares, position: int = 0, *, times: float = 1, languages=2, size=None) -> Quantity:
        """A number.

        Raises:
            Missing: no such experiment was run.
        """
        shares = shares if isinstance(shares, tuple) else (shares,)
        key = (vocab, languages, shares, times, size or self.size, measure, position)
        if key not in self.values:
            stages = "→".join(f"{share:g}" for share in shares)
            kind = vocab if languages == 2 else f"{languages} {vocab} languages"
            raise Missing(f"{measure} of {size or self.size}, {kind}, {stages}% at {times:g}x")
        return self.values[key]

    def longest(self, measure: str, vocab: str, *several_shares) -> float:
        """The most times the standard run's tokens, above 1x, at which all of these shares were run.

        Raises:
            Missing: only at 1x, or not at all.
        """
        sought = [shares if isinstance(shares, tuple) else (shares,) for shares in several_shares]
        times = [{key[3] for key in self.values if key[:3] == (vocab, 2, s) and key[4:6] == (self.size, measure)} for s in sought]
        common = [t for t in set.intersection(*times) if t > 1]
        if not common:
            raise Missing(f"{vocab} runs at 2x or more")
        return max(common)

    def larger(self, vocab: str, *shares: float) -> str:
        """The largest size above the standard one that has these shares of L1.

        Raises:
            Missing: none has.
        """
        sizes = [{key[4] for key in self.values if key[:4] == (vocab, 2, (s,), 1) and key[5] == TEFF} for s in shares]
        above = [size for size in set.intersection(*sizes) if ORDER.index(size) > ORDER.index(self.size)]
        if not above:
            raise Missing(f"{vocab} runs of a model larger than {self.size}")
        return max(above, key=ORDER.index)


# --- where the numbers come from ------------------------------------------------------------------------------------


def standard_size(rows: Iterable[Row]) -> str:
    """The model size that most experiments with several languages have: that of the tables."""
    sizes = Counter(row.setting.size for row in rows if not row.monolingual) or Counter(row.setting.size for row in rows)
    return max(sizes, key=lambda size: (sizes[size], -ORDER.index(size)))


class Family(NamedTuple):
    """The rows that belong to one of the paper's two settings: clones of a language, or two real ones.

    `roles` are the sources in the order of the paper's columns: ("en",) for clones, ("en", "fr") for real languages.
    """

    name: str
    roles: tuple[str, ...]
    rows: list[Row]

    def monolingual(self, role: int = 0, size: str | None = None) -> list[Row]:
        """The law's own rows of one of the languages, fewest tokens first."""
        found = [row for row in self.rows if row.monolingual and row.source == self.roles[role]]
        return sorted((row for row in found if size in {None, row.setting.size}), key=lambda row: row.seen)


FAMILIES = {"clones": {"cloned"}, "real languages": {"disjoint", "anchored"}}


def family(rows: list[Row], name: str) -> Family:
    """The rows of "clones" or of "real languages", with the monolingual ones of the same text.

    Raises:
        Missing: there is no such experiment.
    """
    texts = Counter(
        (row.fingerprint, tuple(dict.fromkeys(row.setting.languages)))
        for row in rows
        if row.setting.vocab in FAMILIES[name] and len(set(row.setting.languages)) == (1 if name == "clones" else 2)
    )
    if not texts:
        raise Missing(f"runs of {name}")
    (fingerprint, roles), _ = texts.most_common(1)[0]
    own = [
        row
        for row in rows
        if row.fingerprint == fingerprint
        and (row.source in roles if row.monolingual else row.setting.vocab in FAMILIES[name])
        and set(row.setting.languages) <= set(roles)
    ]
    return Family(name, roles, own)


def by_experiment(rows: list[Row]) -> dict[tuple, Row]:
    """Rows of both families by (vocab, number of languages, shares of L1, times, size, position of the language).

    The vocab of monolingual rows is followed by their family: English alone is another text beside clones than beside French.
    """
    found: dict[tuple, Row] = {}
    for name in FAMILIES:
        try:
            own = family(rows, name)
        except Missing:
            continue
        for row in own.rows:
            setting = row.setting
            if not setting.anchors:
                position = own.roles.index(row.source) if row.monolingual else row.position
                vocab = f"monolingual, {name}" if row.monolingual else setting.vocab
                key = (vocab, len(setting.languages), setting.shares, setting.times, setting.size, position)
                found.setdefault(key, row)
    return found


def evidence_of_rows(rows: list[Row], similarities: dict[tuple, Quantity], size: str) -> Evidence:
    """Of one's own runs. `similarities` are mean hidden-state cosines by (vocab, share of L1)."""
    values = {}
    for (*experiment, position), row in by_experiment(rows).items():
        values[(*experiment, PPL, position)] = _unsure(row.ppl)
        if not math.isnan(row.token_efficiency.value):
            values[(*experiment, TEFF, position)] = _unsure(row.token_efficiency)
    return Evidence(values | _similarities(similarities, size), size)


def _unsure(quantity: Quantity) -> Quantity:
    """A measured number whose interval is not known could be any other."""
    return Quantity(quantity.value, -math.inf, math.inf) if math.isnan(quantity.low) else quantity


def evidence_of_the_paper() -> Evidence:
    """Of the paper's own tables."""
    values = {}
    for row in [row for table in paper.TABLES.values() for row in table]:
        setting = row.setting
        base = (setting.vocab, len(setting.languages), setting.shares, setting.times, setting.size)
        for position, (ppl, efficiency) in enumerate(zip(row.ppl, row.efficiency, strict=True)):
            values[(*base, PPL, position)] = Quantity(ppl)
            if efficiency is not None:
                values[(*base, TEFF, position)] = Quantity(efficiency)
    values["anchored", 2, (90,), 2, paper.SIZE, TEFF, 1] = Quantity(paper.FRENCH_TEFF_LONGER_BELOW)
    similarities = {key: Quantity(sum(layers) / len(layers)) for key, layers in paper.HIDDEN_STATES.items()}
    return Evidence(values | _similarities(similarities, paper.SIZE), paper.SIZE)


def _similarities(found: dict[tuple, Quantity], size: str) -> dict[tuple, Quantity]:
    return {(vocab, 2, (share,), 1, size, ALIGNMENT, 0): value for (vocab, share), value in found.items()}
