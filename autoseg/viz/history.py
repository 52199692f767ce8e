"""Curves of a run over its epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from autoseg.errors import RunError
from autoseg.viz import style
from autoseg.viz.style import styled

SMOOTHING = 12
"""A curve is smoothed over one in this many of its points."""

Row = Mapping[str, Any]


class Curve(NamedTuple):
    """One line of a panel: the number `key` of the rows of one kind, or of any kind."""

    label: str
    colour: str
    kind: str | None
    key: str


TABLES = {
    "alpha": style.PURPLE, "beta": style.BLUE, "edge": style.GREEN, "gamma": style.ORANGE, "skip": style.VERMILION,
    "block": style.VERMILION, "depth": style.MUTED, "width": style.GREEN,
}  # fmt: skip
"""The tables of logits, and their colours; no space has two tables of one colour."""


def _of_tables(kind: str, figure: str) -> tuple[Curve, ...]:
    """The curves of a figure that each table has."""
    names = {name: f"{name}s" for name in ("edge", "skip", "block", "depth", "width")}
    return tuple(Curve(names.get(name, name), colour, kind, f"{name}_{figure}") for name, colour in TABLES.items())


RATIO, DECIDED, ENTROPY = "distance / noise", "decided choices", "normalised entropy"
PANELS = {
    "loss": (
        Curve("weights", style.BLUE, "train", "loss"),
        Curve("architecture", style.VERMILION, "arch", "loss"),
        Curve("validation", style.GREEN, "val", "loss"),
    ),
    "validation": (
        Curve("mIoU", style.BLUE, "val", "miou"),
        Curve("pixel accuracy", style.MUTED, "val", "pixel_accuracy"),
    ),
    RATIO: _of_tables("evidence", "ratio"),
    DECIDED: _of_tables("evidence", "decided"),
    ENTROPY: _of_tables("val", "entropy"),
}
COUNTED = (RATIO, DECIDED)
"""Panels with figures above 1."""
NOISY = ("train", "arch")
"""Kinds of rows with the loss of a single step."""


@styled
def draw_history(metrics: Sequence[Row]) -> Figure:
    """Curves of a run from the rows of its metrics.jsonl: losses, validation scores, and evidence or entropies.

    metrics: rows with `kind` (train, arch, val or evidence), `epoch`, `step` (counted over the whole run) and
    numbers. Missing values and values that are not finite are left out.
    Raises: RunError: no row has anything to draw.
    """
    rows = sorted((row for row in metrics if "kind" in row and "step" in row), key=lambda row: row["step"])
    per_epoch = steps_per_epoch(rows)
    panels = {
        label: [(curve, *series(rows, curve.key, per_epoch, curve.kind)) for curve in curves]
        for label, curves in PANELS.items()
    }
    panels = {label: points for label, points in panels.items() if any(len(values) for *_, values in points)}
    if RATIO in panels:  # entropy cannot tell a choice from noise; runs without evidence have nothing else
        panels.pop(ENTROPY, None)
    if not panels:
        raise RunError("the metrics hold nothing to draw; let the run make at least one step", code="metrics-empty")
    figure = Figure(figsize=(4.6, 0.55 + 1.55 * len(panels)), layout="constrained")
    column = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (label, curves) in zip(column, panels.items(), strict=True):
        for points in curves:
            _draw_curve(axes, *points)
        axes.set_ylabel(label)
        axes.grid(axis="y", color="#E6E6E6", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=label == DECIDED))
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.2)
        if label == RATIO:
            axes.axhline(1, color=style.MUTED, linewidth=0.8, linestyle=style.TIE_STYLE, gid="noise")
        if label in COUNTED:
            axes.set_ylim(0, max(1.02, axes.get_ylim()[1]))
        elif label != "loss":  # scores and entropies lie in 0..1
            highest = axes.get_ylim()[1]
            axes.set_ylim(0, 1.02 if highest > 0.8 else highest)
    last = max(float(epochs.max()) for curves in panels.values() for _, epochs, _ in curves if len(epochs))
    column[-1].set(xlim=(0, max(1, math.ceil(last - 1e-6)) * 1.01), xlabel="epoch")
    column[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    figure.align_ylabels(column)
    return figure


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


def _draw_curve(axes: Axes, curve: Curve, epochs: np.ndarray, values: np.ndarray) -> None:
    """Draw a line; that of a noisy kind is smoothed and lies over the raw values in a pale colour."""
    named: Any = {"color": curve.colour, "label": curve.label}
    if curve.kind in NOISY and len(values) > 2:
        axes.plot(epochs, values, color=curve.colour, alpha=0.25, linewidth=0.7, gid="raw")
        axes.plot(epochs, smooth(values), linewidth=1.5, gid="smooth", **named)
    elif len(values):
        marker = "o" if len(values) <= 30 else ""
        axes.plot(epochs, values, linewidth=1.4, marker=marker, markersize=3, clip_on=False, gid="points", **named)
