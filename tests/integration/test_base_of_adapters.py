"""What may happen to the base of checkpoints that hold adapters only, and to their masks, between trainings."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from langspec_lora.cli.main import main
from langspec_lora.tasks.translation import LanguageSpecificTranslationTask
from tests import toy
from tests.integration.test_export import refusal
from tests.trainings import PLUGIN, TRAINING, command, run, state, train_here


@pytest.fixture
def pruned(runs) -> Path:
    """A checkpoint without its base, four fifths of B pruned."""
    return runs.lean / "checkpoint_last.pt"


def holds_base(path: Path) -> bool:
    return "decoder.layers.0.fc1.weight" in state(path)


def refused_training(data: Path, save: Path, *flags: object) -> str:
    with pytest.raises(SystemExit) as refused:
        toy.build([*toy.plugin_flags(data, *TRAINING), "--save-dir", str(save), *map(str, flags)])
    return str(refused.value.code)


def test_a_base_that_fairseq_would_overwrite_or_delete_is_saved_along(base, toy_data, tmp_path) -> None:
    shutil.copy(base, tmp_path / "checkpoint_best.pt")
    start = ("--finetune-from-model", str(tmp_path / "checkpoint_best.pt"))
    message = refused_training(toy_data, tmp_path, *start, "--save-adapters-only", "True")
    assert "is in --save-dir, where fairseq may overwrite or delete it" in message
    train_here(toy_data, tmp_path, *start, "--max-epoch", "1")
    assert holds_base(tmp_path / "checkpoint1.pt")
    shutil.copy(base, tmp_path / "model.pt")  # which fairseq never touches
    train_here(toy_data, tmp_path / "..", "--finetune-from-model", str(tmp_path / "model.pt"), "--max-epoch", "1")
    assert not holds_base(tmp_path / ".." / "checkpoint1.pt")


def test_a_base_that_changes_while_training_is_saved_along_from_then_on(base, toy_data, tmp_path, monkeypatch) -> None:
    mine = tmp_path / "base.pt"
    shutil.copy(base, mine)
    begin_epoch = LanguageSpecificTranslationTask.begin_epoch

    def change(self, epoch: int, model: torch.nn.Module) -> None:
        begin_epoch(self, epoch, model)
        if epoch == 2:
            mine.write_bytes(b"another")

    monkeypatch.setattr(LanguageSpecificTranslationTask, "begin_epoch", change)
    train_here(toy_data, tmp_path / "out", "--max-epoch", "3", "--finetune-from-model", mine)
    assert [holds_base(tmp_path / "out" / f"checkpoint{epoch}.pt") for epoch in (1, 2, 3)] == [False, True, True]
    saved, expected = state(tmp_path / "out" / "checkpoint3.pt"), state(base)
    for name in expected:
        if name in saved:
            assert torch.equal(saved[name], expected[name]), name


def test_the_path_of_the_base_holds_from_anywhere(base, pruned, toy_data, tmp_path) -> None:
    (tmp_path / "link.pt").symlink_to(base)
    shutil.copy(pruned, tmp_path / "checkpoint_last.pt")
    flags = toy.plugin_flags(toy_data, *TRAINING, "--base-checkpoint", "link.pt", "--save-dir", ".")
    run(command("fairseq-train"), *flags, "--max-epoch", "5", cwd=tmp_path)
    content = torch.load(tmp_path / "checkpoint5.pt", weights_only=False)
    for part in ("model", "task"):  # fairseq-validate asks the second
        assert content["cfg"][part].base_checkpoint == str(tmp_path / "link.pt")
    log = run(
        *(command("fairseq-validate"), str(toy_data), "--user-dir", str(PLUGIN), "--cpu", "--valid-subset", "valid"),
        *("--task", "translation_multi_simple_epoch_lora", "--path", str(tmp_path / "checkpoint5.pt")),
        *("--fixed-dictionary", str(toy_data.parent / "dict.txt"), "--langs", ",".join(toy.LANGUAGES)),
        *("--lang-pairs", "wo-nl", "--decoder-langtok", "--encoder-langtok", "src", "--max-tokens", "500"),
        cwd=tmp_path.parent,
    )
    assert "valid on 'valid' subset" in log


def test_flags_that_say_nothing_or_two_things_are_refused(base, toy_data, tmp_path) -> None:
    start = ("--finetune-from-model", base)
    assert "this training does not start from one" in refused_training(
        toy_data, tmp_path, *start, "--base-checkpoint", tmp_path / "other.pt"
    )
    assert "--store-ema averages weights only" in refused_training(toy_data, tmp_path, *start, "--store-ema")


def test_training_without_pruning_lets_what_was_pruned_grow_and_calls_it_pruned_no_longer(
    pruned, toy_data, tmp_path, capsys
) -> None:
    train_here(toy_data, tmp_path, "--finetune-from-model", str(pruned), "--pruning", "False", "--max-epoch", "2")
    after = state(tmp_path / "checkpoint_last.pt")
    for name in (name for name in after if name.endswith("lora_mask")):
        assert (after[name] == 1).all()
        assert (after[name.replace("mask", "B")] != 0).float().mean() > 0.9
    assert int(after["adapters.mask_epoch"]) == 0
    main(["inspect", str(tmp_path / "checkpoint_last.pt")])
    assert "nothing pruned" in capsys.readouterr().out


def test_languages_that_do_not_train_keep_masks_and_values_bit_for_bit(pruned, toy_data, tmp_path) -> None:
    """Also the minus zeros that other programs may have left where the mask is 0."""
    content = torch.load(pruned, weights_only=False)
    for name, value in content["model"].items():
        if name.endswith("lora_B"):
            value[:11] = torch.where(value[:11] == 0, torch.tensor([0.0, -0.0]).repeat(value.size(1) // 2), value[:11])
    torch.save(content, tmp_path / "odd.pt")
    flags = ("--finetune-from-model", str(tmp_path / "odd.pt"), "--train-languages", "sd", "--max-epoch", "2")
    for name, pruning in (("pruning", "True"), ("dense", "False")):
        train_here(toy_data, tmp_path / name, *flags, "--pruning", pruning)
        before, after = state(tmp_path / "odd.pt"), state(tmp_path / name / "checkpoint_last.pt")
        for entry in (entry for entry in before if "lora_" in entry):
            old, new = before[entry][:11], after[entry][:11]
            assert torch.equal(old, new)
            if old.is_floating_point():
                assert torch.equal(torch.signbit(old), torch.signbit(new))
        assert any(not torch.equal(before[entry][11:], after[entry][11:]) for entry in before if "lora_B" in entry)
        assert all((after[entry][11:] == 1).all() for entry in after if "lora_mask" in entry) is (name == "dense")


def test_the_mean_of_pruned_checkpoints_has_no_minus_zeros_and_stays_small(pruned, tmp_path) -> None:
    paths = [str(pruned.with_name(f"checkpoint{epoch}.pt")) for epoch in (2, 3, 4)]
    main(["average", *paths, "--out", str(tmp_path / "mean.pt")])
    mean = state(tmp_path / "mean.pt")
    for name in (name for name in mean if name.endswith("lora_B")):
        assert not torch.signbit(mean[name][mean[name.replace("lora_B", "lora_mask")] == 0]).any()
    main(["export", str(tmp_path / "mean.pt"), "--format", "adapter", "--out", str(tmp_path / "mean")])
    main(["export", paths[-1], "--format", "adapter", "--out", str(tmp_path / "last")])
    sizes = [(tmp_path / name / "adapter.safetensors").stat().st_size for name in ("mean", "last")]
    assert sizes[0] < 1.05 * sizes[1]


def test_adapters_of_a_checkpoint_in_half_precision_come_back_on_their_base(base, runs, tmp_path) -> None:
    """As ``--fp16`` saves it, which needs a GPU: with every number rounded, the base's too."""
    content = torch.load(runs.whole / "checkpoint1.pt", weights_only=False)
    halves = {name: value.half() if value.is_floating_point() else value for name, value in content["model"].items()}
    torch.save({**content, "model": halves}, tmp_path / "half.pt")
    main(["export", str(tmp_path / "half.pt"), "--format", "adapter", "--out", str(tmp_path / "adapter")])
    back = ["import", str(tmp_path / "adapter"), "--from", "adapter"]
    main([*back, "--base", str(base), "--out", str(tmp_path / "back.pt")])
    one, other = state(tmp_path / "half.pt"), state(tmp_path / "back.pt")
    assert all(torch.equal(one[name], other[name]) for name in one if "lora_" in name)
    changed = torch.load(base, weights_only=False)
    changed["model"]["decoder.layers.1.fc1.bias"][3] += 0.1
    torch.save(changed, tmp_path / "other.pt")
    assert "is not the base model of" in refusal(*back, "--base", tmp_path / "other.pt", "--out", tmp_path / "none.pt")


def test_inspect_counts_the_languages_that_train_and_bears_a_base_that_is_gone(
    base, pruned, toy_data, tmp_path, capsys
) -> None:
    def look(path: Path) -> dict:
        capsys.readouterr()
        main(["inspect", str(path), "--json"])
        return json.loads(capsys.readouterr().out)

    train_here(toy_data, tmp_path, "--finetune-from-model", str(pruned), "--train-languages", "sd", "--max-epoch", "1")
    found = look(tmp_path / "checkpoint_last.pt")
    assert found["trainable"] * 15 == found["adapters"]["parameters"] * 4  # sd has 4 of 15 ranks
    content = torch.load(pruned, weights_only=False)
    for path in (str(toy_data), "a" * 5000, "a\0b", None):
        content["cfg"]["model"].base_checkpoint = path
        torch.save(content, tmp_path / "moved.pt")
        assert look(tmp_path / "moved.pt")["base"]["parameters"] is None
        main(["inspect", str(tmp_path / "moved.pt")])
        assert ("they were in" in capsys.readouterr().out) is (path is not None)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("adapters.base", [300]),
        ("adapters.base", [3.5]),
        ("adapters.base", [200, 201]),
        ("adapters.base", 3),
        ("adapters.manifest", [300, 1]),
        ("adapters.manifest", [123]),
    ],
)
def test_damaged_entries_are_named(entry, value, pruned, tmp_path) -> None:
    content = torch.load(pruned, weights_only=False)
    content["model"][entry] = torch.tensor(value)
    torch.save(content, tmp_path / "damaged.pt")
    direction = ("-s", "wo", "-t", "nl", "--out", tmp_path / "out.pt")
    assert re.search(
        f"{entry} is damaged|numbers in {entry}; expected",
        refusal("export", tmp_path / "damaged.pt", "--format", "merged", *direction),
    )


def test_an_output_that_cannot_be_is_named_before_the_work(pruned, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    direction = ("-s", "wo", "-t", "nl")
    for words in (
        ("export", pruned, "--format", "merged", *direction, "--out", tmp_path / "file" / "x.pt"),
        ("export", pruned, "--format", "adapter", "--out", tmp_path / "file"),
        ("export", pruned, "--format", "peft", *direction, "--out", tmp_path / "file" / "x"),
        ("average", pruned, pruned, "--out", tmp_path / "file" / "x.pt"),
    ):
        assert "file" in refusal(*words)
    assert "file" in refusal("inspect", pruned, "--out", tmp_path / "file")
    assert "target language are both" in refusal(
        "export", pruned, "--format", "merged", "-s", "wo", "-t", "wo", "--out", tmp_path / "x.pt"
    )


def test_a_folder_may_be_called_by_its_dot(pruned, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    main(["export", str(pruned), "--format", "peft", "-s", "wo", "-t", "nl", "--out", "."])
    assert {path.name for path in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
