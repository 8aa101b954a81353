"""What the steps of a study were made from: records of commands and of the content of their input."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from langspec_lora import __version__
from langspec_lora.errors import UserError
from langspec_lora.files import read_json, sha256, write_json
from langspec_lora.naming import cut, some_of
from langspec_lora.study.steps import LOGS, OLD, STEPS, Step, command_text

_CONTENTS = "contents.json"


class Records:
    """The records in the folder of a study.

    Args:
        out: the folder.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._contents = Contents(out / STEPS / _CONTENTS)

    def path(self, step: Step) -> Path:
        """The record of a step; by its folder, as a step can belong to another part of the plan later."""
        return self.out / STEPS / f"{self._stem(step)}.json"

    def log(self, step: Step) -> Path:
        """The output of a step."""
        return self.out / LOGS / f"{self._stem(step)}.log"

    def read(self, step: Step) -> dict[str, Any]:
        """The record of a step; empty for one that never began."""
        path = self.path(step)
        return read_json(path, "'langspec-lora study'", "remove it to run the step again") if path.exists() else {}

    def state(self, step: Step) -> bool | None:
        """Whether a step has run; what it needs has.

        Returns:
            True if it has, False if it has begun and will be continued, None if nothing of it is there.

        Raises:
            Outdated: it has run, or has begun, with another command or other input.
        """
        record = self.read(step)
        if not record or not step.folder.exists():
            return None
        if found := self._differences(step, record):
            raise Outdated(step, found)
        return record.get("seconds") is not None and step.result.exists()

    def begin(self, step: Step) -> None:
        """Records that a step begins."""
        attempts = self.read(step).get("attempts", 0) if step.folder.exists() else 0
        step.folder.parent.mkdir(parents=True, exist_ok=True)
        versions = {"langspec_lora": __version__, "torch": version("torch")}
        begun = datetime.now(timezone.utc).isoformat(timespec="seconds")
        write_json(
            self.path(step),
            {**self._identity(step), "versions": versions, "began": begun, "attempts": attempts + 1, "seconds": None},
        )
        self._contents.save()

    def end(self, step: Step, seconds: float, memory: int) -> None:
        """Records that a step has ended well.

        Args:
            step: the step.
            seconds: how long it took.
            memory: the most memory that its process had, in bytes.
        """
        write_json(self.path(step), {**self.read(step), "seconds": round(seconds, 1), "memory": memory})

    def set_aside(self, step: Step) -> Path:
        """Moves what a step has made, with record and log, into ``OUT/old/N``.

        Returns:
            Where its results are now.
        """
        target = next(path for path in _numbered(self.out / OLD) if not (path / self._stem(step)).exists())
        moved = target / self._stem(step)
        for path, name in ((step.folder, "results"), (self.path(step), "record.json"), (self.log(step), "output.log")):
            if path.exists():
                moved.mkdir(parents=True, exist_ok=True)
                shutil.move(path, moved / name)
        return moved

    def output(self, step: Step, most: int | None = None) -> str:
        """What the latest run of a step has written, or the last ``most`` bytes of it."""
        path = self.log(step)
        if not path.exists():
            return ""
        with path.open("rb") as file:
            if most is not None:
                file.seek(max(0, path.stat().st_size - most))
            text = file.read().decode("utf-8", errors="replace")
        return text.rpartition(f"{command_text(step.command)}\n\n")[2]

    def _stem(self, step: Step) -> str:
        return "-".join(step.folder.relative_to(self.out).parts)

    def _identity(self, step: Step) -> dict[str, Any]:
        return {
            "command": list(step.command),
            "input": {str(path): self._contents.of(path) for path in sorted(inputs(step))},
        }

    def _differences(self, step: Step, record: Mapping[str, Any]) -> list[str]:
        """What a step would be made from that it was not made from, in words."""
        now = self._identity(step)
        found = []
        before, after = record.get("command", []), now["command"]
        if before != after:
            new = [word for word in after if word not in before]
            old = [word for word in before if word not in after]
            found.append(f"another command ({_few(new) or 'another order'}; before: {_few(old) or 'the same words'})")
        changed = [path for path, digest in now["input"].items() if record.get("input", {}).get(path) != digest]
        if changed and before == after:
            found.append(f"another content of {some_of(changed)}")
        return found


class Outdated(UserError):
    """A step was made from something else than the recipe and the files say now.

    Attributes:
        step: the step.
        differences: what differs, in words.
    """

    def __init__(self, step: Step, differences: Sequence[str]) -> None:
        super().__init__(f"{step.folder} was made from {some_of(differences, between=' and ')}")
        self.step, self.differences = step, differences


class Contents:
    """The SHA-256 of files and folders; of files that have not changed since, as size and time tell, from a file.

    Args:
        path: the file that remembers them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[Any]] = {}
        self._folders: dict[Path, str] = {}
        self._new = False
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # it only saves time
            known = {}
        if isinstance(known, dict):
            self._known = known

    def of(self, path: Path) -> str:
        """The hash of a file's content, or of the names and contents of all files in a folder, which is read once."""
        if not path.is_dir():
            return self._of_file(path)
        if path not in self._folders:
            digest = hashlib.sha256()
            for file in sorted(one for one in path.rglob("*") if one.is_file()):
                digest.update(f"{file.relative_to(path)}\0{self._of_file(file)}\0".encode())
            self._folders[path] = digest.hexdigest()
        return self._folders[path]

    def save(self) -> None:
        """Remembers the hashes."""
        if self._new:
            write_json(self._path, self._known)
            self._new = False

    def _of_file(self, path: Path) -> str:
        found = path.stat()
        key, state = str(path.resolve()), [found.st_size, found.st_mtime_ns]
        known = self._known.get(key)
        if not isinstance(known, list) or known[:2] != state:
            self._known[key] = known = [*state, sha256(path)]
            self._new = True
        return str(known[2])


def inputs(step: Step) -> set[Path]:
    """The files that a step's command names, and the folders of data that it reads: their content decides."""
    words = [part for word in step.command[1:] for part in (word, word.partition("=")[2])]
    own = step.folder.absolute()
    found = {Path(word) for word in words if word and "\n" not in word and len(word) < 4096 and _is_file(word)}
    place = 1 if step.trains else 2
    if step.kind == "data":
        found |= {Path(word) for word in words[2:] if word and _is_folder(word)}
    elif step.kind == "report":
        runs = [folder for word in step.command if "=" in word for folder in word.partition("=")[2].split(",")]
        found |= {path for run in runs if _is_file(str(path := Path(run) / "scores.json"))}
    else:
        # The data come first; elsewhere a folder is known by the dictionaries that fairseq's data have.
        first = {part for part in step.command[place].split(":") if _is_folder(part)}
        found |= {
            Path(part) for part in {*first, *(part for word in words for part in word.split(":") if _is_data(part))}
        }
    return {path for path in found if own not in (path.absolute(), *path.absolute().parents)}


def _is_file(word: str) -> bool:
    try:
        return Path(word).is_file()
    except (OSError, ValueError):
        return False


def _is_folder(word: str) -> bool:
    try:
        return Path(word).is_dir()
    except (OSError, ValueError):
        return False


def _is_data(word: str) -> bool:
    return bool(word) and _is_folder(word) and any(Path(word).glob("dict.*.txt"))


def _few(words: Sequence[str]) -> str:
    return cut(some_of(words, between=" "), 160)


def _numbered(folder: Path) -> Iterator[Path]:
    return (folder / str(number) for number in count(1))
