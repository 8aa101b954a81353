"""What to prepare and how, checked before any text is read; and what a prepared folder depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from langspec_lora.data.own_text.defaults import HIGH, MED, TEMPERATURE
from langspec_lora.data.own_text.filters import Limits
from langspec_lora.data.own_text.text_files import SPLITS, FoundText
from langspec_lora.data.vocabulary import check_fit, check_vocabulary_options
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.files import sha256
from langspec_lora.languages import Resources


@dataclass(frozen=True)
class Options:
    """What to prepare, and how.

    Attributes:
        folders: the folders of ``train``, ``valid`` and ``test``.
        lines: how many lines to cut out of the training text for ``valid`` and ``test``, of each language pair of
            which the folders have none.
        languages: YAML file of levels, which names the languages to take; None for all, with suggested levels.
        spm: SentencePiece model; None to train one.
        dictionary: the dictionary of ``spm``.
        vocab_size: size of the model to train; None for one that suits the number of languages.
        temperature: how evenly the model is trained on the languages.
        limits: what a training pair may be.
        high: from how many sentences on a language is high.
        med: from how many on it is med.
    """

    folders: Mapping[str, tuple[Path, ...]]
    lines: Mapping[str, int]
    languages: Path | None = None
    spm: Path | None = None
    dictionary: Path | None = None
    vocab_size: int | None = None
    temperature: float = TEMPERATURE
    limits: Limits = field(default_factory=Limits)
    high: int = HIGH
    med: int = MED


def check_options(options: Options) -> None:
    """Checks what can be checked without reading text.

    Raises:
        UserError: something is missing or out of range; all mistakes are listed.
    """
    with collect_errors() as errors:
        for split in ("valid", "test"):
            with errors.check():
                if options.lines.get(split, 1) < 1:
                    raise UserError(f"--{split}-lines {options.lines[split]}: expected a number of lines of at least 1")
        with errors.check():
            if not options.folders.get("valid") and "valid" not in options.lines:
                raise UserError(
                    "no validation text, which fairseq needs; give --valid DIR, or --valid-lines 500 to cut 500 lines "
                    "of each language pair from the training text"
                )
        with errors.check():
            check_vocabulary_options(options.spm, options.dictionary, options.vocab_size)
            if options.spm is not None and options.dictionary is not None:
                check_fit(options.spm, options.dictionary)
        with errors.check():
            if options.temperature < 1:
                raise UserError(f"--vocab-temperature {options.temperature:g}: expected a number of at least 1")
        with errors.check():
            if options.limits.max_length < 1:
                raise UserError(f"--max-length {options.limits.max_length}: expected a number of tokens of at least 1")
        with errors.check():
            if options.limits.max_ratio < 1:
                raise UserError(f"--max-ratio {options.limits.max_ratio:g}: expected a number of at least 1")
        with errors.check():
            if not 1 <= options.med <= options.high:
                raise UserError(
                    f"--high-lines {options.high} and --med-lines {options.med}: expected numbers of at least 1, the "
                    "first not below the second"
                )


def settings_of(options: Options, found: FoundText, resources: Resources | None) -> dict[str, Any]:
    """What the folder depends on."""
    known: dict[Path, str] = {}
    digests = {}
    for split in SPLITS:
        digest = hashlib.sha256()
        for text in found.texts.get(split, ()):
            for column in text.columns:
                if column.path not in known:
                    known[column.path] = sha256(column.path)
                digest.update(f"{column.language} {column.number} {known[column.path]}\n".encode())
            digest.update(b"\n")
        digests[f"{split}_text"] = digest.hexdigest()
    return {
        **digests,
        "lines": dict(options.lines),
        "languages": found.languages,
        "levels": dict(resources.levels) if resources else None,
        "ranks": dict(resources.ranks) if resources else None,
        "spm_sha256": sha256(options.spm) if options.spm else None,
        "dict_sha256": sha256(options.dictionary) if options.dictionary else None,
        "vocab_size": None if options.spm else options.vocab_size or default_size(len(found.languages)),
        "vocab_temperature": None if options.spm else options.temperature,
        **asdict(options.limits),
        "high_lines": options.high,
        "med_lines": options.med,
    }


def default_size(languages: int) -> int:
    """The size of a SentencePiece model for so many languages: 1,000 pieces for each, 8,000 to 64,000."""
    return max(8000, min(64_000, 1000 * languages))
