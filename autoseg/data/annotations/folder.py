"""The files of a folder that may hold annotations, listed once for all formats."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from autoseg.data.discovery.folder_layouts import split_of
from autoseg.data.discovery.pairs import within
from autoseg.data.io.opening import is_hidden, is_image
from autoseg.data.io.reading import missing_file, unreadable
from autoseg.errors import DataError
from autoseg.files import file_state, short

MOST_FILES = 2_000_000
TEXTS = (".json", ".xml", ".txt", ".yaml", ".yml")


class Folder:
    """The images and the text files below a folder. `by_name`, `by_stem`: name in lower case -> images of that name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images: list[Path] = []
        self.texts: dict[str, list[Path]] = {suffix: [] for suffix in TEXTS}
        self.by_name: dict[str, list[Path]] = defaultdict(list)
        self.by_stem: dict[str, list[Path]] = defaultdict(list)
        count = 0
        for place, folders, names in os.walk(root, followlinks=True):
            folders[:] = sorted(name for name in folders if not is_hidden(name))
            for name in sorted(names):
                if is_hidden(name):
                    continue
                path, suffix = Path(place, name), os.path.splitext(name)[1].lower()
                if is_image(name):
                    self.images.append(path)
                    self.by_name[name.lower()].append(path)
                    self.by_stem[path.stem.lower()].append(path)
                elif suffix in self.texts:
                    self.texts[suffix].append(path)
            count += len(names)
            if count > MOST_FILES:
                break

    def image(self, named: str, beside: Sequence[Path], source: Path) -> Path:
        """The image that an annotation names: relative to the folders `beside`, else the only one of its file name.

        If there is none of that name, the suffix may differ, since images are often converted after they are annotated.

        Raises: DataError: there is none, or there are several.
        """
        relative = PurePosixPath(named.replace("\\", "/").strip())
        for folder in beside:
            try:
                path = Path(os.path.normpath(folder / relative))
                if path.is_file() and path.is_relative_to(self.root):
                    return path
            except (OSError, ValueError):  # a name too long, or with a zero byte
                break
        found = self.by_name.get(relative.name.lower(), [])
        ends = [
            path for path in found if path.as_posix().lower().endswith("/" + relative.as_posix().lower().lstrip("./"))
        ]
        found = ends if len(ends) == 1 else found or self.by_stem.get(relative.stem.lower(), [])
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(
                f"{source} names the image {named}, and there are {len(found)} of that name, such as"
                f" {within(self.root, found[0])} and {within(self.root, found[1])}; rename one",
                code="image-ambiguous",
            )
        raise DataError(
            f"{source} names the image {named}, which is not in {self.root}; add it, or correct the annotation",
            code="listed-file-missing",
        )

    def split(self, *paths: Path | str) -> str | None:
        """The split that a path tells: the first part below the root, or file name, with a word such as `val`."""
        for path in paths:
            parts = Path(path).relative_to(self.root).parts if isinstance(path, Path) else (path,)
            if split := next((split for part in parts if (split := split_of(part))), None):
                return split
        return None


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises: DataError: it cannot be read."""
    with unreadable(path, "JSON", "export it again", OSError, ValueError, RecursionError), missing_file(path):
        return _content(path, *file_state(path))


@lru_cache(maxsize=1)  # a large file is read to recognise it, and then for what it holds
def _content(path: Path, size: int, changed: int) -> Any:
    return json.loads(path.read_text(encoding="utf-8-sig"))


def invalid(what: str, remedy: str = "export it again") -> DataError:
    """The error of an annotation that makes no sense. what: the place and what is wrong there."""
    return DataError(f"{what}; {remedy}", code="annotation-invalid")


def number(value: object, source: Path, what: str) -> float:
    """A finite number. Raises: DataError: it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == float("inf"):
        raise invalid(f"{source}: {what} is {short(value)}, which is no number")
    return float(value)


def image_extent(height: object, width: object, source: Path) -> tuple[int, int]:
    """(H, W) from an annotation. Raises: DataError: these are no lengths."""
    sides = number(height, source, "the height"), number(width, source, "the width")
    if min(sides) < 1 or any(side != int(side) for side in sides):
        raise invalid(f"{source} says that its image is {width}x{height}")
    return int(sides[0]), int(sides[1])


def class_name(value: object, source: Path, what: str) -> str:
    """A class name. Raises: DataError: it is missing or empty."""
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{source}: {what} has no name; give it one", code="class-without-name")
    return value.strip()
