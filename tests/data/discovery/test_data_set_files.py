"""The files in `data_sets/`, and files of the user's own: read, matched, and refused with one clear line."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.errors import raises_code
from helpers.tiny_runs import search_settings
from PIL import Image

from autoseg.cli.main import run
from autoseg.config.base import parse
from autoseg.config.data import DataConfig, data_settings
from autoseg.data.dataset import describe_dataset, open_dataset, resolve
from autoseg.data.discovery.known_datasets import alternatives, find_layout, known_datasets, numbers, title_of
from autoseg.data.io.colour_tables import ClassRow, read_class_table
from autoseg.errors import ConfigError, DataError
from autoseg.library import library, names_in
from autoseg.setup.other_data import data_for_run

ROOT = Path(__file__).parents[3]
MASK = np.tile(np.arange(48, dtype=np.uint8) % 3 + 1, (40, 1))
COLOURED = np.full((40, 48, 3), (128, 0, 192), dtype=np.uint8)
VISTAS = json.dumps({"labels": [{"name": f"thing {number}", "color": [number, 0, 0]} for number in range(4)]})
ONE_COLOUR = {f"LabeledApproved_full/{number}_L.png": COLOURED for number in range(2)}

FOLDERS: dict[str, Mapping[str, str | np.ndarray]] = {
    "ade20k": {"images/training/ADE_train_1.jpg": MASK, "annotations/training/ADE_train_1.png": MASK},
    "camvid": {"train/0016E5_1.png": MASK, "trainannot/0016E5_1.png": MASK},
    "camvid_colour": {"701_StillsRaw_full/0.png": MASK, "701_StillsRaw_full/1.png": MASK, **ONE_COLOUR},
    "cityscapes": {"leftImg8bit/val/ulm/a_leftImg8bit.png": MASK, "gtCoarse/val/ulm/a_gtCoarse_labelIds.png": MASK},
    "coco_stuff": {"images/val2017/1.jpg": MASK, "pixelmaps/stuff_val2017_pixelmaps/1.png": MASK},
    "kitti": {"training/image_2/0_10.png": MASK, "training/semantic/0_10.png": MASK},
    "mapillary": {"testing/images/a.jpg": MASK, "testing/v1.2/labels/a.png": MASK, "config_v1.2.json": VISTAS},
    "pet": {"images/a_1.jpg": MASK, "annotations/trimaps/a_1.png": MASK},
    "voc": {"JPEGImages/2007_000032.jpg": MASK, "SegmentationClass/2007_000032.png": MASK,
            "ImageSets/Segmentation/train.txt": "2007_000032\n"},
}  # fmt: skip
"""Name of a file in `data_sets/` -> a small folder that is to be recognised; each shows what other tests do not."""


def make(root: Path, files: Mapping[str, str | np.ndarray]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            (root / name).write_text(content)
        else:
            Image.fromarray(content).save(root / name)
    return root


def config(root: Path, **settings: Any) -> DataConfig:
    return parse(DataConfig, {"root": str(root), **settings})


# --- those in data_sets/ ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names_in(library("data_sets")))
def test_a_folder_is_recognised_by_its_file_alone(name: str, tmp_path: Path) -> None:
    place, found = find_layout(make(tmp_path, FOLDERS[name]))
    assert (place, found.name) == (tmp_path, name)
    assert find_layout(tmp_path, name)[1] == found
    others = {known.name for known in known_datasets()} - {name, "camvid"}
    for other in others:
        with raises_code(DataError, "layout-differs", tmp_path):
            find_layout(tmp_path, other)


@pytest.mark.parametrize("name", names_in(library("data_sets")))
def test_a_file_cites_its_source_and_maps_to_its_classes(name: str) -> None:
    text = (library("data_sets") / f"{name}.yaml").read_text(encoding="utf-8")
    comment = text[: text.index("title:")]
    assert re.search(r"https?://\S+\n", comment)
    assert re.search(r"\b(19|20)\d\d\b", comment)
    for form in (known for known in known_datasets() if known.name == name):
        classes, stored = form.classes or (), numbers(form.labels or ())
        assert len(set(classes)) == len(classes)
        assert len(set(stored)) == len(stored)
        assert form.ignore_label not in range(len(classes))


def test_kitti_has_the_labels_of_cityscapes(tmp_path: Path) -> None:
    make(tmp_path, FOLDERS["kitti"] | {"training/image_2/1_10.png": MASK, "training/semantic/1_10.png": MASK + 6})
    assert describe_dataset(resolve(config(tmp_path, channels=3))) == (
        "KITTI: 1 train, 1 val, 19 classes, split by seed 0 (data.val_share 0.2)"
    )
    found = resolve(config(tmp_path))
    assert (found.classes or ())[:2] == ("road", "sidewalk")
    assert {key: (found.label_map or {})[key] for key in (6, 7, 8, 9)} == {6: 255, 7: 0, 8: 1, 9: 255}


def test_a_variant_is_found_under_the_name_of_what_it_varies(tmp_path: Path) -> None:
    make(tmp_path, FOLDERS["camvid_colour"])
    assert resolve(config(tmp_path, layout="camvid")).layout == "camvid_colour"


def test_a_label_map_of_nothing_is_the_users_own(tmp_path: Path) -> None:
    make(tmp_path, FOLDERS["cityscapes"])
    assert resolve(config(tmp_path, label_map={}, splits=None)).label_map == {}


def test_the_file_of_a_known_set_is_data_without_a_root() -> None:
    assert data_settings(ROOT / "data_sets/voc.yaml") == {"layout": "voc"}
    with raises_code(ConfigError, "setting-invalid", "'root'"):
        parse(DataConfig, data_settings(ROOT / "data_sets/camvid.yaml"))


def test_an_unknown_layout_suggests_the_right_one(tmp_path: Path) -> None:
    with raises_code(ConfigError, "setting-invalid", "layout: unknown layout 'citiscapes'", "'cityscapes'?"):
        config(tmp_path, layout="citiscapes")
    with raises_code(ConfigError, "setting-invalid", "'x'", "auto", "voc", "the path of a YAML file"):
        config(tmp_path, layout="x")


# --- a new one --------------------------------------------------------------------------------------------------------

DOCUMENT = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
SECTION = DOCUMENT.split("## A known data set\n")[1].split("\n## ")[0]
TREE, SETTINGS, COMMANDS = re.findall(r"^```\w*\n(.*?)^```", SECTION, re.DOTALL | re.MULTILINE)


@pytest.fixture
def rooftops(tmp_path: Path) -> Path:
    """The folder of the example in docs/extending.md."""
    files = {name: "" if name.endswith(".txt") else MASK for name in TREE.split()}
    return make(tmp_path / "DIR", files)


def test_the_example_in_the_documents_needs_no_code(
    rooftops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(library("data_sets"), tmp_path / "installed/data_sets")
    (tmp_path / "installed/data_sets/rooftops.yaml").write_text(SETTINGS)
    monkeypatch.setattr("autoseg.library.resources.files", lambda _: tmp_path / "installed")
    assert describe_dataset(resolve(config(rooftops, channels=3))) == "Rooftops: 1 train, 1 val, 3 classes"
    found = resolve(config(rooftops, layout="rooftops"))
    assert (found.layout, found.classes, found.ignore_label) == ("rooftops", ("street", "roof", "tree"), 255)
    assert open_dataset(found, "val").load(0).mask[0, :3].tolist() == [0, 1, 2]
    with raises_code(DataError, "unknown-layout", "Rooftops"):
        resolve(config(make(tmp_path / "odd", {"a/b.txt": "", "c/d.txt": ""})))


def test_the_commands_in_the_documents(
    rooftops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rooftops.yaml").write_text(SETTINGS)
    monkeypatch.chdir(tmp_path)
    for line in COMMANDS.splitlines():
        assert run(shlex.split(line)[1:]) == 0
        assert f"Rooftops in {rooftops}: 1 train, 1 val, 3 classes" in capsys.readouterr().out


def test_a_file_of_ones_own_counts_from_the_data_yaml(rooftops: Path, tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    file = tmp_path / "sets/rooftops.yaml"
    file.write_text(SETTINGS)
    (tmp_path / "data.yaml").write_text("root: DIR\nlayout: sets/rooftops.yaml\n")
    found = resolve(parse(DataConfig, data_settings(tmp_path / "data.yaml")))
    assert (found.layout, found.label_map) == (str(file), {0: 255, 1: 0, 2: 1, 3: 2})
    (tmp_path / "run.yaml").write_text("data: {root: DIR, layout: sets/rooftops.yaml}\n")
    settings = search_settings("tiny", None, tmp_path / "run.yaml")
    assert (settings.data.root, settings.data.layout) == (str(rooftops), str(file))
    assert data_for_run(found, file, {"data": {"root": str(rooftops)}}) == found
    file.unlink()
    assert resolve(found) == found
    assert title_of(found.layout) == "rooftops"
    with raises_code(DataError, "file-missing", file):
        resolve(config(rooftops, layout=str(file)))


def test_colours_and_labels_of_another_set(tmp_path: Path) -> None:
    mask = np.repeat(np.array([[[255, 0, 0], [0, 0, 255], [0, 0, 128], [9, 9, 9]]], dtype=np.uint8), 12, axis=1)
    for name in ("a", "b"):
        make(
            tmp_path / "set",
            {f"x/{name}.png": MASK, f"y/{name}.png": np.repeat(mask, 40, axis=0), f"z/{name}.png": MASK},
        )
    known = {
        "title": "Mine", "images": "x", "masks": "y", "splits": {"train": "x"}, "classes": ["street", "roof"],
        "colours": {"street": [255, 0, 0], "roof": [[0, 0, 255], [0, 0, 128]], "Void": [9, 9, 9]},
    }  # fmt: skip
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(known))
    found = open_dataset(resolve(config(tmp_path / "set", layout=str(file))), "train")
    assert found.load(0).mask[0, ::12].tolist() == [0, 1, 1, 255]
    assert "masks in colour" in describe_dataset(resolve(config(tmp_path / "set", layout=str(file))))
    file.write_text("title: K\nimages: x\nmasks: z\nsplits: {train: x}\n")
    found = resolve(config(tmp_path / "set", layout=str(file)))
    assert (found.classes, found.label_map) == (("class_1", "class_2", "class_3"), {1: 0, 2: 1, 3: 2})
    file.write_text("title: K\nimages: x\nmasks: z\nsplits: {train: x}\nlabels_of: kitti\n")
    assert len(resolve(config(tmp_path / "set", layout=str(file))).classes or ()) == 19


@pytest.mark.parametrize(
    ("changes", "code", "named"),
    [
        ({"titel": "x"}, "unknown-setting", ("'titel'", "'title'")),
        ({"title": None}, "setting-missing", ("title is missing",)),
        ({"classes": ["a", "b"]}, "setting-invalid", ("'classes' has 2 names", "'labels' 3")),
        ({"labels": ["3-1"]}, "setting-invalid", ("3-1", "0..65535")),
        ({"labels": ["one"]}, "setting-invalid", ("labels.0", "'one'")),
        ({"detect": {"file": ["x"]}}, "unknown-setting", ("'file'", "detect", "'files'")),
        ({"masks": None}, "setting-invalid", ("'images' and 'masks'",)),
        ({"splits": {}}, "setting-invalid", ("splits", "at least 1")),
        ({"colours": {"street": [1, 2, 3]}}, "setting-invalid", ("'labels'", "'colours'")),
        ({"colours": {"lake": [1, 2, 3]}, "labels": None}, "setting-invalid", ("'lake'", "'classes'")),
        ({"labels_of": "citiscapes"}, "unknown-layout", ("'citiscapes'", "'cityscapes'")),
        ({"forms": []}, "setting-invalid", ("forms", "at least 1")),
        ({"forms": [{}, {"labels": "1-3"}]}, "setting-invalid", ("labels", "'1-3'", "form 2")),
    ],
)
def test_a_mistake_in_a_file_is_one_line_with_file_and_key(
    changes: dict[str, Any], code: str, named: tuple[str, ...], rooftops: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    settings = yaml.safe_load(SETTINGS) | changes
    file.write_text(yaml.safe_dump({key: value for key, value in settings.items() if (key, value) != ("title", None)}))
    with raises_code(DataError, code, file, *named):
        resolve(config(rooftops, layout=str(file)))


# --- parts ------------------------------------------------------------------------------------------------------------


def test_alternatives_and_ranges() -> None:
    assert alternatives("{a,}x/{b,c}.png") == ["ax/b.png", "ax/c.png", "x/b.png", "x/c.png"]
    assert numbers((3, "5-7", 0)) == [3, 5, 6, 7, 0]


def test_tables_of_classes(tmp_path: Path) -> None:
    columns, table = tmp_path / "a.txt", tmp_path / "a.json"
    columns.write_text("Idx\tName\n1\twall, brick\n2\tsky\n")
    assert read_class_table(columns) == [ClassRow("wall"), ClassRow("sky")]
    table.write_text('{"labels": [{"color": [1, 2, 3], "evaluate": false}, {"readable": "A", "color": [0, 0, 0]}]}')
    assert read_class_table(table) == [ClassRow("0", False, (1, 2, 3)), ClassRow("A", True, (0, 0, 0))]
    for other in ("[]", '{"labels": [{"name": "a"}]}'):
        table.write_text(other)
        assert read_class_table(table) == []
    table.write_text("{")
    with raises_code(DataError, "file-unreadable", table, "JSON"):
        read_class_table(table)
