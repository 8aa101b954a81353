"""Translates raw text between any languages of a checkpoint."""

# Imports in functions: fairseq takes seconds, and the class can be imported without it.

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from langspec_lora.data.vocabulary import load_splitter
from langspec_lora.errors import UserError
from langspec_lora.generation import BatchLimits, GenerationSettings
from langspec_lora.inference.model import LoadedModel
from langspec_lora.inference.model_files import TranslatorFiles, find_files
from langspec_lora.inference.model_spec import ModelSpec
from langspec_lora.settings import split_settings

if TYPE_CHECKING:
    from fairseq.data import FairseqDataset
    from torch import Tensor

logger = logging.getLogger(__name__)


class LineError(UserError):
    """A line that cannot be translated.

    Attributes:
        index: index of the line, from 0.
        reason: what is wrong with the line, and what to change.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"line {index + 1}: {reason}")
        self.index, self.reason = index, reason


class Translator:
    """Translates raw text with a model that is loaded once.

    Its hypotheses are those of ``fairseq-generate`` on the same text, split by the same SentencePiece model. Several
    threads may share a translator, for example in a web server; they take turns.

    Args:
        files: the model's files; :func:`~langspec_lora.inference.model_files.find_files` finds them.
        generation: beam size and other settings of the search.
        limits: how large a batch may be.

    Attributes:
        languages: the languages between which it translates.
        device: the device of the model, a ``torch.device``.

    Raises:
        UserError: the files do not fit each other, or the device does not exist or does not support the dtype.
    """

    def __init__(
        self,
        files: TranslatorFiles,
        generation: GenerationSettings | None = None,
        limits: BatchLimits | None = None,
    ) -> None:
        generation = generation or GenerationSettings()
        self._files, self.languages = files, files.languages
        self._turn = Lock()  # each batch sets the languages of the whole model
        self._split = load_splitter(files.sentencepiece_model)
        self._shares_batches = not generation.depends_on_batch
        with _user_errors():
            self._loaded = LoadedModel(files.model, generation, limits or BatchLimits(), _ring(files.languages))
        self.device = self._loaded.device
        if not files.adapted:
            logger.warning("%s has no adapters; it translates as the base model", files.model.spec.checkpoints[0])

    @classmethod
    def from_checkpoint(cls, checkpoint: str | Path | Sequence[str | Path], **settings: Any) -> Translator:
        """Loads a checkpoint of fairseq, with or without adapters.

        Files that are not given are searched for beside the checkpoint and in the data folder that it was trained on.

        Args:
            checkpoint: the file, or the files of an ensemble.
            **settings: fields of :class:`~langspec_lora.inference.model_spec.ModelSpec`,
                :class:`~langspec_lora.generation.BatchLimits` and
                :class:`~langspec_lora.generation.GenerationSettings`, such as ``device="cpu"`` or ``beam=1``.

        Raises:
            TypeError: a setting is unknown.
            UserError: a file is missing, damaged or hostile, the files do not fit each other, or the device does not
                exist or does not support the dtype.
        """
        checkpoints = [checkpoint] if isinstance(checkpoint, (str, os.PathLike)) else checkpoint
        model, limits, generation = split_settings(settings, ModelSpec, BatchLimits, GenerationSettings)
        spec = ModelSpec(tuple(map(Path, checkpoints)), **model)
        return cls(find_files(spec), GenerationSettings(**generation), BatchLimits(**limits))

    def translate(self, lines: Sequence[str], source: str | Sequence[str], target: str | Sequence[str]) -> list[str]:
        """Translates lines of raw text.

        Args:
            lines: the text; white space around a line is dropped.
            source: the source language of all lines, or one for each line.
            target: the target language, likewise.

        Returns:
            The translations in the order of the lines; the translation of an empty line is empty.

        Raises:
            UserError: before anything is decoded, if a language is unknown, or if a line is not text or is too long
                for the model (a :class:`LineError`).
        """
        if isinstance(lines, str):
            raise UserError("a single string was given as the lines; give a list of strings")
        directions = self._directions(len(lines), source, target)
        tokens = [self._encode(index, line) for index, line in enumerate(lines)]
        filled: dict[tuple[str, str], dict[int, Tensor]] = {}  # the lines with text of each direction, by index
        for index, (direction, sentence) in enumerate(zip(directions, tokens, strict=True)):
            if sentence is not None:
                filled.setdefault(direction, {})[index] = sentence

        translations = [""] * len(lines)
        for group in self._groups(filled):
            datasets = [(direction, self._dataset(direction, list(filled[direction].values()))) for direction in group]
            with self._turn, _user_errors():
                decoded = self._loaded.decode(datasets, merge=len(group) == 1)
            for direction, texts in zip(group, decoded, strict=True):
                for index, text in zip(filled[direction], texts, strict=True):
                    translations[index] = text
        return translations

    def _groups(self, directions: Collection[tuple[str, str]]) -> list[list[tuple[str, str]]]:
        """Groups of directions that share batches."""
        if self._shares_batches:
            return [list(directions)] if directions else []
        return [[direction] for direction in directions]

    def _directions(
        self, count: int, source: str | Sequence[str], target: str | Sequence[str]
    ) -> list[tuple[str, str]]:
        sides = [[names] * count if isinstance(names, str) else list(names) for names in (source, target)]
        for side, names in zip(("source", "target"), sides, strict=True):
            if len(names) != count:
                raise UserError(
                    f"{len(names)} {side} languages were given for {count} lines; give one, or one per line"
                )
        directions = list(zip(*sides, strict=True))
        for direction in dict.fromkeys(directions):
            self._files.check_direction(*direction)
        return directions

    def _encode(self, index: int, line: str) -> Tensor | None:
        """The tokens of a line, ``(length,)`` int64, or None for an empty one."""
        if not isinstance(line, str):
            raise LineError(index, f"it has the type {type(line).__name__}; expected a string")
        try:
            line.encode()
        except UnicodeEncodeError:  # half a surrogate pair: a byte that is not UTF-8
            raise LineError(index, "not UTF-8; convert the text to UTF-8") from None
        pieces = self._split(line.strip())
        if not pieces:
            return None
        tokens = self._loaded.task.source_dictionary.encode_line(pieces, add_if_not_exist=False).long()
        length = len(tokens) + bool(self._files.model.tokens.source)
        loaded = self._loaded
        limit, what = min((loaded.max_positions[0], "the model takes"), (loaded.limits.max_tokens, "--max-tokens is"))
        if length > limit:
            raise LineError(index, f"{length} tokens, but {what} {limit}; split the line")
        return tokens

    def _dataset(self, direction: tuple[str, str], sentences: Sequence[Tensor]) -> FairseqDataset:
        from fairseq.data import LanguagePairDataset, ListDataset

        from langspec_lora.data.language_ids import LanguageIdDataset

        task = self._loaded.task
        spec, _ = task.args.langtoks["main"]
        tokens = ListDataset(sentences, [len(sentence) for sentence in sentences])
        # fairseq's own build_dataset_for_inference knows only the direction of the command line.
        tokens = task.data_manager.src_dataset_tranform_func(*direction, dataset=tokens, spec=spec)
        dataset = LanguagePairDataset(tokens, tokens.sizes, task.source_dictionary, shuffle=False)
        return LanguageIdDataset(dataset, *map(task.langs.index, direction))


def _ring(languages: Sequence[str]) -> list[tuple[str, str]]:
    """A few directions that contain every language; all directions of a hundred languages would be thousands."""
    return list(zip(languages, (*languages[1:], languages[0]), strict=True))


@contextmanager
def _user_errors() -> Iterator[None]:
    """Raises a mistake as :class:`UserError` where fairseq's commands would end the program."""
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__cause__, UserError):
            raise end.__cause__ from None
        raise
