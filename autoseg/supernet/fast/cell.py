"""The relaxed cell of one node: all arrows into it and all edges of the cell, evaluated together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.ops.devices import without_autocast
from autoseg.ops.interleave import every_second
from autoseg.ops.resize import Size, resize
from autoseg.space.cell import PREV, PREV_PREV, CellTopology
from autoseg.space.groups import RelaxationSpec
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import Move, Node
from autoseg.supernet.fast.channel_groups import LaidOut
from autoseg.supernet.fast.mixed_op import EdgeTensors, Factors, Kept, MixedEdges, Needs, NormInput, StackedNorm, given
from autoseg.supernet.fast.weights import CellWeights, EdgeGroup, EdgeGroupWeights, Kernels
from autoseg.supernet.upsampling import Feature, MixedUpsample, competes
from autoseg.supernet.variants.partial_channels import PartialEdges, shuffle, unshuffle

FEWEST_STRIDED = 16
"""Fewest input channels of a strided 1x1 convolution; PyTorch has a bug below (see `every_second`)."""


class Preprocess(nn.Module):
    """Fits a feature to a node: resize or halve, ReLU, 1x1 convolution. (N, Cin, h, w) -> (N, C, H, W).

    Up: bilinear, then the 1x1 convolution (eq. 6). Down: two 1x1 convolutions of stride 2 with half the channels each,
    the second one pixel off (the factorised reduction of DARTS); the paper only says that the step has stride 2.
    """

    def __init__(self, in_channels: int, channels: int, move: Move) -> None:
        super().__init__()
        self.move = move
        second = channels // 2 if move is Move.DOWN else 0
        self.pick = move is Move.DOWN and in_channels < FEWEST_STRIDED
        stride = 2 if move is Move.DOWN and not self.pick else 1
        self.conv = nn.Conv2d(in_channels, channels - second, 1, stride, bias=False)
        self.conv_offset = nn.Conv2d(in_channels, second, 1, stride, bias=False) if second else None

    def forward(self, feature: Feature, size: Size) -> list[Tensor]:
        """The result in parts along the channels; `size` is (H, W) of the node."""
        activated = feature.activated
        height, width = activated.shape[-2:]
        if self.move is not Move.DOWN and (height, width) != tuple(size):
            activated = F.relu(resize(feature.plain, size))
        parts = [self.conv(every_second(activated) if self.pick else activated)]
        if self.conv_offset is not None:
            shifted = F.pad(activated, (-1, width % 2, -1, height % 2))  # pads an odd size with zeros
            parts.append(self.conv_offset(every_second(shifted) if self.pick else shifted))
        return parts


class SearchCell(LaidOut):
    """`ReferenceCell`, fused (Auto-DeepLab, eq. 1-6): H(l-2) and the edges that read it serve all arrows at once."""

    atrous_index: Tensor

    def __init__(self, space: SearchSpace, node: Node, width: Callable[[Node], int]) -> None:
        """width: channels of a node's feature."""
        super().__init__()
        self.topology, self.operations, relaxation = space.topology, space.cell.operations, space.relaxation
        arrows, prev_prev = space.trellis.arrows_into(node), space.trellis.prev_prev(node)
        self.arrows, self.blocks, self.channels = len(arrows), self.topology.blocks, space.filters(node.level)
        self.mix, self.share = relaxation.mix_before_cell, relaxation.pc_darts or 1
        self.groups = 1 if self.mix else self.arrows
        arriving = [(prev_prev, Move.SAME), *((arrow.source, arrow.move) for arrow in arrows)]
        self.arrivals = nn.ModuleList(
            MixedUpsample(width(source), self.channels, space.resolution)
            if move is Move.UP and competes(space)
            else Preprocess(width(source), self.channels, move)
            for source, move in arriving
        )
        self.norm = StackedNorm((1 + self.arrows) * self.channels)
        self.plan = edge_groups_of(self.topology, self.groups)
        edges = len(self.topology.edges)
        self.weights = CellWeights(edges, self.channels // self.share, Kernels.of(self.operations))
        self.readings: Any = nn.ModuleList(self._build_edges(group, relaxation) for group in self.plan)
        channels = self.weights.channels
        first = dict(zip(state_order(self.topology), range(edges), strict=True))
        rows = torch.tensor([first[number] for group in self.plan for number in group.numbers])
        index = (rows[:, None] * channels + torch.arange(channels)).flatten()
        self.register_buffer("atrous_index", index, persistent=False)
        self._atrous_sizes = [len(group.numbers) * channels for group in self.plan]
        self._state_sizes = [len(numbers) * channels for numbers in self.topology.edges_from if numbers]

    def _build_edges(self, group: EdgeGroup, relaxation: RelaxationSpec) -> nn.Module:
        if relaxation.pc_darts is None:
            return MixedEdges(group, self.channels, self.operations)
        return PartialEdges(group, self.channels, self.operations, self.share)

    def forward(
        self,
        prev_prev: Feature,
        prevs: Sequence[tuple[Any, ...]],
        weights: Sequence[EdgeGroupWeights],
        factors: Sequence[Factors],
        betas: Tensor,
        size: Size,
    ) -> Feature:
        """The node's feature, (N, B*C, H, W). weights, factors: one per edge group. betas: (G, 1, 1). size: (H, W)."""
        inputs, betas = self._preprocess(prev_prev, prevs, betas, size)
        dtype = inputs.dtype  # bfloat16 under autocast; BatchNorm's factors stay in float32
        factors = [Factors(of.weighted, tuple(factor.to(dtype) for factor in of.free)) for of in factors]
        free, tensors = [len(of.free) for of in factors], _flat(weights, factors, self.weights.atrous)
        outputs = _CellFunction.apply(  # type: ignore[no-untyped-call]
            self, free, torch.is_grad_enabled(), inputs, betas.to(dtype), *tensors
        )
        return Feature(*outputs)

    def _preprocess(
        self, prev_prev: Feature, prevs: Sequence[tuple[Any, ...]], betas: Tensor, size: Size
    ) -> tuple[Tensor, Tensor]:
        """H(l-2) and H(l-1) of each group, (N, (1+G)*C, H, W), and the groups' betas."""
        arriving = zip(self.arrivals, (prev_prev, *prevs), strict=True)
        parts = [part for arrival, feature in arriving for part in arrival(feature, size)]
        if not self.mix:
            return self.norm(torch.cat(parts, 1)), betas
        factors = torch.cat([torch.ones_like(betas[:1]), betas]).flatten().repeat_interleave(self.channels)
        inputs, _, _ = self.norm.normalise(torch.cat(parts, 1), factors)
        first, *others = torch.split(inputs, self.channels, 1)
        return torch.cat([first, sum(others[1:], others[0])], 1), torch.ones_like(betas[:1]).detach()

    # --- for _CellFunction --------------------------------------------------------------------------------------------

    def repeat_atrous(self, weights: Sequence[Tensor], dtype: torch.dtype) -> list[list[Tensor]]:
        """The atrous weights of each edge group, (G*E*C, C, k, k) per kernel size: made when needed and never kept."""
        repeated = [weight.to(dtype) for weight in weights]
        if self.groups > 1:  # with one arrow they are in order already
            repeated = [weight.index_select(0, self.atrous_index) for weight in repeated]
        kinds = [torch.split(weight, self._atrous_sizes) for weight in repeated]
        return [[kind[number] for kind in kinds] for number in range(len(self.plan))]

    def split_atrous(self, weights: Sequence[Tensor], dtype: torch.dtype) -> list[list[list[Tensor]]]:
        """The atrous weights of each edge group by kernel size and run of arrows that share them: (E*C, C, k, k)."""
        kinds = [torch.split(weight.to(dtype), self._state_sizes) for weight in weights]
        first = [[kind[PREV_PREV], kind[PREV]] for kind in kinds]
        return [first, *([[kind[state]] for kind in kinds] for state in range(2, len(self._state_sizes)))]

    def join_atrous(self, gradients: Sequence[Sequence[Sequence[Tensor | None]]]) -> list[Tensor]:
        """The gradients of the atrous weights from those of `split_atrous`."""
        kinds = zip(*gradients, strict=True)
        return [torch.cat([given(of_run) for of_group in kind for of_run in of_group]) for kind in kinds]


def state_order(topology: CellTopology) -> list[int]:
    """Every edge number, sorted by the state that the edge reads: the order of the atrous weights."""
    return [number for numbers in topology.edges_from for number in numbers]


def edge_groups_of(topology: CellTopology, arrows: int) -> list[EdgeGroup]:
    """The edges that a cell evaluates together: first those from H(l-2) and all H(l-1), then those from each block."""
    edges = topology.edges_from
    first = EdgeGroup((edges[PREV_PREV], *[edges[PREV]] * arrows))
    return [first, *(EdgeGroup((numbers,) * arrows) for numbers in edges[2:] if numbers)]


def _flat(weights: Sequence[EdgeGroupWeights], factors: Sequence[Factors], atrous: Iterable[Any]) -> list[Any]:
    """The weights and factors of each edge group and the atrous weights, as `_CellFunction` takes them."""
    return [*chain(*weights), *chain(*((of.weighted, *of.free) for of in factors)), *atrous]


def _nested(flat: Iterable[Any], free: Sequence[int]) -> tuple[list[EdgeGroupWeights], list[Factors], list[Any]]:
    """The inverse of `_flat`. free: the number of `Factors.free` of each edge group."""
    tensors = iter(flat)
    weights = [EdgeGroupWeights(*islice(tensors, len(EdgeGroupWeights._fields))) for _ in free]
    factors = [Factors(next(tensors), tuple(islice(tensors, number))) for number in free]
    return weights, factors, list(tensors)


class _CellFunction(torch.autograd.Function):
    """A cell after its preprocessing, with the backward pass written out (see `mixed_op.py`)."""

    @staticmethod
    def forward(
        ctx: Any, cell: SearchCell, free: list[int], keep: bool, inputs: Tensor, betas: Tensor, *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """free, tensors: see `_nested`. keep: whether there will be a backward pass."""
        layout, inputs = cell.layout, cell.layout.arrange(inputs)
        weights, factors, atrous = _nested(tensors, free)
        with without_autocast(inputs):
            groups = list(map(EdgeTensors, weights, cell.repeat_atrous(atrous, inputs.dtype), factors))
            (first, *others), kept = cell.readings, []
            total, of_first = first.run(inputs, groups[0])
            kept.append(of_first if keep else Kept())
            of_prev_prev, of_prev = torch.split(total, [1, cell.groups], layout.axis(0))
            received = of_prev + of_prev_prev  # grouped by G, B and C; a block is complete when it is read
            pieces = torch.split(layout.join(received), cell.channels, 1)
            for block, edges in enumerate(others):
                state = _state(cell, received, pieces, block)
                number = block + 1
                rest = received.narrow(layout.axis(1), number, edges.edges)
                of_block = edges.run(state, groups[number], onto=rest)[1]
                kept.append(of_block if keep else Kept())
            plain = _output(cell, received, betas)
            activated = F.relu(plain)
        if keep:
            ctx.save_for_backward(inputs, betas, received, *chain(*chain(*kept)), *tensors)
            of_weights, of_alpha, of_atrous = _nested(ctx.needs_input_grad[5:], free)
            needs = Needs(any(_flat(of_weights, (), of_atrous)), any(_flat((), of_alpha, ())))
            ctx.cell, ctx.free, ctx.needs = cell, free, needs
        ctx.set_materialize_grads(False)
        return plain, activated

    @staticmethod
    def backward(ctx: Any, of_plain: Tensor | None, of_activated: Tensor | None) -> tuple[Tensor | None, ...]:
        cell: SearchCell = ctx.cell
        saved = iter(ctx.saved_tensors)
        inputs, betas, received = islice(saved, 3)
        kept = [Kept(NormInput(*islice(saved, 3)), NormInput(*islice(saved, 3))) for _ in ctx.free]
        weights, factors, atrous = _nested(saved, ctx.free)
        with without_autocast(inputs):
            grad = of_plain
            if of_activated is not None:
                of_activated = torch.ops.aten.threshold_backward(of_activated, _output(cell, received, betas), 0)
                grad = of_activated if grad is None else grad + of_activated
            if grad is None:
                return (None,) * len(ctx.needs_input_grad)
            layout = cell.layout
            grad = unshuffle(layout.split(grad, 1, cell.blocks, cell.channels), cell.share, layout)
            of_betas = layout.sum_to(grad * received, 0).view_as(betas) if ctx.needs_input_grad[4] else None
            grad, arrows = grad * layout.spread(betas), layout.axis(0)
            groups = list(map(EdgeTensors, weights, cell.split_atrous(atrous, inputs.dtype), factors))
            found = _blocks_backward(cell, grad, received, kept, groups, ctx.needs)
            both = torch.cat([grad.sum(arrows, keepdim=True), grad], arrows)
            of_inputs, of_first = cell.readings[0].backward(both, inputs, kept[0], groups[0], ctx.needs)
            found.insert(0, of_first)
            of_atrous: Sequence[Tensor | None] = [None] * len(atrous)
            if ctx.needs.weights:
                of_atrous = cell.join_atrous([of.atrous for of in found])
        of_tensors = _flat([of.weights for of in found], [of.factors for of in found], of_atrous)
        return None, None, None, of_inputs, of_betas, *of_tensors


def _blocks_backward(
    cell: SearchCell, grad: Tensor, received: Tensor, kept: Sequence[Kept], groups: Sequence[EdgeTensors], needs: Needs
) -> list[EdgeTensors]:
    """The gradients of the edge groups that read blocks. grad: grouped by G, B and C; becomes that of whole blocks."""
    layout = cell.layout
    blocks = layout.axis(1)
    pieces = torch.split(layout.join(received), cell.channels, 1)
    _, *others = cell.readings
    found: list[EdgeTensors] = []
    for number in range(len(others), 0, -1):
        edges, block = others[number - 1], number - 1
        state = _state(cell, received, pieces, block)
        of_rest = grad.narrow(blocks, number, edges.edges)
        of_state, of_tensors = edges.backward(of_rest, state, kept[number], groups[number], needs)
        of_state = layout.split(of_state, cell.groups, cell.channels)
        grad.select(blocks, block).add_(unshuffle(of_state, cell.share, layout))
        found.insert(0, of_tensors)
    return found


def _state(cell: SearchCell, received: Tensor, pieces: tuple[Tensor, ...], block: int) -> Tensor:
    """The state that the edges from a block read, (N, G*C, H, W). pieces: those of `received`, (N, C, H, W) each."""
    if cell.share == 1:
        return torch.cat(pieces[block :: cell.blocks], 1)
    layout = cell.layout
    return layout.join(shuffle(received.select(layout.axis(1), block), cell.share, layout).contiguous())


def _output(cell: SearchCell, received: Tensor, betas: Tensor) -> Tensor:
    """The feature, (N, B*C, H, W)."""
    layout = cell.layout
    summed = (received * layout.spread(betas)).sum(layout.axis(0))
    return layout.join(shuffle(summed, cell.share, layout))
