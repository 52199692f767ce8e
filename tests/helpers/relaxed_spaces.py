"""Small wide spaces of every kind."""

from __future__ import annotations

from typing import Any

from autoseg.config.base import merge
from autoseg.space.schema import SearchSpace

WIDE: dict[str, Any] = {
    "name": "wide",
    "cell": {"blocks": 2, "operations": ["none", "skip_connect", "sep_conv_3x3"]},
    "network": {"layers": 3, "strides": [2, 4, 8], "filter_multiplier": 4},
    "stem": {"channels": [6], "strides": [2]},
    "head": {"name": "classifier"},
    "decoder": {"name": "classifier", "dropout": 0.0},
    "macro": {"blocks": ["conv_3x3", "cell", "inverted_residual"], "depths": [1, 3], "widths": [0.5, 1, 1.5]},
}
KINDS: dict[str, dict[str, Any]] = {
    "all": {},
    "several paths": {"network": {"paths": "multi"}},
    "without the cell": {
        "macro": {"blocks": ["residual", "bottleneck", "separable", "atrous_residual"], "depths": [3, 2]}
    },
    "shared": {"macro": {"shared_by": "network", "widths": [1]}},
    "profiles": {
        "macro": {
            "blocks": ["conv_3x3"],
            "depths": [2],
            "profiles": [{"name": "fine", "widths": [2, 1, 0.5]}, {"name": "coarse", "widths": [0.5, 1, 2]}],
        }
    },
    "the cell alone": {"macro": {"blocks": ["cell"], "depths": [1, 2], "widths": [0.5, 1]}},
    "template": {"macro": {"blocks": ["separable", "cell"], "cells": ["unet_shaped", "fcn8s_shaped"]}},
    "upsamplers": {
        "resolution": {"upsamplers": ["bilinear", "pixel_dcl"]},
        "decoder": {"name": "aspp", "filters": 8, "upsamplers": ["bilinear", "pixel_shuffle"]},
    },
    "named": {
        "macro": {
            "networks": [
                {"name": "down", "strides": [2, 4, 8]},
                {"name": "up", "strides": [4, 4, 2]},
                {"name": "short", "strides": [2, 2]},
                {"name": "both", "arrows": [["2->2", "2->4"], ["2->2", "4->4"], ["2->2", "4->2"]]},
            ]
        }
    },
    "held": {
        "macro": {
            "layers": [2, 3],
            "paths": ["multi", "single"],
            "stems": [{"channels": [6], "strides": [2]}, {"channels": [4, 8], "strides": [2, 2]}],
            "decoders": [{"name": "unet", "filters": 8}, {"name": "classifier"}],
            "upsamplers": ["carafe", "pixel_dcl"],
        }
    },
}


def wide_space(kind: str = "all", **changes: Any) -> SearchSpace:
    return SearchSpace.parse(merge(merge(WIDE, KINDS[kind]), {"name": kind, **changes}))
