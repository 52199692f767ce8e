"""New BatchNorm statistics, a shortened schedule, and differences paired by image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.supernets import supernet_of
from helpers.upsampling_spaces import SPACES
from torch import Tensor, nn

from autoseg.config.training import RetrainSchedule
from autoseg.engine.gap import Rung, difference, shortened, take_statistics
from autoseg.metrics.confusion import Scores, miou_difference_interval, miou_interval
from autoseg.supernet.fast.mixed_op import StackedNorm


def batches(number: int = 4, side: int = 33) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(2, 3, side, side, dtype=torch.float64, generator=generator) * (n + 1) for n in range(number)]


@pytest.mark.parametrize("momentum", [0.1, 3e-4])
def test_new_statistics_are_the_means_over_all_batches(momentum: float) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=momentum), nn.Dropout(0.5), nn.BatchNorm2d(4)
    )
    network.double()[1].running_mean.fill_(1e6)  # type: ignore[operator, union-attr]
    assert take_statistics(network, batches()) == 8
    assert not any(part.training for part in network.modules())
    features = [network[0](batch).detach() for batch in batches()]
    mean = torch.stack([of.mean((0, 2, 3)) for of in features]).mean(0)
    var = torch.stack([of.var((0, 2, 3)) for of in features]).mean(0)
    torch.testing.assert_close(network[1].running_mean, mean)
    torch.testing.assert_close(network[1].running_var, var)
    assert float(network[3].running_mean.abs().max()) < 1e-9  # type: ignore[union-attr, operator]  # of normalised ones


def test_new_statistics_of_a_supernet() -> None:
    """They do not depend on those before, nor on the order of the batches."""
    first, second = supernet_of(SPACES["skips"]), supernet_of(SPACES["skips"])
    for norm in (part for part in second.modules() if isinstance(part, StackedNorm)):
        norm.running_mean.fill_(7)
    assert take_statistics(first, batches(2)) == take_statistics(second, batches(2)[::-1]) == 4
    for (name, one), (_, other) in zip(first.named_buffers(), second.named_buffers(), strict=True):
        torch.testing.assert_close(one, other, msg=name)
    norm = next(part for part in first.modules() if isinstance(part, StackedNorm))
    assert bool((norm.running_var != 1).all())


@pytest.mark.parametrize(
    ("per_epoch", "steps", "epochs", "each", "warmup"),
    [
        (10, None, 3, 10, 0.15),  # 600 steps / 20
        (10, 4, 1, 4, 0.05),
        (10, 25, 3, 9, 0.15),
        (1, 7, 7, 1, 0.35),
    ],
)
def test_a_shortened_schedule(per_epoch: int, steps: int | None, epochs: int, each: int, warmup: float) -> None:
    """The warm-up keeps its share of all steps, a twentieth of three of 60 epochs; the rest stays."""
    schedule: dict[str, Any] = {"epochs": 60, "schedule": {"name": "poly", "warmup_epochs": 3}, "crop": [64, 64]}
    whole = RetrainSchedule.model_validate(schedule)
    short = shortened(whole, per_epoch, steps)
    assert (short.epochs, short.max_steps_per_epoch) == (epochs, each)
    assert short.schedule.warmup_epochs == pytest.approx(warmup)
    unchanged = {"epochs": 60, "max_steps_per_epoch": None, "schedule": whole.schedule}
    assert short.model_copy(update=unchanged) == whole


def counts(seed: int, hits: float, images: int = 40) -> np.ndarray:
    """(N, 3, 2): images of two classes, whose shares differ from image to image."""
    rng = np.random.default_rng(seed)
    true = rng.integers(100, 900, (images, 1)) * [1, 0] + [0, 1000]
    right = (true * np.clip(rng.normal(hits, 0.15, (images, 1)), 0, 1)).astype(int)
    found = right + (true - right)[:, ::-1]
    return np.stack([right, true, found], 1)


def rung(name: str, images: np.ndarray) -> Rung:
    right, true, found = images.sum(0)
    confusion = np.diag(right)
    confusion[0, 1], confusion[1, 0] = (true - right)[0], (true - right)[1]
    assert (confusion.sum(0) == found).all()
    return Rung(name, name, Scores(confusion, ("a", "b"), images))


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    before = counts(0, 0.6)
    after = before.copy()
    gained = (before[:, 1] - before[:, 0]) // 10  # every image gets a tenth of its errors right
    after[:, 0] += gained
    after[:, 2] += gained - gained[:, ::-1]
    found = difference(rung("a", before), rung("b", after))
    low, high = miou_difference_interval(before, after)  # type: ignore[misc]
    assert found["interval"] == [low, high]
    assert low < found["difference"] < high
    assert found["seen"] is True
    one, other = miou_interval(before), miou_interval(after)
    assert one is not None
    assert other is not None
    assert one[1] > other[0]  # which overlap
    assert high - low < (one[1] - one[0]) / 3


def test_no_difference_is_not_seen() -> None:
    before = counts(0, 0.6)
    same = difference(rung("a", before), rung("b", before))
    assert (same["difference"], same["interval"], same["seen"]) == (0, [0, 0], False)
    shuffled = difference(rung("a", before), rung("b", before[np.random.default_rng(0).permutation(40)]))
    assert shuffled["difference"] == 0
    assert shuffled["interval"][0] < 0 < shuffled["interval"][1]
    alone = difference(rung("a", before[:1]), rung("b", before[:1]))
    assert (alone["interval"], alone["seen"]) == (None, None)
    with pytest.raises(ValueError, match="paired"):
        miou_difference_interval(before, before[1:])
