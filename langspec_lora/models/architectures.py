"""The named sizes of M2M100."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from fairseq.models import register_model_architecture
from fairseq.models.transformer.transformer_legacy import base_architecture


def _size(args: Namespace, layers: int, width: int, ffn: int, heads: int) -> None:
    for stack in ("encoder", "decoder"):
        for key, value in {
            "layers": layers,
            "embed_dim": width,
            "ffn_embed_dim": ffn,
            "attention_heads": heads,
            "normalize_before": True,
        }.items():
            name = f"{stack}_{key}"
            _set_default(args, name, value)
    base_architecture(args)


def _set_default(args: Namespace, name: str, value: Any) -> None:
    if getattr(args, name, None) is None:
        setattr(args, name, value)


def _m2m100(args: Namespace, layers: int, width: int, ffn: int) -> None:
    """A size of M2M100, with the dropout of attention weights that it was pretrained with."""
    _set_default(args, "attention_dropout", 0.1)
    _size(args, layers, width, ffn, heads=16)


@register_model_architecture("langspec_m2m100_lora", "langspec_m2m100_lora_base")
def langspec_m2m100_lora_base(args: Namespace) -> None:
    """M2M100 615M (flores101_mm100_615M) and 418M: 12+12 layers, 1024, 4096, 16 heads, pre-norm."""
    _m2m100(args, layers=12, width=1024, ffn=4096)


@register_model_architecture("langspec_m2m100_lora", "global_pruning_langspec_m2m100_lora_base")
def global_pruning_langspec_m2m100_lora_base(args: Namespace) -> None:
    """The released code's name of the architecture with pruning; the same model."""
    langspec_m2m100_lora_base(args)


@register_model_architecture("langspec_m2m100_lora", "langspec_m2m100_lora_175m")
def langspec_m2m100_lora_175m(args: Namespace) -> None:
    """M2M100 175M (flores101_mm100_175M): 6+6 layers, 512, 2048, 16 heads, pre-norm."""
    _m2m100(args, layers=6, width=512, ffn=2048)


@register_model_architecture("langspec_m2m100_lora", "langspec_m2m100_lora_1_2b")
def langspec_m2m100_lora_1_2b(args: Namespace) -> None:
    """M2M100 1.2B: 24+24 layers, 1024, 8192, 16 heads, pre-norm."""
    _m2m100(args, layers=24, width=1024, ffn=8192)


@register_model_architecture("langspec_m2m100_lora", "langspec_m2m100_lora_tiny")
def langspec_m2m100_lora_tiny(args: Namespace) -> None:
    """For tests and small experiments: 2+2 layers, 64, 128, 4 heads, pre-norm."""
    _size(args, layers=2, width=64, ffn=128, heads=4)


@register_model_architecture("langspec_m2m100_lora", "langspec_transformer_lora")
def langspec_transformer_lora(args: Namespace) -> None:
    """fairseq's own defaults (6+6 layers, 512, 2048, 8 heads, post-norm), for other many-to-many Transformers."""
    base_architecture(args)
