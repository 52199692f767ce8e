"""The measuring of inference and training: every variant is there, and computes what the plain network does."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from helpers.tiny_runs import GENOTYPE, write_config

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location("bench_inference", SCRIPTS / "bench_inference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_inference", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_every_variant_is_measured(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    genotype = write_config(tmp_path / "g.yaml", GENOTYPE)
    arguments = ["--size", "33x47", "--size", "64x64", "--batch", "2", "--crop", "32x48", "--warmup", "1"]
    assert script.main(["--genotype", str(genotype), *arguments, "--rounds", "2", "--json", str(tmp_path / "b")]) == 0
    figures = json.loads((tmp_path / "b").read_text())
    assert set(figures["machine"]) >= {"device", "torch", "threads"}
    variants = {"plain", "channels_last", "folded", "folded_channels_last", "folded_channels_last_bf16"}
    for size in ([33, 47], [64, 64]):
        rows = {row["variant"]: row for row in figures["inference"] if row["size"] == size}
        assert set(rows) == variants
        for name, row in rows.items():
            assert row["images_per_s"] > 0
            assert row["difference"] <= (0.1 if name.endswith("bf16") else 1e-5)
        assert rows["plain"]["difference"] == 0
        assert rows["folded_channels_last_bf16"]["difference"] > 1e-4
    assert {row["variant"] for row in figures["training"]} == {"plain", "channels_last", "channels_last_bf16"}
    assert all(row["step_s"] > 0 for row in figures["training"])
    assert "images/s" in capsys.readouterr().out


def test_what_cannot_be_measured(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--genotype", "nope"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.endswith(" [unknown-genotype]\n")
    assert "genotype 'nope'" in error
    for wrong in (["--size", "8x8"], ["--train-batch", "1"], ["--rounds", "0"]):
        with pytest.raises(SystemExit) as stopped:
            script.main(wrong)
        assert stopped.value.code == 2
