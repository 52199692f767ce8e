"""The network level: nodes (layer, level) and the legal arrows between them, as a networkx DiGraph.

`layer` 0 is the stem, 1..L are cells; `level` 0 has the smallest stride (highest resolution).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

import networkx as nx
import numpy as np


class Move(IntEnum):
    """The move of an arrow: to twice the resolution, the same, or half. The last axis of `beta`."""

    UP = 0
    SAME = 1
    DOWN = 2

    @property
    def step(self) -> int:
        """Change of level."""
        return int(self) - 1


class Node(NamedTuple):
    """A node of the trellis. Node(-1, 0) and Node(0, 0) are the features of the stem's last two convolutions."""

    layer: int
    level: int


class Arrow(NamedTuple):
    """A legal step from a node to one in the next layer."""

    source: Node
    target: Node
    move: Move


FIRST_STEM_NODE = Node(-1, 0)
STEM_NODE = Node(0, 0)


def nearest_level(level: int, levels: Iterable[int]) -> int:
    """The level of H(l-2) for a node at `level`: the nearest of the `levels` two layers ago; ties go to the finer."""
    return min(levels, key=lambda other: (abs(other - level), other))


def prev_prev_of(node: Node, nodes_at: Callable[[int], Iterable[Node]]) -> Node:
    """H(l-2) of a node: the same level two layers ago, or the nearest that exists there. nodes_at: those of a layer."""
    if node.layer <= 2:
        return (FIRST_STEM_NODE, STEM_NODE)[node.layer - 1]
    layer = node.layer - 2
    return Node(layer, nearest_level(node.level, (other.level for other in nodes_at(layer))))


def filters_at(level: int, filter_multiplier: int) -> int:
    """Filters of a block: F at the smallest stride, doubled at each further one."""
    return filter_multiplier << level


class Trellis:
    """Every node that a path from the stem can reach, and every legal arrow (Auto-DeepLab, figure 1).

    `graph`: DiGraph of `Node`s with the attribute `stride`; edges have the attribute `move`.
    """

    def __init__(
        self,
        layers: int,
        strides: Sequence[int],
        moves: Sequence[str] = ("up", "same", "down"),
        down_layers: int | None = None,
    ) -> None:
        """down_layers: for an hourglass. No move into these layers goes up, none into a later layer goes down, and the
        last layer only has level 0."""
        self.layers, self.down_layers = layers, down_layers
        self.strides = tuple(strides)
        self.moves = tuple(move for move in Move if move.name.lower() in moves)
        self.graph = self._build()

    def _build(self) -> nx.DiGraph[Node]:
        graph: nx.DiGraph[Node] = nx.DiGraph()
        graph.add_node(STEM_NODE, stride=self.strides[0])
        for layer in range(self.layers):
            for node in [node for node in graph if node.layer == layer]:
                for move in self._moves_into(layer + 1):
                    level = node.level + move.step
                    if 0 <= level < len(self.strides):
                        target = Node(layer + 1, level)
                        graph.add_node(target, stride=self.strides[level])
                        graph.add_edge(node, target, move=move)
        if self.down_layers is not None:  # drop nodes that cannot reach the end of an hourglass
            end = Node(self.layers, 0)
            graph.remove_nodes_from(set(graph) - nx.dfs_tree(graph.reverse(), end).nodes)
        return graph

    def _moves_into(self, layer: int) -> tuple[Move, ...]:
        """The legal moves into a layer."""
        if self.down_layers is None:
            return self.moves
        barred = Move.UP if layer <= self.down_layers else Move.DOWN
        return tuple(move for move in self.moves if move is not barred)

    @property
    def nodes(self) -> list[Node]:
        """The nodes that hold a cell, layer by layer, level by level."""
        return sorted(node for node in self.graph if node.layer > 0)

    @property
    def arrows(self) -> list[Arrow]:
        """Every legal arrow, ordered by source, then move."""
        return [arrow for node in sorted(self.graph) for arrow in self.arrows_from(node)]

    def nodes_at(self, layer: int) -> list[Node]:
        """The nodes of one layer, by level."""
        return sorted(node for node in self.graph if node.layer == layer)

    def arrows_into(self, node: Node) -> list[Arrow]:
        """Legal arrows that end at `node`, by the level they come from."""
        return [Arrow(s, node, self.graph.edges[s, node]["move"]) for s in sorted(self.graph.predecessors(node))]

    def arrows_from(self, node: Node) -> list[Arrow]:
        """Legal arrows that leave `node`, by move; their betas sum to one (eq. 7)."""
        return [Arrow(node, t, self.graph.edges[node, t]["move"]) for t in sorted(self.graph.successors(node))]

    def arrows_along(self, levels: Sequence[int]) -> tuple[Arrow, ...]:
        """The arrows of the path with these levels of layers 1..L."""
        nodes = [STEM_NODE, *(Node(layer, level) for layer, level in enumerate(levels, start=1))]
        return tuple(Arrow(s, t, self.graph.edges[s, t]["move"]) for s, t in pairwise(nodes))

    def prev_prev(self, node: Node) -> Node:
        """The node that `node` reads as H(l-2)."""
        return prev_prev_of(node, self.nodes_at)

    def skip_sources(self, level: int) -> list[Node]:
        """The nodes from which a path may leave `level` downwards, by layer; skips and unpooling read them."""
        return sorted(arrow.source for arrow in self.arrows if arrow.source.level == level and arrow.move is Move.DOWN)

    def legal(self) -> np.ndarray:
        """Boolean mask [layer, level, move] of the arrows: the shape of `beta`."""
        mask = np.zeros((self.layers, len(self.strides), len(Move)), dtype=bool)
        for arrow in self.arrows:
            mask[arrow.source.layer, arrow.source.level, arrow.move] = True
        return mask

    def paths_to_go(self) -> dict[Node, int]:
        """Number of paths from each node to the last layer, exact for any size."""
        counts = {node: 1 for node in self.nodes_at(self.layers)}
        for node in sorted(set(self.graph) - set(counts), reverse=True):
            counts[node] = sum(counts[arrow.target] for arrow in self.arrows_from(node))
        return counts

    def count_paths(self) -> int:
        """Number of paths from the stem to any node of the last layer."""
        return self.paths_to_go()[STEM_NODE]
