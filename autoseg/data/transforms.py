"""Samples as tensors: normalised as they are, or randomly scaled, cropped, flipped and recoloured for training.

Letters: H, W height and width of a sample, h, w of the crop, in pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from autoseg.config import AugmentConfig, Rgb
from autoseg.data.base import LabelMask, Sample, nearest

GREY = (0.299, 0.587, 0.114)


def to_tensor(sample: Sample, mean: Rgb, std: Rgb) -> tuple[Tensor, Tensor]:
    """(3, H, W) float32, (value / 255 - mean) / std, and (H, W) int64. Nothing is random."""
    constants = normalisation(mean, std, torch.device("cpu"))
    return normalised(torch.tensor(sample.image), *constants), torch.from_numpy(sample.mask.astype(np.int64))


def augment(
    sample: Sample,
    crop: tuple[int, int],
    augment: AugmentConfig,
    mean: Rgb,
    std: Rgb,
    ignore_label: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """A random view of a sample: (3, h, w) float32, normalised, and (h, w) int64, h and w those of `crop`.

    Image and mask are scaled by one factor, cropped at one place, and flipped together. Where the scaled image is
    smaller than the crop it lies at a random place within it; around it the image is the mean colour (0) and the mask
    the ignore label. `generator` (on the CPU) decides everything: eight numbers are drawn, whatever is used of them.
    """
    height, width = sample.mask.shape
    rows, columns, flip, jitter = draw_view((height, width), crop, augment, generator)
    colours = torch.from_numpy(_cut_image(sample.image, rows, columns))
    if augment.colour > 0:
        colours = _jitter(colours, *jitter)
    image = normalised(colours, *normalisation(mean, std, torch.device("cpu")))
    mask = torch.from_numpy(_cut_mask(sample.mask, rows, columns))
    if mask.shape != tuple(crop):
        place = (slice(rows.offset, rows.offset + rows.count), slice(columns.offset, columns.offset + columns.count))
        framed_image, framed_mask = torch.zeros(3, *crop, dtype=torch.float32), torch.full(tuple(crop), ignore_label)
        framed_image[:, *place], framed_mask[place] = image, mask
        image, mask = framed_image, framed_mask
    if flip:
        image, mask = image.flip(-1), mask.flip(-1)
    return image, mask


class View(NamedTuple):
    """What a training sample shows of an image."""

    rows: Window
    columns: Window
    flip: bool
    """Whether left and right are exchanged, at the end."""
    jitter: tuple[float, float, float]
    """Factors of brightness, contrast and saturation; all 1 where the colours stay."""


def draw_view(size: tuple[int, int], crop: tuple[int, int], augment: AugmentConfig, generator: torch.Generator) -> View:
    """A random view of an image of `size` (H, W). Eight numbers are drawn, whatever is used of them."""
    draws: list[float] = torch.rand(8, generator=generator, dtype=torch.float64).tolist()
    low, high = augment.scale
    scale = low + (high - low) * draws[0]
    rows, columns = (
        Window(length, max(1, round(length * scale)), shown, draw)
        for length, shown, draw in zip(size, crop, draws[1:3], strict=True)
    )
    brightness, contrast, saturation = (1 + augment.colour * (2 * draw - 1) for draw in draws[4:7])
    return View(rows, columns, draws[3] < augment.flip, (brightness, contrast, saturation))


class Window:
    """One axis of a crop: what of the source it shows, and where in the crop that lies.

    The source of `length` pixels is scaled to `scaled`; only the part that is shown is ever computed.
    """

    def __init__(self, length: int, scaled: int, crop: int, draw: float) -> None:
        slack = int(draw * (abs(scaled - crop) + 1))
        self.length = length
        self.count = min(scaled, crop)
        """Pixels shown."""
        self.offset = slack if scaled < crop else 0
        """First of them in the crop."""
        self.step = length / scaled
        """Source pixels for one of them."""
        self.start = (slack if scaled >= crop else 0) * self.step
        """Where in the source the first begins."""
        self.stop = min(self.start + self.count * self.step, float(length))

    def reach(self) -> tuple[int, int]:
        """First source pixel that the filter of a resizing touches, and the one after the last."""
        margin = math.ceil(self.step) + 1
        return max(0, int(self.start) - margin), min(self.length, math.ceil(self.stop) + margin)


def _cut_image(image: NDArray[np.uint8], rows: Window, columns: Window) -> NDArray[np.uint8]:
    """The window of an image, bilinear, with antialiasing where it shrinks: (rows.count, columns.count, 3)."""
    if rows.step == columns.step == 1.0:
        top, left = int(rows.start), int(columns.start)
        return image[top : top + rows.count, left : left + columns.count].copy()
    (top, bottom), (left, right) = rows.reach(), columns.reach()
    source = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    # Pillow takes windows between pixels, and filters with what lies around them: as if the whole had been resized
    box = (columns.start - left, rows.start - top, columns.stop - left, rows.stop - top)
    return np.array(source.resize((columns.count, rows.count), Image.Resampling.BILINEAR, box=box))


def _cut_mask(mask: LabelMask, rows: Window, columns: Window) -> NDArray[np.int64]:
    """The window of a mask; each pixel takes the label under its centre, on the grid of `_cut_image`."""
    down = nearest(rows.count, rows.start, rows.step, rows.length)
    across = nearest(columns.count, columns.start, columns.step, columns.length)
    return mask[down[:, None], across].astype(np.int64)


def _jitter(image: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Colours (H, W, 3) in 0..255 with each of the three changed by its factor, in this order."""
    colours = (image.float() * brightness).clamp_(0, 255)
    grey = colours @ torch.tensor(GREY, dtype=torch.float32)
    colours = torch.lerp(grey.mean(), colours, contrast).clamp_(0, 255)
    grey = (colours @ torch.tensor(GREY, dtype=torch.float32)).unsqueeze(-1)
    return torch.lerp(grey, colours, saturation).clamp_(0, 255)


def normalised(image: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """(H, W, 3) in 0..255, which is used up, to (3, H, W) float32; the other two are those of `normalisation`."""
    planes = image.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)
    return planes.mul_(scale).add_(shift)


def normalisation(mean: Rgb, std: Rgb, device: torch.device) -> tuple[Tensor, Tensor]:
    """Factor and summand, each (3, 1, 1), that make a value in 0..255 into (value / 255 - mean) / std."""
    scale = torch.tensor([1 / (255 * value) for value in std], dtype=torch.float32, device=device)
    shift = [-centre / value for centre, value in zip(mean, std, strict=True)]
    return scale.view(3, 1, 1), torch.tensor(shift, dtype=torch.float32, device=device).view(3, 1, 1)
