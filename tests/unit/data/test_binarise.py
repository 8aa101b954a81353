"""Binarised folders: against fairseq-preprocess, and what happens to files."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
import sentencepiece
from fairseq import options
from fairseq.data import Dictionary, data_utils
from fairseq_cli import preprocess

from langspec_lora.data.binarise import Bitext, binarise, multi_parallel
from langspec_lora.errors import UserError

TEXT = {
    "ka": ["the cat sleeps", "a  dog runs fast", "birds", "naïve été\u3000fin"],
    "mi": ["sleeps cat", "fast dog a runs runs", "birds many", "x y"],
    "to": ["zzz cat", "run dog", "bird bird bird", "q"],
}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return {language: write(tmp_path / "text" / f"train.{language}", lines) for language, lines in TEXT.items()}


@pytest.fixture
def dictionary(tmp_path: Path) -> Path:
    return write(tmp_path / "dict.txt", ["the 3", "cat 3", "sleeps 3", "a 2", "dog 2", "runs 2", "birds 1", "été 1"])


def write(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def stock(prefix: Path, source: str, target: str, dictionary: Path, out: Path) -> None:
    arguments = f"--source-lang {source} --target-lang {target} --workers 1".split()
    arguments += ["--trainpref", str(prefix), "--validpref", str(prefix), "--destdir", str(out)]
    arguments += ["--srcdict", str(dictionary), "--tgtdict", str(dictionary)]
    preprocess.main(options.get_preprocessing_parser().parse_args(arguments))


def ids(folder: Path, name: str) -> list[list[int]]:
    words = Dictionary.load(str(folder / "dict.ka.txt"))
    return [line.tolist() for line in data_utils.load_indexed_dataset(str(folder / name), words, "mmap")]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("extra_words", [0, 70_000], ids=["16-bit ids", "32-bit ids"])
def test_the_files_are_byte_for_byte_those_of_fairseq_preprocess(tmp_path, files, dictionary, extra_words):
    with dictionary.open("a") as file:
        file.writelines(f"w{number} 1\n" for number in range(extra_words))
    stock(tmp_path / "text" / "train", "ka", "mi", dictionary, tmp_path / "stock")
    pair = {language: files[language] for language in ("ka", "mi")}
    binarise([*multi_parallel("train", pair), *multi_parallel("valid", pair)], dictionary, tmp_path / "ours")
    names = [f"{split}.ka-mi.{side}.{end}" for split in ("train", "valid") for side in pair for end in ("bin", "idx")]
    for name in [*names, "dict.ka.txt", "dict.mi.txt"]:
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "stock" / name).read_bytes(), name


def test_each_side_of_multi_parallel_text_is_written_once(tmp_path, files, dictionary):
    out = tmp_path / "out"
    directions = [(a, b) for a in TEXT for b in TEXT if a != b]
    summary = binarise(multi_parallel("train", files, directions), dictionary, out)
    names = {path.name for path in out.glob("train.*.bin")}
    assert names == {
        *("train.ka-mi.ka.bin", "train.ka-mi.mi.bin", "train.ka-to.ka.bin"),
        *("train.ka-to.to.bin", "train.mi-to.mi.bin", "train.mi-to.to.bin"),
    }
    assert len({path.resolve() for path in out.glob("train.*.bin")}) == 3
    assert (summary.sides, summary.names, summary.sentences) == (3, 6, 12)


def test_tokens_and_unknown_words_are_counted_over_the_distinct_sides(tmp_path, dictionary):
    pair = {"ka": write(tmp_path / "a", ["the cat", "new"]), "mi": write(tmp_path / "b", ["dog", "odd words"])}
    summary = binarise(multi_parallel("train", pair), dictionary, tmp_path / "out")
    assert (summary.tokens, summary.unknown) == (2 + 1 + 1 + 2 + 4, 3)


def test_pairs_with_texts_of_their_own_keep_them_and_share_what_is_equal(tmp_path, files, dictionary):
    other = write(tmp_path / "other.ka", ["birds", "the cat"])
    twin = write(tmp_path / "twin.mi", TEXT["mi"])
    bitexts = [
        Bitext("train", "ka", "mi", files["ka"], files["mi"]),
        Bitext("train", "ka", "to", other, write(tmp_path / "other.to", ["q", "zzz"])),
        Bitext("train", "mi", "to", twin, files["to"]),
    ]
    out = tmp_path / "out"
    binarise(bitexts, dictionary, out)
    assert len(ids(out, "train.ka-mi.ka")) == 4
    assert len(ids(out, "train.ka-to.ka")) == 2
    assert (out / "train.ka-mi.mi.bin").resolve() == (out / "train.mi-to.mi.bin").resolve()
    assert (out / "train.ka-mi.ka.bin").resolve() != (out / "train.ka-to.ka.bin").resolve()


def test_a_direction_with_a_text_other_than_its_reverse_gets_its_own_name(tmp_path, files, dictionary):
    back = Bitext("train", "mi", "ka", write(tmp_path / "b.mi", ["dog"]), write(tmp_path / "b.ka", ["cat"]))
    out = tmp_path / "out"
    binarise([Bitext("train", "ka", "mi", files["ka"], files["mi"]), back], dictionary, out)
    assert len(ids(out, "train.ka-mi.ka")) == 4
    assert len(ids(out, "train.mi-ka.ka")) == 1


def test_raw_text_is_split_by_the_sentencepiece_model(tmp_path, files):
    lines = [line for side in TEXT.values() for line in side]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=40, hard_vocab_limit=False, minloglevel=2
    )
    (tmp_path / "spm.model").write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [processor.id_to_piece(i) for i in range(3, processor.get_piece_size())]
    dictionary = write(tmp_path / "dict.txt", [f"{piece} 1" for piece in pieces])
    binarise(multi_parallel("train", files), dictionary, tmp_path / "out", spm_model=tmp_path / "spm.model")
    # fairseq's dictionary starts with <s>, <pad>, </s>, <unk>; SentencePiece's with <unk>, <s>, </s>.
    expected = [[3 if i == 0 else i + 1 for i in processor.encode(line)] + [2] for line in TEXT["mi"]]
    assert ids(tmp_path / "out", "train.ka-mi.mi") == expected

    # The folder keeps the model that its text was split by, and no other takes its place.
    kept = tmp_path / "out" / "sentencepiece.bpe.model"
    assert kept.read_bytes() == model.getvalue()
    kept.unlink()
    binarise(multi_parallel("train", files), dictionary, tmp_path / "out", spm_model=tmp_path / "spm.model")
    assert kept.read_bytes() == model.getvalue()
    kept.unlink()
    kept.write_bytes(b"another")
    with pytest.raises(UserError, match=r"sentencepiece\.bpe\.model already exists with other content and was kept"):
        binarise(multi_parallel("train", files), dictionary, tmp_path / "out", spm_model=tmp_path / "spm.model")
    assert kept.read_bytes() == b"another"


def test_every_language_named_gets_the_dictionary(tmp_path, files, dictionary):
    pair = {language: files[language] for language in ("ka", "mi")}
    binarise(multi_parallel("train", pair), dictionary, tmp_path / "out", languages=["zu"])
    assert {path.name for path in (tmp_path / "out").glob("dict.*")} == {"dict.ka.txt", "dict.mi.txt", "dict.zu.txt"}


def test_the_folder_can_be_moved_and_have_spaces_in_its_name(tmp_path, files, dictionary):
    binarise(multi_parallel("train", files), dictionary, tmp_path / "first place")
    before = ids(tmp_path / "first place", "train.ka-to.to")
    (tmp_path / "first place").rename(tmp_path / "second place")
    assert ids(tmp_path / "second place", "train.ka-to.to") == before


def test_where_the_file_system_has_no_links_the_sides_are_copied(tmp_path, files, dictionary, monkeypatch):
    def refuse(*arguments, **keywords):
        raise OSError("no links here")

    binarise(multi_parallel("train", files), dictionary, tmp_path / "linked")
    monkeypatch.setattr(Path, "symlink_to", refuse)
    monkeypatch.setattr(os, "link", refuse)
    binarise(multi_parallel("train", files), dictionary, tmp_path / "copied")
    assert content(tmp_path / "copied") == content(tmp_path / "linked")
    assert not any(path.is_symlink() for path in (tmp_path / "copied").iterdir())


def test_the_same_call_again_changes_no_file_and_completes_what_is_missing(tmp_path, files, dictionary):
    out = tmp_path / "out"
    binarise(multi_parallel("train", files), dictionary, out)
    before = content(out)
    inode = (out / "train.ka-mi.ka.bin").lstat().st_ino
    (out / "train.ka-to.to.bin").unlink()
    (out / "dict.to.txt").unlink()
    next((out / "shared").glob("train.mi.*.idx")).unlink()
    binarise(multi_parallel("train", files), dictionary, out)
    assert content(out) == before
    assert (out / "train.ka-mi.ka.bin").lstat().st_ino == inode


def test_other_files_of_the_folder_stay(tmp_path, files, dictionary):
    write(tmp_path / "out" / "notes.txt", ["mine"])
    binarise(multi_parallel("train", files), dictionary, tmp_path / "out")
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine\n"


def test_files_with_other_content_are_refused_and_kept(tmp_path, files, dictionary):
    out = tmp_path / "out"
    binarise(multi_parallel("train", files), dictionary, out)
    before = content(out)
    write(files["mi"], ["new", "text", "of", "four"])
    with pytest.raises(UserError, match=r"train\.ka-mi\.mi\.bin already exists with other content"):
        binarise(multi_parallel("train", files), dictionary, out)
    assert content(out) == before


def test_another_dictionary_is_refused(tmp_path, files, dictionary):
    binarise(multi_parallel("train", files), dictionary, tmp_path / "out")
    write(dictionary, ["cat 1"])
    with pytest.raises(UserError, match="other content"):
        binarise(multi_parallel("train", files), dictionary, tmp_path / "out")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"train\.mi, line 1: the file is empty"),
        (["one", "", "three", "four"], r"train\.mi, line 2: empty"),
        (["one", "two", " \t", "four"], r"train\.mi, line 3: empty"),
        (["one", "two"], r"train\.mi, line 3: missing; the file has 2 lines, .*train\.ka has 4"),
        (["1", "2", "3", "4", "5", "6"], r"train\.ka, line 5: missing; the file has 4 lines, .*train\.mi has 6"),
    ],
    ids=["empty file", "empty line", "white line", "too short", "too long"],
)
def test_bad_text_is_named_by_file_and_line_before_anything_is_written(tmp_path, files, dictionary, lines, message):
    write(files["mi"], lines)
    with pytest.raises(UserError, match=message) as error:
        binarise(multi_parallel("train", files), dictionary, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_text_that_is_not_utf_8_is_named_by_file_and_line(tmp_path, files, dictionary):
    files["mi"].write_bytes(b"one\ntwo\n\xff\xfe\nfour\n")
    with pytest.raises(UserError, match=r"train\.mi, line 3: not UTF-8"):
        binarise(multi_parallel("train", files), dictionary, tmp_path / "out")


def test_missing_files_are_named(tmp_path, files, dictionary):
    files["mi"].unlink()
    with pytest.raises(UserError, match=r"train\.mi: No such file"):
        binarise(multi_parallel("train", files), dictionary, tmp_path / "out")
    with pytest.raises(UserError, match=r"dictionary .*none\.txt not found"):
        binarise(multi_parallel("train", {"ka": files["ka"], "to": files["to"]}), "none.txt", tmp_path / "out")
    with pytest.raises(UserError, match=r"SentencePiece model none\.model not found"):
        binarise(
            multi_parallel("train", {"ka": files["ka"], "to": files["to"]}),
            dictionary,
            tmp_path / "out",
            spm_model="none.model",
        )


def test_a_file_that_is_no_dictionary_and_one_that_is_no_sentencepiece_model_are_refused(tmp_path, files, dictionary):
    text = write(tmp_path / "prose.txt", ["no counts here"])
    with pytest.raises(UserError, match=r"prose\.txt is not a fairseq dictionary"):
        binarise(multi_parallel("train", files), text, tmp_path / "out")
    with pytest.raises(UserError, match=r"prose\.txt is not a SentencePiece model"):
        binarise(multi_parallel("train", files), dictionary, tmp_path / "out", spm_model=text)
    assert not (tmp_path / "out").exists()


def test_directions_without_text_or_from_a_language_into_itself_are_refused(files):
    with pytest.raises(UserError, match="direction ka-xx: no train text for 'xx'; expected one of ka, mi, to"):
        multi_parallel("train", files, [("ka", "xx")])
    with pytest.raises(UserError, match="direction ka-ka"):
        multi_parallel("train", files, [("ka", "ka")])


def test_one_pair_given_twice_with_different_text_is_refused(tmp_path, files, dictionary):
    first = Bitext("train", "ka", "mi", files["ka"], files["mi"])
    second = Bitext("train", "ka", "mi", files["ka"], files["to"])
    with pytest.raises(UserError, match=r"train\.ka-mi was given twice"):
        binarise([first, second], dictionary, tmp_path / "out")
