"""Errors of files that cannot be read, as one clear line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from autoseg.errors import DataError
from autoseg.files import cut, one_line


@contextmanager
def unreadable(path: Path, form: str, remedy: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn `errors`, except a DataError, into a DataError: `path` cannot be read as `form`; do `remedy`."""
    try:
        yield
    except DataError:
        raise
    except errors as reason:
        raise DataError(
            f"{path} cannot be read as {form} ({cut(one_line(reason), 200)}); {remedy}", code="file-unreadable"
        ) from None


def csv_rows(lines: Iterable[str], delimiter: str = ",") -> list[list[str]]:
    """The cells of a table, without spaces around them. Raises: ValueError: no table, such as one with a huge cell."""
    return [row for _, row in numbered_rows(lines, delimiter)]


def numbered_rows(lines: Iterable[str], delimiter: str = ",") -> list[tuple[int, list[str]]]:
    """As `csv_rows`, with the number of each row's last line."""
    reader = csv.reader(lines, delimiter=delimiter)
    try:
        return [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as reason:
        raise ValueError(f"{one_line(reason)}") from None


def read_text(path: Path) -> str:
    """A text in UTF-8, UTF-16 or Windows' cp1252.

    Nothing tells cp1252 from the encodings of other languages but that few letters are outside ASCII, and no signs.
    Raises: OSError. UnicodeDecodeError: another encoding.
    """
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    zeros = [content[first::2].count(0) for first in (0, 1)]  # UTF-16 without its mark has one in most letters
    if max(zeros) > len(content) // 4:
        return content.decode("utf-16-be" if zeros[0] > zeros[1] else "utf-16-le")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
        strange = [letter for letter in text if not letter.isascii()]
        letters = sum(letter.isascii() and letter.isalpha() for letter in text)
        if not all(map(str.isalpha, strange)) or 2 * len(strange) > letters or "\0" in text:
            raise
        return text


@contextmanager
def missing_file(path: Path) -> Iterator[None]:
    """Turn the errors of a file of the data set that is missing or forbidden into a DataError."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist; restore it or take it out of the data set", code="file-missing"
        ) from None
    except PermissionError:
        raise DataError(
            f"{path} may not be read; change its permissions, or remove it", code="permission-denied"
        ) from None
