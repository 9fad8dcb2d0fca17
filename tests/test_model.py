"""The model: the paper's sizes and initialisation, causality, and losses that match a float64 reference."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from model import GPT, SIZES, Size, flops_per_token, gelu, rotate

TINY = Size(layers=2, width=48, heads=2, head_dim=16)


@pytest.fixture
def gpt():
    torch.manual_seed(0)
    return GPT(TINY, vocabulary=100, length=24)


@pytest.mark.parametrize(("size", "millions"), [("mini", 11), ("small", 85), ("medium", 303)])
def test_non_embedding_parameters_are_the_paper_s(size, millions):
    with torch.device("meta"):
        assert round(GPT(SIZES[size], 16384, 512).non_embedding_params() / 1e6) == millions


def test_non_embedding_parameters_do_not_depend_on_the_vocabulary():
    with torch.device("meta"):
        assert GPT(TINY, 100, 24).non_embedding_params() == GPT(TINY, 1000, 24).non_embedding_params()


@pytest.mark.parametrize("name", ["nano", "mini", "small"])
def test_operations_are_six_for_each_weight_of_a_matrix_product_and_attention(name):
    size = SIZES[name]
    with torch.device("meta"):
        model = GPT(size, 1000, 64)
    linear = sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))
    if size.tied:  # the output layer multiplies by the input's matrix
        linear += model.token_embedding.weight.numel()
    attention = 12 * size.layers * size.heads * size.head_dim * 64
    assert flops_per_token(size, 1000, 64) == 6 * linear + attention


def test_from_mini_on_the_recipe_is_the_paper_s():
    for name in ("mini", "tiny", "small", "medium", "large", "xl"):
        size = SIZES[name]
        assert (size.positions, size.tied, size.shared) == ("learned", False, ())
        assert (size.length, size.learning_rate, size.warmup) == (512, 6e-4, 500)
        assert size.batch == (256 if name == "medium" else 128)


@pytest.mark.parametrize("function", [gelu, torch.compile(gelu, backend="aot_eager", fullgraph=True)])
def test_gelu_and_its_gradient_are_those_of_the_definition_compiled_too(function):
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64, requires_grad=True)
    expected = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    found = function(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(y.sum(), x) for y in (found, expected)))


def test_initialisation_is_the_released_one():
    torch.manual_seed(0)
    size = Size(layers=8, width=256, heads=4, head_dim=64)
    for name, parameter in GPT(size, 2048, 512).named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            expected = 0.02 / math.sqrt(16) if "mlp_output" in name else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.02), name


def test_only_a_tied_model_has_one_embedding_matrix(gpt):
    assert gpt.output_embedding is gpt.output.weight
    assert not torch.equal(gpt.output.weight, gpt.token_embedding.weight)
    assert gpt.output.bias is None
    tied = GPT(replace(TINY, tied=True), 100, 24)
    assert tied.output_embedding is tied.token_embedding.weight
    matrices = [name for name, parameter in tied.named_parameters() if parameter.shape == (100, 48)]
    assert matrices == [name for name in tied.state_dict() if "embedding" in name and "position" not in name]
    assert matrices == ["token_embedding.weight"]
    assert tied.non_embedding_params() == gpt.non_embedding_params()
    rotary = GPT(replace(TINY, positions="rotary"), 100, 24)
    assert rotary.non_embedding_params() == gpt.non_embedding_params() - 24 * 48


def turned(x: torch.Tensor) -> torch.Tensor:
    """Rotary positions of (batch, time, 16) as complex numbers, entries i and i + 8, turned."""
    times, speeds = torch.arange(x.shape[1]).double(), 10_000.0 ** (-torch.arange(8).double() / 8)
    numbers = torch.complex(x[..., :8], x[..., 8:]) * torch.exp(1j * times[:, None] * speeds)
    return torch.cat([numbers.real, numbers.imag], -1)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("tied", [False, True])
def test_losses_and_gradients_match_a_reference_written_out_in_float64(positions, tied):
    torch.manual_seed(0)
    gpt = GPT(replace(TINY, positions=positions, tied=tied), vocabulary=100, length=24)
    tokens, targets = torch.randint(100, (2, 3, 24))
    p = {name: parameter.detach().double().requires_grad_() for name, parameter in gpt.named_parameters()}

    def norm(x, name):
        return F.layer_norm(x, (48,), p[f"{name}.weight"], p[f"{name}.bias"])

    def linear(x, name):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    x = p["token_embedding.weight"][tokens] * math.sqrt(48)
    if positions == "learned":
        x = x + p["position_embedding.weight"]
    for i in range(2):
        q, k, v = linear(
            norm(x, f"blocks.{i}.attention_norm"), f"blocks.{i}.attention.query_key_value"
        ).split(32, dim=-1)
        heads = []
        for h in (slice(0, 16), slice(16, 32)):
            query, key = q[..., h], k[..., h]
            if positions == "rotary":
                query, key = turned(query), turned(key)
            scores = query @ key.transpose(1, 2) / 4
            heads.append(
                scores.masked_fill(torch.ones(24, 24).triu(1).bool(), -math.inf).softmax(-1) @ v[..., h]
            )
        x = x + linear(torch.cat(heads, -1), f"blocks.{i}.attention.output")
        inner = linear(norm(x, f"blocks.{i}.mlp_norm"), f"blocks.{i}.mlp_input")
        gelu = 0.5 * inner * (1 + torch.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
        x = x + linear(gelu, f"blocks.{i}.mlp_output")
    logits = norm(x, "final_norm") @ p["token_embedding.weight" if tied else "output.weight"].T
    expected = logits.logsumexp(-1) - logits.gather(-1, targets[..., None])[..., 0]
    mean, losses = gpt(tokens, targets)
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mean.double(), expected.mean(), rtol=1e-6, atol=1e-6)
    mean.backward()
    gradients = torch.autograd.grad(expected.mean(), list(p.values()))
    for (name, parameter), gradient in zip(gpt.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad.double(), gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_rotary_scores_depend_on_the_distance_alone():
    query, key = torch.randn(2, 1, 1, 1, 32, generator=torch.Generator().manual_seed(0))
    turned_query, turned_key = (rotate(x.expand(1, 24, 1, 32))[0, :, 0] for x in (query, key))
    scores = turned_query @ turned_key.T
    for distance in range(24):
        diagonal = scores.diagonal(-distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(turned_query.norm(dim=-1), query.norm().expand(24))


def test_the_past_does_not_see_the_future(gpt):
    one = torch.randint(100, (1, 24))
    other = one.clone()
    other[0, 15:] = torch.randint(100, (9,))
    with torch.no_grad():
        difference = (gpt.hidden(one) - gpt.hidden(other)).abs().amax(-1)[0]
    assert (difference[:15] == 0).all()
    assert (difference[15:] > 0).all()


def test_shorter_sequences_are_accepted(gpt):
    tokens = torch.randint(100, (2, 7))
    assert torch.allclose(gpt.hidden(tokens), gpt.hidden(torch.cat([tokens, tokens], 1))[:, :7], atol=1e-6)
