"""Exported tokenizers of every kind of model against SentencePiece and fairseq's own dictionary: equal, or declined."""

from __future__ import annotations

import io
import os
import random
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from fairseq.data import Dictionary

from langspec_lora.convert.hf.tokenizer_files import check_tokenizer, write_tokenizer
from langspec_lora.convert.hf.vocabulary import m2m100_languages

transformers = pytest.importorskip("transformers", reason="needs the extra hf: transformers is not installed")
sentencepiece = pytest.importorskip("sentencepiece")

REAL = [
    "The quick brown fox jumps over the lazy dog, and 3.14 is π.",
    "Les élèves ont été invités à l'œuvre « Ça va ? » en août.",
    "Fünf große Bären: Ärger mit Öl, süß und naß.",
    "Đây là một câu tiếng Việt có nhiều dấu, như ệ, ữ và ặ.",
    "これはガラスのコップです。パンダが「すごい」と言った。",
    "한국어 문장은 닭고기와 값을 읽습니다.",
    "مُحَمَّدٌ رَسُولٌ، شُكْرًا جَزِيلًا لَكُمْ.",
    "הַסֵּפֶר הַטּוֹב עַל הַשֻּׁלְחָן.",
    "यह हिन्दी का वाक्य है, ज़रूर और क़लम के साथ।",
    "ଏହା ଏକ ଓଡ଼ିଆ ବାକ୍ୟ।",
    "ภาษาไทยทำน้ำให้ดี",
    "Ελληνικά με τόνους: ᾳ ῷ Ὀδυσσεύς.",
    "\U0001d518nicode \u210c ½ ﬁne ﬃ № ™ ① ㎏ ﷺ",
]
TRICKY = [
    *(
        "",
        " ",
        "  two  spaces ",
        "\t tab\tand\u00a0hard\u3000wide ",
        "a\u0085b",
        "a\u2028b c\x0cd",
        "a\u200bb",
        "\ufeffx",
    ),
    *("a __en__ b", "__en__", "x__wo__y __xx_Latn__", "<s> a </s> <pad> <unk>", "a<s>b", "madeupword0000", "▁a ▁ b▁"),
    *(
        "ﬁ\u0301 ª\u0301 e\u0301\u0323 e\u0323\u0301",
        "\u0301a \u0301",
        "\uff45\u0301 ﾊﾟ ｶﾞ",
        "🙂 👩\u200d👧 ❤\ufe0f 1\ufe0f\u20e3",
        "\u0600a",
    ),
    *("日" * 9, "☃☃ ☃", "a☃b", "0x41 <0x41> <0x0A>", "\x00a", "\U0001f1eb\U0001f1f7 \U000e0001"),
]
LANGUAGES = ["wo", "xx_Latn", "en"]


def texts() -> list[str]:
    """Real text, as it is and decomposed, tricky text, and random text."""
    decomposed = [unicodedata.normalize(form, line) for form in ("NFD", "NFKD") for line in REAL]
    draw = random.Random(6)
    characters = sorted({character for line in (*REAL, *decomposed, *TRICKY) for character in line})
    mixed = ["".join(draw.choices(characters, k=draw.randint(1, 20))) for _ in range(300)]
    parts = [*REAL, *TRICKY]
    mixed += ["".join(part[: draw.randint(1, 9)] for part in draw.choices(parts, k=4)) for _ in range(200)]
    planes = ((0x20, 0x300), (0x300, 0x3000), (0x3000, 0xD800), (0x10000, 0x20000))
    mixed += ["".join(chr(draw.randrange(*draw.choice(planes))) for _ in range(8)) for _ in range(300)]
    return [*REAL, *decomposed, *TRICKY, *mixed]


TEXTS = texts()


@dataclass
class Exported:
    """What was written, and what it has to equal.

    Attributes:
        remark: what the user was told.
        folder: where the tokenizer is.
        expected: ids of a text, by SentencePiece and stock fairseq.
        text: a text as SentencePiece gives it back from its pieces; None where it does not know all of it.
    """

    remark: str | None
    folder: Path
    expected: Callable[[str], list[int]]
    text: Callable[[str], str | None]

    def differences(self, lines: list[str]) -> list[str]:
        tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder)
        return [line for line in lines if tokenizer(line).input_ids != self.expected(line)]


def export(
    folder: Path, kind: str, lacking: int = 0, m2m100: bool = False, languages: tuple = ("en", "wo"), **settings
) -> Exported:
    """Trains a model, writes its dictionary, without some of the pieces if told so, and exports the tokenizer."""
    model = io.BytesIO()
    draw = random.Random(2)
    words = [word for line in REAL for word in line.split(" ")]
    lines = [*REAL * 3, *(" ".join(draw.choices(words, k=6)) for _ in range(60)), "en wo xx_Latn madeup spad unk" * 2]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type=kind,
        minloglevel=2,
        hard_vocab_limit=False,
        **{"vocab_size": 460, "character_coverage": 0.99, **settings},
    )
    spm, path = folder / "spm.model", folder / "dict.txt"
    spm.write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    numbers = range(processor.get_piece_size())
    pieces = [processor.id_to_piece(n) for n in numbers if not (processor.is_control(n) or processor.is_unknown(n))]
    dropped = set(draw.sample(pieces, lacking))
    own = m2m100_languages("m2m100", "a test") if m2m100 else LANGUAGES
    tokens = [*(piece for piece in pieces if piece not in dropped), *(f"__{name}__" for name in own), "madeupword0000"]
    path.write_text("".join(f"{token} 1\n" for token in tokens), encoding="utf-8")
    dictionary = Dictionary.load(str(path))
    out = folder / "out"
    out.mkdir()
    remark = write_tokenizer(out, check_tokenizer(path, spm, len(dictionary), languages), spm, languages)
    # Through transformers' own entry, which wants to know the model.
    (out / "config.json").write_text('{"model_type": "m2m_100"}')

    def expected(line: str) -> list[int]:
        ids = dictionary.encode_line(" ".join(processor.encode(line, out_type=str)), add_if_not_exist=False)
        return [dictionary.index(f"__{languages[0]}__"), *ids.tolist()]

    def text(line: str) -> str | None:
        pieces = processor.encode(line, out_type=str)
        return processor.decode(pieces) if set(pieces) <= set(dictionary.symbols) else None

    return Exported(remark, out, expected, text)


EQUAL = {
    "unigram": ("unigram", {}),
    "bpe": ("bpe", {}),
    "char": ("char", {}),
    "unigram, bytes": ("unigram", {"byte_fallback": True, "vocab_size": 700}),
    "bpe, bytes": ("bpe", {"byte_fallback": True, "vocab_size": 700}),
    "identity": ("unigram", {"normalization_rule_name": "identity"}),
    "identity, bytes": ("bpe", {"normalization_rule_name": "identity", "byte_fallback": True, "vocab_size": 700}),
    "nfkc": ("unigram", {"normalization_rule_name": "nfkc"}),
    "nfkc, bpe": ("bpe", {"normalization_rule_name": "nfkc"}),
    "nfkc_cf": ("unigram", {"normalization_rule_name": "nfkc_cf"}),
    "nmt_nfkc_cf": ("bpe", {"normalization_rule_name": "nmt_nfkc_cf"}),
    "other ids": ("unigram", {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": 2, "pad_piece": "[P]"}),
    "control symbols": ("unigram", {"control_symbols": "<mask>,__en__"}),
    "no dummy prefix": ("unigram", {"add_dummy_prefix": False}),
    "spaces kept": ("unigram", {"remove_extra_whitespaces": False}),
    "neither": ("bpe", {"add_dummy_prefix": False, "remove_extra_whitespaces": False}),
}


@pytest.mark.parametrize("name", EQUAL)
def test_a_tokenizer_splits_as_sentencepiece_and_fairseq_do(tmp_path, name) -> None:
    kind, settings = EQUAL[name]
    exported = export(tmp_path, kind, **settings)
    assert exported.remark is None
    assert exported.differences(TEXTS) == []
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported.folder)
    known = [line for line in REAL if exported.text(line) is not None]
    assert known
    for line in known:
        assert tokenizer.decode(tokenizer(line).input_ids, skip_special_tokens=True) == exported.text(line)


DECLINED = {
    "word": ("word", {}, "it is a model of whole words"),
    "suffix": ("unigram", {"treat_whitespace_as_suffix": True}, "it does not write spaces"),
    "user-defined": ("unigram", {"user_defined_symbols": "<sep>,fox"}, "it has user-defined symbols, such as '<sep>'"),
    "user-defined, bpe": ("bpe", {"user_defined_symbols": "<sep>,fox"}, "it has user-defined symbols"),
    "lacking": ("unigram", {"lacking": 20}, "20 of its pieces are missing from the dictionary, such as"),
    "lacking, bpe": ("bpe", {"lacking": 1}, "1 of its pieces are missing from the dictionary, such as"),
}


@pytest.mark.parametrize("name", DECLINED)
def test_what_the_library_cannot_do_is_declined_by_name_and_cannot_be_loaded(tmp_path, name) -> None:
    kind, settings, reason = DECLINED[name]
    exported = export(tmp_path, kind, **settings)
    assert "no tokenizer of transformers splits text" in exported.remark
    assert reason in exported.remark
    with pytest.raises(ValueError, match=r"(?i)tokenizer"):
        transformers.AutoTokenizer.from_pretrained(exported.folder)


M2M100 = {
    "unigram": ("unigram", {}),
    "lacking": ("unigram", {"lacking": 25}),
    "lacking, bpe": ("bpe", {"lacking": 25}),
    "user-defined": ("unigram", {"user_defined_symbols": "<sep>,fox"}),
    "bytes": ("bpe", {"byte_fallback": True, "vocab_size": 700}),
    "word": ("word", {}),
    "char": ("char", {}),
    "suffix": ("unigram", {"treat_whitespace_as_suffix": True}),
    "cf": ("unigram", {"normalization_rule_name": "nmt_nfkc_cf"}),
}


@pytest.mark.parametrize("name", M2M100)
def test_dictionaries_of_m2m100s_form_may_belong_to_any_model(tmp_path, name) -> None:
    kind, settings = M2M100[name]
    exported = export(tmp_path, kind, m2m100=True, **settings)
    assert exported.remark is None
    # To transformers an unknown U+0085 is a token, to fairseq white space.
    assert exported.differences([line for line in TEXTS if "\x85" not in line]) == []


def test_text_that_fairseq_parts_and_transformers_does_not_is_named(tmp_path) -> None:
    exported = export(tmp_path, "unigram", m2m100=True, normalization_rule_name="identity")
    assert "U+0009" in exported.remark
    assert "U+3000" in exported.remark
    others = exported.differences(TEXTS)
    assert others
    assert all(re.search(r"[^\S ]", line) for line in others)


@pytest.mark.flores
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_real_text_is_split_the_same(tmp_path, kind) -> None:
    folder = os.environ.get("FLORES101")
    if not folder:
        pytest.skip("no FLORES-101: set FLORES101 to an unpacked archive")
    files = sorted(Path(folder).rglob("*.dev"))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").split("\n")[:40]]
    exported = export(tmp_path, kind)
    assert len(lines) > 1000
    assert exported.differences([*lines, *(unicodedata.normalize("NFD", line) for line in lines)]) == []
