"""Records which languages an update contains, and makes fairseq's Adam a LanguageAdam, which lets the others rest."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from fairseq.distributed import utils as distributed
from fairseq.optim import FairseqOptimizer, adam, fused_adam
from torch import Tensor

from langspec_lora.data.language_ids import distinct_directions
from langspec_lora.hooks import TrainingHook
from langspec_lora.lora import LanguageAdam, LanguageRouting, Packed
from langspec_lora.lora.language_adam import all_present
from langspec_lora.tasks.half_precision import single_precision_copies

logger = logging.getLogger(__name__)


class PresentLanguages(TrainingHook):
    """Tells the optimizer which languages an update contains, in all its batches and processes; the others rest.

    Their adapters, their optimizer state and their step counts stay unchanged; see
    :class:`~langspec_lora.lora.language_adam.LanguageAdam`.

    Args:
        routing: maps the language ids of batches to the model's.
        packed: the model's packed parameters, each with the side that selects its rows.
    """

    def __init__(self, routing: LanguageRouting, packed: Mapping[Tensor, str]) -> None:
        self._routing, self._packed = routing, packed
        self._present = all_present(routing.layout, False)
        self._seen: FairseqOptimizer | None = None

    def begin_batch(self, optimizer: FairseqOptimizer) -> None:
        """Starts a new update if no gradient is left, because the last update is done or its gradients were dropped."""
        if all(parameter.grad is None for parameter in self._packed):
            self._present = all_present(self._routing.layout, False)

    def end_batch(self, sample: Mapping[str, Any]) -> None:
        """Records the languages and directions of a batch that has added its gradient."""
        layout, ids = self._routing.layout, self._routing.model_ids
        pairs = [(ids[source], ids[target]) for source, target in distinct_directions(sample)]
        for side, present in self._present.items():
            present[[key for source, target in pairs for key in layout.keys(side, source, target)]] = True

    def begin_update(self, optimizer: FairseqOptimizer) -> None:
        """Tells the optimizer, before its step, which languages the update contains.

        Args:
            optimizer: the trainer's fairseq optimizer.
        """
        if optimizer is not self._seen:
            self._seen = optimizer
            self._convert(optimizer)
        inner = getattr(optimizer, "optimizer", None)
        if isinstance(inner, LanguageAdam):
            inner.present = self._in_all_processes()

    def _convert(self, optimizer: FairseqOptimizer) -> None:
        inner = getattr(optimizer, "optimizer", None)
        located = dict(_locate(optimizer, self._packed))
        held = {id(parameter) for group in getattr(inner, "param_groups", ()) for parameter in group["params"]}
        if inner is not None and _is_adam(inner) and located and held.issuperset(map(id, located)):
            LanguageAdam.convert(inner, located, self._routing.layout)
        elif not isinstance(inner, LanguageAdam):
            logger.warning(
                "absent languages | %s changes the adapters of languages that are absent from an update, by momentum "
                "and weight decay; to leave them unchanged, use fairseq's Adam",
                type(inner).__name__,
            )

    def _in_all_processes(self) -> dict[str, Tensor]:
        if not torch.distributed.is_initialized() or distributed.get_data_parallel_world_size() == 1:
            return dict(self._present)
        device = next(iter(self._packed)).device
        present = torch.cat(list(self._present.values())).to(device, torch.int32)
        reduced = distributed.all_reduce(present, distributed.get_data_parallel_group(), "max").bool().cpu()
        parts = reduced.split([len(part) for part in self._present.values()])
        return dict(zip(self._present, parts, strict=True))


def _is_adam(optimizer: Any) -> bool:
    types = {adam.Adam, fused_adam.FusedAdamV1, getattr(fused_adam, "FusedAdamV2", None)}
    return type(optimizer) in types and not getattr(optimizer, "use_fp16_stats", False)


def _packed(start: int, parameter: Tensor, side: str) -> Packed:
    rows, features = parameter.shape
    return Packed(start, (rows, features), side)


def _locate(optimizer: FairseqOptimizer, packed: Mapping[Tensor, str]) -> Iterator[tuple[Tensor, list[Packed]]]:
    """The optimizer's parameters that contain packed rows, and where: under ``--fp16`` they are copies, flat or not."""
    if not hasattr(optimizer, "fp32_params"):
        for parameter, side in packed.items():
            yield parameter, [_packed(0, parameter, side)]
        return
    found: dict[Tensor, list[Packed]] = defaultdict(list)
    for half, single, start in single_precision_copies(optimizer):
        if half in packed:
            found[single].append(_packed(start, half, packed[half]))
    yield from found.items()
