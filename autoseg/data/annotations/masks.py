"""Painting annotations once: a mask for each image in the cache folder, and what all of them hold.

A painted mask has 0 where nothing is drawn and k + 1 for the k-th class name of the set. `data.label_map` turns these
labels into classes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from autoseg.data.annotations import coco, cvat, label_studio, labelme, supervisely, yolo
from autoseg.data.annotations.folder import Folder, read_json
from autoseg.data.annotations.regions import AnnotatedImage, AnnotationSet, paint
from autoseg.data.io.opening import read_header
from autoseg.data.loading.threads import Progress, in_threads
from autoseg.errors import DataError
from autoseg.files import one_line, write_text

IN_JSON = {"labelme": labelme, "coco": coco, "label_studio": label_studio, "supervisely": supervisely}
OTHERS = {"yolo": yolo, "cvat": cvat}
FORMATS = (*IN_JSON, *OTHERS)
"""Values of `data.layout` for annotations."""
ALL = "all"
"""The split of images that no folder or file assigns to one."""
VERSION = 1
_MANIFEST = "annotations.json"

_log = logging.getLogger(__name__)


class Painted(NamedTuple):
    """The masks of a set of annotations."""

    layout: str
    title: str
    order: str
    """Which region covers which, in words."""
    names: tuple[str, ...]
    """The class names; the k-th has the label k + 1 in the masks."""
    pixels: tuple[int, ...]
    """Pixels of each label in all masks; first of those without a region."""
    images: Mapping[str, Sequence[tuple[str, Path, Path]]]
    """Split -> (name, image, mask) of its images."""
    faults: Mapping[str, DataError]
    """Name of an image -> why it has no mask."""
    said: Sequence[str]


def find_annotations(root: Path, layout: str = "auto") -> AnnotationSet | None:
    """The annotations in a folder, of one format or any; None if there are none.

    Raises: DataError: several formats, an annotation that is wrong, or a JSON file that cannot be read.
    """
    folder = Folder(root)
    by_format: dict[str, list[Path]] = {name: [] for name in IN_JSON}
    broken: list[DataError] = []
    for file in folder.texts[".json"]:
        try:
            content = read_json(file)
        except DataError as reason:
            broken.append(reason)
            continue
        if name := next((name for name, form in IN_JSON.items() if form.is_mine(content)), None):
            by_format[name].append(file)
    found = [
        IN_JSON[name].find(folder, files) for name, files in by_format.items() if files and layout in ("auto", name)
    ]
    found += [one for name, form in OTHERS.items() if layout in ("auto", name) and (one := form.find(folder))]
    if broken and (not found or found[0].layout in ("labelme", "supervisely")):  # a file an image
        raise broken[0]
    if len(found) > 1:
        first, second = found[0], found[1]
        raise DataError(
            f"{root} holds {first.title} ({first.sources[0].name}) and {second.title} ({second.sources[0].name}); set"
            f" data.layout to {first.layout} or {second.layout}",
            code="layout-ambiguous",
        )
    return found[0] if found else None


def painted(found: AnnotationSet, root: Path, cache: Path, progress: Progress | None = None) -> Painted:
    """The masks of annotations, from `cache` if nothing has changed since they were painted.

    Raises: DataError: the cache folder cannot be written.
    """
    images = [(split or ALL, one) for split, some in found.images.items() for one in some]
    state = _digest([VERSION, found.layout, list(found.names), [(str(path), *_state(path)) for path in found.sources],
                     [(split, one.name, str(one.image), *_state(one.image)) for split, one in images]])  # fmt: skip
    folder = cache / "annotations" / _digest([str(root), found.layout])[:16]
    record = _record(folder, state)
    if record is None:
        record = _paint_all(found, images, folder, state, progress)
    by_split: dict[str, list[tuple[str, Path, Path]]] = {}
    faults = {name: DataError(text, code=code) for name, (text, code) in record["faults"].items()}
    for number, (split, one) in enumerate(images):
        by_split.setdefault(split, []).append((one.name, one.image, folder / f"{number:06d}.png"))
    return Painted(
        found.layout,
        found.title,
        found.order,
        tuple(found.names),
        tuple(record["pixels"]),
        by_split,
        faults,
        found.said,
    )


def _paint_all(
    found: AnnotationSet,
    images: Sequence[tuple[str, AnnotatedImage]],
    folder: Path,
    state: str,
    progress: Progress | None,
) -> dict[str, Any]:
    labels = {name: number for number, name in enumerate(found.names, start=1)}
    counts = np.zeros((len(images), len(labels) + 1), dtype=np.int64)
    faults: dict[str, tuple[str, str]] = {}

    def work(index: int) -> None:
        one = images[index][1]
        try:
            mask = _mask(one, labels)
        except DataError as reason:
            faults[one.name] = str(reason), reason.code
            return
        counts[index] = np.bincount(mask.ravel(), minlength=len(labels) + 1)
        Image.fromarray(mask.astype(np.uint8) if len(labels) < 256 else mask).save(folder / f"{index:06d}.png")

    _log.info(f"paint {len(images):,} masks of {found.title} into {folder}: {found.order}")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        in_threads(work, len(images), progress)
        record = {"state": state, "pixels": counts.sum(0).tolist(), "faults": dict(sorted(faults.items()))}
        write_text(folder / _MANIFEST, json.dumps(record))
    except OSError as reason:
        raise DataError(
            f"the masks of {found.title} cannot be written to {folder} ({one_line(reason)}); free space, or set"
            " XDG_CACHE_HOME to another folder",
            code="folder-unwritable",
        ) from None
    return record


def _mask(one: AnnotatedImage, labels: Mapping[str, int]) -> Any:
    drawing = one.read()
    size = read_header(one.image).upright_size if drawing.size is None else drawing.size
    return paint(drawing, size, labels, 0, one.source)


def _record(folder: Path, state: str) -> dict[str, Any] | None:
    """What was written of the masks in `folder`; None if they are of another state."""
    try:
        record: dict[str, Any] = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return record if record["state"] == state else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _state(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds; zeros if the file does not exist."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
