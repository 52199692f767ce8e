"""What a space holds, and the line that says what it lacks."""

from typing import Any

import pytest

from autoseg.errors import GenotypeError
from autoseg.genotype.membership import check_in_space
from autoseg.genotype.sample import sample_genotype
from autoseg.genotype.schema import Genotype
from autoseg.settings import merge
from autoseg.space.schema import SearchSpace, genotype_names
from genotype.spaces import KINDS, space_of


def edge(text: str) -> dict[str, str]:
    source, operation = text.split()
    return {"input": source, "operation": operation}


CELL = [[edge("prev sep_conv_3x3")], [edge("b1 skip_connect"), edge("prev_prev atrous_conv_3x3")]]
PATH = {"strides": [4, 8, 16, 8], "filter_multiplier": 5}
ASPP: dict[str, Any] = {"name": "aspp", "upsamplers": ["bilinear"]}
UP: dict[str, Any] = {"strides": [4, 8, 16, 8, 8, 4], "filter_multiplier": 5, "down_layers": 3}

LACKING: list[tuple[str, dict[str, Any], str]] = [
    ("plain", {"cell": [[edge("prev max_pool_3x3")]] * 2},
     "cell has 'max_pool_3x3', the space none, skip_connect, sep_conv_3x3, atrous_conv_3x3"),
    ("plain", {"cell": CELL[:1]}, "its cell has 1 blocks, the space's 2"),
    ("plain", {"cell": [*CELL, [edge("b2 skip_connect")]]}, "its cell has 3 blocks, the space's 2"),
    ("plain", {"network": {**PATH, "strides": [4, 8, 8]}}, "it has 3 layers, the space 4"),
    ("plain", {"network": {**PATH, "strides": [8, 16, 32, 16]}},
     "it goes from stride 16 to 32 into layer 3, and the space does not"),
    ("plain", {"network": {"arrows": [["4->4"], ["4->8"], ["8->8"], ["8->4"]], "filter_multiplier": 5}},
     "it has several paths, the space's networks have one (network.paths)"),
    ("plain", {"network": {**PATH, "upsamplers": ["carafe"]}},
     "network.upsamplers has 'carafe', the space bilinear"),
    ("plain", {"network": {**PATH, "down_layers": 3, "skips": ["add"]}}, "network.skips has 'add', the space none"),
    ("plain", {"network": {**PATH, "down_layers": 3}, "up_cell": CELL},
     "it has a cell for the way up, up_cell, but the space searches one cell for all layers"),
    ("plain", {"decoder": {"name": "aspp", "upsamplers": ["carafe"]}},
     "decoder.upsamplers has 'carafe', the space bilinear"),
    ("gamma", {"network": {**PATH, "strides": [8, 4, 8, 4], "upsamplers": ["carafe", "bilinear"]}},
     "network.upsamplers has 'carafe' and 'bilinear' into stride 4, for which the space has one choice"
     " (resolution.shared_by)"),
    ("unet decoder", {"network": {**PATH, "upsamplers": ["pixel_dcl"]}, "decoder": {"name": "unet"}},
     "decoder.upsamplers has 'bilinear', the space pixel_dcl, max_unpool"),
    ("hourglass", {"network": {**UP, "strides": [4, 4, 8, 8, 4, 4], "down_layers": 4}, "up_cell": CELL},
     "its way up begins after layer 4, the space's after layer 3 (network.down_layers)"),
    ("hourglass", {"network": UP, "up_cell": CELL[:1]}, "its up_cell has 1 blocks, the space's 2"),
    ("hourglass", {"network": {**UP, "strides": [4, 8, 16, 8, 8, 8]}},
     "it goes from stride 8 to 8 into layer 6, and the space does not"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "has", "message"), LACKING)
def test_the_first_thing_that_a_space_lacks_is_said(kind: str, has: dict[str, Any], message: str) -> None:
    data = {"name": "mine", "cell": CELL, "network": PATH, "decoder": {"name": "classifier"}, **has}
    with pytest.raises(GenotypeError) as caught:
        check_in_space(Genotype.parse(data), space_of(kind))
    assert str(caught.value) == f"genotype 'mine' is not in space '{kind}': {message}"


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
