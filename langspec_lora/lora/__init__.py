"""The mathematics of language-specific LoRA; knows torch and not fairseq."""

from langspec_lora.lora.adam import LanguageAdam, Packed, packed_parameters
from langspec_lora.lora.freezing import FrozenLanguages
from langspec_lora.lora.linear import INITS, LanguageSpecificLinear, draw_a
from langspec_lora.lora.merge import MergedWeights, add_pair, merged_weight
from langspec_lora.lora.routing import DIRECTIONS, SOURCE, TARGET, LanguageRouting, Languages, PairLayout

__all__ = [
    "DIRECTIONS",
    "INITS",
    "SOURCE",
    "TARGET",
    "FrozenLanguages",
    "LanguageAdam",
    "LanguageRouting",
    "LanguageSpecificLinear",
    "Languages",
    "MergedWeights",
    "Packed",
    "PairLayout",
    "add_pair",
    "draw_a",
    "merged_weight",
    "packed_parameters",
]
