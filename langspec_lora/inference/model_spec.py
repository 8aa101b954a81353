"""Which files and settings a model is loaded with, from a command line or a caller; does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from langspec_lora.flags import base_flag, directions_flag
from langspec_lora.settings import flag
from langspec_lora.values import names_of


def _languages(text: str) -> tuple[str, ...]:
    return tuple(names_of(text, "--langs"))


@dataclass(frozen=True)
class ModelSpec:
    """Which files and settings a model is loaded with.

    Attributes:
        checkpoints: one file, or the files of an ensemble.
        dictionary: the fairseq dictionary of all languages; if None, it is searched for.
        sentencepiece_model: the SentencePiece model that belongs to it, for raw text; if None, it is searched for.
        langs: languages of a base model whose checkpoint does not name them.
        base_checkpoint: the base of checkpoints that hold adapters only; if None, the file that training used.
        encoder_langtok: ``src``, ``tgt`` or ``none``: the language token before the source; if None, as in training.
        decoder_langtok: whether the target starts with its language token; if None, as in training.
        dtype: ``fp32``, ``fp16`` or ``bf16``.
        device: ``cpu``, ``cuda``, ``cuda:1``, …; if None, a GPU if there is one.
        directions: ``soft`` or ``argmax``: how learned directions are used.
        adapters: whether to use the adapters, or only the base.
    """

    checkpoints: tuple[Path, ...]
    dictionary: str | Path | None = flag(
        None,
        "the model's dictionary",
        "FILE",
        names=("--fixed-dictionary",),
        default_text="that of the data, or one beside the checkpoint",
    )
    sentencepiece_model: str | Path | None = flag(
        None,
        "the model's SentencePiece model",
        "FILE",
        names=("--sentencepiece-model", "--spm"),
        default_text="searched for like the dictionary",
    )
    langs: tuple[str, ...] = flag((), "languages of a base model that does not name them", "A,B,…", convert=_languages)
    base_checkpoint: str | Path | None = base_flag()
    encoder_langtok: str | None = flag(
        None,
        "which language token precedes the source",
        choices=("src", "tgt", "none"),
        default_text="as in training",
    )
    decoder_langtok: bool | None = flag(
        None,
        "whether the target starts with its language token",
        choices=("yes", "no"),
        default_text="as in training",
        convert=lambda text: text == "yes",
    )
    dtype: str = flag("fp32", "", switches={"--fp16": ("fp16", "half precision (GPU)"), "--bf16": ("bf16", "bfloat16")})
    device: str | None = flag(None, "", switches={"--cpu": ("cpu", "do not use a GPU")})
    directions: str = directions_flag()
    adapters: bool = True

    def __str__(self) -> str:
        """The model, as messages call it."""
        return ":".join(map(str, self.checkpoints)) + ("" if self.adapters else " without its adapters")
