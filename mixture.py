"""Which language is sequence n in, and which window of text does it read? (Sections 3 and 4 of the paper.)

Two ideas answer for every experiment:

* A language is a token stream and a lookup table (`languages.py`). The stream holds the tokeniser's ids; `table[id]` is
  the id in the joint vocabulary. Clones of a language read one stream: sequence n has the same text whatever clone it is
  in. Real languages each read their own, from its beginning to its end before any of it is read again.
* The mixture is a pure function of (seed, sequence number). Nothing is drawn one after the other, so a run is the same
  on one process or eight, a resumed run continues as if never stopped, and a shorter run of one stage reads a prefix of
  a longer one at the same seed. Two runs of clones that differ in their ratio alone read the same windows in the same
  order: in the one with the larger share, a language has all the sequences it has in the other, and more.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from languages import Language
from shards import Stream
from shuffle import permute, random_bits

BLOCK = 65_536  # sequences that are counted at a time


def stages_from_ratios(ratios: list[float], languages: int) -> np.ndarray:
    """p(language) in each stage: (stages, languages). The first one has the ratio, the others share the rest equally."""
    if languages == 1:
        return np.ones((len(ratios), 1))
    # Rounded, so that 0.9 leaves 0.1, as somebody would write it, and not 0.09999999999999998.
    return np.array([[ratio] + [round((1 - ratio) / (languages - 1), 12)] * (languages - 1) for ratio in ratios])


@dataclass(frozen=True)
class Mixture:
    """The sequences of one run, numbered from 0 to `total` - 1.

    Args:
        streams: the texts by source. A text's place among them is part of the key of its shuffle: it is read in the same order
            in every run that is given the same streams, whichever of them the run's languages use.
        languages: what the texts are read as.
        stages: (stages, languages) probabilities; the stages divide the run into equal parts.
        seed: of the order of windows and the choice of languages.
        total: number of sequences in the whole run.
        length: targets in a sequence; a window is one token longer.
    """

    streams: dict[str, Stream]
    languages: list[Language]
    stages: np.ndarray
    seed: int
    total: int
    length: int

    @property
    def windows(self) -> dict[str, int]:
        """Windows in one pass over each source's stream."""
        return {source: (len(stream) - 1) // self.length for source, stream in self.streams.items()}

    def language(self, numbers: np.ndarray) -> np.ndarray:
        """The language each sequence is in, drawn independently, `L ~ p(L)` of its stage: (n,) -> (n,) indices."""
        stage = np.asarray(numbers) * len(self.stages) // self.total
        uniform = (random_bits(numbers, self.seed, 0) >> np.uint64(11)) * 2.0**-53
        borders = np.cumsum(self.stages, axis=1)
        # Shares that add up to 1 but for rounding must not leave the rest to a last language whose share is 0.
        borders /= borders[:, -1:]
        return (uniform[:, None] >= borders[stage, :-1]).sum(axis=1)

    @cached_property
    def counts(self) -> "Counts":
        """How often each language occurs before a sequence; remembers what it has counted."""
        return Counts(self)

    def window(self, numbers: np.ndarray) -> np.ndarray:
        """The window of its source each sequence reads: (n,) -> (n,) indices.

        The k-th sequence of a source reads the k-th window of an order that is shuffled anew for each pass, so every window is
        read once before any is read again. Sequences of one source only are their own k.
        """
        numbers = np.asarray(numbers)
        texts = {source: i for i, source in enumerate(self.streams)}
        used = {language.source for language in self.languages}
        places = np.array([texts[language.source] for language in self.languages])[self.language(numbers)]
        ranks = numbers if len(used) == 1 else self.counts.ranks(numbers)
        result = np.empty_like(numbers)
        for source in used:
            windows, place = self.windows[source], texts[source]
            epochs = np.where(places == place, ranks // windows, -1)
            for epoch in np.unique(epochs[epochs >= 0]):
                inside = epochs == epoch
                key = (self.seed, 1, int(epoch), place) if place else (self.seed, 1, int(epoch))
                result[inside] = permute(ranks[inside] % windows, windows, *key)
        return result

    def batch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The sequences themselves: (n, length + 1) int64 joint ids, and (n,) language indices."""
        chosen = self.language(numbers)
        rows = []
        for position, window in zip(chosen, self.window(numbers).tolist(), strict=True):
            _, source, table = self.languages[position]
            rows.append(table[self.streams[source].read(window * self.length, self.length + 1)])
        return np.stack(rows).astype(np.int64), chosen

    def tokens_seen(self, sequences: int) -> list[int]:
        """Training tokens of each language in the first `sequences` sequences."""
        return (self.length * self.counts.before(sequences)).tolist()

    def passes(self) -> dict[str, float]:
        """How often the whole run reads each source's text: above 1, it is repeated."""
        read: dict[str, int] = {}
        for language, sequences in zip(self.languages, self.counts.before(self.total).tolist(), strict=True):
            read[language.source] = read.get(language.source, 0) + sequences
        return {source: sequences / self.windows[source] for source, sequences in read.items()}


class Counts:
    """How many sequences of a mixture come before one, by language or of its own source.

    Whole blocks of sequences are counted once and remembered as a few numbers each; what lies within a block is found by
    drawing its languages again. The last block's ranks are kept, because training asks for one batch after the other.
    """

    def __init__(self, mixture: Mixture):
        self.mixture = mixture
        sources = [language.source for language in mixture.languages]
        self.first = np.array([sources.index(source) for source in sources])  # one language stands for its source
        self.blocks = [np.zeros(len(sources), np.int64)]  # before each block, by language
        self.kept, self.kept_ranks = -1, np.empty(0, np.int64)

    def before(self, number: int) -> np.ndarray:
        """Sequences of each language among the first `number`: (languages,)."""
        begin = number // BLOCK * BLOCK
        while len(self.blocks) <= number // BLOCK:
            last = (len(self.blocks) - 1) * BLOCK
            self.blocks.append(self.blocks[-1] + self._occurrences(last, last + BLOCK))
        return self.blocks[number // BLOCK] + self._occurrences(begin, number)

    def ranks(self, numbers: np.ndarray) -> np.ndarray:
        """For each sequence, how many earlier ones have its source: (n,) -> (n,)."""
        result, blocks = np.empty_like(numbers), numbers // BLOCK
        for block in np.unique(blocks).tolist():
            if block != self.kept:
                self.kept_ranks, self.kept = self._block_ranks(block), block
            inside = blocks == block
            result[inside] = self.kept_ranks[numbers[inside] % BLOCK]
        return result

    def _occurrences(self, begin: int, end: int) -> np.ndarray:
        return np.bincount(self.mixture.language(np.arange(begin, end)), minlength=len(self.first))

    def _block_ranks(self, block: int) -> np.ndarray:
        begin = block * BLOCK
        sources = self.first[self.mixture.language(np.arange(begin, min(begin + BLOCK, self.mixture.total)))]
        before = np.bincount(self.first, self.before(begin), len(self.first)).astype(np.int64)
        ranks = np.empty(len(sources), np.int64)
        for source in np.unique(self.first):
            inside = sources == source
            ranks[inside] = before[source] + np.arange(inside.sum())
        return ranks
