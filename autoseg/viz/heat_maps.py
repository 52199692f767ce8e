"""Tables of numbers as colours: the probabilities of what competes, and confusion matrices. Lengths are in inches."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from autoseg.analysis.choices import edge_name
from autoseg.errors import ConfigError, printable
from autoseg.genotype.design import label_of
from autoseg.space.cell import state_name
from autoseg.space.snapshot import ArchProbs, gamma_legal
from autoseg.viz.graph import short_name
from autoseg.viz.style import BAR_HEIGHTS, FAINT, FONT_SIZE, INK, SMALL, colour_bar, inch_axes, styled

CELL_WIDTH, CELL_HEIGHT = 0.5, 0.21
"""Size of a probability's cell."""
PANEL_GAP = 0.6
"""Gap between two panels of probabilities, in cells."""
CELL_SIZES = (0.09, 0.34)
"""Least and greatest side of a cell of a confusion matrix."""
WIDEST = 9.0
"""Greatest side of a confusion matrix, unless its cells are at their least."""
NUMBERS_FROM = 0.27
"""Least side of a cell that shows its number."""
LETTER = 0.075
"""Width of a letter of a tick label."""


@styled
def draw_alpha(probs: ArchProbs, ties: Container[str] = ()) -> Figure:
    """Heat map of alpha_probs [edge, operation], a row an edge, by block; two cells side by side.

    The maximum of a row is bold, unless the row is one of `ties`, the choices that are not decided; likewise below.
    """
    space, topology = probs.space, probs.space.topology
    rows = [f"{state_name(state)} \u2192 b{block + 1}" for block, state in topology.edges]
    titles = ("cell of the way down", "cell of the way up") if space.cells == 2 else ()
    panels = np.split(probs.alpha_probs, space.cells)
    names = [[edge_name(space, cell, *edge) for edge in topology.edges] for cell in range(space.cells)]
    look: Any = {"left": 1.2, "titles": titles, "bold": _not_in(ties, names)}
    figure = _heat_map("alpha", panels, rows, map(short_name, space.cell.operations), **look)
    for block in range(1, topology.blocks):
        figure.axes[0].axhline(topology.edges_into(block)[0] - 0.5, color="white", linewidth=3)
    return figure


@styled
def draw_gamma(probs: ArchProbs, ties: Container[str] = ()) -> Figure:
    """Heat map of gamma_probs [site, upsampler]; what does not compete is blank. Raises: ConfigError: nothing does."""
    space = probs.space
    if probs.gamma_probs is None:
        message = f"space '{space.name}' has no gamma: no upsamplers compete (resolution.upsamplers)"
        raise ConfigError(message, code="no-upsamplers-compete")
    values = np.where(gamma_legal(space), probs.gamma_probs, np.nan)
    rows = [_site_label(site.name) for site in space.gamma_sites]
    bold = _not_in(ties, [[site.name for site in space.gamma_sites]])
    return _heat_map("gamma", [values], rows, map(short_name, space.upsamplers), left=1.35, bold=bold)


@styled
def draw_skips(probs: ArchProbs, ties: Container[str] = ()) -> Figure:
    """Heat map of skip_probs [level, skip], a row a stride of the up path. Raises: ConfigError: no skips compete."""
    if probs.skip_probs is None:
        message = f"space '{probs.space.name}' has no skips that compete (resolution.skips)"
        raise ConfigError(message, code="no-skips-compete")
    rows = [f"stride {stride}" for stride in probs.space.network.strides[: len(probs.skip_probs)]]
    return _heat_map(
        "skip", [probs.skip_probs], rows, probs.space.resolution.skips, left=0.8, bold=_not_in(ties, [rows])
    )


@styled
def draw_stages(probs: ArchProbs, table: str, ties: Container[str] = ()) -> Figure:
    """Heat map of block, depth or width of a wide space, [stride or network, option].

    Raises: ConfigError: the space has no such table.
    """
    if table not in probs.space.macro_tables:
        message = f"space '{probs.space.name}' has no {table}s that compete (macro)"
        raise ConfigError(message, code="no-stages-compete")
    rows, options = probs.space.macro_tables[table]
    values, names = getattr(probs, f"{table}_probs"), [label_of(option).replace("_", " ") for option in options]
    return _heat_map(table, [values], [*rows], names, left=0.85, bold=_not_in(ties, [rows]))


def _not_in(ties: Container[str], names: Sequence[Sequence[str]]) -> list[list[bool]]:
    return [[name not in ties for name in panel] for panel in names]


def _site_label(name: str) -> str:
    """`up_16_8` as `up 16 to 8`, `layer7_16_8` as `layer 7: 16 to 8`, with arrows."""
    place, coarse, fine = name.rsplit("_", 2)
    place = f"layer {place.removeprefix('layer')}:" if place.startswith("layer") else place
    return f"{place} {coarse} \u2192 {fine}"


def _heat_map(
    what: str, panels: Sequence[np.ndarray], rows: list[str], columns: Iterable[str], left: float,
    bold: Sequence[Sequence[bool]], titles: Any = (),
) -> Figure:  # fmt: skip
    """Probabilities [row, column] as colours and numbers with a colour bar; panels side by side, NaN left blank.

    bold: for each row of each panel, whether its maximum is.
    """
    height, width = panels[0].shape
    starts = [number * (width + PANEL_GAP) for number in range(len(panels))]
    below = max(0.05, BAR_HEIGHTS[0] - height * CELL_HEIGHT)
    right = starts[-1] + width
    figure, axes = inch_axes((0, right * CELL_WIDTH, 0, height * CELL_HEIGHT), (left, 0.7, 0.8, below))
    axes.set(xlim=(-0.5, right - 0.5), ylim=(height - 0.5, -0.5))
    highest = max(0.5, float(np.nanmax(panels)))
    look: Any = {"cmap": "Blues", "vmin": 0, "vmax": highest, "edgecolors": "white", "linewidth": 0.4}
    for start, values, stands_out in zip(starts, panels, bold, strict=True):
        corners = start + np.arange(width + 1) - 0.5, np.arange(height + 1) - 0.5
        picture = axes.pcolormesh(*corners, values, **look)
        for (row, column), value in np.ndenumerate(values):
            if not math.isnan(value):
                only_highest = (values[row] >= value).sum() == 1
                weight = "bold" if only_highest and stands_out[row] else "normal"
                _write(axes, start + column, row, f"{value:.2f}", value > 0.6 * highest, fontweight=weight)
    for start, title in zip(starts, titles, strict=False):
        axes.text(start + (width - 1) / 2, height - 0.2, title, ha="center", va="top")
    axes.set_yticks(range(height), rows)
    places = [start + column for start in starts for column in range(width)]
    axes.set_xticks(places, [*columns] * len(panels), rotation=40, ha="left", rotation_mode="anchor")
    axes.xaxis.tick_top()
    colour_bar(figure, axes, picture, f"{what} probability", MaxNLocator(3))
    return figure


def _write(axes: Axes, column: float, row: float, text: str, dark: bool, **look: Any) -> None:
    """Write a number in its cell, in white if the cell is dark."""
    look |= {"ha": "center", "va": "center", "fontsize": SMALL - 1, "color": "white" if dark else INK}
    axes.text(column, row, text, **look)


@styled
def draw_confusion(confusion: np.ndarray, classes: Sequence[str]) -> Figure:
    """A confusion matrix (K, K) of pixels with each row as shares of its true class; a class without pixels is blank.

    The diagonal holds the share of each class that is found. With few classes the cells show their shares in percent.
    Raises: ConfigError: a matrix that is not square or has not one name a class.
    """
    count = len(classes)
    if confusion.shape != (count, count) or not count:
        raise ConfigError(
            f"a confusion matrix of {count} classes is {count}x{count}, not {list(confusion.shape)}; name each class",
            code="confusion-shape-invalid",
        )
    classes = list(map(printable, classes))  # ticks are no texts that `save` finds
    totals = confusion.sum(1, keepdims=True).astype(np.float64)
    shares = np.divide(confusion, totals, out=np.full(confusion.shape, np.nan), where=totals > 0)
    cell = float(np.clip(WIDEST / count, *CELL_SIZES))
    side, room = cell * count, 0.3 + LETTER * max(map(len, classes))
    figure, axes = inch_axes((0, side, 0, side), (room + 0.2, 0.75, room + 0.2, 0.05))
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), facecolor=FAINT)
    size = min(SMALL, 72 * cell)
    axes.set_yticks(range(count), classes, fontsize=size)
    axes.set_xticks(range(count), classes, fontsize=size, rotation=90)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("predicted class", fontsize=FONT_SIZE)
    axes.set_ylabel("true class", fontsize=FONT_SIZE)
    for (row, column), share in np.ndenumerate(shares if cell >= NUMBERS_FROM else shares[:0]):
        if share >= 0.005:
            _write(axes, column, row, f"{100 * share:.0f}", share > 0.6)
    colour_bar(figure, axes, picture, "share of the true class", [0, 0.5, 1])
    return figure
