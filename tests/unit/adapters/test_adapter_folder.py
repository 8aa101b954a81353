"""Adapter folders: read back bit for bit, small where pruned, and refused where damaged."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from langspec_lora import tensor_files
from langspec_lora.adapters import adapter_folder as adapter_file
from langspec_lora.adapters.adapter_folder import AdapterFile, read_adapter_file, write_adapter_folder
from langspec_lora.adapters.packed import Adapters, PackedMatrices
from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.errors import UserError
from langspec_lora.languages import LanguageTable
from langspec_lora.sites import Site

LANGUAGES = LanguageTable(("en", "ଓଡ଼ିଆ", "wo"), ("high", "med", "low"), (2, 1, 4))
WIDTHS = {Site("encoder", 0, "q"): (10, 10), Site("decoder", 1, "fc1"): (10, 23)}


def make(pruned: float, dtype: torch.dtype = torch.float32, zero: float = 0.0) -> AdapterFile:
    """Random adapters; ``zero`` is what stands where the mask says pruned."""
    torch.manual_seed(5)
    matrices = {}
    for site, (width_in, width_out) in WIDTHS.items():
        mask = (torch.rand(7, width_out) >= pruned).to(torch.uint8)
        b = torch.randn(7, width_out).to(dtype).masked_fill(mask == 0, zero)
        matrices[site] = PackedMatrices(torch.randn(7, width_in).to(dtype), b, mask)
    sides = {"encoder": ("src", "tgt"), "decoder": ("tgt", "tgt")}
    adapters = Adapters(LANGUAGES, sides, 0, 0, matrices, 7)
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
        held, wanted = StoredModel(path).adapters, content.adapters
        assert (held.languages, held.sides, held.mask_epoch) == (
            wanted.languages, wanted.sides, wanted.mask_epoch,
        )  # fmt: skip
        assert held.packed.keys() == wanted.packed.keys()
        for site, matrices in wanted.packed.items():
            for value, expected in zip(held.packed[site], matrices, strict=True):
                assert value.dtype == expected.dtype
                assert bits(value) == bits(expected)


def test_description_can_be_read_by_a_person(tmp_path, encoding_is_ascii) -> None:
    paths = write_adapter_folder(make(0.5), tmp_path)
    assert [path.name for path in paths] == ["adapter.safetensors", "adapter_config.json"]
    text = paths[1].read_bytes().decode("utf-8")
    assert '"name": "ଓଡ଼ିଆ",' in map(str.strip, text.splitlines())
    described = {
        "format": "langspec_lora adapters",
        "version": 1,
        "languages": [
            {"name": "en", "level": "high", "rank": 2},
            {"name": "ଓଡ଼ିଆ", "level": "med", "rank": 1},
            {"name": "wo", "level": "low", "rank": 4},
        ],
        "directions": {"encoder": ["src", "tgt"], "decoder": ["tgt", "tgt"]},
        "dim": 0,
        "start": 0,
        "mask_epoch": 7,
        "dtype": "float32",
        "base": "sha256:" + "ab" * 32,
        "settings": {"arch": "x", "decoder_langtok": True},
        "places": {"encoder.0.q": {"A": [7, 10], "B": [7, 10]}, "decoder.1.fc1": {"A": [7, 10], "B": [7, 23]}},
    }
    content = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    tensors = load_file(paths[0])
    for name in sorted(tensors):
        dtype = {torch.float32: "float32", torch.uint8: "uint8"}[tensors[name].dtype]
        content.update(f"\n{name} {dtype} {list(tensors[name].shape)}\n".encode() + tensors[name].numpy().tobytes())
    described["sha256"] = content.hexdigest()
    assert json.loads(text) == described
    with safe_open(str(paths[0]), framework="pt") as file:
        assert json.loads(file.metadata()["langspec_lora"]) == described
    assert read_adapter_file(tmp_path).adapters.languages == LANGUAGES


@pytest.fixture
def encoding_is_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system on which text is ASCII where a program does not say what it is."""
    monkeypatch.setattr(io, "text_encoding", lambda encoding, level=2: encoding or "ascii")


def test_layout_of_pruned_entries_is_the_documented_one(tmp_path) -> None:
    content = make(0.5)
    write_adapter_folder(content, tmp_path)
    raw = (tmp_path / "adapter.safetensors").read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    data = raw[8 + size :]
    _, b, mask = content.adapters.packed[Site("decoder", 1, "fc1")]
    entries = [(int(m), float(v)) for m, v in zip(mask.flatten(), b.flatten(), strict=True)]

    start, end = header["decoder.1.fc1.B.mask"]["data_offsets"]
    packed = "".join(f"{byte:08b}" for byte in data[start:end])
    assert packed[: len(entries)] == "".join(str(m) for m, _ in entries)
    start, end = header["decoder.1.fc1.B.values"]["data_offsets"]
    living = [value for m, value in entries if m]
    assert struct.unpack(f"<{len(living)}f", data[start:end]) == tuple(living)
    assert "decoder.1.fc1.B" not in header


def without_components(*rows: int) -> AdapterFile:
    """Adapters of which whole components are pruned at the first site, and the first and last at the other."""
    content = make(0)
    matrices = {}
    for number, (site, (a, b, mask)) in enumerate(content.adapters.packed.items()):
        own = [0, 6] if number else list(rows)
        mask[own], b[own] = 0, 0.0
        matrices[site] = PackedMatrices(a, b, mask)
    return replace(content, adapters=replace(content.adapters, packed=matrices))


@pytest.mark.parametrize("rows", [(), (1, 2, 5), range(7)], ids=["none", "some", "all of a site"])
def test_rows_of_a_whose_component_is_pruned_are_not_stored_and_come_back_as_zeros(tmp_path, rows) -> None:
    content = without_components(*rows)
    paths = write_adapter_folder(content, tmp_path / "out")
    first, second = (str(site) for site in WIDTHS)
    stored = load_file(paths[0])
    assert stored[f"{first}.A"].shape == (7 - len(rows), 10)
    assert stored[f"{second}.A"].shape == (5, 10)
    assert json.loads(paths[1].read_text())["version"] == 3  # so that earlier versions do not misread it
    back = read_adapter_file(tmp_path / "out").adapters
    for site, (a, b, mask) in content.adapters.packed.items():
        assert torch.equal(back.packed[site].b, b)
        assert torch.equal(back.packed[site].mask, mask)
        for row in range(7):
            lives = bool(mask[row].any())
            assert back.packed[site].a[row].tolist() == (a[row].tolist() if lives else [0.0] * 10)
    again = write_adapter_folder(replace(content, adapters=back), tmp_path / "again")
    assert json.loads(again[1].read_text()) == json.loads(paths[1].read_text())  # with the hash of all numbers


def test_a_row_that_entries_left_by_chance_keeps_its_a(tmp_path) -> None:
    content = without_components(1)
    content.adapters.packed[Site("encoder", 0, "q")].mask[3, 2] = 0
    content.adapters.packed[Site("encoder", 0, "q")].b[3, 2] = 0
    paths = write_adapter_folder(content, tmp_path)
    assert json.loads(paths[1].read_text())["version"] == 1
    assert all(torch.equal(load_file(paths[0])[f"{s}.A"], content.adapters.packed[s].a) for s in WIDTHS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: {"encoder.0.q.A": tensors["encoder.0.q.A"][1:]}, "one row for each component that is kept"),
        (lambda tensors: {"encoder.0.q.A": tensors["encoder.0.q.A"][:, 1:].contiguous()}, "described shape"),
        (lambda tensors: {"encoder.0.q.B.mask": tensors["encoder.0.q.B.mask"] ^ 1}, "one value for each entry"),
    ],
)
def test_a_folder_of_smaller_rank_that_contradicts_itself_is_refused(tmp_path, change, words) -> None:
    paths = write_adapter_folder(without_components(2), tmp_path)
    tensors = load_file(paths[0])
    described = {**json.loads(paths[1].read_text())}
    described.pop("sha256")
    save_file({**tensors, **change(tensors)}, paths[0], {"langspec_lora": json.dumps(described)})
    paths[1].write_text(json.dumps(described))
    with pytest.raises(UserError, match=words):
        read_adapter_file(tmp_path)


def large(pruned: float) -> AdapterFile:
    """The adapters of the published run: 156 sites of rank 2, 2 and 8 for four languages each, 1,024 features."""
    table = LanguageTable(tuple(f"l{i}" for i in range(12)), ("high",) * 12, (2,) * 8 + (8,) * 4)
    mask = torch.ones(48 * 1024, dtype=torch.uint8)
    mask[: round(pruned * len(mask))] = 0
    mask = mask.view(48, 1024)
    a, b = torch.randn(48, 1024), torch.randn(48, 1024).masked_fill(mask == 0, 0)
    sites = {"encoder": ("q", "k", "v", "fc1", "fc2")}
    sites["decoder"] = ("q", "k", "v", "crossq", "crossk", "crossv", "fc1", "fc2")
    matrices = {
        Site(stack, layer, position): PackedMatrices(a.clone(), b.clone(), mask)
        for stack, positions in sites.items()
        for layer in range(12)
        for position in positions
    }
    sides = {"encoder": ("src",) * 12, "decoder": ("tgt",) * 12}
    return AdapterFile(Adapters(table, sides, 1024, 0, matrices, 15), "sha256:", {})


@pytest.mark.parametrize(("pruned", "limit"), [(0, 65e6), (0.9, 40e6)])
def test_published_adapters_take_the_promised_space(tmp_path, pruned, limit) -> None:
    tensors, _ = write_adapter_folder(large(pruned), tmp_path)
    assert tensors.stat().st_size <= limit


def test_what_is_there_is_kept_unless_told_otherwise(tmp_path) -> None:
    write_adapter_folder(make(0), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match="already exists; give another --out, or --overwrite"):
        write_adapter_folder(make(0.5), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    write_adapter_folder(make(0.5), tmp_path, overwrite=True)
    assert len(list(tmp_path.iterdir())) == 2
    assert int((StoredModel(tmp_path).adapters.packed[Site("encoder", 0, "q")].mask == 0).sum()) > 0


def change_config(folder: Path, **changes) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_metadata(folder: Path, **changes) -> None:
    """Changes the description within the safetensors file, and removes the one beside it."""
    rewrite(folder, lambda config, tensors: config.update(changes))


def rewrite(folder: Path, change: Callable[[dict, dict], None]) -> None:
    """Changes description and tensors of the safetensors file, and removes the description beside it."""
    path = folder / "adapter.safetensors"
    with safe_open(str(path), framework="pt") as file:
        config = json.loads(file.metadata()["langspec_lora"])
    tensors = {name: value.clone() for name, value in load_file(str(path)).items()}
    change(config, tensors)
    save_file(tensors, str(path), metadata={"langspec_lora": json.dumps(config)})
    (folder / "adapter_config.json").unlink()


def cut(folder: Path) -> None:
    path = folder / "adapter.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def pickled(folder: Path) -> None:
    torch.save({"a": torch.ones(2)}, folder / "adapter.safetensors")


def foreign(folder: Path) -> None:
    save_file({"a": torch.ones(2)}, str(folder / "adapter.safetensors"))


TWICE = [{"name": "en", "level": "high", "rank": 2}, {"name": "en", "level": "low", "rank": 5}]
WRONG_RANK = [{"name": "en", "level": "high", "rank": 6}]
NO_RANK = [{"name": "en", "level": "high", "rank": 0}, {"name": "wo", "level": "low", "rank": 7}]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, "is damaged or truncated"),
        (pickled, "is damaged or truncated"),
        (foreign, "holds no adapters of langspec_lora"),
        (lambda folder: change_config(folder, version=4), "is of version 4, but this langspec_lora reads version 3 at"),
        (lambda folder: change_config(folder, format="peft"), "does not describe adapters of langspec_lora"),
        (lambda folder: change_config(folder, start=1), "does not belong to"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "adapter_config.json").write_text("[]"), "is damaged: it is not a JSON object"),
        (lambda folder: (folder / "adapter_config.json").write_text("[" * 200_000), "adapter_config.json is damaged"),
        (
            lambda folder: (folder / "adapter_config.json").write_bytes(b'{"format": "\xff"}'),
            "is damaged \\(.*byte 0xff",
        ),
        (lambda folder: change_metadata(folder, version=4), "adapter.safetensors is of version 4, but this"),
        (lambda folder: (folder / "adapter.safetensors").unlink(), "does not exist"),
        (lambda folder: change_metadata(folder, languages=TWICE), "names 'en' twice"),
        (lambda folder: change_metadata(folder, languages=WRONG_RANK), "not have the described shape"),
        (lambda folder: change_metadata(folder, languages=NO_RANK), "the rank of en: rank 0 was given"),
        (lambda folder: change_metadata(folder, languages=3), "is damaged"),
        (lambda folder: change_metadata(folder, dtype="float16"), "shape or dtype"),
        (lambda folder: change_metadata(folder, dtype="load"), "is damaged"),
        (lambda folder: change_metadata(folder, directions={"encoder": ["src"], "decoder": ["up"]}), "none of src"),
        (
            lambda folder: change_metadata(folder, directions={"encoder": ["src"], "decoder": []}),
            "it names unknown sites",
        ),
        (lambda folder: change_metadata(folder, dim=-1), "whole numbers"),
        (lambda folder: change_metadata(folder, mask_epoch=10**40), "whole numbers"),
        (lambda folder: change_metadata(folder, places={"encoder.0.q": {"A": [7, 10], "B": [7, 10**13]}}), "damaged"),
        (lambda folder: change_metadata(folder, places={"encoder.0.q": {"A": [7, 10], "B": [7, -3]}}), "is damaged"),
        (lambda folder: change_metadata(folder, places={"encoder.0.q": {"A": [7, 10], "B": [7, 10]}}), "not describe"),
        (
            lambda folder: change_metadata(folder, places={"encoder.0.q": {"A": [7, 10], "B": [7, 99]}}),
            "one bit for each entry of B",
        ),
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
        (lambda a, b, mask: (a[:6], b, mask), "decoder.1.fc1 does not have the described shape"),
        (lambda a, b, mask: (a, b[:6], mask[:6]), "decoder.1.fc1 does not have the described shape"),
        (lambda a, b, mask: (a, b.half(), mask), "decoder.1.fc1 does not have the described shape or dtype"),
        (lambda a, b, mask: (a.half(), b, mask), "decoder.1.fc1 does not have the described shape or dtype"),
    ],
)
def test_matrices_that_do_not_belong_together_are_refused(tmp_path, change, words) -> None:
    content = make(0.5)
    matrices = dict(content.adapters.packed)
    site = Site("decoder", 1, "fc1")
    matrices[site] = PackedMatrices(*change(*matrices[site]))
    write_adapter_folder(replace(content, adapters=replace(content.adapters, packed=matrices)), tmp_path)
    with pytest.raises(UserError, match=words):
        read_adapter_file(tmp_path)


def test_no_file_is_left_half_written(tmp_path, monkeypatch) -> None:
    def fail(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(tensor_files, "save_file", fail)
    with pytest.raises(UserError, match="No space left on device"):
        write_adapter_folder(make(0.5), tmp_path)
    assert not list(tmp_path.iterdir())
    shutil.rmtree(tmp_path)


def languages(*described: tuple) -> list[dict]:
    return [dict(zip(("name", "level", "rank"), language, strict=True)) for language in described]


def drop(key: str) -> Callable[[dict, dict], None]:
    return lambda config, tensors: config.pop(key)


def say(**changes) -> Callable[[dict, dict], None]:
    return lambda config, tensors: config.update(changes)


def store(name: str, new: Callable[[dict], torch.Tensor]) -> Callable[[dict, dict], None]:
    return lambda config, tensors: tensors.update({name: new(tensors)})


def lose(name: str) -> Callable[[dict, dict], None]:
    return lambda config, tensors: tensors.pop(name)


def say_shape(part: str, *shape: object) -> Callable[[dict, dict], None]:
    return lambda config, tensors: config["places"]["decoder.1.fc1"].update({part: list(shape)})


def flat(config: dict, tensors: dict) -> None:
    """A of one row, described so."""
    tensors["decoder.1.fc1.A"] = tensors["decoder.1.fc1.A"].view(-1)[:7]
    config["places"]["decoder.1.fc1"]["A"] = [7]


def empty(config: dict, tensors: dict) -> None:
    """B without any column, described so."""
    tensors.update(
        {"decoder.1.fc1.B.mask": torch.zeros(0, dtype=torch.uint8), "decoder.1.fc1.B.values": torch.zeros(0)}
    )
    config["places"]["decoder.1.fc1"]["B"] = [7, 0]


VALUES = "decoder.1.fc1.B.values"
SIZE = "decoder.1.fc1 does not have the described shape"
MASK = "decoder.1.fc1.B.mask does not have one bit for each entry of B"
NUMBERS = "dim, start and mask_epoch must be whole numbers"
KEYS = ("languages", "directions", "dim", "start", "mask_epoch", "dtype", "base", "settings", "places")
DAMAGE = [
    *((drop(key), rf"is damaged \(KeyError: '{key}'\); export it again") for key in KEYS),
    *((say(**{key: number}), NUMBERS) for key in ("dim", "start", "mask_epoch") for number in (-1, 2**31, 1.5, "1")),
    (say(languages=[]), "was refused: the list of languages names no language"),
    (say(languages=languages(("en", "high", 2), ("en", "low", 5))), "was refused: .* names 'en' twice"),
    (say(languages=languages(("en", "high", 2), ("", "low", 5))), "was refused: .* has '' as a language's name"),
    (say(languages=languages(("en", "high", 2), (3, "low", 5))), "was refused: .* has 3 as a language's name"),
    (say(languages=languages(("en", "high", 2), ("../x", "low", 5))), "was refused: .* names '../x', but .* have '.'"),
    (say(languages=languages(("en", "high", 2), ("fr", "rare", 5))), "was refused: the level of fr is 'rare'"),
    (say(languages=languages(("en", "high", 2), ("fr", "low", 5.0))), "the rank of fr: 5.0 is not a rank"),
    (say(languages=languages(("en", "high", True), ("fr", "low", 6))), "the rank of en: True is not a rank"),
    (say(languages=languages(("en", "high", 0), ("fr", "low", 7))), "the rank of en: rank 0 was given"),
    (say(languages=languages(("en", "high", 2), ("fr", "low", 6))), "does not have the described shape"),
    (say(directions={"encoder": ["src", "tgt"], "decoder": ["tgt", "both"]}), "a side is none of src, tgt, "),
    (say(dtype="nonsense"), r"is damaged \(AttributeError: .*nonsense"),
    (say(settings=3), r"is damaged \(TypeError: "),
    (say(places={}), "it names unknown sites"),
    (lambda config, tensors: config["places"].update({"encoder.9.q": {}}), "it names unknown sites"),
    (store("decoder.0.q.A", lambda tensors: torch.ones(1)), "it holds decoder.0.q.A, which it does not describe"),
    (say_shape("A", 7, 11), SIZE),
    (flat, SIZE),
    (say_shape("B", 161), SIZE),
    (say_shape("B", 7, 23, 1), SIZE),
    (say_shape("B", 23, 7), SIZE),
    (store("decoder.1.fc1.A", lambda tensors: torch.ones(6, 10)), SIZE),
    (say_shape("B", 7, 15), MASK),
    (say_shape("B", 7, 25), MASK),
    (empty, MASK),
    (store("decoder.1.fc1.B.mask", lambda tensors: tensors["decoder.1.fc1.B.mask"].to(torch.int8)), MASK),
    (store("decoder.1.fc1.B.mask", lambda tensors: tensors["decoder.1.fc1.B.mask"][None]), MASK),
    (lose("decoder.1.fc1.B.mask"), "decoder.1.fc1.B does not have the described shape"),
    (lose("decoder.1.fc1.A"), r"is damaged \(KeyError: 'decoder.1.fc1.A'\)"),
    (store(VALUES, lambda tensors: tensors[VALUES][1:]), "does not have one value for each entry that is kept"),
    (store(VALUES, lambda tensors: tensors[VALUES][:, None]), "RuntimeError: shape"),
    (store("decoder.1.fc1.B", lambda tensors: torch.ones(7, 22)), "fc1 does not have the described shape or dtype"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), DAMAGE)
def test_damage_is_named_with_the_file(tmp_path, change, words) -> None:
    path, _ = write_adapter_folder(make(0.5), tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(UserError, match=words) as refusal:
        read_adapter_file(tmp_path)
    assert str(refusal.value).count(str(path)) == 1
    assert "export it again" in str(refusal.value)


def test_matrix_that_is_stored_whole_has_its_own_size(tmp_path) -> None:
    write_adapter_folder(make(0), tmp_path)
    rewrite(tmp_path, store("decoder.1.fc1.B", lambda tensors: torch.ones(7, 22)))
    with pytest.raises(UserError, match=r"decoder\.1\.fc1\.B does not have the described shape"):
        read_adapter_file(tmp_path)


@pytest.mark.parametrize("mask", [0, 1])
@pytest.mark.parametrize("width", [1, 8])
def test_smallest_matrices_and_greatest_numbers_come_back(tmp_path, mask, width) -> None:
    site = Site("encoder", 0, "q")
    lives = torch.full((1, width), mask, dtype=torch.uint8)
    matrices = PackedMatrices(torch.ones(1, 1), lives.float(), lives)
    table = LanguageTable(("en",), ("high",), (1,))
    most = 2**31 - 1
    adapters = Adapters(table, {"encoder": ("src",), "decoder": ()}, most, most, {site: matrices}, most)
    write_adapter_folder(AdapterFile(adapters, "sha256:", {}), tmp_path)
    back = read_adapter_file(tmp_path).adapters
    assert (back.dim, back.start, back.mask_epoch) == (most, most, most)
    assert all(torch.equal(*both) for both in zip(back.packed[site], matrices, strict=True))


def test_views_are_written_as_what_they_show(tmp_path) -> None:
    content = make(0.5)
    matrices = {
        site: PackedMatrices(*(value.t().contiguous().t() for value in packed))
        for site, packed in content.adapters.packed.items()
    }
    assert not next(iter(matrices.values())).a.is_contiguous()
    write_adapter_folder(replace(content, adapters=replace(content.adapters, packed=matrices)), tmp_path)
    for site, packed in read_adapter_file(tmp_path).adapters.packed.items():
        assert all(map(torch.equal, packed, content.adapters.packed[site]))


def test_file_that_is_given_alone_is_read_whatever_lies_beside_it(tmp_path) -> None:
    path, config = write_adapter_folder(make(0.5), tmp_path)
    config.write_text("{")
    assert read_adapter_file(path).base == "sha256:" + "ab" * 32
    config.unlink()
    assert read_adapter_file(tmp_path).base == "sha256:" + "ab" * 32


def test_file_or_description_that_the_system_does_not_give_is_named(tmp_path, monkeypatch) -> None:
    path, config = write_adapter_folder(make(0.5), tmp_path)

    def fail(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", fail)
        with pytest.raises(UserError, match=rf"{config}: Permission denied; give a folder that 'langspec-lora export"):
            read_adapter_file(tmp_path)
    monkeypatch.setattr(adapter_file, "safe_open", fail)
    with pytest.raises(UserError, match=rf"{path} .*Permission denied"):
        read_adapter_file(path)
