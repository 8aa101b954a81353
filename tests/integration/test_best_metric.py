"""``--best-checkpoint-metric``, held against the metrics that a validation of fairseq's trainer yields."""

from __future__ import annotations

import argparse

import pytest
from fairseq import criterions
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.logging import metrics

from langspec_lora.tasks.checks.best_metric import validation_metrics
from tests import toy
from tests.bad_input import refusal_of


def yielded(task, model, args: argparse.Namespace) -> set[str]:
    """What one batch of validation yields, by fairseq's own criterion."""
    criterion = criterions.build_criterion(convert_namespace_to_omegaconf(args).criterion, task)
    with metrics.aggregate(new_root=True) as reduced:
        _, _, log = task.valid_step(toy.mixed_batch(task), model, criterion)
        task.reduce_metrics([log], criterion)
    return {*reduced.get_smoothed_values(), "num_updates"}  # fairseq_cli.train adds the last


CRITERIA = [
    ["--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1"],
    ["--criterion", "label_smoothed_cross_entropy", "--report-accuracy"],
    ["--criterion", "label_smoothed_cross_entropy", "--sentence-avg"],
    ["--criterion", "cross_entropy"],
    ["--criterion", "cross_entropy", "--sentence-avg"],
]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_metrics_are_those_that_a_validation_yields(toy_data, criterion) -> None:
    flags = toy.plugin_flags(toy_data)
    task, model = toy.build(flags)
    place = flags.index("--criterion")
    args = toy.parse([*flags[:place], *flags[place + 4 :], *criterion])
    assert validation_metrics(task, args) == yielded(task, model, args)


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize("metric", ["bleu", "accuracy", "Loss", "valid_loss"])
def test_metric_that_no_validation_yields_ends_a_training_before_a_model_is_built(toy_data, metric) -> None:
    message = refusal_of(toy.build, toy.plugin_flags(toy_data, "--best-checkpoint-metric", metric))
    assert f"--best-checkpoint-metric {metric}: validation computes bsz, loss, nll_loss, num_updates, ppl" in message


@pytest.mark.parametrize(
    ("flags", "warns"),
    [
        ([], False),
        (["--maximize-best-checkpoint-metric"], True),
        (["--report-accuracy", "--best-checkpoint-metric", "accuracy"], True),
        (["--report-accuracy", "--best-checkpoint-metric", "accuracy", "--maximize-best-checkpoint-metric"], False),
        (["--best-checkpoint-metric", "bleu", "--disable-validation"], False),
    ],
)
def test_choosing_the_worst_checkpoint_is_warned_of(toy_data, caplog, flags, warns) -> None:
    toy.build(toy.plugin_flags(toy_data, *flags))
    assert ("checkpoint_best.pt will be the worst" in caplog.text) == warns
