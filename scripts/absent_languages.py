"""Compares ``--absent-languages rest`` and ``move`` on the built-in example, with several seeds.

    python scripts/absent_languages.py OUT

Runs a small fine-tuning with both settings for each seed and each batch size, translates all 132 directions with each
checkpoint, and prints mean BLEU. If OUT does not have the base, it is trained first. Run it again to continue after an
interruption.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from langspec_lora.errors import UserError, command_line
from langspec_lora.example.small_training import finetune_flags, pretrain_flags

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(command: Sequence[str], log: Path) -> None:
    """Runs a command; if it was interrupted before, it continues where it stopped.

    Raises:
        UserError: it fails.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise UserError(f"{command[0]} failed; its output is in {log}")


def mean_bleu(folder: Path) -> float:
    """Mean BLEU over the directions of an evaluation."""
    directions = json.loads((folder / "scores.json").read_text(encoding="utf-8"))["directions"]
    return statistics.mean(scores["bleu"] for scores in directions.values())


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for all results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--max-tokens", type=int, nargs="+", default=[1000, 100], help="batch sizes in tokens")
    args = parser.parse_args()
    with command_line():
        os.chdir(ROOT)
        out = args.out.resolve()
        base, data = out / "base" / "checkpoint_last.pt", out / "example" / "finetune"
        if not data.exists():
            run(["langspec-lora", "make-example", str(data.parent)], out / "logs" / "example.log")
        if not base.exists():
            pretrain = ["fairseq-train", *pretrain_flags(data.parent / "pretrain", base.parent)]
            run(pretrain, out / "logs" / "base.log")
        for tokens in args.max_tokens:
            for mode in ("rest", "move"):
                scores = []
                for seed in args.seeds:
                    name = f"{mode}-{tokens}-{seed}"
                    changed = ["--absent-languages", mode, "--max-tokens", str(tokens), "--seed", str(seed)]
                    checkpoint, results = out / name / "checkpoint_last.pt", out / "results" / name
                    if not (results / "scores.json").is_file():
                        train = ["fairseq-train", *finetune_flags(data, base, out / name, pruning=False), *changed]
                        run(train, out / "logs" / f"{name}.train.log")
                        evaluate = ["langspec-lora", "evaluate", data, "--checkpoint", checkpoint, "--out", results]
                        evaluate += ["--beam", "5", "--tokenize", "13a", "--cpu"]
                        run([*map(str, evaluate)], out / "logs" / f"{name}.evaluate.log")
                    scores.append(mean_bleu(results))
                each = ", ".join(f"{score:.2f}" for score in scores)
                print(
                    f"{tokens} tokens per batch, {mode}: mean BLEU {statistics.mean(scores):.2f} ({each})", flush=True
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
