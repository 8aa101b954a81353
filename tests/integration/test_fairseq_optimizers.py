"""fairseq's optimizers and schedules of the learning rate, beside a frozen base and pruning.

With each, fairseq's trainer runs two epochs, and again from a checkpoint within the second; the rows are those of
:mod:`tests.fairseq_features`.
"""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils, tasks
from fairseq.trainer import Trainer

from langspec_lora.tasks.composed import compose
from tests import toy
from tests.bad_input import refusal_of
from tests.fairseq_features import OPTIMIZERS, REFUSED, SCHEDULES, WORKS

FLAGS = (
    *("--lang-pairs", "en-fr,wo-nl", "--max-tokens", "900", "--seed", "2", "--cpu", "--lr", "1e-3", "--clip-norm", "1"),
    *("--pruning", "True", "--pruning-t1", "1", "--pruning-t2", "1", "--target-pruning-ratio", "0.8"),
    *("--max-epoch", "2", "--no-progress-bar"),
)
ROWS = [*OPTIMIZERS, *SCHEDULES]


def flags_of(data: Path, row, folder: Path) -> list[str]:
    more = row.flags.format().split()
    first = ["--optimizer", "adam", "--lr-scheduler", "fixed"]
    return toy.plugin_flags(data, *FLAGS, *first, *more, "--save-dir", str(folder))


class Training:
    """fairseq's trainer, driven as ``fairseq_cli.train`` drives it, without validation and log."""

    def __init__(self, flags: list[str]) -> None:
        cfg = compose(toy.parse(flags))
        torch.manual_seed(2)
        self.task = tasks.setup_task(cfg.task)
        self.model = self.task.build_model(cfg.model)
        self.before = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        self.trainer = Trainer(cfg, self.task, self.model, self.task.build_criterion(cfg.criterion))
        self.rates: list[float] = []

    def start(self, checkpoint: Path) -> Training:
        """Loads a checkpoint, or the data of the first epoch."""
        cfg = copy.deepcopy(self.trainer.cfg.checkpoint)
        cfg.restore_file = str(checkpoint)
        _, self.epoch_itr = checkpoint_utils.load_checkpoint(cfg, self.trainer)
        return self

    def run(self, save: Path | None = None) -> Training:
        """Trains to the end of the second epoch, and saves after its first update."""
        while self.epoch_itr.next_epoch_idx <= 2:
            batches = self.epoch_itr.next_epoch_itr(shuffle=True)
            self.trainer.begin_epoch(self.epoch_itr.epoch)
            for batch in batches:
                self.trainer.train_step([batch])
                self.rates.append(self.trainer.get_lr())
                if save is not None and (self.epoch_itr.epoch, self.epoch_itr.iterations_in_epoch) == (2, 1):
                    extra = {"train_iterator": self.epoch_itr.state_dict(), "val_loss": None}
                    self.trainer.consolidate_optimizer()
                    self.trainer.save_checkpoint(str(save), extra)
            self.rates.append(self.trainer.lr_step(self.epoch_itr.epoch, 4.0))
            self.epoch_itr = self.trainer.get_train_iterator(self.epoch_itr.next_epoch_idx, load_dataset=False)
        return self


@pytest.mark.parametrize("row", [row for row in ROWS if row.state == WORKS], ids=lambda row: row.name)
def test_base_and_pruned_entries_stay_and_a_stopped_run_goes_on_bit_for_bit(row, toy_data, tmp_path) -> None:
    flags = flags_of(toy_data, row, tmp_path)
    saved = tmp_path / "saved.pt"
    whole = Training(flags).start(tmp_path / "none.pt").run(saved)
    moved = 0
    for name, value in whole.model.named_parameters():
        if value.requires_grad:
            moved += int(not torch.equal(value, whole.before[name]))
            assert value.isfinite().all()
        else:
            assert torch.equal(value, whole.before[name]), name
    assert moved > 10
    assert any(linear.lora_B.any() for linear in whole.model.adapters.linears.values())
    for linear in whole.model.adapters.linears.values():
        pruned = linear.lora_mask == 0
        assert pruned.any()
        assert not linear.lora_B[pruned].any()

    resumed = Training(flags).start(saved).run()
    assert 0 < len(resumed.rates) < len(whole.rates)
    assert resumed.rates == whole.rates[-len(resumed.rates) :]
    for name, value in whole.model.state_dict().items():
        if not name.endswith("_float_tensor"):  # memory that fairseq leaves uninitialised
            assert torch.equal(value, resumed.model.state_dict()[name]), name
    if row in SCHEDULES and "fixed" not in row.flags.split():
        assert len(set(whole.rates)) > 1


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize("row", [row for row in ROWS if row.state == REFUSED], ids=lambda row: row.name)
def test_optimizer_or_schedule_is_refused_before_a_model_is_built(row, toy_data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert row.says in refusal_of(toy.build, flags_of(toy_data, row, tmp_path))
