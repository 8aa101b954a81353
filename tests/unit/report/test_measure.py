"""What a report reads from the sentences: what is measured again and what is not, by whom, and what is kept."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import sacrebleu

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.progress import Progress
from langspec_lora.report import measure, off_target
from langspec_lora.report.measure import Cache
from langspec_lora.report.measure_direction import MeasureOptions, lowest
from langspec_lora.report.off_target import Judge
from langspec_lora.report.significance import MetricSettings
from langspec_lora.report.texts import DirectionTexts, TextFile, describe
from tests.reports import p_values, write_lines

EN_WO = Direction("en", "wo")
JUDGES = {"wo": Judge("wo", ("Latn",)), "en": Judge("en", ("Latn",), True), "fr": Judge("fr", ("Latn",), True)}
OPTIONS = MeasureOptions(MetricSettings("bleu", "tok:13a", (("tokenize", "13a"),)), 1000, True, JUDGES)


def named(name: str) -> TextFile:
    """A text that is not there: what is measured is asked for by its hash."""
    return TextFile(Path(name), name, 3)


def texts_of(direction: Direction = EN_WO, reference: str = "reference", runs=("a", "b", "c")) -> DirectionTexts:
    return DirectionTexts(direction, named(reference), tuple(map(named, runs)), named("source"))


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list:
    """The tasks that were given: texts, options and keys; the result of each measurement is its kind and its run."""
    given: list = []

    def remember(task) -> dict[str, object]:
        given.append(task)
        return {key: [kind, run] for (kind, run), key in task[2].items()}

    monkeypatch.setattr(measure, "_measure_direction", remember)
    return given


def runs_of(tasks: list) -> dict[str, list[int]]:
    """The runs of each kind of measurement."""
    found: dict[str, list[int]] = {}
    for *_, keys in tasks:
        for kind, run in keys:
            found.setdefault(kind, []).append(run)
    return found


LATER, ALL = [1, 2], [0, 1, 2]


def test_each_run_is_measured_by_itself_and_the_later_ones_against_the_first(tasks, tmp_path) -> None:
    measured = measure.measure({EN_WO: texts_of()}, OPTIONS, Cache(tmp_path / "cache"), 1)
    expected = {"bootstrap": LATER, "worst": ALL, "losses": LATER, "wrong": ALL}
    assert runs_of(tasks) == expected
    assert measured == {(kind, run): {EN_WO: [kind, run]} for kind, runs in expected.items() for run in runs}
    ((texts, options, _),) = tasks
    assert texts == texts_of()
    assert options == replace(OPTIONS, judges={"wo": JUDGES["wo"]})


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        (replace(OPTIONS, metric=None), {"worst", "losses", "wrong"}),
        (replace(OPTIONS, sentences=False), {"bootstrap", "wrong"}),
        (replace(OPTIONS, judges={}), {"bootstrap", "worst", "losses"}),
    ],
)
def test_what_the_options_leave_out_is_not_measured(tasks, tmp_path, options, kinds) -> None:
    measured = measure.measure({EN_WO: texts_of()}, options, Cache(tmp_path / "cache"), 1)
    assert set(runs_of(tasks)) == kinds == {kind for kind, _ in measured}
    assert (tasks[0][1].judges == {}) == (options.judges == {})


@pytest.mark.parametrize(
    ("texts", "options", "patch", "again"),
    [
        (texts_of(), OPTIONS, None, {}),
        (texts_of(reference="other"), OPTIONS, None, {"bootstrap": LATER, "worst": ALL, "losses": LATER}),
        (
            texts_of(runs=("x", "b", "c")),
            OPTIONS,
            None,
            {"worst": [0], "wrong": [0], "bootstrap": LATER, "losses": LATER},
        ),
        (texts_of(runs=("a", "x", "c")), OPTIONS, None, {"bootstrap": [1], "worst": [1], "losses": [1], "wrong": [1]}),
        (texts_of(), replace(OPTIONS, samples=2000), None, {"bootstrap": LATER}),
        (
            texts_of(),
            replace(OPTIONS, metric=replace(OPTIONS.metric, signature="tok:char")),
            None,
            {"bootstrap": LATER},
        ),
        (texts_of(), replace(OPTIONS, metric=replace(OPTIONS.metric, arguments=())), None, {"bootstrap": LATER}),
        (texts_of(), OPTIONS, (measure, "SEED", 1), {"bootstrap": LATER}),
        (texts_of(), OPTIONS, (sacrebleu, "__version__", "0"), {"bootstrap": LATER, "worst": ALL, "losses": LATER}),
        (
            texts_of(),
            OPTIONS,
            (measure, "_FORMAT", 0),
            {"bootstrap": LATER, "worst": ALL, "losses": LATER, "wrong": ALL},
        ),
        (texts_of(), replace(OPTIONS, judges={"wo": Judge("wo", ("Arab",))}), None, {"wrong": ALL}),
        (texts_of(), OPTIONS, (off_target, "identifier_version", lambda: "0"), {}),
    ],
    ids=[
        *("the same", "references", "the first run", "another run", "samples", "signature", "arguments", "seed"),
        *("sacrebleu", "format", "judge", "identifier of others"),
    ],
)
def test_what_a_change_can_alter_is_measured_again_and_nothing_else(
    tasks, tmp_path, monkeypatch, texts, options, patch, again
) -> None:
    measure.measure({EN_WO: texts_of()}, OPTIONS, Cache(tmp_path / "cache"), 1)
    tasks.clear()
    if patch:
        monkeypatch.setattr(*patch)
    measure.measure({EN_WO: texts}, options, Cache(tmp_path / "cache"), 1)
    assert runs_of(tasks) == again


def test_another_version_of_the_identifier_judges_again_what_it_judges(tasks, tmp_path, monkeypatch) -> None:
    texts = {direction: texts_of(direction) for direction in (EN_WO, Direction("wo", "en"))}
    measure.measure(texts, OPTIONS, Cache(tmp_path / "cache"), 1)
    tasks.clear()
    monkeypatch.setattr(off_target, "identifier_version", lambda: "0")
    measure.measure(texts, OPTIONS, Cache(tmp_path / "cache"), 1)
    assert [texts.direction for texts, *_ in tasks] == [("wo", "en")]
    assert runs_of(tasks) == {"wrong": ALL}


def test_directions_into_one_language_follow_each_other(tasks, tmp_path, monkeypatch) -> None:
    directions = [Direction.parse(name) for name in ("wo-en", "wo-fr", "en-wo", "en-fr", "fr-en")]
    texts = {direction: texts_of(direction, direction.target) for direction in directions}
    bars = []

    class Bar(Progress):
        def __init__(self, **settings) -> None:
            super().__init__(**settings)
            bars.append(self)

    monkeypatch.setattr(measure, "Progress", Bar)
    for terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda answer=terminal: answer)
        found = measure.measure(texts, OPTIONS, Cache(tmp_path / str(terminal)), 1)
        assert list(found["wrong", 0]) == directions
    assert [str(own.direction) for own, *_ in tasks[:5]] == ["fr-en", "wo-en", "en-fr", "wo-fr", "en-wo"]
    elsewhere, on_a_terminal = bars
    assert elsewhere.n == elsewhere.total == 5
    assert (elsewhere.unit, elsewhere.desc) == ("direction", "sentences")
    assert elsewhere.mininterval == elsewhere.maxinterval > 10  # lines of a log
    assert 0 < on_a_terminal.mininterval == on_a_terminal.maxinterval < 1


class Pool:
    """In place of other processes: does what they are given at once, in this one."""

    made: ClassVar[list[Pool]] = []

    def __init__(self, processes: int, mp_context, initializer: Callable, initargs: tuple) -> None:
        self.processes, self.method, self.cancelled = processes, mp_context.get_start_method(), None
        Pool.made.append(self)
        initializer(*initargs)

    def submit(self, function: Callable, task) -> concurrent.futures.Future:
        future: concurrent.futures.Future = concurrent.futures.Future()
        future.set_result(function(task))
        return future

    def shutdown(self, cancel_futures: bool = False) -> None:
        self.cancelled = cancel_futures


@pytest.mark.parametrize(
    ("directions", "processes", "used"), [(8, 2, 2), (8, None, 3), (8, 1, None), (7, 2, None), (9, 3, 3)]
)
def test_many_directions_are_shared_out_to_other_processes(
    tasks, tmp_path, monkeypatch, directions, processes, used
) -> None:
    monkeypatch.setattr(measure, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(measure, "_cores", lambda: 3)
    monkeypatch.setattr(Pool, "made", [])
    handlers = []
    monkeypatch.setattr(signal, "signal", lambda *words: handlers.append(words))
    texts = {Direction(f"l{number}", "wo"): texts_of(runs=(f"h{number}",)) for number in range(directions)}
    found = measure.measure(texts, OPTIONS, Cache(tmp_path / "cache"), processes)
    assert found["worst", 0] == {direction: ["worst", 0] for direction in texts}
    if used is None:
        assert Pool.made == []
    else:
        (pool,) = Pool.made
        assert pool.processes == used
        assert pool.method == "spawn"  # a fork of a process with threads may hang
        assert pool.cancelled  # so that Ctrl-C does not wait for all that is left
        assert handlers == [(signal.SIGINT, signal.SIG_IGN)]  # it is for the process that the user started


def test_as_many_processes_are_used_as_there_are_cores_up_to_eight(monkeypatch) -> None:
    for cores, expected in ((1, 1), (3, 3), (8, 8), (9, 8), (64, 8)):
        affinity = {0: set(range(cores))}  # 0: this process
        monkeypatch.setattr(os, "sched_getaffinity", affinity.__getitem__, raising=False)
        assert measure._cores() == expected
    monkeypatch.delattr(os, "sched_getaffinity")
    for cores, expected in ((5, 5), (64, 8), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda number=cores: number)
        assert measure._cores() == expected


@pytest.mark.parametrize("content", [None, b"{", b"[]", b"[" * 200_000, b"\xff", "folder"])
def test_measurements_that_cannot_be_read_are_none(tmp_path, content) -> None:
    path = tmp_path / "cache"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    cache = Cache(path)
    assert "a" not in cache
    cache.add({"a": 1})
    assert "a" in cache
    assert cache["a"] == 1


def test_measurements_in_which_any_bit_is_flipped_are_none(tmp_path) -> None:
    path = tmp_path / "cache"
    cache = Cache(path)
    cache.add({"a": [36.5, 12]})
    cache.save()
    whole = path.read_bytes()
    assert Cache(path)["a"] == [36.5, 12]
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        # The last byte only closes the object.
        assert dict(Cache(path)) == ({} if bit // 8 < len(whole) - 1 else {"a": [36.5, 12]})


def test_measurements_are_kept_when_there_are_new_ones(tmp_path) -> None:
    path = tmp_path / "cache"
    cache = Cache(path)
    cache.add({})
    cache.save()
    assert not path.exists()
    cache.add({"a": [1]})
    cache.add({})
    cache.save()
    assert json.loads(path.read_text())["measurements"] == {"a": [1]}
    path.unlink()
    cache.save()
    assert not path.exists()
    cache.add({"b": "ñ"})
    cache.save()
    assert [Cache(path)[key] for key in "ab"] == [[1], "ñ"]


def test_measurements_are_kept_now_and_then(tmp_path, monkeypatch) -> None:
    now, path, pause = [100.0], tmp_path / "cache", measure._SECONDS_BETWEEN_SAVES
    monkeypatch.setattr(measure.time, "monotonic", lambda: now[0])
    cache = Cache(path)
    now[0] += pause
    cache.add({"a": 1})
    assert not path.exists()
    now[0] += 0.5
    cache.add({"b": 2})
    assert set(json.loads(path.read_text())["measurements"]) == {"a", "b"}
    now[0] += pause - 0.5  # since it was saved
    cache.add({"c": 3})
    assert set(json.loads(path.read_text())["measurements"]) == {"a", "b"}
    now[0] += 1.0
    cache.add({})
    assert set(json.loads(path.read_text())["measurements"]) == {"a", "b", "c"}


def test_measurements_that_could_not_be_kept_are_kept_later(tmp_path, monkeypatch) -> None:
    cache = Cache(tmp_path / "cache")
    cache.add({"a": 1})
    with monkeypatch.context() as patch:
        patch.setattr(measure, "write_whole", lambda *words: (_ for _ in ()).throw(UserError("the disk is full")))
        cache.save()
    assert cache.trouble == "the disk is full"
    cache.save()
    assert cache.trouble == ""
    assert Cache(tmp_path / "cache")["a"] == 1


def test_judges_are_built_from_references_and_from_sources_where_there_are_none(tmp_path, monkeypatch) -> None:
    files = {}
    for name in ("en", "en source", "fr", "wo", "wo again"):
        write_lines(tmp_path / name, [name])
        files[name] = describe(tmp_path / name)
    built = []

    def build(texts) -> dict[str, Judge]:
        built.append(texts)
        return {name: Judge(name, ("Latn", "Arab"), True, ("xx",), 0.5, ("yy",)) for name in texts}

    monkeypatch.setattr(off_target, "build_judges", build)
    monkeypatch.setattr(off_target, "identifier_version", lambda: "1")
    texts = {
        EN_WO: DirectionTexts(EN_WO, files["wo"], (), files["en source"]),
        Direction("wo", "en"): DirectionTexts(Direction("wo", "en"), files["en"], (), files["wo again"]),
        Direction("fr", "en"): DirectionTexts(Direction("fr", "en"), files["en"], (), files["fr"]),
        Direction("sd", "wo"): DirectionTexts(Direction("sd", "wo"), files["wo"], ()),
    }
    path = tmp_path / "cache"
    for _ in range(2):  # the second time from the file
        cache = Cache(path)
        judges = measure.build_judges(texts, cache)
        assert judges == {
            name: Judge(name, ("Latn", "Arab"), True, ("xx",), 0.5, ("yy",)) for name in ("wo", "en", "fr")
        }
        cache.save()
    assert built == [{"wo": ["wo"], "en": ["en"], "fr": ["fr"]}]
    # Other texts, the same of other languages, or another identifier: they are built again.
    swapped = {EN_WO: DirectionTexts(EN_WO, files["en"], (), files["wo"])}
    measure.build_judges(swapped, Cache(path))
    assert built[1:] == [{"wo": ["en"], "en": ["wo"]}]
    monkeypatch.setattr(off_target, "identifier_version", lambda: "2")
    measure.build_judges(texts, Cache(path))
    assert len(built) == 3
    changed = {**texts, EN_WO: replace(texts[EN_WO], reference=files["wo again"])}
    changed.pop(Direction("sd", "wo"))
    measure.build_judges(changed, Cache(path))
    assert built[3:] == [{"wo": ["wo again"], "en": ["en"], "fr": ["fr"]}]


def test_judges_of_like_texts_are_not_mistaken_for_each_other(tmp_path, monkeypatch) -> None:
    write_lines(tmp_path / "one", ["x"])
    write_lines(tmp_path / "two", ["y"])
    one, two = describe(tmp_path / "one"), describe(tmp_path / "two")
    built = []
    monkeypatch.setattr(off_target, "build_judges", lambda texts: built.append(texts) or {})
    cache = Cache(tmp_path / "cache")
    for direction, reference in ((EN_WO, one), (Direction("en", "fr"), one), (EN_WO, two), (EN_WO, one)):
        measure.build_judges({direction: DirectionTexts(direction, reference, ())}, cache)
    assert built == [{"wo": ["x"]}, {"fr": ["x"]}, {"wo": ["y"]}]


def test_what_is_measured_is_what_sacrebleu_and_a_loop_find(tmp_path) -> None:
    reference = ["a b c d e", "  ", "f g h", "i j k l", "m n o p"]
    runs = [
        ["a b c d x", "y", "f g h", "i j", " "],
        ["a b", "z", "f g h", "i j k l", "m"],
        ["", "x", "f g", "q", "m n o p"],
    ]
    for name, lines in zip(("reference", "0", "1", "2"), [reference, *runs], strict=True):
        write_lines(tmp_path / name, lines)
    hypotheses = tuple(describe(tmp_path / name) for name in "012")
    texts = {EN_WO: DirectionTexts(EN_WO, describe(tmp_path / "reference"), hypotheses)}
    metric = MetricSettings("bleu", "x", (("tokenize", "none"), ("force", True)))
    judges = {"wo": Judge("wo", ("Arab",))}
    found = measure.measure(texts, MeasureOptions(metric, 200, True, judges), Cache(tmp_path / "cache"), 1)
    chrf = [
        [sacrebleu.sentence_chrf(own, [line], word_order=2).score for own, line in zip(run, reference, strict=True)]
        for run in runs
    ]
    for run in ALL:  # without the empty reference and the run's own empty hypotheses
        indices = [index for index in (0, 2, 3, 4) if runs[run][index].strip()]
        expected = sorted((chrf[run][index], index) for index in indices)
        assert [index for _, index in found["worst", run][EN_WO]] == [index for _, index in expected]
        assert [value for value, _ in found["worst", run][EN_WO]] == pytest.approx([value for value, _ in expected])
    for run in LATER:
        expected = sorted((chrf[run][index] - chrf[0][index], index) for index in (0, 2, 3, 4))
        assert [index for _, index in found["losses", run][EN_WO]] == [index for _, index in expected]
        assert [value for value, _ in found["losses", run][EN_WO]] == pytest.approx([value for value, _ in expected])
    tested = [found["bootstrap", run][EN_WO] for run in LATER]
    assert tested == p_values(metric, reference, runs[0], runs[1:], 200)
    assert len(set(tested)) == 2
    assert [found["wrong", run][EN_WO] for run in ALL] == [(4, 1), (5, 0), (4, 1)]


def test_a_list_holds_the_twenty_lowest_of_some_sentences() -> None:
    values = [float(-index % 50) for index in range(50)]
    assert lowest(values, range(0, 50, 2)) == sorted((values[i], i) for i in range(0, 50, 2))[:20]
    directions = [EN_WO, Direction("en", "fr")]
    ranked = {direction: [(float(index), index) for index in range(15)] for direction in directions}
    merged = measure.merge(ranked)
    assert len(merged) == 20
    assert [sentence.value for sentence in merged] == [float(number // 2) for number in range(20)]


def test_directions_of_one_value_take_turns_along_the_sources_and_the_targets() -> None:
    names = ("en-wo", "fr-en", "en-fr", "wo-fr", "wo-en", "fr-wo")
    ranked = {Direction.parse(name): [(0.5, 7), (0.5, 8), (0.9, 1)] for name in names}
    ranked[Direction("fr", "wo")] = [(0.25, 3), (0.5, 4)]
    merged = [(str(s.direction), s.index, s.value) for s in measure.merge(ranked)]
    # Each language is a source once and a target once before one is again: en, wo, fr, as they are named.
    turns = ["en-wo", "wo-fr", "fr-en", "en-fr", "wo-en"]
    assert merged == [
        ("fr-wo", 3, 0.25),
        *((name, 7, 0.5) for name in turns),
        ("fr-wo", 4, 0.5),
        *((name, 8, 0.5) for name in turns),
        *((name, 1, 0.9) for name in turns),
    ]
