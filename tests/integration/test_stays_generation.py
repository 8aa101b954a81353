"""What ``fairseq-generate`` can do beside a plain translation, held against stock fairseq on the merged exports."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from fairseq.tasks import FairseqTask
from fairseq_cli import generate

from langspec_lora.cli.main import main
from tests import toy
from tests.bad_input import write_checkpoint
from tests.evaluations import run_stock

TASK = "translation_multi_simple_epoch"
DIRECTIONS = [("en", "wo"), ("sd", "nl")]


@dataclass(frozen=True)
class Models:
    """Two models with adapters, and what stock fairseq can load of them.

    Attributes:
        own: the two checkpoints.
        merged: for each direction, the two merged exports.
        lm: a language model over the same dictionary.
        data: the data folder; a language model's dictionary lies in it.
    """

    own: tuple[Path, Path]
    merged: dict[tuple[str, str], tuple[Path, Path]]
    lm: Path
    data: Path


def shaken(checkpoint: Path, out: Path) -> Path:
    """Writes another model of the same kind: every weight, of base and adapters, is moved by a tenth or so."""
    state = torch.load(checkpoint, weights_only=False)
    torch.manual_seed(8)
    with torch.no_grad():
        for name, value in state["model"].items():
            if value.is_floating_point() and "mask" not in name:
                value.add_(0.15 * value.std(unbiased=False) * torch.randn_like(value))
    torch.save(state, out)
    return out


def write_language_model(data: Path, out: Path) -> Path:
    """Writes a language model of random weights that are large enough to change what is chosen."""
    flags = [str(data), "--task", "language_modeling", "--arch", "transformer_lm", "--max-tokens", "400"]
    flags += ["--decoder-layers", "1", "--decoder-embed-dim", "16", "--decoder-ffn-embed-dim", "16"]
    flags += ["--decoder-attention-heads", "2", "--share-decoder-input-output-embed"]

    def fill(state: dict) -> None:
        torch.manual_seed(9)
        for name, value in state["model"].items():
            if name.endswith("weight") and value.dim() == 2:
                value.normal_(std=0.5)

    return write_checkpoint(out, flags, fill)


@pytest.fixture(scope="module")
def models(adapted, toy_data, tmp_path_factory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    data = Path(shutil.copytree(toy_data, folder / "bin"))
    shutil.copy(toy_data.parent / "dict.txt", data / "dict.txt")
    own = (adapted, shaken(adapted, folder / "shaken.pt"))
    merged = {}
    for source, target in DIRECTIONS:
        merged[source, target] = tuple(folder / f"{source}-{target}.{number}.pt" for number in range(len(own)))
        for checkpoint, out in zip(own, merged[source, target], strict=True):
            command = ["export", checkpoint, "--format", "merged", "-s", source, "-t", target, "--out", out]
            assert main([str(word) for word in command]) == 0
    return Models(own, merged, write_language_model(data, folder / "lm.pt"), data)


def generated(models: Models, direction: tuple[str, str], paths: tuple[Path, ...], out: Path, *flags: object) -> dict:
    """The lines of ``fairseq-generate``'s output file by their mark (``H-3``); with stock's task for stock models."""
    source, target = direction
    task = TASK if paths[0] in models.merged[direction] else f"{TASK}_lora"
    build_generator = FairseqTask.build_generator

    def build_seeded(*args, **kwargs):
        torch.manual_seed(4)  # fairseq's --seed comes before the model is built, which draws more numbers with adapters
        return build_generator(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FairseqTask, "build_generator", build_seeded)
        run_stock(
            patch,
            generate,
            *(models.data, "--path", ":".join(map(str, paths)), "--task", task, "-s", source, "-t", target),
            *("--langs", ",".join(toy.LANGUAGES), "--lang-pairs", ",".join(toy.PAIRS)),
            *("--fixed-dictionary", models.data / "dict.txt", "--encoder-langtok", "src", "--decoder-langtok"),
            *("--gen-subset", "test", "--required-batch-size-multiple", "1", "--max-tokens", "90", "--max-len-b", "15"),
            *("--results-path", out, "--cpu", "--num-workers", "0", "--no-progress-bar", *flags),
        )
    lines: dict[str, list[str]] = {}
    for line in (out / "generate-test.txt").read_text(encoding="utf-8").splitlines():
        mark, *fields = line.split("\t")
        lines.setdefault(mark, []).extend(fields)
    return lines


def assert_same(ours: dict[str, list[str]], stock: dict[str, list[str]], kinds: str) -> None:
    """Texts and alignments are the same, scores to a thousandth; every kind of line is there, for every sentence."""
    assert ours.keys() == stock.keys()  # the last line, with the BLEU, too
    for kind in kinds:
        marks = [mark for mark in stock if mark.startswith(f"{kind}-")]
        assert len(marks) == toy.SIZES["test"]
        for mark in marks:
            if kind == "P":
                numbers = [[float(word) for line in lines[mark] for word in line.split()] for lines in (ours, stock)]
                assert numbers[0] == pytest.approx(numbers[1], abs=1e-3)
            elif kind == "H":
                scores = [[float(word) for word in lines[mark][::2]] for lines in (ours, stock)]
                assert scores[0] == pytest.approx(scores[1], abs=1e-3)
                assert ours[mark][1::2] == stock[mark][1::2]
            else:
                assert ours[mark] == stock[mark]


def texts(lines: dict[str, list[str]]) -> list[str]:
    return [fields[1] for mark, fields in lines.items() if mark.startswith("H-")]


@pytest.mark.parametrize(("direction", "kind"), zip(DIRECTIONS, ("hard", "soft"), strict=True))
def test_alignments_are_those_of_stock_fairseq_on_the_merged_export(models, direction, kind, tmp_path) -> None:
    flags = ("--print-alignment", kind)
    ours = generated(models, direction, models.own[:1], tmp_path / "ours", *flags)
    stock = generated(models, direction, models.merged[direction][:1], tmp_path / "stock", *flags)
    assert_same(ours, stock, "HPA")
    assert len({line for mark, fields in ours.items() if mark.startswith("A-") for line in fields}) > 3


@pytest.mark.parametrize("direction", DIRECTIONS, ids="-".join)
def test_a_language_model_beside_us_chooses_as_beside_the_merged_export(models, direction, tmp_path) -> None:
    flags = ("--lm-path", models.lm, "--lm-weight", "0.6")
    ours = generated(models, direction, models.own[:1], tmp_path / "ours", *flags)
    stock = generated(models, direction, models.merged[direction][:1], tmp_path / "stock", *flags)
    assert_same(ours, stock, "HP")
    assert texts(ours) != texts(generated(models, direction, models.own[:1], tmp_path / "alone"))


@pytest.mark.parametrize("direction", DIRECTIONS, ids="-".join)
def test_an_ensemble_translates_as_the_ensemble_of_the_merged_exports(models, direction, tmp_path) -> None:
    ours = generated(models, direction, models.own, tmp_path / "ours")
    assert_same(ours, generated(models, direction, models.merged[direction], tmp_path / "stock"), "HP")
    for number, path in enumerate(models.own):
        assert texts(ours) != texts(generated(models, direction, (path,), tmp_path / str(number)))


OTHERS = {
    "ensemble with alignments": (2, "HPA", ["--print-alignment"]),
    "ensemble with a language model": (2, "HP", ["--lm-path", "LM", "--lm-weight", "0.3"]),
    "n best": (1, "HP", ["--nbest", "3"]),
    "reference scored": (2, "HP", ["--score-reference"]),
    "prefix of the reference": (1, "HP", ["--prefix-size", "2"]),
    "groups of beams": (1, "HP", ["--diverse-beam-groups", "5", "--diverse-beam-strength", "0.8"]),
    "drawn": (2, "HP", ["--sampling", "--sampling-topk", "3", "--nbest", "5"]),
    "length of the source": (1, "HP", ["--match-source-len"]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_ways_to_decode_are_those_of_stock_fairseq_too(models, name, tmp_path) -> None:
    count, kinds, flags = OTHERS[name]
    flags = [models.lm if flag == "LM" else flag for flag in flags]
    direction = DIRECTIONS[0]
    ours = generated(models, direction, models.own[:count], tmp_path / "ours", *flags)
    stock = generated(models, direction, models.merged[direction][:count], tmp_path / "stock", *flags)
    assert_same(ours, stock, kinds)
