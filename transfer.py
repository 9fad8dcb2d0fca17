"""GLUE transfer (right half of the paper's figure 1): learn a task in L1, then solve it in a language never fine-tuned on.

A linear head reads the last layer's hidden state at the last token of an example, and all weights are trained, through
L1's lookup table alone. The weights that did best on L1's dev set are then scored through the table of each language:
the text is the same English, its ids are others. What a clone scores above the majority, it has from L1.
"""

import copy
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import sentencepiece
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import Progress, UserError
from glue import Example, TaskData, constant_answer, labels_of, measure_answers
from languages import Language
from model import GPT
from process import bf16_helps, mixed_precision
from tokenizer import PAD, encode_document


class Recipe(NamedTuple):
    """How a task is learned: the paper's values."""

    length: int = 128  # tokens that an example is cut to
    learning_rate: float = 5e-5
    batch: int = 64
    epochs: int = 10
    evaluate_every: int = 200  # steps
    patience: int = 10  # evaluations without a better one
    dropout: float = 0.1  # of what the head reads
    max_steps: int | None = None


class Classifier(nn.Module):
    """A GPT with a linear head in place of its output layer; `outputs` is the number of labels, or 1 for a rating."""

    def __init__(self, gpt: GPT, outputs: int, dropout: float):
        super().__init__()
        self.gpt, self.dropout, self.head = gpt, nn.Dropout(dropout), nn.Linear(gpt.size.width, outputs)
        nn.init.normal_(self.head.weight, 0.0, 0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, last: Tensor) -> Tensor:
        """(batch, time) joint ids and the (batch,) positions of each one's last token -> (batch, outputs) float32."""
        hidden = self.gpt.hidden(tokens)[torch.arange(len(tokens), device=tokens.device), last]
        return self.head(self.dropout(hidden)).float()


def encode(
    examples: list[Example], tokenizer: sentencepiece.SentencePieceProcessor, length: int, progress: Progress
) -> list[np.ndarray]:
    """Own ids of each example, (n,) uint16: its texts one after the other, each closed by the end-of-document piece, cut."""
    encoded = []
    for done, example in enumerate(examples, 1):
        ids = [token for text in example.texts for token in (*encode_document(tokenizer, text), tokenizer.eos_id())]
        encoded.append(np.array(ids[:length], np.uint16))
        progress.update(done)
    return encoded


def pad(rows: list[np.ndarray], table: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of own ids as one batch in the language of `table`: (batch, longest) joint ids, (batch,) last positions.

    Padding stands on the right, where no token that is read can see it.
    """
    lengths = np.array([len(row) for row in rows])
    tokens = np.full((len(rows), lengths.max()), PAD, np.int64)
    tokens[np.arange(tokens.shape[1]) < lengths[:, None]] = table[np.concatenate(rows)]
    return torch.from_numpy(tokens).to(device), torch.from_numpy(lengths - 1).to(device)


@torch.no_grad()
def predict(classifier: Classifier, rows: list[np.ndarray], table: np.ndarray, batch: int = 256) -> np.ndarray:
    """The (n,) label indices or ratings that a classifier gives to rows of own ids read through `table`."""
    device = classifier.head.weight.device
    answers = np.empty(len(rows))
    by_length = np.argsort([len(row) for row in rows], kind="stable")  # little of a batch is padding
    classifier.eval()
    for first in range(0, len(rows), batch):
        places = by_length[first : first + batch]
        with mixed_precision("bf16" if bf16_helps(device) else "fp32", device):
            outputs = classifier(*pad([rows[i] for i in places], table, device))
        answers[places] = (outputs.argmax(1) if outputs.shape[1] > 1 else outputs[:, 0]).cpu().numpy()
    classifier.train()
    return answers


def batches(examples: int, recipe: Recipe, seed: int) -> Iterator[np.ndarray]:
    """Indices of the examples of each step, every epoch in another order."""
    random = np.random.default_rng(seed)
    for _ in range(recipe.epochs):
        order = random.permutation(examples)
        yield from (order[first : first + recipe.batch] for first in range(0, examples, recipe.batch))


def steps_of(examples: int, recipe: Recipe) -> int:
    """Steps of all epochs, or as many as are allowed."""
    steps = recipe.epochs * math.ceil(examples / recipe.batch)
    return min(steps, recipe.max_steps or steps)


class Encoded(NamedTuple):
    """A task's examples as rows of own ids."""

    train: list[np.ndarray]
    dev: dict[str, list[np.ndarray]]


def encode_task(data: TaskData, tokenizer: sentencepiece.SentencePieceProcessor, length: int) -> Encoded:
    """Tokenise a task, cut to `length` tokens."""
    sets = [data.train, *data.dev.values()]
    total = sum(map(len, sets))
    progress = Progress(f"{data.name}: tokenising", total, "examples")
    train, *dev = (encode(examples, tokenizer, length, progress) for examples in sets)
    return Encoded(train, dict(zip(data.dev, dev, strict=True)))


def fine_tune(
    model: GPT, data: TaskData, encoded: Encoded, language: Language, *, recipe: Recipe, seed: int
) -> tuple[Classifier, int]:
    """Train a copy of `model` with a new head on a task in one language; returns its weights at their best step, and that.

    The best step is the first with the highest first measure on the first dev set, looked at every so many steps and
    after the last. On a CPU the result follows from the arguments alone.

    Raises:
        UserError: the loss is not finite.
    """
    torch.manual_seed(seed)
    device = model.output.weight.device
    classifier = Classifier(copy.deepcopy(model), len(data.task.labels) or 1, recipe.dropout).to(device).train()
    optimizer = torch.optim.Adam(classifier.parameters(), lr=recipe.learning_rate, fused=True)
    labels = torch.tensor(labels_of(data.train), dtype=torch.long if data.task.labels else torch.float32).to(device)
    steps, (dev, examples) = steps_of(len(data.train), recipe), next(iter(data.dev.items()))
    progress = Progress(f"{data.name}: fine-tuning on {language.name}, seed {seed}", steps, "steps")
    best, best_step, weights, note = -math.inf, 0, {}, ""
    for step, places in zip(range(1, steps + 1), batches(len(data.train), recipe, seed), strict=False):
        loss = learn(classifier, optimizer, pad([encoded.train[i] for i in places], language.table, device), labels[places])
        if step % recipe.evaluate_every == 0 or step == steps:
            if not loss.isfinite():
                raise UserError(f"{data.name}: the loss is {loss.item()} after {step} steps of fine-tuning")
            found = measure_answers(data.task, predict(classifier, encoded.dev[dev], language.table), examples)
            name, value = next(iter(found.items()))
            if value > best:
                best, best_step = value, step
                weights = {key: tensor.detach().clone() for key, tensor in classifier.state_dict().items()}
            note = f"{dev} {name} {value:.3f}, best {best:.3f} after {best_step} | "
            if step - best_step >= recipe.patience * recipe.evaluate_every:
                break
        progress.update(step, note)
    progress.close(step, note)
    classifier.load_state_dict(weights)
    return classifier, best_step


def learn(classifier: Classifier, optimizer: torch.optim.Optimizer, inputs: tuple[Tensor, Tensor], labels: Tensor) -> Tensor:
    """One step on a batch: cross-entropy where `labels`, (batch,), are indices, mean squared error where they are ratings."""
    with mixed_precision("bf16" if bf16_helps(labels.device) else "fp32", labels.device):
        outputs = classifier(*inputs)
    loss = F.mse_loss(outputs[:, 0], labels) if labels.is_floating_point() else F.cross_entropy(outputs, labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach()


def transfer(
    model: GPT,
    data: TaskData,
    tokenizer: sentencepiece.SentencePieceProcessor,
    languages: list[Language],
    *,
    recipe: Recipe,
    seeds: list[int],
) -> dict:
    """Fine-tune on the first language for each seed and score all of them: an entry of result.json for each dev set.

    An entry holds, for each measure, the `majority` baseline and each language's `values` by seed, their `mean` and
    their sample standard `deviation` (None from one seed), and beside the measures how it came about.
    """
    encoded = encode_task(data, tokenizer, recipe.length)
    scores = {dev: [] for dev in data.dev}
    best_steps = []
    for seed in seeds:
        classifier, step = fine_tune(model, data, encoded, languages[0], recipe=recipe, seed=seed)
        best_steps.append(step)
        for dev, examples in data.dev.items():
            answers = {language.name: predict(classifier, encoded.dev[dev], language.table) for language in languages}
            scores[dev].append({name: measure_answers(data.task, found, examples) for name, found in answers.items()})
    entries = {}
    for dev, examples in data.dev.items():
        majority = measure_answers(data.task, np.full(len(examples), constant_answer(data.task, data.train)), examples)
        entries[dev] = {"seeds": seeds, "best_steps": best_steps, "train": len(data.train), "dev": len(examples), "measures": {
            measure: {"majority": baseline} | {
                language.name: summary([score[language.name][measure] for score in scores[dev]]) for language in languages
            } for measure, baseline in majority.items()
        }}  # fmt: skip
    return entries


def summary(values: list[float]) -> dict:
    """Mean and sample standard deviation of the values, one a seed."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "deviation": deviation, "values": values}


def average_accuracy(entries: dict[str, dict], names: list[str]) -> dict[str, float]:
    """The macro average over all entries that have an accuracy, for the majority and each language; empty without any."""
    measured = [entry["measures"]["accuracy"] for entry in entries.values() if "accuracy" in entry["measures"]]
    if not measured:
        return {}
    averages = {name: float(np.mean([accuracy[name]["mean"] for accuracy in measured])) for name in names}
    return averages | {"majority": float(np.mean([accuracy["majority"] for accuracy in measured]))}


def table(entries: dict[str, dict], names: list[str]) -> str:
    """Entries as a Markdown table: a row for each measure, a column for each language, and the majority baseline."""
    rows = [["task", "measure", *names, "majority"], ["---"] * (len(names) + 3)]
    for task, entry in entries.items():
        for measure, found in entry["measures"].items():
            cells = [found[name] for name in names]
            values = [
                f"{cell['mean']:.3f}" + (f" ± {cell['deviation']:.3f}" if len(cell["values"]) > 1 else "") for cell in cells
            ]
            rows.append([task, measure, *values, f"{found['majority']:.3f}"])
    if averages := average_accuracy(entries, names):
        rows.append(["average", "accuracy", *(f"{averages[name]:.3f}" for name in (*names, "majority"))])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
