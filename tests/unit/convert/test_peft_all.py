"""``export --format peft --all``: what 39,800 folders take is known before the first is written."""

from __future__ import annotations

import json
import shutil
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from langspec_lora.adapters.packed import Adapters, PackedMatrices
from langspec_lora.convert.hf.peft_folder import export_lora
from langspec_lora.convert.peft import _bytes_of_all, _check_space
from langspec_lora.errors import UserError
from langspec_lora.languages import LanguageTable
from langspec_lora.sites import Site

SHAPES = {"encoder.layers.0.self_attn.q_proj.weight": (6, 6), "decoder.layers.0.fc1.weight": (10, 6)}
TABLE = LanguageTable(("en", "fr", "wo"), ("high", "med", "low"), (1, 2, 4))


def adapters(dtype: torch.dtype, dim: int) -> Adapters:
    def values(width: int) -> torch.Tensor:
        return torch.ones(7, dim or width, dtype=dtype)

    packed = {
        Site("encoder", 0, "q"): PackedMatrices(values(6), values(6), values(6)),
        Site("decoder", 0, "fc1"): PackedMatrices(values(6), values(10), values(10)),
    }
    return Adapters(TABLE, {"encoder": ("src",), "decoder": ("tgt",)}, dim, 0, packed, 0)


def bytes_of_tensors(file: Path) -> int:
    """Of a safetensors file: eight bytes that say how long the JSON header is, the header, the tensors."""
    content = file.read_bytes()
    header = int.from_bytes(content[:8], "little")
    json.loads(content[8 : 8 + header])
    return len(content) - 8 - header


@pytest.mark.parametrize(("dtype", "dim"), [(torch.float32, 0), (torch.float16, 0), (torch.float32, 4)])
def test_size_of_all_directions_is_that_of_the_written_files(tmp_path, dtype, dim) -> None:
    made = adapters(dtype, dim)
    for source, target in permutations(TABLE.names, 2):
        export_lora(made, source, target, SHAPES, tmp_path / f"{source}-{target}")
    written = sum(map(bytes_of_tensors, tmp_path.glob("*/adapter_model.safetensors")))
    assert _bytes_of_all(made, SHAPES) == written


def test_a_disk_that_is_too_small_is_refused_before_the_first_folder(tmp_path, monkeypatch) -> None:
    asked = []

    def usage(folder: Path) -> SimpleNamespace:
        asked.append(folder)
        return SimpleNamespace(free=5_000_000_000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    out = tmp_path / "missing" / "out"
    with pytest.raises(UserError, match=r"writes 39,800 folders, 5\.1 GB in all, but .* has 5\.0 GB of space; export"):
        _check_space(out, [out / str(number) for number in range(39_800)], 5_100_000_000)
    assert asked == [tmp_path]  # the folder that exists


def test_files_that_are_replaced_do_not_count(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2_000))
    (tmp_path / "en-fr").mkdir()
    (tmp_path / "en-fr" / "adapter_model.safetensors").write_bytes(bytes(1_500))
    _check_space(tmp_path, [tmp_path / "en-fr"], 3_000)
    with pytest.raises(UserError, match="--all writes 1 folders"):
        _check_space(tmp_path, [tmp_path / "en-fr"], 4_000)


def test_much_is_said_beforehand(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**12))
    _check_space(tmp_path, [tmp_path / "en-fr"] * 2, 10**9 - 1)
    assert capsys.readouterr().err == ""
    _check_space(tmp_path, [tmp_path / "en-fr"] * 2, 203 * 10**9)
    assert "--all writes 2 folders, 203.0 GB in all" in capsys.readouterr().err
