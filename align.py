"""What happens inside a model: does it use the same machinery for each language? (The paper's section 2.)

    python align.py out/NAME                                # a run of clones
    python align.py out/NAME --matching                     # the paper's control: clones' tokens matched, too
    python align.py out/NAME --parallel en=FILE fr=FILE     # real languages: files of aligned lines
    python align.py out/A out/B --out out/compared          # two runs in the same tables and pictures
    python align.py out/A out/B --losses                    # only draw the losses of training

For every pair of languages it measures, prints, draws and merges into result.json, as "alignment":

  embeddings   cosine of each piece and its counterpart (its clone, or the same piece in another real
               language) beside that of all pairs of pieces, in the input and the output embedding (a tied
               model has one), and by training frequency (Figures 6, 7); the key: for each of the commonest
               pieces of L2 the nearest of those of L1; retrieval@1: how often that is the same piece
  hidden       cosine of hidden states after each layer: at equal positions for clones, of matched tokens for
               real languages and with --matching (Tables 2 and 4, Figure 14); "shuffled": of different
               positions, high if all states share one direction; "centred": without each language's mean.
               For clones also retrieval@1 of centred states, in the same text and, as a control, in another
  gradients    cosine of the gradients of one sequence's mean loss, for each parameter tensor; "blocks" is
               the macro average over the tensors inside the blocks (Figures 11 to 13)

Clones are measured on the run's held-out text, real languages on the parallel text, all in float32.
"""

import argparse
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from common import (
    Parser,
    Progress,
    UserError,
    count,
    dress,
    exclusive,
    markdown,
    number,
    read_json,
    read_metrics,
    run_script,
    shown,
    write,
)
from data import PAD, Dataset, Language, named_path, surface_forms
from evaluate import Run, load_run, require_finished
from machine import Process
from model import GPT

PARTS = ("embeddings", "hidden", "gradients")
MATRICES = ("input", "output")  # a tied model has the first alone
COMMONEST = 60  # number of pieces in the key; rarer characters are hardly learned
Sides = list[np.ndarray]  # one text in each language of a run, (n,) joint ids
Results = dict[str, dict]  # result.json of each run, by the run's name
Pairs = list[tuple[str, dict]]  # run and pair of languages, and what was found
Lines = Iterator[list[list[int]]]  # own ids of lines in each language of a run


# --- similarity -----------------------------------------------------------------------------------


def estimate(values: np.ndarray) -> dict | None:
    """Mean of (n,) independent values, its standard error (None if n is 1), and n; None if n is 0."""
    n = len(values)
    if n == 0:
        return None
    error = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None
    mean = float(values.mean())
    return {"mean": mean, "standard_error": error, "count": n}


def normalise(vectors: Tensor) -> Tensor:
    """The vectors scaled to length 1; a vector of zeros stays zero, and its cosine with any vector is 0."""
    return F.normalize(vectors.float(), dim=-1, eps=1e-30)


def cosine(one: Tensor, other: Tensor) -> float:
    """Cosine of two tensors of equal shape, each read as one long vector."""
    one = one.flatten().double()  # in float32 the squares of small gradients are 0
    other = other.flatten().double()
    return float(F.cosine_similarity(one, other, dim=0, eps=1e-60))


def of_rows(one: Tensor, other: Tensor) -> Tensor:
    """Cosine of each row with the row at the same place: (..., n, width) twice -> (..., n)."""
    return (normalise(one) * normalise(other)).sum(-1)


def mean_of_all_pairs(one: Tensor, other: Tensor) -> Tensor:
    """Mean cosine of all pairs of rows of (..., n, width) and (..., m, width), as a product of two means."""
    mean = normalise(one).double().mean(-2)
    other_mean = normalise(other).double().mean(-2)
    return (mean * other_mean).sum(-1)


def by_frequency(shares: np.ndarray, cosines: np.ndarray) -> list[dict]:
    """Mean of (n,) cosines in each half decade of (n,) shares of the training text, with its middle."""
    seen = shares > 0  # the logarithm needs it
    cosines = cosines[seen]
    # 1e-9: a power of ten begins a bin even if its logarithm is rounded down.
    half_decades = np.floor(2 * np.log10(shares[seen]) + 1e-9)
    bins = []
    for place in np.unique(half_decades).tolist():
        middle = 10 ** ((place + 0.5) / 2)
        inside = cosines[half_decades == place]
        bins.append({"frequency": middle, **estimate(inside)})
    return bins


def mean_similarity(one: Tensor, other: Tensor) -> np.ndarray:
    """Cosine of all pairs of positions, mean over layers: (layers, S or T, width) -> (S, T)."""
    cosines = normalise(one) @ normalise(other).mT
    return cosines.mean(0).cpu().numpy()


def match(one: Tensor, other: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Matching of positions of highest total cosine: (layers, S or T, width) -> min(S, T) places in each."""
    return linear_sum_assignment(mean_similarity(one, other), maximize=True)


def matched(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """The states of two texts at matched positions, in the same order; all layers have one matching."""
    rows, columns = match(one, other)
    return one[:, rows], other[:, columns]


def nearest(vectors: Tensor, others: Tensor) -> Tensor:
    """Which of the (..., m, width) others has the highest cosine with each of (..., n, width): (..., n)."""
    cosines = normalise(vectors) @ normalise(others).mT
    return cosines.argmax(-1)


def retrieval(one: Tensor, other: Tensor) -> Tensor:
    """Share of rows of `other` whose nearest row of `one` has the same place: (..., n, width) -> (...)."""
    own = torch.arange(other.shape[-2], device=other.device)
    right = nearest(other, one) == own
    return right.double().mean(-1)


def by_position(one: Tensor, other: Tensor) -> Tensor:
    """Mean cosine of equal positions after each layer: (layers, S, width) twice -> (layers,) float64."""
    return of_rows(one, other).mean(1).double()


def shuffled(one: Tensor, other: Tensor) -> Tensor:
    """Mean cosine of each position with the other positions of the other text, as in a shuffle."""
    n = min(one.shape[1], other.shape[1])
    one, other = one[:, :n], other[:, :n]
    of_all = n * mean_of_all_pairs(one, other)
    return (of_all - by_position(one, other)) / max(1, n - 1)


# --- hidden states and gradients ------------------------------------------------------------------


def as_batch(model: GPT, ids: np.ndarray) -> Tensor:
    """A sequence of joint ids as a batch of one."""
    device = model.output_embedding.device
    return torch.tensor([ids.tolist()], device=device)


@torch.no_grad()
def hidden_states(model: GPT, ids: np.ndarray) -> Tensor:
    """Hidden states after each block: (S,) joint ids -> (layers, S, width)."""
    ids = ids[: model.length]  # a sequence's last token is only predicted: training does not read it either
    states = []

    def keep(block, inputs, output):
        states.append(output[0])

    hooks = [block.register_forward_hook(keep) for block in model.blocks]
    model.hidden(as_batch(model, ids))
    for hook in hooks:
        hook.remove()
    return torch.stack(states)


def gradients(model: GPT, ids: np.ndarray) -> list[Tensor]:
    """Gradient of a sequence's mean loss for each parameter, in the order of `model.parameters()`."""
    tokens = as_batch(model, ids)
    read, predicted = tokens[:, :-1], tokens[:, 1:]
    mean, _ = model(read, predicted)
    return list(torch.autograd.grad(mean, list(model.parameters())))


def mean_state(model: GPT, texts: list[np.ndarray], each_position: bool) -> Tensor:
    """Mean hidden state after each layer, at each position or over all: (layers, positions or 1, width)."""
    total, many = 0, 0
    for ids in texts:
        states = hidden_states(model, ids).double()
        if each_position:
            total = total + states
            many += 1
        else:
            total = total + states.sum(1, keepdim=True)
            many += states.shape[1]
    return (total / many).float()


# --- the texts ------------------------------------------------------------------------------------


def clone_texts(run: Run, most: int) -> list[Sides]:
    """At most `most` sequences of the held-out text, evenly spread over it, in each clone."""
    stream = run.dataset.stream(run.languages[0].source, "test")
    length = run.model.length
    windows = (len(stream) - 1) // length
    if windows < 2:
        raise UserError(f"{run.dataset.folder}: {len(stream)} test tokens are not two sequences of {length}")
    most = min(most, windows)
    texts = []
    for i in range(most):
        window = i * windows // most
        ids = stream.read(window * length, length + 1)
        texts.append([language.table[ids] for language in run.languages])
    return texts


def read_lines(path: Path) -> list[str]:
    """The lines of a text, without the spaces around them."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text") from None
    # Only a line feed ends a line: any other separator may stand in one file and not in its translation.
    lines = text.removesuffix("\n").split("\n")
    return [line.strip() for line in lines]


def aligned_lines(run: Run, paths: dict[str, Path]) -> list[tuple[str, ...]]:
    """The lines of each language's file side by side, in the order of the run's languages."""
    sources = [language.source for language in run.languages]
    if set(paths) != set(sources):
        expected = " ".join(f"{source}=FILE" for source in sources)
        raise UserError(f"{run.out} has real languages, which share no text: expected --parallel {expected}")
    texts = [read_lines(paths[source]) for source in sources]
    lengths = [str(len(text)) for text in texts]
    if len(set(lengths)) > 1:
        raise UserError(f"--parallel: the files have {' and '.join(lengths)} lines, expected as many in each")
    return list(zip(*texts, strict=True))


def encode_lines(run: Run, lines: list[tuple[str, ...]]) -> Lines:
    """The own ids of each line in each language."""
    tokenizers = [run.dataset.tokenizer(language.source) for language in run.languages]
    for line in lines:
        sides = zip(tokenizers, line, strict=True)
        yield [tokenizer.encode(text) for tokenizer, text in sides]


def join_lines(lines: Lines, length: int) -> Lines:
    """Consecutive aligned lines, joined while all sides fit in `length` tokens; longer lines are skipped."""
    held = None
    for line in lines:
        sizes = [len(side) for side in line]
        if max(sizes) > length or min(sizes) == 0:  # Europarl has empty sides
            continue
        joined = line
        if held:
            joined = [side + more for side, more in zip(held, line, strict=True)]
        if max(map(len, joined)) > length:
            yield held
            joined = line
        held = joined
    if held:
        yield held


def parallel_texts(run: Run, lines: list[tuple[str, ...]], most: int) -> list[Sides]:
    """The first `most` texts of joined lines in which every side fills at least a quarter of a sequence."""
    length = run.model.length
    shortest = length // 4  # the paper's 128 of 512
    texts = []
    for line in join_lines(encode_lines(run, lines), length):
        if min(map(len, line)) >= shortest:
            sides = zip(run.languages, line, strict=True)
            texts.append([language.table[ids] for language, ids in sides])
        if len(texts) == most:
            break
    if len(texts) < 2:
        raise UserError(f"--parallel: expected two texts of {shortest} to {length} tokens in each language")
    return texts


# --- what is measured -----------------------------------------------------------------------------


def in_pairs(run: Run, found: Iterable) -> Iterator[tuple]:
    """Each pair of languages: its name, what was found in the one, and what was found in the other."""
    named = zip(run.languages, found, strict=True)
    for (one, left), (other, right) in combinations(named, 2):
        yield f"{one.name}-{other.name}", left, right


def find_counterparts(dataset: Dataset, one: Language, other: Language) -> tuple[np.ndarray, np.ndarray, int]:
    """Pieces of the same form in two languages: (n,) own ids in each, and how many others are shared."""
    forms = surface_forms(dataset.tokenizer(one.source))
    other_forms = surface_forms(dataset.tokenizer(other.source))
    places = {form: place for place, form in enumerate(other_forms)}
    places.pop(forms[PAD], None)
    both = [(i, places[form]) for i, form in enumerate(forms) if form in places]
    left, right = np.array(both).T
    shared = one.table[left] == other.table[right]  # both have one row of the matrix
    return left[~shared], right[~shared], int(shared.sum())


def find_key(rows: Tensor, other_rows: Tensor, pieces: list[str]) -> list[dict]:
    """The nearest in L1 to each of the commonest pieces of L2; (n, width) rows, the commonest first."""
    if not pieces:
        return []
    # All rows of a language share a direction that does not depend on the piece: subtract their mean.
    first = rows[:COMMONEST]
    second = other_rows[:COMMONEST]
    places = nearest(second - second.mean(0), first - first.mean(0)).tolist()
    key = []
    for piece, place in zip(pieces, places, strict=False):
        key.append({"piece": piece, "nearest": pieces[place]})
    return key


def is_right(entry: dict) -> bool:
    """Whether the nearest piece in the key is the same piece."""
    return entry["piece"] == entry["nearest"]


def compare_rows(rows: Tensor, other_rows: Tensor, pieces: list[str], frequency: np.ndarray) -> dict:
    """Similarity of counterparts, and the key, from (n, width) rows in each language, the commonest first."""
    cosines = of_rows(rows, other_rows).cpu().numpy()
    key = find_key(rows, other_rows, pieces)
    right = sum(map(is_right, key))
    return {
        "counterparts": estimate(cosines),
        "frequency": by_frequency(frequency, cosines),
        "retrieval@1": right / len(key) if key else None,
        "chance": 1 / max(1, len(key)),
        "key": key,
    }


@torch.no_grad()
def measure_embeddings(run: Run, matrices: dict[str, Tensor]) -> dict:
    """Cosine of counterparts and of all pairs in each (vocabulary, width) matrix, and the key."""
    known = np.flatnonzero(matrices["input"].any(dim=1).cpu())  # word2vec leaves unread pieces at 0
    frequency = {}  # share of each piece in a source's training text, (V,) by own ids
    for source in {language.source for language in run.languages}:
        counts = run.dataset.stream(source, "train").counts()
        frequency[source] = counts / counts.sum()
    result = {}
    for pair, one, other in in_pairs(run, run.languages):
        left, right, shared = find_counterparts(run.dataset, one, other)
        both = np.isin(one.table[left], known)
        both &= np.isin(other.table[right], known)
        left, right = left[both], right[both]
        order = np.argsort(-frequency[other.source][right], kind="stable")
        left, right = left[order], right[order]
        left_frequency = frequency[one.source][left]
        forms = surface_forms(run.dataset.tokenizer(other.source))
        pieces = [forms[i] for i in right]
        every = np.intersect1d(one.table[1:], known)  # without padding
        every_other = np.intersect1d(other.table[1:], known)
        result[pair] = {"shared": shared}
        for name, matrix in matrices.items():
            rows = matrix[one.table[left]]
            other_rows = matrix[other.table[right]]
            all_pairs = mean_of_all_pairs(matrix[every], matrix[every_other])
            found = compare_rows(rows, other_rows, pieces, left_frequency)
            result[pair][name] = {"all_pairs": float(all_pairs), **found}
    return result


class States(NamedTuple):
    """Hidden states of a text in one language, (layers, S, width), and what they are compared with."""

    states: Tensor
    mean: Tensor  # over all texts; for clones at each position
    before: Tensor | None  # states of the previous text, as a control


def compare_positions(one: States, other: States) -> dict[str, Tensor]:
    """Similarity of two clones of a text after each layer, (layers,) each, and of unrelated positions."""
    centred, other_centred = one.states - one.mean, other.states - other.mean
    found = {
        "positions": by_position(one.states, other.states),
        "positions, centred": by_position(centred, other_centred),
        "shuffled": shuffled(one.states, other.states),
        "retrieval@1": retrieval(centred, other_centred),
    }
    if one.before is not None:
        found["retrieval@1, shuffled"] = retrieval(one.before - one.mean, other_centred)
    return found


def compare_matched(one: States, other: States) -> dict[str, Tensor]:
    """Similarity of matched tokens after each layer, (layers,) each, and of unrelated texts."""
    left, right = matched(one.states, other.states)
    # Matched tokens stand at different positions, so one mean over all positions is subtracted.
    mean = one.mean.mean(1, keepdim=True)
    other_mean = other.mean.mean(1, keepdim=True)
    found = {
        "matching": by_position(left, right),
        "matching, centred": by_position(left - mean, right - other_mean),
        "shuffled": shuffled(one.states, other.states),
    }
    if one.before is not None:
        found["matching, another text"] = by_position(*matched(one.before, other.states))
    return found


def look_at(run: Run, texts: list[Sides], look: Callable, label: str) -> Iterator[list]:
    """What `look` finds in each side of a text, for each text."""
    progress = Progress(f"{run.out.name}: {label}", len(texts), "sequences")
    for done, sides in enumerate(texts, 1):
        yield [look(run.model, ids) for ids in sides]
        progress.update(done)


def measure_hidden(run: Run, texts: list[Sides], matching: bool = False) -> dict:
    """Similarity after each layer, by position for clones, of matched tokens otherwise; raw and centred."""
    # Clones share position embeddings: with one mean for all, equal positions look alike in any model.
    clones = run.config["vocab"] == "cloned"
    by_language = zip(*texts, strict=True)
    means = [mean_state(run.model, side, each_position=clones) for side in by_language]
    before = [None] * len(means)
    values = defaultdict(list)  # (layers,) of each text
    for states in look_at(run, texts, hidden_states, "hidden states"):
        sides = [States(*each) for each in zip(states, means, before, strict=True)]
        for pair, one, other in in_pairs(run, sides):
            found = compare_positions(one, other) if clones else {}
            if matching or not clones:
                found |= compare_matched(one, other)
            for method, cosines in found.items():
                values[pair, method].append(cosines.cpu().numpy())
        before = states
    result = {}
    for (pair, method), rows in values.items():
        layers = [estimate(layer) for layer in np.transpose(rows)]
        result.setdefault(pair, {})[method] = layers
    return result


def measure_gradients(run: Run, texts: list[Sides]) -> dict:
    """Similarity by parameter tensor, and the macro average over those inside the blocks."""
    tensors = [name for name, _ in run.model.named_parameters()]
    inside = [name.startswith("blocks.") for name in tensors]
    values = defaultdict(list)
    for found in look_at(run, texts, gradients, "gradients"):
        for pair, one, other in in_pairs(run, found):
            values[pair].append(list(map(cosine, one, other)))
    result = {}
    for pair, rows in values.items():
        cosines = np.array(rows)  # (texts, tensors)
        blocks = cosines[:, inside].mean(1)
        by_tensor = dict(zip(tensors, map(estimate, cosines.T), strict=True))
        result[pair] = {"blocks": estimate(blocks), "tensors": by_tensor}
    return result


def read_result(out: Path) -> dict:
    """A run's result.json; UserError if its "alignment" is no JSON object."""
    result = read_json(out / "result.json")
    if not isinstance(result.get("alignment", {}), dict):
        raise UserError(f"{out / 'result.json'} is damaged: its alignment is not a JSON object")
    return result


def store(out: Path, part: str, found: dict) -> None:
    """Merge what was found into the run's result.json."""
    with exclusive(out, wait=True):
        result = read_result(out)
        result.setdefault("alignment", {})[part] = found
        write(out / "result.json", result)


def measure_run(run: Run, args: argparse.Namespace, pictures: Path) -> None:
    """Store what --only names in the run's result.json, and draw the matching of a parallel text."""
    if len(run.languages) == 1:
        raise UserError(f"{run.out} is monolingual, there is nothing to compare")
    reads = set(args.only) - {"embeddings"}
    texts = []
    if run.config["vocab"] == "cloned":
        texts = clone_texts(run, args.sequences) if reads else []
    elif reads or args.parallel:
        lines = aligned_lines(run, dict(args.parallel))
        texts = parallel_texts(run, lines, args.sequences) if reads else []
        draw_matching(run, lines, pictures / "alignment-matching.png")
    matrices = {"input": run.model.token_embedding.weight}
    if not run.model.size.tied:
        matrices["output"] = run.model.output_embedding
    measures = {
        "embeddings": lambda: measure_embeddings(run, matrices),
        "hidden": lambda: measure_hidden(run, texts, args.matching),
        "gradients": lambda: measure_gradients(run, texts),
    }
    for part in args.only:
        found = measures[part]()
        store(run.out, part, found)


# --- what is printed ------------------------------------------------------------------------------


def pairs_of(results: Results, part: str) -> Pairs:
    """(run and pair of languages, what was found) of all pairs for which the part was measured."""
    pairs = []
    for name, result in results.items():
        found = result.get("alignment", {}).get(part, {})
        pairs += [(f"{name} {pair}", found[pair]) for pair in found]
    return pairs


def with_error(found: dict | None) -> str:
    """A mean and its standard error."""
    if found is None:
        return "-"
    if found["standard_error"] is None:
        return f"{found['mean']:.3f}"
    return f"{found['mean']:.3f} ± {found['standard_error']:.3f}"


def table(results: Results) -> str:
    """A row for each cosine of each pair; ± is a standard error over tokens (embeddings) or sequences."""
    rows = []
    for pair, found in pairs_of(results, "embeddings"):
        for name in MATRICES:
            if name in found:
                matrix = found[name]
                rows.append([pair, f"{name} embedding", with_error(matrix["counterparts"])])
                rows.append([pair, f"{name} embedding, all pairs", f"{matrix['all_pairs']:.3f}"])
    for pair, found in pairs_of(results, "hidden"):
        for method, layers in found.items():
            cosines = ", ".join(map(with_error, layers))
            rows.append([pair, f"hidden, {method}", cosines])
    for pair, found in pairs_of(results, "gradients"):
        rows.append([pair, "gradients, blocks", with_error(found["blocks"])])
    return "\n" + markdown(["run", "part", "cosine (after each layer)"], rows, 3)


def keys(results: Results) -> str:
    """The key of each pair: pieces of L2, below each the nearest of L1, and a mark if that is another."""
    text = ""
    for pair, found in pairs_of(results, "embeddings"):
        key = found["input"]["key"]
        if not key:
            continue
        right = sum(map(is_right, key))
        text += f"\nThe key of {pair}: {right} of the {len(key)} commonest pieces are nearest to their own\n"
        one, other = pair.split()[-1].split("-")
        width = 2 + max(len(entry["piece"]) for entry in key)
        columns = max(1, 80 // width)
        for begin in range(0, len(key), columns):
            entries = key[begin : begin + columns]
            lines = {
                other: [entry["piece"] for entry in entries],
                one: [entry["nearest"] for entry in entries],
                "wrong": ["" if is_right(entry) else "^" for entry in entries],
            }
            for label, cells in lines.items():
                line = "".join(cell.replace("\n", "\\n").ljust(width) for cell in cells)
                if line.strip():  # nothing may be wrong
                    text += f"  {label.ljust(max(map(len, lines)))} {line.rstrip()}\n"
    return text


# --- what is drawn --------------------------------------------------------------------------------


def finish(axis, **labels) -> None:
    """Labels, no frame on the right and above, and a legend if it has at most 12 lines."""
    dress(axis, **labels)
    axis.xaxis.get_major_locator().set_params(integer=True)
    if 0 < len(axis.get_legend_handles_labels()[1]) <= 12:
        axis.legend(frameon=False, fontsize="small")


LAYERS = {  # method: panel and style; dotted lines are what unrelated text gives
    "positions": (0, "o-"),
    "matching": (0, "s--"),
    "shuffled": (0, "x:"),
    "matching, another text": (0, "+:"),
    "positions, centred": (1, "o-"),
    "matching, centred": (1, "s--"),
    "retrieval@1": (2, "o-"),
    "retrieval@1, shuffled": (2, "x:"),
}


def draw_layers(pairs: Pairs) -> Figure:
    """Tables 2 and 4 as lines: raw beside what unrelated text gives, centred, and retrieval@1."""
    drawn = {method for _, found in pairs for method in found} & LAYERS.keys()
    panels = 1 + max(LAYERS[method][0] for method in drawn)  # clones have the third
    figure = Figure(figsize=(4.4 * panels, 4.2), layout="constrained")
    axes = figure.subplots(1, panels)
    for i, (pair, found) in enumerate(pairs):
        color = f"C{i}"
        for method, layers in found.items():
            if method not in LAYERS:
                continue
            panel, style = LAYERS[method]
            means = [layer["mean"] for layer in layers]
            bars = [1.96 * (layer["standard_error"] or 0) for layer in layers]
            numbers = range(1, len(layers) + 1)
            axes[panel].errorbar(numbers, means, bars, fmt=style, color=color)
        axes[1].plot([], [], color=color, label=pair)  # a legend for all panels
    titles = "Hidden states", "Hidden states, centred", "Nearest is its own"
    labels = "cosine; dotted: unrelated text", "cosine; dashed: matched tokens", "share; dotted: text before"
    for panel, title, label in zip(axes, titles, labels, strict=False):
        finish(panel, xlabel="layer", title=title, ylabel=label)
    return figure


def draw_gradients(pairs: Pairs) -> Figure:
    """Figures 11 to 13: tensors by layers, a heat map for each run and pair."""
    figure = Figure(figsize=(2 + 3.6 * len(pairs), 4.2), layout="constrained")
    axes = figure.subplots(1, len(pairs), squeeze=False)[0]
    for axis, (pair, found) in zip(axes, pairs, strict=True):
        kinds, cosines = heat_map(found["tensors"])
        picture = axis.imshow(cosines, vmin=-0.2, vmax=1, aspect="auto")
        mean = found["blocks"]["mean"]
        layers = range(cosines.shape[1])
        axis.set_xticks(layers, [layer + 1 for layer in layers])
        axis.set(title=f"{pair}\nmean {mean:.2f}", xlabel="layer", yticks=[])
    axes[0].set_yticks(range(len(kinds)), kinds)
    figure.colorbar(picture, ax=list(axes), label="cosine of gradients")
    return figure


def heat_map(tensors: dict) -> tuple[list[str], np.ndarray]:
    """The tensors inside the blocks: the names of one block's, and (kinds, layers) mean cosines."""
    kinds = [name.removeprefix("blocks.0.") for name in tensors if name.startswith("blocks.0.")]
    means = [found["mean"] for name, found in tensors.items() if name.startswith("blocks.")]
    by_block = np.reshape(means, (-1, len(kinds)))
    return kinds, by_block.T


def curves_of(out: Path, kind: str) -> dict[str, list[tuple[int, float]]]:
    """(tokens, loss) of each language of a run, from its metrics.jsonl; `kind` is loss or held_out."""
    curves = defaultdict(list)
    for line in read_metrics(out):
        for name, loss in line.get(kind, {}).items():
            curves[name].append((line["tokens"], loss))
    return curves


def draw_losses(runs: list[Path], path: Path) -> None:
    """Training loss of each language by tokens, as 60 means; dots are losses on held-out text."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    for out in runs:
        held_out = curves_of(out, "held_out")
        for name, points in curves_of(out, "loss").items():
            parts = np.array_split(points, min(60, len(points)))  # means, as single batches vary
            tokens, means = np.transpose([part.mean(axis=0) for part in parts])
            (curve,) = axis.plot(tokens, means, label=shown(f"{out.name} {name}"))
            for point in held_out[name]:
                axis.plot(*point, ".", color=curve.get_color())
    axis.xaxis.set_major_formatter(lambda tokens, _: count(tokens))
    finish(axis, xlabel="training tokens", ylabel="loss in nats; dots: held-out text")
    write(path, figure)


def draw_matching(run: Run, lines: list[tuple[str, ...]], path: Path) -> None:
    """Figure 14: tokens of the first line of suitable length in two languages; lines join matched tokens."""
    most = min(24, run.model.length)
    for sentence in encode_lines(run, lines):
        if all(5 <= len(side) <= most for side in sentence):
            break
    else:
        print(f"{path} is not drawn: no line has 5 to {most} tokens in each language")
        return
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    axis = figure.subplots()
    states = []
    for language, ids, height in zip(run.languages, sentence, (1, 0), strict=False):
        states.append(hidden_states(run.model, language.table[ids]))
        forms = surface_forms(run.dataset.tokenizer(language.source))
        anchor = "bottom" if height else "top"
        look = {"rotation": 90, "ha": "center", "va": anchor, "parse_math": False}
        for x, i in enumerate(ids):
            axis.text(x, height, f" {forms[i]} ", **look)
    similarity = mean_similarity(*states)
    for row, column in zip(*match(*states), strict=True):
        alpha = similarity[row, column].clip(0.1, 1)
        axis.plot([row, column], [1, 0], color="C0", alpha=alpha)
    names = [language.name for language in run.languages[:2]]
    axis.set_yticks([1, 0], names)
    axis.set(ylim=(-0.9, 1.9), xticks=[])
    axis.spines[:].set_visible(False)
    write(path, figure)


def main(arguments: list[str] | None = None) -> None:
    """Measure each run that the command line names, then print and draw all results of these runs."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="out/NAME", help="folders of finished runs")
    add("--device", choices=["cpu", "cuda"], help="device; default: cuda if there is one")
    add("--out", type=Path, help="folder for pictures; default: the run's, or that around several runs")
    add("--only", nargs="*", choices=PARTS, default=PARTS, help="measures; none: only draw; default: all")
    add("--parallel", nargs="+", type=named_path, default=[], metavar="LANG=FILE", help="translated lines")
    add("--sequences", type=number(int, 2), default=500, metavar="N", help="number of texts; default: 500")
    add("--matching", action="store_true", help="match the tokens of clones, too")
    add("--losses", action="store_true", help="draw the losses of training, losses.png, and do nothing else")
    args = parser.parse_args(arguments)
    several = len(args.runs) > 1
    first = args.runs[0]
    folder = args.out or (first.parent if several else first)
    if args.losses:
        draw_losses(args.runs, folder / "losses.png")
        return
    device = Process.current(args.device).device
    for out in args.runs:
        require_finished(out)  # all of them, before the first is measured
    for out in args.runs:
        run = load_run(out, device)
        measure_run(run, args, out if several else folder)
    parents = [out.resolve().parent for out in args.runs]
    parent = os.path.commonpath(parents)
    results = {}
    for out in args.runs:
        name = os.path.relpath(out, parent)
        results[name] = read_result(out)
    print(table(results) + keys(results))
    if pairs := pairs_of(results, "hidden"):
        write(folder / "alignment-layers.png", draw_layers(pairs))
    if pairs := pairs_of(results, "gradients"):
        write(folder / "alignment-gradients.png", draw_gradients(pairs[:8]))


if __name__ == "__main__":
    run_script(main)
