"""A data set at a glance: some of its images, each with its mask in colour.

H, W: height and width in pixels; C: channels. Lengths are in inches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from autoseg.errors import DataError
from autoseg.viz.palette import as_picture, colour
from autoseg.viz.samples import LEGEND_ROW, class_patches, draw_legend, draw_picture, legend_rows
from autoseg.viz.style import MUTED, PNG_DPI, styled

WIDTH, MARGIN = 7.0, 0.05
"""Width of the sheet, which is the text width of a page, and the margin around it."""
GAP, BETWEEN, ROW_GAP = 0.03, 0.13, 0.08
"""Gaps between an image and its mask, between samples of a row, and between rows."""
NAME = 0.15
"""Height of a sample's name."""
NAME_SIZE, LETTER = 6.5, 0.052
"""Font size of a name in points, and the width of a letter."""
WIDE = 1.6
"""Least width / height of images whose mask is below them, four samples a row; else it is beside, three a row."""


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

    images: (H, W, C) each, uint8 or any numbers (see `palette.as_picture`). masks: (H, W) integers each. palette:
    (classes, 3) uint8. Samples may differ in size.
    Raises: DataError: no samples, numbers of samples that differ, an image and a mask of different sizes, or a label
    without a colour.
    """
    _check(images, masks, names)
    pairs = [
        (as_picture(image), colour(mask, palette, ignore_label)) for image, mask in zip(images, masks, strict=True)
    ]
    handles = class_patches(masks, palette, classes, ignore_label)
    aspect = float(np.clip(np.median([image.shape[1] / image.shape[0] for image in images]), 0.4, 4.0))
    stacked = aspect >= WIDE
    most = 4 if stacked else 3
    columns, width = min(len(names), most), (WIDTH + BETWEEN) / most - BETWEEN  # fewer samples are no larger
    wide = width if stacked else (width - GAP) / 2
    high = wide / aspect
    row_height = NAME + (2 * high + GAP if stacked else high) + ROW_GAP
    height = -(-len(names) // columns) * row_height + LEGEND_ROW * legend_rows(handles, WIDTH) + 0.08
    figure = Figure(figsize=(WIDTH + 2 * MARGIN, height + 2 * MARGIN))
    full_width, full_height = figure.get_size_inches()
    indent = (WIDTH - columns * (width + BETWEEN) + BETWEEN) / 2
    for number, (name, pair) in enumerate(zip(names, pairs, strict=True)):
        left = MARGIN + indent + number % columns * (width + BETWEEN)
        top = MARGIN + number // columns * row_height
        place, text = (left / full_width, 1 - (top + NAME - 0.04) / full_height), _short(name, int(width / LETTER))
        figure.text(*place, text, fontsize=NAME_SIZE, color=MUTED, va="baseline")
        for turn, picture in enumerate(pair):
            scale = min(wide / picture.shape[1], high / picture.shape[0])
            size = picture.shape[1] * scale, picture.shape[0] * scale
            x = left + turn * (0 if stacked else size[0] + GAP)
            y = top + NAME + turn * (size[1] + GAP if stacked else 0)
            draw_picture(figure, x, y, *size, _reduced(picture, *size))
    draw_legend(figure, handles, WIDTH)
    return figure


def _check(images: Sequence[np.ndarray], masks: Sequence[np.ndarray], names: Sequence[str]) -> None:
    if not names or not len(images) == len(masks) == len(names):
        raise DataError(
            f"a contact sheet needs a mask and a name an image, not {len(images)} images, {len(masks)} masks and"
            f" {len(names)} names",
            code="sample-counts-differ",
        )
    for name, image, mask in zip(names, images, masks, strict=True):
        if image.ndim != 3 or image.shape[:2] != mask.shape:
            raise DataError(
                f"{name}: the image is {list(image.shape)}, but its mask is {list(mask.shape)};"
                " give (H, W, C) and (H, W)",
                code="mask-size-differs",
            )


def _reduced(picture: np.ndarray, wide: float, high: float) -> np.ndarray:
    """A large picture at the pixels that it is printed with; thin things become paler, but do not vanish."""
    size = max(1, round(wide * PNG_DPI)), max(1, round(high * PNG_DPI))
    if picture.shape[1] <= size[0]:
        return picture
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def _short(name: str, letters: int) -> str:
    """A name without its middle if it has more than `letters` letters."""
    if len(name) <= letters:
        return name
    kept = letters - 1
    return f"{name[: kept // 2]}…{name[len(name) - (kept - kept // 2) :]}"
