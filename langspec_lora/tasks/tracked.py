"""A task that records curves while it trains: losses by language, sparsity, scores of translated validation text.

Means over few groups go into fairseq's own log; what is one number for each language goes to the recorders that fairseq
knows (TensorBoard, Weights & Biases) and to the curve file beside the checkpoints.
"""

from __future__ import annotations

import hashlib
import json
import logging
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from fairseq.distributed import utils as distributed
from fairseq.logging import metrics
from fairseq.trainer import Trainer

from langspec_lora.criterion import BY_SENTENCE, LabelSmoothedCrossEntropyCriterion
from langspec_lora.curve_file import EPOCH, VALIDATION, CurveFile, curve_file_name
from langspec_lora.errors import exit_on_user_error
from langspec_lora.flags import AdapterFlags, PruningFlags
from langspec_lora.hooks import TrainingHook
from langspec_lora.languages import PAPER_RESOURCES
from langspec_lora.models.transformer import language_specific
from langspec_lora.resources import read_resources
from langspec_lora.tasks.checks.scores import scores_translations
from langspec_lora.tasks.development import DevelopmentScores
from langspec_lora.tasks.losses import BY_LANGUAGE, MOST_LANGUAGES, Losses, LossSums, sums_by_language
from langspec_lora.tasks.recording_bars import record
from langspec_lora.tasks.stopping import StoppableTask

logger = logging.getLogger(__name__)

KEY = "curves"
"""In the state of the iterator over the training data: the run, and the sums of losses that go on."""

_SINCE_LOGGED, _SINCE_EPOCH, _VALIDATION = "since_logged", "since_epoch", "validation"
_MOST_DIRECTIONS = 1000  # directions up to which the file has a number for each
_DECISIVE = (
    *("data", "lang_pairs", "langs", "seed", "arch", "criterion", "label_smoothing", "dropout", "optimizer", "lr"),
    *("lr_scheduler", "warmup_updates", "max_tokens", "batch_size", "update_freq", "sampling_method"),
)
"""fairseq's flags by which one training is told from another in the same folder."""
_LOSSES = ("loss", "nll_loss", "ppl")


class TrackedTask(StoppableTask):
    """Adds curves to fairseq's task; see this module."""

    hooks: Sequence[TrainingHook] = ()
    _sums: LossSums | None = None
    _file: CurveFile | None = None
    _run = ""
    _levels: Mapping[str, str] = {}
    _scores: Mapping[str, float] = {}
    _development: DevelopmentScores | None = None

    def begin_tracking(self, trainer: Trainer, state: Mapping[str, Any], keeps_meters: bool) -> None:
        """See :class:`StoppableTask`; from now on, curves are recorded."""
        known = state.get(KEY, {})
        self._sums, self._run = LossSums(self.langs), known.get("run") or _run_of(self.args)
        if keeps_meters:
            # As with fairseq's own means: at the end of an epoch, they have been logged.
            ended = state.get("iterations_in_epoch") == 0
            self._sums.restore(known.get("losses", {}), without=_SINCE_EPOCH if ended else None)
        self._levels = self._known_levels(trainer.get_model())
        criterion = trainer.get_criterion()
        if isinstance(criterion, LabelSmoothedCrossEntropyCriterion):
            criterion.by_sentence = True
        else:
            logger.info(
                "curves | no losses by language with --criterion %s; label_smoothed_cross_entropy has them",
                self.args.criterion,
            )
        if scores_translations(self.args):
            with exit_on_user_error():
                self._development = DevelopmentScores(self, self._levels)
        if self.save_folder is not None and distributed.get_global_rank() == 0:
            path = Path(self.args.save_dir) / curve_file_name(getattr(self.args, "checkpoint_suffix", "") or "")
            about = {"languages": {name: self._levels.get(name) for name in self.langs}}
            self._file = CurveFile(path, self._run, trainer.get_num_updates(), about)
        record(self)

    def state_beside_position(self) -> dict[str, Any]:
        """See :class:`StoppableTask`. An epoch that a checkpoint ends is in the file before the checkpoint is."""
        state = super().state_beside_position()
        if self._sums is None:
            return state
        if self._iterator is not None and self._iterator.end_of_epoch() and metrics.get_meters("train"):
            self._write_epoch(metrics.get_smoothed_values("train"), self._iterator.epoch)
        return {**state, KEY: {"run": self._run, "losses": self._sums.state()}}

    def train_step(self, sample: dict, *args: Any, **kwargs: Any) -> Any:
        """See fairseq's task; adds the losses by language to the logging output."""
        loss, size, log = super().train_step(sample, *args, **kwargs)
        return loss, size, self._with_languages(log, sample, directions=False)

    def valid_step(self, sample: dict, *args: Any, **kwargs: Any) -> Any:
        """See fairseq's task; adds the losses by language and by direction to the logging output."""
        loss, size, log = super().valid_step(sample, *args, **kwargs)
        return loss, size, self._with_languages(log, sample, directions=len(self.langs) <= MOST_LANGUAGES)

    def begin_valid_epoch(self, epoch: int, model: torch.nn.Module) -> None:
        """See fairseq's task; then translates and scores."""
        super().begin_valid_epoch(epoch, model)
        if self._sums is not None:
            self._sums.reset(_VALIDATION)
        if self._development is not None:
            self._scores = self._development.score(model, self.stop_if_received)

    def reduce_metrics(self, logging_outputs: Sequence[dict[str, Any]], criterion: Any) -> None:
        """See fairseq's task; keeps the losses by language, and logs sparsity and scores."""
        found = [output[BY_LANGUAGE] for output in logging_outputs if BY_LANGUAGE in output]
        if found and self._sums is not None:
            total = found[0] if len(found) == 1 else sum(found[1:], found[0])
            for name in (_VALIDATION,) if self._validates else (_SINCE_LOGGED, _SINCE_EPOCH):
                self._sums.add(name, total)
        plain = [{key: output[key] for key in output if key != BY_LANGUAGE} for output in logging_outputs]
        super().reduce_metrics(plain, criterion)
        if self._sums is None:
            return
        more = self._scores if self._validates else self._hook_metrics()
        for place, (name, value) in enumerate(more.items()):
            metrics.log_scalar(name, value, weight=0, priority=50 + place, round=4)

    def within_epoch(self, stats: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
        """See :class:`langspec_lora.tasks.recording_bars.Recorded`."""
        losses = self._losses(_SINCE_LOGGED)
        if self._sums is not None:
            self._sums.reset(_SINCE_LOGGED)
        return self._by_level(losses), self._flat(losses)

    def after_epoch(self, stats: Mapping[str, Any], epoch: int) -> tuple[dict[str, float], dict[str, float]]:
        """See :class:`langspec_lora.tasks.recording_bars.Recorded`."""
        losses = self._losses(_SINCE_EPOCH)
        self._write_epoch(stats, epoch)
        if self._sums is not None:
            self._sums.reset(_SINCE_EPOCH)
        shares = {
            f"{name}/{part}": value
            for name, details in self._detailed_hook_metrics().items()
            for part, value in details.items()
        }
        return self._by_level(losses), {**self._flat(losses), **shares}

    def after_validation(
        self, stats: Mapping[str, Any], subset: str, epoch: int
    ) -> tuple[dict[str, float], dict[str, float]]:
        """See :class:`langspec_lora.tasks.recording_bars.Recorded`."""
        losses = self._losses(_VALIDATION)
        line = {**self._place(VALIDATION, epoch, stats), "subset": subset, **_numbers(stats, _LOSSES)}
        if self._scores and self._development is not None:
            line |= {"scores": dict(self._scores), "scored": self._development.signatures}
        if losses is not None:
            directions = losses.by_direction()
            line |= {"by_language": self._by_side(losses), "by_level": losses.by_level(self._levels)}
            line |= {"by_group": losses.by_group(self._levels)}
            line |= {"by_direction": directions} if len(directions) <= _MOST_DIRECTIONS else {}
        self._write(line)
        self._scores = {}  # they are those of the first subset
        if self._sums is not None:
            self._sums.reset(_VALIDATION)
        groups = {} if losses is None else losses.by_group(self._levels)
        return self._by_level(losses), {
            **self._flat(losses),
            **{f"nll_loss_by_group/{name}": value for name, value in groups.items()},
        }

    def _with_languages(self, log: dict[str, Any], sample: dict, directions: bool) -> dict[str, Any]:
        if BY_SENTENCE not in log:
            return log
        by_sentence, rest = log[BY_SENTENCE], {key: log[key] for key in log if key != BY_SENTENCE}
        sources, targets = sample.get("src_lang_id"), sample.get("tgt_lang_id")
        if sources is None or targets is None:
            return rest
        return {**rest, BY_LANGUAGE: sums_by_language(by_sentence, sources, targets, len(self.langs), directions)}

    def _known_levels(self, model: torch.nn.Module) -> dict[str, str]:
        """Resource levels by name: the adapters', or else those of the file of levels, or else the paper's."""
        ours = language_specific(model)
        if ours is not None and ours.adapters is not None:
            table = ours.adapters.config.languages
            return dict(zip(table.names, table.levels, strict=True))
        given = getattr(self.args, "lang_resources", None)
        levels = (read_resources(given) if given else PAPER_RESOURCES).levels
        return {name: levels[name] for name in self.langs if name in levels}

    def _losses(self, name: str) -> Losses | None:
        return None if self._sums is None else self._sums.get(name)

    def _by_level(self, losses: Losses | None) -> dict[str, float]:
        found = {} if losses is None else losses.by_level(self._levels)
        return {f"nll_loss_{level}": round(value, 3) for level, value in found.items()}

    @staticmethod
    def _flat(losses: Losses | None) -> dict[str, float]:
        if losses is None:
            return {}
        sides = {"into": "target", "from": "source"}
        return {
            f"nll_loss_by_{word}/{name}": value
            for side, word in sides.items()
            for name, value in losses.by_language(side).items()
        }

    @staticmethod
    def _by_side(losses: Losses) -> dict[str, Any]:
        return {
            name: {side: losses.by_language(side, row) for side in ("into", "from")}
            for row, name in enumerate(("loss", "nll_loss"))
        }

    def _hook_metrics(self) -> dict[str, float]:
        return {name: value for hook in self.hooks for name, value in hook.metrics().items()}

    def _detailed_hook_metrics(self) -> dict[str, Mapping[str, float]]:
        return {name: values for hook in self.hooks for name, values in hook.detailed_metrics().items()}

    def _place(self, kind: str, epoch: int, stats: Mapping[str, Any]) -> dict[str, Any]:
        """The beginning of a line: where the training is."""
        trainer = self._trainer() if self._trainer is not None else None
        place: dict[str, Any] = {"kind": kind, "epoch": epoch, "updates": int(stats.get("num_updates") or 0)}
        if trainer is not None:
            seconds = type(trainer).cumulative_training_time(trainer)  # ours stops the training
            rate = trainer.get_lr()
            place |= {"updates": trainer.get_num_updates(), "seconds": round(float(seconds), 1)}
            place["lr"] = max(rate.values()) if isinstance(rate, dict) else rate
        return place

    def _write_epoch(self, stats: Mapping[str, Any], epoch: int) -> None:
        losses = self._losses(_SINCE_EPOCH)
        line = {**self._place(EPOCH, epoch, stats), **_numbers(stats, (*_LOSSES, *self._hook_metrics()))}
        if losses is not None:
            line |= {"by_language": self._by_side(losses), "by_level": losses.by_level(self._levels)}
        details = self._detailed_hook_metrics()
        self._write({**line, **{name: dict(values) for name, values in details.items()}})
        for hook in reversed(self.hooks):
            hook.end_epoch(epoch)

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.add(line)


def _run_of(args: Namespace) -> str:
    """Identifies a training by what decides its numbers, so that repeating it gives the same checkpoints bit by bit.

    A training that was killed before its first checkpoint, and starts again, is the same.
    """
    names = sorted({*vars(AdapterFlags()), *vars(PruningFlags()), *_DECISIVE} - {"save_adapters_only"})
    values = {name: getattr(args, name, None) for name in names}
    return hashlib.sha256(json.dumps(values, default=str).encode()).hexdigest()[:32]


def _numbers(stats: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    """Those of fairseq's means that are numbers."""
    found = {}
    for name in names:
        value = stats.get(name)
        if torch.is_tensor(value) and value.numel() == 1:
            value = value.item()
        if isinstance(value, (int, float)):
            found[name] = round(float(value), 4)
    return found
