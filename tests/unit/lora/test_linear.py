"""One adapted linear against a loop over its sentences, in every form; and what makes it fast, without a clock."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from langspec_lora.keys import KeyLayout
from langspec_lora.lora import LanguageRouting, Languages, LanguageSpecificLinear, MergedWeights, draw_a
from langspec_lora.lora import routing as routing_module
from langspec_lora.lora.functional import reference

TIME, BATCH, D_IN, D_OUT = 5, 6, 10, 14
RANKS = {"equal ranks": (3, 3, 3, 3), "other ranks": (2, 4, 1, 3)}
FORMS = ("dense", "gathered", "one language")
SLICES = {"whole": (0, 0), "slice": (6, 2)}


def make(ranks, part=(0, 0), dtype=torch.float64, bias=True) -> LanguageSpecificLinear:
    torch.manual_seed(3)
    linear = nn.Linear(D_IN, D_OUT, bias=bias).to(dtype)
    linear.requires_grad_(False)
    adapted = LanguageSpecificLinear(linear, LanguageRouting(KeyLayout.by_language(tuple(ranks))), "src", *part)
    nn.init.normal_(adapted.lora_B, std=0.3)
    return adapted


def route(linear: LanguageSpecificLinear, ids: list[int]) -> None:
    ids = torch.tensor(ids)
    linear.routing.set(Languages(ids, ids))


def rows_of(linear: LanguageSpecificLinear, ids: list[int]) -> list[slice]:
    """The rows of each sentence's language, counted by hand."""
    ranks = linear.layout.ranks
    return [slice(sum(ranks[:language]), sum(ranks[: language + 1])) for language in ids]


def loop(linear: LanguageSpecificLinear, x: Tensor, a: Tensor, b: Tensor, ids: list[int]) -> Tensor:
    """The formula, sentence by sentence."""
    return reference(x, linear.weight, linear.bias, a, b, rows_of(linear, ids), linear.slice or slice(None))


@pytest.mark.parametrize("part", SLICES.values(), ids=SLICES)
@pytest.mark.parametrize("bias", [True, False])
def test_the_reference_is_each_sentence_through_the_sum_of_both_weights(part, bias) -> None:
    linear, ids = make(RANKS["other ranks"], part, bias=bias), [2, 0, 1, 1, 3, 2]
    x = torch.randn(TIME, BATCH, D_IN, dtype=torch.float64)
    width, start = part
    reads = torch.eye(D_IN, dtype=torch.float64)[start : start + (width or D_IN)]  # picks the slice
    adds = torch.eye(D_OUT, dtype=torch.float64)[start : start + (width or D_OUT)]
    expected = []
    for sentence, rows in enumerate(rows_of(linear, ids)):
        weight = linear.weight + torch.einsum("ro,of,ri,ig->fg", linear.lora_B[rows], adds, linear.lora_A[rows], reads)
        expected.append(torch.einsum("ti,oi->to", x[:, sentence], weight) + (linear.bias if bias else 0))
    torch.testing.assert_close(loop(linear, x, linear.lora_A, linear.lora_B, ids), torch.stack(expected, dim=1))


@pytest.fixture(params=FORMS)
def ids(request, monkeypatch) -> list[int]:
    """Languages of the sentences, and the form that computes them; one id stands for all sentences."""
    monkeypatch.setattr(routing_module, "DENSE_ROWS", 0 if request.param == "gathered" else 10**6)
    return [1] if request.param == "one language" else [2, 0, 1, 1, 3, 2]


def sentences(ids: list[int]) -> list[int]:
    return ids * BATCH if len(ids) == 1 else ids


@pytest.mark.parametrize("part", SLICES.values(), ids=SLICES)
@pytest.mark.parametrize("ranks", RANKS.values(), ids=RANKS)
@pytest.mark.parametrize("transposed", [False, True], ids=["", "transposed"])
def test_every_form_gives_the_result_and_gradients_of_a_loop(ids, ranks, part, transposed) -> None:
    linear = make(ranks, part)
    linear.weight.requires_grad_(True)
    linear.bias.requires_grad_(True)
    route(linear, ids)
    x = torch.randn(BATCH, TIME, D_IN, dtype=torch.float64).transpose(0, 1)
    x = (x if transposed else x.contiguous()).requires_grad_()
    inputs = [x, linear.lora_A, linear.lora_B, linear.weight, linear.bias]
    weights = torch.randn(TIME, BATCH, D_OUT, dtype=torch.float64)
    expected = loop(linear, x, linear.lora_A, linear.lora_B, sentences(ids))
    expected_gradients = torch.autograd.grad((expected * weights).sum(), inputs)
    actual = linear(x)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(torch.autograd.grad((actual * weights).sum(), inputs), expected_gradients)


@pytest.mark.parametrize("wanted", ["input", "lora_A", "lora_B", "weight", "bias"])
def test_each_gradient_is_right_where_nothing_else_trains(ids, wanted) -> None:
    linear = make(RANKS["other ranks"]).requires_grad_(False)
    route(linear, ids)
    x = torch.randn(TIME, BATCH, D_IN, dtype=torch.float64)
    alone = x if wanted == "input" else getattr(linear, wanted)
    alone.requires_grad_()
    weights = torch.randn(TIME, BATCH, D_OUT, dtype=torch.float64)
    outputs = (linear(x), loop(linear, x, linear.lora_A, linear.lora_B, sentences(ids)))
    actual, expected = (torch.autograd.grad((output * weights).sum(), alone)[0] for output in outputs)
    torch.testing.assert_close(actual, expected)


def test_a_second_derivative_is_refused_instead_of_being_wrong(ids) -> None:
    linear = make(RANKS["other ranks"])
    route(linear, ids)
    x = torch.randn(TIME, BATCH, D_IN, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(linear(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("part", SLICES.values(), ids=SLICES)
def test_gradients_agree_with_finite_differences(ids, part) -> None:
    linear = make(RANKS["other ranks"], part)
    route(linear, ids)
    x = torch.randn(TIME, BATCH, D_IN, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.func.functional_call(linear, {"lora_A": a, "lora_B": b}, (x,))

    assert torch.autograd.gradcheck(run, (x, linear.lora_A, linear.lora_B))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forms_agree_to_the_precision_of_their_type(monkeypatch, dtype) -> None:
    linear = make(RANKS["other ranks"], dtype=dtype)
    x = torch.randn(TIME, BATCH, D_IN, dtype=dtype)
    outputs = []
    for rows, languages in ((0, [1] * BATCH), (10**6, [1] * BATCH), (0, [1])):
        monkeypatch.setattr(routing_module, "DENSE_ROWS", rows)
        linear = make(RANKS["other ranks"], dtype=dtype)
        route(linear, languages)
        outputs.append(linear(x))
    tolerance = 1e-5 if dtype is torch.float32 else 2 * torch.finfo(dtype).eps
    for other in outputs[1:]:
        torch.testing.assert_close(other, outputs[0], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("bias", [True, False])
def test_a_fresh_layer_is_the_base_layer_bit_for_bit_and_can_be_written_into(ids, bias) -> None:
    linear = make(RANKS["other ranks"], dtype=torch.float32, bias=bias)
    nn.init.zeros_(linear.lora_B)
    route(linear, ids)
    x = torch.randn(TIME, BATCH, D_IN)
    output = linear(x)
    assert torch.equal(output, nn.functional.linear(x, linear.weight, linear.bias))
    output *= 2  # as fairseq's attention does
    output.sum().backward()
    assert linear.lora_B.grad.abs().max() > 0


@pytest.mark.parametrize(("init", "bounds"), [("rank", (2**-0.5, 0.5, 1.0)), ("standard", (600**-0.5,) * 3)])
def test_a_is_drawn_uniformly_by_its_rank_as_released_or_by_its_width(init, bounds) -> None:
    torch.manual_seed(4)
    routing = LanguageRouting(KeyLayout.by_language((2, 4, 1)))
    linear = LanguageSpecificLinear(nn.Linear(1000, 1200), routing, "src", 600, 100, init)
    drawn = torch.randn_like(linear.lora_A)
    for _ in range(2):
        for rows, bound in zip((slice(0, 2), slice(2, 6), slice(6, 7)), bounds, strict=True):
            a = linear.lora_A[rows]
            assert 0.98 * bound < a.max() <= bound
            assert -bound <= a.min() < -0.98 * bound
            assert abs(a.std() - bound / 3**0.5) < 0.05 * bound
        assert not linear.lora_B.any()
        assert not torch.equal(linear.lora_A, drawn)
        drawn = linear.lora_A.detach().clone()
        nn.init.normal_(linear.lora_B)
        linear.reset_adapters(init)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_new_layer_covers_all_features_and_nothing_of_it_is_pruned(device) -> None:
    linear = LanguageSpecificLinear(
        nn.Linear(3, 4, device=device), LanguageRouting(KeyLayout.by_language((2, 5))), "src"
    )
    assert linear.slice is None
    assert (linear.lora_A.shape, linear.lora_B.shape) == ((7, 3), (7, 4))
    assert linear.state_dict()["lora_mask"].shape == (7, 4)
    assert linear.lora_mask.dtype == torch.uint8
    assert {tensor.device.type for tensor in (linear.lora_A, linear.lora_B, linear.lora_mask)} == {device}
    assert device == "meta" or torch.all(linear.lora_mask == 1)


def test_a_generator_decides_what_is_drawn() -> None:
    drawn = []
    for seed in (1, 1, 2):
        drawn.append(torch.empty(3, 5))
        draw_a(drawn[-1], "rank", torch.Generator().manual_seed(seed))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_layer_says_what_adapts_it() -> None:
    assert repr(make((2, 4), (6, 2))).endswith("bias=True, selected_by=src, rows=6, features=2:8)")
    assert repr(make((2, 4), (6,))).endswith("features=0:6)")
    assert repr(make((2, 4))).endswith("selected_by=src, rows=6, features=all)")


class Counter(TorchDispatchMode):
    """Counts matrix products and what would make the host wait for a GPU."""

    PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "linear", "addmv", "mv", "dot")
    WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2", "unique_dim")

    def __init__(self) -> None:
        super().__init__()
        self.products, self.waits, self.operations = 0, [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__.rstrip("_")
        self.operations += 1
        self.products += name in self.PRODUCTS
        if name in {wait.rstrip("_") for wait in self.WAITS}:
            self.waits.append(name)
        if name == "index" and any(index is not None and index.dtype is torch.bool for index in args[1]):
            self.waits.append("indexing by booleans")
        return func(*args, **(kwargs or {}))


def count(languages: int, rank: int, sentence_ids: list[int]) -> Counter:
    linear = make((rank,) * languages, dtype=torch.float32)
    linear.routing.translate_ids(range(languages))
    x = torch.randn(TIME, len(sentence_ids), D_IN, requires_grad=True)
    ids = torch.tensor(sentence_ids).unsqueeze(1)
    with Counter() as counter:
        linear.routing.set_batch(ids, ids)
        linear(x).sum().backward()
    return counter


@pytest.mark.parametrize("dense", [True, False])
def test_work_does_not_grow_with_the_languages_and_never_waits(monkeypatch, dense) -> None:
    monkeypatch.setattr(routing_module, "DENSE_ROWS", 10**6 if dense else 0)
    few, many = count(2, 4, [0, 1] * 32), count(200, 4, list(range(64)))
    assert few.products == many.products == 3 + 5  # W, A, B; then back through B, A and W, and the gradients of A and B
    assert few.operations == many.operations
    assert few.waits == many.waits == []


def test_the_counter_sees_a_loop() -> None:
    """That the test above can fail: the plain loop over languages takes more products, and waits."""
    linear = make((4, 4), dtype=torch.float32)
    x, ids = torch.randn(TIME, 4, D_IN), torch.tensor([0, 1, 1, 0])
    with Counter() as counter:
        output = nn.functional.linear(x, linear.weight)
        for language in range(2):
            rows = (ids == language).nonzero().view(-1)
            if len(rows) and bool(rows[0] >= 0):
                output[:, rows] += x[:, rows] @ linear.lora_A[:4].T @ linear.lora_B[:4]
    assert counter.products == 5
    assert counter.waits.count("nonzero") == 2
    assert "_local_scalar_dense" in counter.waits


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("frozen", [True, False])
def test_keeps_the_input_the_rank_sized_activation_and_no_copy_of_a_weight(ids, autocast, frozen) -> None:
    linear = make(RANKS["other ranks"], dtype=torch.float32)
    linear.weight.requires_grad_(not frozen)
    route(linear, ids)
    own = {parameter.data_ptr() for parameter in linear.parameters()}
    kept = []
    x = torch.randn(TIME, BATCH, D_IN, requires_grad=True)
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast),
    ):
        linear(x)
    activations = [tensor for tensor in kept if tensor.is_floating_point() and tensor.data_ptr() not in own]
    widest = max(linear.layout.rows, max(RANKS["other ranks"]))
    assert sum(tensor.numel() for tensor in activations) <= TIME * BATCH * (D_IN + widest)


def test_without_trained_adapters_no_input_is_kept(ids) -> None:
    linear = make(RANKS["other ranks"], dtype=torch.float32)
    linear.requires_grad_(False)
    route(linear, ids)
    kept = []
    x = torch.randn(TIME, BATCH, D_IN, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        linear(x)
    assert x.data_ptr() not in {tensor.data_ptr() for tensor in kept}


@pytest.mark.parametrize("part", SLICES.values(), ids=SLICES)
def test_computes_on_another_device_without_ever_asking_for_a_value(ids, part) -> None:
    """The device ``meta`` has no values to ask for, and refuses to meet tensors of the CPU, as a GPU does."""
    linear = make(RANKS["other ranks"], part, torch.float32).to("meta")
    linear.routing.to("meta").translate_ids([3, 2, 1, 0])
    route = torch.tensor(ids, device="meta")
    linear.routing.set_batch(route, route)
    x = torch.randn(TIME, BATCH, D_IN, device="meta", requires_grad=True)
    linear(x).sum().backward()
    for tensor in (x.grad, linear.lora_A.grad, linear.lora_B.grad):
        assert tensor.is_meta
    with MergedWeights([linear]).using(0, 1):
        assert linear(x).is_meta
    of_the_cpu = torch.randn(TIME, BATCH, D_IN)
    with pytest.raises(RuntimeError):
        linear(of_the_cpu)
