"""Documents: cleaning, splitting, reading docstrings without importing anything."""

import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import UserError
from corpus import Document, clean, clean_documents, read_docstrings, read_text, split_documents


@given(st.text())
def test_cleaning_is_idempotent_and_leaves_no_control_characters(text):
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in cleaned if c != "\n")
    assert "\n\n\n" not in cleaned
    assert " \n" not in cleaned


def test_cleaning_keeps_indentation_and_paragraphs():
    assert clean("\r\nA word.\t \r\n\r\n\r\n\r\n    indented\x00\n") == "A word.\n\n    indented"


def test_dropped_documents_are_counted_by_reason():
    long = "A sentence that is long enough to be kept by every rule there is in this project. "
    dropped = Counter()
    kept = list(clean_documents([Document("a", long), Document("b", "short"), Document("c", long + "\n\n")], dropped))
    assert [document.name for document in kept] == ["a"]
    assert dropped == {"too short": 1, "copy of another": 1}


@given(st.integers(2, 40), st.floats(0.01, 0.99), st.integers(0, 5))
def test_split_keeps_every_document_on_one_side(n, fraction, seed):
    documents = [Document(f"d{i}", "x" * (1 + i)) for i in range(n)]
    train, test = split_documents(documents, fraction, seed)
    assert train
    assert test
    assert sorted(train + test) == sorted(documents)
    # The same documents in another order are split the same way.
    assert split_documents(documents[::-1], fraction, seed) == (train, test)


def test_split_needs_two_documents():
    with pytest.raises(UserError, match="at least two"):
        split_documents([Document("only", "text")], 0.1, 0)


def test_docstrings_are_read_from_source_without_running_it(tmp_path):
    source = tmp_path / "module.py"
    source.write_text(
        '"""Module."""\nraise SystemExit("imported")\n'
        'class A:\n    """Class."""\n    if True:\n        async def f(self):\n            r"""Method \\d."""\n'
        'def g():\n    "not" + "a docstring"\n    x = """an expression"""\n'
        'try:\n    pass\nexcept ValueError:\n    def h():\n        """In a handler."""\n'
    )
    assert read_docstrings(("m", source)) == ["Module.", "Class.", "Method \\d.", "In a handler."]


@pytest.mark.parametrize("content", [b"def f(:\n", b"\xff\xfe\x00", b"x = '\x00'\n", b""])
def test_files_that_are_no_python_have_no_docstrings(tmp_path, content):
    source = tmp_path / "broken.py"
    source.write_bytes(content)
    assert read_docstrings(("m", source)) == []


def test_text_folders_give_one_document_a_file(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "sub" / "b.txt").write_text("zweite Ä", encoding="utf-8")
    (tmp_path / "ignored.md").write_text("other")
    assert [document.text for document in read_text(tmp_path)] == ["first", "zweite Ä"]


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda path: None, "does not exist"),
    (lambda path: path.mkdir(), "holds no .txt file"),
    (lambda path: (path.mkdir(), (path / "a.txt").write_bytes(b"ok \xff")), "not UTF-8: byte 3"),
])  # fmt: skip
def test_unusable_text_is_named(tmp_path, make, sentence):
    path = tmp_path / "text"
    make(path)
    with pytest.raises(UserError, match=sentence) as raised:
        list(read_text(path))
    assert str(path) in str(raised.value)
