"""Results folders of random and damaged content: a sentence, or exactly the numbers that the file holds."""

from __future__ import annotations

import copy
import json
import math
import struct

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from langspec_lora.errors import UserError
from langspec_lora.evaluation.results import RESULT_FILES, decoded, read_run
from langspec_lora.evaluation.scores_file import parse_scores
from langspec_lora.evaluation.settings import held_sources
from langspec_lora.files import parse_json, read_json
from tests.properties import NUMBERS, TEXT, examples

LANGUAGES = ("en", "fr", "wo", "zh_Hans")
DIRECTIONS = [f"{a}-{b}" for a in LANGUAGES for b in LANGUAGES if a != b]
SHA = st.integers(0, 2**256 - 1).map("{:064x}".format)
SCORES = st.floats(0, 100) | st.integers(0, 100)
ENTRIES = st.fixed_dictionaries(
    {
        "bleu": SCORES,
        "chrf": SCORES,
        "sentences": st.integers(0, 2000),
        "hypotheses_sha256": SHA,
        "references_sha256": SHA,
    },
    optional={"comet": st.floats(-100, 100), "source_text_sha256": SHA, "note": TEXT},
)
CONTENTS = st.fixed_dictionaries(
    {
        "scoring": st.just({"tokenize": "13a"}),
        "signatures": st.just({"bleu": "tok:13a", "chrf": "nw:2"}),
        "settings": st.just({"checkpoint": [{"path": "a.pt", "sha256": "0" * 64}], "subset": "test"}),
        "directions": st.dictionaries(st.sampled_from(DIRECTIONS), ENTRIES, min_size=1, max_size=4),
    },
    optional={"levels": st.just({"en": "high", "wo": "low"}), "references": TEXT, "versions": st.just({})},
)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.just(10**400),
    NUMBERS,
    TEXT,
    st.just([]),
    st.just({}),
    st.sampled_from(("../x", "en-fr", "a/b", "\x1b[31m")),
    st.lists(st.integers(), max_size=2),
)


@st.composite
def damaged(draw, contents=CONTENTS):
    """Nearly right content: something is replaced, missing, renamed, or in another's place."""
    content = copy.deepcopy(draw(contents))
    for _ in range(draw(st.integers(0, 2))):
        holder, path = content, []
        while isinstance(holder, (dict, list)) and holder and (not path or draw(st.booleans())):
            parent = holder
            key = draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
            path.append(key)
            holder = holder[key]
        if not path:
            break
        action = draw(st.sampled_from(("replace", "replace", "replace", "delete", "rename")))
        if action == "replace":
            parent[key] = draw(ODD)
        elif action == "delete":
            del parent[key]
        elif isinstance(parent, dict):
            parent[draw(st.sampled_from((f"{key} ", "en-en", "", "x-y-z", "bleu", "../../x-y")))] = parent.pop(key)
    return content


def fits(value, low: float, high: float) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and low - 1e-6 <= value <= high + 1e-6


@examples(200)
@given(damaged())
def test_scores_are_what_the_file_says_and_numbers_in_range_or_it_is_refused(tmp_path_factory, content) -> None:
    path = tmp_path_factory.getbasetemp() / "scores.json"
    path.write_text(json.dumps(content))
    try:
        held = parse_scores(read_json(path), path)
    except UserError as error:
        assert str(path) in str(error)
        assert len(str(error)) < 1000
        return
    assert {str(direction) for direction in held.entries} == {name.strip() for name in content["directions"]}
    for metric, scores in held.scores().items():
        low = -math.inf if metric == "comet" else 0
        for direction, score in scores.items():
            assert str(direction) in DIRECTIONS or set(direction).isdisjoint({"", "..", "."})
            written = content["directions"][str(direction)][metric]
            assert fits(written, low, 100)
            assert struct.pack("d", score) == struct.pack("d", float(written))
    for metric in ("bleu", "chrf"):  # sacrebleu's metrics, where there is a signature
        if metric in content["signatures"]:
            assert set(held.scores()[metric]) == set(held.entries)


@examples(100)
@given(
    st.one_of(
        TEXT,
        CONTENTS.map(json.dumps).flatmap(lambda text: st.integers(0, len(text)).map(lambda n: text[:n])),
        st.sampled_from(
            ('{"a": NaN}', '{"a": 1e400}', '{"a": 1' + "0" * 5000 + "}", "[" * 9999, '"\\ud800"', "{}", "\ufeff{}")
        ),
    )
)
def test_any_text_is_an_object_or_is_refused(text) -> None:
    try:
        found = parse_json(text, "x", "again")
    except UserError as error:
        assert "x is damaged" in str(error)
    else:
        assert isinstance(found, dict)


def test_a_score_beyond_all_numbers_is_refused(tmp_path) -> None:
    entry = {"bleu": 1.0, "chrf": 2.0, "sentences": 1}
    content = {
        "scoring": {"tokenize": "13a"},
        "signatures": {},
        "settings": {"checkpoint": []},
        "directions": {"en-fr": entry},
    }
    path = tmp_path / "scores.json"
    for number in ("1e400", "NaN", "-Infinity", '"1"', "true", "null", "100.1", "-0.1", "1" + "0" * 400):
        path.write_text(json.dumps(content).replace("1.0", number))
        with pytest.raises(UserError, match=r"bleu of en-fr is|is damaged"):
            read_run(tmp_path, "x")


PUBLISHED = st.lists(
    st.one_of(
        st.sampled_from(
            (
                "en-fr",
                "fr-en",
                "wo-en",
                "en-fr ",
                "en_fr",
                "",
                "a-b-c",
                "-",
                "BLEU|tok:13a = 3.25 50/20",
                "BLEU+c.lc = 7",
            )
        ),
        st.floats(-5, 105).map(str),
        NUMBERS,
        TEXT,
        st.floats(0, 100).map(
            lambda score: json.dumps({"name": "BLEU", "score": score, "signature": "tok:13a"}, indent=1)
        ),
        ODD.map(lambda score: json.dumps({"name": "BLEU", "score": score})),
        ODD.map(lambda entry: json.dumps([entry])),
    ),
    max_size=8,
)


@examples(150)
@given(PUBLISHED)
def test_a_file_of_the_published_loop_gives_scores_in_range_or_is_refused(tmp_path_factory, lines) -> None:
    folder = tmp_path_factory.mktemp("published")
    (folder / "all_direction.spbleu").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    try:
        run = read_run(folder, "x")
    except UserError as error:
        assert "all_direction.spbleu" in str(error)
        return
    for direction, score in run.metric("bleu").items():
        assert str(direction) in (line.strip() for line in lines)
        assert fits(score, 0, 100)
        under = [line.strip() for line in lines].index(str(direction)) + 1
        assert any(str(score)[:3].rstrip(".0") in line for line in lines[under:])  # it stands below the name


KEEP = {"checkpoint": [{"path": "a.pt", "sha256": "0" * 64}], "generation": {"beam": 5}, "subset": "test"}
SETTINGS = st.fixed_dictionaries(
    {name: st.just(value) for name, value in {**KEEP, "dictionary_sha256": "1" * 64}.items()}
    | {"sources": st.dictionaries(st.sampled_from(DIRECTIONS), SHA, max_size=4)}
)


@examples(150)
@given(damaged(SETTINGS), st.sets(st.sampled_from(DIRECTIONS), min_size=1, max_size=3))
def test_hypotheses_are_kept_only_with_the_source_and_the_settings_they_were_made_from(
    tmp_path_factory, held, present
) -> None:
    folder = tmp_path_factory.mktemp("results")
    for name in present:
        (folder / f"{name}.hyp.txt").touch()
    (folder / "settings.json").write_text(json.dumps(held))
    assert decoded(folder) == present
    now = {**KEEP, "dictionary_sha256": "1" * 64, "sources": {}}
    try:
        sources = held_sources(folder, now)
    except UserError as error:
        assert len(str(error)) < 1000
        return
    assert set(sources) == present
    assert all(held["sources"][name] == digest for name, digest in sources.items())
    for name in ("dictionary_sha256", "subset"):
        assert held[name] == now[name]
    assert [entry["sha256"] for entry in held["checkpoint"]] == ["0" * 64]
    assert held["generation"].get("beam", 5) == 5


@examples(60)
@given(
    st.sets(st.sampled_from((*DIRECTIONS, "x", "en-fr.hyp.old", "texts")), max_size=4),
    st.sampled_from((".hyp.txt", ".txt", ".hyp.txt.partial")),
)
def test_only_whole_files_of_hypotheses_are_decoded_directions(tmp_path_factory, names, ending) -> None:
    folder = tmp_path_factory.mktemp("results")
    for name in names:
        (folder / f"{name}{ending}").touch()
    assert decoded(folder) == ({name for name in names if "-" in name} if ending == ".hyp.txt" else set())
    assume(ending == ".hyp.txt")
    listed = {path.name.removesuffix(ending) for pattern in RESULT_FILES for path in folder.glob(pattern)}
    assert decoded(folder) == listed
