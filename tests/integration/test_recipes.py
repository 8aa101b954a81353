"""The recipes in configs/recipes: first lines, flags, numbers; and studies of them, with stand-ins for their files."""

from __future__ import annotations

import argparse
import json
import random
import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import combinations, permutations, takewhile
from pathlib import Path

import pytest
import torch
from fairseq import options
from fairseq.data import Dictionary

from langspec_lora.cli.commands import parser_of
from langspec_lora.cli.main import main
from langspec_lora.cli.study import _variables
from langspec_lora.data.vocabulary import dictionary_text, train_sentencepiece
from langspec_lora.evaluation.metrics import USUAL_METRICS
from langspec_lora.resources import read_resources
from langspec_lora.study.plan import Plan
from langspec_lora.study.recipe import BASE, Recipe
from langspec_lora.study.recipe_file import read_recipe
from tests import ROOT, toy
from tests.recipes import quick_commands  # noqa: F401

pytestmark = pytest.mark.slow

RECIPES = sorted((ROOT / "configs" / "recipes").glob("*.yaml"))
PUBLISHED = ROOT / "README.md"
M2M100_WORDS = 256_206  # rows of the embedding of M2M100 615M
TATOEBA_WORDS = 8_013
CLAIM = re.compile(r"(?<![\w-])([a-z][\w-]*) (\d[\d,]*\d)(?= ·|$)", re.MULTILINE)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that sees the repository's own, as the launch lines need."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def comments(path: Path) -> list[str]:
    """The lines of the comment that a recipe begins with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines)]


def read(path: Path, given: Mapping[str, str] | None = None) -> Recipe:
    return read_recipe(path, given or {}, USUAL_METRICS)


def stand_in_weights(plan: Plan) -> None:
    """An empty file in place of a base that is downloaded: flags are checked before it is read."""
    if plan.recipe.base.checkpoint:
        plan.base.parent.mkdir(parents=True, exist_ok=True)
        plan.base.touch()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_begins_with_the_line_that_launches_it(path, folder) -> None:
    program, command, *words = shlex.split(comments(path)[0])
    assert (program, command) == ("langspec-lora", "study")
    args = parser_of("study").parse(words)
    assert args.recipe.resolve() == path
    assert read(path, _variables(args.set)).name == path.stem


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_dry_run_prints_every_command_and_fairseq_takes_its_flags(path, folder, capsys) -> None:
    recipe = read(path.relative_to(ROOT))
    plan = Plan(recipe, Path("out"), {})
    stand_in_weights(plan)
    assert main(["study", str(path.relative_to(ROOT)), "--out", "out", "--dry-run"]) == 0
    output = capsys.readouterr().out
    blocks = [block.partition("\n") for block in output.strip().split("\n\n")]
    assert [block[0].split()[1] for block in blocks] == list(plan.steps)
    seen = set()
    for head, _, command in blocks:
        program, *words = shlex.split(command.replace("\\\n", ""))
        step = plan.steps[head.split()[1]]
        assert [program, *words] == list(step.command)
        if program == "fairseq-train" and step.variant not in seen and not step.waits:
            seen.add(step.variant)
            args = options.parse_args_and_arch(options.get_training_parser(), words)
            assert args.save_dir == str(step.folder)
    assert seen >= {variant.name for variant in recipe.variants}
    assert not Path("out").exists()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_variant_chooses_among_as_many_rates_and_what_prunes_takes_its_last_epoch(path, folder) -> None:
    recipe = read(path)
    assert len({len(variant.rates) for variant in recipe.variants}) == 1
    plan = Plan(recipe, Path("out"), {})
    for variant in recipe.variants:
        assert variant.epoch == "last" or "--pruning" not in plan.training_flags(variant)


@pytest.mark.parametrize("name", ["flores101_12", "flores101_30", "flores101_12_english"])
def test_the_recipes_of_flores_train_with_the_published_flags(name, folder) -> None:
    published = re.search(r"fairseq-train \$DATA_BIN (.*?)```", PUBLISHED.read_text(), re.DOTALL)[1]
    words = shlex.split(published.replace("\\\n", " ").replace("langspec_lora ", f"{ROOT}/langspec_lora "))
    recipe = read(ROOT / "configs" / "recipes" / f"{name}.yaml")
    plan = Plan(recipe, Path("out"), {})
    (pruned,) = (variant for variant in recipe.variants if variant.name == "lslo-pruned")
    assert pruned.rates[1] == "3e-3"
    ours = [*plan.training_flags(pruned), *plan.own_flags(Path("checkpoints"), recipe.seeds[0], pruned.rates[1])]
    found = [
        vars(options.parse_args_and_arch(options.get_training_parser(), flags)) for flags in (["data", *words], ours)
    ]
    differing = {key for key, value in found[0].items() if found[1][key] != value}
    # The user's paths, and what another set of languages changes; checkpoints of each epoch are not kept.
    free = {"data", "langs", "lang_pairs", "save_dir", "finetune_from_model", "lang_resources"}
    others = {"language_num"} if name == "flores101_30" else set()
    assert differing - free == {"keep_last_epochs", "no_epoch_checkpoints"} | others


def parsed(plan: Plan, name: str) -> argparse.Namespace:
    """The arguments of a variant's training."""
    variant = next(variant for variant in plan.recipe.variants if variant.name == name)
    flags = [*plan.training_flags(variant), *plan.own_flags(Path("x"), 1, "1")]
    return options.parse_args_and_arch(options.get_training_parser(), flags)


def features(args: argparse.Namespace, stack: str, position: str) -> int:
    """How many features an adapter of rank 1 reads and writes."""
    width, ffn = getattr(args, f"{stack}_embed_dim"), getattr(args, f"{stack}_ffn_embed_dim")
    sizes = {"fc1": (width, ffn), "fc2": (ffn, width)}.get(position, (width, width))
    return sum(args.dim or size for size in sizes)


def adapter_parameters(plan: Plan, name: str, pairs: Sequence[tuple[str, str]] = ()) -> int:
    """The numbers in A and B of a variant, counted stack by stack, position by position and key by key from its flags.

    Args:
        plan: of the recipe.
        name: the variant.
        pairs: the language pairs of the data.
    """
    args = parsed(plan, name)
    levels = read_resources(args.lang_resources).levels
    ranks: dict = {language: getattr(args, f"{level}_rank") for language, level in levels.items()}
    assert list(ranks) == args.langs
    if args.adapter_key == "shared":
        ranks = {"all": args.shared_rank}
    elif args.adapter_key == "direction":
        ranks = {way: max(ranks[one] for one in way) for pair in pairs for way in permutations(pair)}
    total = 0
    for stack in ("encoder", "decoder"):
        layers = getattr(args, f"{stack}_layers")
        for position in getattr(args, f"{stack}_lora_position").split("_"):
            copies = 2 if args.weight_learning else 1  # of the source and of the target
            total += layers * features(args, stack, position) * sum(ranks.values()) * copies
        total += 2 * layers * args.weight_learning  # the two weights of each layer
    return total


def base_parameters(args: argparse.Namespace, words: int) -> int:
    """The numbers in a pre-norm Transformer with one embedding for all: weights, biases and norms.

    Args:
        args: its sizes.
        words: the size of its dictionary.
    """
    total = words * args.encoder_embed_dim
    for stack, attentions in (("encoder", 1), ("decoder", 2)):
        width, ffn = getattr(args, f"{stack}_embed_dim"), getattr(args, f"{stack}_ffn_embed_dim")
        attention, feed_forward, norm = 4 * (width**2 + width), 2 * width * ffn + ffn + width, 2 * width
        total += getattr(args, f"{stack}_layers") * (attentions * (attention + norm) + feed_forward + norm) + norm
    return total


def numbers(plan: Plan, pairs: Sequence[tuple[str, str]], words: int) -> dict[str, int]:
    """The trainable parameters of each variant, by the two functions above."""
    return {
        variant.name: (
            base_parameters(args, words)
            if not (args := parsed(plan, variant.name)).add_lora
            else adapter_parameters(plan, variant.name, pairs)
        )
        for variant in plan.recipe.variants
    }


def tatoeba_pairs() -> list[tuple[str, str]]:
    """The 63 language pairs of the text that the recipe was made for."""
    lacking = {("por", "ces"), ("nld", "ces"), ("tur", "ces")}
    levels = read_resources(ROOT / "configs" / "languages" / "tatoeba12.yaml").levels
    return [pair for pair in combinations(levels, 2) if pair not in lacking]


@pytest.mark.parametrize("name", ["flores101_12", "flores101_12_english", "flores101_30", "tatoeba12"])
def test_the_parameters_that_a_recipe_names_follow_from_its_flags(name, folder) -> None:
    path = ROOT / "configs" / "recipes" / f"{name}.yaml"
    plan = Plan(read(path), Path("out"), {})
    words = TATOEBA_WORDS if name == "tatoeba12" else M2M100_WORDS
    assert claims(path) == numbers(plan, tatoeba_pairs(), words)


def text_of(languages: Sequence[str], count: int, seed: int) -> dict[str, list[str]]:
    draw = random.Random(seed)
    return {
        name: [" ".join("".join(draw.choices(LETTERS, k=3)) for _ in range(draw.randint(2, 4))) for _ in range(count)]
        for name in languages
    }


def write_parallel(text: Mapping[str, Sequence[str]], folder: Path, pairs: Sequence[tuple[str, str]]) -> None:
    """Files A-B.A and A-B.B, line N of both the same sentence; no two pairs have the same sentences."""
    folder.mkdir(parents=True)
    for number, pair in enumerate(pairs):
        for name in pair:
            lines = text[name][number :: len(pairs)]
            (folder / f"{'-'.join(pair)}.{name}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_archive(folder: Path, levels: Path, lines: Mapping[str, int]) -> None:
    """FLORES-101 as its archive holds it, of a few invented lines."""
    for seed, (split, count) in enumerate(lines.items()):
        (folder / split).mkdir(parents=True)
        codes = read_resources(levels).flores
        for name, text in text_of(list(codes), count, seed).items():
            content = "".join(f"{line}\n" for line in text)
            (folder / split / f"{codes[name]}.{split}").write_text(content, encoding="utf-8")


def sizes(width: int) -> str:
    """The flags of a narrow model."""
    return " ".join(
        f"--{stack}-embed-dim {width} --{stack}-ffn-embed-dim {width} --{stack}-attention-heads 2"
        for stack in ("encoder", "decoder")
    )


def write_weights(folder: Path, languages: Sequence[str], width: int) -> None:
    """A random model like M2M100: its twelve layers, its dictionary with language tokens, stored by stock fairseq."""
    folder.mkdir()
    spm = train_sentencepiece(text_of(["any"], 60, 9)["any"], 60)
    (folder / "sentencepiece.bpe.model").write_bytes(spm)
    (folder / "dict.txt").write_text(dictionary_text(spm, languages), encoding="utf-8")
    for name in languages[:2]:
        (folder / f"dict.{name}.txt").write_bytes((folder / "dict.txt").read_bytes())
    flags = (
        f"{folder} --task translation_multi_simple_epoch --langs {','.join(languages)} "
        f"--lang-pairs {'-'.join(languages[:2])} --encoder-langtok src --decoder-langtok "
        f"--arch transformer_wmt_en_de_big --encoder-layers 12 --decoder-layers 12 {sizes(width)} "
        "--encoder-normalize-before --decoder-normalize-before --share-all-embeddings --max-tokens 1 --max-update 1"
    )
    parser = options.get_training_parser()
    args = options.parse_args_and_arch(parser, shlex.split(flags))
    task = toy.tasks.setup_task(toy.task_settings(args))
    torch.manual_seed(4)
    model = task.build_model(toy.model_settings(args))
    args.lang_pairs = ["-".join(pair) for pair in permutations(languages, 2)]
    history = {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 0, "best_loss": 1.0}
    stored = {"args": args, "model": model.state_dict(), "optimizer_history": [history]}
    torch.save({**stored, "extra_state": {"train_iterator": {"epoch": 1}, "val_loss": 1.0}}, folder / "model.pt")
    for name in languages[:2]:
        (folder / f"dict.{name}.txt").unlink()


def copy_of(path: Path, folder: Path, without: Sequence[str] = (), choosing: bool = False) -> Path:
    """A recipe with one seed and one learning rate, whose reports leave out what takes as long with little text.

    Args:
        path: the recipe.
        folder: where to write it.
        without: variants to leave out.
        choosing: whether the first variant chooses among two rates.
    """
    text = re.sub(r"^seeds: .*", "seeds: [1]", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = re.sub(r"^learning-rates: \[(.*?), .*", r"learning-rates: [\1]", text, flags=re.MULTILINE)
    kept = r"\1, \2" if choosing else r"\1"
    text = re.sub(
        r"^    learning-rates: \[(.*?), (.*?), .*", rf"    learning-rates: [{kept}]", text, flags=re.MULTILINE
    )
    text = re.sub(
        r"^report: ",
        "report: --skip intervals,significance,off-target,sentences,degeneration ",
        text,
        flags=re.MULTILINE,
    )
    for name in without:
        text, found = re.subn(rf"^  {name}: >-\n(    .*\n)+", "", text, flags=re.MULTILINE)
        assert found == 1
    (folder / "own").mkdir()
    copy = folder / "own" / path.name
    copy.write_text(text, encoding="utf-8")
    return copy


def run_study(recipe: Path, **variables: str) -> dict[str, dict]:
    """Runs it, and gives the rows of its table by name."""
    settings = [word for name, value in variables.items() for word in ("--set", f"{name}={value}")]
    assert main(["study", str(recipe), "--out", "out", "--jobs", "2", *settings]) == 0
    return {row["name"]: row for row in json.loads(Path("out/results.json").read_text())["rows"]}


def claims(path: Path) -> dict[str, int]:
    """The trainable parameters that a recipe's comment names, by variant."""
    return {name: int(number.replace(",", "")) for name, number in CLAIM.findall("\n".join(comments(path)))}


def check_rows(rows: Mapping[str, Mapping], recipe: Recipe, pairs: Sequence[tuple[str, str]], words: int) -> None:
    """Checks that all variants have rows, in order, and as many trained parameters as their flags say."""
    assert list(rows) == [BASE, *(variant.name for variant in recipe.variants)]
    found = {name: row["trained"] for name, row in rows.items() if name != BASE}
    assert found == numbers(Plan(recipe, Path("out"), {}), pairs, words)


def check_scores(recipe: Recipe, directions: int, sentences: int) -> None:
    """Checks that the base and all variants are scored in all directions, and that every report was written."""
    for folder in ("base", *(f"{variant.name}/seed1" for variant in recipe.variants)):
        scores = json.loads(Path("out/test", folder, "scores.json").read_text())["directions"]
        assert len(scores) == directions
        assert {one["sentences"] for one in scores.values()} == {sentences}
    assert recipe.compare_with == ("base", "full")
    for folder in ("report", "report-against-full"):
        assert Path("out", folder, "report.html").is_file()


@pytest.mark.parametrize("name", ["flores101_12", "flores101_12_english", "flores101_30"])
def test_a_recipe_of_flores_runs(name, folder, quick_commands) -> None:  # noqa: F811
    path = ROOT / "configs" / "recipes" / f"{name}.yaml"
    values = read(path).variables
    languages = list(read_resources(Path(values["levels"])).levels)
    width = {12: 48, 30: 132}[len(languages)]  # the rank of the shared adapter, which must not exceed it
    write_weights(folder / "m2m100", languages, width)
    write_archive(folder / "flores", Path(values["levels"]), {"dev": 1, "devtest": 2})
    given = {
        "archive": "--from flores --valid-lines 1",
        "epochs": "1",
        "precision": "--cpu",
        "half": "--cpu --max-len-b 3 --beam 1",
        "tokenize": "13a",
        "pruning": "--pruning-t1 0 --pruning-t2 1",
        "arch": f"{values['arch']} {sizes(width)}",
        "adapters": values["adapters"].replace("1024", str(width)),
    }
    # With so many directions every step takes seconds; these differ from those of twelve languages in their ranks.
    without = ("lslo-2-2-8", "lslo-8-8-8", "fc") if name == "flores101_30" else ()
    copy = copy_of(path, folder, without)
    rows = run_study(copy, **given)
    recipe = read(copy, given)
    words = len(Dictionary.load("m2m100/dict.txt"))
    check_rows(rows, recipe, [], words)
    check_scores(recipe, len(languages) * (len(languages) - 1), 1)
    report = Path("out/report/report.md").read_text()
    rows_untrained = re.findall(r"^\| (not trained.*?) \| +(\d+) \|", report, re.MULTILINE)
    names = " and ".join(variant.name for variant in recipe.variants)
    assert rows_untrained == ([(f"not trained by {names}", "110")] if name == "flores101_12_english" else [])


def test_the_recipe_of_tatoeba_runs(folder, quick_commands) -> None:  # noqa: F811
    path = ROOT / "configs" / "recipes" / "tatoeba12.yaml"
    pairs = tatoeba_pairs()
    for seed, (split, lines) in enumerate({"pretrain": 3, "finetune": 2, "valid": 1, "test": 1}.items()):
        text = text_of(sorted({name for pair in pairs for name in pair}), lines * len(pairs), seed)
        write_parallel(text, folder / "tatoeba12" / split, pairs)
    given = {
        "vocabulary": "60",
        "updates": "1",
        "epochs": "1",
        "precision": "--cpu",
        "half": "--cpu --max-len-b 3 --beam 1",
        "pruning": "--pruning-t1 0 --pruning-t2 1",
    }
    copy = copy_of(path, folder, choosing=True)
    rows = run_study(copy, **given)
    recipe = read(copy, given)
    assert [rates for rates in (row["rates"] for row in [*rows.values()][1:]) if rates] == [rows["full"]["rates"]]
    check_rows(rows, recipe, pairs, len(Dictionary.load("out/data/pretrain/data-bin/dict.eng.txt")))
    check_scores(recipe, 126, 1)
