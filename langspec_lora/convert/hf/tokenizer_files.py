"""Tokenizer files for an exported model, in which every token has its id in fairseq's dictionary.

transformers' ``M2M100Tokenizer`` expects the languages of M2M100 (or of WMT21) in one order, after all other tokens,
and splits text with SentencePiece itself. Dictionaries of that form get it. It would misread others, such as those with
FLORES-101's languages; they get a tokenizer of the library ``tokenizers``.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from langspec_lora.checkpoints.token_order import TokenOrder
from langspec_lora.convert.hf.fast_tokenizer import NoTokenizer, build_tokenizer
from langspec_lora.convert.hf.files import write_json
from langspec_lora.convert.hf.nllb_tokenizer import nllb_names, write_nllb_tokenizer
from langspec_lora.convert.hf.normalisation import character_table
from langspec_lora.convert.hf.sentencepiece_model import BPE, Pieces, read_pieces
from langspec_lora.convert.hf.tokenizer_check import check_against
from langspec_lora.convert.hf.vocabulary import SPECIALS, m2m100_languages
from langspec_lora.data.vocabulary import SENTENCEPIECE, check_fit, load_dictionary
from langspec_lora.errors import UserError
from langspec_lora.naming import all_of

TOKENIZER_FILES = (
    "vocab.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    SENTENCEPIECE,
)

_CODES = ("m2m100", "wmt21")
_SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def check_tokenizer(
    dictionary: Path, spm: Path, rows: int, languages: Sequence[str | None], order: TokenOrder | None = None
) -> list[str]:
    """Reads a dictionary and checks that it belongs to a model.

    Args:
        dictionary: the fairseq dictionary.
        spm: the SentencePiece model.
        rows: number of embeddings.
        languages: languages that must have a token; None is ignored.
        order: the language tokens that the model's training appended to its dictionary.

    Returns:
        The tokens by id.

    Raises:
        UserError: a file is missing, or they do not belong together.
    """
    for path, what in ((dictionary, "dictionary"), (spm, "SentencePiece model")):
        if not path.is_file():
            raise UserError(f"{what} {path} not found; check the path")
    check_fit(spm, dictionary)
    loaded = load_dictionary(dictionary)
    if order is not None and len(loaded) < rows:
        order.append(loaded)
    tokens = loaded.symbols
    if len(tokens) != rows:
        raise UserError(
            f"dictionary {dictionary} has {len(tokens)} tokens, but the model has {rows} embeddings; give the model's "
            "dictionary, including its language tokens"
        )
    for name in languages:
        if name is not None and f"__{name}__" not in tokens:
            raise UserError(f"dictionary {dictionary} has no token __{name}__; give a language that the model knows")
    return tokens


def write_tokenizer(folder: Path, tokens: Sequence[str], spm: Path, languages: Sequence[str | None]) -> str | None:
    """Writes the tokenizer's files.

    Args:
        folder: the folder to write to.
        tokens: the tokens by id.
        spm: the SentencePiece model.
        languages: source and target language by default, or None.

    Returns:
        A remark for the user, if the tokenizer is not like M2M100's; else None.
    """
    shutil.copyfile(spm, folder / SENTENCEPIECE)
    pieces = read_pieces(spm.read_bytes(), str(spm))
    form = _m2m100_form(tokens)
    if form is not None:
        _write_m2m100(folder, tokens, *form, languages)
        return _remark_on_whitespace(pieces)
    language_token = None if languages[0] is None else f"__{languages[0]}__"
    try:
        tokenizer = build_tokenizer(pieces, tokens, language_token)
        check_against(tokenizer, spm, tokens, language_token)
    except NoTokenizer as reason:
        write_json(folder / "vocab.json", {token: number for number, token in enumerate(tokens)})
        # Without a name transformers would use M2M100's tokenizer, which misreads this vocabulary.
        write_json(folder / "tokenizer_config.json", {"tokenizer_class": "NoTokenizerOfTransformers"})
        return (
            f"no tokenizer of transformers splits text like {spm}, since {reason}: vocab.json holds the ids of all "
            f"tokens (a source text is __xx__, the pieces of {SENTENCEPIECE}, </s>)"
        )
    nllb = nllb_names(tokens)
    if nllb and pieces.model_type == BPE:
        write_nllb_tokenizer(folder, tokenizer.to_str(), nllb, languages, _SPECIAL_TOKENS)
        return "transformers' NllbTokenizer makes a token of spaces at the end of a text; remove them from texts"
    tokenizer.save(str(folder / "tokenizer.json"))
    names = [token for token in tokens if token.startswith("__") and token.endswith("__")]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **_SPECIAL_TOKENS,
        "model_max_length": 1024,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": language_token is not None,  # __xx__ within a text is text, as in fairseq
    }
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "special_tokens_map.json", {**_SPECIAL_TOKENS, "additional_special_tokens": names})
    if language_token is None:
        return (
            "the tokenizer puts no language token before a text: begin each text with __xx__, or export with -s and -t "
            "(any __xx__ within a text counts as a language)"
        )
    if nllb:
        return (
            f"NLLB's tokenizer splits by BPE, but {spm} does not: the exported tokenizer has no src_lang, and begins "
            f"every text with {language_token}"
        )
    return None


def _remark_on_whitespace(pieces: Pieces) -> str | None:
    """A remark if M2M100's tokenizer makes unknown tokens of whitespace that fairseq drops.

    U+0085 is ignored: even M2M100's SentencePiece model keeps it.
    """
    table = character_table(pieces.character_map)
    whitespace = [c for c in map(chr, range(0x3001)) if c.isspace() and c not in " \x85"]
    left = [character for character in whitespace if table.get(character, character) == character]
    if pieces.byte_pieces or not left:
        return None
    names = all_of(f"U+{ord(character):04X}" for character in left)
    return f"the tokenizer makes unknown tokens of whitespace that fairseq drops ({names}); write it as spaces"


def _write_m2m100(folder: Path, tokens: Sequence[str], codes: str, size: int, languages: Sequence[str | None]) -> None:
    write_json(folder / "vocab.json", {token: number for number, token in enumerate(tokens[:size])})
    names = [f"__{name}__" for name in m2m100_languages(codes, "the export")]
    settings = {
        "tokenizer_class": "M2M100Tokenizer",
        "language_codes": codes,
        "num_madeup_words": len(tokens) - size - len(names),
        "additional_special_tokens": names,
        "model_max_length": 1024,
        "src_lang": languages[0],
        "tgt_lang": languages[1],
        **_SPECIAL_TOKENS,
        "sep_token": "</s>",
        "split_special_tokens": True,  # __xx__ within a text is text, as in fairseq
    }
    write_json(folder / "tokenizer_config.json", {key: value for key, value in settings.items() if value is not None})
    write_json(folder / "special_tokens_map.json", {**_SPECIAL_TOKENS, "additional_special_tokens": names})


def _m2m100_form(tokens: Sequence[str]) -> tuple[str, int] | None:
    """The language list of M2M100Tokenizer that the tokens hold, and the number of tokens before it; None if none."""
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
