"""Merged weights: equal to a plain sum, exact to leave, never stale; and decoding with them."""

from __future__ import annotations

import pytest
import torch
from fairseq.data import ConcatDataset
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from langspec_lora.data.language_ids import one_language
from langspec_lora.keys import KeyLayout
from langspec_lora.lora import LanguageRouting, LanguageSpecificLinear, MergedWeights, merged_weight
from tests import toy
from tests.unit.models.test_generation import MIXED, assert_same, one_by_one, sharpen, translate

RANKS = (2, 4, 1)


def make(part=(0, 0), dtype=torch.float32, side="tgt") -> LanguageSpecificLinear:
    torch.manual_seed(3)
    linear = LanguageSpecificLinear(
        nn.Linear(10, 14).to(dtype), LanguageRouting(KeyLayout.by_language(RANKS)), side, *part
    ).requires_grad_(False)
    nn.init.normal_(linear.lora_B)
    return linear


@pytest.mark.parametrize("part", [(0, 0), (6, 2)], ids=["whole", "slice"])
@pytest.mark.parametrize("language", range(len(RANKS)))
def test_merged_weight_is_the_base_plus_the_sum_over_the_adapter_s_rows(part, language) -> None:
    linear = make(part, torch.float64)
    expected = linear.weight.clone()
    inside = range(10) if not part[0] else range(part[1], part[1] + part[0])
    outside = range(14) if not part[0] else inside
    for row in range(sum(RANKS[:language]), sum(RANKS[: language + 1])):
        for i, feature_out in enumerate(outside):
            for j, feature_in in enumerate(inside):
                expected[feature_out, feature_in] += linear.lora_B[row, i] * linear.lora_A[row, j]
    torch.testing.assert_close(merged_weight(linear, language, language), expected)


def test_half_precision_weights_are_rounded_once() -> None:
    linear = make(dtype=torch.bfloat16)
    exact = linear.weight.double() + linear.lora_B[2:6].double().T @ linear.lora_A[2:6].double()
    assert torch.equal(merged_weight(linear, 1, 1), exact.float().to(torch.bfloat16))


class Products(TorchDispatchMode):
    """Notes the types that matrix products compute in."""

    def __init__(self) -> None:
        super().__init__()
        self.types = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__.rstrip("_") in ("mm", "addmm"):
            self.types |= {tensor.dtype for tensor in args}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("part", [(0, 0), (6, 2)], ids=["whole", "slice"])
@pytest.mark.parametrize(
    ("kind", "computed"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
    ids=str,
)
def test_merging_computes_in_single_precision_or_better(part, kind, computed) -> None:
    """Some kernels of half precision sum in single precision by themselves; those of older GPUs do not."""
    linear = make(part).to(kind)
    with Products() as products:
        weight = merged_weight(linear, 1, 1)
    assert products.types == {computed}
    assert weight.dtype == kind


@pytest.mark.parametrize("part", [(0, 0), (6, 2)], ids=["whole", "slice"])
def test_base_comes_back_bit_for_bit_even_after_an_error_inside(part) -> None:
    linear = make(part)
    before = {name: value.clone() for name, value in linear.state_dict().items()}
    x = torch.randn(3, 2, 10)
    merged = MergedWeights([linear])
    linear.routing.set_batch(torch.tensor([0, 2]), torch.tensor([0, 2]))
    plain = linear(x)
    with merged.using(2, 1):
        inside = linear(x)
        state = linear.state_dict()
    with pytest.raises(ZeroDivisionError), merged.using(2, 1):
        _ = 1 / 0
    assert not torch.allclose(inside, plain)
    assert torch.equal(linear(x), plain)
    for name, value in before.items():
        assert torch.equal(state[name], value)
        assert torch.equal(linear.state_dict()[name], value)


def test_source_selected_layers_take_the_source_language() -> None:
    for side in ("src", "tgt"):
        linear = make(side=side)
        merged = MergedWeights([linear])
        for source, target in ((0, 1), (2, 1), (2, 0)):
            with merged.using(source, target):
                language = source if side == "src" else target
                assert torch.equal(linear.merged, merged_weight(linear, language, language))


def test_merged_weights_are_no_part_of_what_trains() -> None:
    linear = make().requires_grad_(True)
    with MergedWeights([linear]).using(0, 1):
        assert not linear.merged.requires_grad


def test_weights_are_made_once_for_a_direction_and_anew_after_any_change() -> None:
    linear = make()
    merged = MergedWeights([linear])

    def weight(target: int = 1) -> torch.Tensor:
        with merged.using(0, target):
            return linear.merged

    first = weight()
    assert weight() is first
    assert not torch.equal(weight(2), first)
    assert torch.equal(weight(), first)
    changes = (
        lambda: linear.lora_B.mul_(2),
        lambda: linear.lora_A.add_(1),
        lambda: linear.weight.zero_(),
        lambda: linear.load_state_dict(make().state_dict()),
        lambda: setattr(linear.lora_B, "data", linear.lora_B.data * 3),  # as moving a model does
        lambda: linear.double(),
    )
    for change in changes:
        before = weight()
        with torch.no_grad():
            change()
        assert weight() is not before
        assert torch.equal(weight(), merged_weight(linear, 1, 1))
    merged.forget()
    assert linear.merged is None


def one_direction(task, source: str, target: str) -> dict:
    dataset = task.data_manager.load_a_dataset(
        *("test", task.args.data, source, task.source_dictionary, target, task.target_dictionary, False),
        data_category="main",
        langtok_spec=task.args.langtoks["main"],
    )
    dataset = ConcatDataset([dataset])
    return dataset.collater([dataset[index] for index in range(len(dataset))])


@pytest.mark.parametrize("norm", [(), ("--arch", "langspec_transformer_lora")], ids=["pre-norm", "post-norm"])
@pytest.mark.parametrize("merges", [True, False], ids=["merged", "one language per batch"])
def test_one_direction_translates_as_stock_beam_search_on_merged_weights(toy_data, norm, merges) -> None:
    flags = toy.plugin_flags(toy_data, *MIXED, *norm)
    task, model = toy.build(flags)
    sharpen(model)
    reference = toy.PerLanguageReference(task, model, flags)
    task.one_direction = merges
    for source, target in (("en", "wo"), ("sd", "nl"), ("wo", "en")):
        batch = one_direction(task, source, target)
        hypotheses = translate(task, [model.eval()], batch, 5)
        assert_same(hypotheses, one_by_one(task, [reference], flags, batch, 5))
        assert (next(iter(model.adapters.linears.values())).merged is not None) == merges


def test_the_task_merges_where_the_command_names_a_direction_and_training_forgets_it(toy_data) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data, "--source-lang", "en", "--target-lang", "wo"), translates=True)
    assert task.one_direction
    assert not toy.build(toy.plugin_flags(toy_data))[0].one_direction
    translate(task, [model.eval()], one_direction(task, "en", "wo"), 2)
    linear = next(iter(model.adapters.linears.values()))
    assert linear.merged is not None
    assert not linear.computes_merged
    model.train()
    assert linear.merged is None


def test_mixed_batches_are_not_merged(toy_data) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data))
    task.one_direction = True
    batch = toy.mixed_batch(task, "test")
    assert one_language(batch) == (None, None)
    translate(task, [model.eval()], batch, 2)
    assert next(iter(model.adapters.linears.values())).merged is None
