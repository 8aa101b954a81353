"""Results folders of random and damaged content: a sentence, or exactly the numbers that the file holds."""

from __future__ import annotations

import copy
import json
import math
import struct

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from langspec_lora.data.directions import Direction
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


NO_SCORES = (100.01, -0.01, 1e308, math.nan, math.inf, -math.inf, 10**400, True, "1", None, [1.0])


@st.composite
def scored(draw):
    """Right content, but for one score that is none or is missing."""
    content = copy.deepcopy(draw(CONTENTS))
    entry = content["directions"][draw(st.sampled_from(sorted(content["directions"])))]
    metric = draw(st.sampled_from(("bleu", "chrf")))
    if draw(st.booleans()):
        entry[metric] = draw(st.sampled_from(NO_SCORES))
    else:
        del entry[metric]
    return content


def fits(value, low: float, high: float) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and low - 1e-6 <= value <= high + 1e-6


@examples(200)
@given(damaged() | damaged() | scored())
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
            (
                '{"a": NaN}',
                '{"a": 1e400}',
                '{"a": 1' + "0" * 5000 + "}",
                "[" * 9999,
                '"\\ud800"',
                "{}",
                "\ufeff{}",
                "[]",
                '["a"]',
                "null",
                "7",
            )
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


def printed(score) -> str:
    """What sacrebleu prints."""
    return json.dumps({"name": "BLEU", "score": score, "signature": "tok:13a"}, indent=1)


ODD_LINES = st.sampled_from(("en-fr ", "en_fr", "", "a-b-c", "-", "BLEU|tok:13a = 3.25 50/20", "BLEU+c.lc = 7"))
SCORE_LINES = st.one_of(
    st.floats(-5, 105).map(str),
    st.floats(0, 100).map(lambda score: f"BLEU|tok:13a = {score:.2f} 50/20"),
    st.floats(-5, 105).map(printed),
    st.sampled_from(NO_SCORES).map(printed),
    ODD.map(lambda score: json.dumps({"name": "BLEU", "score": score})),
    ODD.map(lambda entry: json.dumps([entry])),
    NUMBERS,
)
PUBLISHED = st.one_of(
    st.lists(st.one_of(st.sampled_from(("en-fr", "fr-en", "wo-en")), ODD_LINES, TEXT, SCORE_LINES), max_size=8),
    st.lists(st.tuples(st.sampled_from(("en-fr", "fr-en", "wo-en")), SCORE_LINES), min_size=1, max_size=3).map(
        lambda blocks: [line for block in blocks for line in block]
    ),
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


FORMS = {
    "a bare number": str,
    "a line": lambda score: f"BLEU|tok:13a = {score} 50/20",
    "JSON": printed,
    "JSON of several metrics": lambda score: json.dumps([{"name": "chrF2", "score": 7}, json.loads(printed(score))]),
}


@examples(60)
@given(
    st.dictionaries(st.sampled_from(DIRECTIONS), st.integers(0, 130).map(lambda n: n - 10), min_size=1, max_size=4),
    st.sampled_from(sorted(FORMS)),
)
def test_the_score_of_a_direction_is_the_one_below_its_name(tmp_path_factory, scores, form) -> None:
    folder = tmp_path_factory.mktemp("published")
    lines = [line for name, score in scores.items() for line in (name, FORMS[form](score))]
    (folder / "all_direction.spbleu").write_text("\n".join(lines), encoding="utf-8")
    if all(0 <= score <= 100 for score in scores.values()):
        assert {str(name): score for name, score in read_run(folder, "x").metric("bleu").items()} == scores
    else:
        with pytest.raises(UserError, match=r"no score of sacrebleu under .*; delete the file and evaluate again"):
            read_run(folder, "x")


def test_a_direction_that_is_named_twice_is_refused_without_a_score_and_named_with_another(tmp_path, caplog) -> None:
    file = tmp_path / "all_direction.spbleu"
    for score in ("1" + "0" * 400, f'{{"name": "BLEU", "score": 1{"0" * 400}}}'):  # beyond all floats
        file.write_text(f"en-fr\n{score}\n")
        with pytest.raises(UserError, match="no score of sacrebleu under en-fr"):
            read_run(tmp_path, "x")
    file.write_text("en-fr\nwo-en\n3\nen-fr\n7\n")
    with pytest.raises(UserError, match="no score of sacrebleu under en-fr"):
        read_run(tmp_path, "x")
    file.write_text("en-fr\n7\nwo-en\n3\nen-fr\n7\n")
    assert read_run(tmp_path, "x").metric("bleu") == {Direction("en", "fr"): 7, Direction("wo", "en"): 3}
    assert not caplog.messages
    file.write_text("en-fr\n6\nwo-en\n3\nen-fr\n7\n")
    assert read_run(tmp_path, "x").metric("bleu")[Direction("en", "fr")] == 7
    assert "has two scores of en-fr, 6.0 and 7.0; the later counts" in caplog.text


KEEP = {"checkpoint": [{"path": "a.pt", "sha256": "0" * 64}], "generation": {"beam": 5}, "subset": "test"}
SETTINGS = st.fixed_dictionaries(
    {name: st.just(value) for name, value in {**KEEP, "dictionary_sha256": "1" * 64}.items()}
    | {"sources": st.fixed_dictionaries(dict.fromkeys(DIRECTIONS, SHA))}
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


OTHERS = {
    "checkpoint": [{"path": "a.pt", "sha256": "9" * 64}],
    "pairs": False,
    "dictionary_sha256": "9" * 64,
    "subset": "valid",
    "generation": {"beam": 4},
    "encoder_langtok": "src",
    "decoder_langtok": False,
    "precision": "float16",
}


@pytest.mark.parametrize("key", [*OTHERS, "sources", "no settings"])
def test_hypotheses_made_with_one_other_setting_are_refused(tmp_path, key) -> None:
    now = {**KEEP, "dictionary_sha256": "1" * 64, "encoder_langtok": "tgt", "decoder_langtok": True}
    now |= {"precision": "float32", "pairs": True, "sources": {"en-fr": "2" * 64}}
    (tmp_path / "en-fr.hyp.txt").touch()
    (tmp_path / "settings.json").write_text(json.dumps(now))
    assert held_sources(tmp_path, now) == {"en-fr": "2" * 64}
    if key == "no settings":
        (tmp_path / "settings.json").unlink()
    elif key == "sources":
        now["sources"] = {"en-fr": "3" * 64}
    else:
        now[key] = OTHERS[key]
    with pytest.raises(UserError, match="give another --out, or --overwrite to replace the results in"):
        held_sources(tmp_path, now)


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
