"""Text from elsewhere: novels (ELTeC), books (the Hugging Face hub), the parliament's debates (Europarl).

Everything is written under another name first and renamed when whole, so what stands at its place is complete and is
not downloaded again. A download that fails says in one sentence what could not be reached and what to do without it.
"""

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

from common import MACHINE_ERRORS, Progress, UserError, count, read_json, write_json
from corpus import TEI_FILES, TextSource, open_source
from formats import extra

TIMEOUT = 60  # seconds without a byte
WITHOUT = "without it, prepare text of your own with --text LANG=PATH"
WITHOUT_PARALLEL = "without it, use parallel text of your own with --parallel LANG=FILE LANG=FILE"


class Repository(NamedTuple):
    """A git repository at one commit."""

    url: str
    commit: str


# States whose metadata tables, which the project makes from the files in level1/, list the whole collection. They were
# chosen from copies of these tables, without a download: if one does not hold, put the newest commit here.
ELTEC = {
    "en": Repository("https://github.com/COST-ELTeC/ELTeC-eng", "4a7d956d0c1acd74ea10b520c1935716fe7760fa"),
    "fr": Repository("https://github.com/COST-ELTeC/ELTeC-fra", "0a0801907abc527b89819f748c35221e86b0ae46"),
}


class Archive(NamedTuple):
    """A .tgz file: where it is, what it must hash to, and which of its members hold which language."""

    url: str
    sha256: str
    members: dict[str, str]


EUROPARL = Archive(
    "https://www.statmt.org/europarl/v7/fr-en.tgz",
    "80f5d52113e23bfe51f890569ed69d2a1348127bca0894d07d1d23e0d0fac1e9",  # found in one public list, without a second
    {"en": "europarl-v7.fr-en.en", "fr": "europarl-v7.fr-en.fr"},
)


class Books(NamedTuple):
    """A data set on the Hugging Face hub with a book in every row."""

    dataset: str
    revision: str
    column: str
    bytes_per_token: float


BOOKS = {
    "en": Books("emozilla/pg19", "c021754c8e01c5b1cc83a1f549c1f97fbbb756b8", "text", 4.3),
    "fr": Books("PleIAs/French-PD-Books", "main", "complete_text", 4.5),  # no commit of it is known to us: the newest
}
BOOK_FILE_BYTES = 100_000_000  # of text in one file: what is lost when a download stops


# --- novels ---------------------------------------------------------------------------------------------------------


def fetch_eltec(folder: Path, repositories: dict[str, Repository] = ELTEC) -> dict[str, TextSource]:
    """The novels of the European Literary Text Collection by language, downloaded into `folder` if they are not there.

    Raises:
        UserError: git is missing or cannot fetch the pinned commit.
    """
    return {
        language: open_source(fetch_level1(folder / f"eltec-{language}-{repository.commit[:12]}", repository), TEI_FILES)
        for language, repository in repositories.items()
    }


def fetch_level1(target: Path, repository: Repository) -> Path:
    """Check out `level1/` of a commit at `target`; returns that folder.

    A commit's id is a hash over everything in it and git checks what it receives against it: no other checksum is needed.
    """
    if not target.exists():
        print(f"fetching {repository.url} at {repository.commit[:12]}", flush=True)
        with unfinished(target) as working:
            run_git(repository, working, "init", "--quiet")
            run_git(repository, working, "fetch", "--quiet", "--depth", "1", repository.url, repository.commit)
            run_git(repository, working, "checkout", "--quiet", repository.commit, "--", "level1")
            shutil.rmtree(working / ".git")
    return target / "level1"


def run_git(repository: Repository, folder: Path, *arguments: str) -> None:
    """Run a git command in `folder`, untouched by the user's repository, passwords and line-end settings."""
    hiding = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}  # set while git runs a hook
    environment = {name: value for name, value in os.environ.items() if name not in hiding} | {"GIT_TERMINAL_PROMPT": "0"}
    settings = ("core.autocrlf=false", "http.lowSpeedLimit=1", f"http.lowSpeedTime={TIMEOUT}")
    command = ["git", "-C", str(folder), *(part for setting in settings for part in ("-c", setting)), *arguments]
    try:
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=3600)
    except FileNotFoundError:
        raise UserError(f"{repository.url} cannot be fetched: git is not installed; {WITHOUT}") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{repository.url} cannot be fetched: git took more than an hour; {WITHOUT}") from None
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["git gave no reason"])[-1]
        raise UserError(f"{repository.url} at commit {repository.commit[:12]} cannot be fetched ({reason}); {WITHOUT}") from None


# --- parallel text --------------------------------------------------------------------------------------------------


def fetch_europarl(folder: Path, archive: Archive = EUROPARL) -> dict[str, Path]:
    """The two files of Europarl v7 by language, sentence by sentence in step, downloaded if they are not in `folder`.

    Raises:
        UserError: the archive cannot be reached, is not the one that is expected, or lacks a file.
    """
    target = folder / "europarl-v7"
    if not target.exists():
        with unfinished(target) as working:
            packed = working / "archive.tgz"
            download(archive, packed)
            extract(archive, packed, working)
            packed.unlink()
    return {language: target / member for language, member in archive.members.items()}


def download(archive: Archive, path: Path) -> None:
    """Write what lies at the archive's address to `path`, and compare its hash."""
    digest, done = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(archive.url, timeout=TIMEOUT) as response, open(path, "wb") as file:
            total = int(response.headers.get("Content-Length") or 0)
            progress = Progress(f"downloading {archive.url}", max(total, 1) / 1e6, "MB")
            while block := response.read(1 << 20):
                file.write(block)
                digest.update(block)
                done += len(block)
                progress.update(done / 1e6)
            progress.close(done / 1e6)
    except (OSError, HTTPException, ValueError) as error:
        if getattr(error, "errno", None) in MACHINE_ERRORS:
            raise  # the disk, not the network
        raise UserError(f"{archive.url} cannot be downloaded ({error}); {WITHOUT_PARALLEL}") from None
    if digest.hexdigest() != archive.sha256:
        found = f"{done} bytes with the SHA-256 {digest.hexdigest()}"
        raise UserError(f"{archive.url} gave {found}, expected {archive.sha256}; {WITHOUT_PARALLEL}")


def extract(archive: Archive, packed: Path, folder: Path) -> None:
    """Write the expected members of a .tgz file to `folder`, under exactly these names; all others are passed over."""
    missing = set(archive.members.values())
    try:
        with tarfile.open(packed, "r|gz") as members:
            for member in members:
                if member.name in missing and member.isfile():
                    with members.extractfile(member) as content, open(folder / member.name, "wb") as file:
                        shutil.copyfileobj(content, file, 1 << 20)
                    missing.remove(member.name)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"{archive.url} is no .tgz archive ({error}); {WITHOUT_PARALLEL}") from None
    if missing:
        raise UserError(f"{archive.url} does not contain {', '.join(sorted(missing))}; {WITHOUT_PARALLEL}")


# --- books ----------------------------------------------------------------------------------------------------------


def fetch_books(folder: Path, max_tokens: float, books: dict[str, Books] = BOOKS) -> dict[str, TextSource]:
    """Books by language, `max_tokens` (as estimated from bytes) of each or all there are, downloaded into `folder`.

    A download that was stopped goes on behind its last whole file.

    Raises:
        UserError: the package `datasets` is missing, or a data set cannot be reached or has no such column.
    """
    return {
        language: open_source(fetch_language(folder / f"books-{language}-{max_tokens:.0f}", max_tokens, entry))
        for language, entry in books.items()
    }


def fetch_language(target: Path, max_tokens: float, books: Books) -> Path:
    """Write one data set's books to `target` as .jsonl.gz files; returns `target`.

    While it is at work the folder has another name, and `index.json` in it lists the files that are whole: their names,
    the rows of the data set up to their end, and the bytes of their texts.
    """
    if target.exists():
        return target
    working = target.with_name(f"{target.name}.unfinished")
    working.mkdir(parents=True, exist_ok=True)
    index_path = working / "index.json"
    index = read_json(index_path, "the index of a download") if index_path.exists() else {**books._asdict(), "files": []}
    if any(index.get(key) != value for key, value in books._asdict().items()):
        raise UserError(f"{working} is a download of something else ({index.get('dataset')}); remove it")
    files, enough = index["files"], max_tokens * books.bytes_per_token
    done = sum(file["bytes"] for file in files)
    progress = Progress(f"downloading {books.dataset}", enough / 1e6, "MB", begin=done / 1e6)
    rows = book_rows(books, skip=files[-1]["rows"] if files else 0)
    while done < enough:
        path = working / f"{len(files):05d}.jsonl.gz"
        size, last_row = write_books(path, rows, min(BOOK_FILE_BYTES, enough - done))
        if not size:
            path.unlink()
            tokens, wanted = count(done / books.bytes_per_token), count(max_tokens)
            print(f"\n{books.dataset} has no more: about {tokens} tokens, of {wanted} asked for")
            break
        files.append({"file": path.name, "rows": last_row, "bytes": size})
        write_json(index_path, index)
        done += size
        progress.update(done / 1e6)
    progress.close(done / 1e6)
    if not files:
        raise UserError(f"{books.dataset} on the Hugging Face hub gave no text; {WITHOUT}")
    os.rename(working, target)
    return target


def write_books(path: Path, rows: Iterator[tuple[int, str]], enough: float) -> tuple[int, int]:
    """Write texts to a .jsonl.gz file until they are `enough` bytes; returns (their bytes, number of the last row)."""
    size, last_row = 0, 0
    with open(path, "wb") as raw:
        # No time and no name inside: the same books are the same bytes.
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
            for row, text in rows:
                file.write(json.dumps({"text": text}, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
                size += len(text.encode("utf-8", "replace"))
                last_row = row
                if size >= enough:
                    break
        raw.flush()
        os.fsync(raw.fileno())
    return size, last_row


def book_rows(books: Books, skip: int) -> Iterator[tuple[int, str]]:
    """(row number, text) of a data set's rows that have text, behind the first `skip` of them."""
    datasets = extra("datasets", "--corpus books")
    try:
        stream = datasets.load_dataset(books.dataset, revision=books.revision, split="train", streaming=True)
        for number, row in enumerate(stream.skip(skip) if skip else stream, skip + 1):
            if books.column not in row:
                raise UserError(f"{books.dataset} has the columns {', '.join(row)}, expected one named {books.column}; {WITHOUT}")
            if row[books.column]:
                yield number, row[books.column]
    except UserError:
        raise
    except Exception as error:  # whatever the hub's client, its network and its file formats may raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{books.dataset} on the Hugging Face hub cannot be read ({reason}); {WITHOUT}") from None


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """An empty folder to work in, which becomes `target` if all goes well and is removed if not."""
    working = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(working, ignore_errors=True)  # what a killed download left
    working.mkdir(parents=True)
    try:
        yield working
        os.rename(working, target)
    except BaseException:
        shutil.rmtree(working, ignore_errors=True)
        raise
