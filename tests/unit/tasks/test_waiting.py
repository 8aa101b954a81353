"""An update asks the GPU for no value, apart from what fairseq itself asks; the device ``meta`` plays the GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import torch
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.logging import metrics
from fairseq.tasks.translation_multi_simple_epoch import TranslationMultiSimpleEpochTask
from fairseq.trainer import Trainer

from langspec_lora.lora import LanguageAdam
from langspec_lora.tasks.checks import all_checks
from tests import toy
from tests.waits import Waits, on_device

try:
    torch.empty(2, device="meta").argsort(stable=True)
except NotImplementedError:
    pytest.skip("this torch cannot sort on the device meta", allow_module_level=True)

FLAGS = (
    *("--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--lr", "0.01", "--lr-scheduler", "fixed", "--cpu"),
    *("--clip-norm", "1.0", "--weight-decay", "0.1", "--dropout", "0.1", "--pruning", "True"),
    *("--pruning-t1", "1", "--pruning-t2", "4", "--target-pruning-ratio", "0.8"),
)
SOME = ("--train-languages", "wo,sd", "--lang-pairs", "wo-sd,sd-wo,en-wo")
PRECISIONS = {
    "single": (),
    "flat": ("--fp16",),
    "not flat": ("--fp16", "--fp16-no-flatten-grads"),
    "memory efficient": ("--fp16", "--memory-efficient-fp16"),
}


@pytest.fixture
def trainer_on_device(toy_data, monkeypatch) -> Iterator[Callable[..., Trainer]]:
    """Builds fairseq's trainer with a model on the device ``meta``, which the trainer would move to a GPU."""
    build_model = TranslationMultiSimpleEpochTask.build_model

    def build_on_device(self, *args, **kwargs) -> torch.nn.Module:
        model = build_model(self, *args, **kwargs).to("meta")
        model.to = lambda *args, **kwargs: model
        return model

    def make(*flags: str) -> Trainer:
        every = toy.plugin_flags(toy_data, *FLAGS, *flags)
        task, model = toy.build(every)
        cfg = convert_namespace_to_omegaconf(toy.parse(every))
        trainer = Trainer(cfg, task, model, task.build_criterion(cfg.criterion))
        assert trainer.optimizer is not None
        return trainer

    monkeypatch.setattr(TranslationMultiSimpleEpochTask, "build_model", build_on_device)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: None)
    monkeypatch.setattr(all_checks, "check_precision", lambda args: None)
    yield make
    metrics.reset()  # they hold sums on the device


@pytest.mark.parametrize(
    ("precision", "more"),
    [("single", ()), ("single", ("--checkpoint-activations",)), *((precision, SOME) for precision in PRECISIONS)],
)
def test_an_update_waits_for_nothing_that_fairseq_does_not_wait_for(trainer_on_device, precision, more) -> None:
    trainer = trainer_on_device(*PRECISIONS[precision], *more)
    task, model = trainer.task, trainer.get_model()
    mixed = on_device(toy.mixed_batch(task))
    single = {**mixed, "directions": ((3, 4),)}  # one direction, so that the other languages rest
    task.begin_tracking(trainer, {}, keeps_meters=True)
    with Waits():
        task.begin_epoch(2, model)
        trainer.train_step([single])
    with Waits() as waits:
        trainer.train_step([mixed, single])
    assert [wait for wait in waits.found if wait.is_ours] == []
    assert {"value"} <= {wait.kind for wait in waits.found if "transformer_encoder" in wait.file}
    inner = trainer.optimizer.optimizer
    assert isinstance(inner, LanguageAdam)
    assert not inner.state[inner.param_groups[0]["params"][0]]["rested"].eq(0).all()
    assert trainer.get_num_updates() == 2
    assert task._sums._sums["since_logged"].is_meta  # the losses by language were summed there
    for parameter in model.parameters():
        if parameter.requires_grad:
            assert parameter.is_meta
            assert parameter.dtype == (torch.float32 if precision == "single" else torch.float16)
            assert parameter.grad.dtype == parameter.dtype
    for state in inner.state.values():
        assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == torch.float32


def test_choosing_masks_waits_a_few_times_however_many_adapters_there_are(trainer_on_device, monkeypatch) -> None:
    trainer = trainer_on_device()
    # Of a device without numbers, all components are dead; a training looks for these once, at its start.
    monkeypatch.setattr("langspec_lora.pruning.callback.revive", lambda *args: None)
    with Waits() as waits:
        trainer.task.begin_epoch(2, trainer.get_model())
    ours = Counter(wait.line for wait in waits.found if wait.is_ours)
    assert list(ours.values()) == [1]  # for all shares at once
