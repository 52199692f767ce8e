"""Losses: cross-entropy, and weighted sums of terms.

Every loss leaves ignored pixels out and computes in float32 at least. A batch without labelled pixels has loss 0 and
gradient 0, where PyTorch's means are NaN. No loss waits for the device or has shapes that depend on the labels: a CUDA
graph can hold any of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autoseg.config.losses import PLAIN_LOSS, LossTerm
from autoseg.losses.target import Target
from autoseg.registry import LOSSES


class SegmentationLoss:
    """The weighted sum of terms; by default plain cross-entropy.

    class_weights: (K,), for cross_entropy, ohem, focal and boundary; label_smoothing: for these but focal.
    """

    def __init__(
        self, ignore_label: int, class_weights: Tensor | None = None, label_smoothing: float = 0.0,
        terms: Sequence[LossTerm] = PLAIN_LOSS,
    ) -> None:  # fmt: skip
        self.ignore_label, self.class_weights, self.label_smoothing = ignore_label, class_weights, label_smoothing
        self.terms = tuple(terms)

    def __call__(
        self, logits: Tensor, masks: Tensor, whole: Tensor | None = None, shares: Tensor | None = None
    ) -> Tensor:
        """The loss of logits (N, K, H, W) and masks (N, H, W), a scalar of at least float32.

        `whole`: the masks before `sample_pixels`, for boundaries. `shares`, (terms,): the weights of a batch's part.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        target = self._target(masks, whole, logits.dtype)
        parts = [term.weight * LOSSES[term.name].function(logits, target, **term.options) for term in self.terms]
        if shares is not None:
            parts = [part * share for part, share in zip(parts, shares.unbind(), strict=True)]
        total: Tensor = sum(parts[1:], parts[0])
        return total

    def shares(self, batches: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """The weight of each batch in each term of the loss over all of them, (terms,) float32 each.

        batches: masks (N, H, W), and `whole` if it is given. With these shares the batches' losses add up to the loss
        over all of them, exactly for terms with `pixel_weights`. For the others (ohem, dice, lovasz), which look at a
        batch as a whole, the batches count alike.
        """
        rows = []
        for masks, *whole in batches:
            target = self._target(masks, whole[0] if whole else None, torch.float32)
            row = []
            for term in self.terms:
                weigh = LOSSES[term.name].pixel_weights
                one = torch.ones((), device=masks.device)
                row.append(one if weigh is None else weigh(target, **term.options).sum().float())
            rows.append(torch.stack(row))
        total = torch.stack(rows).sum(0).clamp_min(1e-6)
        return [row / total for row in rows]

    @property
    def inexact(self) -> tuple[str, ...]:
        """The terms for which `shares` is not exact."""
        return tuple(term.name for term in self.terms if LOSSES[term.name].pixel_weights is None)

    def _target(self, masks: Tensor, whole: Tensor | None, dtype: torch.dtype) -> Target:
        weights = None if self.class_weights is None else self.class_weights.to(dtype)
        return Target(masks, self.ignore_label, weights, self.label_smoothing, whole)


def sample_pixels(masks: Tensor, share: float, ignore_label: int) -> Tensor:
    """Masks (N, H, W) in which each pixel is kept with probability `share`, independently, and else ignored.

    The loss over the kept pixels has the gradient of training on the patches that they see (Long et al. 2015, section
    3.4). PyTorch's generator of the masks' device draws the numbers; a share of 1 draws none.
    """
    if share == 1:
        return masks
    return masks.masked_fill(torch.rand(masks.shape, device=masks.device) >= share, ignore_label)
