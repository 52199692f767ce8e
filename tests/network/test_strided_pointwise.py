"""No network has a strided 1x1 convolution of few channels: its backward pass writes beyond its memory on a CPU.

See `autoseg.ops.interleave.every_second`. The fault is silent where it does not crash, so tests of values miss it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from autoseg.genotype.schema import Genotype
from autoseg.registry import BLOCKS, NETWORKS, OPERATIONS
from autoseg.space.schema import SearchSpace, genotype_names, space_names
from autoseg.supernet import build_supernet
from autoseg.zoo.build import build_network
from autoseg.zoo.schema import FixedNetwork

FEWEST = 16
"""Input channels from which on PyTorch 2.13 computes it rightly (oneDNN, issue 6035)."""


def strided(module: nn.Module) -> Iterator[str]:
    """The 1x1 convolutions with a stride and few input channels."""
    for name, part in module.named_modules():
        pointwise = isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1)
        if pointwise and part.stride != (1, 1) and part.in_channels < FEWEST:
            yield f"{name}: {part}"


def test_the_check_finds_one() -> None:
    assert list(strided(nn.Sequential(nn.Conv2d(12, 10, 1, 2), nn.Conv2d(16, 10, 1, 2), nn.Conv2d(12, 10, 3, 2)))) == [
        "0: Conv2d(12, 10, kernel_size=(1, 1), stride=(2, 2))"
    ]


def test_layers_of_few_channels_have_none() -> None:
    for block in BLOCKS.values():
        for channels in ((4, 4), (4, 12)):
            assert list(strided(block.build(*channels, 2, nn.BatchNorm2d))) == []
    for operation in OPERATIONS.values():
        assert list(strided(operation.build(4, 2, nn.BatchNorm2d))) == []


@pytest.mark.parametrize("name", NETWORKS)
def test_narrow_networks_of_the_literature_have_none(name: str) -> None:
    options = {"width": 0.02} if "width" in FixedNetwork.parse(name).to_dict() else {}
    with torch.device("meta"):
        assert list(strided(build_network({"name": name, **options}, 3))) == []


@pytest.mark.parametrize("name", genotype_names())
def test_narrow_genotypes_have_none(name: str) -> None:
    genotype = Genotype.load(name)
    narrow = genotype.model_copy(update={"network": genotype.network.model_copy(update={"filter_multiplier": 1})})
    with torch.device("meta"):
        assert list(strided(build_network(narrow, 3))) == []


@pytest.mark.parametrize("name", space_names())
def test_narrow_supernets_have_none(name: str) -> None:
    space = SearchSpace.load(name)
    narrow = {"network": space.network.model_copy(update={"filter_multiplier": 4})}
    with torch.device("meta"):
        assert list(strided(build_supernet(space.model_copy(update=narrow), 3))) == []
