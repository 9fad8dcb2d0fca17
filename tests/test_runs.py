"""The scripts of runs/: which commands they give, that they agree where they share runs, that they go on."""

import os
import re
import shlex
import shutil
import subprocess
from functools import cache
from io import StringIO
from pathlib import Path

import pytest
from conftest import ROOT
from made_up_runs import parse_setting

from common import UserError
from model import SIZES
from paper import run, values
from paper.run import carry_out
from train import languages_and_stages, parse_arguments

FIGURES = (1, 2, 3, 4, 5, 6, 8, 14)
PAGES = ["table1", "table2", "table3", "table4", *(f"figure{number}" for number in FIGURES)]
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
    return [line for line in done.stdout.splitlines() if not line.startswith("#")]


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
@pytest.mark.parametrize("page", ["table1", "table3", "figure2"])
def test_every_row_of_the_paper_is_run(page, scale):
    table = values.TABLES["Table 3" if page == "table3" else "Table 1"]
    of_figure = page == "figure2"  # two rows of Table 1 are what the paper's text says of Figure 2
    wanted = {parse_setting(setting) for row, setting, *_ in table if (row == "Figure 2") == of_figure}
    runs = trainings(page, scale)
    one = next(args.tokens for name, args in runs.items() if name.endswith("50-50"))
    rows = {row_of(args, one) for args in runs.values() if args.size == SCALES[scale] and not args.anchors}
    assert wanted <= rows


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
    """Of scripts and of what the demo says at its end: the script or module is there, and has the flags."""
    pages = [*PAGES, "takeaways", "mylanguages", "demo", "sharing", "factorial"]
    lines = [line for page in pages for line in commands(page)]
    lines += re.findall(r"(?m)^#   (python .*)", bash(ROOT / "runs" / "demo.sh", DRY="1").stdout)
    for line in lines:
        _, script, *words = shlex.split(line)
        if script == "-m":
            assert (ROOT / f"{words[0].replace('.', '/')}.py").exists(), line
            continue
        source = (ROOT / script).read_text()
        flags = [word.replace("--no-tied", "--tied") for word in words if word.startswith("--")]
        assert all(f'"{flag}"' in source for flag in flags), line


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
        "FLAGS": "--warmup 9",
    }
    first, europarl, train, *_ = commands("figure14", "gpu", **environment)
    assert first == "python data.py --corpus eltec --name eltec --vocab-size 16384"
    assert europarl == "python -m corpora.europarl"
    assert train == (
        "torchrun --standalone --nproc-per-node 8 train.py --data data/eltec --size tiny --tokens 5000000 "
        "--warmup 9 --languages en fr --vocab anchored --ratio 0.5 "
        "--seed 3 --out elsewhere/table3-seed3/anchored-50-50"
    )
    first, train, *_ = commands("figure14", NOVELS="there", PARALLEL="lines", RESULTS="results")
    assert first.startswith(
        "python data.py --name novels-char --text en=there/en --text fr=there/fr --pieces char "
    )
    assert first.endswith(" --test-fraction 0.15 --test-characters 10000")
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


STUB = """#!/usr/bin/env bash
case $1 in
train.py)
    for out; do :; done
    echo "train $out $CUDA_VISIBLE_DEVICES" >>log
    echo "the loss is nan"
    [ "$out" != "$(cat broken 2>/dev/null)" ] || exit 2
    [ "$out" != "$(cat slow 2>/dev/null)" ] || sleep 60
    mkdir -p "$out"
    echo '{}' >"$out/config.json"
    echo '{"device": "a chip", "date": "2026", "languages": [{"name": "EN1", "ppl": 20}]}' \\
        >"$out/result.json" ;;
*) echo "$*" >>log ;;
esac
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder where `python` only writes down what it was asked for, and a finished run says so."""
    stub = tmp_path / "bin" / "python"
    stub.parent.mkdir()
    stub.write_text(STUB)
    stub.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.executable", str(stub))
    monkeypatch.setattr("train.main", lambda words: print(f"{words[-1]} is finished"))

    def carry(lines: list[str], jobs: int = 1, minutes: float = 1) -> list[str]:
        """Carry them out; returns what `python` was asked for."""
        (tmp_path / "log").write_text("")
        try:
            carry_out(lines, jobs, minutes)
        finally:
            log = (tmp_path / "log").read_text().splitlines()
        return log

    return carry


def trained(*names: str) -> list[str]:
    """Commands that train."""
    return [f"python train.py --tokens 1e6 --out out/table/{name}" for name in names]


def test_a_script_hands_what_it_prints_to_the_runner(tmp_path):
    shutil.copytree(ROOT / "runs", tmp_path / "runs")
    stub = tmp_path / ".venv" / "bin" / "python"
    stub.parent.mkdir(parents=True)
    stub.write_text('#!/usr/bin/env bash\n[ "$1" = -c ] || { echo "$* $RESULTS"; cat; }\n')
    stub.chmod(0o755)
    done = bash(tmp_path / "runs" / "table2.sh", RESULTS="kept", SEED="1")
    first, *handed = done.stdout.splitlines()
    assert (done.returncode, done.stderr, first) == (0, "", "-m paper.run --jobs 2 kept")
    assert handed == commands("table2", RESULTS="kept", SEED="1")


def test_all_runs_are_done_before_the_table_and_what_made_it_lies_beside_it(work, monkeypatch, capsys):
    monkeypatch.setenv("RESULTS", "kept")
    table = "python align.py out/table/a --out kept/table2"
    lines = ["python data.py", *trained("a", "b"), table, "# the end"]
    asked = [line.split()[:2] for line in work(lines)]
    assert asked[:3] == [["data.py"], ["train", "out/table/a"], ["train", "out/table/b"]]
    assert asked[3:] == [["align.py", "out/table/a"]]
    out = capsys.readouterr().out
    assert out.startswith("2 of 2 runs are left: 2M tokens, 1 at a time\n")
    assert out.endswith("the end\n")
    made = Path("kept/table2/commands.txt").read_text().splitlines()
    assert made[:3] == ["python data.py", lines[1], "# out/table/a was made on a chip at 2026"]
    assert {path.name for path in Path("kept/runs/table/b").iterdir()} == {"config.json", "result.json"}
    assert [line.split()[0] for line in work(lines)] == ["data.py", "align.py"]
    assert "0 of 2 runs are left" in (out := capsys.readouterr().out)
    assert "out/table/a is finished" in out


@pytest.mark.parametrize(("gpus", "visible", "given"), [
    (0, None, {""}), (1, None, {"0"}), (8, None, {"0", "1"}), (8, "5,7", {"5", "7"}),
])  # fmt: skip
def test_runs_go_side_by_side(work, gpus, visible, given, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    asked = work(trained("a", "b", "c"), jobs=2)
    assert sorted(line.split()[1] for line in asked) == [f"out/table/{name}" for name in "abc"]
    assert {line.partition(name)[2][2:] for name in ["table/"] for line in asked} == given
    assert (tmp_path / "out" / "table" / "b.log").read_text() == "the loss is nan\n"
    assert capsys.readouterr().out.count("is done: PPL EN1 20.00") == 3


def test_a_run_that_fails_says_why_and_keeps_others_from_starting(work, tmp_path):
    (tmp_path / "broken").write_text("out/table/a")
    with pytest.raises(UserError, match=r"(?s)out/table/a failed; .*/a.log ends with:\nthe loss is nan"):
        work(trained("a", "b"))
    assert not (tmp_path / "out" / "table" / "b").exists()


def test_when_minutes_are_over_runs_end_and_the_table_follows(work, tmp_path, capsys):
    (tmp_path / "slow").write_text("out/table/a")
    asked = work([*trained("a", "b"), "python fit_scaling.py out/table"], minutes=0.01)
    assert [line.split()[0] for line in asked] == ["train", "fit_scaling.py"]
    assert "2 runs are left; the same command goes on" in capsys.readouterr().out


@pytest.mark.parametrize(("lines", "jobs", "sentence"), [
    ("python train.py --out out/a", "2", "expected --tokens and --out in python train.py --out out/a"),
    ("", "two", "--jobs: invalid number value: 'two'"),
])  # fmt: skip
def test_what_cannot_be_carried_out_is_refused(lines, jobs, sentence, monkeypatch, command):
    monkeypatch.setattr("sys.stdin", StringIO(lines))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    code, _, error = command(run.main, "--jobs", jobs)
    assert (code, error.count("\n")) == (2, 1)
    assert sentence in error


def test_takeaways_are_judged_by_the_runs_that_are_there(tmp_path):
    judged = "python -m paper.compare {}/{} --out {}/takeaways"
    there = str(tmp_path)
    dry = {"DRY": "1", "OUT": there}
    script = ROOT / "runs" / "takeaways.sh"
    assert bash(script, **dry).stdout.strip() == judged.format(there, "table1", there)
    (tmp_path / "table3").mkdir()
    assert bash(script, **dry).stdout.strip() == judged.format(there, "table3", there)
