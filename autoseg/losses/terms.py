"""The terms of a loss, one record each, without torch; `docs/extending.md` says how to add one."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from pydantic import Field

from autoseg import limits
from autoseg.config.base import Flag, Fraction, Number, Whole
from autoseg.config.losses import LossTerm
from autoseg.registry import Loss, lazy, register

loss = partial(lazy, "autoseg.losses.functions")


class OhemTerm(LossTerm):
    """Cross-entropy over the hardest pixels of a batch: those whose true class has the lowest probability."""

    keep: Fraction = 0.25
    """Share of the pixels that are not ignored."""
    min_kept: Annotated[Whole, Field(ge=1, le=limits.PIXELS)] = 1
    """Least number of pixels of a batch."""
    threshold: Annotated[Number, Field(gt=0, lt=1)] | None = None
    """All pixels whose true class has a lower probability count as well."""


class FocalTerm(LossTerm):
    """Focal loss (Lin et al. 2017): cross-entropy times (1 - probability of the true class) ** gamma."""

    gamma: Annotated[Number, Field(ge=0, le=10)] = 2.0


class BoundaryTerm(LossTerm):
    """Cross-entropy that weighs 1 + w0 * exp(-d^2 / (2 sigma^2)), d pixels from the nearest boundary between labels."""

    w0: Annotated[Number, Field(ge=0, le=1000)] = 10.0
    sigma: Annotated[Number, Field(gt=0, le=50)] = 5.0
    """In pixels, as `d`. Both are U-Net's (Ronneberger et al. 2015, eq. 2)."""


class DiceTerm(LossTerm):
    """Soft Dice loss (Milletari et al. 2016) of each class over the whole batch; mean over the classes in it."""

    smooth: Annotated[Number, Field(ge=0, le=1e6)] = 1.0
    """Pixels added to both sides of the fraction; they calm classes of few pixels."""


class LovaszTerm(LossTerm):
    """Lovász-softmax (Berman et al. 2018): a convex surrogate of 1 - IoU, mean over the classes that are present."""

    per_image: Flag = False
    """Mean over the images of each image's loss, instead of the loss of the batch as a whole."""


register(Loss("cross_entropy", LossTerm, loss("cross_entropy"), lambda target: target.pixel_weights(), smoothed=True))
register(Loss("ohem", OhemTerm, loss("ohem"), smoothed=True))
register(Loss("focal", FocalTerm, loss("focal"), lambda target, gamma: target.pixel_weights()))
register(Loss("boundary", BoundaryTerm, loss("boundary"), loss("boundary_weights"), smoothed=True))
register(Loss("dice", DiceTerm, loss("dice")))
register(Loss("lovasz", LovaszTerm, loss("lovasz")))
