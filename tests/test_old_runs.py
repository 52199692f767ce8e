"""Run directories of version 0.1.0, as that version left them, are read as they were meant.

Both are of the space in `runs_of_0_1/search/config.yaml`, the smallest that has every kind of operation.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autoseg
from autoseg.files import read_yaml
from autoseg.genotype.schema import Genotype
from autoseg.space.schema import SearchSpace

OLD = Path(__file__).parent / "runs_of_0_1"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of both."""
    return Path(shutil.copytree(OLD, tmp_path / "runs"))


def states(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint by its place in it."""
    found: dict[str, torch.Tensor] = {}

    def walk(value: Any, place: str) -> None:
        if isinstance(value, torch.Tensor):
            found[place] = value
        for key, inner in value.items() if isinstance(value, dict) else ():
            walk(inner, f"{place}.{key}")

    walk(torch.load(path, weights_only=True)["state"], "")
    return found


@pytest.mark.slow
def test_a_search_goes_on_to_what_the_old_version_found(old: Path) -> None:
    """From its first epoch's checkpoint; sums in another order, as other processors take them, differ in the last
    digits."""
    run = old / "search"
    finished = states(run / "checkpoints" / "last.pt")
    metrics = (run / "metrics.jsonl").read_text().splitlines()
    snapshot = np.load(run / "arch" / "epoch_0001.npz")
    (run / "checkpoints" / "last.pt").write_bytes((run / "checkpoints" / "best.pt").read_bytes())
    autoseg.search(out=run, resume=True, show_progress=False)
    again = states(run / "checkpoints" / "last.pt")
    assert again.keys() == finished.keys()
    for place, value in finished.items():
        torch.testing.assert_close(again[place], value, rtol=1e-4, atol=1e-5, msg=place)
    rows, old_rows = (
        [json.loads(line) for line in lines] for lines in ((run / "metrics.jsonl").read_text().splitlines(), metrics)
    )
    rows = [row for row in rows if row["kind"] != "evidence"]  # which that version did not know
    assert [row["kind"] for row in rows] == [row["kind"] for row in old_rows]
    assert all(math.isclose(a["loss"], b["loss"], rel_tol=1e-4) for a, b in zip(rows, old_rows, strict=True))
    with np.load(run / "arch" / "epoch_0001.npz") as found:
        assert set(found.files) == set(snapshot.files)
        np.testing.assert_allclose(found["alpha_logits"], snapshot["alpha_logits"], rtol=1e-4, atol=1e-6)


def test_it_decodes_to_the_same_genotype(old: Path) -> None:
    (old / "search" / "genotype.yaml").unlink()
    genotype = autoseg.decode(old / "search")
    expected = Genotype.load(OLD / "search")
    assert (genotype.cell, genotype.network, genotype.decoder, genotype.stem) == (
        expected.cell, expected.network, expected.decoder, expected.stem,
    )  # fmt: skip


def test_settings_keep_their_meaning() -> None:
    settings = read_yaml(OLD / "search" / "config.yaml", autoseg.AutosegError)
    space = SearchSpace.parse(settings["space"])
    assert space.to_dict() == settings["space"]
    genotype = read_yaml(OLD / "search" / "genotype.yaml", autoseg.AutosegError)
    assert Genotype.parse(genotype).to_dict() == genotype


def test_a_retrained_network_scores_as_it_did(old: Path) -> None:
    expected = json.loads((OLD / "retrain" / "evaluation_val.json").read_text())
    found = autoseg.evaluate(old / "retrain", show_progress=False)
    for key in ("miou", "pixel_accuracy", "mean_accuracy", "loss"):
        assert math.isclose(found[key], expected[key], rel_tol=1e-4), key


def test_a_retraining_starts_from_the_old_search(old: Path, tmp_path: Path) -> None:
    schedule = {"epochs": 1, "batch_size": 2, "crop": [33, 33], "max_steps_per_epoch": 1}
    data = {"layout": "generated", "generated": {"size": [48, 48], "train": 4, "val": 2}}
    run = autoseg.retrain(
        old / "search", data, tmp_path / "again", overrides={"retrain": schedule}, show_progress=False
    )
    assert Genotype.load(run.path).cell == Genotype.load(OLD / "search").cell
