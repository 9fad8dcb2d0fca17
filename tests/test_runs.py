"""The scripts of runs/: what they list, that scripts which share a folder agree on it, that they skip, stop and go on."""

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from test_fit_scaling import clones

import paper
import plan
import recommend
from common import UserError
from experiment import is_monolingual
from flops import flops_per_token
from mixture import stages_from_ratios
from model import SIZES
from results import Quantity, Row, Setting
from shards import Dataset
from train import parse_arguments, settings

ROOT = Path(__file__).parent.parent
PAGES = ["table1", "table2", "table3", "table4", *(f"figure{number}" for number in range(1, 15))]
SCALES = ["cpu", "gpu", "paper"]


def bash(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a script with nothing of the caller's settings but PATH."""
    inherited = {key: os.environ[key] for key in ("PATH", "HOME", "OMP_NUM_THREADS") if key in os.environ}
    return subprocess.run(["bash", script, *arguments], env=inherited | environment, capture_output=True, text=True, check=False)


@cache
def listed(page: str, scale: str, **environment: str) -> list[str]:
    """The commands of a script."""
    texts = ("en=here", "sw=there") if page == "mylanguages" else ()
    done = bash(ROOT / "runs" / f"{page}.sh", *texts, LISTING="1", SCALE=scale, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@cache
def trainings(page: str, scale: str) -> dict:
    """Parsed train.py commands by folder."""
    words = [shlex.split(line) for line in listed(page, scale) if " train.py " in line]
    parsed = [parse_arguments(line[line.index("train.py") + 1 :]) for line in words]
    return {str(args.out): args for args in parsed}


def setting(args, one: float) -> Setting:
    """The row that a command fills."""
    names = tuple(args.languages or ("en",))
    if is_monolingual(args):
        return Setting("monolingual", names, (100.0,), round(args.tokens / one, 3), args.size)
    languages = names if len(names) > 1 else names * (args.clones or 2)
    shares = tuple(np.round(100 * stages_from_ratios(args.ratio, len(languages))[:, 0], 3))
    vocab = args.vocab if len(names) > 1 else "cloned"
    return Setting(vocab, languages, shares, round(args.tokens / one, 3), args.size, args.anchors or 0.0)


@pytest.mark.parametrize("scale", SCALES)
def test_scripts_that_share_a_folder_agree_on_what_lies_there(scale):
    runs: dict[str, list[str]] = {}
    for page in PAGES:
        for line in listed(page, scale):
            if " train.py " in line:
                runs.setdefault(line.split("--out ")[1], []).append(line)
    assert len(runs) > 60
    assert {name: set(lines) for name, lines in runs.items() if len(set(lines)) > 1} == {}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("page", "table"), [("table1", paper.TABLE_1), ("table3", paper.TABLE_3), ("figure2", paper.FIGURE_2)])
def test_every_row_of_the_paper_is_run(page, table, scale):
    runs = trainings(page, scale)
    one = next(args.tokens for name, args in runs.items() if name.endswith("50-50"))
    size = {"cpu": "nano", "gpu": "mini", "paper": "small"}[scale]
    settings = {setting(args, one) for args in runs.values()}
    assert {row.setting._replace(size=size) for row in table} <= settings


@pytest.mark.parametrize("source", ["en", "fr"])
def test_at_the_paper_s_scale_the_law_has_the_paper_s_points(source):
    page = "table1" if source == "en" else "table3"
    runs = [args for args in trainings(page, "paper").values() if is_monolingual(args) and (args.languages or ["en"]) == [source]]
    assert sorted(args.tokens / paper.TOKENS for args in runs) == pytest.approx(sorted(paper.FRACTIONS["small"]))


def test_the_default_scale_is_small_enough():
    runs = trainings("table1", "cpu").values()
    assert max(args.tokens for args in runs) <= 6.1e6  # no row reads pydocs twice
    assert sum(args.tokens for args in runs) < 45 * 60 * 35_000  # 45 minutes at 35 thousand tokens a second
    assert all(args.tokens > 2 * (args.warmup or 20) * 32 * 128 for args in runs)


@pytest.mark.parametrize("scale", SCALES)
def test_no_run_is_all_warm_up(scale):
    for page in [*PAGES, "mylanguages"]:
        for args in trainings(page, scale).values():
            recipe = plan.RECIPES[args.size]
            steps = args.tokens / ((args.batch or recipe.batch) * (args.length or recipe.length))
            assert steps > (args.warmup or recipe.warmup), args.out


def test_seeds_gpus_and_sizes_reach_the_commands():
    (line,) = [
        line
        for line in listed("figure14", "gpu", GPUS="8", SEED="3", SIZE="tiny", TOKENS="5e6", OUT="elsewhere")
        if "train.py" in line
    ]
    assert line.startswith("torchrun --standalone --nproc-per-node 8 train.py --data data/eltec --size tiny --tokens 5000000 ")
    assert line.endswith("--seed 3 --out elsewhere/table3-seed3/anchored-50-50")


@pytest.mark.parametrize(("script", "arguments", "environment", "sentence"), [
    ("table1.sh", (), {"SCALE": "huge"}, "error: SCALE=huge: expected cpu, gpu or paper"),
    ("mylanguages.sh", ("en=somewhere",), {}, "error: expected two texts"),
    ("mylanguages.sh", ("texts", "other"), {}, "error: expected two texts"),
])  # fmt: skip
def test_what_cannot_be_run_is_refused(script, arguments, environment, sentence):
    done = bash(ROOT / "runs" / script, *arguments, **environment)
    assert done.returncode == 2
    assert sentence in done.stderr


# --- the plan -------------------------------------------------------------------------------------------------------


def test_cost_of_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = "python train.py --data data/pydocs --size nano --tokens 2000000 --clones 10 --ratio 0.5 --out out/a"
    found = plan.cost(command, {"data/pydocs": 2048})
    assert found.flops == flops_per_token(SIZES["nano"], 20480, 128) * 2e6
    assert (found.state, str(found.out)) == ("to do", "out/a")
    shared = plan.cost(command.replace("--clones 10", "--anchors 0.25"), {"data/pydocs": 2048})
    assert shared.flops == flops_per_token(SIZES["nano"], int(2048 * 1.75), 128) * 2e6


def test_evaluation_is_counted_where_its_text_is_known(prepared):
    command = f"python train.py --data {prepared} --size nano --tokens 1e6 --ratio {{}} --out out/none"
    costs = [plan.cost(command.format(ratio), {str(prepared): 512}).flops for ratio in (1, 0.5)]
    training = [1e6 * flops_per_token(SIZES["nano"], vocabulary, 128) for vocabulary in (512, 1024)]
    assert costs[1] - training[1] > 1.9 * (costs[0] - training[0]) > 0


def test_speed_is_that_of_earlier_runs_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = ["python train.py --size nano --out out/a"]
    assert plan.speed(lines, "cpu")[0] == plan.GUESSED_SPEED["cpu"]
    device = plan.Process.current("cpu").device_name()
    for name, where, rate in (("a", device, 1000), ("b", device, 3000), ("c", "another machine", 10**9)):
        (tmp_path / "out" / name).mkdir(parents=True)
        result = {"device": where, "size": "nano", "tokens_per_second": rate, "vocabulary": 512, "length": 128, "processes": 1}
        (tmp_path / "out" / name / "result.json").write_text(json.dumps(result))
    cpu = plan.Process(0, 1, torch.device("cpu"))
    monkeypatch.setattr(plan.Process, "current", classmethod(lambda cls, device=None: cpu))
    rate, known = plan.speed(lines, "cpu")
    assert rate == 2000 * flops_per_token(SIZES["nano"], 512, 128)
    assert "2 earlier runs" in known
    assert plan.speed(lines, "gpu")[0] == plan.GUESSED_SPEED["gpu"]


# --- a script, with train.py and evaluate.py replaced ---------------------------------------------------------------

STUB = """#!/usr/bin/env bash
case $1 in
-c) ;;
plan.py) shift; exec "{python}" "{root}/plan.py" "$@" ;;
train.py)
    out=${{@: -1}}
    echo "train $out" >> log
    [ "$out" != "$(cat broken 2>/dev/null)" ] || exit 130
    mkdir -p "$out"
    echo '{{"languages": [{{"name": "EN1"}}], "device": "d", "processes": 1, "torch": "2", "date": "2026", "tokens_per_second": 5,
        "precision": "fp32"}}' > "$out/result.json" ;;
evaluate.py) echo "evaluate $2" >> log; sed -i 's/"EN1"/"EN1", "ppl": 20.0/' "$2/result.json" ;;
*) echo "$*" >> log ;;
esac
"""


@pytest.fixture
def laboratory(tmp_path):
    """A copy of runs/ whose `python` only writes down what it was asked for. Returns a function that runs table2.sh there."""
    shutil.copytree(ROOT / "runs", tmp_path / "runs")
    (tmp_path / "bin").mkdir()
    stub = tmp_path / "bin" / "python"
    stub.write_text(STUB.format(python=sys.executable, root=ROOT))
    stub.chmod(0o755)

    def start(**environment: str) -> tuple[int, str, list[str]]:
        (tmp_path / "log").write_text("")
        done = bash(tmp_path / "runs" / "table2.sh", PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}", **environment)
        return done.returncode, done.stdout, (tmp_path / "log").read_text().splitlines()

    return start


def test_a_script_stops_goes_on_and_has_nothing_left_to_do(laboratory, tmp_path):
    code, out, log = laboratory(DRY="1")
    assert (code, log) == (0, [])
    assert "9 of 9 runs are left: 20.7M tokens" in out
    assert "python train.py --data data/pydocs --size nano --tokens 2000000 --ratio 0.9 --seed 0 --out out/table1/90-10" in out
    (tmp_path / "broken").write_text("out/table1/mono-0.5x")
    code, _, log = laboratory()
    assert code == 130
    assert log == [
        "data.py", "train out/table1/mono-0.1x", "evaluate out/table1/mono-0.1x", "train out/table1/mono-0.25x",
        "evaluate out/table1/mono-0.25x", "train out/table1/mono-0.5x",
    ]  # fmt: skip
    (tmp_path / "broken").unlink()
    code, out, log = laboratory()
    assert code == 0
    assert log[1:3] == ["train out/table1/mono-0.5x", "evaluate out/table1/mono-0.5x"]
    assert log[-2:] == [
        "align.py out/table1/50-50 out/table1/90-10 --out out/table2",
        "fit_scaling.py out/table1 --compare --out out/table2",
    ]
    assert out.count("is done already") == 2
    assert re.search(r"== out/table1/90-10 \(about 0h0\dm of runs left\)", out)
    recorded = (tmp_path / "out" / "table2" / "runs.md").read_text()
    assert "Machine: d, 1 process(es), torch 2, fp32." in recorded
    assert recorded.count("train.py") == recorded.count("evaluate.py") == 9
    code, _, log = laboratory(SEED="1")
    assert log[-1] == "fit_scaling.py out/table1-seed1 --compare --out out/table2-seed1"
    assert (tmp_path / "out" / "table2" / "runs.md").read_text() == recorded


def test_a_run_of_other_settings_does_not_pass_for_the_one_that_is_asked_for(prepared, tmp_path):
    command = f"python train.py --data {prepared} --size nano --tokens {{}} --ratio 0.5 --out {tmp_path / 'a'}"
    args = parse_arguments(shlex.split(command.format("1e5"))[2:])
    dataset = Dataset(prepared)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_text(json.dumps(settings(args, dataset, plan.Process.current("cpu"))))
    assert plan.cost(command.format("1e5"), {}).state == "begun"
    with pytest.raises(UserError, match="holds a run with other settings: tokens"):
        plan.cost(command.format("2e5"), {})
    with pytest.raises(UserError, match=r"holds a run on .*, expected data/elsewhere"):
        plan.cost(command.format("1e5").replace(str(prepared), "data/elsewhere"), {})


def test_without_any_run_there_is_nothing_to_judge(laboratory, tmp_path):
    done = bash(tmp_path / "runs" / "takeaways.sh", PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert done.returncode == 2
    assert "there is neither out/table1 nor any other folder of runs" in done.stderr


# --- the recommendation ---------------------------------------------------------------------------------------------


def mix(share: float, value: float, half: float, total: float) -> list:
    """The two rows of a mix in which the rarer language has 300 thousand tokens."""
    unknown = Quantity(math.nan)
    rows = []
    for position, name in enumerate(("EN", "SW")):
        seen = 3e5 if position else total - 3e5
        teff = Quantity(value, value - half, value + half) if position else Quantity(1.0, 0.9, 1.1)
        law = paper.LAWS["en"]
        rows.append(Row(f"{share:g}", 1, clones(share), position, "", name, name.lower(), "f", seen, Quantity(50.0), law, unknown,
                        Quantity(teff.value * seen), teff))  # fmt: skip
    return rows


def test_the_best_mix_is_recommended_and_a_cheaper_one_that_may_be_as_good():
    rows = [*mix(50, 1.1, 0.05, 6e5), *mix(80, 1.7, 0.2, 15e5), *mix(90, 1.8, 0.2, 3e6), *mix(95, 1.5, 0.2, 6e6)]
    text = recommend.recommend(rows)
    assert "p(SW) = 10% gives SW a TEff of 1.80 ± 0.20: 300k tokens of it are worth 540k" in text
    assert "p(SW) = 20% cannot be told from it by these runs, and takes 1.5M tokens instead of 3M" in text
    assert "No mix helps" not in text


def test_where_no_mix_helps_it_says_so():
    assert "No mix helps: SW is better off alone." in recommend.recommend(mix(50, 0.8, 0.05, 6e5))


def test_without_mixes_or_law_nothing_is_recommended():
    with pytest.raises(UserError, match="found none"):
        recommend.recommend([])
    rows = [row._replace(token_efficiency=Quantity(math.nan)) for row in mix(50, 1.1, 0.05, 6e5)]
    with pytest.raises(UserError, match="needs the law of SW"):
        recommend.recommend(rows)
