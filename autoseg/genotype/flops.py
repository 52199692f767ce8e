"""Multiply-adds of the parts of a network of several paths, in closed form and without torch.

Counted as `autoseg.analysis.flops` does, products of convolutions and matrices, but for each pixel of the image: a
feature at stride s has 1/s^2 pixels for each of the image's. All counts are whole numbers times powers of two, exact in
floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoseg.genotype.schema import Cell, Genotype
from autoseg.registry import OPERATIONS
from autoseg.space.cell import PREV_PREV
from autoseg.space.groups import StemSpec
from autoseg.space.resolution import Skip, find_upsampler
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import Arrow, Move, Node, filters_at, nearest_level

PER_BILLION_A_MEGAPIXEL = 1000
"""Multiply-adds a pixel in one billion of them a megapixel, the unit of `decoding.budget`."""


@dataclass(frozen=True)
class Costs:
    """Multiply-adds for each pixel of the image, of cells and arrows of one network or of all networks of a space."""

    stem: StemSpec
    filter_multiplier: int
    cells: Sequence[Cell]
    """Of layers 1..L."""

    @classmethod
    def of_space(cls, space: SearchSpace, cells: Sequence[Cell]) -> Costs:
        """Of the networks that are decoded; cells: one, or those of the down path and the up path."""
        filters = space.decoding.filter_multiplier or space.network.filter_multiplier
        return cls(space.stem, filters, [cells[space.cell_of(layer)] for layer in range(1, space.network.layers + 1)])

    @classmethod
    def of_genotype(cls, genotype: Genotype) -> Costs:
        """Of one network."""
        cells = [genotype.cell_at(layer) for layer in range(1, genotype.layers + 1)]
        return cls(genotype.stem, genotype.network.filter_multiplier, cells)

    def filters(self, level: int) -> int:
        """Filters of a block at a level."""
        return filters_at(level, self.filter_multiplier)

    def channels(self, node: Node) -> int:
        """Channels of a node's feature; of layers -1 and 0 the stem's."""
        if node.layer < 1:
            return self.stem.channels[-2:][0] if node.layer < 0 else self.stem.channels[-1]
        return len(self.cells[node.layer - 1]) * self.filters(node.level)

    def cell(self, node: Node) -> float:
        """Of the operations of a node's cell, all at stride 1."""
        cell, filters = self.cells[node.layer - 1], self.filters(node.level)
        return self._share(node) * sum(
            OPERATIONS[edge.operation].multiply_adds(filters) for block in cell for edge in block
        )

    def prev_prev(self, source: Node, node: Node) -> float:
        """Of the 1x1 convolution by which a node reads `source` as H(l-2); none where no operation of its cell does."""
        if not any(edge.state == PREV_PREV for block in self.cells[node.layer - 1] for edge in block):
            return 0.0
        return self._share(node) * self.channels(source) * self.filters(node.level)

    def arrow(
        self, arrow: Arrow, upsampler: str = "bilinear", skip: Skip = "none", encoder_node: Node | None = None
    ) -> float:
        """Of bringing a feature to a node's size and width.

        encoder_node: for an up move, the node whose feature the skip joins and an unpooling reads. Default: the widest
        that there may be at that level.
        """
        filters, came = self.filters(arrow.target.level), self.channels(arrow.source)
        if arrow.move is not Move.UP:
            return self._share(arrow.target) * came * filters
        joined = self._encoder_channels(arrow.target) if encoder_node is None else self.channels(encoder_node)
        products: float = came * filters
        if upsampler != "bilinear":
            products = (came * filters + find_upsampler(upsampler).multiply_adds(filters, joined)) / 4
        if skip != "none":
            products += joined * filters
        if skip == "concat" and upsampler != "bilinear":
            products += filters**2
        return self._share(arrow.target) * products

    def _encoder_channels(self, node: Node) -> int:
        widest = max(map(len, self.cells)) * self.filters(node.level)
        return widest if node.level else max(widest, self.channels(Node(0, 0)))

    def _share(self, node: Node) -> float:
        """Pixels of a node's feature for each of the image's."""
        return 1 / (self.stem.stride << node.level) ** 2


def topology_cost(genotype: Genotype) -> float:
    """Multiply-adds for each pixel of the image, of all cells and arrows of a network of several paths."""
    costs, total = Costs.of_genotype(genotype), 0.0
    levels = {-1: [0], 0: [0]}
    for layer in range(1, genotype.layers + 1):
        nodes = genotype.nodes_at(layer)
        levels[layer] = [node.level for node in nodes]
        for node in nodes:
            source = Node(layer - 2, nearest_level(node.level, levels[layer - 2]))
            total += costs.cell(node) + costs.prev_prev(source, node)
    for arrow in genotype.arrows:
        up = arrow.move is Move.UP
        total += (
            costs.arrow(
                arrow,
                genotype.upsampler(arrow),
                genotype.skip(arrow),
                genotype.encoder_node(arrow.target.level, arrow.target.layer),
            )
            if up
            else costs.arrow(arrow)
        )
    return total
