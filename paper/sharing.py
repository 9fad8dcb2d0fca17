"""Is knowledge shared, or is a plateau only left sooner? Results of each seed (results/LOG.md, 27 to 33).

    python -m paper.sharing out/sharing-0.6x-seed* --out results/sharing      # sharing.md and sharing.png

fit_scaling.py gives the worth of a token. Beside it stand two results of align.py: how alike the hidden
states of the languages are, and for which share of the commonest pieces the key is right.
"""

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from common import Parser, dress, markdown, run_script, shown, write
from fit_scaling import cells_of, read_command
from records import Records, experiments, first_pair, over, those

COLUMNS = ("run", "language", "seeds", "PPL", "TEff of each", "TEff [95%]", "head start", "hidden", "key")
EXPLANATION = """
PPL: geometric mean over seeds. TEff: tokens that a model alone needs for this PPL, per token of the language;
`>` and `<` lie beyond the longest and shortest run alone. Head start: tokens that it needs more, mean.
Hidden: cosine of the hidden states of EN1 and EN2, each position's mean taken off, mean over layers, of each
seed. Key: for how many of the 60 commonest pieces of EN2 the nearest of EN1 is the right one, a share.
"""
PANELS = {  # those that were measured are drawn
    "teff": "TEff; < and >: less or more",
    "head_start": "head start, millions of tokens",
    "hidden": "centred cosine of hidden states",
    "key": "key found",
}


def look_inside(record: dict) -> None:
    """Add how alike the hidden states of the first two languages are, and the key; nan if not measured."""
    layers = first_pair(record, "hidden").get("positions, centred", [])
    means = [layer["mean"] for layer in layers] or [math.nan]
    embeddings = first_pair(record, "embeddings").get("input", {})
    record["hidden"] = float(np.mean(means))
    found = embeddings.get("retrieval@1")
    record["key"] = math.nan if found is None else found


def table(groups: list[Records]) -> str:
    """A row for each experiment and language."""
    rows = []
    for group in groups:
        cells = cells_of(group)
        cells["TEff [95%]"] = str(over(group, "teff"))
        cells["hidden"] = " ".join(f"{run['hidden']:.2f}".replace("nan", "-") for run in group)
        cells["key"] = " ".join(f"{run['key']:.0%}".replace("nan%", "-") for run in group)
        rows.append([cells[column] for column in COLUMNS])
    return markdown(COLUMNS, rows, 2) + EXPLANATION


def of_the_rarest(groups: list[Records]) -> list[Records]:
    """The rarest language of each experiment, the last of equal ones; the highest TEff comes first."""
    by_share = sorted(groups, key=lambda group: -round(group[0]["share"], 2))
    rarest = {group[0]["experiment"]: group for group in by_share}  # the last of an experiment stays

    def worth(group: Records) -> float:
        return float(np.mean([run.get("bound", 0) for run in group]))

    return sorted(rarest.values(), key=worth, reverse=True)


def draw(groups: list[Records], path: Path) -> None:
    """A row for each experiment, a dot for each seed, a line for the interval."""
    rows = of_the_rarest(groups)
    measured = []
    for measure in PANELS:
        values = [run.get(measure, math.nan) for group in rows for run in group]
        if any(map(math.isfinite, values)):
            measured.append(measure)
    size = 1.5 + 3.2 * len(measured), 1.5 + 0.3 * len(rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(measured), sharey=True, squeeze=False)[0]
    for axes, measure in zip(panels, measured, strict=True):
        for place, group in enumerate(rows):
            draw_row(axes, measure, place, group)
        teff = measure == "teff"
        dress(axes, xlabel=PANELS[measure], xscale="log" if teff else "linear")
        axes.grid(axis="y", color="0.9")
        axes.axvline(1 if teff else 0, color="0.4", linestyle=":")
    names = [shown(group[0]["run"]) for group in rows]
    panels[0].set_yticks(range(len(rows)), names)
    panels[0].invert_yaxis()
    write(path, figure)


def draw_row(axes, measure: str, place: int, group: Records) -> None:
    """Draw a measure of an experiment at the height `place`."""
    unit = 1e6 if measure == "head_start" else 1
    colour = "C0" if group[0]["share"] > 0.4 else "C1"
    for run in group:
        value = run.get(measure, math.nan)
        axes.plot(value / unit, place, "o", color=colour, alpha=0.6)
        if measure == "teff" and run.get("beyond"):
            axes.plot(run["bound"], place, run["beyond"], color=colour)
    if measure in {"teff", "head_start"}:
        _, low, high = over(group, measure)
        axes.plot([low / unit, high / unit], [place, place], color=colour)


def main(arguments: list[str] | None = None) -> None:
    """Print, write and draw the results of the runs below the folders."""
    records, out, _ = read_command(Parser(__doc__), arguments)
    for record in records:
        look_inside(record)
    mixed = [record for record in those(records, alone=False) if record["tokens"]]
    groups = experiments(mixed)
    groups.sort(key=lambda group: (group[0]["run"], group[0]["language"]))
    text = table(groups)
    write(out / "sharing.md", text)
    draw(groups, out / "sharing.png")
    print(text)


if __name__ == "__main__":
    run_script(main)
