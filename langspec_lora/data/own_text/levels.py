"""Resource levels suggested by how much training text each language has."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from langspec_lora.data.own_text.defaults import HIGH, MED
from langspec_lora.languages import LEVELS

_ALIKE = 2  # if the largest language has fewer than so many times the lines of the smallest, they say little


def suggest_levels(sentences: Mapping[str, int], high: int = HIGH, med: int = MED) -> dict[str, str]:
    """The level of each language.

    Args:
        sentences: how many different sentences of each language are trained on.
        high: from how many on a language is high.
        med: from how many on it is med.
    """
    return {name: "high" if n >= high else "med" if n >= med else "low" for name, n in sentences.items()}


def doubt(sentences: Mapping[str, int], levels: Mapping[str, str]) -> str | None:
    """Why the suggested levels may be of no use, in a sentence; None if they may be."""
    if len(set(levels.values())) > 1 or len(levels) < 2:
        return None
    level = next(iter(levels.values()))
    alike = max(sentences.values()) < _ALIKE * min(sentences.values())
    why = "have about as many training sentences" if alike else f"have {level} resources by these bounds"
    return (
        f"all languages {why}, so all are {level} and get the same rank; levels matter where the languages differ in "
        "what the base was trained on: edit languages.yaml, or set --high-lines and --med-lines"
    )


def levels_text(levels: Mapping[str, str], ranks: Mapping[str, int], comment: str) -> str:
    """The text of a ``--lang-resources`` file."""
    content: dict[str, object] = {
        level: [name for name, own in levels.items() if own == level] for level in LEVELS if level in levels.values()
    }
    content |= {"ranks": dict(ranks)} if ranks else {}
    body = "".join(
        yaml.safe_dump({key: value}, default_flow_style=None, allow_unicode=True, sort_keys=False, width=110)
        for key, value in content.items()
    )
    return f"# {comment}\n{body}"
