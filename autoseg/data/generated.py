"""The built-in generated data set. Outline, texture, size and surroundings tell a shape's class; its colour does not.

Letters: H height and W width in pixels. Lengths are in pixels of a 96x96 image and grow with the image.
"""

from __future__ import annotations

import colorsys
import math
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from autoseg.config.data import ResolvedDataConfig
from autoseg.data.base import SegmentationDataset
from autoseg.errors import DataError

Plane: TypeAlias = NDArray[np.float64]

CLASSES = ("background", "disc", "square", "triangle", "striped", "pebble", "window")
"""disc, square, triangle: large plain shapes. striped: a large shape of any outline with fine stripes.
pebble: a small disc on the background. window: the same small disc within a large shape."""
LARGE_RADIUS = (16.0, 26.0)
SMALL_RADIUS = (5.5, 7.5)
"""Twice the largest small radius is below the smallest large radius: scaling by 0.5 to 2 keeps the classes apart."""
STRIPE_PERIOD = (4.5, 6.0)
LEAST_CONTRAST = 0.45
"""RGB distance, with channels in 0..1, between a shape's colour and the colours along its outline."""
_GAP = 2.5
"""Distance in pixels between a small disc and the outline of a large shape."""


class _Shape(NamedTuple):
    label: int
    outline: str
    row: float
    column: float
    radius: float
    angle: float = 0.0

    def distance(self, rows: Plane, columns: Plane) -> Plane:
        """Distance in pixels from each point to the outline; negative inside."""
        return OUTLINES[self.outline](columns - self.column, rows - self.row, self.radius, self.angle)


def _disc(x: Plane, y: Plane, radius: float, angle: float) -> Plane:
    return np.hypot(x, y) - radius


def _square(x: Plane, y: Plane, radius: float, angle: float) -> Plane:
    across, along = _turn(x, y, angle)
    return np.maximum(np.abs(across), np.abs(along)) - 0.85 * radius


def _triangle(x: Plane, y: Plane, radius: float, angle: float) -> Plane:
    first, second, third = (_turn(x, y, angle + turn * 2 * math.pi / 3)[0] for turn in range(3))
    return np.maximum(np.maximum(first, second), third) - 0.65 * radius


def _turn(x: Plane, y: Plane, angle: float) -> tuple[Plane, Plane]:
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


OUTLINES = {"disc": _disc, "square": _square, "triangle": _triangle}
_LARGE_LABELS = (1, 2, 3, 4)
_STRIPED, _PEBBLE, _WINDOW = (CLASSES.index(name) for name in ("striped", "pebble", "window"))


class GeneratedDataset(SegmentationDataset):
    """Images that are drawn on access. Sample i of a split depends only on (seed, split, i) and the settings."""

    def __init__(self, config: ResolvedDataConfig, split: str) -> None:
        drawn = config.generated
        lengths = {"train": drawn.train, "val": drawn.val, "test": drawn.test}
        if split not in lengths:
            raise DataError(
                f"the generated data set has no split '{split}'; it has {', '.join(lengths)}", code="unknown-split"
            )
        names = [f"{split}_{index:05d}" for index in range(lengths[split])]
        labels = config.classes, config.ignore_label, config.label_map
        super().__init__(names, *labels, config.resize, channels=config.channels, pixel_type=config.pixel_type)
        self._config = drawn
        self._stream = zlib.crc32(split.encode())

    def read(self, index: int) -> tuple[NDArray[Any], NDArray[np.integer[Any]]]:
        """Draw one image (H, W, C) and its mask (H, W). If C is not 3, the channels repeat red, green and blue."""
        rng = np.random.default_rng([self._config.seed, self._stream, index])
        image, mask = draw(rng, self._config.size, self._config.noise)
        if self.channels == 3 and self.image_dtype == np.uint8:
            return image, mask
        values = image[:, :, np.arange(self.channels) % 3]
        if self.image_dtype == np.uint16:
            return values.astype(np.uint16) * np.uint16(257), mask
        return (values / 255).astype(np.float32) if self.image_dtype == np.float32 else values, mask

    def stored_size(self, index: int) -> tuple[int, int]:
        """(H, W), the same for all samples."""
        return self._config.size


def draw(rng: Generator, size: tuple[int, int], noise: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One image (H, W, 3) and its mask (H, W), with the labels of `CLASSES`."""
    unit = max(min(size) / 96, 0.6)
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]] + 0.5
    image = _colour(rng, np.empty((0, 3))) + _shading(rng, rows, columns, unit)
    mask = np.zeros(size, dtype=np.uint8)
    for shape in _arrange(rng, size, unit):
        reach = 1.35 * shape.radius + 6 * unit
        place = (
            slice(max(0, int(shape.row - reach)), int(shape.row + reach)),
            slice(max(0, int(shape.column - reach)), int(shape.column + reach)),
        )
        _paint(rng, image[place], mask[place], shape, rows[place], columns[place], unit)
    image += rng.normal(0.0, noise, image.shape)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), mask


def _arrange(rng: Generator, size: tuple[int, int], unit: float) -> list[_Shape]:
    """Place large shapes, which may overlap, then small discs inside them and on the background."""
    area = size[0] * size[1] / (96 * unit) ** 2
    larges: list[_Shape] = []
    for _ in range(max(1, round(area * rng.integers(3, 5)))):
        label = int(rng.choice(_LARGE_LABELS))
        outline = tuple(OUTLINES)[rng.integers(3)] if label == _STRIPED else CLASSES[label]
        radius = unit * rng.uniform(*LARGE_RADIUS)
        for row, column in _spots(rng, size, 0.7 * radius):
            if all(math.hypot(row - o.row, column - o.column) > 0.9 * (radius + o.radius) for o in larges):
                larges.append(_Shape(label, outline, row, column, radius, rng.uniform(0, 2 * math.pi)))
                break
    return larges + _small_discs(rng, size, unit, larges, round(area * 3))


def _small_discs(
    rng: Generator, size: tuple[int, int], unit: float, larges: Sequence[_Shape], count: int
) -> list[_Shape]:
    """Up to `count` windows and `count` pebbles that do not touch each other."""
    discs: list[_Shape] = []
    for label in (_WINDOW, _PEBBLE):
        for _ in range(max(1, count)):
            radius = unit * rng.uniform(*SMALL_RADIUS)
            for row, column in _spots(rng, size, radius):
                apart = all(math.hypot(row - o.row, column - o.column) > radius + o.radius + _GAP for o in discs)
                if apart and _fits(label, row, column, radius + _GAP * unit, larges):
                    discs.append(_Shape(label, "disc", row, column, radius))
                    break
    return discs


def _spots(rng: Generator, size: tuple[int, int], margin: float, tries: int = 30) -> list[tuple[float, float]]:
    """Random (row, column) at a distance of at least `margin` from the border."""
    low, high = np.array([margin, margin]), np.array(size) - margin
    return [(float(row), float(column)) for row, column in low + (high - low) * rng.random((tries, 2))]


def _fits(label: int, row: float, column: float, reach: float, larges: Sequence[_Shape]) -> bool:
    """Whether a disc of radius `reach` lies outside all large shapes (pebble) or inside the uppermost one (window)."""
    for shape in reversed(larges):
        clearance = float(shape.distance(np.array(row), np.array(column)))
        if clearance <= reach:
            return label == _WINDOW and clearance < -reach
    return label == _PEBBLE


def _paint(
    rng: Generator, image: Plane, mask: NDArray[np.uint8], shape: _Shape, rows: Plane, columns: Plane, unit: float
) -> None:
    """Paint a shape and its shadow into a part of an image, and its label into the same part of the mask."""
    distance = shape.distance(rows, columns)
    around = image[np.abs(distance) < 1.5]
    shadow = np.clip(1 - shape.distance(rows - 1.5 * unit, columns - 1.5 * unit) / (3 * unit), 0, 1)
    image *= 1 - 0.3 * shadow[:, :, None]
    colour = _colour(rng, around)
    surface = colour + _shading(rng, rows, columns, unit)
    if shape.label == _STRIPED:
        second = _colour(rng, np.vstack([around, colour]))
        along, _ = _turn(columns, rows, rng.uniform(0, 2 * math.pi))
        wave = np.sin(2 * math.pi * along / (unit * rng.uniform(*STRIPE_PERIOD)))
        surface += np.clip(0.5 + wave, 0, 1)[:, :, None] * (second - colour)
    cover = np.clip(0.5 - distance, 0, 1)[:, :, None]  # the outline is blurred over one pixel
    image += cover * (surface - image)
    mask[distance < 0] = shape.label


def _colour(rng: Generator, others: Plane) -> Plane:
    """A random colour (3,) that differs from `others` (n, 3), or the best of 30. All classes share the distribution."""
    best, greatest = np.zeros(3), -1.0
    for hue, saturation, value in rng.random((30, 3)).tolist():
        colour = np.array(colorsys.hsv_to_rgb(hue, 0.2 + 0.6 * saturation, 0.3 + 0.65 * value))
        contrast = math.sqrt(np.square(others - colour).sum(axis=1).min(initial=3.0))
        if contrast > greatest:
            best, greatest = colour, contrast
        if contrast > LEAST_CONTRAST:
            break
    return best


def _shading(rng: Generator, rows: Plane, columns: Plane, unit: float) -> Plane:
    """A slow change of brightness over a surface, (H, W, 1)."""
    along, _ = _turn(columns, rows, rng.uniform(0, 2 * math.pi))
    wave = np.sin(2 * math.pi * (along / (unit * rng.uniform(60, 140)) + rng.random()))
    return 0.06 * np.asarray(wave)[:, :, None]
