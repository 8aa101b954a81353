"""Random M2M100 models that ``transformers`` itself builds and saves, and the same models in fairseq."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from langspec_lora.convert.hf.model import import_model
from langspec_lora.data.binarise import binarise, multi_parallel
from langspec_lora.data.vocabulary import train_sentencepiece
from tests import toy
from tests.optional import hugging_face

transformers = hugging_face("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

SIZES = {
    "even": {"d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48},
    "uneven": {
        "d_model": 24,
        "encoder_layers": 4,
        "decoder_layers": 3,
        "encoder_ffn_dim": 40,
        "decoder_ffn_dim": 20,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 3,
        "activation_function": "gelu",
    },
    "unscaled": {"d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 64, "scale_embedding": False},
}
"""Settings of M2M100Config; what they leave out is two layers and two heads."""

DEFAULTS = {f"{stack}_{name}": 2 for stack in ("encoder", "decoder") for name in ("layers", "attention_heads")}


def write_tokenizer(folder: Path, text: Path) -> int:
    """Writes ``vocab.json``, the SentencePiece model and settings, as the real M2M100 has them.

    Returns:
        The number of embeddings: the vocabulary, the tokenizer's hundred languages, and eight that nothing uses.
    """
    import sentencepiece

    lines = [line for path in sorted(text.glob("train.*")) for line in path.read_text().splitlines()]
    (folder / "sentencepiece.bpe.model").write_bytes(train_sentencepiece(lines, 90))
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.bpe.model"))
    pieces = [model.id_to_piece(number) for number in range(3, model.get_piece_size())]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *pieces]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "M2M100Tokenizer"}))
    return len(tokens) + 100 + 8


def random_model(size: str, rows: int, steps: int = 150) -> nn.Module:
    """A model that has begun to copy short sentences of one repeated id, so that hypotheses differ, and end."""
    config = transformers.M2M100Config(
        vocab_size=rows, dropout=0, attention_dropout=0, decoder_layerdrop=0, **{**DEFAULTS, **SIZES[size]}
    )
    torch.manual_seed(5)
    model = transformers.M2M100ForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "layer_norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(steps):
        words = torch.randint(4, rows - 108, (24, 1)).repeat(1, 9)
        words[torch.arange(9) > torch.randint(1, 9, (24, 1))] = 1
        languages = torch.randint(rows - 108, rows - 8, (24, 2))
        words = torch.cat([words, torch.ones(24, 1, dtype=torch.int64)], 1)
        words[torch.arange(24), words.ne(1).sum(1)] = 2
        source, target = (torch.cat([languages[:, side : side + 1], words], 1) for side in (0, 1))
        loss = model(input_ids=source, attention_mask=source.ne(1).long(), labels=target.masked_fill(target == 1, -100))
        optimizer.zero_grad()
        loss.loss.backward()
        optimizer.step()
    return model.eval()


@dataclass(frozen=True)
class Home:
    """A random model on both sides.

    Attributes:
        huggingface: the folder that transformers wrote.
        fairseq: the folder that was imported from it.
        data: text of the toy languages, binarised with the imported dictionary.
        flags: what the training command takes for this size.
    """

    huggingface: Path
    fairseq: Path
    data: Path
    flags: tuple[str, ...]


def write_home(folder: Path, size: str) -> Home:
    """Writes a random model, imports it, and binarises the toy languages for it."""
    text, huggingface, fairseq = folder / "text", folder / "hf", folder / "fairseq"
    text.mkdir(parents=True)
    toy.write_text(text)
    (text / "levels.yaml").write_text(toy.LEVELS)
    huggingface.mkdir()
    rows = write_tokenizer(huggingface, text)
    random_model(size, rows).save_pretrained(huggingface)
    imported = import_model(huggingface, fairseq)
    files = {split: {name: text / f"{split}.{name}" for name in toy.LANGUAGES} for split in toy.SIZES}
    bitexts = [bitext for split in files for bitext in multi_parallel(split, files[split])]
    spm = fairseq / "sentencepiece.bpe.model"
    binarise(bitexts, fairseq / "dict.txt", text / "data-bin", spm_model=spm)
    return Home(huggingface, fairseq, text / "data-bin", tuple(imported.flags.split()))


def adapted_flags(home: Home, *more: str) -> list[str]:
    """Flags of a training command that adapts the imported model; ranks differ by level."""
    return [
        str(home.data),
        *("--langs", ",".join(toy.LANGUAGES), "--lang-pairs", ",".join(toy.PAIRS)),
        *("--encoder-langtok", "src", "--decoder-langtok", "--fixed-dictionary", str(home.fairseq / "dict.txt")),
        *("--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.2", "--max-tokens", "400"),
        *("--task", "translation_multi_simple_epoch_lora", *home.flags, "--dropout", "0"),
        *("--share-all-embeddings", "--share-decoder-input-output-embed"),
        *("--lang-resources", str(home.data.parent / "levels.yaml")),
        *("--high-rank", "2", "--med-rank", "3", "--low-rank", "4"),
        *more,
    ]


def language_token(home: Home, language: str) -> int:
    """A language token's id, counted by hand in the imported dictionary, after its four special symbols."""
    lines = (home.fairseq / "dict.txt").read_text().split("\n")
    return 4 + lines.index(f"__{language}__ 1")


@dataclass(frozen=True)
class Batch:
    """Sentences of random ids, as each side takes them.

    Attributes:
        left: sources with padding before them, as fairseq has it, ``(batch, src_len)``.
        right: sources with padding after them.
        lengths: of the sources, ``(batch,)``.
        targets: what the decoder reads, ``</s> __xx__ …``, ``(batch, tgt_len)``.
    """

    left: Tensor
    right: Tensor
    lengths: Tensor
    targets: Tensor


def random_batch(source: int, target: int, vocabulary: int, sentences: int = 7) -> Batch:
    """Draws sentences of different lengths.

    Args:
        source: the source language's token.
        target: the target language's token.
        vocabulary: ids below this one are drawn.
        sentences: how many.
    """
    torch.manual_seed(3)
    sources = [
        torch.cat([torch.tensor([source]), torch.randint(4, vocabulary, (1 + number % 8,)), torch.tensor([2])])
        for number in range(sentences)
    ]
    targets = [
        torch.cat([torch.tensor([2, target]), torch.randint(4, vocabulary, (8 - number % 8,))])
        for number in range(sentences)
    ]
    pad = nn.utils.rnn.pad_sequence
    left = pad([line.flip(0) for line in sources], True, 1).flip(1)
    lengths = torch.tensor([len(line) for line in sources])
    return Batch(left, pad(sources, True, 1), lengths, pad(targets, True, 1))
