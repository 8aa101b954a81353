"""What ``import langspec_lora`` offers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import langspec_lora
from tests import ROOT


@pytest.mark.parametrize("name", langspec_lora.__all__)
def test_every_name_is_imported_when_it_is_used(name) -> None:
    assert getattr(langspec_lora, name).__name__ == name
    assert name in dir(langspec_lora)


def test_names_are_those_that_a_type_checker_sees() -> None:
    """In a process of its own, where nothing was used yet."""
    code = "import langspec_lora as l; print(set(l.__all__) == set(l._MODULES) <= set(dir(l)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert (Path(langspec_lora.__file__).parent / "py.typed").is_file()


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'langspec_lora' has no attribute 'nothing'"):
        langspec_lora.nothing  # noqa: B018
