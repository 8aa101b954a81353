"""Hugging Face's M2M100 with PEFT's LoRA, of the benchmark's shape; needs transformers and peft."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import M2M100Config, M2M100ForConditionalGeneration

from langspec_lora.benchmark.contenders import BEAM, HYPOTHESIS, Setting, Update
from langspec_lora.benchmark.workload import make_batch


def build_model(setting: Setting) -> Any:
    """Builds a random M2M100 with one LoRA of the mean rank at the positions that the published command adapts."""
    size = setting.shape.size
    config = M2M100Config(
        vocab_size=setting.shape.vocabulary,
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
    rank = setting.mean_rank
    lora = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=positions, task_type="SEQ_2_SEQ_LM")
    with setting.device:
        model = M2M100ForConditionalGeneration(config)
    return get_peft_model(model, lora).to(setting.device)


class PeftUpdate(Update):
    """Training of one LoRA by PEFT."""

    def loss(self, batch: dict) -> Tensor:
        """The model's own loss of a batch, summed over its tokens."""
        sources, targets = batch["net_input"]["src_tokens"], batch["target"]
        output = self.model(
            input_ids=sources,
            attention_mask=sources.ne(1),
            decoder_input_ids=batch["net_input"]["prev_output_tokens"],
            labels=targets.masked_fill(targets.eq(1), -100),
        )
        return output.loss * batch["ntokens"]


class PeftTranslation:
    """Translates a batch at beam 5 with Hugging Face's generation, LoRA beside the weights."""

    def __init__(self, setting: Setting) -> None:
        self.model = build_model(setting).eval()
        if setting.amp:
            self.model.half()
        batch = make_batch(setting.shape, setting.languages, False, 0, setting.device)
        self._sources = batch["net_input"]["src_tokens"]
        self.tokens = batch["nsentences"] * HYPOTHESIS

    @torch.no_grad()
    def __call__(self) -> None:
        """Translates the batch."""
        self.model.generate(
            input_ids=self._sources,
            attention_mask=self._sources.ne(1),
            num_beams=BEAM,
            do_sample=False,
            max_new_tokens=HYPOTHESIS,
            min_new_tokens=HYPOTHESIS,
        )
