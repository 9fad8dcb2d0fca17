"""The model: the paper's sizes and initialisation, causality, and losses that match a float64 reference."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from model import GPT, SIZES, Size, gelu

TINY = Size(layers=2, width=48, heads=2, head_dim=16)


@pytest.fixture
def gpt():
    torch.manual_seed(0)
    return GPT(TINY, vocabulary=100, length=24)


@pytest.mark.parametrize(("size", "millions"), [("mini", 11), ("small", 85), ("medium", 303)])
def test_non_embedding_parameters_are_the_paper_s(size, millions):
    with torch.device("meta"):
        assert round(GPT(SIZES[size], 16384, 512).non_embedding_params() / 1e6) == millions


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


def test_embedding_matrices_do_not_count_and_positions_do(gpt):
    tied, rotary = (
        GPT(replace(TINY, **other), 100, 24) for other in ({"tied": True}, {"positions": "rotary"})
    )
    assert tied.non_embedding_params() == gpt.non_embedding_params()
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
