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

from langspec_lora.convert.hf.added_tokens import AddedTokens, language_names, language_remarks, read_added_tokens
from langspec_lora.convert.hf.files import optional_module, read_json
from langspec_lora.data.vocabulary import SENTENCEPIECE
from langspec_lora.errors import UserError

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
_LANGUAGE_TOKEN = re.compile(r"__(\w+)__")
_SENTENCEPIECE_NAMES = (SENTENCEPIECE, "spiece.model", "spm.model")


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a model in fairseq's order.

    Attributes:
        tokens: by fairseq's ids, the four special symbols first.
        order: for each of them its id in Hugging Face's tokenizer.
        languages: names of the languages, as ``--langs`` takes them.
        remarks: what the user should know of them, in sentences.
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
        rows: number of embeddings; those that no token has are named ``madeupwordNNNN``, as fairseq pads dictionaries.
        added_languages: which tokens that were added to the tokenizer are languages; where None, those that are built
            like a language's code.

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
                f"{folder}: its tokenizer gives {token[:40]!r} the id {number!r}; each needs one of its own"
            )
        if by_id.setdefault(number, token) != token:
            raise UserError(
                f"{folder}: its tokenizer gives {token[:40]!r} the id {number}, which {by_id[number][:40]!r} has; each "
                "needs one of its own"
            )
    missing = [token for token in SPECIALS if token not in ids]
    if missing:
        raise UserError(f"{folder}: its tokenizer has no {missing[0]}, with which fairseq's dictionaries begin")
    if max(by_id) >= rows:
        raise UserError(
            f"{folder}: its tokenizer has the id {max(by_id)}, but its weights only {rows} embeddings; the files "
            "belong to different models"
        )
    first = [ids[token] for token in SPECIALS]
    order = (*first, *(number for number in range(rows) if number not in first))
    spare = _spare_names(ids)
    tokens = tuple(by_id[number] if number in by_id else next(spare) for number in order)
    for token in tokens:
        if "\n" in token or "\r" in token:
            raise UserError(f"{folder}: the token {token[:40]!r} cannot stand in a fairseq dictionary, which is a text")
    languages = tuple(match[1] for match in map(_LANGUAGE_TOKEN.fullmatch, tokens) if match)
    if settings.get("legacy_behaviour"):
        remarks.append(
            "legacy_behaviour is true: that tokenizer puts the source language after the text, fairseq before it, as "
            "NLLB was pretrained; expect other translations, or the same ones with legacy_behaviour=False"
        )
    return Vocabulary(tokens, order, languages, tuple(remarks))


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


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return read_json(path) if path.is_file() else {}


def _token_ids(
    folder: Path, settings: Mapping[str, Any], added: AddedTokens, added_languages: Sequence[str] | None
) -> tuple[dict[str, int], list[str]]:
    """Ids by token, with language tokens as fairseq names them, and remarks on the languages."""
    kind = settings.get("tokenizer_class", "M2M100Tokenizer")
    if (folder / "tokenizer.json").is_file():
        base = _fast_vocabulary(read_json(folder / "tokenizer.json"), folder / "tokenizer.json")
        standard: Sequence[str] = _nllb_codes()
    elif kind in ("NllbTokenizer", "NllbTokenizerFast"):
        standard = _nllb_codes(required=True)
        base = _nllb(sentencepiece_model(folder), standard, added.ids)
    elif kind == "M2M100Tokenizer":
        codes = settings.get("language_codes") or "m2m100"
        standard = m2m100_languages(codes, str(folder / "tokenizer_config.json"))
        base = _m2m100(read_json(folder / "vocab.json"), standard)
    else:
        raise UserError(f"{folder} has a {kind!r}; expected the tokenizer of M2M100 or NLLB-200")
    for token, number in added.ids.items():
        if base.get(token, number) != number:
            raise UserError(
                f"{folder}: its tokenizer gives {token[:40]!r} the ids {number} and {base.get(token)}; each token "
                "needs one of its own"
            )
    names = language_names(added, base, added_languages)
    remarks = language_remarks(added, names, standard, {*base, *(token.strip("_") for token in base)})
    ids = {token: number for token, number in base.items() if token not in added.ids}
    for token, number in added.ids.items():
        name = f"__{names[token]}__" if token in names else token
        if ids.get(name, number) != number:
            raise UserError(
                f"{folder}: its tokenizer has {name} twice, with the ids {ids[name]} and {number}, and a fairseq "
                "dictionary once; leave one out with --added-languages"
            )
        ids[name] = number
    return ids, remarks


def m2m100_languages(codes: str, source: str) -> Sequence[str]:
    """The languages that transformers' ``M2M100Tokenizer`` puts after its vocabulary, in its order.

    Raises:
        UserError: transformers is not installed, or has no list of that name.
    """
    lists = optional_module("transformers.models.m2m_100.tokenization_m2m_100").FAIRSEQ_LANGUAGE_CODES
    if codes not in tuple(lists):  # a damaged file may hold what no table can look up
        raise UserError(f"{source}: there is no list of languages {codes!r}; transformers has {', '.join(lists)}")
    return lists[codes]


def _m2m100(ids: dict[str, int], names: Sequence[str]) -> dict[str, int]:
    size = len(ids)  # what the tokenizer counts its languages from
    return {**ids, **{f"__{name}__": size + number for number, name in enumerate(names)}}


def _nllb_codes(required: bool = False) -> Sequence[str]:
    """The languages of NLLB-200; none where transformers is not installed, unless they are required."""
    try:
        return optional_module("transformers.models.nllb.tokenization_nllb").FAIRSEQ_LANGUAGE_CODES
    except UserError:
        if required:
            raise
        return ()


def _nllb(model: Path, codes: Sequence[str], added: Mapping[str, int]) -> dict[str, int]:
    """As transformers reads NLLB-200 from its SentencePiece model: one special symbol more than the model has.

    Its slow tokenizer had the codes and then the mask, but since 4.38 the mask and then the codes; since it also writes
    their ids, an order of its own is taken only where a folder has none of them.
    """
    from sentencepiece import SentencePieceProcessor

    try:
        processor = SentencePieceProcessor(model_file=str(model))
    except (OSError, RuntimeError) as error:
        raise UserError(f"{model} is no SentencePiece model: {' '.join(str(error).split())}") from error
    pieces = [processor.id_to_piece(number) for number in range(3, processor.get_piece_size())]
    tokens = [*SPECIALS, *pieces]
    if "<mask>" not in added and not any(code in added for code in codes):
        tokens += [*(f"__{code}__" for code in codes), "<mask>"]
    return {token: number for number, token in enumerate(tokens)}


def _fast_vocabulary(content: Mapping[str, Any], path: Path) -> dict[str, int]:
    try:
        vocabulary = content["model"]["vocab"]
        if isinstance(vocabulary, list):  # Unigram: pairs of piece and score
            vocabulary = {piece: number for number, (piece, _) in enumerate(vocabulary)}
        if not all(isinstance(token, str) for token in vocabulary):
            raise TypeError
        return dict(vocabulary)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged: it has no vocabulary; take it from its source again") from error
