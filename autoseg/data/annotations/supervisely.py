"""Supervisely: a meta.json, and one JSON file an image. https://docs.supervisely.com/data-organization/import-export"""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from autoseg.data.annotations.folder import Folder, class_name, image_extent, invalid, read_json
from autoseg.data.annotations.regions import AnnotatedImage, AnnotationSet, Bitmap, Drawing, Region, box, ring
from autoseg.errors import DataError

ORDER = "a later object covers an earlier one"
WITHOUT_AREA = ("point", "line", "polyline", "graph", "cuboid", "any_shape")


def is_mine(content: Any) -> bool:
    """Whether JSON is an annotation of Supervisely, or the list of its classes."""
    if not isinstance(content, dict):
        return False
    if isinstance(classes := content.get("classes"), list):
        return bool(classes) and all(isinstance(one, dict) and {"title", "shape"} & one.keys() for one in classes)
    return isinstance(content.get("objects"), list) and isinstance(content.get("size"), dict)


def find(folder: Folder, files: Sequence[Path]) -> AnnotationSet:
    """The annotations in files of this format. Raises: DataError: one that makes no sense."""
    metas = [file for file in files if "classes" in read_json(file)]
    if not metas:
        raise DataError(f"{folder.root} has annotations of Supervisely, but no meta.json; add it", code="file-missing")
    names = [class_name(one.get("title"), file, "a class") for file in metas for one in read_json(file)["classes"]]
    found = AnnotationSet("supervisely", ORDER, files, names=list(dict.fromkeys(names)))
    without_area = 0
    for file in (file for file in files if file not in metas):
        content = read_json(file)
        without_area += sum(one.get("geometryType") in WITHOUT_AREA for one in content["objects"])
        image = folder.image(file.stem, [file.parent.parent / "img"], file)
        tags = folder.split(*(str(tag.get("name", "")) for tag in content.get("tags", ())))
        found.images[tags or folder.split(file)].append(AnnotatedImage(image, file, partial(read, file)))
    found.say(without_area, "object", "without area left out")
    return found


def read(file: Path) -> Drawing:
    """What is drawn on an image."""
    content = read_json(file)
    size = content.get("size") or {}
    drawn = (_region(one, file) for one in content["objects"])
    return Drawing(image_extent(size.get("height"), size.get("width"), file), [one for one in drawn if one is not None])


def _region(one: dict[str, Any], file: Path) -> Region | None:
    name, kind = class_name(one.get("classTitle"), file, "an object"), one.get("geometryType")
    if kind in WITHOUT_AREA:
        return None
    points = one.get("points") or {}
    if kind == "polygon":
        rings = [points.get("exterior"), *(points.get("interior") or ())]
        return Region.of(name, *(ring(some, file, f"a polygon of {name!r}") for some in rings))
    if kind == "rectangle":
        try:
            (left, top), (right, bottom) = points["exterior"]
            # the corners are pixels, and both belong to the box
            return Region.of(name, box(left, top, right + 1, bottom + 1))
        except (KeyError, TypeError, ValueError):
            raise invalid(f"{file} has a rectangle without two corners", "correct it") from None
    if kind == "bitmap":
        return Region(name, bitmap=_bitmap(one.get("bitmap") or {}, file))
    raise DataError(f"{file} has an object of type {kind!r}; export polygons or bitmaps", code="shape-unknown")


def _bitmap(content: dict[str, Any], file: Path) -> Bitmap:
    try:
        left, top = content["origin"]
        with Image.open(io.BytesIO(zlib.decompress(base64.b64decode(content["data"])))) as image:
            last = np.asarray(image if image.mode != "P" else image.convert("RGBA"))
        pixels = last if last.ndim == 2 else last[:, :, -1]
        return Bitmap(int(top), int(left), pixels > 0)
    except Exception:  # base64, zlib and Pillow raise many kinds
        raise invalid(f"{file} has a bitmap that cannot be read") from None
