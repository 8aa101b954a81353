"""Hugging Face's M2M100 with PEFT's LoRA, of the benchmark's shape."""

# Imports in functions: transformers and peft are an extra.

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from langspec_lora.benchmark.workload import Shape


def is_usable() -> bool:
    """Whether transformers and PEFT are installed, and this torch is new enough for them."""
    if not all(map(find_spec, ("transformers", "peft"))):
        return False
    from transformers import is_torch_available

    return is_torch_available()


def build_peft_model(shape: Shape, rank: int, device: torch.device) -> Any:
    """Builds a random M2M100 with one LoRA at the positions that the published command adapts.

    Args:
        shape: size of the model.
        rank: rank of the LoRA.
        device: where it is built.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import M2M100Config, M2M100ForConditionalGeneration

    size = shape.size
    config = M2M100Config(
        vocab_size=shape.vocabulary,
        d_model=size.width,
        encoder_layers=size.layers,
        decoder_layers=size.layers,
        encoder_ffn_dim=size.ffn,
        decoder_ffn_dim=size.ffn,
        encoder_attention_heads=size.heads,
        decoder_attention_heads=size.heads,
        dropout=0.1,
        attention_dropout=0.1,
        activation_dropout=0.0,
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
    )
    positions = ["q_proj", "k_proj", "v_proj", "fc1", "fc2"]
    lora = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=positions, task_type="SEQ_2_SEQ_LM")
    with device:
        model = M2M100ForConditionalGeneration(config)
    return get_peft_model(model, lora).to(device)
