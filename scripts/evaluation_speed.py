"""Times the published evaluation loop against ``langspec-lora evaluate`` on the same directions, in one run.

    python scripts/evaluation_speed.py DATA_BIN CHECKPOINT OUT --tokenize 13a -- --max-len-b 50

``langspec-lora evaluate`` runs before and after the loop. The hypotheses of both stay in OUT and are compared line by
line. Flags of fairseq-generate after ``--`` are passed to both. ``--every N`` takes only every N-th direction.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from langspec_lora.data.directions import Direction, choose_directions, find_directions
from langspec_lora.errors import UserError, command_line
from langspec_lora.evaluation.split_text import languages_of

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Shares:
    """How many seconds each part of an evaluation took."""

    start: float = 0.0
    decoding: float = 0.0
    scoring: float = 0.0
    parts: list[str] = field(default_factory=list)

    @property
    def total(self) -> float:
        """Seconds of the whole evaluation."""
        return self.start + self.decoding + self.scoring

    def __str__(self) -> str:
        named = {"start, loading": self.start, "decoding": self.decoding, "scoring": self.scoring}
        return f"{self.total:.1f} s: " + ", ".join(f"{n} {s:.1f} s ({s / self.total:.0%})" for n, s in named.items())


def stock_loop(args: argparse.Namespace, langs: Sequence[str], directions: Sequence[Direction]) -> Shares:
    """fairseq-generate and sacrebleu's command line, direction by direction."""
    shares, folder = Shares(), args.out / "loop"
    folder.mkdir()
    pairs = ",".join(map(str, directions))
    for number, direction in enumerate(directions, start=1):
        command = [BIN / "fairseq-generate", args.data_bin, "--user-dir", ROOT / "langspec_lora"]
        command += ["--path", args.checkpoint, "--fixed-dictionary", args.data_bin / f"dict.{langs[0]}.txt"]
        command += ["--required-batch-size-multiple", "1", "--langs", ",".join(args.langs or langs)]
        command += ["--lang-pairs", pairs, "-s", direction.source, "-t", direction.target, "--beam", "5"]
        command += ["--remove-bpe", "sentencepiece", "--task", "translation_multi_simple_epoch_lora"]
        command += ["--decoder-langtok", "--encoder-langtok", "src", "--gen-subset", "test", "--dataset-impl", "mmap"]
        command += ["--distributed-world-size", "1", "--distributed-no-spawn", *args.flags]
        start = time.monotonic()
        output = _run(command)
        generated = time.monotonic() - start
        decoding = float(re.search(r"in ([\d.]+)s \(", output)[1])
        lines = [line[2:].split("\t") for line in output.split("\n") if line.startswith("H-")]
        text = "".join(f"{fields[-1]}\n" for fields in sorted(lines, key=lambda fields: int(fields[0])))
        hypotheses = folder / f"{direction}.hyp.txt"
        hypotheses.write_text(text, encoding="utf-8")
        start = time.monotonic()
        _run(
            [
                BIN / "sacrebleu",
                args.references / f"test.{direction.target}",
                "-i",
                hypotheses,
                "-w",
                "2",
                *_tokenize(args),
            ]
        )
        shares.scoring += time.monotonic() - start
        shares.decoding += decoding
        shares.start += generated - decoding
        print(f"loop {number}/{len(directions)} {direction}: {generated:.1f} s", file=sys.stderr)
    return shares


def ours(args: argparse.Namespace, directions: Sequence[Direction], out: Path) -> Shares:
    """``langspec-lora evaluate``, by as many processes as asked for."""
    program = [BIN / "langspec-lora"]
    if args.processes > 1:
        program = [BIN / "torchrun", "--nproc_per_node", args.processes, BIN / "langspec-lora"]
    command = [*program, "evaluate", args.data_bin, "--checkpoint", args.checkpoint, "--out", out]
    command += ["--lang-pairs", ",".join(map(str, directions)), "--references", args.references, *_tokenize(args)]
    start = time.monotonic()
    output = _run([*command, *args.flags])
    total = time.monotonic() - start
    decoding, scoring = (float(re.search(rf"{part} ([\d.]+) s", output)[1]) for part in ("decoding", "scoring"))
    return Shares(total - decoding - scoring, decoding, scoring)


def compare(one: Path, other: Path, directions: Sequence[Direction]) -> tuple[int, int]:
    """Counts all hypotheses, and those that differ."""
    different = total = 0
    for direction in directions:
        texts = [(folder / f"{direction}.hyp.txt").read_text(encoding="utf-8").split("\n") for folder in (one, other)]
        total += len(texts[0]) - 1
        different += sum(a != b for a, b in zip(*texts, strict=True))
    return total, different


def _tokenize(args: argparse.Namespace) -> list[str]:
    return ["--tokenize", args.tokenize]


def _run(command: Sequence[object]) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{shlex.join(words)} failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    return done.stdout + done.stderr


def main() -> None:
    """Runs both ways to evaluate and prints the ratio of their times."""
    own, flags = sys.argv[1:], []
    if "--" in own:
        own, flags = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_bin", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--langs", type=lambda text: text.split(","), help="the model's languages (default: the data's)"
    )
    parser.add_argument("--references", type=Path, help="folder with test.LANG (default: mono beside the data)")
    parser.add_argument("--tokenize", default="spm", help="sacrebleu's tokenizer (default: %(default)s)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take only every N-th direction")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="processes of evaluate, by torchrun")
    args = parser.parse_args(own)
    args.flags, args.references = flags, args.references or args.data_bin.parent / "mono"
    directions = choose_directions(find_directions(args.data_bin, "test"), args.langs)
    langs, directions = languages_of(directions), directions[:: args.every]
    if args.out.exists():
        raise UserError(f"{args.out} already exists; give another folder")
    args.out.mkdir(parents=True)
    first = ours(args, directions, args.out / "ours")
    loop = stock_loop(args, langs, directions)
    second = ours(args, directions, args.out / "ours again")
    for name, shares in (("ours", first), ("the loop", loop), ("ours again", second)):
        print(f"{name}: {shares}")
    total, different = compare(args.out / "loop", args.out / "ours", directions)
    print(f"{len(directions)} directions; {different} of {total} hypotheses differ")
    print(f"the loop / ours: {2 * loop.total / (first.total + second.total):.2f}")


if __name__ == "__main__":
    with command_line():
        main()
