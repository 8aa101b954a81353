"""Tokens beside a tokenizer's vocabulary: what its files say of them, and which are languages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from langspec_lora.convert.hf.added_tokens import AddedTokens, language_names, language_remarks, read_added_tokens
from langspec_lora.errors import UserError


def write(folder: Path, **files: object) -> Path:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_each_file_adds_what_it_knows(tmp_path) -> None:
    write(
        tmp_path,
        tokenizer={
            "added_tokens": [
                {"id": 9, "content": "late", "special": False},
                {"id": 4, "content": "eng_Latn", "special": True},
                {"id": 0, "content": "<s>", "special": True},
            ]
        },
        tokenizer_config={
            "added_tokens_decoder": {
                "4": {"content": "eng_Latn"},
                "7": {"content": "kbd", "special": True},
                "8": {"content": "[C]", "special": True},
            },
            "cls_token": {"content": "[C]"},
            "additional_special_tokens": ["eng_Latn", "sah_Cyrl", {"content": "tyv_Cyrl"}, "sah_Cyrl", "", None],
            "extra_special_tokens": "no list",
        },
        added_tokens={"kbd": 7, "word": 5},
        special_tokens_map={"extra_special_tokens": ["bul_Cyrl"], "additional_special_tokens": ["tyv_Cyrl"]},
    )
    added = read_added_tokens(tmp_path)
    assert added.ids == {"late": 9, "eng_Latn": 4, "<s>": 0, "kbd": 7, "[C]": 8, "word": 5}
    assert added.special == {"eng_Latn", "<s>", "kbd", "[C]"}
    assert added.candidates == ["eng_Latn", "word", "kbd", "late"]
    assert added.without_id == ("sah_Cyrl", "tyv_Cyrl", "bul_Cyrl")


def test_a_folder_that_names_none_has_none(tmp_path) -> None:
    for content in ({}, {"added_tokens": None, "added_tokens_decoder": None}, {"added_tokens": []}):
        write(tmp_path, tokenizer=content, tokenizer_config=content)
        assert read_added_tokens(tmp_path).candidates == []
    for path in tmp_path.iterdir():
        path.unlink()
    added = read_added_tokens(tmp_path)
    assert (added.ids, added.special, added.without_id) == ({}, frozenset(), ())


@pytest.mark.parametrize("file", ["tokenizer_config", "special_tokens_map"])
@pytest.mark.parametrize("form", [str, lambda token: {"content": token, "lstrip": False}], ids=["text", "mapping"])
def test_marks_of_sentences_are_no_candidates(tmp_path, file, form) -> None:
    names = [f"{part}_token" for part in ("bos", "eos", "unk", "pad", "sep", "cls", "mask")]
    usual = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    ids = {token: number for number, token in enumerate([*usual, *(name.upper() for name in names), "other"])}
    write(tmp_path, added_tokens=ids, **{file: {name: form(name.upper()) for name in names}})
    assert read_added_tokens(tmp_path).candidates == ["other"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        *(
            ("tokenizer", {"added_tokens": entries})
            for entries in (5, ["a"], [{"id": 3}], [{"content": "a"}], [{"content": "a", "id": "3"}])
        ),
        ("tokenizer", {"added_tokens": [{"content": 3, "id": 3}]}),
        ("tokenizer", {"added_tokens": [{"content": ["a"], "id": 3}]}),
        *(
            ("tokenizer_config", {"added_tokens_decoder": entries})
            for entries in ([1], {"x": {"content": "a"}}, {"3": {}}, {"3": "a"}, {"3": {"content": None}})
        ),
        *(("added_tokens", content) for content in ({"a": "3"}, {"a": None}, {"a": 3.0})),
    ],
)
def test_entries_without_text_or_id_are_damaged(tmp_path, file, content) -> None:
    write(tmp_path, **{file: content})
    with pytest.raises(UserError) as refused:
        read_added_tokens(tmp_path)
    assert str(refused.value) == (f"{tmp_path / file}.json is damaged: its added tokens have no ids; download it again")


def test_what_is_no_json_is_said_to_be_none(tmp_path) -> None:
    (tmp_path / "added_tokens.json").write_text("{")
    with pytest.raises(UserError, match=r"added_tokens\.json is damaged \("):
        read_added_tokens(tmp_path)


def test_files_that_contradict_each_other_are_named_with_both_ids(tmp_path) -> None:
    token = "x" * 50
    write(tmp_path, tokenizer={"added_tokens": [{"content": token, "id": 3}]}, added_tokens={token: 4})
    with pytest.raises(UserError) as refused:
        read_added_tokens(tmp_path)
    assert str(refused.value).startswith(
        f"{tmp_path / 'added_tokens.json'} gives {token[:40]!r} the id 4, but another file of {tmp_path} gives it 3; "
    )


def added(*tokens: str, special: tuple[str, ...] = (), without_id: tuple[str, ...] = ()) -> AddedTokens:
    ids = {token: 9 - number for number, token in enumerate(reversed(tokens))}
    return AddedTokens(ids, frozenset(special), frozenset({"<mask>"}), without_id)


CODES = {
    "kbd": "kbd",
    "gsw-BE": "gsw_BE",
    "sr_Latn": "sr_Latn",
    "tyv_Cyrl": "tyv_Cyrl",
    "xyz_Latn": "xyz_Latn",
    "__xyz__": "xyz",
}
WORDS = ("the", "english", "EN", "e", "<2en>", "xyz", "__a-b__", "xyz_Latin", "en_", "\u0663\u0663")


def test_codes_are_languages_and_words_are_none() -> None:
    """The codes are those of ISO 639 and BCP 47, or have the form of FLORES-200's; ``the`` is a piece of words too."""
    names = language_names(added("<mask>", *CODES, *WORDS), {"the", "__xyz__"}, None)
    assert names == CODES
    assert list(names) == list(CODES)


def test_special_codes_are_languages_even_if_they_are_pieces() -> None:
    tokens = added("eng_Latn", "wol_Latn", "kbd", special=("eng_Latn", "kbd"))
    assert language_names(tokens, {"eng_Latn", "wol_Latn", "kbd"}, None) == {"eng_Latn": "eng_Latn"}


@pytest.mark.parametrize("given", [[], ["bonjour", "the"]])
def test_a_list_takes_the_place_of_what_looks_like_a_code(given) -> None:
    tokens = added("kbd", "tyv_Cyrl", "eng_Latn", "__wo__", "bonjour", "the", special=("eng_Latn",))
    expected = {"eng_Latn": "eng_Latn", "__wo__": "wo", **{token: token for token in given}}
    assert language_names(tokens, {"the"}, given) == expected


def test_a_list_names_added_tokens_only() -> None:
    for given in (["abc"], ["word0", "<mask>"]):
        with pytest.raises(UserError) as refused:
            language_names(added("<mask>", "word0", "word1"), (), given)
        assert str(refused.value) == (
            f"--added-languages names {given[-1]!r}, which is not an added token of the tokenizer; it has word0, word1"
        )
    with pytest.raises(UserError, match=r"names 'abc', which is not an added token of the tokenizer; it has none$"):
        language_names(added("<mask>"), (), ["abc"])
    names = [f"word{number}" for number in range(25)]
    for count, shown in ((24, ", ".join(names[:24])), (25, f"{', '.join(names[:8])}, … word24 (25)")):
        with pytest.raises(UserError) as refused:
            language_names(added(*names[:count]), (), ["abc"])
        assert str(refused.value).endswith(f"; it has {shown}")


@pytest.mark.parametrize("token", ["<2en>", "a.b", f"{'a' * 45}!", "a b"])
def test_names_that_are_no_part_of_a_file_name_are_refused(token) -> None:
    with pytest.raises(UserError) as refused:
        language_names(added(token), (), [token])
    expected = f"--added-languages {token[:40]!r}: a language's name may hold only letters, digits, - and _; rename"
    assert str(refused.value).startswith(expected)


CHOICE = "choose the added tokens that are languages with --added-languages A,B, or --added-languages none"


@pytest.mark.parametrize(
    ("tokens", "names", "expected"),
    [
        (("<mask>",), {}, []),
        (("wol_Latn", "__wo__"), {"wol_Latn": "wol_Latn", "__wo__": "wo"}, []),
        (
            ("kbd", "gsw-BE"),
            {"kbd": "kbd", "gsw-BE": "gsw_BE"},
            ["added to the tokenizer: kbd, gsw-BE (as gsw_BE)", CHOICE],
        ),
        (("wol_Latn", "b", "a"), {"wol_Latn": "wol_Latn"}, ["added tokens that are not languages: b, a", CHOICE]),
        (
            ("kbd", "b"),
            {"kbd": "kbd"},
            ["languages that were added to the tokenizer: kbd", "added tokens that are not languages: b", CHOICE],
        ),
    ],
)
def test_what_became_of_the_tokens_is_said(tokens, names, expected) -> None:
    remarks = language_remarks(added(*tokens), names, ["wol_Latn", "wo"], ())
    assert len(remarks) == len(expected)
    assert all(remark.endswith(own) for remark, own in zip(remarks, expected, strict=True))


def test_tokens_that_get_no_id_are_said_to_be_left_out() -> None:
    tokens = added(without_id=("sah_Cyrl", "<mask>", "used", *(f"word{number}" for number in range(30))))
    (remark,) = language_remarks(tokens, {}, (), {"used"})
    expected = "sah_Cyrl, word0, word1, word2, word3, word4, word5, word6, … word29 (31)"
    assert remark == f"tokens without an id in the tokenizer's files are left out: {expected}"
