"""The cell of a genotype: inputs at the left, blocks as sums of named operations, concatenation at the right."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path

from autoseg.genotype.schema import Genotype
from autoseg.viz.graph import INPUTS, OUTPUT, cell_graph, short_name
from autoseg.viz.layout import HEADER_HEIGHT, INPUT_SIZE, PAD, PILL_HEIGHT, PLUS_HEIGHT, Box, CellLayout
from autoseg.viz.style import FAINT, INK, MUTED, PALE, SMALL, figure_of, inch_axes, styled

KIND_COLOURS = {"sep": "#BFDDF2", "atrous": "#F8D0A8", "dil": "#F6DDA0", "avg": "#BFE5D2", "max": "#BFE5D2"}
KIND_COLOURS["skip"] = "#E3E3E3"
"""Fill by the first word of an operation's short name, which is written on it: colour is never the only sign."""
OTHER_COLOUR = "#EAD3E2"

INPUT_LABELS = dict(zip(INPUTS, ("H(l\u22122)", "H(l\u22121)"), strict=True))
ARROW = (0.075, 0.032)
"""Length and half-width of an arrow head."""
TAIL = 0.26
"""Length of the arrow that leaves the concatenation."""


@styled
def draw_cell(genotype: Genotype, name: str = "cell") -> Figure:
    """The cell that every layer of the genotype repeats; each block is the sum of the operations in its box.

    Pale lines lead to the concatenation of all blocks only. The lines of one state run together until they part.
    name: `cell`, or `up_cell` for the cell of the up path if it has its own.
    """
    layout = CellLayout(cell_graph(genotype, name))
    left, right, top, bottom = layout.extent
    axes = inch_axes((left - 0.05, right + TAIL + 0.4, top - 0.05, bottom + 0.05), (0.02, 0.02, 0.02, 0.02))
    axes.set_axis_off()
    for wire in sorted(layout.wires, key=lambda wire: not wire.concat):
        _draw_wire(axes, wire.start, wire.end, wire.arrow, wire.concat)
    for state, box in layout.boxes.items():
        if state == OUTPUT:
            _draw_output(axes, box)
        elif state in INPUT_LABELS:
            _rounded(axes, box._replace(height=INPUT_SIZE[1]), "white", INK, 2, "input")
            _write(axes, box.x, box.y, INPUT_LABELS[state])
        else:
            _draw_block(axes, state, box, sum(pill.target == state for pill in layout.pills))
    for box, _, _, operation in layout.pills:
        text = short_name(operation)
        _rounded(axes, box, KIND_COLOURS.get(text.split()[0], OTHER_COLOUR), "none", 3, "operation")
        _write(axes, box.x, box.y, text, fontsize=SMALL + 0.5, zorder=4)
    return figure_of(axes)


def _draw_wire(axes: Axes, start: tuple[float, float], end: tuple[float, float], arrow: bool, pale: bool) -> None:
    """A curve that is horizontal at both ends."""
    colour = PALE if pale else MUTED
    (x0, y0), (x1, y1) = start, end
    if arrow:
        _draw_head(axes, end, colour)
        x1 -= ARROW[0]
    bend = 0.5 * (x1 - x0)
    curve = Path([(x0, y0), (x0 + bend, y0), (x1 - bend, y1), (x1, y1)], [Path.MOVETO, *[Path.CURVE4] * 3])
    look: Any = {"facecolor": "none", "edgecolor": colour, "linewidth": 1.1, "capstyle": "round", "gid": "wire"}
    axes.add_patch(PathPatch(curve, zorder=1.0 if pale else 1.5, **look))


def _draw_head(axes: Axes, tip: tuple[float, float], colour: str) -> None:
    (x, y), (length, half) = tip, ARROW
    corners = [(x, y), (x - length, y - half), (x - length, y + half)]
    axes.add_patch(Polygon(corners, facecolor=colour, edgecolor="none", zorder=2.5))


def _draw_output(axes: Axes, box: Box) -> None:
    _rounded(axes, box, INK, "none", 2, "output")
    _write(axes, box.x, box.y, "concat", rotation=90, color="white", fontsize=SMALL)
    right = box.x + box.width / 2
    axes.plot([right, right + TAIL - ARROW[0]], [box.y, box.y], color=MUTED, linewidth=1.1, zorder=1)
    _draw_head(axes, (right + TAIL, box.y), MUTED)
    _write(axes, right + TAIL + 0.05, box.y, "H(l)", ha="left")


def _draw_block(axes: Axes, name: str, box: Box, operations: int) -> None:
    """A block with its name and the signs between its operations."""
    _rounded(axes, box, FAINT, "#9A9A9A", 2, "block")
    top = box.y - box.height / 2
    _write(axes, box.x, top + PAD / 2 + HEADER_HEIGHT / 2, name, fontweight="bold")
    for gap in range(operations - 1):
        y = top + PAD + HEADER_HEIGHT + (gap + 1) * (PILL_HEIGHT + PLUS_HEIGHT) - PLUS_HEIGHT / 2
        _write(axes, box.x, y, "+", fontsize=SMALL, color=MUTED)


def _write(axes: Axes, x: float, y: float, text: str, **look: Any) -> None:
    axes.text(x, y, text, **{"ha": "center", "va": "center", "zorder": 3, **look})


def _rounded(axes: Axes, box: Box, face: str, edge: str, zorder: int, gid: str) -> None:
    corner, style = (box.x - box.width / 2, box.y - box.height / 2), "round,pad=0,rounding_size=0.05"
    look: Any = {"facecolor": face, "edgecolor": edge, "linewidth": 0.9, "zorder": zorder, "gid": gid}
    axes.add_patch(FancyBboxPatch(corner, box.width, box.height, boxstyle=style, **look))
