"""A fixed network in the look of a searched one: stages to the right, output strides downwards. Lengths in inches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from typing import Any

import networkx as nx
import numpy as np
from matplotlib.figure import Figure

from autoseg.analysis.module_graph import IMAGE, LOGITS, Diagram, Join, Stage
from autoseg.viz.sheet import LAYER_STEP, LEVEL_STEP, MAIN_WIDTH, MARGIN, RADIUS, Sheet, Spot, arc_peak
from autoseg.viz.style import GREEN, INK, MUTED, PALE, VERMILION, inch_axes, styled

BAR_HEIGHT, BAR_WIDTH, BARS_BELOW = 0.45, 0.24, 0.42
"""Height of the greatest bar, width of a bar, and gap between the last level and the greatest bar."""
NUMBER_SIZE = 7.0
SUM_SIZE = 0.45
"""Size, in diameters of a stage, of a place where features are summed before the logits."""
STACK = 0.5
"""Levels between stages of one column."""
LEGEND: dict[Join, str] = {"add": "skip, add", "concat": "skip, concat", "unpool": "pooling indices"}

Column = tuple[Stage, ...]
Edge = tuple[str, str]
"""Names of a stage or the image, and of the stage that reads it."""


@styled
def draw_network(diagram: Diagram, title: str | None = None) -> Figure:
    """Stages by their output stride, with what each reads and, below, their parameters and channels.

    The longest path from the image to the logits looks like a decoded path; what joins it looks like skip connections.
    Stages of one stride that read the same stand one above the other.
    """
    layout = StageLayout(diagram)
    sheet, floor = _sheet(layout)
    _draw_edges(sheet, layout)
    for beside, colour, gid in ((False, VERMILION, "stages"), (True, GREEN, "side-stages")):
        inner = [name for name in layout.spots if name not in (IMAGE, LOGITS) and (name in layout.beside) == beside]
        if inner:
            sheet.nodes([layout.spots[name] for name in inner], colour, colour, gid, 6)
    sheet.nodes([layout.spots[IMAGE], layout.spots[LOGITS]], INK, INK, "ends", 7, "s", 0.95)
    _draw_numbers(sheet, layout, floor)
    skips = {how: name for how, name in LEGEND.items() if how in layout.sides.values()}
    sheet.legend("main path", skips)
    if title:
        sheet.axes.set_title(f"{title}, {short_count(diagram.parameters)} parameters", pad=20)
    return sheet.figure


def _sheet(layout: StageLayout) -> tuple[Sheet, float]:
    """Axes with a tick a row and a column, and the height below them at which the bars stand."""
    spots, heights = layout.spots, [LEVEL_STEP * level for level in layout.rows.values()]
    floor = LEVEL_STEP * max(spot.level for spot in spots.values()) + BARS_BELOW + BAR_HEIGHT
    arcs = [(spots[source], spots[target]) for source, target in layout.sides]
    peaks = [arc_peak(source, target) for source, target in arcs if source.level == target.level == 0]
    top, bottom = -MARGIN - max(peaks, default=0.0), floor + 0.2
    right = (len(layout.columns) - 1) * LAYER_STEP
    figure, axes = inch_axes((-MARGIN, right + MARGIN, top, bottom), (0.75, 0.3, 0.5, 0.9))
    axes.tick_params(pad=1)
    axes.set_yticks(heights, [f"{row:g}" for row in layout.rows])
    axes.set_ylabel("output stride", y=(bottom - (heights[0] + heights[-1]) / 2) / (bottom - top))
    names = [_label(column) for column in layout.columns]
    places = [number * LAYER_STEP for number in range(len(names))]
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor")
    return Sheet(figure, axes, LAYER_STEP), floor


def _draw_edges(sheet: Sheet, layout: StageLayout) -> None:
    spots, main = layout.spots, []
    summed = {name: spots[LOGITS]._replace(level=spots[name].level) for name in layout.bus}
    for (source, target), _ in layout.edges:
        start, end = spots[source], spots[target]
        if target == LOGITS and layout.bus:
            if source == layout.bus[0]:
                (left, y), (x, _) = sheet.place(start), sheet.place(end)
                line: Any = {"color": VERMILION, "linewidth": MAIN_WIDTH, "zorder": 4, "gid": "main-bend"}
                xs, ys = [left + RADIUS, x, x], [y, y, y - RADIUS - 0.02]
                sheet.axes.plot(xs, ys, solid_joinstyle="round", solid_capstyle="butt", **line)
                main.append((summed[source], end))
                continue
            sheet.nodes([summed[source]], VERMILION, VERMILION, "sum", 5, size=SUM_SIZE)
            end = summed[source]._replace(layer=end.layer + (1 - SUM_SIZE) * RADIUS / sheet.step)
        if (source, target) not in layout.sides:
            main.append((start, end))
            continue
        how = layout.sides[source, target]
        over = start.level == end.level and end.layer - start.layer > 1 and target != LOGITS
        sheet.skip(start, end, how or "concat", f"skip-{how or 'none'}", straight=not over)
    sheet.arrows(main, MAIN_WIDTH, VERMILION, "main", 4, cased=True)


# --- words and numbers ------------------------------------------------------------------------------------------------


def _draw_numbers(sheet: Sheet, layout: StageLayout, floor: float) -> None:
    """Draw a bar a column for its parameters, and write its channels below."""
    axes, counts = sheet.axes, [sum(stage.parameters for stage in column) for column in layout.columns]
    places, heights = np.arange(len(counts)) * sheet.step, np.array(counts) / max(1, *counts) * BAR_HEIGHT
    axes.bar(places, -heights, BAR_WIDTH, floor, color=PALE, zorder=2)
    axes.plot([-BAR_WIDTH / 2, places[-1] + BAR_WIDTH / 2], [floor, floor], color=MUTED, linewidth=0.8, zorder=3)

    def write(x: float, y: float, text: str, colour: str, gid: str, side: str = "center") -> None:
        below = "top" if y > floor else "bottom"
        axes.text(x, y, text, ha=side, va=below, fontsize=NUMBER_SIZE, color=colour, gid=gid)

    for place, count, height, column in zip(places, counts, heights, layout.columns, strict=True):
        if count:
            write(place, floor - height - 0.03, short_count(count), INK, "parameters")
        times = f"{len(column)}\u00d7" if len(column) > 1 else ""
        write(place, floor + 0.04, f"{times}{column[0].channels}", MUTED, "channels")
    write(-MARGIN - 0.06, floor - 0.03, "parameters", INK, "word", "right")
    write(-MARGIN - 0.06, floor + 0.04, "channels", MUTED, "word", "right")


def _label(column: Column) -> str:
    """Last part of a stage's name, with the part before if it is a number; a stack shows its first and last."""
    *parents, first = column[0].name.split(".")
    name = f"{parents[-1]}.{first}" if first.isdigit() and parents else first
    return name if len(column) == 1 else f"{name} \u2026 {column[-1].name.rpartition('.')[2]}"


def short_count(count: int) -> str:
    """A number in three digits: 640, 37.9k, 2.36M, 103M."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * factor:
            value = float(f"{count / factor:.3g}")
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}{unit}"
    return str(count)


# --- where stages stand -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StageLayout:
    """Places of the stages of a diagram; the image and the logits count as stages."""

    diagram: Diagram

    @cached_property
    def columns(self) -> list[Column]:
        """Columns: a stage stands just before its first reader; neighbours of a stride that read the same share one."""

        def key(stage: Stage) -> tuple[float, set[str] | str]:
            return stage.stride, set(stage.reads) or stage.name

        return [tuple(column) for _, column in groupby(self.stages, key)]

    @cached_property
    def stages(self) -> list[Stage]:
        """Depth first from the logits backwards, the deepest first; before it, what nothing reads."""
        diagram = self.diagram
        image = Stage(IMAGE, diagram.in_channels, 1.0, 0, {})
        logits = Stage(LOGITS, diagram.classes, 1.0, diagram.other_parameters, diagram.output)
        stages = {stage.name: stage for stage in (image, *diagram.stages, logits)}
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(stages)
        graph.add_edges_from((source, stage.name) for stage in stages.values() for source in stage.reads)
        depth = {name: number for number, names in enumerate(nx.topological_generations(graph)) for name in names}
        unread = [name for name in stages if name != LOGITS and not graph.out_degree(name)]
        graph.add_edges_from((name, LOGITS) for name in unread)

        def by_depth(names: Iterable[str]) -> list[str]:
            return sorted(names, key=lambda name: (name not in unread, -depth[name]))

        return [stages[name] for name in nx.dfs_postorder_nodes(graph.reverse(), LOGITS, sort_neighbors=by_depth)]

    @cached_property
    def rows(self) -> dict[float, float]:
        """The level of the middle of each output stride, fine to coarse; a row is as high as its highest stack."""
        levels, top = {}, 0.0
        for stride in sorted({stage.stride for stage in self.stages}):
            half = max((len(column) - 1) * STACK / 2 for column in self.columns if column[0].stride == stride)
            levels[stride] = top + half
            top = levels[stride] + half + 1
        return levels

    @cached_property
    def spots(self) -> dict[str, Spot]:
        """Place of each stage by name."""
        return {
            stage.name: Spot(number, self.rows[stage.stride] + STACK * (place - (len(column) - 1) / 2))
            for number, column in enumerate(self.columns)
            for place, stage in enumerate(column)
        }

    @cached_property
    def sides(self) -> dict[Edge, Join | None]:
        """Edges beside the main path, the longest one from the image to the logits, and how they join it.

        A stage beside the main path passes on how it is joined itself.
        """
        spots, main = self.spots, set(pairwise(self._main_path))
        sides = {edge: how for edge, how in self.edges if (spots[edge[0]].layer, spots[edge[1]].layer) not in main}
        for source, target in reversed(sides):
            onward = (how for (through, _), how in sides.items() if through == target)
            sides[source, target] = sides[source, target] or next(onward, None)
        return sides

    @cached_property
    def beside(self) -> set[str]:
        """Names of the stages beside the main path."""
        return {name for name, spot in self.spots.items() if spot.layer not in self._main_path}

    @cached_property
    def edges(self) -> list[tuple[Edge, Join | None]]:
        """All edges and how they join, from left to right by the stage that reads."""
        return [((source, stage.name), how) for stage in self.stages for source, how in stage.reads.items()]

    @cached_property
    def bus(self) -> list[str]:
        """Stages that meet on a line below the logits, coarse to fine; empty if one is read or others are between."""
        (logits,) = self.columns[-1]
        spots = [self.spots[source] for source in logits.reads]
        levels = {spot.level for spot in spots}
        free = all(
            other.level != spot.level or not spot.layer < other.layer for spot in spots for other in self.spots.values()
        )
        if len(spots) < 2 or len(levels) < len(spots) or min(levels) <= self.spots[LOGITS].level or not free:
            return []
        return sorted(logits.reads, key=lambda name: -self.spots[name].level)

    @cached_property
    def _main_path(self) -> list[float]:
        """The columns of the longest path; a tie goes to what is read first."""
        end = self.spots[LOGITS].layer
        graph: nx.DiGraph[float] = nx.DiGraph()
        graph.add_node(end)
        graph.add_edges_from((self.spots[source].layer, self.spots[target].layer) for (source, target), _ in self.edges)
        return list(nx.dag_longest_path(graph.subgraph({end, *nx.ancestors(graph, end)})))
