"""fairseq's features of a search, beside adapters: the rows of :mod:`tests.fairseq_features` on searches.

What :mod:`tests.integration.test_stays_generation` has held against stock fairseq is not repeated here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fairseq import options
from fairseq_cli import generate

from langspec_lora.tasks.search import RepeatedNgrams
from tests import toy
from tests.bad_input import refusal_of, set_up_generation
from tests.evaluations import run_stock
from tests.fairseq_features import REFUSED, SEARCHES, WARNED, WORKS

COMMON = (
    "--required-batch-size-multiple",
    "1",
    "--num-workers",
    "0",
    "--max-len-b",
    "15",
    "--no-progress-bar",
    "--cpu",
)


def command(toy_data: Path, adapted: Path, *more: object) -> list[object]:
    return [
        *(toy_data, "--path", adapted, "--task", "translation_multi_simple_epoch_lora", "-s", "en", "-t", "wo"),
        *("--langs", ",".join(toy.LANGUAGES), "--lang-pairs", ",".join(toy.PAIRS), "--encoder-langtok", "src"),
        *("--decoder-langtok", "--fixed-dictionary", toy_data.parent / "dict.txt", *COMMON, *more),
    ]


def lines(printed: str, mark: str) -> list[str]:
    """The texts of the lines ``H-3`` and the like, sentence by sentence."""
    found = re.findall(rf"^{mark}-(\d+)\t(?:[^\t\n]*\t)?([^\t\n]*)$", printed, re.M)
    return [text for _, text in sorted(found, key=lambda each: int(each[0]))]


def generated(toy_data: Path, adapted: Path, out: Path, *flags: object) -> str:
    """What ``fairseq-generate`` writes."""
    with pytest.MonkeyPatch.context() as patch:
        run_stock(patch, generate, *command(toy_data, adapted, "--gen-subset", "test", "--results-path", out, *flags))
    return (out / "generate-test.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def plain(toy_data, adapted, tmp_path_factory) -> str:
    """A plain translation."""
    return generated(toy_data, adapted, tmp_path_factory.mktemp("plain"))


def scores(printed: str) -> list[float]:
    return [float(score) for score in re.findall(r"^H-\d+\t(\S+)", printed, re.M)]


def lengths(printed: str) -> int:
    return sum(len(text.split()) for text in lines(printed, "H"))


def repeats(printed: str, size: int) -> bool:
    """Whether a hypothesis has the same n words twice."""
    for text in lines(printed, "H"):
        words = text.split()
        ngrams = [tuple(words[start : start + size]) for start in range(len(words) + 1 - size)]
        if len(set(ngrams)) < len(ngrams):
            return True
    return False


EFFECTS: dict[str, Callable[[str, str], object]] = {
    "nucleus sampling": lambda found, plain: len(set(lines(found, "H"))) > len(set(lines(plain, "H"))),
    "siblings": lambda found, plain: scores(found) != scores(plain),
    "length penalty": lambda found, plain: lengths(found) > lengths(plain),
    "penalty of unknown words": lambda found, plain: "<unk>" in found.split("H-", 1)[1] and "<unk>" not in plain,
    "no normalisation": lambda found, plain: lengths(found) <= lengths(plain) and scores(found) != scores(plain),
    "temperature": lambda found, plain: scores(found) != scores(plain),
    "least length": lambda found, plain: (
        min(len(text.split()) for text in lines(found, "H")) >= 6 > min(len(t.split()) for t in lines(plain, "H"))
    ),
    "nothing twice": lambda found, plain: not repeats(found, 2),
    "no word twice": lambda found, plain: not repeats(found, 1) and repeats(plain, 1),
    "dropout": lambda found, plain: lines(found, "H") != lines(plain, "H"),
    "language tokens kept": lambda found, plain: lines(found, "H") == [f"__wo__ {text}" for text in lines(plain, "H")],
    "dropped layers in training only": lambda found, plain: lines(found, "H") == lines(plain, "H"),
}
TRIED = [row for row in SEARCHES if row.state == WORKS and not row.shown_by]


@pytest.mark.parametrize("row", TRIED, ids=lambda row: row.name)
def test_search_works(row, toy_data, adapted, plain, tmp_path) -> None:
    found = generated(toy_data, adapted, tmp_path, *row.flags.format().split())
    assert len(set(re.findall(r"^H-(\d+)", found, re.M))) == toy.SIZES["test"]
    assert EFFECTS[row.name](found, plain)


def test_every_row_has_its_effect_or_a_test_of_its_own() -> None:
    rows = {row.name for row in SEARCHES if row.state == WORKS and not row.shown_by}
    assert rows == EFFECTS.keys()


@pytest.mark.parametrize("row", [row for row in SEARCHES if row.state == REFUSED], ids=lambda row: row.name)
def test_search_is_refused_in_a_sentence(row, toy_data, adapted, tmp_path) -> None:
    flags = row.flags.format().split()
    if "--model-overrides" in flags:  # which change the model
        message = refusal_of(generated, toy_data, adapted, tmp_path, *flags)
    else:
        message = refusal_of(set_up_generation, toy_data, adapted, *flags)
    assert row.says in message


ONLY_INTERACTIVE = {
    "--score-reference": "--score-reference: fairseq-interactive reads no references; use fairseq-generate",
    "--input nowhere": "--input nowhere is no file; give the text to translate",
    "--constraints ordered": "--constraints: fairseq's multilingual task cannot force words",
}


@pytest.mark.parametrize("flags", ONLY_INTERACTIVE)
def test_interactive_refuses_it_before_it_loads_a_model(flags, toy_data, adapted) -> None:
    message = refusal_of(
        lambda: set_up_generation(
            toy_data, adapted, *flags.split(), parser=lambda: options.get_interactive_generation_parser()
        )
    )
    assert ONLY_INTERACTIVE[flags] in message


def test_scores_of_a_language_model_are_refused_before_a_model_is_loaded(toy_data, adapted) -> None:
    message = refusal_of(lambda: set_up_generation(toy_data, adapted, parser=options.get_eval_lm_parser))
    assert "fairseq-eval-lm scores language models, but these models translate" in message


@pytest.mark.parametrize("row", [row for row in SEARCHES if row.state == WARNED], ids=lambda row: row.name)
def test_flag_of_a_search_that_does_nothing_is_named(row, toy_data, adapted, caplog) -> None:
    with caplog.at_level(logging.WARNING, "langspec_lora"):
        set_up_generation(toy_data, adapted, *row.flags.split())
    told = [record.message for record in caplog.records if record.name.startswith("langspec_lora")]
    assert len(told) == 1
    assert row.says in told[0]


def test_a_prefix_is_not_read_by_fairseq_interactive(toy_data, adapted, caplog) -> None:
    parser = options.get_interactive_generation_parser
    with caplog.at_level(logging.WARNING, "langspec_lora"):
        set_up_generation(toy_data, adapted, "--prefix-size", "2", parser=parser)
    assert "--prefix-size 2: no effect, since fairseq-interactive reads no references" in caplog.text


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tokens_that_complete_a_known_ngram_are_excluded_and_no_others(size) -> None:
    """Against a plain loop over all n-grams of random hypotheses."""
    torch.manual_seed(3)
    vocabulary, rows, longest = 5, 6, 9
    for step in range(longest - 1):
        tokens = torch.randint(vocabulary, (rows, longest))
        tokens[:, step + 1 :] = 1  # fairseq's buffer is padded
        found = RepeatedNgrams(size)(tokens, torch.zeros(rows, vocabulary), 2, 3, step)
        for row in range(rows):
            known = tokens[row, 1 : step + 1].tolist()
            ngrams = {tuple(known[start : start + size]) for start in range(len(known) + 1 - size)}
            end = known[len(known) + 1 - size :] if size > 1 else []
            excluded = {word for word in range(vocabulary) if len(end) == size - 1 and (*end, word) in ngrams}
            assert {word for word in range(vocabulary) if found[row, word] == -torch.inf} == excluded
            assert set(found[row].tolist()) <= {0.0, -torch.inf}
