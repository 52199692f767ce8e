"""Small genotypes and spaces that come back up in many ways."""

from __future__ import annotations

from typing import Any

import numpy as np

from autoseg.genotype.schema import Genotype
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import ArchProbs, logits_shapes

CELL = [[{"input": "prev", "operation": "sep_conv_3x3"}, {"input": "prev_prev", "operation": "skip_connect"}]]
UP_CELL = [[{"input": "prev", "operation": "max_pool_3x3"}], [{"input": "b1", "operation": "sep_conv_5x5"}]]
STEM = {"channels": [8], "strides": [2]}


def genotype(network: dict[str, Any], decoder: dict[str, Any] | None = None, **others: Any) -> Genotype:
    return Genotype.parse(
        {
            "name": "small",
            "cell": CELL,
            "network": {"filter_multiplier": 4, **network},
            "stem": STEM,
            "decoder": {"filters": 16, "low_level_stride": 2, **(decoder or {})},
            **others,
        }
    )


def hourglass() -> Genotype:
    """The path stem, 4, 8, 8, 4, 2 with a skip at both up moves, of several kinds."""
    return genotype(
        {
            "strides": [4, 8, 8, 4, 2],
            "down_layers": 3,
            "upsamplers": ["pixel_dcl_5x5", "carafe"],
            "skips": ["add", "concat"],
        },
        {"name": "classifier"},
        up_cell=UP_CELL,
    )


def several_paths(**network: Any) -> Genotype:
    """8 arrows in 3 layers, one of them up; the last layer has two nodes."""
    return genotype({"arrows": [["2->2", "2->4"], ["2->2", "4->4", "4->2"], ["2->2", "2->4", "4->4"]], **network})


def down_to_8(decoder: str, upsamplers: list[str] | None = None) -> Genotype:
    """A path that ends at stride 8, from the stem's 2, which it leaves at layer 1."""
    return genotype({"strides": [2, 4, 4, 8], "down_layers": None}, {"name": decoder, "upsamplers": upsamplers or []})


def hourglass_space(**groups: Any) -> SearchSpace:
    """Strides 2, 4, 8 and 5 layers, 3 of them on the way down: upsamplers, skips and two cells compete."""
    return SearchSpace.parse(
        {
            "name": "hourglass",
            "cell": {"blocks": 2, "up_cell": True},
            "network": {"layers": 5, "strides": [2, 4, 8], "down_layers": 3},
            "stem": STEM,
            "resolution": {"upsamplers": ["bilinear", "pixel_dcl_5x5", "carafe"], "skips": ["none", "add", "concat"]},
            "decoder": {"name": "classifier"},
            **groups,
        }
    )


def open_space(paths: str = "single", **groups: Any) -> SearchSpace:
    """Strides 2, 4, 8 and 4 layers in any order; two upsamplers compete on up moves, two in the decoder."""
    return SearchSpace.parse(
        {
            "name": "open",
            "cell": {"blocks": 1},
            "network": {"layers": 4, "strides": [2, 4, 8], "paths": paths},
            "stem": STEM,
            "resolution": {"upsamplers": ["bilinear", "carafe"]},
            "decoder": {"name": "aspp", "upsamplers": ["bilinear", "dysample"]},
            **groups,
        }
    )


def random_probs(space: SearchSpace, seed: int = 0) -> ArchProbs:
    rng = np.random.default_rng(seed)
    logits = {f"{name}_logits": 2 * rng.normal(size=shape) for name, shape in logits_shapes(space).items()}
    return ArchProbs(space, **logits)
