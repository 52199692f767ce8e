"""safetensors: the network comes back bit by bit, and what is no such file is refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from helpers.errors import raises_code
from helpers.exported import CLASSES, GENOTYPES, METADATA, make_network
from safetensors.torch import load_file, save_file

from autoseg.errors import CheckpointError
from autoseg.export import export_network, load_safetensors
from autoseg.genotype.schema import Genotype
from autoseg.network import Network

GENOTYPE = GENOTYPES["down and up"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    export_network(make_network(GENOTYPE), path, "safetensors", metadata=METADATA)
    return path


def assert_refused(path: Path, code: str, *named: str) -> None:
    with raises_code(CheckpointError, code, path, *named):
        load_safetensors(path)


@pytest.mark.slow
def test_round_trip_is_bit_equal(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    report = export_network(network, path, "safetensors", metadata=METADATA)
    assert (report.largest_difference, report.equal_labels, report.bytes) == (0, 1, path.stat().st_size)
    assert list(tmp_path.iterdir()) == [path]
    loaded, metadata = load_safetensors(path)
    assert not loaded.training
    assert network.training
    assert Genotype.parse(metadata["genotype"]) == loaded.genotype == network.genotype
    own, other = network.state_dict(), loaded.state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(own[name], other[name]) and own[name].dtype == other[name].dtype for name in own)
    assert tuple(metadata["classes"]) == CLASSES
    assert (metadata["num_classes"], metadata["ignore_label"], metadata["note"]) == (5, 255, "1.0")
    assert (metadata["mean"], metadata["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.mark.slow
def test_auxiliary_head_and_memory_layout(tmp_path: Path) -> None:
    network = make_network(GENOTYPE, auxiliary=True)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    export_network(network, tmp_path / "a", "safetensors", metadata={"classes": [], "resize": None})
    loaded, metadata = load_safetensors(tmp_path / "a")
    assert set(metadata) == {
        "genotype", "num_classes", "in_channels", "single_output", "autoseg_version", "input", "channels",
        "channel_order", "pixel_type", "divisor",
    }  # fmt: skip
    assert loaded.auxiliary is not None
    own = network.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in loaded.state_dict().items())


@pytest.mark.slow
def test_the_file_is_readable_as_others_are(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    assert os.stat(weights).st_mode == os.stat(tmp_path / "plain").st_mode


@pytest.mark.parametrize("length", [0, 4, 200, 20_000])
def test_truncated(length: int, weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(weights.read_bytes()[:length])
    assert_refused(path, "weights-damaged", "as safetensors")


def test_missing_and_foreign(weights: Path, tmp_path: Path) -> None:
    assert_refused(tmp_path / "none", "file-missing")
    text = tmp_path / "text"
    text.write_text("version: 1\nname: a genotype, not weights\n" * 20)
    assert_refused(text, "weights-damaged", "as safetensors")
    foreign = tmp_path / "foreign"
    save_file({"weight": torch.zeros(3)}, foreign, metadata={"format": "pt"})
    assert_refused(foreign, "weights-without-genotype", "genotype", "autoseg export")
    save_file({"weight": torch.zeros(3)}, foreign, metadata={"genotype": '{"version": 1}', "num_classes": "5"})
    assert_refused(foreign, "setting-missing", "name is missing")


def test_weights_that_do_not_fit(weights: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    with safe_open(weights, framework="pt") as file:
        metadata = file.metadata()
    state, path = load_file(weights), tmp_path / "a"
    save_file({**state, "extra": torch.zeros(1)}, path, metadata=metadata)
    assert_refused(path, "weights-do-not-fit", "1 weights", "extra")
    save_file({**state, "stem.convs.0.weight": torch.zeros(1)}, path, metadata=metadata)
    assert_refused(path, "weights-do-not-fit", "stem.convs.0.weight")
    save_file(state, path, metadata={**metadata, "num_classes": "6"})
    assert_refused(path, "weights-do-not-fit", "2 weights", "decoder.classifier")
