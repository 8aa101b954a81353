"""The language tokens that a command adds to its sentences must be those of the model's training."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from langspec_lora.checkpoints.outline import read_outline
from langspec_lora.naming import some_of

STYLE = "multilingual"
"""fairseq's default for ``--lang-tok-style``."""


@dataclass(frozen=True)
class LanguageTokens:
    """The language tokens that fairseq adds to a sentence.

    Attributes:
        source: the token before the source: ``src``, ``tgt``, another value of fairseq's ``--langtoks``, or None.
        target: the token before the target, likewise.
        style: ``--lang-tok-style``.
        replacing: whether they replace the begin- and end-of-sentence tokens.
    """

    source: str | None
    target: str | None
    style: str = STYLE
    replacing: bool = False

    @classmethod
    def from_args(cls, args: Any) -> LanguageTokens | None:
        """Reads them from the arguments of a command or of a checkpoint; None if the arguments do not hold them.

        Args:
            args: a namespace, before or after fairseq has filled in ``langtoks``.
        """
        if not hasattr(args, "encoder_langtok") or not hasattr(args, "decoder_langtok"):
            return None
        source, target = _table(args) or _flags(args)
        style = getattr(args, "lang_tok_style", None) or STYLE
        return cls(source, target, style, bool(getattr(args, "lang_tok_replacing_bos_eos", False)))

    @property
    def are_plain(self) -> bool:
        """Whether ``--encoder-langtok``, ``--decoder-langtok`` and ``--lang-tok-style`` can express them."""
        return self.style in (STYLE, "mbart") and self.source in (None, "src", "tgt") and self.target in (None, "tgt")

    def __str__(self) -> str:
        """The fairseq flags that request them."""
        if self.are_plain:
            flags = [f"--encoder-langtok {self.source}"] if self.source else []
            flags += ["--decoder-langtok"] if self.target else []
        else:
            flags = [f"--langtoks { ({'main': (self.source, self.target)}) }"]
        flags += [f"--lang-tok-style {self.style}"] if self.style != STYLE else []
        flags += ["--lang-tok-replacing-bos-eos"] if self.replacing else []
        return " ".join(flags) or "no language tokens (neither --encoder-langtok nor --decoder-langtok)"


def _flags(args: Any) -> tuple[str | None, str | None]:
    return args.encoder_langtok or None, "tgt" if args.decoder_langtok else None


def _table(args: Any) -> tuple[str | None, str | None] | None:
    """The main entry of ``--langtoks``, which fairseq fills in from the other flags if it is not given."""
    table = getattr(args, "langtoks", None)
    main = table.get("main") if isinstance(table, dict) else None
    return (main[0] or None, main[1] or None) if isinstance(main, (list, tuple)) and len(main) == 2 else None


def unused_language_token_flags(args: Namespace) -> list[str]:
    """Names the flags that ``--langtoks`` overrides; ``fairseq-validate`` takes ``--langtoks`` from the training.

    Args:
        args: the arguments of the command.
    """
    main, (source, target) = _table(args), _flags(args)
    if main is None:
        return []
    unused = [f"--encoder-langtok {source}"] if source and source != main[0] else []
    unused += ["--decoder-langtok"] if target and target != main[1] else []
    if not unused:
        return []
    return [f"{some_of(unused)}: no effect, since --langtoks (or the training) sets {{'main': {main}}}"]


def language_token_mismatches(args: Namespace, paths: Iterable[str]) -> list[str]:
    """Names the checkpoints that were trained with other language tokens than those of a command.

    Args:
        args: the arguments of the command.
        paths: the checkpoints.

    Raises:
        UserError: a checkpoint is missing, damaged or hostile.
    """
    given, found = LanguageTokens.from_args(args), []
    for path in paths:
        stored = LanguageTokens.from_args(read_outline(path).model_args)
        if stored is not None and stored != given:
            found.append(
                f"checkpoint {path} was trained with {stored}, but this command has {given}; give the same flags, so "
                "that sentences get the language tokens that the model knows"
            )
    return found
