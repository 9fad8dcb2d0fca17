"""The prepared folder: shards of token ids, how they are written and read, and the `meta.json` that describes them.

A shard is 256 little-endian int32 of header, then uint16 tokens, as llm.c and modded-nanogpt read and write it: magic,
version, token count. Two header fields that are free there tell where the language's ids begin in the disjoint joint
vocabulary and how many pieces it has. Shards hold a language's own ids; `languages.py` maps them to joint ones.
"""

import json
import os
from pathlib import Path

import numpy as np
import sentencepiece

from common import UserError, file_hash, read_json, write_atomic

MAGIC, VERSION, HEADER = 20240520, 1, 256
UNFINISHED = ".unfinished"  # ends the name of a folder that is being prepared
META_KEYS = ("format", "recipe", "text", "languages", "fingerprint")
FORMAT = 1  # of meta.json; raised when folders prepared by older code can no longer be read


class ShardWriter:
    """Appends (n,) uint16 ids to a shard that stands at `path` only once it is closed, complete and on the disk.

    `offset` is the joint id of the language's piece 0 when vocabularies are disjoint, `vocab_size` its number of pieces.
    """

    def __init__(self, path: Path, offset: int, vocab_size: int):
        self.path, self.offset, self.vocab_size, self.tokens = path, offset, vocab_size, 0
        self.file = open(path.with_name(path.name + ".tmp"), "wb")  # noqa: SIM115
        self.file.write(bytes(HEADER * 4))  # the magic comes last: what is cut short is no shard

    def add(self, ids: np.ndarray) -> None:
        """Append ids."""
        self.file.write(ids.astype("<u2", casting="same_kind").tobytes())
        self.tokens += len(ids)

    def close(self) -> Path:
        """Complete the shard; returns its path."""
        header = np.zeros(HEADER, dtype="<i4")
        header[:5] = MAGIC, VERSION, self.tokens, self.offset, self.vocab_size
        self.file.seek(0)
        self.file.write(header.tobytes())
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        os.replace(self.file.name, self.path)
        return self.path


class SplitWriter:
    """Writes one split's documents into shards of bounded size, and a journal line for each shard that is complete.

    Shards that an earlier start completed are kept; `behind` is the number of documents they hold.
    """

    def __init__(self, folder: Path, prefix: str, *, vocab_size: int, offset: int, shard_tokens: int):
        self.folder, self.prefix, self.vocab_size, self.offset = folder, prefix, vocab_size, offset
        self.shard_tokens = shard_tokens
        self.journal, self.writer = folder / f"{prefix}.journal", None
        self.shards = []
        lines = self.journal.read_text().splitlines(keepends=True) if self.journal.exists() else []
        for line in lines:
            shard = json.loads(line) if line.endswith("\n") else {}  # a line that a stop cut short does not count
            path = folder / shard.get("file", "")
            if not path.is_file() or file_hash(path) != shard["sha256"]:
                break
            self.shards.append(shard)
        write_atomic(self.journal, "".join(json.dumps(shard) + "\n" for shard in self.shards))
        self.behind = sum(shard["documents"] for shard in self.shards)

    def add(self, ids: np.ndarray) -> None:
        """Append one document."""
        if self.writer is None:
            path = self.folder / f"{self.prefix}_{len(self.shards):03d}.bin"
            self.writer, self.documents = ShardWriter(path, self.offset, self.vocab_size), 0
        self.writer.add(ids)
        self.documents += 1
        if self.writer.tokens >= self.shard_tokens:
            self.close()

    def close(self) -> None:
        """Complete the shard at hand, if there is one."""
        if self.writer is None:
            return
        path = self.writer.close()
        shard = {"file": path.name, "tokens": self.writer.tokens, "documents": self.documents, "sha256": file_hash(path)}
        self.shards.append(shard)
        with open(self.journal, "a") as file:
            file.write(json.dumps(shard) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.writer = None


def open_shard(path: Path) -> np.ndarray:
    """Map a shard's tokens into memory, read-only: (n,) uint16.

    Raises:
        UserError: the file is missing, is not a shard, or its length is not what its header says.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(HEADER * 4)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; prepare the data again") from None
    header = np.frombuffer(head.ljust(HEADER * 4, b"\0"), dtype="<i4")
    if header[0] != MAGIC or header[1] != VERSION:
        raise UserError(f"{path} is not a token shard: it begins with {header[0]}, {header[1]}, expected {MAGIC}, {VERSION}")
    expected, found = HEADER * 4 + 2 * int(header[2]), path.stat().st_size
    if found != expected:
        raise UserError(
            f"{path} has {found} bytes, expected {expected} for the {header[2]} tokens its header names; prepare the data again"
        )
    return np.memmap(path, dtype="<u2", mode="r", offset=HEADER * 4, shape=(int(header[2]),))


class Stream:
    """The shards of one language and split, read as one long sequence of token ids."""

    def __init__(self, paths: list[Path]):
        self.shards = [open_shard(path) for path in paths]
        self.starts = np.cumsum([0] + [len(shard) for shard in self.shards])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, begin: int, length: int) -> np.ndarray:
        """Tokens [begin, begin + length), across shard borders: (length,) uint16."""
        if not 0 <= begin <= begin + length <= len(self):
            raise IndexError(f"[{begin}, {begin + length}) is not inside a stream of {len(self)} tokens")
        parts = []
        shard = int(np.searchsorted(self.starts, begin, side="right")) - 1
        while length > 0:
            part = self.shards[shard][begin - self.starts[shard] :][:length]
            parts.append(part)
            begin, length, shard = begin + len(part), length - len(part), shard + 1
        return np.concatenate(parts) if parts else np.empty(0, np.uint16)


class Dataset:
    """A prepared folder: what `meta.json` says, and the streams it names.

    Raises:
        UserError: the folder was not prepared, or by a version that wrote another format.
    """

    def __init__(self, folder: Path):
        if folder.name.endswith(UNFINISHED):
            raise UserError(f"{folder} is a preparation that was stopped; its data.py command, given again, completes it")
        self.folder = folder
        self.meta = read_json(folder / "meta.json", "prepared data (python data.py --help)", META_KEYS)
        if self.meta.get("format") != FORMAT:
            raise UserError(
                f"{folder / 'meta.json'} has format {self.meta.get('format')}, expected {FORMAT}; prepare the data again"
            )
        self.languages: dict[str, dict] = self.meta["languages"]
        self.fingerprint: str = self.meta["fingerprint"]

    def stream(self, language: str, split: str) -> Stream:
        """The token stream of a language's "train" or "test" split."""
        return Stream([self.folder / shard["file"] for shard in self.languages[language][split]["shards"]])

    def tokenizer(self, language: str) -> sentencepiece.SentencePieceProcessor:
        """The language's SentencePiece model."""
        return sentencepiece.SentencePieceProcessor(model_file=str(self.folder / self.languages[language]["tokenizer"]["file"]))


def files_of(language: dict) -> list[dict]:
    """The files of a language's entry in meta.json, each with its `file` and `sha256`."""
    return [language["tokenizer"], *language["train"]["shards"], *language["test"]["shards"]]
