"""What a training sample shows of an image: every number of a random view, drawn before any pixel is touched.

Letters: H, W height and width of an image, h, w of the crop, in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.config.training import AugmentConfig

PLACES = 10
"""That are tried for `max_class_share`, as mmsegmentation does for its `cat_max_ratio`."""
COARSE = 128
"""At least so many points an axis of a mask, where it has them, are looked at for that."""


class View(NamedTuple):
    """What a training sample shows of an image, and how it is changed, in this order."""

    rows: Window
    columns: Window
    blur: float
    """Standard deviation of a Gaussian, in pixels; 0 blurs nothing."""
    jitter: tuple[float, float, float]
    """Factors of brightness, contrast and saturation; all 1 where the colours stay."""
    flip: bool
    """Whether left and right are exchanged."""
    angle: float
    """By which it is then turned about its middle, counter-clockwise, in radians."""
    hole: tuple[int, int, int, int]
    """First row of what is cut out of the crop and the one after the last, then the columns."""


class CoarseMask(NamedTuple):
    """Every so many-th label of a mask, on the host: enough to see which class is the commonest."""

    labels: NDArray[np.integer[Any]]
    step: int
    """Pixels of the mask from one label to the next."""

    @staticmethod
    def step_of(height: int, width: int) -> int:
        """The step for a mask of this size."""
        return max(1, min(height, width) // COARSE)

    def commonest_share(self, rows: Window, columns: Window, ignore_label: int) -> float:
        """Share of the commonest class in the labelled pixels of a window; 1 where there are none."""
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
    """A random view of an image of `size` (H, W). The same numbers are drawn, whatever is used of them.

    `mask` is needed for `max_class_share` alone.
    """
    draws: list[float] = torch.rand(8, generator=generator, dtype=torch.float64).tolist()
    # after the others, whose meaning stays: without rotation, blur and cutout a seed shows what it always showed
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
    """Rows and columns around a crop on either side that it may show when it is turned by up to `degrees`; 0 for 0."""
    if degrees == 0:
        return 0, 0

    def margin(along: int, across: int) -> int:
        angle = min(math.radians(degrees), math.atan2(across, along))  # at which the turned crop is highest
        return math.ceil((along * (math.cos(angle) - 1) + across * math.sin(angle)) / 2) + 1

    return margin(*crop), margin(*crop[::-1])


class Window:
    """One axis of a crop: what of the source it shows, and where in the crop that lies.

    The source of `length` pixels is scaled to `scaled`; only the part that is shown is ever computed. A `margin` is
    added to the crop on either side, at the place where the crop lies without it.
    """

    def __init__(self, length: int, scaled: int, crop: int, draw: float, margin: int = 0) -> None:
        slack = int(draw * (abs(scaled - crop) + 1))
        corner = (slack if scaled >= crop else -slack) - margin
        first = max(corner, 0)
        self.length = length
        self.count = min(corner + crop + 2 * margin, scaled) - first
        """Pixels shown."""
        self.offset = first - corner
        """First of them in the crop."""
        self.step = length / scaled
        """Source pixels for one of them."""
        self.start = first * self.step
        """Where in the source the first begins."""
        self.stop = min(self.start + self.count * self.step, float(length))

    def reach(self) -> tuple[int, int]:
        """First source pixel that the filter of a resizing touches, and the one after the last."""
        margin = math.ceil(self.step) + 1
        return max(0, int(self.start) - margin), min(self.length, math.ceil(self.stop) + margin)


def _windows(
    size: tuple[int, int], crop: tuple[int, int], scale: float, degrees: float, places: Iterator[tuple[float, float]]
) -> Iterator[tuple[Window, Window]]:
    """The rows and columns of the crop at one place after the other."""
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
    """The first place in which no class has too great a share, or of all those tried the one in which it is least."""
    if mask is None or augment.max_class_share == 1:
        return next(windows)
    least, best = math.inf, None
    for window in windows:
        share = mask.commonest_share(*window, ignore_label)
        if share < least:
            least, best = share, window
        if share <= augment.max_class_share:
            break
    assert best is not None
    return best


def _hole(crop: tuple[int, int], augment: AugmentConfig, draws: list[float]) -> tuple[int, int, int, int]:
    """What is cut out, of two sizes and at a place that are drawn; nothing unless the first draw says so."""
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
