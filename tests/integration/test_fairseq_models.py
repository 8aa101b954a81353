"""Shapes of fairseq's Transformer, beside adapters: the rows of :mod:`tests.fairseq_features` on models.

Each is held against stock fairseq, which has the adapters of one direction in its weights: in a batch of several
directions, in the gradients of the adapters, and step by step in a search.
"""

from __future__ import annotations

import pytest
import torch

from tests import toy
from tests.fairseq_features import MODELS, WORKS
from tests.integration.test_fairseq_training import command, places  # noqa: F401  (a fixture)

ROWS = [row for row in MODELS if row.state == WORKS and not row.shown_by]
DIRECTION = ("en", "wo")


def log_probabilities(model: torch.nn.Module, output: tuple) -> torch.Tensor:
    """Of all words, whatever the softmax."""
    return model.get_normalized_probs(output, log_probs=True)


@pytest.fixture(params=ROWS, ids=lambda row: row.name)
def flags(request, toy_data, places) -> list[str]:  # noqa: F811
    """The flags of a training of such a model, in all directions."""
    flags = command(toy_data, places, request.param)
    return [*flags, "--lang-pairs", ",".join(toy.PAIRS), "--disable-validation"]


def test_model_and_its_gradients_are_those_of_stock_fairseq_with_merged_weights(flags) -> None:
    task, model = toy.build(flags)
    toy.randomise_adapters(model)
    batch = toy.mixed_batch(task)
    batch["net_input"].pop("languages", None)
    languages = {"src_lang_id": batch["net_input"]["src_lang_id"], "tgt_lang_id": batch["tgt_lang_id"]}
    reference = toy.PerLanguageReference(task, model, flags).train(False)
    model.eval()

    def ours(**more: bool) -> tuple:
        return model(**{**batch["net_input"], **languages}, **more)

    def theirs(row: int, **more: bool) -> tuple:
        names = ("src_tokens", "src_lengths", "prev_output_tokens")
        one = {name: batch["net_input"][name][row : row + 1] for name in names}
        merged = reference.merged(*(int(ids[row]) for ids in languages.values()))
        return torch.func.functional_call(reference.stock, merged, (), {**one, **more})

    real = batch["target"] != task.target_dictionary.pad()
    with torch.no_grad():
        found = log_probabilities(model, ours())
        expected = [log_probabilities(reference.stock, theirs(row)) for row in range(len(real))]
    torch.testing.assert_close(found[real], torch.cat(expected)[real], rtol=1e-4, atol=1e-5)

    features = ours(features_only=True)[0]
    weights = torch.randn(features.shape)
    (features * weights)[real].sum().backward()
    (torch.cat([theirs(row, features_only=True)[0] for row in range(len(real))]) * weights)[real].sum().backward()
    gradients = reference.gradients()
    for path, expected in gradients.items():
        linear = model.get_submodule(path)
        for value, gradient in zip((linear.lora_A, linear.lora_B), expected, strict=True):
            torch.testing.assert_close(value.grad, gradient, rtol=1e-3, atol=1e-4)
    assert all(a.any() and b.any() for a, b in gradients.values())
    frozen = [value for name, value in model.named_parameters() if "lora_" not in name]
    assert all(value.grad is None and not value.requires_grad for value in frozen)


def test_search_finds_what_stock_fairseq_finds_with_merged_weights(flags) -> None:
    task, model = toy.build(flags)
    toy.randomise_adapters(model, scale=1.0)
    reference = toy.PerLanguageReference(task, model, flags).train(False)
    source, target = (task.langs.index(name) for name in DIRECTION)
    merged = reference.merged(source, target)
    with torch.no_grad():
        for name, value in reference.stock.named_parameters():
            if name in merged:
                value.copy_(merged[name])
    task.args.source_lang, task.args.target_lang = DIRECTION
    task.load_dataset("test")
    dataset = task.dataset("test")
    rows = [dataset[index] for index in range(len(dataset))]
    batch = dataset.collater([row for row in rows if row["languages"] == (source, target)][:6])
    assert len(batch["id"]) == 6
    found = []
    for one in (model.eval(), reference.stock.eval()):
        generator = task.build_generator([one], toy.Namespace(beam=3, max_len_b=10, nbest=3))
        hypotheses = task.inference_step(generator, [one], batch)
        found.append(
            [
                [(hypothesis["tokens"].tolist(), float(hypothesis["score"])) for hypothesis in each]
                for each in hypotheses
            ]
        )
    for ours, theirs in zip(*found, strict=True):
        assert [tokens for tokens, _ in ours] == [tokens for tokens, _ in theirs]
        assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], abs=1e-4)
    assert len({tuple(tokens) for each in found[0] for tokens, _ in each}) > 1
