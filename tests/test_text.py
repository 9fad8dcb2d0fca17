"""Files and documents: what is read, what is left out with a word, and on which side of the split it goes."""

import contextlib
import gzip
import json
import os
import unicodedata
from pathlib import Path

import pytest
from conftest import BPE, write_documents
from hypothesis import given, settings
from hypothesis import strategies as st

import text
from common import UserError
from text import choose_split, clean, cut_end, documents, find_files, split_documents

SPOILT = gzip.compress(bytes(range(256)) * 9)[:60] * 9
RECIPE = {"source": "topics", **BPE, "test_fraction": 0.05, "seed": 0}
PARAGRAPH = "A paragraph of a few words, as they are in books. " * 6
quick = settings(max_examples=30, deadline=None)


def jsonl(*texts: str) -> bytes:
    """A JSON Lines file."""
    return "".join(json.dumps({"text": text, "other": 1}) + "\n" for text in texts).encode()


def read(path: Path) -> list[tuple[str, str]]:
    """(name, text) of all documents."""
    return [(document.name, document.text) for document in documents(path)]


def novel(number: int, paragraphs: int = 100) -> str:
    """A long text like no other."""
    return "\n\n".join(f"{number}.{i} {PARAGRAPH}".strip() for i in range(paragraphs))


@quick
@given(raw=st.text())
def test_cleaning_is_idempotent_and_leaves_no_control_characters(raw):
    cleaned = clean(raw)
    assert clean(cleaned) == cleaned
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in cleaned if c != "\n")
    assert "\n\n\n" not in cleaned
    assert " \n" not in cleaned


@pytest.mark.parametrize(("raw", "cleaned"), [
    ("e\x00\u0301", "é"),  # an accent joins its letter once what was between them is gone
    ("\r\nA word.\t \r\n\r\n\r\n\r\n    indented\x00\n", "A word.\n\n    indented"),
    ("a\x0bb\x0cc\x1cd\x1de\x1ef\x85g\u2028h\u2029i", "\n".join("abcdefghi")),  # pages, paragraphs
    ("\u2581\u2582\u2585", "_\u2582\u2586"),  # stand-ins of SentencePiece's own characters
])  # fmt: skip
def test_cleaning_keeps_letters_indentation_and_paragraphs(raw, cleaned):
    assert clean(raw) == cleaned


@pytest.mark.parametrize(("end", "compress"), [("", bytes), (".gz", gzip.compress)])
def test_text_and_json_lines_are_read_compressed_or_not(tmp_path, end, compress):
    (tmp_path / f"b.TXT{end}").write_bytes(compress("\ufeffzweite Ä\n".encode()))
    (tmp_path / f"a.jsonl{end}").write_bytes(compress(jsonl("one", "") + b"\n \n" + jsonl("four")))
    (tmp_path / "c.jsonl").write_text('{"name": "stdlib/c.py", "text": "named"}')
    assert read(tmp_path) == [
        (f"a.jsonl{end}:1", "one"),
        (f"a.jsonl{end}:2", ""),
        (f"a.jsonl{end}:5", "four"),
        (f"b.TXT{end}", "zweite Ä\n"),
        ("stdlib/c.py", "named"),
    ]
    assert read(tmp_path / f"b.TXT{end}") == [(f"b.TXT{end}", "zweite Ä\n")]


@pytest.mark.parametrize(("name", "content", "sentence"), [
    ("a.txt", b"ok \xff", r"a\.txt is not UTF-8 text"),
    ("a.txt", "Ä".encode("utf-16"), r"a\.txt is not UTF-8 text"),
    ("a.txt.gz", gzip.compress(b"text" * 999)[:-9], r"a\.txt\.gz cannot be read: Compressed file ended"),
    ("a.txt.gz", SPOILT, r"a\.txt\.gz cannot be read"),
    ("a.jsonl.gz", jsonl("text"), r"a\.jsonl\.gz cannot be read: Not a gzipped file"),
    ("a.jsonl", b'\n{"text": "open', r"a\.jsonl:2 cannot be read: Unterminated string"),
    ("a.jsonl", b"[1]", r"a\.jsonl:1 cannot be read: expected"),
    ("a.jsonl", jsonl("text") + b'{"content": "x"}', r"a\.jsonl:2 cannot be read: expected"),
    ("a.jsonl", jsonl("text") + b'{"text": "caf\xe9"}', r"a\.jsonl:2 is not UTF-8"),
    ("a.jsonl", b'{"text": ' + b"[" * 100_000, r"a\.jsonl:1 cannot be read"),
], ids=lambda value: str(value)[:20])  # fmt: skip
def test_damaged_documents_are_named(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence) as raised:
        list(documents(tmp_path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", text.KINDS)
@quick
@given(content=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_in_a_sentence(tmp_path_factory, kind, content):
    path = tmp_path_factory.getbasetemp() / f"any{kind}"
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        assert all(isinstance(document.text, str) for document in documents(path))


def test_a_document_stays_on_its_side_when_others_are_added(tmp_path, documents):
    def fates(some):
        path = write_documents(tmp_path / "some.jsonl", some)
        recipe = RECIPE | {"test_fraction": 0.3}
        return {document.name: fate for fate, document in split_documents(path, recipe)}

    few, many = fates(documents[::2]), fates([*documents, ("stub", "A stub."), ("again", documents[0][1])])
    assert {"train", "test"} <= set(few.values())
    assert few == {name: many[name] for name in few}
    assert (many["stub"], many["again"]) == ("shorter than 64 bytes", "copies of others")


def test_of_a_held_out_document_only_the_beginning_may_be_kept(tmp_path, documents):
    path = write_documents(tmp_path / "all.jsonl", documents)
    whole = list(split_documents(path, RECIPE))
    cut = split_documents(path, RECIPE | {"test_characters": 100})
    for (fate, document), (same_fate, short) in zip(whole, cut, strict=True):
        assert same_fate == fate
        assert short.text == (document.text[:100] if fate == "test" else document.text)
    assert any(fate == "test" and len(document.text) > 100 for fate, document in whole)


def test_links_are_followed_once_and_other_endings_are_counted(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "near" / ".cache").mkdir(parents=True)
    (tmp_path / "near" / "book.txt").mkdir()  # a folder that is called like a file
    names = "far/a.txt near/z.txt near/b.txt near/c.train near/d.txt.bz2 near/.cache/e.txt near/README"
    for name in names.split():
        (tmp_path / name).write_text(name)
    os.mkfifo(tmp_path / "near" / "pipe.txt")  # to read it would never end
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "near" / "round").symlink_to(tmp_path / "near")
    files, others = find_files(tmp_path / "near")
    assert [file.name for file in files] == ["b.txt", "a.txt", "z.txt"]
    assert others == {".txt": 1, ".train": 1, ".bz2": 1, "without an ending": 1, "hidden": 1}
    with pytest.raises(UserError, match=r"expected text files .* found 1 \.train"):
        find_files(tmp_path / "near" / "c.train")


def test_a_folder_that_cannot_be_read_ends_the_reading(tmp_path, monkeypatch):
    def refuse(path, **options):
        options["onerror"](PermissionError(13, "Permission denied", str(path)))
        return []

    monkeypatch.setattr(text.os, "walk", refuse)
    with pytest.raises(PermissionError):
        find_files(tmp_path)


@pytest.mark.parametrize(
    "language", ["Привет всем вам и мир", "นี่คือข้อความภาษาไทย", "हिन्दी में एक वाक्य है", "نص عربي قصير هنا"]
)
def test_utf16_without_its_mark_is_refused(tmp_path, language):
    (tmp_path / "a.txt").write_bytes((language * 50).encode("utf-16-le"))
    with pytest.raises(UserError, match=r"a\.txt(: .*control characters; if it is UTF-16| is not UTF-8)"):
        list(split_documents(tmp_path, RECIPE))


def test_names_that_no_encoding_has_are_names(tmp_path):
    odd = ["caf\udce9.txt", "post \ud83d"]
    assert {text.held_out(name, RECIPE | {"test_fraction": 0.9}) for name in odd} <= {True, False}
    (tmp_path / "a.jsonl").write_text(json.dumps({"name": odd[1], "text": PARAGRAPH}))
    assert [document.name for _, document in split_documents(tmp_path, RECIPE)] == [odd[1]]


def held(path: Path, recipe: dict) -> tuple[str, float]:
    """How the text is split, and the share of its characters that is held out."""
    by, _, characters, _ = choose_split(path, recipe, 10**6)
    return by, characters["test"] / (characters["test"] + characters["train"])


def test_few_documents_have_their_ends_held_out(tmp_path):
    for i in range(9):
        (tmp_path / f"{i}.txt").write_text(novel(i))
    by, share = held(tmp_path, RECIPE)
    assert by == "end"
    assert share == pytest.approx(0.05, rel=0.2)
    sides = list(split_documents(tmp_path, RECIPE, "end"))
    assert [fate for fate, _ in sides] == ["train", "test"] * 9
    assert sides[0][1].text + "\n\n" + sides[1][1].text == novel(0)  # cut between paragraphs


def test_many_documents_under_few_names_are_held_out_one_by_one(tmp_path):
    lines = [json.dumps({"name": "wikipedia", "text": f"{i} {PARAGRAPH}"}) for i in range(400)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    by, share = held(tmp_path, RECIPE)
    assert by == "place"
    assert 0.025 < share < 0.1


def test_a_text_of_one_word_is_cut_too():
    assert cut_end("x" * 1000, 0.1) == ("x" * 900, "x" * 100)


def test_a_tokeniser_is_trained_on_a_sample_of_training_lines(tmp_path, documents):
    path = write_documents(tmp_path / "en.jsonl", documents)
    training = [document.text for fate, document in split_documents(path, RECIPE) if fate == "train"]
    lines = [line for text in training for line in text.split("\n") if line]
    *_, whole = choose_split(path, RECIPE, path.stat().st_size)
    *_, quarter = choose_split(path, RECIPE, path.stat().st_size // 4)
    assert whole == lines
    assert set(quarter) < set(lines)
    assert len(quarter) == pytest.approx(len(lines) / 4, rel=0.1)


def test_the_command_counts_text_that_is_compressed_as_if_it_were_not(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"x" * 5000))
    (tmp_path / "b.zst").write_bytes(b"x")
    monkeypatch.setattr("sys.argv", ["text.py", str(tmp_path)])
    text.main()
    monkeypatch.setattr("sys.argv", ["text.py"])
    with pytest.raises(UserError, match="arguments are required: folder"):
        text.main()
    assert capsys.readouterr().out == "5000 bytes of text in 1 file; not read: 1 .zst\n"
