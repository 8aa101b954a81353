"""Shows what grows with the number of languages: training, evaluation and report of a model between all of them.

Usage: python scripts/growth.py FOLDER [LANGUAGES …] [--lines N] [--only PARTS] (prints a row for each number)

The sentences are random and the model is tiny, so that what is measured is what each direction, language or example
costs. Memory is that of the largest process. Scoring and reports are in seconds of processor time, which other work on
the machine hardly changes.

* start s, update s, GB: of fairseq-train: until the first of 40 updates; median; resident after the first and the last
  update, and at most.
* plan s: of ``langspec-lora evaluate``, processor time until it decodes the first batch; Python, torch and the model
  are 5 s of it.
* score s: of ``langspec-lora evaluate`` in a folder that has the hypotheses of all directions.
* report s, GB: of ``langspec-lora report`` on two such folders without what it reads from the sentences
  (``--skip significance,off-target,sentences``), with all its files.
* texts s, GB: with the sentences, but without the tests of each direction (``--skip significance``).
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import threading
import time
from itertools import pairwise, permutations, product
from pathlib import Path

from langspec_lora.data.binarise import binarise, multi_parallel
from langspec_lora.data.directions import Direction
from langspec_lora.evaluation.results import PROVENANCE, SETTINGS, hypotheses_path
from langspec_lora.files import read_lines, write_whole

NUMBERS = (12, 25, 50, 100, 200)
PARTS = ("train", "evaluate", "report", "texts")
SENTENCES = {"valid": 20, "test": 20}
WORDS = 300
UPDATES = 40
RUNS = ("base", "mine")


def names(count: int) -> list[str]:
    """Codes of invented languages: aa, ab and so on."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return ["".join(pair) for pair in product(letters, letters)][:count]


def write_data(folder: Path, languages: list[str], lines: int) -> Path:
    """Writes and binarises multi-parallel random sentences, ``lines`` for training; returns the binarised folder."""
    mono = folder / "mono"
    mono.mkdir(parents=True, exist_ok=True)
    dictionary = folder / "dict.txt"
    tokens = [f"w{number}" for number in range(WORDS)] + [f"__{name}__" for name in languages]
    dictionary.write_text("".join(f"{token} 1\n" for token in tokens), encoding="utf-8")
    draw, bitexts = random.Random(1), []
    for split, count in {"train": lines, **SENTENCES}.items():
        files = {}
        for name in languages:
            text = (" ".join(f"w{draw.randrange(WORDS)}" for _ in range(draw.randint(4, 12))) for _ in range(count))
            files[name] = mono / f"{split}.{name}"
            files[name].write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
        bitexts += multi_parallel(split, files)
    binarise(bitexts, dictionary, folder / "bin")
    levels = {"high": languages[::3], "med": languages[1::3], "low": languages[2::3]}
    (folder / "levels.yaml").write_text("".join(f"{level}: {members}\n" for level, members in levels.items()))
    return folder / "bin"


def training(data: Path, folder: Path, languages: list[str]) -> list[str]:
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


def processor_time(pid: int) -> float:
    """Seconds of processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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


def evaluation(data: Path, folder: Path, out: Path) -> list[str]:
    """An evaluation of the trained model."""
    model = ["--checkpoint", str(folder / "out" / "checkpoint_last.pt"), "--cpu", "--tokenize", "none"]
    search = ["--beam", "1", "--max-len-a", "0", "--max-len-b", "5"]
    return ["langspec-lora", "evaluate", str(data), "--out", str(out), *model, *search]


def plan(words: list[str], log: Path) -> float:
    """Seconds of processor time until an evaluation decodes, when it is stopped."""
    with log.open("w+") as file:
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT)
        while "decoding:" not in log.read_text():
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(words)[:100]} ended before it decoded; see {log}")
            time.sleep(0.02)
        seconds = processor_time(process.pid)
        process.terminate()  # a process in the background of a shell ignores SIGINT
        process.wait()
    return seconds


def measured(words: list[str], log: Path) -> tuple[float, float]:
    """Seconds of processor time and peak memory in GB of a command, which must succeed."""
    with log.open("w") as file:
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)[:100]} failed; see {log}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6


def write_hypotheses(folder: Path, languages: list[str], run: int) -> None:
    """Writes hypotheses of all directions: the references without some of their words."""
    draw = random.Random(run)
    for target in languages:
        references = [line.split() for line in read_lines(folder / "mono" / f"test.{target}")]
        for source in languages:
            if source != target:
                keep = draw.uniform(0.3, 0.9)
                lines = (" ".join(word for word in words if draw.random() < keep) for words in references)
                path = hypotheses_path(folder / RUNS[run], Direction(source, target))
                write_whole(path, "".join(f"{line}\n" for line in lines))


def evaluate(data: Path, folder: Path, languages: list[str]) -> dict[str, float]:
    """Measures the planning of an evaluation, and the scoring of its hypotheses."""
    row = {}
    for run, name in enumerate(RUNS):
        shutil.rmtree(folder / name, ignore_errors=True)
        words = evaluation(data, folder, folder / name)
        row["plan s"] = plan(words, folder / f"plan.{name}.log")
        for path in [*(folder / name).glob("*.hyp.txt"), folder / name / PROVENANCE]:
            path.unlink()
        assert (folder / name / SETTINGS).is_file()
        write_hypotheses(folder, languages, run)
        row["score s"], row["score GB"] = measured(words, folder / f"evaluate.{name}.log")
    return row


def report(folder: Path, part: str, skip: str) -> dict[str, float]:
    """Measures a report that leaves some parts out."""
    out = folder / f"report.{part}"
    shutil.rmtree(out, ignore_errors=True)
    runs = [str(folder / name) for name in RUNS]
    words = ["langspec-lora", "report", *runs, "--skip", skip, "--out", str(out)]
    seconds, memory = measured(words, folder / f"{part}.log")
    return {
        f"{part} s": seconds,
        f"{part} GB": memory,
        f"{part} MB of HTML": (out / "report.html").stat().st_size / 1e6,
    }


def main() -> None:
    """Prints a row for each number of languages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("languages", type=int, nargs="*", default=NUMBERS)
    parser.add_argument("--lines", type=int, default=100, help="training sentences of each direction")
    parser.add_argument("--only", default=",".join(PARTS), help="what to measure; each needs those before it")
    args = parser.parse_args()
    for count in args.languages:
        languages, folder, begin = names(count), args.folder / f"{count}.{args.lines}", time.monotonic()
        data = folder / "bin"
        if not data.is_dir():
            write_data(folder, languages, args.lines)
        row: dict[str, float] = {"languages": count, "directions": count * (count - 1)}
        row["binarise s"] = time.monotonic() - begin
        parts = args.only.split(",")
        if "train" in parts:
            shutil.rmtree(folder / "out", ignore_errors=True)
            row |= train(training(data, folder, languages), folder / "log")
        if "evaluate" in parts:
            row |= evaluate(data, folder, languages)
        if "report" in parts:
            row |= report(folder, "report", "intervals,significance,off-target,sentences,degeneration")
        if "texts" in parts:
            row |= report(folder, "texts", "significance")
        print({key: round(value, 3) for key, value in row.items()}, flush=True)


if __name__ == "__main__":
    main()
