"""The steps of a study: which there are, in which order, with which commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from langspec_lora.errors import UserError
from langspec_lora.study.plan import Plan
from langspec_lora.study.steps import command_text
from tests.studies import Workshop


def test_each_rate_is_tried_with_the_first_seed_and_each_seed_trains_with_the_chosen_one(workshop: Workshop) -> None:
    plan = Plan(workshop.recipe(), Path("out"), {"full": "0.01", "lslo": "0.1"})
    expected = ["data-toy", "base", "test-base"]
    for name in ("full", "lslo"):
        rates = ("0.1", "0.01", "0.001")
        expected += [f"train-{name}-lr{rate}-seed1" for rate in rates]
        expected += [f"development-{name}-lr{rate}" for rate in rates]
        expected += [f"test-{name}-seed1", f"train-{name}-seed2", f"test-{name}-seed2"]
    assert list(plan.steps) == [*expected, "report", "report-against-full"]
    steps = plan.steps
    words = list(steps["train-full-seed2"].command)
    assert words[:5] == ["fairseq-train", "out/data/toy", "--max-epoch", "4", "--all"]
    assert words[-4:] == ["--seed", "2", "--lr", "0.01"]
    assert words[words.index("--finetune-from-model") + 1] == "out/base/checkpoint_last.pt"
    assert words[words.index("--save-dir") + 1] == "out/train/full/lr0.01-seed2"
    assert steps["test-lslo-seed2"].command == [
        *("langspec-lora", "evaluate", "out/data/toy", "--tokenize", "13a"),
        *("--checkpoint", "out/train/lslo/lr0.1-seed2/checkpoint_best.pt", "--out", "out/test/lslo/seed2"),
    ]
    assert steps["report-against-full"].command == [
        *("langspec-lora", "report", "full=out/test/full/seed1,out/test/full/seed2", "base=out/test/base"),
        *("lslo=out/test/lslo/seed1,out/test/lslo/seed2", "--samples", "10", "--out", "out/report-against-full"),
    ]


def test_what_a_step_needs_comes_before_it_and_is_all_that_its_command_reads(workshop: Workshop) -> None:
    plan = Plan(workshop.recipe(), Path("out"), {"full": "0.01", "lslo": "0.1"})
    seen: dict[str, Path] = {}
    all_needs: dict[str, set[str]] = {}
    for step in plan.steps.values():
        assert set(step.needs) <= set(seen), step.name
        all_needs[step.name] = set(step.needs).union(*(all_needs[name] for name in step.needs))
        made = {str(seen[name]) for name in all_needs[step.name]}
        read = {folder for folder in map(str, seen.values()) for word in step.command if folder in word.split(",")}
        assert read <= made, step.name
        seen[step.name] = step.result if step.kind in ("base", "train") else step.folder


def test_before_a_rate_is_chosen_the_steps_that_need_it_wait(workshop: Workshop) -> None:
    before = Plan(workshop.recipe(), Path("out"), {})
    after = Plan(workshop.recipe(), Path("out"), {"full": "0.01", "lslo": "0.1"})
    assert list(before.steps) == list(after.steps)  # jobs are submitted by these names
    waiting = {name for name, step in before.steps.items() if step.waits}
    assert waiting == {
        f"{kind}-{name}-seed{seed}"
        for name in ("full", "lslo")
        for kind, seed in (("test", 1), ("train", 2), ("test", 2))
    }
    assert not any(step.waits for step in after.steps.values())


def test_one_rate_needs_no_trial(workshop: Workshop) -> None:
    workshop.change("learning-rates: [0.1, 0.01, 0.001]", "learning-rates: 0.1")
    plan = Plan(workshop.recipe(), Path("out"), {})
    assert not any(step.kind == "development" or step.waits for step in plan.steps.values())
    assert [name for name in plan.steps if name.startswith("train-full")] == ["train-full-seed1", "train-full-seed2"]


def test_a_checkpoint_takes_the_place_of_a_training(workshop: Workshop) -> None:
    workshop.change('train: "{toy} --task translation --max-epoch 2"', 'checkpoint: "{weights}/model.pt"')
    workshop.change("  epochs: 4", "  epochs: 4\n  weights: m2m100")
    plan = Plan(workshop.recipe(), Path("out"), {})
    assert "base" not in plan.steps
    assert plan.base == Path("m2m100/model.pt")
    assert plan.steps["test-base"].needs == ("data-toy",)


def test_a_variable_alone_can_stand_for_no_word_or_several(workshop: Workshop) -> None:
    workshop.change("full: --all", "full: --all {more} a-{more}")
    workshop.change("  epochs: 4", "  epochs: 4\n  more: ''")
    for value, words in (("", ["--all", "a-"]), ("--fp16 'x y'", ["--all", "--fp16", "x y", "a---fp16 'x y'"])):
        recipe = workshop.recipe(more=value)
        flags = Plan(recipe, Path("out"), {}).training_flags(recipe.variants[0])
        assert flags[3:] == words


def test_a_place_that_does_not_exist_is_named(workshop: Workshop) -> None:
    workshop.change("full: --all", "full: --x {tyo}/pairs")
    with pytest.raises(UserError, match=r"\{tyo\} is no data made before it and no variable; did you mean toy\?"):
        Plan(workshop.recipe(), Path("out"), {})


def test_data_can_be_made_from_earlier_data_only(workshop: Workshop) -> None:
    workshop.change("  toy: make-example --seed 3", "  late: prepare --train {toy}\n  toy: make-example")
    with pytest.raises(UserError, match=r"\{toy\} is no data made before it"):
        Plan(workshop.recipe(), Path("out"), {})
    workshop.path.write_text(workshop.path.read_text().replace("  late: prepare --train {toy}\n", ""))
    workshop.change("  toy: make-example", "  toy: make-example\n  late: prepare --train {toy}/text")
    step = Plan(workshop.recipe(), Path("out"), {}).steps["data-late"]
    assert step.needs == ("data-toy",)
    assert step.command == ["langspec-lora", "prepare", "--train", "out/data/toy/text", "--out", "out/data/late"]


def test_two_hundred_variants_are_planned_at_once(workshop: Workshop) -> None:
    more = "".join(f"  v{number}: --x\n" for number in range(200))
    workshop.change("variants:\n", f"variants:\n{more}")
    assert len(Plan(workshop.recipe(), Path("out"), {}).steps) == 3 + 202 * 9 + 2


@pytest.mark.parametrize("width", [40, 110])
def test_a_flag_stays_on_the_line_of_its_values(width: int) -> None:
    text = command_text(
        ["prog", "data dir", "--betas", "(0.9, 0.98)", "--langs", "a" * 60, "--x", "--y", "1", "2"], width
    )
    lines = [line.removesuffix(" \\").strip() for line in text.splitlines()]
    assert " ".join(lines) == f"prog 'data dir' --betas '(0.9, 0.98)' --langs {'a' * 60} --x --y 1 2"
    assert any(f"--langs {'a' * 60}" in line for line in lines)
    assert any("--y 1 2" in line for line in lines)
