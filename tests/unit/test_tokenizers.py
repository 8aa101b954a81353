"""Whether sacrebleu can tokenize: each tokenizer that it knows, and what is missing for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import sacrebleu.utils
from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers import tokenizer_spm
from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS

from langspec_lora.data.vocabulary import train_sentencepiece
from langspec_lora.errors import UserError
from langspec_lora.tokenizers import require_tokenizer, tokenizer_models


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch) -> Path:
    """An empty folder of models; nothing can be downloaded."""
    for module in (sacrebleu.utils, tokenizer_spm):
        monkeypatch.setattr(module, "SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setattr(tokenizer_spm, "download_file", lambda *_: pytest.fail("something is downloaded"))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def test_models_are_looked_for_where_sacrebleu_keeps_them(models) -> None:
    assert tokenizer_models() == {
        name: models / str(model["url"]).rpartition("/")[2] for name, model in SPM_MODELS.items()
    }


@pytest.mark.parametrize("name", ["13a", "char", "intl", "none", "zh"])
def test_tokenizers_without_a_model_need_nothing(name) -> None:
    require_tokenizer(name)


def test_a_tokenizer_that_sacrebleu_does_not_know_is_named_with_those_that_it_knows() -> None:
    with pytest.raises(UserError, match="sacrebleu has no tokenizer 'spam'; choose one of none, zh, 13a, intl, char"):
        require_tokenizer("spam")


@pytest.mark.parametrize("name", ["spm", "flores101", "flores200"])
def test_a_model_that_is_not_there_is_named_with_its_source_and_its_place(models, name) -> None:
    with pytest.raises(UserError) as refusal:
        require_tokenizer(name)
    url = SPM_MODELS[name]["url"]
    place = models / url.rpartition("/")[2]
    assert f"model of sacrebleu's tokenizer '{name}' was not found; save {url} as {place} " in str(refusal.value)
    assert f"models/{place.name}" in str(refusal.value)


def test_a_model_that_is_there_is_tried(models) -> None:
    path = tokenizer_models()["flores101"]
    path.write_bytes(train_sentencepiece(["one two three four", "five six seven eight"] * 20, 40))
    require_tokenizer("flores101")
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match=rf"'flores101' cannot be used: .+; replace the damaged file {path}, or choose"):
        require_tokenizer("flores101")


@pytest.mark.parametrize("kind", [ImportError, OSError, RuntimeError])
def test_what_sacrebleu_says_is_passed_on_in_one_line(monkeypatch, kind) -> None:
    def start(self, tokenize: str) -> None:
        raise kind(f"\nno package\n\n    for {tokenize}\n")

    monkeypatch.setattr(BLEU, "__init__", start)
    with pytest.raises(
        UserError, match="'ja-mecab' cannot be used: no package for ja-mecab; install what it names, or"
    ):
        require_tokenizer("ja-mecab")
