"""A model loaded once, which decodes batches of any directions by fairseq's own generator."""

from __future__ import annotations

import importlib
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from langspec_lora.data.plain_text import plain_text
from langspec_lora.errors import UserError
from langspec_lora.inference.settings import MAX_TOKENS, Generation, Model

if TYPE_CHECKING:
    import torch
    from fairseq.data import FairseqDataset

TASK = "translation_multi_simple_epoch_lora"


class LoadedModel:
    """A model and its generator.

    Args:
        model: which model.
        generation: beam and the like.
        directions: (source, target) pairs that name every language that will be translated from or to.
        max_tokens: tokens in a batch, padding included, as ``fairseq-generate`` counts them.
        batch_size: sentences in a batch at most; no limit where None.

    Attributes:
        device: where the model computes.
        task: fairseq's task, with the dictionaries.
        max_positions: how many tokens a source and a target may have.

    Raises:
        UserError: a precision does not fit the device, or the device is not there.
        SystemExit: with one line, if a checkpoint is damaged, or the dictionary or languages do not fit it.
    """

    def __init__(
        self,
        model: Model,
        generation: Generation,
        directions: Sequence[tuple[str, str]],
        max_tokens: int = MAX_TOKENS,
        batch_size: int | None = None,
    ) -> None:
        import torch
        from fairseq import checkpoint_utils, options, tasks, utils
        from fairseq.dataclass.utils import convert_namespace_to_omegaconf

        importlib.import_module("langspec_lora.tasks.translation")  # registers the task, the model, the architectures
        from langspec_lora.models.transformer import LanguageSpecificTransformer

        self.max_tokens, self.batch_size = max_tokens, batch_size
        self._generation = generation
        self.device = _device(model)

        parser = options.get_generation_parser(default_task=TASK)
        args = options.parse_args_and_arch(parser, _flags(model, generation, directions))
        cfg = convert_namespace_to_omegaconf(args)
        # fairseq strips the token of one --target-lang; here it is stripped for each direction, in _ignored_symbols.
        generation_args = Namespace(**cfg.generation, keep_inference_langtok=True)
        self.task = tasks.setup_task(cfg.task)
        paths = [str(path) for path in model.checkpoints]
        self._models, _ = checkpoint_utils.load_model_ensemble(paths, task=self.task)
        for loaded in self._models:
            if not model.pairs and isinstance(loaded, LanguageSpecificTransformer) and loaded.adapters is not None:
                loaded.adapters.clear()
            if model.precision != "fp32":
                loaded.to(torch.float16 if model.precision == "fp16" else torch.bfloat16)
            loaded.to(self.device)
            loaded.prepare_for_inference_(cfg)
        self._generator = self.task.build_generator(self._models, generation_args)
        self.max_positions = utils.resolve_max_positions(
            self.task.max_positions(), *(loaded.max_positions() for loaded in self._models)
        )

    @property
    def has_pairs(self) -> bool:
        """Whether the checkpoint has language-specific pairs."""
        return any(getattr(model, "adapted", None) for model in self._models)

    def decode(
        self,
        datasets: Sequence[tuple[tuple[str, str], FairseqDataset]],
        merge: bool,
        progress: Callable[[int], None] = lambda sentences: None,
    ) -> list[list[str]]:
        """Translates datasets, in batches that they share.

        Args:
            datasets: direction and source sentences, with language ids (a
                :class:`~langspec_lora.data.language_ids.LanguageIdDataset`).
            merge: whether the pairs of a batch of one direction are merged into (a second copy of) the weights, which
                pays where batch after batch is of the same direction.
            progress: called with the number of sentences after each batch.

        Returns:
            The hypotheses of each dataset, in the order of its sentences.
        """
        from fairseq import utils
        from fairseq.data import ConcatDataset

        directions = [direction for direction, _ in datasets]
        if self._generation.draws:
            utils.set_torch_seed(self._generation.seed)  # each direction anew, whatever was translated before
        self.task.one_direction = merge
        dataset = ConcatDataset([dataset for _, dataset in datasets])
        starts = np.concatenate([[0], dataset.cumulative_sizes])
        hypotheses = [""] * len(dataset)
        ignored = [self._ignored_symbols(target) for _, target in directions]
        batches = dataset.batch_by_size(
            dataset.ordered_indices(), max_tokens=self.max_tokens, max_sentences=self.batch_size
        )
        for batch in batches:
            # The place among all sentences stands in for fairseq's id, which repeats from dataset to dataset.
            sample = dataset.collater([{**dataset[place], "id": int(place)} for place in batch])
            for place, tokens in self._decode_batch(sample):
                number = int(np.searchsorted(starts, place, side="right")) - 1
                hypotheses[place] = plain_text(
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
        for place, beams in zip(sample["id"].tolist(), results, strict=True):
            yield place, beams[0]["tokens"].int().cpu()

    def _ignored_symbols(self, target: str) -> set[int]:
        """What ``fairseq-generate`` leaves out of the text for this target: its end and its language token."""
        _, spec = self.task.args.langtoks["main"]
        ignored = {self._generator.eos}
        return ignored | {self.task.data_manager.get_decoder_langtok(target, spec)} if spec else ignored


def _device(model: Model) -> torch.device:
    import torch

    try:
        device = torch.device(model.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise UserError(f"device {model.device!r} is unknown; give cpu, cuda or cuda:1") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {model.device!r} is not there: torch sees {torch.cuda.device_count()} GPUs; give another"
        )
    if model.precision == "fp16" and device.type == "cpu":
        raise UserError("--fp16 was given, but there is no GPU to use; leave it out on a CPU")
    return device


def _flags(model: Model, generation: Generation, directions: Sequence[tuple[str, str]]) -> list[str]:
    # The folder of the data is asked for; with a fixed dictionary nothing is read from it.
    flags = [str(model.dictionary.parent), "--path", ":".join(map(str, model.checkpoints))]
    flags += ["--fixed-dictionary", str(model.dictionary), "--langs", ",".join(model.langs)]
    flags += ["--lang-pairs", ",".join("-".join(direction) for direction in directions)]
    flags += ["--encoder-langtok", model.encoder_langtok] if model.encoder_langtok else []
    flags += ["--decoder-langtok"] if model.decoder_langtok else []
    flags += ["--lang-tok-style", model.lang_tok_style]
    flags += ["--base-checkpoint", str(model.base_checkpoint)] if model.base_checkpoint else []
    flags += ["--dataset-impl", "mmap", "--required-batch-size-multiple", "1"]
    return [*flags, *generation.flags()]
