"""The texts on which `align.py` compares languages: held-out text for clones, parallel text for real languages."""

from pathlib import Path

import numpy as np

from activations import Sides
from common import UserError
from evaluate import Run
from languages import Language, open_tokenizer
from parallel import pack, read_parallel

SHORTEST_SENTENCE, LONGEST_SENTENCE = 5, 24  # tokens of the pair that is drawn, unless its line is chosen


def are_clones(languages: list[Language]) -> bool:
    """Whether all read one text."""
    return len({language.source for language in languages}) == 1


def chosen_languages(run: Run, names: list[str] | None) -> list[Language]:
    """The run's languages, or those of them that are named, in the run's order.

    Raises:
        UserError: the run lacks one.
    """
    known = [language.name for language in run.languages]
    for name in names or []:
        if name not in known:
            raise UserError(f"--languages {name}: {run.out} does not have it, expected some of {' '.join(known)}")
    return [language for language in run.languages if names is None or language.name in names]


def clone_texts(run: Run, languages: list[Language], most: int) -> list[Sides]:
    """At most `most` sequences of the test text, evenly spread over it, in each clone.

    Raises:
        UserError: it is shorter than one sequence.
    """
    stream, length = run.dataset.stream(languages[0].source, "test"), run.model.length
    windows = (len(stream) - 1) // length
    if windows < 1:
        raise UserError(
            f"{run.dataset.folder}: the test text has {len(stream)} tokens, expected more than one sequence of {length}"
        )
    if windows < most:
        print(f"{run.out.name}: the test text has {windows} sequences of {length} tokens, all are used (--sequences {most})")
    begins = np.arange(min(most, windows)) * windows // min(most, windows) * length
    parts = [stream.read(begin, length + 1) for begin in begins.tolist()]
    return [[language.table[ids] for language in languages] for ids in parts]


def parallel_paths(run: Run, languages: list[Language], paths: dict[str, Path] | None) -> dict[str, Path]:
    """The files of --parallel in the order of the run's languages.

    Raises:
        UserError: they are missing, or are not those of these languages.
    """
    sources = [language.source for language in languages]
    wanted = " ".join(f"{source}=FILE" for source in sources)
    if paths is None:
        names = " and ".join(language.name for language in languages)
        raise UserError(f"{run.out} has {names}, which share no text: expected aligned lines, --parallel {wanted}")
    if set(paths) != set(sources):
        raise UserError(f"--parallel names {' and '.join(paths)}, but {run.out} expects {wanted}")
    return {source: paths[source] for source in sources}


def parallel_texts(run: Run, languages: list[Language], paths: dict[str, Path], most: int) -> list[Sides]:
    """At most `most` texts of aligned lines, as long as fit into a sequence, in each language.

    Raises:
        UserError: the files cannot be read, are not aligned, or are too short for one text.
    """
    tokenizers, length = [open_tokenizer(run.dataset, language.source) for language in languages], run.model.length
    lines = ([tokenizer.encode(line) for tokenizer, line in zip(tokenizers, pair, strict=True)] for pair in read_parallel(paths))
    packed = pack(lines, length, shortest=length // 4, most=most)  # the paper's 512 and 128
    if not packed.pairs:
        raise UserError(f"{' and '.join(map(str, paths.values()))} give no text of {length // 4} to {length} tokens a side")
    if len(packed.pairs) < most:
        print(f"{run.out.name}: the parallel text gives {len(packed.pairs)} texts, all are used (--sequences {most})")
    return [[language.table[ids] for language, ids in zip(languages, pair, strict=True)] for pair in packed.pairs]


def sentence_pair(
    run: Run, languages: list[Language], paths: dict[str, Path] | None, line: int | None
) -> list[np.ndarray] | None:
    """Own ids of one sentence in the first two languages: of line `line`, or of the first line of a size that can be drawn.

    Clones take the beginning of the test text, or of its sequence number `line`.

    Raises:
        UserError: there is no such line.
    """
    if paths is None:
        stream = run.dataset.stream(languages[0].source, "test")
        begin = ((line or 1) - 1) * run.model.length
        if begin >= len(stream) - 1:
            raise UserError(f"--line {line}: the test text has {-(-len(stream) // run.model.length)} sequences")
        return [stream.read(begin, min(LONGEST_SENTENCE, len(stream) - begin, run.model.length))] * 2
    tokenizers = [open_tokenizer(run.dataset, language.source) for language in languages[:2]]
    number = 0
    for number, pair in enumerate(read_parallel(paths), 1):
        if line in {None, number}:
            ids = [
                np.array(tokenizer.encode(text)[: run.model.length]) for tokenizer, text in zip(tokenizers, pair, strict=False)
            ]
            if line or (min(map(len, ids)) >= SHORTEST_SENTENCE and max(map(len, ids)) <= LONGEST_SENTENCE):
                return ids
    if line:
        raise UserError(f"--line {line}: {' and '.join(map(str, paths.values()))} have {number} lines with text")
    print(f"{run.out.name}: no line of {SHORTEST_SENTENCE} to {LONGEST_SENTENCE} tokens is there to draw; --line N chooses one")
    return None
