"""Small genotypes: some that tests shape by arguments, some fixed ones for pictures and descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autoseg.genotype.schema import Edge, Genotype
from autoseg.registry import OPERATIONS

EVERY_OPERATION = (
    ("prev_prev skip_connect", "prev sep_conv_3x3", "prev avg_pool_3x3", "prev_prev atrous_conv_3x3"),
    ("prev max_pool_3x3", "b1 atrous_conv_5x5", "prev_prev sep_conv_5x5"),
    ("b2 skip_connect", "b1 avg_pool_3x3", "b2 max_pool_3x3", "b1 sep_conv_3x3", "b2 sep_conv_5x5"),
    ("prev dil_conv_3x3", "b3 dil_conv_5x5"),
)
"""Blocks of one to five inputs."""
assert {edge.split()[1] for block in EVERY_OPERATION for edge in block} == set(OPERATIONS) - {"none"}

CHEAP = (("prev_prev skip_connect", "prev sep_conv_3x3"), ("b1 max_pool_3x3", "prev atrous_conv_3x3"))
UP = (("prev skip_connect", "prev_prev atrous_conv_3x3"), ("b1 sep_conv_3x3",))


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


def make_hourglass(
    upsamplers: Sequence[str] = (), skips: Sequence[str] = (), strides: Sequence[int] = (1, 2, 4, 2, 1), **changes: Any
) -> Genotype:
    """Down and back up to full resolution with a cell of its own on the way up; the way down is three layers."""
    cells = {
        name: [[edge.to_dict() for edge in block] for block in edges_of(cell)]
        for name, cell in (("cell", CHEAP), ("up_cell", UP))
    }
    return Genotype.parse(
        {
            "name": "hourglass",
            **cells,
            "network": {
                "strides": list(strides),
                "filter_multiplier": 3,
                "down_layers": 3,
                "upsamplers": list(upsamplers),
                "skips": list(skips),
            },
            "stem": {"channels": [4, 5], "strides": [1, 1]},
            "decoder": {"name": "classifier", "dropout": 0.0},
            "batch_norm": {"eps": 1e-3, "momentum": 3e-4},
            **changes,
        }
    )


ARROWS = (
    ("4->4", "4->8"),
    ("4->4", "4->8", "8->8", "8->16"),
    ("4->8", "8->4", "8->8", "16->8", "16->16"),
    ("4->4", "8->4", "8->8", "16->8", "16->16"),
)
"""Of four layers: one, two and three arrows into a node, nodes that are missing two layers ago, three that end."""


def make_multi(
    upsamplers: Sequence[str] = (), arrows: Sequence[Sequence[str]] = ARROWS, decoder: str = "deeplabv3plus",
    stages: Sequence[str] = (), **of_decoder: Any,
) -> Genotype:  # fmt: skip
    """A network of several paths; `stages` are the decoder's upsamplers."""
    plain = make_genotype(decoder=decoder, **of_decoder).to_dict()
    plain["decoder"]["upsamplers"] = list(stages)
    plain["network"] = {
        "arrows": [list(layer) for layer in arrows], "filter_multiplier": 3, "upsamplers": list(upsamplers)
    }  # fmt: skip
    return Genotype.parse(plain)


# --- fixed ones, which come back up in many ways ---------------------------------------------------------------------

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
