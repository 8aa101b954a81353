"""FLORES-101 as binarised data: which lines go where, and what bad input gets."""

from __future__ import annotations

import functools
import http.server
import io
import json
import os
import random
import tarfile
import threading
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from fairseq.data import Dictionary, data_utils
from sentencepiece import SentencePieceProcessor

from langspec_lora.cli.main import main
from langspec_lora.data import flores
from langspec_lora.errors import UserError
from langspec_lora.languages import Resources
from langspec_lora.resources import read_resources
from tests import ROOT

LANGUAGES = Resources(levels={"en": "high", "nl": "med", "wo": "low"}, flores={"en": "eng", "nl": "nld", "wo": "wol"})
CONFIGS = ROOT / "configs" / "languages"


def write_flores(folder: Path, lines: tuple[int, int] = (40, 12)) -> Path:
    """A small folder laid out as the archive: other letters in each language, line N of the same length."""
    draw = random.Random(7)
    letters = {"eng": "abcdefgh", "nld": "ijklmnop", "wol": "qrstuvwx", "fra": "yzéèàçùê"}
    for split, count in zip(("dev", "devtest"), lines, strict=True):
        (folder / split).mkdir(parents=True)
        for code, alphabet in letters.items():
            text = (
                " ".join("".join(draw.choices(alphabet, k=draw.randint(2, 5))) for _ in range(3 + n % 5))
                for n in range(count)
            )
            (folder / split / f"{code}.{split}").write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_flores(tmp_path / "flores source")


@pytest.fixture
def prepared(source: Path, tmp_path: Path) -> Path:
    """A folder prepared from the small text, with three validation lines."""
    out = tmp_path / "out put"
    flores.prepare(out, LANGUAGES, source, vocab_size=60, valid_lines=3)
    return out


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_dev_trains_the_first_devtest_lines_validate_and_all_of_devtest_tests(prepared, source) -> None:
    for name, code in LANGUAGES.flores.items():
        dev = (source / "dev" / f"{code}.dev").read_text()
        devtest = (source / "devtest" / f"{code}.devtest").read_text()
        assert (prepared / "mono" / f"train.{name}").read_text() == dev
        assert (prepared / "mono" / f"valid.{name}").read_text() == "".join(devtest.splitlines(True)[:3])
        assert (prepared / "mono" / f"test.{name}").read_text() == devtest


def test_apart_leaves_the_validation_lines_out_of_the_test_set(source, tmp_path) -> None:
    flores.prepare(tmp_path / "out", LANGUAGES, source, vocab_size=60, valid_lines=3, apart=True)
    for name, code in LANGUAGES.flores.items():
        devtest = (source / "devtest" / f"{code}.devtest").read_text().splitlines(True)
        for split, lines in (("valid", devtest[:3]), ("test", devtest[3:])):
            assert (tmp_path / "out" / "mono" / f"{split}.{name}").read_text() == "".join(lines)
            side = tmp_path / "out" / "data-bin" / f"{split}.en-nl.{name}"
            assert name == "wo" or len(data_utils.load_indexed_dataset(str(side), None, "mmap")) == len(lines)


def test_apart_needs_a_line_of_devtest_beyond_the_validation_lines(source, tmp_path) -> None:
    flores.prepare(tmp_path / "most", LANGUAGES, source, vocab_size=60, valid_lines=11, apart=True)
    with pytest.raises(UserError, match=r"--valid-lines 12: devtest has 12 lines; .* between 1 and 11, as --apart"):
        flores.prepare(tmp_path / "all", LANGUAGES, source, vocab_size=60, valid_lines=12, apart=True)


def test_a_folder_that_was_made_before_there_was_apart_is_still_complete(prepared, source) -> None:
    settings = json.loads((prepared / "settings.json").read_text())
    del settings["apart"]
    (prepared / "settings.json").write_text(json.dumps(settings))
    assert flores.prepare(prepared, LANGUAGES, source, vocab_size=60, valid_lines=3).summary is None
    with pytest.raises(UserError, match=r"other settings \(apart differ"):
        flores.prepare(prepared, LANGUAGES, source, vocab_size=60, valid_lines=3, apart=True)


def test_binarised_sides_read_back_as_the_text_of_every_direction(prepared) -> None:
    data = prepared / "data-bin"
    processor = SentencePieceProcessor(model_file=str(prepared / "spm.model"))
    for split in ("train", "valid", "test"):
        for a, b in combinations(LANGUAGES.levels, 2):
            for name in (a, b):
                dictionary = Dictionary.load(str(data / f"dict.{name}.txt"))
                side = data_utils.load_indexed_dataset(str(data / f"{split}.{a}-{b}.{name}"), dictionary, "mmap")
                text = (prepared / "mono" / f"{split}.{name}").read_text().splitlines()
                assert [dictionary.string(tokens) for tokens in side] == [
                    " ".join(processor.encode(line, out_type=str)) for line in text
                ]


def test_a_side_shared_by_several_language_pairs_is_stored_once(prepared) -> None:
    data = prepared / "data-bin"
    stored = Counter(path.resolve() for path in data.glob("test.*.en.bin"))
    assert list(stored.values()) == [2]  # en-nl and en-wo


def test_the_trained_vocabulary_covers_the_training_text_and_ends_with_the_language_tokens(prepared) -> None:
    tokens = [line.rsplit(" ", 1)[0] for line in (prepared / "dict.txt").read_text().splitlines()]
    assert tokens[-3:] == ["__en__", "__nl__", "__wo__"]
    assert len(tokens) == len(set(tokens)) <= 60
    processor = SentencePieceProcessor(model_file=str(prepared / "spm.model"))
    for name in LANGUAGES.levels:
        for line in (prepared / "mono" / f"train.{name}").read_text().splitlines():
            assert set(processor.encode(line, out_type=str)) <= set(tokens)


def test_the_sentencepiece_model_does_not_see_devtest(tmp_path) -> None:
    source = write_flores(tmp_path / "source")
    path = source / "devtest" / "eng.devtest"
    path.write_text(path.read_text().translate(str.maketrans("abcd", "ΩΩΩΩ")), encoding="utf-8")
    prepared = flores.prepare(tmp_path / "out", LANGUAGES, source, vocab_size=60, valid_lines=3)
    assert "Ω" not in (tmp_path / "out" / "dict.txt").read_text()
    assert prepared.summary.unknown > 0
    assert any("unknown to the dictionary" in note for note in prepared.notes)


def test_a_second_run_changes_nothing(prepared, source) -> None:
    before = snapshot(prepared)
    assert flores.prepare(prepared, LANGUAGES, source, vocab_size=60, valid_lines=3).summary is None
    assert snapshot(prepared) == before


def test_an_interrupted_preparation_is_completed_to_the_same_files(prepared, source, tmp_path, monkeypatch) -> None:
    def stops(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(flores, "binarise", stops)
        with pytest.raises(KeyboardInterrupt):
            flores.prepare(tmp_path / "again", LANGUAGES, source, vocab_size=60, valid_lines=3)
    assert not (tmp_path / "again" / "data-bin").exists()
    flores.prepare(tmp_path / "again", LANGUAGES, source, vocab_size=60, valid_lines=3)
    assert snapshot(tmp_path / "again") == snapshot(prepared)


@pytest.mark.parametrize("changes", [{"vocab_size": 50}, {"valid_lines": 4}, {"apart": True}])
def test_a_folder_of_other_settings_is_refused_and_kept(prepared, source, changes) -> None:
    before = snapshot(prepared)
    with pytest.raises(UserError, match=f"other settings .*{next(iter(changes))}"):
        flores.prepare(prepared, LANGUAGES, source, **{"vocab_size": 60, "valid_lines": 3, **changes})
    assert snapshot(prepared) == before


def test_files_of_the_user_are_not_overwritten(source, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dict.txt").write_text("mine 1\n")
    with pytest.raises(UserError, match=r"already contains dict\.txt"):
        flores.prepare(tmp_path / "out", LANGUAGES, source, vocab_size=60, valid_lines=3)
    assert snapshot(tmp_path / "out") == {"dict.txt": b"mine 1\n"}


def test_a_given_model_and_dictionary_are_used_as_they_are(prepared, source, tmp_path) -> None:
    vocabulary = {"spm": prepared / "spm.model", "dictionary": prepared / "dict.txt"}
    flores.prepare(tmp_path / "given", LANGUAGES, source, valid_lines=3, **vocabulary)
    for name in ("spm.model", "dict.txt", "data-bin/test.en-nl.nl.bin", "data-bin/dict.wo.txt"):
        assert (tmp_path / "given" / name).read_bytes() == (prepared / name).read_bytes()


def test_a_dictionary_without_language_tokens_is_mentioned(prepared, source, tmp_path) -> None:
    shorter = tmp_path / "dict.txt"
    shorter.write_text("".join((prepared / "dict.txt").read_text().splitlines(True)[:-1]))
    done = flores.prepare(tmp_path / "x", LANGUAGES, source, prepared / "spm.model", shorter, valid_lines=3)
    assert any("no language token for wo" in note for note in done.notes)


def test_a_dictionary_of_another_sentencepiece_model_is_refused(prepared, source, tmp_path) -> None:
    other = tmp_path / "dict.txt"
    other.write_text("hello 3\nworld 2\n")
    with pytest.raises(UserError, match=r"lacks \d+ of the \d+ pieces"):
        flores.prepare(tmp_path / "x", LANGUAGES, source, prepared / "spm.model", other, valid_lines=3)
    assert not (tmp_path / "x").exists()


def break_missing(source: Path) -> str:
    (source / "devtest" / "nld.devtest").unlink()
    return r"nld\.devtest not found \(language 'nl'\)"


def break_empty_line(source: Path) -> str:
    path = source / "dev" / "wol.dev"
    lines = path.read_text().splitlines(True)
    path.write_text("".join([*lines[:4], "\n", *lines[5:]]))
    return r"wol\.dev, line 5: empty"


def break_empty_file(source: Path) -> str:
    (source / "dev" / "nld.dev").write_text("")
    return r"nld\.dev, line 1: empty"


def break_alignment(source: Path) -> str:
    path = source / "devtest" / "wol.devtest"
    path.write_text("".join(path.read_text().splitlines(True)[:-2]))
    return r"wol\.devtest, line 11: .*it has 10 lines, eng\.devtest has 12"


def break_encoding(source: Path) -> str:
    (source / "dev" / "nld.dev").write_bytes(b"caf\xe9\n")
    return r"nld\.dev, line \d+: not UTF-8"


def break_folder(source: Path) -> str:
    (source / "dev").rename(source / "other")
    return "no folders dev and devtest"


@pytest.mark.parametrize(
    "damage", [break_missing, break_empty_line, break_empty_file, break_alignment, break_encoding, break_folder]
)
def test_damaged_text_is_named_by_file_and_line_before_anything_is_written(source, tmp_path, damage) -> None:
    words = damage(source)
    with pytest.raises(UserError, match=words):
        flores.prepare(tmp_path / "out", LANGUAGES, source, vocab_size=60, valid_lines=3)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"valid_lines": 0}, "--valid-lines 0"),
        ({"valid_lines": 13}, "devtest has 12 lines"),
        ({"vocab_size": 0}, "--vocab-size 0"),
        ({"spm": Path("nowhere.model")}, "belong together"),
        ({"spm": Path("nowhere.model"), "dictionary": Path("nowhere.txt")}, "--spm nowhere.model not found"),
        ({"resources": Resources(levels={"en": "high", "xx": "low"}, flores={"en": "eng"})}, "FLORES code for xx"),
        (
            {
                "resources": Resources(
                    levels={"en": "high", "wo": "low"}, flores={"en": "eng", "wo": "wol", "zh": "zho"}
                )
            },
            "'zh' has a FLORES code but no level",
        ),
        (
            {"resources": Resources(levels={"en": "high", "wo": "low"}, flores={"en": "eng", "wo": "eng"})},
            "en and wo have the same FLORES code",
        ),
    ],
)
def test_wrong_options_are_named(source, tmp_path, changes, words) -> None:
    options = {"resources": LANGUAGES, "archive": source, "vocab_size": 60, "valid_lines": 3, **changes}
    with pytest.raises(UserError, match=words):
        flores.prepare(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_too_small_for_the_text_says_so(source, tmp_path) -> None:
    with pytest.raises(UserError, match="--vocab-size 5 does not fit the text"):
        flores.prepare(tmp_path / "out", LANGUAGES, source, vocab_size=5, valid_lines=3)


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Serves byte ranges, which the standard handler does not."""

    requested: list[str]  # set by the fixture

    def do_GET(self) -> None:
        content = Path(self.translate_path(self.path)).read_bytes()
        wanted = self.headers.get("Range", "")
        self.requested.append(wanted)
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:])

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def archive(source: Path, tmp_path: Path):
    """The URL of an archive with members outside its folder, the requests made for it, and its bytes."""
    served = tmp_path / "served"
    served.mkdir()
    with tarfile.open(served / "flores101_dataset.tar.gz", "w:gz") as tar:
        tar.add(source, "flores101_dataset")
        for name in ("../escaped.dev", "/tmp/dev/../../escaped.dev", "flores101_dataset/README"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("flores101_dataset/dev/link.dev")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    handler = type("Handler", (RangeHandler,), {"requested": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/flores101_dataset.tar.gz"
    yield url, handler.requested, (served / "flores101_dataset.tar.gz").read_bytes()
    server.shutdown()
    server.server_close()


def test_the_archive_is_downloaded_and_nothing_outside_it_is_written(archive, source, tmp_path) -> None:
    url, requested, _ = archive
    out = tmp_path / "deep" / "er" / "out"
    flores.prepare(out, LANGUAGES, vocab_size=60, valid_lines=3, url=url)
    unpacked = out / "flores101_dataset"
    assert snapshot(unpacked) == snapshot(source)
    assert not list(tmp_path.rglob("escaped*"))
    assert not list(tmp_path.rglob("link.dev"))
    assert requested == [""]
    assert flores.prepare(out, LANGUAGES, vocab_size=60, valid_lines=3, url=url).summary is None
    assert requested == [""]


def test_an_interrupted_download_continues_where_it_stopped(archive, tmp_path) -> None:
    url, requested, content = archive
    out = tmp_path / "out"
    out.mkdir()
    (out / "flores101_dataset.tar.gz.partial").write_bytes(content[:100])
    flores.download(url, out)
    assert requested == ["bytes=100-"]
    assert (out / "flores101_dataset.tar.gz").read_bytes() == content


def test_a_partial_file_longer_than_the_archive_is_downloaded_again(archive, tmp_path) -> None:
    url, requested, content = archive
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "flores101_dataset.tar.gz.partial").write_bytes(content + b"more")
    flores.download(url, tmp_path / "out")
    assert requested == [f"bytes={len(content) + 4}-", ""]
    assert (tmp_path / "out" / "flores101_dataset.tar.gz").read_bytes() == content


def test_a_failed_download_and_a_damaged_archive_are_reported_in_one_sentence(archive, tmp_path) -> None:
    url, _, content = archive
    with pytest.raises(UserError, match="--from"):
        flores.download(url.replace("flores101", "nothing"), tmp_path / "a")
    with pytest.raises(UserError, match=r"cannot be downloaded .*--from"):
        flores.download("http://127.0.0.1:9/flores.tar.gz", tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "flores101_dataset.tar.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cannot be unpacked"):
        flores.download(url, tmp_path / "c")
    assert not (tmp_path / "c" / "flores101_dataset").exists()


def test_the_command_says_which_lines_it_took(source, tmp_path, capsys) -> None:
    languages = tmp_path / "languages.yaml"
    languages.write_text("high: [en]\nlow: [wo]\nflores: {en: eng, wo: wol}\n")
    flags = ["--from", str(source), "--vocab-size", "50", "--valid-lines", "2"]
    command = ["prepare-flores", "--languages", str(languages), "--out", str(tmp_path / "o"), *flags]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "devtest lines 1 to 2" in printed
    assert "--langs en,wo" in printed
    assert main(command) == 0
    assert "complete, made from the same text" in capsys.readouterr().out


def real_flores() -> Path | None:
    for folder in (os.environ.get("FLORES101"), ROOT / ".." / "shared" / "data" / "flores101"):
        if folder and Path(folder).is_dir():
            return Path(folder)
    return None


@pytest.mark.flores
@pytest.mark.skipif(real_flores() is None, reason="no FLORES-101: set FLORES101 to an unpacked archive")
def test_the_real_flores_has_both_sets_of_languages_and_997_and_1012_lines() -> None:
    for name in ("twelve", "thirty"):
        codes = read_resources(CONFIGS / f"{name}.yaml").flores
        text = flores.read_text(flores.find_splits(real_flores()), codes)
        assert {len(lines) for lines in text["dev"].values()} == {997}
        assert {len(lines) for lines in text["devtest"].values()} == {1012}


@pytest.mark.flores
@pytest.mark.skipif(real_flores() is None, reason="no FLORES-101: set FLORES101 to an unpacked archive")
def test_real_flores_languages_become_data_with_few_unknown_tokens(tmp_path) -> None:
    languages = Resources(levels={"en": "high", "wo": "low"}, flores={"en": "eng", "wo": "wol"})
    prepared = flores.prepare(tmp_path / "out", languages, real_flores(), vocab_size=2000)
    assert prepared.summary.sides == 6
    assert prepared.summary.sentences == 2 * (997 + 100 + 1012)
    assert prepared.summary.unknown < 0.001 * prepared.summary.tokens
