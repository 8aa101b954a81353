"""Damages a file: any bytes, and what a format can hold in the wrong place.

A mutator takes random numbers and the content of a file, and returns other content. *Damage* is what disks, networks
and interrupted programs do; a reader should notice it. *Edits* write a file of the same format with other values in it,
which may be as valid as the first; a reader only has to survive them.
"""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import yaml

Random = random.Random


class Mutator(NamedTuple):
    """One way to change a file.

    Attributes:
        name: what it does.
        change: from the content to other content.
        is_damage: whether a reader should notice it.
    """

    name: str
    change: Callable[[Random, bytes], bytes]
    is_damage: bool


def _span(draw: Random, data: bytes, most: int = 64) -> tuple[int, int]:
    start = draw.randrange(len(data) + 1)
    return start, min(len(data), start + draw.choice((1, 2, 4, 8, draw.randint(1, most))))


def flip_bits(draw: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        if changed:
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def delete_run(draw: Random, data: bytes) -> bytes:
    start, end = _span(draw, data)
    return data[:start] + data[end:]


def duplicate_run(draw: Random, data: bytes) -> bytes:
    start, end = _span(draw, data)
    return data[:end] + data[start:end] * draw.choice((1, 1, 2, 200)) + data[end:]


def overwrite_run(draw: Random, data: bytes) -> bytes:
    start, end = _span(draw, data)
    size = end - start
    return data[:start] + draw.choice((bytes(size), b"\xff" * size, draw.randbytes(size))) + data[end:]


def zero_block(draw: Random, data: bytes) -> bytes:
    """A block that was allocated and never written, as after a power loss."""
    size = draw.choice((512, 4096))
    start = draw.randrange(0, len(data) + 1, size)
    return data[:start] + bytes(min(size, len(data) - start)) + data[start + size :]


def truncate(draw: Random, data: bytes) -> bytes:
    return data[: draw.choice((0, 1, len(data) // 2, max(0, len(data) - 1), draw.randrange(len(data) + 1)))]


def append(draw: Random, data: bytes) -> bytes:
    return data + draw.choice((b"\0", b"\n", b"\xff" * 9, data[:64], data, draw.randbytes(40)))


def swap_runs(draw: Random, data: bytes) -> bytes:
    (one, one_end), (two, two_end) = sorted((_span(draw, data), _span(draw, data)))
    two = max(two, one_end)
    two_end = max(two, two_end)
    return data[:one] + data[two:two_end] + data[one_end:two] + data[one:one_end] + data[two_end:]


def change_number(draw: Random, data: bytes) -> bytes:
    """Writes an extreme number of 1 to 8 bytes anywhere, as a length or a count would be."""
    form = draw.choice(["<B", "<H", "<I", "<Q", ">H", ">I", ">Q"])
    size = struct.calcsize(form)
    if len(data) < size:
        return data
    start = draw.randrange(len(data) - size + 1)
    top = 1 << (8 * size)
    value = draw.choice((0, 1, top // 2 - 1, top // 2, top - 1, draw.randrange(top)))
    return data[:start] + struct.pack(form, value) + data[start + size :]


BYTES = tuple(
    Mutator(change.__name__, change, is_damage=True)
    for change in (
        flip_bits,
        delete_run,
        duplicate_run,
        overwrite_run,
        zero_block,
        truncate,
        append,
        swap_runs,
        change_number,
    )
)


ODD_VALUES: tuple[Callable[[Random], Any], ...] = (
    lambda draw: draw.choice((None, True, False, 0, 1, -1, 7, 2**31, 2**63, 10**400, -(2**63))),
    lambda draw: draw.choice((0.5, -0.0, float("nan"), float("inf"), -float("inf"), 1e308, 1e-320)),
    lambda draw: draw.choice(("", " ", "en", "-", "a-b-c", "../../x", "/abs/x", "a\0b", "a\nb", "\x1b[31m", "\ud800")),
    lambda draw: draw.choice(("\u2028", "\u202e", "<b>", "1", "1.5", "nan", "1e400", "x" * 5000, "__en__", "\ufeff")),
    lambda draw: draw.choice(([], {}, [[]], {"": ""}, [None], ["en", "en"], {"en": {"en": 1}}, [1, "1"])),
    lambda draw: _nested(draw.choice((3, 60))),
)


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def edit_value(draw: Random, content: Any) -> Any:
    """Changes one place of plain data (dicts and lists): another value, no value, another key, two values exchanged."""
    content = copy.deepcopy(content)
    places = list(_places(content))
    if not places:
        return draw.choice(ODD_VALUES)(draw)
    holder, key = draw.choice(places)
    action = draw.randrange(7)
    if action == 0:
        del holder[key]
    elif action == 1 and isinstance(holder, dict):
        holder[draw.choice((f"{key}x", "", "../x", str(key).upper(), draw.choice(places)[1]))] = holder.pop(key)
    elif action == 2:
        other, other_key = draw.choice(places)
        value = copy.deepcopy(other[other_key])
        other[other_key], holder[key] = copy.deepcopy(holder[key]), value
    elif action == 3:
        holder[key] = nearby(draw, holder[key])
    elif action == 4 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(draw.choice(holder)))
    else:
        holder[key] = draw.choice(ODD_VALUES)(draw)
    return content


def _as_float(value: int | float) -> float:
    return float(value) if abs(value) < 1e300 else 1e300


def nearby(draw: Random, value: Any) -> Any:
    """A value that differs a little, or only in its type."""
    if isinstance(value, bool) or value is None:
        return draw.choice((not value, str(value), int(bool(value))))
    if isinstance(value, (int, float)):
        return draw.choice((value + 1, -value, value * 1000, str(value), _as_float(value), [value], bool(value)))
    if isinstance(value, str):
        return draw.choice((value[:-1], value + " ", value.upper(), value * 2, [value], {value: value}, value[::-1]))
    if isinstance(value, list):
        return draw.choice((value[:-1], value * 2, value[::-1], tuple(map(str, value)), {}))
    if isinstance(value, dict):
        return draw.choice((list(value), {}, list(value.items()), dict(list(value.items())[:-1])))
    return None


def _places(content: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    if isinstance(content, dict):
        for key, value in content.items():
            found += [(content, key), *_places(value)]
    elif isinstance(content, list):
        for number, value in enumerate(content):
            found += [(content, number), *_places(value)]
    return found


def edit_json(draw: Random, data: bytes) -> bytes:
    try:
        content = json.loads(data)
    except ValueError:
        return flip_bits(draw, data)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        content = edit_value(draw, content)
    return json.dumps(content, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")


def repeat_key(draw: Random, data: bytes) -> bytes:
    """Puts a member of the outermost object in twice, with another value."""
    try:
        content = json.loads(data)
        key = draw.choice(list(content))
    except (ValueError, TypeError, IndexError):
        return data
    member = f"{json.dumps(key)}: {json.dumps(edit_value(draw, content[key]))}, "
    return data.replace(b"{", b"{" + member.encode(), 1)


def nest_deeply(draw: Random, data: bytes) -> bytes:
    depth = draw.choice((500, 20_000))
    return draw.choice((b"[" * depth, b'{"a":' * depth + b"1" + b"}" * depth, b"[" * depth + data + b"]" * depth))


JSON = (
    *BYTES,
    *[Mutator("edit_json", edit_json, is_damage=False)] * 9,
    Mutator("repeat_key", repeat_key, is_damage=False),
    Mutator("nest_deeply", nest_deeply, is_damage=False),
)

_YAML_TEXTS = (
    b"&a [x, *a]",
    b"!!python/object/apply:os.system [id]",
    b"!!binary x",
    b"- x\n  - y",
    b"? [a]\n: b",
    b"<<: *a",
    b"|\n  x",
    b"@x",
    b"\t- x",
    b"[a, b",
    b"{a: b",
    b"'",
    b"%YAML 9.9\n---",
    b"--- a\n--- b",
    b"null",
    b"no",
    b"~",
    b"2001-01-01",
    b"&a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nlow: [*c,*c,*c]",
)


def edit_yaml(draw: Random, data: bytes) -> bytes:
    try:
        content = edit_value(draw, yaml.load(data, Loader=yaml.BaseLoader))
        return yaml.safe_dump(content, allow_unicode=True, default_flow_style=draw.choice((None, True, False))).encode()
    except (yaml.YAMLError, UnicodeError, TypeError, RecursionError):
        return flip_bits(draw, data)


def insert_yaml(draw: Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    place = draw.randrange(len(lines) + 1)
    text = draw.choice(_YAML_TEXTS)
    return b"\n".join([*lines[:place], draw.choice((text, b"med: " + text, b"ranks: " + text)), *lines[place:]])


YAML = (
    *BYTES,
    *[Mutator("edit_yaml", edit_yaml, is_damage=False)] * 6,
    *[Mutator("insert_yaml", insert_yaml, is_damage=False)] * 4,
)

_ODD_TEXT = tuple(
    text.encode("utf-8", "surrogatepass")
    for text in (
        "\ufeff",
        "\r",
        "\r\n",
        "\n",
        "\n\n",
        "\u2028",
        "\x85",
        "\0",
        "\f",
        "\ud800",
        " ",
        "\t",
        "__en__ ",
        "x" * 70_000,
        "\u3000",
        "\u00ad",
        "\u202e",
        "<unk> ",
        "#",
        "1",
        "-",
        "a\u0301",
    )
)


def edit_text(draw: Random, data: bytes) -> bytes:
    """Puts an unusual character anywhere, or moves, repeats or removes a line."""
    if draw.random() < 0.5:
        place = draw.choice((0, len(data), draw.randrange(len(data) + 1)))
        return data[:place] + draw.choice(_ODD_TEXT) + data[place:]
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    one, two = draw.randrange(len(lines)), draw.randrange(len(lines))
    action = draw.randrange(3)
    if action == 0:
        lines[one], lines[two] = lines[two], lines[one]
    elif action == 1:
        lines.insert(one, lines[two])
    else:
        del lines[one]
    return b"".join(lines)


TEXT = (*BYTES, *[Mutator("edit_text", edit_text, is_damage=False)] * 6)
