"""A network as a file of each format, and back.

`.pt2` and ONNX hold a graph that runs without autoseg, for any (N, C, H, W); safetensors holds weights, and in its
header the genotype that rebuilds the network.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbolic_shapes_config

from autoseg.config.base import LEAST_INPUT_SIDE
from autoseg.errors import CheckpointError, ConfigError, ExportError, GenotypeError
from autoseg.export.common import decode
from autoseg.files import one_line, user_path, utf8_name
from autoseg.network.base import SegmentationNetwork
from autoseg.zoo.build import build_network
from autoseg.zoo.schema import parse_architecture
from autoseg.zoo.weights import read_safetensors

EXAMPLE = (2, 96, 128)
"""Number, height and width of the traced images; with a batch of one, the graph would take single images only."""
ONNX_OPSET = 18
"""The opset that PyTorch's exporter writes without conversion. onnxruntime reads it since 1.14."""
ONNX_BYTES = 2**31 - 2**24
"""Bytes of weights that fit into one ONNX file: protobuf ends at 2 GB, and the graph needs some of that."""

Run = Callable[[Tensor], Tensor]


def trace(network: nn.Module) -> ExportedProgram:
    """The network as a graph with symbols for N, H and W."""
    shapes = {0: Dim("batch"), 2: Dim("height", min=LEAST_INPUT_SIDE), 3: Dim("width", min=LEAST_INPUT_SIDE)}
    # features may be a single pixel wide: without this setting, the trace treats sizes of 1 as special
    with symbolic_shapes_config.patch(backed_size_oblivious=True), torch.no_grad():  # type: ignore[attr-defined]
        number, height, width = EXAMPLE
        example = torch.zeros(number, getattr(network, "in_channels", 3), height, width)
        program = torch.export.export(network, (example,), dynamic_shapes=(shapes,))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it holds paths of this machine
    return program


def save_pt2(network: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a `.pt2`; `torch.export.load(path)` reads it."""
    text = json.dumps(decode(metadata), indent=2, ensure_ascii=False)
    with path.open("wb") as file:  # given the path, PyTorch forgets why it could not write
        torch.export.save(trace(network), file, extra_files={"metadata.json": text})


def load_pt2(path: Path) -> Run:
    """The file as a function from images (N, C, H, W) to logits."""
    with path.open("rb") as file:
        return torch.export.load(file).module()


def save_onnx(network: nn.Module, path: Path, metadata: Mapping[str, str], most_bytes: int = ONNX_BYTES) -> None:
    """Write one ONNX file with the weights inside: input `image` (N, C, H, W), output `logits` (N, classes, H, W).

    Raises: ExportError: more weights than one file may hold, or packages that are not installed.
    """
    onnx = _import("onnx")
    _import("onnxscript")
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > most_bytes:
        raise ExportError(
            f"the network has {size / 1e9:.1f} GB of weights, and one ONNX file holds at most 2 GB;"
            " use pt2 or safetensors",
            code="network-too-large",
        )
    program = torch.onnx.export(
        trace(network), dynamo=True, opset_version=ONNX_OPSET, verbose=False,
        input_names=["image"], output_names=["logits"],
    )  # fmt: skip
    if program is None:
        raise ExportError("PyTorch made no ONNX program; use pt2", code="export-failed")
    model = program.model_proto
    _tidy(model)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    with path.open("wb") as file:
        onnx.save(model, file)


def load_onnx(path: Path) -> Run:
    """The file as a function from images (N, C, H, W) to logits; onnxruntime runs it on the CPU."""
    runtime = _import("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    with utf8_name(path) as name:
        session = runtime.InferenceSession(name, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"image": images.numpy()})[0])


def _tidy(model: Any) -> None:
    """Name the dimensions, and drop the exporter's notes about its own work, which hold paths of this machine."""
    for value in (model.graph.input[0], model.graph.output[0]):
        batch, _, height, width = value.type.tensor_type.shape.dim
        batch.dim_param, height.dim_param, width.dim_param = "batch", "height", "width"
    del model.graph.value_info[:]  # inner sizes still have the old names; every reader infers them
    for part in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]


def _import(name: str) -> Any:
    """Import a package of the extra `export`. Raises: ExportError: it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as reason:
        message = f"ONNX needs the package {name} ({reason}); install autoseg[export]"
        raise ExportError(message, code="package-missing") from None


# --- safetensors ------------------------------------------------------------------------------------------------------


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
