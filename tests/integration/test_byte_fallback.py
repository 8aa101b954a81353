"""A model whose SentencePiece falls back to bytes: what translate and evaluate print, against SentencePiece itself."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from fairseq_cli import generate
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from langspec_lora import Translator
from langspec_lora.data.binarise import binarise, multi_parallel
from langspec_lora.data.directions import Direction
from langspec_lora.data.vocabulary import dictionary_text
from langspec_lora.evaluation.evaluate import evaluate
from langspec_lora.evaluation.split_text import SplitText
from langspec_lora.generation import GenerationSettings
from tests import toy
from tests.bad_input import write_checkpoint
from tests.evaluations import options, published_hypotheses, run_stock

REFERENCES = ["Börse 日本", "en1 en2 🙂", "ABC en3"]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Data, and a model of random weights, most of whose tokens are bytes."""
    home = tmp_path_factory.mktemp("home")
    (home / "mono").mkdir()
    toy.write_text(home / "mono")
    lines = [line for path in sorted((home / "mono").glob("train.*")) for line in path.read_text().split("\n")]
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=340,
        model_type="unigram",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (home / "spm.model").write_bytes(model.getvalue())
    (home / "dict.txt").write_text(dictionary_text(model.getvalue(), toy.LANGUAGES))
    (home / "levels.yaml").write_text(toy.LEVELS)
    for name in toy.LANGUAGES:
        (home / "mono" / f"test.{name}").write_text("".join(f"{line}\n" for line in REFERENCES), encoding="utf-8")
    files = {split: {name: home / "mono" / f"{split}.{name}" for name in toy.LANGUAGES} for split in toy.SIZES}
    bitexts = [bitext for split in files for bitext in multi_parallel(split, files[split])]
    binarise(bitexts, home / "dict.txt", home / "data-bin", spm_model=home / "spm.model")
    write_checkpoint(home / "checkpoint.pt", toy.plugin_flags(home / "data-bin"))
    return home


@pytest.fixture(scope="module")
def expected(home, tmp_path_factory) -> list[str]:
    """The pieces that stock ``fairseq-generate`` prints, as SentencePiece decodes them, each on one line."""
    out = tmp_path_factory.mktemp("generated")
    with pytest.MonkeyPatch.context() as patch:
        run_stock(
            patch,
            generate,
            *(home / "data-bin", "--path", home / "checkpoint.pt", "--fixed-dictionary", home / "dict.txt"),
            *("--task", "translation_multi_simple_epoch_lora", "--langs", ",".join(toy.LANGUAGES)),
            *("--lang-pairs", ",".join(toy.PAIRS), "-s", "en", "-t", "wo", "--beam", "5", "--max-len-b", "12"),
            *("--decoder-langtok", "--encoder-langtok", "src", "--dataset-impl", "mmap", "--cpu"),
            *("--required-batch-size-multiple", "1", "--results-path", out, "--no-progress-bar", "--num-workers", "0"),
        )
    processor = SentencePieceProcessor(model_file=str(home / "spm.model"))
    lines = [processor.decode(line.split(" ")) for line in published_hypotheses(out / "generate-test.txt")]
    assert any(any(not character.isascii() for character in line) for line in lines)
    return [line.replace("\n", " ").replace("\r", " ").strip() for line in lines]


def test_the_translator_prints_text_and_no_bytes(home, expected) -> None:
    translator = Translator.from_checkpoint(home / "checkpoint.pt", device="cpu", max_len_b=12)
    assert translator.translate(REFERENCES, "en", "wo") == expected


def test_evaluate_scores_text_and_no_bytes(home, expected, tmp_path) -> None:
    short = GenerationSettings(max_len_b=12)
    settings = {"references": home / "mono", "lang_pairs": "en-wo", "generation": short}
    evaluate(options(home / "data-bin", home / "checkpoint.pt", tmp_path, **settings))
    assert (tmp_path / "en-wo.hyp.txt").read_text(encoding="utf-8") == "".join(f"{line}\n" for line in expected)


def test_references_of_binarised_data_are_text(home, tmp_path) -> None:
    data = tmp_path / "data-bin"
    shutil.copytree(home / "data-bin", data)
    text = SplitText(data, "test", ("en", "wo"), None, None, "sentencepiece")
    assert "binarised" in text.origin
    assert text.lines(Direction("en", "wo"), "wo") == REFERENCES
