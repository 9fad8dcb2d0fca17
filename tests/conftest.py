"""What tests share: small prepared folders of real English, and a way to run a script's main as a command."""

import json
import pydoc_data.topics
import sys
from pathlib import Path

import pytest
import torch

from common import run_script, write
from data import Dataset, ShardWriter, prepare

ROOT = Path(__file__).parent.parent
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

BPE = {"pieces": "bpe", "vocab_size": 512, "placebo": False}


def write_documents(path: Path, documents: list[tuple[str, str]]) -> Path:
    """Named documents as one .jsonl file."""
    lines = [json.dumps({"name": name, "text": text}) + "\n" for name, text in documents]
    write(path, "".join(lines))
    return path


@pytest.fixture(scope="session")
def documents() -> list[tuple[str, str]]:
    """(name, text) of the help topics of Python: about 150 documents, 700 kB of English."""
    return sorted(pydoc_data.topics.topics.items())


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, documents) -> Path:
    """A folder as data.py makes it, with 512 pieces. Tests read it and must not change it."""
    folder = tmp_path_factory.mktemp("data")
    recipe = {"text": "topics", **BPE, "test_fraction": 0.05, "seed": 0}
    prepare(folder / "topics", recipe, {"en": write_documents(folder / "en.jsonl", documents)})
    return folder / "topics"


@pytest.fixture(scope="session")
def babel(tmp_path_factory, documents) -> Path:
    """Three "languages", en, xx and yy: every third help topic each, with their own tokenisers. Read only."""
    folder = tmp_path_factory.mktemp("data")
    recipe = {"text": "topics", **BPE, "test_fraction": 0.1, "seed": 0}
    texts = {
        name: write_documents(folder / f"{name}.jsonl", documents[first::3])
        for first, name in enumerate(("en", "xx", "yy"))
    }
    prepare(folder / "babel", recipe, texts)
    return folder / "babel"


@pytest.fixture(scope="session")
def characters(tmp_path_factory, documents) -> Path:
    """A few help topics in characters, with a placebo, as data/pydocs has it; several shards."""
    folder = tmp_path_factory.mktemp("data")
    recipe = {"pieces": "char", "vocab_size": 512, "placebo": True, "test_fraction": 0.1, "seed": 0}
    short = [(name, text[:700]) for name, text in documents[:40]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data.SHARD", 5_000)
        prepare(folder / "few", recipe, {"en": write_documents(folder / "en.jsonl", short)})
    return folder / "few"


@pytest.fixture
def command(capsys):
    """Call `command(main, *arguments)` as the shell would: (exit code, standard output, standard error)."""

    def call(main, *arguments) -> tuple[int, str, str]:
        capsys.readouterr()
        code = 0
        try:
            run_script(lambda: main([str(argument) for argument in arguments]))
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def refused(command, tmp_path):
    """Call `refused(main, *arguments)`, which has to end with 2 and to write nothing: its one sentence."""

    def call(main, *arguments, folder: Path = tmp_path) -> str:
        before = tree(folder)
        code, _, error = command(main, *arguments)
        assert (code, error.count("\n"), tree(folder)) == (2, 1, before)
        return error

    return call


@pytest.fixture(scope="session")
def tokenizer(prepared):
    """The tokeniser of `prepared`."""
    return Dataset(prepared).tokenizer("en")


@pytest.fixture
def device() -> torch.device:
    """Where kernels and models are checked: on a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


TINY = "--size nano --length 32 --batch 8 --tokens 2048 --warmup 2 --log-every 1"
MACHINE = "--no-compile --precision fp32 --device cpu"


@pytest.fixture
def tiny(prepared) -> list:
    """Flags of a run of eight steps that takes a second: fp32, eager."""
    return ["--data", prepared, *TINY.split(), *MACHINE.split(), "--no-score"]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes: what 'nothing was written' is checked with."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same_weights(one: Path, other: Path) -> bool:
    """Whether two weight files hold the same tensors, bit for bit."""
    first, second = (torch.load(path, weights_only=True) for path in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def write_shard(folder: Path, prefix: str, tokens, offset: int = 0, vocab_size: int = 512) -> Path:
    """A shard with these tokens, as the first of a split."""
    writer = ShardWriter(folder, prefix, offset, vocab_size)
    writer.add(tokens, "")
    writer.flush()
    return folder / f"{prefix}_000.bin"
