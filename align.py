"""What happens inside a model: does it use the same machinery for each language? (The paper's section 2.)

    python align.py out/NAME                                # a run of clones
    python align.py out/NAME --matching                     # the paper's control: their tokens matched, too
    python align.py out/NAME --parallel en=FILE fr=FILE     # real languages: files of aligned lines
    python align.py out/A out/B --out out/compared          # both, in the same tables and pictures
    python align.py out/NAME --snapshots                    # hidden states during a run with --keep-every
    python align.py out/A out/B --losses                    # only draw the losses of training

For every pair of languages it measures, prints, draws, and merges into result.json as "alignment",

  embeddings   cosine of each token and its counterpart (its clone, or the same piece in another real
               language) beside that of all pairs of tokens, in the input and the output embedding (a tied
               model has one), and by training frequency (Figures 6, 7); the key: for each of the commonest
               pieces of L2 the nearest of those of L1; retrieval@1, how often that is its own
  hidden       cosine of hidden states after each layer: of equal positions for clones, of matched tokens for
               real languages and with --matching (Tables 2 and 4, Figure 14); "shuffled" of different
               positions, large where all states share one direction; "centred" without each language's mean.
               For clones also retrieval@1 of centred states, in the same text and, as a control, in another
  gradients    cosine of the gradients of one sequence's mean loss, for each parameter tensor; "blocks" is
               the macro average over those inside the blocks (Figures 11 to 13)

Clones read the run's held-out text, real languages the parallel text. Arithmetic is float32.
"""

import argparse
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations, islice
from pathlib import Path
from typing import NamedTuple

import networkx
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from common import (
    Parser,
    Progress,
    UserError,
    count,
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
COMMONEST = 60  # pieces of the key; rarer characters are hardly learned
Sides = list[np.ndarray]  # one text in each language of a run, (n,) joint ids
Results = dict[str, dict]  # result.json of each run, by the run's name


# --- similarity -----------------------------------------------------------------------------------


def estimate(values: np.ndarray) -> dict | None:
    """Mean of (n,) independent values, its standard error (None of one value), and n; None of none."""
    n = len(values)
    if n == 0:
        return None
    error = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None
    return {"mean": float(values.mean()), "standard_error": error, "count": n}


def normalise(vectors: Tensor) -> Tensor:
    """Vectors of length 1 in the same directions; a vector of zeros stays one, and is similar to nothing."""
    return F.normalize(vectors.float(), dim=-1, eps=1e-30)


def cosine(one: Tensor, other: Tensor) -> float:
    """Cosine of two tensors of equal shape, each read as one long vector."""
    one = one.flatten().double()  # in float32 the squares of small gradients are 0
    other = other.flatten().double()
    return float(F.cosine_similarity(one, other, dim=0, eps=1e-60))


def mean_of_all_pairs(one: Tensor, other: Tensor) -> Tensor:
    """Mean cosine of all pairs of rows of (..., n, width) and (..., m, width): a product of two means."""
    mean = normalise(one).double().mean(-2)
    other_mean = normalise(other).double().mean(-2)
    return (mean * other_mean).sum(-1)


def by_frequency(shares: np.ndarray, cosines: np.ndarray) -> list[dict]:
    """Mean of (n,) cosines in half decades of (n,) shares of the training text, each with its middle."""
    seen = shares > 0  # the logarithm needs it
    cosines = cosines[seen]
    # Powers of ten open a bin, whatever their logarithm is rounded to.
    half_decades = np.floor(2 * np.log10(shares[seen]) + 1e-9)
    bins = []
    for place in np.unique(half_decades).tolist():
        middle = 10 ** ((place + 0.5) / 2)
        bins.append({"frequency": middle, **estimate(cosines[half_decades == place])})
    return bins


def match(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Full matching of the rows of (S, T) with its columns of maximal weight: min(S, T) rows and columns."""
    return linear_sum_assignment(similarity, maximize=True)


def plain_match(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `match` computes, as the paper's code did it: a graph of a node a token and an edge a pair."""
    graph = networkx.Graph()
    for (i, j), weight in np.ndenumerate(similarity):
        graph.add_edge(("row", i), ("column", j), weight=float(weight))
    edges = networkx.max_weight_matching(graph, maxcardinality=True)
    pairs = sorted((dict(edge)["row"], dict(edge)["column"]) for edge in edges)
    return tuple(np.array(pairs).T)


def mean_similarity(one: Tensor, other: Tensor) -> np.ndarray:
    """Cosine of all pairs of positions, mean over layers: (layers, S or T, width) -> (S, T)."""
    cosines = normalise(one) @ normalise(other).mT
    return cosines.mean(0).cpu().numpy()


def matched(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """The states of two texts that are partners, in step; the matching is one for all layers."""
    rows, columns = match(mean_similarity(one, other))
    return one[:, rows], other[:, columns]


def nearest(vectors: Tensor, others: Tensor) -> Tensor:
    """Which of the (..., m, width) others has the highest cosine with each of (..., n, width): (..., n)."""
    return (normalise(vectors) @ normalise(others).mT).argmax(-1)


def retrieval(one: Tensor, other: Tensor) -> Tensor:
    """How often the nearest row of `one` to a row of `other` has the same place: (..., n, width) -> (...)."""
    own = torch.arange(other.shape[-2], device=other.device)
    return (nearest(other, one) == own).double().mean(-1)


def by_position(one: Tensor, other: Tensor) -> Tensor:
    """Mean cosine of equal positions after each layer: (layers, S, width) twice -> (layers,) float64."""
    cosines = (normalise(one) * normalise(other)).sum(-1)
    return cosines.mean(1).double()


def shuffled(one: Tensor, other: Tensor) -> Tensor:
    """Mean cosine of each position with the other positions of the other text: what any shuffle expects."""
    n = min(one.shape[1], other.shape[1])
    one, other = one[:, :n], other[:, :n]
    of_all = n * mean_of_all_pairs(one, other)
    return (of_all - by_position(one, other)) / max(1, n - 1)


# --- what a model makes of a sequence -------------------------------------------------------------


def as_batch(model: GPT, ids: np.ndarray) -> Tensor:
    """A sequence of joint ids as a batch of one."""
    return torch.tensor(ids, dtype=torch.long, device=model.output_embedding.device)[None]


@torch.no_grad()
def hidden_states(model: GPT, ids: np.ndarray) -> Tensor:
    """Hidden states after each block: (S,) joint ids -> (layers, S, width)."""
    ids = ids[: model.length]  # a sequence's last token is only predicted: training does not read it either
    states, hooks = [], []
    for block in model.blocks:
        hooks.append(block.register_forward_hook(lambda block, inputs, output: states.append(output[0])))
    model.hidden(as_batch(model, ids))
    for hook in hooks:
        hook.remove()
    return torch.stack(states)


def gradients(model: GPT, ids: np.ndarray) -> list[Tensor]:
    """Gradient of a sequence's mean loss by each parameter, in the order of `model.parameters()`."""
    tokens = as_batch(model, ids)
    mean, _ = model(tokens[:, :-1], tokens[:, 1:])
    return list(torch.autograd.grad(mean, list(model.parameters())))


def mean_state(model: GPT, texts: list[np.ndarray]) -> Tensor:
    """Mean hidden state after each layer, of each position or of all: (layers, positions or 1, width)."""
    # Clones share the position embedding: less one mean for all, equal positions look alike in any model.
    each_position = len(set(map(len, texts))) == 1
    total, many = 0, 0
    for ids in texts:
        states = hidden_states(model, ids).double()
        total = total + (states if each_position else states.sum(1, keepdim=True))
        many += 1 if each_position else states.shape[1]
    return (total / many).float()


# --- the texts ------------------------------------------------------------------------------------


def clone_texts(run: Run, most: int) -> list[Sides]:
    """At most `most` sequences of the held-out text, evenly spread over it, in each clone."""
    stream, length = run.dataset.stream(run.languages[0].source, "test"), run.model.length
    windows = (len(stream) - 1) // length
    if windows < 2:
        raise UserError(f"{run.dataset.folder}: {len(stream)} test tokens are not two sequences of {length}")
    most = min(most, windows)
    texts = []
    for i in range(most):
        ids = stream.read(i * windows // most * length, length + 1)
        texts.append([language.table[ids] for language in run.languages])
    return texts


def aligned_lines(run: Run, paths: dict[str, Path]) -> list[tuple[str, ...]]:
    """The lines of each language's file side by side, in the order of the run's languages."""
    sources = [language.source for language in run.languages]
    if set(paths) != set(sources):
        expected = " ".join(f"{source}=FILE" for source in sources)
        raise UserError(f"{run.out} has real languages, which share no text: expected --parallel {expected}")
    texts = []
    for source in sources:
        try:
            text = paths[source].read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError:
            raise UserError(f"{paths[source]} is not UTF-8 text") from None
        # Only a line feed ends a line: a translation may have other separators where the text has none.
        texts.append([line.strip() for line in text.removesuffix("\n").split("\n")])
    if len(set(map(len, texts))) > 1:
        lengths = " and ".join(str(len(text)) for text in texts)
        raise UserError(f"--parallel: the files have {lengths} lines, expected as many in each")
    return list(zip(*texts, strict=True))


def encode_lines(run: Run, lines: Iterable[tuple[str, ...]]) -> Iterator[list[list[int]]]:
    """The own ids of each line in each language."""
    tokenizers = [run.dataset.tokenizer(language.source) for language in run.languages]
    for line in lines:
        yield [tokenizer.encode(side) for tokenizer, side in zip(tokenizers, line, strict=True)]


def join_lines(lines: Iterable[list[list[int]]], length: int) -> Iterator[list[list[int]]]:
    """Consecutive aligned lines, joined while all sides fit into `length` tokens; longer ones are skipped."""
    held = None
    for line in lines:
        sizes = [len(side) for side in line]
        if max(sizes) > length or min(sizes) == 0:  # Europarl has empty sides
            continue
        joined = [side + more for side, more in zip(held, line, strict=True)] if held else line
        if max(map(len, joined)) > length:
            yield held
            joined = line
        held = joined
    if held:
        yield held


def parallel_texts(run: Run, lines: list[tuple[str, ...]], most: int) -> list[Sides]:
    """The first `most` texts of joined lines whose every side is at least a quarter of a sequence."""
    shortest, length = run.model.length // 4, run.model.length  # the paper's 128 of 512
    joined = join_lines(encode_lines(run, lines), length)
    long_enough = (sides for sides in joined if min(map(len, sides)) >= shortest)
    texts = []
    for sides in islice(long_enough, most):
        texts.append([language.table[ids] for language, ids in zip(run.languages, sides, strict=True)])
    if len(texts) < 2:
        raise UserError(f"--parallel: expected two texts of {shortest} to {length} tokens in each language")
    return texts


# --- what is measured -----------------------------------------------------------------------------


def find_counterparts(dataset: Dataset, one: Language, other: Language) -> tuple[np.ndarray, np.ndarray, int]:
    """Pieces of the same form in two languages: (n,) own ids in each, and how many more are shared."""
    other_forms = surface_forms(dataset.tokenizer(other.source))
    places = {form: place for place, form in enumerate(other_forms)}
    left, right, shared = [], [], 0
    for i, form in enumerate(surface_forms(dataset.tokenizer(one.source))):
        place = places.get(form)
        if i == PAD or place is None:
            continue
        if one.table[i] == other.table[place]:  # one row, equal by construction
            shared += 1
        else:
            left.append(i)
            right.append(place)
    return np.array(left, int), np.array(right, int), shared


def relative_frequency(dataset: Dataset, source: str) -> np.ndarray:
    """Share of each piece in a source's training text: (V,) by own ids."""
    counts = dataset.stream(source, "train").counts()
    return counts / counts.sum()


def compare_rows(rows: Tensor, other_rows: Tensor, pieces: list[str], frequency: np.ndarray) -> dict:
    """Similarity of counterparts, (n, width) in each language, the commonest first, and the key."""
    cosines = (normalise(rows) * normalise(other_rows)).sum(-1).cpu().numpy()
    key = []
    if pieces:
        # Rows of a language lie around a direction that says nothing of the piece: their mean is taken off.
        first, second = rows[:COMMONEST], other_rows[:COMMONEST]
        places = nearest(second - second.mean(0), first - first.mean(0)).tolist()
        key = [{"piece": pieces[i], "nearest": pieces[place]} for i, place in enumerate(places)]
    own = [entry["piece"] == entry["nearest"] for entry in key]
    return {
        "counterparts": estimate(cosines),
        "frequency": by_frequency(frequency, cosines),
        "retrieval@1": float(np.mean(own)) if key else None,
        "chance": 1 / max(1, len(key)),
        "key": key,
    }


@torch.no_grad()
def measure_embeddings(run: Run, matrices: dict[str, Tensor]) -> dict:
    """Cosine of counterparts and of all pairs in each (vocabulary, width) matrix, and the key."""
    known = np.flatnonzero(matrices["input"].any(dim=1).cpu())  # word2vec leaves at 0 what it never read
    sources = {language.source for language in run.languages}
    frequency = {source: relative_frequency(run.dataset, source) for source in sources}
    result = {}
    for one, other in combinations(run.languages, 2):
        left, right, shared = find_counterparts(run.dataset, one, other)
        both = np.isin(one.table[left], known) & np.isin(other.table[right], known)
        left, right = left[both], right[both]
        order = np.argsort(-frequency[other.source][right], kind="stable")
        left, right = left[order], right[order]
        ids, other_ids = one.table[left], other.table[right]
        all_ids = np.intersect1d(one.table[1:], known)  # without padding
        all_other_ids = np.intersect1d(other.table[1:], known)
        forms = surface_forms(run.dataset.tokenizer(other.source))
        pieces = [forms[i] for i in right]
        found = {"shared": shared}
        for name, matrix in matrices.items():
            all_pairs = mean_of_all_pairs(matrix[all_ids], matrix[all_other_ids])
            found[name] = {
                "all_pairs": float(all_pairs),
                **compare_rows(matrix[ids], matrix[other_ids], pieces, frequency[one.source][left]),
            }
        result[f"{one.name}-{other.name}"] = found
    return result


class States(NamedTuple):
    """Hidden states of a text in one language, (layers, S, width), and what they are held against."""

    states: Tensor
    mean: Tensor  # of all texts; of clones at each position
    before: Tensor | None  # states of the text before


def compare_positions(one: States, other: States) -> dict[str, Tensor]:
    """Similarity of two clones of a text after each layer, (layers,) each, and of what does not belong."""
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
    # Partners stand at different positions, which have one mean.
    mean, other_mean = one.mean.mean(1, keepdim=True), other.mean.mean(1, keepdim=True)
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


def in_pairs(run: Run, found: list) -> Iterator[tuple]:
    """What was found in each language, as pairs: their names, what is of the one, and of the other."""
    names = [language.name for language in run.languages]
    for i, j in combinations(range(len(names)), 2):
        yield f"{names[i]}-{names[j]}", found[i], found[j]


def measure_hidden(run: Run, texts: list[Sides], matching: bool = False) -> dict:
    """Similarity after each layer, by position for clones, of matched tokens otherwise; raw and centred."""
    clones = run.config["vocab"] == "cloned"
    means = [mean_state(run.model, side) for side in zip(*texts, strict=True)]
    before = [None] * len(means)
    values = defaultdict(lambda: defaultdict(list))  # by pair and method (layers,) of each text
    for states in look_at(run, texts, hidden_states, "hidden states"):
        sides = [States(*side) for side in zip(states, means, before, strict=True)]
        for pair, one, other in in_pairs(run, sides):
            found = compare_positions(one, other) if clones else {}
            if matching or not clones:
                found |= compare_matched(one, other)
            for method, cosines in found.items():
                values[pair][method].append(cosines.cpu().numpy())
        before = states
    result = defaultdict(dict)
    for pair, methods in values.items():
        for method, rows in methods.items():
            result[pair][method] = [estimate(layer) for layer in np.transpose(rows)]
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
        by_tensor = dict(zip(tensors, map(estimate, cosines.T), strict=True))
        result[pair] = {"blocks": estimate(cosines[:, inside].mean(1)), "tensors": by_tensor}
    return result


def matrices_of(model: GPT) -> dict[str, Tensor]:
    """The embedding matrices, (vocabulary, width) each; a tied model has one."""
    if model.size.tied:
        return {"input": model.token_embedding.weight}
    return {"input": model.token_embedding.weight, "output": model.output_embedding}


def measure_snapshots(run: Run, texts: list[Sides]) -> list[dict]:
    """Centred similarity after each layer, and retrieval@1, in weights that train.py --keep-every kept."""
    paths = [path for path in (run.out / "snapshots").glob("*.pt") if path.stem.isdigit()]
    paths.sort(key=lambda path: int(path.stem))
    if not paths:
        raise UserError(f"{run.out} has no snapshots; train.py --keep-every N makes some")
    method = "positions, centred" if run.config["vocab"] == "cloned" else "matching, centred"
    snapshots = []
    for path in paths:
        snapshot = load_run(run.out, run.model.output_embedding.device, f"snapshots/{path.name}")
        hidden = measure_hidden(snapshot, texts)
        embeddings = measure_embeddings(snapshot, matrices_of(snapshot.model))
        snapshots.append({
            "step": int(path.stem),
            "tokens": int(path.stem) * run.config["batch"] * run.config["length"],
            "hidden": {pair: methods[method] for pair, methods in hidden.items()},
            "key": {pair: matrices["input"]["retrieval@1"] for pair, matrices in embeddings.items()},
        })  # fmt: skip
    return snapshots


def read_result(out: Path) -> dict:
    """A run's result.json."""
    result = read_json(out / "result.json")
    if not isinstance(result.get("alignment", {}), dict):
        raise UserError(f"{out / 'result.json'} is damaged: its alignment is not a JSON object")
    return result


def store(out: Path, part: str, found: dict | list) -> None:
    """Merge what was found into the run's result.json."""
    with exclusive(out, wait=True):
        result = read_result(out)
        holder = result if part == "snapshots" else result.setdefault("alignment", {})
        holder[part] = found
        write(out / "result.json", result)


def measure_run(out: Path, args: argparse.Namespace, device: torch.device, pictures: Path) -> None:
    """Measure what is asked for into the run's result.json, and draw what no result.json holds."""
    run = load_run(out, device)
    if len(run.languages) == 1:
        raise UserError(f"{out} is monolingual, there is nothing to compare")
    most = args.sequences or (100 if args.only == ["snapshots"] else 500)
    reads = set(args.only) - {"embeddings"}
    texts = []
    if run.config["vocab"] == "cloned":
        texts = clone_texts(run, most) if reads else []
    elif reads or args.parallel:
        lines = aligned_lines(run, dict(args.parallel))
        texts = parallel_texts(run, lines, most) if reads else []
        draw_matching(run, lines, pictures / "alignment-matching.png")
    measures = {
        "embeddings": lambda: measure_embeddings(run, matrices_of(run.model)),
        "hidden": lambda: measure_hidden(run, texts, args.matching),
        "gradients": lambda: measure_gradients(run, texts),
        "snapshots": lambda: measure_snapshots(run, texts),
    }
    for part in args.only:
        found = measures[part]()
        store(out, part, found)
        if part == "snapshots":
            draw_snapshots(out, found, pictures / "snapshots.png")


# --- what is printed ------------------------------------------------------------------------------


def pairs_of(results: Results, part: str) -> list[tuple[str, dict, dict]]:
    """(run and pair of languages, result, what was found) of all that have the part."""
    return [
        (f"{name} {pair}", result, found)
        for name, result in results.items()
        for pair, found in result.get("alignment", {}).get(part, {}).items()
    ]


def with_error(found: dict | None) -> str:
    """A mean and its standard error."""
    if found is None:
        return "-"
    error = found["standard_error"]
    return f"{found['mean']:.3f}" + (f" ± {error:.3f}" if error is not None else "")


def embeddings_table(results: Results) -> str:
    """A row for each embedding matrix of each pair; ± is a standard error over tokens."""
    head = ["run", "counterparts", "tokens", "all pairs", "shared", "retrieval@1", "chance"]
    rows = []
    for pair, _, found in pairs_of(results, "embeddings"):
        for name in MATRICES:
            if name in found:
                matrix = found[name]
                same = matrix["counterparts"]
                row = [f"{pair}, {name}", with_error(same), str(same["count"] if same else 0)]
                row += [f"{matrix['all_pairs']:.3f}", str(found["shared"])]
                for share in (matrix.get("retrieval@1"), matrix.get("chance")):
                    row.append("-" if share is None else f"{share:.0%}")  # older runs have none
                rows.append(row)
    return f"\nCosine of embeddings\n\n{markdown(head, rows)}" if rows else ""


def layers_table(results: Results) -> str:
    """A row for each method and pair; ± is a standard error over sequences."""
    rows = []
    for pair, _, found in pairs_of(results, "hidden"):
        for method, layers in found.items():
            rows.append([f"{pair}, {method}", str(layers[0]["count"]), *map(with_error, layers)])
    longest = max((len(row) for row in rows), default=2)
    head = ["run", "sequences"] + [f"layer {i + 1}" for i in range(longest - 2)]
    rows = [row + [""] * (longest - len(row)) for row in rows]  # of models of less depth
    return f"\nCosine of hidden states\n\n{markdown(head, rows)}" if rows else ""


def gradients_table(results: Results) -> str:
    """A row for each pair: the macro average over the tensors inside the blocks."""
    rows = []
    for pair, _, found in pairs_of(results, "gradients"):
        rows.append([pair, str(found["blocks"]["count"]), with_error(found["blocks"])])
    return f"\nCosine of gradients\n\n{markdown(['run', 'sequences', 'blocks'], rows)}" if rows else ""


def keys(results: Results) -> str:
    """The key of each pair: pieces of L2, below each its nearest of L1, and a mark where that is another."""
    text = ""
    for pair, _, found in pairs_of(results, "embeddings"):
        key = found["input"].get("key")
        if not key:
            continue
        one, other = pair.split()[-1].split("-")
        width = 2 + max(len(piece) for entry in key for piece in entry.values())
        lines = {other: "", one: "", "wrong": ""}
        for entry in key:
            lines[other] += entry["piece"].replace("\n", "\\n").ljust(width)
            lines[one] += entry["nearest"].replace("\n", "\\n").ljust(width)
            mark = " " if entry["piece"] == entry["nearest"] else "^"
            lines["wrong"] += mark.ljust(width)
        right = len(key) - lines["wrong"].count("^")
        text += f"\nThe key of {pair}: {right} of the {len(key)} commonest pieces are nearest to their own\n"
        step = max(1, 80 // width) * width
        for begin in range(0, len(key) * width, step):
            for name, line in lines.items():
                part = line[begin : begin + step].rstrip()
                if part:
                    text += f"  {name:6}{part}\n"
    return text


# --- what is drawn --------------------------------------------------------------------------------


def finish(axis, **labels) -> None:
    """Labels, no frame on the right and above, and a legend if its lines can be told apart."""
    axis.set(**labels)
    axis.spines[["top", "right"]].set_visible(False)
    if 0 < len(axis.get_legend_handles_labels()[1]) <= 12:
        axis.legend(frameon=False, fontsize="small")


def plot(axis, places: Sequence[float], estimates: list[dict], style: str, **look) -> None:
    """A line of means; bars are 95% intervals."""
    means, bars = [], []
    for found in estimates:
        means.append(found["mean"])
        bars.append(1.96 * (found["standard_error"] or 0))
    axis.errorbar(places, means, bars, fmt=style, markersize=5, elinewidth=1, **look)


def draw_embeddings(results: Results, axes: np.ndarray, part="embeddings", model="GPT", color="C0") -> None:
    """Figure 6: counterparts and all pairs, by the share of L2."""
    pairs = [(share_of_second(pair, result), found) for pair, result, found in pairs_of(results, part)]
    pairs.sort(key=lambda pair: pair[0])
    for axis, name in zip(axes, MATRICES, strict=True):
        shares, counterparts, all_pairs = [], [], []
        for share, found in pairs:
            if name in found and found[name]["counterparts"]:
                shares.append(share)
                counterparts.append(found[name]["counterparts"])
                all_pairs.append(found[name]["all_pairs"])
        plot(axis, shares, counterparts, "o-", color=color, label=f"{model}, counterparts")
        axis.plot(shares, all_pairs, "x:", color=color, label=f"{model}, all pairs")
        axis.set_visible(bool(shares))
        finish(axis, title=f"{name} embedding", xlabel="p(L2) in %", ylabel="cosine")


def share_of_second(pair: str, result: dict) -> float:
    """Share of a pair's second language in the tokens of a run, in percent."""
    names = [language["name"] for language in result["languages"]]
    second = names.index(pair.rpartition("-")[2])
    return 100 * np.mean([stage[second] for stage in result["stages"]])


def draw_frequency(results: Results, axes: np.ndarray) -> None:
    """Figure 7: counterparts by training frequency, a line for each run and pair."""
    for axis, name in zip(axes, MATRICES, strict=True):
        for i, (pair, _, found) in enumerate(pairs_of(results, "embeddings")):
            if name in found:
                bins = found[name]["frequency"]
                plot(axis, [entry["frequency"] for entry in bins], bins, "o-", color=f"C{i}", label=pair)
        axis.set_visible(axis.has_data())
        finish(axis, title=f"{name} embedding", xlabel="share of the text", ylabel="cosine", xscale="log")


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


def draw_layers(results: Results, axes: np.ndarray) -> None:
    """Tables 2 and 4 as lines: raw beside what unrelated text gives, centred, and retrieval@1."""
    for i, (pair, _, found) in enumerate(pairs_of(results, "hidden")):
        for method, (panel, style) in LAYERS.items():
            layers = found.get(method, [])
            plot(axes[panel], range(1, len(layers) + 1), layers, style, color=f"C{i}")
        axes[1].plot([], [], color=f"C{i}", label=pair)  # a legend for all panels
    finish(axes[0], title="Hidden states", ylabel="cosine; dotted: unrelated text")
    finish(axes[1], title="Hidden states, centred", ylabel="cosine; dashed: matched tokens")
    finish(axes[2], title="Nearest is its own", ylabel="share; dotted: text before")
    for axis in axes:
        axis.set_xlabel("layer")
        axis.xaxis.get_major_locator().set_params(integer=True)


def draw_gradients(results: Results, axes: np.ndarray) -> None:
    """Figures 11 to 13: tensors by layers, a heat map for each run and pair as far as there are axes."""
    for axis, (pair, _, found) in zip(axes, pairs_of(results, "gradients"), strict=False):
        kinds, cosines = heat_map(found)
        picture = axis.imshow(cosines, vmin=-0.2, vmax=1, aspect="auto")
        axis.set(xlabel="layer", title=f"{pair}\nmean {found['blocks']['mean']:.2f}", yticks=[])
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.xaxis.set_major_formatter(lambda layer, _: f"{layer + 1:.0f}")
    axes[0].set_yticks(range(len(kinds)), kinds)
    figure = axes[0].figure
    figure.set_figwidth(4 + 2.2 * len(axes))
    figure.colorbar(picture, ax=list(axes), label="cosine of gradients")


def heat_map(found: dict) -> tuple[list[str], np.ndarray]:
    """The tensors inside the blocks: the names of a block's, and (kinds, layers) mean cosines."""
    kinds = defaultdict(list)
    for name, tensor in found["tensors"].items():
        if name.startswith("blocks."):
            _, _, kind = name.split(".", 2)
            kinds[kind].append(tensor["mean"])
    return list(kinds), np.array(list(kinds.values()))


PICTURES = {  # function, part of the results, panels
    "embeddings": (draw_embeddings, "embeddings", 2),
    "frequency": (draw_frequency, "embeddings", 2),
    "layers": (draw_layers, "hidden", 3),
    "gradients": (draw_gradients, "gradients", 8),  # at most: one for each run and pair
}


def draw_all(results: Results, folder: Path) -> None:
    """Every picture for which there is something, to alignment-*.png in a folder."""
    for name, (draw, part, panels) in PICTURES.items():
        pairs = pairs_of(results, part)
        if pairs:
            columns = min(panels, len(pairs)) if name == "gradients" else panels
            figure = Figure(figsize=(2 + 3.6 * columns, 4.2), layout="constrained")
            draw(results, figure.subplots(1, columns, squeeze=False)[0])
            write(folder / f"alignment-{name}.png", figure)


def draw_losses(runs: list[Path], axis) -> None:
    """Training loss of each language by tokens, as 60 means; dots are losses on held-out text."""
    for out in runs:
        trained, held_out = defaultdict(list), defaultdict(list)
        try:
            for line in read_metrics(out):
                for name, loss in line["loss"].items():
                    trained[name].append((line["tokens"], loss))
                for name, loss in line.get("held_out", {}).items():
                    held_out[name].append((line["tokens"], loss))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError(f"{out / 'metrics.jsonl'} is damaged, or not of train.py") from None
        if not trained:
            raise UserError(f"{out / 'metrics.jsonl'} has no losses yet")
        for name, points in trained.items():
            parts = np.array_split(points, min(60, len(points)))  # a batch more or less easy is no news
            means = np.array([part.mean(axis=0) for part in parts])
            (curve,) = axis.plot(*means.T, label=shown(f"{out.name} {name}"))
            for tokens, loss in held_out[name]:
                axis.plot(tokens, loss, ".", color=curve.get_color())
    axis.xaxis.set_major_formatter(lambda tokens, _: count(tokens))
    finish(axis, xlabel="training tokens", ylabel="loss in nats; dots: held-out text")


def draw_snapshots(out: Path, snapshots: list[dict], path: Path) -> None:
    """Losses; below them centred hidden states by layer and the key, mean over the pairs of languages."""
    figure = Figure(figsize=(7, 7), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    draw_losses([out], above)
    tokens = [snapshot["tokens"] for snapshot in snapshots]
    cosines, key = [], []
    for snapshot in snapshots:
        pairs = [[layer["mean"] for layer in layers] for layers in snapshot["hidden"].values()]
        cosines.append(np.mean(pairs, axis=0))  # (layers,)
        key.append(np.mean([share or 0 for share in snapshot["key"].values()]))
    for i, layer in enumerate(np.transpose(cosines)):
        color = colormaps["viridis"](0.9 * i / len(cosines[0]))
        below.plot(tokens, layer, ".-", color=color, label=f"layer {i + 1}")
    below.plot(tokens, key, "k--", label="retrieval@1 of embeddings")
    finish(below, xlabel="training tokens", ylabel="centred cosine of hidden states; key found")
    above.label_outer()
    write(path, figure)


def draw_matching(run: Run, lines: list[tuple[str, ...]], path: Path) -> None:
    """Figure 14: tokens of the first line of suitable length in two languages; lines join those matched."""
    most = min(24, run.model.length)
    for sentence in encode_lines(run, lines):
        sizes = [len(side) for side in sentence]
        if min(sizes) >= 5 and max(sizes) <= most:
            break
    else:
        print(f"{path} is not drawn: no line has 5 to {most} tokens in each language")
        return
    figure = Figure(figsize=(max(6, 0.6 * max(sizes)), 3.4), layout="constrained")
    axis = figure.subplots()
    states = []
    for language, ids, height in zip(run.languages, sentence, (1, 0), strict=False):
        states.append(hidden_states(run.model, language.table[ids]))
        forms = surface_forms(run.dataset.tokenizer(language.source))
        anchor = "bottom" if height else "top"
        for x, i in enumerate(ids):
            axis.text(x, height, f" {forms[i]} ", rotation=90, ha="center", va=anchor, parse_math=False)
    similarity = mean_similarity(*states)
    for row, column in zip(*match(similarity), strict=True):
        alpha = similarity[row, column].clip(0.1, 1)
        axis.plot([row, column], [1, 0], color="C0", alpha=alpha)
    axis.set(ylim=(-0.9, 1.9), xticks=[], yticks=[1, 0])
    axis.set_yticklabels([language.name for language in run.languages[:2]])
    axis.spines[:].set_visible(False)
    write(path, figure)


def main(arguments: list[str] | None = None) -> None:
    """Measure each run that the command line names, then print and draw what is known of them."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="out/NAME", help="folders of finished runs")
    add("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    add("--out", type=Path, help="folder of the pictures; default: that of the run, or of all runs")
    add("--only", nargs="*", choices=PARTS, default=PARTS, help="some of the measures, or none; default: all")
    add("--parallel", nargs="+", type=named_path, default=[], metavar="LANG=FILE", help="aligned lines")
    add("--sequences", type=number(int, 2), metavar="N", help="texts; default: 500, with --snapshots 100")
    add("--matching", action="store_true", help="match the tokens of clones, too")
    add("--snapshots", action="store_const", dest="only", const=["snapshots"], help="weights of --keep-every")
    add("--losses", action="store_true", help="draw the losses, losses.png, and do nothing else")
    args = parser.parse_args(arguments)
    several = len(args.runs) > 1
    folder = args.out or (args.runs[0].parent if several else args.runs[0])
    if args.losses:
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        draw_losses(args.runs, figure.subplots())
        return write(folder / "losses.png", figure)
    device = Process.current(args.device).device
    for out in args.runs:
        require_finished(out)  # all of them, before the first is measured
    for out in args.runs:
        measure_run(out, args, device, out if several else folder)
    parent = os.path.commonpath([out.resolve().parent for out in args.runs])
    results = {os.path.relpath(out, parent): read_result(out) for out in args.runs}
    print(embeddings_table(results) + layers_table(results) + gradients_table(results) + keys(results))
    draw_all(results, folder)


if __name__ == "__main__":
    run_script(main)
