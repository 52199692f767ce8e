"""Settings of inference: scales, mirroring, sliding windows and the CRF."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from autoseg.config.base import Flag, Number, Settings, Size, Whole

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Of multi-scale inference, as in DeepLab v3."""


class CrfConfig(Settings):
    """A dense CRF after prediction (Krähenbühl and Koltun 2011): one kernel of place and colour, one of place alone.

    The defaults are those of DeepLab v2's published scripts for ResNet-101.
    """

    iterations: Annotated[Whole, Field(ge=1, le=1000)] = 10
    """Of the mean field."""
    bilateral_weight: Annotated[Number, Field(ge=0)] = 4.0
    bilateral_xy_std: Annotated[Number, Field(ge=0.5)] = 67.0
    """In pixels, as the other `xy_std`."""
    bilateral_rgb_std: Annotated[Number, Field(ge=0.5)] = 3.0
    """In grey levels, 0..255."""
    gaussian_weight: Annotated[Number, Field(ge=0)] = 3.0
    gaussian_xy_std: Annotated[Number, Field(ge=0.5)] = 1.0


class InferenceConfig(Settings):
    """How a trained network is asked: at which scales, mirrored too or not, and what is made of the answers."""

    scales: Annotated[tuple[Annotated[Number, Field(gt=0, le=8)], ...], Field(min_length=1)] = (1.0,)
    """Of the images, whose size is rounded to whole pixels and is at least 32 each way."""
    flip: Flag = False
    fuse: Literal["mean", "max"] = "mean"
    """What several answers become: the mean of their probabilities, or each class's greatest logit (DeepLab v2)."""
    crf: CrfConfig | None = None
    """Left out, none."""
    window: Size | None = None
    """Height and width of sliding windows, in which each scaled image is seen; left out, images are seen whole. A
    longer window than the image is cut to it."""
    overlap: Annotated[Number, Field(ge=0, le=0.95)] = 0.5
    """Share of a window's length by which neighbours overlap, at least; their logits are blended there."""
