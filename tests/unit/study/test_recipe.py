"""Recipes: what they mean, and every mistake in them as one sentence that names it."""

from __future__ import annotations

import pytest

from langspec_lora.errors import UserError
from langspec_lora.study.recipe_file import read_recipe
from tests.studies import RECIPE, Workshop


def test_a_recipe_says_what_it_means(workshop: Workshop) -> None:
    recipe = workshop.recipe(epochs="9")
    full, lslo = recipe.variants
    assert recipe.name == "recipe"
    assert recipe.data == {"toy": ("make-example", "--seed", "3")}
    assert recipe.variables == {"epochs": "9"}
    assert recipe.seeds == [1, 2]
    assert (full.flags, full.rates, full.epoch) == (("--all",), ("0.1", "0.01", "0.001"), "last")
    assert (lslo.flags, lslo.rates, lslo.epoch) == (("--own",), ("0.1", "0.01", "0.001"), "best")
    assert (recipe.base.flags, recipe.base.checkpoint) == (("{toy}", "--task", "translation", "--max-epoch", "2"), "")
    assert recipe.compare_with == ("base", "full")


def test_flags_are_split_as_by_a_shell(workshop: Workshop) -> None:
    workshop.change("full: --all", "full: |\n    --adam-betas '(0.9, 0.98)'\n    --x=\"a b\"")
    assert workshop.recipe().variants[0].flags == ("--adam-betas", "(0.9, 0.98)", "--x=a b")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds:", "sedes:", r"unknown key 'sedes'; did you mean seeds\? the keys are"),
        ("seeds: [1, 2]", "", "seeds missing"),
        ("seeds: [1, 2]", "seeds: [1, 2, 1]", "seeds names 1 twice"),
        ("seeds: [1, 2]", "seeds: [1, 1.5]", "seeds '1.5': expected a whole number"),
        ("[0.1, 0.01, 0.001]", "[0.1, 1e-1]", "learning-rates names '0.1' twice"),
        ("[0.1, 0.01, 0.001]", "[0.1, -1]", "'-1' is no learning rate"),
        ("[0.1, 0.01, 0.001]", "[0.1, much]", "'much' is no learning rate"),
        ("learning-rates: [0.1, 0.01, 0.001]", "", "variant full: no learning-rates"),
        ("epoch: best", "epoch: bset", r"variant lslo: epoch 'bset' is unknown; did you mean best\?"),
        ("epoch: best", "epochs: best", r"variant lslo: unknown key 'epochs'; did you mean epoch\?"),
        ("choose-by: bleu", "choose-by: blue", r"choose-by 'blue' is unknown; did you mean bleu\?"),
        ("full: --all", "base: --all", "variant 'base' would be the base"),
        ("full: --all", "../x: --all", r"variant '\.\./x' is no name for a folder"),
        ("full: --all", "full: [--all]", r"variant full must be flags"),
        ("full: --all", "full: --a 'b", "variant full: flags: no closing quotation"),
        ("full: --all", "full: --all\n  full: --other", "the key 'full' is given twice"),
        ("compare-with: [base, full]", "compare-with: [base, lslp]", r"'lslp' is unknown; did you mean lslo\?"),
        (
            "make-example --seed 3",
            "make-exmaple",
            r"data: toy is no command that makes data; did you mean make-example\?",
        ),
        ("make-example --seed 3", "rm -rf /", "data: toy is no command that makes data"),
        ("  toy: make", "  epochs: make", "data 'epochs' has the name of something else"),
        ('  train: "{toy} --task', '  checkpoint: x\n  train: "{toy} --task', "base needs either"),
        ("base:\n  train", "base:\n  epoch: last\n  checkpoint", "base: epoch belongs to 'train'"),
        ('train: "{toy} --max', 'train: [a]\nx: "{toy} --max', "train must be a text"),
        ("compare-with: [base, full]", "threads: 0", "threads '0': expected a whole number of at least 1"),
    ],
)
def test_a_mistake_is_named(workshop: Workshop, old: str, new: str, message: str) -> None:
    workshop.change(old, new)
    with pytest.raises(UserError, match=message):
        workshop.recipe()


def test_all_mistakes_are_listed(workshop: Workshop) -> None:
    workshop.change("seeds: [1, 2]", "seeds: [2, 2]")
    workshop.change("epoch: best", "epoch: worst")
    with pytest.raises(UserError) as error:
        workshop.recipe()
    assert len(error.value.errors) == 2


def test_a_variable_that_the_recipe_does_not_have_is_named(workshop: Workshop) -> None:
    with pytest.raises(UserError, match=r"--set epoch=… sets no variable of the recipe; did you mean epochs\?"):
        workshop.recipe(epoch="3")


@pytest.mark.parametrize("content", ["", "- a", "text", "a: [", "\0"])
def test_what_is_no_recipe_is_refused(workshop: Workshop, content: str) -> None:
    workshop.path.write_text(content)
    with pytest.raises(UserError, match="recipe"):
        workshop.recipe()


def test_a_missing_recipe_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: No such file"):
        read_recipe(tmp_path / "none.yaml", {}, ())


def test_the_recipe_of_these_tests_is_right() -> None:
    assert "{toy}" in RECIPE


def test_a_recipe_can_extend_another(workshop: Workshop) -> None:
    (workshop.folder / "more").mkdir()
    child = workshop.folder / "more" / "child.yaml"
    child.write_text("extends: ../recipe.yaml\nseeds: [7]\nvariables: {size: 3}\nvariants: {full: --x}\n")
    recipe = read_recipe(child, {"epochs": "1"}, ("bleu",))
    assert recipe.seeds == [7]
    assert recipe.variables == {"epochs": "1", "size": "3"}
    assert [variant.name for variant in recipe.variants] == ["full"]
    assert recipe.evaluate == workshop.recipe().evaluate
    assert recipe.name == "child"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: child.yaml", "extends itself"),
        ("extends: [a]", "extends must be the file of a recipe"),
        ("extends: none.yaml", r"none\.yaml: No such file"),
        ("extends: recipe.yaml\nvariables: 3", "variables must map names"),
    ],
)
def test_what_cannot_be_extended_is_named(workshop: Workshop, text: str, message: str) -> None:
    child = workshop.folder / "child.yaml"
    child.write_text(text)
    with pytest.raises(UserError, match=message):
        read_recipe(child, {}, ())
