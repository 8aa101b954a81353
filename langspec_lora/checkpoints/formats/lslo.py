"""Checkpoints of the authors' released implementation (Cao et al., EMNLP 2024).

Its pairs stand at ``{encoder,decoder}.layers.N.POSITION_lora.lang_spec_lora.ID.lora_a`` (D × r) and ``.lora_b``
(r × D), with ID the position of the language in ``--langs``; it computes ``x @ lora_a @ lora_b``.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from langspec_lora.checkpoints.adapters import Adapters, PackedPairs
from langspec_lora.checkpoints.assembly import adapted_checkpoint, model_settings
from langspec_lora.checkpoints.formats import HUGGINGFACE_IMPORT, check_flags
from langspec_lora.checkpoints.layout import read_layout
from langspec_lora.checkpoints.source import Source
from langspec_lora.checkpoints.writing import write_checkpoint
from langspec_lora.config import POSITIONS, activation_directions
from langspec_lora.errors import UserError
from langspec_lora.files import check_file
from langspec_lora.languages import PAPER_RESOURCES, LanguageTable, Resources, read_resources
from langspec_lora.pruning.magnitude import AdaptedPlace

_ENTRY = re.compile(r"^(encoder|decoder)\.layers\.(\d+)\.([a-z0-9]+)_lora\.lang_spec_lora\.(\d+)\.lora_([ab])$")


def import_checkpoint(args: Namespace) -> list[Path]:
    """Writes a checkpoint of ours from one of the released implementation, with the same outputs."""
    check_flags(args, "--from lslo", {}, {"base": "--base", **HUGGINGFACE_IMPORT})
    check_file(args.out, args.overwrite)
    resources = read_resources(args.lang_resources) if args.lang_resources else PAPER_RESOURCES
    released = Source(args.path)
    trained = released.args
    names = args.langs or getattr(trained, "langs", None) or ()
    names = names.split(",") if isinstance(names, str) else list(names)
    source = f"checkpoint {args.path}"
    epoch = read_layout(args.path).epoch or 0
    adapters = released_adapters(released.entries, trained, names, resources, epoch, source)
    base = {name: value for name, value in released.base.items() if not _ENTRY.match(name)}
    strange = sorted(name for name in base if "_lora." in name)
    if strange:
        raise UserError(f"{source} holds {strange[0]}, which the released implementation has not; it cannot be read")
    settings = model_settings(trained)
    if "langspec" not in settings["arch"]:
        settings.pop("arch")
    write_checkpoint(adapted_checkpoint(base, trained, adapters, settings), args.out)
    return [args.out]


def released_adapters(
    state: Mapping[str, Tensor],
    args: Namespace,
    names: Sequence[str],
    resources: Resources,
    epoch: int,
    source: str,
) -> Adapters:
    """The adapters in a state of the released implementation.

    Args:
        state: the model's entries.
        args: the arguments that it was trained with.
        names: the languages in the order of their ids.
        resources: their levels.
        epoch: the epoch that it was saved in.
        source: how to call the checkpoint in a message.

    Raises:
        UserError: there are no such pairs, or part of them is missing, or languages and ids do not agree.
    """
    found: dict[AdaptedPlace, dict[tuple[int, str], Tensor]] = defaultdict(dict)
    for name, value in state.items():
        if match := _ENTRY.match(name):
            stack, layer, position, language, part = match.groups()
            if position not in POSITIONS[stack]:
                raise UserError(f"{source} adapts {position} of the {stack}, which has no such position")
            found[AdaptedPlace(stack, int(layer), position)][int(language), part] = value
    if not found:
        raise UserError(f"{source} holds no pairs of the released implementation (…_lora.lang_spec_lora.0.lora_a)")
    wanted = [(language, part) for language in range(len(names)) for part in "ab"]
    for place, pairs in found.items():
        if sorted(pairs) != wanted:
            count = len({language for language, _ in pairs})
            raise UserError(
                f"{source} has pairs of {count} languages at {'.'.join(map(str, place))}, but {len(names)} languages "
                f"are named ({','.join(names)}); give them all in the order of its training as --langs"
            )
    ranks = [value.size(0) for (_, part), value in sorted(next(iter(found.values())).items()) if part == "b"]
    levels = LanguageTable.build(
        list(names), resources, dict.fromkeys(("high", "med", "low"), 1), "paper's twelve, or --lang-resources"
    ).levels
    prunes = bool(getattr(args, "pruning", False) or getattr(args, "global_pruning", False))
    order = sorted(found, key=lambda place: (list(POSITIONS).index(place.stack), *place[1:]))
    return Adapters(
        LanguageTable(tuple(names), levels, tuple(ranks)),
        {stack: activation_directions(args, stack) for stack in POSITIONS},
        int(getattr(args, "dim", 0) or 0),
        int(getattr(args, "start_idx", 0) or 0),
        {place: _packed(found[place], ranks, place, prunes, source) for place in order},
        epoch if prunes else 0,
    )


def _packed(
    pairs: Mapping[tuple[int, str], Tensor], ranks: Sequence[int], place: AdaptedPlace, prunes: bool, source: str
) -> PackedPairs:
    for language, rank in enumerate(ranks):
        down, up = pairs[language, "a"], pairs[language, "b"]
        if down.dim() != 2 or up.dim() != 2 or (down.size(1), up.size(0)) != (rank, rank):
            raise UserError(
                f"{source}: the pair of language {language} at {'.'.join(map(str, place))} has sizes "
                f"{tuple(down.shape)} and {tuple(up.shape)}; expected rank {rank} as elsewhere"
            )
    a = torch.cat([pairs[language, "a"].t() for language in range(len(ranks))])
    b = torch.cat([pairs[language, "b"] for language in range(len(ranks))])
    # It keeps no masks: where it prunes, what is exactly zero is pruned.
    mask = (b != 0).to(torch.uint8) if prunes else torch.ones(b.shape, dtype=torch.uint8)
    return PackedPairs(a, b, mask)
