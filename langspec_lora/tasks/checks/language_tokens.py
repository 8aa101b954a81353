"""Language tokens: which ones a model was trained with, against those that a command puts before its sentences."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from langspec_lora.checkpoints.outline import read_outline

STYLE = "multilingual"
"""fairseq's default of ``--lang-tok-style``."""


@dataclass(frozen=True)
class LanguageTokens:
    """Which language tokens a sentence gets.

    Attributes:
        source: what stands before the source: ``src``, ``tgt``, another form of fairseq's ``--langtoks``, or None.
        target: what stands before the target, likewise.
        style: ``--lang-tok-style``.
        replacing: whether they stand in place of the end and begin of sentence.
    """

    source: str | None
    target: str | None
    style: str = STYLE
    replacing: bool = False

    @classmethod
    def from_args(cls, args: Any) -> LanguageTokens | None:
        """Reads them from the arguments of a command or of a checkpoint; None where these do not say.

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
        """Whether ``--encoder-langtok``, ``--decoder-langtok`` and ``--lang-tok-style`` can say it."""
        return self.style in (STYLE, "mbart") and self.source in (None, "src", "tgt") and self.target in (None, "tgt")

    def __str__(self) -> str:
        """The flags of fairseq that ask for them."""
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
    """The main entry of ``--langtoks``, which fairseq fills in from the other flags where it is not given."""
    table = getattr(args, "langtoks", None)
    main = table.get("main") if isinstance(table, dict) else None
    return (main[0] or None, main[1] or None) if isinstance(main, (list, tuple)) and len(main) == 2 else None


def idle_language_tokens(args: Namespace) -> list[str]:
    """Names the flags that ``--langtoks`` overrides. ``fairseq-validate`` takes that from the training.

    Args:
        args: the arguments of the command.

    Returns:
        Sentences.
    """
    main, (source, target) = _table(args), _flags(args)
    if main is None:
        return []
    idle = [f"--encoder-langtok {source}"] if source and source != main[0] else []
    idle += ["--decoder-langtok"] if target and target != main[1] else []
    return [f"{', '.join(idle)}: not read, since --langtoks (or the training) says {{'main': {main}}}"] if idle else []


def other_language_tokens(args: Namespace, paths: Iterable[str]) -> list[str]:
    """Names the checkpoints that were trained with other language tokens than a command has.

    Args:
        args: the arguments of the command.
        paths: the checkpoints.

    Returns:
        Sentences.

    Raises:
        UserError: a checkpoint is missing, damaged or hostile.
    """
    own, found = LanguageTokens.from_args(args), []
    for path in paths:
        stored = LanguageTokens.from_args(read_outline(path).model_args)
        if stored is not None and stored != own:
            found.append(
                f"checkpoint {path} was trained with {stored}, but this command has {own}; sentences get "
                "other language tokens than it knows, so give the same flags"
            )
    return found
