"""Raw text in, raw text out: against the stock commands, sentence by sentence, and what happens to bad input."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fairseq_cli import generate, interactive, train

from langspec_lora import Translator
from langspec_lora.cli.main import main
from langspec_lora.data.vocabulary import train_sentencepiece
from langspec_lora.errors import UserError
from langspec_lora.inference.model import LoadedModel
from langspec_lora.models.transformer import LanguageSpecificTransformer
from tests import ROOT, toy
from tests.bad_input import refusals_of
from tests.evaluations import published_hypotheses, run_stock

SHORT = ("--max-len-b", "20")  # a model of so little training repeats itself
SIDES = [("en", "fr"), ("wo", "en"), ("nl", "sd"), ("fr", "wo")]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw text and what belongs to it; see :func:`tests.toy.write_home`."""
    return toy.write_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def adapted(home: Path) -> Path:
    """A checkpoint with adapters, trained far enough that directions differ and hypotheses end."""
    return trained(home / "adapted", toy.plugin_flags(home / "data-bin", "--freeze-original-parameters", "False"))


@pytest.fixture(scope="session")
def stock(home: Path) -> Path:
    """A checkpoint of stock fairseq."""
    flags = ["--task", "translation_multi_simple_epoch", "--arch", "transformer"]
    flags = toy.base_flags(home / "data-bin", *flags, "--encoder-normalize-before", "--decoder-normalize-before")
    return trained(home / "stock", flags)


@pytest.fixture(scope="session")
def translator(adapted: Path) -> Translator:
    return Translator.from_checkpoint(adapted, device="cpu", max_len_b=20)


def trained(folder: Path, flags: list[str]) -> Path:
    """Trains with the dictionary of the data, as the published command does."""
    place = flags.index("--fixed-dictionary")
    flags = [*flags[:place], *flags[place + 2 :], "--no-progress-bar", "--disable-validation", "--seed", "3", "--cpu"]
    with pytest.MonkeyPatch.context() as patch:
        run_stock(
            patch, train, *flags, "--optimizer", "adam", "--lr", "0.02", "--max-update", "80", "--save-dir", folder
        )
    return folder / "checkpoint_last.pt"


def text(home: Path, language: str) -> list[str]:
    return (home / "mono" / f"test.{language}").read_text().splitlines()


def generated(home: Path, checkpoint: Path, task: str, source: str, target: str, *more: str) -> list[str]:
    """What stock ``fairseq-generate`` makes of the binarised test set."""
    out = home / "generated"
    shutil.rmtree(out, ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        run_stock(patch, generate, *stock_flags(home, checkpoint, task, source, target), "--results-path", out, *more)
    return published_hypotheses(out / "generate-test.txt")


def stock_flags(home: Path, checkpoint: Path, task: str, source: str, target: str) -> list[str | Path]:
    return [
        *(home / "data-bin", "--path", checkpoint, "--fixed-dictionary", home / "dict.txt", "--task", task),
        *("--required-batch-size-multiple", "1", "--langs", ",".join(toy.LANGUAGES)),
        *("--lang-pairs", ",".join(toy.PAIRS), "-s", source, "-t", target, "--beam", "5", *SHORT),
        *("--remove-bpe", "sentencepiece", "--decoder-langtok", "--encoder-langtok", "src"),
        *("--dataset-impl", "mmap", "--cpu", "--no-progress-bar", "--num-workers", "0"),
    ]


@pytest.mark.parametrize("kind", ["adapted", "stock"])
def test_translations_are_those_of_stock_fairseq_generate_line_for_line(home, kind, request) -> None:
    checkpoint = request.getfixturevalue(kind)
    task = {"adapted": "translation_multi_simple_epoch_lora", "stock": "translation_multi_simple_epoch"}[kind]
    translator = Translator.from_checkpoint(checkpoint, device="cpu", max_tokens=90, max_len_b=20)
    texts = set()
    for source, target in SIDES:
        expected = generated(home, checkpoint, task, source, target)
        assert translator.translate(text(home, source), source, target) == expected
        assert len(expected) == toy.SIZES["test"]
        texts.add(tuple(expected))
    assert len(texts) == len(SIDES)  # the directions do differ


def test_translations_are_those_of_stock_fairseq_interactive_line_for_line(
    home, adapted, translator, monkeypatch, capsys
) -> None:
    task = "translation_multi_simple_epoch_lora"
    flags = stock_flags(home, adapted, task, "wo", "fr")
    spm = ("--bpe", "sentencepiece", "--sentencepiece-model", home / "spm.model")
    run_stock(monkeypatch, interactive, *flags, *spm, "--input", home / "mono" / "test.wo")
    lines = [line.split("\t")[2] for line in capsys.readouterr().out.splitlines() if line.startswith("H-")]
    assert translator.translate(text(home, "wo"), "wo", "fr") == lines


def test_a_call_may_mix_directions_and_keeps_the_order_of_its_lines(home, translator) -> None:
    one_by_one, lines, sources, targets = [], [], [], []
    for number in range(toy.SIZES["test"]):
        source, target = toy.LANGUAGES[number % 5], toy.LANGUAGES[(number * 2 + 1) % 5]
        if source == target:
            continue
        lines.append(text(home, source)[number])
        sources.append(source)
        targets.append(target)
        one_by_one += translator.translate(lines[-1:], source, target)
    assert len(set(zip(sources, targets, strict=True))) > 3
    assert translator.translate(lines, sources, targets) == one_by_one
    into_french = translator.translate(text(home, "en")[:2] + text(home, "wo")[:2], ["en", "en", "wo", "wo"], "fr")
    assert into_french == [
        *translator.translate(text(home, "en")[:2], "en", "fr"),
        *translator.translate(text(home, "wo")[:2], "wo", "fr"),
    ]


def test_threads_that_share_a_translator_get_the_languages_they_ask_for(home, translator) -> None:
    jobs = [(text(home, source)[place : place + 3], source, target) for source, target in SIDES for place in (0, 3)]
    expected = [translator.translate(*job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda job: translator.translate(*job), 3 * jobs)) == 3 * expected


def test_lengths_that_depend_on_the_batch_are_those_of_each_direction_alone(home, adapted) -> None:
    short = {"max_len_a": 0.5, "max_len_b": 1}
    translator = Translator.from_checkpoint(adapted, device="cpu", **short)
    flags = ("--max-len-a", "0.5", "--max-len-b", "1")
    english = generated(home, adapted, "translation_multi_simple_epoch_lora", "en", "fr", *flags)
    dutch = sorted(text(home, "nl"), key=len)[:2]  # in a batch with longer lines they would be allowed more
    mixed = translator.translate([*text(home, "en"), *dutch], ["en"] * len(english) + ["nl"] * len(dutch), "fr")
    assert mixed == [*english, *translator.translate(dutch, "nl", "fr")]


def test_one_direction_decodes_on_merged_weights_and_several_on_pairs(home, adapted, monkeypatch) -> None:
    translator = Translator.from_checkpoint(adapted, device="cpu", batch_size=1, max_len_b=20)
    merged = []
    original = LanguageSpecificTransformer.merged
    monkeypatch.setattr(
        LanguageSpecificTransformer, "merged", lambda self, *ids: merged.append(ids) or original(self, *ids)
    )
    translator.translate(text(home, "en")[:3], "en", "wo")
    assert merged == [(toy.LANGUAGES.index("en"), toy.LANGUAGES.index("wo"))] * 3  # batches
    translator.translate(text(home, "en")[:2], "en", ["wo", "fr"])  # each a batch, and merged in vain
    assert len(merged) == 3


def test_empty_lines_stay_where_they_are_and_white_space_around_a_line_does_not_count(home, translator) -> None:
    first, second = text(home, "en")[:2]
    expected = translator.translate([first, second], "en", "fr")
    lines = ["", f"  {first}\t", " \u3000", f"{second}\r\n", "\n"]
    assert translator.translate(lines, "en", "fr") == ["", expected[0], "", expected[1], ""]
    assert translator.translate(["", " "], "en", "fr") == ["", ""]
    assert translator.translate([], "en", "fr") == []


def command(monkeypatch: pytest.MonkeyPatch, typed: bytes, *arguments: object) -> int:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed)))
    return main(["translate", "--cpu", *SHORT, *map(str, arguments)])


def test_the_command_translates_the_standard_input_line_by_line(home, adapted, translator, monkeypatch, capsys) -> None:
    lines = text(home, "nl")
    typed = "\n".join([*lines[:3], "", *lines[3:]]).encode()  # no newline at the end
    for size in ("1", "5", "100"):
        assert command(monkeypatch, typed, adapted, "-s", "nl", "-t", "wo", "--buffer-size", size) == 0
        expected = translator.translate([*lines[:3], "", *lines[3:]], "nl", "wo")
        assert capsys.readouterr().out == "".join(f"{line}\n" for line in expected)
    assert command(monkeypatch, b"", adapted, "-s", "nl", "-t", "wo") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "order",
    [
        lambda checkpoint, lines: [checkpoint, *lines, "-s", "en", "-t", "wo"],
        lambda checkpoint, lines: [checkpoint, "-s", "en", "-t", "wo", *lines],
        lambda checkpoint, lines: ["-s", "en", checkpoint, lines[0], "-t", "wo", lines[1]],
        lambda checkpoint, lines: [checkpoint, "-s", "en", "-t", "wo", "--cpu", "--", *lines],
    ],
    ids=["before the flags", "behind the flags", "between", "behind two dashes"],
)
def test_the_command_translates_its_arguments_wherever_they_stand(
    home, adapted, translator, monkeypatch, capsys, order: Callable
) -> None:
    lines = text(home, "en")[:2]
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["translate", "--cpu", *SHORT, *map(str, order(adapted, lines))]) == 0
    assert capsys.readouterr().out.splitlines() == translator.translate(lines, "en", "wo")


def test_generation_flags_mean_what_they_mean_to_fairseq_generate(home, adapted, monkeypatch, capsys) -> None:
    flags = ("--beam", "2", "--max-len-b", "6", "--lenpen", "0.2", "--min-len", "5", "--no-repeat-ngram-size", "1")
    expected = generated(home, adapted, "translation_multi_simple_epoch_lora", "en", "wo", *flags)
    typed = (home / "mono" / "test.en").read_bytes()
    capsys.readouterr()
    assert command(monkeypatch, typed, adapted, "-s", "en", "-t", "wo", *flags) == 0
    assert capsys.readouterr().out.splitlines() == expected
    settings = {"beam": 2, "max_len_b": 6, "lenpen": 0.2, "min_len": 5, "no_repeat_ngram_size": 1}
    translator = Translator.from_checkpoint(str(adapted), device="cpu", **settings)
    assert translator.translate(text(home, "en"), "en", "wo") == expected


def test_bfloat16_and_an_ensemble_of_one_model_twice_translate(home, adapted, translator) -> None:
    lines = text(home, "en")
    twice = Translator.from_checkpoint([adapted, adapted], device="cpu", max_len_b=20)
    assert twice.translate(lines, "en", "fr") == translator.translate(lines, "en", "fr")
    rough = Translator.from_checkpoint(adapted, device="cpu", dtype="bf16", max_len_b=20).translate(lines, "en", "fr")
    assert len(rough) == len(lines)


def test_a_checkpoint_without_adapters_translates_and_says_so(home, stock, adapted, caplog) -> None:
    caplog.set_level("WARNING", "fairseq")
    Translator.from_checkpoint(adapted, device="cpu")
    assert not caplog.messages
    Translator.from_checkpoint(stock, device="cpu")
    assert caplog.messages == [f"{stock} has no adapters; it translates as the base model"]


# Bad input.


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test that gets as far as loading a model."""
    monkeypatch.setattr(LoadedModel, "__init__", lambda *args: pytest.fail("a model was loaded"))


def refusal(*arguments: object) -> str:
    with pytest.raises(SystemExit) as end:
        main(["translate", *map(str, arguments), "--cpu"])
    assert end.value.code.startswith("langspec-lora: error: ")
    assert end.value.code.isprintable()
    return end.value.code


def test_bad_arguments_are_one_sentence_before_a_model_is_loaded(home, adapted, tmp_path, unloaded) -> None:
    flags = ("-s", "en", "-t", "wo", "hello")
    assert "the model does not know the language 'xx'; it knows en, fr, nl, wo, sd" in refusal(
        adapted, "-s", "en", "-t", "xx", "hello"
    )
    assert "both 'en'" in refusal(adapted, "-s", "en", "-t", "en", "hello")
    assert "nowhere.pt does not exist" in refusal("nowhere.pt", *flags)
    assert "Is a directory" in refusal(home, *flags)
    assert "damaged" in refusal(home / "dict.txt", *flags)
    assert "--beam 0" in refusal(adapted, *flags, "--beam", "0")
    assert "--buffer-size 0" in refusal(adapted, *flags, "--buffer-size", "0")
    assert "--max-tokens 0" in refusal(adapted, *flags, "--max-tokens", "0")
    assert "SentencePiece model nowhere not found" in refusal(adapted, *flags, "--spm", "nowhere")
    assert "dictionary nowhere not found" in refusal(adapted, *flags, "--fixed-dictionary", "nowhere")
    assert "is not a SentencePiece model" in refusal(adapted, *flags, "--spm", home / "dict.txt")
    other = tmp_path / "other.model"
    other.write_bytes(train_sentencepiece(["Что это такое?", "Это совсем другое."], 30))
    assert "belong together" in refusal(adapted, *flags, "--sentencepiece-model", other)


def test_all_mistakes_are_listed_together_before_a_model_is_loaded(adapted, unloaded) -> None:
    flags = ("-s", "xx", "-t", "yy", "--buffer-size", "0", "--beam", "0", "--sampling-topk", "0", "--batch-size", "0")
    found = refusals_of(main, ["translate", str(adapted), "hello", *flags])
    expected = ("--buffer-size 0", "--beam 0", "--sampling-topk 0", "--batch-size 0", "'xx'", "'yy'")
    assert len(found) == len(expected)
    for message, words in zip(found, expected, strict=True):
        assert words in message
    flags = ("-s", "en", "-t", "fr", "--spm", "nowhere.model", "--fixed-dictionary", "nowhere.txt")
    found = refusals_of(main, ["translate", f"nowhere.pt:{adapted}:gone.pt", "hello", *flags])
    assert ["nowhere.pt" in found[0], "gone.pt" in found[1], "nowhere.txt" in found[2]] == [True] * 3
    assert len(found) == 4


def test_a_dictionary_that_does_not_fit_the_model_is_an_error_and_no_end_of_a_program(home, adapted, tmp_path) -> None:
    longer = tmp_path / "dict.txt"
    longer.write_text(f"{(home / 'dict.txt').read_text()}more 1\n")
    with pytest.raises(UserError, match=r"vocabulary of \d+.*--fixed-dictionary"):
        Translator.from_checkpoint(adapted, dictionary=longer, device="cpu")
    assert "--fixed-dictionary" in refusal(adapted, "-s", "en", "-t", "fr", "hi", "--fixed-dictionary", longer)


@pytest.mark.parametrize(
    ("lines", "source", "target", "words"),
    [
        ("one string", "en", "fr", "a single string"),
        (["a", b"b"], "en", "fr", "line 2: it has the type bytes"),
        (["a", "b"], ["en"], "fr", "1 source languages were given for 2 lines"),
        (["a", "b"], "en", ["fr", "xx"], "does not know the language 'xx'"),
        (["a", "\udce9"], "en", "fr", "line 2: not UTF-8"),
        (["a", "en1 " * 1024], "en", "fr", r"line 2: \d+ tokens, but the model takes 1024"),
    ],
)
def test_bad_lines_are_refused_before_anything_is_decoded(
    translator, monkeypatch, lines, source, target, words
) -> None:
    monkeypatch.setattr(LoadedModel, "decode", lambda *args, **kwargs: pytest.fail("lines were decoded"))
    with pytest.raises(UserError, match=words):
        translator.translate(lines, source, target)


@pytest.mark.parametrize("bad", [b"caf\xe9 au lait", b"en1 " * 1100], ids=["not UTF-8", "too long"])
def test_the_command_translates_the_lines_before_a_bad_one_and_names_it(
    home, adapted, translator, monkeypatch, capsys, bad
) -> None:
    lines = text(home, "en")
    typed = b"\n".join([*(line.encode() for line in lines[:7]), bad, lines[7].encode()])
    for size in ("3", "100"):
        with pytest.raises(SystemExit, match=r"error: line 8: .*; the lines before it are translated$"):
            command(monkeypatch, typed, adapted, "-s", "en", "-t", "wo", "--buffer-size", size)
        assert capsys.readouterr().out.splitlines() == translator.translate(lines[:7], "en", "wo")


def run_program(*arguments: object, **how) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
    program = [sys.executable, "-m", "langspec_lora.cli.main", "translate", "--cpu", *SHORT, *map(str, arguments)]
    return subprocess.Popen(program, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, **how)


def test_a_reader_that_has_enough_ends_the_command_without_a_word(home, adapted) -> None:
    process = run_program(adapted, "-s", "en", "-t", "wo", "--buffer-size", "2", stdout=subprocess.PIPE)
    lines = text(home, "en")
    feed = itertools.chain.from_iterable(itertools.repeat(lines, 2))
    process.stdout.close()
    _, errors = process.communicate("".join(f"{line}\n" for line in feed).encode())
    assert errors == b""
    assert process.returncode == 141  # as of a program that SIGPIPE ended


def test_each_line_is_answered_at_once_where_the_buffer_is_one_line(home, adapted, translator) -> None:
    process = run_program(adapted, "-s", "en", "-t", "wo", "--buffer-size", "1", stdout=subprocess.PIPE)
    deadline = threading.Timer(60, process.kill)
    deadline.start()
    for line in text(home, "en")[:3]:
        process.stdin.write(f"{line}\n".encode())
        process.stdin.flush()
        assert process.stdout.readline().decode() == f"{translator.translate([line], 'en', 'wo')[0]}\n"
    process.communicate()
    deadline.cancel()
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_one_sentence(home, adapted) -> None:
    with Path("/dev/full").open("wb") as full:
        process = run_program(adapted, "-s", "en", "-t", "wo", stdout=full)
        _, errors = process.communicate(b"en1 en2\n")
    assert process.returncode == 1
    assert errors.decode().splitlines() == [
        "langspec-lora: error: cannot write the output: No space left on device; check the disk"
    ]


def test_importing_the_package_imports_neither_torch_nor_fairseq() -> None:
    code = "import sys, langspec_lora; assert not {'torch', 'fairseq', 'sentencepiece'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
