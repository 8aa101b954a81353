"""What the outline of a checkpoint says: names, shapes, arguments, epoch and history, of every form of file."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch
from omegaconf import OmegaConf

from langspec_lora.checkpoints.outline import read_outline
from langspec_lora.errors import UserError
from tests.unit.checkpoints.test_safe_pickle import FORMATS, fairseq_state, is_refused, save


@pytest.mark.parametrize("form", FORMATS)
def test_shapes_arguments_and_epoch_come_back_as_saved(tmp_path, form) -> None:
    state = fairseq_state()
    outline = read_outline(save(state, tmp_path / "model.pt", form))
    assert outline.shapes == {name: tuple(value.shape) for name, value in state["model"].items()}
    assert outline.model_args.arch == "transformer_wmt_en_de_big"
    assert outline.model_args.lr == [0.1]
    assert outline.epoch == 4


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_every_pickle_protocol_is_read(tmp_path, form, protocol) -> None:
    state = {**fairseq_state(), "args": Namespace(seed=protocol)}
    path = tmp_path / "model.pt"
    torch.save(state, path, pickle_protocol=protocol, _use_new_zipfile_serialization=FORMATS[form])
    assert read_outline(path).model_args.seed == protocol


@pytest.mark.parametrize("form", FORMATS)
def test_arguments_are_found_in_the_settings_that_newer_fairseq_writes(tmp_path, form) -> None:
    state = {**fairseq_state(), "args": None, "cfg": {"model": Namespace(langs="en,fr"), "task": Namespace()}}
    assert read_outline(save(state, tmp_path / "model.pt", form)).model_args.langs == "en,fr"


@pytest.mark.parametrize("form", FORMATS)
def test_settings_saved_as_omegaconf_objects_are_no_reason_to_refuse(tmp_path, form) -> None:
    settings = OmegaConf.create({"common": {"seed": 1, "name": "x", "langs": ["en", None]}, "lr": [0.5], "flag": True})
    outline = read_outline(save({**fairseq_state(), "args": None, "cfg": settings}, tmp_path / "model.pt", form))
    assert outline.model_args is None
    assert len(outline.shapes) == 9


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "state", [{"weight": torch.zeros(2)}, torch.zeros(2), [], {"model": None}, {"model": [torch.zeros(2)]}]
)
def test_torch_file_that_is_no_checkpoint_of_fairseq_is_named_so(tmp_path, form, state) -> None:
    is_refused(save(state, tmp_path / "model.pt", form), "is not from fairseq: it holds no model", read_outline)


@pytest.mark.parametrize(
    ("state", "seed"),
    [
        ({"args": Namespace(seed=1), "cfg": {"model": Namespace(seed=2)}}, 1),
        ({"args": None, "cfg": {"model": Namespace(seed=2)}}, 2),
        ({"args": {"seed": 1}, "cfg": {"model": Namespace(seed=2)}}, 2),
        ({"args": None, "cfg": {"model": {"seed": 2}}}, None),
        ({"args": None, "cfg": {}}, None),
        ({"cfg": Namespace(model=Namespace(seed=2))}, None),
        ({}, None),
    ],
)
def test_arguments_are_the_legacy_ones_before_those_of_the_settings(tmp_path, state, seed) -> None:
    args = read_outline(save({"model": {}, **state}, tmp_path / "a.pt")).model_args
    assert (args is None) if seed is None else (args.seed == seed)


@pytest.mark.parametrize(
    ("extra", "epoch"),
    [
        ({"train_iterator": {"epoch": 4}}, 4),
        ({"train_iterator": {"epoch": 0}}, 0),
        *(({"train_iterator": {"epoch": epoch}}, None) for epoch in ("4", 4.0, None)),
        *(
            (extra, None)
            for extra in ({"train_iterator": {}}, {"train_iterator": None}, {"train_iterator": [4]}, {}, None, [4])
        ),
    ],
)
def test_epoch_is_a_whole_number_or_none(tmp_path, extra, epoch) -> None:
    assert read_outline(save({"model": {}, "extra_state": extra}, tmp_path / "a.pt")).epoch == epoch


LAST = {"criterion_name": "X", "num_updates": 3}
GROUP = {"lr": 0.1, "betas": (0.9, 0.98)}


@pytest.mark.parametrize(
    ("history", "optimizer", "expected"),
    [
        ([{"num_updates": 1}, LAST], {"param_groups": [GROUP, {"lr": 9}]}, {**LAST, "options": GROUP}),
        *(([LAST], state, {**LAST, "options": {}}) for state in ({}, {"param_groups": []}, {"param_groups": [3]})),
        ([LAST], {"param_groups": {"lr": 1}}, {**LAST, "options": {}}),
        *((history, {"param_groups": [GROUP]}, None) for history in (None, [], [None], {}, {-1: LAST})),
        *(([LAST], state, None) for state in (None, [])),
    ],
)
def test_history_is_the_last_entry_and_the_first_group_s_options(tmp_path, history, optimizer, expected) -> None:
    state = {"model": {}, "optimizer_history": history, "last_optimizer_state": optimizer}
    assert read_outline(save(state, tmp_path / "a.pt")).history == expected


def test_entries_that_are_no_tensors_have_no_shape(tmp_path) -> None:
    outline = read_outline(save({"model": {"x": torch.zeros(2), "note": "text", "n": 3}}, tmp_path / "a.pt"))
    assert outline.shapes == {"x": (2,)}
    assert outline.path == tmp_path / "a.pt"


def test_argument_whose_name_is_no_text_is_damage(tmp_path) -> None:
    args = Namespace(encoder_layers=2)
    vars(args)[7] = 1
    torch.save({"args": args, "model": {"x": torch.zeros(1)}}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"x\.pt is damaged: an argument of its model has no name"):
        read_outline(tmp_path / "x.pt")
