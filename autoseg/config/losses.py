"""The terms that a loss is a weighted sum of, as settings; `losses/losses.py` computes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from autoseg.config.base import Flag, Fraction, Number, Settings, Whole

Weight = Annotated[Number, Field(gt=0, le=1000)]


class CrossEntropyTerm(Settings):
    """Cross-entropy over the pixels that are not ignored."""

    name: Literal["cross_entropy"] = "cross_entropy"
    weight: Weight = 1.0


class OhemTerm(Settings):
    """Cross-entropy over the hardest pixels of a batch: those whose true class is thought least likely."""

    name: Literal["ohem"] = "ohem"
    weight: Weight = 1.0
    keep: Fraction = 0.25
    """Share of the pixels that are not ignored."""
    min_kept: Annotated[Whole, Field(ge=1)] = 1
    """At least so many pixels of a batch, as far as there are so many."""
    threshold: Annotated[Number, Field(gt=0, lt=1)] | None = None
    """Besides these, all pixels whose true class has a lower probability than this."""


class FocalTerm(Settings):
    """Focal loss (Lin et al. 2017): cross-entropy times (1 - probability of the true class) ** gamma."""

    name: Literal["focal"] = "focal"
    weight: Weight = 1.0
    gamma: Annotated[Number, Field(ge=0, le=10)] = 2.0


class BoundaryTerm(Settings):
    """Cross-entropy that weighs 1 + w0 * exp(-d^2 / (2 sigma^2)), d pixels from the nearest boundary between labels."""

    name: Literal["boundary"] = "boundary"
    weight: Weight = 1.0
    w0: Annotated[Number, Field(ge=0, le=1000)] = 10.0
    sigma: Annotated[Number, Field(gt=0, le=50)] = 5.0
    """In pixels, as `d`. Both are U-Net's (Ronneberger et al. 2015, eq. 2)."""


class DiceTerm(Settings):
    """Soft Dice loss (Milletari et al. 2016): of each class over the whole batch, mean over the classes in it."""

    name: Literal["dice"] = "dice"
    weight: Weight = 1.0
    smooth: Annotated[Number, Field(ge=0, le=1e6)] = 1.0
    """Pixels, added to both sides of the fraction, that calm classes of few pixels."""


class LovaszTerm(Settings):
    """Lovász-softmax (Berman et al. 2018): a convex stand-in for 1 - IoU, mean over the classes that are present."""

    name: Literal["lovasz"] = "lovasz"
    weight: Weight = 1.0
    per_image: Flag = False
    """Of each image by itself, then their mean; else of the batch as a whole."""


AnyTerm = CrossEntropyTerm | OhemTerm | FocalTerm | BoundaryTerm | DiceTerm | LovaszTerm
NAMES = tuple(term.model_fields["name"].default for term in AnyTerm.__args__)
SMOOTHED = ("cross_entropy", "ohem", "boundary")
"""The terms whose targets `label_smoothing` smooths."""


def _with_name(term: Any) -> Any:
    """A bare name stands for the term with its own settings."""
    named = {"name": term} if isinstance(term, str) else term
    if not isinstance(named, Mapping | Settings):
        raise ValueError(f"should be the name of a term or a mapping with one, not {named!r}")
    if isinstance(named, Mapping) and named.get("name") not in NAMES:
        raise ValueError(f"'name' should be one of {', '.join(NAMES)}, not {named.get('name')!r}")
    return named


LossTerm = Annotated[AnyTerm, Field(discriminator="name"), BeforeValidator(_with_name)]
Loss = Annotated[tuple[LossTerm, ...], Field(min_length=1)]


def options_of(term: AnyTerm) -> dict[str, Any]:
    """The settings of a term besides its name and weight."""
    return {key: getattr(term, key) for key in type(term).model_fields if key not in ("name", "weight")}
