"""The supernet in its fused form: a few kernels for all edges and arrows of a node, levels side by side on a GPU.

It computes what `autoseg.supernet.reference` says; `docs/fused_supernet.md` says how and why.

Letters: N images, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from autoseg.ops.heads import logits_of
from autoseg.ops.resize import Size, level_size, sum_resized
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import FIRST_STEM_NODE, STEM_NODE, Node
from autoseg.supernet.arch_parameters import Sample
from autoseg.supernet.fast.alpha_gather import AlphaFactors
from autoseg.supernet.fast.cell import Feature, SearchCell
from autoseg.supernet.fast.channel_groups import LAYOUTS
from autoseg.supernet.fast.kernels import KernelChoice
from autoseg.supernet.fast.mixed_op import Factors, checkpoint_contexts
from autoseg.supernet.fast.streams import run_side_by_side
from autoseg.supernet.fast.weights import BYPASS, EdgeGroupWeights, WeightLayout
from autoseg.supernet.reference import Features, Supernet, cell_name
from autoseg.supernet.upsampling import UpsamplingChoices
from autoseg.supernet.variants.gdas import SampledCell

CellInputs = tuple[list[EdgeGroupWeights], list[Factors], Tensor] | tuple[Sample, Tensor]


class FusedSupernet(Supernet):
    """The same function as `Supernet`, for spaces whose operations all have a fused form.

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
        super().__init__(space, num_classes, arch_init_std, in_channels, single_output)
        self._streams: Sequence[torch.cuda.Stream] = ()
        self._crossing: tuple[object, ...] = ()
        self._lay_out()

    def _build_cell(self, node: Node, upsample: Callable[[int, int], nn.Module] | None) -> nn.Module:
        trellis = self.space.trellis
        return (SampledCell if self.space.relaxation.gdas else SearchCell)(
            [(self._width(arrow.source), arrow.move) for arrow in trellis.arrows_into(node)],
            self._width(trellis.prev_prev(node)),
            self.space.filters(node.level),
            self.space.topology,
            self.space.cell.operations,
            self.space.relaxation,
            upsample,
        )

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

    def _cell(self, node: Node) -> SearchCell:
        return self.cells[cell_name(node)]  # type: ignore[return-value]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes, H, W) of normalised images (N, Cin, H, W)."""
        trellis, image_size = self.space.trellis, (images.shape[-2], images.shape[-1])
        stem = self.stem(LAYOUTS[self.kernels.layout].arrange(images))
        features = {
            node: Feature(feature, F.relu(feature))
            for node, feature in zip((FIRST_STEM_NODE, STEM_NODE), stem, strict=True)
        }
        inputs = self._cell_inputs(features[STEM_NODE].plain.dtype)
        choices = None if self.upsampling is None else self.upsampling.way_up(self.arch)
        for layer in range(1, trellis.layers + 1):
            nodes = trellis.nodes_at(layer)
            cells = [partial(self._evaluate, node, features, inputs[node], choices, image_size) for node in nodes]
            features.update(zip(nodes, run_side_by_side(cells, self._streams), strict=True))
            if layer == trellis.down_layers:
                self._bring(features, choices)
        heads = {
            node.level: partial(head, features[node].activated)
            for head, node in zip(self.heads, trellis.nodes_at(trellis.layers), strict=True)
            if self.last_levels is None or node.level in self.last_levels
        }
        logits = run_side_by_side(list(heads.values()), self._streams)
        if self._streams:
            self._crossing = (features, inputs, choices, logits)
        if self.upsampling is not None and choices is not None and self.space.decoder_stages:
            logits = [self.upsampling.decode(dict(zip(heads, logits, strict=True)), features, choices)]
        return logits_of(sum_resized(logits, image_size))

    def _bring(self, features: Features, choices: UpsamplingChoices | None) -> None:
        """After the encoder: what it brings to the levels of the decoder."""
        if self.upsampling is None or choices is None:
            return
        levels = list(self.upsampling.sources)
        tasks = [partial(self.upsampling.bring, level, features, choices) for level in levels]
        choices.brought.update(zip(levels, run_side_by_side(tasks, self._streams), strict=True))

    def _evaluate(
        self, node: Node, features: Features, inputs: CellInputs, choices: UpsamplingChoices | None, image_size: Size
    ) -> Feature:
        cell, trellis = self._cell(node), self.space.trellis
        arguments = (
            features[trellis.prev_prev(node)],
            [self._arriving(arrow, features, choices) for arrow in trellis.arrows_into(node)],
            *inputs,
            level_size(image_size, trellis.strides[node.level]),
        )
        feature: Feature
        if self.checkpoint_cells and torch.is_grad_enabled():
            # nothing in a cell is random, and a CUDA graph that is being recorded may not read the random state
            feature = checkpoint(
                cell, *arguments, use_reentrant=False, preserve_rng_state=False, context_fn=checkpoint_contexts
            )
        else:
            feature = cell(*arguments)
        return feature

    @contextmanager
    def on_streams(self, streams: Sequence[torch.cuda.Stream]) -> Iterator[None]:
        """Around one forward pass and its backward pass: the cells of a layer each run on one of the streams.

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
        """Of each node: weights and factors of its edge groups, or a sample, and its arrows' betas, (G, 1, 1)."""
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
        super().use_kernels(choice)
        if self.space.relaxation.gdas is None:
            self.weight_layout.taps_together = choice.depthwise == "triton"
        for cell in self.cells.values():
            cell.use_kernels(choice)  # type: ignore[operator]
