"""Binarises the text of many language pairs for fairseq and writes each side once.

``fairseq-preprocess`` takes one language pair at a time: twelve multi-parallel languages need 66 runs, which write
every side eleven times. Here fairseq's builder writes each distinct side once, and links give it every name that
fairseq looks for::

    OUT/dict.ka.txt                 -> shared/dict.txt
    OUT/sentencepiece.bpe.model     -> shared/sentencepiece.bpe.model
    OUT/train.ka-mi.ka.bin, .idx    -> shared/train.ka.0f3c….bin, .idx
    OUT/train.ka-mi.mi.bin, .idx    -> shared/train.mi.9b21….bin, .idx

fairseq also finds ``train.ka-mi`` for the direction mi-ka, so a language pair with the same text in both directions
gets only one name. All text is held in memory.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from langspec_lora.data.encoding import Encoder, SideWriter
from langspec_lora.data.vocabulary import SENTENCEPIECE, load_dictionary
from langspec_lora.errors import UserError
from langspec_lora.files import read_lines
from langspec_lora.naming import some_of
from langspec_lora.partial_files import partial_path, remove_leftovers
from langspec_lora.progress import Progress

SHARED = "shared"
"""The subfolder of the binarised folder that contains the files; fairseq does not look into it."""

_AT_ONCE = 20_000  # lines


@dataclass(frozen=True)
class Bitext:
    """One split of one language pair: line N of both files is the same sentence.

    Attributes:
        split: ``train``, ``valid``, ``test`` (or ``train1``, …, fairseq's further parts).
        source: language of ``source_file``.
        target: language of ``target_file``.
        source_file: UTF-8 text, one sentence per line.
        target_file: likewise.
    """

    split: str
    source: str
    target: str
    source_file: Path
    target_file: Path


@dataclass(frozen=True)
class Summary:
    """The content of a folder that :func:`binarise` wrote or completed.

    Attributes:
        sides: number of distinct sides (a ``.bin`` and an ``.idx`` file each) in ``shared/``.
        names: number of names that link to them, such as ``train.ka-mi.ka``.
        sentences: number of sentences in the distinct sides.
        tokens: number of tokens in the distinct sides, including end of sentence.
        unknown: number of these tokens that are not in the dictionary.
    """

    sides: int
    names: int
    sentences: int
    tokens: int
    unknown: int


@dataclass(frozen=True)
class _Side:
    split: str
    language: str
    path: Path
    lines: tuple[str, ...]
    digest: str

    @property
    def stem(self) -> str:
        return f"{self.split}.{self.language}.{self.digest[:16]}"


def multi_parallel(
    split: str, files: Mapping[str, str | Path], directions: Iterable[tuple[str, str]] | None = None
) -> list[Bitext]:
    """Makes the bitexts of a multi-parallel text: line N is the same sentence in all languages.

    Args:
        split: ``train``, ``valid`` or ``test``.
        files: each language's file.
        directions: source and target languages; one direction of a language pair is enough for both. By default all
            pairs of different languages.

    Returns:
        One bitext per language pair, for :func:`binarise`.

    Raises:
        UserError: a direction names a language without a file, or the same language twice.
    """
    languages = list(files)
    if directions is None:
        directions = [(a, b) for i, a in enumerate(languages) for b in languages[i + 1 :]]
    pairs: dict[frozenset[str], tuple[str, str]] = {}
    for source, target in directions:
        for language in (source, target):
            if language not in files:
                raise UserError(
                    f"direction {source}-{target}: no {split} text for {language!r}; expected one of "
                    f"{some_of(languages)}"
                )
        if source == target:
            raise UserError(f"direction {source}-{target}: source and target must be different languages")
        pairs.setdefault(frozenset((source, target)), (source, target))
    return [Bitext(split, a, b, Path(files[a]), Path(files[b])) for a, b in pairs.values()]


def binarise(
    bitexts: Iterable[Bitext],
    dictionary: str | Path,
    out: str | Path,
    *,
    spm_model: str | Path | None = None,
    languages: Iterable[str] = (),
) -> Summary:
    """Writes a binarised folder for the stock fairseq commands.

    All text is checked and encoded before the first file gets its final name, and files are written completely before
    they are renamed. Existing files with the same content are kept, so calling this again completes an interrupted
    call. The folder may contain other files.

    Args:
        bitexts: the bitexts of all splits; :func:`multi_parallel` makes them from one file per language.
        dictionary: fairseq dictionary (``token count`` lines) of all languages, written as ``dict.LANG.txt``.
        out: the folder to write.
        spm_model: SentencePiece model that splits the lines, written as ``sentencepiece.bpe.model``; without it, tokens
            are separated by spaces.
        languages: further languages that get a ``dict.LANG.txt``.

    Returns:
        A summary of the folder.

    Raises:
        UserError: a file is missing, empty, not UTF-8 or has an empty line, two sides differ in length, or ``out``
            has a file of the same name with other content.
    """
    bitexts = list(bitexts)
    if not bitexts:
        raise UserError("no text to binarise was given; give at least one pair of files")
    vocabulary = load_dictionary(Path(dictionary))
    encoder = Encoder(vocabulary, None if spm_model is None else Path(spm_model))
    names, sides = _read_sides(bitexts)
    languages = sorted({*languages, *(language for b in bitexts for language in (b.source, b.target))})

    out = Path(out)
    created = not out.exists()
    partial = partial_path(out / "binarise")
    remove_leftovers(out)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror}; give a writable output folder") from error
    try:
        sentences, tokens, unknown = _write_sides(sides, encoder, partial)
        vocabulary.save(str(partial / "dict.txt"))
        if spm_model is not None:
            shutil.copyfile(spm_model, partial / SENTENCEPIECE)
        links = {f"dict.{language}.txt": "dict.txt" for language in languages}
        links |= {f"{name}.{end}": f"{side.stem}.{end}" for name, side in names.items() for end in ("bin", "idx")}
        links |= {SENTENCEPIECE: SENTENCEPIECE} if spm_model is not None else {}
        _refuse_other_content(partial, links, out)
        _move_in(partial, links, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if created and not any(out.iterdir()):
            out.rmdir()
    return Summary(len(sides), len(names), sentences, tokens, unknown)


def _read_lines(path: Path) -> tuple[str, ...]:
    """The sentences of a file, stripped of surrounding white space; refuses empty ones."""
    lines = tuple(line.strip() for line in read_lines(path))
    if not lines:
        raise UserError(f"{path}, line 1: the file is empty; expected one sentence per line")
    for number, line in enumerate(lines, start=1):
        if not line:
            raise UserError(f"{path}, line {number}: empty; every line must contain a sentence, on both sides")
    return lines


def _read_sides(bitexts: Iterable[Bitext]) -> tuple[dict[str, _Side], list[_Side]]:
    """Reads every file once, and maps names to distinct sides.

    Returns:
        The side of each name ``SPLIT.SRC-TGT.LANG``, and the distinct sides.
    """
    read: dict[Path, tuple[tuple[str, ...], str]] = {}
    sides: dict[str, _Side] = {}
    names: dict[str, _Side] = {}

    def side(split: str, language: str, path: Path) -> _Side:
        if path not in read:
            lines = _read_lines(path)
            read[path] = lines, hashlib.sha256("\n".join(lines).encode()).hexdigest()
        new = _Side(split, language, path, *read[path])
        return sides.setdefault(new.stem, new)

    for bitext in bitexts:
        source = side(bitext.split, bitext.source, bitext.source_file)
        target = side(bitext.split, bitext.target, bitext.target_file)
        if len(source.lines) != len(target.lines):
            shorter, longer = sorted((bitext.source_file, bitext.target_file), key=lambda path: len(read[path][0]))
            count = len(read[shorter][0])
            raise UserError(
                f"{shorter}, line {count + 1}: missing; the file has {count} lines, {longer} has "
                f"{len(read[longer][0])}; line N of both files must be the same sentence"
            )
        reverse = f"{bitext.split}.{bitext.target}-{bitext.source}"
        if names.get(f"{reverse}.{bitext.source}") is source and names.get(f"{reverse}.{bitext.target}") is target:
            continue
        prefix = f"{bitext.split}.{bitext.source}-{bitext.target}"
        for language, new in ((bitext.source, source), (bitext.target, target)):
            if names.setdefault(f"{prefix}.{language}", new) is not new:
                raise UserError(
                    f"{new.path}: {prefix} was given twice with different text; give each language pair once"
                )
    return names, list(sides.values())


def _write_sides(sides: Iterable[_Side], encoder: Encoder, folder: Path) -> tuple[int, int, int]:
    """Writes ``STEM.bin`` and ``STEM.idx`` of every side; returns the numbers of sentences, tokens and unknowns."""
    sentences = tokens = unknown = 0
    for side in Progress(sides, desc="binarising", unit="side", disable=None, leave=False):
        with SideWriter(folder / side.stem, len(encoder.vocabulary)) as writer:
            for start in range(0, len(side.lines), _AT_ONCE):
                ids, sizes = encoder.encode(side.lines[start : start + _AT_ONCE])
                writer.add(ids, sizes)
                tokens += len(ids)
                unknown += int((ids == encoder.vocabulary.unk()).sum())
        sentences += len(side.lines)
    return sentences, tokens, unknown


def _refuse_other_content(partial: Path, links: Mapping[str, str], out: Path) -> None:
    new = {out / SHARED / name: partial / name for name in set(links.values())}
    new |= {out / name: partial / file for name, file in links.items()}
    for path, content in sorted(new.items()):
        if path.exists() and not (path.is_file() and filecmp.cmp(path, content, shallow=False)):
            raise UserError(f"{path} already exists with other content and was kept; give another output folder")


def _move_in(partial: Path, links: Mapping[str, str], out: Path) -> None:
    (out / SHARED).mkdir(exist_ok=True)
    for name in sorted(set(links.values())):
        (partial / name).replace(out / SHARED / name)
    for name, file in sorted(links.items()):
        if not (out / name).exists():
            link(out / SHARED / file, partial / name)
            (partial / name).replace(out / name)


def link(content: Path, name: Path) -> None:
    """Links a name in a binarised folder to a file in its ``shared/``, or copies it if links are not supported.

    Args:
        content: the file.
        name: the new name; it may still be moved into the binarised folder.
    """
    try:
        name.symlink_to(Path(SHARED) / content.name)
    except OSError:
        try:
            os.link(content, name)
        except OSError:
            shutil.copyfile(content, name)
