"""Charts of a run: the probabilities of what competes, and curves over epochs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from autoseg.errors import ConfigError, RunError
from autoseg.space.cell import state_name
from autoseg.space.snapshot import ArchProbs, gamma_legal
from autoseg.viz import style
from autoseg.viz.graph import short_name
from autoseg.viz.style import INK, SMALL, colour_bar, figure_of, inch_axes, styled

CELL_WIDTH, CELL_HEIGHT = 0.5, 0.21
BAR_HEIGHTS = (1.0, 2.0)
"""Least and greatest height of a colour bar, whose label needs room. Inches."""
PANEL_GAP = 0.6
"""Gap between two panels of a heat map, in cells."""
SMOOTHING = 12
"""A curve is smoothed over one in this many of its points."""

Row = Mapping[str, Any]


# --- what competes --------------------------------------------------------------------------------------------------


@styled
def draw_alpha(probs: ArchProbs) -> Figure:
    """Heat map of alpha_probs [edge, operation] with a row an edge, grouped by block; the maximum of a row is bold.

    If the down path and the up path have cells of their own, these stand beside each other.
    """
    space, topology = probs.space, probs.space.topology
    rows = [f"{state_name(state)} \u2192 b{block + 1}" for block, state in topology.edges]
    titles = ("cell of the way down", "cell of the way up") if space.cells == 2 else ()
    panels = np.split(probs.alpha_probs, space.cells)
    axes = _heat_map("alpha", panels, rows, map(short_name, space.cell.operations), left=1.2, titles=titles)
    for block in range(1, topology.blocks):
        axes.axhline(topology.edges_into(block)[0] - 0.5, color="white", linewidth=3)
    return figure_of(axes)


@styled
def draw_gamma(probs: ArchProbs) -> Figure:
    """Heat map of gamma_probs [site, upsampler] with a row an upsampling site; what does not compete is blank.

    Raises: ConfigError: a space where no upsamplers compete.
    """
    space = probs.space
    if probs.gamma_probs is None:
        raise ConfigError(
            f"space '{space.name}' has no gamma: no upsamplers compete (resolution.upsamplers)",
            code="no-upsamplers-compete",
        )
    values = np.where(gamma_legal(space), probs.gamma_probs, np.nan)
    rows = [_site_label(site.name) for site in space.gamma_sites]
    return figure_of(_heat_map("gamma", [values], rows, map(short_name, space.upsamplers), left=1.35))


@styled
def draw_skips(probs: ArchProbs) -> Figure:
    """Heat map of skip_probs [level, skip] with a row a stride of the up path: how encoder features join there.

    Raises: ConfigError: a space where no skips compete.
    """
    if probs.skip_probs is None:
        raise ConfigError(
            f"space '{probs.space.name}' has no skips that compete (resolution.skips)", code="no-skips-compete"
        )
    rows = [f"stride {stride}" for stride in probs.space.network.strides[: len(probs.skip_probs)]]
    return figure_of(_heat_map("skip", [probs.skip_probs], rows, probs.space.resolution.skips, left=0.8))


def _site_label(name: str) -> str:
    """`up_16_8` as `up 16 to 8`, `layer7_16_8` as `layer 7: 16 to 8`, with arrows."""
    place, coarse, fine = name.rsplit("_", 2)
    place = f"layer {place.removeprefix('layer')}:" if place.startswith("layer") else place
    return f"{place} {coarse} \u2192 {fine}"


def _heat_map(
    what: str, panels: Sequence[np.ndarray], rows: list[str], columns: Iterable[str], left: float, titles: Any = ()
) -> Axes:
    """Probabilities [row, column] as colours and numbers with a colour bar; panels side by side, NaN left blank."""
    height, width = panels[0].shape
    starts = [number * (width + PANEL_GAP) for number in range(len(panels))]
    below = max(0.05, BAR_HEIGHTS[0] - height * CELL_HEIGHT)
    right = starts[-1] + width
    axes = inch_axes((0, right * CELL_WIDTH, 0, height * CELL_HEIGHT), (left, 0.7, 0.8, below))
    axes.set(xlim=(-0.5, right - 0.5), ylim=(height - 0.5, -0.5))
    highest = max(0.5, float(np.nanmax(panels)))
    look: Any = {"cmap": "Blues", "vmin": 0, "vmax": highest, "edgecolors": "white", "linewidth": 0.4}
    for start, values in zip(starts, panels, strict=True):
        corners = start + np.arange(width + 1) - 0.5, np.arange(height + 1) - 0.5
        picture = axes.pcolormesh(*corners, np.ma.masked_invalid(values), **look)
        _write_numbers(axes, values, start, highest)
    for start, title in zip(starts, titles, strict=False):
        axes.text(start + (width - 1) / 2, height - 0.2, title, ha="center", va="top")
    axes.set_yticks(range(height), rows)
    places = [start + column for start in starts for column in range(width)]
    axes.set_xticks(places, [*columns] * len(panels), rotation=40, ha="left", rotation_mode="anchor")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    place, inches = axes.get_position(), figure_of(axes).get_figheight()
    tall = float(np.clip(place.height * inches, *BAR_HEIGHTS)) / inches
    colour_bar(axes, picture, f"{what} probability", 0.12, place.y1 - tall, tall, MaxNLocator(3))
    return axes


def _write_numbers(axes: Axes, values: np.ndarray, start: float, highest: float) -> None:
    """Write each number in its cell; the maximum of a row is bold unless several are equal."""
    for (row, column), value in np.ndenumerate(values):
        if not math.isnan(value):
            colour = "white" if value > 0.6 * highest else INK
            weight = "bold" if (values[row] >= value).sum() == 1 else "normal"
            look: Any = {"ha": "center", "va": "center", "fontsize": SMALL - 1, "color": colour, "fontweight": weight}
            axes.text(start + column, row, f"{value:.2f}", **look)


# --- curves over epochs -----------------------------------------------------------------------------------------------


class Curve(NamedTuple):
    """One line of a panel: the number `key` of the rows of one kind, or of any kind.

    noisy: the line is smoothed and lies over the raw values in a pale colour.
    """

    label: str
    colour: str
    kind: str | None
    key: str
    noisy: bool = False


PANELS = {
    "loss": (
        Curve("weights", style.BLUE, "train", "loss", noisy=True),
        Curve("architecture", style.VERMILION, "arch", "loss", noisy=True),
        Curve("validation", style.GREEN, "val", "loss"),
    ),
    "validation": (
        Curve("mIoU", style.BLUE, "val", "miou"),
        Curve("pixel accuracy", style.MUTED, "val", "pixel_accuracy"),
    ),
    "normalised entropy": (
        Curve("alpha", style.PURPLE, None, "alpha_entropy"),
        Curve("beta", style.BLUE, None, "beta_entropy"),
        Curve("edges", style.GREEN, None, "edge_entropy"),
        Curve("gamma", style.ORANGE, None, "gamma_entropy"),
        Curve("skips", style.VERMILION, None, "skip_entropy"),
    ),
}


@styled
def draw_history(metrics: Sequence[Row]) -> Figure:
    """Curves of a run from the rows of its metrics.jsonl: losses, validation scores and, if logged, entropies.

    metrics: rows with `kind` (train, arch or val), `epoch`, `step` (counted over the whole run) and numbers. Missing
    values and values that are not finite are left out.
    Raises: RunError: no row has anything to draw.
    """
    rows = sorted((row for row in metrics if "kind" in row and "step" in row), key=lambda row: row["step"])
    per_epoch = steps_per_epoch(rows)
    panels = {
        label: [(curve, *series(rows, curve.key, per_epoch, curve.kind)) for curve in curves]
        for label, curves in PANELS.items()
    }
    panels = {label: points for label, points in panels.items() if any(len(values) for *_, values in points)}
    if not panels:
        raise RunError("the metrics hold nothing to draw; let the run make at least one step", code="metrics-empty")
    return _draw_panels(panels)


def steps_per_epoch(rows: Sequence[Row]) -> float:
    """Estimate of the steps per epoch: the least number with which no row lies after the end of its epoch."""
    return max((row["step"] / (row.get("epoch", 0) + 1) for row in rows), default=0.0) or 1.0


def series(rows: Sequence[Row], key: str, per_epoch: float, kind: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and finite values of the number `key` in the rows of one kind, or of any kind."""
    chosen = [row for row in rows if (kind is None or row["kind"] == kind) and isinstance(row.get(key), int | float)]
    points = [(row["step"] / per_epoch, float(row[key])) for row in chosen if math.isfinite(row[key])]
    epochs, values = np.array(points).reshape(-1, 2).T
    return epochs, values


def smooth(values: np.ndarray) -> np.ndarray:
    """Mean over a window of about 1/12 of the points around each; the window halves near the ends."""
    places = np.arange(len(values))
    widest = max(1, len(values) // (2 * SMOOTHING))
    half = np.clip(np.minimum(places, places[::-1]), (widest + 1) // 2, widest)
    low, high = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray((sums[high] - sums[low]) / (high - low))


Points = tuple[Curve, np.ndarray, np.ndarray]
"""A curve, its epochs and its values."""


def _draw_panels(panels: Mapping[str, Sequence[Points]]) -> Figure:
    """Panels one above the other, over the same epochs."""
    figure = Figure(figsize=(4.6, 0.55 + 1.55 * len(panels)), layout="constrained")
    column = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (label, curves) in zip(column, panels.items(), strict=True):
        for points in curves:
            _draw_curve(axes, *points)
        axes.set_ylabel(label)
        axes.grid(axis="y", color="#E6E6E6", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.2)
        if label != "loss":  # scores and entropies lie in 0..1
            highest = axes.get_ylim()[1]
            axes.set_ylim(0, 1.02 if highest > 0.8 else highest)
    last = max(float(epochs.max()) for curves in panels.values() for _, epochs, _ in curves if len(epochs))
    column[-1].set(xlim=(0, max(1, math.ceil(last - 1e-6)) * 1.01), xlabel="epoch")
    column[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    figure.align_ylabels(column)
    return figure


def _draw_curve(axes: Axes, curve: Curve, epochs: np.ndarray, values: np.ndarray) -> None:
    named: Any = {"color": curve.colour, "label": curve.label}
    if curve.noisy and len(values) > 2:
        axes.plot(epochs, values, color=curve.colour, alpha=0.25, linewidth=0.7, gid="raw")
        axes.plot(epochs, smooth(values), linewidth=1.5, gid="smooth", **named)
    elif len(values):
        marker = "o" if len(values) <= 30 else ""
        axes.plot(epochs, values, linewidth=1.4, marker=marker, markersize=3, clip_on=False, gid="points", **named)
