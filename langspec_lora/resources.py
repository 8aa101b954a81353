"""YAML files about languages: resource levels and ranks (``--lang-resources``), and groups (``--lang-groups``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langspec_lora.errors import UserError
from langspec_lora.languages import LEVELS, Resources, check_name, check_rank
from langspec_lora.values import shortened
from langspec_lora.yaml_files import read_yaml


@dataclass(frozen=True)
class Groups:
    """The content of a ``--lang-groups`` file.

    Attributes:
        group_of: language name to the name of its group.
        ranks: ranks of single groups.
    """

    group_of: Mapping[str, str]
    ranks: Mapping[str, int] = field(default_factory=dict)


def read_resources(path: str | Path) -> Resources:
    """Reads a YAML file ``high: [en, fr]``, ``med: […]``, ``low: […]``, optionally ``ranks: {wo: 16}``.

    Args:
        path: the file.

    Returns:
        Levels and ranks by language name.

    Raises:
        UserError: the file is missing, is not such a YAML file, repeats a key, has an empty name, or gives a language
            two levels.
    """
    label = f"--lang-resources {path}"
    content = read_yaml(Path(path), label, "levels and languages")
    if not isinstance(content, dict) or not set(content) & set(LEVELS):
        raise UserError(f"{label} has no level; expected lines such as 'high: [en, fr]'")
    unknown = sorted(set(content) - {*LEVELS, "ranks", "flores"})
    if unknown:
        raise UserError(f"{label}: unknown key {unknown[0]!r}; expected high, med, low, ranks or flores")
    levels = _listed_once({level: content.get(level) or [] for level in LEVELS}, label)
    given = _single_values(content, "ranks", label)
    without_level = [name for name in given if name not in levels]
    if without_level:
        raise UserError(f"{label}: {without_level[0]!r} has a rank but no level; put it under a level")
    ranks = {name: check_rank(value, f"{path}: ranks: {name}") for name, value in given.items()}
    return Resources(levels=levels, ranks=ranks, flores=_single_values(content, "flores", label))


def read_groups(path: str | Path) -> Groups:
    """Reads a YAML file ``romance: [fr, it, oc]``, ``germanic: […]``, optionally ``ranks: {romance: 16}``.

    Args:
        path: the file.

    Raises:
        UserError: the file is missing, is not such a YAML file, repeats a key, has an empty name, puts a language into
            two groups, or gives a rank to a group that it does not have.
    """
    label = f"--lang-groups {path}"
    content = read_yaml(Path(path), label, "groups and languages")
    if not isinstance(content, dict) or not set(content) - {"ranks"}:
        raise UserError(f"{label} has no group; expected lines such as 'romance: [fr, it, oc]'")
    members = {check_name(group, label): names for group, names in content.items() if group != "ranks"}
    groups = _listed_once(members, label)
    given = _single_values(content, "ranks", label)
    without_group = [name for name in given if name not in members]
    if without_group:
        raise UserError(f"{label}: ranks names {without_group[0]!r}, which is not a group of the file; name its groups")
    return Groups(groups, {name: check_rank(value, f"{path}: ranks: {name}") for name, value in given.items()})


def _listed_once(lists: Mapping[str, Any], label: str) -> dict[str, str]:
    """The list that each language is in.

    Raises:
        UserError: a list is none of names, or a language is listed twice.
    """
    list_of: dict[str, str] = {}
    for key, names in lists.items():
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise UserError(f"{label}: {shortened(key)} must hold a list of languages such as [en, fr]")
        for name in names:
            check_name(name, label)
            if name in list_of:
                both = f"{list_of[name]!r} and {key!r}"
                raise UserError(f"{label}: {name!r} is listed twice, under {both}; list it once")
            list_of[name] = key
    return list_of


def _single_values(content: dict, key: str, label: str) -> dict[str, str]:
    values = content.get(key) or {}
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise UserError(f"{label}: {key!r} must map names to single values, such as {{wo: 16}}")
    empty = [name or value for name, value in values.items() if not (name and value)]
    if empty:
        raise UserError(f"{label}: {key!r} has an empty name or value next to {empty[0]!r}; fill it in")
    return values
