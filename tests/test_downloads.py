"""Downloads: what is fetched is checked and complete, what fails is one sentence and leaves nothing. No network is used."""

import functools
import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from conftest import tree

import downloads
from common import UserError
from corpus import load
from downloads import Archive, Books, Repository, fetch_books, fetch_eltec, fetch_europarl

UNREACHABLE = "http://127.0.0.1:9/fr-en.tgz"  # the port that discards: nothing listens there
MEMBERS = {"en": "europarl-v7.fr-en.en", "fr": "europarl-v7.fr-en.fr"}


def refusal(fetch, *arguments) -> str:
    """The one sentence that a download fails with."""
    with pytest.raises(UserError) as raised:
        fetch(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# --- novels ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Repository:
    """A git repository like those of ELTeC; its newest commit is not the pinned one."""
    folder = tmp_path_factory.mktemp("remote")
    git = functools.partial(subprocess.run, cwd=folder, check=True, capture_output=True, text=True)
    git(["git", "init", "--quiet"])

    def commit(content: str) -> str:
        for level in ("level1", "level2"):
            (folder / level).mkdir(exist_ok=True)
            (folder / level / "novel.xml").write_text(f"<TEI><text><body><p>{content}</p></body></text></TEI>\n")
        git(["git", "add", "."])
        git(["git", "-c", "user.name=n", "-c", "user.email=e", "commit", "--quiet", "-m", content])
        return git(["git", "rev-parse", "HEAD"]).stdout.strip()

    pinned = commit("old")
    commit("new")
    return Repository(folder.as_uri(), pinned)


def test_novels_come_from_the_pinned_commit_once(tmp_path, repository):
    sources = fetch_eltec(tmp_path, {"en": repository})
    assert [load(item) for item in sources["en"]] == ["old"]
    assert [item.name for item in sources["en"]] == ["novel.xml"]
    assert [path.rsplit("/", 2)[-2:] for path in tree(tmp_path)] == [["level1", "novel.xml"]]
    # Once there it needs no remote.
    assert list(fetch_eltec(tmp_path, {"en": repository._replace(url=UNREACHABLE)})["en"]) == list(sources["en"])


@pytest.mark.parametrize("change", [
    {"url": UNREACHABLE}, {"url": "file:///nowhere"}, {"commit": "0" * 40},
])  # fmt: skip
def test_novels_that_cannot_be_fetched_leave_nothing(tmp_path, repository, change):
    message = refusal(fetch_eltec, tmp_path, {"en": repository._replace(**change)})
    assert "cannot be fetched" in message
    assert "--text LANG=PATH" in message
    assert list(tmp_path.iterdir()) == []


def test_without_git_novels_are_refused(tmp_path, repository, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git is not installed" in refusal(fetch_eltec, tmp_path, {"en": repository})


# --- parallel text --------------------------------------------------------------------------------------------------


def tgz(path, members: dict[str, bytes]) -> bytes:
    """Write an archive; returns its bytes."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path.read_bytes()


@pytest.fixture
def served(tmp_path_factory):
    """Call `served(members)` for an Archive that a server on this machine gives out."""
    folder = tmp_path_factory.mktemp("server")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

        def serve(members: dict[str, bytes]) -> Archive:
            content = tgz(folder / "fr-en.tgz", members)
            return Archive(f"http://127.0.0.1:{server.server_port}/fr-en.tgz", hashlib.sha256(content).hexdigest(), MEMBERS)

        yield serve
        server.shutdown()


def test_parallel_text_is_the_two_files_of_the_archive(tmp_path, served):
    archive = served(
        {"../outside": b"x", "/outside": b"x", MEMBERS["en"]: b"one\ntwo\n", "other": b"x", MEMBERS["fr"]: b"un\ndeux\n"}
    )
    files = fetch_europarl(tmp_path / "in", archive)
    assert {language: path.read_text() for language, path in files.items()} == {"en": "one\ntwo\n", "fr": "un\ndeux\n"}
    assert sorted(tree(tmp_path)) == [f"in/europarl-v7/{name}" for name in MEMBERS.values()]
    assert fetch_europarl(tmp_path / "in", archive._replace(url=UNREACHABLE)) == files


@pytest.mark.parametrize(("members", "change", "sentence"), [
    (MEMBERS, {"url": UNREACHABLE}, "cannot be downloaded .*Connection refused"),
    (MEMBERS, {"url": "no address"}, "cannot be downloaded .*unknown url type"),
    (MEMBERS, {"sha256": "0" * 64}, "gave .* bytes with the SHA-256 .* expected 0000"),
    ({"en": MEMBERS["en"]}, {}, "does not contain europarl-v7.fr-en.fr"),
])  # fmt: skip
def test_parallel_text_that_is_not_as_expected_leaves_nothing(tmp_path, served, members, change, sentence):
    message = refusal(fetch_europarl, tmp_path, served(dict.fromkeys(members.values(), b"x"))._replace(**change))
    assert "--parallel LANG=FILE" in message
    assert re.search(sentence, message), message
    assert list(tmp_path.iterdir()) == []


def test_a_link_does_not_pass_for_a_file_of_the_archive(tmp_path):
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        for name in MEMBERS.values():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
    content = (tmp_path / "a.tgz").read_bytes()
    archive = Archive((tmp_path / "a.tgz").as_uri(), hashlib.sha256(content).hexdigest(), MEMBERS)
    assert "does not contain" in refusal(fetch_europarl, tmp_path / "in", archive)


def test_what_is_no_archive_is_named(tmp_path):
    (tmp_path / "a.tgz").write_bytes(b"<html>moved</html>")
    archive = Archive((tmp_path / "a.tgz").as_uri(), hashlib.sha256(b"<html>moved</html>").hexdigest(), MEMBERS)
    assert "is no .tgz archive" in refusal(fetch_europarl, tmp_path / "in", archive)


# --- books ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the package `datasets`: fifty books of 100 bytes, two rows without text; `breaks` is a row that fails."""

    class Stream:
        def __init__(self, start=0):
            self.start = start

        def skip(self, n):
            return Stream(self.start + n)

        def __iter__(self):
            for number in range(self.start, 52):
                if number == hub.breaks:
                    raise ConnectionError("the line is dead\nTraceback of the client")
                hub.served.append(number)
                yield {"title": f"{number}", "text": None if number in (3, 4) else f"{number:<98}é"}

    def load_dataset(name, revision, split, streaming):
        assert (name, revision, split, streaming) == ("some/books", "abc", "train", True)
        return Stream()

    hub = SimpleNamespace(load_dataset=load_dataset, breaks=None, served=[])
    monkeypatch.setitem(sys.modules, "datasets", hub)
    monkeypatch.setattr(downloads, "BOOK_FILE_BYTES", 500)
    return hub


BOOKS = {"en": Books("some/books", "abc", "text", 4.0)}


def test_books_stop_at_the_tokens_asked_for(tmp_path, hub):
    source = fetch_books(tmp_path, 300, BOOKS)["en"]
    texts = [load(item) for item in source]
    assert len(texts) == 12  # 300 tokens of 4 bytes are 1200 bytes
    assert [int(text[:-1]) for text in texts[:5]] == [0, 1, 2, 5, 6]
    assert max(hub.served) == 13  # no more than needed is asked for
    assert [path.name for _, path in source.files] == ["00000.jsonl.gz", "00001.jsonl.gz", "00002.jsonl.gz"]
    hub.breaks = 0
    assert list(fetch_books(tmp_path, 300, BOOKS)["en"]) == list(source)


def test_all_books_are_taken_when_there_are_no_more(tmp_path, hub, capsys):
    assert len(list(fetch_books(tmp_path, 1e9, BOOKS)["en"])) == 50
    assert "some/books has no more: about 1.25k tokens, of 1B asked for" in capsys.readouterr().out


def test_a_stopped_download_of_books_goes_on_and_ends_the_same(tmp_path, hub):
    whole = tree(fetch_books(tmp_path / "whole", 700, BOOKS)["en"].files[0][1].parent)
    for hub.breaks in (0, 3, 9, 10, 17, 25):
        message = refusal(fetch_books, tmp_path / "parts", 700, BOOKS)
        assert "some/books on the Hugging Face hub cannot be read (the line is dead); without it" in message
        assert [path.name for path in (tmp_path / "parts").iterdir()] == ["books-en-700.unfinished"]
    hub.breaks, hub.served = None, []
    assert tree(fetch_books(tmp_path / "parts", 700, BOOKS)["en"].files[0][1].parent) == whole
    assert min(hub.served) > 15  # whole files were not asked for again


def test_books_without_text_or_package_are_refused(tmp_path, hub, monkeypatch):
    message = refusal(fetch_books, tmp_path, 300, {"en": BOOKS["en"]._replace(column="complete_text")})
    assert "has the columns title, text, expected one named complete_text" in message
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install -r requirements-extra.txt" in refusal(fetch_books, tmp_path, 300, BOOKS)


def test_another_data_set_does_not_continue_a_stopped_download(tmp_path, hub):
    hub.breaks = 12
    refusal(fetch_books, tmp_path, 300, BOOKS)
    assert "download of something else" in refusal(fetch_books, tmp_path, 300, {"en": BOOKS["en"]._replace(revision="def")})


def test_books_are_written_without_lone_surrogates(tmp_path):
    size, last = downloads.write_books(tmp_path / "a.jsonl.gz", iter([(7, "a\ud800")]), 1)
    assert (size, last) == (2, 7)
    assert json.loads(gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes())) == {"text": "a?"}
