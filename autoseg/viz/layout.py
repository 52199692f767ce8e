"""Where the parts of a cell are drawn: a layered layout in which no line crosses a box, by construction.

A column is a depth of states. A state that a deeper column reads has a lane in each column between: a point that its
line passes. Lines bend only between columns. Lengths are in inches; y grows downwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
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


class Place(NamedTuple):
    """A state's box in its own column, or its lane in a later column."""

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


Order = Sequence[Sequence[Place]]
"""The places of each column from top to bottom."""


@dataclass(frozen=True)
class CellLayout:
    """Everything that `draw_cell` draws of a `cell_graph`: `boxes` and `wires`; the same each time."""

    graph: nx.MultiDiGraph[str]

    # --- which line passes where ---

    @cached_property
    def _columns(self) -> dict[str, int]:
        """Column of each state: one more than that of its deepest input."""
        generations = enumerate(nx.topological_generations(self.graph))
        return {state: column for column, states in generations for state in states}

    @cached_property
    def _edges(self) -> list[tuple[str, str, str]]:
        """Source, target and operation of each edge."""
        return list(self.graph.edges(data="operation"))

    @cached_property
    def _links(self) -> list[Link]:
        """Every line between neighbouring columns; the lines of one state share its lanes."""
        links, columns = [], self._columns
        for number, (source, target, operation) in enumerate(self._edges):
            column = columns[target]
            edge = -1 if operation == CONCAT else number
            links.append(Link(Place(source, column - 1), Place(target, column), edge))
        for state in self.graph:
            last = max((columns[reader] for reader in self.graph.successors(state)), default=0)
            lanes = [Place(state, column) for column in range(columns[state], last)]
            links += [Link(here, there, -1) for here, there in pairwise(lanes)]
        return links

    @cached_property
    def _order(self) -> Order:
        """The order with the fewest crossings of several sweeps of barycentres; the inputs keep their order."""
        places = {Place(*item) for item in self._columns.items()} | {end for link in self._links for end in link[:2]}
        rank = {state: number for number, state in enumerate(self.graph)}
        order: list[list[Place]] = [[] for _ in range(1 + self._columns[OUTPUT])]
        for place in sorted(places, key=lambda place: rank[place.state]):
            order[place.column].append(place)
        found = []
        for sweep in range(8):
            forward = sweep % 2 == 0
            for number in range(1, len(order)) if forward else range(len(order) - 2, 0, -1):
                order[number] = self._by_barycentre(order[number], order[number - 1 if forward else number + 1])
            found.append(list(order))
        return min(found, key=self._crossings)

    def _by_barycentre(self, column: Sequence[Place], beside: Sequence[Place]) -> list[Place]:
        """Sort a column by the mean position of what each place is linked to in the column beside it."""
        position, means = _positions([beside]), {}
        for number, place in enumerate(column):
            others = [other for a, b, _ in self._links for this, other in ((a, b), (b, a)) if this == place]
            near = [position[other] for other in others if other in position]
            means[place] = sum(near) / len(near) if near else float(number)
        return sorted(column, key=means.__getitem__)

    def _crossings(self, order: Order) -> int:
        """Number of crossing pairs of lines; lines to the output never cross, as it is as tall as they need."""
        position = _positions(order)
        ends = np.array([(a.column, position[a], position[b]) for a, b, _ in self._links if b.state != OUTPUT])
        column, start, end = ends.reshape(-1, 3).T
        together = column[:, None] == column
        crossing = np.sign(start[:, None] - start) * np.sign(end[:, None] - end) < 0
        return int((together & crossing).sum()) // 2

    # --- positions ---

    @cached_property
    def _offsets(self) -> dict[int, float]:
        """Distance of each operation below the middle of its block, by edge; in the order in which lines arrive."""
        position, offsets = _positions(self._order), {}
        for block in self.graph:
            arriving = [link for link in self._links if link.target.state == block and link.edge >= 0]
            arriving.sort(key=lambda link: (position[link.source], link.edge))
            for number, link in enumerate(arriving):
                middle = number - (len(arriving) - 1) / 2
                offsets[link.edge] = HEADER_HEIGHT / 2 + middle * (PILL_HEIGHT + PLUS_HEIGHT)
        return offsets

    def _height(self, place: Place) -> float:
        """Height of a box; 0 for a lane and, until its lines are known, the output."""
        if self._columns[place.state] != place.column or place.state == OUTPUT:
            return 0.0
        if self.graph.nodes[place.state]["kind"] == "input":
            return INPUT_SIZE[1]
        inputs = self.graph.in_degree(place.state)
        return HEADER_HEIGHT + inputs * PILL_HEIGHT + (inputs - 1) * PLUS_HEIGHT + 2 * PAD

    @cached_property
    def _ys(self) -> dict[Place, float]:
        """Sweeps over the columns make lines as short and straight as the order and the gaps allow."""
        pulls: dict[Place, list[tuple[Place, float, float]]] = {place: [] for column in self._order for place in column}
        for a, b, edge in self._links:
            if b.state != OUTPUT:
                offset, weight = self._offsets.get(edge, 0.0), STRAIGHT if a.state == b.state else 1.0
                pulls[a].append((b, offset, weight))
                pulls[b].append((a, -offset, weight))
        heights = {place: self._height(place) for place in pulls}
        gaps = [[_gap(heights[a], heights[b]) for a, b in pairwise(column)] for column in self._order]
        ys, columns = dict.fromkeys(pulls, 0.0), list(zip(self._order, gaps, strict=True))
        for sweep in range(SWEEPS):
            for column, between in columns if sweep % 2 else reversed(columns):
                weights = np.array([sum(weight for *_, weight in pulls[place]) + 1e-3 for place in column])
                wanted = np.array([sum(w * (ys[end] + shift) for end, shift, w in pulls[place]) for place in column])
                ys.update(zip(column, separate(wanted / weights, weights, between).tolist(), strict=True))
        return ys

    def _end_y(self, link: Link) -> float:
        """Height at which a line arrives; at the output it stays at that of its source."""
        return self._ys[link.source if link.target.state == OUTPUT else link.target] + self._offsets.get(link.edge, 0.0)

    @cached_property
    def pill_width(self) -> float:
        """Width of the box of an operation."""
        names = [short_name(operation) for _, _, operation in self._edges if operation != CONCAT]
        return FONT_WIDTH * max(map(len, names)) + 2 * PAD

    @cached_property
    def _sides(self) -> list[tuple[float, float]]:
        """Left side and width of each column; the gap before a column grows with the steepest line in it."""
        last = self._columns[OUTPUT]
        widths = [INPUT_SIZE[0], *[self.pill_width + 2 * PAD] * (last - 1), OUTPUT_WIDTH]
        lefts = [0.0]
        for column in range(1, last + 1):
            links = [link for link in self._links if link.target.column == column]
            rises = [abs(self._end_y(link) - self._ys[link.source]) for link in links]
            gap = float(np.clip(0.22 + 0.2 * max(rises, default=0.0), 0.3, 0.6))
            lefts.append(lefts[-1] + widths[column - 1] + gap)
        return list(zip(lefts, widths, strict=True))

    # --- what is drawn ---

    @cached_property
    def boxes(self) -> dict[str, Box]:
        """The inputs, the blocks and the output by name; the output is as tall as the lines that arrive."""
        boxes = {}
        for place in map(Place._make, self._columns.items()):
            left, width = self._sides[place.column]
            boxes[place.state] = Box(left + width / 2, self._ys[place], width, self._height(place))
        arrivals = [self._end_y(link) for link in self._links if link.target.state == OUTPUT]
        tall = max(OUTPUT_MIN_HEIGHT, max(arrivals) - min(arrivals) + 0.3)
        boxes[OUTPUT] = boxes[OUTPUT]._replace(y=(min(arrivals) + max(arrivals)) / 2, height=tall)
        return boxes

    @cached_property
    def wires(self) -> list[Wire]:
        """The lines between columns, and the lanes through them."""
        wires = []
        for link in self._links:
            source, (state, column), edge = link
            readers = [self._columns[reader] for reader in self.graph.successors(source.state) if reader != OUTPUT]
            pale = edge < 0 and all(reader <= column for reader in readers)
            left, width = self._sides[column]
            start, end = (sum(self._sides[source.column]), self._ys[source]), (left, self._end_y(link))
            if edge >= 0:
                wires.append(Wire(source.state, start, (left + PAD, end[1]), state, self._edges[edge][2], pale))
            elif state == OUTPUT:
                wires.append(Wire(source.state, start, end, state, None, pale))
            else:  # on through the column
                wires.append(Wire(source.state, start, end, None, None, pale))
                wires.append(Wire(source.state, end, (left + width, end[1]), None, None, pale))
        return wires


def _positions(order: Order) -> dict[Place, int]:
    """Number of each place in its column."""
    return {place: number for column in order for number, place in enumerate(column)}


def _gap(above: float, below: float) -> float:
    """Least distance between the middles of two neighbours; a lane has no height."""
    return (above + below) / 2 + (BOX_GAP if above and below else LANE_GAP)


def separate(wanted: np.ndarray, weights: np.ndarray, gaps: Sequence[float]) -> np.ndarray:
    """The positions nearest to `wanted` (weighted squares) in this order, each at least `gaps[i]` after the last.

    The gaps are taken out, and isotonic regression pools adjacent violators.
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
