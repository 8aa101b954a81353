"""fairseq's ``--enable-reservsed-directions-shared-datasets``: each example as without it, or refused."""

from __future__ import annotations

import pytest

from tests import toy
from tests.bad_input import refusal_of

SHARED = "--enable-reservsed-directions-shared-datasets"
PLAIN = ("--task", "translation_multi_simple_epoch_lora", "--arch", "langspec_m2m100_lora_tiny")


def flags_of(toy_data, *tokens: str) -> list[str]:
    flags = toy.plugin_flags(toy_data, "--lang-pairs", "en-fr,fr-en,en-wo,wo-en,nl-sd")
    return [flag for flag in flags if flag not in ("--encoder-langtok", "src", "--decoder-langtok")] + list(tokens)


def examples(flags: list[str]) -> list[tuple]:
    """Source, target and language ids of every training example, as they are collated."""
    task, _ = toy.build(flags)
    task.load_dataset("train")
    found = []
    for dataset in task.dataset("train").datasets:
        for index in range(len(dataset)):
            batch = dataset.collater([dataset[index]])
            net_input = batch["net_input"]
            tensors = (net_input["src_tokens"], batch["target"], net_input["src_lang_id"], batch["tgt_lang_id"])
            found.append(tuple(tuple(tensor.flatten().tolist()) for tensor in tensors))
    return found


RIGHT = {
    "published": ("--encoder-langtok", "src", "--decoder-langtok"),
    "no tokens": (),
    "in place of eos": ("--encoder-langtok", "tgt", "--decoder-langtok", "--lang-tok-replacing-bos-eos"),
    "ids": ("--encoder-langtok", "src", "--decoder-langtok", "--enable-lang-ids"),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_shared_data_hold_the_same_examples_with_the_same_languages(toy_data, kind) -> None:
    alone, shared = (examples(flags_of(toy_data, *RIGHT[kind], *more)) for more in ((), (SHARED,)))
    assert len(alone) == 5 * toy.SIZES["train"]
    assert shared == alone
    ids = {(source, target) for _, _, source, target in shared}
    assert ids == {((0,), (1,)), ((1,), (0,)), ((0,), (3,)), ((3,), (0,)), ((2,), (4,))}  # of en fr nl wo sd


WRONG = {
    "target": ("--encoder-langtok", "tgt", "--decoder-langtok"),
    "target alone": ("--encoder-langtok", "tgt"),
    "source alone": ("--encoder-langtok", "src"),
    "decoder alone": ("--decoder-langtok",),
    "table": ("--langtoks", "{'main': ('tgt', 'tgt')}"),
    "cut": (
        "--encoder-langtok",
        "src",
        "--decoder-langtok",
        "--truncate-source",
        "--max-source-positions",
        "5",
        "--skip-invalid-size-inputs-valid-test",
    ),
}


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize("kind", WRONG)
def test_shared_data_that_fairseq_would_spoil_are_refused(toy_data, kind) -> None:
    message = refusal_of(toy.build, flags_of(toy_data, *WRONG[kind], SHARED))
    assert message.startswith(f"langspec-lora: error: {SHARED} uses the sides of ")
    assert message.endswith("; leave the flag out")


def test_they_are_refused_where_a_command_that_does_not_train_reads_them(toy_data, monkeypatch) -> None:
    monkeypatch.setattr("langspec_lora.tasks.checks.all_checks.check_shared_directions", lambda *_: None)
    task, _ = toy.build(flags_of(toy_data, *WRONG["target"], SHARED))
    assert SHARED in refusal_of(task.load_dataset, "train")


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_refused_is_what_fairseq_spoils(toy_data, monkeypatch, kind) -> None:
    monkeypatch.setattr("langspec_lora.tasks.checks.all_checks.check_shared_directions", lambda *_: None)
    monkeypatch.setattr("langspec_lora.data.language_ids.check_shared_directions", lambda *_: None)
    alone, shared = (examples(flags_of(toy_data, *WRONG[kind], *more)) for more in ((), (SHARED,)))
    assert shared != alone


def test_directions_of_which_none_is_the_reverse_of_another_share_nothing(toy_data) -> None:
    pairs = ("--lang-pairs", "en-fr,wo-en,nl-sd")
    toy.build([*flags_of(toy_data, *WRONG["target"], SHARED), *pairs])
