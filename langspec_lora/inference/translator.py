"""Raw text in, raw text out, between any languages of a checkpoint."""

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
from langspec_lora.inference.assets import Assets, find_assets
from langspec_lora.inference.loaded import LoadedModel
from langspec_lora.inference.settings import MAX_TOKENS, Generation, check_batch_limits

if TYPE_CHECKING:
    from fairseq.data import FairseqDataset
    from torch import Tensor

logger = logging.getLogger(__name__)


class LineError(UserError):
    """A line that cannot be translated.

    Attributes:
        index: its place among the lines, counted from 0.
        reason: what is wrong with it, and what to change.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"line {index + 1}: {reason}")
        self.index, self.reason = index, reason


class Translator:
    """Translates raw text with a model that is loaded once.

    Its hypotheses are those of ``fairseq-generate`` on the same text, split by the same SentencePiece model. Threads
    may share a translator, as those of a web server do; they take turns.

    Args:
        assets: the model, its dictionary and SentencePiece model; :func:`~langspec_lora.inference.assets.find_assets`
            finds them.
        generation: beam and the like.
        max_tokens: tokens in a batch, padding included.
        batch_size: sentences in a batch at most; no limit where None.

    Attributes:
        languages: the languages between which it translates.
        device: where it computes, a ``torch.device``.

    Raises:
        UserError: the files do not fit each other, or the precision or device is not to be had.
    """

    def __init__(
        self,
        assets: Assets,
        generation: Generation | None = None,
        max_tokens: int = MAX_TOKENS,
        batch_size: int | None = None,
    ) -> None:
        generation = generation or Generation()
        check_batch_limits(max_tokens, batch_size)
        self._assets, self.languages = assets, assets.languages
        self._turn = Lock()  # a batch sets its languages on the model: another thread's would be translated with them
        self._split = load_splitter(assets.sentencepiece_model)
        self._shares_batches = not generation.depends_on_batch
        with _user_errors():
            self._loaded = LoadedModel(assets.model, generation, _ring(assets.languages), max_tokens, batch_size)
        self.device = self._loaded.device
        if not assets.adapted:
            logger.warning("%s has no adapters; it translates as the base model", assets.model.checkpoints[0])

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path | Sequence[str | Path],
        *,
        dictionary: str | Path | None = None,
        sentencepiece_model: str | Path | None = None,
        langs: Sequence[str] = (),
        encoder_langtok: str | None = None,
        decoder_langtok: bool | None = None,
        precision: str = "fp32",
        device: str | None = None,
        base_checkpoint: str | Path | None = None,
        max_tokens: int = MAX_TOKENS,
        batch_size: int | None = None,
        **generation: Any,
    ) -> Translator:
        """Loads a checkpoint of fairseq, with adapters or without.

        What is not given is looked for beside the checkpoint and in the data folder that it was trained on.

        Args:
            checkpoint: the file, or several of an ensemble.
            dictionary: the model's dictionary.
            sentencepiece_model: the SentencePiece model that belongs to it.
            langs: languages of a base model that names none itself.
            encoder_langtok: ``src``, ``tgt`` or ``none`` in place of what the checkpoint says.
            decoder_langtok: likewise.
            precision: ``fp32``, ``fp16`` or ``bf16``.
            device: ``cpu``, ``cuda``, ``cuda:1``, …; where None a GPU, if there is one.
            base_checkpoint: the base of a checkpoint that holds adapters only; where it lay in training if None.
            max_tokens: tokens in a batch, padding included.
            batch_size: sentences in a batch at most; no limit where None.
            **generation: settings of :class:`~langspec_lora.inference.settings.Generation`, such as ``beam=1``.

        Raises:
            UserError: a file is missing, damaged or hostile, the files do not fit each other, or the precision or
                device is not to be had.
        """
        checkpoints = [checkpoint] if isinstance(checkpoint, (str, os.PathLike)) else list(checkpoint)
        settings = Generation(**generation)
        assets = find_assets(
            checkpoints,
            dictionary,
            sentencepiece_model,
            langs,
            encoder_langtok,
            decoder_langtok,
            precision,
            device,
            base_checkpoint,
        )
        return cls(assets, settings, max_tokens, batch_size)

    def translate(self, lines: Sequence[str], source: str | Sequence[str], target: str | Sequence[str]) -> list[str]:
        """Translates lines of raw text.

        Args:
            lines: the text; white space around a line is dropped.
            source: the language of all lines, or of each.
            target: likewise.

        Returns:
            The translations in the order of the lines; that of an empty line is empty.

        Raises:
            UserError: a language is unknown, or a line is longer than the model can take (a :class:`LineError`); before
                anything is decoded.
        """
        if isinstance(lines, str):
            raise UserError("a single string was given as the lines; give a list of strings")
        directions = self._directions(len(lines), source, target)
        tokens = [self._encode(index, line) for index, line in enumerate(lines)]
        places: dict[tuple[str, str], list[int]] = {}
        for index, direction in enumerate(directions):
            if tokens[index] is not None:
                places.setdefault(direction, []).append(index)

        translations = [""] * len(lines)
        for group in self._groups(places):
            datasets = [
                (direction, self._dataset(direction, [tokens[index] for index in places[direction]]))
                for direction in group
            ]
            with self._turn, _user_errors():
                decoded = self._loaded.decode(datasets, merge=len(group) == 1)
            for direction, texts in zip(group, decoded, strict=True):
                for index, text in zip(places[direction], texts, strict=True):
                    translations[index] = text
        return translations

    def _groups(self, directions: Collection[tuple[str, str]]) -> list[list[tuple[str, str]]]:
        """Directions that share batches."""
        if self._shares_batches:
            return [list(directions)] if directions else []
        return [[direction] for direction in directions]

    def _directions(
        self, count: int, source: str | Sequence[str], target: str | Sequence[str]
    ) -> list[tuple[str, str]]:
        sides = [[names] * count if isinstance(names, str) else list(names) for names in (source, target)]
        for side, names in zip(("source", "target"), sides, strict=True):
            if len(names) != count:
                raise UserError(f"{len(names)} {side} languages were given for {count} lines; give one, or one a line")
        directions = list(zip(*sides, strict=True))
        for direction in dict.fromkeys(directions):
            self._assets.check_direction(*direction)
        return directions

    def _encode(self, index: int, line: str) -> Tensor | None:
        """The tokens of a line, ``(length,)`` int64, or None for an empty one."""
        if not isinstance(line, str):
            raise LineError(index, f"it is of the type {type(line).__name__}; expected a string")
        try:
            line.encode()
        except UnicodeEncodeError:  # half a surrogate pair, which stands for a byte that is not UTF-8
            raise LineError(index, "not UTF-8; convert the text to UTF-8") from None
        pieces = self._split(line.strip())
        if not pieces:
            return None
        tokens = self._loaded.task.source_dictionary.encode_line(pieces, add_if_not_exist=False).long()
        length = len(tokens) + bool(self._assets.model.encoder_langtok)
        loaded = self._loaded
        limit, what = min((loaded.max_positions[0], "the model takes"), (loaded.max_tokens, "--max-tokens is"))
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
    """Directions that name every language; of a hundred languages all would be thousands."""
    return list(zip(languages, (*languages[1:], languages[0]), strict=True))


@contextmanager
def _user_errors() -> Iterator[None]:
    """Gives back the error with which fairseq's command lines end as programs."""
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__cause__, UserError):
            raise end.__cause__ from None
        raise
