"""Language-specific LoRA for many-to-many translation in fairseq.

This folder is what ``--user-dir`` points at: fairseq imports it and then every file of its ``tasks/`` and ``models/``
folders, which register the task, the model and its architectures.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langspec_lora.inference.translator import Translator

__all__ = ["Translator"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports what is asked for by name: importing the package stays cheap and registers nothing."""
    if name == "Translator":
        from langspec_lora.inference.translator import Translator

        return Translator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
