"""A loss of one's own: Tversky loss (Salehi et al. 2017), Dice with a price for either kind of error."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

import autoseg
from autoseg.losses.target import Target


class TverskyTerm(autoseg.LossTerm):
    """Name and weight are there already."""

    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Price of a false positive; a false negative costs 1 - alpha."""


def tversky(logits: Tensor, target: Target, alpha: float) -> Tensor:
    """1 - TP / (TP + alpha FP + (1 - alpha) FN) of each class over the batch, mean over the classes that are present.

    logits: (N, K, H, W). Ignored pixels count for nothing; the loss is 0 where all are ignored.
    """
    labels = target.one_hot(logits.shape[1])
    probs = logits.softmax(1) * target.counted.unsqueeze(1)
    hits, claimed, true = (part.sum((0, 2, 3)) for part in (probs * labels, probs, labels))
    errors = alpha * (claimed - hits) + (1 - alpha) * (true - hits)
    present = true > 0
    losses = errors / (hits + errors).clamp_min(1e-6) * present
    return losses.sum() / present.sum().clamp_min(1)


autoseg.register(autoseg.Loss("tversky", TverskyTerm, tversky))
