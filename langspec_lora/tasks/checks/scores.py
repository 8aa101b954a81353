"""The flags for scores of translated validation text."""

from __future__ import annotations

from argparse import Namespace

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.flags import ScoreFlags
from langspec_lora.languages import LEVELS
from langspec_lora.settings import check_numbers
from langspec_lora.tokenizers import require_tokenizer

METRICS = ("bleu", "chrf")
"""The scores over the whole sample; higher is better."""


def scores_translations(args: Namespace) -> bool:
    """Whether a training translates and scores validation text."""
    return args.eval_translations > 0 and not args.disable_validation


def score_names(args: Namespace) -> list[str]:
    """All names that scores can have, over all and by the levels of source and target; none without scores.

    Args:
        args: the arguments of a training command.
    """
    if not scores_translations(args):
        return []
    groups = [f"_{source}_{target}" for source in LEVELS for target in LEVELS]
    return [f"{name}{group}" for name in METRICS for group in ("", *groups)]


def check_score_flags(args: Namespace) -> None:
    """Checks the flags, and that sacrebleu can tokenize.

    Args:
        args: the arguments of a training command.

    Raises:
        UserError: a flag has a wrong value, or nothing could be scored; all mistakes are listed.
    """
    with collect_errors() as errors:
        with errors.check():
            check_numbers(ScoreFlags, args)
        if not scores_translations(args):
            return
        with errors.check():
            if args.lang_tok_replacing_bos_eos:
                raise UserError(
                    "--eval-translations translates batches of several directions, which --lang-tok-replacing-bos-eos "
                    "cannot; leave one of them out"
                )
        with errors.check():
            try:
                require_tokenizer(args.eval_tokenize)
            except UserError as error:
                raise UserError(f"--eval-tokenize {args.eval_tokenize}: {error}") from error


def check_best_score(args: Namespace) -> None:
    """Checks that a score that selects checkpoints is maximised.

    Raises:
        UserError: it would be minimised, so that the worst checkpoint were kept, and ``--patience`` counted gains.
    """
    metric = args.best_checkpoint_metric
    if metric in score_names(args) and not args.maximize_best_checkpoint_metric:
        raise UserError(
            f"--best-checkpoint-metric {metric}: higher is better, but without --maximize-best-checkpoint-metric the "
            "lowest score would be kept as the best; give that flag too"
        )
