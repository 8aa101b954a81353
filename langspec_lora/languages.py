"""Languages: their names, ids, resource levels and ranks, known in this one place.

A language's id is its position in the list of names (fairseq's ``--langs``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from langspec_lora.errors import UserError
from langspec_lora.values import whole_number

LEVELS = ("high", "med", "low")

PAPER_LEVELS: Mapping[str, str] = {
    **dict.fromkeys(("en", "fr", "it", "de"), "high"),
    **dict.fromkeys(("nl", "zh", "ja", "ko"), "med"),
    **dict.fromkeys(("oc", "or", "sd", "wo"), "low"),
}
"""The twelve languages of Cao et al. (EMNLP 2024) and their resource levels."""


@dataclass(frozen=True)
class Resources:
    """What a ``--lang-resources`` file says.

    Attributes:
        levels: language name to ``high``, ``med`` or ``low``.
        ranks: ranks of single languages, which go before their level's rank.
        flores: language name to FLORES code, for the preparation of FLORES data (optional in the file).
    """

    levels: Mapping[str, str]
    ranks: Mapping[str, int] = field(default_factory=dict)
    flores: Mapping[str, str] = field(default_factory=dict)


PAPER_RESOURCES = Resources(levels=PAPER_LEVELS)


class _TextLoader(yaml.BaseLoader):
    """Reads all values as text, so that Norwegian's ``no`` is a name; and no key twice, where YAML keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        repeated = [key for key in keys if keys.count(key) > 1]
        if repeated:
            raise UserError(f"it holds the key {repeated[0]!r} twice; write each one once")
        return super().construct_mapping(node, deep)


def read_resources(path: str | Path) -> Resources:
    """Reads a YAML file ``high: [en, fr]``, ``med: […]``, ``low: […]``, optionally ``ranks: {wo: 16}``.

    Args:
        path: the file.

    Returns:
        Levels and ranks by language name.

    Raises:
        UserError: the file is missing, is no such YAML, holds a key twice or an empty name, or gives a language two
            levels.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_TextLoader)
    except OSError as error:
        raise UserError(
            f"--lang-resources {path}: {error.strerror}; give a YAML file of levels and languages"
        ) from error
    except UserError as error:
        raise UserError(f"--lang-resources {path}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"--lang-resources {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not set(content) & set(LEVELS):
        raise UserError(f"--lang-resources {path} names no level; expected lines such as 'high: [en, fr]'")
    unknown = sorted(set(content) - {*LEVELS, "ranks", "flores"})
    if unknown:
        raise UserError(
            f"--lang-resources {path}: unknown key {unknown[0]!r}; expected high, med, low, ranks or flores"
        )

    levels: dict[str, str] = {}
    for level in LEVELS:
        names = content.get(level) or []
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise UserError(f"--lang-resources {path}: {level!r} must hold a list of languages such as [en, fr]")
        for name in names:
            if name in levels:
                raise UserError(f"--lang-resources {path}: {name!r} stands under {levels[name]!r} and under {level!r}")
            levels[name] = level
    given = _single_values(content, "ranks", path)
    stray = [name for name in given if name not in levels]
    if stray:
        raise UserError(f"--lang-resources {path}: {stray[0]!r} has a rank but stands under no level; put it under one")
    ranks = {name: check_rank(value, f"{path}: ranks: {name}") for name, value in given.items()}
    return Resources(levels=levels, ranks=ranks, flores=_single_values(content, "flores", path))


def _single_values(content: dict, key: str, path: Path) -> dict[str, str]:
    values = content.get(key) or {}
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise UserError(f"--lang-resources {path}: {key!r} must map languages to single values, such as {{wo: 16}}")
    empty = [name or value for name, value in values.items() if not (name and value)]
    if empty:
        raise UserError(
            f"--lang-resources {path}: {key!r} holds an empty name or value beside {empty[0]!r}; fill it in"
        )
    return values


def check_rank(value: str | int, where: str) -> int:
    """Reads a rank.

    Args:
        value: the rank, as a number or as text.
        where: where it comes from, for the message.

    Raises:
        UserError: it is no whole number of at least 1.
    """
    try:
        rank = whole_number(value) if isinstance(value, str) else value
    except ValueError:
        raise UserError(f"{where}: {value!r} is no rank; expected a whole number of at least 1") from None
    if rank < 1:
        raise UserError(f"{where}: rank {rank} was given; expected a whole number of at least 1")
    return rank


@dataclass(frozen=True)
class LanguageTable:
    """The languages of a model in the order of their ids.

    Attributes:
        names: language names; a language's id is its position.
        levels: resource level of each language, in the same order.
        ranks: rank of each language's adapter, in the same order.
    """

    names: tuple[str, ...]
    levels: tuple[str, ...]
    ranks: tuple[int, ...]

    @classmethod
    def build(
        cls, names: Sequence[str], resources: Resources, level_ranks: Mapping[str, int], source: str = "built-in levels"
    ) -> LanguageTable:
        """Gives each language its level and its rank.

        Args:
            names: language names in the order of their ids.
            resources: levels, and ranks of single languages.
            level_ranks: rank of each level, for ``high``, ``med`` and ``low``.
            source: where the levels come from, for the error message.

        Raises:
            UserError: a language without a level, a name given twice, or a rank below 1.
        """
        if not all(names) or not names:
            raise UserError(f"--langs {','.join(names)!r} lacks a language; name them all, such as en,fr,wo")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"--langs names {twice[0]!r} twice; name every language once")
        missing = [name for name in names if name not in resources.levels]
        if missing:
            raise UserError(
                f"no resource level for {', '.join(missing)} (levels come from the {source}); "
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
            raise UserError(f"unknown language {name!r}; the model has adapters for {', '.join(self.names)}") from None


def languages_to_json(table: LanguageTable) -> str:
    """Writes a language table as JSON, as checkpoints store it."""
    return json.dumps({"names": table.names, "levels": table.levels, "ranks": table.ranks}, ensure_ascii=False)


def languages_from_json(text: str) -> LanguageTable:
    """Reads what :func:`languages_to_json` wrote.

    Raises:
        UserError: the text is damaged.
    """
    try:
        table = json.loads(text)
        return LanguageTable(tuple(table["names"]), tuple(table["levels"]), tuple(table["ranks"]))
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        raise UserError("the checkpoint's table of languages is damaged; download it again") from error


def check_ranks(languages: LanguageTable, widest: int) -> None:
    """Makes sure that no rank is greater than any layer is wide, before matrices of that size are made.

    Args:
        languages: names, levels and ranks.
        widest: the greatest width that an adapter reads or adds to.

    Raises:
        UserError: a rank is.
    """
    for name, level, rank in zip(languages.names, languages.levels, languages.ranks, strict=True):
        if rank > widest:
            raise UserError(
                f"--{level}-rank: rank {rank} of {name} is above {widest}, the widest layer that is adapted; a rank "
                "beyond it adds nothing"
            )
