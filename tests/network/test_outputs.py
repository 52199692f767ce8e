"""Images of any number of channels, and one output for two classes: searched networks and those of the literature."""

from __future__ import annotations

import pytest
import torch
from helpers.errors import raises_code
from torch.nn import functional as F

from autoseg.errors import ConfigError
from autoseg.export import export_network
from autoseg.export.formats import load_safetensors
from autoseg.genotype.schema import Genotype
from autoseg.losses.losses import SegmentationLoss
from autoseg.network import build_searched
from autoseg.space.schema import SearchSpace
from autoseg.supernet import build_supernet
from autoseg.zoo.build import build_network
from autoseg.zoo.schema import FixedNetwork


def genotype() -> Genotype:
    return Genotype.parse(
        {
            "name": "small",
            "cell": [[{"input": "prev", "operation": "sep_conv_3x3"}]],
            "network": {"strides": [8, 4], "filter_multiplier": 4},
            "stem": {"channels": [4, 4], "strides": [2, 2]},
            "decoder": {"filters": 8, "aspp_rates": [8], "low_level_filters": 4},
        }
    )


def unet(channels: int = 3) -> FixedNetwork:
    return FixedNetwork.parse({"name": "unet", "width": 0.05, "in_channels": channels})


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 2, 4, 12])
def test_any_number_of_channels(channels: int) -> None:
    images = torch.randn(2, channels, 33, 47)
    space = SearchSpace.load("tiny").to_dict()
    space["network"] |= {"layers": 2, "filter_multiplier": 2}
    for network in (
        build_searched(genotype(), 5, in_channels=channels),
        build_network(unet(channels), 5),
        build_supernet(SearchSpace.parse(space), 5, in_channels=channels),
    ):
        assert network(images).shape == (2, 5, 33, 47)


@pytest.mark.parametrize("of_literature", [False, True])
def test_one_output_is_the_log_odds_of_the_second_class(of_literature: bool) -> None:
    architecture = unet() if of_literature else genotype()
    network = build_network(architecture, 2, single_output=True)
    images, masks = torch.randn(2, 3, 33, 47), torch.randint(2, (2, 33, 47))
    masks[0, :5] = 255
    logits = network(images)
    assert logits.shape == (2, 2, 33, 47)
    assert (logits[:, 0] == 0).all()
    assert (network.num_classes, network.single_output) == (2, True)
    expected = F.binary_cross_entropy_with_logits(logits[:, 1][masks != 255], masks[masks != 255].float())
    torch.testing.assert_close(SegmentationLoss(255)(logits, masks), expected)
    two = build_network(architecture, 2)
    counts = [sum(parameter.numel() for parameter in each.parameters()) for each in (network, two)]
    assert counts[0] < counts[1]


def test_one_output_of_the_auxiliary_head_too() -> None:
    network = build_searched(genotype(), 2, auxiliary=True, single_output=True).train()
    logits, auxiliary = network.forward_with_auxiliary(torch.randn(2, 3, 32, 32))
    assert auxiliary is not None
    assert logits.shape == auxiliary.shape == (2, 2, 32, 32)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "unet"])
def test_one_output_of_the_supernet(name: str) -> None:
    space = SearchSpace.load(name)
    supernets = [build_supernet(space, 2, single_output=single) for single in (True, False)]
    logits = supernets[0](torch.randn(2, 3, 33, 47))
    assert logits.shape == (2, 2, 33, 47)
    assert (logits[:, 0] == 0).all()
    assert logits[:, 1].std() > 0
    counts = [sum(parameter.numel() for parameter in each.parameters()) for each in supernets]
    assert counts[0] < counts[1]
    with raises_code(ConfigError, "single-output-needs-two-classes", "not 3", "single_output"):
        build_supernet(space, 3, single_output=True)


def test_one_output_is_for_two_classes() -> None:
    for architecture in (unet(), genotype()):
        with raises_code(ConfigError, "single-output-needs-two-classes", "not 3", "single_output"):
            build_network(architecture, 3, single_output=True)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["safetensors", "onnx"])
def test_they_export(format, tmp_path) -> None:
    pytest.importorskip("onnxruntime")
    network = build_searched(genotype(), 2, in_channels=4, single_output=True).eval()
    report = export_network(network, tmp_path / "file", format, metadata={})
    assert report.equal_labels == 1
    if format == "safetensors":
        again, metadata = load_safetensors(tmp_path / "file")
        assert (again.in_channels, again.single_output, metadata["in_channels"]) == (4, True, 4)
