"""Painting annotations once: a mask for each image in the cache folder, and what all of them hold.

A painted mask has 0 where nothing is drawn and k + 1 for the k-th class name of the set. `data.label_map` turns these
labels into classes.
"""

from __future__ import annotations

import logging
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autoseg.data.annotations import coco, cvat, label_studio, labelme, parts, supervisely, yolo
from autoseg.data.annotations.folder import Folder, read_json
from autoseg.data.annotations.regions import AnnotatedImage, AnnotationSet, paint
from autoseg.data.discovery.pairs import within
from autoseg.data.io.opening import read_header
from autoseg.data.loading.threads import in_threads
from autoseg.errors import DataError
from autoseg.files import cache_folder, digest, file_state, one_line, read_sealed_json, write_sealed_json, writing

IN_JSON = {"labelme": labelme, "coco": coco, "label_studio": label_studio, "supervisely": supervisely}
OTHERS = {"yolo": yolo, "cvat": cvat}
"""Values of `data.layout` for annotations, and their readers; `parts`, several masks an image, is another one."""
ALL = "all"
"""The split of images that no folder or file assigns to one."""
VERSION = 1
_MANIFEST = "annotations.json"

_log = logging.getLogger(__name__)


class _Fault(NamedTuple):
    text: str
    code: str


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
    faults: Mapping[Path, DataError]
    """Mask -> why it could not be painted."""
    said: Sequence[str]


def annotations_in(root: Path, layout: str = "auto", cache: Path | None = None) -> Painted | None:
    """The painted annotations of a folder, of one format or any (`auto`); None if there are none.

    They are painted into the cache folder, again only if an image or a text file below `root` has changed.
    Raises: DataError: several formats, an annotation that is wrong as a whole, or a folder that cannot be written.
    """
    folder = Folder(root)
    if layout == "auto" and not any(folder.texts.values()):
        return None
    paths = [*folder.images, *(path for some in folder.texts.values() for path in some)]
    state = digest([VERSION, [[path.relative_to(root).as_posix(), *file_state(path)] for path in paths]])
    place = (cache or cache_folder()) / "annotations" / digest([str(root), layout])[:16]
    record = _record(place, state)
    if record is None:
        found = find_annotations(folder, layout)
        if found is None:
            return None
        record = _paint_all(found, root, place, state)
    images: dict[str, list[tuple[str, Path, Path]]] = {}
    for number, (split, name, image) in enumerate(record["images"]):
        images.setdefault(split, []).append((name, root / image, place / f"{number:06d}.png"))
    seen = {place / name: _Fault(*fault) for name, fault in record["faults"].items()}
    faults = {mask: DataError(fault.text, code=fault.code) for mask, fault in seen.items()}
    texts = record["layout"], record["title"], record["order"]
    return Painted(*texts, tuple(record["names"]), tuple(record["pixels"]), images, faults, record["said"])


def find_annotations(folder: Folder, layout: str = "auto") -> AnnotationSet | None:
    """The annotations of a folder, of one format or any; None if there are none.

    Raises: DataError: several formats, an annotation that is wrong, or a JSON file that cannot be read.
    """
    if layout == "parts":
        return parts.find(folder)
    by_format: dict[str, list[Path]] = {name: [] for name in IN_JSON}
    broken: list[DataError] = []
    for file in folder.texts[".json"]:
        try:
            content = read_json(file)
        except DataError as reason:
            broken.append(reason)
            continue
        with _sound(file):
            if name := next((name for name, form in IN_JSON.items() if form.is_mine(content)), None):
                by_format[name].append(file)
    found: list[AnnotationSet] = []
    for name, files in by_format.items():
        if files and layout in ("auto", name):
            with _sound(files[0]):
                found.append(IN_JSON[name].find(folder, files))
    for name, form in OTHERS.items():
        with _sound(folder.root):
            if layout in ("auto", name) and (one := form.find(folder)):
                found.append(one)
    if broken and found and found[0].layout in ("labelme", "supervisely"):  # a file an image
        raise broken[0]
    if len(found) > 1:
        first, second = found[0], found[1]
        raise DataError(
            f"{folder.root} holds {first.title} ({first.sources[0].name}) and {second.title} ({second.sources[0].name})"
            f"; set data.layout to {first.layout} or {second.layout}",
            code="layout-ambiguous",
        )
    return found[0] if found else None


@contextmanager
def _sound(source: Path) -> Iterator[None]:
    """Turn what a value of another kind than its format says makes Python raise into a DataError that names the file.

    The values that programs and people are known to write wrongly have errors of their own.
    """
    try:
        yield
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError) as reason:
        raise DataError(
            f"{source} has annotations that are not as their format says ({one_line(reason)[:100]}); export it again",
            code="annotation-invalid",
        ) from None


def _paint_all(found: AnnotationSet, root: Path, place: Path, state: str) -> dict[str, Any]:
    """Paint all masks into a new folder, write what they hold there, move it to `place`, and return what they hold."""
    images = [(split or ALL, one) for split, some in found.images.items() for one in some]
    labels = {name: number for number, name in enumerate(found.names, start=1)}
    faults: dict[str, tuple[str, str]] = {}
    names = _names(images)
    fresh = place.with_name(f"{place.name}.{uuid4().hex[:8]}")

    def work(index: int) -> NDArray[np.int64]:
        one = images[index][1]
        try:
            with _sound(one.source):
                mask = _mask(one, labels)
        except DataError as reason:
            faults[f"{index:06d}.png"] = str(reason), reason.code
            return np.zeros(len(labels) + 1, dtype=np.int64)
        Image.fromarray(mask.astype(np.uint8) if len(labels) < 256 else mask).save(fresh / f"{index:06d}.png")
        return np.bincount(mask.ravel(), minlength=len(labels) + 1)

    _log.info(f"data: paint {len(images):,} masks of {found.title} into {place}")
    try:
        with writing(place, "or set XDG_CACHE_HOME to another folder"):
            fresh.mkdir(parents=True)
            pixels = np.sum(in_threads(work, len(images)), axis=0)
            record = {
                "state": state, "layout": found.layout, "title": found.title, "order": found.order,
                "names": list(found.names), "pixels": pixels.tolist(), "faults": dict(sorted(faults.items())),
                "images": [[split, names[split, one.image], within(root, one.image)] for split, one in images],
                "said": found.said, "crc32": _checksums(fresh, len(images)),
            }  # fmt: skip
            write_sealed_json(fresh / _MANIFEST, record)
            _move(fresh, place, state)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return record


def _move(fresh: Path, place: Path, state: str) -> None:
    """Rename `fresh` to `place`, unless another process has painted the same masks there meanwhile."""
    try:
        if _record(place, state, say=False) is None:
            shutil.rmtree(place, ignore_errors=True)
            fresh.rename(place)
    except OSError:
        if _record(place, state, say=False) is None:
            raise


def _names(images: Sequence[tuple[str, AnnotatedImage]]) -> dict[tuple[str, Path], str]:
    """(split, image) -> the image's path in the folder that holds all images of its split, without suffix."""
    parents: dict[str, list[Path]] = {}
    for split, one in images:
        parents.setdefault(split, []).append(one.image.parent)
    folders = {split: Path(os.path.commonpath(some)) for split, some in parents.items()}
    return {
        (split, one.image): one.image.relative_to(folders[split]).with_suffix("").as_posix() for split, one in images
    }


def _mask(one: AnnotatedImage, labels: Mapping[str, int]) -> NDArray[Any]:
    drawing = one.read()
    size = read_header(one.image).upright_size if drawing.size is None else drawing.size
    return paint(drawing, size, labels, one.source)


def _record(place: Path, state: str, say: bool = True) -> dict[str, Any] | None:
    """What was written of the masks in `place`; None if they are of another state, or damaged, which is said."""
    try:
        record: dict[str, Any] = read_sealed_json(place / _MANIFEST)
        if record["state"] != state:
            return None
        if _checksums(place, len(record["images"])) == record["crc32"]:
            return record
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError):
        pass
    if say:
        _log.warning(f"{place} is damaged, or of another version; making it anew")
    return None


def _checksums(place: Path, count: int) -> list[int]:
    """The CRC-32 of the file of each mask; 0 for one that could not be painted."""

    def checksum(index: int) -> int:
        path = place / f"{index:06d}.png"
        return zlib.crc32(path.read_bytes()) if path.exists() else 0

    return in_threads(checksum, count)
