"""Which mix of one's own languages serves the rarest of them best: the page of runs/mylanguages.sh.

python -m paper.recommend out/mylanguages-en-sw* --out DIR      # page.md and page.png
"""

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from common import Parser, UserError, count, markdown, run_script, shown, write
from fit_scaling import as_text, measure, table
from records import Interval, experiments, over, over_seeds, ratio_over_seeds, read_records

SHOWN = ("alone", "as many steps", "as long", "noise", "in the mix")  # perplexities of a mix and its controls
GAINS = ("noise - mix", "alone - mix")
PAGE = """\
## {tokens} tokens of {language}, GPT {size}, seeds: {seeds}

{advice}

{table}
Perplexity of {language} (bits per byte), geometric mean over seeds. Alone: on as many tokens of it, in
batches of the same size; as many steps: in smaller ones, down to one sequence; as long: on as many tokens as
the mix. Noise: the mix, but with the first language's tokens shuffled. Noise - mix is what the others are
responsible for. Alone - mix: the best run alone that is no longer and has no more text. Differences are of
the same seeds, brackets Student's t interval of 95%. Larger models may differ.{text}

"""

# --- mixes and their controls -----------------------------------------------------------------------


def lowest(records: list[dict]) -> dict[int, float]:
    """The lowest perplexity of each seed."""
    falling = sorted(records, key=lambda record: -record["ppl"])
    return {record["seed"]: record["ppl"] for record in falling}


def mean(by_seed: dict[int, float]) -> Interval:
    """Over seeds, nan without any."""
    return ratio_over_seeds(list(by_seed.values()) or [math.nan])


def difference(one: dict[int, float], other: dict[int, float]) -> Interval:
    """one - other of the same seeds, and its t interval; nan without any."""
    seeds = one.keys() & other.keys()
    return over_seeds([one[seed] - other[seed] for seed in seeds] or [math.nan])


def those(runs: list[dict], **settings) -> list[dict]:
    """The runs that have these settings."""
    return [run for run in runs if settings.items() <= run["config"].items()]


def comparable(runs: list[dict], mix: dict) -> list[dict]:
    """The runs of models of the mix's size on its texts."""
    return those(runs, size=mix["config"]["size"], fingerprint=mix["config"]["fingerprint"])


def about(tokens: float, runs: list[dict]) -> list[dict]:
    """The runs on so many tokens of the language, give or take a twentieth."""
    return [run for run in runs if abs(run["tokens"] / tokens - 1) < 0.05]


def text_of(alone: dict) -> float:
    """How many tokens there are to train on; 0 if the run does not say."""
    passes = alone["result"].get("passes", {})
    return alone["tokens"] / passes.get(alone["source"], math.inf)


def with_controls(group: list[dict], records: list[dict]) -> dict:
    """A mix: the record of its first seed, SHOWN as perplexities by seed, and GAINS."""
    mix = dict(group[0])
    tokens, total = mix["tokens"], mix["total"]
    batch, steps = mix["config"]["batch"], mix["config"]["steps"]
    own = [run for run in comparable(records, mix) if run["source"] == mix["source"]]
    noisy = [run for run in own if "noise" in run["config"]["sources"]]
    alone = [run for run in own if run["alone"]]
    once = about(tokens, alone)
    taken = [run["config"]["steps"] for run in once]
    closest = min(taken, key=lambda number: abs(math.log(number / steps)), default=0)
    found = {
        "alone": those(once, batch=batch),
        "as many steps": those(once, steps=closest),
        "as long": about(total, alone),
        "noise": about(tokens, those(noisy, batch=batch, steps=steps)),
        "in the mix": group,
    }
    for name, runs in found.items():
        mix[name] = lowest(runs)
    # A longer run may have no more text, and read it again. One that does not say so is taken for that.
    no_longer = [run for run in alone if run["tokens"] < 1.05 * total]
    opponents = [run for run in no_longer if min(run["tokens"], text_of(run)) < 1.05 * tokens]
    mix["noise - mix"] = difference(mix["noise"], mix["in the mix"])
    mix["alone - mix"] = difference(lowest(opponents), mix["in the mix"])
    mix["text"] = max(map(text_of, alone), default=0)
    mix["name"] = f"{mix['run']} ({100 * mix['share']:.3g}%)"
    return mix


def parts_of(records: list[dict]) -> list[list[dict]]:
    """The mixes of one size with as many tokens of the rarest language together, the cheapest first."""
    mixed = [run for run in records if not run["alone"] and "noise" not in run["config"]["sources"]]
    if not mixed:
        raise UserError("found no mix of languages, expected the runs of runs/mylanguages.sh")
    rarest = min(mixed, key=lambda run: (run["share"], -run["position"]))
    groups = experiments([run for run in mixed if run["language"] == rarest["language"]])
    left = [with_controls(group, records) for group in groups]
    left.sort(key=lambda mix: mix["total"])
    parts = []
    while left:
        part = about(left[0]["tokens"], comparable(left, left[0]))
        parts.append(part)
        left = [mix for mix in left if mix not in part]
    return parts


# --- what is printed and drawn ----------------------------------------------------------------------


def advice(mixes: list[dict]) -> str:
    """Which mix to take and what cannot be told from it, or why none; `mixes` begins with the cheapest."""
    best = min(mixes, key=lambda mix: mean(mix["in the mix"]).mean)
    gains = ", ".join(f"{gain} {as_text(best[gain])}" for gain in GAINS)
    lowest = f"lowest: {best['name']}, {gains}"
    if all(len(mix["in the mix"]) == 1 for mix in mixes):
        return f"**One seed gives no advice** ({lowest}): only more seeds tell what is more than chance."
    as_good, told = [], [lowest]
    for mix in mixes:
        worse = difference(mix["in the mix"], best["in the mix"])
        if worse.low > 0:
            told.append(f"{mix['name']} is worse by {as_text(worse)}")
            continue
        as_good.append(mix)
        if mix is not best:
            told.append(f"{mix['name']} cannot be told from the best")
    helping = [mix for mix in as_good if all(mix[gain].low > 0 for gain in GAINS)]
    if helping:
        decision = f"**{helping[0]['name']} is recommended**"
    else:
        doubts = [gain for gain in GAINS if not best[gain].low > 0]
        decision = f"**No mix is recommended**: not surely above 0: {' and '.join(doubts)}"
    many = f" {len(mixes)} mixes were compared, so one of them looks good by chance more easily."
    return f"{decision} ({'; '.join(told)}).{many if len(mixes) > 1 else ''}"


def with_bits(ppl: float, run: dict) -> str:
    """'12.34 (2.413)': a perplexity of the run's language, and the bits per byte that it means, if known."""
    if math.isnan(ppl):
        return "-"
    entry = run["result"]["languages"][run["position"]]
    if not entry.get("bits_per_byte"):
        return f"{ppl:.2f}"
    bits = entry["bits_per_byte"] * math.log(ppl) / math.log(entry["ppl"])
    return f"{ppl:.2f} ({bits:.3f})"


def row_of(mix: dict, records: list[dict]) -> list[str]:
    """A mix in the table, and what the other languages have in it."""
    cells = [mix["name"]]
    cells += [with_bits(mean(mix[name]).mean, mix) for name in SHOWN]
    cells += [as_text(mix[gain]) for gain in GAINS]
    others = []
    for group in experiments(records):
        run = group[0]
        if run["experiment"] == mix["experiment"] and run["position"] != mix["position"]:
            others.append(f"{run['language']} {with_bits(over(group, 'ppl').mean, run)}")
    return [*cells, ", ".join(others)]


def page(mixes: list[dict], records: list[dict]) -> str:
    """How the mixes of a part serve the rarest language, and which to take, as Markdown."""
    first = mixes[0]
    head = ("mix", *SHOWN, *GAINS, "others")
    rows = [row_of(mix, records) for mix in mixes]
    repeats = f"\nOf its text {count(first['text'])} tokens differ, then they repeat."
    return PAGE.format(
        tokens=count(first["tokens"]),
        language=first["language"],
        size=first["config"]["size"],
        seeds=max(len(mix["in the mix"]) for mix in mixes),
        advice=advice(mixes),
        table=markdown(head, rows),
        text=repeats if first["text"] else "",
    )


def draw(parts: list[list[dict]], path: Path) -> None:
    """Perplexities of the rarest language by its share, a panel a part."""
    figure = Figure(figsize=(5.5 * len(parts), 4.2), layout="constrained")
    (panels,) = figure.subplots(1, len(parts), squeeze=False)
    for mixes, axes in zip(parts, panels, strict=True):
        first = mixes[0]
        shares = [100 * mix["share"] for mix in mixes]
        for name in SHOWN:
            middle, low, high = np.transpose([mean(mix[name]) for mix in mixes])
            lengths = middle - low, high - middle
            axes.errorbar(shares, middle, lengths, fmt="o:", capsize=3, label=name)
        axes.set_title(f"GPT {first['config']['size']}, {count(first['tokens'])} tokens")
        axes.set(xlabel=shown(f"percent of {first['language']} in the mix"), ylabel="its test perplexity")
        axes.set_xscale("log")
        axes.set_xticks(shares, [f"{share:.3g}" for share in shares])
        axes.minorticks_off()
        axes.legend(frameon=False)
    write(path, figure)


def main(arguments: list[str] | None = None) -> None:
    """Print and draw which mix below the given folders serves the rarest language best."""
    parser = Parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="out/FOLDER", help="hold evaluated runs")
    parser.add_argument("--out", type=Path, help="where the page goes (the first folder)")
    args = parser.parse_args(arguments)
    records, out = read_records(args.folders), args.out or args.folders[0]
    parts = parts_of(records)
    text = "".join(page(mixes, records) for mixes in parts)
    text += "![perplexity by share, with intervals](page.png)\n\n" + table(measure(records))
    write(out / "page.md", text)
    draw(parts, out / "page.png")
    print(f"{text}\nwritten to {out}")


if __name__ == "__main__":
    run_script(main)
