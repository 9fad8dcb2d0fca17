"""What happens inside a trained run: how far it uses the same machinery for each of its languages.

    python align.py out/NAME                                     # a run of clones
    python align.py out/NAME --parallel en=multi30k.en fr=multi30k.fr   # of real languages: files of aligned lines
    python align.py out/A out/B --out out/compared               # the same, and both runs side by side
    python align.py out/NAME --matching --word2vec               # the paper's two controls
    python align_bench.py                                        # how fast the matching is

For every pair of languages it measures, and merges into result.json as "alignment",

  embeddings   cosine of each token and its counterpart (its clone, or the same piece in another real language) against
               that of all pairs of tokens, in the input and the output embedding, and by training frequency (figures 6, 7)
  word2vec     the same for gensim's skip-gram, trained on the run's own sequences (--word2vec, figure 6)
  hidden       cosine of hidden states after each layer: of equal positions for clones, of matched tokens for real
               languages and with --matching (tables 2 and 4, figure 14). The matching has the largest sum of cosines, mean
               over layers, in which each token of the shorter text has a partner; the longer text's others have none
  gradients    cosine of the gradients of one sequence's mean loss in each language, for each parameter tensor; "blocks"
               is the macro average over the tensors inside the blocks (figures 11 to 13)

Clones read the run's held-out text; real languages the parallel text, lines joined until a sequence is full. Values of
single sequences go to alignment.npz, pictures to alignment-*.png beside it. What is measured already is not measured
again. Arithmetic is float32 whatever the training used.
"""

import argparse
import importlib.util
import io
import zipfile
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

import align_figures
from activations import Sides, block_tensors, compare_gradients, compare_hidden_states, reader
from align_tables import tables
from align_texts import are_clones, chosen_languages, clone_texts, parallel_paths, parallel_texts, sentence_pair
from common import Parser, UserError, read_json, run_script, write_atomic, write_json
from embeddings import compare_embeddings
from evaluate import CONFIG_KEYS, Run, load_run, read_result
from experiment import build_mixture
from languages import Language, open_tokenizer
from process import Process
from similarity import estimate, match, mean_similarity
from word2vec import skip_gram

VOCABULARIES = ("cloned", "disjoint", "anchored")


# --- what is measured -----------------------------------------------------------------------------------------------


def pair_names(languages: list[Language]) -> list[str]:
    """EN1-EN2 and so on, in the order of `itertools.combinations`."""
    return [f"{one.name}-{other.name}" for one, other in combinations(languages, 2)]


def measure_embeddings(run: Run, languages: list[Language], args, texts) -> tuple[dict, dict]:
    """Counterparts in the run's two embedding matrices."""
    matrices = {"input": run.model.token_embedding.weight, "output": run.model.output.weight}
    return compare_embeddings(run.dataset, languages, matrices), {}


def measure_word2vec(run: Run, languages: list[Language], args, texts) -> tuple[dict, dict]:
    """Counterparts in word2vec's two matrices, of the same width."""
    mixture = build_mixture(run.dataset, run.config)
    learned = skip_gram(mixture, run.model.vocabulary, run.model.size.width, run.config["seed"], f"{run.out.name}: word2vec")
    matrices = {"input": torch.from_numpy(learned.input), "output": torch.from_numpy(learned.output)}
    return compare_embeddings(run.dataset, languages, matrices, learned.known), {}


def measure_hidden(run: Run, languages: list[Language], args, texts: list[Sides]) -> tuple[dict, dict]:
    """Similarity by layer, and of each text."""
    clones, names = are_clones(languages), pair_names(languages)
    values = compare_hidden_states(
        run.model, texts, by_position=clones, by_matching=args.matching or not clones, label=run.out.name
    )
    result, single = {name: {} for name in names}, {}
    for (method, pair), rows in values.items():
        name = "-".join(languages[place].name for place in pair)
        result[name][method] = [{"layer": i, **estimate(layer)._asdict()} for i, layer in enumerate(rows.T, 1)]
        single[f"hidden/{name}/{method}"] = rows
    return result, single


def measure_gradients(run: Run, languages: list[Language], args, texts: list[Sides]) -> tuple[dict, dict]:
    """Similarity by parameter tensor, the macro average over those in the blocks, and of each text."""
    result, single = {}, {"gradients/tensors": np.array([name for name, _ in run.model.named_parameters()])}
    tensors = single["gradients/tensors"].tolist()
    for pair, rows in compare_gradients(run.model, texts, run.out.name).items():
        name = "-".join(languages[place].name for place in pair)
        blocks = np.array([block_tensors(tensors, row)[1].mean() for row in rows])
        result[name] = {
            "blocks": estimate(blocks)._asdict(),
            "tensors": {tensor: estimate(column)._asdict() for tensor, column in zip(tensors, rows.T, strict=True)},
        }
        single[f"gradients/{name}"] = rows
    return result, single


MEASURES: dict[str, Callable] = {
    "embeddings": measure_embeddings,
    "word2vec": measure_word2vec,
    "hidden": measure_hidden,
    "gradients": measure_gradients,
}
READ_TEXT = ("hidden", "gradients")


def settings_of(part: str, args: argparse.Namespace, parallel: dict[str, Path] | None) -> dict:
    """What a part of the results depends on beside the run."""
    settings = {"languages": args.languages}
    if part in READ_TEXT:
        files = {source: str(path) for source, path in parallel.items()} if parallel else None
        settings |= {"sequences": args.sequences, "parallel": files}
    return settings


def is_measured(entry: dict | None, part: str, args: argparse.Namespace) -> bool:
    """Whether a part of the results is there, for the settings of the command line; without --parallel, for any text."""
    if entry is None:
        return False
    wanted, found = settings_of(part, args, args.parallel), dict(entry["settings"])
    if args.parallel is None:
        found["parallel"] = wanted.get("parallel")
    same = all(found.get(key) == value for key, value in wanted.items())
    return same and (part != "hidden" or not args.matching or all("matching" in pair for pair in entry["pairs"].values()))


def measure_run(out: Path, args: argparse.Namespace, device: torch.device) -> None:
    """Measure what is missing of a run, part by part, into its result.json and alignment.npz.

    Raises:
        UserError: the run or the text cannot be used, or has nothing to compare.
    """
    config = read_json(out / "config.json", "a run of train.py", CONFIG_KEYS)
    if config["vocab"] == "monolingual":
        raise UserError(f"{out} is monolingual, there is nothing to compare: expected a run of two or more languages")
    if config["vocab"] not in VOCABULARIES:
        raise UserError(f"{out} has the vocabulary {config['vocab']!r}, expected {' or '.join(VOCABULARIES)}")
    if not (out / "result.json").exists():
        raise UserError(f"{out} is not finished: it has no result.json; start its train.py command again")
    known = read_result(out).get("alignment", {})
    missing = [part for part in args.parts if args.again or not is_measured(known.get(part), part, args)]
    if not missing and args.line is None:
        return print(f"{out.name} is measured already (--again repeats it)")
    run = load_run(out, device, args.data)
    languages = chosen_languages(run, args.languages)
    texts, paths, sentence = [], None, None
    if are_clones(languages) and args.parallel:
        raise UserError(f"--parallel is for real languages: {out} has clones, which read its held-out text")
    if args.line is not None or any(part in READ_TEXT for part in missing):
        paths = None if are_clones(languages) else parallel_paths(run, languages, args.parallel)
        texts = parallel_texts(run, languages, paths, args.sequences) if paths else clone_texts(run, languages, args.sequences)
        sentence = sentence_pair(run, languages, paths, args.line)
    for part in missing:
        pairs, single = MEASURES[part](run, languages, args, texts)
        store(out, part, {"settings": settings_of(part, args, paths), "pairs": pairs}, single)
    if sentence and (paths or args.matching or args.line):
        draw_sentence(run, languages[:2], sentence)


def store(out: Path, part: str, entry: dict, single: dict[str, np.ndarray]) -> None:
    """Merge a part into result.json, and values of single texts into alignment.npz, which is written first.

    Raises:
        UserError: there is an alignment.npz that cannot be read.
    """
    path = out / "alignment.npz"
    if single:
        kept = {}
        if path.exists():
            try:
                with np.load(path, allow_pickle=False) as file:
                    kept = {key: file[key] for key in file.files if not key.startswith(f"{part}/")}
            except (OSError, ValueError, EOFError, zipfile.BadZipFile):
                raise UserError(f"{path} is damaged and cannot be read; remove it and measure with --again") from None
        content = io.BytesIO()
        np.savez_compressed(content, **kept, **single)
        write_atomic(path, content.getvalue())
    result = read_result(out)
    write_json(out / "result.json", result | {"alignment": result.get("alignment", {}) | {part: entry}})


def draw_sentence(run: Run, languages: list[Language], sentence: list[np.ndarray]) -> None:
    """Draw the matching of one sentence in two languages to alignment-matching.png."""
    with reader(run.model) as hidden_states:
        states = [hidden_states(language.table[ids]) for language, ids in zip(languages, sentence, strict=True)]
    similarity = mean_similarity(*states)
    tokenizers = [open_tokenizer(run.dataset, language.source) for language in languages]
    forms = [[tokenizer.id_to_piece(i) for i in ids.tolist()] for tokenizer, ids in zip(tokenizers, sentence, strict=True)]
    names = [language.name for language in languages]
    align_figures.draw_matching(names, forms, match(similarity), similarity, run.out / "alignment-matching.png")


# --- the command ----------------------------------------------------------------------------------------------------


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line, and refuse what no run could make right."""
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="out/NAME", help="folders of finished runs")
    parser.add_argument("--data", type=Path, help="the prepared folder, if it is not where the run found it")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="(cuda where there is one)")
    parser.add_argument("--again", action="store_true", help="measure also what is measured already")
    parser.add_argument("--out", type=Path, help="folder of the pictures that show several runs (the one the first run is in)")
    what = parser.add_argument_group("what is measured")
    what.add_argument("--only", nargs="+", choices=MEASURES, metavar="PART", help=f"some of {', '.join(MEASURES)}")
    what.add_argument("--languages", nargs="+", metavar="L", help="two or more of the run, as it names them: EN1 EN3 (all)")
    what.add_argument("--parallel", nargs="+", metavar="LANG=FILE", help="a file of aligned lines for each real language")
    what.add_argument("--sequences", type=int, default=500, metavar="N", help="texts that are compared (%(default)s)")
    what.add_argument("--matching", action="store_true", help="match the tokens of clones, too")
    what.add_argument("--word2vec", action="store_true", help="train word2vec on the same sequences (needs gensim)")
    what.add_argument("--line", type=int, metavar="N", help="line with text that is drawn (the first of 5 to 24 tokens)")
    args = parser.parse_args(arguments)
    args.parts = [part for part in MEASURES if part in (args.only or MEASURES) and (part != "word2vec" or args.word2vec)]
    if args.only and "word2vec" in args.only and not args.word2vec:
        args.parts.insert(0, "word2vec")
    if "word2vec" in args.parts and importlib.util.find_spec("gensim") is None:
        parser.error("--word2vec needs gensim, which is not installed: pip install -r requirements-extra.txt")
    for flag in ("sequences", "line"):
        if getattr(args, flag) is not None and getattr(args, flag) < 1:
            parser.error(f"--{flag} {getattr(args, flag)}: expected 1 or more")
    if args.languages and len(set(args.languages)) < 2:
        parser.error(f"--languages {' '.join(args.languages)}: expected two or more different ones")
    if args.parallel:
        pairs = [text.partition("=") for text in args.parallel]
        if wrong := [text for text, (name, _, file) in zip(args.parallel, pairs, strict=True) if not name or not file]:
            parser.error(f"--parallel {wrong[0]}: expected LANGUAGE=FILE, as in en=multi30k.en")
        if len({name for name, _, _ in pairs}) < max(2, len(pairs)):
            parser.error(f"--parallel {' '.join(args.parallel)}: expected one file for each of two or more languages")
        args.parallel = {name: Path(file) for name, _, file in pairs}
    return args


def main(arguments: list[str] | None = None) -> None:
    """Measure each run that the command line names, then print and draw what is known of them."""
    args = parse_arguments(arguments)
    process = Process.current(args.device)
    if process.world > 1:
        raise UserError(f"align.py works on one process, found {process.world}: python align.py, without torchrun")
    runs = list(dict.fromkeys(args.runs))
    for out in runs:
        measure_run(out, args, process.device)
    results = {out.name if len({run.name for run in runs}) == len(runs) else str(out): read_result(out) for out in runs}
    print("\n" + tables(results))
    for out, (name, result) in zip(runs, results.items(), strict=True):
        align_figures.draw_all({name: result}, out)
    folders = runs
    if len(runs) > 1:
        folders = [*runs, args.out or runs[0].parent]
        folders[-1].mkdir(parents=True, exist_ok=True)
        align_figures.draw_all(results, folders[-1])
    for folder in folders:
        print(f"pictures: {' '.join(str(path) for path in sorted(folder.glob('alignment-*.png')))}")


if __name__ == "__main__":
    run_script(main)
