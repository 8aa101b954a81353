"""Several processes evaluate into one folder: who decodes what, who dies, and what is left. A stand-in decodes."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation import evaluate as evaluation
from langspec_lora.evaluation.evaluate import evaluate, run
from langspec_lora.evaluation.metrics.comet import CometScorer
from langspec_lora.evaluation.options import EvaluationOptions
from langspec_lora.evaluation.prepare import check, prepare
from langspec_lora.evaluation.results import PROVENANCE
from langspec_lora.files import read_lines
from langspec_lora.generation import GenerationSettings
from tests import toy
from tests.evaluations import contents, options

FORK = multiprocessing.get_context("fork")
SIZE = toy.SIZES["test"]


class Decoder:
    """Stands in for a decoder: two directions are a group, and a hypothesis is the reference and its source language.

    It notes what it decodes in a file of its process's number, and where there is a file ``gate`` it waits.
    """

    folder: Path
    has_adapters = True

    def __init__(self, asked: EvaluationOptions, files: object, directions: object) -> None:
        self._text = asked.data_bin.parent

    def groups(self, directions) -> Iterator[dict[Direction, int]]:
        for start in range(0, len(directions), 2):
            yield dict.fromkeys(directions[start : start + 2], SIZE)

    def translate(self, directions, progress) -> Iterator[tuple[Direction, list[str]]]:
        with (self.folder / str(os.getpid())).open("a") as file:
            file.writelines(f"{direction}\n" for direction in directions)
        time.sleep(0.1)
        while (self.folder / f"gate.{os.getpid()}").exists():
            time.sleep(0.01)
        for direction in directions:
            progress(SIZE)
            lines = read_lines(self._text / f"test.{direction.target}")
            yield direction, [" ".join([*line.split()[:-1], direction.source]) for line in lines]


class Process:
    """A process that evaluates.

    Args:
        folder: what it says and returns is put there.
        asked: what it evaluates.
        held: whether it stops while it decodes its first group, until :meth:`go_on`.
        environment: as torchrun sets it.
        first: called in the process before it evaluates.
    """

    def __init__(
        self,
        folder: Path,
        asked: EvaluationOptions,
        held: bool = False,
        environment: dict[str, str] | None = None,
        first: Callable[[], object] = lambda: None,
    ) -> None:
        self._folder = folder
        self._process = FORK.Process(target=self._run, args=(asked, held, environment or {}, first), daemon=True)
        self._process.start()
        self._gate = folder / f"gate.{self._process.pid}"
        self.decoded_path = folder / str(self._process.pid)

    def _run(self, asked: EvaluationOptions, held: bool, environment: dict[str, str], first) -> None:
        if held:
            (self._folder / f"gate.{os.getpid()}").touch()
        os.environ.update(environment)
        said = (self._folder / f"{os.getpid()}.said").open("w")
        sys.stderr = said
        try:
            first()
            result = [str(direction) for direction in evaluate(asked)]
        except UserError as error:
            result = str(error)
        said.flush()
        (self._folder / f"{os.getpid()}.result").write_text(json.dumps(result))

    def wait_until_it_decodes(self) -> None:
        wait_for(lambda: bool(self.decoded))

    @property
    def decoded(self) -> list[str]:
        return self.decoded_path.read_text().split() if self.decoded_path.exists() else []

    @property
    def is_running(self) -> bool:
        return self._process.is_alive()

    def go_on(self) -> None:
        self._gate.unlink()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def result(self) -> list[str] | str:
        """The directions of the scores that it returns, or its mistake."""
        self._process.join(60)
        assert self._process.exitcode == 0
        return json.loads(self.decoded_path.with_suffix(".result").read_text())

    @property
    def said(self) -> str:
        return self.decoded_path.with_suffix(".said").read_text()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def decoder(monkeypatch, tmp_path) -> None:
    (tmp_path / "processes").mkdir()
    monkeypatch.setattr(Decoder, "folder", tmp_path / "processes", raising=False)
    monkeypatch.setattr(evaluation, "Decoder", Decoder)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Process]]:
    started = []

    def make(asked: EvaluationOptions, **more) -> Process:
        started.append(Process(tmp_path / "processes", asked, **more))
        return started[-1]

    yield make
    for process in started:
        if process.is_running:
            process.kill()


@pytest.fixture
def asked(toy_data, checkpoint, tmp_path) -> EvaluationOptions:
    return options(toy_data, checkpoint, tmp_path / "out")


@pytest.fixture
def expected(toy_data, checkpoint, tmp_path) -> dict[str, bytes]:
    """What one process leaves."""
    evaluate(options(toy_data, checkpoint, tmp_path / "one"))
    return contents(tmp_path / "one")


def of_torchrun(rank: int, count: int) -> dict[str, str]:
    return {"RANK": str(rank), "WORLD_SIZE": str(count)}


@pytest.mark.parametrize("by_torchrun", [True, False])
@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_leave_what_one_does(start, asked, expected, tmp_path, count, by_torchrun) -> None:
    environments = [of_torchrun(rank, count) if by_torchrun else {} for rank in range(count)]
    processes = [start(asked, environment=environment, held=True) for environment in environments]
    for process in processes:
        process.wait_until_it_decodes()
    for process in processes:
        process.go_on()
    results = [process.result() for process in processes]
    every = sorted(toy.PAIRS)
    # Each knows all scores, but of torchrun's processes only the first goes on to say them.
    assert [sorted(result) for result in results] == [every, *[[] if by_torchrun else every] * (count - 1)]
    assert contents(tmp_path / "out") == expected
    assert sorted(direction for process in processes for direction in process.decoded) == every
    assert all(process.decoded for process in processes)
    said = [process.said for process in processes]
    speaking = said[:1] if by_torchrun else said
    assert "".join(said) == "".join(speaking)
    for text in speaking:
        assert f"20 directions to decode{f', by {count} processes' if by_torchrun else ''}, loading" in text
        assert re.search(rf"decoding: 100%.* {20 * SIZE}/{20 * SIZE} .* 20/20 directions", text)


def test_another_process_completes_what_one_that_was_killed_had_begun(start, asked, expected, tmp_path) -> None:
    one = start(asked, held=True)
    one.wait_until_it_decodes()
    other = start(asked)
    wait_for(lambda: len(list((tmp_path / "out").glob("*.hyp.txt"))) == 18)
    time.sleep(0.3)
    assert other.is_running  # it waits for the two that are left
    assert len(other.decoded) == 18
    one.kill()
    assert sorted(other.result()) == sorted(toy.PAIRS)
    assert other.decoded[18:] == one.decoded
    assert contents(tmp_path / "out") == expected


def test_a_process_that_comes_late_takes_what_is_left(start, asked, expected, tmp_path) -> None:
    one = start(asked, held=True)
    one.wait_until_it_decodes()
    for _ in range(2):
        late = start(asked, held=True)
        late.wait_until_it_decodes()
        assert len(late.decoded) == 2
        late.kill()
    one.go_on()
    assert sorted(one.result()) == sorted(one.decoded) == sorted(toy.PAIRS)
    assert contents(tmp_path / "out") == expected


def test_of_two_evaluations_with_other_settings_one_is_refused(
    start, asked, toy_data, checkpoint, expected, tmp_path
) -> None:
    one = start(asked, held=True)
    one.wait_until_it_decodes()
    other = options(toy_data, checkpoint, tmp_path / "out", generation=GenerationSettings(beam=2))
    assert not list((tmp_path / "out").glob("*.hyp.txt"))
    refused = start(other)
    assert "holds results of other generation settings; beam was 5 and is 2; give another --out" in refused.result()
    assert not refused.decoded
    one.go_on()
    assert sorted(one.result()) == sorted(toy.PAIRS)
    assert contents(tmp_path / "out") == expected


def test_of_two_evaluations_with_other_settings_that_start_at_once_one_is_refused(
    start, asked, toy_data, checkpoint, tmp_path
) -> None:
    compare, out = evaluation.held_sources, tmp_path / "out"

    def take_long() -> None:
        evaluation.held_sources = lambda *args, **more: (compare(*args, **more), time.sleep(0.5))[0]

    both = [
        options(toy_data, checkpoint, out, generation=GenerationSettings(beam=beam), lang_pairs="en-fr,fr-en")
        for beam in (2, 3)
    ]
    results = [process.result() for process in [start(each, first=take_long) for each in both]]
    (refused,) = (number for number, result in enumerate(results) if isinstance(result, str))
    assert f"other generation settings; beam was {3 - refused} and is {2 + refused};" in results[refused]
    assert json.loads((out / "settings.json").read_text())["generation"]["beam"] == 3 - refused


def test_evaluations_of_other_directions_into_one_folder_leave_the_scores_of_all(
    start, toy_data, checkpoint, tmp_path
) -> None:
    out = tmp_path / "out"
    one = start(options(toy_data, checkpoint, out, lang_pairs="en-fr,fr-en"), held=True)
    one.wait_until_it_decodes()
    other = start(options(toy_data, checkpoint, out, lang_pairs="wo-sd,fr-en,nl-fr"), held=True)
    other.wait_until_it_decodes()
    last = start(options(toy_data, checkpoint, out, lang_pairs="nl-wo"))
    assert last.result() == ["nl-wo"]
    other.go_on()
    one.go_on()
    assert one.result() == ["en-fr", "fr-en"]
    assert other.result() == ["wo-sd", "fr-en", "nl-fr"]
    assert sorted(one.decoded + other.decoded) == ["en-fr", "fr-en", "nl-fr", "wo-sd"]
    directions = {"en-fr", "fr-en", "wo-sd", "nl-fr", "nl-wo"}
    content = json.loads((out / "scores.json").read_text())
    assert content["directions"].keys() == content["settings"]["sources"].keys() == directions
    assert content["levels"].keys() == {"en", "fr", "wo", "sd", "nl"}
    assert content["settings"] == json.loads((out / "settings.json").read_text())


def overwriting(toy_data, checkpoint, tmp_path, **more) -> EvaluationOptions:
    return options(toy_data, checkpoint, tmp_path / "out", overwrite=True, **more)


def test_results_that_another_process_works_at_are_not_overwritten(
    start, asked, toy_data, checkpoint, tmp_path
) -> None:
    both = [start(asked, held=True) for _ in range(2)]
    for process in both:
        process.wait_until_it_decodes()
    other = overwriting(toy_data, checkpoint, tmp_path)
    words = f"another process is evaluating into {tmp_path / 'out'}; wait until it has ended, or leave --overwrite out"
    for process in both:
        assert words in start(other).result()
        process.kill()
    again = start(other)
    assert sorted(again.result()) == sorted(again.decoded) == sorted(toy.PAIRS)


def test_of_torchruns_processes_the_first_to_come_overwrites_and_the_others_join(
    start, toy_data, checkpoint, expected, tmp_path
) -> None:
    evaluate(options(toy_data, checkpoint, tmp_path / "out", generation=GenerationSettings(beam=2)))
    asked = overwriting(toy_data, checkpoint, tmp_path)
    processes = [start(asked, environment=of_torchrun(rank, 3)) for rank in range(3)]
    assert sorted(processes[0].result()) == sorted(toy.PAIRS)
    assert [process.result() for process in processes[1:]] == [[], []]
    assert sorted(direction for process in processes for direction in process.decoded) == sorted(toy.PAIRS)
    assert contents(tmp_path / "out") == expected


@pytest.mark.parametrize("count", [1, 2])
def test_what_another_has_overwritten_since_the_command_was_given_is_not_overwritten(
    start, toy_data, checkpoint, expected, tmp_path, monkeypatch, count
) -> None:
    evaluate(options(toy_data, checkpoint, tmp_path / "out", generation=GenerationSettings(beam=2)))
    asked = overwriting(toy_data, checkpoint, tmp_path)
    late = prepare(check(asked))
    first = start(asked, environment=of_torchrun(0, 2))
    assert sorted(first.result()) == sorted(first.decoded) == sorted(toy.PAIRS)
    monkeypatch.setattr(Decoder, "translate", lambda *args: pytest.fail("decoded again"))
    for name, value in of_torchrun(1, count).items():
        monkeypatch.setenv(name, value)
    if count == 1:
        with pytest.raises(UserError, match="another process is evaluating into"):
            run(late)
    else:
        assert run(late) == {}
    assert contents(tmp_path / "out") == expected


def test_a_process_that_dies_while_it_overwrites_leaves_nothing_that_could_be_mixed(
    start, asked, toy_data, checkpoint, expected, tmp_path
) -> None:
    evaluate(options(toy_data, checkpoint, tmp_path / "out", generation=GenerationSettings(beam=2)))

    def die_after_the_third_file() -> None:
        removed, unlink = [], Path.unlink

        def count(path: Path, *args: object, **more: object) -> None:
            unlink(path, *args, **more)
            removed.append(path)
            if [path for path in removed if path.name.endswith(".hyp.txt")][2:]:
                os.kill(os.getpid(), signal.SIGKILL)

        Path.unlink = count

    other = overwriting(toy_data, checkpoint, tmp_path)
    dead = start(other, first=die_after_the_third_file)
    wait_for(lambda: not dead.is_running)
    assert len(list((tmp_path / "out").glob("*.hyp.txt"))) == 17
    with pytest.raises(UserError, match=r"holds hypotheses but no settings\.json"):
        evaluate(asked)
    evaluate(other)
    assert contents(tmp_path / "out") == expected


def test_hypotheses_that_another_evaluation_has_removed_meanwhile_are_missed(toy_data, checkpoint, tmp_path) -> None:
    pair = options(toy_data, checkpoint, tmp_path / "out", lang_pairs="en-fr")
    evaluate(pair)
    planned = prepare(check(pair))
    evaluate(overwriting(toy_data, checkpoint, tmp_path, lang_pairs="fr-en"))
    with pytest.raises(UserError, match=f"another process has removed the hypotheses of en-fr from {tmp_path}/out; "):
        run(planned)


def test_one_of_several_processes_scores_by_a_model(
    start, toy_data, checkpoint, tmp_path, monkeypatch, fake_comet
) -> None:
    calls, score = tmp_path / "calls", CometScorer.score

    def counted(*args: object) -> float:
        with calls.open("a") as file:
            file.write("x")
        time.sleep(0.03)
        return score(*args)

    monkeypatch.setattr(CometScorer, "score", counted)
    evaluate(options(toy_data, checkpoint, tmp_path / "one", models={"comet": "Some/model"}))
    calls.unlink()
    asked = options(toy_data, checkpoint, tmp_path / "out", models={"comet": "Some/model"})
    processes = [start(asked) for _ in range(3)]
    assert [sorted(process.result()) for process in processes] == [sorted(toy.PAIRS)] * 3
    assert contents(tmp_path / "out") == contents(tmp_path / "one")
    assert len(calls.read_text()) == 20


def test_a_file_system_without_locks_is_enough_for_one_process(asked, expected, tmp_path, monkeypatch) -> None:
    def lockf(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    for name, value in of_torchrun(0, 2).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"--out {tmp_path}/out is on a file system without locks, which several"):
        evaluate(asked)
    monkeypatch.delenv("WORLD_SIZE")
    evaluate(asked)
    found = contents(tmp_path / "out")
    assert sorted(found.pop(PROVENANCE).splitlines()) == expected[PROVENANCE].splitlines()
    assert found == {name: content for name, content in expected.items() if name != PROVENANCE}


def test_without_locks_no_hypotheses_are_added_to_those_of_other_settings(
    asked, toy_data, checkpoint, tmp_path, monkeypatch
) -> None:
    translate = Decoder.translate

    def overtaken(self, directions, progress) -> Iterator[tuple[Direction, list[str]]]:
        """Another process has started the folder meanwhile, which no lock has prevented."""
        monkeypatch.setattr(Decoder, "translate", translate)
        settings = json.loads((tmp_path / "out" / "settings.json").read_text())
        settings["generation"]["beam"] += 1
        (tmp_path / "out" / "settings.json").write_text(json.dumps(settings))
        yield from translate(self, directions, progress)

    monkeypatch.setattr(Decoder, "translate", overtaken)
    with pytest.raises(
        UserError, match=r"holds results of other generation settings; beam was \d and is \d; give another"
    ):
        evaluate(asked)
    assert not list((tmp_path / "out").glob("*.hyp.txt"))
