"""From flags to config.json to a mixture: every setting of languages and shares, and a sentence for what makes no sense."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import train
from common import UserError
from experiment import build_mixture, mixture_settings, one_pass, run_name
from process import Process
from shards import Dataset


def configure(folder, *flags) -> dict:
    """The config.json of a command line."""
    arguments = ["--data", folder, "--size", "nano", "--length", 32, "--device", "cpu", *flags]
    args = train.parse_arguments([str(argument) for argument in arguments])
    return json.loads(json.dumps(train.settings(args, Dataset(args.data), Process.current(args.device))))


SETTINGS = [
    # flags, names of the languages, vocab, stages, what the default folder is called after the size
    ("--ratio 0.9", "EN1 EN2", "cloned", [[0.9, 0.1]], "90"),
    ("", "EN1 EN2", "cloned", [[0.5, 0.5]], "50"),
    ("--ratio 1", "EN1", "monolingual", [[1]], "100"),
    ("--ratio 0.9,0.1", "EN1 EN2", "cloned", [[0.9, 0.1], [0.1, 0.9]], "90-10"),
    ("--ratio 0.4 --clones 4", "EN1 EN2 EN3 EN4", "cloned", [[0.4, 0.2, 0.2, 0.2]], "40-4clones"),
    ("--anchors 0.2", "EN1 EN2", "cloned", [[0.5, 0.5]], "50-20anchors"),
    ("--clones 3 --mix 0.5,0.3,0.2", "EN1 EN2 EN3", "cloned", [[0.5, 0.3, 0.2]], "50+30+20-3clones"),
    ("--mix 0.9,0.1", "EN1 EN2", "cloned", [[0.9, 0.1]], "90"),
    ("--mix 1", "EN1", "monolingual", [[1]], "100"),
    ("--languages xx", "XX1 XX2", "cloned", [[0.5, 0.5]], "xx-50"),
    ("--languages xx --ratio 1", "XX1", "monolingual", [[1]], "xx-100"),
    ("--languages en --ratio 1", "EN1", "monolingual", [[1]], "100"),
    ("--languages en xx --ratio 0.9", "EN XX", "disjoint", [[0.9, 0.1]], "en-xx-disjoint-90"),
    ("--languages xx en --ratio 0.9", "XX EN", "disjoint", [[0.9, 0.1]], "xx-en-disjoint-90"),
    ("--languages en xx --ratio 1,0", "EN XX", "disjoint", [[1, 0], [0, 1]], "en-xx-disjoint-100-0"),
    ("--languages en xx --vocab anchored", "EN XX", "anchored", [[0.5, 0.5]], "en-xx-anchored-50"),
    ("--languages en xx yy --mix 0.7,0.2,0.1/0.1,0.2,0.7", "EN XX YY", "disjoint", [[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]],
     "en-xx-yy-disjoint-70+20+10-10+20+70"),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "names", "vocab", "stages", "label"), SETTINGS)
def test_flags_become_a_config_that_rebuilds_the_mixture(babel, flags, names, vocab, stages, label):
    dataset, config = Dataset(babel), configure(babel, "--tokens", "1.28e6", *flags.split())
    assert config["vocab"] == vocab
    assert np.array(config["stages"]) == pytest.approx(np.array(stages))
    assert run_name(config, dataset) == f"babel-nano-{label}-1.28M-seed0"
    mixture = build_mixture(dataset, config)
    assert [language.name for language in mixture.languages] == names.split()
    assert [language.source for language in mixture.languages] == config["sources"]
    tokens, chosen = mixture.batch(np.arange(50))
    assert tokens.shape == (50, 33)
    assert set(chosen.tolist()) <= set(range(len(names.split())))


def test_no_two_settings_share_a_folder():
    flags = [flags for flags, *_ in SETTINGS]
    labels = [label for *_, label in SETTINGS]
    same = [{flags[i] for i, label in enumerate(labels) if label == shared} for shared in set(labels)]
    assert sorted(map(sorted, filter(lambda group: len(group) > 1, same))) == [
        ["--languages en --ratio 1", "--mix 1", "--ratio 1"],
        ["--mix 0.9,0.1", "--ratio 0.9"],
    ]


def test_the_longest_run_reads_no_text_twice(babel):
    dataset = Dataset(babel)
    sizes = {source: entry["train"]["tokens"] for source, entry in dataset.languages.items()}
    chosen = {"sources": ["en", "xx"], "stages": [[0.9, 0.1], [0.5, 0.5]]}
    assert one_pass(chosen, dataset, 32) == pytest.approx(min(sizes["en"] / 0.7, sizes["xx"] / 0.3))
    clones = {"sources": ["en"] * 10, "stages": [[0.1] * 10]}
    assert one_pass(clones, dataset, 32) == pytest.approx(sizes["en"])
    assert one_pass({"sources": ["en", "xx"], "stages": [[1, 0]]}, dataset, 32) == pytest.approx(sizes["en"])
    config = configure(babel, "--languages", "en", "xx", "--ratio", 0.7)
    passes = build_mixture(dataset, config).passes()
    assert max(passes.values()) == pytest.approx(1, abs=0.03)
    assert passes["en"] / passes["xx"] == pytest.approx(0.7 * sizes["xx"] / (0.3 * sizes["en"]), rel=0.05)


def test_the_introduction_says_how_often_each_text_is_read(babel):
    config = configure(babel, "--languages", "en", "xx", "--ratio", 0.2, "--tokens", "5e5")
    process = SimpleNamespace(world=1, device_name=lambda: "a machine")
    mixture = build_mixture(Dataset(babel), config)
    passes = mixture.passes()
    text = train.introduction(config, mixture, process)
    assert f"{passes['xx']:.2g} passes over xx, {passes['en']:.2g} over en\n" in text
    assert "EN 20% and XX 80%" in text


@pytest.mark.parametrize(("flags", "sentence"), [
    ("--ratio 0.5 --mix 0.5,0.5", "--ratio and --mix exclude each other"),
    ("--mix 0.5,0.4", "--mix: the shares of stage 1 add up to 0.9, expected 1"),
    ("--mix 0.5,0.5/0.5,0.500002", "--mix: the shares of stage 2 add up to 1.000002, expected 1"),
    ("--mix 1.5,-0.5", "--mix 1.5,-0.5: expected numbers from 0 to 1"),
    ("--mix 0.5,half", "--mix '0.5,half': expected a number from 0 to 1"),
    ("--mix 0.5,0.5/", "--mix '': expected a number from 0 to 1"),
    ("--mix 0.5,0.3,0.2", "--mix: shares found in stage 1: 3, expected 2, for 2 clones of en"),
    ("--mix 0.5,0.5/1", "--mix: shares found in stage 2: 1, expected 2"),
    ("--languages en xx --mix 0.5,0.5/0.2,0.2,0.6", "--mix: shares found in stage 2: 3, expected 2, for en xx"),
    ("--languages en xx --ratio 1", "--ratio 1 is a monolingual run and takes one language, but --languages names en xx"),
    ("--languages en xx --mix 1", "--mix 1 is a monolingual run and takes one language"),
    ("--languages en zz", "--languages zz: "),
    ("--languages zz", "does not have it, expected en or xx or yy"),
    ("--languages en xx en", "--languages names en more than once"),
    ("--languages en xx --clones 2", "--clones is for copies of one language, but --languages names 2: en xx"),
    ("--languages en xx --anchors 0.1", "--anchors is for copies of one language"),
    ("--anchors 1.5", "--anchors 1.5: expected a number from 0 to 1"),
    ("--anchors nan", "--anchors nan: expected a number from 0 to 1"),
    ("--ratio 1 --anchors 0.5", "--ratio 1 is a monolingual run, which has no use for --anchors"),
    ("--ratio 1 --clones 5", "--ratio 1 is a monolingual run, which has no use for --clones"),
    ("--vocab anchored", "--vocab anchored is for two or more --languages, found none"),
    ("--languages en --vocab disjoint", "--vocab disjoint is for two or more --languages, found en"),
    ("--languages en xx --vocab cloned", "invalid choice: 'cloned'"),
    ("--languages en xx --length 200000", "training tokens, expected more than one sequence of 200000"),
])  # fmt: skip
def test_what_makes_no_sense_is_one_sentence(babel, flags, sentence):
    with pytest.raises(UserError) as error:
        configure(babel, *flags.split())
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_shares_may_miss_1_by_a_rounding(babel):
    assert configure(babel, "--mix", "0.3333333,0.6666666", "--tokens", "1e5")["stages"] == [[0.3333333, 0.6666666]]


def test_an_unknown_language_names_those_there_are(babel):
    args = train.parse_arguments(["--data", str(babel), "--languages", "en", "zz"])
    with pytest.raises(UserError, match=r"--languages zz: .*babel does not have it, expected en or xx or yy"):
        mixture_settings(args, Dataset(babel))
