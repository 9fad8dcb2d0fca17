"""Which language is sequence n in, and which window of text does it read? (Sections 3 and 4 of the paper.)

Two ideas answer for every experiment:

* A language is a token stream and a lookup table. The stream holds the tokeniser's ids; `table[id]` is the id in the
  joint vocabulary. Clone i of English reads the English stream through the table id + i * V.
* The mixture is a pure function of (seed, sequence number). Nothing is drawn one after the other, so a run is the same
  on one process or eight, a resumed run continues as if never stopped, and a shorter run at the same seed reads a
  prefix of a longer one. Two runs that differ in their ratio alone read the same windows in the same order: in the
  one with the larger share, a language has all the sequences it has in the other, and more.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from shards import Stream

PAD = 0  # the padding piece of every tokeniser; it is the same id in every language
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FEISTEL_ROUNDS = 4


class Language(NamedTuple):
    """A language of a run: `name` as in results (EN1), `source` as in the prepared folder (en), `table` own id -> joint id."""

    name: str
    source: str
    table: np.ndarray


def cloned_languages(source: str, vocab_size: int, clones: int) -> list[Language]:
    """EN1, EN2, ...: the same text, every piece but padding moved by i * V. One clone alone is plain monolingual text."""
    ids = np.arange(vocab_size, dtype=np.int32)
    tables = [np.where(ids == PAD, PAD, ids + i * vocab_size).astype(np.int32) for i in range(clones)]
    return [Language(f"{source.upper()}{i + 1}", source, table) for i, table in enumerate(tables)]


def joint_vocabulary(languages: list[Language]) -> int:
    """Number of ids in the joint vocabulary."""
    return 1 + max(int(language.table.max()) for language in languages)


def stages_from_ratios(ratios: list[float], clones: int) -> np.ndarray:
    """p(language) in each stage: (stages, clones). The first language has the ratio, the others share the rest equally."""
    return np.array([[ratio] + [(1 - ratio) / (clones - 1)] * (clones - 1) if clones > 1 else [1.0] for ratio in ratios])


def random_bits(numbers: np.ndarray, *key: int) -> np.ndarray:
    """64 random bits for each number under a key of integers: element `number` of a SplitMix64 sequence that the key begins."""
    begin = np.zeros(1, np.uint64)
    for part in key:
        begin = _mix(begin + GOLDEN + np.uint64(part))
    return _mix(begin + GOLDEN * (np.asarray(numbers).astype(np.uint64) + np.uint64(1)))


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permute(numbers: np.ndarray, size: int, *key: int) -> np.ndarray:
    """A random permutation of range(size), evaluated at `numbers` without ever being stored.

    A Feistel network permutes the power of four at or above `size`; an image that falls outside is sent through again
    until it lands inside, which keeps the map one to one.
    """
    half = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    result = np.asarray(numbers).astype(np.uint64)
    outside = np.ones(result.shape, bool)
    while outside.any():
        left, right = result[outside] >> half, result[outside] & mask
        for round_number in range(FEISTEL_ROUNDS):
            left, right = right, left ^ (random_bits(right, *key, round_number) & mask)
        result[outside] = left << half | right
        outside = result >= size
    return result.astype(np.int64)


@dataclass(frozen=True)
class Mixture:
    """The sequences of one run, numbered from 0 to `total` - 1.

    Args:
        stream: the text that all clones share.
        languages: what it can be read as.
        stages: (stages, languages) probabilities; the stages divide the run into equal parts.
        seed: of the order of windows and the choice of languages.
        total: number of sequences in the whole run.
        length: targets in a sequence; a window is one token longer.
    """

    stream: Stream
    languages: list[Language]
    stages: np.ndarray
    seed: int
    total: int
    length: int

    @property
    def windows(self) -> int:
        """Windows in one pass over the stream."""
        return (len(self.stream) - 1) // self.length

    def language(self, numbers: np.ndarray) -> np.ndarray:
        """The language each sequence is in, drawn independently, `L ~ p(L)` of its stage: (n,) -> (n,) indices."""
        stage = np.asarray(numbers) * len(self.stages) // self.total
        uniform = (random_bits(numbers, self.seed, 0) >> np.uint64(11)) * 2.0**-53
        return (uniform[:, None] >= np.cumsum(self.stages, axis=1)[stage, :-1]).sum(axis=1)

    def window(self, numbers: np.ndarray) -> np.ndarray:
        """The window each sequence reads; every window is read once before any is read again: (n,) -> (n,) indices."""
        numbers = np.asarray(numbers)
        epochs = numbers // self.windows
        result = np.empty_like(numbers)
        for epoch in np.unique(epochs):
            inside = epochs == epoch
            result[inside] = permute(numbers[inside] % self.windows, self.windows, self.seed, 1, int(epoch))
        return result

    def batch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The sequences themselves: (n, length + 1) int64 joint ids, and (n,) language indices."""
        chosen = self.language(numbers)
        rows = [
            self.languages[language].table[self.stream.read(window * self.length, self.length + 1)]
            for language, window in zip(chosen, self.window(numbers).tolist(), strict=True)
        ]
        return np.stack(rows).astype(np.int64), chosen

    def tokens_seen(self, sequences: int) -> list[int]:
        """Training tokens of each language in the first `sequences` sequences."""
        chosen = self.language(np.arange(sequences))
        return [self.length * int(n) for n in np.bincount(chosen, minlength=len(self.languages))]
