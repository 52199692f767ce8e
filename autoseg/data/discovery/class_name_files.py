"""Class names from files in the data set's folder."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from autoseg.data.io.colour_tables import IGNORED_NAMES, LARGEST_TABLE, Colour
from autoseg.data.io.reading import unreadable

FILES = (
    *("classes.txt", "class_names.txt", "names.txt", "labels.txt", "_classes.csv", "train/_classes.csv"),
    *("dataset.json", "id2label.json", "classes.json"),
)
LONGEST = 80
"""Largest number of letters in a name."""
_NUMBERED = re.compile(r"(\d+)\s*[:,;\s]\s*(\S.*)")


class ClassRow(NamedTuple):
    """A label in a data set's own table."""

    name: str
    used: bool = True
    """False: its pixels are ignored."""
    colour: Colour | None = None


def names_beside(root: Path, count: int) -> tuple[str, ...] | None:
    """The class names in the first of `FILES` in `root` that has `count` of them; None if there is none.

    A text file has a name per line, perhaps after its label; a CSV has `Pixel Value, Class` (Roboflow); JSON is as of
    nnU-Net, {"labels": {"background": 0, ...}}, or of Hugging Face, {"0": "background", ...}. `IGNORED_NAMES` are left
    out.
    """
    for file in (root / name for name in FILES):
        try:
            if file.is_file() and file.stat().st_size <= LARGEST_TABLE:
                names = _read(file)
                if len(names) == count == len(set(names)) and all(0 < len(name) <= LONGEST for name in names):
                    return names
        except (OSError, ValueError, TypeError):  # no file of class names
            continue
    return None


def read_class_table(file: Path) -> list[ClassRow]:
    """The rows of a data set's own table, one per label in the file's order; empty if the file is no such table.

    JSON has `labels`, each with `color` and perhaps `readable` or `name` and `evaluate` (Mapillary). Text has columns
    with tabs between, first a number and last the names, of which the first counts (ADE20K).
    Raises: DataError: the file cannot be read, or a .json file is no JSON.
    """
    form = "JSON" if file.suffix == ".json" else "text"
    with unreadable(file, form, "restore or remove it", OSError, ValueError, RecursionError):
        if form == "JSON":
            return _json_rows(json.loads(file.read_text(encoding="utf-8")))
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    names = [line.split("\t")[-1].split(",")[0].strip() for line in lines if line[:1].isdecimal()]
    return [ClassRow(name) for name in names] if all(names) else []


def _json_rows(content: Any) -> list[ClassRow]:
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, list):
        return []
    if not all(isinstance(label, dict) and len(label.get("color", ())) == 3 for label in labels):
        return []
    return [
        ClassRow(str(label.get("readable", label.get("name", number))), label.get("evaluate", True), (red, green, blue))
        for number, label in enumerate(labels)
        for red, green, blue in [label["color"]]
    ]


def _read(file: Path) -> tuple[str, ...]:
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
    return tuple(line for line in lines if line.lower() not in IGNORED_NAMES)


def _labelled_names(content: Any) -> Iterable[tuple[int, str]]:
    """(label, name) of each class in JSON. Raises: ValueError, TypeError: no class names."""
    for key in ("id2label", "labels", "classes"):
        if isinstance(content, Mapping) and key in content:
            content = content[key]
    if isinstance(content, list):
        return enumerate(name for name in map(str, content) if name.lower() not in IGNORED_NAMES)
    if not isinstance(content, Mapping):
        raise ValueError("no table")
    if all(str(key).isdecimal() for key in content):
        return ((int(label), str(name)) for label, name in content.items())
    return ((int(label), name) for name, label in content.items())


def _in_order(pairs: Iterable[tuple[int, str]]) -> tuple[str, ...]:
    """The names in the order of their labels. Raises: ValueError: the labels are not 0, 1, ..."""
    names = {label: name for label, name in pairs if name.lower() not in IGNORED_NAMES}
    if sorted(names) != list(range(len(names))):
        raise ValueError("labels are missing")
    return tuple(names[label] for label in range(len(names)))
