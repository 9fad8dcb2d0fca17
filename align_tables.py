"""What `align.py` found in one or several runs, as Markdown tables."""

from collections.abc import Iterator

import numpy as np

from activations import block_tensors
from common import markdown

Results = dict[str, dict]  # result.json of each run, by the run's name


def pairs_of(results: Results, part: str) -> Iterator[tuple[str, str, dict]]:
    """(run, pair of languages, what was found) for all of them that have the part."""
    for run, result in results.items():
        for pair, found in result.get("alignment", {}).get(part, {"pairs": {}})["pairs"].items():
            yield run, pair, found


def number(found: dict | None) -> str:
    """A mean and its standard error."""
    if found is None:
        return "-"
    error = found["standard_error"]
    return f"{found['mean']:.3f}" + ("" if error is None else f" ± {error:.3f}")


def embedding_table(results: Results) -> str:
    """Counterparts against all pairs; ± is a standard error over tokens."""
    head = ["run", "pair", "model", "embedding", "counterparts", "tokens", "all pairs", "shared"]
    rows = []
    for model, part in (("GPT", "embeddings"), ("word2vec", "word2vec")):
        for run, pair, found in pairs_of(results, part):
            for matrix in ("input", "output"):
                same, everything = found[matrix]["counterparts"], found[matrix]["all_pairs"]
                cells = [number(same), str(same["count"] if same else 0), "-" if everything is None else f"{everything:.3f}"]
                rows.append([run, pair, model, matrix, *cells, str(found["shared"])])
    return "Cosine of embeddings\n\n" + markdown(head, rows, 4) if rows else ""


def layer_table(results: Results) -> str:
    """Hidden states after each layer; ± is a standard error over sequences. Models of other depth leave cells empty."""
    lines = [(run, pair, method, layers) for run, pair, found in pairs_of(results, "hidden") for method, layers in found.items()]
    if not lines:
        return ""
    depth = max(len(layers) for *_, layers in lines)
    head = ["run", "pair", "tokens by", "sequences", *(f"layer {i}" for i in range(1, depth + 1))]
    rows = [
        [run, pair, method, str(layers[0]["count"]), *map(number, layers), *[""] * (depth - len(layers))]
        for run, pair, method, layers in lines
    ]
    return "Cosine of hidden states\n\n" + markdown(head, rows, 3)


def gradient_table(results: Results) -> str:
    """Macro average over the tensors inside the blocks, and the mean of each layer's."""
    lines = list(pairs_of(results, "gradients"))
    if not lines:
        return ""
    matrices = [heat_map(found)[1] for _, _, found in lines]
    depth = max(matrix.shape[1] for matrix in matrices)
    head = ["run", "pair", "sequences", "blocks", *(f"layer {i}" for i in range(1, depth + 1))]
    rows = [
        [run, pair, str(found["blocks"]["count"]), number(found["blocks"]), *(f"{value:.3f}" for value in matrix.mean(0)),
         *[""] * (depth - matrix.shape[1])]
        for (run, pair, found), matrix in zip(lines, matrices, strict=True)
    ]  # fmt: skip
    return "Cosine of gradients\n\n" + markdown(head, rows, 2)


def heat_map(found: dict) -> tuple[list[str], np.ndarray]:
    """Tensors by layers of one pair's gradients: names, and (kinds, layers)."""
    means = np.array([tensor["mean"] for tensor in found["tensors"].values()])
    return block_tensors(list(found["tensors"]), means)


def tables(results: Results) -> str:
    """All tables for which there is something, with a line between them."""
    return "\n".join(filter(None, (table(results) for table in (embedding_table, layer_table, gradient_table))))
