"""Tokenizer files for an exported model, in which every token has the id that fairseq's dictionary gives it.

transformers' ``M2M100Tokenizer`` knows the languages of M2M100 (or of WMT21) in one order and counts their ids from the
end of its vocabulary. Dictionaries of that form get it, with SentencePiece itself splitting the text. Others, such as
those of FLORES-101's languages, it would misread; they get a tokenizer of the library ``tokenizers``.
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
    """Reads a dictionary and makes sure that it belongs to a model.

    Args:
        dictionary: the fairseq dictionary.
        spm: the SentencePiece model.
        rows: number of embeddings.
        languages: names that must have a token there; None is passed over.
        order: of the language tokens that the model's training appended to its dictionary.

    Returns:
        The tokens by id.

    Raises:
        UserError: a file is missing, or they do not belong together.
    """
    for path, what in ((dictionary, "dictionary"), (spm, "SentencePiece model")):
        if not path.is_file():
            raise UserError(f"there is no {what} {path}; check the path")
    check_fit(spm, dictionary)
    loaded = load_dictionary(dictionary)
    if order is not None and len(loaded) < rows:
        order.append(loaded)
    tokens = loaded.symbols
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
        A remark for the user, where something is not as in M2M100, or None.
    """
    shutil.copyfile(spm, folder / SENTENCEPIECE)
    form = _m2m100_form(tokens)
    if form is not None:
        _write_m2m100(folder, tokens, *form, languages)
        return _remark_on_white_space(read_pieces(spm.read_bytes()))
    source = None if languages[0] is None else f"__{languages[0]}__"
    pieces = read_pieces(spm.read_bytes())
    try:
        tokenizer = build_tokenizer(pieces, tokens, source)
        check_against(tokenizer, spm, tokens, source)
    except NoTokenizer as reason:
        write_json(folder / "vocab.json", {token: number for number, token in enumerate(tokens)})
        # transformers would take M2M100's tokenizer, which misreads this vocabulary, if none were named.
        write_json(folder / "tokenizer_config.json", {"tokenizer_class": "NoTokenizerOfTransformers"})
        return (
            f"no tokenizer of transformers splits text as {spm} does, since {reason}: vocab.json holds the ids of all "
            f"tokens (a source is __xx__, the pieces of {SENTENCEPIECE}, </s>)"
        )
    nllb = nllb_names(tokens)
    if nllb and pieces.kind == BPE:
        write_nllb_tokenizer(folder, tokenizer.to_str(), nllb, languages, _SPECIAL_TOKENS)
        return "transformers' NllbTokenizer makes a token of spaces at the end of a text; give texts without them"
    tokenizer.save(str(folder / "tokenizer.json"))
    names = [token for token in tokens if token.startswith("__") and token.endswith("__")]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **_SPECIAL_TOKENS,
        "model_max_length": 1024,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": source is not None,  # __xx__ within a text is text, as to fairseq
    }
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "special_tokens_map.json", {**_SPECIAL_TOKENS, "additional_special_tokens": names})
    if source is None:
        return (
            "the tokenizer puts no language token before a text: begin it with __xx__, or give -s and -t (and any "
            "__xx__ within a text is a language to it)"
        )
    if nllb:
        return (
            f"NLLB's own tokenizer splits by BPE, {spm} does not: the exported tokenizer knows no src_lang, and begins "
            f"every text with {source}"
        )
    return None


def _remark_on_white_space(pieces: Pieces) -> str | None:
    """Where M2M100's tokenizer differs from fairseq: white space that SentencePiece does not know is a token to it.

    U+0085 is left out: even M2M100's own model leaves that one in a text.
    """
    table = character_table(pieces.character_map)
    white = [character for character in map(chr, range(0x3001)) if character.isspace() and character not in " \x85"]
    left = [character for character in white if table.get(character, character) == character]
    if pieces.bytes or not left:
        return None
    names = ", ".join(f"U+{ord(character):04X}" for character in left)
    return f"an unknown token stands for white space that fairseq leaves out ({names}): write it as spaces"


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
        "split_special_tokens": True,  # __xx__ within a text is text, as to fairseq
    }
    write_json(folder / "tokenizer_config.json", {key: value for key, value in settings.items() if value is not None})
    write_json(folder / "special_tokens_map.json", {**_SPECIAL_TOKENS, "additional_special_tokens": names})


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
