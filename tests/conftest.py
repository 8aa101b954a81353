"""Fixtures that several test files share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import toy


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A binarised folder of five small languages, all twenty directions; see :mod:`tests.toy`."""
    return toy.write_data(tmp_path_factory.mktemp("toy"))
