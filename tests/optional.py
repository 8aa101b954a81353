"""What not every installation has: packages of the extra ``hf``, and what torch can since 2.1."""

from __future__ import annotations

import inspect
from types import ModuleType

import pytest
import torch

needs_mapped_files = pytest.mark.skipif(
    "mmap" not in inspect.signature(torch.load).parameters,
    reason="this torch cannot read a checkpoint as far as it is used; numbers are checked when the model gets them",
)


def hugging_face(name: str) -> ModuleType:
    """A module of transformers or peft, or the end of the test, or of the reading of its file, without."""
    transformers = pytest.importorskip("transformers", reason="needs the extra hf: transformers is not installed")
    if not transformers.is_torch_available():
        pytest.skip("this transformers does not work with this torch", allow_module_level=True)
    return pytest.importorskip(name, reason=f"needs the extra hf: {name} is not installed")
