"""Checks of an evaluation before anything is decoded, and what an earlier call has left to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from langspec_lora.checkpoints.arguments import stored_directions, stored_languages
from langspec_lora.checkpoints.outline import Outline
from langspec_lora.checkpoints.vocabulary_files import given_dictionary
from langspec_lora.data.directions import Direction, choose_directions, find_directions
from langspec_lora.data.headers import count_sentences
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.evaluation.options import EvaluationOptions
from langspec_lora.evaluation.provenance import Provenance
from langspec_lora.evaluation.results import SETTINGS
from langspec_lora.evaluation.settings import file_state, held_sources, lasting, settings_of, sha256, source_side
from langspec_lora.evaluation.split_text import SplitText, languages_of
from langspec_lora.inference.model_files import ModelFiles, read_outlines
from langspec_lora.keys import check_directions
from langspec_lora.tokenizers import require_tokenizer


@dataclass(frozen=True)
class Inputs:
    """What an evaluation is asked for, and what the data and the checkpoints hold.

    Attributes:
        options: what was asked for.
        available: the directions that the data holds.
        directions: those of them that were asked for.
        dictionary: the model's dictionary.
        outlines: those of the checkpoints.
    """

    options: EvaluationOptions
    available: Sequence[Direction]
    directions: Sequence[Direction]
    dictionary: Path
    outlines: Sequence[Outline]


@dataclass(frozen=True)
class Evaluation:
    """What is to be decoded and scored; everything was checked that can be checked without loading the model.

    Attributes:
        options: what was asked for.
        model: the model.
        directions: the directions that were asked for.
        to_decode: those of them that have no hypotheses yet, ordered by target language.
        to_score: all directions that the folder will hold.
        settings: what the hypotheses depend on.
        provenance: whether the hypotheses in the folder were made with them.
        texts: source texts and references.
        levels: resource level of each language, where a checkpoint has adapters.
        trained: the directions of the model's training between the languages of ``to_score``, by their names; None if
            the checkpoints do not say.
        found: which ``settings.json`` lay in the folder; see :func:`~langspec_lora.evaluation.settings.file_state`.
    """

    options: EvaluationOptions
    model: ModelFiles
    directions: tuple[Direction, ...]
    to_decode: tuple[Direction, ...]
    to_score: tuple[Direction, ...]
    settings: dict
    provenance: Provenance
    texts: SplitText
    levels: Mapping[str, str]
    found: object
    trained: frozenset[str] | None = None


def check(options: EvaluationOptions) -> Inputs:
    """Looks for the files, languages and directions that are asked for.

    Raises:
        UserError: some are missing or damaged; all of them are listed.
    """
    with collect_errors() as errors:
        with errors.check():
            require_tokenizer(options.scoring.tokenize)
        with errors.check():
            outlines = read_outlines(options.model.checkpoints)
        with errors.check():
            if options.model.dictionary is not None:
                given_dictionary(options.model.dictionary)
        with errors.check():
            available = find_directions(options.data_bin, options.subset)
            directions = choose_directions(available, options.langs, options.lang_pairs)
            with errors.check():
                _texts(options, directions)
            if options.model.dictionary is None:
                dictionary = common_dictionary(options.data_bin, languages_of(directions))
            else:
                dictionary = Path(options.model.dictionary)
    return Inputs(options, available, directions, dictionary, outlines)


def prepare(inputs: Inputs) -> Evaluation:
    """Compares what is asked for with what an earlier call has left in the results folder.

    Raises:
        UserError: the folder holds results of other settings, or the texts do not fit the data.
    """
    options, directions = inputs.options, inputs.directions
    if options.model.adapters:
        for table in filter(None, map(stored_languages, inputs.outlines)):
            check_directions(table, directions)
    model = ModelFiles.of(options.model, inputs.dictionary, languages_of(directions))
    sides = {direction: source_side(options, direction) for direction in directions}
    settings, found = settings_of(options, model, sides), file_state(options.out / SETTINGS)
    held = {} if options.overwrite else held_sources(options.out, settings)
    settings["sources"] = dict(sorted({**held, **settings["sources"]}.items()))
    provenance = Provenance(options.out, lasting(settings), settings["sources"])
    asked = set(directions)
    # Directions of earlier calls are scored again with the others, so that scores.json is always that of the folder.
    earlier = [direction for direction in inputs.available if str(direction) in held and direction not in asked]
    to_score = (*directions, *earlier)
    provenance.check_files([direction for direction in to_score if str(direction) in held])
    texts = _texts(options, to_score)
    _check_lengths(texts, {**sides, **{direction: source_side(options, direction) for direction in earlier}})
    return Evaluation(
        options,
        model,
        tuple(directions),
        tuple(by_target([direction for direction in directions if str(direction) not in held])),
        to_score,
        settings,
        provenance,
        texts,
        _levels(inputs.outlines, languages_of(to_score)),
        found,
        _trained(inputs.outlines, options.model.adapters, languages_of(to_score)),
    )


def by_target(directions: Sequence[Direction]) -> list[Direction]:
    """Orders directions so that those into one language follow each other: its references are prepared once."""
    return sorted(directions, key=lambda direction: (direction.target, direction.source))


def _texts(options: EvaluationOptions, directions: Sequence[Direction]) -> SplitText:
    dictionary = None if options.model.dictionary is None else Path(options.model.dictionary)
    return SplitText(
        options.data_bin,
        options.subset,
        languages_of(directions),
        options.scoring.references,
        dictionary,
        options.generation.remove_bpe,
    )


def _levels(outlines: Sequence[Outline], languages: Sequence[str]) -> dict[str, str]:
    """The levels that the first checkpoint with adapters gives the languages, for the report."""
    table = next(filter(None, map(stored_languages, outlines)), None)
    levels = {} if table is None else dict(zip(table.names, table.levels, strict=True))
    return {name: level for name, level in levels.items() if name in languages}


def _trained(outlines: Sequence[Outline], adapters: bool, languages: Sequence[str]) -> frozenset[str] | None:
    """The training directions between some languages: those of the adapters, or else those of plain models.

    What the base of adapters was trained with, their checkpoint does not say.
    """
    with_adapters = [outline for outline in outlines if stored_languages(outline) is not None]
    if with_adapters and not adapters:
        return None
    stored = [stored_directions(outline.model_args) for outline in with_adapters or outlines]
    if not all(stored):
        return None
    wanted = set(languages)
    return frozenset(name for name in frozenset().union(*stored) if set(name.split("-")) <= wanted)


def _check_lengths(texts: SplitText, sides: Mapping[Direction, Path]) -> None:
    """Makes sure that there is a reference for each sentence."""
    counts = {language: texts.count(language) for language in languages_of([*sides])}
    for direction, side in sides.items():
        sentences = count_sentences(str(side))
        for language in direction:
            lines = counts[language]
            if None not in (sentences, lines) and lines != sentences:
                raise UserError(
                    f"{texts.origin} has {lines} sentences of {language}, but the data of {direction} have "
                    f"{sentences}; give the text of exactly the sentences that are translated as --references"
                )


def common_dictionary(data_bin: Path, languages: Sequence[str]) -> Path:
    """Finds the dictionary that the data of some languages share.

    Raises:
        UserError: one is missing, or they differ.
    """
    paths = [data_bin / f"dict.{language}.txt" for language in languages]
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path} not found; give the model's dictionary as --fixed-dictionary")
    if len({sha256(path) for path in paths}) > 1:
        raise UserError(
            f"the dictionaries dict.LANG.txt in {data_bin} differ between languages; "
            "a model of many languages has one: binarise all data with it"
        )
    return paths[0]
