"""Names in messages: a part of long lists, as two hundred languages fill a screen; the nearest known name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_ALL = 24
_FIRST = 8
_LONGEST_TEXT = 80


def some_of(names: Iterable[object], between: str = ", ") -> str:
    """``en, fr, de``; of more than 24 names ``aa, ab, … zz (200)``: the first eight, the last and their number.

    Args:
        names: the names, in their order.
        between: what stands between two names: a comma alone if the list can be copied as a flag's value.
    """
    texts = [str(name) for name in names]
    if len(texts) <= _ALL:
        return between.join(texts)
    return f"{between.join(texts[:_FIRST])}{between}… {texts[-1]} ({len(texts):,})"


def all_of(names: Iterable[object]) -> str:
    """All names, for a list that cannot grow and of which each name matters."""
    return ", ".join(map(str, names))


def unlike(one: Iterable[object], other: Iterable[object], between: str = ", ") -> tuple[str, str]:
    """Two lists that differ, each as a text; those of more than 24 names begin where they differ.

    Args:
        one: a list of names.
        other: another list.
        between: as in :func:`some_of`.
    """
    lists = [[str(name) for name in names] for names in (one, other)]
    if max(map(len, lists)) <= _ALL:
        return between.join(lists[0]), between.join(lists[1])
    same = next((n for n, pair in enumerate(zip(*lists, strict=False)) if pair[0] != pair[1]), min(map(len, lists)))

    def part(names: list[str]) -> str:
        shown = between.join(names[same : same + _FIRST]) or "nothing"
        more = f"{between}…" if len(names) > same + _FIRST else ""
        return f"{shown}{more} (from number {same + 1:,} on, of {len(names):,})"

    return part(lists[0]), part(lists[1])


def cut(text: object, most: int = _LONGEST_TEXT) -> str:
    """A text of the user's as a message shows it: cut if it is long."""
    text = str(text)
    return text if len(text) <= most else f"{text[:most]}…"


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """The known word nearest to an unknown one, if one is near."""
    return difflib.get_close_matches(word, list(known), n=1)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"did you mean …? "`` with the known word nearest to an unknown one; empty if none is near."""
    return "".join(f"did you mean {name}? " for name in nearest(word, known))
