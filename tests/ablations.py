"""Ablations by hand: stock fairseq and its criterion, one sentence at a time, with adapters changed in a copy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.data import Dictionary
from torch import nn

from langspec_lora.ablation.options import AblationOptions
from langspec_lora.inference.model_spec import ModelSpec
from tests import toy
from tests.bad_input import write_checkpoint

SENTENCES = 3
SEED = 8
"""One with which random adapters gain something by chance."""

CHOSEN = (2, 6, 10)
"""The middles of three sections of the twelve sentences of the split."""


def fill(state: dict) -> None:
    """Draws all B, and the weights of learned directions."""
    for name, value in state["model"].items():
        if name.endswith(("lora_B", "mixture.logits")):
            value.normal_(generator=torch.Generator().manual_seed(len(name) + SEED), std=0.3)


def checkpoint(path: Path, flags: list[str], change: Callable[[dict], None] = lambda state: None) -> Path:
    """A checkpoint whose adapters matter, changed by hand."""

    def write(state: dict) -> None:
        fill(state)
        change(state)

    return write_checkpoint(path, flags, write)


def options(path: Path, data: Path, **more: object) -> AblationOptions:
    """What to leave out, on a CPU."""
    settings = {"sentences": SENTENCES, "langs": ("en", "fr", "wo"), **more}
    return AblationOptions(data, ModelSpec((path,), device="cpu"), **settings)


class ByHand:
    """The stock Transformer with the adapters of one direction merged, and what is left out by hand.

    Args:
        path: the checkpoint.
        data: the toy data.
        flags: the flags that the checkpoint's model was built from.
        key_of: see :class:`tests.toy.PerLanguageReference`.
        ranks_of: likewise.
    """

    def __init__(self, path: Path, data: Path, flags: list[str], **more: object) -> None:
        self.data = data
        self.task, self.model = toy.build(flags)
        state = torch.load(path, weights_only=False)["model"]
        nn.Module.load_state_dict(self.model, state, strict=False)
        self.reference = toy.PerLanguageReference(self.task, self.model, flags, **more).train(False)
        self.key_of, self.adapters = self.reference.key_of, dict(self.reference.sites)
        self.known: dict[str, float] = {}
        self.dictionary = Dictionary.load(str(data.parent / "dict.txt"))
        for name in toy.LANGUAGES:
            self.dictionary.add_symbol(f"__{name}__")

    def full(self, pair: str) -> float:
        """The loss with all adapters."""
        if pair not in self.known:
            self.known[pair] = self.bits(pair)
        return self.known[pair]

    def bits(
        self,
        pair: str,
        left_out: Callable[[object, str, int], bool] = lambda site, side, key: False,
        key_of: Callable | None = None,
    ) -> float:
        """The loss of a direction in bits per token, from fairseq's criterion without label smoothing.

        Args:
            pair: the direction.
            left_out: whether the adapter of a key is zeroed at a site.
            key_of: which adapter a side selects, if another than usual.
        """
        reference = self.reference
        reference.key_of = key_of or self.key_of
        for path, (site, side, part, adapters) in self.adapters.items():
            zeroed = [(a, b * (not left_out(site, side, key))) for key, (a, b) in enumerate(adapters)]
            reference.sites[path] = (site, side, part, zeroed)
        source, target = pair.split("-")
        merged = reference.merged(toy.LANGUAGES.index(source), toy.LANGUAGES.index(target))
        stock = reference.stock
        stock.load_state_dict({**stock.state_dict(), **{name: value.detach() for name, value in merged.items()}})
        criterion = LabelSmoothedCrossEntropyCriterion(self.task, False, 0.0, ignore_prefix_size=1)
        total = tokens = 0.0
        for sample in self._samples(source, target):
            with torch.no_grad():
                total += float(criterion(stock, sample)[2]["nll_loss"])
            tokens += sample["target"].numel() - 1
        return total / tokens / math.log(2)

    def _samples(self, source: str, target: str) -> Sequence[dict]:
        """Batches of one sentence each, put together from the text."""
        lines = [(self.data.parent / f"valid.{name}").read_text().splitlines() for name in (source, target)]
        samples = []
        for number in CHOSEN:
            tokens = [
                [self.dictionary.index(f"__{name}__"), *map(self.dictionary.index, text[number].split()), 2]
                for name, text in zip((source, target), lines, strict=True)
            ]
            inputs = {
                "src_tokens": torch.tensor([tokens[0]]),
                "src_lengths": torch.tensor([len(tokens[0])]),
                "prev_output_tokens": torch.tensor([[2, *tokens[1][:-1]]]),
            }
            samples.append({"net_input": inputs, "target": torch.tensor([tokens[1]]), "ntokens": len(tokens[1])})
        return samples
