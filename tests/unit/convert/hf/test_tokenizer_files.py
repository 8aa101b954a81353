"""The tokenizer files of exported models: all fields of each, by the form of the dictionary and the model."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from langspec_lora.checkpoints.token_order import TokenOrder
from langspec_lora.convert.hf.tokenizer_files import TOKENIZER_FILES, check_tokenizer, write_tokenizer
from langspec_lora.errors import UserError

pytest.importorskip("transformers", reason="needs the extra hf: transformers is not installed")
sentencepiece = pytest.importorskip("sentencepiece")

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
LINE = f"abc bcd cde dea eab {' '.join('abcdefghijklmnopqrstuvwxyzL')}"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """SentencePiece models that do not normalise, by their kind."""
    folder = tmp_path_factory.mktemp("models")
    kinds = {
        "unigram": {"model_type": "unigram"},
        "bpe": {"model_type": "bpe"},
        "word": {"model_type": "word"},
        "bytes": {"model_type": "unigram", "byte_fallback": True, "vocab_size": 330},
    }
    for name, settings in kinds.items():
        model = io.BytesIO()
        defaults = {"vocab_size": 70, "normalization_rule_name": "identity", "hard_vocab_limit": False}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([LINE] * 5), model_writer=model, minloglevel=2, **{**defaults, **settings}
        )
        (folder / name).write_bytes(model.getvalue())
    return {name: folder / name for name in kinds}


def pieces_of(spm: Path) -> list[str]:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    return [processor.id_to_piece(number) for number in range(3, processor.get_piece_size())]


def languages_of(codes: str) -> list[str]:
    from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

    return [f"__{name}__" for name in FAIRSEQ_LANGUAGE_CODES[codes]]


def read(folder: Path) -> dict[str, object]:
    """The JSON files that were written, but for the library's own."""
    return {path.name: json.loads(path.read_text()) for path in folder.glob("*.json") if path.name != "tokenizer.json"}


@pytest.mark.parametrize("codes", ["m2m100", "wmt21"])
@pytest.mark.parametrize("languages", [("en", "ha"), (None, None)], ids=str)
@pytest.mark.parametrize("unused", [0, 8])
def test_a_dictionary_of_m2m100s_form_gets_its_tokenizer(tmp_path, models, codes, languages, unused) -> None:
    names, pieces = languages_of(codes), pieces_of(models["bytes"])
    tokens = [*SPECIALS, *pieces, *names, *(f"madeupword{number:04d}" for number in range(unused))]
    assert write_tokenizer(tmp_path, tokens, models["bytes"], languages) is None
    own = {"src_lang": languages[0], "tgt_lang": languages[1]} if languages[0] else {}
    assert read(tmp_path) == {
        "vocab.json": {token: number for number, token in enumerate([*SPECIALS, *pieces])},
        "tokenizer_config.json": {
            "tokenizer_class": "M2M100Tokenizer",
            "language_codes": codes,
            "num_madeup_words": unused,
            "additional_special_tokens": names,
            "model_max_length": 1024,
            **own,
            **SPECIAL_TOKENS,
            "sep_token": "</s>",
            "split_special_tokens": True,
        },
        "special_tokens_map.json": {**SPECIAL_TOKENS, "additional_special_tokens": names},
    }
    assert (tmp_path / "sentencepiece.bpe.model").read_bytes() == models["bytes"].read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {*TOKENIZER_FILES} - {"tokenizer.json"}


def test_white_space_that_m2m100s_tokenizer_takes_for_unknown_is_listed(tmp_path, models) -> None:
    tokens = [*SPECIALS, *pieces_of(models["unigram"]), *languages_of("m2m100")]
    remark = write_tokenizer(tmp_path, tokens, models["unigram"], (None, None))
    white = [chr(number) for number in range(sys.maxunicode) if chr(number).isspace() and chr(number) not in " \x85"]
    assert f"({', '.join(f'U+{ord(character):04X}' for character in white)})" in remark


@pytest.mark.parametrize(
    "change",
    [
        lambda tokens, names: ["<pad>", "<s>", *tokens[2:]],
        lambda tokens, names: [*tokens[: -len(names)], *reversed(names)],
        lambda tokens, names: tokens[:-1],
        lambda tokens, names: [*tokens, "__xx__"],
        lambda tokens, names: [*tokens, "madeupword0000", "z9"],
        lambda tokens, names: [*tokens[:-3], "__xx__", *tokens[-3:]],
        lambda tokens, names: [token for token in tokens if token != names[0]],
    ],
    ids=["symbols", "order", "one less", "one more", "a piece", "within", "the first"],
)
def test_other_orders_of_m2m100s_languages_get_a_tokenizer_of_their_own(tmp_path, models, change) -> None:
    names = languages_of("m2m100")
    tokens = change([*SPECIALS, *pieces_of(models["unigram"]), *names], names)
    assert write_tokenizer(tmp_path, tokens, models["unigram"], ("en", "fr")) is None
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    vocabulary = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    assert [token for token, _ in vocabulary] == tokens


@pytest.mark.parametrize("source", ["en", None])
def test_other_dictionaries_get_all_settings_of_a_tokenizer(tmp_path, models, source) -> None:
    tokens = [*SPECIALS, *pieces_of(models["unigram"]), "__en__", "__wo__", "__x", "x__", "madeupword0000"]
    remark = write_tokenizer(tmp_path, tokens, models["unigram"], (source, "wo"))
    assert (remark is None) == (source is not None)
    assert read(tmp_path) == {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **SPECIAL_TOKENS,
            "model_max_length": 1024,
            "model_input_names": ["input_ids", "attention_mask"],
            "clean_up_tokenization_spaces": False,
            "split_special_tokens": source is not None,
        },
        "special_tokens_map.json": {**SPECIAL_TOKENS, "additional_special_tokens": ["__en__", "__wo__"]},
    }
    assert {path.name for path in tmp_path.iterdir()} == {*TOKENIZER_FILES} - {"vocab.json"}


def test_a_model_that_no_tokenizer_splits_as_gets_its_ids_and_no_class(tmp_path, models) -> None:
    tokens = [*SPECIALS, *pieces_of(models["word"]), "__en__"]
    remark = write_tokenizer(tmp_path, tokens, models["word"], ("en", None))
    assert f"splits text like {models['word']}, since it is a model of whole words: vocab.json holds" in remark
    assert read(tmp_path) == {
        "vocab.json": {token: number for number, token in enumerate(tokens)},
        "tokenizer_config.json": {"tokenizer_class": "NoTokenizerOfTransformers"},
    }
    assert {path.name for path in tmp_path.iterdir()} == {*read(tmp_path), "sentencepiece.bpe.model"}


@pytest.mark.parametrize(
    ("kind", "kept", "expected"),
    [
        ("bpe", "NllbTokenizer", "NllbTokenizer makes a token of spaces at the end of a text"),
        ("unigram", "PreTrainedTokenizerFast", "has no src_lang, and begins every text with __eng_Latn__"),
    ],
)
def test_nllbs_languages_get_its_tokenizer_where_the_model_is_bpe(tmp_path, models, kind, kept, expected) -> None:
    tokens = [*SPECIALS, *pieces_of(models[kind]), "__eng_Latn__", "__wol_Latn__"]
    assert expected in write_tokenizer(tmp_path, tokens, models[kind], ("eng_Latn", "wol_Latn"))
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == kept
    assert {name: settings[name] for name in SPECIAL_TOKENS} == SPECIAL_TOKENS


def test_files_that_are_missing_or_do_not_fit_are_named(tmp_path, models) -> None:
    spm, dictionary = models["unigram"], tmp_path / "dict.txt"
    tokens = [*pieces_of(spm), "__en__"]
    rows = 4 + len(tokens)
    with pytest.raises(UserError, match=f"^dictionary {dictionary} not found; check the path$"):
        check_tokenizer(dictionary, spm, rows, ())
    dictionary.write_text("".join(f"{token} 1\n" for token in tokens))
    with pytest.raises(UserError, match=f"^SentencePiece model {tmp_path / 'spm'} not found; check the path$"):
        check_tokenizer(dictionary, tmp_path / "spm", rows, ())
    assert check_tokenizer(dictionary, spm, rows, (None, "en")) == [*SPECIALS, *tokens]
    for number in (rows - 1, rows + 1):
        with pytest.raises(
            UserError, match=f"^dictionary {dictionary} has {rows} tokens, but the model has {number} emb"
        ):
            check_tokenizer(dictionary, spm, number, ())
    with pytest.raises(UserError, match=f"^dictionary {dictionary} has no token __wo__; give a language"):
        check_tokenizer(dictionary, spm, rows, ("en", "wo"))


def test_language_tokens_that_only_the_embeddings_have_are_appended(tmp_path, models) -> None:
    spm, dictionary = models["unigram"], tmp_path / "dict.txt"
    tokens = pieces_of(spm)
    dictionary.write_text("".join(f"{token} 1\n" for token in tokens))
    order = TokenOrder(tmp_path, ("wo", "en"))
    rows = 4 + len(tokens) + 2
    expected = [*SPECIALS, *tokens, "__wo__", "__en__"]
    assert check_tokenizer(dictionary, spm, rows, ("en", "wo"), order) == expected
    with pytest.raises(UserError, match=f"has {rows - 2} tokens, but the model has {rows} embeddings"):
        check_tokenizer(dictionary, spm, rows, ())
    # A dictionary that is whole has what the model was trained with, whatever the order says.
    assert check_tokenizer(dictionary, spm, rows - 2, (), order) == expected[:-2]
