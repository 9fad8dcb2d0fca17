"""What runs left behind, as one list: a flat record for each language of each evaluated run.

Tables, figures and comparisons read this list, and group it by "experiment" (runs that differ in their seed
alone) and "yardstick" (a run and the monolingual ones that it is held against). The seed is the unit: over
seeds stand a mean and Student's t interval.
"""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from common import UserError, read_json

# Runs are one experiment if they agree in every setting of config.json but these; a run and its yardstick, if
# they agree in all but these.
NOT_OF_THE_EXPERIMENT = {"seed", "data"}
NOT_OF_THE_YARDSTICK = {
    "data", "sources", "vocab", "anchors", "shared", "stages", "tokens", "steps", "batch", "learning_rate",
    "warmup",
}  # fmt: skip


def read_records(folders: list[Path]) -> list[dict]:
    """A flat record of each language of each evaluated run below the folders; what is left out is named."""
    records = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder, expected one that holds runs of train.py")
        for path in sorted(folder.rglob("result.json")):
            try:
                found = records_of(path.parent)
            except (KeyError, TypeError, OSError, UserError) as error:
                print(f"left out: {path.parent} is no evaluated run ({error})")
                continue
            for record in found:  # a seed that was run twice counts once
                first = records.setdefault((record["experiment"], record["seed"], record["position"]), record)
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


def records_of(out: Path) -> list[dict]:
    """One for each language of a run: what it is, and what was found."""
    result, config = read_json(out / "result.json"), read_json(out / "config.json")
    if not all(math.isfinite(language["ppl"]) for language in result["languages"]):
        raise UserError("it diverged")
    return [
        {
            "run": out.name,
            "out": out,
            "experiment": settings_but(NOT_OF_THE_EXPERIMENT, config),
            "yardstick": yardstick_key(config, language["source"]),
            "seed": config["seed"],
            "language": language["name"],
            "source": language["source"],
            "position": position,
            "alone": len(result["languages"]) == 1,
            "tokens": language["tokens"],
            "total": result["tokens"],
            "share": language["tokens"] / result["tokens"],
            "ppl": language["ppl"],
            "config": config,
            "result": result,
        }
        for position, language in enumerate(result["languages"])
    ]


def yardstick_key(config: dict, source: str, but=frozenset()) -> str:
    """What a record and its yardstick have in common: settings but for some more, and the text."""
    return settings_but(NOT_OF_THE_YARDSTICK | but, config) + source


def settings_but(without: set[str], config: dict) -> str:
    """The settings of a run, as a text to compare them by."""
    return json.dumps({key: value for key, value in config.items() if key not in without}, sort_keys=True)


# --- over seeds -----------------------------------------------------------------------------------


class Interval(NamedTuple):
    """A mean and its 95% interval, nan where there is one value."""

    mean: float
    low: float = math.nan
    high: float = math.nan

    def excludes(self, number: float) -> bool:
        """Whether the interval is known and does not hold `number`."""
        return number < self.low or self.high < number


def over_seeds(values: list[float]) -> Interval:
    """The mean over seeds, and Student's t interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean)
    half = float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))
    return Interval(mean, mean - half, mean + half)


def ratio_over_seeds(values: list[float]) -> Interval:
    """The same of positive values, by their logarithms: the geometric mean."""
    return Interval(*np.exp(over_seeds(np.log(values))).tolist())


def experiments(records: list[dict]) -> list[list[dict]]:
    """Records that differ in their seed alone: a list for each language of each experiment, by seed."""
    groups = defaultdict(list)
    for record in sorted(records, key=lambda record: record["seed"]):
        groups[record["experiment"], record["position"]].append(record)
    # Monolingual and long runs first.
    return sorted(groups.values(), key=lambda group: (not group[0]["alone"], -group[0]["total"]))


def over(group: list[dict], measure: str) -> Interval:
    """A measure of an experiment over those seeds that have it; nan if it is beyond the yardstick in one."""
    known = [record for record in group if not math.isnan(record.get(measure, math.nan))]
    beyond = measure not in {"ppl", "mlpe"} and any(record.get("beyond") for record in known)
    values = [record[measure] for record in known]
    if beyond or not values or math.inf in values:
        return Interval(math.nan)
    return over_seeds(values) if measure in {"gain", "head_start"} else ratio_over_seeds(values)
