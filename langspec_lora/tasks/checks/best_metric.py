"""``--best-checkpoint-metric`` must name a value that validation computes."""

from __future__ import annotations

import logging
from argparse import Namespace

from fairseq.criterions import CRITERION_REGISTRY
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask

from langspec_lora.errors import UserError
from langspec_lora.naming import some_of
from langspec_lora.tasks.checks.scores import METRICS, check_best_score, score_names

logger = logging.getLogger(__name__)

_LOSSES = ("loss", "nll_loss", "ppl")
_GAINS = ("accuracy",)


def check_best_metric(task: FairseqTask, args: Namespace) -> None:
    """Checks that validation computes the metric that selects ``checkpoint_best.pt``.

    Args:
        task: the task.
        args: the arguments of the training command.

    Raises:
        UserError: it does not; fairseq would fail at the first validation, before anything is saved.
    """
    if args.disable_validation:
        return
    metric, known, scores = args.best_checkpoint_metric, validation_metrics(task, args), score_names(args)
    if metric in scores:
        check_best_score(args)
    elif known is not None and metric not in known:
        known |= {name for name in scores if name in METRICS}
        hint = " (also bleu and chrf with --eval-translations N)" if metric.startswith(METRICS) and not scores else ""
        if not hint and getattr(args, "report_accuracy", None) is False:
            hint = " (also accuracy with --report-accuracy)"
        raise UserError(
            f"--best-checkpoint-metric {metric}: validation computes {some_of(sorted(known))}{hint}; name one of them"
        )
    if metric in (_LOSSES if args.maximize_best_checkpoint_metric else _GAINS):
        logger.warning(
            "checkpoint_best.pt will be the worst checkpoint: --best-checkpoint-metric %s %s "
            "--maximize-best-checkpoint-metric",
            metric,
            "was given with" if args.maximize_best_checkpoint_metric else "needs",
        )


def validation_metrics(task: FairseqTask, args: Namespace) -> set[str] | None:
    """The names of the values that a validation computes, found by reducing the log of one batch as fairseq does.

    Returns:
        None for a criterion whose log is unknown.
    """
    criterion = CRITERION_REGISTRY.get(args.criterion)
    if criterion not in (CrossEntropyCriterion, LabelSmoothedCrossEntropyCriterion):
        return None
    log = {"loss": 1.0, "nll_loss": 1.0, "ntokens": 2, "nsentences": 1}
    log["sample_size"] = log["nsentences"] if args.sentence_avg else log["ntokens"]
    if getattr(args, "report_accuracy", False):
        log |= {"n_correct": 1, "total": 2}
    with metrics.aggregate(new_root=True) as reduced:
        # fairseq uses only the class of the criterion, so no criterion is built.
        task.reduce_metrics([log], object.__new__(criterion))
    return {*reduced.get_smoothed_values(), "num_updates"}
