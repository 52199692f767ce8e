"""Where the parts of a cell are drawn: a layered layout in which no line crosses a box, by construction.

A column is a depth of states. A state that a deeper column reads has a lane in each column between: a point that its
line passes. Lines bend only between columns. Lengths are in inches; y grows downwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import networkx as nx
import numpy as np

from autoseg.viz.graph import CONCAT, OUTPUT, short_name

FONT_WIDTH = 0.070
"""Greatest mean width of a letter of an operation in `draw_cell`."""
PILL_HEIGHT, PLUS_HEIGHT, HEADER_HEIGHT, PAD = 0.24, 0.13, 0.20, 0.06
INPUT_SIZE = (0.58, 0.30)
OUTPUT_WIDTH, OUTPUT_MIN_HEIGHT = 0.24, 0.75
LANE_GAP, BOX_GAP = 0.12, 0.20
STRAIGHT = 8.0
"""Weight of a line that passes a column, against 1 for a line that ends there: long lines stay straight."""
SWEEPS = 200


class Box(NamedTuple):
    """A rectangle by its centre and size."""

    x: float
    y: float
    width: float
    height: float


class Wire(NamedTuple):
    """A line that is horizontal at both ends.

    operation: at the line's end, inside the box of the block `target`. Both are None if the line goes on as another
    one. pale: it leads to nothing but the output.
    """

    source: str
    start: tuple[float, float]
    end: tuple[float, float]
    target: str | None
    operation: str | None
    pale: bool


class CellLayout(NamedTuple):
    """What `draw_cell` draws: the inputs, the blocks and the output by name, the lines, and an operation's width."""

    boxes: dict[str, Box]
    wires: list[Wire]
    pill_width: float


class Place(NamedTuple):
    """A state's box in its own column, or its lane in a later column."""

    state: str
    column: int


@dataclass(eq=False)
class Link:
    """A line between neighbouring columns. operation: at its end; None at a lane or the output.

    offset: how far below the middle of its target it ends.
    """

    source: Place
    target: Place
    operation: str | None
    offset: float = 0.0


Order = list[list[Place]]
"""The places of each column from top to bottom."""


def lay_out(graph: nx.MultiDiGraph[str]) -> CellLayout:
    """The places of the parts of a `cell_graph`; the same each time."""
    columns = {state: number for number, states in enumerate(nx.topological_generations(graph)) for state in states}
    links = _links(graph, columns)
    order = _order(graph, columns, links)
    _stack_operations(order, links)
    own = [Place(*item) for item in columns.items()]
    heights = {place: _height(graph, place.state) if place in own else 0.0 for column in order for place in column}
    ys = _spread(order, links, heights)
    for link in links:
        if link.target.state == OUTPUT:  # straight from the left
            link.offset = ys[link.source] - ys[link.target]
    pill_width = FONT_WIDTH * max(len(short_name(link.operation)) for link in links if link.operation) + 2 * PAD
    widths = [INPUT_SIZE[0], *[pill_width + 2 * PAD] * (len(order) - 2), OUTPUT_WIDTH]
    lefts = [0.0]
    for column, width in enumerate(widths[:-1]):  # the steepest line needs the gap behind a column
        rises = [abs(ys[link.target] + link.offset - ys[link.source]) for link in links if link.source.column == column]
        lefts.append(lefts[-1] + width + float(np.clip(0.22 + 0.2 * max(rises), 0.3, 0.6)))
    boxes = {}
    for place in own:
        left, width = lefts[place.column], widths[place.column]
        boxes[place.state] = Box(left + width / 2, ys[place], width, heights[place])
    arrivals = [ys[link.source] for link in links if link.target.state == OUTPUT]
    tall = max(OUTPUT_MIN_HEIGHT, max(arrivals) - min(arrivals) + 0.3)
    boxes[OUTPUT] = boxes[OUTPUT]._replace(y=(min(arrivals) + max(arrivals)) / 2, height=tall)
    wires = []
    for link in links:
        (state, column), target = link.source, link.target
        readers = [columns[reader] for reader in graph.successors(state) if reader != OUTPUT]
        pale = link.operation is None and all(reader <= target.column for reader in readers)
        start, end = (lefts[column] + widths[column], ys[link.source]), (lefts[target.column], ys[target] + link.offset)
        if target.state == state:  # on through the column
            through = end[0] + widths[target.column], end[1]
            wires += [Wire(state, start, end, None, None, pale), Wire(state, end, through, None, None, pale)]
        else:
            entry = end[0] + (PAD if link.operation else 0.0), end[1]
            wires.append(Wire(state, start, entry, target.state, link.operation, pale))
    return CellLayout(boxes, wires, pill_width)


def _links(graph: nx.MultiDiGraph[str], columns: dict[str, int]) -> list[Link]:
    """Every line between neighbouring columns; the lines of one state share its lanes."""
    links = []
    for source, target, data in graph.edges(data=True):
        operation = data["operation"]
        ends = Place(source, columns[target] - 1), Place(target, columns[target])
        links.append(Link(*ends, None if operation == CONCAT else operation))
    for state in graph:
        last = max((columns[reader] for reader in graph.successors(state)), default=0)
        lanes = [Place(state, column) for column in range(columns[state], last)]
        links += [Link(here, there, None) for here, there in pairwise(lanes)]
    return links


def _height(graph: nx.MultiDiGraph[str], state: str) -> float:
    """Height of a state's box; 0 for the output, until its lines are known."""
    inputs = graph.in_degree(state)
    block = HEADER_HEIGHT + inputs * PILL_HEIGHT + (inputs - 1) * PLUS_HEIGHT + 2 * PAD
    return {"input": INPUT_SIZE[1], "output": 0.0}.get(graph.nodes[state]["kind"], block)


# --- order in a column ------------------------------------------------------------------------------------------------


def _order(graph: nx.MultiDiGraph[str], columns: dict[str, int], links: Sequence[Link]) -> Order:
    """The order with the fewest crossings of several sweeps of barycentres; the inputs keep their order."""
    near: dict[Place, list[Place]] = {Place(*item): [] for item in columns.items()}
    for link in links:
        near.setdefault(link.source, []).append(link.target)
        near.setdefault(link.target, []).append(link.source)
    rank = {state: number for number, state in enumerate(graph)}
    order: Order = [[] for _ in range(1 + columns[OUTPUT])]
    for place in sorted(near, key=lambda place: rank[place.state]):
        order[place.column].append(place)
    found = []
    for sweep in range(8):
        step = -1 if sweep % 2 else 1
        for number in range(1, len(order))[::step]:
            position, means = _positions(order), {}
            for place in order[number]:
                beside = [position[other] for other in near[place] if other.column == number - step]
                means[place] = float(np.mean(beside or [position[place]]))
            order[number] = sorted(order[number], key=means.__getitem__)
        found.append(list(order))
    return min(found, key=lambda each: _crossings(each, links))


def _crossings(order: Order, links: Sequence[Link]) -> int:
    """Number of crossing pairs of lines; lines to the output never cross, as it is as tall as they need."""
    position = _positions(order)
    inner = [link for link in links if link.target.state != OUTPUT]
    ends = [(link.source.column, position[link.source], position[link.target]) for link in inner]
    column, start, end = np.array(ends).T
    together = column[:, None] == column
    crossing = np.sign(start[:, None] - start) * np.sign(end[:, None] - end) < 0
    return int((together & crossing).sum()) // 2


def _positions(order: Order) -> dict[Place, int]:
    """Number of each place in its column."""
    return {place: number for column in order for number, place in enumerate(column)}


# --- heights ----------------------------------------------------------------------------------------------------------


def _stack_operations(order: Order, links: Sequence[Link]) -> None:
    """Set the offsets: the operations of a block stand in the order in which their lines arrive."""
    position = _positions(order)
    for block in position:
        arriving = [link for link in links if link.target == block and link.operation]
        arriving.sort(key=lambda link: position[link.source])
        for number, link in enumerate(arriving):
            link.offset = HEADER_HEIGHT / 2 + (number - (len(arriving) - 1) / 2) * (PILL_HEIGHT + PLUS_HEIGHT)


def _spread(order: Order, links: Sequence[Link], heights: dict[Place, float]) -> dict[Place, float]:
    """The middle of each place: sweeps make lines as short and straight as the order and the gaps allow."""
    pulls: dict[Place, list[tuple[Place, float, float]]] = {place: [] for place in heights}
    for link in links:
        if link.target.state != OUTPUT:
            weight = STRAIGHT if link.source.state == link.target.state else 1.0
            pulls[link.source].append((link.target, link.offset, weight))
            pulls[link.target].append((link.source, -link.offset, weight))
    ys, columns = dict.fromkeys(heights, 0.0), []
    for column in order:
        pairs = [(heights[above], heights[below]) for above, below in pairwise(column)]
        columns.append((column, [(a + b) / 2 + (BOX_GAP if a and b else LANE_GAP) for a, b in pairs]))
    for sweep in range(SWEEPS):
        for column, gaps in columns if sweep % 2 else reversed(columns):
            weights = np.array([sum(weight for *_, weight in pulls[place]) + 1e-3 for place in column])
            wanted = np.array([sum(w * (ys[end] + shift) for end, shift, w in pulls[place]) for place in column])
            ys.update(zip(column, separate(wanted / weights, weights, gaps).tolist(), strict=True))
    return ys


def separate(wanted: np.ndarray, weights: np.ndarray, gaps: Sequence[float]) -> np.ndarray:
    """The positions nearest to `wanted` (weighted squares), in order, at least `gaps` apart, by isotonic regression."""
    starts = np.concatenate([[0.0], np.cumsum(gaps)])
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(wanted - starts, weights, strict=True):
        mean, total, count = float(value), float(weight), 1
        while pools and pools[-1][0] > mean:
            other, more, others = pools.pop()
            mean, total, count = (mean * total + other * more) / (total + more), total + more, count + others
        pools.append((mean, total, count))
    return np.asarray(np.repeat([mean for mean, _, _ in pools], [count for _, _, count in pools]) + starts)
