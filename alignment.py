"""What align.py found inside the models, beside the paper: Tables 2 and 4, Figures 6 and 7, mean similarities.

align.py writes it into a run's result.json as "alignment"; its own pictures show more, for example Figures 11 to 14.
"""

from collections.abc import Iterator

import numpy as np

import paper
from evidence import Missing
from results import Fitted, Quantity, setting_of, standard_tokens

MATRICES = ("input", "output")
# How the paper's own values are drawn beside ours.
FAINT = {"alpha": 0.4, "linestyle": "none", "markerfacecolor": "none", "markeredgewidth": 1.5, "marker": "s", "zorder": 1}


def measured(fitted: Fitted, part: str, size: str) -> Iterator[tuple[str, float, dict]]:
    """(vocab, share of L1, what was found for the first two languages) of each one-stage run of two at 1x."""
    standard = standard_tokens(fitted.results)
    for result in fitted.results:
        setting = setting_of(result, standard)
        pairs = result.get("alignment", {}).get(part, {}).get("pairs", {})
        plain = len(setting.languages) == 2 and len(setting.shares) == 1 and setting.times == 1 and not setting.anchors
        if pairs and plain and setting.size == size:
            yield setting.vocab, setting.shares[0], next(iter(pairs.values()))


def hidden_states(fitted: Fitted, size: str) -> dict[tuple[str, float], list[dict]]:
    """Mean cosine after each layer, and its standard error: by position for clones, of matched tokens for real languages."""
    found = {}
    for vocab, share, pair in measured(fitted, "hidden", size):
        layers = pair.get("positions" if vocab == "cloned" else "matching")
        if layers:
            found[vocab, share] = layers
    return found


def similarity(layers: list[dict]) -> Quantity:
    """Mean over the layers of Tables 2 and 4. They see the same texts, so their errors do not average out."""
    mean, error = (sum(layer[part] for layer in layers) / len(layers) for part in ("mean", "standard_error"))
    return Quantity(mean, mean - 1.96 * error, mean + 1.96 * error)


def means(fitted: Fitted, size: str) -> list[tuple[str, str, float | None, float]]:
    """(what, languages, the paper's mean, ours) of gradients and of the input embeddings of clones."""
    found = []
    for vocab, share, pair in measured(fitted, "gradients", size):
        theirs = paper.GRADIENTS.get((vocab, share))
        found.append(("gradients", f"{vocab} {share:g}%", theirs, pair["blocks"]["mean"]))
    for vocab, share, pair in measured(fitted, "embeddings", size):
        if vocab == "cloned":
            found.append(
                ("input embeddings", f"{vocab} {share:g}%", paper.EMBEDDINGS.get(share), pair["input"]["counterparts"]["mean"])
            )
    return sorted(found, key=lambda line: line[:2])


def embeddings_of_clones(fitted: Fitted, size: str, part: str) -> list[tuple[float, dict]]:
    """(share of L1, input and output embeddings) of each ratio, the balanced one last."""
    found = [(share, pair) for vocab, share, pair in measured(fitted, part, size) if vocab == "cloned"]
    return sorted(found, key=lambda pair: -pair[0])


def figure_6(fitted: Fitted, size: str, figure) -> None:
    """Cosine of clones' embeddings, and of all pairs, by the share of the second clone; word2vec as the control."""
    panels = figure.subplots(1, 2, sharey=True)
    if not embeddings_of_clones(fitted, size, "embeddings"):
        raise Missing("runs of clones that align.py has looked at")
    for axes, matrix in zip(panels, MATRICES, strict=True):
        for number, (part, name) in enumerate((("embeddings", "GPT"), ("word2vec", "word2vec"))):
            runs = embeddings_of_clones(fitted, size, part)
            for which, line in (("counterparts", "-"), ("all_pairs", ":")):
                places = [(100 - share, _mean(pair[matrix][which])) for share, pair in runs if pair[matrix][which] is not None]
                if places:
                    label = f"{name}, {which.replace('_', ' ')}"
                    axes.plot(*zip(*places, strict=True), marker="o", linestyle=line, color=f"C{number}", label=label)
        if matrix == "input":
            shares = [100 - share for share in paper.EMBEDDINGS]
            axes.plot(shares, paper.EMBEDDINGS.values(), color="C0", label="paper, GPT, counterparts", **FAINT)
        _finish(axes, f"{matrix} embedding", "p(L2) in %")


def figure_7(fitted: Fitted, size: str, figure) -> None:
    """Cosine of clones' embeddings by the frequency of the token, a line for each ratio."""
    panels = figure.subplots(1, 2, sharey=True)
    runs = embeddings_of_clones(fitted, size, "embeddings")
    if not runs:
        raise Missing("runs of clones that align.py has looked at")
    for axes, matrix in zip(panels, MATRICES, strict=True):
        for number, (share, pair) in enumerate(runs):
            bins = pair[matrix]["frequency"]
            middle = [np.sqrt(entry["low"] * entry["high"]) for entry in bins]
            axes.plot(
                middle, [entry["mean"] for entry in bins], marker=".", color=f"C{number}", label=f"p(L2) = {100 - share:g}%"
            )
        axes.set_xscale("log")
        _finish(axes, f"{matrix} embedding", "share of the training text that a token is")


def _mean(found: dict | float) -> float:
    return found["mean"] if isinstance(found, dict) else found


def _finish(axes, title: str, x_label: str) -> None:
    axes.set(title=title, xlabel=x_label, ylabel="cosine")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
