"""The embeddings' operator: the results of PyTorch's own layer, and its promises to torch.compile."""

import torch
import torch.nn.functional as F

from kernels.embedding import embedding, embedding_operator

IDS = torch.tensor([[1, 3, 3], [0, 3, 1]])


def results(function):
    weight = torch.randn(5, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    out = function(IDS, weight)
    (out * torch.arange(out.numel()).view_as(out)).sum().backward()
    return out.detach(), weight.grad


def test_the_operator_computes_what_the_layer_does():
    for ours, theirs in zip(results(embedding_operator), results(F.embedding), strict=True):
        assert torch.equal(ours, theirs)


def test_the_operator_keeps_its_promises_to_pytorch():
    torch.library.opcheck(embedding_operator, (IDS, torch.randn(5, 8, requires_grad=True)))


def test_compiled_it_stays_whole(monkeypatch):
    """A CPU takes PyTorch's own, whose bits older runs have."""
    seen = []

    def look(graph, _inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    backend = torch._dynamo.backends.common.aot_autograd(fw_compiler=look, bw_compiler=look)
    results(torch.compile(embedding_operator, backend=backend, fullgraph=True))
    assert any("nanobabel.embedding_backward" in name for name in seen)
    assert results(embedding)[0].equal(results(F.embedding)[0])
