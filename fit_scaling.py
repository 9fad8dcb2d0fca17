"""What runs say together: the worth of a token of each language, a seed at a time and over seeds.

    python fit_scaling.py out/table1                     # table.md and figure.png, beside the runs
    python fit_scaling.py out/table1 out/table1-seed1    # two seeds in one table

Monolingual runs of several lengths are the yardstick. Between them log PPL is a straight line over log
tokens. Read forwards, it says which perplexity a monolingual model reaches on so many tokens (MLPE); read
backwards, how many tokens it needs for a perplexity (MLTE). Token efficiency, TEff = MLTE / tokens of the
language seen, is what one token was worth: above 1, other languages helped. Were all languages one it would
be 1 / share, and the gain per foreign token, (MLTE - tokens) / tokens of the others, 1 whatever the share.
MLTE - tokens is the head start: if it stays the same however long the others are read, they only took the
model over a plateau; knowledge that is shared grows with them.

The seed is the unit. Each is read on the monolingual runs of its own; over seeds stand the geometric mean of
TEff and Student's t interval of 95%. Beside it stands what the paper does (appendix B): the law
1 / PPL = c - a * (tokens / 1.2e9)^-b, fitted by least squares.
"""

import math
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from scipy import optimize

from common import Parser, count, markdown, run_script, shown, write
from records import (
    NOT_OF_THE_YARDSTICK,
    Interval,
    experiments,
    over,
    ratio_over_seeds,
    read_records,
    yardstick_key,
)

REFERENCE_TOKENS = 1.2e9  # x = 1 in the law
NEAR = 1.05  # runs whose tokens differ by less are of one length

# --- the yardstick -------------------------------------------------------------------------------


class Law(NamedTuple):
    """The paper's: 1 / PPL = c - a * (tokens / 1.2e9)^-b."""

    a: float
    b: float
    c: float

    def perplexity(self, tokens):
        """MLPE: perplexity of a monolingual model trained on `tokens`; infinite where the law has none."""
        with np.errstate(divide="ignore"):
            return 1 / np.maximum(self.c - self.a * (tokens / REFERENCE_TOKENS) ** -self.b, 0)

    def tokens(self, perplexity: float) -> float:
        """MLTE: tokens that a monolingual model needs; infinite for a perplexity that it never reaches."""
        gap = (self.c - 1 / perplexity) / self.a
        return REFERENCE_TOKENS * gap ** (-1 / self.b) if gap > 0 else math.inf


def fit_law(tokens, perplexities) -> Law | None:
    """The law by least squares of 1 / PPL; None of less than four runs, or where none is found."""
    if len(tokens) < 4:
        return None
    x, y = np.array(tokens) / REFERENCE_TOKENS, 1 / np.array(perplexities)
    start = math.log(np.ptp(y)), 0.2, y.max()
    try:
        (log_a, b, c), _ = optimize.curve_fit(
            lambda x, log_a, b, c: c - np.exp(log_a) * x**-b, x, y, start, maxfev=20_000
        )
    except RuntimeError:
        return None
    return Law(math.exp(log_a), b, c) if b > 1e-3 else None


def best_of_each_length(runs: list[dict]) -> list[dict]:
    """Of runs on about as many tokens, that with the lowest perplexity; the shortest first."""
    best = []
    for run in sorted(runs, key=lambda run: run["ppl"]):
        if all(abs(math.log(run["tokens"] / other["tokens"])) > math.log(NEAR) for other in best):
            best.append(run)
    return sorted(best, key=lambda run: run["tokens"])


# --- the worth of a token -------------------------------------------------------------------------


class Yardstick(NamedTuple):
    """Monolingual runs of one seed, straight lines of log PPL over log tokens between them, and their law."""

    tokens: np.ndarray  # (runs,), rising
    perplexities: np.ndarray  # (runs,)
    law: Law | None

    @classmethod
    def of(cls, runs: list[dict]) -> "Yardstick":
        """Through the best run of each length."""
        best = best_of_each_length(runs)
        tokens, perplexities = np.array([(run["tokens"], run["ppl"]) for run in best], float).T
        return cls(tokens, perplexities, fit_law(tokens, perplexities))

    def perplexity(self, tokens: float) -> float:
        """MLPE; nan on fewer or more tokens than the runs have."""
        if not self.tokens[0] / NEAR < tokens < self.tokens[-1] * NEAR:
            return math.nan
        return math.exp(np.interp(math.log(tokens), np.log(self.tokens), np.log(self.perplexities)))

    def needed(self, perplexity: float) -> tuple[float, str]:
        """MLTE, and where the runs end "<" or ">": it then lies below or above what is given."""
        falling = np.minimum.accumulate(self.perplexities)  # more text never makes a model worse
        logs = -np.log(falling) + 1e-9 * np.arange(len(falling))
        tokens = math.exp(np.interp(-math.log(perplexity), logs, np.log(self.tokens)))
        return tokens, "<" if perplexity > falling[0] else ">" if perplexity < falling[-1] else ""


def measure(records: list[dict], any_code: bool = False) -> list[dict]:
    """The records with MLPE, MLTE and what follows from it, as far as they have a yardstick.

    any_code: take runs of other code for a yardstick, too.
    """
    if any_code:
        for record in records:
            record["yardstick"] = yardstick_key(record["config"], record["source"], {"code"})
    alone = defaultdict(list)
    for record in records:
        if record["alone"]:
            alone[record["yardstick"]].append(record)
    yardsticks = {key: Yardstick.of(runs) for key, runs in alone.items()}
    missing = defaultdict(dict)
    for record in records:
        found = yardsticks.get(record["yardstick"])
        if found and len(found.tokens) > 1 and record["tokens"]:
            record.update(worth(record, found))
        elif not record["alone"] and record["source"] != "noise":  # the placebo, which nobody reads alone
            missing[what_is_missing(record, records)][record["run"]] = True
    for reason, runs in missing.items():
        print(f"no TEff of {', '.join(runs)}: {reason}")
    return records


def worth(record: dict, yardstick: Yardstick) -> dict:
    """What monolingual models say of a record."""
    own, others = record["tokens"], record["total"] - record["tokens"]
    needed, beyond = yardstick.needed(record["ppl"])
    found = {"against": yardstick, "mlpe": yardstick.perplexity(own), "mlte": needed, "beyond": beyond}
    found |= {"teff": needed / own, "head_start": needed - own}
    if others:
        found["gain"] = (needed - own) / others
    if yardstick.law:
        found["teff_by_law"] = yardstick.law.tokens(record["ppl"]) / own
    return found


def what_is_missing(record: dict, records: list[dict]) -> str:
    """Why a record has no yardstick: in which settings a run that might have been it differs."""
    needed = f"two lengths of {record['source']} alone with its seed, train.py --ratio 1, are the yardstick"
    own = record["config"]
    for run in records:
        there = run["config"]
        if run["alone"] and run["source"] == record["source"] and run["seed"] == record["seed"]:
            differing = [key for key in sorted(set(own) - NOT_OF_THE_YARDSTICK) if there.get(key) != own[key]]
            if differing:
                told = ", ".join(f"{key} {there.get(key)}, not {own[key]}" for key in differing)
                return f"{needed}; {run['run']} has {told}"
    return needed


# --- what is printed and drawn --------------------------------------------------------------------

EXPLANATION = """
PPL: geometric mean over seeds; of one seed ± its standard error over documents. PPL alone: of a monolingual
model on as many tokens (MLPE). TEff: tokens that it needs for this PPL, per token of the language, of each
seed on the monolingual runs of its own, and the mean with Student's t interval; > and < lie beyond the
longest and the shortest of them. By law: the mean by the paper's law. At most: 1 / share of the run, were
all one language. Gain: tokens that it needs more, per token of the others: 0 nothing is shared, 1 everything.
Head start: tokens that it needs more; the same in a longer run means that a plateau was left sooner.
"""


def as_text(found: Interval, interval: bool = True) -> str:
    """'2.08 [1.90, 2.27]', or '-'."""
    if math.isnan(found.mean):
        return "-"
    known = interval and not math.isnan(found.low)
    return f"{found.mean:.2f}" + (f" [{found.low:.2f}, {found.high:.2f}]" if known else "")


def efficiency_as_text(group: list[dict]) -> str:
    """TEff over seeds; where some are beyond the yardstick, all to one side, a bound."""
    sides = {run["beyond"] for run in group if "teff" in run} - {""}
    if len(sides) != 1:
        return as_text(over(group, "teff"))
    return sides.pop() + f"{ratio_over_seeds([run['teff'] for run in group if 'teff' in run]).mean:.2f}"


def cells_of(group: list[dict]) -> dict[str, str]:
    """A row of the table: its cells by their columns."""
    first, head_start = group[0], over(group, "head_start").mean
    error = first["result"]["languages"][first["position"]].get("ppl_standard_error")
    cells = {
        "run": first["run"],
        "language": first["language"],
        "seeds": " ".join(str(run["seed"]) for run in group),
        "tokens": count(np.mean([run["tokens"] for run in group])),
        "PPL": f"{over(group, 'ppl').mean:.2f}" + (f" ± {error:.2f}" if error and len(group) == 1 else ""),
        "PPL alone": as_text(over(group, "mlpe"), interval=False),
        "TEff of each": " ".join(
            f"{run['beyond']}{run['teff']:.2f}" if "teff" in run else "-" for run in group
        ),
        "TEff [95%]": efficiency_as_text(group),
        "by law": as_text(over(group, "teff_by_law"), interval=False),
        "at most": f"{1 / first['share']:.1f}" if first["share"] else "-",
        "gain": as_text(over(group, "gain"), interval=False),
        "head start": "-" if math.isnan(head_start) else count(head_start),
    }
    if first["alone"] and any(run["ppl"] in run["against"].perplexities for run in group if "against" in run):
        cells |= dict.fromkeys(list(cells)[6:], "-")  # a part of the yardstick
    return cells


def floors(records: list[dict]) -> dict[str, list[tuple[float, float]]]:
    """What counting reaches: by n, (tokens, perplexity) of n-grams on the text of each monolingual run."""
    lines = defaultdict(set)
    for record in records:
        for n, perplexity in record["result"].get("ngrams", {}).items():
            lines[n].add((record["tokens"], perplexity))
    return {n: sorted(points) for n, points in lines.items()}


def sharing(records: list[dict]) -> str:
    """Which pieces have one id in all languages of a mix, in a line; nothing if no mix shares any."""
    runs = defaultdict(dict)
    for record in records:
        if not record["alone"]:
            shared = ", ".join(map(repr, record["config"].get("shared", []))) or "nothing"
            runs[shared][record["run"]] = True
    if set(runs) <= {"nothing"}:
        return ""
    parts = [f"{shared} in {', '.join(names)}" for shared, names in runs.items()]
    return f"Languages share, beside padding: {'; '.join(parts)}.\n"


def table(records: list[dict]) -> str:
    """The experiments as a Markdown table, what the columns mean, laws, shared pieces and counting."""
    rows = [cells_of(group) for group in experiments(records)]
    several = any(" " in row["seeds"] for row in rows)
    columns = [name for name in rows[0] if several or name not in {"seeds", "TEff of each"}]
    columns = [name for name in columns if any(row[name] != "-" for row in rows)]
    text = markdown(columns, [[row[name] for name in columns] for row in rows], 2) + EXPLANATION
    for record in {record["yardstick"]: record for record in records if "teff_by_law" in record}.values():
        law, model = record["against"].law, f"{record['config']['size']}, {record['source']}"
        formula = f"{law.c:.4g} - {law.a:.4g} * (tokens / 1.2e9)^{-law.b:.4g}"
        text += f"Law of {model}, seed {record['seed']}: 1/PPL = {formula}.\n"
    text += sharing(records)
    if counted := floors(records):
        reached = ", ".join(f"{points[-1][1]:.1f} (n = {n})" for n, points in counted.items())
        most = max(tokens for tokens, _ in counted["1"])
        text += f"Counting n-grams of {count(most)} tokens reaches a perplexity of {reached}.\n"
    return text


def draw(records: list[dict], path: Path) -> None:
    """Left: perplexity against tokens of the language. Right: TEff, its interval, and its ceiling."""
    mixed = [group for group in experiments(records) if not group[0]["alone"]]
    runs = list(dict.fromkeys(group[0]["run"] for group in mixed))
    figure = Figure(figsize=(11, max(4.2, 0.32 * len(mixed) + 1.2)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    draw_yardsticks(left, records)
    highest = 10 * max((run["ppl"] for run in records if run["alone"]), default=1e5)
    for place, group in enumerate(mixed):
        colour, share = f"C{runs.index(group[0]['run']) % 10}", group[0]["share"]
        # What was never learned would squeeze all others together.
        known = [(run["tokens"], run["ppl"]) for run in group if run["tokens"] and run["ppl"] < highest]
        left.plot(*np.reshape(known, (-1, 2)).T, "D", color=colour)
        efficiencies = [run["teff"] for run in group if "teff" in run]
        right.plot(efficiencies, [place] * len(efficiencies), "o", color=colour, alpha=0.5)
        right.plot(over(group, "teff")[1:], [place] * 2, color=colour)
        right.plot(1 / share if share else math.nan, place, "|", color="0.4", markersize=14)
    labels = [shown(f"{group[0]['run']}: {group[0]['language']}") for group in mixed]
    right.set_yticks(range(len(mixed)), labels)
    right.set(xlabel="TEff: worth of one token\n|: all that sharing could give", xscale="log")
    right.set_ylim(max(1, len(mixed)) - 0.5, -0.5)
    right.xaxis.set(minor_locator=LogLocator(subs=(2, 5)), major_formatter="{x:g}", minor_formatter="{x:g}")
    right.axvline(1, color="0.4", linestyle=":")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    write(path, figure)


def draw_yardsticks(axes, records: list[dict]) -> None:
    """Perplexities of monolingual runs, a line a seed, and of n-grams."""
    yardsticks = {run["yardstick"]: run for run in records if "against" in run}
    names = list(dict.fromkeys(f"{run['config']['size']}, {run['source']}" for run in yardsticks.values()))
    for run in yardsticks.values():
        name = f"{run['config']['size']}, {run['source']}"
        style = {"color": f"{0.3 + 0.5 * names.index(name) / len(names)}", "zorder": 1}
        axes.plot(run["against"].tokens, run["against"].perplexities, "o-", **style, label=f"{name} alone")
    for n, line in floors(records).items():
        axes.plot(*np.transpose(line), color="0.8", linewidth=1, zorder=0)
        axes.annotate(f"{n}-grams ", line[0], color="0.6", fontsize=8, ha="right", va="center")
    axes.set(xscale="log", yscale="log", xlabel="training tokens of the language", ylabel="test perplexity")
    for axis in (axes.xaxis, axes.yaxis):
        text = FuncFormatter(lambda value, _: count(value))
        axis.set(minor_locator=LogLocator(subs=(2, 3, 5)), major_formatter=text, minor_formatter=text)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))  # seeds share a name
    axes.legend(unique.values(), unique, frameon=False)


def main(arguments: list[str] | None = None) -> None:
    """Print and draw what the runs below the given folders say."""
    parser = Parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="out/FOLDER", help="hold evaluated runs")
    parser.add_argument("--out", type=Path, help="where table and figure go (the first folder)")
    parser.add_argument("--any-code", action="store_true", help="yardsticks of runs of other code, too")
    args = parser.parse_args(arguments)
    records, out = measure(read_records(args.folders), args.any_code), args.out or args.folders[0]
    text = table(records)
    write(out / "table.md", text)
    draw(records, out / "figure.png")
    print(f"{text}\nwritten to {out}")


if __name__ == "__main__":
    run_script(main)
