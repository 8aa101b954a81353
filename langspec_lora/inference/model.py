"""A model that is loaded once and decodes batches of any directions with fairseq's own generator."""

# Imports in functions: torch and fairseq take seconds, and an evaluation is checked without them.

from __future__ import annotations

import importlib
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from langspec_lora.data.plain_text import plain_text
from langspec_lora.errors import UserError
from langspec_lora.generation import BatchLimits, GenerationSettings
from langspec_lora.inference.model_files import ModelFiles
from langspec_lora.inference.model_spec import ModelSpec
from langspec_lora.settings import given_flags

if TYPE_CHECKING:
    import torch
    from fairseq.data import FairseqDataset

TASK = "translation_multi_simple_epoch_lora"


class LoadedModel:
    """A model and its generator.

    Args:
        files: the model's files.
        generation: beam size and other settings of the search.
        limits: how large a batch may be, as in ``fairseq-generate``.
        directions: directions that contain every language that will be translated from or to.

    Attributes:
        device: the device of the model.
        limits: how large a batch may be.
        task: fairseq's task, with the dictionaries.
        max_positions: maximum number of tokens of a source and of a target.
        has_adapters: whether a checkpoint has language-specific adapters, used or not.

    Raises:
        UserError: the device does not exist, or does not support the dtype.
        SystemExit: with one line, if a checkpoint is damaged, or the dictionary or languages do not fit it.
    """

    def __init__(
        self,
        files: ModelFiles,
        generation: GenerationSettings,
        limits: BatchLimits,
        directions: Sequence[tuple[str, str]],
    ) -> None:
        import torch
        from fairseq import checkpoint_utils, options, tasks, utils
        from fairseq.dataclass.utils import convert_namespace_to_omegaconf

        importlib.import_module("langspec_lora.tasks.translation")  # registers the task, the model, the architectures
        from langspec_lora.models.transformer import LanguageSpecificTransformer

        spec = files.spec
        self.limits, self._generation, self.device = limits, generation, _device(spec)

        parser = options.get_generation_parser(default_task=TASK)
        args = options.parse_args_and_arch(parser, _fairseq_flags(files, generation, directions))
        cfg = convert_namespace_to_omegaconf(args)
        # fairseq strips the token of one --target-lang; here _ignored_symbols strips it for each direction.
        generation_args = Namespace(**cfg.generation, keep_inference_langtok=True)
        self.task = tasks.setup_task(cfg.task)
        paths = [str(path) for path in spec.checkpoints]
        self._models, _ = checkpoint_utils.load_model_ensemble(paths, task=self.task)
        self.has_adapters = any(getattr(loaded, "adapters", None) is not None for loaded in self._models)
        for loaded in self._models:
            if not spec.adapters and isinstance(loaded, LanguageSpecificTransformer) and loaded.adapters is not None:
                loaded.remove_adapters()
            if spec.dtype != "fp32":
                loaded.to(torch.float16 if spec.dtype == "fp16" else torch.bfloat16)
            loaded.to(self.device)
            loaded.prepare_for_inference_(cfg)
        self._generator = self.task.build_generator(self._models, generation_args)
        self.max_positions = utils.resolve_max_positions(
            self.task.max_positions(), *(loaded.max_positions() for loaded in self._models)
        )

    @property
    def models(self) -> Sequence[Any]:
        """The models of the checkpoints, ready for inference."""
        return self._models

    def decode(
        self,
        datasets: Sequence[tuple[tuple[str, str], FairseqDataset]],
        merge: bool,
        progress: Callable[[int], object] = lambda sentences: None,
    ) -> list[list[str]]:
        """Translates several datasets; a batch may contain sentences of more than one.

        Args:
            datasets: direction and source sentences, with language ids (a
                :class:`~langspec_lora.data.language_ids.LanguageIdDataset`).
            merge: whether to merge the adapters into (a second copy of) the weights if a batch has one direction; this
                pays off if many batches in a row have the same direction.
            progress: called with the number of sentences after each batch.

        Returns:
            The hypotheses of each dataset, in the order of its sentences.
        """
        from fairseq import utils
        from fairseq.data import ConcatDataset

        directions = [direction for direction, _ in datasets]
        if self._generation.draws:
            utils.set_torch_seed(self._generation.seed)  # so that draws do not depend on earlier translations
        self.task.one_direction = merge
        dataset = ConcatDataset([dataset for _, dataset in datasets])
        starts = np.concatenate([[0], dataset.cumulative_sizes])
        hypotheses = [""] * len(dataset)
        ignored = [self._ignored_symbols(target) for _, target in directions]
        batches = dataset.batch_by_size(
            dataset.ordered_indices(), max_tokens=self.limits.max_tokens, max_sentences=self.limits.batch_size
        )
        for batch in batches:
            # The index among all sentences replaces fairseq's id, which repeats from dataset to dataset.
            sample = dataset.collater([{**dataset[index], "id": int(index)} for index in batch])
            for index, tokens in self._decode_batch(sample):
                number = int(np.searchsorted(starts, index, side="right")) - 1
                hypotheses[index] = plain_text(
                    self.task.target_dictionary,
                    tokens,
                    self._generation.remove_bpe,
                    extra_symbols_to_ignore=ignored[number],
                )
            progress(len(batch))
        return [hypotheses[start:end] for start, end in pairwise(starts)]

    def _decode_batch(self, sample: dict[str, Any]) -> Iterator[tuple[int, torch.Tensor]]:
        from fairseq import utils

        sample = utils.move_to_cuda(sample, self.device) if self.device.type == "cuda" else sample
        size = self._generation.prefix_size
        prefix = sample["target"][:, :size] if size else None
        results = self.task.inference_step(self._generator, self._models, sample, prefix)
        for index, beams in zip(sample["id"].tolist(), results, strict=True):
            yield index, beams[0]["tokens"].int().cpu()

    def _ignored_symbols(self, target: str) -> set[int]:
        """What ``fairseq-generate`` leaves out of the text for this target: the end and the language token."""
        _, spec = self.task.args.langtoks["main"]
        ignored = {self._generator.eos}
        return ignored | {self.task.data_manager.get_decoder_langtok(target, spec)} if spec else ignored


def _device(spec: ModelSpec) -> torch.device:
    import torch

    try:
        device = torch.device(spec.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise UserError(f"device {spec.device!r} is unknown; give cpu, cuda or cuda:1") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {spec.device!r} not found: torch finds {torch.cuda.device_count()} GPUs; give another device"
        )
    if spec.dtype == "fp16" and device.type == "cpu":
        raise UserError("--fp16 was given, but no GPU is used; leave it out on a CPU")
    return device


def _fairseq_flags(
    files: ModelFiles, generation: GenerationSettings, directions: Sequence[tuple[str, str]]
) -> list[str]:
    spec, tokens = files.spec, files.tokens
    # fairseq asks for the folder of the data; with a fixed dictionary it reads nothing from it.
    flags = [str(files.dictionary.parent), "--path", ":".join(map(str, spec.checkpoints))]
    flags += ["--fixed-dictionary", str(files.dictionary), "--langs", ",".join(files.langs)]
    flags += ["--lang-pairs", ",".join("-".join(direction) for direction in directions)]
    flags += ["--encoder-langtok", tokens.source] if tokens.source else []
    flags += ["--decoder-langtok"] if tokens.target else []
    flags += ["--lang-tok-style", tokens.style]
    flags += ["--base-checkpoint", str(spec.base_checkpoint)] if spec.base_checkpoint else []
    flags += ["--directions", spec.directions]
    flags += ["--dataset-impl", "mmap", "--required-batch-size-multiple", "1"]
    return [*flags, *given_flags(generation)]
