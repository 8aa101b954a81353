"""Exported PEFT adapters of several directions in one ``PeftModel``, switched as its users switch them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from langspec_lora.cli.main import main
from tests import hf, toy
from tests.bad_input import write_checkpoint

peft = pytest.importorskip("peft", reason="needs the extra hf: peft is not installed")

DIRECTIONS = [("en", "wo"), ("wo", "nl"), ("nl", "en")]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory) -> tuple[hf.Home, nn.Module, Path]:
    """A random model in both forms, its adapters in fairseq, and their checkpoint."""
    folder = tmp_path_factory.mktemp("home")
    home = hf.write_home(folder, "even")
    flags = hf.adapted_flags(home, "--encoder-activation-direction", "src_tgt")
    _, model = toy.build(flags)
    model.load_state_dict(torch.load(home.fairseq / "model.pt", weights_only=False)["model"])
    toy.randomise_adapters(model)
    checkpoint = write_checkpoint(folder / "own.pt", flags, lambda state: state.update(model=model.state_dict()))
    return home, model.eval(), checkpoint


@torch.no_grad()
def our_logits(model: nn.Module, batch: hf.Batch, source: str, target: str) -> Tensor:
    ids = {"src_lang_id": source, "tgt_lang_id": target}
    ids = {key: torch.full((len(batch.left), 1), toy.LANGUAGES.index(name)) for key, name in ids.items()}
    return model(batch.left, batch.lengths, batch.targets, **ids)[0][batch.targets.ne(1)]


@torch.no_grad()
def their_logits(model: nn.Module, batch: hf.Batch) -> Tensor:
    output = model(input_ids=batch.right, attention_mask=batch.right.ne(1).long(), decoder_input_ids=batch.targets)
    return output.logits[batch.targets.ne(1)]


def test_each_adapter_of_one_peft_model_computes_its_own_direction(adapted, tmp_path) -> None:
    home, own, checkpoint = adapted
    for source, target in DIRECTIONS:
        direction = ["-s", source, "-t", target, "--out", tmp_path / f"{source}-{target}"]
        assert main([str(word) for word in ["export", checkpoint, "--format", "peft", *direction]]) == 0
    base = hf.transformers.M2M100ForConditionalGeneration.from_pretrained(home.huggingface).eval()
    first, *others = ("-".join(direction) for direction in DIRECTIONS)
    model = peft.PeftModel.from_pretrained(base, tmp_path / first, adapter_name=first)
    for name in others:
        model.load_adapter(tmp_path / name, adapter_name=name)
    model.eval()
    language = {name: hf.language_token(home, name) for name in ("en", "wo", "nl", "af")}
    # One batch for all, so that the adapters alone make the difference.
    batch = hf.random_batch(language["en"], language["wo"], vocabulary=language["af"], sentences=16)
    for source, target in [*DIRECTIONS, *reversed(DIRECTIONS)]:
        model.set_adapter(f"{source}-{target}")
        expected = our_logits(own, batch, source, target)
        torch.testing.assert_close(their_logits(model, batch), expected, atol=1e-4, rtol=0)
        for other in DIRECTIONS:
            if other != (source, target):
                assert (expected - our_logits(own, batch, *other)).abs().max() > 0.1
    with model.disable_adapter():
        toy.randomise_adapters(own, scale=0)
        torch.testing.assert_close(their_logits(model, batch), our_logits(own, batch, "en", "wo"), atol=1e-4, rtol=0)
