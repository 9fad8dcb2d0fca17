"""Results of made-up runs as train.py and evaluate.py leave them, and all of the paper's tables in that form."""

import json
from pathlib import Path

import paper
from paper import PaperRow
from results import Setting


def write_run(folder: Path, name: str, setting: Setting, tokens: float, ppls, **changes) -> None:
    """A result.json of a run of `tokens` in which language i has the perplexity ppls[i]."""
    first = [share / 100 for share in setting.shares]
    others = max(1, len(setting.languages) - 1)
    stages = [[share, *[(1 - share) / others] * (len(setting.languages) - 1)] for share in first]
    shares = [sum(column) / len(stages) for column in zip(*stages, strict=True)]
    real = len(set(setting.languages)) > 1
    languages = [
        {"name": source.upper() if real else f"{source.upper()}{i + 1}", "source": source, "tokens": tokens * share, "ppl": ppl}
        for i, (source, share, ppl) in enumerate(zip(setting.languages, shares, ppls, strict=True))
    ]
    result = {
        "fingerprint": "books", "size": setting.size, "length": 512, "batch": 128, "learning_rate": 6e-4, "warmup": 500,
        "stages": stages, "tokens": tokens, "vocab": setting.vocab, "anchors": setting.anchors, "seed": 0, "languages": languages,
    }  # fmt: skip
    (folder / name).mkdir(parents=True)
    (folder / name / "result.json").write_text(json.dumps(result | changes))


def write_row(folder: Path, table: str, row: PaperRow, tokens: float = paper.TOKENS, **changes) -> None:
    """A row of the paper; what it says of EN3 to EN10 is what it says of EN2."""
    ppls = [row.ppl[min(i, len(row.ppl) - 1)] for i in range(len(row.setting.languages))]
    name = f"{table}-{row.row}-{row.setting.times:g}x".replace(" ", "")
    write_run(folder, name, row.setting, tokens * row.setting.times, ppls, **changes)


def write_laws(folder: Path, source: str, tokens: float = paper.TOKENS, **changes) -> None:
    """Monolingual runs that lie on the paper's law."""
    for fraction in paper.FRACTIONS["small"]:
        setting = Setting("monolingual", (source,), (100,), fraction, "small")
        ppl = paper.LAWS[source].perplexity(fraction * paper.TOKENS)
        write_run(folder, f"mono-{source}-{fraction}", setting, tokens * fraction, [ppl], **changes)


def write_paper(folder: Path) -> None:
    """Tables 1 and 3, with monolingual runs on the paper's laws instead of its three points."""
    for source in ("en", "fr"):
        write_laws(folder, source)
    for table, rows in paper.TABLES.items():
        for row in rows:
            if row.setting.vocab != "monolingual":
                write_row(folder, table, row)
