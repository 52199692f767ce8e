"""Evaluating through the Python API."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.errors import raises_code

import autoseg
from autoseg.errors import ConfigError, RunError


@pytest.mark.slow
def test_evaluate_writes_into_the_run_and_over_no_other_file(retrain_run: Path, tmp_path: Path) -> None:
    result = autoseg.evaluate(retrain_run, split="test", show_progress=False)
    written = json.loads((retrain_run / "evaluation_test.json").read_text())
    assert written == result
    assert (written["images"], written["split"], len(written["confusion"])) == (3, "test", 7)
    autoseg.evaluate(retrain_run, split="test", show_progress=False)  # anew
    (tmp_path / "notes.txt").write_text("mine")
    for out, code, named in (("notes.txt", "file-exists", "notes.txt"), ("no/e.json", "folder-missing", "no")):
        with raises_code(RunError, code, tmp_path / named):
            autoseg.evaluate(retrain_run, out=tmp_path / out, show_progress=False)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_evaluate_draws_the_confusion_matrix_where_asked(retrain_run: Path, tmp_path: Path) -> None:
    autoseg.evaluate(retrain_run, split="test", show_progress=False)
    assert not list(retrain_run.rglob("confusion*"))
    autoseg.evaluate(retrain_run, split="test", plot=True, show_progress=False)
    drawn = sorted(path.name for path in (retrain_run / "figures").glob("confusion*"))
    assert drawn == ["confusion_test.pdf", "confusion_test.png", "confusion_test.svg"]
    assert "triangle" in (retrain_run / "figures" / "confusion_test.svg").read_text()
    (tmp_path / "e_confusion.svg").write_text("mine")
    with raises_code(RunError, "file-exists", tmp_path / "e_confusion.svg"):
        autoseg.evaluate(retrain_run, out=tmp_path / "e.json", plot=True, show_progress=False)
    assert (tmp_path / "e_confusion.svg").read_text() == "mine"
    assert not (tmp_path / "e.json").exists()
    (tmp_path / "e_confusion.svg").unlink()
    autoseg.evaluate(retrain_run, split="test", out=tmp_path / "e.json", plot=True, show_progress=False)
    assert (tmp_path / "e_confusion.svg").read_bytes() == (retrain_run / "figures/confusion_test.svg").read_bytes()


def test_evaluate_refuses_a_batch_of_nothing(retrain_run: Path) -> None:
    with raises_code(ConfigError, "batch-too-small", "batch_size", "0", "1"):
        autoseg.evaluate(retrain_run, batch_size=0, show_progress=False)
