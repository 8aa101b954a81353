"""The commands that follow the preparation of data: pretraining a base, fine-tuning, evaluating; ready to run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from langspec_lora.study.steps import wrapped

ROOT = Path(__file__).resolve().parents[2]

_WEIGHTS = ("model.pt", "checkpoint_best.pt", "checkpoint_last.pt")


@dataclass(frozen=True)
class NextData:
    """What the commands need to know of the data.

    Attributes:
        data_bin: the binarised folder.
        out: the folder for models and results.
        languages: all languages, in order.
        lines: the number of training lines of all directions, counted once for a language pair.
        levels: a file of resource levels.
        pairs: a file of the training directions.
        dictionary: the given dictionary, of a base that exists; None if it was made with the data.
        has_test: whether there is a test set.
    """

    data_bin: Path
    out: Path
    languages: Sequence[str]
    lines: int
    levels: Path
    pairs: Path
    dictionary: Path | None
    has_test: bool


@dataclass(frozen=True)
class _Size:
    """A base for so much text, as experience with fairseq's recipes suggests it."""

    below: float  # training lines
    layers: int
    width: int
    ffn: int
    heads: int
    dropout: float
    rate: float
    warmup: int
    updates: int


_SIZES = (
    _Size(500_000, 3, 256, 1024, 4, 0.3, 1e-3, 1000, 20_000),
    _Size(20_000_000, 6, 512, 2048, 8, 0.1, 7e-4, 4000, 100_000),
    _Size(float("inf"), 12, 1024, 4096, 16, 0.1, 5e-4, 4000, 300_000),
)


def next_commands(data: NextData) -> str:
    """The commands, with comments, as a text for a shell.

    What is worth changing for a trial is a variable with a default: ``MAX_UPDATE``, ``MAX_EPOCH``, ``MAX_TOKENS``,
    ``UPDATE_FREQ``, ``PRECISION`` and ``TOKENIZE``.
    """
    base, beginning = _base(data)
    tuned = data.out / "finetuned"
    parts = [
        *beginning,
        "# Fine-tune it with language-specific LoRA; scripts/train.sh says what else can be set.",
        _finetune(data, base, tuned),
    ]
    if data.has_test:
        parts += [
            "# Translate and score the test set with the base and the fine-tuned model, and compare them.",
            _evaluate(data, tuned / "checkpoint_last.pt"),
        ]
    return "\n".join(parts)


def _base(data: NextData) -> tuple[str, list[str]]:
    """The base as a word for the shell, and the lines that make or find it."""
    if data.dictionary is None:
        folder = data.out / "base"
        comment = "# Pretrain a base with stock fairseq. On a GPU, first: export PRECISION=--amp"
        return _quoted(folder / "checkpoint_best.pt"), [comment, _pretrain(data, folder)]
    for name in _WEIGHTS:
        if (path := data.dictionary.parent / name).is_file():
            return _quoted(path), []
    return '"$BASE"', [
        "# The checkpoint that the dictionary belongs to:",
        ': "${BASE:?set BASE to the checkpoint to fine-tune}"',
    ]


def _pretrain(data: NextData, folder: Path) -> str:
    size = next(size for size in _SIZES if data.lines < size.below)
    return _command(
        f"fairseq-train {_quoted(data.data_bin)} --task translation_multi_simple_epoch",
        f"--langs {_langs(data)} --lang-pairs {_quoted(data.pairs)}",
        "--encoder-langtok src --decoder-langtok --sampling-method temperature --sampling-temperature 5.0",
        f"--arch transformer --encoder-layers {size.layers} --decoder-layers {size.layers}",
        f"--encoder-embed-dim {size.width} --decoder-embed-dim {size.width}",
        f"--encoder-ffn-embed-dim {size.ffn} --decoder-ffn-embed-dim {size.ffn}",
        f"--encoder-attention-heads {size.heads} --decoder-attention-heads {size.heads}",
        "--encoder-normalize-before --decoder-normalize-before --share-all-embeddings",
        f"--dropout {size.dropout} --criterion label_smoothed_cross_entropy --label-smoothing 0.1",
        f"--optimizer adam --adam-betas '(0.9, 0.98)' --lr-scheduler inverse_sqrt --lr {size.rate}",
        f"--warmup-updates {size.warmup} --max-update ${{MAX_UPDATE:-{size.updates}}}",
        "--max-tokens ${MAX_TOKENS:-4000} --update-freq ${UPDATE_FREQ:-4} --seed 1 ${PRECISION:-}",
        f"--no-epoch-checkpoints --log-format simple --log-interval 100 --save-dir {_quoted(folder)}",
    )


def _finetune(data: NextData, base: str, folder: Path) -> str:
    return _command(
        f"DATA_BIN={_quoted(data.data_bin)} BASE={base} SAVE_DIR={_quoted(folder)}",
        f"LANGS={_langs(data)}",
        f"LANG_PAIRS={_quoted(data.pairs)}",
        f"LANG_RESOURCES={_quoted(data.levels)} MAX_EPOCH=${{MAX_EPOCH:-15}} bash {_quoted(_script())}",
        '${MAX_UPDATE:+--max-update "$MAX_UPDATE"}',
    )


def _evaluate(data: NextData, checkpoint: Path) -> str:
    results = data.out / "results"
    return "\n".join(
        (
            _command(
                f"langspec-lora evaluate {_quoted(data.data_bin)} --base --checkpoint {_quoted(checkpoint)}",
                f"--names base,finetuned --tokenize ${{TOKENIZE:-spm}} --out {_quoted(results)}",
            ),
            _command(
                f"langspec-lora report {_quoted(results / 'base')} {_quoted(results / 'finetuned')}",
                f"--lang-resources {_quoted(data.levels)} --out {_quoted(data.out / 'report')}",
            ),
        )
    )


def _langs(data: NextData) -> str:
    return shlex.quote(",".join(data.languages))


def _script() -> Path:
    """``scripts/train.sh`` of this checkout, as seen from the working folder."""
    script = ROOT / "scripts" / "train.sh"
    if not script.is_file():  # the package was installed without its repository
        return Path("scripts/train.sh")
    return script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script


def _quoted(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def _command(*parts: str) -> str:
    return wrapped(parts)
