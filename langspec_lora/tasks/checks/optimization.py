"""Whether optimizer, learning-rate schedule and criterion can be built, found out before the model is."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.optim import build_optimizer
from fairseq.optim.lr_scheduler import build_lr_scheduler

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.tasks.composed import compose

_OTHER_MODELS: Mapping[str, str] = {
    "composite_loss": "models for classification",
    "ctc": "speech recognition",
    "fastspeech2": "speech synthesis",
    "hubert": "speech models",
    "label_smoothed_cross_entropy_with_alignment": "the architecture transformer_align",
    "label_smoothed_cross_entropy_with_ctc": "speech models",
    "latency_augmented_label_smoothed_cross_entropy": "simultaneous translation",
    "legacy_masked_lm_loss": "masked language models",
    "masked_lm": "masked language models",
    "model": "models that compute their own loss",
    "nat_loss": "non-autoregressive models",
    "sentence_prediction": "models for classification",
    "sentence_prediction_adapters": "models for classification",
    "sentence_ranking": "models for ranking",
    "speech_to_spectrogram": "speech synthesis",
    "speech_to_unit": "speech models",
    "speech_to_unit_2pass": "speech models",
    "speech_unit_lm_criterion": "speech models",
    "tacotron2": "speech synthesis",
    "vocab_parallel_cross_entropy": "models divided between GPUs",
    "wav2vec": "speech models",
}
"""fairseq's criterions that do not take a Transformer for translation, and what they are for."""


def check_optimization(args: Namespace) -> None:
    """Builds optimizer and schedule for a single number, as fairseq does for the model's parameters later.

    Args:
        args: the arguments of a training command, whose numbers are in their ranges.

    Raises:
        UserError: fairseq, or a package that it needs, refuses the flags.
    """
    number = torch.nn.Parameter(torch.zeros(1))
    with collect_errors() as errors:
        with errors.check():
            if hasattr(args, "add_lora"):
                _check_criterion(args)
        if args.optimizer is None:  # which fairseq refuses
            return
        with errors.check():
            if args.optimizer == "composite":
                raise UserError(
                    "--optimizer composite needs a model that divides its parameters into groups; give another, such "
                    "as --optimizer adam"
                )
            cfg = compose(args)
            optimizer = _attempt(f"--optimizer {args.optimizer}", lambda: build_optimizer(cfg.optimizer, [number]))
            _attempt(f"--lr-scheduler {args.lr_scheduler}", lambda: build_lr_scheduler(cfg.lr_scheduler, optimizer))


def _check_criterion(args: Namespace) -> None:
    purpose = _OTHER_MODELS.get(args.criterion)
    if purpose is not None and args.criterion in CRITERION_REGISTRY:
        raise UserError(
            f"--criterion {args.criterion} is for {purpose}; give one for translation, such as --criterion "
            "label_smoothed_cross_entropy"
        )
    _check_adaptive_softmax(args)


def _check_adaptive_softmax(args: Namespace) -> None:
    cuts = getattr(args, "adaptive_softmax_cutoff", None) is not None
    if (args.criterion == "adaptive_loss") != cuts:
        raise UserError(
            "--criterion adaptive_loss and --adaptive-softmax-cutoff belong together; give both, or leave out both"
        )
    if cuts and (getattr(args, "tie_adaptive_weights", False) or getattr(args, "tie_adaptive_proj", False)):
        raise UserError(
            "--tie-adaptive-weights and --tie-adaptive-proj need adaptive input embeddings, which fairseq has only in "
            "language models; leave them out"
        )
    if cuts and args.ddp_backend in ("c10d", "pytorch_ddp"):
        raise UserError(
            f"--criterion adaptive_loss does not work with --ddp-backend {args.ddp_backend}; give --ddp-backend "
            "legacy_ddp"
        )


def _attempt(flag: str, build: Callable[[], Any]) -> Any:
    with _silent():
        try:
            return build()
        except Exception as error:  # whatever its package raises
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{flag} cannot be used: {reason}; change its flags, or give another") from error


@contextmanager
def _silent() -> Iterator[None]:
    """Without the log lines that fairseq writes again when it builds the real ones."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)
