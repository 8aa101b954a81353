"""Files of Hugging Face's folders: in every form that they have, and each way in which they can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from langspec_lora.convert.hf import files
from langspec_lora.convert.hf.files import optional_module, read_json, read_tensors, write_json
from langspec_lora.errors import UserError


def weights(*values: float) -> dict[str, torch.Tensor]:
    return {f"weight{value}": torch.tensor([float(value)]) for value in values}


def write(path: Path, *values: float) -> None:
    tensors = weights(*values)
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)


def write_index(path: Path, weight_map: object) -> None:
    path.write_text(json.dumps({"metadata": {"total_size": 8}, "weight_map": weight_map}))


def test_a_module_that_is_not_installed_is_named_with_the_extra_that_brings_it(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "part.py").write_text("value = 7")
    (tmp_path / "broken.py").write_text("import whole.missing_part")
    (tmp_path / "careless.py").write_text("raise ModuleNotFoundError('of something')")
    assert optional_module("whole.part").value == 7
    for name in ("absent", "absent.part.of_it"):
        with pytest.raises(
            UserError, match=r'^absent is not installed; get it with pip install "langspec_lora\[hf\]"$'
        ):
            optional_module(name)
    # What is installed but lacks something is for its own people to mend.
    with pytest.raises(ModuleNotFoundError, match=r"whole\.missing_part"):
        optional_module("broken")
    with pytest.raises(ModuleNotFoundError, match="of something"):
        optional_module("careless")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{", "is damaged ("),
        (b"", "is damaged ("),
        (b'{"a": "\xff"}', "is damaged ("),
        (b"[" * 100_000, "is damaged"),
        (b"[1]", "is damaged: it is not a JSON object"),
        (b"null", "is damaged: it is not a JSON object"),
    ],
    ids=["cut", "empty", "not UTF-8", "deep", "list", "null"],
)
def test_json_that_holds_no_object_is_damaged(tmp_path, content, expected) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        read_json(path)
    assert str(refused.value).startswith(f"{path} {expected}")


def test_json_that_is_missing_or_cannot_be_read_is_said(tmp_path) -> None:
    with pytest.raises(
        UserError,
        match=f"^{tmp_path / 'config.json'}: No such file or directory; give a folder that transformers or PEFT wrote$",
    ):
        read_json(tmp_path / "config.json")
    with pytest.raises(UserError, match=f"^{tmp_path}: Is a directory; give a folder that transformers or PEFT wrote$"):
        read_json(tmp_path)


def test_json_is_utf_8_in_any_locale_and_lies_open_to_people(tmp_path, monkeypatch) -> None:
    content = {"name": "Ελληνικά ▁", "list": [1, None]}
    stock = Path.write_text, Path.read_text
    monkeypatch.setattr(Path, "write_text", lambda path, text, encoding="ascii": stock[0](path, text, encoding))
    monkeypatch.setattr(Path, "read_text", lambda path, encoding="ascii": stock[1](path, encoding))
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content
    text = (tmp_path / "a.json").read_bytes().decode()
    assert text == '{\n "name": "Ελληνικά ▁",\n "list": [\n  1,\n  null\n ]\n}\n'


def test_weights_are_looked_for_in_this_order(tmp_path) -> None:
    """As transformers does: safetensors before torch's own files, the whole before the parts."""
    places = [
        *("first.safetensors", "first.safetensors.index.json", "second.safetensors", "second.safetensors.index.json"),
        *("first.bin", "first.bin.index.json", "second.bin", "second.bin.index.json"),
    ]
    for number, name in enumerate(places):
        if name.endswith(".index.json"):
            write(tmp_path / f"part{number}.{name.split('.')[1]}", number)
            write_index(tmp_path / name, {f"weight{number}": f"part{number}.{name.split('.')[1]}"})
        else:
            write(tmp_path / name, number)
    for number, name in enumerate(places):
        assert read_tensors(tmp_path, "first", "second") == weights(number)
        (tmp_path / name).unlink()
    with pytest.raises(UserError) as refused:
        read_tensors(tmp_path, "first", "second")
    expected = "first.safetensors or second.safetensors or first.bin or second.bin"
    assert str(refused.value) == f"{tmp_path} has no {expected}; give a folder that holds the weights"


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_parts_are_put_together(tmp_path, ending) -> None:
    write(tmp_path / f"a.{ending}", 1, 2)
    write(tmp_path / f"b.{ending}", 3)
    places = {"weight1": f"a.{ending}", "weight3": f"b.{ending}", "weight2": f"a.{ending}"}
    write_index(tmp_path / f"model.{ending}.index.json", places)
    assert read_tensors(tmp_path, "model") == weights(1, 2, 3)
    write_index(tmp_path / f"model.{ending}.index.json", {**places, "other": f"a.{ending}", "more": f"b.{ending}"})
    with pytest.raises(UserError, match=r"model\.\w+\.index\.json names more, which is missing from its files"):
        read_tensors(tmp_path, "model")
    (tmp_path / f"b.{ending}").unlink()
    with pytest.raises(UserError, match=rf"b\.{ending} (is missing|does not exist)"):
        read_tensors(tmp_path, "model")


@pytest.mark.parametrize("weight_map", [None, ["a.bin"], {"weight1": 1}, {"weight1": "a.bin", "weight2": None}])
def test_an_index_without_files_is_damaged(tmp_path, weight_map) -> None:
    write(tmp_path / "a.bin", 1)
    write_index(tmp_path / "model.bin.index.json", weight_map)
    with pytest.raises(UserError, match=r"model\.bin\.index\.json is damaged: it has no weight_map"):
        read_tensors(tmp_path, "model")


@pytest.mark.parametrize("file", ["../a.bin", "/a.bin", "sub/a.bin", f"../{'x' * 100}"])
def test_an_index_names_files_beside_it_only(tmp_path, file) -> None:
    write_index(tmp_path / "model.bin.index.json", {"weight1": file})
    with pytest.raises(UserError) as refused:
        read_tensors(tmp_path, "model")
    assert str(refused.value) == (
        f"{tmp_path / 'model.bin.index.json'} was refused: it names a file outside its folder, {file[:80]!r}"
    )


@pytest.mark.parametrize("file", ["", "..", "."])
def test_an_index_that_names_a_folder_is_refused(tmp_path, file) -> None:
    write_index(tmp_path / "model.bin.index.json", {"weight1": file})
    with pytest.raises(UserError):
        read_tensors(tmp_path, "model")


def test_torch_s_files_hold_weights_and_nothing_else(tmp_path) -> None:
    path = tmp_path / "model.bin"
    for content in ([torch.ones(1)], {"a": torch.ones(1), "b": 3}):
        torch.save(content, path)
        with pytest.raises(UserError, match=r"model\.bin holds more than weights; give the file that"):
            read_tensors(tmp_path, "model")
    write(path, 1)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"model\.bin is damaged"):
        read_tensors(tmp_path, "model")


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_two_guards_stand_before_torch_s_files(tmp_path, monkeypatch) -> None:
    torch.save({"a": Touch(tmp_path / "ran")}, tmp_path / "model.bin")
    with pytest.raises(UserError, match="was refused: it names"):
        read_tensors(tmp_path, "model")
    monkeypatch.setattr(files, "read_pickle", lambda path: None)
    with pytest.raises(UserError, match=r"is damaged \(UnpicklingError\)"):
        read_tensors(tmp_path, "model")
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_machine_s_gpu_are_read_on_the_cpu(tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:7")
        write(tmp_path / "model.bin", 1)
    assert read_tensors(tmp_path, "model") == weights(1)
