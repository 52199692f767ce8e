"""Membership of genotypes in a space, and the message about what the space lacks."""

from typing import Any

import pytest
from helpers.errors import raises_code
from helpers.spaces import KINDS, space_of

from autoseg.config.base import merge
from autoseg.errors import GenotypeError
from autoseg.genotype.contains import check_in_space
from autoseg.genotype.sample import sample_genotype
from autoseg.genotype.schema import Genotype
from autoseg.space.schema import SearchSpace, genotype_names


def edge(text: str) -> dict[str, str]:
    source, operation = text.split()
    return {"input": source, "operation": operation}


CELL = [[edge("prev sep_conv_3x3")], [edge("b1 skip_connect"), edge("prev_prev atrous_conv_3x3")]]
PATH = {"strides": [4, 8, 16, 8], "filter_multiplier": 5}
ASPP: dict[str, Any] = {"name": "aspp", "upsamplers": ["bilinear"]}
UP: dict[str, Any] = {"strides": [4, 8, 16, 8, 8, 4], "filter_multiplier": 5, "down_layers": 3}

LACKING: list[tuple[str, dict[str, Any], list[str]]] = [
    ("plain", {"cell": [[edge("prev max_pool_3x3")]] * 2},
     ["cell", "'max_pool_3x3'", "none, skip_connect, sep_conv_3x3, atrous_conv_3x3"]),
    ("plain", {"cell": CELL[:1]}, ["its cell", "1 blocks", "space's 2"]),
    ("plain", {"cell": [*CELL, [edge("b2 skip_connect")]]}, ["its cell", "3 blocks", "space's 2"]),
    ("plain", {"network": {**PATH, "strides": [4, 8, 8]}}, ["3 layers", "space 4"]),
    ("plain", {"network": {**PATH, "strides": [8, 16, 32, 16]}},
     ["stride 16 to 32", "layer 3"]),
    ("plain", {"network": {"arrows": [["4->4"], ["4->8"], ["8->8"], ["8->4"]], "filter_multiplier": 5}},
     ["several paths", "network.paths"]),
    ("plain", {"network": {**PATH, "upsamplers": ["carafe"]}},
     ["network.upsamplers", "'carafe'", "space bilinear"]),
    ("plain", {"network": {**PATH, "down_layers": 3, "skips": ["add"]}}, ["network.skips", "'add'", "space none"]),
    ("plain", {"network": {**PATH, "down_layers": 3}, "up_cell": CELL},
     ["up_cell", "one cell"]),
    ("plain", {"decoder": {"name": "aspp", "upsamplers": ["carafe"]}},
     ["decoder.upsamplers", "'carafe'", "space bilinear"]),
    ("gamma", {"network": {**PATH, "strides": [8, 4, 8, 4], "upsamplers": ["carafe", "bilinear"]}},
     ["network.upsamplers", "'carafe' and 'bilinear'", "stride 4", "one choice", "resolution.shared_by"]),
    ("unet decoder", {"network": {**PATH, "upsamplers": ["pixel_dcl"]}, "decoder": {"name": "unet"}},
     ["decoder.upsamplers", "'bilinear'", "space pixel_dcl, max_unpool"]),
    ("hourglass", {"network": {**UP, "strides": [4, 4, 8, 8, 4, 4], "down_layers": 4}, "up_cell": CELL},
     ["layer 4", "layer 3", "network.down_layers"]),
    ("hourglass", {"network": UP, "up_cell": CELL[:1]}, ["its up_cell", "1 blocks", "space's 2"]),
    ("hourglass", {"network": {**UP, "strides": [4, 8, 16, 8, 8, 8]}},
     ["stride 8 to 8", "layer 6"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "has", "named"), LACKING)
def test_the_first_thing_that_a_space_lacks_is_said(kind: str, has: dict[str, Any], named: list[str]) -> None:
    data = {"name": "mine", "cell": CELL, "network": PATH, "decoder": {"name": "classifier"}, **has}
    with raises_code(GenotypeError, "genotype-not-in-space", "genotype 'mine'", f"space '{kind}'", *named):
        check_in_space(Genotype.parse(data), space_of(kind))


def test_what_a_space_does_not_search_may_differ() -> None:
    data = {"name": "mine", "cell": CELL, "network": PATH, "decoder": {"name": "unet", "filters": 3}}
    check_in_space(Genotype.parse(merge(data, {"stem": {"channels": [9, 9], "strides": [2, 2]}})), space_of("plain"))
    check_in_space(Genotype.parse(data), space_of("multi"))  # a path is a topology
    up = {"name": "mine", "cell": CELL, "network": UP, "decoder": {"name": "classifier"}}
    check_in_space(Genotype.parse(up), space_of("hourglass"))  # one cell is two equal ones


@pytest.mark.parametrize("kind", list(KINDS))
def test_sampled_genotypes_are_in_their_own_space_and_few_in_others(kind: str) -> None:
    strangers = 0
    for seed in range(5):
        genotype = sample_genotype(space_of(kind), seed)
        check_in_space(genotype, space_of(kind))
        for other in KINDS:
            try:
                check_in_space(genotype, space_of(other))
            except GenotypeError:
                strangers += 1
    assert strangers > 5


@pytest.mark.parametrize("name", genotype_names())
def test_shipped_genotypes_are_in_the_space_that_they_name(name: str) -> None:
    genotype = Genotype.load(name)
    check_in_space(genotype, SearchSpace.load(genotype.source.get("space", "auto_deeplab")))
