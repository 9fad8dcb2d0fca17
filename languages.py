"""What a language of a run is: a stream of text, and a table from its tokeniser's ids to those of the joint vocabulary.

All settings of the paper are tables (its sections 3 and 5): clones, partial clones, disjoint and anchored languages.
Nothing after the lookup knows which of them it is in. A table is (V,) int32, where V is the number of the language's
pieces; joint ids are wider than those of the shards, since ten clones of 16,384 pieces pass 65,535. Padding, id 0,
is 0 in every language.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import sentencepiece

from common import UserError
from shards import Dataset
from shuffle import permute
from tokenizer import PAD

ANCHORS = 2  # sets the shuffle that chooses anchors apart from those that the mixture draws under the same seed


class Language(NamedTuple):
    """A language of a run: `name` as in results (EN1), `source` as in the prepared folder (en), `table` own id -> joint id."""

    name: str
    source: str
    table: np.ndarray


def cloned_languages(source: str, vocab_size: int, clones: int, anchors: float = 0.0, seed: int = 0) -> list[Language]:
    """EN1, EN2, ...: the same text, every piece but padding moved by i * V. One clone alone is plain monolingual text.

    With `anchors` above 0 they are partial clones (the paper's figure 8): round(anchors * (V - 1)) random pieces keep the
    first clone's id in all of them. The joint ids that these pieces leave stay unused, so that clones of a piece still
    differ by multiples of V. At the same seed, a smaller share of anchors is a part of a larger one.
    """
    ids = np.arange(vocab_size, dtype=np.int32)
    rank = permute(np.arange(vocab_size - 1), vocab_size - 1, seed, ANCHORS)
    shared = np.append(True, rank < round(anchors * (vocab_size - 1)))  # padding is, always
    tables = [np.where(shared, ids, ids + i * vocab_size).astype(np.int32) for i in range(clones)]
    return [Language(f"{source.upper()}{i + 1}", source, table) for i, table in enumerate(tables)]


def disjoint_languages(vocab_sizes: Mapping[str, int]) -> list[Language]:
    """EN, FR, ...: each language's pieces follow after all pieces of those before it; only padding is shared."""
    languages, offset = [], 0
    for source, vocab_size in vocab_sizes.items():
        table = np.arange(offset, offset + vocab_size, dtype=np.int32)
        table[PAD] = PAD
        languages.append(Language(source.upper(), source, table))
        offset += vocab_size
    return languages


def anchored_languages(pieces: Mapping[str, Sequence[str]]) -> list[Language]:
    """EN, FR, ...: a piece has the id that its surface form got in the first language that has it.

    New forms of each language follow after all ids given before, without gaps. Control and byte pieces are forms like any
    other: the end of a document is the same id everywhere. `pieces` holds each language's surface forms in the order of its ids.
    """
    joint: dict[str, int] = {}
    return [
        Language(
            source.upper(), source, np.array([PAD, *(joint.setdefault(form, 1 + len(joint)) for form in forms[1:])], np.int32)
        )
        for source, forms in pieces.items()
    ]


def open_tokenizer(dataset: Dataset, source: str) -> sentencepiece.SentencePieceProcessor:
    """A language's tokeniser.

    Raises:
        UserError: the SentencePiece model is missing or damaged.
    """
    try:
        return dataset.tokenizer(source)
    except (OSError, RuntimeError):
        file = dataset.folder / dataset.languages[source]["tokenizer"]["file"]
        raise UserError(f"{file} cannot be read, expected a SentencePiece model; prepare the data again") from None


def surface_forms(dataset: Dataset, source: str) -> list[str]:
    """The pieces of a language's tokeniser, in the order of their ids."""
    tokenizer = open_tokenizer(dataset, source)
    return [tokenizer.id_to_piece(i) for i in range(tokenizer.vocab_size())]


def shared_pieces(dataset: Dataset) -> dict[tuple[str, str], int]:
    """How many surface forms, padding aside, each pair of languages of a prepared folder has in common."""
    forms = {source: set(surface_forms(dataset, source)[1:]) for source in dataset.languages}
    return {(one, other): len(forms[one] & forms[other]) for one, other in combinations(forms, 2)}


def build_languages(dataset: Dataset, config: dict) -> list[Language]:
    """The languages of the run that `config` describes, in the order of its shares."""
    sources = config["sources"]
    sizes = {source: dataset.languages[source]["vocab_size"] for source in sources}
    settings = {
        "monolingual": lambda: cloned_languages(sources[0], sizes[sources[0]], 1),
        "cloned": lambda: cloned_languages(sources[0], sizes[sources[0]], len(sources), config["anchors"], config["seed"]),
        "disjoint": lambda: disjoint_languages(sizes),
        "anchored": lambda: anchored_languages({source: surface_forms(dataset, source) for source in sources}),
    }
    return settings[config["vocab"]]()


def joint_vocabulary(languages: list[Language]) -> int:
    """Number of ids in the joint vocabulary."""
    return 1 + max(int(language.table.max()) for language in languages)
