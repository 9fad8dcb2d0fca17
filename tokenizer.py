"""The tokeniser of a language: SentencePiece BPE, as in the paper, with bytes for what its pieces do not cover."""

import io
import re
from pathlib import Path

import sentencepiece

from common import UserError

PAD, UNKNOWN, END_OF_DOCUMENT = 0, 1, 2  # the first pieces of every tokeniser trained here; 0 is padding in every language
PART = 50_000  # characters that are encoded at a time
# U+2581 is how SentencePiece writes a space: next to one, a piece of several spaces could reach across the cut.
SPACE_BETWEEN_WORDS = re.compile("(?<=[^\\s\u2581]) (?=[^\\s\u2581])")


def train_tokenizer(sample: Path, vocab_size: int) -> bytes:
    """A SentencePiece BPE model that no text is unknown to and that gives every text back to the letter.

    `sample` is a text file; each of its lines counts as a sentence.

    Raises:
        UserError: the text is too small for so many pieces.
    """
    model = io.BytesIO()
    try:
        with open(sample, encoding="utf-8") as lines:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=(line.rstrip("\n") for line in lines),
                model_writer=model,
                model_type="bpe",
                vocab_size=vocab_size,
                pad_id=PAD, unk_id=UNKNOWN, eos_id=END_OF_DOCUMENT, bos_id=-1, eos_piece="<eod>",
                byte_fallback=True,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                allow_whitespace_only_pieces=True,
                max_sentence_length=1 << 20,
                num_threads=16,  # whatever the machine has: the model file names it, and must not depend on the machine
                minloglevel=2,
            )  # fmt: skip
    except RuntimeError as error:
        raise UserError(f"--vocab-size {vocab_size} does not fit this text: {str(error).rpartition(') ')[2]}") from None
    return model.getvalue()


def encode_document(tokenizer: sentencepiece.SentencePieceProcessor, text: str) -> list[int]:
    """The ids of a text, as encoding it at once would give them, in memory that does not grow with it.

    SentencePiece needs some hundred bytes for each character that it is given. No piece reaches across a space between
    words, and a text is encoded as if a space stood before it: cut at such a space, without it, the parts give what the
    whole would.
    """
    parts, begin = [], 0
    while len(text) - begin > PART and (space := SPACE_BETWEEN_WORDS.search(text, begin + PART)):
        parts.append(text[begin : space.start()])
        begin = space.end()
    return [token for part in tokenizer.encode([*parts, text[begin:]], num_threads=1) for token in part]


def reuse_tokenizer(path: Path) -> bytes:
    """Read a SentencePiece model that was trained elsewhere.

    Raises:
        UserError: it is missing or no such model, or lacks what this project relies on.
    """
    try:
        model = path.read_bytes()
    except OSError as error:
        raise UserError(f"--tokenizer {path}: {error.strerror}") from None
    try:
        tokenizer = sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError:
        raise UserError(f"--tokenizer {path} is not a SentencePiece model") from None
    if tokenizer.pad_id() != PAD:
        raise UserError(f"--tokenizer {path} has padding at {tokenizer.pad_id()}, expected at {PAD}: train it with pad_id={PAD}")
    if tokenizer.eos_id() < 0:
        raise UserError(f"--tokenizer {path} has no end-of-sentence piece, expected one to close documents with")
    if tokenizer.vocab_size() > 65536:
        raise UserError(f"--tokenizer {path} has {tokenizer.vocab_size()} pieces, expected 65536 at most: shards hold 16 bits")
    return model
