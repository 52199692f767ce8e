"""Samples as tensors: only normalised, or augmented one by one on the CPU with Pillow.

Letters: N samples, C channels, H, W height and width of a sample, h, w of the crop, in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from autoseg.config.training import AugmentConfig
from autoseg.data.augment.parameters import CoarseMask, Window, draw_view
from autoseg.data.base import LabelMask, Sample, nearest, resampled

GREY = (0.299, 0.587, 0.114)
FULL_SCALES = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
"""Image type -> the value that counts as 1."""


def full_scale(dtype: np.dtype[Any] | torch.dtype) -> float:
    """The value that counts as 1 when an image of this type is normalised."""
    return FULL_SCALES[str(dtype).removeprefix("torch.")]


def value_range(dtype: np.dtype[Any] | torch.dtype) -> tuple[float, float]:
    """Least and greatest value of an image of this type; infinite for float32."""
    full = full_scale(dtype)
    return (0.0, full) if full > 1 else (-torch.inf, torch.inf)


def to_tensor(sample: Sample, mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Image (C, H, W) float32, (value / full scale - mean) / std, and mask (H, W) int64, without augmentation."""
    constants = normalisation(mean, std, torch.device("cpu"), full_scale(sample.image.dtype))
    return normalised(torch.tensor(sample.image), *constants), torch.from_numpy(sample.mask.astype(np.int64))


def augment(
    sample: Sample,
    crop: tuple[int, int],
    augment: AugmentConfig,
    mean: Sequence[float],
    std: Sequence[float],
    ignore_label: int,
    generator: torch.Generator,
    mirrored: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """A random view of a sample: image (C, h, w) float32, normalised, and mask (h, w) int64; `crop` is (h, w).

    Image and mask are scaled, cropped, flipped and rotated together. A scaled image smaller than the crop lies at a
    random place in it. Pixels outside the image and in the cutout hold the mean colour (0) and the ignore label.
    A rotation blends image and mean colour over one pixel. `generator` (on the CPU) decides everything; the settings
    do not change how many numbers are drawn. mirrored: the label that each label becomes in a flipped view
    (`mirrored_labels`).
    """
    height, width = sample.mask.shape
    step = CoarseMask.step_of(height, width)
    coarse = CoarseMask(sample.mask[::step, ::step], step)
    view = draw_view((height, width), crop, augment, generator, coarse, ignore_label)
    colours = torch.from_numpy(_cut_image(sample.image, view.rows, view.columns))
    if view.blur > 0:
        colours = _blur(colours, view.blur)
    if augment.colour > 0:
        colours = _jitter(colours, view.jitter, value_range(sample.image.dtype))
    constants = normalisation(mean, std, torch.device("cpu"), full_scale(sample.image.dtype))
    image, mask = normalised(colours, *constants), torch.from_numpy(_cut_mask(sample.mask, view.rows, view.columns))
    if any(edges := (*view.columns.edges, *view.rows.edges)):
        image, mask = F.pad(image, edges), F.pad(mask, edges, value=ignore_label)
    if view.flip:
        image, mask = image.flip(-1), mask.flip(-1)
        mask = mask if mirrored is None else mirrored[mask]
    if augment.rotate > 0:
        angle = torch.tensor([[view.angle]], dtype=torch.float64)
        turned_images, turned_masks = turned(image[None], mask[None], angle.cos(), angle.sin(), crop, ignore_label)
        image, mask = turned_images[0], turned_masks[0]
    if augment.cutout > 0:
        top, bottom, left, right = view.hole
        image[:, top:bottom, left:right], mask[top:bottom, left:right] = 0, ignore_label
    return image, mask


def _cut_image(image: NDArray[Any], rows: Window, columns: Window) -> NDArray[Any]:
    """The window of an image, bilinear and antialiased: (rows.count, columns.count, C)."""
    if rows.step == columns.step == 1.0:
        top, left = int(rows.start), int(columns.start)
        return image[top : top + rows.count, left : left + columns.count].copy()
    (top, bottom), (left, right) = rows.reach(), columns.reach()
    source = np.ascontiguousarray(image[top:bottom, left:right])
    # Pillow takes fractional boxes and filters with the pixels around them, as if the whole image had been resized
    box = (columns.start - left, rows.start - top, columns.stop - left, rows.stop - top)
    return resampled(source, (rows.count, columns.count), box)


def _cut_mask(mask: LabelMask, rows: Window, columns: Window) -> NDArray[np.int64]:
    """The window of a mask on the grid of `_cut_image`, by nearest neighbour: (rows.count, columns.count)."""
    down = nearest(rows.count, rows.start, rows.step, rows.length)
    across = nearest(columns.count, columns.start, columns.step, columns.length)
    return mask[down[:, None], across].astype(np.int64)


def gaussian(shown: Tensor, sigmas: Tensor) -> Tensor:
    """Matrices that blur one axis with a Gaussian over the pixels that are shown: (N, pixels, pixels) float32.

    shown: (N, pixels) bool; sigmas: (N, 1), in pixels; 0 blurs nothing.
    """
    places = torch.arange(shown.shape[1], dtype=torch.float32, device=shown.device)
    distances = (places.unsqueeze(1) - places).square()
    shares = torch.exp(-distances / (2 * sigmas.square()).clamp_min(1e-6).unsqueeze(2)) * shown.unsqueeze(1)
    return shares / shares.sum(2, keepdim=True).clamp_min(1e-6)


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Blur (H, W, C) along both axes, to float32."""
    sigmas = torch.tensor([[sigma]], dtype=torch.float32)
    down, across = (gaussian(torch.ones(1, length, dtype=torch.bool), sigmas)[0] for length in image.shape[:2])
    return torch.einsum("hs,stc,wt->hwc", down, image.float(), across)


def _jitter(image: Tensor, factors: tuple[float, float, float], limits: tuple[float, float]) -> Tensor:
    """Change brightness, contrast and, if there are three channels, saturation of (H, W, C), in this order."""
    brightness, contrast, saturation = factors
    colours = (image.float() * brightness).clamp_(*limits)
    colours = torch.lerp(_grey(colours).mean(), colours, contrast).clamp_(*limits)
    if colours.shape[-1] != len(GREY):
        return colours
    return torch.lerp(_grey(colours).unsqueeze(-1), colours, saturation).clamp_(*limits)


def _grey(colours: Tensor) -> Tensor:
    """(H, W, C) -> (H, W): the luma of red, green and blue, or the mean of other channels."""
    if colours.shape[-1] != len(GREY):
        return colours.mean(-1)
    return colours @ torch.tensor(GREY, dtype=torch.float32)


def turned(
    images: Tensor, masks: Tensor, cosines: Tensor, sines: Tensor, crop: tuple[int, int], ignore_label: int
) -> tuple[Tensor, Tensor]:
    """Rotate normalised images (N, C, H, W) and masks (N, H, W) and crop their centres: (N, C, h, w) and (N, h, w).

    cosines, sines: (N, 1) float64, of the counter-clockwise angles. Images bilinear, masks nearest neighbour.
    """
    height, width = masks.shape[1:]
    down, across = (
        torch.arange(length, dtype=torch.float64, device=masks.device) + (0.5 - length / 2) for length in crop
    )
    cosines, sines = cosines.unsqueeze(2), sines.unsqueeze(2)
    # the source position of each pixel's centre, (N, h, w)
    rows = cosines * down.unsqueeze(1) + sines * across + height / 2
    columns = cosines * across - sines * down.unsqueeze(1) + width / 2
    grid = torch.stack((columns * (2 / width) - 1, rows * (2 / height) - 1), -1).float()
    views = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    sample = torch.arange(len(masks), device=masks.device).view(-1, 1, 1)
    places = (part.floor().long().clamp(0, length - 1) for part, length in ((rows, height), (columns, width)))
    return views, masks[sample, *places].masked_fill_(~inside, ignore_label)


def normalised(image: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """(H, W, C) to (C, H, W) float32, times `scale` plus `shift`, as `normalisation` gives them."""
    planes = image.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    return planes.mul_(scale).add_(shift)


def normalisation(
    mean: Sequence[float], std: Sequence[float], device: torch.device, full: float = 255.0
) -> tuple[Tensor, Tensor]:
    """Factor and summand, each (C, 1, 1), that turn a value in 0..full into (value / full - mean) / std."""
    scale = torch.tensor([1 / (full * value) for value in std], dtype=torch.float32, device=device)
    shift = [-centre / value for centre, value in zip(mean, std, strict=True)]
    return scale.view(-1, 1, 1), torch.tensor(shift, dtype=torch.float32, device=device).view(-1, 1, 1)
