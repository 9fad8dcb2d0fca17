"""The paper's control for embeddings: gensim's skip-gram on the very sequences that a run was trained on (its figure 6).

Word2vec sees which words occur together and nothing else. Where it does not bring clones together, more is at work in a
language model that does. gensim is an optional extra (requirements-extra.txt).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from common import Progress, UserError
from mixture import Mixture
from workers import cpu_cores

NEGATIVES = 20
EPOCHS = 5
CHUNK = 256  # sequences that are read at a time


class Vectors(NamedTuple):
    """What was learned: `input` and `output`, (J, width) float32, zeros where `known`, (J,) bool, is not set."""

    input: np.ndarray
    output: np.ndarray
    known: np.ndarray


class Sentences:
    """The sequences of a run, once through at each iteration, as lists of joint ids in letters: gensim takes words."""

    def __init__(self, mixture: Mixture, label: str):
        self.mixture, self.epoch = mixture, -1  # the first time through is the one that counts words
        self.progress = Progress(label, (EPOCHS + 1) * mixture.total, "sequences")

    def __iter__(self) -> Iterator[list[str]]:
        self.epoch += 1
        for begin in range(0, self.mixture.total, CHUNK):
            ids, _ = self.mixture.batch(np.arange(begin, min(begin + CHUNK, self.mixture.total)))
            self.progress.update(self.epoch * self.mixture.total + begin)
            yield from (list(map(str, row)) for row in ids[:, :-1].tolist())


def skip_gram(mixture: Mixture, vocabulary: int, width: int, seed: int, label: str) -> Vectors:
    """Skip-gram with 20 negatives; window and the rest are gensim's defaults, but no word is too rare.

    Args:
        vocabulary: J, number of joint ids.
        width: of the vectors.
        seed: of gensim; with more than one core its results vary all the same.

    Raises:
        UserError: gensim is not installed.
    """
    try:
        from gensim.models import Word2Vec
    except ImportError:
        raise UserError("--word2vec needs gensim, which is not installed: pip install -r requirements-extra.txt") from None
    sentences = Sentences(mixture, label)
    model = Word2Vec(
        sentences, sg=1, negative=NEGATIVES, vector_size=width, min_count=1, epochs=EPOCHS, workers=cpu_cores(), seed=seed
    )
    sentences.progress.close((EPOCHS + 1) * mixture.total)
    ids = np.array([int(word) for word in model.wv.index_to_key])
    result = Vectors(
        np.zeros((vocabulary, width), np.float32), np.zeros((vocabulary, width), np.float32), np.zeros(vocabulary, bool)
    )
    result.input[ids], result.output[ids], result.known[ids] = model.wv.vectors, model.syn1neg, True
    return result
