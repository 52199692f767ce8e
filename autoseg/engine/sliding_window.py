"""Sliding windows: logits of large images from overlapping windows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.ops.devices import preferred_format

WINDOW_PIXELS = 2**20
"""Most pixels of windows in one forward pass, unless one window has more; memory does not grow with the image."""
SIGMA = 1 / 8
"""Standard deviation of a window's weights as a share of its length (nnU-Net, Isensee et al. 2021)."""


def sliding_bands(
    network: nn.Module, images: Tensor, window: tuple[int, int], overlap: float = 0.5,
    window_pixels: int = WINDOW_PIXELS,
) -> Iterator[Tensor]:  # fmt: skip
    """(N, C, H, W) -> (N, K, rows, W): logits of evenly spread windows, blended where they overlap.

    Bands come from top to bottom, each as soon as no further window covers its rows. Windows overlap by at least
    `overlap` of their length. A pixel's logits are the mean over its windows, weighted by a Gaussian around each
    window's middle, since a network is least certain near the border. A window larger than the image is cut to it.
    Logits are float32 at least.
    """
    height, width = (min(part, whole) for part, whole in zip(window, images.shape[2:], strict=True))
    rows, columns = (
        list(zip(*axis_windows(whole, part, overlap), strict=True))
        for whole, part in zip(images.shape[2:], (height, width), strict=True)
    )
    places = list(itertools.product(rows, columns))
    together = max(1, window_pixels // (len(images) * height * width))
    blended, top = images.new_empty(0), 0
    for first in range(0, len(places), together):
        chosen = places[first : first + together]
        views = [images[:, :, above : above + height, left : left + width] for (above, _), (left, _) in chosen]
        answers = network(torch.cat(views).contiguous(memory_format=preferred_format(images.device)))
        answers = answers.to(torch.promote_types(answers.dtype, torch.float32))
        if first == 0:
            blended = answers.new_zeros(len(images), answers.shape[1], height, images.shape[3])
        for answer, ((above, down), (left, across)) in zip(answers.split(len(images)), chosen, strict=True):
            if above > top:
                yield blended[:, :, : above - top]
                blended, top = F.pad(blended[:, :, above - top :], (0, 0, 0, above - top)), above
            weight = (down[:, None] * across).to(answer)
            blended[:, :, :, left : left + width] += answer * weight
    yield blended


def axis_windows(length: int, window: int, overlap: float) -> tuple[list[int], Tensor]:
    """Windows along one axis: their starts, and their weights of each pixel, (windows, window) float64.

    The fewest evenly spread windows that overlap by at least `overlap` and reach from 0 to the end. A pixel's weights
    sum to 1.
    """
    stride = max(1, int(window * (1 - overlap)))
    last = length - window
    steps = -(-last // stride)
    starts = [(2 * last * number + steps) // (2 * steps) for number in range(steps + 1)] if steps else [0]
    middles = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    bell = torch.exp(-0.5 * (middles / (SIGMA * window)) ** 2)
    total = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        total[start : start + window] += bell
    return starts, torch.stack([bell / total[start : start + window] for start in starts])
