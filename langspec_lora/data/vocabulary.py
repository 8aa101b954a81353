"""SentencePiece models and the fairseq dictionaries that belong to them."""

# Imports in functions: sentencepiece and fairseq take seconds.

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.naming import some_of

if TYPE_CHECKING:
    from fairseq.data import Dictionary

SENTENCEPIECE = "sentencepiece.bpe.model"
"""The name of the SentencePiece model in fairseq's releases."""

_LONGEST_REASON = 300  # characters

_UNKNOWN_PIECES = 0.1  # if more of the model's pieces are missing, the dictionary belongs to another model


def check_vocabulary_options(spm: Path | None, dictionary: Path | None, vocab_size: int | None) -> None:
    """Checks the flags by which a command is given a vocabulary, or told to train one.

    Raises:
        UserError: files are missing, or a number is out of range; all mistakes are listed.
    """
    with collect_errors() as errors:
        with errors.check():
            if (spm is None) != (dictionary is None):
                raise UserError("--spm and --dict belong together; give both (M2M100's), or neither to train new ones")
        for flag, path in (("--spm", spm), ("--dict", dictionary)):
            with errors.check():
                if path is not None and not path.is_file():
                    raise UserError(f"{flag} {path} not found; check the path")
        with errors.check():
            if vocab_size is not None and vocab_size < 1:
                raise UserError(f"--vocab-size {vocab_size}: expected a number of pieces, such as 8000")


def lacking_tokens(dictionary: Path, languages: Iterable[str]) -> list[str]:
    """A note for the user if a dictionary lacks the tokens of languages, else none."""
    tokens = dictionary_tokens(dictionary)
    lacking = [name for name in languages if f"__{name}__" not in tokens]
    if not lacking:
        return []
    return [
        f"the dictionary has no language token for {some_of(lacking)}, so fairseq adds it; a model that was trained "
        "without it will not fit"
    ]


def train_sentencepiece(lines: Sequence[str], vocab_size: int, frequencies: Sequence[int] | None = None) -> bytes:
    """Trains a SentencePiece unigram model.

    Every character of the text gets a piece (coverage 1.0). With Chinese, Japanese or Korean text, which has thousands
    of characters, the coverage is 0.9995.

    Args:
        lines: text of all languages.
        vocab_size: maximum number of pieces; a small text gives fewer.
        frequencies: how often each line counts; by default once.

    Returns:
        The content of the model file.

    Raises:
        UserError: the vocabulary is too small for the characters of the text.
    """
    import sentencepiece

    model = io.BytesIO()
    weighted: dict[str, Any] = {}
    sentences: Iterator[str] = iter(lines)
    if frequencies is not None:
        weighted = {"input_format": "tsv"}
        sentences = (f"{' '.join(line.split())}\t{n}" for line, n in zip(lines, frequencies, strict=True))
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences,
            model_writer=model,
            vocab_size=vocab_size,
            model_type="unigram",
            character_coverage=0.9995 if _has_east_asian(lines) else 1.0,
            hard_vocab_limit=False,
            num_threads=1,  # several threads give a different model each time
            minloglevel=2,
            **weighted,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--vocab-size {vocab_size} does not fit the text: {reason}") from error
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
    """A fairseq dictionary of the pieces of a SentencePiece model, then a token ``__xx__`` for each language.

    Control symbols are left out, because fairseq adds its own.
    """
    return "".join(f"{token} 1\n" for token in [*pieces_of(model), *(f"__{name}__" for name in languages)])


def pieces_of(model: bytes) -> list[str]:
    """The pieces of a SentencePiece model, without its control symbols.

    Raises:
        RuntimeError, UnicodeDecodeError: it is damaged.
    """
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_proto=model)
    ids = range(processor.get_piece_size())
    return [processor.id_to_piece(i) for i in ids if not (processor.is_control(i) or processor.is_unknown(i))]


def load_splitter(spm_model: str | Path) -> Callable[[str], str]:
    """Loads a SentencePiece model.

    Returns:
        A function that splits a line into the model's pieces, joined by spaces, as fairseq's dictionaries expect.

    Raises:
        UserError: the file is missing or damaged.
    """
    from sentencepiece import SentencePieceProcessor

    if not Path(spm_model).is_file():
        raise UserError(f"SentencePiece model {spm_model} not found; give the .model file")
    try:
        processor = SentencePieceProcessor(model_file=str(spm_model))
        content = Path(spm_model).read_bytes()
        pieces_of(content)  # one that is not UTF-8 would end the program at the first line that has it
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        raise UserError(f"{spm_model} is not a SentencePiece model: {' '.join(str(error).split())}") from error
    _check_whole(content, spm_model)
    return lambda line: " ".join(processor.encode(line, out_type=str))


def load_dictionary(path: Path) -> Dictionary:
    """Loads a fairseq dictionary.

    Raises:
        UserError: the file is missing or damaged.
    """
    from fairseq.data import Dictionary

    if not path.is_file():
        raise UserError(
            f"dictionary {path} not found; give a fairseq dictionary with a line 'token count' for each token"
        )
    try:
        return Dictionary.load(str(path))
    except (ValueError, RuntimeError, UnicodeError) as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON]  # it quotes a line
        raise UserError(f"{path} is not a fairseq dictionary: {reason}") from error


def dictionary_tokens(dictionary: Path) -> set[str]:
    """The tokens of a fairseq dictionary.

    Raises:
        UserError: the file is not UTF-8, or begins with a byte order mark.
    """
    try:
        # As fairseq reads it: a CR ends a line, a U+2028 in a token does not.
        with dictionary.open(encoding="utf-8") as file:
            tokens = {line.rstrip().rsplit(" ", 1)[0] for line in file}
            file.seek(0)
            marked = file.read(1) == "\ufeff"
    except UnicodeDecodeError as error:
        raise UserError(f"dictionary {dictionary} is not UTF-8; give a fairseq dictionary") from error
    if marked:
        raise UserError(
            f"dictionary {dictionary} begins with a byte order mark, which fairseq reads as part of the first "
            "token; save it without one"
        )
    return tokens


def check_fit(spm: Path, dictionary: Path) -> None:
    """Checks that a dictionary belongs to a SentencePiece model.

    Raises:
        UserError: the dictionary lacks many of the model's pieces, or the model is damaged.
    """
    try:
        content = spm.read_bytes()
        pieces = pieces_of(content)
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{spm} is not a SentencePiece model ({reason}); give the .model file") from error
    _check_whole(content, spm)
    tokens = dictionary_tokens(dictionary)
    lacking = [piece for piece in pieces if piece not in tokens]
    if len(lacking) > _UNKNOWN_PIECES * len(pieces):
        raise UserError(
            f"dictionary {dictionary} lacks {len(lacking)} of the {len(pieces)} pieces of the SentencePiece model "
            f"{spm}, such as {lacking[0][:40]!r}; give a dictionary and a model that belong together"
        )


_SETTINGS_FIELDS = {2, 3}  # trainer_spec and normalizer_spec in sentencepiece_model.proto
_DELIMITED = 2  # protobuf's wire type of messages


def _check_whole(content: bytes, label: object) -> None:
    """Makes sure that a SentencePiece model was not cut short, which its library does not notice between two pieces.

    Raises:
        UserError: it lacks the settings that SentencePiece writes behind the pieces.
    """
    found, place = set(), 0
    while place < len(content):
        tag, place = _varint(content, place)
        if tag & 7 != _DELIMITED:  # all fields of a model are messages
            break
        length, place = _varint(content, place)
        found.add(tag >> 3)
        place += length
    if not found >= _SETTINGS_FIELDS or place != len(content):
        raise UserError(f"SentencePiece model {label} is damaged or cut short; download it again")


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """A number of variable length, and the place behind it; 0 if the content ends before."""
    value = shift = 0
    for byte in content[place : place + 10]:
        value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
        if byte < 128:
            return value, place
    return 0, place
