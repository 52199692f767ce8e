"""Files of class names: each form, with names that ignore their label."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoseg.data.discovery.label_names import names_beside, read_names

ABC = {0: "a", 1: "b", 2: "c"}


@pytest.mark.parametrize(
    ("name", "text", "names", "ignored", "numbered"),
    [
        ("classes.txt", "a\nb\nc\n", ABC, [], False),
        ("classes.txt", "\ufeffa\r\n\r\n# a comment\r\nb\r\nc", ABC, [], False),
        ("classes.txt", "void\na\nb\n", {1: "a", 2: "b"}, [0], False),
        ("classes.txt", "0: a\n1: b\n2: c\n", ABC, [], True),
        ("classes.txt", "0 a\n5 b c\n255 ignore\n", {0: "a", 5: "b c"}, [255], True),
        ("_classes.csv", "Pixel Value, Class\n0, a\n1, b\n2, unlabeled\n", {0: "a", 1: "b"}, [2], True),
        ("dataset.json", json.dumps({"labels": {"a": 0, "b": 1, "ignore": 2}}), {0: "a", 1: "b"}, [2], True),
        ("dataset.json", json.dumps({"labels": {"0": "a", "1": "b"}}), {0: "a", 1: "b"}, [], True),
        ("id2label.json", json.dumps({"0": "a", "1": "Unlabelled", "7": "c"}), {0: "a", 7: "c"}, [1], True),
        ("classes.json", json.dumps(["a", "b", "VOID"]), {0: "a", 1: "b"}, [2], False),
        (
            "classes.json",
            json.dumps({"id2label": {"0": "_background_", "1": "b"}}),
            {0: "background", 1: "b"},
            [],
            True,
        ),
    ],
)
def test_forms(name: str, text: str, names: dict[int, str], ignored: list[int], numbered: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    (found,) = read_names(tmp_path / name)
    assert (found.names, sorted(found.ignored), found.numbered) == (names, ignored, numbered)
    assert names_beside(tmp_path) == [found]


def test_labelme_counts_from_minus_one_or_from_zero(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ncat\n")
    first, second = read_names(tmp_path / "labels.txt")
    assert (first.names, first.ignored) == ({0: "background", 1: "cat"}, frozenset())
    assert (second.names, second.ignored) == ({1: "background", 2: "cat"}, {0})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", "a.png\nb.png\n"),
        ("classes.txt", ""),
        ("classes.txt", "x" * 81),
        ("dataset.json", json.dumps({"training": [{"image": "a"}]})),
        ("classes.json", "[1, 2]"),
        ("classes.json", "{"),
        ("_classes.csv", "filename, a, b\nx.jpg, 1, 0\n"),  # Roboflow's of whole images
        ("id2label.json", json.dumps({"0": "a", "00": "b"})),
        ("dataset.json", json.dumps({"labels": {"a": 0, "b": 0}})),
    ],
)
def test_what_is_no_file_of_names(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert names_beside(tmp_path) == []


def test_a_file_that_is_missing_or_too_large_or_a_folder(tmp_path: Path) -> None:
    assert read_names(tmp_path / "classes.txt") == []
    (tmp_path / "classes.txt").mkdir()
    assert read_names(tmp_path / "classes.txt") == []
    (tmp_path / "names.txt").write_text("a\n" * 2**20)
    assert read_names(tmp_path / "names.txt") == []
