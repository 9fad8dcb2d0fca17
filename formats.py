"""What a text file can be: how its bytes are opened, and how the bytes of one document become text.

A parent process takes files apart (`lines`, `cells`) without looking into the documents; worker processes turn each
document's bytes into text (`decode`, `json_text`, `tei_text`). Every complaint names the file, and the line inside it.
"""

import gzip
import importlib
import json
import lzma
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

from common import UserError

DECOMPRESSORS = {".gz": gzip.open, ".xz": lzma.open}
PARAGRAPHS = {"p", "l", "head"}  # the TEI elements that are one paragraph each
XML_SPACE = re.compile(r"[ \t\r\n]+")  # not the no-break spaces of French punctuation


def extra(package: str, purpose: str) -> ModuleType:
    """Import an optional package where it is needed.

    Raises:
        UserError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(f"{purpose} needs the package {package}: pip install -r requirements-extra.txt") from None


# --- files ----------------------------------------------------------------------------------------------------------


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn whatever can go wrong while a file is read into one sentence that names it.

    Raises:
        UserError: the file cannot be read, or its compressed content is damaged.
    """
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UserError(f"{path} cannot be decompressed, it is damaged or no {Path(path).suffix} file: {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def read(path: str | Path) -> bytes:
    """The whole content of a file, decompressed if its name says that it is compressed."""
    with reading(path), DECOMPRESSORS.get(Path(path).suffix.lower(), open)(path, "rb") as file:
        return file.read()


def lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(line number, bytes read from the disk since the last one, line) of each line that is not blank.

    One line at a time is held, however large the file, compressed or not, may be.
    """
    with reading(path), open(path, "rb") as raw:
        decompress = DECOMPRESSORS.get(path.suffix.lower())
        read_before = 0
        for number, line in enumerate(decompress(raw, "rb") if decompress else raw, 1):
            if not line.isspace():
                position = raw.tell()
                yield number, position - read_before, line
                read_before = position


def cells(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(row number, its share of the file's bytes, UTF-8 content) of the column `text` of a parquet file, batch by batch.

    Raises:
        UserError: pyarrow is not installed, or the file is no parquet with text in such a column.
    """
    pyarrow, parquet = extra("pyarrow", f"{path.name}"), extra("pyarrow.parquet", f"{path.name}")
    try:
        with reading(path), open(path, "rb") as raw, parquet.ParquetFile(raw) as file:
            if "text" not in file.schema_arrow.names:
                columns = ", ".join(file.schema_arrow.names)
                raise UserError(f"{path} has the columns {columns}, expected one named text")
            size, rows, number = path.stat().st_size, file.metadata.num_rows, 0
            for batch in file.iter_batches(batch_size=64, columns=["text"]):
                for cell in batch.column(0).cast(pyarrow.large_binary()):
                    number += 1
                    if not cell.is_valid:
                        raise UserError(f"{path}:{number} is an empty cell, expected text in every row")
                    yield number, size * number // rows - size * (number - 1) // rows, cell.as_py()
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} cannot be read as parquet with a column of text: {str(error).splitlines()[0]}") from None


# --- documents ------------------------------------------------------------------------------------------------------


def decode(content: bytes, where: str) -> str:
    """UTF-8 to text, without the byte-order mark that some editors put in front.

    Raises:
        UserError: the content is binary, or text in another encoding.
    """
    if (position := content.find(b"\0")) >= 0:
        raise UserError(f"{where} is binary or UTF-16, expected UTF-8 text: byte {position} is NUL")
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8: byte {error.start} cannot be decoded") from None


def json_text(content: bytes, where: str) -> str:
    """The field `text` of a JSON object.

    Raises:
        UserError: the content is no JSON object with a string of that name.
    """
    try:
        record = json.loads(decode(content, where))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise UserError(f"{where} holds a JSON {type(record).__name__}, expected an object with a field text")
    if not isinstance(record.get("text"), str):
        found = f"text is a {type(record['text']).__name__}" if "text" in record else "it has no field text"
        raise UserError(f"{where} is not a document: {found}, expected a string")
    return record["text"]


def tei_text(content: bytes, where: str) -> str:
    """The paragraphs, verse lines and headings in the body of a TEI document, one a line, without its notes.

    A document type declaration is refused: it is where XML hides files to include and entities that grow without end,
    and no TEI edition needs one.

    Raises:
        UserError: the content is not well-formed XML, declares a document type, or has no body.
    """
    text = decode(content, where)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise UserError(f"{where} declares a document type or entities, expected TEI without a <!DOCTYPE>")
    parser = ElementTree.XMLParser(target=TeiBody())
    try:
        parser.feed(text)
        paragraphs = parser.close()
    except ElementTree.ParseError as error:
        raise UserError(f"{where} is not well-formed XML: {error}") from None
    if paragraphs is None:
        raise UserError(f"{where} has no <body>, expected a TEI document")
    return "\n".join(paragraphs)


class TeiBody:
    """What an XML parser reports to: collects a line for each paragraph; `close` gives them, or None without a body.

    An element inside another (verse in a paragraph) ends the outer one's line and begins its own.
    """

    def __init__(self):
        self.open: Counter = Counter()
        self.has_body = False
        self.pieces: list[str] = []
        self.paragraphs: list[str] = []

    def start(self, tag: str, attributes: dict) -> None:
        """An element begins; its namespace does not matter."""
        name = tag.rpartition("}")[2]
        self.has_body |= name == "body"
        self.break_line(name)
        self.open[name] += 1

    def end(self, tag: str) -> None:
        """An element ends."""
        name = tag.rpartition("}")[2]
        self.break_line(name)
        self.open[name] -= 1

    def data(self, text: str) -> None:
        """Text, perhaps a part of it only."""
        if self.open["body"] and not self.open["note"] and any(self.open[name] for name in PARAGRAPHS):
            self.pieces.append(text)

    def break_line(self, name: str) -> None:
        """Close the line that is being collected where a paragraph begins or ends, but not one inside a note."""
        if name in PARAGRAPHS and not self.open["note"]:
            line = XML_SPACE.sub(" ", "".join(self.pieces)).strip(" ")
            self.pieces.clear()
            if line:
                self.paragraphs.append(line)

    def close(self) -> list[str] | None:
        """The paragraphs in the order of the document."""
        return self.paragraphs if self.has_body else None
