"""Partial channel connections (PC-DARTS, Xu et al. 2020): only 1/K of a state's channels pass through the operations.

Letters as in `mixed_op.py`; K is the space's `relaxation.pc_darts`, c = C/K the channels that pass through.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autoseg.supernet.fast.channel_groups import Layout
from autoseg.supernet.fast.mixed_op import EdgeTensors, Factors, Kept, MixedEdges, Needs
from autoseg.supernet.fast.weights import EdgeGroup


def shuffle(grouped: Tensor, share: int, layout: Layout) -> Tensor:
    """Grouped by any and C: the channels of `share` parts in turn, so that the next cell passes others through."""
    return grouped if share == 1 else _transposed(grouped, (share, -1), layout.last)


def unshuffle(grouped: Tensor, share: int, layout: Layout) -> Tensor:
    """The inverse of `shuffle`, and so its backward pass."""
    return grouped if share == 1 else _transposed(grouped, (-1, share), layout.last)


def _transposed(grouped: Tensor, sizes: tuple[int, int], axis: int) -> Tensor:
    """A copy with one axis transposed as a matrix of these sizes."""
    axis += grouped.dim()
    return torch.unflatten(grouped, axis, sizes).transpose(axis, axis + 1).flatten(axis, axis + 1)


class PartialEdges(MixedEdges):
    """Every edge of one group: p * [sum over o of alpha_o * O_o(first c channels), the other channels].

    p is the probability of the edge. It is the last of the factors without weights, and alpha contains it.
    """

    def __init__(self, group: EdgeGroup, channels: int, operations: Sequence[str], share: int) -> None:
        super().__init__(group, channels // share, operations)
        self.all_channels = channels

    def run(self, state: Tensor, tensors: EdgeTensors, onto: Tensor | None = None) -> tuple[Tensor, Kept]:
        """state: (N, G*C, H, W) -> grouped by G, E and C."""
        taken, others, probs, tensors = self._parts(state, tensors)
        joined, last = self.layout.join(taken), self.layout.last
        if onto is None:
            total, kept = super().run(joined, tensors)
            return torch.cat([total, others * self.layout.spread(probs)], last), kept
        total, rest = torch.split(onto, [self.channels, others.shape[last]], last)
        _, kept = super().run(joined, tensors, total)
        rest.addcmul_(others, self.layout.spread(probs))
        return onto, kept

    def backward(
        self, grad: Tensor, state: Tensor, kept: Kept, tensors: EdgeTensors, needs: Needs
    ) -> tuple[Tensor, EdgeTensors]:
        """See `MixedEdges`."""
        layout = self.layout
        taken, others, probs, tensors = self._parts(state, tensors)
        of_total, of_rest = torch.split(grad, [self.channels, others.shape[layout.last]], layout.last)
        of_taken, found = super().backward(of_total.contiguous(), layout.join(taken), kept, tensors, needs)
        of_taken = layout.split(of_taken, self.groups, self.channels)
        passed_by = (of_rest * layout.spread(probs)).sum(layout.axis(1))
        of_state = layout.join(torch.cat([of_taken, passed_by], layout.last))
        of_probs = None
        if needs.alpha:
            of_probs = layout.sum_to(of_rest * others, 0, 1).unsqueeze(-1).sum_to_size(probs.shape)
        factors = Factors(found.factors.weighted, (*found.factors.free, of_probs))
        return of_state, found._replace(factors=factors)

    def _parts(self, state: Tensor, tensors: EdgeTensors) -> tuple[Tensor, Tensor, Tensor, EdgeTensors]:
        """The first c channels and the others, grouped by G, 1 and any; the edges' probabilities; the other tensors."""
        split = self.layout.split(state, self.groups, 1, self.all_channels)
        taken, others = torch.split(split, [self.channels, self.all_channels - self.channels], self.layout.last)
        *free, probs = tensors.factors.free
        rest = tensors._replace(factors=Factors(tensors.factors.weighted, tuple(free)))
        return taken.contiguous(), others, probs, rest
