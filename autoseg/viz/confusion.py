"""Which class is taken for which.

Letter: K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autoseg.errors import ConfigError
from autoseg.viz.style import FAINT, FONT_SIZE, INK, SMALL, colour_bar, figure_of, inch_axes, styled

CELL_SIZES = (0.09, 0.34)
"""Least and greatest length of a cell's side. Inches."""
WIDEST = 9.0
"""Of all cells together, as long as they are not at their least. Inches."""
NUMBERS_FROM = 0.27
"""Cells of this side and larger show their numbers. Inches."""
LETTER = 0.075
"""Width of a letter at the size of tick labels. Inches."""


@styled
def draw_confusion(confusion: np.ndarray, classes: Sequence[str]) -> Figure:
    """A confusion matrix (K, K) of pixels, each row as shares of its true class; a class that has no pixels is blank.

    On the diagonal is the share of each class that is found. With few classes the shares stand in the cells, in
    percent.
    Raises: ConfigError: no square matrix with a name for each class.
    """
    count = len(classes)
    if confusion.shape != (count, count) or not count:
        raise ConfigError(
            f"a confusion matrix of {count} classes is {count}x{count}, not {list(confusion.shape)}; name each class",
            code="confusion-shape-invalid",
        )
    totals = confusion.sum(1, keepdims=True).astype(np.float64)
    shares = np.divide(confusion, totals, out=np.full(confusion.shape, np.nan), where=totals > 0)
    cell = float(np.clip(WIDEST / count, *CELL_SIZES))
    side, room = cell * count, 0.3 + LETTER * max(map(len, classes))
    axes = inch_axes((0, side, 0, side), (room + 0.2, 0.75, room + 0.2, 0.05))
    picture = axes.imshow(
        np.ma.masked_invalid(shares), cmap="Blues", vmin=0, vmax=1, interpolation="nearest", aspect="auto",
        extent=(-0.5, count - 0.5, count - 0.5, -0.5),
    )  # fmt: skip
    axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), facecolor=FAINT)
    _name_classes(axes, classes, cell)
    if cell >= NUMBERS_FROM:
        _write_shares(axes, shares)
    place = axes.get_position()
    tall = min(place.height, 2.0 / figure_of(axes).get_figheight())
    return colour_bar(axes, picture, "share of the true class", 0.12, place.y1 - tall, tall, [0, 0.5, 1])


def _name_classes(axes: Axes, classes: Sequence[str], cell: float) -> None:
    """True classes on the left, predicted ones on top."""
    size = min(SMALL, 72 * cell)
    places = range(len(classes))
    axes.set_yticks(places, classes, fontsize=size)
    axes.set_xticks(places, classes, fontsize=size, rotation=90)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("predicted class", fontsize=FONT_SIZE)
    axes.set_ylabel("true class", fontsize=FONT_SIZE)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _write_shares(axes: Axes, shares: np.ndarray) -> None:
    """Percent in each cell, from half a percent up."""
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.005:
            colour = "white" if share > 0.6 else INK
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=SMALL - 1, color=colour)
