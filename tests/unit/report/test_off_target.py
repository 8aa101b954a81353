"""Wrong language, told by an identifier where one is installed and by the script elsewhere."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import unicodedata
from pathlib import Path

import pytest

from langspec_lora.report import off_target
from langspec_lora.report.off_target import build_judges, count_wrong, script_name, script_of, scripts_of
from langspec_lora.report.tables import off_target_table
from tests.reports import noisy, report, write_results

TEXTS = {
    "en": ["The president met the workers of the hospital.", "It was raining when we arrived at the station."],
    "fr": ["Le président a rencontré les ouvriers de l'hôpital.", "Il pleuvait quand nous sommes arrivés à la gare."],
    "wo": ["Njiit li daje na ak liggéeykati raglu bi.", "Dafa doon taw bi nu agsee ci gaar bi."],
    "sd": ["صدر اسپتال جي ڪارڪنن سان ملاقات ڪئي.", "جڏهن اسان اسٽيشن تي پهتاسين ته مينهن پئي پيو."],
    "ja": ["大統領は病院の労働者と会った。", "駅に着いたとき、雨が降っていた。"],
    "zh": ["总统会见了医院的工人。", "我们到达车站时正在下雨。"],
    "ko": ["대통령은 병원 직원들을 만났다.", "우리가 역에 도착했을 때 비가 오고 있었다."],
    "or": ["ରାଷ୍ଟ୍ରପତି ଡାକ୍ତରଖାନାର କର୍ମଚାରୀଙ୍କୁ ଭେଟିଲେ।", "ଆମେ ଷ୍ଟେସନରେ ପହଞ୍ଚିବା ବେଳେ ବର୍ଷା ହେଉଥିଲା।"],
}
LEVELS = {
    **dict.fromkeys(("en", "fr"), "high"),
    **dict.fromkeys(("zh", "ja", "ko"), "med"),
    **dict.fromkeys(("or", "sd", "wo"), "low"),
}
installed = pytest.mark.skipif(not importlib.util.find_spec("py3langid"), reason="py3langid is not installed")


@pytest.fixture
def no_identifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(off_target, "identifier_version", lambda: "")
    monkeypatch.setattr(off_target, "identifier_languages", frozenset)


def test_the_script_of_a_sentence_is_that_of_most_letters_by_their_unicode_names() -> None:
    names = {"Arab": "ARABIC", "Latn": "LATIN", "Hang": "HANGUL", "Orya": "ORIYA", "Hani": "CJK"}
    for language, lines in TEXTS.items():
        for line in lines:
            found = script_of(line)
            if language == "ja":
                assert found == "Jpan"
                continue
            letters = [c for c in line if c.isalpha()]
            own = [c for c in letters if unicodedata.name(c).startswith(names[found])]
            assert len(own) > len(letters) / 2


# Digits and signs of a script are no letters; "µ" is one, but of no script.
@pytest.mark.parametrize("line", ["", "  ", "12:30, 14 %", "…!?", "१२", "\u094d", "µ"])
def test_a_line_without_letters_has_no_script(line) -> None:
    assert script_of(line) == ""


def test_letters_that_fonttools_does_not_know_yet_are_of_no_script(monkeypatch) -> None:
    monkeypatch.setattr(off_target, "_script", lambda char: "Zzzz" if char == "b" else "Latn")
    assert [script_of("bb"), script_of("bba")] == ["", "Latn"]


def test_a_few_foreign_words_do_not_change_a_sentences_script() -> None:
    assert script_of("我们在 IBM 和 NATO 工作了很多年很多年") == "Hani"
    assert script_of("He said 东京 and Москва in one breath") == "Latn"
    assert scripts_of(["abc"] * 30 + ["где"] * 2) == ("Latn",)
    assert scripts_of(["abc"] * 30 + ["где"] * 20) == ("Latn", "Cyrl")
    assert script_name("Orya") == "Oriya"
    assert script_name("Jpan") == "Japanese"
    assert script_name("Cans") == "Canadian Aboriginal"
    assert script_name("none") == "none"


def test_a_tenth_is_enough_for_a_script_and_for_japanese() -> None:
    assert scripts_of(["abc"] * 9 + ["где"]) == ("Latn", "Cyrl")
    assert scripts_of(["abc"] * 10 + ["где"]) == ("Latn",)
    assert scripts_of(["где", "abc", "abc", "12"]) == ("Latn", "Cyrl")
    assert [script_of("年" * count + kana) for count in (9, 10) for kana in "のノ"] == ["Jpan", "Jpan", "Hani", "Hani"]
    assert script_of("のノ") == "Jpan"
    assert script_of("ab где") == "Cyrl"


def test_the_script_judges_what_it_can_tell_and_nothing_else(no_identifier) -> None:
    judges = build_judges(TEXTS)
    hypotheses = [*TEXTS["zh"], TEXTS["ja"][0], TEXTS["en"][0], "", "42"]
    assert count_wrong(judges["zh"], hypotheses) == (2, 2)
    assert count_wrong(judges["ja"], hypotheses) == (3, 2)
    assert count_wrong(judges["en"], TEXTS["fr"]) == (0, 0)  # which is why en and fr are not told apart:
    assert not judges["en"].can_tell("fr", judges["fr"].scripts)
    assert judges["en"].can_tell("sd", judges["sd"].scripts)


def test_shares_of_languages_of_one_script_are_left_out_or_lower_bounds(no_identifier, tmp_path: Path) -> None:
    hypotheses = noisy(TEXTS, 1.0, 1)
    hypotheses["sd", "wo"] = [TEXTS["sd"][0], TEXTS["wo"][1]]
    hypotheses["en", "or"] = [TEXTS["en"][0], ""]
    folder = write_results(tmp_path / "run", TEXTS, hypotheses)
    analysis, _ = report([folder], LEVELS, tmp_path / "out", skip=("significance", "sentences"))
    found = analysis.off_target
    latin = ("en", "fr", "wo")
    untold = {(a, b) for a in latin for b in latin if a != b}
    assert set(analysis.directions) - set(found.shares[0]) == untold
    assert found.shares[0]["sd", "wo"] == found.shares[0]["en", "or"] == 0.5
    assert sum(found.shares[0].values()) == 1.0
    assert found.silent == (1 / (56 * len(TEXTS["en"])),)
    assert found.bounds == set(latin)
    cells = {row[0]: row[-1] for row in off_target_table(analysis).cells}
    assert cells["or"] == f"{100 * 0.5 / 7:.1f} %"
    assert cells["wo"] == f"≥ {100 * 0.5 / 5:.1f} %"
    assert cells["all"] == f"≥ {100 / 50:.1f} %"
    assert "50 of 56 directions" in (tmp_path / "out" / "report.md").read_text()


def test_where_nothing_can_be_told_nothing_is_claimed(no_identifier, tmp_path: Path) -> None:
    texts = {name: TEXTS[name] for name in ("en", "fr", "wo")}
    folder = write_results(tmp_path / "run", texts, noisy(texts, 1.0, 1))
    analysis, _ = report([folder], LEVELS, tmp_path / "out")
    assert analysis.off_target is None
    assert any("share a script" in note for note in analysis.notes)


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """An identifier that reads the language off marks in the text, the first that it does not ignore."""
    known = ("xx", "de", "en", "fr")

    def identify(sentence: str, ignored: tuple[str, ...] = ()) -> str:
        return next(name for name in known if name not in ignored and f"<{name}>" in sentence)

    monkeypatch.setattr(off_target, "identifier_languages", lambda: frozenset(known))
    monkeypatch.setattr(off_target, "identify", identify)
    monkeypatch.setattr(off_target, "identifier_version", lambda: "1")


def test_an_identifier_judges_the_languages_that_it_knows_by_code(marked) -> None:
    judges = build_judges({"en": ["a <en>"] * 9, "fr_XX": ["b <fr>"] * 9, "wo": ["c <fr>"] * 9})
    assert [judges[name].identified for name in ("en", "fr_XX", "wo")] == [True, True, False]
    assert count_wrong(judges["en"], ["a <en>", "b <fr>", "c <de>", "..."]) == (2, 1)
    assert judges["fr_XX"].wrong("b <fr>") is False


def test_an_identifier_is_not_trusted_with_a_language_whose_references_it_does_not_recognise(marked) -> None:
    judges = build_judges({"en": ["a <en>"] * 19 + ["a <fr>"], "fr": ["b <fr>"] * 8 + ["b <en>"] * 2, "de": ["d <de>"]})
    assert judges["en"].identified
    assert judges["en"].error == 0.05
    assert not judges["fr"].identified  # a fifth is taken for English
    assert judges["fr"].method == "script (Latin)"


def test_a_language_outside_the_evaluation_that_references_are_taken_for_is_not_considered(marked) -> None:
    judges = build_judges({"en": ["a <en>"] * 90 + ["a <en> <xx>"] * 10, "fr": ["b <fr>"] * 9})
    assert judges["en"].ignored == ("xx",)
    assert judges["en"].error == 0
    assert judges["en"].wrong("a <en> <xx>") is False
    # One that only few are taken for stays: text in it is wrong.
    judges = build_judges({"en": ["a <en>"] * 199 + ["a <xx>"], "fr": ["b <fr>"] * 9})
    assert judges["en"].ignored == ()


def test_an_identifier_errs_in_a_tenth_of_the_references_at_most(marked) -> None:
    for wrong, identified in ((1, True), (2, False)):
        judges = build_judges({"en": ["a <en>"] * (10 - wrong) + ["a <fr>"] * wrong, "fr": ["b <fr>"]})
        assert judges["en"].identified == identified
        assert judges["fr"].identified


def test_an_identifier_that_knows_one_language_alone_has_nothing_to_tell(marked) -> None:
    judges = build_judges({"en": ["a <en>"], "wo": ["b <fr>"]})
    assert not judges["en"].identified
    assert judges["en"] == off_target.Judge("en", ("Latn",), False, (), 0.0, ())


def test_one_reference_in_a_hundred_does_not_hide_a_language(marked) -> None:
    for some, ignored in ((1, ()), (2, ("xx",))):
        judges = build_judges({"en": ["a <en>"] * (100 - some) + ["a <en> <xx>"] * some, "fr": ["b <fr>"]})
        assert judges["en"].ignored == judges["fr"].ignored == ignored


def test_without_an_identifier_languages_keep_their_own_codes(monkeypatch) -> None:
    monkeypatch.setattr(off_target.importlib.util, "find_spec", lambda name: None)
    assert off_target.identifier_version() == ""
    assert off_target.identifier_languages() == frozenset()
    assert [off_target.code(name) for name in ("eng_Latn", "en_XX", "wo")] == ["eng", "en", "wo"]


@installed
def test_the_version_of_the_identifier_is_that_of_its_package() -> None:
    assert off_target.identifier_version() == importlib.metadata.version("py3langid")


@installed
def test_py3langid_tells_languages_of_one_script_apart() -> None:
    judges = build_judges(TEXTS)
    assert {name for name, judge in judges.items() if judge.identified} >= {"en", "fr", "zh", "ja", "ko"}
    assert not judges["wo"].identified
    assert count_wrong(judges["fr"], [*TEXTS["fr"], TEXTS["en"][0], ""]) == (1, 1)
    assert judges["fr"].can_tell("en", judges["en"].scripts)


@installed
def test_py3langid_knows_the_languages_of_this_module_by_their_codes() -> None:
    assert {"en", "fr", "zh", "ja", "ko", "or"} <= off_target.identifier_languages()
    assert off_target.identify(TEXTS["en"][0]) == "en"
    assert off_target.identify(TEXTS["en"][0], ("en",)) != "en"


@installed
def test_codes_of_iso_639_3_nllb_and_flores_are_those_that_py3langid_knows() -> None:
    """The codes of ISO 639-1 for them, as the registry of ISO 639-3 lists them."""
    expected = {
        **{"eng": "en", "deu": "de", "fra": "fr", "ita": "it", "nld": "nl", "jpn": "ja", "kor": "ko", "oci": "oc"},
        **{"eng_Latn": "en", "zho_Hans": "zh", "zho_Hant": "zh", "zho_simpl": "zh", "ory": "or", "ory_Orya": "or"},
        **{"swh_Latn": "sw", "zsm_Latn": "ms", "khk_Cyrl": "mn", "pes_Arab": "fa", "arb_Arab": "ar", "npi": "ne"},
        **{"nob_Latn": "no", "nno_Latn": "nn", "tgl_Latn": "tl", "tl": "tl", "ell": "el", "ces": "cs", "cmn": "zh"},
        **{"ary_Arab": "ary", "yue_Hant": "yue", "en_XX": "en", "zh_CN": "zh", "ger": "de", "en": "en"},
    }
    assert {name: off_target.code(name) for name in expected} == expected
    assert set(expected.values()) <= off_target.identifier_languages()
    for name in ("mystery", "xx", "q1", "wol_Latn", "wo", "snd", "", "__"):
        assert off_target.code(name) not in off_target.identifier_languages()
        assert off_target.code(name) == name.partition("_")[0]


@installed
def test_languages_named_as_in_nllb_are_identified_as_those_of_two_letters() -> None:
    names = {"en": "eng_Latn", "fr": "fra", "ja": "jpn_Jpan", "zh": "zho_Hans", "ko": "kor_Hang"}
    two = build_judges({name: TEXTS[name] for name in names})
    three = build_judges({long: TEXTS[name] for name, long in names.items()})
    for name, long in names.items():
        assert three[long].identified
        hypotheses = [*TEXTS[name], *TEXTS["fr" if name == "en" else "en"], ""]
        assert count_wrong(three[long], hypotheses) == count_wrong(two[name], hypotheses) == (2, 1)


def test_languages_of_one_code_are_not_told_apart_but_by_their_script(marked, tmp_path: Path) -> None:
    texts = {
        "eng_Latn": ["a <en>", "b <en>"],
        "en_GB": ["c <en>", "d <en>"],
        "eng_Cyrl": ["ддддд <en>", "жжжжж <en>"],
        "fr": ["e <fr>", "f <fr>"],
    }
    judges = build_judges(texts)
    assert set(judges["eng_Latn"].twins) == {"en_GB", "eng_Cyrl"}
    assert judges["fr"].twins == ()
    assert judges["eng_Latn"].can_tell("fr", judges["fr"].scripts)
    assert not judges["eng_Latn"].can_tell("en_GB", judges["en_GB"].scripts)
    assert count_wrong(judges["eng_Cyrl"], ["ддддд <en>", "a <en>", "жжжжж <fr>"]) == (2, 0)


def test_shares_into_languages_of_one_code_are_lower_bounds(marked, tmp_path: Path) -> None:
    texts = {"eng_Latn": ["a <en>", "b <en>"], "en_GB": ["c <en>", "d <en>"], "fr": ["e <fr>", "f <fr>"]}
    folder = write_results(tmp_path / "run", texts, noisy(texts, 1.0, 1))
    analysis, _ = report([folder], {}, tmp_path / "out", skip=("significance", "sentences"))
    found = analysis.off_target
    assert set(analysis.directions) - set(found.shares[0]) == {("eng_Latn", "en_GB"), ("en_GB", "eng_Latn")}
    assert found.bounds == {"eng_Latn", "en_GB"}
