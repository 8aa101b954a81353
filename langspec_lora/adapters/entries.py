"""Adapters as entries of a model's state: names, shapes, and the manifest of their languages."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from langspec_lora.config import AdapterConfig
from langspec_lora.errors import UserError
from langspec_lora.keys import keys_of
from langspec_lora.languages import LanguageTable, languages_from_json, languages_to_json
from langspec_lora.scaling import SCALINGS, Scaling, is_alpha
from langspec_lora.sites import linear_size


def adapter_shapes(args: Namespace, config: AdapterConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the adapter entries of the model that the arguments describe.

    Raises:
        UserError: the arguments lack one of the model's sizes.
    """
    shapes: dict[str, tuple[int, ...]] = {
        MANIFEST: tuple(language_manifest(config.languages).shape),
        MASK_EPOCH: (1,),
    }
    if mixed := len(config.mixed_layers):
        shapes |= {MIXTURE_LOGITS: (mixed, 2), MIXTURE_RATE: (1,)}
    if config.scaling is not None:
        shapes[SCALING] = tuple(scaling_entry(config.scaling).shape)
    for site in config.sites:
        try:
            width_in, width_out = linear_size(args, site)
        except AttributeError as error:
            raise UserError(
                f"the model's arguments lack {error.name}: its checkpoint is damaged, or not one of a Transformer"
            ) from error
        rows = sum(keys_of(config.languages, config.side(site)).ranks)
        shapes[f"{site.path}.lora_A"] = (rows, config.dim or width_in)
        shapes[f"{site.path}.lora_B"] = shapes[f"{site.path}.lora_mask"] = (rows, config.dim or width_out)
    return shapes


Entry = TypeVar("Entry")


MATRIX_ENTRY = re.compile(r"\.lora_(A|B|mask)$")


FAST_PATH_COPIES = tuple(
    f"{linear}_{part}" for linear in ("in_proj", "out_proj", "fc1", "fc2") for part in ("weight", "bias")
)
"""Parameters of fairseq 0.12.2's encoder layer that are copies of its weights, for a fused inference path."""

_FAST_PATH_COPY = re.compile(rf"^encoder\.layers\.\d+\.({'|'.join(FAST_PATH_COPIES)})$")


NO_WEIGHTS = ("._float_tensor", ".version")
"""Endings of entries that are not weights: one element of uninitialised memory; an old fairseq's format number."""


MANIFEST = "adapters.manifest"


MASK_EPOCH = "adapters.mask_epoch"


BASE = "adapters.base"


SCALING = "adapters.scaling"
"""Only where the products of the adapters are scaled."""


MIXTURE_LOGITS, MIXTURE_RATE = "adapters.routing.mixture.logits", "adapters.routing.mixture.rate"
MIXTURE = (MIXTURE_LOGITS, MIXTURE_RATE)


def is_adapter_entry(name: str) -> bool:
    """Whether an entry of a model's state belongs to the adapters."""
    return name in (MANIFEST, MASK_EPOCH, BASE, SCALING, *MIXTURE) or MATRIX_ENTRY.search(name) is not None


def is_fast_path_copy(name: str) -> bool:
    """Whether an entry of a model's state is one of :data:`FAST_PATH_COPIES`."""
    return _FAST_PATH_COPY.match(name) is not None


def base_of(state: Mapping[str, Entry]) -> dict[str, Entry]:
    """The base model's entries of a model's state (or their shapes, by the same names).

    Adapters are left out, and so are the copies of weights that fairseq 0.12.2's encoder layers keep.
    """
    return {name: value for name, value in state.items() if not is_adapter_entry(name) and not is_fast_path_copy(name)}


def language_manifest(languages: LanguageTable) -> Tensor:
    """Names, levels and ranks as the UTF-8 bytes of a JSON text, int64, ``(bytes,)``."""
    return torch.tensor(list(languages_to_json(languages).encode("utf-8")))


def read_manifest(manifest: Tensor) -> LanguageTable:
    """The languages in an entry that :func:`language_manifest` made.

    Raises:
        UserError: the entry is damaged.
    """
    try:
        return languages_from_json(bytes(manifest.flatten().tolist()).decode("utf-8"))
    except (TypeError, ValueError) as error:
        damage = f"the checkpoint's {MANIFEST} is damaged ({error})"
        raise UserError(f"{damage}; download the file again") from error


def scaling_entry(scaling: Scaling) -> Tensor:
    """A scaling as the UTF-8 bytes of a JSON text, int64, ``(bytes,)``, which half precision does not round."""
    return torch.tensor(list(json.dumps({"alpha": scaling.alpha, "by": scaling.by}).encode("utf-8")))


def read_scaling(state: Mapping[str, Tensor]) -> Scaling | None:
    """The scaling of a model's state; None if the products of its adapters are not scaled.

    Raises:
        UserError: the entry is damaged.
    """
    if SCALING not in state:
        return None
    try:
        held = json.loads(bytes(state[SCALING].flatten().tolist()).decode("utf-8"))
        alpha, by = float(held["alpha"]), held["by"]
        if by not in SCALINGS or not is_alpha(alpha):
            raise ValueError("not a scaling")
        return Scaling(alpha, by)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"the checkpoint's {SCALING} is damaged ({error}); download the file again") from error
