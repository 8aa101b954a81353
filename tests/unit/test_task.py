"""What the task decides: masks of a new or a resumed run, forced tokens, and what is stripped from the output."""

from __future__ import annotations

from argparse import Namespace
from unittest.mock import Mock

import pytest
import torch
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from tests import toy
from tests.bad_input import write_checkpoint

PRUNING = ("--pruning", "True", "--pruning-t1", "5", "--pruning-t2", "1", "--target-pruning-ratio", "0.5")


@pytest.mark.parametrize("flags_of", [toy.base_flags, toy.plugin_flags])
def test_what_tests_build_from_is_what_fairseq_builds_from(toy_data, flags_of) -> None:
    stock = ("--task", "translation_multi_simple_epoch", "--arch", "transformer")
    args = toy.parse(flags_of(toy_data, *(stock if flags_of is toy.base_flags else ())))
    settings = convert_namespace_to_omegaconf(args)
    assert {**vars(toy.task_settings(args)), "_name": args.task} == vars(settings.task)
    assert {**vars(toy.model_settings(args)), "_name": args.arch} == vars(settings.model)


def prune(state: dict) -> None:
    """Half of each B pruned in epoch 1, as another training of other flags has left it."""
    model = state["model"]
    model["adapters.mask_epoch"].fill_(1)
    for name in (name for name in model if name.endswith("lora_mask")):
        model[name][:, ::2] = 0
        model[name.replace("mask", "B")].fill_(1)[:, ::2] = 0


def alive_after_first_epoch_begins(data, *flags: str) -> set[float]:
    task, model = toy.build(toy.plugin_flags(data, *PRUNING, *flags))
    path = flags[flags.index("--restore-file" if "--restore-file" in flags else "--finetune-from-model") + 1]
    model.load_state_dict(torch.load(path, weights_only=False)["model"], strict=True)
    task.begin_epoch(1, model)
    return {linear.lora_mask.float().mean().item() for linear in model.adapted.values()}


def test_a_new_run_from_a_pruned_checkpoint_chooses_its_masks_and_a_resumed_one_keeps_them(toy_data, tmp_path) -> None:
    pruned = str(write_checkpoint(tmp_path / "pruned.pt", toy.plugin_flags(toy_data), prune))
    save = ("--save-dir", str(tmp_path / "out"))
    assert alive_after_first_epoch_begins(toy_data, *save, "--finetune-from-model", pruned) == {1.0}
    assert alive_after_first_epoch_begins(toy_data, *save, "--restore-file", pruned, "--reset-optimizer") == {1.0}
    assert alive_after_first_epoch_begins(toy_data, *save, "--restore-file", pruned) == {0.5}


def forced(data, *flags: str) -> tuple[torch.Tensor | None, int | None, list[str]]:
    """The first tokens that a batch's hypotheses are given, and what stands in place of the beginning of a sentence."""
    task, model = toy.build(
        toy.plugin_flags(data, "--source-lang", "en", "--target-lang", "wo", *flags), translates=True
    )
    batch = toy.mixed_batch(task)
    generator = Mock()
    task.inference_step(generator, [model.eval()], batch)
    given = generator.generate.call_args.kwargs
    names = [toy.LANGUAGES[language] for language in batch["tgt_lang_id"].view(-1)]
    return given["prefix_tokens"], given.get("bos_token"), names


def test_each_sentence_is_forced_to_begin_with_the_token_of_its_language(toy_data) -> None:
    prefix, start, names = forced(toy_data)
    dictionary = toy.build(toy.plugin_flags(toy_data))[0].target_dictionary
    assert [dictionary[token] for token in prefix.view(-1)] == [f"__{name}__" for name in names]
    assert start is None


def test_a_token_that_stands_for_the_beginning_of_a_sentence_is_not_forced_after_it(toy_data) -> None:
    prefix, start, _ = forced(toy_data, "--lang-tok-replacing-bos-eos")
    assert prefix is None
    dictionary = toy.build(toy.plugin_flags(toy_data))[0].target_dictionary
    assert dictionary[start] == "__wo__"  # as fairseq's own task has it


@pytest.mark.parametrize(
    ("flags", "settings", "stripped"),
    [
        ((), {}, toy.LANGUAGES),
        (("--source-lang", "en", "--target-lang", "wo"), {}, ("wo",)),
        ((), {"keep_inference_langtok": True}, ()),
    ],
    ids=["all directions", "one direction", "asked to keep them"],
)
def test_language_tokens_are_stripped_from_the_output(toy_data, flags, settings, stripped) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data, *flags), translates=True)
    generator = task.build_generator([model], Namespace(beam=2, **settings))
    words = {task.target_dictionary[token] for token in generator.symbols_to_strip_from_output}
    assert words == {"</s>", *(f"__{name}__" for name in stripped)}
