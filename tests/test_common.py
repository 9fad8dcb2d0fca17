"""What every script does: whatever happens to its output, what it computed is written."""

import subprocess
import sys

import pytest
from conftest import ROOT

from common import without_words

SCRIPT = """
from pathlib import Path
from common import run_script, write

def main():
    for number in range(30_000):
        print("line", number, "é")
    write(Path("computed.json"), {"number": 1})

run_script(main)
"""


@pytest.mark.parametrize("output", ["| head -1", ">&-", "> /dev/null", "2>&- | head -1", "> /dev/full"])
def test_output_never_costs_a_result(output, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = f"set -o pipefail; LC_ALL=C PYTHONPATH={ROOT} {sys.executable} script.py {output}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert (tmp_path / "computed.json").exists()


CODE = '''
"""What it does."""
def steps(parser):
    """In words."""
    parser.add_argument("--steps", type=int, default=5, help="how many é")  # more is better
    # a reason
    return "a text" "that counts"
'''


@pytest.mark.parametrize(("edit", "same"), [
    (("In words.", 'In\n    two lines of "words".'), True), (("how many é", "the number"), True),
    (("    # a reason\n", ""), True), (("What it does.", "More."), True), (("\ndef", "\n\n\ndef"), True),
    (("5", "6"), False), (("counts", "differs"), False), (("steps(parser)", "step(parser)"), False),
    (("    return", "    if parser:\n        return"), False),
])  # fmt: skip
def test_words_are_no_part_of_what_a_run_computes(edit, same):
    edited = CODE.replace(*edit)
    assert edited != CODE
    assert (without_words(edited.encode()) == without_words(CODE.encode())) is same


def test_an_installation_has_every_module():
    tomllib = pytest.importorskip("tomllib")  # Python 3.10 has none
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = settings["tool"]["setuptools"]
    modules = {path.stem for path in ROOT.glob("*.py")}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert set(listed["py-modules"]) == modules
    assert set(listed["packages"]) == packages
