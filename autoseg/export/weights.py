"""A network as safetensors: its weights, and in the header the genotype that rebuilds it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from autoseg.errors import CheckpointError, ConfigError, ExportError, GenotypeError
from autoseg.export.metadata import decode
from autoseg.files import one_line, user_path
from autoseg.network.base import SegmentationNetwork
from autoseg.zoo.build import build_network
from autoseg.zoo.schema import parse_architecture
from autoseg.zoo.weights import read_safetensors


def save_safetensors(network: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the state dict and the metadata. Raises: ExportError: a network without a genotype or options."""
    if not isinstance(network, SegmentationNetwork):
        raise ExportError(
            "safetensors holds weights and the genotype that rebuilds the network, and this network has none;"
            " use onnx or pt2",
            code="format-needs-genotype",
        )
    state = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    path.write_bytes(save(state, dict(metadata)))  # `save_file` would make it readable for its owner only


def load_safetensors(path: str | Path) -> tuple[SegmentationNetwork, dict[str, Any]]:
    """The network of a safetensors export, on the CPU and in eval mode, and the metadata as plain data.

    Raises: CheckpointError: a file that is missing, truncated, not safetensors, or not written by `autoseg export`.
    """
    path = user_path(path, ExportError)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; give the path of a safetensors file", code="file-missing")
    state, strings = read_safetensors(path)
    metadata = decode(strings)
    blueprint, num_classes = metadata.get("genotype", metadata.get("network")), metadata.get("num_classes")
    if not isinstance(blueprint, dict) or not isinstance(num_classes, int):
        raise CheckpointError(
            f"{path} holds weights, but not the genotype and number of classes that rebuild the network;"
            " give a file made by `autoseg export --format safetensors`",
            code="weights-without-genotype",
        )
    try:
        auxiliary = any(name.startswith("auxiliary.") for name in state)
        architecture = parse_architecture(blueprint, f"the genotype in {path}")
        channels, single_output = metadata.get("in_channels", 3), metadata.get("single_output", False)
        network = build_network(architecture, num_classes, auxiliary, channels, single_output)
    except (GenotypeError, ConfigError) as reason:
        raise CheckpointError(f"{path}: {one_line(reason)}", code=reason.code) from None
    own = network.state_dict()
    wrong = sorted(own.keys() ^ state.keys()) or [name for name in own if own[name].shape != state[name].shape]
    if wrong:
        raise CheckpointError(
            f"{path} does not fit its own genotype: {len(wrong)} weights are missing, left over or of another shape,"
            f" such as {wrong[0]}; export again",
            code="weights-do-not-fit",
        )
    network.load_state_dict(state)
    return network.eval(), metadata
