"""Adapter folders: read back bit for bit, small where pruned, and refused where damaged."""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from langspec_lora.checkpoints import writing
from langspec_lora.checkpoints.adapter_file import AdapterFile, read_adapter_file, write_adapter_folder
from langspec_lora.checkpoints.adapters import Adapters, PackedPairs
from langspec_lora.checkpoints.source import Source
from langspec_lora.errors import UserError
from langspec_lora.languages import LanguageTable
from langspec_lora.pruning.magnitude import AdaptedPlace

LANGUAGES = LanguageTable(("en", "ଓଡ଼ିଆ", "wo"), ("high", "med", "low"), (2, 1, 4))
WIDTHS = {AdaptedPlace("encoder", 0, "q"): (10, 10), AdaptedPlace("decoder", 1, "fc1"): (10, 23)}


def make(pruned: float, dtype: torch.dtype = torch.float32, zero: float = 0.0) -> AdapterFile:
    """Random adapters; ``zero`` is what stands where the mask says pruned."""
    torch.manual_seed(5)
    pairs = {}
    for place, (width_in, width_out) in WIDTHS.items():
        mask = (torch.rand(7, width_out) >= pruned).to(torch.uint8)
        b = torch.randn(7, width_out).to(dtype).masked_fill(mask == 0, zero)
        pairs[place] = PackedPairs(torch.randn(7, width_in).to(dtype), b, mask)
    directions = {"encoder": ("src", "tgt"), "decoder": ("tgt", "tgt")}
    adapters = Adapters(LANGUAGES, directions, 0, 0, pairs, 7)
    return AdapterFile(adapters, "sha256:" + "ab" * 32, {"arch": "x", "decoder_langtok": True})


def bits(value: torch.Tensor) -> bytes:
    return value.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("pruned", "zero"), [(0, 0.0), (0.5, 0.0), (0.9, 0.0), (1, 0.0), (0.5, -0.0), (0.5, 3.0)])
def test_every_bit_comes_back(tmp_path, pruned, zero, dtype) -> None:
    content = make(pruned, dtype, zero)
    write_adapter_folder(content, tmp_path / "out")
    for path in (tmp_path / "out", tmp_path / "out" / "adapter.safetensors"):
        back = read_adapter_file(path)
        assert (back.base, back.settings) == (content.base, content.settings)
        held, wanted = Source(path).adapters, content.adapters
        assert (held.languages, held.directions, held.mask_epoch) == (
            wanted.languages, wanted.directions, wanted.mask_epoch,
        )  # fmt: skip
        assert held.pairs.keys() == wanted.pairs.keys()
        for place, pairs in wanted.pairs.items():
            for value, expected in zip(held.pairs[place], pairs, strict=True):
                assert value.dtype == expected.dtype
                assert bits(value) == bits(expected)


def test_description_can_be_read_by_a_person(tmp_path) -> None:
    write_adapter_folder(make(0.5), tmp_path)
    text = (tmp_path / "adapter_config.json").read_text(encoding="utf-8")
    assert '"name": "ଓଡ଼ିଆ"' in text
    config = json.loads(text)
    assert config["version"] == 1
    assert config["languages"][2] == {"name": "wo", "level": "low", "rank": 4}
    assert config["directions"] == {"encoder": ["src", "tgt"], "decoder": ["tgt", "tgt"]}
    assert config["places"]["decoder.1.fc1"] == {"A": [7, 10], "B": [7, 23]}


def test_layout_of_pruned_entries_is_the_documented_one(tmp_path) -> None:
    content = make(0.5)
    write_adapter_folder(content, tmp_path)
    raw = (tmp_path / "adapter.safetensors").read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    data = raw[8 + size :]
    _, b, mask = content.adapters.pairs[AdaptedPlace("decoder", 1, "fc1")]
    entries = [(int(m), float(v)) for m, v in zip(mask.flatten(), b.flatten(), strict=True)]

    start, end = header["decoder.1.fc1.B.mask"]["data_offsets"]
    packed = "".join(f"{byte:08b}" for byte in data[start:end])
    assert packed[: len(entries)] == "".join(str(m) for m, _ in entries)
    start, end = header["decoder.1.fc1.B.values"]["data_offsets"]
    living = [value for m, value in entries if m]
    assert struct.unpack(f"<{len(living)}f", data[start:end]) == tuple(living)
    assert "decoder.1.fc1.B" not in header


def large(pruned: float) -> AdapterFile:
    """The pairs of the published run: 156 places of rank 2, 2 and 8 for four languages each, 1,024 features."""
    table = LanguageTable(tuple(f"l{i}" for i in range(12)), ("high",) * 12, (2,) * 8 + (8,) * 4)
    mask = torch.ones(48 * 1024, dtype=torch.uint8)
    mask[: round(pruned * len(mask))] = 0
    mask = mask.view(48, 1024)
    a, b = torch.randn(48, 1024), torch.randn(48, 1024).masked_fill(mask == 0, 0)
    places = {"encoder": ("q", "k", "v", "fc1", "fc2")}
    places["decoder"] = ("q", "k", "v", "crossq", "crossk", "crossv", "fc1", "fc2")
    pairs = {
        AdaptedPlace(stack, layer, position): PackedPairs(a.clone(), b.clone(), mask)
        for stack, positions in places.items()
        for layer in range(12)
        for position in positions
    }
    directions = {"encoder": ("src",) * 12, "decoder": ("tgt",) * 12}
    return AdapterFile(Adapters(table, directions, 1024, 0, pairs, 15), "sha256:", {})


@pytest.mark.parametrize(("pruned", "limit"), [(0, 65e6), (0.9, 40e6)])
def test_published_pairs_take_the_promised_space(tmp_path, pruned, limit) -> None:
    tensors, _ = write_adapter_folder(large(pruned), tmp_path)
    assert tensors.stat().st_size <= limit


def test_what_is_there_is_kept_unless_told_otherwise(tmp_path) -> None:
    write_adapter_folder(make(0), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match="is there already; give another --out, or --overwrite"):
        write_adapter_folder(make(0.5), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    write_adapter_folder(make(0.5), tmp_path, overwrite=True)
    assert len(list(tmp_path.iterdir())) == 2
    assert int((Source(tmp_path).adapters.pairs[AdaptedPlace("encoder", 0, "q")].mask == 0).sum()) > 0


def change_config(folder: Path, **changes) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_metadata(folder: Path, **changes) -> None:
    """Changes the description within the safetensors file, and removes the one beside it."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = folder / "adapter.safetensors"
    with safe_open(str(path), framework="pt") as file:
        config = json.loads(file.metadata()["langspec_lora"])
    tensors = {name: value.clone() for name, value in load_file(str(path)).items()}
    save_file(tensors, str(path), metadata={"langspec_lora": json.dumps({**config, **changes})})
    (folder / "adapter_config.json").unlink()


def cut(folder: Path) -> None:
    path = folder / "adapter.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def pickled(folder: Path) -> None:
    torch.save({"a": torch.ones(2)}, folder / "adapter.safetensors")


def foreign(folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, str(folder / "adapter.safetensors"))


TWICE = [{"name": "en", "level": "high", "rank": 2}, {"name": "en", "level": "low", "rank": 5}]
WRONG_RANK = [{"name": "en", "level": "high", "rank": 6}]
NO_RANK = [{"name": "en", "level": "high", "rank": 0}, {"name": "wo", "level": "low", "rank": 7}]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, "is damaged or cut off"),
        (pickled, "is damaged or cut off"),
        (foreign, "holds no adapters of ours"),
        (lambda folder: change_config(folder, version=2), "is of version 2, this langspec_lora reads version 1"),
        (lambda folder: change_config(folder, format="peft"), "describes no adapters of ours"),
        (lambda folder: change_config(folder, start=1), "does not belong to"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "adapter_config.json").write_text("[]"), "describes no adapters of ours"),
        (lambda folder: (folder / "adapter.safetensors").unlink(), "does not exist"),
        (lambda folder: change_metadata(folder, languages=TWICE), "stand there twice"),
        (lambda folder: change_metadata(folder, languages=WRONG_RANK), "not the size that it is said to have"),
        (lambda folder: change_metadata(folder, languages=NO_RANK), "has no level or rank"),
        (lambda folder: change_metadata(folder, languages=3), "is damaged"),
        (lambda folder: change_metadata(folder, dtype="float16"), "size or type"),
        (lambda folder: change_metadata(folder, dtype="load"), "is damaged"),
        (lambda folder: change_metadata(folder, directions={"encoder": ["src"], "decoder": ["up"]}), "neither src nor"),
        (lambda folder: change_metadata(folder, directions={"encoder": ["src"], "decoder": []}), "no model has"),
        (lambda folder: change_metadata(folder, dim=-1), "whole numbers"),
        (lambda folder: change_metadata(folder, mask_epoch=10**40), "whole numbers"),
        (lambda folder: change_metadata(folder, places={"encoder.0.q": {"A": [7, 10], "B": [7, 10**13]}}), "damaged"),
        (lambda folder: change_metadata(folder, places={"encoder.0.q": {"A": [7, 10], "B": [7, -3]}}), "is damaged"),
        (lambda folder: change_metadata(folder, places={"encoder.0.q": {"A": [7, 10], "B": [7, 10]}}), "not describe"),
        (lambda folder: change_metadata(folder, places={"encoder.0.q": {"A": [7, 10], "B": [7, 99]}}), "size of B"),
    ],
)
def test_a_spoilt_folder_is_named_in_one_sentence(tmp_path, spoil, message) -> None:
    folder = tmp_path / "adapter"
    write_adapter_folder(make(0.5), folder)
    spoil(folder)
    with pytest.raises(UserError, match=message):
        read_adapter_file(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a, b, mask: (a[:6], b, mask), "decoder.1.fc1 has not the size that it is said to have"),
        (lambda a, b, mask: (a, b[:6], mask[:6]), "decoder.1.fc1 has not the size that it is said to have"),
        (lambda a, b, mask: (a, b.half(), mask), "decoder.1.fc1 has not the size or type"),
        (lambda a, b, mask: (a.half(), b, mask), "decoder.1.fc1 has not the size or type"),
    ],
)
def test_matrices_that_do_not_belong_together_are_refused(tmp_path, change, words) -> None:
    content = make(0.5)
    pairs = dict(content.adapters.pairs)
    place = AdaptedPlace("decoder", 1, "fc1")
    pairs[place] = PackedPairs(*change(*pairs[place]))
    write_adapter_folder(replace(content, adapters=replace(content.adapters, pairs=pairs)), tmp_path)
    with pytest.raises(UserError, match=words):
        read_adapter_file(tmp_path)


def test_no_file_is_left_half_written(tmp_path, monkeypatch) -> None:
    def fail(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(writing, "save_file", fail)
    with pytest.raises(UserError, match="No space left on device"):
        write_adapter_folder(make(0.5), tmp_path)
    assert not list(tmp_path.iterdir())
    shutil.rmtree(tmp_path)
