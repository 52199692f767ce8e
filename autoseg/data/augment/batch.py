"""The random views of `sample.augment`, made for a whole batch at once, on a GPU.

A view is linear in the image along each axis: every pixel of the crop is a mean of a few source pixels, with the
weights of Pillow's antialiased bilinear filter, and of these again where it is blurred. So a batch is two batched
matrix products, one for the rows and one for the columns, and nothing in it waits for the device: all numbers are drawn
on the host and sent in one piece. Only a rotation, which is no product by axes, samples the crop once more.

Letters: N samples, C channels, H, W height and width of a sample, h, w of the crop (with the margins of a rotation, as
far as there is one), S, T of the windows that are cut out, in pixels. A window is that part of an image which its view
shows, with what the filter touches around it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoseg.config.training import AugmentConfig
from autoseg.data.augment.parameters import CoarseMask, View, Window, draw_view, rotation_margins
from autoseg.data.augment.sample import FULL_SCALES, GREY, gaussian, normalisation, turned, value_range
from autoseg.data.loading.packed import to_labels

Pair: TypeAlias = tuple[Tensor, Tensor]


class BatchAugment:
    """Makes batches on `device`: as `augment`, but that colours are not rounded to whole numbers on the way.

    Masks are equal, images differ by up to one grey level before the colour jitter: Pillow rounds after the columns
    and after the rows, each time by up to a half. (With TF32 products up to one and a half.)
    """

    def __init__(
        self,
        crop: tuple[int, int],
        augment: AugmentConfig,
        mean: Sequence[float],
        std: Sequence[float],
        ignore_label: int,
        device: torch.device,
    ) -> None:
        self.crop, self.augment, self.ignore_label, self.device = crop, augment, ignore_label, device
        margins = rotation_margins(crop, augment.rotate)
        self._frame = (crop[0] + 2 * margins[0], crop[1] + 2 * margins[1])
        self._constants = {
            getattr(torch, name): normalisation(mean, std, device, full) for name, full in FULL_SCALES.items()
        }
        self._grey = torch.tensor(GREY, dtype=torch.float32, device=device).view(3, 1, 1)

    def __call__(
        self,
        samples: Sequence[Pair],
        generators: Sequence[torch.Generator],
        coarse_masks: Sequence[CoarseMask | None] | None = None,
    ) -> Pair:
        """Images (N, C, h, w) float32, masks (N, h, w) int64, both on the device, of samples that lie anywhere.

        `samples`: images (H, W, C) uint8, uint16 or float32 and masks (H, W), uint8, or int16 for uint16. `generators`:
        one a sample. `coarse_masks` are needed where `max_class_share` is less than 1.
        """
        views = [
            draw_view((mask.shape[0], mask.shape[1]), self.crop, self.augment, generator, coarse, self.ignore_label)
            for (_, mask), generator, coarse in zip(
                samples, generators, coarse_masks or [None] * len(samples), strict=True
            )
        ]
        windows, window_masks = self._cut(samples, views)
        numbers = self._send(views)
        rows, columns = numbers.rows, numbers.columns
        shown = rows.shown.unsqueeze(2) & columns.shown.unsqueeze(1)
        images = self._resampled(windows, numbers)
        if self.augment.colour > 0:
            images = self._recolour(images, shown.unsqueeze(1), numbers.jitter, value_range(windows.dtype))
        scale, shift = self._constants[windows.dtype]
        images = (images * scale + shift) * shown.unsqueeze(1)
        masks = self._label(window_masks, rows.nearest(), columns.nearest(), shown)
        if self.augment.rotate > 0:
            images, masks = turned(images, masks, numbers.cosines, numbers.sines, self.crop, self.ignore_label)
        if self.augment.cutout > 0:
            hole = self._hole(numbers.hole)
            images, masks = images.masked_fill_(hole.unsqueeze(1), 0), masks.masked_fill_(hole, self.ignore_label)
        return images, masks

    def _cut(self, samples: Sequence[Pair], views: Sequence[View]) -> Pair:
        """The windows of all views in one size, (N, S, T, C) and (N, S, T); what is too much of it holds anything."""
        source, channels = samples[0][0].device, samples[0][0].shape[2]
        pinned = source.type == "cpu" and self.device.type == "cuda"
        spans = [(slice(*view.rows.reach()), slice(*view.columns.reach())) for view in views]
        height, width = (max(span[axis].stop - span[axis].start for span in spans) for axis in (0, 1))
        image_type, mask_type = (part.dtype for part in samples[0])
        make = torch.zeros if image_type.is_floating_point else torch.empty  # anything may be NaN there
        images = make(len(views), height, width, channels, dtype=image_type, device=source, pin_memory=pinned)
        masks = torch.empty(len(views), height, width, dtype=mask_type, device=source, pin_memory=pinned)
        for number, ((image, mask), (down, across)) in enumerate(zip(samples, spans, strict=True)):
            place = (number, slice(down.stop - down.start), slice(across.stop - across.start))
            images[place], masks[place] = image[down, across], mask[down, across]
        return images.to(self.device, non_blocking=True), masks.to(self.device, non_blocking=True)

    def _send(self, views: Sequence[View]) -> _Numbers:
        """The numbers of all views, in one transfer."""
        h, w = self._frame
        numbers = torch.empty(len(views), h + w + 14, dtype=torch.float64, pin_memory=self.device.type == "cuda")
        for row, view in zip(numbers.numpy(), views, strict=True):
            row[:h] = _centres(view.rows, h)
            row[h : h + w] = _centres(view.columns, w)[:: -1 if view.flip else 1]
            row[h + w : h + w + 4] = *_extent_and_support(view.rows), *_extent_and_support(view.columns)
            row[h + w + 4 :] = *view.jitter, view.blur, math.cos(view.angle), math.sin(view.angle), *view.hole
        sent = numbers.to(self.device, non_blocking=True)
        rest = sent[:, h + w :]
        rows = _Axis(sent[:, :h], rest[:, 0:1], rest[:, 1:2])
        columns = _Axis(sent[:, h : h + w], rest[:, 2:3], rest[:, 3:4])
        jitter, blur, (cosines, sines) = rest[:, 4:7].float(), rest[:, 7:8].float(), rest[:, 8:10, None].unbind(1)
        return _Numbers(rows, columns, jitter, blur, cosines, sines, rest[:, 10:])

    def _resampled(self, windows: Tensor, numbers: _Numbers) -> Tensor:
        """What the views show of (N, S, T, C) windows, blurred where they say so: (N, C, h, w) float32."""
        weights = [
            axis.weights(size) for axis, size in zip((numbers.rows, numbers.columns), windows.shape[1:3], strict=True)
        ]
        if self.augment.blur > 0:
            weights = [
                torch.bmm(gaussian(axis.shown, numbers.blur), part)
                for axis, part in zip((numbers.rows, numbers.columns), weights, strict=True)
            ]
        return _resample(windows, *weights)

    def _recolour(self, images: Tensor, shown: Tensor, jitter: Tensor, limits: tuple[float, float]) -> Tensor:
        """As `augment`: brightness, contrast, saturation; the contrast is about the mean of what is `shown`."""
        brightness, contrast, saturation = jitter.view(-1, 3, 1, 1, 1).unbind(1)
        colours = (images * brightness).clamp_(*limits)
        grey = self._grey_of(colours)
        mean = (grey * shown).sum((2, 3), keepdim=True) / shown.sum((2, 3), keepdim=True)
        colours = torch.lerp(mean, colours, contrast).clamp_(*limits)
        if colours.shape[1] != len(GREY):
            return colours
        return torch.lerp(self._grey_of(colours), colours, saturation).clamp_(*limits)

    def _grey_of(self, colours: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, 1, h, w), as in `augment`."""
        if colours.shape[1] != len(GREY):
            return colours.mean(1, keepdim=True)
        return (colours * self._grey).sum(1, keepdim=True)

    def _hole(self, limits: Tensor) -> Tensor:
        """(N, h, w) bool: what lies in the holes (N, 4) of the views."""
        top, bottom, left, right = limits.unsqueeze(2).unbind(1)
        down, across = (torch.arange(length, device=self.device) for length in self.crop)
        rows, columns = (down >= top) & (down < bottom), (across >= left) & (across < right)
        return rows.unsqueeze(2) & columns.unsqueeze(1)

    def _label(self, masks: Tensor, down: Tensor, across: Tensor, shown: Tensor) -> Tensor:
        """The label under the centre of each pixel, and the ignore label where nothing is shown: (N, h, w) int64."""
        sample = torch.arange(len(masks), device=self.device).view(-1, 1, 1)
        labels = to_labels(masks[sample, down.unsqueeze(2), across.unsqueeze(1)])
        return labels.masked_fill_(~shown, self.ignore_label)


class _Numbers(NamedTuple):
    """What a batch's views are made with, on the device."""

    rows: _Axis
    columns: _Axis
    jitter: Tensor
    """(N, 3): factors of brightness, contrast and saturation."""
    blur: Tensor
    """(N, 1): see `gaussian`."""
    cosines: Tensor
    """(N, 1) float64, of the angles; then their sines."""
    sines: Tensor
    hole: Tensor
    """(N, 4): see `View`."""


class _Axis:
    """The pixels of one axis of all crops, in their windows: `centres` (N, pixels), -1 where the crop shows nothing.

    `extents` (N, 1): pixels of the windows; `supports` (N, 1): reach of the filter on either side, in pixels.
    """

    def __init__(self, centres: Tensor, extents: Tensor, supports: Tensor) -> None:
        self.centres, self.extents, self.supports = centres, extents, supports
        self.shown = centres >= 0

    def weights(self, size: int) -> Tensor:
        """Shares of `size` window pixels in each pixel of the crop, (N, pixels, size) float32: Pillow's bilinear."""
        taps = torch.arange(size, dtype=torch.float32, device=self.centres.device) + 0.5
        distance = (taps - self.centres.float().unsqueeze(2)).abs_() / self.supports.float().unsqueeze(2)
        weights = (1 - distance).clamp_min_(0) * (taps < self.extents).unsqueeze(1)
        return weights / weights.sum(2, keepdim=True).clamp_min_(1e-6)

    def nearest(self) -> Tensor:
        """The window pixel under each centre, (N, pixels) int64."""
        return self.centres.floor().clamp_min_(0).minimum(self.extents - 1).long()


def _centres(window: Window, crop: int) -> NDArray[np.float64]:
    """Where the centre of each pixel of the crop lies in the window that is cut out, -1 where it shows nothing."""
    centres = np.full(crop, -1.0)
    # the same sum as in `nearest`, and an exact difference: the two never take different labels
    shown = window.start + (np.arange(window.count) + 0.5) * window.step - window.reach()[0]
    centres[window.offset : window.offset + window.count] = shown
    return centres


def _extent_and_support(window: Window) -> tuple[int, float]:
    first, end = window.reach()
    return end - first, max(window.step, 1.0)


def _resample(windows: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(N, S, T, C), (N, h, S), (N, w, T) -> (N, C, h, w) float32."""
    count, height, width, channels = windows.shape
    planes = windows.permute(0, 1, 3, 2).to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    down = torch.bmm(rows, planes.view(count, height, channels * width))
    across = torch.bmm(down.view(count, -1, width), columns.transpose(1, 2))
    return across.view(count, rows.shape[1], channels, columns.shape[1]).transpose(1, 2).contiguous()
