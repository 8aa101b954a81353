"""``langspec-lora inspect``: its counts against plain loops over the checkpoint, and its pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from langspec_lora.cli.main import main
from tests import toy
from tests.bad_input import STOCK, write_checkpoint
from tests.integration.test_export import refusal

RANKS = {"en": 2, "fr": 2, "nl": 3, "wo": 4, "sd": 4}


@pytest.fixture(scope="module")
def checkpoint(toy_data, tmp_path_factory) -> Path:
    """Pairs whose pruned share differs by language, layer and position."""

    def fill(state: dict) -> None:
        torch.manual_seed(9)
        for number, (name, mask) in enumerate(state["model"].items()):
            if name.endswith("lora_mask"):
                mask.bernoulli_((number % 7 + 1) / 9)
                state["model"][name.replace("mask", "B")].normal_().masked_fill_(mask == 0, 0)
        state["model"]["adapters.mask_epoch"].fill_(5)

    pruning = ("--pruning", "True", "--pruning-t1", "1", "--pruning-t2", "4", "--target-pruning-ratio", "0.6")
    return write_checkpoint(tmp_path_factory.mktemp("i") / "checkpoint5.pt", toy.plugin_flags(toy_data, *pruning), fill)


def inspected(path: Path, capsys) -> dict:
    assert main(["inspect", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_counts_are_those_of_a_loop_over_the_checkpoint(checkpoint, toy_data, capsys) -> None:
    found = inspected(checkpoint, capsys)
    state = torch.load(checkpoint, weights_only=False)["model"]
    _, model = toy.build(toy.plugin_flags(toy_data))
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert found["trainable"] == found["adapters"]["parameters"] == trainable
    assert found["base"]["parameters"] == sum(p.numel() for p in model.parameters()) - trainable
    assert found["adapters"]["pruning"] == {
        "mask_epoch": 5,
        "trained_with": {
            **{"start": 1, "length": 4, "target": 0.6, "scope": "language"},
            **{"criterion": "magnitude", "matrices": "b", "unit": "entry"},
        },
    }

    expected: dict[tuple, list[int]] = {}
    short = {"self_attn.q_proj": "q", "self_attn.k_proj": "k", "self_attn.v_proj": "v", "fc1": "fc1", "fc2": "fc2"}
    short |= {f"encoder_attn.{x}_proj": f"cross{x}" for x in "qkv"}
    for name in (name for name in state if name.endswith("lora_A")):
        stack, layer, linear = re.fullmatch(r"(\w+)\.layers\.(\d+)\.(.+)\.lora_A", name).groups()
        row = 0
        for language, rank in RANKS.items():
            a, b, mask = (state[name[:-1] + part][row : row + rank].flatten().tolist() for part in ("A", "B", "mask"))
            row += rank
            counts = [len(a) + len(b), sum(x != 0 for x in a + b), len(b), sum(mask)]
            for key in (("languages", language), ("layers", stack, int(layer)), ("positions", stack, short[linear])):
                expected[key] = [x + y for x, y in zip(expected.get(key, [0] * 4), counts, strict=True)]
    keys = {"languages": ("name",), "layers": ("stack", "layer"), "positions": ("stack", "position")}
    actual = {
        (group, *(entry[name] for name in names)): [
            entry[kind] for kind in ("parameters", "nonzero", "prunable", "living")
        ]
        for group, names in keys.items()
        for entry in found["adapters"][group]
    }
    assert actual == expected
    levels = {entry["level"]: entry["parameters"] for entry in found["adapters"]["levels"]}
    per_rank = trainable // sum(RANKS.values())
    assert levels == {"high": 4 * per_rank, "med": 3 * per_rank, "low": 8 * per_rank}


def test_terminal_says_ranks_directions_and_pruning(checkpoint, capsys) -> None:
    assert main(["inspect", str(checkpoint)]) == 0
    text = capsys.readouterr().out
    assert re.search(r"\| nl +\| +med \| +3 \|", text)
    assert "encoder layers are selected by src (0), tgt (1)" in text
    assert "decoder layers are selected by tgt (0 to 1)" in text
    assert "masks of epoch 5; trained to prune 60 % by epoch 5, from epoch 1 (scope language)" in text


def test_ranks_that_are_left_are_said_where_whole_components_are_pruned(toy_data, tmp_path, capsys) -> None:
    def fill(state: dict) -> None:
        for name, mask in state["model"].items():
            if name.endswith("lora_mask"):
                mask[[0, 3, 7, 8, 11]] = 0  # one of en's two and of fr's, two of wo's four, one of sd's
                if name.startswith("decoder.layers.1.fc2"):
                    mask[:2] = 0  # all of en's
                state["model"][name.replace("mask", "B")].normal_().masked_fill_(mask == 0, 0)

    pruning = ("--pruning", "True", "--pruning-unit", "rank", "--pruning-criterion", "random")
    path = write_checkpoint(tmp_path / "checkpoint5.pt", toy.plugin_flags(toy_data, *pruning), fill)
    adapters = inspected(path, capsys)["adapters"]
    sites = len(adapters["pairs"]) // 5
    left = {entry["name"]: entry["living_components"] for entry in adapters["languages"]}
    assert left == {"en": sites - 1, "fr": sites, "nl": 3 * sites, "wo": 2 * sites, "sd": 3 * sites}
    assert {entry["components"] for entry in adapters["languages"]} == {2 * sites, 3 * sites, 4 * sites}
    assert main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    assert re.search(r"\| sd .*\| 3.00 of 4 +\|", text)
    assert re.search(r"\| en .*\| 0.9\d of 2 +\|", text)
    assert "(scope language, criterion random, unit rank)" in text


def test_adapter_folder_gives_the_same_counts(checkpoint, tmp_path, capsys) -> None:
    main(["export", str(checkpoint), "--format", "adapter", "--out", str(tmp_path / "a")])
    capsys.readouterr()
    own, exported = (inspected(path, capsys)["adapters"] for path in (checkpoint, tmp_path / "a"))
    own["pruning"]["trained_with"] = None  # flags of the training, which an adapter does not keep
    assert exported == own


def test_a_base_model_has_no_adapters_and_no_pictures_of_them(toy_data, tmp_path, capsys) -> None:
    path = write_checkpoint(tmp_path / "base.pt", toy.base_flags(toy_data, *STOCK))
    found = inspected(path, capsys)
    assert found["adapters"] is None
    _, model = toy.build(toy.plugin_flags(toy_data, "--add-lora", "False"))
    assert found["base"]["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert "holds no adapters" in refusal("inspect", path, "--out", tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


def test_pictures_hold_every_language_and_value_and_are_the_same_each_time(checkpoint, tmp_path, capsys) -> None:
    for name in ("one", "two"):
        assert main(["inspect", str(checkpoint), "--out", str(tmp_path / name)]) == 0
    names = {"survival.position.png", "survival.position.svg", "survival.layer.png", "survival.layer.svg"}
    assert {path.name for path in (tmp_path / "one").iterdir()} == names
    for name in names:
        content = (tmp_path / "one" / name).read_bytes()
        assert content == (tmp_path / "two" / name).read_bytes()
        assert content.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
    state = torch.load(checkpoint, weights_only=False)["model"]
    masks = [value[:2] for name, value in state.items() if re.match(r"decoder\.layers\.1\..*lora_mask", name)]
    share = 100 * sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)  # of en
    picture = (tmp_path / "one" / "survival.layer.svg").read_text()
    for text in ("en", "sd", "encoder", "decoder", "low", f"{share:.1f}"):
        assert f"<!-- {text} -->" in picture
