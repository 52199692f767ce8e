"""The scores of a decoded network with the supernet's weights, without retraining."""

from __future__ import annotations

import itertools

import torch

from autoseg.engine.evaluate import evaluate_network
from autoseg.engine.search import SearchTask
from autoseg.genotype.schema import Genotype
from autoseg.metrics.confusion import Scores
from autoseg.supernet.fast.mixed_op import StackedNorm

CALIBRATION_BATCHES = 16


def evaluate_discretized(task: SearchTask, genotype: Genotype) -> Scores:
    """Scores on val of the supernet reduced to `genotype`. The supernet of `task` stays reduced.

    BatchNorm statistics are computed anew on trainA, since those of the relaxed network do not hold.
    """
    supernet = task.supernet
    supernet.choose(genotype)
    norms = [module for module in supernet.modules() if isinstance(module, StackedNorm)]
    for norm in norms:
        norm.running_mean.zero_()
        norm.running_var.fill_(1)
    supernet.train()
    with torch.no_grad():
        for images, _ in itertools.islice(task.loader_a.epoch(0), CALIBRATION_BATCHES):
            supernet(images.to(task.device))
    scores, _ = evaluate_network(
        supernet, task.val_set, task.config.data, task.device, batch_size=task.schedule.batch_size
    )
    return scores
