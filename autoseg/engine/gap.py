"""The steps between a search and a trained network, each to be measured: what is lost where."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from autoseg.config.training import RetrainSchedule
from autoseg.engine.checkpoint import fitting, load_last
from autoseg.engine.config import SearchConfig
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.run_directory import Run
from autoseg.errors import RunError
from autoseg.metrics.confusion import Scores, miou_difference_interval, plain
from autoseg.supernet import Supernet, build_supernet
from autoseg.supernet.fast.mixed_op import BN_MOMENTUM, StackedNorm

_log = logging.getLogger(__name__)

TUNING_SHARE = 1 / 20
"""Share of the recommended retraining's steps that tune the inherited weights."""


class Rung(NamedTuple):
    """A network on the way from the relaxed one to the retrained one, and its scores on the validation images."""

    name: str
    what: str
    scores: Scores

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        interval = self.scores.miou_interval
        return {
            "name": self.name,
            "what": self.what,
            "miou": plain(self.scores.miou),
            "miou_interval": None if interval is None else list(interval),
        }


def difference(before: Rung, after: Rung) -> dict[str, Any]:
    """The change of mIoU between two networks on the same images, with its interval, as plain data for JSON.

    `seen`: the interval does not hold 0; None without an interval.
    """
    counts = [of.scores.images for of in (before, after)]
    interval = None if counts[0] is None or counts[1] is None else miou_difference_interval(counts[0], counts[1])
    return {
        "from": before.name,
        "to": after.name,
        "difference": plain(after.scores.miou - before.scores.miou),
        "interval": None if interval is None else list(interval),
        "seen": None if interval is None else not interval[0] <= 0 <= interval[1],
    }


def load_supernet(run: Run, config: SearchConfig) -> tuple[Supernet, dict[str, Any]]:
    """The supernet of a search on the CPU with its last weights, and the checkpoint without its state.

    Raises: RunError, CheckpointError: the run holds no search, or no usable checkpoint.
    """
    space, data, schedule = config.space, config.data, config.search
    if where := run.diverged:
        _log.warning(f"{run.path} diverged at {where}; these are the weights saved before")
    path, saved = load_last(run.checkpoints, "search", space.to_dict(), schedule.keep_checkpoints)
    supernet = build_supernet(space, data.num_classes, 0.0, data.channels, schedule.single_output)
    with fitting(path):
        supernet.load_state_dict(saved["state"]["supernet"])
    return supernet, {"file": path.name, **{key: value for key, value in saved.items() if key != "state"}}


@torch.no_grad()
def take_statistics(network: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replace BatchNorm's running statistics by their means over some batches of images (N, C, H, W), all alike.

    Dropout and drop path are off. The network is left in evaluation mode. Returns the number of images.
    """
    network.eval()
    shares: list[tuple[Tensor, float]] = []
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d | StackedNorm):
            norm.train()
            momentum = BN_MOMENTUM if isinstance(norm, StackedNorm) else norm.momentum or 1.0
            shares += [(of, momentum) for of in (norm.running_mean, norm.running_var) if of is not None]
    sums, counts = [torch.zeros_like(statistic) for statistic, _ in shares], list[int]()
    for batch in batches:
        for statistic, _ in shares:
            statistic.zero_()  # then a batch leaves its own statistics times the momentum
        network(batch)
        for total, (statistic, momentum) in zip(sums, shares, strict=True):
            total.add_(statistic / momentum)
        counts.append(len(batch))
    for total, (statistic, _) in zip(sums, shares, strict=True):
        statistic.copy_(total / max(1, len(counts)))
    network.eval()
    return sum(counts)


def shortened(schedule: RetrainSchedule, steps_per_epoch: int, steps: int | None) -> RetrainSchedule:
    """A schedule with its curve and warm-up squeezed into about `steps` steps (default: `TUNING_SHARE` of its own).

    Whole epochs of equal length make them, so there are up to one step an epoch more.
    """
    whole = schedule.epochs * steps_per_epoch
    wanted = max(1, round(whole * TUNING_SHARE)) if steps is None else steps
    epochs = math.ceil(wanted / steps_per_epoch)
    each = math.ceil(wanted / epochs)
    warmup = schedule.schedule.warmup_epochs * steps_per_epoch / whole * epochs
    curve = schedule.schedule.model_copy(update={"warmup_epochs": warmup})
    return schedule.model_copy(update={"epochs": epochs, "max_steps_per_epoch": each, "schedule": curve})


def train_all(task: RetrainTask, progress: Callable[[int, int], None]) -> int:
    """Do all steps of a task without a run directory; returns their number. Raises: RunError: the weights diverge.

    progress: called with the number of steps done and the number of all.
    """
    done, epochs = 0, task.schedule.epochs
    for epoch in range(epochs):
        for batches in task.batches(epoch, 0):
            task.step(batches, epoch, done)
            done += 1
            progress(done, epochs * task.steps_per_epoch)
    if not all(bool(value.isfinite().all()) for value in task.trained.state_dict().values()):
        raise RunError(
            "the weights are no longer finite after the tuning; give the genotype's `retrain` a lower optimizer.lr",
            code="loss-not-finite",
        )
    return done
