"""From a genotype, or a network of the literature with its options, to the network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from autoseg.analysis.module_graph import Diagram
from autoseg.analysis.trace import trace_stages
from autoseg.errors import ConfigError
from autoseg.genotype.schema import Genotype
from autoseg.network import build_network as build_searched
from autoseg.network.base import SegmentationNetwork
from autoseg.ops.heads import number_of_outputs
from autoseg.zoo.architecture import Architecture, load_architecture
from autoseg.zoo.deconvnet import DeconvNet, SegNet
from autoseg.zoo.deeplab import DeepLabV1, DeepLabV2, DeepLabV3, DeepLabV3Cascade, DeepLabV3Plus
from autoseg.zoo.fcn import FCN
from autoseg.zoo.resnet import ResNet
from autoseg.zoo.schema import FixedNetwork
from autoseg.zoo.unet import UNet
from autoseg.zoo.vgg import VGG16
from autoseg.zoo.xception import Xception65

FAMILIES: dict[str, Any] = {
    "fcn32s": FCN,
    "fcn16s": FCN,
    "fcn8s": FCN,
    "deeplabv1": DeepLabV1,
    "deeplabv2": DeepLabV2,
    "deeplabv3": DeepLabV3,
    "deeplabv3_cascade": DeepLabV3Cascade,
    "deeplabv3plus": DeepLabV3Plus,
    "unet": UNet,
    "pixeldcn": UNet,
    "deconvnet": DeconvNet,
    "segnet": SegNet,
}
"""The class of each name, less its backbone."""
CASCADED_BLOCKS = 3
"""Of DeepLabv3's cascade, behind ResNet's own."""
OF_THE_BACKBONE = ("output_stride", "multi_grid")


def build_architecture(
    architecture: Architecture,
    num_classes: int,
    auxiliary: bool = False,
    in_channels: int = 3,
    single_output: bool = False,
) -> SegmentationNetwork:
    """The network with fresh weights; the arguments are those of `network.build_network`.

    A network of the literature says itself how many channels its images have.
    Raises: GenotypeError, ConfigError: fewer than two classes, a single output for more, or no auxiliary head.
    """
    if isinstance(architecture, Genotype):
        return build_searched(architecture, num_classes, auxiliary, in_channels, single_output)
    if num_classes < 2:
        raise ConfigError(f"a network needs at least two classes, not {num_classes}", code="too-few-classes")
    if auxiliary:
        raise ConfigError(
            f"{architecture.name} has no auxiliary head; set retrain.auxiliary_weight to 0", code="no-auxiliary-head"
        )
    network = _build(architecture, number_of_outputs(num_classes, single_output))
    network.architecture, network.in_channels = architecture, architecture.in_channels
    network.num_classes, network.single_output = num_classes, single_output
    return network


def build_network(
    source: str | Path | Mapping[str, Any] | Architecture,
    num_classes: int,
    auxiliary: bool = False,
    in_channels: int = 3,
    single_output: bool = False,
) -> SegmentationNetwork:
    """The network of a genotype, or one of the literature by its name or options, with fresh weights.

    `source`: as `autoseg retrain` takes it: "unet", {"name": "unet", "width": 0.5}, a file, a run. The other arguments
    are those of `build_architecture`. Raises: AutosegError: what is given is wrong.
    """
    return build_architecture(load_architecture(source), num_classes, auxiliary, in_channels, single_output)


def diagram(network: FixedNetwork, num_classes: int = 21) -> Diagram:
    """Its stages and how they are connected, as it computes."""
    with torch.device("meta"):
        built = build_architecture(network, num_classes).eval()
    return trace_stages(built, _shown(built.stages), in_channels=network.in_channels)


def _shown(stages: tuple[str, ...]) -> dict[str, str]:
    """Dotted name -> name to show: VGG16's stages by number, others without the part that they are in."""
    vgg = [name for name in stages if name.startswith("backbone.features.")]
    return {
        name: f"conv{vgg.index(name) + 1}"
        if name in vgg
        else re.sub("^(backbone|decoder|fully_connected)\\.", "", name)
        for name in stages
    }


def _build(spec: FixedNetwork, num_classes: int) -> SegmentationNetwork:
    family = spec.name.removesuffix(f"_{spec.entry.backbone}")
    options = {key: getattr(spec, key) for key in spec.entry.options if key not in OF_THE_BACKBONE}
    if spec.entry.backbone is None:
        network = FAMILIES[family](num_classes, spec.in_channels, width=spec.width, **options)
    else:
        if family.startswith("fcn"):
            options["stride"] = int(family.removeprefix("fcn").removesuffix("s"))
        if family not in ("deconvnet", "segnet"):
            options.pop("batch_norm", None)
        if family not in ("segnet", "deeplabv3_cascade"):
            options["width"] = spec.width
        network = FAMILIES[family](_build_backbone(spec, family), num_classes, **options)
    built: SegmentationNetwork = network
    return built


def _build_backbone(spec: FixedNetwork, family: str) -> VGG16 | ResNet | Xception65:
    """VGG16, ResNet or Xception, as wide and as strided as the network says."""
    backbone = spec.entry.backbone or ""
    given: dict[str, Any] = {"in_channels": spec.in_channels, "width": spec.width}
    given |= {key: value for key in OF_THE_BACKBONE if (value := getattr(spec, key)) is not None}
    if backbone == "vgg16":
        pool = 3 if family in ("deeplabv1", "deeplabv2") else 2
        return VGG16(**given, batch_norm=bool(spec.batch_norm), pool=pool)  # type: ignore[arg-type]
    if backbone == "xception65":
        return Xception65(**given)
    blocks = CASCADED_BLOCKS if family == "deeplabv3_cascade" else 0
    return ResNet(101 if backbone == "resnet101" else 50, **given, extra_blocks=blocks)
