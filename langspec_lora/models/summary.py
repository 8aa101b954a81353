"""The log line with the numbers of parameters of a model."""

from __future__ import annotations

from collections.abc import Sequence

from langspec_lora.models.transformer import LanguageSpecificTransformer
from langspec_lora.naming import some_of


def parameter_summary(model: LanguageSpecificTransformer, trained: Sequence[int] | None = None) -> str:
    """Makes a line with the numbers of parameters of the base, of what trains, and of each language.

    Args:
        model: the model.
        trained: ids of the languages that train; None for all.
    """
    adapters = model.adapters
    count = 0 if adapters is None else adapters.count
    base = sum(parameter.numel() for parameter in model.parameters()) - count
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if adapters is None:
        return _line(base, count, trainable)
    table = adapters.config.languages
    per_rank = count // sum(table.ranks)
    if trained is not None:
        trainable = per_rank * sum(table.ranks[language] for language in trained)
    counts = (f"{name} {rank * per_rank:,}" for name, rank in zip(table.names, table.ranks, strict=True))
    return f"{_line(base, count, trainable)} | per language: {some_of(counts)}"


def _line(base: int, adapters: int, trainable: int) -> str:
    return f"parameters | base {base:,} | adapters {adapters:,} | trainable {trainable:,}"
