"""The script that times `autoseg check-data`: what it makes is a data set, and what it writes can be read."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))

import bench_check_data

from autoseg.config.data import DataConfig
from autoseg.data.check.report import check_dataset


@pytest.mark.slow
def test_figures_are_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench.json"
    arguments = ["--images", "12", "--size", "64x96", "--folder", str(tmp_path), "--json", str(file)]
    assert bench_check_data.main(arguments) == 0
    found = json.loads(file.read_text())
    assert (found["images"], found["size"]) == (12, [64, 96])
    assert 0 < found["seconds"] < 120
    assert 2**20 < found["peak_bytes"] < 2**32
    assert found["image_bytes"] > 12 * 1000
    assert found["said"].startswith("nothing would stop a run")
    assert "12 images of 96x64" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.json"]


def test_what_is_made_is_a_data_set(tmp_path: Path) -> None:
    bench_check_data.make_images(tmp_path, 18, (64, 96))
    report = check_dataset(DataConfig(root=str(tmp_path)))
    assert {split: summary.images for split, summary in report.summary.items()} == {"train": 15, "val": 3}
    assert report.stopping == 0
    assert not [problem for problem in report.problems if problem.kind in ("leak", "duplicate")]
    assert np.count_nonzero(report.summary["train"].pixels) > 10
