"""A network of stages as files for other programs, at sizes that were not traced: pooling meets odd sides too."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from helpers.wide_spaces import STAGES, of_stages

from autoseg.export import export_network, load_safetensors
from autoseg.genotype.schema import Genotype
from autoseg.network import Network, build_searched

SMALL = {
    "network": {"strides": [4, 4], "filter_multiplier": 4},
    "stages": [{**STAGES[2], "stride": 2}, {**STAGES[1], "depth": 1}],
    "decoder": {"name": "classifier"},
}
SIZES = [(33, 47), (50, 65), (64, 64)]


@pytest.fixture(scope="module")
def network() -> Network:
    """Pooling and convolutions; statistics are as a training might leave them."""
    torch.manual_seed(0)
    genotype = Genotype.parse({**of_stages("path").to_dict(), **SMALL})
    built = build_searched(genotype, 5).train()
    with torch.no_grad():
        built(torch.randn(2, 3, 64, 64))
    return built.eval()


def expected(network: Network, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return copy.deepcopy(network).eval()(images)


@pytest.mark.slow
def test_onnx(network: Network, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    report = export_network(network, tmp_path / "a.onnx", "onnx", metadata={})
    session = onnxruntime.InferenceSession(str(report.path), providers=["CPUExecutionProvider"])
    for size in SIZES:
        images = torch.randn(2, 3, *size)
        (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), expected(network, images), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_safetensors_and_back(network: Network, tmp_path: Path) -> None:
    export_network(network, tmp_path / "a.safetensors", "safetensors", metadata={})
    loaded, metadata = load_safetensors(tmp_path / "a.safetensors")
    assert isinstance(loaded, Network)
    assert loaded.genotype == network.genotype
    assert "cell" not in metadata["genotype"]
    images = torch.randn(1, 3, 33, 47)
    assert torch.equal(expected(loaded, images), expected(network, images))
