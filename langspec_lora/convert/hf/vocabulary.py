"""The ids of all tokens: from Hugging Face's tokenizer files to fairseq's dictionary.

fairseq's dictionary begins with ``<s> <pad> </s> <unk>`` and calls a language ``__wo__`` (``--lang-tok-style
multilingual``). M2M100 has the same tokens in the same order on both sides. NLLB-200's tokens like ``wol_Latn`` become
``__wol_Latn__`` in the dictionary, as in fairseq's NLLB, so that ``--langs`` accepts ``wol_Latn``. Both models read
``__xx__ text </s>`` and start their output with ``</s> __yy__``, on both sides.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor

from langspec_lora.convert.hf.added_tokens import AddedTokens, language_names, language_remarks, read_added_tokens
from langspec_lora.convert.hf.files import optional_module, read_json
from langspec_lora.data.vocabulary import SENTENCEPIECE, pieces_of
from langspec_lora.errors import UserError
from langspec_lora.naming import some_of
from langspec_lora.values import shortened

logger = logging.getLogger(__name__)

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
_LANGUAGE_TOKEN = re.compile(r"__(\w+)__")
_NO_PIECE = re.compile(r"__\w+__|madeupword\d+|<mask>")
_SENTENCEPIECE_NAMES = (SENTENCEPIECE, "spiece.model", "spm.model")


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a model in fairseq's order.

    Attributes:
        tokens: by fairseq's ids, the four special symbols first.
        order: the id of each token in Hugging Face's tokenizer.
        languages: the languages, as ``--langs`` names them.
        remarks: sentences for the user.
    """

    tokens: tuple[str, ...]
    order: tuple[int, ...]
    languages: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    def dictionary(self) -> str:
        """The text of ``dict.txt``."""
        return "".join(f"{token} 1\n" for token in self.tokens[len(SPECIALS) :])


def read_vocabulary(folder: Path, rows: int, added_languages: Sequence[str] | None = None) -> Vocabulary:
    """Reads the tokens of a Hugging Face folder.

    Args:
        folder: the folder, with the tokenizer's files.
        rows: number of embeddings; those without a token are called ``madeupwordNNNN``, as in fairseq.
        added_languages: which tokens that were added to the tokenizer are languages; None for those that look like a
            language code.

    Raises:
        UserError: a file is missing or damaged, or the tokens do not fit fairseq or the number of embeddings.
    """
    settings = _settings(folder)
    added = read_added_tokens(folder)
    ids, remarks = _token_ids(folder, settings, added, added_languages)
    by_id: dict[int, str] = {}
    for token, number in ids.items():
        if not isinstance(number, int) or number < 0:
            raise UserError(
                f"{folder}: its tokenizer gives {token[:40]!r} the id {number!r}; expected a number of at least 0"
            )
        if by_id.setdefault(number, token) != token:
            raise UserError(
                f"{folder}: its tokenizer gives {token[:40]!r} the id {number}, which {by_id[number][:40]!r} has; "
                "expected a different id for each token"
            )
    missing = [token for token in SPECIALS if token not in ids]
    if missing:
        raise UserError(f"{folder}: its tokenizer has no {missing[0]}, which every fairseq dictionary has")
    if max(by_id) >= rows:
        raise UserError(
            f"{folder}: its tokenizer has the id {max(by_id)}, but its weights have {rows} embeddings; the files "
            "belong to different models"
        )
    first = [ids[token] for token in SPECIALS]
    order = (*first, *(number for number in range(rows) if number not in first))
    spare = _spare_names(ids)
    tokens = tuple(by_id[number] if number in by_id else next(spare) for number in order)
    for token in tokens:
        if "\n" in token or "\r" in token:
            raise UserError(
                f"{folder}: the token {token[:40]!r} contains a line break, which a fairseq dictionary cannot hold"
            )
    languages = tuple(match[1] for match in map(_LANGUAGE_TOKEN.fullmatch, tokens) if match)
    if settings.get("legacy_behaviour"):
        remarks.append(
            "legacy_behaviour is true: that tokenizer puts the source language after the text, but fairseq puts it "
            "before, as in NLLB's training; translations are the same only with legacy_behaviour=False"
        )
    return Vocabulary(tokens, order, languages, tuple(remarks))


def sentencepiece_model(folder: Path) -> Path:
    """The SentencePiece model of a Hugging Face folder.

    Raises:
        UserError: it is not found.
    """
    for name in _SENTENCEPIECE_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"{folder} has no {SENTENCEPIECE}, which splits text; download it with the model, or give it as "
        "--sentencepiece-model"
    )


def warn_of_other_pieces(model: Path, vocabulary: Vocabulary, folder: Path) -> None:
    """Warns if the tokens are not the pieces of the SentencePiece model: a file may be damaged, or of another model.

    Args:
        model: the SentencePiece model, which can be read.
        vocabulary: the tokens.
        folder: the Hugging Face folder, whose added tokens are no pieces.
    """
    pieces = dict.fromkeys(pieces_of(model.read_bytes()))
    others = {*SPECIALS, *read_added_tokens(folder).ids}
    lacking = [piece for piece in pieces if piece not in set(vocabulary.tokens)]
    strange = [
        token
        for token in vocabulary.tokens
        if token not in pieces and token not in others and not _NO_PIECE.fullmatch(token)
    ]
    for names, of, lacks in ((lacking, model, f"the tokenizer of {folder} lacks"), (strange, folder, f"{model} lacks")):
        if names:
            logger.warning(
                "%s %d of the tokens of %s, such as %s, so that text is split in another way; check that both files "
                "are whole and of one model",
                *(lacks, len(names), of, shortened(names[0], 40)),
            )


def _spare_names(taken: Mapping[str, Any]) -> Iterator[str]:
    number = 0
    while True:
        if (name := f"madeupword{number:04d}") not in taken:
            yield name
        number += 1


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return read_json(path) if path.is_file() else {}


def _token_ids(
    folder: Path, settings: Mapping[str, Any], added: AddedTokens, added_languages: Sequence[str] | None
) -> tuple[dict[str, int], list[str]]:
    """The ids by token, with fairseq's names of the language tokens, and remarks on the languages."""
    tokenizer_class = settings.get("tokenizer_class", "M2M100Tokenizer")
    if (folder / "tokenizer.json").is_file():
        base = _fast_vocabulary(read_json(folder / "tokenizer.json"), folder / "tokenizer.json")
        standard: Sequence[str] = _nllb_codes()
    elif tokenizer_class in ("NllbTokenizer", "NllbTokenizerFast"):
        standard = _nllb_codes(required=True)
        base = _nllb(sentencepiece_model(folder), standard, added.ids)
    elif tokenizer_class == "M2M100Tokenizer":
        codes = settings.get("language_codes") or "m2m100"
        standard = m2m100_languages(codes, str(folder / "tokenizer_config.json"))
        base = _m2m100(read_json(folder / "vocab.json"), standard)
    else:
        raise UserError(f"{folder} has a {tokenizer_class!r}; expected the tokenizer of M2M100 or NLLB-200")
    for token, number in added.ids.items():
        if base.get(token, number) != number:
            raise UserError(
                f"{folder}: its tokenizer gives {token[:40]!r} the ids {number} and {base.get(token)}; "
                "expected one id for each token"
            )
    names = language_names(added, base, added_languages)
    remarks = language_remarks(added, names, standard, {*base, *(token.strip("_") for token in base)})
    ids = {token: number for token, number in base.items() if token not in added.ids}
    for token, number in added.ids.items():
        name = f"__{names[token]}__" if token in names else token
        if ids.get(name, number) != number:
            raise UserError(
                f"{folder}: its tokenizer has {name} twice, with the ids {ids[name]} and {number}, but a fairseq "
                "dictionary holds it once; leave one out with --added-languages"
            )
        ids[name] = number
    return ids, remarks


def m2m100_languages(codes: str, label: str) -> Sequence[str]:
    """The languages that transformers' ``M2M100Tokenizer`` puts after its vocabulary, in its order.

    Args:
        codes: the name of the list, such as ``m2m100``.
        label: where that name was read, for messages.

    Raises:
        UserError: transformers is not installed, or has no list of that name.
    """
    lists = optional_module("transformers.models.m2m_100.tokenization_m2m_100").FAIRSEQ_LANGUAGE_CODES
    if codes not in tuple(lists):  # a damaged file may hold an unhashable value
        raise UserError(f"{label}: unknown list of languages {codes!r}; transformers has {some_of(lists)}")
    return lists[codes]


def _m2m100(ids: dict[str, int], names: Sequence[str]) -> dict[str, int]:
    size = len(ids)  # the id of the first language
    return {**ids, **{f"__{name}__": size + number for number, name in enumerate(names)}}


def _nllb_codes(required: bool = False) -> Sequence[str]:
    """The languages of NLLB-200; empty if transformers is not installed, unless they are required."""
    try:
        return optional_module("transformers.models.nllb.tokenization_nllb").FAIRSEQ_LANGUAGE_CODES
    except UserError:
        if required:
            raise
        return ()


def _nllb(model: Path, codes: Sequence[str], added: Mapping[str, int]) -> dict[str, int]:
    """The ids that transformers derives from NLLB-200's SentencePiece model, with one more special symbol.

    Its slow tokenizer appends the codes and then the mask, or since 4.38 the mask and then the codes. As it also writes
    their ids, an order is assumed only for a folder without any of them.
    """
    try:
        processor = SentencePieceProcessor(model_file=str(model))
        pieces = [processor.id_to_piece(number) for number in range(3, processor.get_piece_size())]
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        raise UserError(f"{model} is not a SentencePiece model: {' '.join(str(error).split())}") from error
    tokens = [*SPECIALS, *pieces]
    if "<mask>" not in added and not any(code in added for code in codes):
        tokens += [*(f"__{code}__" for code in codes), "<mask>"]
    return {token: number for number, token in enumerate(tokens)}


def _fast_vocabulary(content: Mapping[str, Any], path: Path) -> dict[str, int]:
    try:
        vocabulary = content["model"]["vocab"]
        if isinstance(vocabulary, list):  # Unigram: [piece, score]
            vocabulary = {piece: number for number, (piece, _) in enumerate(vocabulary)}
        if not all(isinstance(token, str) for token in vocabulary):
            raise TypeError
        return dict(vocabulary)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged: it has no vocabulary; download it again") from error
