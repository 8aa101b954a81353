"""Shows what the other commands cost, and how much they print, with models of few and of many languages.

Usage: python scripts/growth.py FOLDER [LANGUAGES …] --only train
       python scripts/growth_commands.py FOLDER [LANGUAGES …] [--only NAME,…]

Each command runs on the model that ``growth.py`` has trained, with at most 1,024 open files. Printed for each: seconds
of processor time, peak memory in GB, the number of lines that it printed, and the characters of the longest. A
vocabulary is made for the commands that read raw text.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import sentencepiece
from growth import WORDS, names

OPEN_FILES = 1024


class Cost(NamedTuple):
    """What a command took, and what it printed."""

    seconds: float
    memory: float
    lines: int
    longest: int

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s, {self.memory:.2f} GB, {self.lines} lines of up to {self.longest}"


def write_vocabulary(folder: Path, languages: list[str]) -> tuple[Path, Path]:
    """A SentencePiece model, and a dictionary of its pieces that has as many tokens as that of the training."""
    draw = random.Random(1)
    text = (" ".join(f"w{draw.randrange(WORDS)}" for _ in range(8)) for _ in range(2000))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=text, model_prefix=str(folder / "spm"), vocab_size=120, minloglevel=2, num_threads=1
    )
    spm = folder / "spm.model"
    processor = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    pieces = [processor.id_to_piece(number) for number in range(3, len(processor))]
    unused = [f"madeupword{number:04}" for number in range(WORDS - len(pieces))]
    tokens = [*pieces, *unused, *(f"__{name}__" for name in languages)]
    dictionary = folder / "pieces.txt"
    dictionary.write_text("".join(f"{token} 1\n" for token in tokens), encoding="utf-8")
    return dictionary, spm


def commands(folder: Path, out: Path, languages: list[str]) -> dict[str, list[str]]:
    """The commands by their names, in an order in which each finds what it reads."""
    dictionary, spm = map(str, write_vocabulary(out, languages))
    model, data, levels = str(folder / "out" / "checkpoint_last.pt"), str(folder / "bin"), str(folder / "levels.yaml")
    every, pairs = ",".join(languages), str(folder / "pairs.txt")
    source, target = languages[0], languages[-1]
    direction = ["-s", source, "-t", target]
    vocabulary = ["--fixed-dictionary", dictionary, "--sentencepiece-model", spm]
    half = len(languages) // 2
    stock = [
        "fairseq-generate", data, "--path", model, "--user-dir", "langspec_lora", *direction, "--cpu", "--beam", "1",
        "--task", "translation_multi_simple_epoch_lora", "--langs", every, "--lang-pairs", pairs, "--max-len-b", "5",
        "--encoder-langtok", "src", "--decoder-langtok", "--fixed-dictionary", str(folder / "dict.txt"),
        "--max-len-a", "0", "--gen-subset", "test",
    ]  # fmt: skip

    def ours(command: str, *words: str, to: str = "") -> list[str]:
        return ["langspec-lora", command, *words, *(["--out", str(out / to)] if to else [])]

    return {
        "inspect": ours("inspect", model),
        "inspect --json": ours("inspect", model, "--json"),
        "inspect --out": ours("inspect", model, to="pictures"),
        "translate": ours("translate", model, *direction, *vocabulary, "--cpu", "--max-len-b", "5", "w1 w2", "w3"),
        "export adapter": ours("export", model, "--format", "adapter", to="adapter"),
        "import adapter": ours("import", str(out / "adapter"), "--from", "adapter", "--base", model, to="imported.pt"),
        "export merged": ours("export", model, "--format", "merged", *direction, to="merged.pt"),
        "export huggingface": ours("export", model, "--format", "huggingface", *direction, *vocabulary, to="hf"),
        "export peft": ours("export", model, "--format", "peft", *direction, to="peft"),
        "import peft": ours(
            "import", str(out / "peft"), "--from", "peft", "--base", model, *direction, "--lang-resources", levels,
            "--encoder-activation-direction", "src_tgt", "--decoder-activation-direction", "tgt_tgt", to="peft.pt",
        ),
        "remove-language": ours("remove-language", model, "--langs", ",".join(languages[:half]), to="few.pt"),
        "add-language": ours(
            "add-language", str(out / "few.pt"), "--langs", ",".join(languages[:half]), "--lang-resources", levels,
            to="added.pt",
        ),
        "join": ours("join", str(out / "few.pt"), model, "--prefer", "A", to="joined.pt"),
        "average": ours("average", model, model, to="average.pt"),
        "defaults": ours("defaults", data, "--base", model, "--lang-resources", levels),
        "doctor": ours("doctor"),
        "fairseq-generate": stock,
        "export peft --all": ours("export", model, "--format", "peft", "--all", to="all"),
    }  # fmt: skip


def cost(words: list[str], log: Path) -> Cost:
    """Runs a command, which must succeed, and measures it."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))

    with log.open("w") as file:
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, preexec_fn=limit)
        _, status, usage = os.wait4(process.pid, 0)
    lines = log.read_text(encoding="utf-8").splitlines()
    if status:
        print(f"{' '.join(words)[:100]} failed; see {log}", flush=True)
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6, len(lines), max(map(len, lines), default=0))


def main() -> None:
    """Prints a line for each command and each number of languages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("languages", type=int, nargs="*", default=(12, 200))
    parser.add_argument("--lines", type=int, default=100, help="as given to growth.py")
    parser.add_argument("--only", help="names of commands, joined by commas")
    args = parser.parse_args()
    for count in args.languages:
        folder, languages = args.folder / f"{count}.{args.lines}", names(count)
        out = folder / "commands"
        if args.only is None:
            shutil.rmtree(out, ignore_errors=True)
        out.mkdir(exist_ok=True)
        for name, words in commands(folder, out, languages).items():
            if args.only is None or name in args.only.split(","):
                print(f"{count} languages, {name}: {cost(words, out / f'{name}.log')}", flush=True)


if __name__ == "__main__":
    main()
