"""How fast the matching of two texts is, beside a NetworkX graph that is filled edge by edge.

    python align_bench.py                          # one pair of 400 tokens through GPT small: 12 layers, width 768
    python align_bench.py --tokens 200 --layers 4 --width 128

Both start from hidden states and end with matched tokens; the graph asks PyTorch for the cosines of one pair of tokens at
a time and solves with `bipartite.minimum_weight_full_matching`, the fastest solver that NetworkX has. The sums of the
two matchings are compared, too.
"""

import time

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


def by_graph(one: Tensor, other: Tensor) -> float:
    """Edge by edge, as the definition reads."""
    graph, left, right = nx.Graph(), range(one.shape[1]), range(other.shape[1])
    for i in left:
        for j in right:
            graph.add_edge(("one", i), ("other", j), weight=-float(F.cosine_similarity(one[:, i], other[:, j], dim=-1).mean()))
    top = [("one", i) for i in left]
    matching = nx.bipartite.minimum_weight_full_matching(graph, top)
    return -sum(graph[node][matching[node]]["weight"] for node in top)


def main(arguments: list[str] | None = None) -> None:
    """Time both, one after the other, on random hidden states that have a direction in common."""
    parser = Parser(__doc__)
    for flag, default in (("tokens", 400), ("layers", 12), ("width", 768), ("repeat", 20)):
        parser.add_argument(f"--{flag}", type=int, default=default, help="(%(default)s)")
    args = parser.parse_args(arguments)
    for flag, value in vars(args).items():
        if value < 1:
            parser.error(f"--{flag} {value}: expected 1 or more")
    torch.manual_seed(0)
    shared, (one, other) = torch.randn(args.width), torch.randn(2, args.layers, args.tokens, args.width)
    one, other = one + shared, other + shared
    fast = by_matrix(one, other)
    begin = time.perf_counter()
    for _ in range(args.repeat):
        by_matrix(one, other)
    matrix_time = (time.perf_counter() - begin) / args.repeat
    begin = time.perf_counter()
    slow = by_graph(one, other)
    graph_time = time.perf_counter() - begin
    print(f"{args.tokens} x {args.tokens} tokens, {args.layers} layers of width {args.width}, {torch.get_num_threads()} threads")
    print(f"graph, edge by edge: {graph_time:.3f} s, sum of similarities {slow:.4f}")
    print(f"matrix:              {matrix_time:.4f} s, sum of similarities {fast:.4f}")
    print(f"{graph_time / matrix_time:.0f} times as fast")


if __name__ == "__main__":
    run_script(main)
