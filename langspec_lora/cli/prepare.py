"""``langspec-lora prepare``: any parallel text becomes data to train on."""

# Imports in functions: they keep NumPy and SentencePiece out of --help.

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from langspec_lora.data.own_text.defaults import HIGH, MAX_LENGTH, MAX_RATIO, MED, TEMPERATURE
from langspec_lora.naming import some_of
from langspec_lora.notes import note, show

EXAMPLE = "--train corpus --valid dev --test test --out data"

_TEXT = {"train": "training", "valid": "validation", "test": "test"}
_MOST_PAIRS = 30
_SHOWN_PAIRS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    text = parser.add_argument_group("text (A-B.A and A-B.B, test.A and test.B, or A-B.tsv; each also with .gz)")
    for split, what in _TEXT.items():
        text.add_argument(
            f"--{split}",
            nargs="+",
            required=split == "train",
            default=[],
            type=Path,
            metavar="DIR",
            help=f"folders of the {what} text",
        )
    for split in ("valid", "test"):
        text.add_argument(
            f"--{split}-lines",
            type=int,
            metavar="N",
            help=f"cut N lines, at most a tenth, out of the training text of each pair without {_TEXT[split]} text",
        )
    text.add_argument(
        "--languages",
        type=Path,
        metavar="FILE",
        help="YAML file of levels, which names the languages to take, in order (default: all; levels are suggested)",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to make")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that was made with other settings")
    vocabulary = parser.add_argument_group("vocabulary")
    vocabulary.add_argument(
        "--spm", type=Path, metavar="FILE", help="SentencePiece model of the model to fine-tune (default: train one)"
    )
    vocabulary.add_argument(
        "--dict", type=Path, dest="dictionary", metavar="FILE", help="dictionary that belongs to --spm"
    )
    vocabulary.add_argument(
        "--vocab-size",
        type=int,
        metavar="N",
        help="size of the SentencePiece model, if one is trained (default: 1000 for each language, 8000 to 64000)",
    )
    vocabulary.add_argument(
        "--vocab-temperature",
        type=float,
        default=TEMPERATURE,
        metavar="T",
        help="how evenly it is trained on the languages: 1 for as much as each has, more for more even shares",
    )
    filters = parser.add_argument_group("filters of the training text")
    filters.add_argument("--max-length", type=int, default=MAX_LENGTH, metavar="N", help="most tokens of a sentence")
    filters.add_argument(
        "--max-ratio",
        type=float,
        default=MAX_RATIO,
        metavar="R",
        help="most tokens of a sentence for each of its translation",
    )
    filters.add_argument("--keep-duplicates", action="store_true", help="keep pairs that occur again")
    levels = parser.add_argument_group("suggested resource levels")
    levels.add_argument(
        "--high-lines", type=int, default=HIGH, metavar="N", help="different training sentences of a high language"
    )
    levels.add_argument(
        "--med-lines", type=int, default=MED, metavar="N", help="different training sentences of a med language"
    )


def run(args: argparse.Namespace) -> int:
    """Makes the folder, and prints what it holds and the commands that follow."""
    from langspec_lora.cli.next_commands import NextData, next_commands
    from langspec_lora.data.own_text.filters import Limits
    from langspec_lora.data.own_text.prepare import Options, prepare

    started = time.monotonic()
    lines = {"valid": args.valid_lines, "test": args.test_lines}
    options = Options(
        folders={"train": tuple(args.train), "valid": tuple(args.valid), "test": tuple(args.test)},
        lines={split: count for split, count in lines.items() if count is not None},
        languages=args.languages,
        spm=args.spm,
        dictionary=args.dictionary,
        vocab_size=args.vocab_size,
        temperature=args.vocab_temperature,
        limits=Limits(args.max_length, args.max_ratio, args.keep_duplicates),
        high=args.high_lines,
        med=args.med_lines,
    )
    record, made = prepare(options, args.out, args.overwrite, say=note)
    summary, settings = record["summary"], record["settings"]
    if not made:
        show(f"{args.out}: complete, made from the same text and settings")
    show(
        f"{args.out / 'data-bin'}: {len(settings['languages'])} languages, {record['directions']:,} training "
        f"directions; {summary['sentences']:,} sentences in {summary['sides']:,} sides, {summary['tokens']:,} tokens, "
        f"{summary['unknown'] / summary['tokens']:.2%} unknown; dictionary of {record['dictionary_entries']:,} entries"
        + (f"; {time.monotonic() - started:.0f} s" if made else "")
    )
    show("", *_table(record["splits"]), *_pairs(args.out / "counts.tsv"), "", *_levels(record))
    for text in record["notes"]:
        show(f"note: {text}")
    data = NextData(
        data_bin=args.out / "data-bin",
        out=args.out,
        languages=settings["languages"],
        lines=record["splits"]["train"]["kept"],
        levels=args.out / "languages.yaml",
        pairs=args.out / "pairs.txt",
        dictionary=args.dictionary,
        has_test=record["splits"]["test"]["kept"] > 0,
    )
    show("", "# Next commands, from this folder:", next_commands(data))
    return 0


def _table(splits: Mapping[str, Mapping[str, int]]) -> Iterable[str]:
    """The counts of each split; a line serves both directions of its language pair."""
    head = ["split", *(name.replace("_", " ") for name in splits["train"])]
    return _aligned([head, *([split, *map(_number, own.values())] for split, own in splits.items() if own["read"])])


def _pairs(path: Path) -> Iterable[str]:
    """The counts of each language pair, or of those that lost most of their lines if there are many."""
    head, *rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    rows = [row for row in rows if row[1] == "train"]
    title = []
    if len(rows) > _MOST_PAIRS:
        pairs = len(rows)
        rows = sorted((row for row in rows if row[-1] != row[2]), key=lambda row: int(row[-1]) / max(1, int(row[2])))
        if not rows:
            return [f"({path} has the counts of all {pairs:,} language pairs)"]
        rows = rows[:_SHOWN_PAIRS]
        title = [f"the {len(rows)} of {pairs:,} language pairs that lost most ({path} has all):"]
    body = [[row[0], *(_number(int(cell)) for cell in row[2:])] for row in rows]
    return ["", *title, *_aligned([[head[0], *(name.replace("_", " ") for name in head[2:])], *body])]


def _levels(record: Mapping[str, Any]) -> Iterable[str]:
    """The languages of each level, with their numbers of training sentences."""
    for level in ("high", "med", "low"):
        own = [name for name, of in record["levels"].items() if of == level]
        if own:
            sentences = (f"{name} {record['sentences'][name]:,}" for name in own)
            yield f"{level}: {some_of(sentences)} different training sentences"


def _number(value: int) -> str:
    return f"{value:,}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table: the first column to the left, the numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
