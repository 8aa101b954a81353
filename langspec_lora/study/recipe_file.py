"""Reads a recipe from its YAML file: every mistake in it is collected, and told as one sentence."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from langspec_lora.errors import ErrorCollector, UserError, collect_errors
from langspec_lora.naming import all_of, did_you_mean, some_of
from langspec_lora.study.recipe import BASE, BEST, LAST, LOSS, Base, Recipe, Variant, Words
from langspec_lora.values import check_once, number, shortened, whole_number
from langspec_lora.yaml_files import read_yaml

Value = TypeVar("Value")

DATA_COMMANDS = ("make-example", "prepare", "prepare-flores")

_KEYS = (
    "extends",
    *("title", "variables", "data", "base", "train", "seeds", "learning-rates", "epoch", "choose-by", "choose"),
    *("variants", "evaluate", "report", "compare-with", "threads"),
)
_REQUIRED = ("data", "base", "train", "seeds", "variants", "evaluate")
_BASE_KEYS = ("train", "epoch", "threads", "checkpoint")
_VARIANT_KEYS = ("flags", "learning-rates", "epoch")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,59}")
_TEXTS = ("title", "train", "evaluate", "report", "choose", "choose-by", "epoch", "threads")


def read_recipe(path: Path, given: Mapping[str, str], metrics: Collection[str]) -> Recipe:
    """Reads a recipe.

    Args:
        path: its file.
        given: values of variables, instead of those of the file.
        metrics: the scores by which a learning rate can be chosen.

    Raises:
        UserError: it cannot be read, or has mistakes; all of them are listed.
    """
    content = _read_content(path)
    with collect_errors() as errors:
        reader = _Reader(path, content, errors)
        reader.check_keys(content, _KEYS, "")
        reader.check_texts()
        errors.raise_found()
        recipe = reader.recipe(given, metrics)
    return recipe


def _read_content(path: Path, children: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The keys of a recipe, with those of the recipe that it extends; its own variables are added to the other's.

    Raises:
        UserError: a file cannot be read, or recipes extend each other.
    """
    if path.resolve() in children:
        raise UserError(f"recipe {path} extends itself; name another recipe")
    content = read_yaml(path, f"recipe {path}", "data, base, train, variants and so on")
    if not isinstance(content, dict):
        raise UserError(f"recipe {path} has no keys; expected {all_of(_REQUIRED)}")
    parent = content.pop("extends", None)
    if parent is None:
        return content
    if not isinstance(parent, str) or not parent:
        raise UserError(f"recipe {path}: extends must be the file of a recipe; found {shortened(parent)}")
    found = _read_content(path.parent / parent, (*children, path.resolve()))
    both = [one.get("variables") or {} for one in (found, content)]
    if all(isinstance(one, dict) for one in both):
        content["variables"] = {**both[0], **both[1]}
    return {**found, **content}


class _Reader:
    """Reads the parts of a recipe; mistakes are collected."""

    def __init__(self, path: Path, content: Mapping[str, Any], errors: ErrorCollector) -> None:
        self.label, self.path, self.content, self.errors = f"recipe {path}", path, content, errors

    def check_keys(self, found: Mapping[str, Any], known: Sequence[str], where: str) -> None:
        """Notes keys that are unknown, with the nearest known one."""
        for key in found:
            if key not in known:
                near = did_you_mean(key, known)
                self.note(f"{where}unknown key {shortened(key)}; {near}the keys are {all_of(known)}")

    def check_texts(self) -> None:
        """Notes what is missing, and what should be a text but is a list or a mapping."""
        missing = [key for key in _REQUIRED if not self.content.get(key)]
        if missing:
            self.note(f"{some_of(missing)} missing; every recipe has {all_of(_REQUIRED)}")
        for key in _TEXTS:
            if not isinstance(self.content.get(key, ""), str):
                self.note(f"{key} must be a text, such as flags; found {shortened(self.content[key])}")

    def note(self, text: str) -> None:
        """Collects a mistake."""
        with self.errors.check():
            raise UserError(f"{self.label}: {text}")

    def recipe(self, given: Mapping[str, str], metrics: Collection[str]) -> Recipe:
        """The recipe, once its keys are known to be right."""
        variables, data = self.variables(given), self.data(set(self.mapping("variables")))
        rates = self.rates(self.content.get("learning-rates", []), "learning-rates")
        epoch = self.one_of("epoch", self.content.get("epoch", LAST), (LAST, BEST))
        variants = self.variants(rates, epoch)
        names = [BASE, *(variant.name for variant in variants)]
        return Recipe(
            path=self.path,
            title=self.content.get("title", self.path.stem),
            variables=variables,
            data=data,
            base=self.base(),
            train=self.words("train"),
            variants=variants,
            seeds=self.seeds(),
            choose_by=self.one_of("choose-by", self.content.get("choose-by", LOSS), (LOSS, *metrics)),
            choose=self.words("choose"),
            evaluate=self.words("evaluate"),
            report=self.words("report"),
            compare_with=self.compared(names),
            threads=self.threads(self.content, "threads"),
        )

    def attempt(self, compute: Callable[[], Value], otherwise: Value) -> Value:
        """What ``compute`` returns, or ``otherwise``; its mistake is collected, with the recipe's name before it."""
        try:
            return compute()
        except UserError as error:
            self.note(str(error))
            return otherwise

    def threads(self, found: Mapping[str, Any], where: str) -> int | None:
        """A number of threads, if one is given."""
        return self.attempt(lambda: _positive(found["threads"], where), 1) if "threads" in found else None

    def mapping(self, key: str) -> Mapping[str, Any]:
        """A part of the recipe that maps names."""
        found = self.content.get(key) or {}
        if isinstance(found, dict):
            return found
        self.note(f"{key} must map names to values, such as '{key}: {{name: …}}'; found {shortened(found)}")
        return {}

    def split(self, text: object, where: str) -> Words:
        """The words of a command line."""
        if not isinstance(text, str):
            self.note(f"{where} must be a text of flags; found {shortened(text)}")
            return ()
        try:
            return tuple(shlex.split(text))
        except ValueError as error:
            self.note(f"{where}: {str(error).lower()} in {shortened(text)}; quote flags as in a shell")
            return ()

    def words(self, key: str) -> Words:
        """The words of a part that is a command line."""
        return self.split(self.content.get(key, ""), key)

    def name(self, text: str, what: str) -> str:
        """A name that a folder of the study can have."""
        if not _NAME.fullmatch(text):
            self.note(
                f"{what} {shortened(text)} is no name for a folder; give letters, digits, '.', '_', '+' and '-', at "
                "most 60, beginning with a letter or a digit"
            )
        return text

    def one_of(self, where: str, value: object, known: Sequence[str]) -> str:
        """A value among those that are known."""
        if value in known:
            return str(value)
        near = did_you_mean(str(value), known)
        self.note(f"{where} {shortened(value)} is unknown; {near}choose from {all_of(known)}")
        return known[0]

    def variables(self, given: Mapping[str, str]) -> dict[str, str]:
        """The variables, with the values of the command line."""
        found = self.mapping("variables")
        for name in given:
            if name not in found:
                near = did_you_mean(name, found)
                self.note(f"--set {name}=… sets no variable of the recipe; {near}it has {some_of(found) or 'none'}")
        values = {**found, **{name: value for name, value in given.items() if name in found}}
        for name, value in values.items():
            if not isinstance(value, str):
                self.note(f"variable {self.name(name, 'variable')} must be a text; found {shortened(value)}")
        return values

    def data(self, taken: Collection[str]) -> dict[str, Words]:
        """The commands that make the data."""
        commands = {}
        for name, text in self.mapping("data").items():
            if self.name(name, "data") in (*taken, "recipe"):
                self.note(f"data {name!r} has the name of something else that {{{name}}} means; give it another")
            words = self.split(text, f"data: {name}")
            if words and words[0] == "langspec-lora":
                words = words[1:]
            if not words or words[0] not in DATA_COMMANDS:
                near = did_you_mean(words[0], DATA_COMMANDS) if words else ""
                self.note(f"data: {name} is no command that makes data; {near}choose from {all_of(DATA_COMMANDS)}")
            commands[name] = words
        return commands

    def base(self) -> Base:
        """The model to fine-tune."""
        found = self.mapping("base")
        self.check_keys(found, _BASE_KEYS, "base: ")
        if ("train" in found) == ("checkpoint" in found):
            self.note("base needs either 'train', the flags of its training, or 'checkpoint', a file")
        if "checkpoint" in found:
            for key in ("epoch", "threads"):
                if key in found:
                    self.note(f"base: {key} belongs to 'train', but a checkpoint is given; leave it out")
            words = self.split(found["checkpoint"], "base: checkpoint")
            if len(words) != 1:
                self.note("base: checkpoint must be one file")
            return Base(checkpoint=words[0] if words else "")
        epoch = self.one_of("base: epoch", found.get("epoch", LAST), (LAST, BEST))
        flags = self.split(found.get("train", ""), "base: train")
        return Base(flags=flags, epoch=epoch, threads=self.threads(found, "base: threads"))

    def seeds(self) -> list[int]:
        """The seeds."""
        found = self.content.get("seeds", [])
        texts = found if isinstance(found, list) else [found]
        seeds = [self.attempt(lambda text=text: _positive(text, "seeds"), 1) for text in texts]  # type: ignore[misc]
        with self.errors.check():
            self.attempt(lambda: check_once(seeds, "seeds", "seed"), None)
        return seeds

    def rates(self, found: object, where: str) -> Words:
        """Learning rates, each once."""
        texts = found if isinstance(found, list) else [found]
        values = [self.attempt(lambda text=text: _rate(text, where), 0.0) for text in texts]  # type: ignore[misc]
        if 0.0 not in values:
            self.attempt(lambda: check_once(map(str, values), where, "learning rate"), None)
        return tuple(map(str, texts))

    def variants(self, rates: Words, epoch: str) -> list[Variant]:
        """The variants, with what they do not say themselves taken from the recipe."""
        variants = []
        for name, found in self.mapping("variants").items():
            if self.name(name, "variant") == BASE:
                self.note(f"variant {BASE!r} would be the base, which has its own row; give it another name")
            parts = {"flags": found} if isinstance(found, str) else found
            if not isinstance(parts, dict):
                self.note(f"variant {name} must be flags, or flags with learning-rates; found {shortened(found)}")
                continue
            where = f"variant {name}: "
            self.check_keys(parts, _VARIANT_KEYS, where)
            own = self.rates(parts["learning-rates"], f"{where}learning-rates") if "learning-rates" in parts else rates
            if not own:
                self.note(f"{where}no learning-rates; give them to it, or to the whole recipe")
            variants.append(
                Variant(
                    name=name,
                    flags=self.split(parts.get("flags", ""), f"{where}flags"),
                    rates=own,
                    epoch=self.one_of(f"{where}epoch", parts.get("epoch", epoch), (LAST, BEST)),
                )
            )
        return variants

    def compared(self, names: Sequence[str]) -> Words:
        """The rows with which others are compared."""
        found = self.content.get("compare-with", [BASE])
        rows = found if isinstance(found, list) else [found]
        chosen = [self.one_of("compare-with", row, names) for row in rows]
        self.attempt(lambda: check_once(chosen, "compare-with", "row"), None)
        return tuple(dict.fromkeys(chosen)) or (BASE,)


def _positive(text: object, where: str) -> int:
    """A whole number of at least 1.

    Raises:
        UserError: it is another text.
    """
    try:
        value = whole_number(str(text))
    except ValueError:
        value = 0
    if value < 1:
        raise UserError(f"{where} {shortened(text)}: expected a whole number of at least 1")
    return value


def _rate(text: object, where: str) -> float:
    try:
        value = number(str(text))
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UserError(f"{where}: {shortened(text)} is no learning rate; expected a number above 0, such as 0.003")
    return value
