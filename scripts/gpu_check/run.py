"""One run of the GPU checks in a process of its own: a program of fairseq, watched from outside.

    python scripts/gpu_check/run.py train|generate REPORT [--repeatable] [--wrapped] [--waits] -- FLAGS…

Writes REPORT: loss and gradient norm of every update, seconds, peak memory, and where the CPU waited for the GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

if not any(type(finder).__name__ == "FairseqHook" for finder in sys.meta_path):
    import langspec_lora.compat.startup  # noqa: F401  (before fairseq: this package may not be installed)

import torch
from fairseq.models import distributed_fairseq_model
from fairseq.trainer import Trainer
from fairseq_cli import generate, train
from torch.nn.parallel import DistributedDataParallel

REPORT: dict[str, Any] = {"losses": [], "norms": [], "seconds": [], "waits": []}


def watch_updates() -> None:
    """Records the loss before rounding, from the criterion's own sums, and the norm of the gradient."""
    train_step, clip, reduce = Trainer.train_step, Trainer.clip_grad_norm, Trainer._reduce_and_log_stats

    def timed(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = train_step(self, *args, **kwargs)
        REPORT["seconds"].append(time.perf_counter() - started)
        return result

    def clipped(self: Trainer, *args: Any) -> Any:
        norm = clip(self, *args)
        REPORT["norms"].append(float(norm))
        return norm

    def reduced(self: Trainer, outputs: list, size: Any, norm: Any = None) -> Any:
        if norm is not None:
            REPORT["losses"].append(float(sum(output["loss"] for output in outputs)) / float(size))
        return reduce(self, outputs, size, norm)

    Trainer.train_step, Trainer.clip_grad_norm, Trainer._reduce_and_log_stats = timed, clipped, reduced


def record_waits() -> None:
    """Makes torch report each wait for the GPU, and notes the line of this package or of fairseq that waits."""
    torch.cuda.set_sync_debug_mode("warn")

    def show(message: Any, *args: Any, **kwargs: Any) -> None:
        if "called a synchronizing" in str(message):
            frames = [frame for frame in traceback.extract_stack() if "/torch/" not in frame.filename]
            frames = [frame for frame in frames if not frame.filename.endswith(("warnings.py", Path(__file__).name))]
            REPORT["waits"].append(f"{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}")

    warnings.showwarning = show
    warnings.simplefilter("always")


def wrap_in_ddp() -> None:
    """Uses fairseq's distributed wrapper even with one process."""
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1")
    os.environ.setdefault("MASTER_PORT", str(20000 + os.getpid() % 20000))
    Trainer.use_distributed_wrapper = True
    if not torch.cuda.is_available():
        distributed_fairseq_model.DistributedDataParallel = lambda module, **options: DistributedDataParallel(
            module, **{**options, "device_ids": None, "output_device": None}
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("program", choices=("train", "generate"))
    parser.add_argument("report", type=Path)
    for flag in ("--repeatable", "--wrapped", "--waits"):
        parser.add_argument(flag, action="store_true")
    ours, flags = sys.argv[1:], []
    if "--" in ours:
        ours, flags = ours[: ours.index("--")], ours[ours.index("--") + 1 :]
    args = parser.parse_args(ours)
    if args.repeatable:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True, warn_only=True)
    if args.wrapped:
        wrap_in_ddp()
    if args.waits:
        record_waits()
    watch_updates()
    sys.argv = [f"fairseq-{args.program}", *flags]
    {"train": train, "generate": generate}[args.program].cli_main()
    gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    REPORT["peak_bytes"] = torch.cuda.max_memory_allocated() if gpu else None
    args.report.write_text(json.dumps(REPORT), encoding="utf-8")


if __name__ == "__main__":
    main()
