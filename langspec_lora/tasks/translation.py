"""The fairseq task: language ids in every batch, checks before anything is built, and training hooks."""

from __future__ import annotations

import logging
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
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
from langspec_lora.checkpoints.token_order import TokenOrder, load_with_tokens, token_orders
from langspec_lora.checkpoints.whole_copies import write_checkpoints_whole
from langspec_lora.criterion import LabelSmoothedCrossEntropyCriterion
from langspec_lora.data.language_ids import LanguageIdDataManager, language_ids, one_language
from langspec_lora.data.without_tokens import WithoutTokens
from langspec_lora.errors import UserError, collect_errors, exit_on_user_error
from langspec_lora.flags import ARGMAX, add_task_flags
from langspec_lora.models.summary import parameter_summary
from langspec_lora.models.transformer import LanguageSpecificTransformer, language_specific
from langspec_lora.pruning_flags import pruning_from_args
from langspec_lora.settings import check_values
from langspec_lora.tasks.checks.all_checks import check_generation, check_stored_model, check_training, warn
from langspec_lora.tasks.checks.command import check_source_and_target, is_training, is_training_command
from langspec_lora.tasks.checks.dictionaries import check_dictionary_flags
from langspec_lora.tasks.checks.languages import resolve_languages, used_languages
from langspec_lora.tasks.checks.pruning_length import epochs_within, pruning_within
from langspec_lora.tasks.ending_together import all_or_none
from langspec_lora.tasks.hooks import keys_to_train, training_hooks
from langspec_lora.tasks.save_folder import check_ready_to_write, hold_save_folder
from langspec_lora.tasks.search import RepeatedNgrams, length_errors
from langspec_lora.tasks.stopping import stop_on_signals
from langspec_lora.tasks.tracked import TrackedTask

logger = logging.getLogger(__name__)

read_outdated_arguments()  # fairseq reads the arguments of a checkpoint before it builds a task


@register_task("translation_multi_simple_epoch_lora")
class LanguageSpecificTranslationTask(TrackedTask):
    """``translation_multi_simple_epoch`` for models whose parameters depend on the languages of each sentence.

    Stock models work too: they get batches without language ids.
    """

    _told_of_updates = False

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Adds fairseq's flags of the task and ours."""
        TrackedTask.add_args(parser)
        add_task_flags(parser)

    def __init__(self, args: Namespace, langs: list[str], dicts: dict[str, Any], training: bool) -> None:
        super().__init__(args, langs, dicts, training)
        self.data_manager = LanguageIdDataManager(args, self.lang_pairs, langs, dicts, self.sampling_method)
        # If all batches have one direction, merging its adapters into the weights pays off.
        self.one_direction = None not in (args.source_lang, args.target_lang)

    @classmethod
    def setup_task(cls, args: Namespace, **kwargs: Any) -> LanguageSpecificTranslationTask:
        """Checks the directions, loads the dictionaries, and checks the checkpoints to generate with.

        Raises:
            SystemExit: flags or files are wrong; the message is one line, or one for each mistake.
        """
        begins_training = is_training_command(args)  # before fairseq prepares the arguments
        with all_or_none() if begins_training else nullcontext():
            return cls._checked(args, begins_training, **kwargs)

    @classmethod
    def _checked(cls, args: Namespace, begins_training: bool, **kwargs: Any) -> LanguageSpecificTranslationTask:
        task: Any = None
        with exit_on_user_error(), collect_errors() as errors:
            with errors.check():
                check_values(args)
            flags_are_read = not errors.errors
            with errors.check():
                check_ready_to_write()
            with errors.check():
                check_dictionary_flags(args)
                _check_languages(args)
                orders: list[TokenOrder] = errors.attempt(lambda: token_orders(args), [])
                task = cls._with_dictionaries(args, orders, **kwargs)
            if getattr(args, "path", None):
                check_generation(args, task)
            elif begins_training and errors.errors:  # build_model, which checks all else, will not be reached
                check_training(Namespace(**vars(args)), task, flags_are_read)
        return task

    @classmethod
    def _with_dictionaries(
        cls, args: Namespace, orders: Sequence[TokenOrder], **kwargs: Any
    ) -> LanguageSpecificTranslationTask:
        load = partial(load_with_tokens, cls._read_dictionary, orders, args.langs)
        try:
            langs, dicts, training = MultilingualDatasetManager.prepare(load, args, **kwargs)
            task = cls(args, langs, dicts, training)
        except AssertionError as error:
            if "ictionar" not in str(error):
                raise
            raise UserError(
                f"the dictionaries in {args.data} differ; give one for all languages as --fixed-dictionary"
            ) from error
        first = next((order.languages for order in orders), ())
        setattr(args, TOKEN_ORDER, list(dict.fromkeys((*first, *langs))))
        return task

    @classmethod
    def load_dictionary(cls, filename: str) -> Dictionary:
        """Loads a dictionary; see fairseq's task.

        Raises:
            SystemExit: the file is missing or damaged; the message is one line.
        """
        with exit_on_user_error():
            return cls._read_dictionary(filename)

    @classmethod
    def _read_dictionary(cls, filename: str) -> Dictionary:
        try:
            return super().load_dictionary(filename)
        except OSError as error:
            raise UserError(
                f"dictionary {filename} cannot be read: {error.strerror}; give the model's as --fixed-dictionary"
            ) from error
        except Exception as error:  # fairseq raises plain exceptions for a wrong encoding
            raise UserError(f"dictionary {filename} is damaged ({error}); expected lines such as 'word 1'") from error

    def build_model(self, args: Namespace, from_checkpoint: bool = False) -> Any:
        """Builds a model and binds its languages to the ids in the batches.

        Before a training, all flags and the checkpoint to start from are checked.

        Raises:
            SystemExit: a flag or file is wrong, or the model has no adapters for a language in use; the message is one
                line.
        """
        trains = is_training(self.args, from_checkpoint)
        if trains:
            args.langs = self.langs  # from --lang-dict, or inferred from the language pairs
            setattr(args, TOKEN_ORDER, getattr(self.args, TOKEN_ORDER))
            with all_or_none(), exit_on_user_error():
                check_training(args, self)
                self.save_folder = hold_save_folder(self.args)
            write_checkpoints_whole()
            stop_on_signals()
        if from_checkpoint:
            with exit_on_user_error():
                check_stored_model(args)
            if getattr(self.args, "base_checkpoint", None):
                args.base_checkpoint = self.args.base_checkpoint
            args.save_adapters_only = False  # the state to load includes the base
        model = super().build_model(args, from_checkpoint)
        if not isinstance(model, LanguageSpecificTransformer):
            return model
        adapters = model.adapters
        with exit_on_user_error():
            if adapters is not None:
                adapters.bind_languages(self.langs, used_languages(self.args))
                adapters.leave_out_smaller(not trains and self.args.directions == ARGMAX)
            if trains:
                logger.info(parameter_summary(model, keys_to_train(self.args, adapters) if adapters else None))
                self.hooks = [] if adapters is None else training_hooks(self.args, adapters)
        return model

    def build_criterion(self, *args: Any, **kwargs: Any) -> Any:
        """See fairseq's task. With a frozen vocabulary, our label smoothing replaces fairseq's to save memory."""
        criterion = super().build_criterion(*args, **kwargs)
        LabelSmoothedCrossEntropyCriterion.convert(criterion)
        return criterion

    def get_batch_iterator(self, dataset: FairseqDataset, *args: Any, **kwargs: Any) -> Any:
        """See fairseq's task. Warns if ``--max-update`` ends the training before its pruning ends."""
        iterator = super().get_batch_iterator(dataset, *args, **kwargs)
        trains = dataset is self.datasets.get(getattr(self.args, "train_subset", None))
        pruning = pruning_from_args(self.args) if trains and self.hooks else None
        if pruning is not None and self.args.max_update and not self._told_of_updates:
            epochs = epochs_within(self.args.max_update, len(iterator), self.args.update_freq)
            warn(pruning_within(pruning.schedule, epochs, f"--max-update {self.args.max_update}"))
            self._told_of_updates = True
        return iterator

    def begin_epoch(self, epoch: int, model: torch.nn.Module) -> None:
        """See fairseq's task; then calls the hooks."""
        super().begin_epoch(epoch, model)
        for hook in self.hooks:
            hook.begin_epoch(epoch)

    def optimizer_step(self, optimizer: Any, model: torch.nn.Module, update_num: int) -> None:
        """Runs the optimizer step between the hooks."""
        for hook in self.hooks:
            hook.begin_update(optimizer)
        super().optimizer_step(optimizer, model=model, update_num=update_num)
        for hook in reversed(self.hooks):
            hook.end_update()

    def train_step(
        self,
        sample: dict,
        model: torch.nn.Module,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
    ) -> Any:
        """See fairseq's task; runs between the hooks."""
        for hook in self.hooks:
            hook.begin_batch(optimizer)
        batch = _for_model(sample, model)
        result = super().train_step(batch, model, criterion, optimizer, update_num, ignore_grad)
        if not ignore_grad:
            for hook in reversed(self.hooks):
                hook.end_batch(sample)
        return result

    def valid_step(self, sample: dict, model: torch.nn.Module, criterion: Any) -> Any:
        """See fairseq's task."""
        return super().valid_step(_for_model(sample, model), model, criterion)

    def inference_step(
        self,
        generator: Any,
        models: list[torch.nn.Module],
        sample: dict,
        prefix_tokens: Tensor | None = None,
        constraints: Any = None,
    ) -> Any:
        """Translates a batch of one direction or of several.

        With ``--source-lang`` and ``--target-lang`` the adapters of that direction are merged into the weights first.

        Args:
            generator: fairseq's generator.
            models: the ensemble.
            sample: the batch; without language ids (``fairseq-interactive``) its direction is ``--source-lang`` to
                ``--target-lang``.
            prefix_tokens: forced first tokens, ``(batch, length)``; by default each sentence's target language token.
            constraints: see fairseq's task.
        """
        sample = self._with_language_ids(sample)
        if prefix_tokens is None and not self.args.lang_tok_replacing_bos_eos:
            prefix_tokens = self._target_language_tokens(sample["tgt_lang_id"])
        specific = {isinstance(model, LanguageSpecificTransformer) for model in models}
        with exit_on_user_error():
            if len(specific) > 1:
                raise UserError("--path mixes stock and language-specific models; give checkpoints of one type")
        source, target = one_language(sample)
        with ExitStack() as merged:
            if self.one_direction and source is not None and target is not None:
                for model in models:
                    if isinstance(model, LanguageSpecificTransformer) and model.adapters is not None:
                        merged.enter_context(model.adapters.merged(source, target))
            sample = _for_model(sample, models[0])
            with exit_on_user_error(), length_errors():
                return super().inference_step(generator, models, sample, prefix_tokens, constraints)

    def build_generator(
        self,
        models: list,
        args: Any,
        seq_gen_cls: Any = None,
        extra_gen_cls_kwargs: dict | None = None,
        prefix_allowed_tokens_fn: Any = None,
    ) -> Any:
        """Builds fairseq's generator; without ``--target-lang`` it strips every language's token from the output.

        ``TranslationMultiSimpleEpochTask`` accepts neither a generator class nor a constraint on tokens, but fairseq's
        other tasks do, and its hub interface passes them.
        """
        tokens = self._language_tokens()
        # fairseq declares this flag with the task's, but looks for it among those of the search.
        keeps = getattr(args, "keep_inference_langtok", False) or self.args.keep_inference_langtok
        if tokens is not None and not keeps:
            if self.args.target_lang is not None:
                tokens = tokens[self.langs.index(self.args.target_lang)].view(1)
            stripped = {"symbols_to_strip_from_output": set(tokens.tolist())}
            extra_gen_cls_kwargs = {**(extra_gen_cls_kwargs or {}), **stripped}
        generator = super(TranslationMultiSimpleEpochTask, self).build_generator(
            models, args, seq_gen_cls, extra_gen_cls_kwargs, prefix_allowed_tokens_fn
        )
        RepeatedNgrams.convert(generator, getattr(args, "no_repeat_ngram_size", 0))
        return generator

    @property
    def target_dictionary(self) -> Dictionary:
        """The dictionary; in translation it drops language tokens from texts, unless the caller says what to drop."""
        dictionary = super().target_dictionary
        return dictionary if self.training else WithoutTokens.of(dictionary, self._language_tokens(dictionary))

    def _with_language_ids(self, sample: dict) -> dict:
        net_input = sample["net_input"]
        if "src_lang_id" in net_input:
            return sample
        if None in (self.args.source_lang, self.args.target_lang):
            with exit_on_user_error():
                raise UserError(
                    "the direction of the text is unknown; give --source-lang and --target-lang, or source_lang=… and "
                    "target_lang=… to from_pretrained"
                )
        tokens, names = net_input["src_tokens"], (self.args.source_lang, self.args.target_lang)
        source, target = (language_ids(name, self.langs, len(tokens), tokens) for name in names)
        direction = tuple(self.langs.index(name) for name in names)
        net_input = {**net_input, "src_lang_id": source}
        return {**sample, "net_input": net_input, "tgt_lang_id": target, "directions": (direction,)}

    def _language_tokens(self, dictionary: Dictionary | None = None) -> Tensor | None:
        _, spec = self.args.langtoks["main"]
        if not spec:
            return None
        style, dictionary = self.args.lang_tok_style, dictionary or self.target_dictionary
        return torch.tensor([dictionary.index(get_lang_tok(name, style, spec)) for name in self.langs])

    def _target_language_tokens(self, target_ids: Tensor) -> Tensor | None:
        tokens = self._language_tokens()
        return None if tokens is None else tokens.to(target_ids.device)[target_ids.view(-1)].unsqueeze(1)


def _check_languages(args: Namespace) -> None:
    """Resolves the languages of a command, and checks its directions."""
    with collect_errors() as errors:
        with errors.check():
            resolve_languages(args)
        check_source_and_target(args)


def _for_model(sample: dict, model: torch.nn.Module) -> dict:
    """The batch for the model's ``forward``: both language ids are in ``net_input``; a stock model gets none."""
    if not sample or "net_input" not in sample:
        return sample
    net_input, sources = {**sample["net_input"]}, sample["net_input"].get("src_lang_id")
    if sources is not None:
        del net_input["src_lang_id"]
        sample = {**sample, "src_lang_id": sources}  # of all sentences, for the losses by language
        if language_specific(model) is not None:
            source, target = one_language(sample)
            net_input["src_lang_id"] = sources if source is None else sources[:1]
            net_input["tgt_lang_id"] = sample["tgt_lang_id"] if target is None else sample["tgt_lang_id"][:1]
    return {**sample, "net_input": net_input}
