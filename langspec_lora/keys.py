"""What selects an adapter: a key, computed from the source and the target language of a sentence.

The side of a layer says how. With ``src`` and ``tgt``, the key is the source or the target language, or the group that
it is in; with ``direction`` it is the direction; with ``shared``, all sentences have the same key. With ``learned``, a
sentence has two keys: each language (or group) has one adapter as a source and another as a target. Layers of one side
have the same keys, and so the same rows in their packed matrices.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import NamedTuple

from langspec_lora.errors import UserError
from langspec_lora.languages import LEVELS, LanguageTable
from langspec_lora.naming import some_of
from langspec_lora.resources import Groups
from langspec_lora.sites import DIRECTION, LEARNED, SHARED, SOURCE, TARGET

LANGUAGE, GROUP = "language", "group"
ADAPTER_KEYS = (LANGUAGE, GROUP, DIRECTION, SHARED)
"""What the adapters of a model belong to (``--adapter-key``)."""

MIXED = "mixed"
"""The level of a key whose languages have several."""

KEY_LEVELS = (*LEVELS, MIXED)

SHARED_NAME = "all languages"
"""The key of a shared adapter; no language, group or direction has a space in its name."""


class Keys(NamedTuple):
    """The keys of one side, in the order of their rows.

    Attributes:
        names: languages, groups or directions, or :data:`SHARED_NAME` alone.
        levels: resource level of each key: that of its languages, of the lower of a direction's two, or :data:`MIXED`.
        ranks: rank of each key's adapter.
    """

    names: tuple[str, ...]
    levels: tuple[str, ...]
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class PackedLayout:
    """How the adapters of all keys are packed in one tensor.

    Key ``k`` has the rows ``offsets[k]`` to ``offsets[k] + ranks[k]`` of ``A (R, d_in)`` and of ``B (R, d_out)``, with
    ``R`` the sum of all ranks.

    Attributes:
        ranks: rank of each key's adapter.
        offsets: first row of each key.
    """

    ranks: tuple[int, ...]
    offsets: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "offsets", tuple(accumulate(self.ranks, initial=0))[:-1])

    @property
    def rows(self) -> int:
        """``R``, the number of rows of a packed tensor."""
        return sum(self.ranks)

    def slice(self, key: int) -> slice:
        """The rows of one key."""
        start = self.offsets[key]
        return slice(start, start + self.ranks[key])


@dataclass(frozen=True)
class KeyLayout:
    """The key of each sentence and the rows of each key, as numbers.

    Attributes:
        key_of_language: the key of each language as a source or target, by language id.
        packed: the rows of the keys, by side.
        key_of_direction: the key of each direction that has an adapter, by the ids of its source and target.
    """

    key_of_language: tuple[int, ...]
    packed: Mapping[str, PackedLayout]
    key_of_direction: Mapping[tuple[int, int], int] = field(default_factory=dict)

    @classmethod
    def by_language(cls, ranks: Sequence[int], mixed: bool = False) -> KeyLayout:
        """An adapter for each language, selected by the source or the target language.

        Args:
            ranks: rank of each language's adapter, by language id.
            mixed: whether some layers mix two adapters of that rank: one as a source, one as a target.
        """
        packed = PackedLayout(tuple(ranks))
        both = {LEARNED: PackedLayout(packed.ranks * 2)} if mixed else {}
        return cls(tuple(range(len(packed.ranks))), {SOURCE: packed, TARGET: packed, **both})

    @property
    def languages(self) -> int:
        """The number of languages."""
        return len(self.key_of_language)

    def keys(self, side: str, source: int, target: int) -> tuple[int, ...]:
        """The keys of a sentence: two where source and target are mixed, else one.

        Args:
            side: the side of the layer.
            source: the source language's id.
            target: the target language's id.

        Raises:
            UserError: the direction has no adapter.
        """
        if side == SHARED:
            return (0,)
        if side == DIRECTION:
            if (source, target) not in self.key_of_direction:
                raise UserError(f"the direction from language {source} to {target} has no adapter")
            return (self.key_of_direction[source, target],)
        if side == LEARNED:
            return self.key_of_language[source], self.key_of_language[target] + self.keys_as_source
        return (self.key_of_language[source if side == SOURCE else target],)

    @property
    def keys_as_source(self) -> int:
        """The number of keys of languages (or groups): where source and target are mixed, those as a target follow."""
        return len(self.packed[SOURCE].ranks)

    def only_for(self, side: str, languages: Collection[int]) -> tuple[int, ...]:
        """The keys whose adapters no direction between two other languages uses.

        Args:
            side: the side of the layers.
            languages: the ids of some languages.
        """
        if side == DIRECTION:
            pairs = self.key_of_direction.items()
            return tuple(key for pair, key in pairs if not set(pair).isdisjoint(languages))
        members: dict[int, set[int]] = {}
        for language, key in enumerate(self.key_of_language):
            members.setdefault(0 if side == SHARED else key, set()).add(language)
        own = tuple(key for key, inside in sorted(members.items()) if inside.issubset(languages))
        return (*own, *(key + self.keys_as_source for key in own)) if side == LEARNED else own


def keys_of(languages: LanguageTable, side: str) -> Keys:
    """The keys that layers of a side select from.

    Args:
        languages: the languages of a model, and what its adapters belong to.
        side: one of :data:`~langspec_lora.sites.SIDES`.
    """
    if side == LEARNED:
        one = keys_of(languages, SOURCE)
        names = (f"{name} as {what}" for what in ("source", "target") for name in one.names)
        return Keys(tuple(names), one.levels * 2, one.ranks * 2)
    if side == SHARED:
        return Keys((SHARED_NAME,), (_common(languages.levels),), (languages.shared_rank,))
    level_of = dict(zip(languages.names, languages.levels, strict=True))
    if side == DIRECTION:
        pairs = [name.split("-") for name in languages.direction_ranks]
        lower = (max((level_of[name] for name in pair), key=LEVELS.index) for pair in pairs)
        return Keys(tuple(languages.direction_ranks), tuple(lower), tuple(languages.direction_ranks.values()))
    if languages.groups:
        members: dict[str, list[str]] = {group: [] for group in languages.group_ranks}
        for name, group in zip(languages.names, languages.groups, strict=True):
            members[group].append(level_of[name])
        return Keys(tuple(members), tuple(map(_common, members.values())), tuple(languages.group_ranks.values()))
    return Keys(languages.names, languages.levels, languages.ranks)


def kind_of_key(languages: LanguageTable, sides: Collection[str]) -> str:
    """What the adapters of a model belong to: one of :data:`ADAPTER_KEYS`, or ``key`` if they belong to several.

    Args:
        languages: the languages of the model, and what its adapters belong to.
        sides: the sides of its adapted layers.
    """
    by_language = GROUP if languages.groups else LANGUAGE
    kinds = {by_language if side in (SOURCE, TARGET, LEARNED) else side for side in sides}
    return kinds.pop() if len(kinds) == 1 else "key"


def key_layout(languages: LanguageTable, sides: Collection[str]) -> KeyLayout:
    """The keys and rows of a model's adapters.

    Args:
        languages: the languages of the model, and what its adapters belong to.
        sides: the sides of its adapted layers.
    """
    by_language = PackedLayout(keys_of(languages, SOURCE).ranks)
    packed = {SOURCE: by_language, TARGET: by_language}
    if LEARNED in sides:
        packed[LEARNED] = PackedLayout(by_language.ranks * 2)
    key_of_language = tuple(range(len(languages)))
    key_of_direction = {}
    if languages.groups:
        places = {group: place for place, group in enumerate(languages.group_ranks)}
        key_of_language = tuple(places[group] for group in languages.groups)
    if languages.direction_ranks:
        ids = {name: number for number, name in enumerate(languages.names)}
        packed[DIRECTION] = PackedLayout(tuple(languages.direction_ranks.values()))
        for place, direction in enumerate(languages.direction_ranks):
            source, target = direction.split("-")
            key_of_direction[ids[source], ids[target]] = place
    if languages.shared_rank:
        packed[SHARED] = PackedLayout((languages.shared_rank,))
    return KeyLayout(key_of_language, packed, key_of_direction)


def key_names(languages: LanguageTable, side: str, source: str, target: str) -> tuple[str, ...]:
    """The keys of a sentence from one language to another: two where source and target are mixed, else one.

    Raises:
        UserError: the model has no adapter for the language or the direction.
    """
    if side == SHARED:
        return (SHARED_NAME,)
    if side == DIRECTION:
        check_directions(languages, [(source, target)])
        return (f"{source}-{target}",)
    owners = languages.groups or languages.names
    if side == LEARNED:
        return f"{owners[languages.id(source)]} as source", f"{owners[languages.id(target)]} as target"
    return (owners[languages.id(source if side == SOURCE else target)],)


def check_directions(languages: LanguageTable, directions: Iterable[tuple[str, str]]) -> None:
    """Checks that directions have adapters, where each direction has its own.

    Raises:
        UserError: one has none.
    """
    known = languages.direction_ranks
    unknown = [f"{source}-{target}" for source, target in directions if known and f"{source}-{target}" not in known]
    if unknown:
        raise UserError(
            f"each direction has its own adapter, and {some_of(unknown)} was not trained; the model has adapters for "
            f"{some_of(known)}"
        )


def with_groups(languages: LanguageTable, groups: Groups, label: str) -> LanguageTable:
    """Makes the languages of a group share an adapter.

    Its rank is the one in the file, or else the sum of its languages' ranks, so that there are as many parameters.

    Args:
        languages: names, levels and ranks.
        groups: the group of each language.
        label: the file, for the message.

    Raises:
        UserError: a language has no group.
    """
    missing = [name for name in languages.names if name not in groups.group_of]
    if missing:
        raise UserError(f"{label} leaves out {some_of(missing)}; put every language of --langs into a group")
    own = tuple(groups.group_of[name] for name in languages.names)
    sums = dict.fromkeys(own, 0)
    for group, rank in zip(own, languages.ranks, strict=True):
        sums[group] += rank
    return replace(languages, groups=own, group_ranks={group: groups.ranks.get(group, sums[group]) for group in sums})


def with_directions(languages: LanguageTable, directions: Iterable[tuple[str, str]]) -> LanguageTable:
    """Gives each of some directions an adapter, of the larger of its two languages' ranks."""
    ranks = dict(zip(languages.names, languages.ranks, strict=True))
    own = {f"{source}-{target}": max(ranks[source], ranks[target]) for source, target in directions}
    return replace(languages, direction_ranks=own)


def with_shared(languages: LanguageTable, rank: int | None) -> LanguageTable:
    """Adds an adapter that all languages share.

    Args:
        languages: names, levels and ranks.
        rank: its rank; None for the sum of the languages' ranks, so that there are as many parameters.
    """
    return replace(languages, shared_rank=sum(languages.ranks) if rank is None else rank)


def _common(levels: Sequence[str]) -> str:
    return levels[0] if len(set(levels)) == 1 else MIXED
