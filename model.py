"""The GPT of the paper (section 3.1): a GPT-2 decoder and its sizes.

LayerNorm comes before attention and before each MLP, every linear layer but the last has a bias, GELU is in
its tanh form, and there is no dropout. Two details follow the paper's code rather than its text. Token
embeddings are multiplied by sqrt(width) before the first block. The weights of each MLP's output projection
start with a smaller standard deviation, 0.02 / sqrt(2 * layers).

Sizes from mini up are the paper's: positions are learned, and the input and output embeddings are two
matrices. pico and nano have rotary positions and one matrix for both embeddings, because models that small
then share what they learn between clones far more often (results/LOG.md, section 30).
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.attention import causal_attention
from kernels.cross_entropy import linear_cross_entropy


@dataclass(frozen=True)
class Size:
    """A row of the size table: the model's dimensions, and hyperparameters that flags of train.py override.

    `heads * head_dim` may differ from `width` (mini: 256, 512). The default hyperparameters are the paper's.
    """

    layers: int
    width: int
    heads: int
    head_dim: int
    length: int = 512  # tokens of a sequence
    batch: int = 128  # sequences of a step, on all processes together
    learning_rate: float = 6e-4  # at its peak
    warmup: int = 500  # steps
    positions: str = "learned"  # one of POSITIONS
    tied: bool = False  # whether one matrix is both the input and the output embedding
    shared: tuple[str, ...] = ()  # pieces that have one id in all languages
    micro_batch: int = 16  # sequences that a process computes at a time; chosen for GPUs of 24 GB


POSITIONS = ("learned", "rotary")
# Without these settings a model small enough for two cores shares little of what it learns between clones.
SHARING = {"positions": "rotary", "tied": True, "shared": (" ",)}
PICO = {"length": 128, "batch": 8, "learning_rate": 3e-3, "warmup": 100}
NANO = {"length": 128, "batch": 32, "learning_rate": 2e-3, "warmup": 20, "micro_batch": 32}

SIZES = {
    "pico": Size(4, 64, 2, 32, **PICO, **SHARING),
    "nano": Size(4, 128, 2, 64, **NANO, **SHARING),
    "mini": Size(4, 512, 8, 32, micro_batch=32),
    "tiny": Size(4, 768, 12, 64),
    "small": Size(12, 768, 12, 64),
    "medium": Size(24, 1024, 16, 64, batch=256),
    "large": Size(24, 1536, 16, 96),
    "xl": Size(24, 2048, 24, 128),
}
MLP = 4  # ratio of an MLP's inner width to the model's width


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form, x (1 + tanh y) / 2 = x sigmoid(2 y) with y = sqrt(2 / pi) (x + 0.044715 x^3)."""
    if x.device.type == "cpu" and torch.compiler.is_compiling():  # tanh would take twice as long
        y = x + 0.044715 * x**3
        return x * torch.sigmoid(math.sqrt(8 / math.pi) * y)
    return F.gelu(x, approximate="tanh")


def rotate(x: Tensor) -> Tensor:
    """Rotary positions (Su et al., 2021): rotate each pair of entries by an angle that grows with position.

    The product of a rotated query and a rotated key depends on their distance, not on their positions.
    (batch, time, heads, head_dim) -> the same shape. Entry i is paired with entry i + head_dim / 2.
    """
    one, other = x.float().chunk(2, dim=-1)
    half = one.shape[-1]
    times = torch.arange(x.shape[1], device=x.device)
    pairs = torch.arange(half, device=x.device)
    speeds = 10_000.0 ** (-pairs / half)  # radians per token
    angles = times[:, None, None] * speeds  # (time, 1, half)
    cos = angles.cos()
    sin = angles.sin()
    turned_one = one * cos - other * sin
    turned_other = one * sin + other * cos
    return torch.cat([turned_one, turned_other], dim=-1).type_as(x)


class Attention(nn.Module):
    """Causal multi-head self-attention: (batch, time, width) -> (batch, time, width)."""

    def __init__(self, size: Size):
        super().__init__()
        self.heads, self.head_dim = size.heads, size.head_dim
        self.rotary = size.positions == "rotary"
        inner = size.heads * size.head_dim
        self.query_key_value = nn.Linear(size.width, 3 * inner)
        self.output = nn.Linear(inner, size.width)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        qkv = self.query_key_value(x)
        qkv = qkv.view(batch, time, 3, self.heads, self.head_dim)
        if self.rotary:
            query, key, value = qkv.unbind(2)
            query = rotate(query)
            key = rotate(key)
            qkv = torch.stack([query, key, value], dim=2)
        mixed = causal_attention(qkv)  # (batch, time, heads, head_dim)
        return self.output(mixed.flatten(2))


class Block(nn.Module):
    """Attention, then an MLP: each is applied to the LayerNorm of x, and its output is added to x."""

    def __init__(self, size: Size):
        super().__init__()
        self.attention_norm = nn.LayerNorm(size.width)
        self.attention = Attention(size)
        self.mlp_norm = nn.LayerNorm(size.width)
        self.mlp_input = nn.Linear(size.width, MLP * size.width)
        self.mlp_output = nn.Linear(MLP * size.width, size.width)

    def forward(self, x: Tensor, last: int | None = None) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        if last is not None:  # no later operation reads the other positions
            x = x[:, -last:]
        inner = self.mlp_input(self.mlp_norm(x))
        return x + self.mlp_output(gelu(inner))


class GPT(nn.Module):
    """A decoder over the joint vocabulary of all languages.

    Args:
        size: a row of SIZES.
        vocabulary: number of ids in the joint vocabulary, that is, rows of an embedding matrix.
        length: longest sequence in tokens; with learned positions, also the rows of the position matrix.
    """

    def __init__(self, size: Size, vocabulary: int, length: int):
        super().__init__()
        self.size, self.vocabulary, self.length = size, vocabulary, length
        self.token_embedding = nn.Embedding(vocabulary, size.width)
        if size.positions == "learned":
            self.position_embedding = nn.Embedding(length, size.width)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.final_norm = nn.LayerNorm(size.width)
        if not size.tied:
            self.output = nn.Linear(size.width, vocabulary, bias=False)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Standard deviation 0.02 for matrices, 0.02 / sqrt(2 * layers) for an MLP's output; 0 for biases."""
        smaller = 0.02 / math.sqrt(2 * self.size.layers)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif name.endswith("mlp_output.weight"):
                parameter.normal_(0.0, smaller)
            elif "norm" not in name:
                parameter.normal_(0.0, 0.02)

    @property
    def output_embedding(self) -> Tensor:
        """(vocabulary, width): the logit of an id is its row times the final hidden state."""
        return self.token_embedding.weight if self.size.tied else self.output.weight

    def hidden(self, tokens: Tensor, last: int | None = None) -> Tensor:
        """Hidden states after the final LayerNorm: (batch, time) ids -> (batch, time, width).

        With `last`, only of the last `last` positions.
        """
        # Token and position embeddings both start at 0.02; this factor makes the former the larger summand.
        x = self.token_embedding(tokens) * math.sqrt(self.size.width)
        if self.size.positions == "learned":
            times = torch.arange(tokens.shape[1], device=tokens.device)
            x = x + self.position_embedding(times)
        for block in self.blocks[:-1]:
            x = block(x)
        return self.final_norm(self.blocks[-1](x, last))

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy in nats of the targets under a softmax over the whole joint vocabulary.

        (batch, time) ids and (batch, time) target ids -> the mean loss, which can be differentiated, and
        the (batch, time) losses, which are for the log.
        """
        hidden = self.hidden(tokens)
        return linear_cross_entropy(hidden, self.output_embedding, targets)

    def non_embedding_params(self) -> int:
        """Parameters outside the embedding matrices, as in the paper: mini 11M, small 85M, medium 303M.

        Position embeddings count, because without them medium would not round to the paper's 303M.
        """
        matrices = {self.token_embedding.weight, self.output_embedding}
        return sum(each.numel() for each in self.parameters() if each not in matrices)


def build_model(config: dict, languages: list) -> GPT:
    """The untrained model that `config` describes; its last id is the largest joint id of `languages`."""
    largest = max(language.table.max() for language in languages)
    vocabulary = 1 + int(largest)
    positions, tied = config["positions"], config["tied"]
    size = dataclasses.replace(SIZES[config["size"]], positions=positions, tied=tied)
    return GPT(size, vocabulary, config["length"])
