"""The text that a SentencePiece model is trained on: balanced over languages, so that small ones are not lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from langspec_lora.data.own_text.columns import EMPTY, Columns, hashes_of, lines_of, normal_form
from langspec_lora.data.own_text.defaults import TEMPERATURE
from langspec_lora.data.own_text.text_files import ParallelText, all_columns

MOST_LINES = 1_000_000

_FINEST = 10  # a line of the language that is repeated least counts this often, so that others can count 1.1 times


def shares(sentences: Mapping[str, int], most: int, temperature: float) -> dict[str, tuple[int, int]]:
    """How many sentences of each language to take, and how often each of them counts.

    A language gets the share ``n ** (1 / temperature)`` of the text; one with fewer sentences repeats them.

    Args:
        sentences: the number n of each language.
        most: the number of sentences of all together, counted with their repetitions.
        temperature: 1 for shares as the text has them, more for more even ones.
    """
    weights = {name: n ** (1 / temperature) for name, n in sentences.items() if n}
    total = sum(weights.values())
    wanted = {name: weight / total * most for name, weight in weights.items()}
    taken = {name: min(sentences[name], max(1, round(wanted[name]))) for name in wanted}
    often = {name: wanted[name] / taken[name] for name in wanted}
    least = min(often.values(), default=1)
    if max(often.values(), default=1) < 1.05 * least:
        return {name: (count, 1) for name, count in taken.items()}
    return {name: (count, round(_FINEST * often[name] / least)) for name, count in taken.items()}


def draw(
    columns: Columns, texts: Sequence[ParallelText], most: int = MOST_LINES, temperature: float = TEMPERATURE
) -> tuple[list[str], list[int]]:
    """Draws sentences of the training text, each once, and none that is held out.

    Those with the smallest hashes are drawn, so the same text gives the same sentences.

    Args:
        columns: the lines.
        texts: the training texts.
        most: see :func:`shares`.
        temperature: see :func:`shares`.

    Returns:
        The sentences, and how often each counts.
    """
    by_language: dict[str, list[int]] = {}
    pairs = all_columns(texts)
    for number, (_, column) in enumerate(pairs):
        by_language.setdefault(column.language, []).append(number)
    own = {name: _distinct(columns, [pairs[n][1] for n in numbers]) for name, numbers in by_language.items()}
    plan = shares({name: len(hashes) for name, hashes in own.items()}, most, temperature)
    lines: list[str] = []
    counts: list[int] = []
    for name, numbers in by_language.items():
        if name not in plan:
            continue
        wanted, often = plan[name]
        left = set(own.pop(name)[:wanted].tolist())
        for text, column in (pairs[n] for n in numbers):
            if not left:
                break
            for block in lines_of(text, column):
                hashes = hashes_of(map(normal_form, block)).tolist()
                for line, key in zip(block, hashes, strict=True):
                    if key in left:
                        left.remove(key)
                        lines.append(line)
                        counts.append(often)
    return lines, counts


def _distinct(columns: Columns, parts: Sequence) -> np.ndarray:
    """The hashes of a language's sentences, each once, sorted."""
    found = [np.unique(columns.normal(column)[~columns.is_held_out(column)]) for column in parts]
    hashes = np.unique(np.concatenate(found))
    return hashes[hashes != EMPTY]
