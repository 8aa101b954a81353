"""Which scores a results folder keeps, and which hypotheses may be added to it."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

import langspec_lora
from langspec_lora import files
from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation import scoreboard
from langspec_lora.evaluation.options import EvaluationOptions
from langspec_lora.evaluation.provenance import Provenance
from langspec_lora.evaluation.scoreboard import Scoreboard
from langspec_lora.evaluation.scoring import TargetScorer
from langspec_lora.evaluation.settings import held_sources, settings_of, sha256, source_side
from langspec_lora.evaluation.split_text import SplitText
from langspec_lora.generation import GenerationSettings
from langspec_lora.inference.model_files import ModelFiles
from langspec_lora.inference.model_spec import ModelSpec
from langspec_lora.locks import Locks
from langspec_lora.tasks.checks.language_tokens import LanguageTokens
from tests.reports import change_scores, sacrebleu, write_lines

EN_WO = Direction("en", "wo")
OTHER = Direction("wo", "en")
TEXTS = {"en": ["a b c d e", "f g h i j"], "wo": ["k l m n o", "p q r s t"]}
HYPOTHESES = ["k l m n x", "p q r s t"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Texts beside the data, and hypotheses of two directions that have been scored."""
    for language, lines in TEXTS.items():
        write_lines(tmp_path / "mono" / f"test.{language}", lines)
    write_lines(tmp_path / "out" / "en-wo.hyp.txt", HYPOTHESES)
    write_lines(tmp_path / "out" / "wo-en.hyp.txt", TEXTS["en"])
    score(tmp_path)
    return tmp_path


def board_of(folder: Path, tokenize: str = "13a", to_score=(EN_WO, OTHER), scorers=(), **more) -> Scoreboard:
    """The scores of an evaluation into a folder's ``out``."""
    languages = tuple(path.suffix[1:] for path in (folder / "mono").iterdir())
    texts = SplitText(folder, "test", languages, folder / "mono", None, None)
    (folder / "out" / "settings.json").write_text(json.dumps(more.pop("settings", {"checkpoint": []})))
    options = SimpleNamespace(out=folder / "out", scoring=SimpleNamespace(tokenize=tokenize))
    evaluation = SimpleNamespace(
        options=options,
        texts=texts,
        to_score=to_score,
        provenance=Provenance(folder / "out", {"generation": {}}, {}),
        **{"levels": {}, "trained": None, "directions": to_score, **more},
    )
    return Scoreboard(evaluation, scorers, Locks(folder / "out" / ".lock"))


def score(folder: Path, tokenize: str = "13a", directions=(EN_WO, OTHER)) -> dict:
    board = board_of(folder, tokenize)
    for direction in directions:
        board.add(direction)
    board.write()
    return json.loads((folder / "out" / "scores.json").read_text())["directions"]


def command_line(folder: Path, *flags: str) -> str:
    files = (folder / "mono" / "test.wo", "-i", folder / "out" / "en-wo.hyp.txt", "--force")
    return sacrebleu(*files, "-b", "-w", 4, *(flags or ("--tokenize", "13a"))).strip()


def test_unchanged_text_is_not_scored_again(folder, monkeypatch) -> None:
    before = score(folder)
    monkeypatch.setattr(TargetScorer, "score", lambda *args: pytest.fail("scored again"))
    assert score(folder) == before


@pytest.mark.parametrize("changed", ["out/en-wo.hyp.txt", "mono/test.wo", "mono/test.en"])
def test_changed_text_is_scored_again(folder, changed) -> None:
    before = score(folder)
    write_lines(folder / changed, ["k l m o n", "p q r u v"])
    after = score(folder)
    assert f"{after['en-wo']['bleu']:.4f}" == command_line(folder)
    assert (after["en-wo"]["bleu"] != before["en-wo"]["bleu"]) == (changed != "mono/test.en")
    assert after["en-wo"] != before["en-wo"]


def test_another_tokenizer_scores_again_and_all_signatures_stay(folder) -> None:
    after = score(folder, "char")
    assert f"{after['en-wo']['bleu']:.4f}" == command_line(folder, "--tokenize", "char")
    kept = score(folder, "char")
    assert kept == after
    signatures = json.loads((folder / "out" / "scores.json").read_text())["signatures"]
    assert "tok:char" in signatures["bleu"]
    assert "nw:2" in signatures["chrf"]


def test_another_sacrebleu_scores_again(folder, monkeypatch) -> None:
    versions = scoreboard._versions
    scored = []
    score_one = TargetScorer.score
    monkeypatch.setattr(TargetScorer, "score", lambda *args: scored.append(args[1]) or score_one(*args))
    for package in ("sacrebleu", "sentencepiece"):
        monkeypatch.setattr(scoreboard, "_versions", lambda changed=package: {**versions(), changed: "0"})
        score(folder)
        assert scored == [EN_WO, OTHER], package
        scored.clear()
    monkeypatch.setattr(scoreboard, "_versions", lambda: {**versions(), "sentencepiece": "0", "torch": "0"})
    score(folder)
    assert scored == []


def test_scores_that_lack_what_the_files_hold_are_made_again(folder) -> None:
    before = score(folder)
    change_scores(folder / "out", lambda content: content["directions"]["en-wo"].pop("bleu_json"))
    change_scores(folder / "out", lambda content: content["directions"]["wo-en"].pop("sentences"))
    assert score(folder) == before


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_file_says_what_made_the_scores(folder) -> None:
    assert "levels" not in json.loads((folder / "out" / "scores.json").read_text())
    settings, levels = {"checkpoint": [], "beam": 5}, {"en": "high", "wo": "low"}
    trained = frozenset({"wo-en", "en-fr"})  # of which one is between these languages
    board = board_of(folder, to_score=(OTHER, EN_WO), settings=settings, levels=levels, trained=trained)
    for direction in (EN_WO, OTHER):
        board.add(direction)
    written = board.write()
    assert list(written) == [OTHER, EN_WO]
    content = json.loads((folder / "out" / "scores.json").read_text())
    packages = ("fairseq", "torch", "sacrebleu", "sentencepiece")
    versions = {name: metadata.version(name) for name in packages}
    own = {"langspec_lora": langspec_lora.__version__, "python": platform.python_version()}
    assert content == {
        "scoring": {"tokenize": "13a", **{name: versions[name] for name in ("sacrebleu", "sentencepiece")}},
        "signatures": content["signatures"],
        "references": str(folder / "mono"),
        "versions": {**own, **versions},
        "settings": settings,
        "levels": levels,
        "trained": ["wo-en"],
        "directions": {str(direction): entry for direction, entry in written.items()},
        "sha256": content["sha256"],
    }
    assert list(content["directions"]) == ["wo-en", "en-wo"]
    published = (folder / "out" / "all_direction.spbleu").read_text()
    assert published == "".join(f"{direction}\n{entry['bleu_json']}\n" for direction, entry in written.items())
    table = (folder / "out" / "scores.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in table] == [["source", "target"], ["wo", "en"], ["en", "wo"]]
    hashes = {name: value for name, value in written[EN_WO].items() if name.endswith("sha256")}
    assert hashes == {
        "hypotheses_sha256": digest(folder / "out" / "en-wo.hyp.txt"),
        "references_sha256": digest(folder / "mono" / "test.wo"),
        "source_text_sha256": digest(folder / "mono" / "test.en"),
    }
    for language, name in (("wo", "references_sha256"), ("en", "source_text_sha256")):
        kept = folder / "out" / "texts" / f"{language}.{hashes[name][:12]}.txt"
        assert kept.read_bytes() == (folder / "mono" / f"test.{language}").read_bytes()


def test_a_package_that_is_not_installed_has_no_version(folder, monkeypatch) -> None:
    def version(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", version)
    score(folder)
    assert json.loads((folder / "out" / "scores.json").read_text())["versions"]["fairseq"] == "unknown"


def test_references_of_a_target_are_read_once_and_sources_once(folder, monkeypatch) -> None:
    write_lines(folder / "mono" / "test.nl", TEXTS["en"])
    write_lines(folder / "out" / "nl-wo.hyp.txt", HYPOTHESES)
    write_lines(folder / "out" / "nl-en.hyp.txt", TEXTS["en"])
    read = []
    lines = SplitText.lines
    monkeypatch.setattr(SplitText, "lines", lambda *given: read.append(given[-1]) or lines(*given))
    directions = (EN_WO, Direction("nl", "wo"), Direction("nl", "en"))
    board = board_of(folder, to_score=directions)
    for direction in (*directions, *directions):
        board.add(direction)
    assert sorted(read) == ["en", "en", "nl", "wo"]  # English as a source, and as references
    written = board.write()
    same = round(score(folder)["en-wo"]["bleu"])
    assert [round(written[direction]["bleu"]) for direction in directions] == [same, same, 100]


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(scoreboard, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


class Clock:
    """A clock that goes only when it is told to."""

    now = 1000.0


def test_scores_are_written_now_and_then(folder, monkeypatch, clock) -> None:
    path = folder / "out" / "scores.json"
    path.unlink()
    write_lines(folder / "out" / "wo-wo.hyp.txt", TEXTS["wo"])
    score_one = TargetScorer.score

    def slow(*given):
        clock.now += 20
        return score_one(*given)

    monkeypatch.setattr(TargetScorer, "score", slow)
    directions = (EN_WO, OTHER, Direction("wo", "wo"))
    board = board_of(folder, to_score=directions)
    found = []
    for direction in directions:
        board.add(direction)
        found.append(len(json.loads(path.read_text())["directions"]) if path.is_file() else 0)
    assert found == [0, 2, 2]
    assert board.seconds == 60


def test_what_several_processes_have_scored_is_joined(folder) -> None:
    before = score(folder)
    (folder / "out" / "scores.json").unlink()
    boards = [board_of(folder) for _ in range(3)]
    assert boards[0].write() == {}
    assert not (folder / "out" / "scores.json").exists()  # a file without scores would be damaged
    for board, direction in zip(boards[1:], (OTHER, EN_WO), strict=True):
        board.add(direction)
        board.write()
    assert {str(direction): entry for direction, entry in boards[0].write().items()} == before
    assert list(json.loads((folder / "out" / "scores.json").read_text())["directions"]) == ["en-wo", "wo-en"]
    assert set(json.loads((folder / "out" / "scores.json").read_text())["signatures"]) == {"bleu", "chrf"}


class Comet:
    """Stands in for a COMET scorer."""

    name = label = "comet"

    def __init__(self, signature: str, value: float) -> None:
        self.signature, self._value, self.given = signature, value, []

    def score(self, sources, hypotheses, references) -> float:
        self.given.append((sources, hypotheses, references))
        return self._value


def with_comet(folder: Path, comet: Comet | None, tokenize: str = "13a") -> tuple[list[float | None], str | None]:
    """The COMET scores of both directions after a call, and their signature."""
    board = board_of(folder, tokenize, scorers=[comet] if comet else ())
    for direction in (EN_WO, OTHER):
        board.add(direction)
    board.complete()
    content = json.loads((folder / "out" / "scores.json").read_text())
    return [entry.get("comet") for entry in content["directions"].values()], content["signatures"].get("comet")


def test_comet_is_scored_once_for_each_text_and_model(folder) -> None:
    first = Comet("model:a", 70.0)
    assert with_comet(folder, first) == ([70.0, 70.0], "model:a")
    by_target = [(TEXTS["wo"], TEXTS["en"], TEXTS["en"]), (TEXTS["en"], HYPOTHESES, TEXTS["wo"])]
    assert first.given == by_target
    for tokenize in ("13a", "char", "char"):
        assert with_comet(folder, None, tokenize) == ([70.0, 70.0], "model:a")
    again = Comet("model:a", 60.0)
    assert with_comet(folder, again) == ([70.0, 70.0], "model:a")
    assert not again.given
    write_lines(folder / "out" / "en-wo.hyp.txt", TEXTS["wo"])
    assert with_comet(folder, None) == ([None, 70.0], "model:a")
    for tokenize, value in (("13a", 50.0), ("char", 40.0)):
        other = Comet(f"model:{value}", value)
        assert with_comet(folder, other, tokenize) == ([value, value], f"model:{value}")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_score_of_a_model_that_is_no_number_is_named_and_not_kept(folder, value) -> None:
    with pytest.raises(UserError, match=f"^comet gives {value} for wo-en, which is no score; leave --comet out"):
        with_comet(folder, Comet("model:a", value))
    assert with_comet(folder, None) == ([None, None], None)


def test_comet_scores_that_do_not_say_their_model_are_not_kept(folder) -> None:
    with_comet(folder, Comet("model:a", 70.0))
    path = folder / "out" / "scores.json"
    content = json.loads(path.read_text())
    del content["signatures"]["comet"], content["sha256"]  # as an earlier version leaves it
    path.write_text(json.dumps(content))
    for tokenize in ("13a", "none"):
        assert with_comet(folder, None, tokenize) == ([None, None], None)


def test_comet_scores_are_written_now_and_then(folder, clock) -> None:
    comet = Comet("model:a", 70.0)
    board = board_of(folder, scorers=[comet])
    for direction in (EN_WO, OTHER):
        board.add(direction)
    found = []

    def slow(*texts) -> float:
        content = json.loads((folder / "out" / "scores.json").read_text())["directions"]
        found.append([name for name, entry in content.items() if "comet" in entry])
        clock.now += 100
        return 70.0

    comet.score = slow
    board.complete()
    assert found == [[], ["wo-en"]]  # by target


SETTINGS = {
    "checkpoint": [{"path": "a.pt", "sha256": "1" * 64}],
    "pairs": True,
    "dictionary_sha256": "2" * 64,
    "subset": "test",
    "generation": {"beam": 5},
    "encoder_langtok": "src",
    "decoder_langtok": True,
    "precision": "fp32",
    "sources": {"en-wo": "3" * 64},
}


def held(folder: Path, **changes: object) -> dict[str, str]:
    write_lines(folder / "en-wo.hyp.txt", HYPOTHESES)
    (folder / "settings.json").write_text(json.dumps(SETTINGS))
    return held_sources(folder, {**SETTINGS, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checkpoint": [{"path": "a.pt", "sha256": "4" * 64}]}, "another checkpoint; its sha256 was 1+ and is 4+;"),
        ({"pairs": False}, "the checkpoint with its adapters, or without; it was True and is False"),
        ({"dictionary_sha256": "4" * 64}, "another dictionary; it was 2+ and is 4+"),
        ({"subset": "valid"}, "another subset; it was test and is valid"),
        ({"generation": {"beam": 4}}, "other generation settings; beam was 5 and is 4"),
        ({"generation": {"beam": 5, "lenpen": 2.0}}, "other generation settings; lenpen was 1.0 and is 2.0"),
        ({"encoder_langtok": "tgt"}, "another --encoder-langtok; it was src and is tgt"),
        ({"decoder_langtok": False}, "another --decoder-langtok; it was True and is False"),
        ({"precision": "bf16"}, "another dtype; it was fp32 and is bf16"),
        ({"sources": {"en-wo": "4" * 64}}, "other data: the source text of en-wo has changed"),
    ],
)
def test_whatever_decides_a_hypothesis_is_compared(tmp_path, changes, words) -> None:
    with pytest.raises(UserError, match=words) as refusal:
        held(tmp_path, **changes)
    assert "--overwrite" in str(refusal.value)


@pytest.mark.parametrize(
    ("then", "now"), [({"a": 1}, "test"), ("test", {"a": 1}), (["a"], "test"), ("test", ["a"])], ids=str
)
def test_settings_of_another_kind_are_another_setting(tmp_path, then, now) -> None:
    write_lines(tmp_path / "en-wo.hyp.txt", HYPOTHESES)
    (tmp_path / "settings.json").write_text(json.dumps({**SETTINGS, "subset": then}))
    with pytest.raises(UserError) as refusal:
        held_sources(tmp_path, {**SETTINGS, "subset": now})
    assert f"results of another subset; it was {then} and is {now};" in str(refusal.value)


def test_hashes_in_a_message_are_as_long_as_people_compare(tmp_path) -> None:
    digests = ["0123456789abcdef", "fedcba9876543210"]
    with pytest.raises(UserError, match="its sha256 was 111111111111 and is 0123456789ab, fedcba987654;"):
        held(tmp_path, checkpoint=[{"path": "a.pt", "sha256": digest} for digest in digests])


def test_what_earlier_versions_left_unsaid_was_the_default(tmp_path) -> None:
    write_lines(tmp_path / "en-wo.hyp.txt", HYPOTHESES)
    earlier = {**SETTINGS, "generation": {}}
    del earlier["pairs"]
    (tmp_path / "settings.json").write_text(json.dumps(earlier))
    assert held_sources(tmp_path, SETTINGS) == SETTINGS["sources"]
    with pytest.raises(UserError, match="it was True and is False"):
        held_sources(tmp_path, {**SETTINGS, "pairs": False})


def test_only_directions_with_hypotheses_are_held_and_the_first_that_changed_is_named(tmp_path) -> None:
    assert held_sources(tmp_path / "new", SETTINGS) == {}
    write_lines(tmp_path / "en-wo.hyp.txt", HYPOTHESES)
    with pytest.raises(
        UserError, match=r"holds hypotheses but no settings.json .*; give another --out, or --overwrite"
    ):
        held_sources(tmp_path, SETTINGS)
    write_lines(tmp_path / "wo-en.hyp.txt", HYPOTHESES)
    sources = {"en-wo": "3", "wo-en": "4", "nl-en": "5"}
    (tmp_path / "settings.json").write_text(json.dumps({**SETTINGS, "sources": sources}))
    assert held_sources(tmp_path, {**SETTINGS, "sources": {"nl-en": "6"}}) == {"en-wo": "3", "wo-en": "4"}
    with pytest.raises(UserError, match="source text of wo-en has changed"):
        held_sources(tmp_path, {**SETTINGS, "sources": {"wo-en": "0", "en-wo": "0"}})


def test_settings_name_all_that_decides_a_hypothesis(tmp_path, monkeypatch) -> None:
    for name in ("a.pt", "b.pt", "dict.txt", "test.wo-en.wo.bin", "test.wo-en.wo.idx", "test.wo-en.en.idx"):
        (tmp_path / name).write_text(name)
    (tmp_path / "test.wo-en.en.bin").symlink_to(tmp_path / "test.wo-en.wo.bin")
    read = []
    monkeypatch.setattr(files, "sha256", lambda path: read.append(path.read_text()) or f"hash of {path.read_text()}")
    spec = ModelSpec((tmp_path / "a.pt", tmp_path / "b.pt"), dtype="bf16", adapters=False)
    model = ModelFiles(spec, tmp_path / "dict.txt", ("en", "wo"), LanguageTokens("tgt", None))
    generation = GenerationSettings(beam=3, lenpen=0.5)
    options = EvaluationOptions(tmp_path, spec, tmp_path / "out", generation=generation)
    sides = {direction: source_side(options, direction) for direction in (EN_WO, OTHER)}
    assert settings_of(options, model, sides) == {
        "checkpoint": [{"path": str(tmp_path / name), "sha256": f"hash of {name}"} for name in ("a.pt", "b.pt")],
        "pairs": False,
        "dictionary_sha256": "hash of dict.txt",
        "subset": "test",
        "generation": vars(generation),
        "encoder_langtok": "tgt",
        "decoder_langtok": False,
        "precision": "bf16",
        "sources": {"en-wo": "hash of test.wo-en.wo.bin", "wo-en": "hash of test.wo-en.wo.bin"},
    }
    assert sorted(read) == ["a.pt", "b.pt", "dict.txt", "test.wo-en.wo.bin"]  # a link and its file are one
    with pytest.raises(UserError, match=r"gone.pt: No such file or directory; check the path"):
        sha256(tmp_path / "gone.pt")


def test_what_decides_no_hypothesis_is_not_compared(tmp_path) -> None:
    elsewhere = {"checkpoint": [{"path": "b.pt", "sha256": "1" * 64}], "references": "x"}
    more = {"sources": {"en-wo": "3" * 64, "wo-en": "5" * 64}, "generation": {"beam": 5, "lenpen": 1.0}}
    assert held(tmp_path, **elsewhere, **more) == {"en-wo": "3" * 64}
