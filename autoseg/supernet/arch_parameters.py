"""The logits that are searched, and the probabilities that the supernet uses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from autoseg.genotype.schema import Genotype
from autoseg.space.arch_probs import ArchProbs
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import Arrow


class ArchParameters(nn.Module):
    """alpha_logits [edge, operation] and beta_logits [layer, level, move] (Auto-DeepLab, sections 3.1 and 3.2)."""

    legal: Tensor
    chosen_alpha: Tensor | None
    chosen_beta: Tensor | None

    def __init__(self, space: SearchSpace, std: float = 1e-3) -> None:
        super().__init__()
        self.space = space
        legal = torch.as_tensor(space.trellis.legal())
        self.alpha_logits = nn.Parameter(std * torch.randn(len(space.topology.edges), len(space.cell.operations)))
        self.beta_logits = nn.Parameter(std * torch.randn(legal.shape) * legal)
        self.register_buffer("legal", legal, persistent=False)
        self.register_buffer("chosen_alpha", None, persistent=False)
        self.register_buffer("chosen_beta", None, persistent=False)

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

    def alpha_probs(self) -> Tensor:
        """Softmax over the operations of each edge (eq. 4), [edge, operation]."""
        return self.alpha_logits.softmax(-1) if self.chosen_alpha is None else self.chosen_alpha

    def beta_probs(self) -> Tensor:
        """Softmax over the legal arrows that leave each node (eq. 7), [layer, level, move]; 0 elsewhere."""
        if self.chosen_beta is not None:
            return self.chosen_beta
        lowest = torch.finfo(self.beta_logits.dtype).min  # -inf would give NaN at nodes that do not exist
        return self.beta_logits.masked_fill(~self.legal, lowest).softmax(-1) * self.legal

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
        return ArchProbs(self.space, _numpy(self.alpha_logits), _numpy(self.beta_logits))


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64).numpy()
