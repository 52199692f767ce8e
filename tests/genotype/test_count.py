"""The number of networks of a wide space against a list of all of them."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from helpers.errors import raises_code
from helpers.spaces import space_of
from helpers.wide_spaces import NAMED, WIDE, wide_space

from autoseg.config.base import merge
from autoseg.errors import SearchSpaceError
from autoseg.genotype.count import count_cells, count_networks
from autoseg.genotype.design import enumerate_genes, genotype_of, key_of, sample_genes
from autoseg.space.schema import SearchSpace

SMALL = {"blocks": ["conv_3x3"], "depths": [1], "widths": [1], "profiles": []}
DECODERS = [
    {"name": "classifier"},
    {"name": "unet", "filters": 4},
    {"name": "deeplabv3plus", "filters": 4, "low_level_stride": 4},
]
DILATED = [{"name": "dilated", "strides": [4, 8, 8]}, {"name": "flat", "strides": [2, 2]}]
LISTED: dict[str, dict[str, Any]] = {
    "as it is": {},
    "by level": {"shared_by": "level"},
    "widths by level": {"profiles": [], "widths": [0.5, 1, 0.51]},  # two are one number of channels at some levels
    "cells of one depth": {"blocks": ["cell", "conv_3x3"], "cells": ["auto_deeplab_s", "unet_shaped"]},
    "one cell under two names": {"blocks": ["cell"], "cells": ["auto_deeplab_s", "auto_deeplab_m"]},
    "places of upsamplers": {**SMALL, "decoders": DECODERS, "upsamplers": ["bilinear", "carafe"]},
    "no places": {**SMALL, "networks": DILATED, "decoders": DECODERS, "upsamplers": ["nearest", "bilinear", "carafe"]},
    "unused levels": {"networks": DILATED, "shared_by": "level", "depths": [1]},
    "two stems": {"stems": [{"channels": [4], "strides": [2]}, {"channels": [4, 4], "strides": [2, 1]}]},
    "one path under two names": {"networks": [*DILATED, {"name": "again", "strides": [4, 8, 8]}]},
}


def listed(space: SearchSpace) -> int:
    return len({key_of(genotype_of(space, genes)) for genes in enumerate_genes(space)})


@pytest.mark.slow
@pytest.mark.parametrize("name", LISTED)
def test_listed_networks(name: str) -> None:
    space = wide_space(NAMED, **LISTED[name])
    assert count_networks(space) == listed(space) > 1


@pytest.mark.parametrize("moves", [["up", "same", "down"], ["same", "down"], ["same", "up"]])
def test_drawn_paths_are_those_that_can_be_named(moves: list[str]) -> None:
    """Every path of two and of three layers by brute force, in a space that names them."""
    plain = merge(WIDE, {"network": {"strides": [2, 4, 8], "moves": moves}, "macro": {**SMALL, "layers": [2, 3]}})
    legal = [
        strides
        for layers in (2, 3)
        for strides in product([2, 4, 8], repeat=layers)
        if all(move(source, target) in moves for source, target in zip((2, *strides), strides, strict=False))
    ]
    named = [{"name": str(strides), "strides": strides} for strides in legal]
    drawn, by_name = (
        SearchSpace.parse(merge(plain, {"macro": {"decoders": DECODERS, **changes}}))
        for changes in ({"layers": [2, 3]}, {"layers": [], "paths": [], "networks": named})
    )
    assert count_networks(drawn) == count_networks(by_name) == listed(by_name)


def move(source: int, target: int) -> str:
    return {0.5: "up", 1.0: "same", 2.0: "down"}.get(target / source, "none")


def test_drawn_cells_count_where_a_stage_has_one() -> None:
    space = wide_space(NAMED, blocks=["cell", "residual"], depths=[1], decoders=[{"name": "classifier"}])
    assert count_cells(space) == 49 * 3 * 49  # seven operations, two of 2 and of 3 inputs
    assert count_networks(space) == 3 * 2 * (1 + count_cells(space))


def test_topologies_that_are_drawn_are_not_counted() -> None:
    assert count_networks(wide_space(paths=["single", "multi"])) is None
    assert (count_networks(wide_space()) or 0) > 10**9
    with raises_code(SearchSpaceError, "space-not-wide", "plain"):
        count_networks(space_of("plain"))


def test_what_is_drawn_is_among_them() -> None:
    """A space of few networks: drawing finds every one, and no more."""
    space = wide_space(**SMALL, layers=[2], decoders=DECODERS[:1], upsamplers=["bilinear", "nearest"])
    rng = np.random.default_rng(0)
    assert len({key_of(genotype_of(space, sample_genes(space, rng))) for _ in range(300)}) == count_networks(space)
