"""Finds and checks what a model needs besides its checkpoints: dictionary, languages and language tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from langspec_lora.checkpoints.arguments import stored_langs, stored_languages
from langspec_lora.checkpoints.outline import Outline, read_outline
from langspec_lora.checkpoints.vocabulary_files import find_vocabulary, given_dictionary, given_sentencepiece_model
from langspec_lora.data.vocabulary import dictionary_tokens
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.inference.model_spec import ModelSpec
from langspec_lora.keys import check_directions
from langspec_lora.languages import LanguageTable
from langspec_lora.naming import some_of
from langspec_lora.tasks.checks.language_tokens import LanguageTokens

_LANGUAGE_TOKEN = re.compile(r"__(\w+)__")


@dataclass(frozen=True)
class ModelFiles:
    """A model whose files were found and checked; it is not loaded.

    Attributes:
        spec: the checkpoints and settings.
        dictionary: the fairseq dictionary of all languages.
        langs: the languages that the model knows, in the order of the language tokens in its dictionary.
        tokens: the language tokens that are added to sentences.
    """

    spec: ModelSpec
    dictionary: Path
    langs: tuple[str, ...]
    tokens: LanguageTokens

    @classmethod
    def of(cls, spec: ModelSpec, dictionary: Path, languages: Sequence[str]) -> ModelFiles:
        """Reads the languages and language tokens from the first checkpoint.

        Args:
            spec: the checkpoints and settings.
            dictionary: the dictionary.
            languages: languages to translate between; those that the checkpoint does not name follow those it names.

        Raises:
            UserError: a file is missing, damaged or not a checkpoint of fairseq, or its language tokens are not where
                M2M100 has them.
        """
        args = read_outlines(spec.checkpoints)[0].model_args
        known = stored_langs(args)
        tokens = LanguageTokens.from_args(args) or LanguageTokens("src", "tgt")
        if tokens.replacing or not tokens.are_plain:
            raise UserError(
                f"checkpoint {spec.checkpoints[0]} was trained with {tokens}, which is not supported here; use "
                "fairseq-generate with these flags"
            )
        source, target = tokens.source, tokens.target
        if spec.encoder_langtok is not None:
            source = None if spec.encoder_langtok == "none" else spec.encoder_langtok
        if spec.decoder_langtok is not None:
            target = "tgt" if spec.decoder_langtok else None
        langs = (*known, *(name for name in languages if name not in known))
        return cls(spec, dictionary, langs, LanguageTokens(source, target, tokens.style))


@dataclass(frozen=True)
class TranslatorFiles:
    """The files for translating raw text; they are checked, but not loaded.

    Attributes:
        model: the model.
        sentencepiece_model: the SentencePiece model that splits raw text.
        languages: the languages between which the model translates.
        tables: the languages of the checkpoints that have adapters, and what these belong to.
    """

    model: ModelFiles
    sentencepiece_model: Path
    languages: tuple[str, ...]
    tables: tuple[LanguageTable, ...]

    @property
    def adapted(self) -> bool:
        """Whether a checkpoint has adapters."""
        return bool(self.tables)

    def check_direction(self, source: str, target: str) -> None:
        """Checks that the model translates a direction.

        Raises:
            UserError: the model does not know a language, or both are the same.
        """
        with collect_errors() as errors:
            for name in (source, target):
                with errors.check():
                    if name not in self.languages:
                        raise UserError(
                            f"the model does not know the language {name!r}; it knows {some_of(self.languages)}"
                        )
            if source == target:
                raise UserError(f"source and target language are both {source!r}; give two different ones")
        for table in self.tables if self.model.spec.adapters else ():
            check_directions(table, [(source, target)])


def read_outlines(checkpoints: Sequence[Path]) -> list[Outline]:
    """Reads the outlines of a model's checkpoints.

    Raises:
        UserError: a file is missing, damaged or not a checkpoint of fairseq.
    """
    outlines = []
    with collect_errors() as errors:
        for path in checkpoints:
            with errors.check():
                outlines.append(read_outline(path))
    return outlines


def find_files(spec: ModelSpec) -> TranslatorFiles:
    """Finds the files for translating raw text with a model; builds no model.

    Args:
        spec: the checkpoints and settings; files that it does not give are searched for by
            :func:`~langspec_lora.checkpoints.vocabulary_files.find_vocabulary`.

    Raises:
        UserError: a file is missing or damaged, or dictionary and SentencePiece model do not belong together.
    """
    with collect_errors() as errors:
        with errors.check():
            outlines = read_outlines(spec.checkpoints)
        with errors.check():
            if spec.dictionary is not None:
                given_dictionary(spec.dictionary)
        with errors.check():
            if spec.sentencepiece_model is not None:
                given_sentencepiece_model(spec.sentencepiece_model)
    dictionary, sentencepiece_model = find_vocabulary(outlines[0], spec.dictionary, spec.sentencepiece_model)
    languages = _languages(outlines, spec.langs, dictionary)
    tables = tuple(filter(None, map(stored_languages, outlines)))
    return TranslatorFiles(ModelFiles.of(spec, dictionary, languages), sentencepiece_model, languages, tables)


def _languages(outlines: Sequence[Outline], langs: Sequence[str], dictionary: Path) -> tuple[str, ...]:
    """The languages that all models of an ensemble know."""
    tables = [table.names for table in map(stored_languages, outlines) if table]
    if tables:
        names = [name for name in tables[0] if all(name in table for table in tables)]
    else:
        names = list(dict.fromkeys((*stored_langs(outlines[0].model_args), *langs))) or _token_languages(dictionary)
    if len(names) < 2:
        raise UserError(
            f"checkpoint {outlines[0].path} and its dictionary name fewer than two languages; give those that the "
            "model was trained with, in their order, as --langs"
        )
    return tuple(names)


def _token_languages(dictionary: Path) -> list[str]:
    tokens = map(_LANGUAGE_TOKEN.fullmatch, dictionary_tokens(dictionary))
    return sorted(token[1] for token in tokens if token)
