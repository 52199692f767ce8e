"""Tables of classes and of the colours that show them in colour-coded masks.

Letters: H height and W width in pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoseg.data.io.reading import csv_rows, read_text, unreadable
from autoseg.errors import DataError
from autoseg.files import parse_json

Colour: TypeAlias = tuple[int, int, int]
Colours: TypeAlias = Mapping[str | int, Colour]
"""Class name or label -> colour. Named classes get the labels 0, 1, ... in their order."""

TABLE_FILES = ("label_colors.txt", "class_dict.csv", "labelmap.txt", "classes.csv", "colors.csv", "colours.csv")
_LIKE_A_TABLE = re.compile(r".*(class|label|colou?r).*\.(csv|txt)", re.IGNORECASE)
MOST_COLOURS = 1024
"""No table has more colours; photos have."""
LARGEST_TABLE = 2**20
"""Size in bytes of a file of colours or of class names."""
IGNORED_NAMES = ("ignore", "ignored", "void", "unlabelled", "unlabeled", "undefined", "unknown", "nodata")
"""Names whose pixels are ignored; see `is_ignored`."""


class ClassRow(NamedTuple):
    """A label in a data set's own table."""

    name: str
    used: bool = True
    """False: its pixels are ignored."""
    colour: Colour | None = None


class ColourTable:
    """Maps colours to labels; `IGNORED_NAMES` get the ignore label. If a colour comes twice, its first label counts."""

    def __init__(self, colours: Colours, ignore_label: int) -> None:
        numbers = {name: label for label, name in enumerate(named_classes(colours))}
        labels: dict[int, int] = {}
        for key, colour in colours.items():
            label = numbers.get(key, ignore_label) if isinstance(key, str) else key
            labels.setdefault(as_code(np.array(colour)).item(), label)
        self._codes = np.array(sorted(labels), dtype=np.int64)
        self._labels = np.array([labels[code] for code in sorted(labels)], dtype=np.uint16)

    def read(self, colours: NDArray[np.uint8], where: Path) -> NDArray[np.uint16]:
        """(H, W, 3) to labels (H, W). Raises: DataError: a colour that is not in the table."""
        codes = as_code(colours)
        places = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        known = self._codes[places] == codes
        if not known.all():
            row, column = (int(place) for place in np.argwhere(~known)[0])
            raise DataError(
                f"{where} has the colour {colours[row, column].tolist()} at row {row}, column {column}, which"
                " data.colours does not; add it (under the name 'ignore', if it is to be ignored) or correct the mask",
                code="unknown-colour",
            )
        labels: NDArray[np.uint16] = self._labels[places]
        return labels


MaskTable: TypeAlias = ColourTable | int
"""How values in masks become labels: by their colours, or as class 1 from this grey value on and class 0 below it."""


def is_ignored(name: str) -> bool:
    """Whether pixels of this name are ignored, in any spelling of upper and lower case: `Void`, `__ignore__`."""
    return name.strip("_ ").lower() in IGNORED_NAMES


def named_classes(colours: Colours) -> tuple[str, ...]:
    """The named classes in their order, without `IGNORED_NAMES`."""
    return tuple(key for key in colours if isinstance(key, str) and not is_ignored(key))


def table_beside(*folders: Path) -> dict[str | int, Colour] | None:
    """The colours of the first table file in `folders`, if there is one.

    Lines are `64 128 64 Animal` (CamVid), `name,r,g,b` or `name:r,g,b::` (CVAT), also after a class number or a header;
    or all lines are colours alone, those of the labels 0, 1, ...
    If no file has a usual name, any table in a .txt or .csv file named after classes, labels or colours counts.
    Raises: DataError: a file of a usual name is no table, or gives two classes one colour.
    """
    for folder in folders:
        if file := next((folder / name for name in TABLE_FILES if (folder / name).is_file()), None):
            return _read_table(file)
    for file in (file for folder in folders for file in _like_tables(folder)):
        try:
            if (table := _read_table(file)) and len(table) > 1:
                return table
        except DataError as reason:
            if reason.code == "colour-twice":
                raise
            continue  # no table
    return None


def read_class_table(file: Path) -> list[ClassRow]:
    """The rows of a data set's own table, one per label in the file's order; empty if the file is no such table.

    JSON has `labels`, each with `color` and perhaps `readable` or `name` and `evaluate` (Mapillary). Text has columns
    with tabs between, first a number and last the names, of which the first counts (ADE20K).
    Raises: DataError: the file cannot be read, or a .json file is no JSON.
    """
    form = "JSON" if file.suffix == ".json" else "text"
    with unreadable(file, form, "restore or remove it", OSError, ValueError):
        if form == "JSON":
            return _json_rows(parse_json(file.read_text(encoding="utf-8")))
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


def _like_tables(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if _LIKE_A_TABLE.fullmatch(path.name) and path.is_file())
    except OSError:
        return []


def _read_table(file: Path) -> dict[str | int, Colour] | None:
    with unreadable(file, "a table of colours", "correct it", OSError, ValueError):
        if file.stat().st_size > LARGEST_TABLE:
            raise DataError(f"{file} is too large for a table of colours; correct it", code="colour-table-invalid")
        text = read_text(file)
        rows = list(_rows(file, text))
    if len(rows) > 1 and not any(name for name, _ in rows):
        return {label: colour for label, (_, colour) in enumerate(rows)}
    for number, (name, colour) in enumerate(rows):
        if not name:
            raise DataError(f"{file} has the colour {list(colour)} without a name", code="colour-table-invalid")
        first = next((other for other, known in rows[:number] if known == colour and other != name), None)
        if first is not None and not (is_ignored(first) and is_ignored(name)):
            raise DataError(
                f"{file} gives {first!r} and {name!r} the same colour {list(colour)}, which tells no class; join them,"
                " or paint the masks in other colours",
                code="colour-twice",
            )
    return dict(rows) or None


def colours_in(colours: NDArray[np.uint8], most: int = 3) -> tuple[int, list[list[int]]]:
    """The number of colours of (H, W, 3), and the `most` commonest."""
    codes, counts = np.unique(as_code(colours), return_counts=True)
    commonest = codes[np.argsort(-counts, kind="stable")[:most]].tolist()
    return len(codes), [list(as_colour(code)) for code in commonest]


def _rows(file: Path, text: str) -> Iterator[tuple[str, Colour]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colour = _row(line, file.suffix)
        if len(colour) == 3 and all(value <= 255 for value in colour):
            yield name, (colour[0], colour[1], colour[2])
        elif number > 1:  # the first line may be a header
            raise DataError(
                f"{file}, line {number}: write a name and its red, green and blue, 0..255, as name,r,g,b",
                code="colour-table-invalid",
            )


def _row(line: str, suffix: str) -> tuple[str, list[int]]:
    """The words of a line, joined, and its whole numbers."""
    if suffix == ".csv":
        cells = next(iter(csv_rows([line])))
    else:
        cells = [cell for cell in re.split(r"[:,\s]+", line.strip()) if cell]
    numbers = [int(cell[:10]) for cell in cells if cell.isdecimal()]
    if len(numbers) == 4 and cells[0].isdecimal():  # the class number before name and colour
        numbers = numbers[1:]
    return " ".join(cell for cell in cells if not cell.isdecimal()), numbers


def as_colour(code: int | NDArray[np.int64]) -> Colour:
    """The colour of a number."""
    return int(code) >> 16, int(code) >> 8 & 255, int(code) & 255


def as_code(colours: NDArray[Any]) -> NDArray[np.int64]:
    """One number per colour, (..., 3) to (...)."""
    red, green, blue = (colours[..., channel].astype(np.int64) for channel in range(3))
    code: NDArray[np.int64] = red << 16 | green << 8 | blue
    return code
