"""The cell of a genotype: inputs at the left, blocks as sums of named operations, concatenation at the right."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path

from autoseg.genotype.schema import Genotype
from autoseg.viz.graph import INPUTS, OUTPUT, cell_graph, short_name
from autoseg.viz.layout import HEADER_HEIGHT, INPUT_SIZE, PAD, PILL_HEIGHT, PLUS_HEIGHT, Box, Pill, Wire, cell_layout
from autoseg.viz.style import FAINT, INK, MUTED, PALE, SMALL, figure_of, inch_axes, styled

KIND_COLOURS = {
    "sep": "#BFDDF2",
    "atrous": "#F8D0A8",
    "dil": "#F6DDA0",
    "avg": "#BFE5D2",
    "max": "#BFE5D2",
    "skip": "#E3E3E3",
}
"""Fill by the first word of an operation's short name; the name is written on it, so colour is never alone."""
OTHER_COLOUR = "#EAD3E2"

INPUT_LABELS = dict(zip(INPUTS, ("H(l\u22122)", "H(l\u22121)"), strict=True))
ARROW = (0.075, 0.032)
"""Length and half-width of an arrow head."""
TAIL = 0.26
"""The arrow that leaves the concatenation."""


@styled
def draw_cell(genotype: Genotype, name: str = "cell") -> Figure:
    """The cell that every layer of the genotype repeats: each block is the sum of the operations in its box.

    name: `cell`, or `up_cell` for that of the way up where it has its own.

    Pale lines lead to the concatenation of all blocks alone. Lines of one state run together until they part.
    """
    layout = cell_layout(cell_graph(genotype, name))
    left, right, top, bottom = layout.extent
    axes = inch_axes((left - 0.05, right + TAIL + 0.4, top - 0.05, bottom + 0.05), (0.02, 0.02, 0.02, 0.02))
    axes.set_axis_off()
    for wire in sorted(layout.wires, key=lambda wire: not wire.concat):
        _draw_wire(axes, wire)
    for name, box in layout.boxes.items():
        _draw_box(axes, name, box, sum(pill.target == name for pill in layout.pills))
    for pill in layout.pills:
        _draw_pill(axes, pill)
    return figure_of(axes)


def _draw_wire(axes: Axes, wire: Wire) -> None:
    """A curve that is horizontal at both ends."""
    (x0, y0), (x1, y1) = wire.start, wire.end
    tip = x1
    if wire.arrow:
        x1 -= ARROW[0]
    bend = 0.5 * (x1 - x0)
    curve = Path([(x0, y0), (x0 + bend, y0), (x1 - bend, y1), (x1, y1)], [Path.MOVETO, *[Path.CURVE4] * 3])
    colour = PALE if wire.concat else MUTED
    zorder = 1.0 if wire.concat else 1.5
    axes.add_patch(
        PathPatch(curve, facecolor="none", edgecolor=colour, linewidth=1.1, capstyle="round", zorder=zorder, gid="wire")
    )
    if wire.arrow:
        _draw_head(axes, (tip, y1), colour)


def _draw_head(axes: Axes, tip: tuple[float, float], colour: str) -> None:
    x, y = tip
    length, half = ARROW
    axes.add_patch(
        Polygon(
            [(x, y), (x - length, y - half), (x - length, y + half)], facecolor=colour, edgecolor="none", zorder=2.5
        )
    )


def _draw_box(axes: Axes, name: str, box: Box, operations: int) -> None:
    if name == OUTPUT:
        _rounded(axes, box, INK, "none", 2, "output")
        axes.text(
            box.x, box.y, "concat", rotation=90, ha="center", va="center", color="white", fontsize=SMALL, zorder=3
        )
        right = box.x + box.width / 2
        axes.plot([right, right + TAIL - ARROW[0]], [box.y, box.y], color=MUTED, linewidth=1.1, zorder=1)
        _draw_head(axes, (right + TAIL, box.y), MUTED)
        axes.text(right + TAIL + 0.05, box.y, "H(l)", ha="left", va="center", zorder=3)
        return
    if name in INPUT_LABELS:
        _rounded(axes, box._replace(height=INPUT_SIZE[1]), "white", INK, 2, "input")
        axes.text(box.x, box.y, INPUT_LABELS[name], ha="center", va="center", zorder=3)
        return
    _rounded(axes, box, FAINT, "#9A9A9A", 2, "block")
    top = box.y - box.height / 2
    axes.text(box.x, top + PAD / 2 + HEADER_HEIGHT / 2, name, ha="center", va="center", fontweight="bold", zorder=3)
    for gap in range(operations - 1):
        y = top + PAD + HEADER_HEIGHT + (gap + 1) * (PILL_HEIGHT + PLUS_HEIGHT) - PLUS_HEIGHT / 2
        axes.text(box.x, y, "+", ha="center", va="center", fontsize=SMALL, color=MUTED, zorder=3)


def _draw_pill(axes: Axes, pill: Pill) -> None:
    text = short_name(pill.operation)
    _rounded(axes, pill.box, KIND_COLOURS.get(text.split()[0], OTHER_COLOUR), "none", 3, "operation")
    axes.text(pill.box.x, pill.box.y, text, ha="center", va="center", fontsize=SMALL + 0.5, zorder=4)


def _rounded(axes: Axes, box: Box, face: str, edge: str, zorder: int, gid: str) -> None:
    corner = (box.x - box.width / 2, box.y - box.height / 2)
    style = "round,pad=0,rounding_size=0.05"
    axes.add_patch(
        FancyBboxPatch(
            corner, box.width, box.height, boxstyle=style, facecolor=face, edgecolor=edge, linewidth=0.9, zorder=zorder,
            gid=gid,
        )
    )  # fmt: skip
