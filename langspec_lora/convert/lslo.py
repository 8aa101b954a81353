"""Checkpoints of the authors' released implementation (Cao et al., EMNLP 2024).

Its adapters stand at ``{encoder,decoder}.layers.N.POSITION_lora.lang_spec_lora.ID.lora_a`` (D × r) and ``.lora_b``
(r × D); it computes ``x @ lora_a @ lora_b``. From the start of an epoch to its validation ``torch.nn.utils.prune``
keeps ``lora_b`` as ``lora_b_orig`` and ``lora_b_mask``, and the weight is their product. :mod:`.released_languages`
knows which language has which ID.
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
from langspec_lora.convert import HUGGINGFACE_IMPORT, check_flags, say
from langspec_lora.convert.lslo_languages import check_ranks, language_ids
from langspec_lora.errors import UserError
from langspec_lora.files import check_file
from langspec_lora.languages import LEVELS, PAPER_RESOURCES, LanguageTable, Resources, read_resources
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
        b: ``(r, D)``, the weight itself.
        mask: ``(r, D)``, where the file has one.
    """

    a: Tensor
    b: Tensor
    mask: Tensor | None


def import_checkpoint(args: Namespace) -> list[Path]:
    """Writes a checkpoint of ours from one of the released implementation, with the same outputs.

    Raises:
        UserError: it is no such checkpoint, part of it is missing, or its languages cannot be told.
    """
    check_flags(args, "--from lslo", {}, {"base": "--base", **HUGGINGFACE_IMPORT})
    check_file(args.out, args.overwrite)
    resources = read_resources(args.lang_resources) if args.lang_resources else PAPER_RESOURCES
    released = StoredModel(args.path)
    given = args.langs.split(",") if args.langs else None
    source = f"checkpoint {args.path}"
    epoch = read_outline(args.path).epoch or 0
    adapters = released_adapters(released.entries, released.args, given, resources, epoch, source)
    base = {name: value for name, value in released.base.items() if not _ENTRY.match(name)}
    strange = sorted(name for name in base if "_lora." in name)
    if strange:
        raise UserError(f"{source} holds {strange[0]}, which the released implementation has not; it cannot be read")
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
    source: str,
) -> Adapters:
    """The adapters in a state of the released implementation.

    Args:
        state: the model's entries.
        args: the arguments that it was trained with.
        given: the languages to take over, see :func:`~.released_languages.language_ids`; None for those of the
            training.
        resources: their levels.
        epoch: the epoch that it was saved in.
        source: how to call the checkpoint in a message.

    Raises:
        UserError: there are no such adapters, part of them is missing, or languages, ids and ranks do not agree.
    """
    found = _entries(state, source)
    present = set().union(*found.values())
    ids = language_ids(present, stored_langs(args), given, source)
    adapters = {
        site: [_adapter(own, name, number, site, source) for name, number in ids.items()] for site, own in found.items()
    }
    _check_sizes(adapters, tuple(ids), source)
    ranks = [adapter.b.size(0) for adapter in next(iter(adapters.values()))]
    one = dict.fromkeys(LEVELS, 1)
    levels = LanguageTable.build(list(ids), resources, one, "paper's twelve, or --lang-resources").levels
    languages = LanguageTable(tuple(ids), levels, tuple(ranks))
    check_ranks(languages, ids, args, resources, source)
    sides = _sides(args, source)
    unused = sorted(site for site in adapters if site.layer >= len(sides[site.stack]))
    if unused:
        layers = len(sides[unused[0].stack])
        raise UserError(f"{source} adapts {unused[0]}, but its arguments say {layers} {unused[0].stack} layers")
    prunes = bool(getattr(args, "pruning", False) or getattr(args, "global_pruning", False))
    masks = _masks(adapters, sides, prunes)
    masked = any(adapter.mask is not None for own in adapters.values() for adapter in own)
    if masked:
        say(f"{source} was saved before a validation; its masks (lora_b_mask) are taken over as they stand")
    return Adapters(
        languages,
        sides,
        _whole_number(args, "dim", source),
        _whole_number(args, "start_idx", source),
        {site: _packed(own, masks[site]) for site, own in adapters.items()},
        epoch if prunes or masked else 0,
    )


def _entries(state: Mapping[str, Tensor], source: str) -> _Found:
    found: dict[Site, dict[int, dict[str, Tensor]]] = defaultdict(lambda: defaultdict(dict))
    for name, value in state.items():
        if match := _ENTRY.match(name):
            stack, layer, position, language, part = match.groups()
            if position not in POSITIONS[stack]:
                raise UserError(f"{source} adapts {position} of the {stack}, which has no such position")
            found[Site(stack, int(layer), position)][int(language)][part] = value
    if not found:
        raise UserError(f"{source} holds no adapters of the released implementation (…_lora.lang_spec_lora.0.lora_a)")
    return found


def _adapter(own: Mapping[int, Mapping[str, Tensor]], language: str, number: int, site: Site, source: str) -> _Adapter:
    where = f"the adapter of {language} (id {number}) at {site}"
    parts = own.get(number, {})
    if set(parts) not in (_WHOLE, _MASKED):
        held = ", ".join(f"lora_{part}" for part in sorted(parts)) or "nothing"
        raise UserError(
            f"{source}: of {where} it holds {held}; expected lora_a and lora_b, or lora_a, lora_b_orig and "
            "lora_b_mask; give a whole checkpoint, or leave the language out with --langs"
        )
    if "b" in parts:
        a, b, mask = parts["a"], parts["b"], None
    else:
        a, b, mask = parts["a"], parts["b_orig"], parts["b_mask"]
        if mask.shape != b.shape or not bool(((mask == 0) | (mask == 1)).all()):
            raise UserError(f"{source}: lora_b_mask of {where} is no mask of zeros and ones like its lora_b_orig")
        b = b * mask.to(b.dtype)
    if a.dim() != 2 or b.dim() != 2 or a.size(1) != b.size(0) or not b.size(0):
        raise UserError(
            f"{source}: {where} has sizes {tuple(a.shape)} and {tuple(b.shape)}; expected D × rank and rank × D"
        )
    return _Adapter(a, b, mask)


def _check_sizes(adapters: Mapping[Site, Sequence[_Adapter]], names: Sequence[str], source: str) -> None:
    """Makes sure that a language has one rank everywhere, and a site one width for all languages."""
    first = next(iter(adapters.values()))
    for site, own in adapters.items():
        for name, adapter, other in zip(names, own, first, strict=True):
            rank, width = other.b.size(0), (own[0].a.size(0), own[0].b.size(1))
            if adapter.b.size(0) != rank or (adapter.a.size(0), adapter.b.size(1)) != width:
                raise UserError(
                    f"{source}: the adapter of {name} at {site} has sizes {tuple(adapter.a.shape)} and "
                    f"{tuple(adapter.b.shape)}; expected rank {rank} and widths {width[0]} and {width[1]} as elsewhere"
                )


def _masks(
    adapters: Mapping[Site, Sequence[_Adapter]], sides: Mapping[str, Sequence[str]], prunes: bool
) -> dict[Site, list[Tensor]]:
    """Which entries live. Where the file has no mask and the training prunes, what is exactly zero is pruned.

    B starts at zero, too. So a language whose B is zero wherever one side selects it has never stood on that side, and
    nothing of it is pruned there.
    """
    trained: set[tuple[int, str]] = set()
    for site, own in adapters.items():
        side = sides[site.stack][site.layer]
        trained |= {(index, side) for index, adapter in enumerate(own) if bool((adapter.b != 0).any())}

    def mask(adapter: _Adapter, index: int, side: str) -> Tensor:
        if adapter.mask is not None:
            return adapter.mask.to(torch.uint8)
        if prunes and (index, side) in trained:
            return (adapter.b != 0).to(torch.uint8)
        return torch.ones(adapter.b.shape, dtype=torch.uint8)

    return {
        site: [mask(adapter, index, sides[site.stack][site.layer]) for index, adapter in enumerate(own)]
        for site, own in adapters.items()
    }


def _packed(adapters: Sequence[_Adapter], masks: Sequence[Tensor]) -> PackedMatrices:
    a = torch.cat([adapter.a.t() for adapter in adapters])
    return PackedMatrices(a, torch.cat([adapter.b for adapter in adapters]), torch.cat(list(masks)))


def _sides(args: Namespace, source: str) -> dict[str, tuple[str, ...]]:
    """For each layer of each stack whose language selects its adapter."""
    try:
        return {stack: activation_sides(args, stack) for stack in POSITIONS}
    except (AttributeError, TypeError) as error:
        raise UserError(f"{source} holds no whole training arguments ({error}); give a whole checkpoint") from error


def _whole_number(args: Namespace, name: str, source: str) -> int:
    value = getattr(args, name, None) or 0
    if not isinstance(value, int):
        raise UserError(f"{source}: its argument {name} is {value!r}; expected a whole number")
    return int(value)
