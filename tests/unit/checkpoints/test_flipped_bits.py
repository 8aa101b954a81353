"""A flipped bit anywhere in a file of ours is named, or changes nothing that the file says."""

from __future__ import annotations

import random
import shutil
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from langspec_lora.adapters.adapter_folder import AdapterFile, write_adapter_folder
from langspec_lora.checkpoints.loading import load_checkpoint, load_entries
from langspec_lora.checkpoints.outline import read_outline
from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.checkpoints.zip_records import check_sums
from langspec_lora.errors import UserError
from langspec_lora.report.inspection import inspect
from tests import ROOT

STORED = ROOT / "tests" / "stored"
FLIPS = 200


def flip(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def plain(value: Any) -> Any:
    """A value in a form that can be compared: tensors as their bytes."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, Namespace):
        return plain(vars(value))
    if isinstance(value, dict):
        return [(key, plain(item)) for key, item in value.items()]
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else repr(value)


def all_of_checkpoint(path: Path) -> Any:
    """Everything that a training or a conversion takes from a checkpoint."""
    stored = StoredModel(path, STORED / "base.pt")
    taken = plain([stored.adapters.packed, stored.adapters.languages, stored.base, stored.settings, vars(stored.args)])
    check_sums(path)  # as fairseq's commands do before they load the file
    return taken, plain(load_checkpoint(path))


def all_of_folder(path: Path) -> Any:
    stored = StoredModel(path)
    adapters = stored.adapters
    rest = [adapters.languages, adapters.sides, adapters.dim, adapters.start, adapters.mask_epoch, stored.fingerprint]
    return plain([list(adapters.packed.items()), *rest, stored.settings])


def outcome(path: Path, content: bytes, read: Callable[[], Any]) -> Any:
    path.write_bytes(content)
    try:
        return read()
    except UserError as error:
        message = str(error)
        assert "\n" not in message
        assert path.name in message or path.parent.name in message
        return None


def survive(path: Path, read: Callable[[], Any], bits: list[int]) -> tuple[int, int]:
    """How many of the flips were named, and how many changed nothing.

    Raises:
        AssertionError: one changed what was read.
    """
    whole = path.read_bytes()
    expected = outcome(path, whole, read)
    assert expected is not None
    found = {bit: outcome(path, flip(whole, bit), read) for bit in bits}
    silent = [(bit // 8, bit % 8) for bit, taken in found.items() if taken not in (None, expected)]
    assert not silent, f"flips that changed what was read, without a word: {silent}"
    harmless = sum(taken is not None for taken in found.values())
    return len(bits) - harmless, harmless


def places(path: Path, seed: int) -> list[int]:
    """Bits drawn from the whole file, and as many from outside its tensors."""
    size, draw = path.stat().st_size, random.Random(seed)
    anywhere = [draw.randrange(8 * size) for _ in range(FLIPS // 2)]
    with zipfile.ZipFile(path) as archive:
        directory, pickled = archive.start_dir, archive.getinfo(archive.namelist()[0]).file_size
    outside = [*range(pickled + 200), *range(directory, size)]
    return anywhere + [8 * draw.choice(outside) + draw.randrange(8) for _ in range(FLIPS // 2)]


@pytest.mark.parametrize("name", ["whole.pt", "adapters_only.pt"])
def test_flipped_bit_of_a_checkpoint_is_named_or_harmless(tmp_path, name) -> None:
    path = tmp_path / name
    shutil.copy(STORED / name, path)
    named, harmless = survive(path, lambda: all_of_checkpoint(path), places(path, 1))
    assert named > 0.7 * FLIPS
    assert harmless < 0.3 * FLIPS  # the padding and the unused fields of the archive


@pytest.mark.parametrize(
    ("name", "as_folder"),
    [("adapter.safetensors", True), ("adapter.safetensors", False), ("adapter_config.json", True)],
)
def test_flipped_bit_of_an_adapter_folder_is_named_or_harmless(tmp_path, name, as_folder) -> None:
    stored = StoredModel(STORED / "adapter")
    write_adapter_folder(AdapterFile(stored.adapters, stored.fingerprint, stored.settings), tmp_path / "folder")
    path = tmp_path / "folder" / name
    draw = random.Random(2)
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little") if name.endswith(".safetensors") else 1
    bits = [draw.randrange(8 * path.stat().st_size) for _ in range(FLIPS // 2)]
    bits += [draw.randrange(8 * header) for _ in range(FLIPS // 2)]
    named, _ = survive(path, lambda: all_of_folder(path.parent if as_folder else path), bits)
    assert named > 0.9 * FLIPS or name.endswith(".json")


def test_flipped_bit_of_the_arguments_is_named_when_only_these_are_read(tmp_path) -> None:
    """A language that is called otherwise, or another number of heads, would be as good as the right one."""
    path = tmp_path / "adapters_only.pt"
    whole = (STORED / "adapters_only.pt").read_bytes()
    place = whole.index(b"translation_multi_simple_epoch_lora")
    path.write_bytes(flip(whole, 8 * place))
    assert "uranslation" in str(torch.load(path, weights_only=False)["cfg"]["task"])  # torch is silent
    with pytest.raises(UserError, match=r"is damaged or not a checkpoint \(BadZipFile\)"):
        read_outline(path)


def test_flipped_bit_of_a_base_is_named_when_the_base_is_read(tmp_path) -> None:
    path = tmp_path / "whole.pt"
    whole = (STORED / "whole.pt").read_bytes()
    weight = StoredModel(STORED / "whole.pt").base["encoder.layers.0.fc1.weight"]
    path.write_bytes(flip(whole, 8 * whole.index(weight.contiguous().numpy().tobytes())))
    stored = StoredModel.with_adapters(path)  # these are right
    for read in (lambda: stored.base, lambda: load_entries(path)):
        with pytest.raises(UserError, match=r"whole.pt is damaged: a checksum is wrong \(Bad CRC-32"):
            read()


def test_checkpoint_that_torch_was_told_to_write_without_checksums_is_taken(tmp_path) -> None:
    choose = getattr(torch.serialization, "set_crc32_options", None)
    if choose is None:
        pytest.skip("this torch always writes checksums")
    path = tmp_path / "whole.pt"
    choose(False)
    try:
        torch.save(torch.load(STORED / "whole.pt", weights_only=False), path)
    finally:
        choose(True)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is not None
    assert all_of_checkpoint(path) == all_of_checkpoint(STORED / "whole.pt")


@pytest.mark.parametrize("bit", range(8 * 4))
def test_flipped_bit_of_a_number_that_stays_plausible_is_named(tmp_path, bit) -> None:
    """A finite number is as good as any other to everything but a checksum."""
    path = tmp_path / "adapters_only.pt"
    state = torch.load(STORED / "adapters_only.pt", weights_only=False)
    name = "encoder.layers.0.fc1.lora_A"
    place = (STORED / "adapters_only.pt").read_bytes().index(state["model"][name].numpy().tobytes())
    path.write_bytes(flip((STORED / "adapters_only.pt").read_bytes(), 8 * place + bit))
    assert not torch.equal(torch.load(path, weights_only=False)["model"][name], state["model"][name])  # torch is silent
    with pytest.raises(UserError, match=r"adapters_only.pt is damaged: a checksum is wrong \(Bad CRC-32"):
        _ = StoredModel(path).adapters


def test_adapters_whose_arguments_lack_a_flag_are_named_when_they_are_inspected(tmp_path) -> None:
    state = torch.load(ROOT / "tests" / "stored" / "whole.pt", weights_only=False)
    assert inspect(ROOT / "tests" / "stored" / "whole.pt").content["frozen"] is True
    del state["cfg"]["model"].add_lora
    torch.save(state, tmp_path / "vague.pt")
    with pytest.raises(UserError, match=r"vague\.pt holds wrong training arguments \(no add_lora\); give a whole"):
        inspect(tmp_path / "vague.pt")
