"""What the flags say of the adapters' keys: ``--adapter-key``, ``--lang-groups`` and ``--shared-rank``."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Collection

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.keys import ADAPTER_KEYS, GROUP, LANGUAGE, with_directions, with_groups, with_shared
from langspec_lora.languages import LanguageTable, check_rank
from langspec_lora.naming import some_of
from langspec_lora.resources import read_groups
from langspec_lora.sites import DIRECTION, LEARNED, SHARED
from langspec_lora.values import listed


def default_side(args: Namespace) -> str | None:
    """The side that ``--adapter-key`` or ``--weight-learning`` gives to every layer; None if they leave it open."""
    key = key_of(args)
    if key in (DIRECTION, SHARED):
        return key
    return LEARNED if getattr(args, "weight_learning", False) else None


def mixture_rate(args: Namespace) -> float:
    """How much faster the weights of source and target learn than all else.

    Args:
        args: the arguments of a training, or those that a checkpoint stores.
    """
    own, rates = getattr(args, "weight_learning_lr", None), getattr(args, "lr", None)
    first = rates[0] if isinstance(rates, (list, tuple)) and rates else rates
    if own is None or not isinstance(first, (int, float)) or not first > 0:
        return 1.0
    return own / first


def key_of(args: Namespace) -> str:
    """``--adapter-key``; checkpoints of earlier versions have adapters of languages."""
    return getattr(args, "adapter_key", None) or LANGUAGE


def check_key_flags(args: Namespace) -> None:
    """Checks the flags of the keys by themselves.

    Raises:
        UserError: flags have wrong values or do not go together; all mistakes are listed.
    """
    key, groups, rank = key_of(args), getattr(args, "lang_groups", None), getattr(args, "shared_rank", None)
    with collect_errors() as errors:
        with errors.check():
            if key not in ADAPTER_KEYS:
                expected = f"{some_of(ADAPTER_KEYS[:-1])} or {ADAPTER_KEYS[-1]}"
                raise UserError(f"--adapter-key {key}: expected {expected}")
        with errors.check():
            if rank is not None:
                check_rank(rank, "--shared-rank")
        with errors.check():
            if getattr(args, "weight_learning", False) and key in (DIRECTION, SHARED):
                raise UserError(
                    f"--weight-learning True learns whether the source or the target selects an adapter, but with "
                    f"--adapter-key {key} neither does; leave one of the two out"
                )
        if groups and key != GROUP:
            raise UserError(f"--lang-groups {groups} is for --adapter-key group, but the key is {key}; give both")


def with_keys(args: Namespace, languages: LanguageTable, sides: Collection[str]) -> LanguageTable:
    """Adds to the languages of a model the groups, directions or the shared adapter that its layers select.

    Args:
        args: the arguments of a training command, or those that a checkpoint stores.
        languages: names, levels and ranks; those of a checkpoint have all.
        sides: the sides of the adapted layers.

    Raises:
        UserError: groups are missing, or leave out a language; a checkpoint lacks what its layers select.
    """
    if getattr(args, "adapter_languages", None):
        for side, found in ((DIRECTION, languages.direction_ranks), (SHARED, languages.shared_rank)):
            if side in sides and not found:
                raise UserError(f"layers select their adapters by {side!r}, but the table of languages has none for it")
        return languages
    if key_of(args) == GROUP:
        path = getattr(args, "lang_groups", None)
        if not path:
            raise UserError(
                "--adapter-key group needs --lang-groups, a YAML file of groups, such as 'romance: [fr, it, oc]'"
            )
        languages = with_groups(languages, read_groups(path), f"--lang-groups {path}")
    if DIRECTION in sides:
        languages = with_directions(languages, given_directions(args))
    if SHARED in sides:
        languages = with_shared(languages, getattr(args, "shared_rank", None))
    return languages


def given_directions(args: Namespace) -> list[tuple[str, str]]:
    """The directions of ``--lang-pairs`` and ``--extra-lang-pairs``, each once.

    Raises:
        UserError: one is not two languages.
    """
    extra = (getattr(args, "extra_lang_pairs", None) or {}).values()
    pairs = dict.fromkeys(pair for several in (args.lang_pairs, *extra) for pair in listed(several))
    directions = [tuple(pair.split("-")) for pair in pairs]
    wrong = [pair for pair, direction in zip(pairs, directions, strict=True) if len(direction) != 2]
    if wrong or not directions:
        raise UserError(f"--lang-pairs has {some_of(wrong) or 'no direction'}; expected directions such as en-fr")
    return [(source, target) for source, target in directions]
