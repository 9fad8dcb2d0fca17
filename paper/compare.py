"""One's own runs beside the paper's, row by row, and which of its takeaways hold for them.

python -m paper.compare out/table1 out/figure2 --out out/compared    # compare.md of all these runs
"""

import itertools
import math
import re
from collections import defaultdict
from statistics import mode

import numpy as np

from common import Parser, count, markdown, run_script, write
from fit_scaling import efficiency_as_text, read_command
from model import SIZES
from paper import values
from records import Interval, Records, experiments, first_pair, over, over_seeds, those

CLONES, REAL = ("cloned",), ("disjoint", "anchored")  # values of train.py --vocab
ORDER = list(SIZES)  # from the smallest
Rows = dict[tuple[str, int], Records]  # by setting and the language's position: a record of each seed


def standard_size(records: Records) -> str:
    """The model size of the tables: the one that most rows with several languages have."""
    groups = experiments(those(records, alone=False) or records)
    return mode(group[0]["size"] for group in groups)


def rows_of(records: Records, vocabs: tuple[str, ...]) -> Rows:
    """The rows of CLONES or REAL, and monolingual rows on the same text; "1x" is the shortest mixed run.

    The English beside clones is another text than that beside French. The text of most mixed rows counts.
    """
    groups = experiments(records)
    firsts = [group[0] for group in groups]
    mixed = [run for run in firsts if run["vocab"] in vocabs]
    # The positive control and the placebo do not define 1x: they are shorter than any mix of the paper.
    mixed = [run for run in mixed if run["anchors"] < 1 and "noise" not in run["sources"]]
    if not mixed:
        return {}
    text = mode(run["fingerprint"] for run in mixed)
    mixed = those(mixed, fingerprint=text)
    shortest = min(run["total"] for run in mixed)
    sources = dict.fromkeys(mixed[0]["sources"])
    names = dict(zip(sources, ("EN", "FR"), strict=False))  # in the place of the paper's languages
    size = standard_size(records)
    rows = {}
    # Of rows with one setting that of more seeds counts, then the lower PPL: monolingual batches vary.
    for group in sorted(groups, key=lambda group: (-len(group), group[0]["ppl"])):
        run = group[0]
        known = run["fingerprint"] == text and names.keys() >= set(run["sources"])
        if known and run["vocab"] in ("monolingual", *vocabs):
            setting = setting_of(run, names, run["total"] / shortest)
            if run["size"] != size:
                setting = f"{run['size']} {setting}"
            rows.setdefault((setting, run["position"]), group)
    return rows


def setting_of(run: dict, names: dict[str, str], times: float) -> str:
    """The setting of a run, written as in values.py: 'cloned x10 50% at 2x'."""
    if run["alone"]:
        what = f"{names[run['source']]} alone"
    else:
        number = f" x{len(run['sources'])}" if len(run["sources"]) > 2 else ""
        stages = "→".join(f"{round(100 * shares[0], 3):g}" for shares in run["stages"])
        what = f"{run['vocab']}{number} {stages}%"
    anchors = f", {run['anchors']:g} anchored" if run["anchors"] else ""
    return f"{what} at {float(f'{times:.2g}'):g}x{anchors}"  # rounded: in whole steps it is never quite 0.1


def rows_of_the_paper() -> Rows:
    """What the paper's tables print, as runs of one seed."""
    rows = {}
    for _, setting, ppls, efficiencies in itertools.chain(*values.TABLES.values()):
        both = zip(ppls.split(), efficiencies.split(), strict=True)
        for position, (ppl, teff) in enumerate(both):
            rows[setting, position] = [{"seed": 0, "ppl": float(ppl), "teff": float(teff)}]
    for part, setting, cosines in values.SIMILARITIES:
        rows[setting, 0][0][part] = [float(cosine) for cosine in cosines.split()]
    return rows


PAPER = rows_of_the_paper()


def similarities(run: dict, part: str) -> list[float]:
    """Cosines of a run's first two languages, one or one a layer; empty if align.py was not run."""
    found = first_pair(run, part)
    if not found:
        return run.get(part, [])  # the paper's
    if part == "hidden":
        layers = found.get("positions") or found["matching"]  # of clones, of real languages
        return [layer["mean"] for layer in layers]
    cosine = found["blocks"] if part == "gradients" else found["input"]["counterparts"]
    return [cosine["mean"]]


EXPLANATION = """
Numbers say how many times the first side is the second, of similarities by how much it is larger: means over
the same seeds with Student's t interval. A claim holds, or does not, if all of it is on one side of 1, or 0;
else it is open, and more seeds, or longer monolingual runs where TEff is unknown (-), may tell. Of claims
about both languages, and of a takeaway, the worst counts.
"""
VERDICTS = ("does not hold", "open", "holds", "not run")  # the worst first
Numbers = dict[tuple[str, str], dict[int, float]]  # by "TEff of L2" and setting: a number for each seed


def numbers_of(rows: Rows) -> Numbers:
    """Cosines, and logarithms of PPL and TEff, nan beyond the yardstick; of L2 to L10 the mean."""
    looks = defaultdict(list)
    for (setting, position), group in rows.items():
        language = "L2 to L10" if position and " x" in setting else f"L{position + 1}"
        for run in group:
            seed = run["seed"]
            looks[f"PPL of {language}", setting, seed].append(math.log(run["ppl"]))
            if "teff" in run:
                looks[f"TEff of {language}", setting, seed].append(math.log(run["teff"]))
            if position == 0 and similarities(run, "hidden"):
                looks["similarity of both", setting, seed] = similarities(run, "hidden")
    numbers = defaultdict(dict)
    for (number, setting, seed), found in looks.items():
        numbers[number, setting][seed] = float(np.mean(found))
    return numbers


def differences(number: str, sides: str, numbers: Numbers) -> list[float]:
    """For each seed that has all settings: by how much the first side exceeds the second."""
    terms = []
    for sign, side in zip((1, -1), sides.split(" > "), strict=True):
        for setting in re.split(r" [*+] ", side):
            if setting != "alone":
                terms.append((sign, numbers.get((number, setting), {})))
    known = [set(by_seed) for _, by_seed in terms]
    seeds = set.intersection(*known)
    return [sum(sign * by_seed[seed] for sign, by_seed in terms) for seed in seeds]


def judge(claim: str, ours: Numbers, paper: Numbers) -> tuple[str, str]:
    """One of VERDICTS, and the numbers that decide it."""
    subject, sides = claim.split(": ")
    measure, languages = subject.split(" of ")
    verdicts, told = [], []
    for language in re.split(" and | or ", languages):
        number = f"{measure} of {language}"
        theirs, own = [differences(number, sides, numbers) for numbers in (paper, ours)]
        found = over_seeds(own)
        verdict = "open" if own else "not run"
        if found.low > 0:
            verdict = "holds"
        elif found.high < 0:
            verdict = "does not hold"
        verdicts.append(verdict)
        intervals = [over_seeds(theirs), found]
        if measure != "similarity":
            intervals = [Interval(*np.exp(interval)) for interval in intervals]
        told.append("paper {}, ours {}, seeds: {}".format(*intervals, len(own)))
    verdicts.sort(key=VERDICTS.index)
    return verdicts[-1 if " or " in languages else 0], "; ".join(told)


def takeaways(ours: Numbers, size: str) -> str:
    """Which of the eight hold, then every claim with its verdict, as Markdown."""
    text, worst, paper = "", defaultdict(list), numbers_of(PAPER)
    larger = ORDER[ORDER.index(size) :] if size in ORDER else [size]
    for line in values.CLAIMS.strip().splitlines():
        if line[0].isdigit():
            takeaway = line[0]
            text += f"\n{line}\n"
            continue
        for claim in dict.fromkeys(line.replace("SIZE", name) for name in larger):
            verdict, told = judge(claim, ours, paper)
            if verdict != "not run" or claim == line:
                text += f"   - {claim}: **{verdict}**, {told}\n"
                worst[takeaway].append(verdict)
    summary = [f"{takeaway} {min(own, key=VERDICTS.index)}" for takeaway, own in worst.items()]
    return f"{', '.join(summary)}.\n{EXPLANATION}{text}"


def compare_table(name: str, own: Rows) -> str:
    """Every row of a table: the paper's perplexities and TEff, and ours."""
    lines = []
    for row, setting, *theirs in values.TABLES[name]:
        places = [(setting, position) for position in (0, 1)]
        groups = [own[place] for place in places if place in own]
        means = [over(group, "ppl").mean for group in groups]
        ppl = [f"{mean:.2f}" if mean < 1000 else count(mean) for mean in means] or ["not run"]
        teff = map(efficiency_as_text, groups)
        their_ppl, their_teff = [cell.replace(" ", ", ") for cell in theirs]
        lines.append([row, setting, their_ppl, ", ".join(ppl), their_teff, ", ".join(teff)])
    head = ("row", "share of L1, tokens", "PPL, paper", "ours", "TEff, paper", "ours [95%]")
    return f"## {name}\n\n{markdown(head, lines, 2)}"


def controls(own: Rows) -> str:
    """The raw cosine of hidden states beside what it may contain: means over layers, of each seed."""
    parts = {
        "raw": ("positions", "matching"),
        "shuffled": ("shuffled",),
        "matched, another text": ("matching, another text",),
        "centred": ("positions, centred", "matching, centred"),
        "retrieval@1": ("retrieval@1",),
    }
    known = {name for group in own.values() for run in group for name in first_pair(run, "hidden")}
    parts = {part: names for part, names in parts.items() if known & set(names)}
    lines = []
    for part, setting, _ in values.SIMILARITIES:
        runs = [run for run in own.get((setting, 0), []) if first_pair(run, "hidden")]
        if part != "hidden" or not runs:
            continue
        cells = [setting, " ".join(str(run["seed"]) for run in runs)]
        for names in parts.values():
            means = []
            for run in runs:
                found = first_pair(run, "hidden")
                layers = [layer["mean"] for name in names for layer in found.get(name, [])]
                means.append(f"{np.mean(layers):.2f}" if layers else "-")
            cells.append(" ".join(means))
        lines.append(cells)
    columns = markdown(("languages", "seeds", *parts), lines, 2)
    return f"### What the cosine of hidden states contains, of each seed\n\n{columns}"


def compare_similarities(own: Rows) -> str:
    """Tables 2 and 4, then Figures 6 and 11 to 13: the paper's cosines and ours."""
    lines = []
    for part, setting, theirs in values.SIMILARITIES:
        paper = similarities(PAPER[setting, 0][0], part)
        seeds = [similarities(run, part) for run in own.get((setting, 0), [])]
        seeds = [cosines for cosines in seeds if cosines]
        ours = np.mean(seeds, axis=0) if seeds else []
        by_layer = " ".join(f"{cosine:.2f}" for cosine in ours)
        mean = f"{np.mean(ours):.2f}" if seeds else "not measured"
        lines.append([part, setting, f"{np.mean(paper):.2f}", mean, theirs, by_layer])
    head = ("cosine of", "languages", "mean, paper", "mean, ours", "by layer, paper", "by layer, ours")
    return f"## Tables 2 and 4, Figures 6 and 11 to 13\n\n{markdown(head, lines, 2)}"


def main(arguments: list[str] | None = None) -> None:
    """Compare the runs below the given folders with the paper's."""
    records, out, _ = read_command(Parser(__doc__), arguments)
    cloned, real = rows_of(records, CLONES), rows_of(records, REAL)
    size = standard_size(records)
    parts = [
        f"# {size} beside the paper's {values.SIZE}\n",
        compare_table("Table 1", cloned),
        compare_table("Table 3", real),
        compare_similarities(cloned | real),
        controls(cloned | real),
        f"## Takeaways\n\n{takeaways(numbers_of(cloned | real), size)}",
    ]
    text = "\n".join(parts)
    write(out / "compare.md", text)
    print(f"{text}\nwritten to {out}")


if __name__ == "__main__":
    run_script(main)
