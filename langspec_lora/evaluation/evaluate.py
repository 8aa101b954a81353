"""The evaluation: decodes what is missing, scores everything, and leaves a results folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from langspec_lora.checkpoints.arguments import stored_languages
from langspec_lora.checkpoints.outline import read_outline
from langspec_lora.data.directions import Direction, choose_directions, find_directions, side_path
from langspec_lora.data.headers import count_sentences
from langspec_lora.errors import UserError
from langspec_lora.evaluation.comet import CometScorer
from langspec_lora.evaluation.decoding import Decoder
from langspec_lora.evaluation.results import PUBLISHED, SCORES, SCORES_TABLE, SETTINGS, hypotheses_path, text_path
from langspec_lora.evaluation.scoreboard import Scoreboard
from langspec_lora.evaluation.settings import held_sources, settings_of, sha256
from langspec_lora.evaluation.share import Share
from langspec_lora.evaluation.split_text import SplitText, languages_of
from langspec_lora.files import write_json, write_whole
from langspec_lora.inference.settings import MAX_TOKENS, Generation, Model, check_batch_limits
from langspec_lora.notes import is_quiet


@dataclass(frozen=True)
class Options:
    """What to evaluate and how.

    Attributes:
        data_bin: the binarised folder.
        checkpoints: one checkpoint, or several of an ensemble.
        out: the results folder.
        pairs: whether the language-specific pairs take part, or only the base model below them.
        subset: the split to translate.
        langs: languages between which to translate; those of the data where None.
        lang_pairs: directions joined by commas, or ``all``.
        references: folder with ``SUBSET.LANG``; looked for beside the data where None.
        dictionary: the model's dictionary; that of the data where None.
        tokenize: sacrebleu's tokenizer of BLEU.
        comet: a COMET model to score with as well.
        generation: beam and the like.
        encoder_langtok: ``src``, ``tgt``, ``none``; as the checkpoint was trained where None.
        decoder_langtok: whether targets start with their language token; as the checkpoint was trained where None.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        cpu: do not use a GPU.
        base_checkpoint: the base of checkpoints that hold adapters only; where it lay in training if None.
        max_tokens: tokens in a batch.
        batch_size: sentences in a batch at most.
        batching: see :class:`~langspec_lora.evaluation.decoding.Decoder`.
        overwrite: replace the results of other settings.
    """

    data_bin: Path
    checkpoints: tuple[Path, ...]
    out: Path
    pairs: bool = True
    subset: str = "test"
    langs: tuple[str, ...] | None = None
    lang_pairs: str = "all"
    references: Path | None = None
    dictionary: Path | None = None
    tokenize: str = "spm"
    comet: str | None = None
    generation: Generation = field(default_factory=Generation)
    encoder_langtok: str | None = None
    decoder_langtok: bool | None = None
    precision: str = "fp32"
    cpu: bool = False
    base_checkpoint: str | Path | None = None
    max_tokens: int = MAX_TOKENS
    batch_size: int | None = None
    batching: str = "auto"
    overwrite: bool = False


@dataclass(frozen=True)
class Plan:
    """An evaluation of which everything has been checked that can be checked without loading the model.

    Attributes:
        options: what was asked for.
        model: the model.
        directions: what was asked for.
        missing: those of them that have no hypotheses yet, ordered by target language.
        everything: all directions that the folder will hold.
        settings: what the hypotheses depend on.
        texts: sources and references.
        levels: resource level of each language, where the checkpoint has adapters.
    """

    options: Options
    model: Model
    directions: tuple[Direction, ...]
    missing: tuple[Direction, ...]
    everything: tuple[Direction, ...]
    settings: dict
    texts: SplitText
    levels: Mapping[str, str]


def plan(options: Options) -> Plan:
    """Looks at what is asked for and at what an earlier call has done.

    Raises:
        UserError: something is missing or does not fit.
    """
    from langspec_lora.evaluation.tokenizers import require_tokenizer

    check_batch_limits(options.max_tokens, options.batch_size)
    require_tokenizer(options.tokenize)
    available = find_directions(options.data_bin, options.subset)
    directions = choose_directions(available, options.langs, options.lang_pairs)
    languages = languages_of(directions)
    model = Model.from_checkpoints(
        options.checkpoints,
        options.dictionary or _common_dictionary(options.data_bin, languages),
        languages,
        options.encoder_langtok,
        options.decoder_langtok,
        options.precision,
        options.cpu,
        options.pairs,
        options.base_checkpoint,
    )
    settings = settings_of(options.data_bin, options.subset, model, options.generation, directions)
    held = {} if options.overwrite else held_sources(options.out, settings)
    missing = [direction for direction in directions if str(direction) not in held]
    settings["sources"] = dict(sorted({**held, **settings["sources"]}.items()))
    # Directions of earlier calls are scored again with the others, so that scores.json always speaks for the folder.
    earlier = [direction for direction in available if str(direction) in held and direction not in directions]
    everything = (*directions, *earlier)
    texts = SplitText(
        options.data_bin,
        options.subset,
        languages_of(everything),
        options.references,
        options.dictionary,
        options.generation.remove_bpe,
    )
    _check_lengths(options, texts, everything)
    levels = _levels(options.checkpoints, languages_of(everything))
    return Plan(options, model, tuple(directions), tuple(_by_target(missing)), everything, settings, texts, levels)


def evaluate(options: Options, share: Share = Share()) -> dict[Direction, Mapping]:  # noqa: B008  (it is frozen)
    """Evaluates a checkpoint; what an earlier call with the same settings has done is kept.

    Args:
        options: what to evaluate and how.
        share: which of the processes this one is that evaluate together.

    Returns:
        The scores of each direction, as they stand in ``scores.json``; nothing in all processes but the first.

    Raises:
        UserError: something is missing or does not fit; before anything is decoded.
    """
    return carry_out(share.first(lambda: plan(options)), share)


def carry_out(planned: Plan, share: Share = Share()) -> dict[Direction, Mapping]:  # noqa: B008
    """Does what is planned; see :func:`evaluate`."""
    options = planned.options
    if options.comet and share.count > 1:
        raise UserError("--comet is computed by one process; call it without torchrun once all directions are decoded")
    comet = CometScorer(options.comet, options.cpu) if options.comet else None
    board = Scoreboard(
        options.out,
        planned.texts,
        options.tokenize,
        planned.settings,
        planned.everything,
        comet,
        share.rank == 0,
        planned.levels,
    )
    if planned.missing:
        _decode(planned, share, board)
    parts = share.gather(board.part())
    if share.rank:
        return {}
    board.join(parts)
    for direction in _by_target(planned.everything):
        board.add(direction)
    if comet:
        for direction in _Progress(_by_target(planned.everything), "COMET", "direction"):
            board.add_comet(direction)
    written = board.write()
    return {direction: written[direction] for direction in planned.directions}


def mean_scores(scores: Mapping[Direction, Mapping]) -> dict[str, float]:
    """The mean of each metric over all directions."""
    metrics = [name for name in ("bleu", "chrf", "comet") if all(name in score for score in scores.values())]
    return {metric: sum(score[metric] for score in scores.values()) / len(scores) for metric in metrics}


def counted(directions: int) -> str:
    """``1 direction``, ``132 directions``."""
    return f"{directions} direction{'' if directions == 1 else 's'}"


def _levels(checkpoints: Sequence[Path], languages: Sequence[str]) -> dict[str, str]:
    """The levels that the first checkpoint with adapters gives the languages, for the report."""
    tables = filter(None, (stored_languages(read_outline(path)) for path in checkpoints))
    table = next(tables, None)
    levels = {} if table is None else dict(zip(table.names, table.levels, strict=True))
    return {name: level for name, level in levels.items() if name in languages}


def _by_target(directions: Sequence[Direction]) -> list[Direction]:
    """Orders directions so that those into one language follow each other: its references are prepared once."""
    return sorted(directions, key=lambda direction: (direction.target, direction.source))


def _decode(planned: Plan, share: Share, board: Scoreboard) -> None:
    options, start = planned.options, time.monotonic()
    sizes = [_source_bytes(options, direction) for direction in planned.missing]
    own = share.part(planned.missing, sizes)
    if share.rank == 0:
        others = f", by {share.count} processes" if share.count > 1 else ""
        print(
            f"langspec-lora: {counted(len(planned.missing))} to decode{others}, loading {_names(options)}",
            file=sys.stderr,
        )
    decoder = Decoder(
        options.data_bin,
        options.subset,
        planned.missing,
        planned.model,
        options.generation,
        options.max_tokens,
        options.batch_size,
        options.batching,
    )
    if not decoder.has_pairs and share.rank == 0:
        print(
            f"langspec-lora: {_names(options)} has no language-specific pairs; it is evaluated as it is",
            file=sys.stderr,
        )
    loaded = time.monotonic()
    sentences = share.everywhere(lambda: sum(len(decoder.load(direction)) for direction in own))
    share.first(lambda: _begin(planned))
    if not (options.out / SETTINGS).is_file():
        raise UserError(
            f"--out {options.out} is not the same folder for all processes; give one that all machines share"
        )
    with _Progress(None, "decoding", "sentence", sentences, share) as bar:
        bar.set_postfix_str(f"0/{len(own)} directions")
        for number, (direction, hypotheses) in enumerate(decoder.translate(own, bar.update), start=1):
            write_whole(hypotheses_path(options.out, direction), "".join(f"{line}\n" for line in hypotheses))
            board.add(direction)
            bar.set_postfix_str(f"{number}/{len(own)} directions", refresh=False)
    decoding = time.monotonic() - loaded - board.seconds
    if share.rank == 0:
        seconds = f"loading {loaded - start:.1f} s, decoding {decoding:.1f} s, scoring {board.seconds:.1f} s"
        print(f"langspec-lora: {seconds}", file=sys.stderr)


def _begin(planned: Plan) -> None:
    """From here on nothing is left to refuse; what --overwrite replaces stays until now."""
    if planned.options.overwrite:
        _remove_results(planned.options.out)
    write_json(planned.options.out / SETTINGS, planned.settings)


class _Progress(tqdm):
    """A bar; where the output is no terminal, a line now and then rather than a thousand."""

    def __init__(
        self, items: Sequence | None, name: str, unit: str, total: int | None = None, share: Share | None = None
    ) -> None:
        interval = 0.5 if sys.stderr.isatty() else 20.0
        if share and share.count > 1:
            name = f"{name} (process {share.rank + 1} of {share.count})"
        super().__init__(
            items,
            desc=name,
            unit=unit,
            total=total,
            mininterval=interval,
            maxinterval=interval,
            disable=is_quiet() or bool(share and share.rank),
        )


def _names(options: Options) -> str:
    return ":".join(map(str, options.checkpoints)) + ("" if options.pairs else " without its pairs")


def _check_lengths(options: Options, texts: SplitText, directions: Sequence[Direction]) -> None:
    """Makes sure, before anything is decoded, that there is a reference for each sentence."""
    counts = {language: texts.count(language) for language in languages_of(directions)}
    for direction in directions:
        side = side_path(options.data_bin, options.subset, direction, direction.source)
        sentences = count_sentences(str(side))
        for language in direction:
            lines = counts[language]
            if None not in (sentences, lines) and lines != sentences:
                raise UserError(
                    f"{texts.origin} has {lines} sentences of {language}, but the data of {direction} have "
                    f"{sentences}; give the text of the very sentences that are translated as --references"
                )


def _source_bytes(options: Options, direction: Direction) -> int:
    """Size of the binarised source: about how long the direction takes."""
    side = side_path(options.data_bin, options.subset, direction, direction.source)
    return side.with_name(f"{side.name}.bin").stat().st_size


def _common_dictionary(data_bin: Path, languages: Sequence[str]) -> Path:
    paths = [data_bin / f"dict.{language}.txt" for language in languages]
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path} is missing; give the model's dictionary as --fixed-dictionary")
    if len({sha256(path) for path in paths}) > 1:
        raise UserError(
            f"the dictionaries dict.LANG.txt in {data_bin} differ between languages; "
            "a model of many languages shares one: binarise all data with it"
        )
    return paths[0]


def _remove_results(out: Path) -> None:
    for path in _result_files(out):
        path.unlink()


def _result_files(out: Path) -> Iterator[Path]:
    for name in (SETTINGS, SCORES, SCORES_TABLE, PUBLISHED):
        if (out / name).is_file():
            yield out / name
    yield from list(out.glob("*-*.hyp.txt"))
    yield from list(out.glob(str(text_path(Path(), "*", "?" * 12))))
