"""What `export_network` promises for every format: one line when it fails, no file left, the network untouched."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.errors import ExportError
from autoseg.export import NETWORK_FORMATS, export_network
from autoseg.export import graph as graph_module
from autoseg.export import network as network_module
from export.conftest import CLASSES, GENOTYPES, METADATA, make_network

GENOTYPE = GENOTYPES["down and up"]


class Pointwise(nn.Module):
    """Stands for any network that is no genotype's; exports in an instant."""

    def __init__(self, then: Callable[[Tensor], Tensor] = lambda logits: logits) -> None:
        super().__init__()
        self.conv, self.then = nn.Conv2d(3, 4, 1), then

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.then(self.conv(images))
        return logits


def read_all(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def assert_fails(network: nn.Module, path: Path, format: Any, match: str, **options: Any) -> None:
    before = read_all(path.parent)
    with pytest.raises(ExportError, match=match) as caught:
        export_network(network, path, format, metadata=options.pop("metadata", {}), **options)
    assert "\n" not in str(caught.value)
    assert read_all(path.parent) == before


# --- what is refused before anything is done -------------------------------------------------------------------------


def test_unknown_format_lists_the_known(tmp_path: Path) -> None:
    assert_fails(Pointwise(), tmp_path / "a.h5", "h5", r"unknown format 'h5' for a network \(known: onnx, pt2, safet")


@pytest.mark.parametrize("format", NETWORK_FORMATS)
def test_a_file_that_exists_is_refused(format: Any, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("precious")
    assert_fails(Pointwise(), path, format, f"{path} exists; give another path")


def test_a_folder_and_a_path_in_no_folder_are_refused(tmp_path: Path) -> None:
    assert_fails(Pointwise(), tmp_path, "pt2", f"{tmp_path} is a folder", overwrite=True)
    with pytest.raises(ExportError, match=f"{tmp_path / 'b'}, the folder of a.pt2, does not exist; create it"):
        export_network(Pointwise(), tmp_path / "b" / "a.pt2", "pt2", metadata={})


def test_as_many_class_names_as_classes(tmp_path: Path) -> None:
    network = make_network(GENOTYPE)
    metadata = {"classes": CLASSES[1:]}
    assert_fails(network, tmp_path / "a", "safetensors", "names 4 classes, but the network has 5", metadata=metadata)


def test_metadata_must_be_plain_data(tmp_path: Path) -> None:
    assert_fails(Pointwise(), tmp_path / "a", "pt2", "metadata 'x' cannot be written as JSON", metadata={"x": object()})


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages_are_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    if package == "onnxruntime":
        monkeypatch.setattr(graph_module, "save_onnx", lambda *_: None)
        with pytest.raises(ExportError, match=r"needs the package onnxruntime .*; install autoseg\[export\]"):
            graph_module.load_onnx(tmp_path / "a")
        return
    assert_fails(Pointwise(), tmp_path / "a", "onnx", rf"needs the package {package} .*; install autoseg\[export\]")


def test_onnx_holds_two_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(graph_module, "ONNX_BYTES", 16)
    assert_fails(Pointwise(), tmp_path / "a", "onnx", "one ONNX file holds at most 2 GB; use pt2 or safetensors")


# --- what fails on the way -------------------------------------------------------------------------------------------


def test_a_network_that_branches_on_the_size_is_refused(tmp_path: Path) -> None:
    network = Pointwise(lambda logits: logits * 2 if logits.shape[-1] > 100 else logits)
    assert_fails(network, tmp_path / "a.pt2", "pt2", "the network cannot be exported as pt2 .*; nothing was written;")


def test_a_network_tied_to_a_size_is_refused(tmp_path: Path) -> None:
    network = Pointwise(lambda logits: F.interpolate(logits, (40, 40)) if torch.compiler.is_exporting() else logits)
    assert_fails(
        network, tmp_path / "a.pt2", "pt2", r"makes logits \[1, 4, 40, 40\] where the network makes \[1, 4, 32"
    )


def test_safetensors_needs_a_genotype(tmp_path: Path) -> None:
    match = "holds weights and the genotype .* use onnx or pt2"
    assert_fails(Pointwise(), tmp_path / "a.safetensors", "safetensors", match)


@pytest.mark.parametrize(
    ("loaded", "match"),
    [
        (lambda images: images[:, :1].repeat(1, 4, 1, 1), "does not compute what the network does"),
        (lambda images: images[:, :, 1:], r"makes logits \[1, 3, 31, 32\] where the network makes \[1, 4, 32, 32\]"),
    ],
)
def test_a_file_that_computes_something_else_is_not_kept(
    loaded: Callable[[Tensor], Tensor], match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(network: nn.Module, path: Path, metadata: Any) -> None:
        path.write_text("wrong")

    monkeypatch.setitem(network_module._FORMATS, "pt2", (save, lambda path: loaded))
    assert_fails(Pointwise(), tmp_path / "a.pt2", "pt2", match)
    (tmp_path / "a.pt2").write_text("precious")
    assert_fails(Pointwise(), tmp_path / "a.pt2", "pt2", match, overwrite=True)


@pytest.mark.parametrize(("shift", "kept"), [(0.005, True), (0.02, False)])
def test_the_limit_of_the_difference(shift: float, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Pointwise()
    monkeypatch.setitem(
        network_module._FORMATS,
        "pt2",
        (lambda _, path, __: path.write_text("x"), lambda path: lambda images: network(images) + shift),
    )
    if not kept:
        assert_fails(network, tmp_path / "a.pt2", "pt2", r"2.0e-02 \(at most 0.01\)")
        return
    report = export_network(network, tmp_path / "a.pt2", "pt2", metadata={})
    assert report.largest_difference == pytest.approx(shift, rel=1e-3)
    assert report.equal_labels == 1
    assert report.bytes == 1


def test_a_network_that_has_diverged_is_refused(tmp_path: Path) -> None:
    network = make_network(GENOTYPE)
    with torch.no_grad():
        network.decoder.classifier.bias[0] = float("nan")
    assert_fails(network, tmp_path / "a", "safetensors", "not all finite numbers")


# --- what is left as it was ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_any_module_is_exported_in_silence(format: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if format == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    network = Pointwise()
    capfd.readouterr()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = export_network(network, tmp_path / "a", format, metadata=METADATA)
    assert capfd.readouterr() == ("", "")
    assert report.largest_difference < 1e-5
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert logging.root.manager.disable == 0


def test_overwriting_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    path.write_text("old")
    report = export_network(Pointwise(), path, "pt2", metadata={}, overwrite=True)
    assert path.stat().st_size == report.bytes > 3
    assert list(tmp_path.iterdir()) == [path]
