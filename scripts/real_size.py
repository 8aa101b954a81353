"""Fine-tunes a random M2M100 of the 615M shape for two updates and translates with it, to test a machine at real size.

Usage: python scripts/real_size.py FOLDER

It needs 10 GB of disk space in FOLDER, and prints time, memory, numbers of parameters and file sizes.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import torch
from fairseq.data import Dictionary
from fairseq.models.transformer import TransformerModel

from langspec_lora.adapters.entries import FAST_PATH_COPIES
from langspec_lora.data.binarise import binarise, multi_parallel
from langspec_lora.languages import PAPER_LEVELS
from langspec_lora.models.architectures import langspec_m2m100_lora_base

VOCABULARY = 256_206  # entries of M2M100's dictionary, fairseq's four special symbols and the language tokens included
SENTENCES = {"train": 12, "valid": 2, "test": 2}
TRAININGS = (
    ("out", "two updates of the published command", ()),
    (
        "whole",
        "the same, saved with the base, 90 % pruned from the start",
        ("--save-adapters-only", "False", "--pruning-t1", "0", "--pruning-t2", "1"),
    ),
)


def write_dictionary(path: Path) -> Dictionary:
    """Writes a dictionary of the real size that ends with the language tokens."""
    tokens = [f"__{name}__" for name in PAPER_LEVELS]
    words = [f"w{number}" for number in range(VOCABULARY - 4 - len(tokens))]
    path.write_text("".join(f"{word} 1\n" for word in words + tokens), encoding="utf-8")
    return Dictionary.load(str(path))


def write_data(folder: Path, dictionary: Path) -> None:
    """Writes and binarises random sentences of 20 to 40 words."""
    draw = random.Random(1)
    bitexts = []
    for split, count in SENTENCES.items():
        files = {}
        for name in PAPER_LEVELS:
            lines = (" ".join(f"w{draw.randrange(200_000)}" for _ in range(draw.randint(20, 40))) for _ in range(count))
            files[name] = folder / f"{split}.{name}"
            files[name].write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        bitexts += multi_parallel(split, files)
    binarise(bitexts, dictionary, folder / "bin")


def write_model(path: Path, dictionary: Dictionary) -> int:
    """Writes a stock checkpoint with random weights; returns its number of parameters."""
    args = Namespace(arch="transformer", share_all_embeddings=True, share_decoder_input_output_embed=True)
    langspec_m2m100_lora_base(args)
    task = Namespace(source_dictionary=dictionary, target_dictionary=dictionary)
    torch.manual_seed(1)
    model = TransformerModel.build_model(args, task)
    state = {
        "args": args,
        "cfg": None,
        "model": model.state_dict(),
        "optimizer_history": [{"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 0}],
        "extra_state": {"train_iterator": {"epoch": 1}},
    }
    torch.save(state, path)
    return sum(parameter.numel() for name, parameter in model.named_parameters() if not _is_copy(name))


def _is_copy(name: str) -> bool:
    """Whether the parameter is one of the copies that fairseq 0.12.2 makes in its encoder layers."""
    return len(name.split(".")) == 4 and name.split(".")[-1] in FAST_PATH_COPIES


def run(title: str, command: list[str], log: Path, **environment: str) -> None:
    """Runs a command and prints its time and its peak memory."""
    start = time.time()
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **environment})
        _, status, usage = os.wait4(process.pid, 0)
    gigabytes = usage.ru_maxrss / 2**20
    print(f"{title}: {time.time() - start:.0f} s, peak memory {gigabytes:.1f} GB (log: {log})", flush=True)
    if status:
        sys.exit(f"{title} failed; see {log}")


def main() -> None:
    """Makes the model, trains it for two updates with the published command and generates with it."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    scripts = Path(__file__).parent
    if not (folder / "base.pt").exists():
        dictionary = write_dictionary(folder / "dict.txt")
        write_data(folder, folder / "dict.txt")
        print(f"{write_model(folder / 'base.pt', dictionary):,} parameters in {folder / 'base.pt'}", flush=True)
    for name, title, flags in TRAININGS:
        shutil.rmtree(folder / name, ignore_errors=True)
        run(
            title,
            [
                *("bash", str(scripts / "train.sh"), "--max-update", "2", "--no-epoch-checkpoints"),
                *("--disable-validation", "--num-workers", "0", *flags),
            ],
            folder / f"{name}.log",
            DATA_BIN=str(folder / "bin"),
            BASE=str(folder / "base.pt"),
            SAVE_DIR=str(folder / name),
            UPDATE_FREQ="1",
            MAX_TOKENS="2000",
        )
        checkpoint = folder / name / "checkpoint_last.pt"
        adapter = folder / name / "adapter"
        export = [str(Path(sys.executable).parent / "langspec-lora"), "export", str(checkpoint), "--format", "adapter"]
        run("export of its adapters", [*export, "--out", str(adapter)], folder / f"{name}-export.log")
        for path in (checkpoint, adapter / "adapter.safetensors"):
            print(f"{path}: {path.stat().st_size / 1e6:,.1f} MB", flush=True)
    print(re.search(r"parameters \| .*", (folder / "out.log").read_text(encoding="utf-8"))[0])
    names = ",".join(PAPER_LEVELS)
    run(
        "two sentences of en-wo at beam 5",
        [
            *(str(Path(sys.executable).parent / "fairseq-generate"), str(folder / "bin"), "--beam", "5"),
            *("--user-dir", str(scripts.parent / "langspec_lora"), "--task", "translation_multi_simple_epoch_lora"),
            *("--path", str(folder / "out" / "checkpoint_last.pt"), "--fixed-dictionary", str(folder / "dict.txt")),
            *("--langs", names, "--lang-pairs", "en-wo", "-s", "en", "-t", "wo", "--gen-subset", "test"),
            *("--encoder-langtok", "src", "--decoder-langtok", "--max-len-b", "20", "--num-workers", "0"),
        ],
        folder / "generate.log",
    )


if __name__ == "__main__":
    main()
