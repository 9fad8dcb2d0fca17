"""The results of runs as one list: a flat record for each language of each evaluated run.

Tables, figures and comparisons read this list, and group it by "experiment": runs that differ in their seed
alone. Means and Student's t intervals are over seeds.
"""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from common import UserError, read_json

Records = list[dict]
NEEDED = {"data", "fingerprint", "sources", "vocab", "anchors", "stages", "size", "batch", "steps", "seed"}
PARTS = {"alignment", "glue", "ngrams", "passes"}  # of result.json, present if they were measured
NEGATIVE = {"gain", "head_start", "accuracy"}  # may be 0 or less, so not averaged by their logarithms


def read_records(folders: list[Path]) -> Records:
    """A flat record of each language of each evaluated run below the folders; prints what it leaves out."""
    records = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder, expected one that holds runs of train.py")
        for path in sorted(folder.rglob("result.json")):
            try:
                found = records_of(path.parent)
            except (LookupError, TypeError, ValueError, ArithmeticError, OSError, UserError) as error:
                print(f"left out: {path.parent} is no evaluated run ({error})")
                continue
            for record in found:  # a seed that was run twice counts once
                key = record["experiment"], record["seed"], record["position"]
                first = records.setdefault(key, record)
                if first["out"].resolve() != record["out"].resolve():
                    print(f"left out: {record['out']} has the settings and the seed of {first['out']}")
    if not records:
        raise UserError(f"{', '.join(map(str, folders))} holds no evaluated run of train.py")
    named = defaultdict(set)
    for record in records.values():
        named[record["run"]].add(record["experiment"])
    for record in records.values():
        if len(named[record["out"].name]) > 1:  # runs of one name that differ
            record["run"] = f"{record['out'].parent.name}/{record['out'].name}"
    return list(records.values())


def records_of(out: Path) -> Records:
    """A record for each language of a run: settings, results of run and language, and the fields of `own`."""
    result, config = read_json(out / "result.json"), read_json(out / "config.json")
    if missing := NEEDED - config.keys():
        raise UserError(f"config.json lacks {', '.join(sorted(missing))}")
    amounts = [result["tokens"], config["batch"], config["steps"]]
    shares = [config["anchors"], *np.array(config["stages"])[:, 0]]
    if not (0 < min(amounts) <= max(amounts) < math.inf and 0 <= min(shares) <= max(shares) <= 1):
        raise UserError(f"expected amounts above 0 and shares from 0 to 1, found {amounts} and {shares}")
    for part in PARTS & result.keys():
        dict(result[part])  # raises TypeError or ValueError where other tools have written something else
    if max(result.get("passes", {}).values(), default=0) > 1:
        result.pop("ngrams", None)  # counted in repeated text, which spoils them
    records = []
    for position, language in enumerate(result["languages"]):
        if not 0 < language["ppl"] < math.inf:
            raise UserError("it diverged")
        own = {
            "run": out.name,
            "out": out,
            "config": config,
            "experiment": settings_but({"seed", "data"}, config),
            "seed": int(config["seed"]),
            "size": str(config["size"]),
            "language": language["name"],
            "position": position,
            "alone": len(result["languages"]) == 1,
            "total": result["tokens"],
            "share": language["tokens"] / result["tokens"],
        }
        records.append(config | result | language | own)
    return records


def settings_but(without: set[str], config: dict) -> str:
    """The settings of a run, as a text to compare them by."""
    kept = {key: config[key] for key in config.keys() - without}
    return json.dumps(kept, sort_keys=True)


def those(records: Records, **settings) -> Records:
    """The records that have these settings."""
    return [record for record in records if settings.items() <= record.items()]


def first_pair(record: dict, part: str) -> dict:
    """What align.py found of a run's first two languages; empty if it was not run."""
    pairs = record.get("alignment", {}).get(part, {})
    return next(iter(pairs.values()), {})


class Interval(NamedTuple):
    """A mean and its 95% interval, nan for one value."""

    mean: float
    low: float = math.nan
    high: float = math.nan

    def __str__(self) -> str:
        """'2.08 [1.90, 2.27]', or '-'."""
        if math.isnan(self.mean):
            return "-"
        text = f"{self.mean:.2f}"
        return text if math.isnan(self.low) else f"{text} [{self.low:.2f}, {self.high:.2f}]"


def over_seeds(values: list[float]) -> Interval:
    """The mean over seeds, nan of no values, and Student's t interval."""
    mean = float(np.mean(values)) if len(values) else math.nan
    if len(values) < 2:
        return Interval(mean)
    half = float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))
    return Interval(mean, mean - half, mean + half)


def ratio_over_seeds(values: list[float]) -> Interval:
    """The geometric mean of positive values and its interval, by their logarithms."""
    return Interval(*np.exp(over_seeds(np.log(values))).tolist())


def experiments(records: Records) -> list[Records]:
    """Records that differ in their seed alone: a list for each language of each experiment, by seed."""
    groups = defaultdict(list)
    for record in sorted(records, key=lambda record: record["seed"]):
        groups[record["experiment"], record["position"]].append(record)
    # Monolingual and long runs first.
    return sorted(groups.values(), key=lambda group: (not group[0]["alone"], -group[0]["total"]))


def over(group: Records, measure: str) -> Interval:
    """A measure of an experiment over those seeds that have it; nan if it is unknown (nan) in one of them."""
    values = [record[measure] for record in group if measure in record]
    return over_seeds(values) if measure in NEGATIVE else ratio_over_seeds(values)
