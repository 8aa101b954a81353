"""The trainings of a recipe checked by fairseq's own parser and ours, before anything has run."""

from __future__ import annotations

from pathlib import Path

import pytest

from langspec_lora.errors import UserError
from langspec_lora.study.checks import check_trainings
from langspec_lora.study.plan import Plan
from langspec_lora.study.recipe_file import read_recipe
from tests import ROOT

QUICKSTART = ROOT / "configs" / "recipes" / "quickstart.yaml"
LORA = "{lora} {positions} {directions} {ranks}"


def check(folder: Path, change: str = "", data_is_there: bool = False, **given: str) -> None:
    path = folder / "child.yaml"
    path.write_text(f"extends: {QUICKSTART}\n{change}")
    plan = Plan(read_recipe(path, {"levels": "", **given}, ("bleu", "chrf")), folder / "out", {})
    if data_is_there:
        (folder / "out" / "data" / "example").mkdir(parents=True)
        (folder / "out" / "data" / "example" / "finetune.pairs").write_text("du-le,le-du")
    check_trainings(plan)


def variant(flags: str, more: str = "") -> str:
    return f"compare-with: base\nvariants:\n  mine:\n    flags: '{flags}'\n    learning-rates: [0.1, 0.2]\n{more}"


def test_the_recipe_of_the_quickstart_is_right(tmp_path: Path) -> None:
    levels = f"--lang-resources {ROOT}/configs/languages/example.yaml"
    check(tmp_path, levels=levels, data_is_there=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (variant(f"{LORA} --high-rnak 3"), r"variant mine: unrecognized arguments: --high-rnak 3"),
        (variant(f"{LORA} --high-rank two"), r"variant mine: .*--high-rank.*two"),
        (variant(f"{LORA} --seed 3"), r"variant mine: --seed is given by the study itself; the recipe's key 'seeds'"),
        (
            variant(f"{LORA} --lr=3"),
            "variant mine: --lr is given by the study itself; the recipe's key 'learning-rates'",
        ),
        (variant(f"{LORA} --save-dir x"), "variant mine: --save-dir is given by the study itself; leave it out"),
        (variant(f"{LORA} --no-save"), "variant mine: its last checkpoint is to be taken, but with --no-save"),
        (variant(f"{LORA} --no-last-checkpoints"), "--no-last-checkpoints leaves nothing to continue from"),
        (variant(f"{LORA} --max-epoch 0"), "variant mine would train for ever; give --max-epoch or --max-update"),
        (variant(LORA, "    epoch: best"), "its best checkpoint is to be taken, but with --disable-validation"),
        (f"choose-by: loss\n{variant(LORA)}", "chosen by the loss on development text, which needs --task"),
        ("base: {checkpoint: none/model.pt}", r"base: checkpoint none/model\.pt is not a file; the comments in"),
        (
            "base: {train: '{example}/pretrain --arch transformer --lr 1 --lr-x 3'}",
            "base: unrecognized arguments: --lr-x 3",
        ),
        ("base: {train: '{example}/pretrain --lr 1'}", "base: no --arch that fairseq knows"),
        ("base: {train: '{example}/pretrain --arch transformer'}", "base would train for ever"),
        ("base: {train: '{example}/pretrain --save-dir x'}", "base: --save-dir is given by the study itself"),
    ],
)
def test_a_mistake_is_named_with_its_training(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(tmp_path, change)


OUTPUT = "--cpu --no-epoch-checkpoints --required-batch-size-multiple 1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            variant(f"{LORA} {{pruning}}", "    epoch: best"),
            "prunes while it trains, so its best epoch can be one of the first",
        ),
        (
            f"choose-by: loss\n{variant(f'{LORA} --best-checkpoint-metric ppl', '    epoch: best')}",
            "its epoch is the best by --best-checkpoint-metric ppl, but its learning rate is to be chosen by the loss",
        ),
    ],
)
def test_a_best_epoch_that_is_none_is_refused(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(tmp_path, change, output=OUTPUT)


def test_what_needs_the_data_is_checked_once_it_is_there(tmp_path: Path) -> None:
    change = variant(f"{LORA} --language-num 11")
    check(tmp_path, change)
    with pytest.raises(UserError, match="variant mine: --language-num 11 was given, but --langs names 12 languages"):
        check(tmp_path, change, data_is_there=True)


def test_a_rank_that_no_layer_has_is_found_before_the_base_is_trained(tmp_path: Path) -> None:
    levels = f"--lang-resources {ROOT}/configs/languages/example.yaml"
    change = variant("{lora} {positions} --adapter-key shared --shared-rank 65")
    with pytest.raises(UserError, match="variant mine: --shared-rank: rank 65 of the shared adapter exceeds 64"):
        check(tmp_path, change, data_is_there=True, levels=levels)


def test_all_mistakes_are_listed_together(tmp_path: Path) -> None:
    two = variant(f"{LORA} --wrong-one 1") + f"  other:\n    flags: '{LORA} --wrong-two 2'\n    learning-rates: 1\n"
    with pytest.raises(UserError) as error:
        check(tmp_path, two)
    assert len(error.value.errors) == 2
