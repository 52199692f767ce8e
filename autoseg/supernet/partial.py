"""Partial channel connections (PC-DARTS, Xu et al. 2020): only 1/K of a state's channels pass through the operations.

Letters as in `reading.py`; K is the space's `relaxation.pc_darts`, c = C/K the channels that pass through.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autoseg.supernet.cell_weights import ReadingWeights
from autoseg.supernet.layout import join_channels, split_channels
from autoseg.supernet.reading import Factors, Gradients, Kept, Needs, StackedEdges


def shuffle(features: Tensor, share: int) -> Tensor:
    """(..., C) with the channels of `share` parts dealt out in turn, so that other ones come to pass next time."""
    return features if share == 1 else features.reshape(*features.shape[:-1], share, -1).transpose(-1, -2).flatten(-2)


def unshuffle(features: Tensor, share: int) -> Tensor:
    """The inverse of `shuffle`, and so its way back."""
    return features if share == 1 else features.reshape(*features.shape[:-1], -1, share).transpose(-1, -2).flatten(-2)


class PartialEdges(StackedEdges):
    """Every edge of one reading: p * [sum over o of alpha_o * O_o(first c channels), the other channels].

    p is the probability of the edge; it comes as the last of the factors without weights, and within alpha.
    """

    def __init__(
        self, groups: int, edges: int, channels: int, operations: Sequence[str], shared: bool, share: int
    ) -> None:
        super().__init__(groups, edges, channels // share, operations, shared)
        self.all_channels = channels

    @property
    def free_factors(self) -> int:
        """One more than the operations without weights."""
        return super().free_factors + 1

    def run(
        self,
        state: Tensor,
        weights: ReadingWeights,
        atrous: Sequence[Tensor],
        factors: Factors,
        onto: Tensor | None = None,
    ) -> tuple[Tensor, Kept]:
        """state: (N, G*C, H, W) -> (N, H, W, G, E, C)."""
        taken, others, probs, factors = self._parts(state, factors)
        joined = join_channels(taken)
        if onto is None:
            total, kept = super().run(joined, weights, atrous, factors)
            return torch.cat([total, others * probs], -1), kept
        total, rest = torch.split(onto, [self.channels, others.shape[-1]], -1)
        _, kept = super().run(joined, weights, atrous, factors, total)
        rest.addcmul_(others, probs)
        return onto, kept

    def backward(
        self,
        grad: Tensor,
        state: Tensor,
        kept: Kept,
        weights: ReadingWeights,
        atrous: Sequence[Sequence[Tensor]],
        factors: Factors,
        needs: Needs,
    ) -> Gradients:
        """As in `StackedEdges`."""
        taken, others, probs, factors = self._parts(state, factors)
        of_total, of_rest = torch.split(grad, [self.channels, others.shape[-1]], -1)
        found = super().backward(of_total.contiguous(), join_channels(taken), kept, weights, atrous, factors, needs)
        of_taken = split_channels(found.state, self.groups, self.channels)
        of_state = join_channels(torch.cat([of_taken, (of_rest * probs).sum(4)], -1))
        of_factors = found.factors
        if needs.alpha:
            of_probs = (of_rest * others).sum((0, 1, 2, 5)).unsqueeze(-1).sum_to_size(probs.shape)
            of_factors = of_factors._replace(free=(*of_factors.free, of_probs))
        return found._replace(state=of_state, factors=of_factors)

    def _parts(self, state: Tensor, factors: Factors) -> tuple[Tensor, Tensor, Tensor, Factors]:
        """The channels that pass, (N, H, W, G, 1, c), the others, the edges' probabilities, and the other factors."""
        split = split_channels(state, self.groups, 1, self.all_channels)
        taken, others = torch.split(split, [self.channels, self.all_channels - self.channels], -1)
        *free, probs = factors.free
        return taken.contiguous(), others, probs, factors._replace(free=tuple(free))
