"""The evaluation: decodes what is missing, scores everything, and leaves a results folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.decoding import Decoder
from langspec_lora.evaluation.metrics import METRICS, MODEL_METRICS
from langspec_lora.evaluation.options import EvaluationOptions
from langspec_lora.evaluation.prepare import Evaluation, by_target, check, prepare
from langspec_lora.evaluation.results import PUBLISHED, SCORES, SCORES_TABLE, SETTINGS, hypotheses_path, text_path
from langspec_lora.evaluation.scoreboard import Scoreboard
from langspec_lora.evaluation.settings import source_size
from langspec_lora.evaluation.share import Share
from langspec_lora.files import write_json, write_whole
from langspec_lora.notes import note
from langspec_lora.progress import Progress


def evaluate(options: EvaluationOptions, share: Share | None = None) -> dict[Direction, Mapping]:
    """Evaluates a model; what an earlier call with the same settings has done is kept.

    Args:
        options: what to evaluate and how.
        share: which process this is of those that evaluate together; by default the only one.

    Returns:
        The scores of each direction, as in ``scores.json``; empty in all processes but the first.

    Raises:
        UserError: before anything is decoded, if something is missing or does not fit.
    """
    share = share or Share()
    return run(share.in_first(lambda: prepare(check(options))), share)


def run(evaluation: Evaluation, share: Share) -> dict[Direction, Mapping]:
    """Decodes and scores what an evaluation has left to do; see :func:`evaluate`."""
    options, scoring = evaluation.options, evaluation.options.scoring
    if scoring.models and share.count > 1:
        flags = ", ".join(MODEL_METRICS[name].flag for name in scoring.models)
        raise UserError(f"{flags} is computed by one process; call it without torchrun once all directions are decoded")
    cpu = options.model.device == "cpu"
    scorers = [MODEL_METRICS[name].load(model, cpu) for name, model in scoring.models.items()]
    board = Scoreboard(
        options.out,
        evaluation.texts,
        scoring.tokenize,
        evaluation.settings,
        evaluation.to_score,
        scorers,
        share.rank == 0,
        evaluation.levels,
    )
    if evaluation.to_decode:
        _decode(evaluation, share, board)
    parts = share.in_each(board.part)
    if share.rank:
        return {}
    board.join(parts)
    directions = by_target(evaluation.to_score)
    for direction in directions:
        board.add(direction)
    for scorer in scorers:
        for direction in Progress(directions, desc=scorer.label, unit="direction"):
            board.add_by_model(direction, scorer)
    written = board.write()
    return {direction: written[direction] for direction in evaluation.directions}


def mean_scores(scores: Mapping[Direction, Mapping]) -> dict[str, float]:
    """The mean of each metric over all directions."""
    metrics = [name for name in METRICS if all(name in score for score in scores.values())]
    return {metric: sum(score[metric] for score in scores.values()) / len(scores) for metric in metrics}


def counted(directions: int) -> str:
    """``1 direction``, ``132 directions``."""
    return f"{directions} direction{'' if directions == 1 else 's'}"


def _decode(evaluation: Evaluation, share: Share, board: Scoreboard) -> None:
    options, to_decode, start = evaluation.options, evaluation.to_decode, time.monotonic()
    mine = share.part(to_decode, [source_size(options, direction) for direction in to_decode])
    processes = f", by {share.count} processes" if share.count > 1 else ""
    _say(share, f"{counted(len(to_decode))} to decode{processes}, loading {options.model}")
    decoder = Decoder(options, evaluation.model, to_decode)
    if not decoder.has_adapters:
        _say(share, f"{options.model} has no language-specific adapters; it is evaluated as it is")
    loaded = time.monotonic()
    sentences = share.in_each(lambda: sum(len(decoder.load(direction)) for direction in mine))[share.rank]
    share.in_first(lambda: _begin(evaluation))
    if not (options.out / SETTINGS).is_file():
        raise UserError(f"--out {options.out} is not one folder for all processes; give one that all machines share")
    process = f" (process {share.rank + 1} of {share.count})" if share.count > 1 else ""
    with Progress(total=sentences, desc=f"decoding{process}", unit="sentence", disable=share.rank > 0) as bar:
        bar.set_postfix_str(f"0/{len(mine)} directions")
        for number, (direction, hypotheses) in enumerate(decoder.translate(mine, bar.update), start=1):
            write_whole(hypotheses_path(options.out, direction), "".join(f"{line}\n" for line in hypotheses))
            board.add(direction)
            bar.set_postfix_str(f"{number}/{len(mine)} directions", refresh=False)
    decoding = time.monotonic() - loaded - board.seconds
    _say(share, f"loading {loaded - start:.1f} s, decoding {decoding:.1f} s, scoring {board.seconds:.1f} s")


def _say(share: Share, sentence: str) -> None:
    """Tells the user something, once for all processes."""
    if share.rank == 0:
        note(sentence)


def _begin(evaluation: Evaluation) -> None:
    """Starts the results folder: all checks have passed, so that ``--overwrite`` may remove what it replaces."""
    if evaluation.options.overwrite:
        for path in _result_files(evaluation.options.out):
            path.unlink()
    write_json(evaluation.options.out / SETTINGS, evaluation.settings)


def _result_files(out: Path) -> Iterator[Path]:
    for name in (SETTINGS, SCORES, SCORES_TABLE, PUBLISHED):
        if (out / name).is_file():
            yield out / name
    yield from list(out.glob("*-*.hyp.txt"))
    yield from list(out.glob(str(text_path(Path(), "*", "?" * 12))))
