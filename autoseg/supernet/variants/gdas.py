"""The cell with one sampled operation an edge (GDAS, Dong and Yang 2019): the others are not computed.

Letters as in `mixed_op.py`; c channels (C, or C/K with PC-DARTS) pass the operations. A slot is an edge of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.ops.resize import Size
from autoseg.space.groups import RelaxationSpec
from autoseg.supernet.arch_parameters import Sample
from autoseg.supernet.fast.cell import Feature, SearchCell, state_order
from autoseg.supernet.fast.channel_groups import LaidOut
from autoseg.supernet.fast.mixed_op import BN_EPS, BN_MOMENTUM, RATE, StackedNorm
from autoseg.supernet.fast.parameter_free_ops import free_operation
from autoseg.supernet.fast.weights import FREE, WEIGHTED, CellWeights, EdgeGroup, fused_form, of_kind
from autoseg.supernet.variants.partial_channels import shuffle

Slots = dict[str, list[int]]
"""The slots for which each operation was sampled."""


class SampledNorm(StackedNorm):
    """BatchNorm with running statistics for each operation and slot, for a few of them at a time."""

    def __init__(self, operations: Sequence[str], slots: int, channels: int) -> None:
        super().__init__(len(operations) * slots * channels)
        self.rows = {(name, slot): n * slots + slot for n, name in enumerate(operations) for slot in range(slots)}
        self.channels = channels

    def pick(self, features: Tensor, picked: Slots, factors: Tensor | None = None) -> Tensor:
        """features: (N, slots*c, H, W), operation by operation -> the same, normalised and times factors (slots*c,)."""
        rows = [self.rows[name, slot] for name, slots in picked.items() for slot in slots]
        index = torch.tensor(rows, device=features.device)
        means, variances = self.running_mean.view(-1, self.channels), self.running_var.view(-1, self.channels)
        mean, variance = means.index_select(0, index).flatten(), variances.index_select(0, index).flatten()
        momentum = 0.0 if self.frozen else BN_MOMENTUM
        normal = torch.native_batch_norm(features, factors, None, mean, variance, self.training, momentum, BN_EPS)[0]
        if self.training and not self.frozen:
            means.index_copy_(0, index, mean.view(-1, self.channels))
            variances.index_copy_(0, index, variance.view(-1, self.channels))
        return normal


class Pieces:
    """The weights of a cell, split by edge once for all edge groups. A class, since a hook looks into dictionaries."""

    def __init__(self, weights: CellWeights, operations: Sequence[str], order: Sequence[int]) -> None:
        """order: the edges' numbers in the order of `CellWeights.atrous`."""
        separable, dilated, atrous = (of_kind(operations, kind) for kind in WEIGHTED)
        stages = {"depthwise1": separable, "depthwise2": separable, "dilated": dilated, "atrous": atrous}
        self._pieces: dict[tuple[str, str], Sequence[Tensor]] = {
            (stage, name): weight.split(weights.channels)
            for stage, names in stages.items()
            for name, weight in zip(names, getattr(weights, stage), strict=True)
        }
        for name in atrous:
            pieces = self._pieces["atrous", name]
            self._pieces["atrous", name] = [pieces[order.index(number)] for number in range(weights.edges)]
        for stage, names in (("pointwise1", separable), ("pointwise2", separable + dilated)):
            rows = getattr(weights, stage)[..., None, None].unbind() if names else ()
            for place, name in enumerate(names):
                self._pieces[stage, name] = rows[place * weights.edges : (place + 1) * weights.edges]

    def join(self, stage: str, edges: Sequence[tuple[str, int]]) -> Tensor:
        """The weights of one stage, for some (operation, edge), concatenated."""
        return torch.cat([self._pieces[stage, name][number] for name, number in edges])


class SampledEdges(LaidOut):
    """Every edge of one group: the sampled operation times its weight, (N, G*c, H, W) -> grouped by G, E and c."""

    def __init__(self, group: EdgeGroup, channels: int, operations: Sequence[str]) -> None:
        super().__init__()
        self.numbers, self.operations, self.channels = group.numbers, tuple(operations), channels
        self.groups, self.edges = len(group.groups), len(group.groups[0])
        separable, weighted = of_kind(operations, "separable"), of_kind(operations, *WEIGHTED)
        slots = len(self.numbers)
        self.inner_norm = SampledNorm(separable, slots, channels) if separable else None
        self.norm = SampledNorm(weighted, slots, channels) if weighted else None

    def forward(self, state: Tensor, pieces: Pieces, sample: Sample) -> Tensor:
        """pieces: the cell's weights by edge."""
        taken: Slots = {name: [] for name in self.operations}
        for slot, number in enumerate(self.numbers):
            taken[self.operations[sample.operations[number]]].append(slot)
        weights = sample.weights.unbind()
        groups = state.chunk(self.groups, 1)
        results = self._weighted(groups, taken, pieces, weights)
        for name, slots in taken.items():
            for slot in slots if name == "none" else ():
                results[slot] = torch.zeros_like(groups[0])
            if fused_form(name).kind in FREE:
                used, operation = {slot // self.edges for slot in slots}, free_operation(name)
                outputs = {group: operation.forward(groups[group]) for group in used}
                for slot in slots:
                    results[slot] = outputs[slot // self.edges] * weights[self.numbers[slot]].to(state.dtype)
        stacked = torch.cat([results[slot] for slot in range(len(self.numbers))], 1)
        return self.layout.as_groups(stacked, self.groups, self.edges, self.channels)

    def _weighted(
        self, groups: Sequence[Tensor], taken: Slots, pieces: Pieces, weights: Sequence[Tensor]
    ) -> dict[int, Tensor]:
        """Results of the operations with weights by slot."""
        used = {name: slots for name, slots in taken.items() if slots}
        separable, dilated, atrous = ({name: used[name] for name in of_kind(list(used), kind)} for kind in WEIGHTED)
        weighted = {**separable, **dilated, **atrous}
        if not weighted or self.norm is None:
            return {}
        of_groups = [F.relu(group) for group in groups]
        activated = {slot: of_groups[slot // self.edges] for slots in weighted.values() for slot in slots}
        parts = self._convolve(activated, "dilated", dilated, pieces, RATE)
        if separable and self.inner_norm is not None:
            first = torch.cat(self._convolve(activated, "depthwise1", separable, pieces), 1)
            inner = self.inner_norm.pick(self._pointwise(first, "pointwise1", separable, pieces), separable)
            slots = [slot for slots in separable.values() for slot in slots]
            normal = dict(zip(slots, F.relu(inner).chunk(len(slots), 1), strict=True))
            parts = self._convolve(normal, "depthwise2", separable, pieces) + parts
        if parts:
            parts = [self._pointwise(torch.cat(parts, 1), "pointwise2", {**separable, **dilated}, pieces)]
        outer = torch.cat(parts + self._convolve(activated, "atrous", atrous, pieces, RATE), 1)
        slots = [slot for slots in weighted.values() for slot in slots]
        factors = torch.stack([weights[self.numbers[slot]] for slot in slots]).repeat_interleave(self.channels)
        results = self.norm.pick(outer, weighted, factors)  # not expanded: BatchNorm on a CPU misreads that
        return dict(zip(slots, results.chunk(len(slots), 1), strict=True))

    def _convolve(
        self, features: dict[int, Tensor], stage: str, taken: Slots, pieces: Pieces, rate: int = 1
    ) -> list[Tensor]:
        """One k x k convolution per operation, for all its slots."""
        results = []
        for name, slots in taken.items():
            weight = pieces.join(stage, [(name, self.numbers[slot]) for slot in slots])
            groups = len(slots) * self.channels // weight.shape[1]
            stacked = torch.cat([features[slot] for slot in slots], 1)
            padding = rate * (weight.shape[-1] // 2)
            results.append(F.conv2d(stacked, weight, None, 1, padding, rate, groups))
        return results

    def _pointwise(self, features: Tensor, stage: str, taken: Slots, pieces: Pieces) -> Tensor:
        """One 1x1 convolution for all slots of all operations."""
        picked = [(name, self.numbers[slot]) for name, slots in taken.items() for slot in slots]
        return F.conv2d(features, pieces.join(stage, picked), groups=len(picked))


class SampledCell(SearchCell):
    """A node's cell with one sampled operation per edge."""

    def _build_edges(self, group: EdgeGroup, relaxation: RelaxationSpec) -> nn.Module:
        return SampledEdges(group, self.weights.channels, self.operations)

    def forward(  # type: ignore[override]  # takes a sample instead of weights and factors
        self, prev_prev: Feature, prevs: Sequence[tuple[Any, ...]], sample: Sample, betas: Tensor, size: Size
    ) -> Feature:
        """The node's feature; betas: (G, 1, 1)."""
        inputs, betas = self._preprocess(prev_prev, prevs, betas, size)
        pieces, layout = Pieces(self.weights, self.operations, state_order(self.topology)), self.layout
        arrows, edges = layout.axis(0), layout.axis(1)
        total = self._read(0, layout.as_groups(inputs, 1 + self.groups, self.channels), pieces, sample)
        of_prev_prev, of_prev = torch.split(total, [1, self.groups], arrows)
        blocks, states = list((of_prev + of_prev_prev).unbind(edges)), []  # each grouped by G and C
        for block in range(self.blocks):
            states.append(shuffle(blocks[block], self.share, layout))
            if block + 1 < self.blocks:
                for number, part in enumerate(self._read(block + 1, states[block], pieces, sample).unbind(edges)):
                    blocks[block + 1 + number] = blocks[block + 1 + number] + part
        mixed = (torch.stack(states, edges) * layout.spread(betas.to(inputs.dtype))).sum(arrows)
        plain = layout.as_channels(mixed)
        return Feature(plain, F.relu(plain))

    def _read(self, number: int, state: Tensor, pieces: Pieces, sample: Sample) -> Tensor:
        """Grouped by G and C -> by G, E and C for the edges of a group."""
        layout, width, edges = self.layout, self.weights.channels, self.readings[number]
        taken, others = torch.split(state, [width, state.shape[layout.last] - width], layout.last)
        total: Tensor = edges(layout.as_channels(taken), pieces, sample)
        if sample.edge_probs is None:
            return total
        of_edges = sample.edge_probs.to(state.dtype).unbind()
        groups = state.shape[layout.axis(0)]
        probs = torch.stack([of_edges[n] for n in self.plan[number].numbers]).view(groups, -1, 1)
        passed_by = others.unsqueeze(layout.axis(1)) * layout.spread(probs)
        return torch.cat([total, passed_by], layout.last)
