"""``python -m langspec_lora.example.quickstart``: runs everything, from text to table, on the built-in example.

The base model plays the part of M2M100. It is pretrained with the stock task and architecture, then fine-tuned with the
published training command with small sizes, once without and once with pruning. All three models translate every
direction.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from langspec_lora.errors import UserError, command_line
from langspec_lora.evaluation.results import SCORES, read_run
from langspec_lora.example.grammar import CODES
from langspec_lora.example.stages import Runner, Stage
from langspec_lora.naming import some_of
from langspec_lora.report.groups import group_members
from langspec_lora.resources import read_resources
from langspec_lora.values import read_strictly

LEVELS = Path("configs/languages/example.yaml")
RUNS = ("base", "finetuned", "pruned")
EPOCHS = 15

_LANGS = ",".join(CODES)
_MODEL = """
    --encoder-embed-dim 64 --decoder-embed-dim 64 --encoder-ffn-embed-dim 128 --decoder-ffn-embed-dim 128
    --encoder-attention-heads 4 --decoder-attention-heads 4
"""
_OUTPUT = """
    --required-batch-size-multiple 1 --num-workers 0 --disable-validation --no-epoch-checkpoints
    --log-interval 20 --log-format simple --cpu --save-dir {out}
"""
_MAKE = "langspec-lora make-example {out}"
_PRETRAIN = f"""
fairseq-train {{data}} --task translation_multi_simple_epoch --langs {_LANGS} --lang-pairs {{data}}.pairs
    --encoder-langtok src --decoder-langtok
    --sampling-method temperature --sampling-temperature 2.0 --virtual-data-size 6000
    --arch transformer {_MODEL} --encoder-layers 2 --encoder-normalize-before
    --decoder-layers 2 --decoder-normalize-before --share-all-embeddings --dropout 0.0
    --criterion label_smoothed_cross_entropy --label-smoothing 0.1
    --optimizer adam --adam-betas '(0.9, 0.98)' --lr-scheduler inverse_sqrt --lr 0.008 --warmup-updates 200
    --max-tokens 1000 --max-epoch {EPOCHS} --seed 1 {_OUTPUT}
"""
_FINETUNE = f"""
fairseq-train {{data}} --update-freq 1 --ddp-backend no_c10d --user-dir langspec_lora --finetune-from-model {{base}}
    --arch langspec_m2m100_lora_tiny --task translation_multi_simple_epoch_lora
    --sampling-method temperature --sampling-temperature 5.0 --virtual-data-size 2500
    --encoder-langtok src --decoder-langtok --langs {_LANGS} --lang-pairs {{data}}.pairs
    --criterion label_smoothed_cross_entropy --label-smoothing 0.1
    --optimizer adam --adam-eps 1e-08 --adam-betas '(0.9, 0.98)' --lr-scheduler inverse_sqrt --lr 0.01
    --warmup-updates 100 --max-tokens 1000 --max-epoch {EPOCHS} --seed 2
    {_MODEL} --decoder-layerdrop 0 --decoder-layers 2 --decoder-normalize-before --dropout 0.0
    --encoder-layerdrop 0 --encoder-layers 2 --encoder-normalize-before
    --share-all-embeddings --share-decoder-input-output-embed
    --add-lora True --freeze-original-parameters True
    --encoder-lora-layer 0_1 --encoder-lora-position q_k_v_fc1_fc2
    --decoder-lora-layer 0_1 --decoder-lora-position q_k_v_crossq_crossk_crossv_fc1_fc2
    --dim 64 --high-rank 8 --med-rank 8 --low-rank 16 --lang-resources {LEVELS}
    --encoder-activation-direction src_tgt --decoder-activation-direction tgt_tgt --language-num {len(CODES)}
"""
_WITH_PRUNING = "--pruning True --pruning-t1 2 --pruning-t2 10 --target-pruning-ratio 0.9"
_WITHOUT_PRUNING = "--pruning False"
_EVALUATE = "langspec-lora evaluate {data} --checkpoint {checkpoint} --out {out} --beam 5 --tokenize 13a --cpu"
_REPORT = f"langspec-lora report {{base}} {{finetuned}} {{pruned}} --lang-resources {LEVELS} --out {{out}}"


def pretrain_flags(data: Path, out: Path) -> list[str]:
    """Flags of ``fairseq-train`` that train the base model."""
    return _filled(_PRETRAIN, data=data, out=out)[1:]


def finetune_flags(data: Path, base: Path, out: Path, pruning: bool) -> list[str]:
    """Flags of the published training command with small sizes."""
    template = f"{_FINETUNE} {_WITH_PRUNING if pruning else _WITHOUT_PRUNING} {_OUTPUT}"
    return _filled(template, data=data, base=base, out=out)[1:]


def pretrain_command(data: Path, out: Path) -> list[str]:
    """Trains the base model with the stock command."""
    return [_program("fairseq-train"), *pretrain_flags(data, out)]


def finetune_command(data: Path, base: Path, out: Path, pruning: bool) -> list[str]:
    """The published training command with small sizes."""
    return [_program("fairseq-train"), *finetune_flags(data, base, out, pruning)]


def evaluate_command(data: Path, checkpoint: Path, out: Path) -> list[str]:
    """Translates and scores all 132 directions in one process."""
    return _command(_EVALUATE, data=data, checkpoint=checkpoint, out=out)


def _command(template: str, **paths: Path) -> list[str]:
    program, *arguments = _filled(template, **paths)
    return [_program(program), *arguments]


def _filled(template: str, **paths: Path) -> list[str]:
    return [argument.format(**paths) for argument in shlex.split(template)]


def _program(name: str) -> str:
    """A console script of the environment that runs this."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise UserError(f"{path} not found; run scripts/install.sh first")
    return str(_relative(path))


def _relative(path: Path) -> Path:
    """A path as seen from the folder in which the commands run, where it lies below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def training_progress(output: str) -> str:
    """Epoch and loss from the end of fairseq-train's log."""
    found = re.findall(r"train_inner \| epoch (\d+):.*? loss=([\d.]+)", output)
    return f"epoch {int(found[-1][0])}/{EPOCHS}, loss {float(found[-1][1]):.2f}" if found else ""


def decoding_progress(output: str) -> str:
    """Sentences from the end of the evaluation's progress bar."""
    found = re.findall(r"(\d+)/(\d+) \[", output)
    return f"{found[-1][0]}/{found[-1][1]} sentences" if found else ""


def all_stages(out: Path) -> list[list[Stage]]:
    """All stages in order; the stages of an inner list run at the same time.

    Args:
        out: folder for all results.
    """
    example, base, report = out / "example", out / "base", out / "report"
    checkpoints = {name: out / name / "checkpoint_last.pt" for name in RUNS}
    results = {name: out / "results" / name for name in RUNS}
    make = Stage(
        "example",
        "1/5 Example: text in twelve invented languages, SentencePiece model, binarised data",
        _command(_MAKE, out=example),
        example,
    )
    pretrain = Stage(
        "base",
        "2/5 Base model: stock fairseq-train, with a lot of text for high, some for med, little for low languages",
        pretrain_command(example / "pretrain", base),
        base,
        [example / "example.json", example / "dict.txt"],
        training_progress,
    )
    finetune = [
        Stage(
            name,
            f"3/5 Fine-tuning with language-specific LoRA, {'with' if pruning else 'without'} pruning",
            finetune_command(example / "finetune", checkpoints["base"], out / name, pruning),
            out / name,
            [checkpoints["base"], LEVELS],
            training_progress,
        )
        for name, pruning in (("finetuned", False), ("pruned", True))
    ]
    evaluate = [
        Stage(
            f"evaluate-{name}",
            f"4/5 Held-out text in all {len(CODES) * (len(CODES) - 1)} directions, translated by the {name} model",
            evaluate_command(example / "finetune", checkpoints[name], results[name]),
            results[name],
            [checkpoints[name]],
            decoding_progress,
        )
        for name in RUNS
    ]
    tables = Stage(
        "report",
        "5/5 Table by resource group and heat maps",
        _command(_REPORT, **results, out=report),
        report,
        [folder / SCORES for folder in results.values()],
    )
    return [[make], [pretrain], finetune, evaluate, [tables]]


def verdict(results: Mapping[str, Path], levels: Path) -> tuple[bool, str]:
    """Whether the method worked, judged by the rows of the table.

    Args:
        results: results folders of ``base``, ``finetuned`` and ``pruned``.
        levels: YAML file of resource levels.

    Returns:
        Whether fine-tuning gained in every group and the pruned model holds most of it over all, and a sentence.
    """
    base, tuned, pruned = (read_run(results[name], name).metric("bleu") for name in RUNS)
    groups = group_members(list(base), read_resources(levels).levels)
    gains = {label: fmean(tuned[d] - base[d] for d in members) for label, members in groups.items()}
    worse = [label for label, gain in gains.items() if gain <= 0]
    gain, held = gains["all"], fmean(pruned[d] - base[d] for d in base)
    text = f"fine-tuning gains {gain:+.2f} BLEU over all directions; the pruned model holds {held:+.2f} of it"
    if worse:
        text += f"; but it loses in {some_of(worse)}"
    return not worse and held > gain / 2, text


def run(out: Path, root: Path) -> int:
    """Runs what is missing and prints the table.

    Args:
        out: folder for all results.
        root: the repository: the working folder of the commands and of this process.

    Returns:
        Exit code: 1 if the results are not what the method promises.

    Raises:
        UserError: a stage failed.
    """
    started = time.monotonic()
    # One thread each: two trainings run on two cores, and the results do not depend on the number of cores.
    runner = Runner(out, root, {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"})
    with runner.lock():
        stages = all_stages(out)
        for together in stages:
            runner.run(*together)
        results = {name: out / "results" / name for name in RUNS}
        made = [out / "example", *(out / name / "checkpoint_last.pt" for name in RUNS), *results.values(), out / "logs"]
        print(f"\n{runner.output(stages[-1][0]).strip()}\nand:", *(f"  {path}" for path in made), sep="\n")
        holds, text = verdict(results, LEVELS)
        print(text)
        print(
            f"{time.monotonic() - started:.0f} s"
            if runner.ran
            else f"all results already exist in {out}; nothing was run"
        )
    return 0 if holds else 1


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="quickstart.sh",
        description="Runs everything on a built-in example. Run it again to continue after an interruption.",
    )
    parser.add_argument(
        "out", nargs="?", type=Path, default=Path("quickstart"), help="folder for all results (default: quickstart)"
    )
    read_strictly(parser)
    args = parser.parse_args(argv)
    with command_line("stopped; run the same command again to continue"):
        root = Path(__file__).resolve().parents[2]
        out = args.out.resolve()
        if not (root / LEVELS).is_file():
            raise UserError(f"{root / LEVELS} not found; run the quickstart from a checkout of the repository")
        os.chdir(root)
        return run(_relative(out), root)


if __name__ == "__main__":
    sys.exit(main())
