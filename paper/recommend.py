"""Which mix of one's own languages serves the rarest of them best: the page of runs/mylanguages.sh.

python -m paper.recommend out/mylanguages-en-sw* --out DIR      # page.md and page.png
"""

import math
from pathlib import Path

from matplotlib.figure import Figure

from common import Parser, UserError, count, dress, markdown, run_script, shown, write
from fit_scaling import mean_of, read_command, table
from records import Interval, Records, experiments, over, over_seeds, those

SHOWN = ("alone", "as many steps", "as long", "noise", "in the mix")  # perplexities of a mix and its controls
GAINS = ("noise - mix", "best alone - mix")
EXPLANATION = """
Perplexities of {language}, geometric means over seeds. Alone: a model of {language} only, which reads as many
tokens of it as the mix does, in batches of the same size. As many steps: the same in smaller batches, down to
one sequence. As long: a model that reads as many tokens of {language} as the mix reads in all. Noise: the mix
with the first language's tokens shuffled. Noise - mix is what the other languages taught. Best alone - mix is
what the mix gains on the best model alone that reads no more tokens and has no more text (at most 5% more).
Differences are of the same seeds, in brackets Student's t interval of 95%. Behind a mix stands the share of
{language} that its first seed read. Larger models may differ.
"""


def difference(one: Records, other: Records) -> Interval:
    """By how much the lowest perplexity of `one` exceeds that of `other`, over the seeds that both have."""
    found = []
    for seed in {record["seed"] for record in one}:
        high = [record["ppl"] for record in those(one, seed=seed)]
        low = [record["ppl"] for record in those(other, seed=seed)]
        if low:
            found.append(min(high) - min(low))
    return over_seeds(found)


def about(tokens: float, records: Records) -> Records:
    """The records with so many tokens of the language, give or take a twentieth."""
    low, high = 0.95 * tokens, 1.05 * tokens
    return [record for record in records if low < record["tokens"] < high]


def kind_of(mix: dict) -> dict:
    """The settings that a mix shares with its controls."""
    return {"size": mix["size"], "fingerprint": mix["fingerprint"]}


def text_of(alone: dict) -> float:
    """The tokens of the whole training text; 0 if the run has no number of passes over it."""
    passes = alone.get("passes", {})
    return alone["tokens"] / passes.get(alone["source"], math.inf)


def with_controls(group: Records, records: Records) -> dict:
    """A mix: the record of its first seed, with the records of SHOWN and the intervals of GAINS."""
    mix = dict(group[0])
    tokens, total = mix["tokens"], mix["total"]
    batch = mix["batch"]
    steps = mix["steps"]
    own = those(records, source=mix["source"], **kind_of(mix))
    noisy = [run for run in own if "noise" in run["sources"]]
    alone = those(own, alone=True)
    once = about(tokens, alone)
    numbers = [run["steps"] for run in once]
    closest = min(numbers, key=lambda number: abs(math.log(number / steps)), default=0)
    mix["alone"] = those(once, batch=batch)
    mix["as many steps"] = those(once, steps=closest)
    mix["as long"] = about(total, alone)
    mix["noise"] = those(about(tokens, noisy), batch=batch, steps=steps)
    mix["in the mix"] = group
    # A longer run may read the same text again. A run without a number of passes counts as such a run.
    no_longer = [run for run in alone if run["tokens"] < 1.05 * total]
    opponents = [run for run in no_longer if min(run["tokens"], text_of(run)) < 1.05 * tokens]
    mix["noise - mix"] = difference(mix["noise"], group)
    mix["best alone - mix"] = difference(opponents, group)
    mix["text"] = max(map(text_of, alone), default=0)
    mix["name"] = f"{mix['run']} ({100 * mix['share']:.3g}%)"
    return mix


def parts_of(records: Records) -> list[list[dict]]:
    """Groups of mixes of one size on as many tokens of the rarest language, the cheapest mix first."""
    mixed = [run for run in those(records, alone=False) if "noise" not in run["sources"]]
    mixed = [run for run in mixed if run["tokens"]]
    if not mixed:
        raise UserError("found no mix of languages, expected the runs of runs/mylanguages.sh")
    rarest = min(mixed, key=lambda run: (run["share"], -run["position"]))
    groups = experiments(those(mixed, language=rarest["language"]))
    mixes = [with_controls(group, records) for group in groups]
    parts = []
    for mix in sorted(mixes, key=lambda mix: mix["total"]):
        known = [part for part in parts if about(mix["tokens"], those(part[:1], **kind_of(mix)))]
        if known:
            known[0].append(mix)
        else:
            parts.append([mix])
    return parts


def advice(mixes: list[dict]) -> str:
    """Which mix to take, with the comparisons, or why to take none; `mixes` begins with the cheapest."""
    best = min(mixes, key=lambda mix: over(mix["in the mix"], "ppl").mean)
    gains = ", ".join(f"{gain} {best[gain]}" for gain in GAINS)
    told = [f"best mix: {best['name']}, {gains}"]
    as_good = []
    for mix in mixes:
        worse = difference(mix["in the mix"], best["in the mix"])
        if worse.low > 0:
            told.append(f"{mix['name']} is worse by {worse}")
            continue
        as_good.append(mix)
        if mix is not best:
            told.append(f"{mix['name']} cannot be told from the best")
    helping = [mix for mix in as_good if all(mix[gain].low > 0 for gain in GAINS)]
    if helping:
        decision = f"**{helping[0]['name']} is recommended**"
    else:
        doubts = [gain for gain in GAINS if not best[gain].low > 0]
        decision = f"**No mix is recommended**: the interval of {' and that of '.join(doubts)} is not above 0"
    many = f" {len(mixes)} mixes were compared, so one of them looks good by chance more easily."
    return f"{decision} ({'; '.join(told)}).{many if len(mixes) > 1 else ''}"


def page(mixes: list[dict]) -> str:
    """How the mixes of a part serve the rarest language, and which to take, as Markdown."""
    first, rows = mixes[0], []
    for mix in mixes:
        perplexities = [mean_of(mix[name], "ppl") for name in SHOWN]
        gains = [str(mix[gain]) for gain in GAINS]
        rows.append([mix["name"], *perplexities, *gains])
    language, tokens = first["language"], count(first["tokens"])
    seeds = max(len(mix["in the mix"]) for mix in mixes)
    text = f"## {tokens} tokens of {language}, GPT {first['size']}, seeds: {seeds}\n\n{advice(mixes)}\n\n"
    text += markdown(("mix", *SHOWN, *GAINS), rows)
    text += EXPLANATION.format(language=language)
    if first["text"]:
        text += f"Of its text {count(first['text'])} tokens differ, then they repeat.\n"
    return text + "\n"


def draw(parts: list[list[dict]], path: Path) -> None:
    """Perplexities of the rarest language by its share, a panel for each part."""
    figure = Figure(figsize=(5.5 * len(parts), 4.2), layout="constrained")
    (panels,) = figure.subplots(1, len(parts), squeeze=False)
    for mixes, axes in zip(parts, panels, strict=True):
        first = mixes[0]
        shares = [100 * mix["share"] for mix in mixes]
        for name, marker in zip(SHOWN, "osv^D", strict=True):
            intervals = [over(mix[name], "ppl") for mix in mixes]
            below = [found.mean - found.low for found in intervals]
            above = [found.high - found.mean for found in intervals]
            means = [found.mean for found in intervals]
            axes.errorbar(shares, means, (below, above), fmt=f"{marker}:", capsize=3, label=name)
        axes.set_title(f"GPT {first['size']}, {count(first['tokens'])} tokens")
        dress(axes, xlabel=shown(f"percent of {first['language']} in the mix"), ylabel="its test perplexity")
        axes.legend(frameon=False)
    write(path, figure)


def main(arguments: list[str] | None = None) -> None:
    """Print and draw which mix below the given folders serves the rarest language best."""
    records, out, _ = read_command(Parser(__doc__), arguments)
    parts = parts_of(records)
    text = "".join(map(page, parts))
    text += "![perplexity by share, with intervals](page.png)\n\n" + table(records)
    draw(parts, out / "page.png")
    write(out / "page.md", text)
    print(f"{text}\nwritten to {out}")


if __name__ == "__main__":
    run_script(main)
