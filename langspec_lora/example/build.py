"""The example's files: text, SentencePiece model, dictionary and binarised folders.

OUT/text/FIRST-SECOND.LANG      text of a language pair for the base model
OUT/mono/SPLIT.LANG             multi-parallel text for fine-tuning (train) and held out (valid, test)
OUT/spm.model, OUT/dict.txt     for all languages; the dictionary ends with the language tokens, as M2M100's does
OUT/pretrain, OUT/finetune      binarised data for the stock commands
OUT/example.json                the settings that the example was made with
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from itertools import permutations
from pathlib import Path

from langspec_lora.data.binarise import Bitext, binarise, multi_parallel
from langspec_lora.data.vocabulary import dictionary_text, train_sentencepiece
from langspec_lora.errors import UserError
from langspec_lora.example.corpus import SIZES, VOCABULARY, Corpus, Sizes, draw_corpus
from langspec_lora.example.grammar import CODES, LANGUAGES, Meaning
from langspec_lora.files import whole_folder
from langspec_lora.naming import some_of

RECIPE = "example.json"

_LANGUAGES = dict(zip(CODES, LANGUAGES, strict=True))


def make_example(out: Path, sizes: Sizes = SIZES, seed: int = 1, vocabulary: int = VOCABULARY) -> bool:
    """Makes the example, or finds it made; the same arguments give the same bytes.

    The folder appears under its name only when it is complete.

    Args:
        out: the folder to make.
        sizes: how much text to make.
        seed: random seed of the meanings; the languages are always the same.
        vocabulary: the largest size of the SentencePiece model.

    Returns:
        Whether this call made it; otherwise it already existed.

    Raises:
        UserError: ``out`` exists and contains something else, or cannot be written.
    """
    recipe = {"languages": list(CODES), "sizes": asdict(sizes), "vocabulary": vocabulary, "seed": seed}
    if out.exists():
        if not out.is_dir() or any(out.iterdir()):
            _require_same(out, recipe)
            return False
        out.rmdir()
    with whole_folder(out, ()) as folder:
        _fill(folder, draw_corpus(sizes, seed), vocabulary)
        (folder / RECIPE).write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    return True


def _require_same(out: Path, recipe: dict) -> None:
    try:
        present = json.loads((out / RECIPE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{out} already exists and is not an example; give a new folder") from None
    changed = [key for key, value in recipe.items() if present.get(key) != value]
    if changed:
        raise UserError(f"{out} holds an example with other {some_of(changed)}; remove it, or give another folder")


def _fill(folder: Path, corpus: Corpus, vocabulary: int) -> None:
    crawled = [
        Bitext("train", *pair, *(_write(folder / "text" / f"{'-'.join(pair)}.{code}", code, meanings) for code in pair))
        for pair, meanings in corpus.pretrain.items()
    ]
    files = {
        split: {code: _write(folder / "mono" / f"{split}.{code}", code, meanings) for code in CODES}
        for split, meanings in (("train", corpus.finetune), ("valid", corpus.valid), ("test", corpus.test))
    }
    model = train_sentencepiece(
        [language.render(meaning) for language in LANGUAGES for meaning in corpus.vocabulary], vocabulary
    )
    (folder / "spm.model").write_bytes(model)
    (folder / "dict.txt").write_text(dictionary_text(model, CODES), encoding="utf-8")

    # fairseq-train opens the validation data even if it does not validate.
    pretrain = [*crawled, *multi_parallel("valid", files["valid"], corpus.pretrain)]
    finetune = [bitext for split in files for bitext in multi_parallel(split, files[split])]
    for name, bitexts, pairs in (
        ("pretrain", pretrain, [pair for pair in permutations(CODES, 2) if {pair, pair[::-1]} & set(corpus.pretrain)]),
        ("finetune", finetune, permutations(CODES, 2)),
    ):
        binarise(bitexts, folder / "dict.txt", folder / name, spm_model=folder / "spm.model", languages=CODES)
        (folder / f"{name}.pairs").write_text(",".join(map("-".join, pairs)) + "\n", encoding="utf-8")


def _write(path: Path, code: str, meanings: Iterable[Meaning]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{_LANGUAGES[code].render(meaning)}\n" for meaning in meanings), encoding="utf-8")
    return path
