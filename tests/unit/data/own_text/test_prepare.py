"""The whole preparation: against a plain loop over sentences, and what happens to folders."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor

from langspec_lora.cli.main import main
from langspec_lora.data.own_text import prepare as steps
from langspec_lora.data.own_text.filters import Limits
from langspec_lora.data.own_text.options import Options
from langspec_lora.data.own_text.prepare import prepare
from langspec_lora.errors import UserError
from langspec_lora.resources import read_resources
from tests.unit.data.own_text.corpora import (
    Rows,
    plain,
    rows_of,
    tokens_of,
    vocabulary,
    write_columns,
    write_lines,
    write_tsv,
    written,
)

WIDE = {number: number + 0xFEE0 for number in range(ord("A"), ord("Z") + 1)}
LIMITS = Limits(max_length=40, max_ratio=2.5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return vocabulary(tmp_path_factory.mktemp("vocabulary"))


def options(model: tuple[Path, Path], root: Path, **changes) -> Options:
    folders = {split: (root / split,) for split in ("train", "valid", "test") if (root / split).is_dir()}
    given = {"folders": folders, "lines": {}, "spm": model[0], "dictionary": model[1], "limits": LIMITS}
    return Options(**{**given, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Corpus:
    """Text of three languages in every form, with everything that is to be filtered."""

    def __init__(self) -> None:
        self.test = rows_of(("en", "fr", "wo"), 8, 1)
        self.valid = rows_of(("en", "fr", "wo"), 6, 2)
        en_fr = rows_of(("en", "fr"), 30, 3)
        fr_wo = rows_of(("fr", "wo"), 25, 4)
        wo_en = rows_of(("wo", "en"), 20, 5)
        many = rows_of(("en", "fr", "wo"), 30, 6)
        en_fr[3] = ("", en_fr[3][1])
        en_fr[4] = (self.test[0][0].upper().translate(WIDE), en_fr[4][1])  # of the test text, in another form
        en_fr[5] = (en_fr[5][0], f"  {self.valid[1][1].replace(' ', chr(0x3000))} ")
        en_fr[6] = en_fr[7] = en_fr[8]
        en_fr[9] = (self.valid[2][1], en_fr[9][1])  # French validation text on the English side is no leak
        en_fr[10] = ("ab " * 60, "ij " * 60)
        en_fr[11] = ("ab", "ijk lmn opé ijk lmn opé ijk")
        en_fr[13] = (en_fr[14][0].upper(), en_fr[14][1])  # no exact duplicate
        fr_wo[2] = (self.valid[3][1], fr_wo[2][1])  # of the validation text of en-fr
        wo_en[0] = (wo_en[0][0], self.test[2][0])
        many[0] = (*en_fr[12], many[0][2])  # a duplicate across corpora, for en-fr only
        many[1] = ("", *many[1][1:])
        many[2] = (*many[2][:2], self.test[5][2])
        self.train: dict[tuple[str, ...], Rows] = {
            ("en", "fr"): en_fr,
            ("fr", "wo"): fr_wo,
            ("wo", "en"): wo_en,
            ("en", "fr", "wo"): many,
        }

    def write(self, root: Path) -> None:
        write_columns(
            root / "train", ["news.en-fr.en", "news.en-fr.fr"], self.train["en", "fr"], end="\r\n", mark="\ufeff"
        )
        write_columns(root / "train", ["fr-wo.fr.gz", "fr-wo.wo"], self.train["fr", "wo"])
        write_tsv(root / "train" / "wo-en.tsv.gz", self.train["wo", "en"])
        write_columns(root / "train", ["bible.en", "bible.fr", "bible.wo.gz"], self.train["en", "fr", "wo"])
        write_columns(root / "valid", ["valid.en", "valid.fr", "valid.wo"], self.valid)
        write_tsv(root / "test" / "all.tsv", self.test, ("en", "fr", "wo"))

    def pairs(self, pair: tuple[str, str]) -> Rows:
        """The lines of a language pair, in all texts."""
        return [
            (row[names.index(pair[0])], row[names.index(pair[1])])
            for names, rows in self.train.items()
            if set(pair) <= set(names)
            for row in rows
        ]


def expected(corpus: Corpus, pair: tuple[str, str], model: Path) -> tuple[Counter, dict[str, int]]:
    """What is left of a language pair and what is removed, by a plain loop."""
    rows = (*corpus.test, *corpus.valid)
    held = {(name, plain(row[number])) for row in rows for number, name in enumerate(("en", "fr", "wo"))}
    processor = SentencePieceProcessor(model_file=str(model / "spm.model"))
    left: Counter = Counter()
    removed: Counter = Counter()
    seen = set()
    for source, target in corpus.pairs(pair):
        source, target = source.strip(), target.strip()
        sizes = [len(processor.encode(line)) for line in (source, target)]
        if not source or not target:
            removed["empty"] += 1
        elif (pair[0], plain(source)) in held or (pair[1], plain(target)) in held:
            removed["held_out"] += 1
        elif (source, target) in seen:
            removed["duplicate"] += 1
        elif max(sizes) > LIMITS.max_length:
            removed["length"] += 1
        elif max(sizes) > LIMITS.max_ratio * min(sizes):
            removed["ratio"] += 1
        else:
            left[tokens_of(model, source), tokens_of(model, target)] += 1
        seen.add((source, target))
    return left, dict(removed)


@pytest.fixture(scope="module")
def made(model, tmp_path_factory) -> tuple[Corpus, Path, dict]:
    root = tmp_path_factory.mktemp("own text")
    corpus = Corpus()
    corpus.write(root)
    record, new = prepare(options(model, root), root / "out")
    assert new
    return corpus, root, record


def test_what_is_left_and_the_counts_are_those_of_a_plain_loop(made, model) -> None:
    corpus, root, record = made
    rows = [line.split("\t") for line in (root / "out" / "counts.tsv").read_text().splitlines()]
    total: Counter = Counter()
    for pair in combinations(("en", "fr", "wo"), 2):
        left, removed = expected(corpus, pair, model[0].parent)
        assert written(root / "out", "train", pair) == left
        (row,) = (dict(zip(rows[0], row, strict=True)) for row in rows[1:] if row[:2] == ["-".join(pair), "train"])
        assert {name: int(row[name]) for name in ("empty", "held_out", "duplicate", "length", "ratio")} == {
            name: removed.get(name, 0) for name in ("empty", "held_out", "duplicate", "length", "ratio")
        }
        assert (int(row["read"]), int(row["kept"])) == (len(corpus.pairs(pair)), sum(left.values()))
        total.update(removed)
    assert set(total) == {"empty", "held_out", "duplicate", "length", "ratio"}  # each filter had something to do
    assert {name: record["splits"]["train"][name] for name in total} == total


def test_held_out_text_stays_whole_and_in_order(made, model) -> None:
    corpus, root, _ = made
    for pair in combinations(range(3), 2):
        names = tuple(("en", "fr", "wo")[number] for number in pair)
        wanted = Counter(tuple(tokens_of(model[0].parent, row[number]) for number in pair) for row in corpus.test)
        assert written(root / "out", "test", names) == wanted
    for number, name in enumerate(("en", "fr", "wo")):
        assert (root / "out" / "mono" / f"test.{name}").read_text().splitlines() == [row[number] for row in corpus.test]
    assert (root / "out" / "mono" / "valid.fr").read_text().splitlines() == [row[1] for row in corpus.valid]


def test_directions_levels_and_vocabulary_are_written(made, model) -> None:
    _, root, record = made
    out = root / "out"
    assert (out / "pairs.txt").read_text() == "en-fr,en-wo,fr-en,fr-wo,wo-en,wo-fr\n"
    assert read_resources(out / "languages.yaml").levels == dict.fromkeys(("en", "fr", "wo"), "low")
    assert (out / "dict.txt").read_bytes() == model[1].read_bytes() == (out / "data-bin" / "dict.wo.txt").read_bytes()
    assert (out / "data-bin" / "sentencepiece.bpe.model").read_bytes() == model[0].read_bytes()
    assert not [path.name for path in root.iterdir() if path.name not in ("train", "valid", "test", "out")]
    assert len({path.resolve() for path in (out / "data-bin").glob("test.*.en.bin")}) == 1
    assert json.loads((out / "prepare.json").read_text()) == record


def test_a_second_run_finds_it_and_another_is_refused_unless_told(made, model) -> None:
    _, root, record = made
    before = contents(root / "out")
    assert prepare(options(model, root), root / "out") == (record, False)
    other = options(model, root, limits=Limits(max_length=39, max_ratio=2.5))
    with pytest.raises(UserError, match=r"other settings \(max_length differ\).*--overwrite"):
        prepare(other, root / "out")
    assert contents(root / "out") == before


def small(root: Path, languages: tuple[str, ...] = ("en", "fr"), count: int = 20) -> None:
    for number, split in enumerate(("train", "valid", "test")):
        rows = rows_of(languages, count, 30 + number)
        write_columns(root / split, [f"{split}.{name}" for name in languages], rows)


def test_replacing_keeps_the_users_files_and_leaves_nothing_of_the_old_ones(model, tmp_path) -> None:
    small(tmp_path, ("en", "fr", "wo"))
    out = tmp_path / "out"
    prepare(options(model, tmp_path), out)
    write_lines(out / "base" / "mine.txt", ["mine"])
    for path in (tmp_path / "train").glob("*.wo"):
        path.unlink()
    prepare(options(model, tmp_path), out, overwrite=True)
    assert (out / "base" / "mine.txt").read_text() == "mine\n"
    assert not list((out / "data-bin").glob("train.*wo*"))
    fresh = tmp_path / "fresh"
    prepare(options(model, tmp_path), fresh)
    (out / "base" / "mine.txt").unlink()
    assert contents(out) == contents(fresh)


def test_what_prepare_did_not_write_is_never_replaced(model, tmp_path) -> None:
    small(tmp_path)
    write_lines(tmp_path / "mine" / "dict.txt", ["mine"])
    with pytest.raises(UserError, match=r"already contains dict\.txt, which 'prepare' did not make"):
        prepare(options(model, tmp_path), tmp_path / "mine", overwrite=True)
    write_lines(tmp_path / "mine" / "prepare.json", ["{}"])
    with pytest.raises(UserError, match="was not written by"):
        prepare(options(model, tmp_path), tmp_path / "mine", overwrite=True)
    out = tmp_path / "out"
    prepare(options(model, tmp_path), out)
    write_lines(out / "data-bin" / "notes.txt", ["mine"])
    with pytest.raises(UserError, match=r"data-bin has notes\.txt, which 'prepare' did not write"):
        prepare(options(model, tmp_path, vocab_size=9, limits=Limits()), out, overwrite=True)
    inside = options(model, tmp_path, folders={**options(model, tmp_path).folders, "test": (out / "mono",)})
    with pytest.raises(UserError, match="is in --out"):
        prepare(inside, out, overwrite=True)


@pytest.mark.parametrize("replaced", [False, True])
def test_an_interruption_leaves_what_was_there(model, tmp_path, monkeypatch, replaced) -> None:
    small(tmp_path)
    out = tmp_path / "out"
    if replaced:
        prepare(options(model, tmp_path), out)
    before = contents(tmp_path)

    def stops(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(steps, "write_record", stops)
        with pytest.raises(KeyboardInterrupt):
            prepare(options(model, tmp_path, limits=Limits()), out, overwrite=True)
    assert contents(tmp_path) == before


def test_a_half_replaced_folder_does_not_look_finished(model, tmp_path, monkeypatch) -> None:
    small(tmp_path)
    out = tmp_path / "out"
    prepare(options(model, tmp_path), out)
    rename, moved = Path.rename, []

    def stops(self: Path, target: Path) -> Path:
        if target == out / "pairs.txt":
            raise KeyboardInterrupt
        moved.append(target)
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stops)
        with pytest.raises(KeyboardInterrupt):
            prepare(options(model, tmp_path, limits=Limits()), out, overwrite=True)
    assert moved
    for changes in ({}, {"limits": Limits()}):
        with pytest.raises(UserError, match="half replaced by an interrupted run"):
            prepare(options(model, tmp_path, **changes), out)
    prepare(options(model, tmp_path), out, overwrite=True)
    prepare(options(model, tmp_path), tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh")


def test_english_centric_text_stays_so_and_the_languages_of_a_file_are_taken(model, tmp_path) -> None:
    for number, split in enumerate(("train", "valid", "test")):
        for seed, name in enumerate(("fr", "wo", "zz"), start=10 * number):
            write_columns(tmp_path / split, [f"en-{name}.en", f"en-{name}.{name}"], rows_of(("en", name), 12, seed))
    prepare(options(model, tmp_path), tmp_path / "all")
    assert (tmp_path / "all" / "pairs.txt").read_text() == "en-fr,en-wo,en-zz,fr-en,wo-en,zz-en\n"
    levels = write_lines(tmp_path / "levels.yaml", ["high: [wo]", "low: [en, xx]", "ranks: {wo: 3}"])
    record, _ = prepare(options(model, tmp_path, languages=levels), tmp_path / "some")
    assert (tmp_path / "some" / "pairs.txt").read_text() == "wo-en,en-wo\n"
    resources = read_resources(tmp_path / "some" / "languages.yaml")
    assert (resources.levels, resources.ranks) == ({"wo": "high", "en": "low"}, {"wo": 3})
    assert any("xx, of which there is no text" in note for note in record["notes"])
    assert not (tmp_path / "all" / "mono" / "test.en").exists()  # it differs by direction


@pytest.mark.parametrize("together", [True, False])
def test_cut_text_is_in_one_split_in_every_direction(model, tmp_path, together) -> None:
    languages = ("en", "fr", "wo")
    rows = rows_of(languages, 90, 8)
    if together:
        write_columns(tmp_path / "train", [f"text.{name}" for name in languages], rows)
    else:
        for a, b in combinations(range(3), 2):
            pair = [(row[a], row[b]) for row in rows[20 * a : 60 + 10 * b]]
            names = f"{languages[a]}-{languages[b]}"
            write_columns(tmp_path / "train", [f"{names}.{languages[a]}", f"{names}.{languages[b]}"], pair)
    cut = options(model, tmp_path, lines={"valid": 4, "test": 5}, limits=Limits(1000, 1000))
    record, _ = prepare(cut, tmp_path / "out")
    prepare(cut, tmp_path / "again")
    assert contents(tmp_path / "out") == contents(tmp_path / "again")
    where: dict[tuple[str, tuple], set[str]] = {}
    for split in ("train", "valid", "test"):
        for pair in combinations(languages, 2):
            found = written(tmp_path / "out", split, pair)
            if split != "train":
                assert sum(found.values()) == {"valid": 4, "test": 5}[split]
            for sides in found:
                for name, tokens in zip(pair, sides, strict=True):
                    where.setdefault((name, tokens), set()).add(split)
    assert {len(splits) for splits in where.values()} == {1}
    counts = record["splits"]
    lost = counts["train"]["held_out"]
    assert counts["train"]["read"] == counts["train"]["kept"] + lost
    if together:
        assert lost == 0
        assert (tmp_path / "out" / "mono" / "test.en").is_file()


def test_too_few_lines_give_a_tenth_and_held_out_text_that_is_shared_is_mentioned(model, tmp_path) -> None:
    small(tmp_path, count=40)
    folders = {"train": (tmp_path / "train",)}
    record, _ = prepare(options(model, tmp_path, folders=folders, lines={"valid": 10, "test": 3}), tmp_path / "a")
    assert (record["splits"]["valid"]["kept"], record["splits"]["test"]["kept"]) == (3, 3)
    assert any("--valid-lines 10: 1 of 1 language pairs have too few" in note for note in record["notes"])
    lines = (tmp_path / "test" / "test.fr").read_text().splitlines()
    (tmp_path / "valid" / "valid.fr").write_text("".join(f"{line.upper()}\n" for line in lines))
    record, _ = prepare(options(model, tmp_path), tmp_path / "b")
    assert any("valid and test share 40 sentences (fr 40)" in note for note in record["notes"])


def test_the_trained_vocabulary_ends_with_the_languages_and_never_sees_held_out_text(tmp_path) -> None:
    small(tmp_path, count=80)
    for name in ("test.en", "valid.en"):
        path = tmp_path / name.split(".")[0] / name
        path.write_text(path.read_text().replace("a", "Ω"), encoding="utf-8")
    train = tmp_path / "train" / "train.en"
    lines = train.read_text().splitlines()
    train.write_text("\n".join([(tmp_path / "test" / "test.en").read_text().splitlines()[0], *lines[1:]]) + "\n")
    prepare(options((None, None), tmp_path, vocab_size=60), tmp_path / "out")
    words = (tmp_path / "out" / "dict.txt").read_text().splitlines()
    assert words[-2:] == ["__en__ 1", "__fr__ 1"]
    assert not [word for word in words if "Ω" in word]


def test_flores_gives_the_same_data_by_both_commands(tmp_path, capsys) -> None:
    rows = {"dev": rows_of(("en", "fr", "wo"), 40, 1), "devtest": rows_of(("en", "fr", "wo"), 12, 2)}
    for split, text in rows.items():
        write_columns(tmp_path / split, [f"{code}.{split}" for code in ("eng", "fra", "wol")], text)
    languages = write_lines(tmp_path / "l.yaml", ["high: [fr, en]", "low: [wo]", "flores: {en: eng, fr: fra, wo: wol}"])
    flores = ["prepare-flores", "--languages", languages, "--from", tmp_path, "--vocab-size", 60, "--valid-lines", 12]
    assert main(list(map(str, [*flores, "--out", tmp_path / "a"]))) == 0
    own = ["prepare", "--train", tmp_path / "dev", "--valid", tmp_path / "devtest", "--test", tmp_path / "devtest"]
    own += ["--languages", languages, "--vocab-size", 60, "--max-ratio", 100, "--out", tmp_path / "b"]
    assert main(list(map(str, own))) == 0
    printed = capsys.readouterr().out.split("# Next commands")
    assert printed[1].split("# Fine-tune")[0].replace("/a/", "/b/") in printed[2].replace(str(tmp_path / "a"), "")
    names = [path.name for path in (tmp_path / "a" / "data-bin").iterdir() if path.name != "shared"]
    assert len(names) == 3 * 3 * 2 * 2 + 3 + 1
    for name in names:
        assert (tmp_path / "b" / "data-bin" / name).read_bytes() == (tmp_path / "a" / "data-bin" / name).read_bytes()
    for name in ("pairs.txt", "dict.txt", "spm.model", "mono/test.fr", "mono/valid.wo"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()


def test_each_training_direction_has_validation_text_or_is_left_out(model, tmp_path) -> None:
    for seed, (split, other) in enumerate((("train", "fr"), ("train", "wo"), ("valid", "fr"), ("test", "wo"))):
        write_columns(tmp_path / split, [f"en-{other}.en", f"en-{other}.{other}"], rows_of(("en", other), 40, seed))
    with pytest.raises(UserError, match=r"--valid has no text of en-wo, and fairseq needs .*--valid-lines 500"):
        prepare(options(model, tmp_path), tmp_path / "out")
    record, _ = prepare(options(model, tmp_path, lines={"valid": 3}), tmp_path / "out")
    assert (tmp_path / "out" / "pairs.txt").read_text() == "en-fr,en-wo,fr-en,wo-en\n"
    assert sum(written(tmp_path / "out", "valid", ("en", "wo")).values()) == 3
    assert sum(written(tmp_path / "out", "valid", ("en", "fr")).values()) == 40  # none is cut where there is text
    write_columns(tmp_path / "valid", ["en-wo.en", "en-wo.wo"], [("", "qr st")])
    record, _ = prepare(options(model, tmp_path), tmp_path / "other")
    assert (tmp_path / "other" / "pairs.txt").read_text() == "en-fr,fr-en\n"
    assert any("no validation line is left of en-wo: not in pairs.txt" in note for note in record["notes"])


@pytest.mark.parametrize("name", ["counts.tsv", "mono/test.fr", "data-bin/train.en-fr.en.bin"])
def test_a_folder_that_lost_a_file_is_not_called_complete(model, tmp_path, name) -> None:
    small(tmp_path)
    prepare(options(model, tmp_path), tmp_path / "out")
    (tmp_path / "out" / name).unlink()
    with pytest.raises(UserError, match="no longer complete"):
        prepare(options(model, tmp_path), tmp_path / "out")
    assert prepare(options(model, tmp_path), tmp_path / "out", overwrite=True)[1]
    assert (tmp_path / "out" / name).exists()
