"""The training of one network of a table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch

from autoseg.analysis.flops import count_cost
from autoseg.data.base import SegmentationDataset
from autoseg.engine.config import RetrainConfig
from autoseg.engine.evaluate import evaluate_network
from autoseg.engine.retrain import RetrainTask
from autoseg.metrics.confusion import Scores
from autoseg.network import for_inference
from autoseg.zoo.build import build_network

EVALUATION_BATCH = 32


class Trained(NamedTuple):
    """One training: its scores at some epochs, and its cost."""

    scores: tuple[Scores, ...]
    losses: tuple[float, ...]
    """Mean cross-entropies of the validation pixels."""
    seconds: float
    """Processor seconds of training and evaluation."""
    parameters: int
    multiply_adds: int
    """For one image of the validation set's first size."""


def train(
    config: RetrainConfig, train_set: SegmentationDataset, val_set: SegmentationDataset, epochs: Sequence[int]
) -> Trained:
    """Train a network by its whole schedule, and evaluate it after some of the epochs.

    The scores are those of the moving average of the weights if `ema_decay` is set.

    Args:
        config: Settings of the training; `retrain.epochs` is the length of its schedule.
        train_set: Training images.
        val_set: Validation images.
        epochs: After which epochs the network is evaluated, in ascending order.

    Returns:
        The scores after each of these epochs.
    """
    device, start = torch.device("cpu"), time.process_time()
    task = RetrainTask(config, train_set, val_set, device)
    scores, losses, step = [], [], 0
    for epoch in range(config.retrain.epochs):
        for batches in task.batches(epoch, 0):
            task.step(batches, epoch, step)
            step += 1
        if epoch + 1 in epochs:
            network = for_inference(task.trained, device)
            found, loss = evaluate_network(network, val_set, config.data, device, batch_size=EVALUATION_BATCH)
            scores.append(found)
            losses.append(loss)
    seconds, size = time.process_time() - start, val_set.load(0)[1].shape
    cost = count_cost(
        lambda: build_network(config.architecture, val_set.num_classes, in_channels=val_set.channels), size
    )
    return Trained(tuple(scores), tuple(losses), seconds, cost.parameters, cost.multiply_adds)
