"""The control of the paper's Figure 6: gensim's skip-gram on the very sequences that a run was trained on.

    python -m paper.word2vec out/table1/50-50    # "word2vec" in result.json, beside align.py's "embeddings"

Word2vec sees which words occur together and nothing else. Where it does not bring clones together, more is at
work in a language model that does.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from align import measure_embeddings
from common import Parser, UserError, read_json, run_script, write
from data import Mixture, build_mixture
from evaluate import Run, load_run


class Sentences:
    """The sequences of a run as lists of joint ids in letters: gensim takes words, several times."""

    def __init__(self, mixture: Mixture):
        self.mixture = mixture

    def __iter__(self) -> Iterator[list[str]]:
        for number in range(self.mixture.total):
            yield list(map(str, self.mixture.batch(np.array([number]))[0][0, :-1].tolist()))


def skip_gram(run: Run) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """(J, width) input and output vectors, and (J,) which ids occurred."""
    from gensim.models import Word2Vec

    sentences = Sentences(build_mixture(run.dataset, run.config))
    shape, seed = run.model.token_embedding.weight.shape, run.config["seed"]
    settings = {"sg": 1, "negative": 20, "min_count": 1, "epochs": 5, "vector_size": shape[1]}
    # With more than one thread gensim's results vary from time to time, seed or not.
    learned = Word2Vec(sentences, **settings, workers=torch.get_num_threads(), seed=seed)
    ids = np.array([int(word) for word in learned.wv.index_to_key])
    vectors, known = {name: torch.zeros(shape) for name in ("input", "output")}, np.zeros(shape[0], bool)
    known[ids] = True
    vectors["input"][ids] = torch.from_numpy(learned.wv.vectors)
    vectors["output"][ids] = torch.from_numpy(learned.syn1neg)
    return vectors, known


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
            vectors, known = skip_gram(run)
        except ImportError:
            raise UserError("word2vec needs gensim: pip install -r requirements-extra.txt") from None
        found = measure_embeddings(run.dataset, run.languages, vectors, known)
        result = read_json(out / "result.json")
        write(out / "result.json", result | {"alignment": result.get("alignment", {}) | {"word2vec": found}})


if __name__ == "__main__":
    run_script(main)
