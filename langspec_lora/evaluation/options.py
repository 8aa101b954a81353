"""What to evaluate and how; knows no torch, so that a command line is read at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from langspec_lora.errors import UserError
from langspec_lora.evaluation.metrics import MODEL_METRICS, SACREBLEU_METRICS, USUAL_METRICS
from langspec_lora.generation import BatchLimits, GenerationSettings
from langspec_lora.inference.model_spec import ModelSpec
from langspec_lora.naming import some_of
from langspec_lora.settings import flag
from langspec_lora.values import content_of, names_of

TOKENIZERS = ("spm", "flores101", "flores200", "13a", "char", "none", "intl", "zh")


def _languages(text: str) -> tuple[str, ...]:
    return tuple(names_of(text, "--langs"))


def _metrics(text: str) -> tuple[str, ...]:
    names = tuple(names_of(text, "--metrics", "bleu,chrf,ter"))
    for name in names:
        if name in MODEL_METRICS:
            raise UserError(f"--metrics names {name}, which needs a model; give it as {MODEL_METRICS[name].flag} MODEL")
        if name not in SACREBLEU_METRICS:
            near = get_close_matches(name.lower(), SACREBLEU_METRICS, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"--metrics names {name!r}, which is none of {some_of(SACREBLEU_METRICS)}{hint}")
    return names


@dataclass(frozen=True)
class ScoringSettings:
    """What decides the scores besides the hypotheses.

    Attributes:
        tokenize: sacrebleu's tokenizer of BLEU.
        metrics: what to score with, besides the metrics that every evaluation computes and those with a model.
        models: the model of each further metric to score with, by the metric's name.
        references: folder with ``SUBSET.LANG``; looked for beside the data where None.
    """

    tokenize: str = flag(
        "spm", "sacrebleu's tokenizer of BLEU", choices=TOKENIZERS, default_text="spm, which is spBLEU"
    )
    metrics: tuple[str, ...] = flag(
        tuple(USUAL_METRICS),
        f"metrics without a model: {some_of(USUAL_METRICS)} always, and on request "
        f"{some_of(name for name in SACREBLEU_METRICS if name not in USUAL_METRICS)}",
        "A,B,…",
        default_text=",".join(USUAL_METRICS),
        convert=_metrics,
    )
    models: Mapping[str, str] = field(default_factory=dict)  # each metric declares its flag
    references: Path | None = flag(
        None,
        "folder with SPLIT.LANG as raw text",
        "DIR",
        default_text="the folder 'mono' in or beside DATA_BIN, or else the binarised targets turned back into text",
    )


@dataclass(frozen=True)
class EvaluationOptions:
    """What to evaluate and how.

    Attributes:
        data_bin: the binarised folder.
        model: which model; its dictionary is that of the data where None.
        out: the results folder.
        scoring: what decides the scores.
        generation: what decides the hypotheses.
        limits: how much a batch holds.
        langs: languages between which to translate; those of the data where None.
        lang_pairs: directions joined by commas, or ``all``.
        subset: the split to translate.
        batching: see :class:`~langspec_lora.evaluation.decoding.Decoder`.
        overwrite: replace the results of other settings.
    """

    data_bin: Path
    model: ModelSpec
    out: Path
    scoring: ScoringSettings = field(default_factory=ScoringSettings)
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    limits: BatchLimits = field(default_factory=BatchLimits)
    langs: tuple[str, ...] | None = flag(
        None, "languages between which to translate", "A,B,…", default_text="the data's", convert=_languages
    )
    lang_pairs: str = flag(
        "all",
        "directions, or a file that holds them",
        "A-B,…",
        default_text="all ordered pairs of --langs",
        convert=content_of,
    )
    subset: str = flag("test", "split to translate", "SPLIT", names=("--gen-subset",))
    batching: str = flag(
        "auto",
        "let directions share batches if they are too short to fill one (auto), always, or never: the same batches as "
        "fairseq-generate",
        choices=("auto", "mixed", "direction"),
    )
    overwrite: bool = flag(False, "replace the results of other settings in --out")
