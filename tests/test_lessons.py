"""Every edit of the pages is applied to a copy of the code and trained; every cell of the notebook runs."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from conftest import ROOT

import align
import evaluate
import fit_scaling
import train
from common import read_json, run_script

EDITS = {path.stem: path for path in (ROOT / "lessons" / "edits").glob("*.patch")}
MACHINE = ["--device", "cpu", "--precision", "fp32", "--no-compile", "--log-every", "1", "--warmup", "1"]
SCRIPTS = {"train.py": train, "evaluate.py": evaluate, "fit_scaling.py": fit_scaling, "align.py": align}
TRAIN_AND_OPEN = """
import sys, torch, train, evaluate
from pathlib import Path
train.main(sys.argv[1:])
evaluate.load_run(Path(sys.argv[-1]), torch.device("cpu"))
"""


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory, characters) -> Path:
    """A run of three steps by the code as it is."""
    out = tmp_path_factory.mktemp("out") / "unchanged"
    train.main(["--ratio", "0.9", "--tokens", "3072", "--data", str(characters), *MACHINE, "--out", str(out)])
    return out


def losses(run: Path) -> list[dict]:
    """The loss of each language at each step."""
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_applies_trains_and_is_another_model(name, characters, unchanged, tmp_path):
    for path in [*ROOT.glob("*.py"), *ROOT.glob("kernels/*.py")]:
        (tmp_path / path.relative_to(ROOT).parent).mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    # Without a ceiling, git in a folder below a repository would look for the files at its top.
    alone = os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    subprocess.run(["git", "apply", EDITS[name]], cwd=tmp_path, env=alone, check=True)
    untied = ["--no-tied"] if name == "shared-rows" else []  # its outputs stay apart
    flags = ["--ratio", "0.9", "--tokens", "3072", "--data", characters, *untied, *MACHINE, "--out", "edited"]
    subprocess.run([sys.executable, "-c", TRAIN_AND_OPEN, *map(str, flags)], cwd=tmp_path, check=True)

    found = losses(tmp_path / "edited")
    assert len(found) == 3
    assert all(0 < loss < 20 for line in found for loss in line.values())
    assert found != losses(unchanged)
    was, now = (read_json(run / "result.json") for run in (unchanged, tmp_path / "edited"))
    assert was["code"] != now["code"]
    assert was["non_embedding_params"] == now["non_embedding_params"]
    joint = was["vocabulary"]
    weights = torch.load(tmp_path / "edited" / "model.pt", weights_only=True)
    assert len(weights["token_embedding.weight"]) == (joint // 2 if untied else joint)


@pytest.mark.parametrize(("page", "edit"), [("README.md", "adamw"), ("docs/changing.md", "shared-rows")])
def test_a_page_shows_an_edit_that_is_tested(page, edit):
    shown = re.search(r"```diff\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)[1]
    lines = [line for line in shown.splitlines() if line.startswith(("+", "-"))]
    patch = EDITS[edit].read_text().splitlines()
    assert len(lines) >= 2
    assert [line for line in lines if line not in patch] == []


@pytest.fixture
def displayed(monkeypatch) -> list:
    """What cells show, as a notebook would; a picture has to be there."""
    shown = []
    fake = types.ModuleType("IPython.display")
    fake.Markdown = str
    fake.Image = lambda filename: Path(filename).read_bytes()
    fake.display = shown.append
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    return shown


def test_every_cell_of_the_notebook_runs(characters, displayed, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PRACTICAL_TOKENS", "4096")
    monkeypatch.setenv("PRACTICAL_FLAGS", shlex.join(["--data", str(characters), *MACHINE]))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lessons").symlink_to(ROOT / "lessons")
    commands, patched = [], []

    def shell(line: str) -> None:
        """A line of the notebook that begins with an exclamation mark."""
        words = shlex.split(line)
        commands.append(line)
        if words[0] == "python":
            if words[1] not in SCRIPTS:  # data.py, which has nothing to prepare here
                return
            more = ["--device", "cpu"] if words[1] in {"evaluate.py", "align.py"} else []
            run_script(lambda: SCRIPTS[words[1]].main([*words[2:], *more]))
        else:
            assert words[0] in {"git", "pip"}, line
            patched.append(words)

    cells = json.loads((ROOT / "lessons" / "practical.ipynb").read_text())["cells"]
    namespace = {"shell": shell}
    for cell in cells:
        if cell["cell_type"] == "code":
            source = re.sub(r"(?m)^( *)!(.*)$", r'\1shell(f"""\2""")', "".join(cell["source"]))
            exec(compile(source, "cell", "exec"), namespace)
            assert cell["outputs"] == []
    assert {line.split()[1] for line in commands if line.startswith("python")} >= set(SCRIPTS)
    assert sum(isinstance(thing, bytes) for thing in displayed) >= 2  # pictures
    assert sum("| run " in str(thing) for thing in displayed) >= 2  # tables
    applied = [words[-1] for words in patched if words[:2] == ["git", "apply"]]
    assert applied
    assert all((ROOT / path).exists() for path in applied)


def test_the_practical_names_scripts_and_flags_that_exist():
    """Every command of the sheet parses; runs that it reads are made by it or by the demo."""
    text = (ROOT / "lessons" / "practical.md").read_text()
    lines = re.findall(r"(?m)^python (\S+) ([^#\n]*)", text)
    assert len(lines) > 10
    sources = {name: (ROOT / name).read_text() for name in SCRIPTS}
    for script, rest in lines:
        for flag in re.findall(r"--[a-z-]+", rest):
            assert f'"{flag.replace("--no-tied", "--tied")}"' in sources[script], (script, flag)
        if script == "train.py":
            train.parse_arguments(shlex.split(rest))
    for path in re.findall(r"lessons/edits/[a-z-]+\.patch", text):
        assert (ROOT / path).exists()
