"""The fairseq task: language ids in every batch, checks before anything is built, and pruning while training."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from fairseq.data import Dictionary, FairseqDataset
from fairseq.data.multilingual.multilingual_data_manager import MultilingualDatasetManager
from fairseq.data.multilingual.multilingual_utils import get_lang_tok
from fairseq.tasks import register_task
from fairseq.tasks.translation_multi_simple_epoch import TranslationMultiSimpleEpochTask
from torch import Tensor

from langspec_lora.checkpoints.arguments import TOKEN_ORDER
from langspec_lora.checkpoints.outdated_arguments import read_outdated_arguments
from langspec_lora.checkpoints.saving import copy_checkpoints_whole
from langspec_lora.checkpoints.starting_point import starting_checkpoint
from langspec_lora.checkpoints.token_order import load_with_tokens, token_orders
from langspec_lora.config import pruning_from_args, trained_languages
from langspec_lora.criterion import LabelSmoothedCrossEntropyCriterion
from langspec_lora.data.language_ids import LanguageIdDataManager, language_ids, one_language
from langspec_lora.data.position import name_lost_positions
from langspec_lora.data.without_tokens import WithoutTokens
from langspec_lora.errors import UserError, exit_on_user_error
from langspec_lora.flags import add_absent_flag, add_base_flag, add_pruning_flags
from langspec_lora.lora import FrozenLanguages, packed_parameters
from langspec_lora.models.transformer import LanguageSpecificTransformer
from langspec_lora.pruning.callback import DenseTraining, GradualPruning
from langspec_lora.tasks.absent_languages import AbsentLanguages
from langspec_lora.tasks.checks.command import check_both_sides, is_training
from langspec_lora.tasks.checks.flags import epochs_within, pruning_within
from langspec_lora.tasks.checks.languages import settle_languages, used_languages
from langspec_lora.tasks.checks.task import check_generation, check_stored_model, check_training, warn

logger = logging.getLogger(__name__)

read_outdated_arguments()  # fairseq reads those of a checkpoint before it asks a task


@register_task("translation_multi_simple_epoch_lora")
class LanguageSpecificTranslationTask(TranslationMultiSimpleEpochTask):
    """``translation_multi_simple_epoch`` for models whose parameters depend on the languages of each sentence.

    Stock models work with it too: they get batches without language ids.
    """

    pruning: GradualPruning | DenseTraining | None = None
    frozen: FrozenLanguages | None = None
    absent: AbsentLanguages | None = None
    _told_of_updates = False

    @staticmethod
    def add_args(parser) -> None:
        """Adds fairseq's flags of the task and ours."""
        TranslationMultiSimpleEpochTask.add_args(parser)
        add_pruning_flags(parser)
        add_base_flag(parser)
        add_absent_flag(parser)

    def __init__(self, args: Namespace, langs: list[str], dicts: dict[str, Any], training: bool) -> None:
        super().__init__(args, langs, dicts, training)
        self.data_manager = LanguageIdDataManager(args, self.lang_pairs, langs, dicts, self.sampling_method)
        # Whether batch after batch is of one direction, so that its adapters are worth merging into the weights.
        self.one_direction = None not in (args.source_lang, args.target_lang)

    @classmethod
    def setup_task(cls, args: Namespace, **kwargs: Any) -> LanguageSpecificTranslationTask:
        """Checks the directions, and the checkpoints to generate with, then loads the dictionaries.

        Raises:
            SystemExit: with one line, for wrong flags or files.
        """
        with exit_on_user_error():
            settle_languages(args)
            check_both_sides(args)
            orders = token_orders(args)
            load = partial(load_with_tokens, cls.load_dictionary, orders, args.langs)
            try:
                langs, dicts, training = MultilingualDatasetManager.prepare(load, args, **kwargs)
                task = cls(args, langs, dicts, training)
            except AssertionError as error:
                if "ictionar" not in str(error):
                    raise
                raise UserError(
                    f"the dictionaries in {args.data} differ; give one for all languages with --fixed-dictionary"
                ) from error
            first = next((order.languages for order in orders), ())
            setattr(args, TOKEN_ORDER, list(dict.fromkeys((*first, *langs))))
            if getattr(args, "path", None):
                check_generation(args, task.data_manager, len(task.source_dictionary))
        return task

    @classmethod
    def load_dictionary(cls, filename: str) -> Dictionary:
        """Loads a dictionary; see fairseq's task.

        Raises:
            SystemExit: with one line, if the file is missing or damaged.
        """
        with exit_on_user_error():
            try:
                return super().load_dictionary(filename)
            except OSError as error:
                raise UserError(
                    f"dictionary {filename} cannot be read: {error.strerror}; give the model's with --fixed-dictionary"
                ) from error
            except Exception as error:  # fairseq raises plain exceptions for a wrong encoding
                raise UserError(
                    f"dictionary {filename} is damaged ({error}); expected lines such as 'word 1'"
                ) from error

    def build_model(self, args: Namespace, from_checkpoint: bool = False):
        """Builds a model and tells it what the language ids of the batches mean.

        For training, every flag and the checkpoint to start from are checked first.

        Raises:
            SystemExit: with one line, for wrong flags or files, or if the model has no adapters for a language in use.
        """
        trains = is_training(self.args, from_checkpoint)
        if trains:
            args.langs = self.langs  # from --lang-dict, or inferred from the language pairs
            setattr(args, TOKEN_ORDER, getattr(self.args, TOKEN_ORDER))
            with exit_on_user_error():
                check_training(args, self)
            copy_checkpoints_whole()
        if from_checkpoint:
            with exit_on_user_error():
                check_stored_model(args)
            if getattr(self.args, "base_checkpoint", None):
                args.base_checkpoint = self.args.base_checkpoint
            args.save_adapters_only = False  # what is loaded is whole
        model = super().build_model(args, from_checkpoint)
        if not isinstance(model, LanguageSpecificTransformer):
            return model
        with exit_on_user_error():
            model.bind_languages(self.langs, used_languages(self.args))
        if trains:
            trained = self._freeze_languages(model)
            logger.info(model.parameter_summary(trained))
            self._attach_pruning(model, trained)
            if model.config is not None and self.args.absent_languages == "rest":
                self.absent = AbsentLanguages(model.routing, packed_parameters(model.adapted.values()))
        return model

    def build_criterion(self, *args: Any, **kwargs: Any):
        """Builds the criterion; see fairseq's task. Over a frozen vocabulary fairseq's own takes less memory here."""
        criterion = super().build_criterion(*args, **kwargs)
        LabelSmoothedCrossEntropyCriterion.convert(criterion)
        return criterion

    def _freeze_languages(self, model: LanguageSpecificTransformer) -> tuple[int, ...] | None:
        """Freezes what ``--train-languages`` leaves out; gives the ids of those that train, None for all."""
        if model.config is None or self.args.train_languages is None:
            return None
        trained = trained_languages(self.args, model.config.languages)
        if len(trained) == len(model.config.languages):
            return None
        self.frozen = FrozenLanguages(model.adapted.values(), model.routing.layout, trained)
        return trained

    def _attach_pruning(self, model: LanguageSpecificTransformer, trained: tuple[int, ...] | None) -> None:
        if model.config is None:
            return
        settings = pruning_from_args(self.args)
        if settings is None:
            self.pruning = DenseTraining(model.adapted, model.config.languages, model.adapters, trained)
            return
        schedule, scope = settings
        self.pruning = GradualPruning(model.adapted, model.config.languages, schedule, scope, model.adapters, trained)
        start = starting_checkpoint(self.args)
        if start is None or not start[1]:
            self.pruning.forget_masks_at_first_epoch()

    def get_batch_iterator(self, dataset: FairseqDataset, *args: Any, **kwargs: Any):
        """See fairseq's task. Only an iterator over the training data tells in which epoch ``--max-update`` ends it."""
        iterator = super().get_batch_iterator(dataset, *args, **kwargs)
        trains = dataset is self.datasets.get(getattr(self.args, "train_subset", None))
        if trains:
            name_lost_positions(iterator)
        if trains and isinstance(self.pruning, GradualPruning) and self.args.max_update:
            if not self._told_of_updates:
                epochs = epochs_within(self.args.max_update, len(iterator), self.args.update_freq)
                warn(pruning_within(self.pruning.schedule, epochs, f"--max-update {self.args.max_update}"))
            self._told_of_updates = True
        return iterator

    def begin_epoch(self, epoch: int, model: torch.nn.Module) -> None:
        """Chooses the pruning masks of the epoch."""
        super().begin_epoch(epoch, model)
        if self.frozen is not None:
            self.frozen.remember()  # only now is the checkpoint loaded
        if self.pruning is not None:
            self.pruning.begin_epoch(epoch)
        if self.frozen is not None:
            self.frozen.restore()

    def optimizer_step(self, optimizer: Any, model: torch.nn.Module, update_num: int) -> None:
        """Steps the optimizer, then sets what is pruned to zero, and what is frozen back to what it was."""
        if self.absent is not None:
            self.absent.begin_step(optimizer)
        super().optimizer_step(optimizer, model=model, update_num=update_num)
        if self.pruning is not None:
            self.pruning.end_update()
        if self.frozen is not None:
            self.frozen.restore()

    def train_step(
        self,
        sample: dict,
        model: torch.nn.Module,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
    ):
        """See fairseq's task."""
        if self.absent is not None:
            self.absent.begin_batch()
        batch = _for_model(sample, model)
        result = super().train_step(batch, model, criterion, optimizer, update_num, ignore_grad)
        if self.absent is not None and not ignore_grad:
            self.absent.add_batch(sample)
        return result

    def valid_step(self, sample: dict, model: torch.nn.Module, criterion: Any):
        """See fairseq's task."""
        return super().valid_step(_for_model(sample, model), model, criterion)

    def inference_step(
        self,
        generator: Any,
        models: list[torch.nn.Module],
        sample: dict,
        prefix_tokens: Tensor | None = None,
        constraints: Any = None,
    ):
        """Translates a batch, of one direction or of several.

        With ``--source-lang`` and ``--target-lang`` the adapters of that direction are merged into the weights first.

        Args:
            generator: fairseq's generator.
            models: the ensemble.
            sample: the batch. Without language ids (``fairseq-interactive``) it is of ``--source-lang`` and
                ``--target-lang``.
            prefix_tokens: forced first tokens, ``(batch, length)``; by default each sentence's target language token.
            constraints: see fairseq's task.
        """
        sample = self._with_language_ids(sample)
        if prefix_tokens is None and not self.args.lang_tok_replacing_bos_eos:
            prefix_tokens = self._target_language_tokens(sample["tgt_lang_id"])
        kinds = {isinstance(model, LanguageSpecificTransformer) for model in models}
        with exit_on_user_error():
            if len(kinds) > 1:
                raise UserError("--path joins stock and language-specific models; give checkpoints of one kind")
        source, target = one_language(sample)
        with ExitStack() as merged:
            if self.one_direction and None not in (source, target):
                for model in models:
                    if isinstance(model, LanguageSpecificTransformer):
                        merged.enter_context(model.merged(source, target))
            sample = _for_model(sample, models[0])
            with exit_on_user_error(), _length_errors():
                return super().inference_step(generator, models, sample, prefix_tokens, constraints)

    def build_generator(
        self,
        models: list,
        args: Any,
        seq_gen_cls: Any = None,
        extra_gen_cls_kwargs: dict | None = None,
        prefix_allowed_tokens_fn: Any = None,
    ):
        """Builds fairseq's generator; without ``--target-lang`` it strips every language's token from the output.

        ``TranslationMultiSimpleEpochTask`` takes neither a generator class nor a constraint on tokens, though fairseq's
        other tasks, and its hub interface, do.
        """
        tokens = self._language_tokens()
        if tokens is not None and not getattr(args, "keep_inference_langtok", False):
            if self.args.target_lang is not None:
                tokens = tokens[self.langs.index(self.args.target_lang)].view(1)
            stripped = {"symbols_to_strip_from_output": set(tokens.tolist())}
            extra_gen_cls_kwargs = {**(extra_gen_cls_kwargs or {}), **stripped}
        return super(TranslationMultiSimpleEpochTask, self).build_generator(
            models, args, seq_gen_cls, extra_gen_cls_kwargs, prefix_allowed_tokens_fn
        )

    @property
    def target_dictionary(self) -> Dictionary:
        """The dictionary; while translating, its texts have no language tokens unless the caller says what to drop."""
        dictionary = super().target_dictionary
        return dictionary if self.training else WithoutTokens.of(dictionary, self._language_tokens(dictionary))

    def _with_language_ids(self, sample: dict) -> dict:
        net_input = sample["net_input"]
        if "src_lang_id" in net_input:
            return sample
        if None in (self.args.source_lang, self.args.target_lang):
            with exit_on_user_error():
                raise UserError(
                    "the languages of the text are missing; give --source-lang and --target-lang, or source_lang=… and "
                    "target_lang=… to from_pretrained"
                )
        tokens = net_input["src_tokens"]
        batch = tokens.size(0)
        source = language_ids(self.args.source_lang, self.langs, batch, tokens)
        target = language_ids(self.args.target_lang, self.langs, batch, tokens)
        languages = ((self.langs.index(self.args.source_lang),), (self.langs.index(self.args.target_lang),))
        net_input = {**net_input, "src_lang_id": source}
        return {**sample, "net_input": net_input, "tgt_lang_id": target, "languages": languages}

    def _language_tokens(self, dictionary: Dictionary | None = None) -> Tensor | None:
        _, spec = self.args.langtoks["main"]
        if not spec:
            return None
        style, dictionary = self.args.lang_tok_style, dictionary or self.target_dictionary
        return torch.tensor([dictionary.index(get_lang_tok(name, style, spec)) for name in self.langs])

    def _target_language_tokens(self, target_ids: Tensor) -> Tensor | None:
        tokens = self._language_tokens()
        return None if tokens is None else tokens.to(target_ids.device)[target_ids.view(-1)].unsqueeze(1)


@contextmanager
def _length_errors() -> Iterator[None]:
    """Says in a sentence what fairseq's generator asserts of each batch: its limit may depend on the source."""
    try:
        yield
    except AssertionError as error:
        if "min_len cannot be larger" not in str(error):
            raise
        raise UserError(
            "--min-len is above what a hypothesis may have here: --max-len-a times the length of the source plus "
            "--max-len-b, or what the model takes; lower it"
        ) from error


def _for_model(sample: dict, model: torch.nn.Module) -> dict:
    """The batch as the model's ``forward`` takes it: with both ids in ``net_input``; with none for a stock model."""
    if not sample or "net_input" not in sample:
        return sample
    net_input = {key: value for key, value in sample["net_input"].items() if key != "src_lang_id"}
    if _is_language_specific(model) and "src_lang_id" in sample["net_input"]:
        source, target = one_language(sample)
        all_sources, all_targets = sample["net_input"]["src_lang_id"], sample["tgt_lang_id"]
        net_input["src_lang_id"] = all_sources if source is None else all_sources[:1]
        net_input["tgt_lang_id"] = all_targets if target is None else all_targets[:1]
    return {**sample, "net_input": net_input}


def _is_language_specific(model: torch.nn.Module) -> bool:
    while hasattr(model, "module"):  # fairseq's distributed wrappers
        model = model.module
    return isinstance(model, LanguageSpecificTransformer)
