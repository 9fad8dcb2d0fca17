"""Is knowledge shared, or is a plateau only left sooner? What each seed says (results/LOG.md, 27 to 33).

    python -m paper.sharing out/sharing-0.6x-seed* --out results/sharing      # sharing.md and sharing.png

The worth of a token is fit_scaling.py's. Beside it stands how alike the languages are inside, as align.py
found it: their hidden states, and how much of the key from one to the other the embeddings hold.
"""

import math
import re
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from common import Parser, markdown, run_script, shown, write
from fit_scaling import as_text, cells_of, measure
from records import experiments, over, read_records

COLUMNS = ("run", "language", "seeds", "PPL", "TEff of each", "TEff [95%]", "head start", "hidden", "key")
EXPLANATION = """
PPL: geometric mean over seeds. TEff: tokens that a model alone needs for this PPL, per token of the language;
`>` and `<` lie beyond the longest and shortest run alone. Head start: tokens that it needs more, mean.
Hidden: cosine of the hidden states of EN1 and EN2, each position's mean taken off, mean over layers, of each
seed. Key: retrieval@1 of embeddings, how often the nearest of the 60 commonest pieces of EN1 is its own.
"""
MIXES = {"90-10": ("C1", -0.13), "50-50": ("C0", 0.13)}  # colour, and how far below the middle of the row
PLAIN = "tied, rotary, space"  # the row of runs whose name is their mix
PANELS = {
    "teff": "TEff of the rarer language; arrow: more or less",
    "hidden": "centred cosine of hidden states",
    "key": "key found",
}


def inside(record: dict) -> dict:
    """How alike the first two languages' hidden states are, and the key; nan if it is not known."""
    found = record["result"].get("alignment", {})
    hidden = next(iter(found.get("hidden", {}).values()), {})
    embeddings = next(iter(found.get("embeddings", {}).values()), {})
    layers = [layer["mean"] for layer in hidden.get("positions, centred", [])]
    return {
        "hidden": float(np.mean(layers)) if layers else math.nan,
        "key": embeddings.get("input", {}).get("retrieval@1") or math.nan,
    }


def of_each(group: list[dict], name: str, form: str) -> str:
    """A measure of each seed, or '-'."""
    return " ".join("-" if math.isnan(run[name]) else format(run[name], form) for run in group)


def table(groups: list[list[dict]]) -> str:
    """A row an experiment and language."""
    rows = []
    for group in groups:
        cells = cells_of(group) | {"TEff [95%]": as_text(over(group, "teff"))}
        cells |= {"hidden": of_each(group, "hidden", ".2f"), "key": of_each(group, "key", ".0%")}
        rows.append([cells[column] for column in COLUMNS])
    return markdown(COLUMNS, rows, 2)


def plateau(records: list[dict], up_to: float = 2.5e6) -> str:
    """How much perplexity alone falls, at least, where tokens double: by the longest yardstick of a seed."""
    held = [record for record in records if "against" in record]
    held.sort(key=lambda record: len(record["against"].tokens))
    longest = {record["seed"]: record["against"] for record in held}
    told = []
    for seed, alone in sorted(longest.items()):
        starts = np.geomspace(alone.tokens[0], up_to / 2, 50)
        pairs = [(n, 2 * n) for n in starts if alone.tokens[0] <= n <= alone.tokens[-1] / 2]
        falls = [1 - alone.perplexity(after) / alone.perplexity(before) for before, after in pairs]
        if falls:
            told.append(f"seed {seed}: {min(falls):.0%}")
    return "Where tokens double, perplexity alone falls by at least: " + ", ".join(told) + "\n"


def row_and_mix(run: str) -> tuple[str, str]:
    """'untied-90-10' -> 'untied', '90-10'. A name without a mix is a row of its own."""
    mix = re.search(rf"\b({'|'.join(MIXES)})\b", run)
    if not mix:
        return run, ""
    parts = [part.strip("-/") for part in (run[: mix.start()], run[mix.end() :])]
    return "-".join(filter(None, parts)) or PLAIN, mix[0]


def draw(groups: list[list[dict]], path: Path) -> None:
    """The rarest language of each experiment, of equal ones the last: a row a kind of run, a dot a seed."""
    groups = sorted(groups, key=lambda group: (-round(group[0]["share"], 2), group[0]["position"]))
    rarest = {group[0]["experiment"]: group for group in groups}.values()
    rows = sorted({row_and_mix(group[0]["run"])[0] for group in rarest}, key=lambda row: (row != PLAIN, row))
    figure = Figure(figsize=(11, 1.5 + 0.4 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for axis, (name, label) in zip(panels, PANELS.items(), strict=True):
        for group in rarest:
            row, mix = row_and_mix(group[0]["run"])
            colour, below = MIXES.get(mix, ("0.5", 0))
            for run in group:
                # An arrow: the worth lies beyond the longest or the shortest run alone.
                marker = (name == "teff" and run.get("beyond")) or "o"
                axis.plot(run.get(name, math.nan), rows.index(row) + below, marker, color=colour, alpha=0.6)
        axis.set(xlabel=label, yticks=range(len(rows)), yticklabels=map(shown, rows))
        axis.grid(axis="y", color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
    worth, *others = panels
    for mix, (colour, _) in MIXES.items():
        worth.plot([], [], "o", color=colour, label=mix.replace("-", "/"))
    worth.axvline(1, color="0.4", linestyle=":")
    worth.set(xscale="log", ylim=(len(rows) - 0.5, -0.5))
    worth.set_xticks([0.5, 1, 2, 3, 5], ["0.5", "1", "2", "3", "5"])
    worth.minorticks_off()
    for axis in others:
        axis.set_xlim(-0.1, 1.05)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    write(path, figure)


def main(arguments: list[str] | None = None) -> None:
    """Print and write what the runs below the folders say."""
    parser = Parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of runs of one or more seeds")
    parser.add_argument("--out", type=Path, help="where sharing.md and sharing.png go (the first folder)")
    args = parser.parse_args(arguments)
    records, out = measure(read_records(args.folders)), args.out or args.folders[0]
    for record in records:
        record.update(inside(record))
    mixed = experiments([record for record in records if not record["alone"] and record["tokens"]])
    mixed.sort(key=lambda group: (group[0]["run"], group[0]["language"]))
    text = table(mixed) + EXPLANATION + plateau(records)
    write(out / "sharing.md", text)
    draw(mixed, out / "sharing.png")
    print(text)


if __name__ == "__main__":
    run_script(main)
