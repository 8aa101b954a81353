"""Language ids attached to each example, because fairseq's multilingual batches mix directions."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.data import BaseWrapperDataset, FairseqDataset
from fairseq.data.indexed_dataset import dataset_exists, infer_dataset_impl
from fairseq.data.multilingual.multilingual_data_manager import MultilingualDatasetManager
from torch import Tensor

from langspec_lora.data.headers import count_sentences, highest_id
from langspec_lora.data.lengths import LengthCheck, Limits, Side
from langspec_lora.data.loading_log import details_at_debug, shorten_lists_of_directions, summary
from langspec_lora.data.sampled import compact
from langspec_lora.data.shards import folders_read, held_directions
from langspec_lora.data.shared_directions import check_shared_directions
from langspec_lora.data.shared_files import SharedDatasets, raise_limit_of_open_files, share_lengths, sizes_of
from langspec_lora.errors import UserError, exit_on_user_error

logger = logging.getLogger(__name__)

shorten_lists_of_directions()  # on import: fairseq logs its settings before it builds a task


class LanguageIdDataset(BaseWrapperDataset):
    """A dataset of one direction whose examples carry their source and target language ids.

    fairseq collates a mixed batch with the collater of its first direction (``SampledMultiDataset``,
    ``ConcatDataset``), which sorts the examples by source length. So each example carries its ids.

    Args:
        dataset: examples of one direction; its collater may reorder them.
        source_id: id of the source language.
        target_id: id of the target language.
    """

    def __init__(self, dataset: FairseqDataset, source_id: int, target_id: int) -> None:
        super().__init__(dataset)
        self.source_id = source_id
        self.target_id = target_id

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.dataset[index], "languages": (self.source_id, self.target_id)}

    @property
    def sizes(self) -> np.ndarray:
        """Lengths of source and target, ``(examples, 2)``; computed, as there are tens of thousands of directions."""
        return sizes_of(self.dataset)

    def collater(self, samples: list[dict[str, Any]], **kwargs: Any) -> dict[str, Any]:
        """Collates examples of this or any other direction.

        Args:
            samples: examples as :meth:`__getitem__` returns them.
            **kwargs: for the collater of the wrapped dataset.

        Returns:
            The batch of the wrapped dataset, with ``net_input.src_lang_id`` and ``tgt_lang_id``, ``(batch, 1)`` each,
            the keys that fairseq keeps when it merges batches. ``directions`` has the distinct pairs of their ids, so
            that nobody has to wait for a GPU to find them.
        """
        # The index of each example replaces its id, to see how the inner collater reorders them.
        indexed = [{**sample, "id": index} for index, sample in enumerate(samples)]
        batch = self.dataset.collater(indexed, **kwargs)
        if not batch:
            return batch
        order = batch["id"]
        batch["id"] = torch.tensor([sample["id"] for sample in samples])[order]
        languages = torch.tensor([sample["languages"] for sample in samples])[order]  # (batch, 2)
        batch["net_input"]["src_lang_id"] = languages[:, :1].contiguous()
        batch["tgt_lang_id"] = languages[:, 1:].contiguous()
        batch["directions"] = tuple(sorted({sample["languages"] for sample in samples}))
        return batch

    def __getattr__(self, name: str) -> Any:
        # fairseq reads src, tgt, src_dict, … of its datasets. (Not called for attributes of BaseWrapperDataset.)
        if name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)


class LanguageIdDataManager(MultilingualDatasetManager):
    """fairseq's multilingual data, each direction wrapped in a :class:`LanguageIdDataset`.

    A language's id is its position in ``--langs``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._shared, self._limit = SharedDatasets(), raise_limit_of_open_files()

    def load_data(self, path: str, vdict: Any, impl: str | None) -> Any:
        """Opens one side, once for all names of the same files; see fairseq's method."""
        return self._shared.open(path, lambda: MultilingualDatasetManager.load_data(path, vdict, impl))

    def src_dataset_tranform_func(self, src_lang: str, tgt_lang: str, dataset: Any, spec: str | None = None) -> Any:
        """Adds the language token to the sources; see fairseq's method."""
        return self._shared.prepend(dataset, super().src_dataset_tranform_func(src_lang, tgt_lang, dataset, spec))

    def tgt_dataset_tranform_func(
        self, source_lang: str, target_lang: str, dataset: Any, spec: str | None = None
    ) -> Any:
        """Adds the language token to the targets; see fairseq's method."""
        return self._shared.prepend(dataset, super().tgt_dataset_tranform_func(source_lang, target_lang, dataset, spec))

    def check_files(self, split: str, *, needs_target: bool = True, limits: Limits | None = None) -> None:
        """Checks that the data of a split can be loaded and batched, and fit the dictionary.

        For training data in several folders, all folders that fairseq reads are checked; for other splits only the
        first, because fairseq reads no other. A file that many directions link to is read once.

        Raises:
            UserError: a direction is missing, empty or damaged, its sides are misaligned, a sentence is too long, or a
                token is not in the dictionary.
        """
        folders, pairs = self.get_data_paths_and_lang_pairs(split)
        read = self._folders_read(split, folders, pairs)
        for epoch in range(max(map(len, read.values()), default=0)):
            lengths = None if limits is None else LengthCheck(limits)
            for (category, pair), paths in read.items():
                folder = paths[epoch % len(paths)]
                source, target = pair.split("-")
                sides = self.check_direction(folder, split, source, target, needs_target)
                if sides is not None and lengths is not None:
                    lengths.check_direction(f"{split} data of {pair} in {folder}", self._sides(sides, category))
            if lengths is not None:
                lengths.finish(split)

    def _folders_read(
        self, split: str, folders: Mapping[str, str], pairs: Mapping[str, list[str]]
    ) -> dict[tuple[str, str], list[str]]:
        """The folders of each category and direction, in the order in which epochs read them."""
        read: dict[tuple[str, str], list[str]] = {}
        for category in folders.keys() & pairs.keys():
            if not category.startswith("mono_"):
                paths = utils.split_paths(folders[category])
                held = held_directions(split, paths)
                if split == getattr(self.args, "train_subset", None):
                    of_pair = folders_read(split, paths, held, pairs[category])
                else:
                    of_pair = dict.fromkeys(pairs[category], paths[:1])
                read |= {(category, pair): found for pair, found in of_pair.items()}
        return read

    def _sides(self, prefixes: Mapping[str, str], category: str) -> list[Side]:
        """The sides of a direction, from their paths by language, with the effect of fairseq's flags on lengths."""
        specs = self.args.langtoks.get(category, (None, None))
        cuts = (self.args.max_source_positions if self.args.truncate_source else None, None)
        return [
            Side(language, prefix, int(bool(spec) and not self.args.lang_tok_replacing_bos_eos), cut)
            for (language, prefix), spec, cut in zip(prefixes.items(), specs, cuts, strict=False)
        ]

    def lengths(self, prefixes: Mapping[str, str], category: str) -> list[np.ndarray]:
        """Lengths of the sentences of both sides as the model receives them.

        Args:
            prefixes: the path of each side by language, as :meth:`check_direction` returns them.
            category: fairseq's name of the kind of data, such as ``main``.

        Returns:
            Those of each side, ``(sentences,)``.
        """
        return [self._shared.lengths(side) for side in self._sides(prefixes, category)]

    def check_direction(
        self, folder: str, split: str, source: str, target: str, needs_target: bool
    ) -> dict[str, str] | None:
        """Checks that the data of one direction can be loaded; see :meth:`check_files`.

        Returns:
            The path of each side by language, or None if they are not in fairseq's ``mmap`` format.

        Raises:
            UserError: a side is missing, empty or damaged, the sides are misaligned, or a token is not in the
                dictionary.
        """
        direction, impl = f"{split} data of {source}-{target} in {folder}", self.args.dataset_impl
        names = [f"{folder}/{split}.{pair}" for pair in (f"{source}-{target}", f"{target}-{source}")]
        name = next((name for name in names if dataset_exists(f"{name}.{source}", impl)), None)
        has_target = name is not None and dataset_exists(f"{name}.{target}", impl)
        if name is None or (needs_target and not has_target):
            raise UserError(f"no {direction}; binarise that direction, or leave it out")
        sides = {language: f"{name}.{language}" for language in ((source, target) if has_target else (source,))}
        # This reads a file once, however many directions link to it, and says what is wrong with an index.
        counts = [count_sentences(side) for side in sides.values()]
        found = infer_dataset_impl(f"{name}.{source}") if counts[0] is None else "mmap"
        if impl not in (None, found) and (impl, found) != ("lazy", "cached"):
            raise UserError(f"--dataset-impl {impl} was given, but {direction} are in the format {found}; leave it out")
        if found != "mmap":
            return None
        if None in counts:
            raise UserError(f"{direction} are in different formats; binarise both sides again")
        if not counts[0]:
            raise UserError(f"{direction} are empty; binarise text for that direction, or leave it out")
        if counts[0] != counts[-1]:
            raise UserError(
                f"{direction} are misaligned: {counts[0]} sentences of {source}, {counts[-1]} of {target}; "
                "binarise both sides again"
            )
        for language, side in sides.items():
            self._check_ids(f"{direction}, {language}", side, len(self.get_source_dictionary(language)))
        return sides

    @staticmethod
    def _check_ids(side: str, prefix: str, vocabulary: int) -> None:
        highest = highest_id(prefix)
        if highest >= vocabulary:
            raise UserError(
                f"{side}: the highest token id is {highest}, but the dictionary has {vocabulary} entries; give the "
                "dictionary that was used for binarising as --fixed-dictionary, or binarise them again"
            )

    def load_split_datasets(self, split: str, *args: Any, **kwargs: Any) -> Any:
        """Loads all directions of a split; see fairseq's method.

        Raises:
            SystemExit: fairseq would share data that differ between two directions; the message is one line.
        """
        with exit_on_user_error():
            check_shared_directions(self, split)
        datasets, loaded = super().load_split_datasets(split, *args, **kwargs)
        folders = dict.fromkeys(direction["data_path"] for direction in loaded)
        sizes = [len(dataset) for _, dataset in datasets]
        logger.info(summary(split, folders, sizes, self._language_tokens(loaded)))
        return datasets, loaded

    def load_dataset(self, split: str, *args: Any, **kwargs: Any) -> Any:
        """Loads a split; see fairseq's method."""
        return compact(super().load_dataset(split, *args, **kwargs))

    def _language_tokens(self, directions: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """The ids of the language tokens that the examples of directions start with, by language."""
        tokens = {}
        for direction in directions:
            source, target = direction["src"], direction["tgt"]
            for_encoder, for_decoder = direction["langtok_spec"]
            if for_encoder:
                name = source if source and for_encoder.startswith("src") else target
                tokens[name] = self.get_encoder_langtok(source, target, for_encoder)
            if for_decoder:
                tokens[target] = self.get_decoder_langtok(target, for_decoder)
        return tokens

    def load_a_dataset(
        self, split: str, data_path: str, src: str, src_dict: Any, tgt: str, *args: Any, **kwargs: Any
    ) -> LanguageIdDataset:
        """Loads one direction; see fairseq's method.

        Raises:
            SystemExit: the data are missing, misaligned or empty; the message is one line.
        """
        direction = f"{split} data of {src}-{tgt} in {data_path}"
        with exit_on_user_error(), details_at_debug():
            try:
                dataset = super().load_a_dataset(split, data_path, src, src_dict, tgt, *args, **kwargs)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                    raise UserError(
                        f"{direction} cannot be opened: {error.strerror} (at most {self._limit} open files are "
                        "allowed); raise the limit of 'ulimit -n', or binarise with langspec_lora.data.binarise, which "
                        "writes text that directions share once"
                    ) from error
                if not isinstance(error, FileNotFoundError):
                    raise
                raise UserError(f"no {direction}; binarise that direction, or leave it out") from None
            except AssertionError as error:
                if "same number of examples" not in str(error):
                    raise
                raise UserError(f"{direction} are misaligned: {error}; binarise both sides again") from None
            if not len(dataset):
                raise UserError(f"{direction} are empty; binarise text for that direction, or leave it out")
        share_lengths(dataset)
        # Monolingual (denoising) data have no source language.
        return LanguageIdDataset(dataset, self.langs.index(src or tgt), self.langs.index(tgt))


def distinct_directions(sample: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """The distinct directions of a batch, as pairs of source and target language ids."""
    if "directions" in sample:
        return sample["directions"]
    # When fairseq joins batches of several datasets (--lang-tok-replacing-bos-eos), it keeps only the ids.
    ids = torch.cat([sample["net_input"]["src_lang_id"].view(-1, 1), sample["tgt_lang_id"].view(-1, 1)], 1)
    return tuple((source, target) for source, target in ids.unique(dim=0).tolist())


def one_language(sample: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """The source and the target language id shared by all sentences of a batch; None if they differ.

    It does not wait for a GPU: for a batch without ``directions``, both are None.
    """
    directions = sample.get("directions", ())
    sources, targets = {source for source, _ in directions}, {target for _, target in directions}
    return sources.pop() if len(sources) == 1 else None, targets.pop() if len(targets) == 1 else None


def language_ids(name: str, names: list[str], batch: int, like: Tensor) -> Tensor:
    """The id of a language for every sentence of a batch, ``(batch, 1)`` int64, on the device of ``like``."""
    return torch.full((batch, 1), names.index(name), dtype=torch.int64, device=like.device)
