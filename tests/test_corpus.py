"""Documents: listing and loading files of every kind, cleaning."""

import gzip
import json
import lzma
import os
import pickle
import socket
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import UserError
from corpus import (
    LOADERS,
    TEI_FILES,
    Item,
    clean,
    load,
    open_source,
)

TEI = '<?xml version="1.0" encoding="UTF-8"?><TEI xmlns="http://www.tei-c.org/ns/1.0"><text>{}</text></TEI>'


def texts(source) -> list[str]:
    """What workers make of a source, each item sent to them and back as bytes."""
    return [load(pickle.loads(pickle.dumps(item))) for item in source]


def jsonl(*documents: str) -> bytes:
    """A JSON Lines file."""
    return "".join(json.dumps({"text": text, "other": 1}) + "\n" for text in documents).encode()


@given(st.text())
def test_cleaning_is_idempotent_and_leaves_no_control_characters(text):
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in cleaned if c != "\n")
    assert "\n\n\n" not in cleaned
    assert " \n" not in cleaned


def test_an_accent_joins_its_letter_once_what_was_between_them_is_gone():
    assert clean("e\x00\u0301") == "é"


def test_cleaning_keeps_indentation_and_paragraphs():
    assert clean("\r\nA word.\t \r\n\r\n\r\n\r\n    indented\x00\n") == "A word.\n\n    indented"


# --- files of text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "compress"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_text_and_json_lines_are_read_compressed_or_not(tmp_path, name, compress):
    (tmp_path / f"b.txt{name}").write_bytes(compress("\ufeffzweite Ä\n".encode()))
    (tmp_path / f"a.jsonl{name}").write_bytes(compress(jsonl("one", "") + b"\n \n" + jsonl("four\x00")))
    (tmp_path / "ignored.md").write_text("other")
    source = open_source(tmp_path)
    assert texts(source) == ["one", "", "four\x00", "zweite Ä\n"]
    assert [item.name for item in source] == [f"a.jsonl{name}:{line}" for line in (1, 2, 5)] + [f"b.txt{name}"]
    assert sum(item.size for item in source) == source.size == sum(file.stat().st_size for file in tmp_path.glob("*.*[!d]"))


def test_a_source_reads_a_single_file_and_can_be_read_again(tmp_path):
    (tmp_path / "a.TXT").write_text("alone")
    source = open_source(tmp_path / "a.TXT")
    assert list(source) == list(source) == [Item("a.TXT", 5, "text", str(tmp_path / "a.TXT"), None)]


def test_folders_are_read_in_one_order_without_hidden_files(tmp_path):
    for name in ("b/2.txt", "b/1.txt", "a.txt", "c.txt", ".git/x.txt", "b/._1.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [item.name for item in open_source(tmp_path)] == ["a.txt", "b/1.txt", "b/2.txt", "c.txt"]


def test_links_that_go_in_circles_end_and_each_file_is_read_once(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.txt").write_text("text")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c.txt").symlink_to("a/1.txt")
    assert [item.name for item in open_source(tmp_path)] == ["a/1.txt"]


def test_a_huge_line_is_one_document(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(jsonl("x" * 20_000_000))
    (item,) = open_source(tmp_path)
    assert len(load(item)) == 20_000_000


def test_names_that_are_no_text_can_be_hashed_and_printed(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"\xff.txt")).write_text("text")
    except OSError:
        pytest.skip("this file system takes no such names")
    (item,) = open_source(tmp_path)
    assert item.name.encode() == b"\\xff.txt"


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda path: None, "does not exist"),
    (lambda path: path.mkdir(), "holds no file of a known kind"),
    (lambda path: (path.mkdir(), (path / "a.md").write_text("x")), "holds no file of a known kind"),
    (lambda path: path.write_text("a file without suffix"), "is of no known kind"),
    (lambda path: path.symlink_to(path.name), "does not exist"),
    (lambda path: (path.mkdir(), (path / "a.txt").symlink_to("gone")), "broken link or a special file"),
    (lambda path: (path.mkdir(), os.mkfifo(path / "a.txt")), "broken link or a special file"),
    (lambda path: (path.mkdir(), socket.socket(socket.AF_UNIX).bind(str(path / "a.txt"))), "broken link or a special file"),
])  # fmt: skip
def test_what_cannot_be_a_source_is_refused_at_once(tmp_path, monkeypatch, make, sentence):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    path = Path("text")
    make(path)
    with pytest.raises(UserError, match=sentence) as raised:
        open_source(path)
    assert str(path) in str(raised.value)


def test_a_name_that_is_too_long_does_not_exist(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        open_source(tmp_path / ("x" * 300))


@pytest.mark.parametrize(("name", "content", "sentence"), [
    ("a.txt", b"ok \xff", r"a\.txt is not UTF-8: byte 3"),
    ("a.txt", "Ä".encode("utf-16"), r"a\.txt is binary or UTF-16.*byte 3 is NUL"),
    ("a.txt", b"\x7fELF\x00", r"a\.txt is binary .*byte 4"),
    ("a.txt.gz", gzip.compress(b"text" * 999)[:-9], r"a\.txt\.gz cannot be decompressed"),
    ("a.txt.gz", b"plain text", r"a\.txt\.gz cannot be decompressed"),
    ("a.txt.gz", gzip.compress(b"text" * 999)[:20] + b"????", r"a\.txt\.gz cannot be decompressed"),
    ("a.txt.xz", lzma.compress(os.urandom(999))[:-99], r"a\.txt\.xz cannot be decompressed"),
    ("a.txt.xz", b"plain text", r"a\.txt\.xz cannot be decompressed"),
    ("a.jsonl.gz", gzip.compress(jsonl("text") * 999)[:-9], r"a\.jsonl\.gz cannot be decompressed"),
    ("a.jsonl", jsonl("text") + b'{"text": "\xff"}', r"a\.jsonl:2 is not UTF-8: byte 10"),
    ("a.jsonl", jsonl("text") + b"\x00\x01", r"a\.jsonl:2 is binary"),
    ("a.jsonl", b'\n{"text": "open', r"a\.jsonl:2 is not JSON: .*char 9"),
    ("a.jsonl", b"[" * 200_000, r"a\.jsonl:1 is not JSON"),
    ("a.jsonl", b"1" * 9999, r"a\.jsonl:1 "),
    ("a.jsonl", b"[1]", r"a\.jsonl:1 holds a JSON list, expected an object"),
    ("a.jsonl", b'{"content": "x"}', r"a\.jsonl:1 is not a document: it has no field text"),
    ("a.jsonl", b'{"text": null}', r"a\.jsonl:1 is not a document: text is a NoneType, expected a string"),
], ids=lambda value: str(value)[:40])  # fmt: skip
def test_damaged_documents_are_named(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence) as raised:
        texts(open_source(tmp_path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", LOADERS)
@given(content=st.binary(max_size=60))
def test_any_bytes_load_or_are_refused_in_a_sentence(kind, content):
    try:
        text, refusal = load(Item("a:1", len(content), kind, "a", content)), None
    except UserError as error:
        text, refusal = None, str(error)
    assert isinstance(text, str) or refusal.startswith("a:1 ")


def test_a_file_that_vanishes_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.jsonl").write_bytes(jsonl("text"))
    source = open_source(tmp_path)
    item = next(iter(source))
    for path in tmp_path.iterdir():
        path.unlink()
    for use in (lambda: load(item), lambda: list(source)):
        with pytest.raises(UserError, match=r"a\.txt cannot be read: No such file"):
            use()


def test_parquet_without_its_package_says_how_to_install_it(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"a\.parquet needs .* pip install -r requirements-extra\.txt"):
        open_source(tmp_path)


def test_parquet_is_read_row_by_row(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    documents = [f"text {number}" for number in range(200)]
    parquet.write_table(pyarrow.table({"id": range(200), "text": documents}), tmp_path / "a.parquet", row_group_size=70)
    source = open_source(tmp_path)
    assert texts(source) == documents
    assert [item.name for item in source][-1] == "a.parquet:200"
    assert sum(item.size for item in source) == source.size
    for table, sentence in (
        ({"id": [1]}, "has the columns id, expected one named text"),
        ({"text": ["x", None]}, "a.parquet:2 is an empty cell"),
        ({"text": [[1]]}, "column of text"),
    ):
        parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet")
        with pytest.raises(UserError, match=sentence):
            list(open_source(tmp_path))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(UserError, match="cannot be read as parquet"):
        list(open_source(tmp_path))


# --- TEI ------------------------------------------------------------------------------------------------------------


def tei(tmp_path, content: str) -> str:
    """What is read from a TEI file with this inside its `text`."""
    (tmp_path / "a.xml").write_text(TEI.format(content), encoding="utf-8")
    return texts(open_source(tmp_path, TEI_FILES))[0]


def test_tei_gives_the_paragraphs_of_the_body(tmp_path):
    content = """<front><p>Title page</p></front><body>between <div><head>I.</head>
        <p>A  <hi>bold</hi>,\n   folded &amp; plain<note n="1">a <p>note</p></note>\u00a0!</p><lg><l>verse</l><l/></lg></div>
        <note><p>left out</p></note></body><back><p>Index</p></back>"""
    assert tei(tmp_path, content) == "I.\nA bold, folded & plain\u00a0!\nverse"


def test_tei_paragraphs_inside_others_are_not_read_twice(tmp_path):
    assert tei(tmp_path, "<body><p>He sang: <quote><l>one</l><l>two</l></quote> and left.</p></body>") == (
        "He sang:\none\ntwo\nand left."
    )


def test_tei_without_a_namespace_is_read(tmp_path):
    (tmp_path / "a.xml").write_text("<TEI><text><body><p>plain</p></body></text></TEI>")
    assert texts(open_source(tmp_path, TEI_FILES)) == ["plain"]


@pytest.mark.parametrize(("content", "sentence"), [
    ('<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><TEI><body><p>&b;</p></body></TEI>', "document type or entities"),
    ('<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><TEI><body><p>&a;</p></body></TEI>', "document type or entities"),
    ("<TEI><body><p>open</body></TEI>", "is not well-formed XML: mismatched tag"),
    ("<TEI><body><p>&unknown;</p></body></TEI>", "is not well-formed XML: undefined entity"),
    ("<TEI><p>no body</p></TEI>", "has no <body>"),
    ("", "is not well-formed XML"),
])  # fmt: skip
def test_tei_that_cannot_be_trusted_is_named(tmp_path, content, sentence):
    for encoding, expected in (("utf-8", sentence), ("utf-16", sentence if not content else "UTF-16")):
        (tmp_path / "a.xml").write_bytes(content.encode(encoding) if content else b"")
        with pytest.raises(UserError, match=rf"a\.xml .*{expected}"):
            texts(open_source(tmp_path, TEI_FILES))
