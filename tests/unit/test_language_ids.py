"""Language ids of single examples, in whatever order a batch puts them, and the data that are looked at first."""

from __future__ import annotations

import shutil
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from fairseq.data import Dictionary, LanguagePairDataset

from langspec_lora.data import language_ids as language_id_module
from langspec_lora.data.language_ids import LanguageIdDataManager, LanguageIdDataset, language_ids, one_language
from langspec_lora.errors import UserError
from tests import toy

LENGTHS = (2, 5, 3, 4)


@pytest.fixture
def datasets(toy_data: Path) -> list[LanguageIdDataset]:
    """Two directions of equal examples."""
    dictionary = Dictionary.load(str(toy_data.parent / "dict.txt"))
    examples = [torch.full((length,), 10 + length) for length in LENGTHS]
    pairs = LanguagePairDataset(examples, LENGTHS, dictionary, examples, LENGTHS, dictionary)
    return [LanguageIdDataset(pairs, 3, 1), LanguageIdDataset(pairs, 0, 1)]


def test_ids_follow_their_examples_where_fairseq_sorts_a_batch_by_length(datasets) -> None:
    samples = [datasets[number % 2][number] for number in range(4)]
    for sample, name in zip(samples, (70, 71, 72, 73), strict=True):
        sample["id"] = name
    batch = datasets[0].collater(samples)
    assert batch["net_input"]["src_lengths"].tolist() == [5, 4, 3, 2]
    assert batch["id"].tolist() == [71, 73, 72, 70]
    assert batch["net_input"]["src_lang_id"].tolist() == [[0], [0], [3], [3]]
    assert batch["tgt_lang_id"].tolist() == [[1]] * 4
    assert batch["languages"] == ((0, 3), (1,))
    assert one_language(batch) == (None, 1)
    assert [sample["id"] for sample in samples] == [70, 71, 72, 73]


def test_a_batch_of_one_direction_says_so(datasets) -> None:
    batch = datasets[0].collater([datasets[0][1], datasets[0][2]])
    assert batch["languages"] == ((3,), (1,))
    assert one_language(batch) == (3, 1)


def test_an_empty_batch_stays_empty_and_a_dataset_keeps_its_own_attributes(datasets) -> None:
    assert not datasets[0].collater([])
    assert datasets[0].left_pad_source is True
    assert datasets[0].src_sizes.tolist() == list(LENGTHS)
    assert not hasattr(datasets[0], "nothing")
    with pytest.raises(AttributeError):
        LanguageIdDataset.__new__(LanguageIdDataset).dataset  # noqa: B018  as pickle asks, before there is one


def test_ids_are_positions_in_the_list_of_languages() -> None:
    ids = language_ids("wo", list(toy.LANGUAGES), 3, torch.zeros(1, device="meta"))
    assert ids.shape == (3, 1)
    assert ids.dtype == torch.int64
    assert ids.is_meta
    assert language_ids("wo", list(toy.LANGUAGES), 2, torch.zeros(1)).tolist() == [[3], [3]]


@pytest.fixture
def own(toy_data: Path, tmp_path: Path) -> Path:
    """The data of one direction and of no other."""
    for path in (*toy_data.glob("*.en-fr.*"), toy_data.parent / "dict.txt"):
        shutil.copy(path, tmp_path)
    return tmp_path


def check(folder: Path, pair: str = "en-fr", needs_target: bool = True, impl: str | None = "mmap") -> None:
    args = Namespace(
        **{"data": str(folder), "dataset_impl": impl, "extra_data": None, "extra_lang_pairs": None},
        **{"lang_pairs": [pair], "langtoks_specs": ["main"], "langtoks": None, "virtual_data_size": None},
        **{"sampling_method": "uniform", "train_subset": "train", "valid_subset": "valid", "source_dict": None},
    )
    manager = LanguageIdDataManager.__new__(LanguageIdDataManager)
    dictionary = Dictionary.load(str(folder / "dict.txt"))
    manager.args, manager.lang_pairs = args, [pair]
    manager.dicts = dict.fromkeys(toy.LANGUAGES, dictionary)
    manager.check_files("valid", **({} if needs_target else {"needs_target": False}))


def side(folder: Path, language: str) -> list[Path]:
    return [folder / f"valid.en-fr.{language}.{suffix}" for suffix in ("bin", "idx")]


def replace(folder: Path, language: str, other: str) -> None:
    for path in side(folder, language):
        shutil.copy(folder / path.name.replace("valid", other), path)


@pytest.mark.parametrize("pair", ["en-fr", "fr-en"])
def test_a_direction_is_found_under_either_name(own, pair) -> None:
    check(own, pair)


def test_what_is_missing_is_named(own, tmp_path) -> None:
    with pytest.raises(UserError, match=r"there are no valid data of en-nl in .*; binarise that direction"):
        check(own, "en-nl")
    for path in side(own, "fr"):
        path.unlink()
    with pytest.raises(UserError, match="there are no valid data of en-fr"):
        check(own)
    check(own, needs_target=False)


def test_folders_without_directions_and_text_of_one_language_are_passed_over(own, monkeypatch) -> None:
    folders = {"main": str(own), "mono_nl": "nowhere", "more": "nowhere"}
    pairs = {"main": ["en-fr"], "mono_nl": ["nl"], "other": ["en-nl"]}
    monkeypatch.setattr(LanguageIdDataManager, "get_data_paths_and_lang_pairs", lambda self, split: (folders, pairs))
    check(own)


def test_sides_of_different_length_are_named_with_their_lengths(own) -> None:
    replace(own, "fr", "train")
    with pytest.raises(UserError, match="misaligned: 12 sentences of en, 120 of fr; binarise both sides again"):
        check(own)
    with pytest.raises(UserError, match="misaligned"):
        check(own, impl=None)


def test_a_direction_without_sentences_is_named(own, monkeypatch) -> None:
    monkeypatch.setattr(language_id_module, "count_sentences", lambda side: 0)
    with pytest.raises(UserError, match=r"valid data of en-fr in .* are empty; binarise text"):
        check(own)


def test_a_format_whose_sentences_are_not_counted_is_left_to_fairseq(own, monkeypatch) -> None:
    monkeypatch.setattr(language_id_module, "count_sentences", lambda side: None)
    check(own)
