"""The supernet of a wide space: at each node every block, depth and width at once.

Widths are channel masks, as in FBNetV2 (Wan et al. 2020, section 3.1): one convolution of the greatest width serves all
widths. Depths are weighted exits of one chain of blocks.

Symbols, beside those of `autoseg.supernet.reference`:
    beta_a, P_a      weight of the arrow a into the node, and its preprocessing
    pi_b             probability of the block b
    delta_d          probability of the depth d
    omega_w, M_w     probability of the width w, and its mask: 1 for the first channels, as many as a decoded network of
                     that width has, else 0
    x                sum over a of beta_a * P_a(H^{l-1})
    Y_b              sum over d of delta_d * (the d-th block of a chain that begins at ReLU(x)), with zeros up to the
                     cell's channels; for the cell Cell(x, H^{l-2}), which has no depth
    H^l              (sum over w of omega_w * M_w) * (sum over b of pi_b * Y_b)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.genotype.design import macro_of
from autoseg.genotype.held import held_genes
from autoseg.genotype.schema import Cell as Edges
from autoseg.network.cell import Cell
from autoseg.network.preprocess import Preprocess
from autoseg.ops.resize import Size
from autoseg.registry import BLOCKS, CELL
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import Node
from autoseg.supernet.arch_parameters import weighted_sum
from autoseg.supernet.fast.mixed_op import StackedNorm, given
from autoseg.supernet.reference import Supernet, build_arrow, evaluate_cell, mixed_edges
from autoseg.supernet.upsampling import Feature


class BlockChain(nn.Module):
    """Y_b of one block of the registry: a chain of the greatest depth, whose exits are weighted."""

    def __init__(self, block: str, depths: Sequence[int], channels: int, width: int) -> None:
        """width: channels of the output, those behind the first ones 0."""
        super().__init__()
        self.depths, self.zeros, build = tuple(depths), width - channels, BLOCKS[block].build
        self.blocks = nn.ModuleList(build(channels, channels, 1, StackedNorm) for _ in range(max(depths)))

    def forward(self, entering: Tensor, prev_prev: Feature, size: Size, depths: Tensor, alpha: Tensor | None) -> Tensor:
        """(N, channels, H, W) -> (N, width, H, W). depths: the probabilities (depths,)."""
        exits, features = [], F.relu(entering)
        for block in self.blocks:
            features = block(features)
            exits.append(features)
        output = weighted_sum(depths, (exits[depth - 1] for depth in self.depths))
        return F.pad(output, (0, 0, 0, 0, 0, self.zeros)) if self.zeros else output


class SearchedCell(nn.Module):
    """Y_b of the cell, with all operations of the space on every edge (Auto-DeepLab, eq. 1 to 3)."""

    def __init__(self, space: SearchSpace, channels: int, prev_prev_channels: int) -> None:
        super().__init__()
        self.topology = space.topology
        self.preprocess_prev_prev = Preprocess(prev_prev_channels, channels, True, StackedNorm)
        self.edges = mixed_edges(space, channels)

    def forward(self, entering: Tensor, prev_prev: Feature, size: Size, depths: Tensor, alpha: Tensor | None) -> Tensor:
        """(N, channels, H, W) -> (N, blocks * channels, H, W). alpha: (edges, operations)."""
        before = self.preprocess_prev_prev(prev_prev.plain, size)
        return evaluate_cell(self.topology, self.edges, before, entering, given(alpha))


class TemplateCell(nn.Module):
    """Y_b of the cell where it is a template."""

    def __init__(self, edges: Edges, channels: int, prev_prev_channels: int) -> None:
        super().__init__()
        self.cell = Cell(edges, channels, [_AsItIs()], prev_prev_channels, 1, StackedNorm)

    def forward(self, entering: Tensor, prev_prev: Feature, size: Size, depths: Tensor, alpha: Tensor | None) -> Tensor:
        """(N, channels, H, W) -> (N, blocks * channels, H, W)."""
        return self.cell([entering], prev_prev.plain, size)


class _AsItIs(nn.Module):
    """The preprocessing of what is preprocessed."""

    def forward(self, features: Tensor, size: Size, encoder_feature: Tensor | None) -> Tensor:
        """(N, C, H, W) unchanged."""
        return features


class MixedStage(nn.Module):
    """One node: H^l of the module's docstring. The arrows are mixed before it (Dynamic Routing, Li et al. 2020).

    Blocks have C channels, the filters of the greatest width. With the cell, whose output has C channels for each of
    its own blocks, those of the others are its first ones; and a mask leaves the first channels of each of the cell's
    blocks.
    """

    masks: Tensor

    def __init__(self, space: SearchSpace, node: Node, width: Callable[[Node], int]) -> None:
        """width: channels of a node's feature."""
        super().__init__()
        macro, channels, arrows = macro_of(space), space.filters(node.level), space.trellis.arrows_into(node)
        preprocess = (build_arrow(space, width(arrow.source), channels, arrow.move) for arrow in arrows)
        self.preprocess_prev = nn.ModuleList(preprocess)
        self.families = nn.ModuleDict()
        for block in macro.blocks:
            if block == CELL:
                self.families[block] = _cell_of(space, channels, width(space.trellis.prev_prev(node)))
            else:
                self.families[block] = BlockChain(block, macro.depths, channels, width(node))
        kept = torch.tensor(space.width_filters(node.level)).unsqueeze(1) > torch.arange(channels)
        self.register_buffer("masks", kept.repeat(1, width(node) // channels), persistent=False)

    def forward(
        self, prev_prev: Feature, prevs: Sequence[Any], betas: Tensor, blocks: Tensor, depths: Tensor, widths: Tensor,
        alpha: Tensor | None, size: Size,
    ) -> Feature:  # fmt: skip
        """The node's feature, (N, width, H, W) with `size` = (H, W).

        prevs: H^{l-1} at the start of each arrow. betas: (arrows,). blocks, depths, widths: probabilities of the
        space's options. alpha: (edges, operations), if the space searches its cell.
        """
        arriving = (preprocess(prev, size) for preprocess, prev in zip(self.preprocess_prev, prevs, strict=True))
        entering = weighted_sum(betas, arriving)
        families = (family(entering, prev_prev, size, depths, alpha) for family in self.families.values())
        output = weighted_sum(blocks, families)
        if len(self.masks) > 1:  # not a product of matrices, which autocast would round
            mask = (widths.unsqueeze(1) * self.masks).sum(0)
            output = output * mask.to(output.dtype).view(-1, 1, 1)
        return Feature(output, F.relu(output))


def _cell_of(space: SearchSpace, channels: int, prev_prev_channels: int) -> nn.Module:
    if space.searches_cell:
        return SearchedCell(space, channels, prev_prev_channels)
    return TemplateCell(held_genes(space)["cell"], channels, prev_prev_channels)


class StagedSupernet(Supernet):
    """The supernet of a wide space. What it holds fixed: `autoseg.genotype.held`."""

    def _cell_class(self) -> Callable[..., nn.Module]:
        return MixedStage

    def _width(self, node: Node) -> int:
        if node.layer < 1:
            return super()._width(node)
        space, blocks = self.space, 1
        if CELL in macro_of(space).blocks:
            blocks = space.cell.blocks if space.searches_cell else len(held_genes(space)["cell"])
        return blocks * space.filters(node.level)

    def _cell_inputs(self, dtype: torch.dtype) -> dict[Node, tuple[Any, ...]]:
        """For each node: the betas (arrows,), the probabilities of its blocks, depths and widths, and alpha."""
        tables = [self.arch.stage_probs(name) for name in ("block", "depth", "width")]
        alpha = self.arch.alpha_probs() if self.space.searches_cell else None
        return {
            node: (betas, *(table[min(node.level, len(table) - 1)] for table in tables), alpha)
            for node, betas in self._betas_into().items()
        }
