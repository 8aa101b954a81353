"""Flags of stock fairseq that go wrong beside adapters, or on a machine without a GPU."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from fairseq.modules.quant_noise import quant_noise

from langspec_lora.errors import UserError
from langspec_lora.tasks.checks.unsupported_flags import check_beside_adapters
from tests import toy
from tests.bad_input import STOCK, refusal_of

BESIDE = [
    (["--store-ema"], "--store-ema averages weights only"),
    (["--quant-noise-pq", "0.1"], "--quant-noise-pq 0.1 permanently sets weights of the base to zero"),
    (["--quant-noise-scalar", "0.5"], "--quant-noise-scalar 0.5 quantises only fairseq's layer classes"),
    (["--ddp-backend", "fully_sharded"], "--ddp-backend fully_sharded splits parameters"),
    (["--zero-sharding", "os"], "--zero-sharding os splits parameters"),
    (["--ddp-backend", "slowmo"], "--ddp-backend slowmo lets the weights of the processes differ between updates"),
    (["--use-bmuf"], "--use-bmuf lets the weights of the processes differ between updates"),
]
PRECISION = [
    (["--fp16", "--cpu"], "--fp16 needs a CUDA GPU, but --cpu was given; leave it out"),
    (["--bf16", "--cpu"], "--bf16 means a TPU in fairseq, but torch_xla is not installed; on a GPU give --amp"),
    (["--memory-efficient-bf16"], "--memory-efficient-bf16 means a TPU"),
    (["--tpu"], "--tpu means a TPU"),
    (["--fp16", "--amp"], "--fp16 and --amp were both given"),
]


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize(("flags", "words"), [*BESIDE, *PRECISION])
def test_flag_that_cannot_work_is_refused_before_a_model_is_built(toy_data, tmp_path, flags, words) -> None:
    save = ["--save-dir", str(tmp_path)]
    assert words in refusal_of(toy.build, toy.plugin_flags(toy_data, *save, *flags))


@pytest.mark.parametrize("flags", [flags for flags, _ in BESIDE])
def test_flag_is_accepted_without_adapters(toy_data, tmp_path, flags) -> None:
    stock = ["--task", "translation_multi_simple_epoch_lora", *STOCK[2:], "--save-dir", str(tmp_path)]
    toy.build(toy.base_flags(toy_data, *stock, *flags))


@pytest.mark.usefixtures("unbuilt")
def test_half_precision_needs_a_gpu_that_torch_finds(toy_data, tmp_path, monkeypatch) -> None:
    flags = toy.plugin_flags(toy_data, "--save-dir", str(tmp_path), "--fp16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--fp16 needs a CUDA GPU, but torch finds none; leave it out" in refusal_of(toy.build, flags)


@pytest.mark.parametrize("flags", [[], ["--memory-efficient-fp16"], ["--fp16", "--fp16-no-flatten-grads"], ["--amp"]])
def test_precision_that_a_cpu_supports_is_accepted(toy_data, tmp_path, flags) -> None:
    toy.build(toy.plugin_flags(toy_data, "--save-dir", str(tmp_path), "--cpu", *flags))


def test_attention_of_xformers_is_refused(toy_data, tmp_path) -> None:
    args = toy.parse(toy.plugin_flags(toy_data, "--save-dir", str(tmp_path)))
    args.xformers_att_config = json.dumps({"name": "scaled_dot_product"})
    with pytest.raises(UserError, match=r"--xformers-att-config .* replaces the attention modules"):
        check_beside_adapters(args)


def test_noise_of_quantisation_would_destroy_a_frozen_base() -> None:
    """Why it is refused: fairseq's hook overwrites the weights themselves at each training step."""
    linear = torch.nn.Linear(16, 16)
    before = copy.deepcopy(linear.weight.data)
    noisy = quant_noise(linear, 0.5, 8).train()
    with torch.no_grad():
        noisy(torch.ones(1, 16))
    assert (noisy.weight.data == 0).any()
    assert not torch.equal(noisy.eval().weight.data, before)
