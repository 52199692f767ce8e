"""Exporting through the Python API."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.errors import raises_code
from helpers.tiny_runs import checkpoint
from safetensors.torch import load_file

import autoseg
from autoseg.errors import ConfigError, ExportError, GenotypeError, RunError
from autoseg.genotype.schema import Genotype


@pytest.mark.slow
def test_export_a_genotype_and_weights(retrained: Path, tmp_path: Path) -> None:
    autoseg.export_model(retrained, tmp_path / "g.json", "json")
    assert Genotype.load(tmp_path / "g.json") == Genotype.load(retrained)
    autoseg.export_model(retrained, tmp_path / "w.safetensors", "safetensors", checkpoint="last")
    weights = load_file(tmp_path / "w.safetensors")
    average = checkpoint(retrained)["state"]["average"]
    assert weights
    assert all(torch.equal(value, average[f"module.{key}"]) for key, value in weights.items())


def test_export_refuses(searched: Path, retrained: Path, tmp_path: Path) -> None:
    with raises_code(ExportError, "unknown-format", "'foo'", "onnx", "json"):
        autoseg.export_model(retrained, tmp_path / "x", "foo")
    with raises_code(RunError, "run-kind-differs", searched, "`autoseg decode`"):
        autoseg.export_model(searched, tmp_path / "x", "onnx")
    with raises_code(GenotypeError, "genotype-missing", searched, "genotype.yaml", "`autoseg decode"):
        autoseg.export_model(searched, tmp_path / "x", "json")
    with raises_code(ConfigError, "unknown-checkpoint", "best", "last", "first"):
        autoseg.export_model(retrained, tmp_path / "x", "onnx", checkpoint="first")
    assert not (tmp_path / "x").exists()
