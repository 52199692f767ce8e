"""The logits that are searched, and the probabilities that the supernet uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from autoseg.genotype.schema import Genotype
from autoseg.space.arch_probs import ArchProbs
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import Arrow


class Sample(NamedTuple):
    """One operation for each edge, the same in all cells (GDAS, where one sampled cell is stacked)."""

    operations: tuple[int, ...]
    weights: Tensor
    """(edges,): 1 going forward, the softened probability going back; times the edge's own where it has one."""
    edge_probs: Tensor | None


class ArchParameters(nn.Module):
    """alpha_logits [edge, operation] and beta_logits [layer, level, move] (Auto-DeepLab, sections 3.1 and 3.2).

    With the space's `relaxation.pc_darts` also edge_logits [edge]; with `relaxation.gdas` operations are sampled.
    """

    legal: Tensor
    gumbel: Tensor | None
    chosen_alpha: Tensor | None
    chosen_beta: Tensor | None
    chosen_edges: Tensor | None

    def __init__(self, space: SearchSpace, std: float = 1e-3) -> None:
        super().__init__()
        self.space = space
        legal = torch.as_tensor(space.trellis.legal())
        self.alpha_logits = nn.Parameter(std * torch.randn(len(space.topology.edges), len(space.cell.operations)))
        self.beta_logits = nn.Parameter(std * torch.randn(legal.shape) * legal)
        has_edges = space.relaxation.pc_darts is not None
        self.edge_logits = nn.Parameter(std * torch.randn(len(space.topology.edges))) if has_edges else None
        self.register_buffer("legal", legal, persistent=False)
        for name in ("gumbel", "chosen_alpha", "chosen_beta", "chosen_edges"):
            self.register_buffer(name, None, persistent=False)
        if space.relaxation.gdas is not None:
            self.draw(0, space.relaxation.gdas[0])

    def choose(self, genotype: Genotype) -> None:
        """From now on put probability 1 on what a genotype of this space chose, and 0 on all else."""
        alpha, beta = torch.zeros_like(self.alpha_logits.data), torch.zeros_like(self.beta_logits.data)
        for block, edges in enumerate(genotype.cell):
            rows = {self.space.topology.edges[row][1]: row for row in self.space.topology.edges_into(block)}
            for edge in edges:
                alpha[rows[edge.state], self.space.cell.operations.index(edge.operation)] = 1
        levels = (0, *genotype.levels[:-1])
        for layer, (level, move) in enumerate(zip(levels, genotype.moves, strict=True)):
            beta[layer, level, move] = 1
        self.chosen_alpha, self.chosen_beta = alpha, beta
        if self.edge_logits is not None:  # the chosen edges into a block share a probability of 1
            self.chosen_edges = torch.cat([part / part.sum() for part in self._by_block(alpha.sum(-1))])

    def alpha_probs(self) -> Tensor:
        """Softmax over the operations of each edge (eq. 4), [edge, operation]."""
        return self.alpha_logits.softmax(-1) if self.chosen_alpha is None else self.chosen_alpha

    def beta_probs(self) -> Tensor:
        """Softmax over the legal arrows that leave each node (eq. 7), [layer, level, move]; 0 elsewhere."""
        if self.chosen_beta is not None:
            return self.chosen_beta
        lowest = torch.finfo(self.beta_logits.dtype).min  # -inf would give NaN at nodes that do not exist
        return self.beta_logits.masked_fill(~self.legal, lowest).softmax(-1) * self.legal

    def edge_probs(self) -> Tensor | None:
        """Softmax over the edges into each block (PC-DARTS, edge normalisation), [edge]; None in a space without."""
        if self.edge_logits is None or self.chosen_edges is not None:
            return self.chosen_edges
        return torch.cat([part.softmax(0) for part in self._by_block(self.edge_logits)])

    def _by_block(self, edges: Tensor) -> Sequence[Tensor]:
        """Values [edge] in one piece a block."""
        return torch.split(edges, [len(self.space.topology.edges_into(n)) for n in range(self.space.cell.blocks)])

    def mixture(self) -> Tensor:
        """What each operation's output is multiplied with, [edge, operation].

        With edge probabilities these are in it, and a last column is for the channels that bypass the operations.
        """
        alpha, edges = self.alpha_probs(), self.edge_probs()
        if edges is None:
            return alpha
        return torch.cat([alpha, torch.ones_like(alpha[:, :1])], 1) * edges.unsqueeze(1)

    # --- sampling (GDAS) ----------------------------------------------------------------------------------------------

    def draw(self, seed: int, temperature: float) -> None:
        """Sample the operations that passes in training will use until the next draw; decided by seed and logits."""
        logits = self.alpha_logits.detach()
        noise = torch.empty(logits.shape, dtype=torch.float64, device="cpu")
        noise.exponential_(generator=torch.Generator("cpu").manual_seed(seed))
        self.gumbel, self.temperature = (-noise.log()).to(logits), temperature
        self.drawn = _argmax(logits + self.gumbel)

    def sample(self) -> Sample:
        """In training what was drawn last; in evaluation the operation of greatest alpha.

        The gradient is that of softmax((log alpha + Gumbel noise) / temperature) at the sampled operation alone
        (Dong and Yang 2019, eq. 6-7): the others are not computed.
        """
        edges = self.edge_probs()
        if self.chosen_alpha is not None:
            operations = _argmax(self.chosen_alpha)
            weights = self.chosen_alpha.amax(-1)
        elif not self.training:
            operations = _argmax(self.alpha_logits)
            weights = torch.ones_like(self.alpha_logits[:, 0])
        else:
            assert self.gumbel is not None  # drawn when it was made
            operations = self.drawn
            noisy = self.alpha_logits.log_softmax(-1) + self.gumbel
            index = torch.tensor(operations, device=noisy.device).unsqueeze(1)
            soft = (noisy / self.temperature).softmax(-1).gather(1, index).squeeze(1)
            weights = 1 + (soft - soft.detach())
        return Sample(operations, weights if edges is None else weights * edges, edges)

    # ------------------------------------------------------------------------------------------------------------------

    def beta_of_arrows(self) -> dict[Arrow, Tensor]:
        """The probability of each legal arrow, a scalar each."""
        arrows = self.space.trellis.arrows
        probs = self.beta_probs().flatten().index_select(0, self.index_of(arrows))
        return dict(zip(arrows, probs.unbind(), strict=True))

    def index_of(self, arrows: Sequence[Arrow]) -> Tensor:
        """Where each arrow's probability lies in `beta_probs().flatten()`."""
        levels, moves = self.legal.shape[1:]
        places = [(arrow.source.layer * levels + arrow.source.level) * moves + arrow.move for arrow in arrows]
        return torch.tensor(places, device=self.legal.device)

    def snapshot(self) -> ArchProbs:
        """The logits of this moment as NumPy arrays."""
        edges = None if self.edge_logits is None else _numpy(self.edge_logits)
        return ArchProbs(self.space, _numpy(self.alpha_logits), _numpy(self.beta_logits), edges)


def _argmax(logits: Tensor) -> tuple[int, ...]:
    """Of each row; without values, as on meta tensors, each operation in turn."""
    if logits.is_meta:
        return tuple(row % logits.shape[1] for row in range(len(logits)))
    return tuple(int(place) for place in logits.argmax(-1).tolist())


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64).numpy()
