"""The random views of `transforms.augment`, made for a whole batch at once, on a GPU.

A view is linear in the image along each axis: every pixel of the crop is a mean of a few source pixels, with the
weights of Pillow's antialiased bilinear filter. So a batch is two batched matrix products, one for the rows and one
for the columns, and nothing in it waits for the device: all numbers are drawn on the host and sent in one piece.

Letters: N samples, H, W height and width of a sample, h, w of the crop, S, T of the windows that are cut out, in
pixels. A window is that part of an image which its view shows, with what the filter touches around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoseg.config import AugmentConfig, Rgb
from autoseg.data.packed import to_labels
from autoseg.data.transforms import GREY, View, Window, draw_view, normalisation

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
        mean: Rgb,
        std: Rgb,
        ignore_label: int,
        device: torch.device,
    ) -> None:
        self.crop, self.augment, self.ignore_label, self.device = crop, augment, ignore_label, device
        self._scale, self._shift = normalisation(mean, std, device)
        self._grey = torch.tensor(GREY, dtype=torch.float32, device=device).view(3, 1, 1)

    def __call__(self, samples: Sequence[Pair], generators: Sequence[torch.Generator]) -> Pair:
        """Images (N, 3, h, w) float32, masks (N, h, w) int64, both on the device, of samples that lie anywhere.

        `samples`: images (H, W, 3) uint8 and masks (H, W), uint8, or int16 for uint16. `generators`: one a sample.
        """
        views = [
            draw_view((mask.shape[0], mask.shape[1]), self.crop, self.augment, generator)
            for (_, mask), generator in zip(samples, generators, strict=True)
        ]
        windows, window_masks = self._cut(samples, views)
        rows, columns, jitter = self._send(views)
        shown = rows.shown.unsqueeze(2) & columns.shown.unsqueeze(1)
        images = _resample(windows, rows.weights(windows.shape[1]), columns.weights(windows.shape[2]))
        if self.augment.colour > 0:
            images = self._recolour(images, shown.unsqueeze(1), jitter)
        images = (images * self._scale + self._shift) * shown.unsqueeze(1)
        return images, self._label(window_masks, rows.nearest(), columns.nearest(), shown)

    def _cut(self, samples: Sequence[Pair], views: Sequence[View]) -> Pair:
        """The windows of all views in one size, (N, S, T, 3) and (N, S, T); what is too much of it holds anything."""
        source = samples[0][0].device
        pinned = source.type == "cpu" and self.device.type == "cuda"
        spans = [(slice(*view.rows.reach()), slice(*view.columns.reach())) for view in views]
        height, width = (max(span[axis].stop - span[axis].start for span in spans) for axis in (0, 1))
        mask_type = samples[0][1].dtype
        images = torch.empty(len(views), height, width, 3, dtype=torch.uint8, device=source, pin_memory=pinned)
        masks = torch.empty(len(views), height, width, dtype=mask_type, device=source, pin_memory=pinned)
        for number, ((image, mask), (down, across)) in enumerate(zip(samples, spans, strict=True)):
            place = (number, slice(down.stop - down.start), slice(across.stop - across.start))
            images[place], masks[place] = image[down, across], mask[down, across]
        return images.to(self.device, non_blocking=True), masks.to(self.device, non_blocking=True)

    def _send(self, views: Sequence[View]) -> tuple[_Axis, _Axis, Tensor]:
        """The rows, the columns, and the factors of the colour jitter (N, 3), in one transfer."""
        h, w = self.crop
        numbers = torch.empty(len(views), h + w + 7, dtype=torch.float64, pin_memory=self.device.type == "cuda")
        for row, view in zip(numbers.numpy(), views, strict=True):
            row[:h] = _centres(view.rows, h)
            row[h : h + w] = _centres(view.columns, w)[:: -1 if view.flip else 1]
            row[h + w :] = *_extent_and_support(view.rows), *_extent_and_support(view.columns), *view.jitter
        sent = numbers.to(self.device, non_blocking=True)
        limits = sent[:, h + w :]
        rows = _Axis(sent[:, :h], limits[:, 0:1], limits[:, 1:2])
        columns = _Axis(sent[:, h : h + w], limits[:, 2:3], limits[:, 3:4])
        return rows, columns, limits[:, 4:].float()

    def _recolour(self, images: Tensor, shown: Tensor, jitter: Tensor) -> Tensor:
        """As `augment`: brightness, contrast, saturation; the contrast is about the mean of what is `shown`."""
        brightness, contrast, saturation = jitter.view(-1, 3, 1, 1, 1).unbind(1)
        colours = (images * brightness).clamp_(0, 255)
        grey = (colours * self._grey).sum(1, keepdim=True)
        mean = (grey * shown).sum((2, 3), keepdim=True) / shown.sum((2, 3), keepdim=True)
        colours = torch.lerp(mean, colours, contrast).clamp_(0, 255)
        grey = (colours * self._grey).sum(1, keepdim=True)
        return torch.lerp(grey, colours, saturation).clamp_(0, 255)

    def _label(self, masks: Tensor, down: Tensor, across: Tensor, shown: Tensor) -> Tensor:
        """The label under the centre of each pixel, and the ignore label where nothing is shown: (N, h, w) int64."""
        sample = torch.arange(len(masks), device=self.device).view(-1, 1, 1)
        labels = to_labels(masks[sample, down.unsqueeze(2), across.unsqueeze(1)])
        return labels.masked_fill_(~shown, self.ignore_label)


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
    """(N, S, T, 3) uint8, (N, h, S), (N, w, T) -> (N, 3, h, w) float32, 0..255."""
    count, height, width, _ = windows.shape
    planes = windows.permute(0, 1, 3, 2).to(torch.float32, memory_format=torch.contiguous_format)
    down = torch.bmm(rows, planes.view(count, height, 3 * width))
    across = torch.bmm(down.view(count, -1, width), columns.transpose(1, 2))
    return across.view(count, rows.shape[1], 3, columns.shape[1]).transpose(1, 2).contiguous()
