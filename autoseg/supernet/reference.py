"""The supernet as the papers write it: one module for each edge, operation and arrow, and autograd for everything.

Read this file beside Auto-DeepLab (Liu et al. 2019), section 3: `MixedOperation` (eq. 3), `ReferenceCell` (eq. 1, 2, 5
and 6), then `Supernet.forward`. It runs any registered operation. `autoseg.supernet.fast` replaces the cell by a faster
one that computes the same if all operations of a space have a fused form; `docs/fused_supernet.md` says how.

The paper's symbols and their names here:
    s H^l                features[Node(l, level)], the output of the cell at layer l and stride s
    H^{l-1}, H^{l-2}     prev, prev_prev: states 1 and 0 of a cell
    O^k_{j->i}, alpha    operation k on the edge from state j to block i, and its weight
    beta                 the weight of an arrow from one node to a node of the next layer
    N, C, B, K, H, W     images, filters of a block, blocks, classes, height and width
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from autoseg.genotype.schema import Genotype
from autoseg.network.preprocess import FactorizedReduce, Preprocess
from autoseg.ops.check import check_output
from autoseg.ops.heads import Aspp, Stem, logits_of, number_of_outputs
from autoseg.ops.layers import Chain
from autoseg.ops.resize import Size, level_size, sum_resized
from autoseg.registry import OPERATIONS
from autoseg.space.cell import CellTopology
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import FIRST_STEM_NODE, STEM_NODE, Move, Node
from autoseg.supernet.arch_parameters import ArchParameters, weighted_sum
from autoseg.supernet.fast.kernels import KernelChoice
from autoseg.supernet.fast.mixed_op import StackedNorm, checkpoint_contexts
from autoseg.supernet.upsampling import Feature, MixedUpsample, UpsampleInput, Upsampling, UpsamplingChoices, competes

Features = dict[Node, Feature]


class MixedOperation(nn.Module):
    """Equation 3: O_{j->i}(H_j) = sum over k of alpha^k_{j->i} * O^k_{j->i}(H_j). (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, operations: Sequence[str], channels: int) -> None:
        super().__init__()
        self.names = tuple(operations)
        self.operations = nn.ModuleList(OPERATIONS[name].build(channels, 1, StackedNorm) for name in operations)
        self._unchecked = {name for name in operations if OPERATIONS.plugin_of(name) is not None}

    def forward(self, state: Tensor, alpha: Tensor) -> Tensor:
        """alpha: (operations,)."""
        total: Tensor | None = None
        for name, weight, operation in zip(self.names, alpha.unbind(), self.operations, strict=True):
            output = operation(state)
            if name in self._unchecked:  # check the output of a user's own operation once
                check_output(name, state, output)
                self._unchecked.discard(name)
            total = weight * output if total is None else total + weight * output
        assert total is not None  # a space has at least one operation
        return total


def mixed_edges(space: SearchSpace, channels: int) -> nn.ModuleList:
    """A mixed operation for each edge of a space's cell."""
    return nn.ModuleList(MixedOperation(space.cell.operations, channels) for _ in space.topology.edges)


def evaluate_cell(topology: CellTopology, edges: nn.Module, prev_prev: Tensor, prev: Tensor, alpha: Tensor) -> Tensor:
    """Equation 1: block i is the sum over the states j before it of O_{j->i}(H_j). Returns all blocks, stacked."""
    assert isinstance(edges, nn.ModuleList)
    states = [prev_prev, prev]
    for block in range(topology.blocks):
        numbered = enumerate(topology.edges)
        inputs = [edges[n](states[state], alpha[n]) for n, (into, state) in numbered if into == block]
        states.append(sum(inputs[1:], inputs[0]))
    return torch.cat(states[2:], 1)


class ReferenceCell(nn.Module):
    """Equations 1, 2, 5 and 6 at one node: sum over the arrows of beta * Cell(H^{l-1} through the arrow, H^{l-2}).

    The arrows share the weights of the operations, which the paper leaves open. Each arrow has a preprocessing and
    BatchNorm statistics of its own.
    """

    def __init__(self, space: SearchSpace, node: Node, width: Callable[[Node], int]) -> None:
        """width: channels of a node's feature."""
        super().__init__()
        channels, arrows = space.filters(node.level), space.trellis.arrows_into(node)
        self.topology, self.mix_before_cell = space.topology, space.relaxation.mix_before_cell
        prev_prev = width(space.trellis.prev_prev(node))
        self.preprocess_prev_prev = Preprocess(prev_prev, channels, True, StackedNorm)
        preprocess = (build_arrow(space, width(arrow.source), channels, arrow.move) for arrow in arrows)
        self.preprocess_prev = nn.ModuleList(preprocess)
        edges = mixed_edges(space, channels)
        shared = {id(parameter): parameter for parameter in edges.parameters()}
        others = 0 if self.mix_before_cell else len(arrows) - 1
        # each copy shares the parameters and has its own statistics
        self.edges = nn.ModuleList([edges, *(copy.deepcopy(edges, dict(shared)) for _ in range(others))])

    def forward(self, prev_prev: Feature, prevs: Sequence[Any], alpha: Tensor, betas: Tensor, size: Size) -> Feature:
        """The node's feature, (N, B*C, H, W) with `size` = (H, W).

        prevs: H^{l-1} at the start of each arrow. alpha: (edges, operations). betas: (arrows,).
        """
        h_prev_prev = self.preprocess_prev_prev(prev_prev.plain, size)
        h_prev = [preprocess(prev, size) for preprocess, prev in zip(self.preprocess_prev, prevs, strict=True)]
        if self.mix_before_cell:  # Dynamic Routing (Li et al. 2020)
            h_prev, betas = [weighted_sum(betas, h_prev)], torch.ones_like(betas[:1])
        of_arrows = zip(self.edges, h_prev, strict=True)
        outputs = [evaluate_cell(self.topology, edges, h_prev_prev, prev, alpha) for edges, prev in of_arrows]
        output = weighted_sum(betas, outputs)
        return Feature(output, F.relu(output))


class Supernet(nn.Module):
    """Every path and operation of a search space at once, weighted by alpha and beta (Auto-DeepLab, section 3).

    If upsamplers or skip connections compete, it also has all of these, weighted by gamma and the skip probabilities.

    forward: (N, Cin, H, W) normalised images, any H and W from 32 up -> logits (N, num_classes, H, W).
    """

    random_cells = True
    """Whether a cell may draw random numbers. A user's own operation may; the fused cells do not, and a CUDA graph that
    is being recorded may not read the random state."""

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
        """Keep only the output of each cell for the backward pass, and evaluate the cell again there."""
        self.kernels = KernelChoice()
        self.arch = ArchParameters(space, arch_init_std)
        self.stem = Stem(space.stem.channels, space.stem.strides, StackedNorm, in_channels)
        trellis = space.trellis
        cell, last = self._cell_class(), trellis.nodes_at(trellis.layers)
        self.cells = nn.ModuleDict({cell_name(node): cell(space, node, self._width) for node in trellis.nodes})
        self.heads = nn.ModuleList(self._build_head(self._width(node), trellis.strides[node.level]) for node in last)
        self.upsampling = Upsampling(space, self._width, self._outputs)

    def _cell_class(self) -> Callable[..., nn.Module]:
        return ReferenceCell

    def _build_head(self, width: int, stride: int) -> nn.Module:
        """A classifier for one stride, (N, width, h, w) after a ReLU -> logits (N, K, h, w).

        Behind ASPP, each of whose branches has as many filters as the input has channels (section 4.1).
        """
        if self.space.head.name == "classifier":
            return nn.Conv2d(width, self._outputs, 1)
        aspp = Aspp(width, width, [max(1, self.space.head.aspp_rate // stride)], StackedNorm)
        return Chain(aspp=aspp, classifier=nn.Conv2d(aspp.out_channels, self._outputs, 1))

    def _width(self, node: Node) -> int:
        """Channels of a node's feature."""
        if node.layer < 1:
            return self.stem.out_channels[node.layer + 1]
        return self.space.cell.blocks * self.space.filters(node.level)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes, H, W) of normalised images (N, Cin, H, W)."""
        trellis, size = self.space.trellis, (images.shape[-2], images.shape[-1])
        stem = zip((FIRST_STEM_NODE, STEM_NODE), self.stem(images), strict=True)
        features: Features = {node: Feature(feature, F.relu(feature)) for node, feature in stem}
        inputs = self._cell_inputs(features[STEM_NODE].plain.dtype)
        choices = self.upsampling.choices(self.arch)
        for layer in range(1, trellis.layers + 1):
            cell = partial(self._run_cell, features, choices, size)
            features |= self._run({node: partial(cell, node, inputs[node]) for node in trellis.nodes_at(layer)})
            if layer == trellis.down_layers:  # the encoder of an hourglass is complete
                skips = partial(self.upsampling.encoder_features, features, choices)
                choices.encoder.update(self._run({level: partial(skips, level) for level in self.upsampling.sources}))
        last = zip(self.heads, trellis.nodes_at(trellis.layers), strict=True)
        heads = {node.level: partial(head, features[node].activated) for head, node in last}
        scores = self._run({level: heads[level] for level in heads if level in (self.last_levels or heads)})
        maps = list(scores.values())
        if self.space.decoder_stages:
            maps = [self.upsampling.decode(scores, features, choices)]
        return logits_of(sum_resized(maps, size))

    def _run(self, tasks: Mapping[Any, Callable[[], Any]]) -> dict[Any, Any]:
        """The results of tasks that do not depend on each other; the fused supernet runs them side by side."""
        return {key: task() for key, task in tasks.items()}

    def _cell_inputs(self, dtype: torch.dtype) -> dict[Node, tuple[Any, ...]]:
        """alpha (edges, operations) and the betas (arrows,) of each node's cell. dtype: of the features."""
        alphas = self.arch.of_cells(self.arch.alpha_probs())
        return {node: (alphas[self.space.cell_of(node.layer)], betas) for node, betas in self._betas_into().items()}

    def _betas_into(self) -> dict[Node, Tensor]:
        """The betas (arrows,) of the arrows into each node."""
        betas, trellis = self.arch.beta_of_arrows(), self.space.trellis
        return {node: torch.stack([betas[arrow] for arrow in trellis.arrows_into(node)]) for node in trellis.nodes}

    def _run_cell(
        self, features: Features, choices: UpsamplingChoices, image_size: Size, node: Node, inputs: tuple[Any, ...]
    ) -> Feature:
        """The feature of a node."""
        cell, trellis = self.cells[cell_name(node)], self.space.trellis
        prevs = [self.upsampling.arrow_input(arrow, features, choices) for arrow in trellis.arrows_into(node)]
        size = level_size(image_size, trellis.strides[node.level])
        run: Callable[..., Feature] = cell
        if self.checkpoint_cells and torch.is_grad_enabled():
            how: dict[str, Any] = {"preserve_rng_state": self.random_cells, "context_fn": checkpoint_contexts}
            run = partial(checkpoint, cell, use_reentrant=False, **how)
        return run(features[trellis.prev_prev(node)], prevs, *inputs, size)

    # --- the interface for a search -----------------------------------------------------------------------------------

    def choose(self, genotype: Genotype) -> None:
        """From now on compute only what a genotype of this space chose, with the supernet's weights.

        Features off the path are zero, while the discrete network resizes H(l-2) of the path. The difference is what a
        relaxed network loses when it is made discrete without retraining.
        Raises: GenotypeError: it is not of this space.
        """
        self.arch.choose(genotype)
        self.last_levels = frozenset(node.level for node in genotype.nodes_at(genotype.layers))

    def weights(self) -> list[nn.Parameter]:
        """Every parameter but the architecture's."""
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("arch.")]

    def train_weights(self) -> None:
        """From now on only the weights get gradients."""
        self._require(weights=True, arch=False)

    def train_architecture(self) -> None:
        """From now on only the architecture gets gradients."""
        self._require(weights=False, arch=True)

    def _require(self, weights: bool, arch: bool) -> None:
        for parameter in self.weights():
            parameter.requires_grad_(weights)
        self.arch.requires_grad_(arch)

    def use_kernels(self, choice: KernelChoice) -> None:
        """From now on compute with these kernels, as far as they apply: here only cuDNN's algorithms."""
        self.kernels = choice

    @contextmanager
    def on_streams(self, streams: Sequence[torch.cuda.Stream]) -> Iterator[None]:
        """Around one forward pass and its backward pass: streams for the cells. The reference uses none."""
        yield


class _Plain(nn.Module):
    """The preprocessing of a discrete network, called with a `Feature`."""

    def __init__(self, preprocess: nn.Module) -> None:
        super().__init__()
        self.preprocess = preprocess

    def forward(self, feature: Feature, size: Size) -> Tensor:
        """(N, Cin, h, w) -> (N, C, H, W)."""
        return self.preprocess(feature.plain, size)


class _Upsampled(nn.Module):
    """An up move with competing upsamplers or skip connections, and BN."""

    def __init__(self, upsample: nn.Module, channels: int) -> None:
        super().__init__()
        self.upsample, self.norm = upsample, StackedNorm(channels)

    def forward(self, inputs: UpsampleInput, size: Size) -> Tensor:
        """(N, Cin, h, w) and a skip -> (N, C, H, W)."""
        (feature,) = self.upsample(inputs, size)
        return self.norm(feature)


def build_arrow(space: SearchSpace, in_channels: int, channels: int, move: Move) -> nn.Module:
    """Builds what fits H^{l-1} to a node: resize or halve, ReLU, 1x1 convolution, BN."""
    if move is Move.UP and competes(space):
        return _Upsampled(MixedUpsample(in_channels, channels, space.resolution), channels)
    if move is Move.DOWN:
        return _Plain(FactorizedReduce(in_channels, channels, StackedNorm))
    return _Plain(Preprocess(in_channels, channels, True, StackedNorm))


def cell_name(node: Node) -> str:
    """The key of a node's cell in `Supernet.cells`."""
    return f"layer{node.layer}_level{node.level}"
