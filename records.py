"""What runs left behind, as one list: a flat record for each language of each evaluated run.

Tables, figures and comparisons read this list, and group it by "experiment" (runs that differ in their seed
alone) and "yardstick" (a run and the monolingual ones that it is held against).
"""

import json
import math
from collections import defaultdict
from pathlib import Path

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
            "yardstick": settings_but(NOT_OF_THE_YARDSTICK, config) + language["source"],
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


def settings_but(without: set[str], config: dict) -> str:
    """The settings of a run, as a text to compare them by."""
    return json.dumps({key: value for key, value in config.items() if key not in without}, sort_keys=True)
