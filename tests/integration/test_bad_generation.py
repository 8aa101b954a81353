"""Bad checkpoints and data for a translation: one line before anything is loaded, and nothing is run."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
from fairseq import checkpoint_utils, options

from tests import toy
from tests.bad_input import (
    STOCK,
    load_for_generation,
    own_copy,
    refusal_of,
    refusals_of,
    remove,
    set_up_generation,
    write_checkpoint,
)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.pt", "does not exist; check the path"),
        ("damaged.pt", "is damaged"),
        ("hostile.pt", "was refused: it names 'posix.system'"),
        ("words.pt", "has a vocabulary of 71, but the dictionary (with the language tokens of --langs) has 69"),
        ("part.pt", "holds only part of the adapters: 1 of"),
        ("three.pt", "has no adapters for wo; it knows en, fr, nl"),
    ],
)
def test_wrong_checkpoint_ends_a_generation_before_it_is_loaded(toy_data, checkpoints, name, words) -> None:
    path = checkpoints / name
    for joined in (path, f"{checkpoints / 'adapted.pt'}:{path}"):
        message = refusal_of(set_up_generation, toy_data, joined)
        assert f"checkpoint {path}" in message
        assert words in message
    assert not (checkpoints / "executed").exists()


@pytest.mark.parametrize("name", ["base.pt", "adapted.pt"])
def test_right_checkpoint_generates(toy_data, checkpoints, name) -> None:
    load_for_generation(toy_data, checkpoints / name)


def test_checkpoint_that_fairseq_would_load_instead_of_the_named_one_is_checked(
    toy_data, checkpoints, tmp_path
) -> None:
    shutil.copy(checkpoints / "adapted.pt", tmp_path / "model.pt")
    shutil.copy(checkpoints / "hostile.pt", tmp_path / "model-shard0.pt")
    assert "model-shard0.pt was refused" in refusal_of(set_up_generation, toy_data, tmp_path / "model.pt")


def test_hostile_language_model_is_refused(toy_data, checkpoints) -> None:
    lm = str(checkpoints / "hostile.pt")
    assert "was refused" in refusal_of(set_up_generation, toy_data, checkpoints / "adapted.pt", "--lm-path", lm)
    assert not (checkpoints / "executed").exists()


SEVERAL = {
    "languages, flags, checkpoints": (
        "gone.pt:lost.pt",
        "-s xx --beam 0 --min-len -1 --model-overrides x --lm-path no.pt --target-pruning-ratio 2",
        [
            "--source-lang xx is not",
            "--beam 0: ",
            "--min-len -1: ",
            "--model-overrides x: ",
            "--target-pruning-ratio 2",
            "no.pt does not exist",
            "gone.pt does not exist",
            "lost.pt does not exist",
        ],
    ),
    "flags, checkpoints, data": (
        "{0}/three.pt:{0}/words.pt",
        "--beam 0 --gen-subset dev",
        ["--beam 0: ", "three.pt has no adapters for wo", "words.pt has a vocabulary of 71", "no dev data of en-wo"],
    ),
    "dictionary, flags, checkpoints": (
        "gone.pt",
        "--fixed-dictionary nowhere.txt --pruning maybe --prefix-size -1",
        [
            "--pruning maybe: expected True",
            "gone.pt does not exist",
            "nowhere.txt cannot be read",
            "--prefix-size -1: ",
        ],
    ),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_mistakes_of_a_generation_that_do_not_depend_on_each_other_are_listed_together(
    toy_data, checkpoints, kind
) -> None:
    path, flags, words = SEVERAL[kind]
    found = refusals_of(set_up_generation, toy_data, path.format(checkpoints), *flags.split())
    assert len(found) == len(words), found
    for mistake, part in zip(found, words, strict=True):
        assert part in mistake


@pytest.mark.parametrize("split", ["test", "test9"])
def test_missing_data_end_a_generation_before_the_model_is_loaded(toy_data, checkpoints, tmp_path, split) -> None:
    data = own_copy(toy_data, tmp_path)
    remove(data, "test.en-wo.", "test.wo-en.")
    message = refusal_of(set_up_generation, data, checkpoints / "adapted.pt", "--gen-subset", split)
    assert f"no {split} data of en-wo in {data}" in message


def test_generation_without_references_is_fine(toy_data, checkpoints, tmp_path) -> None:
    data = own_copy(toy_data, tmp_path)
    remove(data, "test.wo-en.", "test.en-wo.wo.")
    set_up_generation(data, checkpoints / "adapted.pt").load_dataset("test")


def test_interactive_translation_needs_no_data_but_a_right_checkpoint(toy_data, checkpoints, tmp_path) -> None:
    data = own_copy(toy_data, tmp_path)
    remove(data, "t", "v")
    parser = options.get_interactive_generation_parser
    set_up_generation(data, checkpoints / "adapted.pt", parser=parser)
    with pytest.raises(SystemExit, match="was refused"):
        set_up_generation(data, checkpoints / "hostile.pt", parser=parser)


def damaged_arguments(state: dict) -> None:
    del state["args"].low_rank, state["args"].start_idx


def changed_arguments(state: dict) -> None:
    state["args"].encoder_lora_layer = "0_9"


def damaged_languages(state: dict) -> None:
    state["args"].adapter_languages = '{"names": ["en"'


def other_ranks(state: dict) -> None:
    for name in [name for name in state["model"] if name.endswith("lora_A")]:
        state["model"][name] = state["model"][name][1:]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (damaged_arguments, "holds wrong training arguments"),
        (changed_arguments, "holds wrong training arguments (--encoder-lora-layer 0_9: '9' is not a layer"),
        (damaged_languages, "the checkpoint's table of languages is damaged"),
        (other_ranks, "has decoder.layers.0.encoder_attn.k_proj.lora_A of shape (14, 16), but the model has (15, 16)"),
    ],
)
def test_checkpoint_at_odds_with_itself_is_named(toy_data, tmp_path, change, words) -> None:
    path = write_checkpoint(tmp_path / "model.pt", toy.plugin_flags(toy_data), change)
    message = refusal_of(set_up_generation, toy_data, path)
    assert f"checkpoint {path}" in message
    assert words in message


def runs_in_stock_fairseq(path: Path, marker: Path) -> bool:
    with contextlib.suppress(Exception):
        checkpoint_utils.load_model_ensemble([str(path)])
    ran = marker.exists()
    marker.unlink(missing_ok=True)
    return ran


@pytest.mark.parametrize("key", ["adaptive_softmax_cutoff", "encoder_xformers_att_config"])
@pytest.mark.parametrize("kind", ["stock", "ours"])
def test_argument_that_fairseq_would_run_as_python_is_refused_and_not_run(toy_data, tmp_path, kind, key) -> None:
    marker = tmp_path / "executed"

    def change(state: dict) -> None:
        setattr(state["args"], key, f"open({str(marker)!r}, 'w') and None")

    flags = toy.base_flags(toy_data, *STOCK) if kind == "stock" else toy.plugin_flags(toy_data)
    path = write_checkpoint(tmp_path / "model.pt", flags, change)
    assert kind == "ours" or runs_in_stock_fairseq(path, marker)
    assert f'its argument {key} is "open(' in refusal_of(load_for_generation, toy_data, path)
    assert not marker.exists()


def test_model_of_another_kind_is_not_built_from_a_checkpoint(toy_data, tmp_path) -> None:
    """fairseq's convolutional model evaluates its list of layers."""
    marker = tmp_path / "executed"

    def change(state: dict) -> None:
        state["args"].arch = "fconv"
        state["args"].encoder_layers = f"open({str(marker)!r}, 'w')"

    path = write_checkpoint(tmp_path / "model.pt", toy.base_flags(toy_data, *STOCK), change)
    assert runs_in_stock_fairseq(path, marker)
    assert "architecture is 'fconv'" in refusal_of(load_for_generation, toy_data, path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("{'encoder_activation_direction': 'tgt_tgt'}", "changes encoder_activation_direction, which belongs to the"),
        ("{'dim': 8}", "changes dim, which belongs to the adapters"),
        ("{'adapter_languages': ''}", "changes adapter_languages"),
        ("dropout=0", "--model-overrides dropout=0: expected a dictionary"),
        ("7", "--model-overrides 7: expected a dictionary"),
        ("+" * 99_999 + "7", "+: expected a dictionary"),  # too deep for Python's parser
    ],
)
def test_overrides_that_change_what_adapters_mean_are_refused(toy_data, checkpoints, overrides, words) -> None:
    flags = ("--model-overrides", overrides)
    assert words in refusal_of(set_up_generation, toy_data, checkpoints / "adapted.pt", *flags)


def test_overrides_of_other_arguments_are_taken(toy_data, checkpoints) -> None:
    set_up_generation(toy_data, checkpoints / "adapted.pt", "--model-overrides", "{'dropout': 0.1}")
