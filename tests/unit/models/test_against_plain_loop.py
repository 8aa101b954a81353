"""The model against a plain loop: stock fairseq, one sentence at a time, with the adapters of its direction merged."""

from __future__ import annotations

import pytest
import torch
from fairseq.models.transformer import TransformerModel
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from langspec_lora.lora import routing as routing_module
from langspec_lora.sites import POSITIONS
from tests import toy

MIXED = ("--encoder-activation-direction", "src_tgt", "--decoder-activation-direction", "tgt_src")
POST_NORM = ("--arch", "langspec_transformer_lora")


HALF = pytest.param(torch.float16, marks=toy.needs_half_on_cpu)


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(params=["dense", "gathered"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both forms of the low-rank update."""
    monkeypatch.setattr(routing_module, "DENSE_ROWS", {"dense": 10**6, "gathered": 0}[request.param])
    return request.param


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", [(), POST_NORM], ids=["pre-norm", "post-norm"])
@pytest.mark.parametrize("part", [(), ("--dim", "10", "--start-idx", "3")], ids=["whole", "slice"])
def test_mixed_batch_gives_the_logits_loss_and_gradients_of_a_loop_over_sentences(
    toy_data, form, training, norm, part
) -> None:
    flags = toy.plugin_flags(toy_data, *MIXED, *norm, *part)
    task, model = toy.build(flags)
    toy.randomise_adapters(model)
    batch = toy.mixed_batch(task)
    directions = {
        (int(s), int(t)) for s, t in zip(batch["net_input"]["src_lang_id"], batch["tgt_lang_id"], strict=True)
    }
    assert len(directions) > 8
    reference = toy.PerLanguageReference(task, model, flags).train(training)

    logits = toy.forward(model.train(training), batch)
    expected = reference.logits(batch)
    close(logits, expected)

    targets = batch["target"].view(-1)
    losses = [
        cross_entropy(out.reshape(-1, out.size(-1)), targets, ignore_index=task.target_dictionary.pad())
        for out in (logits, expected)
    ]
    close(*losses)
    for loss in losses:
        loss.backward()
    modules = dict(model.named_modules())
    for path, (grad_a, grad_b) in reference.gradients().items():
        close(modules[path].lora_A.grad, grad_a)
        close(modules[path].lora_B.grad, grad_b)
        assert grad_a.abs().max() > 0
        assert grad_b.abs().max() > 0
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if "lora_" not in name)


@pytest.mark.parametrize("side", ["src", "tgt"])
@pytest.mark.parametrize(("stack", "position"), [(stack, name) for stack in POSITIONS for name in POSITIONS[stack]])
def test_each_position_alone_changes_the_output_as_merging_it_does(toy_data, stack, position, side) -> None:
    other = "decoder" if stack == "encoder" else "encoder"
    flags = toy.plugin_flags(
        toy_data,
        *(f"--{stack}-lora-position", position, f"--{stack}-lora-layer", "1", f"--{other}-lora-layer", "none"),
        *(f"--{stack}-activation-direction", f"{side}_{side}"),
    )
    task, model = toy.build(flags)
    assert len(model.adapters.linears) == 1
    batch = toy.mixed_batch(task)
    untouched = toy.forward(model.eval(), batch)
    toy.randomise_adapters(model)
    logits = toy.forward(model, batch)
    assert (logits - untouched).abs().max() > 1e-4
    for mode in (True, False):
        reference = toy.PerLanguageReference(task, model, flags).train(mode)
        close(toy.forward(model.train(mode), batch), reference.logits(batch))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", [(), POST_NORM], ids=["pre-norm", "post-norm"])
def test_fresh_adapters_do_not_change_the_stock_model(toy_data, form, training, norm) -> None:
    flags = toy.plugin_flags(toy_data, *norm, "--dropout", "0.1", "--attention-dropout", "0.1")
    task, model = toy.build(flags)
    stock = TransformerModel.build_model(toy.parse(flags), task)
    state = {name: v for name, v in model.state_dict().items() if "lora_" not in name and "adapters" not in name}
    stock.load_state_dict(state)
    for layer in stock.encoder.layers:
        layer.ever_training = True  # fairseq 0.12.2's fused post-norm path is another computation
    batch = toy.mixed_batch(task)
    net_input = {key: batch["net_input"][key] for key in ("src_tokens", "src_lengths", "prev_output_tokens")}
    torch.manual_seed(5)
    expected = stock.train(training)(**net_input)[0]
    torch.manual_seed(5)
    logits = toy.forward(model.train(training), batch)
    if training:  # cross-attention without its weights: fused here, explicit in fairseq
        close(logits, expected)
    else:
        assert torch.equal(logits, expected)


def test_without_adapters_the_model_is_the_stock_model_bit_for_bit(toy_data) -> None:
    flags = toy.plugin_flags(toy_data, "--add-lora", "False")
    task, model = toy.build(flags)
    stock = TransformerModel.build_model(toy.parse(flags), task)
    stock.load_state_dict(model.state_dict())
    batch = toy.mixed_batch(task)
    net_input = {key: batch["net_input"][key] for key in ("src_tokens", "src_lengths", "prev_output_tokens")}
    assert torch.equal(toy.forward(model.eval(), batch), stock.eval()(**net_input)[0])
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("offload", ["--checkpoint-activations", "--offload-activations"])
@pytest.mark.parametrize("stack", ["encoder", "decoder", "both"])
def test_recomputed_activations_give_the_same_gradients_even_after_another_batch(toy_data, stack, offload) -> None:
    more = () if stack == "both" else (f"--{'decoder' if stack == 'encoder' else 'encoder'}-lora-layer", "none")
    gradients = []
    for flag in ((), (offload,)):
        task, model = toy.build(toy.plugin_flags(toy_data, *MIXED, *more, *flag))
        toy.randomise_adapters(model)
        first, second = toy.mixed_batch(task), toy.mixed_batch(task, "test")
        logits = toy.forward(model.train(), first)
        toy.forward(model, second)  # routes other languages before the first batch's backward pass
        logits.square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[0].items():
        close(gradients[1][name], expected)
        assert expected.abs().max() > 0


@pytest.mark.parametrize("dtype", [HALF, torch.bfloat16])
def test_half_precision_model_agrees_with_single_precision_to_its_own_precision(toy_data, form, dtype) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data, *MIXED))
    toy.randomise_adapters(model)
    batch = toy.mixed_batch(task)
    expected = toy.forward(model.eval(), batch)
    actual = toy.forward(model.to(dtype), batch)
    assert actual.dtype == dtype
    tolerance = 30 * torch.finfo(dtype).eps
    torch.testing.assert_close(actual.float(), expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())


def test_autocast_agrees_with_single_precision_and_trains_single_precision_adapters(toy_data, form) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data, *MIXED))
    toy.randomise_adapters(model)
    batch = toy.mixed_batch(task)
    expected = toy.forward(model.train(), batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = toy.forward(model, batch)
    tolerance = 30 * torch.finfo(torch.bfloat16).eps
    torch.testing.assert_close(actual.float(), expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())
    actual.float().square().mean().backward()
    assert all(linear.lora_A.grad.dtype == torch.float32 for linear in model.adapters.linears.values())


class BatchedProducts(TorchDispatchMode):
    """Notes the shapes of the operands of every batched matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in ("bmm", "baddbmm"):
            self.shapes += [tuple(tensor.shape) for tensor in args[:2]]
        return func(*args, **(kwargs or {}))


class Casts(TorchDispatchMode):
    """Notes the shapes of the tensors that are cast to another type."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ == "_to_copy" and result.dtype != args[0].dtype:
            self.shapes.append(tuple(result.shape))
        return result


def test_attention_casts_what_its_projections_read_once(toy_data) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data))
    toy.forward(model.train(), toy.mixed_batch(task))  # leaves the languages of the batch set
    sentences = len(toy.mixed_batch(task)["id"])
    x, memory = torch.randn(3, sentences, 16), torch.randn(5, sentences, 16)
    layer = model.decoder.layers[0]
    with torch.autocast("cpu", dtype=torch.bfloat16), Casts() as casts:
        layer.self_attn(x, x, x, need_weights=False)
    assert casts.shapes.count((3, sentences, 16)) == 1
    with torch.autocast("cpu", dtype=torch.bfloat16), Casts() as casts:
        layer.encoder_attn(x, memory, memory, static_kv=True, need_weights=False)
    assert casts.shapes.count((5, sentences, 16)) == 1


@pytest.mark.parametrize("length", [1, 5])
def test_a_frozen_vocabulary_is_not_multiplied_sentence_by_sentence(toy_data, length) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data))
    batch = toy.mixed_batch(task)
    batch["net_input"]["prev_output_tokens"] = batch["net_input"]["prev_output_tokens"][:, :length]
    with BatchedProducts() as products:
        toy.forward(model.eval(), batch)
    assert products.shapes
    assert all(len(task.target_dictionary) not in shape for shape in products.shapes)


def test_model_without_language_ids_in_its_batch_says_so(toy_data) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data))
    batch = toy.mixed_batch(task)
    toy.forward(model, batch)
    net_input = {key: batch["net_input"][key] for key in ("src_tokens", "src_lengths", "prev_output_tokens")}
    with pytest.raises(RuntimeError, match="carries no language ids"):
        model(**net_input)


def test_batch_of_a_language_without_adapter_fails_instead_of_using_another_s(toy_data, form) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data))
    batch = toy.mixed_batch(task)
    model.adapters.bind_languages([*toy.LANGUAGES, "xh"], toy.LANGUAGES)
    toy.forward(model.eval(), batch)
    batch["tgt_lang_id"][0] = len(toy.LANGUAGES)
    with pytest.raises(IndexError):
        toy.forward(model, batch)
