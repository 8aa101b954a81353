from __future__ import annotations

from pathlib import Path

import pytest

from tests.studies import Workshop

QUALITY = {"base": 0.3, "0.1": 0.5, "0.01": 0.9, "0.001": 0.7}
"""The second learning rate is the best."""


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return Workshop(tmp_path, monkeypatch, QUALITY)
