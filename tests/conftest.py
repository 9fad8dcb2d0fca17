"""What tests share: a small prepared folder of real English, and a way to run a script's main as its command would."""

import pydoc_data.topics
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from common import run_script
from corpus import MemorySource
from prepare import Rules, prepare
from shards import ShardWriter

ROOT = Path(__file__).parent.parent
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


class Document(NamedTuple):
    """A named text."""

    name: str
    text: str


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    """The help topics of Python: about 150 documents, 700 kB of English."""
    return [Document(name, text) for name, text in sorted(pydoc_data.topics.topics.items())]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, documents) -> Path:
    """A folder as data.py makes it, with 512 pieces. Tests read it and must not change it."""
    folder = tmp_path_factory.mktemp("data") / "topics"
    rules = Rules(vocab_size=512, test_fraction=0.05, seed=0, drop_copies=True, shard_tokens=10**8)
    prepare(folder, {"source": "topics", **rules._asdict()}, {"en": MemorySource(documents)}, rules, {})
    return folder


@pytest.fixture(scope="session")
def babel(tmp_path_factory, documents) -> Path:
    """Three "languages", en, xx and yy: every third help topic each, with tokenisers of their own. Read only."""
    folder = tmp_path_factory.mktemp("data") / "babel"
    texts = {name: documents[first::3] for first, name in enumerate(("en", "xx", "yy"))}
    rules = Rules(vocab_size=512, test_fraction=0.1, seed=0, drop_copies=True, shard_tokens=10**8)
    sources = {name: MemorySource(part) for name, part in texts.items()}
    prepare(folder, {"source": "topics", **rules._asdict()}, sources, rules, {})
    return folder


@pytest.fixture
def command(capsys):
    """Call `command(main, *arguments)` as the shell would: returns (exit code, standard output, standard error)."""

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
def tiny(prepared):
    """Flags of a run of eight steps that takes a second: fp32, eager."""
    return ["--data", prepared, "--size", "nano", "--length", 32, "--batch", 8, "--tokens", 8 * 8 * 32, "--warmup", 2,
            "--log-every", 1, "--no-compile", "--precision", "fp32", "--device", "cpu"]  # fmt: skip


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes: what 'nothing was written' is checked with."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same_weights(one: Path, other: Path) -> bool:
    """Whether two weight files hold the same tensors, bit for bit."""
    first, second = (torch.load(path, weights_only=True) for path in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def write_shard(path: Path, tokens: np.ndarray, offset: int = 0, vocab_size: int = 512) -> None:
    """A shard with these tokens."""
    writer = ShardWriter(path, offset, vocab_size)
    writer.add(tokens)
    writer.close()
