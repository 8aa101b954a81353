"""Beam search on mixed batches against stock beam search with merged adapters, one sentence at a time."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch
from fairseq.models.transformer import TransformerModel
from fairseq.sequence_generator import SequenceGenerator

from langspec_lora.errors import UserError
from tests import toy

LENGTHS = {"max_len_a": 0, "max_len_b": 12}
MIXED = ("--encoder-activation-direction", "src_tgt", "--decoder-activation-direction", "tgt_src")


def stock_flags(data) -> list[str]:
    return toy.base_flags(data, "--task", "translation_multi_simple_epoch_lora", "--arch", "transformer")


def sharpen(model: torch.nn.Module) -> None:
    """Makes a random model prefer some words clearly, and end its sentences at different lengths."""
    toy.randomise_adapters(model, scale=1.0)
    with torch.no_grad():
        model.encoder.embed_tokens.weight.mul_(1.5)
        model.encoder.embed_tokens.weight[model.encoder.dictionary.eos()] *= 2


def translate(task, models: list, batch: dict, beam: int) -> list[list[dict]]:
    generator = task.build_generator(models, Namespace(beam=beam, **LENGTHS))
    return task.inference_step(generator, models, batch)


def merged_stock(reference: toy.PerLanguageReference, task, flags: list[str], source: int, target: int):
    stock = TransformerModel.build_model(toy.parse(flags), task)
    stock.load_state_dict({**reference.weights, **reference.merged(source, target)})
    return stock.eval()


def one_by_one(task, references: list, flags: list[str], batch: dict, beam: int) -> list[list[dict]]:
    """Stock beam search for each sentence alone, without padding."""
    dictionary = task.target_dictionary
    hypotheses = []
    for row, tokens in enumerate(batch["net_input"]["src_tokens"]):
        source, target = int(batch["net_input"]["src_lang_id"][row]), int(batch["tgt_lang_id"][row])
        models = [merged_stock(reference, task, flags, source, target) for reference in references]
        tokens = tokens[tokens.ne(dictionary.pad())].unsqueeze(0)
        sample = {"net_input": {"src_tokens": tokens, "src_lengths": torch.tensor([tokens.size(1)])}}
        prefix = torch.tensor([[dictionary.index(f"__{toy.LANGUAGES[target]}__")]])
        generator = SequenceGenerator(models, dictionary, beam_size=beam, **LENGTHS)
        hypotheses.extend(generator.generate(models, sample, prefix_tokens=prefix))
    return hypotheses


def assert_same(actual: list[list[dict]], expected: list[list[dict]]) -> None:
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert mine["tokens"].tolist() == other["tokens"].tolist()
            torch.testing.assert_close(mine["score"], other["score"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", [(), ("--arch", "langspec_transformer_lora")], ids=["pre-norm", "post-norm"])
@pytest.mark.parametrize("beam", [1, 2, 5])
def test_mixed_batch_translates_as_each_sentence_does_alone(toy_data, beam, norm) -> None:
    flags = toy.plugin_flags(toy_data, *MIXED, *norm)
    task, model = toy.build(flags)
    sharpen(model)
    batch = toy.mixed_batch(task, "test")
    reference = toy.PerLanguageReference(task, model, flags)
    hypotheses = translate(task, [model.eval()], batch, beam)
    assert_same(hypotheses, one_by_one(task, [reference], flags, batch, beam))
    assert len({len(best[0]["tokens"]) for best in hypotheses}) > 1  # sentences leave the batch at different steps


def test_keys_and_values_are_projected_once_per_sentence_with_its_own_adapter(toy_data) -> None:
    flags = toy.plugin_flags(toy_data, *MIXED)
    task, model = toy.build(flags)
    sharpen(model)
    batch = toy.mixed_batch(task, "test")
    projected = []
    for layer in model.decoder.layers:
        layer.encoder_attn.k_proj.register_forward_hook(lambda module, args, out: projected.append(args[0].size(1)))
    hypotheses = translate(task, [model.eval()], batch, 3)
    assert projected == [len(batch["id"])] * len(model.decoder.layers)  # not per beam, and not at every step
    reference = toy.PerLanguageReference(task, model, flags)
    assert_same(hypotheses, one_by_one(task, [reference], flags, batch, 3))


def test_one_model_serves_generators_of_several_beam_sizes_by_turns(toy_data) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data, *MIXED))
    sharpen(model)
    batch = toy.mixed_batch(task, "test")
    model.eval()
    generators = {beam: task.build_generator([model], Namespace(beam=beam, **LENGTHS)) for beam in (5, 1, 3)}
    alone = {beam: translate(task, [model], batch, beam) for beam in generators}
    logits = toy.forward(model, batch)
    for beam in (1, 5, 3, 1):
        assert_same(task.inference_step(generators[beam], [model], batch), alone[beam])
        assert torch.equal(toy.forward(model, batch), logits)


@pytest.mark.parametrize("order", [[0, 1], [1, 0], [0, 1, 0, 1], [0, 0, 1], [0, 0]])
def test_an_order_that_is_not_that_of_beams_is_followed_to_the_letter(toy_data, order) -> None:
    _, model = toy.build(toy.plugin_flags(toy_data))
    output = {
        "encoder_out": [torch.randn(4, 2, 8)],
        "encoder_padding_mask": [torch.tensor([[True, False, False, False], [False] * 4])],
        "encoder_embedding": [],
        "encoder_states": [],
        "src_tokens": [],
        "src_lengths": [],
        "languages": [torch.tensor([0, 1]), torch.tensor([2, 3])],
    }
    order = torch.tensor(order)
    first = model.encoder.reorder_encoder_out(output, order)
    assert "beams" not in first
    back = order.flip(0) if len(order) == 2 else torch.randperm(len(order))
    for result, sites in ((first, order), (model.encoder.reorder_encoder_out(first, back), order[back])):
        assert torch.equal(result["encoder_out"][0], output["encoder_out"][0][:, sites])
        assert torch.equal(result["encoder_padding_mask"][0], output["encoder_padding_mask"][0][sites])
        assert result["languages"][0].tolist() == sites.tolist()


@pytest.mark.parametrize("wanted", [False, True])
def test_decoding_computes_attention_weights_only_where_alignments_will_be_printed(toy_data, wanted) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data))
    sharpen(model)
    batch = toy.mixed_batch(task, "test")
    plain = translate(task, [model.eval()], batch, 2)
    assert all(best[0]["attention"].numel() for best in plain)
    model.make_generation_fast_(need_attn=wanted)
    fast = translate(task, [model], batch, 2)
    assert_same(fast, plain)
    for best, other in zip(fast, plain, strict=True):
        if wanted:
            torch.testing.assert_close(best[0]["attention"], other[0]["attention"])
        else:
            assert best[0]["attention"] is None or not best[0]["attention"].numel()


def test_ensemble_of_models_with_other_orders_of_languages_uses_each_one_s_own_adapters(toy_data) -> None:
    flags = toy.plugin_flags(toy_data, *MIXED)
    task, first = toy.build(flags)
    swapped = ",".join(reversed(toy.LANGUAGES))
    other_flags = [*flags, "--langs", swapped]
    other_task, second = toy.build(other_flags)
    for model in (first, second):
        sharpen(model)
    with torch.no_grad():
        second.encoder.embed_tokens.weight.add_(0.1 * torch.randn_like(second.encoder.embed_tokens.weight))
    batch = toy.mixed_batch(task, "test")
    names = second.adapters.config.languages.names
    assert names == tuple(reversed(toy.LANGUAGES))

    second.adapters.bind_languages(task.langs, toy.LANGUAGES)  # as the task does when it loads a checkpoint
    hypotheses = translate(task, [first.eval(), second.eval()], batch, 3)

    own_order = toy.PerLanguageReference(task, first, flags)
    other_order = toy.PerLanguageReference(other_task, second, other_flags)
    by_name = other_order.merged
    other_order.merged = lambda source, target: by_name(
        *(names.index(toy.LANGUAGES[language]) for language in (source, target))
    )
    assert_same(hypotheses, one_by_one(task, [own_order, other_order], flags, batch, 3))


def test_batch_without_ids_is_of_the_direction_on_the_command_line(toy_data) -> None:
    flags = toy.plugin_flags(toy_data, *MIXED)
    task, model = toy.build(flags)
    sharpen(model)
    task.load_dataset("test")
    dataset = task.dataset("test").datasets[toy.PAIRS.index("fr-wo")]
    batch = dataset.collater([dataset[index] for index in range(4)])
    expected = translate(task, [model.eval()], batch, 3)
    task.args.source_lang, task.args.target_lang = "fr", "wo"
    plain = {key: batch["net_input"][key] for key in ("src_tokens", "src_lengths")}  # as fairseq-interactive makes it
    assert_same(translate(task, [model], {"net_input": plain}, 3), expected)


def test_stock_model_works_with_the_task(toy_data) -> None:
    task, stock = toy.build(stock_flags(toy_data))
    assert type(stock) is TransformerModel
    batch = toy.mixed_batch(task)
    hypotheses = translate(task, [stock.eval()], batch, 2)
    assert len(hypotheses) == len(batch["id"])


def test_stock_and_language_specific_models_do_not_mix_in_an_ensemble(toy_data) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data))
    _, stock = toy.build(stock_flags(toy_data))
    with pytest.raises(SystemExit, match="--path mixes stock and language-specific models"):
        translate(task, [model.eval(), stock.eval()], toy.mixed_batch(task), 2)


def test_language_without_adapter_is_named(toy_data) -> None:
    _, model = toy.build(toy.plugin_flags(toy_data))
    with pytest.raises(UserError, match="no adapters for xh; it knows en, fr, nl, wo, sd"):
        model.adapters.bind_languages([*toy.LANGUAGES, "xh"], ["en", "xh"])
    model.adapters.bind_languages([*toy.LANGUAGES, "xh"], ["en", "wo"])  # not used, not asked for


def test_batch_carries_the_languages_of_each_example_in_the_collated_order(toy_data) -> None:
    task, _ = toy.build(toy.plugin_flags(toy_data))
    batch = toy.mixed_batch(task, "test", size=40)
    assert batch["net_input"]["src_lengths"].tolist() == sorted(
        batch["net_input"]["src_lengths"].tolist(), reverse=True
    )
    tokens = task.source_dictionary
    for row in range(len(batch["id"])):
        source = batch["net_input"]["src_tokens"][row]
        first = tokens[int(source[source.ne(tokens.pad())][0])]
        target = tokens[int(batch["target"][row][0])]
        assert first == f"__{toy.LANGUAGES[batch['net_input']['src_lang_id'][row]]}__"
        assert target == f"__{toy.LANGUAGES[batch['tgt_lang_id'][row]]}__"


@pytest.mark.parametrize("more", [(), ("--lang-tok-replacing-bos-eos",), ("--virtual-epoch-size", "500")])
def test_training_batches_carry_ids_whichever_way_fairseq_merges_them(toy_data, more) -> None:
    flags = toy.plugin_flags(toy_data, "--sampling-method", "temperature", "--sampling-temperature", "5.0", *more)
    task, _ = toy.build(flags)
    task.args.train_subset = "train"
    task.load_dataset("train")
    dataset = task.dataset("train")
    batch = dataset.collater([dataset[index] for index in range(0, len(dataset), max(1, len(dataset) // 30))])
    words = task.source_dictionary
    for row in range(len(batch["id"])):
        spoken = {
            side: {words[int(t)][:2] for t in batch[side][row] if words[int(t)][:2] in toy.LANGUAGES}
            for side in ("target",)
        }
        assert spoken["target"] == {toy.LANGUAGES[batch["tgt_lang_id"][row]]}
        source = {words[int(t)][:2] for t in batch["net_input"]["src_tokens"][row]} & set(toy.LANGUAGES)
        assert source == {toy.LANGUAGES[batch["net_input"]["src_lang_id"][row]]}
