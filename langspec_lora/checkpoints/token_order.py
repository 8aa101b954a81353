"""Language tokens that no dictionary file holds: fairseq appends them, and a checkpoint says in which order.

The dictionaries of mBART, NLLB and M2M100's first release end with the last piece. fairseq appends a token for each of
``--langs``, in that order, so that another order (or another list) gives each language another one's embedding.
"""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairseq import utils
from fairseq.checkpoint_utils import get_maybe_sharded_checkpoint_filename
from fairseq.data import Dictionary
from fairseq.data.multilingual.multilingual_utils import LangTokSpec, LangTokStyle, augment_dictionary, get_lang_tok

from langspec_lora.checkpoints.arguments import TOKEN_ORDER, stored_langs
from langspec_lora.checkpoints.outline import read_outline
from langspec_lora.checkpoints.starting_point import check_start_flags, starting_checkpoint
from langspec_lora.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenOrder:
    """Whose tokens follow the entries of the dictionary file in a model's vocabulary.

    Attributes:
        path: the checkpoint.
        languages: names, in the order of their tokens; none where the checkpoint does not say.
        style: fairseq's ``--lang-tok-style``.
        specs: fairseq's ``--langtoks-specs``.
        mono_dae: whether it was trained with monolingual data to denoise, for which fairseq appends ``<mask>``.
    """

    path: Path
    languages: tuple[str, ...]
    style: str = LangTokStyle.multilingual.value
    specs: tuple[str, ...] = (LangTokSpec.main.value,)
    mono_dae: bool = False

    @classmethod
    def of(cls, path: Path, args: Namespace | None) -> TokenOrder:
        """Reads it from a checkpoint's arguments.

        Args:
            path: the checkpoint.
            args: its arguments.
        """
        args = args or Namespace()
        style, specs = getattr(args, "lang_tok_style", None), getattr(args, "langtoks_specs", None)
        has_specs = isinstance(specs, (list, tuple)) and all(isinstance(spec, str) for spec in specs)
        return cls(
            path,
            tuple(getattr(args, TOKEN_ORDER, None) or stored_langs(args)),
            style if style in {known.value for known in LangTokStyle} else cls.style,
            tuple(specs) if has_specs else cls.specs,
            LangTokSpec.mono_dae.value in (getattr(args, "extra_data", None) or ()),
        )

    def append(self, dictionary: Dictionary) -> None:
        """Appends to a dictionary, in place, what the model's training appended to it."""
        extra = {LangTokSpec.mono_dae.value: ""} if self.mono_dae else None
        augment_dictionary(dictionary, list(self.languages), self.style, self.specs, extra)

    def lacking(self, dictionary: Dictionary) -> list[str]:
        """The tokens that a dictionary lacks, in the model's order."""
        tokens = [get_lang_tok(name, self.style, spec) for spec in self.specs for name in self.languages]
        return [token for token in tokens if token not in dictionary]


def checkpoint_paths(args: Namespace) -> list[str]:
    """The files of ``--path``, one or those of an ensemble, as fairseq finds them.

    Args:
        args: the arguments of a command that uses trained models.
    """
    suffix, shards = getattr(args, "checkpoint_suffix", ""), getattr(args, "checkpoint_shard_count", 1)
    return [
        get_maybe_sharded_checkpoint_filename(path, suffix, shard, shards)
        for path in utils.split_paths(args.path)
        for shard in range(shards)
    ]


def token_orders(args: Namespace) -> list[TokenOrder]:
    """In which orders the models of a command have their language tokens.

    Args:
        args: the task's arguments.

    Returns:
        One for each checkpoint that the command uses or starts from; none for a training from nothing.

    Raises:
        UserError: a checkpoint is missing, damaged or hostile, or two flags say what a training starts from.
    """
    if hasattr(args, "shuffle_instance"):  # fairseq has prepared them before: they come from a checkpoint
        names = getattr(args, TOKEN_ORDER, None) or args.langs
        return [TokenOrder(Path(), tuple(names), args.lang_tok_style, tuple(args.langtoks_specs))]
    if getattr(args, "path", None):
        return [_order_of(path) for path in checkpoint_paths(args)]
    if not hasattr(args, "restore_file"):
        return []
    check_start_flags(args)
    start = starting_checkpoint(args)
    return [] if start is None else [_order_of(start[0])]


def load_with_tokens(
    load: Callable[[str], Dictionary], orders: Sequence[TokenOrder], langs: Sequence[str], file: str
) -> Dictionary:
    """Loads a dictionary and appends the language tokens of the models in use; fairseq then finds them there.

    Args:
        load: loads a file.
        orders: of one checkpoint, or of those of an ensemble.
        langs: ``--langs`` of the command, which fairseq's order follows where no checkpoint says another.
        file: the dictionary's file.

    Raises:
        UserError: an ensemble's models have their tokens in different orders.
    """
    dictionary = load(file)
    known = [order for order in orders if order.languages]
    for order in known[1:]:
        if order.lacking(dictionary) != known[0].lacking(dictionary):
            first, second = (f"{part.path} in the order {','.join(part.languages)}" for part in (known[0], order))
            raise UserError(
                f"dictionary {file} has no language tokens, and the checkpoints have them in different orders: "
                f"{first}, {second}; only models with the same --langs can be used together"
            )
    if known:
        known[0].append(dictionary)
    elif orders and TokenOrder(Path(), tuple(langs)).lacking(dictionary):
        logger.warning(
            "dictionary %s has no language tokens, and checkpoint %s does not say in which order its model has them; "
            "they are taken in the order of --langs %s",
            file,
            orders[0].path,
            ",".join(langs),
        )
    return dictionary


def _order_of(path: str) -> TokenOrder:
    outline = read_outline(path)
    return TokenOrder.of(outline.path, outline.model_args)
