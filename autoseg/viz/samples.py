"""Samples of a data set with masks or predictions in colour, over a legend of their classes. Lengths are in inches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from autoseg.errors import DataError
from autoseg.viz.palette import IGNORE_COLOUR, as_picture, colour
from autoseg.viz.style import MUTED, PNG_DPI, SMALL, styled

MARGIN, LEGEND_ROW, LEGEND_GAP = 0.05, 0.19, 0.08
"""Margin around a sheet, height of a row of its legend, and gap above the legend."""

# --- predictions ------------------------------------------------------------------------------------------------------

PICTURE_WIDTH, PICTURE_GAP, HEADER = 1.7, 0.06, 0.22
"""Width of a picture, gap between two, and height of the columns' names."""


@styled
def draw_predictions(
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    palette: np.ndarray,
    classes: Sequence[str],
    ignore_label: int | None,
) -> Figure:
    """A row a sample: image, truth, prediction; below, the colours of the classes that appear.

    images: (H, W, C) each, see `palette.as_picture`. masks, predictions: (H, W) integers. palette: (classes, 3) uint8.
    Raises: DataError: numbers of samples or sizes that differ, or a label without a colour.
    """
    _check([f"sample {number}" for number in range(len(images))], images, mask=masks, prediction=predictions)
    columns = {
        "image": [as_picture(image) for image in images],
        "truth": [colour(mask, palette, ignore_label) for mask in masks],
        "prediction": [colour(prediction, palette, ignore_label) for prediction in predictions],
    }
    heights = [PICTURE_WIDTH * image.shape[0] / image.shape[1] for image in images]
    tops = HEADER + np.cumsum([0.0, *(height + PICTURE_GAP for height in heights[:-1])])
    places = [
        Place(picture, number * (PICTURE_WIDTH + PICTURE_GAP), top, PICTURE_WIDTH, height)
        for number, pictures in enumerate(columns.values())
        for picture, top, height in zip(pictures, tops, heights, strict=True)
    ]
    handles = class_patches([*masks, *predictions], palette, classes, ignore_label)
    figure = _draw_sheet(places, len(columns) * (PICTURE_WIDTH + PICTURE_GAP) - PICTURE_GAP, handles)
    for axes, name in zip(figure.axes[:: len(images)], columns, strict=True):
        axes.set_title(name, fontsize=SMALL + 1, loc="center", pad=3)
    return figure


# --- contact sheets ---------------------------------------------------------------------------------------------------

SHEET_WIDTH = 7.0
"""Width of a contact sheet, which is the text width of a page."""
GAP, BETWEEN, ROW_GAP = 0.03, 0.13, 0.08
"""Gaps between an image and its mask, between samples of a row, and between rows."""
NAME_HEIGHT, NAME_SIZE, LETTER = 0.15, 6.5, 0.052
"""Height of a sample's name, its font size in points, and the width of a letter."""
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

    images: (H, W, C) each, of any sizes, see `palette.as_picture`. masks: (H, W) integers. palette: (classes, 3) uint8.
    Raises: DataError: no samples, numbers or sizes that differ between images and masks, or a label without a colour.
    """
    _check(names, images, mask=masks)
    aspect = float(np.clip(np.median([image.shape[1] / image.shape[0] for image in images]), 0.4, 4.0))
    stacked = aspect >= WIDE
    most = 4 if stacked else 3
    columns, width = min(len(names), most), (SHEET_WIDTH + BETWEEN) / most - BETWEEN  # fewer samples are no larger
    wide = width if stacked else (width - GAP) / 2
    high = wide / aspect
    row_height = NAME_HEIGHT + (2 * high + GAP if stacked else high) + ROW_GAP
    indent = (SHEET_WIDTH - columns * (width + BETWEEN) + BETWEEN) / 2
    places = []
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        left = indent + number % columns * (width + BETWEEN)
        top = NAME_HEIGHT + number // columns * row_height
        for picture in (as_picture(image), colour(mask, palette, ignore_label)):
            scale = min(wide / picture.shape[1], high / picture.shape[0])
            size = picture.shape[1] * scale, picture.shape[0] * scale
            places.append(Place(_reduced(picture, *size), left, top, *size))
            left, top = (left, top + size[1] + GAP) if stacked else (left + size[0] + GAP, top)
    figure = _draw_sheet(places, SHEET_WIDTH, class_patches(masks, palette, classes, ignore_label))
    for axes, name in zip(figure.axes[::2], names, strict=True):
        axes.set_title(_short(name, int(width / LETTER)), fontsize=NAME_SIZE, color=MUTED, pad=3)
    return figure


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


# --- what both share --------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """A picture (H, W, 3) and its place from the sheet's upper left corner."""

    picture: np.ndarray
    left: float
    top: float
    width: float
    height: float


def _check(names: Sequence[str], images: Sequence[np.ndarray], **maps: Sequence[np.ndarray]) -> None:
    """Raises: DataError: no images, not one of each of the label maps an image, or one of another size."""
    counts = {"image": len(images), **{kind: len(found) for kind, found in maps.items()}, "name": len(names)}
    if not len(images) or len(set(counts.values())) > 1:
        have = ", ".join(f"{count} {kind}s" for kind, count in counts.items())
        message = f"a picture of samples needs one {', one '.join(counts)} a sample, not {have}"
        raise DataError(message, code="sample-counts-differ")
    for kind, found in maps.items():
        for name, image, labels in zip(names, images, found, strict=True):
            if image.ndim != 3 or image.shape[:2] != labels.shape:
                raise DataError(
                    f"{name}: the image is {list(image.shape)}, but its {kind} is {list(labels.shape)};"
                    " give (H, W, C) and (H, W) of one size",
                    code="mask-size-differs",
                )


def class_patches(
    maps: Sequence[np.ndarray], palette: np.ndarray, classes: Sequence[str], ignore_label: int | None
) -> list[Patch]:
    """A legend patch for each class that appears, in the order of the labels, and one for ignored pixels if any."""
    present = sorted({int(label) for labels in maps for label in np.unique(labels)})
    handles = []
    for label in present:
        if label != ignore_label and 0 <= label < len(palette):  # `colour` refuses the others
            name = classes[label] if label < len(classes) else f"class {label}"
            handles.append(Patch(facecolor=f"#{bytes(map(int, palette[label])).hex()}", label=name))
    if ignore_label in present:
        handles.append(Patch(facecolor=f"#{bytes(IGNORE_COLOUR).hex()}", label="ignored"))
    return handles


def _draw_sheet(places: Sequence[Place], width: float, handles: list[Patch]) -> Figure:
    """Draw pictures at their places, and below them the legend, in rows of at most `width`."""
    longest = max((len(str(handle.get_label())) for handle in handles), default=1)
    columns = max(1, min(len(handles), int(width / (0.36 + 0.068 * longest))))
    bottom = max(place.top + place.height for place in places)
    height = bottom + LEGEND_GAP + LEGEND_ROW * -(-len(handles) // columns)
    full_width, full_height = width + 2 * MARGIN, height + 2 * MARGIN
    figure = Figure(figsize=(full_width, full_height))
    for picture, left, top, wide, high in places:
        corner = (MARGIN + left) / full_width, 1 - (MARGIN + top + high) / full_height
        axes = figure.add_axes((*corner, wide / full_width, high / full_height))
        axes.set_axis_off()
        axes.imshow(picture, interpolation="nearest", aspect="auto")
    figure.legend(
        handles=handles, loc="lower center", ncols=columns, bbox_to_anchor=(0.5, 0),
        handlelength=1.0, handleheight=1.0, columnspacing=1.0, handletextpad=0.4, borderaxespad=0.1,
    )  # fmt: skip
    return figure
