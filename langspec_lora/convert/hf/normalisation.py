"""How a SentencePiece model normalises text, as steps of the library ``tokenizers``.

A model holds a table of strings and their replacements; SentencePiece scans a text from the left and replaces the
longest match. ``tokenizers`` can read that table, but looks up whole user-perceived characters and takes the shortest
entry: ``ﬁ`` with an accent loses the accent, an ``e`` with two accents keeps one, and decomposed Korean and Japanese
stay decomposed. So here it looks up single code points only, which it does correctly. What the table composes from
several code points is left to Unicode's NFC, which then has the same result. Where the table does not compose or
reorder what NFC would (an Arabic vowel after its shadda, an accent after ``ﬁ``), a code point that no text holds
separates the two.
"""

from __future__ import annotations

import io
import re
import struct
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from sentencepiece import SentencePieceTrainer

from langspec_lora.convert.hf.files import optional_module
from langspec_lora.convert.hf.sentencepiece_model import read_pieces

_APART, _ALONE = "\ufdd0", "\ufdd1"  # noncharacters: Unicode reserves them for use within a program
_MOST_EXCEPTIONS = 2000


@cache
def character_table(compiled: bytes) -> Mapping[str, str]:
    """The table of a SentencePiece model: strings and their replacements.

    Args:
        compiled: the table in binary form: size, double-array trie (darts-clone), and the strings its values point to.
    """
    if not compiled:
        return {}
    (size,) = struct.unpack_from("<I", compiled)
    units = np.frombuffer(compiled, "<u4", size // 4, 4).astype(np.int64)
    texts = compiled[4 + size :]
    first = np.arange(len(units)) ^ ((units >> 10) << ((units & 1 << 9) >> 6))
    children: dict[int, list[tuple[int, int]]] = {}
    for byte in range(1, 256):
        child = np.minimum(first ^ byte, len(units) - 1)
        parents = np.flatnonzero((units[child] & (1 << 31 | 255)) == byte)
        for parent, node in zip(parents.tolist(), child[parents].tolist(), strict=True):
            children.setdefault(parent, []).append((byte, node))
    table: dict[str, str] = {}
    nodes = [(0, b"")]
    while nodes:
        node, key = nodes.pop()
        if units[node] >> 8 & 1 and key:
            start = int(units[first[node]]) & ~(1 << 31)
            table[key.decode()] = texts[start : texts.index(b"\0", start)].decode()
        nodes += ((child, key + bytes([byte])) for byte, child in children.get(node, ()))
    return table


@cache
def normalisation_steps(compiled: bytes) -> tuple[Any, ...] | None:
    """The steps that normalise a text like the table of a SentencePiece model.

    Args:
        compiled: the table in binary form.

    Returns:
        Normalizers of ``tokenizers``; None if the table differs from Unicode's normalisation, such as a custom one.
    """
    table = character_table(compiled)
    if not table:
        return ()
    normalizers = optional_module("tokenizers").normalizers
    compose = normalizers.NFC()
    several = {key: value for key, value in table.items() if len(key) > 1}
    exceptions = _exceptions(several, table, compose)
    if sum(map(len, exceptions.values())) > _MOST_EXCEPTIONS:
        return None
    before = _composed_after(several)
    return (
        *(_replace(_any_of(keys), value) for value, keys in exceptions.items()),
        *_spaces_and_nothing(table),
        _replace("\r\n", f"\r{_ALONE}\n"),
        normalizers.Prepend(_ALONE),
        *(normalizers.Precompiled(_compiled(separated)) for separated in _separated(before)),
        *([_replace(_composed(before), _ALONE)] if before else []),
        normalizers.Precompiled(compiled),
        _replace(_ALONE, ""),
        compose,
        _replace(_APART, ""),
    )


def _replace(pattern: str, text: str) -> Any:
    library = optional_module("tokenizers")
    return library.normalizers.Replace(library.Regex(pattern), text)


def _exceptions(several: Mapping[str, str], table: Mapping[str, str], compose: Any) -> dict[str, list[str]]:
    """What the table composes differently from NFC, by replacement, longest first."""
    spelled = ("".join(table.get(character, character) for character in key) for key in several)
    composed = compose.normalize_str("\0".join(spelled)).split("\0")
    found: dict[str, list[str]] = {}
    for (key, value), reached in zip(several.items(), composed, strict=True):
        if reached != value:
            found.setdefault(value, []).append(key)
    return dict(sorted(found.items(), key=lambda item: -max(map(len, item[1]))))


def _spaces_and_nothing(table: Mapping[str, str]) -> Iterator[Any]:
    """What becomes a space or nothing; the library fails on the latter at the end of a text."""
    for value, text in ((" ", " "), ("", _APART)):
        characters = [key for key in table if table[key] == value and len(key) == 1]
        if characters:
            yield _replace(_class(characters), text)


def _separated(before: Mapping[str, set[str]]) -> Iterator[dict[str, str]]:
    """Tables that separate what the library would look up as one character.

    Applied one after the other, so that no character is looked up together with a mark that is not yet separated.
    """
    controls = _of_category("Cc", "Zl", "Zp") - {"\0"} | set("\xad\u061c\u200b\u200e\u200f\u2060\ufeff")
    marks = _of_category("Mn", "Mc", "Me") | set("\u200c\u200d")
    unassigned = {character for character in _of_category("Cn") if character < "\u3000"}  # marks of a later Unicode
    others = {*before, *"\u0e33\u0eb3", *unassigned} - marks
    yield {character: character + _ALONE for character in controls}
    yield {character: _APART + character for character in marks}
    yield {character: _APART + character for character in others}


def _of_category(*categories: str) -> set[str]:
    return {chr(number) for number in range(sys.maxunicode + 1) if unicodedata.category(chr(number)) in categories}


def _compiled(table: Mapping[str, str]) -> bytes:
    """A table in SentencePiece's binary form, made by SentencePiece itself."""
    with TemporaryDirectory() as folder:
        rules = Path(folder, "rules.tsv")
        lines = ("\t".join(" ".join(f"{ord(c):X}" for c in text) for text in item) for item in sorted(table.items()))
        rules.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
        model = io.BytesIO()
        SentencePieceTrainer.train(
            sentence_iterator=iter(["a"]),
            model_writer=model,
            model_type="char",
            vocab_size=5,
            hard_vocab_limit=False,
            normalization_rule_tsv=str(rules),
            minloglevel=2,
        )
    return read_pieces(model.getvalue()).character_map


def _any_of(texts: Iterable[str]) -> str:
    return "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True))


def _composed_after(several: Iterable[str]) -> dict[str, set[str]]:
    """For each character that follows another in the table, the characters that it follows."""
    before: dict[str, set[str]] = {}
    for key in several:
        for previous, character in pairwise(key):
            before.setdefault(character, set()).add(previous)
    return before


def _composed(before: Mapping[str, set[str]]) -> str:
    """A pattern of the separators before marks that the table composes with the character before them."""
    groups: dict[frozenset[str], set[str]] = {}
    for character, characters in before.items():
        groups.setdefault(frozenset(characters), set()).add(character)
    return "|".join(f"(?<={_class(previous)}){_APART}(?={_class(marks)})" for previous, marks in groups.items())


def _class(characters: Iterable[str]) -> str:
    """A character class of a regular expression, its ranges joined."""
    numbers = sorted(map(ord, characters))
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return "[" + "".join(rf"\x{{{start:X}}}-\x{{{end:X}}}" for start, end in ranges) + "]"
