"""Pickles of real checkpoints in every form, and damaged and hostile ones, of which nothing may run.

Where torch runs a hostile file when asked to trust it, the test shows that first, so that no file here is harmless by
mistake of the test.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import pickle
import struct
import tarfile
import zipfile
from argparse import Namespace
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from langspec_lora.checkpoints.safe_pickle import TensorStub, read_pickle
from langspec_lora.errors import UserError

FORMATS = {"zip": True, "legacy": False}
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
BENIGN = {"model": {}, "args": None}


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def save(state: object, path: Path, form: str = "zip") -> Path:
    torch.save(state, path, _use_new_zipfile_serialization=FORMATS[form])
    return path


def zip_file(records: dict[str, bytes]) -> bytes:
    """An archive as ``torch.save`` writes them, with the given records."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, value in records.items():
            archive.writestr(name, value)
    return content.getvalue()


def is_refused(path: Path, words: str, read: Callable[[Path], object] = read_pickle) -> None:
    with pytest.raises(UserError, match=words) as refusal:
        read(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def runs_when_trusted(path: Path, marker: Path) -> bool:
    """Whether torch without its protection runs what the file holds, as torch before 2.6 does for fairseq."""
    with contextlib.suppress(Exception):
        torch.load(path, weights_only=False)
    ran = marker.exists()
    marker.unlink(missing_ok=True)
    return ran


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that hostile checkpoints would write."""
    return tmp_path / "executed"


@pytest.fixture
def touch(marker: Path) -> Call:
    """Pickles as a command of the shell."""
    return Call(os.system, f"touch '{marker}'")


def fairseq_state() -> dict:
    """The outline of what fairseq-train saves, with every kind of object seen in such files."""
    model = OrderedDict(
        [
            ("encoder.embed_tokens.weight", torch.zeros(7, 4)),
            ("encoder.version", torch.Tensor([3])),
            ("decoder.layers.0.fc1.weight", torch.zeros(6, 4).half()),
            ("decoder.layers.0.fc1.bias", torch.nn.Parameter(torch.zeros(6))),
            ("decoder.embed_tokens.weight", torch.zeros(4, 7).T),
            ("counts", torch.zeros(2, 0, 3, dtype=torch.int64)),
            ("mask", torch.ones(3, dtype=torch.uint8)),
            ("scalar", torch.tensor(True)),
            ("wide", torch.zeros(2, dtype=torch.bfloat16)),
        ]
    )
    model._metadata = OrderedDict([("", {"version": 1})])
    meters = [(0, "train", "AverageMeter", {"val": 1.5, "sum": torch.tensor(3.0), "count": 2, "round": 3})]
    return {
        "args": Namespace(arch="transformer_wmt_en_de_big", lr=[0.1], dtype=torch.float16, size=torch.Size([2])),
        "cfg": {"common": {"seed": 1}},
        "model": model,
        "optimizer_history": [{"criterion_name": "X", "optimizer_name": "FairseqAdam", "num_updates": 3}],
        "extra_state": {
            "train_iterator": {"epoch": 4, "iterations_in_epoch": 0},
            "best": np.float64(2.5),
            "metrics": OrderedDict(train=meters),
            "n-grams": Counter({("a", "b"): 2}),
            "arrays": [np.arange(3), np.zeros((2, 2), dtype=np.float32), np.bool_(True)],
            "val_loss": float("inf"),
        },
        "last_optimizer_state": {"state": {0: {"exp_avg": torch.zeros(3), "step": 3}}, "param_groups": [{"lr": 0.1}]},
        "device": torch.device("cpu"),
        "set": {1, 2},
        "bytes": b"\xff\x00",
    }


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("function", [os.system, builtins.eval, builtins.exec], ids=lambda f: f.__name__)
@pytest.mark.parametrize("place", ["whole", "model", "settings", "arguments", "key"])
def test_call_anywhere_in_a_checkpoint_is_refused_and_not_run(tmp_path, marker, form, function, place) -> None:
    code = f"touch '{marker}'" if function is os.system else f"open({str(marker)!r}, 'w')"
    call = Call(function, code)
    state = {
        "whole": call,
        "model": {**fairseq_state(), "model": {"weight": call}},
        "settings": {**fairseq_state(), "cfg": {"task": {"deep": [{"er": (call,)}]}}},
        "arguments": {**fairseq_state(), "args": Namespace(path=call)},
        "key": {**fairseq_state(), (call,): 1},
    }[place]
    path = save(state, tmp_path / "model.pt", form)
    assert runs_when_trusted(path, marker)
    is_refused(path, "was refused: it names '.*(system|eval|exec)', which no checkpoint needs")
    assert not marker.exists()


@pytest.mark.parametrize("place", range(5))
def test_call_in_any_of_the_pickles_of_an_old_file_is_refused_and_not_run(tmp_path, marker, touch, place) -> None:
    pickles = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, BENIGN, []]
    pickles[place] = touch
    path = tmp_path / "model.pt"
    path.write_bytes(b"".join(pickle.dumps(value, 2) for value in pickles))
    assert runs_when_trusted(path, marker)
    is_refused(path, "which no checkpoint needs")
    assert not marker.exists()


def test_name_with_dots_that_starts_as_a_dtype_is_refused_and_not_run(tmp_path, marker) -> None:
    """torch.float leads to object.__getattribute__, that to the globals of torch's functions, those to the shell."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def attribute(source: bytes, name: str) -> bytes:
        getter = text("torch") + text("float.__class__.__base__.__getattribute__") + b"\x93"
        return getter + source + text(name) + b"\x86R"

    def call(function: bytes, argument: str) -> bytes:
        return function + text(argument) + b"\x85R"

    known = text("torch._utils") + text("_rebuild_tensor_v2") + b"\x93"
    torch_module = call(attribute(attribute(known, "__globals__"), "get"), "torch")
    shell = call(attribute(attribute(torch_module, "os"), "system"), f"touch '{marker}'")
    path = tmp_path / "model.pt"
    path.write_bytes(zip_file({"archive/version": b"3\n", "archive/data.pkl": b"\x80\x04" + shell + b"."}))
    assert runs_when_trusted(path, marker)
    is_refused(path, r"it names 'torch\.float\.__class__\.__base__")
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("posix system", "builtins eval", "__builtin__ eval", "builtins getattr", "copyreg _reconstructor"),
        *(
            "torch load",
            "torch float_power",
            "torch int_repr",
            "torch.serialization os.FloatStorage",
            "os FloatStorage",
        ),
        *("torch.storage _load_from_bytes", "torch._utils _rebuild_sparse_tensor", "torch.jit load"),
        *("omegaconf OmegaConf", "omegaconf.omegaconf os", "omegaconf._utils yaml", "omegaconf.base DictConfig"),
        *("omegaconf.dictconfig DictConfig.__init__", "argparse ArgumentParser", "argparse Namespace.__init__"),
        *("collections namedtuple", "numpy.core.multiarray fromfile", "numpy load", "pickle loads", "fairseq.utils x"),
    ],
)
def test_name_that_no_checkpoint_needs_is_refused(tmp_path, name) -> None:
    module, attribute = (b"X" + struct.pack("<I", len(part)) + part.encode() for part in name.split())
    path = tmp_path / "model.pt"
    path.write_bytes(zip_file({"a/version": b"3", "a/data.pkl": b"\x80\x04" + module + attribute + b"\x93."}))
    is_refused(path, f"it names '{name.replace(' ', '.')}'")


def test_name_with_line_breaks_and_terminal_codes_leaves_one_plain_line(tmp_path) -> None:
    path = tmp_path / "model.pt"
    name = "system\nall is well\x1b[2K" + "x" * 500
    module, attribute = (b"X" + struct.pack("<I", len(part)) + part.encode() for part in ("os", name))
    path.write_bytes(zip_file({"a/version": b"3", "a/data.pkl": b"\x80\x04" + module + attribute + b"\x93."}))
    with pytest.raises(UserError) as refusal:
        read_pickle(path)
    assert str(refusal.value).isprintable()
    assert f"it names {f'os.{name}'[:80]!r}, which" in str(refusal.value)
    assert len(str(refusal.value)) < 250 + len(str(path))


def hostile_pickle(call: Call) -> bytes:
    return pickle.dumps({**BENIGN, "cfg": call}, 2)


def zip_with_two_directories(seen_by_torch: bytes, seen_by_python: bytes) -> bytes:
    """An archive whose end names the place of one table of contents while another stands right before it.

    torch's reader follows the name; Python's takes the table before the end, and what precedes it for a prefix.
    """
    parts = []
    for content in (seen_by_torch, seen_by_python):
        archive = zip_file({"archive/data.pkl": content, "archive/version": b"3\n"})
        place = struct.unpack("<I", archive[-6:-2])[0]  # of the table, in the archive's last record of 22 bytes
        parts.append((archive[:place], bytearray(archive[place:-22]), archive[-22:]))
    (first, table, _), (second, last_table, end) = parts
    prefix = len(first) + len(table)
    shift = prefix - ((prefix + len(second)) - len(first))  # Python adds the distance between the tables to each place
    entry = 0
    while entry < len(last_table):
        place = struct.unpack_from("<I", last_table, entry + 42)[0]
        struct.pack_into("<I", last_table, entry + 42, place + shift)
        lengths = struct.unpack_from("<HHH", last_table, entry + 28)
        entry += 46 + sum(lengths)
    end = end[:16] + struct.pack("<I", len(first)) + end[20:]
    return first + bytes(table) + second + bytes(last_table) + end


def test_archive_that_shows_python_other_contents_than_torch_is_refused_and_not_run(tmp_path, marker, touch) -> None:
    benign, hostile = pickle.dumps(BENIGN, 2), hostile_pickle(touch)
    assert len(hostile) > len(benign)  # or a place would be negative
    path = tmp_path / "model.pt"
    path.write_bytes(zip_with_two_directories(hostile, benign))
    with zipfile.ZipFile(path) as archive:
        assert archive.read("archive/data.pkl") == benign
    assert runs_when_trusted(path, marker)
    is_refused(path, "is damaged or not a checkpoint")
    assert not marker.exists()


def test_old_file_that_ends_as_an_archive_is_read_as_the_old_file_it_is(tmp_path, marker, touch) -> None:
    path = tmp_path / "model.pt"
    old = MAGIC + b"".join(pickle.dumps(value, 2) for value in ({}, touch, []))
    path.write_bytes(old + zip_file({"archive/version": b"3\n", "archive/data.pkl": pickle.dumps(BENIGN, 2)}))
    assert zipfile.is_zipfile(path)
    assert runs_when_trusted(path, marker)
    is_refused(path, "no checkpoint needs")
    assert not marker.exists()


def test_archive_that_ends_as_an_old_file_is_read_as_the_archive_it_is(tmp_path, marker, touch) -> None:
    path = tmp_path / "model.pt"
    old = MAGIC + b"".join(pickle.dumps(value, 2) for value in ({}, BENIGN, []))
    hostile = zip_file({"archive/version": b"3\n", "archive/data.pkl": hostile_pickle(touch)})
    path.write_bytes(hostile[:-2] + struct.pack("<H", len(old)) + old)  # as the archive's comment
    assert runs_when_trusted(path, marker)
    is_refused(path, "no checkpoint needs")
    assert not marker.exists()


def test_old_file_that_is_a_tar_archive_too_is_refused_and_not_run(tmp_path, marker, touch) -> None:
    """torch tries its oldest format, tar, first; a tar archive's first bytes are the free name of its first member."""
    header = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    disguise = MAGIC + b"".join(pickle.dumps(value, 2) for value in ({}, BENIGN, []))
    header[:100] = disguise.ljust(100, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    rest = io.BytesIO()
    members = {
        "storages": pickle.dumps(0, 2) + pickle.dumps([], 2),
        "tensors": pickle.dumps(0, 2),
        "pickle": pickle.dumps(touch, 2),
    }
    with tarfile.open(fileobj=rest, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    path = tmp_path / "model.pt"
    path.write_bytes(bytes(header) + rest.getvalue())
    assert runs_when_trusted(path, marker)
    is_refused(path, "it is a tar archive")
    assert not marker.exists()


def test_torchscript_program_is_refused(tmp_path) -> None:
    path = tmp_path / "model.pt"
    state = pickle.dumps(BENIGN, 2)
    path.write_bytes(zip_file({"a/version": b"3", "a/constants.pkl": state, "a/data.pkl": state}))
    is_refused(path, "it is a TorchScript program")


def test_source_of_a_class_is_refused_since_torch_would_write_it_to_a_file(tmp_path) -> None:
    path = tmp_path / "model.pt"
    source = b"(X\x06\x00\x00\x00modulecargparse\nNamespace\nX\x01\x00\x00\x00fX\x04\x00\x00\x00evilNtQ."
    path.write_bytes(MAGIC + pickle.dumps({}, 2) + b"\x80\x02" + source + pickle.dumps([], 2))
    is_refused(path, "something other than a tensor's storage")


@pytest.mark.parametrize(
    "change", [b"}X\x01\x00\x00\x00ac__builtin__\ndict\ns", b"N}X\x01\x00\x00\x00ac__builtin__\ndict\ns\x86"]
)
def test_change_of_a_class_is_refused_and_not_made(tmp_path, change) -> None:
    path = tmp_path / "model.pt"
    for name in ("argparse\nNamespace", "omegaconf.dictconfig\nDictConfig", "collections\nOrderedDict"):
        content = b"\x80\x02c" + name.encode() + b"\n" + change + b"b."
        path.write_bytes(zip_file({"a/version": b"3", "a/data.pkl": content}))
        is_refused(path, "refused|damaged")
    assert not hasattr(Namespace(), "a")
    path.write_bytes(zip_file({"a/version": b"3", "a/data.pkl": pickle.dumps({**BENIGN, "args": Namespace()}, 2)}))
    assert not hasattr(read_pickle(path)["args"], "a")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.array([None]), "array of type 'O8'"),
        (np.zeros(2, dtype="f4,f4"), "array of type 'V8'"),
        (Call(np.ndarray, (1,), "O", b"AAAAAAAA"), "damaged"),
        (Call(np.dtype, "O"), "array of type 'O'"),
    ],
    ids=["objects", "record", "bytes-as-addresses", "type"],
)
def test_numpy_arrays_of_anything_but_numbers_are_refused(tmp_path, form, value, words) -> None:
    is_refused(save({**BENIGN, "extra": value}, tmp_path / "model.pt", form), words)


def test_numpy_type_of_numbers_that_is_changed_into_one_of_objects_is_refused(tmp_path) -> None:
    written = pickle.dumps({**BENIGN, "extra": np.dtype("f8")}, 2)
    unchanged = b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"  # no parts, names, fields; its own size; no flags
    assert unchanged in written
    path = tmp_path / "model.pt"
    for changed, refused in ((written, False), (written.replace(unchanged, unchanged[:-3] + b"K\x3ft"), True)):
        path.write_bytes(zip_file({"a/version": b"3", "a/data.pkl": changed}))
        if refused:
            is_refused(path, "the type of a NumPy array does not hold numbers")
        else:
            read_pickle(path)


@pytest.mark.parametrize("form", FORMATS)
def test_file_cut_off_anywhere_is_damaged(tmp_path, form) -> None:
    state = {"model": {"weight": torch.arange(6.0)}, "args": Namespace(a=1)}
    whole = save(state, tmp_path / "whole.pt", form).read_bytes()
    path = tmp_path / "model.pt"
    for length in {*range(0, len(whole), 7), *range(len(whole) - 30, len(whole))}:
        path.write_bytes(whole[:length])
        is_refused(path, "is damaged or not a checkpoint|was refused: .*it is damaged or hostile")
    path.write_bytes(whole)
    assert read_pickle(path)["model"]["weight"].shape == (6,)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged or not a checkpoint"),
        (b"not a checkpoint\n", "damaged"),
        (b"\0" * 2000, "damaged"),
        (pickle.dumps({"model": {}}), "damaged or not a checkpoint"),
        (zip_file({"archive/other": b"x"}), "damaged or not a checkpoint"),
        (zip_file({"archive/version": b"3\n", "archive/other": b"x"}), "damaged or not a checkpoint"),
        (zip_file({}), "damaged"),
    ],
    ids=["empty", "text", "zeros", "plain pickle", "other zip", "no data.pkl", "empty zip"],
)
def test_file_of_another_kind_is_named_so(tmp_path, content, words) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    is_refused(path, words)


def test_missing_file_and_folder_are_named(tmp_path) -> None:
    is_refused(tmp_path / "nowhere.pt", "does not exist")
    is_refused(tmp_path, "cannot be read: Is a directory")
    is_refused(save(BENIGN, tmp_path / "file.pt") / "model.pt", "cannot be read: Not a directory")


STORAGES = {
    "uint8": 1, "int8": 1, "bool": 1, "int16": 2, "float16": 2, "bfloat16": 2, "int32": 4, "float32": 4,
    "int64": 8, "float64": 8, "complex64": 8, "complex128": 16,
}  # fmt: skip


@pytest.mark.parametrize("dtype", STORAGES)
def test_old_file_ends_where_the_numbers_of_its_types_end(tmp_path, dtype) -> None:
    value = torch.zeros(5, dtype=getattr(torch, dtype))
    assert value.element_size() == STORAGES[dtype]
    path = save(
        {"model": {"x": value}, "kind": value.dtype if "complex" not in dtype else None}, tmp_path / "a.pt", "legacy"
    )
    assert read_pickle(path)["model"]["x"].shape == (5,)
    path.write_bytes(path.read_bytes()[:-1])
    is_refused(path, "is damaged or not a checkpoint .EOFError")


KNOWN = (
    *("argparse Namespace", "collections OrderedDict", "collections defaultdict", "collections Counter"),
    *("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"),
    *("torch Size", "torch device", "torch.serialization _get_layout", "typing Any", "_codecs encode"),
    *(f"numpy.{core}.multiarray {name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy dtype", "numpy ndarray", "omegaconf.dictconfig DictConfig", "omegaconf.listconfig ListConfig"),
    *("omegaconf.base ContainerMetadata", "omegaconf.base Metadata"),
    *(f"omegaconf.nodes {name}Node" for name in ("Any", "String", "Integer", "Float", "Boolean")),
    *(f"torch {name}" for name in STORAGES if "complex" not in name),
    *(f"torch {name}Storage" for name in ("Byte", "Char", "Bool", "Short", "Half", "BFloat16", "Int", "Float")),
    *(f"torch {name}Storage" for name in ("Long", "Double", "ComplexFloat", "ComplexDouble")),
    *(
        f"{module} {kind}"
        for module in ("builtins", "__builtin__")
        for kind in ("dict", "list", "tuple", "set", "bool", "int", "float", "complex", "str", "bytearray")
    ),
    *("__builtin__ long", "__builtin__ unicode"),
)


@pytest.mark.parametrize("name", KNOWN)
def test_name_that_checkpoints_hold_is_read(tmp_path, name) -> None:
    path = tmp_path / "model.pt"
    outline = b"\x80\x02}(X\x05\x00\x00\x00model}X\x01\x00\x00\x00xc" + name.replace(" ", "\n").encode() + b"\nu."
    path.write_bytes(zip_file({"a/version": b"3", "a/data.pkl": outline}))
    assert read_pickle(path)["model"] == {}


def test_objects_of_python_two_become_those_of_today(tmp_path) -> None:
    """As fairseq's first checkpoints hold them: text as bytes in UTF-8, long and unicode."""
    path = tmp_path / "model.pt"
    text = b"U\x03h\xc3\xa9"
    values = b"c__builtin__\nlong\nU\x0212\x85R" + b"c__builtin__\nunicode\n" + text + b"\x85R" + text
    path.write_bytes(zip_file({"a/version": b"3", "a/data.pkl": b"\x80\x02(" + values + b"t."}))
    assert read_pickle(path) == (12, "hé", "hé")


def test_counter_of_n_grams_stays_a_mapping(tmp_path) -> None:
    assert read_pickle(save({"n": Counter(a=2)}, tmp_path / "a.pt")) == {"n": {"a": 2}}


def test_tensor_shows_its_shape_in_messages(tmp_path) -> None:
    outline = read_pickle(save([torch.zeros(2, 3), torch.zeros(())], tmp_path / "a.pt"))
    assert list(map(repr, outline)) == ["TensorStub(2, 3)", "TensorStub()"]
    assert all(isinstance(one, TensorStub) for one in outline)


@pytest.mark.parametrize("numbers", [(0x1950A86A20F9469CFC6B, 1001), (0x1950A86A20F9469CFC6C, 1000), (1001,)])
def test_old_file_of_another_magic_number_is_damaged(tmp_path, numbers) -> None:
    rest = ({"little_endian": True}, BENIGN, [])
    for written, refused in (((0x1950A86A20F9469CFC6C, 1001), False), (numbers, True)):
        path = tmp_path / "model.pt"
        path.write_bytes(b"".join(pickle.dumps(value, 2) for value in (*written, *rest)))
        if refused:
            is_refused(path, "is damaged or not a checkpoint .ValueError")
        else:
            assert read_pickle(path) == BENIGN


@pytest.mark.parametrize("code", ["O", "S5", "U3", "M8", "f", "8f", "f8x", "V" * 30])
def test_numpy_type_that_is_no_number_is_refused_in_a_short_sentence(tmp_path, code) -> None:
    path = tmp_path / "model.pt"
    call = b"cnumpy\ndtype\nX" + struct.pack("<I", len(code)) + code.encode() + b"\x85R"
    path.write_bytes(zip_file({"a/version": b"3", "a/data.pkl": b"\x80\x02" + call + b"."}))
    is_refused(path, f"a NumPy array of type '{code[:20]}'")
    for known in ("b1", "i8", "u2", "f4", "c16"):
        call = b"cnumpy\ndtype\n(X" + struct.pack("<I", len(known)) + known.encode() + b"I00\nI01\ntR"
        path.write_bytes(zip_file({"a/version": b"3", "a/data.pkl": b"\x80\x02" + call + b"."}))
        read_pickle(path)


@pytest.mark.parametrize("place", range(6))
def test_numpy_type_with_parts_names_a_size_or_flags_is_refused(tmp_path, place) -> None:
    state = [3, "<", None, None, None, -1, -1, 0]
    path = tmp_path / "model.pt"
    for change, refused in (({}, False), ({0: 4, 1: ">"}, False), ({place + 2: 7}, True)):
        for number, value in change.items():
            state[number] = value
        dtype = b"cnumpy\ndtype\nX\x02\x00\x00\x00f8\x85R" + pickle.dumps(tuple(state), 2)[2:-1] + b"b."
        path.write_bytes(zip_file({"a/version": b"3", "a/data.pkl": b"\x80\x02" + dtype}))
        if refused:
            is_refused(path, "the type of a NumPy array does not hold numbers")
        else:
            read_pickle(path)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "tensor", [torch.zeros(1).expand(2**40), torch.zeros(3, 1).expand(3, 10**9), torch.zeros(2, 3).expand(10**6, 2, 3)]
)
def test_tensor_that_is_larger_than_what_is_stored_of_it_is_refused(tmp_path, form, tensor) -> None:
    """A few bytes would become terabytes with the first copy."""
    path = save({"model": {"weight": tensor}}, tmp_path / "model.pt", form)
    assert path.stat().st_size < 10_000
    assert torch.load(path, weights_only=True)["model"]["weight"].numel() == tensor.numel()
    is_refused(path, "was refused: a tensor is larger than what is stored of it")


def with_record(path: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """Changes a record of an archive, with a right checksum."""
    with zipfile.ZipFile(path) as archive:
        records = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    key = next(key for key in records if key.endswith(name))
    path.write_bytes(zip_file({**records, key: change(records[key])}))


def test_record_that_is_shorter_than_its_tensors_is_refused(tmp_path) -> None:
    path = save({"model": {"weight": torch.zeros(100)}}, tmp_path / "model.pt")
    with_record(path, "data/0", lambda content: content)
    assert read_pickle(path)["model"]["weight"].shape == (100,)
    with_record(path, "data/0", lambda content: content[:-4])
    is_refused(path, "is damaged or not a checkpoint")


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [((4,), (1,), 1), ((2, 2), (3, 1), 0), ((4,), (2,), 0), ((-1,), (1,), 0), ((2,), (-1,), 3), ((4,), (1, 1), 0)],
)
def test_tensor_beyond_its_storage_is_refused(tmp_path, size, stride, offset) -> None:
    class Beyond:
        def __reduce__(self):
            storage = torch.zeros(4).storage()
            return torch._utils._rebuild_tensor_v2, (storage, offset, size, stride, False, OrderedDict())

    path = save({"model": {"weight": Beyond()}}, tmp_path / "model.pt")
    is_refused(path, "was refused: a tensor (is larger than what is stored of it|has no valid shape)")
