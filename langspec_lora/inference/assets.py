"""What translating raw text takes besides a checkpoint: its dictionary, SentencePiece model and languages, found."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from langspec_lora.checkpoints.arguments import stored_langs, stored_languages
from langspec_lora.checkpoints.outline import Outline, read_outline
from langspec_lora.data.vocabulary import SENTENCEPIECE, check_fit, dictionary_tokens
from langspec_lora.errors import UserError
from langspec_lora.inference.settings import Model

_DICTIONARIES = ("dict.txt", "model_dict.128k.txt")  # the second is that of M2M100's own release
_SENTENCEPIECE_MODELS = (SENTENCEPIECE, "spm.model")
_LANGUAGE_TOKEN = re.compile(r"__(\w+)__")


@dataclass(frozen=True)
class Assets:
    """Files and languages of a model, checked but not loaded.

    Attributes:
        model: which model, with its dictionary.
        sentencepiece_model: splits raw text.
        languages: the languages between which the model translates.
        adapted: whether there are pairs; otherwise it is a base model.
    """

    model: Model
    sentencepiece_model: Path
    languages: tuple[str, ...]
    adapted: bool

    def check_direction(self, source: str, target: str) -> None:
        """Makes sure that the model translates a direction.

        Raises:
            UserError: it does not know a language, or both are the same.
        """
        for name in (source, target):
            if name not in self.languages:
                raise UserError(f"there is no language {name!r} in the model; it knows {', '.join(self.languages)}")
        if source == target:
            raise UserError(f"source and target language are both {source!r}; give two different ones")


def find_assets(
    checkpoints: Sequence[str | Path],
    dictionary: str | Path | None = None,
    sentencepiece_model: str | Path | None = None,
    langs: Sequence[str] = (),
    encoder_langtok: str | None = None,
    decoder_langtok: bool | None = None,
    precision: str = "fp32",
    device: str | None = None,
    base_checkpoint: str | Path | None = None,
) -> Assets:
    """Finds what belongs to a checkpoint. No model is built.

    What is not given is looked for beside the checkpoint, in the data folder that it was trained on, beside that, and
    beside the checkpoint that its training started from.

    Args:
        checkpoints: one file, or several of an ensemble.
        dictionary: the model's dictionary.
        sentencepiece_model: the SentencePiece model that belongs to it.
        langs: languages of a base model that names none itself.
        encoder_langtok: ``src``, ``tgt`` or ``none`` in place of what the checkpoint says.
        decoder_langtok: likewise.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        device: ``cpu``, ``cuda``, ``cuda:1``, …; where None a GPU, if there is one.
        base_checkpoint: the base of checkpoints that hold adapters only; where it lay in training if None.

    Raises:
        UserError: a file is missing or damaged, or dictionary and SentencePiece model do not belong together.
    """
    checkpoints = [Path(path) for path in checkpoints]
    outlines = [read_outline(path) for path in checkpoints]
    dictionary, sentencepiece_model = find_vocabulary(outlines[0], dictionary, sentencepiece_model)
    languages = _languages(outlines, langs, dictionary)
    model = Model.from_checkpoints(checkpoints, dictionary, languages, encoder_langtok, decoder_langtok, precision)
    adapted = any(stored_languages(outline) for outline in outlines)
    model = replace(model, device=device, base_checkpoint=base_checkpoint)
    return Assets(model, sentencepiece_model, languages, adapted)


def find_vocabulary(
    outline: Outline, dictionary: str | Path | None = None, sentencepiece_model: str | Path | None = None
) -> tuple[Path, Path]:
    """Finds the dictionary and the SentencePiece model of a checkpoint, where they are not given.

    Raises:
        UserError: a file is missing or damaged, or they do not belong together.
    """
    places = _Places(outline)
    dictionary = places.dictionary() if dictionary is None else _given(dictionary, "dictionary", "--fixed-dictionary")
    if sentencepiece_model is None:
        sentencepiece_model = places.sentencepiece_model()
    else:
        sentencepiece_model = _given(sentencepiece_model, "SentencePiece model", "--sentencepiece-model")
    check_fit(sentencepiece_model, dictionary)
    return dictionary, sentencepiece_model


def _given(path: str | Path, what: str, flag: str) -> Path:
    if not os.path.isfile(path):  # noqa: PTH113  Path.is_file raises for names that are too long
        raise UserError(f"{flag}: there is no {what} {path}; check the path")
    return Path(path)


def _languages(outlines: Sequence[Outline], langs: Sequence[str], dictionary: Path) -> tuple[str, ...]:
    """The languages that all models of an ensemble know."""
    tables = [table.names for table in map(stored_languages, outlines) if table]
    if tables:
        names = [name for name in tables[0] if all(name in table for table in tables)]
    else:
        names = list(dict.fromkeys((*stored_langs(outlines[0].model_args), *langs))) or _token_languages(dictionary)
    if len(names) < 2:
        raise UserError(
            f"checkpoint {outlines[0].path} and its dictionary name no two languages; give those that the model was "
            "trained with, in their order, as --langs"
        )
    return tuple(names)


def _token_languages(dictionary: Path) -> list[str]:
    tokens = map(_LANGUAGE_TOKEN.fullmatch, dictionary_tokens(dictionary))
    return sorted(token[1] for token in tokens if token)


class _Places:
    """Where the files of a checkpoint may lie.

    What the checkpoint says of its training is a hint only: of the files found there none is run.
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
            UserError: there is none.
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
            UserError: there is none, or one cannot tell which.
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
        """A path in the checkpoint's arguments; a relative one from here and from the folders above the checkpoint."""
        text = getattr(self._args, name, None)
        if not isinstance(text, str) or not text:
            return
        path = Path(text.split(os.pathsep)[0])  # of data in several shards the first
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
