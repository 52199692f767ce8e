"""Learning rates against their formulas, written out; optimisers against their settings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from autoseg.config.training import LrScheduleConfig, OptimizerConfig, RetrainSchedule
from autoseg.engine.optim import build_optimizer, learning_rate, set_learning_rate

STEPS, PER_EPOCH = 40, 8


def lrs(**schedule: Any) -> list[float]:
    config = LrScheduleConfig(**schedule)
    return [learning_rate(0.1, config, step, STEPS, PER_EPOCH) for step in range(STEPS)]


def test_poly() -> None:
    assert lrs(name="poly", power=0.9) == pytest.approx([0.1 * (1 - step / 40) ** 0.9 for step in range(STEPS)])


def test_cosine_ends_at_the_least_rate() -> None:
    expected = [0.01 + 0.09 * 0.5 * (1 + math.cos(math.pi * step / 40)) for step in range(STEPS)]
    assert lrs(name="cosine", min_lr=0.01) == pytest.approx(expected)


@pytest.mark.parametrize("epochs", [1, 1.5])
def test_warmup_is_a_straight_line_and_the_rest_starts_after_it(epochs: float) -> None:
    warm = round(epochs * PER_EPOCH)
    expected = [0.1 * (step + 1) / warm for step in range(warm)]
    expected += [0.1 * (1 - (step - warm) / (STEPS - warm)) ** 2 for step in range(warm, STEPS)]
    assert lrs(name="poly", power=2, warmup_epochs=epochs) == pytest.approx(expected)
    assert max(expected) == pytest.approx(0.1)


def test_constant() -> None:
    assert lrs(name="constant", warmup_epochs=0.25) == pytest.approx([0.05] + [0.1] * 39)


def test_a_warmup_longer_than_the_run_and_a_least_rate_above_the_rate() -> None:
    assert lrs(name="cosine", warmup_epochs=100) == pytest.approx([0.1 * (step + 1) / 40 for step in range(STEPS)])
    assert lrs(name="cosine", min_lr=0.5) == pytest.approx([0.1] * STEPS)


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_build_optimizer(name: str, kind: type[torch.optim.Optimizer]) -> None:
    config = OptimizerConfig(name=name, lr=0.3, momentum=0.8, betas=(0.5, 0.9), weight_decay=0.02, nesterov=True)
    optimizer = build_optimizer(config, nn.Linear(2, 2).parameters())
    assert type(optimizer) is kind
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.02)
    if name == "sgd":
        assert (group["momentum"], group["nesterov"]) == (0.8, True)
    else:
        assert group["betas"] == (0.5, 0.9)
    schedule = RetrainSchedule(epochs=5, optimizer=config, schedule=LrScheduleConfig(name="poly", power=1))
    assert set_learning_rate(optimizer, schedule, 10, PER_EPOCH) == pytest.approx(0.3 * (1 - 10 / STEPS))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.3 * (1 - 10 / STEPS)])


def test_sgd_step_is_the_formula() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = build_optimizer(OptimizerConfig(name="sgd", lr=0.1, momentum=0.5, weight_decay=0.01), [weight])
    expected, velocity = weight.detach().clone(), torch.zeros(2, dtype=torch.float64)
    for gradient in (torch.tensor([0.3, 0.7]).double(), torch.tensor([-1.0, 2.0]).double()):
        weight.grad = gradient.clone()
        optimizer.step()
        velocity = 0.5 * velocity + gradient + 0.01 * expected
        expected = expected - 0.1 * velocity
    assert torch.allclose(weight.detach(), expected, rtol=0, atol=1e-15)
