"""Language ids of single examples, in whatever order a batch puts them, and the data that are looked at first."""

from __future__ import annotations

import errno
import os
import shutil
from argparse import Namespace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.data.indexed_dataset import make_builder, make_dataset
from fairseq.data.multilingual.multilingual_data_manager import MultilingualDatasetManager

from langspec_lora.data import language_ids as language_id_module
from langspec_lora.data.language_ids import (
    LanguageIdDataManager,
    LanguageIdDataset,
    distinct_directions,
    language_ids,
    one_language,
)
from langspec_lora.data.lengths import Limits
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
    assert batch["directions"] == ((0, 1), (3, 1))
    assert one_language(batch) == (None, 1)
    assert [sample["id"] for sample in samples] == [70, 71, 72, 73]


def test_a_batch_of_one_direction_is_recognised(datasets) -> None:
    batch = datasets[0].collater([datasets[0][1], datasets[0][2]])
    assert batch["directions"] == ((3, 1),)
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


def test_languages_of_a_batch_are_read_from_its_ids_if_it_does_not_name_them() -> None:
    sample = {"net_input": {"src_lang_id": torch.tensor([[3], [0], [3]])}, "tgt_lang_id": torch.tensor([[1], [1], [1]])}
    assert distinct_directions(sample) == ((0, 1), (3, 1))
    assert one_language(sample) == (None, None)
    assert distinct_directions({**sample, "directions": ((4, 2),)}) == ((4, 2),)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError("…"), "no train data of en-fr in here; binarise that direction, or leave it out"),
        (
            OSError(errno.EMFILE, "Too many open files"),
            "train data of en-fr in here cannot be opened: Too many open files (at most 7 open files are allowed)",
        ),
        (AssertionError("…same number of examples…"), "train data of en-fr in here are misaligned: …same number"),
        (None, "train data of en-fr in here are empty; binarise text for that direction, or leave it out"),
    ],
)
def test_what_fairseq_cannot_load_ends_the_run_in_a_sentence(monkeypatch, error, words) -> None:
    monkeypatch.setattr(MultilingualDatasetManager, "load_a_dataset", Mock(side_effect=error, return_value=[]))
    manager = LanguageIdDataManager.__new__(LanguageIdDataManager)
    manager._limit = 7
    with pytest.raises(SystemExit) as end:
        manager.load_a_dataset("train", "here", "en", None, "fr", None)
    assert str(end.value.code).startswith(f"langspec-lora: error: {words}")


def test_other_errors_of_fairseq_are_unchanged(monkeypatch) -> None:
    monkeypatch.setattr(MultilingualDatasetManager, "load_a_dataset", Mock(side_effect=AssertionError("another")))
    with pytest.raises(AssertionError, match=r"^another$"):
        LanguageIdDataManager.__new__(LanguageIdDataManager).load_a_dataset("train", "here", "en", None, "fr", None)


def test_monolingual_data_have_their_language_on_both_sides(monkeypatch, datasets) -> None:
    load = Mock(return_value=datasets[0].dataset)
    monkeypatch.setattr(MultilingualDatasetManager, "load_a_dataset", load)
    manager = LanguageIdDataManager.__new__(LanguageIdDataManager)
    manager.langs = ["en", "fr"]
    loaded = manager.load_a_dataset("train", "here", None, None, "fr", None, combine=True)
    assert (loaded.source_id, loaded.target_id) == (1, 1)
    assert load.call_args == (("train", "here", None, None, "fr", None), {"combine": True})


@pytest.fixture
def own(toy_data: Path, tmp_path: Path) -> Path:
    """The data of one direction and of no other."""
    for path in (*toy_data.glob("*.en-fr.*"), toy_data.parent / "dict.txt"):
        shutil.copy(path, tmp_path)
    return tmp_path


def check(
    folder: Path,
    pair: str = "en-fr",
    needs_target: bool = True,
    split: str = "valid",
    limits: Limits | None = None,
    **changes: object,
) -> None:
    args = Namespace(
        **{"data": str(folder), "dataset_impl": "mmap", "extra_data": None, "extra_lang_pairs": None},
        **{"lang_pairs": [pair], "langtoks_specs": ["main"], "langtoks": {}, "virtual_data_size": None},
        **{"sampling_method": "uniform", "train_subset": "train", "valid_subset": "valid", "source_dict": None},
        **{"max_source_positions": 1024, "truncate_source": False, "lang_tok_replacing_bos_eos": False},
    )
    vars(args).update(changes)
    manager = LanguageIdDataManager.__new__(LanguageIdDataManager)
    dictionary = Dictionary.load(f"{str(folder).split(':')[0]}/dict.txt")
    manager.args, manager.lang_pairs = args, [pair]
    manager.dicts = dict.fromkeys(toy.LANGUAGES, dictionary)
    manager.check_files(split, limits=limits, **({} if needs_target else {"needs_target": False}))


def side(folder: Path, language: str) -> list[Path]:
    return [folder / f"valid.en-fr.{language}.{suffix}" for suffix in ("bin", "idx")]


def replace(folder: Path, language: str, other: str) -> None:
    for path in side(folder, language):
        shutil.copy(folder / path.name.replace("valid", other), path)


@pytest.mark.parametrize("pair", ["en-fr", "fr-en"])
def test_a_direction_is_found_under_either_name(own, pair) -> None:
    check(own, pair)


def test_missing_data_are_named(own, tmp_path) -> None:
    with pytest.raises(UserError, match=r"no valid data of en-nl in .*; binarise that direction"):
        check(own, "en-nl")
    for path in side(own, "fr"):
        path.unlink()
    with pytest.raises(UserError, match="no valid data of en-fr"):
        check(own)
    check(own, needs_target=False)


def test_folders_without_directions_and_monolingual_text_are_skipped(own, monkeypatch) -> None:
    folders = {"main": str(own), "mono_nl": "nowhere", "more": "nowhere"}
    pairs = {"main": ["en-fr"], "mono_nl": ["nl"], "other": ["en-nl"]}
    monkeypatch.setattr(LanguageIdDataManager, "get_data_paths_and_lang_pairs", lambda self, split: (folders, pairs))
    check(own)
    del pairs["main"]
    check(own)


def test_all_folders_of_training_data_are_checked_and_only_the_first_of_others(own, tmp_path_factory) -> None:
    second = Path(shutil.copytree(own, tmp_path_factory.mktemp("second"), dirs_exist_ok=True))
    folders = Path(f"{own}:{second}")
    for name in ("valid", "train"):
        check(folders, split=name)
        (second / f"{name}.en-fr.fr.bin").write_bytes(b"")
    check(folders)
    with pytest.raises(UserError, match=f"{second}/train.en-fr.fr.* is damaged"):
        check(folders, split="train")


OTHERWISE = {"positions": (1024, 1024), "tokens_flag": "--max-tokens", "skips": False}
"""The toy data's longest sentences have seven words and the end."""


@pytest.mark.parametrize(
    ("longest", "changes"),
    [
        (8, {}),
        (9, {"langtoks": {"main": ("src", None)}}),
        (9, {"langtoks": {"main": (None, "tgt")}}),
        (8, {"langtoks": {"main": ("src", "tgt")}, "lang_tok_replacing_bos_eos": True}),
        (9, {"langtoks": {"main": ("src", "tgt")}, "max_source_positions": 3}),
        (9, {"langtoks": {"main": ("src", "tgt")}, "max_source_positions": 3, "truncate_source": True}),
        (8, {"langtoks": {"main": ("src", None)}, "max_source_positions": 7, "truncate_source": True}),
    ],
)
def test_the_length_of_a_sentence_is_that_which_the_model_receives(own, longest, changes) -> None:
    check(own, limits=Limits(tokens=longest, **OTHERWISE), **changes)
    with pytest.raises(UserError, match=f"{longest} tokens, but --max-tokens is {longest - 1}"):
        check(own, limits=Limits(tokens=longest - 1, **OTHERWISE), **changes)


def test_ids_beyond_the_dictionary_are_named(own) -> None:
    size = len(Dictionary.load(str(own / "dict.txt")))
    path = side(own, "fr")[0]
    tokens = np.fromfile(path, dtype=np.uint16)
    tokens[5] = size - 1
    tokens.tofile(path)
    check(own)
    tokens[5] = size
    tokens.tofile(path)
    os.utime(path, ns=(1, 1))  # another file than the one that was looked at before
    with pytest.raises(
        UserError, match=rf"valid data of en-fr in .*, fr: the highest token id is {size}, .* has {size} entr"
    ):
        check(own)


def test_sides_of_different_length_are_named_with_their_lengths(own) -> None:
    replace(own, "fr", "train")
    with pytest.raises(UserError, match="misaligned: 12 sentences of en, 120 of fr; binarise both sides again"):
        check(own)
    with pytest.raises(UserError, match="misaligned"):
        check(own, dataset_impl=None)


@pytest.mark.parametrize("counts", [{"en": 0, "fr": 0}, {"en": 0, "fr": 12}])
def test_a_direction_without_sentences_is_named(own, monkeypatch, counts) -> None:
    monkeypatch.setattr(language_id_module, "count_sentences", lambda side: counts[side[-2:]])
    with pytest.raises(UserError, match=r"valid data of en-fr in .* are empty; binarise text"):
        check(own)


def as_cached(folder: Path, language: str) -> None:
    """Rewrites a side as fairseq's older format, by fairseq."""
    prefix = str(folder / f"valid.en-fr.{language}")
    sentences = list(make_dataset(prefix, "mmap"))
    builder = make_builder(f"{prefix}.bin", "cached")
    for sentence in sentences:
        builder.add_item(sentence)
    builder.finalize(f"{prefix}.idx")


@pytest.mark.parametrize("impl", [None, "cached", "lazy"])
def test_a_format_whose_sentences_are_not_counted_is_left_to_fairseq(own, impl) -> None:
    for language in ("en", "fr"):
        as_cached(own, language)
    check(own, limits=Limits(tokens=1, **OTHERWISE), dataset_impl=impl)


def test_a_format_other_than_the_requested_one_is_named(own) -> None:
    with pytest.raises(UserError, match=r"--dataset-impl lazy was given, but valid data of .* in the format mmap"):
        check(own, dataset_impl="lazy")
    for language in ("en", "fr"):
        as_cached(own, language)
    with pytest.raises(UserError, match=r"--dataset-impl mmap was given, but valid data of .* in the format cached"):
        check(own)


def test_sides_in_two_formats_are_refused(own) -> None:
    as_cached(own, "fr")
    with pytest.raises(UserError, match="in different formats; binarise both sides again"):
        check(own, dataset_impl=None)


def test_a_file_in_no_format_is_refused(own) -> None:
    (own / "valid.en-fr.en.idx").write_bytes(b"something else altogether" * 10)
    with pytest.raises(UserError, match=r"valid\.en-fr\.en\.idx is in an unknown format; binarise that side"):
        check(own)
