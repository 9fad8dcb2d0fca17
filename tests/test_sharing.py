"""What seeds say: MLTE between runs of a known law, Student's interval, and a page made of made-up runs."""

import math

import numpy as np
import pytest

from common import write
from paper import sharing


def law(tokens: float) -> float:
    """A perplexity that falls as a power of the tokens: a straight line on paper with two logarithms."""
    return 100 * tokens**-0.2


def test_on_a_power_law_the_tokens_needed_are_exact_between_runs_and_unknown_beyond():
    tokens = np.array([1e5, 4e5, 3e6])
    perplexities = np.array([law(n) for n in tokens])
    for needed in (1e5, 2e5, 1e6, 3e6):
        assert sharing.tokens_needed(law(needed), tokens, perplexities) == pytest.approx(needed)
    assert sharing.tokens_needed(law(9e4), tokens, perplexities) == 0
    assert sharing.tokens_needed(law(4e6), tokens, perplexities) == math.inf
    assert math.isnan(sharing.tokens_needed(5, tokens[:1], perplexities[:1]))


@pytest.mark.parametrize("seeds", [3, 5])
def test_nineteen_intervals_of_twenty_hold_the_truth(seeds):
    random = np.random.default_rng(0)
    drawn = np.exp(math.log(2) + 0.3 * random.standard_normal((2000, seeds)))
    held = [low < 2 < high for _, low, high in map(sharing.interval, drawn)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)
    mean, low, high = sharing.interval([3.0])
    assert (mean, math.isnan(low), math.isnan(high)) == (pytest.approx(3), True, True)


@pytest.fixture
def folder(tmp_path):
    """Two seeds: alone on a power law, and mixes that are as good as twice and half as many tokens alone."""
    for seed, shift in ((0, 1.0), (1, 1.1)):
        settings = {"fingerprint": "text", "size": "pico", "positions": "rotary", "tied": True}
        settings |= {"precision": "fp32", "code": "abc", "seed": seed, "batch": 2, "learning_rate": 3e-3}
        runs = {f"mono-{n}": [("EN1", n, law(n))] for n in (100_000, 200_000, 400_000, 1_000_000)}
        runs["90-10"] = [("EN1", 900_000, law(9e5)), ("EN2", 200_000, law(4e5))]
        runs["50-50"] = [("EN1", 500_000, law(2.5e5)), ("EN2", 500_000, law(2.5e5))]
        for name, languages in runs.items():
            entries = [
                {"name": language, "source": "en", "tokens": own, "ppl": ppl * shift}
                for language, own, ppl in languages
            ]
            total = sum(entry["tokens"] for entry in entries)
            inside = {"hidden": {"EN1-EN2": {"positions, centred": [{"mean": 0.25}, {"mean": 0.75}]}}}
            inside |= {"embeddings": {"EN1-EN2": {"input": {"retrieval@1": 0.9}}}}
            result = settings | {"tokens": total, "languages": entries}
            result |= {"alignment": inside} if len(entries) > 1 else {}
            write(tmp_path / f"seed{seed}" / name / "result.json", result)
    return tmp_path


def test_each_seed_is_held_against_its_own_runs(folder, command):
    code, printed, error = command(sharing.main, folder)
    assert (code, error) == (0, "")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines()]
    rare = next(row for row in rows if row[:2] == ["90-10", "EN2"])
    assert rare[2:] == ["0 1", "7.95", "2.00 2.00", "2.00 [2.00, 2.00]", "200k", "0.50 0.50", "90% 90%"]
    balanced = next(row for row in rows if row[:2] == ["50-50", "EN1"])
    assert balanced[4:7] == ["0.50 0.50", "0.50 [0.50, 0.50]", "-250k"]
    assert "seed 0: 13%, seed 1: 13%" in printed  # 1 - 2^-0.2
    assert (folder / "sharing.md").read_text() in printed
    assert (folder / "sharing.svg").exists()


def test_a_run_of_another_model_is_no_yardstick(folder):
    records = sharing.read_runs([folder])
    mix = next(record for record in records if record["run"] == "90-10")
    for key in sharing.MODEL:
        assert len(sharing.yardstick(mix | {key: "another"}, records)[0]) == 0
    assert len(sharing.yardstick(mix, records)[0]) == 4


def test_a_folder_without_runs_is_one_sentence(tmp_path, command):
    code, _, error = command(sharing.main, tmp_path)
    assert (code, error.count("\n")) == (2, 1)
