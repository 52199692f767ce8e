"""Small wide spaces, and networks of stages drawn from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from autoseg.config.base import merge
from autoseg.genotype.design import genotype_of, sample_genes
from autoseg.genotype.schema import Genotype
from autoseg.registry import BLOCKS
from autoseg.space.schema import SearchSpace

WIDE: dict[str, Any] = {
    "name": "wide_tests",
    "cell": {"blocks": 2},
    "network": {"layers": 4, "strides": [2, 4, 8, 16], "filter_multiplier": 4},
    "stem": {"channels": [6], "strides": [2]},
    "macro": {
        "layers": [3, 5],
        "paths": ["single"],
        "blocks": [*BLOCKS, "cell"],
        "depths": [1, 2],
        "widths": [0.5, 1, 1.4],
        "decoders": [
            {"name": "classifier", "dropout": 0.0},
            {"name": "unet", "filters": 5, "dropout": 0.0},
            {"name": "deeplabv3plus", "filters": 8, "low_level_filters": 3, "low_level_stride": 4, "aspp_rates": [8]},
        ],
        "upsamplers": ["bilinear", "transposed_conv", "carafe"],
    },
}
"""Every block and a cell, on paths; nothing is scaled to a cost."""

NAMED: dict[str, Any] = merge(
    {key: value for key, value in WIDE.items() if key != "macro"},
    {
        "macro": {
            "networks": [
                {"name": "down", "strides": [2, 4, 8]},
                {"name": "and up", "strides": [4, 8, 4]},
                {"name": "parallel", "arrows": [["2->2", "2->4"], ["2->2", "2->4", "4->4"], ["2->2", "4->2", "4->4"]]},
            ],
            "blocks": ["residual", "conv_3x3"],
            "depths": [1, 2],
            "shared_by": "network",
            "profiles": [{"name": "even", "widths": [1, 1, 1]}, {"name": "fine", "widths": [2, 1.4, 1]}],
            "decoders": [{"name": "classifier", "dropout": 0.0}],
        }
    },
)
"""Networks by name: 3 of them, times 2 profiles, 2 blocks and 2 depths."""


def wide_space(plain: dict[str, Any] | None = None, **changes: Any) -> SearchSpace:
    """`WIDE` or another with changed keys of `macro`."""
    return SearchSpace.parse(merge(plain or WIDE, {"macro": changes}))


def drawn(seed: int, **changes: Any) -> Genotype:
    """A network of `WIDE` with changed keys of `macro`."""
    space = wide_space(**changes)
    return genotype_of(space, sample_genes(space, np.random.default_rng(seed)), name=f"drawn_{seed}")


# --- one network of each kind -----------------------------------------------------------------------------------------

STAGES = [
    {"stride": 2, "block": "residual", "filters": 4},
    {"stride": 4, "block": "conv_3x3", "depth": 2, "filters": 6},
    {"stride": 8, "block": "inverted_residual", "depth": 3, "filters": 5},
]
CELL_STAGES = [STAGES[0], {"stride": 4, "block": "cell", "filters": 3}, STAGES[2]]
EDGES = [[{"input": "prev", "operation": "sep_conv_3x3"}, {"input": "prev_prev", "operation": "skip_connect"}]] * 2
PATH = {"strides": [2, 4, 8, 4], "filter_multiplier": 4}
ARROWS = {
    "arrows": [["2->2", "2->4"], ["2->2", "2->4", "4->8"], ["2->2", "4->2", "4->4", "8->8", "4->8"]],
    "filter_multiplier": 4,
}


def of_stages(name: str) -> Genotype:
    """One of `KINDS`."""
    network, stages, decoder = KINDS[name]
    return Genotype.parse(
        {
            "name": name,
            "cell": EDGES if stages is CELL_STAGES else [],
            "stages": stages,
            "network": network,
            "stem": {"channels": [6], "strides": [2]},
            "decoder": {"filters": 6, "low_level_filters": 3, "low_level_stride": 4, "aspp_rates": [16], **decoder},
        }
    )


KINDS: dict[str, tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]] = {
    "path": (PATH, STAGES, {"name": "unet", "dropout": 0.0}),
    "path with a cell": (PATH, CELL_STAGES, {"name": "deeplabv3plus", "dropout": 0.0}),
    "several paths": (ARROWS, STAGES, {"name": "classifier", "dropout": 0.0}),
    "several paths with a cell": (ARROWS, CELL_STAGES, {"name": "aspp", "dropout": 0.0}),
}
