"""Prepares any parallel text as data to train on.

::

    OUT/data-bin/       train, valid and test of all language pairs, for the stock commands
    OUT/mono/           valid.LANG and test.LANG as plain text, if a language has the same lines in all its directions
    OUT/spm.model       the SentencePiece model
    OUT/dict.txt        the dictionary, with the language tokens at its end if it was made here
    OUT/pairs.txt       the training directions, for --lang-pairs
    OUT/languages.yaml  the resource levels, for --lang-resources
    OUT/counts.tsv      what each filter removed of each language pair
    OUT/prepare.json    the settings, and the counts of all together
"""

# Imports in functions: fairseq takes seconds, and all mistakes in the text are found before.

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from langspec_lora.data.binarise import Summary
from langspec_lora.data.own_text.columns import EMPTY, Columns
from langspec_lora.data.own_text.cutting import LARGEST_SHARE, cut, hold_out
from langspec_lora.data.own_text.filters import FILTERS
from langspec_lora.data.own_text.folder import (
    DATA,
    MONO,
    check_inputs,
    check_place,
    complete_record,
    new_folder,
    write_record,
)
from langspec_lora.data.own_text.levels import doubt, levels_text, suggest_levels
from langspec_lora.data.own_text.options import Options, check_options, default_size, settings_of
from langspec_lora.data.own_text.pairs import Pairs
from langspec_lora.data.own_text.sides import Sides
from langspec_lora.data.own_text.text_files import SPLITS, FoundText, ParallelText, find_text, pairs_of
from langspec_lora.data.own_text.vocabulary_sample import draw
from langspec_lora.data.vocabulary import (
    SENTENCEPIECE,
    dictionary_text,
    lacking_tokens,
    load_dictionary,
    train_sentencepiece,
)
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.languages import Resources
from langspec_lora.naming import some_of
from langspec_lora.resources import read_resources

_UNKNOWN_TOKENS = 0.01  # a higher share is reported


def prepare(
    options: Options, out: Path, overwrite: bool = False, say: Callable[[str], None] = lambda text: None
) -> tuple[dict[str, Any], bool]:
    """Prepares the folder, or finds it made with the same text and settings.

    Args:
        options: the text and the settings.
        out: the folder to make; it appears when it is complete.
        overwrite: whether a folder that was made with others may be replaced.
        say: called with a message before each long step.

    Returns:
        The record of the folder (``prepare.json``), and whether this call made it.

    Raises:
        UserError: text or settings are of no use; all mistakes that do not depend on each other are listed.
    """
    resources, found = _checked(options, out)
    paths = {column.path for texts in found.texts.values() for text in texts for column in text.columns}
    check_inputs(out, paths)
    settings = settings_of(options, found, resources)
    if (record := complete_record(out, settings, overwrite)) is not None:
        return record, False
    with new_folder(out, settings, overwrite) as folder:
        record = write_record(folder, _Preparation(options, found, resources, folder, say).run(settings))
    return record, True


def _checked(options: Options, out: Path) -> tuple[Resources | None, FoundText]:
    """The levels of ``options.languages``, and the text that is found.

    Raises:
        UserError: see :func:`prepare`.
    """
    resources: Resources | None = None
    names: dict[str, str] | None = None
    with collect_errors() as errors:
        with errors.check():
            check_options(options)
        with errors.check():
            check_place(out)
        with errors.check():
            if options.languages is not None:
                resources = read_resources(options.languages)
                names = {code: name for name, code in resources.flores.items()}
                names |= {name: name for name in resources.levels}
            found = find_text(options.folders, names, list(resources.levels) if resources else None)
            _require_validation(options, found)
    return resources, found


def _require_validation(options: Options, found: FoundText) -> None:
    """Makes sure that each training direction is validated: fairseq ends in a KeyError if one has no text for it.

    Raises:
        UserError: one has none.
    """
    if not options.folders.get("valid"):
        return  # which check_options has said
    lacking = pairs_of(found.texts["train"]) - pairs_of(found.texts.get("valid", ()))
    if lacking and "valid" not in options.lines:
        names = some_of("-".join(pair) for pair in sorted(lacking))
        raise UserError(
            f"--valid has no text of {names}, and fairseq needs some of every training direction; add it, or give "
            "--valid-lines 500 to cut 500 lines of each of these language pairs out of the training text"
        )


class _Preparation:
    """One preparation, step by step."""

    def __init__(
        self,
        options: Options,
        found: FoundText,
        resources: Resources | None,
        folder: Path,
        say: Callable[[str], None],
    ) -> None:
        self.options, self.found, self.resources = options, found, resources
        self.folder, self.say = folder, say
        self.notes = list(found.notes)
        if lacking := [name for name in (resources.levels if resources else ()) if name not in found.languages]:
            self.notes.append(f"--languages names {some_of(lacking)}, of which there is no text")
        self.work = folder / "work"
        self.work.mkdir()
        self.columns = Columns(self.work)
        self.texts: dict[str, list[ParallelText]] = {split: list(found.texts.get(split, ())) for split in SPLITS}
        self.rows: dict[str, list[np.ndarray | None] | None] = dict.fromkeys(SPLITS)

    def run(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Does all steps.

        Returns:
            What is recorded.
        """
        self.columns.measure(text for texts in self.texts.values() for text in texts)
        self._hold_out()
        self._place_vocabulary()
        from langspec_lora.data.encoding import Encoder

        encoder = Encoder(load_dictionary(self.folder / "dict.txt"), self.folder / "spm.model")
        self.say("encoding")
        self.columns.encode(dict.fromkeys(text for split in SPLITS for text in self.texts[split]), encoder)
        sides = Sides(self.folder / DATA, self.columns, len(encoder.vocabulary), encoder.vocabulary.unk())
        pairs = Pairs(sides, self.columns, self.found.languages)
        pairs.write_training(self.texts["train"], self.rows["train"], self.options.limits)
        for split in ("valid", "test"):
            pairs.write_held_out(split, self.texts[split], self.rows[split], self.folder / MONO)
        directions = pairs.directions()
        if not directions:
            total = pairs.total("train")
            removed = some_of(f"{total[name]:,} {name.replace('_', ' ')}" for name in FILTERS if total[name])
            raise UserError(
                f"no training line of {total['read']:,} is left in a language pair that has validation text (removed: "
                f"{removed}); give other text, or other limits"
            )
        sides.add_files(
            [(f"dict.{name}.txt", self.folder / "dict.txt") for name in self.found.languages]
            + [(SENTENCEPIECE, self.folder / "spm.model")]
        )
        sentences = pairs.sentences()
        levels = self._write_levels(sentences)
        (self.folder / "pairs.txt").write_text(",".join(map("-".join, directions)) + "\n", encoding="utf-8")
        (self.folder / "counts.tsv").write_text(pairs.table(), encoding="utf-8")
        shutil.rmtree(self.work)
        self._note_leftovers(pairs, sides.summary)
        return {
            "settings": dict(settings),
            "dictionary_entries": len(encoder.vocabulary),
            "sentences": sentences,
            "levels": levels,
            "directions": len(directions),
            "splits": {split: pairs.total(split) for split in SPLITS},
            "summary": asdict(sides.summary),
            "notes": self.notes,
        }

    def _note_leftovers(self, pairs: Pairs, summary: Summary) -> None:
        """Notes what is worth knowing of the result."""
        empty = ["-".join(pair) for (split, pair), left in pairs.counts.items() if split == "train" and not left.kept]
        if empty:
            self.notes.append(f"no training line is left of {some_of(empty)}")
        if alone := ["-".join(pair) for pair in pairs.trained_pairs(validated=False)]:
            self.notes.append(
                f"no validation line is left of {some_of(alone)}: not in pairs.txt, as fairseq needs some"
            )
        trained = {*pairs.trained_pairs(), *pairs.trained_pairs(validated=False)}
        for split, what in (("valid", "validated"), ("test", "tested")):
            unseen = [
                "-".join(pair)
                for (name, pair), left in pairs.counts.items()
                if name == split and left.kept and pair not in trained
            ]
            if unseen:
                self.notes.append(f"{what} but never trained on: {some_of(unseen)}")
        if pairs.total("test")["kept"] and not list((self.folder / MONO).glob("test.*")):
            self.notes.append(
                "the test text of a language differs by direction, so 'evaluate' scores against the binarised text, as "
                "SentencePiece normalises it; --references takes other text"
            )
        if summary.unknown > _UNKNOWN_TOKENS * summary.tokens:
            self.notes.append(f"{summary.unknown / summary.tokens:.1%} of the tokens are unknown to the dictionary")

    def _hold_out(self) -> None:
        """Finds out which sentences are held out, and cuts those that are to be cut."""
        for split in ("valid", "test"):
            hold_out(self.columns, self.texts[split])
        self._note_overlap()
        texts = self.texts["train"]
        taken = [np.zeros(self.columns.lines(text.columns[0]), dtype=bool) for text in texts]
        for split in ("test", "valid"):  # a test set of the wanted size matters most
            if split not in self.options.lines:
                continue
            count = self.options.lines[split]
            given = self.texts[split]
            done = cut(self.columns, texts, count, taken, pairs_of(texts) - pairs_of(given))
            taken = [one | other for one, other in zip(taken, done.rows, strict=True)]
            self.texts[split], self.rows[split] = [*given, *texts], [None] * len(given) + done.rows
            if done.short:
                self.notes.append(
                    f"--{split}-lines {count}: {done.short:,} of {done.units:,} language pairs have too few lines for "
                    f"so many; one in {LARGEST_SHARE} of theirs was cut"
                )
        if any(rows.any() for rows in taken):
            self.rows["train"] = [~rows for rows in taken]

    def _note_overlap(self) -> None:
        """Says how many sentences are both in validation and test text."""
        shared = {}
        for language in self.found.languages:
            own = []
            for split in ("valid", "test"):
                parts = [
                    self.columns.normal(c) for text in self.texts[split] for c in text.columns if c.language == language
                ]
                own.append(np.unique(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.uint64))
            both = np.intersect1d(own[0], own[1], assume_unique=True)
            shared[language] = int((both != EMPTY).sum())
        if total := sum(shared.values()):
            names = some_of(f"{name} {count:,}" for name, count in shared.items() if count)
            self.notes.append(
                f"valid and test share {total:,} sentences ({names}): do not choose a checkpoint by its score on valid"
            )

    def _place_vocabulary(self) -> None:
        options = self.options
        spm, dictionary = self.folder / "spm.model", self.folder / "dict.txt"
        if options.spm is not None and options.dictionary is not None:
            spm.write_bytes(options.spm.read_bytes())
            dictionary.write_bytes(options.dictionary.read_bytes())
            self.notes += lacking_tokens(options.dictionary, self.found.languages)
            return
        size = options.vocab_size or default_size(len(self.found.languages))
        lines, frequencies = draw(self.columns, self.texts["train"], temperature=options.temperature)
        if not lines:
            raise UserError("no training sentence is left: all are empty or held out; give other text")
        self.say(f"training a SentencePiece model of {size:,} pieces on {len(lines):,} sentences")
        model = train_sentencepiece(lines, size, None if set(frequencies) == {1} else frequencies)
        spm.write_bytes(model)
        dictionary.write_text(dictionary_text(model, self.found.languages), encoding="utf-8")

    def _write_levels(self, sentences: Mapping[str, int]) -> dict[str, str]:
        if self.resources is not None:
            levels = {name: self.resources.levels[name] for name in sentences}
            ranks = {name: rank for name, rank in self.resources.ranks.items() if name in levels}
            comment = f"Resource levels, taken from {self.options.languages and self.options.languages.name}"
        else:
            levels, ranks = suggest_levels(sentences, self.options.high, self.options.med), {}
            comment = (
                f"Resource levels suggested by the training sentences: high from {self.options.high:,}, med from "
                f"{self.options.med:,}"
            )
            if text := doubt(sentences, levels):
                self.notes.append(text)
        (self.folder / "languages.yaml").write_text(levels_text(levels, ranks, comment), encoding="utf-8")
        return levels
