"""Tokenizer files for an exported model, where transformers' ``M2M100Tokenizer`` can give every token its id.

That tokenizer knows the languages of M2M100 (or of WMT21) in one order and counts their ids from the end of its
vocabulary. Dictionaries that end otherwise, such as those of the twelve FLORES languages, it would misread.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from langspec_lora.checkpoints.huggingface.files import write_json
from langspec_lora.checkpoints.huggingface.vocabulary import SPECIALS, m2m100_languages
from langspec_lora.data.vocabulary import SENTENCEPIECE, check_fit
from langspec_lora.errors import UserError

TOKENIZER_FILES = ("vocab.json", "tokenizer_config.json", "special_tokens_map.json", SENTENCEPIECE)

_CODES = ("m2m100", "wmt21")


def check_tokenizer(dictionary: Path, spm: Path, rows: int, languages: Sequence[str | None]) -> list[str]:
    """Reads a dictionary and makes sure that it belongs to a model.

    Args:
        dictionary: the fairseq dictionary.
        spm: the SentencePiece model.
        rows: number of embeddings.
        languages: names that must have a token there; None is passed over.

    Returns:
        The tokens by id. Where the model was trained with more languages than the dictionary has, fairseq has put their
        tokens at its end; they are not among these.

    Raises:
        UserError: a file is missing, or they do not belong together.
    """
    from fairseq.data import Dictionary

    for path, what in ((dictionary, "dictionary"), (spm, "SentencePiece model")):
        if not path.is_file():
            raise UserError(f"there is no {what} {path}; check the path")
    check_fit(spm, dictionary)
    try:
        tokens = list(Dictionary.load(str(dictionary)).symbols)
    except Exception as error:  # fairseq raises plain exceptions for a wrong encoding
        raise UserError(f"dictionary {dictionary} is damaged ({error}); expected lines such as 'word 1'") from error
    if len(tokens) != rows:
        raise UserError(
            f"dictionary {dictionary} has {len(tokens)} tokens, but the model {rows} embeddings; give the model's own "
            "dictionary, language tokens included"
        )
    for name in languages:
        if name is not None and f"__{name}__" not in tokens:
            raise UserError(f"dictionary {dictionary} has no token __{name}__; give a language that the model knows")
    return tokens


def write_tokenizer(folder: Path, tokens: Sequence[str], spm: Path, languages: Sequence[str | None]) -> str | None:
    """Writes the tokenizer's files.

    Args:
        folder: where.
        tokens: the tokens by id.
        spm: the SentencePiece model.
        languages: source and target language by default, or None.

    Returns:
        A remark, where no tokenizer of transformers reads these tokens; ``vocab.json`` then holds all ids.
    """
    form = _m2m100_form(tokens)
    size = len(tokens) if form is None else form[1]
    write_json(folder / "vocab.json", {token: number for number, token in enumerate(tokens[:size])})
    shutil.copyfile(spm, folder / SENTENCEPIECE)
    if form is None:
        return (
            "no tokenizer of transformers has these languages in this order: vocab.json holds the ids of all tokens "
            f"(a source is __xx__, the pieces of {SENTENCEPIECE}, </s>)"
        )
    codes, _ = form
    names = [f"__{name}__" for name in m2m100_languages(codes, "the export")]
    specials = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "sep_token": "</s>",
    }
    settings = {
        "tokenizer_class": "M2M100Tokenizer",
        "language_codes": codes,
        "num_madeup_words": len(tokens) - size - len(names),
        "additional_special_tokens": names,
        "model_max_length": 1024,
        "src_lang": languages[0],
        "tgt_lang": languages[1],
        **specials,
    }
    write_json(folder / "tokenizer_config.json", {key: value for key, value in settings.items() if value is not None})
    write_json(folder / "special_tokens_map.json", {**specials, "additional_special_tokens": names})
    return None


def _m2m100_form(tokens: Sequence[str]) -> tuple[str, int] | None:
    """The tokenizer's list of languages, and the number of tokens before it; None where there is no such list."""
    if tuple(tokens[: len(SPECIALS)]) != SPECIALS:
        return None
    for codes in _CODES:
        languages = [f"__{name}__" for name in m2m100_languages(codes, "the export")]
        if languages[0] not in tokens:
            continue
        start = tokens.index(languages[0])
        rest = tokens[start + len(languages) :]
        unused = all(token.startswith("madeupword") for token in rest)
        if list(tokens[start : start + len(languages)]) == languages and unused:
            return codes, start
    return None
