"""A data set at a glance: some of its images, each with its mask in colour.

H, W: height and width in pixels; C: channels. Lengths are in inches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from autoseg.errors import DataError
from autoseg.viz.palette import as_picture, colour
from autoseg.viz.samples import LEGEND_ROW, class_patches, draw_legend, draw_picture, legend_columns
from autoseg.viz.style import MUTED, PNG_DPI, styled

WIDTH, MARGIN = 7.0, 0.05
"""Of the sheet: the text width of a page."""
GAP, BETWEEN, ROW_GAP = 0.03, 0.13, 0.08
"""Between an image and its mask, one sample and that beside it, and rows."""
NAME = 0.15
"""Height of a sample's name."""
NAME_SIZE, LETTER = 6.5, 0.052
"""Points, and the width of a letter."""
WIDE = 1.6
"""From this width to height on, the mask is below its image, four samples a row; else beside it, three a row."""


class SheetSample(NamedTuple):
    """What is shown of a sample: a name and two pictures, (H, W, 3) uint8."""

    name: str
    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]


@styled
def draw_contact_sheet(
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    names: Sequence[str],
    palette: np.ndarray,
    classes: Sequence[str],
    ignore_label: int | None,
) -> Figure:
    """Each image with its mask in colour under its name; below, the colours of the classes that appear.

    images: (H, W, C) uint8, or any numbers, which are then stretched; a single channel is shown as grey, and of others
    than three the first three. masks: (H, W) integers. palette: (classes, 3) uint8. Sizes may differ.
    Raises: DataError: numbers of samples that differ, or none; sizes of an image and its mask that differ; a label
    without a colour.
    """
    if not names or not len(images) == len(masks) == len(names):
        raise DataError(
            f"a contact sheet needs a mask and a name an image, not {len(images)} images, {len(masks)} masks and"
            f" {len(names)} names",
            code="sample-counts-differ",
        )
    samples = [
        SheetSample(name, as_picture(image), _coloured(name, image, mask, palette, ignore_label))
        for name, image, mask in zip(names, images, masks, strict=True)
    ]
    handles = class_patches(masks, palette, classes, ignore_label)
    aspect = float(np.median([sample.image.shape[1] / sample.image.shape[0] for sample in samples]))
    beside = legend_columns(handles, WIDTH)
    legend = LEGEND_ROW * -(-len(handles) // beside) + 0.08
    grid = _grid(len(samples), float(np.clip(aspect, 0.4, 4.0)))
    height = grid.rows * (grid.height + ROW_GAP) + legend
    figure = Figure(figsize=(WIDTH + 2 * MARGIN, height + 2 * MARGIN))
    for number, sample in enumerate(samples):
        _draw_sample(figure, sample, grid, number)
    draw_legend(figure, handles, beside)
    return figure


class _Grid(NamedTuple):
    """Samples a row and rows; the box of one picture, and the whole of a sample."""

    columns: int
    rows: int
    picture: tuple[float, float]
    """Width and height."""
    width: float
    height: float
    stacked: bool
    """The mask is below the image, not beside it."""


def _grid(count: int, aspect: float) -> _Grid:
    stacked = aspect >= WIDE
    columns = min(count, 4 if stacked else 3)
    full = (WIDTH + BETWEEN) / (4 if stacked else 3) - BETWEEN  # fewer samples are no larger
    wide = full if stacked else (full - GAP) / 2
    high = wide / aspect
    whole = NAME + (2 * high + GAP if stacked else high)
    return _Grid(columns, -(-count // columns), (wide, high), full, whole, stacked)


def _draw_sample(figure: Figure, sample: SheetSample, grid: _Grid, number: int) -> None:
    """Name, image and mask at their place of the grid; the grid is in the middle of the sheet."""
    row, column = divmod(number, grid.columns)
    indent = (WIDTH - grid.columns * (grid.width + BETWEEN) + BETWEEN) / 2
    left = MARGIN + indent + column * (grid.width + BETWEEN)
    top = MARGIN + row * (grid.height + ROW_GAP)
    full_width, full_height = figure.get_size_inches()
    figure.text(
        left / full_width, 1 - (top + NAME - 0.04) / full_height, _short(sample.name, int(grid.width / LETTER)),
        fontsize=NAME_SIZE, color=MUTED, va="baseline",
    )  # fmt: skip
    for turn, picture in enumerate((sample.image, sample.mask)):
        wide, high = _fitted(picture, grid.picture)
        x = left + turn * (0 if grid.stacked else wide + GAP)
        y = top + NAME + turn * (high + GAP if grid.stacked else 0)
        draw_picture(figure, x, y, wide, high, _reduced(picture, wide, high))


def _fitted(picture: NDArray[np.uint8], box: tuple[float, float]) -> tuple[float, float]:
    """Width and height of a picture as large as its box allows."""
    scale = min(box[0] / picture.shape[1], box[1] / picture.shape[0])
    return picture.shape[1] * scale, picture.shape[0] * scale


def _reduced(picture: NDArray[np.uint8], wide: float, high: float) -> NDArray[np.uint8]:
    """A large picture at the pixels that it is printed with; thin things become paler, but do not vanish."""
    size = max(1, round(wide * PNG_DPI)), max(1, round(high * PNG_DPI))
    if picture.shape[1] <= size[0]:
        return picture
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def _coloured(
    name: str, image: np.ndarray, mask: np.ndarray, palette: np.ndarray, ignore_label: int | None
) -> NDArray[np.uint8]:
    if image.ndim != 3 or image.shape[:2] != mask.shape:
        raise DataError(
            f"{name}: the image is {list(image.shape)}, but its mask is {list(mask.shape)}; give (H, W, C) and (H, W)",
            code="mask-size-differs",
        )
    return colour(mask, palette, ignore_label)


def _short(name: str, letters: int) -> str:
    """A name that is too long without its middle."""
    if len(name) <= letters:
        return name
    kept = letters - 1
    return f"{name[: kept // 2]}…{name[len(name) - (kept - kept // 2) :]}"
