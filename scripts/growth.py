"""Shows what grows with the number of languages: start of training, memory, update, planning of an evaluation, report.

Usage: python scripts/growth.py FOLDER [LANGUAGES …]   (default: 12 25 50 100 200; prints a table after each number)
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from itertools import pairwise, permutations, product
from pathlib import Path

from langspec_lora.data.binarise import binarise, multi_parallel

NUMBERS = (12, 25, 50, 100, 200)
SENTENCES = {"train": 100, "valid": 20, "test": 20}
WORDS = 300
UPDATES = 40


def names(count: int) -> list[str]:
    """Codes of invented languages: aa, ab and so on."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return ["".join(pair) for pair in product(letters, letters)][:count]


def write_data(folder: Path, languages: list[str]) -> Path:
    """Writes and binarises multi-parallel random sentences; returns the binarised folder."""
    folder.mkdir(parents=True, exist_ok=True)
    dictionary = folder / "dict.txt"
    tokens = [f"w{number}" for number in range(WORDS)] + [f"__{name}__" for name in languages]
    dictionary.write_text("".join(f"{token} 1\n" for token in tokens), encoding="utf-8")
    draw, bitexts = random.Random(1), []
    for split, count in SENTENCES.items():
        files = {}
        for name in languages:
            lines = (" ".join(f"w{draw.randrange(WORDS)}" for _ in range(draw.randint(4, 12))) for _ in range(count))
            files[name] = folder / f"{split}.{name}"
            files[name].write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        bitexts += multi_parallel(split, files)
    binarise(bitexts, dictionary, folder / "bin")
    levels = {"high": languages[::3], "med": languages[1::3], "low": languages[2::3]}
    (folder / "levels.yaml").write_text("".join(f"{level}: {members}\n" for level, members in levels.items()))
    return folder / "bin"


def command(data: Path, folder: Path, languages: list[str]) -> list[str]:
    """A training of a small model with the published flags that matter here."""
    pairs = folder / "pairs.txt"  # one argument of a program may have 128 KiB: the directions of 150 languages
    pairs.write_text(",".join(f"{a}-{b}" for a, b in permutations(languages, 2)), encoding="utf-8")
    layers = "0_1"
    return [
        "fairseq-train", str(data), "--user-dir", "langspec_lora", "--task", "translation_multi_simple_epoch_lora",
        "--arch", "langspec_m2m100_lora_base", "--langs", ",".join(languages), "--lang-pairs", str(pairs),
        "--encoder-langtok", "src", "--decoder-langtok", "--sampling-method", "temperature",
        "--sampling-temperature", "5.0", "--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.2",
        "--optimizer", "adam", "--lr", "0.003", "--max-tokens", "600", "--max-update", str(UPDATES), "--cpu",
        "--encoder-layers", "2", "--decoder-layers", "2", "--encoder-embed-dim", "64", "--decoder-embed-dim", "64",
        "--encoder-ffn-embed-dim", "128", "--decoder-ffn-embed-dim", "128", "--encoder-attention-heads", "2",
        "--decoder-attention-heads", "2", "--dim", "64", "--share-all-embeddings", "--encoder-layerdrop", "0",
        "--decoder-layerdrop", "0", "--share-decoder-input-output-embed", "--encoder-normalize-before",
        "--decoder-normalize-before", "--add-lora", "True", "--encoder-lora-layer", layers, "--decoder-lora-layer",
        layers, "--encoder-lora-position", "q_k_v_fc1_fc2", "--decoder-lora-position",
        "q_k_v_crossq_crossk_crossv_fc1_fc2", "--encoder-activation-direction", "src_tgt",
        "--decoder-activation-direction", "tgt_tgt", "--language-num", str(len(languages)), "--lang-resources",
        str(folder / "levels.yaml"), "--high-rank", "2", "--med-rank", "2", "--low-rank", "8", "--pruning", "True",
        "--pruning-t1", "2", "--pruning-t2", "10", "--target-pruning-ratio", "0.9", "--log-format", "simple",
        "--log-interval", "1", "--save-dir", str(folder / "out"), "--fixed-dictionary", str(folder / "dict.txt"),
        "--disable-validation", *os.environ.get("MORE", "").split(),
    ]  # fmt: skip


def resident(pid: int) -> float:
    """Resident memory of a process in GB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1e6


def train(words: list[str], log: Path) -> dict[str, float]:
    """Runs a training and measures it."""
    begin = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    moments, memory = [], []
    peak = [0.0]

    def watch() -> None:
        while process.poll() is None:
            try:
                peak[0] = max(peak[0], resident(process.pid))
            except (OSError, TypeError):
                return
            time.sleep(0.2)

    threading.Thread(target=watch, daemon=True).start()
    with log.open("w") as file:
        for line in process.stdout:
            file.write(line)
            if "train_inner" in line:
                moments.append(time.monotonic())
                memory.append(resident(process.pid))
    if process.wait():
        raise SystemExit(f"{' '.join(words)[:100]} failed; see {log}")
    gaps = sorted(b - a for a, b in pairwise(moments))
    return {
        "start s": moments[0] - begin,
        "update s": gaps[len(gaps) // 2],
        "GB at first update": memory[0],
        "GB at last update": memory[-1],
        "peak GB": peak[0],
    }


def main() -> None:
    """Prints a row for each number of languages."""
    folder = Path(sys.argv[1])
    for count in map(int, sys.argv[2:] or NUMBERS):
        languages = names(count)
        begin = time.monotonic()
        data = folder / str(count) / "bin"
        if not data.is_dir():
            write_data(folder / str(count), languages)
        shutil.rmtree(folder / str(count) / "out", ignore_errors=True)
        row = {"languages": count, "binarise s": time.monotonic() - begin}
        row |= train(command(data, folder / str(count), languages), folder / str(count) / "log")
        print({key: round(value, 3) for key, value in row.items()}, flush=True)


if __name__ == "__main__":
    main()
