"""Whole models: a Hugging Face folder as a fairseq base model, and a checkpoint as a Hugging Face folder."""

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
from langspec_lora.convert.hf.config_json import BOS, EOS, PAD, fairseq_args, huggingface_config, training_flags
from langspec_lora.convert.hf.files import read_json, read_tensors, write_json
from langspec_lora.convert.hf.tokenizer_files import TOKENIZER_FILES, check_tokenizer, write_tokenizer
from langspec_lora.convert.hf.vocabulary import read_vocabulary, sentencepiece_model
from langspec_lora.convert.hf.weights import to_fairseq, to_huggingface
from langspec_lora.data.vocabulary import SENTENCEPIECE, check_fit
from langspec_lora.errors import UserError
from langspec_lora.files import check_folder, whole_folder
from langspec_lora.tensor_files import write_checkpoint, write_tensors

IMPORTED_FILES = ("model.pt", "dict.txt", SENTENCEPIECE)
"""What an imported base model consists of; the names are those of fairseq's own releases."""

MODEL_FILES = ("config.json", "generation_config.json", "model.safetensors")


def exported_files(with_tokenizer: bool) -> tuple[str, ...]:
    """What :func:`export_model` may write."""
    return (*MODEL_FILES, *TOKENIZER_FILES) if with_tokenizer else MODEL_FILES


@dataclass(frozen=True)
class ImportedModel:
    """A base model for ``--finetune-from-model``.

    Attributes:
        folder: holds :data:`IMPORTED_FILES`.
        languages: what ``--langs`` may name.
        flags: ``--arch`` of the training command, and the flags that it takes besides for this model.
        remarks: what the user should know, in sentences.
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
    """Makes a fairseq base model of M2M100's or NLLB-200's dense weights in Hugging Face's format.

    Args:
        folder: ``config.json``, weights (safetensors, or torch's files, which are read without running anything) and
            the tokenizer's files.
        out: where :data:`IMPORTED_FILES` are written.
        spm: the SentencePiece model, where the folder has none.
        overwrite: whether such files there may be replaced.
        added_languages: which tokens that were added to the tokenizer are languages; where None, those that are built
            like a language's code.

    Raises:
        UserError: the folder lacks a file or holds another kind of model, or something would be overwritten.
    """
    check_folder(out, IMPORTED_FILES, overwrite)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give one that transformers wrote, with config.json and weights")
    config = read_json(folder / "config.json")
    args = fairseq_args(config, str(folder / "config.json"))
    rows = config.get("vocab_size", 128112)
    if not isinstance(rows, int) or not 0 < rows < 2**31:
        raise UserError(f"{folder / 'config.json'}: vocab_size is {rows!r}; expected the number of embeddings")
    vocabulary = read_vocabulary(folder, rows, added_languages)
    spm = spm or sentencepiece_model(folder)
    with whole_folder(out, IMPORTED_FILES, overwrite) as partial:
        (partial / "dict.txt").write_text(vocabulary.dictionary(), encoding="utf-8")
        check_fit(spm, partial / "dict.txt")
        shutil.copyfile(spm, partial / SENTENCEPIECE)
        weights = read_tensors(folder, "model", "pytorch_model")
        args.langs = ",".join(vocabulary.languages)
        save_base(partial / "model.pt", to_fairseq(weights, args, vocabulary.order, str(folder)), args)
    return ImportedModel(out, vocabulary.languages, training_flags(args), vocabulary.remarks)


def save_base(path: Path, state: dict[str, Tensor], args: Namespace) -> None:
    """Writes a checkpoint that stock fairseq loads, to fine-tune from it or to generate with it.

    Args:
        path: the file.
        state: the model's entries.
        args: the arguments of its architecture; what they leave out has fairseq's defaults.
    """
    from fairseq.models.transformer.transformer_legacy import base_architecture

    args = Namespace(**vars(args))
    base_architecture(args)
    write_checkpoint(checkpoint_of(args, state), path)


def export_model(
    state: dict[str, Tensor],
    args: Namespace,
    out: Path,
    source: str,
    languages: tuple[str | None, str | None] = (None, None),
    tokenizer: tuple[Path, Path] | None = None,
    overwrite: bool = False,
) -> str | None:
    """Writes a model as a folder that plain ``transformers`` loads (``M2M100ForConditionalGeneration``).

    Every token keeps its id.

    Args:
        state: the model's entries without pairs, or with those of one direction merged into the weights.
        args: the arguments of the checkpoint.
        out: the folder.
        source: how to call the checkpoint in a message.
        languages: source and target language, which tokenizer and generation then have by default.
        tokenizer: the fairseq dictionary and the SentencePiece model; without them no tokenizer's files are written.
        overwrite: whether files there may be replaced.

    Returns:
        A remark on the tokenizer for the user, or None.

    Raises:
        UserError: Hugging Face's M2M100 has no such model, a language has no token, or something would be overwritten.
    """
    names = exported_files(tokenizer is not None)
    check_folder(out, names, overwrite)
    rows = state["encoder.embed_tokens.weight"].size(0) if "encoder.embed_tokens.weight" in state else 0
    config = huggingface_config(args, rows, source)
    tokens = None if tokenizer is None else check_tokenizer(*tokenizer, rows, languages, TokenOrder.of(Path(), args))
    generation: dict[str, Any] = {
        "bos_token_id": BOS,
        "pad_token_id": PAD,
        "eos_token_id": EOS,
        "decoder_start_token_id": EOS,
        "num_beams": 5,
        "max_length": 200,
        "early_stopping": True,  # as fairseq: after as many finished hypotheses as beams
        "suppress_tokens": [PAD],  # as fairseq
    }
    if tokens is not None and languages[1] is not None:
        generation["forced_bos_token_id"] = tokens.index(f"__{languages[1]}__")
    tensors = to_huggingface(state, args, source)
    config["dtype"] = str(tensors["model.shared.weight"].dtype).removeprefix("torch.")
    with whole_folder(out, names, overwrite) as partial:
        write_json(partial / "config.json", config)
        write_json(partial / "generation_config.json", generation)
        write_tensors(partial / "model.safetensors", tensors)
        return None if tokens is None else write_tokenizer(partial, tokens, tokenizer[1], languages)
