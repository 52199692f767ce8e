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
from autoseg.engine.windows import sliding_logits
from autoseg.objectives.boundary import BoundaryFScore
from autoseg.objectives.calibration import Calibration
from autoseg.objectives.losses import segmentation_loss
from autoseg.objectives.metrics import ConfusionMatrix, Scores, by_name, plain

SMALLEST = 32
"""Least height and width of a network's input, in pixels."""
PLAIN = InferenceConfig()
"""One pass at the images' own size."""


class Details:
    """What is measured besides the confusion matrix where there is time: boundaries and calibration."""

    def __init__(self, num_classes: int, ignore_label: int) -> None:
        self.boundary = BoundaryFScore(num_classes, ignore_label)
        self.calibration = Calibration(ignore_label)

    def update(self, logits: Tensor, predictions: Tensor, masks: Tensor) -> None:
        """Add logits (N, K, H, W), the labels that were made of them (N, H, W), and the true ones (N, H, W)."""
        self.boundary.update(predictions, masks)
        self.calibration.update(logits, masks)

    def to_dict(self, classes: Sequence[str]) -> dict[str, object]:
        """Plain data for JSON; null for what was not there."""
        return {
            "boundary_f": plain(self.boundary.mean()),
            "boundary_tolerance": self.boundary.tolerance,
            "boundary_f_by_class": by_name(classes, self.boundary.by_class().tolist()),
            "expected_calibration_error": plain(self.calibration.error),
            "brier_score": plain(self.calibration.brier),
            "reliability": self.calibration.reliability(),
        }


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
    details: Details | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Scores, float]:
    """Scores over the whole images of a data set, and the mean cross-entropy over its pixels that are not ignored.

    `limit`: measure on this many images, evenly spaced. `details`: measures these too.
    Raises: DataError: a sample that cannot be used.
    """
    was_training = network.training
    network.eval()
    confusion = ConfusionMatrix(dataset.num_classes, dataset.ignore_label)
    loss_sum, pixels = torch.zeros((), dtype=torch.float64), 0
    indices = spaced(len(dataset), limit)
    done = 0
    for group, images, masks in evaluation_batches(dataset, indices, data.mean, data.std, batch_size, device):
        logits = asked_logits(network, images, inference)
        if inference.crf is not None:
            logits = refine(logits, colours_of(images, data.mean, data.std), inference.crf)
        counted = int((masks != dataset.ignore_label).sum())
        loss_sum += segmentation_loss(logits, masks, dataset.ignore_label).cpu().double() * counted
        pixels += counted
        predictions = logits.argmax(1)
        confusion.update(predictions, masks)
        if details is not None:
            details.update(logits, predictions, masks)
        done += len(group)
        if progress is not None:
            progress(done, len(indices))
    network.train(was_training)
    return confusion.scores(dataset.classes), float(loss_sum) / max(1, pixels)


def asked_logits(network: nn.Module, images: Tensor, inference: InferenceConfig) -> Tensor:
    """`network_logits` as the settings say; a CRF is not applied."""
    return network_logits(
        network, images, inference.scales, inference.flip, inference.fuse, inference.window, inference.overlap
    )


def network_logits(
    network: nn.Module,
    images: Tensor,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    fuse: str = "mean",
    window: tuple[int, int] | None = None,
    overlap: float = 0.5,
) -> Tensor:
    """(N, C, H, W) -> (N, K, H, W): logits, or of several scales or flips the log of the mean probability.

    `fuse="max"`: each class's greatest logit instead (DeepLab v2, section 4.1). Scaled images are rounded to whole
    pixels and at least 32 each way. `window`: each of them is seen in sliding windows of this height and width
    (`sliding_logits`). The network may be in float32 or bf16.
    """
    dtype = next((parameter.dtype for parameter in network.parameters()), images.dtype)
    images = images.contiguous(memory_format=torch.channels_last)

    def ask(view: Tensor) -> Tensor:
        view = view.to(dtype)
        logits: Tensor = network(view) if window is None else sliding_logits(network, view, window, overlap)
        return logits

    if tuple(scales) == (1.0,) and not flip:
        return ask(images)
    answers = (_at_size(ask(view), mirrored, images) for view, mirrored in _views(images, scales, flip))
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
