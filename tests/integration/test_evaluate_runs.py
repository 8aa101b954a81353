"""Several models in a call, several processes, other metrics, other searches, and what may go wrong on the way."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fairseq_cli import generate

from langspec_lora.cli.main import main
from langspec_lora.errors import UserError
from langspec_lora.evaluation.evaluate import evaluate
from langspec_lora.evaluation.prepare import check, prepare
from langspec_lora.evaluation.results import read_lines
from langspec_lora.evaluation.scoring import text_sha256
from langspec_lora.generation import GenerationSettings
from langspec_lora.inference.model import LoadedModel
from tests import toy
from tests.bad_input import refusals_of
from tests.evaluations import contents, options, published_hypotheses, run_stock

TWO = "en-fr,wo-en"


def hypotheses(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*.hyp.txt")}


def command(toy_data: Path, out: Path, *flags: object) -> list[str]:
    flags = ("--tokenize", "13a", "--cpu", "--references", toy_data.parent, *flags)
    return ["evaluate", str(toy_data), "--out", str(out), *map(str, flags)]


def without_pairs(checkpoint: Path, path: Path) -> Path:
    """A checkpoint with adapters that have no effect."""
    state = torch.load(checkpoint, weights_only=False)
    for name, value in state["model"].items():
        if name.endswith("lora_B"):
            value.zero_()
    torch.save(state, path)
    return path


def test_base_and_several_checkpoints_in_one_call_are_what_each_is_alone(
    toy_data, adapted, stock, tmp_path, capsys
) -> None:
    base = without_pairs(adapted, tmp_path / "zeroed.pt")
    flags = ("--base", "--names", "base,ours,stock", "--lang-pairs", TWO)
    assert main(command(toy_data, tmp_path / "out", "--checkpoint", adapted, stock, *flags)) == 0
    printed = capsys.readouterr()
    for name, checkpoint in (("base", base), ("ours", adapted), ("stock", stock)):
        evaluate(options(toy_data, checkpoint, tmp_path / name, lang_pairs=TWO))
        assert hypotheses(tmp_path / "out" / name) == hypotheses(tmp_path / name)
        assert f"{name}: 2 directions: BLEU (13a)" in printed.out
    assert hypotheses(tmp_path / "base") != hypotheses(tmp_path / "ours")
    assert f"{stock} has no language-specific adapters; the plain model is evaluated" in printed.err
    assert printed.err.count("has no language-specific adapters") == 1
    with pytest.raises(UserError, match="the checkpoint with its adapters, or without"):
        evaluate(options(toy_data, adapted, tmp_path / "out" / "base", lang_pairs=TWO))


def test_checkpoints_of_one_name_in_two_folders_are_told_apart(toy_data, adapted, tmp_path) -> None:
    paths = [tmp_path / run / "checkpoint_best.pt" for run in ("one", "two")]
    for path in paths:
        path.parent.mkdir()
        shutil.copy(adapted, path)
    assert main(command(toy_data, tmp_path / "out", "--checkpoint", *paths, "--lang-pairs", "en-fr")) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"one-checkpoint_best", "two-checkpoint_best"}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--names", "a"), "--names a for 2 models"),
        (("--names", "a,a"), "--names a,a for 2 models"),
        (("--names", "a,../b"), "leave '/' out"),
        (("--comet", "nothing.ckpt"), "unbabel-comet"),
        (("--sampling", "--match-source-len"), "--sampling and --match-source-len"),
        (("--sampling-topk", "3"), "need --sampling; give it too"),
        (("--diverse-beam-groups", "2"), "--beam 5 is not divisible by"),
    ],
)
def test_a_wrong_flag_is_one_sentence_before_any_model_is_loaded(
    toy_data, adapted, stock, tmp_path, flags, words, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(LoadedModel, "__init__", lambda *args: pytest.fail("a model was loaded"))
    with pytest.raises(SystemExit) as end:
        main(command(toy_data, tmp_path / "out", "--checkpoint", adapted, stock, *flags))
    assert words in str(end.value)
    assert "\n" not in str(end.value)
    assert not (tmp_path / "out").exists()


def test_the_mistakes_of_flags_and_files_are_listed_together(toy_data, adapted, tmp_path) -> None:
    flags = ("--beam", "0", "--batch-size", "0", "--langs", "en,en", "--names", "a", "--checkpoint", adapted)
    found = refusals_of(main, command(toy_data, tmp_path / "out", *flags, tmp_path / "gone.pt"))
    for message, words in zip(found, ("--beam 0", "--batch-size 0", "--names a", "--langs names 'en'"), strict=True):
        assert words in message
    flags = ("--langs", "en,xx", "--checkpoint", adapted)
    found = refusals_of(main, command(toy_data, tmp_path / "out", *flags, tmp_path / "gone.pt", "--beam", "0"))
    assert ["--beam 0" in found[0], "--langs names xx" in found[1], "gone.pt" in found[2]] == [True] * 3
    assert not (tmp_path / "out").exists()


def test_a_missing_second_checkpoint_is_named_before_the_first_is_evaluated(toy_data, adapted, tmp_path) -> None:
    with pytest.raises(SystemExit, match=r"gone\.pt does not exist"):
        main(command(toy_data, tmp_path / "out", "--checkpoint", adapted, tmp_path / "gone.pt"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("language", ["en", "wo"])  # a target, and a language that is only a source
def test_text_of_another_length_is_named_before_anything_is_decoded(toy_data, adapted, tmp_path, language) -> None:
    for name in toy.LANGUAGES:
        shutil.copy(toy_data.parent / f"test.{name}", tmp_path)
    with (tmp_path / f"test.{language}").open("a") as file:
        file.write("one more\n")
    with pytest.raises(UserError, match=f"13 sentences of {language}, but the data of wo-en have 12"):
        prepare(check(options(toy_data, adapted, tmp_path / "out", lang_pairs="wo-en", references=tmp_path)))


def test_every_text_is_kept_once_under_its_hash(results, toy_data) -> None:
    scores = json.loads((results / "scores.json").read_text())["directions"]
    assert len(list((results / "texts").iterdir())) == len(toy.LANGUAGES)
    for pair, score in scores.items():
        for language, key in zip(pair.split("-"), ("source_text_sha256", "references_sha256"), strict=True):
            kept = read_lines(results / "texts" / f"{language}.{score[key][:12]}.txt")
            assert kept == read_lines(toy_data.parent / f"test.{language}")
            assert text_sha256(kept) == score[key]


@pytest.mark.parametrize("tokens", [30, 12000])
def test_directions_share_batches_where_they_fill_none(toy_data, adapted, tmp_path, monkeypatch, tokens) -> None:
    groups = []
    decode = LoadedModel.decode

    def spy(self, datasets, merge, progress):
        groups.append((len(datasets), merge))
        return decode(self, datasets, merge, progress)

    monkeypatch.setattr(LoadedModel, "decode", spy)
    evaluate(options(toy_data, adapted, tmp_path / "out", lang_pairs=TWO, max_tokens=tokens))
    assert groups == ([(1, True)] * 2 if tokens == 30 else [(2, False)])


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({"prefix_size": 3}, ("--prefix-size", "3")),
        ({"diverse_beam_groups": 5}, ("--diverse-beam-groups", "5")),
        ({"diversity_rate": 0.9}, ("--diversity-rate", "0.9")),
        ({"max_len_a": 0.2, "max_len_b": 2}, ("--max-len-a", "0.2", "--max-len-b", "2")),
        ({"lenpen": 4.0, "unnormalized": True}, ("--lenpen", "4", "--unnormalized")),
    ],
)
def test_other_searches_are_those_of_fairseq_generate(
    toy_data, adapted, tmp_path, monkeypatch, results, changes, flags
) -> None:
    generation = GenerationSettings(**changes)
    evaluate(options(toy_data, adapted, tmp_path / "out", lang_pairs="nl-sd", generation=generation))
    run_stock(
        monkeypatch,
        generate,
        *(toy_data, "--path", adapted, "--fixed-dictionary", toy_data.parent / "dict.txt"),
        *("--required-batch-size-multiple", "1", "--langs", ",".join(toy.LANGUAGES)),
        *("--lang-pairs", ",".join(toy.PAIRS), "-s", "nl", "-t", "sd", "--beam", "5"),
        *("--remove-bpe", "sentencepiece", "--task", "translation_multi_simple_epoch_lora"),
        *("--decoder-langtok", "--encoder-langtok", "src", "--gen-subset", "test", "--cpu", *flags),
        *("--results-path", tmp_path / "stock", "--no-progress-bar", "--num-workers", "0"),
    )
    expected = published_hypotheses(tmp_path / "stock" / "generate-test.txt")
    assert read_lines(tmp_path / "out" / "nl-sd.hyp.txt") == expected
    if "lenpen" not in changes:
        assert expected != read_lines(results / "nl-sd.hyp.txt")


def test_sampling_is_the_same_again_and_another_with_another_seed(toy_data, adapted, tmp_path) -> None:
    texts = []
    for run, seed in enumerate((1, 1, 2)):
        generation = GenerationSettings(sampling=True, temperature=2.0, seed=seed)
        out = tmp_path / str(run)
        evaluate(options(toy_data, adapted, out, lang_pairs=TWO if run else "wo-en", generation=generation))
        texts.append((out / "wo-en.hyp.txt").read_text())
    assert texts[0] == texts[1] != texts[2]


def torchrun(processes: int, arguments: list[str]) -> subprocess.CompletedProcess:
    program = [Path(sys.executable).with_name("torchrun"), "--standalone", "--nproc_per_node", processes]
    program += ["-m", "langspec_lora.cli.main"]
    return subprocess.run([str(word) for word in [*program, *arguments]], capture_output=True, text=True, check=False)


def twice(arguments: list[str]) -> subprocess.CompletedProcess:
    """The same command started two times, as in two terminals."""
    program = [sys.executable, "-m", "langspec_lora.cli.main", *arguments]
    pipe = subprocess.PIPE
    started = [subprocess.Popen(program, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    said = [process.communicate() for process in started]
    codes = max(process.returncode for process in started)
    return subprocess.CompletedProcess(program, codes, *map("".join, zip(*said, strict=True)))


@pytest.mark.parametrize("by_torchrun", [True, False])
def test_two_processes_leave_what_one_does(toy_data, adapted, results, tmp_path, by_torchrun) -> None:
    out = tmp_path / "out"
    arguments = command(toy_data, out, "--checkpoint", adapted)
    done = torchrun(2, arguments) if by_torchrun else twice(arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("20 directions: ") == (1 if by_torchrun else 2)
    expected = contents(results)
    settings = json.loads(expected.pop("settings.json"))
    actual = contents(out)
    assert json.loads(actual.pop("settings.json")) == settings
    assert actual == expected


def test_of_two_processes_one_says_what_is_wrong(toy_data, adapted, tmp_path) -> None:
    done = torchrun(2, command(toy_data, tmp_path / "out", "--checkpoint", adapted, "--lang-pairs", "en-xx"))
    assert done.returncode != 0
    assert done.stderr.count("--lang-pairs names en-xx") == 1
    assert not (tmp_path / "out").exists()


def test_comet_scores_source_hypothesis_and_reference_and_stays_when_other_scores_change(
    own, toy_data, adapted, fake_comet
) -> None:
    evaluate(options(toy_data, adapted, own, models={"comet": "Some/model"}))
    content = json.loads((own / "scores.json").read_text())
    texts = [
        read_lines(own / "wo-nl.hyp.txt"),
        *(read_lines(toy_data.parent / f"test.{name}") for name in ("wo", "nl")),
    ]
    expected = [len(h) + 100 * len(s) + 10000 * len(r) for h, s, r in zip(*texts, strict=True)]
    assert content["directions"]["wo-nl"]["comet"] == pytest.approx(100 * sum(expected) / len(expected) / 1e6)
    assert content["signatures"]["comet"] == "model:Some/model|scale:100|version:2.2.9"
    assert (own / "scores.csv").read_text().startswith("source,target,bleu,chrf,comet,sentences\n")
    evaluate(options(toy_data, adapted, own, tokenize="char"))
    again = json.loads((own / "scores.json").read_text())
    assert again["signatures"]["comet"] == content["signatures"]["comet"]
    assert "tok:char" in again["signatures"]["bleu"]
    assert all(again["directions"][pair]["comet"] == content["directions"][pair]["comet"] for pair in toy.PAIRS)


def test_a_comet_model_that_cannot_be_had_is_one_sentence(toy_data, adapted, own, fake_comet) -> None:
    before = contents(own)
    with pytest.raises(UserError, match="--comet Other cannot be downloaded"):
        evaluate(options(toy_data, adapted, own, models={"comet": "Other"}))
    with pytest.raises(UserError, match=r"gone\.ckpt: file not found"):
        evaluate(options(toy_data, adapted, own, models={"comet": "gone.ckpt"}))
    assert contents(own) == before


LIMITED = """
import resource, sys
from langspec_lora.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
sys.exit(main(sys.argv[1:]))
"""


def test_a_full_disk_loses_nothing_that_is_finished(toy_data, adapted, results, tmp_path) -> None:
    """A limit on the size of a file stands in for a full disk: hypotheses fit, the scores of all directions do not."""
    out = tmp_path / "out"
    words = [sys.executable, "-c", LIMITED, *command(toy_data, out, "--checkpoint", adapted)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "scores.json cannot be written: File too large; choose a writable" in done.stderr
    assert "Traceback" not in done.stderr
    assert hypotheses(out) == hypotheses(results)
    assert not (out / "scores.json").exists()
    assert not list(out.glob("*.partial")) + list(out.glob(".*.partial"))
    evaluate(options(toy_data, adapted, out))
    assert json.loads((out / "scores.json").read_text()) == json.loads((results / "scores.json").read_text())
