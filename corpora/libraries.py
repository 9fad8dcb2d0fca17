"""libraries: a task that a small model can learn. Which of four libraries is a docstring from?

    python -m corpora.libraries     # data/downloads/tasks/libraries/{train,val}.jsonl, from pydocs.jsonl

It is laid out as a task of GLUE: paper/glue.py teaches it in EN1 and scores it in every clone. No source file
has passages on both sides. All libraries have the same number of passages, so guessing scores a quarter.
"""

import json
import random
from collections import defaultdict
from pathlib import Path

from common import Parser, UserError, run_script, write
from text import documents, held_out

PYDOCS = Path("data/downloads/pydocs.jsonl")
FOLDER = Path("data/downloads/tasks/libraries")
LIBRARIES = ("torch", "numpy", "scipy", "sympy")
LENGTH = 120  # characters of a passage
PASSAGES = {"train": 2000, "val": 250}  # of each library
SPLIT = {"seed": 0, "test_fraction": 0.15}


def main() -> None:
    """Write the passages of both sides."""
    Parser(__doc__).parse_args()
    if not PYDOCS.exists():
        raise UserError(f"{PYDOCS} is not there; python data.py makes it")
    passages = defaultdict(list)
    for document in documents(PYDOCS):
        library = document.name.split("/")[0]
        side = "val" if held_out(document.name, SPLIT) else "train"
        for docstring in document.text.split("\n\n"):
            if len(docstring) >= LENGTH:
                passages[side, library].append(docstring[:LENGTH])
    draw = random.Random(0)
    for side, many in PASSAGES.items():
        rows = []
        for library in LIBRARIES:
            for text in draw.sample(passages[side, library], many):
                rows.append({"text": text, "library": library})
        draw.shuffle(rows)
        lines = [json.dumps(row) + "\n" for row in rows]
        write(FOLDER / f"{side}.jsonl", "".join(lines))
    print(f"{FOLDER}: {len(LIBRARIES)} libraries, {PASSAGES['train']} passages of each to learn from")


if __name__ == "__main__":
    run_script(main)
