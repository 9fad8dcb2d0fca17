"""The law and its inverses: against the paper's own figures, against known laws, and from result files to a table."""

import json
import math

import numpy as np
import pytest
from conftest import tree
from hypothesis import given
from hypothesis import strategies as st

import fit_scaling
from common import UserError
from law import Law, fit_law

STEP = 128 * 512
RUN = 18265 * STEP  # tokens of the paper's standard run
PAPER_EN = fit_law([RUN, 9132 * STEP, 1826 * STEP], [21.930433, 25.308240, 48.358189])
PAPER_FR = fit_law([RUN, 9132 * STEP, 1826 * STEP], [16.021673, 18.406767, 34.057220])


@pytest.mark.parametrize(("row", "share", "ppl", "efficiency"), [
    ("4, EN1", 0.5, 26.1, 0.89), ("5, EN1", 0.9, 22.5, 1.00), ("5, EN2", 0.1, 32.8, 2.08),
    ("9, EN1", 0.5, 26.5, 0.83), ("9, EN2", 0.5, 24.4, 1.18),
])  # fmt: skip
def test_table_1_from_its_perplexities(row, share, ppl, efficiency):
    assert PAPER_EN.tokens(ppl) / (share * RUN) == pytest.approx(efficiency, rel=0.05), row


@pytest.mark.parametrize(("share", "ppl", "efficiency"), [(0.5, 19.4, 0.82), (0.1, 31.9, 1.05), (0.1, 29.0, 1.27)])
def test_french_from_its_perplexities(share, ppl, efficiency):
    assert PAPER_FR.tokens(ppl) / (share * RUN) == pytest.approx(efficiency, rel=0.065)


SATURATING = st.builds(Law, st.floats(1e-3, 0.1), st.floats(0.05, 1.0), st.floats(0.02, 0.2), st.just(1e8), st.just(1e10))
ACCELERATING = st.builds(Law, st.floats(-0.1, -1e-3), st.floats(-1.0, -0.05), st.floats(-0.05, 0.02), st.just(1e8), st.just(1e10))
LAWS = st.one_of(SATURATING, ACCELERATING).filter(lambda law: 0 < law.perplexity(1e8) < 1e4)


@given(LAWS, st.floats(1e8, 1e10))
def test_mlte_inverts_mlpe(law, tokens):
    assert law.tokens(law.perplexity(tokens)) == pytest.approx(tokens, rel=1e-4)
    assert law.perplexity(tokens * 1.1) < law.perplexity(tokens)


@given(LAWS)
def test_a_known_law_is_found_again(law):
    tokens = np.geomspace(1e8, 1e10, 6)
    found = fit_law(list(tokens), [law.perplexity(n) for n in tokens])
    assert (found.fewest, found.most) == pytest.approx((1e8, 1e10))
    for n in (1e8, 5e8, 3e9, 1e10):
        assert found.perplexity(n) == pytest.approx(law.perplexity(n), rel=1e-4)
    assert found.b == pytest.approx(law.b, abs=0.02)


def test_a_perplexity_beyond_the_asymptote_needs_infinitely_many_tokens():
    law = Law(0.03, 0.25, 0.08, 1e6, 1e9)
    assert law.tokens(1 / 0.08 * 0.999) == math.inf
    assert law.tokens(1 / 0.08 * 1.001) > 1e12
    assert law.perplexity(1.0) == math.inf


def test_without_an_asymptote_there_is_a_perplexity_that_needs_no_tokens():
    law = Law(-0.03, -0.5, 0.001, 1e6, 1e9)
    assert law.tokens(2000) == 0
    assert 0 < law.tokens(900) < law.tokens(90) < math.inf


def test_repeated_measurements_are_averaged():
    tokens = [1e8, 2e8, 4e8, 8e8]
    law = Law(0.03, 0.3, 0.08, 1e8, 8e8)
    noisy = [1 / (1 / law.perplexity(n) + sign * 1e-4) for n in tokens for sign in (-1, 1)]
    found = fit_law([n for n in tokens for _ in range(2)], noisy)
    assert found.perplexity(3e8) == pytest.approx(law.perplexity(3e8), rel=1e-4)


@pytest.mark.parametrize(("tokens", "ppls", "sentence"), [
    ([1e8, 2e8], [50, 40], "found 2 monolingual sizes"),
    ([1e8, 1e8, 2e8], [50, 50, 40], "found 2 monolingual sizes"),
    ([1e8, 2e8, 4e8], [40, 50, 60], "do not fall"),
])  # fmt: skip
def test_points_without_a_law_are_refused(tokens, ppls, sentence):
    with pytest.raises(UserError, match=sentence):
        fit_law(tokens, ppls)


def write_run(folder, name, ratio, tokens, ppls, **changes):
    """A result.json as train.py and evaluate.py leave it."""
    stages = [[share, 1 - share][: len(ppls)] for share in ratio]
    shares = np.mean(stages, axis=0)
    languages = [
        {"name": f"EN{i + 1}", "source": "en", "tokens": int(tokens * share)} | ({"ppl": ppl} if ppl else {})
        for i, (share, ppl) in enumerate(zip(shares, ppls, strict=True))
    ]
    result = {
        "fingerprint": "f",
        "size": "small",
        "length": 512,
        "batch": 128,
        "learning_rate": 6e-4,
        "warmup": 500,
        "stages": stages,
        "tokens": tokens,
        "languages": languages,
    }
    (folder / name).mkdir(parents=True)
    (folder / name / "result.json").write_text(json.dumps(result | changes))


@pytest.fixture
def paper(tmp_path):
    """The first rows of Table 1 as run folders."""
    folder = tmp_path / "table1"
    for name, tokens, ppl in [
        ("mono-1.2B", RUN, 21.930433),
        ("mono-0.6B", RUN / 2, 25.308240),
        ("mono-0.12B", RUN / 10, 48.358189),
    ]:
        write_run(folder, name, [1.0], tokens, [ppl])
    write_run(folder, "50-50", [0.5], RUN, [26.1, 26.1])
    write_run(folder, "90-10", [0.9], RUN, [22.5, 32.8])
    return folder


def test_run_folders_become_a_table_and_a_figure(paper, command):
    write_run(paper, "schedule", [0.9, 0.1], RUN, [26.5, 24.4])
    write_run(paper, "unevaluated", [0.5], RUN, [None, None])
    write_run(paper, "better-than-any", [0.5], RUN, [12.0, 26.1])
    code, out, _ = command(fit_scaling.main, paper)
    assert code == 0
    rows = {
        (line[0], line[1]): line[2:] for line in ([c.strip() for c in text.split("|")[1:-1]] for text in out.splitlines()) if line
    }
    assert rows["90-10", "EN2"][0] == "10%"
    assert rows["90-10", "EN2"][-1] == "2.14"
    assert rows["mono-0.6B", "EN1"][-1] == "1.00"
    assert rows["schedule", "EN2"][0] == "10→90%"
    assert rows["better-than-any", "EN1"][-2:] == ["beyond the law", "-"]
    assert "left out: " in out
    assert "unevaluated" not in (paper / "table.md").read_text()
    assert (paper / "table.md").read_text() in out
    assert (paper / "figure.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_runs_of_another_size_do_not_share_the_law(paper, command):
    write_run(paper, "mini", [0.5], RUN, [30.0, 30.0], size="mini")
    _, out, _ = command(fit_scaling.main, paper)
    assert [line.split("|")[-2].strip() for line in out.splitlines() if line.startswith("| mini")] == ["-", "-"]


def test_one_run_of_another_size_does_not_cost_the_table(paper, command):
    write_run(paper, "mini", [1.0], RUN, [30.0], size="mini")
    code, out, _ = command(fit_scaling.main, paper)
    assert code == 0
    assert "no law for mini on en: the law has three unknowns" in out
    assert "| 90-10" in out


def test_runs_of_one_name_in_two_folders_are_told_apart(paper, command):
    write_run(paper, "other/50-50", [0.5], RUN, [27.0, 27.0])
    _, out, _ = command(fit_scaling.main, paper)
    assert {line.split("|")[1].strip() for line in out.splitlines() if "50-50" in line} == {"50-50", "other/50-50"}


def test_a_perplexity_that_is_no_number_is_refused(paper, command):
    write_run(paper, "broken", [1.0], RUN, [math.nan])
    code, _, error = command(fit_scaling.main, paper)
    assert (code, "not finite" in error) == (2, True)


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda folder: None, "is not a folder"),
    (lambda folder: folder.mkdir(), "holds no evaluated run"),
    (lambda folder: write_run(folder, "a", [0.5], RUN, [26.1, 26.1]), "no monolingual run"),
    (lambda folder: write_run(folder, "a", [1.0], RUN, [21.9]), "found 1 monolingual sizes"),
    (lambda folder: (folder.mkdir(), (folder / "result.json").write_text("{")), "result.json cannot be read"),
])  # fmt: skip
def test_folders_without_enough_runs_are_refused(tmp_path, command, make, sentence):
    make(tmp_path / "runs")
    before = tree(tmp_path)
    code, _, error = command(fit_scaling.main, tmp_path / "runs")
    assert code == 2
    assert sentence in error
    assert tree(tmp_path) == before
