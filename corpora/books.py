"""books: English and French books from the Hugging Face hub, for the paper's scale.

Needs the package `datasets`: pip install -r requirements-extra.txt

The French text is not pinned to a commit, for none is known: it is the newest of its branch, so another day
may give another text. Two preparations read the same text if data/NAME/meta.json has the same "digest" of it,
a SHA-256 of its name and content. If you know a commit, write it into BOOKS.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common import Progress, UserError, count

BOOKS = {  # data set, revision, column of the text, about how many bytes a token has (16,384 pieces)
    "en": ("emozilla/pg19", "c021754c8e01c5b1cc83a1f549c1f97fbbb756b8", "text", 4.3),
    "fr": ("PleIAs/French-PD-Books", "main", "complete_text", 4.5),
}


def fetch(folder: Path, max_tokens: float) -> dict[str, Path]:
    """A .jsonl for each language, of about `max_tokens` or of all books; it appears only when complete."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {name: folder / f"books-{name}-{max_tokens:.0f}.jsonl" for name in BOOKS}
    for name, (dataset, revision, column, bytes_per_token) in BOOKS.items():
        if revision == "main":
            print(f"note: {dataset} is not pinned to a commit; the digest in meta.json tells texts apart")
        if texts[name].exists():
            continue
        done, enough = 0, max_tokens * bytes_per_token
        progress = Progress(f"downloading {dataset}", enough / 1e6, "MB")
        with tempfile.TemporaryDirectory(dir=folder) as working:
            unfinished = Path(working) / "books.jsonl"
            with open(unfinished, "w", encoding="utf-8") as file:
                for book in read_rows(dataset, revision, column):
                    text = book.encode("utf-8", "replace")  # some have lone surrogates
                    file.write(json.dumps({"text": text.decode()}, ensure_ascii=False) + "\n")
                    done += len(text)
                    progress.update(done / 1e6)
                    if done >= enough:
                        break
                else:
                    print(f"{dataset} has no more than {count(done / bytes_per_token)} tokens, about")
            unfinished.rename(texts[name])
    return texts


def read_rows(dataset: str, revision: str, column: str) -> Iterator[str]:
    """The texts of a data set as they come over the network."""
    try:
        import datasets

        for row in datasets.load_dataset(dataset, revision=revision, split="train", streaming=True):
            if row[column]:
                yield row[column]
    except ImportError:
        raise UserError("books need the package datasets: pip install -r requirements-extra.txt") from None
    except Exception as error:  # whatever the hub's client, its network and its file formats may raise
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{dataset} on the Hugging Face hub: {type(error).__name__}: {reason}") from None
