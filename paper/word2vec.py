"""The control of the paper's Figure 6: gensim's skip-gram on the very sequences that a run was trained on.

    python -m paper.word2vec out/table1/50-50    # "word2vec" in result.json, beside align.py's "embeddings"

Word2vec sees which words occur together and nothing else. Where it does not bring clones together, more is at
work in a language model that does.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from align import measure_embeddings, store
from common import Parser, UserError, read_json, run_script
from data import Mixture, build_mixture
from evaluate import Run, load_run


class Sentences:
    """The sequences of a run as lists of joint ids in letters: gensim takes words, several times."""

    def __init__(self, mixture: Mixture):
        self.mixture = mixture

    def __iter__(self) -> Iterator[list[str]]:
        for number in range(self.mixture.total):
            tokens, *_ = self.mixture.batch(np.array([number]))
            yield [str(token) for token in tokens[0, :-1].tolist()]


def skip_gram(run: Run) -> dict[str, torch.Tensor]:
    """Input and output vectors, (vocabulary, width) each; what never occurred has zeros."""
    from gensim.models import Word2Vec

    shape = run.model.token_embedding.weight.shape
    learned = Word2Vec(
        Sentences(build_mixture(run.dataset, run.config)),
        sg=1,
        negative=20,
        min_count=1,
        epochs=5,
        vector_size=shape[1],
        workers=torch.get_num_threads(),  # with more than one, results vary from time to time, seed or not
        seed=run.config["seed"],
    )
    ids = [int(word) for word in learned.wv.index_to_key]
    vectors = {"input": torch.zeros(shape), "output": torch.zeros(shape)}
    vectors["input"][ids] = torch.from_numpy(learned.wv.vectors)
    vectors["output"][ids] = torch.from_numpy(learned.syn1neg)
    return vectors


def main(arguments: list[str] | None = None) -> None:
    """Train skip-gram on the sequences of each run that does not have it yet."""
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="out/NAME", help="folders of finished runs")
    for out in parser.parse_args(arguments).runs:
        if "word2vec" in read_json(out / "result.json").get("alignment", {}):
            print(f"{out} has its word2vec")
            continue
        run = load_run(out, torch.device("cpu"))
        try:
            vectors = skip_gram(run)
        except ImportError:
            raise UserError("word2vec needs gensim: pip install -r requirements-extra.txt") from None
        store(out, "word2vec", measure_embeddings(run, vectors))


if __name__ == "__main__":
    run_script(main)
