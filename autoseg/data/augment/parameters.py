"""The random numbers of an augmentation, drawn before any pixel is touched.

Letters: H, W height and width of an image, h, w of the crop, in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.config.training import AugmentConfig

PLACES = 10
"""Number of crops tried for `max_class_share`, as in mmsegmentation for `cat_max_ratio`."""
COARSE = 128
"""Least number of points per axis of a `CoarseMask`, if the mask has as many."""


class View(NamedTuple):
    """A random view of an image. The fields after `columns` apply in their order."""

    rows: Window
    columns: Window
    blur: float
    """Standard deviation of the Gaussian blur, in pixels; 0: no blur."""
    jitter: tuple[float, float, float]
    """Factors of brightness, contrast and saturation; 1 changes nothing."""
    flip: bool
    """Whether the crop is mirrored left to right."""
    angle: float
    """Counter-clockwise rotation about the crop's centre, after the flip, in radians."""
    hole: tuple[int, int, int, int]
    """The cutout in the crop: first row, end of rows, first column, end of columns."""


class CoarseMask(NamedTuple):
    """A subsampled mask on the host, to estimate the share of the commonest class."""

    labels: NDArray[np.integer[Any]]
    step: int
    """Distance in mask pixels between neighbouring labels."""

    @staticmethod
    def step_of(height: int, width: int) -> int:
        """The step for a mask of (height, width)."""
        return max(1, min(height, width) // COARSE)

    def commonest_share(self, rows: Window, columns: Window, ignore_label: int) -> float:
        """Share of the commonest class among the labelled pixels of a window; 1 if there are none."""
        down, across = (
            slice(int(axis.start / self.step), max(int(axis.start / self.step) + 1, math.ceil(axis.stop / self.step)))
            for axis in (rows, columns)
        )
        shown = self.labels[down, across]
        counts = np.bincount(shown[shown != ignore_label].ravel(), minlength=1)
        return float(counts.max() / counts.sum()) if counts.any() else 1.0


def draw_view(
    size: tuple[int, int],
    crop: tuple[int, int],
    augment: AugmentConfig,
    generator: torch.Generator,
    mask: CoarseMask | None = None,
    ignore_label: int = 255,
) -> View:
    """A random view of an image of `size` (H, W). The settings do not change how many numbers are drawn.

    `mask` is needed only for `max_class_share`.
    """
    draws: list[float] = torch.rand(8, generator=generator, dtype=torch.float64).tolist()
    # drawn after the others: a seed shows the same crops with and without rotation, blur and cutout
    turn, *later = torch.rand(8 + 2 * (PLACES - 1), generator=generator, dtype=torch.float64).tolist()
    scale = _between(augment.scale, draws[0])
    places = iter(zip(draws[1:2] + later[7::2], draws[2:3] + later[8::2], strict=True))
    rows, columns = _choose(_windows(size, crop, scale, augment.rotate, places), augment, mask, ignore_label)
    brightness, contrast, saturation = (1 + augment.colour * (2 * draw - 1) for draw in draws[4:7])
    return View(
        rows,
        columns,
        _between(augment.blur_sigma, later[1]) if later[0] < augment.blur else 0.0,
        (brightness, contrast, saturation),
        draws[3] < augment.flip,
        math.radians(augment.rotate * (2 * turn - 1)),
        _hole(crop, augment, later[2:7]),
    )


def rotation_margins(crop: tuple[int, int], degrees: float) -> tuple[int, int]:
    """Rows and columns to add on each side of a crop so that a rotation by up to `degrees` leaves no empty corner."""
    if degrees == 0:
        return 0, 0

    def margin(along: int, across: int) -> int:
        angle = min(math.radians(degrees), math.atan2(across, along))  # the angle at which the rotated crop is highest
        return math.ceil((along * (math.cos(angle) - 1) + across * math.sin(angle)) / 2) + 1

    return margin(*crop), margin(*crop[::-1])


class Window:
    """One axis of a crop: which part of the source it shows, and where in the crop that part lies.

    The source of `length` pixels is scaled to `scaled` pixels; only the part that is shown is computed. `margin` pixels
    are added on each side without moving the crop.
    """

    def __init__(self, length: int, scaled: int, crop: int, draw: float, margin: int = 0) -> None:
        slack = int(draw * (abs(scaled - crop) + 1))
        corner = (slack if scaled >= crop else -slack) - margin
        first = max(corner, 0)
        self.length = length
        self.count = min(corner + crop + 2 * margin, scaled) - first
        """Number of crop pixels that show the source."""
        self.offset = first - corner
        """Index of the first of them in the crop with its margins."""
        self.edges = (self.offset, crop + 2 * margin - self.offset - self.count)
        """Number of pixels of the crop before and after them."""
        self.step = length / scaled
        """Source pixels per crop pixel."""
        self.start = first * self.step
        """Source position at which the first begins, in pixels."""
        self.stop = min(self.start + self.count * self.step, float(length))

    def reach(self) -> tuple[int, int]:
        """First source pixel that the resize filter reads, and the end (exclusive)."""
        margin = math.ceil(self.step) + 1
        return max(0, int(self.start) - margin), min(self.length, math.ceil(self.stop) + margin)


def _windows(
    size: tuple[int, int], crop: tuple[int, int], scale: float, degrees: float, places: Iterator[tuple[float, float]]
) -> Iterator[tuple[Window, Window]]:
    """Rows and columns of the crop at each of `places`."""
    margins = rotation_margins(crop, degrees)
    for place in places:
        rows, columns = (
            Window(length, max(1, round(length * scale)), shown, draw, margin)
            for length, shown, draw, margin in zip(size, crop, place, margins, strict=True)
        )
        yield rows, columns


def _choose(
    windows: Iterator[tuple[Window, Window]], augment: AugmentConfig, mask: CoarseMask | None, ignore_label: int
) -> tuple[Window, Window]:
    """The first crop in which no class exceeds `max_class_share`, or else the crop in which the share is least."""
    if mask is None or augment.max_class_share == 1:
        return next(windows)
    best, least = next(windows), math.inf
    for window in chain([best], windows):
        share = mask.commonest_share(*window, ignore_label)
        if share < least:
            best, least = window, share
        if share <= augment.max_class_share:
            break
    return best


def _hole(crop: tuple[int, int], augment: AugmentConfig, draws: list[float]) -> tuple[int, int, int, int]:
    """The cutout (`View.hole`); empty unless the first draw is below `augment.cutout`. draws: (5,)."""
    if draws[0] >= augment.cutout:
        return 0, 0, 0, 0
    limits = []
    for length, size, place in zip(crop, draws[1:3], draws[3:5], strict=True):
        cut = max(1, round(length * _between(augment.cutout_size, size)))
        first = int(place * (length - cut + 1))
        limits += [first, first + cut]
    return limits[0], limits[1], limits[2], limits[3]


def _between(limits: tuple[float, float], draw: float) -> float:
    low, high = limits
    return low + (high - low) * draw
