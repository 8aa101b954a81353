"""Models, ranks and batches for the benchmark: random, with published shapes, and collated as fairseq does."""

from __future__ import annotations

import json
import random
from argparse import Namespace
from dataclasses import dataclass
from functools import cache

import torch
from fairseq import options
from fairseq.data import Dictionary, data_utils
from torch import Tensor

from langspec_lora.models.transformer import LanguageSpecificTransformer
from langspec_lora.sizes import M2M100, Size
from langspec_lora.tasks import translation  # noqa: F401  (registers task, model and architectures)

SHORTEST, LONGEST = 18, 42
"""Least and greatest number of tokens of a random sentence: about the range of FLORES sentences."""


@dataclass(frozen=True)
class Shape:
    """Size of the model and of a batch.

    Attributes:
        size: size of encoder and decoder.
        vocabulary: number of entries in the dictionary.
        tokens: number of target tokens per batch, including padding.
    """

    size: Size
    vocabulary: int
    tokens: int


SHAPES = {
    "tiny": Shape(Size(layers=2, width=64, ffn=128, heads=4), vocabulary=500, tokens=300),
    "small": Shape(Size(layers=1, width=1024, ffn=4096), vocabulary=21_350, tokens=1000),
    "615m": Shape(M2M100["langspec_m2m100_lora_base"], vocabulary=256_206, tokens=4000),
}
"""``615m`` is M2M100 615M. ``small`` has its width, a twelfth of its layers and a twelfth of its dictionary, so the
proportions are the same. ``tiny`` is only for testing that everything runs."""


@dataclass(frozen=True)
class Ranks:
    """Ranks of high-, medium- and low-resource languages; each level has a third of the languages."""

    high: int
    med: int
    low: int

    def of(self, languages: int) -> tuple[int, ...]:
        """The rank of each language, for a number of languages."""
        return tuple((self.high, self.med, self.low)[number * 3 // languages] for number in range(languages))

    def mean(self, languages: int) -> int:
        """The mean rank, rounded."""
        return round(sum(self.of(languages)) / languages)

    def __str__(self) -> str:
        return f"{self.high}/{self.med}/{self.low}"


def build_model(
    shape: Shape, ranks: tuple[int, ...] | None, device: torch.device | str = "cpu"
) -> LanguageSpecificTransformer:
    """Builds a random model with the published placement of adapters.

    Args:
        shape: the size of the model.
        ranks: the rank of each language; None for the plain model, in which all weights train.
        device: the device to build it on; a GPU draws 615M weights much faster than a CPU.
    """
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in shape.size.arguments().items()]
    flags += [
        "--share-all-embeddings",
        "--share-decoder-input-output-embed",
        "--dropout=0.1",
        f"--dim={shape.size.width}",
    ]
    flags += [f"--add-lora={ranks is not None}", "--arch=langspec_m2m100_lora_base", "."]
    parser = options.get_training_parser(default_task="translation_multi_simple_epoch_lora")
    args = options.parse_args_and_arch(parser, flags)
    if ranks is not None:
        names = [f"l{number}" for number in range(len(ranks))]
        args.adapter_languages = json.dumps({"names": names, "levels": ["low"] * len(ranks), "ranks": ranks})
    torch.manual_seed(1)
    with torch.device(device):
        return LanguageSpecificTransformer.build_model(args, dictionaries(shape))


@cache
def dictionaries(shape: Shape) -> Namespace:
    """The parts of a task that a model and a criterion need."""
    dictionary = Dictionary()
    dictionary.symbols += [f"w{number}" for number in range(shape.vocabulary - len(dictionary))]
    dictionary.indices = {symbol: index for index, symbol in enumerate(dictionary.symbols)}
    dictionary.count = [1] * len(dictionary.symbols)
    return Namespace(source_dictionary=dictionary, target_dictionary=dictionary)


def make_batch(shape: Shape, languages: int, mixed: bool, seed: int, device: torch.device) -> dict:
    """A batch of random sentences, as ``LanguageSpecificTranslationTask`` passes it to the model.

    Args:
        shape: the vocabulary and the number of tokens.
        languages: the number of languages.
        mixed: whether each sentence has its own direction; otherwise all have the same.
        seed: the random seed.
        device: the device of the batch.
    """
    draw = random.Random(seed)
    lengths: list[int] = []
    while (len(lengths) + 1) * LONGEST <= shape.tokens:
        lengths.append(draw.randint(SHORTEST, LONGEST))
    lengths.sort(reverse=True)
    generator = torch.Generator().manual_seed(seed)

    def sentences(left_pad: bool) -> Tensor:
        rows = [torch.randint(4, shape.vocabulary, (length,), generator=generator) for length in lengths]
        return data_utils.collate_tokens(rows, pad_idx=1, eos_idx=2, left_pad=left_pad)

    target = sentences(left_pad=False)
    previous = target.roll(1, 1)
    previous[:, 0] = 2  # fairseq starts with the end of a sentence
    previous[target.eq(1)] = 1
    ids = [torch.tensor([draw.randrange(languages) for _ in lengths]) for _ in range(2)]
    source_id, target_id = (side if mixed else side[:1] for side in ids)
    net_input = {
        "src_tokens": sentences(left_pad=True),
        "src_lengths": torch.tensor(lengths),
        "prev_output_tokens": previous,
        "src_lang_id": source_id,
        "tgt_lang_id": target_id,
    }
    return {
        "languages": tuple(tuple(sorted(set(side.tolist()))) for side in (source_id, target_id)),
        "net_input": {name: value.to(device) for name, value in net_input.items()},
        "target": target.to(device),
        "ntokens": int(target.ne(1).sum()),
        "nsentences": len(lengths),
    }
