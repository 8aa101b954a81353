"""LoRA+, a higher learning rate for B, is a constant factor of the product: two trainings that stay equal."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests import toy

RATIO, RATE, EPS, DECAY, UPDATES = 16.0, 1e-3, 1e-8, 0.1, 15


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW], ids=["no decay", "decay"])
def test_b_at_a_multiple_of_the_learning_rate_is_the_product_times_that_multiple(toy_data, optimizer) -> None:
    decay = DECAY if optimizer is torch.optim.AdamW else 0.0
    updates, losses = [], []
    for scaled in (True, False):
        more = ("--lora-alpha", str(RATIO), "--lora-scaling", "constant") if scaled else ()
        task, model = toy.build(toy.plugin_flags(toy_data, *more))
        model.double().train()
        linears = model.adapters.linears.values()
        ratio = 1.0 if scaled else RATIO
        steps = optimizer(
            [
                {"params": [linear.lora_A for linear in linears]},
                {
                    "params": [linear.lora_B for linear in linears],
                    # Adam divides by √v + ε, and the scaled B has a gradient that is larger by the ratio.
                    **{"lr": RATE * ratio, "eps": EPS / ratio, "weight_decay": decay / ratio},
                },
            ],
            lr=RATE,
            eps=EPS,
            weight_decay=decay,
        )
        batch = toy.mixed_batch(task)
        for _ in range(UPDATES):
            steps.zero_grad()
            loss = cross_entropy(toy.forward(model, batch).flatten(0, 1), batch["target"].view(-1), ignore_index=1)
            loss.backward()
            steps.step()
        factor = RATIO if scaled else 1.0
        updates.append([value.detach() for linear in linears for value in (linear.lora_A, factor * linear.lora_B)])
        losses.append(float(loss))
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    for own, other in zip(*updates, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-9)
    assert all(b.abs().max() > RATE for b in updates[0][1::2])  # they have trained
