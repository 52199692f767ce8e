"""The logits that are searched, and the probabilities that the supernet uses."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from autoseg.space.arch_probs import ArchProbs
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import Arrow


class ArchParameters(nn.Module):
    """alpha_logits [edge, operation] and beta_logits [layer, level, move] (Auto-DeepLab, sections 3.1 and 3.2)."""

    legal: Tensor

    def __init__(self, space: SearchSpace, std: float = 1e-3) -> None:
        super().__init__()
        self.space = space
        legal = torch.as_tensor(space.trellis.legal())
        self.alpha_logits = nn.Parameter(std * torch.randn(len(space.topology.edges), len(space.cell.operations)))
        self.beta_logits = nn.Parameter(std * torch.randn(legal.shape) * legal)
        self.register_buffer("legal", legal, persistent=False)

    def alpha_probs(self) -> Tensor:
        """Softmax over the operations of each edge (eq. 4), [edge, operation]."""
        return self.alpha_logits.softmax(-1)

    def beta_probs(self) -> Tensor:
        """Softmax over the legal arrows that leave each node (eq. 7), [layer, level, move]; 0 elsewhere."""
        lowest = torch.finfo(self.beta_logits.dtype).min  # -inf would give NaN at nodes that do not exist
        return self.beta_logits.masked_fill(~self.legal, lowest).softmax(-1) * self.legal

    def beta_of_arrows(self) -> dict[Arrow, Tensor]:
        """The probability of each legal arrow, a scalar each."""
        probs = self.beta_probs().flatten().unbind()
        levels, moves = self.legal.shape[1:]
        return {
            arrow: probs[(arrow.source.layer * levels + arrow.source.level) * moves + arrow.move]
            for arrow in self.space.trellis.arrows
        }

    def snapshot(self) -> ArchProbs:
        """The logits of this moment as NumPy arrays."""
        return ArchProbs(self.space, _numpy(self.alpha_logits), _numpy(self.beta_logits))


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64).numpy()
