"""Damages files of the formats that models and data come in: archives, tensors, messages, indices."""

from __future__ import annotations

import copy
import io
import json
import struct
import tarfile
import zipfile
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import torch
from fuzz_mutators import (
    BYTES,
    JSON,
    ODD_VALUES,
    TEXT,
    YAML,
    Mutator,
    Random,
    change_number,
    edit_json,
    edit_value,
    flip_bits,
    nearby,
)


def edit_zip(draw: Random, data: bytes) -> bytes:
    """Rewrites an archive, with right checksums, after a change of its members."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError):
        return flip_bits(draw, data)
    one, two = draw.randrange(len(members)), draw.randrange(len(members))
    (name, content), (other, other_content) = members[one], members[two]
    action = draw.randrange(6)
    if action == 0:
        members[one], members[two] = (name, other_content), (other, content)
    elif action == 1:
        del members[one]
    elif action == 2:
        members.insert(two, (name, other_content))
    elif action == 3:
        members[one] = (draw.choice((f"{name}x", "../x", "/x", "")), content)
    else:
        pickle = next((place for place, (entry, _) in enumerate(members) if entry.endswith("data.pkl")), one)
        place = draw.choice((one, pickle))
        members[place] = (members[place][0], draw.choice(BYTES).change(draw, members[place][1]))
    with io.BytesIO() as written:
        with zipfile.ZipFile(written, "w", draw.choice((zipfile.ZIP_STORED,) * 4 + (zipfile.ZIP_DEFLATED,))) as archive:
            for entry, value in members:
                archive.writestr(entry or "x", value)
        return written.getvalue()


def edit_checkpoint(draw: Random, data: bytes) -> bytes:
    """Changes one value of what a checkpoint holds, and saves it as torch does."""
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)  # a file that this program has made
    for _ in range(draw.choice((1, 1, 2))):
        parts = [part for part in (state, state.get("model"), _arguments(state)) if isinstance(part, dict) and part]
        part = draw.choice([*parts, parts[-1]])
        key = draw.choice(list(part))
        value = part[key]
        action = draw.randrange(8)
        if action == 0:
            del part[key]
        elif action == 1:
            part[draw.choice((f"{key}x", "", 7, key.upper()))] = part.pop(key)
        elif action == 2:
            other = draw.choice(list(part))
            part[key], part[other] = part[other], part[key]
        elif isinstance(value, torch.Tensor):
            part[key] = _edit_tensor(draw, value)
        elif isinstance(value, str) and value[:1] == "{":
            part[key] = edit_json(draw, value.encode()).decode("utf-8", "replace")
        elif isinstance(value, (dict, list)) and value and part is state:
            part[key] = edit_value(draw, value)
        else:
            part[key] = draw.choice(ODD_VALUES)(draw) if draw.random() < 0.5 else nearby(draw, value)
    with io.BytesIO() as written:
        torch.save(state, written)
        return written.getvalue()


def _arguments(state: Mapping[str, Any]) -> dict[str, Any] | None:
    settings = state.get("cfg")
    held = state.get("args") or (settings.get("model") if isinstance(settings, dict) else None)
    return vars(held) if isinstance(held, Namespace) else None


def _edit_tensor(draw: Random, value: torch.Tensor) -> Any:
    flat = value.flatten()
    odd = draw.choice((float("nan"), float("inf"), 1e38, -1.0, 2.0, 0.0, 255.0))
    changed = flat.clone()
    if changed.numel():
        with_value = torch.tensor(odd).nan_to_num(0) if not changed.is_floating_point() else torch.tensor(odd)
        changed[draw.randrange(changed.numel())] = with_value.to(changed.dtype)
    return draw.choice(
        (
            lambda: changed.view(value.shape),
            lambda: value.to(draw.choice((torch.float64, torch.int64, torch.bool, torch.float16, torch.complex64))),
            lambda: flat,
            lambda: flat[:-1],
            lambda: value.unsqueeze(0),
            lambda: value.t() if value.dim() == 2 else flat[:0],
            lambda: torch.zeros(1).expand(
                10 ** draw.choice((6, 10, 12))
            ),  # few bytes in the file, any number in memory
            lambda: torch.zeros(1).expand(value.numel() or 1).view(value.shape or (1,)),
            lambda: value.to_sparse() if value.dim() else value.tolist(),
            lambda: value.tolist() if value.numel() < 1000 else None,
            lambda: torch.tensor(odd),
        )
    )()


ZIP = (
    *BYTES,
    *[Mutator("edit_zip", edit_zip, is_damage=False)] * 6,
    *[Mutator("edit_checkpoint", edit_checkpoint, is_damage=False)] * 14,
)


def edit_safetensors(draw: Random, data: bytes) -> bytes:
    """Changes the header, with its length, or only the length."""
    (length,) = struct.unpack("<Q", data[:8])
    header, body = data[8 : 8 + length], data[8 + length :]
    if draw.random() < 0.15:
        return struct.pack("<Q", draw.choice((0, 1, length - 1, length + 1, 2**63, len(data)))) + data[8:]
    content = json.loads(header)
    described = content.get("__metadata__", {})
    inner = [key for key, value in described.items() if value[:1] == "{"]
    if inner and draw.random() < 0.5:  # our own description is JSON in JSON
        key = draw.choice(inner)
        described[key] = edit_json(draw, described[key].encode()).decode("utf-8", "replace")
        header = json.dumps(content).encode()
    else:
        header = edit_json(draw, header)
    return struct.pack("<Q", len(header)) + header + body


SAFETENSORS = (*BYTES, *[Mutator("edit_safetensors", edit_safetensors, is_damage=False)] * 9)


def edit_protobuf(draw: Random, data: bytes) -> bytes:
    """Removes, repeats or changes one field of the outermost message, or of a message in it."""
    fields = _fields(data)
    if not fields:
        return flip_bits(draw, data)
    place = draw.choice((len(fields) - 1, draw.randrange(len(fields))))
    start, body, end = fields[place]
    action = draw.randrange(4)
    if action == 0:
        return data[:start] + data[end:]
    if action == 1:
        return data[:end] + data[start:end] + data[end:]
    if action == 2 and body < end:
        inner = draw.choice((edit_protobuf, flip_bits, change_number))(draw, data[body:end])
        return data[:body] + inner[: end - body].ljust(end - body, b"\0") + data[end:]
    one, _, one_end = fields[draw.randrange(len(fields))]
    return data[:start] + data[one:one_end] + data[end:]


def _fields(data: bytes) -> list[tuple[int, int, int]]:
    """Start, start of the content, and end of the fields of a message."""
    found, place = [], 0
    try:
        while place < len(data):
            start = place
            tag, place = _varint(data, place)
            wire = tag & 7
            if wire == 0:
                body, (_, place) = place, _varint(data, place)
            elif wire == 2:
                length, body = _varint(data, place)
                place = body + length
            else:
                body, place = place, place + {1: 8, 5: 4}[wire]
            if place > len(data):
                break
            found.append((start, body, place))
    except (KeyError, IndexError):
        pass
    return found


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
        if not byte & 128:
            return value, place


PROTOBUF = (*BYTES, *[Mutator("edit_protobuf", edit_protobuf, is_damage=False)] * 6)


def edit_index(draw: Random, data: bytes) -> bytes:
    """Changes version, type, number of sentences, a length or an offset of an index of binarised data."""
    size = len(data)
    places = [(9, "<Q"), (17, "<B"), (18, "<Q"), (18, "<Q"), (26 + 4 * draw.randrange(max(1, (size - 26) // 12)), "<i")]
    place, form = draw.choice([*places, (size - 8 * draw.randint(1, max(1, (size - 26) // 12)), "<q")])
    width = struct.calcsize(form)
    if place < 0 or place + width > size:
        return data
    (old,) = struct.unpack(form, data[place : place + width])
    top = 1 << (8 * width - 1)
    value = draw.choice((0, 1, old + 1, old - 1, old * 2, top - 1, -1, 8, 4, old + 4))
    low, high = (0, 2 * top - 1) if form[1] in "QB" else (-top, top - 1)
    return data[:place] + struct.pack(form, min(max(value, low), high)) + data[place + width :]


INDEX = (*BYTES, *[Mutator("edit_index", edit_index, is_damage=True)] * 9)


def edit_tar(draw: Random, data: bytes) -> bytes:
    """Rewrites an archive after a change of one member: its name, type, size or content."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            members = [(entry, (file := archive.extractfile(entry)) and file.read()) for entry in archive]
    except (tarfile.TarError, EOFError, OSError, ValueError):
        return flip_bits(draw, data)
    place = draw.randrange(len(members))
    entry, content = members[place]
    entry = copy.copy(entry)
    tail = "/".join(entry.name.split("/")[-2:])
    action = draw.randrange(5)
    if action == 0:
        entry.name = draw.choice(
            (
                f"../../{tail}",
                f"/{tail}",
                f"{tail}/../../x.dev",
                "dev/..",
                "dev/a\0b.dev",
                tail + "\n",
                f"{tail[:-4]}/x.dev",
                "dev/.dev",
                "dev/" + "x" * 300 + ".dev",
                "x",
                "..",
            )
        )
    elif action == 1:
        entry.type = draw.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE))
        entry.linkname = draw.choice(("/etc/passwd", "../../x", members[0][0].name))
    elif action == 2:
        content = draw.choice(BYTES).change(draw, content or b"")
    elif action == 3:
        members.append((entry, (content or b"") * 2))
    else:
        del members[place]
        entry = None  # type: ignore[assignment]
    if entry is not None:
        members[min(place, len(members) - 1)] = (entry, content)
    with io.BytesIO() as written:
        with tarfile.open(fileobj=written, mode=draw.choice(("w", "w:gz"))) as archive:
            for member, value in members:
                member.size = len(value) if value and member.isreg() else 0
                archive.addfile(member, io.BytesIO(value or b""))
        return written.getvalue()


TAR = (*BYTES, *[Mutator("edit_tar", edit_tar, is_damage=False)] * 9)

BY_FORMAT: Mapping[str, tuple[Mutator, ...]] = {
    "bytes": BYTES,
    "json": JSON,
    "yaml": YAML,
    "text": TEXT,
    "torch": ZIP,
    "safetensors": SAFETENSORS,
    "protobuf": PROTOBUF,
    "index": INDEX,
    "tar": TAR,
}
"""The mutators of each format; those that reach deeper are there several times."""
