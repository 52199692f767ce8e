"""Runs that a test may change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def search_run(searched: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(searched, tmp_path / "search"))


@pytest.fixture
def retrain_run(retrained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(retrained, tmp_path / "retrain"))
