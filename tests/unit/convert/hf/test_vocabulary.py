"""Tokens and ids of Hugging Face's tokenizer files as a fairseq dictionary, and files that are none."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from langspec_lora.convert.hf import vocabulary
from langspec_lora.convert.hf.vocabulary import m2m100_languages, read_vocabulary, sentencepiece_model
from langspec_lora.errors import UserError

SPECIALS = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}


def write_fast(folder: Path, ids: object, added: object = (), **settings) -> Path:
    content = {"model": {"vocab": ids}, "added_tokens": added}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def write_slow(folder: Path, ids: object, added: object = None, **settings) -> Path:
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "added_tokens.json").write_text(json.dumps(added or {}))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def entry(token: str, number: int, special: bool = True) -> dict[str, object]:
    return {"content": token, "id": number, "special": special}


def test_each_row_of_the_embeddings_gets_a_token(tmp_path) -> None:
    ids = {**SPECIALS, "▁a": 4, "madeupword0001": 6, "eng_Latn": 7}
    added = [entry("<s>", 0), entry("eng_Latn", 7), entry("<mask>", 9), entry("gsw-BE", 10, False)]
    found = read_vocabulary(write_fast(tmp_path, ids, added), 13)
    expected = ["▁a", "madeupword0000", "madeupword0001", "__eng_Latn__", "madeupword0002", "<mask>", "__gsw_BE__"]
    expected += ["madeupword0003", "madeupword0004"]
    assert found.tokens == (*SPECIALS, *expected)
    assert found.order == tuple(range(13))
    assert found.languages == ("eng_Latn", "gsw_BE")
    assert found.dictionary() == "".join(f"{token} 1\n" for token in expected)


def test_fairseqs_four_symbols_come_first_wherever_they_are(tmp_path) -> None:
    ids = {"a": 0, "<pad>": 1, "<unk>": 2, "b": 3, "</s>": 4, "c": 5, "<s>": 6}
    found = read_vocabulary(write_fast(tmp_path, ids), 8)
    assert found.tokens == ("<s>", "<pad>", "</s>", "<unk>", "a", "b", "c", "madeupword0000")
    assert found.order == (6, 1, 4, 2, 0, 3, 5, 7)


def test_vocabularies_of_unigram_tokenizers_are_lists(tmp_path) -> None:
    pairs = [[token, -1.5] for token in (*SPECIALS, "a", "b")]
    assert read_vocabulary(write_fast(tmp_path, pairs), 6).tokens == (*SPECIALS, "a", "b")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"model": None},
        {"model": {}},
        *(
            {"model": {"vocab": vocab}}
            for vocab in (None, 5, "ab", [1], [["a"]], [[["a"], 0.0]], [[5, 0.0]], [[None, 0.0]])
        ),
    ],
    ids=str,
)
def test_a_file_without_a_vocabulary_is_damaged(tmp_path, content) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"tokenizer\.json is damaged: it has no vocabulary; download it again"):
        read_vocabulary(tmp_path, 9)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ({"a": -1}, "gives 'a' the id -1; expected a number of at least 0"),
        ({"x" * 50: -1}, f"gives {'x' * 40!r} the id -1; expected"),
        ({"a": 4.0}, "gives 'a' the id 4.0; expected"),
        ({"a": "4"}, "gives 'a' the id '4'; expected"),
        ({"a": None}, "gives 'a' the id None; expected"),
        ({"a": [4]}, "gives 'a' the id [4]; expected"),
        ({"a": 4, "x" * 50: 5, "y" * 50: 5}, f"gives {'y' * 40!r} the id 5, which {'x' * 40!r} has; expected"),
        ({"a": 7}, "has the id 7, but its weights have 7 embeddings"),
        *(({"a": 4}, f"has no {token}, which every fairseq dictionary has") for token in SPECIALS),
        ({"a": 4, "b\nc": 5}, "the token 'b\\nc' contains a line break, which a fairseq"),
        ({"a": 4, "\r" + "x" * 50: 5}, f"the token {chr(13) + 'x' * 39!r} contains a line break"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_ids_that_no_dictionary_has_are_named(tmp_path, ids, expected) -> None:
    all_ids = {token: number for token, number in SPECIALS.items() if f"has no {token}," not in expected} | ids
    with pytest.raises(UserError) as refused:
        read_vocabulary(write_fast(tmp_path, all_ids), 7)
    assert str(tmp_path) in str(refused.value)
    assert expected in str(refused.value)


def test_the_last_row_may_have_a_token_and_an_empty_vocabulary_lacks_all(tmp_path) -> None:
    assert read_vocabulary(write_fast(tmp_path, {**SPECIALS, "a": 6}), 7).tokens[-1] == "a"
    with pytest.raises(UserError, match="has no <s>"):
        read_vocabulary(write_fast(tmp_path, {}), 1)


def test_only_a_tokenizer_that_puts_the_language_last_is_remarked_on(tmp_path) -> None:
    for settings, expected in (({}, 0), ({"legacy_behaviour": False}, 0), ({"legacy_behaviour": True}, 1)):
        remarks = read_vocabulary(write_fast(tmp_path, SPECIALS, **settings), 4).remarks
        assert len(remarks) == expected
        assert all("legacy_behaviour is true" in remark for remark in remarks)


def test_an_added_token_has_the_id_of_the_vocabulary(tmp_path) -> None:
    token = "x" * 50
    folder = write_fast(tmp_path, {**SPECIALS, token: 4}, [entry(token, 5)])
    with pytest.raises(UserError) as refused:
        read_vocabulary(folder, 9)
    expected = f"{folder}: its tokenizer gives {token[:40]!r} the ids 5 and 4; expected one id for each token"
    assert str(refused.value) == expected


def test_two_tokens_of_one_language_are_refused(tmp_path) -> None:
    folder = write_fast(tmp_path, {**SPECIALS, "__kbd__": 4}, [entry("kbd", 5, False)])
    with pytest.raises(UserError, match=r"has __kbd__ twice, with the ids 4 and 5, .* leave one out with --added-lang"):
        read_vocabulary(folder, 9)
    assert read_vocabulary(folder, 9, []).tokens[4:6] == ("__kbd__", "kbd")


@pytest.mark.parametrize("names", [1, 2, 3])
def test_a_sentencepiece_model_is_found_under_any_of_its_names(tmp_path, names) -> None:
    for name in ("sentencepiece.bpe.model", "spiece.model", "spm.model")[-names:]:
        (tmp_path / name).touch()
    expected = {3: "sentencepiece.bpe.model", 2: "spiece.model", 1: "spm.model"}[names]
    assert sentencepiece_model(tmp_path) == tmp_path / expected


def test_a_sentencepiece_model_that_is_missing_is_asked_for(tmp_path) -> None:
    with pytest.raises(UserError, match=rf"^{tmp_path} has no sentencepiece.bpe.model, .* --sentencepiece-model$"):
        sentencepiece_model(tmp_path)


@pytest.fixture(scope="module")
def lists() -> dict[str, list[str]]:
    """transformers' lists of languages, by the name of the list."""
    name = "transformers.models.m2m_100.tokenization_m2m_100"
    return pytest.importorskip(name, reason="needs the extra hf").FAIRSEQ_LANGUAGE_CODES


@pytest.mark.parametrize("codes", ["m2m100", "wmt21", None])
def test_languages_of_m2m100_stand_after_its_vocabulary(tmp_path, codes, lists) -> None:
    settings = {"language_codes": codes} if codes else {}
    folder = write_slow(tmp_path, {**SPECIALS, "a": 4}, **settings)
    if codes is None:
        (folder / "tokenizer_config.json").unlink()
        (folder / "added_tokens.json").unlink()
    found = read_vocabulary(folder, 200)
    expected = [f"__{name}__" for name in lists[codes or "m2m100"]]
    assert found.tokens[4 : 6 + len(expected)] == ("a", *expected, "madeupword0000")
    assert found.languages == tuple(lists[codes or "m2m100"])
    assert found.remarks == ()


def test_a_language_that_stands_after_those_of_m2m100_is_remarked_on(tmp_path, lists) -> None:
    size = 5 + len(lists["m2m100"])
    added = {"__tyv__": size, "kbd": size + 1, "__wo__": 5 + lists["m2m100"].index("wo")}
    settings = {"additional_special_tokens": ["__wo__", "wo", "sah", "a"]}
    found = read_vocabulary(write_slow(tmp_path, {**SPECIALS, "a": 4}, added, **settings), 200)
    assert found.tokens[size : size + 2] == ("__tyv__", "__kbd__")
    assert found.remarks[0] == "languages that were added to the tokenizer: __tyv__ (as tyv), kbd"
    assert found.remarks[-1] == "tokens without an id in the tokenizer's files are left out: sah"
    assert len(found.remarks) == 3


@pytest.mark.parametrize("codes", ["m2m", ["m2m100"], 5])
def test_a_list_of_languages_that_transformers_lacks_is_answered_with_those_it_has(tmp_path, codes, lists) -> None:
    folder = write_slow(tmp_path, SPECIALS, language_codes=codes)
    with pytest.raises(UserError) as refused:
        read_vocabulary(folder, 200)
    assert str(refused.value) == (
        f"{folder / 'tokenizer_config.json'}: unknown list of languages {codes!r}; transformers has {', '.join(lists)}"
    )
    assert m2m100_languages("wmt21", "it") == lists["wmt21"]


@pytest.mark.parametrize("kind", ["BertTokenizer", "Nllb", "M2M100TokenizerFast"])
def test_other_tokenizers_are_named(tmp_path, kind) -> None:
    folder = write_slow(tmp_path, SPECIALS, tokenizer_class=kind)
    with pytest.raises(UserError, match=rf"^{folder} has a '{kind}'; expected the tokenizer of M2M100 or NLLB-200$"):
        read_vocabulary(folder, 200)


@pytest.fixture(scope="module")
def spm() -> tuple[bytes, list[str]]:
    """A SentencePiece model, and its pieces after the three symbols with which it begins."""
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["abc bcd cde"]),
        model_writer=model,
        vocab_size=10,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    assert [processor.id_to_piece(number) for number in range(3)] == ["<unk>", "<s>", "</s>"]
    return model.getvalue(), [processor.id_to_piece(number) for number in range(3, processor.get_piece_size())]


@pytest.fixture(scope="module")
def nllb_codes() -> list[str]:
    name = "transformers.models.nllb.tokenization_nllb"
    return list(pytest.importorskip(name, reason="needs the extra hf").FAIRSEQ_LANGUAGE_CODES)


@pytest.mark.parametrize("kind", ["NllbTokenizer", "NllbTokenizerFast"])
def test_nllb_without_ids_has_the_codes_and_then_the_mask(tmp_path, spm, nllb_codes, kind) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    (tmp_path / "sentencepiece.bpe.model").write_bytes(spm[0])
    found = read_vocabulary(tmp_path, 300)
    expected = (*SPECIALS, *spm[1], *(f"__{code}__" for code in nllb_codes), "<mask>", "madeupword0000")
    assert found.tokens[: len(expected)] == expected
    assert found.languages == tuple(nllb_codes)
    assert found.remarks == ()


@pytest.mark.parametrize("token", ["<mask>", "zul_Latn"])
def test_nllb_with_one_id_has_no_order_of_its_own(tmp_path, spm, nllb_codes, token) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "NllbTokenizer"}')
    (tmp_path / "sentencepiece.bpe.model").write_bytes(spm[0])
    (tmp_path / "added_tokens.json").write_text(json.dumps({token: 50}))
    found = read_vocabulary(tmp_path, 60)
    assert found.tokens[: 4 + len(spm[1])] == (*SPECIALS, *spm[1])
    assert found.tokens[50] == ("<mask>" if token == "<mask>" else "__zul_Latn__")
    assert found.tokens[4 + len(spm[1])] == "madeupword0000"


def test_a_file_that_is_no_sentencepiece_model_is_said(tmp_path, nllb_codes, monkeypatch) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "NllbTokenizer"}')
    (tmp_path / "spm.model").write_text("nothing")
    with pytest.raises(UserError, match=rf"^{tmp_path / 'spm.model'} is not a SentencePiece model: "):
        read_vocabulary(tmp_path, 60)
    monkeypatch.setattr(vocabulary, "sentencepiece_model", lambda folder: folder / "gone")  # in the meantime
    with pytest.raises(UserError, match=rf"^{tmp_path / 'gone'} is not a SentencePiece model: "):
        read_vocabulary(tmp_path, 60)


def test_without_transformers_a_fast_tokenizer_is_read_all_the_same(tmp_path, monkeypatch, spm) -> None:
    def missing(name: str) -> None:
        raise UserError("transformers is not installed")

    monkeypatch.setattr(vocabulary, "optional_module", missing)
    added = [entry("eng_Latn", 4)]
    found = read_vocabulary(write_fast(tmp_path, SPECIALS, added), 5)
    assert found.languages == ("eng_Latn",)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "NllbTokenizer"}')
    (tmp_path / "sentencepiece.bpe.model").write_bytes(spm[0])
    with pytest.raises(UserError, match="transformers is not installed"):
        read_vocabulary(tmp_path, 300)
