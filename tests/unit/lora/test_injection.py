"""The verbs on a model that knows nothing of fairseq: inject, remove, merge, what trains."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from langspec_lora.lora import adapted_linears, adapter_parameters, inject, mark_trainable, merge, remove

RANKS = (2, 3, 1)
SIDES = {"first": "src", "inner.0": "tgt"}


class Model(nn.Module):
    """Two linears to adapt, in one of which another module looks for ``bias``, and one to leave."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 7)
        self.inner = nn.Sequential(nn.Linear(7, 6, bias=False), nn.Tanh())
        self.last = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.inner(torch.relu(self.first(x))))


@pytest.fixture
def model() -> Model:
    torch.manual_seed(3)
    return Model()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(4))  # (time, batch, features)


def train(model: nn.Module) -> None:
    """Fills all LoRA B, which start at zero."""
    torch.manual_seed(5)
    with torch.no_grad():
        for linear in adapted_linears(model):
            linear.lora_B.normal_()


def weight(plain: nn.Linear, adapted: nn.Linear, language: int) -> torch.Tensor:
    """W + B A of one language, its rows counted out by hand."""
    rows = slice(sum(RANKS[:language]), sum(RANKS[: language + 1]))
    return plain.weight + adapted.lora_B[rows].t() @ adapted.lora_A[rows]


def test_fresh_adapters_add_nothing(model, x) -> None:
    expected = model(x)
    routing = inject(model, SIDES, RANKS)
    routing.set_batch(torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([2, 2, 1, 1, 0, 0]))
    assert torch.equal(model(x), expected)


def test_every_sentence_gets_the_adapters_of_its_languages(model, x) -> None:
    plain = deepcopy(model)
    routing = inject(model, SIDES, RANKS)
    train(model)
    sources, targets = [0, 1, 2, 0, 1, 2], [2, 2, 1, 1, 0, 0]
    routing.set_batch(torch.tensor(sources), torch.tensor(targets))
    output = model(x)
    for sentence, (source, target) in enumerate(zip(sources, targets, strict=True)):
        hidden = x[:, sentence] @ weight(plain.first, model.first, source).t() + plain.first.bias
        hidden = torch.tanh(torch.relu(hidden) @ weight(plain.inner[0], model.inner[0], target).t())
        torch.testing.assert_close(output[:, sentence], plain.last(hidden))


def test_removal_gives_back_the_very_modules_and_every_bit(model, x) -> None:
    expected, modules = model(x), (model.first, model.inner[0])
    state = {name: value.clone() for name, value in model.state_dict().items()}
    routing = inject(model, SIDES, RANKS)
    mark_trainable(model)
    train(model)
    routing.set_batch(torch.tensor([1]), torch.tensor([2]))
    assert not torch.equal(model(x), expected)
    remove(model)
    assert (model.first, model.inner[0]) == modules
    assert torch.equal(model(x), expected)
    assert {name: value.tolist() for name, value in model.state_dict().items()} == {
        name: value.tolist() for name, value in state.items()
    }
    assert not list(adapted_linears(model))


def test_weights_that_were_replaced_meanwhile_stay_after_removal(model, x) -> None:
    inject(model, SIDES, RANKS)
    new = {name: torch.randn_like(value) for name, value in model.state_dict().items() if "lora_" not in name}
    for name, value in new.items():
        path, _, parameter = name.rpartition(".")
        setattr(model.get_submodule(path), parameter, nn.Parameter(value))
    remove(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, new[name]), name


def test_a_merged_model_computes_its_direction_with_plain_modules(model, x) -> None:
    plain = deepcopy(model)
    inject(model, SIDES, RANKS)
    train(model)
    first, second = weight(plain.first, model.first, 2), weight(plain.inner[0], model.inner[0], 1)
    merge(model, source=2, target=1)
    assert {type(module) for module in model.modules()} == {type(module) for module in plain.modules()}
    torch.testing.assert_close(model.first.weight, first)
    torch.testing.assert_close(model.inner[0].weight, second)
    assert torch.equal(model.first.bias, plain.first.bias)
    assert torch.equal(model.last.weight, plain.last.weight)
    assert model.inner[0].bias is None


def test_only_the_adapters_train(model, x) -> None:
    routing = inject(model, SIDES, RANKS)
    mark_trainable(model)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == {f"{path}.lora_{part}" for path in SIDES for part in "AB"}
    assert {id(parameter) for parameter in adapter_parameters(model)} == {
        id(parameter) for name, parameter in model.named_parameters() if name in trainable
    }
    train(model)
    routing.set_batch(torch.tensor([0]), torch.tensor([1]))
    model(x).sum().backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == trainable


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        ({"first": "source"}, "side 'source' of first: expected src or tgt"),
        ({"first": "src", "third": "src"}, "third is not a plain linear of the model"),
        ({"inner": "src"}, "inner is not a plain linear"),
        ({"inner.1": "src"}, r"inner\.1 is not a plain linear"),
    ],
)
def test_wrong_sites_are_named_and_leave_the_model_as_it_was(model, sides, words) -> None:
    before = list(model.modules())
    with pytest.raises(ValueError, match=words):
        inject(model, sides, RANKS)
    assert list(model.modules()) == before


def test_a_linear_is_not_adapted_twice(model) -> None:
    inject(model, {"first": "src"}, RANKS)
    with pytest.raises(ValueError, match="first is not a plain linear"):
        inject(model, SIDES, RANKS)


def test_a_slice_of_features_can_be_adapted(model, x) -> None:
    plain = deepcopy(model)
    routing = inject(model, {"first": "src"}, RANKS, dim=3, start=2)
    train(model)
    routing.set_batch(torch.tensor([1]), torch.tensor([0]))
    whole = torch.zeros(7, 5)
    whole[2:5, 2:5] = model.first.lora_B[2:5].t() @ model.first.lora_A[2:5]  # rows of language 1
    torch.testing.assert_close(model.first(x), plain.first(x) + x @ whole.t())


def test_an_unknown_way_to_draw_a_is_refused(model) -> None:
    with pytest.raises(ValueError, match="init 'kaiming': expected rank or standard"):
        inject(model, SIDES, RANKS, init="kaiming")


@pytest.mark.parametrize("ids", [(-1, 0), (0, 3)])
def test_languages_that_do_not_exist_are_not_merged(model, ids) -> None:
    inject(model, SIDES, RANKS)
    with pytest.raises(ValueError, match="expected ids from 0 to 2"):
        merge(model, *ids)


class Tied(Model):
    """A model that has its last linear a second time in the same module, and once in another."""

    def __init__(self) -> None:
        super().__init__()
        self.again = self.last
        self.inner.append(nn.Sequential(self.last))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.inner[:2](torch.relu(self.first(x)))
        return self.last(features) + self.again(features) + self.inner[2](features)


@pytest.mark.parametrize("sides", [{"again": "tgt"}, {"inner.2.0": "tgt", "last": "tgt"}])
def test_a_linear_with_several_paths_has_one_adapter_under_all_of_them(x, sides) -> None:
    torch.manual_seed(3)
    model = Tied()
    plain = model.last
    features = model.inner[:2](torch.relu(model.first(x)))
    routing = inject(model, sides, RANKS)
    assert model.last is model.again is model.inner[2][0] is not plain
    assert len(list(adapted_linears(model))) == 1
    train(model)
    routing.set_batch(torch.zeros(6, dtype=torch.long), torch.ones(6, dtype=torch.long))
    expected = 3 * nn.functional.linear(features, weight(plain, model.last, 1), plain.bias)
    torch.testing.assert_close(model(x), expected)
    merged = deepcopy(model)
    merge(merged, 0, 1)
    assert type(merged.last) is nn.Linear
    assert merged.last is merged.again is merged.inner[2][0]
    torch.testing.assert_close(merged(x), expected)
    remove(model)
    assert model.last is model.again is model.inner[2][0] is plain


def test_a_linear_cannot_be_given_both_sides() -> None:
    model = Tied()
    with pytest.raises(ValueError, match="side src of again: another path of the same linear has side tgt"):
        inject(model, {"last": "tgt", "again": "src"}, RANKS)
    assert not list(adapted_linears(model))
