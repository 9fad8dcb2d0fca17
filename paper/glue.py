"""GLUE transfer (section 3.3 and the right half of Figure 1): learned in L1, scored in every clone.

    python -m paper.glue out/table1/50-50 out/table1/90-10 --glue DIR [--tasks SST-2 CoLA] [--seeds 3]

DIR holds SST-2/train.tsv and the like, as gluebenchmark.com and super.gluebenchmark.com pack them. A linear
head reads the hidden state of an example's last token. All weights are trained on the task in L1; those that
did best on L1's dev set are scored in every clone, the same English with other ids. Accuracy in a clone above
the majority's comes from L1. For "centred" the clone's mean state is moved to L1's before the head reads it.
The accuracies go to out/NAME/result.json; a task that is already there is not learned again unless its
examples have changed.
"""

import copy
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from common import Parser, Progress, UserError, exclusive, number, read_json, run_script, write
from data import END_OF_DOCUMENT, encode
from evaluate import Run, load_run, require_finished
from machine import Process, default_precision, mixed_precision
from model import GPT
from text import clean, digest_of

# The paper's recipe. Tokens that an example is cut to, examples in a step, epochs, Adam's learning rate;
EXAMPLE_TOKENS, BATCH, EPOCHS, LEARNING_RATE = 128, 64, 10, 5e-5
# steps between two evaluations on the dev set, and steps without a better score after which training ends.
EVALUATE_EVERY, PATIENCE = 200, 2000
POOL = 1024  # examples among which those of like length share a batch


class Task(NamedTuple):
    """A classification task, as the official download lays it out."""

    texts: tuple[str, ...]  # columns, in the order in which they are read
    label: str  # column
    labels: tuple[str, ...] = ("0", "1")
    files: tuple[str, ...] = ("train.tsv", "dev.tsv")  # of two dev sets, the first decides when to stop
    columns: list[str] | None = None  # of a file without a line that names them


PAIR = ("sentence1", "sentence2")
ENTAILED = ("entailment", "not_entailment")
TRUTH = ("False", "True")
JSON = ("train.jsonl", "val.jsonl")
MNLI_LABELS = ("entailment", "neutral", "contradiction")
MNLI_FILES = ("train.tsv", "dev_matched.tsv", "dev_mismatched.tsv")
TASKS = {  # ten with the paper's eleven results, as MNLI has two, and one more
    "CoLA": Task(("sentence",), "label", columns=["source", "label", "star", "sentence"]),
    "SST-2": Task(("sentence",), "label"),
    "MRPC": Task(("#1 String", "#2 String"), "Quality"),
    "QQP": Task(("question1", "question2"), "is_duplicate"),
    "MNLI": Task(PAIR, "gold_label", MNLI_LABELS, MNLI_FILES),
    "QNLI": Task(("question", "sentence"), "label", ENTAILED),
    "RTE": Task(PAIR, "label", ENTAILED),
    "BoolQ": Task(("question", "passage"), "label", TRUTH, JSON),
    "MultiRC": Task(("question", "answer", "passage"), "label", files=JSON),
    # Does the pronoun in a text mean the noun? Both stand after the text.
    "WSC": Task(("text", "span2_text", "span1_text"), "label", TRUTH, JSON),
    # Not of GLUE, but a task that small models can learn: corpora/libraries.py.
    "libraries": Task(("text",), "library", ("torch", "numpy", "scipy", "sympy"), JSON),
}


class Examples(NamedTuple):
    """A file of a task: own ids of each of n examples, (n,) lengths, (n,) label indices."""

    ids: list[np.ndarray]
    lengths: np.ndarray
    labels: np.ndarray


# --- the files ------------------------------------------------------------------------------------


def read_table(path: Path, columns: list[str] | None) -> list[dict]:
    """The rows of a tab-separated file, in which nothing is quoted."""
    text = path.read_bytes().decode("utf-8-sig")  # a text may hold other line ends
    lines = [line.rstrip("\r") for line in text.split("\n")]
    lines = [line.split("\t") for line in lines if line.strip()]
    if lines and columns is None:
        columns = lines.pop(0)
    whole = [cells for cells in lines if len(cells) == len(columns)]
    if len(whole) < len(lines):  # the official QQP has a few
        print(f"{path}: {len(lines) - len(whole)} rows without all cells are left out")
    return [dict(zip(columns, cells, strict=True)) for cells in whole]


def read_records(path: Path) -> list[dict]:
    """The rows of a file with a JSON object a line; each answer to a question of MultiRC is a row."""
    rows = []
    for line in path.read_text(encoding="utf-8-sig").split("\n"):
        if not line.strip():
            continue
        record = json.loads(line)
        passage = record.get("passage")
        if not isinstance(passage, dict):
            rows.append(record | record.get("target", {}))  # WSC has a target
            continue
        for question in passage["questions"]:  # of MultiRC
            for answer in question["answers"]:
                texts = {"passage": passage["text"], "answer": answer["text"]}
                rows.append(question | texts | {"label": answer["label"]})
    return rows


def join(texts: list[np.ndarray], length: int) -> np.ndarray:
    """The texts of an example in a row, in at most `length` tokens: the longest is cut first."""
    sizes = [len(text) for text in texts]
    while sum(sizes) > length:
        sizes[sizes.index(max(sizes))] -= 1
    parts = [text[:size] for text, size in zip(texts, sizes, strict=True)]
    for part in parts[:-1]:
        part[-1] = END_OF_DOCUMENT  # shows where the next one begins
    return np.concatenate(parts)


def read_examples(path: Path, task: Task, tokenizer, length: int) -> Examples:
    """Read a file. An example is its texts in a row, each closed by <eod>, in at most `length` tokens."""
    try:
        rows = read_records(path) if path.suffix == ".jsonl" else read_table(path, task.columns)
        labels = [str(row[task.label]) for row in rows]
        if strange := set(labels) - set(task.labels):
            raise ValueError(f"a label is {strange.pop()!r}, expected {' or '.join(task.labels)}")
        columns = []
        for column in task.texts:
            texts = [clean(row[column]) for row in rows]
            columns.append(encode(tokenizer, texts))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = f"it has no column {error}" if isinstance(error, LookupError) else error
        raise UserError(f"{path} is not laid out as this task's official download: {reason}") from None
    if not rows:
        raise UserError(f"{path} holds no examples")

    ids = [join(texts, length) for texts in zip(*columns, strict=True)]
    lengths = np.array([len(example) for example in ids])
    if many := (lengths == length).sum():
        print(f"{path}: {many} of {len(rows)} examples fill or exceed {length} tokens")
    labels = [task.labels.index(label) for label in labels]
    return Examples(ids, lengths, np.array(labels))


# --- learned in L1, scored in every clone ---------------------------------------------------------


class Classifier(nn.Module):
    """A GPT with a linear head in place of its output layer."""

    def __init__(self, gpt: GPT, labels: int):
        super().__init__()
        self.gpt = gpt
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(gpt.size.width, labels)
        nn.init.normal_(self.head.weight, 0.0, 0.02)
        nn.init.zeros_(self.head.bias)

    def read(self, examples: Examples, places: np.ndarray, table: np.ndarray) -> Tensor:
        """Last hidden states of the m examples at `places`, read through `table` -> (m, width) float32."""
        device = self.head.weight.device
        rows = [torch.from_numpy(table[examples.ids[place]]) for place in places]
        tokens = pad_sequence(rows, batch_first=True).to(device)
        # fp16 would need a scaled loss, so a GPU without bf16 uses float32.
        precision = "bf16" if default_precision(device) == "bf16" else "fp32"
        with mixed_precision(precision, device):
            hidden = self.gpt.hidden(tokens)
        ends = examples.lengths[places] - 1
        return hidden[torch.arange(len(places)), ends].float()

    def forward(self, examples: Examples, places: np.ndarray, table: np.ndarray) -> Tensor:
        """The answers to the m examples at `places`: (m, labels) float32."""
        return self.head(self.dropout(self.read(examples, places, table)))


@torch.no_grad()
def last_states(classifier: Classifier, examples: Examples, table: np.ndarray) -> Tensor:
    """Last hidden states of all n examples, in their order: (n, width)."""
    classifier.eval()
    order = np.argsort(examples.lengths, kind="stable")  # so that little of a batch is padding
    parts = []
    for places in np.split(order, range(256, len(order), 256)):
        parts.append(classifier.read(examples, places, table))
    classifier.train()
    return torch.cat(parts)[np.argsort(order)]


def accuracy(classifier: Classifier, examples: Examples, states: Tensor) -> float:
    """Share of right answers to the examples, which have these last states."""
    answers = classifier.head(states).argmax(1).cpu().numpy()
    return float(np.mean(answers == examples.labels))


def epoch(lengths: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
    """Batches of places, all examples in random order; in each POOL, those of like length together.

    Otherwise more than half of CoLA's batches would be padding.
    """
    order, batches = random.permutation(len(lengths)), []
    for pool in np.split(order, range(POOL, len(order), POOL)):
        by_length = pool[np.argsort(lengths[pool], kind="stable")]
        batches += np.split(by_length, range(BATCH, len(pool), BATCH))
    random.shuffle(batches)
    return batches


def fine_tune(classifier: Classifier, train: Examples, dev: Examples, table: np.ndarray, seed: int) -> None:
    """Train on a task through `table`; the classifier then has the weights that did best on `dev`."""
    random = np.random.default_rng(seed)
    batches = []
    for _ in range(EPOCHS):
        batches += epoch(train.lengths, random)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=LEARNING_RATE, fused=True)
    progress = Progress(f"fine-tuning with seed {seed}", len(batches), "steps")
    best, best_step, weights = -1.0, 0, {}

    for step, places in enumerate(batches, 1):
        answers = classifier(train, places, table)
        labels = torch.from_numpy(train.labels[places])
        F.cross_entropy(answers, labels.to(answers.device)).backward()
        optimizer.step()
        optimizer.zero_grad()
        progress.update(step, f"best {best:.3f} after {best_step} | " if best_step else "")
        if step % EVALUATE_EVERY and step < len(batches):
            continue
        found = accuracy(classifier, dev, last_states(classifier, dev, table))
        if found > best:
            best, best_step, weights = found, step, copy.deepcopy(classifier.state_dict())
        elif step - best_step >= PATIENCE:
            break
    classifier.load_state_dict(weights)


def transfer(run: Run, task: Task, files: list[Path], seeds: int) -> list[dict]:
    """Fine-tune on a task in L1 with each seed; returns an entry of result.json for each dev set."""
    l1 = run.languages[0]
    # GLUE is English, so only clones of L1 count: tokenisers of others are for another text.
    clones = [language for language in run.languages if language.source == l1.source]
    tokenizer = run.dataset.tokenizer(l1.source)
    length = min(EXAMPLE_TOKENS, run.model.length)
    train, *devs = [read_examples(file, task, tokenizer, length) for file in files]

    commonest = np.bincount(train.labels).argmax()
    entries = []
    for dev in devs:
        majority = float(np.mean(dev.labels == commonest))
        entries.append({"seeds": list(range(seeds)), "majority": majority})
    for seed in range(seeds):
        torch.manual_seed(seed)
        classifier = Classifier(copy.deepcopy(run.model), len(task.labels))
        classifier.to(run.model.output_embedding.device)
        fine_tune(classifier, train, devs[0], l1.table, seed)
        for entry, dev in zip(entries, devs, strict=True):
            found = {l1.name: last_states(classifier, dev, l1.table)}
            mean = found[l1.name].mean(0)
            for language in clones[1:]:
                states = last_states(classifier, dev, language.table)
                found[language.name] = states
                # The states of two languages can lie apart in a direction that says nothing about the text.
                found[f"{language.name}, centred"] = states - states.mean(0) + mean
            for name, states in found.items():
                share = accuracy(classifier, dev, states)
                entry.setdefault(name, []).append(share)
                print(f"accuracy in {name} {share:.3f}, of the majority {entry['majority']:.3f}")
    return entries


def evaluate(run: Run, folder: Path, name: str, seeds: int) -> None:
    """Score the run on a task, unless its result.json has it already."""
    path, task = run.out / "result.json", TASKS[name]
    files = [folder / name / file for file in task.files]
    digest = digest_of(folder / name, files)
    known = read_json(path).get("glue", {}).get(name)
    if known and known.get("examples") == digest and len(known["seeds"]) >= seeds:
        print(f"{run.out} has its {name}")
        return
    print(f"{run.out}: {name}", flush=True)
    entries = transfer(run, task, files, seeds)
    with exclusive(run.out, wait=True):
        result = read_json(path)  # hours may have passed, in which others wrote to it
        glue = result.setdefault("glue", {})
        for key, entry in zip((name, f"{name}-mm"), entries, strict=False):  # of MNLI, the mismatched set
            glue[key] = entry | {"examples": digest}
        write(path, result)


def main(arguments: list[str] | None = None) -> None:
    """Fine-tune each run that the command line names on each task."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="out/NAME", help="folders of finished runs")
    add("--glue", type=Path, metavar="DIR", required=True, help="folder of tasks")
    add("--tasks", nargs="+", choices=TASKS, metavar="TASK", help="tasks; default: all that DIR holds")
    add("--seeds", type=number(int, 1, 100), default=1, help="number of fine-tuning runs; default: 1")
    add("--device", choices=["cpu", "cuda", "mps"], help="device; default: cuda if there is one")
    args = parser.parse_args(arguments)
    tasks = args.tasks or [name for name in TASKS if (args.glue / name).is_dir()]
    if not tasks:
        parser.error(f"--glue {args.glue} holds no task, expected folders named {', '.join(TASKS)}")
    for out in args.runs:
        require_finished(out)  # all of them, before the first is evaluated
    process = Process.current(args.device)
    for out in args.runs:
        run = load_run(out, process.device)
        for name in tasks:
            evaluate(run, args.glue, name, args.seeds)


if __name__ == "__main__":
    run_script(main)
