"""Which mix serves the rarest language best? (fit_scaling.py --recommend, runs/mylanguages.sh)

Compared are mixes that hold the same tokens of the rarer language and ever more of the other one: so the best TEff is also
the best perplexity, and what a mix costs is its length.
"""

import math

from common import UserError, count, markdown
from compare import perplexity_text, with_interval
from results import Row


def candidates(rows: list[Row]) -> list[Row]:
    """Of each mix of several languages, the row of the rarer one, the rarest share last.

    Raises:
        UserError: there is none with a law to compare it with.
    """
    mixes: dict[str, list[Row]] = {}
    for row in rows:
        if not row.monolingual:
            mixes.setdefault(row.run, []).append(row)
    everyone = [row for mix in mixes.values() for row in mix]
    rarest = min(everyone, key=lambda row: (row.seen / _total(mixes[row.run]), -row.position), default=None)
    if rarest is None:
        raise UserError("--recommend compares mixes of two languages, found none")
    own = [row for mix in mixes.values() for row in mix if row.language == rarest.language]
    known = [row for row in own if not math.isnan(row.token_efficiency.value)]
    if not known:
        raise UserError(f"--recommend needs the law of {rarest.language}: three monolingual runs of it or more, found fewer")
    return sorted(known, key=lambda row: -row.seen / _total(mixes[row.run]))


def _total(mix: list[Row]) -> float:
    return sum(row.seen for row in mix)


def recommend(rows: list[Row]) -> str:
    """The mixes and the recommendation, as Markdown."""
    own = candidates(rows)
    totals = {row.run: sum(other.seen for other in rows if other.run == row.run) for row in own}
    lines = [
        (row.run, f"{100 * row.seen / totals[row.run]:.3g}%", count(row.seen), count(totals[row.run]),
         perplexity_text(row.ppl.value), "beyond the law" if row.beyond else
         with_interval(row.token_efficiency, f"{row.token_efficiency.value:.2f}") + "*" * row.extrapolated)
        for row in own
    ]  # fmt: skip
    name = own[0].language
    head = ("mix", f"p({name})", f"tokens of {name}", "tokens in all", f"PPL of {name}", f"TEff of {name}")
    best = max(own, key=lambda row: (row.token_efficiency.value, -totals[row.run]))
    parts = [markdown(head, lines, 1), sentence(best, totals)]
    cheaper = [
        row for row in own
        if totals[row.run] < totals[best.run] and not row.token_efficiency.high < best.token_efficiency.low
        and not math.isnan(row.token_efficiency.high)
    ]  # fmt: skip
    if cheaper:
        least = min(cheaper, key=lambda row: totals[row.run])
        parts.append(
            f"p({name}) = {100 * least.seen / totals[least.run]:.3g}% cannot be told from it by these runs, and takes "
            f"{count(totals[least.run])} tokens instead of {count(totals[best.run])}; another SEED tells more.\n"
        )
    if best.token_efficiency.value <= 1:
        parts.append(f"No mix helps: {name} is better off alone.\n")
    parts.append("* The law is extrapolated: no monolingual run saw as many tokens.\n" * any(row.extrapolated for row in own))
    return "\n".join(part for part in parts if part)


def sentence(best: Row, totals: dict[str, float]) -> str:
    """'p(FR) = 10% gives FR a TEff of 1.62 ± 0.21'."""
    share, efficiency = 100 * best.seen / totals[best.run], best.token_efficiency
    if best.beyond:
        return f"p({best.language}) = {share:.3g}% gives {best.language} a perplexity that it could not reach alone.\n"
    half = (efficiency.high - efficiency.low) / 2
    known = "" if math.isnan(half) else f" ± {half:.2f}" if math.isfinite(half) else f" (above {efficiency.low:.2f})"
    return (
        f"p({best.language}) = {share:.3g}% gives {best.language} a TEff of {efficiency.value:.2f}{known}: "
        f"{count(best.seen)} tokens of it are worth {count(best.mlte.value)} of a model that learns {best.language} alone.\n"
    )
