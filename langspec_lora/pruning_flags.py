"""How the pruning flags say that a training prunes."""

from __future__ import annotations

from argparse import Namespace

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.flags import PruningFlags
from langspec_lora.naming import some_of
from langspec_lora.pruning.choices import CHOICES, PruningSettings
from langspec_lora.pruning.schedule import PruningSchedule
from langspec_lora.pruning.scopes import SCOPES
from langspec_lora.settings import check_numbers


def pruning_from_args(args: Namespace) -> PruningSettings | None:
    """Parses and checks the pruning flags, even if pruning is off.

    Returns:
        How to prune, or None if pruning is off.

    Raises:
        UserError: flags have wrong values; all of them are listed.
    """
    scope = ("layer" if args.cross_language else "language") if args.pruning_scope is None else args.pruning_scope
    chosen = {name: getattr(args, f"pruning_{name}", known[0]) for name, known in CHOICES.items()}  # or an old file's
    with collect_errors() as errors:
        with errors.check():
            check_numbers(PruningFlags, args)
        for name, known in {**CHOICES, "scope": tuple(SCOPES)}.items():
            with errors.check():
                if (word := {**chosen, "scope": scope}[name]) not in known:
                    raise UserError(f"--pruning-{name} {word}: expected {some_of(known)}")
        if args.cross_language and scope in SCOPES and scope != "layer":
            raise UserError(
                f"--cross-language True is the scope layer, but --pruning-scope {scope} was given; give one of them"
            )
    if not (args.pruning or args.global_pruning):
        return None
    schedule = PruningSchedule(args.pruning_t1, args.pruning_t2, args.target_pruning_ratio)
    return PruningSettings(schedule, scope, **chosen)
