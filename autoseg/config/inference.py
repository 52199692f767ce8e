"""Settings of inference: scales, mirroring, sliding windows and the CRF."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from autoseg import limits
from autoseg.config.base import Flag, Number, Settings, Size, Whole

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Scales of multi-scale inference, as in DeepLab v3."""


class CrfConfig(Settings):
    """A dense CRF after prediction (Krähenbühl and Koltun 2011): a kernel of position and colour, and one of position.

    The defaults are those of DeepLab v2's published scripts for ResNet-101.
    """

    iterations: Annotated[Whole, Field(ge=1, le=1000)] = 10
    """Iterations of the mean field."""
    bilateral_weight: Annotated[Number, Field(ge=0, le=limits.FACTOR)] = 4.0
    bilateral_xy_std: Annotated[Number, Field(ge=0.5, le=limits.SIDE)] = 67.0
    """Standard deviation in pixels, as `gaussian_xy_std`."""
    bilateral_rgb_std: Annotated[Number, Field(ge=0.5, le=limits.SIDE)] = 3.0
    """Standard deviation in colour levels, 0..255."""
    gaussian_weight: Annotated[Number, Field(ge=0, le=limits.FACTOR)] = 3.0
    gaussian_xy_std: Annotated[Number, Field(ge=0.5, le=limits.SIDE)] = 1.0


class InferenceConfig(Settings):
    """How a trained network is applied: scales, mirroring, sliding windows, and the fusion of several passes."""

    scales: Annotated[
        tuple[Annotated[Number, Field(gt=0, le=8)], ...], Field(min_length=1, max_length=limits.SCALES)
    ] = (1.0,)
    """Scales of the images. Scaled sides are rounded to whole pixels and are at least 32."""
    flip: Flag = False
    fuse: Literal["mean", "max"] = "mean"
    """Fusion of several passes: the mean of probabilities, or each class's greatest logit (DeepLab v2)."""
    crf: CrfConfig | None = None
    """Default: no CRF."""
    window: Size | None = None
    """Height and width of sliding windows in pixels. Default: the whole image. Larger windows are cut to the image."""
    overlap: Annotated[Number, Field(ge=0, le=0.95)] = 0.5
    """Least overlap of neighbouring windows as a share of their length; logits are blended there."""
