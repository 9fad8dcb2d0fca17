"""Which languages a run learns, and how much of each: from the flags of train.py to its config.json, and to its Mixture.

config.json says it in four entries, whichever flags were used:

    sources   the text of each language, as in the prepared folder: ["en", "en"] for two clones, ["en", "fr"] for real ones
    vocab     how their pieces become joint ids: monolingual, cloned, disjoint or anchored
    anchors   share of the pieces that clones have in common
    stages    for each stage of the run, the share of each language: [[0.9, 0.1], [0.1, 0.9]]
"""

import argparse
import math
from pathlib import Path

import numpy as np

from common import Parser, UserError, count
from languages import build_languages
from mixture import Mixture, stages_from_ratios
from shards import Dataset


def add_flags(parser: argparse._ActionsContainer) -> None:
    """The flags that choose languages and shares."""
    parser.add_argument("--ratio", help="share of L1, 0 to 1; several, with commas, are stages of equal length (0.5)")
    parser.add_argument("--mix", help="instead, shares of all languages, as in 0.8,0.1,0.1; a / between stages of equal length")
    parser.add_argument("--clones", type=int, help="number of clones; those after the first share the rest (2)")
    parser.add_argument("--anchors", type=float, help="share of the vocabulary that clones have in common, 0 to 1 (0)")
    parser.add_argument("--languages", nargs="+", metavar="L", help="of the prepared folder; one is cloned (the folder's first)")
    parser.add_argument("--vocab", choices=["disjoint", "anchored"], help="joint vocabulary of real languages (disjoint)")


def check_flags(parser: Parser, args: argparse.Namespace) -> None:
    """Turn --ratio and --mix into numbers, and refuse what no data could make right."""
    if args.ratio is not None and args.mix is not None:
        parser.error("--ratio and --mix exclude each other")
    if args.mix is None:
        args.ratio = _numbers(parser, "--ratio", "0.5" if args.ratio is None else args.ratio)
        if not any(args.ratio):
            parser.error("--ratio 0 trains the other languages alone: expected a share above 0 in some stage, or --ratio 1")
    else:
        args.mix = [_numbers(parser, "--mix", stage) for stage in args.mix.split("/")]
        for number, stage in enumerate(args.mix, 1):
            if not math.isclose(sum(stage), 1, rel_tol=0, abs_tol=1e-6):
                parser.error(f"--mix: the shares of stage {number} add up to {sum(stage):.9g}, expected 1")
    _check_languages(parser, args)


def _check_languages(parser: Parser, args: argparse.Namespace) -> None:
    names, several = args.languages or [], len(args.languages or []) > 1
    if len(set(names)) < len(names):
        parser.error(f"--languages names {max(names, key=names.count)} more than once; copies of a language are --clones")
    if args.clones is not None and not 2 <= args.clones <= 1000:
        parser.error(f"--clones {args.clones}: expected 2 to 1000; one language alone is --ratio 1")
    if args.anchors is not None and not 0 <= args.anchors <= 1:
        parser.error(f"--anchors {args.anchors:g}: expected a number from 0 to 1")
    for flag in ("clones", "anchors"):
        if several and getattr(args, flag) is not None:
            parser.error(f"--{flag} is for copies of one language, but --languages names {len(names)}: {' '.join(names)}")
    if args.vocab and not several:
        parser.error(f"--vocab {args.vocab} is for two or more --languages, found {' '.join(names) or 'none'}")
    _check_monolingual(parser, args, several)


def _numbers(parser: Parser, flag: str, text: str) -> list[float]:
    """Shares between 0 and 1 with commas between them."""
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        parser.error(f"{flag} {text!r}: expected a number from 0 to 1, or several with commas between them, as in 0.9,0.1")
    if not all(0 <= number <= 1 for number in numbers):
        parser.error(f"{flag} {text}: expected numbers from 0 to 1")
    return numbers


def is_monolingual(args: argparse.Namespace) -> bool:
    """Whether one language has all the text: --ratio 1, or its equal --mix 1."""
    return all(len(stage) == 1 for stage in args.mix) if args.mix else all(ratio == 1 for ratio in args.ratio)


def _check_monolingual(parser: Parser, args: argparse.Namespace, several: bool) -> None:
    if not is_monolingual(args):
        return
    share = "--mix 1" if args.mix else "--ratio 1"
    if several:
        parser.error(f"{share} is a monolingual run and takes one language, but --languages names {' '.join(args.languages)}")
    for flag in ("clones", "anchors"):
        if getattr(args, flag) is not None:
            parser.error(f"{share} is a monolingual run, which has no use for --{flag}")


def mixture_settings(args: argparse.Namespace, dataset: Dataset) -> dict:
    """What config.json says of languages and shares.

    Raises:
        UserError: the prepared folder lacks a language, or --mix does not have one share for each.
    """
    known = list(dataset.languages)
    names = args.languages or known[:1]
    for name in names:
        if name not in known:
            raise UserError(f"--languages {name}: {dataset.folder} does not have it, expected {' or '.join(known)}")
    if is_monolingual(args):
        sources, vocab = names, "monolingual"
    elif len(names) == 1:
        sources, vocab = names * (args.clones or 2), "cloned"
    else:
        sources, vocab = names, args.vocab or "disjoint"
    for number, stage in enumerate(args.mix or [], 1):
        if len(stage) != len(sources):
            languages = f"{len(sources)} clones of {names[0]}" if vocab == "cloned" else " ".join(sources)
            raise UserError(f"--mix: shares found in stage {number}: {len(stage)}, expected {len(sources)}, for {languages}")
    stages = args.mix or stages_from_ratios(args.ratio, len(sources)).tolist()
    return {"sources": sources, "vocab": vocab, "anchors": args.anchors or 0.0, "stages": stages}


def one_pass(chosen: dict, dataset: Dataset, length: int) -> float:
    """Tokens of the longest run that is not expected to read any text twice, given each text's mean share of the run.

    Raises:
        UserError: a language has less text than one sequence of `length`.
    """
    shares: dict[str, float] = {}
    for source, share in zip(chosen["sources"], np.mean(chosen["stages"], axis=0), strict=True):
        shares[source] = shares.get(source, 0.0) + float(share)
    for source in shares:
        available = dataset.languages[source]["train"]["tokens"]
        if available <= length:
            raise UserError(
                f"{dataset.folder}: {source} has {available} training tokens, expected more than one sequence of {length}"
            )
    return min(dataset.languages[source]["train"]["tokens"] / share for source, share in shares.items() if share)


def run_name(config: dict, dataset: Dataset) -> str:
    """A folder name that says what the run is: pydocs-nano-90-6.1M-seed0, novels-small-en-fr-anchored-90-10-1.2B-seed0."""
    sources, vocab, stages = config["sources"], config["vocab"], config["stages"]
    ratios = [stage[0] for stage in stages]
    by_ratio = np.allclose(stages, stages_from_ratios(ratios, len(sources)), rtol=0, atol=1e-9)
    shares = "-".join(f"{100 * stage[0]:g}" if by_ratio else "+".join(f"{100 * p:g}" for p in stage) for stage in stages)
    parts = [Path(config["data"]).name, config["size"]]
    if vocab in {"disjoint", "anchored"}:
        parts += [*sources, vocab]
    elif sources[0] != next(iter(dataset.languages)):
        parts.append(sources[0])
    parts.append(shares)
    if vocab == "cloned" and len(sources) > 2:
        parts.append(f"{len(sources)}clones")
    if config["anchors"]:
        parts.append(f"{100 * config['anchors']:g}anchors")
    return "-".join([*parts, count(config["tokens"]), f"seed{config['seed']}"])


def build_mixture(dataset: Dataset, config: dict) -> Mixture:
    """The sequences of the run that `config` describes."""
    streams = {source: dataset.stream(source, "train") for source in dataset.languages}
    total = config["steps"] * config["batch"]
    return Mixture(streams, build_languages(dataset, config), np.array(config["stages"]), config["seed"], total, config["length"])
