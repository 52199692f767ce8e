"""Regions of images as labelling programs store them, and how they become masks.

Coordinates are x to the right and y down, in pixels, and (0, 0) is the outer corner of the first pixel. A pixel belongs
to a polygon if its centre lies inside an odd number of the polygon's rings, so holes are rings like the outline.
Letters: H height and W width in pixels.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoseg.config.data import ANNOTATIONS
from autoseg.data.annotations.folder import invalid
from autoseg.data.io.arrays import check_pixels
from autoseg.data.wording import counted
from autoseg.errors import DataError

Points: TypeAlias = NDArray[np.float64]
"""(N, 2): x, y of the corners of a ring."""
BEYOND = 0.02
"""Corners may lie this share of the image's side outside it, by rounding; others are a mistake."""


class Bitmap(NamedTuple):
    """Pixels of a region in a box."""

    top: int
    left: int
    pixels: NDArray[np.bool_]


class Region(NamedTuple):
    """A part of an image that belongs to one class: the union of its polygons and its bitmap."""

    name: str
    """The class."""
    polygons: tuple[tuple[Points, ...], ...] = ()
    """The rings of each polygon: the outline and its holes."""
    bitmap: Bitmap | None = None

    @classmethod
    def of(cls, name: str, *rings: Points) -> Region:
        """One polygon: its outline and its holes."""
        return cls(name, (rings,))

    @classmethod
    def of_pixels(cls, name: str, pixels: NDArray[np.bool_], top: int = 0, left: int = 0) -> Region:
        """The pixels of a box whose corner lies at row `top` and column `left`."""
        return cls(name, bitmap=Bitmap(top, left, pixels))


class Drawing(NamedTuple):
    """What is drawn on one image."""

    size: tuple[int, int] | None
    """(H, W) as the annotation has it; None if it does not say."""
    regions: Sequence[Region]
    """In the order in which they are painted; later ones cover earlier ones."""


class AnnotatedImage(NamedTuple):
    """An image, the file that annotates it, and how to read that."""

    image: Path
    source: Path
    """The file that messages name."""
    read: Callable[[], Drawing]
    """Raises: DataError: the annotation makes no sense."""


@dataclass
class AnnotationSet:
    """All annotations of a folder, or those found so far."""

    layout: str
    """Its name as `data.layout`."""
    order: str
    """Which region covers which, in words."""
    sources: Sequence[Path]
    """All files that tell the annotations."""
    images: dict[str | None, list[AnnotatedImage]] = field(default_factory=lambda: defaultdict(list))
    """Split -> its images; None: images without a split."""
    names: Sequence[str] = ()
    """The class names in the order of their labels, if a file of the set gives it."""
    said: list[str] = field(default_factory=list)
    """What else must be said, a line each."""
    annotated: set[Path] = field(default_factory=set)
    """The images that `add` added."""

    def say(self, number: int, noun: str, what: str) -> None:
        """Say `what` of a number of things, if there are any."""
        if number:
            self.said.append(f"{counted(number, noun)} {what}")

    @property
    def title(self) -> str:
        """What messages call it."""
        return ANNOTATIONS[self.layout]

    def add(self, split: str | None, image: Path, source: Path, read: Callable[[], Drawing]) -> None:
        """Add an `AnnotatedImage` to a split. Raises: DataError: the image has an annotation already."""
        if image in self.annotated:
            raise DataError(f"{source} annotates {image} a second time; remove one", code="image-twice")
        self.annotated.add(image)
        self.images[split].append(AnnotatedImage(image, source, read))


# --- shapes -----------------------------------------------------------------------------------------------------------


def ring(points: Any, source: Path | str, what: str = "a polygon", flat: bool = False) -> Points:
    """Corners as an array. flat: they come as x, y, x, y, ... in one row.

    Raises: DataError: fewer than three, or no pairs of finite numbers.
    """
    try:
        corners = np.asarray(points, dtype=np.float64)
        corners = corners.reshape(-1, 2) if flat else corners
        good = corners.ndim == 2 and corners.shape[1] == 2 and bool(np.isfinite(corners).all())
    except (TypeError, ValueError):
        good = False
    if not good:
        raise invalid(f"{source} has {what} that is no list of x and y", "correct or remove it")
    if len(corners) < 3:
        raise DataError(
            f"{source} has {what} of {len(corners)} points, which encloses nothing; give it three or remove it",
            code="polygon-too-short",
        )
    return corners


def box(left: float, top: float, right: float, bottom: float) -> Points:
    """The corners of a box."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], dtype=np.float64)


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0.0) -> Points:
    """The corners of a polygon that follows an ellipse to a tenth of a pixel, turned clockwise around its centre."""
    largest = max(abs(radius_x), abs(radius_y), 1.0)
    count = max(12, math.ceil(math.pi / math.acos(1 - min(0.1 / largest, 1.0))))
    turns = np.arange(count) * (2 * math.pi / count)
    return turned(np.stack([x + radius_x * np.cos(turns), y + radius_y * np.sin(turns)], 1), (x, y), degrees)


def turned(corners: Points, around: tuple[float, float], degrees: float) -> Points:
    """Corners turned clockwise, as an image shows them."""
    angle = math.radians(degrees)
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    result: Points = (corners - around) @ rotation + around
    return result


def runs(
    counts: Iterable[int], size: tuple[int, int], source: Path | str, by_column: bool = False
) -> NDArray[np.bool_]:
    """Pixels (H, W) of run lengths that begin with a run of background. Raises: DataError: they fill another size."""
    height, width = size
    lengths = np.asarray([min(count, height * width + 1) for count in counts], dtype=np.int64)
    if (lengths < 0).any() or int(lengths.sum()) != height * width:
        raise DataError(
            f"{source} has run lengths of {int(lengths.sum()):,} pixels for {width}x{height}; export it again",
            code="runs-of-another-size",
        )
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return flat.reshape(width, height).T if by_column else flat.reshape(height, width)


def by_area(regions: Iterable[Region]) -> list[Region]:
    """Regions in the order in which smaller ones cover larger ones."""
    return sorted(regions, key=area, reverse=True)


def area(region: Region) -> float:
    """The area in pixels, without the overlap of polygons."""
    drawn = 0.0 if region.bitmap is None else float(region.bitmap.pixels.sum())
    return drawn + sum(abs(_shoelace(rings[0])) - sum(abs(_shoelace(hole)) for hole in rings[1:])
                       for rings in region.polygons)  # fmt: skip


def _shoelace(corners: Points) -> float:
    x, y = corners.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


# --- painting ---------------------------------------------------------------------------------------------------------


def paint(drawing: Drawing, size: tuple[int, int], labels: Mapping[str, int], source: Path) -> NDArray[Any]:
    """A mask (H, W) of uint16: the labels of the regions, and 0 where there is none.

    Raises: DataError: a region outside the image, or of a class that `labels` does not have.
    """
    check_pixels(source, size)
    mask = np.zeros(size, dtype=np.uint16)
    for region in drawing.regions:
        if region.name not in labels:
            raise DataError(
                f"{source} has the class {region.name!r}, which is none of the data set's; correct it, or add it to"
                " data.classes",
                code="unknown-class",
            )
        for rings in region.polygons:
            _fill(mask, rings, labels[region.name], source)
        if region.bitmap is not None:
            _stamp(mask, region.bitmap, labels[region.name], source)
    return mask


def _fill(mask: NDArray[Any], rings: Sequence[Points], label: int, source: Path) -> None:
    corners = np.concatenate(rings)
    height, width = mask.shape
    least, most = corners.min(0), corners.max(0)
    beyond = max(1.0, BEYOND * width), max(1.0, BEYOND * height)
    if (least < (-beyond[0], -beyond[1])).any() or (most > (width + beyond[0], height + beyond[1])).any():
        x, y = (round(float(value), 1) for value in (least if (least < -1).any() else most))
        raise DataError(
            f"{source} has a polygon that reaches ({x:g}, {y:g}), outside its image of {width}x{height}; correct it",
            code="polygon-outside",
        )
    left, top = (max(0, math.floor(value)) for value in least)
    right, bottom = min(width, math.ceil(most[0])), min(height, math.ceil(most[1]))
    if left < right and top < bottom:
        inside = filled([one - (left, top) for one in rings], (bottom - top, right - left))
        mask[top:bottom, left:right][inside] = label


def filled(rings: Sequence[Points], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels (H, W) whose centres lie inside an odd number of rings (even-odd rule)."""
    height, width = size
    crossings = np.zeros((height, width + 1), dtype=np.bool_)
    for corners in rings:
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, 0), strict=True):
            if y0 > y1:
                x0, y0, x1, y1 = x1, y1, x0, y0
            # rows whose centre lies in [y0, y1), so a corner counts for one of its two edges
            rows = np.arange(max(0, math.ceil(y0 - 0.5)), min(height, math.ceil(y1 - 0.5)))
            if len(rows):
                x = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
                crossings[rows, np.ceil(x - 0.5).clip(0, width).astype(np.int64)] ^= True
    inside: NDArray[np.bool_] = np.logical_xor.accumulate(crossings, 1)[:, :-1]
    return inside


def _stamp(mask: NDArray[Any], bitmap: Bitmap, label: int, source: Path) -> None:
    height, width = bitmap.pixels.shape
    top, left = bitmap.top, bitmap.left
    if top < 0 or left < 0 or top + height > mask.shape[0] or left + width > mask.shape[1]:
        raise DataError(
            f"{source} has a mask of {width}x{height} at ({left}, {top}), outside its image of"
            f" {mask.shape[1]}x{mask.shape[0]}; export it again",
            code="polygon-outside",
        )
    mask[top : top + height, left : left + width][bitmap.pixels] = label
