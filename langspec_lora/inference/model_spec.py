"""Which files and settings make a model that translates, as a command line or a caller names them; knows no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from langspec_lora.flags import base_flag
from langspec_lora.settings import flag
from langspec_lora.values import names_of


def _languages(text: str) -> tuple[str, ...]:
    return tuple(names_of(text, "--langs"))


@dataclass(frozen=True)
class ModelSpec:
    """Which files and settings make a model.

    Attributes:
        checkpoints: one file, or several of an ensemble.
        dictionary: the fairseq dictionary of all languages; found where None.
        sentencepiece_model: the SentencePiece model that belongs to it, for raw text; found where None.
        langs: languages of a base model that names none itself.
        base_checkpoint: the base of checkpoints that hold adapters only; where it was in training if None.
        encoder_langtok: ``src``, ``tgt`` or ``none``: the language token before the source; as in training if None.
        decoder_langtok: whether the target starts with its language token; as in training if None.
        dtype: ``fp32``, ``fp16`` or ``bf16``.
        device: ``cpu``, ``cuda``, ``cuda:1``, …; where None a GPU, if there is one.
        adapters: whether its adapters take part, or only the base below them.
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
        default_text="found like the dictionary",
    )
    langs: tuple[str, ...] = flag((), "languages of a base model that names none itself", "A,B,…", convert=_languages)
    base_checkpoint: str | Path | None = base_flag()
    encoder_langtok: str | None = flag(
        None,
        "language whose token stands before the source",
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
    adapters: bool = True

    def __str__(self) -> str:
        """The model, as messages call it."""
        return ":".join(map(str, self.checkpoints)) + ("" if self.adapters else " without its adapters")
