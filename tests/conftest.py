"""Fixtures that several test files share."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
from fairseq.dataclass import utils as dataclass_utils

from tests import toy


@pytest.fixture(scope="session", autouse=True)
def _settings_are_composed_once() -> Iterator[None]:
    """Keeps what Hydra makes of a command's arguments, which takes fairseq half a second each time."""
    stock, known = dataclass_utils.compose, {}

    def compose(name: str, overrides: list[str], **options):
        key = (name, *overrides)
        if key not in known:
            known[key] = stock(name, overrides=overrides, **options)
        return copy.deepcopy(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataclass_utils, "compose", compose)
        yield


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A binarised folder of five small languages, all twenty directions; see :mod:`tests.toy`."""
    return toy.write_data(tmp_path_factory.mktemp("toy"))
