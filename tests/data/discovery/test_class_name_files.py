"""Names of classes out of files beside the data."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.data_sets import write_folder
from helpers.errors import raises_code

from autoseg.config.data import DataConfig
from autoseg.data.check.report import check_dataset
from autoseg.data.dataset import resolve
from autoseg.errors import DataError

TEXTS = {
    "classes.txt": "sky\nlarge tree\nroad\n",
    "class_names.txt": "# my classes\n0 sky\n1: large tree\n\n2, road\n255 void\n",
    "labels.txt": "ignore\nsky\nlarge tree\nroad",
    "_classes.csv": "Pixel Value, Class\n0, sky\n1, large tree\n2, road\n",
    "train/_classes.csv": "Pixel Value,Class\n2,road\n0,sky\n1,large tree\n",
    "dataset.json": '{"name": "mine", "labels": {"sky": 0, "large tree": 1, "road": 2, "ignore": 3}}',
    "id2label.json": '{"0": "sky", "1": "large tree", "2": "road"}',
    "classes.json": '["sky", "large tree", "road"]',
}
CONTRADICT = {
    "two alike": ("classes.txt", "a\nb\na\n", "class-name-twice", ("'a'", "classes.txt")),
    "label 1 is missing": ("id2label.json", '{"0": "a", "2": "b", "3": "c"}', "names-differ", ("id2label.json", "1")),
    "too few names": ("classes.txt", "a\nb\n", "names-differ", ("classes.txt", "2 classes", "data.classes")),
}
OTHERS = {
    "no text": ("classes.txt", "\udcff\udcfe"),
    "no table": ("dataset.json", '{"labels": 3}'),
    "no JSON": ("dataset.json", "{"),
    "nested": ("classes.json", '{"labels": {"a": [0, 1], "b": 1, "c": 2}}'),
    "too long": ("labels.txt", "a\nb\n" + "c" * 200),
}


def folder(root: Path, file: str, text: str, labels: int = 3) -> DataConfig:
    write_folder(root, {"train": [(40, 40)] * 3, "val": [(40, 40)]}, labels=labels)
    (root / file).write_bytes(text.encode("utf-8", "surrogateescape"))
    return DataConfig(root=str(root))


@pytest.mark.parametrize("file", TEXTS)
def test_names_are_found(file: str, tmp_path: Path) -> None:
    config = folder(tmp_path, file, TEXTS[file])
    assert resolve(config).classes == ("sky", "large tree", "road")
    assert tuple(check_dataset(config).scan.config.classes) == ("sky", "large tree", "road")


def test_two_classes_may_have_names(tmp_path: Path) -> None:
    assert resolve(folder(tmp_path, "classes.txt", "skin\nmole\n", labels=2)).classes == ("skin", "mole")


def test_classes_that_are_given_count(tmp_path: Path) -> None:
    config = folder(tmp_path, "classes.txt", TEXTS["classes.txt"])
    assert resolve(config.model_copy(update={"classes": ("a", "b", "c")})).classes == ("a", "b", "c")


def test_classes_that_do_not_occur_have_names(tmp_path: Path) -> None:
    found = resolve(folder(tmp_path, "classes.txt", "a\nb\nc\nd\n"))
    assert (found.classes, found.label_map) == (("a", "b", "c", "d"), None)


@pytest.mark.parametrize("case", CONTRADICT)
def test_names_that_contradict_the_labels_stop(case: str, tmp_path: Path) -> None:
    file, text, code, named = CONTRADICT[case]
    with raises_code(DataError, code, *named):
        resolve(folder(tmp_path, file, text))
    assert resolve(DataConfig(root=str(tmp_path), num_classes=3)).classes == ("class_0", "class_1", "class_2")


@pytest.mark.parametrize("case", OTHERS)
def test_what_is_no_file_of_names_is_no_error(case: str, tmp_path: Path) -> None:
    assert resolve(folder(tmp_path, *OTHERS[case])).classes == ("class_0", "class_1", "class_2")
