"""Download of the FLORES-101 archive; an interrupted download continues where it stopped."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path, PurePosixPath

from langspec_lora.errors import UserError
from langspec_lora.progress import Progress

URL = "https://dl.fbaipublicfiles.com/flores101/dataset/flores101_dataset.tar.gz"
"""The official archive (Goyal et al., TACL 2022)."""

SPLITS = ("dev", "devtest")

_FOLDER = "flores101_dataset"

_GZIP = b"\x1f\x8b"
_BLOCK = 1 << 20


def download(url: str, out: Path) -> Path:
    """Downloads the archive and unpacks it into ``out``.

    Returns:
        The unpacked folder.

    Raises:
        UserError: the download fails, or the archive is damaged.
    """
    folder = out / _FOLDER
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
                Progress(
                    total=total, initial=start if resumed else 0, unit="B", unit_scale=True, desc=path.name
                ) as bar,
            ):
                while block := answer.read(1 << 16):
                    file.write(block)
                    bar.update(len(block))
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the partial file is complete, or of another archive: start over once
            partial.unlink()
            return _fetch(url, path)
        raise UserError(
            f"{url}: {error}; download and unpack the archive yourself, and give its folder as --from"
        ) from error
    except OSError as error:  # also URLError and timeouts
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{url} cannot be downloaded ({reason}); run this again to continue, or give an unpacked archive as --from"
        ) from error
    if total is not None and partial.stat().st_size != total:
        raise UserError(f"{url}: the connection was closed early; run this again to continue")
    partial.replace(path)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpacks only the text of both splits; the paths in the archive are not followed."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    _check_whole(archive)
    with tarfile.open(archive) as tar:
        for member in tar:
            split, name = PurePosixPath(member.name).parts[-2:] if "/" in member.name else ("", member.name)
            if not member.isfile() or split not in SPLITS or not name.endswith(f".{split}"):
                continue
            content = tar.extractfile(member)
            if content is None or name.startswith("."):
                continue
            (partial / split).mkdir(parents=True, exist_ok=True)
            with (partial / split / name).open("wb") as file:
                shutil.copyfileobj(content, file)
    if not partial.is_dir():
        raise tarfile.ReadError("it contains no FLORES text")
    partial.replace(folder)


def _check_whole(archive: Path) -> None:
    """Reads a compressed archive to its end, where its checksum is: tarfile stops at the first header it cannot read.

    Raises:
        OSError, EOFError: it is damaged.
    """
    with archive.open("rb") as file:
        is_compressed = file.read(2) == _GZIP
    if is_compressed:
        try:
            with gzip.open(archive) as content:
                while content.read(_BLOCK):
                    pass
        except zlib.error as error:
            raise OSError(str(error)) from error
