"""Which mix serves the rarest language: what is recommended of made-up runs, and when nothing is."""

import json
import math
import re

import numpy as np
import pytest
from made_up_runs import cells_of, write_run

from common import write
from paper import recommend
from records import read_records

RARE = 2e8  # tokens of the rarest language in each mix
SAME = dict.fromkeys((50, 80, 90), 15.0)  # its perplexity in mixes, by percent of the others
WORSE = dict.fromkeys(SAME, 18.0)  # beside noise


@pytest.fixture
def mixes(tmp_path):
    """Write what runs/mylanguages.sh leaves behind: mixes, the same beside noise, and the language alone."""

    def make(mixed, noise, alone=20, longer=17, text=RARE, rare=RARE, spread=0.004, seeds=3, size="small"):
        random = np.random.default_rng(5)

        def run(name: str, times: float, ppls: list, **settings) -> None:
            moved = [ppl * math.exp(spread * random.standard_normal()) for ppl in ppls]
            passes = {"passes": {"sw": times * rare / text}} if len(ppls) == 1 and text else {}
            settings |= {"seed": seed, "size": size, "facts": passes}
            write_run(folder, f"{size}-{name}", times * rare, moved, **settings)

        for seed in range(seeds):
            folder = tmp_path / f"seed{seed}-{rare:.0f}"
            run("alone-1x", 1, [alone], sources=("sw",))
            run("alone-1x-batch-13", 1, [alone * 0.95], sources=("sw",), batch=13)
            run("alone-40x", 40, [5.0], sources=("sw",))  # longer than any mix
            for percent, ppl in mixed.items():
                share, times = percent / 100, 100 / (100 - percent)
                run(f"{percent}-{100 - percent}", times, [9, ppl], sources=("en", "sw"), ratio=share)
                run(f"noise-{percent}", times, [99, noise[percent]], sources=("noise", "sw"), ratio=share)
                run(f"alone-{times}x", times, [longer], sources=("sw",))
        return tmp_path

    return make


def advice_of(folder) -> str:
    """The first line of a page."""
    (mixes,) = recommend.parts_of(read_records([folder]))
    return recommend.advice(mixes)


def test_mixes_that_are_alike_cannot_be_told_apart_and_the_cheapest_is_recommended(mixes):
    folder = mixes(SAME, WORSE)
    write_run(folder, "unread", RARE, [9, 99], sources=("en", "sw"), ratio=1.0)  # none of the rare language
    advice = advice_of(folder)
    assert advice.startswith("**small-50-50 (50%) is recommended** (best mix: small-")
    assert advice.count("cannot be told from the best") == 2
    assert "worse" not in advice
    assert advice.endswith(" 3 mixes were compared, so one of them looks good by chance more easily.")


def test_the_best_mix_is_found_and_by_how_much_the_others_are_worse(mixes, command):
    folder = mixes({50: 18.5, 80: 15.0, 90: 15.02}, {50: 18.9, 80: 18.0, 90: 17.5})
    code, printed, error = command(recommend.main, folder, "--out", folder / "page")
    assert (code, error) == (0, "")
    text = (folder / "page" / "page.md").read_text()
    assert text in printed
    head, _, advice, *_ = text.splitlines()
    assert head == "## 200M tokens of SW, GPT small, seeds: 3"
    assert advice.startswith("**small-80-20 (20%) is recommended** (best mix: small-")
    assert "Of its text 200M tokens differ" in text
    (by,) = re.findall(r"small-50-50 \(50%\) is worse by (\S+) \[", advice)
    assert float(by) == pytest.approx(3.5, abs=0.2)
    assert advice.count("0%) cannot be told from the best") == 1
    row = next(cells for (name, _), cells in cells_of(text).items() if name == "small-80-20 (20%)")
    for name, expected in zip(recommend.SHOWN, (20, 19, 17, 18, 15), strict=True):
        assert float(row[name]) == pytest.approx(expected, rel=0.01)
    for name, expected in zip(recommend.GAINS, (3, 2), strict=True):
        gain, low, high = map(float, re.findall(r"-?[\d.]+", row[name]))
        assert low < gain < high
        assert gain == pytest.approx(expected, abs=0.2)
    assert (folder / "page" / "page.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(("noise", "settings", "doubts"), [
    (15.0, {}, "noise - mix"),  # steps of the optimiser do all of it
    (18.0, {"longer": 14.9}, "best alone - mix"),  # reading its own text again does
    (18.0, {"longer": 14.9, "text": None}, "best alone - mix"),  # or may do, nobody knows
    (18.0, {"alone": 15.5}, "best alone - mix"),  # in smaller batches, 14.7
    (18.0, {"seeds": 2, "spread": 0.1}, "noise - mix and that of best alone - mix"),
    (18.0, {"seeds": 1}, "noise - mix and that of best alone - mix"),
])  # fmt: skip
def test_where_nothing_helps_beyond_the_controls_nothing_is_recommended(mixes, noise, settings, doubts):
    advice = advice_of(mixes(SAME, dict.fromkeys(SAME, noise), **settings))
    assert advice.startswith(
        f"**No mix is recommended**: the interval of {doubts} is not above 0 (best mix: "
    )


def test_more_text_alone_is_no_opponent(mixes):
    """Where the long runs read new text and do not repeat the old one, they say what it would be worth."""
    assert advice_of(mixes(SAME, WORSE, longer=12.0, text=100 * RARE)).startswith("**small-50-50 ")


def test_a_mix_without_its_control_is_not_recommended(mixes):
    folder = mixes(SAME, WORSE)
    for path in folder.rglob("small-noise-*/result.json"):
        path.unlink()
    assert "**No mix is recommended**: the interval of noise - mix is not above 0 (" in advice_of(folder)


def test_seeds_are_compared_with_themselves(mixes, tmp_path):
    """What is hard for a seed is hard for its controls, too: it widens no difference."""
    mixes(SAME, WORSE)
    for number, hard in enumerate((0.7, 1.0, 1.4)):
        for path in tmp_path.glob(f"seed{number}*/*/result.json"):
            result = json.loads(path.read_text())
            for language in result["languages"]:
                language["ppl"] *= hard
            write(path, result)
    assert advice_of(tmp_path).startswith("**small-50-50 ")


def test_each_size_and_amount_has_its_own_part_of_the_page(mixes, command):
    mixes(SAME, WORSE, size="mini")
    alike = {50: 15.0, 87.5: 15.0}  # the latter is as long as 50-50 on four times as many tokens
    mixes(alike, alike, rare=RARE / 4, text=RARE / 4)
    folder = mixes(SAME, WORSE)
    text = command(recommend.main, folder)[1]
    parts = re.findall(r"## (\w+) tokens of SW, GPT (\w+), seeds: 3\n\n\*\*(No|\S+) ", text)
    expected = {("200M", "mini", "mini-50-50"), ("200M", "small", "small-50-50"), ("50M", "small", "No")}
    assert {(tokens, size, name.split("/")[-1]) for tokens, size, name in parts} == expected


def test_a_page_of_monolingual_runs_is_refused(tmp_path, refused):
    write_run(tmp_path, "alone", RARE, [20.0], sources=("sw",))
    assert "found no mix of languages, expected" in refused(recommend.main, tmp_path)
