"""Parallel text as plain data, and its files in every form that can be read."""

from __future__ import annotations

import gzip
import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from fairseq.data import Dictionary, data_utils
from sentencepiece import SentencePieceProcessor

from langspec_lora.data.vocabulary import dictionary_text, train_sentencepiece

Rows = list[tuple[str, ...]]
LETTERS = {"en": "abcdefgh", "fr": "ijklmnopé", "wo": "qrstuvwx", "zz": "yzABCDEF"}


def sentences(language: str, count: int, draw: random.Random, words: int = 6) -> list[str]:
    letters = LETTERS[language]
    return [
        " ".join("".join(draw.choices(letters, k=draw.randint(2, 4))) for _ in range(draw.randint(2, words)))
        for _ in range(count)
    ]


def rows_of(languages: Sequence[str], count: int, seed: int) -> Rows:
    draw = random.Random(seed)
    return list(zip(*(sentences(language, count, draw) for language in languages), strict=True))


def write_lines(path: Path, lines: Iterable[str], end: str = "\n", mark: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = (mark + "".join(f"{line}{end}" for line in lines)).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_columns(folder: Path, names: Sequence[str], rows: Rows, **how: str) -> None:
    """A file for each column."""
    for number, name in enumerate(names):
        write_lines(folder / name, [row[number] for row in rows], **how)


def write_tsv(path: Path, rows: Rows, header: Sequence[str] = ()) -> None:
    write_lines(path, ["\t".join(row) for row in [*([tuple(header)] if header else []), *rows]])


def vocabulary(folder: Path) -> tuple[Path, Path]:
    """A small SentencePiece model of all letters, and its dictionary."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    model = train_sentencepiece([line for language in LETTERS for line in sentences(language, 60, draw)], 80)
    (folder / "spm.model").write_bytes(model)
    (folder / "dict.txt").write_text(dictionary_text(model, LETTERS), encoding="utf-8")
    return folder / "spm.model", folder / "dict.txt"


def tokens_of(folder: Path, line: str) -> tuple[int, ...]:
    """The ids of a line, by SentencePiece and fairseq themselves."""
    pieces = SentencePieceProcessor(model_file=str(folder / "spm.model")).encode(line, out_type=str)
    words = Dictionary.load(str(folder / "dict.txt"))
    return tuple(words.encode_line(" ".join(pieces), add_if_not_exist=False).tolist())


def written(folder: Path, split: str, pair: tuple[str, str]) -> Counter:
    """The pairs of sentences in the binarised folder, as ids."""
    prefix = folder / "data-bin" / f"{split}.{pair[0]}-{pair[1]}"
    sides = [data_utils.load_indexed_dataset(f"{prefix}.{name}", None, "mmap") for name in pair]
    assert len(sides[0]) == len(sides[1])
    return Counter(zip(*([tuple(line.tolist()) for line in side] for side in sides), strict=True))


def plain(line: str) -> str:
    """A sentence without what does not count when held-out text is looked for."""
    return " ".join(unicodedata.normalize("NFKC", line).casefold().split())
