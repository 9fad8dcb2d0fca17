"""What a trained run can do: perplexity in each of its languages by the paper's sliding window, and GLUE transfer.

    python evaluate.py out/NAME                                  # perplexity on the held-out text, into result.json
    python evaluate.py out/NAME --text my.txt --as EN2           # of a text of your own, printed only
    python evaluate.py out/NAME --glue glue --tasks SST-2 CoLA   # fine-tuned on L1, scored in all clones (transfer.py)
    torchrun --standalone --nproc-per-node 8 evaluate.py out/NAME

A window of one sequence length moves over the test text by a quarter of its length (paper: 512 by 128), and only the
last quarter of its predictions counts, so that every scored token has seen at least three quarters of a window. The
softmax runs over the whole joint vocabulary: a model that answers in the wrong language pays for it. Clones are scored
on the same text, each through its own table. Arithmetic is float32 whatever the training used.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sentencepiece
import torch

from checkpoint import load_weights
from common import Parser, Progress, UserError, read_json, run_script, write_json
from corpus import clean, load, open_source
from experiment import build_mixture
from glue import TaskData, read_tasks
from languages import Language, joint_vocabulary, open_tokenizer
from model import GPT, SIZES
from perplexity import MEASURED, describe, measure, score, sliding_windows
from process import Process
from shards import Dataset
from tokenizer import document_of, encode_document, token_bytes
from transfer import Recipe, average_accuracy, table, transfer

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


# --- texts ----------------------------------------------------------------------------------------------------------


def held_out_text(run: Run, language: Language, most: int | None) -> np.ndarray:
    """The test split of a language's source, the whole of it for each clone, or its first `most` tokens: (n,) own ids."""
    stream = run.dataset.stream(language.source, "test")
    return stream.read(0, min(len(stream), most or len(stream)))


def user_text(path: Path, tokenizer: sentencepiece.SentencePieceProcessor, most: int | None, process: Process) -> np.ndarray:
    """A text of the user's, cleaned and tokenised as preparation does it, or its first `most` tokens: (n,) own ids.

    Empty documents are left out, short ones are not: here nobody learns from them.

    Raises:
        UserError: the text cannot be read.
    """
    source = open_source(path)
    progress = Progress(f"{path}: tokenising", source.size / 1e6, "MB", quiet=process.rank > 0)
    parts, done, tokens = [np.empty(0, np.uint16)], 0, 0
    for item in source:
        if text := clean(load(item)):
            parts.append(np.array([*encode_document(tokenizer, text), tokenizer.eos_id()], np.uint16))
            tokens += len(parts[-1])
        done += item.size
        progress.update(done / 1e6)
        if most is not None and tokens >= most:
            break
    return np.concatenate(parts)[:most]


def perplexity(run: Run, language: Language, ids: np.ndarray, stride: int | None, process: Process) -> dict:
    """What `measure` says of a run on a text, (n,) own ids, in one of its languages.

    Raises:
        UserError: the text has fewer than two tokens, or --stride is longer than a window.
    """
    stride = max(1, run.model.length // 4) if stride is None else stride
    if stride > run.model.length:
        raise UserError(f"--stride {stride}: the window of {run.out} has {run.model.length} tokens, expected at most as many")
    if len(ids) < 2:
        raise UserError(f"the text to score as {language.name} has {len(ids)} token(s), expected two or more")
    tokenizer = open_tokenizer(run.dataset, language.source)
    windows = len(sliding_windows(len(ids) - 1, run.model.length, stride)[0])
    progress = Progress(f"{run.out.name}: scoring {language.name}", windows, "windows", quiet=process.rank > 0)
    scores = score(run.model, language.table[ids], stride, process, progress)
    measured = measure(scores, token_bytes(tokenizer, ids), document_of(ids, tokenizer.eos_id()))
    progress.close(windows, f"{describe(measured)} | ")
    return measured


# --- the command ----------------------------------------------------------------------------------------------------


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line, and refuse what no run could make right."""
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="out/NAME", help="folders of finished runs")
    parser.add_argument("--data", type=Path, help="the prepared folder, if it is not where the run found it")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="(cuda where there is one)")
    parser.add_argument("--again", action="store_true", help="evaluate also what is evaluated already")
    window = parser.add_argument_group("perplexity; with any of these it is printed, and result.json stays as it is")
    window.add_argument("--stride", type=int, help="tokens by which the window moves (a quarter of it)")
    window.add_argument("--max-tokens", type=float, help="of the text, from its beginning (all)")
    window.add_argument("--text", type=Path, help="score this file or folder (.txt, .jsonl, .parquet) instead")
    window.add_argument("--as", dest="language", metavar="L", help="language of --text, as the run names it: EN2")
    tasks = parser.add_argument_group("GLUE transfer, by the paper's recipe")
    tasks.add_argument("--glue", type=Path, metavar="DIR", help="a folder that holds SST-2/train.tsv and the like")
    tasks.add_argument("--tasks", nargs="+", metavar="TASK", help="some of its tasks (all that are there)")
    tasks.add_argument("--seed", type=int, default=0, help="of head, dropout and order (%(default)s)")
    tasks.add_argument("--seeds", type=int, default=1, metavar="N", help="fine-tune N times, from --seed on (%(default)s)")
    tasks.add_argument("--glue-steps", type=int, metavar="N", help="stop after N steps; then results are printed only")
    args = parser.parse_args(arguments)
    if args.glue and (args.text or args.stride or args.max_tokens):
        parser.error("--glue does not go with --text, --stride or --max-tokens")
    if args.tasks and not args.glue:
        parser.error("--tasks names tasks of --glue DIR, which is missing")
    if not 0 <= args.seed < 2**32:
        parser.error(f"--seed {args.seed}: expected 0 to {2**32 - 1}")
    for flag in ("stride", "max_tokens", "seeds", "glue_steps"):
        value = getattr(args, flag)
        if value is not None and not 1 <= value < 1e15:
            parser.error(f"--{flag.replace('_', '-')} {value:g}: expected 1 or more")
    args.max_tokens = args.max_tokens and int(args.max_tokens)
    if (args.text is None) != (args.language is None):
        parser.error("--text FILE and --as LANGUAGE go together")
    return args


def chosen_language(run: Run, name: str) -> Language:
    """The run's language of that name.

    Raises:
        UserError: it has none.
    """
    for language in run.languages:
        if language.name == name:
            return language
    raise UserError(f"--as {name}: {run.out} does not have it, expected {' or '.join(known.name for known in run.languages)}")


def is_evaluated(result: dict) -> bool:
    """Whether a result holds all measures of each of its languages."""
    return all(key in language for language in result["languages"] for key in MEASURED)


def evaluate_perplexity(out: Path, args: argparse.Namespace, process: Process) -> None:
    """Perplexity of a run in the language of --text, or in each of its own; with default settings into its result.json."""
    printed_only = args.text or args.stride or args.max_tokens
    if not printed_only and not args.again and (out / "result.json").exists() and is_evaluated(result := read_result(out)):
        known = ", ".join(f"{language['name']} PPL {language['ppl']:.2f}" for language in result["languages"])
        return process.say(f"{out.name} is evaluated already: {known} (--again repeats it)")
    run = load_run(out, process.device, args.data)
    if args.text:
        language = chosen_language(run, args.language)
        ids = user_text(args.text, open_tokenizer(run.dataset, language.source), args.max_tokens, process)
        perplexity(run, language, ids, args.stride, process)
        return
    measured = [
        perplexity(run, language, held_out_text(run, language, args.max_tokens), args.stride, process)
        for language in run.languages
    ]
    if printed_only:
        return process.say(f"{out / 'result.json'} stays as it is: it is for the held-out text and default settings")
    if process.rank == 0:
        result = read_result(out)
        for entry, found in zip(result["languages"], measured, strict=True):
            entry.update(found)
        write_json(out / "result.json", result)


def evaluate_glue(out: Path, tasks: list[TaskData], args: argparse.Namespace, process: Process) -> None:
    """Fine-tune and score a run on each task that its result.json does not have yet, and print the table of all.

    Languages that are not clones of the first one read another text than GLUE's, and are left out.
    """
    run = load_run(out, process.device, args.data)
    languages = [language for language in run.languages if language.source == run.languages[0].source]
    if others := [language.name for language in run.languages if language not in languages]:
        print(f"{out.name}: GLUE is English, nothing is reported for {', '.join(others)}")
    recipe, names = Recipe(max_steps=args.glue_steps), [language.name for language in languages]
    if run.model.length < recipe.length:
        recipe = recipe._replace(length=run.model.length)
        print(f"{out.name}: examples are cut to {recipe.length} tokens, all this model can read, instead of {Recipe().length}")
    seeds, shown = list(range(args.seed, args.seed + args.seeds)), {}
    for data in tasks:
        known = read_result(out).get("glue", {}).get("tasks", {})
        if not args.again and not args.glue_steps and all(known.get(name, {}).get("seeds") == seeds for name in data.dev):
            print(f"{out.name}: {data.name} is evaluated already (--again repeats it)")
            shown |= {name: known[name] for name in data.dev}
            continue
        entries = transfer(
            run.model, data, open_tokenizer(run.dataset, languages[0].source), languages, recipe=recipe, seeds=seeds
        )
        shown |= entries
        if not args.glue_steps:
            merged = known | entries
            averages = average_accuracy(merged, names)
            write_json(out / "result.json", read_result(out) | {"glue": {"average_accuracy": averages, "tasks": merged}})
    print(table(shown, names))
    if args.glue_steps:
        print(f"{out / 'result.json'} stays as it is: it is for fine-tuning to the end")


def main(arguments: list[str] | None = None) -> None:
    """Evaluate each run that the command line names and merge what is found into its result.json."""
    args = parse_arguments(arguments)
    process = Process.current(args.device)
    if args.glue and process.world > 1:
        raise UserError(f"--glue works on one process, found {process.world}: python evaluate.py, without torchrun")
    tasks = read_tasks(args.glue, args.tasks) if args.glue else []
    with process.group():
        for out in dict.fromkeys(args.runs):
            evaluate_perplexity(out, args, process)
            if tasks:
                evaluate_glue(out, tasks, args, process)


if __name__ == "__main__":
    run_script(main)
