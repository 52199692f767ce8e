"""Measuring a network over a whole split.

Letters: N images, K classes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.config import DataConfig, InferenceConfig
from autoseg.data.dataset import SegmentationDataset
from autoseg.data.loader import evaluation_batches
from autoseg.engine.crf import colours_of, refine
from autoseg.objectives.losses import segmentation_loss
from autoseg.objectives.metrics import ConfusionMatrix, Scores

SMALLEST = 32
"""Least height and width of a network's input, in pixels."""
PLAIN = InferenceConfig()
"""One pass at the images' own size."""


@torch.no_grad()
def evaluate_network(
    network: nn.Module,
    dataset: SegmentationDataset,
    data: DataConfig,
    device: torch.device,
    *,
    batch_size: int = 1,
    limit: int | None = None,
    inference: InferenceConfig = PLAIN,
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
        logits = network_logits(network, images, inference.scales, inference.flip, inference.fuse)
        if inference.crf is not None:
            logits = refine(logits, colours_of(images, data.mean, data.std), inference.crf)
        counted = int((masks != dataset.ignore_label).sum())
        loss_sum += segmentation_loss(logits, masks, dataset.ignore_label).cpu().double() * counted
        pixels += counted
        confusion.update(logits.argmax(1), masks)
        done += len(group)
        if progress is not None:
            progress(done, len(indices))
    network.train(was_training)
    return confusion.scores(dataset.classes), float(loss_sum) / max(1, pixels)


def network_logits(
    network: nn.Module, images: Tensor, scales: Sequence[float] = (1.0,), flip: bool = False, fuse: str = "mean"
) -> Tensor:
    """(N, 3, H, W) -> (N, K, H, W): logits, or of several scales or flips the log of the mean probability.

    `fuse="max"`: each class's greatest logit instead (DeepLab v2, section 4.1). Scaled images are rounded to whole
    pixels and at least 32 each way. The network may be in float32 or bf16.
    """
    dtype = next((parameter.dtype for parameter in network.parameters()), images.dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    if tuple(scales) == (1.0,) and not flip:
        logits: Tensor = network(images.to(dtype))
        return logits
    answers = (_at_size(network(view.to(dtype)), mirrored, images) for view, mirrored in _views(images, scales, flip))
    fused = next(answers) if fuse == "max" else next(answers).softmax(1)
    for answer in answers:
        fused = torch.maximum(fused, answer) if fuse == "max" else fused + answer.softmax(1)
    count = len(scales) * (2 if flip else 1)
    return fused if fuse == "max" else (fused / count).clamp_min(1e-12).log()


def _views(images: Tensor, scales: Sequence[float], flip: bool) -> Iterator[tuple[Tensor, bool]]:
    """Images at every scale, and mirrored too if `flip`; with whether they are."""
    for scale in scales:
        size = [max(SMALLEST, round(length * scale)) for length in images.shape[-2:]]
        scaled = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=scale < 1)
        yield scaled, False
        if flip:
            yield scaled.flip(3), True


def _at_size(logits: Tensor, mirrored: bool, images: Tensor) -> Tensor:
    """Logits of a view at the images' own size, mirrored back."""
    logits = logits.flip(3) if mirrored else logits
    return F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)


def spaced(length: int, limit: int | None) -> list[int]:
    """0..length-1, or `limit` of them evenly spaced."""
    if limit is None or limit >= length:
        return list(range(length))
    return [index * length // limit for index in range(limit)]
