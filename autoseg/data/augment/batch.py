"""The augmentation of `sample.augment` for a whole batch at once, on a GPU.

Resizing and blurring are linear along each axis: the weights are those of Pillow's antialiased bilinear filter, times a
Gaussian. So a batch needs two batched matrix products, one for rows and one for columns. The host draws all numbers and
sends them in one transfer, so nothing waits for the device. Only a rotation samples the crop once more.

Letters, in pixels: N samples, C channels, H, W size of a sample, h, w of the crop with its rotation margins, S, T of
the windows. A window is the part of an image that its view shows, plus the pixels that the filter reads around it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

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
    """Makes batches on `device`, as `augment` does, but without rounding colours to whole numbers.

    Masks are equal. Images differ by up to one grey level before the colour jitter, since Pillow rounds by up to a half
    after the columns and after the rows. With TF32 products they differ by up to one and a half.
    """

    def __init__(
        self,
        crop: tuple[int, int],
        augment: AugmentConfig,
        mean: Sequence[float],
        std: Sequence[float],
        ignore_label: int,
        device: torch.device,
        mirrored: Tensor | None = None,
    ) -> None:
        """mirrored: the label that each label becomes in a flipped view (`mirrored_labels`)."""
        self.crop, self.augment, self.ignore_label, self.device = crop, augment, ignore_label, device
        margins = rotation_margins(crop, augment.rotate)
        self._frame = (crop[0] + 2 * margins[0], crop[1] + 2 * margins[1])
        self._constants = {
            getattr(torch, name): normalisation(mean, std, device, full) for name, full in FULL_SCALES.items()
        }
        self._mirrored = None if mirrored is None else mirrored.to(device)
        self._grey = torch.tensor(GREY, dtype=torch.float32, device=device).view(3, 1, 1)

    def __call__(
        self,
        samples: Sequence[Pair],
        generators: Sequence[torch.Generator],
        coarse_masks: Sequence[CoarseMask | None] | None = None,
    ) -> Pair:
        """Images (N, C, h, w) float32 and masks (N, h, w) int64, both on the device, of samples on any device.

        `samples`: images (H, W, C) uint8, uint16 or float32, and masks (H, W) as `mask_tensor` gives them.
        `generators`: one per sample. `coarse_masks` are needed if `max_class_share` is less than 1.
        """
        coarse_masks = coarse_masks or [None] * len(samples)
        views = [
            draw_view((mask.shape[0], mask.shape[1]), self.crop, self.augment, generator, coarse, self.ignore_label)
            for (_, mask), generator, coarse in zip(samples, generators, coarse_masks, strict=True)
        ]
        windows, window_masks = self._cut(samples, views)
        rows, columns, jitter, blur, (cosines, sines), limits, flips = self._send(views)
        shown = rows.shown.unsqueeze(2) & columns.shown.unsqueeze(1)
        images = self._resampled(windows, rows, columns, blur)
        if self.augment.colour > 0:
            images = self._recolour(images, shown.unsqueeze(1), jitter, value_range(windows.dtype))
        scale, shift = self._constants[windows.dtype]
        images = (images * scale + shift) * shown.unsqueeze(1)
        masks = self._label(window_masks, rows.nearest(), columns.nearest(), shown)
        if self._mirrored is not None:
            masks = torch.where(flips > 0, self._mirrored[masks], masks)
        if self.augment.rotate > 0:
            images, masks = turned(images, masks, cosines, sines, self.crop, self.ignore_label)
        if self.augment.cutout > 0:
            hole = self._hole(limits)
            images, masks = images.masked_fill_(hole.unsqueeze(1), 0), masks.masked_fill_(hole, self.ignore_label)
        return images, masks

    def _cut(self, samples: Sequence[Pair], views: Sequence[View]) -> Pair:
        """The windows of all views, (N, S, T, C) and (N, S, T). Pixels beyond a smaller window are undefined."""
        source, channels = samples[0][0].device, samples[0][0].shape[2]
        pinned = source.type == "cpu" and self.device.type == "cuda"
        spans = [(slice(*view.rows.reach()), slice(*view.columns.reach())) for view in views]
        height, width = (max(span[axis].stop - span[axis].start for span in spans) for axis in (0, 1))
        image_type, mask_type = (part.dtype for part in samples[0])
        make = torch.zeros if image_type.is_floating_point else torch.empty  # an undefined float may be NaN
        images = make(len(views), height, width, channels, dtype=image_type, device=source, pin_memory=pinned)
        masks = torch.empty(len(views), height, width, dtype=mask_type, device=source, pin_memory=pinned)
        for number, ((image, mask), (down, across)) in enumerate(zip(samples, spans, strict=True)):
            place = (number, slice(down.stop - down.start), slice(across.stop - across.start))
            images[place], masks[place] = image[down, across], mask[down, across]
        return images.to(self.device, non_blocking=True), masks.to(self.device, non_blocking=True)

    def _send(self, views: Sequence[View]) -> tuple[_Axis, _Axis, Tensor, Tensor, Sequence[Tensor], Tensor, Tensor]:
        """Send the numbers of all views to the device in one transfer.

        Rows, columns, factors of brightness, contrast and saturation (N, 3), standard deviations of the blur (N, 1),
        cosines and sines of the rotations (N, 1) float64, limits of the cutouts (N, 4), see `View.hole`, and 1 for each
        flipped view, else 0 (N, 1, 1).
        """
        h, w = self._frame
        numbers = torch.empty(len(views), h + w + 15, dtype=torch.float64, pin_memory=self.device.type == "cuda")
        for row, view in zip(numbers.numpy(), views, strict=True):
            row[:h] = _centres(view.rows, h)
            row[h : h + w] = _centres(view.columns, w)[:: -1 if view.flip else 1]
            row[h + w : h + w + 4] = *_extent_and_support(view.rows), *_extent_and_support(view.columns)
            rotation = math.cos(view.angle), math.sin(view.angle)
            row[h + w + 4 :] = *view.jitter, view.blur, *rotation, *view.hole, view.flip
        sent = numbers.to(self.device, non_blocking=True)
        rest = sent[:, h + w :]
        rows = _Axis(sent[:, :h], rest[:, 0:1], rest[:, 1:2])
        columns = _Axis(sent[:, h : h + w], rest[:, 2:3], rest[:, 3:4])
        rotations = rest[:, 8:10, None].unbind(1)
        jitter, blur = rest[:, 4:7].float(), rest[:, 7:8].float()
        return rows, columns, jitter, blur, rotations, rest[:, 10:14], rest[:, 14:, None]

    def _resampled(self, windows: Tensor, down: _Axis, across: _Axis, blur: Tensor) -> Tensor:
        """The resized and blurred crops of windows (N, S, T, C): (N, C, h, w) float32."""
        count, height, width, channels = windows.shape
        rows, columns = down.weights(height), across.weights(width)
        if self.augment.blur > 0:
            rows = torch.bmm(gaussian(down.shown, blur), rows)
            columns = torch.bmm(gaussian(across.shown, blur), columns)
        planes = windows.permute(0, 1, 3, 2).to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        resized = torch.bmm(rows, planes.view(count, height, channels * width))
        resized = torch.bmm(resized.view(count, -1, width), columns.transpose(1, 2))
        return resized.view(count, rows.shape[1], channels, columns.shape[1]).transpose(1, 2).contiguous()

    def _recolour(self, images: Tensor, shown: Tensor, jitter: Tensor, limits: tuple[float, float]) -> Tensor:
        """Change brightness, contrast and saturation as `augment` does; contrast keeps the mean of `shown`."""
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
        """Which pixels lie in the cutouts, (N, h, w) bool. limits: (N, 4), see `View.hole`."""
        top, bottom, left, right = limits.unsqueeze(2).unbind(1)
        down, across = (torch.arange(length, device=self.device) for length in self.crop)
        rows, columns = (down >= top) & (down < bottom), (across >= left) & (across < right)
        return rows.unsqueeze(2) & columns.unsqueeze(1)

    def _label(self, masks: Tensor, down: Tensor, across: Tensor, shown: Tensor) -> Tensor:
        """The label under each pixel's centre, or the ignore label outside the image: (N, h, w) int64."""
        sample = torch.arange(len(masks), device=self.device).view(-1, 1, 1)
        labels = to_labels(masks[sample, down.unsqueeze(2), across.unsqueeze(1)])
        return labels.masked_fill_(~shown, self.ignore_label)


class _Axis:
    """One axis of all crops. `centres` (N, pixels): window positions of the pixels' centres, -1 outside the image.

    `extents` (N, 1): lengths of the windows. `supports` (N, 1): radius of the filter. All in window pixels.
    """

    def __init__(self, centres: Tensor, extents: Tensor, supports: Tensor) -> None:
        self.centres, self.extents, self.supports = centres, extents, supports
        self.shown = centres >= 0

    def weights(self, size: int) -> Tensor:
        """Weights of `size` window pixels in each crop pixel, (N, pixels, size) float32, those of Pillow's bilinear."""
        taps = torch.arange(size, dtype=torch.float32, device=self.centres.device) + 0.5
        distance = (taps - self.centres.float().unsqueeze(2)).abs_() / self.supports.float().unsqueeze(2)
        weights = (1 - distance).clamp_min_(0) * (taps < self.extents).unsqueeze(1)
        return weights / weights.sum(2, keepdim=True).clamp_min_(1e-6)

    def nearest(self) -> Tensor:
        """The window pixel under each centre, (N, pixels) int64."""
        return self.centres.floor().clamp_min_(0).minimum(self.extents - 1).long()


def _centres(window: Window, crop: int) -> NDArray[np.float64]:
    """The window position of each crop pixel's centre, (crop,); -1 outside the image."""
    centres = np.full(crop, -1.0)
    # the same sum as in `nearest` and an exact difference, so that both take the same labels
    shown = window.start + (np.arange(window.count) + 0.5) * window.step - window.reach()[0]
    centres[window.offset : window.offset + window.count] = shown
    return centres


def _extent_and_support(window: Window) -> tuple[int, float]:
    first, end = window.reach()
    return end - first, max(window.step, 1.0)
