"""Directions whose files are links to one another share one open dataset."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary, LanguagePairDataset, PrependTokenDataset
from fairseq.data.indexed_dataset import MMapIndexedDataset, MMapIndexedDatasetBuilder, make_dataset

from langspec_lora.data.shared_files import SharedDatasets, share_lengths, sizes_of
from tests import ROOT

OPEN_FILES = Path("/proc/self/fd")


def count_open() -> int:
    return len(list(OPEN_FILES.iterdir()))


def write_side(prefix: Path, sentences: list[list[int]]) -> None:
    builder = MMapIndexedDatasetBuilder(f"{prefix}.bin", np.uint16)
    for sentence in sentences:
        builder.add_item(torch.tensor(sentence))
    builder.finalize(f"{prefix}.idx")


def link_side(prefix: Path, name: Path, link=os.link) -> None:
    for end in ("bin", "idx"):
        link(f"{prefix}.{end}", f"{name}.{end}")


def opened(shared: SharedDatasets, prefix: Path) -> MMapIndexedDataset:
    return shared.open(str(prefix), lambda: make_dataset(str(prefix), "mmap"))


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_names_of_one_file_are_opened_once(tmp_path: Path, link) -> None:
    write_side(tmp_path / "a", [[4, 5], [6]])
    link_side(tmp_path / "a", tmp_path / "b", link)
    shared = SharedDatasets()
    first = opened(shared, tmp_path / "a")
    assert opened(shared, tmp_path / "b") is first


def test_files_of_the_same_content_or_name_are_not_taken_for_one(tmp_path: Path) -> None:
    write_side(tmp_path / "a", [[4, 5], [6]])
    write_side(tmp_path / "b", [[4, 5], [6]])
    shared = SharedDatasets()
    first, second = opened(shared, tmp_path / "a"), opened(shared, tmp_path / "b")
    assert first is not second
    write_side(tmp_path / "new", [[7]])
    for end in ("bin", "idx"):
        (tmp_path / f"new.{end}").replace(tmp_path / f"a.{end}")
    assert opened(shared, tmp_path / "a")[0].tolist() == [7]
    assert first[0].tolist() == [4, 5]


def test_a_side_whose_index_alone_is_shared_is_another(tmp_path: Path) -> None:
    write_side(tmp_path / "a", [[4, 5], [6]])
    write_side(tmp_path / "b", [[8, 9], [7]])
    (tmp_path / "b.idx").unlink()
    os.link(tmp_path / "a.idx", tmp_path / "b.idx")
    shared = SharedDatasets()
    assert opened(shared, tmp_path / "a")[0].tolist() == [4, 5]
    assert opened(shared, tmp_path / "b")[0].tolist() == [8, 9]


def test_a_token_is_prepended_once_for_each_dataset_and_token(tmp_path: Path) -> None:
    write_side(tmp_path / "a", [[4, 5], [6]])
    write_side(tmp_path / "b", [[7], [8, 9]])
    shared = SharedDatasets()
    datasets = {name: opened(shared, tmp_path / name) for name in "ab"}
    made = [
        (name, token, shared.prepend(datasets[name], PrependTokenDataset(datasets[name], token)))
        for name in "ab"
        for token in (10, 11)
        for _ in range(2)
    ]
    for (name, token, one), (other_name, other_token, other) in permutations(made, 2):
        assert (one is other) == ((name, token) == (other_name, other_token))
    for name, token, dataset in made:
        assert dataset[0].tolist() == [token, *datasets[name][0].tolist()]
    assert shared.prepend(datasets["a"], datasets["a"]) is datasets["a"]


@pytest.mark.parametrize("token", [None, 10])
def test_a_direction_holds_no_lengths_of_its_own(tmp_path: Path, token) -> None:
    write_side(tmp_path / "a", [[4, 5], [6]])
    write_side(tmp_path / "b", [[7], [8, 9, 4]])
    source, target = (opened(SharedDatasets(), tmp_path / name) for name in "ab")
    if token is not None:
        source, target = (PrependTokenDataset(side, token) for side in (source, target))
    made = [
        LanguagePairDataset(source, source.sizes, Dictionary(), target, target.sizes, Dictionary()) for _ in range(2)
    ]
    share_lengths(made[0])
    assert np.array_equal(sizes_of(made[0]), made[1].sizes)
    assert np.array_equal(sizes_of(made[0]), sizes_of(made[1]))
    assert not hasattr(made[0], "sizes")
    assert np.shares_memory(made[0].src_sizes, source.sizes)
    assert np.shares_memory(made[0].tgt_sizes, target.sizes)


def test_a_direction_without_target_keeps_its_lengths(tmp_path: Path) -> None:
    write_side(tmp_path / "a", [[4, 5], [6]])
    source = opened(SharedDatasets(), tmp_path / "a")
    dataset = LanguagePairDataset(source, source.sizes, Dictionary())
    share_lengths(dataset)
    assert sizes_of(dataset).tolist() == [2, 1]


def test_what_no_direction_uses_any_more_is_closed(tmp_path: Path) -> None:
    write_side(tmp_path / "a", [[4, 5], [6]])
    shared = SharedDatasets()
    if not OPEN_FILES.is_dir():
        pytest.skip("this system does not list open files")
    before = count_open()
    dataset = opened(shared, tmp_path / "a")
    prepended = shared.prepend(dataset, PrependTokenDataset(dataset, 10))
    assert count_open() > before
    del dataset, prepended
    assert count_open() == before


def test_the_limit_of_open_files_is_raised_to_what_is_allowed() -> None:
    code = (
        "import resource as r; _, hard = r.getrlimit(r.RLIMIT_NOFILE); r.setrlimit(r.RLIMIT_NOFILE, (64, hard));"
        "from langspec_lora.data.shared_files import raise_limit_of_open_files as f;"
        "print(f() == r.getrlimit(r.RLIMIT_NOFILE)[0] > 64 or hard <= 64)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
