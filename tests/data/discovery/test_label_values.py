"""What stored values mean: each kind of values with its one right reading, or the question that it leaves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from autoseg.data.discovery.label_values import BINARY, LabelNames, LabelReading, read_labels
from autoseg.errors import DataError

FILE = Path("/data/classes.txt")


def read(seen: Sequence[int], **given: Any) -> LabelReading:
    return read_labels(set(seen), "/data", **given)


@pytest.mark.parametrize(
    ("seen", "labels", "ignored"),
    [
        ([0, 1], [0, 1], []),
        ([0, 255], [0, 255], []),
        ([0, 65535], [0, 65535], []),
        ([0, 1, 255], [0, 1], [255]),
        ([0, 1, 2, 255], [0, 1, 2], [255]),
        ([1, 2, 3], [1, 2, 3], []),
        ([1, 2, 255], [1, 2], [255]),
        ([0, 10, 20], [0, 10, 20], []),
        ([0, 127, 255], [0, 127, 255], []),
        ([0, 128, 255], [0, 128, 255], []),
        ([0, 85, 170, 255], [0, 85, 170, 255], []),
        ([0, 51, 102, 153, 204, 255], [0, 51, 102, 153, 204, 255], []),
        ([0, 64, 128, 191, 255], [0, 64, 128, 191, 255], []),
        ([*range(19), 255], [*range(19)], [255]),
        ([*range(7), *range(8, 19), 255], [*range(7), *range(8, 19)], [255]),  # class 7 does not occur
        ([0, 1, 2, 65535], [0, 1, 2], [65535]),
        ([0, 50, 100, 150, 200, 250], [0, 50, 100, 150, 200, 250], []),
        ([3, 7], [3, 7], []),
    ],
)
def test_values_that_are_clear(seen: list[int], labels: list[int], ignored: list[int]) -> None:
    found = read(seen)
    assert (list(found.labels), sorted(found.ignored)) == (labels, ignored)
    assert len(found.classes) == len(labels)


@pytest.mark.parametrize("seen", [[0, 10, 255], [1, 255], [0, 2, 255], [5, 9, 11, 255], [0, 100, 65535], [2, 3, 255]])
def test_values_that_have_two_meanings_show_both(seen: list[int]) -> None:
    with pytest.raises(DataError) as error:
        read(seen)
    assert error.value.code == "labels-unclear"
    assert f"data.ignore_label: {seen[-1]}" in str(error.value)
    shown = re.search(r"data\.num_classes: (\d+) and data\.label_map: \{(.*)\}\)", str(error.value))
    assert shown is not None
    proposed = dict(tuple(map(int, pair.split(": "))) for pair in shown[2].split(", "))
    assert int(shown[1]) == len(seen)
    assert [proposed.get(label, label) for label in seen] == list(range(len(seen)))
    if len(seen) > 2:
        assert list(read(seen, ignored=seen[-1]).labels) == seen[:-1]


@pytest.mark.parametrize(("seen", "ignored"), [([], None), ([255], 255), ([0], None), ([1], None), ([0, 255], 255)])
def test_fewer_than_two_classes(seen: list[int], ignored: int | None) -> None:
    with pytest.raises(DataError) as error:
        read(seen, ignored=ignored)
    assert error.value.code == "too-few-classes"


def test_numbers_of_objects_are_no_classes() -> None:
    with pytest.raises(DataError, match=r"300 labels.*data\.label_map") as error:
        read(range(0, 3000, 10))
    assert error.value.code == "too-many-labels"


def test_names_of_classes_keep_the_stored_label() -> None:
    assert read([0, 2, 5]).classes == ("class_0", "class_2", "class_5")
    assert read([0, 255]).classes == BINARY


def test_the_label_map_leaves_out_what_stays() -> None:
    assert read([0, 1, 2]).label_map(255) is None
    assert read([0, 1, 2, 255]).label_map(255) is None
    assert read([1, 2, 255]).label_map(255) == {1: 0, 2: 1}
    assert read([0, 255]).label_map(255) == {255: 1}
    assert read([0, 1, 2, 65535]).label_map(255) == {65535: 255}


# --- what the user sets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "count", "labels", "ignored"),
    [
        ([0, 1, 2], 3, [0, 1, 2], []),
        ([0, 2], 4, [0, 1, 2, 3], []),  # classes that do not occur
        ([0, 5, 7, 255], 21, [*range(21)], [255]),
        ([1, 2, 3], 3, [1, 2, 3], []),
        ([1, 2, 3, 255], 3, [1, 2, 3], [255]),
        ([0, 127, 255], 3, [0, 127, 255], []),
        ([0, 255], 2, [0, 255], []),
        ([0, 1, 255], 2, [0, 1], [255]),
        ([0, 10, 255], 3, [0, 10, 255], []),
        ([0, 255], 256, [*range(256)], []),
    ],
)
def test_a_number_of_classes(seen: list[int], count: int, labels: list[int], ignored: list[int]) -> None:
    found = read(seen, num_classes=count)
    assert (list(found.labels), sorted(found.ignored)) == (labels, ignored)
    assert read(seen, classes=[f"n{n}" for n in range(count)]).classes == tuple(f"n{n}" for n in range(count))


@pytest.mark.parametrize(("seen", "count"), [([0, 1, 2, 3], 3), ([0, 7], 3), ([1, 2, 3, 4, 255], 3)])
def test_labels_beyond_the_number_are_faults_of_their_masks(seen: list[int], count: int) -> None:
    assert read(seen, num_classes=count).labels == tuple(range(count))


# --- files of names ---------------------------------------------------------------------------------------------------


def names(given: dict[int, str], ignored: Sequence[int] = (), numbered: bool = True) -> LabelNames:
    return LabelNames(FILE, given, frozenset(ignored), numbered)


ABC = {0: "a", 1: "b", 2: "c"}


@pytest.mark.parametrize(
    ("seen", "file", "labels", "classes", "ignored"),
    [
        ([0, 1, 2], names(ABC), [0, 1, 2], "abc", []),
        ([0, 2], names(ABC), [0, 1, 2], "abc", []),
        ([0, 1, 2, 255], names(ABC), [0, 1, 2], "abc", [255]),
        ([0, 1, 2, 3], names(ABC, [3]), [0, 1, 2], "abc", [3]),
        ([0, 1, 2, 3], names({1: "a", 2: "b", 3: "c"}, [0]), [1, 2, 3], "abc", [0]),
        ([0, 5, 9], names({0: "a", 5: "b", 9: "c"}), [0, 5, 9], "abc", []),
        ([0, 127, 255], names(ABC, numbered=False), [0, 127, 255], "abc", []),
        ([1, 2, 3], names(ABC, numbered=False), [1, 2, 3], "abc", []),
        ([1, 2, 3, 255], names(ABC, numbered=False), [1, 2, 3], "abc", [255]),
        ([0, 255], names({0: "a", 1: "b"}, numbered=False), [0, 255], "ab", []),
        ([0, 10, 255], names({0: "a", 10: "b"}), [0, 10], "ab", [255]),  # unclear without names
        ([1, 255], names({1: "a", 255: "b"}), [1, 255], "ab", []),
    ],
)
def test_names_go_with_their_labels(
    seen: list[int], file: LabelNames, labels: list[int], classes: str, ignored: list[int]
) -> None:
    found = read(seen, names=[file])
    assert (list(found.labels), found.classes, sorted(found.ignored)) == (labels, tuple(classes), ignored)
    assert "classes.txt" in found.because


@pytest.mark.parametrize(
    ("seen", "file"),
    [
        ([0, 1, 2, 3], names(ABC)),
        ([1, 2, 3], names(ABC)),
        ([0, 1], names({1: "a", 2: "b"})),
        ([0, 1, 2, 3], names(ABC, numbered=False)),
    ],
)
def test_names_that_do_not_fit_are_said(seen: list[int], file: LabelNames) -> None:
    with pytest.raises(DataError, match=r"classes\.txt names .* but the masks also hold") as error:
        read(seen, names=[file])
    assert error.value.code == "names-differ"


def test_the_first_file_that_fits_counts_and_the_user_before_all() -> None:
    wrong, right = names({0: "x", 1: "y"}), names(ABC)
    assert read([0, 1, 2], names=[wrong, right]).classes == ("a", "b", "c")
    assert read([0, 1, 2], names=[right], classes=["d", "e", "f"]).classes == ("d", "e", "f")


def test_a_name_that_comes_twice() -> None:
    with pytest.raises(DataError, match="'a' comes twice") as error:
        read([0, 1, 2], names=[names({0: "a", 1: "b", 2: "a"})])
    assert error.value.code == "class-name-twice"
