"""What pruning can be told besides its schedule and scope: by which criterion, in which matrices, in which units."""

from __future__ import annotations

from typing import NamedTuple

from langspec_lora.pruning.schedule import PruningSchedule

CRITERIA = MAGNITUDE, RANDOM, FIRST_ORDER = ("magnitude", "random", "first-order")
"""What is pruned first (``--pruning-criterion``)."""

TARGETS = B, AB = ("b", "ab")
"""Which matrices are pruned (``--pruning-target``)."""

UNITS = ENTRY, RANK = ("entry", "rank")
"""What is pruned as a whole (``--pruning-unit``): an entry of a matrix, or a component, which is one rank of a key's
adapter at a site: a row of A with the same row of B."""

CHOICES = {"criterion": CRITERIA, "target": TARGETS, "unit": UNITS}
"""The words of each choice; the first is the paper's."""


class PruningSettings(NamedTuple):
    """How a training prunes.

    Attributes:
        schedule: how much is pruned by which epoch.
        scope: what competes, one of :data:`~langspec_lora.pruning.scopes.SCOPES`.
        criterion: one of :data:`CRITERIA`.
        target: one of :data:`TARGETS`; with the unit ``rank``, components are pruned, whatever the target.
        unit: one of :data:`UNITS`.
    """

    schedule: PruningSchedule
    scope: str
    criterion: str = MAGNITUDE
    target: str = B
    unit: str = ENTRY

    @property
    def prunes_a(self) -> bool:
        """Whether entries of A are pruned as well."""
        return self.target == AB and self.unit == ENTRY
