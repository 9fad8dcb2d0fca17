"""The scripts of runs/: which commands they give, that they agree where they share runs, that they go on."""

import os
import re
import shlex
import shutil
import subprocess
from functools import cache
from io import StringIO
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from conftest import ROOT, tree
from made_up_runs import write_run

from common import UserError, duration
from machine import Process
from model import SIZES, flops_per_token
from paper import plan, values
from paper.run import latest, run_all
from train import languages_and_stages, parse_arguments

PAGES = ["table1", "table2", "table3", "table4", *(f"figure{number}" for number in range(1, 15))]
FRACTIONS = {  # of the standard run, on which the paper fitted its laws of English
    "mini": (0.05, 0.1, 0.25, 0.5, 1),
    "small": (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1, 1.5, 2, 3),
    "medium": (0.1, 0.24, 0.5, 1, 1.2, 2.04, 2.16, 2.28, 2.4),
}
TEXT = ROOT / "requirements.txt"  # any text; dry runs only look at its size
TWO = (f"en={TEXT}", f"sw={TEXT}")
SCALES = {"cpu": "pico", "gpu": "mini", "paper": "small"}


def bash(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a script with nothing of the caller's settings but PATH."""
    environment = {"PATH": os.environ["PATH"]} | environment
    return subprocess.run(
        ["bash", script, *arguments], env=environment, capture_output=True, text=True, check=False
    )


@cache
def commands(page: str, scale: str = "cpu", **environment: str) -> list[str]:
    """What a script would do."""
    texts = TWO if page == "mylanguages" else ()
    done = bash(ROOT / "runs" / f"{page}.sh", *texts, DRY="1", SCALE=scale, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@cache
def trainings(page: str, scale: str = "cpu") -> dict:
    """Parsed train.py commands by folder."""
    words = [shlex.split(line) for line in commands(page, scale) if " train.py " in line]
    parsed = [parse_arguments(line[line.index("train.py") + 1 :]) for line in words]
    return {str(args.out): args for args in parsed}


class Texts:
    """As much of a prepared folder as tells which languages a command means."""

    folder, languages = Path("data/texts"), ("en", "fr", "sw", "noise")


def row_of(args, one: float) -> tuple:
    """Vocabulary, languages, shares of L1 and multiples of the standard run that a command trains."""
    config = languages_and_stages(args, Texts)
    shares = tuple(round(100 * stage[0], 3) for stage in config["stages"])
    return config["vocab"], tuple(config["sources"]), shares, round(args.tokens / one, 3)


@pytest.mark.parametrize("scale", SCALES)
def test_scripts_that_share_a_folder_agree_on_what_lies_there(scale):
    runs: dict[str, set[str]] = {}
    for line in [line for page in PAGES for line in commands(page, scale) if " train.py " in line]:
        runs.setdefault(line.split("--out ")[1], set()).add(line)
    assert len(runs) > 60
    assert {name: lines for name, lines in runs.items() if len(lines) > 1} == {}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("page", "table"), [
    ("table1", values.TABLE_1), ("table3", values.TABLE_3), ("figure2", values.FIGURE_2),
])  # fmt: skip
def test_every_row_of_the_paper_is_run(page, table, scale):
    runs = trainings(page, scale)
    one = next(args.tokens for name, args in runs.items() if name.endswith("50-50"))
    rows = {row_of(args, one) for args in runs.values() if args.size == SCALES[scale] and not args.anchors}
    assert {(row.vocab, row.languages, row.shares, row.times) for row in table} <= rows


@pytest.mark.parametrize(("page", "source", "size"), [
    ("table1", "en", "small"), ("table3", "fr", "small"),
    ("figure2", "en", "mini"), ("figure2", "en", "medium"),
])  # fmt: skip
def test_at_the_paper_s_scale_the_law_has_the_paper_s_points(page, source, size):
    runs = [args for args in trainings(page, "paper").values() if args.size == size and args.ratio == [1.0]]
    tokens = [args.tokens / values.TOKENS for args in runs if (args.languages or ["en"]) == [source]]
    assert sorted(tokens) == pytest.approx(sorted(FRACTIONS[size]))


def test_the_default_scale_is_small_enough():
    runs = trainings("table1").values()
    assert max(args.tokens for args in runs) <= 20.4e6  # no row reads pydocs twice
    assert sum(args.tokens for args in runs) < 3600 * 2 * 16_000  # an hour of two cores of 2021


@pytest.mark.parametrize("scale", SCALES)
def test_no_run_is_all_warm_up(scale):
    for page in [*PAGES, "mylanguages"]:
        for args in trainings(page, scale).values():
            size = SIZES[args.size]
            steps = args.tokens / ((args.batch or size.batch) * (args.length or size.length))
            assert steps > (args.warmup or size.warmup), args.out


def test_every_command_is_one_that_exists():
    """Flags of train.py are parsed, those of data.py and modules are there."""
    data_py = (ROOT / "data.py").read_text()
    for page in [*PAGES, "takeaways", "mylanguages", "demo", "sharing", "factorial"]:
        for line in commands(page):
            words = shlex.split(line.removeprefix("python "))
            if words[0] == "data.py":
                assert all(f'"{word}"' in data_py for word in words if word.startswith("--")), line
            elif words[0] == "-m":
                assert (ROOT / f"{words[1].replace('.', '/')}.py").exists(), line
            else:
                assert words[0] in {"train.py", "align.py", "fit_scaling.py", "#"}, line


def test_the_positive_control_of_the_demo_is_a_monolingual_run_by_another_name():
    runs = {Path(out).name: args for out, args in trainings("demo").items()}
    ladder = {f"mono-{times}x" for times in (0.4, 0.2, 0.1, 0.05)}
    assert set(runs) == {"90-10", "50-50", "no-space", "placebo", "positive"} | ladder
    assert (runs["no-space"].shared, runs["no-space"].ratio) == ([], runs["90-10"].ratio)
    one, other = runs["positive"], runs["mono-0.1x"]
    assert (one.tokens, one.batch, one.anchors) == (other.tokens, other.batch, 1)
    shares = {name: min(runs[name].ratio[0], 1 - runs[name].ratio[0]) for name in ("placebo", "90-10")}
    rare = {name: runs[name].tokens * share for name, share in shares.items()}
    assert rare["placebo"] == pytest.approx(rare["90-10"], rel=0.2)
    steps = {name: runs[name].tokens / (runs[name].batch or 8) for name in shares}
    assert steps["placebo"] == pytest.approx(steps["90-10"], rel=0.2)


def test_runs_alone_have_small_batches_and_a_second_size_too():
    batches = {name: args.batch for name, args in trainings("figure2").items()}
    alone = {"out/table1/mono-1x": 2, "out/figure2/nano-mono-1x": 2, "out/figure2/nano-mono-0.1x": 2}
    assert (alone | {"out/figure2/nano-90-10": 8, "out/table1/90-10": None}).items() <= batches.items()


def test_seeds_gpus_and_sizes_reach_the_commands():
    environment = {
        "GPUS": "8",
        "SEED": "3",
        "SIZE": "tiny",
        "TOKENS": "5e6",
        "OUT": "elsewhere",
        "RECIPE": "--warmup 9",
    }
    first, europarl, train, *_ = commands("figure14", "gpu", **environment)
    assert first == "python data.py --corpus eltec --name eltec --vocab-size 16384"
    assert europarl == "python -m corpora.europarl"
    assert train == (
        "torchrun --standalone --nproc-per-node 8 train.py --data data/eltec --size tiny --tokens 5000000 "
        "--warmup 9 --languages en fr --vocab anchored --ratio 0.5 "
        "--seed 3 --out elsewhere/table3-seed3/anchored-50-50"
    )
    _, first, train, *_ = commands("figure14", NOVELS="there", PARALLEL="lines", RESULTS="results")
    assert first.startswith(
        "python data.py --name novels-char --text en=there/en --text fr=there/fr --pieces char "
    )
    assert first.endswith(" --test-fraction 0.1 --test-characters 20000")
    assert train.startswith("python train.py --data data/novels-char --size pico ")
    assert commands("table4", PARALLEL="lines", RESULTS="results")[-2].endswith(
        " --parallel en=lines.en fr=lines.fr --out results/table4"
    )
    assert "python -m paper.glue out/table1/50-50 out/table1/90-10 out/figure1/95-5" in "\n".join(
        commands("figure1", GLUE="glue")
    )


@pytest.mark.parametrize(("script", "arguments", "environment", "sentence"), [
    ("table1.sh", (), {"SCALE": "huge"}, "error: SCALE=huge: expected cpu, gpu or paper"),
    ("mylanguages.sh", (f"en={TEXT}",), {}, "error: expected two texts or more, the rarest language last"),
    ("mylanguages.sh", ("texts", "other"), {}, "error: expected NAME=FOLDER, as in en=texts/english, found"),
    ("mylanguages.sh", (f"en={TEXT}", "sw=nowhere"), {}, "error: nowhere: no such file or folder"),
    ("mylanguages.sh", TWO, {"MIXES": "50 all"}, "error: MIXES: expected percents as 50 80, found all"),
    ("mylanguages.sh", TWO, {"RARE": "5e5"}, "error: the shortest run would have 488 "
     "steps, not 20 times its 50 of warm-up, which says little of longer ones: RARE=1024000 or more, or a "
     "WARMUP of 24, or a BATCH below 8\n"),
])  # fmt: skip
def test_what_cannot_be_run_is_refused(script, arguments, environment, sentence):
    done = bash(ROOT / "runs" / script, *arguments, **environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr


EXAMPLE = re.compile(r"^#   (.*mylanguages\.sh .*?)(?: +#.*)?$", re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLE.findall((ROOT / "runs" / "mylanguages.sh").read_text()))
def test_every_documented_example_gives_each_mix_its_controls(example, tmp_path):
    (tmp_path / "large.txt").write_text("a" * 10**6)
    (tmp_path / "small.txt").write_text("a" * 10**4)
    line = example.replace("FOLDER", f"{tmp_path}/large.txt", example.count("FOLDER") - 1)
    line = line.replace("FOLDER", f"{tmp_path}/small.txt").replace("runs/", f"{ROOT}/runs/")
    dry = {"PATH": os.environ["PATH"], "DRY": "1"}
    done = subprocess.run(["bash", "-c", line], env=dry, capture_output=True, text=True, check=True)
    words = [shlex.split(line) for line in done.stdout.splitlines() if " train.py " in line]
    runs = [parse_arguments(line[line.index("train.py") + 1 :]) for line in words]
    assert len({args.out for args in runs}) == len(runs)
    assert min(args.tokens / args.length / args.batch / args.warmup for args in runs) >= 20
    mixes = [args for args in runs if args.mix and "noise" not in args.languages]
    seeds = 2 if "SEEDS" in example else 3
    groups = 4 if "THOROUGH" in example else 1  # of two sizes, two amounts
    assert len(mixes) == seeds * groups * (3 if "MIXES" in example else 5)
    for mix in mixes:
        rarest, share = mix.languages[-1:], mix.mix[0][-1]
        alike = (mix.out.parent, mix.size, mix.seed)
        beside = [args for args in runs if (args.out.parent, args.size, args.seed) == alike]
        alone = [args for args in beside if args.languages == rarest]
        noisy = [
            args for args in beside if args.languages == ["noise", *rarest] and args.tokens == mix.tokens
        ]
        assert [args.mix[0][1] for args in noisy] == [pytest.approx(share)]
        assert len([args for args in alone if (args.tokens, args.batch) == (mix.tokens, mix.batch)]) == 1
        once = {args.batch for args in alone if args.tokens == pytest.approx(share * mix.tokens, rel=0.01)}
        assert once >= {mix.batch, max(1, round(mix.batch * share))}


def test_scripts_keep_to_what_macos_has():
    """Its bash is 3.2, and its tools are not GNU's."""
    newer = (
        r"realpath|readlink -f|mapfile|readarray|declare -A|sed -i|grep -P|\bseq\b|date -d|\$\{\w+(,,|\^\^|@)"
    )
    for script in (ROOT / "runs").glob("*.sh"):
        assert not re.search(newer, script.read_text()), script


# --- a script whose `python` only writes down what it was asked for ---------------------------------

STUB = """#!/usr/bin/env bash
case $* in
-c*) exit 0 ;;
"-m paper.run --plan "*)
    cat "$4"
    while read -r words; do
        eval "set -- $words"
        shift
        "$0" "$@" || exit 2
    done
    exit ;;
esac
case $1 in
train.py)
    for out; do :; done
    echo "train $out" >>log
    [ "$out" != "$(cat broken 2>/dev/null)" ] || exit 130
    [ ! -f "$out/result.json" ] || exit 0
    mkdir -p "$out"
    printf '{\\n  "device": "a chip",\\n  "date": "2026",\\n  "ppl": 20\\n}\\n' >"$out/result.json" ;;
*) echo "$*" >>log ;;
esac
"""


@pytest.fixture
def start(tmp_path):
    """A copy of runs/ with the stub, and a function that starts a script there: (exit code, output, log)."""
    shutil.copytree(ROOT / "runs", tmp_path / "runs")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    stub = tmp_path / ".venv" / "bin" / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)

    def call(script: str, **environment: str) -> tuple[int, str, list[str]]:
        (tmp_path / "log").write_text("")
        environment = {"JOBS": "1"} | environment  # the log has one order
        done = bash(tmp_path / "runs" / script, **environment)
        return done.returncode, done.stdout + done.stderr, (tmp_path / "log").read_text().splitlines()

    return call


def test_a_script_stops_goes_on_and_tells_how_its_page_was_made(start, tmp_path):
    before = tree(tmp_path)
    code, out, log = start("table2.sh", DRY="1")
    assert (code, log) == (0, [])
    assert {**tree(tmp_path), "log": b""} == {**before, "log": b""}
    assert "--size pico --tokens 5000000 --ratio 0.9 --seed 0 --out out/table1/90-10" in out

    (tmp_path / "broken").write_text("out/table1/mono-0.5x")
    code, _, log = start("table2.sh")
    assert code == 2
    begun = [f"train out/table1/mono-{times}x" for times in (2, 1, 0.5)]
    assert log == ["data.py", *begun]

    (tmp_path / "broken").unlink()
    code, _, log = start("table2.sh")
    assert code == 0
    assert log[1:4] == begun  # of which the first two find theirs done
    assert log[-2:] == ["align.py out/table1/50-50 out/table1/90-10 --out out/table2",
                        "-m paper.compare out/table1 --out out/table2"]  # fmt: skip

    made = (tmp_path / "out" / "table2" / "commands.txt").read_text()
    assert sorted(made.splitlines()) == sorted(set(made.splitlines()))
    assert made.count(" train.py ") == made.count(" was made on a chip at 2026") == 11
    assert start("table2.sh", SEED="1")[2][-1] == "-m paper.compare out/table1-seed1 --out out/table2-seed1"
    start("table2.sh")
    assert (tmp_path / "out" / "table2" / "commands.txt").read_text() == made

    assert start("table2.sh", RESULTS="kept")[0] == 0
    kept = tmp_path / "kept"
    assert {path.name for path in kept.iterdir()} == {"table2", "runs"}
    assert len(list((kept / "runs" / "table1").glob("*/result.json"))) == 11


def test_runs_go_side_by_side_and_all_are_done_before_the_table(start, tmp_path):
    code, out, log = start("demo.sh", JOBS="3")
    assert code == 0
    runs = len(trainings("demo"))
    words = ["align.py", "data.py", "fit_scaling.py", *["train"] * runs]
    assert sorted(line.split()[0] for line in log) == words
    assert [line.split()[0] for line in log[-2:]] == ["fit_scaling.py", "align.py"]
    assert len(re.findall("(?m)^python train.py .* --out out/demo/", out)) == runs  # what is planned
    assert "out/demo/figure.png" in out
    for line in re.findall(r"(?m)^  python (.*)", out):  # what to try next can be tried
        script, *flags = shlex.split(line)
        source = (ROOT / script).read_text()
        assert all(f'"{flag}"' in source for flag in flags if flag.startswith("--")), line


def test_of_a_run_is_told_what_has_losses_and_not_a_guess_of_its_first_step(tmp_path):
    log = tmp_path / "90-10.log"
    assert latest(tmp_path / "90-10") == ""
    log.write_text("writing to out\ntraining   0% | 63 tokens/s | 13h17m left\n")
    assert latest(tmp_path / "90-10") == ""
    line = "training  14% | loss EN1 2.319 EN2 2.815 | 16.4k tokens/s | 2m37s left"
    log.write_text(log.read_text() + line + "\n")
    assert latest(tmp_path / "90-10") == f"   90-10: {line}"


@pytest.fixture
def side_by_side(tmp_path, monkeypatch):
    """paper.run on runs that only write down what they found: of those named broken, nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def trained(words: list[str]) -> None:
        out = Path(words[-1])
        if (out / "result.json").exists():
            return print(f"{out} is finished")
        if out.name == "broken":
            raise UserError("the loss is nan")
        write_run(out.parent, out.name, 1e6, [20, 30])
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        with open(out.parent / "started", "a") as file:
            file.write(f"{out.name} {os.getpid()} {visible}\n")

    monkeypatch.setattr("paper.run.CONTEXT", get_context("fork"))
    monkeypatch.setattr("train.main", trained)

    def call(*names: str, jobs: int = 2) -> None:
        for stream, name in enumerate(("stdout", "stderr"), 1):  # as they are outside tests, for logs
            monkeypatch.setattr(f"sys.{name}", os.fdopen(stream, "w", buffering=1, closefd=False))
        run_all([["python", "train.py", "--out", f"out/{name}"] for name in names], jobs)

    return call


def test_every_run_is_a_process_with_a_device_and_a_log_of_its_own(side_by_side, tmp_path, capfd):
    side_by_side("a", "b", "c")
    assert capfd.readouterr().out.count("is done: PPL EN1 20.00, EN2 30.00") == 3
    lines = (tmp_path / "out" / "started").read_text().splitlines()
    names, processes, devices = zip(*(line.split() for line in lines), strict=True)
    assert sorted(names) == ["a", "b", "c"]
    assert len({*processes, str(os.getpid())}) == 4
    assert {*devices} == {"0", "1"}
    side_by_side("a", jobs=1)
    assert "a is done: out/a is finished" in capfd.readouterr().out
    assert (tmp_path / "out" / "a.log").read_text() == "out/a is finished\n"


def test_a_run_that_fails_says_why_and_keeps_others_from_starting(side_by_side, tmp_path):
    with pytest.raises(UserError) as told:
        side_by_side("a", "broken", "b", jobs=1)
    assert str(told.value) == "out/broken failed; out/broken.log ends with:\nerror: the loss is nan"
    assert not (tmp_path / "out" / "b").exists()


def test_takeaways_are_judged_by_the_runs_that_are_there(start, tmp_path):
    judged = "-m paper.compare {} --out out/takeaways"
    assert start("takeaways.sh")[2] == [judged.format("out/table1")]  # which says that there is none
    for name in ("figure2", "table3"):
        (tmp_path / "out" / name).mkdir(parents=True)
    assert start("takeaways.sh")[2] == [judged.format("out/figure2 out/table3")]


# --- the plan ---------------------------------------------------------------------------------------

COMMAND = "python train.py --data {} --size nano --tokens 1e6 {} --out out/a"


def test_cost_of_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for flags, vocabulary, languages in (
        ("--ratio 1", 98, 1),
        ("--clones 10 --ratio 0.5", 980, 10),
        ("--anchors 0.25", 171, 2),
    ):
        _, flops, state = plan.cost(COMMAND.format("data/pydocs", flags), 4096)
        read = 1e6 + 4 / 3 * 178_461 * languages  # data/pydocs holds out so many characters
        assert flops == pytest.approx(read * flops_per_token(SIZES["nano"], vocabulary, 128))
        assert state == "to do"
    _, flops, _ = plan.cost(COMMAND.format("data/novels", "--languages en fr --ratio 0.5"), 4096)
    assert flops == pytest.approx((1e6 + 8 / 3 * 178_461) * flops_per_token(SIZES["nano"], 8192, 128))
    write_run(tmp_path / "out", "a", 1e6, [20, None])
    assert plan.cost(COMMAND.format("data/pydocs", ""), 0)[2] == "begun"
    write_run(tmp_path / "out", "a", 1e6, [20, 30])
    assert plan.cost(COMMAND.format("data/pydocs", ""), 0)[2] == "done"


def test_speed_is_that_of_earlier_runs_on_this_machine(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan.Process, "current", classmethod(lambda cls: Process(0, 1, torch.device("cpu"))))
    script = "\n".join(commands("table1"))
    device = plan.Process.current().device_name()
    for name, where, rate in (("a", device, 1000), ("b", device, 3000), ("c", "another machine", 10**9)):
        facts = {"device": where, "processes": 1, "tokens_per_second": rate, "vocabulary": 4096}
        write_run(tmp_path / "out", name, 1e6, [20, 30], size="pico", length=128, facts=facts)
    rate = 2000 * flops_per_token(SIZES["pico"], 4096, 128)
    assert plan.speed("pico", False)[0] == rate
    assert 1e8 < plan.speed("nano", False)[0] < 1e13  # a few steps are tried
    assert plan.speed("pico", True) == plan.A_GPU
    monkeypatch.setattr("sys.stdin", StringIO(script))
    code, out, _ = command(plan.main)
    assert code == 0
    assert "23 of 23 runs are left: 109M tokens, " in out
    flops = [plan.cost(line, 0)[1] for line in commands("table1") if " train.py " in line]
    needed = duration(sum(flops) / rate / 2 + 23 / 2 * plan.STARTING)  # two at a time
    assert f"about {needed}, 2 at a time; pico at {rate:.1e} FLOPs a second" in out
    assert "(median of 2 earlier runs on this machine)" in out
    monkeypatch.setattr("sys.stdin", StringIO("no command"))
    assert command(plan.main)[0] == 2
