"""Language-specific LoRA for many-to-many translation in fairseq.

This folder is what ``--user-dir`` points at: fairseq imports it and then every file of its ``tasks/`` and ``models/``
folders, which register the task, the model and its architectures. So importing the package itself imports nothing
else; what it exports is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langspec_lora.api import evaluate, load, make_report
    from langspec_lora.errors import UserError
    from langspec_lora.inference.translator import Translator

__all__ = ["Translator", "UserError", "evaluate", "load", "make_report"]
__version__ = "0.1.0"

_MODULES = {
    "Translator": "inference.translator",
    "UserError": "errors",
    "evaluate": "api",
    "load": "api",
    "make_report": "api",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
