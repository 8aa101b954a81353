"""scripts/fuzz.py: the same case again, every format damaged, and each kind of mistake of a reader noticed."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import pytest

from langspec_lora.errors import UserError
from tests import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import fuzz

TEXT = fuzz.TARGETS["text"]
LIMITS = fuzz.Limits(30.0, 1 << 29)


def outcomes(folder: Path, read, cases: int = 6, limits=LIMITS, **more) -> list[str]:
    target = fuzz.Target("text", TEXT.make, TEXT.files, read, **more)
    sound = folder / "sound"
    sound.mkdir()
    TEXT.make(sound)
    (sound / "expected").write_text(fuzz.digest("expected"))
    found = []
    for case, outcome in fuzz.run_cases(target, sound, 3, 0, limits, folder / "kept"):
        found.append(outcome.verdict)
        if case + 1 == cases:
            break
    return found


def raises(error: BaseException):
    def read(folder: Path) -> None:
        raise error

    return read


class Wordy(UserError):
    """A mistake whose message is not cut."""

    def __str__(self) -> str:
        return ValueError.__str__(self)


@pytest.mark.parametrize(
    ("read", "verdict"),
    [
        (raises(UserError("a sentence")), "refused"),
        (raises(OSError(2, "No such file", "x")), "refused"),
        (raises(UserError("long " * 999)), "refused"),
        (raises(Wordy("long " * 999)), "wordy"),
        (raises(KeyError("x")), "traceback"),
        (raises(OSError("of no file")), "traceback"),
        (raises(MemoryError()), "memory"),
        (lambda folder: bytearray(1 << 34), "memory"),
        (lambda folder: "expected", "equal"),
        (lambda folder: Path("../beside").write_text("x") and "expected", "escaped"),
    ],
)
def test_what_a_reader_does_is_told(tmp_path, read, verdict) -> None:
    assert set(outcomes(tmp_path, read)) == {verdict}


def test_another_content_is_silent_unless_the_file_says_it(tmp_path) -> None:
    assert {"silent", "edited"} == set(outcomes(tmp_path, lambda folder: "something else", 39))
    (tmp_path / "again").mkdir()
    told = outcomes(tmp_path / "again", lambda folder: "something else", as_written=lambda folder: "something else")
    assert set(told) == {"written"}


def test_a_reader_that_does_not_end_is_stopped(tmp_path) -> None:
    assert outcomes(tmp_path, lambda folder: time.sleep(600), limits=fuzz.Limits(0.5, 1 << 29)) == ["hang"]


@pytest.mark.parametrize("form", sorted(fuzz.BY_FORMAT))
def test_damage_is_the_same_again_and_does_change_files(form) -> None:
    content = b"\x08\x01" + bytes(range(256)) * 3 if form != "json" else b'{"a": [1, {"b": "c"}], "d": null}'
    changed = 0
    for mutator in dict.fromkeys(fuzz.BY_FORMAT[form]):
        if mutator.name in ("edit_checkpoint", "edit_safetensors"):  # these take sound files only
            continue
        for case in range(5):
            first, again = (mutator.change(random.Random(f"{case}"), content) for _ in range(2))
            assert first == again
            changed += first != content
    assert changed > 20
