"""What `--data` means, and the settings of a data set."""

from pathlib import Path

import pytest
from helpers.errors import raises_code

from autoseg.config.base import parse
from autoseg.config.data import DataConfig, data_settings
from autoseg.errors import DataError


def test_label_map_takes_keys_as_assignments_and_json_write_them() -> None:
    assert parse(DataConfig, {"root": "x", "label_map": {"7": 0, 8: 255}}).label_map == {7: 0, 8: 255}


def test_data_generated_and_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_settings("generated") == {"layout": "generated"}
    assert parse(DataConfig, data_settings("generated")).generated.size == (96, 96)
    (tmp_path / "set").mkdir()
    monkeypatch.chdir(tmp_path)
    assert data_settings("set") == {"layout": "auto", "root": str(tmp_path / "set")}  # absolute, for runs/a/config.yaml
    assert parse(DataConfig, data_settings(tmp_path / "set")).root == str(tmp_path / "set")


def test_data_yaml_counts_a_relative_root_from_its_own_folder(tmp_path: Path) -> None:
    path = tmp_path / "sets" / "mine.yaml"
    path.parent.mkdir()
    path.write_text("root: ../images\nnum_classes: 3\n")
    assert data_settings(path) == {"root": str(tmp_path / "images"), "num_classes": 3}
    path.write_text("root: /somewhere/else\n")
    assert data_settings(path) == {"root": "/somewhere/else"}


def test_data_that_is_not_there(tmp_path: Path) -> None:
    with raises_code(DataError, "folder-missing", tmp_path / "none", "--data"):
        data_settings(tmp_path / "none")
    with raises_code(DataError, "file-missing", tmp_path / "none.yaml"):
        data_settings(tmp_path / "none.yaml")
    (tmp_path / "a.png").write_bytes(b"")
    with raises_code(DataError, "folder-missing", tmp_path / "a.png"):
        data_settings(tmp_path / "a.png")
