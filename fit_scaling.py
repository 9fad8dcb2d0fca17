"""Compare runs: the worth of a token of each language, for each seed and over seeds.

    python fit_scaling.py out/table1                     # table.md and figure.png, beside the runs
    python fit_scaling.py out/table1 out/table1-seed1    # two seeds in one table

The yardstick is monolingual runs of several lengths, joined by straight lines of log PPL over log tokens.
Read forwards, they give MLPE: the perplexity of a monolingual run on as many tokens. Read backwards, they
give MLTE: the tokens that a monolingual run needs for a perplexity. Token efficiency, TEff, is MLTE / tokens
of the language seen. Above 1, other languages helped; the most it can be is 1 / share.

Each seed is compared with its own yardstick. The table has the geometric mean of TEff over seeds, Student's
t interval of 95%, and TEff by the paper's law (appendix B), 1 / PPL = c - a * (tokens / 1.2e9)^-b.
"""

import math
import warnings
from argparse import Namespace
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy import optimize

from common import Parser, count, dress, markdown, run_script, shown, write
from records import Interval, Records, experiments, over, read_records, settings_but, those

REFERENCE_TOKENS = 1.2e9  # x = 1 in the law
NEAR = 1.05  # runs whose tokens differ by a smaller factor count as one length
# A run and its yardstick agree in every setting of config.json but these.
NOT_OF_THE_YARDSTICK = {
    "data", "sources", "vocab", "anchors", "shared", "stages",
    "tokens", "steps", "batch", "learning_rate", "warmup",
}  # fmt: skip

# --- the yardstick -------------------------------------------------------------------------------


class Law(NamedTuple):
    """The paper's law: 1 / PPL = c - a * (tokens / 1.2e9)^-b."""

    a: float
    b: float
    c: float

    def perplexity(self, tokens):
        """MLPE: perplexity of a monolingual model trained on `tokens`; infinite where the law gives none."""
        inverse = self.c - self.a * (tokens / REFERENCE_TOKENS) ** -self.b
        with np.errstate(divide="ignore"):
            return 1 / np.maximum(inverse, 0)

    def tokens(self, perplexity: float) -> float:
        """MLTE: tokens that a monolingual model needs; nan for a perplexity that it never reaches."""
        gap = (self.c - 1 / perplexity) / self.a
        return REFERENCE_TOKENS * gap ** (-1 / self.b) if gap > 0 else math.nan


def fit_law(tokens, perplexities) -> Law | None:
    """The law, fitted by least squares of 1 / PPL; None for fewer than four runs or if no fit is found."""
    if len(tokens) < 4 or np.ptp(perplexities) == 0:
        return None
    x = np.array(tokens) / REFERENCE_TOKENS
    y = 1 / np.array(perplexities)

    def law(x, log_a, b, c):
        return c - np.exp(log_a) * x**-b

    start = math.log(np.ptp(y)), 0.2, y.max()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # there may be no fit
            (log_a, b, c), _ = optimize.curve_fit(law, x, y, start, maxfev=20_000)
    except RuntimeError:
        return None
    return Law(math.exp(log_a), b, c) if b > 1e-3 else None


class Yardstick(NamedTuple):
    """Monolingual runs of one seed, straight lines of log PPL over log tokens between them, and their law."""

    tokens: np.ndarray  # (runs,), rising
    perplexities: np.ndarray  # (runs,)
    law: Law | None

    @classmethod
    def of(cls, runs: Records) -> "Yardstick":
        """The yardstick through the best run of each length."""
        best = {}
        for run in sorted(runs, key=lambda run: run["ppl"]):
            tokens = run["tokens"]
            if all(tokens > NEAR * other or other > NEAR * tokens for other in best):
                best[tokens] = run["ppl"]
        tokens, perplexities = np.array(sorted(best.items()), float).T
        return cls(tokens, perplexities, fit_law(tokens, perplexities))

    @property
    def falling(self) -> np.ndarray:
        """The lowest perplexity up to each length: on the yardstick, more tokens are never worse."""
        return np.minimum.accumulate(self.perplexities)

    def perplexity(self, tokens: float) -> float:
        """MLPE; nan on fewer or more tokens than the runs have."""
        shortest, longest = self.tokens[0] / NEAR, self.tokens[-1] * NEAR
        if not shortest <= tokens <= longest:
            return math.nan
        log_tokens, log_perplexities = np.log(self.tokens), np.log(self.falling)
        return math.exp(np.interp(math.log(tokens), log_tokens, log_perplexities))

    def needed(self, perplexity: float) -> tuple[float, str]:
        """MLTE and ""; beyond the runs, the nearest length and "<" or ">": MLTE is below or above it."""
        if perplexity > self.falling[0]:
            return self.tokens[0], "<"
        if perplexity < self.falling[-1]:
            return self.tokens[-1], ">"
        # np.interp needs rising places, so equal perplexities are moved apart by 1e-9.
        rising = -np.log(self.falling) + 1e-9 * np.arange(len(self.tokens))
        log_tokens = np.interp(-math.log(perplexity), rising, np.log(self.tokens))
        return math.exp(log_tokens), ""


# --- the worth of a token -------------------------------------------------------------------------


def measure(records: Records, any_code: bool = False) -> Records:
    """The records with MLPE, MLTE and what follows; `any_code`: yardsticks of other code count, too."""
    without = NOT_OF_THE_YARDSTICK | ({"code"} if any_code else set())
    alone = defaultdict(list)
    for record in records:
        record["yardstick"] = settings_but(without, record["config"]) + record["source"]
        if record["alone"]:
            alone[record["yardstick"]].append(record)
    yardsticks = {key: Yardstick.of(runs) for key, runs in alone.items()}
    missing = defaultdict(list)
    for record in records:
        yardstick = yardsticks.get(record["yardstick"])
        if yardstick and len(yardstick.tokens) > 1 and record["tokens"]:
            record.update(worth(record, yardstick))
        elif not record["alone"] and record["source"] != "noise":  # no run reads noise alone
            missing[what_is_missing(record, records)].append(record["run"])
    for reason, runs in missing.items():
        names = ", ".join(dict.fromkeys(runs))
        print(f"no TEff of {names}: {reason}")
    return records


def worth(record: dict, yardstick: Yardstick) -> dict:
    """A record's measures by its yardstick. MLTE and what follows from it are nan beyond the yardstick."""
    own, others = record["tokens"], record["total"] - record["tokens"]
    found = {"against": yardstick, "mlpe": yardstick.perplexity(own)}
    if record["alone"] and record["ppl"] in yardstick.perplexities:
        return found  # the record is a part of the yardstick
    needed, beyond = yardstick.needed(record["ppl"])
    found["beyond"] = beyond
    found["bound"] = needed / own  # TEff; if `beyond` has a sign, a bound of TEff
    mlte = math.nan if beyond else needed
    found["mlte"] = mlte
    found["teff"] = mlte / own
    found["head_start"] = mlte - own
    if others:
        found["gain"] = (mlte - own) / others
    if yardstick.law:
        found["teff_by_law"] = yardstick.law.tokens(record["ppl"]) / own
    return found


def one_of_each_yardstick(records: Records) -> Records:
    """A record for each kind of model, text and seed that has a yardstick."""
    held = [record for record in records if "against" in record]
    return list({record["yardstick"]: record for record in held}.values())


def what_is_missing(record: dict, records: Records) -> str:
    """Why a record has no yardstick: the settings in which a monolingual run differs from it."""
    source, seed, own = record["source"], record["seed"], record["config"]
    reason = f"two lengths of {source} alone with seed {seed}, train.py --ratio 1, are the yardstick"
    for run in those(records, alone=True, source=source, seed=seed)[:1]:
        for key in sorted(own.keys() - NOT_OF_THE_YARDSTICK):
            found = run["config"].get(key)
            if found != own[key]:
                reason += f"; {run['run']} has {key} {found}, not {own[key]}"
    return reason


# --- what is printed ------------------------------------------------------------------------------

EXPLANATION = """
PPL: geometric mean over seeds; of one seed ± its standard error over documents. PPL alone: of a monolingual
run on as many tokens (MLPE). TEff: tokens that a monolingual run needs for this PPL (MLTE) / own tokens, with
Student's t interval over seeds; > and <: beyond the yardstick. At most: 1 / share. Gain: (MLTE - own tokens)
/ tokens of the others, 1 if everything is shared. Head start: MLTE - own tokens. More: docs/measuring.md.
"""


def mean_of(group: Records, measure: str) -> str:
    """A measure of an experiment without its interval, or '-'."""
    return str(Interval(over(group, measure).mean))


def efficiency_of(run: dict) -> str:
    """TEff of a record: '2.08', '>5.00' beyond the yardstick, or '-'."""
    return f"{run['beyond']}{run['bound']:.2f}" if "bound" in run else "-"


def efficiency_as_text(group: Records) -> str:
    """TEff over seeds; a bound if some seeds are beyond the yardstick, all on one side."""
    known = [run for run in group if "bound" in run]
    sides = {run["beyond"] for run in known} - {""}
    if len(sides) != 1:
        return str(over(group, "teff"))
    return sides.pop() + mean_of(known, "bound")


def cells_of(group: Records) -> dict[str, str]:
    """A row of the table: its cells by column."""
    first = group[0]
    ppl, head_start = mean_of(group, "ppl"), over(group, "head_start").mean
    if len(group) == 1 and first.get("ppl_standard_error"):
        ppl += f" ± {first['ppl_standard_error']:.2f}"
    foreign = first["share"] and not first["alone"]
    return {
        "run": first["run"],
        "language": first["language"],
        "seeds": " ".join(str(run["seed"]) for run in group),
        "tokens": count(np.mean([run["tokens"] for run in group])),
        "PPL": ppl,
        "PPL alone": mean_of(group, "mlpe"),
        "TEff of each": " ".join(map(efficiency_of, group)),
        "TEff [95%]": efficiency_as_text(group),
        "by law": mean_of(group, "teff_by_law"),
        "at most": f"{1 / first['share']:.1f}" if foreign else "-",
        "gain": mean_of(group, "gain"),
        "head start": "-" if math.isnan(head_start) else count(head_start),
    }


def table(records: Records) -> str:
    """The experiments as a Markdown table, what its columns mean, and the perplexity of n-grams."""
    rows = [cells_of(group) for group in experiments(records)]
    columns = [name for name in rows[0] if any(row[name] != "-" for row in rows)]
    if all(row["seeds"].isdigit() for row in rows):  # one seed
        columns = [name for name in columns if name not in {"seeds", "TEff of each"}]
    cells = [[row[name] for name in columns] for row in rows]
    text = markdown(columns, cells, 2) + EXPLANATION
    counted = [record for record in records if record.get("ngrams")]
    if counted:
        longest = max(counted, key=lambda record: record["tokens"])
        reached = ", ".join(f"{ppl:.1f} (n = {n})" for n, ppl in longest["ngrams"].items())
        text += f"Counting n-grams of {count(longest['tokens'])} tokens reaches a perplexity of {reached}.\n"
    return text


# --- what is drawn --------------------------------------------------------------------------------


def draw_yardsticks(axes, records: Records, colours: list[str]) -> None:
    """Perplexity of monolingual runs by tokens: a colour for each size and text, a line for each seed."""
    drawn = {}
    for run in one_of_each_yardstick(records):
        name = f"{run['size']}, {run['source']} of {Path(run['data']).name}, alone"
        label = None if name in drawn else shown(name)  # another seed's line has it
        colour = drawn.setdefault(name, colours[len(drawn) % len(colours)])
        tokens, perplexities, _ = run["against"]
        axes.plot(tokens, perplexities, "o-", color=colour, label=label, zorder=1)


def draw(records: Records, path: Path) -> None:
    """Left: perplexity against tokens of the language. Right: TEff, its interval, and its ceiling."""
    mixed = experiments(those(records, alone=False))
    height = max(4.2, 0.32 * len(mixed) + 1.2)
    figure = Figure(figsize=(11, height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    draw_yardsticks(left, records, ["0.3", "0.5", "0.7"])
    if left.lines:
        left.legend(frameon=False)
    for run in records:
        for n, perplexity in run.get("ngrams", {}).items():  # of n-grams, as a small digit n
            left.plot(run["tokens"], perplexity, marker=f"${n}$", color="0.6", markersize=5)
    # Runs that learned nothing are left out: they would squeeze the others together.
    alone = [run["ppl"] for run in those(records, alone=True)]
    highest = 10 * max(alone, default=1e5)
    colours, labels = {}, []
    for place, group in enumerate(mixed):
        first = group[0]
        colour = colours.setdefault(first["run"], f"C{len(colours) % 10}")
        labels.append(shown(f"{first['run']}: {first['language']}"))
        for run in group:
            if run["tokens"] and run["ppl"] < highest:
                left.plot(run["tokens"], run["ppl"], "D", color=colour)
            teff = run.get("bound", math.nan)
            marker = run.get("beyond") or "o"  # of a bound ">" or "<", which draw triangles
            right.plot(teff, place, marker, color=colour, alpha=0.5)
        _, low, high = over(group, "teff")
        right.plot([low, high], [place, place], color=colour)
        if first["share"]:
            right.plot(1 / first["share"], place, "|", color="0.4", markersize=14)
    right.set_yticks(range(len(mixed)), labels)
    right.margins(y=0.05)
    right.invert_yaxis()
    right.axvline(1, color="0.4", linestyle=":")
    tokens, ppl = "training tokens of the language", "test perplexity; digits: of counting n-grams"
    dress(left, xscale="log", yscale="log", xlabel=tokens, ylabel=ppl)
    dress(right, xscale="log", xlabel="TEff: worth of one token\n|: all that sharing could give")
    write(path, figure)


# --- the command ----------------------------------------------------------------------------------


def read_command(parser: Parser, arguments) -> tuple[Records, Path, Namespace]:
    """Read a command line that names folders of runs: their measured records, where to write, the flags."""
    parser.add_argument("folders", nargs="+", type=Path, metavar="out/FOLDER", help="folders of scored runs")
    parser.add_argument("--out", type=Path, help="folder for tables and pictures; default: the first folder")
    parser.add_argument("--any-code", action="store_true", help="also compare with yardsticks of other code")
    args = parser.parse_args(arguments)
    records = measure(read_records(args.folders), args.any_code)
    return records, args.out or args.folders[0], args


def main(arguments: list[str] | None = None) -> None:
    """Print and draw the results of the runs below the given folders."""
    records, out, _ = read_command(Parser(__doc__), arguments)
    text = table(records)
    write(out / "table.md", text)
    draw(records, out / "figure.png")
    print(f"{text}\nwritten to {out}")


if __name__ == "__main__":
    run_script(main)
