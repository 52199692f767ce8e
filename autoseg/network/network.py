"""The network of a genotype: stem, a cell or stage at each node of its path or paths, decoder."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.errors import GenotypeError
from autoseg.genotype.node_inputs import NodeInputs, auxiliary_node, decoder_nodes, node_inputs
from autoseg.genotype.schema import Genotype
from autoseg.network.base import SegmentationNetwork, enlarge
from autoseg.network.cell import Cell
from autoseg.network.preprocess import build_preprocess
from autoseg.network.stage import Stage
from autoseg.ops.check import check_blocks, check_operations
from autoseg.ops.heads import AuxiliaryHead, Doubling, Stem, number_of_outputs
from autoseg.ops.layers import Norm, he_initialise
from autoseg.ops.resize import level_size, resize
from autoseg.registry import DECODERS, DecoderInputs
from autoseg.space.trellis import FIRST_STEM_NODE, STEM_NODE, Move, Node

HEAD_BN_EPS = 1e-5
"""BatchNorm's epsilon in the decoder, as in Auto-DeepLab's code; cells have the genotype's."""


class Network(SegmentationNetwork):
    """The discrete network of a genotype (Auto-DeepLab, section 4.2). Images of any height and width from 32 up.

    With several paths, the inputs of a node are summed before its cell, and the decoder reads the features of all nodes
    of the last layer, resized to the finest and concatenated (HRNetV2, Wang et al. 2020).
    forward: (N, Cin, H, W) normalised images -> logits (N, num_classes, H, W).
    """

    def __init__(
        self, genotype: Genotype, num_classes: int, auxiliary: bool = False, in_channels: int = 3,
        single_output: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.genotype = self.architecture = genotype
        self.num_classes, self.in_channels, self.single_output = num_classes, in_channels, single_output
        outputs = number_of_outputs(num_classes, single_output)
        constants = genotype.batch_norm
        norm = partial(nn.BatchNorm2d, eps=constants.eps, momentum=constants.momentum)
        head_norm = partial(nn.BatchNorm2d, eps=HEAD_BN_EPS, momentum=constants.momentum)

        self.stem = Stem(genotype.stem.channels, genotype.stem.strides, norm, in_channels)
        widths = dict(zip((FIRST_STEM_NODE, STEM_NODE), self.stem.out_channels, strict=True))
        self.node_inputs = node_inputs(genotype)
        self.cells = nn.ModuleList()
        for inputs in self.node_inputs:
            cell = _build_node(genotype, inputs, widths, norm)
            self.cells.append(cell)
            widths[inputs.node] = cell.out_channels

        self.end_nodes, self.decoder_nodes = genotype.nodes_at(genotype.layers), decoder_nodes(genotype)
        self.auxiliary_node = auxiliary_node(genotype)
        self.decoder = _build_decoder(genotype, widths, outputs, head_norm)
        self.auxiliary = AuxiliaryHead(widths[self.auxiliary_node], outputs, norm) if auxiliary else None
        doublings = (module for module in self.modules() if isinstance(module, Doubling))
        he_initialise(self, {part for doubling in doublings for part in doubling.modules()})

    def scores(self, images: Tensor) -> Tensor:
        """See `SegmentationNetwork`."""
        return self._scores(images)[0]

    def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and in training those of the auxiliary head if there is one; both (N, K, H, W)."""
        size = (images.shape[-2], images.shape[-1])
        logits, auxiliary = self._scores(images)
        return enlarge(logits, size), None if auxiliary is None else enlarge(auxiliary, size)

    def _scores(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores of the decoder and of the auxiliary head, at their own sizes."""
        size = (images.shape[-2], images.shape[-1])
        features: dict[Node, Tensor] = dict(zip((FIRST_STEM_NODE, STEM_NODE), self.stem(images), strict=True))
        for inputs, cell in zip(self.node_inputs, self.cells, strict=True):
            features[inputs.node] = cell(
                [features[arrow.source] for arrow in inputs.arrows],
                features[inputs.prev_prev],
                level_size(size, self.genotype.stride(inputs.node.level)),
                None if inputs.encoder_node is None else features[inputs.encoder_node],
            )
        end = _concatenate([features[node] for node in self.end_nodes])
        logits = self.decoder(F.relu(end), [features[node] for node in self.decoder_nodes])
        auxiliary = None
        if self.auxiliary is not None and self.training:
            auxiliary = self.auxiliary(F.relu(features[self.auxiliary_node]))
        return logits, auxiliary

    def set_drop_path(self, greatest: float, progress: float) -> None:
        """Scheduled drop path with probability `greatest * progress * layer / layers`; `progress` goes from 0 to 1."""
        for inputs, cell in zip(self.node_inputs, self.cells, strict=True):
            probability = greatest * progress * inputs.node.layer / self.genotype.layers
            cell.set_drop_probability(probability)  # type: ignore[operator]


def build_searched(
    genotype: Genotype, num_classes: int, auxiliary: bool = False, in_channels: int = 3, single_output: bool = False
) -> Network:
    """The network of a genotype with fresh weights; `single_output` gives one output z, whose logits are 0 and z.

    Raises: GenotypeError: fewer than two classes. ConfigError: a single output for more than two. PluginError: a user's
    own operation or block does not do what a cell or stage needs.
    """
    if num_classes < 2:
        raise GenotypeError(f"a network needs at least two classes, not {num_classes}", code="too-few-classes")
    cells = (genotype.cell, genotype.up_cell or ())
    check_operations(edge.operation for cell in cells for block in cell for edge in block)
    check_blocks(stage.block for stage in genotype.stages)
    return Network(genotype, num_classes, auxiliary, in_channels, single_output)


def _build_node(genotype: Genotype, inputs: NodeInputs, widths: dict[Node, int], norm: Norm) -> Cell | Stage:
    """The cell or stage of a node. widths: channels of the nodes before it."""
    joined = 0 if inputs.encoder_node is None else widths[inputs.encoder_node]
    stage, channels, move = (
        genotype.stage(inputs.node.level),
        genotype.filters(inputs.node.level),
        inputs.arrows[0].move,
    )

    def preprocess() -> list[nn.Module]:
        return [build_preprocess(genotype, arrow, widths[arrow.source], joined, norm) for arrow in inputs.arrows]

    if stage is None:
        stride = 2 if genotype.is_path and move is Move.DOWN else 1
        edges, prev_prev = genotype.cell_at(inputs.node.layer), widths[inputs.prev_prev]
        return Cell(edges, channels, preprocess(), prev_prev, stride, norm)
    if len(inputs.arrows) > 1 or move is Move.UP:
        return Stage(stage.block, stage.depth, channels, channels, preprocess(), 1, norm)
    stride = 2 if move is Move.DOWN else 1
    return Stage(stage.block, stage.depth, widths[inputs.arrows[0].source], channels, [], stride, norm)


def _build_decoder(genotype: Genotype, widths: dict[Node, int], num_classes: int, norm: Norm) -> nn.Module:
    """The genotype's decoder, for the end's features after a ReLU and those of `decoder_nodes`. widths: by node."""
    spec, record = genotype.decoder, DECODERS[genotype.decoder.name]
    finer = [widths[node] for node in decoder_nodes(genotype)]
    upsamplers = spec.upsamplers
    if record.joins == "encoder" and not upsamplers:
        upsamplers = ("bilinear",) * len(finer)
    channels = sum(widths[node] for node in genotype.nodes_at(genotype.layers))
    rates = [max(1, rate // genotype.stride(genotype.end_level)) for rate in spec.aspp_rates]
    return record.build(DecoderInputs(channels, finer, num_classes, spec, rates, norm, upsamplers))


def _concatenate(features: list[Tensor]) -> Tensor:
    """Features of several strides, resized to the first one and concatenated."""
    if len(features) == 1:
        return features[0]
    size = (features[0].shape[-2], features[0].shape[-1])
    return torch.cat([resize(feature, size) for feature in features], 1)
