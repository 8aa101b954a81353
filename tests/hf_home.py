"""Folders as transformers and PEFT write them, of a model of random weights, and the checkpoints imported from them."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import sentencepiece
import torch
from safetensors.torch import save_file
from torch import Tensor

from langspec_lora.cli.main import main
from langspec_lora.convert.hf.config_json import fairseq_args
from langspec_lora.convert.hf.weights import weight_shapes

CONFIG = {
    "model_type": "m2m_100",
    "d_model": 6,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 5,
    "decoder_ffn_dim": 7,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 2,
}
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
LANGUAGES = ("en", "nl", "wo")
IMPORTED = ("model.pt", "dict.txt", "sentencepiece.bpe.model")
MODEL = ("config.json", "generation_config.json", "model.safetensors")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "sentencepiece.bpe.model")
LORA = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True)
class Home:
    """A model in both forms.

    Attributes:
        theirs: a folder as transformers writes it.
        ours: the folder that was imported from it, and beside it ``adapted.pt``, with the LoRA as adapters.
        lora: a LoRA on the model.
        tokens: all tokens by id.
        said: what the imports told the user.
    """

    theirs: Path
    ours: Path
    lora: Path
    tokens: list[str]
    said: str


def random_weights(rows: int) -> dict[str, Tensor]:
    torch.manual_seed(5)
    args = fairseq_args(CONFIG, "config.json")
    weights = {f"model.{name}": torch.randn(shape) for name, shape in weight_shapes(args)}
    return {"model.shared.weight": torch.randn(rows, 6), **weights}


def make_home(folder: Path) -> Home:
    """Writes the folders, and imports them."""
    theirs, ours, lora = folder / "theirs", folder / "ours", folder / "lora"
    theirs.mkdir()
    lora.mkdir()
    writer = io.BytesIO()
    line = f"abc bcd cde dea eab {' '.join('abcdefghijklmnopqrstuvwxyz')}"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line] * 5), model_writer=writer, vocab_size=70, minloglevel=2, hard_vocab_limit=False,
        normalization_rule_name="identity",
    )  # fmt: skip
    (theirs / "sentencepiece.bpe.model").write_bytes(writer.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=writer.getvalue())
    pieces = [processor.id_to_piece(number) for number in range(3, processor.get_piece_size())]
    tokens = [*SPECIALS, *pieces, *(f"__{name}__" for name in LANGUAGES), "gsw-BE", "word"]
    ids = {token: number for number, token in enumerate(tokens)}
    added = [{"content": token, "id": ids[token], "special": False} for token in ("gsw-BE", "word")]
    vocabulary = {token: ids[token] for token in tokens[:-2]}
    (theirs / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": added}))
    (theirs / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": len(tokens)}))
    save_file(random_weights(len(tokens)), theirs / "model.safetensors")
    name = "base_model.model.model.{}.layers.1.fc1.lora_{}.weight"
    pairs = {name.format(stack, "A"): torch.randn(2, 6) for stack in ("encoder", "decoder")}
    pairs |= {name.format(stack, "B"): torch.randn(size, 2) for stack, size in (("encoder", 5), ("decoder", 7))}
    save_file(pairs, lora / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": "theirs/model"}
    (lora / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.MonkeyPatch.context() as patch:
        said = io.StringIO()
        patch.setattr("sys.stderr", said)
        assert main(["import", str(theirs), "--from", "huggingface", "--out", str(ours)]) == 0
        base = ("--base", str(ours / "model.pt"), "--out", str(ours / "adapted.pt"))
        directions = ("--encoder-activation-direction", "tgt_src", "--decoder-activation-direction", "tgt_tgt")
        assert main(["import", str(lora), "--from", "peft", "-s", "en", "-t", "wo", *base, *directions]) == 0
    tokens[-2] = "__gsw_BE__"
    return Home(theirs, ours, lora, tokens, said.getvalue())


def state_of(path: Path) -> dict[str, Tensor]:
    return torch.load(path, weights_only=False)["model"]


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
