"""Inferring the classes of a data set from the labels in its masks, and their names from files beside them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoseg.data.base import check_labels
from autoseg.data.discovery.pairs import Pair
from autoseg.data.io.colour_tables import LARGEST_TABLE, MaskTable, is_ignored
from autoseg.data.io.images import read_mask
from autoseg.data.loading.threads import in_threads
from autoseg.data.wording import counted
from autoseg.errors import DataError

BINARY = ("background", "foreground")
MOST_IN_A_MASK = 150
"""Largest number of different labels in a mask; a file with more is taken for an image."""
SPARSE, MANY = 4, 32
"""More than `MANY` classes of which fewer than 1 in `SPARSE` occur are taken for a mistake."""
NAME_FILES = (
    *("classes.txt", "class_names.txt", "names.txt", "labels.txt", "_classes.csv", "train/_classes.csv"),
    *("dataset.json", "id2label.json", "classes.json"),
)
LONGEST_NAME = 80
"""Largest number of letters in a class's name."""
_NUMBERED = re.compile(r"(\d+)\s*[:,;\s]\s*(\S.*)")


class FoundClasses(NamedTuple):
    """The classes, the label map that they need, and, if the user must decide, the error that says so."""

    classes: tuple[str, ...]
    label_map: dict[int, int] | None = None
    error: DataError | None = None


def classes_of(
    seen: Set[int],
    everywhere: Set[int],
    where: str,
    label_map: Mapping[int, int] | None,
    ignored: int,
    may_be_binary: bool,
) -> FoundClasses:
    """The classes from 0 to the greatest label after the label map, except the ignore label.

    seen: labels of the training masks; everywhere: labels of all masks; where: the data set's folder.
    may_be_binary: only the labels 0 and 255, or 0 and 1, are two classes.
    Labels far apart get an error and a label map that numbers them and those of `everywhere`.
    """
    if may_be_binary and seen in ({0, 255}, {0, 1}):
        return FoundClasses(names_beside(Path(where), 2) or BINARY, binary_map(seen))
    mapped = {label: (label_map or {}).get(label, label) for label in seen | everywhere}
    used = sorted({mapped[label] for label in seen} - {ignored})
    count = max(used, default=0) + 1
    if count < 2:
        error = DataError(
            f"the training masks in {where} hold no label but 0 and the ignore label {ignored}, which makes fewer than"
            " two classes; give others with data.label_map or data.ignore_label, or set data.num_classes",
            code="too-few-classes",
        )
        return FoundClasses(("class_0",), error=error)
    if count <= max(MANY, SPARSE * len(used)):
        names = names_beside(Path(where), count) or tuple(f"class_{label}" for label in range(count))
        return FoundClasses(names)
    some = ", ".join(map(str, used[:8])) + ", ..." * (len(used) > 8)
    error = DataError(
        f"the training masks in {where} hold {counted(len(used), 'label')} of 0..{count - 1} ({some}); number them with"
        " data.label_map, as `autoseg check-data` proposes, or set data.num_classes to"
        f" {count} if the others are classes too",
        code="labels-far-apart",
    )
    used = sorted(set(mapped.values()) - {ignored})
    numbers = {label: number for number, label in enumerate(used)} | {ignored: ignored}
    renumbered = {label: numbers[mapped[label]] for label in sorted(mapped) if numbers[mapped[label]] != label}
    return FoundClasses(tuple(f"class_{label}" for label in used), renumbered, error)


def binary_map(seen: Set[int]) -> dict[int, int] | None:
    """The label map of masks of 0 and 255, {255: 1}; None for other labels."""
    return {255: 1} if seen == {0, 255} else None


def labels_in(pairs: Sequence[Pair], table: MaskTable | None, skip: bool) -> set[int]:
    """All labels in the masks. `skip`: leave out masks that cannot be used. Raises: DataError: such a mask."""

    def labels_of(index: int) -> list[int]:
        path = pairs[index][2]
        try:
            labels = np.unique(read_mask(path, table))
            check_labels(path, labels)
            check_mask_like(path, labels)
        except DataError:
            if not skip:
                raise
            return []
        return [int(label) for label in labels]

    return set().union(*in_threads(labels_of, len(pairs)))


def check_mask_like(path: Path, labels: NDArray[np.integer[Any]]) -> None:
    """Raises: DataError: more than `MOST_IN_A_MASK` labels, as in an image."""
    if labels.size > MOST_IN_A_MASK:
        raise DataError(
            f"{path} has {labels.size} different labels, as an image would; are images and masks in swapped"
            " folders? If not, set data.num_classes",
            code="mask-like-photo",
        )


# --- files of class names ---------------------------------------------------------------------------------------------


def names_beside(root: Path, count: int) -> tuple[str, ...] | None:
    """The class names in the first of `NAME_FILES` in `root` that has `count` of them; None if there is none.

    A text file has a name per line, perhaps after its label; a CSV has `Pixel Value, Class` (Roboflow); JSON is as of
    nnU-Net, {"labels": {"background": 0, ...}}, or of Hugging Face, {"0": "background", ...}. `IGNORED_NAMES` are left
    out.
    """
    for file in (root / name for name in NAME_FILES):
        try:
            if file.is_file() and file.stat().st_size <= LARGEST_TABLE:
                names = _read_names(file)
                if len(names) == count == len(set(names)) and all(0 < len(name) <= LONGEST_NAME for name in names):
                    return names
        except (OSError, ValueError, TypeError):  # no file of class names
            continue
    return None


def _read_names(file: Path) -> tuple[str, ...]:
    """The class names in a file. Raises: OSError, ValueError, TypeError: it holds none."""
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix == ".json":
        return _in_order(_labelled_names(json.loads(text)))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if file.suffix == ".csv":
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines)]
        return _in_order((int(row[0]), row[1]) for row in rows if len(row) == 2 and row[0].isdecimal())
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if numbered and all(numbered):
        return _in_order((int(found[1]), found[2]) for found in numbered if found)
    return tuple(line for line in lines if not is_ignored(line))


def _labelled_names(content: Any) -> Iterable[tuple[int, str]]:
    """(label, name) of each class in JSON. Raises: ValueError, TypeError: no class names."""
    for key in ("id2label", "labels", "classes"):
        if isinstance(content, Mapping) and key in content:
            content = content[key]
    if isinstance(content, list):
        return enumerate(name for name in map(str, content) if not is_ignored(name))
    if not isinstance(content, Mapping):
        raise ValueError("no table")
    if all(str(key).isdecimal() for key in content):
        return ((int(label), str(name)) for label, name in content.items())
    return ((int(label), name) for name, label in content.items())


def _in_order(pairs: Iterable[tuple[int, str]]) -> tuple[str, ...]:
    """The names in the order of their labels. Raises: ValueError: the labels are not 0, 1, ..."""
    names = {label: name for label, name in pairs if not is_ignored(name)}
    if sorted(names) != list(range(len(names))):
        raise ValueError("labels are missing")
    return tuple(names[label] for label in range(len(names)))
