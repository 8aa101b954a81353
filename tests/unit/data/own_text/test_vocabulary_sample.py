"""The text of a SentencePiece model: balanced shares, no sentence twice, the same each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from langspec_lora.data.own_text.columns import Columns
from langspec_lora.data.own_text.text_files import find_text
from langspec_lora.data.own_text.vocabulary_sample import draw, shares
from tests.unit.data.own_text.corpora import rows_of, write_columns


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_shares_are_the_root_of_the_numbers_of_sentences(temperature) -> None:
    sentences = {"en": 1_000_000, "fr": 20_000, "wo": 300, "none": 0}
    plan = shares(sentences, 100_000, temperature)
    assert set(plan) == {"en", "fr", "wo"}
    weight = {name: count * often for name, (count, often) in plan.items()}
    for name in ("fr", "wo"):
        wanted = (sentences[name] / sentences["en"]) ** (1 / temperature)
        assert weight[name] / weight["en"] == pytest.approx(wanted, rel=0.06)
        assert plan[name][0] <= sentences[name]
    assert sum(count for count, _ in plan.values()) <= 100_000


def test_languages_of_one_size_count_once() -> None:
    assert shares({"en": 997, "fr": 997, "wo": 990}, 1_000_000, 5.0) == {"en": (997, 1), "fr": (997, 1), "wo": (990, 1)}


@pytest.fixture
def columns(tmp_path: Path) -> tuple[Columns, list]:
    first = rows_of(("en", "fr"), 60, 1)
    write_columns(tmp_path / "text", ["en-fr.en", "en-fr.fr"], [*first, ("", "ij"), *first[:5]])
    write_columns(
        tmp_path / "text", ["en-wo.en", "en-wo.wo"], [(en, "qr " * n) for n, (en, _) in enumerate(first[:9], 1)]
    )
    texts = find_text({"train": (tmp_path / "text",)}).texts["train"]
    (tmp_path / "numbers").mkdir()
    found = Columns(tmp_path / "numbers")
    found.measure(texts)
    return found, texts


def test_sentences_are_drawn_once_and_held_out_ones_never(columns) -> None:
    numbers, texts = columns
    en = texts[0].columns[0]
    numbers.hold_out("en", numbers.normal(en)[:3])
    lines, counts = draw(numbers, texts)
    assert len(lines) == len(set(lines)) == len(counts) == 57 + 61 + 9
    held = en.path.read_text().splitlines()[:3]
    assert not set(held) & set(lines)
    assert counts[-1] > counts[0]  # Wolof has fewer sentences, so each counts more


def test_a_large_language_gives_a_part_of_its_sentences_the_same_each_time(columns) -> None:
    numbers, texts = columns
    lines, _ = draw(numbers, texts, most=30, temperature=1.0)
    assert len(lines) in range(28, 32)
    assert draw(numbers, texts, most=30, temperature=1.0)[0] == lines
