"""``--model-overrides`` must not change the meaning of a checkpoint's adapters."""

from __future__ import annotations

import ast

from langspec_lora.errors import UserError
from langspec_lora.flags import AdapterFlags


def check_overrides(text: str) -> None:
    """Refuses ``--model-overrides`` that would change the meaning of a checkpoint's adapters.

    Args:
        text: the flag's value, a Python dictionary.

    Raises:
        UserError: it is not a dictionary, or changes a flag of the adapters.
    """
    try:
        names = ast.literal_eval(text).keys()
    except (ValueError, SyntaxError, TypeError, AttributeError, MemoryError, RecursionError) as error:
        raise UserError(
            f"--model-overrides {text[:80]}: expected a dictionary, such as \"{{'dropout': 0.1}}\""
        ) from error
    changed = sorted(names & {*vars(AdapterFlags()), "adapter_languages"})
    if changed:
        raise UserError(
            f"--model-overrides changes {changed[0]}, which belongs to the adapters of the checkpoint; leave it out"
        )
