"""The order of the language tokens that fairseq appends to a dictionary without them.

The dictionaries of mBART, NLLB and M2M100's first release hold no language tokens. Fairseq appends one for each of
``--langs``, in that order, so with another order (or another list) languages get each other's embeddings. A checkpoint
stores the order of its training.
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
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.naming import some_of, unlike

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenOrder:
    """The language tokens that follow the entries of the dictionary file in a model's vocabulary.

    Attributes:
        path: the checkpoint.
        languages: the languages in the order of their tokens; empty if the checkpoint does not say.
        style: fairseq's ``--lang-tok-style``.
        specs: fairseq's ``--langtoks-specs``.
        mono_dae: whether training included denoising of monolingual data, for which fairseq appends ``<mask>``.
    """

    path: Path
    languages: tuple[str, ...]
    style: str = LangTokStyle.multilingual.value
    specs: tuple[str, ...] = (LangTokSpec.main.value,)
    mono_dae: bool = False

    @classmethod
    def of(cls, path: Path, args: Namespace | None) -> TokenOrder:
        """The order that a checkpoint's arguments give.

        Args:
            path: the checkpoint.
            args: its arguments.
        """
        args = args or Namespace()
        style, specs = getattr(args, "lang_tok_style", None), getattr(args, "langtoks_specs", None)
        if not isinstance(specs, (list, tuple)) or not all(isinstance(spec, str) for spec in specs):
            specs = cls.specs
        return cls(
            path,
            tuple(getattr(args, TOKEN_ORDER, None) or stored_langs(args)),
            str(style) if style in {known.value for known in LangTokStyle} else cls.style,
            tuple(specs),
            LangTokSpec.mono_dae.value in (getattr(args, "extra_data", None) or ()),
        )

    def append(self, dictionary: Dictionary) -> None:
        """Appends to a dictionary, in place, the tokens that the model's training appended to it."""
        extra = {LangTokSpec.mono_dae.value: ""} if self.mono_dae else None
        augment_dictionary(dictionary, list(self.languages), self.style, self.specs, extra)

    def lacking(self, dictionary: Dictionary) -> list[str]:
        """The tokens that are missing from a dictionary, in the model's order."""
        tokens = [get_lang_tok(name, self.style, spec) for spec in self.specs for name in self.languages]
        return [token for token in tokens if token not in dictionary]


def checkpoint_paths(args: Namespace) -> list[str]:
    """The files of ``--path``, of one model or of an ensemble, the way fairseq finds them.

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
    """The token orders of the models of a command.

    Args:
        args: the task's arguments.

    Returns:
        One for each checkpoint that the command uses or starts from; empty for a training from scratch.

    Raises:
        UserError: a checkpoint is missing, damaged or hostile, or two flags say what a training starts from.
    """
    if hasattr(args, "shuffle_instance"):  # arguments that fairseq has prepared before, so a checkpoint's
        names = getattr(args, TOKEN_ORDER, None) or args.langs
        return [TokenOrder(Path(), tuple(names), args.lang_tok_style, tuple(args.langtoks_specs))]
    if getattr(args, "path", None):
        orders = []
        with collect_errors() as errors:
            for path in checkpoint_paths(args):
                with errors.check():
                    orders.append(_order_of(path))
        return orders
    if not hasattr(args, "restore_file"):
        return []
    check_start_flags(args)
    start = starting_checkpoint(args)
    return [] if start is None else [_order_of(start[0])]


def load_with_tokens(
    load: Callable[[str], Dictionary], orders: Sequence[TokenOrder], langs: Sequence[str], file: str
) -> Dictionary:
    """Loads a dictionary and appends the language tokens of the models in use, so that fairseq does not append them.

    Args:
        load: loads a file.
        orders: the token order of each checkpoint.
        langs: ``--langs`` of the command, whose order fairseq uses if no checkpoint says another.
        file: the dictionary's file.

    Raises:
        UserError: an ensemble's models have their tokens in different orders.
    """
    dictionary = load(file)
    known = [order for order in orders if order.languages]
    for order in known[1:]:
        if order.lacking(dictionary) != known[0].lacking(dictionary):
            parts = (known[0], order)
            orders_shown = unlike(known[0].languages, order.languages, ",")
            first, second = (
                f"{part.path} in the order {shown}" for part, shown in zip(parts, orders_shown, strict=True)
            )
            raise UserError(
                f"dictionary {file} has no language tokens, and the checkpoints use different orders: "
                f"{first}, {second}; only models with the same --langs can be used together"
            )
    if known:
        known[0].append(dictionary)
    elif orders and TokenOrder(Path(), tuple(langs)).lacking(dictionary):
        logger.warning(
            "dictionary %s has no language tokens, and checkpoint %s does not say in which order its model has them; "
            "using the order of --langs %s",
            file,
            orders[0].path,
            some_of(langs, ","),
        )
    return dictionary


def _order_of(path: str) -> TokenOrder:
    outline = read_outline(path)
    return TokenOrder.of(outline.path, outline.model_args)
