"""Twelve invented languages, which express the same meanings in different words.

Each :class:`Language` expresses a :class:`Meaning` with its own words, word order and morphology. The languages belong
to three families. The languages of a family share roots that differ by regular sound changes, so a language with little
text can learn from its relatives, as Occitan can from French. Translation is never word-by-word substitution: verbs and
clauses of reason move, adjectives agree with the class of their noun, tense is a suffix in one language and a particle
in another, and the vowels of suffixes follow those of the stem.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import TypeVar

T = TypeVar("T")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NOUNS = _words(
    "dog cat horse bird fish wolf child woman man king farmer teacher friend thief tree river "
    "mountain house road bridge stone fire bread apple knife boat book letter song garden moon village"
)
ADJECTIVES = _words("big small old young red white dark good strong quiet hungry broken")
TRANSITIVE = _words("see hear find carry eat love fear follow bring paint break call")
INTRANSITIVE = _words("sleep run fall laugh wait sing")
PLACES = _words("in on under near behind")
LINKS = _words("and because before")
TENSES = ("past", "present", "future")
GRAMMATICAL = ("plural", "object", "past", "present", "future", "subject-plural", "not", "class-1", "class-2")
"""Concepts that are affixes in some languages and particles in others."""


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
        sounds: sound changes from the family's roots, applied in order, such as ``p>f``.
        order: order of subject, verb and object.
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
    sounds: str
    order: str
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

    @cached_property
    def lexicon(self) -> dict[str, str]:
        """This language's form of every concept."""
        return _LEXICONS[self.family][self.code]

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


_PHONOLOGY = {
    "north": (_words("p t k b d g s m n l r v"), _words("a e i o u"), ("CV", "CVC")),
    "east": (_words("t k h s m n y r w z b g"), _words("a i u o"), ("CV", "CV", "V")),
    "south": (_words("p k q t f l m n d j x s"), _words("a e i u"), ("CV", "CVC")),
}
"""Consonants, vowels and syllables of each family."""

LANGUAGES: tuple[Language, ...] = (
    Language("du", "high", "north", "", "SVO", adjective_first=True, verb_number=True),
    Language("le", "high", "north", "p>f k>h o>u", "SVO", loans=9, classes=2),
    Language(
        *("va", "high", "east", "", "SOV"),
        adjective_first=True,
        postpositions=True,
        place_first=True,
        plural="word",
        negation="suffix",
        case=True,
    ),
    Language("ni", "high", "south", "", "VSO", plural="prefix", tense="word", classes=3),
    Language(
        *("pe", "med", "north", "b>v d>z e>i", "SVO"),
        loans=8,
        place_first=True,
        plural="word",
        tense="word",
        negation="final",
        classes=2,
    ),
    Language(
        *("go", "med", "east", "t>d k>g u>o", "SOV"),
        loans=9,
        adjective_first=True,
        postpositions=True,
        negation="suffix",
        case=True,
        harmony=True,
    ),
    Language(
        *("zi", "med", "east", "h>f s>sh w>v", "OVS"), loans=8, postpositions=True, place_first=True, tense="word"
    ),
    Language(
        *("bu", "med", "south", "q>k f>p x>s", "VSO"),
        loans=9,
        adjective_first=True,
        plural="prefix",
        negation="final",
        verb_number=True,
    ),
    Language(
        *("fu", "low", "north", "g>j l>r v>w", "SOV"), loans=12, adjective_first=True, place_first=True, case=True
    ),
    Language(
        *("re", "low", "east", "m>n r>l z>j", "SOV"),
        loans=12,
        postpositions=True,
        plural="word",
        tense="word",
        negation="final",
        case=True,
    ),
    Language("ye", "low", "south", "t>d p>b j>y", "SVO", loans=12, plural="prefix", tense="word", classes=3),
    Language(
        *("po", "low", "south", "i>e d>r u>o", "VSO"),
        loans=12,
        place_first=True,
        negation="suffix",
        verb_number=True,
        harmony=True,
    ),
)
"""The twelve languages in the order of their ids, four of each level."""

CODES = tuple(language.code for language in LANGUAGES)
CONCEPTS = (*NOUNS, *ADJECTIVES, *TRANSITIVE, *INTRANSITIVE, *PLACES, *LINKS, *GRAMMATICAL)


def pick(rng: random.Random, items: Sequence[T]) -> T:
    """Draws one item by ``rng.random()``, because its sequence is the same in all versions of Python."""
    return items[int(rng.random() * len(items))]


def noun_class_of(family: str, noun: str) -> int:
    """The class of a noun, the same in all languages of a family: a number from 0 to 5."""
    return pick(random.Random(f"class {family} {noun}"), range(6))


def _root(rng: random.Random, family: str, syllables: int) -> str:
    consonants, vowels, shapes = _PHONOLOGY[family]
    sounds = {"C": consonants, "V": vowels}
    return "".join(pick(rng, sounds[kind]) for _ in range(syllables) for kind in pick(rng, shapes))


def _change(root: str, sounds: str) -> str:
    for rule in sounds.split():
        old, _, new = rule.partition(">")
        root = root.replace(old, new)
    return root


def _family_lexicons(family: str) -> dict[str, dict[str, str]]:
    """Draws the roots of a family; a root that would give two concepts of a language the same form is drawn again."""
    members = [language for language in LANGUAGES if language.family == family]
    lexicons: dict[str, dict[str, str]] = {language.code: {} for language in members}
    for number, concept in enumerate(CONCEPTS, start=1):
        for forms in _candidates(family, members, concept, number):
            if all(form not in lexicons[code].values() for code, form in forms.items()):
                break
        for code, form in forms.items():
            lexicons[code][concept] = form
    return lexicons


def _candidates(family: str, members: Sequence[Language], concept: str, number: int) -> Iterator[dict[str, str]]:
    """Draws forms of one concept for all languages of a family, again and again."""
    syllables = 1 if concept in (*GRAMMATICAL, *PLACES, *LINKS) else 2
    for attempt in count():
        common = _root(random.Random(f"root {family} {concept} {attempt}"), family, syllables)
        forms = {}
        for language in members:
            if language.loans and number % language.loans == 0:
                forms[language.code] = _root(
                    random.Random(f"loan {language.code} {concept} {attempt}"), family, syllables
                )
            else:
                forms[language.code] = _change(common, language.sounds)
        yield forms


_LEXICONS = {family: _family_lexicons(family) for family in _PHONOLOGY}
