"""A fixed network in the look of a searched one: stages to the right, output strides downwards.

Below the stages are their parameters and channels. Lengths are in inches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from autoseg.analysis.module_graph import IMAGE, LOGITS, Diagram, Join
from autoseg.viz.sheet import LAYER_STEP, LEVEL_STEP, MAIN_WIDTH, MARGIN, RADIUS, Sheet, Spot, arc_peak, bare_axes
from autoseg.viz.stages import Column, StageLayout
from autoseg.viz.style import GREEN, INK, MUTED, PALE, VERMILION, figure_of, styled

BAR_HEIGHT, BAR_WIDTH, BARS_BELOW = 0.45, 0.24, 0.42
"""Height of the greatest bar, width of a bar, and gap between the last level and the greatest bar."""
NUMBER_SIZE = 7.0
SUM_SIZE = 0.45
"""Size, in diameters of a stage, of a place where features are summed before the logits."""
LEGEND: dict[Join, str] = {"add": "skip, add", "concat": "skip, concat", "unpool": "pooling indices"}


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
    return figure_of(sheet.axes)


def _sheet(layout: StageLayout) -> tuple[Sheet, float]:
    """Axes with a tick a row and a column, and the height below them at which the bars stand."""
    spots, stages = layout.spots, [stage for column in layout.columns for stage in column]
    levels = [[spots[stage.name].level for stage in stages if stage.stride == row] for row in layout.rows]
    heights = [LEVEL_STEP * (min(row) + max(row)) / 2 for row in levels]
    floor = LEVEL_STEP * max(levels[-1]) + BARS_BELOW + BAR_HEIGHT
    arcs = [(spots[source], spots[target]) for source, target in layout.sides]
    peaks = [arc_peak(source, target) for source, target in arcs if source.level == target.level == 0]
    top, bottom = -MARGIN - max(peaks, default=0.0), floor + 0.2
    right = (len(layout.columns) - 1) * LAYER_STEP
    axes = bare_axes((-MARGIN, right + MARGIN, top, bottom), (0.75, 0.3, 0.5, 0.9))
    axes.set_yticks(heights, [f"{row:g}" for row in layout.rows])
    axes.set_ylabel("output stride", y=(bottom - (heights[0] + heights[-1]) / 2) / (bottom - top))
    names = [_label(column) for column in layout.columns]
    places = [number * LAYER_STEP for number in range(len(names))]
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor")
    return Sheet(axes, LAYER_STEP), floor


# --- lines ------------------------------------------------------------------------------------------------------------


def _draw_edges(sheet: Sheet, layout: StageLayout) -> None:
    spots, main = layout.spots, []
    summed = {name: spots[LOGITS]._replace(level=spots[name].level) for name in layout.bus}
    for (source, target), _ in layout.edges:
        start, end = spots[source], spots[target]
        if target == LOGITS and layout.bus:
            if source == layout.bus[0]:
                _draw_bend(sheet, start, end)
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
    sheet.cased_arrows(main, MAIN_WIDTH, VERMILION, "main", 3.8)


def _draw_bend(sheet: Sheet, start: Spot, end: Spot) -> None:
    """A line to the right until below `end`, then up to where an arrow from there begins."""
    x, y = sheet.place(start)
    above = sheet.place(end)[0]
    line = [(x + RADIUS, y), (above, y), (above, y - RADIUS - 0.02)]
    look: Any = {"linewidths": MAIN_WIDTH, "colors": VERMILION, "joinstyle": "round", "zorder": 4, "gid": "main-bend"}
    sheet.axes.add_collection(LineCollection([line], **look), autolim=False)


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
