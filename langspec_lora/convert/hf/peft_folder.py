"""The adapters of one direction as PEFT's LoRA on Hugging Face's M2M100, and back.

A LoRA belongs to a model, our adapters belong to languages: some layers use the adapter of the source language, the
others that of the target language. The LoRA of a direction holds the adapter that each layer uses, so nothing is lost.
An imported LoRA is divided by the same rule: its layers with side ``src`` become the source language's adapter, those
with side ``tgt`` the target language's. A language has one rank; if the LoRA has a smaller rank, or no matrices, the
remaining rows are new, with B zero, so that the direction computes exactly what the LoRA computes. If every layer has
side ``tgt``, the whole LoRA becomes the adapter of the target language.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from statistics import mode
from typing import Any

import torch
from torch import Tensor

from langspec_lora.adapters.packed import Adapters, PackedMatrices
from langspec_lora.convert.hf.files import read_json, read_tensors, write_json
from langspec_lora.convert.hf.weights import PREFIX
from langspec_lora.errors import UserError
from langspec_lora.files import check_folder, whole_folder
from langspec_lora.languages import LEVELS, LanguageTable, Resources
from langspec_lora.lora import draw_a
from langspec_lora.naming import some_of
from langspec_lora.sites import POSITIONS, SOURCE, Site
from langspec_lora.tensor_files import write_tensors

logger = logging.getLogger(__name__)

PEFT_FILES = ("adapter_config.json", "adapter_model.safetensors")

_HARMLESS = {  # settings that do not change what a trained LoRA computes, or that are read here
    "peft_type",
    "task_type",
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "peft_version",
    "inference_mode",
    "r",
    "lora_alpha",
    "lora_dropout",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "init_lora_weights",
    "runtime_config",
    "megatron_core",  # names a module; without megatron_config it has no effect
    "qalora_group_size",  # likewise, without use_qalora
    "loftq_config",  # likewise, without init_lora_weights=loftq
    "eva_config",  # how the initial A was found; B starts at zero, and the base does not change
    "corda_config",  # only used with init_lora_weights=corda, which is refused
    "lora_ga_config",  # likewise, lora_ga
}
_LARGEST = 1e9  # rank or alpha; NaN is not below it
_LONGEST_PATTERN = 300
_QUANTIFIER = re.compile(r"[*+?{]")
_REPEATED_GROUP = re.compile(r"\)[*+?{]")  # may match in exponential time
_NEUTRAL: tuple[Any, ...] = (None, False, "none", [], {})  # and 0, which equals False
_PLAIN_INITS = (True, False, "gaussian", "orthogonal", "eva", "mica")
_TENSOR = re.compile(r"base_model\.model\.(?P<linear>.+)\.lora_(?P<part>[AB])(\.default)?\.weight")
_LINEAR = re.compile(r"model\.(?P<stack>encoder|decoder)\.layers\.(?P<layer>\d+)\.(?P<path>.+)")


def export_lora(
    adapters: Adapters,
    source: str,
    target: str,
    shapes: Mapping[str, tuple[int, ...]],
    out: Path,
    overwrite: bool = False,
) -> None:
    """Writes the adapters of a direction as a folder that plain ``PeftModel.from_pretrained`` loads.

    Each module has scaling 1 and the rank that pruning has left of the adapter that it holds: components that are
    pruned as a whole are left out, and modules without any. If the adapters cover only a slice of a layer, the other
    rows and columns are zero.

    Args:
        adapters: the adapters.
        source: the source language.
        target: the target language.
        shapes: ``(d_out, d_in)`` of the base model's weights, by fairseq's names.
        out: the folder.
        overwrite: whether existing files may be replaced.

    Raises:
        UserError: a language has no adapter, or a file exists already.
    """
    check_folder(out, PEFT_FILES, overwrite)
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    left = {site: adapters.living(site, source, target) for site in adapters.packed}
    if not any(living.any() for living in left.values()):  # PEFT needs a module; this one adds nothing
        left = {site: living.new_ones(1) for site, living in list(left.items())[:1]}
    for site, living in left.items():
        if not living.any():
            continue
        a, b = (part[: len(living)][living] for part in adapters.matrices(site, source, target))
        name = PREFIX + site.path
        d_out, d_in = shapes[f"{site.path}.weight"]
        tensors[f"base_model.model.{name}.lora_A.weight"] = _widen(a, d_in, adapters)
        tensors[f"base_model.model.{name}.lora_B.weight"] = _widen(b, d_out, adapters).t()
        ranks[name] = len(a)
    common = mode(ranks.values())
    others = {name: rank for name, rank in ranks.items() if rank != common}
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_2_SEQ_LM",
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": common,
        "lora_alpha": common,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(ranks),
        "rank_pattern": others,  # PEFT may read dots as wildcards, but no two names differ only in dots
        "alpha_pattern": others,
    }
    with whole_folder(out, PEFT_FILES, overwrite) as partial:
        write_json(partial / "adapter_config.json", config)
        write_tensors(partial / "adapter_model.safetensors", tensors)


def _widen(packed: Tensor, width: int, adapters: Adapters) -> Tensor:
    """``(r, features of the slice)`` as ``(r, width)``, zero outside the slice."""
    if not adapters.dim:
        return packed.clone()
    whole = packed.new_zeros(len(packed), width)
    whole[:, adapters.start : adapters.start + adapters.dim] = packed
    return whole


def import_lora(
    folder: Path,
    source: str,
    target: str,
    shapes: Mapping[str, tuple[int, ...]],
    sides: Mapping[str, tuple[str, ...]],
    resources: Resources,
) -> Adapters:
    """Reads a PEFT LoRA folder as the adapters of two languages, divided as the module's docstring says.

    Args:
        folder: ``adapter_config.json`` and ``adapter_model.safetensors`` or ``.bin``.
        source: the source language that the LoRA was trained for.
        target: the target language.
        shapes: ``(d_out, d_in)`` of the base model's weights, by fairseq's names.
        sides: ``src`` or ``tgt`` for each layer of ``encoder`` and ``decoder``.
        resources: levels of the languages.

    Raises:
        UserError: the folder is damaged, belongs to another model, or its LoRA computes more than ``B A x``.
    """
    settings = read_json(folder / "adapter_config.json")
    _check_settings(settings, folder)
    left_out = [name for name in ("r", "lora_alpha") if name not in settings]
    if left_out:  # PEFT always writes them, so a part of the file may be lost
        lacking = " and ".join(left_out)
        logger.warning("%s lacks %s; PEFT's default, 8, is taken", folder / "adapter_config.json", lacking)
    updates: dict[Site, dict[str, Tensor]] = {}
    for name, tensor in read_tensors(folder, "adapter_model").items():
        site, part = _site_and_part(name, folder)
        updates.setdefault(site, {})[part] = tensor
    if not updates:
        raise UserError(f"{folder} holds no LoRA weights; download it again")
    scaled = {site: _scaled(site, parts, settings, shapes, folder) for site, parts in updates.items()}
    names = (source, target)
    owners = {site: source if sides[site.stack][site.layer] == SOURCE else target for site in scaled}
    ranks = tuple(max((len(a) for site, (a, _) in scaled.items() if owners[site] == name), default=1) for name in names)
    by_level = dict.fromkeys(LEVELS, 1)  # unused: the ranks are the LoRA's
    levels = LanguageTable.build(names, resources, by_level, "paper's twelve, or --lang-resources").levels
    languages = LanguageTable(names, levels, ranks)
    draw = torch.Generator().manual_seed(0)
    packed = {}
    for site in _whole_grid(scaled):
        d_out, d_in = shapes[f"{site.path}.weight"]
        a, b = torch.empty(sum(ranks), d_in), torch.zeros(sum(ranks), d_out)
        for fresh in a.split(ranks):
            draw_a(fresh, "rank", draw)  # as at the start of training, so that new rows can be trained
        if site in scaled:
            lora_a, lora_b = scaled[site]
            start = 0 if owners[site] == source else ranks[0]
            a[start : start + len(lora_a)], b[start : start + len(lora_b)] = lora_a, lora_b
        packed[site] = PackedMatrices(a, b, torch.ones_like(b, dtype=torch.uint8))
    return Adapters(languages, dict(sides), 0, 0, packed, 0)


def base_model_name(folder: Path) -> str | None:
    """The base model that a PEFT folder names; None if it names none."""
    name = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    return str(name) if name else None


def _whole_grid(sites: Collection[Site]) -> Iterator[Site]:
    """Every layer among the sites with every position among the sites, in the order of the model."""
    for stack, positions in POSITIONS.items():
        here = [site for site in sites if site.stack == stack]
        for layer in sorted({site.layer for site in here}):
            for position in positions:
                if any(site.position == position for site in here):
                    yield Site(stack, layer, position)


def _check_settings(settings: Mapping[str, Any], folder: Path) -> None:
    path = folder / "adapter_config.json"
    if settings.get("peft_type") != "LORA":
        raise UserError(f"{path} describes a {settings.get('peft_type')!r} adapter; expected a LORA")
    if settings.get("bias", "none") != "none":
        raise UserError(f"{path} has bias={settings['bias']!r}; adapters have no biases, so train it with bias='none'")
    if settings.get("init_lora_weights", True) not in _PLAIN_INITS:
        raise UserError(
            f"{path} has init_lora_weights={settings['init_lora_weights']!r}, which also changes the base model; "
            "convert it to a plain LoRA first (PEFT's path_initial_model_for_weight_conversion)"
        )
    for name, value in settings.items():
        if name not in _HARMLESS and value not in _NEUTRAL:
            raise UserError(
                f"{path} has {name}={str(value)[:60]}, which adapters cannot express; expected a plain LoRA without it"
            )


def _site_and_part(name: str, folder: Path) -> tuple[Site, str]:
    match = _TENSOR.fullmatch(name)
    if match is None:
        raise UserError(f"{folder} holds {name[:120]}, which is not part of a plain LoRA on linear layers")
    linear = _LINEAR.fullmatch(match["linear"])
    paths = {} if linear is None else {path: position for position, path in POSITIONS[linear["stack"]].items()}
    if linear is None or linear["path"] not in paths:
        raise UserError(
            f"{folder} adapts {match['linear'][:120]}, which adapters cannot; expected only "
            f"{some_of(dict.fromkeys(path.rpartition('.')[2] for path in POSITIONS['decoder'].values()))} of M2M100"
        )
    return Site(linear["stack"], int(linear["layer"]), paths[linear["path"]]), match["part"]


def _scaled(
    site: Site,
    parts: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    folder: Path,
) -> tuple[Tensor, Tensor]:
    """``A (r, d_in)`` and ``B (r, d_out)`` of a module, with the scaling alpha / r in B."""
    name = site.path
    if set(parts) != {"A", "B"}:
        raise UserError(f"{folder} has only lora_{next(iter(parts))} for {name}; download it again")
    shape = shapes.get(f"{name}.weight")
    if shape is None:
        raise UserError(f"{folder} adapts {name}, which the base model does not have; it belongs to another model")
    a, b = parts["A"], parts["B"]
    if a.dim() != 2 or tuple(b.shape) != (shape[0], a.size(0)) or a.size(1) != shape[1]:
        raise UserError(
            f"{folder} has B {tuple(b.shape)} and A {tuple(a.shape)} at {name}, whose weight is {tuple(shape)} in the "
            "base model; it belongs to another model"
        )
    rank, alpha = (
        _setting(settings, key, pattern, PREFIX + name, folder)
        for key, pattern in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern"))
    )
    if rank != len(a):
        raise UserError(f"{folder} has rank {len(a)} at {name}, but its adapter_config.json says {rank}")
    # At least in single precision, since PEFT loads a half-precision LoRA in single precision.
    b = b.to(torch.promote_types(b.dtype, torch.float32))
    return a, b.t() * (alpha / rank)


def _setting(settings: Mapping[str, Any], key: str, pattern: str, name: str, folder: Path) -> float:
    """A module's rank or alpha, found as PEFT finds it (``peft.utils.other.get_pattern_key``)."""
    value, table = settings.get(key, 8), settings.get(pattern) or {}
    try:
        for text in table:
            if len(text) > _LONGEST_PATTERN or len(_QUANTIFIER.findall(text)) > 2 or _REPEATED_GROUP.search(text):
                raise UserError(
                    f"{folder / 'adapter_config.json'}: {pattern} has {text[:60]!r}, too complex for a module name; "
                    "list the names"
                )
        matches = [number for text, number in table.items() if re.match(rf"(.*\.)?({text})$", name)]
    except (AttributeError, TypeError, re.error):
        raise UserError(f"{folder / 'adapter_config.json'}: {pattern} is not a table of names and numbers") from None
    value = matches[0] if matches else value
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < _LARGEST:
        raise UserError(f"{folder / 'adapter_config.json'}: {key} is {value!r} for {name}; expected a positive number")
    return value
