"""The adapter folder: ``adapter.safetensors`` and ``adapter_config.json``, without the base.

The JSON text describes the tensors. The safetensors file holds the same text, so that it can be read alone, and so that
files that do not belong together are noticed. For each site, such as ``encoder.0.q``::

    SITE.A             (R, f_in)   dense; zeros where entries of A are pruned
    SITE.B             (R, f_out)  dense
    SITE.B.values      (n,)        instead of SITE.B: only the entries with a 1 in the mask, row by row
    SITE.B.mask        (⌈R·f_out/8⌉,) uint8: one bit for each entry of B, row by row, the highest bit of a byte first;
                                    1 if the entry is kept, 0 if it is pruned. Without a mask, all are kept.

``SITE.B.values`` is used if entries are pruned and all pruned entries are zero; it is then always smaller. The rows are
in the order of the languages in the JSON text; each language has as many rows as its rank.

``sha256`` in the JSON text is the hash of all the rest: of that text without it, and of the names, dtypes, shapes and
bytes of the tensors. Folders of earlier versions lack it.

Adapters of languages are version 1. In version 2, ``keys`` says what else adapters belong to: ``groups``, the group of
each language; ``group_ranks`` and ``direction_ranks``, by name; ``shared_rank``. The rows of a site are then in the
order of its keys, see :func:`langspec_lora.keys.keys_of`. ``mixture`` has, for each layer such as ``encoder.0`` that
mixes the adapters of source and target, the logarithms of both weights, up to a constant.

In version 3, whole components were pruned: each row of every mask is all 0 or all 1. ``SITE.A`` then has only the rows
of components that are kept, in their order. The other rows of A have no effect; they are zero when the file is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from langspec_lora.adapters.packed import Adapters, PackedMatrices
from langspec_lora.errors import UserError
from langspec_lora.files import check_file, json_text, parse_json, read_json, whole_files
from langspec_lora.keys import keys_of
from langspec_lora.languages import LanguageTable
from langspec_lora.naming import some_of
from langspec_lora.sites import LEARNED, POSITIONS, SIDES, STACKS, Site, in_model_order, sites_of
from langspec_lora.tensor_files import write_tensors

TENSORS, CONFIG = "adapter.safetensors", "adapter_config.json"
FORMAT, VERSIONS = "langspec_lora adapters", (1, 2, 3)
_KEYS = ("groups", "group_ranks", "direction_ranks", "shared_rank")
_METADATA, _HASH = "langspec_lora", "sha256"
_WRITER, _AGAIN = "'langspec-lora export --format adapter'", "export it again"


@dataclass(frozen=True)
class AdapterFile:
    """The content of an adapter folder.

    Attributes:
        adapters: the adapters.
        base: fingerprint of the base model; see :func:`~langspec_lora.checkpoints.fingerprint.base_fingerprint`.
        settings: further settings of the training that the model depends on: the architecture, and where the language
            tokens are.
    """

    adapters: Adapters
    base: str
    settings: Mapping[str, Any]


def write_adapter_folder(content: AdapterFile, folder: Path, overwrite: bool = False) -> list[Path]:
    """Writes both files.

    Args:
        content: what to write.
        folder: the folder, created if it is missing.
        overwrite: whether existing files may be replaced.

    Returns:
        The files.

    Raises:
        UserError: a file exists already or cannot be written.
    """
    paths = [folder / TENSORS, folder / CONFIG]
    for path in paths:
        check_file(path, overwrite)
    described, state = _describe(content), _tensors(content.adapters)
    config = json_text({**described, _HASH: content_hash(described, state)})
    with whole_files(*paths) as (tensors, text):
        write_tensors(tensors, state, {_METADATA: config})
        text.write_text(f"{config}\n", encoding="utf-8")
    return paths


def read_adapter_file(path: str | Path) -> AdapterFile:
    """Reads an adapter folder, or the ``.safetensors`` file alone.

    Raises:
        UserError: a file is missing, damaged, truncated or of a later version, or the files do not belong together.
    """
    path = Path(path)
    tensors = path / TENSORS if path.is_dir() else path
    if not tensors.is_file():
        raise UserError(f"{tensors} does not exist; give a folder that 'langspec-lora export --format adapter' wrote")
    try:
        with safe_open(str(tensors), framework="pt") as file:
            text = (file.metadata() or {}).get(_METADATA)
            state = {name: file.get_tensor(name) for name in file.keys()} if text else {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{tensors} is damaged or truncated ({error}); export it again") from error
    if text is None:
        raise UserError(f"{tensors} holds no adapters of langspec_lora; give a file that 'langspec-lora export' wrote")
    described, config = _checked(parse_json(text, tensors, _AGAIN), tensors), tensors.with_name(CONFIG)
    if path.is_dir() and config.is_file() and _checked(read_json(config, _WRITER, _AGAIN), config) != described:
        raise UserError(f"{config} does not belong to {tensors}; export them together again")
    stated = described.pop(_HASH, None)
    try:
        differs = stated is not None and stated != content_hash(described, state)
        content = _build(described, state)  # it has more to say of what is wrong
    except UserError as error:
        raise UserError(f"{tensors} was refused: {error}; export it again") from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{tensors} is damaged ({type(error).__name__}: {error}); export it again") from error
    if differs:
        raise UserError(f"{tensors} is damaged: its content does not have the hash that it states; export it again")
    return content


def content_hash(described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of a description and tensors, in hexadecimal digits; see the module's docstring.

    Args:
        described: the JSON text as data, without the hash.
        tensors: the tensors by their names in the file.
    """
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {_name(tensor)} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _checked(config: dict[str, Any], label: Path) -> dict[str, Any]:
    if config.get("format") != FORMAT:
        raise UserError(
            f"{label} does not describe adapters of langspec_lora; give a file that 'langspec-lora export' wrote"
        )
    if config.get("version") not in VERSIONS:
        raise UserError(
            f"{label} is of version {config.get('version')!r}, but this langspec_lora reads version {VERSIONS[-1]} at "
            "most; export it again, or install the langspec_lora that wrote it"
        )
    return config


def _describe(content: AdapterFile) -> dict[str, Any]:
    adapters = content.adapters
    table = adapters.languages
    values = {"groups": list(table.groups), **{name: getattr(table, name) for name in _KEYS[1:]}}
    keys = {name: value for name, value in values.items() if value}
    return {
        "format": FORMAT,
        "version": 3 if _lacks_components(adapters) else 2 if keys or adapters.mixture else 1,
        **({"keys": keys} if keys else {}),
        **({"mixture": _mixture(adapters)} if adapters.mixture else {}),
        "languages": [
            {"name": name, "level": level, "rank": rank}
            for name, level, rank in zip(table.names, table.levels, table.ranks, strict=True)
        ],
        "directions": {stack: list(adapters.sides[stack]) for stack in POSITIONS},
        "dim": adapters.dim,
        "start": adapters.start,
        "mask_epoch": adapters.mask_epoch,
        "dtype": _name(next(iter(adapters.packed.values())).b),
        "base": content.base,
        "settings": dict(content.settings),
        "places": {
            str(site): {"A": list(matrices.a.shape), "B": list(matrices.b.shape)}
            for site, matrices in adapters.packed.items()
        },
    }


def _name(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _tensors(adapters: Adapters) -> dict[str, Tensor]:
    tensors, smaller = {}, _lacks_components(adapters)
    for site, (a, b, mask) in adapters.packed.items():
        key = str(site)
        tensors[f"{key}.A"] = a[adapters.packed[site].living] if smaller else a
        lives = mask != 0
        if lives.all():
            tensors[f"{key}.B"] = b
            continue
        tensors[f"{key}.B.mask"] = torch.from_numpy(np.packbits(lives.numpy()))
        if _all_bits_zero(b[~lives]):
            tensors[f"{key}.B.values"] = b[lives]
        else:
            tensors[f"{key}.B"] = b
    return tensors


def _lacks_components(adapters: Adapters) -> bool:
    """Whether pruning has removed whole components, and nothing else.

    Where it has removed entries, a row of B may happen to have none left. Such a row of A is kept, because its training
    can go on without pruning. Nothing at all is left only where too much was pruned; then all is kept as well.
    """
    parts = adapters.packed.values()
    left = torch.cat([part.living for part in parts])
    return bool(left.any()) and not left.all() and all(_has_whole_components(part) for part in parts)


def _has_whole_components(part: PackedMatrices) -> bool:
    return bool(((part.mask != 0) == part.living.unsqueeze(1)).all()) and _all_bits_zero(part.b[part.mask == 0])


def _all_bits_zero(values: Tensor) -> bool:
    """Whether all values are +0; a -0 would not be restored."""
    return not values.view(torch.uint8).any()


def _build(config: Mapping[str, Any], state: dict[str, Tensor]) -> AdapterFile:
    parts = ([language[key] for language in config["languages"]] for key in ("name", "level", "rank"))
    names, levels, ranks = map(tuple, parts)
    keys = dict(config.get("keys", {})) if config["version"] > 1 else {}
    if not set(keys) <= set(_KEYS) or not all(isinstance(keys.get(name, {}), dict) for name in _KEYS[1:3]):
        raise ValueError("it has unknown keys of adapters")
    if "groups" in keys:
        keys["groups"] = tuple(keys["groups"])
    languages = LanguageTable(names, levels, ranks, **keys)
    sides = {stack: tuple(config["directions"][stack]) for stack in POSITIONS}
    if any(word not in SIDES for words in sides.values() for word in words):
        raise ValueError(f"a side is none of {some_of(SIDES)}")
    dtype = getattr(torch, config["dtype"])
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError("its numbers are not floating point")
    packed = {}
    for site in sites_of({stack: range(len(sides[stack])) for stack in STACKS}):
        if str(site) in config["places"]:
            rows = sum(keys_of(languages, sides[site.stack][site.layer]).ranks)
            if not rows:
                raise ValueError(f"it has no keys for the adapters at {site}")
            packed[site] = _matrices(str(site), config["places"][str(site)], state, rows, dtype, config["version"] == 3)
    if len(packed) != len(config["places"]) or not packed:
        raise ValueError("it names unknown sites")
    if state:
        raise ValueError(f"it holds {min(state)}, which it does not describe")
    numbers = [config[key] for key in ("dim", "start", "mask_epoch")]
    if any(type(number) is not int or not 0 <= number < 2**31 for number in numbers):
        raise ValueError("dim, start and mask_epoch must be whole numbers")
    dim, start, mask_epoch = numbers
    for site, matrices in packed.items():
        if not (torch.isfinite(matrices.a).all() and torch.isfinite(matrices.b).all()):
            raise UserError(f"it has infinite numbers or NaN at {site}")
    adapters = Adapters(languages, sides, dim, start, packed, mask_epoch, _read_mixture(config, sides, packed))
    return AdapterFile(adapters, str(config["base"]), dict(config["settings"]))


def _mixture(adapters: Adapters) -> dict[str, list[float]]:
    return {f"{stack}.{layer}": logits.tolist() for (stack, layer), logits in adapters.mixture.items()}


def _read_mixture(
    config: Mapping[str, Any], sides: Mapping[str, tuple[str, ...]], sites: Iterable[Site]
) -> dict[tuple[str, int], Tensor]:
    ordered = sorted(sites, key=in_model_order)
    mixed = dict.fromkeys((site.stack, site.layer) for site in ordered if sides[site.stack][site.layer] == LEARNED)
    found = {layer: config.get("mixture", {}).get(f"{layer[0]}.{layer[1]}") for layer in mixed}
    if len(found) != len(config.get("mixture", {})):
        raise ValueError("its mixture is of other layers")
    for values in found.values():
        if not isinstance(values, list) or [type(value) for value in values] != [float, float]:
            raise ValueError("its mixture has not two numbers for each layer")
    mixture = {layer: torch.tensor(values) for layer, values in found.items()}
    if not all(torch.isfinite(logits).all() for logits in mixture.values()):
        raise UserError("its mixture has infinite numbers or NaN")
    return mixture


def _matrices(
    key: str, shapes: Mapping[str, list[int]], state: dict[str, Tensor], rows: int, dtype: torch.dtype, smaller: bool
) -> PackedMatrices:
    """Removes one site's tensors from ``state`` and returns them; ``smaller``: A has only the rows that are kept."""
    a, a_shape = state.pop(f"{key}.A"), tuple(shapes["A"])
    shape = tuple(shapes["B"])
    if len(a_shape) != 2 or a.dim() != 2 or len(shape) != 2 or {a_shape[0], shape[0]} != {rows}:
        raise ValueError(f"{key} does not have the described shape")
    if tuple(a.shape) != a_shape and not (smaller and a.size(1) == a_shape[1]):
        raise ValueError(f"{key} does not have the described shape")
    packed = state.pop(f"{key}.B.mask", None)
    stored = state.get(f"{key}.B")
    if packed is None and (stored is None or tuple(stored.shape) != shape):  # before the mask takes memory
        raise ValueError(f"{key}.B does not have the described shape")
    mask = torch.ones(shape, dtype=torch.uint8) if packed is None else _unpack(packed, shape, key)
    if f"{key}.B" in state:
        b = state.pop(f"{key}.B")
    else:
        values = state.pop(f"{key}.B.values")
        if values.numel() != int(mask.sum()):
            raise ValueError(f"{key}.B.values does not have one value for each entry that is kept")
        b = torch.zeros(shape, dtype=values.dtype)
        b[mask != 0] = values
    if tuple(b.shape) != shape or {a.dtype, b.dtype} != {dtype}:
        raise ValueError(f"{key} does not have the described shape or dtype")
    if smaller:
        a = _whole(a, PackedMatrices(a, b, mask), key)
    return PackedMatrices(a, b, mask)


def _whole(a: Tensor, part: PackedMatrices, key: str) -> Tensor:
    """A with zeros for the components that were not stored."""
    if len(a) != int(part.living.sum()):
        raise ValueError(f"{key}.A does not have one row for each component that is kept")
    if not _has_whole_components(part):
        raise ValueError(f"{key}.B.mask does not prune whole components")
    whole = a.new_zeros(len(part.b), a.size(1))
    whole[part.living] = a
    return whole


def _unpack(packed: Tensor, shape: tuple[int, ...], key: str) -> Tensor:
    count = shape[0] * shape[1]
    if min(shape) < 1 or packed.dtype != torch.uint8 or tuple(packed.shape) != ((count + 7) // 8,):
        raise ValueError(f"{key}.B.mask does not have one bit for each entry of B")
    return torch.from_numpy(np.unpackbits(packed.numpy(), count=count)).view(shape)
