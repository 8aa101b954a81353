"""The dictionary and the SentencePiece model of a checkpoint: given, or found where its training left them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from langspec_lora.checkpoints.arguments import stored_langs
from langspec_lora.checkpoints.outline import Outline
from langspec_lora.data.vocabulary import SENTENCEPIECE, check_fit
from langspec_lora.errors import UserError

_DICTIONARIES = ("dict.txt", "model_dict.128k.txt")  # the second is that of M2M100's own release
_SENTENCEPIECE_MODELS = (SENTENCEPIECE, "spm.model")


def find_vocabulary(
    outline: Outline, dictionary: str | Path | None = None, sentencepiece_model: str | Path | None = None
) -> tuple[Path, Path]:
    """Finds the dictionary and the SentencePiece model of a checkpoint.

    Args:
        outline: the checkpoint.
        dictionary: the dictionary, if it was given.
        sentencepiece_model: the SentencePiece model, if it was given.

    Returns:
        The dictionary and the SentencePiece model.

    Raises:
        UserError: a file is missing or damaged, or they do not belong together.
    """
    folders = _Folders(outline)
    dictionary = folders.dictionary() if dictionary is None else _given(dictionary, "dictionary", "--fixed-dictionary")
    if sentencepiece_model is None:
        sentencepiece_model = folders.sentencepiece_model()
    else:
        sentencepiece_model = _given(sentencepiece_model, "SentencePiece model", "--sentencepiece-model")
    check_fit(sentencepiece_model, dictionary)
    return dictionary, sentencepiece_model


def _given(path: str | Path, what: str, flag: str) -> Path:
    if not os.path.isfile(path):  # noqa: PTH113  Path.is_file raises for names that are too long
        raise UserError(f"{flag}: there is no {what} {path}; check the path")
    return Path(path)


class _Folders:
    """The folders that may hold the files of a checkpoint.

    What the checkpoint says about its training is only a hint: nothing in these folders is run.
    """

    def __init__(self, outline: Outline) -> None:
        self._checkpoint, self._args = outline.path, outline.model_args
        self._languages = stored_langs(outline.model_args)
        data = [path for path in self._stored("data") if path.is_dir()]
        folders = [outline.path.parent, *data, *(path.parent for path in data)]
        folders += [path.parent for name in ("finetune_from_model", "base_checkpoint") for path in self._stored(name)]
        self._folders = list(dict.fromkeys(folders))

    def dictionary(self) -> Path:
        """The dictionary.

        Raises:
            UserError: it is not found.
        """
        names = (*_DICTIONARIES, *(f"dict.{name}.txt" for name in self._languages))
        beside = (self._checkpoint.parent / name for name in names)
        elsewhere = (folder / name for folder in self._folders for name in names)
        for path in (*beside, *self._stored("fixed_dictionary"), *elsewhere):
            if path.is_file():
                return path
        raise self._missing("dictionary", _DICTIONARIES[0], "--fixed-dictionary")

    def sentencepiece_model(self) -> Path:
        """The SentencePiece model.

        Raises:
            UserError: it is not found, or a folder holds several.
        """
        for folder in self._folders:
            named = [folder / name for name in _SENTENCEPIECE_MODELS if (folder / name).is_file()]
            found = named[:1] or sorted(folder.glob("*.model"))
            if len(found) > 1:
                names = ", ".join(path.name for path in found)
                raise UserError(f"{folder} holds several models ({names}); give the one as --sentencepiece-model")
            if found:
                return found[0]
        raise self._missing("SentencePiece model", SENTENCEPIECE, "--sentencepiece-model")

    def _stored(self, name: str) -> Iterator[Path]:
        """A path in the checkpoint's arguments; if relative, from here and from the folders above the checkpoint."""
        text = getattr(self._args, name, None)
        if not isinstance(text, str) or not text:
            return
        path = Path(text.split(os.pathsep)[0])  # the first of several shards of data
        for root in (Path(), *self._checkpoint.resolve().parents):
            if os.path.exists(root / path):  # noqa: PTH110  Path.exists raises for names that are no paths
                yield root / path

    def _missing(self, what: str, name: str, flag: str) -> UserError:
        *first, last = map(str, self._folders)
        folders = f"{', '.join(first)} or {last}" if first else last
        data = getattr(self._args, "data", None)
        absent = f" (and its data folder {data} is not here)" if len(self._folders) == 1 and data else ""
        return UserError(
            f"there is no {what} in {folders}{absent}; put it into {self._checkpoint.parent} as {name}, or give it as "
            f"{flag}"
        )
