"""How alike two adapters are as matrices, without any text: the cosine of their updates B A."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from langspec_lora.ablation.losses import rows_of
from langspec_lora.ablation.plan import AS_TARGET, Plan
from langspec_lora.keys import keys_of
from langspec_lora.lora import LanguageSpecificLinear
from langspec_lora.models.injected import InjectedAdapters
from langspec_lora.sites import LEARNED, Site


@torch.no_grad()
def inner_products(adapters: InjectedAdapters, plan: Plan, role: str) -> dict[Site, np.ndarray]:
    """The inner products of all owners' updates at each site where they act in a role.

    An update is ``Σ_i b_i a_iᵀ`` over the rows of an owner, so the inner product of two is the sum of
    ``(a_i · a_j) (b_i · b_j)`` over their rows: two small Gram matrices, and no update is ever formed.

    Args:
        adapters: the adapters of the model.
        plan: names the owners.
        role: one of the plan's roles.

    Returns:
        By site, in the order of the model, ``(owners, owners)`` in the order of ``plan.owners[role]``.
    """
    products = {}
    for site in plan.sites:
        if (site, role) not in plan.everything:
            continue
        linear = adapters.linears[site]
        rows, owner = _rows_of_owners(linear, plan, role)
        a, b = (packed[rows].double() for packed in (linear.lora_A, linear.scaled_b()))
        if linear.mixes is not None and linear.routing.mixture is not None:
            b = b * linear.routing.mixture.weights()[linear.mixes][int(role == AS_TARGET)]
        member = torch.nn.functional.one_hot(owner, len(plan.owners[role])).to(a)  # (rows, owners)
        products[site] = (member.t() @ ((a @ a.t()) * (b @ b.t())) @ member).cpu().numpy()
    return products


def cosines(products: Sequence[np.ndarray]) -> np.ndarray:
    """The cosines of the updates at one or several sites, taken as one long vector each.

    Args:
        products: inner products, ``(owners, owners)`` each.

    Returns:
        ``(owners, owners)``; NaN for an update that is zero.
    """
    total = np.sum(products, axis=0)
    norms = np.sqrt(np.diag(total))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(norms[:, None] * norms > 0, total / (norms[:, None] * norms), np.nan)


def _rows_of_owners(linear: LanguageSpecificLinear, plan: Plan, role: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The packed rows of all owners in a role, and the number of each row's owner."""
    languages, device = plan.config.languages, linear.lora_A.device
    names = keys_of(languages, linear.side).names
    if linear.side == LEARNED:  # the same names as a source, then as a target
        names = keys_of(languages, "src").names * 2
    acting = range(*rows_of(linear, role).indices(linear.layout.rows))
    places = {name: number for number, name in enumerate(plan.owners[role])}
    rows: list[int] = []
    owners: list[int] = []
    for key, name in enumerate(names):
        own = linear.layout.slice(key)
        if name in places and own.start in acting:
            rows += range(own.start, own.stop)
            owners += [places[name]] * (own.stop - own.start)
    return torch.tensor(rows, device=device), torch.tensor(owners, device=device)
