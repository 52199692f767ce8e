"""The cell of a genotype: inputs at the left, blocks as sums of named operations, concatenation at the right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from autoseg.analysis.evidence import undecided_in
from autoseg.genotype.schema import Genotype
from autoseg.viz.graph import INPUTS, OUTPUT, cell_graph, short_name
from autoseg.viz.layout import HEADER_HEIGHT, PAD, PILL_HEIGHT, PLUS_HEIGHT, Box, Wire, lay_out
from autoseg.viz.sheet import draw_curve
from autoseg.viz.style import FAINT, INK, MUTED, PALE, SMALL, TIE_STYLE, inch_axes, styled

KIND_COLOURS = {"sep": "#BFDDF2", "atrous": "#F8D0A8", "dil": "#F6DDA0", "avg": "#BFE5D2", "max": "#BFE5D2"}
KIND_COLOURS["skip"] = "#E3E3E3"
"""Fill by the first word of an operation's short name, which is written on it: colour is never the only sign."""
OTHER_COLOUR = "#EAD3E2"

INPUT_LABELS = dict(zip(INPUTS, ("H(l\u22122)", "H(l\u22121)"), strict=True))
TAIL = 0.26
"""Length of the arrow that leaves the concatenation."""
NOTE_HEIGHT = 0.25


@styled
def draw_cell(genotype: Genotype, name: str = "cell") -> Figure:
    """The cell that every layer of the genotype repeats; each block is the sum of the operations in its box.

    Pale lines lead to the concatenation of all blocks only. The lines of one state run together until they part. What
    the search has not decided (`analysis.evidence`) is white and broken.
    name: `cell`, or `up_cell` for the cell of the up path if it has its own.
    """
    layout = lay_out(cell_graph(genotype, name))
    boxes, output = layout.boxes.values(), layout.boxes[OUTPUT]
    heights = [wire.end[1] for wire in layout.wires]
    top = min(heights + [box.y - box.height / 2 for box in boxes])
    bottom = max(heights + [box.y + box.height / 2 for box in boxes])
    right = output.x + output.width / 2
    ties = _ties(genotype, name, layout.wires)
    below = bottom + (NOTE_HEIGHT if any(ties) else 0.05)
    figure, axes = inch_axes((-0.05, right + TAIL + 0.4, top - 0.05, below), (0.02, 0.02, 0.02, 0.02))
    axes.set_axis_off()
    for state, box in layout.boxes.items():
        if state == OUTPUT:
            _rounded(axes, box, INK, "none", 2, "output")
            _write(axes, box.x, box.y, "concat", rotation=90, color="white", fontsize=SMALL)
        elif state in INPUT_LABELS:
            _rounded(axes, box, "white", INK, 2, "input")
            _write(axes, box.x, box.y, INPUT_LABELS[state])
        else:
            _draw_block(axes, state, box, sum(wire.target == state for wire in layout.wires))
    width = layout.pill_width
    for (_, start, end, target, operation, pale), is_tie in zip(layout.wires, ties, strict=True):
        _draw_wire(axes, start, end, target is not None, PALE if pale else MUTED, is_tie)
        if operation is not None:
            text = short_name(operation)
            colour = KIND_COLOURS.get(text.split()[0], OTHER_COLOUR)
            box = Box(end[0] + width / 2, end[1], width, PILL_HEIGHT)
            _rounded(axes, box, "white" if is_tie else colour, MUTED if is_tie else "none", 3, "operation", is_tie)
            _write(axes, box.x, box.y, text, fontsize=SMALL + 0.5, zorder=4)
    if any(ties):
        _write(axes, 0, bottom + NOTE_HEIGHT / 2, "broken: undecided", ha="left", fontsize=SMALL, color=MUTED)
    _draw_wire(axes, (right, output.y), (right + TAIL, output.y), True, MUTED)
    _write(axes, right + TAIL + 0.05, output.y, "H(l)", ha="left")
    return figure


def _ties(genotype: Genotype, name: str, wires: Sequence[Wire]) -> list[bool]:
    """Whether the search has not decided the operation at the end of each wire."""
    undecided, prefix = undecided_in(genotype).get("alpha", frozenset()), "up " if name == "up_cell" else ""
    return [wire.operation is not None and f"{prefix}{wire.source} -> {wire.target}" in undecided for wire in wires]


def _draw_wire(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], arrow: bool, colour: str, is_tie: bool = False
) -> None:
    """A curve that is horizontal at both ends, broken for a tie."""
    middle = (start[0] + end[0]) / 2
    points, zorder = [start, (middle, start[1]), (middle, end[1]), end], 2.2 if colour == PALE else 2.5
    look: Any = {"linestyle": TIE_STYLE, "capstyle": "butt"} if is_tie else {"capstyle": "round"}
    draw_curve(axes, points, colour, 0.9 if is_tie else 1.1, arrow, zorder=zorder, gid="wire", **look)


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


def _rounded(axes: Axes, box: Box, face: str, edge: str, zorder: int, gid: str, is_broken: bool = False) -> None:
    corner, style = (box.x - box.width / 2, box.y - box.height / 2), "round,pad=0,rounding_size=0.05"
    look: Any = {"facecolor": face, "edgecolor": edge, "linewidth": 0.9, "zorder": zorder, "gid": gid}
    look |= {"linestyle": TIE_STYLE} if is_broken else {}
    axes.add_patch(FancyBboxPatch(corner, box.width, box.height, boxstyle=style, **look))
