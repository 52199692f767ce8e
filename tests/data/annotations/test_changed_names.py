"""Annotations whose class names change after a run has begun are not read with the labels of before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autoseg.config.data import DataConfig, ResolvedDataConfig
from autoseg.data.dataset import open_dataset, resolve
from autoseg.errors import DataError

from . import writers


def begun(root: Path) -> ResolvedDataConfig:
    """A data set of two images in COCO's form, as a run stores it."""
    write(root, lambda content: None)
    return resolve(DataConfig(root=str(root)))


def write(root: Path, change: Callable[[dict], object]) -> None:
    content = writers.coco_content()
    content["images"].append({**content["images"][0], "id": 99, "file_name": "b.png"})
    content["annotations"] += [{**one, "id": 100 + one["id"], "image_id": 99} for one in content["annotations"]]
    change(content)
    writers.coco(root, content)
    writers.image(root / "images" / "b.png")


def add(content: dict, name: str) -> None:
    content["categories"].append({"id": 1, "name": name})
    region = {"id": 50, "image_id": 7, "category_id": 1, "iscrowd": 0, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]}
    content["annotations"].append(region)


def remove(content: dict, name: str) -> None:
    number = next(one["id"] for one in content["categories"] if one["name"] == name)
    content["annotations"] = [one for one in content["annotations"] if one["category_id"] != number]


def swap(content: dict) -> None:
    cat, dog = content["categories"]
    cat["name"], dog["name"] = dog["name"], cat["name"]


def test_the_same_names_are_read(tmp_path: Path) -> None:
    config = begun(tmp_path / "data")
    before = open_dataset(config, "train").load(0).mask
    write(tmp_path / "data", lambda content: content.update(info={"year": 2024}))
    assert np.array_equal(open_dataset(config, "train").load(0).mask, before)
    assert len(np.unique(before)) == 3


@pytest.mark.parametrize("name", ["bird", "cow", "zebra", "void"])
def test_a_new_name_stops_the_run(name: str, tmp_path: Path) -> None:
    config = begun(tmp_path / "data")
    write(tmp_path / "data", lambda content: add(content, name))
    with pytest.raises(DataError, match="the class names of the annotations in") as error:
        open_dataset(config, "train")
    assert error.value.code == "names-changed"


def test_a_name_that_goes_stops_the_run_if_it_shifts_others(tmp_path: Path) -> None:
    config = begun(tmp_path / "data")
    write(tmp_path / "data", lambda content: remove(content, "cat"))
    with pytest.raises(DataError, match="first 'dog'"):
        open_dataset(config, "train")
    write(tmp_path / "data", lambda content: remove(content, "dog"))
    assert np.unique(open_dataset(config, "train").load(0).mask).tolist() == [0, 1]


def test_names_that_change_places_stop_the_run(tmp_path: Path) -> None:
    config = begun(tmp_path / "data")
    write(tmp_path / "data", swap)
    with pytest.raises(DataError, match="no longer fit"):
        open_dataset(config, "train")


def rename(content: dict, old: str, new: str) -> None:
    next(one for one in content["categories"] if one["name"] == old)["name"] = new


@pytest.mark.parametrize(("old", "new"), [("cat", "cow"), ("dog", "zebra")])
def test_a_class_that_was_merged_and_gets_another_name_stops_the_run(old: str, new: str, tmp_path: Path) -> None:
    write(tmp_path / "data", lambda content: None)
    merged = {"classes": ("background", "animal"), "label_map": {0: 0, 1: 1, 2: 1}}
    config = resolve(DataConfig(root=str(tmp_path / "data"), **merged))
    assert config.label_names == ("cat", "dog")
    assert np.unique(open_dataset(config, "train").load(0).mask).tolist() == [0, 1]
    write(tmp_path / "data", lambda content: rename(content, old, new))
    with pytest.raises(DataError, match=f"first '{new}'") as error:
        open_dataset(config, "train")
    assert error.value.code == "names-changed"
    given = DataConfig(root=str(tmp_path / "data"), label_names=("cat", "dog"), **merged)
    with pytest.raises(DataError, match=f"first '{new}'"):
        resolve(given)
    before = config.model_copy(update={"label_names": None})  # of an earlier version
    assert len(open_dataset(before, "train")) > 0
