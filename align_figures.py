"""What `align.py` found, drawn as in the paper: its figures 6, 7 and 11 to 14, and tables 2 and 4 as lines."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from align_tables import Results, heat_map, pairs_of
from common import write_figure

MOST_PANELS = 8  # heat maps side by side, and lines that one can tell apart
MATRICES = ("input", "output")


def subplots(columns: int, width: float, height: float, **options) -> tuple[Figure, np.ndarray]:
    """A figure with axes side by side, (columns,)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False, **options)[0]


def tidy(axes, **labels) -> None:
    """Labels, a line at 0, no frame on the right and above."""
    axes.set(**labels)
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)


def legend(axes) -> None:
    """A legend, if its lines can be told apart."""
    if len(axes.get_legend_handles_labels()[1]) <= 2 * MOST_PANELS:
        axes.legend(frameon=False, fontsize=8)


def label(results: Results, run: str, pair: str) -> str:
    """The pair, and the run where there are several."""
    return pair if len(results) == 1 else f"{run}: {pair}"


def errors(found: list[dict]) -> list[float]:
    """Standard errors, 0 where there is none."""
    return [entry["standard_error"] or 0.0 for entry in found]


def share(result: dict, pair: str) -> float:
    """Mean share of the pair's second language over the stages of a run."""
    names = [language["name"] for language in result["languages"]]
    return float(np.mean(result["stages"], axis=0)[names.index(pair.split("-")[1])])


def draw_embeddings(results: Results) -> Figure | None:
    """Figure 6: counterparts and all pairs against the share of the second language, input and output."""
    lines: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for model, part in (("GPT", "embeddings"), ("word2vec", "word2vec")):
        for run, pair, found in pairs_of(results, part):
            for matrix in MATRICES:
                values = found[matrix]
                if values["counterparts"]:
                    point = share(results[run], pair), values["counterparts"]["mean"]
                    lines.setdefault((matrix, model, "counterparts"), []).append(point)
                if values["all_pairs"] is not None:
                    lines.setdefault((matrix, model, "all pairs"), []).append((share(results[run], pair), values["all_pairs"]))
    if not lines:
        return None
    figure, panels = subplots(2, 9, 3.8, sharey=True)
    for axes, matrix in zip(panels, MATRICES, strict=True):
        for (name, model, which), points in lines.items():
            if name == matrix:
                style = {"color": "C0" if model == "GPT" else "C1", "linestyle": "-" if which == "counterparts" else ":"}
                axes.plot(
                    *zip(*sorted(points), strict=True),
                    marker="o" if which == "counterparts" else "x",
                    label=f"{model}, {which}",
                    **style,
                )
        tidy(axes, title=f"{matrix.capitalize()} embedding", xlabel="share of the pair's second language", ylabel="cosine")
    legend(panels[0])
    return figure


def draw_frequency(results: Results) -> Figure | None:
    """Figure 7: counterparts by training frequency, a line for each run and pair; word2vec's are dashed."""
    lines = [(run, pair, found, style) for part, style in (("embeddings", "-"), ("word2vec", "--"))
             for run, pair, found in pairs_of(results, part) if found["input"]["frequency"]]  # fmt: skip
    if not lines:
        return None
    colours = {key: f"C{i % 10}" for i, key in enumerate(dict.fromkeys((run, pair) for run, pair, *_ in lines))}
    figure, panels = subplots(2, 9, 3.8, sharey=True)
    for axes, matrix in zip(panels, MATRICES, strict=True):
        for run, pair, found, style in lines:
            bins = found[matrix]["frequency"]
            axes.errorbar(
                [np.sqrt(entry["low"] * entry["high"]) for entry in bins], [entry["mean"] for entry in bins], errors(bins),
                marker=".", linestyle=style, color=colours[run, pair],
                label=label(results, run, pair) + (", word2vec" if style == "--" else ""),
            )  # fmt: skip
        tidy(axes, title=f"{matrix.capitalize()} embedding", xlabel="training frequency", ylabel="cosine", xscale="log")
    legend(panels[0])
    return figure


def draw_layers(results: Results) -> Figure | None:
    """Tables 2 and 4: similarity after each layer, with standard errors; tokens that were matched are dashed."""
    lines = [(run, pair, method, layers) for run, pair, found in pairs_of(results, "hidden") for method, layers in found.items()]
    if not lines:
        return None
    colours = {key: f"C{i % 10}" for i, key in enumerate(dict.fromkeys((run, pair) for run, pair, *_ in lines))}
    figure, (axes,) = subplots(1, 6.4, 4.2)
    for run, pair, method, layers in lines:
        axes.errorbar(
            [entry["layer"] for entry in layers], [entry["mean"] for entry in layers], errors(layers), marker="o",
            color=colours[run, pair], linestyle="--" if method == "matching" else "-",
            label=label(results, run, pair) + (", matched" if method == "matching" else ""),
        )  # fmt: skip
    tidy(axes, title="Hidden states", xlabel="layer", ylabel="cosine")
    axes.xaxis.get_major_locator().set_params(integer=True)
    legend(axes)
    return figure


def short(value: float) -> str:
    """0.5 -> '.50', for cells that are small."""
    text = f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.0f}"
    return ".00" if text == "-.00" else text


def draw_gradients(results: Results) -> Figure | None:
    """Figures 11 to 13: tensors by layers, a heat map for each run and pair (the first eight), one scale for all."""
    maps = [(label(results, run, pair), found) for run, pair, found in pairs_of(results, "gradients")][:MOST_PANELS]
    if not maps:
        return None
    matrices = [heat_map(found) for _, found in maps]
    layers = sum(matrix.shape[1] for _, matrix in matrices)
    figure, panels = subplots(
        len(maps), 3 + max(2.2 * len(maps), 0.55 * layers), 4.6, width_ratios=[matrix.shape[1] for _, matrix in matrices]
    )
    low = min(0.0, *(float(matrix.min()) for _, matrix in matrices))
    for number, (axes, (title, found), (kinds, matrix)) in enumerate(zip(panels, maps, matrices, strict=True)):
        picture = axes.imshow(matrix, vmin=low, vmax=1, cmap="viridis", aspect="auto")
        axes.set_title(f"{title}\nmean {found['blocks']['mean']:.2f}", fontsize=9)
        axes.set_xticks(range(matrix.shape[1]), range(1, matrix.shape[1] + 1))
        axes.set_yticks(range(len(kinds)), kinds if number == 0 else [""] * len(kinds), fontsize=8)
        axes.set_xlabel("layer")
        for (row, column), value in np.ndenumerate(matrix):
            axes.text(column, row, short(value), ha="center", va="center", fontsize=6,
                      color="white" if value < (low + 1) / 2 else "black")  # fmt: skip
    figure.colorbar(picture, ax=list(panels), label="cosine of gradients")
    return figure


def draw_matching(
    names: list[str], forms: list[list[str]], matched: tuple[np.ndarray, np.ndarray], similarity: np.ndarray, path: Path
) -> None:
    """Figure 14: the tokens of two texts in two rows, and a line between those that are matched.

    Args:
        names: of the two languages.
        forms: surface forms of the S and the T tokens.
        matched: rows and columns of the pairs.
        similarity: (S, T); it gives a line's colour.
    """
    longest = max(map(len, forms))
    figure, (axes,) = subplots(1, max(6.0, 0.55 * longest + 1.5), 3.4)
    # The shorter row is stretched to the length of the longer one: lines of a plain word order are upright.
    places = [np.linspace(0, longest - 1, len(row)) if len(row) > 1 else np.array([(longest - 1) / 2]) for row in forms]
    colours = colormaps["viridis_r"]
    scale = Normalize(min(0.0, float(similarity.min())), 1.0)
    for row, column in zip(*matched, strict=True):
        axes.plot([places[0][row], places[1][column]], [1, 0], color=colours(scale(similarity[row, column])), linewidth=1.6)
    for level, row, where, side in zip((1.06, -0.06), forms, places, ("bottom", "top"), strict=True):
        for form, x in zip(row, where, strict=True):
            axes.text(x, level, form, rotation=90, ha="center", va=side, fontsize=9, parse_math=False)
    axes.set_yticks((1, 0), names)
    axes.set_ylim(-0.9, 1.9)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(ScalarMappable(scale, colours), ax=axes, label="cosine, mean over layers", shrink=0.8)
    write_figure(path, figure)


PICTURES: dict[str, Callable[[Results], Figure | None]] = {
    "embeddings": draw_embeddings,
    "frequency": draw_frequency,
    "layers": draw_layers,
    "gradients": draw_gradients,
}


def draw_all(results: Results, folder: Path) -> None:
    """Every picture for which there is something, to `alignment-*.png` in a folder."""
    for name, draw in PICTURES.items():
        if figure := draw(results):
            write_figure(folder / f"alignment-{name}.png", figure)
