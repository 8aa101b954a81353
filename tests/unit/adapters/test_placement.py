"""Adapters that stand elsewhere, or are selected by another language, are named before they are mixed up."""

from __future__ import annotations

from pathlib import Path

import pytest

from langspec_lora.adapters.placement import Placement, check_same_placement
from langspec_lora.checkpoints.starting_point import check_start_agrees
from langspec_lora.config import AdapterConfig, StackConfig
from langspec_lora.errors import UserError
from langspec_lora.sites import Site
from langspec_lora.tasks.checks.model_overrides import check_overrides
from tests.unit.adapters.test_adapter_folder import make
from tests.unit.checkpoints.test_compatibility import TABLE, all_shapes, base_shapes, command, stored_arguments, write

Q, FC1, K = Site("encoder", 0, "q"), Site("decoder", 1, "fc1"), Site("decoder", 0, "k")
SIDES = {Q: "src", FC1: "tgt"}


def test_standing_of_flags_and_of_plain_adapters_says_who_selects_each() -> None:
    stacks = {
        "encoder": StackConfig((0,), ("q",), ("src", "tgt")),
        "decoder": StackConfig((1,), ("fc1",), ("src", "tgt")),
    }
    assert Placement.of_config(AdapterConfig(TABLE, stacks, 6, 2, "rank")) == Placement(SIDES, 6, 2)
    assert Placement.of_adapters(make(0).adapters) == Placement(SIDES, 0, 0)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Placement(SIDES, 4, 0), "A has --dim 0, but B has 4"),
        (Placement(SIDES, 0, 2), "A has --start-idx 0, but B has 2"),
        (Placement({Q: "src"}, 0, 0), "B has no adapters at decoder.1.fc1, but A has some"),
        (Placement({**SIDES, K: "tgt"}, 0, 0), "A has no adapters at decoder.0.k, but B has some"),
        (Placement({FC1: "tgt", K: "tgt"}, 0, 0), "A has no adapters at decoder.0.k, but B has some"),
        (
            Placement({**SIDES, Q: "tgt"}, 0, 0),
            "the source language selects the adapters of encoder layer 0 in A, but the target language does in B "
            "(--adapter-key, --weight-learning, --encoder-activation-direction)",
        ),
        (
            Placement({**SIDES, FC1: "src"}, 0, 0),
            "the target language selects the adapters of decoder layer 1 in A, but the source language does in B "
            "(--adapter-key, --weight-learning, --decoder-activation-direction)",
        ),
    ],
)
def test_first_difference_is_named(other, words) -> None:
    own = Placement(SIDES, 0, 0)
    check_same_placement(own, Placement(dict(reversed(SIDES.items())), 0, 0), "A", "B", "do this")
    with pytest.raises(UserError) as refusal:
        check_same_placement(own, other, "A", "B", "do this")
    assert str(refusal.value) == f"{words}; do this"


def agrees(path: str | None, **flags: object) -> None:
    args = command(finetune_from_model=path, **flags)
    check_start_agrees(args, AdapterConfig.from_args(args))


def test_training_starts_from_adapters_that_stand_as_its_own(tmp_path: Path) -> None:
    turned = {"decoder_activation_direction": "src"}
    agrees(None, **turned)
    agrees(write(tmp_path / "base.pt", base_shapes(command()), stored_arguments()), **turned)
    agrees(write(tmp_path / "silent.pt", all_shapes(command()), None), **turned)
    path = write(tmp_path / "ours.pt", all_shapes(command()), stored_arguments())
    agrees(path)
    with pytest.raises(UserError) as refusal:
        agrees(path, **turned)
    assert f"of decoder layer 0 in checkpoint {path}, but the source language does in this command" in str(
        refusal.value
    )
    assert str(refusal.value).endswith("; give the flags of its training, or start from the base model")


FLAGS = (
    *("add_lora", "freeze_original_parameters", "train_languages", "lang_resources"),
    *("high_rank", "med_rank", "low_rank", "save_adapters_only", "language_num", "dim", "start_idx"),
    *("lora_init", "adapter_languages"),
    *(
        f"{stack}_{name}"
        for stack in ("encoder", "decoder")
        for name in ("lora_layer", "lora_position", "activation_direction")
    ),
)  # fmt: skip


@pytest.mark.parametrize("name", FLAGS)
def test_override_of_a_flag_of_the_adapters_is_refused(name) -> None:
    with pytest.raises(UserError, match=f"^--model-overrides changes {name}, which belongs to the adapters"):
        check_overrides(f"{{'dropout': 0.1, '{name}': 1}}")


def test_override_that_is_named_is_the_first_by_name() -> None:
    with pytest.raises(UserError, match="changes dim,"):
        check_overrides("{'start_idx': 1, 'dim': 1, 'low_rank': 1}")


@pytest.mark.parametrize("text", ["{}", "{'dropout': 0.1, 'encoder_layers_to_keep': '0'}"])
def test_override_of_anything_else_is_left_to_fairseq(text) -> None:
    check_overrides(text)


@pytest.mark.parametrize(
    "text",
    [
        *("dropout=0.1", "{'dropout': open}", "{", "3", "['dropout']", "'dim'", "{'dropout'}", "{[]: 1}"),
        *("-" * 3000 + "1", "-" * 100_000 + "1"),
    ],
)
def test_overrides_that_are_no_dictionary_are_refused_in_a_short_sentence(text) -> None:
    with pytest.raises(UserError) as refusal:
        check_overrides(text)
    expected = "expected a dictionary, such as \"{'dropout': 0.1}\""
    assert str(refusal.value) == f"--model-overrides {text[:80]}: {expected}"
