"""Lists of images, or of images and masks: text files and CSVs, of any system."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from autoseg.data.io.opening import IMAGE_SUFFIXES, is_image
from autoseg.data.io.reading import numbered_rows, read_text, unreadable
from autoseg.errors import ConfigError, DataError
from autoseg.files import one_line, path_fault

IMAGE_COLUMNS = ("image", "images", "img", "stem", "name", "id", "file", "filename", "file_name", "path", "image_path",
                 "image_id", "imageid", "img_path", "input")  # fmt: skip
MASK_COLUMNS = ("mask", "masks", "label", "labels", "gt", "mask_path", "label_path", "annotation", "segmentation",
                "target", "mask_id", "étiquette", "ground_truth", "groundtruth", "seg")  # fmt: skip
_SUFFIX = "|".join(re.escape(suffix) for suffix in IMAGE_SUFFIXES)
_TWO_FILES = re.compile(rf"(.+(?:{_SUFFIX}))\s+(\S.*(?:{_SUFFIX}))", re.IGNORECASE)
_ANY_COLUMN = ("id", "name", "path", "file", "filename", "stem")
"""Words that tell nothing beside others."""
_DELIMITERS = ",;\t|"


def read_list(path: Path) -> list[tuple[str, ...]]:
    """The lines of a list: (stem,) or (image, mask). A tab or comma separates names that have spaces.

    Text is UTF-8, UTF-16 with its mark, or Windows' cp1252; backslashes separate folders too. A CSV may have a header,
    by which the columns of images and masks are found, and a column of numbers. Numbers after a stem (Oxford-IIIT Pet)
    are left out.
    Raises: DataError: it cannot be read, has a line of three parts, or no line.
    """
    with unreadable(path, "a list of images", "correct data.splits", OSError, UnicodeDecodeError):
        lines = enumerate(read_text(path).splitlines(), start=1)
    kept = [(number, line) for number, line in lines if line.strip() and not line.startswith("#")]
    numbers, texts = [number for number, _ in kept], [line for _, line in kept]
    is_csv = path.suffix.lower() == ".csv"
    with unreadable(path, "a table of images", "correct it", ValueError):
        entries, first = _csv_entries(texts) if is_csv else ([_entry(line) for line in texts], 0)
    for number, entry in zip(numbers[first:], entries, strict=False):
        fault = next((fault for cell in entry if (fault := path_fault(cell, expands=False))), None)
        if fault or len(entry) not in (1, 2) or not all(entry):
            raise DataError(
                f"{path}, line {number}: {fault or 'write a stem, or an image and its mask with a tab between them'}",
                code="list-line-invalid",
            )
    if not entries:
        raise DataError(f"{path} lists no images; write a stem, or `image mask`, on each line", code="list-empty")
    return [tuple(plain(cell) for cell in entry) for entry in entries]


def read_table(path: Path, remedy: str) -> list[tuple[int, list[str]]]:
    """Number of the line and cells of each row of a CSV, in any encoding and with any delimiter that lists may have.

    Raises: ConfigError: it is missing, or cannot be read; do `remedy`.
    """
    try:
        return [(number, row) for number, row in _rows(read_text(path).splitlines()) if any(row)]
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; {remedy}", code="group-table-missing") from None
    except (OSError, ValueError) as reason:
        raise ConfigError(
            f"{path} cannot be read as a table ({one_line(reason)}); {remedy}", code="file-unreadable"
        ) from None


def plain(name: str) -> str:
    """A name of a file with slashes, and with letters and their accents composed, as most systems store them."""
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def find_listed(root: Path, name: str) -> Path:
    """The file that a list names. `/JPEGImages/a.jpg` may be relative to `root`, as in the lists of augmented VOC.

    Apple's systems store accents apart from their letters. The path may not exist.
    """
    names = [name, name.lstrip("/")] if name.startswith("/") else [name]
    paths = [root / unicodedata.normalize(form, one) for one in names for form in ("NFC", "NFD")]
    return next((path for path in paths if os.path.exists(path)), paths[0])  # false of names that are too long


def _entry(line: str) -> tuple[str, ...]:
    """The cells of a line of a text file."""
    line = line.strip()
    if separator := next((mark for mark in "\t," if mark in line), None):
        return tuple(part.strip() for part in line.split(separator))
    if both := _TWO_FILES.fullmatch(line):
        return both.groups()
    parts = line.split()
    if len(parts) == 4 and all(part.isdecimal() for part in parts[1:]):
        return (parts[0],)
    return tuple(parts) if len(parts) == 2 and any(map(is_image, parts)) else (line,)  # else a name with a space


def _csv_entries(lines: Sequence[str]) -> tuple[list[tuple[str, ...]], int]:
    """The entries of a table, and the number of lines of its header."""
    rows = [row for _, row in _rows(lines)]
    if not rows:
        return [], 0
    header = [cell.lower() for cell in rows[0]]
    image, mask = _column(header, IMAGE_COLUMNS), _column(header, MASK_COLUMNS)
    first = int(_is_header(header))
    rows = rows[first:]
    columns = list(range(len(header)))
    if image is not None and (mask is not None or len(header) == 1):
        columns = [image] if mask is None else [image, mask]
    else:  # a column of numbers comes from the program that wrote the table
        columns = [
            place for place in columns if not is_index([row[place] for row in rows if place < len(row)])
        ] or columns
    return [tuple(row[place] for place in columns if place < len(row)) for row in rows], first


def _rows(lines: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Number of the line and cells of each row; the first line tells the delimiter."""
    delimiter = next((mark for mark in _DELIMITERS if mark in "".join(lines[:1])), ",")
    return numbered_rows(lines, delimiter)


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    """The only column with one of `names` as a word, such as `image_filename`; else the first that is one of them."""
    worded = [place for place, cell in enumerate(header) if {*re.split(r"[\W_]+", cell)} & {*names} - {*_ANY_COLUMN}]
    exact = (header.index(name) for name in names if name in header)
    return worded[0] if len(worded) == 1 else next(exact, None)


def _is_header(cells: Sequence[str]) -> bool:
    """Whether the first line of a CSV names its columns: no cell is a file's name."""
    if any(is_image(cell) or "." in cell for cell in cells):
        return False
    return len([cell for cell in cells if cell]) >= 2 or cells[0] in IMAGE_COLUMNS


def is_index(cells: Sequence[str]) -> bool:
    """Whether a column only counts: 0, 1, 2, ..."""
    return bool(cells) and all(
        cell.isdecimal() and len(cell) < 10 and int(cell) - place in (0, 1) for place, cell in enumerate(cells)
    )
