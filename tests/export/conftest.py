"""Two tiny networks, with statistics from a few training batches, each exported once to every kind of graph."""

from __future__ import annotations

import pytest
from helpers.exported import GENOTYPES, exported, make_network

from autoseg.export import ExportReport
from autoseg.network import Network


@pytest.fixture(scope="session", params=list(GENOTYPES))
def network(request: pytest.FixtureRequest) -> Network:
    return make_network(GENOTYPES[request.param])


@pytest.fixture(scope="session")
def onnx_file(network: Network, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    return exported(network, tmp_path_factory.mktemp("onnx") / "net.onnx", "onnx")


@pytest.fixture(scope="session")
def pt2_file(network: Network, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return exported(network, tmp_path_factory.mktemp("pt2") / "net.pt2", "pt2")
