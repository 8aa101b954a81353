"""The languages of a model: names, ids, resource levels and ranks.

A language's id is its position in the list of names (fairseq's ``--langs``). A name becomes part of paths, tokens,
directions and lists, whoever gave it: a flag, a checkpoint, somebody's adapters. So every table checks its names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langspec_lora.errors import UserError
from langspec_lora.naming import some_of
from langspec_lora.values import check_once, empty_place, shortened, whole_number

LEVELS = ("high", "med", "low")

DEFAULT_RANKS: Mapping[str, int] = {"high": 2, "med": 2, "low": 8}
"""The published rank of each level's adapters."""

PAPER_LEVELS: Mapping[str, str] = {
    **dict.fromkeys(("en", "fr", "it", "de"), "high"),
    **dict.fromkeys(("nl", "zh", "ja", "ko"), "med"),
    **dict.fromkeys(("oc", "or", "sd", "wo"), "low"),
}
"""The twelve languages of Cao et al. (EMNLP 2024) and their resource levels; also ``configs/languages/twelve.yaml``."""

_SEPARATORS = frozenset("/\\:,-.|*?<>\"'[]{}=")
"""Characters that separate names in paths, lists, directions or file names, or that file names cannot have."""

_LONGEST_NAME = 80  # bytes; a file is named after a direction and a side, so three times, in 255
_LARGEST_RANK = 2**20  # the widest layer that a checkpoint may have


@dataclass(frozen=True)
class Resources:
    """The content of a ``--lang-resources`` file.

    Attributes:
        levels: language name to ``high``, ``med`` or ``low``.
        ranks: ranks of single languages, which take precedence over their level's rank.
        flores: language name to FLORES code, needed only to prepare FLORES data.
    """

    levels: Mapping[str, str]
    ranks: Mapping[str, int] = field(default_factory=dict)
    flores: Mapping[str, str] = field(default_factory=dict)


PAPER_RESOURCES = Resources(levels=PAPER_LEVELS)


def check_name(name: object, label: str = "the list of languages") -> str:
    """Checks that a language's name can be part of a path, a token, a direction and a list.

    Args:
        name: the name.
        label: the flag or file that gives it, for the message.

    Returns:
        The name.

    Raises:
        UserError: it is not text, is empty or too long, or has a space, a control character or a separator.
    """
    remedy = "use letters, digits and _, such as zh_Hans"
    if not isinstance(name, str) or not name:
        raise UserError(f"{label} has {shortened(name)} as a language's name; {remedy}")
    # What is not printable also includes the marks that make a terminal or a browser write from right to left.
    wrong = next((char for char in name if char in _SEPARATORS or char.isspace() or not char.isprintable()), None)
    if wrong is not None:
        raise UserError(f"{label} names {shortened(name)}, but a language's name cannot have {wrong!r}; {remedy}")
    if len(name.encode()) > _LONGEST_NAME:
        raise UserError(
            f"{label} names {shortened(name)}, which is longer than {_LONGEST_NAME} bytes; use a short name"
        )
    return name


def check_names(names: Sequence[object], label: str = "the list of languages") -> None:
    """Checks that names can be languages', and that each is given once.

    Raises:
        UserError: there is none, one is not allowed (see :func:`check_name`) or given twice.
    """
    if not names:
        raise UserError(f"{label} names no language; give names such as en,fr,wo")
    check_once([check_name(name, label) for name in names], label, "language")


def check_rank(value: str | int, label: str) -> int:
    """Reads a rank.

    Args:
        value: the rank, as a number or as text.
        label: the flag or file entry, for the message.

    Raises:
        UserError: it is not a whole number of at least 1.
    """
    try:
        rank = whole_number(value) if isinstance(value, str) else value
        if type(rank) is not int:  # True is an int too
            raise ValueError("not a whole number")
    except ValueError:
        raise UserError(f"{label}: {shortened(value)} is not a rank; expected a whole number of at least 1") from None
    if rank < 1:
        raise UserError(f"{label}: rank {rank} was given; expected a whole number of at least 1")
    return rank


@dataclass(frozen=True)
class LanguageTable:
    """The languages of a model in the order of their ids, and what its adapters belong to besides languages.

    Attributes:
        names: language names; a language's id is its position.
        levels: resource level of each language, in the same order.
        ranks: rank of each language's adapter, in the same order.
        groups: group of each language, in the same order; empty if its adapter is its own.
        group_ranks: rank of each group's adapter, by its name.
        direction_ranks: rank of each direction's adapter, by the direction, such as ``en-fr``.
        shared_rank: rank of the adapter that all languages share; 0 if there is none.

    Raises:
        UserError: there is no language, a name is not allowed or given twice, a level is unknown, a rank is no whole
            number of at least 1, there are not as many levels and ranks as names, or a group or direction is unknown.
    """

    names: tuple[str, ...]
    levels: tuple[str, ...]
    ranks: tuple[int, ...]
    groups: tuple[str, ...] = ()
    group_ranks: Mapping[str, int] = field(default_factory=dict)
    direction_ranks: Mapping[str, int] = field(default_factory=dict)
    shared_rank: int = 0

    def __post_init__(self) -> None:
        check_names(self.names)
        for what, values in (("levels", self.levels), ("ranks", self.ranks)):
            if len(values) != len(self.names):
                raise UserError(f"the list of languages has {len(self.names)} names and {len(values)} {what}")
        for name, level in zip(self.names, self.levels, strict=True):
            if level not in LEVELS:
                raise UserError(f"the level of {name} is {shortened(level)}; expected {some_of(LEVELS)}")
        if self.groups and len(self.groups) != len(self.names):
            raise UserError(f"the list of languages has {len(self.names)} names and {len(self.groups)} groups")
        if set(self.groups) != set(self.group_ranks):
            raise UserError("the list of languages has other groups than ranks of groups")
        for group in self.group_ranks:
            check_name(group, "the list of groups")
        known = set(self.names)
        for direction in self.direction_ranks:
            if not isinstance(direction, str) or len(pair := direction.split("-")) != 2 or not known.issuperset(pair):
                raise UserError(f"the list of directions has {shortened(direction)}; expected two of the languages")
        for name, _, rank in self._ranks():
            check_rank(rank, f"the rank of {name}")
            if isinstance(rank, str):  # which a flag may be, but not a table
                raise UserError(f"the rank of {name} is {shortened(rank)}, a text; expected a number")

    def _ranks(self) -> Iterator[tuple[str, str, int]]:
        """Name, flag and rank of everything that may have an adapter."""
        for name, level, rank in zip(self.names, self.levels, self.ranks, strict=True):
            yield name, f"--{level}-rank", rank
        for group, rank in self.group_ranks.items():
            yield group, "--lang-groups", rank
        for direction, rank in self.direction_ranks.items():
            yield direction, "--high-rank, --med-rank or --low-rank", rank
        if self.shared_rank != 0:
            yield "the shared adapter", "--shared-rank", self.shared_rank

    @classmethod
    def build(
        cls, names: Sequence[str], resources: Resources, level_ranks: Mapping[str, int], label: str = "built-in levels"
    ) -> LanguageTable:
        """Gives each language its level and its rank.

        Args:
            names: language names in the order of their ids.
            resources: levels, and ranks of single languages.
            level_ranks: rank of each level: ``high``, ``med`` and ``low``.
            label: the origin of the levels, for the message.

        Raises:
            UserError: a language has no level, a name is empty or given twice, or a rank is below 1.
        """
        if not all(names) or not names:
            place = empty_place(names) if names else ""
            raise UserError(f"--langs {some_of(names, ',')!r} has an empty name{place}; give names such as en,fr,wo")
        check_names(names, "--langs")
        missing = [name for name in names if name not in resources.levels]
        if missing:
            raise UserError(
                f"no resource level for {some_of(missing)} (levels come from the {label}); "
                "put every language under high, med or low in a YAML file and pass it as --lang-resources"
            )
        levels = tuple(resources.levels[name] for name in names)
        checked = {level: check_rank(rank, f"--{level}-rank") for level, rank in level_ranks.items()}
        ranks = tuple(resources.ranks.get(name, checked[level]) for name, level in zip(names, levels, strict=True))
        return cls(tuple(names), levels, ranks)

    def __len__(self) -> int:
        return len(self.names)

    def id(self, name: str) -> int:
        """The id of a language.

        Raises:
            UserError: the language is not in the table.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise UserError(f"unknown language {name!r}; the model has adapters for {some_of(self.names)}") from None

    def select(self, names: Sequence[str]) -> LanguageTable:
        """The table of some of its languages, in the order given, with their groups and the directions between them.

        Raises:
            UserError: a language is not in the table.
        """
        ids = [self.id(name) for name in names]
        groups = tuple(self.groups[number] for number in ids) if self.groups else ()
        kept = set(names)
        return LanguageTable(
            tuple(names),
            tuple(self.levels[number] for number in ids),
            tuple(self.ranks[number] for number in ids),
            groups,
            {group: rank for group, rank in self.group_ranks.items() if group in groups},
            {pair: rank for pair, rank in self.direction_ranks.items() if kept.issuperset(pair.split("-"))},
            self.shared_rank,
        )


_COLUMNS = ("names", "levels", "ranks")
_KEYS = ("groups", "group_ranks", "direction_ranks", "shared_rank")
_HASH = "sha256"


def languages_to_json(table: LanguageTable) -> str:
    """The JSON text of a language table, which checkpoints store, with its own hash.

    What only tables of other keys than languages have is left out of those that have none of it.
    """
    content: dict[str, Any] = {key: list(getattr(table, key)) for key in _COLUMNS}
    content |= {"groups": list(table.groups), "shared_rank": table.shared_rank}
    content |= {key: dict(getattr(table, key)) for key in ("group_ranks", "direction_ranks")}
    content = {key: content[key] for key in (*_COLUMNS, *_KEYS) if key in _COLUMNS or content[key]}
    return json.dumps({**content, _HASH: _hash_of(content)}, ensure_ascii=False)


def _hash_of(content: Mapping[str, Any]) -> str:
    values = [content[key] for key in _COLUMNS]
    keys = {key: content[key] for key in _KEYS if key in content}
    text = json.dumps([*values, keys] if keys else values, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def languages_from_json(text: str) -> LanguageTable:
    """Reads what :func:`languages_to_json` wrote; tables of earlier versions have no hash.

    Raises:
        UserError: the text is damaged.
    """
    try:
        table = json.loads(text)
        columns = [table[key] for key in _COLUMNS]
        if not all(isinstance(column, list) for column in (*columns, table.get("groups", []))):
            raise TypeError("expected lists")
        if not all(isinstance(table.get(key, {}), dict) for key in ("group_ranks", "direction_ranks")):
            raise TypeError("expected ranks by name")
        if unknown := set(table) - {*_COLUMNS, *_KEYS, _HASH}:
            raise ValueError(f"unknown {shortened(unknown)}")
        if _HASH in table and table[_HASH] != _hash_of(table):
            raise ValueError("the hash differs")
        keys = {key: table[key] for key in _KEYS if key in table}
        if "groups" in keys:
            keys["groups"] = tuple(keys["groups"])
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        raise UserError("the checkpoint's table of languages is damaged; download it again") from error
    try:
        names, levels, ranks = map(tuple, columns)
        languages = LanguageTable(names, levels, ranks, **keys)
        check_ranks(languages, _LARGEST_RANK)
    except (UserError, TypeError) as error:
        raise UserError(f"the checkpoint's table of languages was refused: {error}") from error
    return languages


def check_ranks(languages: LanguageTable, widest: int) -> None:
    """Checks that no rank exceeds the widest layer, before matrices of that size are allocated.

    Args:
        languages: names, levels and ranks.
        widest: the greatest number of features that an adapter reads or writes.

    Raises:
        UserError: a rank exceeds it.
    """
    for name, flag, rank in languages._ranks():
        if rank > widest:
            raise UserError(
                f"{flag}: rank {rank} of {name} exceeds {widest}, the width of the widest adapted layer; a higher rank "
                "adds nothing, so lower it"
            )
