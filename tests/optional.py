"""Packages of the extra ``hf``, which not every torch works with."""

from __future__ import annotations

from types import ModuleType

import pytest


def hugging_face(name: str) -> ModuleType:
    """A module of transformers or peft, or the end of the test, or of the reading of its file, without."""
    transformers = pytest.importorskip("transformers", reason="needs the extra hf: transformers is not installed")
    if not transformers.is_torch_available():
        pytest.skip("this transformers does not work with this torch", allow_module_level=True)
    return pytest.importorskip(name, reason=f"needs the extra hf: {name} is not installed")
