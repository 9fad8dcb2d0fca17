"""eltec: English and French novels of 1840 to 1920 from the European Literary Text Collection (CC BY 4.0).

The TEI is turned into plain text: a file for each novel, a line for each paragraph, verse or heading.
"""

import os
import re
import subprocess
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from common import UserError

# A commit's id is a hash over everything in it, and git checks what it receives: no other checksum is needed.
NOVELS = {
    "en": ("https://github.com/COST-ELTeC/ELTeC-eng", "4a7d956d0c1acd74ea10b520c1935716fe7760fa"),
    "fr": ("https://github.com/COST-ELTeC/ELTeC-fra", "0a0801907abc527b89819f748c35221e86b0ae46"),
}
LINES = {"p", "l", "head"}  # the TEI elements that become a line each


def fetch(folder: Path, max_tokens: float) -> dict[str, Path]:
    """A folder of .txt files for each language; it appears only when complete."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {name: folder / f"eltec-{name}-{commit[:12]}" for name, (_, commit) in NOVELS.items()}
    for name, (url, commit) in NOVELS.items():
        if texts[name].exists():
            continue
        print(f"fetching {url} at {commit[:12]}", flush=True)
        with tempfile.TemporaryDirectory(dir=folder) as working:
            git(working, "init", "--quiet")
            git(working, "fetch", "--quiet", "--depth", "1", url, commit)
            git(working, "checkout", "--quiet", commit, "--", "level1")
            plain = Path(working) / "plain"
            plain.mkdir()
            for novel in Path(working).glob("level1/*.xml"):
                (plain / f"{novel.stem}.txt").write_text(tei_text(novel.read_bytes()), encoding="utf-8")
            plain.rename(texts[name])
    return texts


def git(folder: str, *arguments: str) -> None:
    """Run a git command in `folder`; it never asks for a password."""
    environment = os.environ | {"GIT_TERMINAL_PROMPT": "0"}
    command = ["git", "-C", folder, *arguments]
    try:
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().rpartition("\n")[2]
        raise UserError(f"git: {reason}; without novels, data.py --text takes texts of your own") from None


def tei_text(content: bytes) -> str:
    """Paragraphs, verse lines and headings in the body of a TEI document, one a line, without its notes."""
    lines = [""]

    def read(element: ElementTree.Element, wanted: bool) -> None:
        name = element.tag.rpartition("}")[2]  # whatever the namespace
        if name == "note":
            return
        if name in LINES:
            wanted = True
            lines.append("")  # also inside another: verse that a paragraph quotes begins lines of its own
        lines[-1] += (element.text or "") * wanted
        for child in element:
            read(child, wanted)
            lines[-1] += (child.tail or "") * wanted
        if name in LINES:
            lines.append("")

    read(ElementTree.fromstring(content).find(".//{*}body"), wanted=False)
    # Spaces of XML only: the no-break spaces of French punctuation stay.
    lines = [re.sub(r"[ \t\r\n]+", " ", line).strip(" ") for line in lines]
    return "\n".join(line for line in lines if line)
