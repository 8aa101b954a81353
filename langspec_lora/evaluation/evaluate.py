"""An evaluation: takes directions that no other process decodes, decodes and scores them, and writes a results folder.

Any number of processes can work in one results folder. A process locks the directions that it decodes; when it ends,
early or not, the locks are free for the others. The processes share nothing else but the files.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation import torchrun
from langspec_lora.evaluation.decoding import Decoder
from langspec_lora.evaluation.metrics import MODEL_METRICS, SACREBLEU_METRICS, RequestedScorer, Scorer
from langspec_lora.evaluation.options import EvaluationOptions
from langspec_lora.evaluation.prepare import Evaluation, check, prepare
from langspec_lora.evaluation.results import LOCK, RESULT_FILES, SETTINGS, decoded, hypotheses_path, look_again
from langspec_lora.evaluation.scoreboard import Scoreboard
from langspec_lora.evaluation.settings import file_state, held_sources
from langspec_lora.files import write_json
from langspec_lora.locks import Locks
from langspec_lora.notes import note
from langspec_lora.progress import Progress

_SECONDS_BETWEEN_LOOKS = 10.0
"""How often the folder is listed, to see what other processes have done; it may hold tens of thousands of files."""


def evaluate(options: EvaluationOptions) -> dict[Direction, dict[str, Any]]:
    """Evaluates a model; what other calls with the same settings have done, or are doing, is left to them.

    Returns:
        The scores of each direction, as in ``scores.json``; empty in all processes of torchrun but the first.

    Raises:
        UserError: before anything is decoded, if something is missing or does not fit.
    """
    return run(prepare(check(options)))


def run(evaluation: Evaluation) -> dict[Direction, dict[str, Any]]:
    """Decodes and scores what an evaluation has left to do; see :func:`evaluate`."""
    options, start = evaluation.options, time.monotonic()
    cpu = options.model.device == "cpu"
    scoring = options.scoring
    scorers: list[Scorer] = [
        RequestedScorer(metric, scoring.tokenize)
        for name, metric in SACREBLEU_METRICS.items()
        if name in scoring.metrics and not metric.always
    ]
    scorers += [MODEL_METRICS[name].load(model, cpu) for name, model in scoring.models.items()]
    if evaluation.to_decode:
        processes = f", by {torchrun.count()} processes" if torchrun.count() > 1 else ""
        _say(f"{counted(len(evaluation.to_decode))} to decode{processes}, loading {options.model}")
        torchrun.take_gpu()
        decoder = Decoder(options, evaluation.model, evaluation.to_decode)
        if not decoder.has_adapters:
            _say(f"{options.model} has no language-specific adapters; the plain model is evaluated")
        loaded = time.monotonic()
        groups = list(decoder.groups(evaluation.to_decode))
    with Locks(options.out / LOCK) as locks:
        _begin(evaluation, locks)
        board = Scoreboard(evaluation, scorers, locks)
        if evaluation.to_decode:
            _decode(evaluation, groups, decoder, locks, board)
            decoding = time.monotonic() - loaded - board.seconds
            _say(f"loading {loaded - start:.1f} s, decoding {decoding:.1f} s, scoring {board.seconds:.1f} s")
        if torchrun.rank() > 0:
            board.write()
            return {}
        return board.complete()


def counted(directions: int) -> str:
    """``1 direction``, ``132 directions``."""
    return f"{directions} direction{'' if directions == 1 else 's'}"


def _say(sentence: str) -> None:
    """Tells the user something, once for all processes of torchrun."""
    if torchrun.rank() == 0:
        note(sentence)


def _begin(evaluation: Evaluation, locks: Locks) -> None:
    """Starts the results folder: all checks have passed, so that ``--overwrite`` may remove what it replaces."""
    options, out = evaluation.options, evaluation.options.out
    if not locks.supported and torchrun.count() > 1:
        raise UserError(f"--out {out} is on a file system without locks, which several processes need; give another")
    with locks.held("beginning"):
        alone = locks.take("at work")
        if options.overwrite:
            # A process of torchrun that came first has removed the old results, and may have ended since.
            if alone and file_state(out / SETTINGS) == evaluation.found:
                for path in [path for pattern in RESULT_FILES for path in out.glob(pattern)]:
                    path.unlink()
            elif torchrun.count() == 1:
                raise UserError(
                    f"another process is evaluating into {out}; wait until it has ended, "
                    "or leave --overwrite out to share its work"
                )
        locks.take("at work", shared=True)  # until this process ends
        held = held_sources(out, evaluation.settings, at_work=not alone)
        gone = {*map(str, evaluation.to_score)} - {*map(str, evaluation.to_decode)} - decoded(out)
        if gone:
            raise UserError(f"another process has removed the hypotheses of {min(gone)} from {out}; start again")
        sources = dict(sorted({**held, **evaluation.settings["sources"]}.items()))
        write_json(out / SETTINGS, {**evaluation.settings, "sources": sources})
        evaluation.provenance.begin(locks)


def _decode(
    evaluation: Evaluation, groups: Sequence[Mapping[Direction, int]], decoder: Decoder, locks: Locks, board: Scoreboard
) -> None:
    """Decodes the directions that no other process decodes, until all have hypotheses.

    Args:
        evaluation: the evaluation, whose results folder has been started.
        groups: the directions that are decoded together, each with its number of sentences.
        decoder: decodes them.
        locks: those of the folder; a direction's lock is held by the process that decodes it.
        board: scores them.
    """
    out, settings = evaluation.options.out, None
    sentences = {direction: count for group in groups for direction, count in group.items()}
    missing = [list(group) for group in groups]
    with Progress(total=sum(sentences.values()), desc="decoding", unit="sentence", disable=torchrun.rank() > 0) as bar:
        bar.set_postfix_str(f"0/{len(sentences)} directions")
        while missing:
            looked, before = time.monotonic(), missing
            for group in before:
                if not (taken := _take(group, out, locks)):
                    continue
                for direction, hypotheses in decoder.translate(taken, bar.update):
                    if file_state(out / SETTINGS) != settings:  # where there are no locks, anybody may change them
                        settings = file_state(out / SETTINGS)
                        held_sources(out, evaluation.settings, at_work=True)
                    evaluation.provenance.write(direction, hypotheses, locks)
                    board.add(direction)
                    locks.release(str(direction))
                if time.monotonic() - looked > _SECONDS_BETWEEN_LOOKS:
                    break
            there = decoded(out)
            done = [direction for direction in sentences if str(direction) in there]
            bar.update(sum(sentences[direction] for direction in done) - bar.n)  # other processes decode some of them
            bar.set_postfix_str(f"{len(done)}/{len(sentences)} directions", refresh=False)
            left = ([direction for direction in group if str(direction) not in there] for group in before)
            missing = [group for group in left if group]
            if missing == before:
                with locks.held(str(missing[0][0])):  # until it is decoded, or its process has ended without
                    pass


def _take(directions: Sequence[Direction], out: Path, locks: Locks) -> list[Direction]:
    """Locks those directions that no process decodes and none has decoded meanwhile."""
    free = [direction for direction in directions if locks.take(str(direction))]
    look_again(out)
    for direction in [direction for direction in free if hypotheses_path(out, direction).is_file()]:
        locks.release(str(direction))
        free.remove(direction)
    return free
