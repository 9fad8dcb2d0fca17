"""One's own runs beside the paper's, row by row, and which of its takeaways they bear out.

python -m paper.compare out/table1 out/figure2 --out out/compared    # compare.md of all these runs
"""

import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import Parser, count, markdown, run_script, write
from fit_scaling import as_text, efficiency_as_text, measure
from model import SIZES
from paper import values
from records import Interval, experiments, over, over_seeds, read_records

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
        """'nano cloned x10 50% at 2x'; settings that differ have different names."""
        number = f" x{len(self.languages)}" if len(self.languages) > 2 else ""
        stages = "→".join(f"{share:g}" for share in self.shares)
        alone = f"{self.languages[0].upper()} alone" if len(self.languages) == 1 else ""
        anchors = f", {self.anchors:g} anchored" if self.anchors else ""
        return f"{self.size} {alone or f'{self.vocab}{number} {stages}%'} at {self.times:g}x{anchors}"


Rows = dict[tuple[Setting, int], list[dict]]  # by setting and the language's position: a record of each seed


def is_control(group: list[dict]) -> bool:
    """Whether it is of clones with all in common, or beside noise: shorter than any mix of the paper's."""
    config = group[0]["config"]
    return config["anchors"] == 1 or "noise" in config["sources"]


def family(records: list[dict], vocabs: tuple[str, ...]) -> Rows:
    """The rows of CLONES or REAL, and monolingual ones on their text; "1x" is the shortest mix.

    English alone is another text beside clones than beside French. Of several, that of most rows counts.
    """
    groups, rows = experiments(records), {}
    mixed = [group[0] for group in groups if group[0]["config"]["vocab"] in vocabs and not is_control(group)]
    texts = Counter((run["config"]["fingerprint"], *dict.fromkeys(run["config"]["sources"])) for run in mixed)
    if not texts:
        return {}
    text, *sources = max(texts, key=texts.get)
    standard = min(run["total"] for run in mixed if run["config"]["fingerprint"] == text)
    names = dict(zip(sources, values.EN_FR, strict=False))  # they stand where the paper's languages do
    for group in sorted(groups, key=len, reverse=True):  # of two that are alike, the one of more seeds
        config = group[0]["config"]
        right_text = config["fingerprint"] == text and set(config["sources"]) <= set(names)
        if right_text and config["vocab"] in ("monolingual", *vocabs):
            languages = tuple(names[source] for source in config["sources"])
            shares = tuple(round(100 * stage[0], 3) for stage in config["stages"])
            times = float(f"{group[0]['total'] / standard:.2g}")  # in whole steps it is never quite 0.1
            setting = Setting(config["vocab"], languages, shares, times, config["size"], config["anchors"])
            rows.setdefault((setting, group[0]["position"]), group)
    return rows


def standard_size(records: list[dict]) -> str:
    """The model size that most rows of several languages have: that of the tables."""
    groups = experiments([record for record in records if not record["alone"]] or records)
    sizes = Counter(group[0]["config"]["size"] for group in groups)
    return max(sizes, key=lambda size: (sizes[size], -ORDER.index(size)))


# Where align.py writes what the paper gives of two languages: by layer, or one number.
SIMILARITIES = {
    "hidden": lambda found: found.get("positions") or found["matching"],  # clones, real languages
    "gradients": lambda found: [found["blocks"]],
    "embeddings": lambda found: [found["input"]["counterparts"]],
}


def similarities(group: list[dict], part: str) -> dict[int, list[float]]:
    """Of a run's first two languages, by seed, where align.py looked: the mean cosine of each layer."""
    found = {run["seed"]: run["result"].get("alignment", {}).get(part) for run in group}
    pairs = {seed: next(iter(pairs.values())) for seed, pairs in found.items() if pairs}
    return {seed: [layer["mean"] for layer in SIMILARITIES[part](pair)] for seed, pair in pairs.items()}


# --- the claims of the takeaways --------------------------------------------------------------------

EXPLANATION = """\
Numbers say how many times the first side is the second, of similarities by how much it is larger: means over
the same seeds with Student's t interval. A claim holds, or does not, if all of it is on one side of 1, or 0.
"""
VERDICTS = ("does not hold", "open", "holds", "not run")  # the worst first
SCRIPTS = ("table1", "table2", "table1", "figure2", "table1", "table3 table2 table4", "figure4", "table3")
EVEN, MAIN, FRENCH = "cloned 50% at 1x", "cloned 90% at 1x", "anchored 90% at 1x"


class Claim(NamedTuple):
    """A number is larger in some settings than in others: a / b > c / d is [a, d] > [b, c].

    Settings are those of the tables' size unless they name one. None is a language alone: its TEff is 1.
    """

    takeaway: int
    sentence: str  # of those with the same the worst counts; in takeaway 8 the best
    number: str
    larger: list[str]
    smaller: list[str]

    def __str__(self) -> str:
        sign = " + " if self.number == "similarity" else " * "
        sides = [sign.join(side) or "alone" for side in (self.larger, self.smaller)]
        return f"{self.number}, {' > '.join(sides)}"


CLAIMS = [
    Claim(1, "clones do not generalise at 50/50 (Table 1, row 4)", "TEff of L1", [], [EVEN]),
    Claim(1, "clones do not generalise at 50/50 (Table 1, row 4)", "TEff of L2", [], [EVEN]),
    Claim(2, "imbalance helps the rare clone (Table 1, row 5; Figure 1)", "TEff of L2", [MAIN], []),
    Claim(2, "more than balance (Table 1, rows 4 and 5)", "TEff of L2", [MAIN], [EVEN]),
    Claim(2, "and aligns hidden states (Table 2)", "similarity", [MAIN], [EVEN]),
    *[Claim(3, "a main language helps nine clones (Table 1, rows 6 and 7)",
            "TEff of L2 to L10", [f"cloned x10 50% at {x}x"], [f"cloned x10 10% at {x}x"]) for x in (1, 2)],
    *[Claim(3, "even to a lower perplexity, although they see fewer tokens (Table 1, rows 6 and 7)",
            "PPL of L2 to L10", [f"cloned x10 10% at {x}x"], [f"cloned x10 50% at {x}x"]) for x in (1, 2)],
    *[Claim(4, "longer training strengthens what imbalance is worth (Figures 2 and 9)",
            "TEff of L2", [f"cloned 90% at {x}x", EVEN], [f"cloned 50% at {x}x", MAIN]) for x in (2, 3, 4)],
    *[Claim(4, "so do larger models (Figures 2 and 9)",
            "TEff of L2", [f"{size} {MAIN}", EVEN], [f"{size} {EVEN}", MAIN]) for size in ORDER],
    *[Claim(5, "on the same data, a schedule is better in both clones than 50/50 (Table 1, rows 10 to 13)",
            f"PPL of {language}", [f"cloned 50% at {x}x"], [f"cloned 90→10% at {x}x"])
      for language in ("L1", "L2") for x in (2, 3)],
    *[Claim(6, "real languages with a tenth of the tokens gain (Table 3, rows 8, 9, 12, 13; Figure 3)",
            number, [f"{vocab} {share}% at 1x"], [])
      for vocab in REAL for number, share in (("TEff of L1", 10), ("TEff of L2", 90))],
    *[Claim(6, "without much more alignment: less than half of what clones gain (Table 4)", "similarity",
            [MAIN, *2 * [f"{vocab} 50% at 1x"]], [EVEN, *2 * [f"{vocab} 90% at 1x"]]) for vocab in REAL],
    *[Claim(7, "for real languages the gain shrinks with longer training (Figures 4 and 10)",
            "TEff of L2", [FRENCH], [f"anchored 90% at {x}x"]) for x in (2, 3)],
    *[Claim(7, "and grows with the model (Figures 4 and 10)", "TEff of L2", [f"{size} {FRENCH}"], [FRENCH])
      for size in ORDER],
    *[Claim(8, f"for real languages no schedule is better in both: {vocab} {shares} (Table 3)",
            f"PPL of {language}", [f"{vocab} {shares}% at 1x"], [f"{vocab} 50% at 1x"])
      for vocab, shares in (("disjoint", "90→10"), ("anchored", "90→10"), ("anchored", "90→10→50→50"))
      for language in ("L1", "L2")],
]  # fmt: skip

Numbers = dict[tuple[str, str], dict[int, float]]  # by Claim.number and setting: of each seed


def numbers_of(rows: Rows, size: str) -> Numbers:
    """Cosines, and logarithms, nan beyond the yardstick; nine clones are nine looks at one model."""
    looks = defaultdict(lambda: defaultdict(list))
    larger = ORDER[ORDER.index(size) :]
    for (setting, position), group in rows.items():
        if setting.size in larger:
            place = str(setting).removeprefix(f"{size} ")
            language = "L2 to L10" if position and len(setting.languages) > 2 else f"L{position + 1}"
            for run in group:
                looks[f"PPL of {language}", place][run["seed"]].append(math.log(run["ppl"]))
                if "teff" in run:
                    worth = math.nan if run["beyond"] else math.log(run["teff"])
                    looks[f"TEff of {language}", place][run["seed"]].append(worth)
            if position == 0:
                looks["similarity", place] |= similarities(group, "hidden")
    return {name: {seed: np.mean(found) for seed, found in seeds.items()} for name, seeds in looks.items()}


def numbers_of_the_paper() -> Numbers:
    """What it prints, as of one seed."""
    rows = {}
    for row in values.TABLES["Table 1"] + values.TABLES["Table 3"]:
        setting = Setting(row.vocab, row.languages, row.shares, row.times, values.SIZE)
        for position, (ppl, teff) in enumerate(zip(row.ppl, row.token_efficiency, strict=True)):
            run = {"seed": 0, "ppl": ppl, "teff": teff or math.nan, "beyond": "", "result": {}}
            rows[setting, position] = [run]
    numbers = numbers_of(rows, values.SIZE)
    for (vocab, share), layers in values.HIDDEN_STATES.items():
        numbers["similarity", f"{vocab} {share}% at 1x"] = {0: np.mean(layers)}
    return numbers


def differences(claim: Claim, numbers: Numbers) -> list[float]:
    """Of each seed that has all settings: by how much the larger side is larger."""
    sides = (claim.larger, claim.smaller)
    larger, smaller = ([numbers.get((claim.number, place), {}) for place in side] for side in sides)
    seeds = set.intersection(*map(set, larger + smaller))
    return [sum(one[seed] for one in larger) - sum(one[seed] for one in smaller) for seed in seeds]


def judge(claim: Claim, ours: Numbers, paper: Numbers) -> tuple[str, str]:
    """One of VERDICTS, and what it rests on."""
    found = [differences(claim, numbers) for numbers in (paper, ours)]
    intervals = [over_seeds(seeds) if seeds else Interval(math.nan) for seeds in found]
    our, seeds = intervals[1], len(found[1])
    if claim.number != "similarity":
        intervals = [Interval(*np.exp(interval)) for interval in intervals]
    theirs, told = map(as_text, intervals)
    if not seeds:
        return "not run", f"paper {theirs}, see runs: {SCRIPTS[claim.takeaway - 1]}"
    told = f"paper {theirs}, ours {told}, seeds: {seeds}"
    if our.excludes(0):
        return "holds" if our.mean > 0 else "does not hold", told
    return "open", f"{told}, {'a longer yardstick' if math.isnan(our.mean) else 'more seeds'} may tell"


def takeaways(ours: Numbers) -> str:
    """Which of the eight hold, then every claim with its verdict, as Markdown."""
    paper, sentences, words, text = numbers_of_the_paper(), defaultdict(list), defaultdict(list), ""
    for claim in CLAIMS:
        sentences[claim.takeaway, claim.sentence].append((*judge(claim, ours, paper), claim))
    for (takeaway, sentence), cases in sentences.items():
        run = [case for case in cases if case[0] != "not run"] or cases[-1:]
        run.sort(key=lambda case: VERDICTS.index(case[0]), reverse=takeaway == 8)
        words[takeaway].append(run[0][0])
        text += f"\n{takeaway}. {sentence}: **{run[0][0]}**\n"
        text += "".join(f"   - {claim}: {verdict}, {told}\n" for verdict, told, claim in run)
    summary = defaultdict(list)
    for takeaway, own in words.items():
        worst = min(own, key=VERDICTS.index)
        in_part = " (in part)" if worst != "not run" and "not run" in own else ""
        summary[worst].append(f"{takeaway}{in_part}")
    lines = [f"{word.capitalize()}: {', '.join(summary[word])}.\n" for word in VERDICTS if word in summary]
    return f"{''.join(lines)}\n{EXPLANATION}{text}"


# --- the page ---------------------------------------------------------------------------------------


def found_in(groups: list[list[dict]]) -> tuple[str, str]:
    """Perplexity and TEff of each."""
    perplexities = [over(group, "ppl").mean for group in groups]
    rounded = [f"{ppl:.{1 + (ppl < 10)}f}" if ppl < 1e4 else count(ppl) for ppl in perplexities]
    return ", ".join(rounded) or "not run", ", ".join(map(efficiency_as_text, groups))


def compare_table(name: str, scripts: str, own: Rows, records: list[dict], size: str) -> str:
    """Every row of a table: the paper's perplexities and TEff, and ours; then, ours alone, controls."""
    lines = []
    for row in values.TABLES[name]:
        setting = Setting(row.vocab, row.languages, row.shares, row.times, size)
        ppl, teff = found_in([own[setting, i] for i in range(len(row.ppl)) if (setting, i) in own])
        their_ppl = ", ".join("> 1B" if ppl == values.NEVER_LEARNED else f"{ppl:.1f}" for ppl in row.ppl)
        their_teff = ", ".join("-" if teff is None else f"{teff:.2f}" for teff in row.token_efficiency)
        what = str(setting).removeprefix(f"{size} ")
        teff = "" if row.vocab == "monolingual" else teff  # it is 1 by definition
        lines.append((row.row, what, their_ppl, ppl, their_teff, teff))
    texts = {group[0]["config"]["fingerprint"] for group in own.values()}
    rows = {group[0]["experiment"] for group in own.values()}
    for group in experiments(records):
        run = group[0]
        beside = is_control(group) or (run["alone"] and run["experiment"] not in rows)
        if beside and run["config"]["fingerprint"] in texts and run["source"] != "noise":
            what = f"{run['run']}: {run['language']}, {run['share']:.0%} of {count(run['total'])} tokens"
            ppl, teff = found_in([group])
            lines.append(("control", what, "", ppl, "", teff))
    head = ("row", "share of L1, tokens", "PPL, paper", "ours", "TEff, paper", "ours [95%]")
    return f"## {name}\n\nRun by {scripts}.\n\n{markdown(head, lines, 2)}"


def compare_similarities(own: Rows, size: str) -> str:
    """Tables 2 and 4, then Figures 6 and 11 to 13: the paper's cosines and ours."""
    lines, tables = [], (values.HIDDEN_STATES, values.GRADIENTS, values.EMBEDDINGS)
    for part, table in zip(SIMILARITIES, tables, strict=True):
        for (vocab, share), theirs in table.items():
            languages = values.CLONES if vocab == "cloned" else values.EN_FR
            group = own.get((Setting(vocab, languages, (share,), 1, size), 0), [])
            both = [theirs, np.mean([*similarities(group, part).values()] or [[]], axis=0)]
            means = [f"{np.mean(layers):.2f}" if len(layers) else "not measured" for layers in both]
            layers = [" ".join(f"{cosine:.2f}" for cosine in layers) for layers in both]
            lines.append((part, f"{vocab} {share}%", *means, *layers))
    head = ("cosine of", "languages", "mean, paper", "mean, ours", "by layer, paper", "by layer, ours")
    told = "Measured by runs/table2.sh and runs/table4.sh."
    return f"## Tables 2 and 4, Figures 6 and 11 to 13\n\n{told}\n\n{markdown(head, lines, 2)}"


def main(arguments: list[str] | None = None) -> None:
    """Compare the runs below the given folders with the paper's."""
    parser = Parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="out/FOLDER", help="hold evaluated runs")
    parser.add_argument("--out", type=Path, help="where compare.md goes (the first folder)")
    parser.add_argument("--any-code", action="store_true", help="yardsticks of runs of other code, too")
    args = parser.parse_args(arguments)
    records = measure(read_records(args.folders), args.any_code)
    size, cloned, real = standard_size(records), family(records, CLONES), family(records, REAL)
    parts = [
        f"# {size} beside the paper's {values.SIZE}\n",
        compare_table("Table 1", "runs/table1.sh and runs/figure2.sh", cloned, records, size),
        compare_table("Table 3", "runs/table3.sh", real, records, size),
        compare_similarities(cloned | real, size),
        f"## Takeaways\n\n{takeaways(numbers_of(cloned | real, size))}",
    ]
    text, path = "\n".join(parts), (args.out or args.folders[0]) / "compare.md"
    write(path, text)
    print(f"{text}\nwritten to {path}")


if __name__ == "__main__":
    run_script(main)
