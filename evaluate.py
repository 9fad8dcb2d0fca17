"""What a trained run can do: perplexity in its languages, and GLUE transfer (section 3.3 of the paper).

    python evaluate.py out/NAME                                # perplexity on the held-out text, once more
    python evaluate.py out/NAME --glue DIR --tasks SST-2 CoLA  # learned in L1, scored in all clones
    python evaluate.py out/NAME --text my.txt --as EN2         # of a text of your own, printed only
    python evaluate.py out/NAME --sample "Return the" --as EN2                # text that the model writes
    python evaluate.py out/NAME --sample "Return the" "mean of" --as EN1 EN2  # the prompt changes language

Perplexity, into out/NAME/result.json: a window of one sequence length moves over the text by a quarter of its
length (paper: 512 by 128), and only the last quarter of its predictions counts: every scored token has seen
three quarters of a window. The softmax runs over the whole joint vocabulary: a model that answers in the
wrong language pays for it. Clones are scored on the same text. Beside a monolingual run stands what counting
n-grams of its training text reaches: a model that is no better than bigrams has not yet learned to look back.
Arithmetic is float32, but for matrix products on GPUs: those are fp16, at training's speed.

GLUE (right half of Figure 1), too: a linear head reads the last token's hidden state, all weights learn a
task in L1, and those that did best on L1's dev set are scored in every clone: the same English with other
ids. What a clone scores above the majority, it has from L1.
"""

import copy
import json
import math
import string
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import (
    Parser,
    Progress,
    UserError,
    code_hash,
    exclusive,
    markdown,
    number,
    read_json,
    run_script,
    write,
)
from data import (
    END_OF_DOCUMENT,
    UNKNOWN,
    Dataset,
    Language,
    build_languages,
    build_mixture,
    encode,
    surface_forms,
    token_bytes,
)
from kernels.cross_entropy import linear_cross_entropy
from machine import Process, default_precision, mixed_precision
from model import GPT, build_model
from text import clean, digest_of, documents

BATCH_TOKENS = {"cpu": 2048, "cuda": 65536, "mps": 65536}  # scored at a time: what a CPU's cache holds
# Of matrix products: fp16 is as fast as bf16 and more exact; where it overflows, float32 follows.
ARITHMETIC = {"cpu": ["fp32"], "cuda": ["fp16", "fp32"], "mps": ["fp32"]}

NGRAMS = (1, 2, 3, 5)  # orders whose perplexity stands beside a monolingual run's
MOST_COUNTED = 20_000_000  # tokens: counting needs some hundred bytes for each


class Run(NamedTuple):
    """A finished run: what it wrote, the text it read, and its model."""

    out: Path
    config: dict
    dataset: Dataset
    languages: list[Language]
    model: GPT


def is_finished(out: Path) -> bool:
    """Whether a run has ended; one that has not is to have a checkpoint."""
    if not (out / "config.json").exists():
        raise UserError(f"{out} is no run of train.py: it has no config.json")
    if not (out / "result.json").exists() and not (out / "checkpoint.pt").exists():
        raise UserError(f"{out} is not finished, and has no checkpoint; start its train.py command again")
    if missing := {"data", "fingerprint", "code"} - set(read_json(out / "config.json")):
        raise UserError(f"{out / 'config.json'} is not of train.py: it lacks {', '.join(sorted(missing))}")
    return (out / "result.json").exists()


def require_finished(out: Path) -> None:
    """Refuse a run that has not ended."""
    if not is_finished(out):
        raise UserError(f"{out} is not finished: it has no result.json; start its train.py command again")


def load_weights(path: Path) -> dict:
    """What `save_weights` wrote; nothing that the file may hold is executed."""
    if zipfile.ZipFile(path).testzip():  # PyTorch does not look at the checksums of its own files
        raise ValueError("a checksum is wrong")
    return torch.load(path, map_location="cpu", weights_only=True)


def is_scored(out: Path) -> bool:
    """Whether the result.json of a finished run has perplexities."""
    return all("ppl" in language for language in read_json(out / "result.json")["languages"])


def load_run(out: Path, device: torch.device, file: str = "model.pt") -> Run:
    """Open a run's folder with the data it was trained on and the weights in one of its files."""
    is_finished(out)  # or the error says what is missing
    config = read_json(out / "config.json")
    dataset = Dataset(Path(config["data"]))
    if dataset.fingerprint != config["fingerprint"]:
        raise UserError(f"{out} was trained on other data than {dataset.folder} now holds")
    try:
        weights = load_weights(out / file)
        weights = weights.get("model", weights)  # a checkpoint has more
    except Exception as error:  # what is broken decides which
        raise UserError(f"{out / file} is damaged or missing ({error})") from None
    languages = build_languages(dataset, config)
    try:
        model = build_model(config, languages)
        model.load_state_dict(weights)
    except (KeyError, RuntimeError, TypeError):
        maker = "the run was made by other code" if config["code"] != code_hash() else "it is another run's"
        raise UserError(f"{out / file} does not fit this model.py: {maker}") from None
    return Run(out, config, dataset, languages, model.to(device).eval())


# --- perplexity -----------------------------------------------------------------------------------


def sliding_windows(predictions: int, length: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Where windows begin, and how many predictions at the end of each count: (windows,) twice.

    The first `length - stride` predictions of a text never count. What a whole number of strides leaves over
    is scored by one more window that ends with the text. A shorter text is one window.
    """
    length = min(length, predictions)
    starts = np.arange(0, predictions - length + 1, stride)
    counted = np.full(len(starts), min(stride, length))
    if left_over := predictions - length - int(starts[-1]):
        starts, counted = np.append(starts, predictions - length), np.append(counted, left_over)
    return starts, counted


def score(model: GPT, tokens: np.ndarray, progress: Progress) -> np.ndarray:
    """Nats, (counted,), that each counted prediction of a text costs; the text is (n,) joint ids."""
    device = model.output_embedding.device
    length, stride = min(model.length, len(tokens) - 1), max(1, model.length // 4)
    starts, counted = sliding_windows(len(tokens) - 1, model.length, stride)
    step = max(1, BATCH_TOKENS[device.type] // length)
    batches = [slice(first, first + step) for first in range(0, len(starts), step)]

    @torch.inference_mode()
    def losses(batch: slice) -> np.ndarray:
        windows = tokens[starts[batch, None] + np.arange(length + 1)].astype(np.int64)
        windows = torch.from_numpy(windows).to(device)
        for precision in ARITHMETIC[device.type]:
            with mixed_precision(precision, device):
                # The output layer is the largest matrix of a small model: it has the last positions only.
                hidden = model.hidden(windows[:, :-1], last=stride)
                _, nats = linear_cross_entropy(hidden, model.output_embedding, windows[:, 1:][:, -stride:])
            if nats.isfinite().all():
                break
        is_counted = np.arange(nats.shape[1]) >= nats.shape[1] - counted[batch, None]
        progress.update(starts[batch][-1])
        return nats.cpu().numpy()[is_counted]

    # Each thread of a CPU scores windows of its own: those that share a matrix product wait for each other.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads if device.type == "cpu" else 1) as pool:
            return np.concatenate(list(pool.map(losses, batches))).astype(np.float64)
    finally:
        torch.set_num_threads(threads)


def standard_error(nats: np.ndarray, document_of: np.ndarray) -> float | None:
    """Standard error of exp(mean of `nats`), seen as that of all texts of the kind; None from one document.

    Tokens of a document are not independent, documents are. With s nats and n tokens in each of D documents,
    N tokens and the mean m in all, the variance of m is D / (D - 1) * sum((s - m * n)^2) / N^2; the delta
    method gives exp(m) times its root.
    """
    _, places = np.unique(document_of, return_inverse=True)
    lengths, totals, mean = np.bincount(places), np.bincount(places, nats), nats.mean()
    if len(lengths) < 2:
        return None
    variance = len(lengths) / (len(lengths) - 1) * ((totals - mean * lengths) ** 2).sum() / len(nats) ** 2
    return math.exp(min(mean, 700.0)) * math.sqrt(variance)


def perplexity(run: Run, language: Language, ids: np.ndarray, text_bytes: int) -> dict:
    """Perplexity of (n,) own ids in one of the run's languages, and what result.json has beside it.

    text_bytes: how long the text is that the ids stand for.
    """
    if len(ids) < 2:
        raise UserError(f"the text to score as {language.name} has {len(ids)} tokens, expected two or more")
    progress = Progress(f"{run.out.name}: scoring {language.name}", len(ids), "tokens")
    nats = score(run.model, language.table[ids], progress)
    if not np.isfinite(nats).all():
        raise UserError(
            f"{run.out}: its predictions are not finite; the run diverged, or its weights are damaged"
        )
    scored = slice(len(ids) - len(nats), None)
    scored_bytes = token_bytes(run.dataset.tokenizer(language.source), ids, text_bytes)[scored].sum()
    document_of = np.cumsum(np.append(0, ids[:-1] == END_OF_DOCUMENT))[scored]  # it belongs to what it closes
    measured = {
        "ppl": math.exp(min(nats.mean(), 700.0)),
        "ppl_standard_error": standard_error(nats, document_of),
        "bits_per_byte": float(nats.sum() / math.log(2) / scored_bytes) if scored_bytes else None,
        "scored_tokens": len(nats),
        "scored_documents": int(document_of[-1] - document_of[0]) + 1,
        "unknown": float(np.mean(ids[scored] == UNKNOWN)),
    }
    ppl, error, bits, tokens, texts, unknown = measured.values()
    note = f"PPL {ppl:.2f}{f' ± {error:.2g}' if error else ''}, {bits or math.nan:.3f} bits per byte"
    progress.update(len(ids), f"{note}, {tokens} tokens of {texts} documents | ")
    if unknown > 0.01:
        print(f"warning: {language.name} has no piece for {unknown:.0%} of these tokens: its PPL says little")
    return measured


def ngram_perplexities(windows: np.ndarray, test: np.ndarray, vocabulary: int, longest: int) -> list[float]:
    """What counting reaches: perplexity of n-gram models with Witten-Bell smoothing, for n of 1 to `longest`.

    They count (windows, length) training tokens and are scored on (m,) test tokens. With c(hw) the count of
    token w after context h, and T(h) how many different tokens follow it,
    P(w | h) = (c(hw) + T(h) P(w | h less its first token)) / (c(h) + T(h)).
    """
    tokens = np.concatenate([windows.ravel(), test]).astype(np.int64)
    number = np.arange(len(tokens))
    trained = number < windows.size
    place = np.where(trained, number % windows.shape[1], number - windows.size)
    scored = ~trained & (place >= longest - 1)  # the same tokens for each n
    context, probability = np.zeros_like(tokens), np.full(len(tokens), 1 / vocabulary)
    perplexities = []
    for n in range(1, longest + 1):
        counted = trained & (place >= n - 1)  # what reaches back before its window is no n-gram
        first, ngram = np.unique(context * vocabulary + tokens, return_index=True, return_inverse=True)[1:]
        ngram_counts = np.bincount(ngram[counted], minlength=len(first))
        context_counts = np.bincount(context[counted], minlength=context.max() + 1)
        followers = np.bincount(context[first][ngram_counts > 0], minlength=len(context_counts))
        seen = context_counts[context] > 0
        weight, known = followers[context[seen]], context_counts[context[seen]]
        probability[seen] = (ngram_counts[ngram[seen]] + weight * probability[seen]) / (known + weight)
        perplexities.append(float(np.exp(-np.log(probability[scored]).mean())))
        context = np.roll(ngram, 1)  # the n tokens before each
    return perplexities


def evaluate_counting(run: Run) -> dict[str, float]:
    """Perplexity, by n, of n-gram models on the text that a monolingual run read and is tested on."""
    mixture, (language,) = build_mixture(run.dataset, run.config), run.languages
    if mixture.total * mixture.length > MOST_COUNTED:
        print(f"{run.out.name}: n-grams of more than {MOST_COUNTED:,} tokens are not counted")
        return {}
    windows, _ = mixture.batch(np.arange(mixture.total))
    stream = run.dataset.stream(language.source, "test")
    test = language.table[stream.read(0, len(stream))]
    found = ngram_perplexities(windows, test, run.model.vocabulary, max(NGRAMS))
    return {str(n): found[n - 1] for n in NGRAMS}


def score_languages(run: Run) -> list[dict]:
    """Perplexity in each language on the test split of its source."""
    measured = []
    for language in run.languages:
        stream = run.dataset.stream(language.source, "test")
        size = run.dataset.languages[language.source]["test"]["bytes"]
        measured.append(perplexity(run, language, stream.read(0, len(stream)), size))
    return measured


def score_held_out_text(run: Run) -> None:
    """Perplexity in each language on the test split of its source, into result.json."""
    result = read_json(run.out / "result.json")
    if any("ppl" in entry for entry in result["languages"]) and run.config["code"] != code_hash():
        raise UserError(f"{run.out} was scored already, and made by other code; go back to it to score again")
    measured = score_languages(run)
    found = {"ngrams": evaluate_counting(run)} if len(run.languages) == 1 else {}
    with exclusive(run.out, wait=True):
        result = read_json(run.out / "result.json") | found
        for entry, values in zip(result["languages"], measured, strict=True):
            entry.update(values)
        write(run.out / "result.json", result)


def language_called(run: Run, name: str) -> Language:
    """The language of the run that --as names."""
    languages = {language.name: language for language in run.languages}
    if name not in languages:
        raise UserError(f"--as {name}: {run.out} has {', '.join(languages)}")
    return languages[name]


def evaluate_text(run: Run, path: Path, name: str) -> None:
    """Perplexity of a text, cleaned and tokenised like a corpus, in one of the languages; printed only."""
    language = language_called(run, name)
    texts = [text for document in documents(path) if (text := clean(document.text))]
    ids = encode(run.dataset.tokenizer(language.source), texts)
    size = sum(len(text.encode()) for text in texts)
    perplexity(run, language, np.concatenate([np.empty(0, np.uint16), *ids]), size)


# --- text that the model writes -------------------------------------------------------------------

LETTERS = string.ascii_uppercase + string.ascii_lowercase
# EN1's are plain, EN2's bold, EN3's typewritten: alphabets of Unicode in which no letter is missing.
BEGINNINGS = (0x1D5D4, 0x1D670, 0x1D56C, 0x1D468, 0x1D4D0, 0x1D63C, 0x1D5A0, 0x1D400, 0x1D608)
ALPHABETS = [{}, *({ord(c): begin + i for i, c in enumerate(LETTERS)} for begin in BEGINNINGS)]


def spell(run: Run) -> list[str]:
    """How each joint id is printed: in its language's alphabet, or plain if several languages share it."""
    spelling = [""] * run.model.vocabulary
    for i, language in enumerate(run.languages):
        alphabet = ALPHABETS[i % len(ALPHABETS)]  # which ten clones do not exhaust
        forms = surface_forms(run.dataset.tokenizer(language.source))
        for form, joint in zip(forms, language.table, strict=True):
            spelling[joint] = form if spelling[joint] else form.translate(alphabet)
    return [form.replace("\u2581", " ") for form in spelling]


@torch.inference_mode()
def write_text(model: GPT, ids: list[int], tokens: int, temperature: float, seed: int) -> tuple:
    """Draw joint ids that follow `ids`: (tokens,) ids, and (tokens, vocabulary) probabilities they had.

    Those are the model's own, of temperature 1. It sees as many tokens as a sequence of its training has.
    """
    generator, probabilities = torch.Generator().manual_seed(seed), []
    progress = Progress("writing", tokens, "tokens", quiet=tokens < 1000)
    for done in range(tokens):
        progress.update(done)
        seen = torch.tensor([ids[-model.length :]], device=model.output_embedding.device)
        logits = F.linear(model.hidden(seen, last=1)[0, 0], model.output_embedding).float().cpu()
        probabilities.append(logits.softmax(0))
        ids = [*ids, int(torch.multinomial((logits / temperature).softmax(0), 1, generator=generator))]
    return ids[-tokens:], torch.stack(probabilities)


def print_sample(run: Run, prompts: list[str], names: list[str], tokens: int, temperature, seed: int) -> None:
    """Print prompts, each in its language, what the model writes after them, and who gets its probability."""
    prompt = [int(language_called(run, names[0]).table[END_OF_DOCUMENT])]  # a new document begins
    for text, name in zip(prompts, names, strict=True):
        language = language_called(run, name)
        prompt += language.table[run.dataset.tokenizer(language.source).encode(clean(text))].tolist()
    ids, probabilities = write_text(run.model, prompt, tokens, temperature, seed)
    spelling = spell(run)
    before, after = ("".join(spelling[i] for i in part) for part in (prompt[1:], ids))
    print(f"{run.out.name}, the prompt|and what the model writes:\n\n{before.strip()}|{after}\n")
    known_to = np.bincount(np.concatenate([np.unique(language.table) for language in run.languages]))
    parts = {"pieces that languages share": np.flatnonzero(known_to > 1)}
    for language, alphabet in zip(run.languages, ALPHABETS * len(run.languages), strict=False):
        own = np.unique(language.table)
        parts[language.name.translate(alphabet)] = own[known_to[own] == 1]
    for name, ids in parts.items():
        share = float(probabilities[:, ids].sum(1).mean())
        print(f"{name}: {share:.1%} of the probability, mean of {tokens} steps, the draws at {temperature:g}")


# --- GLUE: the tasks ------------------------------------------------------------------------------


class Task(NamedTuple):
    """A classification task, as the official download lays it out; of its test set, the labels are secret."""

    texts: tuple[str, ...]  # columns, in the order in which they are read: what may be cut off comes last
    label: str  # column
    labels: tuple[str, ...] = ("0", "1")
    files: tuple[str, ...] = ("train.tsv", "dev.tsv")  # of two dev sets, the first decides when to stop
    columns: tuple[str, ...] | None = None  # of a .tsv file without a line that names them
    flatten: Callable[[dict], list[dict]] = lambda record: [record]  # an object of a .jsonl file to its rows


def multirc(record: dict) -> list[dict]:
    """Each proposed answer to each question of a passage, to be called right or wrong by itself."""
    passage = record["passage"]
    return [
        {**question, "passage": passage["text"], "answer": answer["text"], "label": answer["label"]}
        for question in passage["questions"]
        for answer in question["answers"]
    ]


def wsc(record: dict) -> list[dict]:
    """Whether the pronoun of a text means the noun: both stand after it."""
    target = record["target"]
    return [{**record, "pronoun": target["span2_text"], "noun": target["span1_text"]}]


PAIR = ("sentence1", "sentence2")
ENTAILED, TRUTH = ("entailment", "not_entailment"), ("False", "True")
JSON = ("train.jsonl", "val.jsonl")
MNLI_LABELS = ("entailment", "neutral", "contradiction")
MNLI_FILES = ("train.tsv", "dev_matched.tsv", "dev_mismatched.tsv")
TASKS = {  # the paper's eleven results: MNLI has two
    "CoLA": Task(("sentence",), "label", columns=("source", "label", "star", "sentence")),
    "SST-2": Task(("sentence",), "label"),
    "MRPC": Task(("#1 String", "#2 String"), "Quality"),
    "QQP": Task(("question1", "question2"), "is_duplicate"),
    "MNLI": Task(PAIR, "gold_label", MNLI_LABELS, MNLI_FILES),
    "QNLI": Task(("question", "sentence"), "label", ENTAILED),
    "RTE": Task(PAIR, "label", ENTAILED),
    "BoolQ": Task(("question", "passage"), "label", TRUTH, JSON),
    "MultiRC": Task(("question", "answer", "passage"), "label", files=JSON, flatten=multirc),
    "WSC": Task(("text", "pronoun", "noun"), "label", TRUTH, JSON, flatten=wsc),
}


class Examples(NamedTuple):
    """A file of a task: the own ids of each example, and the indices of their labels, (examples,)."""

    rows: list[np.ndarray]
    labels: np.ndarray


def read_rows(path: Path, task: Task) -> Iterator[dict]:
    """The rows of a tab-separated file with nothing quoted, or of one with a JSON object a line."""
    columns, broken = task.columns, 0
    with open(path, encoding="utf-8-sig", newline="\n") as lines:
        for line in lines:
            if not line.strip():
                continue
            cells = line.rstrip("\r\n").split("\t")
            if path.suffix == ".jsonl":
                yield from task.flatten(json.loads(line))
            elif columns is None:
                columns = cells
            elif len(cells) == len(columns):
                yield dict(zip(columns, cells, strict=True))
            else:
                broken += 1
    if broken:  # the official QQP has a few
        print(f"{path}: {broken} rows without all cells are left out")


def read_examples(path: Path, task: Task, tokenizer, length: int) -> Examples:
    """Read a file. An example is its texts in a row, each closed by <eod>, cut to `length` tokens."""
    try:
        rows = list(read_rows(path, task))
        given = [str(row[task.label]) for row in rows]
        if strange := set(given) - set(task.labels):
            raise ValueError(f"a label is {strange.pop()!r}, expected {' or '.join(task.labels)}")
        labels = [task.labels.index(label) for label in given]
        texts = [encode(tokenizer, [clean(row[column]) for row in rows]) for column in task.texts]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = f"it has no column {error}" if isinstance(error, LookupError) else error
        raise UserError(f"{path} is not laid out as this task's official download: {reason}") from None
    if not rows:
        raise UserError(f"{path} holds no examples")
    whole = [np.concatenate(parts) for parts in zip(*texts, strict=True)]
    if cut := sum(len(ids) > length for ids in whole):
        print(f"{path}: {cut} of {len(whole)} examples are longer than {length} tokens; their end is cut off")
    return Examples([ids[:length] for ids in whole], np.array(labels))


# --- GLUE: learned in L1, scored in every clone ---------------------------------------------------

# The paper's recipe. Tokens that an example is cut to, examples of a step, epochs, Adam's learning rate;
EXAMPLE_TOKENS, BATCH, EPOCHS, LEARNING_RATE = 128, 64, 10, 5e-5
# steps between two looks at the dev set, and steps without a better score that end it.
EVALUATE_EVERY, PATIENCE = 200, 2000
POOL = 16 * BATCH  # examples among which those of like length are put together


class Classifier(nn.Module):
    """A GPT with a linear head in place of its output layer."""

    def __init__(self, gpt: GPT, labels: int):
        super().__init__()
        self.gpt, self.dropout, self.head = gpt, nn.Dropout(0.1), nn.Linear(gpt.size.width, labels)
        nn.init.normal_(self.head.weight, 0.0, 0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, rows: list[np.ndarray], table: np.ndarray) -> Tensor:
        """n rows of own ids, read in the language of `table` -> (n, labels) float32."""
        device, lengths = self.head.weight.device, np.array([len(row) for row in rows])
        tokens = np.zeros((len(rows), lengths.max()), np.int64)  # padding on the right, where no one sees it
        tokens[np.arange(tokens.shape[1]) < lengths[:, None]] = table[np.concatenate(rows)]
        # fp16 would need its loss scaled: a GPU that has no bf16 takes float32.
        precision = "bf16" if default_precision(device) == "bf16" else "fp32"
        with mixed_precision(precision, device):
            hidden = self.gpt.hidden(torch.from_numpy(tokens).to(device))
            last = hidden[torch.arange(len(rows)), torch.from_numpy(lengths - 1)]
            return self.head(self.dropout(last)).float()


@torch.no_grad()
def accuracy(classifier: Classifier, examples: Examples, table: np.ndarray) -> float:
    """Share of right answers to examples that are read through `table`."""
    order = np.argsort([len(row) for row in examples.rows], kind="stable")  # little of a batch is padding
    batches = np.split(order, range(256, len(order), 256))
    classifier.eval()
    answers = [classifier([examples.rows[i] for i in places], table).argmax(1).cpu() for places in batches]
    classifier.train()
    return float(np.mean(torch.cat(answers).numpy() == examples.labels[order]))


def epoch(rows: list[np.ndarray], random: np.random.Generator) -> list[np.ndarray]:
    """Batches of indices, all rows once in random order; of a thousand, those of like length together.

    So little of a batch is padding, which else would be more than half of CoLA's.
    """
    order, lengths = random.permutation(len(rows)), np.array([len(row) for row in rows])
    pools = np.split(order, range(POOL, len(order), POOL))
    pools = [pool[np.argsort(lengths[pool], kind="stable")] for pool in pools]
    batches = [pool[first : first + BATCH] for pool in pools for first in range(0, len(pool), BATCH)]
    random.shuffle(batches)
    return batches


def fine_tune(model: GPT, train: Examples, dev: Examples, table, *, labels: int, seed: int, label: str):
    """A Classifier, from a copy of `model`, that learned a task through `table`: its best step on `dev`."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    batches = [batch for _ in range(EPOCHS) for batch in epoch(train.rows, random)]
    device = model.output_embedding.device
    classifier = Classifier(copy.deepcopy(model), labels).to(device).train()
    optimizer = torch.optim.Adam(classifier.parameters(), lr=LEARNING_RATE, fused=True)
    best, best_step, weights, note = -1.0, 0, {}, ""
    progress = Progress(label, len(batches), "steps")

    for step, places in enumerate(batches, 1):
        answers = classifier([train.rows[i] for i in places], table)
        F.cross_entropy(answers, torch.from_numpy(train.labels[places]).to(device)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        if step % EVALUATE_EVERY == 0 or step == len(batches):
            found = accuracy(classifier, dev, table)
            if found > best:
                best, best_step, weights = found, step, copy.deepcopy(classifier.state_dict())
            note = f"best {best:.3f} after {best_step} | "
            if step - best_step >= PATIENCE:
                progress.total = step
        progress.update(step, note)
        if step == progress.total:
            break

    classifier.load_state_dict(weights)
    return classifier


def transfer(run: Run, languages: list[Language], folder: Path, name: str, seeds: list[int]) -> dict:
    """Fine-tune on a task in L1 once a seed; returns accuracies: an entry of result.json for each dev set."""
    task, l1 = TASKS[name], languages[0]
    tokenizer, length = run.dataset.tokenizer(l1.source), min(EXAMPLE_TOKENS, run.model.length)
    train, *devs = [read_examples(folder / name / file, task, tokenizer, length) for file in task.files]
    commonest = Counter(train.labels.tolist()).most_common(1)[0][0]
    entries = [{"seeds": seeds, "majority": float(np.mean(dev.labels == commonest))} for dev in devs]
    for seed in seeds:
        label = f"{run.out.name}: {name} in {l1.name}, seed {seed}"
        options = {"labels": len(task.labels), "seed": seed, "label": label}
        classifier = fine_tune(run.model, train, devs[0], l1.table, **options)
        for entry, dev in zip(entries, devs, strict=True):
            for language in languages:
                entry.setdefault(language.name, []).append(accuracy(classifier, dev, language.table))
    return dict(zip((name, f"{name}-mm"), entries, strict=False))  # MNLI's second dev set is mismatched


def evaluate_glue(run: Run, folder: Path, names: list[str], seeds: list[int]) -> None:
    """Score the run on each task that its result.json does not have yet, and print the table of all."""
    # GLUE is English: languages that are no clones of L1 have tokenisers for another text.
    languages = [language for language in run.languages if language.source == run.languages[0].source]
    path = run.out / "result.json"
    for name in names:
        known = read_json(path).get("glue", {}).get(name, {})
        digest = digest_of(folder / name, [folder / name / file for file in TASKS[name].files])
        if known.get("examples") == digest and set(seeds) <= set(known["seeds"]):
            continue
        found = transfer(run, languages, folder, name, seeds)
        with exclusive(run.out, wait=True):
            result = read_json(path)  # hours may have passed, in which others wrote to it
            for entry in found.values():
                entry["examples"] = digest
            write(path, result | {"glue": result.get("glue", {}) | found})

    def cell(values) -> str:
        return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if np.size(values) > 1 else "")

    glue = read_json(path)["glue"]
    columns = [*(language.name for language in languages), "majority"]
    rows = [[task, *(cell(entry[column]) for column in columns)] for task, entry in glue.items()]
    means = [np.mean([np.mean(entry[column]) for entry in glue.values()]) for column in columns]
    print(markdown(["accuracy", *columns], [*rows, [f"mean of {len(glue)}", *map(cell, means)]]))


# --- the command ----------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    """Evaluate each run that the command line names and merge what is found into its result.json."""
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="*", type=Path, metavar="out/NAME", help="folders of runs")
    parser.add_argument("--device", choices=["cpu", "cuda", "mps"], help="(cuda where there is one)")
    parser.add_argument("--text", type=Path, help="another text: a .txt or .jsonl file, or a folder of them")
    parser.add_argument("--as", nargs="+", dest="languages", metavar="L", help="its language in the run: EN2")
    parser.add_argument("--sample", nargs="+", metavar="TEXT", help="to go on from; --as has its language")
    parser.add_argument("--tokens", type=number(int, 1, 1e5), default=200, help="of the sample (200)")
    parser.add_argument("--temperature", type=number(float, 0.01, 99), default=0.8, help="of its draws (0.8)")
    parser.add_argument("--seed", type=number(int, 0), default=0, help="of its draws (0)")
    parser.add_argument("--glue", type=Path, metavar="DIR", help="a folder with SST-2/train.tsv and the like")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, metavar="TASK", help="some of its tasks (all)")
    parser.add_argument("--seeds", type=number(int, 1, 100), default=1, help="fine-tune so often (1)")
    args = parser.parse_args(arguments)
    if not args.runs:
        parser.error(
            "expected out/NAME, a run's folder, before flags such as --as, which take all that follows"
        )
    if sum(bool(asked) for asked in (args.text, args.sample, args.glue)) > 1:
        parser.error("--text, --sample and --glue ask for different things; give one of them")
    texts = args.sample or [args.text] * (args.text is not None)
    if len(texts) != len(args.languages or []):
        parser.error(f"--as: found {len(args.languages or [])} languages for {len(texts)} texts to read")
    tasks = args.tasks or [name for name in TASKS if args.glue and (args.glue / name).is_dir()]
    if args.glue and not tasks:
        parser.error(f"--glue {args.glue} holds no task, expected folders named {', '.join(TASKS)}")

    process = Process.current(args.device)
    unfinished = {out for out in args.runs if not is_finished(out)}  # all are looked at before one is scored
    for out in dict.fromkeys(args.runs):
        run = load_run(out, process.device, "checkpoint.pt" if out in unfinished else "model.pt")
        if args.glue:
            require_finished(out)
            evaluate_glue(run, args.glue, tasks, list(range(args.seeds)))
        elif args.text:
            evaluate_text(run, args.text, args.languages[0])
        elif args.sample:
            print_sample(run, args.sample, args.languages, args.tokens, args.temperature, args.seed)
        elif out in unfinished:
            print(f"{out} is not finished: its last checkpoint is scored, and nothing is written")
            score_languages(run)
        else:
            score_held_out_text(run)


if __name__ == "__main__":
    run_script(main)
