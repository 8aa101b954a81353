"""The example's files: text, SentencePiece model, dictionary and binarised folders.

OUT/text/FIRST-SECOND.LANG      text of a language pair for the base model
OUT/mono/SPLIT.LANG             multi-parallel text for fine-tuning (train) and held out (valid, test)
OUT/spm.model, OUT/dict.txt     for all languages; the dictionary ends with the language tokens, as M2M100's does
OUT/pretrain, OUT/finetune      binarised data for the stock commands
OUT/example.json                the settings that the example was made with
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from langspec_lora.data.binarise import Bitext, binarise, multi_parallel
from langspec_lora.data.vocabulary import dictionary_text, train_sentencepiece
from langspec_lora.errors import UserError
from langspec_lora.example.corpus import SIZES, Corpus, Sizes, draw_corpus
from langspec_lora.example.grammar import CODES, LANGUAGES, Meaning

VOCABULARY = 900
RECIPE = "example.json"

_LANGUAGES = {language.code: language for language in LANGUAGES}


@dataclass(frozen=True)
class Example:
    """Where the example's files are.

    Attributes:
        folder: the folder of the example.
        made: whether this call made it; otherwise it already existed.
    """

    folder: Path
    made: bool


def make_example(out: str | Path, sizes: Sizes = SIZES, seed: int = 1) -> Example:
    """Makes the example unless it already exists; the same arguments give the same bytes.

    The folder appears under its name only when it is complete.

    Args:
        out: the folder to make.
        sizes: how much text to make.
        seed: random seed of the meanings; the languages are always the same.

    Raises:
        UserError: ``out`` exists and contains something else.
    """
    out = Path(out)
    recipe = {"languages": list(CODES), "sizes": asdict(sizes), "vocabulary": VOCABULARY, "seed": seed}
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        _require_same(out, recipe)
        return Example(out, made=False)

    partial = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{partial}: {error.strerror}; give a writable folder") from error
    _fill(partial, draw_corpus(sizes, seed))
    (partial / RECIPE).write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    os.rename(partial, out)  # noqa: PTH104  Path.rename does not document that it replaces an empty folder
    return Example(out, made=True)


def _require_same(out: Path, recipe: dict) -> None:
    try:
        present = json.loads((out / RECIPE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{out} already exists and is not an example; give a new folder") from None
    changed = [key for key, value in recipe.items() if present.get(key) != value]
    if changed:
        raise UserError(f"{out} holds an example with other {', '.join(changed)}; remove it, or give another folder")


def _fill(folder: Path, corpus: Corpus) -> None:
    bitexts = []
    for (first, second), meanings in corpus.pretrain.items():
        sides = [_write(folder / "text" / f"{first}-{second}.{code}", code, meanings) for code in (first, second)]
        bitexts.append(Bitext("train", first, second, *sides))
    splits = {"train": corpus.finetune, "valid": corpus.valid, "test": corpus.test}
    files = {
        split: {code: _write(folder / "mono" / f"{split}.{code}", code, meanings) for code in CODES}
        for split, meanings in splits.items()
    }
    model = train_sentencepiece(
        [language.render(meaning) for language in LANGUAGES for meaning in corpus.vocabulary], VOCABULARY
    )
    (folder / "spm.model").write_bytes(model)
    (folder / "dict.txt").write_text(dictionary_text(model, CODES), encoding="utf-8")

    # fairseq-train opens the validation data even if it does not validate.
    valid = multi_parallel("valid", files["valid"], corpus.pretrain)
    _binarise([*bitexts, *valid], folder, "pretrain")
    _binarise([bitext for split in files for bitext in multi_parallel(split, files[split])], folder, "finetune")
    _write_pairs(
        folder / "pretrain.pairs", [(a, b) for a in CODES for b in CODES if {(a, b), (b, a)} & set(corpus.pretrain)]
    )
    _write_pairs(folder / "finetune.pairs", [(a, b) for a in CODES for b in CODES if a != b])


def _write_pairs(path: Path, directions: Iterable[tuple[str, str]]) -> None:
    path.write_text(",".join(f"{source}-{target}" for source, target in directions) + "\n", encoding="utf-8")


def _binarise(bitexts: Iterable[Bitext], folder: Path, name: str) -> None:
    binarise(bitexts, folder / "dict.txt", folder / name, spm_model=folder / "spm.model", languages=CODES)


def _write(path: Path, code: str, meanings: Iterable[Meaning]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    render = _LANGUAGES[code].render
    path.write_text("".join(f"{render(meaning)}\n" for meaning in meanings), encoding="utf-8")
    return path
