"""Class names from files in the data set's folder, each with its label."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg.data.discovery.label_values import LabelNames
from autoseg.data.io.colour_tables import LARGEST_TABLE, is_ignored

FILES = (
    *("classes.txt", "class_names.txt", "names.txt", "labels.txt", "_classes.csv", "train/_classes.csv"),
    *("dataset.json", "id2label.json", "classes.json"),
)
LONGEST, MOST = 80, 1024
"""Largest number of letters in a name, and of names in a file; longer ones are no names of classes."""
_NUMBERED = re.compile(r"(\d+)\s*[:,;\s]\s*(\S.*)")
_FILE = re.compile(r".*\.(png|jpe?g|tiff?|bmp|npy|txt)", re.IGNORECASE)


def names_beside(root: Path) -> list[LabelNames]:
    """The files of class names in `root`, in the order of `FILES`; several readings of one file stand side by side."""
    return [found for name in FILES for found in read_names(root / name)]


def read_names(file: Path) -> list[LabelNames]:
    """The class names of a file; empty if it holds none.

    A text file has a name per line, perhaps after its label; labelme's begins with `__ignore__`, which is -1. A CSV has
    `Pixel Value, Class` (Roboflow). JSON is as of nnU-Net, {"labels": {"background": 0, ...}}, or of Hugging Face,
    {"0": "background", ...}. Names such as `ignore` and `void` ignore their label.
    """
    try:
        if not file.is_file() or file.stat().st_size > LARGEST_TABLE:
            return []
        text = file.read_text(encoding="utf-8-sig")
        numbered, names = _in_json(json.loads(text)) if file.suffix == ".json" else _in_lines(file, text)
    except (OSError, ValueError, TypeError, RecursionError):  # no file of class names
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


def _labelled(file: Path, names: Mapping[int, str], numbered: bool) -> LabelNames:
    used = {label: plain_name(name) for label, name in names.items() if not is_ignored(name)}
    return LabelNames(file, used, frozenset(names.keys() - used.keys()), numbered)


def _in_lines(file: Path, text: str) -> tuple[bool, dict[int, str]]:
    """Whether lines have labels, and the names by label. Raises: ValueError: they are no names."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if file.suffix == ".csv":
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines)]
        return True, _by_label([(int(row[0]), row[1]) for row in rows if len(row) == 2 and row[0].isdecimal()])
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if lines and all(numbered):
        return True, _by_label([(int(found[1]), found[2]) for found in numbered if found])
    return False, dict(enumerate(lines))


def _in_json(content: Any) -> tuple[bool, dict[int, str]]:
    """As `_in_lines`. Raises: ValueError, TypeError: no class names."""
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
    return True, _by_label([(int(label), name) for name, label in content.items()])


def _by_label(pairs: list[tuple[int, str]]) -> dict[int, str]:
    """Raises: ValueError: a label comes twice, or is none."""
    names = dict(pairs)
    if len(names) < len(pairs) or any(label < 0 for label in names):
        raise ValueError("labels come twice")
    return names
