"""transformers' ``NllbTokenizer`` for an exported model, so that ``src_lang="eng_Latn"`` works as in NLLB-200.

fairseq's dictionary calls a language ``__eng_Latn__``, ``NllbTokenizer`` calls it ``eng_Latn``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langspec_lora.convert.hf.files import optional_module, write_json

_NLLB_TOKEN = re.compile(r"__[a-z]{3}_[A-Z][a-z]{3}__")


def nllb_names(tokens: Sequence[str]) -> dict[str, str]:
    """The names that NLLB's tokenizer gives to a dictionary's language tokens; empty if the dictionary is not NLLB's.

    Args:
        tokens: the tokens by id.
    """
    if not any(map(_NLLB_TOKEN.fullmatch, tokens)):
        return {}
    taken = set(tokens)
    plain = ((token, token[2:-2]) for token in tokens if re.fullmatch(r"__\w+__", token))
    return {token: name for token, name in plain if name not in taken}


def write_nllb_tokenizer(
    folder: Path, tokenizer: str, names: Mapping[str, str], languages: Sequence[str | None], settings: Mapping[str, Any]
) -> None:
    """Writes ``tokenizer.json`` and the settings of ``NllbTokenizer``.

    Args:
        folder: the folder to write to.
        tokenizer: the JSON text of a BPE tokenizer with the dictionary's tokens.
        names: what :func:`nllb_names` returned for them.
        languages: source and target language by default, or None.
        settings: the special tokens, and anything else for a tokenizer of any class.
    """
    content = json.loads(tokenizer)
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {names.get(token, token): number for token, number in vocabulary.items()}
    for entry in content["added_tokens"]:
        entry["content"] = names.get(entry["content"], entry["content"])
    codes = list(names.values())
    source_lang = languages[0] or ("eng_Latn" if "eng_Latn" in codes else codes[0])
    content["post_processor"] = None  # it uses the dictionary's names
    library = optional_module("tokenizers")
    renamed = library.Tokenizer.from_str(json.dumps(content))
    ids = [(source_lang, vocabulary[f"__{source_lang}__"]), ("</s>", vocabulary["</s>"])]
    renamed.post_processor = library.processors.TemplateProcessing(
        single=[source_lang, "$A", "</s>"], pair=[source_lang, "$A", "$B", "</s>"], special_tokens=ids
    )
    renamed.save(str(folder / "tokenizer.json"))
    nllb_settings = {
        "tokenizer_class": "NllbTokenizer",
        "additional_special_tokens": codes,
        "mask_token": "<mask>" if "<mask>" in vocabulary else None,
        "src_lang": source_lang,
        "tgt_lang": languages[1],
        "legacy_behaviour": False,
    }
    write_json(folder / "tokenizer_config.json", {**settings, **nllb_settings})
