"""Damage that scripts/fuzz.py found to be accepted without a word, or to end in a traceback."""

from __future__ import annotations

import io
import random
import tarfile
from argparse import Namespace
from pathlib import Path

import pytest

from langspec_lora.config import check_adapter_flags
from langspec_lora.data.directions import find_directions
from langspec_lora.data.flores_download import download
from langspec_lora.data.vocabulary import (
    check_fit,
    dictionary_text,
    load_dictionary,
    load_splitter,
    train_sentencepiece,
)
from langspec_lora.errors import UserError
from langspec_lora.flags import AdapterFlags


def flores(compression: str, lines: int = 50) -> bytes:
    """An archive whose members are long enough to be compressed into several hundred bytes."""
    draw, written = random.Random(1), io.BytesIO()
    with tarfile.open(fileobj=written, mode=f"w{compression}") as archive:
        for split in ("dev", "devtest"):
            content = "".join(f"{draw.random()}\n" for _ in range(lines)).encode()
            member = tarfile.TarInfo(f"flores101_dataset/{split}/eng.{split}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return written.getvalue()


def unpacked(folder: Path, content: bytes) -> Path:
    folder.mkdir()
    (folder / "flores101_dataset.tar.gz").write_bytes(content)
    return download("http://nowhere.invalid/flores101_dataset.tar.gz", folder)


@pytest.mark.parametrize("compression", ["", ":gz"])
def test_a_sound_archive_is_unpacked(tmp_path, compression) -> None:
    folder = unpacked(tmp_path / "sound", flores(compression))
    assert [len((folder / split / f"eng.{split}").read_text().splitlines()) for split in ("dev", "devtest")] == [50, 50]


def test_no_flipped_bit_of_an_archive_changes_a_text(tmp_path) -> None:
    content = flores(":gz")
    sound = unpacked(tmp_path / "sound", content)
    texts = {path.name: path.read_bytes() for path in sound.rglob("*") if path.is_file()}
    refused, draw = 0, random.Random(2)
    for case in range(60):
        changed = bytearray(content)
        changed[draw.randrange(10, len(content))] ^= 1 << draw.randrange(8)
        try:
            folder = unpacked(tmp_path / str(case), bytes(changed))
        except UserError:
            refused += 1
            continue
        assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == texts
    assert refused > 50


def test_a_sentencepiece_model_that_was_cut_short_is_refused(tmp_path) -> None:
    content = train_sentencepiece([f"{a} {b} {a}{b}" for a in "abcdef" for b in "uvwxyz"], 40)
    model, dictionary = tmp_path / "spm.model", tmp_path / "dict.txt"
    model.write_bytes(content)
    dictionary.write_text(dictionary_text(content, ()))
    load_splitter(model)
    check_fit(model, dictionary)
    # Each piece is a message of its own: byte 10, its length, its content.
    place, cuts = 0, []
    while content[place] == 10:
        place += 2 + content[place + 1]
        cuts.append(place)
    assert len(cuts) > 10
    for cut in (cuts[4], cuts[-1]):
        model.write_bytes(content[:cut])
        for read in (load_splitter, lambda path: check_fit(path, dictionary)):
            with pytest.raises(UserError, match=r"spm\.model is (damaged or cut short; download|not a Sentence)"):
                read(model)
    model.write_bytes(content[: cuts[-1]])
    with pytest.raises(UserError, match="is damaged or cut short"):
        check_fit(model, dictionary)


def test_a_sentencepiece_model_with_a_piece_that_is_not_utf_8_is_refused(tmp_path) -> None:
    content = train_sentencepiece([f"{a} {b} {a}{b}" for a in "abcdef" for b in "uvwxyz"], 40)
    model, dictionary = tmp_path / "spm.model", tmp_path / "dict.txt"
    dictionary.write_text(dictionary_text(content, ()))
    assert "▁a".encode() in content
    model.write_bytes(content.replace("▁a".encode(), b"a\x96\x81a"))
    for read in (load_splitter, lambda path: check_fit(path, dictionary)):
        with pytest.raises(UserError, match=r"spm\.model is not a SentencePiece model"):
            read(model)


def test_a_dictionary_of_one_long_line_is_named_in_one_line(tmp_path) -> None:
    (tmp_path / "dict.txt").write_text("x" * 70_000)
    with pytest.raises(UserError, match=r"dict\.txt is not a fairseq dictionary") as refused:
        load_dictionary(tmp_path / "dict.txt")
    assert len(str(refused.value)) < 500 + len(str(tmp_path))


def test_data_of_one_language_are_no_direction(tmp_path) -> None:
    for name in ("test.en-en.en", "test.en-fr.en", "test.en-fr.fr"):
        for end in ("bin", "idx"):
            (tmp_path / f"{name}.{end}").touch()
    assert list(map(str, find_directions(tmp_path, "test"))) == ["en-fr", "fr-en"]


@pytest.mark.parametrize("layer", ["1" * 5000, "0_" + "1" * 5000])
def test_a_layer_of_thousands_of_digits_is_no_layer(layer) -> None:
    sizes = {
        f"{stack}_{name}": 2 for stack in ("encoder", "decoder") for name in ("layers", "embed_dim", "ffn_embed_dim")
    }
    flags = {name: field.default for name, field in AdapterFlags.__dataclass_fields__.items()}
    with pytest.raises(UserError, match="is not a layer of the encoder") as refused:
        check_adapter_flags(Namespace(**{**flags, **sizes, "encoder_lora_layer": layer}))
    assert len(str(refused.value)) < 400
