"""All directions in one process, against the stock commands run direction by direction."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fairseq_cli import generate

from langspec_lora.cli.main import main
from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation import decoding
from langspec_lora.evaluation.evaluate import evaluate
from langspec_lora.evaluation.results import read_run
from langspec_lora.generation import GenerationSettings
from langspec_lora.inference.model import LoadedModel
from tests import toy
from tests.evaluations import contents, options, published_hypotheses, run_stock

PAIRS = [tuple(pair.split("-")) for pair in toy.PAIRS]


@pytest.fixture(scope="module", params=["adapted", "stock"])
def translated(request, toy_data, tmp_path_factory) -> tuple[Path, dict[tuple[str, str], list[str]]]:
    """A checkpoint, and what stock ``fairseq-generate`` makes of some directions with it."""
    checkpoint = request.getfixturevalue(request.param)
    task = {"adapted": "translation_multi_simple_epoch_lora", "stock": "translation_multi_simple_epoch"}[request.param]
    hypotheses = {}
    for source, target in PAIRS[::3]:
        folder = tmp_path_factory.mktemp(f"{source}-{target}")
        with pytest.MonkeyPatch.context() as patch:
            run_stock(
                patch,
                generate,
                *(toy_data, "--path", checkpoint, "--fixed-dictionary", toy_data.parent / "dict.txt"),
                *("--required-batch-size-multiple", "1", "--langs", ",".join(toy.LANGUAGES)),
                *("--lang-pairs", ",".join(toy.PAIRS), "-s", source, "-t", target, "--beam", "5"),
                *("--remove-bpe", "sentencepiece", "--task", task, "--decoder-langtok", "--encoder-langtok", "src"),
                *("--gen-subset", "test", "--dataset-impl", "mmap", "--max-tokens", "90", "--cpu"),
                *("--results-path", folder, "--no-progress-bar", "--num-workers", "0"),
            )
        hypotheses[source, target] = published_hypotheses(folder / "generate-test.txt")
    return checkpoint, hypotheses


@pytest.mark.parametrize("batching", ["auto", "mixed", "direction"])
def test_hypotheses_are_those_of_stock_fairseq_generate_line_for_line(batching, translated, toy_data, tmp_path) -> None:
    checkpoint, expected = translated
    # A small limit, so that there are several batches and groups.
    evaluate(options(toy_data, checkpoint, tmp_path, max_tokens=90, batching=batching))
    for (source, target), hypotheses in expected.items():
        assert (tmp_path / f"{source}-{target}.hyp.txt").read_text().split("\n")[:-1] == hypotheses
        assert len(hypotheses) == toy.SIZES["test"]
    assert len(set(map(tuple, expected.values()))) == len(expected)  # the directions do differ


def test_scores_are_those_of_the_sacrebleu_command_line(results, toy_data) -> None:
    scores = json.loads((results / "scores.json").read_text())["directions"]
    published = (results / "all_direction.spbleu").read_text()
    for source, target in (("en", "fr"), ("wo", "nl")):
        reference, hypotheses = toy_data.parent / f"test.{target}", results / f"{source}-{target}.hyp.txt"
        bleu, chrf = (
            subprocess.run(
                [sys.executable, "-m", "sacrebleu", reference, "-i", hypotheses, "-w", "2", *metric],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for metric in (["--tokenize", "13a"], ["-m", "chrf", "--chrf-word-order", "2"])
        )
        assert f"{source}-{target}\n{bleu}" in published
        assert f"{scores[f'{source}-{target}']['chrf']:.2f}" == f"{json.loads(chrf)['score']:.2f}"


def test_the_published_file_reads_as_the_scores_it_was_written_from(results, tmp_path) -> None:
    shutil.copy(results / "all_direction.spbleu", tmp_path)
    rounded = {direction: round(score, 2) for direction, score in read_run(results, "a").metric("bleu").items()}
    assert read_run(tmp_path, "b").metric("bleu") == rounded
    assert len(rounded) == len(PAIRS)


def test_run_again_decodes_only_the_direction_that_is_missing(own, toy_data, adapted, monkeypatch) -> None:
    before = contents(own)
    (own / "wo-en.hyp.txt").unlink()
    decoded = []
    translate = decoding.Decoder.translate

    def spy(self, directions, *args):
        decoded.extend(directions)
        return translate(self, directions, *args)

    monkeypatch.setattr(decoding.Decoder, "translate", spy)
    evaluate(options(toy_data, adapted, own))
    assert decoded == [Direction("wo", "en")]
    assert contents(own) == before


def test_a_killed_evaluation_keeps_what_was_done_and_goes_on(toy_data, adapted, tmp_path, monkeypatch, results) -> None:
    calls = []
    decode = LoadedModel.decode

    def dies(self, *args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return decode(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(LoadedModel, "decode", dies)
        with pytest.raises(KeyboardInterrupt):
            evaluate(options(toy_data, adapted, tmp_path / "out", batching="direction"))
    assert len(list((tmp_path / "out").glob("*.hyp.txt"))) == 2
    evaluate(options(toy_data, adapted, tmp_path / "out"))
    for path in results.glob("*.hyp.txt"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"generation": GenerationSettings(beam=3)}, "beam was 5 and is 3"),
        ({"dtype": "bf16"}, "it was fp32 and is bf16"),
        ({"encoder_langtok": "tgt"}, "it was src and is tgt"),
    ],
)
def test_other_settings_are_refused_and_nothing_is_changed(own, toy_data, adapted, changes, words) -> None:
    before = contents(own)
    with pytest.raises(UserError, match=words) as refusal:
        evaluate(options(toy_data, adapted, own, **changes))
    assert "--overwrite" in str(refusal.value)
    assert contents(own) == before


def test_another_checkpoint_is_refused_unless_overwrite_is_given(own, toy_data, stock) -> None:
    with pytest.raises(UserError, match="another checkpoint"):
        evaluate(options(toy_data, stock, own))
    pair = {"lang_pairs": "en-fr,fr-en", "overwrite": True}
    scores = evaluate(options(toy_data, stock, own, **pair))
    assert sorted(path.name for path in own.glob("*.hyp.txt")) == ["en-fr.hyp.txt", "fr-en.hyp.txt"]
    assert set(scores) == {Direction("en", "fr"), Direction("fr", "en")}


def test_changed_source_text_is_refused(own, toy_data, adapted, tmp_path) -> None:
    data = Path(shutil.copytree(toy_data, tmp_path / "data"))
    for suffix in ("bin", "idx"):
        shutil.copy(toy_data / f"valid.nl-wo.nl.{suffix}", data / f"test.nl-wo.nl.{suffix}")
    with pytest.raises(UserError, match="source text of nl-wo has changed"):
        evaluate(options(data, adapted, own, references=toy_data.parent))


def test_a_subset_scored_in_the_same_folder_leaves_the_other_scores_there(own, toy_data, adapted) -> None:
    evaluate(options(toy_data, adapted, own, lang_pairs="wo-nl", tokenize="char"))
    content = json.loads((own / "scores.json").read_text())
    assert len(content["directions"]) == len(PAIRS)
    assert "tok:char" in content["signatures"]["bleu"]


def test_without_references_the_binarised_targets_serve(toy_data, adapted, tmp_path, results) -> None:
    evaluate(options(toy_data, adapted, tmp_path / "out", lang_pairs="en-nl", references=None))
    content = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert "binarised" in content["references"]
    joined = "".join((toy_data.parent / "test.nl").read_text().replace(" ", ""))
    assert content["directions"]["en-nl"]["references_sha256"] == sha256(joined)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lang_pairs": "en-xx"}, "names en-xx"),
        ({"langs": ("en", "xx")}, "names xx"),
        ({"subset": "dev"}, "no direction of the subset 'dev'"),
        ({"checkpoints": (Path("nowhere.pt"),)}, "nowhere.pt does not exist"),
        ({"references": Path("nowhere")}, "nowhere/test"),
        ({"dtype": "fp16"}, "--fp16"),
        ({"max_tokens": 0}, "--max-tokens 0"),
        ({"batch_size": -1}, "--batch-size -1"),
        ({"data_bin": Path("nowhere")}, "is not a folder"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_no_folder(toy_data, adapted, tmp_path, changes, words) -> None:
    with pytest.raises(UserError, match=words):
        evaluate(options(toy_data, adapted, tmp_path / "out", **{"references": None, "tokenize": "char", **changes}))
    assert not (tmp_path / "out").exists()


def test_a_dictionary_of_another_model_is_named(toy_data, adapted, tmp_path) -> None:
    shorter = tmp_path / "dict.txt"
    shorter.write_text("".join((toy_data.parent / "dict.txt").read_text().splitlines(keepends=True)[3:]))
    with pytest.raises(SystemExit, match=r"vocabulary of \d+.*--fixed-dictionary"):
        evaluate(options(toy_data, adapted, tmp_path / "out", dictionary=shorter))


def test_a_sentence_longer_than_a_batch_is_named_before_results_are_replaced(own, toy_data, adapted) -> None:
    before = contents(own)
    with pytest.raises(UserError, match=r"test data of \w+-\w+, \w+, line \d+: \d+ tokens, but --max-tokens is 4"):
        evaluate(options(toy_data, adapted, own, max_tokens=4, overwrite=True))
    assert contents(own) == before


def test_the_command_evaluates_and_reports(toy_data, adapted, tmp_path, capsys) -> None:
    out = tmp_path / "with space" / "run"
    flags = ["--checkpoint", str(adapted), "--out", str(out), "--langs", "en,fr,wo", "--tokenize", "char", "--cpu"]
    assert main(["evaluate", str(toy_data), *flags]) == 0
    said = capsys.readouterr()
    assert "6 directions" in said.out
    assert json.loads((out / "scores.json").read_text())["levels"] == {"en": "high", "fr": "high", "wo": "low"}
    printed = said.err.partition("a page to read: langspec-lora ")[2].splitlines()[0]
    assert main(shlex.split(printed)) == 0
    assert "| high→low" in capsys.readouterr().out
    levels = str(toy_data.parent / "levels.yaml")
    assert main(["report", str(out), "--lang-resources", levels]) == 0
    assert "| high→low" in capsys.readouterr().out
    assert (out / "report.md").is_file()
    assert (out / "heatmap.run.png").read_bytes().startswith(b"\x89PNG")
