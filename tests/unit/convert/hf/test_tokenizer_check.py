"""A tokenizer that is wrong for one kind of text only is noticed before it is written."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from langspec_lora.convert.hf.fast_tokenizer import NoTokenizer
from langspec_lora.convert.hf.tokenizer_check import check_against

sentencepiece = pytest.importorskip("sentencepiece")


@pytest.fixture(scope="module")
def spm(tmp_path_factory) -> Path:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["abc bcd cde", "dea eab"]), model_writer=model, vocab_size=15, minloglevel=2,
        hard_vocab_limit=False, normalization_rule_name="identity",
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model") / "spm.model"
    path.write_bytes(model.getvalue())
    return path


@pytest.fixture(scope="module")
def tokens(spm) -> list[str]:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    pieces = [processor.id_to_piece(number) for number in range(3, processor.get_piece_size())]
    return ["<s>", "<pad>", "</s>", "<unk>", *pieces, "__en__", "__wo__", "madeupword0000"]


class Tokenizer:
    """Gives the ids of SentencePiece and a dictionary, but for texts that are to go wrong.

    Args:
        spm: the model.
        tokens: the dictionary's.
        before: ids before each text.
        fails: the texts that go wrong.
    """

    def __init__(self, spm: Path, tokens: list[str], before: list[int], fails: Callable[[str], bool]) -> None:
        self._processor = sentencepiece.SentencePieceProcessor(model_file=str(spm))
        self._tokens, self._before, self._fails = tokens, before, fails
        self.encode_special_tokens = False
        self.texts: list[str] = []

    def encode(self, text: str) -> SimpleNamespace:
        assert self.encode_special_tokens  # __en__ within a text is text, as to fairseq
        self.texts.append(text)
        ids = list(self._before)
        for piece in self._processor.encode(text, out_type=str):
            # fairseq drops white space, and parts what holds some.
            ids += [self._tokens.index(part) if part in self._tokens else 3 for part in piece.split()]
        return SimpleNamespace(ids=[*ids, 9 if self._fails(text) else 2])


@pytest.mark.parametrize("source", [None, "__wo__"])
def test_a_right_tokenizer_passes_and_takes_special_tokens_again(spm, tokens, source) -> None:
    before = [] if source is None else [tokens.index(source)]
    tokenizer = Tokenizer(spm, tokens, before, lambda text: False)
    check_against(tokenizer, spm, tokens, source)
    assert tokenizer.encode_special_tokens is False
    assert len(tokenizer.texts) > 1000
    other = Tokenizer(spm, tokens, [tokens.index("__en__")], lambda text: False)
    with pytest.raises(NoTokenizer, match=r"^the library splits '' differently$"):
        check_against(other, spm, tokens, source)


@pytest.mark.parametrize(
    "part",
    [
        *("\u0300", "\u0301", "\u0308", "\u0323", "\u064b", "\u0651", "\u093c", "\u0e33", "\u3099", "\u11a8", "\u1161"),
        *("\u200d", "\ufe0f", "\ufb01", "\uff21", "\u00bd", "\u3000", "\t", "\u0085", "\u2028", "  ", "a  b"),
        *("<s>", "<pad>", "<unk>", "__en__", "__wo__", "madeupword0000", "abc", "\u0301\u0308", "\u0301 ", "a\u0301"),
    ],
    ids=ascii,
)
def test_marks_white_space_and_every_token_are_tried(spm, tokens, part) -> None:
    with pytest.raises(NoTokenizer) as found:
        check_against(Tokenizer(spm, tokens, [], lambda text: part in text), spm, tokens, None)
    text = str(found.value).removeprefix("the library splits ").removesuffix(" differently")
    assert repr(part)[1:-1] in text


@pytest.mark.parametrize("text", ["", " ", "  a  b  "])
def test_texts_of_nothing_and_of_spaces_are_tried(spm, tokens, text) -> None:
    with pytest.raises(NoTokenizer) as found:
        check_against(Tokenizer(spm, tokens, [], lambda own: own == text), spm, tokens, None)
    assert repr(text) in str(found.value)


def test_the_same_texts_are_tried_each_time(spm, tokens) -> None:
    first, again = (Tokenizer(spm, tokens, [], lambda text: False) for _ in range(2))
    check_against(first, spm, tokens, None)
    check_against(again, spm, tokens, None)
    assert first.texts == again.texts


def test_of_a_large_dictionary_a_sample_is_tried(spm, tokens) -> None:
    large = [*tokens, *(f"word{number}b" for number in range(3000))]
    tokenizer = Tokenizer(spm, large, [], lambda text: False)
    check_against(tokenizer, spm, large, None)
    assert len(tokenizer.texts) < 2500
    tried = {number for number in range(3000) if any(f"word{number}b" in text for text in tokenizer.texts)}
    assert 800 < len(tried) < 2500
