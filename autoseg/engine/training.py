"""What searching and retraining have in common: batches, loss, validation and seeds."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from autoseg.config.training import TrainingConfig
from autoseg.data.dataset import SegmentationDataset
from autoseg.data.loading.loader import Batch, BatchLoader
from autoseg.data.statistics import class_weights, count_classes, repeat_factors
from autoseg.engine.config import AnyConfig
from autoseg.engine.evaluate import evaluate_network
from autoseg.errors import ConfigError, DataError
from autoseg.losses.losses import SegmentationLoss


def make_loader(
    config: AnyConfig, dataset: SegmentationDataset, indices: list[int], stream: str, device: torch.device
) -> BatchLoader:
    """Augmented batches of the images with these indices. stream: a name that gives each loader its own random numbers.

    On a GPU, batches are augmented there; on a CPU, Pillow is faster.
    """
    schedule, data = config.schedule, config.data
    return BatchLoader(
        dataset, indices, schedule.batch_size, crop=schedule.crop, augment=schedule.augment, mean=data.mean,
        std=data.std, seed=config.seed, stream=stream, workers=schedule.workers,
        worker_seconds=schedule.worker_seconds, device=device if device.type == "cuda" else None,
        balanced=schedule.balanced_sampling,
        chances=repeat_factors(dataset, indices) if schedule.balanced_sampling else None,
    )  # fmt: skip


def check_batch(kind: str, batch_size: int, images: int, said: str) -> None:
    """Raises: DataError: fewer images than a batch; `said` says which these are."""
    if images < batch_size:
        remedy = f"lower {kind}.batch_size or add images" if images > 1 else "add images, as a batch has two or more"
        raise DataError(f"{said}, but {kind}.batch_size is {batch_size}; {remedy}", code="batch-too-large")


def batches_of_steps(
    loader: BatchLoader, epoch: int, start_step: int, steps: int, accumulate: int
) -> Iterator[list[Batch]]:
    """The `accumulate` batches of each step, from `start_step` to the last of the epoch's `steps`."""
    batches = loader.epoch(epoch, start_step * accumulate, steps * accumulate)
    return (list(step) for step in zip(*[batches] * accumulate, strict=True))


def make_loss(schedule: TrainingConfig, dataset: SegmentationDataset, device: torch.device) -> SegmentationLoss:
    """The loss of a schedule. Raises: ConfigError: `class_weights` has another length than the classes."""
    setting, weights = schedule.class_weights, None
    if isinstance(setting, tuple) and len(setting) != dataset.num_classes:
        raise ConfigError(
            f"class_weights has {len(setting)} numbers, but there are {dataset.num_classes} classes",
            code="class-weights-number",
        )
    if setting != "none":
        found = class_weights(setting, count_classes(dataset)) if isinstance(setting, str) else setting
        weights = torch.as_tensor(found, dtype=torch.float32, device=device)  # (K,)
    return SegmentationLoss(dataset.ignore_label, weights, schedule.label_smoothing, schedule.loss)


def validation_figures(
    network: nn.Module, dataset: SegmentationDataset, config: AnyConfig, device: torch.device
) -> dict[str, float]:
    """The figures of a validation to log: mIoU, loss, pixel and mean accuracy."""
    size, limit = config.schedule.batch_size, config.schedule.val_images
    scores, loss = evaluate_network(network, dataset, config.data, device, batch_size=size, limit=limit)
    accuracies = {"pixel_accuracy": scores.pixel_accuracy, "mean_accuracy": scores.mean_accuracy}
    return {"miou": scores.miou, "loss": loss, **accuracies}


def seed_of(seed: int, number: int) -> int:
    """The seed of a numbered step or pass of a run."""
    return (seed * 1_000_003 + number) % 2**31
