"""The fairseq model and its architectures. fairseq imports every file of this folder when it imports the user-dir."""

from langspec_lora.models import architectures

__all__ = ["architectures"]  # whoever imports the model has its architectures registered
