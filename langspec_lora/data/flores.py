"""FLORES-101 as a binarised folder for all directions of a set of languages.

FLORES-101 has two public splits in which line N is the same sentence in every language. As in the paper, ``dev`` (997
lines) is for training and ``devtest`` (1,012 lines) for everything else: the test set is all of devtest, as the
published evaluation loop translates it, and the validation set is its first lines, so these are test lines as well.
Validation only prints a loss in the published command, which takes no checkpoint by it; whoever selects by validation
should score the other lines of the test set only.

::

    OUT/data-bin/     train, valid and test of all pairs, dict.LANG.txt, sentencepiece.bpe.model: the DATA_BIN of the
                      published commands
    OUT/mono/         the same text, raw: train.LANG, valid.LANG, test.LANG (the published loop's FLORES_MONO)
    OUT/spm.model     the SentencePiece model
    OUT/dict.txt      the dictionary, language tokens at its end
    OUT/settings.json what the folder was made from
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from langspec_lora.data.binarise import Summary, binarise, multi_parallel
from langspec_lora.data.vocabulary import check_fit, dictionary_text, dictionary_tokens, train_sentencepiece
from langspec_lora.errors import UserError
from langspec_lora.files import NotUtf8, read_lines, sha256, write_json, write_whole
from langspec_lora.languages import Resources
from langspec_lora.progress import Progress

URL = "https://dl.fbaipublicfiles.com/flores101/dataset/flores101_dataset.tar.gz"
"""The official archive (Goyal et al., TACL 2022)."""

VALID_LINES = 100
VOCAB_SIZE = 8000

_SPLITS = ("dev", "devtest")
_INNER = "flores101_dataset"
_SETTINGS = "settings.json"
_UNKNOWN_TOKENS = 0.01  # worth a remark


@dataclass(frozen=True)
class Prepared:
    """What :func:`prepare` made or found.

    Attributes:
        data_bin: the binarised folder.
        summary: its size; None where everything was there already.
        vocabulary: entries of the dictionary file, language tokens included.
        notes: remarks for the user.
    """

    data_bin: Path
    summary: Summary | None
    vocabulary: int
    notes: tuple[str, ...]


def prepare(
    out: Path,
    resources: Resources,
    source: Path | None = None,
    spm: Path | None = None,
    dictionary: Path | None = None,
    vocab_size: int = VOCAB_SIZE,
    valid_lines: int = VALID_LINES,
    url: str = URL,
    say: Callable[[str], None] = lambda text: None,
) -> Prepared:
    """Makes the folder; interrupted, it is completed by the same call.

    Args:
        out: the folder.
        resources: the languages and their FLORES codes.
        source: an unpacked archive; downloaded into ``out`` where None.
        spm: SentencePiece model, such as M2M100's; trained on the training side where None.
        dictionary: the dictionary that belongs to ``spm``.
        vocab_size: size of the SentencePiece model to train.
        valid_lines: how many of devtest's first lines are the validation set.
        url: where the archive is.
        say: called with a line before a step that takes a while.

    Raises:
        UserError: an input is missing, damaged, empty or misaligned, or ``out`` holds a folder of other settings.
    """
    codes = _codes(resources)
    _check_options(spm, dictionary, vocab_size)
    folder = find_splits(source if source is not None else download(url, out))
    text = read_text(folder, codes)
    lines = {split: len(next(iter(text[split].values()))) for split in _SPLITS}
    if not 1 <= valid_lines <= lines["devtest"]:
        raise UserError(
            f"--valid-lines {valid_lines}: devtest has {lines['devtest']} lines; give a number from 1 to that"
        )
    settings = _settings(codes, text, spm, dictionary, vocab_size, valid_lines)
    if _is_complete(out, settings):
        return Prepared(out / "data-bin", None, _count_lines(out / "dict.txt"), ())
    if spm is not None and dictionary is not None:
        check_fit(spm, dictionary)

    write_json(out / _SETTINGS, {**settings, "complete": False})
    files = _write_text(out / "mono", text, valid_lines)
    if spm is None and not (out / "dict.txt").is_file():
        say(f"training a SentencePiece model of {vocab_size:,} pieces on dev")
    notes = _place_vocabulary(out, text["dev"], spm, dictionary, vocab_size)
    say("binarising")
    # Validation and test are read by fairseq under either direction's name, like training.
    bitexts = [bitext for split in files for bitext in multi_parallel(split, files[split])]
    summary = binarise(bitexts, out / "dict.txt", out / "data-bin", spm_model=out / "spm.model")
    unknown = summary.unknown / summary.tokens
    if unknown > _UNKNOWN_TOKENS:
        notes.append(f"{unknown:.1%} of the tokens are unknown to the dictionary")
    write_json(out / _SETTINGS, {**settings, "complete": True})
    return Prepared(out / "data-bin", summary, _count_lines(out / "dict.txt"), tuple(notes))


def find_splits(folder: Path) -> Path:
    """Finds ``dev`` and ``devtest`` in an unpacked archive of FLORES-101 or FLORES-200.

    Args:
        folder: the one that holds them, or the one around it, in which the archive was unpacked.

    Raises:
        UserError: they are not there, or in several folders.
    """
    inner = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for candidates in ([folder], inner):
        found = [path for path in candidates if all((path / split).is_dir() for split in _SPLITS)]
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise UserError(f"{folder} holds dev and devtest in several folders ({names}); give one of them as --from")
        if found:
            return found[0]
    raise UserError(f"{folder} has no folders dev and devtest; give the unpacked FLORES archive as --from")


def read_text(folder: Path, codes: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    """Reads and checks the text of both splits.

    Args:
        folder: holds ``dev/CODE.dev`` and ``devtest/CODE.devtest``.
        codes: FLORES code of each language.

    Returns:
        For ``dev`` and ``devtest`` the lines of each language.

    Raises:
        UserError: a file is missing, empty, not UTF-8, has an empty line, or not as many lines as the others.
    """
    text: dict[str, dict[str, list[str]]] = {}
    for split in _SPLITS:
        text[split] = {}
        first: tuple[Path, int] | None = None
        for name, code in codes.items():
            path = folder / split / f"{code}.{split}"
            lines = _read_lines(path, name)
            first = first or (path, len(lines))
            if len(lines) != first[1]:
                raise UserError(
                    f"{path}, line {min(len(lines), first[1]) + 1}: the files part here; it has {len(lines)} lines, "
                    f"{first[0].name} has {first[1]}; line N of all must be the same sentence"
                )
            text[split][name] = lines
    return text


def _read_lines(path: Path, name: str) -> list[str]:
    if not path.exists():
        raise UserError(
            f"{path} is missing (language {name!r}); correct the code under 'flores:' or leave the language out"
        )
    try:
        lines = read_lines(path)
    except NotUtf8 as error:
        raise UserError(
            f"{path} cannot be read as UTF-8 text (line {error.line}); take it from the archive again"
        ) from error
    for number, line in enumerate(lines or [""], start=1):
        if not line.strip():
            raise UserError(f"{path}, line {number}: empty; every line must hold a sentence")
    return lines


def _codes(resources: Resources) -> dict[str, str]:
    missing = [name for name in resources.levels if name not in resources.flores]
    if missing:
        raise UserError(f"no FLORES code for {', '.join(missing)}; add lines such as 'fr: fra' under 'flores:'")
    stray = [name for name in resources.flores if name not in resources.levels]
    if stray:
        raise UserError(f"{stray[0]!r} has a FLORES code but stands under no level; put it under high, med or low")
    codes = list(resources.flores.values())
    twice = [name for name, code in resources.flores.items() if codes.count(code) > 1]
    if twice:
        raise UserError(f"{' and '.join(twice)} have the same FLORES code; two languages cannot have one text")
    if len(resources.levels) < 2:
        raise UserError("--languages names fewer than two languages; there is nothing to translate between")
    return {name: resources.flores[name] for name in resources.levels}


def _check_options(spm: Path | None, dictionary: Path | None, vocab_size: int) -> None:
    if (spm is None) != (dictionary is None):
        raise UserError("--spm and --dict belong together; give both (M2M100's), or neither to train them")
    for flag, path in (("--spm", spm), ("--dict", dictionary)):
        if path is not None and not path.is_file():
            raise UserError(f"{flag} {path} is not there; check the path")
    if vocab_size < 1:
        raise UserError(f"--vocab-size {vocab_size}: expected a number of pieces, such as {VOCAB_SIZE}")


def _settings(
    codes: Mapping[str, str],
    text: Mapping[str, Mapping[str, Sequence[str]]],
    spm: Path | None,
    dictionary: Path | None,
    vocab_size: int,
    valid_lines: int,
) -> dict:
    digest = hashlib.sha256()
    for split in _SPLITS:
        for name, lines in text[split].items():
            digest.update("\n".join([split, name, *lines, ""]).encode())
    return {
        "languages": dict(codes),
        "text_sha256": digest.hexdigest(),
        "valid_lines": valid_lines,
        "vocab_size": None if spm else vocab_size,
        "spm_sha256": sha256(spm) if spm else None,
        "dict_sha256": sha256(dictionary) if dictionary else None,
    }


def _is_complete(out: Path, settings: Mapping) -> bool:
    """Whether ``out`` has been made from these settings, to the end.

    Raises:
        UserError: it was made, or begun, from others.
    """
    path = out / _SETTINGS
    if not path.is_file():
        others = [name for name in ("data-bin", "mono", "spm.model", "dict.txt") if (out / name).exists()]
        if others:
            raise UserError(f"{out} holds {others[0]} from elsewhere, which is not overwritten; give another --out")
        return False
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); give another --out") from error
    changed = [name for name, value in settings.items() if held.get(name) != value]
    if changed:
        raise UserError(f"{out} was made from other settings ({', '.join(changed)} differ); give another --out")
    data = out / "data-bin"
    names = list(settings["languages"])
    dictionaries = all((data / f"dict.{name}.txt").exists() for name in names)
    sides = len(list(data.glob("test.*-*.*.idx"))) == math.comb(len(names), 2) * 2 if data.is_dir() else False
    return bool(held.get("complete")) and dictionaries and sides and (out / "dict.txt").is_file()


def _write_text(
    folder: Path, text: Mapping[str, Mapping[str, Sequence[str]]], valid_lines: int
) -> dict[str, dict[str, Path]]:
    files: dict[str, dict[str, Path]] = {"train": {}, "valid": {}, "test": {}}
    for name, dev in text["dev"].items():
        devtest = text["devtest"][name]
        for split, lines in (("train", dev), ("valid", devtest[:valid_lines]), ("test", devtest)):
            files[split][name] = folder / f"{split}.{name}"
            write_whole(files[split][name], "".join(f"{line}\n" for line in lines))
    return files


def _place_vocabulary(
    out: Path, training: Mapping[str, Sequence[str]], spm: Path | None, dictionary: Path | None, vocab_size: int
) -> list[str]:
    """Puts ``spm.model`` and ``dict.txt`` in place; returns remarks."""
    if spm is None or dictionary is None:
        if not (out / "dict.txt").is_file():
            model = train_sentencepiece([line for lines in training.values() for line in lines], vocab_size)
            write_whole(out / "spm.model", model)
            write_whole(out / "dict.txt", dictionary_text(model, training))
        return []
    write_whole(out / "spm.model", spm.read_bytes())
    write_whole(out / "dict.txt", dictionary.read_bytes())
    lacking = [name for name in training if f"__{name}__" not in dictionary_tokens(dictionary)]
    if not lacking:
        return []
    return [
        f"the dictionary has no language token for {', '.join(lacking)}; fairseq adds it, so a model that was trained "
        "without it will not fit"
    ]


def _count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def download(url: str, out: Path) -> Path:
    """Downloads and unpacks the archive into ``out``; an interrupted download is taken up where it stopped.

    Returns:
        The unpacked folder.

    Raises:
        UserError: there is no network, the server refuses, or the archive is damaged.
    """
    folder = out / _INNER
    if folder.is_dir():
        return folder
    archive = out / PurePosixPath(url).name
    if not archive.is_file():
        _fetch(url, archive)
    try:
        _unpack(archive, folder)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{archive} cannot be unpacked ({error}); delete it and run this again") from error
    return folder


def _fetch(url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    start = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            resumed = answer.status == 206
            length = answer.headers.get("Content-Length")
            total = int(length) + (start if resumed else 0) if length else None
            with (
                partial.open("ab" if resumed else "wb") as file,
                Progress(total=total, initial=start * resumed, unit="B", unit_scale=True, desc=path.name) as bar,
            ):
                while block := answer.read(1 << 16):
                    file.write(block)
                    bar.update(len(block))
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the partial file is the whole, or of another archive: tried once more from the start
            partial.unlink()
            return _fetch(url, path)
        raise UserError(
            f"{url}: {error}; download and unpack the archive yourself and give its folder as --from"
        ) from error
    except OSError as error:  # URLError and timeouts among them
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{url} cannot be fetched ({reason}); run this again to go on, or give an unpacked archive as --from"
        ) from error
    if total is not None and partial.stat().st_size != total:
        raise UserError(f"{url}: the connection ended early; run this again to go on")
    partial.replace(path)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpacks the text of both splits and nothing else: whatever paths the archive names, none is followed."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            split, name = PurePosixPath(member.name).parts[-2:] if "/" in member.name else ("", member.name)
            if not member.isfile() or split not in _SPLITS or not name.endswith(f".{split}"):
                continue
            content = tar.extractfile(member)
            if content is None or name.startswith("."):
                continue
            (partial / split).mkdir(parents=True, exist_ok=True)
            with (partial / split / name).open("wb") as file:
                shutil.copyfileobj(content, file)
    if not partial.is_dir():
        raise tarfile.ReadError("it holds no FLORES text")
    partial.replace(folder)
