"""The YAML file of languages: any text is a table that says what it says, or a sentence."""

from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from langspec_lora.errors import UserError
from langspec_lora.languages import LEVELS, Resources
from langspec_lora.resources import read_resources
from tests.properties import LEGAL_NAMES, NAMES, NUMBERS, TEXT, examples

KEYS = st.sampled_from((*LEVELS, *LEVELS, "ranks", "flores", "High", "lows", "", "1"))
LEAVES = st.one_of(NAMES, NUMBERS, TEXT, st.none(), st.booleans(), st.integers(), st.floats())
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | NUMBERS, inner, max_size=3),
    max_leaves=6,
)


def as_written(text: str) -> Resources | None:
    """What a YAML library of another reading finds; None if it is not what the documentation describes."""
    try:
        content = yaml.load(text, Loader=yaml.BaseLoader)
        for node in [yaml.compose(text), *(value for _, value in yaml.compose(text).value)]:
            if isinstance(node, yaml.MappingNode) and len({key.value for key, _ in node.value}) < len(node.value):
                return None  # a key is given twice
        lists = {level: content.get(level) or [] for level in LEVELS}
        levels = {name: level for level, names in lists.items() for name in names}
        ranks = {name: int(rank) for name, rank in (content.get("ranks") or {}).items()}
        flores = dict((content.get("flores") or {}).items())
    except (yaml.YAMLError, AttributeError, TypeError, ValueError, RecursionError):
        return None
    fits = (
        set(content) <= {*LEVELS, "ranks", "flores"}
        and all(isinstance(names, list) for names in lists.values())
        and len(levels) == sum(map(len, lists.values()))
        and all(isinstance(name, str) and name for name in levels)
        and min(ranks.values(), default=1) >= 1
        and set(ranks) <= set(levels)
        and all(isinstance(code, str) and code for code in flores.values())
    )
    return Resources(levels, ranks, flores) if fits else None


def check(path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        found = read_resources(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert found == as_written(text)


@examples(100)
@given(st.dictionaries(KEYS, VALUES, max_size=4), st.sampled_from((None, True, False)))
def test_a_file_of_nearly_right_content_is_its_content_or_a_sentence(tmp_path_factory, content, flow) -> None:
    path = tmp_path_factory.getbasetemp() / "levels.yaml"
    check(path, yaml.safe_dump(content, allow_unicode=True, default_flow_style=flow))


FEW_NAMES = st.sampled_from(("en", "fr", "wo", "no", "中"))
RANKS = st.integers(-1, 99).map(str) | st.sampled_from(("1_0", "٣", "2.0", "x", ""))


@examples(100)
@given(
    st.dictionaries(FEW_NAMES, st.sampled_from(LEVELS), max_size=4),
    st.fixed_dictionaries(
        {},
        optional={
            "ranks": st.dictionaries(FEW_NAMES, RANKS, max_size=2),
            "flores": st.dictionaries(FEW_NAMES, st.sampled_from(("eng", "fra", "")), max_size=1),
        },
    ),
    st.sampled_from(("", "", "", "low: [sd]\n", "lows: [sd]\n", "med: [en]\n", "ranks: {en: 3}\n")),
)
def test_a_file_is_read_exactly_if_it_is_right(tmp_path_factory, levels, content, more) -> None:
    content = {level: [name for name in levels if levels[name] == level] for level in {*levels.values()}} | content
    path = tmp_path_factory.getbasetemp() / "levels.yaml"
    text = yaml.safe_dump(content, allow_unicode=True)
    text = more if text == "{}\n" else text + more
    path.write_text(text, encoding="utf-8")
    expected = as_written(text)
    ranks = content.get("ranks", {}).values()
    written = [] if text == "" else [key.value for key, _ in yaml.compose(text).value]
    if expected is not None and set(written) & set(LEVELS) and all(map(re.compile("[0-9]+").fullmatch, ranks)):
        assert read_resources(path) == expected
    else:
        with pytest.raises(UserError, match=re.escape(str(path))):
            read_resources(path)


@examples(100)
@given(
    st.lists(
        st.one_of(
            st.tuples(
                KEYS,
                st.sampled_from(("[en, fr]", "[]", "{wo: 16}", "en", "&a [x]", "*a", "!!python/name:os.x", "|", "- x")),
            ).map(": ".join),
            st.sampled_from(
                ("low: [wo, sd]", "ranks: {wo: 16}", "ranks: {wo: ٣}", "<<: {low: [x]}", "\t", "---", "# x", "? [a]")
            ),
            TEXT,
        ),
        max_size=5,
    ).map("\n".join)
)
def test_a_file_of_any_lines_is_its_content_or_a_sentence(tmp_path_factory, text) -> None:
    check(tmp_path_factory.getbasetemp() / "levels.yaml", text)


@examples(40)
@given(
    st.dictionaries(
        LEGAL_NAMES,
        st.tuples(st.sampled_from(LEVELS), st.integers(1, 99)),
        min_size=1,
    )
)
def test_a_right_file_is_read_as_it_was_meant(tmp_path_factory, languages) -> None:
    path = tmp_path_factory.getbasetemp() / "levels.yaml"
    content = {level: [name for name, (own, _) in languages.items() if own == level] for level in LEVELS}
    ranks = {name: rank for name, (_, rank) in languages.items()}
    path.write_text(yaml.safe_dump({**content, "ranks": ranks}, allow_unicode=True), encoding="utf-8")
    found = read_resources(path)
    assert found.levels == {name: level for name, (level, _) in languages.items()}
    assert found.ranks == ranks


@pytest.mark.parametrize("content", [b"\xff\xfe", b"low: [\xf0\x9f]", b"\xef\xbb\xbflow: [wo]", b"low: [a\0b]"])
def test_a_file_of_odd_bytes_is_read_or_named(tmp_path, content) -> None:
    (tmp_path / "levels.yaml").write_bytes(content)
    try:
        assert read_resources(tmp_path / "levels.yaml").levels == {"wo": "low"}
    except UserError as error:
        assert "levels.yaml" in str(error)
