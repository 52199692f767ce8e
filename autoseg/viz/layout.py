"""Where the parts of a cell are drawn: a layered layout in which no line crosses a box, by construction.

Columns are the depths of the states. A state that is read further right than the next column has a lane, a point that
its line passes, in each column between. Lines bend only between columns. Lengths are in inches, y grows downwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
"""How much more a line that passes a column wants to stay straight than one that ends there."""
SWEEPS = 200


class Place(NamedTuple):
    """A state's box (in its own column) or its lane in a later column."""

    state: str
    column: int


class Link(NamedTuple):
    """A line between neighbouring columns; `edge` numbers the operation at its end, -1 for a lane or the output."""

    source: Place
    target: Place
    edge: int


class Box(NamedTuple):
    """A rectangle by its centre and size."""

    x: float
    y: float
    width: float
    height: float


class Pill(NamedTuple):
    """An operation: the box with its name, inside the box of the block that it belongs to."""

    box: Box
    source: str
    target: str
    operation: str


class Wire(NamedTuple):
    """A line that leaves `start` and arrives at `end` horizontally."""

    source: str
    start: tuple[float, float]
    end: tuple[float, float]
    arrow: bool
    """It ends at an operation or at the output, not at a lane."""
    concat: bool
    """It leads to the output alone."""


@dataclass(frozen=True)
class CellLayout:
    """Everything that `draw_cell` draws. `boxes` has the inputs, blocks and output by name."""

    boxes: dict[str, Box]
    pills: tuple[Pill, ...]
    wires: tuple[Wire, ...]

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """left, right, top, bottom of everything."""
        boxes = self.boxes.values()
        ends = [wire.end[1] for wire in self.wires]
        return (
            min(box.x - box.width / 2 for box in boxes),
            max(box.x + box.width / 2 for box in boxes),
            min([box.y - box.height / 2 for box in boxes] + ends),
            max([box.y + box.height / 2 for box in boxes] + ends),
        )


def cell_layout(graph: nx.MultiDiGraph[str]) -> CellLayout:
    """The layout of a `cell_graph`; a pure function, the same each time."""
    columns = _columns(graph)
    links = _links(graph, columns)
    order = _order(graph, columns, links)
    offsets = _pill_offsets(graph, links, order)
    heights = {place: _height(graph, columns, place) for column in order for place in column}
    ys = _vertical(order, links, heights, offsets)
    return _assemble(_Plan(graph, columns, links, offsets, heights, ys))


# --- which line passes where ----------------------------------------------------------------------------------------


def _columns(graph: nx.MultiDiGraph[str]) -> dict[str, int]:
    """The depth of each state: one more than its deepest input."""
    columns: dict[str, int] = {}
    for node in nx.topological_sort(graph):
        columns[node] = 1 + max((columns[source] for source in graph.predecessors(node)), default=-1)
    return columns


def _links(graph: nx.MultiDiGraph[str], columns: Mapping[str, int]) -> list[Link]:
    """Every line between neighbouring columns; lines of one state share its lanes."""
    links = []
    edges: list[tuple[str, str, str]] = list(graph.edges(data="operation"))
    for state in graph:
        last = max((columns[reader] for reader in graph.successors(state)), default=0)
        for column in range(columns[state], last):
            here = Place(state, column)
            for number, (source, target, operation) in enumerate(edges):
                if source == state and columns[target] == column + 1:
                    links.append(Link(here, Place(target, column + 1), -1 if operation == CONCAT else number))
            if column + 1 < last:
                links.append(Link(here, Place(state, column + 1), -1))
    return links


def _order(graph: nx.MultiDiGraph[str], columns: Mapping[str, int], links: Sequence[Link]) -> list[list[Place]]:
    """Places of each column from top to bottom, with few crossings: barycentres, then swaps of neighbours."""
    places = sorted({Place(state, columns[state]) for state in graph} | {end for link in links for end in link[:2]})
    rank = {state: number for number, state in enumerate(graph)}
    order: list[list[Place]] = [[] for _ in range(1 + max(columns.values()))]
    for place in sorted(places, key=lambda place: rank[place.state]):
        order[place.column].append(place)
    best = [list(column) for column in order]
    for sweep in range(8):
        forward = sweep % 2 == 0
        for number in range(1, len(order)) if forward else range(len(order) - 2, 0, -1):
            order[number] = _by_barycentre(order[number], order[number - 1 if forward else number + 1], links)
        if _crossings(order, links) < _crossings(best, links):
            best = [list(column) for column in order]
    return _swap(best, links)


def _by_barycentre(column: Sequence[Place], beside: Sequence[Place], links: Sequence[Link]) -> list[Place]:
    position = {place: number for number, place in enumerate(beside)}
    means: dict[Place, float] = {}
    for number, place in enumerate(column):
        near = [
            position[other]
            for a, b, _ in links
            for this, other in ((a, b), (b, a))
            if this == place and other in position
        ]
        means[place] = sum(near) / len(near) if near else float(number)
    return sorted(column, key=lambda place: means[place])


def _swap(order: list[list[Place]], links: Sequence[Link]) -> list[list[Place]]:
    """Exchange neighbours within a column for as long as crossings become fewer; the inputs stay in their order."""
    fewest, improved = _crossings(order, links), True
    while improved:
        improved = False
        for column in order[1:]:
            for i in range(len(column) - 1):
                column[i], column[i + 1] = column[i + 1], column[i]
                crossings = _crossings(order, links)
                if crossings < fewest:
                    fewest, improved = crossings, True
                else:
                    column[i], column[i + 1] = column[i + 1], column[i]
    return order


def _crossings(order: Sequence[Sequence[Place]], links: Sequence[Link]) -> int:
    """Pairs of lines that cross. Lines to the output never do: it is as tall as need be."""
    position = {place: number for column in order for number, place in enumerate(column)}
    ends = np.array([(a.column, position[a], position[b]) for a, b, _ in links if b.state != OUTPUT])
    if not len(ends):
        return 0
    column, start, end = ends.T
    together = column[:, None] == column
    crossing = np.sign(start[:, None] - start) * np.sign(end[:, None] - end) < 0
    return int((together & crossing).sum()) // 2


# --- positions ------------------------------------------------------------------------------------------------------


def _pill_offsets(
    graph: nx.MultiDiGraph[str], links: Sequence[Link], order: Sequence[Sequence[Place]]
) -> dict[int, float]:
    """How far below the middle of its block each operation sits, by edge number; sorted as their lines arrive."""
    position = {place: number for column in order for number, place in enumerate(column)}
    offsets: dict[int, float] = {}
    for block in graph:
        arriving = [link for link in links if link.target.state == block and link.edge >= 0]
        arriving.sort(key=lambda link: (position[link.source], link.edge))
        pitch = PILL_HEIGHT + PLUS_HEIGHT
        for number, link in enumerate(arriving):
            offsets[link.edge] = HEADER_HEIGHT / 2 + (number - (len(arriving) - 1) / 2) * pitch
    return offsets


def _height(graph: nx.MultiDiGraph[str], columns: Mapping[str, int], place: Place) -> float:
    if columns[place.state] != place.column or place.state == OUTPUT:
        return 0.0
    if graph.nodes[place.state]["kind"] == "input":
        return INPUT_SIZE[1]
    inputs = graph.in_degree(place.state)
    return HEADER_HEIGHT + inputs * PILL_HEIGHT + (inputs - 1) * PLUS_HEIGHT + 2 * PAD


def _vertical(
    order: Sequence[Sequence[Place]],
    links: Sequence[Link],
    heights: Mapping[Place, float],
    offsets: Mapping[int, float],
) -> dict[Place, float]:
    """y of each place: lines as short and straight as the order and the gaps allow, by sweeps over the columns."""
    pulls: dict[Place, list[tuple[Place, float, float]]] = {place: [] for column in order for place in column}
    for a, b, edge in links:
        if b.state == OUTPUT:
            continue
        offset = offsets.get(edge, 0.0)
        weight = STRAIGHT if a.state == b.state else 1.0
        pulls[a].append((b, offset, weight))
        pulls[b].append((a, -offset, weight))
    ys = {place: 0.0 for column in order for place in column}
    for sweep in range(SWEEPS):
        for column in order if sweep % 2 else reversed(order):
            weights = np.array([sum(weight for *_, weight in pulls[place]) + 1e-3 for place in column])
            wanted = np.array([sum(w * (ys[other] + shift) for other, shift, w in pulls[place]) for place in column])
            gaps = [_gap(heights[a], heights[b]) for a, b in pairwise(column)]
            for place, y in zip(column, separate(wanted / weights, weights, gaps), strict=True):
                ys[place] = float(y)
    return ys


def _gap(above: float, below: float) -> float:
    """Least distance between the middles of two neighbours; a lane has no height."""
    return (above + below) / 2 + (BOX_GAP if above and below else LANE_GAP)


def separate(wanted: np.ndarray, weights: np.ndarray, gaps: Sequence[float]) -> np.ndarray:
    """The positions nearest to `wanted` (weighted squares) in this order, each `gaps[i]` or more after the last.

    Isotonic regression by pooling adjacent violators, after the gaps have been taken out.
    """
    starts = np.concatenate([[0.0], np.cumsum(gaps)])
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(wanted - starts, weights, strict=True):
        mean, total, count = float(value), float(weight), 1
        while pools and pools[-1][0] > mean:
            other, more, others = pools.pop()
            mean, total, count = (mean * total + other * more) / (total + more), total + more, count + others
        pools.append((mean, total, count))
    return np.asarray(np.repeat([mean for mean, _, _ in pools], [count for _, _, count in pools]) + starts)


# --- assembly -------------------------------------------------------------------------------------------------------


class _Plan(NamedTuple):
    """What is known before x: which line passes where, and every y."""

    graph: nx.MultiDiGraph[str]
    columns: Mapping[str, int]
    links: Sequence[Link]
    offsets: Mapping[int, float]
    heights: Mapping[Place, float]
    ys: Mapping[Place, float]

    def end_y(self, link: Link) -> float:
        """Where a line arrives; at the output, as high as it comes."""
        return self.ys[link.source if link.target.state == OUTPUT else link.target] + self.offsets.get(link.edge, 0.0)

    def concat(self, link: Link) -> bool:
        """Whether the line leads to the output alone."""
        if link.edge >= 0 or link.target.state == OUTPUT:
            return link.edge < 0
        readers = [reader for reader in self.graph.successors(link.source.state) if reader != OUTPUT]
        return all(self.columns[reader] <= link.target.column for reader in readers)


def _assemble(plan: _Plan) -> CellLayout:
    edges: list[tuple[str, str, str]] = list(plan.graph.edges(data="operation"))
    operations = [operation for _, _, operation in edges]
    pill_width = FONT_WIDTH * max(len(short_name(name)) for name in operations if name != CONCAT) + 2 * PAD
    lefts, widths = _horizontal(plan, pill_width + 2 * PAD)
    pills, wires = [], []
    for link in plan.links:
        source, target, edge = link
        start = (lefts[source.column] + widths[source.column], plan.ys[source])
        end = (lefts[target.column] + (PAD if edge >= 0 else 0.0), plan.end_y(link))
        concat = plan.concat(link)
        wires.append(Wire(source.state, start, end, edge >= 0 or target.state == OUTPUT, concat))
        if edge >= 0:
            box = Box(end[0] + pill_width / 2, end[1], pill_width, PILL_HEIGHT)
            pills.append(Pill(box, source.state, target.state, operations[edge]))
        elif target.state != OUTPUT:  # on through the column
            wires.append(Wire(source.state, end, (end[0] + widths[target.column], end[1]), False, concat))
    return CellLayout(_boxes(plan, lefts, widths), tuple(pills), tuple(wires))


def _boxes(plan: _Plan, lefts: Sequence[float], widths: Sequence[float]) -> dict[str, Box]:
    """The inputs and blocks in their columns, and the output, as tall as the lines that arrive."""
    boxes = {}
    for state, column in plan.columns.items():
        place = Place(state, column)
        boxes[state] = Box(lefts[column] + widths[column] / 2, plan.ys[place], widths[column], plan.heights[place])
    arrivals = [plan.end_y(link) for link in plan.links if link.target.state == OUTPUT]
    tall = max(OUTPUT_MIN_HEIGHT, max(arrivals) - min(arrivals) + 0.3)
    boxes[OUTPUT] = boxes[OUTPUT]._replace(y=(min(arrivals) + max(arrivals)) / 2, height=tall)
    return boxes


def _horizontal(plan: _Plan, block_width: float) -> tuple[list[float], list[float]]:
    """Left side and width of each column; the gap before it grows with the steepest line in it."""
    last = max(plan.columns.values())
    widths = [INPUT_SIZE[0], *[block_width] * (last - 1), OUTPUT_WIDTH]
    lefts = [0.0]
    for column in range(1, last + 1):
        rises = [abs(plan.end_y(link) - plan.ys[link.source]) for link in plan.links if link.target.column == column]
        gap = float(np.clip(0.22 + 0.2 * max(rises, default=0.0), 0.3, 0.6))
        lefts.append(lefts[-1] + widths[column - 1] + gap)
    return lefts, widths
