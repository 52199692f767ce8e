"""What every export checks before it begins: a known format and a path that may be written."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from autoseg.errors import ExportError
from autoseg.files import user_path


def check_target(path: str | Path, format: str, known: Collection[str], what: str, overwrite: bool) -> Path:
    """The path to write. Raises: ExportError: a format not in `known`, or a file that may not be written."""
    if format not in known:
        raise ExportError(f"unknown format {format!r} for a {what} (known: {', '.join(known)})", code="unknown-format")
    target = user_path(path, ExportError)
    if target.is_dir():
        message = f"{target} is a folder; give the path of a file in it, such as {target / what}.{format}"
        raise ExportError(message, code="file-is-folder")
    if target.exists() and not overwrite:
        raise ExportError(f"{target} exists; give another path, or allow it to be overwritten", code="file-exists")
    if not target.parent.is_dir():
        message = f"{target.parent}, the folder of {target.name}, does not exist; create it first"
        raise ExportError(message, code="folder-missing")
    return target
