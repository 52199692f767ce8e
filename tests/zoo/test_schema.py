"""Names, options and widths of the networks of the literature."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.errors import raises_code

from autoseg.errors import ConfigError, GenotypeError
from autoseg.genotype.schema import Genotype
from autoseg.zoo.schema import FixedNetwork, at_output_stride, load_architecture, network_names, parse_architecture


def test_what_is_left_out_is_as_published() -> None:
    assert FixedNetwork.parse("deeplabv3plus").to_dict() == {
        "name": "deeplabv3plus_resnet101",
        "width": 1.0,
        "in_channels": 3,
        "output_stride": 16,
        "aspp_rates": [6, 12, 18],
        "multi_grid": [1, 2, 4],
        "separable": False,
        "dropout": 0.1,
    }
    assert FixedNetwork.parse("unet").to_dict() == {
        "name": "unet", "width": 1.0, "in_channels": 3,
        "batch_norm": False, "upsampler": "transposed_conv_2x2", "dropout": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize("name", network_names())
def test_settings_of_every_network_come_back(name: str) -> None:
    network = FixedNetwork.parse({"name": name, "width": 0.25, "in_channels": 1})
    assert parse_architecture(network.to_dict()) == network
    assert load_architecture(name).name == name or network.entry.short == name


@pytest.mark.parametrize(
    ("data", "code", "named"),
    [
        ("deeplabv3plus_resnet99", "setting-invalid",
         ["network 'deeplabv3plus_resnet99'", "did you mean 'deeplabv3plus_resnet50'"]),
        ("transformer", "setting-invalid", ["network 'transformer'", "known: fcn32s_vgg16, fcn16s_vgg16"]),
        ({"name": "unet", "aspp_rates": [6]}, "setting-invalid", ["unet", "'aspp_rates'", "width, in_channels"]),
        ({"name": "unet", "output_stride": 8}, "setting-invalid", ["unet", "'output_stride'"]),
        ({"name": "deeplabv3", "output_stride": 12}, "setting-invalid", ["output stride 12", "8, 16, 32"]),
        ({"name": "unet", "depth": 5}, "unknown-setting", ["'depth'"]),
        ({"name": "unet", "width": 0}, "setting-invalid", ["width: ", "0, not 0"]),
        ({"name": "unet", "width": "half"}, "setting-invalid", ["width: ", "not 'half'"]),
        ({"name": "unet", "upsampler": "magic"}, "setting-invalid", ["upsampler 'magic'"]),
        ({"name": "unet", "upsampler": "pixel_dcl_4x4"}, "setting-invalid", ["'pixel_dcl_4x4'", "even kernel"]),
        ({"name": "fcn8s", "upsampler": "transposed_conv_2x2"}, "setting-invalid", ["take transposed_conv here"]),
        ({"name": "deeplabv3", "multi_grid": [1, 2]}, "setting-invalid", ["multi_grid: ", "3 items, not 2"]),
        ({"name": "deeplabv1", "first_classifier": "5x5"}, "setting-invalid",
         ["first_classifier: ", "'3x3', '4x4' or '7x7'", "not '5x5'"]),
        ({"name": "deeplabv3", "aspp_rates": []}, "setting-invalid", ["aspp_rates: ", "1 item, not 0"]),
        ({"width": 0.5}, "setting-missing", ["name"]),
    ],
)  # fmt: skip
def test_wrong_ones(data: Any, code: str, named: list[str]) -> None:
    with raises_code(ConfigError, code, *named):
        FixedNetwork.parse(data)


def test_what_a_name_or_file_stands_for(tmp_path) -> None:
    assert isinstance(load_architecture("auto_deeplab_s"), Genotype)
    assert isinstance(load_architecture("unet"), FixedNetwork)
    (tmp_path / "mine.yaml").write_text("name: segnet\nwidth: 0.5\n")
    assert load_architecture(tmp_path / "mine.yaml") == FixedNetwork.parse({"name": "segnet", "width": 0.5})
    with raises_code(GenotypeError, "unknown-network", "'segnett'", "did you mean 'segnet"):
        load_architecture("segnett")
    with raises_code(ConfigError, "network-source-invalid", "not 3"):
        load_architecture(3)  # type: ignore[arg-type]


def test_another_output_stride_of_the_same_weights() -> None:
    network = FixedNetwork.parse({"name": "deeplabv3", "width": 0.5})
    assert at_output_stride(network, None) is network
    assert at_output_stride(network, 8) == FixedNetwork.parse({**network.to_dict(), "output_stride": 8})
    with raises_code(ConfigError, "setting-invalid", "deeplabv3", "output stride 4", "8, 16, 32"):
        at_output_stride(network, 4)
    with raises_code(ConfigError, "output-stride-of-genotype", "output stride 8", "auto_deeplab_s", "--output-stride"):
        at_output_stride(Genotype.load("auto_deeplab_s"), 8)


def test_one_function_builds_either() -> None:
    import autoseg

    for source in (
        "unet_shaped",
        {"name": "unet", "width": 0.05},
        FixedNetwork.parse({"name": "segnet", "width": 0.05}),
    ):
        network = autoseg.build_network(source, 5)
        assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 5, 32, 32)
