"""Tokens that a Hugging Face tokenizer has in addition to its vocabulary, and which of them name languages.

transformers writes their ids into ``tokenizer.json`` (fast tokenizers), ``tokenizer_config.json``
(``added_tokens_decoder``) and ``added_tokens.json`` (slow tokenizers).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langcodes import tag_is_valid

from langspec_lora.convert.hf.files import read_json
from langspec_lora.errors import UserError
from langspec_lora.naming import some_of

_KNOWN = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_NLLB_CODE = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")
_LANGUAGE_TOKEN = re.compile(r"__(\w+)__")
_CODE = re.compile(r"[a-z]{2,3}([-_][A-Za-z0-9]{2,8})*")


@dataclass(frozen=True)
class AddedTokens:
    """What the files of a tokenizer say about the tokens that are not in its vocabulary.

    Attributes:
        ids: their ids, by token.
        special: those that the tokenizer calls special.
        known: tokens for padding, sentence ends and the like, which cannot name a language.
        without_id: special tokens that have no id in any file.
    """

    ids: Mapping[str, int]
    special: frozenset[str]
    known: frozenset[str]
    without_id: tuple[str, ...]

    @property
    def candidates(self) -> list[str]:
        """Tokens that may name a language, by their ids."""
        return sorted((token for token in self.ids if token not in self.known), key=self.ids.__getitem__)


def read_added_tokens(folder: Path) -> AddedTokens:
    """Reads all files of a folder that name added tokens.

    Raises:
        UserError: a file is damaged, or two of them give a token different ids.
    """
    ids: dict[str, int] = {}
    special: set[str] = set()
    for path, token, number, is_special in _entries(folder):
        if not isinstance(token, str) or not isinstance(number, int):
            raise UserError(f"{path} is damaged: its added tokens have no ids; download it again")
        if ids.setdefault(token, number) != number:
            raise UserError(
                f"{path} gives {token[:40]!r} the id {number}, but another file of {folder} gives it {ids[token]}; "
                "the files belong to different tokenizers"
            )
        special |= {token} if is_special else set()
    known, listed = set(_KNOWN), list[str]()
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            content = read_json(folder / name)
            known |= {_text(content.get(key)) for key in _NAMED}
            for key in _LISTS:
                listed += map(_text, content[key]) if isinstance(content.get(key), list) else []
    without_id = tuple(dict.fromkeys(token for token in listed if token and token not in ids))
    return AddedTokens(ids, frozenset(special), frozenset(known), without_id)


def _entries(folder: Path) -> Iterator[tuple[Path, Any, Any, bool]]:
    """File, token, id, and whether it is special, of every added token."""
    path = folder / "tokenizer.json"
    try:
        if path.is_file():
            for entry in read_json(path).get("added_tokens") or ():
                yield path, entry["content"], entry["id"], bool(entry.get("special"))
        path = folder / "tokenizer_config.json"
        if path.is_file():
            for number, entry in (read_json(path).get("added_tokens_decoder") or {}).items():
                yield path, entry["content"], int(number), bool(entry.get("special"))
        path = folder / "added_tokens.json"
        if path.is_file():
            for token, number in read_json(path).items():
                yield path, token, number, False
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged: its added tokens have no ids; download it again") from error


def _text(token: Any) -> str:
    """A token's text, which may be given as a mapping."""
    return str(token.get("content") or "") if isinstance(token, Mapping) else str(token or "")


def language_names(added: AddedTokens, vocabulary: Collection[str], given: Sequence[str] | None) -> dict[str, str]:
    """The language that each added token names.

    Args:
        added: the added tokens.
        vocabulary: the tokens of the vocabulary itself, which are pieces of words.
        given: the languages among them, besides special codes and ``__xx__``; None for those that look like a
            language code.

    Returns:
        The language's name for ``--langs``, by token.

    Raises:
        UserError: ``given`` names an unknown token, or one that fairseq does not accept as a language's name.
    """
    candidates = added.candidates
    unknown = [token for token in given or () if token not in candidates]
    if unknown:
        raise UserError(
            f"--added-languages names {unknown[0]!r}, which is not an added token of the tokenizer; it has "
            f"{some_of(candidates) or 'none'}"
        )
    names: dict[str, str] = {}
    for token in candidates:
        marked = _LANGUAGE_TOKEN.fullmatch(token)
        if (
            marked
            or (token in added.special and _NLLB_CODE.fullmatch(token))
            or (token in given if given is not None else _is_code(token) and token not in vocabulary)
        ):
            # fairseq splits en-gsw-BE at every dash, and uses names in file names.
            names[token] = marked[1] if marked else token.replace("-", "_")
            if not re.fullmatch(r"\w+", names[token]):
                raise UserError(
                    f"--added-languages {token[:40]!r}: a language's name may hold only letters, digits, - and _; "
                    "rename the token in the tokenizer's files"
                )
    return names


def _is_code(token: str) -> bool:
    return bool(_CODE.fullmatch(token)) and bool(_NLLB_CODE.fullmatch(token) or tag_is_valid(token))


def language_remarks(
    added: AddedTokens, names: Mapping[str, str], standard: Collection[str], used: Collection[str]
) -> list[str]:
    """Remarks for the user on what became of the added tokens.

    Args:
        added: the added tokens.
        names: what :func:`language_names` returned.
        standard: the languages that the tokenizer has without added tokens.
        used: all tokens that have an id.
    """
    new = [token if name == token else f"{token} (as {name})" for token, name in names.items() if name not in standard]
    others = [token for token in added.candidates if token not in names]
    lost = [token for token in added.without_id if token not in added.known and token not in used]
    remarks = [f"languages that were added to the tokenizer: {some_of(new)}"] if new else []
    if others:
        remarks.append(f"added tokens that are not languages: {some_of(others)}")
    if new or others:
        remarks.append(
            "choose the added tokens that are languages with --added-languages A,B, or --added-languages none"
        )
    if lost:
        remarks.append(f"tokens without an id in the tokenizer's files are left out: {some_of(lost)}")
    return remarks
