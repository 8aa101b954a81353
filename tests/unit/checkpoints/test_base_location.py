"""Whether checkpoints are saved without their base, and where the base is."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import torch

from langspec_lora.checkpoints.base_location import settle_base
from langspec_lora.errors import UserError

WEIGHTS = {"encoder.embed_tokens.weight": torch.ones(2, 3)}
LEAN = {"adapters.base": torch.ones(71, dtype=torch.int64)}


@pytest.fixture
def save_dir(tmp_path: Path) -> Path:
    """An empty folder to save in."""
    (tmp_path / "save").mkdir()
    return tmp_path / "save"


def save(path: Path, model: dict[str, torch.Tensor], **args: object) -> str:
    torch.save({"model": model, "args": Namespace(**args)}, path)
    return str(path)


def settled(save_dir: Path, frozen: bool = True, **flags: object) -> tuple[bool, str | None]:
    """What is decided: whether only adapters are saved, and where their base lies."""
    given = {"restore_file": "checkpoint_last.pt", "save_dir": str(save_dir), "finetune_from_model": None}
    given |= {"reset_optimizer": False, "base_checkpoint": None, "save_adapters_only": None}
    args = Namespace(**{**given, **flags})
    settle_base(args, frozen)
    return args.save_adapters_only, args.base_checkpoint


def refusal(save_dir: Path, frozen: bool = True, **flags: object) -> str:
    with pytest.raises(UserError) as refused:
        settled(save_dir, frozen, **flags)
    return str(refused.value)


def test_base_that_stays_is_left_out_where_it_is_frozen(tmp_path, save_dir, monkeypatch) -> None:
    base = save(tmp_path / "base.pt", WEIGHTS)
    assert settled(save_dir, finetune_from_model=base) == (True, base)
    assert settled(save_dir, finetune_from_model=base, save_adapters_only=True) == (True, base)
    assert settled(save_dir, finetune_from_model=base, save_adapters_only=False) == (False, base)
    assert settled(save_dir, frozen=False, finetune_from_model=base) == (False, base)
    monkeypatch.chdir(tmp_path)
    assert settled(save_dir, finetune_from_model="base.pt") == (True, base)
    (tmp_path / "link.pt").symlink_to(base)
    assert settled(save_dir, finetune_from_model="link.pt") == (True, str(tmp_path / "link.pt"))


def test_only_adapters_cannot_be_saved_where_the_base_trains_or_is_in_no_file(tmp_path, save_dir) -> None:
    base = save(tmp_path / "base.pt", WEIGHTS)
    wanted = {"save_adapters_only": True}
    assert "but the base is trained as well; leave it out, or freeze the base" in refusal(
        save_dir, frozen=False, finetune_from_model=base, **wanted
    )
    needs = "--save-adapters-only True needs a permanent base file; start with --finetune-from-model"
    assert settled(save_dir) == (False, None)
    assert refusal(save_dir, **wanted) == needs
    assert settled(save_dir, restore_file=base) == (False, None)
    assert refusal(save_dir, restore_file=base, reset_optimizer=True, **wanted) == needs
    last = ", since the checkpoint to resume from holds its base"
    assert refusal(save_dir, restore_file=base, **wanted) == needs + last
    save(save_dir / "checkpoint_last.pt", WEIGHTS)
    assert settled(save_dir, finetune_from_model=base) == (False, None)
    assert refusal(save_dir, finetune_from_model=base, **wanted) == needs + last


@pytest.mark.parametrize("name", ["checkpoint_best.pt", "checkpoint1.pt", "checkpoint.pt"])
def test_base_under_a_name_that_fairseq_writes_is_saved_along(tmp_path, save_dir, name) -> None:
    base = save(save_dir / name, WEIGHTS)
    (tmp_path / "link.pt").symlink_to(base)
    (tmp_path / "folder").symlink_to(save_dir)
    for path in (base, str(tmp_path / "link.pt"), str(tmp_path / "folder" / name)):
        assert settled(save_dir, finetune_from_model=path) == (False, path)
        message = refusal(save_dir, finetune_from_model=path, save_adapters_only=True)
        assert f"but {path} is in --save-dir, where fairseq may overwrite or delete it; move it" in message
        assert settled(tmp_path / "folder", finetune_from_model=path)[0] is False


def test_link_in_the_folder_is_overwritten_as_well(tmp_path, save_dir) -> None:
    base = save(tmp_path / "base.pt", WEIGHTS)
    (save_dir / "checkpoint2.pt").symlink_to(base)
    assert settled(save_dir, finetune_from_model=str(save_dir / "checkpoint2.pt"))[0] is False


def test_base_under_another_name_or_in_another_folder_stays(tmp_path, save_dir) -> None:
    inside, outside = save(save_dir / "model.pt", WEIGHTS), save(tmp_path / "checkpoint_best.pt", WEIGHTS)
    text = save(save_dir / "checkpoint.pt.bak", WEIGHTS)
    (tmp_path / "checkpoint3.pt").symlink_to(inside)
    for path in (inside, outside, text, str(tmp_path / "checkpoint3.pt")):
        assert settled(save_dir, finetune_from_model=path) == (True, path)


def test_start_without_its_base_says_where_that_lies(tmp_path, save_dir) -> None:
    base, other, named = (save(tmp_path / name, WEIGHTS) for name in ("base.pt", "other.pt", "named.pt"))
    lean = save(tmp_path / "lean.pt", LEAN, base_checkpoint=base)
    assert settled(save_dir, finetune_from_model=lean) == (True, base)
    assert settled(save_dir, finetune_from_model=lean, base_checkpoint=named) == (True, named)
    last = save(save_dir / "checkpoint_last.pt", LEAN, base_checkpoint=base)
    assert settled(save_dir, finetune_from_model=other) == (True, base)
    Path(base).unlink()
    assert settled(save_dir, finetune_from_model=other) == (True, other)  # where the training says that it starts
    assert settled(save_dir) == (True, base)  # which is named as missing later
    assert settled(save_dir, finetune_from_model=last) == (True, base)  # not the start itself
    save(save_dir / "checkpoint_last.pt", LEAN)
    assert settled(save_dir) == (False, None)
    assert settled(save_dir, finetune_from_model=other) == (True, other)


def test_base_beside_a_start_that_holds_its_own_is_refused(tmp_path, save_dir) -> None:
    base = save(tmp_path / "base.pt", WEIGHTS)
    for flags in ({}, {"finetune_from_model": base}, {"restore_file": base}):
        message = refusal(save_dir, base_checkpoint=base, **flags)
        assert message.startswith(f"--base-checkpoint {base} is for checkpoints that hold adapters only, and this")
        assert message.endswith("leave it out, or give it as --finetune-from-model")
