"""SentencePiece models and the fairseq dictionaries that belong to them."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from langspec_lora.errors import UserError

if TYPE_CHECKING:
    from fairseq.data import Dictionary

SENTENCEPIECE = "sentencepiece.bpe.model"
"""The name that fairseq's releases give a SentencePiece model."""

_UNKNOWN_PIECES = 0.1  # a dictionary that lacks more of the model's pieces belongs to another model


def train_sentencepiece(lines: Sequence[str], vocab_size: int) -> bytes:
    """Trains a SentencePiece unigram model.

    Every character of the text gets a piece (coverage 1.0), except that with Chinese, Japanese or Korean text, whose
    characters are thousands, the rarest 0.05 % of characters go without.

    Args:
        lines: text of all languages together.
        vocab_size: pieces at most; fewer where the text does not yield so many.

    Returns:
        The model file's bytes.

    Raises:
        UserError: the vocabulary is too small for the characters of the text.
    """
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=vocab_size,
            model_type="unigram",
            character_coverage=0.9995 if _has_east_asian(lines) else 1.0,
            hard_vocab_limit=False,
            num_threads=1,  # with several the model differs from run to run
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--vocab-size {vocab_size} does not suit the text: {reason}") from error
    return model.getvalue()


def _has_east_asian(lines: Iterable[str]) -> bool:
    """Whether more than 1 % of the characters are Chinese, Japanese or Korean."""
    counts = [0, 0]
    for line in lines:
        for character in line:
            counts[0] += 1
            if character > "\u1100":
                counts[1] += unicodedata.name(character, "").startswith(
                    ("CJK UNIFIED", "HIRAGANA", "KATAKANA", "HANGUL")
                )
    return counts[1] > 0.01 * counts[0]


def dictionary_text(model: bytes, languages: Iterable[str]) -> str:
    """A fairseq dictionary of a SentencePiece model's pieces, then a token ``__xx__`` for each language.

    Control symbols are left out: fairseq has its own.
    """
    pieces = _pieces(model)
    return "".join(f"{token} 1\n" for token in [*pieces, *(f"__{name}__" for name in languages)])


def _pieces(model: bytes) -> list[str]:
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_proto=model)
    ids = range(processor.get_piece_size())
    return [processor.id_to_piece(i) for i in ids if not (processor.is_control(i) or processor.is_unknown(i))]


def load_splitter(spm_model: str | Path) -> Callable[[str], str]:
    """Loads a SentencePiece model.

    Returns:
        What splits a line into the model's pieces, joined by spaces, as fairseq's dictionaries take it.

    Raises:
        UserError: the file is missing or damaged.
    """
    from sentencepiece import SentencePieceProcessor

    if not Path(spm_model).is_file():
        raise UserError(f"SentencePiece model {spm_model} is not there; give the .model file")
    try:
        processor = SentencePieceProcessor(model_file=str(spm_model))
    except (OSError, RuntimeError) as error:
        raise UserError(f"{spm_model} is no SentencePiece model: {' '.join(str(error).split())}") from error
    return lambda line: " ".join(processor.encode(line, out_type=str))


def load_dictionary(path: Path) -> Dictionary:
    """Loads a fairseq dictionary.

    Raises:
        UserError: the file is missing or damaged.
    """
    from fairseq.data import Dictionary

    if not path.is_file():
        raise UserError(f"dictionary {path} is not there; give a fairseq dictionary, a line 'token count' per token")
    try:
        return Dictionary.load(str(path))
    except (ValueError, RuntimeError, UnicodeError) as error:
        raise UserError(f"{path} is no fairseq dictionary: {' '.join(str(error).split())}") from error


def dictionary_tokens(dictionary: Path) -> set[str]:
    """The tokens of a fairseq dictionary.

    Raises:
        UserError: the file is no UTF-8 text, or begins with a byte order mark.
    """
    try:
        # As fairseq reads it: a CR ends a line, a U+2028 in a token does not.
        with dictionary.open(encoding="utf-8") as file:
            tokens = {line.rstrip().rsplit(" ", 1)[0] for line in file}
            file.seek(0)
            marked = file.read(1) == "\ufeff"
    except UnicodeDecodeError as error:
        raise UserError(f"dictionary {dictionary} is not UTF-8 text; give a fairseq dictionary") from error
    if marked:
        raise UserError(
            f"dictionary {dictionary} begins with a byte order mark, which fairseq takes for a part of the first "
            "token; save it without one"
        )
    return tokens


def check_fit(spm: Path, dictionary: Path) -> None:
    """Refuses a dictionary that belongs to another SentencePiece model.

    Raises:
        UserError: the dictionary lacks many of the model's pieces, or the model is damaged.
    """
    try:
        pieces = _pieces(spm.read_bytes())
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{spm} is no SentencePiece model ({reason}); give the .model file") from error
    tokens = dictionary_tokens(dictionary)
    lacking = [piece for piece in pieces if piece not in tokens]
    if len(lacking) > _UNKNOWN_PIECES * len(pieces):
        raise UserError(
            f"dictionary {dictionary} lacks {len(lacking)} of the {len(pieces)} pieces of the SentencePiece model "
            f"{spm}, such as {lacking[0]!r}; give the dictionary and the model that belong together"
        )
