"""Directions are learned rightly where the right answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from langspec_lora.lora import adapter_parameters, inject, mark_trainable

LANGUAGES, WIDTH = 3, 8


def examples(draw: torch.Generator, base: nn.Sequential, jobs: tuple[str, str]) -> tuple[torch.Tensor, ...]:
    """Inputs, languages and what a model must compute whose two layers change with the source or the target language.

    Between the layers is a ReLU, so that neither layer can do the work of the other.
    """
    changes = torch.randn(2, LANGUAGES, WIDTH, WIDTH, generator=draw) / 2
    source, target = (torch.randint(0, LANGUAGES, (96,), generator=draw) for _ in range(2))
    hidden = torch.randn(4, 96, WIDTH, generator=draw)
    x = hidden
    for layer, (linear, job) in enumerate(zip((base[0], base[2]), jobs, strict=True)):
        weights = linear.weight + changes[layer][source if job == "src" else target]  # (batch, out, in)
        hidden = torch.einsum("tbi,boi->tbo", hidden, weights) + linear.bias
        hidden = hidden.relu() if layer == 0 else hidden
    return x, source, target, hidden.detach()


@pytest.mark.parametrize("jobs", [("src", "tgt"), ("tgt", "src"), ("src", "src"), ("tgt", "tgt")], ids="-".join)
def test_each_layer_finds_the_side_that_its_job_depends_on(jobs) -> None:
    draw = torch.Generator().manual_seed(7)
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
    x, source, target, expected = examples(draw, model, jobs)
    routing = inject(model, {"0": "learned", "2": "learned"}, [WIDTH] * LANGUAGES)
    mark_trainable(model)
    routing.mixture.logits.requires_grad_()
    optimizer = torch.optim.Adam(adapter_parameters(model), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        routing.set_batch(source, target)
        (model(x) - expected).square().mean().backward()
        optimizer.step()
    weights = routing.mixture.weights()
    assert ["src" if own[0] > own[1] else "tgt" for own in weights.tolist()] == list(jobs)
    assert weights.max(1).values.min() > 0.6
