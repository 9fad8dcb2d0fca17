"""The tokeniser of a language: SentencePiece BPE, as in the paper, with bytes for what its pieces do not cover."""

import io
import re
from pathlib import Path

import numpy as np
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


def token_bytes(tokenizer: sentencepiece.SentencePieceProcessor, ids: np.ndarray) -> np.ndarray:
    """How many bytes of text each token stands for: (n,) own ids -> (n,) int64; over whole documents they add up to these.

    A byte piece is 1, any other the UTF-8 length of its surface form, where U+2581 is a space. The end of a document and
    other control pieces are 0, as is an unknown piece, whose text is lost. The space that SentencePiece puts in front of
    every document was not in the text and is not counted. `ids` begin with a document.
    """
    forms = [tokenizer.id_to_piece(i) for i in range(tokenizer.vocab_size())]
    no_text = [tokenizer.is_control(i) or tokenizer.is_unknown(i) for i in range(len(forms))]
    sizes = [1 if tokenizer.is_byte(i) else len(form.replace("\u2581", " ").encode()) for i, form in enumerate(forms)]
    sizes = np.where(no_text, 0, sizes)[ids]
    added = np.array([form.startswith("\u2581") for form in forms])[ids]
    # A tokeniser that was trained elsewhere may put none: how it encodes a letter tells.
    if not tokenizer.encode("a", out_type=str)[0].startswith("\u2581"):
        added[:] = False
    added[1:] &= ids[:-1] == tokenizer.eos_id()
    return sizes - added


def document_of(ids: np.ndarray, end_of_document: int) -> np.ndarray:
    """The number of the document each token is in, counted from 0; the piece that ends one is its last: (n,) -> (n,)."""
    return np.cumsum(ids == end_of_document) - (ids == end_of_document)


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
