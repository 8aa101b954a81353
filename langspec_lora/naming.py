"""Long lists of names in messages: some of them and their number, as two hundred languages fill a screen."""

from __future__ import annotations

from collections.abc import Iterable

_ALL = 24
_FIRST = 8


def some_of(names: Iterable[object]) -> str:
    """``en, fr, de``; of more than 24 names ``aa, ab, … zz (200)``: the first eight, the last and their number."""
    texts = [str(name) for name in names]
    if len(texts) <= _ALL:
        return ", ".join(texts)
    return f"{', '.join(texts[:_FIRST])}, … {texts[-1]} ({len(texts):,})"
