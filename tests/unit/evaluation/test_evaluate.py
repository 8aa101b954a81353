"""What an evaluation prepares, decodes, keeps, replaces and says, with a stand-in for the decoder."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from langspec_lora.cli.evaluate import mean_scores
from langspec_lora.data.directions import Direction
from langspec_lora.errors import SeveralErrors, UserError
from langspec_lora.evaluation import evaluate as evaluation
from langspec_lora.evaluation.evaluate import counted, evaluate, run
from langspec_lora.evaluation.options import EvaluationOptions
from langspec_lora.evaluation.prepare import Evaluation, check, prepare
from langspec_lora.evaluation.scoring import TargetScorer
from langspec_lora.files import read_lines
from langspec_lora.generation import BatchLimits, GenerationSettings
from tests import toy
from tests.bad_input import STOCK, write_checkpoint
from tests.evaluations import contents, options, stand_in_hypotheses
from tests.reports import write_lines

THREE = "wo-en,en-fr,nl-en"
BY_TARGET = ["nl-en", "wo-en", "en-fr"]


@pytest.fixture(scope="module")
def stock(toy_data, tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("stock") / "stock.pt", toy.base_flags(toy_data, *STOCK))


def prepared(asked: EvaluationOptions) -> Evaluation:
    return prepare(check(asked))


def names(directions) -> list[str]:
    return [str(direction) for direction in directions]


def directions_in(out: Path) -> list[str]:
    return list(json.loads((out / "scores.json").read_text())["directions"])


def test_an_evaluation_knows_what_is_to_be_done(toy_data, checkpoint, tmp_path) -> None:
    planned = prepared(options(toy_data, checkpoint, tmp_path, lang_pairs=THREE))
    assert names(planned.directions) == names(planned.to_score) == THREE.split(",")
    assert names(planned.to_decode) == BY_TARGET  # those into one language follow each other
    assert planned.levels == {"wo": "low", "en": "high", "fr": "high", "nl": "med"}
    assert list(planned.settings["sources"]) == sorted(THREE.split(","))
    assert planned.texts.origin == str(toy_data.parent)
    assert planned.model.langs == toy.LANGUAGES
    assert planned.model.spec.device == "cpu"
    assert not list(tmp_path.iterdir())


def test_without_further_flags_all_directions_are_planned_with_all_that_is_there(
    toy_data, checkpoint, tmp_path
) -> None:
    planned = prepared(options(toy_data, checkpoint, tmp_path, device=None, references=None))
    assert sorted(names(planned.directions)) == sorted(toy.PAIRS)
    spec, tokens = planned.model.spec, planned.model.tokens
    assert (spec.adapters, spec.device, spec.dtype, spec.base_checkpoint) == (True, None, "fp32", None)
    assert (tokens.source, tokens.target) == ("src", "tgt")
    assert planned.settings["generation"] == vars(GenerationSettings())
    assert (planned.options.limits.batch_size, planned.options.batching, planned.options.overwrite) == (
        None,
        "auto",
        False,
    )


def test_flags_reach_the_model_and_its_decoder(toy_data, checkpoint, tmp_path, decoders) -> None:
    dictionary = Path(shutil.copy(toy_data.parent / "dict.txt", tmp_path / "other.txt"))
    generation = GenerationSettings(beam=2)
    flags = {
        **{"encoder_langtok": "tgt", "decoder_langtok": False, "dtype": "bf16", "device": None, "adapters": False},
        **{"base_checkpoint": "base.pt", "max_tokens": 77, "batch_size": 5, "batching": "mixed", "subset": "valid"},
    }
    asked = options(toy_data, checkpoint, tmp_path / "out", dictionary=dictionary, generation=generation, **flags)
    planned = prepared(asked)
    model, spec = planned.model, planned.model.spec
    assert (spec.checkpoints, model.dictionary) == ((checkpoint,), dictionary)
    assert (model.tokens.source, model.tokens.target, spec.dtype) == ("tgt", None, "bf16")
    assert (spec.device, spec.adapters, spec.base_checkpoint) == (None, False, "base.pt")
    assert (asked.limits, asked.batching, asked.subset) == (BatchLimits(77, 5), "mixed", "valid")
    run(planned)
    assert decoders.given == [(asked, model, planned.to_decode)]


def test_levels_are_those_of_the_first_checkpoint_that_has_them(toy_data, checkpoint, stock, tmp_path) -> None:
    pair = {"lang_pairs": "wo-nl"}
    assert prepared(options(toy_data, stock, tmp_path, **pair)).levels == {}
    both = options(toy_data, stock, tmp_path, **pair, checkpoints=(stock, checkpoint))
    assert prepared(both).levels == {"wo": "low", "nl": "med"}


def test_training_directions_are_those_of_the_adapters_or_else_of_a_plain_model(
    toy_data, checkpoint, stock, tmp_path
) -> None:
    pair = {"lang_pairs": THREE}
    trained = frozenset(name for name in toy.PAIRS if "sd" not in name)
    assert len(toy.PAIRS) > len(trained) > 3
    assert prepared(options(toy_data, checkpoint, tmp_path, **pair)).trained == trained
    some = prepared(options(toy_data, checkpoint, tmp_path, lang_pairs="en-wo")).trained
    assert some == {name for name in trained if set(name.split("-")) == {"en", "wo"}}
    assert prepared(options(toy_data, stock, tmp_path, **pair)).trained == trained
    # What the base was trained with, the checkpoint of its adapters does not say.
    assert prepared(options(toy_data, checkpoint, tmp_path, **pair, adapters=False)).trained is None


def test_an_evaluation_leaves_hypotheses_and_scores_and_says_what_it_does(
    toy_data, checkpoint, tmp_path, decoders, capsys
) -> None:
    scores = evaluate(options(toy_data, checkpoint, tmp_path, lang_pairs=THREE))
    assert decoders.asked == [BY_TARGET]
    assert names(scores) == THREE.split(",") == directions_in(tmp_path)
    for direction, score in scores.items():
        lines = stand_in_hypotheses(toy_data, direction)
        assert read_lines(tmp_path / f"{direction}.hyp.txt") == lines
        references = read_lines(toy_data.parent / f"test.{direction.target}")
        assert score == {**score, **TargetScorer(references, "13a").score(direction, lines)}
    said = capsys.readouterr()
    assert not said.out
    assert f"langspec-lora: 3 directions to decode, loading {checkpoint}\n" in said.err
    assert "langspec-lora: loading 3.0 s, decoding 15.0 s, scoring 6.0 s\n" in said.err
    assert re.search(r"decoding: 100%.* 36/36 .*sentence.* 3/3 directions", said.err)
    assert "no language-specific adapters" not in said.err
    assert "process" not in said.err


def test_progress_is_no_line_for_each_direction_in_a_file(toy_data, checkpoint, tmp_path, decoders, capsys) -> None:
    evaluate(options(toy_data, checkpoint, tmp_path))
    said = capsys.readouterr().err
    assert "0/20 directions" in said
    assert "20/20 directions" in said
    assert said.count("\r") < 6


def test_scores_are_there_before_all_is_decoded(toy_data, checkpoint, tmp_path, decoders) -> None:
    decoders.file = tmp_path / "scores.json"
    evaluate(options(toy_data, checkpoint, tmp_path))
    # Each direction takes 7 seconds; the file is written where the last time is more than 30 ago.
    assert decoders.scored == [False] * 5 + [5] * 5 + [10] * 5 + [15] * 5


def test_called_again_only_what_is_missing_is_decoded_and_everything_is_scored(
    toy_data, checkpoint, tmp_path, decoders, capsys
) -> None:
    evaluate(options(toy_data, checkpoint, tmp_path, lang_pairs=THREE))
    scores = evaluate(options(toy_data, checkpoint, tmp_path, lang_pairs="nl-en,sd-en", tokenize="char"))
    assert decoders.asked == [BY_TARGET, ["sd-en"]]
    assert names(scores) == ["nl-en", "sd-en"]
    content = json.loads((tmp_path / "scores.json").read_text())
    assert list(content["directions"]) == ["nl-en", "sd-en", "en-fr", "wo-en"]
    assert list(content["settings"]["sources"]) == sorted(content["directions"])
    assert json.loads((tmp_path / "settings.json").read_text()) == content["settings"]
    assert content["levels"] == {"nl": "med", "en": "high", "sd": "low", "fr": "high", "wo": "low"}
    assert all(
        '"signature": "nrefs:1|case:mixed|eff:no|tok:char' in e["bleu_json"] for e in content["directions"].values()
    )
    before = contents(tmp_path)
    capsys.readouterr()
    evaluate(options(toy_data, checkpoint, tmp_path, lang_pairs="sd-en", tokenize="char"))
    assert len(decoders.given) == 2
    assert "to decode" not in capsys.readouterr().err
    after = contents(tmp_path)
    assert {name: after[name] for name in after if "hyp" in name} == {
        name: before[name] for name in before if "hyp" in name
    }


def test_models_without_adapters_are_said_to_be_evaluated_as_they_are(
    toy_data, checkpoint, tmp_path, decoders, capsys
) -> None:
    decoders.has_adapters = False
    evaluate(options(toy_data, checkpoint, tmp_path, lang_pairs="en-fr", adapters=False))
    said = capsys.readouterr()
    assert f"1 direction to decode, loading {checkpoint} without its adapters\n" in said.err
    assert (
        f"{checkpoint} without its adapters has no language-specific adapters; the plain model is evaluated\n"
        in said.err
    )
    assert not said.out


def test_overwriting_replaces_results_and_nothing_else(toy_data, checkpoint, tmp_path, decoders) -> None:
    evaluate(options(toy_data, checkpoint, tmp_path, lang_pairs=THREE))
    own = ("notes.txt", "report.md", "texts/notes.txt", "texts/en.draft.txt", "hyp.txt")
    for name in own:
        (tmp_path / name).write_text("own")
    texts = {path.name for path in (tmp_path / "texts").iterdir()}
    other = options(
        toy_data, checkpoint, tmp_path, lang_pairs="sd-nl", generation=GenerationSettings(beam=2), overwrite=True
    )
    planned = prepared(other)
    assert names(planned.to_score) == ["sd-nl"]
    assert (tmp_path / "wo-en.hyp.txt").is_file()  # until there is something to put in its place
    run(planned)
    assert {path.name for path in tmp_path.glob("*-*.hyp.txt")} == {"sd-nl.hyp.txt"}
    assert all((tmp_path / name).read_text() == "own" for name in own)
    assert directions_in(tmp_path) == ["sd-nl"]
    assert json.loads((tmp_path / "settings.json").read_text())["generation"]["beam"] == 2
    kept = {path.name for path in (tmp_path / "texts").iterdir()}
    assert {name.partition(".")[0] for name in kept - {"notes.txt", "en.draft.txt"}} == {"sd", "nl"}
    assert len(texts & kept) == 3  # the two of the user, and the Dutch text, which both evaluations have


def test_overwriting_begins_by_removing_all_that_an_evaluation_leaves(
    toy_data, checkpoint, tmp_path, decoders, monkeypatch
) -> None:
    evaluate(options(toy_data, checkpoint, tmp_path, lang_pairs=THREE))
    seen = []
    write = evaluation.write_json
    monkeypatch.setattr(evaluation, "write_json", lambda *args: seen.extend(sorted(contents(tmp_path))) or write(*args))
    evaluate(options(toy_data, checkpoint, tmp_path, lang_pairs="en-fr", overwrite=True))
    assert seen == [".lock"]


def test_comet_is_computed_by_one_process_after_everything_else(
    toy_data, checkpoint, tmp_path, decoders, fake_comet, capsys
) -> None:
    out = tmp_path / "out"
    asked = options(toy_data, checkpoint, out, lang_pairs=THREE, models={"comet": "Some/model"})
    evaluate(options(toy_data, checkpoint, out, lang_pairs="sd-en"))
    scores = evaluate(asked)
    assert all(0 < score["comet"] < 100 for score in scores.values())
    entries = json.loads((out / "scores.json").read_text())["directions"].values()
    assert len(entries) == 4
    assert all("comet" in entry for entry in entries)
    assert re.search(r"COMET: 100%.* 4/4 .*direction", capsys.readouterr().err)
    calls = sys.modules["comet"].calls
    assert len(calls) == 5  # the model, and once for each direction
    assert {call["gpus"] for call in calls[1:]} == {0}


def test_limits_out_of_range_are_refused(toy_data, checkpoint, tmp_path) -> None:
    for flags, words in (({"max_tokens": 0}, "--max-tokens 0"), ({"batch_size": 0}, "--batch-size 0")):
        with pytest.raises(UserError, match=words):
            options(toy_data, checkpoint, tmp_path, **flags)


def test_all_that_is_missing_is_listed_together_before_anything_is_hashed(toy_data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("langspec_lora.files.sha256", lambda path: pytest.fail(f"{path} was hashed"))
    flags = {
        **{"tokenize": "spam", "checkpoints": (tmp_path / "a.pt", tmp_path / "b.pt"), "lang_pairs": "wo-en"},
        **{"dictionary": tmp_path / "dict.txt", "references": tmp_path},
    }
    with pytest.raises(SeveralErrors) as refusal:
        check(options(toy_data, tmp_path, tmp_path / "out", **flags))
    for error, words in zip(
        refusal.value.errors,
        ("no tokenizer 'spam'", "a.pt does not", "b.pt does not", "dict.txt", "test.wo"),
        strict=True,
    ):
        assert words in str(error)


@pytest.mark.parametrize("language", ["en", "wo"])
def test_text_of_another_length_is_named_and_may_be_mended(toy_data, checkpoint, tmp_path, language) -> None:
    for name in toy.LANGUAGES:
        shutil.copy(toy_data.parent / f"test.{name}", tmp_path)
    lines = read_lines(tmp_path / f"test.{language}")
    write_lines(tmp_path / f"test.{language}", [*lines, "one more"])
    asked = options(toy_data, checkpoint, tmp_path / "out", lang_pairs="wo-en", references=tmp_path)
    words = f"{tmp_path} has 13 sentences of {language}, but the data of wo-en have 12; give the text of exactly"
    with pytest.raises(UserError, match=words):
        prepared(asked)
    write_lines(tmp_path / f"test.{language}", lines)
    prepared(asked)  # in the same process
    prepared(options(toy_data, checkpoint, tmp_path / "out", lang_pairs="wo-en", references=None))


def test_one_dictionary_is_needed_for_all_languages(toy_data, checkpoint, tmp_path) -> None:
    data = Path(shutil.copytree(toy_data, tmp_path / "bin"))
    pair = {"lang_pairs": "en-fr,nl-en", "references": None}
    assert prepared(options(data, checkpoint, tmp_path / "out", **pair)).model.dictionary.parent == data
    with (data / "dict.nl.txt").open("a") as file:
        file.write("more 1\n")
    with pytest.raises(UserError, match=rf"the dictionaries dict\.LANG\.txt in {data} differ between languages; "):
        prepared(options(data, checkpoint, tmp_path / "out", **pair))
    prepared(options(data, checkpoint, tmp_path / "out", **{**pair, "lang_pairs": "en-fr"}))
    (data / "dict.nl.txt").unlink()
    with pytest.raises(
        UserError, match=rf"{data}/dict\.nl\.txt not found; give the model's dictionary as --fixed-dict"
    ):
        prepared(options(data, checkpoint, tmp_path / "out", **pair))
    prepared(options(data, checkpoint, tmp_path / "out", **pair, dictionary=toy_data.parent / "dict.txt"))


def test_means_are_of_the_metrics_that_all_directions_have() -> None:
    scores = {
        Direction("en", "fr"): {"bleu": 10.0, "chrf": 30.0, "comet": 60.0},
        Direction("fr", "en"): {"bleu": 20.0, "chrf": 50.0, "comet": 90.0},
    }
    assert mean_scores(scores) == {"bleu": 15.0, "chrf": 40.0, "comet": 75.0}
    del scores[Direction("fr", "en")]["comet"]
    assert mean_scores(scores) == {"bleu": 15.0, "chrf": 40.0}
    assert [counted(number) for number in (0, 1, 2, 132)] == [
        *("0 directions", "1 direction", "2 directions", "132 directions")
    ]


@pytest.mark.parametrize(("is_terminal", "least", "most"), [(True, 0.1, 1), (False, 10, 60)])
def test_a_bar_is_renewed_often_for_people_and_seldom_in_a_file(monkeypatch, is_terminal, least, most) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    with evaluation.Progress(total=5, desc="decoding", unit="sentence") as bar:
        assert least <= bar.mininterval == bar.maxinterval <= most
        assert not bar.disable
