"""Checkpoints of the authors' released implementation (Cao et al., EMNLP 2024).

Its adapters are ``{encoder,decoder}.layers.N.POSITION_lora.lang_spec_lora.ID.lora_a`` (D × r) and ``.lora_b``
(r × D); it computes ``x @ lora_a @ lora_b``. From the start of an epoch to its validation ``torch.nn.utils.prune``
stores ``lora_b`` as ``lora_b_orig`` and ``lora_b_mask``, whose product is the weight. Which language has which ID is in
:mod:`.lslo_languages`.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from langspec_lora.adapters.packed import Adapters, PackedMatrices
from langspec_lora.checkpoints.arguments import model_settings, stored_langs
from langspec_lora.checkpoints.assembly import adapted_checkpoint
from langspec_lora.checkpoints.outline import read_outline
from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.config import activation_sides
from langspec_lora.convert import check_flags, say
from langspec_lora.convert.lslo_languages import check_ranks, language_ids
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.files import check_file
from langspec_lora.languages import LEVELS, PAPER_RESOURCES, LanguageTable, Resources
from langspec_lora.naming import some_of
from langspec_lora.resources import read_resources
from langspec_lora.sites import POSITIONS, Site
from langspec_lora.tensor_files import write_checkpoint

_ENTRY = re.compile(
    r"^(encoder|decoder)\.layers\.(\d+)\.([a-z0-9]+)_lora\.lang_spec_lora\.(\d+)\.lora_(a|b|b_orig|b_mask)$"
)
_WHOLE, _MASKED = {"a", "b"}, {"a", "b_orig", "b_mask"}

_Found = Mapping[Site, Mapping[int, Mapping[str, Tensor]]]
"""The entries by site, language id and part (``a``, ``b``, ``b_orig``, ``b_mask``)."""


class _Adapter(NamedTuple):
    """One language's adapter at one site.

    Attributes:
        a: ``(D, r)``.
        b: ``(r, D)``, with the mask applied.
        mask: ``(r, D)``, if the file has one.
    """

    a: Tensor
    b: Tensor
    mask: Tensor | None


def import_checkpoint(args: Namespace) -> list[Path]:
    """Writes a checkpoint for this plugin from one of the released implementation, with the same outputs.

    Raises:
        UserError: it is another checkpoint, a part is missing, or its languages are unclear.
    """
    with collect_errors() as errors:
        with errors.check():
            check_flags(args, "--from lslo", takes=("langs", "lang_resources"))
        with errors.check():
            check_file(args.out, args.overwrite)
        with errors.check():
            resources = read_resources(args.lang_resources) if args.lang_resources else PAPER_RESOURCES
        released = StoredModel(args.path)
    given = args.langs.split(",") if args.langs else None
    label = f"checkpoint {args.path}"
    epoch = read_outline(args.path).epoch or 0
    adapters = released_adapters(released.entries, released.args, given, resources, epoch, label)
    base = {name: value for name, value in released.base.items() if not _ENTRY.match(name)}
    unknown = sorted(name for name in base if "_lora." in name)
    if unknown:
        raise UserError(f"{label} holds {unknown[0]}, which the released implementation does not have")
    settings = model_settings(released.args)
    if "langspec" not in settings["arch"]:
        settings.pop("arch")
    write_checkpoint(adapted_checkpoint(base, released.args, adapters, settings), args.out)
    return [args.out]


def released_adapters(
    state: Mapping[str, Tensor],
    args: Namespace,
    given: Sequence[str] | None,
    resources: Resources,
    epoch: int,
    label: str,
) -> Adapters:
    """The adapters in a state of the released implementation.

    Args:
        state: the model's entries.
        args: the arguments that it was trained with.
        given: the languages to import, see :func:`~.lslo_languages.language_ids`; None for those of the training.
        resources: their levels.
        epoch: the epoch in which it was saved.
        label: the checkpoint, for messages.

    Raises:
        UserError: there are no such adapters, some are missing, or languages, ids and ranks do not agree.
    """
    found = _entries(state, label)
    present = set().union(*found.values())
    ids = language_ids(present, stored_langs(args), given, label)
    adapters = {
        site: [_adapter(entries, name, number, site, label) for name, number in ids.items()]
        for site, entries in found.items()
    }
    _check_sizes(adapters, tuple(ids), label)
    ranks = [adapter.b.size(0) for adapter in next(iter(adapters.values()))]
    one = dict.fromkeys(LEVELS, 1)
    levels = LanguageTable.build(list(ids), resources, one, "paper's twelve, or --lang-resources").levels
    languages = LanguageTable(tuple(ids), levels, tuple(ranks))
    check_ranks(languages, ids, args, resources, label)
    sides = _sides(args, label)
    unused = sorted(site for site in adapters if site.layer >= len(sides[site.stack]))
    if unused:
        layers = len(sides[unused[0].stack])
        raise UserError(f"{label} adapts {unused[0]}, but its arguments say {layers} {unused[0].stack} layers")
    prunes = bool(getattr(args, "pruning", False) or getattr(args, "global_pruning", False))
    masks = _masks(adapters, sides, prunes)
    masked = any(adapter.mask is not None for at_site in adapters.values() for adapter in at_site)
    if masked:
        say(f"{label} was saved before a validation; its masks (lora_b_mask) are kept")
    return Adapters(
        languages,
        sides,
        _whole_number(args, "dim", label),
        _whole_number(args, "start_idx", label),
        {site: _packed(at_site, masks[site]) for site, at_site in adapters.items()},
        epoch if prunes or masked else 0,
    )


def _entries(state: Mapping[str, Tensor], label: str) -> _Found:
    found: dict[Site, dict[int, dict[str, Tensor]]] = defaultdict(lambda: defaultdict(dict))
    for name, value in state.items():
        if match := _ENTRY.match(name):
            stack, layer, position, language, part = match.groups()
            if position not in POSITIONS[stack]:
                raise UserError(f"{label} adapts {position} of the {stack}, which has no such position")
            found[Site(stack, int(layer), position)][int(language)][part] = value
    if not found:
        raise UserError(f"{label} holds no adapters of the released implementation (…_lora.lang_spec_lora.0.lora_a)")
    return found


def _adapter(
    entries: Mapping[int, Mapping[str, Tensor]], language: str, number: int, site: Site, label: str
) -> _Adapter:
    where = f"the adapter of {language} (id {number}) at {site}"
    parts = entries.get(number, {})
    if set(parts) not in (_WHOLE, _MASKED):
        held = some_of(f"lora_{part}" for part in sorted(parts)) or "nothing"
        raise UserError(
            f"{label}: {where} consists of {held}; expected lora_a and lora_b, or lora_a, lora_b_orig and "
            "lora_b_mask; give a whole checkpoint, or leave the language out with --langs"
        )
    if "b" in parts:
        a, b, mask = parts["a"], parts["b"], None
    else:
        a, b, mask = parts["a"], parts["b_orig"], parts["b_mask"]
        if mask.shape != b.shape or not bool(((mask == 0) | (mask == 1)).all()):
            raise UserError(
                f"{label}: lora_b_mask of {where} is not a mask of zeros and ones in the shape of lora_b_orig"
            )
        b = b * mask.to(b.dtype)
    if a.dim() != 2 or b.dim() != 2 or a.size(1) != b.size(0) or not b.size(0):
        raise UserError(
            f"{label}: {where} has shapes {tuple(a.shape)} and {tuple(b.shape)}; expected D × rank and rank × D"
        )
    return _Adapter(a, b, mask)


def _check_sizes(adapters: Mapping[Site, Sequence[_Adapter]], names: Sequence[str], label: str) -> None:
    """Checks that each language has one rank at all sites, and each site one width for all languages."""
    first = next(iter(adapters.values()))
    for site, at_site in adapters.items():
        for name, adapter, other in zip(names, at_site, first, strict=True):
            rank, width = other.b.size(0), (at_site[0].a.size(0), at_site[0].b.size(1))
            if adapter.b.size(0) != rank or (adapter.a.size(0), adapter.b.size(1)) != width:
                raise UserError(
                    f"{label}: the adapter of {name} at {site} has shapes {tuple(adapter.a.shape)} and "
                    f"{tuple(adapter.b.shape)}; expected rank {rank} and widths {width[0]} and {width[1]}, as elsewhere"
                )


def _masks(
    adapters: Mapping[Site, Sequence[_Adapter]], sides: Mapping[str, Sequence[str]], prunes: bool
) -> dict[Site, list[Tensor]]:
    """Which entries live. If the file has no mask although training pruned, entries of exactly zero are pruned.

    But B also starts at zero: a language whose B is zero at all sites of one side was never trained on that side, so
    nothing of it is pruned there.
    """
    trained: set[tuple[int, str]] = set()
    for site, at_site in adapters.items():
        side = sides[site.stack][site.layer]
        trained |= {(index, side) for index, adapter in enumerate(at_site) if bool((adapter.b != 0).any())}

    def mask(adapter: _Adapter, index: int, side: str) -> Tensor:
        if adapter.mask is not None:
            return adapter.mask.to(torch.uint8)
        if prunes and (index, side) in trained:
            return (adapter.b != 0).to(torch.uint8)
        return torch.ones(adapter.b.shape, dtype=torch.uint8)

    return {
        site: [mask(adapter, index, sides[site.stack][site.layer]) for index, adapter in enumerate(at_site)]
        for site, at_site in adapters.items()
    }


def _packed(adapters: Sequence[_Adapter], masks: Sequence[Tensor]) -> PackedMatrices:
    a = torch.cat([adapter.a.t() for adapter in adapters])
    return PackedMatrices(a, torch.cat([adapter.b for adapter in adapters]), torch.cat(list(masks)))


def _sides(args: Namespace, label: str) -> dict[str, tuple[str, ...]]:
    """``src`` or ``tgt`` for each layer of each stack: which language selects the adapter."""
    try:
        return {stack: activation_sides(args, stack) for stack in POSITIONS}
    except (AttributeError, TypeError) as error:
        raise UserError(f"{label} holds incomplete training arguments ({error}); give a whole checkpoint") from error


def _whole_number(args: Namespace, name: str, label: str) -> int:
    value = getattr(args, name, None) or 0
    if not isinstance(value, int):
        raise UserError(f"{label}: its argument {name} is {value!r}; expected a whole number")
    return int(value)
