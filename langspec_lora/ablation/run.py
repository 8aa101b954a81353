"""An ablation from its options to its files: checks, estimate of the time, forward passes, tables and pictures."""

# Imports in functions: torch, fairseq and matplotlib take seconds, and everything is checked before they are needed.

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langspec_lora.ablation.options import CSV_FILES, MAPS, SWAP, AblationOptions
from langspec_lora.ablation.plan import Plan
from langspec_lora.checkpoints.arguments import stored_config, stored_languages
from langspec_lora.checkpoints.outline import Outline
from langspec_lora.checkpoints.vocabulary_files import given_dictionary
from langspec_lora.config import AdapterConfig
from langspec_lora.data.directions import Direction, choose_directions, find_directions
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.evaluation import torchrun
from langspec_lora.evaluation.options import EvaluationOptions
from langspec_lora.evaluation.prepare import common_dictionary
from langspec_lora.evaluation.split_text import languages_of
from langspec_lora.files import check_folder, json_text, sha256, whole_folder, write_whole
from langspec_lora.inference.model_files import ModelFiles, read_outlines
from langspec_lora.keys import check_directions
from langspec_lora.naming import some_of
from langspec_lora.notes import note
from langspec_lora.progress import Progress
from langspec_lora.sites import Site

if TYPE_CHECKING:
    import numpy as np

    from langspec_lora.ablation.effects import Effects
    from langspec_lora.ablation.findings import Findings
    from langspec_lora.ablation.losses import LossMeter
    from langspec_lora.models.injected import InjectedAdapters

_FASTEST = 0.0005  # seconds of the shortest forward pass that any machine could do
_TRIALS = 16


@dataclass(frozen=True)
class Ablation:
    """What is to be measured; everything was checked that can be checked without loading the model.

    Attributes:
        options: what was asked for.
        plan: the forward passes.
        model: the model.
    """

    options: AblationOptions
    plan: Plan
    model: ModelFiles


def prepare(options: AblationOptions) -> Ablation:
    """Looks for the files, languages and directions that are asked for, and plans what to measure.

    Raises:
        UserError: some are missing or damaged, the checkpoint has no adapters, the folder holds files of an earlier
            call, or it would take too long on any machine.
    """
    if torchrun.count() > 1:
        raise UserError(f"an ablation runs in one process, but torchrun started {torchrun.count()}; leave torchrun out")
    with collect_errors() as errors:
        with errors.check():
            (outline,) = read_outlines(options.model.checkpoints)
            config = _config(outline)
        with errors.check():
            if options.out is not None:
                check_folder(options.out, _files(), options.overwrite)
        with errors.check():
            if options.model.dictionary is not None:
                given_dictionary(options.model.dictionary)
        with errors.check():
            available = find_directions(options.data_bin, options.subset)
            directions = choose_directions(available, options.langs, options.lang_pairs)
            if options.model.dictionary is None:
                dictionary = common_dictionary(options.data_bin, languages_of(directions))
            else:
                dictionary = Path(options.model.dictionary)
    unknown = [name for name in languages_of(directions) if name not in config.languages.names]
    if unknown:
        raise UserError(
            f"the data have {some_of(unknown)}, for which the checkpoint has no adapters; it knows "
            f"{some_of(config.languages.names)}; choose some of them with --langs"
        )
    check_directions(config.languages, directions)
    plan = Plan(config, tuple(directions), options.by)
    _check_time(options, plan, plan.passes * _FASTEST, "at least ")
    return Ablation(options, plan, ModelFiles.of(options.model, dictionary, languages_of(directions)))


def _config(outline: Outline) -> AdapterConfig:
    if stored_languages(outline) is None:
        raise UserError(f"{outline.path} has no adapters, so nothing can be left out; give a checkpoint with adapters")
    assert outline.model_args is not None
    return stored_config(outline.model_args, str(outline.path))


def measure(ablation: Ablation) -> Findings:
    """Measures, and collects what was found.

    Raises:
        UserError: see :func:`measured`.
        SystemExit: likewise.
    """
    from langspec_lora.ablation.findings import find

    effects, products = measured(ablation)
    return find(effects, _about(ablation), products)


def measured(ablation: Ablation) -> tuple[Effects, dict[str, dict[Site, np.ndarray]]]:
    """Loads the model and measures its losses; it is as it was afterwards.

    Returns:
        The losses, and by role the inner products of updates, see
        :func:`~langspec_lora.ablation.cosines.inner_products`.

    Raises:
        UserError: it would take too long, or the data are damaged or of another dictionary.
        SystemExit: with one line, if the checkpoint is damaged, or the dictionary or languages do not fit it.
    """
    from langspec_lora.ablation.cosines import inner_products
    from langspec_lora.ablation.losses import LossMeter, batches_of
    from langspec_lora.evaluation.decoding import Decoder

    options, plan = ablation.options, ablation.plan
    decoder = Decoder(_as_evaluation(options), ablation.model, plan.directions)
    loaded = decoder.loaded
    (model,) = loaded.models
    ids = {name: number for number, name in enumerate(loaded.task.langs)}
    meter = LossMeter(model, ids, loaded.task.target_dictionary.pad(), int(ablation.model.tokens.target is not None))

    def read(direction: Direction) -> None:
        limits = (options.limits.max_tokens, options.limits.batch_size)
        meter.add(direction, batches_of(decoder.load(direction), options.sentences, *limits, loaded.device))

    trials = plan.directions[:: -(-len(plan.directions) // _TRIALS)]
    for direction in trials:
        read(direction)
    seconds = _seconds_each(meter, trials) * plan.passes
    _check_time(options, plan, seconds, "about ")
    if seconds > 60:
        note(f"{plan.passes:,} forward passes will take about {_duration(seconds)}")
    for direction in plan.directions:
        if direction not in trials:
            read(direction)
    effects = _measure(meter, model.adapters, plan)
    products = {role: inner_products(model.adapters, plan, role) for role in plan.roles} if SWAP in plan.by else {}
    return effects, products


def _measure(meter: LossMeter, adapters: InjectedAdapters, plan: Plan) -> Effects:
    from langspec_lora.ablation.effects import Effects
    from langspec_lora.ablation.losses import without

    left_out, swapped = {}, {}
    with Progress(total=plan.passes, desc="measuring", unit="pass") as bar:
        for parts in plan.left_out:
            with without(adapters, parts):
                left_out[parts] = {direction: meter.measure(direction) for direction in _counting(bar, plan.directions)}
        for role, other in plan.swaps:
            swapped[role, other] = {
                direction: meter.measure(direction, plan.routed(role, other, direction))
                for direction in _counting(bar, plan.replaced(role, other))
            }
    tokens = {direction: meter.tokens(direction) for direction in plan.directions}
    return Effects(plan, tokens, left_out, swapped)


def _counting(bar: Progress, directions: Sequence[Direction]) -> Iterator[Direction]:
    for direction in directions:
        yield direction
        bar.update()


def _seconds_each(meter: LossMeter, directions: Sequence[Direction]) -> float:
    """The time of a forward pass over the sentences of a direction."""
    meter.measure(directions[0])  # the first takes longer
    start = time.monotonic()
    for direction in directions:
        meter.measure(direction)
    return (time.monotonic() - start) / len(directions)


def _check_time(options: AblationOptions, plan: Plan, seconds: float, word: str) -> None:
    if seconds > options.max_hours * 3600:
        raise UserError(
            f"{plan.passes:,} forward passes over {len(plan.directions):,} directions would take {word}"
            f"{_duration(seconds)}, more than --max-hours {options.max_hours:g}; choose languages with --langs, name "
            "less with --by (swap takes most), give fewer --sentences, or raise --max-hours"
        )


def _duration(seconds: float) -> str:
    if seconds < 90 * 60:
        return f"{max(1, round(seconds / 60))} min"
    return f"{seconds / 3600:,.0f} hours"


def _as_evaluation(options: AblationOptions) -> EvaluationOptions:
    """The same data and model, as what reads and checks the data takes them."""
    out = options.out or Path()
    more: dict[str, Any] = {"subset": options.subset, "limits": options.limits}
    return EvaluationOptions(options.data_bin, options.model, out, **more)


def _about(ablation: Ablation) -> dict[str, Any]:
    options, plan = ablation.options, ablation.plan
    path = options.model.checkpoints[0]
    return {
        "checkpoint": str(path),
        "sha256": sha256(path),
        "data": str(options.data_bin),
        "subset": options.subset,
        "sentences": options.sentences,
        "dtype": options.model.dtype,
        "loss": "bits per target token, without label smoothing and language tokens",
        "adapters": plan.config.key,
        "levels": plan.levels,
    }


def as_json(found: Findings) -> str:
    """All that was found, for other programs."""
    return f"{json_text(asdict(found))}\n"


def write(found: Findings, out: Path, overwrite: bool) -> list[Path]:
    """Writes tables and pictures into a folder, all or none.

    Raises:
        UserError: it holds files of an earlier call and ``overwrite`` was not given, or it cannot be written.
    """
    from langspec_lora.ablation.maps import MOST_ROWS, maps
    from langspec_lora.ablation.tables import csv_files
    from langspec_lora.report.heat_map import draw

    with whole_folder(out, _files(), overwrite) as folder:
        for name, content in csv_files(found).items():
            write_whole(folder / name, content)
        write_whole(folder / "ablation.json", as_json(found))
        for name, matrix in maps(found).items():
            if len(matrix.rows) > MOST_ROWS:
                note(f"{name} is not drawn: it has {len(matrix.rows):,} rows; the CSV files hold its figures")
            else:
                draw(matrix, folder / name, matrix.title)
        written = sorted(path.name for path in folder.iterdir())
    return [out / name for name in written]


def _files() -> list[str]:
    """The names of all files that an ablation may write."""
    return [*CSV_FILES, "ablation.json", *(f"{name}.{kind}" for name in MAPS for kind in ("png", "svg"))]
