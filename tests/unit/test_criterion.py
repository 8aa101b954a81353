"""The loss over a frozen vocabulary against fairseq's own criterion."""

from __future__ import annotations

import inspect
from argparse import Namespace

import pytest
import torch
from fairseq.criterions import label_smoothed_cross_entropy as stock_loss
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion as StockCriterion
from fairseq.models.transformer import TransformerModel
from torch.utils._python_dispatch import TorchDispatchMode

from langspec_lora import criterion as criterion_module
from langspec_lora.criterion import FrozenVocabularyLoss, LabelSmoothedCrossEntropyCriterion
from tests import toy


def criteria(task, smoothing=0.2, **more) -> tuple[StockCriterion, StockCriterion]:
    stock, ours = (StockCriterion(task, False, smoothing, **more) for _ in range(2))
    LabelSmoothedCrossEntropyCriterion.convert(ours)
    return stock, ours


def sample_of(task) -> dict:
    batch = toy.mixed_batch(task)
    batch["net_input"]["tgt_lang_id"] = batch["tgt_lang_id"]
    assert batch["target"].eq(task.target_dictionary.pad()).any()
    return batch


def losses(model, batch, *chosen) -> list[tuple]:
    results = []
    for one in chosen:
        model.zero_grad()
        loss, size, log = one(model, batch)
        loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results.append((loss.detach(), size, log, gradients))
    return results


@pytest.fixture(autouse=True)
def few_rows(monkeypatch) -> None:
    """Lets a chunk have a single token, as no real vocabulary makes it."""
    monkeypatch.setattr(criterion_module, "LEAST_ROWS", 1)


@pytest.fixture(params=[1, 900, 2**28], ids=["a token at a time", "some tokens", "all at once"])
def chunks(request, monkeypatch) -> None:
    """How many logits are held at once; the dictionary has 69 entries, and so a token 276 bytes."""
    monkeypatch.setitem(criterion_module.CHUNK_BYTES, "cpu", request.param)


@pytest.mark.parametrize("more", [{}, {"smoothing": 0.0}, {"ignore_prefix_size": 1}], ids=str)
def test_loss_log_and_gradients_are_those_of_fairseq(toy_data, chunks, more) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data))
    toy.randomise_adapters(model)
    stock, ours = losses(model.train(), sample_of(task), *criteria(task, **more))
    torch.testing.assert_close(ours[0], stock[0], rtol=1e-5, atol=1e-5)
    assert ours[1] == stock[1]
    assert ours[2].keys() == stock[2].keys()
    for name, value in stock[2].items():
        torch.testing.assert_close(torch.as_tensor(ours[2][name]), torch.as_tensor(value), rtol=1e-5, atol=1e-5)
    assert ours[3].keys() == stock[3].keys() != set()
    for name, gradient in stock[3].items():
        torch.testing.assert_close(ours[3][name], gradient, rtol=1e-4, atol=1e-5)


def test_gradient_agrees_with_finite_differences(chunks) -> None:
    torch.manual_seed(1)
    features = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    weight, targets = torch.randn(69, 5, dtype=torch.float64), torch.tensor([3, 1, 5, 1, 0, 68])
    loss = FrozenVocabularyLoss.apply(features, weight, targets, 0.1, 1)[0]
    (gradient,) = torch.autograd.grad(loss, features)
    for row in range(6):
        for column in range(5):
            moved = []
            for step in (1e-3, -1e-3):
                other = features.detach().clone()
                other[row, column] += step
                log_p = torch.log_softmax(other @ weight.T, 1)
                nll = -log_p[torch.arange(6), targets]
                smooth = -(log_p.sum(1) - log_p[torch.arange(6), targets]) / 68  # of the other 68 words
                moved.append(((0.9 * nll + 0.1 * smooth) * targets.ne(1)).sum())
            expected = (moved[0] - moved[1]) / 2e-3
            torch.testing.assert_close(gradient[row, column], expected, rtol=1e-4, atol=1e-4, check_dtype=False)


def test_a_second_derivative_is_refused_instead_of_being_wrong() -> None:
    features = torch.randn(3, 5, requires_grad=True)
    loss = FrozenVocabularyLoss.apply(features, torch.randn(69, 5), torch.tensor([3, 4, 5]), 0.1, 1)[0]
    (gradient,) = torch.autograd.grad(loss.square(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 6, 7])
def test_no_token_is_lost_where_the_last_chunk_is_not_full(monkeypatch, tokens) -> None:
    monkeypatch.setitem(criterion_module.CHUNK_BYTES, "cpu", 3 * 276)  # three tokens
    torch.manual_seed(1)
    features = torch.randn(tokens, 5, dtype=torch.float64, requires_grad=True)
    weight, targets = torch.randn(69, 5, dtype=torch.float64), torch.arange(tokens) + 2
    log_p = torch.log_softmax(features @ weight.T, 1)
    expected = stock_loss.label_smoothed_nll_loss(log_p, targets.unsqueeze(1), 0.1, 1)
    actual = FrozenVocabularyLoss.apply(features, weight, targets, 0.1, 1)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5, check_dtype=False)
    assert not actual[1].requires_grad
    gradients = [torch.autograd.grad(8 * loss[0], features)[0] for loss in (actual, expected)]  # as loss scaling does
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


@toy.needs_half_on_cpu
def test_half_precision_keeps_the_probabilities_that_lie_below_its_smallest_number() -> None:
    """Over 100,000 words: 2.5e-8 for each but the target, which half precision takes for 0, and 0.25 % in all."""
    torch.manual_seed(1)
    weight = 1 + 0.05 * torch.randn(100_000, 32)
    weight[:, 0] = 0
    weight[5, 0] = 1
    features = torch.zeros(1, 32)
    features[0, 0] = 17.5
    gradients = []
    for kind in (torch.float64, torch.float16):
        x = features.to(kind).requires_grad_()
        loss = FrozenVocabularyLoss.apply(x, weight.half().to(kind), torch.tensor([5]), 0.2, 1)[0]
        gradients.append(torch.autograd.grad(loss, x)[0].double())
    log_p = torch.log_softmax(features.double() @ weight.half().double().T, 1)
    assert 2e-8 < log_p[0, 0].exp() < 2.9e-8
    assert (gradients[1] - gradients[0]).norm() < 0.05 * gradients[0].norm()


def test_autocast_gives_fairseq_s_loss_to_its_own_precision(toy_data) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data))
    toy.randomise_adapters(model)
    batch = sample_of(task)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        stock, ours = losses(model.train(), batch, *criteria(task))
    torch.testing.assert_close(ours[0], stock[0], rtol=1e-3, atol=1e-3)
    for name, gradient in stock[3].items():
        assert (ours[3][name] - gradient).norm() < 0.05 * gradient.norm()


class Largest(TorchDispatchMode):
    """Notes the largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numel = max(self.numel, result.numel())
        return result


def test_never_holds_the_logits_of_the_whole_batch(toy_data, monkeypatch) -> None:
    monkeypatch.setitem(criterion_module.CHUNK_BYTES, "cpu", 900)
    task, model = toy.build(toy.plugin_flags(toy_data))
    batch = sample_of(task)
    whole = batch["target"].numel() * len(task.target_dictionary)
    sizes = []
    for one in criteria(task):
        with Largest() as largest:
            one(model, batch)[0].backward()
        sizes.append(largest.numel)
    assert sizes[0] >= whole > 2 * sizes[1]


def test_validation_computes_no_gradient(toy_data) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data))
    batch = sample_of(task)
    stock, ours = criteria(task)
    with torch.no_grad():
        loss, expected = ours(model.eval(), batch)[0], stock(model, batch)[0]
    torch.testing.assert_close(loss, expected)
    assert loss.grad_fn is None


@pytest.mark.parametrize("flags", [("--add-lora", "False"), ("--freeze-original-parameters", "False")])
def test_a_vocabulary_that_trains_is_left_to_fairseq(toy_data, flags) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data, *flags))
    stock, ours = losses(model.train(), sample_of(task), *criteria(task))
    assert torch.equal(stock[0], ours[0])
    assert torch.equal(stock[3]["encoder.embed_tokens.weight"], ours[3]["encoder.embed_tokens.weight"])


def test_what_else_fairseq_computes_is_left_to_it(toy_data) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data))
    batch = sample_of(task)
    stock, ours = criteria(task, report_accuracy=True)
    assert ours(model.eval(), batch)[2]["n_correct"] == stock(model, batch)[2]["n_correct"]
    for stock, ours in (criteria(task), criteria(task, report_accuracy=True)):
        assert torch.equal(ours(model, batch, reduce=False)[0], stock(model, batch, reduce=False)[0])
    plain = TransformerModel.build_model(toy.parse(toy.plugin_flags(toy_data)), task).eval().requires_grad_(False)
    net_input = {key: batch["net_input"][key] for key in ("src_tokens", "src_lengths", "prev_output_tokens")}
    sample = {**batch, "net_input": net_input}
    assert torch.equal(ours(plain, sample)[0], stock(plain, sample)[0])


class Wrapped(torch.nn.Module):
    """A model of another kind, whose vocabulary is not where a Transformer has it."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, **net_input):
        return self.inner(**net_input)

    def get_normalized_probs(self, *args, **kwargs):
        return self.inner.get_normalized_probs(*args, **kwargs)

    def get_targets(self, *args):
        return self.inner.get_targets(*args)


def test_models_of_other_kinds_are_left_to_fairseq(toy_data) -> None:
    task, _ = toy.build(toy.plugin_flags(toy_data))
    stock, ours = criteria(task)
    plain = TransformerModel.build_model(toy.parse(toy.plugin_flags(toy_data)), task).eval().requires_grad_(False)
    batch = sample_of(task)
    net_input = {key: batch["net_input"][key] for key in ("src_tokens", "src_lengths", "prev_output_tokens")}
    results = [one(Wrapped(plain), {**batch, "net_input": net_input})[0] for one in (stock, ours)]
    assert torch.equal(*results)


def test_it_is_called_as_fairseq_s() -> None:
    for name in ("forward", "compute_loss"):
        ours, stock = (
            inspect.signature(getattr(kind, name)) for kind in (LabelSmoothedCrossEntropyCriterion, StockCriterion)
        )
        assert [(p.name, p.default) for p in ours.parameters.values()] == [
            (p.name, p.default) for p in stock.parameters.values()
        ]


def test_the_task_converts_fairseq_s_criterion_under_its_own_name_and_no_other(toy_data) -> None:
    task, _ = toy.build(toy.plugin_flags(toy_data))
    smoothed = task.build_criterion(toy.parse(toy.plugin_flags(toy_data)))
    assert type(smoothed) is LabelSmoothedCrossEntropyCriterion
    assert type(smoothed).__name__ == StockCriterion.__name__
    other = task.build_criterion(Namespace(criterion="cross_entropy", sentence_avg=False))
    assert type(other) is CrossEntropyCriterion


def test_computes_on_another_device_without_ever_asking_for_a_value(monkeypatch) -> None:
    """The device ``meta`` has no values to ask for, and refuses to meet tensors of the CPU, as a GPU does."""
    monkeypatch.setitem(criterion_module.CHUNK_BYTES, "meta", 900)
    features = torch.randn(9, 5, device="meta", requires_grad=True)
    weight, targets = torch.randn(69, 5, device="meta"), torch.zeros(9, dtype=torch.int64, device="meta")
    FrozenVocabularyLoss.apply(features, weight, targets, 0.2, 1)[0].backward()
    assert features.grad.is_meta


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen vocabulary", "vocabulary that trains"])
@pytest.mark.parametrize(
    "more", [{}, {"smoothing": 0.0}, {"ignore_prefix_size": 1}, {"report_accuracy": True}], ids=str
)
def test_sums_of_sentences_are_the_losses_of_batches_of_one(toy_data, frozen, more) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data, "--freeze-original-parameters", str(frozen)))
    toy.randomise_adapters(model)
    model.eval()
    stock, ours = criteria(task, **more)
    batch = sample_of(task)
    _, _, without = ours(model, batch)
    ours.by_sentence = True
    _, _, log = ours(model, batch)
    assert {key: log[key] for key in without} == without
    found = log[criterion_module.BY_SENTENCE]
    for row in range(len(batch["target"])):
        one = {**batch, "target": batch["target"][row : row + 1], "nsentences": 1}
        one["net_input"] = {key: value[row : row + 1] for key, value in batch["net_input"].items()}
        one["ntokens"] = int(one["target"].ne(task.target_dictionary.pad()).sum())
        loss, _, alone = stock(model, one)
        expected = [float(loss), float(alone["nll_loss"]), one["ntokens"] - more.get("ignore_prefix_size", 0)]
        torch.testing.assert_close(found[:, row], torch.tensor(expected), rtol=2e-5, atol=1e-5)
