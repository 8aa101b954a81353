"""Hypotheses in a wrong language, told by a language identifier where one is installed, else by their script.

What a judge can know differs from language to language, and each says it: the identifier (py3langid, the extra
``lid``) is trusted with a language only after it has recognised that language's own references, and a script tells only
languages apart that are written differently.
"""

# Imports in functions: py3langid is an extra.

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from fontTools import unicodedata
from langcodes import closest_supported_match

from langspec_lora.naming import some_of

IDENTIFIER = "py3langid"

_TRUSTED_ERROR = 0.1  # share of a language's references that the identifier may take for another's
_RIVAL_SHARE = 0.01  # share of references from which on a language outside the evaluation is not considered
_SCRIPT_SHARE = 0.1  # share of references from which on a script is one of the language's
_KANA_SHARE = 0.1  # share of a sentence's letters from which on it is Japanese


@dataclass(frozen=True)
class Judge:
    """How wrong language is told for one target language.

    Attributes:
        language: the target language.
        scripts: ISO 15924 codes of the scripts of its references.
        identified: whether the identifier judges; else the script does.
        ignored: languages that the identifier leaves out of its choice.
        error: share of the references that the identifier takes for another language.
        twins: languages of the evaluation that have the same code for the identifier, such as two ways to write one.
    """

    language: str
    scripts: tuple[str, ...]
    identified: bool = False
    ignored: tuple[str, ...] = ()
    error: float = 0.0
    twins: tuple[str, ...] = ()

    def wrong(self, sentence: str) -> bool | None:
        """Whether a hypothesis is in another language; None if it has no letters."""
        script = script_of(sentence)
        if not script:
            return None
        if self.identified and identify(sentence, self.ignored) != code(self.language):
            return True
        return script not in self.scripts if self.twins or not self.identified else False

    def can_tell(self, source: str, source_scripts: Sequence[str]) -> bool:
        """Whether it tells the target from a source language written in these scripts, and so a mere copy of it."""
        by_identifier = self.identified and source not in self.twins
        return by_identifier or not set(self.scripts) & set(source_scripts)

    @property
    def method(self) -> str:
        """How it judges, in words."""
        if self.identified:
            return IDENTIFIER
        return f"script ({some_of(script_name(script) for script in self.scripts)})"


def count_wrong(judge: Judge, hypotheses: Sequence[str]) -> tuple[int, int]:
    """How many hypotheses are in another language, and how many are empty or without any letter."""
    verdicts = Counter(judge.wrong(sentence) for sentence in hypotheses)
    return verdicts[True], verdicts[None]


def build_judges(texts: Mapping[str, Sequence[str]]) -> dict[str, Judge]:
    """Decides for each language of an evaluation how hypotheses are judged, from sentences known to be in it."""
    known = identifier_languages()
    evaluated = {code(language) for language in texts}
    judged = {language: lines for language, lines in texts.items() if code(language) in known}
    ignored: set[str] = set()
    for lines in judged.values():
        answers = Counter(identify(line) for line in lines)
        ignored |= {name for name, n in answers.items() if name not in evaluated and n > _RIVAL_SHARE * len(lines)}
    judges = {}
    for language, lines in texts.items():
        scripts = scripts_of(lines)
        judges[language] = Judge(language, scripts)
        if language in judged and len(judged) > 1:
            missed = sum(identify(line, tuple(sorted(ignored))) != code(language) for line in lines)
            error = missed / len(lines)
            if error <= _TRUSTED_ERROR:
                twins = tuple(name for name in texts if name != language and code(name) == code(language))
                judges[language] = Judge(language, scripts, True, tuple(sorted(ignored)), error, twins)
    return judges


def code(language: str) -> str:
    """The code by which the identifier knows a language, or else the language's own.

    Names are codes of ISO 639-1 or 639-3, with or without a script or a region: ``en``, ``eng``, mBART's ``en_XX``,
    NLLB's ``eng_Latn``, FLORES-101's ``zho_simpl``.
    """
    return _closest(language.partition("_")[0], identifier_languages())


@cache
def _closest(name: str, known: frozenset[str]) -> str:
    if name in known or not known:
        return name
    try:
        # 1: another code of the same language (nob and no), but not a language that its speakers merely understand.
        return closest_supported_match(name, sorted(known), max_distance=1) or name
    except ValueError:  # a name that is no code
        return name


def identifier_version() -> str:
    """The identifier's version; empty if it is not installed."""
    return metadata.version(IDENTIFIER) if importlib.util.find_spec(IDENTIFIER) else ""


def identifier_languages() -> frozenset[str]:
    """The languages that the installed identifier knows; none where there is none."""
    return frozenset(_identifier(()).labels) if importlib.util.find_spec(IDENTIFIER) else frozenset()


def identify(sentence: str, ignored: tuple[str, ...] = ()) -> str:
    """The language of a sentence, by the installed identifier."""
    return _identifier(ignored).classify(sentence)[0]


@cache
def _identifier(ignored: tuple[str, ...]) -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    if ignored:
        identifier.set_languages([name for name in identifier.labels if name not in ignored])
    return identifier


_script = cache(unicodedata.script)
_NO_SCRIPT = ("Zyyy", "Zzzz")  # common to several, or newer than fontTools


def script_of(sentence: str) -> str:
    """The script of most letters of a sentence, as ISO 15924 code; Japanese (``Jpan``) is told by its kana.

    Returns:
        The code, or nothing where there is no letter.
    """
    counts: Counter[str] = Counter()
    for char, number in Counter(sentence).items():
        script = _script(char)
        if script not in _NO_SCRIPT and char.isalpha():
            counts["Kana" if script == "Hira" else script] += number
    if counts["Kana"] and counts["Kana"] >= _KANA_SHARE * counts.total():
        return "Jpan"
    return max(counts, key=counts.__getitem__) if counts.total() else ""


def scripts_of(lines: Sequence[str]) -> tuple[str, ...]:
    """The scripts that at least a tenth of a text's sentences contain, the most frequent first."""
    found = Counter(filter(None, map(script_of, lines)))
    return tuple(script for script, number in found.most_common() if number >= _SCRIPT_SHARE * found.total())


def script_name(script: str) -> str:
    """A script's name in words."""
    return {"Jpan": "Japanese"}.get(script) or unicodedata.script_name(script, script).replace("_", " ")
