"""Each command lists the mistakes of a call that do not depend on each other together, and writes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from langspec_lora.cli.commands import COMMANDS
from langspec_lora.cli.main import main
from tests.bad_input import refusals_of

ONE_MISTAKE = {
    "doctor": "it lists what is wrong as its result",
    "completion": "it takes a word only",
    "evaluate": "test_evaluate_runs.py",
    "translate": "test_translate.py",
}
"""Commands that are not called below, and why."""

CALLS = [
    (
        "add-language gone.pt --langs sw, --out there.pt --high-rank 0 --seed -1 --lang-resources no.yaml",
        [
            "there.pt already exists; give another --out, or --overwrite",
            "--seed -1: expected a number from 0",
            "--high-rank: rank 0",
            "--lang-resources no.yaml: No such file",
            "--langs 'sw,' has an empty name",
            "checkpoint gone.pt does not exist",
        ],
    ),
    (
        "add-language adapted.pt --langs fr,sw --out new.pt",
        ["--langs names fr, which already", "no resource level for sw"],
    ),
    (
        "remove-language gone.pt --langs en,en --out there.pt",
        ["there.pt", "--langs names 'en' twice", "gone.pt does not"],
    ),
    ("remove-language adapted.pt --langs xx,fr,yy --out new.pt", ["unknown language 'xx'", "unknown language 'yy'"]),
    (
        "join gone.pt lost.pt --out there.pt",
        ["there.pt already exists", "gone.pt does not exist", "lost.pt does not exist"],
    ),
    (
        "average gone.pt adapted.pt base.pt --out folder",
        ["folder already", "gone.pt does not", "base.pt holds no adapters"],
    ),
    (
        "average gone.pt --out there.pt",
        ["there.pt already exists", "one checkpoint was given", "gone.pt does not exist"],
    ),
    (
        "export gone.pt --format adapter --out folder -s en --all",
        ["adapter does not take --source-lang", "adapter does not take --all", "gone.pt does not exist"],
    ),
    (
        "export adapted.pt --format merged --out there.pt -s xx --all",
        ["does not take --all", "needs --target-lang", "there.pt already exists", "unknown language 'xx'"],
    ),
    ("export adapted.pt --format merged --out new.pt -s xx -t yy", ["unknown language 'xx'", "unknown language 'yy'"]),
    ("export adapted.pt --format peft --out there.pt -s xx -t en", ["there.pt is a file", "unknown language 'xx'"]),
    (
        "export gone.pt --format huggingface --out there.pt -s en",
        ["huggingface needs --target-lang", "there.pt is a file", "gone.pt does not exist"],
    ),
    (
        "import folder --from adapter --out there.pt --langs en",
        ["needs --base", "does not take --langs", "there.pt already exists", "folder"],
    ),
    (
        "import folder --from peft --out there.pt --base gone.pt -s en --lang-resources no.yaml",
        ["needs --target-lang", "there.pt already exists", "no.yaml: No such", "folder", "gone.pt does not exist"],
    ),
    (
        "import gone.pt --from lslo --out there.pt --lang-resources no.yaml --base adapted.pt",
        ["does not take --base", "there.pt already exists", "no.yaml: No such file", "gone.pt does not exist"],
    ),
    (
        "import gone --from huggingface --out there.pt --spm no.model --langs en",
        ["does not take --langs", "--out there.pt is a file", "no.model not found", "gone is not a folder"],
    ),
    (
        "ranks --budget much --base gone.pt --langs en,wo --lang-pairs folder",
        ["--budget much: expected a number", "checkpoint gone.pt does not exist"],
    ),
    ("fix-directions gone.pt --out there.pt", ["there.pt already exists", "checkpoint gone.pt does not exist"]),
    ("subspaces gone.pt lost.pt --budget much --out there.pt", ["--budget much", "there.pt is a file"]),
    (
        "ablate gone.pt lost --langs en,,wo --out there.pt",
        ["--langs 'en,,wo'", "gone.pt does not exist", "there.pt is a file", "lost is not a folder"],
    ),
    ("inspect gone.pt --out there.pt", ["--out there.pt is a file", "checkpoint gone.pt does not exist"]),
    (
        "report gone lost --names a --skip all --samples 0 --processes 0 --lang-resources no.yaml --out there.pt",
        [
            "--skip names 'all'",
            "--samples 0",
            "--processes 0",
            "no.yaml: No such file",
            "--names gives a for 2 folders",
            "gone holds neither",
            "lost holds neither",
            "--out there.pt is a file",
        ],
    ),
    (
        "prepare --train gone --valid-lines 0 --test gone --out there.pt --languages no.yaml --spm no.model "
        "--vocab-size 0",
        [
            "--valid-lines 0",
            "--spm and --dict belong together",
            "--spm no.model not found",
            "--vocab-size 0",
            "there.pt is a file",
            "no.yaml: No such file",
        ],
    ),
    (
        "prepare --train gone --test lost --out folder/new --max-ratio 0.5 --high-lines 5 --med-lines 6 --max-length 0 "
        "--vocab-temperature 0",
        [
            "no validation text",
            "--vocab-temperature 0",
            "--max-length 0",
            "--max-ratio 0.5",
            "--high-lines 5 and --med-lines 6",
            "--train gone is not a folder",
            "--test lost is not a folder",
        ],
    ),
    (
        "prepare-flores --languages no.yaml --out new --from gone --spm no.model --vocab-size 0 --valid-lines 0",
        [
            "no.yaml: No such file",
            "--spm and --dict belong together",
            "--spm no.model not found",
            "--vocab-size 0",
            "--valid-lines 0",
            "gone has no folders dev and devtest",
        ],
    ),
    (
        "prepare-flores --languages levels.yaml --out new --from gone --dict no.txt",
        ["no FLORES code for en", "--spm and --dict belong", "--dict no.txt not found", "gone has no folders dev"],
    ),
    (
        "defaults gone --base gone.pt --langs en,,fr --lang-resources no.yaml",
        [
            "checkpoint gone.pt does not exist",
            "no.yaml: No such",
            "gone is not a folder",
            "--langs 'en,,fr' has an empty",
        ],
    ),
    (
        "defaults gone --checkpoint gone.pt --lang-pairs en",
        ["gone.pt does not", "gone is not a folder", "'en' is not a dir"],
    ),
    (
        "make-example there.pt --finetune-lines 0 --test-lines 5000 --vocab-size 3",
        ["--finetune-lines 0: expected 1 to", "--test-lines 5000: expected 1 to", "--vocab-size 3: expected at least"],
    ),
    (
        "study no.yaml --out there.pt --set x --jobs 0 --gpus-per-step 0",
        [
            "--set x: expected NAME=VALUE",
            "--jobs 0: expected a whole number",
            "--gpus-per-step 0: expected a whole number",
            "--out there.pt is a file",
            "recipe no.yaml: No such file",
        ],
    ),
    (
        "bench --parts all update none --rounds 0 --threads 0 --out there.pt",
        ["--parts all: ", "--parts none: ", "--rounds 0: ", "--threads 0: ", "--out there.pt is a file"],
    ),
]


@pytest.fixture(scope="module")
def home(toy_data, checkpoints, tmp_path_factory) -> Path:
    """A folder with what the calls name, but for what is gone."""
    folder = tmp_path_factory.mktemp("home")
    for name in ("adapted.pt", "base.pt"):
        shutil.copy(checkpoints / name, folder)
    shutil.copy(toy_data.parent / "levels.yaml", folder)
    shutil.copy(folder / "base.pt", folder / "there.pt")
    (folder / "folder").mkdir()
    return folder


def content(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize(("call", "words"), CALLS, ids=[call.split(" --")[0] for call, _ in CALLS])
def test_mistakes_that_do_not_depend_on_each_other_are_listed_together(home, monkeypatch, call, words) -> None:
    monkeypatch.chdir(home)
    before = content(home)
    for mistake, part in zip(refusals_of(main, call.split()), words, strict=True):
        assert part in mistake
    assert content(home) == before


def test_every_command_with_several_mistakes_is_called() -> None:
    assert {call.split()[0] for call, _ in CALLS} == set(COMMANDS) - set(ONE_MISTAKE)
