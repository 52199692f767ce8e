"""A network as a graph that runs without autoseg, as PyTorch's `.pt2` or ONNX, for any (N, C, H, W)."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbolic_shapes_config

from autoseg.config.base import LEAST_INPUT_SIDE
from autoseg.errors import ExportError
from autoseg.export.metadata import decode

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
    torch.export.save(trace(network), path, extra_files={"metadata.json": text})


def load_pt2(path: Path) -> Run:
    """The file as a function from images (N, C, H, W) to logits."""
    return torch.export.load(path).module()


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
    onnx.save(model, path)


def load_onnx(path: Path) -> Run:
    """The file as a function from images (N, C, H, W) to logits; onnxruntime runs it on the CPU."""
    runtime = _import("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
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
