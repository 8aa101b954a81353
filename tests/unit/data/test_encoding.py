"""Ids of lines and files of sides: against fairseq's own, one line at a time."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from fairseq.data import Dictionary, data_utils
from sentencepiece import SentencePieceProcessor

from langspec_lora.data.encoding import Encoder, SideWriter
from langspec_lora.data.vocabulary import dictionary_text, train_sentencepiece

LINES = [
    "the cat sleeps",
    "",
    "a  dog\u3000runs",
    "Ω unknown ☃ letters Ω",
    "x",
    "▁ \uff21\uff22\u00a0c\r\u2028d",
    "été naïf" * 30,
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = random.Random(3)
    text = ["".join(draw.choices("abcdefghiklmnoprstu éï", k=30)) for _ in range(200)]
    folder = tmp_path_factory.mktemp("encoding")
    content = train_sentencepiece([*text, "the cat sleeps", "a dog runs"], 60)
    (folder / "spm.model").write_bytes(content)
    # As in some releases, the dictionary has a character that the model does not, and lacks some of its pieces.
    pieces = dictionary_text(content, ["en"]).splitlines(True)
    (folder / "dict.txt").write_text("".join([*pieces[:20], "Ω 1\n", *pieces[25:]]), encoding="utf-8")
    return folder


@pytest.mark.parametrize("with_model", [True, False])
def test_ids_are_those_of_fairseq_line_by_line(model: Path, with_model: bool) -> None:
    vocabulary = Dictionary.load(str(model / "dict.txt"))
    processor = SentencePieceProcessor(model_file=str(model / "spm.model"))
    ids, sizes = Encoder(vocabulary, model / "spm.model" if with_model else None).encode(LINES)
    found = [part.tolist() for part in np.split(ids, np.cumsum(sizes)[:-1])]
    texts = [" ".join(processor.encode(line, out_type=str)) if with_model else line for line in LINES]
    assert found == [vocabulary.encode_line(text, add_if_not_exist=False).tolist() for text in texts]
    assert vocabulary.index("Ω") in found[3] or not with_model


def test_side_reads_back_as_it_was_written(tmp_path: Path) -> None:
    with SideWriter(tmp_path / "side", 70_000) as side:
        side.add(np.array([5, 69_000, 2, 2]), np.array([3, 1], dtype=np.int32))
        side.add(np.array([7, 2]), np.array([2], dtype=np.int32))
    read = data_utils.load_indexed_dataset(str(tmp_path / "side"), None, "mmap")
    assert [line.tolist() for line in read] == [[5, 69_000, 2], [2], [7, 2]]


def test_weights_do_what_repeated_lines_do() -> None:
    lines = ["ab abc", "cab bd", "zz zy"]
    repeated = [line for line, count in zip(lines, (30, 20, 10), strict=True) for _ in range(count)]
    weighted = train_sentencepiece(lines, 14, [30, 20, 10])
    pieces = [
        {p.id_to_piece(n): round(p.get_score(n), 4) for n in range(p.get_piece_size())}
        for p in (SentencePieceProcessor(model_proto=model) for model in (weighted, train_sentencepiece(repeated, 14)))
    ]
    assert pieces[0] == pieces[1]
    unweighted = SentencePieceProcessor(model_proto=train_sentencepiece(lines, 14))
    assert pieces[0] != {
        unweighted.id_to_piece(n): round(unweighted.get_score(n), 4) for n in range(unweighted.get_piece_size())
    }
