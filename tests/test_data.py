"""Text, tokenisers, shards and prepared folders: what is written is read back, what is damaged is refused."""

import contextlib
import random
import resource
import shutil
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import BPE, tree, write_documents, write_shard
from hypothesis import given, settings
from hypothesis import strategies as st

import data
from common import UserError, exclusive, read_json, write
from data import END_OF_DOCUMENT, UNKNOWN, Dataset, Stream, encode, open_shard, token_bytes
from text import clean

RECIPE = {"source": "topics", **BPE, "test_fraction": 0.05, "seed": 0}
quick = settings(max_examples=30, deadline=None)
PLAIN_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


def shards(folder: Path) -> dict[str, bytes]:
    """What the fingerprint is made of."""
    return {name: content for name, content in tree(folder).items() if name.endswith((".bin", ".model"))}


@pytest.fixture
def few(tmp_path, monkeypatch, documents) -> list[str]:
    """A working directory with twenty texts in text/; returns the arguments that prepare data/x from them."""
    monkeypatch.chdir(tmp_path)
    Path("text").mkdir()
    for name, text in documents[:20]:
        Path("text", f"{name}.txt").write_text(text, encoding="utf-8")
    return ["--text", "en=text", "--name", "x", "--vocab-size", "512", "--test-fraction", "0.2"]


@quick
@given(text=PLAIN_TEXT)
def test_no_text_is_unknown(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.unk_id() not in ids
    assert tokenizer.decode(ids) == text


FRAGMENTS = [" ", "  ", "\n", "\n    ", "word", "the ", "é", "\u2581", "\u00a0", "1.", "🙂", "of"]


@quick
@given(texts=st.lists(st.lists(st.sampled_from(FRAGMENTS)).map("".join), max_size=3))
def test_texts_encoded_in_parts_give_the_same_ids(tokenizer, texts):
    for part in (1, 3, 10):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(data, "PART", part)
            found = [ids.tolist() for ids in encode(tokenizer, texts)]
        assert found == [[*tokenizer.encode(text), END_OF_DOCUMENT] for text in texts]


@quick
@given(texts=st.lists(PLAIN_TEXT, min_size=1, max_size=4))
def test_bytes_of_tokens_add_up_to_those_of_each_text(tokenizer, texts):
    ids = encode(tokenizer, texts)
    sizes = token_bytes(tokenizer, np.concatenate(ids), 0)
    assert sizes.min() >= 0
    each = np.split(sizes, np.cumsum([len(own) for own in ids])[:-1])
    assert [int(own.sum()) for own in each] == [len(text.encode()) for text in texts]


@quick
@given(
    tokens=st.lists(st.integers(0, 65535), min_size=1, max_size=200),
    free=st.lists(st.integers(-5, 5), min_size=253, max_size=253),
)
def test_shards_are_those_of_llm_c_and_modded_nanogpt(tmp_path_factory, tokens, free):
    """Written and read by nothing but their description; of the header, three fields are given."""
    folder, many = tmp_path_factory.getbasetemp(), len(tokens)
    path = write_shard(folder, "ours", np.array(tokens, np.uint16), 2048)
    raw = path.read_bytes()
    assert struct.unpack("<5i", raw[:20]) == (20240520, 1, many, 2048, 512)
    assert list(struct.unpack(f"<{many}H", raw[1024:])) == tokens
    theirs = folder / "theirs.bin"
    theirs.write_bytes(struct.pack(f"<256i{many}H", 20240520, 1, many, *free, *tokens))
    assert open_shard(path).tolist() == open_shard(theirs).tolist() == tokens
    assert isinstance(open_shard(path), np.memmap)  # memory of large shards is the system's


@pytest.mark.parametrize("damage", [
    lambda raw: raw[:-1],
    lambda raw: raw + b"\0\0",
    lambda raw: raw[:8],
    lambda raw: b"PK\3\4" + raw[4:],
    lambda raw: raw[:4] + b"\2\0\0\0" + raw[8:],
    lambda raw: raw[:8] + struct.pack("<i", -1) + raw[12:],
    lambda raw: raw[:8] + struct.pack("<i", -100) + raw[12:824],
])  # fmt: skip
def test_damaged_shards_are_refused(tmp_path, damage):
    path = write_shard(tmp_path, "en_train", np.arange(100, dtype=np.uint16))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=f"{path} is not a whole token shard"):
        open_shard(path)


@quick
@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.data())
def test_a_stream_reads_across_shards(tmp_path_factory, lengths, draw):
    folder, whole = tmp_path_factory.getbasetemp(), np.arange(sum(lengths), dtype=np.uint16)
    parts = np.split(whole, np.cumsum(lengths)[:-1])
    stream = Stream([write_shard(folder, f"part{i}", part) for i, part in enumerate(parts)])
    begin = draw.draw(st.integers(0, len(whole) - 1))
    length = draw.draw(st.integers(1, len(whole) - begin))
    assert np.array_equal(stream.read(begin, length), whole[begin : begin + length])
    assert np.array_equal(stream.counts(), np.bincount(whole, minlength=2**16))


def test_a_prepared_folder_holds_the_text_and_describes_it(prepared, documents):
    dataset = Dataset(prepared)
    entry, tokenizer, texts = dataset.languages["en"], dataset.tokenizer("en"), []
    for split in ("train", "test"):
        stream = dataset.stream("en", split)
        ids = stream.read(0, entry[split]["tokens"])
        assert len(stream) == len(ids)
        assert token_bytes(tokenizer, ids, 0).sum() == entry[split]["bytes"]
        assert (ids == UNKNOWN).sum() == entry[split]["unknown"]
        ends = np.flatnonzero(ids == END_OF_DOCUMENT)
        assert len(ends) == entry[split]["documents"]
        texts += [tokenizer.decode(part.tolist()) for part in np.split(ids, ends)[:-1]]
    # Documents come back to the letter, indentation and line ends included.
    assert set(texts) <= {clean(text) for _, text in documents}
    assert sum(entry["documents"].values()) == len(documents)
    assert entry["files"]["read"] == 1
    assert {Path(name).suffix for name in tree(prepared)} == {".bin", ".model", ".json"}


def test_small_shards_and_batches_hold_the_same_tokens(prepared, tmp_path, monkeypatch, documents):
    monkeypatch.setattr(data, "SHARD", 20_000)
    monkeypatch.setattr(data, "BATCH", 10_000)
    data.prepare(tmp_path / "x", RECIPE, {"en": write_documents(tmp_path / "en.jsonl", documents)})
    large, small = Dataset(prepared), Dataset(tmp_path / "x")
    assert len(small.languages["en"]["train"]["shards"]) > 3
    for split in ("train", "test"):
        one, other = large.stream("en", split), small.stream("en", split)
        assert np.array_equal(one.read(0, len(one)), other.read(0, len(other)))


def test_a_stopped_preparation_leaves_nothing_and_starts_anew(few, monkeypatch, command):
    Path("data/x.unfinished").mkdir(parents=True)
    Path("data/x.unfinished/en_train_000.bin").write_bytes(b"what a killed process left")
    with monkeypatch.context() as patch:
        patch.setattr(data, "encode", lambda *_: exec("raise KeyboardInterrupt"))
        assert command(data.main, *few)[0] == 130
    assert list(Path("data").iterdir()) == []
    assert command(data.main, *few)[0] == 0
    assert command(data.main, *few[:2], "--name", "y", *few[4:])[0] == 0
    assert shards(Path("data/x")) == shards(Path("data/y"))
    assert len(shards(Path("data/x"))) == 3


@pytest.mark.parametrize("limit", [5_000, 20_000])
def test_a_full_disk_leaves_no_folder(few, command, limit):
    # A limit on the size of files fails in mid-write as a full disk does.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        code, _, error = command(data.main, *few)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    assert "cannot be written: File too large" in error
    assert list(Path("data").iterdir()) == []


def test_a_second_preparation_waits_for_the_first(few, prepared):
    finished = threading.Event()

    def second():
        with contextlib.suppress(UserError):  # x is of another recipe
            data.main(few)
        finished.set()

    with exclusive(Path("data")):
        threading.Thread(target=second, daemon=True).start()
        assert not finished.wait(0.3)
        shutil.copytree(prepared, "data/x")
        before = tree(Path("data/x"))
    assert finished.wait(10)
    assert tree(Path("data/x")) == before


def test_a_text_that_changed_is_noticed(few, command):
    assert command(data.main, *few)[0] == 0
    Path("text", "more.txt").write_text("One more. " * 20)
    code, _, error = command(data.main, *few)
    assert code == 2
    assert "data/x is out of date, because text has changed (20 files then, 21 now)" in error


def test_a_text_that_changes_while_it_is_read_is_refused(few, command, monkeypatch):
    train = data.train_tokenizer

    def edit(*arguments):
        Path("text", "more.txt").write_text("One more. " * 20)
        return train(*arguments)

    monkeypatch.setattr(data, "train_tokenizer", edit)
    code, _, error = command(data.main, *few)
    assert code == 2
    assert "text changed while data.py read it" in error
    assert list(Path("data").iterdir()) == []


def test_what_was_read_is_said_and_stored(few, command):
    Path("text", "a.train").write_text("not read")
    Path("text", "short.jsonl").write_text("".join(f'{{"text": "{i:060}"}}\n' for i in range(9000)))
    said = [command(data.main, *arguments)[1] for arguments in (few, ["--describe", "data/x"])]
    for line in (
        "en: 21 files; not read: 1 .train",
        "dropped: 9,000 shorter than 64",
        "warning: more than a third",
    ):
        assert all(line in output for output in said)


def test_too_few_pieces_for_the_characters_are_an_error(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    letters = [chr(0x4E00 + i) for i in range(2000)]
    for i in range(30):
        Path(f"{i}.txt").write_text("".join(random.Random(i).choices(letters, k=3000)))
    flags = ["--text", "zh=.", "--name", "zh", "--pieces", "char", "--vocab-size", "512"]
    code, _, error = command(data.main, *flags)
    assert code == 2
    assert "% of the tokens are unknown, because 512 pieces are too few" in error


@pytest.mark.parametrize("pieces", ["bpe", "char"])
def test_lines_and_words_of_any_length_reach_the_tokeniser(pieces):
    long = "".join(random.Random(0).choices("äöüß", k=70_000))  # no space; SentencePiece would abort
    short = ["some words in plain letters, and more of them in this line"] * 9
    model = data.train_tokenizer([*short, long, "x é " * 400_000], 300 if pieces == "bpe" else 512, pieces)
    tokenizer = data.Tokenizer(model_proto=model)
    ids = encode(tokenizer, [long])[0]
    assert (ids == UNKNOWN).sum() == 0
    assert token_bytes(tokenizer, ids, 0).sum() == len(long.encode())


def test_unknown_tokens_share_the_bytes_that_no_piece_stands_for():
    model = data.train_tokenizer(["abc def ghi"] * 99, 512, "char")
    tokenizer, text = data.Tokenizer(model_proto=model), "abc яя"
    ids = encode(tokenizer, [text])[0]
    assert (ids == UNKNOWN).any()
    assert token_bytes(tokenizer, ids, len(text.encode())).sum() == len(text.encode())


def test_a_prepared_folder_is_kept(few, command):
    assert command(data.main, *few)[0] == 0
    before = tree(Path("data"))
    assert command(data.main, *few)[0] == 0
    code, _, error = command(data.main, *few, "--seed", "7")
    assert code == 2
    assert "seed 0 instead of 7" in error
    assert tree(Path("data")) == before


def test_verify_finds_a_changed_byte(prepared, tmp_path, command):
    folder = tmp_path / "copy"
    shutil.copytree(prepared, folder)
    assert command(data.main, "--verify", folder)[:2] == (0, f"{folder}: all hashes match\n")
    shard = folder / "en_train_000.bin"
    raw = bytearray(shard.read_bytes())
    raw[random.Random(0).randrange(1024, len(raw))] ^= 1
    shard.write_bytes(raw)
    code, _, error = command(data.main, "--verify", folder)
    assert code == 2
    assert str(shard) in error


@pytest.mark.parametrize("change", [
    lambda meta: meta.update(version=1),
    lambda meta: meta.pop("languages"),
    lambda meta: meta["languages"].update(en={}),
    lambda meta: meta["languages"]["en"]["train"].update(shards=[]),
])  # fmt: skip
def test_a_description_by_others_is_refused(prepared, tmp_path, change):
    meta = read_json(prepared / "meta.json")
    change(meta)
    write(tmp_path / "meta.json", meta)
    with pytest.raises(UserError, match="was not prepared by this data"):
        Dataset(tmp_path)


def test_describe_tells_sizes_and_shared_pieces(babel, command):
    code, out, _ = command(data.main, "--describe", babel)
    dataset = Dataset(babel)
    entry = dataset.languages["xx"]["train"]
    lines = [" ".join(line.split()) for line in out.splitlines()]
    (line,) = [line for line in lines if line.startswith("| xx | train |")]
    assert code == 0
    assert f"| {entry['documents']} |" in line
    assert f"{entry['tokens'] / entry['words']:.2f} |" in line
    assert f"{entry['bytes'] / entry['tokens']:.2f} |" in line
    en, yy = (set(data.surface_forms(dataset.tokenizer(source))) - {"<pad>"} for source in ("en", "yy"))
    assert f"en and yy share {len(en & yy)} pieces, {len(en & yy) / 511:.1%} of" in out


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--text", "en=missing", "--name", "x"], "missing: no such file or folder"),
    (["--text", "en=empty", "--name", "x"], "empty: expected text"),
    (["--text", "en=one", "--name", "x"], "--vocab-size 16384 does not fit"),
    (["--text", "en=stubs", "--name", "x"], "to test on; add documents (found 2 shorter"),
    (["--text", "en", "--name", "x"], "expected LANG=PATH"),
    (["--text", "en=one", "--text", "EN=one", "--name", "x"], "more than once"),
    (["--text", "en=one"], "--text needs --name"),
    (["--text", "en=one", "--name", "x", "--corpus", "eltec"], "not allowed with"),
    (["--text", "en=one", "--name", "../x"], "--name ../x"),
    (["--vocab-size", "100"], "100: expected a whole number from 512 to 65536"),
    (["--test-fraction", "0"], "--test-fraction: 0: expected a number"),
    (["--text", "en=one", "--name", "x", "--max-tokens", "1e3"], "--max-tokens has no effect"),
    (["--text", "noise=one", "--name", "x"], "noise is the name of the placebo"),
    (["--text", "pt-BR=one", "--name", "x"], "letters, digits and _"),
    (["--describe", "missing"], "missing holds no prepared data"),
])  # fmt: skip
def test_unusable_input_is_refused(monkeypatch, tmp_path, refused, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    long = "A line that is long enough to count as a document of its own, as it should be."
    for folder, texts in {"empty": [], "one": [long], "stubs": ["short", "too"]}.items():
        Path(folder).mkdir()
        for i, text in enumerate(texts):
            Path(folder, f"{i}.txt").write_text(text)
    assert sentence in refused(data.main, *arguments)


def test_characters_as_pieces(characters):
    tokenizer = Dataset(characters).tokenizer("en")
    assert 60 < len(tokenizer) < 200
    assert set(map(len, data.surface_forms(tokenizer)[3:])) == {1}
    text = "def f(x):\n    return x"
    (ids,) = encode(tokenizer, [text])
    assert tokenizer.decode(ids[:-1].tolist()) == text
    assert token_bytes(tokenizer, ids, 0).sum() == len(text)


def test_the_placebo_has_the_tokens_and_nothing_of_their_order(characters):
    dataset = Dataset(characters)
    assert list(dataset.languages) == ["en", "noise"]
    assert dataset.languages["noise"]["offset"] == dataset.languages["en"]["vocab_size"]
    assert len(dataset.stream("noise", "train").shards) > 1
    for split in ("train", "test"):
        streams = [dataset.stream(name, split) for name in ("en", "noise")]
        one, other = [stream.read(0, len(stream)) for stream in streams]
        assert np.array_equal(np.bincount(one), np.bincount(other))
        pairs, shuffled = (len(np.unique(ids[:-1].astype(int) << 16 | ids[1:])) for ids in (one, other))
        assert shuffled > 1.3 * pairs
    data.verify(dataset)
