"""NLLB's tokenizer of an exported model: names, files, and what it puts around a text."""

from __future__ import annotations

import json

import pytest

from langspec_lora.convert.hf.nllb_tokenizer import nllb_names, write_nllb_tokenizer

tokenizers = pytest.importorskip("tokenizers", reason="needs the extra hf: tokenizers is not installed")


def test_only_a_dictionary_with_nllbs_languages_has_its_names() -> None:
    specials = ["<s>", "<pad>", "</s>", "<unk>", "a", "__", "____"]
    assert nllb_names([*specials, "__en__", "__wo__", "eng_Latn", "__eng_latn__", "__engl_Latn__"]) == {}
    names = {"__eng_Latn__": "eng_Latn", "__kbd__": "kbd", "__gsw_BE__": "gsw_BE"}
    assert nllb_names([*specials, *names, "__a-b__", "<mask>"]) == names
    assert list(nllb_names([*specials, *names])) == list(names)


def test_a_name_that_another_token_has_is_not_given_twice() -> None:
    assert nllb_names(["__eng_Latn__", "kbd", "__kbd__"]) == {"__eng_Latn__": "eng_Latn"}


SETTINGS = {"bos_token": "<s>", "unk_token": "<unk>", "tokenizer_class": "another"}


def write(folder, codes, languages, mask=True) -> tuple[list[str], dict]:
    """Writes a tokenizer of single letters, and gives its tokens by id and its settings."""
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "a", "b", *(f"__{code}__" for code in codes), *["<mask>"][: int(mask)]]
    ids = {token: number for number, token in enumerate(tokens)}
    own = tokenizers.Tokenizer(tokenizers.models.BPE(ids, [], unk_token="<unk>"))
    own.add_special_tokens([token for token in tokens if "_" in token or token.startswith("<")])
    own.post_processor = tokenizers.processors.TemplateProcessing(
        single=["__eng_Latn__", "$A"], special_tokens=[("__eng_Latn__", ids["__eng_Latn__"])]
    ) if "eng_Latn" in codes else None  # fmt: skip
    write_nllb_tokenizer(folder, own.to_str(), nllb_names(tokens), languages, SETTINGS)
    return tokens, json.loads((folder / "tokenizer_config.json").read_text())


@pytest.mark.parametrize(
    ("codes", "languages", "source"),
    [
        (["wol_Latn", "eng_Latn", "kbd"], ("kbd", "wol_Latn"), "kbd"),
        (["wol_Latn", "eng_Latn", "kbd"], (None, None), "eng_Latn"),
        (["wol_Latn", "zul_Latn", "kbd"], (None, "zul_Latn"), "wol_Latn"),
    ],
)
def test_a_text_stands_between_its_language_and_the_end(tmp_path, codes, languages, source) -> None:
    tokens, settings = write(tmp_path, codes, languages)
    loaded = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    first = tokens.index(f"__{source}__")
    assert loaded.encode("ab").ids == [first, 4, 5, 2]
    assert loaded.encode("ab", "b").ids == [first, 4, 5, 5, 2]
    expected = [token[2:-2] if token.startswith("__") else token for token in tokens]
    assert [loaded.id_to_token(number) for number in range(len(tokens))] == expected
    assert loaded.encode(f"a{codes[0]}", add_special_tokens=False).ids == [4, tokens.index(f"__{codes[0]}__")]
    assert settings == {
        "bos_token": "<s>",
        "unk_token": "<unk>",
        "tokenizer_class": "NllbTokenizer",
        "additional_special_tokens": codes,
        "mask_token": "<mask>",
        "src_lang": source,
        "tgt_lang": languages[1],
        "legacy_behaviour": False,
    }


def test_a_dictionary_without_a_mask_has_none(tmp_path) -> None:
    assert write(tmp_path, ["eng_Latn"], (None, None), mask=False)[1]["mask_token"] is None
