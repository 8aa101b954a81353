"""Bad input to a training: one line that says what to change, before a model is built, and nothing is run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from tests import toy
from tests.bad_input import (
    STOCK,
    own_copy,
    refusal_of,
    refusals_of,
    remove,
    write_checkpoint,
)


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--encoder-lora-position", "q_crossq"], "'crossq' is not a position of the encoder"),
        (["--decoder-lora-layer", "0_2"], "'2' is not a layer of the decoder; expected numbers from 0 to 1"),
        (["--encoder-activation-direction", "src"], "for each of the 2 encoder layers, joined by _; got 1"),
        (["--encoder-activation-direction", "src_sideways"], "'sideways' is not a side"),
        (["--language-num", "12"], "--language-num 12 was given, but --langs names 5 languages"),
        (["--low-rank", "0"], "--low-rank: rank 0"),
        (["--dim", "17"], "reaches feature 17, but the narrowest adapted encoder layer has 16"),
        (["--langs", "en,fr,xx", "--lang-pairs", "en-fr"], "no resource level for xx"),
        (["--pruning", "True", "--pruning-t2", "0"], "--pruning-t2 0"),
        (
            ["--pruning", "True", "--pruning-criterion", "first-order", "--optimizer", "sgd"],
            "--pruning-criterion first-order reads the mean squared gradients that Adam keeps, but --optimizer sgd was",
        ),
        (["--pruning", "True", "--target-pruning-ratio", "1"], "--target-pruning-ratio 1.0"),
        (["--pruning", "True", "--pruning-scope", "all"], "--pruning-scope all"),
        (["--pruning", "True", "--add-lora", "False"], "--pruning True needs adapters"),
        (["--add-lora", "False", "--freeze-original-parameters", "True"], "leaves nothing to train"),
        (["--lang-pairs", "en-xx"], "--lang-pairs has en-xx, but 'xx' is not in --langs en,fr,nl,wo,sd"),
        (["--lang-pairs", "en_fr"], "--lang-pairs has 'en_fr'; expected directions such as en-fr"),
        (["--fixed-dictionary", "nowhere.txt"], "dictionary nowhere.txt cannot be read: No such file or directory"),
    ],
)
def test_wrong_flag_of_a_training_ends_it_before_a_model_is_built(toy_data, flags, words) -> None:
    assert words in refusal_of(toy.build, toy.plugin_flags(toy_data, *flags))


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.pt", "does not exist; check the path"),
        ("damaged.pt", "is damaged"),
        ("hostile.pt", r"was refused: it names 'posix.system', which no checkpoint needs"),
        ("deep.pt", "has another size: --encoder-layers is 3 there and 2 in the command; give --encoder-layers 3"),
        ("wide.pt", "--encoder-embed-dim is 32 there and 16 in the command"),
        ("ffn.pt", "--decoder-ffn-embed-dim is 48 there and 24 in the command"),
        (
            "words.pt",
            "has a vocabulary of 71, but the dictionary (with the language tokens of --langs) has 69; give the model's",
        ),
        ("part.pt", "holds only part of the adapters: 1 of"),
        ("three.pt", "has no adapters for wo, sd; it knows en, fr, nl"),
    ],
)
def test_wrong_checkpoint_ends_a_training_before_a_model_is_built(toy_data, checkpoints, tmp_path, name, words) -> None:
    path = checkpoints / name
    start = ["--finetune-from-model", str(path), "--save-dir", str(tmp_path)]
    message = refusal_of(toy.build, toy.plugin_flags(toy_data, *start))
    assert f"checkpoint {path}" in message
    assert words in message
    assert not (checkpoints / "executed").exists()


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize("flag", ["--restore-file", "--continue-once"])
@pytest.mark.parametrize(("name", "words"), [("nowhere.pt", "does not exist"), ("hostile.pt", "was refused")])
def test_checkpoint_to_resume_from_is_checked_too(toy_data, checkpoints, tmp_path, flag, name, words) -> None:
    start = [flag, str(checkpoints / name), "--save-dir", str(tmp_path)]
    assert f"{name} {words}" in refusal_of(toy.build, toy.plugin_flags(toy_data, *start))
    assert not (checkpoints / "executed").exists()


def test_a_dictionary_that_lacks_what_training_appended_is_told_and_can_be_completed(toy_data, tmp_path) -> None:
    """As NLLB's own: its 202 languages, and one more token, came to the dictionary in training."""
    short = (toy_data.parent / "dict.txt").read_text()
    lines = [f"__l{number:02x}_Latn__ 1\n" for number in range(202)] + ["<mask> 1\n"]
    (tmp_path / "whole.txt").write_text(short + "".join(lines))
    whole = ["--fixed-dictionary", str(tmp_path / "whole.txt")]
    base = write_checkpoint(tmp_path / "base.pt", toy.base_flags(toy_data, *STOCK, *whole))
    start = ["--finetune-from-model", str(base), "--save-dir", str(tmp_path / "save")]
    message = refusal_of(toy.build, toy.plugin_flags(toy_data, *start))
    assert (
        "it lacks 203 tokens, those that its training appended after the tokens of its 5 languages, such as <mask>"
        in message
    )
    toy.build(toy.plugin_flags(toy_data, *start, *whole))  # the advice, followed
    longer = write_checkpoint(tmp_path / "short.pt", toy.base_flags(toy_data, *STOCK))
    message = refusal_of(toy.build, toy.plugin_flags(toy_data, *start[:1], str(longer), *start[2:], *whole))
    assert "has a vocabulary of 69, but the dictionary (with the language tokens of --langs) has 272" in message
    assert "appended" not in message


def test_languages_that_a_base_does_not_name_are_asked_for(toy_data, tmp_path) -> None:
    words = [line for line in (toy_data.parent / "dict.txt").read_text().splitlines() if not line.startswith("__")]
    (tmp_path / "short.txt").write_text("".join(f"{line}\n" for line in words))
    base = write_checkpoint(
        tmp_path / "base.pt", toy.base_flags(toy_data, *STOCK), lambda state: setattr(state["args"], "langs", None)
    )
    few = ["--langs", "en,fr", "--lang-pairs", "en-fr", "--fixed-dictionary", str(tmp_path / "short.txt")]
    message = refusal_of(toy.build, toy.plugin_flags(toy_data, *few, "--finetune-from-model", str(base)))
    assert "it lacks 3 tokens, those that its training appended: a token __xx__ for each of its --langs" in message


@pytest.mark.parametrize("how", ["--finetune-from-model", "--restore-file"])
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--encoder-activation-direction", "tgt_tgt"],
            "the source language selects the adapters of encoder layer 0 in checkpoint {}, but the target language "
            "does in this command (--adapter-key, --weight-learning, --encoder-activation-direction); give the flags",
        ),
        (["--decoder-activation-direction", "tgt_src"], "the target language selects the adapters of decoder layer 1"),
        (["--dim", "16", "--start-idx", "0"], "checkpoint {} has --dim 0, but this command has 16"),
    ],
)
def test_adapters_that_another_language_would_select_are_refused(
    toy_data, checkpoints, tmp_path, how, flags, words
) -> None:
    """--dim 16 is the whole width of the tiny model's attention: every size but that of fc1 and fc2 is the same."""
    path = checkpoints / "adapted.pt"
    positions = ["--encoder-lora-position", "q_k", "--decoder-lora-position", "q"]
    narrow = write_checkpoint(tmp_path / "narrow.pt", toy.plugin_flags(toy_data, *positions))
    for checkpoint, more in ((path, []), (narrow, positions)):
        if "--dim" in flags and not more:
            continue
        start = [how, str(checkpoint), "--save-dir", str(tmp_path / "save")]
        message = refusal_of(toy.build, toy.plugin_flags(toy_data, *more, *start, *flags))
        assert words.format(checkpoint) in message


def test_the_direction_of_a_layer_without_adapters_does_not_matter(toy_data, tmp_path) -> None:
    one_layer = ["--encoder-lora-layer", "1"]
    path = write_checkpoint(tmp_path / "one.pt", toy.plugin_flags(toy_data, *one_layer))
    start = ["--finetune-from-model", str(path), "--save-dir", str(tmp_path / "save")]
    other = ["--encoder-activation-direction", "tgt_tgt"]  # layer 1 goes by the target by default, layer 0 not
    toy.build(toy.plugin_flags(toy_data, *one_layer, *other, *start))


@pytest.mark.parametrize("name", ["base.pt", "adapted.pt"])
def test_right_checkpoint_is_not_refused(toy_data, checkpoints, tmp_path, name) -> None:
    flags = toy.plugin_flags(toy_data, "--finetune-from-model", str(checkpoints / name), "--save-dir", str(tmp_path))
    _, model = toy.build(flags)
    model.load_state_dict(torch.load(checkpoints / name, weights_only=False)["model"])


@pytest.mark.usefixtures("unbuilt")
def test_stock_model_is_not_trained_from_a_hostile_checkpoint_either(toy_data, checkpoints, tmp_path) -> None:
    flags = [*STOCK, "--task", "translation_multi_simple_epoch_lora", "--save-dir", str(tmp_path)]
    path = str(checkpoints / "hostile.pt")
    assert "was refused" in refusal_of(toy.build, toy.base_flags(toy_data, *flags, "--finetune-from-model", path))
    assert not (checkpoints / "executed").exists()


@pytest.mark.usefixtures("unbuilt")
def test_hostile_checkpoint_that_a_training_would_resume_from_is_refused(toy_data, checkpoints, tmp_path) -> None:
    shutil.copy(checkpoints / "hostile.pt", tmp_path / "checkpoint_last.pt")
    base = str(checkpoints / "base.pt")
    flags = toy.plugin_flags(toy_data, "--save-dir", str(tmp_path), "--finetune-from-model", base)
    assert f"checkpoint {tmp_path / 'checkpoint_last.pt'} was refused" in refusal_of(toy.build, flags)
    assert not (checkpoints / "executed").exists()


@pytest.mark.usefixtures("unbuilt")
def test_resuming_with_another_order_of_languages_is_refused(toy_data, checkpoints, tmp_path) -> None:
    shutil.copy(checkpoints / "adapted.pt", tmp_path / "checkpoint_last.pt")
    flags = toy.plugin_flags(toy_data, "--save-dir", str(tmp_path), "--langs", "fr,en,nl,wo,sd")
    message = refusal_of(toy.build, flags)
    assert "was trained with --langs en,fr,nl,wo,sd" in message
    assert "resume with the same --langs, or start a new run with --finetune-from-model" in message


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize("flag", [["--reset-optimizer"], ["--reset-dataloader"], ["--restore-file", "other.pt"]])
def test_two_ways_to_start_at_once_are_refused(toy_data, checkpoints, tmp_path, flag) -> None:
    start = ["--finetune-from-model", str(checkpoints / "base.pt"), "--save-dir", str(tmp_path)]
    message = refusal_of(toy.build, toy.plugin_flags(toy_data, *start, *flag))
    assert f"{' '.join(flag)} was given with --finetune-from-model" in message


def test_checkpoint_of_another_architecture_is_named_by_its_first_difference(toy_data, checkpoints) -> None:
    _, model = toy.build(toy.plugin_flags(toy_data))
    state = torch.load(checkpoints / "post-norm.pt", weights_only=False)["model"]
    message = refusal_of(model.load_state_dict, state)
    assert 'does not fit the model: Missing key(s) in state_dict: "encoder.layer_norm.weight"' in message


def binarise(side: Path, sentences: int) -> None:
    """Writes a side of some sentences in place of the one that is there."""
    text = side.parent / "text"
    text.write_text("en1 en2\n" * sentences)
    toy._write_side(side, text, toy.Dictionary.load(str(side.parent.parent / "dict.txt")))
    text.unlink()


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


SPOILT = {
    "no direction": (
        lambda data: remove(data, "train.en-nl.", "train.nl-en."),
        "no train data of en-nl in .*; binarise that direction, or leave it out",
    ),
    "no validation": (lambda data: remove(data, "valid."), "no valid data of en-fr"),
    "one side": (lambda data: remove(data, "train.wo-en.en."), "no train data of wo-en"),
    "no index": (
        lambda data: remove(data, "train.sd-en.sd.idx", "train.en-sd.sd.idx"),
        "no train data of en-sd",
    ),
    "empty": (
        lambda data: (binarise(data / "train.en-fr.en", 0), binarise(data / "train.en-fr.fr", 0)),
        "train data of en-fr in .* are empty; binarise text for that direction",
    ),
    "misaligned": (
        lambda data: binarise(data / "valid.fr-wo.wo", 11),
        "valid data of fr-wo in .* are misaligned: 12 sentences of fr, 11 of wo; binarise both sides again",
    ),
    "cut index": (lambda data: cut(data / "train.en-fr.fr.idx", -1), r"train\.en-fr\.fr\.idx is damaged"),
    "empty index": (lambda data: cut(data / "train.en-fr.fr.idx", 0), r"train\.en-fr\.fr\.idx is damaged"),
    "cut data": (lambda data: cut(data / "train.en-fr.en.bin", -1), r"train\.en-fr\.en\.bin is damaged"),
    "damaged dictionary": (
        lambda data: (data.parent / "dict.txt").write_text("no count\n"),
        r"dictionary .*dict\.txt is damaged \(Incorrect dictionary format",
    ),
}


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize("kind", SPOILT)
def test_wrong_data_end_a_training_before_a_model_is_built(toy_data, tmp_path, kind) -> None:
    spoil, words = SPOILT[kind]
    data = own_copy(toy_data, tmp_path)
    spoil(data)
    assert re.search(words, refusal_of(toy.build, toy.plugin_flags(data)))


@pytest.mark.usefixtures("unbuilt")
def test_a_folder_that_is_gone_lacks_the_data_of_both_splits(toy_data, tmp_path) -> None:
    data = own_copy(toy_data, tmp_path)
    shutil.rmtree(data)
    train, valid = refusals_of(toy.build, toy.plugin_flags(data))
    assert "no train data of en-fr" in train
    assert "no valid data of en-fr" in valid


SEVERAL = {
    "flags, checkpoint and data": (
        "--lr -1 --best-checkpoint-metric bleu --label-smoothing 2 --finetune-from-model {checkpoints}/deep.pt",
        [
            "--lr -1.0: expected rates of at least 0",
            "--label-smoothing 2.0: expected",
            "deep.pt has another size: --encoder-layers is 3 there and 2 in the command",
            "--best-checkpoint-metric bleu: validation computes",
            "no train data of en-nl",
            "valid data of fr-wo",
        ],
    ),
    "flags that cannot be read, languages, flags and checkpoint": (
        "--high-rank two --pruning maybe --lang-pairs en-xx --source-lang yy --dim -1 --encoder-lora-layer 0_9 "
        "--encoder-lora-position q_x --pruning-t2 0 --finetune-from-model gone.pt",
        [
            "--high-rank two: expected a whole number",
            "--pruning maybe: expected True or False",
            "--lang-pairs has en-xx, but 'xx' is not in --langs",
            "--source-lang yy is not in --langs",
            "--source-lang yy: these flags are for translation",
            "gone.pt does not exist",
            "--encoder-lora-layer 0_9: '9' is not a layer",
            "--encoder-lora-position q_x: 'x' is not a position",
            "--pruning-t2 0: expected",
        ],
    ),
    "checkpoint, levels, number of languages and data": (
        "--finetune-from-model gone.pt --lang-resources {checkpoints}/few.yaml --language-num 4 --decoder-layers -1",
        [
            "gone.pt does not exist",
            "--language-num 4 was given, but --langs names 5",
            "no resource level for nl, sd",
            "--decoder-layers -1: expected a whole number from 0",
            "no train data of en-nl",
            "valid data of fr-wo",
        ],
    ),
    "dictionary, levels, empty flags and switches": (
        "--fixed-dictionary nowhere.txt --lang-resources no.yaml --lora-init= --store-ema --fp16 --amp --max-tokens 0",
        [
            "dictionary nowhere.txt cannot be read",
            "--max-tokens 0: expected",
            "--fp16 and --amp were both given",
            "--lora-init '' is empty",
            "--lang-resources no.yaml: No such file",
            "--store-ema averages weights only",
        ],
    ),
    "no adapters": (
        "--add-lora False --freeze-original-parameters True --pruning True --train-languages en --low-rank 0",
        [
            "leaves nothing to train",
            "--low-rank: rank 0",
            "--pruning True needs",
            "--train-languages needs",
            "en-nl",
            "wo",
        ],
    ),
    "nothing to train": (
        "--train-languages sd --lang-pairs en-fr,en-nl,fr-wo --batch-size 0",
        ["--batch-size 0: ", "nothing would train: no direction", "no train data of en-nl", "valid data of fr-wo"],
    ),
}


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize("kind", SEVERAL)
def test_mistakes_of_a_training_that_do_not_depend_on_each_other_are_listed_together(
    toy_data, checkpoints, tmp_path, kind
) -> None:
    flags, words = SEVERAL[kind]
    (checkpoints / "few.yaml").write_text("high: [en, fr]\nlow: [wo]\n")
    data = own_copy(toy_data, tmp_path)
    remove(data, "train.en-nl.", "train.nl-en.")
    binarise(data / "valid.fr-wo.wo", 11)
    given = [word.format(checkpoints=checkpoints) for word in flags.split(" ")]
    found = refusals_of(toy.build, toy.plugin_flags(data, "--save-dir", str(tmp_path / "save"), *given))
    assert len(found) == len(words), found
    for mistake, part in zip(found, words, strict=True):
        assert part in mistake


def test_data_named_for_the_other_direction_are_found_as_fairseq_finds_them(toy_data, tmp_path) -> None:
    data = own_copy(toy_data, tmp_path)
    remove(data, "train.fr-en.", "valid.fr-en.", "test.wo-en.")
    toy.build(toy.plugin_flags(data))


@pytest.mark.usefixtures("unbuilt")
def test_dictionaries_that_differ_between_languages_are_refused(toy_data, tmp_path) -> None:
    data = own_copy(toy_data, tmp_path)
    with (data / "dict.wo.txt").open("a") as file:
        file.write("more 1\n")
    flags = toy.plugin_flags(data)
    place = flags.index("--fixed-dictionary")
    del flags[place : place + 2]
    assert "give one for all languages as --fixed-dictionary" in refusal_of(toy.build, flags)
    (data / "dict.wo.txt").unlink()
    assert "dict.wo.txt cannot be read: No such file" in refusal_of(toy.build, flags)
