"""One's own runs beside the paper's, row by row, and which of its takeaways they bear out.

    python -m paper.compare out/table1                                   # compare.md beside the runs
    python -m paper.compare out/table1 out/figure2 --out out/compared    # of all these runs together

The eight takeaways are claims that numbers can bear out or not. A claim is a sentence and a few
comparisons: which of two numbers does the paper find smaller? Where the interval of their difference holds 0,
runs like these cannot tell. A takeaway holds where all of its claims do that could be checked.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import Parser, markdown, run_script, write
from fit_scaling import RESAMPLES, Fitted, Quantity, Row, fit, quantity
from model import SIZES
from paper import values

CLONES, REAL = "clones", "real languages"
FAMILIES = {CLONES: ("cloned",), REAL: ("disjoint", "anchored")}  # the vocabularies of each
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
        return f"{self.size} {self.vocab}{number} {stages}% at {self.times:g}x"


Rows = dict[tuple[Setting, int], Row]  # by setting, and the language's position in it


def family(fitted: Fitted, name: str) -> Rows:
    """The rows of clones or of real languages, and monolingual ones on their text; "1x" is the shortest mix.

    English alone is another text beside clones than beside French. Of several, that of most rows counts.
    """
    mixed = [row.result for row in fitted.rows if row.result["vocab"] in FAMILIES[name]]
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
        if right_text and result["vocab"] in ("monolingual", *FAMILIES[name]):
            languages = tuple(names[source] for source in result["sources"])
            shares = tuple(round(100 * stage[0], 3) for stage in result["stages"])
            times = result["tokens"] / standard
            nearest = round(20 * times) / 20  # a run is a whole number of steps long, and so never quite 0.1x
            times = nearest if abs(times - nearest) < 0.02 * times else round(times, 2)
            setting = Setting(result["vocab"], languages, shares, times, result["size"], result["anchors"])
            found.setdefault((setting, row.position), row)
    return found


def standard_size(fitted: Fitted) -> str:
    """The model size that most rows of several languages have: that of the tables."""
    rows = [row for row in fitted.rows if not row.monolingual] or fitted.rows
    sizes = Counter(row.result["size"] for row in rows)
    return max(sizes, key=lambda size: (sizes[size], -ORDER.index(size)))


# Where in what align.py found for a pair of languages the paper's similarities are, each a list over layers.
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


# --- numbers by experiment --------------------------------------------------------------------------

PPL, TEFF = "PPL", "TEff"
ALIGNMENT = "similarity"  # of hidden states, mean over layers
EVEN, MAIN, RARE, SCHEDULE = (50,), (90,), (10,), (90, 10)  # shares of L1
LONGER = (4, 3, 2)  # times the standard run's tokens


class Missing(Exception):
    """A claim or a figure needs an experiment that is not there; the message names it."""


class Named(NamedTuple):
    """A number and what it is."""

    name: str
    drawn: np.ndarray  # the number, then what else might have been found, as in Row


class Evidence(NamedTuple):
    """Numbers by measure, setting and position: of one's own runs, or of the paper."""

    numbers: dict[tuple[str, Setting, int], np.ndarray]
    size: str  # of the tables

    def get(self, measure, vocab, shares, position=0, *, times=1, languages=2, size=None) -> Named:
        """A number, or Missing."""
        names = values.EN * languages if vocab == "cloned" else values.EN_FR
        setting = Setting(vocab, names, shares, times, size or self.size)
        if (measure, setting, position) not in self.numbers:
            raise Missing(f"{measure} of {setting}")
        language = "" if measure == ALIGNMENT else f"L{position + 1}, "
        return Named(f"{measure} of {language}{setting}", self.numbers[measure, setting, position])

    def larger(self) -> list[str]:
        """Sizes above that of the tables, the largest first."""
        return ORDER[: ORDER.index(self.size) : -1]


def exactly(value: float) -> np.ndarray:
    """A number that could not have been another, as one that the paper prints."""
    return np.full(1 + RESAMPLES, value)


def evidence_of(own: Rows, size: str) -> Evidence:
    """What one's own runs found."""
    numbers, random = {}, np.random.default_rng(0)
    for (setting, position), row in own.items():
        for measure, name in ((PPL, "ppl"), (TEFF, "token_efficiency")):
            if name in row.drawn:
                numbers[measure, setting, position] = row.drawn[name]
    for setting, layers in similarities(own, "hidden", size).items():
        # All layers see the same texts, so that their errors do not average out.
        mean = sum(layer["mean"] for layer in layers) / len(layers)
        error = sum(layer["standard_error"] or math.nan for layer in layers) / len(layers)
        numbers[ALIGNMENT, setting, 0] = mean + error * np.append(0, random.standard_normal(RESAMPLES))
    return Evidence(numbers, size)


# --- the claims of the takeaways --------------------------------------------------------------------


class Less(NamedTuple):
    """`low` is smaller than `high`, says the paper."""

    low: Named
    high: Named

    @property
    def verdict(self) -> str:
        """A word of SUMMARY; it is certain if the interval of the paired difference does not hold 0."""
        with np.errstate(invalid="ignore"):  # inf - inf
            difference = quantity(self.low.drawn - self.high.drawn)
        if math.isnan(difference.value) or math.isnan(difference.low):
            return "cannot be judged"
        certain = difference.excludes(0)
        if difference.value < 0:
            return "holds" if certain else "holds within chance"
        return "does not hold" if certain else "fails within chance"

    def __str__(self) -> str:
        sign = "<" if self.low.drawn[0] < self.high.drawn[0] else "not <"
        numbers = [f"{drawn[0]:.3g}" if abs(drawn[0]) < 1e6 else f"{drawn[0]:.0e}" for _, drawn in self]
        return f"{self.low.name} {numbers[0]} {sign} {self.high.name} {numbers[1]}"


class Claim(NamedTuple):
    """A part of a takeaway, and the comparisons it consists of."""

    takeaway: int
    sentence: str
    comparisons: Callable[[Evidence], list[Less]]


CLAIMS: list[Claim] = []
ALONE = Named("monolingual", exactly(1.0))


def claim(takeaway: int, sentence: str):
    """Enter the function below into CLAIMS."""
    return lambda comparisons: CLAIMS.append(Claim(takeaway, sentence, comparisons)) or comparisons


def first(options: Iterable, comparisons: Callable[..., list[Less]]) -> list[Less]:
    """The comparisons at the first option for which there are runs, or Missing."""
    missing = Missing("a larger model")
    for option in options:
        try:
            return comparisons(option)
        except Missing as error:
            missing = error
    raise missing


def gain(e: Evidence, vocab: str, **condition) -> Named:
    """What imbalance is worth: TEff of L2 at 90/10, less that at 50/50."""
    more, less = (e.get(TEFF, vocab, shares, 1, **condition) for shares in (MAIN, EVEN))
    if math.isinf(more.drawn[0]) or math.isinf(less.drawn[0]):
        raise Missing(f"a finite {more.name}: the law has no number for that perplexity")
    with np.errstate(invalid="ignore"):  # inf - inf
        return Named(f"{more.name} less that at 50%", more.drawn - less.drawn)


@claim(1, "clones do not generalise at 50/50: a token is worth less than a monolingual one (Table 1, row 4)")
def clones_do_not_generalise(e: Evidence) -> list[Less]:
    return [Less(e.get(TEFF, "cloned", EVEN, position), ALONE) for position in (0, 1)]


@claim(2, "imbalance helps: the rare clone's tokens are worth more (Table 1, row 5; Figure 1)")
def imbalance_helps(e: Evidence) -> list[Less]:
    rare = e.get(TEFF, "cloned", MAIN, 1)
    return [Less(ALONE, rare), Less(e.get(TEFF, "cloned", EVEN, 1), rare)]


@claim(2, "and it aligns the hidden states of clones (Table 2)")
def imbalance_aligns(e: Evidence) -> list[Less]:
    return [Less(e.get(ALIGNMENT, "cloned", EVEN), e.get(ALIGNMENT, "cloned", MAIN))]


@claim(3, "a main language helps nine clones, although they see fewer tokens (Table 1, rows 6 and 7)")
def main_language_helps_many(e: Evidence) -> list[Less]:
    worth = [e.get(TEFF, "cloned", shares, 1, languages=10) for shares in (RARE, EVEN)]
    ppl = [e.get(PPL, "cloned", shares, 1, languages=10) for shares in (EVEN, RARE)]
    return [Less(*worth), Less(*ppl)]


@claim(4, "longer training strengthens what imbalance is worth (Figures 2 and 9)")
def longer_strengthens(e: Evidence) -> list[Less]:
    return first(LONGER, lambda times: [Less(gain(e, "cloned"), gain(e, "cloned", times=times))])


@claim(4, "so do larger models (Figures 2 and 9)")
def larger_strengthens(e: Evidence) -> list[Less]:
    return first(e.larger(), lambda size: [Less(gain(e, "cloned"), gain(e, "cloned", size=size))])


@claim(5, "on the same data, a schedule is better in both clones than 50/50 (Table 1, rows 10 to 13)")
def schedule_helps_clones(e: Evidence) -> list[Less]:
    def both(times: float) -> list[Less]:
        ppl = [[e.get(PPL, "cloned", shares, i, times=times) for shares in (SCHEDULE, EVEN)] for i in (0, 1)]
        return [Less(*pair) for pair in ppl]

    return first(LONGER, both)


@claim(6, "real languages with a tenth of the tokens gain (Table 3, rows 8, 9, 12, 13; Figure 3)")
def rare_real_languages_gain(e: Evidence) -> list[Less]:
    rare = [(vocab, *place) for vocab in ("anchored", "disjoint") for place in ((MAIN, 1), (RARE, 0))]
    return [Less(ALONE, e.get(TEFF, *place)) for place in rare]


@claim(6, "without much more alignment: less than half of what clones gain (Table 4)")
def real_languages_do_not_align(e: Evidence) -> list[Less]:
    found = {}
    for vocab in ("cloned", "disjoint", "anchored"):
        more, less = (e.get(ALIGNMENT, vocab, shares) for shares in (MAIN, EVEN))
        found[vocab] = Named(f"gain in similarity, {vocab}", more.drawn - less.drawn)
    half = Named("half of clones'", found["cloned"].drawn / 2)
    return [Less(found["disjoint"], half), Less(found["anchored"], half)]


@claim(7, "for real languages the gain shrinks with longer training (Figures 4 and 10)")
def real_gain_shrinks(e: Evidence) -> list[Less]:
    now = e.get(TEFF, "anchored", MAIN, 1)
    return first(LONGER, lambda times: [Less(e.get(TEFF, "anchored", MAIN, 1, times=times), now)])


@claim(7, "and grows with the model (Figures 4 and 10)")
def real_gain_grows_with_size(e: Evidence) -> list[Less]:
    now = e.get(TEFF, "anchored", MAIN, 1)
    return first(e.larger(), lambda size: [Less(now, e.get(TEFF, "anchored", MAIN, 1, size=size))])


@claim(8, "for real languages no schedule is better in both (Table 3, rows 10, 14, 15)")
def schedules_trade_off(e: Evidence) -> list[Less]:
    """In one language at least, the schedule is the worse."""
    found = []
    for vocab, shares in (("disjoint", SCHEDULE), ("anchored", SCHEDULE), ("anchored", (90, 10, 50, 50))):
        both = [Less(e.get(PPL, vocab, EVEN, i), e.get(PPL, vocab, shares, i)) for i in (0, 1)]
        found.append(max(both, key=lambda less: less.high.drawn[0] / less.low.drawn[0]))
    return found


# --- the verdicts -----------------------------------------------------------------------------------

# What is said of a takeaway by the worst word of its claims; "not run" is left for those of which none was.
SUMMARY = {
    "does not hold": "Do not hold",
    "fails within chance": "Fail within chance",
    "cannot be judged": "Cannot be judged",
    "holds within chance": "Hold within chance",
    "holds": "Hold",
    "not run": "Not run",
}


def judge(claim: Claim, evidence: Evidence) -> tuple[str, str]:
    """The worst word of SUMMARY that its comparisons earn, and the numbers it rests on."""
    try:
        comparisons = claim.comparisons(evidence)
    except Missing as missing:
        return "not run", f"needs {missing}"
    words = {less.verdict for less in comparisons}
    return next(word for word in SUMMARY if word in words), "; ".join(map(str, comparisons))


def takeaways(evidence: Evidence) -> str:
    """Which of the eight hold, then every claim with its verdict, as Markdown."""
    verdicts = [(claim, *judge(claim, evidence)) for claim in CLAIMS]
    found: dict[str, list[str]] = {word: [] for word in SUMMARY}
    for number in range(1, 9):
        words = [word for claim, word, _ in verdicts if claim.takeaway == number]
        worst = next(word for word in SUMMARY if word in words)
        found[worst].append(f"{number}{' (in part)' if 'not run' in words and worst != 'not run' else ''}")
    lines = [f"{SUMMARY[word]}: {', '.join(numbers)}.\n" for word, numbers in found.items() if numbers]
    lines += "\n"
    lines += [f"{c.takeaway}. {c.sentence}: **{word}**; {told}\n" for c, word, told in verdicts]
    return "".join(lines)


# --- the page ---------------------------------------------------------------------------------------


def compare_table(name: str, scripts: str, own: Rows, size: str) -> str:
    """Every row of a table: the paper's perplexities and TEff, and ours."""
    lines = []
    for row in values.TABLES[name]:
        setting = Setting(row.vocab, row.languages, row.shares, row.times, size)
        found = [own[setting, i] for i in range(len(row.ppl)) if (setting, i) in own]
        alone = f"mono {row.languages[0].upper()}"
        several = row.vocab + f" x{len(row.languages)}" * (len(row.languages) > 2)
        stages = "→".join(f"{share:g}" for share in row.shares)
        known = [row.row, alone if row.vocab == "monolingual" else several, f"{row.times:g}x", f"{stages}%"]
        ppl = ", ".join(">1B" if ppl == values.NEVER_LEARNED else f"{ppl:.1f}" for ppl in row.ppl)
        efficiency = ", ".join("-" if value is None else f"{value:.2f}" for value in row.efficiency)
        our_ppl = ", ".join(Quantity(own.ppl.value).text(1) for own in found) or "not run"
        our_efficiency = ", ".join(own.text("token_efficiency") for own in found)
        lines.append((*known, ppl, our_ppl, efficiency, our_efficiency))
    head = ("row", "languages", "tokens", "share of L1", "PPL, paper", "ours", "TEff, paper", "ours [95%]")
    missing = [line[0] for line in lines if line[5] == "not run"]
    text = f"## {name}\n"
    if len(missing) < len(lines):
        text += f"\n{markdown(head, lines, 2)}"
    if missing:
        text += f"\nNot run: {', '.join(dict.fromkeys(missing))}; see {scripts}.\n"
    return text


def compare_similarities(own: Rows, size: str) -> str:
    """Tables 2 and 4, then Figures 6 and 11 to 13: the paper's cosines and ours, mean and by layer."""
    tables = {
        "hidden": values.HIDDEN_STATES,
        "gradients": {key: (value,) for key, value in values.GRADIENTS.items()},
        "embeddings": {("cloned", share): (value,) for share, value in values.EMBEDDINGS.items()},
    }
    lines = []
    for part, table in tables.items():
        ours = similarities(own, part, size)
        for (vocab, share), theirs in table.items():
            names = values.CLONES if vocab == "cloned" else values.EN_FR
            found = ours.get(Setting(vocab, names, (share,), 1, size), ())
            both = [theirs, [layer["mean"] for layer in found]]
            means = [f"{sum(layers) / len(layers):.2f}" if layers else "not measured" for layers in both]
            layers = [" ".join(f"{value:.2f}" for value in layers if len(layers) > 1) for layers in both]
            lines.append((part, f"{vocab} {share}%", *means, *layers))
    head = ("cosine of", "languages", "mean, paper", "mean, ours", "by layer, paper", "by layer, ours")
    told = "Not measured: `bash runs/table2.sh` and `bash runs/table4.sh` measure them.\n"
    if any(line[3] != "not measured" for line in lines):
        told = markdown(head, lines, 2)
    return f"## Tables 2 and 4, Figures 6 and 11 to 13\n\n{told}"


def compare(fitted: Fitted) -> str:
    """Everything beside the paper, as Markdown."""
    size, clones, real = standard_size(fitted), family(fitted, CLONES), family(fitted, REAL)
    parts = [
        f"# {size} beside the paper's {values.SIZE}\n",
        compare_table("Table 1", "runs/table1.sh and runs/figure2.sh", clones, size),
        compare_table("Table 3", "runs/table3.sh", real, size),
        compare_similarities(clones | real, size),
        f"## Takeaways\n\n{takeaways(evidence_of(clones | real, size))}",
    ]
    return "\n".join(parts)


def main(arguments: list[str] | None = None) -> None:
    """Compare the runs below the given folders with the paper's."""
    parser = Parser(__doc__)
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="out/FOLDER", help="folders of evaluated runs"
    )
    parser.add_argument("--out", type=Path, help="where compare.md goes (the first folder)")
    args = parser.parse_args(arguments)
    text, path = compare(fit(args.folders)), (args.out or args.folders[0]) / "compare.md"
    write(path, text)
    print(f"{text}\nwritten to {path}")


if __name__ == "__main__":
    run_script(main)
