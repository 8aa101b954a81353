"""Whatever goes wrong with two hundred languages, 39,800 directions, is told in a sentence that a person can read."""

from __future__ import annotations

import ast
from argparse import Namespace
from collections.abc import Callable, Iterator
from itertools import permutations, product

import pytest
import torch

from langspec_lora.adapters.averaging import average
from langspec_lora.adapters.checks import check_agreement, check_languages
from langspec_lora.adapters.edit import check_new_languages, join, remove_languages
from langspec_lora.adapters.entries import language_manifest
from langspec_lora.adapters.packed import Adapters, PackedMatrices
from langspec_lora.cli.written import print_written
from langspec_lora.config import trained_languages
from langspec_lora.convert.hf.added_tokens import AddedTokens, language_names, language_remarks
from langspec_lora.convert.lslo_languages import language_ids
from langspec_lora.data.directions import Direction, choose_directions
from langspec_lora.data.loading_log import summary
from langspec_lora.errors import SeveralErrors, UserError, collect_errors, exit_on_user_error, listed
from langspec_lora.inference.model_files import TranslatorFiles
from langspec_lora.languages import PAPER_RESOURCES, LanguageTable
from langspec_lora.naming import unlike
from langspec_lora.sites import Site
from langspec_lora.tasks.checks.languages import resolve_languages
from langspec_lora.tasks.checks.sampling import _check as check_weights
from langspec_lora.values import names_of
from tests import ROOT

PACKAGE = ROOT / "langspec_lora"
NAMES = tuple("".join(pair) for pair in product("abcdefghijklmno", repeat=2))[:200]
PAIRS = tuple(f"{a}-{b}" for a, b in permutations(NAMES, 2))
DIRECTIONS = tuple(Direction(a, b) for a, b in permutations(NAMES, 2))
LONGEST = 400
"""Characters of a message: three lines of a terminal that is wide."""

assert (len(NAMES), len(PAIRS)) == (200, 39_800)


def table(names: tuple[str, ...] = NAMES, rank: int = 1) -> LanguageTable:
    return LanguageTable(names, ("high",) * len(names), (rank,) * len(names))


def adapters(languages: LanguageTable) -> Adapters:
    rows = sum(languages.ranks)
    packed = {Site("encoder", 0, "q"): PackedMatrices(torch.ones(rows, 2), torch.ones(rows, 2), torch.ones(rows, 2))}
    return Adapters(languages, {"encoder": ("src",), "decoder": ("tgt",)}, 0, 0, packed, 0)


def swapped(names: tuple[str, ...]) -> tuple[str, ...]:
    """The same names, with numbers 101 and 102 in each other's place."""
    return (*names[:100], names[101], names[100], *names[102:])


def command(**flags) -> Namespace:
    none = dict.fromkeys(("source_lang", "target_lang", "lang_dict", "extra_lang_pairs", "extra_data", "langtoks"))
    return Namespace(**{**none, "langs": ",".join(NAMES), "lang_pairs": ",".join(PAIRS), **flags})


def with_one_empty(names: tuple[str, ...]) -> str:
    return ",".join((*names[:150], "", *names[150:]))


MISTAKES: dict[str, tuple[Callable[[], object], tuple[str, ...]]] = {
    "an unknown language to evaluate": (lambda: choose_directions(DIRECTIONS, ["xx", "aa"]), ("xx", "(200)")),
    "an unknown direction to evaluate": (
        lambda: choose_directions(DIRECTIONS, None, "xx-aa,aa-ab"),
        ("xx-aa", "(200)"),
    ),
    "all directions but of other data": (
        lambda: choose_directions([Direction("xx", "yy")], None, ",".join(PAIRS)),
        ("aa-ab", "(39,800)"),
    ),
    "directions joined by spaces": (lambda: choose_directions(DIRECTIONS, None, " ".join(PAIRS)), ("aa-ab aa-ac",)),
    "an empty direction": (
        lambda: choose_directions(DIRECTIONS, None, with_one_empty(PAIRS)),
        (f"after {PAIRS[149]}, its number 150",),
    ),
    "an empty language": (lambda: names_of(with_one_empty(NAMES), "--langs"), (f"after {NAMES[149]}, its number 150",)),
    "an empty language of a table": (
        lambda: LanguageTable.build(with_one_empty(NAMES).split(","), PAPER_RESOURCES, {}),
        (f"after {NAMES[149]}",),
    ),
    "no level for most languages": (lambda: LanguageTable.build(NAMES, PAPER_RESOURCES, {}), ("aa", "(196)")),
    "a training direction of an unknown language": (
        lambda: resolve_languages(command(lang_pairs=",".join((*PAIRS, "aa-xx")))),
        ("aa-xx", "(200)"),
    ),
    "training directions joined by spaces": (
        lambda: resolve_languages(command(lang_pairs=" ".join(PAIRS))),
        ("aa-ab aa-ac",),
    ),
    "an empty training language": (
        lambda: resolve_languages(command(langs=with_one_empty(NAMES))),
        (f"after {NAMES[149]}, its number 150",),
    ),
    "a source language that is unknown": (lambda: resolve_languages(command(source_lang="xx")), ("xx", "(200)")),
    "a language to train that is unknown": (
        lambda: trained_languages(Namespace(train_languages="aa,xx", freeze_original_parameters=True), table()),
        ("'xx'", "(200)"),
    ),
    "all languages to train, and the base": (
        lambda: trained_languages(
            Namespace(train_languages=",".join(NAMES), freeze_original_parameters=False), table()
        ),
        ("aa,ab",),
    ),
    "a direction without weight": (
        lambda: check_weights("--sampling-weights", {}, PAIRS, False),
        ("aa-ab", "(39,800)"),
    ),
    "a weight without direction": (
        lambda: check_weights("--sampling-weights", dict.fromkeys([*PAIRS, "xx-yy"], 1), PAIRS, False),
        ("xx-yy", "(39,800)"),
    ),
    "an unknown language of a table": (lambda: table().id("xx"), ("'xx'", "(200)")),
    "200 unknown languages to remove": (
        lambda: remove_languages(adapters(table()), [f"x{name}" for name in NAMES]),
        ("200 mistakes", "'xaa'"),
    ),
    "all languages to remove": (lambda: remove_languages(adapters(table()), NAMES), ("(200)",)),
    "an old language to add": (lambda: check_new_languages(adapters(table()), ["ab"]), ("ab", "(200)")),
    "200 languages of both": (lambda: join(adapters(table()), adapters(table())), ("(200)", "--prefer")),
    "averages of another order": (
        lambda: average([adapters(table()), adapters(table(swapped(NAMES)))], ["one", "other"]),
        (f"{NAMES[100]}, {NAMES[101]}, {NAMES[102]}", f"{NAMES[101]}, {NAMES[100]}, {NAMES[102]}", "from number 101"),
    ),
    "averages of other ranks": (
        lambda: average([adapters(table()), adapters(table(rank=2))], ["one", "other"]),
        ("1/1/1", "2/2/2", "of 200"),
    ),
    "languages that a checkpoint lacks": (
        lambda: check_languages(table(), table(tuple(f"x{name}" for name in NAMES))),
        ("xaa", "(200)"),
    ),
    "a manifest in another order": (
        lambda: check_agreement(language_manifest(table()), table(swapped(NAMES))),
        (f"{NAMES[100]},{NAMES[101]}", f"{NAMES[101]},{NAMES[100]}", "from number 101"),
    ),
    "a direction that a model does not know": (
        lambda: TranslatorFiles(None, None, NAMES, ()).check_direction("xx", "aa"),  # type: ignore[arg-type]
        ("'xx'", "(200)"),
    ),
    "languages that the released code lacks": (
        lambda: language_ids(range(200), NAMES, None, "checkpoint x"),
        ("aa", "(200)", "--langs"),
    ),
    "an added token that is unknown": (
        lambda: language_names(
            AddedTokens(dict(zip(NAMES, range(200), strict=True)), frozenset(), frozenset(), ()), (), ["xx"]
        ),
        ("'xx'", "(200)"),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_a_sentence_with_what_is_wrong_and_not_every_name(mistake) -> None:
    make, parts = MISTAKES[mistake]
    with pytest.raises(SystemExit) as end, exit_on_user_error():
        make()
    lines = str(end.value.code).splitlines()
    assert max(map(len, lines)) <= LONGEST
    assert len(lines) <= 25
    for part in parts:
        assert part in lines[0] + lines[-1] + "".join(lines[:2])


def test_39800_mistakes_are_counted_and_the_first_shown() -> None:
    def refuse(pair: str) -> None:
        raise UserError(f"{pair} not found")

    def check_all() -> None:
        with collect_errors() as errors:
            for pair in PAIRS:
                with errors.check():
                    refuse(pair)

    with pytest.raises(SeveralErrors) as found:
        check_all()
    shown = listed([str(error) for error in found.value.errors]).splitlines()
    assert shown[:2] == ["39,800 mistakes", "  1. aa-ab not found"]
    assert len(shown) == 22
    assert str(found.value).endswith(f"{PAIRS[19]} not found; and 39,780 more; correct these first")


def test_remarks_and_logs_name_some_and_the_number() -> None:
    added = AddedTokens(
        dict(zip(NAMES, range(200), strict=True)), frozenset(), frozenset(), tuple(f"<{name}>" for name in NAMES)
    )
    remarks = language_remarks(added, {name: name for name in NAMES[:150]}, (), ())
    assert [("(150)" in remark, "(50)" in remark) for remark in remarks[:2]] == [(True, False), (False, True)]
    assert "(200)" in remarks[-1]
    line = summary(
        "train", [f"folder{number}" for number in range(300)], [1] * 39_800, dict(zip(NAMES, range(200), strict=True))
    )
    assert max(map(len, [*remarks, line])) <= LONGEST


def test_lists_that_differ_are_shown_from_where_they_differ() -> None:
    assert unlike("abc", "acb", ",") == ("a,b,c", "a,c,b")
    assert unlike(range(200), [*range(199), 7]) == (
        "199 (from number 200 on, of 200)",
        "7 (from number 200 on, of 200)",
    )
    assert unlike(range(25), range(12), "/") == (
        "12/13/14/15/16/17/18/19/… (from number 13 on, of 25)",
        "nothing (from number 13 on, of 12)",
    )


def test_many_written_files_are_one_line(tmp_path, capsys) -> None:
    paths = [tmp_path / name / "part" for name in NAMES]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(bytes(1000))
    print_written(paths)
    print_written(paths[:2])
    assert capsys.readouterr().out.splitlines() == [
        f"written: 200 files in {tmp_path} (0.2 MB)",
        f"written: {paths[0]} (1.0 kB)",
        f"written: {paths[1]} (1.0 kB)",
    ]


def joins(tree: ast.AST, within: bool = False) -> Iterator[tuple[str, bool]]:
    """What each ``"…".join(…)`` puts between its items, and whether it stands in an f-string."""
    for node in ast.iter_child_nodes(tree):
        inside = within or isinstance(node, ast.JoinedStr)
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Attribute) and called.attr == "join" and isinstance(called.value, ast.Constant):
            yield called.value.value, inside
        yield from joins(node, inside)


def test_no_message_joins_a_list_by_itself() -> None:
    """``naming`` shortens lists; a list that is short today grows with the next format, level or metric."""
    found = [
        f"{path.relative_to(PACKAGE)} joins by {between!r}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "naming.py"
        for between, within in joins(ast.parse(path.read_text(encoding="utf-8")))
        if between == ", " or (within and between in (",", "/"))
    ]
    assert found == []
