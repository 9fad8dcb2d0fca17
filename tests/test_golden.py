"""The same bits, release after release: shards, batches, losses, weights, perplexities and rows of tables.

Whoever changes one of these numbers changes every result that was ever made with this code: it has to be
meant. Tokens and batches are compared bit for bit; floating-point numbers, which differ in their last digits
from one kind of processor to another, to about five digits.
"""

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MACHINE

import data
import train
from common import read_json, read_metrics, write
from data import Dataset, build_mixture
from train import parse_arguments, settings

MIXTURES = {  # flags: hash of the tokens and languages of six scattered batches
    "--ratio 1": "024e76e5aefd3ed9",
    "--ratio 0.5": "d06000b4736f0eaa",
    "--ratio 0.9": "798d58b7da96186d",
    "--ratio 0.9,0.1 --seed 3": "dc88271ff4d2249a",
    "--clones 10 --ratio 0.5": "566247ac909ba405",
    "--anchors 0.25 --ratio 0.7": "18c1b40d90a7a91e",
    "--anchors 1 --ratio 0.9": "2c322da4b23c8f48",
    "--shared e a --ratio 0.7": "c735f7a88f03dfdd",
    "--languages en fr --shared e --ratio 0.9": "bfe79cc9520d24e9",
    "--languages fr --ratio 0.5": "4b738a8a3fe1b8f6",
    "--languages en fr --ratio 0.9": "94e215acc37e8b5f",
    "--languages fr en --vocab anchored --ratio 0.9,0.1": "09d52eb274dd4c3a",
    "--languages en fr de --mix 0.8,0.1,0.1/0.1,0.1,0.8": "6a3a2d5867c61d13",
    "--languages en fr de --vocab anchored --mix 0.2,0.3,0.5": "fb1908e31fde1eb7",
}


def sentences(name: str, many: int) -> str:
    """Made-up words in lines, the same on every machine; some are shared by the languages, some frequent."""
    draw = random.Random(name).random
    letters = {"en": "etaoinshrdlu", "fr": "esaitnruloéè", "de": "enisratdhuüß"}[name]
    words = [
        "".join(letters[int(draw() ** 1.5 * 12)] for _ in range(2 + int(draw() * 7))) for _ in range(400)
    ]
    words = [*"0123456789", "Paris", "Berlin", *words]
    return "\n".join(
        " ".join(words[int(draw() ** 3 * len(words))] for _ in range(4 + int(draw() * 12))).capitalize() + "."
        for _ in range(many)
    )


def call(main, *arguments) -> None:
    """Run a script's main as its command would; it has to succeed."""
    main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three languages as data.py prepares them: a folder of .txt files, and two of .jsonl."""
    texts = tmp_path_factory.mktemp("golden")
    parts = [sentences("en", 40 + 3 * i) for i in range(30)]
    for i, part in enumerate([*parts, parts[0], "A stub."]):
        write(texts / "en" / f"{i:02d}.txt", part)
    for name in ("fr", "de"):
        lines = sentences(name, 2000).split("\n")
        joined = ["\n".join(lines[first : first + 25]) for first in range(0, len(lines), 25)]
        write(texts / name / "all.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in joined))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(texts)
        text = [f"--text={name}={name}" for name in ("en", "fr", "de")]
        call(data.main, "--name", "golden", *text, "--vocab-size", 512, "--test-fraction", 0.1)
    return texts / "data" / "golden"


def digest(*parts: bytes) -> str:
    """A short hash."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def test_shards(folder):
    assert Dataset(folder).fingerprint == "63a97f845e67b9ff"  # of the hashes of all shards and tokenisers
    data.verify(Dataset(folder))


@pytest.mark.parametrize("flags", MIXTURES)
def test_batches(folder, flags):
    args = parse_arguments(
        [*flags.split(), "--data", str(folder), "--length", "32", "--batch", "8", "--tokens", "60000"]
    )
    mixture = build_mixture(Dataset(folder), settings(args, Dataset(folder), torch.device("cpu")))
    numbers = np.random.default_rng(0).integers(mixture.total, size=(6, 8))
    tokens, languages = zip(*map(mixture.batch, numbers), strict=True)
    assert (
        digest(np.stack(tokens).astype("<i8").tobytes(), np.stack(languages).astype("<i8").tobytes())
        == MIXTURES[flags]
    )


LOSSES = {  # of steps 1, 2, 3, 12 and 24
    "paper": [
        {"EN1": 6.957442328333855, "EN2": 6.96290572732687},
        {"EN1": 6.8332256257534025, "EN2": 6.92893673479557},
        {"EN1": 6.752037261213575, "EN2": 6.884255141019821},
        {"EN1": 5.29275215168794, "EN2": 6.046572132408619},
        {"EN1": 4.793420084885189, "EN2": 5.587131313979626},
    ],
    "nano": [
        {"EN1": 6.91036069393158, "EN2": 6.916122198104858},
        {"EN1": 6.836327826976776, "EN2": 6.9634353170792265},
        {"EN1": 6.703534920300756, "EN2": 6.92627190053463},
        {"EN1": 5.245364499588807, "EN2": 5.9762739658355715},
        {"EN1": 4.896339330290045, "EN2": 5.483085170388222},
    ],
}
WEIGHTS = {  # sums of absolute values
    "paper": {
        "token_embedding.weight": 2136.2333967799323,
        "blocks.0.attention.query_key_value.weight": 840.5886263026757,
        "blocks.3.mlp_output.weight": 597.545607539854,
        "output.weight": 2729.658853787585,
    },
    "nano": {
        "token_embedding.weight": 2829.976882069369,
        "blocks.0.attention.query_key_value.weight": 834.9029766582961,
        "blocks.3.mlp_output.weight": 609.8563021171464,
    },
}
PERPLEXITIES = {  # with standard error and bits per byte, of EN1 and EN2
    "paper": [
        (136.2119135038017, 1.1121035626957583, 3.2422851933010506),
        (283.51048318935136, 0.7434923659380331, 3.7259264883409124),
    ],
    "nano": [
        (145.5109285361239, 0.7466663132694532, 3.285856443201135),
        (267.58526652923604, 0.8136427434307003, 3.6877842169752717),
    ],
}
PAPERS = ("--positions", "learned", "--no-tied", "--shared")  # the paper's model, and nothing shared


@pytest.fixture(scope="module", params=["paper", "nano"])
def run(folder, request) -> Path:
    """A run of 24 steps, evaluated: of the paper's model, and of nano's own."""
    out, paper = folder.parent.parent / "out" / request.param, PAPERS if request.param == "paper" else ()
    shape = "--size nano --length 32 --batch 8 --tokens 6144 --warmup 4 --ratio 0.75 --log-every 1"
    call(train.main, "--data", folder, *shape.split(), *paper, *MACHINE.split(), "--out", out)
    return out


def test_losses_weights_and_perplexities(run):
    lines = read_metrics(run)
    losses = [lines[step - 1]["loss"] for step in (1, 2, 3, 12, 24)]
    assert losses == [pytest.approx(expected, rel=1e-5) for expected in LOSSES[run.name]]
    weights = torch.load(run / "model.pt", weights_only=True)
    expected = WEIGHTS[run.name]
    sums = {name: weights[name].double().abs().sum().item() for name in expected}
    assert sums == pytest.approx(expected, rel=1e-5)
    languages = read_json(run / "result.json")["languages"]
    assert [language["tokens"] for language in languages] == [4256, 1888]
    for language, numbers in zip(languages, PERPLEXITIES[run.name], strict=True):
        found = [language[key] for key in ("ppl", "ppl_standard_error", "bits_per_byte")]
        assert found == pytest.approx(numbers, rel=1e-5)
