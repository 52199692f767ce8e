"""Builds the network of a genotype or of the literature."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from autoseg.analysis.module_graph import Diagram
from autoseg.analysis.trace import trace_stages
from autoseg.errors import ConfigError, PluginError
from autoseg.genotype.schema import Genotype
from autoseg.network import build_searched
from autoseg.network.base import SegmentationNetwork
from autoseg.ops.heads import number_of_outputs
from autoseg.registry import NETWORKS
from autoseg.zoo.schema import Architecture, FixedNetwork, load_architecture

PREFIX = re.compile(r"^(backbone|decoder|fully_connected)\.")


def build_network(
    source: str | Path | Mapping[str, Any] | Architecture,
    num_classes: int,
    auxiliary: bool = False,
    in_channels: int = 3,
    single_output: bool = False,
) -> SegmentationNetwork:
    """Build the network of a genotype, or one of the literature, with fresh weights.

    Args:
        source: What `autoseg retrain` takes: "unet", {"name": "unet", "width": 0.5}, a genotype, a file, a run.
        num_classes: Number of classes K, at least two.
        auxiliary: Add an auxiliary head for training; a genotype alone can have one.
        in_channels: Number of image channels of a genotype's network; others have it in their options.
        single_output: One output for two classes.

    Returns:
        A module: (N, in_channels, H, W) normalised images -> logits (N, K, H, W).

    Raises:
        AutosegError: the source is unknown, an argument does not fit it, or a user's own network is of the wrong kind.
    """
    architecture = load_architecture(source)
    if isinstance(architecture, Genotype):
        return build_searched(architecture, num_classes, auxiliary, in_channels, single_output)
    if num_classes < 2:
        raise ConfigError(f"a network needs at least two classes, not {num_classes}", code="too-few-classes")
    if auxiliary:
        message = f"{architecture.name} has no auxiliary head; set retrain.auxiliary_weight to 0"
        raise ConfigError(message, code="no-auxiliary-head")
    network = architecture.entry.build(architecture, number_of_outputs(num_classes, single_output))
    if not isinstance(network, SegmentationNetwork):
        raise PluginError(
            f"network '{architecture.name}' of the plugin {NETWORKS.plugin_of(architecture.name)} builds a"
            f" {type(network).__name__}; it must build an autoseg.network.base.SegmentationNetwork",
            code="network-of-wrong-kind",
        )
    network.architecture, network.in_channels = architecture, architecture.in_channels
    network.num_classes, network.single_output = num_classes, single_output
    return network


def diagram(network: FixedNetwork, num_classes: int = 21) -> Diagram:
    """The stages of a network and their connections, traced as it computes."""
    with torch.device("meta"):
        built = build_network(network, num_classes).eval()
    vgg = [name for name in built.stages if name.startswith("backbone.features.")]  # shown by number
    shown = {name: f"conv{vgg.index(name) + 1}" if name in vgg else re.sub(PREFIX, "", name) for name in built.stages}
    return trace_stages(built, shown)
