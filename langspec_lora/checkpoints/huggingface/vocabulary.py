"""Which token has which id: Hugging Face's tokenizer files and fairseq's dictionary.

fairseq's dictionary begins with ``<s> <pad> </s> <unk>`` and names languages ``__wo__`` (``--lang-tok-style
multilingual``). M2M100 has the same tokens in the same order on both sides. NLLB-200's tokens are ``wol_Latn``: in the
dictionary they become ``__wol_Latn__``, as in fairseq's own NLLB, so that ``--langs`` takes ``wol_Latn``. Both models
see ``__xx__ text </s>`` as their source and ``</s> __yy__`` as the start of their target, on both sides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langspec_lora.checkpoints.huggingface.files import optional_module, read_json
from langspec_lora.data.vocabulary import SENTENCEPIECE
from langspec_lora.errors import UserError

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
_NLLB_CODE = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")
_LANGUAGE_TOKEN = re.compile(r"__(\w+)__")
_SENTENCEPIECE_NAMES = (SENTENCEPIECE, "spiece.model", "spm.model")


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a model in fairseq's order.

    Attributes:
        tokens: by fairseq's ids, the four special symbols first.
        order: for each of them its id in Hugging Face's tokenizer.
        languages: names of the languages, as ``--langs`` takes them.
    """

    tokens: tuple[str, ...]
    order: tuple[int, ...]
    languages: tuple[str, ...]

    def dictionary(self) -> str:
        """The text of ``dict.txt``."""
        return "".join(f"{token} 1\n" for token in self.tokens[len(SPECIALS) :])


def read_vocabulary(folder: Path, rows: int) -> Vocabulary:
    """Reads the tokens of a Hugging Face folder.

    Args:
        folder: the folder, with the tokenizer's files.
        rows: number of embeddings; those that no token has are named ``madeupwordNNNN``, as fairseq pads dictionaries.

    Raises:
        UserError: a file is missing or damaged, or the tokens do not fit fairseq or the number of embeddings.
    """
    ids = _token_ids(folder)
    by_id: dict[int, str] = {}
    for token, number in ids.items():
        if not isinstance(number, int) or number < 0 or by_id.setdefault(number, token) != token:
            raise UserError(
                f"{folder}: its tokenizer gives {token[:40]!r} the id {number!r}; each needs one of its own"
            )
    if max(by_id, default=0) >= rows:
        raise UserError(
            f"{folder}: its tokenizer has the id {max(by_id)}, but its weights only {rows} embeddings; the files "
            "belong to different models"
        )
    missing = [token for token in SPECIALS if token not in ids]
    if missing:
        raise UserError(f"{folder}: its tokenizer has no {missing[0]}, with which fairseq's dictionaries begin")
    first = [ids[token] for token in SPECIALS]
    order = (*first, *(number for number in range(rows) if number not in first))
    spare = _spare_names(ids)
    tokens = tuple(by_id[number] if number in by_id else next(spare) for number in order)
    for token in tokens:
        if "\n" in token or "\r" in token:
            raise UserError(f"{folder}: the token {token[:40]!r} cannot stand in a fairseq dictionary, which is a text")
    languages = tuple(match[1] for match in map(_LANGUAGE_TOKEN.fullmatch, tokens) if match)
    return Vocabulary(tokens, order, languages)


def sentencepiece_model(folder: Path) -> Path:
    """The SentencePiece model of a Hugging Face folder.

    Raises:
        UserError: there is none.
    """
    for name in _SENTENCEPIECE_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"{folder} has no {SENTENCEPIECE}, by which text is split; take it from the model's source, or give it as "
        "--sentencepiece-model"
    )


def _spare_names(taken: Mapping[str, Any]) -> Iterator[str]:
    number = 0
    while True:
        if (name := f"madeupword{number:04d}") not in taken:
            yield name
        number += 1


def _token_ids(folder: Path) -> dict[str, int]:
    """Ids by token, with language tokens as fairseq names them."""
    if (folder / "tokenizer.json").is_file():
        return _fast_tokenizer(read_json(folder / "tokenizer.json"), folder / "tokenizer.json")
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    kind = settings.get("tokenizer_class", "M2M100Tokenizer")
    if kind in ("NllbTokenizer", "NllbTokenizerFast"):
        return _nllb(sentencepiece_model(folder))
    if kind != "M2M100Tokenizer":
        raise UserError(f"{folder} has a {kind!r}; expected the tokenizer of M2M100 or NLLB-200")
    return _m2m100(read_json(folder / "vocab.json"), settings.get("language_codes") or "m2m100", folder)


def m2m100_languages(codes: str, source: str) -> Sequence[str]:
    """The languages that transformers' ``M2M100Tokenizer`` puts after its vocabulary, in its order.

    Raises:
        UserError: transformers is not installed, or has no list of that name.
    """
    lists = optional_module("transformers.models.m2m_100.tokenization_m2m_100").FAIRSEQ_LANGUAGE_CODES
    if codes not in lists:
        raise UserError(f"{source}: there is no list of languages {codes!r}; transformers has {', '.join(lists)}")
    return lists[codes]


def _m2m100(ids: dict[str, int], codes: str, folder: Path) -> dict[str, int]:
    size = len(ids)  # what the tokenizer counts its languages from
    names = m2m100_languages(codes, str(folder / "tokenizer_config.json"))
    return {**ids, **{f"__{name}__": size + number for number, name in enumerate(names)}}


def _nllb(model: Path) -> dict[str, int]:
    """As transformers reads NLLB-200 from its SentencePiece model: one special symbol more than the model has."""
    from sentencepiece import SentencePieceProcessor

    codes = optional_module("transformers.models.nllb.tokenization_nllb").FAIRSEQ_LANGUAGE_CODES
    try:
        processor = SentencePieceProcessor(model_file=str(model))
    except (OSError, RuntimeError) as error:
        raise UserError(f"{model} is no SentencePiece model: {' '.join(str(error).split())}") from error
    pieces = [processor.id_to_piece(number) for number in range(3, processor.get_piece_size())]
    tokens = [*SPECIALS, *pieces, *(f"__{code}__" for code in codes), "<mask>"]
    return {token: number for number, token in enumerate(tokens)}


def _fast_tokenizer(content: Mapping[str, Any], path: Path) -> dict[str, int]:
    try:
        vocabulary = content["model"]["vocab"]
        if isinstance(vocabulary, list):  # Unigram: pairs of piece and score
            vocabulary = {piece: number for number, (piece, _) in enumerate(vocabulary)}
        ids = dict(vocabulary)
        for token in content.get("added_tokens") or ():
            name = token["content"]
            ids.pop(name, None)
            is_language = token.get("special", False) and _NLLB_CODE.fullmatch(name)
            ids[f"__{name}__" if is_language else name] = token["id"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged: it has no vocabulary; take it from its source again") from error
    return ids
