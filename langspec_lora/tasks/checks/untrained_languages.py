"""Warns of languages that should train but are in no training direction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from langspec_lora.config import AdapterConfig
from langspec_lora.errors import UserError
from langspec_lora.naming import some_of
from langspec_lora.sites import SOURCE, TARGET


def untrained_languages(
    config: AdapterConfig, directions: Iterable[tuple[str, str]], trained: Sequence[int], frozen: bool
) -> list[str]:
    """Names the languages whose adapters should train but that no direction trains.

    Args:
        config: the adapters of the model.
        directions: source and target of each training direction.
        trained: ids of the languages that should train.
        frozen: whether only adapters train.

    Returns:
        Warnings.

    Raises:
        UserError: nothing would train.
    """
    directions = list(directions)
    sides = {stack.sides[layer] for stack in config.stacks.values() if stack.positions for layer in stack.layers}
    named = {SOURCE: {source for source, _ in directions}, TARGET: {target for _, target in directions}}
    reached = set().union(*(named[side] for side in sides))
    wanted = [config.languages.names[language] for language in trained]
    absent = [name for name in wanted if name not in named[SOURCE] | named[TARGET]]
    one_sided = [name for name in wanted if name not in reached and name not in absent]
    found = []
    if absent:
        found.append(f"no direction of --lang-pairs has {some_of(absent)}, so their adapters will not train")
    if one_sided:
        side, other = ("source", "target") if TARGET in sides else ("target", "source")
        found.append(
            f"--lang-pairs has {some_of(one_sided)} only as {side}, but the {other} language selects the adapters "
            "in every adapted layer, so their adapters will not train"
        )
    if frozen and not reached & set(wanted):
        raise UserError(f"nothing would train: {'; '.join(found)}; give --lang-pairs with the languages to train")
    return found
