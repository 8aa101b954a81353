"""Twelve invented languages, which express the same meanings in different words.

Each :class:`Language` expresses a :class:`Meaning` with its own words, word order and morphology. The languages belong
to three families. The languages of a family share roots that differ by regular sound changes, so a language with little
text can learn from its relatives, as Occitan can from French. Translation is never word-by-word substitution: verbs and
clauses of reason move, adjectives agree with the class of their noun, tense is a suffix in one language and a particle
in another, and the vowels of suffixes follow those of the stem. ``languages.yaml`` lists words and languages.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import TypeVar

import yaml

T = TypeVar("T")

_DATA = yaml.safe_load(Path(__file__).with_name("languages.yaml").read_text(encoding="utf-8"))

CONCEPTS: Mapping[str, tuple[str, ...]] = {kind: tuple(words.split()) for kind, words in _DATA["concepts"].items()}
"""All that can be said, by kind."""
TENSES = ("past", "present", "future")


@dataclass(frozen=True)
class NounPhrase:
    """A noun, singular or plural, perhaps with an adjective."""

    noun: str
    plural: bool = False
    adjective: str | None = None


@dataclass(frozen=True)
class Clause:
    """Who does what (to whom), where and when, perhaps negated."""

    subject: NounPhrase
    verb: str
    tense: str
    negated: bool = False
    object: NounPhrase | None = None
    place: tuple[str, NounPhrase] | None = None


@dataclass(frozen=True)
class Meaning:
    """A clause, or two with a link such as ``because`` between them."""

    main: Clause
    link: str | None = None
    second: Clause | None = None


@dataclass(frozen=True)
class Language:
    """The grammar of one language.

    Attributes:
        code: its name in ``--langs``.
        level: resource level, ``high``, ``med`` or ``low``.
        family: languages of a family share roots.
        order: order of subject, verb and object.
        sounds: sound changes from the family's roots, applied in order: ``p: f`` turns every p into f.
        loans: every N-th concept has its own root instead of the family's; 0 for none.
        adjective_first: the adjective precedes its noun.
        postpositions: words such as ``in`` follow their noun phrase, and a clause of reason or time comes first.
        place_first: the place begins the clause (otherwise it ends it).
        plural: ``suffix``, ``prefix`` or ``word`` (a particle after the noun phrase).
        tense: ``suffix`` of the verb, or ``word`` before it with an unmarked present.
        negation: ``before`` the verb, ``suffix`` of the verb, or ``final`` in the clause.
        case: objects have a suffix.
        verb_number: the verb agrees with a plural subject.
        classes: noun classes that adjectives agree with: 1 (none), 2 or 3.
        harmony: vowels of suffixes follow the last vowel of the stem.
    """

    code: str
    level: str
    family: str
    order: str
    sounds: Mapping[str, str] = field(default_factory=dict)
    loans: int = 0
    adjective_first: bool = False
    postpositions: bool = False
    place_first: bool = False
    plural: str = "suffix"
    tense: str = "suffix"
    negation: str = "before"
    case: bool = False
    verb_number: bool = False
    classes: int = 1
    harmony: bool = False

    @property
    def lexicon(self) -> Mapping[str, str]:
        """This language's form of every concept."""
        return _lexicons(self.family)[self.code]

    def render(self, meaning: Meaning) -> str:
        """Expresses a meaning in this language: words separated by spaces, with a full stop at the end."""
        words = self._clause(meaning.main)
        if meaning.second is not None and meaning.link is not None:
            second = self._clause(meaning.second)
            link = self.lexicon[meaning.link]
            if self.postpositions and meaning.link != "and":
                words, second = second, words
            words = [*words, link, *second]
        return " ".join(words) + "."

    def _clause(self, clause: Clause) -> list[str]:
        parts = {
            "S": self._noun_phrase(clause.subject),
            "V": self._verb(clause),
            "O": self._noun_phrase(clause.object, is_object=True) if clause.object else [],
        }
        words = [word for part in self.order for word in parts[part]]
        if clause.place:
            relation, phrase = clause.place
            place = [self.lexicon[relation]]
            place = self._noun_phrase(phrase) + place if self.postpositions else place + self._noun_phrase(phrase)
            words = place + words if self.place_first else words + place
        if clause.negated and self.negation == "final":
            words.append(self.lexicon["not"])
        return words

    def _verb(self, clause: Clause) -> list[str]:
        verb = self.lexicon[clause.verb]
        before = []
        if self.tense == "suffix":
            verb = self._suffix(verb, clause.tense)
        elif clause.tense != "present":
            before.append(self.lexicon[clause.tense])
        if self.verb_number and clause.subject.plural:
            verb = self._suffix(verb, "subject-plural")
        if clause.negated and self.negation == "suffix":
            verb = self._suffix(verb, "not")
        elif clause.negated and self.negation == "before":
            before.insert(0, self.lexicon["not"])
        return [*before, verb]

    def _noun_phrase(self, phrase: NounPhrase, is_object: bool = False) -> list[str]:
        noun = self.lexicon[phrase.noun]
        words = []
        if phrase.plural and self.plural == "prefix":
            noun = self.lexicon["plural"] + noun
        elif phrase.plural and self.plural == "suffix":
            noun = self._suffix(noun, "plural")
        if is_object and self.case:
            noun = self._suffix(noun, "object")
        words.append(noun)
        if phrase.adjective:
            adjective = self.lexicon[phrase.adjective]
            noun_class = noun_class_of(self.family, phrase.noun) % self.classes
            if noun_class:
                adjective = self._suffix(adjective, f"class-{noun_class}")
            words.insert(0 if self.adjective_first else len(words), adjective)
        if phrase.plural and self.plural == "word":
            words.append(self.lexicon["plural"])
        return words

    def _suffix(self, stem: str, concept: str) -> str:
        suffix = self.lexicon[concept]
        if self.harmony:
            vowels = [letter for letter in stem if letter in "aeiou"]
            if vowels and vowels[-1] in "ei":
                suffix = suffix.translate(str.maketrans("aou", "eei"))
        return stem + suffix


LANGUAGES = tuple(Language(**settings) for settings in _DATA["languages"])
"""The twelve, in the order of their ids: four of each level."""
CODES = tuple(language.code for language in LANGUAGES)


def pick(rng: random.Random, items: Sequence[T]) -> T:
    """Draws one item by ``rng.random()``, because its sequence is the same in all versions of Python."""
    return items[int(rng.random() * len(items))]


def noun_class_of(family: str, noun: str) -> int:
    """The class of a noun, the same in all languages of a family: a number from 0 to 5."""
    return pick(random.Random(f"class {family} {noun}"), range(6))


@cache
def _lexicons(family: str) -> Mapping[str, Mapping[str, str]]:
    """Draws the words of a family's languages; roots that give two concepts of a language one form are redrawn."""
    members = [language for language in LANGUAGES if language.family == family]
    lexicons: dict[str, dict[str, str]] = {language.code: {} for language in members}
    for number, concept in enumerate((concept for kind in CONCEPTS.values() for concept in kind), start=1):
        for attempt in count():
            forms = {language.code: _form(language, concept, number, attempt) for language in members}
            if all(form not in lexicons[code].values() for code, form in forms.items()):
                break
        for code, form in forms.items():
            lexicons[code][concept] = form
    return lexicons


def _form(language: Language, concept: str, number: int, attempt: int) -> str:
    if language.loans and number % language.loans == 0:
        return _root(f"loan {language.code} {concept} {attempt}", language.family, concept)
    root = _root(f"root {language.family} {concept} {attempt}", language.family, concept)
    for old, new in language.sounds.items():
        root = root.replace(old, new)
    return root


def _root(seed: str, family: str, concept: str) -> str:
    rng, phonology = random.Random(seed), _DATA["families"][family]
    sounds = {"C": phonology["consonants"].split(), "V": phonology["vowels"].split()}
    short = any(concept in CONCEPTS[kind] for kind in ("grammatical", "places", "links"))
    syllables = (pick(rng, phonology["syllables"].split()) for _ in range(1 if short else 2))
    return "".join(pick(rng, sounds[kind]) for syllable in syllables for kind in syllable)
