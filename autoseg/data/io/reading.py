"""Errors of files that cannot be read, as one clear line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoseg.errors import DataError
from autoseg.files import one_line


@contextmanager
def unreadable(path: Path, form: str, remedy: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn `errors`, except a DataError, into a DataError: `path` cannot be read as `form`; do `remedy`."""
    try:
        yield
    except DataError:
        raise
    except errors as reason:
        raise DataError(
            f"{path} cannot be read as {form} ({one_line(reason)}); {remedy}", code="file-unreadable"
        ) from None


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
