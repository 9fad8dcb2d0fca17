"""Corpora: what is fetched is whole, what fails is one sentence and leaves nothing. No network is used."""

import hashlib
import io
import json
import random
import subprocess
import sys
import tarfile
from collections import Counter
from types import SimpleNamespace

import pytest
from conftest import tree, write_documents

import data
from common import UserError
from corpora import books, eltec, europarl, libraries, partners, pydocs
from text import documents as documents_of

UNREACHABLE = "http://127.0.0.1:9/fr-en.tgz"  # the port that discards: nothing listens there


def refusal(fetch, folder, *arguments) -> str:
    """The one sentence that fetching fails with; nothing stays behind."""
    with pytest.raises(UserError) as raised:
        fetch(folder, *arguments)
    assert "\n" not in str(raised.value)
    assert tree(folder) == {}
    return str(raised.value)


MODULE = '''"""Module."""
raise SystemExit("imported")
class A:
    """Class."""
    if True:
        async def f(self):
            r"""Method \\d."""
def g():
    "not" + "a docstring"
    x = """an expression"""
try:
    pass
except ValueError:
    def h():
        """In a handler."""
else:
    match A:
        case 1:
            class B: "In a case."
'''


@pytest.mark.parametrize(("content", "docstrings"), [
    (MODULE.encode(), ["Module.", "Class.", "Method \\d.", "In a handler.", "In a case."]),
    (b"def f(:\n", []),
    (b"\xff\xfe\x00", []),
    (b"x = '\x00'\n", []),
    (b"", []),
])  # fmt: skip
def test_docstrings_are_read_from_source_without_running_it(tmp_path, content, docstrings):
    (tmp_path / "module.py").write_bytes(content)
    assert pydocs.read_docstrings(tmp_path / "module.py") == docstrings


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pydocs, "PACKAGES", ("no_such_package",))
    assert "pydocs need the package no_such_package" in refusal(pydocs.fetch, tmp_path, 1e9)


def test_pydocs_are_named_documents_without_copies(tmp_path, monkeypatch, capsys):
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").write_text(f'"""Shared."""\ndef {name}(): "Only {name}."\n')
    files = [("x/a.py", tmp_path / "a.py"), ("x/b.py", tmp_path / "b.py")]
    monkeypatch.setattr(pydocs, "source_files", lambda: iter(files))
    found = [(document.name, document.text) for document in documents_of(pydocs.fetch(tmp_path, 1e9)["en"])]
    assert found == [("x/a.py", "Shared.\n\nOnly a."), ("x/b.py", "Only b.")]
    assert "other versions" in capsys.readouterr().out


def test_a_corpus_is_prepared_by_its_name(tmp_path, monkeypatch, command, documents):
    def fetch(folder, max_tokens):
        return {"en": write_documents(folder / "pydocs.jsonl", documents)}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pydocs, "fetch", fetch)
    code, out, _ = command(data.main, "--vocab-size", 512)
    assert code == 0
    assert "data/pydocs is ready; next: python train.py --data data/pydocs --ratio 0.9" in out
    assert data.Dataset(tmp_path / "data" / "pydocs").meta["recipe"]["source"] == "pydocs"
    assert list(data.Dataset(tmp_path / "data" / "pydocs").languages) == ["en", "noise"]


NOVEL = """<front><p>Title page</p></front><body>between <div><head>I.</head>
    <p>A  <hi>bold</hi>,\n   folded &amp; plain<note n="1">a <p>note</p></note>\u00a0!</p>
    <lg><l>verse</l><l/></lg></div><note><p>left out</p></note></body><back><p>Index</p></back>"""
TEI = '<?xml version="1.0" encoding="UTF-8"?><TEI xmlns="http://www.tei-c.org/ns/1.0"><text>{}</text></TEI>'


@pytest.mark.parametrize(("content", "text"), [
    (NOVEL, "I.\nA bold, folded & plain\u00a0!\nverse"),
    ("<body><p>Sang: <quote><l>one</l><l>two</l></quote> and left.</p></body>", "Sang:\none\ntwo\nand left."),
    ("<body>Out <p>in<!-- no --> <hi>and <note>x</note>in</hi></p> out</body>", "in and in"),
])  # fmt: skip
def test_the_text_of_a_novel_is_its_paragraphs(content, text):
    assert eltec.tei_text(TEI.format(content).encode()) == text
    assert eltec.tei_text(f"<TEI>{content}</TEI>".encode()) == text  # without a namespace


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> tuple[str, str]:
    """(address, commit) of a git repository like those of ELTeC; its newest commit is not that one."""
    folder, commits = tmp_path_factory.mktemp("remote"), []

    def git(*arguments):
        command = ["git", "-c", "user.name=n", "-c", "user.email=e", *arguments]
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    for content in ("old", "new"):
        for level in ("level1", "level2"):
            (folder / level).mkdir(exist_ok=True)
            (folder / level / "novel.xml").write_text(TEI.format(f"<body><p>{content}</p></body>"))
        git("add", ".")
        git("commit", "--quiet", "-m", content)
        commits.append(git("rev-parse", "HEAD"))
    return folder.as_uri(), commits[0]


def test_novels_come_from_the_pinned_commit_once(tmp_path, monkeypatch, repository):
    monkeypatch.setattr(eltec, "NOVELS", {"en": repository})
    folder = eltec.fetch(tmp_path, 1e9)["en"]
    assert [(document.name, document.text) for document in documents_of(folder)] == [("novel.txt", "old")]
    assert list(tree(tmp_path)) == [f"{folder.name}/novel.txt"]
    # Once there, it needs no remote.
    monkeypatch.setattr(eltec, "NOVELS", {"en": (UNREACHABLE, repository[1])})
    assert eltec.fetch(tmp_path, 1e9)["en"] == folder


@pytest.mark.parametrize("change", [0, 1])
def test_novels_that_cannot_be_fetched_leave_nothing(tmp_path, monkeypatch, repository, change):
    url, commit = repository
    monkeypatch.setattr(eltec, "NOVELS", {"en": [("file:///nowhere", commit), (url, "0" * 40)][change]})
    assert "data.py --text takes texts of your own" in refusal(eltec.fetch, tmp_path, 1e9)


@pytest.fixture
def archive(tmp_path, monkeypatch) -> bytes:
    """An archive like Europarl's, which a file stands for the network with."""
    members = {"europarl-v7.fr-en.en": b"one\ntwo\n", "other": b"x", "europarl-v7.fr-en.fr": b"un\ndeux\n"}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    (tmp_path / "remote.tgz").write_bytes(packed.getvalue())
    monkeypatch.setattr(europarl, "URL", (tmp_path / "remote.tgz").as_uri())
    monkeypatch.setattr(europarl, "SHA256", hashlib.sha256(packed.getvalue()).hexdigest())
    return packed.getvalue()


def test_parallel_text_is_the_two_files_of_the_archive(tmp_path, monkeypatch, archive):
    files = europarl.fetch(tmp_path / "in")
    texts = {language: path.read_text() for language, path in files.items()}
    assert texts == {"en": "one\ntwo\n", "fr": "un\ndeux\n"}
    names = [f"europarl-v7/europarl-v7.fr-en.{language}" for language in ("en", "fr")]
    assert sorted(tree(tmp_path / "in")) == names
    monkeypatch.setattr(europarl, "URL", UNREACHABLE)
    assert europarl.fetch(tmp_path / "in") == files


@pytest.mark.parametrize(("name", "value", "sentence"), [
    ("URL", UNREACHABLE, "cannot be downloaded"),
    ("SHA256", "0" * 64, "expected 0000"),
])  # fmt: skip
def test_another_archive_leaves_nothing(tmp_path, monkeypatch, archive, name, value, sentence):
    monkeypatch.setattr(europarl, name, value)
    assert sentence in refusal(europarl.fetch, tmp_path / "in")


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the package `datasets`: fifty books of 100 bytes, two rows without text."""

    def load_dataset(name, revision, split, streaming):
        assert (name, revision, split, streaming) == ("some/books", "abc", "train", True)
        for number in range(52):
            if number == hub.breaks:
                raise ConnectionError("the line is dead\nTraceback of the client")
            hub.served = number
            end = "\ud800?" if number == 7 else "é"  # some have lone surrogates; two bytes each
            yield {"title": f"{number}", "text": None if number in (3, 4) else f"{number:<98}{end}"}

    hub = SimpleNamespace(load_dataset=load_dataset, breaks=None, served=None)
    monkeypatch.setitem(sys.modules, "datasets", hub)
    monkeypatch.setattr(books, "BOOKS", {"en": ("some/books", "abc", "text", 4.0)})
    return hub


def test_books_stop_at_the_tokens_asked_for(tmp_path, hub):
    path = books.fetch(tmp_path, 300)["en"]
    texts = [document.text for document in documents_of(path)]
    # 300 tokens of 4 bytes are 1200 bytes.
    assert [int(text[:98]) for text in texts] == [*range(3), *range(5, 14)]
    assert hub.served == 13  # no more than needed is asked for
    hub.breaks = 0
    assert books.fetch(tmp_path, 300)["en"] == path
    assert list(tree(tmp_path)) == [path.name]


def test_all_books_are_taken_when_there_are_no_more(tmp_path, hub, capsys):
    assert len(list(documents_of(books.fetch(tmp_path, 1e9)["en"]))) == 50
    assert "some/books has no more than 1.25k tokens" in capsys.readouterr().out


def test_books_that_cannot_be_read_leave_nothing(tmp_path, hub, monkeypatch):
    hub.breaks = 9
    assert "hub: ConnectionError: the line is dead" in refusal(books.fetch, tmp_path, 300)
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install -r requirements-extra.txt" in refusal(books.fetch, tmp_path, 300)


TEXT = "Return the mean of x.\n\n    Shape: (n, m), the mean has (n,)"


@pytest.mark.parametrize("partner", [partners.keyed, partners.reversed_text, partners.shuffled_words])
def test_a_partner_keeps_the_length_and_the_spaces_of_a_text(partner):
    found = partner(TEXT, random.Random(0))
    assert found != TEXT
    assert sorted(map(len, found.split())) == sorted(map(len, TEXT.split()))
    assert Counter(map(str.isspace, found)) == Counter(map(str.isspace, TEXT))


def test_a_key_is_one_to_one_and_another_in_each_document():
    one, other = (partners.keyed(TEXT, random.Random(seed)) for seed in (0, 1))
    assert one != other
    pairs = set(zip(TEXT, one, strict=True))
    assert len(pairs) == len(set(TEXT)) == len(set(one))


def test_a_chain_draws_what_followed_in_its_texts_and_nothing_else():
    drawn = partners.chain([TEXT], 2)("x" * 500, random.Random(0))
    assert len(drawn) == 500
    whole = "\n\n" + TEXT + "\n\n" + TEXT
    seen = {whole[place : place + 3] for place in range(len(whole) - 2)}
    assert {drawn[place : place + 3] for place in range(498)} <= seen


def test_brackets_close_in_the_right_order():
    opened = []
    for character in partners.brackets("x" * 999, random.Random(0)):
        if character in "([{<":
            opened.append(character)
        elif character != " ":
            assert opened.pop() + character in partners.BRACKETS


def test_libraries_have_as_many_passages_each_and_no_file_on_both_sides(tmp_path, monkeypatch):
    lines = []
    for number in range(200):
        for library in libraries.LIBRARIES:
            text = f"{library} {number} " + "word " * 30
            lines.append((f"{library}/{number}.py", text))
    write_documents(tmp_path / "pydocs.jsonl", lines)
    monkeypatch.setattr(libraries, "PYDOCS", tmp_path / "pydocs.jsonl")
    monkeypatch.setattr(libraries, "FOLDER", tmp_path)
    monkeypatch.setattr(libraries, "PASSAGES", {"train": 50, "val": 9})
    monkeypatch.setattr(sys, "argv", ["libraries"])
    libraries.main()
    sides = {}
    for side in ("train", "val"):
        rows = [json.loads(line) for line in (tmp_path / f"{side}.jsonl").read_text().splitlines()]
        sides[side] = {row["text"].split()[1] + row["library"] for row in rows}
        assert set(Counter(row["library"] for row in rows).values()) == {libraries.PASSAGES[side]}
        assert {len(row["text"]) for row in rows} == {libraries.LENGTH}
    assert not sides["train"] & sides["val"]
