"""The mathematics of language-specific LoRA; imports torch, but not fairseq."""

from langspec_lora.lora.factors import row_factors, times
from langspec_lora.lora.freezing import FrozenKeys
from langspec_lora.lora.injection import adapted_linears, adapter_parameters, inject, mark_trainable, merge, remove
from langspec_lora.lora.language_adam import LanguageAdam, Packed, packed_parameters
from langspec_lora.lora.linear import LanguageSpecificLinear, draw_a
from langspec_lora.lora.merging import MergedWeights, add_low_rank, merged_weight
from langspec_lora.lora.mixture import SideMixture
from langspec_lora.lora.principal import set_principal
from langspec_lora.lora.routing import LanguageRouting, Languages

__all__ = [
    "FrozenKeys",
    "LanguageAdam",
    "LanguageRouting",
    "LanguageSpecificLinear",
    "Languages",
    "MergedWeights",
    "Packed",
    "SideMixture",
    "adapted_linears",
    "adapter_parameters",
    "add_low_rank",
    "draw_a",
    "inject",
    "mark_trainable",
    "merge",
    "merged_weight",
    "packed_parameters",
    "remove",
    "row_factors",
    "set_principal",
    "times",
]
