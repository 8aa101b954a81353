"""Curves of trainings by stock ``fairseq-train``: against its log, an undisturbed training, and ``evaluate``."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import sacrebleu
import torch
from fairseq.logging import progress_bar

from langspec_lora.curve_file import Curves, read_curves
from langspec_lora.evaluation.evaluate import evaluate
from langspec_lora.generation import GenerationSettings
from langspec_lora.tasks.development import DevelopmentScores
from tests import toy
from tests.bad_input import refusal_of
from tests.evaluations import options
from tests.processes import run_together
from tests.trainings import TARGET, TRAINING, train_here

SCORES = (
    *("--eval-translations", "240", "--eval-tokenize", "13a", "--eval-remove-bpe", "none", "--eval-max-len", "8"),
    *("--eval-beam", "1", "--best-checkpoint-metric", "chrf", "--maximize-best-checkpoint-metric"),
)
TOKENIZER = ("--eval-tokenize", "13a")
SEARCH = GenerationSettings(beam=1, max_len_b=8, remove_bpe="none")
EPOCHS = 2
SAVE_ALL = (
    "--max-epoch",
    str(EPOCHS),
    "--pruning-t2",
    "1",
    "--save-interval-updates",
    "4",
    "--validate-interval-updates",
    "4",
)


class Scalars:
    """Stands in for TensorBoard's writer."""

    found: dict[str, list[tuple[str, float, int]]]

    def __init__(self, folder: str) -> None:
        self.name = Path(folder).name

    def add_text(self, *args: object) -> None:
        pass

    def add_scalar(self, key: str, value: float, step: int) -> None:
        Scalars.found.setdefault(self.name, []).append((key, float(value), step))

    def flush(self) -> None:
        pass


@pytest.fixture(scope="module")
def trained(toy_data, tmp_path_factory) -> tuple[Path, list[str]]:
    """A training with scores and with recorders; its folder and its log."""
    folder, lines = tmp_path_factory.mktemp("curves"), []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(f"{record.name} | {record.getMessage()}")
    Scalars.found = {}
    logging.getLogger("fairseq").setLevel(logging.NOTSET)  # a command that ran before may have raised it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress_bar, "SummaryWriter", Scalars)
        patch.setattr(progress_bar, "_tensorboard_writers", {})
        logging.getLogger().addHandler(handler)
        try:
            flags = ("--log-format", "json", "--tensorboard-logdir", folder / "board", "--log-interval", "2")
            train_here(toy_data, folder / "save", *flags, *SCORES, *SAVE_ALL)
        finally:
            logging.getLogger().removeHandler(handler)
    return folder / "save", lines


@pytest.fixture(scope="module")
def curves(trained) -> Curves:
    return read_curves(trained[0] / "curves.jsonl")


def logged(lines: list[str], tag: str) -> list[dict[str, float]]:
    """What fairseq logged as JSON."""
    found = [line.partition(" | ")[2] for line in lines if line.startswith(f"{tag} | {{")]
    return [{key.removeprefix(f"{tag}_"): float(value) for key, value in json.loads(line).items()} for line in found]


def test_epochs_have_the_losses_that_fairseq_logs(trained, curves) -> None:
    expected = logged(trained[1], "train")
    assert [line["epoch"] for line in curves.epochs] == [1, 2]
    for line, fairseqs in zip(curves.epochs, expected, strict=True):
        assert line["loss"] == pytest.approx(fairseqs["loss"], abs=1e-3)
        assert line["updates"] == fairseqs["num_updates"]
        assert line["lr"] == pytest.approx(fairseqs["lr"], rel=1e-3)
        for level in ("high", "med", "low"):
            assert line["by_level"][level] == pytest.approx(fairseqs[f"nll_loss_{level}"], abs=1e-3)


def test_validations_have_the_losses_that_fairseq_logs(trained, curves) -> None:
    expected = logged(trained[1], "valid")
    # after every four updates of 12, and at the end of the first epoch
    assert len(expected) == len(curves.validations) == 4
    for line, fairseqs in zip(curves.validations, expected, strict=True):
        assert line["nll_loss"] == pytest.approx(fairseqs["nll_loss"], abs=1e-3)
        assert line["scores"]["chrf"] == fairseqs["chrf"]
        # all directions have as many sentences of the same lengths
        assert sum(line["by_direction"].values()) / 20 == pytest.approx(line["nll_loss"], abs=2e-3)
        into = line["by_language"]["nll_loss"]["into"]
        assert sum(into.values()) / 5 == pytest.approx(line["nll_loss"], abs=2e-3)


def test_log_has_sparsity_by_level_and_no_language(trained) -> None:
    last = logged(trained[1], "train")[-1]
    assert last["target_sparsity"] == TARGET
    for name in ("sparsity", "sparsity_high", "sparsity_med", "sparsity_low"):
        assert last[name] == pytest.approx(TARGET, abs=2e-3)
    inner = logged(trained[1], "train_inner")
    assert len(inner) == 6
    assert all({"sparsity", "nll_loss_low"} <= line.keys() for line in inner)
    assert not re.search(r"_(wo|en)\b", "".join(trained[1]).replace("main:", ""))


def test_recorders_have_every_language(trained) -> None:
    for tag, count in (("train_inner", 6), ("train", EPOCHS), ("valid", 4)):
        keys = [key for key, _, _ in Scalars.found[tag]]
        for name in toy.LANGUAGES:
            assert keys.count(f"nll_loss_by_target/{name}") == count
    # Each interval has its own mean, and not one of all before it.
    for line in logged(trained[1], "train_inner"):
        place, step = "nll_loss_by_target/", line["num_updates"]
        values = [value for key, value, at in Scalars.found["train_inner"] if key.startswith(place) and at == step]
        assert sum(values) / 5 == pytest.approx(line["nll_loss"], abs=0.02)
    shares = [value for key, value, _ in Scalars.found["train"] if key == "sparsity_by_language/wo"]
    assert shares[-1] == pytest.approx(TARGET, abs=2e-3)
    assert [value for key, value, _ in Scalars.found["valid"] if key == "chrf"] != []


def test_scores_are_those_of_evaluate_and_sacrebleu_on_the_same_checkpoint(trained, curves, toy_data, tmp_path) -> None:
    checkpoint = trained[0] / "checkpoint2.pt"
    evaluate(options(toy_data, checkpoint, tmp_path / "out", subset="valid", generation=SEARCH))
    hypotheses, references = [], []
    for pair in toy.PAIRS:
        lines = (tmp_path / "out" / f"{pair}.hyp.txt").read_text().splitlines()
        hypotheses += lines
        references += (toy_data.parent / f"valid.{pair.partition('-')[2]}").read_text().splitlines()
    assert len(hypotheses) == len(references) == 240
    scores = curves.validations[-1]["scores"]
    bleu = sacrebleu.corpus_bleu(hypotheses, [references], tokenize="13a", force=True).score
    chrf = sacrebleu.corpus_chrf(hypotheses, [references], word_order=2).score
    assert chrf > 1
    assert (scores["bleu"], scores["chrf"]) == (round(bleu, 2), round(chrf, 2))
    levels = {"en": "high", "fr": "high", "nl": "med", "wo": "low", "sd": "low"}
    of = [tuple(levels[name] for name in pair.split("-")) for pair in toy.PAIRS for _ in range(12)]
    some = [n for n, group in enumerate(of) if group == ("high", "low")]
    part = sacrebleu.corpus_chrf([hypotheses[n] for n in some], [[references[n] for n in some]], word_order=2).score
    assert scores["chrf_high_low"] == round(part, 2)


def test_best_checkpoint_is_the_one_of_the_highest_score(trained, curves) -> None:
    best = max(curves.validations, key=lambda line: line["scores"]["chrf"])
    state = torch.load(trained[0] / "checkpoint_best.pt", weights_only=False)
    assert state["extra_state"]["val_loss"] == best["scores"]["chrf"]


def without_times(curves: Curves) -> list[dict]:
    return [{**line, "seconds": 0} for line in (*curves.epochs, *curves.validations)]


@pytest.mark.parametrize("start", ["checkpoint_2_8.pt"])
def test_a_restart_from_an_earlier_checkpoint_writes_the_curves_of_the_undisturbed_training(
    trained, curves, toy_data, tmp_path, start
) -> None:
    save = Path(shutil.copytree(trained[0], tmp_path / "save"))
    shutil.copy(save / start, save / "checkpoint_last.pt")
    train_here(toy_data, save, *SCORES, *SAVE_ALL)
    again = read_curves(save / "curves.jsonl")
    assert without_times(again) == without_times(curves)
    assert again.training == curves.training
    assert [path.name for path in save.glob("curves*")] == ["curves.jsonl"]


def test_a_signal_while_sentences_are_translated_stops_the_training_and_the_restart_loses_nothing(
    curves, toy_data, tmp_path, monkeypatch
) -> None:
    save, translated, stock = tmp_path / "save", [], DevelopmentScores._translate_batch

    def interrupted(self, generator, model, batch):
        translated.append(batch)
        if len(translated) == 1:  # the first of several
            os.kill(os.getpid(), signal.SIGTERM)
        return stock(self, generator, model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(DevelopmentScores, "_translate_batch", interrupted)
        with pytest.raises(SystemExit) as end:
            train_here(toy_data, save, *SCORES, *SAVE_ALL)
    assert end.value.code == 128 + signal.SIGTERM
    assert len(translated) == 1
    assert read_curves(save / "curves.jsonl").validations == []
    train_here(toy_data, save, *SCORES, *SAVE_ALL)
    assert without_times(read_curves(save / "curves.jsonl")) == without_times(curves)


def test_another_training_in_the_folder_starts_its_own_file(trained, toy_data, tmp_path) -> None:
    save = tmp_path / "save"
    save.mkdir()
    shutil.copy(trained[0] / "curves.jsonl", save)
    train_here(toy_data, save, "--max-update", "1", "--seed", "7")
    assert (save / "curves-1.jsonl").read_bytes() == (trained[0] / "curves.jsonl").read_bytes()
    assert len(read_curves(save / "curves.jsonl").epochs) == 1


def test_scores_change_nothing_of_the_training(trained, toy_data, tmp_path) -> None:
    train_here(toy_data, tmp_path / "save", *SAVE_ALL, "--max-epoch", "1")
    states = [torch.load(f / "checkpoint1.pt", weights_only=False)["model"] for f in (trained[0], tmp_path / "save")]
    different = [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]
    assert [name for name in different if not name.endswith("_float_tensor")] == []


@pytest.mark.skipif(not toy.GLOO_SENDS_BOOLS, reason="this torch cannot start several processes here")
@toy.needs_processes_on_cpu
def test_two_processes_write_what_one_does(trained, curves, toy_data, tmp_path) -> None:
    flags = toy.plugin_flags(toy_data, *TRAINING, *SCORES, "--max-epoch", "1", "--save-dir", str(tmp_path / "save"))
    flags[flags.index("--update-freq") + 1] = "1"
    run_together(tmp_path, [flags] * 2)
    together = read_curves(tmp_path / "save" / "curves.jsonl")
    (line,) = together.epochs
    for side in ("into", "from"):
        alone = curves.epochs[0]["by_language"]["loss"][side]
        assert line["by_language"]["loss"][side] == pytest.approx(alone, rel=0.01)  # they have drawn other dropout
    first = together.validations[0]
    into = first["by_language"]["nll_loss"]["into"]
    assert sum(into.values()) / 5 == pytest.approx(first["nll_loss"], abs=2e-3)
    state = tmp_path / "save" / "checkpoint1.pt"
    evaluate(options(toy_data, state, tmp_path / "out", subset="valid", generation=SEARCH))
    hypotheses = "".join((tmp_path / "out" / f"{pair}.hyp.txt").read_text() for pair in toy.PAIRS).splitlines()
    references = "".join((toy_data.parent / f"valid.{pair[-2:]}").read_text() for pair in toy.PAIRS).splitlines()
    chrf = sacrebleu.corpus_chrf(hypotheses, [references], word_order=2).score
    assert together.validations[-1]["scores"]["chrf"] == round(chrf, 2)


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--eval-translations", "-1"], "--eval-translations -1: expected a number of sentences, at least 0"),
        (
            ["--eval-translations", "9", "--eval-beam", "0", *TOKENIZER],
            "--eval-beam 0: expected a number of hypotheses, at least 1",
        ),
        (["--eval-translations", "9", "--eval-tokenize", "words"], "--eval-tokenize words: sacrebleu has no tokenizer"),
        (["--best-checkpoint-metric", "chrf"], "also bleu and chrf with --eval-translations N"),
        (["--best-checkpoint-metric", "chrf", *SCORES[:10]], "give that flag too"),
        (["--best-checkpoint-metric", "bleu_low_med", *SCORES[:10]], "give that flag too"),
        (["--best-checkpoint-metric", "chrf_low", *SCORES[:10]], "validation computes bleu, bsz, chrf, loss"),
    ],
)
def test_flags_that_cannot_work_are_refused_before_a_model_is_built(toy_data, flags, message) -> None:
    assert message in refusal_of(toy.build, toy.plugin_flags(toy_data, *flags))


def test_a_group_that_the_sample_lacks_is_refused_before_the_first_update(toy_data, tmp_path) -> None:
    flags = [*SCORES, "--eval-translations", "2", "--best-checkpoint-metric", "chrf_med_med"]
    message = refusal_of(train_here, toy_data, tmp_path / "save", *flags)
    assert "--best-checkpoint-metric chrf_med_med: the sample of --eval-translations 2 has bleu" in message
    assert not list((tmp_path / "save").glob("*.pt"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--eval-beam", "3"], "--eval-beam 3: no effect without --eval-translations N"),
        (["--eval-translations", "3", "--disable-validation"], "--eval-translations 3: no effect with --disable-val"),
    ],
)
def test_flags_without_effect_are_named(toy_data, caplog, flags, message) -> None:
    toy.build(toy.plugin_flags(toy_data, *flags))
    assert message in caplog.text


def test_without_validation_or_saving_epochs_are_still_recorded(toy_data, tmp_path) -> None:
    flags = ("--disable-validation", "--max-update", "2", "--save-interval", "5", "--report-accuracy")
    train_here(toy_data, tmp_path / "save", *flags)
    (line,) = read_curves(tmp_path / "save" / "curves.jsonl").epochs
    assert line["loss"] > 0
    assert line["by_language"]["nll_loss"]["into"].keys() == set(toy.LANGUAGES)
