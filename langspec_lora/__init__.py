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
    from langspec_lora.lora import adapter_parameters, inject, mark_trainable, merge, remove

__all__ = [
    "Translator",
    "UserError",
    "adapter_parameters",
    "evaluate",
    "inject",
    "load",
    "make_report",
    "mark_trainable",
    "merge",
    "remove",
]
__version__ = "0.1.0"

_MODULES = {
    "Translator": "inference.translator",
    "UserError": "errors",
    "evaluate": "api",
    "load": "api",
    "make_report": "api",
    **dict.fromkeys(("adapter_parameters", "inject", "mark_trainable", "merge", "remove"), "lora"),
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
