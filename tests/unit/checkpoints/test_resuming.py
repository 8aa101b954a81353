"""Whether a training can go on: the checks by themselves; see the integration tests for what trainings do."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import torch

from langspec_lora.checkpoints.resuming import check_resumption
from langspec_lora.errors import UserError
from tests.optional import needs_mapped_files

PRECISIONS = ("fp16", "bf16", "amp", "memory_efficient_fp16", "memory_efficient_bf16")
STORED = {
    **dict.fromkeys(PRECISIONS, False),
    **{"criterion": "cross_entropy", "optimizer": "adam", "lr_scheduler": "fixed", "add_lora": True},
    **{"freeze_original_parameters": None, "fp16_no_flatten_grads": False, "adam_betas": "(0.9, 0.98)"},
    **{"weight_decay": 0.1, "lr": [0.5], "adam_eps": 1e-8},
}
COMMAND = {
    **STORED,
    **{"restore_file": "checkpoint_last.pt", "finetune_from_model": None, "ddp_backend": "pytorch_ddp"},
    **{"reset_optimizer": False, "reset_lr_scheduler": False, "optimizer_overrides": "{}", "use_bmuf": False},
}
HISTORY = {"criterion_name": "CrossEntropyCriterion", "optimizer_name": "FairseqAdam"}
OPTIONS = {"lr": 0.25, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.1}
ABSENT = object()
LORA = {"encoder.layers.0.fc1.lora_A": torch.ones(1, 1)}


def resume(
    folder: Path,
    stored: dict | None = None,
    history: dict | None = None,
    adapts: bool = True,
    model: dict | None = None,
    saved: object = None,
    **flags: object,
) -> None:
    """Checks a command that finds a checkpoint in its folder."""
    state = {
        "model": LORA if model is None else model,
        "args": None if stored is None else present({**STORED, **stored}),
        "optimizer_history": [{}, {**HISTORY, "lr_scheduler_state": {"best": None}, **(history or {})}],
        "last_optimizer_state": {"param_groups": [OPTIONS]} if saved is None else saved,
    }
    torch.save(state, folder / "checkpoint_last.pt")
    check_resumption(present({**COMMAND, "save_dir": str(folder), **flags}), adapts)


def present(values: dict) -> Namespace:
    """Arguments without those that another fairseq does not know."""
    return Namespace(**{name: value for name, value in values.items() if value is not ABSENT})


def refusal(folder: Path, **given: object) -> str:
    with pytest.raises(UserError) as refused:
        resume(folder, **given)
    return str(refused.value)


def test_what_was_trained_alike_goes_on_without_a_word(tmp_path, caplog) -> None:
    resume(tmp_path, {})
    resume(tmp_path, None)
    resume(tmp_path, {}, freeze_original_parameters=True)
    assert not caplog.records


PRUNING = {
    **{"pruning": True, "global_pruning": False, "cross_language": False, "pruning_scope": None},
    **{"pruning_t1": 2, "pruning_t2": 10, "target_pruning_ratio": 0.9},
}
CHOICES = {"pruning_criterion": "magnitude", "pruning_target": "b", "pruning_unit": "entry"}


@pytest.mark.parametrize("name", ["target", "unit"])
def test_masks_of_another_kind_are_not_gone_on_with(tmp_path, name) -> None:
    other = {"target": "ab", "unit": "rank"}[name]
    words = (
        f"was trained with --pruning-{name} {{}}, as which its masks are meant, but {{}} was given; resume with {{}}"
    )
    own, changed = {**PRUNING, **CHOICES}, {**PRUNING, **CHOICES, f"pruning_{name}": other}
    default = CHOICES[f"pruning_{name}"]
    assert words.format(default, other, default) in refusal(tmp_path, stored=own, **changed)
    assert words.format(default, other, default) in refusal(tmp_path, stored=PRUNING, **changed)  # of an older version
    assert words.format(other, default, other) in refusal(tmp_path, stored=changed, **own)
    resume(tmp_path, {**own, "pruning": False}, **changed)
    resume(tmp_path, changed, **{**own, "pruning": False})


@pytest.mark.parametrize(("name", "was", "now"), [("criterion", "magnitude", "random"), ("scope", "language", "layer")])
def test_what_decides_from_the_next_epoch_on_is_said(tmp_path, caplog, name, was, now) -> None:
    resume(tmp_path, {**PRUNING, **CHOICES}, **{**PRUNING, **CHOICES, f"pruning_{name}": now})
    assert caplog.messages == [
        f"--pruning-{name} {now}: {tmp_path / 'checkpoint_last.pt'} was trained with {was}; what is pruned stays "
        f"pruned, and from the next epoch on {now} decides what else is"
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"criterion": "label_smoothed_cross_entropy"}, "--criterion cross_entropy|label_smoothed_cross_entropy"),
        ({"optimizer": "sgd"}, "--optimizer adam|sgd"),
        ({"fp16": True}, "the precision fp32|--fp16"),
        ({"bf16": True}, "the precision fp32|--bf16"),
        ({"amp": True}, "the precision fp32|--amp"),
        ({"fp16": True, "memory_efficient_fp16": True}, "the precision fp32|--fp16 --memory-efficient-fp16"),
        ({"bf16": True, "memory_efficient_bf16": True}, "the precision fp32|--bf16 --memory-efficient-bf16"),
        ({"freeze_original_parameters": False}, "--freeze-original-parameters True|False"),
        ({"add_lora": False}, "--freeze-original-parameters True|False"),
        ({"criterion": "unknown"}, "--criterion cross_entropy|unknown"),
    ],
)
def test_state_of_another_training_is_refused_with_both(tmp_path, given, words) -> None:
    was, now = words.split("|")
    message = refusal(tmp_path, stored={}, **given)
    path = tmp_path / "checkpoint_last.pt"
    assert message == (
        f"checkpoint {path} was trained with {was}, which its optimizer state depends on, but {now} was given; "
        f"resume with {was}, or start with a new state with --reset-optimizer"
    )
    resume(tmp_path, {}, reset_optimizer=True, **given)  # as it says
    resume(tmp_path, {}, saved=0, **given)  # with nothing of the optimizer in it
    beside = refusal(tmp_path, stored={}, finetune_from_model="base.pt", **given)
    assert beside == f"{message} instead of --finetune-from-model"


@pytest.mark.parametrize(
    ("flags", "wrapper"),
    [
        ({"fp16": True}, "FP16Optimizer"),
        ({"bf16": True}, "FP16Optimizer"),
        ({"amp": True}, "AMPOptimizer"),
        ({"fp16": True, "memory_efficient_fp16": True}, "MemoryEfficientFP16Optimizer"),
        ({"bf16": True, "memory_efficient_bf16": True}, "MemoryEfficientFP16Optimizer"),
        ({"memory_efficient_fp16": True}, "FairseqAdam"),
    ],
)
def test_precision_is_told_by_the_class_that_fairseq_saves(tmp_path, flags, wrapper) -> None:
    resume(tmp_path, dict(flags), {"optimizer_name": wrapper}, **flags)
    message = refusal(tmp_path, stored=flags, history={"optimizer_name": "other"}, **flags)
    assert "was trained with the precision" in message
    resume(tmp_path, dict(flags), {"optimizer_name": None}, **flags)
    for distributed in ({"use_bmuf": True}, {"ddp_backend": "fully_sharded"}):  # which wrap it again
        resume(tmp_path, dict(flags), {"optimizer_name": "other"}, **flags, **distributed)


def test_flat_state_in_half_precision_stays_flat(tmp_path) -> None:
    half = {"history": {"optimizer_name": "FP16Optimizer"}, "fp16": True}
    stored = {"fp16": True}
    resume(tmp_path, stored, **half)
    message = refusal(tmp_path, stored=stored, **half, fp16_no_flatten_grads=True)
    assert "was trained with --fp16-no-flatten-grads False, which its optimizer state depends on, but True" in message
    flat = {**stored, "fp16_no_flatten_grads": True}
    assert "--fp16-no-flatten-grads True, which its" in refusal(tmp_path, stored=flat, **half)
    resume(tmp_path, flat, **half, fp16_no_flatten_grads=True)
    lacking = {**stored, "fp16_no_flatten_grads": ABSENT}
    resume(tmp_path, lacking, **half)
    resume(tmp_path, stored, **half, fp16_no_flatten_grads=ABSENT)
    assert "grads False, which its" in refusal(tmp_path, stored=lacking, **half, fp16_no_flatten_grads=True)
    assert "but False was" in refusal(tmp_path, stored=flat, **half, fp16_no_flatten_grads=ABSENT)
    resume(tmp_path, {}, fp16_no_flatten_grads=True)  # which says nothing in single precision


def test_what_the_checkpoint_does_not_say_is_not_compared(tmp_path) -> None:
    resume(tmp_path, None, {"criterion_name": None, "optimizer_name": None})
    resume(tmp_path, None, freeze_original_parameters=False)
    message = refusal(tmp_path, stored=None, history={"criterion_name": "Their"})
    assert "was trained with --criterion Their, which" in message


def test_schedule_that_seeks_the_best_loss_needs_one(tmp_path) -> None:
    none = {"history": {"lr_scheduler_state": {}}}
    for name in ("fixed", "manual", "pass_through"):
        resume(tmp_path, {}, **none, lr_scheduler=name)
    for name in ("inverse_sqrt", "reduce_lr_on_plateau"):
        for history in ({"lr_scheduler_state": {}}, {"lr_scheduler_state": None}):
            message = refusal(tmp_path, stored={}, history=history, lr_scheduler=name)
            assert message == (
                f"checkpoint {tmp_path / 'checkpoint_last.pt'} was trained with --lr-scheduler fixed, whose state "
                f"--lr-scheduler {name} cannot use; resume with the former, or start with a new state with "
                "--reset-lr-scheduler"
            )
            resume(tmp_path, {}, history, lr_scheduler=name, reset_lr_scheduler=True)
        resume(tmp_path, {}, {"lr_scheduler_state": {"best": 2.5}}, lr_scheduler=name)
    resume(tmp_path, {}, lr_scheduler="inverse_sqrt")  # a best that was not measured
    assert "reduce_lr_on_plateau cannot use" in refusal(tmp_path, stored={}, lr_scheduler="reduce_lr_on_plateau")
    assert "trained with --lr-scheduler another, whose" in refusal(tmp_path, stored=None, **none, lr_scheduler="cosine")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"weight_decay": 0.2}, ("weight-decay", "0.2", "0.1", "weight_decay")),
        ({"adam_eps": 1e-6}, ("adam-eps", "1e-06", "1e-08", "eps")),
        ({"adam_betas": "(0.8, 0.98)"}, ("adam-betas", "(0.8, 0.98)", "(0.9, 0.98)", "betas")),
        ({"adam_betas": "[0.9, 0.98]"}, None),
        ({"weight_decay": "0.1"}, None),
        ({"weight_decay": None}, None),
        ({"lr": [0.9]}, None),
        ({"weight_decay": 0.2, "optimizer_overrides": "{'weight_decay': 0.2}"}, None),
        ({"weight_decay": 0.2, "optimizer_overrides": "{'eps': 1}"}, ("weight-decay", "0.2", "0.1", "weight_decay")),
    ],
)
def test_flag_that_the_state_overrules_is_warned_of(tmp_path, caplog, flags, named) -> None:
    resume(tmp_path, {}, **flags)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    if named is None:
        assert said == []
        return
    flag, now, was, key = named
    path = tmp_path / "checkpoint_last.pt"
    assert said == [
        f"--{flag} {now} has no effect: {path} continues with {was}; to change it give "
        f"--optimizer-overrides \"{{'{key}': {now}}}\""
    ]


def test_options_that_the_state_lacks_are_not_warned_of(tmp_path, caplog) -> None:
    for saved in ({"param_groups": []}, {"param_groups": [3]}, {}):
        resume(tmp_path, {}, saved=saved, weight_decay=0.2)
    assert not caplog.records


def test_base_is_not_gone_on_with(tmp_path) -> None:
    weights = {"encoder.layers.0.fc1.weight": torch.ones(1, 1)}
    path = tmp_path / "checkpoint_last.pt"
    message = refusal(tmp_path, stored={}, model=weights)
    assert message.startswith(
        f"checkpoint {path} holds no adapters: it is a base model, and resuming would continue with"
    )
    assert message.endswith("to train adapters on it, give another --save-dir, and the base as --finetune-from-model")
    resume(tmp_path, {}, model=weights, adapts=False)
    resume(tmp_path, {}, model=weights, reset_optimizer=True)
    for name in ("other.pt", "checkpoint_last_of_all.pt"):
        path.rename(tmp_path / name)
        named = {"restore_file": str(tmp_path / name), "save_dir": str(tmp_path)}
        with pytest.raises(UserError, match=f"give it as --finetune-from-model {tmp_path / name}$"):
            check_resumption(Namespace(**{**COMMAND, **named}), True)
        (tmp_path / name).rename(path)


def test_training_that_starts_afresh_has_nothing_to_take_up(tmp_path) -> None:
    check_resumption(Namespace(**{**COMMAND, "save_dir": str(tmp_path)}), True)
    check_resumption(Namespace(**{**COMMAND, "save_dir": str(tmp_path), "finetune_from_model": "nowhere.pt"}), True)


MATRICES = {"encoder.layers.0.fc1.lora_A": torch.ones(3, 4), "encoder.layers.0.fc1.lora_B": torch.ones(3, 5)}
SHAPES = ((3, 4), (3, 5))


def moments(*shapes: tuple[int, ...], change=lambda state: None) -> dict:
    """The state of Adam for parameters of these shapes."""
    state = {
        number: {"step": 2, "exp_avg": torch.ones(shape), "exp_avg_sq": torch.ones(shape)}
        for number, shape in enumerate(shapes)
    }
    change(state)
    return {"state": state, "param_groups": [OPTIONS]}


def fill(number: int, name: str, value: float):
    def change(state: dict) -> None:
        state[number][name].view(-1)[1] = value

    return change


def rested(state: dict) -> None:
    """As LanguageAdam keeps it: by side and language."""
    for values in state.values():
        values["rested"] = torch.ones(2, 5)


def rows_and_columns(state: dict) -> None:
    """As Adafactor keeps them."""
    for number, shape in enumerate(SHAPES):
        state[number] = {
            "step": 2, "RMS": 1.5, "exp_avg_sq_row": torch.ones(shape[0]), "exp_avg_sq_col": torch.ones(shape[1]),
        }  # fmt: skip


@pytest.mark.parametrize(
    "saved",
    [
        moments(*SHAPES),
        moments((27,)),
        moments(),
        moments(*SHAPES, change=rows_and_columns),
        moments(*SHAPES[:1]),
        moments(*SHAPES, change=rested),
        moments((27,), change=rested),
    ],
    ids=["each", "flat", "none", "adafactor", "not yet all", "with languages at rest", "flat with languages at rest"],
)
def test_optimizer_state_that_fits_the_adapters_is_taken(tmp_path, saved) -> None:
    resume(tmp_path, {}, model=MATRICES, saved=saved)


@needs_mapped_files
@pytest.mark.parametrize(
    ("saved", "words"),
    [
        (moments((3, 4), (5, 3)), "exp_avg of shape (5, 3) for parameter 1"),
        (moments((3, 5), (3, 4)), "exp_avg of shape (3, 5) for parameter 0"),
        (moments(*SHAPES, (3, 4)), "exp_avg of shape (3, 4) for parameter 2"),
        (moments((26,)), "exp_avg of shape (26,) for parameter 0"),
        (moments(*SHAPES, change=fill(1, "exp_avg", float("nan"))), "infinite numbers or NaN in exp_avg of"),
        (moments(*SHAPES, change=fill(0, "exp_avg_sq", float("inf"))), "infinite numbers or NaN in exp_avg_sq of"),
        (moments(*SHAPES, change=fill(0, "exp_avg_sq", -1e-30)), "negative numbers in exp_avg_sq of"),
        (moments((27,), change=fill(0, "exp_avg", float("-inf"))), "infinite numbers or NaN in exp_avg of"),
    ],
)
def test_optimizer_state_that_no_training_leaves_is_named(tmp_path, saved, words) -> None:
    """torch would load it: the next update would fail in its middle, or fill the adapters with NaN."""
    message = refusal(tmp_path, stored={}, model=MATRICES, saved=saved)
    assert message.startswith(f"checkpoint {tmp_path / 'checkpoint_last.pt'} has {words}")
    assert "start with a new state with --reset-optimizer" in message


@needs_mapped_files
def test_optimizer_state_of_a_whole_model_is_compared_by_its_numbers_alone(tmp_path) -> None:
    whole = {"freeze_original_parameters": False}
    resume(tmp_path, whole, model=MATRICES, saved=moments((7, 7), (2,)), **whole)
    spoilt = moments((7, 7), change=fill(0, "exp_avg", float("nan")))
    assert "NaN in exp_avg" in refusal(tmp_path, stored=whole, model=MATRICES, saved=spoilt, **whole)
