"""How fast the matching of two texts is, beside a NetworkX graph that is filled edge by edge.

    python align_bench.py                          # one pair of 400 tokens through GPT small: 12 layers, width 768
    python align_bench.py --tokens 200 --blossom   # also by NetworkX's own algorithm: a minute and a half at 400 tokens

All start from hidden states and end with matched tokens. The graph asks PyTorch for the cosines of one pair of tokens at a
time, in all layers at once. NetworkX has two solvers: `minimum_weight_full_matching`, which turns the graph into a matrix
for SciPy, and `max_weight_matching`, the blossom algorithm in Python. The sums of the matchings are printed, too: they agree.
"""

import time
from collections.abc import Callable
from typing import Any

import networkx as nx
import torch
import torch.nn.functional as F
from torch import Tensor

from common import Parser, run_script
from similarity import match, mean_similarity, normalise


def by_matrix(one: Tensor, other: Tensor) -> float:
    """As align.py does it: (layers, S, width) twice -> sum of similarities of the matching."""
    similarity = mean_similarity([normalise(layer) for layer in one], [normalise(layer) for layer in other])
    return float(similarity[match(similarity)].sum())


def fill_graph(one: Tensor, other: Tensor) -> nx.Graph:
    """A node for each token, an edge for each pair, as the definition reads: (layers, S, width) and (layers, T, width)."""
    graph = nx.Graph()
    for i in range(one.shape[1]):
        for j in range(other.shape[1]):
            weight = float(F.cosine_similarity(one[:, i], other[:, j], dim=-1).mean())
            graph.add_edge(("one", i), ("other", j), weight=weight, cost=-weight)
    return graph


def by_scipy(graph: nx.Graph) -> float:
    """Sum of similarities of the matching by NetworkX's way to SciPy."""
    top = [node for node in graph if node[0] == "one"]
    matching = nx.bipartite.minimum_weight_full_matching(graph, top, weight="cost")
    return sum(graph[node][matching[node]]["weight"] for node in top)


def by_blossom(graph: nx.Graph) -> float:
    """Sum of similarities of the matching by NetworkX's own algorithm."""
    return sum(graph.edges[edge]["weight"] for edge in nx.max_weight_matching(graph, maxcardinality=True))


def timed(function: Callable, *arguments) -> tuple[float, Any]:
    """Seconds that a call takes, and what it returns."""
    begin = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - begin, result


def main(arguments: list[str] | None = None) -> None:
    """Time both, one after the other, on random hidden states that have a direction in common."""
    parser = Parser(__doc__)
    for flag, default in (("tokens", 400), ("layers", 12), ("width", 768), ("repeat", 20)):
        parser.add_argument(f"--{flag}", type=int, default=default, help="(%(default)s)")
    parser.add_argument("--blossom", action="store_true", help="also NetworkX's own algorithm")
    args = parser.parse_args(arguments)
    for flag, value in vars(args).items():
        if flag != "blossom" and value < 1:
            parser.error(f"--{flag} {value}: expected 1 or more")
    torch.manual_seed(0)
    shared, (one, other) = torch.randn(args.width), torch.randn(2, args.layers, args.tokens, args.width)
    one, other = one + shared, other + shared
    by_matrix(one, other)  # the first call is slower
    matrix, total = min(timed(by_matrix, one, other) for _ in range(args.repeat))
    print(f"{args.tokens} x {args.tokens} tokens, {args.layers} layers of width {args.width}, {torch.get_num_threads()} threads")
    print(f"matrix, then SciPy: {matrix:.4f} s, sum of similarities {total:.4f}")
    filled, graph = timed(fill_graph, one, other)
    for name, solver in {"SciPy": by_scipy, "blossom": by_blossom}.items():
        if name == "SciPy" or args.blossom:
            solved, total = timed(solver, graph)
            print(f"graph, then {name}: {filled:.3f} + {solved:.3f} s, sum of similarities {total:.4f}: ", end="")
            print(f"the matrix is {(filled + solved) / matrix:.0f} times as fast", flush=True)


if __name__ == "__main__":
    run_script(main)
