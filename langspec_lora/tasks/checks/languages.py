"""The languages and directions of a command: ``--langs``, ``--lang-dict``, ``--lang-pairs`` and the like."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.files import read_lines
from langspec_lora.key_flags import given_directions
from langspec_lora.languages import check_names
from langspec_lora.naming import cut, some_of
from langspec_lora.values import check_once, empty_place, listed, shortened

logger = logging.getLogger(__name__)


def resolve_languages(args: Namespace) -> None:
    """Sets ``args.langs`` to the list of all languages, and checks that every direction is between two of them.

    fairseq takes the list from ``--langs``, from the file ``--lang-dict``, or from the names in ``--lang-pairs``. In
    ``args.langs`` it is saved with every checkpoint.

    Args:
        args: the task's arguments; changed in place.

    Raises:
        UserError: languages or directions are missing, unknown, repeated or given by two flags; all mistakes are
            listed. Where the languages themselves are right, they are set nevertheless.
    """
    directions: dict[str, list[str]] = {}
    with collect_errors() as errors:
        with errors.check():
            directions |= _checked("--lang-pairs", listed(args.lang_pairs))
        with errors.check():
            directions |= _extra_directions(args)
        if args.langs is None and not getattr(args, "lang_dict", None):
            errors.raise_found()  # the directions name the languages
        names, origin = _names(args, [pair for pairs in directions.values() for pair in pairs])
        args.langs, args.lang_dict = names, None
        for flag, pairs in directions.items():
            with errors.check():
                _check_known(flag, pairs, names, origin)
        for flag, name in (("--source-lang", args.source_lang), ("--target-lang", args.target_lang)):
            with errors.check():
                if name is not None and name not in names:
                    raise UserError(f"{flag} {name} is not in {origin} {some_of(names, ',')}")


def _checked(flag: str, pairs: list[str]) -> dict[str, list[str]]:
    if not pairs:
        raise UserError(f"{flag} is missing; name the directions, such as {flag} en-fr,fr-en")
    for pair in pairs:
        sides = pair.split("-")
        if len(sides) != 2 or not all(sides):
            raise UserError(f"{flag} has {shortened(pair)}; expected directions such as en-fr, joined by commas")
    check_once(pairs, flag, "direction")
    return {flag: pairs}


def _check_known(flag: str, pairs: Sequence[str], names: Sequence[str], origin: str) -> None:
    known = set(names)
    for pair in pairs:
        for name in pair.split("-"):
            if name not in known:
                raise UserError(
                    f"{flag} has {cut(pair)}, but {shortened(name)} is not in {origin} {some_of(names, ',')}"
                )


def _names(args: Namespace, pairs: Sequence[str]) -> tuple[list[str], str]:
    """The languages, and the flag that they come from, for messages."""
    lang_dict = getattr(args, "lang_dict", None)
    if args.langs is not None and lang_dict:
        raise UserError(f"--langs and --lang-dict {lang_dict} both name the languages; give one of them")
    if args.langs is not None:
        names, origin = listed(args.langs), "--langs"
    elif lang_dict:
        names, origin = _listed(lang_dict), f"--lang-dict {lang_dict}"
        if not names:
            raise UserError(f"--lang-dict {lang_dict} is empty; expected one language per line")
    else:
        names = sorted({name for pair in pairs for name in pair.split("-")})
        origin = "the languages of --lang-pairs"
    if not all(names):
        raise UserError(
            f"{origin} {some_of(names, ',')!r} has an empty name{empty_place(names)}; give names such as en,fr,wo"
        )
    check_once(names, origin, "language")
    hyphened = next((name for name in names if "-" in name or name.split() != [name]), None)
    if hyphened is not None:
        raise UserError(
            f"{origin} names {shortened(hyphened)}, but fairseq joins the languages of a direction by '-', and a "
            "dictionary's tokens have no spaces; use another name, such as zh_Hans"
        )
    check_names(names, origin)
    return names, origin


def _listed(file: str) -> list[str]:
    try:
        return [line.strip() for line in read_lines(Path(file)) if line.strip()]
    except UserError as error:
        raise UserError(f"--lang-dict cannot be read ({error}); give a file with one language per line") from error


def used_languages(args: Namespace) -> list[str]:
    """The languages that batches will contain: those of the one direction to translate, or of all directions."""
    return list(dict.fromkeys(name for direction in used_directions(args) for name in direction))


def used_directions(args: Namespace) -> list[tuple[str, str]]:
    """The directions that batches will contain: the one to translate, or all."""
    if args.source_lang is not None and args.target_lang is not None:
        return [(args.source_lang, args.target_lang)]
    return given_directions(args)


def _extra_directions(args: Namespace) -> dict[str, list[str]]:
    """The directions of each entry of ``--extra-lang-pairs``, by the flag and the name of its data."""
    extra, data = getattr(args, "extra_lang_pairs", None), getattr(args, "extra_data", None)
    for flag, value in (("--extra-lang-pairs", extra), ("--extra-data", data)):
        is_text = isinstance(value, dict) and all(isinstance(part, str) for item in value.items() for part in item)
        if value is not None and not is_text:
            raise UserError(
                f"{flag} {cut(value)}: expected a dictionary of names and texts, such as \"{{'mined': '…'}}\""
            )
    extra, data = extra or {}, data or {}
    for name in {**extra, **data}:
        if name not in data:
            raise UserError(f"--extra-lang-pairs names {name!r}, but --extra-data has no folder for it; add one")
        if name not in extra:
            raise UserError(f"--extra-data names {name!r}, but --extra-lang-pairs has no directions for it; add some")
    found: dict[str, list[str]] = {}
    with collect_errors() as errors:
        for name, text in extra.items():
            with errors.check():
                found |= _checked(f"--extra-lang-pairs {name}", listed(text))
    for name in extra:
        if name not in (args.langtoks or {}):
            logger.warning("--langtoks does not name %s, so fairseq adds no language tokens to its sentences", name)
    return found
