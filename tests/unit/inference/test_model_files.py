"""Where the dictionary, the SentencePiece model and the languages of a checkpoint are found."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from langspec_lora.errors import UserError
from langspec_lora.inference.model_files import ModelFiles, TranslatorFiles, find_files
from langspec_lora.inference.model_spec import ModelSpec
from tests import toy
from tests.bad_input import STOCK, write_checkpoint


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def run(home: Path, tmp_path: Path) -> Path:
    """The folder of a training."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def found(*checkpoints: Path, **settings: object) -> TranslatorFiles:
    return find_files(ModelSpec(checkpoints, **settings))


def checkpoint(run: Path, home: Path, *, adapted: bool = True, **arguments: object) -> Path:
    """A checkpoint that says of its training what the arguments say, and of the rest nothing but the languages."""
    data = home / "data-bin"
    flags = toy.plugin_flags(data) if adapted else toy.base_flags(data, *STOCK)
    hints = {"data": None, "fixed_dictionary": None, "finetune_from_model": None, **arguments}
    return write_checkpoint(run / "checkpoint.pt", flags, lambda state: vars(state["args"]).update(hints))


def test_the_data_folder_of_the_training_holds_both(home, run) -> None:
    files = found(checkpoint(run, home, data=str(home / "data-bin")))
    assert files.model.dictionary.read_text() == (home / "dict.txt").read_text()
    assert files.sentencepiece_model == home / "data-bin" / "sentencepiece.bpe.model"
    assert files.languages == toy.LANGUAGES
    assert files.adapted


def test_a_data_folder_without_its_model_has_it_beside_it(home, run) -> None:
    shutil.copytree(home / "data-bin", run / "data-bin")
    (run / "data-bin" / "sentencepiece.bpe.model").unlink()
    shutil.copy(home / "spm.model", run)
    assert found(checkpoint(run, home, data=str(run / "data-bin"))).sentencepiece_model == run / "spm.model"


def test_what_lies_beside_the_checkpoint_goes_before_the_data_and_what_is_given_before_both(home, run) -> None:
    path = checkpoint(run, home, data=str(home / "data-bin"))
    shutil.copy(home / "dict.txt", run)
    shutil.copy(home / "spm.model", run / "my.model")
    files = found(path)
    assert (files.model.dictionary, files.sentencepiece_model) == (run / "dict.txt", run / "my.model")
    given = {"dictionary": home / "dict.txt", "sentencepiece_model": str(home / "spm.model")}
    files = found(path, **given)
    assert (files.model.dictionary, files.sentencepiece_model) == (home / "dict.txt", home / "spm.model")


def test_the_dictionary_of_the_training_and_the_folder_of_its_base_model_are_looked_at(home, run, tmp_path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "model.pt").touch()
    shutil.copy(home / "spm.model", base)
    hints = {"fixed_dictionary": str(home / "dict.txt"), "finetune_from_model": str(base / "model.pt")}
    files = found(checkpoint(run, home, **hints))
    assert (files.model.dictionary, files.sentencepiece_model) == (home / "dict.txt", base / "spm.model")


def test_a_relative_data_folder_is_looked_for_from_here_and_from_above_the_checkpoint(
    home, run, tmp_path, monkeypatch
) -> None:
    path = checkpoint(run, home, data="some/data-bin:some/second-shard")
    shutil.copytree(home / "data-bin", tmp_path / "some" / "data-bin")
    model = tmp_path / "some" / "data-bin" / "sentencepiece.bpe.model"
    assert found(path).sentencepiece_model == model
    monkeypatch.chdir(tmp_path)
    assert found(path).sentencepiece_model == model.relative_to(tmp_path)


def test_what_is_missing_is_named_with_the_place_to_put_it(home, run) -> None:
    path = checkpoint(run, home, data="gone/data-bin")
    gone = re.escape(f"in {run} (its data folder gone/data-bin was not found); put it into {run}")
    with pytest.raises(
        UserError, match=rf"no dictionary found {gone} as dict\.txt, or give it as --fixed-dictionary; no Sent"
    ):
        found(path)
    shutil.copy(home / "dict.txt", run)
    with pytest.raises(
        UserError, match=rf"no SentencePiece model found {gone} as sentencepiece\.bpe\.model, or give it as --se"
    ):
        found(path)
    (run / "data-bin").mkdir()
    path = checkpoint(run, home, data=str(run / "data-bin"))
    with pytest.raises(UserError, match=rf"no SentencePiece model found in {run} or {run}/data-bin; put it into"):
        found(path)


@pytest.mark.parametrize("data", [None, 7, "", "a\0b", "x" * 5000, "/", "/dev/null"])
def test_a_stored_data_folder_that_is_none_is_passed_over(home, run, data) -> None:
    with pytest.raises(UserError, match="no dictionary found in"):
        found(checkpoint(run, home, data=data))


def test_several_models_and_none_of_a_known_name_are_left_to_the_user(home, run) -> None:
    path = checkpoint(run, home)
    shutil.copy(home / "dict.txt", run)
    for name in ("a.model", "b.model"):
        shutil.copy(home / "spm.model", run / name)
    with pytest.raises(UserError, match=r"holds several models \(a\.model, b\.model\)"):
        found(path)
    (run / "a.model").rename(run / "spm.model")
    assert found(path).sentencepiece_model == run / "spm.model"


def test_languages_of_a_base_model_come_from_its_arguments_or_the_dictionary_or_the_caller(home, run) -> None:
    vocabulary = {"dictionary": home / "dict.txt", "sentencepiece_model": home / "spm.model"}
    files = found(checkpoint(run, home, adapted=False), **vocabulary)
    assert (files.languages, files.adapted) == (toy.LANGUAGES, False)
    nameless = checkpoint(run, home, adapted=False, langs=None)
    assert found(nameless, **vocabulary).languages == tuple(sorted(toy.LANGUAGES))
    vocabulary["dictionary"] = run / "bare.txt"
    with (home / "dict.txt").open() as file:
        vocabulary["dictionary"].write_text("".join(line for line in file if not line.startswith("__")))
    with pytest.raises(UserError, match=r"name fewer than two languages; .* as --langs"):
        found(nameless, **vocabulary)
    files = found(nameless, **vocabulary, langs=("sd", "en"))
    assert files.languages == files.model.langs == ("sd", "en")


def test_an_ensemble_knows_the_languages_that_all_its_models_know(home, run) -> None:
    whole = checkpoint(run, home, data=str(home / "data-bin"))
    few = write_checkpoint(
        run / "few.pt", toy.plugin_flags(home / "data-bin", "--langs", "fr,sd,en", "--lang-pairs", "fr-sd,en-fr")
    )
    assert found(whole, few).languages == ("en", "fr", "sd")


def test_a_model_whose_language_tokens_stand_elsewhere_is_refused(home, run) -> None:
    path = checkpoint(run, home, lang_tok_replacing_bos_eos=True)
    with pytest.raises(UserError, match="--lang-tok-replacing-bos-eos"):
        ModelFiles.of(ModelSpec((path,)), home / "dict.txt", toy.LANGUAGES)
