"""The plugin's flags, each declared once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langspec_lora.errors import UserError, exit_on_user_error
from langspec_lora.languages import DEFAULT_RANKS, LEVELS
from langspec_lora.pruning.schedule import SCOPES
from langspec_lora.sites import POSITIONS
from langspec_lora.values import number, whole_number

INITS = ("rank", "standard")
"""How A is drawn, see :func:`~langspec_lora.lora.draw_a`."""

ABSENT = ("rest", "move")


def parse_bool(text: str) -> bool:
    """Reads the published flags' ``True`` and ``False``.

    Raises:
        ValueError: for any other word.
    """
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


_EXPECTED = {parse_bool: "True or False", int: "a whole number", float: "a number"}


_STRICT = {int: whole_number, float: number}


class _Reader:
    """Reads a flag's value for argparse, whose own error would stand under fairseq's page-long usage.

    Args:
        flag: the flag.
        convert: ``parse_bool``, ``int`` or ``float``.
    """

    def __init__(self, flag: str, convert: Callable[[str], Any]) -> None:
        self.flag, self.convert = flag, convert

    def __call__(self, text: str) -> Any:
        with exit_on_user_error():
            try:
                return _STRICT.get(self.convert, self.convert)(text)
            except ValueError:
                raise UserError(f"{self.flag} {text}: expected {_EXPECTED[self.convert]}") from None


def _adder(parser: Any) -> Callable[..., None]:
    def add(flag: str, **settings: Any) -> None:
        if "type" in settings:
            settings["type"] = _Reader(flag, settings["type"])
        parser.add_argument(flag, **settings)

    return add


def add_adapter_flags(parser) -> None:
    """Declares the model's flags on an argparse parser or group."""
    add = _adder(parser)
    add(
        "--add-lora",
        type=parse_bool,
        default=True,
        metavar="BOOL",
        help="add the language-specific adapters; False is the plain model, for full fine-tuning with the same task",
    )
    add(
        "--freeze-original-parameters",
        type=parse_bool,
        default=None,
        metavar="BOOL",
        help="train the adapters only (default: True with --add-lora True)",
    )
    add(
        "--train-languages",
        default=None,
        metavar="A,B",
        help="train the adapters of these languages only; all others, and so every direction between them, stay as "
        "they are (default: all train)",
    )
    add(
        "--lang-resources",
        default=None,
        metavar="FILE",
        help="YAML file of resource levels: 'high: [en, fr]', 'med: …', 'low: …', optionally 'ranks: {wo: 16}' "
        "(default: the paper's twelve languages)",
    )
    for level in LEVELS:
        add(
            f"--{level}-rank",
            type=int,
            default=DEFAULT_RANKS[level],
            metavar="R",
            help=f"rank of the adapters of {level}-resource languages",
        )
    add(
        "--save-adapters-only",
        type=parse_bool,
        default=None,
        metavar="BOOL",
        help="save checkpoints without the frozen base, which is found again where it lay (default: True where the "
        "base is frozen and came from --finetune-from-model)",
    )
    for stack in POSITIONS:
        add(
            f"--{stack}-lora-layer",
            default=None,
            metavar="0_1_…",
            help=f"{stack} layers to adapt, joined by _ (default: all; 'none': none)",
        )
        add(
            f"--{stack}-lora-position",
            default=None,
            metavar="q_k_…",
            help=f"positions to adapt, joined by _, of {' '.join(POSITIONS[stack])} (default: all)",
        )
        add(
            f"--{stack}-activation-direction",
            default=None,
            metavar="src_…_tgt",
            help=f"for each {stack} layer whether the source or the target language selects the adapter "
            + ("(default: src in the first three quarters, tgt after)" if stack == "encoder" else "(default: tgt)"),
        )
    add(
        "--language-num",
        type=int,
        default=None,
        metavar="N",
        help="number of languages; checked against --langs",
    )
    add(
        "--dim",
        type=int,
        default=0,
        metavar="D",
        help="adapt features S to S+D of each layer's input and output (default 0: the whole layer)",
    )
    add("--start-idx", type=int, default=0, metavar="S", help="first feature of that slice")
    add(
        "--lora-init",
        default="rank",
        metavar="|".join(INITS),
        help="draw A from U(-1/√r, 1/√r), as the released code does and the published learning rate needs, "
        "or from standard LoRA's U(-1/√d, 1/√d)",
    )


def add_base_flag(parser) -> None:
    """Adds where the base lies of checkpoints that hold adapters only."""
    parser.add_argument(
        "--base-checkpoint",
        metavar="FILE",
        help="the base of checkpoints that hold adapters only (default: where it lay in training)",
    )


def add_pruning_flags(parser) -> None:
    """Declares the task's flags on an argparse parser or group."""
    add = _adder(parser)
    add("--pruning", type=parse_bool, default=False, metavar="BOOL", help="prune the adapters gradually while training")
    add("--pruning-t1", type=int, default=2, metavar="EPOCH", help="epoch at which pruning starts")
    add(
        "--pruning-t2",
        type=int,
        default=10,
        metavar="EPOCHS",
        help="number of epochs until the target is reached",
    )
    add("--target-pruning-ratio", type=float, default=0.9, metavar="P", help="share of B's entries pruned at the end")
    add(
        "--pruning-scope",
        metavar="|".join(SCOPES),
        help="where entries compete: all B of a language (default), of a layer, or of each matrix",
    )
    add(
        "--global-pruning",
        type=parse_bool,
        default=False,
        metavar="BOOL",
        help="the released code's name of --pruning True",
    )
    add(
        "--cross-language",
        type=parse_bool,
        default=False,
        metavar="BOOL",
        help="the released code's name of --pruning-scope layer",
    )


def add_absent_flag(parser) -> None:
    """Declares what becomes of languages that are absent from an update."""
    parser.add_argument(
        "--absent-languages",
        default="rest",
        choices=ABSENT,
        help="what becomes of the adapters of languages of which an update has no sentence: they rest, with their "
        "state in the optimizer (Adam's), or move with the others by momentum and weight decay",
    )
