"""Fixtures of the formats' tests."""

from __future__ import annotations

import pytest

from tests.hf_home import Home, make_home


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Home:
    return make_home(tmp_path_factory.mktemp("a home"))
