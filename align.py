"""What happens inside a model: does it use the same machinery for each language? (The paper's section 2.)

    python align.py out/NAME                                # a run of clones
    python align.py out/NAME --matching                     # the paper's control: their tokens matched, too
    python align.py out/NAME --parallel en=FILE fr=FILE     # real languages: files of aligned lines
    python align.py out/A out/B --out out/compared          # both, and their pictures side by side
    python align.py out/NAME --snapshots                    # hidden states during a run with --keep-every
    python align.py out/A out/B --losses                    # only draw the losses of training

For every pair of languages it measures, prints, draws, and merges into result.json as "alignment",

  embeddings   cosine of each token and its counterpart (its clone, or the same piece in another real
               language) against that of all pairs of tokens, in the input and the output embedding, which are
               one matrix in a tied model, and by training frequency (Figures 6, 7); the key: for each of the
               commonest pieces of L2 the nearest of those of L1; retrieval@1, how often that is its own
  hidden       cosine of hidden states after each layer: of equal positions for clones, of matched tokens for
               real languages and with --matching (Tables 2 and 4, Figure 14); "shuffled" of different
               positions, large where all states share one direction; "centred" without each language's mean.
               For clones also retrieval@1 of centred states: how often the nearest of the other clone's
               stands at the same position, in the same text and, as a control, in the text before
  gradients    cosine of the gradients of one sequence's mean loss in each language, for each parameter
               tensor; "blocks" is the macro average over those inside the blocks (Figures 11 to 13)

Clones read the run's held-out text, real languages the parallel text. Arithmetic is float32.
"""

import argparse
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations, islice, zip_longest
from pathlib import Path

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
RETRIEVAL = ("retrieval@1", "chance")
COMMONEST = 60  # pieces of the key; rarer characters are hardly learned
Sides = list[np.ndarray]  # one text in each language of a run, (n,) joint ids
Results = dict[str, dict]  # result.json of each run, by the run's name


# --- similarity -----------------------------------------------------------------------------------


def estimate(values: np.ndarray) -> dict | None:
    """Mean of (n,) independent values, its standard error (None of one value), and n; None of none."""
    if not len(values):
        return None
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return {"mean": float(values.mean()), "standard_error": error, "count": len(values)}


def normalise(vectors: Tensor) -> Tensor:
    """Vectors of length 1 in the same directions; a vector of zeros stays one, and is similar to nothing."""
    return F.normalize(vectors.float(), dim=-1, eps=1e-30)


def cosine(one: Tensor, other: Tensor) -> float:
    """Cosine of two tensors of equal shape, each read as one long vector."""
    # Each is scaled by its largest entry first: squares of small gradients are 0 in float32.
    one, other = (part.flatten().float() / part.abs().max().float().clamp(min=1e-30) for part in (one, other))
    return float(one @ other / (one.norm() * other.norm()).clamp(min=1e-30))


def mean_of_all_pairs(one: Tensor, other: Tensor) -> Tensor:
    """Mean cosine of all pairs of rows of (..., n, width) and (..., m, width): a product of two means."""
    return (normalise(one).double().mean(-2) * normalise(other).double().mean(-2)).sum(-1)


def by_frequency(shares: np.ndarray, cosines: np.ndarray) -> list[dict]:
    """Mean of (n,) cosines in half decades of (n,) shares of the training text, each with its middle."""
    seen = shares > 0  # the logarithm needs it
    # Powers of ten open a bin, whatever their logarithm is rounded to.
    half_decades = np.floor(2 * np.log10(shares[seen]) + 1e-9)
    return [
        {"frequency": 10 ** ((place + 0.5) / 2), **estimate(cosines[seen][half_decades == place])}
        for place in np.unique(half_decades).tolist()
    ]


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
    return (normalise(one) @ normalise(other).mT).mean(0).cpu().numpy()


def nearest(vectors: Tensor, others: Tensor) -> Tensor:
    """Which of the (..., m, width) others has the highest cosine with each of (..., n, width): (..., n)."""
    return (normalise(vectors) @ normalise(others).mT).argmax(-1)


def retrieval(one: Tensor, other: Tensor) -> Tensor:
    """How often the nearest row of `one` to a row of `other` has the same place: (..., n, width) -> (...)."""
    found = nearest(other, one)
    return (found == torch.arange(found.shape[-1], device=found.device)).double().mean(-1)


def matched(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """The states of two texts that are partners, in step; the matching is one for all layers."""
    rows, columns = match(mean_similarity(one, other))
    return one[:, rows], other[:, columns]


def by_position(one: Tensor, other: Tensor) -> Tensor:
    """Mean cosine of equal positions after each layer: (layers, S, width) twice -> (layers,) float64."""
    return (normalise(one) * normalise(other)).sum(-1).mean(1).double()


def shuffled(one: Tensor, other: Tensor) -> Tensor:
    """Mean cosine of each position with the other positions of the other text: what any shuffle expects."""
    n = min(one.shape[1], other.shape[1])
    one, other = one[:, :n], other[:, :n]
    return (n * mean_of_all_pairs(one, other) - by_position(one, other)) / max(1, n - 1)


# --- what a model makes of a sequence -------------------------------------------------------------


def as_batch(model: GPT, ids: np.ndarray) -> Tensor:
    """A sequence of joint ids as a batch of one."""
    return torch.from_numpy(ids.astype(np.int64))[None].to(model.output_embedding.device)


@torch.no_grad()
def hidden_states(model: GPT, ids: np.ndarray) -> Tensor:
    """Hidden states after each block: (S,) joint ids -> (layers, S, width)."""
    ids = ids[: model.length]  # a sequence's last token is only predicted: training does not read it either
    states = []
    hooks = [block.register_forward_hook(lambda *call: states.append(call[-1][0])) for block in model.blocks]
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
    every = (hidden_states(model, ids).double() for ids in texts)
    # Clones share the position embedding: less one mean for all, equal positions look alike in any model.
    if len(set(map(len, texts))) == 1:
        return (sum(every) / len(texts)).float()
    positions = sum(len(ids[: model.length]) for ids in texts)
    return (sum(states.sum(1, keepdim=True) for states in every) / positions).float()


# --- the texts ------------------------------------------------------------------------------------


def clone_texts(run: Run, most: int) -> list[Sides]:
    """At most `most` sequences of the held-out text, evenly spread over it, in each clone."""
    stream, length = run.dataset.stream(run.languages[0].source, "test"), run.model.length
    windows = (len(stream) - 1) // length
    if windows < 1:
        raise UserError(f"{run.dataset.folder}: {len(stream)} test tokens are no sequence of {length}")
    most = min(most, windows)
    texts = [stream.read(i * windows // most * length, length + 1) for i in range(most)]
    return [[language.table[ids] for language in run.languages] for ids in texts]


def aligned_lines(run: Run, paths: dict[str, Path]) -> list[tuple[str, ...]]:
    """The lines of each language's file side by side, in the order of the run's languages."""
    sources, texts = [language.source for language in run.languages], []
    if set(paths) != set(sources):
        expected = " ".join(f"{source}=FILE" for source in sources)
        raise UserError(f"{run.out} has real languages, which share no text: expected --parallel {expected}")
    for source in sources:
        try:
            # Only a line feed ends a line: a translation may have other separators where the text has none.
            with open(paths[source], encoding="utf-8-sig", newline="\n") as file:
                texts.append([line.strip() for line in file])
        except UnicodeDecodeError:
            raise UserError(f"{paths[source]} is not UTF-8 text") from None
    if len(set(map(len, texts))) > 1:
        lengths = " and ".join(str(len(text)) for text in texts)
        raise UserError(f"--parallel: the files have {lengths} lines, expected as many in each")
    return list(zip(*texts, strict=True))


def encode_lines(run: Run, lines: Iterable[tuple[str, ...]]) -> Iterator[list[list[int]]]:
    """The own ids of each line in each language."""
    tokenizers = [run.dataset.tokenizer(language.source) for language in run.languages]
    for sides in lines:
        yield [tokenizer.encode(side) for tokenizer, side in zip(tokenizers, sides, strict=True)]


def join_lines(lines: Iterable[list[list[int]]], length: int) -> Iterator[list[list[int]]]:
    """Consecutive aligned lines, joined while all sides fit into `length` tokens; longer ones are skipped."""
    held = None
    for line in lines:
        if max(map(len, line)) > length or min(map(len, line)) == 0:  # Europarl has empty sides
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
    texts = list(islice((sides for sides in joined if min(map(len, sides)) >= shortest), most))
    if not texts:
        raise UserError(f"--parallel: no text of {shortest} to {length} tokens in each language is there")
    tables = [language.table for language in run.languages]
    return [[table[ids] for table, ids in zip(tables, sides, strict=True)] for sides in texts]


def choose_sentence(run: Run, lines: list[tuple[str, ...]], line: int | None) -> list[list[int]] | None:
    """Own ids of the line that is drawn, in each language: number `line`, or the first of suitable length."""
    if line is None:
        sentences = encode_lines(run, lines)
        return next((sides for sides in sentences if all(5 <= len(side) <= 24 for side in sides)), None)
    if line > len(lines) or not all(lines[line - 1]):
        raise UserError(f"--line {line}: the files have {len(lines)} lines, expected one with text in each")
    return next(encode_lines(run, [lines[line - 1]]))


# --- what is measured -----------------------------------------------------------------------------


def find_counterparts(dataset: Dataset, one: Language, other: Language) -> tuple[np.ndarray, np.ndarray, int]:
    """Pieces of the same form in two languages: (n,) own ids in each, and how many more are shared."""
    forms, other_forms = (surface_forms(dataset.tokenizer(language.source)) for language in (one, other))
    places = {form: place for place, form in enumerate(other_forms)}
    left = np.array([i for i, form in enumerate(forms) if i != PAD and form in places], np.int64)
    right = np.array([places[forms[i]] for i in left], np.int64)
    apart = one.table[left] != other.table[right]  # what shares a joint id is equal by construction
    return left[apart], right[apart], int((~apart).sum())


def relative_frequency(dataset: Dataset, source: str) -> np.ndarray:
    """Share of each piece in a source's training text: (V,) by own ids."""
    shards = dataset.stream(source, "train").shards  # one by one: counting takes four times a shard's memory
    counts = sum(np.bincount(shard, minlength=dataset.languages[source]["vocab_size"]) for shard in shards)
    return counts / counts.sum()


def find_key(one: Tensor, other: Tensor, pieces: list[str]) -> list[dict]:
    """Each of n pieces in L2, and the piece whose row in L1 is nearest to its; rows are (n, width) each.

    The rows of a language lie around a direction that says nothing of the piece: their mean is taken off.
    """
    if not pieces:
        return []
    places = nearest(other - other.mean(0), one - one.mean(0)).tolist()
    return [{"piece": piece, "nearest": pieces[place]} for piece, place in zip(pieces, places, strict=True)]


@torch.no_grad()
def measure_embeddings(
    dataset: Dataset, languages: list[Language], matrices: dict[str, Tensor], known: np.ndarray
) -> dict:
    """Cosine of counterparts and of all pairs in each (J, width) matrix, of its `known` rows, (J,) bool."""
    sources = {language.source for language in languages}
    frequencies = {source: relative_frequency(dataset, source) for source in sources}
    result = {}
    for one, other in combinations(languages, 2):
        left, right, shared = find_counterparts(dataset, one, other)
        both = known[one.table[left]] & known[other.table[right]]
        left, right = left[both], right[both]
        everything = [language.table[1:][known[language.table[1:]]] for language in (one, other)]
        commonest = np.argsort(-frequencies[other.source][right], kind="stable")[:COMMONEST]
        forms = surface_forms(dataset.tokenizer(other.source))
        pieces = [forms[i] for i in right[commonest]]
        found = {"shared": shared}
        for name, matrix in matrices.items():
            sides = (language.table[ids[commonest]] for language, ids in ((one, left), (other, right)))
            key = find_key(*(matrix[ids] for ids in sides), pieces)
            products = normalise(matrix[one.table[left]]) * normalise(matrix[other.table[right]])
            cosines = products.sum(-1).cpu().numpy()
            found[name] = {
                "counterparts": estimate(cosines),
                "all_pairs": float(mean_of_all_pairs(*(matrix[ids] for ids in everything))),
                "frequency": by_frequency(frequencies[one.source][left], cosines),
                "retrieval@1": float(np.mean([e["piece"] == e["nearest"] for e in key])) if key else None,
                "chance": 1 / max(1, len(key)),
                "key": key,
            }
        result[f"{one.name}-{other.name}"] = found
    return result


def look_at(run: Run, texts: list[Sides], look: Callable, label: str) -> Iterator[list]:
    """What `look` finds in each side of a text, for each text."""
    progress = Progress(f"{run.out.name}: {label}", len(texts), "sequences")
    for done, sides in enumerate(texts, 1):
        yield [look(run.model, ids) for ids in sides]
        progress.update(done)


def measure_hidden(run: Run, texts: list[Sides], matching: bool) -> dict:
    """Similarity after each layer, by position for clones, of matched tokens otherwise; raw and centred."""
    methods = {"positions": lambda *states: states} if run.config["vocab"] == "cloned" else {}
    if matching or not methods:
        methods["matching"] = matched
    means = [mean_state(run.model, list(side)) for side in zip(*texts, strict=True)]
    values = defaultdict(lambda: defaultdict(list))
    before, former = {}, {}  # states of the text before, centred and not, by pair
    for found in look_at(run, texts, hidden_states, "hidden states"):
        sides = zip(run.languages, found, means, strict=True)
        for (one, states, mean), (other, other_states, other_mean) in combinations(sides, 2):
            pair = f"{one.name}-{other.name}"
            cosines = values[pair]
            for name, partners in methods.items():
                left, right = partners(states, other_states)
                cosines[name].append(by_position(left, right))
                if len(texts) > 1:  # one text is its own mean
                    # Matched partners stand at different positions, which have one mean.
                    means_of = [
                        m if name == "positions" else m.mean(1, keepdim=True) for m in (mean, other_mean)
                    ]
                    cosines[f"{name}, centred"].append(by_position(left - means_of[0], right - means_of[1]))
            cosines["shuffled"].append(shuffled(states, other_states))
            if (
                "matching" in methods and pair in former
            ):  # what matching finds between texts that are strangers
                cosines["matching, another text"].append(by_position(*matched(former[pair], other_states)))
            former[pair] = states
            if "positions" in methods:
                centred, other_centred = states - mean, other_states - other_mean
                cosines["retrieval@1"].append(retrieval(centred, other_centred))
                if pair in before:
                    cosines["retrieval@1, shuffled"].append(retrieval(before[pair], other_centred))
                before[pair] = centred
    return {
        pair: {name: list(map(estimate, torch.stack(rows).T.cpu().numpy())) for name, rows in cosines.items()}
        for pair, cosines in values.items()
    }


def measure_gradients(run: Run, texts: list[Sides]) -> dict:
    """Similarity by parameter tensor, and the macro average over those inside the blocks."""
    tensors = [name for name, _ in run.model.named_parameters()]
    inside = np.array([name.startswith("blocks.") for name in tensors])
    values, result = defaultdict(list), {}
    for found in look_at(run, texts, gradients, "gradients"):
        for (one, left), (other, right) in combinations(zip(run.languages, found, strict=True), 2):
            values[f"{one.name}-{other.name}"].append(list(map(cosine, left, right)))
    for pair, rows in values.items():
        cosines = np.array(rows)  # (texts, tensors)
        by_tensor = {name: estimate(column) for name, column in zip(tensors, cosines.T, strict=True)}
        result[pair] = {"blocks": estimate(cosines[:, inside].mean(1)), "tensors": by_tensor}
    return result


def measure_snapshots(run: Run, texts: list[Sides]) -> list[dict]:
    """Centred similarity after each layer, and retrieval@1, in weights that train.py --keep-every kept."""
    paths = sorted((run.out / "snapshots").glob("*.pt"), key=lambda path: int(path.stem))
    if not paths:
        raise UserError(f"{run.out} has no snapshots; train.py --keep-every N makes some")
    method, snapshots = "positions" if run.config["vocab"] == "cloned" else "matching", []
    for path in paths:
        snapshot = load_run(run.out, run.model.output_embedding.device, f"snapshots/{path.name}")
        found = measure_hidden(snapshot, texts, matching=False)
        hidden = {pair: methods[f"{method}, centred"] for pair, methods in found.items()}
        known = np.ones(run.model.vocabulary, bool)
        found = measure_embeddings(run.dataset, run.languages, matrices_of(snapshot.model), known)
        key = {pair: matrices["input"]["retrieval@1"] for pair, matrices in found.items()}
        tokens = int(path.stem) * run.config["batch"] * run.config["length"]
        snapshots.append({"step": int(path.stem), "tokens": tokens, "hidden": hidden, "key": key})
    draw_training([run.out], run.out / "snapshots.png", snapshots)
    return snapshots


def matrices_of(model: GPT) -> dict[str, Tensor]:
    """The embedding matrices, (vocabulary, width) each; a tied model has one."""
    matrices = {"input": model.token_embedding.weight}
    if not model.size.tied:
        matrices["output"] = model.output_embedding
    return matrices


def measure_run(out: Path, args: argparse.Namespace, device: torch.device) -> None:
    """Measure what is asked for into the run's result.json, and draw one matching of real languages."""
    run, texts = load_run(out, device), []
    if len(run.languages) == 1:
        raise UserError(f"{out} is monolingual, there is nothing to compare")
    most = args.sequences or (100 if args.only == ["snapshots"] else 500)
    if run.config["vocab"] == "cloned":
        if args.parallel or args.line:
            raise UserError(
                f"{out} has clones, which read one text; --parallel and --line are for real languages"
            )
        texts = clone_texts(run, most)
    elif args.parallel or set(args.only) - {"embeddings"}:
        lines = aligned_lines(run, dict(args.parallel))
        texts = parallel_texts(run, lines, most)
        if sentence := choose_sentence(run, lines, args.line):
            draw_matching(run, sentence)
    matrices = matrices_of(run.model)
    known = np.ones(run.model.vocabulary, bool)
    measures = {
        "embeddings": lambda: measure_embeddings(run.dataset, run.languages, matrices, known),
        "hidden": lambda: measure_hidden(run, texts, args.matching),
        "gradients": lambda: measure_gradients(run, texts),
        "snapshots": lambda: measure_snapshots(run, texts),
    }
    for part in args.only:
        found = measures[part]()
        with exclusive(out, wait=True):
            result = read_json(out / "result.json")
            (result if part == "snapshots" else result.setdefault("alignment", {}))[part] = found
            write(out / "result.json", result)


# --- what is printed and drawn --------------------------------------------------------------------


def measured(found: dict) -> list[str]:
    """Those of MATRICES that were measured."""
    return [matrix for matrix in MATRICES if matrix in found]


def percent(share: float | None) -> str:
    """0.123 -> '12%'; what an older run lacks is '-'."""
    return "-" if share is None else f"{share:.0%}"


def pairs_of(results: Results, part: str) -> list[tuple[str, dict, dict]]:
    """(run and pair of languages, result, what was found) of all that have the part."""
    return [
        (shown(f"{name} {pair}"), result, found)
        for name, result in results.items()
        for pair, found in result.get("alignment", {}).get(part, {}).items()
    ]


def with_error(found: dict | None) -> str:
    """A mean and its standard error."""
    if found is None:
        return "-"
    error = found["standard_error"]
    return f"{found['mean']:.3f}" + (f" ± {error:.3f}" if error is not None else "")


def heat_map(found: dict) -> tuple[list[str], np.ndarray]:
    """The tensors inside the blocks: the names of a block's, and (kinds, layers) mean cosines."""
    kinds = defaultdict(list)
    for name, tensor in found["tensors"].items():
        if name.startswith("blocks."):
            kinds[name.split(".", 2)[2]].append(tensor["mean"])
    return list(kinds), np.array(list(kinds.values()))


def tables(results: Results) -> str:
    """Everything as Markdown; ± is a standard error over tokens (embeddings) or sequences."""
    rows = {
        "embeddings": [["run", "counterparts", "tokens", "all pairs", "shared", "retrieval@1", "chance"]],
        "hidden states": [["run", "sequences"]],
        "gradients": [["run", "sequences", "blocks"]],
    }
    for pair, _, found in pairs_of(results, "embeddings"):
        for matrix in measured(found):
            same, everything = found[matrix]["counterparts"], found[matrix]["all_pairs"]
            cells = [with_error(same), str(same["count"] if same else 0), f"{everything:.3f}"]
            cells += [str(found["shared"]), *(percent(found[matrix].get(name)) for name in RETRIEVAL)]
            rows["embeddings"].append([f"{pair}, {matrix}", *cells])
    for pair, _, found in pairs_of(results, "hidden"):
        for method, layers in found.items():
            count = str(layers[0]["count"])
            rows["hidden states"].append([f"{pair}, {method}", count, *map(with_error, layers)])
    for pair, _, found in pairs_of(results, "gradients"):
        blocks, by_layer = found["blocks"], [f"{mean:.3f}" for mean in heat_map(found)[1].mean(0)]
        rows["gradients"].append([pair, str(blocks["count"]), with_error(blocks), *by_layer])

    text = []
    for title, (head, *body) in rows.items():
        if body:
            columns = list(zip_longest(*body, fillvalue=""))  # models of less depth leave cells empty
            head += [f"layer {i}" for i in range(1, len(columns) - len(head) + 1)]
            text.append(f"Cosine of {title}\n\n{markdown(head, list(zip(*columns, strict=True)))}")
    return "\n".join(text)


def keys(results: Results) -> str:
    """The key of each run and pair."""
    text = ""
    for pair, _, found in pairs_of(results, "embeddings"):
        if key := found["input"].get("key"):
            right = sum(entry["piece"] == entry["nearest"] for entry in key)
            text += (
                f"\nThe key of {pair}: {right} of the {len(key)} commonest pieces are nearest to their own\n"
            )
            text += key_as_text(key, *pair.rpartition(" ")[2].split("-"))
    return text


def key_as_text(key: list[dict], one: str, other: str) -> str:
    """The pieces of L2, below each its nearest of L1, and a mark where that is another piece."""
    rows = {
        other: [printable(entry["piece"]) for entry in key],
        one: [printable(entry["nearest"]) for entry in key],
        "wrong": ["^" if entry["piece"] != entry["nearest"] else "" for entry in key],
    }
    width = 1 + max(len(piece) for row in rows.values() for piece in row)
    columns, text = max(1, 80 // width), ""
    for first in range(0, len(key), columns):
        for name, row in rows.items():
            line = "".join(piece.ljust(width) for piece in row[first : first + columns])
            text += f"  {name:6}{line}".rstrip() + "\n" if line.strip() else ""
    return text


def printable(piece: str) -> str:
    """A piece as it can stand in a table."""
    return piece.replace("\n", "\\n")


def finish(axis, **labels) -> None:
    """Labels, no frame on the right and above, and a legend if its lines can be told apart."""
    axis.set(**labels)
    axis.spines[["top", "right"]].set_visible(False)
    if 0 < len(axis.get_legend_handles_labels()[1]) <= 16:
        axis.legend(frameon=False, fontsize="small")


def draw_embeddings(results: Results, axes: np.ndarray, part="embeddings", model="GPT", color="C0") -> None:
    """Figure 6: counterparts (bars are 95% intervals) and all pairs, by the pair's share of L2."""
    for axis, matrix in zip(axes, MATRICES, strict=True):
        points = []
        for pair, result, found in pairs_of(results, part):
            if matrix not in found:
                continue
            second = [language["name"] for language in result["languages"]].index(pair.rpartition("-")[2])
            share, same = np.mean(result["stages"], axis=0)[second], found[matrix]["counterparts"]
            mean, error = (same["mean"], same["standard_error"] or 0) if same else (np.nan, 0)
            points.append((100 * share, mean, 1.96 * error, found[matrix]["all_pairs"]))
        if not points:
            axis.set_visible(False)
            continue
        shares, counterparts, bars, all_pairs = np.transpose(sorted(points))
        names = [f"{model}, {what}" if axis is axes[0] else None for what in ("counterparts", "all pairs")]
        axis.errorbar(shares, counterparts, bars, fmt="o-", color=color, capsize=3, label=names[0])
        axis.plot(shares, all_pairs, "x:", color=color, label=names[1])
        finish(axis, title=f"{matrix} embedding", xlabel="p(L2) in %", ylabel="cosine")


def draw_frequency(results: Results, axes: np.ndarray) -> None:
    """Figure 7: counterparts by training frequency, a line for each run and pair; bars are 95% intervals."""
    for axis, matrix in zip(axes, MATRICES, strict=True):
        for i, (pair, _, found) in enumerate(pairs_of(results, "embeddings")):
            if matrix not in found:
                axis.set_visible(False)
                continue
            entries = found[matrix]["frequency"]
            points = [(e["frequency"], e["mean"], 1.96 * (e["standard_error"] or 0)) for e in entries]
            look = {"fmt": f"{'osD^vP'[i % 6]}-", "markersize": 5, "elinewidth": 1}
            axis.errorbar(*np.reshape(points, (-1, 3)).T, label=pair if axis is axes[0] else None, **look)
        finish(axis, title=f"{matrix} embedding", xlabel="share of the text", ylabel="cosine", xscale="log")


def draw_layers(results: Results, axes: np.ndarray) -> None:
    """Tables 2 and 4 as lines with standard errors: raw beside shuffled positions, centred, retrieval@1."""
    panels = {  # method: panel and how it is drawn
        "positions": (0, "o-"),
        "matching": (0, "s--"),
        "shuffled": (0, "x:"),
        "matching, another text": (0, "+:"),
        "positions, centred": (1, "o-"),
        "matching, centred": (1, "s--"),
        "retrieval@1": (2, "o-"),
        "retrieval@1, shuffled": (2, "x:"),
    }
    for i, (pair, _, found) in enumerate(pairs_of(results, "hidden")):
        for method, layers in found.items():
            points = [(n, layer["mean"], layer["standard_error"] or 0) for n, layer in enumerate(layers, 1)]
            panel, style = panels[method]
            label = f"{pair}, {method.removesuffix(', centred').removeprefix('retrieval@1, ')}"
            axes[panel].errorbar(*np.transpose(points), fmt=style, color=f"C{i}", label=label)
    titles = {"Hidden states": "cosine", "Hidden states, centred": "cosine", "Nearest is its own": "share"}
    for axis, (title, label) in zip(axes, titles.items(), strict=True):
        axis.xaxis.get_major_locator().set_params(integer=True)
        finish(axis, title=title, xlabel="layer", ylabel=label)


def draw_gradients(results: Results, axes: np.ndarray) -> None:
    """Figures 11 to 13: tensors by layers, a heat map for each run and pair as far as there are axes."""
    for axis, (pair, _, found) in zip(axes, pairs_of(results, "gradients"), strict=False):
        kinds, matrix = heat_map(found)
        picture = axis.imshow(matrix, vmin=-0.2, vmax=1, aspect="auto")
        axis.set_title(f"{pair}\nmean {found['blocks']['mean']:.2f}", fontsize=9)
        axis.set_xlabel("layer")
        axis.set_xticks(range(matrix.shape[1]), range(1, matrix.shape[1] + 1))
        axis.set_yticks(range(len(kinds)), kinds if axis is axes[0] else [""] * len(kinds), fontsize=8)
        for (row, column), value in np.ndenumerate(matrix):
            color = "white" if value < 0.4 else "black"
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6, color=color)
    axes[0].figure.set_figwidth(3 + len(axes) * max(2.2, 0.4 * matrix.shape[1]))
    axes[0].figure.colorbar(picture, ax=list(axes), label="cosine of gradients")


PICTURES = {  # part of the results, function, panels (0: one for each run and pair, eight at most)
    "embeddings": ("embeddings", draw_embeddings, 2),
    "frequency": ("embeddings", draw_frequency, 2),
    "layers": ("hidden", draw_layers, 3),
    "gradients": ("gradients", draw_gradients, 0),
}


def draw_all(results: Results, folder: Path) -> None:
    """Every picture for which there is something, to alignment-*.png in a folder."""
    for name, (part, draw, panels) in PICTURES.items():
        if found := pairs_of(results, part):
            columns = panels or min(8, len(found))
            figure = Figure(figsize=(2 + 3.6 * columns, 4.2), layout="constrained")
            draw(results, figure.subplots(1, columns, squeeze=False)[0])
            write(folder / f"alignment-{name}.png", figure)


def draw_training(runs: list[Path], path: Path, snapshots: list[dict] | None = None) -> None:
    """Losses by language; below them what snapshots show, mean over the pairs of languages.

    That is centred hidden states by layer, and how much of the key is found.
    """
    figure = Figure(figsize=(7, 7) if snapshots else (7, 4.2), layout="constrained")
    above, *below = figure.subplots(1 + bool(snapshots), sharex=True, squeeze=False)[:, 0]
    for out in runs:
        lines = read_metrics(out)
        for name in dict.fromkeys(name for line in lines for name in line["loss"]):
            points = [(line["tokens"], line["loss"][name]) for line in lines if name in line["loss"]]
            parts = np.array_split(points, min(60, len(points)))  # a batch more or less easy is no news
            (curve,) = above.plot(*np.transpose([part.mean(0) for part in parts]))
            curve.set_label(shown(f"{out.name} {name}"))
            saved = [line for line in lines if name in line.get("held_out", {})]
            held_out = [(line["tokens"], line["held_out"][name]) for line in saved]
            above.plot(*np.reshape(held_out, (-1, 2)).T, ".", color=curve.get_color())
    above.xaxis.set_major_formatter(lambda tokens, _: count(tokens))
    finish(above, xlabel="training tokens", ylabel="loss in nats; dots: held-out text")
    for axis in below:  # none or one
        pairs = [list(snapshot["hidden"].values()) for snapshot in snapshots]
        cosines = np.vectorize(lambda layer: layer["mean"])(pairs).mean(1)  # (snapshots, layers)
        labels = [f"layer {i + 1}" for i in range(cosines.shape[1])]
        axis.set_prop_cycle(color=colormaps["viridis"](np.linspace(0, 0.9, len(labels))))
        tokens = [snapshot["tokens"] for snapshot in snapshots]
        axis.plot(tokens, cosines, ".-", label=labels)
        found = [np.mean([share or 0 for share in snapshot["key"].values()]) for snapshot in snapshots]
        axis.plot(tokens, found, "k--", label="retrieval@1 of embeddings")
        finish(axis, xlabel=above.get_xlabel(), ylabel="centred cosine of hidden states; key found")
        above.label_outer()
    write(path, figure)


def draw_matching(run: Run, sentence: list[list[int]]) -> None:
    """Figure 14: the tokens of a sentence in two languages, with a line between those that are matched."""
    sides = list(zip(run.languages[:2], sentence[:2], strict=True))
    similarity = mean_similarity(*(hidden_states(run.model, language.table[ids]) for language, ids in sides))
    longest = max(similarity.shape)
    places = [np.linspace(0, longest - 1, size) for size in similarity.shape]  # the shorter row is stretched
    figure = Figure(figsize=(max(6.0, 0.55 * longest + 1.5), 3.4), layout="constrained")
    axis = figure.subplots()
    for row, column in zip(*match(similarity), strict=True):
        ends = [places[0][row], places[1][column]]
        axis.plot(ends, [1, 0], color="C0", alpha=similarity[row, column].clip(0.1, 1))
    rows = zip(sides, places, (1.06, -0.06), ("bottom", "top"), strict=True)
    for (language, ids), where, height, anchor in rows:
        forms = surface_forms(run.dataset.tokenizer(language.source))
        for i, x in zip(ids, where, strict=True):
            axis.text(x, height, forms[i], rotation=90, ha="center", va=anchor, fontsize=9, parse_math=False)
    axis.set(xticks=[], yticks=(1, 0), yticklabels=[language.name for language, _ in sides], ylim=(-0.9, 1.9))
    axis.spines[:].set_visible(False)
    write(run.out / "alignment-matching.png", figure)


def main(arguments: list[str] | None = None) -> None:
    """Measure each run that the command line names, then print and draw what is known of them."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="out/NAME", help="folders of finished runs")
    add("--device", choices=["cpu", "cuda"], help="(cuda where there is one)")
    add("--out", type=Path, help="folder of the pictures that show several runs (the one the first is in)")
    add("--only", nargs="*", choices=PARTS, default=PARTS, help="some of the measures, or none (all)")
    add("--parallel", nargs="+", type=named_path, default=[], metavar="LANG=FILE", help="aligned lines")
    add("--line", type=number(int, 1), help="the one that is drawn (the first of suitable length)")
    add("--sequences", type=number(int, 1), metavar="N", help="texts to compare (500, in snapshots 100)")
    add("--matching", action="store_true", help="match the tokens of clones, too")
    add("--snapshots", action="store_const", dest="only", const=["snapshots"], help="kept by --keep-every")
    add("--losses", action="store_true", help="draw the losses, losses.png, and do nothing else")
    args = parser.parse_args(arguments)
    folder = args.out or (args.runs[0].parent if len(args.runs) > 1 else args.runs[0])
    if args.losses:
        return draw_training(args.runs, folder / "losses.png")
    device = Process.current(args.device).device
    for out in args.runs:
        require_finished(out)  # all of them, before the first is measured
    for out in args.runs:
        measure_run(out, args, device)
        draw_all({out.name: read_json(out / "result.json")}, out)
    parent = os.path.commonpath([out.resolve().parent for out in args.runs])
    results = {os.path.relpath(out, parent): read_json(out / "result.json") for out in args.runs}
    print("\n" + tables(results) + keys(results))
    if len(results) > 1:
        draw_all(results, folder)


if __name__ == "__main__":
    run_script(main)
