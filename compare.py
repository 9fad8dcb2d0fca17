"""One's own runs beside the paper's, row by row, and which of its takeaways they bear out (fit_scaling.py --compare)."""

import math

import paper
from alignment import hidden_states, means, similarity
from common import markdown
from evidence import FAMILIES, Evidence, by_experiment, evidence_of_rows, standard_size
from results import Fitted, Quantity, Row
from takeaways import judge_all, summary

SCRIPTS = {"Table 1": "runs/table1.sh", "Table 3": "runs/table3.sh"}
KINDS = dict(zip(SCRIPTS, FAMILIES, strict=True))


def with_interval(quantity: Quantity, text: str, bound=lambda value: f"{value:.2f}") -> str:
    """'2.37 [2.21, 2.55]', or the number alone where its interval is not known."""
    if math.isnan(quantity.low):
        return text
    return f"{text} [{bound(quantity.low)}, {'∞' if math.isinf(quantity.high) else bound(quantity.high)}]"


def perplexity_text(ppl: float) -> str:
    """To the paper's precision; ∞ where the law has none."""
    if math.isinf(ppl):
        return "∞"
    return f"{ppl:.1f}" if ppl < 1e6 else f"{ppl:.0e}"


def efficiency_text(row: Row) -> str:
    """TEff with its interval; * marks a MLTE beyond the fitted range."""
    value = row.token_efficiency
    if row.beyond:
        return "beyond the law"
    return "-" if math.isnan(value.value) else with_interval(value, f"{value.value:.2f}") + "*" * row.extrapolated


def compare_table(name: str, ours: dict[tuple, Row], size: str) -> str:
    """Every row of a table: the paper's perplexities and TEff, and ours."""
    lines, missing = [], []
    for row in paper.TABLES[name]:
        mono, shares = row.setting.vocab == "monolingual", "→".join(f"{share:g}" for share in row.setting.shares)
        roles = [int(row.setting.languages == paper.FR)] if mono else [0, 1]
        vocab = f"monolingual, {KINDS[name]}" if mono else row.setting.vocab
        count = len(row.setting.languages)
        found = [ours.get((vocab, count, row.setting.shares, row.setting.times, size, role)) for role in roles]
        if None in found:
            missing.append(row.row)
            found = []
        kind = f"mono {'FR' if roles == [1] else 'EN'}" if mono else row.setting.vocab + (f" x{count}" if count > 2 else "")
        lines.append((
            row.row, kind, f"{row.setting.times:g}x", shares + "%", ", ".join(">1B" if p >= 1e9 else f"{p:.1f}" for p in row.ppl),
            ", ".join(perplexity_text(own.ppl.value) for own in found) or "not run",
            ", ".join("-" if e is None else f"{e:.2f}" for e in row.efficiency), ", ".join(map(efficiency_text, found)),
        ))  # fmt: skip
    head = ("row", "languages", "tokens", "share of L1", "PPL, paper", "ours", "TEff, paper", "ours [95%]")
    if len(missing) == len(lines):
        return f"## {name}\n\nNot run: `bash {SCRIPTS[name]}` runs it.\n"
    rows, figures = ([row for row in missing if row.startswith("Figure") == other] for other in (False, True))
    told = f"\nNot run: row {', '.join(rows)}; `bash {SCRIPTS[name]}` runs them.\n" if rows else ""
    told += "\nNot run: what Figure 2 adds; `bash runs/figure2.sh` runs it.\n" if figures else ""
    return f"## {name}\n\n{markdown(head, lines, 2)}{told}"


def compare_similarities(layers: dict[tuple, list[dict]], others: list[tuple]) -> str:
    """Tables 2 and 4: hidden-state cosine after each layer; then the means of Figures 6 and 11 to 13."""
    if not layers and not others:
        return "## Tables 2 and 4\n\nNot measured: `bash runs/table2.sh` and `bash runs/table4.sh` measure them.\n"
    lines = []
    for key, theirs in paper.HIDDEN_STATES.items():
        ours = [layer["mean"] for layer in layers.get(key, ())]
        texts = [" ".join(f"{value:.2f}" for value in values) if values else "not measured" for values in (theirs, ours)]
        means = [f"{sum(values) / len(values):.2f}" if values else "-" for values in (theirs, ours)]
        lines.append((key[0], f"{key[1]}%", means[0], means[1], *texts))
    head = ("languages", "share of L1", "mean, paper", "mean, ours", "by layer, paper", "by layer, ours")
    text = f"## Tables 2 and 4: cosine of hidden states\n\n{markdown(head, lines, 2)}"
    if others:
        cells = [(what, which, "-" if theirs is None else f"{theirs:.2f}", f"{ours:.2f}") for what, which, theirs, ours in others]
        text += f"\n## Figures 6 and 11 to 13: mean cosines\n\n{markdown(('of', 'languages', 'paper', 'ours'), cells, 2)}"
    return text


def compare_takeaways(evidence: Evidence) -> str:
    """Every claim of the paper's takeaways, and whether these runs bear it out."""
    verdicts = judge_all(evidence)
    lines = [f"{v.claim.takeaway}. {v.claim.sentence} ({v.claim.where}): **{v.word}**; {v.figures}\n" for v in verdicts]
    return f"## Takeaways\n\n{summary(verdicts)}\n{''.join(lines)}"


def compare(fitted: Fitted) -> str:
    """Everything beside the paper, as Markdown."""
    rows, size = fitted.rows, standard_size(fitted.rows)
    layers = hidden_states(fitted, size)
    similarities = {key: similarity(own) for key, own in layers.items()}
    ours = by_experiment(rows)
    parts = [f"# {size} beside the paper's {paper.SIZE}\n"]
    parts += [compare_table(name, ours, size) for name in paper.TABLES]
    parts += [compare_similarities(layers, means(fitted, size)), compare_takeaways(evidence_of_rows(rows, similarities, size))]
    return "\n".join(parts)
