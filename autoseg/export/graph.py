"""A network as a graph that runs without autoseg: PyTorch's `.pt2` and ONNX, at any batch, height and width.

Letters: N images, H height, W width.
"""

from __future__ import annotations

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
"""Number, height and width of the traced images; a batch of one would make the graph one for single images."""
ONNX_OPSET = 18
"""The one in which PyTorch's exporter writes; others are converted from it. onnxruntime reads it since 1.14."""
ONNX_BYTES = 2**31 - 2**24
"""Weights that fit into one ONNX file: protobuf ends at 2 GB, and the graph itself needs some of that."""
METADATA_FILE = "metadata.json"
"""The name of the metadata among the extra files of a `.pt2`."""

Run = Callable[[Tensor], Tensor]


def trace(network: nn.Module) -> ExportedProgram:
    """The network as a graph with symbols for N, H and W."""
    shapes = {0: Dim("batch"), 2: Dim("height", min=LEAST_INPUT_SIDE), 3: Dim("width", min=LEAST_INPUT_SIDE)}
    # a feature may be a single pixel wide: without this setting, sizes of 1 are taken to be of another kind
    with symbolic_shapes_config.patch(backed_size_oblivious=True), torch.no_grad():  # type: ignore[attr-defined]
        number, height, width = EXAMPLE
        example = torch.zeros(number, getattr(network, "in_channels", 3), height, width)
        program = torch.export.export(network, (example,), dynamic_shapes=(shapes,))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # lines of source, with paths of this machine
    return program


# --- pt2 -------------------------------------------------------------------------------------------------------------


def save_pt2(network: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a `.pt2`; `torch.export.load(path)` reads it."""
    text = json.dumps(decode(metadata), indent=2, ensure_ascii=False)
    torch.export.save(trace(network), path, extra_files={METADATA_FILE: text})


def load_pt2(path: Path) -> Run:
    """The file as a function of images."""
    module = torch.export.load(path).module()

    def run(images: Tensor) -> Tensor:
        logits: Tensor = module(images)
        return logits

    return run


# --- ONNX ------------------------------------------------------------------------------------------------------------


def save_onnx(network: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write one ONNX file with the weights inside: input `image` (N, 3, H, W), output `logits` (N, classes, H, W).

    Raises: ExportError: more weights than one file may hold, or packages that are not installed.
    """
    onnx = _import("onnx")
    _import("onnxscript")
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > ONNX_BYTES:
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
    """The file as a function of images, run by onnxruntime on the CPU."""
    runtime = _import("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"image": images.numpy()})[0])


def _tidy(model: Any) -> None:
    """Name the dimensions, and drop what the exporter notes about its own work (with paths of this machine)."""
    for value, names in (
        (model.graph.input[0], ("batch", None, "height", "width")),
        (model.graph.output[0], ("batch", None, "height", "width")),
    ):
        for dimension, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
            if name is not None:
                dimension.dim_param = name
    del model.graph.value_info[:]  # sizes inside, in the symbols' old names; every reader infers them
    for part in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]


def _import(name: str) -> Any:
    """A package of the extra `export`."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as reason:
        raise ExportError(
            f"ONNX needs the package {name} ({reason}); install autoseg[export]", code="package-missing"
        ) from None
