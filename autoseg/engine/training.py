"""What searching and retraining do alike."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from autoseg.config.data import ResolvedDataConfig
from autoseg.config.training import TrainingConfig
from autoseg.data.dataset import SegmentationDataset
from autoseg.data.loading.loader import Batch, BatchLoader
from autoseg.data.statistics import class_weights, count_classes, repeat_factors
from autoseg.engine.evaluate import evaluate_network
from autoseg.errors import ConfigError
from autoseg.losses.losses import SegmentationLoss


def make_loader(
    schedule: TrainingConfig,
    data: ResolvedDataConfig,
    seed: int,
    dataset: SegmentationDataset,
    indices: list[int],
    stream: str,
    device: torch.device,
) -> BatchLoader:
    """Augmented batches of some of a data set's images; `stream` keeps the loaders of one run apart.

    A GPU makes whole batches itself; on a CPU, Pillow is faster.
    """
    return BatchLoader(
        dataset,
        indices,
        schedule.batch_size,
        crop=schedule.crop,
        augment=schedule.augment,
        mean=data.mean,
        std=data.std,
        seed=seed,
        stream=stream,
        workers=schedule.workers,
        device=device if device.type == "cuda" else None,
        balanced=schedule.balanced_sampling,
        chances=repeat_factors(dataset, indices) if schedule.balanced_sampling else None,
    )


def batches_of_steps(
    loader: BatchLoader, epoch: int, start_step: int, steps: int, accumulate: int
) -> Iterator[list[Batch]]:
    """The batches of each step from `start_step` to the epoch's last: `accumulate` for each of its `steps`."""
    batches = loader.epoch(epoch, start_step * accumulate, steps * accumulate)
    return (list(step) for step in zip(*[batches] * accumulate, strict=True))


def make_loss(schedule: TrainingConfig, dataset: SegmentationDataset, device: torch.device) -> SegmentationLoss:
    """What is minimised. Raises: ConfigError: class weights of another number than the classes."""
    weights = weights_of_classes(schedule.class_weights, dataset, device)
    return SegmentationLoss(dataset.ignore_label, weights, schedule.label_smoothing, schedule.loss)


def weights_of_classes(
    setting: str | tuple[float, ...], dataset: SegmentationDataset, device: torch.device
) -> Tensor | None:
    """The cross-entropy's weight of each class, (K,), or None where all are alike.

    Raises: ConfigError: a list of another length than the classes.
    """
    if setting == "none":
        return None
    if isinstance(setting, str):
        weights = class_weights(setting, count_classes(dataset))
    elif len(setting) != dataset.num_classes:
        raise ConfigError(
            f"class_weights has {len(setting)} numbers, but there are {dataset.num_classes} classes",
            code="class-weights-number",
        )
    else:
        weights = np.array(setting)
    return torch.as_tensor(weights, dtype=torch.float32, device=device)


def validation_figures(
    network: nn.Module,
    dataset: SegmentationDataset,
    data: ResolvedDataConfig,
    schedule: TrainingConfig,
    device: torch.device,
) -> dict[str, float]:
    """The scores that are logged of a validation: mIoU, loss, pixel and mean accuracy."""
    scores, loss = evaluate_network(
        network, dataset, data, device, batch_size=schedule.batch_size, limit=schedule.val_images
    )
    return {
        "miou": scores.miou,
        "loss": loss,
        "pixel_accuracy": scores.pixel_accuracy,
        "mean_accuracy": scores.mean_accuracy,
    }


def seed_step(seed: int, step: int) -> None:
    """Make dropout and drop path depend on the step's number alone."""
    torch.manual_seed(seed_of(seed, step))


def seed_of(seed: int, number: int) -> int:
    """The seed of one of many numbered things of a run."""
    return (seed * 1_000_003 + number) % 2**31
