"""What decides a translation besides the text: the generation settings and the model."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from langspec_lora.checkpoints.arguments import stored_langs
from langspec_lora.checkpoints.outline import read_outline
from langspec_lora.errors import UserError
from langspec_lora.tasks.checks.language_tokens import STYLE, LanguageTokens

MAX_TOKENS = 12000
"""``fairseq-generate``'s own default of ``--max-tokens``."""


def check_batch_limits(max_tokens: int, batch_size: int | None) -> None:
    """Makes sure that a batch can hold something.

    Raises:
        UserError: one of them is below 1.
    """
    for name, value in (("max-tokens", max_tokens), ("batch-size", batch_size)):
        if value is not None and not 1 <= value < 2**31:
            raise UserError(f"--{name} {value}: expected a number from 1 to {2**31 - 1}")


_OFF = -1
_RANGES: Mapping[str, tuple[float, float, str]] = {
    "beam": (1, math.inf, "a number of hypotheses of at least 1"),
    "lenpen": (-math.inf, math.inf, "a number"),
    "max_len_a": (0, math.inf, "a number of at least 0"),
    "max_len_b": (0, math.inf, "a number of tokens of at least 0"),
    "min_len": (0, math.inf, "a number of tokens of at least 0"),
    "no_repeat_ngram_size": (0, math.inf, "a length of at least 1, or 0 for off"),
    "temperature": (0, math.inf, "a number above 0"),
    "prefix_size": (0, math.inf, "a number of tokens of at least 0"),
    "sampling_topk": (1, math.inf, "a number of tokens of at least 1, or -1 for all"),
    "sampling_topp": (0, 1, "a share above 0 and up to 1, or -1 for all"),
    "diverse_beam_groups": (1, math.inf, "a number of groups of at least 1, or -1 for off"),
    "diverse_beam_strength": (0, math.inf, "a number of at least 0"),
    "diversity_rate": (0, math.inf, "a number of at least 0, or -1 for off"),
    "seed": (0, 2**32 - 1, f"a number from 0 to {2**32 - 1}"),
}
"""For each setting its least and its greatest value, and how a message calls what is expected."""
_MAY_BE_OFF = ("sampling_topk", "sampling_topp", "diverse_beam_groups", "diversity_rate")
_ABOVE_LEAST = ("temperature", "sampling_topp")


@dataclass(frozen=True)
class Generation:
    """What decides the hypotheses besides model and data; names and defaults are those of ``fairseq-generate``.

    Raises:
        UserError: a setting is out of its range, or settings contradict each other.
    """

    beam: int = 5
    lenpen: float = 1.0
    unkpen: float = 0.0
    max_len_a: float = 0.0
    max_len_b: int = 200
    min_len: int = 1
    no_repeat_ngram_size: int = 0
    temperature: float = 1.0
    unnormalized: bool = False
    match_source_len: bool = False
    prefix_size: int = 0
    sampling: bool = False
    sampling_topk: int = -1
    sampling_topp: float = -1.0
    diverse_beam_groups: int = -1
    diverse_beam_strength: float = 0.5
    diversity_rate: float = -1.0
    retain_dropout: bool = False
    seed: int = 1
    remove_bpe: str = "sentencepiece"

    def __post_init__(self) -> None:
        for name in _RANGES:
            self._check_range(name)
        if math.isnan(self.unkpen):  # inf, though, keeps unknown words away
            raise UserError(f"--unkpen {self.unkpen}: expected a number")
        if not self.max_len_a and self.min_len > self.max_len_b:
            raise UserError(
                f"--min-len {self.min_len} is above --max-len-b {self.max_len_b}, the most tokens that a hypothesis "
                "may have; change one of them"
            )
        searches = {
            "--sampling": self.sampling,
            "--diverse-beam-groups": self.diverse_beam_groups > 0,
            "--match-source-len": self.match_source_len,
            "--diversity-rate": self.diversity_rate > 0,
        }
        chosen = [name for name, is_chosen in searches.items() if is_chosen]
        if len(chosen) > 1:
            raise UserError(f"{' and '.join(chosen)} are different ways to search; give one of them")
        if (self.sampling_topk >= 0 or self.sampling_topp >= 0) and not self.sampling:
            raise UserError(
                "--sampling-topk and --sampling-topp say how to draw; give --sampling too, or leave them out"
            )
        if self.sampling_topk > 0 and self.sampling_topp > 0:
            raise UserError("--sampling-topk and --sampling-topp say differently how to draw; give one of them")
        if self.diverse_beam_groups > 0 and self.beam % self.diverse_beam_groups:
            raise UserError(
                f"--diverse-beam-groups {self.diverse_beam_groups} do not divide --beam {self.beam}; change one of them"
            )

    def _check_range(self, name: str) -> None:
        value, (least, most, expected) = getattr(self, name), _RANGES[name]
        whole = isinstance(getattr(type(self), name), int)
        is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        fits = is_number and math.isfinite(value) and least <= value <= most
        if name in _ABOVE_LEAST:
            fits = fits and value > least
        if not fits and not (name in _MAY_BE_OFF and value == _OFF):
            raise UserError(f"--{name.replace('_', '-')} {value}: expected {expected}")

    def flags(self) -> list[str]:
        """The settings as flags of ``fairseq-generate``."""
        flags = []
        for name, value in asdict(self).items():
            if value is not False:
                flags += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        return flags

    @property
    def depends_on_batch(self) -> bool:
        """Whether a hypothesis depends on its batch: its limit on the longest source there, its draws on the order."""
        return self.max_len_a != 0 or self.match_source_len or self.draws

    @property
    def draws(self) -> bool:
        """Whether chance decides."""
        return self.sampling or self.retain_dropout

    @classmethod
    def from_args(cls, args: Namespace) -> Generation:
        """Takes the settings from the attributes of the same names; those that are not there have their defaults.

        Raises:
            UserError: as the class.
        """
        return cls(**{field.name: getattr(args, field.name) for field in fields(cls) if hasattr(args, field.name)})


@dataclass(frozen=True)
class Model:
    """Which model translates, and how it sees its input.

    Attributes:
        checkpoints: one file, or several of an ensemble.
        dictionary: the fairseq dictionary of all languages.
        langs: the languages that the model knows, in the order of its dictionary's language tokens.
        encoder_langtok: ``src``, ``tgt`` or None: the language token before the source.
        decoder_langtok: whether the target starts with its language token.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        device: ``cpu``, ``cuda``, ``cuda:1``, …; where None a GPU, if there is one.
        pairs: whether its language-specific pairs take part, or only the base model below them.
        base_checkpoint: the base of checkpoints that hold adapters only; where it lay in training if None.
        lang_tok_style: how a language token is written, fairseq's ``--lang-tok-style``.
    """

    checkpoints: tuple[Path, ...]
    dictionary: Path
    langs: tuple[str, ...]
    encoder_langtok: str | None = "src"
    decoder_langtok: bool = True
    precision: str = "fp32"
    device: str | None = None
    pairs: bool = True
    base_checkpoint: str | Path | None = None
    lang_tok_style: str = STYLE

    @classmethod
    def from_checkpoints(
        cls,
        checkpoints: Sequence[Path],
        dictionary: Path,
        languages: Sequence[str],
        encoder_langtok: str | None = None,
        decoder_langtok: bool | None = None,
        precision: str = "fp32",
        cpu: bool = False,
        pairs: bool = True,
        base_checkpoint: str | Path | None = None,
    ) -> Model:
        """Reads from the first checkpoint how it was trained: its languages and language tokens.

        Args:
            checkpoints: the files.
            dictionary: the dictionary.
            languages: languages to translate between; those that the checkpoint does not name follow its own.
            encoder_langtok: ``src``, ``tgt`` or ``none`` in place of what the checkpoint says.
            decoder_langtok: likewise.
            precision: ``fp32``, ``fp16`` or ``bf16``.
            cpu: do not use a GPU.
            pairs: as the attribute.
            base_checkpoint: likewise.

        Raises:
            UserError: a file is missing, damaged or no checkpoint of fairseq, or its language tokens stand elsewhere
                than in M2M100.
        """
        outlines = [read_outline(path) for path in checkpoints]
        known = stored_langs(outlines[0].model_args)
        tokens = LanguageTokens.from_args(outlines[0].model_args) or LanguageTokens("src", "tgt")
        if tokens.replacing or not tokens.are_plain:
            raise UserError(
                f"checkpoint {checkpoints[0]} was trained with {tokens}, which is not done here; use fairseq-generate "
                "with these flags"
            )
        if encoder_langtok is None:
            encoder_langtok = tokens.source or "none"
        if decoder_langtok is None:
            decoder_langtok = tokens.target is not None
        return cls(
            tuple(checkpoints),
            dictionary,
            (*known, *(name for name in languages if name not in known)),
            None if encoder_langtok == "none" else encoder_langtok,
            decoder_langtok,
            precision,
            "cpu" if cpu else None,
            pairs,
            base_checkpoint,
            tokens.style,
        )
