"""Unused flags: one warning that names them; refused where nothing at all would happen."""

from __future__ import annotations

import logging
import shutil

import pytest

from langspec_lora.tasks.checks.pruning_length import epochs_within
from tests import toy
from tests.bad_input import refusal_of, set_up_generation, write_checkpoint

EVERYTHING = ("--train-languages", "en,fr,nl,wo,sd")


def warnings_of(caplog) -> list[str]:
    ours = [record for record in caplog.records if record.name.startswith("langspec_lora")]
    return [record.message for record in ours if record.levelno == logging.WARNING]


@pytest.fixture
def remarks(toy_data, caplog):
    """What a training command is told before its model is built."""

    def of(*flags: str) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "langspec_lora"):
            toy.build(toy.plugin_flags(toy_data, *flags))
        return warnings_of(caplog)

    return of


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--pruning", "False", "--pruning-t1", "2", "--pruning-t2", "10", "--target-pruning-ratio", "0.9"),
        ("--pruning", "True", "--pruning-t1", "1", "--pruning-t2", "3", "--max-epoch", "4"),
        ("--pruning", "True", "--pruning-t1", "90"),  # nothing ends the training before
        ("--encoder-lora-layer", "none"),
        ("--dim", "8", "--start-idx", "4", "--language-num", "5"),
        EVERYTHING,
        ("--train-languages", "wo,sd", "--lang-pairs", "wo-sd,sd-wo"),
        ("--lang-pairs", "en-fr,en-nl,en-wo,sd-en"),  # src in the encoder's first layer, tgt in all others
    ],
)
def test_training_without_unused_flags_gets_no_warning(remarks, flags) -> None:
    assert remarks(*flags) == []


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--pruning-t1", "5"], "--pruning-t1 5: no effect without --pruning True"),
        (
            ["--pruning", "False", "--pruning-t2", "4", "--target-pruning-ratio", "0.5", "--pruning-scope", "matrix"],
            "--pruning-t2 4, --target-pruning-ratio 0.5, --pruning-scope matrix: no effect without --pruning True",
        ),
        (["--cross-language", "True"], "--cross-language True: no effect without --pruning True"),
        (
            ["--pruning", "True", "--pruning-t1", "50", "--max-epoch", "15"],
            "nothing will be pruned: pruning starts after epoch 50 (--pruning-t1), but this training ends with epoch "
            "15 (--max-epoch 15)",
        ),
        (
            ["--global-pruning", "True", "--pruning-t1", "15", "--max-epoch", "15"],
            "nothing will be pruned: pruning starts after epoch 15 (--pruning-t1), but this training ends with epoch "
            "15 (--max-epoch 15)",
        ),
        (
            # 0.9 - 0.9 (1 - 3 / 10)^3
            ["--pruning", "True", "--max-epoch", "5"],
            "pruning will reach 0.591 instead of --target-pruning-ratio 0.9: its last epoch is 12 (--pruning-t1 plus "
            "--pruning-t2), but this training ends with epoch 5 (--max-epoch 5)",
        ),
        (
            ["--pruning", "True", "--target-pruning-ratio", "0"],
            "--target-pruning-ratio 0: nothing will be pruned",
        ),
        (
            ["--pruning", "True", "--max-epoch", "12", "--pruning-unit", "rank", "--pruning-target", "ab"],
            "--pruning-target ab: no effect with --pruning-unit rank, which prunes whole components",
        ),
        (
            # 0.8 of 2 and 3 are rounded to 2 and 2, of 4 to 3
            [
                *("--pruning", "True", "--max-epoch", "12", "--target-pruning-ratio", "0.8"),
                *("--pruning-unit", "rank", "--pruning-scope", "matrix"),
            ],
            "--target-pruning-ratio 0.8 of the components of each matrix is all of them for adapters of rank 2: "
            "nothing of these will be left; give a smaller share, or another --pruning-scope",
        ),
        (["--pruning-criterion", "random"], "--pruning-criterion random: no effect without --pruning True"),
        (
            ["--encoder-lora-layer", "none", "--encoder-lora-position", "q_k"],
            "--encoder-lora-position q_k: no effect with --encoder-lora-layer none, which adapts no encoder layer",
        ),
        (
            ["--decoder-lora-layer", "none", "--decoder-activation-direction", "tgt_src"],
            "--decoder-activation-direction tgt_src: no effect with --decoder-lora-layer none, which adapts no decoder "
            "layer",
        ),
        (
            ["--lang-pairs", "en-fr,fr-en,nl-en", "--langs", "en,fr,nl,wo,sd"],
            "no direction of --lang-pairs has wo, sd, so their adapters will not train",
        ),
        (
            ["--train-languages", "wo,nl", "--lang-pairs", "en-wo,wo-fr"],
            "no direction of --lang-pairs has nl, so their adapters will not train",
        ),
        (
            [*("--encoder-activation-direction", "tgt_tgt"), "--lang-pairs", "en-fr,nl-fr,wo-fr,sd-fr"],
            "--lang-pairs has en, nl, wo, sd only as source, but the target language selects the adapters in every "
            "adapted layer, so their adapters will not train",
        ),
        (
            [
                *("--encoder-activation-direction", "src_src", "--decoder-activation-direction", "src_src"),
                *("--lang-pairs", "fr-en,fr-nl,fr-wo,fr-sd"),
            ],
            "--lang-pairs has en, nl, wo, sd only as target, but the source language selects the adapters in every "
            "adapted layer, so their adapters will not train",
        ),
        (
            ["--decoder-lora-layer", "none", "--encoder-lora-layer", "0", "--lang-pairs", "en-fr,nl-wo,sd-en"],
            "--lang-pairs has fr, wo only as target, but the source language selects the adapters in every "
            "adapted layer, so their adapters will not train",
        ),
        (
            ["--med-rank", "99", "--langs", "en,fr,wo,sd", "--lang-pairs", "en-wo,wo-sd,sd-fr,fr-en"],
            "--med-rank 99: no effect, since no language of level med is in --langs",
        ),
        (
            ["--langs", "en,fr,wo", "--lang-pairs", "en-wo,wo-fr,fr-en", "--med-rank", "2"],
            "--lang-resources LEVELS names nl, sd, not in --langs: not trained",
        ),
        (
            ["--add-lora", "False", "--dim", "8", "--lora-init", "standard", "--decoder-lora-layer", "1"],
            "--lang-resources LEVELS, --high-rank 5, --med-rank 3, --low-rank 4, --decoder-lora-layer 1, --dim 8, "
            "--lora-init standard: no effect with --add-lora False, which adds no adapters",
        ),
    ],
)
def test_unused_flag_is_named(remarks, toy_data, flags, expected) -> None:
    more = ["--high-rank", "5"] if "--add-lora" in flags else []
    assert expected.replace("LEVELS", str(toy_data.parent / "levels.yaml")) in remarks(*flags, *more)


def test_unused_rank_of_a_level_is_named_if_all_its_languages_have_single_ranks(remarks, tmp_path) -> None:
    levels = tmp_path / "levels.yaml"
    levels.write_text(toy.LEVELS + "ranks: {wo: 6, sd: 7}\n")
    told = remarks("--lang-resources", str(levels), "--low-rank", "30")
    assert told == ["--low-rank 30: no effect, since --lang-resources gives every language of level low its rank"]


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--train-languages", "wo", "--lang-pairs", "en-fr,fr-en"],
            "nothing would train: no direction of --lang-pairs has wo, so their adapters will not train",
        ),
        (
            [*("--train-languages", "en", "--lang-pairs", "en-fr"), "--encoder-activation-direction", "tgt_tgt"],
            "nothing would train: --lang-pairs has en only as source, but the target language selects",
        ),
        (["--pruning", "False", "--pruning-scope", "nonsense"], "--pruning-scope nonsense: expected language"),
        (["--pruning-criterion", "l1"], "--pruning-criterion l1: expected magnitude, random, first-order"),
        (["--pruning-t2", "0"], "--pruning-t2 0: expected"),
        (["--pruning-t1", "-1"], "--pruning-t1 -1: expected"),
        (["--target-pruning-ratio", "1.5"], "--target-pruning-ratio 1.5: expected"),
        (["--cross-language", "True", "--pruning-scope", "matrix"], "give one of them"),
        (["--add-lora", "False", "--lora-init", "nonsense"], "--lora-init nonsense: expected rank or standard"),
        (["--add-lora", "False", "--encoder-lora-layer", "9"], "'9' is not a layer of the encoder"),
        (["--add-lora", "False", "--decoder-lora-position", "x"], "'x' is not a position of the decoder"),
        (["--add-lora", "False", "--encoder-activation-direction", "up"], "'up' is not a side"),
        (["--add-lora", "False", "--med-rank", "0"], "--med-rank: rank 0"),
        (["--add-lora", "False", "--dim", "900"], "reaches feature 900"),
        (["--add-lora", "False", "--start-idx", "3"], "--start-idx 3 needs --dim"),
        (["--add-lora", "False", "--language-num", "99"], "--language-num 99 was given"),
        (["--add-lora", "False", "--lang-resources", "nowhere.yaml"], "nowhere.yaml: No such file"),
        (["--add-lora", "False", "--train-languages", "en"], "--train-languages needs adapters"),
        (["--train-languages", ""], "--train-languages '' is empty; give it a value, or leave it out"),
        (["--train-languages", "en,en"], "--train-languages names 'en' twice"),
        (["--train-languages", "en,"], "--train-languages 'en,' has an empty name"),
        (["--lang-resources", ""], "--lang-resources '' is empty"),
        (["--pruning-scope", ""], "--pruning-scope '' is empty"),
        (["--lora-init", ""], "--lora-init '' is empty"),
        (["--encoder-lora-layer", ""], "--encoder-lora-layer '' is empty"),
        (["--decoder-activation-direction", ""], "--decoder-activation-direction '' is empty"),
        (["--base-checkpoint", ""], "--base-checkpoint '' is empty"),
    ],
)
def test_flag_is_checked_whether_or_not_it_is_used(toy_data, flags, words) -> None:
    assert words in refusal_of(toy.build, toy.plugin_flags(toy_data, *flags))


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--dim", "1_0", "a whole number"),
        ("--low-rank", "٣", "a whole number"),
        ("--language-num", "５", "a whole number"),  # noqa: RUF001
        ("--pruning-t1", "", "a whole number"),
        ("--target-pruning-ratio", "0_1.5", "a number"),
        ("--pruning", "", "True or False"),
    ],
)
def test_loosely_written_number_is_refused(toy_data, flag, value, expected) -> None:
    message = refusal_of(toy.build, toy.plugin_flags(toy_data, flag, value))
    assert f"{flag} {value}: expected {expected}" in message


def test_stock_model_checks_the_flags_of_pruning_too(toy_data, caplog) -> None:
    stock = ("--task", "translation_multi_simple_epoch_lora", "--arch", "transformer")
    assert "--pruning-scope x" in refusal_of(toy.build, toy.base_flags(toy_data, *stock, "--pruning-scope", "x"))
    toy.build(toy.base_flags(toy_data, *stock, "--pruning-t1", "5"))
    assert warnings_of(caplog) == ["--pruning-t1 5: no effect without --pruning True"]


@pytest.mark.parametrize(
    ("updates", "batches", "frequency", "expected"),
    [(10, 5, [1], 2), (11, 5, [1], 3), (10, 5, [2], 4), (10, 5, [5, 1], 3), (1, 100, [4], 1), (3, 1, [4], 3)],
)
def test_limit_of_updates_is_counted_in_epochs(updates, batches, frequency, expected) -> None:
    """Against a plain walk through the epochs, batch by batch."""
    done = epoch = 0
    while done < updates:
        size = frequency[min(epoch, len(frequency) - 1)]
        done += len(range(0, batches, size))
        epoch += 1
    assert epoch == expected
    assert epochs_within(updates, batches, frequency) == expected


def test_limit_of_updates_before_the_target_of_pruning_is_named_once(toy_data, caplog) -> None:
    flags = ("--pruning", "True", "--pruning-t1", "1", "--pruning-t2", "2", "--update-freq", "2")
    task, _ = toy.build(toy.plugin_flags(toy_data, *flags, "--max-update", "1"))
    assert warnings_of(caplog) == []
    task.load_dataset("valid")
    task.get_batch_iterator(task.dataset("valid"), max_tokens=400)
    assert warnings_of(caplog) == []
    task.load_dataset("train")
    for _ in range(2):
        task.get_batch_iterator(task.dataset("train"), max_tokens=400)
    assert warnings_of(caplog) == [
        "nothing will be pruned: pruning starts after epoch 1 (--pruning-t1), but this training ends with epoch 1 "
        "(--max-update 1)"
    ]


def test_training_without_a_limit_of_updates_or_without_pruning_gets_no_warning_about_it(toy_data, caplog) -> None:
    for flags in (("--pruning", "True", "--pruning-t1", "1", "--pruning-t2", "2"), ("--max-update", "1")):
        task, _ = toy.build(toy.plugin_flags(toy_data, *flags))
        task.load_dataset("train")
        task.get_batch_iterator(task.dataset("train"), max_tokens=400)
    assert warnings_of(caplog) == []


def test_model_that_a_resumed_training_does_not_start_from_is_named(remarks, checkpoints, toy_data, tmp_path) -> None:
    base, other = str(checkpoints / "base.pt"), str(shutil.copy(checkpoints / "base.pt", tmp_path / "other.pt"))
    save = ("--save-dir", str(tmp_path))
    last = tmp_path / "checkpoint_last.pt"
    write_checkpoint(last, toy.plugin_flags(toy_data, "--finetune-from-model", base))
    assert remarks(*save, "--finetune-from-model", base) == []
    assert remarks(*save) == []
    assert remarks(*save, "--finetune-from-model", other) == [
        f"--finetune-from-model {other}: no effect, since training continues from {last}, which was started from "
        f"{base}; give another --save-dir to start a new run"
    ]
    write_checkpoint(last, toy.plugin_flags(toy_data))
    assert "which was not started from a model" in remarks(*save, "--finetune-from-model", base)[0]


def test_initialisation_of_adapters_that_a_checkpoint_holds_is_named(remarks, checkpoints, tmp_path) -> None:
    path = str(checkpoints / "adapted.pt")
    start = ("--save-dir", str(tmp_path), "--finetune-from-model")
    assert remarks(*start, path, "--lora-init", "standard") == [
        f"--lora-init standard: no effect, since checkpoint {path} already has all adapters"
    ]
    assert remarks(*start, path) == []
    assert remarks(*start, str(checkpoints / "base.pt"), "--lora-init", "standard") == []


def test_unused_flags_of_a_translation_are_named(toy_data, checkpoints, caplog) -> None:
    path = checkpoints / "adapted.pt"
    set_up_generation(toy_data, path)
    assert warnings_of(caplog) == []
    base = str(checkpoints / "base.pt")
    set_up_generation(toy_data, path, "--pruning", "True", "--base-checkpoint", base)
    assert warnings_of(caplog) == [
        f"--base-checkpoint {base}: no effect, since {path} contains the base",
        "--pruning True: no effect here; only fairseq-train prunes",
    ]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--base-checkpoint", ""], "--base-checkpoint '' is empty"),
        (["--pruning-scope", "nonsense"], "--pruning-scope nonsense: expected"),
    ],
)
def test_flags_of_a_translation_are_checked_too(toy_data, checkpoints, flags, words) -> None:
    assert words in refusal_of(set_up_generation, toy_data, checkpoints / "adapted.pt", *flags)


def test_unused_absent_languages_flag_is_named(toy_data, checkpoints, tmp_path, caplog) -> None:
    move = ("--absent-languages", "move")
    toy.build(toy.plugin_flags(toy_data, "--add-lora", "False", *move, "--save-dir", str(tmp_path)))
    assert "--absent-languages move: no effect with --add-lora False" in caplog.text
    caplog.clear()
    toy.build(toy.plugin_flags(toy_data, *move, "--save-dir", str(tmp_path)))
    assert "--absent-languages" not in caplog.text
    set_up_generation(toy_data, checkpoints / "adapted.pt", *move)
    assert "--absent-languages move: no effect here; only fairseq-train updates adapters" in caplog.text
