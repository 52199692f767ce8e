"""The supernet: one loop over the trellis.

Letters: N images, H height, W width.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from autoseg.genotype.schema import Genotype
from autoseg.ops.heads import Aspp, Stem
from autoseg.ops.resize import level_size, resize
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import FIRST_STEM_NODE, STEM_NODE, Node
from autoseg.supernet.arch_parameters import ArchParameters
from autoseg.supernet.cell import Feature, SearchCell
from autoseg.supernet.cell_weights import ReadingWeights, WeightLayout
from autoseg.supernet.factors import AlphaFactors
from autoseg.supernet.reading import Factors, StackedNorm, frozen_statistics


class SearchHead(nn.Module):
    """ASPP of one stride with as many filters a branch as its input has channels, and a classifier (section 4.1)."""

    def __init__(self, channels: int, num_classes: int, rate: int) -> None:
        super().__init__()
        self.aspp = Aspp(channels, channels, [rate], StackedNorm)
        self.classifier = nn.Conv2d(self.aspp.out_channels, num_classes, 1)

    def forward(self, activated: Tensor) -> Tensor:
        """(N, channels, h, w) after a ReLU -> logits (N, num_classes, h, w)."""
        logits: Tensor = self.classifier(self.aspp(activated))
        return logits


class Supernet(nn.Module):
    """Every path and operation of a search space at once, weighted by alpha and beta (Auto-DeepLab, section 3).

    forward: (N, 3, H, W) normalised images, any H and W from 32 up -> logits (N, num_classes, H, W).
    """

    arrow_index: Tensor

    def __init__(self, space: SearchSpace, num_classes: int, arch_init_std: float = 1e-3) -> None:
        super().__init__()
        self.space, self.num_classes = space, num_classes
        self.last_level: int | None = None
        self.checkpoint_cells = False
        """Keep no more than the output of each cell for the way back, and evaluate the cell again there."""
        self.arch = ArchParameters(space, arch_init_std)
        self.stem = Stem(space.stem.channels, space.stem.strides, StackedNorm)
        trellis = space.trellis
        self.cells = nn.ModuleDict(
            {
                cell_name(node): SearchCell(
                    [(self._width(arrow.source), arrow.move) for arrow in trellis.arrows_into(node)],
                    self._width(trellis.prev_prev(node)),
                    self._filters(node.level),
                    space.topology,
                    space.cell.operations,
                )
                for node in trellis.nodes
            }
        )
        self.heads = nn.ModuleList(
            SearchHead(self._width(node), num_classes, max(1, space.head.aspp_rate // trellis.strides[node.level]))
            for node in trellis.nodes_at(trellis.layers)
        )
        self._lay_out()

    def _lay_out(self) -> None:
        """How weights, alpha and beta reach the cells: a few gathers for all of them."""
        trellis = self.space.trellis
        cells = {node: self._cell(node) for node in trellis.nodes}
        self.weight_layout = WeightLayout(
            [cell.weights for cell in cells.values()], [cell.layout for cell in cells.values()]
        )
        self.alpha_factors = AlphaFactors(
            {cell.arrows: cell.layout for cell in cells.values()},
            {(cell.arrows, cell.channels) for cell in cells.values()},
            self.space.cell.operations,
        )
        arrows = [arrow for node in cells for arrow in trellis.arrows_into(node)]
        self.register_buffer("arrow_index", self.arch.index_of(arrows), persistent=False)

    def _cell(self, node: Node) -> SearchCell:
        return self.cells[cell_name(node)]  # type: ignore[return-value]

    def _filters(self, level: int) -> int:
        return self.space.network.filter_multiplier << level

    def _width(self, node: Node) -> int:
        """Channels of a node's feature."""
        if node.layer < 1:
            return self.stem.out_channels[node.layer + 1]
        return self.space.cell.blocks * self._filters(node.level)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes, H, W) of normalised images (N, 3, H, W)."""
        trellis, image_size = self.space.trellis, (images.shape[-2], images.shape[-1])
        stem = self.stem(images.contiguous(memory_format=torch.channels_last))
        features = {
            node: Feature(feature, F.relu(feature))
            for node, feature in zip((FIRST_STEM_NODE, STEM_NODE), stem, strict=True)
        }
        inputs = self._cell_inputs(features[STEM_NODE].plain.dtype)
        for node in trellis.nodes:
            cell = self._cell(node)
            arguments = (
                features[trellis.prev_prev(node)],
                [features[arrow.source] for arrow in trellis.arrows_into(node)],
                *inputs[node],
                level_size(image_size, trellis.strides[node.level]),
            )
            if self.checkpoint_cells and torch.is_grad_enabled():
                features[node] = checkpoint(cell, *arguments, use_reentrant=False, context_fn=_contexts)
            else:
                features[node] = cell(*arguments)
        logits = [
            resize(head(features[node].activated), image_size)
            for head, node in zip(self.heads, trellis.nodes_at(trellis.layers), strict=True)
            if self.last_level in (None, node.level)
        ]
        return torch.stack(logits).sum(0)

    def _cell_inputs(self, dtype: torch.dtype) -> dict[Node, tuple[list[ReadingWeights], list[Factors], Tensor]]:
        """Of each node: the weights and the factors of its cell's readings, and the betas of its arrows, (G, 1, 1)."""
        factors = self.alpha_factors(self.arch.alpha_probs())
        nodes = self.space.trellis.nodes
        betas = self.arch.beta_probs().view(-1, 1, 1).index_select(0, self.arrow_index)
        of_nodes = dict(zip(nodes, torch.split(betas, [self._cell(node).arrows for node in nodes]), strict=True))
        return {
            node: (weights, factors[self._cell(node).arrows, self._cell(node).channels], of_nodes[node])
            for node, weights in zip(nodes, self.weight_layout(dtype), strict=True)
        }

    def choose(self, genotype: Genotype) -> None:
        """Compute from now on only what a genotype of this space chose, with the supernet's weights.

        Its features off the path are zero, where the discrete network has H(l-2) of the path resized: what is lost
        when a relaxed network is made discrete and not retrained.
        """
        self.arch.choose(genotype)
        self.last_level = genotype.levels[-1]

    def weights(self) -> list[nn.Parameter]:
        """Every parameter but the architecture's."""
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("arch.")]

    def train_weights(self) -> None:
        """From now on gradients reach the weights alone."""
        self._require(weights=True, arch=False)

    def train_architecture(self) -> None:
        """From now on gradients reach alpha and beta alone."""
        self._require(weights=False, arch=True)

    def _require(self, weights: bool, arch: bool) -> None:
        for parameter in self.weights():
            parameter.requires_grad_(weights)
        self.arch.requires_grad_(arch)


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Around a checkpointed cell and its second evaluation, which must not count twice in the running statistics."""
    return nullcontext(), frozen_statistics()


def build_supernet(space: SearchSpace, num_classes: int, arch_init_std: float = 1e-3) -> Supernet:
    """The supernet of a space with fresh weights."""
    return Supernet(space, num_classes, arch_init_std)


def cell_name(node: Node) -> str:
    """The key of a node's cell in `Supernet.cells`."""
    return f"layer{node.layer}_level{node.level}"
