"""Finds the dictionary and the SentencePiece model that belong to a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from langspec_lora.checkpoints.arguments import stored_langs
from langspec_lora.checkpoints.outline import Outline
from langspec_lora.data.vocabulary import SENTENCEPIECE, check_fit
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.naming import some_of

_DICTIONARIES = ("dict.txt", "model_dict.128k.txt")  # the second is that of M2M100's own release
_SENTENCEPIECE_MODELS = (SENTENCEPIECE, "spm.model")


def find_vocabulary(
    outline: Outline, dictionary: str | Path | None = None, sentencepiece_model: str | Path | None = None
) -> tuple[Path, Path]:
    """Finds the dictionary and the SentencePiece model of a checkpoint, unless they are given.

    It searches beside the checkpoint, in the data folder that it was trained on, beside that folder, and beside the
    checkpoint that its training started from.

    Args:
        outline: the checkpoint.
        dictionary: the dictionary, if it is given.
        sentencepiece_model: the SentencePiece model, if it is given.

    Raises:
        UserError: a file is missing or damaged, or they do not belong together.
    """
    folders = _Folders(outline)
    with collect_errors() as errors:
        with errors.check():
            dictionary = folders.dictionary() if dictionary is None else given_dictionary(dictionary)
        with errors.check():
            if sentencepiece_model is None:
                sentencepiece_model = folders.sentencepiece_model()
            else:
                sentencepiece_model = given_sentencepiece_model(sentencepiece_model)
    found = Path(str(dictionary)), Path(str(sentencepiece_model))
    check_fit(found[1], found[0])
    return found


def given_dictionary(path: str | Path) -> Path:
    """The file given as ``--fixed-dictionary``.

    Raises:
        UserError: it does not exist.
    """
    return _given(path, "dictionary", "--fixed-dictionary")


def given_sentencepiece_model(path: str | Path) -> Path:
    """The file given as ``--sentencepiece-model``.

    Raises:
        UserError: it does not exist.
    """
    return _given(path, "SentencePiece model", "--sentencepiece-model")


def _given(path: str | Path, label: str, flag: str) -> Path:
    if not os.path.isfile(path):  # noqa: PTH113  Path.is_file raises for names that are too long
        raise UserError(f"{flag}: {label} {path} not found; check the path")
    return Path(path)


class _Folders:
    """The folders that may hold the files of a checkpoint.

    The paths that the checkpoint stores are only a hint: no file found there is run.
    """

    def __init__(self, outline: Outline) -> None:
        self._checkpoint, self._args = outline.path, outline.model_args
        self._languages = stored_langs(outline.model_args)
        data = [path for path in self._stored("data") if path.is_dir()]
        folders = [outline.path.parent, *data, *(path.parent for path in data)]
        folders += [path.parent for name in ("finetune_from_model", "base_checkpoint") for path in self._stored(name)]
        self._folders = list(dict.fromkeys(folders))

    def dictionary(self) -> Path:
        """Finds the dictionary.

        Raises:
            UserError: it is in none of the folders.
        """
        names = (*_DICTIONARIES, *(f"dict.{name}.txt" for name in self._languages))
        beside = (self._checkpoint.parent / name for name in names)
        elsewhere = (folder / name for folder in self._folders for name in names)
        for path in (*beside, *self._stored("fixed_dictionary"), *elsewhere):
            if path.is_file():
                return path
        raise self._missing("dictionary", _DICTIONARIES[0], "--fixed-dictionary")

    def sentencepiece_model(self) -> Path:
        """Finds the SentencePiece model.

        Raises:
            UserError: it is in none of the folders, or a folder holds several.
        """
        for folder in self._folders:
            named = [folder / name for name in _SENTENCEPIECE_MODELS if (folder / name).is_file()]
            found = named[:1] or sorted(folder.glob("*.model"))
            if len(found) > 1:
                names = some_of(path.name for path in found)
                raise UserError(f"{folder} holds several models ({names}); give one as --sentencepiece-model")
            if found:
                return found[0]
        raise self._missing("SentencePiece model", SENTENCEPIECE, "--sentencepiece-model")

    def _stored(self, name: str) -> Iterator[Path]:
        """A path in the checkpoint's arguments; a relative one from here and from the folders above the checkpoint."""
        text = getattr(self._args, name, None)
        if not isinstance(text, str) or not text:
            return
        path = Path(text.split(os.pathsep)[0])  # of data in several shards the first
        for root in (Path(), *self._checkpoint.resolve().parents):
            if os.path.exists(root / path):  # noqa: PTH110  Path.exists raises for names that are not paths
                yield root / path

    def _missing(self, label: str, name: str, flag: str) -> UserError:
        *first, last = map(str, self._folders)
        folders = f"{some_of(first)} or {last}" if first else last
        data = getattr(self._args, "data", None)
        absent = f" (its data folder {data} was not found)" if len(self._folders) == 1 and data else ""
        return UserError(
            f"no {label} found in {folders}{absent}; put it into {self._checkpoint.parent} as {name}, or give it as "
            f"{flag}"
        )
