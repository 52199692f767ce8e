"""Names of classes in a file that lies beside the data."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from autoseg.data.io.colour_tables import IGNORED_NAMES, Colour
from autoseg.errors import DataError
from autoseg.files import one_line

FILES = (
    *("classes.txt", "class_names.txt", "names.txt", "labels.txt", "_classes.csv", "train/_classes.csv"),
    *("dataset.json", "id2label.json", "classes.json"),
)
LARGEST = 2**20
"""Bytes."""
LONGEST = 80
"""Letters of a name."""
_NUMBERED = re.compile(r"(\d+)\s*[:,;\s]\s*(\S.*)")


class ClassRow(NamedTuple):
    """A label of a data set's own table."""

    name: str
    used: bool = True
    """False: it is ignored."""
    colour: Colour | None = None


def names_beside(root: Path, count: int) -> tuple[str, ...] | None:
    """The names of `count` classes by the first of `FILES` in `root` that says so many; None where there is none.

    A text with a name a line, with or without its label before it; `Pixel Value, Class` (Roboflow); JSON as nnU-Net's
    {"labels": {"background": 0, ...}} or Hugging Face's {"0": "background", ...}. What is ignored does not count.
    """
    for file in (root / name for name in FILES):
        try:
            if file.is_file() and file.stat().st_size <= LARGEST:
                names = _read(file)
                if len(names) == count == len(set(names)) and all(0 < len(name) <= LONGEST for name in names):
                    return names
        except (OSError, ValueError, TypeError):  # something else of that name
            continue
    return None


def read_class_table(file: Path) -> list[ClassRow]:
    """The rows of a data set's own table, one a label from its first on; none where the file is no such table.

    JSON with `labels`, each with `color` and perhaps `readable` or `name` and `evaluate` (Mapillary); or columns with
    tabs between: a number first, and names last, of which the one before a comma counts (ADE20K).
    Raises: DataError: it cannot be read, or a file `.json` is no JSON.
    """
    try:
        if file.suffix == ".json":
            return _json_rows(json.loads(file.read_text(encoding="utf-8")))
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, ValueError, RecursionError) as reason:
        form = "JSON" if file.suffix == ".json" else "text"
        raise DataError(
            f"{file} cannot be read as {form} ({one_line(reason)}); restore or remove it", code="file-unreadable"
        ) from None
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
    """Raises: OSError, ValueError, TypeError: it holds no names."""
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix == ".json":
        return _in_order(_of_json(json.loads(text)))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if file.suffix == ".csv":
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines)]
        return _in_order((int(row[0]), row[1]) for row in rows if len(row) == 2 and row[0].isdecimal())
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if numbered and all(numbered):
        return _in_order((int(found[1]), found[2]) for found in numbered if found)
    return tuple(line for line in lines if line.lower() not in IGNORED_NAMES)


def _of_json(content: Any) -> Iterable[tuple[int, str]]:
    """(label, name) of each class."""
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
    """The names by their labels 0, 1, ... Raises: ValueError: other labels."""
    names = {label: name for label, name in pairs if name.lower() not in IGNORED_NAMES}
    if sorted(names) != list(range(len(names))):
        raise ValueError("labels are missing")
    return tuple(names[label] for label in range(len(names)))
