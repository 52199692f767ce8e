"""The scores of a network over a whole split."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from autoseg.config.data import ResolvedDataConfig
from autoseg.config.inference import InferenceConfig
from autoseg.data.dataset import SegmentationDataset
from autoseg.data.loading.loader import evaluation_batches
from autoseg.engine.crf import colours_of, refine
from autoseg.engine.inference import PLAIN, score_bands
from autoseg.losses.losses import SegmentationLoss
from autoseg.metrics.confusion import ConfusionMatrix, Scores
from autoseg.metrics.details import Details
from autoseg.ops.devices import float64_device


@torch.no_grad()
def evaluate_network(
    network: nn.Module,
    dataset: SegmentationDataset,
    data: ResolvedDataConfig,
    device: torch.device,
    *,
    batch_size: int = 1,
    limit: int | None = None,
    inference: InferenceConfig = PLAIN,
    details: Details | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Scores, float]:
    """Scores over the whole images of a data set, and the mean cross-entropy of its labelled pixels.

    limit: use only this many images, evenly spaced. details: these are measured too. progress: called with the number
    of images that are done and the number of all.
    Raises: DataError: an unusable sample.
    """
    was_training = network.training
    network.eval()
    confusion = ConfusionMatrix(dataset.num_classes, dataset.ignore_label)
    loss, pixels, done = 0.0, 0, 0
    indices = spaced(len(dataset), limit)
    for group, images, masks in evaluation_batches(dataset, indices, data.mean, data.std, batch_size, device):
        bands = score_bands(network, images, inference)
        if inference.crf is not None:
            colours = colours_of(images, data.mean, data.std)
            bands = iter([refine(torch.cat(list(bands), 2), colours, inference.crf)])
        predictions, band_loss = _labelled(bands, masks, dataset.ignore_label, details)
        loss += band_loss
        pixels += int((masks != dataset.ignore_label).sum())
        confusion.update(predictions, masks)
        if details is not None:
            details.boundary.update(predictions, masks)
        done += len(group)
        if progress is not None:
            progress(done, len(indices))
    network.train(was_training)
    return confusion.scores(dataset.classes), loss / max(1, pixels)


def _labelled(
    bands: Iterator[Tensor], masks: Tensor, ignore_label: int, details: Details | None
) -> tuple[Tensor, float]:
    """The labels (N, H, W) of bands (N, K, rows, W), and the sum of the cross-entropy over the labelled pixels."""
    # labels are written in place: small tensors between the large ones of each band would fragment memory
    exact = float64_device(masks.device)
    labels, loss, top = torch.empty_like(masks), torch.zeros((), dtype=torch.float64, device=exact), 0
    for band in bands:
        true = masks[:, top : top + band.shape[2]]
        mean, pixels = SegmentationLoss(ignore_label)(band, true), (true != ignore_label).sum()
        loss += mean.to(exact).double() * pixels.to(exact)
        if details is not None:
            details.calibration.update(band, true)
        labels[:, top : top + band.shape[2]] = band.argmax(1)
        top += band.shape[2]
    return labels, float(loss)


def spaced(length: int, limit: int | None) -> list[int]:
    """The indices 0..length-1, or `limit` of them, evenly spaced."""
    if limit is None or limit >= length:
        return list(range(length))
    return [index * length // limit for index in range(limit)]
