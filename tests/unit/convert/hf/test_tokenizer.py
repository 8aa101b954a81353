"""Tokenizers of exported folders, as transformers loads them, against SentencePiece and fairseq's dictionary."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from langspec_lora.convert.hf.tokenizer_files import check_tokenizer, write_tokenizer
from langspec_lora.errors import UserError
from tests import toy

transformers = pytest.importorskip("transformers", reason="needs the extra hf: transformers is not installed")
sentencepiece = pytest.importorskip("sentencepiece")

TEXTS = [
    "two  spaces",
    " around ",
    "",
    "\uff21\uff22\uff23 ½ ﬁ",
    "日本 en1 日",
    "wie\u00a0geht's",
    "e\u0301te\u0301 été",
    "en1en2 wo3\tnl4",
]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("text")
    toy.write_text(folder)
    lines = [line for path in sorted(folder.glob("train.*")) for line in path.read_text().splitlines()]
    return [*lines, "un été chaud", "a fine day", "wie geht's dir"]


def write(folder: Path, text: list[str], kind: str, **settings) -> tuple[Path, Path, list[str]]:
    """Trains a model and writes its dictionary, languages of no list of transformers at its end."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_writer=model,
        vocab_size=70,
        model_type=kind,
        minloglevel=2,
        character_coverage=1.0,
        **({"hard_vocab_limit": False} if kind == "unigram" else {}),
        **settings,
    )
    spm, dictionary = folder / "spm.model", folder / "dict.txt"
    spm.write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    tokens = [processor.id_to_piece(number) for number in range(3, processor.get_piece_size())]
    tokens += ["__wo__", "__xx_Latn__", "madeupword0000"]
    dictionary.write_text("".join(f"{token} 1\n" for token in tokens))
    return spm, dictionary, ["<s>", "<pad>", "</s>", "<unk>", *tokens]


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_other_dictionaries_get_a_tokenizer_with_their_ids(tmp_path, text, kind) -> None:
    spm, dictionary, tokens = write(tmp_path, text, kind)
    out = tmp_path / "out"
    out.mkdir()
    languages = ("xx_Latn", "wo")
    assert write_tokenizer(out, check_tokenizer(dictionary, spm, len(tokens), languages), spm, languages) is None
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    for line in (*text, *TEXTS):
        ids = [tokens.index(piece) if piece in tokens else 3 for piece in processor.encode(line, out_type=str)]
        assert tokenizer(line).input_ids == [tokens.index("__xx_Latn__"), *ids, 2]
    for line in text:
        assert tokenizer.decode(tokenizer(line).input_ids, skip_special_tokens=True) == line
    assert tokenizer.convert_tokens_to_ids(["__wo__", "<pad>"]) == [tokens.index("__wo__"), 1]
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.unk_token) == ("<pad>", "</s>", "<unk>")
    batch = tokenizer([text[0], text[0] + text[1]], padding=True)
    assert set(batch) == {"input_ids", "attention_mask"}
    assert set(batch.input_ids[0][len(tokenizer(text[0]).input_ids) :]) == {1}


def test_without_a_direction_the_text_begins_with_its_language(tmp_path, text) -> None:
    spm, dictionary, tokens = write(tmp_path, text, "unigram")
    remark = write_tokenizer(tmp_path, check_tokenizer(dictionary, spm, len(tokens), ()), spm, (None, None))
    assert "begin each text with __xx__" in remark
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    ids = [tokens.index(piece) for piece in processor.encode("en1 en2", out_type=str)]
    assert tokenizer("__wo__ en1 en2").input_ids == [tokens.index("__wo__"), *ids, 2]


def test_what_no_tokenizer_of_transformers_does_is_said(tmp_path, text) -> None:
    spm, _, tokens = write(tmp_path, text, "unigram", treat_whitespace_as_suffix=True)
    remark = write_tokenizer(tmp_path, tokens, spm, (None, None))
    assert "no tokenizer of transformers splits text" in remark
    assert json.loads((tmp_path / "vocab.json").read_text())["__wo__"] == tokens.index("__wo__")
    assert not (tmp_path / "tokenizer.json").exists()


def test_files_that_do_not_belong_together_are_refused(tmp_path, text) -> None:
    spm, dictionary, tokens = write(tmp_path, text, "unigram")
    with pytest.raises(UserError, match=f"has {len(tokens)} tokens, but the model has 7 embeddings"):
        check_tokenizer(dictionary, spm, 7, ())
    with pytest.raises(UserError, match="has no token __yy__"):
        check_tokenizer(dictionary, spm, len(tokens), ("wo", "yy"))
    with pytest.raises(UserError, match=r"dictionary .* not found"):
        check_tokenizer(tmp_path / "none", spm, len(tokens), ())
    (tmp_path / "other.txt").write_text("".join(f"word{number} 1\n" for number in range(80)))
    with pytest.raises(UserError, match="lacks"):
        check_tokenizer(tmp_path / "other.txt", spm, 84, ())
