"""Whole models: a Hugging Face folder as a fairseq base model, and a checkpoint as a Hugging Face folder."""

# Imports in functions: fairseq.models takes seconds, and only an import of a model needs it.

from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from langspec_lora.checkpoints.assembly import checkpoint_of
from langspec_lora.checkpoints.token_order import TokenOrder
from langspec_lora.checkpoints.vocabulary_files import given_sentencepiece_model
from langspec_lora.convert.hf.config_json import BOS, EOS, PAD, fairseq_args, huggingface_config, training_flags
from langspec_lora.convert.hf.files import read_json, read_tensors, write_json
from langspec_lora.convert.hf.tokenizer_files import TOKENIZER_FILES, check_tokenizer, write_tokenizer
from langspec_lora.convert.hf.vocabulary import Vocabulary, read_vocabulary, sentencepiece_model, warn_of_other_pieces
from langspec_lora.convert.hf.weights import to_fairseq, to_huggingface
from langspec_lora.data.vocabulary import SENTENCEPIECE, check_fit
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.files import check_folder, whole_folder
from langspec_lora.tensor_files import write_checkpoint, write_tensors

IMPORTED_FILES = ("model.pt", "dict.txt", SENTENCEPIECE)
"""The files of an imported base model, named as in fairseq's releases."""

MODEL_FILES = ("config.json", "generation_config.json", "model.safetensors")


def exported_files(with_tokenizer: bool) -> tuple[str, ...]:
    """The files that :func:`export_model` may write."""
    return (*MODEL_FILES, *TOKENIZER_FILES) if with_tokenizer else MODEL_FILES


@dataclass(frozen=True)
class ImportedModel:
    """A base model for ``--finetune-from-model``.

    Attributes:
        folder: holds :data:`IMPORTED_FILES`.
        languages: the languages that ``--langs`` may name.
        flags: ``--arch`` of the training command, and other flags that this model needs.
        remarks: sentences for the user.
    """

    folder: Path
    languages: tuple[str, ...]
    flags: str
    remarks: tuple[str, ...] = ()


def import_model(
    folder: Path,
    out: Path,
    spm: Path | None = None,
    overwrite: bool = False,
    added_languages: Sequence[str] | None = None,
) -> ImportedModel:
    """Makes a fairseq base model from an M2M100 or a dense NLLB-200 in Hugging Face's format.

    Args:
        folder: holds ``config.json``, the weights (safetensors or torch's files) and the tokenizer's files.
        out: the folder for :data:`IMPORTED_FILES`.
        spm: the SentencePiece model, if the folder has none.
        overwrite: whether existing files may be replaced.
        added_languages: which tokens that were added to the tokenizer are languages; None for those that look like a
            language code.

    Raises:
        UserError: a file is missing, the model is another one, or a file exists already.
    """
    return write_import(check_import(folder, out, spm, overwrite, added_languages), out, overwrite)


@dataclass(frozen=True)
class ModelFolder:
    """A folder of transformers, read except for the weights.

    Attributes:
        folder: where it is.
        args: fairseq's arguments of the model.
        vocabulary: its tokens.
        spm: its SentencePiece model.
    """

    folder: Path
    args: Namespace
    vocabulary: Vocabulary
    spm: Path


def check_import(
    folder: Path, out: Path, spm: Path | None, overwrite: bool, added_languages: Sequence[str] | None
) -> ModelFolder:
    """Reads and checks all that :func:`import_model` takes, but for the weights.

    Raises:
        UserError: as there; all mistakes that do not depend on each other are listed.
    """
    with collect_errors() as errors:
        with errors.check():
            check_folder(out, IMPORTED_FILES, overwrite)
        with errors.check():
            if spm is not None:
                given_sentencepiece_model(spm)
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; give one that transformers wrote, with config.json and weights")
        config = read_json(folder / "config.json")
        with errors.check():
            args = fairseq_args(config, str(folder / "config.json"))
        rows = config.get("vocab_size", 128112)
        if not isinstance(rows, int) or not 0 < rows < 2**31:
            raise UserError(f"{folder / 'config.json'}: vocab_size is {rows!r}; expected the number of embeddings")
        vocabulary = read_vocabulary(folder, rows, added_languages)
        errors.raise_found()
        return ModelFolder(folder, args, vocabulary, spm or sentencepiece_model(folder))


def write_import(model: ModelFolder, out: Path, overwrite: bool) -> ImportedModel:
    """Writes what :func:`import_model` does.

    Raises:
        UserError: dictionary and SentencePiece model do not belong together, or the weights are damaged.
    """
    args, vocabulary = model.args, model.vocabulary
    with whole_folder(out, IMPORTED_FILES, overwrite) as partial:
        (partial / "dict.txt").write_text(vocabulary.dictionary(), encoding="utf-8")
        check_fit(model.spm, partial / "dict.txt")
        warn_of_other_pieces(model.spm, vocabulary, model.folder)
        shutil.copyfile(model.spm, partial / SENTENCEPIECE)
        weights = read_tensors(model.folder, "model", "pytorch_model")
        args.langs = ",".join(vocabulary.languages)
        save_base(partial / "model.pt", to_fairseq(weights, args, vocabulary.order, str(model.folder)), args)
    return ImportedModel(out, vocabulary.languages, training_flags(args), vocabulary.remarks)


def save_base(path: Path, state: dict[str, Tensor], args: Namespace) -> None:
    """Writes a checkpoint that stock fairseq loads, to fine-tune from it or to generate with it.

    Args:
        path: the file.
        state: the model's entries.
        args: the arguments of its architecture; missing ones get fairseq's defaults.
    """
    from fairseq.models.transformer.transformer_legacy import base_architecture

    args = Namespace(**vars(args))
    base_architecture(args)
    write_checkpoint(checkpoint_of(args, state), path)


def export_model(
    state: dict[str, Tensor],
    args: Namespace,
    out: Path,
    label: str,
    languages: tuple[str | None, str | None] = (None, None),
    tokenizer: tuple[Path, Path] | None = None,
    overwrite: bool = False,
) -> str | None:
    """Writes a model as a folder that plain ``transformers`` loads (``M2M100ForConditionalGeneration``).

    Every token keeps its id.

    Args:
        state: the model's entries, without adapters or with those of one direction merged into the weights.
        args: the arguments of the checkpoint.
        out: the folder.
        label: the checkpoint, for messages.
        languages: source and target language, the defaults of the tokenizer and of generation.
        tokenizer: the fairseq dictionary and the SentencePiece model; None to write no tokenizer.
        overwrite: whether existing files may be replaced.

    Returns:
        A remark on the tokenizer for the user, or None.

    Raises:
        UserError: Hugging Face's M2M100 cannot express the model, a language has no token, or a file exists already.
    """
    names = exported_files(tokenizer is not None)
    check_folder(out, names, overwrite)
    rows = state["encoder.embed_tokens.weight"].size(0) if "encoder.embed_tokens.weight" in state else 0
    config = huggingface_config(args, rows, label)
    tokens = None if tokenizer is None else check_tokenizer(*tokenizer, rows, languages, TokenOrder.of(Path(), args))
    generation: dict[str, Any] = {
        "bos_token_id": BOS,
        "pad_token_id": PAD,
        "eos_token_id": EOS,
        "decoder_start_token_id": EOS,
        "num_beams": 5,
        "max_length": 200,
        "early_stopping": True,  # as in fairseq: when as many hypotheses as beams are finished
        "suppress_tokens": [PAD],  # as in fairseq
    }
    if tokens is not None and languages[1] is not None:
        generation["forced_bos_token_id"] = tokens.index(f"__{languages[1]}__")
    tensors = to_huggingface(state, args, label)
    config["dtype"] = str(tensors["model.shared.weight"].dtype).removeprefix("torch.")
    with whole_folder(out, names, overwrite) as partial:
        write_json(partial / "config.json", config)
        write_json(partial / "generation_config.json", generation)
        write_tensors(partial / "model.safetensors", tensors)
        if tokenizer is None or tokens is None:
            return None
        return write_tokenizer(partial, tokens, tokenizer[1], languages)
