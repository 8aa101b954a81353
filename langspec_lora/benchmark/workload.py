"""Models, ranks and batches for the benchmark: random, with published shapes, and collated as fairseq does."""

from __future__ import annotations

import json
import random
from argparse import Namespace
from dataclasses import dataclass
from functools import cache

import torch
from fairseq import options, utils
from fairseq.data import Dictionary
from fairseq.data.language_pair_dataset import collate

from langspec_lora.models.transformer import LanguageSpecificTransformer
from langspec_lora.sizes import M2M100, Size
from langspec_lora.tasks import translation  # noqa: F401  (registers task, model and architectures)

SHORTEST, LONGEST = 18, 42
"""Least and greatest number of tokens of a random sentence: about the range of FLORES sentences."""


@dataclass(frozen=True)
class Shape:
    """Size of the model and of a batch.

    Attributes:
        name: in ``--shape``.
        size: of encoder and decoder.
        vocabulary: entries of the dictionary.
        tokens: target tokens in a batch, padding included.
    """

    name: str
    size: Size
    vocabulary: int
    tokens: int


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("tiny", Size(layers=2, width=64, ffn=128, heads=4), vocabulary=500, tokens=300),
        Shape("small", Size(layers=1, width=1024, ffn=4096), vocabulary=21_350, tokens=1000),
        Shape("615m", M2M100["langspec_m2m100_lora_base"], vocabulary=256_206, tokens=4000),
    )
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

    def __str__(self) -> str:
        return f"{self.high}/{self.med}/{self.low}"


PAPER = Ranks(2, 2, 8)


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
    flags += ["--share-all-embeddings", "--share-decoder-input-output-embed", "--dropout=0.1"]
    flags += [f"--dim={shape.size.width}", f"--add-lora={ranks is not None}", "--arch=langspec_m2m100_lora_base", "."]
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
    for number in range(shape.vocabulary - len(dictionary)):
        dictionary.add_symbol(f"w{number}")
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
    lengths = sorted((draw.randint(SHORTEST, LONGEST) for _ in range(shape.tokens // LONGEST)), reverse=True)
    generator = torch.Generator().manual_seed(seed)
    targets, sources = (
        [torch.randint(4, shape.vocabulary, (length,), generator=generator) for length in lengths] for _ in range(2)
    )
    samples = [
        {"id": number, "source": source, "target": target}
        for number, (source, target) in enumerate(zip(sources, targets, strict=True))
    ]
    batch = collate(samples, pad_idx=1, eos_idx=2)
    for side in ("src", "tgt"):
        ids = torch.tensor([draw.randrange(languages) for _ in lengths])
        batch["net_input"][f"{side}_lang_id"] = ids if mixed else ids[:1]
    batch = utils.apply_to_sample(lambda tensor: tensor.to(device), batch)
    sources, targets = (batch["net_input"][f"{side}_lang_id"].tolist() for side in ("src", "tgt"))
    return {**batch, "directions": tuple(sorted(set(zip(sources, targets, strict=True))))}
