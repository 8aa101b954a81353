"""The language ids of the authors' released implementation (Cao et al., EMNLP 2024).

Its code has a table of twelve languages with their ids and levels, and ignores the order of ``--langs``.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Collection, Mapping, Sequence

from langspec_lora.convert import say
from langspec_lora.errors import UserError
from langspec_lora.languages import PAPER_LEVELS, LanguageTable, Resources
from langspec_lora.naming import some_of
from langspec_lora.values import check_once

RELEASED_LANGUAGES = ("en", "fr", "it", "de", "nl", "zh", "ja", "ko", "oc", "or", "sd", "wo")
"""The released code's languages by their ids."""

_TABLE = {name: number for number, name in enumerate(RELEASED_LANGUAGES)}


def language_ids(
    present: Collection[int], trained: Sequence[str], given: Sequence[str] | None, label: str
) -> dict[str, int]:
    """The id of each language to import.

    Args:
        present: the ids that have adapters in a checkpoint.
        trained: the ``--langs`` of its training.
        given: the languages to import instead. If they or the ids go beyond the table of the released code, they must
            be all languages in the order of their ids, since only the user knows a changed table.
        label: the checkpoint, for messages.

    Returns:
        Ids by name, in the order of ``given`` or ``trained``.

    Raises:
        UserError: a name is given twice, or the ids cannot be known.
    """
    names = list(given or trained) or [name for name in RELEASED_LANGUAGES if _TABLE[name] in present]
    if not all(names):
        raise UserError(f"--langs {some_of(names, ',')!r} has an empty name; expected languages such as en,fr,wo")
    check_once(names, "--langs", "language")
    if set(names) <= set(_TABLE) and max(present) < len(_TABLE):
        ids = {name: _TABLE[name] for name in names}
        if sorted(ids.values()) != list(ids.values()):
            listed = some_of(f"{name} {number}" for name, number in ids.items())
            say(f"the ids are those of the released code, not the order of --langs: {listed}")
    else:
        ids = _changed_table(present, given, names, label)
    left_out = sorted(set(present) - set(ids.values()))
    if left_out:
        languages = some_of(f"{RELEASED_LANGUAGES[number]} ({number})" for number in left_out)
        say(f"left out, since --langs does not name them: {languages}")
    return ids


def _changed_table(
    present: Collection[int], given: Sequence[str] | None, names: Sequence[str], label: str
) -> dict[str, int]:
    if given is None or sorted(present) != list(range(len(given))):
        raise UserError(
            f"{label} has adapters for {len(present)} languages, ids {min(present)} to {max(present)}, and the "
            f"languages {some_of(names, ',')}, but the released code knows only {some_of(RELEASED_LANGUAGES, ',')}; "
            "give all languages of the code that trained it, in the order of their ids, as --langs"
        )
    ids = {name: number for number, name in enumerate(given)}
    moved = [
        f"{name} {number} (not {_TABLE[name]})" for name, number in ids.items() if _TABLE.get(name, number) != number
    ]
    if moved:
        say(f"--langs gives ids that differ from the released code: {some_of(moved)}")
    return ids


def check_ranks(
    languages: LanguageTable, ids: Mapping[str, int], args: Namespace, resources: Resources, label: str
) -> None:
    """Checks that the adapters have the ranks that the training arguments give to their levels.

    Args:
        languages: names and levels, and the ranks that the checkpoint has.
        ids: their ids in the checkpoint.
        args: the arguments that it was trained with.
        resources: levels, and ranks of single languages, for languages that the released code does not have.
        label: the checkpoint, for messages.

    Raises:
        UserError: a rank differs, so the adapter is probably another language's.
    """
    as_released = all(_TABLE.get(name) == number for name, number in ids.items())
    for name, level, rank in zip(languages.names, languages.levels, languages.ranks, strict=True):
        level = PAPER_LEVELS[name] if as_released else level
        expected = getattr(args, f"{level}_rank", None)
        if not as_released:
            expected = resources.ranks.get(name, expected)
        if expected is not None and expected != rank:
            remedy = (
                "the code that trained it has other ids than the released code, so its languages are not known"
                if as_released
                else "give --langs in the order of its ids, and its levels as --lang-resources"
            )
            raise UserError(
                f"{label}: {name} has id {ids[name]}, whose adapter has rank {rank}, but languages of its level were "
                f"trained with --{level}-rank {expected}; {remedy}"
            )
