"""From what the user gave to the settings of a run: which source wins, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.annotations import writers
from helpers.data_sets import write_folder
from helpers.errors import raises_code
from helpers.tiny_runs import DATA, GENOTYPE, RETRAIN, SEARCH, SPACE, retrain_settings, search_settings, write_config
from PIL import Image

from autoseg.config.base import first_difference, merge, parse
from autoseg.config.data import DataConfig, data_settings
from autoseg.config.training import SearchSchedule
from autoseg.data.dataset import open_dataset, resolve, verify
from autoseg.errors import ConfigError, DataError, GenotypeError, SearchSpaceError
from autoseg.genotype.schema import Genotype
from autoseg.setup.other_data import data_for_run
from autoseg.space.schema import SearchSpace

SPACE_FILE = {**SPACE, "search": {"epochs": 30, "batch_size": 6}, "retrain": {"epochs": 50}}


@pytest.fixture
def space(tmp_path: Path) -> Path:
    return write_config(tmp_path / "space.yaml", SPACE_FILE)


def folder(root: Path, labels: int = 5) -> Path:
    return write_folder(root, {"train": [(32, 32)] * 2, "val": [(32, 32)]}, labels=labels)


# --- which source wins ------------------------------------------------------------------------------------------------


def test_later_sources_win(space: Path, tmp_path: Path) -> None:
    plain = search_settings(space, DATA)
    assert (plain.search.epochs, plain.search.batch_size) == (30, 6)  # the space's
    assert plain.search.log_every == SearchSchedule().log_every  # the default
    assert plain.retrain == {"epochs": 50}
    config = write_config(tmp_path / "c.yaml", {"search": {"batch_size": 4, "log_every": 3}, "seed": 5})
    some = search_settings(space, DATA, config)
    assert (some.search.epochs, some.search.batch_size, some.search.log_every, some.seed) == (30, 4, 3, 5)
    most = search_settings(space, DATA, config, {"search": {"batch_size": 2}, "seed": 7})
    assert (most.search.epochs, most.search.batch_size, most.search.log_every, most.seed) == (30, 2, 3, 7)


def test_a_space_may_be_given_in_any_form(space: Path, tmp_path: Path) -> None:
    loaded = SearchSpace.load(space)
    config = write_config(tmp_path / "c.yaml", {"space": SPACE})
    for settings in (
        search_settings(space, DATA),
        search_settings(str(space), DATA),
        search_settings(loaded, DATA),
        search_settings(SPACE, DATA),
        search_settings(None, DATA, config),
        search_settings(None, DATA, None, {"space": str(space)}),
        search_settings("tiny", DATA, None, {"space": str(space)}),
    ):
        assert settings.space == loaded
    assert search_settings("tiny", DATA, config).space.name == "tiny"
    changed = search_settings(space, DATA, None, {"space": {"cell": {"blocks": 2}}})
    assert changed.space.cell.blocks == 2


def test_a_genotype_may_be_given_in_any_form(tmp_path: Path) -> None:
    path = write_config(tmp_path / "genotype.yaml", GENOTYPE)
    loaded = Genotype.load(path)
    config = write_config(tmp_path / "c.yaml", {"genotype": GENOTYPE})
    for settings in (
        retrain_settings(path, DATA),
        retrain_settings(tmp_path, DATA),
        retrain_settings(loaded, DATA),
        retrain_settings(GENOTYPE, DATA),
        retrain_settings(None, DATA, config),
    ):
        assert settings.architecture == loaded
    assert retrain_settings("auto_deeplab_s", DATA).architecture.name == "auto_deeplab_s"


def test_settings_are_resolved_and_give_themselves_again(tmp_path: Path) -> None:
    for settings, function in ((SEARCH, search_settings), (RETRAIN, retrain_settings)):
        first = function(None, None, write_config(tmp_path / "c.yaml", settings))  # type: ignore[operator]
        assert first.data.num_classes == len(first.data.classes) == 7
        again = function(None, None, write_config(tmp_path / "again.yaml", first.to_dict()))  # type: ignore[operator]
        assert again == first


def test_relative_paths_in_a_config_file_count_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder(tmp_path / "deep" / "set")
    for data in ({"root": "set"}, "set"):
        config = write_config(tmp_path / "deep" / "c.yaml", {"data": data})
        monkeypatch.chdir(tmp_path)
        assert search_settings(SPACE, None, config).data.root == str(root)
    assert search_settings(SPACE, None, None, {"data": {"root": os.path.relpath(root)}}).data.root == str(root)
    assert search_settings(SPACE, "deep/set").data.num_classes == 5


def test_other_data_does_not_keep_the_splits_of_the_old(tmp_path: Path) -> None:
    old = search_settings(SPACE, folder(tmp_path / "old"))
    other = tmp_path / "other"
    for split in ("train", "val"):
        for part, name in (("images", "images"), ("masks", "labels")):
            (other / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "old" / split / part).rename(other / name / split)
    config = write_config(tmp_path / "c.yaml", old.to_dict())
    new = search_settings(None, other, config)
    assert new.data.splits is not None
    assert new.data.splits["train"].masks == "labels/train"
    assert new.data.classes == old.data.classes


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "code", "named"),
    [
        ({"foo": 1}, "unknown-setting", ("'foo'", "space", "data", "search", "retrain", "seed", "device")),
        ({"serach": {}}, "unknown-setting", ("'serach'", "'search'")),
        ({"search": {"optimizer": {"lrr": 1}}}, "unknown-setting", ("'lrr'", "search.optimizer", "'lr'")),
        ({"retrain": {"epoch": 1}}, "unknown-setting", ("'epoch'", "retrain", "'epochs'")),
        ({"space": 3}, "setting-invalid", ("space", "3")),
        ({"data": 3}, "setting-invalid", ("data", "3")),
        ({"search": [1]}, "setting-invalid", ("search", "[1]")),
        ({"search": {"epochs": 2.5}}, "setting-invalid", ("search.epochs", "2.5")),
        ({"search": {"batch_size": 1}}, "setting-invalid", ("search.batch_size", "2", "1")),
        ({"search": {"arch_start_epoch": 30}}, "setting-invalid", ("arch_start_epoch is 30", "30 epochs")),
        ({"seed": -1}, "setting-invalid", ("seed", "0", "-1")),
        (
            {"device": "tpu"},
            "setting-invalid",
            ("device", "auto", "cpu", "cuda", "cuda:N", "cuda:1", "mps", "'tpu'"),
        ),
    ],
)
def test_wrong_search_settings(overrides: dict[str, Any], code: str, named: tuple[str, ...], space: Path) -> None:
    with raises_code(ConfigError, code, *named):
        search_settings(space, DATA, None, overrides)


def test_wrong_spaces(tmp_path: Path) -> None:
    with raises_code(SearchSpaceError, "setting-invalid", "cell.operations", "'sep_conv'", "'sep_conv_"):
        search_settings(SPACE, DATA, None, {"space": {"cell": {"operations": ["sep_conv"]}}})
    with raises_code(SearchSpaceError, "unknown-space", "'tinny'", "'tiny'"):
        search_settings("tinny", DATA)
    wrong = write_config(tmp_path / "wrong.yaml", merge(SPACE_FILE, {"search": {"epoch": 3}}))
    with raises_code(ConfigError, "unknown-setting", "'epoch'", "search", "'epochs'", wrong):
        search_settings(wrong, DATA)
    wrong = write_config(tmp_path / "wrong.yaml", merge(SPACE_FILE, {"cell": {"block": 3}}))
    with raises_code(SearchSpaceError, "unknown-setting", "'block'", "cell", wrong, "'blocks'"):
        search_settings(wrong, DATA)
    newer = write_config(tmp_path / "newer.yaml", {**SPACE_FILE, "version": 2, "nodes": 3})
    with raises_code(SearchSpaceError, "version-too-new", "newer.yaml", "2", "1"):
        search_settings(newer, DATA)


def test_wrong_genotypes(tmp_path: Path) -> None:
    with raises_code(GenotypeError, "unknown-network", "'auto_deeplab_x'", "'auto_deeplab_"):
        retrain_settings("auto_deeplab_x", DATA)
    newer = write_config(tmp_path / "newer.yaml", {**GENOTYPE, "version": 2, "nodes": 3})
    with raises_code(GenotypeError, "version-too-new", "newer.yaml", "2", "1"):
        retrain_settings(newer, DATA)
    with raises_code(ConfigError, "setting-invalid", "genotype", "3"):
        retrain_settings(GENOTYPE, DATA, None, {"genotype": 3})
    with raises_code(ConfigError, "network-source-invalid", "genotype", "network", "3"):
        retrain_settings(None, DATA, write_config(tmp_path / "c.yaml", {"genotype": 3}))


def test_what_is_missing() -> None:
    with raises_code(ConfigError, "space-not-given", "--space tiny"):
        search_settings(None, DATA)
    with raises_code(ConfigError, "network-not-given", "genotype", "network", "file"):
        retrain_settings(None, DATA)
    with raises_code(ConfigError, "data-not-given", "--data"):
        search_settings(SPACE)
    with raises_code(DataError, "folder-missing", "nowhere"):
        search_settings(SPACE, "nowhere")


# --- data for a trained network ---------------------------------------------------------------------------------------


def test_data_for_run(tmp_path: Path) -> None:
    own = resolve(DataConfig(root=str(folder(tmp_path / "own")), classes=tuple("abcde"), mean=(0.5, 0.5, 0.5)))
    assert data_for_run(own, None) == own
    other = data_for_run(own, folder(tmp_path / "other", labels=3))  # fewer labels occur; the classes are its own
    assert (other.root, other.classes, other.mean) == (str(tmp_path / "other"), own.classes, own.mean)
    assert data_for_run(own, None, {"data": {"resize": [64, 32]}}).resize == (64, 32)
    assert data_for_run(own, None, {"data": {"root": str(tmp_path / "other")}}).root == str(tmp_path / "other")


@pytest.mark.parametrize(
    ("data", "overrides", "code", "named"),
    [
        ({"layout": "generated", "num_classes": 7}, None, "classes-differ", ("7 classes", "5")),
        ({"layout": "generated", "classes": ["a", "b"]}, None, "classes-differ", ("2 classes", "5")),
        (None, {"search": {"epochs": 3}}, "unknown-setting", ("'search'",)),
        (None, {"data": 3}, "setting-invalid", ("data", "3")),
        (None, {"data": {"resise": [32, 32]}}, "unknown-setting", ("'resise'", "'resize'")),
    ],
)
def test_wrong_data_for_run(data: Any, overrides: Any, code: str, named: tuple[str, ...], tmp_path: Path) -> None:
    own = resolve(DataConfig(root=str(folder(tmp_path / "own")), num_classes=5))
    with raises_code(ConfigError, code, *named):
        data_for_run(own, data, overrides)


def test_other_labels_are_no_classes_of_a_run(tmp_path: Path) -> None:
    """A run of 0, 1, 2 does not read 0, 1, 3 as its classes."""
    own = resolve(parse(DataConfig, data_settings(folder(tmp_path / "own", labels=3))))
    other = folder(tmp_path / "other", labels=4)
    for file in other.glob("*/masks/*.png"):
        labels = np.asarray(Image.open(file))
        Image.fromarray(np.where(labels == 2, 0, labels)).save(file)
    found = data_for_run(own, other)
    assert (found.classes, found.num_classes) == (own.classes, 3)
    with raises_code(DataError, "label-out-of-range", "label 3 in train/masks/", "3 classes (0..2)", "data.label_map"):
        verify(open_dataset(found, "train"))
    mapped = data_for_run(own, other, {"data": {"label_map": {3: 2}}})
    assert set(np.unique(open_dataset(mapped, "train").load(0).mask)) <= {0, 1, 2, 255}


def test_annotations_of_another_folder_go_by_names(tmp_path: Path) -> None:
    splits = {"train": {"annotations": "all"}}
    for name in ("own", "other"):
        writers.labelme(tmp_path / name)
    (tmp_path / "other/labels.txt").write_text("dog\ncat\n")
    given = {"root": str(tmp_path / "own"), "layout": "labelme", "splits": splits}
    own = resolve(parse(DataConfig, given))
    assert own.classes == ("background", "cat", "dog")
    other = data_for_run(own, {"root": str(tmp_path / "other"), "layout": "labelme", "splits": splits})
    assert other.classes == own.classes
    assert other.label_map != own.label_map, "its masks number the names otherwise"
    for config in (own, other):
        assert np.array_equal(open_dataset(config, "train").load(0).mask, writers.scene())
    turned = resolve(parse(DataConfig, {**given, "classes": ["dog", "background", "cat"]}))
    assert np.array_equal(open_dataset(turned, "train").load(0).mask, np.array([1, 2, 0])[writers.scene()])
    with raises_code(DataError, "unknown-class", "'dog'", "data.classes"):
        resolve(parse(DataConfig, {**given, "classes": ["background", "cat", "bird"]}))


def test_first_difference() -> None:
    old: dict[str, Any] = {"a": {"b": [1, 2], "c": 3}, "d": None}
    assert first_difference(old, {"a": {"b": [1, 2], "c": 3}, "d": None}) is None
    assert first_difference(old, {"a": {"b": [1, 2], "c": 4}, "d": None}) == "a.c: 3, not 4"
    assert first_difference(old, {"a": {"b": [1]}, "d": 2}) == "a.b: [1, 2], not [1]"
    assert first_difference(old, {"a": 1, "d": None}) == "a: {'b': [1, 2], 'c': 3}, not 1"
