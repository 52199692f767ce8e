"""Other data under a trained network's classes: matched by name, by number where there are no names, or refused."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers.errors import raises_code
from PIL import Image

from autoseg.config.data import DataConfig, ResolvedDataConfig
from autoseg.data.dataset import open_dataset, resolve
from autoseg.errors import ConfigError, DataError
from autoseg.setup.other_data import as_trained, data_for_run

SIZE = (32, 40)


def write(root: Path, labels: Sequence[int], names: Sequence[str] = (), file: str = "classes.txt") -> Path:
    """Six images, each with all `labels` in columns, and a file of names."""
    for number in range(6):
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(image).save(root / "images" / f"{number}.png")
        Image.fromarray(columns(labels).astype(np.uint8)).save(root / "masks" / f"{number}.png")
    if names:
        (root / file).write_text("\n".join(names) + "\n")
    return root


def columns(labels: Sequence[int]) -> np.ndarray:
    return np.array(labels)[np.arange(SIZE[1]) * len(labels) // SIZE[1]][None].repeat(SIZE[0], 0)


def read(root: Path) -> ResolvedDataConfig:
    return resolve(DataConfig(root=str(root)))


def mask_of(data: ResolvedDataConfig) -> np.ndarray:
    mask = open_dataset(data, "val").load(0).mask.astype(int)
    return np.where(mask == data.ignore_label, -1, mask)


@pytest.fixture
def own(tmp_path: Path) -> ResolvedDataConfig:
    return read(write(tmp_path / "own", [0, 1, 2], ["sky", "road", "tree top"]))


def test_the_same_names_in_another_order(own: ResolvedDataConfig, tmp_path: Path) -> None:
    other = data_for_run(own, write(tmp_path / "other", [0, 1, 2], ["Tree-Top", "sky", "road"]))
    assert other.classes == own.classes
    assert np.array_equal(mask_of(other), columns([2, 0, 1]))
    assert (other.mean, other.std, other.resize) == (own.mean, own.std, own.resize)


def test_some_of_the_classes_and_ignored_ones(own: ResolvedDataConfig, tmp_path: Path) -> None:
    other = data_for_run(own, write(tmp_path / "other", [0, 1, 2], ["void", "road", "sky"]))
    assert (other.classes, other.num_classes) == (own.classes, 3)
    assert np.array_equal(mask_of(other), columns([-1, 1, 0]))


def test_another_ignore_label(own: ResolvedDataConfig, tmp_path: Path) -> None:
    folder = write(tmp_path / "other", [0, 1, 7], ["road", "sky"])
    (folder / "data.yaml").write_text("root: .\nignore_label: 7\n")
    assert np.array_equal(mask_of(data_for_run(own, folder / "data.yaml")), columns([1, 0, -1]))


@pytest.mark.parametrize("stray", [2, 255])
def test_labels_that_the_other_set_lacks_are_no_classes_of_the_network(
    own: ResolvedDataConfig, tmp_path: Path, stray: int
) -> None:
    folder = write(tmp_path / "other", [0, 1, stray])
    (folder / "data.yaml").write_text("root: .\nclasses: [road, sky]\nignore_label: 9\n")
    other = data_for_run(own, folder / "data.yaml")
    with raises_code(DataError, "label-out-of-range", f"label {stray} in", "its data set has no such class", ".png"):
        mask_of(other)


def test_names_that_the_network_does_not_know(own: ResolvedDataConfig, tmp_path: Path) -> None:
    with raises_code(ConfigError, "classes-differ", "'bus'", "'cat'", "sky, road, tree top", "data.label_map"):
        data_for_run(own, write(tmp_path / "other", [0, 1, 2], ["bus", "sky", "cat"]))


def test_labels_without_names_count_as_they_are_and_it_is_said(
    own: ResolvedDataConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="autoseg")
    other = data_for_run(own, write(tmp_path / "other", [0, 2]))
    assert np.array_equal(mask_of(other), columns([0, 2]))
    assert other.classes == own.classes
    assert any("have no names: labels count as they are" in line for line in caplog.messages)


def test_a_network_without_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="autoseg")
    own = read(write(tmp_path / "own", [0, 1, 2]))
    other = data_for_run(own, write(tmp_path / "other", [0, 1, 2], ["a", "b", "c"]))
    assert np.array_equal(mask_of(other), columns([0, 1, 2]))
    assert any("the network's classes have no names" in line for line in caplog.messages)


def test_colours_are_matched_by_their_names(own: ResolvedDataConfig, tmp_path: Path) -> None:
    folder = write(tmp_path / "other", [0, 1])
    palette = np.array([(200, 0, 0), (0, 200, 0)], dtype=np.uint8)
    for file in (folder / "masks").iterdir():
        Image.fromarray(palette[np.asarray(Image.open(file))]).save(file)
    (folder / "class_dict.csv").write_text("name,r,g,b\nroad,200,0,0\nsky,0,200,0\n")
    assert np.array_equal(mask_of(data_for_run(own, folder)), columns([1, 0]))


def test_a_match_of_a_set_with_itself_changes_nothing(own: ResolvedDataConfig) -> None:
    assert as_trained(own, own) == own
    assert data_for_run(own, None) == own
