"""Decoding of many directions with one loaded model, by fairseq's own generator."""

from __future__ import annotations

import importlib
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langspec_lora.checkpoints.layout import CheckpointLayout, read_layout
from langspec_lora.errors import UserError
from langspec_lora.evaluation.directions import Direction

if TYPE_CHECKING:
    import torch
    from fairseq.data import FairseqDataset

TASK = "translation_multi_simple_epoch_lora"
MAX_TOKENS = 12000
"""``fairseq-generate``'s own default of ``--max-tokens``."""

_BATCHES_IN_A_GROUP = 8
"""Directions are decoded together until they fill so many batches: enough for batches of equally long sentences."""


@dataclass(frozen=True)
class Generation:
    """What decides the hypotheses besides model and data; names and defaults are those of ``fairseq-generate``."""

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
    remove_bpe: str = "sentencepiece"

    def flags(self) -> list[str]:
        """The settings as flags of ``fairseq-generate``."""
        flags = []
        for name, value in asdict(self).items():
            if value is not False:
                flags += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        return flags

    @property
    def depends_on_batch(self) -> bool:
        """Whether fairseq takes the length limit of a sentence from the longest source in its batch."""
        return self.max_len_a != 0 or self.match_source_len

    @classmethod
    def from_args(cls, args: Namespace) -> Generation:
        """Takes the settings from the attributes of the same names.

        Raises:
            UserError: the beam is below 1.
        """
        if args.beam < 1:
            raise UserError(f"--beam {args.beam}: expected a number of hypotheses of at least 1")
        return cls(**{field.name: getattr(args, field.name) for field in fields(cls)})


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
        cpu: do not use a GPU.
    """

    checkpoints: tuple[Path, ...]
    dictionary: Path
    langs: tuple[str, ...]
    encoder_langtok: str | None = "src"
    decoder_langtok: bool = True
    precision: str = "fp32"
    cpu: bool = False

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

        Raises:
            UserError: a file is missing, damaged or no checkpoint of fairseq.
        """
        layouts = [read_layout(path) for path in checkpoints]
        known = stored_langs(layouts[0])
        args = layouts[0].model_args
        if encoder_langtok is None:
            encoder_langtok = getattr(args, "encoder_langtok", "src") or "none"
        if decoder_langtok is None:
            decoder_langtok = bool(getattr(args, "decoder_langtok", True))
        return cls(
            tuple(checkpoints),
            dictionary,
            (*known, *(name for name in languages if name not in known)),
            None if encoder_langtok == "none" else encoder_langtok,
            decoder_langtok,
            precision,
            cpu,
        )


def stored_langs(layout: CheckpointLayout) -> tuple[str, ...]:
    """The ``--langs`` that a checkpoint was trained with; none where it does not say."""
    langs = getattr(layout.model_args, "langs", None) or ()
    return tuple(langs.split(",")) if isinstance(langs, str) else tuple(langs)


class Decoder:
    """Loads a model once and translates any of the given directions.

    Args:
        data_bin: the binarised folder.
        subset: ``test``, ``valid``, …
        directions: the directions that may be asked for.
        model: which model.
        generation: beam and the like.
        max_tokens: tokens in a batch, padding included, as ``fairseq-generate`` counts them.
        batch_size: sentences in a batch at most; no limit where None.
        mixed: directions share batches. Otherwise the batches are those of ``fairseq-generate`` for each direction.

    Raises:
        UserError: a precision does not fit the device.
        SystemExit: with one line, if a checkpoint is damaged, or the dictionary or languages do not fit it.
    """

    def __init__(
        self,
        data_bin: Path,
        subset: str,
        directions: Sequence[Direction],
        model: Model,
        generation: Generation,
        max_tokens: int = MAX_TOKENS,
        batch_size: int | None = None,
        mixed: bool = True,
    ) -> None:
        import torch
        from fairseq import checkpoint_utils, options, tasks, utils
        from fairseq.dataclass.utils import convert_namespace_to_omegaconf

        importlib.import_module("langspec_lora.tasks.translation")  # registers the task, the model, the architectures
        self.subset, self.data_bin = subset, data_bin
        self.max_tokens, self.batch_size = max_tokens, batch_size
        self.mixed = mixed and not generation.depends_on_batch
        self.remove_bpe = generation.remove_bpe
        self.device = torch.device("cuda" if torch.cuda.is_available() and not model.cpu else "cpu")
        if model.precision == "fp16" and self.device.type == "cpu":
            raise UserError("--fp16 was given, but there is no GPU to use; leave it out on a CPU")

        parser = options.get_generation_parser(default_task=TASK)
        args = options.parse_args_and_arch(parser, _flags(data_bin, directions, model, generation))
        cfg = convert_namespace_to_omegaconf(args)
        # fairseq strips the token of one --target-lang; here it is stripped for each direction, in _ignored_symbols.
        generation_args = Namespace(**cfg.generation, keep_inference_langtok=True)
        self.task = tasks.setup_task(cfg.task)
        self.task.one_direction = not self.mixed
        paths = [str(path) for path in model.checkpoints]
        self.models, _ = checkpoint_utils.load_model_ensemble(paths, task=self.task)
        for loaded in self.models:
            if model.precision != "fp32":
                loaded.to(torch.float16 if model.precision == "fp16" else torch.bfloat16)
            loaded.to(self.device)
            loaded.prepare_for_inference_(cfg)
        self.generator = self.task.build_generator(self.models, generation_args)
        self.max_positions = utils.resolve_max_positions(
            self.task.max_positions(), *(loaded.max_positions() for loaded in self.models)
        )

    def load(self, direction: Direction) -> FairseqDataset:
        """Opens the data of one direction.

        Raises:
            UserError: a sentence is longer than the model can take.
        """
        source, target = direction
        dataset = self.task.data_manager.load_a_dataset(
            self.subset,
            str(self.data_bin),
            source,
            self.task.source_dictionary,
            target,
            self.task.target_dictionary,
            combine=False,
            data_category="main",
            langtok_spec=self.task.args.langtoks["main"],
        )
        for side, sizes, limit in zip(direction, np.asarray(dataset.sizes).T, self.max_positions, strict=True):
            too_long = np.flatnonzero(sizes > limit)
            if len(too_long):
                raise UserError(
                    f"{self.subset} data of {direction}, {side}, line {too_long[0] + 1}: {sizes[too_long[0]]} tokens, "
                    f"but the model takes {limit}; shorten the sentence in the data"
                )
        return dataset

    def translate(
        self, directions: Sequence[Direction], progress: Callable[[int], None] = lambda sentences: None
    ) -> Iterator[tuple[Direction, list[str]]]:
        """Translates directions; each is yielded as soon as it is complete.

        Args:
            directions: what to translate.
            progress: called with the number of sentences after each batch.

        Yields:
            A direction and its hypotheses in the order of the data.
        """
        for group in self._groups(directions):
            yield from zip(group, self._translate_group(group, progress), strict=True)

    def _groups(self, directions: Sequence[Direction]) -> Iterator[list[Direction]]:
        group, tokens = [], 0
        for direction in directions:
            group.append(direction)
            tokens += int(np.asarray(self.load(direction).sizes).max(axis=1).sum()) if self.mixed else 0
            if not self.mixed or tokens >= _BATCHES_IN_A_GROUP * self.max_tokens:
                yield group
                group, tokens = [], 0
        if group:
            yield group

    def _translate_group(self, group: Sequence[Direction], progress: Callable[[int], None]) -> list[list[str]]:
        from fairseq.data import ConcatDataset

        dataset = ConcatDataset([self.load(direction) for direction in group])
        starts = np.concatenate([[0], dataset.cumulative_sizes])
        hypotheses = [""] * len(dataset)
        ignored = [self._ignored_symbols(direction) for direction in group]
        batches = dataset.batch_by_size(
            dataset.ordered_indices(), max_tokens=self.max_tokens, max_sentences=self.batch_size
        )
        for batch in batches:
            # The place in the group stands in for fairseq's id, which repeats from direction to direction.
            sample = dataset.collater([{**dataset[place], "id": int(place)} for place in batch])
            for place, tokens in self._translate_batch(sample):
                number = int(np.searchsorted(starts, place, side="right")) - 1
                hypotheses[place] = self.task.target_dictionary.string(
                    tokens, self.remove_bpe, extra_symbols_to_ignore=ignored[number]
                )
            progress(len(batch))
        return [hypotheses[start:end] for start, end in pairwise(starts)]

    def _translate_batch(self, sample: dict[str, Any]) -> Iterator[tuple[int, torch.Tensor]]:
        from fairseq import utils

        sample = utils.move_to_cuda(sample) if self.device.type == "cuda" else sample
        results = self.task.inference_step(self.generator, self.models, sample)
        for place, beams in zip(sample["id"].tolist(), results, strict=True):
            yield place, beams[0]["tokens"].int().cpu()

    def _ignored_symbols(self, direction: Direction) -> set[int]:
        """What ``fairseq-generate`` leaves out of the text for this direction: its end and its language token."""
        _, spec = self.task.args.langtoks["main"]
        ignored = {self.generator.eos}
        return ignored | {self.task.data_manager.get_decoder_langtok(direction.target, spec)} if spec else ignored


def _flags(data_bin: Path, directions: Sequence[Direction], model: Model, generation: Generation) -> list[str]:
    flags = [str(data_bin), "--path", ":".join(map(str, model.checkpoints))]
    flags += ["--fixed-dictionary", str(model.dictionary), "--langs", ",".join(model.langs)]
    flags += ["--lang-pairs", ",".join(map(str, directions))]
    flags += ["--encoder-langtok", model.encoder_langtok] if model.encoder_langtok else []
    flags += ["--decoder-langtok"] if model.decoder_langtok else []
    flags += ["--dataset-impl", "mmap", "--required-batch-size-multiple", "1"]
    return [*flags, *generation.flags()]
