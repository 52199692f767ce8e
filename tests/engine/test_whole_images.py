"""Scores over whole images against a count in NumPy, written from the definitions alone and in float64.

Letters: C channels, K classes, H, W height and width of an image, in pixels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autoseg.config.data import DataConfig
from autoseg.config.inference import InferenceConfig
from autoseg.data.base import SegmentationDataset
from autoseg.data.dataset import resolve
from autoseg.engine.evaluate import evaluate_network
from autoseg.engine.predict import label_map
from autoseg.metrics.confusion import Scores

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MIXED = ((40, 56), (40, 56), (33, 71), (64, 32), (64, 32))
CPU = torch.device("cpu")
POOLED = 5.0
"""Weight of the pooled colours, whose mean over a window is small."""
LEAST_GAP = 1e-5
"""Pixels whose two best classes are closer are ignored: a label must not hang on the rounding of images in float32."""


class Pooling(nn.Module):
    """A 5x5 convolution and image pooling, so that the answer depends on where the borders of what it sees lie."""

    def __init__(self, classes: int, seed: int) -> None:
        super().__init__()
        kernel = np.random.default_rng(seed).normal(size=(classes, 3, 5, 5))
        self.kernel = nn.Parameter(torch.as_tensor(kernel), requires_grad=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        near = nn.functional.conv2d(images, self.kernel, padding=2)
        return near + POOLED * nn.functional.conv2d(images.mean((2, 3), keepdim=True), self.kernel[:, :, :1, :1])


class Arrays(SegmentationDataset):
    """Images and masks that are given."""

    def __init__(self, samples: list[tuple[np.ndarray, np.ndarray]], classes: int, ignore: int) -> None:
        super().__init__([str(number) for number in range(len(samples))], [f"c{k}" for k in range(classes)], ignore)
        self.samples = samples

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.samples[index]


# --- the definitions --------------------------------------------------------------------------------------------------


def network_of(kernel: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(C, H, W) -> (K, H, W), with zeros around the image."""
    height, width = image.shape[1:]
    framed = np.zeros((image.shape[0], height + 4, width + 4))
    framed[:, 2:-2, 2:-2] = image
    out = np.zeros((kernel.shape[0], height, width))
    for dy in range(5):
        for dx in range(5):
            out += np.einsum("kc,chw->khw", kernel[:, :, dy, dx], framed[:, dy : dy + height, dx : dx + width])
    pooled = kernel[:, :, 0, 0] @ image.mean((1, 2))
    return out + POOLED * pooled[:, None, None]


def bilinear(values: np.ndarray, size: tuple[int, int], antialias: bool) -> np.ndarray:
    """(C, H, W) to `size`. A triangle around each new pixel's centre, as wide as that pixel where it antialiases."""
    for axis, target in ((1, size[0]), (2, size[1])):
        length = values.shape[axis]
        matrix = np.zeros((target, length))
        for row in range(target):
            centre = (row + 0.5) * length / target
            reach = max(1.0, length / target) if antialias else 1.0
            if not antialias:
                centre = min(max(centre, 0.5), length - 0.5)  # beyond the last pixel's centre it goes on unchanged
            for column in range(length):
                matrix[row, column] = max(0.0, 1 - abs(column + 0.5 - centre) / reach)
            matrix[row] /= matrix[row].sum()
        values = np.moveaxis(np.tensordot(matrix, values, (1, axis)), 0, axis)
    return values


def starts(length: int, window: int, overlap: float) -> list[int]:
    """Evenly spread places whose distance leaves at least the overlap."""
    if window >= length:
        return [0]
    steps = math.ceil((length - window) / max(1, math.floor(window * (1 - overlap))))
    return [math.floor(number * (length - window) / steps + 0.5) for number in range(steps + 1)]


def windowed(kernel: np.ndarray, image: np.ndarray, window: tuple[int, int] | None, overlap: float) -> np.ndarray:
    """Weighted mean of the windows' logits at each pixel."""
    size = image.shape[1:]
    height, width = (min(part, whole) for part, whole in zip(window or size, size, strict=True))
    total, weights = np.zeros((len(kernel), *size)), np.zeros(size)
    for top in starts(size[0], height, overlap):
        for left in starts(size[1], width, overlap):
            logits = network_of(kernel, image[:, top : top + height, left : left + width])
            for y in range(height):
                for x in range(width):
                    down, across = y - (height - 1) / 2, x - (width - 1) / 2
                    weight = math.exp(-(down**2) / (2 * (height / 8) ** 2) - across**2 / (2 * (width / 8) ** 2))
                    total[:, top + y, left + x] += weight * logits[:, y, x]
                    weights[top + y, left + x] += weight
    return total / weights


def fused(kernel: np.ndarray, pixels: np.ndarray, how: InferenceConfig) -> np.ndarray:
    """Scores (K, H, W) of the classes, of which the greatest wins."""
    image = np.moveaxis((pixels / 255 - np.array(MEAN)) / np.array(STD), 2, 0)
    answers = []
    for scale in how.scales:
        size = tuple(max(32, round(length * scale)) for length in image.shape[1:])
        scaled = bilinear(image, (size[0], size[1]), antialias=scale < 1)
        for mirrored in (False, True) if how.flip else (False,):
            seen = scaled[:, :, ::-1] if mirrored else scaled
            logits = windowed(kernel, seen, how.window, how.overlap)
            logits = logits[:, :, ::-1] if mirrored else logits
            answers.append(bilinear(logits, image.shape[1:], antialias=False))
    if how.fuse == "max" or len(answers) == 1:
        return np.max(answers, axis=0)
    return np.mean([np.exp(a - a.max(0)) / np.exp(a - a.max(0)).sum(0) for a in answers], axis=0)


def brute_force(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int, ignore: int) -> tuple[float, np.ndarray]:
    """mIoU over all pixels of all images, and the pixels by (true, predicted) class, one pixel at a time."""
    counts = np.zeros((classes, classes), dtype=int)
    for predicted, mask in pairs:
        for p, t in zip(predicted.flat, mask.flat, strict=True):
            if t != ignore:
                counts[t, p] += 1
    shares = []
    for label in range(classes):
        both = counts[label, label]
        either = counts[label].sum() + counts[:, label].sum() - both
        if either:
            shares.append(both / either)
    return sum(shares) / len(shares), counts


# --- the comparison ---------------------------------------------------------------------------------------------------


def samples(
    seed: int, classes: int, ignore: int, kernel: np.ndarray, sizes: Any
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Noise; masks that the network finds to two thirds, with ignored pixels; of several classes the last is absent."""
    rng = np.random.default_rng(seed)
    made = []
    for size in sizes:
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        mask = fused(kernel, pixels, InferenceConfig()).argmax(0)
        wrong = rng.random(size) < 0.33
        mask[wrong] = rng.integers(0, classes, int(wrong.sum()))
        if classes > 2:
            mask[mask == classes - 1] = 0
        mask[rng.random(size) < 0.2] = ignore
        made.append((pixels, mask.astype(np.uint16 if max(ignore, classes) > 255 else np.uint8)))
    return made


CASES = {
    "plain": (7, 255, MIXED, {}),
    "two classes, one of them ignored": (2, 0, MIXED[:3], {}),
    "150 classes": (150, 255, MIXED[1:4], {}),
    "300 classes, 16-bit": (300, 65535, MIXED[:2], {}),
    "windows": (7, 255, MIXED, {"window": (32, 40)}),
    "windows of 150 classes": (150, 255, MIXED[2:4], {"window": (32, 32), "overlap": 0.25}),
    "windows that touch": (2, 255, MIXED[2:], {"window": (32, 32), "overlap": 0.0}),
    "windows in a row": (7, 255, ((33, 64), (40, 64), (64, 32)), {"window": (64, 32), "overlap": 0.0}),
    "scales and flip": (7, 255, MIXED, {"scales": (0.5, 0.75, 1.0, 1.75), "flip": True}),
    "greatest logit": (7, 255, MIXED[1:], {"scales": (0.75, 1.25), "fuse": "max"}),
    "windows, scales and flip": (7, 255, MIXED[1:4], {"scales": (1.0, 1.5), "flip": True, "window": (36, 44)}),
    "windows, scales and flip, 16-bit": (300, 300, MIXED[:1], {"scales": (1.0, 1.5), "flip": True, "window": (40, 40)}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_scores_equal_a_count_by_brute_force(case: str) -> None:
    """Whatever the batches are."""
    classes, ignore, sizes, options = CASES[case]
    inference = InferenceConfig(**options)
    network = Pooling(classes, seed=0)
    kernel = network.kernel.numpy()
    given = samples(1, classes, ignore, kernel, sizes)
    predictions, masks = [], [mask for _, mask in given]
    for pixels, mask in given:
        answers = fused(kernel, pixels, inference)
        second, best = np.sort(answers, axis=0)[-2:]
        close = best - second < LEAST_GAP
        assert close.mean() < 0.005
        mask[close] = ignore
        predictions.append(answers.argmax(0))
    expected, counts = brute_force(list(zip(predictions, masks, strict=True)), classes, ignore)
    data = resolve(DataConfig(layout="generated", mean=MEAN, std=STD))
    for batch_size in (1, 2, 5):
        scores, _ = evaluate_network(
            network, Arrays(given, classes, ignore), data, CPU, batch_size=batch_size, inference=inference
        )
        assert scores.miou == pytest.approx(expected, abs=1e-9)
        assert np.array_equal(scores.confusion, counts)
    if options:
        plain, _ = evaluate_network(network, Arrays(given, classes, ignore), data, CPU)
        assert not np.array_equal(plain.confusion, counts)
    assert 0.02 < expected < 0.98
    of_images(scores, predictions, masks, ignore)


@pytest.mark.parametrize(("classes", "ignore"), [(2, 0), (5, 3), (5, 255), (300, 65535)])
def test_the_loss_is_the_mean_over_the_pixels_that_are_not_ignored(classes: int, ignore: int) -> None:
    """Whichever label is ignored, a class's own number too."""
    network, total, pixels = Pooling(classes, seed=0), 0.0, 0
    given = samples(1, classes, ignore, network.kernel.numpy(), MIXED[:3])
    for image, mask in given:
        logits = fused(network.kernel.numpy(), image, InferenceConfig())
        losses = np.log(np.exp(logits - logits.max(0)).sum(0)) + logits.max(0)
        for place in np.argwhere(mask != ignore):
            total += losses[tuple(place)] - logits[(mask[tuple(place)], *place)]
            pixels += 1
    data = resolve(DataConfig(layout="generated", mean=MEAN, std=STD))
    for batch_size in (1, 2):
        _, loss = evaluate_network(network, Arrays(given, classes, ignore), data, CPU, batch_size=batch_size)
        assert loss == pytest.approx(total / pixels, rel=1e-5)


class Fixed(nn.Module):
    """Answers with logits that do not depend on the image."""

    def __init__(self, logits: np.ndarray) -> None:
        super().__init__()
        self.logits, self.num_classes = torch.as_tensor(logits)[None], len(logits)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[2:] == self.logits.shape[2:]
        return self.logits


@pytest.mark.parametrize("size", [(50, 40), (90, 131), (32, 70), (33, 49)])
def test_predict_resizes_logits_back_by_the_definition(size: tuple[int, int]) -> None:
    """Bilinear around the pixels' centres; labels and probabilities are those of the resized logits."""
    rng = np.random.default_rng(0)
    logits, image = rng.normal(size=(5, 32, 48)), rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    data = resolve(DataConfig(layout="generated", mean=MEAN, std=STD, resize=(32, 48)))
    shares = np.empty((5, *size))
    labels = label_map(Fixed(logits), image, data, CPU, probabilities=shares)  # type: ignore[arg-type]
    expected = bilinear(logits, size, antialias=False)
    second, best = np.sort(expected, axis=0)[-2:]
    assert np.array_equal(labels[best - second > LEAST_GAP], expected.argmax(0)[best - second > LEAST_GAP])
    powers = np.exp(expected)
    assert np.abs(shares - powers / powers.sum(0)).max() < 1e-6


@pytest.mark.parametrize(("classes", "dtype"), [(256, np.uint8), (257, np.uint16), (1000, np.uint16)])
def test_predicted_labels_hold_every_class(classes: int, dtype: type) -> None:
    """Each class is the answer at one pixel at least."""
    true = np.resize(np.arange(classes), (32, 48))
    logits = np.eye(classes)[true].transpose(2, 0, 1)
    data = resolve(DataConfig(layout="generated", mean=MEAN, std=STD))
    labels = label_map(Fixed(logits), np.zeros((32, 48, 3), np.uint8), data, CPU)  # type: ignore[arg-type]
    assert labels.dtype == dtype
    assert np.array_equal(labels, true)


def of_images(scores: Scores, predictions: list[np.ndarray], masks: list[np.ndarray], ignore: int) -> None:
    """What is kept of each image, from which the interval comes."""
    assert scores.images is not None
    for kept, predicted, mask in zip(scores.images, predictions, masks, strict=True):
        counted = mask != ignore
        for label in range(len(scores.classes)):
            there, said = (mask == label) & counted, (predicted == label) & counted
            assert kept[:, label].tolist() == [(there & said).sum(), there.sum(), said.sum()]
