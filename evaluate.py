"""What a trained run can do: perplexity in each of its languages, by the paper's sliding window.

    python evaluate.py out/NAME

A window of one sequence length moves over the test text by a quarter of its length (paper: 512 by 128), and only the
last quarter of its predictions counts, so that every scored token has seen at least three quarters of a window. The
softmax runs over the whole joint vocabulary: a model that answers in the wrong language pays for it. Clones are scored
on the same text, each through its own table. Arithmetic is float32 whatever the training used.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from checkpoint import load_weights
from common import Parser, Progress, UserError, read_json, run_script, write_json
from experiment import build_mixture
from languages import Language, joint_vocabulary
from model import GPT, SIZES
from process import Process
from shards import Dataset

BATCH_TOKENS = {"cpu": 4096, "cuda": 65536}  # most tokens that go through the model at a time
BATCH_LOGITS = 250_000_000  # most logits at a time, a gigabyte
CONFIG_KEYS = ("data", "fingerprint", "sources", "vocab", "stages", "size", "length", "batch", "steps", "seed")


class Run(NamedTuple):
    """A finished run: what it wrote, the text it read, and its model."""

    out: Path
    config: dict
    result: dict
    dataset: Dataset
    languages: list[Language]
    model: GPT


def load_run(out: Path, device: torch.device, data: Path | None = None) -> Run:
    """Open `out/NAME` with the data it was trained on, which lies at `data` if it has moved.

    Raises:
        UserError: it is no run, is not finished, or the data has been prepared anew since.
    """
    config = read_json(out / "config.json", "a run of train.py", CONFIG_KEYS)
    if not (out / "result.json").exists():
        raise UserError(f"{out} is not finished: it has no result.json; start its train.py command again")
    dataset = Dataset(data or Path(config["data"]))
    if dataset.fingerprint != config["fingerprint"]:
        raise UserError(
            f"{out} was trained on other data: {dataset.folder} has fingerprint {dataset.fingerprint}, "
            f"the run expects {config['fingerprint']}; was it prepared again?"
        )
    languages = build_mixture(dataset, config).languages
    model = GPT(SIZES[config["size"]], joint_vocabulary(languages), config["length"])
    try:
        model.load_state_dict(load_weights(out / "model.pt", torch.device("cpu")))
    except (RuntimeError, TypeError) as error:
        raise UserError(f"{out / 'model.pt'} belongs to another run: {str(error).splitlines()[-1].strip()}") from None
    return Run(out, config, read_result(out), dataset, languages, model.to(device).eval())


def read_result(out: Path) -> dict:
    """A finished run's result.json."""
    return read_json(out / "result.json", "the result of a run", ("languages",))


def sliding_windows(predictions: int, length: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Where windows begin, and how many predictions at the end of each count.

    The first window is scored like all others, so the first `length - stride` predictions of a text never count. What
    a whole number of strides leaves over at the end is scored by one more window that ends with the text. A text that
    is shorter than a window is one window. Returns (starts, counted), both (windows,).
    """
    length = min(length, predictions)
    starts = np.arange(0, predictions - length + 1, stride)
    counted = np.full(len(starts), min(stride, length))
    left_over = predictions - length - int(starts[-1])
    if left_over:
        starts, counted = np.append(starts, predictions - length), np.append(counted, left_over)
    return starts, counted


@torch.inference_mode()
def score(model: GPT, tokens: np.ndarray, stride: int, progress: Progress | None = None) -> np.ndarray:
    """Negative log-likelihood in nats of every counted prediction, in the order of the text.

    Args:
        model: decides device and window length.
        tokens: (n,) joint ids; n - 1 predictions can be made.
        stride: by how many tokens the window moves.

    Returns:
        (counted,) float64. See `sliding_windows` for which predictions count.
    """
    device = model.output.weight.device
    starts, counted = sliding_windows(len(tokens) - 1, model.length, stride)
    length = min(model.length, len(tokens) - 1)
    step = max(1, min(BATCH_TOKENS[device.type] // length, BATCH_LOGITS // (stride * model.vocabulary)))
    scores = []
    for first in range(0, len(starts), step):
        batch = slice(first, first + step)
        positions = starts[batch, None] + np.arange(length + 1)
        windows = torch.from_numpy(tokens[positions].astype(np.int64)).to(device)
        # The output layer is the largest matrix of a small model: it is applied to the counted positions only.
        logits = model.output(model.hidden(windows[:, :-1])[:, -stride:])
        targets = windows[:, 1:][:, -stride:]
        losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none").view_as(targets)
        kept = np.arange(targets.shape[1]) >= targets.shape[1] - counted[batch, None]
        scores.append(losses.double().cpu().numpy()[kept])
        if progress:
            progress.update(first + len(positions))
    return np.concatenate(scores)


def perplexity(run: Run, language: Language) -> dict:
    """Perplexity and bits per byte of a run in one of its languages on the held-out text."""
    test = run.dataset.languages[language.source]["test"]
    stream = run.dataset.stream(language.source, "test")
    tokens = language.table[stream.read(0, len(stream))]
    stride = max(1, run.config["length"] // 4)
    windows = len(sliding_windows(len(tokens) - 1, run.config["length"], stride)[0])
    progress = Progress(f"{run.out.name}: scoring {language.name}", windows, "windows")
    nats = score(run.model, tokens, stride, progress)
    bits_per_byte = nats.mean() / math.log(2) * test["tokens"] / test["bytes"]
    measured = {"ppl": math.exp(min(nats.mean(), 700.0)), "bits_per_byte": bits_per_byte, "scored_tokens": len(nats)}
    progress.close(windows, f"PPL {measured['ppl']:.2f}, {bits_per_byte:.3f} bits per byte, {len(nats)} tokens | ")
    return measured


def is_evaluated(result: dict) -> bool:
    """Whether a result holds a perplexity for each of its languages."""
    return all("ppl" in language for language in result["languages"])


def main(arguments: list[str] | None = None) -> None:
    """Evaluate each run that the command line names and merge what is found into its result.json."""
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="out/NAME", help="folders of finished runs")
    parser.add_argument("--data", type=Path, help="the prepared folder, if it is not where the run found it")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="(cuda where there is one)")
    parser.add_argument("--again", action="store_true", help="evaluate also what is evaluated already")
    args = parser.parse_args(arguments)
    process = Process.current(args.device)
    for out in args.runs:
        if (out / "result.json").exists() and is_evaluated(result := read_result(out)) and not args.again:
            known = ", ".join(f"{language['name']} PPL {language['ppl']:.2f}" for language in result["languages"])
            print(f"{out.name} is evaluated already: {known} (--again repeats it)")
            continue
        run = load_run(out, process.device, args.data)
        for language, entry in zip(run.languages, run.result["languages"], strict=True):
            entry.update(perplexity(run, language))
        write_json(out / "result.json", run.result)


if __name__ == "__main__":
    run_script(main)
