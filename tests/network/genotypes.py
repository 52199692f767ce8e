"""Small genotypes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autoseg.genotype.schema import Edge, Genotype
from autoseg.space.groups import OPERATIONS

EVERY_OPERATION = (
    ("prev_prev skip_connect", "prev sep_conv_3x3", "prev avg_pool_3x3", "prev_prev atrous_conv_3x3"),
    ("prev max_pool_3x3", "b1 atrous_conv_5x5", "prev_prev sep_conv_5x5"),
    ("b2 skip_connect", "b1 avg_pool_3x3", "b2 max_pool_3x3", "b1 sep_conv_3x3", "b2 sep_conv_5x5"),
    ("prev dil_conv_3x3", "b3 dil_conv_5x5"),
)
"""Blocks of one to five inputs."""
assert {edge.split()[1] for block in EVERY_OPERATION for edge in block} == set(OPERATIONS) - {"none"}

CHEAP = (("prev_prev skip_connect", "prev sep_conv_3x3"), ("b1 max_pool_3x3", "prev atrous_conv_3x3"))


def edges_of(cell: Sequence[Sequence[str]]) -> list[list[Edge]]:
    """Edges from `input operation` texts."""
    return [[Edge(**dict(zip(("input", "operation"), edge.split(), strict=True))) for edge in block] for block in cell]


def make_genotype(
    strides: Sequence[int] = (4, 8, 4),
    cell: Sequence[Sequence[str]] = CHEAP,
    filters: int = 2,
    decoder: str = "deeplabv3plus",
    stem: tuple[Sequence[int], Sequence[int]] = ((4, 6, 5), (2, 1, 2)),
    **of_decoder: Any,
) -> Genotype:
    """`stem`: channels and strides."""
    return Genotype.parse(
        {
            "name": "small",
            "cell": [[edge.to_dict() for edge in block] for block in edges_of(cell)],
            "network": {"strides": list(strides), "filter_multiplier": filters},
            "stem": {"channels": list(stem[0]), "strides": list(stem[1])},
            "decoder": {"name": decoder, "filters": 6, "low_level_filters": 3, "dropout": 0.0, **of_decoder},
            "batch_norm": {"eps": 1e-3, "momentum": 3e-4},
        }
    )
