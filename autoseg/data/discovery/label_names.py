"""Class names from files in the data set's folder, each with its label."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoseg.data.discovery.label_values import BINARY, LabelNames
from autoseg.data.io.colour_tables import LARGEST_TABLE, is_ignored
from autoseg.data.io.reading import csv_rows, read_text
from autoseg.errors import DataError
from autoseg.files import parse_json, parse_yaml

FILES = (
    *("classes.txt", "class_names.txt", "names.txt", "labels.txt", "_classes.csv", "train/_classes.csv", "classes.csv"),
    *("codes.txt", "dataset.json", "id2label.json", "classes.json", "data.yaml", "data.yml", "dataset.yaml"),
)
LONGEST, MOST = 80, 1024
"""Largest number of letters in a name, and of names in a file; longer ones are no names of classes."""
MADE_UP = re.compile(r"class_\d+")
"""Names that autoseg gives to classes without names."""
_NUMBERED = re.compile(r"(\d+)\s*[:,;\s]\s*(\S.*)")
_FILE = re.compile(r".*\.(png|jpe?g|tiff?|bmp|npy|txt)", re.IGNORECASE)


def names_beside(*folders: Path) -> list[LabelNames]:
    """The files of class names in the first of `folders` that has some, in the order of `FILES`.

    Several readings of one file stand side by side.
    """
    of_folders = ([found for name in FILES for found in read_names(folder / name)] for folder in folders)
    return next((found for found in of_folders if found), [])


def read_names(file: Path) -> list[LabelNames]:
    """The class names of a file; empty if it holds none.

    A text file has a name per line, perhaps after its label; labelme's begins with `__ignore__`, which is -1. A CSV has
    `Pixel Value, Class` (Roboflow). JSON is as of nnU-Net, {"labels": {"background": 0, ...}}, or of Hugging Face,
    {"0": "background", ...}; YAML has `names`, as a list or so (Ultralytics). Names such as `ignore` and `void` ignore
    their label. A file that cannot be used has a `fault`.
    """
    try:
        if not file.is_file() or file.stat().st_size > LARGEST_TABLE:
            return []
        numbered, names = _names_in(file, read_text(file))
    except UnicodeDecodeError:
        text = f"{file} is no text in UTF-8, so its class names cannot be read; save it as UTF-8, or set data.classes"
        return [LabelNames(file, {}, fault=DataError(text, code="file-unreadable"))]
    except DataError as reason:
        return [LabelNames(file, {}, fault=reason)]
    except (OSError, ValueError, TypeError, OverflowError):  # no file of class names
        return []
    all_names = list(names.values())
    if not 0 < len(names) <= MOST or not all(0 < len(name) <= LONGEST for name in all_names):
        return []
    if any(_FILE.fullmatch(name) for name in all_names):  # a list of files
        return []
    found = [_labelled(file, names, numbered)]
    if not numbered and all_names[0] == "__ignore__":
        found.insert(0, _labelled(file, {label - 1: name for label, name in names.items() if label}, True))
    return found


def plain_name(name: str) -> str:
    """The name as it is shown; labelme writes `_background_`."""
    return "background" if name.strip("_ ").lower() == "background" else name


def has_names(classes: Sequence[str]) -> bool:
    """Whether classes have names of somebody's, and not those that autoseg makes up."""
    return tuple(classes) != BINARY and not all(MADE_UP.fullmatch(name) for name in classes)


def plain_words(name: str) -> str:
    """The name as names are compared: lower case, with one space for `-`, `_` and spaces."""
    return re.sub(r"[\s_-]+", " ", name.strip().lower())


def _labelled(file: Path, names: Mapping[int, str], numbered: bool) -> LabelNames:
    used = {label: plain_name(name) for label, name in names.items() if not is_ignored(name)}
    return LabelNames(file, used, frozenset(names.keys() - used.keys()), numbered)


def _names_in(file: Path, text: str) -> tuple[bool, dict[int, str]]:
    """As `_in_lines`, of a file of any form. Raises: DataError: class names that cannot be used."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(key for key in found if [one for one, _ in pairs].count(key) > 1)
            raise DataError(f"{file} has the name {twice!r} twice; rename one", code="class-name-twice")
        return found

    if file.suffix == ".json":
        return _in_json(file, parse_json(text, object_pairs_hook=unique))
    if file.suffix in (".yaml", ".yml"):
        content = parse_yaml(text)
        return _in_json(file, content.get("names") if isinstance(content, dict) else None)
    return _in_lines(file, text)


def _in_lines(file: Path, text: str) -> tuple[bool, dict[int, str]]:
    """Whether lines have labels, and the names by label. Raises: ValueError: they are no names."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if file.suffix == ".csv":
        rows = csv_rows(lines)
        return True, _by_label([(int(row[0]), row[1]) for row in rows if len(row) == 2 and row[0].isdecimal()])
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if lines and all(numbered):
        return True, _by_label([(int(found[1]), found[2]) for found in numbered if found])
    return False, dict(enumerate(lines))


def _in_json(file: Path, content: Any) -> tuple[bool, dict[int, str]]:
    """As `_in_lines`. Raises: ValueError, TypeError: no class names. DataError: regions of several labels."""
    for key in ("id2label", "labels", "classes"):
        if isinstance(content, Mapping) and key in content:
            content = content[key]
    if isinstance(content, list):
        if not all(isinstance(name, str) for name in content):
            raise ValueError("no names")
        return False, dict(enumerate(content))
    if not isinstance(content, Mapping):
        raise ValueError("no table")
    if all(str(key).isdecimal() for key in content):
        return True, _by_label([(int(label), str(name)) for label, name in content.items()])
    regions = [name for name, label in content.items() if isinstance(label, list) and len(label) > 1]
    if regions and file.name == "dataset.json":  # nnU-Net's
        raise DataError(
            f"{file} has regions of several labels, such as {regions[0]!r}, but a pixel has one class; set data.classes"
            " to names of the labels",
            code="labels-overlap",
        )
    return True, _by_label([(int(label), name) for name, label in content.items()])


def _by_label(pairs: list[tuple[int, str]]) -> dict[int, str]:
    """Raises: ValueError: a label comes twice, or is none."""
    names = dict(pairs)
    if len(names) < len(pairs) or any(label < 0 for label in names):
        raise ValueError("labels come twice")
    return names
