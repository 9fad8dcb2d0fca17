"""Folders of made-up runs, as train.py and evaluate.py leave them: for tests of what is read from runs."""

import re
from pathlib import Path

import numpy as np

from common import read_json, write


def write_run(
    folder: Path,
    name: str,
    tokens: float,
    ppls,
    *,
    ratio=0.5,
    sources=("en", "en"),
    size: str = "small",
    seed: int = 0,
    facts: dict | None = None,
    **settings,
) -> Path:
    """A run of `tokens` in which language i has the perplexity ppls[i], or none if that is None.

    `ratio` is the share of L1, or a tuple with that of each stage. `settings` replace or extend those of
    config.json; `facts` (glue, alignment) stand in result.json alone. Returns the run's folder.
    """
    others = len(sources) - 1
    clones = len(set(sources)) == 1
    ratios = ratio if isinstance(ratio, tuple) else (ratio,)
    if others:
        vocab = "cloned" if clones else "disjoint"
        stages = [[first, *[round((1 - first) / others, 12)] * others] for first in ratios]
    else:
        vocab, stages = "monolingual", [[1.0]]
    config = {
        "data": "data/books",
        "fingerprint": "books",
        "sources": list(sources),
        "vocab": vocab,
        "anchors": 0.0,
        "stages": stages,
        "size": size,
        "tokens": tokens,
        "steps": round(tokens / (settings.get("batch", 128) * 512)),
        "length": 512,
        "batch": 128,
        "learning_rate": 6e-4,
        "warmup": 500,
        "seed": seed,
        "precision": "bf16",
        "code": "0123456789ab",
    } | settings
    shares = np.mean(config["stages"], axis=0).tolist()
    languages = []
    for i, (source, share, ppl) in enumerate(zip(sources, shares, ppls, strict=True)):
        language = {"name": source.upper() + f"{i + 1}" * clones, "source": source, "tokens": tokens * share}
        languages.append(language if ppl is None else language | {"ppl": ppl})
    write(folder / name / "config.json", config)
    write(folder / name / "result.json", config | {"languages": languages} | (facts or {}))
    return folder / name


def write_law(folder: Path, law, tokens, *, source: str = "en", **changes) -> None:
    """Monolingual runs of so many `tokens` each, which lie on a law."""
    for number in tokens:
        ppl = float(law.perplexity(number))
        write_run(folder, f"mono-{source}-{number:.4g}", number, [ppl], sources=(source,), **changes)


def cells_of(page: str) -> dict[tuple[str, str], dict[str, str]]:
    """Rows of the tables of a page by their first two cells; in each, cells by their column's name."""
    rows, head = {}, []
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if not cells:
            head = []
        elif not head:
            head = cells
        else:
            rows[cells[0], cells[1]] = dict(zip(head, cells, strict=True))
    return rows


def parse_setting(setting: str) -> tuple[str, tuple[str, ...], tuple[float, ...], float]:
    """Of a row of the paper: vocabulary, languages, percent of L1 in each stage, times the standard run."""
    pattern = r"(?:(EN|FR) alone|(\w+)(?: x(\d+))? ([\d→]+)%) at ([\d.]+)x"
    alone, vocab, number, stages, times = re.fullmatch(pattern, setting).groups()
    if alone:
        return "monolingual", (alone.lower(),), (100.0,), float(times)
    languages = ("en",) * int(number or 2) if vocab == "cloned" else ("en", "fr")
    return vocab, languages, tuple(float(share) for share in stages.split("→")), float(times)


def change(run: Path, file: str = "config.json", **changes) -> None:
    """Replace or extend what a file of a run says."""
    write(run / file, read_json(run / file) | changes)
