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
from helpers.errors import raises_code
from helpers.exported import CLASSES, GENOTYPES, METADATA, make_network
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.errors import ExportError
from autoseg.export import NETWORK_FORMATS, export_network
from autoseg.export import formats as formats_module
from autoseg.export import network as network_module

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


def assert_fails(network: nn.Module, path: Path, format: Any, code: str, *named: object, **options: Any) -> None:
    before = read_all(path.parent)
    with raises_code(ExportError, code, *named):
        export_network(network, path, format, metadata=options.pop("metadata", {}), **options)
    assert read_all(path.parent) == before


# --- what is refused before anything is done -------------------------------------------------------------------------


def test_unknown_format_lists_the_known(tmp_path: Path) -> None:
    assert_fails(Pointwise(), tmp_path / "a.h5", "h5", "unknown-format", "'h5'", "onnx, pt2, safetensors")


@pytest.mark.parametrize("format", NETWORK_FORMATS)
def test_a_file_that_exists_is_refused(format: Any, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("precious")
    assert_fails(Pointwise(), path, format, "file-exists", path)


def test_a_folder_and_a_path_in_no_folder_are_refused(tmp_path: Path) -> None:
    assert_fails(Pointwise(), tmp_path, "pt2", "file-is-folder", tmp_path, "network.pt2", overwrite=True)
    with raises_code(ExportError, "folder-missing", tmp_path / "b", "a.pt2"):
        export_network(Pointwise(), tmp_path / "b" / "a.pt2", "pt2", metadata={})


def test_as_many_class_names_as_classes(tmp_path: Path) -> None:
    network = make_network(GENOTYPE)
    metadata = {"classes": CLASSES[1:]}
    assert_fails(network, tmp_path / "a", "safetensors", "classes-differ", "4 classes", "has 5", metadata=metadata)


def test_metadata_must_be_plain_data(tmp_path: Path) -> None:
    assert_fails(Pointwise(), tmp_path / "a", "pt2", "metadata-not-json", "'x'", metadata={"x": object()})


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages_are_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    if package == "onnxruntime":
        monkeypatch.setattr(formats_module, "save_onnx", lambda *_: None)
        with raises_code(ExportError, "package-missing", package, "autoseg[export]"):
            formats_module.load_onnx(tmp_path / "a")
        return
    assert_fails(Pointwise(), tmp_path / "a", "onnx", "package-missing", package, "autoseg[export]")


def test_onnx_holds_two_gigabytes(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    with raises_code(ExportError, "network-too-large", "2 GB", "pt2 or safetensors"):
        formats_module.save_onnx(Pointwise(), tmp_path / "a", {}, most_bytes=16)
    assert read_all(tmp_path) == {}


# --- what fails on the way -------------------------------------------------------------------------------------------


def test_a_network_that_branches_on_the_size_is_refused(tmp_path: Path) -> None:
    network = Pointwise(lambda logits: logits * 2 if logits.shape[-1] > 100 else logits)
    assert_fails(network, tmp_path / "a.pt2", "pt2", "export-failed", "pt2", "nothing was written")


def test_a_network_tied_to_a_size_is_refused(tmp_path: Path) -> None:
    network = Pointwise(lambda logits: F.interpolate(logits, (40, 40)) if torch.compiler.is_exporting() else logits)
    assert_fails(network, tmp_path / "a.pt2", "pt2", "export-differs", "[1, 4, 40, 40]", "[1, 4, 32")


def test_safetensors_needs_a_genotype(tmp_path: Path) -> None:
    assert_fails(Pointwise(), tmp_path / "a.safetensors", "safetensors", "format-needs-genotype", "onnx or pt2")


@pytest.mark.parametrize(
    ("loaded", "named"),
    [
        (lambda images: images[:, :1].repeat(1, 4, 1, 1), ["pt2", "at most 0.001", "at least 99.9%"]),
        (lambda images: images[:, :, 1:], ["[1, 3, 31, 32]", "[1, 4, 32, 32]"]),
    ],
)
def test_a_file_that_computes_something_else_is_not_kept(
    loaded: Callable[[Tensor], Tensor], named: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(network: nn.Module, path: Path, metadata: Any) -> None:
        path.write_text("wrong")

    monkeypatch.setitem(network_module._FORMATS, "pt2", (save, lambda path: loaded))
    assert_fails(Pointwise(), tmp_path / "a.pt2", "pt2", "export-differs", *named)
    (tmp_path / "a.pt2").write_text("precious")
    assert_fails(Pointwise(), tmp_path / "a.pt2", "pt2", "export-differs", *named, overwrite=True)


def stand_in(monkeypatch: pytest.MonkeyPatch, run: Callable[[Tensor], Tensor]) -> None:
    """Make pt2 a format whose file of one byte computes `run`."""
    made = (lambda _, path, __: path.write_text("x"), lambda path: run)
    monkeypatch.setitem(network_module._FORMATS, "pt2", made)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize(("factor", "kept"), [(1 + 1e-5, True), (1 + 8e-4, True), (1 + 2e-3, False), (1.05, False)])
def test_the_limit_is_a_share_of_the_largest_logit(
    factor: float, kept: bool, scale: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiny or huge, and though every label is the same."""
    network = Pointwise(lambda logits: logits * scale)
    stand_in(monkeypatch, lambda images: network(images) * factor)
    if not kept:
        share = f"{factor - 1:.1e} of the largest (at most 0.001)"
        assert_fails(network, tmp_path / "a.pt2", "pt2", "export-differs", share, "100.000% of labels")
        return
    report = export_network(network, tmp_path / "a.pt2", "pt2", metadata={})
    assert report.largest_difference == pytest.approx(factor - 1, rel=0.05)
    assert report.equal_labels == 1
    assert report.bytes == 1


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1.0, 1.01])
@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_a_wrong_graph_of_tiny_or_huge_logits_is_found(scale: float, factor: float, tmp_path: Path) -> None:
    """And a right one is not refused."""
    network = Pointwise(lambda logits: logits * scale * (factor if torch.compiler.is_exporting() else 1.0))
    if factor == 1:
        assert export_network(network, tmp_path / "a.pt2", "pt2", metadata={}).largest_difference < 1e-6
    else:
        assert_fails(network, tmp_path / "a.pt2", "pt2", "export-differs", "1.0e-02 of the largest")


def test_logits_that_are_all_zero_can_be_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Pointwise(lambda logits: logits * 0)
    stand_in(monkeypatch, network)
    assert export_network(network, tmp_path / "a.pt2", "pt2", metadata={}).largest_difference == 0
    stand_in(monkeypatch, lambda images: network(images) + torch.tensor([1e-6, 0, 0, 0]).view(1, 4, 1, 1))
    assert_fails(network, tmp_path / "b.pt2", "pt2", "export-differs", "100.000% of labels")


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_file_whose_logits_are_not_finite_differs(
    wrong: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Pointwise()
    with torch.no_grad():
        network.conv.bias[0] = 100  # the class that argmax finds where all are NaN
    stand_in(monkeypatch, lambda images: network(images) * wrong)
    assert_fails(network, tmp_path / "a.pt2", "pt2", "export-differs", f"{wrong} of the largest", "100.000% of labels")


@pytest.mark.parametrize("size", network_module.CHECKED_SIZES)
def test_a_file_that_is_wrong_at_one_size_alone_is_found(
    size: tuple[int, int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Pointwise()
    stand_in(monkeypatch, lambda images: network(images) * (1.01 if images[:, 0].shape == size else 1))
    assert_fails(network, tmp_path / "a.pt2", "pt2", "export-differs", "1.0e-02 of the largest")


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_has_diverged_is_refused(value: float, tmp_path: Path) -> None:
    network = make_network(GENOTYPE)
    with torch.no_grad():
        network.decoder.classifier.bias[0] = value
    assert_fails(network, tmp_path / "a", "safetensors", "logits-not-finite")


# --- what is left as it was ------------------------------------------------------------------------------------------


@pytest.mark.slow
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
