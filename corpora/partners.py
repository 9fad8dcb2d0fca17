"""partners: texts that lie between English and noise, to ask what a rare language takes from a partner.

    python -m corpora.partners      # data/downloads/partners/NAME.jsonl, from data/downloads/pydocs.jsonl

Each keeps something of English docstrings and loses the rest. A document keeps its name and its length, so
that data.py holds out the same documents of every partner.
"""

import json
import random
import re
import string
from collections import defaultdict
from pathlib import Path

from common import Parser, UserError, run_script, write
from text import documents, held_out

PYDOCS = Path("data/downloads/pydocs.jsonl")
FOLDER = Path("data/downloads/partners")
RECIPE = {"seed": 0, "test_fraction": 0.01}  # data.py's for pydocs
VISIBLE = string.ascii_letters + string.digits + string.punctuation
BRACKETS = ("()", "[]", "{}", "<>")


def keyed(text: str, draw: random.Random) -> str:
    """The text in a secret code that differs in each document: its letters have to be deciphered anew."""
    code = "".join(draw.sample(VISIBLE, len(VISIBLE)))
    return text.translate(str.maketrans(VISIBLE, code))


def reversed_text(text: str, draw: random.Random) -> str:
    """The text from its last character to its first."""
    return text[::-1]


def shuffled_words(text: str, draw: random.Random) -> str:
    """The words of the text in random order, between its own spaces and line ends."""
    parts = re.split(r"(\s+)", text)
    words = parts[::2]
    draw.shuffle(words)
    parts[::2] = words
    return "".join(parts)


def brackets(text: str, draw: random.Random) -> str:
    """Brackets that close in the right order, with spaces between: a hierarchy without words."""
    written, closing = [], []
    while len(written) < len(text):
        kind = draw.random()
        if kind < 0.15:
            written.append(" ")
        elif kind < 0.575 or not closing:
            pair = draw.choice(BRACKETS)
            written.append(pair[0])
            closing.append(pair[1])
        else:
            written.append(closing.pop())
    return "".join(written)


def chain(texts: list[str], order: int):
    """A partner: a Markov chain, which draws each character given the `order` characters before it."""
    followers = defaultdict(list)
    start = "\n" * order
    whole = start + start.join(texts) + start
    for place in range(order, len(whole)):
        followers[whole[place - order : place]].append(whole[place])

    def drawn(text: str, draw: random.Random) -> str:
        written = list(start)
        while len(written) < order + len(text):
            context = "".join(written[-order:])
            written.append(draw.choice(followers[context]))
        return "".join(written[order:])

    return drawn


def main() -> None:
    """Write every partner, unless all are there."""
    Parser(__doc__).parse_args()
    if (FOLDER / "brackets.jsonl").exists():  # the one that is written last
        return print(f"{FOLDER} is ready")
    if not PYDOCS.exists():
        raise UserError(f"{PYDOCS} is not there; python data.py makes it")
    kept = list(documents(PYDOCS))[::2]  # 10M characters, enough for nine tenths of a run of 10M
    training = [document.text for document in kept if not held_out(document.name, RECIPE)]
    partners = {
        "keyed": keyed,
        "reversed": reversed_text,
        "shuffled": shuffled_words,
        "chain4": chain(training, 4),
        "chain2": chain(training, 2),
        "chain1": chain(training, 1),
        "brackets": brackets,
    }
    for name, partner in partners.items():
        lines = []
        for document in kept:
            draw = random.Random(f"{name}/{document.name}")
            text = partner(document.text, draw)
            lines.append(json.dumps({"name": document.name, "text": text}) + "\n")
        write(FOLDER / f"{name}.jsonl", "".join(lines))
        print(f"{FOLDER}/{name}.jsonl: {partner(kept[0].text, random.Random(name))[:60]!r}", flush=True)


if __name__ == "__main__":
    run_script(main)
