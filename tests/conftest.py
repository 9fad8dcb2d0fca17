"""What tests share: small prepared folders of real English, and a way to run a script's main as a command."""

import json
import pydoc_data.topics
import sys
from pathlib import Path

import pytest
import torch

from common import run_script, write
from data import ShardWriter, prepare

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
def device() -> torch.device:
    """Where kernels and models are checked: on a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def tiny(prepared):
    """Flags of a run of eight steps that takes a second: fp32, eager."""
    shape = [
        "--size",
        "nano",
        "--length",
        32,
        "--batch",
        8,
        "--tokens",
        8 * 8 * 32,
        "--warmup",
        2,
        "--log-every",
        1,
    ]
    return [
        "--data",
        prepared,
        *shape,
        "--no-compile",
        "--no-score",
        "--precision",
        "fp32",
        "--device",
        "cpu",
    ]


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
