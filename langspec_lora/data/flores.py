"""Prepares FLORES-101 as binarised data for all directions of a set of languages.

FLORES-101 has two public splits in which line N is the same sentence in every language. As in the paper, ``dev`` (997
lines) is the training set and ``devtest`` (1,012 lines) the test set, which the published evaluation loop translates.
The validation set is the first lines of devtest, so it overlaps with the test set. The published command uses
validation only to print a loss; for choices by validation, the test set can leave these lines out (``apart``).

::

    OUT/data-bin/     train, valid and test of all pairs, dict.LANG.txt, sentencepiece.bpe.model: the DATA_BIN of the
                      published commands
    OUT/mono/         the same text, not binarised: train.LANG, valid.LANG, test.LANG (the published loop's FLORES_MONO)
    OUT/spm.model     the SentencePiece model
    OUT/dict.txt      the dictionary, with the language tokens at its end
    OUT/pairs.txt     all directions, for --lang-pairs
    OUT/settings.json the languages, text and vocabulary that the folder was made from
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from langspec_lora.data.binarise import Summary, binarise, multi_parallel
from langspec_lora.data.flores_download import SPLITS, URL, download
from langspec_lora.data.vocabulary import (
    check_fit,
    check_vocabulary_options,
    dictionary_text,
    lacking_tokens,
    train_sentencepiece,
)
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.files import NotUtf8, below, read_json, read_lines, sha256, write_json, write_whole
from langspec_lora.languages import Resources
from langspec_lora.naming import some_of

PAIRS = "pairs.txt"
VALID_LINES = 100
VOCAB_SIZE = 8000

_SETTINGS = "settings.json"
_UNKNOWN_TOKENS = 0.01  # a higher share is reported


@dataclass(frozen=True)
class Prepared:
    """The result of :func:`prepare`.

    Attributes:
        data_bin: the binarised folder.
        summary: its size; None if the folder was already complete.
        vocabulary: number of entries in the dictionary file, including language tokens.
        notes: notes for the user.
    """

    data_bin: Path
    summary: Summary | None
    vocabulary: int
    notes: tuple[str, ...]


def prepare(
    out: Path,
    resources: Resources,
    archive: Path | None = None,
    spm: Path | None = None,
    dictionary: Path | None = None,
    vocab_size: int = VOCAB_SIZE,
    valid_lines: int = VALID_LINES,
    url: str = URL,
    say: Callable[[str], None] = lambda text: None,
    apart: bool = False,
) -> Prepared:
    """Prepares the folder; the same call completes it after an interruption.

    Args:
        out: the folder.
        resources: the languages and their FLORES codes.
        archive: an unpacked archive; if None, it is downloaded into ``out``.
        spm: SentencePiece model, such as M2M100's; if None, one is trained on the training set.
        dictionary: the dictionary of ``spm``.
        vocab_size: size of the SentencePiece model to train.
        valid_lines: number of lines at the start of devtest that form the validation set.
        url: address of the archive.
        say: called with a message before each long step.
        apart: leave the validation lines out of the test set.

    Raises:
        UserError: an input is missing, damaged, empty or misaligned, or ``out`` was prepared with other settings.
    """
    with collect_errors() as errors:
        with errors.check():
            codes = flores_codes(resources)
        check_options(archive, spm, dictionary, vocab_size, valid_lines)
    folder = find_splits(archive if archive is not None else download(url, out))
    text = read_text(folder, codes)
    lines = {split: len(next(iter(text[split].values()))) for split in SPLITS}
    most = lines["devtest"] - apart
    if not 1 <= valid_lines <= most:
        raise UserError(
            f"--valid-lines {valid_lines}: devtest has {lines['devtest']} lines; give a number between 1 and {most}"
            + (", as --apart needs the others" if apart else "")
        )
    settings = _settings(codes, text, spm, dictionary, vocab_size, valid_lines, apart)
    if _is_complete(out, settings):
        _write_pairs(out, codes)  # earlier versions did not
        return Prepared(out / "data-bin", None, _count_lines(out / "dict.txt"), ())
    if spm is not None and dictionary is not None:
        check_fit(spm, dictionary)

    write_json(out / _SETTINGS, {**settings, "complete": False})
    files = _write_text(out / "mono", text, valid_lines, apart)
    if spm is None and not (out / "dict.txt").is_file():
        say(f"training a SentencePiece model of {vocab_size:,} pieces on dev")
    notes = _place_vocabulary(out, text["dev"], spm, dictionary, vocab_size)
    say("binarising")
    # fairseq reads every split under the name of either direction, so one per pair is enough.
    bitexts = [bitext for split in files for bitext in multi_parallel(split, files[split])]
    summary = binarise(bitexts, out / "dict.txt", out / "data-bin", spm_model=out / "spm.model")
    unknown = summary.unknown / summary.tokens
    if unknown > _UNKNOWN_TOKENS:
        notes.append(f"{unknown:.1%} of the tokens are unknown to the dictionary")
    _write_pairs(out, codes)
    write_json(out / _SETTINGS, {**settings, "complete": True})
    return Prepared(out / "data-bin", summary, _count_lines(out / "dict.txt"), tuple(notes))


def find_splits(folder: Path) -> Path:
    """Finds ``dev`` and ``devtest`` in an unpacked archive of FLORES-101 or FLORES-200.

    Args:
        folder: the folder that contains them, or its parent, in which the archive was unpacked.

    Raises:
        UserError: they are missing, or in several folders.
    """
    inner = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for candidates in ([folder], inner):
        found = [path for path in candidates if all((path / split).is_dir() for split in SPLITS)]
        if len(found) > 1:
            names = some_of(path.name for path in found)
            raise UserError(f"{folder} has dev and devtest in several folders ({names}); give one of them as --from")
        if found:
            return found[0]
    raise UserError(f"{folder} has no folders dev and devtest; give the unpacked FLORES archive as --from")


def read_text(folder: Path, codes: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    """Reads and checks the text of both splits.

    Args:
        folder: contains ``dev/CODE.dev`` and ``devtest/CODE.devtest``.
        codes: FLORES code of each language.

    Returns:
        The lines of each language, for ``dev`` and ``devtest``.

    Raises:
        UserError: a file is missing, empty, not UTF-8 or has an empty line, or the files differ in length.
    """
    text: dict[str, dict[str, list[str]]] = {}
    for split in SPLITS:
        text[split] = {}
        first: tuple[Path, int] | None = None
        for name, code in codes.items():
            path = below(folder / split, f"{code}.{split}")
            lines = _read_lines(path, name)
            first = first or (path, len(lines))
            if len(lines) != first[1]:
                raise UserError(
                    f"{path}, line {min(len(lines), first[1]) + 1}: the files differ in length; it has "
                    f"{len(lines)} lines, {first[0].name} has {first[1]}; line N of all files must be the same sentence"
                )
            text[split][name] = lines
    return text


def _read_lines(path: Path, name: str) -> list[str]:
    if not path.exists():
        raise UserError(
            f"{path} not found (language {name!r}); correct the code under 'flores:', or leave the language out"
        )
    try:
        lines = read_lines(path)
    except NotUtf8 as error:
        raise UserError(f"{path}, line {error.line}: not UTF-8; unpack the archive again") from error
    for number, line in enumerate(lines or [""], start=1):
        if not line.strip():
            raise UserError(f"{path}, line {number}: empty; every line must contain a sentence")
    return lines


def flores_codes(resources: Resources) -> dict[str, str]:
    """The FLORES code of each language.

    Raises:
        UserError: a language has no code or no level, two have the same code, or there are fewer than two.
    """
    missing = [name for name in resources.levels if name not in resources.flores]
    if missing:
        raise UserError(f"no FLORES code for {some_of(missing)}; add lines such as 'fr: fra' under 'flores:'")
    without_level = [name for name in resources.flores if name not in resources.levels]
    if without_level:
        raise UserError(f"{without_level[0]!r} has a FLORES code but no level; put it under high, med or low")
    codes = list(resources.flores.values())
    twice = [name for name, code in resources.flores.items() if codes.count(code) > 1]
    if twice:
        raise UserError(f"{' and '.join(twice)} have the same FLORES code; give each language its code")
    if len(resources.levels) < 2:
        raise UserError("--languages names fewer than two languages; name at least two")
    return {name: resources.flores[name] for name in resources.levels}


def check_options(
    archive: Path | None, spm: Path | None, dictionary: Path | None, vocab_size: int, valid_lines: int
) -> None:
    """Checks what :func:`prepare` takes besides the languages, before anything is downloaded or read.

    Raises:
        UserError: files are missing, or numbers are out of range; all mistakes are listed.
    """
    with collect_errors() as errors:
        with errors.check():
            check_vocabulary_options(spm, dictionary, vocab_size)
        with errors.check():
            if valid_lines < 1:
                raise UserError(f"--valid-lines {valid_lines}: expected a number of lines of at least 1")
        if archive is not None:
            find_splits(archive)


def _settings(
    codes: Mapping[str, str],
    text: Mapping[str, Mapping[str, Sequence[str]]],
    spm: Path | None,
    dictionary: Path | None,
    vocab_size: int,
    valid_lines: int,
    apart: bool,
) -> dict:
    digest = hashlib.sha256()
    for split in SPLITS:
        for name, lines in text[split].items():
            digest.update("\n".join([split, name, *lines, ""]).encode())
    return {
        "languages": dict(codes),
        "text_sha256": digest.hexdigest(),
        "valid_lines": valid_lines,
        "apart": apart or None,  # folders of earlier versions do not say it
        "vocab_size": None if spm else vocab_size,
        "spm_sha256": sha256(spm) if spm else None,
        "dict_sha256": sha256(dictionary) if dictionary else None,
    }


def _is_complete(out: Path, settings: Mapping) -> bool:
    """Whether ``out`` was completely prepared with these settings.

    Raises:
        UserError: it was prepared, completely or in part, with others.
    """
    path = out / _SETTINGS
    if not path.is_file():
        others = [name for name in ("data-bin", "mono", "spm.model", "dict.txt") if (out / name).exists()]
        if others:
            raise UserError(f"{out} already contains {others[0]}, which was not prepared here; give another --out")
        return False
    recorded = read_json(path, again="give another --out")
    changed = [name for name, value in settings.items() if recorded.get(name) != value]
    if changed:
        raise UserError(f"{out} was prepared with other settings ({some_of(changed)} differ); give another --out")
    data = out / "data-bin"
    names = list(settings["languages"])
    dictionaries = all((data / f"dict.{name}.txt").exists() for name in names)
    sides = len(list(data.glob("test.*-*.*.idx"))) == math.comb(len(names), 2) * 2 if data.is_dir() else False
    return bool(recorded.get("complete")) and dictionaries and sides and (out / "dict.txt").is_file()


def _write_text(
    folder: Path, text: Mapping[str, Mapping[str, Sequence[str]]], valid_lines: int, apart: bool
) -> dict[str, dict[str, Path]]:
    files: dict[str, dict[str, Path]] = {"train": {}, "valid": {}, "test": {}}
    for name, dev in text["dev"].items():
        devtest = text["devtest"][name]
        tested = devtest[valid_lines:] if apart else devtest
        for split, lines in (("train", dev), ("valid", devtest[:valid_lines]), ("test", tested)):
            files[split][name] = folder / f"{split}.{name}"
            write_whole(files[split][name], "".join(f"{line}\n" for line in lines))
    return files


def _place_vocabulary(
    out: Path, training: Mapping[str, Sequence[str]], spm: Path | None, dictionary: Path | None, vocab_size: int
) -> list[str]:
    """Writes ``spm.model`` and ``dict.txt``; returns notes for the user."""
    if spm is None or dictionary is None:
        if not (out / "dict.txt").is_file():
            model = train_sentencepiece([line for lines in training.values() for line in lines], vocab_size)
            write_whole(out / "spm.model", model)
            write_whole(out / "dict.txt", dictionary_text(model, training))
        return []
    write_whole(out / "spm.model", spm.read_bytes())
    write_whole(out / "dict.txt", dictionary.read_bytes())
    return lacking_tokens(dictionary, training)


def _write_pairs(out: Path, languages: Iterable[str]) -> None:
    if not (out / PAIRS).exists():
        write_whole(out / PAIRS, ",".join(map("-".join, permutations(languages, 2))) + "\n")


def _count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")
