"""The architectures, for ``--arch``: the published sizes of M2M100, a tiny one, and fairseq's own defaults."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from fairseq.models import register_model_architecture
from fairseq.models.transformer.transformer_legacy import base_architecture

from langspec_lora.models.transformer import NAME
from langspec_lora.sites import STACKS
from langspec_lora.sizes import M2M100, Size


def _set_size(args: Namespace, size: Size) -> None:
    for name, value in size.arguments().items():
        _set_default(args, name, value)
    for stack in STACKS:
        _set_default(args, f"{stack}_normalize_before", True)
    base_architecture(args)


def _set_default(args: Namespace, name: str, value: Any) -> None:
    if getattr(args, name, None) is None:
        setattr(args, name, value)


def _m2m100(args: Namespace, name: str) -> None:
    """Sets the sizes of an M2M100, and the attention dropout of its pretraining."""
    _set_default(args, "attention_dropout", 0.1)
    _set_size(args, M2M100[name])


@register_model_architecture(NAME, "langspec_m2m100_lora_base")
def langspec_m2m100_lora_base(args: Namespace) -> None:
    """M2M100 615M (flores101_mm100_615M) and 418M: 12+12 layers, 1024, 4096, 16 heads, pre-norm."""
    _m2m100(args, "langspec_m2m100_lora_base")


@register_model_architecture(NAME, "global_pruning_langspec_m2m100_lora_base")
def global_pruning_langspec_m2m100_lora_base(args: Namespace) -> None:
    """The released code's name for the architecture with pruning; the same model as ``langspec_m2m100_lora_base``."""
    langspec_m2m100_lora_base(args)


@register_model_architecture(NAME, "langspec_m2m100_lora_175m")
def langspec_m2m100_lora_175m(args: Namespace) -> None:
    """M2M100 175M (flores101_mm100_175M): 6+6 layers, 512, 2048, 16 heads, pre-norm."""
    _m2m100(args, "langspec_m2m100_lora_175m")


@register_model_architecture(NAME, "langspec_m2m100_lora_1_2b")
def langspec_m2m100_lora_1_2b(args: Namespace) -> None:
    """M2M100 1.2B: 24+24 layers, 1024, 8192, 16 heads, pre-norm."""
    _m2m100(args, "langspec_m2m100_lora_1_2b")


@register_model_architecture(NAME, "langspec_m2m100_lora_tiny")
def langspec_m2m100_lora_tiny(args: Namespace) -> None:
    """For tests and small experiments: 2+2 layers, 64, 128, 4 heads, pre-norm."""
    _set_size(args, Size(layers=2, width=64, ffn=128, heads=4))


@register_model_architecture(NAME, "langspec_transformer_lora")
def langspec_transformer_lora(args: Namespace) -> None:
    """fairseq's own defaults (6+6 layers, 512, 2048, 8 heads, post-norm), for other many-to-many Transformers."""
    base_architecture(args)
