"""Measuring a network over a whole split.

Letters: N images, K classes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.config import DataConfig
from autoseg.data.dataset import SegmentationDataset
from autoseg.data.loader import evaluation_batches
from autoseg.objectives.losses import segmentation_loss
from autoseg.objectives.metrics import ConfusionMatrix, Scores

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Of multi-scale evaluation, as in DeepLab."""
SMALLEST = 32
"""Least height and width of a network's input, in pixels."""


@torch.no_grad()
def evaluate_network(
    network: nn.Module,
    dataset: SegmentationDataset,
    data: DataConfig,
    device: torch.device,
    *,
    batch_size: int = 1,
    limit: int | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Scores, float]:
    """Scores over the whole images of a data set, and the mean cross-entropy over its pixels that are not ignored.

    `limit`: measure on this many images, evenly spaced. Raises: DataError: a sample that cannot be used.
    """
    was_training = network.training
    network.eval()
    confusion = ConfusionMatrix(dataset.num_classes, dataset.ignore_label)
    loss_sum, pixels = torch.zeros((), dtype=torch.float64), 0
    indices = spaced(len(dataset), limit)
    done = 0
    for group, images, masks in evaluation_batches(dataset, indices, data.mean, data.std, batch_size, device):
        logits = network_logits(network, images, scales, flip)
        counted = int((masks != dataset.ignore_label).sum())
        loss_sum += segmentation_loss(logits, masks, dataset.ignore_label).cpu().double() * counted
        pixels += counted
        confusion.update(logits.argmax(1), masks)
        done += len(group)
        if progress is not None:
            progress(done, len(indices))
    network.train(was_training)
    return confusion.scores(dataset.classes), float(loss_sum) / max(1, pixels)


def network_logits(network: nn.Module, images: Tensor, scales: Sequence[float] = (1.0,), flip: bool = False) -> Tensor:
    """(N, 3, H, W) -> (N, K, H, W): logits, or with several scales or flips the log of the mean probability.

    Scaled images are rounded to whole pixels and at least 32 each way. The network may be in float32 or bf16.
    """
    dtype = next((parameter.dtype for parameter in network.parameters()), images.dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    if tuple(scales) == (1.0,) and not flip:
        logits: Tensor = network(images.to(dtype))
        return logits
    size = images.shape[-2:]
    total, count = torch.zeros(()), 0
    for scale in scales:
        scaled_size = [max(SMALLEST, round(length * scale)) for length in size]
        scaled = F.interpolate(images, scaled_size, mode="bilinear", align_corners=False, antialias=scale < 1)
        for flipped in (False, True) if flip else (False,):
            logits = network((scaled.flip(3) if flipped else scaled).to(dtype))
            logits = logits.flip(3) if flipped else logits
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
            total, count = total.to(logits.device) + logits.softmax(1), count + 1
    return (total / count).clamp_min(1e-12).log()


def spaced(length: int, limit: int | None) -> list[int]:
    """0..length-1, or `limit` of them evenly spaced."""
    if limit is None or limit >= length:
        return list(range(length))
    return [index * length // limit for index in range(limit)]
