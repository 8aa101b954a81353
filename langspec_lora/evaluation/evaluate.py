"""The evaluation: decodes what is missing, scores everything, and leaves a results folder."""

from __future__ import annotations

import hashlib
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path

from tqdm import tqdm

from langspec_lora import __version__
from langspec_lora.errors import UserError
from langspec_lora.evaluation.decoding import MAX_TOKENS, Decoder, Generation, Model
from langspec_lora.evaluation.directions import Direction, choose_directions, find_directions, side_path
from langspec_lora.evaluation.results import (
    METRICS,
    PUBLISHED,
    SCORES,
    SCORES_TABLE,
    SETTINGS,
    hypotheses_path,
    published_format,
    read_json,
    read_lines,
    scores_csv,
    write_json,
    write_whole,
)
from langspec_lora.evaluation.scoring import TargetScorer, text_sha256

_SECONDS_BETWEEN_SCORE_FILES = 30.0


@dataclass(frozen=True)
class Options:
    """What to evaluate and how.

    Attributes:
        data_bin: the binarised folder.
        checkpoints: one checkpoint, or several of an ensemble.
        out: the results folder.
        subset: the split to translate.
        langs: languages between which to translate; those of the data where None.
        lang_pairs: directions joined by commas, or ``all``.
        references: folder with ``SUBSET.LANG``; looked for beside the data where None.
        dictionary: the model's dictionary; that of the data where None.
        tokenize: sacrebleu's tokenizer of BLEU.
        generation: beam and the like.
        encoder_langtok: ``src``, ``tgt``, ``none``; as the checkpoint was trained where None.
        decoder_langtok: whether targets start with their language token; as the checkpoint was trained where None.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        cpu: do not use a GPU.
        max_tokens: tokens in a batch.
        batch_size: sentences in a batch at most.
        mixed: directions may share a batch.
        overwrite: replace the results of other settings.
    """

    data_bin: Path
    checkpoints: tuple[Path, ...]
    out: Path
    subset: str = "test"
    langs: tuple[str, ...] | None = None
    lang_pairs: str = "all"
    references: Path | None = None
    dictionary: Path | None = None
    tokenize: str = "spm"
    generation: Generation = field(default_factory=Generation)
    encoder_langtok: str | None = None
    decoder_langtok: bool | None = None
    precision: str = "fp32"
    cpu: bool = False
    max_tokens: int = MAX_TOKENS
    batch_size: int | None = None
    mixed: bool = True
    overwrite: bool = False


def evaluate(options: Options) -> dict[Direction, Mapping]:
    """Evaluates a checkpoint; what an earlier call with the same settings has done is kept.

    Args:
        options: what to evaluate and how.

    Returns:
        The scores of each direction, as they stand in ``scores.json``.

    Raises:
        UserError: something is missing or does not fit; before anything is decoded.
    """
    from langspec_lora.evaluation.tokenizers import require_tokenizer

    require_tokenizer(options.tokenize)
    available = find_directions(options.data_bin, options.subset)
    directions = choose_directions(available, options.langs, options.lang_pairs)
    languages = list(dict.fromkeys(language for direction in directions for language in direction))
    dictionary = options.dictionary or _common_dictionary(options.data_bin, languages)
    model = Model.from_checkpoints(
        options.checkpoints,
        dictionary,
        languages,
        options.encoder_langtok,
        options.decoder_langtok,
        options.precision,
        options.cpu,
    )
    settings = _settings(options, model, directions)
    held = {} if options.overwrite else _held_sources(options.out, settings)
    missing = [direction for direction in directions if str(direction) not in held]
    settings["sources"] = dict(sorted({**held, **settings["sources"]}.items()))
    # Directions of earlier calls are scored again with the others, so that scores.json always speaks for the folder.
    earlier = [direction for direction in available if str(direction) in held and direction not in directions]
    everything = [*directions, *earlier]
    scores = _Scores(options, settings, _References(options, everything), everything)
    if missing:
        _decode(options, model, missing, settings, scores)
    for direction in _by_target(everything):
        scores.add(direction)
    written = scores.write()
    return {direction: written[direction] for direction in directions}


def mean_scores(scores: Mapping[Direction, Mapping]) -> dict[str, float]:
    """The mean of each metric over all directions."""
    return {metric: sum(score[metric] for score in scores.values()) / len(scores) for metric in METRICS}


def _by_target(directions: Sequence[Direction]) -> list[Direction]:
    """Orders directions so that those into one language follow each other: its references are prepared once."""
    return sorted(directions, key=lambda direction: (direction.target, direction.source))


def _decode(options: Options, model: Model, missing: Sequence[Direction], settings: Mapping, scores: _Scores) -> None:
    missing = _by_target(missing)
    print(
        f"langspec-lora: {len(missing)} directions to decode, loading {options.checkpoints[0]}",
        file=sys.stderr,
    )
    decoder = Decoder(
        options.data_bin,
        options.subset,
        missing,
        model,
        options.generation,
        options.max_tokens,
        options.batch_size,
        options.mixed,
    )
    total = sum(len(decoder.load(direction)) for direction in missing)
    # From here on nothing is left to refuse; what --overwrite replaces stays until now.
    if options.overwrite:
        _remove_results(options.out)
    write_json(options.out / SETTINGS, settings)
    # Where the output is no terminal, a line now and then rather than a thousand.
    interval = 0.5 if sys.stderr.isatty() else 20.0
    with tqdm(total=total, unit="sentence", desc="decoding", mininterval=interval, maxinterval=interval) as bar:
        bar.set_postfix_str(f"0/{len(missing)} directions")
        for number, (direction, hypotheses) in enumerate(decoder.translate(missing, bar.update), start=1):
            write_whole(hypotheses_path(options.out, direction), "".join(f"{line}\n" for line in hypotheses))
            scores.add(direction)
            bar.set_postfix_str(f"{number}/{len(missing)} directions", refresh=number == len(missing))


class _References:
    """The references of each target language: raw text beside the data, or else its binarised side."""

    def __init__(self, options: Options, directions: Sequence[Direction]) -> None:
        self._options = options
        targets = [direction.target for direction in directions]
        self._folder = options.references or self._find(targets)
        if self._folder is not None:
            for target in dict.fromkeys(targets):
                if not self._file(target).is_file():
                    raise UserError(
                        f"{self._file(target)} is missing; put the references of {target} there as plain text, or "
                        "leave --references out"
                    )

    @property
    def source(self) -> str:
        """Where the references come from, in words."""
        return str(self._folder) if self._folder else f"{self._options.data_bin} (binarised targets as text)"

    def lines(self, direction: Direction) -> list[str]:
        """The references of a direction."""
        if self._folder is not None:
            return read_lines(self._file(direction.target))
        return _binarised_text(self._options, direction)

    def key(self, direction: Direction) -> tuple:
        """Directions with the same key have the same references."""
        if self._folder is not None:
            return (direction.target,)
        path = side_path(self._options.data_bin, self._options.subset, direction, direction.target)
        return (direction.target, _file_key(path.with_name(f"{path.name}.bin")))

    def _file(self, language: str) -> Path:
        return self._folder / f"{self._options.subset}.{language}"

    def _find(self, targets: Sequence[str]) -> Path | None:
        for folder in (self._options.data_bin / "mono", self._options.data_bin.parent / "mono"):
            if all((folder / f"{self._options.subset}.{target}").is_file() for target in targets):
                return folder
        return None


def _binarised_text(options: Options, direction: Direction) -> list[str]:
    from fairseq.data import Dictionary, data_utils

    path = options.dictionary or options.data_bin / f"dict.{direction.target}.txt"
    dictionary = Dictionary.load(str(path))
    side = side_path(options.data_bin, options.subset, direction, direction.target)
    dataset = data_utils.load_indexed_dataset(str(side), dictionary, "mmap")
    text = (dictionary.string(tokens, options.generation.remove_bpe, escape_unk=True) for tokens in dataset)
    return list(text)


class _Scores:
    """The scores so far; those that ``scores.json`` has for the same text are taken from there."""

    def __init__(
        self, options: Options, settings: Mapping, references: _References, directions: Sequence[Direction]
    ) -> None:
        self._options, self._settings, self._references = options, settings, references
        self._directions = directions
        self._scores: dict[Direction, Mapping] = {}
        self._signatures: Mapping[str, str] = {}
        self._earlier: Mapping[str, Mapping] = {}
        self._scorer: tuple[tuple, TargetScorer] | None = None
        self._written = time.monotonic()
        if (options.out / SCORES).is_file():
            content = read_json(options.out / SCORES)
            if content.get("scoring") == _scoring(options):
                self._earlier, self._signatures = content["directions"], content["signatures"]

    def add(self, direction: Direction) -> None:
        """Scores the hypotheses of a direction, unless that has been done."""
        if direction in self._scores:
            return
        hypotheses = read_lines(hypotheses_path(self._options.out, direction))
        scorer = self._scorer_for(direction)
        earlier = self._earlier.get(str(direction))
        hashes = {"hypotheses_sha256": text_sha256(hypotheses), "references_sha256": scorer.references_sha256}
        if earlier and hashes.items() <= earlier.items():
            self._scores[direction] = earlier
            return
        self._scores[direction] = scorer.score(direction, hypotheses).to_json()
        self._signatures = scorer.signatures()
        if time.monotonic() - self._written > _SECONDS_BETWEEN_SCORE_FILES:
            self.write()

    def _scorer_for(self, direction: Direction) -> TargetScorer:
        key = self._references.key(direction)
        if self._scorer is None or self._scorer[0] != key:
            self._scorer = key, TargetScorer(self._references.lines(direction), self._options.tokenize)
        return self._scorer[1]

    def write(self) -> dict[Direction, Mapping]:
        """Writes the score files and returns the scores in the order of the directions."""
        scores = {direction: self._scores[direction] for direction in self._directions if direction in self._scores}
        content = {
            "scoring": _scoring(self._options),
            "signatures": self._signatures,
            "references": self._references.source,
            "versions": _versions(),
            "settings": self._settings,
            "directions": {str(direction): score for direction, score in scores.items()},
        }
        write_json(self._options.out / SCORES, content)
        write_whole(self._options.out / SCORES_TABLE, scores_csv(scores))
        write_whole(self._options.out / PUBLISHED, published_format(scores))
        self._written = time.monotonic()
        return scores


def _common_dictionary(data_bin: Path, languages: Sequence[str]) -> Path:
    paths = [data_bin / f"dict.{language}.txt" for language in languages]
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path} is missing; give the model's dictionary as --fixed-dictionary")
    if len({_sha256(path) for path in paths}) > 1:
        raise UserError(
            f"the dictionaries dict.LANG.txt in {data_bin} differ between languages; "
            "a model of many languages shares one: binarise all data with it"
        )
    return paths[0]


def _settings(options: Options, model: Model, directions: Sequence[Direction]) -> dict:
    return {
        "checkpoint": [{"path": str(path), "sha256": _sha256(path)} for path in model.checkpoints],
        "dictionary_sha256": _sha256(model.dictionary),
        "subset": options.subset,
        "generation": asdict(options.generation),
        "encoder_langtok": model.encoder_langtok,
        "decoder_langtok": model.decoder_langtok,
        "precision": model.precision,
        "sources": {str(direction): _source_sha256(options, direction) for direction in directions},
    }


def _source_sha256(options: Options, direction: Direction) -> str:
    side = side_path(options.data_bin, options.subset, direction, direction.source)
    return _sha256(side.with_name(f"{side.name}.bin"))


def _held_sources(out: Path, settings: Mapping) -> dict[str, str]:
    """Makes sure that the hypotheses in ``out`` were made with the same settings.

    Returns:
        Hash of the source text of each direction that ``out`` has hypotheses of.
    """
    present = {path.name.removesuffix(".hyp.txt") for path in out.glob("*-*.hyp.txt")}
    if not present:
        return {}
    keep = f"give another --out, or --overwrite to replace the results in {out}"
    if not (out / SETTINGS).is_file():
        raise UserError(f"{out} holds hypotheses but no {SETTINGS} that says what made them; {keep}")
    held = read_json(out / SETTINGS)
    for key, words in _WORDS.items():
        then, now = _compared(held, key), _compared(settings, key)
        if then != now:
            raise UserError(f"{out} holds results of {words}; {_difference(then, now)}; {keep}")
    sources = {direction: digest for direction, digest in held["sources"].items() if direction in present}
    changed = [name for name, digest in settings["sources"].items() if sources.get(name, digest) != digest]
    if changed:
        raise UserError(f"{out} holds results of other data: the source text of {changed[0]} has changed; {keep}")
    return sources


_WORDS = {
    "checkpoint": "another checkpoint",
    "dictionary_sha256": "another dictionary",
    "subset": "another subset",
    "generation": "other generation settings",
    "encoder_langtok": "another --encoder-langtok",
    "decoder_langtok": "another --decoder-langtok",
    "precision": "another precision",
}
"""What the hypotheses depend on, besides the data, and how an error calls a change of it."""


def _compared(settings: Mapping, key: str) -> object:
    value = settings.get(key)
    return [entry["sha256"] for entry in value] if key == "checkpoint" and value else value


def _difference(then: object, now: object) -> str:
    if isinstance(then, dict) and isinstance(now, dict):
        name = next(name for name in {**then, **now} if then.get(name) != now.get(name))
        return f"{name} was {then.get(name)} and is {now.get(name)}"
    if isinstance(then, list) and isinstance(now, list):
        then, now = (", ".join(str(digest)[:12] for digest in digests) for digests in (then, now))
        return f"its sha256 was {then} and is {now}"
    return f"it was {then} and is {now}"


def _remove_results(out: Path) -> None:
    for path in _result_files(out):
        path.unlink()


def _result_files(out: Path) -> Iterator[Path]:
    for name in (SETTINGS, SCORES, SCORES_TABLE, PUBLISHED):
        if (out / name).is_file():
            yield out / name
    yield from list(out.glob("*-*.hyp.txt"))


def _scoring(options: Options) -> dict[str, str]:
    """What the scores depend on, besides hypotheses and references."""
    versions = _versions()
    return {"tokenize": options.tokenize, **{name: versions[name] for name in ("sacrebleu", "sentencepiece")}}


def _versions() -> dict[str, str]:
    versions = {"langspec_lora": __version__, "python": platform.python_version()}
    for package in ("fairseq", "torch", "sacrebleu", "sentencepiece"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "unknown"
    return versions


def _file_key(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _sha256(path: Path) -> str:
    try:
        # Sides of multi-parallel data are links to one file: it is read once.
        return _sha256_of(path.resolve(), path.stat().st_mtime_ns)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; check the path") from error


@cache
def _sha256_of(path: Path, changed: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
