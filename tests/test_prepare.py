"""Preparing as a stream: the same bytes however often it is stopped, and nothing usable from anything damaged."""

import gzip
import json
import lzma
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import tree

import data
import prepare
import train
from common import UserError
from corpus import open_source
from prepare import Rules, balance
from shards import Dataset

ROOT = Path(data.__file__).parent
RULES = Rules(vocab_size=512, test_fraction=0.1, seed=0, drop_copies=True, shard_tokens=20_000)


def shards(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(folder).items() if name.endswith((".bin", ".model"))}


@pytest.fixture(scope="module")
def text(tmp_path_factory, documents) -> Path:
    """A folder with the help topics in every format that is read."""
    folder = tmp_path_factory.mktemp("text") / "mixed"
    folder.mkdir()
    for i, document in enumerate(documents[:30]):
        opener = (open, gzip.open, lzma.open)[i % 3]
        with opener(folder / f"{i:02d}.txt{('', '.gz', '.xz')[i % 3]}", "wt", encoding="utf-8") as file:
            file.write(document.text)
    with gzip.open(folder / "rest.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": document.text}) + "\n" for document in documents[30:])
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, text) -> Path:
    folder = tmp_path_factory.mktemp("data") / "x"
    prepare.prepare(folder, {}, {"en": open_source(text)}, RULES, {})
    return folder


def test_every_document_is_in_one_split(undisturbed, documents):
    entry = Dataset(undisturbed).languages["en"]
    assert entry["train"]["documents"] + entry["test"]["documents"] + sum(entry["dropped"].values()) == len(documents)
    assert len(entry["train"]["shards"]) > 3
    assert all(shard["tokens"] < 20_000 + 80_000 for shard in entry["train"]["shards"])
    for split in ("train", "test"):
        stream = Dataset(undisturbed).stream("en", split)
        assert (
            (stream.read(0, len(stream)) == 2).sum()
            == entry[split]["documents"]
            == sum(s["documents"] for s in entry[split]["shards"])
        )


def test_only_what_is_needed_stays(undisturbed):
    assert {Path(name).suffix for name in tree(undisturbed)} == {".bin", ".model", ".json"}
    assert [name for name in tree(undisturbed) if name.endswith(".json")] == ["meta.json"]


def test_one_core_and_many_give_the_same_bytes(undisturbed, text, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "BATCH_BYTES", 10_000)
    monkeypatch.setattr("workers.SMALL", 0)
    monkeypatch.setattr("workers.cpu_cores", lambda: 3)
    prepare.prepare(tmp_path / "x", {}, {"en": open_source(text)}, RULES, {})
    assert shards(tmp_path / "x") == shards(undisturbed)


def test_a_preparation_killed_ten_times_gives_the_same_bytes(documents, tmp_path):
    text = tmp_path / "text.jsonl"  # large enough that worker processes are started
    text.write_text(
        "".join(json.dumps({"text": f"Copy {i}. {document.text}"}) + "\n" for i in range(8) for document in documents)
    )
    command = [sys.executable, str(ROOT / "data.py"), "--text", f"en={text}", "--name", "x", "--vocab-size", "512"]
    command += ["--test-fraction", "0.1", "--shard-tokens", "20000"]
    begin = time.monotonic()
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    needed = time.monotonic() - begin
    assert len(shards(tmp_path / "data" / "x")) > 50
    (tmp_path / "again").mkdir()
    chance, kills = random.Random(0), 0
    while kills < 10:
        process = subprocess.Popen(command, cwd=tmp_path / "again", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(chance.uniform(0.2, 0.8) * needed)
            break  # what was done before let it finish
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        with pytest.raises(UserError):
            Dataset(tmp_path / "again" / "data" / "x.unfinished")
    subprocess.run(command, cwd=tmp_path / "again", check=True, capture_output=True)
    assert shards(tmp_path / "again" / "data" / "x") == shards(tmp_path / "data" / "x")
    assert not (tmp_path / "again" / "data" / "x.unfinished").exists()


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_worker_processes_end_with_their_parent(tmp_path):
    program = "import time, workers\nworkers.SMALL = 0\nwith workers.workers(1) as call: list(call(time.sleep, [1] * 100))"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NANOBABEL_TEST": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", program], env=environment)
    time.sleep(1.5)

    def alive() -> int:
        found = 0
        for process in Path("/proc").glob("[0-9]*/environ"):
            try:
                found += str(tmp_path).encode() in process.read_bytes()
            except OSError:
                continue
        return found

    assert alive() > 1
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(50):
        if not alive():
            break
        time.sleep(0.1)
    assert alive() == 0


def test_other_text_is_not_mixed_into_unfinished_work(undisturbed, text, tmp_path, monkeypatch):
    copy = tmp_path / "text"
    copy.mkdir()
    for name, content in tree(text).items():
        (copy / name).write_bytes(content)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "write_split", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare.prepare(tmp_path / "x", {}, {"en": open_source(copy)}, RULES, {})
    assert (tmp_path / "x.unfinished" / "survey_en.json").exists()
    (copy / "00.txt").write_text("Quite another text stands here now, and it is long enough to be kept as a document of its own.")
    prepare.prepare(tmp_path / "x", {}, {"en": open_source(copy)}, RULES, {})
    assert shards(tmp_path / "x") != shards(undisturbed)
    data.verify(tmp_path / "x")


def test_a_split_is_never_empty():
    for missing in ("train", "test"):
        other = "test" if missing == "train" else "train"
        decisions = bytearray([0, prepare.SPLITS[other], prepare.SPLITS[other]])
        totals = {missing: {"documents": 0, "bytes": 0, "words": 0}, other: {"documents": 2, "bytes": 30, "words": 5}}
        balance(decisions, totals, [(1, 1, 10, 2), (9, 2, 20, 3)])
        assert sorted(decisions[1:]) == [prepare.TRAIN, prepare.TEST]
        assert totals[missing]["documents"] == totals[other]["documents"] == 1
        assert totals["train"]["bytes"] + totals["test"]["bytes"] == 30


def test_a_tokeniser_can_be_reused(undisturbed, text, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    model = undisturbed / "en.model"
    arguments = ["--text", f"en={text}", "--name", "x", "--tokenizer", f"en={model}", "--test-fraction", "0.1"]
    assert command(data.main, *arguments)[0] == 0
    assert (tmp_path / "data" / "x" / "en.model").read_bytes() == model.read_bytes()
    assert (
        Dataset(tmp_path / "data" / "x").stream("en", "test").read(0, 500).tolist()
        == Dataset(undisturbed).stream("en", "test").read(0, 500).tolist()
    )


GOOD = [
    f"Sentence {i} of a text that is long enough to be kept, with words such as {'alpha beta gamma delta'[i % 9 :]}.\n" * 30
    for i in range(8)
]


def damage(chance: random.Random, folder: Path) -> None:
    """Spoil one file of a healthy folder, or add one that should not be there."""
    target = folder / "0.txt"
    huge = "x" * 3_000_000
    random_bytes = chance.randbytes(chance.randint(1, 5000))
    packed = gzip.compress(GOOD[0].encode())
    chance.choice([
        lambda: target.write_bytes(random_bytes),
        lambda: target.write_bytes(b""),
        lambda: target.write_bytes(b"\xff\xfe" + GOOD[0].encode("utf-16-le")),
        lambda: target.write_bytes(GOOD[0].encode()[: chance.randint(0, 50)] + b"\xc3"),
        lambda: target.write_text(huge),
        lambda: target.write_text(huge.replace("x", "word ")[:2_000_000]),
        lambda: target.write_bytes(b"\x7fELF" + bytes(2000)),
        lambda: (folder / "z.txt.gz").write_bytes(packed[: chance.randint(0, len(packed) - 1)]),
        lambda: (folder / "z.txt.gz").write_bytes(random_bytes),
        lambda: (folder / "z.txt.xz").write_bytes(random_bytes),
        lambda: (folder / "z.jsonl").write_bytes(b'{"text": "a"}\n' + random_bytes),
        lambda: (folder / "z.jsonl").write_text('{"text": 5}\n'),
        lambda: (folder / "z.jsonl").write_text('["text"]\n'),
        lambda: (folder / "z.jsonl").write_text('{"text": "cut'),
        lambda: (folder / "z.jsonl").write_text(json.dumps({"text": huge})),
        lambda: (folder / "z.jsonl").write_text("[" * 100_000),
        lambda: os.symlink(folder, folder / "loop"),
        lambda: os.symlink(folder / "nowhere", folder / "z.txt"),
        lambda: os.mkfifo(folder / "z.txt"),
        lambda: [path.unlink() for path in folder.glob("*.txt")],
        lambda: [path.write_text("short") for path in folder.glob("*.txt")],
        lambda: [path.write_text(GOOD[0]) for path in folder.glob("*.txt")],
        lambda: (folder / "z.txt").mkdir(),
    ])()  # fmt: skip


@pytest.mark.parametrize("block", range(8))
def test_damaged_text_never_gives_a_traceback_or_a_usable_folder(tmp_path, monkeypatch, command, block):
    for seed in range(block * 25, block * 25 + 25):
        place = tmp_path / str(seed)
        (place / "text").mkdir(parents=True)
        for i, content in enumerate(GOOD):
            (place / "text" / f"{i}.txt").write_text(content)
        damage(random.Random(seed), place / "text")
        monkeypatch.chdir(place)
        code, _, error = command(data.main, "--text", "en=text", "--name", "x", "--vocab-size", "512")
        assert code in (0, 2)
        assert "Traceback" not in error
        if code == 2:
            assert error.count("error: ") == 1
            assert not (place / "data" / "x").exists()
            assert not (place / "data" / "x.unfinished").exists()
            with pytest.raises(UserError):
                train.open_data(place / "data" / "x")
        else:
            data.verify(place / "data" / "x")


@pytest.mark.parametrize("limit", [100, 5_000, 50_000, 200_000])
def test_a_full_disk_leaves_no_usable_folder(tmp_path, text, limit):
    # A limit on file size fails in mid-write as a full disk does.
    program = (
        f"import resource, signal, sys; sys.path.insert(0, {str(ROOT)!r}); signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "import data; from common import run_script; sys.argv = ['data.py']\n"
        f"run_script(lambda: data.main(['--text', 'en={text}', '--name', 'x', '--vocab-size', '512']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr
    assert not (tmp_path / "data" / "x").exists()
    # With room again, the same command completes what was begun.
    again = [sys.executable, str(ROOT / "data.py"), "--text", f"en={text}", "--name", "x", "--vocab-size", "512"]
    assert subprocess.run(again, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    data.verify(tmp_path / "data" / "x")


def test_streams_of_many_shards_are_read_as_one(undisturbed):
    entry = Dataset(undisturbed).languages["en"]["train"]
    stream = Dataset(undisturbed).stream("en", "train")
    joined = np.concatenate([np.fromfile(undisturbed / shard["file"], "<u2", offset=1024) for shard in entry["shards"]])
    assert np.array_equal(stream.read(0, len(stream)), joined)
