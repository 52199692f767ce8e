"""YOLO segmentation (Ultralytics): one text file an image, a polygon a line, and a data.yaml.

https://docs.ultralytics.com/datasets/segment
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.data.annotations.folder import Folder, invalid
from autoseg.data.annotations.regions import AnnotatedImage, AnnotationSet, Drawing, Region, by_area, ring
from autoseg.data.io.opening import is_image, read_header
from autoseg.data.io.reading import missing_file, unreadable
from autoseg.errors import DataError
from autoseg.files import read_yaml

ORDER = "a smaller region covers a larger one"
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def find(folder: Folder) -> AnnotationSet | None:
    """The annotations of a folder; None if there are none. Raises: DataError: one that makes no sense."""
    for file in sorted((*folder.texts[".yaml"], *folder.texts[".yml"]), key=lambda path: len(path.parts)):
        if len(file.relative_to(folder.root).parts) > 2 or not (settings := _settings(file)):
            continue
        names = _names(settings["names"], file)
        sources = [file]
        found = AnnotationSet("yolo", ORDER, sources, names=[names[number] for number in sorted(names)])
        for key, split in SPLITS.items():
            for image in _listed(folder, file, settings, key):
                labels = labels_of(image)
                found.images[split].append(AnnotatedImage(image, labels, partial(read, labels, image, names)))
                sources.append(labels)
        empty = sum(not labels.is_file() for labels in sources[1:])
        if empty == len(sources) - 1:
            continue
        found.say(empty, "image", "without a label file hold no object")
        return found
    return None


def _settings(file: Path) -> Mapping[str, Any] | None:
    """The content of a data.yaml; None if the file is another."""
    try:
        settings = read_yaml(file, DataError)
    except DataError:
        return None
    return settings if settings.get("names") and ("train" in settings or "val" in settings) else None


def _names(given: Any, file: Path) -> dict[int, str]:
    names = dict(enumerate(given)) if isinstance(given, list) else given
    good = isinstance(names, dict) and all(isinstance(key, int) and key >= 0 for key in names)
    if not good or not all(isinstance(name, str | int) and str(name).strip() for name in names.values()):
        raise DataError(
            f"{file}: 'names' must list a name for each class, or map numbers to names; correct it",
            code="class-without-name",
        )
    found = {key: str(name).strip() for key, name in names.items()}
    if len(set(found.values())) < len(found):
        raise DataError(f"{file}: 'names' has the same name twice; rename one", code="class-name-twice")
    return found


def _listed(folder: Folder, file: Path, settings: Mapping[str, Any], key: str) -> Iterator[Path]:
    """The images of a split: of a folder, of a text file that lists them, or of several of these."""
    places = settings.get(key)
    for place in places if isinstance(places, list) else [places] if places else []:
        if not isinstance(place, str):
            raise DataError(f"{file}: '{key}' must be a path or a list of paths; correct it", code="wrong-type")
        found = _place(folder, file, settings, place)
        if found is None:
            if key != "test":
                raise DataError(
                    f"{file}: '{key}' is {place}, which is not in {folder.root}; correct it", code="folder-missing"
                )
        elif found.is_dir():
            yield from (image for image in folder.images if image.is_relative_to(found) and image.parts[-2] != "labels")
        else:
            yield from _lines(folder, found)


def _place(folder: Folder, file: Path, settings: Mapping[str, Any], place: str) -> Path | None:
    """Where a path of data.yaml leads: from `path`, from the file's folder, or from where another machine had it."""
    base = settings.get("path")
    relative = Path(place.replace("\\", "/"))
    starts = [file.parent / str(base).replace("\\", "/")] if base else []
    places = [(start / relative).resolve() for start in (*starts, file.parent, folder.root)]
    parts = [part for part in relative.parts if part not in ("..", ".", "/")]  # Roboflow writes ../train/images
    places += [folder.root.joinpath(*parts[first:]) for first in range(len(parts))]
    return next((place for place in places if place.exists() and place.is_relative_to(folder.root)), None)


def _lines(folder: Folder, listing: Path) -> Iterator[Path]:
    with unreadable(listing, "a list of images", "correct it", OSError, UnicodeDecodeError):
        lines = listing.read_text(encoding="utf-8-sig").splitlines()
    for line in (line.strip() for line in lines):
        if line and is_image(line):
            yield folder.image(line, [listing.parent, folder.root], listing)


def labels_of(image: Path) -> Path:
    """The label file of an image: the last folder `images` of its path becomes `labels`."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def read(labels: Path, image: Path, names: Mapping[int, str]) -> Drawing:
    """What a label file draws; an image without one holds no object."""
    size = read_header(image).upright_size
    if not labels.is_file():
        return Drawing(size, [])
    with unreadable(labels, "text", "export it again", OSError, UnicodeDecodeError), missing_file(labels):
        lines = labels.read_text(encoding="utf-8-sig").splitlines()
    rows = ((row, line.split()) for row, line in enumerate(lines, start=1))
    return Drawing(size, by_area(_region(cells, size, names, labels, row) for row, cells in rows if cells))


def _region(cells: list[str], size: tuple[int, int], names: Mapping[int, str], labels: Path, row: int) -> Region:
    where = f"{labels}, line {row}"
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        raise invalid(f"{where}: write a class number and x y pairs", "correct it") from None
    if len(values) == 5:
        raise DataError(
            f"{where} has a box of an object detector, which is no outline; export polygons", code="boxes-not-regions"
        )
    if values[0] not in names:
        raise DataError(
            f"{where} has the class {cells[0]}, but data.yaml names {len(names)} (0..{max(names, default=0)});"
            " correct one",
            code="unknown-class",
        )
    if len(values) % 2 == 0:
        raise invalid(f"{where}: an x has no y", "correct it")
    corners = np.array(values[1:]).reshape(-1, 2) * (size[1], size[0])
    return Region.of(names[int(values[0])], ring(corners, where))
