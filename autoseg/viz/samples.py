"""Predictions beside the images and the truth, and the parts that a contact sheet shares with them.

H, W: height and width in pixels. Lengths are in inches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from autoseg.errors import DataError
from autoseg.viz.palette import IGNORE_COLOUR, colour
from autoseg.viz.style import MUTED, SMALL, styled

PICTURE_WIDTH, GAP, MARGIN = 1.7, 0.06, 0.05
HEADER, LEGEND_ROW = 0.22, 0.19


@styled
def draw_predictions(
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray | None] | None,
    predictions: Sequence[np.ndarray],
    palette: np.ndarray,
    classes: Sequence[str],
    ignore_label: int | None,
) -> Figure:
    """A row a sample: image, truth, prediction; below, the colours of the classes that appear.

    images: (H, W, 3) uint8 each. masks: (H, W) integers each; a mask that is None leaves its place empty, and without
    masks there is no column of truth. predictions: (H, W) integers each. palette: (classes, 3) uint8.
    Raises: DataError: numbers of samples or sizes that differ, or a label without a colour.
    """
    truths = [None] * len(images) if masks is None else list(masks)
    _check(images, truths, predictions)
    columns: dict[str, list[np.ndarray | None]] = {"image": list(images)}
    if any(mask is not None for mask in truths):
        columns["truth"] = [None if mask is None else colour(mask, palette, ignore_label) for mask in truths]
    columns["prediction"] = [colour(prediction, palette, ignore_label) for prediction in predictions]
    handles = class_patches([*truths, *predictions], palette, classes, ignore_label)
    width = len(columns) * (PICTURE_WIDTH + GAP) - GAP
    heights = [PICTURE_WIDTH * image.shape[0] / image.shape[1] for image in images]
    legend_height = LEGEND_ROW * legend_rows(handles, width) + 0.06
    height = HEADER + sum(heights) + GAP * (len(heights) - 1) + legend_height
    figure = Figure(figsize=(width + 2 * MARGIN, height + 2 * MARGIN))
    tops = MARGIN + HEADER + np.concatenate([[0.0], np.cumsum(np.array(heights) + GAP)])
    for number, (name, pictures) in enumerate(columns.items()):
        left = MARGIN + number * (PICTURE_WIDTH + GAP)
        drawn = [
            draw_picture(figure, left, top, PICTURE_WIDTH, height, picture)
            for top, height, picture in zip(tops[:-1], heights, pictures, strict=True)
        ]
        drawn[0].set_title(name, fontsize=SMALL + 1, loc="center", pad=3)
    draw_legend(figure, handles, width)
    return figure


def _check(images: Sequence[np.ndarray], masks: Sequence[np.ndarray | None], predictions: Sequence[np.ndarray]) -> None:
    if not len(images) or not len(images) == len(masks) == len(predictions):
        raise DataError(
            f"needs one prediction and one mask (or None) an image, not {len(images)} images, {len(masks)} masks and"
            f" {len(predictions)} predictions",
            code="sample-counts-differ",
        )
    for number, (image, mask, prediction) in enumerate(zip(images, masks, predictions, strict=True)):
        for name, labels in (("mask", mask), ("prediction", prediction)):
            if labels is not None and image.shape != (*labels.shape, 3):
                raise DataError(
                    f"sample {number}: the image is {list(image.shape)}, but its {name} is {list(labels.shape)};"
                    " give (H, W, 3) and (H, W) of one size",
                    code="mask-size-differs",
                )


def class_patches(
    maps: Sequence[np.ndarray | None], palette: np.ndarray, classes: Sequence[str], ignore_label: int | None
) -> list[Patch]:
    """A legend patch for each class that appears, in the order of the labels, and one for ignored pixels if any."""
    present = sorted({int(label) for labels in maps if labels is not None for label in np.unique(labels)})
    handles = []
    for label in present:
        if label != ignore_label and 0 <= label < len(palette):  # `colour` refuses the others
            name = classes[label] if label < len(classes) else f"class {label}"
            handles.append(Patch(facecolor=f"#{bytes(map(int, palette[label])).hex()}", label=name))
    if ignore_label in present:
        handles.append(Patch(facecolor=f"#{bytes(IGNORE_COLOUR).hex()}", label="ignored"))
    return handles


def _legend_columns(handles: Sequence[Patch], width: float) -> int:
    """As many columns as fit into `width` with the longest name."""
    longest = max((len(str(handle.get_label())) for handle in handles), default=1)
    return max(1, min(len(handles), int(width / (0.36 + 0.068 * longest))))


def legend_rows(handles: Sequence[Patch], width: float) -> int:
    """Number of rows of a legend that is `width` inches wide."""
    return -(-len(handles) // _legend_columns(handles, width))


def draw_legend(figure: Figure, handles: list[Patch], width: float) -> None:
    """Patches and names at the bottom of a figure, in rows of at most `width` inches."""
    figure.legend(
        handles=handles, loc="lower center", ncols=_legend_columns(handles, width), bbox_to_anchor=(0.5, 0),
        handlelength=1.0, handleheight=1.0, columnspacing=1.0, handletextpad=0.4, borderaxespad=0.1,
    )  # fmt: skip


def draw_picture(
    figure: Figure, left: float, top: float, width: float, height: float, picture: np.ndarray | None
) -> Axes:
    """Draw a picture with its upper left corner `left` and `top` inches from the figure's; None: "no truth"."""
    wide, high = figure.get_size_inches()
    axes = figure.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))
    axes.set_axis_off()
    if picture is None:
        axes.text(0.5, 0.5, "no truth", ha="center", va="center", color=MUTED, transform=axes.transAxes)
    else:
        axes.imshow(picture, interpolation="nearest", aspect="auto")
    return axes
