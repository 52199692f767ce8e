"""Multiply-adds of the parts of a network, in closed form and without torch.

They count what `autoseg.analysis.flops` counts, products of convolutions and matrices, but per pixel of the image: a
feature at stride s has 1/s^2 pixels per image pixel. All are whole numbers times powers of two, so exact in floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoseg.genotype.node_inputs import node_inputs
from autoseg.genotype.schema import Cell, Genotype, StageSpec
from autoseg.registry import BLOCKS, CELL, OPERATIONS
from autoseg.space.cell import PREV_PREV
from autoseg.space.groups import StemSpec
from autoseg.space.resolution import Skip, find_upsampler
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import Arrow, Move, Node, filters_at

PER_BILLION_A_MEGAPIXEL = 1000
"""Multiply-adds per pixel in one billion multiply-adds per megapixel, the unit of `decoding.budget`."""


@dataclass(frozen=True)
class Costs:
    """Multiply-adds per image pixel of the cells and arrows of one network, or of all networks of a space."""

    stem: StemSpec
    filter_multiplier: int
    cells: Sequence[Cell]  # of layers 1..L
    stages: Sequence[StageSpec] = ()  # of all levels, if a network has them

    @classmethod
    def of_space(cls, space: SearchSpace, cells: Sequence[Cell]) -> Costs:
        """The costs of decoded networks. cells: one, or those of the down path and the up path."""
        filters = space.decoding.filter_multiplier or space.network.filter_multiplier
        return cls(space.stem, filters, [cells[space.cell_of(layer)] for layer in range(1, space.network.layers + 1)])

    @classmethod
    def of_genotype(cls, genotype: Genotype) -> Costs:
        """The costs of one network."""
        cells = [genotype.cell_at(layer) for layer in range(1, genotype.layers + 1)]
        return cls(genotype.stem, genotype.network.filter_multiplier, cells, genotype.stages)

    def filters(self, level: int) -> int:
        """Filters of a block at a level."""
        return self.stages[level].filters if self.stages else filters_at(level, self.filter_multiplier)

    def stage(self, node: Node) -> StageSpec | None:
        """The stage of a node; None if it holds a cell."""
        stage = self.stages[node.level] if self.stages and node.layer > 0 else None
        return None if stage is None or stage.block == CELL else stage

    def channels(self, node: Node) -> int:
        """Channels of a node's feature; layers -1 and 0 are the stem."""
        if node.layer < 1:
            return self.stem.channels[-2:][0] if node.layer < 0 else self.stem.channels[-1]
        blocks = len(self.cells[node.layer - 1]) if self.stage(node) is None else 1
        return blocks * self.filters(node.level)

    def cell(self, node: Node) -> float:
        """The cost of the operations of a node's cell, all at stride 1."""
        cell, filters = self.cells[node.layer - 1], self.filters(node.level)
        costs = (OPERATIONS[edge.operation].multiply_adds(filters) for block in cell for edge in block)
        return self._share(node) * sum(costs)

    def blocks(self, stage: StageSpec, node: Node, first: Arrow | None) -> float:
        """The cost of the blocks of a node's stage. first: the arrow whose feature the first block itself reads."""
        multiply_adds, filters = BLOCKS[stage.block].multiply_adds, stage.filters
        came, stride = (filters, 1) if first is None else (self.channels(first.source), 1 + (first.move is Move.DOWN))
        products = multiply_adds(came, filters, stride) + (stage.depth - 1) * multiply_adds(filters, filters, 1)
        return self._share(node) * products

    def prev_prev(self, source: Node, node: Node) -> float:
        """The cost of the 1x1 convolution of `source` as H(l-2); 0 if no operation of the cell reads it."""
        if not any(edge.state == PREV_PREV for block in self.cells[node.layer - 1] for edge in block):
            return 0.0
        return self._share(node) * self.channels(source) * self.filters(node.level)

    def arrow(
        self, arrow: Arrow, upsampler: str = "bilinear", skip: Skip = "none", encoder_node: Node | None = None
    ) -> float:
        """The cost of fitting a feature to a node's size and width.

        encoder_node: what the skip of an up move joins and an unpooling reads. Default: the widest one of that level.
        """
        filters, came = self.filters(arrow.target.level), self.channels(arrow.source)
        if arrow.move is Move.SAME and came == filters and self.stage(arrow.target) is not None:
            return 0.0
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
        """Pixels of a node's feature per image pixel."""
        return 1 / (self.stem.stride << node.level) ** 2


def topology_cost(genotype: Genotype) -> float:
    """Multiply-adds per image pixel of all cells, stages and arrows of a network.

    On a path, the operations of a cell stride on a down move, behind 1x1 convolutions at the resolution before it; they
    count as at stride 1, which holds for those of autoseg.
    """
    costs, total = Costs.of_genotype(genotype), 0.0
    for node, arrows, prev_prev, encoder_node in node_inputs(genotype):
        stage, finer = costs.stage(node), 1
        if stage is None:
            finer = 4 if genotype.is_path and arrows[0].move is Move.DOWN else 1
            total += costs.cell(node) + finer * costs.prev_prev(prev_prev, node)
        else:
            is_direct = len(arrows) == 1 and arrows[0].move is not Move.UP
            total += costs.blocks(stage, node, arrows[0] if is_direct else None)
            arrows = () if is_direct else arrows
        for arrow in arrows:
            how = (genotype.upsampler(arrow), genotype.skip(arrow), encoder_node) if arrow.move is Move.UP else ()
            total += finer * costs.arrow(arrow, *how)
    return total
