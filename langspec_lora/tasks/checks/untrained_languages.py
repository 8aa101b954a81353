"""Warns of languages that should train but are in no training direction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from langspec_lora.config import AdapterConfig
from langspec_lora.errors import UserError
from langspec_lora.keys import key_layout
from langspec_lora.naming import some_of
from langspec_lora.sites import SHARED, SOURCE, TARGET


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
    directions, table = list(directions), config.languages
    layout = key_layout(table, config.sides)
    ids = {name: number for number, name in enumerate(table.names)}
    asked, train, serves = set(trained), False, set[str]()
    for side in config.sides:
        keys = set(layout.only_for(side, asked))
        for source, target in directions:
            if not keys.isdisjoint(layout.keys(side, ids[source], ids[target])):
                train = True
                serves |= {SOURCE: {source}, TARGET: {target}}.get(side, {source, target})
    wanted = [table.names[language] for language in trained]
    named = {name for direction in directions for name in direction}
    absent = [name for name in wanted if name not in named]
    one_sided = [name for name in wanted if name not in serves and name not in absent]
    found = []
    if absent:
        found.append(f"no direction of --lang-pairs has {some_of(absent)}, so their adapters will not train")
    if one_sided and config.sides <= {SOURCE, TARGET}:
        side, other = ("source", "target") if TARGET in config.sides else ("target", "source")
        found.append(
            f"--lang-pairs has {some_of(one_sided)} only as {side}, but the {other} language selects the adapters "
            "in every adapted layer, so their adapters will not train"
        )
    if frozen and not train:
        if SHARED in config.sides and not found:
            found.append("--train-languages leaves out languages, but the adapters are shared by all")
        raise UserError(f"nothing would train: {'; '.join(found)}; give --lang-pairs with the languages to train")
    return found
