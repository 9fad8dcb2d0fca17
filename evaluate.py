"""What a trained run can do: perplexity in its languages, and text that it writes (section 3.3 of the paper).

    python evaluate.py out/NAME                                # perplexity on the held-out text, once more
    python evaluate.py out/NAME --text my.txt --as EN2         # on a text of your own, printed only
    python evaluate.py out/NAME --sample "Return the" --as EN2                # text that the model writes
    python evaluate.py out/NAME --sample "Return the" "mean of" --as EN1 EN2  # the prompt changes language
    python evaluate.py out/NAME --export                       # the weights, into out/NAME/model.safetensors

Perplexity, into out/NAME/result.json: a window of one sequence length moves over the text by a quarter of its
length (paper: 512 by 128), and only the last quarter of its predictions counts: the model has seen at least
three quarters of a window before every scored token. The softmax runs over the whole joint vocabulary, so a
model that answers in the wrong language pays for it. All clones are scored on the same text. Beside the
perplexity of a monolingual run stands that of n-grams, counted in its training text: a model that is no
better than bigrams has not yet learned to use more than the last token.

Any program that uses safetensors can read what --export writes. These lines load it into a model:

    import json, pathlib, safetensors
    from data import Dataset, build_languages
    from model import build_model
    file = safetensors.safe_open("out/NAME/model.safetensors", "pt")
    config = json.loads(file.metadata()["config"])
    languages = build_languages(Dataset(pathlib.Path(config["data"])), config)
    model = build_model(config, languages)
    model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
"""

import importlib.util
import json
import math
import string
import zipfile
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from common import Parser, Progress, UserError, code_hash, exclusive, number, read_json, run_script, write
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
from machine import Process, mixed_precision
from model import GPT, build_model
from text import clean, documents

BATCH_TOKENS = {"cpu": 2048, "cuda": 65536, "mps": 65536}  # scored at a time; on CPUs the cache holds so many
# Of matrix products. fp16 is as fast as bf16 and more exact; if it overflows, float32 is used.
ARITHMETIC = {"cpu": ["fp32"], "cuda": ["fp16", "fp32"], "mps": ["fp32"]}

NGRAMS = (1, 2, 3, 5)  # lengths of the n-grams whose perplexity stands beside a monolingual run's
MOST_COUNTED = 20_000_000  # training tokens: counting n-grams needs some hundred bytes for each


class Run(NamedTuple):
    """A run that can be used: what it wrote, the text it read, and its model."""

    out: Path
    config: dict
    dataset: Dataset
    languages: list[Language]
    model: GPT


def is_finished(out: Path) -> bool:
    """Whether a run has ended; UserError if it is no run, or one that has not saved a checkpoint yet."""
    if not (out / "config.json").exists():
        raise UserError(f"{out} is no run of train.py: it has no config.json")
    if not {"data", "fingerprint", "code"} <= read_json(out / "config.json").keys():
        raise UserError(f"{out / 'config.json'} is not of train.py")
    finished = (out / "result.json").exists()
    if not finished and not (out / "checkpoint.pt").exists():
        raise UserError(f"{out} is not finished and has no checkpoint; start its train.py command again")
    return finished


def require_finished(out: Path) -> None:
    """Refuse a run that has not ended."""
    if not is_finished(out):
        raise UserError(f"{out} is not finished: it has no result.json; start its train.py command again")


def is_scored(out: Path) -> bool:
    """Whether the result.json of a finished run has perplexities."""
    return all("ppl" in entry for entry in read_languages(out))


def read_languages(out: Path) -> list[dict]:
    """The entries of a run's languages in its result.json."""
    entries = read_json(out / "result.json").get("languages")
    good = isinstance(entries, list) and entries and all(isinstance(entry, dict) for entry in entries)
    if not good:
        raise UserError(f"{out / 'result.json'} is not of train.py: it lacks languages")
    return entries


def load_weights(path: Path) -> dict:
    """What train.py saved in a file of weights; nothing that the file may hold is executed."""
    if zipfile.ZipFile(path).testzip():  # PyTorch does not look at the checksums of its own files
        raise ValueError("a checksum is wrong")
    return torch.load(path, map_location="cpu", weights_only=True)


def load_run(out: Path, device: torch.device, file: str = "model.pt") -> Run:
    """Open a run's folder with the data it was trained on and the weights in one of its files."""
    is_finished(out)  # raises an error if something is missing
    config = read_json(out / "config.json")
    dataset = Dataset(Path(str(config["data"])))
    if dataset.fingerprint != config["fingerprint"]:
        raise UserError(f"{out} was trained on other data than {dataset.folder} now holds")
    try:
        weights = load_weights(out / file)
        weights = weights.get("model", weights)  # a checkpoint has more
    except Exception as error:  # its kind depends on what is broken in the file
        raise UserError(f"{out / file} is damaged or missing ({error})") from None
    try:
        languages = build_languages(dataset, config)
        model = build_model(config, languages)
        model.load_state_dict(weights)
        if not isinstance(model.length, int):
            raise TypeError("length is no number")
    except (LookupError, RuntimeError, TypeError, ValueError):
        maker = "the run was made by other code" if config["code"] != code_hash() else "it is another run's"
        raise UserError(f"{out / file} does not fit this model.py: {maker}") from None
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise UserError(f"{out / file} holds numbers that are not finite: the run diverged; start another")
    return Run(out, config, dataset, languages, model.to(device).eval())


def language_called(run: Run, name: str) -> Language:
    """The language of the run that --as names."""
    languages = {language.name: language for language in run.languages}
    if name not in languages:
        raise UserError(f"--as {name}: {run.out} has {', '.join(languages)}")
    return languages[name]


# --- perplexity -----------------------------------------------------------------------------------


def sliding_windows(predictions: int, length: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Where windows begin, and how many predictions at the end of each count: (windows,) twice.

    The first `length - stride` predictions of a text never count. What a whole number of strides leaves over
    is scored by one more window that ends with the text. `length` is at most `predictions`.
    """
    ends = np.append(np.arange(length, predictions, stride), predictions)
    # Of each window counts what lies beyond the end of the one before.
    counted = np.diff(ends, prepend=max(0, length - stride))
    return ends - length, counted


def score(model: GPT, tokens: np.ndarray, progress: Progress) -> np.ndarray:
    """The loss in nats of each counted prediction of a text, (counted,); the text is (n,) joint ids."""
    device = model.output_embedding.device
    length = min(model.length, len(tokens) - 1)
    stride = max(1, model.length // 4)
    starts, counted = sliding_windows(len(tokens) - 1, length, stride)
    windows = sliding_window_view(tokens, length + 1)
    many = max(1, BATCH_TOKENS[device.type] // length)  # windows at a time
    parts = np.split(starts, range(many, len(starts), many))

    @torch.inference_mode()
    def score_batch(batch: np.ndarray) -> np.ndarray:
        progress.update(batch[0])
        ids = torch.from_numpy(windows[batch].astype(np.int64)).to(device)
        targets = ids[:, 1:][:, -stride:]
        for precision in ARITHMETIC[device.type]:
            with mixed_precision(precision, device):
                # The output layer is a small model's largest matrix, so it gets the last positions only.
                hidden = model.hidden(ids[:, :-1], last=stride)
                _, nats = linear_cross_entropy(hidden, model.output_embedding, targets)
            if nats.isfinite().all():
                break
        return nats.cpu().numpy()

    # Threads that share a matrix product wait for each other, so each CPU thread scores its own windows.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads if device.type == "cpu" else 1) as pool:
            batches = list(pool.map(score_batch, parts))
    finally:
        torch.set_num_threads(threads)
    nats = np.concatenate(batches)
    scored = [row[-last:] for row, last in zip(nats, counted, strict=True)]
    return np.concatenate(scored).astype(np.float64)


def standard_error(nats: np.ndarray, document_of: np.ndarray) -> float | None:
    """Standard error of exp(mean of `nats`) as an estimate for all such texts; None for a single document.

    Tokens of a document are not independent, documents are. With s nats and n tokens in each of D documents,
    N tokens and the mean m in all, the variance of m is D / (D - 1) * sum((s - m * n)^2) / N^2; the delta
    method gives exp(m) times its root.
    """
    documents = document_of - document_of[0]
    lengths, totals = np.bincount(documents), np.bincount(documents, nats)
    many, mean = len(lengths), nats.mean()
    if many < 2:
        return None
    squares = (totals - mean * lengths) ** 2
    variance = many / (many - 1) * squares.sum() / len(nats) ** 2
    return math.exp(min(mean, 700.0)) * math.sqrt(variance)


def perplexity(run: Run, language: Language, ids: np.ndarray, text_bytes: int) -> dict:
    """Perplexity of a text, (n,) own ids, in one of a run's languages, and what result.json has beside it."""
    if len(ids) < 2:
        raise UserError(f"the text to score as {language.name} has {len(ids)} tokens, expected two or more")
    progress = Progress(f"{run.out.name}: scoring {language.name}", len(ids), "tokens")
    nats = score(run.model, language.table[ids], progress)
    first = len(ids) - len(nats)  # the tokens before it are read and not scored
    documents_ended = np.cumsum(ids == END_OF_DOCUMENT)
    ended_before = documents_ended[:-1]  # each <eod> belongs to the document that it closes
    document_of = ended_before[first - 1 :]
    tokenizer = run.dataset.tokenizer(language.source)
    bytes_of = token_bytes(tokenizer, ids, text_bytes)
    scored_bytes = max(1, bytes_of[first:].sum())
    found = {
        "ppl": math.exp(min(nats.mean(), 700.0)),  # beyond, it overflows, and JSON has no infinity
        "ppl_standard_error": standard_error(nats, document_of),
        "bits_per_byte": float(nats.sum() / math.log(2) / scored_bytes),
        "scored_tokens": len(nats),
        "scored_documents": int(document_of[-1] - document_of[0]) + 1,
        "unknown": float(np.mean(ids[first:] == UNKNOWN)),
    }
    error = found["ppl_standard_error"]
    note = f"PPL {found['ppl']:.2f}" + (f" ± {error:.2g}" if error is not None else "")
    note += f", {found['bits_per_byte']:.3f} bits per byte"
    progress.update(len(ids), f"{note}, {len(nats)} tokens of {found['scored_documents']} documents | ")
    if found["unknown"] > 0.01:
        rare = f"{found['unknown']:.0%} of these tokens"
        print(f"warning: {language.name} has no piece for {rare}: its PPL says little")
    return found


def score_languages(run: Run) -> list[dict]:
    """Perplexity in each language on the test split of its source."""
    found = []
    for language in run.languages:
        stream = run.dataset.stream(language.source, "test")
        size = run.dataset.languages[language.source]["test"]["bytes"]
        found.append(perplexity(run, language, stream.read(0, len(stream)), size))
    return found


def score_held_out_text(run: Run) -> None:
    """Perplexity in each language on the test split of its source, into result.json."""
    if is_scored(run.out) and run.config["code"] != code_hash():
        raise UserError(f"{run.out} was scored already, and made by other code; go back to it to score again")
    if len(read_languages(run.out)) != len(run.languages):
        raise UserError(f"{run.out / 'result.json'} is another run's: config.json has other languages")
    found = score_languages(run)
    counted = {"ngrams": score_ngrams(run)} if len(run.languages) == 1 else {}
    with exclusive(run.out, wait=True):
        result = read_json(run.out / "result.json")  # now, as another process may have written to it
        result |= counted
        for entry, values in zip(result["languages"], found, strict=True):
            entry.update(values)
        write(run.out / "result.json", result)


def score_text(run: Run, path: Path, name: str) -> None:
    """Print the perplexity of a text, cleaned and tokenised like a corpus, in one of the languages."""
    language = language_called(run, name)
    texts = [clean(document.text) for document in documents(path)]
    texts = [text for text in texts if text]
    ids = encode(run.dataset.tokenizer(language.source), texts)
    size = sum(len(text.encode()) for text in texts)
    if not ids:
        raise UserError(f"{path} holds no text")
    perplexity(run, language, np.concatenate(ids), size)


# --- n-grams, to compare with ---------------------------------------------------------------------


def ngram_perplexities(windows: np.ndarray, test: np.ndarray, vocabulary: int, longest: int) -> list[float]:
    """Perplexity of n-gram models with Witten-Bell smoothing, for n from 1 to `longest`.

    They count (windows, length) training tokens and are scored on (m,) test tokens. With c(hw) the count of
    token w after context h, and T(h) how many different tokens follow it,
    P(w | h) = (c(hw) + T(h) P(w | h less its first token)) / (c(h) + T(h)).
    """
    tokens = np.concatenate([windows.ravel(), test]).astype(np.int64)
    in_windows = np.tile(np.arange(windows.shape[1]), len(windows))
    place = np.concatenate([in_windows, np.arange(len(test))])  # of a token in its window, or in the test
    trained = np.arange(len(tokens)) < windows.size
    scored = ~trained & (place >= longest - 1)  # the same tokens for each n

    context = np.zeros_like(tokens)  # a number for the n - 1 tokens before each token
    probability = np.full(len(tokens), 1 / vocabulary)  # of each token, by the model of the last n
    perplexities = []
    for n in range(1, longest + 1):
        counted = trained & (place >= n - 1)  # an n-gram lies within one window
        pair = context * vocabulary + tokens
        _, example, ngram = np.unique(pair, return_index=True, return_inverse=True)
        ngram_counts = np.bincount(ngram[counted], minlength=len(example))
        context_counts = np.bincount(context[counted], minlength=context.max() + 1)
        seen = example[ngram_counts > 0]  # one place of each n-gram that the training text has
        followers = np.bincount(context[seen], minlength=len(context_counts))

        times, kinds = context_counts[context], followers[context]
        smoothed = (ngram_counts[ngram] + kinds * probability) / np.maximum(1, times + kinds)
        probability = np.where(times > 0, smoothed, probability)
        nats = -np.log(probability[scored])
        perplexities.append(float(np.exp(nats.mean())))
        context = np.roll(ngram, 1)
    return perplexities


def score_ngrams(run: Run) -> dict[str, float]:
    """Perplexity, by n, of n-gram models trained and tested on the texts of a monolingual run."""
    mixture = build_mixture(run.dataset, run.config)
    if mixture.total * mixture.length > MOST_COUNTED:
        print(f"{run.out.name}: n-grams of more than {MOST_COUNTED:,} tokens are not counted")
        return {}
    windows, _ = mixture.batch(np.arange(mixture.total))
    (language,) = run.languages
    stream = run.dataset.stream(language.source, "test")
    test = language.table[stream.read(0, len(stream))]
    found = ngram_perplexities(windows, test, run.model.vocabulary, max(NGRAMS))
    return {str(n): found[n - 1] for n in NGRAMS}


# --- text that the model writes -------------------------------------------------------------------

LETTERS = string.ascii_uppercase + string.ascii_lowercase
# EN1's letters are plain, EN2's bold, EN3's typewritten: Unicode alphabets in which no letter is missing.
BEGINNINGS = (0x1D5D4, 0x1D670, 0x1D56C, 0x1D468, 0x1D4D0, 0x1D63C, 0x1D5A0, 0x1D400, 0x1D608)
ALPHABETS = [{}]  # the eleventh language has the first alphabet again
for begin in BEGINNINGS:
    ALPHABETS.append({ord(letter): begin + i for i, letter in enumerate(LETTERS)})


def spell(run: Run) -> list[str]:
    """How each joint id is printed: in its language's alphabet, or plain if several languages share it."""
    spelling = [""] * run.model.vocabulary
    for i, language in enumerate(run.languages):
        alphabet = ALPHABETS[i % len(ALPHABETS)]
        forms = surface_forms(run.dataset.tokenizer(language.source))
        for form, joint in zip(forms, language.table, strict=True):
            spelling[joint] = form if spelling[joint] else form.translate(alphabet)
    return [form.replace("\u2581", " ") for form in spelling]


@torch.inference_mode()
def write_text(model: GPT, ids: list[int], tokens: int, temperature: float, seed: int) -> tuple:
    """Draw joint ids that follow `ids`: (tokens,) ids, and (tokens, vocabulary) probabilities.

    The probabilities are those at temperature 1. The model reads at most one sequence length of tokens.
    """
    generator = torch.Generator().manual_seed(seed)
    ids, probabilities = list(ids), []
    for _ in range(tokens):
        seen = torch.tensor([ids[-model.length :]], device=model.output_embedding.device)
        hidden = model.hidden(seen, last=1)[0, 0]
        logits = (hidden @ model.output_embedding.T).cpu()
        probabilities.append(logits.softmax(0))
        weights = (logits / temperature).softmax(0)
        drawn = torch.multinomial(weights, 1, generator=generator)
        ids.append(drawn.item())
    return ids[-tokens:], torch.stack(probabilities)


def print_sample(run: Run, args: Namespace) -> None:
    """Print prompts, each in its language, what the model writes, and the probability of each language."""
    languages = [language_called(run, name) for name in args.languages]
    prompt = [int(languages[0].table[END_OF_DOCUMENT])]  # a new document begins
    for text, language in zip(args.sample, languages, strict=True):
        own_ids = run.dataset.tokenizer(language.source).encode(clean(text))
        prompt += language.table[own_ids].tolist()
    written, probabilities = write_text(run.model, prompt, args.tokens, args.temperature, args.seed)
    spelling = spell(run)
    before = "".join(spelling[i] for i in prompt[1:])
    after = "".join(spelling[i] for i in written)
    print(f"{run.out.name}, the prompt|and what the model writes:\n\n{before.strip()}|{after}\n")
    shares = who_gets(run, probabilities.mean(0).numpy())
    for name, share in shares.items():
        print(f"{name}: {share:.1%} of the probability, mean of {args.tokens} steps")


def who_gets(run: Run, probability: np.ndarray) -> dict[str, float]:
    """The share of each language's own pieces, and of shared ones, in (vocabulary,) probabilities."""
    tables = [language.table for language in run.languages]
    owners = np.bincount(np.concatenate(tables))
    shares = {"pieces that languages share": probability[owners > 1].sum()}
    for i, language in enumerate(run.languages):
        alphabet = ALPHABETS[i % len(ALPHABETS)]
        own = language.table[owners[language.table] == 1]
        name = language.name.translate(alphabet)
        shares[name] = probability[own].sum()
    return shares


def export(run: Run) -> None:
    """Write the weights to model.safetensors in the run's folder; the file's metadata holds config.json."""
    from safetensors.torch import save

    path = run.out / "model.safetensors"
    weights = run.model.cpu().state_dict()
    write(path, save(weights, {"config": json.dumps(run.config)}))
    print(f"{path} holds the weights of {run.out}")


# --- the command ----------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    """Do what the command line asks for with the run that it names."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("run", type=Path, metavar="out/NAME", help="folder of a run")
    add("--device", choices=["cpu", "cuda", "mps"], help="device; default: cuda if there is one")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--text", type=Path, help="a .txt or .jsonl file, or a folder of them, to score")
    what.add_argument("--sample", nargs="+", metavar="TEXT", help="prompt to continue, in one or more parts")
    what.add_argument("--export", action="store_true", help="write the weights as safetensors")
    add("--as", nargs="+", dest="languages", metavar="L", default=[], help="language of each text")
    add("--tokens", type=number(int, 1, 1e5), default=200, help="tokens to write; default: 200")
    add("--temperature", type=number(float, 0.01, 99), default=0.8, help="temperature of draws; default: 0.8")
    add("--seed", type=number(int, 0), default=0, help="seed of draws; default: 0")
    args = parser.parse_args(arguments)
    texts = args.sample or [args.text] * (args.text is not None)
    if len(texts) != len(args.languages):
        parser.error(f"--as: found {len(args.languages)} languages for {len(texts)} texts to read")
    if args.export and importlib.util.find_spec("safetensors") is None:
        parser.error("--export needs the package safetensors: pip install -r requirements-extra.txt")

    process = Process.current(args.device)
    finished = is_finished(args.run)
    run = load_run(args.run, process.device, "model.pt" if finished else "checkpoint.pt")
    if args.text:
        score_text(run, args.text, args.languages[0])
    elif args.sample:
        print_sample(run, args)
    elif args.export:
        export(run)
    elif finished:
        score_held_out_text(run)
    else:
        print(f"{run.out} is not finished: its last checkpoint is scored, and nothing is written")
        score_languages(run)


if __name__ == "__main__":
    run_script(main)
