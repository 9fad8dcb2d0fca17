"""Shards, tokenisers and prepared folders: what is written is read back, what is damaged is refused."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import tree, write_shard
from hypothesis import given
from hypothesis import strategies as st

import data
from common import UserError
from corpus import clean
from languages import shared_pieces
from shards import Dataset, Stream, open_shard
from tokenizer import END_OF_DOCUMENT, encode_document


def read_independently(path: Path) -> tuple[dict, list[int]]:
    """The llm.c / modded-nanogpt shard, read by nothing but its description."""
    raw = path.read_bytes()
    magic, version, length, offset, pieces = struct.unpack("<5i", raw[:20])
    tokens = struct.unpack(f"<{length}H", raw[1024:])
    return {"magic": magic, "version": version, "offset": offset, "pieces": pieces}, list(tokens)


@given(tokens=st.lists(st.integers(0, 65535), max_size=200))
def test_shards_are_read_by_an_independent_reader(tmp_path_factory, tokens):
    path = tmp_path_factory.mktemp("shard") / "x.bin"
    write_shard(path, np.array(tokens, np.uint16), 2048)
    header, found = read_independently(path)
    assert header == {"magic": 20240520, "version": 1, "offset": 2048, "pieces": 512}
    assert found == tokens
    assert open_shard(path).tolist() == tokens


@given(tokens=st.lists(st.integers(0, 65535), max_size=200), free=st.lists(st.integers(-5, 5), min_size=253, max_size=253))
def test_shards_written_by_the_same_rules_elsewhere_are_read(tmp_path_factory, tokens, free):
    path = tmp_path_factory.mktemp("shard") / "x.bin"
    path.write_bytes(struct.pack("<256i", 20240520, 1, len(tokens), *free) + struct.pack(f"<{len(tokens)}H", *tokens))
    assert open_shard(path).tolist() == tokens


@pytest.mark.parametrize(("damage", "sentence"), [
    (lambda raw: raw[:-1], "bytes, expected"),
    (lambda raw: raw + b"\0\0", "bytes, expected"),
    (lambda raw: raw[:1000], "bytes, expected"),
    (lambda raw: b"", "not a token shard"),
    (lambda raw: b"PK\3\4" + raw[4:], "not a token shard"),
    (lambda raw: raw[:4] + b"\2\0\0\0" + raw[8:], "not a token shard"),
    (lambda raw: raw[:8] + struct.pack("<i", -1) + raw[12:], "bytes, expected"),
])  # fmt: skip
def test_damaged_shards_are_refused(tmp_path, damage, sentence):
    path = tmp_path / "en_train_000.bin"
    write_shard(path, np.arange(100, dtype=np.uint16))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=sentence) as raised:
        open_shard(path)
    assert str(path) in str(raised.value)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.data())
def test_a_stream_reads_across_shards(tmp_path_factory, lengths, draw):
    folder, whole = tmp_path_factory.mktemp("stream"), np.arange(sum(lengths), dtype=np.uint16)
    paths = [folder / f"{i}.bin" for i in range(len(lengths))]
    for path, part in zip(paths, np.split(whole, np.cumsum(lengths)[:-1]), strict=True):
        write_shard(path, part)
    begin = draw.draw(st.integers(0, len(whole)))
    length = draw.draw(st.integers(0, len(whole) - begin))
    assert np.array_equal(Stream(paths).read(begin, length), whole[begin : begin + length])
    with pytest.raises(IndexError):
        Stream(paths).read(begin, len(whole) - begin + 1)


def test_prepared_folder_describes_itself(prepared, documents):
    dataset = Dataset(prepared)
    entry = dataset.languages["en"]
    for split in ("train", "test"):
        assert len(dataset.stream("en", split)) == entry[split]["tokens"]
        ids = dataset.stream("en", split).read(0, entry[split]["tokens"])
        assert (ids == END_OF_DOCUMENT).sum() == entry[split]["documents"]
        assert ids.max() < 512
    assert entry["train"]["documents"] + entry["test"]["documents"] + sum(entry["dropped"].values()) == len(documents)
    assert json.loads((prepared / "meta.json").read_text())["recipe"]["vocab_size"] == 512


def test_tokens_decode_to_the_text_they_came_from(prepared, documents):
    dataset = Dataset(prepared)
    test = dataset.stream("en", "test").read(0, dataset.languages["en"]["test"]["tokens"])
    texts = [dataset.tokenizer("en").decode(part.tolist()) for part in np.split(test, np.flatnonzero(test == END_OF_DOCUMENT))]
    # Held-out documents come back to the letter, indentation and line ends included.
    assert {text for text in texts if text} <= {clean(document.text) for document in documents}
    assert sum(len(text.encode()) for text in texts) == dataset.languages["en"]["test"]["bytes"]


@pytest.fixture(scope="module")
def tokenizer(prepared):
    return Dataset(prepared).tokenizer("en")


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
def test_no_text_is_unknown(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.unk_id() not in ids
    assert tokenizer.decode(ids) == text


@given(
    text=st.lists(st.sampled_from([" ", "  ", "\n", "\n    ", "word", "the ", "é", "\u2581", "\u00a0", "1.", "🙂", "of"])).map(
        "".join
    )
)
def test_a_text_encoded_in_parts_gives_the_same_ids(tokenizer, text):
    for part in (1, 3, 10):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tokenizer.PART", part)
            assert encode_document(tokenizer, text) == tokenizer.encode(text)


def test_special_pieces(tokenizer):
    assert [tokenizer.id_to_piece(i) for i in range(3)] == ["<pad>", "<unk>", "<eod>"]


def test_verify_finds_a_changed_byte(prepared, tmp_path, command):
    folder = tmp_path / "copy"
    shutil.copytree(prepared, folder)
    code, out, _ = command(data.main, "--verify", folder)
    assert (code, out.count("hashes match")) == (0, 2)
    shard = folder / "en_train_000.bin"
    raw = bytearray(shard.read_bytes())
    raw[5000] ^= 1
    shard.write_bytes(raw)
    code, _, error = command(data.main, "--verify", folder)
    assert code == 2
    assert str(shard) in error


def test_describe_tells_sizes_and_shared_pieces(babel, command):
    code, out, _ = command(data.main, "--describe", babel)
    entry = Dataset(babel).languages["xx"]["train"]
    assert code == 0
    assert f"| xx | train | {entry['documents']} |" in out
    assert f"{entry['tokens'] / entry['words']:.2f} | {entry['bytes'] / entry['tokens']:.2f} |" in out
    for (one, other), shared in shared_pieces(Dataset(babel)).items():
        assert f"{one} and {other} share {shared} pieces" in out


@pytest.fixture
def with_parallel(babel, tmp_path, monkeypatch):
    """A place with `data/babel` and two files of aligned lines."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(babel, tmp_path / "data" / "babel")
    (tmp_path / "xx.txt").write_text("".join(f"Line {i} of a text that is read on this side.\n" for i in range(200)))
    (tmp_path / "en.txt").write_text("".join(f"And line {i} is what stands on the other side.\n" for i in range(200)))
    return tmp_path


def test_parallel_text_is_packed_into_the_prepared_folder(with_parallel, command):
    code, out, _ = command(data.main, "--name", "babel", "--parallel", "en=en.txt", "xx=xx.txt")
    assert code == 0
    packed = json.loads((with_parallel / "data" / "babel" / "parallel_en_xx.json").read_text())
    assert f"{len(packed['pairs'])} pairs" in out
    tokenizer = Dataset(with_parallel / "data" / "babel").tokenizer("xx")
    assert tokenizer.decode(packed["pairs"][0]["xx"]).startswith("Line 0 of a text that is read on this side. Line 1 of")
    assert all(128 <= len(side) <= 512 for pair in packed["pairs"] for side in pair.values())


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["en=en.txt", "zz=xx.txt"], "--parallel zz: data/babel does not have it, expected en or xx or yy"),
    (["en=en.txt", "xx=missing.txt"], "missing.txt does not exist"),
    (["en=en.txt", "xx=short.txt"], "short.txt has 1 lines"),
    (["en=short.txt", "xx=short.txt"], "give no pair of 128 to 512 tokens"),
])  # fmt: skip
def test_unusable_parallel_text_is_named(with_parallel, command, arguments, sentence):
    (with_parallel / "short.txt").write_text("One line.\n")
    before = tree(with_parallel)
    code, _, error = command(data.main, "--name", "babel", "--parallel", *arguments)
    assert (code, tree(with_parallel)) == (2, before)
    assert sentence in error


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--text", "en=missing", "--name", "x"], "missing does not exist"),
    (["--text", "en=empty", "--name", "x"], "empty holds no file of a known kind"),
    (["--text", "en=one", "--name", "x"], "at least two"),
    (["--text", "en=few", "--name", "x"], "--vocab-size 16384 does not fit this text"),
    (["--text", "en=few", "--name", "x", "--tokenizer", "en=few/0.txt"], "is not a SentencePiece model"),
    (["--text", "en=few", "--name", "x", "--tokenizer", "fr=missing"], "--tokenizer missing: No such file"),
    (["--max-tokens", "1e6"], "--max-tokens 1e+06: expected a number above 0, and --corpus books"),
    (["--shard-tokens", "0"], "--shard-tokens 0"),
    (["--describe", "missing"], "missing/meta.json does not exist"),
    (["--parallel", "en=few", "fr=few"], "need --name"),
    (["--corpus", "europarl"], "it needs --name"),
    (["--text", "en", "--name", "x"], "expected LANG=PATH"),
    (["--text", "en=few", "--text", "en=one", "--name", "x"], "more than once"),
    (["--text", "en=few"], "need --name"),
    (["--text", "en=few", "--corpus", "pydocs"], "exclude each other"),
    (["--text", "en=few", "--name", "../x"], "--name '../x'"),
    (["--vocab-size", "100"], "--vocab-size 100: expected 512 to 65536"),
    (["--vocab-size", "many"], "invalid int value"),
    (["--test-fraction", "1"], "--test-fraction 1.0"),
    (["--corpus", "books4"], "invalid choice"),
    (["--verify", "missing"], "missing/meta.json does not exist"),
])  # fmt: skip
def test_unusable_input_is_one_sentence_and_writes_nothing(tmp_path, monkeypatch, command, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    for folder, files in {"empty": 0, "one": 1, "few": 3}.items():
        (tmp_path / folder).mkdir()
        for i in range(files):
            (tmp_path / folder / f"{i}.txt").write_text(
                f"Text {i} is a line that is long enough to count as a document of its own."
            )
    before = tree(tmp_path)
    code, _, error = command(data.main, *arguments)
    assert code == 2
    assert sentence in error
    assert "Traceback" not in error
    assert tree(tmp_path) == before


def test_a_folder_prepared_otherwise_is_not_replaced(tmp_path, monkeypatch, command, documents):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").mkdir()
    for document in documents[:20]:
        (tmp_path / "text" / f"{document.name}.txt").write_text(document.text)
    arguments = ["--text", "en=text", "--name", "x", "--vocab-size", "512"]
    assert command(data.main, *arguments)[0] == 0
    before = tree(tmp_path)
    assert command(data.main, *arguments)[0] == 0
    code, _, error = command(data.main, *arguments, "--seed", "7")
    assert code == 2
    assert "seed 0 instead of 7" in error
    assert tree(tmp_path) == before
    (tmp_path / "text" / "more.txt").write_text("Text that came later.")
    code, _, error = command(data.main, *arguments)
    assert (code, "the text of en has changed" in error) == (2, True)
