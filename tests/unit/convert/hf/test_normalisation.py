"""Tables of SentencePiece models, read and carried out, against the rules they were made of and a plain loop."""

from __future__ import annotations

import io
import random
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import pytest

from langspec_lora.convert.hf import normalisation
from langspec_lora.convert.hf.normalisation import character_table, normalisation_steps
from langspec_lora.convert.hf.sentencepiece_model import read_pieces

sentencepiece = pytest.importorskip("sentencepiece")


def compiled(folder: Path, rules: Mapping[str, str]) -> bytes:
    """A table as SentencePiece itself writes it."""
    lines = ("\t".join(" ".join(f"{ord(c):X}" for c in text) for text in item) for item in rules.items())
    path = folder / "rules.tsv"
    path.write_text("".join(f"{line}\n" for line in lines))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a"]), model_writer=model, model_type="char", vocab_size=5, minloglevel=2,
        hard_vocab_limit=False, normalization_rule_tsv=str(path),
    )  # fmt: skip
    return read_pieces(model.getvalue()).character_map


def normalised(text: str, rules: Mapping[str, str]) -> str:
    """What SentencePiece makes of a text: from the left, the longest that the table holds."""
    longest = max(map(len, rules))
    done = []
    while text:
        size = next((n for n in range(min(longest, len(text)), 0, -1) if text[:n] in rules), 0)
        done.append(rules[text[:size]] if size else text[0])
        text = text[size or 1 :]
    return "".join(done)


COMPOSED = {unicodedata.normalize("NFD", letter): letter for letter in "éèâäçñőữặệ" + "\u0226\u1fb4\u304c\u30d1"}
RULES = {
    **COMPOSED,
    **{"e\u0302": "ê", "e\u0323": "ẹ", "a\u0323": "ạ", "u\u031b": "ư", "\u03b1\u0301": "ά"},  # on their way
    **{"\uff21": "A", "\ufb01": "fi", "\u00bd": "1/2", "\u2122": "TM", "\u3000": " ", "\t": " ", "\u2028": " "},
    **{"\u200b": "", "\ufeff": "", "\x08": "", "\u0340": "\u0300"},
    **{"\r\n": " ", "\n": " ", "\r": " "},
    **{"qu": "kw", "que": "K", "[?": "!", ".*": "+"},  # of no Unicode, and signs of regular expressions
    **{"\U0001d518": "U", "Ä": "ä", "Ω": "ω"},
}
MARKS = "\u0300\u0301\u0302\u0308\u0323\u0327\u030b\u031b\u0345\u093c\u0b3c\u3099\u309a\u064b\u0651\u200d\ufe0f"
LETTERS = "aeioucnAO.*[?que\u0915\u0b21\u304b\u30cf\u0627 \u11a8\u1100"


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> bytes:
    return compiled(tmp_path_factory.mktemp("rules"), RULES)


def test_a_small_table_holds_the_rules_that_it_was_made_of(table) -> None:
    assert character_table(table) == RULES


def test_a_table_of_all_sizes_of_characters_and_offsets_holds_its_rules(tmp_path) -> None:
    """Of many entries, so that the trie has far offsets, which it counts in steps of 256."""
    draw = random.Random(3)
    planes = ((1, 0x80), (0x80, 0x800), (0x800, 0xD800), (0xE000, 0xFDD0), (0x10000, 0x110000))
    characters = [chr(draw.randrange(*draw.choice(planes))) for _ in range(9000)]
    rules = {
        "".join(draw.choices(characters, k=draw.choice((1, 1, 1, 2, 3)))): "".join(
            draw.choices(characters, k=draw.randrange(5))
        )
        for _ in range(12000)
    }
    assert character_table(compiled(tmp_path, rules)) == rules


def test_a_model_that_does_not_normalise_has_no_table() -> None:
    assert character_table(b"") == {}
    assert normalisation_steps(b"") == ()


def steps_of(table: bytes) -> object:
    normalizers = pytest.importorskip("tokenizers", reason="needs the extra hf").normalizers
    return normalizers.Sequence(list(normalisation_steps(table)))


def test_the_library_s_steps_do_what_the_table_says(table) -> None:
    steps = steps_of(table)
    draw = random.Random(4)
    characters = sorted({character for key in RULES for character in key} | {*MARKS, *LETTERS})
    texts = [*RULES, *RULES.values(), "", "x\u200b", "\ufb01\u0301", "a\u0301\u0323", "\ufeff", "\r\n\r\n", "quE"]
    texts += ["".join(draw.choices(characters, k=draw.randint(1, 12))) for _ in range(800)]
    texts += [
        "".join(draw.choice(characters) + draw.choice(MARKS) for _ in range(draw.randint(1, 4))) for _ in range(500)
    ]
    wrong = [ascii(text) for text in texts if steps.normalize_str(text) != normalised(text, RULES)]
    assert wrong == []


def test_every_control_and_every_mark_is_kept_apart_from_what_stands_before_it(table) -> None:
    steps = steps_of(table)
    categories = ("Cc", "Zl", "Zp", "Mn", "Mc", "Me", "Cf")
    for number in (*range(1, 0xD800), *range(0x10000, 0x1F000)):
        character = chr(number)
        kind = unicodedata.category(character)
        if unicodedata.normalize("NFC", character) != character:
            continue  # which every table of Unicode's holds
        if kind in categories or (kind == "Cn" and number < 0x3000):
            text = f"\uff21{character}\uff21{character}"
            assert steps.normalize_str(text) == normalised(text, RULES), ascii(character)


@pytest.mark.parametrize(("number", "declined"), [(5, False), (6, True)])
def test_a_table_of_too_much_that_is_no_unicode_is_declined(tmp_path, monkeypatch, number, declined) -> None:
    pytest.importorskip("tokenizers", reason="needs the extra hf")
    monkeypatch.setattr(normalisation, "_MOST_EXCEPTIONS", 5)
    rules = {f"{chr(0x4E00 + index)}{chr(0x4E00 + index // 2)}": f"{index % 3}" for index in range(number)}
    assert (normalisation_steps(compiled(tmp_path, {**rules, "\uff21": "A"})) is None) == declined
