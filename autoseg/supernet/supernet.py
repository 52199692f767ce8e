"""The supernet: one loop over the trellis.

Letters: N images, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from autoseg.genotype.schema import Genotype
from autoseg.ops.heads import Aspp, Stem, logits_of, number_of_outputs
from autoseg.ops.resize import Size, level_size, sum_resized
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import FIRST_STEM_NODE, STEM_NODE, Arrow, Move, Node
from autoseg.supernet.arch_parameters import ArchParameters, Sample
from autoseg.supernet.fast.alpha_gather import AlphaFactors
from autoseg.supernet.fast.cell import Feature, SearchCell
from autoseg.supernet.fast.channel_groups import LAYOUTS
from autoseg.supernet.fast.kernels import KernelChoice
from autoseg.supernet.fast.mixed_op import Factors, StackedNorm, frozen_statistics
from autoseg.supernet.fast.streams import run_side_by_side
from autoseg.supernet.fast.weights import BYPASS, EdgeGroupWeights, WeightLayout
from autoseg.supernet.upsampling import MixedUpsample, UpsampleInput, Upsampling, UpsamplingChoices, competes
from autoseg.supernet.variants.gdas import SampledCell

Features = dict[Node, Feature]
CellInputs = tuple[list[EdgeGroupWeights], list[Factors], Tensor] | tuple[Sample, Tensor]


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

    Where upsamplers or skip connections compete, also all of these, weighted by gamma and the probabilities of skips.

    forward: (N, Cin, H, W) normalised images, any H and W from 32 up -> logits (N, num_classes, H, W).
    """

    arrow_index: Tensor

    def __init__(
        self,
        space: SearchSpace,
        num_classes: int,
        arch_init_std: float = 1e-3,
        in_channels: int = 3,
        single_output: bool = False,
    ) -> None:
        super().__init__()
        self.space, self.num_classes = space, num_classes
        self._outputs = number_of_outputs(num_classes, single_output)
        self.last_levels: frozenset[int] | None = None
        """The levels of the last layer whose heads count; None for all."""
        self.checkpoint_cells = False
        """Keep no more than the output of each cell for the way back, and evaluate the cell again there."""
        self.kernels = KernelChoice()
        """With which its cells are computed; see `use_kernels`."""
        self._streams: Sequence[torch.cuda.Stream] = ()
        self._crossing: tuple[object, ...] = ()
        self.arch = ArchParameters(space, arch_init_std)
        self.stem = Stem(space.stem.channels, space.stem.strides, StackedNorm, in_channels)
        trellis, resolution = space.trellis, space.resolution
        ascent = partial(MixedUpsample, upsamplers=resolution.upsamplers, skips=resolution.skips)
        self.cells = nn.ModuleDict(
            {
                cell_name(node): (SampledCell if space.relaxation.gdas else SearchCell)(
                    [(self._width(arrow.source), arrow.move) for arrow in trellis.arrows_into(node)],
                    self._width(trellis.prev_prev(node)),
                    self.space.filters(node.level),
                    space.topology,
                    space.cell.operations,
                    space.relaxation,
                    ascent if competes(space) else None,
                )
                for node in trellis.nodes
            }
        )
        self.heads = nn.ModuleList(
            self._build_head(self._width(node), trellis.strides[node.level])
            for node in trellis.nodes_at(trellis.layers)
        )
        ascends = competes(space) or space.decoder_stages
        self.upsampling = Upsampling(space, self._width, self._outputs) if ascends else None
        self._lay_out()

    def _lay_out(self) -> None:
        """How weights, alpha and beta reach the cells: a few gathers for all of them."""
        trellis = self.space.trellis
        cells = {node: self._cell(node) for node in trellis.nodes}
        if self.space.relaxation.gdas is None:
            columns = (BYPASS,) if self.space.relaxation.pc_darts else ()
            self.weight_layout = WeightLayout(
                [cell.weights for cell in cells.values()], [cell.plan for cell in cells.values()]
            )
            self.alpha_factors = AlphaFactors(
                {cell.groups: cell.plan for cell in cells.values()},
                {(cell.groups, cell.weights.channels) for cell in cells.values()},
                (*self.space.cell.operations, *columns),
            )
        arrows = [arrow for node in cells for arrow in trellis.arrows_into(node)]
        self.register_buffer("arrow_index", self.arch.index_of(arrows), persistent=False)

    def _build_head(self, width: int, stride: int) -> nn.Module:
        if self.space.head.name == "classifier":
            return nn.Conv2d(width, self._outputs, 1)
        return SearchHead(width, self._outputs, max(1, self.space.head.aspp_rate // stride))

    def _cell(self, node: Node) -> SearchCell:
        return self.cells[cell_name(node)]  # type: ignore[return-value]

    def _width(self, node: Node) -> int:
        """Channels of a node's feature."""
        if node.layer < 1:
            return self.stem.out_channels[node.layer + 1]
        return self.space.cell.blocks * self.space.filters(node.level)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes, H, W) of normalised images (N, 3, H, W)."""
        trellis, image_size = self.space.trellis, (images.shape[-2], images.shape[-1])
        stem = self.stem(LAYOUTS[self.kernels.layout].arrange(images))
        features = {
            node: Feature(feature, F.relu(feature))
            for node, feature in zip((FIRST_STEM_NODE, STEM_NODE), stem, strict=True)
        }
        inputs = self._cell_inputs(features[STEM_NODE].plain.dtype)
        way_up = None if self.upsampling is None else self.upsampling.way_up(self.arch)
        for layer in range(1, trellis.layers + 1):
            nodes = trellis.nodes_at(layer)
            cells = [partial(self._evaluate, node, features, inputs[node], way_up, image_size) for node in nodes]
            features.update(zip(nodes, run_side_by_side(cells, self._streams), strict=True))
            if layer == trellis.down_layers:
                self._bring(features, way_up)
        heads = {
            node.level: partial(head, features[node].activated)
            for head, node in zip(self.heads, trellis.nodes_at(trellis.layers), strict=True)
            if self.last_levels is None or node.level in self.last_levels
        }
        logits = run_side_by_side(list(heads.values()), self._streams)
        if self._streams:
            self._crossing = (features, inputs, way_up, logits)
        if self.upsampling is not None and way_up is not None and self.space.decoder_stages:
            logits = [self.upsampling.decode(dict(zip(heads, logits, strict=True)), features, way_up)]
        return logits_of(sum_resized(logits, image_size))

    def _bring(self, features: Features, way_up: UpsamplingChoices | None) -> None:
        """After the way down: what it brings to the levels of the way up."""
        if self.upsampling is None or way_up is None:
            return
        levels = list(self.upsampling.sources)
        tasks = [partial(self.upsampling.bring, level, features, way_up) for level in levels]
        way_up.brought.update(zip(levels, run_side_by_side(tasks, self._streams), strict=True))

    def _evaluate(
        self, node: Node, features: Features, inputs: CellInputs, way_up: UpsamplingChoices | None, image_size: Size
    ) -> Feature:
        cell, trellis = self._cell(node), self.space.trellis
        arguments = (
            features[trellis.prev_prev(node)],
            [self._arriving(arrow, features, way_up) for arrow in trellis.arrows_into(node)],
            *inputs,
            level_size(image_size, trellis.strides[node.level]),
        )
        feature: Feature
        if self.checkpoint_cells and torch.is_grad_enabled():
            # nothing in a cell is random, and a CUDA graph that is being recorded may not read the random state
            feature = checkpoint(cell, *arguments, use_reentrant=False, preserve_rng_state=False, context_fn=_contexts)
        else:
            feature = cell(*arguments)
        return feature

    def _arriving(self, arrow: Arrow, features: Features, way_up: UpsamplingChoices | None) -> Feature | UpsampleInput:
        """What an arrow takes to the node that it leads to."""
        if arrow.move is Move.UP and competes(self.space) and self.upsampling is not None and way_up is not None:
            return self.upsampling.ascending(arrow, features, way_up)
        return features[arrow.source]

    @contextmanager
    def on_streams(self, streams: Sequence[torch.cuda.Stream]) -> Iterator[None]:
        """Around one forward pass and its way back: the cells of a layer each run on one of the streams.

        There must be as many as the space has levels, or none: then the cells run one after the other.
        """
        for stream in streams:
            stream.wait_stream(torch.cuda.current_stream())
        self._streams = streams
        try:
            yield
            for stream in streams:
                torch.cuda.current_stream().wait_stream(stream)
        finally:
            self._streams, self._crossing = (), ()  # what crossed streams had to be kept up to here

    def _cell_inputs(self, dtype: torch.dtype) -> dict[Node, CellInputs]:
        """Of each node: weights and factors of its cell's readings, or a sample, and its arrows' betas, (G, 1, 1)."""
        nodes = self.space.trellis.nodes
        betas = self.arch.beta_probs().view(-1, 1, 1).index_select(0, self.arrow_index)
        of_nodes = dict(zip(nodes, torch.split(betas, [self._cell(node).arrows for node in nodes]), strict=True))
        numbers = {node: self.space.cell_of(node.layer) for node in nodes}
        if self.space.relaxation.gdas is not None:
            samples = self.arch.samples()
            return {node: (samples[numbers[node]], of_nodes[node]) for node in nodes}
        factors = [self.alpha_factors(mixture) for mixture in self.arch.of_cells(self.arch.mixture())]
        kinds = {node: (self._cell(node).groups, self._cell(node).weights.channels) for node in nodes}
        return {
            node: (weights, factors[numbers[node]][kinds[node]], of_nodes[node])
            for node, weights in zip(nodes, self.weight_layout(dtype), strict=True)
        }

    def use_kernels(self, choice: KernelChoice) -> None:
        """Compute with these kernels from now on, as far as they apply (with GDAS: layout and algorithms)."""
        self.kernels = choice
        if self.space.relaxation.gdas is None:
            self.weight_layout.taps_together = choice.depthwise == "triton"
        for cell in self.cells.values():
            cell.use_kernels(choice)  # type: ignore[operator]

    def choose(self, genotype: Genotype) -> None:
        """Compute from now on only what a genotype of this space chose, with the supernet's weights.

        Its features off the path are zero, where the discrete network has H(l-2) of the path resized: what is lost
        when a relaxed network is made discrete and not retrained. Raises: GenotypeError: it is not of this space.
        """
        self.arch.choose(genotype)
        self.last_levels = frozenset(node.level for node in genotype.nodes_at(genotype.layers))

    def weights(self) -> list[nn.Parameter]:
        """Every parameter but the architecture's."""
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("arch.")]

    def train_weights(self) -> None:
        """From now on gradients reach the weights alone."""
        self._require(weights=True, arch=False)

    def train_architecture(self) -> None:
        """From now on gradients reach the architecture alone."""
        self._require(weights=False, arch=True)

    def _require(self, weights: bool, arch: bool) -> None:
        for parameter in self.weights():
            parameter.requires_grad_(weights)
        self.arch.requires_grad_(arch)


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Around a checkpointed cell and its second evaluation, which must not count twice in the running statistics."""
    return nullcontext(), frozen_statistics()


def build_supernet(
    space: SearchSpace,
    num_classes: int,
    arch_init_std: float = 1e-3,
    in_channels: int = 3,
    single_output: bool = False,
) -> Supernet:
    """The supernet of a space with fresh weights, for images of so many channels.

    `single_output`: one output for two classes, whose logits are then 0 and it.
    Raises: ConfigError: a single output for more classes.
    """
    return Supernet(space, num_classes, arch_init_std, in_channels, single_output)


def cell_name(node: Node) -> str:
    """The key of a node's cell in `Supernet.cells`."""
    return f"layer{node.layer}_level{node.level}"
