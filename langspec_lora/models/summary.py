"""The log line with the numbers of parameters of a model."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from langspec_lora.keys import LANGUAGE, keys_of
from langspec_lora.models.transformer import LanguageSpecificTransformer
from langspec_lora.naming import some_of


def parameter_summary(model: LanguageSpecificTransformer, trained: Mapping[str, Collection[int]] | None = None) -> str:
    """Makes a line with the numbers of parameters of the base, of what trains, and of each language (or other key).

    Args:
        model: the model.
        trained: the keys that train, by side; None for all.
    """
    adapters = model.adapters
    count = 0 if adapters is None else adapters.count
    base = sum(parameter.numel() for parameter in model.parameters()) - count
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if adapters is None:
        return _line(base, count, trainable)
    counts: dict[str, int] = {}
    trains = 0
    for site, linear in adapters.linears.items():
        keys = keys_of(adapters.config.languages, adapters.config.side(site))
        features = linear.lora_A.size(1) + linear.lora_B.size(1)
        for key, (name, rank) in enumerate(zip(keys.names, keys.ranks, strict=True)):
            counts[name] = counts.get(name, 0) + rank * features
            trains += rank * features * (trained is not None and key in trained[linear.side])
    if trained is not None:
        trainable = trains
    several = some_of(f"{name} {number:,}" for name, number in counts.items())
    what = {LANGUAGE: "language"}.get(adapters.config.key, "adapter")
    return f"{_line(base, count, trainable)} | per {what}: {several}"


def _line(base: int, adapters: int, trainable: int) -> str:
    return f"parameters | base {base:,} | adapters {adapters:,} | trainable {trainable:,}"
