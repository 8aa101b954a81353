"""What translating raw text takes besides a checkpoint: its dictionary, SentencePiece model and languages, found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from langspec_lora.checkpoints.arguments import stored_langs, stored_languages
from langspec_lora.checkpoints.outline import Outline, read_outline
from langspec_lora.checkpoints.vocabulary_files import find_vocabulary
from langspec_lora.data.vocabulary import dictionary_tokens
from langspec_lora.errors import UserError
from langspec_lora.inference.settings import Model

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
