"""What is drawn on a trellis: nodes, arrows, arcs and labels, layers to the right and levels downwards, in inches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch, Polygon
from matplotlib.path import Path

from autoseg.analysis.module_graph import Join
from autoseg.space.resolution import Skip
from autoseg.space.trellis import Node
from autoseg.viz.style import GREEN, INK, VERMILION, inch_axes

LAYER_STEP, LEVEL_STEP, RADIUS = 0.42, 0.52, 0.085
MARGIN = 0.2
MIN_HEIGHT = 1.25
"""Room for the label of the colour bar."""
LABEL_SIZE, LABEL_WIDTH = 7.0, 0.058
"""Points, and inches of a letter, of the names on arrows."""
MAIN_WIDTH, ARC_WIDTH = 2.4, 1.3
"""Points, of the main or decoded path and of skip connections."""
CASING = 1.6
"""Points by which an arrow's white casing, that parts it from those it crosses, is wider."""
ARC_PEAKS = ((0.12, 0.02, 0.26), (0.06, 0.012, 0.11))
"""How far an arc rises above the nodes of the first level, and of the others, where names stand between the levels: for
no layers, more for each layer it passes, and at most."""


LineStyle = Literal["solid"] | tuple[float, Sequence[float]]


class Spot(NamedTuple):
    """A place between those of the trellis."""

    layer: float
    level: float


Place = Node | Spot


class Sheet(NamedTuple):
    """Axes on which nodes have places."""

    axes: Axes
    step: float
    """From one layer to the next."""

    def place(self, node: Place) -> np.ndarray:
        """The middle of a node, (x, y)."""
        return np.array([node.layer * self.step, node.level * LEVEL_STEP])

    def nodes(
        self, nodes: Sequence[Place], face: str, edge: str, gid: str, zorder: int, marker: str = "o", size: float = 1
    ) -> None:
        """Circles, or other markers, with a size in diameters of a node."""
        x, y = np.array([self.place(node) for node in nodes]).T
        area = (2 * RADIUS * 72 * size) ** 2
        self.axes.scatter(
            x, y, s=area, marker=marker, facecolors=face, edgecolors=edge, linewidths=0.9, zorder=zorder, gid=gid
        )

    def arrows(
        self,
        arrows: Sequence[tuple[Place, Place]],
        widths: np.ndarray,
        colours: Sequence[object],
        gid: str,
        zorder: float,
        style: LineStyle = "solid",
    ) -> None:
        """Shafts as one collection (`gid`), heads as another (`gid`-heads); a head grows with its shaft."""
        shafts, heads = [], []
        for (source, target), width in zip(arrows, widths, strict=True):
            start, end = self.place(source), self.place(target)
            along = (end - start) / np.linalg.norm(end - start)
            tip = end - along * (RADIUS + 0.012)
            head = arrow_head(tip, along, width)
            shafts.append([start + along * RADIUS, head[1:].mean(0) + along * 0.004])
            heads.append(head)
        self.axes.add_collection(
            LineCollection(
                shafts, linewidths=widths, colors=colours, linestyles=[style], capstyle="butt", zorder=zorder, gid=gid
            ),
            autolim=False,
        )
        self.axes.add_collection(
            PolyCollection(heads, facecolors=colours, edgecolors="none", zorder=zorder + 0.1, gid=f"{gid}-heads"),
            autolim=False,
        )

    def cased_arrows(
        self,
        arrows: Sequence[tuple[Place, Place]],
        widths: np.ndarray,
        colour: str,
        gid: str,
        zorders: tuple[float, float],
        style: LineStyle = "solid",
    ) -> None:
        """Arrows of one colour over their casing (`gid`-casing); zorders: of the casing and of the arrows."""
        self.arrows(arrows, widths + CASING, ["white"] * len(arrows), f"{gid}-casing", zorders[0])
        self.arrows(arrows, widths, [colour] * len(arrows), gid, zorders[1], style)

    def arc(self, source: Place, target: Place, how: Skip | Join, gid: str) -> None:
        """A skip connection: over the nodes between its ends, which are mostly of one level."""
        across, up = np.array([np.cos(1.1), 0]) * RADIUS, np.array([0, -np.sin(1.1)]) * (RADIUS + 0.012)
        start, end = self.place(source) + across + up, self.place(target) - across + up
        lift = np.array([0, -(arc_peak(source, target) - RADIUS) / 0.75])
        bend = np.array([min(0.3 * (end - start)[0], 0.8 * self.step), 0])
        head = arrow_head(end, (bend - lift) / np.linalg.norm(bend - lift), ARC_WIDTH)
        points = [start, start + bend + lift, end - bend + lift, head[1:].mean(0)]
        curve = Path(points, [Path.MOVETO, *[Path.CURVE4] * 3])
        self._curve(curve, "white", ARC_WIDTH + 2.1, "solid", f"{gid}-casing", 4.2)
        self._curve(curve, GREEN, ARC_WIDTH, arc_style(how), gid, 4.4)
        self.axes.add_patch(Polygon(head, facecolor=GREEN, edgecolor="none", zorder=4.5))

    def _curve(self, curve: Path, colour: str, width: float, style: LineStyle, gid: str, zorder: float) -> None:
        self.axes.add_patch(
            PathPatch(
                curve, facecolor="none", edgecolor=colour, linewidth=width, linestyle=style, zorder=zorder, gid=gid
            )
        )

    def label(self, target: Node, text: str) -> None:
        """The name of the up move into a node, half a level below it: there no arrow of the trellis passes."""
        lines = label_lines(text)
        x, y = self.place(target)
        y += LEVEL_STEP / 2 + 0.05 * (len(lines) - 1)  # in two lines the first is the longer one
        self.axes.text(
            x,
            y,
            "\n".join(lines),
            ha="center",
            va="center",
            fontsize=LABEL_SIZE,
            color=INK,
            linespacing=0.95,
            zorder=4.7,
            gid="upsampler",
            bbox={"boxstyle": "square,pad=0.06", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        )


def trellis_sheet(
    columns: int, strides: Sequence[int], names: Iterable[str] = (), above: float = 0.0, wide: bool = False
) -> Sheet:
    """An empty sheet: the stem's column and so many more, a row a stride, wide enough for `names` between arrows.

    above: inches that arcs need over the first row; wide: the rightmost name needs room as well.
    """
    step = max([LAYER_STEP, *(len(line) * LABEL_WIDTH + 0.18 for name in names for line in label_lines(name))])
    right, bottom = columns * step, (len(strides) - 1) * LEVEL_STEP
    spare = max(0.0, MIN_HEIGHT - bottom - 2 * MARGIN) / 2
    extent = (-MARGIN, right + MARGIN + wide * 0.15, -MARGIN - max(spare, above), bottom + MARGIN + spare)
    axes = bare_axes(extent, (0.6, 0.75, 0.4, 0.5))
    axes.set_yticks([level * LEVEL_STEP for level in range(len(strides))], [str(stride) for stride in strides])
    axes.set_ylabel("output stride")
    return Sheet(axes, step)


def bare_axes(extent: tuple[float, float, float, float], margins: tuple[float, float, float, float]) -> Axes:
    """`inch_axes` without frame and tick marks."""
    axes = inch_axes(extent, margins)
    axes.tick_params(length=0, pad=1)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def arrow_head(tip: np.ndarray, along: np.ndarray, width: float) -> np.ndarray:
    """Tip and both corners of the head of an arrow in direction `along` with a line width in points."""
    base = tip - along * (0.055 + 0.6 * width / 72)
    half = np.array([-along[1], along[0]]) * (0.024 + 0.85 * width / 72)
    return np.array([tip, base + half, base - half])


def arc_style(how: Skip | Join) -> LineStyle:
    """Dashed for what is added, solid for what is concatenated, dotted for the places of unpooled maxima."""
    return {"add": (0, (2.6, 1.6)), "unpool": (0, (1.0, 1.0))}.get(how, "solid")


def arc_peak(source: Place, target: Place) -> float:
    """How far an arc rises above its nodes' middles."""
    lowest, more, highest = ARC_PEAKS[1 if target.level > 0 else 0]
    return RADIUS + min(lowest + more * (target.layer - source.layer), highest)


def legend_above(axes: Axes, main: str, skips: Mapping[Any, str]) -> None:
    """The names of the main path and of each kind of skip connection (a `Skip` or `Join`), in a row above a sheet."""
    lines = [Line2D([], [], color=VERMILION, linewidth=MAIN_WIDTH, marker="o", markersize=6, label=main)]
    for how, name in skips.items():
        lines.append(Line2D([], [], color=GREEN, linewidth=ARC_WIDTH, linestyle=arc_style(how), label=name))
    axes.legend(
        handles=lines, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, borderpad=0, handlelength=2.4,
        ncols=len(lines), columnspacing=1.2,
    )  # fmt: skip


def label_lines(text: str) -> list[str]:
    """A name in lines: its first word, then the others."""
    return text.split(" ", 1)
