"""The flags that the plugin adds to fairseq's commands, each declared once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from langspec_lora.keys import ADAPTER_KEYS
from langspec_lora.languages import DEFAULT_RANKS
from langspec_lora.pruning.choices import CRITERIA, TARGETS, UNITS
from langspec_lora.pruning.scopes import SCOPES
from langspec_lora.scaling import LEAST, MOST, SCALINGS, is_alpha
from langspec_lora.settings import FlagRow, add_flags, flag, flag_rows
from langspec_lora.sites import INITS, POSITIONS

ABSENT = ("rest", "move")
DIRECTIONS = SOFT, ARGMAX = ("soft", "argmax")


def _rank(level: str) -> Any:
    return flag(DEFAULT_RANKS[level], f"rank of the adapters of {level}-resource languages", "R")


def _layers(stack: str) -> Any:
    help = f"{stack} layers to adapt, joined by _; 'none' adapts none"
    return flag(None, help, "0_1_…", default_text="all")


def _positions(stack: str) -> Any:
    help = f"positions to adapt, joined by _, of {' '.join(POSITIONS[stack])}"
    return flag(None, help, "q_k_…", default_text="all")


def _sides(stack: str, default: str) -> Any:
    help = (
        f"for each {stack} layer, what selects the adapter: the source language (src), the target language (tgt), the "
        "direction (direction) or nothing (shared)"
    )
    return flag(None, help, "src_…_tgt", default_text=default)


def base_flag() -> Any:
    """``--base-checkpoint`` as a field, for every command that reads checkpoints."""
    return flag(
        None, "the base of checkpoints that hold adapters only", "FILE", default_text="the file that training used"
    )


def directions_flag() -> Any:
    """``--directions`` as a field, for every command that translates."""
    return flag(
        "soft",
        "with learned directions: soft mixes the adapters of source and target as in training; argmax leaves out in "
        "each layer the one of smaller weight",
        choices=DIRECTIONS,
    )


@dataclass(frozen=True)
class AdapterFlags:
    """The model's flags, by the names that its checkpoints store."""

    add_lora: bool = flag(
        True,
        "add language-specific adapters; False keeps the plain model, for full fine-tuning with the same task",
        "BOOL",
    )
    freeze_original_parameters: bool | None = flag(
        None, "train only the adapters", "BOOL", default_text="True with --add-lora True"
    )
    train_parts: str | None = flag(
        None,
        "with --freeze-original-parameters False, train only these parts of the base: encoder, decoder, embeddings",
        "A,B",
        default_text="all",
    )
    train_languages: str | None = flag(
        None,
        "train only the adapters of these languages; all others, and so all directions between them, stay the same",
        "A,B",
        default_text="all",
    )
    lang_resources: str | None = flag(
        None,
        "YAML file of resource levels: 'high: [en, fr]', 'med: …', 'low: …', optionally 'ranks: {wo: 16}'",
        "FILE",
        default_text="the paper's twelve languages",
    )
    adapter_key: str = flag(
        "language",
        "what an adapter belongs to: a language, a group of --lang-groups, a direction of --lang-pairs (with the "
        "larger of its languages' ranks), or all languages (shared)",
        "|".join(ADAPTER_KEYS),
    )
    lang_groups: str | None = flag(
        None,
        "YAML file of groups for --adapter-key group: 'romance: [fr, it, oc]', …, optionally 'ranks: {romance: 16}'",
        "FILE",
        default_text="none; a group's rank is the sum of its languages'",
    )
    shared_rank: int | None = flag(
        None, "rank of the adapter that all languages share", "R", default_text="the sum of all languages' ranks"
    )
    high_rank: int = _rank("high")
    med_rank: int = _rank("med")
    low_rank: int = _rank("low")
    save_adapters_only: bool | None = flag(
        None,
        "save checkpoints without the frozen base, which is then read from its own file",
        "BOOL",
        default_text="True if the base is frozen and came from --finetune-from-model",
    )
    encoder_lora_layer: str | None = _layers("encoder")
    encoder_lora_position: str | None = _positions("encoder")
    encoder_activation_direction: str | None = _sides("encoder", "src in the first three quarters, tgt after")
    decoder_lora_layer: str | None = _layers("decoder")
    decoder_lora_position: str | None = _positions("decoder")
    decoder_activation_direction: str | None = _sides("decoder", "tgt")
    weight_learning: bool = flag(
        False,
        "learn in each layer how much the source's and the target's adapter count, instead of fixing one of them",
        "BOOL",
    )
    weight_learning_lr: float | None = flag(
        None,
        "learning rate of these weights at the start; it follows the schedule",
        "LR",
        default_text="--lr",
        valid=lambda rate: 0 < rate < math.inf,
        expected="a learning rate above 0, such as 0.01",
    )
    language_num: int | None = flag(None, "number of languages; checked against --langs", "N")
    dim: int = flag(
        0, "adapt only D features, from S on, of each layer's input and output", "D", default_text="0, the whole layer"
    )
    start_idx: int = flag(0, "first feature that --dim adapts", "S")
    lora_alpha: float | None = flag(
        None,
        "multiply the product of each adapter, of rank r, by A/r, or as --lora-scaling says",
        "A",
        default_text="no factor, as in the released code",
        valid=is_alpha,
        expected=f"a number from {LEAST:g} to {MOST:g}, such as 16",
    )
    lora_scaling: str | None = flag(
        None,
        "the factor of --lora-alpha A: rank is A/r (LoRA), root is A/√r (rsLoRA), constant is A, with which "
        "B learns A times as fast (LoRA+)",
        "|".join(SCALINGS),
        default_text="rank",
    )
    lora_init: str = flag(
        "rank",
        "rank draws A from U(-1/√r, 1/√r), as the released code does and the published learning rate needs; standard "
        "draws it from U(-1/√d, 1/√d), as LoRA usually does; principal starts it in the base weight's "
        "principal directions, its top right singular vectors",
        "|".join(INITS),
    )
    lora_dropout: float = flag(
        0.0,
        "in training, dropout of what A reads",
        "P",
        valid=lambda share: 0 <= share < 1,
        expected="a share from 0 to below 1, such as 0.1",
    )


@dataclass(frozen=True)
class PruningFlags:
    """The task's flags for pruning."""

    pruning: bool = flag(False, "prune the adapters gradually while training", "BOOL")
    pruning_t1: int = flag(
        2,
        "epoch at which pruning starts",
        "EPOCH",
        valid=lambda epoch: epoch >= 0,
        expected="the epoch at which pruning starts, 0 or later",
    )
    pruning_t2: int = flag(
        10,
        "number of epochs until the target is reached",
        "EPOCHS",
        valid=lambda epochs: epochs >= 1,
        expected="the number of epochs until the target, at least 1",
    )
    target_pruning_ratio: float = flag(
        0.9,
        "share of B's entries (or of components) pruned at the end",
        "P",
        valid=lambda share: 0 <= share < 1,
        expected="a share from 0 to below 1, such as 0.9",
    )
    pruning_scope: str | None = flag(
        None,
        "which entries of B compete: those of a language, of a layer, or of one matrix",
        "|".join(SCOPES),
        default_text="language",
    )
    pruning_criterion: str = flag(
        CRITERIA[0],
        "what is pruned first: entries of small magnitude, random ones (a control), or those of small |w·g|, the "
        "first-order estimate of what the loss loses, from Adam's running mean of squared gradients",
        "|".join(CRITERIA),
    )
    pruning_target: str = flag(
        TARGETS[0],
        "which matrices are pruned: B, or A as well, whose entries compete among themselves",
        "|".join(TARGETS),
    )
    pruning_unit: str = flag(
        UNITS[0],
        "what is pruned as a whole: an entry, or a component of an adapter's rank, so that exports have lower ranks",
        "|".join(UNITS),
    )
    global_pruning: bool = flag(False, "the released code's name for --pruning True", "BOOL")
    cross_language: bool = flag(False, "the released code's name for --pruning-scope layer", "BOOL")


@dataclass(frozen=True)
class BaseFlag:
    """Which base belongs to checkpoints that hold adapters only."""

    base_checkpoint: str | None = base_flag()


@dataclass(frozen=True)
class AbsentFlag:
    """What happens to the adapters of languages that are absent from an update."""

    absent_languages: str = flag(
        "rest",
        "for languages that have no sentence in an update: rest leaves their adapters and Adam's state unchanged; move "
        "lets momentum and weight decay change the adapters",
        choices=ABSENT,
    )


@dataclass(frozen=True)
class DirectionsFlag:
    """How a model with learned directions translates."""

    directions: str = directions_flag()


def _whole(default: int, help: str, least: int, what: str) -> Any:
    return flag(default, help, "N", valid=lambda number: least <= number < 2**31, expected=f"{what}, at least {least}")


@dataclass(frozen=True)
class ScoreFlags:
    """The task's flags for scoring translations of validation text while training."""

    eval_translations: int = _whole(
        0,
        "at each validation, translate N sentences of the first --valid-subset, spread over all directions, and score "
        "them; --best-checkpoint-metric bleu or chrf selects by the score",
        0,
        "a number of sentences",
    )
    eval_beam: int = _whole(5, "beam size of these translations", 1, "a number of hypotheses")
    eval_max_len: int = _whole(200, "at most N tokens in each of these translations", 1, "a number of tokens")
    eval_tokenize: str = flag("spm", "sacrebleu's tokenizer for their BLEU, such as 13a", "NAME")
    eval_remove_bpe: str = flag("sentencepiece", "which word splitting to undo in them and in the references", "METHOD")


def add_adapter_flags(parser: Any) -> None:
    """Declares the model's flags on fairseq's parser."""
    add_flags(parser, AdapterFlags, in_fairseq=True)


def add_task_flags(parser: Any) -> None:
    """Declares the task's flags on fairseq's parser."""
    for settings in (PruningFlags, BaseFlag, AbsentFlag, DirectionsFlag, ScoreFlags):
        add_flags(parser, settings, in_fairseq=True)


def add_base_flag(parser: Any) -> None:
    """Declares ``--base-checkpoint`` on the parser of a command of ours."""
    add_flags(parser, BaseFlag)


def flag_table() -> list[FlagRow]:
    """All flags of the plugin, for the documentation."""
    return flag_rows(AdapterFlags, BaseFlag, AbsentFlag, DirectionsFlag, PruningFlags, ScoreFlags)
