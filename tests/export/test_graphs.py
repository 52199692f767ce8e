"""ONNX and pt2 files compute what the network does at sizes and batches that were not traced."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.exported import CLASSES, METADATA

import autoseg
from autoseg.export import ExportReport
from autoseg.export.common import input_metadata
from autoseg.export.network import CHECKED_SIZES
from autoseg.network import Network

SIZES = [(1, 32, 32), (3, 33, 47), (1, 64, 64), (2, 65, 129), (1, 120, 160), (17, 40, 32), (1, 32, 515), (1, 232, 312)]


def reference(network: Network, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = copy.deepcopy(network).eval()(images)
    return logits


def random_images(size: tuple[int, int, int]) -> torch.Tensor:
    images, height, width = size
    return torch.randn(images, 3, height, width, generator=torch.Generator().manual_seed(1))


def assert_close(logits: torch.Tensor, expected: torch.Tensor) -> None:
    assert logits.shape == expected.shape
    assert (logits - expected).abs().max() <= 5e-5 * expected.abs().max()
    assert (logits.argmax(1) == expected.argmax(1)).double().mean() > 0.9999


def check_report(report: ExportReport, format: str) -> None:
    assert report.path.is_file()
    assert (report.format, report.bytes) == (format, report.path.stat().st_size)
    assert report.sizes == CHECKED_SIZES
    assert len({height for _, height, _ in report.sizes}) >= 3
    assert 0 <= report.largest_difference < 1e-4
    assert 0.999 <= report.equal_labels <= 1
    assert str(report).startswith(f"{report.path}: {format}, ")
    assert "\n" not in str(report)


# --- ONNX ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_onnx_equals_the_network_at_every_size(network: Network, onnx_file: ExportReport) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx_file.path), providers=["CPUExecutionProvider"])
    for size in SIZES:
        images = random_images(size)
        (logits,) = session.run(None, {"image": images.numpy()})
        assert logits.dtype == np.float32
        assert_close(torch.from_numpy(logits), reference(network, images))


@pytest.mark.slow
def test_onnx_report_is_what_the_file_does(network: Network, onnx_file: ExportReport) -> None:
    import onnxruntime

    check_report(onnx_file, "onnx")
    session = onnxruntime.InferenceSession(str(onnx_file.path), providers=["CPUExecutionProvider"])
    generator, largest, equal = torch.Generator().manual_seed(0), 0.0, []
    for images, height, width in CHECKED_SIZES:
        batch = torch.randn(images, 3, height, width, generator=generator)
        logits, expected = torch.from_numpy(session.run(None, {"image": batch.numpy()})[0]), reference(network, batch)
        largest = max(largest, float((logits - expected).abs().max() / expected.abs().max()))
        equal += (logits.argmax(1) == expected.argmax(1)).flatten().tolist()
    assert onnx_file.largest_difference == pytest.approx(largest, rel=0.5)  # other threads may sum in another order
    assert onnx_file.equal_labels == pytest.approx(np.mean(equal), abs=1e-3)


def test_onnx_names_sizes_and_metadata(network: Network, onnx_file: ExportReport) -> None:
    import onnx

    model = onnx.load(str(onnx_file.path), load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"image": ["batch", 3, "height", "width"], "logits": ["batch", len(CLASSES), "height", "width"]}
    strings = {prop.key: prop.value for prop in model.metadata_props}
    assert strings["input"] == input_metadata(3, "uint8")["input"]
    assert strings["autoseg_version"] == autoseg.__version__
    assert json.loads(strings["genotype"]) == network.genotype.to_dict()
    assert json.loads(strings["classes"]) == list(CLASSES)
    assert (json.loads(strings["mean"]), json.loads(strings["std"])) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert (strings["ignore_label"], strings["num_classes"]) == ("255", "5")
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)


@pytest.mark.slow
def test_graphs_hold_no_paths_of_this_machine(onnx_file: ExportReport, pt2_file: ExportReport) -> None:
    folder = str(Path(autoseg.__file__).parent).encode()
    assert folder not in onnx_file.path.read_bytes()
    assert folder not in pt2_file.path.read_bytes()


# --- pt2 -------------------------------------------------------------------------------------------------------------

Loaded = tuple[torch.nn.Module, dict[str, str]]


@pytest.fixture(scope="session")
def loaded(pt2_file: ExportReport) -> Loaded:
    """The network of a file, and what else it holds."""
    files = {"metadata.json": ""}
    return torch.export.load(pt2_file.path, extra_files=files).module(), files


@pytest.mark.slow
def test_pt2_equals_the_network_at_every_size(network: Network, pt2_file: ExportReport, loaded: Loaded) -> None:
    check_report(pt2_file, "pt2")
    module, files = loaded
    for size in SIZES:
        images = random_images(size)
        with torch.no_grad():
            assert_close(module(images), reference(network, images))
    metadata = json.loads(files["metadata.json"])
    assert metadata["genotype"] == network.genotype.to_dict()
    assert {key: metadata[key] for key in METADATA} == json.loads(json.dumps(METADATA))


@pytest.mark.slow
def test_pt2_refuses_an_image_that_is_too_small(loaded: Loaded) -> None:
    with pytest.raises((AssertionError, RuntimeError), match="32"):
        loaded[0](torch.zeros(1, 3, 31, 64))
