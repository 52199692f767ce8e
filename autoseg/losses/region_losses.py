"""Losses that compare the regions of a class as wholes.

logits: (N, K, H, W), float32 or float64. Each loss is a mean over the classes that are present: an absent class would
push its probabilities down with the weight of a present one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autoseg.losses.target import Target


def dice(logits: Tensor, target: Target, smooth: float) -> Tensor:
    """1 - (2 sum(p y) + smooth) / (sum(p) + sum(y) + smooth) of each class over the batch; mean over those present.

    p: probabilities, y: 0 or 1, over the pixels that are not ignored. Milletari et al. 2016 (section 3) square both in
    the denominator; the plain sums are those of Drozdzal et al. 2016.
    """
    labels = target.one_hot(logits.shape[1])
    probs = logits.softmax(1) * target.counted.unsqueeze(1)
    overlap, size, true = (part.sum((0, 2, 3)) for part in (probs * labels, probs, labels))
    score = (2 * overlap + smooth) / (size + true + smooth).clamp_min(1e-6)
    return _mean(1 - score, true > 0)


def lovasz(logits: Tensor, target: Target, per_image: bool) -> Tensor:
    """Lovász-softmax (Berman et al. 2018): mean over the classes present, of the batch or of each image.

    An image whose pixels are all ignored does not count. Sorts the pixels once for each class.
    """
    labels = target.one_hot(logits.shape[1])
    counted = target.counted
    errors = (labels.to(logits.dtype) - logits.softmax(1)).abs() * counted.unsqueeze(1)
    losses, present = [], []
    for error, label in zip(errors.unbind(1), labels.unbind(1), strict=True):
        groups = [part.flatten(1) if per_image else part.reshape(1, -1) for part in (error, label, counted)]
        losses.append((groups[0] * _jaccard_gradient(*groups)).sum(1))
        present.append(groups[1].any(1))
    return _mean(_mean(torch.stack(losses), found := torch.stack(present), 0), found.any(0))


def _jaccard_gradient(errors: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
    """The factor of each error, (groups, pixels) like the arguments: one class's errors, truth, pixels that count.

    This is the gradient of the Lovász extension of the Jaccard loss (Berman et al. 2018, algorithm 1). The loss of the
    i greatest errors is 1 - intersection / union. The next error adds 1 / union for a pixel of the class and
    intersection / (union (union - 1)) for another. The difference of two losses would lose most digits in float32.
    """
    order = errors.detach().masked_fill(~counted, -1).argsort(1, descending=True)  # ignored pixels last
    true = labels.gather(1, order)
    missed, total = true.cumsum(1), labels.sum(1, keepdim=True)
    wrong = counted.gather(1, order).cumsum(1) - missed
    union = (total + wrong).to(errors.dtype)
    of_others = (total - missed) / (union * (union - 1)).clamp_min(1)
    steps = torch.where(true, 1 / union.clamp_min(1), of_others)
    return torch.empty_like(errors).scatter_(1, order, steps)


def _mean(values: Tensor, counted: Tensor, axis: int = -1) -> Tensor:
    """Mean of the counted values along an axis; 0 if none counts."""
    return (values * counted).sum(axis) / counted.sum(axis).clamp_min(1)
