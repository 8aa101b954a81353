"""Tokenizers built from a few pieces, against plain loops over all ways to split; and models that have none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, product

import pytest

from langspec_lora.convert.hf.fast_tokenizer import NoTokenizer, build_tokenizer
from langspec_lora.convert.hf.sentencepiece_model import BPE, CHAR, UNIGRAM, WORD, Pieces

pytest.importorskip("tokenizers", reason="needs the extra hf: tokenizers is not installed")

SCORES = {"▁": -2.0, "a": -3.5, "b": -3.0, "c": -4.25, "s": -9.0, "p": -9.5, "u": -9.75, "n": -9.8, "_": -9.9}
SCORES |= {"▁a": -2.25, "ab": -3.75, "bc": -5.0, "abc": -6.0, "▁ab": -4.5, "ca": -6.25, "bb": -5.5}
BYTES = tuple(f"<0x{number:02X}>" for number in range(256))
MODEL = Pieces(SCORES, (), (), UNIGRAM, b"", adds_space=True, merges_spaces=True, marks_spaces=True)
TOKENS = ["<s>", "<pad>", "</s>", "<unk>", *SCORES, "__ab__", "__c__"]
TEXTS = ["".join(parts) for size in range(7) for parts in product("abc ", repeat=size) if size < 5 or parts[0] == "a"]


def tokens_of(tokenizer, text: str) -> list[str]:
    return [TOKENS[number] for number in tokenizer.encode(text).ids]


def written(text: str) -> str:
    """A text as SentencePiece splits it: single spaces between words, and one before them."""
    words = text.split(" ")
    return "".join(f"▁{word}" for word in words if word) or ""


def splits(text: str) -> list[list[str]]:
    """All ways to split a text into pieces."""
    if not text:
        return [[]]
    sizes = [size for size in range(1, len(text) + 1) if text[:size] in SCORES]
    return [[text[:size], *rest] for size in sizes for rest in splits(text[size:])]


def merged(text: str) -> list[str]:
    """The pieces that BPE arrives at: the two whose union scores best are joined, again and again."""
    parts = list(text)
    while True:
        pairs = [(SCORES[a + b], -place) for place, (a, b) in enumerate(pairwise(parts))
                 if a + b in SCORES]  # fmt: skip
        if not pairs:
            return parts
        place = -max(pairs)[1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


def test_a_unigram_tokenizer_takes_the_split_of_the_best_score() -> None:
    tokenizer = build_tokenizer(MODEL, TOKENS, None)
    for text in TEXTS:
        best = max(splits(written(text)), key=lambda parts: sum(SCORES[part] for part in parts))
        own = tokens_of(tokenizer, text)
        assert own[-1] == "</s>"
        assert "".join(own[:-1]) == written(text)
        assert sum(SCORES[part] for part in own[:-1]) == pytest.approx(sum(SCORES[part] for part in best)), text


def test_a_bpe_tokenizer_joins_what_scores_best() -> None:
    tokenizer = build_tokenizer(replace(MODEL, model_type=BPE), TOKENS, None)
    for text in TEXTS:
        assert tokens_of(tokenizer, text) == [*merged(written(text)), "</s>"], text


def test_a_tokenizer_of_characters_joins_nothing() -> None:
    tokenizer = build_tokenizer(replace(MODEL, model_type=CHAR), TOKENS, None)
    for text in TEXTS:
        assert tokens_of(tokenizer, text) == [*written(text), "</s>"]


@pytest.mark.parametrize("kind", [UNIGRAM, BPE])
@pytest.mark.parametrize("source", [None, "__ab__"])
def test_a_text_stands_between_its_language_and_the_end(kind, source) -> None:
    tokenizer = build_tokenizer(replace(MODEL, model_type=kind), TOKENS, source)
    assert tokens_of(tokenizer, "b") == [*([source] if source else []), "▁", "b", "</s>"]
    assert tokens_of(tokenizer, "__c__")[-2] == "__c__"  # a token, until encode_special_tokens is set
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    assert special == {"<s>", "<pad>", "</s>", "<unk>", "__ab__", "__c__"}
    tokenizer.encode_special_tokens = True
    assert tokens_of(tokenizer, "c__c__")[-6:-1] == ["_", "_", "c", "_", "_"]
    assert "<s>" not in tokens_of(tokenizer, "<s>")


@pytest.mark.parametrize("kind", [UNIGRAM, BPE])
def test_what_is_not_known_is_one_unknown_token_or_its_bytes(kind) -> None:
    tokenizer = build_tokenizer(replace(MODEL, model_type=kind), TOKENS, None)
    assert tokens_of(tokenizer, "a☃é☃b")[-4:] == [*{UNIGRAM: ["▁a"], BPE: ["▁a"]}[kind], "<unk>", "b", "</s>"]
    tokens = [*TOKENS, *BYTES]
    tokenizer = build_tokenizer(replace(MODEL, model_type=kind, byte_pieces=BYTES), tokens, None)
    expected = [*(f"<0x{byte:02X}>" for byte in "é".encode()), "b", "</s>"]
    assert [tokens[number] for number in tokenizer.encode("aéb").ids][1:] == expected
    assert tokenizer.decode(tokenizer.encode("aéb c").ids) == "aéb c"


@pytest.mark.parametrize("kind", [UNIGRAM, BPE])
@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("merges", [True, False])
@pytest.mark.parametrize("known", [(), BYTES], ids=["", "bytes"])
def test_spaces_are_added_and_merged_as_the_model_says(kind, adds, merges, known) -> None:
    model = replace(MODEL, model_type=kind, adds_space=adds, merges_spaces=merges, byte_pieces=known)
    tokens = [*TOKENS, *known]
    tokenizer = build_tokenizer(model, tokens, None)
    for text in ("b", " b", "b ", "b  b", "  b  b  ", "b b"):
        expected = " ".join(text.split()) if merges else text
        expected = (" " if adds else "") + expected
        own = "".join(tokens[number] for number in tokenizer.encode(text).ids[:-1])
        assert own == expected.replace(" ", "▁"), repr(text)
    assert tokenizer.decode(tokenizer.encode("b b").ids) == "b b"
    if not adds:
        assert tokenizer.decode(tokenizer.encode(" b").ids) == ("b" if merges else " b")


def test_other_white_space_is_no_token() -> None:
    tokenizer = build_tokenizer(MODEL, TOKENS, None)
    white = [chr(number) for number in range(0x3001) if chr(number).isspace() and chr(number) != " "]
    for character in white:
        assert tokens_of(tokenizer, f"c{character}c") == ["▁", "c", "c", "</s>"], ascii(character)


def tokens_with(*more: str) -> list[str]:
    return [*TOKENS, *more]


@pytest.mark.parametrize(
    ("model", "tokens", "reason"),
    [
        (replace(MODEL, model_type=WORD), TOKENS, "it is a model of whole words"),
        (replace(MODEL, marks_spaces=False), TOKENS, "it does not write spaces as \u2581 before a word"),
        (replace(MODEL, user_defined=("<sep>", "x")), TOKENS, "it has user-defined symbols, such as '<sep>'"),
        (MODEL, TOKENS[:-5], "3 of its pieces are missing from the dictionary, such as '▁ab'"),
        (replace(MODEL, byte_pieces=BYTES[:1]), TOKENS, "1 of its pieces are missing from the dictionary, such as '<0"),
        (replace(MODEL, scores={**SCORES, "a\u3000": -1}), tokens_with("a\u3000"), "its piece 'a\\u3000' holds"),
        *(
            (replace(MODEL, scores={**SCORES, "ax": -1}, model_type=kind), tokens_with("ax"), "it has no pieces for")
            for kind in (BPE, CHAR)
        ),
        (MODEL, tokens_with("☃"), "it has no piece for any character of the token"),
        (MODEL, tokens_with("☃☃"), "it has no piece for any character of the token '☃☃'"),
        (replace(MODEL, byte_pieces=BYTES), tokens_with(*BYTES, "☃"), "it has no piece for any character of the token"),
        (MODEL, tokens_with("abca"), "its pieces can spell the token 'abca'"),
        (MODEL, tokens_with("abb"), "its pieces can spell the token 'abb'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_model_that_the_library_cannot_follow_is_declined_with_the_reason(
    model: Pieces, tokens: Sequence[str], reason: str
) -> None:
    with pytest.raises(NoTokenizer) as declined:
        build_tokenizer(model, tokens, None)
    assert str(declined.value).startswith(reason)


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        (replace(MODEL, scores={**SCORES, "ax": -1}), tokens_with("ax")),
        (replace(MODEL, byte_pieces=BYTES), tokens_with(*BYTES, "☃☃")),
        (MODEL, tokens_with("aa", "cb")),  # which no piece reaches across
    ],
    ids=["characters that others lack", "bytes", "no spelling"],
)
def test_a_model_that_the_library_can_follow_is_taken(model, tokens) -> None:
    assert build_tokenizer(model, tokens, None).get_vocab_size() == len(tokens)
