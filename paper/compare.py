"""One's own runs beside the paper's, row by row, and which of its takeaways they bear out.

python -m paper.compare out/table1 out/figure2 --out out/compared    # compare.md of all these runs
"""

import math
import re
from collections import Counter, defaultdict
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import Parser, count, markdown, run_script, write
from fit_scaling import RESAMPLES, Fitted, Quantity, Row, fit, quantity
from model import SIZES
from paper import values

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
        stages = "→".join(f"{share:g}" for share in self.shares)
        anchors = f", {self.anchors:g} anchored" if self.anchors else ""
        return f"{self.size} {self.vocab}{number} {stages}% at {self.times:g}x{anchors}"


Rows = dict[tuple[Setting, int], Row]  # by setting, and the language's position in it


def is_control(row: Row) -> bool:
    """Whether it is of clones with all in common, or beside noise: shorter than any mix of the paper's."""
    return row.result["anchors"] == 1 or "noise" in row.result["sources"]


def family(fitted: Fitted, vocabs: tuple[str, ...]) -> Rows:
    """The rows of CLONES or REAL, and monolingual ones on their text; "1x" is the shortest mix.

    English alone is another text beside clones than beside French. Of several, that of most rows counts.
    """
    mixed = [row.result for row in fitted.rows if row.result["vocab"] in vocabs and not is_control(row)]
    texts = Counter((result["fingerprint"], *dict.fromkeys(result["sources"])) for result in mixed)
    if not texts:
        return {}
    text, *sources = texts.most_common(1)[0][0]
    standard = min(result["tokens"] for result in mixed if result["fingerprint"] == text)
    names = dict(zip(sources, values.EN_FR, strict=False))  # they stand where the paper's languages do
    found: Rows = {}
    for row in fitted.rows:
        result = row.result
        right_text = result["fingerprint"] == text and set(result["sources"]) <= set(names)
        if right_text and result["vocab"] in ("monolingual", *vocabs):
            languages = tuple(names[source] for source in result["sources"])
            shares = tuple(round(100 * stage[0], 3) for stage in result["stages"])
            times = float(f"{result['tokens'] / standard:.2g}")  # in whole steps it is never quite 0.1
            setting = Setting(result["vocab"], languages, shares, times, result["size"], result["anchors"])
            found.setdefault((setting, row.position), row)
    return found


def standard_size(fitted: Fitted) -> str:
    """The model size that most rows of several languages have: that of the tables."""
    rows = [row for row in fitted.rows if not row.monolingual] or fitted.rows
    sizes = Counter(row.result["size"] for row in rows)
    return max(sizes, key=lambda size: (sizes[size], -ORDER.index(size)))


# The paper's similarities of a pair of languages, each a list over layers, in what align.py found.
SIMILARITIES = {
    "hidden": lambda found: found.get("positions") or found["matching"],  # clones, real languages
    "gradients": lambda found: [found["blocks"]],
    "embeddings": lambda found: [found["input"]["counterparts"]],
}


def similarities(own: Rows, part: str, size: str) -> dict[Setting, list[dict]]:
    """Means and standard errors of the first two languages of each run that align.py looked at."""
    return {
        setting: SIMILARITIES[part](next(iter(row.result["alignment"][part].values())))
        for (setting, position), row in own.items()
        if position == 0 and setting.size == size and row.result.get("alignment", {}).get(part)
    }


# --- the claims of the takeaways --------------------------------------------------------------------

# The first number is the smaller one, says the paper. L? is the language in which that is clearer, SIZE the
# model of the tables, LARGER and LONGER the largest model and most tokens for which there are runs.
CLAIMS = """
1. clones do not generalise at 50/50: a token is worth less than a monolingual one (Table 1, row 4)
  TEff of L1, SIZE cloned 50% at 1x < monolingual
  TEff of L2, SIZE cloned 50% at 1x < monolingual
2. imbalance helps: the rare clone's tokens are worth more (Table 1, row 5; Figure 1)
  monolingual < TEff of L2, SIZE cloned 90% at 1x
  TEff of L2, SIZE cloned 50% at 1x < TEff of L2, SIZE cloned 90% at 1x
2. and it aligns the hidden states of clones (Table 2)
  similarity of SIZE cloned 50% at 1x < similarity of SIZE cloned 90% at 1x
3. a main language helps nine clones, although they see fewer tokens (Table 1, rows 6 and 7)
  TEff of L2 to L10, SIZE cloned x10 10% at LONGERx < TEff of L2 to L10, SIZE cloned x10 50% at LONGERx
  PPL of L2 to L10, SIZE cloned x10 50% at LONGERx < PPL of L2 to L10, SIZE cloned x10 10% at LONGERx
4. longer training strengthens what imbalance is worth (Figures 2 and 9)
  TEff of L2, SIZE cloned 90% at 1x less that at 50% < TEff of L2, SIZE cloned 90% at LONGERx less that at 50%
4. so do larger models (Figures 2 and 9)
  TEff of L2, SIZE cloned 90% at 1x less that at 50% < TEff of L2, LARGER cloned 90% at 1x less that at 50%
5. on the same data, a schedule is better in both clones than 50/50 (Table 1, rows 10 to 13)
  PPL of L1, SIZE cloned 90→10% at LONGERx < PPL of L1, SIZE cloned 50% at LONGERx
  PPL of L2, SIZE cloned 90→10% at LONGERx < PPL of L2, SIZE cloned 50% at LONGERx
6. real languages with a tenth of the tokens gain (Table 3, rows 8, 9, 12, 13; Figure 3)
  monolingual < TEff of L2, SIZE anchored 90% at 1x
  monolingual < TEff of L1, SIZE anchored 10% at 1x
  monolingual < TEff of L2, SIZE disjoint 90% at 1x
  monolingual < TEff of L1, SIZE disjoint 10% at 1x
6. without much more alignment: less than half of what clones gain (Table 4)
  similarity of SIZE disjoint 90% at 1x less that at 50% < half of what clones gain
  similarity of SIZE anchored 90% at 1x less that at 50% < half of what clones gain
7. for real languages the gain shrinks with longer training (Figures 4 and 10)
  TEff of L2, SIZE anchored 90% at LONGERx < TEff of L2, SIZE anchored 90% at 1x
7. and grows with the model (Figures 4 and 10)
  TEff of L2, SIZE anchored 90% at 1x < TEff of L2, LARGER anchored 90% at 1x
8. for real languages no schedule is better in both (Table 3, rows 10, 14, 15)
  PPL of L?, SIZE disjoint 50% at 1x < PPL of L?, SIZE disjoint 90→10% at 1x
  PPL of L?, SIZE anchored 50% at 1x < PPL of L?, SIZE anchored 90→10% at 1x
  PPL of L?, SIZE anchored 50% at 1x < PPL of L?, SIZE anchored 90→10→50→50% at 1x
"""

Numbers = dict[str, np.ndarray]  # each first, then what else might have been found, as in Row


def numbers_of(own: Rows, size: str) -> Numbers:
    """What one's own runs found, by the names that CLAIMS give."""
    numbers, several, random = {}, defaultdict(list), np.random.default_rng(0)
    for (setting, position), row in own.items():
        for measure, name in (("PPL", "ppl"), ("TEff", "token_efficiency")):
            if name in row.drawn:
                numbers[f"{measure} of L{position + 1}, {setting}"] = row.drawn[name]
                if position and (clones := len(setting.languages)) > 2:  # nine are nine looks at the same
                    several[f"{measure} of L2 to L{clones}, {setting}"].append(row.drawn[name])
    numbers |= {name: np.mean(drawn, axis=0) for name, drawn in several.items()}
    for setting, layers in similarities(own, "hidden", size).items():
        # All layers see the same texts, so that their errors do not average out.
        mean = sum(layer["mean"] for layer in layers) / len(layers)
        error = sum(layer["standard_error"] or math.nan for layer in layers) / len(layers)
        numbers[f"similarity of {setting}"] = mean + error * np.append(0, random.standard_normal(RESAMPLES))
    return numbers


def with_gains(numbers: Numbers, size: str) -> Numbers:
    """Also what follows from them: what imbalance is worth, where the law has a number for both."""
    found = numbers | {"monolingual": np.ones(1 + RESAMPLES)}
    for name, drawn in numbers.items():
        even = numbers.get(name.replace(" 90% ", " 50% "), drawn)
        if " 90% " in name and even is not drawn and not np.isinf([drawn[0], even[0]]).any():
            with np.errstate(invalid="ignore"):  # inf - inf
                found[f"{name} less that at 50%"] = drawn - even
    clones = f"similarity of {size} cloned 90% at 1x less that at 50%"
    return found | ({"half of what clones gain": found[clones] / 2} if clones in found else {})


class Less(NamedTuple):
    """One number is smaller than another, says the paper."""

    names: list[str]
    low: np.ndarray
    high: np.ndarray

    @property
    def difference(self) -> Quantity:
        """By paired draws; below 0 if the claim is true."""
        with np.errstate(invalid="ignore"):  # inf - inf
            return quantity(self.low - self.high)

    @property
    def verdict(self) -> str:
        """A word of SUMMARY; it is certain if the interval of the difference does not hold 0."""
        difference = self.difference
        if math.isnan(difference.value) or math.isnan(difference.low):
            return "cannot be judged"
        certain = difference.excludes(0)
        if difference.value < 0:
            return "holds" if certain else "holds within chance"
        return "does not hold" if certain else "fails within chance"

    @property
    def would_change_it(self) -> str:
        """What else one would have to run for another verdict, or a certain one."""
        value, low, high = self.difference
        if "judged" in self.verdict:
            return "a fourth length of monolingual runs would tell, or one that reaches as far"
        if "chance" not in self.verdict:
            return "more of the same will not turn it, other tokens or sizes may"
        times = math.ceil((max(high - value, value - low) / abs(value)) ** 2) if value else math.inf
        return f"{times} times the seeds may tell" if times <= 20 else "too close for any number of seeds"

    def __str__(self) -> str:
        low, high, than = self.low[0], self.high[0], "<" if self.low[0] < self.high[0] else "not <"
        difference = self.difference.text(2)
        return f"{self.names[0]} {low:.3g} {than} {self.names[1]} {high:.3g}, a difference of {difference}"


# What is said of a takeaway by the worst word of its claims; "not run" is left for those of which none was.
SUMMARY = {
    "does not hold": "Do not hold",
    "fails within chance": "Fail within chance",
    "cannot be judged": "Cannot be judged",
    "holds within chance": "Hold within chance",
    "holds": "Hold",
    "not run": "Not run",
}


def compare_numbers(line: str, numbers: Numbers) -> Less:
    """A line of CLAIMS; of two languages, that in which it is clearer. KeyError if a number is missing."""
    lines = [line.replace("L?", language).split(" < ") for language in ("L1", "L2")]
    both = [Less(names, *(numbers[name] for name in names)) for names in lines]
    with np.errstate(all="ignore"):
        return max(both, key=lambda less: less.high[0] / less.low[0])


def judge(comparisons: list[str], numbers: Numbers, size: str) -> tuple[str, str]:
    """The worst word of SUMMARY that the lines of a claim earn, and the numbers it rests on.

    That of the largest model and most tokens counts; what all others say follows.
    """
    larger, verdicts, missing = ORDER[: ORDER.index(size) : -1] or ["a larger model"], {}, ""
    for model, times in product(larger, "4321"):
        lines = [line.strip().replace("LARGER", model).replace("LONGER", times) for line in comparisons]
        if any(low == high for low, high in (line.split(" < ") for line in lines)):
            continue  # a run is not longer than itself
        try:
            found = [compare_numbers(line, numbers) for line in lines]
        except KeyError as error:
            missing = error.args[0]
        else:
            worst = min(found, key=lambda less: [*SUMMARY].index(less.verdict))
            verdicts["; ".join([*map(str, found), worst.would_change_it])] = worst.verdict
    if not verdicts:
        return "not run", f"needs {missing}"
    (told, word), *others = verdicts.items()
    return word, "\n   * ".join([told, *(f"**{other}**: {told}" for told, other in others)])


def takeaways(numbers: Numbers, size: str) -> str:
    """Which of the eight hold, then every claim with its verdict, as Markdown."""
    numbers, words, claims = with_gains(numbers, size), defaultdict(set), ""
    for claim in re.split(r"\n(?=\d)", CLAIMS.strip().replace("SIZE", size)):
        sentence, *comparisons = claim.splitlines()
        word, told = judge(comparisons, numbers, size)
        words[sentence[0]].add(word)
        claims += f"{sentence}: **{word}**; {told}\n"
    found = defaultdict(list)
    for number, own in words.items():
        worst = next(word for word in SUMMARY if word in own)
        found[worst].append(number + " (in part)" * ("not run" in own and worst != "not run"))
    summary = [f"{told}: {', '.join(found[word])}.\n" for word, told in SUMMARY.items() if word in found]
    return f"{''.join(summary)}\n{claims}"


# --- the page ---------------------------------------------------------------------------------------


def what_was_found(rows: list[Row]) -> tuple[str, str]:
    """Perplexity and TEff of each."""
    return (
        ", ".join(Quantity(row.ppl.value).text(1 + (row.ppl.value < 10)) for row in rows),
        ", ".join(row.text("token_efficiency") for row in rows),
    )


def controls(fitted: Fitted, own: Rows) -> dict[str, list[Row]]:
    """By run: what stands beside a table's rows on their text, a language alone in other batches included."""
    texts, found = {row.result["fingerprint"] for row in own.values()}, defaultdict(list)
    for row in fitted.rows:
        of_ladder = row.monolingual and not any(row is other for other in own.values())
        if row.result["fingerprint"] in texts and row.source != "noise" and (is_control(row) or of_ladder):
            found[row.result["name"]].append(row)
    return found


def compare_table(name: str, scripts: str, own: Rows, size: str, beside: dict[str, list[Row]]) -> str:
    """Every row of a table: the paper's perplexities and TEff, and ours; then, ours alone, what is beside."""
    lines = []
    for row in values.TABLES[name]:
        setting = Setting(row.vocab, row.languages, row.shares, row.times, size)
        found = [own[setting, i] for i in range(len(row.ppl)) if (setting, i) in own]
        several = row.vocab + f" x{len(row.languages)}" * (len(row.languages) > 2)
        languages = several if row.vocab != "monolingual" else f"mono {row.languages[0].upper()}"
        stages = "→".join(f"{share:g}" for share in row.shares)
        ppl = ", ".join(">1B" if ppl == values.NEVER_LEARNED else f"{ppl:.1f}" for ppl in row.ppl)
        efficiency = ", ".join("-" if value is None else f"{value:.2f}" for value in row.token_efficiency)
        what = (row.row, languages, f"{row.times:g}x", f"{stages}%")
        our_ppl, our_efficiency = what_was_found(found)
        lines.append((*what, ppl, our_ppl or "not run", efficiency, our_efficiency))
    head = ("row", "languages", "tokens", "share of L1", "PPL, paper", "ours", "TEff, paper", "ours [95%]")
    missing = [line[0] for line in lines if line[5] == "not run"]
    for run, rows in beside.items():
        result = rows[0].result
        tokens, share = f"{count(result['tokens'])} tokens", f"{100 * rows[0].share:.0f}%"
        our_ppl, our_efficiency = what_was_found(rows)
        lines.append(("control", run, tokens, share, "", our_ppl, "", our_efficiency))
    text = f"## {name}\n" + (f"\n{markdown(head, lines, 2)}" if len(missing) < len(lines) else "")
    if missing:
        text += f"\nNot run: {', '.join(dict.fromkeys(missing))}; see {scripts}.\n"
    return text


def compare_similarities(own: Rows, size: str) -> str:
    """Tables 2 and 4, then Figures 6 and 11 to 13: the paper's cosines and ours, mean and by layer."""
    lines, tables = [], (values.HIDDEN_STATES, values.GRADIENTS, values.EMBEDDINGS)
    for part, table in zip(SIMILARITIES, tables, strict=True):
        ours = similarities(own, part, size)
        for (vocab, share), theirs in table.items():
            names = values.CLONES if vocab == "cloned" else values.EN_FR
            found = ours.get(Setting(vocab, names, (share,), 1, size), ())
            both = [theirs, [layer["mean"] for layer in found]]
            means = [f"{sum(layers) / len(layers):.2f}" if layers else "not measured" for layers in both]
            layers = [" ".join(f"{value:.2f}" for value in layers if len(layers) > 1) for layers in both]
            lines.append((part, f"{vocab} {share}%", *means, *layers))
    head = ("cosine of", "languages", "mean, paper", "mean, ours", "by layer, paper", "by layer, ours")
    told = "Measured by `bash runs/table2.sh` and `bash runs/table4.sh`."
    return f"## Tables 2 and 4, Figures 6 and 11 to 13\n\n{told}\n\n{markdown(head, lines, 2)}"


def main(arguments: list[str] | None = None) -> None:
    """Compare the runs below the given folders with the paper's."""
    parser = Parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="out/FOLDER", help="hold evaluated runs")
    parser.add_argument("--out", type=Path, help="where compare.md goes (the first folder)")
    args = parser.parse_args(arguments)
    fitted = fit(args.folders)
    size, clones, real = standard_size(fitted), family(fitted, CLONES), family(fitted, REAL)
    parts = [
        f"# {size} beside the paper's {values.SIZE}\n",
        compare_table(
            "Table 1", "runs/table1.sh and runs/figure2.sh", clones, size, controls(fitted, clones)
        ),
        compare_table("Table 3", "runs/table3.sh", real, size, controls(fitted, real)),
        compare_similarities(clones | real, size),
        f"## Takeaways\n\n{takeaways(numbers_of(clones | real, size), size)}",
    ]
    text, path = "\n".join(parts), (args.out or args.folders[0]) / "compare.md"
    write(path, text)
    print(f"{text}\nwritten to {path}")


if __name__ == "__main__":
    run_script(main)
