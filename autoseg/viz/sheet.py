"""Nodes, arrows, arcs and labels of a trellis: layers to the right, levels downwards, lengths in inches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch, Polygon
from matplotlib.path import Path

from autoseg.analysis.module_graph import Join
from autoseg.space.resolution import Skip
from autoseg.space.trellis import Node
from autoseg.viz.style import GREEN, INK, TIE_STYLE, TIE_WIDTH, VERMILION

LAYER_STEP, LEVEL_STEP, RADIUS = 0.42, 0.52, 0.085
MARGIN = 0.2
LABEL_SIZE, LABEL_WIDTH = 7.0, 0.058
"""Font size in points of the names on arrows, and the width of a letter."""
MAIN_WIDTH, ARC_WIDTH = 2.4, 1.3
"""Line widths in points of the main or decoded path and of skip connections."""
CASING = 1.6
"""Points that the white casing of an arrow is wider than it."""
ARC_PEAKS = ((0.12, 0.02, 0.26), (0.06, 0.012, 0.11))
"""Height of an arc over the nodes: for no layers, more for each layer that it passes, and at most. The second row is
for levels with other levels above them, where names stand in between."""

LineStyle = Literal["solid"] | tuple[float, Sequence[float]]


class Spot(NamedTuple):
    """A place between the nodes of a trellis."""

    layer: float
    level: float


Place = Node | Spot


class Sheet(NamedTuple):
    """A figure with axes on which nodes have places; `step` is the distance from one layer to the next."""

    figure: Figure
    axes: Axes
    step: float

    def place(self, node: Place) -> np.ndarray:
        """The middle of a node, (x, y)."""
        return np.array([node.layer * self.step, node.level * LEVEL_STEP])

    def nodes(
        self, nodes: Sequence[Place], face: str, edge: str, gid: str, zorder: int, marker: str = "o", size: float = 1
    ) -> None:
        """Circles, or other markers; size: diameters of a node."""
        x, y = np.array([self.place(node) for node in nodes]).T
        look: Any = {"facecolors": face, "edgecolors": edge, "linewidths": 0.9, "zorder": zorder, "gid": gid}
        self.axes.scatter(x, y, s=(2 * RADIUS * 72 * size) ** 2, marker=marker, **look)

    def arrows(
        self, arrows: Sequence[tuple[Place, Place]], widths: Any, colours: Any, gid: str, zorder: float,
        style: LineStyle = "solid", cased: bool = False,
    ) -> None:  # fmt: skip
        """Shafts as one collection (`gid`) and heads as another (`gid`-heads); a head grows with its shaft.

        widths: points, for each arrow or for all. colours: for each arrow or for all. cased: with a casing (gid-casing)
        below all of them, which parts them from the arrows that they cross.
        """
        if cased:
            self.arrows(arrows, widths + CASING, "white", f"{gid}-casing", zorder - 0.2)
        shafts, heads = [], []
        for (source, target), width in zip(arrows, np.broadcast_to(widths, len(arrows)), strict=True):
            start, end = self.place(source), self.place(target)
            along = (end - start) / np.linalg.norm(end - start)
            head = arrow_head(end - along * (RADIUS + 0.012), along, width)
            shafts.append([start + along * RADIUS, head[1:].mean(0) + along * 0.004])
            heads.append(head)
        look: Any = {"linewidths": widths, "colors": colours, "linestyles": [style], "capstyle": "butt"}
        self.axes.add_collection(LineCollection(shafts, zorder=zorder, gid=gid, **look), autolim=False)
        look = {"facecolors": colours, "edgecolors": "none", "zorder": zorder + 0.1}
        self.axes.add_collection(PolyCollection(heads, gid=f"{gid}-heads", **look), autolim=False)

    def skip(self, source: Place, target: Place, how: Skip | Join, gid: str, straight: bool = False) -> None:
        """A skip connection: an arc over the nodes between its ends, which mostly have one level, or an arrow."""
        if straight:
            self.arrows([(source, target)], ARC_WIDTH, GREEN, gid, 4.4, _skip_style(how), cased=True)
            return
        across, up = np.array([np.cos(1.1), 0]) * RADIUS, np.array([0, -np.sin(1.1)]) * (RADIUS + 0.012)
        start, end = self.place(source) + across + up, self.place(target) - across + up
        lift = np.array([0, -(arc_peak(source, target) - RADIUS) / 0.75])
        bend = np.array([min(0.3 * (end - start)[0], 0.8 * self.step), 0])
        points = [start, start + bend + lift, end - bend + lift, end]
        draw_curve(self.axes, points, "white", ARC_WIDTH + 2.1, False, zorder=4.2, gid=f"{gid}-casing")
        draw_curve(self.axes, points, GREEN, ARC_WIDTH, True, zorder=4.4, gid=gid, linestyle=_skip_style(how))

    def label(self, target: Node, text: str) -> None:
        """The name of the up move into a node, half a level below it, where no arrow of the trellis passes."""
        lines = text.split(" ", 1)  # its first word, then the others
        x, y = self.place(target)
        y += LEVEL_STEP / 2 + 0.05 * (len(lines) - 1)  # the first of two lines is the longer one
        frame = {"boxstyle": "square,pad=0.06", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
        look: Any = {"ha": "center", "va": "center", "fontsize": LABEL_SIZE, "color": INK, "linespacing": 0.95}
        self.axes.text(x, y, "\n".join(lines), zorder=4.7, gid="upsampler", bbox=frame, **look)

    def legend(self, main: str, skips: Mapping[Any, str], has_ties: bool = False) -> None:
        """A row above the sheet with the names of the main path, of its ties and of each kind of skip connection."""
        lines = [Line2D([], [], color=VERMILION, linewidth=MAIN_WIDTH, marker="o", markersize=6, label=main)]
        if has_ties:
            broken: Any = {"linewidth": TIE_WIDTH, "linestyle": TIE_STYLE}
            lines.append(Line2D([], [], color=VERMILION, label="undecided", **broken))
        for how, name in skips.items():
            lines.append(Line2D([], [], color=GREEN, linewidth=ARC_WIDTH, linestyle=_skip_style(how), label=name))
        self.axes.legend(
            handles=lines, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, borderpad=0, handlelength=2.4,
            ncols=len(lines), columnspacing=1.2,
        )  # fmt: skip


def draw_curve(
    axes: Axes, points: Sequence[Any], colour: str, width: float, arrow: bool, *, zorder: float, **look: Any
) -> None:
    """A cubic curve of four control points (x, y), `width` points wide; arrow: with a head at its end."""
    *before, end = (np.asarray(point, dtype=float) for point in points)
    if arrow:
        head = arrow_head(end, (end - before[-1]) / np.linalg.norm(end - before[-1]), width)
        axes.add_patch(Polygon(head, facecolor=colour, edgecolor="none", zorder=zorder + 0.1))
        end = head[1:].mean(0)
    curve = Path([*before, end], [Path.MOVETO, *[Path.CURVE4] * 3])
    look |= {"facecolor": "none", "edgecolor": colour, "linewidth": width, "zorder": zorder}
    axes.add_patch(PathPatch(curve, **look))


def arrow_head(tip: np.ndarray, along: np.ndarray, width: float) -> np.ndarray:
    """Tip and corners (3, 2) of the head of an arrow in direction `along`; width: that of its line in points."""
    base = tip - along * (0.055 + 0.6 * width / 72)
    half = np.array([-along[1], along[0]]) * (0.024 + 0.85 * width / 72)
    return np.array([tip, base + half, base - half])


def _skip_style(how: Skip | Join) -> LineStyle:
    """Dashed for addition, solid for concatenation, dotted for pooling indices."""
    return {"add": (0, (2.6, 1.6)), "unpool": (0, (1.0, 1.0))}.get(how, "solid")


def arc_peak(source: Place, target: Place) -> float:
    """Height of an arc above the middles of its nodes."""
    lowest, more, highest = ARC_PEAKS[1 if target.level > 0 else 0]
    return RADIUS + min(lowest + more * (target.layer - source.layer), highest)
