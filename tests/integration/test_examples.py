"""The example in the help of each command, run in a folder that holds the files it names."""

from __future__ import annotations

import io
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from fairseq_cli import train

import langspec_lora
from langspec_lora.cli.commands import COMMANDS, module_of
from langspec_lora.cli.main import main
from tests import toy
from tests.bad_input import STOCK, write_checkpoint
from tests.evaluations import run_stock

QUICK = {"evaluate": "--tokenize 13a --cpu --beam 1 --max-len-b 9", "translate": "--cpu --beam 1 --max-len-b 9"}
QUICK["prepare"] = "--spm spm.model --dict dict.txt"
DOWNLOADS = {"doctor", "prepare-flores"}
SLOW = {"bench", "make-example", "study"}
ORDER = ["evaluate", "report", "export", "import"]
RUN = [*ORDER, *(command for command in COMMANDS if command not in {*ORDER, *DOWNLOADS, *SLOW, "completion"})]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A home with a base model in ``m2m100`` and two epochs of adapters in ``checkpoints``."""
    home = toy.write_home(tmp_path_factory.mktemp("home"))
    for name in ("m2m100", "checkpoints", "first", "second"):
        (home / name).mkdir()
    flags = toy.base_flags(home / "data-bin", "--fixed-dictionary", str(home / "dict.txt"))
    base = write_checkpoint(home / "m2m100" / "model.pt", [*flags, *STOCK])
    training = toy.plugin_flags(home / "data-bin", "--finetune-from-model", str(base), "--cpu", "--optimizer", "adam")
    training += ["--lr", "0.01", "--max-epoch", "2", "--save-dir", str(home / "checkpoints"), "--no-progress-bar"]
    training += ["--encoder-normalize-before", "--decoder-normalize-before"]
    with pytest.MonkeyPatch.context() as patch:
        run_stock(patch, train, *training)
    made = home / "checkpoints"
    for old, new in (("checkpoint1.pt", "checkpoint14.pt"), ("checkpoint2.pt", "checkpoint15.pt")):
        (made / old).rename(made / new)
    for name in ("first", "second"):
        shutil.copy(made / "checkpoint_best.pt", home / name)
    for seed, epoch in ((1, 14), (2, 15)):
        (home / f"seed{seed}").mkdir()
        shutil.copy(made / f"checkpoint{epoch}.pt", home / f"seed{seed}" / "checkpoint15.pt")
    (home / "learned").mkdir()
    write_checkpoint(
        home / "learned" / "checkpoint_best.pt",
        [*training, "--weight-learning", "True", "--save-dir", str(home / "learned")],
    )
    for name, split in (("corpus", "train"), ("dev", "valid"), ("test", "test")):
        (home / name).mkdir()
        for language in ("en", "wo"):
            shutil.copy(home / "mono" / f"{split}.{language}", home / name / f"en-wo.{language}")
    (home / "languages.yaml").write_text("high: [en, fr]\nmed: [nl]\nlow: [wo, sd, sw]\n")
    (home / "text.en").write_text("en1 en2\nen3\n")
    return home


@pytest.mark.parametrize("command", RUN)
def test_example_works(folder, monkeypatch, capsys, command) -> None:
    monkeypatch.chdir(folder)
    words = shlex.split(module_of(command).EXAMPLE)
    if "<" in words:
        place = words.index("<")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(words[place + 1]).read_bytes())))
        words = words[:place]
    assert main([command, *words, *shlex.split(QUICK.get(command, ""))]) == 0
    assert capsys.readouterr().out
    if "--out" in words:
        assert Path(words[words.index("--out") + 1]).exists()


def test_the_package_offers_the_same_from_python(folder, tmp_path) -> None:
    checkpoint = folder / "checkpoints" / "checkpoint_best.pt"
    assert set(langspec_lora.load(checkpoint).adapters.languages.names) == set(toy.LANGUAGES)
    translator = langspec_lora.Translator.from_checkpoint(checkpoint, device="cpu", beam=1, max_len_b=9)
    assert len(translator.translate(["en1 en2"], "en", "fr")) == 1
    settings = {"lang_pairs": "en-fr,fr-en", "tokenize": "13a", "device": "cpu"}
    scores = langspec_lora.evaluate(folder / "data-bin", str(checkpoint), tmp_path / "results", **settings)
    assert list(map(str, scores)) == ["en-fr", "fr-en"]
    files = langspec_lora.make_report(tmp_path / "results", tmp_path / "report", metric="chrf")
    assert tmp_path / "report" / "report.html" in files
    assert all(path.is_file() for path in files)
