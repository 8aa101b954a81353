"""Absent languages rest: the packed optimizer against stock fairseq's Adam on a parameter for each language."""

from __future__ import annotations

import copy
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fairseq import optim
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed import utils as distributed_utils
from fairseq.optim.adam import Adam
from fairseq.optim.fp16_optimizer import FP16Optimizer, MemoryEfficientFP16Optimizer
from fairseq.optim.fused_adam import FusedAdamV1
from fairseq.trainer import Trainer
from torch import nn

from langspec_lora.keys import KeyLayout
from langspec_lora.lora import LanguageAdam, LanguageRouting, Packed, language_adam
from langspec_lora.tasks.present_languages import PresentLanguages
from tests import toy

RANKS = (2, 1, 3)
SIDES = {"a": "src", "b": "tgt", "c": "src"}
WIDTHS = {"a": 4, "b": 5, "c": 3}
SETTINGS = {"lr": 0.05, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.02}
SPEAKERS = [
    ({0, 1, 2}, {0, 1, 2}),
    ({0}, {1, 2}),
    ({0, 2}, {1}),
    ({2}, {0}),
    ({0, 1, 2}, {0, 1, 2}),
    ({1}, {2}),
    ({0, 1}, {0, 1, 2}),
]
"""For each update the languages of its sources and of its targets."""
LAYOUT = KeyLayout.by_language(RANKS)
STOCK = ("--task", "translation_multi_simple_epoch", "--arch", "transformer")


def packed_values() -> dict[str, nn.Parameter]:
    torch.manual_seed(5)
    return {name: nn.Parameter(torch.randn(sum(RANKS), width)) for name, width in WIDTHS.items()}


def gradients(update: int) -> dict[str, torch.Tensor]:
    """Gradients of all rows; those of absent languages are zero."""
    torch.manual_seed(100 + update)
    found = {}
    for name, side in SIDES.items():
        found[name] = torch.randn(sum(RANKS), WIDTHS[name])
        for language in range(len(RANKS)):
            if language not in SPEAKERS[update][side == "tgt"]:
                found[name][LAYOUT.packed["src"].slice(language)] = 0
    return found


def by_language() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights and second moments after all updates, by stock fairseq's Adam on one parameter for each language."""
    parts = {
        name: [
            nn.Parameter(value.detach()[LAYOUT.packed["src"].slice(language)].clone()) for language in range(len(RANKS))
        ]
        for name, value in packed_values().items()
    }
    optimizer = Adam([part for several in parts.values() for part in several], **SETTINGS)
    for update in range(len(SPEAKERS)):
        found = gradients(update)
        for name, several in parts.items():
            for language, part in enumerate(several):
                present = language in SPEAKERS[update][SIDES[name] == "tgt"]
                part.grad = found[name][LAYOUT.packed["src"].slice(language)].clone() if present else None
        optimizer.step()
    weights = {name: torch.cat(list(several)).detach() for name, several in parts.items()}
    squares = {
        name: torch.cat([optimizer.state[part]["exp_avg_sq"] for part in several]) for name, several in parts.items()
    }
    return weights, squares


def presence(update: int) -> dict[str, torch.Tensor]:
    present = {side: torch.zeros(len(RANKS), dtype=torch.bool) for side in ("src", "tgt")}
    for side in (0, 1):
        present[("src", "tgt")[side]][sorted(SPEAKERS[update][side])] = True
    return present


def run(parameters: dict[str, nn.Parameter], optimizer: LanguageAdam, updates: range) -> None:
    for update in updates:
        for name, gradient in gradients(update).items():
            parameters[name].grad = gradient
        optimizer.present = presence(update)
        optimizer.step()


def located(parameters: dict[str, nn.Parameter]) -> dict[torch.Tensor, list[Packed]]:
    return {value: [Packed(0, tuple(value.shape), SIDES[name])] for name, value in parameters.items()}


def converted(parameters: dict[str, nn.Parameter]) -> LanguageAdam:
    return LanguageAdam.convert(Adam(list(parameters.values()), **SETTINGS), located(parameters), LAYOUT)


def test_packed_rows_are_stepped_as_parameters_of_single_languages_are() -> None:
    weights, squares = by_language()
    parameters = packed_values()
    optimizer = converted(parameters)
    run(parameters, optimizer, range(len(SPEAKERS)))
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter.data, weights[name], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(optimizer.state[parameter]["exp_avg_sq"], squares[name], rtol=1e-5, atol=1e-7)


def test_rows_at_rest_can_be_left_out_and_no_bit_changes(monkeypatch) -> None:
    states = []
    for spans in (language_adam._spans, lambda rows: None):  # as on a CPU, and as on a GPU
        monkeypatch.setattr(language_adam, "_spans", spans)
        parameters = packed_values()
        optimizer = converted(parameters)
        run(parameters, optimizer, range(len(SPEAKERS)))
        states.append([(value, optimizer.state[value]) for value in parameters.values()])
    for (own, moments), (other, others) in zip(*states, strict=True):
        assert torch.equal(own, other)
        assert all(torch.equal(moments[key], others[key]) for key in ("exp_avg", "exp_avg_sq"))


@pytest.mark.parametrize("chosen", ["", "1", "0", "1111", "0110", "10011101", "0000"])
def test_spans_are_the_rows_that_are_chosen(chosen) -> None:
    rows = torch.tensor([digit == "1" for digit in chosen], dtype=torch.bool)
    spans = language_adam._spans(rows)
    assert [row for span in spans for row in range(span.start, span.stop)] == rows.nonzero().view(-1).tolist()
    assert len(spans) == len([run for run in chosen.split("0") if run])


def test_absent_languages_keep_weights_and_moments_bit_for_bit() -> None:
    parameters = packed_values()
    optimizer = converted(parameters)
    run(parameters, optimizer, range(1))
    before = {name: value.detach().clone() for name, value in parameters.items()}
    moments = {name: copy.deepcopy(optimizer.state[value]) for name, value in parameters.items()}
    run(parameters, optimizer, range(1, 2))
    for name, side in SIDES.items():
        for language in range(len(RANKS)):
            rows = LAYOUT.packed["src"].slice(language)
            rests = language not in SPEAKERS[1][side == "tgt"]
            assert torch.equal(before[name][rows], parameters[name][rows]) == rests
            for key in ("exp_avg", "exp_avg_sq"):
                assert torch.equal(moments[name][key][rows], optimizer.state[parameters[name]][key][rows]) == rests


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_while_all_languages_are_there_every_bit_is_the_stock_optimizer_s(dtype) -> None:
    stock, ours = (
        {name: nn.Parameter(value.data.to(dtype)) for name, value in packed_values().items()} for _ in range(2)
    )
    optimizers = Adam(list(stock.values()), **SETTINGS), converted(ours)
    for _ in range(3):
        for name, gradient in gradients(0).items():
            stock[name].grad, ours[name].grad = gradient.to(dtype), gradient.to(dtype).clone()
        for optimizer in optimizers:
            optimizer.step()
    for name in stock:
        assert torch.equal(stock[name], ours[name])


@pytest.mark.parametrize("stop", range(1, len(SPEAKERS)))
def test_a_state_that_was_saved_and_loaded_goes_on_bit_for_bit(stop, tmp_path) -> None:
    whole, first, second = packed_values(), packed_values(), packed_values()
    run(whole, converted(whole), range(len(SPEAKERS)))
    optimizer = converted(first)
    run(first, optimizer, range(stop))
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    for name, value in first.items():
        second[name].data.copy_(value.data)
    resumed = Adam(list(second.values()), **SETTINGS)  # fairseq loads a state before the first step
    resumed.load_state_dict(torch.load(tmp_path / "state.pt"))
    run(second, LanguageAdam.convert(resumed, located(second), LAYOUT), range(stop, len(SPEAKERS)))
    for name in whole:
        assert torch.equal(whole[name], second[name])


def test_steps_of_the_stock_optimizer_before_count_for_all_languages() -> None:
    parts, packed = packed_values(), packed_values()
    single = {
        name: [nn.Parameter(v.detach()[LAYOUT.packed["src"].slice(i)].clone()) for i in range(len(RANKS))]
        for name, v in parts.items()
    }
    reference = Adam([part for several in single.values() for part in several], **SETTINGS)
    optimizer = Adam(list(packed.values()), **SETTINGS)
    for update, rests in enumerate([False, False, True, True, True, True, True]):
        found = gradients(update)
        for name, several in single.items():
            packed[name].grad = found[name]
            for language, part in enumerate(several):
                present = not rests or language in SPEAKERS[update][SIDES[name] == "tgt"]
                part.grad = found[name][LAYOUT.packed["src"].slice(language)].clone() if present else None
        reference.step()
        if rests:
            LanguageAdam.convert(optimizer, located(packed), LAYOUT).present = presence(update)
        else:
            optimizer.__class__ = Adam
        optimizer.step()
    for name, several in single.items():
        torch.testing.assert_close(packed[name].data, torch.cat(list(several)).detach(), rtol=1e-5, atol=1e-6)


def test_a_step_of_the_stock_optimizer_in_between_counts_for_all_languages() -> None:
    parameters = packed_values()
    optimizer = converted(parameters)
    run(parameters, optimizer, range(4))
    optimizer.__class__ = Adam
    optimizer.step()
    run(parameters, LanguageAdam.convert(optimizer, located(parameters), LAYOUT), range(4, 6))
    state = optimizer.state[parameters["a"]]
    steps = [
        [sum(language in speakers[side] for speakers in SPEAKERS[:6]) + 1 for language in range(3)] for side in (0, 1)
    ]
    assert (state["step"] - state["rested"]).view(2, -1).tolist() == steps


def test_apex_s_fused_adam_hands_its_step_count_over() -> None:
    class Fused(torch.optim.Optimizer):  # as fairseq's FusedAdamV2 on apex: one count for a group of parameters
        def __init__(self, parameters):
            super().__init__(parameters, {**SETTINGS, "bias_correction": True})

    stock, ours = packed_values(), packed_values()
    before, after = Adam(list(stock.values()), **SETTINGS), Fused(list(ours.values()))
    run(stock, LanguageAdam.convert(before, located(stock), LAYOUT), range(2))
    for name, value in ours.items():
        value.data.copy_(stock[name].data)
        state = before.state[stock[name]]
        after.state[value] = {key: state[key].clone() for key in ("exp_avg", "exp_avg_sq")}
    after.state[ours["a"]]["rested"] = before.state[stock["a"]]["rested"].clone()
    after.param_groups[0]["step"] = 2
    LanguageAdam.convert(after, located(ours), LAYOUT)
    run(stock, before, range(2, len(SPEAKERS)))
    run(ours, after, range(2, len(SPEAKERS)))
    for name in stock:
        assert torch.equal(stock[name], ours[name])


@pytest.mark.parametrize("kind", ["flat", "not flat", "memory efficient"])
def test_half_precision_steps_its_copies_as_parameters_of_single_languages_are(kind, monkeypatch) -> None:
    """fairseq's own optimizers of --fp16, on a CPU: their copies are made on "the current device"."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: None)
    flags = ["--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--lr", "0.05", "--weight-decay", "0.02"]
    args = toy.parse([*toy.base_flags(Path("unused/bin"), *STOCK), *flags, "--fp16"])
    cfg = convert_namespace_to_omegaconf(args)
    cfg.common.fp16_no_flatten_grads = kind == "not flat"
    parameters = {name: nn.Parameter(value.data.half()) for name, value in packed_values().items()}
    base = [nn.Parameter(torch.randn(size).half()) for size in (3, 7, 2)]  # before, between and behind them
    everything = [base[0], parameters["a"], base[1], parameters["b"], parameters["c"], base[2]]
    build = MemoryEfficientFP16Optimizer if kind == "memory efficient" else FP16Optimizer
    optimizer = build.build_optimizer(cfg, everything)
    absent = PresentLanguages(LanguageRouting(LAYOUT), {value: SIDES[name] for name, value in parameters.items()})

    halves = {name: value.detach().float() for name, value in parameters.items()}
    single = {
        name: [nn.Parameter(value[LAYOUT.packed["src"].slice(language)].clone()) for language in range(len(RANKS))]
        for name, value in halves.items()
    }
    single["base"] = [nn.Parameter(value.detach().float()) for value in base]
    reference = Adam([part for several in single.values() for part in several], **SETTINGS)
    for update in range(len(SPEAKERS)):
        optimizer.zero_grad()
        absent.begin_batch(optimizer)
        scale = optimizer.scaler.loss_scale
        for name, gradient in gradients(update).items():
            gradient = gradient.half().float()
            parameters[name].grad = (gradient * scale).half()
            for language, part in enumerate(single[name]):
                present = language in SPEAKERS[update][SIDES[name] == "tgt"]
                part.grad = gradient[LAYOUT.packed["src"].slice(language)].clone() if present else None
        for value, part in zip(base, single["base"], strict=True):
            part.grad = torch.randn(part.shape).half().float()
            value.grad = (part.grad * scale).half()
        absent.end_batch({"directions": tuple(product(*SPEAKERS[update]))})
        absent.begin_update(optimizer)
        optimizer._needs_sync = True
        optimizer.step()
        reference.step()
        if kind == "memory efficient":  # its weights are rounded at every step
            for several in single.values():
                for part in several:
                    part.data.copy_(part.data.half())
    assert isinstance(optimizer.optimizer, LanguageAdam)
    parameters["base"] = torch.cat(base)
    for name, several in single.items():
        expected = torch.cat(list(several)).detach()
        torch.testing.assert_close(parameters[name].float(), expected, rtol=2e-3, atol=2e-3)


def test_an_optimizer_that_is_not_adam_is_named(caplog) -> None:
    parameters = packed_values()
    args = toy.parse([*toy.base_flags(Path("unused/bin"), *STOCK), "--optimizer", "sgd"])
    optimizer = optim.build_optimizer(convert_namespace_to_omegaconf(args).optimizer, list(parameters.values()))
    absent = PresentLanguages(LanguageRouting(LAYOUT), {value: SIDES[name] for name, value in parameters.items()})
    for _ in range(2):
        absent.begin_update(optimizer)
    assert caplog.text.count("SGD changes the adapters of languages that are absent") == 1


def absent_of(parameters: dict[str, nn.Parameter]) -> PresentLanguages:
    return PresentLanguages(LanguageRouting(LAYOUT), {value: SIDES[name] for name, value in parameters.items()})


def test_adam_that_does_not_hold_all_adapters_is_left_as_it_is(caplog) -> None:
    parameters = packed_values()
    part = SimpleNamespace(optimizer=Adam([parameters["a"]], **SETTINGS))
    base = nn.Parameter(torch.ones(2))
    none = SimpleNamespace(
        optimizer=Adam([base], **SETTINGS), fp32_params=[base], fp16_params=[base], has_flat_params=0
    )
    for optimizer in (part, none):
        absent_of(parameters).begin_update(optimizer)
        assert type(optimizer.optimizer) is Adam
    assert caplog.text.count("Adam changes the adapters of languages that are absent") == 2


def test_apex_s_first_fused_adam_lets_languages_rest() -> None:
    parameters = packed_values()
    inner = Adam(list(parameters.values()), **SETTINGS)
    inner.__class__ = FusedAdamV1  # which only apex can make
    absent_of(parameters).begin_update(SimpleNamespace(optimizer=inner))
    assert isinstance(inner, LanguageAdam)


@pytest.mark.parametrize("processes", [None, 1, 2])
def test_a_language_is_absent_where_it_is_in_all_processes(monkeypatch, processes) -> None:
    def size() -> int:
        assert processes  # fairseq's function asks a group of processes, which there has to be
        return processes

    def all_reduce(tensor: torch.Tensor, group: str, kind: str) -> torch.Tensor:
        assert (group, kind, processes) == ("group", "max", 2)
        tensor[5] = 1  # what another process has
        return tensor

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: processes is not None)
    monkeypatch.setattr(distributed_utils, "get_data_parallel_world_size", size)
    monkeypatch.setattr(distributed_utils, "get_data_parallel_group", lambda: "group")
    monkeypatch.setattr(distributed_utils, "all_reduce", all_reduce)
    parameters = packed_values()
    inner, absent = Adam(list(parameters.values()), **SETTINGS), absent_of(parameters)
    absent.begin_batch(SimpleNamespace(optimizer=inner))
    absent.end_batch({"directions": ((0, 1),)})
    absent.begin_update(SimpleNamespace(optimizer=inner))
    present = [side.tolist() for side in inner.present.values()]
    assert present == [[True, False, False], [False, True, processes == 2]]


def test_adam_whose_moments_are_in_half_precision_is_left_as_it_is(caplog) -> None:
    parameters = packed_values()
    inner = Adam(list(parameters.values()), **SETTINGS)
    inner.use_fp16_stats = True  # as fairseq's FusedAdamV2 with --fp16-adam-stats, whose moments are scaled
    absent = PresentLanguages(LanguageRouting(LAYOUT), {value: SIDES[name] for name, value in parameters.items()})
    absent.begin_update(SimpleNamespace(optimizer=inner))
    assert type(inner) is Adam
    assert caplog.text.count("Adam changes the adapters of languages that are absent") == 1


# The whole of it: fairseq's trainer on batches that lack languages.

TRAINING = (
    *("--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--lr", "0.01", "--weight-decay", "0.01", "--cpu"),
    *("--lr-scheduler", "fixed", "--clip-norm", "0.7"),
)


def batch_of(task, directions: list[str]) -> dict:
    """A batch of two sentences of each direction."""
    if "train" not in task.datasets:
        task.load_dataset("train")
    wanted = [tuple(task.langs.index(name) for name in direction.split("-")) for direction in directions]
    found = []
    for dataset in task.dataset("train").datasets:
        if (dataset.source_id, dataset.target_id) in wanted:
            found += [dataset[0], dataset[1]]
    assert len(found) == 2 * len(directions)
    return task.dataset("train").datasets[0].collater(found)


UPDATES = [
    [["en-fr", "fr-en"], ["wo-nl"]],
    [["en-fr"], ["en-wo"]],
    [["sd-en"], ["sd-wo", "wo-sd"]],
    [["fr-en", "wo-sd"], ["en-nl"]],
    [["nl-fr"], ["fr-nl"]],
]
"""For each update the directions of its two batches."""


def test_training_equals_a_parameter_for_each_language_stepped_by_stock_adam(toy_data) -> None:
    flags = toy.plugin_flags(toy_data, *TRAINING)
    cfg = convert_namespace_to_omegaconf(toy.parse(flags))
    task, model = toy.build(flags)
    toy.randomise_adapters(model)
    reference = toy.PerLanguageReference(task, model, flags).train(True)
    parts = [part for _, _, _, adapters in reference.sites.values() for adapter in adapters for part in adapter]
    stock = Adam(parts, lr=0.01, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01)
    trainer = Trainer(cfg, task, model, task.build_criterion(cfg.criterion))
    for update in UPDATES:
        batches = [batch_of(task, directions) for directions in update]
        trainer.train_step(batches)
        for part in parts:
            part.grad = None
        words = sum(batch["ntokens"] for batch in batches)
        for batch in batches:
            logits = reference.logits(batch)
            target = batch["target"].view(-1, 1)
            loss, _ = label_smoothed_nll_loss(
                logits.log_softmax(-1).flatten(0, 1), target, 0.2, ignore_index=task.target_dictionary.pad()
            )
            (loss / words).backward()
        norm = torch.norm(torch.stack([part.grad.norm() for part in parts if part.grad is not None]))
        for part in parts:
            if part.grad is not None:
                part.grad.mul_(min(1.0, 0.7 / (float(norm) + 1e-6)))
        stock.step()
    for name, module in model.named_modules():
        if name in reference.sites:
            for packed, index in ((module.lora_A, 0), (module.lora_B, 1)):
                expected = torch.cat([pair[index] for pair in reference.sites[name][3]]).detach()
                torch.testing.assert_close(packed.data, expected, rtol=1e-3, atol=2e-4)
    assert isinstance(trainer.optimizer.optimizer, LanguageAdam)


def test_an_overflow_or_a_dummy_batch_adds_no_language(toy_data) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data, *TRAINING))
    cfg = convert_namespace_to_omegaconf(toy.parse(toy.plugin_flags(toy_data, *TRAINING)))
    trainer = Trainer(cfg, task, model, task.build_criterion(cfg.criterion))
    trainer.train_step([batch_of(task, ["en-fr", "fr-en", "wo-nl", "nl-wo", "sd-en"])])
    # A batch whose gradient is thrown away, as fairseq does on an overflow or when memory runs out …
    task.train_step(batch_of(task, ["wo-sd"]), model, trainer.criterion, trainer.optimizer, 1)
    trainer.zero_grad()
    # … and one that only keeps this process in step with others.
    task.train_step(batch_of(task, ["nl-wo"]), model, trainer.criterion, trainer.optimizer, 1, ignore_grad=True)
    task.train_step(batch_of(task, ["en-fr"]), model, trainer.criterion, trainer.optimizer, 1)
    task.optimizer_step(trainer.optimizer, model, 1)
    present = trainer.optimizer.optimizer.present.values()
    names = [[task.langs[index] for index in side.nonzero().flatten().tolist()] for side in present]
    assert names == [["en"], ["fr"]]


def test_move_leaves_the_optimizer_as_it_is(toy_data) -> None:
    flags = toy.plugin_flags(toy_data, *TRAINING, "--absent-languages", "move")
    task, model = toy.build(flags)
    cfg = convert_namespace_to_omegaconf(toy.parse(flags))
    trainer = Trainer(cfg, task, model, task.build_criterion(cfg.criterion))
    trainer.train_step([batch_of(task, ["en-fr"])])
    assert type(trainer.optimizer.optimizer) is Adam
