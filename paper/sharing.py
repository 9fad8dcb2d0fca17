"""Is knowledge shared, or is a plateau only left sooner? What each seed says (results/LOG.md, 27 and 28).

    python -m paper.sharing out/sharing-0.6x-seed* --out results/sharing      # sharing.md and sharing.png

The seed is the unit. Each seed has monolingual runs of its own, between which log PPL is a straight line over
log tokens: from it MLTE, the tokens that a model alone needs for a perplexity. TEff = MLTE / own tokens. Over
seeds stands the geometric mean, with Student's t interval of 95%.
"""

import math
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from common import Parser, UserError, count, markdown, read_json, run_script, write
from paper.figures import over_seeds

# What a run and its yardstick have in common.
MODEL = ("fingerprint", "size", "positions", "tied", "precision", "code")
COLUMNS = ("run", "language", "seeds", "PPL", "TEff of each", "TEff [95%]", "head start", "hidden", "key")
EXPLANATION = """
PPL: geometric mean over seeds. TEff: tokens that a model alone needs for this PPL, per token of the language;
`>` and `<` lie beyond the longest and shortest run alone. Head start: tokens that it needs more, mean.
Hidden: cosine of the hidden states of EN1 and EN2, each position's mean taken off, mean over layers, of each
seed. Key: retrieval@1 of embeddings, how often the nearest of the 60 commonest pieces of EN1 is its own.
"""


def read_runs(folders: list[Path]) -> list[dict]:
    """A flat record of each language of each evaluated run below the folders."""
    records = []
    for path in sorted(path for folder in folders for path in folder.rglob("result.json")):
        result = read_json(path)
        alone = len(result["languages"]) == 1
        for language in result["languages"]:
            if "ppl" not in language:
                raise UserError(f"{path.parent} is not evaluated; python evaluate.py {path.parent}")
            record = {key: result[key] for key in (*MODEL, "seed", "batch", "learning_rate")}
            record |= {"run": path.parent.name, "alone": alone, "total": result["tokens"]}
            record |= {"source": language["source"], "language": language["name"]}
            record |= {"own": language["tokens"], "ppl": language["ppl"]}
            records.append(record | inside(result.get("alignment", {})))
    if not records:
        raise UserError(f"{', '.join(map(str, folders))} holds no evaluated run of train.py")
    return records


def inside(alignment: dict) -> dict:
    """How alike the first two languages are inside: centred hidden states, and the key; nan if unknown."""
    hidden, key = math.nan, math.nan
    for methods in list(alignment.get("hidden", {}).values())[:1]:
        layers = methods.get("positions, centred", [])
        hidden = float(np.mean([layer["mean"] for layer in layers])) if layers else math.nan
    for matrices in list(alignment.get("embeddings", {}).values())[:1]:
        key = matrices["input"].get("retrieval@1") or math.nan
    return {"hidden": hidden, "key": key}


def yardstick(record: dict, records: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens, rising, and perplexities of the monolingual runs of the same seed, text and model."""
    same = (*MODEL, "seed", "source")
    alone = [run for run in records if run["alone"] and all(run[key] == record[key] for key in same)]
    best = {}
    for run in alone:
        best[run["own"]] = min(run["ppl"], best.get(run["own"], math.inf))
    tokens = np.array(sorted(best), float)
    return tokens, np.array([best[n] for n in tokens])


def tokens_needed(perplexity: float, tokens: np.ndarray, perplexities: np.ndarray) -> float:
    """MLTE: where the line from run to run has this perplexity; 0 or infinite beyond the ends."""
    if len(tokens) < 2:
        return math.nan
    logs = -np.log(perplexities)
    at = np.interp(-math.log(perplexity), logs, np.log(tokens), left=-math.inf, right=math.inf)
    return math.exp(at)


def interval(values: list[float]) -> tuple[float, float, float]:
    """Geometric mean of positive values over seeds, and Student's t interval of 95%; nan from one seed."""
    return tuple(np.exp(over_seeds(np.log(values))).tolist())


def experiments(records: list[dict]) -> dict[tuple[str, str], list[dict]]:
    """The mixed runs by name and language, a record a seed, with "mlte", "teff" and what bounds it."""
    groups = defaultdict(list)
    for record in records:
        if record["alone"] or not record["own"]:
            continue
        tokens, perplexities = yardstick(record, records)
        mlte = tokens_needed(record["ppl"], tokens, perplexities)
        ends = (tokens[0], tokens[-1]) if len(tokens) else (math.nan, math.nan)
        sign = ">" if mlte == math.inf else "<" if mlte == 0 else ""
        mlte = float(np.clip(mlte, *ends))
        worth = {"mlte": mlte, "teff": mlte / record["own"], "sign": sign}
        groups[record["run"], record["language"]].append(record | worth)
    return groups


def table(groups: dict[tuple[str, str], list[dict]]) -> str:
    """A row an experiment and language."""
    rows = []
    for (run, language), seeds in sorted(groups.items()):
        seeds.sort(key=lambda record: record["seed"])
        mean, low, high = interval([record["teff"] for record in seeds])
        known = not any(record["sign"] for record in seeds)
        needed = [record["mlte"] - record["own"] for record in seeds]
        rows.append((
            run,
            language,
            " ".join(str(record["seed"]) for record in seeds),
            f"{np.exp(np.mean([math.log(record['ppl']) for record in seeds])):.2f}",
            " ".join(f"{record['sign']}{record['teff']:.2f}" for record in seeds),
            f"{mean:.2f} [{low:.2f}, {high:.2f}]" if known else "-",
            count(float(np.mean(needed))) if known else "-",
            " ".join(f"{record['hidden']:.2f}" for record in seeds),
            " ".join(f"{record['key']:.0%}" for record in seeds),
        ))  # fmt: skip
    return markdown(COLUMNS, rows, 2).replace("nan%", "-").replace("nan", "-")


def plateau(records: list[dict], up_to: float = 2.5e6) -> str:
    """How much the perplexity alone falls, at least, where tokens double."""
    lines = []
    for seed in sorted({record["seed"] for record in records}):
        own = [record for record in records if record["alone"] and record["seed"] == seed]
        if not own:
            continue
        tokens, perplexities = yardstick(own[0], records)
        starts = [n for n in np.geomspace(tokens[0], up_to / 2, 50) if 2 * n <= tokens[-1]]
        logs = [np.interp(np.log([n, 2 * n]), np.log(tokens), np.log(perplexities)) for n in starts]
        least = min(1 - math.exp(after - before) for before, after in logs)
        lines.append(f"seed {seed}: {least:.0%}")
    return "Where tokens double, perplexity alone falls by at least: " + ", ".join(lines) + "\n"


def draw(groups: dict[tuple[str, str], list[dict]], path: Path) -> None:
    """TEff, hidden states and key of the last language of each experiment, a dot a seed."""
    names = sorted({run for run, _ in groups})
    last = {run: max(language for name, language in groups if name == run) for run in names}
    figure = Figure(figsize=(11, 1.2 + 0.34 * len(names)), layout="constrained")
    labels = {"teff": "TEff", "hidden": "centred cosine of hidden states", "key": "key found"}
    for axis, (measure, label) in zip(figure.subplots(1, 3, sharey=True), labels.items(), strict=True):
        for place, run in enumerate(names):
            records = groups[run, last[run]]
            values = [record[measure] for record in records if measure != "teff" or not record["sign"]]
            axis.plot(values, [place] * len(values), "o", color="C0", alpha=0.6)
        axis.set(xlabel=label, yticks=range(len(names)), yticklabels=[f"{run}: {last[run]}" for run in names])
        axis.grid(axis="y", color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
        if measure == "teff":
            axis.axvline(1, color="0.4", linestyle=":")
            axis.set_xscale("log")
            axis.set_xticks([0.5, 1, 2, 3, 5], ["0.5", "1", "2", "3", "5"])
            axis.minorticks_off()
        else:
            axis.set_xlim(-0.1, 1.05)
    axis.invert_yaxis()  # all panels share it
    write(path, figure)


def main(arguments: list[str] | None = None) -> None:
    """Print and write what the runs below the folders say."""
    parser = Parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of runs of one or more seeds")
    parser.add_argument(
        "--out", type=Path, help="where sharing.md and sharing.png go; default: the first folder"
    )
    args = parser.parse_args(arguments)
    records = read_runs(args.folders)
    groups, out = experiments(records), args.out or args.folders[0]
    text = table(groups) + EXPLANATION + plateau(records)
    write(out / "sharing.md", text)
    draw(groups, out / "sharing.png")
    print(text)


if __name__ == "__main__":
    run_script(main)
