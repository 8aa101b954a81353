"""The mean square of each gradient, which Adam keeps, for pruning by the criterion ``first-order``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from langspec_lora.keys import KeyLayout
from langspec_lora.lora import LanguageAdam, LanguageSpecificLinear
from langspec_lora.lora.language_adam import all_present
from langspec_lora.tasks.half_precision import single_precision_copies


def mean_squares(
    optimizer: Any, linears: Sequence[LanguageSpecificLinear], layout: KeyLayout
) -> dict[Tensor, Tensor] | None:
    """The running mean of the squared gradient of every entry of A and B, with Adam's correction of its bias.

    A checkpoint has the running means, so a training that resumes finds the same. Where languages rest that an update
    does not contain, each has its own number of steps.

    Args:
        optimizer: the trainer's fairseq optimizer, one of Adam, in any precision.
        linears: the adapted linears of the model.
        layout: which rows belong to which key.

    Returns:
        For each parameter a tensor of its shape, in single precision; None before the first update.
    """
    inner = getattr(optimizer, "optimizer", None)
    if inner is None:
        return None
    copies = {copy.half: copy for copy in single_precision_copies(optimizer)}
    parameters = [(parameter, linear.side) for linear in linears for parameter in (linear.lora_A, linear.lora_B)]
    rested = _rested(inner, layout)
    found: dict[Tensor, Tensor] = {}
    for parameter, side in parameters:
        copy = copies.get(parameter)
        held = parameter if copy is None else copy.single
        state = inner.state.get(held) or {}
        if "exp_avg_sq" not in state:
            return None
        square = state["exp_avg_sq"] if copy is None else copy.part(state["exp_avg_sq"])
        group = next(group for group in inner.param_groups if any(other is held for other in group["params"]))
        steps = torch.tensor(float(state.get("step", group.get("step", 0))))
        taken = steps if side not in rested else (steps - rested[side]).unsqueeze(1)  # (R, 1)
        bias = 1 - group["betas"][1] ** taken.clamp(min=1).double()  # a language without any step has no gradient
        found[parameter] = square.detach().to(parameter.device, torch.float32) / bias.to(parameter.device).float()
    return found


def _rested(inner: Any, layout: KeyLayout) -> dict[str, Tensor]:
    """In how many steps the key of each packed row rested, by side, ``(R,)``; empty if none ever did."""
    first = next(parameter for group in inner.param_groups for parameter in group["params"])
    counts = (inner.state.get(first) or {}).get(LanguageAdam.RESTED)
    if counts is None:
        return {}
    present = all_present(layout, True)
    parts = counts.cpu().double().view(-1).split([len(keys) for keys in present.values()])
    return {
        side: part.repeat_interleave(torch.tensor(layout.packed[side].ranks))
        for side, part in zip(present, parts, strict=True)
    }
